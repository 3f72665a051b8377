// The map at given states, in every scalar type.
#include "../pointwise.hpp"

#include "../runs.hpp"
#include "over_groups.hpp"

namespace pylyap {

Index group_size(const Problem& problem) {
  return fits_lanes(problem.arch) && !problem.single ? kRuns<Lane> : 1;
}
Index runs_alone(const Problem& problem) {
  return runs_alone(problem.arch, problem.batches.batch_size);
}
Index workers_inside(const Problem& problem, Index n_samples, Index k, Method method,
                     const Task& task) {
  const bool lanes = std::min(task.count, kRuns<Lane>) > runs_alone(problem.arch, n_samples);
  return team_size(problem.arch, n_samples, k, method, lanes ? kRuns<Lane> : 1, task.workers);
}
Index group_size(Index n) { return n <= kMaxInLanes ? kRuns<Lane> : 1; }

void predict(const Architecture& arch, const Data& data, const double* weights, double* out,
             const Task& task) {
  over_groups(
      runs_alone(arch, data.n_samples()), task,
      [&]<class S>(S) { return Prediction<S>(arch, data); },
      [&](auto& worker, const auto& group) { worker.run(group, weights, out, task.control); });
}

void evaluate(const Problem& problem, const double* weights, double* loss, double* gradient,
              double* hessian, const Task& task) {
  Team team(workers_inside(problem, problem.data.n_samples(), 0, Method::automatic, task));
  over_groups(
      runs_alone(problem.arch, problem.data.n_samples()), problem.single && !hessian, task,
      [&]<class S>(S) { return Evaluation<S>(problem, hessian != nullptr, team); },
      [&](auto& worker, const auto& group) {
        worker.run(group, weights, loss, gradient, hessian);
      });
}

void hessian_vectors(const Problem& problem, const double* weights, const double* vectors, Index k,
                     double* out, const Task& task) {
  Team team(workers_inside(problem, problem.data.n_samples(), k, Method::automatic, task));
  over_groups(
      runs_alone(problem.arch, problem.data.n_samples()), task,
      [&]<class S>(S) { return Curvature<S>(problem, k, team); },
      [&](auto& worker, const auto& group) { worker.run(group, weights, vectors, out); });
}

void one_step(const Problem& problem, const double* states, const RateArrays& rates, Index t,
              const double* vectors, Index k, Method method, double* next, double* out,
              const Task& task) {
  Team team(workers_inside(problem, problem.batches.batch_size, k, method, task));
  over_groups(
      runs_alone(problem), problem.single && k == 0, task,
      [&]<class S>(S) { return OneStep<S>(problem, k, method, team); },
      [&](auto& worker, const auto& group) {
        worker.run(group, states, rates, t, vectors, next, out);
      });
}

void trajectory(const Problem& problem, const double* states, const RateArrays& rates, Index start,
                Index n_steps, Index every, double* out, const Task& task) {
  Team team(workers_inside(problem, problem.batches.batch_size, 0, Method::automatic, task));
  over_groups(
      runs_alone(problem), problem.single, task,
      [&]<class S>(S) { return Trajectory<S>(problem, team); },
      [&](auto& worker, const auto& group) {
        worker.run(group, states, rates, start, n_steps, every, out, task.control);
      });
}

void loss_series(const Problem& problem, const double* states, const RateArrays& rates, Index start,
                 Index n_steps, double* losses, double* next, const Task& task) {
  Team team(workers_inside(problem, problem.batches.batch_size, 0, Method::automatic, task));
  over_groups(
      runs_alone(problem), problem.single, task,
      [&]<class S>(S) { return LossSeries<S>(problem, team); },
      [&](auto& worker, const auto& group) {
        worker.run(group, states, rates, start, n_steps, losses, next, task.control);
      });
}

}  // namespace pylyap
