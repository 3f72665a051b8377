// Orthonormalisation of a few long vectors by their Gram matrix (CholeskyQR), in two passes over
// memory: G = Z^T Z, then Z <- Z R^-1 with G = R^T R.
//
// A frame is (k, n), one vector per row. The error of one round is about the square of the
// condition number of the vectors, of unit length, in units of the last place. Vectors that are not
// close to orthogonal take a second round (Yamamoto et al., ETNA 44, 306 (2015)); for those that
// are nearly dependent nothing is done, and the caller takes Gram-Schmidt.
//
// Sums run over pieces of fixed length in a fixed order: bits do not depend on the threads.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "buffer.hpp"
#include "lanes.hpp"
#include "layer_product.hpp"
#include "products.hpp"
#include "team.hpp"

namespace pylyap {

class TallFrame {
 public:
  // Whether the vectors are long enough: then Gram-Schmidt waits for memory.
  static bool suits(Index n, Index k) { return k >= 2 && n >= kShortest && n >= 32 * k; }

  TallFrame(Index n, Index k, Index workers)
      : n_(n),
        k_(k),
        length_(std::max(kLeast, kPiece / k / kAligned * kAligned)),
        pieces_((n + length_ - 1) / length_),
        team_(std::min(workers, pieces_)),
        copies_(2 * team_.size() * k * length_),
        partial_(pieces_ * k * k),
        gram_(k * k),
        factor_(k * k),
        inverse_(k * k),
        lower_(k * k),
        total_(k * k),
        lengths_(k) {}

  // frame (k, n) in and out; norms (k) out: the diagonal of R; `r` (k, k) or null: all of R,
  // row-major; `scale` (k) or null: the size of the values each vector was computed from. Returns
  // whether it was done; otherwise the frame spans the same space with the same flag.
  bool operator()(double* frame, double* norms, const double* scale, double* r) {
    double bound = round(frame, scale, kRepeat);
    if (!(bound <= kRepeat)) return false;
    std::copy_n(factor_.data(), k_ * k_, total_.data());
    apply(frame);
    if (bound > kOnce) {
      round(frame, nullptr, kRepeat);
      apply(frame);
      multiply_factors();
    }
    for (Index c = 0; c < k_; ++c) norms[c] = total_[c * k_ + c];
    if (r) std::copy_n(total_.data(), k_ * k_, r);
    return true;
  }

 private:
  static constexpr Index kAligned = 16, kLeast = 128;
  static constexpr Index kPiece =
      8192;  // numbers of a piece of all vectors: half of a 128 kB cache
  static constexpr Index kShortest = 4096;
  // Bounds of the mean squared length of the rows of the inverse factor of unit vectors, which is 1
  // for orthogonal ones: one round suffices, and two rounds suffice.
  static constexpr double kOnce = 2.0, kRepeat = 1e6;

  double* copy(Index worker, Index which) {
    return copies_.data() + (2 * worker + which) * k_ * length_;
  }

  // Calls f(piece, begin, count, worker) for all pieces.
  template <class F>
  void over_pieces(F&& f) {
    team_.share(pieces_, 1, [&](Index first, Index last, Index worker) {
      for (Index p = first; p < last; ++p) {
        const Index begin = p * length_;
        f(p, begin, std::min(length_, n_ - begin), worker);
      }
    });
  }
  const double* loaded(const double* frame, Index begin, Index count, Index worker) {
    double* to = copy(worker, 0);
    for (Index c = 0; c < k_; ++c)
      std::memcpy(to + c * length_, frame + c * n_ + begin,
                  static_cast<std::size_t>(count) * sizeof(double));
    return to;
  }

