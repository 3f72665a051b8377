// The Hessian of a net with one hidden layer, in blocks (features.hpp has the formulas): `prepare`
// and `add` per block of samples, `finish` once per step.
#pragma once

#include <algorithm>

#include "features.hpp"

namespace pylyap::three_layer {

template <class S>
class Hessian : public Features<S> {
  using Base = Features<S>;
  using Base::apply_curvature;
  using Base::arch_;
  using Base::curvature_;
  using Base::d1_;
  using Base::e_;
  using Base::h1_;
  using Base::h_;
  using Base::input_pairs;
  using Base::inputs;
  using Base::keep_total;
  using Base::multiply_weighed;
  using Base::n_pairs_;
  using Base::pair;
  using Base::pair_stride_;
  using Base::pairs_;
  using Base::rank_;
  using Base::row;
  using Base::row_registers;
  using Base::stride_;
  using Base::sum_residuals;
  using Base::times;
  using Base::u_;

 public:
  // For products with up to k vectors, over blocks of at most `block` samples.
  Hessian(const Architecture& arch, Index block, Index k)
      : Base(arch, block, arch.classifies()),
        curved_outputs_(arch.classifies() ? rank_ : 1),
        g_(arch.classifies() ? rank_ * h_ * stride_ : 0),
        work_(std::max(d1_, h1_) * stride_),
        hidden_(h_ * (h_ + 1) / 2 * n_products()),
        mixed_(curved_outputs_ * h_ * h1_ * d1_),
        outer_(curved_outputs_ * (curved_outputs_ + 1) / 2 * h1_ * h1_),
        relative_(arch.classifies() ? std::min(k, kTogether) * n_relative() : 0) {}

  // Sets the sums, or adds to them those of this block.
  void add(const S* weights, const Network<S>& net, const Samples& samples, bool add) {
    const Index m = net.registers(samples);
    for (Index j = 0; j < h_ && arch_.classifies(); ++j)
      apply_curvature(u_.data() + j * stride_, h_ * stride_, g_.data() + j * stride_, h_ * stride_,
                      0, m);
    if (n_pairs_ > 0) {
      sum_hidden_by_pairs(weights, net, samples, add);
    } else {
      sum_hidden_wide(weights, net, samples, add);
    }
    sum_mixed(net, samples, add);
    sum_outer(net, samples, add);
  }

  // Parameters without the last output's of a softmax: those of a tangent vector relative to it
  // tell all of H, whose leading square belongs to them.
  Index n_relative() const { return arch_.offset(2) + rank_ * h1_; }

  // hessian (n, n) <- H, n the number of parameters or of relative ones; symmetric to the bit. Of
  // squared errors, entries between outputs are zero and stay as they are.
  void finish(const S* weights, S* hessian, Index n) const {
    const S* value = hidden_.data();
    over_unit_pairs([&](Index j, Index k) {
      const S factor = j == k ? splat<S>(1.0) : weight_of_pair(weights, j, k);
      set_hidden(hessian, n, j, k, factor, value);
      value += n_products();
    });
    const Index base = arch_.offset(2);
    const S *residual = e_.data(), *mixed = mixed_.data();
    for (Index c = 0; c < rank_; ++c) {
      if (!arch_.classifies()) mixed = mixed_.data();
      for (Index j = 0; j < h_; ++j, mixed += h1_ * d1_, residual += d1_) {
        const S factor = arch_.classifies() ? splat<S>(1.0) : weights[base + c * h1_ + j];
        set_mixed(hessian + j * d1_ * n + base + c * h1_, hessian + (base + c * h1_) * n + j * d1_,
                  n, j, factor, mixed, residual);
      }
    }
    value = outer_.data();
    for (Index c = 0; c < rank_; ++c) {
      for (Index e = c; e < (arch_.classifies() ? rank_ : c + 1); ++e) {
        set_outer(hessian, n, c, e, value);
        if (arch_.classifies()) value += h1_ * h1_;
      }
    }
    if (n > n_relative()) set_last_output(hessian);
  }

