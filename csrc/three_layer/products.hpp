// Products of the Hessian of a network with one hidden layer with vectors (features.hpp has the
// formulas): `load` and `finish` once per step, `prepare` and `add` per block of samples.
#pragma once

#include <algorithm>

#include "features.hpp"

namespace pylyap::three_layer {

template <class S>
class Products : public Features<S> {
  using Base = Features<S>;
  using Base::apply_curvature;
  using Base::arch_;
  using Base::curvature_;
  using Base::input_pairs;
  using Base::inputs;
  using Base::multiply_in_order;
  using Base::n_hidden_;
  using Base::n_inputs_;
  using Base::n_pairs_;
  using Base::n_values_;
  using Base::pair;
  using Base::rank_;
  using Base::residual_sums_;
  using Base::row;
  using Base::row_registers;
  using Base::stride_;
  using Base::sum_residuals;
  using Base::transposed;
  using Base::transposed_pairs;
  using Base::weighted_slopes_;

 public:
  // For k vectors, over blocks of at most `block` samples.
  Products(const Architecture& arch, Index block, Index k)
      : Base(arch, block, true),
        slice_(64),
        slice_stride_(row_stride<S>(slice_)),
        outputs_((k + k % kVectors) * rank_ * slice_stride_),
        curved_(arch.classifies() && rank_ > kTileOutputs ? outputs_.size() : 0),
        output_vectors_((k + k % kVectors) * rank_ * n_values_),
        input_products_(k * n_hidden_ * n_inputs_),
        output_products_(k * rank_ * n_values_),
        curvature_sums_(n_hidden_ * n_pairs_),
        unit_(n_inputs_ * n_inputs_),
        terms_(std::is_same_v<S, double> && fits_lanes(arch) ? n_hidden_ * slice_stride_ : 0) {}

  // vectors (k, stride): rows begin with the entries of the weights.
  void load(const S* vectors, Index stride, Index k) {
    k_ = k, vectors_ = vectors, vector_stride_ = stride;
    for (Index v = 0; v < k; ++v) {
      const S* from = vectors + v * stride + arch_.offset(2);
      for (Index c = 0; c < rank_; ++c)
        for (Index i = 0; i < n_values_; ++i)
          output_vectors_[(v * rank_ + c) * n_values_ + i] =
              arch_.classifies() ? from[c * n_values_ + i] - from[rank_ * n_values_ + i]
                                 : from[c * n_values_ + i];
    }
    for (Buffer<S>* sum : {&input_products_, &output_products_, &residual_sums_, &curvature_sums_})
      std::fill_n(sum->data(), sum->size(), S{});
  }

  void add(const Network<S>& net, const Samples& samples) {
    folded_ = folds(samples.count);
    add_residual_terms(net, samples);
    for (Index s = 0; s < samples.count; s += slice_) add_slice(net, samples.slice(s, slice_), s);
  }

  // out (k, n_params) <- the products.
  void finish(S* out) {
    const Index base = arch_.offset(2), np = arch_.n_params;
    for (Index j = 0; j < n_hidden_; ++j) {
      const S* packed = curvature_sums_.data() + j * n_pairs_;
      for (Index a = 0; a < n_inputs_; ++a)
        for (Index b = a; b < n_inputs_; ++b)
          unit_[a * n_inputs_ + b] = unit_[b * n_inputs_ + a] = *packed++;
      detail::in_pieces<5>(n_inputs_, [&]<Index A>(Index a) { finish_inputs<A>(j, a, out); });
    }
    for (Index v = 0; v < k_; ++v) {
      const S *w = vectors_ + v * vector_stride_,
              *hv2 = output_products_.data() + v * rank_ * n_values_;
      S* hv = out + v * np + base;
      for (Index k = 0; k < n_values_; ++k) {
        S all{};
        for (Index c = 0; c < rank_; ++c) {
          const S* e = residual_sums_.data() + (c * n_hidden_ + k) * n_inputs_;
          S sum = hv2[c * n_values_ + k];
          for (Index a = 0; a < n_inputs_ && k < n_hidden_; ++a)
            sum = fused<S>(e[a], w[k * n_inputs_ + a], sum);
          hv[c * n_values_ + k] = sum;
          all += sum;
        }
        if (arch_.classifies()) hv[rank_ * n_values_ + k] = -all;
      }
    }
  }

 private:
  // Register tiles of the products with vectors.
  static constexpr Index kVectors = 2, kTileOutputs = 4;
  static constexpr Index kTile = kRegisters >= 32 ? 4 : 2, kUnits = kRegisters >= 32 ? 2 : 1;

