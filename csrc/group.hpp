// A group of runs: conversion of their arrays to lanes and back, and the connection of the kernels
// with the thread that waits for them.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>
#include <utility>

#include "architecture.hpp"
#include "lanes.hpp"

namespace pylyap {

inline constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// Runs with longer states are computed one at a time: frames of several would exceed the cache.
inline constexpr Index kMaxInLanes = 512;

// Shared with the waiting thread, which sets `cancel` and reads `done` (steps times runs).
struct Control {
  std::int32_t* cancel;
  std::int64_t* done;  // null if progress is not reported

  bool cancelled() const {
    return std::atomic_ref<std::int32_t>(*cancel).load(std::memory_order_relaxed) != 0;
  }
  // In pieces, between which it checks for a cancellation; false if cancelled.
  bool fill_with_nan(double* array, Index count) const {
    constexpr Index kPiece = Index{1} << 20;
    for (Index begin = 0; begin < count; begin += kPiece) {
      if (cancelled()) return false;
      std::fill_n(array + begin, std::min(kPiece, count - begin), kNan);
    }
    return true;
  }
  void report(Index steps) const {
    std::atomic_ref<std::int64_t>(*done).fetch_add(steps, std::memory_order_relaxed);
  }
};

// Counts the steps of a group: checks for a cancellation every step, reports every 32nd.
class Progress {
 public:
  Progress(const Control& control, Index runs) : control_(control), runs_(runs) {}
  ~Progress() { control_.report(steps_ * runs_); }
  bool step() {
    if (++steps_ == 32) control_.report(std::exchange(steps_, 0) * runs_);
    return !control_.cancelled();
  }

 private:
  const Control& control_;
  Index runs_, steps_ = 0;
};

// Per-run settings of a group of lanes.
template <class S>
struct Rates {
  S lr, momentum, decay;
};

// The same as arrays over runs, and factors of the learning rate (runs, 2 * layers) or null: of the
// weights and of the biases of each layer.
struct RateArrays {
  const double *lr, *momentum, *decay;
  const double* factors = nullptr;
};

// Layout of a state: `blocks` of `size` numbers (weights, then the buffers of the optimiser).
// Number i of each is number order[i] in arrays of the caller; null for the same order.
struct Layout {
  Index size, blocks;
  const Index* order;

  Index n() const { return size * blocks; }
  Index outside(Index i) const { return order ? order[i] : i; }
};
inline Layout layout_of(const Architecture& arch, Index blocks) {
  return {arch.n_params, blocks, arch.external.data()};
}

// Up to kRuns<S> neighbouring runs. Lanes past the last run repeat it.
template <class S>
struct Group {
  Index first, count;

  Index run(Index l) const { return first + std::min(l, count - 1); }

  // from (runs, n) in the documented order -> to (n) in the internal order.
  void load(const double* from, const Layout& layout, S* to) const {
    for (Index l = 0; l < kRuns<S>; ++l) {
      const double* source = from + run(l) * layout.n();
      for (Index b = 0; b < layout.n(); b += layout.size)
        for (Index i = 0; i < layout.size; ++i)
          set_lane(to[b + i], l, source[b + layout.outside(i)]);
    }
  }
  void store(const S* from, const Layout& layout, double* to, Index l, bool finite = true) const {
    if (!finite) {
      std::fill_n(to, layout.n(), kNan);
      return;
    }
    for (Index b = 0; b < layout.n(); b += layout.size)
      for (Index i = 0; i < layout.size; ++i) to[b + layout.outside(i)] = lane(from[b + i], l);
  }
  // Frames are (n, k) in arrays of the caller and (k, n) in the kernels.
  void load_frame(const double* from, const Layout& layout, Index k, S* to) const {
    const Index n = layout.n();
    for (Index l = 0; l < kRuns<S>; ++l) {
      const double* source = from + run(l) * n * k;
      for (Index b = 0; b < n; b += layout.size)
        for (Index i = 0; i < layout.size; ++i) {
          const double* row = source + (b + layout.outside(i)) * k;
          for (Index c = 0; c < k; ++c) set_lane(to[c * n + b + i], l, row[c]);
        }
    }
  }
  void store_frame(const S* from, const Layout& layout, Index k, double* to, Index l,
                   bool finite = true) const {
    const Index n = layout.n();
    if (!finite) {
      std::fill_n(to, n * k, kNan);
      return;
    }
    for (Index b = 0; b < n; b += layout.size)
      for (Index i = 0; i < layout.size; ++i) {
        double* row = to + (b + layout.outside(i)) * k;
        for (Index c = 0; c < k; ++c) row[c] = lane(from[c * n + b + i], l);
      }
  }
  Rates<S> rates(const RateArrays& all) const {
    Rates<S> rates{};
    for (Index l = 0; l < kRuns<S>; ++l) {
      set_lane(rates.lr, l, all.lr[run(l)]);
      set_lane(rates.momentum, l, all.momentum[run(l)]);
      set_lane(rates.decay, l, all.decay[run(l)]);
    }
    return rates;
  }
};

}  // namespace pylyap