  // out (rows, n_params) <- H times vectors, whose rows are `stride` apart; hessian (n, n) of the
  // relative parameters.
  void multiply(const S* hessian, const S* vectors, Index stride, Index rows, S* out) {
    const Index n = n_relative(), base = arch_.offset(2), np = arch_.n_params;
    const Matrix<const S> matrix(hessian, n, n);
    if (!arch_.classifies())
      return multiply_nt(Matrix<const S>(vectors, rows, n, stride), matrix,
                         Matrix<S>(out, rows, n));
    for (Index first = 0; first < rows; first += kTogether) {
      const Index count = std::min(kTogether, rows - first);
      for (Index v = 0; v < count; ++v) {
        const S* from = vectors + (first + v) * stride;
        S* to = relative_.data() + v * n;
        std::copy_n(from, base, to);
        for (Index i = base; i < n; ++i) to[i] = from[i] - from[n + (i - base) % h1_];
      }
      multiply_nt(Matrix<const S>(relative_.data(), count, n), matrix,
                  Matrix<S>(out + first * np, count, n, np));
      for (Index v = first; v < first + count; ++v) {
        S *sums = out + v * np + base, *last = sums + rank_ * h1_;
        for (Index k = 0; k < h1_; ++k) {
          last[k] = S{};
          for (Index c = 0; c < rank_; ++c) last[k] -= sums[c * h1_ + k];
        }
      }
    }
  }

 private:
  // Vectors that the Hessian is multiplied with at once.
  static constexpr Index kTogether = kWidth<S> > 1 ? detail::kTileRows : 64;

  void times_input(const Samples& samples, Index a, const Lane* from, Lane* to) const {
    const double* x = samples.inputs + a * samples.stride;
    const Index m = Network<S>::registers(samples);
    for (Index i = 0; i < m; ++i) to[i] = from[i] * Network<S>::shared_row(x, i);
  }
  Array<S, const Lane> work(Index rows, const Samples& samples) const {
    return array(work_.data(), rows, samples.count, stride_);
  }

  // Calls f(j, k) for units with themselves, then for each with all that follow.
  template <class F>
  void over_unit_pairs(F&& f) const {
    for (Index j = 0; j < h_; ++j) f(j, j);
    for (Index j = 0; j < h_; ++j)
      for (Index k = j + 1; k < h_; ++k) f(j, k);
  }
  // Products of inputs per pair of units: x_a x_b with a <= b, or all.
  Index n_products() const { return n_pairs_ > 0 ? n_pairs_ : d1_ * d1_; }

  // The slope of unit j, alone or times its weight to output c, and the same curved.
  const Lane* u(const Network<S>& net, Index c, Index j) const {
    return arch_.classifies() ? row(u_, c * h_ + j) : net.slope(1, j);
  }
  const Lane* g(const Network<S>& net, Index c, Index j) const {
    return arch_.classifies() ? row(g_, c * h_ + j) : net.slope(1, j);
  }
  // What the sums of units j and k are to be multiplied with: sum_c v_cj v_ck where u has none.
  S weight_of_pair(const S* weights, Index j, Index k) const {
    if (arch_.classifies()) return splat<S>(1.0);
    const S* v = weights + arch_.offset(2);
    S sum{};
    for (Index c = 0; c < rank_; ++c) sum += v[c * h1_ + j] * v[c * h1_ + k];
    return sum;
  }

  // Row r of work <- sum_c u_cj g_ck, for j = k whole and with the unit's own curvature.
  void weigh(const S* weights, const Network<S>& net, Index j, Index k, Index r, Index m) {
    Lane* weight = row(work_, r);
    const Lane *u0 = u(net, 0, j), *g0 = g(net, 0, k);
    if (k == j) {
      const Lane* own = net.curvature(1, j);
      const Lane factor = shared<Lane>(weight_of_pair(weights, j, j));
      for (Index i = 0; i < m; ++i) weight[i] = own[i] + factor * u0[i] * g0[i];
    } else {
      times(u0, g0, weight, m);
    }
    for (Index c = 1; c < curved_outputs_; ++c) {
      const Lane *uc = u(net, c, j), *gc = g(net, c, k);
      for (Index i = 0; i < m; ++i) weight[i] += uc[i] * gc[i];
    }
  }

