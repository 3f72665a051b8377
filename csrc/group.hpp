// A group of runs: how their numbers get into lanes and out again, and how the kernels that drive
// them hear from the thread that waits.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>
#include <utility>

#include "lanes.hpp"
#include "network.hpp"
#include "step.hpp"

namespace pylyap {

inline constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// Shared with the thread that waits: it sets `cancel` and reads `done` (steps times runs).
struct Control {
  std::int32_t* cancel;
  std::int64_t* done;  // null where nobody counts

  bool cancelled() const {
    return std::atomic_ref<std::int32_t>(*cancel).load(std::memory_order_relaxed) != 0;
  }
  void report(Index steps) const {
    std::atomic_ref<std::int64_t>(*done).fetch_add(steps, std::memory_order_relaxed);
  }
};

// Counts the steps of a group; asks every step whether to go on, reports every 32nd.
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

// Per-run settings, arrays over runs.
struct RateArrays {
  const double *lr, *momentum, *decay;
};

// A group of up to W runs: which they are, and how their numbers get in and out of lanes. Lanes
// past the last run repeat it.
template <class S>
struct Group {
  Index first, count;

  Index run(Index l) const { return first + std::min(l, count - 1); }

  // from (runs, blocks * np) in the documented order -> to (blocks * np) in the internal one.
  void load(const double* from, const Architecture& arch, Index blocks, S* to) const {
    const Index np = arch.n_params;
    for (Index l = 0; l < kWidth<S>; ++l) {
      const double* source = from + run(l) * blocks * np;
      for (Index b = 0; b < blocks; ++b)
        for (Index i = 0; i < np; ++i)
          set_lane(to[b * np + i], l, source[b * np + arch.external[static_cast<std::size_t>(i)]]);
    }
  }
  void store(const S* from, const Architecture& arch, Index blocks, double* to, Index l,
             bool finite = true) const {
    const Index np = arch.n_params;
    for (Index b = 0; b < blocks; ++b)
      for (Index i = 0; i < np; ++i)
        to[b * np + arch.external[static_cast<std::size_t>(i)]] =
            finite ? lane(from[b * np + i], l) : kNan;
  }
  // Frames are (n, k) outside and (k, n) inside.
  void load_frame(const double* from, const Architecture& arch, Index blocks, Index k,
                  S* to) const {
    const Index np = arch.n_params, n = blocks * np;
    for (Index l = 0; l < kWidth<S>; ++l) {
      const double* source = from + run(l) * n * k;
      for (Index b = 0; b < blocks; ++b)
        for (Index i = 0; i < np; ++i) {
          const double* row = source + (b * np + arch.external[static_cast<std::size_t>(i)]) * k;
          for (Index c = 0; c < k; ++c) set_lane(to[c * n + b * np + i], l, row[c]);
        }
    }
  }
  void store_frame(const S* from, const Architecture& arch, Index blocks, Index k, double* to,
                   Index l, bool finite = true) const {
    const Index np = arch.n_params, n = blocks * np;
    for (Index b = 0; b < blocks; ++b)
      for (Index i = 0; i < np; ++i) {
        double* row = to + (b * np + arch.external[static_cast<std::size_t>(i)]) * k;
        for (Index c = 0; c < k; ++c) row[c] = finite ? lane(from[c * n + b * np + i], l) : kNan;
      }
  }
  Rates<S> rates(const RateArrays& all) const {
    Rates<S> rates{};
    for (Index l = 0; l < kWidth<S>; ++l) {
      set_lane(rates.lr, l, all.lr[run(l)]);
      set_lane(rates.momentum, l, all.momentum[run(l)]);
      set_lane(rates.decay, l, all.decay[run(l)]);
    }
    return rates;
  }
};

}  // namespace pylyap
