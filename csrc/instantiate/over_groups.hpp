// Groups of runs, in the scalar type for a network.
#pragma once

#include <algorithm>
#include <optional>

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

// Calls call(worker, group) for every group of runs: in lanes, or one run after the other if the
// group has at most `alone` of them. `make` builds a worker at most once per call for each.
template <class Make, class Call>
void over_groups(Index alone, const Task& task, Make make, Call call) {
  std::optional<decltype(make(Lane{}))> in_lanes;
  std::optional<decltype(make(0.0))> single;
  each_group<Lane>(task, [&](const Group<Lane>& group) {
    if (group.count > alone) {
      if (!in_lanes) in_lanes.emplace(make(Lane{}));
      return call(*in_lanes, group);
    }
    if (!single) single.emplace(make(0.0));
    each_group<double>({task.control, task.workers, group.first, group.count},
                       [&](const Group<double>& run) { call(*single, run); });
  });
}
// Likewise, in single precision if `single`.
template <class Make, class Call>
void over_groups(Index alone, bool single, const Task& task, Make make, Call call) {
  if (!single) return over_groups(alone, task, make, call);
  auto worker = make(0.0F);
  each_group<float>(task, [&](const auto& group) { call(worker, group); });
}

}  // namespace pylyap
