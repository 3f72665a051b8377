// Functions of given states: loss, gradient, Hessian and its products with vectors, step, tangent
// and outputs; and trajectories.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>

#include "group.hpp"
#include "lanes.hpp"
#include "problem.hpp"
#include "team.hpp"
#include "training.hpp"

namespace pylyap {

// loss (runs), gradient (runs, n_params), hessian (runs, n_params, n_params): each may be null.
template <class S>
class Evaluation {
 public:
  Evaluation(const Problem& problem, bool hessian, Team& team)
      : problem_(problem),
        training_(
            TrainingMap<S>::make(problem, 0, hessian ? Method::dense : Method::automatic, team)) {}

  // weights (runs, n_params)
  void run(const Group<S>& group, const double* weights, double* loss, double* gradient,
           double* hessian) {
    const Architecture& arch = problem_.arch;
    const Layout layout = layout_of(arch, 1);
    const Index np = arch.n_params;
    group.load(weights, layout, training_->state());
    const Accumulator<S> value =
        gradient || hessian ? training_->evaluate_all() : training_->full_loss();
    for (Index l = 0; l < group.count; ++l) {
      const Index run = group.run(l);
      if (loss) loss[run] = lane(value, l);
      if (gradient) group.store(training_->gradient(), layout, gradient + run * np, l);
      if (!hessian) continue;
      for (Index i = 0; i < np; ++i) {
        double* row = hessian + (run * np + arch.external[static_cast<std::size_t>(i)]) * np;
        group.store(training_->hessian() + i * np, layout, row, l);
      }
    }
  }

 private:
  const Problem& problem_;
  std::unique_ptr<TrainingMap<S>> training_;
};

// H v for k vectors, H of the mean loss of all data. The optimiser has no buffers.
template <class S>
class Curvature {
 public:
  Curvature(const Problem& problem, Index k, Team& team)
      : training_(TrainingMap<S>::make(problem, k, Method::automatic, team)) {}

  // weights (runs, n); vectors and out (runs, n, k)
  void run(const Group<S>& group, const double* weights, const double* vectors, double* out) {
    const Layout layout = training_->layout();
    const Index n = training_->n(), k = training_->k();
    group.load(weights, layout, training_->state());
    group.load_frame(vectors, layout, k, training_->frame());
    training_->multiply_hessian();
    for (Index l = 0; l < group.count; ++l)
      group.store_frame(training_->frame(), layout, k, out + group.run(l) * n * k, l);
  }

 private:
  std::unique_ptr<TrainingMap<S>> training_;
};

// One step at index t with k tangent vectors; with k = 0 the step alone.
template <class S>
class OneStep {
 public:
  OneStep(const Problem& problem, Index k, Method method, Team& team)
      : training_(TrainingMap<S>::make(problem, k, method, team)) {}

  // states (runs, n); vectors in, (runs, n, k); next (runs, n) or null; out (runs, n, k) or null.
  void run(const Group<S>& group, const double* states, const RateArrays& rates, Index t,
           const double* vectors, double* next, double* out) {
    const Layout layout = training_->layout();
    const Index n = training_->n(), k = training_->k();
    group.load(states, layout, training_->state());
    training_->set_rates(group, rates);
    if (k > 0) group.load_frame(vectors, layout, k, training_->frame());
    training_->advance(t, nullptr);
    for (Index l = 0; l < group.count; ++l) {
      const Index run = group.run(l);
      if (next) group.store(training_->state(), layout, next + run * n, l);
      if (out) group.store_frame(training_->frame(), layout, k, out + run * n * k, l);
    }
  }

 private:
  std::unique_ptr<TrainingMap<S>> training_;
};

template <class S>
class Trajectory {
 public:
  Trajectory(const Problem& problem, Team& team)
      : training_(TrainingMap<S>::make(problem, 0, Method::automatic, team)) {}

  // states (runs, n); out (runs, n_steps / every + 1, n), the first row is the start.
  void run(const Group<S>& group, const double* states, const RateArrays& rates, Index start,
           Index n_steps, Index every, double* out, const Control& control) {
    const Layout layout = training_->layout();
    const Index n = training_->n();
    const Index records = n_steps / every + 1;
    group.load(states, layout, training_->state());
    training_->set_rates(group, rates);
    Progress progress(control, group.count);
    for (Index s = 0; s <= n_steps; ++s) {
      if (s % every == 0) {
        for (Index l = 0; l < group.count; ++l) {
          double* row = out + ((group.first + l) * records + s / every) * n;
          group.store(training_->state(), layout, row, l);
        }
      }
      if (s == n_steps) break;
      training_->advance(start + s, nullptr);
      if (!progress.step()) return;
    }
  }

 private:
  std::unique_ptr<TrainingMap<S>> training_;
};

// The losses of all data along a run, one before each step.
template <class S>
class LossSeries {
 public:
  LossSeries(const Problem& problem, Team& team)
      : training_(TrainingMap<S>::make(problem, 0, Method::automatic, team)) {}

  // states and next (runs, n), which may be the same array; losses (runs, n_steps). Ends as soon as
  // no state of the group is finite: the remaining losses are nan.
  void run(const Group<S>& group, const double* states, const RateArrays& rates, Index start,
           Index n_steps, double* losses, double* next, const Control& control) {
    const Layout layout = training_->layout();
    const Index n = training_->n();
    group.load(states, layout, training_->state());
    training_->set_rates(group, rates);
    Progress progress(control, group.count);
    for (Index s = 0; s < n_steps; ++s) {
      Accumulator<S> loss;
      training_->advance(start + s, &loss);
      const S flag = nan_unless_finite(training_->state()[0]);
      bool alive = false;
      for (Index l = 0; l < group.count; ++l) {
        losses[(group.first + l) * n_steps + s] = lane(loss, l);
        alive |= !std::isnan(lane(flag, l));
      }
      if (!progress.step()) return;
      if (alive) continue;
      for (Index l = 0; l < group.count; ++l)
        std::fill_n(losses + (group.first + l) * n_steps + s + 1, n_steps - s - 1, kNan);
      break;
    }
    for (Index l = 0; l < group.count; ++l)
      group.store(training_->state(), layout, next + (group.first + l) * n, l);
  }

 private:
  std::unique_ptr<TrainingMap<S>> training_;
};

// Outputs of a network without labels: out (runs, n_samples, outputs).
template <class S>
class Prediction {
 public:
  Prediction(const Architecture& arch, const Data& data)
      : arch_(arch), n_samples_(data.n_samples()), predictor_(Predictor<S>::make(arch, data)) {}

  void run(const Group<S>& group, const double* weights, double* out, const Control& control) {
    const Index N = n_samples_, C = arch_.outputs(), block = predictor_->block();
    group.load(weights, layout_of(arch_, 1), predictor_->weights());
    for (Index begin = 0; begin < N && !control.cancelled(); begin += block) {
      const Index count = std::min(block, N - begin);
      const S* values = predictor_->predict(begin, count);
      const Index stride = predictor_->stride();
      for (Index l = 0; l < group.count; ++l)
        for (Index c = 0; c < C; ++c)
          for (Index s = 0; s < count; ++s)
            out[(group.run(l) * N + begin + s) * C + c] = lane(values[c * stride + s], l);
    }
  }

 private:
  const Architecture& arch_;
  const Index n_samples_;
  std::unique_ptr<Predictor<S>> predictor_;
};

}  // namespace pylyap
