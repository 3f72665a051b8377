// One optimiser step as a map of the state, and its tangent.
//
// State: weights w, then the optimiser's buffers ([w, v] for momentum, [w, m, v] for Adam), each in
// the network's internal order. With g the gradient of the mean loss plus decay * w:
//   heavy ball  v' = b v - lr g,  w' = w + v'          Nesterov  w' = w + b v' - lr g
//   Adam        m' = b1 m + (1 - b1) g,  v' = b2 v + (1 - b2) g^2,
//               w' = w - lr m^ / (sqrt(v^) + eps),  m^ = m' / (1 - b1^(t+1)),  v^ likewise
// Layers may have factors of the learning rate, which multiply lr g.
// The tangent of a step is that of these lines, with dg = H dw + decay dw; H is taken at the state
// before the step. Where v' = 0, which means g = 0 and v = 0, Adam's tangent is dw - lr dm^ / eps:
// exact if m' = 0. If m' is not 0, the derivative with respect to v is infinite and counts as 0,
// and that with respect to g is the mean of its two one-sided values.
#pragma once

#include <cmath>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <variant>

#include "buffer.hpp"
#include "cost.hpp"
#include "group.hpp"
#include "lanes.hpp"
#include "network.hpp"
#include "problem.hpp"
#include "team.hpp"
#include "three_layer/hessian.hpp"
#include "three_layer/products.hpp"
#include "training.hpp"

namespace pylyap {

template <class S>
class Training final : public TrainingMap<S> {
  using Base = TrainingMap<S>;
  using Base::frame_;
  using Base::k_;
  using Base::n_;
  using Base::rates_;
  using Base::state_;

 public:
  using Block = BasicSamples<Number<S>>;
  static constexpr bool kTangents = !std::is_same_v<S, float>;  // tangents are in double only

  // Carries k tangent vectors of the state, shared by the team. k = 0 with Method::dense: for the
  // Hessian itself.
  Training(const Problem& problem, Index k, Method method, Team& team)
      : Base(layout_of(problem.arch, 1 + problem.optimizer.buffers()), k),
        problem_(problem),
        team_(team),
        np_(problem.n_params()),
        dense_(k > 0 ? choose_method(problem.arch, problem.batches.batch_size, k, method) ==
                           Method::dense
                     : method == Method::dense),
        block_(block_size(problem.batches.batch_size)),
        whole_block_(block_size(problem.data.n_samples())),
        network_(problem.arch, largest_block(), team.size(), dense_ ? 1 : std::min(k, team.size()),
                 dense_ && !fits_three_layers(problem.arch), structure(k)),
        batches_(problem.batches),
        schedule_(problem.schedule.get()),
        buffer_(problem.data.buffer<S>(largest_block())),
        gradient_(np_),
        curved_(k * np_),
        ones_(k),
        non_finite_(team.size()) {
    std::fill_n(ones_.data(), k, broadcast<S>(1.0));
    if constexpr (kTangents) {
      if (dense_ && three_layer_hessian(problem.arch)) {
        structured_.emplace(problem.arch, largest_block(), k);
      } else if (!dense_ && k > 0 && three_layer_products(problem.arch, k)) {
        products_.emplace(problem.arch, largest_block(), k, team.size());
      }
      if (dense_) {
        side_ = k > 0 && structured_ ? structured_->n_relative() : np_;
        hessian_ = Buffer<S>(side_ * side_);
      }
    }
  }

  void set_rates(const Group<S>& group, const RateArrays& rates) override {
    rates_ = group.rates(rates);
    if (!rates.factors) return;
    if (factors_.size() == 0) factors_ = Buffer<S>(np_);
    const Index kinds = 2 * problem_.arch.depth();
    for (Index i = 0; i < np_; ++i) {
      const Index kind = problem_.arch.kind_of(this->layout_.outside(i));
      for (Index l = 0; l < kRuns<S>; ++l)
        set_lane(factors_[i], l, rates.factors[group.run(l) * kinds + kind]);
    }
  }

