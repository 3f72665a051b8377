// A map of the user's own, called through pointers.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "buffer.hpp"
#include "group.hpp"
#include "lanes.hpp"
#include "map.hpp"

namespace pylyap {

// Functions of one state (n); `jacobian` (n, n) or `tangent` (V and J V, (n, k)) is null, and
// `loss` may be. They may throw, which ends all runs; false ends the run they are called for.
struct Callable {
  void* context;
  bool (*step)(void* context, const double* x, Index t, double* next);
  bool (*jacobian)(void* context, const double* x, Index t, double* out);
  bool (*tangent)(void* context, const double* x, const double* V, Index k, Index t, double* out);
  double (*loss)(void* context, const double* x);
};

// Runs of it with k tangent vectors. The functions are called for one run after another, all else
// is done in lanes.
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
        result_(std::max(n * std::max(n, k), Index{2})) {}  // a wrong shape has two numbers

  // For the next group. Lanes from this one on repeat the last before it: no function is called
  // for them.
  void set_count(Index count) {
    count_ = count;
    std::fill_n(raised_, kLanes, false);
  }

  bool raised(Index l) const override { return raised_[l]; }

  // What each vector of the last push was summed from, |J| |q|: its rounding; null if unknown.
  const S* source() const override { return call_.jacobian ? source_.data() : nullptr; }

  void advance(Index t, S* loss) override {
    if (loss) *loss = full_loss();
    if (k_ > 0) push(t);
    for_lanes(next_.data(), n_,
              [&] { return call_.step(call_.context, x_.data(), t, result_.data()); });
    S mark{};
    for (Index i = 0; i < n_; ++i) mark += not_finite(next_[i]);
    for (Index i = 0; i < n_; ++i) state_[i] = next_[i] + mark;
  }
  S full_loss() override {
    S loss = splat<S>(kNan);
    if (call_.loss)
      for_lanes(&loss, 1, [&] {
        result_[0] = call_.loss(call_.context, x_.data());
        return true;
      });
    return loss;
  }

 private:
  // target (size) <- what `call` makes of the state in x_, in result_, run by run; nan for runs
  // that diverged, for which it calls no function, and for those that `call` ends with false.
  template <class F>
  void for_lanes(S* target, Index size, F&& call) {
    for (Index l = 0; l < kWidth<S>; ++l) {
      if (l >= count_) {
        for (Index i = 0; i < size; ++i) set_lane(target[i], l, lane(target[i], count_ - 1));
        continue;
      }
      bool lost = std::isnan(lane(state_[0], l));
      if (!lost) {
        for (Index i = 0; i < n_; ++i) x_[i] = lane(state_[i], l);
        lane_ = l;
        if (!call()) {
          lost = raised_[l] = true;
          for (Index i = 0; i < n_; ++i) set_lane(state_[i], l, kNan);
        }
      }
      for (Index i = 0; i < size; ++i) set_lane(target[i], l, lost ? kNan : result_[i]);
    }
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

  // One column of the frame, and its source: the length of what its entries were summed from,
  // scaled by the largest so that no square overflows.
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
    const S inverse = 1.0 / (largest > 0.0 ? largest : splat<S>(1.0));
    S squares{};
    for (Index i = 0; i < n_; ++i) squares += (sizes[i] * inverse) * (sizes[i] * inverse);
    source_[c] = largest * sqrt(squares);
    std::copy_n(p, n_, q);
  }

  const Callable call_;
  Index count_ = kWidth<S>, lane_ = 0;
  bool raised_[kLanes] = {};
  Buffer<S> next_, pushed_, jacobian_, source_;
  Buffer<double> x_, vectors_, result_;  // of one run
};

}  // namespace pylyap
