// Interface of the training kernels, which are compiled once per scalar type in instantiate/.
#pragma once

#include <memory>

#include "cost.hpp"
#include "group.hpp"
#include "lanes.hpp"
#include "map.hpp"
#include "problem.hpp"
#include "team.hpp"

namespace pylyap {

template <class S>
class TrainingMap : public Map<S> {
 public:
  using Map<S>::Map;

  // Carries k tangent vectors of the state, shared by the team. k = 0 with Method::dense: for the
  // Hessian itself.
  static std::unique_ptr<TrainingMap> make(const Problem& problem, Index k, Method method,
                                           Team& team);

  virtual void set_rates(const Group<S>& group, const RateArrays& rates) = 0;

  // frame <- H frame, H of the mean loss of the whole data, without decay. The state has no buffers
  // of the optimiser.
  virtual void multiply_hessian() = 0;

  // Mean loss, gradient and (if dense) Hessian of the whole data, without decay.
  virtual Accumulator<S> evaluate_all() = 0;
  virtual const S* gradient() const = 0;
  virtual const S* hessian() const = 0;

 protected:
  Rates<S> rates_{};
};

// Outputs of a network for blocks of samples.
template <class S>
class Predictor {
 public:
  virtual ~Predictor() = default;
  static std::unique_ptr<Predictor> make(const Architecture& arch, const Data& data);

  virtual S* weights() = 0;
  // Outputs (or probabilities) of up to `block` samples from `begin` on, (outputs, stride).
  virtual const S* predict(Index begin, Index count) = 0;
  virtual Index block() const = 0;
  virtual Index stride() const = 0;
};

}  // namespace pylyap
