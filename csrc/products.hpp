// Matrix products in register tiles; of plain numbers by Eigen.
//
// Every matrix is row-major with a leading dimension. A register of lanes holds neighbouring runs
// or, where there is one run, neighbouring samples (`Rows`). One operand may be plain double while
// the other is a Lane: data that all runs share, or weights that all samples share. Sums run over
// the inner index in one fixed order, so that bits depend on the shapes alone.
#pragma once

#include <Eigen/Core>
#include <cstring>
#include <type_traits>
#include <utility>

#include "lanes.hpp"

namespace pylyap {

template <class T>
struct Matrix {
  T* data;
  Index rows, cols, stride;  // element (i, j) is data[i * stride + j]

  Matrix(T* data_, Index rows_, Index cols_, Index stride_)
      : data(data_), rows(rows_), cols(cols_), stride(stride_) {}
  Matrix(T* data_, Index rows_, Index cols_) : Matrix(data_, rows_, cols_, cols_) {}
  template <class U>
    requires std::is_same_v<T, const U>
  Matrix(const Matrix<U>& other) : Matrix(other.data, other.rows, other.cols, other.stride) {}
};

// One run's numbers along samples, in registers of W: number s of row r is number s % W of
// data[r * stride + s / W]. Past the last sample stands anything.
template <class T>
struct Rows {
  T* data;
  Index rows, cols, stride;  // cols in samples, stride in registers

  Rows(T* data_, Index rows_, Index cols_, Index stride_)
      : data(data_), rows(rows_), cols(cols_), stride(stride_) {}
  template <class U>
    requires std::is_same_v<T, const U>
  Rows(const Rows<U>& other) : Rows(other.data, other.rows, other.cols, other.stride) {}

