// Matrix products over the scalar type: register tiles for lanes, Eigen for double.
//
// Every matrix is row-major with a leading dimension. One operand may be plain double while the
// other is a Lane: data that all runs share. Sums run over the inner index in one fixed order, so
// that bits depend on the shapes alone.
#pragma once

#include <Eigen/Core>

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
    X a[R];
#pragma GCC unroll 8
    for (Index r = 0; r < R; ++r) a[r] = x[r * xr + p * xp];
#pragma GCC unroll 8
    for (Index c = 0; c < C; ++c) {
      const S b = shared<S>(y[c * yc + p * yp]);
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

// R rows against all columns, four at a time. A single last column would leave the registers idle,
// so that five are taken together where they fit.
template <Index R, class S, class X, class Y>
inline void tile_row(const X* x, Index xr, Index xp, const Y* y, Index yc, Index yp, Index count,
                     S* out, Index out_stride, Index cols, bool add) {
  Index c = 0;
  const bool five = cols % 4 == 1 && cols > 1 && R * 5 + R < kRegisters;
  for (; c + 4 <= cols - (five ? 5 : 0); c += 4)
    tile<R, 4>(x, xr, xp, y + c * yc, yc, yp, count, out + c, out_stride, add);
  if constexpr (R * 5 + R < kRegisters) {
    if (five) return tile<R, 5>(x, xr, xp, y + c * yc, yc, yp, count, out + c, out_stride, add);
  }
  switch (cols - c) {
    case 3:
      return tile<R, 3>(x, xr, xp, y + c * yc, yc, yp, count, out + c, out_stride, add);
    case 2:
      return tile<R, 2>(x, xr, xp, y + c * yc, yc, yp, count, out + c, out_stride, add);
    case 1:
      return tile<R, 1>(x, xr, xp, y + c * yc, yc, yp, count, out + c, out_stride, add);
    default:
      return;
  }
}

// Rows of a tile: R x 4 accumulators, R + 1 operands.
inline constexpr Index kTileRows = kRegisters >= 32 ? 6 : 3;

template <class S, class X, class Y>
[[gnu::noinline]] void tiled(const X* x, Index xr, Index xp, const Y* y, Index yc, Index yp,
                             Index count, Matrix<S> out, bool add) {
  Index r = 0;
  auto rows = [&]<Index R>(std::integral_constant<Index, R>) {
    tile_row<R>(x + r * xr, xr, xp, y, yc, yp, count, out.data + r * out.stride, out.stride,
                out.cols, add);
    r += R;
  };
  while (r + kTileRows <= out.rows) rows(std::integral_constant<Index, kTileRows>{});
  while (r + 3 <= out.rows) rows(std::integral_constant<Index, 3>{});
  if (r + 2 <= out.rows) rows(std::integral_constant<Index, 2>{});
  if (r + 1 <= out.rows) rows(std::integral_constant<Index, 1>{});
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
