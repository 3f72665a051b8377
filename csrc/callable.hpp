// Callable maps: functions of the user, called through pointers.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>

#include "buffer.hpp"
#include "group.hpp"
#include "lanes.hpp"
#include "map.hpp"

namespace pylyap {

// Functions of one state (n). Either `jacobian` (n, n) or `tangent` (V and J V, (n, k)) is null;
// `loss` may be null. An exception ends all runs. Return codes: 0 for success; 1 for an exception
// in a compiled function, which ends its run; 2 for an array of a wrong shape, whose lengths are in
// `out`.
struct Callable {
  void* context;
  std::int64_t (*step)(void* context, const double* x, Index t, double* next);
  std::int64_t (*jacobian)(void* context, const double* x, Index t, double* out);
  std::int64_t (*tangent)(void* context, const double* x, const double* V, Index k, Index t,
                          double* out);
  double (*loss)(void* context, const double* x);
};

// Runs of a callable map with k tangent vectors. The functions are called for one run after
// another; everything else is computed in lanes.
template <class S>
class CallableMap final : public Map<S> {
  using Base = Map<S>;
  using Base::frame_;
  using Base::k_;
  using Base::n_;
  using Base::state_;

 public:
  CallableMap(const Callable& call, Index n, Index k)
      : Base({n, 1, nullptr}, k),
        call_(call),
        next_(n),
        pushed_(k * n),
        jacobian_(call.jacobian ? n * n : 0),
        source_(k),
        x_(n),
        vectors_(call.tangent ? n * k : 0),
        result_(std::max(n * std::max(n, k), Index{2})) {}  // at least a shape of two numbers

  // Number of runs in the next group. Lanes after it repeat the last run, without function calls.
  void set_count(Index count) {
    count_ = count;
    std::fill_n(raised_, kRuns<S>, false);
  }

  bool raised(Index l) const override { return raised_[l]; }

  // |J| |q| for each vector of the last push, which bounds its rounding error; null if unknown.
  const S* source() const override { return call_.jacobian ? source_.data() : nullptr; }

  void advance(Index t, S* loss) override {
    if (loss) *loss = full_loss();
    if (k_ > 0) push(t);
    for_lanes(next_.data(), n_,
              [&] { return call_.step(call_.context, x_.data(), t, result_.data()); });
    S mark{};
    for (Index i = 0; i < n_; ++i) mark += nan_unless_finite(next_[i]);
    for (Index i = 0; i < n_; ++i) state_[i] = next_[i] + mark;
  }
  S full_loss() override {
    S loss = broadcast<S>(kNan);
    if (call_.loss)
      for_lanes(&loss, 1, [&] {
        result_[0] = call_.loss(call_.context, x_.data());
        return std::int64_t{0};
      });
    return loss;
  }

 private:
  // target (size) <- result_ after `call` with the state in x_, run by run; nan for runs that have
  // diverged, for which `call` is not called, and for those that it ends.
  template <class F>
  void for_lanes(S* target, Index size, F&& call) {
    for (Index l = 0; l < kRuns<S>; ++l) {
      if (l >= count_) {
        for (Index i = 0; i < size; ++i) set_lane(target[i], l, lane(target[i], count_ - 1));
        continue;
      }
      bool diverged = std::isnan(lane(state_[0], l));
      if (!diverged) {
        for (Index i = 0; i < n_; ++i) x_[i] = lane(state_[i], l);
        lane_ = l;
        if (const std::int64_t code = call(); code != 0) [[unlikely]] {
          diverged = true;
          end_run(l, code, target == next_.data());
        }
      }
      for (Index i = 0; i < size; ++i) set_lane(target[i], l, diverged ? kNan : result_[i]);
    }
  }

  [[gnu::cold, gnu::noinline]] void end_run(Index l, std::int64_t code, bool step) {
    if (code > 1) {
      const auto shape = [&](double rows, double columns) {
        std::string text = "(";
        text += std::to_string(static_cast<Index>(rows));
        text += step ? "," : ", ";
        if (!step) text += std::to_string(static_cast<Index>(columns));
        text += ")";
        return text;
      };
      const auto n = static_cast<double>(n_);
      throw std::invalid_argument(std::string(step ? "step" : "jacobian") + " must return shape " +
                                  shape(n, n) + " at every state, got " +
                                  shape(result_[0], result_[1]));
    }
    raised_[l] = true;
    for (Index i = 0; i < n_; ++i) set_lane(state_[i], l, kNan);
  }

  void push(Index t) {
    if (call_.jacobian) {
      for_lanes(jacobian_.data(), n_ * n_,
                [&] { return call_.jacobian(call_.context, x_.data(), t, result_.data()); });
      for (Index c = 0; c < k_; ++c) push_vector(c);
    } else {
      for_lanes(pushed_.data(), n_ * k_, [&] {
        for (Index i = 0; i < n_; ++i)
          for (Index c = 0; c < k_; ++c) vectors_[i * k_ + c] = lane(frame_[c * n_ + i], lane_);
        return call_.tangent(call_.context, x_.data(), vectors_.data(), k_, t, result_.data());
      });
      for (Index i = 0; i < n_; ++i)
        for (Index c = 0; c < k_; ++c) frame_[c * n_ + i] = pushed_[i * k_ + c];
    }
  }

  // One column of the frame, and the norm of |J| |q|, scaled by its largest entry so that no square
  // overflows.
  void push_vector(Index c) {
    S *q = frame_.data() + c * n_, *p = pushed_.data(), *sizes = next_.data();
    S largest{};
    for (Index i = 0; i < n_; ++i) {
      S value{}, size{};
      for (Index j = 0; j < n_; ++j) {
        const S term = jacobian_[i * n_ + j] * q[j];
        value += term;
        size += term < 0.0 ? -term : term;
      }
      p[i] = value;
      sizes[i] = size;
      largest = size > largest ? size : largest;
    }
    const S inverse = 1.0 / (largest > 0.0 ? largest : broadcast<S>(1.0));
    S squares{};
    for (Index i = 0; i < n_; ++i) squares += (sizes[i] * inverse) * (sizes[i] * inverse);
    source_[c] = largest * sqrt(squares);
    std::copy_n(p, n_, q);
  }

  const Callable call_;
  Index count_ = kRuns<S>, lane_ = 0;
  bool raised_[kRuns<S>] = {};
  Buffer<S> next_, pushed_, jacobian_, source_;
  Buffer<double> x_, vectors_, result_;  // of one run
};

}  // namespace pylyap
