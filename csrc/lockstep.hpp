// Benettin's method for runs whose steps and tangents are computed together, outside: functions of
// the user that take a whole batch of states.
//
// The caller makes one step of all runs at a time and hands over the states and the pushed vectors;
// what Benettin (spectrum.hpp) does after a step of one run is done here for every run, with the
// same operations in the same order. Results of a run do not depend on the other runs.
#pragma once

#include <cstdint>
#include <vector>

#include "buffer.hpp"
#include "orthonormalise.hpp"
#include "plans.hpp"

namespace pylyap {

struct Task;

class Lockstep {
 public:
  Lockstep(const SpectrumPlan& plan, Index runs, Index n, Index k);

  // After step number `step` = 0 ... n_transient + n_steps - 1, for the runs of the task that have
  // not diverged. Called for all runs before the next step.
  //
  //   states  (runs, n)     after the step; all of a state is nan if an entry is not finite
  //   pushed  (runs, n, k)  J frame; may be out.frame itself
  //   source  (runs, k)     size of the values that each pushed vector is a sum of, or null
  //   out                   frame: the next frame; growth, transient_growth and products of what
  //                         the step completes. If a run diverges: status 1, n_done its step, frame
  //                         nan; the rest is left to the caller, who fills the arrays with nan
  //                         beforehand.
  void take(Index step, const double* states, const double* pushed, const double* source,
            const SpectrumOutput& out, const Task& task);

 private:
  void multiply_product(Index run, Index s, const double* r, const SpectrumOutput& out);

  const SpectrumPlan plan_;
  const Index n_, k_;
  std::vector<FrameScale<double>> scales_;  // of each run
  Buffer<double> growth_;                   // (runs, k) since the last record
};

}  // namespace pylyap
