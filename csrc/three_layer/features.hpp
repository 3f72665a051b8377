// The structure of a network with one hidden layer: its Hessian in blocks, and Hessian-vector
// products that share what does not depend on the vector.
//
// Inputs x_a and hidden values h_k include the constant 1 as their last entry. The curvature L of
// the loss in the C outputs is 1 for squared errors and diag(p) - p p^T for the softmax, whose rows
// add up to zero, as do the residuals r. One therefore works with R = C - 1 outputs (R = C for
// squared errors), the last being minus the sum of the others, and with weights v_cj relative to
// those of the last output. With u_cj = v_cj f'_j, g = L u, and < > the sum over samples:
//   W_ja W_kb   < sum_c u_cj g_ck x_a x_b >  + delta_jk D_jab,   D_jab = < f''_j error_j x_a x_b >
//   v_ck W_ja   < g_cj h_k x_a >             + delta_jk E_cja,   E_cja = < r_c f'_j x_a >
//   v_ck v_dl   < L_cd h_k h_l >
// For squared errors the weights are factors of the sums, u_cj u_ck = f'_j f'_k v_cj v_ck, so that
// the sums of one output, with f'_j in place of u and g, serve all.
// The product with a vector (W', v') passes through the R outputs:
//   o_c = v'_c . h + sum_j u_cj (W'_j . x),   q = L o,
//   (H V)_ck = < q_c h_k > + E terms,   (H V)_ja = < sum_c u_cj q_c x_a > + D and E terms
#pragma once

#include <algorithm>

#include "../architecture.hpp"
#include "../buffer.hpp"
#include "../cost.hpp"
#include "../folded.hpp"
#include "../lanes.hpp"
#include "../network.hpp"
#include "../products.hpp"
#include "../samples.hpp"

namespace pylyap::three_layer {

// What the Hessian and its products share: u, L, products of inputs, and the sums E.
template <class S>
class Features {
 public:
  // For blocks of at most `block` samples; u is formed only with `weighted`.
  Features(const Architecture& arch, Index block, bool weighted)
      : arch_(arch),
        n_inputs_(arch.width(0) + 1),
        n_hidden_(arch.width(1)),
        n_values_(n_hidden_ + 1),
        rank_(arch.classifies() ? arch.outputs() - 1 : arch.outputs()),
        n_pairs_(n_inputs_ <= kPairInputs ? n_inputs_ * (n_inputs_ + 1) / 2 : 0),
        stride_(row_stride<S>(block)),
        pair_stride_(padded(block)),
        weighted_slopes_(weighted ? (rank_ * n_hidden_ + 1) * stride_ : 0),
        curvature_(arch.classifies() ? rank_ * (rank_ + 1) / 2 * stride_ : 0),
        pairs_(n_pairs_ * pair_stride_),
        residual_sums_(rank_ * n_hidden_ * n_inputs_) {
    if constexpr (std::is_same_v<S, double>) {
      if (!fits_lanes(arch)) return;
      pairs_transposed_ = Buffer<S>(padded(n_pairs_) * pair_stride_);
      weighted_ = Buffer<S>(n_hidden_ * stride_);
    }
  }

  // Once per block, after the network's `evaluate`.
  void prepare(const S* weights, const Network<S>& net, const Samples& samples) {
    const Index m = registers<S>(samples.count);
    const S* v = weights + arch_.offset(2);
    for (Index j = 0; j < n_hidden_ && weighted_slopes_.size() > 0; ++j) {
      for (Index c = 0; c < rank_; ++c) {
        const S weight = arch_.classifies() ? v[c * n_values_ + j] - v[rank_ * n_values_ + j]
                                            : v[c * n_values_ + j];
        const Lane* slope = net.slope(1, j);
        Lane* u = row(weighted_slopes_, c * n_hidden_ + j);
        for (Index i = 0; i < m; ++i) u[i] = broadcast_shared<Lane>(weight) * slope[i];
      }
    }
    if (arch_.classifies()) output_curvature(net, m);
    if (n_pairs_ > 0 && !kept_.has(samples)) multiply_inputs(net, samples);
  }

