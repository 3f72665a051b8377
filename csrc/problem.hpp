// A training problem: network, data, optimiser, order of minibatches. Shared by all threads.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <numeric>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "architecture.hpp"
#include "buffer.hpp"
#include "lanes.hpp"
#include "samples.hpp"
#include "team.hpp"

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

// The batches of a run; keeps the permutation of the current epoch.
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

// Storage for a block of samples, for the kernels: one row per input in the architecture's order,
// a row of ones after the inputs that are not always zero, and the targets. For sparse data lists
// of the nonzero entries of each input instead of rows.
template <class S>
struct BlockBuffer {
  Index stride;
  Buffer<Number<S>> inputs, targets;
  Lists<std::uint8_t> bytes{};
  Lists<double> numbers{};

  template <class T>
  Lists<T>& lists() {
    if constexpr (std::is_same_v<T, double>) {
      return numbers;
    } else {
      return bytes;
    }
  }
};

// All samples: in one row per sample, as they are given; in one row per input, for full batches in
// double precision; or as lists of nonzero entries, for sparse data. uint8 data are images.
class Data {
 public:
  // X (n_samples, n_inputs), targets (n_samples, n_targets), C order.
  Data(const Architecture& arch, const double* X, const double* targets, Index n_samples,
       Index n_targets, bool by_columns)
      : Data(arch, targets, n_samples, n_targets) {
    if (!by_columns || sparse_) {
      numbers_.keep(*this, X);
      return;
    }
    columns_ = Buffer<double>((n_inputs_ + 1) * stride_);
    for (Index s = 0; s < n_samples; ++s)
      for (Index i = 0; i < live_; ++i) columns_[i * stride_ + s] = X[s * n_inputs_ + order_[i]];
    std::fill_n(columns_.data() + live_ * stride_, n_samples, 1.0);
  }
  Data(const Architecture& arch, const std::uint8_t* X, const double* targets, Index n_samples,
       Index n_targets)
      : Data(arch, targets, n_samples, n_targets) {
    bytes_.keep(*this, X);
    in_bytes_ = true;
  }

  Index n_samples() const { return n_samples_; }
  template <class S>
  BlockBuffer<S> buffer(Index size) const {
    const Index stride = padded(size, kPerRegister<Number<S>>);
    BlockBuffer<S> buffer{stride, Buffer<Number<S>>(sparse_ ? 0 : (n_inputs_ + 1) * stride),
                          Buffer<Number<S>>(n_targets_ * stride)};
    if (!sparse_) {
      std::fill_n(buffer.inputs.data() + live_ * stride, stride, Number<S>{1});
    } else {
      of_kind([&]<class T>(const Kept<T>&) {
        buffer.template lists<T>() = Lists<T>(n_inputs_ + 1, size);
      });
    }
    return buffer;
  }

  // `count` samples from `begin` on: as stored here, or copied into the buffer. `slopes`: whether
  // gradients will be computed from them.
  template <class S>
  BasicSamples<Number<S>> block(Index begin, Index count, bool slopes, BlockBuffer<S>& buffer,
                                Team& team) const {
    if constexpr (std::is_same_v<Number<S>, double>) {
      if (columns_.size() > 0)
        return {columns_.data() + begin, targets_.data() + begin, stride_, count, true};
    }
    return collect(begin, {}, count, slopes, buffer, team);
  }
  // The chosen samples, copied into the buffer.
  template <class S>
  BasicSamples<Number<S>> gather(std::span<const Index> chosen, BlockBuffer<S>& buffer,
                                 Team& team) const {
    return collect(0, chosen, static_cast<Index>(chosen.size()), true, buffer, team);
  }

 private:
  Data(const Architecture& arch, const double* targets, Index n_samples, Index n_targets)
      : n_samples_(n_samples),
        n_inputs_(arch.width(0)),
        live_(arch.live),
        n_targets_(n_targets),
        stride_(padded(n_samples)),
        sparse_(arch.sparse),
        targets_(n_targets * stride_),
        order_(n_inputs_) {
    std::copy(arch.inputs.begin(), arch.inputs.end(), order_.data());
    for (Index s = 0; s < n_samples; ++s)
      for (Index c = 0; c < n_targets; ++c) targets_[c * stride_ + s] = targets[s * n_targets + c];
  }
  // float64 or uint8 inputs as they are given, or their nonzero entries.
  template <class T>
  struct Kept {
    Buffer<T> rows;
    Buffer<Entry<T>> entries;
    Buffer<Index> begin;

    void keep(const Data& data, const T* X) {
      const Index size = data.n_samples_ * data.n_inputs_;
      if (!data.sparse_) {
        rows = Buffer<T>(size);
        std::copy_n(X, size, rows.data());
        return;
      }
      entries = Buffer<Entry<T>>(size - std::count(X, X + size, T{}));
      begin = Buffer<Index>(data.n_samples_ + 1);
      Index e = 0;
      for (Index s = 0; s < data.n_samples_; ++s, X += data.n_inputs_) {
        for (Index i = 0; i < data.live_; ++i) {
          const T value = X[data.order_[i]];
          if (value != T{}) entries[e++] = {value, static_cast<std::uint16_t>(i)};
        }
        begin[s + 1] = e;
      }
    }
  };
  template <class F>
  void of_kind(F&& f) const {
    if (in_bytes_) {
      f(bytes_);
    } else {
      f(numbers_);
    }
  }

