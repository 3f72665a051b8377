// One optimiser step as a map of the state, and its tangent.
//
// State: weights w, then the optimiser's buffers ([w, v] for momentum, [w, m, v] for Adam), each in
// the network's internal order. With g the gradient of the mean loss plus decay * w:
//   heavy ball  v' = b v - lr g,  w' = w + v'          Nesterov  w' = w + b v' - lr g
//   Adam        m' = b1 m + (1 - b1) g,  v' = b2 v + (1 - b2) g^2,
//               w' = w - lr m^ / (sqrt(v^) + eps),  m^ = m' / (1 - b1^(t+1)),  v^ likewise
// The tangent of a step is that of these lines, with dg = H dw + decay dw; H is taken at the state
// before the step. Where v' = 0 Adam's update counts as constant (its derivative does not exist).
#pragma once

#include <cmath>
#include <optional>
#include <utility>

#include "group.hpp"
#include "lanes.hpp"
#include "network.hpp"
#include "problem.hpp"
#include "team.hpp"
#include "three_layer.hpp"

namespace pylyap {

enum class Method { automatic, dense, matrix_free };

// --- choices that fix the arithmetic: functions of the sizes alone ---

// Small nets run W at a time in lanes; wide ones alone, with registers along samples. W lanes cost
// as much as one of them, so that a single run of a small net loses nothing.
inline bool fits_lanes(const Architecture& arch) { return arch.n_params <= kMostInLanes; }

// Samples per block: equal blocks of at most 256, so that a layer stays in cache.
inline Index block_size(Index n_samples) {
  constexpr Index kMost = 256;
  const Index blocks = (n_samples + kMost - 1) / kMost;
  return std::min(n_samples, padded((n_samples + blocks - 1) / blocks));
}

// Cost of one step with k tangent vectors, in multiplications at the rate of a large matrix
// product: counts of what the kernels do, times what they fall short of that rate. The factors are
// from 4-10-3, 120 samples, in AVX-512 on a Xeon of family 6, model 207 (November 2026). By them
// that net changes to the Hessian at k = 17; measured there, one thread, us per step and run, dense
// against matrix-free: 43 and 38 at k = 16, 59 and 62 at k = 20, 56 and 70 at k = 32.
inline double step_cost(const Architecture& arch, Index n_samples, Index k, Method method) {
  constexpr double kHessian = 1.6, kVectors = 1.5;
  const auto N = static_cast<double>(n_samples), vectors = static_cast<double>(k);
  const auto n = static_cast<double>(arch.n_params);
  double all = 3.0 * N * n;  // forward, backward, gradient
  if (k == 0) return all;
  const auto d1 = static_cast<double>(arch.width(0) + 1), h = static_cast<double>(arch.width(1));
  const auto C = static_cast<double>(arch.outputs());
  const double rank = arch.classifies() ? C - 1.0 : C, pairs = 0.5 * d1 * (d1 + 1.0);
  double per_vector = 0.0, shared = 0.0;
  if (ThreeLayer<double>::fits_vectors(arch)) {
    per_vector = 2.0 * h * d1 + 4.0 * rank * h + rank * rank;
    shared = rank * h * d1 + h * pairs;
  } else {
    for (Index l = 1; l <= arch.depth(); ++l) {
      const auto size = static_cast<double>(arch.width(l) * (arch.width(l - 1) + 1));
      per_vector += (l == 1 ? 2.0 : 6.0) * size;
    }
  }
  if (method == Method::matrix_free) return all + kVectors * N * (shared + vectors * per_vector);
  double hessian = n * per_vector;
  if (ThreeLayer<double>::fits(arch))
    hessian = 0.5 * h * (h + 1.0) * (pairs + rank) + rank * h * (h + 2.0) * d1 +
              0.5 * rank * (rank + 1.0) * (h + 1.0) * (h + 1.0);
  return all + kHessian * N * hessian + n * n * vectors;
}

// Dense Hessian or products with vectors: the cheaper by count.
inline Method choose_method(const Architecture& arch, Index n_samples, Index k, Method asked) {
  if (asked != Method::automatic) return asked;
  return step_cost(arch, n_samples, k, Method::dense) <
                 step_cost(arch, n_samples, k, Method::matrix_free)
             ? Method::dense
             : Method::matrix_free;
}

template <class S>
class Training {
 public:
  using Scalar = S;

