// Carry a frame along a run and record how it grows: Benettin's method.
//
// Benettin et al., Meccanica 15, 21 (1980); QR form: Geist et al., Prog. Theor. Phys. 83, 875
// (1990), method H2. Cost per step: the map's tangent, and 2 n k^2 for each orthonormalisation.
#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>

#include "buffer.hpp"
#include "elementary.hpp"
#include "group.hpp"
#include "growth.hpp"
#include "lanes.hpp"
#include "map.hpp"
#include "orthonormalise.hpp"
#include "plans.hpp"

namespace pylyap {

template <class S>
class Benettin {
 public:
  Benettin(Map<S>& map, const SpectrumPlan& plan)
      : plan_(plan),
        map_(map),
        k_(map_.k()),
        orthonormalise_(map_.n(), k_),
        scale_(map_.n(), k_),
        norms_(k_),
        growth_(k_),
        r_(plan.segment > 0 ? k_ * k_ : 0),
        factor_(plan.segment > 0 ? k_ * k_ : 0) {}

  void run(const Group<S>& group, const double* states, const SpectrumOutput& out,
           const Control& control) {
    const Layout layout = map_.layout();
    const Index n = map_.n(), records = plan_.n_steps / plan_.record_every;
    group.load(states, layout, map_.state());
    group.load_frame(out.frame, layout, k_, map_.frame());
    std::fill_n(lost_, kLanes, kNever);
    Progress progress(control, group.count);

    std::fill_n(growth_.data(), k_, S{});
    for (Index s = 0; s < plan_.n_transient; ++s) {
      map_.advance(plan_.start + s, nullptr);
      note_lost_state(0);
      if ((s + 1) % plan_.qr_every == 0 || s + 1 == plan_.n_transient) {
        qr(growth_.data(), 0);
        scale_.reset();
      } else {
        scale_.rescale(map_.frame());
      }
      if (!progress.step()) return;
    }
    for (Index l = 0; l < group.count; ++l)
      for (Index c = 0; c < k_ && lost_[l] == kNever; ++c)
        out.transient_growth[(group.first + l) * k_ + c] = lane(growth_[c], l);
    const Index first_step = plan_.start + plan_.n_transient;
    Index r = 0;
    for (; r < records && any_alive(group); ++r) {
      std::fill_n(growth_.data(), k_, S{});
      for (Index s = r * plan_.record_every; s < (r + 1) * plan_.record_every; ++s) {
        S loss{};
        const bool begins = s == r * plan_.record_every;
        map_.advance(first_step + s, begins ? &loss : nullptr);
        if (begins) store_loss(group, r, loss, out, records);
        note_lost_state(s);
        if ((s + 1) % plan_.qr_every == 0) {
          qr(growth_.data(), s);
          if (plan_.segment > 0) multiply_products(group, out, s);
        } else {
          scale_.rescale(map_.frame());
        }
        if (!progress.step()) return;
      }
      for (Index l = 0; l < group.count; ++l) {
        double* row = out.growth + ((group.first + l) * records + r) * k_;
        for (Index c = 0; c < k_; ++c) row[c] = lost_[l] == kNever ? lane(growth_[c], l) : kNan;
      }
    }
    if (!fill_rest(group, r, out, records, control)) return;
    store_loss(group, records, map_.full_loss(), out, records);
    for (Index l = 0; l < group.count; ++l) {
      const Index run = group.first + l;
      const bool finite = lost_[l] == kNever;
      out.status[run] = finite ? 0 : (map_.raised(l) ? 3 : 1);
      out.n_done[run] = finite ? plan_.n_steps : lost_[l];
      group.store(map_.state(), layout, out.state + run * n, l, finite);
      group.store_frame(map_.frame(), layout, k_, out.frame + run * n * k_, l, finite);
    }
  }

 private:
  static constexpr Index kNever = -1;

  // Of the runs that are still finite; nan for the others.
  void store_loss(const Group<S>& group, Index r, const S& loss, const SpectrumOutput& out,
                  Index records) const {
    for (Index l = 0; l < group.count; ++l)
      out.loss[(group.first + l) * (records + 1) + r] = lost_[l] == kNever ? lane(loss, l) : kNan;
  }
  // nan for the records from r on, which no run of the group reached; false if cancelled.
  bool fill_rest(const Group<S>& group, Index r, const SpectrumOutput& out, Index records,
                 const Control& control) const {
    for (Index l = 0; l < group.count; ++l) {
      const Index run = group.first + l;
      if (!control.fill_with_nan(out.growth + (run * records + r) * k_, (records - r) * k_) ||
          !control.fill_with_nan(out.loss + run * (records + 1) + r, records - r))
        return false;
    }
    return true;
  }

  // Orthonormalises the frame and adds the logs of its growth.
  void qr(S* growth, Index s) {
    const S* scale = plan_.qr_every == 1 ? map_.source() : nullptr;
    scale_.restore(map_.frame());
    orthonormalise_(map_.frame(), norms_.data(), scale, r_.size() ? r_.data() : nullptr);
    S mark{};
    for (Index c = 0; c < k_; ++c) mark += not_finite(norms_[c]);
    note_lost(mark, s);
    for (Index c = 0; growth && c < k_; ++c) growth[c] += log(norms_[c]);
    if (growth && scale_.active())
      for (Index c = 0; c < k_; ++c) growth[c] += scale_.exponents()[c] * std::numbers::ln2;
    if (!growth || r_.size() == 0) scale_.reset();  // else multiply_products needs it
  }

  void multiply_products(const Group<S>& group, const SpectrumOutput& out, Index s) {
    const Index segments = plan_.n_steps / plan_.segment, p = s / plan_.segment;
    for (Index l = 0; l < group.count; ++l) {
      const Index at = (group.first + l) * segments + p;
      const ScaledProduct product{out.products + at * k_ * k_, out.exponents + at * k_, k_};
      if (s - p * plan_.segment < plan_.qr_every) product.set_identity();
      for (Index i = 0; i < k_ * k_; ++i) factor_[i] = lane(r_[i], l);
      // Column c of the factor has a power of two of its own: it goes to row c of the product.
      for (Index c = 0; c < k_; ++c) product.exponents[c] += lane(scale_.exponents()[c], l);
      product.multiply_left(factor_.data(), nullptr);
    }
    scale_.reset();
  }

  // A state that is not finite is nan throughout, so one entry tells.
  void note_lost_state(Index s) { note_lost(not_finite(map_.state()[0]), s); }

  void note_lost(const S& mark, Index s) {
    for (Index l = 0; l < kWidth<S>; ++l)
      if (lost_[l] == kNever && std::isnan(lane(mark, l))) lost_[l] = s;
  }

  bool any_alive(const Group<S>& group) const {
    return std::any_of(lost_, lost_ + group.count, [](Index s) { return s == kNever; });
  }

  SpectrumPlan plan_;
  Map<S>& map_;
  Index k_;
  Orthonormaliser<S> orthonormalise_;
  FrameScale<S> scale_;
  Buffer<S> norms_, growth_, r_;
  Buffer<double> factor_;
  Index lost_[kLanes];  // the step that left the finite numbers, per lane
};

}  // namespace pylyap
