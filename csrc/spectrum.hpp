// Carry a frame along a run and record how it grows: Benettin's method.
//
// Benettin et al., Meccanica 15, 21 (1980); QR form: Geist et al., Prog. Theor. Phys. 83, 875
// (1990), method H2. Cost per step: the map's tangent, and 2 n k^2 for each orthonormalisation.
#pragma once

#include <algorithm>
#include <cmath>

#include "elementary.hpp"
#include "group.hpp"
#include "growth.hpp"
#include "lanes.hpp"
#include "orthonormalise.hpp"
#include "problem.hpp"
#include "step.hpp"

namespace pylyap {

struct SpectrumPlan {
  Index start, n_transient, n_steps, qr_every, record_every;
  Index segment;  // steps per product of R factors; 0 for none
};

// Arrays over runs. The caller fills `growth` and `loss` with nan: a diverged run writes no more.
struct SpectrumOutput {
  double* growth;        // (runs, n_records, k) log growth summed over each record, nats
  double* loss;          // (runs, n_records + 1)
  double* state;         // (runs, n)
  double* frame;         // (runs, n, k); in: the start frame
  std::int64_t* status;  // (runs) 0 finished, 1 diverged
  std::int64_t* n_done;  // (runs) steps after the transient that stayed finite
  double* products;      // (runs, n_steps / segment, k, k) or null
  double* exponents;     // (runs, n_steps / segment, k)
};

template <class S>
class Benettin {
 public:
  Benettin(const Problem& problem, Index k, Method method, const SpectrumPlan& plan, Team& team)
      : problem_(problem),
        plan_(plan),
        k_(k),
        training_(problem, k, method, team),
        orthonormalise_(training_.n(), k),
        norms_(k),
        ones_(k),
        growth_(k),
        r_(plan.segment > 0 ? k * k : 0),
        factor_(plan.segment > 0 ? k * k : 0) {
    for (Index c = 0; c < k; ++c) ones_[c] = splat<S>(1.0);
  }

  void run(const Group<S>& group, const double* states, const RateArrays& rates,
           const SpectrumOutput& out, const Control& control) {
    const Architecture& arch = problem_.arch;
    const Index blocks = 1 + problem_.optimizer.buffers(), n = training_.n();
    const Index records = plan_.n_steps / plan_.record_every;
    group.load(states, arch, blocks, training_.state());
    group.load_frame(out.frame, arch, blocks, k_, training_.frame());
    training_.rates() = group.rates(rates);
    std::fill_n(lost_, kLanes, kNever);
    Progress progress(control, group.count);

    for (Index s = 0; s < plan_.n_transient; ++s) {
      training_.advance(plan_.start + s, nullptr);
      note_lost_state(0);
      if ((s + 1) % plan_.qr_every == 0 || s + 1 == plan_.n_transient) qr(nullptr, 0);
      if (!progress.step()) return;
    }
    const Index first_step = plan_.start + plan_.n_transient;
    for (Index r = 0; r < records && any_alive(group); ++r) {
      std::fill_n(growth_.data(), k_, S{});
      for (Index s = r * plan_.record_every; s < (r + 1) * plan_.record_every; ++s) {
        if (s == r * plan_.record_every) {
          store_loss(group, r, advance_with_loss(first_step + s), out, records);
        } else {
          training_.advance(first_step + s, nullptr);
        }
        note_lost_state(s);
        if ((s + 1) % plan_.qr_every == 0) {
          qr(growth_.data(), s);
          if (plan_.segment > 0) multiply_products(group, out, s);
        }
        if (!progress.step()) return;
      }
      for (Index l = 0; l < group.count; ++l) {
        double* row = out.growth + ((group.first + l) * records + r) * k_;
        for (Index c = 0; c < k_ && lost_[l] == kNever; ++c) row[c] = lane(growth_[c], l);
      }
    }
    store_loss(group, records, training_.full_loss(), out, records);
    for (Index l = 0; l < group.count; ++l) {
      const Index run = group.first + l;
      const bool finite = lost_[l] == kNever;
      out.status[run] = finite ? 0 : 1;
      out.n_done[run] = finite ? plan_.n_steps : lost_[l];
      group.store(training_.state(), arch, blocks, out.state + run * n, l, finite);
      group.store_frame(training_.frame(), arch, blocks, k_, out.frame + run * n * k_, l, finite);
    }
  }

 private:
  static constexpr Index kNever = -1;

  S advance_with_loss(Index t) {
    S loss{};
    if (!training_.full_batch()) loss = training_.full_loss();
    training_.advance(t, training_.full_batch() ? &loss : nullptr);
    return loss;
  }

  // Of the runs that are still finite; the others keep the nan that is there.
  void store_loss(const Group<S>& group, Index r, const S& loss, const SpectrumOutput& out,
                  Index records) const {
    for (Index l = 0; l < group.count; ++l)
      if (lost_[l] == kNever) out.loss[(group.first + l) * (records + 1) + r] = lane(loss, l);
  }

  // Orthonormalises the frame and adds the logs of its growth.
  void qr(S* growth, Index s) {
    // A step's rounding is that of the unit vectors it started from: I - lr H cancels down to it.
    const S* scale = plan_.qr_every == 1 ? ones_.data() : nullptr;
    orthonormalise_(training_.frame(), norms_.data(), scale, r_.size() ? r_.data() : nullptr);
    S mark{};
    for (Index c = 0; c < k_; ++c) mark += not_finite(norms_[c]);
    note_lost(mark, s);
    if (!growth) return;
    for (Index c = 0; c < k_; ++c) growth[c] += log(norms_[c]);
  }

  void multiply_products(const Group<S>& group, const SpectrumOutput& out, Index s) {
    const Index segments = plan_.n_steps / plan_.segment, p = s / plan_.segment;
    for (Index l = 0; l < group.count; ++l) {
      const Index at = (group.first + l) * segments + p;
      const ScaledProduct product{out.products + at * k_ * k_, out.exponents + at * k_, k_};
      if (s - p * plan_.segment < plan_.qr_every) product.set_identity();
      for (Index i = 0; i < k_ * k_; ++i) factor_[i] = lane(r_[i], l);
      product.multiply_left(factor_.data(), nullptr);
    }
  }

  // A step that leaves the finite numbers makes its whole state nan, so one entry tells.
  void note_lost_state(Index s) { note_lost(not_finite(training_.state()[0]), s); }

  void note_lost(const S& mark, Index s) {
    for (Index l = 0; l < kWidth<S>; ++l)
      if (lost_[l] == kNever && std::isnan(lane(mark, l))) lost_[l] = s;
  }

  bool any_alive(const Group<S>& group) const {
    return std::any_of(lost_, lost_ + group.count, [](Index s) { return s == kNever; });
  }

  const Problem& problem_;
  SpectrumPlan plan_;
  Index k_;
  Training<S> training_;
  Orthonormaliser<S> orthonormalise_;
  Buffer<S> norms_, ones_, growth_, r_;
  Buffer<double> factor_;
  Index lost_[kLanes];  // the step that left the finite numbers, per lane
};

}  // namespace pylyap
