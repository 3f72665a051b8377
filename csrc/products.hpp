// Matrix products in register tiles; of plain numbers by Eigen.
//
// Every matrix is row-major with a leading dimension. A register of lanes holds neighbouring runs
// or, where there is one run, neighbouring samples (`Rows`). One operand may be plain double while
// the other is a Lane: data that all runs share, or weights that all samples share. Sums run over
// the inner index in one fixed order, so that bits depend on the shapes alone.
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

#include "lanes.hpp"
#include "samples.hpp"

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

// Numbers of type O in a register.
template <class S, class O>
inline constexpr Index kPer = static_cast<Index>(sizeof(S) / sizeof(O));

// out(r, c) (+)= sum over p of x(r, p) * y(c, p) in registers S, operands addressed by strides (xr,
// xp) and (yc, yp); rows of out, registers or the numbers in them, are out_stride apart.
template <class S, Index R, Index C, class X, class Y, class O>
[[gnu::flatten]] inline void tile(const X* x, Index xr, Index xp, const Y* y, Index yc, Index yp,
                                  Index count, O* out, Index out_stride, bool add) {
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
      O* target = out + r * out_stride + c * kPer<S, O>;
      S sum = acc[r][c];
      if (add) {
        S before;
        std::memcpy(&before, target, sizeof before);
        sum = before + sum;
      }
      std::memcpy(target, &sum, sizeof sum);
    });
  });
}

// Calls f<size>(begin) for pieces of at most `Most` that cover 0 ... count - 1, as equal as can be.
template <Index Most, class F>
inline void in_pieces(Index count, F&& f) {
  if (count <= 0) return;
  const Index pieces = (count + Most - 1) / Most, least = count / pieces;
  const Index small = pieces * (least + 1) - count;  // pieces of the lesser size, which come first
  for (Index p = 0, begin = 0; p < pieces; ++p) {
    const Index size = p < small ? least : least + 1;
    [&]<Index... I>(std::integer_sequence<Index, I...>) {
      ((size == I + 1 ? f.template operator()<I + 1>(begin) : void()), ...);
    }(std::make_integer_sequence<Index, Most>{});
    begin += size;
  }
}

// The largest tile: R x C accumulators, R + 1 operands.
inline constexpr Index kTileRows = kRegisters >= 32 ? 6 : 3, kTileCols = 4;

// Which operand of a product stays in the cache while the other passes: that of the columns of out,
// or that of its rows.
enum class Keep { columns, rows };