  // k tangent vectors of the state travel along, shared by the team. None with Method::dense: for
  // the Hessian alone.
  Training(const Problem& problem, Index k, Method method, Team& team)
      : problem_(problem),
        team_(team),
        np_(problem.n_params()),
        n_(problem.n()),
        k_(k),
        dense_(k > 0 ? choose_method(problem.arch, problem.batches.batch_size, k, method) ==
                           Method::dense
                     : method == Method::dense),
        block_(block_size(problem.data.n_samples())),
        network_(problem.arch, block_, dense_ ? 1 : std::min(k, team.size()),
                 dense_ && !ThreeLayer<S>::fits(problem.arch)),
        batches_(problem.batches),
        batch_(problem.data.like_batch(problem.batches.full() ? 0 : problem.batches.batch_size)),
        state_(n_),
        gradient_(np_),
        frame_(k * n_),
        curved_(k * np_),
        hessian_(dense_ ? np_ * np_ : 0),
        ones_(k) {
    std::fill_n(ones_.data(), k, splat<S>(1.0));
    if (dense_ ? ThreeLayer<S>::fits(problem.arch)
               : k > 0 && ThreeLayer<S>::fits_vectors(problem.arch))
      three_layer_.emplace(problem.arch, block_, k, dense_, team.size());
  }

  S* state() { return state_.data(); }
  S* frame() { return frame_.data(); }
  const S* gradient() const { return gradient_.data(); }
  const S* hessian() const { return hessian_.data(); }
  Index n() const { return n_; }
  Index k() const { return k_; }
  Layout layout() const { return layout_of(problem_.arch, 1 + problem_.optimizer.buffers()); }
  Rates<S>& rates() { return rates_; }

  // What each vector of the last push was summed from: a step's rounding is that of the unit
  // vectors it started from, since I - lr H cancels down to it.
  const S* source() const { return ones_.data(); }

  // frame <- J(x_t) frame, then x <- x_{t+1}, nan in all of a state that is not finite. `loss` (or
  // null) gets the mean loss of the whole data at x_t.
  void advance(Index t, S* loss) {
    const bool full = problem_.batches.full();
    if (loss && !full) *loss = full_loss();
    const Samples samples = of_step(t);
    evaluate(samples, k_ > 0, full ? loss : nullptr);
    const S scale = splat<S>(1.0 / static_cast<double>(samples.count));
    if (loss && full) *loss *= scale;
    if (k_ > 0) step_frame(t, scale);
    step_state(t, scale);
  }

  // Mean loss of the whole data at the present state; leaves the state alone.
  S full_loss() {
    const Samples samples = problem_.data.all();
    S loss{};
    for (Index s = 0; s < samples.count; s += block_)
      loss += network_.loss(state_.data(), samples.slice(s, block_));
    return loss * (1.0 / static_cast<double>(samples.count));
  }

  // frame <- H frame, H of the mean loss of the whole data, without decay. Of states that are
  // weights alone.
  void multiply_hessian() {
    const Samples samples = problem_.data.all();
    evaluate(samples, true, nullptr);
    const double scale = 1.0 / static_cast<double>(samples.count);
    for (Index i = 0; i < k_ * np_; ++i) frame_[i] = curved_[i] * scale;
  }

  // Mean loss, gradient and (if dense) Hessian of the whole data, without decay.
  S evaluate_all() {
    const Samples samples = problem_.data.all();
    S loss{};
    evaluate(samples, dense_, &loss);
    const double scale = 1.0 / static_cast<double>(samples.count);
    for (Index i = 0; i < np_; ++i) gradient_[i] *= scale;
    for (Index i = 0; i < hessian_.size(); ++i) hessian_[i] *= scale;
    return loss * scale;
  }

 private:
  Samples of_step(Index t) {
    if (problem_.batches.full()) return problem_.data.all();
    return problem_.data.gather(batches_(t), batch_);
  }

  void evaluate(const Samples& samples, bool tangents, S* loss) {
    std::fill_n(gradient_.data(), np_, S{});
    std::fill_n(hessian_.data(), hessian_.size(), S{});
    std::fill_n(curved_.data(), curved_.size(), S{});
    if (loss) *loss = S{};
    if (tangents && three_layer_ && !dense_) three_layer_->load(frame_.data(), n_, k_);
    for (Index s = 0; s < samples.count; s += block_) {
      const Samples block = samples.slice(s, block_);
      network_.evaluate(state_.data(), block, gradient_.data(), loss);
      if (!tangents) continue;
      network_.prepare_tangents(block);
      if (three_layer_) {
        three_layer_->prepare(state_.data(), network_, block);
        if (dense_) {
          three_layer_->add_hessian(network_, block, hessian_.data());
        } else {
          three_layer_->add(network_, block, team_);
        }
      } else if (dense_) {
        network_.add_hessian(state_.data(), block, hessian_.data());
      } else {
        team_.share(k_, 1, [&](Index begin, Index end, Index member) {
          for (Index c = begin; c < end; ++c)
            network_.add_hessian_vector(state_.data(), block, frame_.data() + c * n_,
                                        curved_.data() + c * np_, member);
        });
      }
    }
    if (tangents && three_layer_ && !dense_) three_layer_->finish(curved_.data());
    if (tangents && dense_ && k_ > 0)
      multiply_nt(Matrix<const S>(frame_.data(), k_, np_, n_),
                  Matrix<const S>(hessian_.data(), np_, np_), Matrix<S>(curved_.data(), k_, np_));
  }