 protected:
  // Sums over samples in the order of the lanes have one factor in transposed order.
  struct Transposed {
    const S* data;
    Index stride;
  };
  static Transposed transposed(const Network<S>& net, Index l) {
    return {net.transposed(l), net.transposed_stride(l)};
  }
  Transposed transposed_pairs() const { return {pairs_transposed_.data(), padded(n_pairs_)}; }
  // out (+)= a b^T
  static void multiply_in_order(Array<S, const Lane> a, const Transposed& b, Matrix<S> out,
                                bool add) {
    if constexpr (kRuns<S> == 1) multiply_transposed<Lane>(a, b.data, out, add, b.stride);
  }

  void multiply_inputs(const Network<S>& net, const Samples& samples) {
    double* p = pairs_.data();
    for (Index a = 0; a < n_inputs_; ++a) {
      for (Index b = a; b < n_inputs_; ++b, p += pair_stride_) {
        const double* xa = samples.inputs + a * samples.stride;
        const double* xb = samples.inputs + b * samples.stride;
        for (Index s = 0; s < samples.count; ++s) p[s] = xa[s] * xb[s];
        std::fill(p + samples.count, p + std::min(padded(samples.count), pair_stride_), 0.0);
      }
    }
    if constexpr (kRuns<S> == 1) {
      if (net.in_order())
        transpose<Lane>(input_pairs(samples), pairs_transposed_.data(), padded(n_pairs_));
    }
  }
  Lane* row(Buffer<S>& buffer, Index r) const { return register_row(buffer.data(), stride_, r); }
  const Lane* row(const Buffer<S>& buffer, Index r) const {
    return register_row(buffer.data(), stride_, r);
  }
  static auto inputs(Index rows, const Samples& samples) {
    return shared_array<S>(samples.inputs, rows, samples.count, samples.stride);
  }

  auto input_pairs(const Samples& samples) const {
    return shared_array<S>(pairs_.data(), n_pairs_, samples.count, pair_stride_);
  }

  // out(p, f) (+)= < weight row_p x_f > for neighbouring rows, such as slopes of units, and
  // features that all runs share, in register tiles. In lanes the sums are `folded` or not.
  void multiply_weighted(const Lane* weight, const Lane* rows, const double* features,
                         Index feature_stride, Index m, Matrix<S> out, bool add,
                         bool folded = false) const {
    constexpr Index kRows = kRegisters >= 32 ? 4 : 2, kFeatures = kRegisters >= 32 ? 6 : 5;
    detail::in_pieces<kRows>(out.rows, [&]<Index P>(Index p) {
      detail::in_pieces<kFeatures>(out.cols, [&]<Index F>(Index f) {
        weighted_tile<P, F>(weight, rows + p * row_registers(), features + f * feature_stride,
                            feature_stride, m, out.data + p * out.stride + f, out.stride, add,
                            folded);
      });
    });
  }
  template <Index P, Index F>
  [[gnu::noinline, gnu::flatten]] void weighted_tile(const Lane* weight, const Lane* rows,
                                                     const double* features, Index feature_stride,
                                                     Index m, S* out, Index out_stride, bool add,
                                                     bool folded) const {
    const Index next = row_registers();
    sum_registers<P * F>(
        m, folded,
        [&](Index i, Lane* sums) __attribute__((always_inline)) {
          Lane weighted[P];
          const Lane w = pinned(weight[i]);
          unrolled<P>([&](Index p) { weighted[p] = pinned(w * rows[p * next + i]); });
          unrolled<F>([&](Index f) {
            const Lane x = pinned(shared_register<S>(features + f * feature_stride, i));
            unrolled<P>([&](Index p) { sums[p * F + f] += weighted[p] * x; });
          });
        },
        [&](const S* sums) {
          for (Index p = 0; p < P; ++p)
            for (Index f = 0; f < F; ++f) {
              S& target = out[p * out_stride + f];
              target = add ? target + sums[p * F + f] : sums[p * F + f];
            }
        });
  }
  // M sums of what add(i, sums) adds for the registers i < m of samples; finish(sums) takes them.
  template <Index M, class Add, class Finish>
  [[gnu::always_inline]] static void sum_registers(Index m, [[maybe_unused]] bool folded, Add&& add,
                                                   Finish&& finish) {
    if constexpr (kRuns<S> == 1) {
      Lane registers[M] = {};
      for (Index i = 0; i < m; ++i) add(i, registers);
      S sums[padded(M, kRuns<Lane>)];
      detail::reduce_all<M>(registers, sums);
      finish(sums);
    } else {
      detail::fold_places<M>(
          folded,
          [&](Index first, Index step, Lane* sums) __attribute__((always_inline)) {
            for (Index i = first; i < m; i += step) add(i, sums);
          },
          finish);
    }
  }

