// Gram-Schmidt with reorthogonalisation: frame = Q R, diag R >= 0.
//
// A frame is (k, n), one vector per row and contiguous. Each vector is orthogonalised against those
// before it and, if its length has more than halved, a second time ("twice is enough", Giraud et
// al., Numer. Math. 101, 87 (2005)); lanes that need no second pass keep their bits. A vector that
// is then below the rounding error of the values it was computed from has collapsed: its R_ii is 0,
// and after all others are done it is replaced by a direction orthogonal to them. Long vectors of
// one run that are not nearly dependent take the shorter way of tall_frame.hpp.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <utility>

#include "buffer.hpp"
#include "lanes.hpp"
#include "products.hpp"
#include "tall_frame.hpp"

namespace pylyap {

// Relative rounding error of a sum of n terms, with a margin: shorter vectors are not resolved.
inline double resolution(Index n) {
  return 4.0 * std::sqrt(static_cast<double>(n)) * std::numeric_limits<double>::epsilon();
}

// Sum over i < count of a_i b_i in four sums, as `dot` of lanes.
inline double dot_in_order(const double* a, const double* b, Index count) {
  double sums[4] = {}, rest = 0.0;
  Index i = 0;
  for (; i + 4 <= count; i += 4)
    for (Index j = 0; j < 4; ++j) sums[j] = fused<double>(a[i + j], b[i + j], sums[j]);
  for (; i < count; ++i) rest = fused<double>(a[i], b[i], rest);
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + rest;
}
template <class S>
S square_of(const S* z, Index count, bool in_order) {
  if constexpr (std::is_same_v<S, double>) {
    if (in_order) return dot_in_order(z, z, count);
  }
  return dot(z, z, count);
}

template <class S>
class Orthonormaliser {
 public:
  // `in_order`: for one run with sums in the order of the lanes. `workers`: threads, of which the
  // bits do not depend, for long vectors of one run.
  Orthonormaliser(Index n, Index k, bool in_order = false, Index workers = 1)
      : n_(n),
        k_(k),
        in_order_(in_order),
        panel_(in_order ? kQuad : kPanel),
        coefficients_(kRuns<S> > 1 || in_order ? 0 : kPanel * k),
        products_(kMaxPanel),
        kept_(kMaxPanel),
        collapsed_(k),
        unit_(k),
        before_(k),
        stride_(padded(k) | 8),
        transposed_(in_order ? n * stride_ : 0) {
    if (std::is_same_v<S, double> && !in_order && TallFrame::suits(n, k))
      tall_ = std::make_unique<TallFrame>(n, k, workers);
  }

  // frame (k, n) in and out; norms (k) out: the diagonal of R. `scale` (k) or null: the size of the
  // values that each vector was computed from. `r` (k, k) or null: all of R, row-major.
  void operator()(S* frame, S* norms, const S* scale, S* r) {
    if constexpr (std::is_same_v<S, double>) {
      if (tall_ && (*tall_)(frame, norms, scale, r)) return;
    }
    bool incomplete = false;
    const bool single = k_ == 1;  // nothing to project
    if (r) std::fill_n(r, k_ * k_, S{});
    for (Index begin = 0; begin < k_; begin += panel_) {
      const Index end = std::min(begin + panel_, k_);
      for (Index c = begin; c < end; ++c) {
        before_[c] = square_of(frame + c * n_, n_, in_order_);
        unit_[c] = bring_into_range(frame + c * n_, before_[c]);
      }
      if (in_order_ && !single) load_panel(frame, begin, end);
      project(frame, begin, end, 0, begin, broadcast<S>(1.0), r);
      if (single) {
        products_[0] = before_[0];
      } else {
        form_products(frame, begin, end);
      }
      for (Index c = begin; c < end; ++c) {
        const S again = products_[0] < 0.25 * before_[c] ? broadcast<S>(1.0) : S{};
        if (any(again != 0.0)) {
          project(frame, c, c + 1, 0, c, again, r);
          std::copy_n(products_.data(), kMaxPanel, kept_.data());
          form_products(frame, c, end);
          for (Index j = 0; j < end - c; ++j) products_[j] = again != 0.0 ? products_[j] : kept_[j];
        }
        const S size = sqrt(before_[c]), length = sqrt(products_[0]);
        const S source = scale ? scale[c] * unit_[c] : size;
        const S larger = source > size ? source : size;
        const S from = larger <= std::numeric_limits<double>::max() ? larger : S{};
        const auto collapsed = length <= resolution(n_) * from;
        // A collapsed vector is zero until all others are done; nan stays nan.
        const S inverse = collapsed ? S{} : 1.0 / length;
        norms[c] = collapsed ? S{} : length / unit_[c];
        collapsed_[c] = collapsed ? broadcast<S>(1.0) : S{};
        incomplete = incomplete || any(collapsed);
        for (Index j = 1; j < end - c; ++j) products_[j] *= inverse;
        if (r) {
          r[c * k_ + c] = norms[c];
          for (Index j = 1; j < end - c; ++j) r[c * k_ + c + j] += products_[j] / unit_[c + j];
        }
        if (single) {
          for (Index i = 0; i < n_; ++i) frame[i] *= inverse;
        } else {
          sweep(frame, c, end, inverse);
        }
      }
      if (in_order_ && !single) store_panel(frame, begin, end);
    }
    if (incomplete) complete(frame);
  }

