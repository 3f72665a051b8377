// Benettin's method and that of Ginelli et al., for several runs in lanes and for one run in
// double.
#include "../buffer.hpp"
#include "../callable.hpp"
#include "../covariant.hpp"
#include "../growth.hpp"
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
        worker.map->rates() = group.rates(rates);
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

void orthonormalise(const double* frame, const double* scale, Index n, Index k, double* q,
                    double* diagonal, double* r) {
  Buffer<double> columns(k * n);
  for (Index i = 0; i < n; ++i)
    for (Index c = 0; c < k; ++c) columns[c * n + i] = frame[i * k + c];
  Orthonormaliser<double>(n, k)(columns.data(), diagonal, scale, r);
  for (Index i = 0; i < n; ++i)
    for (Index c = 0; c < k; ++c) q[i * k + c] = columns[c * n + i];
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