  // E and D, which do not depend on the vectors.
  void add_residual_terms(const Network<S>& net, const Samples& samples) {
    sum_residuals(net, samples, true, folded_);
    const auto curvatures = array(net.curvatures(1), n_hidden_, samples.count, stride_);
    const Matrix<S> out(curvature_sums_.data(), n_hidden_, n_pairs_);
    if (folded_) return multiply_folded(curvatures, input_pairs(samples), out, true);
    if (net.in_order()) return multiply_in_order(curvatures, transposed_pairs(), out, true);
    multiply_nt(curvatures, input_pairs(samples), out, true);
  }

  // The entries of A inputs from a of unit j, whose D is in unit_.
  template <Index A>
  void finish_inputs(Index j, Index a, S* out) const {
    for (Index v = 0; v < k_; ++v) {
      const S* w = vectors_ + v * vector_stride_ + j * n_inputs_;
      const S* hv1 = input_products_.data() + (v * n_hidden_ + j) * n_inputs_ + a;
      S sum[A];
      unrolled<A>([&](auto i) { sum[i] = hv1[i]; });
      for (Index b = 0; b < n_inputs_; ++b)
        unrolled<A>([&](auto i) { sum[i] = fused<S>(unit_[b * n_inputs_ + a + i], w[b], sum[i]); });
      for (Index c = 0; c < rank_; ++c) {
        const S *e = residual_sums_.data() + (c * n_hidden_ + j) * n_inputs_ + a,
                v2 = output_vectors_[(v * rank_ + c) * n_values_ + j];
        unrolled<A>([&](auto i) { sum[i] = fused<S>(e[i], v2, sum[i]); });
      }
      S* to = out + v * arch_.n_params + j * n_inputs_ + a;
      unrolled<A>([&](auto i) { to[i] = sum[i]; });
    }
  }

  // `samples` is a slice that begins at sample `first` of the block.
  void add_slice(const Network<S>& net, const Samples& samples, Index first) {
    const Index m = registers<S>(samples.count), from = first / kPerRegister<S>;
    const auto values = array(net.values(1) + first, n_values_, samples.count, stride_);
    for (Index v = 0; v < k_; v += kVectors)
      detail::in_pieces<kTileOutputs>(rank_, [&]<Index C>(Index c) {
        detail::in_pieces<5>(n_inputs_ - 1, [&]<Index A>(Index a) {
          for (Index i = 0; i < m; i += kTile) forward_tile<C, A>(net, samples, v, c, a, from, i);
        });
      });
    for (Index v = 0; v < k_ && curved_.size() > 0; ++v)
      apply_curvature(outputs_.data() + v * rank_ * slice_stride_, slice_stride_,
                      curved_.data() + v * rank_ * slice_stride_, slice_stride_, from, m);
    const auto outputs = array(curved().data(), k_ * rank_, samples.count, slice_stride_);
    const Matrix<S> out(output_products_.data(), k_ * rank_, n_values_);
    if (net.in_order() && !folded_) {
      for (Index v = 0; v < k_; ++v)
        detail::in_pieces<kTileOutputs>(
            rank_, [&]<Index C>(Index c) { backward_in_order<C>(net, samples, v, c, first); });
      const auto values_in_order = transposed(net, 2);
      return multiply_in_order(
          outputs, {values_in_order.data + first * values_in_order.stride, values_in_order.stride},
          out, true);
    }
    for (Index v = 0; v < k_; v += kVectors)
      detail::in_pieces<kTileOutputs>(rank_, [&]<Index C>(Index c) {
        detail::in_pieces<4>(n_inputs_ - 1, [&]<Index A>(Index a) {
          for (Index j = 0; j < n_hidden_; j += kUnits)
            backward_tile<C, A>(samples, v, c, a, j, from, m);
        });
      });
    if (folded_) return multiply_folded(outputs, values, out, true);
    multiply_nt(outputs, values, out, true);
  }

