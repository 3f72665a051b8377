// Matrix products that several source files use. The only one that includes Eigen.
#include "../products.hpp"

#include <Eigen/Core>
#include <string>
#include <type_traits>

#include "../build_facts.hpp"

namespace pylyap {

std::string eigen_version() {
  return std::to_string(EIGEN_WORLD_VERSION) + "." + std::to_string(EIGEN_MAJOR_VERSION) + "." +
         std::to_string(EIGEN_MINOR_VERSION);
}

namespace detail {

namespace {

template <class T>
auto eigen(const Matrix<T>& m) {
  using Plain =
      Eigen::Matrix<std::remove_const_t<T>, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using MaybeConst = std::conditional_t<std::is_const_v<T>, const Plain, Plain>;
  return Eigen::Map<MaybeConst, 0, Eigen::OuterStride<>>(m.data, m.rows, m.cols,
                                                         Eigen::OuterStride<>(m.stride));
}

template <class T, class P>
void store(const Matrix<T>& out, const P& product, bool add) {
  if (add) {
    eigen(out).noalias() += product;
  } else {
    eigen(out).noalias() = product;
  }
}

}  // namespace

template <class T>
void eigen_multiply(Matrix<const T> a, Matrix<const T> b, Matrix<T> out, bool add) {
  store(out, eigen(a) * eigen(b), add);
}
template <class T>
void eigen_multiply_nt(Matrix<const T> a, Matrix<const T> b, Matrix<T> out, bool add) {
  store(out, eigen(a) * eigen(b).transpose(), add);
}

namespace {

// Rows of a and registers of b from column `first` on; the last register may be cut off.
template <Index R, Index C>
[[gnu::flatten]] void row_tile(const double* a, Index a_stride, const double* b, Index b_stride,
                               Index count, double* out, Index out_stride, Index columns) {
  constexpr Index W = kPerRegister<double>;
  Lane acc[R][C] = {};
  for (Index p = 0; p < count; ++p) {
    Lane row[C];
    unrolled<C>([&](Index c) { row[c] = pinned(load<Lane>(b + p * b_stride + c * W)); });
    unrolled<R>([&](Index r) {
      const Lane value = broadcast<Lane>(a[r * a_stride + p]);
      unrolled<C>([&](Index c) { acc[r][c] = value * row[c] + acc[r][c]; });
    });
  }
  unrolled<R>([&](Index r) {
    unrolled<C>([&](Index c) {
      double* to = out + r * out_stride + c * W;
      if ((c + 1) * W <= columns) {
        pylyap::store(acc[r][c], to);
      } else {
        for (Index l = 0; c * W + l < columns; ++l) to[l] = lane(acc[r][c], l);
      }
    });
  });
}

}  // namespace

template void tiled<Keep::columns, Lane, Lane, Lane, Lane>(const Lane*, Index, Index, const Lane*,
                                                           Index, Index, Index, Index, Index, Lane*,
                                                           Index, bool);
template void eigen_multiply(Matrix<const double>, Matrix<const double>, Matrix<double>, bool);
template void eigen_multiply_nt(Matrix<const double>, Matrix<const double>, Matrix<double>, bool);
template void eigen_multiply_nt(Matrix<const float>, Matrix<const float>, Matrix<float>, bool);

}  // namespace detail

void multiply_rows(Matrix<const double> a, Matrix<const double> b, Matrix<double> out) {
  constexpr Index W = kPerRegister<double>;
  detail::in_pieces<detail::kTileCols>((out.cols + W - 1) / W, [&]<Index C>(Index c) {
    detail::in_pieces<detail::kTileRows>(out.rows, [&]<Index R>(Index r) {
      detail::row_tile<R, C>(a.data + r * a.stride, a.stride, b.data + c * W, b.stride, a.cols,
                             out.data + r * out.stride + c * W, out.stride, out.cols - c * W);
    });
  });
}

}  // namespace pylyap