  // factor_ <- R and inverse_ <- R^-1 of the frame. Returns the mean squared length of the rows of
  // the inverse of R with unit columns, infinite where R is not to be used.
  double round(const double* frame, const double* scale, double most) {
    constexpr double kNone = std::numeric_limits<double>::infinity();
    over_pieces([&](Index p, Index begin, Index count, Index worker) {
      const auto part = array<double>(loaded(frame, begin, count, worker), k_, count, length_);
      double* out = partial_.data() + p * k_ * k_;
      detail::in_pieces<detail::kTileRows>(k_, [&]<Index R>(Index row) {
        const Index from = row / detail::kTileCols * detail::kTileCols;  // upper triangle
        detail::in_pieces<detail::kTileCols>(k_ - from, [&]<Index C>(Index column) {
          const Lane *x = part.data + row * part.stride,
                     *y = part.data + (from + column) * part.stride;
          detail::dot_tile<R, C, Lane>({x, y}, part.stride, part.stride, count,
                                       out + row * k_ + from + column, k_, false);
        });
      });
    });
    std::fill_n(gram_.data(), k_ * k_, 0.0);
    for (Index p = 0; p < pieces_; ++p)
      for (Index i = 0; i < k_; ++i)
        for (Index j = i; j < k_; ++j) gram_[i * k_ + j] += partial_[p * k_ * k_ + i * k_ + j];
    std::fill_n(factor_.data(), k_ * k_, 0.0);
    std::fill_n(inverse_.data(), k_ * k_, 0.0);
    for (Index c = 0; c < k_; ++c) {
      const double square = gram_[c * k_ + c];
      if (!(square > 1e-250 && square < 1e250)) return kNone;
      lengths_[c] = std::sqrt(square);
      if (scale && !(scale[c] <= kTerms * lengths_[c])) return kNone;
    }
    for (Index i = 0; i < k_; ++i) {
      for (Index j = i; j < k_; ++j) {
        double rest = gram_[i * k_ + j];
        for (Index l = 0; l < i; ++l) rest = fused(-factor_[l * k_ + i], factor_[l * k_ + j], rest);
        if (j == i) {
          if (!(rest * most * static_cast<double>(k_) >= gram_[i * k_ + i])) return kNone;
          factor_[i * k_ + i] = std::sqrt(rest);
        } else {
          factor_[i * k_ + j] = rest / factor_[i * k_ + i];
        }
      }
    }
    double sum = 0.0;
    for (Index j = 0; j < k_; ++j) {
      for (Index i = j; i >= 0; --i) {
        double rest = i == j ? 1.0 : 0.0;
        for (Index l = i + 1; l <= j; ++l)
          rest = fused(-factor_[i * k_ + l], inverse_[l * k_ + j], rest);
        const double entry = rest / factor_[i * k_ + i];
        inverse_[i * k_ + j] = entry;
        sum += (lengths_[i] * entry) * (lengths_[i] * entry);
      }
    }
    return sum / static_cast<double>(k_);
  }

  // Z <- Z R^-1
  void apply(double* frame) {
    for (Index c = 0; c < k_; ++c)
      for (Index i = 0; i < k_; ++i) lower_[c * k_ + i] = inverse_[i * k_ + c];
    over_pieces([&](Index, Index begin, Index count, Index worker) {
      const double* from = loaded(frame, begin, count, worker);
      double* to = copy(worker, 1);
      // Vectors c ... c + R - 1 need those up to c + R - 1.
      detail::in_pieces<detail::kTileRows>(k_, [&]<Index R>(Index c) {
        multiply(Matrix<const double>(lower_.data() + c * k_, R, c + R, k_),
                 array<double>(from, c + R, count, length_),
                 array<double>(to + c * length_, R, count, length_));
      });
      for (Index c = 0; c < k_; ++c)
        std::memcpy(frame + c * n_ + begin, to + c * length_,
                    static_cast<std::size_t>(count) * sizeof(double));
    });
  }

  // total_ <- factor_ total_
  void multiply_factors() {
    for (Index i = 0; i < k_; ++i) {
      for (Index j = k_ - 1; j >= i; --j) {
        double sum = 0.0;
        for (Index l = i; l <= j; ++l) sum = fused(factor_[i * k_ + l], total_[l * k_ + j], sum);
        gram_[i * k_ + j] = sum;
      }
    }
    for (Index i = 0; i < k_; ++i)
      for (Index j = i; j < k_; ++j) total_[i * k_ + j] = gram_[i * k_ + j];
  }

  // A vector that is this much shorter than the terms of its sums is left to Gram-Schmidt, which
  // compares it with their rounding error.
  static constexpr double kTerms = 1e6;

  Index n_, k_, length_, pieces_;
  Team team_;
  Buffer<double> copies_;   // (workers, 2, k, length)
  Buffer<double> partial_;  // (pieces, k, k): products within each piece
  Buffer<double> gram_, factor_, inverse_, lower_, total_, lengths_;
};

}  // namespace pylyap
