// Matrix products over the scalar type: register tiles for lanes, Eigen for double.
//
// Every matrix is row-major with a leading dimension. One operand may be plain double while the
// other is a Lane: data that all runs share. Sums run over the inner index in one fixed order, so
// that bits depend on the shapes alone.
#pragma once

#include <Eigen/Core>
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

namespace detail {

// acc[r][c] (+)= sum over p of x(r, p) * y(c, p), operands addressed by strides (xr, xp) and (yc,
// yp).
template <Index R, Index C, class S, class X, class Y>
inline void tile(const X* x, Index xr, Index xp, const Y* y, Index yc, Index yp, Index count,
                 S* out, Index out_stride, bool add) {
  S acc[R][C];
#pragma GCC unroll 8
  for (Index r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (Index c = 0; c < C; ++c) acc[r][c] = S{};
  }
  for (Index p = 0; p < count; ++p) {
    S a[R];
#pragma GCC unroll 8
    for (Index r = 0; r < R; ++r) {
      a[r] = shared<S>(x[r * xr + p * xp]);
      if (C > 1) pin(a[r]);
    }
#pragma GCC unroll 8
    for (Index c = 0; c < C; ++c) {
      S b = shared<S>(y[c * yc + p * yp]);
      if (R > 1) pin(b);
#pragma GCC unroll 8
      for (Index r = 0; r < R; ++r) acc[r][c] = a[r] * b + acc[r][c];
    }
  }
#pragma GCC unroll 8
  for (Index r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (Index c = 0; c < C; ++c) {
      S* target = out + r * out_stride + c;
      *target = add ? *target + acc[r][c] : acc[r][c];
    }
  }
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

template <class S, class X, class Y>
[[gnu::noinline]] void tiled(const X* x, Index xr, Index xp, const Y* y, Index yc, Index yp,
                             Index count, Matrix<S> out, bool add) {
  in_pieces<kTileRows>(out.rows, [&]<Index R>(Index r) {
    in_pieces<kTileCols>(out.cols, [&]<Index C>(Index c) {
      tile<R, C>(x + r * xr, xr, xp, y + c * yc, yc, yp, count, out.data + r * out.stride + c,
                 out.stride, add);
    });
  });
}

template <class T>
auto eigen(const Matrix<T>& m) {
  using Plain = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using Maybe = std::conditional_t<std::is_const_v<T>, const Plain, Plain>;
  return Eigen::Map<Maybe, 0, Eigen::OuterStride<>>(m.data, m.rows, m.cols,
                                                    Eigen::OuterStride<>(m.stride));
}

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
template <class S, class A, class B>
void multiply(Matrix<A> a, Matrix<B> b, Matrix<S> out, bool add = false) {
  if constexpr (std::is_same_v<S, double>) {
    detail::store(detail::eigen(out), detail::eigen(a) * detail::eigen(b), add);
  } else {
    detail::tiled(a.data, a.stride, 1, b.data, 1, b.stride, a.cols, out, add);
  }
}

// out (+)= a b^T
template <class S, class A, class B>
void multiply_nt(Matrix<A> a, Matrix<B> b, Matrix<S> out, bool add = false) {
  if constexpr (std::is_same_v<S, double>) {
    detail::store(detail::eigen(out), detail::eigen(a) * detail::eigen(b).transpose(), add);
  } else {
    detail::tiled(a.data, a.stride, 1, b.data, b.stride, 1, a.cols, out, add);
  }
}

// out (+)= a^T b
template <class S, class A, class B>
void multiply_tn(Matrix<A> a, Matrix<B> b, Matrix<S> out, bool add = false) {
  if constexpr (std::is_same_v<S, double>) {
    detail::store(detail::eigen(out), detail::eigen(a).transpose() * detail::eigen(b), add);
  } else {
    detail::tiled(a.data, 1, a.stride, b.data, 1, b.stride, a.rows, out, add);
  }
}

}  // namespace pylyap
