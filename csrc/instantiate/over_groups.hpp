// Groups of runs, in the scalar type for a network.
#pragma once

#include <algorithm>

#include "../cost.hpp"
#include "../runs.hpp"

namespace pylyap {

// Calls f(group) for every group of runs until the task is cancelled.
template <class S, class F>
void each_group(const Task& task, F&& f) {
  const Index end = task.first + task.count;
  for (Index r = task.first; r < end && !task.control.cancelled(); r += kRuns<S>)
    f(Group<S>{r, std::min(kRuns<S>, end - r)});
}

// Calls call(worker, group) for every group of runs, in lanes or in double. `make` builds the
// worker once per call.
template <class Make, class Call>
void over_groups(bool lanes, const Task& task, Make make, Call call) {
  auto loop = [&]<class S>(S) {
    auto worker = make(S{});
    each_group<S>(task, [&](const auto& group) { call(worker, group); });
  };
  if (lanes) {
    loop(Lane{});
  } else {
    loop(0.0);
  }
}
// Likewise, in single precision if `single`.
template <class Make, class Call>
void over_groups(const Problem& problem, bool single, const Task& task, Make make, Call call) {
  if (!single) return over_groups(fits_lanes(problem.arch), task, make, call);
  auto worker = make(0.0F);
  each_group<float>(task, [&](const auto& group) { call(worker, group); });
}

}  // namespace pylyap
