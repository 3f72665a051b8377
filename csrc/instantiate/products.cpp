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

// Rows of a and registers of b; the last register may be cut off after `columns` columns. The
// fewer of the operands are held in registers.
template <Index R, Index C>
[[gnu::flatten]] void row_tile(const double* a, Index a_stride, const double* b, Index b_stride,
                               Index count, double* out, Index out_stride, Index columns,
                               bool add) {
  constexpr Index W = kPerRegister<double>;
  Lane acc[R][C] = {};
  for (Index p = 0; p < count; ++p, ++a, b += b_stride) {
    auto column = [&](Index c) { return pinned(load<Lane>(b + c * W)); };
    auto row = [&](Index r) { return pinned(broadcast<Lane>(a[r * a_stride])); };
    if constexpr (R < C) {
      Lane values[R];
      unrolled<R>([&](Index r) { values[r] = row(r); });
      unrolled<C>([&](Index c) {
        const Lane value = column(c);
        unrolled<R>([&](Index r) { acc[r][c] = values[r] * value + acc[r][c]; });
      });
    } else {
      Lane values[C];
      unrolled<C>([&](Index c) { values[c] = column(c); });
      unrolled<R>([&](Index r) {
        const Lane value = row(r);
        unrolled<C>([&](Index c) { acc[r][c] = value * values[c] + acc[r][c]; });
      });
    }
  }
  unrolled<R>([&](Index r) {
    unrolled<C>([&](Index c) {
      double* to = out + r * out_stride + c * W;
      if ((c + 1) * W <= columns) {
        pylyap::store(add ? load<Lane>(to) + acc[r][c] : acc[r][c], to);
      } else {
        for (Index l = 0; c * W + l < columns; ++l)
          to[l] = add ? to[l] + lane(acc[r][c], l) : lane(acc[r][c], l);
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

void multiply_rows(Matrix<const double> a, Matrix<const double> b, Matrix<double> out, bool add) {
  constexpr Index W = kPerRegister<double>, kSums = detail::kTileRows * detail::kTileCols;
  detail::in_pieces<detail::kTileCols>((out.cols + W - 1) / W, [&]<Index C>(Index c) {
    // At least two sums of FMAs are in flight for each one that is added, whatever C.
    detail::in_pieces<std::min(kSums / C, Index{12})>(out.rows, [&]<Index R>(Index r) {
      detail::row_tile<R, C>(a.data + r * a.stride, a.stride, b.data + c * W, b.stride, a.cols,
                             out.data + r * out.stride + c * W, out.stride, out.cols - c * W, add);
    });
  });
}

}  // namespace pylyap