  // Row of L_cd, c <= d.
  Index pair(Index c, Index d) const { return c * rank_ - c * (c - 1) / 2 + d - c; }

  // L_cd = -p_c p_d, and L_cc = p_c times the sum of all other p: nothing cancels.
  void output_curvature(const Network<S>& net, Index m) {
    for (Index c = 0; c < rank_; ++c) {
      const Lane* p = net.probability(c);
      Lane* own = row(curvature_, pair(c, c));
      std::fill_n(own, m, broadcast<Lane>(0.0));
      for (Index d = 0; d <= rank_; ++d) {
        const Lane* other = net.probability(d);
        for (Index i = 0; i < m && d != c; ++i) own[i] += other[i];
      }
      for (Index i = 0; i < m; ++i) own[i] *= p[i];
      for (Index d = c + 1; d < rank_; ++d) {
        const Lane* other = net.probability(d);
        Lane* mixed = row(curvature_, pair(c, d));
        for (Index i = 0; i < m; ++i) mixed[i] = -p[i] * other[i];
      }
    }
  }

  // The softmax: out_c = sum_d L_cd in_d over `m` registers from register `first` of the block.
  void apply_curvature(const S* in, Index in_stride, S* out, Index out_stride, Index first,
                       Index m) {
    for (Index c = 0; c < rank_; ++c) {
      Lane* to = reinterpret_cast<Lane*>(out + c * out_stride);
      for (Index d = 0; d < rank_; ++d) {
        const Lane* from = reinterpret_cast<const Lane*>(in + d * in_stride);
        const Lane* l = row(curvature_, pair(std::min(c, d), std::max(c, d))) + first;
        if (d == 0) {
          for (Index i = 0; i < m; ++i) to[i] = l[i] * from[i];
        } else {
          for (Index i = 0; i < m; ++i) to[i] += l[i] * from[i];
        }
      }
    }
  }

  // E of the samples, set or added. `folded`: whether the sums are.
  void sum_residuals(const Network<S>& net, const Samples& samples, bool add, bool folded) {
    const Index m = registers<S>(samples.count);
    for (Index c = 0; c < rank_; ++c) {
      const Matrix<S> out(residual_sums_.data() + c * n_hidden_ * n_inputs_, n_hidden_, n_inputs_);
      if (net.in_order() && !folded) {
        for (Index j = 0; j < n_hidden_; ++j)
          multiply_elements(net.delta(2, c), net.slope(1, j), row(weighted_, j), m);
        multiply_in_order(array(weighted(), n_hidden_, samples.count, stride_), transposed(net, 1),
                          out, add);
      } else {
        multiply_weighted(net.delta(2, c), net.slope(1, 0), samples.inputs, samples.stride, m, out,
                          add, folded);
      }
    }
  }
  const S* weighted() const { return weighted_.data(); }

  static void store_sum(const Lane& sum, S& target, bool add) {
    target = add ? target + reduce_add<S>(sum) : reduce_add<S>(sum);
  }
  Index row_registers() const { return stride_ / kPerRegister<S>; }

  const Architecture& arch_;
  const Index n_inputs_, n_hidden_;  // inputs with the constant, hidden units
  const Index n_values_, rank_;      // hidden values with the constant; R
  const Index n_pairs_, stride_, pair_stride_;
  Buffer<S> weighted_slopes_, curvature_;  // u; L_cd, c <= d
  Buffer<double> pairs_;                   // x_a x_b, a <= b
  KeptSamples kept_;                       // those of the pairs
  Buffer<S> pairs_transposed_, weighted_;  // for sums in order
  Buffer<S> residual_sums_;                // E
};

}  // namespace pylyap::three_layer
