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

template void tiled<Keep::columns, Lane, Lane, Lane, Lane>(const Lane*, Index, Index, const Lane*,
                                                           Index, Index, Index, Index, Index, Lane*,
                                                           Index, bool);
template void eigen_multiply(Matrix<const double>, Matrix<const double>, Matrix<double>, bool);
template void eigen_multiply_nt(Matrix<const double>, Matrix<const double>, Matrix<double>, bool);
template void eigen_multiply_nt(Matrix<const float>, Matrix<const float>, Matrix<float>, bool);

}  // namespace detail

}  // namespace pylyap
