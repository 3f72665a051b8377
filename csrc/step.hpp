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

#include <algorithm>
#include <cmath>
#include <deque>
#include <span>
#include <utility>

#include "block_sums.hpp"
#include "buffer.hpp"
#include "cost.hpp"
#include "group.hpp"
#include "lanes.hpp"
#include "network.hpp"
#include "problem.hpp"
#include "team.hpp"
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
  static constexpr bool kTangents = BlockSums<S>::kTangents;

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
        by_units_(shares_units(problem.arch, problem.batches.batch_size)),
        division_(by_units_
                      ? Division{}
                      : divide_step(problem.arch,
                                    k > 0 ? problem.batches.batch_size : problem.data.n_samples(),
                                    dense_ ? 0 : k, team.size())),
        batches_(problem.batches),
        schedule_(problem.schedule.get()),
        gradient_(np_),
        products_(k * np_),
        ones_(k),
        non_finite_(team.size()) {
    std::fill_n(ones_.data(), k, broadcast<S>(1.0));
    make_shares();
    if (!dense_) return;
    side_ = k > 0 ? shares_.front().sums.side() : np_;
    hessian_ = Buffer<S>(side_ * side_);
    for (Share& share : shares_)
      if (several_blocks()) share.hessian = Buffer<S>(side_ * side_);
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
  bool in_order() const override { return shares_.front().sums.in_order(); }

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
    const bool in_place = by_units_ && k_ == 0;
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
          multiply_dense(c, end);
          step_frame(step, c, end, products_.data(), 0, np_);
        }
      } else if (division_.groups > 1) {  // each thread those whose products are in its cache
        team_.share(division_.groups, 1, [&](Index begin, Index end, Index) {
          const Index first = division_.begin(begin, k_), last = division_.begin(end, k_);
          step_frame(step, first, last, products_.data() + first * np_, 0, np_);
        });
      } else if (k_ > 0) {
        share_parameters(team_, np_, [&](Index begin, Index end, Index) {
          step_frame(step, 0, k_, products_.data(), begin, end);
        });
      }
    }
    if (!in_place)
      share_parameters(team_, np_, [&](Index begin, Index end, Index share) {
        const Index size = end - begin;
        step_weights(step, {begin, 1, size, size},
                     Matrix<const S>(gradient_.data() + begin, 1, size), share);
      });
    S non_finite{};
    for (Index i = 0; i < non_finite_.size(); ++i) non_finite += non_finite_[i];
    if (any(non_finite != non_finite))
      for (Index i = 0; i < n_; ++i) state_[i] += non_finite;
  }

  Accumulator<S> full_loss() override {
    const Index count = problem_.data.n_samples();
    Accumulator<S> loss{};
    each_block(
        count, whole_block_, 1,
        [&](Share& share, Team& team, const Part& part) {
          const auto samples = share.sums.samples(nullptr, part.first, part.count, false, team);
          share.loss = share.sums.loss(team, state_.data(), samples);
        },
        [&](const Share& share, const Part&) { loss += share.loss; });
    return loss * (1.0 / static_cast<double>(count));
  }

  void multiply_hessian() override {
    if constexpr (kTangents) {
      const Index count = problem_.data.n_samples();
      evaluate(nullptr, count, true, nullptr, nullptr);
      if (dense_) multiply_dense(0, k_);
      const double scale = 1.0 / static_cast<double>(count);
      for (Index i = 0; i < k_ * np_; ++i) frame_[i] = products_[i] * scale;
    }
  }

  Accumulator<S> evaluate_all() override {
    Accumulator<S> loss{};
    StepParts parts(*this, Step{}, false, false);
    evaluate(nullptr, problem_.data.n_samples(), dense_, &loss, &parts);
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

  // One of the blocks of samples that are evaluated at a time, along some of the vectors. Its sums
  // are kept here, those of the first block in the arrays of the step.
  struct Share {
    Share(const Problem& problem, Index block, Index from, Index to, bool dense, Structure kernels,
          Index workers)
        : sums(problem, block, to - from, dense, kernels, workers,
               dense ? 1 : std::min(to - from, workers)),
          first(from),
          last(to) {}

    BlockSums<S> sums;
    const Index first, last;  // vectors
    Buffer<S> gradient, products, hessian;
    Accumulator<S> loss{};
  };
  // Some of the samples, and the number of the group of vectors.
  struct Part {
    Index first, count, group;
  };

  bool several_blocks() const {
    return !by_units_ &&
           (block_ < problem_.batches.batch_size || whole_block_ < problem_.data.n_samples());
  }
  void make_shares() {
    const Index largest = std::max(block_, whole_block_);
    const Index workers = by_units_ ? team_.size() : 1;
    const Structure kernels = BlockSums<S>::kernels(problem_.arch, k_, dense_);
    for (Index g = 0; g < division_.groups; ++g) {
      const Index first = division_.begin(g, k_), last = division_.begin(g + 1, k_);
      for (Index b = 0; b < division_.blocks; ++b) {
        Share& share =
            shares_.emplace_back(problem_, largest, first, last, dense_, kernels, workers);
        if (several_blocks() || g > 0) share.gradient = Buffer<S>(np_);
        if (several_blocks() && !dense_) share.products = Buffer<S>((last - first) * np_);
      }
    }
  }
  Vectors<S> vectors(Index first, Index last) const {
    return {frame_.data() + first * n_, n_, last - first};
  }
  // Calls f(share, team, part) for all blocks of samples and groups of vectors, as many at a time
  // as there are shares, then then(share, part) for each of them in order. `team` shares what f
  // does.
  template <class F, class Then>
  void each_block(Index count, Index size, Index groups, F&& f, Then&& then) {
    const Index at_a_time = division_.blocks * size;
    for (Index begin = 0; begin < count; begin += at_a_time) {
      const Index now = (std::min(at_a_time, count - begin) + size - 1) / size;
      auto each = [&](Index i, auto&& call) {
        const Index block = i / groups, group = i % groups, first = begin + block * size;
        Share& share = shares_[static_cast<std::size_t>(group * division_.blocks + block)];
        call(share, Part{first, std::min(size, count - first), group});
      };
      team_.share(now * groups, 1, [&](Index from, Index to, Index) {
        for (; from < to; ++from)
          each(from,
               [&](Share& share, const Part& part) { f(share, by_units_ ? team_ : alone_, part); });
      });
      for (Index i = 0; i < now * groups; ++i) each(i, then);
    }
  }

  // Sums over the chosen samples, or (null) all of them; without `parts` no gradient and loss. The
  // sums of each block are formed apart and added in order, so that threads can share the blocks.
  void evaluate(const std::span<const Index>* chosen, Index count, bool tangents,
                Accumulator<S>* loss, StepParts* parts) {
    if (loss) *loss = Accumulator<S>{};
    if (by_units_) return evaluate_units(chosen, count, tangents, loss, parts);
    each_block(
        count, chosen ? block_ : whole_block_, tangents ? division_.groups : 1,
        [&](Share& share, Team& team, const Part& part) {
          const auto samples = share.sums.samples(chosen, part.first, part.count, true, team);
          sum_block(share, samples, part, tangents, loss, parts);
        },
        [&](const Share& share, const Part& part) {
          if (loss && part.group == 0) *loss += share.loss;
          if (part.first > 0) add_sums(share, parts && part.group == 0, tangents);
        });
  }
  // The same where threads share the units of layers: sums run over all samples.
  void evaluate_units(const std::span<const Index>* chosen, Index count, bool tangents,
                      Accumulator<S>* loss, StepParts* parts) {
    const Index size = chosen ? block_ : whole_block_;
    const SumArrays<S> out{products_.data(), hessian_.data(), side_};
    BlockSums<S>& sums = shares_.front().sums;
    const S* weights = state_.data();
    if (tangents) sums.begin(team_, vectors(0, k_), out);
    for (Index s = 0; s < count; s += size) {
      const auto samples = sums.samples(chosen, s, std::min(size, count - s), true, team_);
      if (parts) {
        parts->last_block = s + size >= count;
        sums.evaluate(team_, weights, samples, s > 0, loss, *parts);
      } else {
        sums.linearise(team_, weights, samples);
      }
      if (tangents) sums.add(team_, weights, samples, s == 0, vectors(0, k_), out);
    }
    if (tangents) sums.finish(weights, out);
  }
  // The sums of one block, along the vectors of one group.
  void sum_block(Share& share, const BasicSamples<Number<S>>& samples, const Part& part,
                 bool tangents, const Accumulator<S>* loss, const StepParts* parts) {
    const bool first = part.first == 0, gradient = parts && part.group == 0;
    const S* weights = state_.data();
    if (gradient || (tangents && share.sums.needs_gradient(part.count))) {
      GradientParts<S> all(first && part.group == 0 ? gradient_.data() : share.gradient.data());
      share.loss = Accumulator<S>{};
      share.sums.evaluate(alone_, weights, samples, false, loss && gradient ? &share.loss : nullptr,
                          all);
    } else {
      share.sums.linearise(alone_, weights, samples);
    }
    if (!tangents) return;
    const auto along = vectors(share.first, share.last);
    const SumArrays<S> out{first ? products_.data() + share.first * np_ : share.products.data(),
                           first ? hessian_.data() : share.hessian.data(), side_};
    share.sums.begin(alone_, along, out);
    share.sums.add(alone_, weights, samples, true, along, out);
    share.sums.finish(weights, out);
  }
  void add_sums(const Share& share, bool gradient, bool tangents) {
    auto add = [](S* to, const Buffer<S>& from) {
      for (Index i = 0; i < from.size(); ++i) to[i] += from[i];
    };
    if (gradient) add(gradient_.data(), share.gradient);
    if (!tangents) return;
    add(products_.data() + share.first * np_, share.products);
    add(hessian_.data(), share.hessian);
  }

  // products <- H times vectors first ... last - 1.
  void multiply_dense(Index first, Index last) {
    shares_.front().sums.multiply(hessian_.data(), vectors(first, last), products_.data());
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
  // `products`.
  [[gnu::noinline]] void step_frame(const Step& step, Index first, Index last, const S* products,
                                    Index begin, Index end) {
    const Optimizer& o = problem_.optimizer;
    const S scale = step.scale, lr = step.lr;
    const S rate = lr * scale, shrink = lr * rates_.decay;
    const AdamStep a = o.adam ? adam_step(step.t) : AdamStep{};
    const S *w = state_.data(), *m = w + np_, *u = m + np_;
    for (Index c = first; c < last; ++c) {
      S *dw = frame_.data() + c * n_, *dm = dw + np_, *du = dm + np_;
      const S* hv = products + (c - first) * np_;
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
  const bool by_units_;              // whether threads share units of layers rather than samples
  const Division division_;
  std::deque<Share> shares_;
  Batches batches_;
  Schedule::Factors schedule_;
  Index side_ = 0;  // of the Hessian
  Buffer<S> gradient_, products_, hessian_, ones_;
  Buffer<S> factors_;     // of the learning rate, one for each parameter; empty if all are 1
  Buffer<S> non_finite_;  // of each thread: nan in the runs with a non-finite state
};

}  // namespace pylyap