 private:
  // Vectors that are projected together and, for lanes, the number of vectors before them per tile:
  // both stay in the first-level cache between products and subtraction.
  static constexpr Index kPanel = kRuns<S> > 1 ? 4 : detail::kTileRows;
  static constexpr Index kBefore = kRegisters >= 32 ? 4 : 3;

  // In order: vectors of a panel, as in lanes. The frame is kept in transposed order, so that a
  // Quad holds an entry of neighbouring vectors and each vector has sums of its own.
  static constexpr Index kQuad = 4, kMaxPanel = std::max(kPanel, kQuad);
  using Quad = typename detail::Vector<double, kQuad>::type;

  void load_panel(const S* frame, Index begin, Index end) {
    for (Index p = 0; p < n_; ++p)
      for (Index c = begin; c < end; ++c)
        set_lane(transposed_[p * stride_ + c], 0, lane(frame[c * n_ + p], 0));
  }
  void store_panel(S* frame, Index begin, Index end) const {
    for (Index c = begin; c < end; ++c)
      for (Index p = 0; p < n_; ++p)
        set_lane(frame[c * n_ + p], 0, lane(transposed_[p * stride_ + c], 0));
  }

  // products_ <- z_c . z_j for j = c ... end - 1
  void form_products(const S* frame, Index c, Index end) {
    if constexpr (std::is_same_v<S, double>) {
      if (in_order_) return form_products_in_order(c);
    }
    const Index n = n_;
    const S* z = frame + c * n;
    detail::in_pieces<kPanel>(end - c, [&]<Index M>(Index) {
      add_up<M>([&]<class T>(Index i, T* sums) {
        const T first = pinned(load<T>(z + i));
        unrolled<M>([&](auto j) { sums[j] = first * load<T>(z + j * n + i) + sums[j]; });
      });
    });
  }

  // z_c <- z_c * inverse, then z_{c+j} -= products_[j] z_c for the rest of the panel, and products_
  // <- those of z_{c+1} with the rest, in the same pass.
  void sweep(S* frame, Index c, Index end, const S& inverse) {
    if constexpr (std::is_same_v<S, double>) {
      if (in_order_) return sweep_in_order(c, end, inverse);
    }
    const Index n = n_;  // a local: stores to the frame cannot change it
    S *z = frame + c * n, *next = z + n;
    detail::in_pieces<kPanel>(end - c, [&]<Index M>(Index) {
      S along[M];
      std::copy_n(products_.data(), M, along);
      add_up<M - 1>([&]<class T>(Index i, T* sums) {
        const T direction = load<T>(z + i) * broadcast_shared<T>(inverse);
        store(direction, z + i);
        T first;
        unrolled<M - 1>([&](auto j) {
          S* to = next + j * n + i;
          const T rest = load<T>(to) - broadcast_shared<T>(along[j + 1]) * direction;
          store(rest, to);
          if constexpr (j == 0) first = rest;
          sums[j] = first * rest + sums[j];
        });
      });
    });
  }

