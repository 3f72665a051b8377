// The kernels of training and prediction, instantiated in a source file per scalar type.
#pragma once

#include <algorithm>
#include <memory>

#include "../buffer.hpp"
#include "../step.hpp"
#include "../training.hpp"

namespace pylyap {

template <class S>
std::unique_ptr<TrainingMap<S>> TrainingMap<S>::make(const Problem& problem, Index k, Method method,
                                                     Team& team) {
  return std::make_unique<Training<S>>(problem, k, method, team);
}

template <class S>
class NetworkPredictor final : public Predictor<S> {
 public:
  NetworkPredictor(const Architecture& arch, const Data& data)
      : data_(data),
        block_(block_size(data.n_samples())),
        network_(arch, block_, 1, 0, false, Structure::none),
        buffer_(data.buffer<S>(block_)),
        weights_(arch.n_params) {}

  S* weights() override { return weights_.data(); }
  const S* predict(Index begin, Index count) override {
    const auto samples = data_.block(begin, count, false, buffer_, alone_);
    return network_.predict(alone_, weights_.data(), samples);
  }
  Index block() const override { return block_; }
  Index stride() const override { return network_.stride(); }

 private:
  const Data& data_;
  const Index block_;
  Team alone_{1};
  Network<S> network_;
  BlockBuffer<S> buffer_;
  Buffer<S> weights_;
};

template <class S>
std::unique_ptr<Predictor<S>> Predictor<S>::make(const Architecture& arch, const Data& data) {
  return std::make_unique<NetworkPredictor<S>>(arch, data);
}

}  // namespace pylyap