// The same for any number of rows, and of columns in registers.
template <Keep keep, class S, class X, class Y, class O>
[[gnu::noinline]] void tiled(const X* x, Index xr, Index xp, const Y* y, Index yc, Index yp,
                             Index count, Index rows, Index cols, O* out, Index out_stride,
                             bool add) {
  auto one = [&]<Index R, Index C>(Index r, Index c) {
    tile<S, R, C>(x + r * xr, xr, xp, y + c * yc, yc, yp, count,
                  out + r * out_stride + c * kPer<S, O>, out_stride, add);
  };
  if constexpr (keep == Keep::columns) {
    in_pieces<kTileCols>(cols, [&]<Index C>(Index c) {
      in_pieces<kTileRows>(rows, [&]<Index R>(Index r) { one.template operator()<R, C>(r, c); });
    });
  } else {
    in_pieces<kTileRows>(rows, [&]<Index R>(Index r) {
      in_pieces<kTileCols>(cols, [&]<Index C>(Index c) { one.template operator()<R, C>(r, c); });
    });
  }
}
template <Keep keep, class S, class X, class Y>
void tiled(const X* x, Index xr, Index xp, const Y* y, Index yc, Index yp, Index count,
           Matrix<S> out, bool add) {
  tiled<keep, S>(x, xr, xp, y, yc, yp, count, out.rows, out.cols, out.data, out.stride, add);
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

// Rows and columns of a square of registers exchanged, halves of ever smaller squares at a time.
template <class R>
[[gnu::flatten]] inline void transpose(R (&square)[kNumbers<R>]) {
  constexpr Index W = kNumbers<R>;
  using Places = decltype(R{} < R{});
  auto halves = [&]<Index H, Index... I>(std::integral_constant<Index, H>,
                                         std::integer_sequence<Index, I...>) {
    const Places low{(I & H ? W + I - H : I)...}, high{(I & H ? W + I : I + H)...};
    unrolled<W>([&](auto l) {
      if constexpr (!(l & H)) {
        const R a = square[l], b = square[l + H];
        square[l] = __builtin_shuffle(a, b, low);
        square[l + H] = __builtin_shuffle(a, b, high);
      }
    });
  };
  constexpr auto all = std::make_integer_sequence<Index, W>{};
  if constexpr (W > 8) halves(std::integral_constant<Index, 8>{}, all);
  if constexpr (W > 4) halves(std::integral_constant<Index, 4>{}, all);
  if constexpr (W > 2) halves(std::integral_constant<Index, 2>{}, all);
  halves(std::integral_constant<Index, 1>{}, all);
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
  detail::tiled<detail::Keep::columns>(a.data, a.stride, 1, b.data, 1, b.stride, a.cols, out, add);
}
template <class A, class B, class T>
void multiply(Matrix<A> a, Rows<B> b, Rows<T> out, bool add = false) {
  detail::tiled<detail::Keep::columns>(a.data, a.stride, 1, b.data, 1, b.stride, a.cols,
                                       Matrix<T>(out), add);
}
template <class A, class B>
void multiply(Matrix<A> a, Matrix<B> b, Matrix<double> out, bool add = false) {
  detail::store(detail::eigen(out), detail::eigen(a) * detail::eigen(b), add);
}

// out (+)= a b^T
template <class A, class B>
void multiply_nt(Matrix<A> a, Matrix<B> b, Matrix<Lane> out, bool add = false) {
  detail::tiled<detail::Keep::rows>(a.data, a.stride, 1, b.data, b.stride, 1, a.cols, out, add);
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
  detail::tiled<detail::Keep::columns>(a.data, 1, a.stride, b.data, 1, b.stride, a.rows, out, add);
}
template <class A, class B, class T>
void multiply_tn(Matrix<A> a, Rows<B> b, Rows<T> out, bool add = false) {
  // Rows of a may lie a page apart: as many at a time as the first TLB has room for.
  constexpr Index kAtOnce = 64;
  for (Index p = 0; p < a.rows; p += kAtOnce)
    detail::tiled<detail::Keep::columns>(a.data + p * a.stride, 1, a.stride, b.data + p * b.stride,
                                         1, b.stride, std::min(kAtOnce, a.rows - p), Matrix<T>(out),
                                         add || p > 0);
}

// Some rows with samples as rows, so that a product along samples streams whole registers of rows:
// sample s of row r is number s * kTurnedStride + r.
inline constexpr Index kMostTurned = kPanel + 1, kTurnedStride = 80;

template <class R>
void turn(Rows<const R> rows, Number<R>* turned) {
  constexpr Index W = kNumbers<R>;
  const Index whole = rows.rows / W * W;
  for (Index i = 0; i < rows.registers(); ++i, turned += W * kTurnedStride) {
    for (Index r = 0; r < whole; r += W) {
      R square[W];
      for (Index l = 0; l < W; ++l) square[l] = rows.data[(r + l) * rows.stride + i];
      detail::transpose(square);
      for (Index l = 0; l < W; ++l)
        std::memcpy(turned + l * kTurnedStride + r, &square[l], sizeof(R));
    }
    for (Index r = whole; r < rows.rows; ++r) {
      const R value = rows.data[r * rows.stride + i];
      for (Index l = 0; l < W; ++l) turned[l * kTurnedStride + r] = value[l];
    }
  }
}

// out (+)= a b^T of rows b that are turned.
template <class A>
void multiply_turned(Rows<const A> a, const Number<A>* turned, Matrix<Number<A>> out, bool add) {
  constexpr Index W = kNumbers<A>;
  const Index whole = out.cols / W;
  auto product = [&](Index first, Index cols, auto* to, Index stride, bool add_to) {
    detail::tiled<detail::Keep::columns, A>(
        reinterpret_cast<const Number<A>*>(a.data), a.stride * W, Index{1},
        reinterpret_cast<const A*>(turned) + first, Index{1}, kTurnedStride / W, a.cols, out.rows,
        cols, to, stride, add_to);
  };
  product(0, whole, out.data, out.stride, add);
  if (out.cols % W == 0) return;
  A rest[kMostTurned];
  product(whole, 1, rest, 1, false);
  for (Index r = 0; r < out.rows; ++r)
    for (Index c = whole * W; c < out.cols; ++c) {
      Number<A>& target = out.data[r * out.stride + c];
      target = add ? target + rest[r][c % W] : rest[r][c % W];
    }
}

}  // namespace pylyap