  // products_[j] <- sum over i of what term(i, sums) adds to sums[j], in registers and, for the
  // remainder of the vector of a single run, numbers.
  template <Index M, class F>
  [[gnu::always_inline]] void add_up(F&& term) {
    using R = Register<S>;
    constexpr Index W = kPerRegister<S>, kSums = std::max(M, Index{1});
    R even[kSums] = {}, odd[kSums] = {};
    S rest[kSums] = {};
    const Index n = n_;
    Index i = 0;
    for (; i + 2 * W <= n; i += 2 * W) {
      term(i, even);
      term(i + W, odd);
    }
    if (i + W <= n) {
      term(i, even);
      i += W;
    }
    for (; i < n; ++i) term(i, rest);
    unrolled<M>([&](auto j) { products_[j] = reduce_add<S>(even[j] + odd[j]) + rest[j]; });
  }

  // z_c -= keep * sum_i q_i (q_i . z_c) for c = begin ... end - 1 and i = first ... last - 1
  void project(S* frame, Index begin, Index end, Index first, Index last, const S& keep, S* r) {
    const Index rows = end - begin, count = last - first;
    if (count == 0) return;
    if constexpr (kRuns<S> > 1) {
      detail::in_pieces<kPanel>(rows, [&]<Index B>(Index) {
        detail::in_pieces<kBefore>(
            count, [&]<Index A>(Index i) { project_tile<A, B>(frame, begin, first + i, keep, r); });
      });
    } else if (in_order_) {
      detail::in_pieces<kBefore>(
          count, [&]<Index A>(Index i) { project_in_order<A>(begin, rows, first + i, r); });
    } else {
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
  }
  // `project` for vectors begin ... begin + B - 1 and first ... first + A - 1.
  template <Index A, Index B>
  [[gnu::noinline, gnu::flatten]] void project_tile(S* frame, Index begin, Index first,
                                                    const S& keep, S* r) {
    const S* q = frame + first * n_;
    S* z = frame + begin * n_;
    S along[B][A] = {};
    for (Index p = 0; p < n_; ++p) {
      S a[A];
      unrolled<A>([&](Index i) { a[i] = pinned(q[i * n_ + p]); });
      unrolled<B>([&](Index c) {
        const S b = pinned(z[c * n_ + p]);
        unrolled<A>([&](Index i) { along[c][i] = a[i] * b + along[c][i]; });
      });
    }
    unrolled<B>([&](Index c) {
      unrolled<A>([&](Index i) {
        along[c][i] *= keep;
        if (r) r[(first + i) * k_ + begin + c] += along[c][i] / unit_[begin + c];
      });
    });
    for (Index p = 0; p < n_; ++p) {
      S a[A];
      unrolled<A>([&](Index i) { a[i] = pinned(q[i * n_ + p]); });
      unrolled<B>([&](Index c) {
        S rest = z[c * n_ + p];
        unrolled<A>([&](Index i) { rest -= along[c][i] * a[i]; });
        z[c * n_ + p] = rest;
      });
    }
  }

  // The same in order, for vectors begin ... begin + rows - 1, at most a Quad.
  template <Index A>
  [[gnu::noinline]] void project_in_order(Index begin, Index rows, Index first, S* r) {
    const S *q = transposed_.data() + first, *from = transposed_.data() + begin;
    Quad along[kQuad] = {};  // [c][i]
    for (Index p = 0; p < n_; ++p) {
      const Quad a = load<Quad>(q + p * stride_);
      for (Index c = 0; c < kQuad; ++c) along[c] += a * spread(from[p * stride_ + c]);
    }
    Quad of_vector[A] = {};  // [i][c]
    for (Index c = 0; c < rows; ++c) {
      for (Index i = 0; i < A; ++i) {
        of_vector[i][c] = along[c][i];
        if (r) r[(first + i) * k_ + begin + c] += along[c][i] / unit_[begin + c];
      }
    }
    S* to = transposed_.data() + begin;
    for (Index p = 0; p < n_; ++p, to += stride_, q += stride_) {
      Quad rest = load<Quad>(to);
      unrolled<A>([&](auto i) { rest -= of_vector[i] * spread(q[i]); });
      store(rest, to);
    }
  }
  static Quad spread(double value) { return value - Quad{}; }

  // Sums over i of what term(pointer to entry i of vector c) returns, even and odd i apart.
  template <class F>
  [[gnu::always_inline]] void add_up_in_order(Index c, Index skip, F&& term) {
    Quad even{}, odd{};
    S* z = transposed_.data() + c;
    Index p = 0;
    for (; p + 2 <= n_; p += 2, z += 2 * stride_) {
      even += term(z);
      odd += term(z + stride_);
    }
    if (p < n_) even += term(z);
    const Quad sum = (even + odd) + Quad{};
    for (Index j = skip; j < kQuad; ++j) products_[j - skip] = sum[j];
  }
  void form_products_in_order(Index c) {
    add_up_in_order(c, 0, [](const S* z) { return spread(z[0]) * load<Quad>(z); });
  }
  // Entries of a Quad past the panel do not change.
  void sweep_in_order(Index c, Index end, const S& inverse) {
    Quad along{};
    for (Index j = 1; j < end - c; ++j) along[j] = products_[j];
    const auto first = Quad{0.0, 1.0, 2.0, 3.0} == Quad{};
    add_up_in_order(c, 1, [&](S* z) {
      const Quad direction = spread(z[0] * inverse);
      const Quad rest = first ? direction : load<Quad>(z) - along * direction;
      store(rest, z);
      return spread(rest[1]) * rest;
    });
  }

  // Multiplies z by a power of two if its squared length is outside the range of a double, and
  // returns the factor; `square` is the squared length.
  S bring_into_range(S* z, S& square) const {
    S factor = broadcast<S>(1.0);
    const auto outside =
        square < 1e-250 ? broadcast<S>(1.0) : (square > 1e250 ? broadcast<S>(1.0) : S{});
    if (!any(outside != 0.0)) return factor;
    for (Index l = 0; l < kRuns<S>; ++l) {
      if (lane(outside, l) == 0.0) continue;
      double largest = 0.0;
      for (Index i = 0; i < n_; ++i) largest = std::max(largest, std::abs(lane(z[i], l)));
      if (!(largest > 0.0) || !std::isfinite(largest)) continue;
      // The factor is a normal number, which bounds the scaling of subnormal vectors.
      const int exponent = std::clamp(-std::ilogb(largest), -1000, 1000);
      const double f = std::ldexp(1.0, exponent);
      set_lane(factor, l, f);
      for (Index i = 0; i < n_; ++i) set_lane(z[i], l, lane(z[i], l) * f);
    }
    square = square_of(z, n_, in_order_);
    return factor;
  }

  // Each collapsed vector becomes the unit vector farthest from the span of all others,
  // orthonormalised against them.
  void complete(S* frame) {
    for (Index l = 0; l < kRuns<S>; ++l) {
      for (Index c = 0; c < k_; ++c) {
        if (lane(collapsed_[c], l) == 0.0) continue;
        auto at = [&](Index v, Index i) { return lane(frame[v * n_ + i], l); };
        Index best = 0;
        double least = std::numeric_limits<double>::infinity();
        for (Index i = 0; i < n_; ++i) {
          double covered = 0.0;
          for (Index v = 0; v < k_; ++v) covered = fused(at(v, i), at(v, i), covered);
          if (covered < least) least = covered, best = i;
        }
        for (Index i = 0; i < n_; ++i) set_lane(frame[c * n_ + i], l, i == best ? 1.0 : 0.0);
        for (int pass = 0; pass < 3; ++pass) {
          for (Index v = 0; v < k_; ++v) {
            if (v == c) continue;
            double product = 0.0;
            for (Index i = 0; i < n_; ++i) product = fused(at(v, i), at(c, i), product);
            for (Index i = 0; i < n_; ++i)
              set_lane(frame[c * n_ + i], l, fused(-product, at(v, i), at(c, i)));
          }
          double square = 0.0;
          for (Index i = 0; i < n_; ++i) square = fused(at(c, i), at(c, i), square);
          const double inverse = 1.0 / std::sqrt(square);
          for (Index i = 0; i < n_; ++i) set_lane(frame[c * n_ + i], l, at(c, i) * inverse);
        }
      }
    }
  }

  Index n_, k_;
  bool in_order_;
  Index panel_;
  Buffer<S> coefficients_, products_, kept_, collapsed_, unit_, before_;
  Index stride_;
  Buffer<S> transposed_;             // (n, stride): the frame, in order
  std::unique_ptr<TallFrame> tall_;  // where vectors are long
};

// Powers of two factored out of the vectors of a frame between two orthonormalisations, so that no
// vector leaves the range of a double: the true vector c is 2^exponents()[c] times the row of the
// frame. Scaling is exact.
template <class S>
class FrameScale {
 public:
  FrameScale(Index n, Index k, bool in_order = false)
      : n_(n), k_(k), in_order_(in_order), exponents_(k) {}

