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
  using Base::input_pairs;
  using Base::inputs;
  using Base::multiply_in_order;
  using Base::multiply_weighted;
  using Base::n_hidden_;
  using Base::n_inputs_;
  using Base::n_pairs_;
  using Base::n_values_;
  using Base::pair;
  using Base::pair_stride_;
  using Base::pairs_;
  using Base::rank_;
  using Base::residual_sums_;
  using Base::row;
  using Base::row_registers;
  using Base::store_sum;
  using Base::stride_;
  using Base::sum_residuals;
  using Base::transposed;
  using Base::transposed_pairs;
  using Base::weighted_slopes_;

 public:
  // For products with up to k vectors, over blocks of at most `block` samples.
  Hessian(const Architecture& arch, Index block, Index k)
      : Base(arch, block, arch.classifies()),
        curved_outputs_(arch.classifies() ? rank_ : 1),
        curved_slopes_(arch.classifies() ? rank_ * n_hidden_ * stride_ : 0),
        work_(std::max(n_inputs_, n_values_) * stride_),
        hidden_(n_hidden_ * (n_hidden_ + 1) / 2 * n_products()),
        mixed_(curved_outputs_ * n_hidden_ * n_values_ * n_inputs_),
        outer_(curved_outputs_ * (curved_outputs_ + 1) / 2 * n_values_ * n_values_),
        relative_(arch.classifies() ? std::min(k, kTogether) * n_relative() : 0),
        in_order_(std::is_same_v<S, double> && fits_lanes(arch)),
        feature_stride_(32 + padded(n_inputs_)),
        features_(in_order_ ? padded(block) * feature_stride_ : 0) {}

  // Sets the sums, or adds to them those of this block.
  void add(const S* weights, const Network<S>& net, const Samples& samples, bool add) {
    const Index m = registers<S>(samples.count);
    for (Index j = 0; j < n_hidden_ && arch_.classifies(); ++j)
      apply_curvature(weighted_slopes_.data() + j * stride_, n_hidden_ * stride_,
                      curved_slopes_.data() + j * stride_, n_hidden_ * stride_, 0, m);
    if (n_pairs_ > 0) {
      sum_hidden_by_pairs(weights, net, samples, add);
    } else {
      sum_hidden_wide(weights, net, samples, add);
    }
    sum_mixed(net, samples, add);
    sum_outer(net, samples, add);
  }

  // Parameters without those of the last output of a softmax. The block of H that belongs to them
  // determines all of H.
  Index n_relative() const { return arch_.offset(2) + rank_ * n_values_; }

  // hessian (n, n) <- H, n the number of parameters or of relative ones; symmetric to the bit. For
  // squared errors, entries between outputs are zero and are not written.
  void finish(const S* weights, S* hessian, Index n) const {
    const S* value = hidden_.data();
    over_unit_pairs([&](Index j, Index k) {
      const S factor = j == k ? broadcast<S>(1.0) : weight_of_pair(weights, j, k);
      set_hidden(hessian, n, j, k, factor, value);
      value += n_products();
    });
    const Index base = arch_.offset(2);
    const S *residual = residual_sums_.data(), *mixed = mixed_.data();
    for (Index c = 0; c < rank_; ++c) {
      if (!arch_.classifies()) mixed = mixed_.data();
      for (Index j = 0; j < n_hidden_; ++j, mixed += n_values_ * n_inputs_, residual += n_inputs_) {
        const S factor = arch_.classifies() ? broadcast<S>(1.0) : weights[base + c * n_values_ + j];
        set_mixed(hessian + j * n_inputs_ * n + base + c * n_values_,
                  hessian + (base + c * n_values_) * n + j * n_inputs_, n, j, factor, mixed,
                  residual);
      }
    }
    value = outer_.data();
    for (Index c = 0; c < rank_; ++c) {
      for (Index e = c; e < (arch_.classifies() ? rank_ : c + 1); ++e) {
        set_outer(hessian, n, c, e, value);
        if (arch_.classifies()) value += n_values_ * n_values_;
      }
    }
    if (n > n_relative()) set_last_output(hessian);
  }

  // out (rows, n_params) <- H times vectors, whose rows are `stride` apart; hessian (n, n) is that
  // of the relative parameters.
  void multiply(const S* hessian, const S* vectors, Index stride, Index rows, S* out) {
    const Index n = n_relative(), base = arch_.offset(2), np = arch_.n_params;
    auto product = [&](Matrix<const S> a, Matrix<S> to) {
      multiply_symmetric_matrix(a, Matrix<const S>(hessian, n, n), to, in_order_);
    };
    if (!arch_.classifies())
      return product(Matrix<const S>(vectors, rows, n, stride), Matrix<S>(out, rows, n));
    for (Index first = 0; first < rows; first += kTogether) {
      const Index count = std::min(kTogether, rows - first);
      for (Index v = 0; v < count; ++v) {
        const S* from = vectors + (first + v) * stride;
        S* to = relative_.data() + v * n;
        std::copy_n(from, base, to);
        for (Index i = base; i < n; ++i) to[i] = from[i] - from[n + (i - base) % n_values_];
      }
      product(Matrix<const S>(relative_.data(), count, n),
              Matrix<S>(out + first * np, count, n, np));
      for (Index v = first; v < first + count; ++v) {
        S *sums = out + v * np + base, *last = sums + rank_ * n_values_;
        for (Index k = 0; k < n_values_; ++k) {
          last[k] = S{};
          for (Index c = 0; c < rank_; ++c) last[k] -= sums[c * n_values_ + k];
        }
      }
    }
  }

 private:
  // Vectors per product with the Hessian.
  static constexpr Index kTogether = kRuns<S> > 1 ? detail::kTileRows : 64;

  void times_input(const Samples& samples, Index a, const Lane* from, Lane* to) const {
    const double* x = samples.inputs + a * samples.stride;
    const Index m = registers<S>(samples.count);
    for (Index i = 0; i < m; ++i) to[i] = from[i] * shared_register<S>(x, i);
  }
  Array<S, const Lane> work(Index rows, const Samples& samples) const {
    return array(work_.data(), rows, samples.count, stride_);
  }

  // Calls f(j, k) for j = k, then for each unit with all that follow.
  template <class F>
  void over_unit_pairs(F&& f) const {
    for (Index j = 0; j < n_hidden_; ++j) f(j, j);
    for (Index j = 0; j < n_hidden_; ++j)
      for (Index k = j + 1; k < n_hidden_; ++k) f(j, k);
  }
  // Products of inputs per pair of units: x_a x_b with a <= b, or all.
  Index n_products() const { return n_pairs_ > 0 ? n_pairs_ : n_inputs_ * n_inputs_; }

  // u and g, or the slope of unit j in their place.
  const Lane* weighted_slope(const Network<S>& net, Index c, Index j) const {
    return arch_.classifies() ? row(weighted_slopes_, c * n_hidden_ + j) : net.slope(1, j);
  }
  const Lane* curved_slope(const Network<S>& net, Index c, Index j) const {
    return arch_.classifies() ? row(curved_slopes_, c * n_hidden_ + j) : net.slope(1, j);
  }
  // The factor of the sums of units j and k: sum_c v_cj v_ck where u does not contain v.
  S weight_of_pair(const S* weights, Index j, Index k) const {
    if (arch_.classifies()) return broadcast<S>(1.0);
    const S* v = weights + arch_.offset(2);
    S sum{};
    for (Index c = 0; c < rank_; ++c)
      sum = fused<S>(v[c * n_values_ + j], v[c * n_values_ + k], sum);
    return sum;
  }

  // Row r of work <- sum_c u_cj g_ck; for j = k with the factor, plus the curvature of the unit.
  void form_weights(const S* weights, const Network<S>& net, Index j, Index k, Index r, Index m) {
    Lane* weight = row(work_, r);
    const Lane *u0 = weighted_slope(net, 0, j), *g0 = curved_slope(net, 0, k);
    if (k == j) {
      const Lane* own = net.curvature(1, j);
      const Lane factor = broadcast_shared<Lane>(weight_of_pair(weights, j, j));
      for (Index i = 0; i < m; ++i) weight[i] = own[i] + factor * u0[i] * g0[i];
    } else {
      multiply_elements(u0, g0, weight, m);
    }
    for (Index c = 1; c < curved_outputs_; ++c) {
      const Lane *uc = weighted_slope(net, c, j), *gc = curved_slope(net, c, k);
      for (Index i = 0; i < m; ++i) weight[i] += uc[i] * gc[i];
    }
  }

  // < sum_c u_cj g_ck x_a x_b >, plus D_jab where j = k: first for j = k, then for each unit with
  // all that follow. For several outputs the weights are formed first.
  void sum_hidden_by_pairs(const S* weights, const Network<S>& net, const Samples& samples,
                           bool add) {
    const Index m = registers<S>(samples.count);
    S* sums = hidden_.data();
    auto multiply_work = [&](Index rows) {
      const Matrix<S> out(sums, rows, n_pairs_);
      if (in_order_) return multiply_in_order(work(rows, samples), transposed_pairs(), out, add);
      multiply_nt(work(rows, samples), input_pairs(samples), out, add);
    };
    for (Index j = 0; j < n_hidden_; ++j) form_weights(weights, net, j, j, j, m);
    multiply_work(n_hidden_);
    sums += n_hidden_ * n_pairs_;
    for (Index j = 0; j < n_hidden_ - 1; ++j) {
      const Index rest = n_hidden_ - 1 - j;
      if (curved_outputs_ == 1 && !in_order_) {
        multiply_weighted(weighted_slope(net, 0, j), curved_slope(net, 0, j + 1), pairs_.data(),
                          pair_stride_, m, Matrix<S>(sums, rest, n_pairs_), add);
      } else {
        for (Index r = 0; r < rest; ++r) form_weights(weights, net, j, j + 1 + r, r, m);
        multiply_work(rest);
      }
      sums += rest * n_pairs_;
    }
  }

  void sum_hidden_wide(const S* weights, const Network<S>& net, const Samples& samples, bool add) {
    const Index m = registers<S>(samples.count);
    S* sums = hidden_.data();
    over_unit_pairs([&](Index j, Index k) {
      form_weights(weights, net, j, k, 0, m);
      for (Index a = 1; a < n_inputs_; ++a) times_input(samples, a, row(work_, 0), row(work_, a));
      times_input(samples, 0, row(work_, 0), row(work_, 0));
      const Matrix<S> out(sums, n_inputs_, n_inputs_);
      if (in_order_) {
        multiply_in_order(work(n_inputs_, samples), transposed(net, 1), out, add);
      } else {
        multiply_nt(work(n_inputs_, samples), inputs(n_inputs_, samples), out, add);
      }
      sums += n_products();
    });
  }

  // The entries of units j <= k.
  void set_hidden(S* hessian, Index n, Index j, Index k, const S& factor, const S* value) const {
    S *above = hessian + j * n_inputs_ * n + k * n_inputs_,
      *below = hessian + k * n_inputs_ * n + j * n_inputs_;
    for (Index a = 0; a < n_inputs_; ++a) {
      for (Index b = a; b < n_inputs_; ++b) {
        const S v = factor * (n_pairs_ > 0 ? *value++ : value[a * n_inputs_ + b]);
        above[a * n + b] = above[b * n + a] = v;
        below[a * n + b] = below[b * n + a] = v;
      }
    }
  }

  // < g_cj h_k x_a > and E_cja
  void sum_mixed(const Network<S>& net, const Samples& samples, bool add) {
    const Index m = registers<S>(samples.count);
    if (in_order_) {
      sum_mixed_in_order(net, samples, add);
      return sum_residuals(net, samples, add, false);
    }
    detail::in_pieces<kMaxInputs, 2>(n_inputs_, [&]<Index A>(Index a) {
      detail::in_pieces<max_values(A)>(n_values_, [&]<Index K>(Index k) {
        detail::in_pieces<max_rows(A * K)>(curved_outputs_ * n_hidden_, [&]<Index R>(Index r) {
          feature_tile<A, K, R>(net, samples, a, r, k, m, add);
        });
      });
    });
    sum_residuals(net, samples, add, false);
  }
  // The features of some values at a time are formed in transposed order, from transposed inputs:
  // each store of a register is cut off by the next one.
  void sum_mixed_in_order(const Network<S>& net, const Samples& samples, bool add) {
    if constexpr (kRuns<S> == 1) {
      constexpr Index W = kPerRegister<double>;
      const auto x = transposed(net, 1);
      const Index rows = curved_outputs_ * n_hidden_, together = std::max(32 / n_inputs_, Index{1});
      for (Index k = 0; k < n_values_; k += together) {
        const Index values = std::min(together, n_values_ - k);
        for (Index s = 0; s < samples.count; ++s)
          for (Index v = 0; v < values; ++v)
            for (Index a = 0; a < n_inputs_; a += W) {
              const auto* h = reinterpret_cast<const double*>(net.value(1, k + v));
              store(load<Lane>(x.data + s * x.stride + a) * h[s],
                    features_.data() + s * feature_stride_ + v * n_inputs_ + a);
            }
        multiply_in_order(array(reinterpret_cast<const S*>(curved_slope(net, 0, 0)), rows,
                                samples.count, stride_),
                          {features_.data(), feature_stride_},
                          Matrix<S>(mixed_.data() + k * n_inputs_, rows, values * n_inputs_,
                                    n_values_ * n_inputs_),
                          add);
      }
    }
  }
  // The entries of the inputs of unit j with all weights of an output.
  void set_mixed(S* above, S* below, Index n, Index j, const S& factor, const S* value,
                 const S* residual) const {
    for (Index k = 0; k < n_values_; ++k) {
      for (Index a = 0; a < n_inputs_; ++a, ++value) {
        const S v = k == j ? fused<S>(factor, *value, residual[a]) : factor * *value;
        above[a * n + k] = v;
        below[k * n + a] = v;
      }
    }
  }

  // Sizes of a tile: A K features and one row in registers, and R times as many sums.
  static constexpr Index kMaxInputs = kRegisters >= 32 ? 5 : 3;
  static constexpr Index max_values(Index inputs) { return 2 * inputs <= kMaxInputs + 1 ? 2 : 1; }
  static constexpr Index max_rows(Index features) {
    return std::min(Index{8}, (kRegisters - 1 - features) / features);
  }

  // < g_cj h_k x_a > for R of the rows g, A inputs from a and K values from k.
  template <Index A, Index K, Index R>
  [[gnu::noinline, gnu::flatten]] void feature_tile(const Network<S>& net, const Samples& samples,
                                                    Index a, Index r, Index k, Index m, bool add) {
    Lane sum[R][K][A] = {};
    const Lane* h[K];
    unrolled<K>([&](Index b) { h[b] = net.value(1, k + b); });
    const Lane* from = curved_slope(net, r / n_hidden_, r % n_hidden_);
    const double* x = samples.inputs + a * samples.stride;
    const Index next = row_registers();
    for (Index i = 0; i < m; ++i) {
      Lane feature[K][A];
      unrolled<A>([&](Index e) {
        const Lane xe = pinned(shared_register<S>(x + e * samples.stride, i));
        unrolled<K>([&](Index b) { feature[b][e] = xe * h[b][i]; });
      });
      unrolled<R>([&](Index p) {
        const Lane gp = pinned(from[p * next + i]);
        unrolled<K>(
            [&](Index b) { unrolled<A>([&](Index e) { sum[p][b][e] += gp * feature[b][e]; }); });
      });
    }
    S* to = mixed_.data() + (r * n_values_ + k) * n_inputs_ + a;
    for (Index p = 0; p < R; ++p, to += n_values_ * n_inputs_)
      for (Index b = 0; b < K; ++b)
        for (Index e = 0; e < A; ++e) store_sum(sum[p][b][e], to[b * n_inputs_ + e], add);
  }

  // < L_cd h_k h_l >
  void sum_outer(const Network<S>& net, const Samples& samples, bool add) {
    const Index m = registers<S>(samples.count);
    const auto values = array(net.values(1), n_values_, samples.count, stride_);
    S* sums = outer_.data();
    if (!arch_.classifies()) return multiply_symmetric(net, values, sums, add);
    for (Index c = 0; c < rank_; ++c) {
      for (Index e = c; e < rank_; ++e, sums += n_values_ * n_values_) {
        for (Index k = 0; k < n_values_; ++k)
          multiply_elements(row(curvature_, pair(c, e)), net.value(1, k), row(work_, k), m);
        multiply_symmetric(net, work(n_values_, samples), sums, add);
      }
    }
  }
  // out(k, l) (+)= < a_k h_l > of a symmetric product, for k <= l at least.
  template <class A>
  void multiply_symmetric(const Network<S>& net, const A& a, S* out, bool add) const {
    const auto values = array(net.values(1), n_values_, a.cols, stride_);
    detail::in_pieces<detail::kTileRows>(n_values_, [&]<Index R>(Index k) {
      const A rows(a.data + k * a.stride, R, a.cols, a.stride);
      const Index first = in_order_ ? k / kPerRegister<S> * kPerRegister<S> : k;
      const Matrix<S> sums(out + k * n_values_ + first, R, n_values_ - first, n_values_);
      if (in_order_) {
        const auto b = transposed(net, 2);
        return multiply_in_order(rows, {b.data + first, b.stride}, sums, add);
      }
      using B = decltype(values);
      multiply_nt(rows,
                  B(values.data + k * values.stride, n_values_ - k, values.cols, values.stride),
                  sums, add);
    });
  }

  // The block of outputs c <= e from products of hidden values, of which the upper half is read.
  void set_outer(S* hessian, Index n, Index c, Index e, const S* product) const {
    const Index base = arch_.offset(2);
    for (Index k = 0; k < n_values_; ++k) {
      for (Index l = 0; l < n_values_; ++l) {
        const S& value = product[std::min(k, l) * n_values_ + std::max(k, l)];
        const Index p = base + c * n_values_ + k, q = base + e * n_values_ + l;
        hessian[p * n + q] = value;
        hessian[q * n + p] = value;
      }
    }
  }

  // The last output from the others: L_cC = -sum_e L_ce, and L_CC = -sum_c L_cC.
  void set_last_output(S* hessian) const {
    const Index n = arch_.n_params, base = arch_.offset(2), last = base + rank_ * n_values_;
    for (Index k = 0; k < n_values_; ++k) {
      for (Index p = 0; p < base; ++p) {
        S sum{};
        for (Index c = 0; c < rank_; ++c) sum -= hessian[(base + c * n_values_ + k) * n + p];
        hessian[(last + k) * n + p] = sum;
        hessian[p * n + last + k] = sum;
      }
    }
    for (Index k = 0; k < n_values_; ++k) {
      for (Index l = 0; l < n_values_; ++l) {
        S corner{};
        for (Index c = 0; c < rank_; ++c) {
          S edge{};
          for (Index e = 0; e < rank_; ++e)
            edge -= hessian[(base + c * n_values_ + k) * n + base + e * n_values_ + l];
          hessian[(base + c * n_values_ + k) * n + last + l] = edge;
          hessian[(last + l) * n + base + c * n_values_ + k] = edge;
          corner -= edge;
        }
        if (l >= k) hessian[(last + k) * n + last + l] = corner;
        if (l >= k) hessian[(last + l) * n + last + k] = corner;
      }
    }
  }

  const Index curved_outputs_;  // outputs whose sums differ: R, or 1 for squared errors
  Buffer<S> curved_slopes_, work_, hidden_, mixed_, outer_, relative_;
  const bool in_order_;
  const Index feature_stride_;
  Buffer<S> features_;  // h_k x_a of some values, in transposed order
};

}  // namespace pylyap::three_layer