  // o_c = v'_c . h and the biases' part of W'_j . x for the first inputs, and += sum_j u_cj
  // (W'_j . x), for C outputs from c, A inputs from a, kTile samples (registers) from i, and the
  // vectors from v. Values past the last sample are undefined.
  template <Index C, Index A>
  [[gnu::noinline, gnu::flatten]] void forward_tile(const Network<S>& net, const Samples& samples,
                                                    Index v, Index c, Index a, Index from,
                                                    Index i) {
    Lane o[kVectors][C][kTile];
    Lane* to = slice_row(outputs_, v * rank_ + c) + i;
    const Index next = rank_ * slice_registers(), row_next = slice_registers();
    auto each_output = [&](auto f) {
      unrolled<kVectors>([&](Index b) {
        unrolled<C>([&](Index e) {
          unrolled<kTile>([&](Index t) { f(o[b][e][t], to[b * next + e * row_next + t]); });
        });
      });
    };
    const S *v2 = output_vectors_.data() + (v * rank_ + c) * n_values_,
            *w = vectors_ + v * vector_stride_;
    const Index w_next =
        v + 1 < k_ ? vector_stride_ : 0;  // the last of an odd number is paired with itself
    const S none[kVectors] = {};          // the tile of the first inputs has added it
    const S* bias = a > 0 ? none : w + n_inputs_ - 1;
    const Index bias_next = a > 0 ? 1 : w_next, bias_unit = a > 0 ? 0 : n_inputs_;
    if (a > 0) {
      each_output([](Lane& sum, const Lane& kept) { sum = kept; });
    } else {
      unrolled<kVectors>([&](Index b) {
        unrolled<C>([&](Index e) {
          const Lane start = broadcast_shared<Lane>(v2[(b * rank_ + e) * n_values_ + n_hidden_]);
          unrolled<kTile>([&](Index t) { o[b][e][t] = start; });
        });
      });
      const Lane* value = net.value(1, 0) + from + i;
      for (Index k = 0; k < n_hidden_; ++k, value += row_registers()) {
        Lane h[kTile];
        unrolled<kTile>([&](Index t) { h[t] = pinned(value[t]); });
        unrolled<kVectors>([&](Index b) {
          unrolled<C>([&](Index e) {
            const Lane weight = pinned(broadcast_shared<Lane>(v2[(b * rank_ + e) * n_values_ + k]));
            unrolled<kTile>([&](Index t) { o[b][e][t] += weight * h[t]; });
          });
        });
      }
    }
    w += a;
    const Lane* u = row(weighted_slopes_, c * n_hidden_) + from + i;
    const Index u_next = n_hidden_ * row_registers();
    const double* x = samples.inputs + a * samples.stride + i * kPerRegister<S>;
    for (Index j = 0; j < n_hidden_; ++j, w += n_inputs_, bias += bias_unit, u += row_registers()) {
      Lane z[kVectors][kTile];
      unrolled<kVectors>([&](Index b) {
        const Lane start = broadcast_shared<Lane>(bias[b * bias_next]);
        unrolled<kTile>([&](Index t) { z[b][t] = start; });
      });
      unrolled<A>([&](Index g) {
        Lane weight[kVectors];
        unrolled<kVectors>(
            [&](Index b) { weight[b] = pinned(broadcast_shared<Lane>(w[b * w_next + g])); });
        unrolled<kTile>([&](Index t) {
          const Lane xt = pinned(shared_register<S>(x + g * samples.stride, t));
          unrolled<kVectors>([&](Index b) { z[b][t] += weight[b] * xt; });
        });
      });
      unrolled<C>([&](Index e) {
        unrolled<kTile>([&](Index t) {
          const Lane ut = pinned(u[e * u_next + t]);
          unrolled<kVectors>([&](Index b) { o[b][e][t] += ut * z[b][t]; });
        });
      });
    }
    if (arch_.classifies() && C == rank_ && a + A == n_inputs_ - 1) curve(o, from + i);
    each_output([](const Lane& sum, Lane& kept) { kept = sum; });
  }

  // o <- L o, all outputs of kTile samples (registers) from i.
  template <Index C>
  [[gnu::always_inline]] void curve(Lane (&o)[kVectors][C][kTile], Index i) const {
    unrolled<kTile>([&](auto t) {
      Lane q[kVectors][C];
      unrolled<C>([&](auto c) {
        unrolled<C - c>([&](auto e) {
          constexpr Index d = c + e;
          const Lane l = pinned(row(curvature_, pair(c, d))[i + t]);
          unrolled<kVectors>([&](auto b) {
            q[b][d] = c == 0 ? l * o[b][c][t] : q[b][d] + l * o[b][c][t];
            if (e > 0) q[b][c] += l * o[b][d][t];
          });
        });
      });
      unrolled<kVectors>([&](auto b) { unrolled<C>([&](auto c) { o[b][c][t] = q[b][c]; }); });
    });
  }

