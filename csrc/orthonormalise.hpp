// Gram-Schmidt with reorthogonalisation: frame = Q R, diag R >= 0.
//
// A frame is (k, n), one vector per row and contiguous. Each vector is projected on those before it
// and, where it lost more than half its length, once more ("twice is enough", Giraud et al., Numer.
// Math. 101, 87 (2005)); lanes that need no second pass keep their bits. A vector that is then
// below rounding of what it was computed from is destroyed: its R_ii is 0, and once all others
// stand, it is replaced by a direction orthogonal to them, so that no live direction is lost to it.
#pragma once

#include <algorithm>
#include <limits>
#include <utility>

#include "lanes.hpp"
#include "products.hpp"

namespace pylyap {

// Rounding of a sum over n terms, with a margin; below it a direction is not resolved.
inline double resolution(Index n) {
  return 4.0 * std::sqrt(static_cast<double>(n)) * std::numeric_limits<double>::epsilon();
}

template <class S>
class Orthonormaliser {
 public:
  Orthonormaliser(Index n, Index k)
      : n_(n), k_(k), coefficients_(kPanel * k), destroyed_(k), unit_(k), before_(k) {}

  // frame (k, n) in and out; norms (k) out: the diagonal of R. `scale` (k) or null: the size of
  // what each vector was computed from. `r` (k, k) or null: all of R, row-major.
  void operator()(S* frame, S* norms, const S* scale, S* r) {
    bool incomplete = false;
    if (r) std::fill_n(r, k_ * k_, S{});
    for (Index begin = 0; begin < k_; begin += kPanel) {
      const Index end = std::min(begin + kPanel, k_);
      for (Index c = begin; c < end; ++c) {
        before_[c] = dot(frame + c * n_, frame + c * n_);
        unit_[c] = bring_into_range(frame + c * n_, before_[c]);
      }
      project(frame, begin, end, 0, begin, splat<S>(1.0), r);
      for (Index c = begin; c < end; ++c) {
        S* z = frame + c * n_;
        S after = dot(z, z);
        const S again = after < 0.25 * before_[c] ? splat<S>(1.0) : S{};
        if (any(again != 0.0)) {
          project(frame, c, c + 1, 0, c, again, r);
          after = dot(z, z);
        }
        const S size = sqrt(before_[c]), length = sqrt(after);
        const S source = scale ? scale[c] * unit_[c] : size;
        const S larger = source > size ? source : size;
        const S from = larger <= std::numeric_limits<double>::max() ? larger : S{};
        const auto lost = length <= resolution(n_) * from;
        const S inverse = lost ? S{} : 1.0 / length;
        // A destroyed vector is zero until all others stand; nan stays nan.
        for (Index i = 0; i < n_; ++i) z[i] = z[i] * inverse;
        norms[c] = lost ? S{} : length / unit_[c];
        if (r) r[c * k_ + c] = norms[c];
        destroyed_[c] = lost ? splat<S>(1.0) : S{};
        incomplete = incomplete || any(lost);
        sweep(frame, c, end, r);
      }
    }
    if (incomplete) complete(frame);
  }

 private:
  // Vectors that are projected together on those before them: the rows of a register tile.
  static constexpr Index kPanel = detail::kTileRows;

  S dot(const S* a, const S* b) const {
    return sum_of<S>(n_, [&](Index i, auto read) { return read(a + i) * read(b + i); });
  }

  // Takes the direction of vector c from the rest of its panel, c + 1 ... end - 1.
  void sweep(S* frame, Index c, Index end, S* r) {
    [&]<Index... M>(std::integer_sequence<Index, M...>) {
      ((end - 1 - c == M + 1 ? sweep_next<M + 1>(frame, c, r) : void()), ...);
    }(std::make_integer_sequence<Index, kPanel - 1>{});
  }
  template <Index M>
  [[gnu::flatten]] void sweep_next(S* frame, Index c, S* r) {
    using R = Register<S>;
    constexpr Index W = kNeighbours<S>;
    const S* q = frame + c * n_;
    S* z = frame + (c + 1) * n_;
    S products[M];
    R even[M] = {}, odd[M] = {};
    Index i = 0;
    for (; i + 2 * W <= n_; i += 2 * W) {
      const R first = pinned(load(q + i)), second = pinned(load(q + i + W));
      unrolled<M>([&](auto j) {
        even[j] = first * load(z + j * n_ + i) + even[j];
        odd[j] = second * load(z + j * n_ + i + W) + odd[j];
      });
    }
    unrolled<M>([&](auto j) {
      products[j] = sum_over_run<S>(even[j] + odd[j]);
      for (Index rest = i; rest < n_; ++rest)
        products[j] = q[rest] * z[j * n_ + rest] + products[j];
      if (r) r[c * k_ + c + 1 + j] += products[j] / unit_[c + 1 + j];
    });
    for (i = 0; i + W <= n_; i += W) {
      const R direction = load(q + i);
      unrolled<M>([&](auto j) {
        S* to = z + j * n_ + i;
        store<S>(load(to) - shared<R>(products[j]) * direction, to);
      });
    }
    for (; i < n_; ++i)
      for (Index j = 0; j < M; ++j) z[j * n_ + i] -= products[j] * q[i];
  }

