// Runs with frames, along trainings and along maps of the user's own: the plan and the arrays,
// checked and kept alive.
#pragma once

#include "../plans.hpp"
#include "arrays.hpp"

namespace pylyap::bindings {

struct SpectrumRuns {
  SpectrumRuns(const Array& states, Index start, Index n_transient, Index n_steps, Index qr_every,
               Index record_every, Array frame, Array growth, Array loss, Array state,
               Integers status, Integers n_done, Array transient_growth, Index segment,
               std::optional<Array> products, std::optional<Array> exponents)
      : plan{start, n_transient, n_steps, qr_every, record_every, segment}, runs(rows(states)) {
    require(start >= 0 && n_transient >= 0 && n_steps >= 1 && qr_every >= 1 && record_every >= 1,
            "steps must be positive");
    require(n_steps % record_every == 0 && record_every % qr_every == 0,
            "n_steps must be a multiple of record_every, and that of qr_every");
    require(segment >= 0 && (segment == 0 || (n_steps % segment == 0 && segment % qr_every == 0)),
            "segment must divide n_steps and be a multiple of qr_every");
    require(segment == 0 || (products && exponents), "a segment needs products and exponents");
    frame_of_runs(states, frame, n, k);
    const Index records = n_steps / record_every, segments = segment > 0 ? n_steps / segment : 0;
    from = states.data();
    out = {output(growth, "growth", {runs, records, k}),
           output(loss, "loss", {runs, records + 1}),
           output(state, "state", {runs, n}),
           output(frame, "frame", {runs, n, k}),
           output(status, "status", {runs}),
           output(n_done, "n_done", {runs}),
           output(products, "products", {runs, segments, k, k}),
           output(exponents, "exponents", {runs, segments, k}),
           output(transient_growth, "transient_growth", {runs, k})};
    kept = {states, frame, growth, loss, state, status, n_done, transient_growth};
    for (const auto& array : {products, exponents})
      if (array) kept.push_back(*array);
  }

  SpectrumPlan plan;
  SpectrumOutput out;
  const double* from;
  Index runs, n, k;
  std::vector<py::object> kept;
};

struct CovariantRuns {
  CovariantRuns(const Array& states, Index start, Index n_transient, Index n_steps, Index n_tail,
                Index qr_every, Index every, Index delay, Index segment, const Array& frame,
                const Array& far, std::optional<Array> vectors, Array coefficients, Array path,
                Array growth, Array aligned, Array residual, Array transient_growth,
                Array tail_growth, std::optional<Array> early_vectors,
                std::optional<Array> early_coefficients, std::optional<Array> early_error,
                Integers status, Integers n_done)
      : plan{start, n_transient, n_steps, n_tail, qr_every, every, delay, segment},
        runs(rows(states)) {
    require(start >= 0 && n_transient >= 0 && n_steps >= 1 && n_tail >= 0 && qr_every >= 1 &&
                every >= 1 && segment >= 1,
            "steps must be positive");
    require(n_steps % every == 0 && every % qr_every == 0 && n_transient % qr_every == 0 &&
                n_tail % qr_every == 0,
            "every must divide n_steps, and qr_every all steps");
    require(delay >= 0 && delay <= n_tail && delay % qr_every == 0,
            "delay must be a multiple of qr_every and at most n_tail");
    require(delay == 0 || (early_coefficients && early_error), "a delay needs early arrays");
    frame_of_runs(states, frame, n, k);
    require_shape(far, "far", {k, k});
    const Index times = n_steps / every + 1;
    from = states.data();
    start_frame = frame.data();
    far_end = far.data();
    out = {output(vectors, "vectors", {runs, times, n, k}),
           output(coefficients, "coefficients", {runs, times, k, k}),
           output(path, "path", {runs, times, n}),
           output(growth, "growth", {runs, times - 1, k}),
           output(aligned, "aligned", {runs, times - 1, k}),
           output(residual, "residual", {runs, times - 1, k}),
           output(transient_growth, "transient_growth", {runs, k}),
           output(tail_growth, "tail_growth", {runs, k}),
           output(early_vectors, "early_vectors", {runs, times, n, k}),
           output(early_coefficients, "early_coefficients", {runs, times, k, k}),
           output(early_error, "early_error", {runs, times, k}),
           output(status, "status", {runs}),
           output(n_done, "n_done", {runs})};
    kept = {states,           frame,       far,    coefficients, path, growth, aligned, residual,
            transient_growth, tail_growth, status, n_done};
    for (const auto& array : {vectors, early_vectors, early_coefficients, early_error})
      if (array) kept.push_back(*array);
  }

  CovariantPlan plan;
  CovariantOutput out;
  const double *from, *start_frame, *far_end;
  Index runs, n, k;
  std::vector<py::object> kept;
};

// Some of these runs.
template <class Runs>
Task task_of(const Runs& runs, Flag& cancel, Integers& done, Index workers, Index first,
             Index count) {
  require_range(first, count, runs.runs);
  return {control(cancel, done), workers, first, count};
}

}  // namespace pylyap::bindings
