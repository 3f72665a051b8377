// A map of the user's own, called through pointers.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "group.hpp"
#include "lanes.hpp"

namespace pylyap {

// Functions of one state (n); `jacobian` (n, n) or `tangent` (V and J V, (n, k)) is null, and
// `loss` may be. They may throw.
struct Callable {
  void* context;
  void (*step)(void* context, const double* x, Index t, double* next);
  void (*jacobian)(void* context, const double* x, Index t, double* out);
  void (*tangent)(void* context, const double* x, const double* V, Index k, Index t, double* out);
  double (*loss)(void* context, const double* x);
};

// One run of it with k tangent vectors; the same interface as `Training`.
class CallableMap {
 public:
  using Scalar = double;

  CallableMap(const Callable& call, Index n, Index k)
      : call_(call),
        n_(n),
        k_(k),
        state_(n),
        next_(n),
        frame_(k * n),
        columns_(call.jacobian ? 0 : n * k),
        pushed_(k * n),
        jacobian_(call.jacobian ? n * n : 0),
        source_(k) {}

  double* state() { return state_.data(); }
  double* frame() { return frame_.data(); }
  Index n() const { return n_; }
  Index k() const { return k_; }
  Layout layout() const { return {n_, 1, nullptr}; }

  // What each vector of the last push was summed from, |J| |q|: its rounding; null if unknown.
  const double* source() const { return call_.jacobian ? source_.data() : nullptr; }

  // frame <- J(x_t) frame, then x <- x_{t+1}; nan in all of a state that is not finite.
  void advance(Index t, double* loss) {
    if (loss) *loss = full_loss();
    if (std::isnan(state_[0])) return;  // a run that is lost calls nobody
    if (k_ > 0) push(t);
    call_.step(call_.context, state_.data(), t, next_.data());
    const bool finite = std::all_of(next_.data(), next_.data() + n_,
                                    [](double value) { return std::isfinite(value); });
    for (Index i = 0; i < n_; ++i) state_[i] = finite ? next_[i] : kNan;
  }
  double full_loss() const {
    const bool known = call_.loss && !std::isnan(state_[0]);
    return known ? call_.loss(call_.context, state_.data()) : kNan;
  }

 private:
  void push(Index t) {
    if (call_.jacobian) {
      call_.jacobian(call_.context, state_.data(), t, jacobian_.data());
      for (Index c = 0; c < k_; ++c) {
        const double* q = frame_.data() + c * n_;
        source_[c] = 0.0;
        for (Index i = 0; i < n_; ++i) {
          double value = 0.0, size = 0.0;
          for (Index j = 0; j < n_; ++j) {
            const double term = jacobian_[i * n_ + j] * q[j];
            value += term;
            size += std::abs(term);
          }
          pushed_[c * n_ + i] = value;
          source_[c] = std::hypot(source_[c], size);
        }
      }
    } else {
      for (Index i = 0; i < n_; ++i)
        for (Index c = 0; c < k_; ++c) columns_[i * k_ + c] = frame_[c * n_ + i];
      call_.tangent(call_.context, state_.data(), columns_.data(), k_, t, pushed_.data());
      for (Index i = 0; i < n_; ++i)
        for (Index c = 0; c < k_; ++c) columns_[c * n_ + i] = pushed_[i * k_ + c];
      std::copy_n(columns_.data(), k_ * n_, pushed_.data());
    }
    std::copy_n(pushed_.data(), k_ * n_, frame_.data());
  }

  const Callable call_;
  const Index n_, k_;
  Buffer<double> state_, next_, frame_, columns_, pushed_, jacobian_, source_;
};

}  // namespace pylyap