  // (H V)_ja += < sum_c u_cj q_c x_a > for C outputs from c, A inputs from a, with the first of
  // these the bias, and the units from j.
  template <Index C, Index A>
  [[gnu::noinline, gnu::flatten]] void backward_tile(const Samples& samples, Index v, Index c,
                                                     Index a, Index j, Index from, Index m) {
    const Lane* q = slice_row(curved(), v * rank_ + c);
    const Lane* u = row(weighted_slopes_, c * n_hidden_ + j) + from;
    const Index q_next = slice_registers(), q_vector = rank_ * q_next;
    const Index u_unit = row_registers(), u_next = n_hidden_ * u_unit;
    const double* x = samples.inputs + a * samples.stride;
    [[maybe_unused]] const double* ones = samples.inputs + (n_inputs_ - 1) * samples.stride;
    constexpr Index kSums = kVectors * kUnits * (A + 1);
    auto add = [&](Index i, Lane* sums) __attribute__((always_inline)) {
      auto sum = [&](Index b, Index g, Index e) __attribute__((always_inline)) -> Lane& {
        return sums[(b * kUnits + g) * (A + 1) + e];
      };
      Lane p[kVectors][kUnits];
      unrolled<C>([&](Index e) {
        Lane qe[kVectors];
        unrolled<kVectors>([&](Index b) { qe[b] = pinned(q[b * q_vector + e * q_next + i]); });
        unrolled<kUnits>([&](Index g) {
          const Lane ue = pinned(u[e * u_next + g * u_unit + i]);
          unrolled<kVectors>(
              [&](Index b) { p[b][g] = e == 0 ? ue * qe[b] : p[b][g] + ue * qe[b]; });
        });
      });
      unrolled<A>([&](Index e) {
        const Lane xe = pinned(shared_register<S>(x + e * samples.stride, i));
        unrolled<kVectors>(
            [&](Index b) { unrolled<kUnits>([&](Index g) { sum(b, g, e) += p[b][g] * xe; }); });
      });
      unrolled<kVectors>([&](Index b) {
        unrolled<kUnits>([&](Index g) {
          if constexpr (kRuns<S> == 1) {  // past the last sample p is undefined and the input 0
            sum(b, g, A) += p[b][g] * shared_register<S>(ones, i);
          } else {
            sum(b, g, A) += p[b][g];
          }
        });
      });
    };
    auto finish = [&](const S* sums) {
      for (Index b = 0; b < kVectors && v + b < k_; ++b)
        for (Index g = 0; g < kUnits && j + g < n_hidden_; ++g) {
          const S* from_sums = sums + (b * kUnits + g) * (A + 1);
          S* to = input_products_.data() + ((v + b) * n_hidden_ + j + g) * n_inputs_;
          for (Index e = 0; e < A; ++e) to[a + e] += from_sums[e];
          if (a == 0) to[n_inputs_ - 1] += from_sums[A];
        }
    };
    Base::template sum_registers<kSums>(m, folded_, add, finish);
  }

  // Likewise for all units and inputs of one vector.
  template <Index C>
  [[gnu::noinline]] void backward_in_order(const Network<S>& net, const Samples& samples, Index v,
                                           Index c, Index first) {
    const Index m = registers<S>(samples.count), from = first / kPerRegister<S>;
    const Lane* q = slice_row(curved(), v * rank_ + c);
    const Index q_next = slice_registers(), u_next = n_hidden_ * row_registers();
    S* terms = terms_.data();
    for (Index j = 0; j < n_hidden_; ++j) {
      const Lane* u = row(weighted_slopes_, c * n_hidden_ + j) + from;
      Lane* to = reinterpret_cast<Lane*>(terms + j * slice_stride_);
      for (Index i = 0; i < m; ++i) {
        Lane p;
        unrolled<C>([&](Index e) {
          const Lane ue = u[e * u_next + i], qe = q[e * q_next + i];
          p = e == 0 ? ue * qe : p + ue * qe;
        });
        to[i] = p;
      }
    }
    const auto x = transposed(net, 1);
    multiply_in_order(
        array(static_cast<const S*>(terms), n_hidden_, samples.count, slice_stride_),
        {x.data + first * x.stride, x.stride},
        Matrix<S>(input_products_.data() + v * n_hidden_ * n_inputs_, n_hidden_, n_inputs_), true);
  }

  Index slice_registers() const { return slice_stride_ / kPerRegister<S>; }

  // q = L o; of at most kTileOutputs outputs it is formed in place by forward_tile.
  Buffer<S>& curved() { return curved_.size() > 0 ? curved_ : outputs_; }
  Lane* slice_row(Buffer<S>& buffer, Index r) const {
    return reinterpret_cast<Lane*>(buffer.data() + r * slice_stride_);
  }

  const Index slice_, slice_stride_;  // samples per pass over all vectors
  Index k_ = 0, vector_stride_ = 0;
  bool folded_ = false;  // whether sums over samples of this block are
  const S* vectors_ = nullptr;
  Buffer<S> outputs_, curved_, output_vectors_, input_products_, output_products_, curvature_sums_,
      unit_;
  Buffer<S> terms_;  // in order: those of a vector's sums, (unit, sample)
};

}  // namespace pylyap::three_layer