  const S* gradient() const override { return gradient_.data(); }
  const S* hessian() const override { return hessian_.data(); }
  bool in_order() const override { return network_.in_order(); }

  // The rounding error of a step is that of the unit vectors it starts from, since I - lr H cancels
  // down to it.
  const S* source() const override { return ones_.data(); }

  void advance(Index t, Accumulator<S>* loss) override {
    const bool full = problem_.batches.full();
    if (loss && !full) *loss = full_loss();
    std::span<const Index> chosen;
    if (!full) chosen = batches_(t);
    const Index count = full ? problem_.data.n_samples() : static_cast<Index>(chosen.size());
    const S scale = broadcast<S>(1.0 / static_cast<double>(count));
    S lr = rates_.lr;
    if (!schedule_->empty()) lr *= broadcast<S>(schedule_->at(static_cast<std::size_t>(t)));
    std::fill_n(non_finite_.data(), non_finite_.size(), S{});
    const bool in_place = kRuns<S> == 1 && k_ == 0 && !network_.in_order();
    const Step step{t, scale, lr};
    StepParts parts(*this, step, in_place, count <= (full ? whole_block_ : block_));
    evaluate(full ? nullptr : &chosen, count, k_ > 0, full ? loss : nullptr, &parts);
    if (loss && full) *loss *= 1.0 / static_cast<double>(count);
    if constexpr (kTangents) {
      if (k_ > 0 && dense_) {
        // Small networks: as many vectors as the first-level cache holds.
        const Index size = kRuns<S> > 1 ? detail::kTileRows : k_;
        for (Index c = 0; c < k_; c += size) {
          const Index end = std::min(c + size, k_);
          multiply_dense(c, end, curved_.data());
          step_frame(step, c, end, curved_.data(), 0, np_);
        }
      } else if (k_ > 0) {
        in_shares([&](Index begin, Index end, Index) {
          step_frame(step, 0, k_, curved_.data(), begin, end);
        });
      }
    }
    if (!in_place)
      in_shares([&](Index begin, Index end, Index worker) {
        const Index size = end - begin;
        step_weights(step, {begin, 1, size, size},
                     Matrix<const S>(gradient_.data() + begin, 1, size), worker);
      });
    S non_finite{};
    for (Index i = 0; i < non_finite_.size(); ++i) non_finite += non_finite_[i];
    if (any(non_finite != non_finite))
      for (Index i = 0; i < n_; ++i) state_[i] += non_finite;
  }

  Accumulator<S> full_loss() override {
    const Index count = problem_.data.n_samples();
    Accumulator<S> loss{};
    for (Index s = 0; s < count; s += whole_block_) {
      const Index size = std::min(whole_block_, count - s);
      loss +=
          network_.loss(team_, state_.data(), problem_.data.block(s, size, false, buffer_, team_));
    }
    return loss * (1.0 / static_cast<double>(count));
  }

  void multiply_hessian() override {
    if constexpr (kTangents) {
      const Index count = problem_.data.n_samples();
      if (network_.in_order()) {  // its products read what the gradient leaves in transposed order
        evaluate_all(true, nullptr);
      } else {
        evaluate(nullptr, count, true, nullptr, nullptr);
      }
      if (dense_) multiply_dense(0, k_, curved_.data());
      const double scale = 1.0 / static_cast<double>(count);
      for (Index i = 0; i < k_ * np_; ++i) frame_[i] = curved_[i] * scale;
    }
  }

  Accumulator<S> evaluate_all() override {
    Accumulator<S> loss{};
    evaluate_all(dense_, &loss);
    const double mean = 1.0 / static_cast<double>(problem_.data.n_samples());
    const S scale = broadcast<S>(mean);
    for (Index i = 0; i < np_; ++i) gradient_[i] *= scale;
    for (Index i = 0; i < hessian_.size(); ++i) hessian_[i] *= scale;
    return loss * mean;
  }