  // < sum_c u_cj g_ck x_a x_b >, and D_jab where j = k: first of units with themselves, then of
  // each with all that follow. Of several outputs the weights are formed first.
  void sum_hidden_by_pairs(const S* weights, const Network<S>& net, const Samples& samples,
                           bool add) {
    const Index m = net.registers(samples);
    S* sums = hidden_.data();
    auto multiply_work = [&](Index rows) {
      multiply_nt(work(rows, samples), input_pairs(samples), Matrix<S>(sums, rows, n_pairs_), add);
    };
    for (Index j = 0; j < h_; ++j) weigh(weights, net, j, j, j, m);
    multiply_work(h_);
    sums += h_ * n_pairs_;
    for (Index j = 0; j < h_ - 1; ++j) {
      const Index rest = h_ - 1 - j;
      if (curved_outputs_ == 1) {
        multiply_weighed(u(net, 0, j), g(net, 0, j + 1), pairs_.data(), pair_stride_, m,
                         Matrix<S>(sums, rest, n_pairs_), add);
      } else {
        for (Index r = 0; r < rest; ++r) weigh(weights, net, j, j + 1 + r, r, m);
        multiply_work(rest);
      }
      sums += rest * n_pairs_;
    }
  }

  void sum_hidden_wide(const S* weights, const Network<S>& net, const Samples& samples, bool add) {
    const Index m = net.registers(samples);
    S* sums = hidden_.data();
    over_unit_pairs([&](Index j, Index k) {
      weigh(weights, net, j, k, 0, m);
      for (Index a = 1; a < d1_; ++a) times_input(samples, a, row(work_, 0), row(work_, a));
      times_input(samples, 0, row(work_, 0), row(work_, 0));
      multiply_nt(work(d1_, samples), inputs(d1_, samples), Matrix<S>(sums, d1_, d1_), add);
      sums += n_products();
    });
  }

  // The entries of units j <= k.
  void set_hidden(S* hessian, Index n, Index j, Index k, const S& factor, const S* value) const {
    S *above = hessian + j * d1_ * n + k * d1_, *below = hessian + k * d1_ * n + j * d1_;
    for (Index a = 0; a < d1_; ++a) {
      for (Index b = a; b < d1_; ++b) {
        const S v = factor * (n_pairs_ > 0 ? *value++ : value[a * d1_ + b]);
        above[a * n + b] = above[b * n + a] = v;
        below[a * n + b] = below[b * n + a] = v;
      }
    }
  }

  // < g_cj h_k x_a > and E_cja
  void sum_mixed(const Network<S>& net, const Samples& samples, bool add) {
    const Index m = net.registers(samples);
    detail::in_pieces<kInputsAtOnce>(d1_, [&]<Index A>(Index a) {
      detail::in_pieces<units_at_once(A)>(h1_, [&]<Index K>(Index k) {
        detail::in_pieces<most_rows(A * K)>(curved_outputs_ * h_, [&]<Index R>(Index r) {
          feature_tile<A, K, R>(net, samples, a, r, k, m, add);
        });
      });
    });
    sum_residuals(net, samples, add);
  }
  // The entries of unit j's inputs with all units of an output.
  void set_mixed(S* above, S* below, Index n, Index j, const S& factor, const S* value,
                 const S* residual) const {
    for (Index k = 0; k < h1_; ++k) {
      for (Index a = 0; a < d1_; ++a, ++value) {
        const S v = k == j ? factor * *value + residual[a] : factor * *value;
        above[a * n + k] = v;
        below[k * n + a] = v;
      }
    }
  }

  static constexpr Index kInputsAtOnce = kRegisters >= 32 ? 5 : 3;
  static constexpr Index units_at_once(Index inputs) {
    return 2 * inputs <= kInputsAtOnce + 1 ? 2 : 1;
  }
  static constexpr Index most_rows(Index features) {
    return std::min(Index{8}, (kRegisters - 1 - features) / features);
  }

