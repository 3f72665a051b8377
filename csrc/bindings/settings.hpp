// Settings that cross the border together: the rates of all runs, and a task.
#pragma once

#include <optional>
#include <utility>

#include "../problem.hpp"
#include "arrays.hpp"

namespace pylyap::bindings {

// Learning rate, momentum and weight decay of each run, (runs,), and perhaps factors of the
// learning rate (runs, layers, 2): of the weights and of the biases of each layer.
class Rates {
 public:
  Rates(Array lr, Array momentum, Array weight_decay, std::optional<Array> factors)
      : lr_(std::move(lr)),
        momentum_(std::move(momentum)),
        weight_decay_(std::move(weight_decay)),
        factors_(std::move(factors)),
        runs_(lr_.size()) {
    require_shape(lr_, "lr", {runs_});
    require_shape(momentum_, "momentum", {runs_});
    require_shape(weight_decay_, "weight_decay", {runs_});
  }

  RateArrays of(const Problem& problem, Index runs) const {
    require(runs_ == runs, "rates must be those of all runs");
    require(!factors_ || !problem.optimizer.adam, "Adam takes no factors");
    return {lr_.data(), momentum_.data(), weight_decay_.data(),
            input(factors_, "factors", {runs, problem.arch.depth(), 2})};
  }

 private:
  Array lr_, momentum_, weight_decay_;
  std::optional<Array> factors_;
  Index runs_;
};

// The runs first ... first + count - 1, for `workers` threads inside each run. The thread that
// waits sets `cancel` and reads `done`, the number of steps made, summed over runs.
class Task {
 public:
  Task(Flag cancel, Integers done, Index workers, Index first, Index count)
      : workers(workers),
        first(first),
        count(count),
        cancel_(std::move(cancel)),
        done_(std::move(done)) {
    require_shape(cancel_, "cancel", {1});
    require_shape(done_, "done", {1});
    require(workers >= 1, "workers must be >= 1");
    control_ = {cancel_.mutable_data(), done_.mutable_data()};  // refuse a read-only array
  }

  // Other runs, or other items, under the same control.
  Task over(Index other_first, Index other_count) const {
    return {cancel_, done_, workers, other_first, other_count};
  }
  bool cancelled() const { return control_.cancelled(); }

  pylyap::Task of(Index runs) const {
    require(first >= 0 && count >= 1 && first < runs && count <= runs - first,
            "first and count must lie within the runs");
    return {control_, workers, first, count};
  }

  const Index workers, first, count;

 private:
  Flag cancel_;
  Integers done_;
  Control control_{};
};

}  // namespace pylyap::bindings
