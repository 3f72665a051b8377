// Lyapunov exponents by Benettin's method: carry a frame along a run and sum its log growth.
//
// Benettin et al., Meccanica 15, 21 (1980); QR form: Geist et al., Prog. Theor. Phys. 83, 875
// (1990), method H2. Cost per step: the tangent of the map, and 2 n k^2 for each
// orthonormalisation.
#pragma once

#include <algorithm>

#include "buffer.hpp"
#include "group.hpp"
#include "growth.hpp"
#include "lanes.hpp"
#include "map.hpp"
#include "plans.hpp"
#include "tangent_frame.hpp"

namespace pylyap {

template <class S>
class Benettin {
 public:
  Benettin(Map<S>& map, const SpectrumPlan& plan)
      : plan_(plan),
        map_(map),
        k_(map.k()),
        frame_(map, plan.qr_every),
        growth_(k_),
        r_(plan.segment > 0 ? k_ * k_ : 0),
        factor_(plan.segment > 0 ? k_ * k_ : 0) {}

  void run(const Group<S>& group, const double* states, const SpectrumOutput& out,
           const Control& control) {
    const Layout layout = map_.layout();
    const Index n = map_.n(), records = plan_.n_steps / plan_.record_every;
    frame_.load(group, states, out.frame);
    Progress progress(control, group.count);
    if (!frame_.align(plan_.start, plan_.n_transient, growth_.data(), progress)) return;
    for (Index l = 0; l < group.count; ++l)
      for (Index c = 0; c < k_ && finite(l); ++c)
        out.transient_growth[(group.first + l) * k_ + c] = lane(growth_[c], l);
    const Index first_step = plan_.start + plan_.n_transient;
    Index r = 0;
    for (; r < records && frame_.divergence().any_finite(group.count); ++r) {
      std::fill_n(growth_.data(), k_, S{});
      for (Index s = r * plan_.record_every; s < (r + 1) * plan_.record_every; ++s) {
        S loss{};
        const bool begins = s == r * plan_.record_every;
        map_.advance(first_step + s, begins ? &loss : nullptr);
        if (begins) store_loss(group, r, loss, out, records);  // of the state before the step
        frame_.note_state(s);
        if ((s + 1) % plan_.qr_every == 0) {
          frame_.orthonormalise(r_.size() > 0 ? r_.data() : nullptr, s);
          frame_.add_growth(growth_.data());
          if (plan_.segment > 0) multiply_products(group, out, s);
          frame_.scale().reset();
        } else {
          frame_.rescale();
        }
        if (!progress.step()) return;
      }
      for (Index l = 0; l < group.count; ++l) {
        double* row = out.growth + ((group.first + l) * records + r) * k_;
        for (Index c = 0; c < k_; ++c) row[c] = finite(l) ? lane(growth_[c], l) : kNan;
      }
    }
    if (!fill_rest(group, r, out, records, control)) return;
    store_loss(group, records, map_.full_loss(), out, records);
    for (Index l = 0; l < group.count; ++l) {
      const Index run = group.first + l;
      out.status[run] = finite(l) ? 0 : (map_.raised(l) ? 3 : 1);
      out.n_done[run] = finite(l) ? plan_.n_steps : frame_.divergence().step(l);
      group.store(map_.state(), layout, out.state + run * n, l, finite(l));
      group.store_frame(map_.frame(), layout, k_, out.frame + run * n * k_, l, finite(l));
    }
  }

 private:
  bool finite(Index l) const { return frame_.divergence().finite(l); }

  // The loss of the runs that are finite; nan for the others.
  void store_loss(const Group<S>& group, Index r, const S& loss, const SpectrumOutput& out,
                  Index records) const {
    for (Index l = 0; l < group.count; ++l)
      out.loss[(group.first + l) * (records + 1) + r] = finite(l) ? lane(loss, l) : kNan;
  }
  // nan for the records from r on, which no run of the group has reached; false if cancelled.
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

  void multiply_products(const Group<S>& group, const SpectrumOutput& out, Index s) {
    const Index segments = plan_.n_steps / plan_.segment, p = s / plan_.segment;
    for (Index l = 0; l < group.count; ++l) {
      const Index at = (group.first + l) * segments + p;
      const ScaledProduct product{out.products + at * k_ * k_, out.exponents + at * k_, k_};
      if (s - p * plan_.segment < plan_.qr_every) product.set_identity();
      for (Index i = 0; i < k_ * k_; ++i) factor_[i] = lane(r_[i], l);
      // The power of two of column c of the factor is that of row c of the product.
      for (Index c = 0; c < k_; ++c) product.exponents[c] += lane(frame_.scale().exponents()[c], l);
      product.multiply_left(factor_.data(), nullptr);
    }
  }

  const SpectrumPlan plan_;
  Map<S>& map_;
  const Index k_;
  TangentFrame<S> frame_;
  Buffer<S> growth_, r_;
  Buffer<double> factor_;
};

}  // namespace pylyap