  template <class S>
  BasicSamples<Number<S>> collect(Index first, std::span<const Index> chosen, Index count,
                                  bool slopes, BlockBuffer<S>& buffer, Team& team) const {
    constexpr Index kShared = Index{1} << 15;  // numbers to copy from which several threads pay off
    Team alone{1};
    Team& some = count * n_inputs_ < kShared ? alone : team;
    auto source = [&](Index s) {
      return chosen.empty() ? first + s : chosen[static_cast<std::size_t>(s)];
    };
    BasicSamples<Number<S>> samples{buffer.inputs.data(), buffer.targets.data(), buffer.stride,
                                    count};
    for (Index c = 0; c < n_targets_; ++c)
      for (Index s = 0; s < count; ++s)
        buffer.targets[c * buffer.stride + s] =
            static_cast<Number<S>>(targets_[c * stride_ + source(s)]);
    of_kind([&]<class T>(const Kept<T>& kept) {
      if (!sparse_) {
        some.share(count, kPerRegister<Number<S>>, [&](Index begin, Index end, Index) {
          transpose(kept.rows.data(), source, count, begin, end, buffer);
        });
        return;
      }
      auto& lists = buffer.template lists<T>();
      auto& sparse = samples.template sparse<T>();
      sparse = {kept.entries.data(), kept.begin.data() + first, chosen, &lists};
      if (!slopes) return;
      for (Index s = 0, i = live_; s < count; ++s) {
        if (s == 0) lists.clear(i);
        lists.push(i, {kOne<T>, static_cast<std::uint16_t>(s)});
      }
      some.share(live_, 1, [&](Index begin, Index end, Index) {
        list_inputs(sparse, count, begin, end, lists);
      });
    });
    return samples;
  }
  // Registers of samples begin ... end - 1 of every input.
  template <class S, class T, class Source>
  void transpose(const T* from, Source source, Index count, Index begin, Index end,
                 BlockBuffer<S>& buffer) const {
    constexpr Index W = kPerRegister<Number<S>>;
    for (; begin < end; begin += W) {
      const T* row[W];
      for (Index l = 0; l < W; ++l)
        row[l] = from + source(std::min(begin + l, count - 1)) * n_inputs_;
      Number<S>* to = buffer.inputs.data() + begin;
      for (Index i = 0; i < live_; ++i, to += buffer.stride)
        for (Index l = 0; l < W; ++l) to[l] = number<Number<S>>(row[l][order_[i]]);
    }
  }
  // Entries of inputs begin ... end - 1, by sample.
  template <class T>
  static void list_inputs(const Sparse<T>& samples, Index count, Index begin, Index end,
                          Lists<T>& lists) {
    for (Index i = begin; i < end; ++i) lists.clear(i);
    for (Index s = 0; s < count; ++s) {
      const auto entries = samples[s];
      auto entry = std::ranges::lower_bound(entries, begin, {}, &Entry<T>::at);
      for (; entry != entries.end() && entry->at < end; ++entry)
        lists.push(entry->at, {entry->value, static_cast<std::uint16_t>(s)});
    }
  }

  Index n_samples_, n_inputs_, live_, n_targets_, stride_;
  bool sparse_, in_bytes_ = false;
  Buffer<double> targets_, columns_;
  Buffer<Index> order_;  // of the inputs
  Kept<double> numbers_;
  Kept<std::uint8_t> bytes_;
};

// Factors on the learning rate by index of the step; nan for steps without a factor. A factor is
// never changed: a run reads those of its own steps, which are set before it begins, while other
// threads may add factors.
class Schedule {
 public:
  using Factors = std::shared_ptr<const std::vector<double>>;

  // Of steps first, first + 1, ...
  void set(Index first, std::span<const double> factors) {
    const auto begin = static_cast<std::size_t>(first), end = begin + factors.size();
    const std::lock_guard lock(*mutex_);
    if (end > factors_->size()) {  // doubled: growing step by step would copy them each time
      constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
      auto next = std::make_shared<std::vector<double>>(*factors_);
      next->resize(std::max(end, 2 * factors_->size()), kNone);
      factors_.swap(next);
    }
    for (std::size_t i = 0; i < factors.size(); ++i) {
      double& factor = (*factors_)[begin + i];
      if (std::isnan(factor)) factor = factors[i];
    }
  }
  Factors get() const {
    const std::lock_guard lock(*mutex_);
    return factors_;
  }

 private:
  std::unique_ptr<std::mutex> mutex_ = std::make_unique<std::mutex>();
  std::shared_ptr<std::vector<double>> factors_ = std::make_shared<std::vector<double>>();
};

struct Problem {
  Architecture arch;
  Data data;
  Optimizer optimizer;
  BatchOrder batches;
  bool single = false;  // steps in single precision
  Schedule schedule{};

  Index n_params() const { return arch.n_params; }
  Index n() const { return arch.n_params * (1 + optimizer.buffers()); }
};

}  // namespace pylyap