  // z_c -= keep * sum_i q_i (q_i . z_c) for c = begin ... end - 1 and i = first ... last - 1
  void project(S* frame, Index begin, Index end, Index first, Index last, const S& keep, S* r) {
    const Index rows = end - begin, count = last - first;
    if (count == 0) return;
    const Matrix<const S> done(frame + first * n_, count, n_);
    Matrix<S> z(frame + begin * n_, rows, n_), products(coefficients_.data(), rows, count);
    multiply_nt(Matrix<const S>(z), done, products);
    for (Index c = 0; c < rows; ++c) {
      for (Index i = 0; i < count; ++i) {
        const S value = keep * products.data[c * count + i];
        if (r) r[(first + i) * k_ + begin + c] += value / unit_[begin + c];
        products.data[c * count + i] = -value;
      }
    }
    multiply(Matrix<const S>(products), done, z, true);
  }

  // Multiplies z by a power of two where its squared length would leave the range of a double, and
  // returns the factor; `square` is the squared length.
  S bring_into_range(S* z, S& square) const {
    S factor = splat<S>(1.0);
    const auto outside = square < 1e-250 ? splat<S>(1.0) : (square > 1e250 ? splat<S>(1.0) : S{});
    if (!any(outside != 0.0)) return factor;
    for (Index l = 0; l < kWidth<S>; ++l) {
      if (lane(outside, l) == 0.0) continue;
      double largest = 0.0;
      for (Index i = 0; i < n_; ++i) largest = std::max(largest, std::abs(lane(z[i], l)));
      if (!(largest > 0.0) || !std::isfinite(largest)) continue;
      // Kept within the normal range: a subnormal vector is brought up as far as one factor can.
      const int exponent = std::clamp(-std::ilogb(largest), -1000, 1000);
      const double f = std::ldexp(1.0, exponent);
      set_lane(factor, l, f);
      for (Index i = 0; i < n_; ++i) set_lane(z[i], l, lane(z[i], l) * f);
    }
    square = dot(z, z);
    return factor;
  }

  // Each destroyed vector becomes the basis vector farthest from the span of all others, made
  // orthonormal to them.
  void complete(S* frame) {
    for (Index l = 0; l < kWidth<S>; ++l) {
      for (Index c = 0; c < k_; ++c) {
        if (lane(destroyed_[c], l) == 0.0) continue;
        auto at = [&](Index v, Index i) { return lane(frame[v * n_ + i], l); };
        Index best = 0;
        double least = std::numeric_limits<double>::infinity();
        for (Index i = 0; i < n_; ++i) {
          double covered = 0.0;
          for (Index v = 0; v < k_; ++v) covered += at(v, i) * at(v, i);
          if (covered < least) least = covered, best = i;
        }
        for (Index i = 0; i < n_; ++i) set_lane(frame[c * n_ + i], l, i == best ? 1.0 : 0.0);
        for (int pass = 0; pass < 3; ++pass) {
          for (Index v = 0; v < k_; ++v) {
            if (v == c) continue;
            double product = 0.0;
            for (Index i = 0; i < n_; ++i) product += at(v, i) * at(c, i);
            for (Index i = 0; i < n_; ++i)
              set_lane(frame[c * n_ + i], l, at(c, i) - product * at(v, i));
          }
          double square = 0.0;
          for (Index i = 0; i < n_; ++i) square += at(c, i) * at(c, i);
          const double inverse = 1.0 / std::sqrt(square);
          for (Index i = 0; i < n_; ++i) set_lane(frame[c * n_ + i], l, at(c, i) * inverse);
        }
      }
    }
  }

  Index n_, k_;
  Buffer<S> coefficients_, destroyed_, unit_, before_;
};

}  // namespace pylyap
