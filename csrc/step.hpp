// One optimiser step as a map of the state, and its tangent.
//
// State: weights w, then the optimiser's buffers ([w, v] for momentum, [w, m, v] for Adam), each in
// the network's internal order. With g the gradient of the mean loss plus decay * w:
//   heavy ball  v' = b v - lr g,  w' = w + v'          Nesterov  w' = w + b v' - lr g
//   Adam        m' = b1 m + (1 - b1) g,  v' = b2 v + (1 - b2) g^2,
//               w' = w - lr m^ / (sqrt(v^) + eps),  m^ = m' / (1 - b1^(t+1)),  v^ likewise
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

// Whether only the entries of the data that are not zero are multiplied: of inputs that are ever
// other than zero they are `entries` of `all`.
inline bool mostly_zero(const Architecture& arch, Index entries, Index all) {
  constexpr double kSparse = 0.35;
  return !fits_lanes(arch) && arch.depth() > 1 && arch.width(1) >= 16 && arch.width(0) < kMostAt &&
         static_cast<double>(entries) < kSparse * static_cast<double>(all);
}

// Samples per block: equal blocks of at most 256, so that a layer stays in cache.
inline Index block_size(Index n_samples) {
  constexpr Index kMost = 256;
  const Index blocks = (n_samples + kMost - 1) / kMost;
  return std::min(n_samples, padded((n_samples + blocks - 1) / blocks));
}

