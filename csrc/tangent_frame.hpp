// The tangent frame of a group of runs: carried along by the map and orthonormalised every few
// steps. What Benettin's method and that of Ginelli et al. share.
#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>

#include "buffer.hpp"
#include "elementary.hpp"
#include "group.hpp"
#include "lanes.hpp"
#include "map.hpp"
#include "orthonormalise.hpp"

namespace pylyap {

// The step at which each run of a group became non-finite.
template <class S>
class Divergence {
 public:
  void reset() { std::fill_n(step_, kRuns<S>, kNever); }
  // `flag` is nan for the runs that are non-finite after step s.
  void note(const S& flag, Index s) {
    for (Index l = 0; l < kRuns<S>; ++l)
      if (step_[l] == kNever && std::isnan(lane(flag, l))) step_[l] = s;
  }
  bool finite(Index l) const { return step_[l] == kNever; }
  // Whether the run was finite up to step s.
  bool finite_before(Index l, Index s) const { return finite(l) || step_[l] >= s; }
  bool any_finite(Index count) const {
    return std::any_of(step_, step_ + count, [](Index s) { return s == kNever; });
  }
  Index step(Index l) const { return step_[l]; }

 private:
  static constexpr Index kNever = -1;
  Index step_[kRuns<S>];
};

template <class S>
class TangentFrame {
 public:
  TangentFrame(Map<S>& map, Index qr_every)
      : map_(map),
        qr_every_(qr_every),
        k_(map.k()),
        orthonormalise_(map.n(), k_, map.in_order()),
        scale_(map.n(), k_, map.in_order()),
        norms_(k_) {}

  const Divergence<S>& divergence() const { return divergence_; }
  // Exponents of the columns of the last R and of the frame before it, if any is not 0.
  const FrameScale<S>& scale() const { return scale_; }
  FrameScale<S>& scale() { return scale_; }

  // states (runs, n), frame (runs, n, k)
  void load(const Group<S>& group, const double* states, const double* frame) {
    group.load(states, map_.layout(), map_.state());
    group.load_frame(frame, map_.layout(), k_, map_.frame());
    divergence_.reset();
  }

  // Step s, which has index t for the map.
  void advance(Index t, Index s) {
    map_.advance(t, nullptr);
    note_state(s);
  }
  // Notes the runs that are not finite after step s: all entries of their states are nan.
  void note_state(Index s) { divergence_.note(nan_unless_finite(map_.state()[0]), s); }
  // Between two orthonormalisations: keeps the vectors within the range of a double.
  void rescale() { scale_.rescale(map_.frame()); }
  void restore() { scale_.restore(map_.frame()); }

  // frame = Q R after step s: the frame becomes Q. `r` (k, k) or null gets R.
  void orthonormalise(S* r, Index s) {
    const S* source = qr_every_ == 1 ? map_.source() : nullptr;
    restore();
    orthonormalise_(map_.frame(), norms_.data(), source, r);
    S flag{};
    for (Index c = 0; c < k_; ++c) flag += nan_unless_finite(norms_[c]);
    divergence_.note(flag, s);
  }
  // sums (k) += log growth of the frame up to its last orthonormalisation.
  void add_growth(S* sums) const {
    if constexpr (std::is_same_v<S, double>) {
      if (map_.in_order()) {  // the same logarithm as in lanes
        for (Index c = 0; c < k_; c += kRuns<Lane>) {
          const Lane logs = log(pylyap::load<Lane>(norms_.data() + c));
          for (Index j = c; j < std::min(c + kRuns<Lane>, k_); ++j) sums[j] += lane(logs, j - c);
        }
      } else {
        for (Index c = 0; c < k_; ++c) sums[c] += log(norms_[c]);
      }
    } else {
      for (Index c = 0; c < k_; ++c) sums[c] += log(norms_[c]);
    }
    if (scale_.active())
      for (Index c = 0; c < k_; ++c)
        sums[c] = fused<S>(scale_.exponents()[c], broadcast<S>(std::numbers::ln2), sums[c]);
  }

  // The transient: n_steps steps from t = start, which end with an orthonormalisation. growth (k)
  // is set to that of the frame. False if cancelled.
  bool align(Index start, Index n_steps, S* growth, Progress& progress) {
    std::fill_n(growth, k_, S{});
    for (Index s = 0; s < n_steps; ++s) {
      advance(start + s, 0);
      if ((s + 1) % qr_every_ == 0 || s + 1 == n_steps) {
        orthonormalise(nullptr, 0);
        add_growth(growth);
        scale_.reset();
      } else {
        rescale();
      }
      if (!progress.step()) return false;
    }
    return true;
  }

 private:
  Map<S>& map_;
  const Index qr_every_, k_;
  Orthonormaliser<S> orthonormalise_;
  FrameScale<S> scale_;
  Buffer<S> norms_;  // diag R
  Divergence<S> divergence_;
};

}  // namespace pylyap
