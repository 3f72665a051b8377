// Benettin's method and that of Ginelli et al., for several runs in lanes and for one run in
// double.
#include <numbers>

#include "../buffer.hpp"
#include "../callable.hpp"
#include "../covariant.hpp"
#include "../elementary.hpp"
#include "../growth.hpp"
#include "../lockstep.hpp"
#include "../runs.hpp"
#include "../spectrum.hpp"
#include "../training.hpp"
#include "over_groups.hpp"

namespace pylyap {

namespace {

// A map and the method that advances it.
template <class M, class Method>
struct MapAndMethod {
  std::unique_ptr<M> map;
  Method method;
};

// run(method, group) for every group of trainings.
template <template <class> class Driver, class Plan, class F>
void along_trainings(const Problem& problem, const Plan& plan, Index k, const RateArrays& rates,
                     Method method, const Task& task, F&& run) {
  Team team(workers_inside(problem, problem.batches.batch_size, k, method, task));
  over_groups(
      runs_alone(problem), task,
      [&]<class S>(S) {
        auto map = TrainingMap<S>::make(problem, k, method, team);
        auto& reference = *map;
        return MapAndMethod<TrainingMap<S>, Driver<S>>{std::move(map), Driver<S>(reference, plan)};
      },
      [&](auto& worker, const auto& group) {
        worker.map->set_rates(group, rates);
        run(worker.method, group);
      });
}

// run(method, group) for every group of runs of a callable map.
template <template <class> class Driver, class Plan, class F>
void along_callables(const Callable& map, bool lanes, const Plan& plan, Index n, Index k,
                     const Task& task, F&& run) {
  over_groups(
      lanes && n <= kMaxInLanes ? 0 : kRuns<Lane>, task,
      [&]<class S>(S) {
        auto callable = std::make_unique<CallableMap<S>>(map, n, k);
        auto& reference = *callable;
        return MapAndMethod<CallableMap<S>, Driver<S>>{std::move(callable),
                                                       Driver<S>(reference, plan)};
      },
      [&](auto& worker, const auto& group) {
        worker.map->set_count(group.count);
        run(worker.method, group);
      });
}

}  // namespace

void spectrum(const Problem& problem, const SpectrumPlan& plan, Index k, const double* states,
              const RateArrays& rates, Method method, const SpectrumOutput& out, const Task& task) {
  along_trainings<Benettin>(
      problem, plan, k, rates, method, task,
      [&](auto& benettin, const auto& group) { benettin.run(group, states, out, task.control); });
}
void spectrum(const Callable& map, bool lanes, const SpectrumPlan& plan, Index n, Index k,
              const double* states, const SpectrumOutput& out, const Task& task) {
  along_callables<Benettin>(map, lanes, plan, n, k, task, [&](auto& benettin, const auto& group) {
    benettin.run(group, states, out, task.control);
  });
}

void covariant(const Problem& problem, const CovariantPlan& plan, Index k, const double* states,
               const RateArrays& rates, Method method, const double* frame, const double* far,
               const CovariantOutput& out, const Task& task) {
  along_trainings<Ginelli>(problem, plan, k, rates, method, task,
                           [&](auto& ginelli, const auto& group) {
                             ginelli.run(group, states, frame, far, out, task.control);
                           });
}
void covariant(const Callable& map, bool lanes, const CovariantPlan& plan, Index n, Index k,
               const double* states, const double* frame, const double* far,
               const CovariantOutput& out, const Task& task) {
  along_callables<Ginelli>(map, lanes, plan, n, k, task, [&](auto& ginelli, const auto& group) {
    ginelli.run(group, states, frame, far, out, task.control);
  });
}

Lockstep::Lockstep(const SpectrumPlan& plan, Index runs, Index n, Index k)
    : plan_(plan), n_(n), k_(k), growth_(runs * k) {
  scales_.reserve(static_cast<std::size_t>(runs));
  for (Index r = 0; r < runs; ++r) scales_.emplace_back(n, k, false);
}

void Lockstep::take(Index step, const double* states, const double* pushed, const double* source,
                    const SpectrumOutput& out, const Task& task) {
  const bool transient = step < plan_.n_transient;
  const Index s = transient ? step : step - plan_.n_transient;
  const bool ends_transient = step + 1 == plan_.n_transient;
  const bool due = (s + 1) % plan_.qr_every == 0 || ends_transient;
  const bool multiplies = due && !transient && plan_.segment > 0;
  const bool records = !transient && (s + 1) % plan_.record_every == 0;
  Orthonormaliser<double> orthonormalise(n_, k_);
  Buffer<double> columns(k_ * n_), norms(k_), r(multiplies ? k_ * k_ : 0);
  for (Index run = task.first; run < task.first + task.count; ++run) {
    if (task.control.cancelled()) return;
    if (out.status[run] != 0) continue;
    FrameScale<double>& scale = scales_[static_cast<std::size_t>(run)];
    const double* from = pushed + run * n_ * k_;
    double *to = out.frame + run * n_ * k_, *growth = growth_.data() + run * k_;
    for (Index i = 0; i < n_; ++i)
      for (Index c = 0; c < k_; ++c) columns[c * n_ + i] = from[i * k_ + c];
    double flag = states[run * n_];
    if (due) {
      scale.restore(columns.data());
      const double* sizes = source && plan_.qr_every == 1 ? source + run * k_ : nullptr;
      orthonormalise(columns.data(), norms.data(), sizes, multiplies ? r.data() : nullptr);
      for (Index c = 0; c < k_; ++c) {
        flag += nan_unless_finite(norms[c]);
        growth[c] += log(norms[c]);
        if (scale.active())
          growth[c] = fused<double>(scale.exponents()[c], std::numbers::ln2, growth[c]);
      }
      if (multiplies) multiply_product(run, s, r.data(), out);
      scale.reset();
    } else {
      scale.rescale(columns.data());
    }
    if (std::isnan(flag)) {
      out.status[run] = 1;
      out.n_done[run] = transient ? 0 : s;
      std::fill_n(to, n_ * k_, kNan);
      if (!transient && plan_.segment > 0) {
        const Index product = run * (plan_.n_steps / plan_.segment) + s / plan_.segment;
        std::fill_n(out.products + product * k_ * k_, k_ * k_, kNan);
      }
      continue;
    }
    for (Index i = 0; i < n_; ++i)
      for (Index c = 0; c < k_; ++c) to[i * k_ + c] = columns[c * n_ + i];
    if (ends_transient || records) {
      const Index row = run * (plan_.n_steps / plan_.record_every) + s / plan_.record_every;
      std::copy_n(growth, k_, transient ? out.transient_growth + run * k_ : out.growth + row * k_);
      std::fill_n(growth, k_, 0.0);
    }
  }
}

void Lockstep::multiply_product(Index run, Index s, const double* r, const SpectrumOutput& out) {
  const Index p = s / plan_.segment, at = run * (plan_.n_steps / plan_.segment) + p;
  const ScaledProduct product{out.products + at * k_ * k_, out.exponents + at * k_, k_};
  if (s - p * plan_.segment < plan_.qr_every) product.set_identity();
  const double* exponents = scales_[static_cast<std::size_t>(run)].exponents();
  for (Index c = 0; c < k_; ++c) product.exponents[c] += exponents[c];
  product.multiply_left(r, nullptr);
}

void orthonormalise(const double* frame, const double* scale, Index n, Index k, double* q,
                    double* diagonal, double* r) {
  Buffer<double> columns(k * n);
  for (Index i = 0; i < n; ++i)
    for (Index c = 0; c < k; ++c) columns[c * n + i] = frame[i * k + c];
  Orthonormaliser<double>(n, k)(columns.data(), diagonal, scale, r);
  for (Index i = 0; i < n; ++i)
    for (Index c = 0; c < k; ++c) q[i * k + c] = columns[c * n + i];
}

void orthonormalise_rows(double* frame, Index n, Index k, Index workers, double* diagonal,
                         double* r) {
  Orthonormaliser<double>(n, k, false, workers)(frame, diagonal, nullptr, r);
}

void window_growth(const double* factors, const double* exponents, Index segments, Index k,
                   Index per_window, Index stride, double* out, const Task& task) {
  const Index windows = (segments - per_window) / stride + 1;
  Buffer<double> rows(k * k), scales(k);
  const ScaledProduct product{rows.data(), scales.data(), k};
  for (Index r = task.first; r < task.first + task.count; ++r) {
    for (Index w = 0; w < windows && !task.control.cancelled(); ++w) {
      product.set_identity();
      for (Index s = w * stride; s < w * stride + per_window; ++s)
        product.multiply_left(factors + (r * segments + s) * k * k,
                              exponents + (r * segments + s) * k);
      log_singular_values(product, out + (r * windows + w) * k);
    }
  }
}

}  // namespace pylyap
