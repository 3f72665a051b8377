// The functions that the bindings call, each for a range of runs. They group the runs and choose
// the scalar type for the network. All arrays are over runs, in C order.
#pragma once

#include "callable.hpp"
#include "cost.hpp"
#include "group.hpp"
#include "plans.hpp"
#include "problem.hpp"

namespace pylyap {

// The runs first ... first + count - 1, with `workers` threads inside each run.
struct Task {
  Control control;
  Index workers, first, count;
};

// Number of runs of a training, or of a callable map with n variables, in one group.
Index group_size(const Problem& problem);
Index group_size(Index n);
// Runs of a group of a training, at most, that are computed one after the other rather than in
// lanes: a task of so few runs takes less time than a group.
Index runs_alone(const Problem& problem);
// Threads inside each run of a task, at most its workers.
Index workers_inside(const Problem& problem, Index n_samples, Index k, Method method,
                     const Task& task);

// out (runs, n_samples, outputs) from weights (runs, n_params)
void predict(const Architecture& arch, const Data& data, const double* weights, double* out,
             const Task& task);

// loss (runs), gradient (runs, n_params) and hessian (runs, n_params, n_params); each may be null.
void evaluate(const Problem& problem, const double* weights, double* loss, double* gradient,
              double* hessian, const Task& task);

// out (runs, n, k) <- H vectors, H of the mean loss of all data, for states of weights alone.
void hessian_vectors(const Problem& problem, const double* weights, const double* vectors, Index k,
                     double* out, const Task& task);

// next (runs, n) and out (runs, n, k), the tangent of the step; each may be null.
void one_step(const Problem& problem, const double* states, const RateArrays& rates, Index t,
              const double* vectors, Index k, Method method, double* next, double* out,
              const Task& task);

// out (runs, n_steps / every + 1, n), the first row is the start.
void trajectory(const Problem& problem, const double* states, const RateArrays& rates, Index start,
                Index n_steps, Index every, double* out, const Task& task);

// losses (runs, n_steps) of all data, one before each step, and the last states `next` (runs, n).
void loss_series(const Problem& problem, const double* states, const RateArrays& rates, Index start,
                 Index n_steps, double* losses, double* next, const Task& task);

// Benettin's method (spectrum.hpp) along trainings and along callable maps; compiled callables run
// in lanes.
void spectrum(const Problem& problem, const SpectrumPlan& plan, Index k, const double* states,
              const RateArrays& rates, Method method, const SpectrumOutput& out, const Task& task);
void spectrum(const Callable& map, bool lanes, const SpectrumPlan& plan, Index n, Index k,
              const double* states, const SpectrumOutput& out, const Task& task);

// The method of Ginelli et al. (covariant.hpp), likewise. frame (runs, n, k) to start from, far
// (k, k) the coefficients at the far end.
void covariant(const Problem& problem, const CovariantPlan& plan, Index k, const double* states,
               const RateArrays& rates, Method method, const double* frame, const double* far,
               const CovariantOutput& out, const Task& task);
void covariant(const Callable& map, bool lanes, const CovariantPlan& plan, Index n, Index k,
               const double* states, const double* frame, const double* far,
               const CovariantOutput& out, const Task& task);

// frame (n, k) = Q R: q (n, k), diagonal (k), r (k, k); scale (k) or null as for Orthonormaliser.
void orthonormalise(const double* frame, const double* scale, Index n, Index k, double* q,
                    double* diagonal, double* r);

// frame (k, n), one vector per row, in and out; diagonal (k) and r (k, k) out. `workers` threads.
void orthonormalise_rows(double* frame, Index n, Index k, Index workers, double* diagonal,
                         double* r);

// Log singular values of the products of `per_window` factors, windows `stride` factors apart.
// factors (runs, segments, k, k), exponents (runs, segments, k) -> out (runs, n_windows, k).
void window_growth(const double* factors, const double* exponents, Index segments, Index k,
                   Index per_window, Index stride, double* out, const Task& task);

// Elementary functions as the kernels compute them, for tests and plots: y (count) <- f(x).
enum class Elementary { exp, expm1, log, log1p };
void elementary(Elementary function, const double* x, double* y, Index count);

}  // namespace pylyap