  // < g_cj h_k x_a > for R of the rows g, A inputs from a and K units from k.
  template <Index A, Index K, Index R>
  [[gnu::noinline, gnu::flatten]] void feature_tile(const Network<S>& net, const Samples& samples,
                                                    Index a, Index r, Index k, Index m, bool add) {
    Lane sum[R][K][A] = {};
    const Lane* h[K];
    unrolled<K>([&](auto b) { h[b] = net.value(1, k + b); });
    const Lane* from = g(net, r / h_, r % h_);
    const double* x = samples.inputs + a * samples.stride;
    const Index next = row_registers();
    for (Index i = 0; i < m; ++i) {
      Lane feature[K][A];
      unrolled<A>([&](auto e) {
        const Lane xe = pinned(Network<S>::shared_row(x + e * samples.stride, i));
        unrolled<K>([&](auto b) { feature[b][e] = xe * h[b][i]; });
      });
      unrolled<R>([&](auto p) {
        const Lane gp = pinned(from[p * next + i]);
        unrolled<K>(
            [&](auto b) { unrolled<A>([&](auto e) { sum[p][b][e] += gp * feature[b][e]; }); });
      });
    }
    S* to = mixed_.data() + (r * h1_ + k) * d1_ + a;
    for (Index p = 0; p < R; ++p, to += h1_ * d1_)
      for (Index b = 0; b < K; ++b)
        for (Index e = 0; e < A; ++e) keep_total(sum[p][b][e], to[b * d1_ + e], add);
  }

  // < L_cd h_k h_l >
  void sum_outer(const Network<S>& net, const Samples& samples, bool add) {
    const Index m = net.registers(samples);
    const auto values = array(net.values(1), h1_, samples.count, stride_);
    S* sums = outer_.data();
    if (!arch_.classifies()) return multiply_symmetric(values, values, sums, add);
    for (Index c = 0; c < rank_; ++c) {
      for (Index e = c; e < rank_; ++e, sums += h1_ * h1_) {
        for (Index k = 0; k < h1_; ++k)
          times(row(curvature_, pair(c, e)), net.value(1, k), row(work_, k), m);
        multiply_symmetric(work(h1_, samples), values, sums, add);
      }
    }
  }
  // out(k, l) (+)= < a_k b_l > where that is symmetric: at least for k <= l.
  template <class A, class B>
  void multiply_symmetric(const A& a, const B& b, S* out, bool add) const {
    detail::in_pieces<detail::kTileRows>(h1_, [&]<Index R>(Index k) {
      multiply_nt(A(a.data + k * a.stride, R, a.cols, a.stride),
                  B(b.data + k * b.stride, h1_ - k, b.cols, b.stride),
                  Matrix<S>(out + k * h1_ + k, R, h1_ - k, h1_), add);
    });
  }

  // The block of outputs c <= e from the products of their units, of which the upper half is read.
  void set_outer(S* hessian, Index n, Index c, Index e, const S* product) const {
    const Index base = arch_.offset(2);
    for (Index k = 0; k < h1_; ++k) {
      for (Index l = 0; l < h1_; ++l) {
        const S& value = product[std::min(k, l) * h1_ + std::max(k, l)];
        const Index p = base + c * h1_ + k, q = base + e * h1_ + l;
        hessian[p * n + q] = value;
        hessian[q * n + p] = value;
      }
    }
  }

  // The last output from the others: L_cC = -sum_e L_ce, and L_CC = -sum_c L_cC.
  void set_last_output(S* hessian) const {
    const Index n = arch_.n_params, base = arch_.offset(2), last = base + rank_ * h1_;
    for (Index k = 0; k < h1_; ++k) {
      for (Index p = 0; p < base; ++p) {
        S sum{};
        for (Index c = 0; c < rank_; ++c) sum -= hessian[(base + c * h1_ + k) * n + p];
        hessian[(last + k) * n + p] = sum;
        hessian[p * n + last + k] = sum;
      }
    }
    for (Index k = 0; k < h1_; ++k) {
      for (Index l = 0; l < h1_; ++l) {
        S corner{};
        for (Index c = 0; c < rank_; ++c) {
          S edge{};
          for (Index e = 0; e < rank_; ++e)
            edge -= hessian[(base + c * h1_ + k) * n + base + e * h1_ + l];
          hessian[(base + c * h1_ + k) * n + last + l] = edge;
          hessian[(last + l) * n + base + c * h1_ + k] = edge;
          corner -= edge;
        }
        if (l >= k) hessian[(last + k) * n + last + l] = corner;
        if (l >= k) hessian[(last + l) * n + last + k] = corner;
      }
    }
  }

  const Index curved_outputs_;  // whose sums the Hessian needs
  Buffer<S> g_, work_, hidden_, mixed_, outer_, relative_;
};

}  // namespace pylyap::three_layer