  struct AdamStep {
    double one_minus_b1, one_minus_b2, first, second;  // last two: bias corrections at this step
  };
  AdamStep adam_step(Index t) const {
    const Optimizer& o = problem_.optimizer;
    const double steps = static_cast<double>(t + 1);
    return {1.0 - o.beta1, 1.0 - o.beta2, 1.0 / (1.0 - std::pow(o.beta1, steps)),
            1.0 / (1.0 - std::pow(o.beta2, steps))};
  }

  [[gnu::noinline]] void step_state(Index t, const S& scale) {
    const Optimizer& o = problem_.optimizer;
    S *w = state_.data(), *v = w + np_;
    if (o.adam) {
      const AdamStep a = adam_step(t);
      S *m = w + np_, *u = m + np_;
      for (Index i = 0; i < np_; ++i) {
        const S g = scale * gradient_[i] + rates_.decay * w[i];
        m[i] = o.beta1 * m[i] + a.one_minus_b1 * g;
        u[i] = o.beta2 * u[i] + a.one_minus_b2 * (g * g);
        w[i] -= rates_.lr * (m[i] * a.first) / (sqrt(u[i] * a.second) + o.epsilon);
      }
    } else {
      const S rate = rates_.lr * scale, shrink = rates_.lr * rates_.decay;
      for (Index i = 0; i < np_; ++i) {
        const S pull = rate * gradient_[i] + shrink * w[i];
        if (!o.momentum) {
          w[i] -= pull;
        } else {
          v[i] = rates_.momentum * v[i] - pull;
          w[i] += o.nesterov ? rates_.momentum * v[i] - pull : v[i];
        }
      }
    }
    S mark{};  // nan in the runs that left the finite numbers
    for (Index i = 0; i < n_; ++i) mark += not_finite(w[i]);
    if (any(mark != mark))
      for (Index i = 0; i < n_; ++i) w[i] += mark;
  }

  [[gnu::noinline]] void step_frame(Index t, const S& scale) {
    const Optimizer& o = problem_.optimizer;
    const S rate = rates_.lr * scale, shrink = rates_.lr * rates_.decay;
    const AdamStep a = o.adam ? adam_step(t) : AdamStep{};
    const S *w = state_.data(), *m = w + np_, *u = m + np_;
    for (Index c = 0; c < k_; ++c) {
      S *dw = frame_.data() + c * n_, *dm = dw + np_, *du = dm + np_;
      const S* hv = curved_.data() + c * np_;
      if (o.adam) {
        for (Index i = 0; i < np_; ++i) {
          const S g = scale * gradient_[i] + rates_.decay * w[i];
          const S dg = scale * hv[i] + rates_.decay * dw[i];
          const S mean = (o.beta1 * m[i] + a.one_minus_b1 * g) * a.first;
          const S root = sqrt((o.beta2 * u[i] + a.one_minus_b2 * (g * g)) * a.second);
          dm[i] = o.beta1 * dm[i] + a.one_minus_b1 * dg;
          du[i] = o.beta2 * du[i] + (2.0 * a.one_minus_b2) * (g * dg);
          const S below = root + o.epsilon;
          const S droot = 0.5 * a.second * du[i] / root;
          const S change = (dm[i] * a.first - mean / below * droot) / below;
          dw[i] -= root == 0.0 ? S{} : rates_.lr * change;
        }
      } else {
        for (Index i = 0; i < np_; ++i) {
          const S pull = rate * hv[i] + shrink * dw[i];
          if (!o.momentum) {
            dw[i] -= pull;
          } else {
            dm[i] = rates_.momentum * dm[i] - pull;
            dw[i] += o.nesterov ? rates_.momentum * dm[i] - pull : dm[i];
          }
        }
      }
    }
  }

  const Problem& problem_;
  Team& team_;
  const Index np_, n_, k_;
  const bool dense_;
  const Index block_;
  Network<S> network_;
  std::optional<ThreeLayer<S>> three_layer_;
  Batches batches_;
  Data batch_;
  Buffer<S> state_, gradient_, frame_, curved_, hessian_, ones_;
  Rates<S> rates_{};
};

}  // namespace pylyap