// Cost of one step with k tangent vectors, in multiplications at the rate of a large matrix
// product: counts of what the kernels do, times what they fall short of that rate. The factors are
// from five nets in AVX-512 on a Xeon of family 6, model 207 (November 2026). By them the count
// changes to the Hessian after 17 vectors for 4-10-3 and 120 samples with softmax, 8 with squared
// errors, 10 for 2-10-1 and 100 samples; measured, the two meet at 19, 9 and 10.
inline double step_cost(const Architecture& arch, Index n_samples, Index k, Method method) {
  constexpr double kHessian = 1.6, kVectors = 1.4;
  const auto N = static_cast<double>(n_samples), vectors = static_cast<double>(k);
  double n = static_cast<double>(arch.n_params);
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
  if (ThreeLayer<double>::fits(arch)) {
    const double curved = arch.classifies() ? rank : 1.0;  // outputs whose sums differ
    hessian = 0.5 * h * (h + 1.0) * (pairs + curved) + curved * h * (h + 2.0) * d1 +
              0.5 * curved * (curved + 1.0) * (h + 1.0) * (h + 1.0);
    n = h * d1 + rank * (h + 1.0);
  }
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
  using Block = BasicSamples<Number<S>>;
  static constexpr bool kTangents = !std::is_same_v<S, float>;  // in double alone

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
        block_(block_size(problem.batches.batch_size)),
        whole_block_(block_size(problem.data.n_samples())),
        network_(problem.arch, most_at_once(), team.size(), dense_ ? 1 : std::min(k, team.size()),
                 dense_ && !fits_three_layers(problem.arch)),
        batches_(problem.batches),
        schedule_(problem.schedule.get()),
        buffer_(problem.data.buffer<S>(most_at_once())),
        state_(n_),
        gradient_(np_),
        frame_(k * n_),
        curved_(k * np_),
        ones_(k),
        mark_(team.size()) {
    std::fill_n(ones_.data(), k, splat<S>(1.0));
    if constexpr (kTangents) {
      if (dense_ ? ThreeLayer<S>::fits(problem.arch)
                 : k > 0 && ThreeLayer<S>::fits_vectors(problem.arch))
        three_layer_.emplace(problem.arch, most_at_once(), k, dense_);
      if (dense_) {
        side_ = k > 0 && three_layer_ ? three_layer_->n_relative() : np_;
        hessian_ = Buffer<S>(side_ * side_);
      }
    }
  }

  S* state() { return state_.data(); }
  S* frame() { return frame_.data(); }
  const S* gradient() const { return gradient_.data(); }
  const S* hessian() const { return hessian_.data(); }
  Index n() const { return n_; }
  Index k() const { return k_; }
  Layout layout() const { return layout_of(problem_.arch, 1 + problem_.optimizer.buffers()); }
  Rates<S>& rates() { return rates_; }
  bool raised(Index) const { return false; }  // no function of a user's can

  // What each vector of the last push was summed from: a step's rounding is that of the unit
  // vectors it started from, since I - lr H cancels down to it.
  const S* source() const { return ones_.data(); }

  // frame <- J(x_t) frame, then x <- x_{t+1}, nan in all of a state that is not finite. `loss` (or
  // null) gets the mean loss of the whole data at x_t.
  void advance(Index t, Sum<S>* loss) {
    const bool full = problem_.batches.full();
    if (loss && !full) *loss = full_loss();
    std::span<const Index> chosen;
    if (!full) chosen = batches_(t);
    const Index count = full ? problem_.data.n_samples() : static_cast<Index>(chosen.size());
    const S scale = splat<S>(1.0 / static_cast<double>(count));
    S lr = rates_.lr;
    if (!schedule_->empty()) lr *= splat<S>(schedule_->at(static_cast<std::size_t>(t)));
    std::fill_n(mark_.data(), mark_.size(), S{});
    // Weights of a wide net move as soon as their gradient is there. It is still in the cache, and
    // need not be kept if there are no more samples to come: threads write over the last part.
    const bool at_once = kWidth<S> == 1 && k_ == 0, whole = count <= (full ? whole_block_ : block_);
    const Index room = np_ / team_.size();
    auto place = [&](const Region& r, Index member) {
      if (at_once && whole && r.rows * r.columns <= room)
        return Matrix<S>(gradient_.data() + member * room, r.rows, r.columns);
      return Matrix<S>(gradient_.data() + r.first, r.rows, r.columns, r.stride);
    };
    auto step = [&](const Region& region, Index member, const Matrix<const S>& gradient) {
      mark_[member] += step_weights(t, scale, lr, region, gradient);
    };
    evaluate(full ? nullptr : &chosen, count, k_ > 0, full ? loss : nullptr, place,
             [&](const Region& region, Index member, const Matrix<S>& gradient) {
               if (at_once) step(region, member, gradient);
             });
    if (loss && full) *loss *= 1.0 / static_cast<double>(count);
    if constexpr (kTangents) {
      if (k_ > 0 && dense_) {
        // As many vectors of small nets as the first cache has room for.
        const Index most = kWidth<S> > 1 ? detail::kTileRows : k_;
        for (Index c = 0; c < k_; c += most) {
          const Index end = std::min(c + most, k_);
          multiply_dense(c, end, curved_.data());
          step_frame(t, scale, lr, c, end, curved_.data(), 0, np_);
        }
      } else if (k_ > 0) {
        in_shares([&](Index begin, Index end, Index) {
          step_frame(t, scale, lr, 0, k_, curved_.data(), begin, end);
        });
      }
    }
    if (!at_once)
      in_shares([&](Index begin, Index end, Index member) {
        const Region region{begin, 1, end - begin, end - begin};
        step(region, member, Matrix<const S>(gradient_.data() + begin, 1, end - begin));
      });
    S mark{};
    for (Index i = 0; i < mark_.size(); ++i) mark += mark_[i];
    if (any(mark != mark))
      for (Index i = 0; i < n_; ++i) state_[i] += mark;
  }

  // Mean loss of the whole data at the present state; leaves the state alone.
  Sum<S> full_loss() {
    const Index count = problem_.data.n_samples();
    Sum<S> loss{};
    for (Index s = 0; s < count; s += whole_block_) {
      const Index size = std::min(whole_block_, count - s);
      loss +=
          network_.loss(team_, state_.data(), problem_.data.block(s, size, false, buffer_, team_));
    }
    return loss * (1.0 / static_cast<double>(count));
  }

  // frame <- H frame, H of the mean loss of the whole data, without decay. Of states that are
  // weights alone.
  void multiply_hessian() {
    const Index count = problem_.data.n_samples();
    evaluate_all(true, nullptr);
    if (dense_) multiply_dense(0, k_, curved_.data());
    const double scale = 1.0 / static_cast<double>(count);
    for (Index i = 0; i < k_ * np_; ++i) frame_[i] = curved_[i] * scale;
  }

  // Mean loss, gradient and (if dense) Hessian of the whole data, without decay.
  Sum<S> evaluate_all() {
    Sum<S> loss{};
    evaluate_all(dense_, &loss);
    const double mean = 1.0 / static_cast<double>(problem_.data.n_samples());
    const S scale = splat<S>(mean);
    for (Index i = 0; i < np_; ++i) gradient_[i] *= scale;
    for (Index i = 0; i < hessian_.size(); ++i) hessian_[i] *= scale;
    return loss * mean;
  }

 private:
  static bool fits_three_layers(const Architecture& arch) {
    if constexpr (kTangents) {
      return ThreeLayer<S>::fits(arch);
    } else {
      return false;
    }
  }

  Index most_at_once() const { return std::max(block_, whole_block_); }

  // Calls f(begin, end, member) for the weights, in shares where they are worth another thread.
  template <class F>
  void in_shares(F&& f) {
    constexpr Index kShared = Index{1} << 15;
    if (np_ < kShared) return f(Index{0}, np_, Index{0});
    team_.share(np_, 1024, f);
  }
  void evaluate_all(bool tangents, Sum<S>* loss) {
    evaluate(
        nullptr, problem_.data.n_samples(), tangents, loss,
        [&](const Region& r, Index) {
          return Matrix<S>(gradient_.data() + r.first, r.rows, r.columns, r.stride);
        },
        [](const Region&, Index, const Matrix<S>&) {});
  }
  // Sums over the chosen samples, or (null) all of them; place and done as for a network, done when
  // the gradient is whole.
  template <class P, class D>
  void evaluate(const std::span<const Index>* chosen, Index count, bool tangents, Sum<S>* loss,
                P&& place, D&& done) {
    if (!fits_three_layers(problem_.arch)) std::fill_n(hessian_.data(), hessian_.size(), S{});
    if (loss) *loss = Sum<S>{};
    if constexpr (kTangents) {
      if (tangents && !dense_ && three_layer_) {
        three_layer_->load(frame_.data(), n_, k_);
      } else if (tangents && !dense_) {
        in_shares([&](Index begin, Index end, Index) {
          for (Index c = 0; c < k_; ++c)
            std::fill_n(curved_.data() + c * np_ + begin, end - begin, S{});
        });
      }
    }
    const Index most = chosen ? block_ : whole_block_;
    for (Index s = 0; s < count; s += most) {
      const Index size = std::min(most, count - s);
      const Block block =
          chosen ? problem_.data.gather(
                       chosen->subspan(static_cast<std::size_t>(s), static_cast<std::size_t>(size)),
                       buffer_, team_)
                 : problem_.data.block(s, size, true, buffer_, team_);
      network_.evaluate(team_, state_.data(), block, s > 0, loss, place,
                        [&](const Region& region, Index member, const Matrix<S>& gradient) {
                          if (s + most >= count) done(region, member, gradient);
                        });
      if constexpr (kTangents) {
        if (tangents) add_tangents(block, s > 0);
      }
    }
    if constexpr (kTangents) {
      if (tangents && three_layer_) {
        if (dense_) {
          three_layer_->finish_hessian(state_.data(), hessian_.data(), side_);
        } else {
          three_layer_->finish(curved_.data());
        }
      }
    }
  }

  // out <- H times vectors begin ... end - 1.
  void multiply_dense(Index begin, Index end, S* out) {
    const S* vectors = frame_.data() + begin * n_;
    if (three_layer_)
      return three_layer_->multiply_hessian(hessian_.data(), vectors, n_, end - begin, out);
    multiply_nt(Matrix<const S>(vectors, end - begin, np_, n_),
                Matrix<const S>(hessian_.data(), np_, np_), Matrix<S>(out, end - begin, np_));
  }

  void add_tangents(const Block& block, bool add) {
    if (three_layer_) {
      three_layer_->prepare(state_.data(), network_, block);
      if (dense_) {
        three_layer_->add_hessian(state_.data(), network_, block, add);
      } else {
        three_layer_->add(network_, block, team_);
      }
    } else if (dense_) {
      network_.add_hessian(state_.data(), block, hessian_.data());
    } else {
      // Whole vectors for each thread, and those that are left for all of them together.
      auto product = [&](Team& team, Index c, Index member) {
        network_.add_hessian_vector(team, state_.data(), block, frame_.data() + c * n_,
                                    curved_.data() + c * np_, member);
      };
      const Index each = k_ / team_.size() * team_.size();
      team_.share(each, 1, [&](Index begin, Index end, Index member) {
        for (Index c = begin; c < end; ++c) product(alone_, c, member);
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

  // The step of a region's weights and their buffers; nan in the runs that left the finite numbers.
  [[gnu::noinline]] S step_weights(Index t, const S& scale, const S& lr, const Region& region,
                                   const Matrix<const S>& gradient) {
    S mark{};
    for (Index r = 0; r < region.rows; ++r)
      mark += step_row(t, scale, lr, region.first + r * region.stride, region.columns,
                       gradient.data + r * gradient.stride);
    return mark;
  }
  S step_row(Index t, const S& scale, const S& lr, Index first, Index count, const S* gradient) {
    const Optimizer& o = problem_.optimizer;
    S *w = state_.data() + first, *v = w + np_, *u = v + np_;
    if (o.adam) {
      const AdamStep a = adam_step(t);
      const S b1 = splat<S>(o.beta1), b2 = splat<S>(o.beta2), epsilon = splat<S>(o.epsilon);
      const S c1 = splat<S>(a.one_minus_b1), c2 = splat<S>(a.one_minus_b2);
      const S first = splat<S>(a.first), second = splat<S>(a.second);
      for (Index i = 0; i < count; ++i) {
        const S g = scale * gradient[i] + rates_.decay * w[i];
        v[i] = b1 * v[i] + c1 * g;
        u[i] = b2 * u[i] + c2 * (g * g);
        w[i] -= lr * (v[i] * first) / (sqrt(u[i] * second) + epsilon);
      }
    } else {
      const S rate = lr * scale, shrink = lr * rates_.decay;
      for (Index i = 0; i < count; ++i) {
        const S pull = rate * gradient[i] + shrink * w[i];
        if (!o.momentum) {
          w[i] -= pull;
        } else {
          v[i] = rates_.momentum * v[i] - pull;
          w[i] += o.nesterov ? rates_.momentum * v[i] - pull : v[i];
        }
      }
    }
    S mark{};
    for (Index b = 0; b < n_; b += np_) mark += not_finite(w + b, count);
    return mark;
  }

  // The step of entries begin ... end - 1 of some vectors, whose products with H are `curved`.
  [[gnu::noinline]] void step_frame(Index t, const S& scale, const S& lr, Index first, Index last,
                                    const S* curved, Index begin, Index end) {
    const Optimizer& o = problem_.optimizer;
    const S rate = lr * scale, shrink = lr * rates_.decay;
    const AdamStep a = o.adam ? adam_step(t) : AdamStep{};
    const S *w = state_.data(), *m = w + np_, *u = m + np_;
    for (Index c = first; c < last; ++c) {
      S *dw = frame_.data() + c * n_, *dm = dw + np_, *du = dm + np_;
      const S* hv = curved + (c - first) * np_;
      if (o.adam) {
        const S still = lr * (a.first / o.epsilon);  // dw by dm where v' = 0
        for (Index i = begin; i < end; ++i) {
          const S g = scale * gradient_[i] + rates_.decay * w[i];
          const S dg = scale * hv[i] + rates_.decay * dw[i];
          const S mean = (o.beta1 * m[i] + a.one_minus_b1 * g) * a.first;
          const S root = sqrt((o.beta2 * u[i] + a.one_minus_b2 * (g * g)) * a.second);
          dm[i] = o.beta1 * dm[i] + a.one_minus_b1 * dg;
          du[i] = o.beta2 * du[i] + (2.0 * a.one_minus_b2) * (g * dg);
          const S below = root + o.epsilon;
          const S droot = 0.5 * a.second * du[i] / root;
          const S change = (dm[i] * a.first - mean / below * droot) / below;
          dw[i] -= root == 0.0 ? still * dm[i] : lr * change;
        }
      } else {
        for (Index i = begin; i < end; ++i) {
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
  Team alone_{1};
  const Index np_, n_, k_;
  const bool dense_;
  const Index block_, whole_block_;  // samples at once in a step, and of the whole data
  Network<S> network_;
  std::conditional_t<kTangents, std::optional<ThreeLayer<S>>, std::monostate> three_layer_;
  Batches batches_;
  Schedule::Factors schedule_;
  BlockBuffer<S> buffer_;
  Index side_ = 0;  // of the Hessian
  Buffer<S> state_, gradient_, frame_, curved_, hessian_, ones_, mark_;
  Rates<S> rates_{};
};

}  // namespace pylyap