  // Whether any exponent of any lane is other than 0.
  bool active() const { return active_; }
  const S* exponents() const { return exponents_.data(); }
  void reset() {
    if (active_) std::fill_n(exponents_.data(), k_, S{});
    active_ = false;
  }

  // After a step: rescales the vectors whose length is outside 2^-64 ... 2^64 to order one, so that
  // the next step may change it by a factor of 2^958 either way.
  void rescale(S* frame) {
    constexpr double kMax = 0x1p128, kMin = 0x1p-128;  // squares
    S outside{};
    for (Index c = 0; c < k_; ++c) {
      const S* z = frame + c * n_;
      const S square = square_of(z, n_, in_order_);
      outside = square < kMin ? broadcast<S>(1.0) : (square > kMax ? broadcast<S>(1.0) : outside);
    }
    if (any(outside != 0.0)) rescale_lanes(frame, outside);
  }

  // Before the frame is orthonormalised: multiplies vectors by their powers of two again, except
  // where the length would be outside about 2^-320 ... 2^320.
  void restore(S* frame) {
    if (!active_) return;
    constexpr double kMax = 256;
    active_ = false;
    for (Index c = 0; c < k_; ++c) {
      for (Index l = 0; l < kRuns<S>; ++l) {
        const double e = lane(exponents_[c], l);
        if (e == 0.0) continue;
        if (std::abs(e) > kMax) {
          active_ = true;
          continue;
        }
        multiply(frame + c * n_, l, static_cast<int>(e));
        set_lane(exponents_[c], l, 0.0);
      }
    }
  }

 private:
  void multiply(S* z, Index l, int exponent) const {
    for (Index i = 0; i < n_; ++i) set_lane(z[i], l, std::ldexp(lane(z[i], l), exponent));
  }
  [[gnu::noinline]] void rescale_lanes(S* frame, const S& outside) {
    for (Index c = 0; c < k_; ++c) {
      for (Index l = 0; l < kRuns<S>; ++l) {
        if (lane(outside, l) == 0.0) continue;
        double largest = 0.0;
        for (Index i = 0; i < n_; ++i)
          largest = std::max(largest, std::abs(lane(frame[c * n_ + i], l)));
        if (!(largest > 0.0) || !std::isfinite(largest)) continue;
        const int exponent = std::ilogb(largest);
        if (std::abs(exponent) < 32) continue;
        multiply(frame + c * n_, l, -exponent);
        set_lane(exponents_[c], l, lane(exponents_[c], l) + exponent);
        active_ = true;
      }
    }
  }

  Index n_, k_;
  bool in_order_;
  Buffer<S> exponents_;
  bool active_ = false;
};

}  // namespace pylyap
