// The losses: their value, their derivative in the outputs of a network, and their curvature.
#pragma once

#include <algorithm>
#include <cmath>

#include "architecture.hpp"
#include "buffer.hpp"
#include "elementary.hpp"
#include "folded.hpp"
#include "lanes.hpp"
#include "products.hpp"
#include "samples.hpp"

namespace pylyap {

// Arrays are (outputs, samples) with rows `stride` apart.
template <class S>
class OutputLoss {
  using R = Register<S>;

 public:
  OutputLoss(const Architecture& arch, Index stride)
      : arch_(arch),
        stride_(stride),
        probability_(arch.outputs() * stride),
        pivot_(stride),
        sample_loss_(stride) {}

  const S* probabilities() const { return probability_.data(); }
  const R* probability(Index c) const { return row(probability_.data(), c); }

  // p_c = e_c / (1 + others), e_c = exp(o_c - max o), others summed without the largest, so that
  // 1 - p keeps its digits where p is close to 1. `pivot_` is the largest class.
  void softmax(const S* outputs, Index m) {
    const Index classes = arch_.outputs();
    const auto output = [&](Index c) { return row(outputs, c); };
    R* pivot = row(pivot_.data(), 0);
    R* others = row(sample_loss_.data(), 0);
    for (Index i = 0; i < m; ++i) {
      R largest = output(0)[i];
      for (Index c = 1; c < classes; ++c) {
        largest = larger(output(c)[i], largest);
      }
      R winner = broadcast<R>(0.0);
      for (Index c = classes - 1; c > 0; --c) winner = output(c)[i] == largest ? number(c) : winner;
      winner = output(0)[i] == largest ? broadcast<R>(0.0) : winner;
      R sum = broadcast<R>(0.0);
      for (Index c = 0; c < classes; ++c) {
        const R e = exp_of_nonpositive(output(c)[i] - largest);
        row(probability_.data(), c)[i] = e;
        sum += winner == number(c) ? broadcast<R>(0.0) : e;
      }
      const R inverse = 1.0 / (sum + 1.0);
      for (Index c = 0; c < classes; ++c) row(probability_.data(), c)[i] *= inverse;
      pivot[i] = winner;
      others[i] = sum;
    }
  }

  // deltas <- yhat - y, or p - onehot with the label's entry as minus the sum of the others. The
  // loss of a sample is log(1 + others) + margin; `sum` reads both.
  void residual(const S* outputs, S* deltas, const BasicSamples<Number<S>>& samples) {
    const Index n_outputs = arch_.outputs(), m = registers<S>(samples.count);
    const auto output = [&](Index c) { return row(outputs, c); };
    const auto delta = [&](Index c) { return row(deltas, c); };
    if (!arch_.classifies()) {
      for (Index c = 0; c < n_outputs; ++c) {
        const Number<S>* y = samples.targets + c * samples.stride;
        for (Index i = 0; i < m; ++i) delta(c)[i] = output(c)[i] - shared_register<S>(y, i);
      }
      return;
    }
    softmax(outputs, m);
    for (Index i = 0; i < m; ++i) {
      const R label = shared_register<S>(samples.targets, i);
      R wrong = broadcast<R>(0.0), right = broadcast<R>(0.0);
      for (Index c = 0; c < n_outputs; ++c) {
        const R p = row(probability_.data(), c)[i];
        const auto here = label == number(c);
        wrong += here ? broadcast<R>(0.0) : p;
        right += here ? p : broadcast<R>(0.0);
      }
      R active = broadcast<R>(1.0);
      if (arch_.loss == Loss::cross_entropy_clipped) {
        active = right < broadcast<R>(kClip) ? broadcast<R>(0.0) : active;
        active = right > broadcast<R>(1.0 - kClip) ? broadcast<R>(0.0) : active;
      }
      for (Index c = 0; c < n_outputs; ++c) {
        const R p = row(probability_.data(), c)[i];
        delta(c)[i] = active * (label == number(c) ? -wrong : p);
        row(probability_.data(), c)[i] = active * p;
      }
    }
  }

  // The loss summed over the samples, after `residual` of the same arrays.
  Accumulator<S> sum(const S* outputs, const S* deltas, const BasicSamples<Number<S>>& samples) {
    const Index n_outputs = arch_.outputs(), m = registers<S>(samples.count);
    const auto output = [&](Index c) { return row(outputs, c); };
    const auto delta = [&](Index c) { return row(deltas, c); };
    R* sample_loss = row(sample_loss_.data(), 0);
    for (Index i = 0; i < m; ++i) {
      R value = broadcast<R>(0.0);
      if (!arch_.classifies()) {
        for (Index c = 0; c < n_outputs; ++c) {
          const R r = delta(c)[i];
          value += 0.5 * r * r;
        }
      } else {
        const R label = shared_register<S>(samples.targets, i);
        R at_label = broadcast<R>(0.0), largest = output(0)[i];
        for (Index c = 0; c < n_outputs; ++c) {
          const R o = output(c)[i];
          largest = larger(o, largest);
          at_label = label == number(c) ? o : at_label;
        }
        value = log1p_nonnegative(sample_loss[i]) + (largest - at_label);
        if (arch_.loss == Loss::cross_entropy_clipped) {
          const R most = broadcast<R>(-std::log(kClip)), least = broadcast<R>(-std::log1p(-kClip));
          value = value > most ? most : value;
          value = value < least ? least : value;
        }
      }
      sample_loss[i] = value;
    }
    return folded_sum(sample_loss_.data(), samples.count);
  }

  // out_c <- sum_d L_cd in_d with the curvature of the loss in the outputs, L = I or
  // diag(p) - p p^T, for m registers of samples. The softmax has rank outputs - 1: differences are
  // taken to the largest class, whose row is minus the sum of the others, so that nothing cancels
  // where one p is close to 1.
  void multiply_curvature(const S* in, S* out, Index m) {
    const Index outputs = arch_.outputs();
    const auto from = [&](Index c) { return row(in, c); };
    const auto to = [&](Index c) { return row(out, c); };
    if (!arch_.classifies()) {
      for (Index c = 0; c < outputs; ++c) std::copy_n(from(c), m, to(c));
      return;
    }
    const R* pivot = row(pivot_.data(), 0);
    for (Index i = 0; i < m; ++i) {
      R reference = broadcast<R>(0.0), mean = broadcast<R>(0.0), sum = broadcast<R>(0.0);
      for (Index c = 0; c < outputs; ++c)
        reference = pivot[i] == number(c) ? from(c)[i] : reference;
      for (Index c = 0; c < outputs; ++c)
        mean += row(probability_.data(), c)[i] * (from(c)[i] - reference);
      for (Index c = 0; c < outputs; ++c) {
        const R value = row(probability_.data(), c)[i] * (from(c)[i] - reference - mean);
        to(c)[i] = value;
        sum += pivot[i] == number(c) ? broadcast<R>(0.0) : value;
      }
      for (Index c = 0; c < outputs; ++c) to(c)[i] = pivot[i] == number(c) ? -sum : to(c)[i];
    }
  }

 private:
  static R number(Index c) { return broadcast<R>(static_cast<double>(c)); }
  R* row(S* data, Index r) const { return register_row(data, stride_, r); }
  const R* row(const S* data, Index r) const { return register_row(data, stride_, r); }

  const Architecture& arch_;
  const Index stride_;
  Buffer<S> probability_, pivot_;
  Buffer<S> sample_loss_;  // of the softmax at first its sum over the other classes
};

}  // namespace pylyap