 private:
  // One step: its index, the factor that makes sums over samples means, and the learning rates.
  struct Step {
    Index t;
    S scale, lr;
  };

  // The gradient of a step. With `in_place`, weights are updated as soon as their gradient is
  // complete, while it is in the cache. If one block holds all samples (`whole`), it need not be
  // kept either: each thread reuses a part of the array.
  class StepParts final : public GradientParts<S> {
   public:
    StepParts(Training& training, const Step& step, bool in_place, bool whole)
        : GradientParts<S>(training.gradient_.data()),
          training_(training),
          step_(step),
          in_place_(in_place),
          room_(in_place && whole ? training.np_ / training.team_.size() : -1) {}

    Matrix<S> place(const Region& region, Index worker) override {
      if (region.rows * region.columns > room_) return GradientParts<S>::place(region, worker);
      return {this->gradient_ + worker * room_, region.rows, region.columns};
    }
    void finish(const Region& region, const Matrix<S>& part, Index worker) override {
      if (in_place_ && last_block) training_.step_weights(step_, region, part, worker);
    }

    bool last_block = false;

   private:
    Training& training_;
    const Step step_;
    const bool in_place_;
    const Index room_;
  };

  static bool fits_three_layers(const Architecture& arch) {
    return kTangents && three_layer_hessian(arch);
  }

  // Whether three_layer/ forms the Hessian or products of it with k vectors.
  Structure structure(Index k) const {
    if (!kTangents) return Structure::none;
    if (dense_) return three_layer_hessian(problem_.arch) ? Structure::hessian : Structure::none;
    return k > 0 && three_layer_products(problem_.arch, k) ? Structure::products : Structure::none;
  }
  Index largest_block() const { return std::max(block_, whole_block_); }

  // Calls f(begin, end, worker) for shares of the weights, if there are enough for a second thread.
  void in_shares(ShareFunction f) {
    constexpr Index kShared = Index{1} << 15;
    if (np_ < kShared) return f(0, np_, 0);
    team_.share(np_, 1024, f);
  }
  void evaluate_all(bool tangents, Accumulator<S>* loss) {
    StepParts parts(*this, Step{}, false, false);
    evaluate(nullptr, problem_.data.n_samples(), tangents, loss, &parts);
  }
  // Sums over the chosen samples, or (null) all of them; without `parts` no gradient and loss.
  void evaluate(const std::span<const Index>* chosen, Index count, bool tangents,
                Accumulator<S>* loss, StepParts* parts) {
    if (!fits_three_layers(problem_.arch)) std::fill_n(hessian_.data(), hessian_.size(), S{});
    if (loss) *loss = Accumulator<S>{};
    if constexpr (kTangents) {
      if (tangents && products_) {
        products_->load(frame_.data(), n_, k_);
      } else if (tangents && !dense_) {
        in_shares([&](Index begin, Index end, Index) {
          for (Index c = 0; c < k_; ++c)
            std::fill_n(curved_.data() + c * np_ + begin, end - begin, S{});
        });
      }
    }
    const Index block_size = chosen ? block_ : whole_block_;
    for (Index s = 0; s < count; s += block_size) {
      const Index size = std::min(block_size, count - s);
      const Block block =
          chosen ? problem_.data.gather(
                       chosen->subspan(static_cast<std::size_t>(s), static_cast<std::size_t>(size)),
                       buffer_, team_)
                 : problem_.data.block(s, size, true, buffer_, team_);
      if (parts) {
        parts->last_block = s + block_size >= count;
        network_.evaluate(team_, state_.data(), block, s > 0, loss, *parts);
      } else {
        network_.linearise(team_, state_.data(), block);
      }
      if constexpr (kTangents) {
        if (tangents) add_tangents(block, s > 0);
      }
    }
    if constexpr (kTangents) {
      if (tangents && structured_) structured_->finish(state_.data(), hessian_.data(), side_);
      if (tangents && products_) products_->finish(curved_.data());
    }
  }

