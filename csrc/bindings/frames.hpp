// Runs with frames, along trainings and along callable maps: settings, start, and results that are
// allocated here. Threads fill in the results of their own runs.
#pragma once

#include <utility>

#include "../plans.hpp"
#include "settings.hpp"

namespace pylyap::bindings {

// Results of Benettin's method (SpectrumOutput).
struct SpectrumRuns {
  SpectrumRuns(Array x0, const Array& start_frame, const SpectrumPlan& plan)
      : plan(plan), size(x0, start_frame), x0(std::move(x0)) {
    require(plan.start >= 0 && plan.n_transient >= 0 && plan.n_steps >= 1 && plan.qr_every >= 1 &&
                plan.record_every >= 1,
            "numbers of steps must be positive");
    require(plan.n_steps % plan.record_every == 0 && plan.record_every % plan.qr_every == 0,
            "n_steps must be a multiple of record_every, and record_every of qr_every");
    const Index segment = plan.segment;
    require(segment >= 0 &&
                (segment == 0 || (plan.n_steps % segment == 0 && segment % plan.qr_every == 0)),
            "segment must divide n_steps and be a multiple of qr_every");
    const auto [runs, n, k] = size;
    const Index records = plan.n_steps / plan.record_every;
    Allocation allocation;
    allocation.add(growth, {runs, records, k});
    allocation.add(loss, {runs, records + 1});
    allocation.add(state, {runs, n});
    allocation.add(frame, {runs, n, k});
    allocation.add(transient_growth, {runs, k});
    if (segment > 0) {
      allocation.add(products, {runs, plan.n_steps / segment, k, k});
      allocation.add(exponents, {runs, plan.n_steps / segment, k});
    }
    allocation.allocate();
    std::copy_n(start_frame.data(), start_frame.size(), frame.mutable_data());
    fill(transient_growth, kNan);
    if (products) fill(*products, kNan);
    if (exponents) fill(*exponents, 0.0);
    status = filled<std::int64_t>({runs}, 0);
    n_done = filled<std::int64_t>({runs}, 0);
  }

  SpectrumOutput output() {
    return {growth.mutable_data(),  loss.mutable_data(),     state.mutable_data(),
            frame.mutable_data(),   status.mutable_data(),   n_done.mutable_data(),
            data_or_null(products), data_or_null(exponents), transient_growth.mutable_data()};
  }

  const SpectrumPlan plan;
  const FrameSize size;
  const Array x0;
  Array growth, loss, state, frame, transient_growth;
  std::optional<Array> products, exponents;
  Integers status, n_done;
};

// Results of the method of Ginelli et al. (CovariantOutput).
struct CovariantRuns {
  CovariantRuns(Array x0, Array start_frame, Array end_coefficients, const CovariantPlan& plan,
                bool with_vectors)
      : plan(plan),
        size(x0, start_frame),
        x0(std::move(x0)),
        start_frame(std::move(start_frame)),
        end_coefficients(std::move(end_coefficients)) {
    require(plan.start >= 0 && plan.n_transient >= 0 && plan.n_steps >= 1 && plan.n_tail >= 0 &&
                plan.qr_every >= 1 && plan.every >= 1 && plan.segment >= 1,
            "numbers of steps must be positive");
    require(plan.n_steps % plan.every == 0 && plan.every % plan.qr_every == 0 &&
                plan.n_transient % plan.qr_every == 0 && plan.n_tail % plan.qr_every == 0,
            "every must divide n_steps, and qr_every all numbers of steps");
    require(plan.delay >= 0 && plan.delay <= plan.n_tail && plan.delay % plan.qr_every == 0,
            "delay must be a multiple of qr_every and at most n_tail");
    const auto [runs, n, k] = size;
    require_shape(this->end_coefficients, "end_coefficients", {k, k});
    const Index records = plan.n_steps / plan.every, times = records + 1;
    Allocation allocation;
    if (with_vectors) allocation.add(vectors, {runs, times, n, k});
    allocation.add(coefficients, {runs, times, k, k});
    allocation.add(states, {runs, times, n});
    for (Array* each : {&growth, &frame_growth, &residual})
      allocation.add(*each, {runs, records, k});
    for (Array* each : {&transient_growth, &tail_growth}) allocation.add(*each, {runs, k});
    if (plan.delay > 0) {
      if (with_vectors) allocation.add(early_vectors, {runs, times, n, k});
      allocation.add(early_coefficients, {runs, times, k, k});
      allocation.add(early_error, {runs, times, k});
    }
    allocation.allocate();
    status = filled<std::int64_t>({runs}, 0);
    n_done = filled<std::int64_t>({runs}, 0);
  }

  CovariantOutput output() {
    return {data_or_null(vectors),
            coefficients.mutable_data(),
            states.mutable_data(),
            growth.mutable_data(),
            frame_growth.mutable_data(),
            residual.mutable_data(),
            transient_growth.mutable_data(),
            tail_growth.mutable_data(),
            data_or_null(early_vectors),
            data_or_null(early_coefficients),
            data_or_null(early_error),
            status.mutable_data(),
            n_done.mutable_data()};
  }

  const CovariantPlan plan;
  const FrameSize size;
  const Array x0, start_frame, end_coefficients;
  std::optional<Array> vectors, early_vectors, early_coefficients, early_error;
  Array coefficients, states, growth, frame_growth, residual, transient_growth, tail_growth;
  Integers status, n_done;
};

}  // namespace pylyap::bindings