  Index registers() const { return (cols + kNumbers<T> - 1) / kNumbers<T>; }
  operator Matrix<T>() const { return {data, rows, registers(), stride}; }
};

// Arrays over samples: of one run with S = double or float, of W runs with S = Lane. T is the
// register, const or not.
template <class S, class T>
using Array = std::conditional_t<kWidth<S> == 1, Rows<T>, Matrix<T>>;

template <class S>
inline constexpr Index kPerStride = kNumbers<Register<S>> / kWidth<S>;

template <class S>
Array<S, Register<S>> array(S* data, Index rows, Index cols, Index stride) {
  return {reinterpret_cast<Register<S>*>(data), rows, cols, stride / kPerStride<S>};
}
template <class S>
Array<S, const Register<S>> array(const S* data, Index rows, Index cols, Index stride) {
  return {reinterpret_cast<const Register<S>*>(data), rows, cols, stride / kPerStride<S>};
}
// Data: registers of samples for one run, numbers that W runs share otherwise.
template <class S>
auto shared_array(const Number<S>* data, Index rows, Index cols, Index stride) {
  if constexpr (kWidth<S> == 1) {
    return array<S>(data, rows, cols, stride);
  } else {
    return Matrix<const double>(data, rows, cols, stride);
  }
}

namespace detail {

// acc[r][c] (+)= sum over p of x(r, p) * y(c, p), operands addressed by strides (xr, xp) and (yc,
// yp).
template <Index R, Index C, class S, class X, class Y>
[[gnu::flatten]] inline void tile(const X* x, Index xr, Index xp, const Y* y, Index yc, Index yp,
                                  Index count, S* out, Index out_stride, bool add) {
  S acc[R][C] = {};
  for (Index p = 0; p < count; ++p) {
    S a[R];
    unrolled<R>([&](auto r) {
      const S value = shared<S>(x[r * xr + p * xp]);
      a[r] = C > 1 ? pinned(value) : value;
    });
    unrolled<C>([&](auto c) {
      const S value = shared<S>(y[c * yc + p * yp]), b = R > 1 ? pinned(value) : value;
      unrolled<R>([&](auto r) { acc[r][c] = a[r] * b + acc[r][c]; });
    });
  }
  unrolled<R>([&](auto r) {
    unrolled<C>([&](auto c) {
      S* target = out + r * out_stride + c;
      *target = add ? *target + acc[r][c] : acc[r][c];
    });
  });
}

// Calls f<size>(begin) for pieces of at most `Most` that cover 0 ... count - 1, as equal as can be.
template <Index Most, class F>
inline void in_pieces(Index count, F&& f) {
  const Index pieces = (count + Most - 1) / Most;
  for (Index p = 0, begin = 0; p < pieces; ++p) {
    const Index size = (count - begin) / (pieces - p);
    [&]<Index... I>(std::integer_sequence<Index, I...>) {
      ((size == I + 1 ? f.template operator()<I + 1>(begin) : void()), ...);
    }(std::make_integer_sequence<Index, Most>{});
    begin += size;
  }
}

// The largest tile: R x C accumulators, R + 1 operands.
inline constexpr Index kTileRows = kRegisters >= 32 ? 6 : 3, kTileCols = 4;

// `by_columns`: the operand of the columns is the one to keep in cache.
template <class S, class X, class Y>
[[gnu::noinline]] void tiled(const X* x, Index xr, Index xp, const Y* y, Index yc, Index yp,
                             Index count, Matrix<S> out, bool add, bool by_columns) {
  auto one = [&]<Index R, Index C>(Index r, Index c) {
    tile<R, C>(x + r * xr, xr, xp, y + c * yc, yc, yp, count, out.data + r * out.stride + c,
               out.stride, add);
  };
  if (by_columns) {
    in_pieces<kTileCols>(out.cols, [&]<Index C>(Index c) {
      in_pieces<kTileRows>(out.rows,
                           [&]<Index R>(Index r) { one.template operator()<R, C>(r, c); });
    });
  } else {
    in_pieces<kTileRows>(out.rows, [&]<Index R>(Index r) {
      in_pieces<kTileCols>(out.cols,
                           [&]<Index C>(Index c) { one.template operator()<R, C>(r, c); });
    });
  }
}

// out[r][c] (+)= sum over samples of x(r, s) * y(c, s).
template <Index R, Index C, class T>
[[gnu::flatten]] inline void dot_tile(const T* x, Index xr, const T* y, Index yc, Index samples,
                                      Number<T>* out, Index out_stride, bool add) {
  constexpr Index W = kNumbers<T>;
  T acc[R][C] = {};
  auto step = [&](Index p, auto&& read) __attribute__((always_inline)) {
    T a[R];
    unrolled<R>([&](auto r) {
      const T value = read(x[r * xr + p]);
      a[r] = C > 1 ? pinned(value) : value;
    });
    unrolled<C>([&](auto c) {
      const T value = read(y[c * yc + p]), b = R > 1 ? pinned(value) : value;
      unrolled<R>([&](auto r) { acc[r][c] = a[r] * b + acc[r][c]; });
    });
  };
  const Index whole = samples / W, rest = samples % W;
  for (Index p = 0; p < whole; ++p) step(p, [](const T& v) { return v; });
  if (rest > 0) {
    T place{};
    for (Index l = 0; l < W; ++l) place[l] = static_cast<Number<T>>(l);
    const auto inside = place < splat<T>(static_cast<double>(rest));
    step(whole, [&](const T& v) { return inside ? v : T{}; });
  }
  unrolled<R>([&](auto r) {
    unrolled<C>([&](auto c) {
      Number<T>* target = out + r * out_stride + c;
      *target = add ? *target + total(acc[r][c]) : total(acc[r][c]);
    });
  });
}

template <class T>
[[gnu::noinline]] void dots(Rows<const T> x, Rows<const T> y, Matrix<Number<T>> out, bool add) {
  in_pieces<kTileRows>(out.rows, [&]<Index R>(Index r) {
    in_pieces<kTileCols>(out.cols, [&]<Index C>(Index c) {
      dot_tile<R, C>(x.data + r * x.stride, x.stride, y.data + c * y.stride, y.stride, x.cols,
                     out.data + r * out.stride + c, out.stride, add);
    });
  });
}

template <class T>
auto eigen(const Matrix<T>& m) {
  using Plain =
      Eigen::Matrix<std::remove_const_t<T>, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using Maybe = std::conditional_t<std::is_const_v<T>, const Plain, Plain>;
  return Eigen::Map<Maybe, 0, Eigen::OuterStride<>>(m.data, m.rows, m.cols,
                                                    Eigen::OuterStride<>(m.stride));
}
template <class T>
auto eigen(const Rows<T>& m) {
  using Plain = Number<std::remove_const_t<T>>;
  using Maybe = std::conditional_t<std::is_const_v<T>, const Plain, Plain>;
  return eigen(
      Matrix<Maybe>(reinterpret_cast<Maybe*>(m.data), m.rows, m.cols, m.stride * kNumbers<T>));
}

// Numbers up to which the dots, which copy nothing, are faster than Eigen, which packs operands so
// that they stream. Measured on a Xeon of family 6, model 207, with operands of 10 x 33 to
// 1000 x 1001 and 128 to 456 samples (November 2026).
template <class T>
inline constexpr Index kStreamed = Index{1} << (sizeof(Number<T>) == 4 ? 14 : 16);

template <class E, class P>
void store(E&& out, const P& product, bool add) {
  if (add) {
    out.noalias() += product;
  } else {
    out.noalias() = product;
  }
}

}  // namespace detail

// out (+)= a b
template <class A, class B>
void multiply(Matrix<A> a, Matrix<B> b, Matrix<Lane> out, bool add = false) {
  detail::tiled(a.data, a.stride, 1, b.data, 1, b.stride, a.cols, out, add, true);
}
template <class A, class B, class T>
void multiply(Matrix<A> a, Rows<B> b, Rows<T> out, bool add = false) {
  detail::tiled(a.data, a.stride, 1, b.data, 1, b.stride, a.cols, Matrix<T>(out), add, true);
}
template <class A, class B>
void multiply(Matrix<A> a, Matrix<B> b, Matrix<double> out, bool add = false) {
  detail::store(detail::eigen(out), detail::eigen(a) * detail::eigen(b), add);
}

// out (+)= a b^T
template <class A, class B>
void multiply_nt(Matrix<A> a, Matrix<B> b, Matrix<Lane> out, bool add = false) {
  detail::tiled(a.data, a.stride, 1, b.data, b.stride, 1, a.cols, out, add, false);
}
template <class A, class B, class T>
void multiply_nt(Rows<A> a, Rows<B> b, Matrix<T> out, bool add = false) {
  using R = std::remove_const_t<A>;
  if (a.rows <= 2 * detail::kTileRows || b.rows * b.cols <= detail::kStreamed<T>) {
    detail::dots<R>(a, b, out, add);
  } else {
    detail::store(detail::eigen(out), detail::eigen(a) * detail::eigen(b).transpose(), add);
  }
}
template <class A, class B>
void multiply_nt(Matrix<A> a, Matrix<B> b, Matrix<double> out, bool add = false) {
  detail::store(detail::eigen(out), detail::eigen(a) * detail::eigen(b).transpose(), add);
}

// out (+)= a^T b
template <class A, class B>
void multiply_tn(Matrix<A> a, Matrix<B> b, Matrix<Lane> out, bool add = false) {
  detail::tiled(a.data, 1, a.stride, b.data, 1, b.stride, a.rows, out, add, true);
}
template <class A, class B, class T>
void multiply_tn(Matrix<A> a, Rows<B> b, Rows<T> out, bool add = false) {
  detail::tiled(a.data, 1, a.stride, b.data, 1, b.stride, a.rows, Matrix<T>(out), add, true);
}

}  // namespace pylyap
