// A map of the state with k tangent vectors, for one group of runs at a time. Virtual calls are
// made once per step.
#pragma once

#include "buffer.hpp"
#include "group.hpp"
#include "lanes.hpp"

namespace pylyap {

template <class S>
class Map {
 public:
  Map(const Layout& layout, Index k)
      : layout_(layout), n_(layout.n()), k_(k), state_(n_), frame_(k * n_) {}
  virtual ~Map() = default;
  Map(const Map&) = delete;

  S* state() { return state_.data(); }
  S* frame() { return frame_.data(); }
  Index n() const { return n_; }
  Index k() const { return k_; }
  const Layout& layout() const { return layout_; }

  // frame <- J(x_t) frame, then x <- x_{t+1}, nan in all of a state that is not finite. `loss` (or
  // null) gets the mean loss of the whole data at x_t.
  virtual void advance(Index t, Accumulator<S>* loss) = 0;

  // Mean loss of the whole data at the current state, which does not change.
  virtual Accumulator<S> full_loss() = 0;

  // Whether one run is computed with sums in the order of the lanes.
  virtual bool in_order() const { return false; }

  // Whether a user-defined function ended the run in this lane; its state is nan from there on.
  virtual bool raised(Index) const { return false; }

  // (k) The size of the terms that each vector of the last step is a sum of, which determines its
  // rounding error; null if unknown.
  virtual const S* source() const = 0;

 protected:
  const Layout layout_;
  const Index n_, k_;
  Buffer<S> state_, frame_;
};

}  // namespace pylyap