  // out <- H times vectors begin ... end - 1.
  void multiply_dense(Index begin, Index end, S* out) {
    const S* vectors = frame_.data() + begin * n_;
    if (structured_) return structured_->multiply(hessian_.data(), vectors, n_, end - begin, out);
    multiply_symmetric_matrix(Matrix<const S>(vectors, end - begin, np_, n_),
                              Matrix<const S>(hessian_.data(), np_, np_),
                              Matrix<S>(out, end - begin, np_), network_.in_order());
  }

  void add_tangents(const Block& block, bool add) {
    if (structured_) {
      structured_->prepare(state_.data(), network_, block);
      structured_->add(state_.data(), network_, block, add);
    } else if (products_) {
      products_->prepare(state_.data(), network_, block);
      products_->add(network_, block, team_);
    } else if (dense_) {
      network_.add_hessian(state_.data(), block, hessian_.data());
    } else {
      // Whole vectors for each thread; all threads share each of the remaining ones.
      auto product = [&](Team& team, Index c, Index scratch) {
        network_.add_hessian_vector(team, state_.data(), block, frame_.data() + c * n_,
                                    curved_.data() + c * np_, scratch);
      };
      const Index each = k_ / team_.size() * team_.size();
      team_.share(each, 1, [&](Index begin, Index end, Index worker) {
        for (Index c = begin; c < end; ++c) product(alone_, c, worker);
      });
      for (Index c = each; c < k_; ++c) product(team_, c, 0);
    }
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

  // A product that is not fused with the sum it is added to: a factor of 1 changes no bit.
  static S rounded_product(const S& a, const S& b) { return fused<S>(a, b, S{}); }

  // Updates the weights of a region and their buffers; notes non-finite values for this thread.
  [[gnu::noinline]] void step_weights(const Step& step, const Region& region,
                                      const Matrix<const S>& gradient, Index worker) {
    S non_finite{};
    for (Index r = 0; r < region.rows; ++r)
      non_finite += step_row(step, region.first + r * region.stride, region.columns,
                             gradient.data + r * gradient.stride);
    non_finite_[worker] += non_finite;
  }
  S step_row(const Step& step, Index first, Index count, const S* gradient) {
    const S scale = step.scale, lr = step.lr;
    const Optimizer& o = problem_.optimizer;
    S *w = state_.data() + first, *v = w + np_, *u = v + np_;
    if (o.adam) {
      const AdamStep a = adam_step(step.t);
      const S b1 = broadcast<S>(o.beta1), b2 = broadcast<S>(o.beta2),
              epsilon = broadcast<S>(o.epsilon);
      const S c1 = broadcast<S>(a.one_minus_b1), c2 = broadcast<S>(a.one_minus_b2);
      const S first_moment = broadcast<S>(a.first), second_moment = broadcast<S>(a.second);
      for (Index i = 0; i < count; ++i) {
        const S g = fused<S>(scale, gradient[i], rates_.decay * w[i]);
        v[i] = fused<S>(b1, v[i], c1 * g);
        u[i] = fused<S>(b2, u[i], c2 * (g * g));
        w[i] -= lr * (v[i] * first_moment) / (sqrt(u[i] * second_moment) + epsilon);
      }
    } else {
      const S rate = lr * scale, shrink = lr * rates_.decay;
      auto descend = [&]<bool kFactors>(const S* factors) {
        for (Index i = 0; i < count; ++i) {
          S pull = fused<S>(rate, gradient[i], shrink * w[i]);
          if constexpr (kFactors) pull = rounded_product(factors[i], pull);
          if (!o.momentum) {
            w[i] -= pull;
          } else {
            v[i] = rates_.momentum * v[i] - pull;
            w[i] += o.nesterov ? rates_.momentum * v[i] - pull : v[i];
          }
        }
      };
      if (factors_.size() == 0) {
        descend.template operator()<false>(nullptr);
      } else {
        descend.template operator()<true>(factors_.data() + first);
      }
    }
    S non_finite{};
    for (Index b = 0; b < n_; b += np_) non_finite += nan_unless_finite(w + b, count);
    return non_finite;
  }

  // Updates entries begin ... end - 1 of vectors first ... last - 1, whose products with H are
  // `curved`.
  [[gnu::noinline]] void step_frame(const Step& step, Index first, Index last, const S* curved,
                                    Index begin, Index end) {
    const Optimizer& o = problem_.optimizer;
    const S scale = step.scale, lr = step.lr;
    const S rate = lr * scale, shrink = lr * rates_.decay;
    const AdamStep a = o.adam ? adam_step(step.t) : AdamStep{};
    const S *w = state_.data(), *m = w + np_, *u = m + np_;
    for (Index c = first; c < last; ++c) {
      S *dw = frame_.data() + c * n_, *dm = dw + np_, *du = dm + np_;
      const S* hv = curved + (c - first) * np_;
      if (o.adam) {
        const S b1 = broadcast<S>(o.beta1), b2 = broadcast<S>(o.beta2);
        const S c1 = broadcast<S>(a.one_minus_b1), c2 = broadcast<S>(a.one_minus_b2);
        const S at_zero = lr * (a.first / o.epsilon);  // dw by dm where v' = 0
        for (Index i = begin; i < end; ++i) {
          const S g = fused<S>(scale, gradient_[i], rates_.decay * w[i]);
          const S dg = fused<S>(scale, hv[i], rates_.decay * dw[i]);
          const S mean = fused<S>(b1, m[i], c1 * g) * a.first;
          const S root = sqrt(fused<S>(b2, u[i], c2 * (g * g)) * a.second);
          dm[i] = fused<S>(b1, dm[i], c1 * dg);
          du[i] = fused<S>(b2, du[i], (c2 + c2) * (g * dg));
          const S below = root + o.epsilon;
          const S droot = 0.5 * a.second * du[i] / root;
          const S change = fused<S>(dm[i], broadcast<S>(a.first), -(mean / below * droot)) / below;
          // Sums, so that neither product is fused with the difference.
          const S moved = fused<S>(lr, change, S{}), from_zero = fused<S>(at_zero, dm[i], S{});
          dw[i] -= root == 0.0 ? from_zero : moved;
        }
      } else {
        auto descend = [&]<bool kFactors>(const S* factors) {
          for (Index i = begin; i < end; ++i) {
            S pull = fused<S>(rate, hv[i], shrink * dw[i]);
            if constexpr (kFactors) pull = rounded_product(factors[i], pull);
            if (!o.momentum) {
              dw[i] -= pull;
            } else {
              dm[i] = rates_.momentum * dm[i] - pull;
              dw[i] += o.nesterov ? rates_.momentum * dm[i] - pull : dm[i];
            }
          }
        };
        if (factors_.size() == 0) {
          descend.template operator()<false>(nullptr);
        } else {
          descend.template operator()<true>(factors_.data());
        }
      }
    }
  }

  const Problem& problem_;
  Team& team_;
  Team alone_{1};
  const Index np_;
  const bool dense_;
  const Index block_, whole_block_;  // samples per block: of a step, and of the whole data
  Network<S> network_;
  template <class T>
  using InDouble = std::conditional_t<kTangents, std::optional<T>, std::monostate>;
  InDouble<three_layer::Hessian<S>> structured_;
  InDouble<three_layer::Products<S>> products_;
  Batches batches_;
  Schedule::Factors schedule_;
  BlockBuffer<S> buffer_;
  Index side_ = 0;  // of the Hessian
  Buffer<S> gradient_, curved_, hessian_, ones_;
  Buffer<S> factors_;     // of the learning rate, one for each parameter; empty if all are 1
  Buffer<S> non_finite_;  // of each thread: nan in the runs with a non-finite state
};

}  // namespace pylyap
