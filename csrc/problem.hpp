// What training is: a network, its data, an optimiser and an order of minibatches. Immutable and
// shared by all threads.
#pragma once

#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include "lanes.hpp"
#include "network.hpp"

namespace pylyap {

struct Optimizer {
  bool adam = false;
  bool momentum = false;  // has a velocity buffer
  bool nesterov = false;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;  // Adam

  Index buffers() const { return adam ? 2 : (momentum ? 1 : 0); }
};

// The order of the samples: within epoch e a permutation that is a function of (seed, e) alone.
struct BatchOrder {
  Index n_samples;
  Index batch_size;  // n_samples for full batch
  bool shuffle;
  std::uint64_t seed;

  Index per_epoch() const { return (n_samples + batch_size - 1) / batch_size; }
  bool full() const { return batch_size == n_samples; }
};

namespace detail {

// SplitMix64: Steele, Lea, Flood, OOPSLA (2014).
inline std::uint64_t mix(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

class SplitMix {
 public:
  explicit SplitMix(std::uint64_t state) : state_(state) {}
  std::uint64_t next() { return mix(state_ += 0x9e3779b97f4a7c15ULL); }
  // Uniform in [0, bound), without bias.
  std::uint64_t below(std::uint64_t bound) {
    const std::uint64_t threshold = (0 - bound) % bound;
    while (true) {
      const std::uint64_t draw = next();
      if (draw >= threshold) return draw % bound;
    }
  }

 private:
  std::uint64_t state_;
};

}  // namespace detail

// Walks the batches of a run; remembers the permutation of the epoch it is in.
class Batches {
 public:
  explicit Batches(const BatchOrder& order) : order_(order) {
    order_of_epoch_.resize(static_cast<std::size_t>(order.n_samples));
  }

  std::span<const Index> operator()(Index t) {
    const Index epoch = t / order_.per_epoch();
    if (epoch != epoch_) shuffle(epoch);
    const Index begin = t % order_.per_epoch() * order_.batch_size;
    const Index size = std::min(order_.batch_size, order_.n_samples - begin);
    return {order_of_epoch_.data() + begin, static_cast<std::size_t>(size)};
  }

 private:
  void shuffle(Index epoch) {
    epoch_ = epoch;
    std::iota(order_of_epoch_.begin(), order_of_epoch_.end(), Index{0});
    if (order_.full() || !order_.shuffle) return;
    detail::SplitMix random(detail::mix(order_.seed) ^ static_cast<std::uint64_t>(epoch));
    for (std::size_t i = order_of_epoch_.size(); i > 1; --i)
      std::swap(order_of_epoch_[i - 1], order_of_epoch_[random.below(i)]);
  }

  const BatchOrder& order_;
  std::vector<Index> order_of_epoch_;
  Index epoch_ = -1;
};

// Data as kernels want them: one row per input, a row of ones, columns padded to whole registers.
class Data {
 public:
  // X (n_samples, n_inputs), targets (n_samples, n_targets), C order.
  Data(const double* X, const double* targets, Index n_samples, Index n_inputs, Index n_targets)
      : n_samples_(n_samples),
        n_inputs_(n_inputs),
        n_targets_(n_targets),
        stride_(padded(n_samples)),
        inputs_((n_inputs + 1) * stride_),
        targets_(n_targets * stride_) {
    for (Index s = 0; s < n_samples; ++s) {
      for (Index i = 0; i < n_inputs; ++i) inputs_[i * stride_ + s] = X[s * n_inputs + i];
      inputs_[n_inputs * stride_ + s] = 1.0;
      for (Index c = 0; c < n_targets; ++c) targets_[c * stride_ + s] = targets[s * n_targets + c];
    }
  }

  Samples all() const { return {inputs_.data(), targets_.data(), stride_, n_samples_}; }

  // Copies the chosen samples into `target`, made by `like_batch`.
  Samples gather(std::span<const Index> chosen, Data& target) const {
    const auto count = static_cast<Index>(chosen.size());
    auto pick = [&](const Buffer<double>& from, Buffer<double>& to, Index rows) {
      for (Index r = 0; r < rows; ++r) {
        const double* source = from.data() + r * stride_;
        double* out = to.data() + r * target.stride_;
        for (Index s = 0; s < count; ++s) out[s] = source[chosen[static_cast<std::size_t>(s)]];
      }
    };
    pick(inputs_, target.inputs_, n_inputs_ + 1);
    pick(targets_, target.targets_, n_targets_);
    return {target.inputs_.data(), target.targets_.data(), target.stride_, count};
  }
  Data like_batch(Index size) const { return Data(n_inputs_, n_targets_, size); }
  Index n_samples() const { return n_samples_; }

 private:
  Data(Index n_inputs, Index n_targets, Index n_samples)
      : n_samples_(n_samples),
        n_inputs_(n_inputs),
        n_targets_(n_targets),
        stride_(padded(n_samples)),
        inputs_((n_inputs + 1) * stride_),
        targets_(n_targets * stride_) {}

  Index n_samples_, n_inputs_, n_targets_, stride_;
  Buffer<double> inputs_, targets_;
};

struct Problem {
  Architecture arch;
  Data data;
  Optimizer optimizer;
  BatchOrder batches;

  Index n_params() const { return arch.n_params; }
  Index n() const { return arch.n_params * (1 + optimizer.buffers()); }
};

}  // namespace pylyap
