// The structure of a net with one hidden layer: its Hessian in blocks, and Hessian-vector products
// that share what does not depend on the vector.
//
// h units, C outputs, d inputs; x_a and h_k include the constant 1 as their last entry. The
// curvature L of the loss in the outputs is 1 for squared errors and diag(p) - p p^T for the
// softmax, whose rows add up to zero, as do the residuals r: so one works with R = C - 1 outputs (R
// = C for squared errors), the last being minus the sum of the others, and with weights v_cj taken
// relative to the last output's. With u_cj = v_cj f'_j, g = L u, and < > the sum over samples:
//   W_ja W_kb   < sum_c u_cj g_ck x_a x_b >  + delta_jk D_jab,   D_jab = < f''_j error_j x_a x_b >
//   v_ck W_ja   < g_cj h_k x_a >             + delta_jk E_cja,   E_cja = < r_c f'_j x_a >
//   v_ck v_dl   < L_cd h_k h_l >
// For squared errors the weights leave the sums: u_cj u_ck = f'_j f'_k times v_cj v_ck, so that the
// sums of one output, with f'_j in the place of u and g, serve all.
// The product with a vector (W', v') passes through the R outputs:
//   o_c = v'_c . h + sum_j u_cj (W'_j . x),   q = L o,
//   (H V)_ck = < q_c h_k > + E terms,   (H V)_ja = < sum_c u_cj q_c x_a > + D and E terms
#pragma once

#include <algorithm>

#include "buffer.hpp"
#include "cost.hpp"
#include "lanes.hpp"
#include "network.hpp"
#include "products.hpp"
#include "team.hpp"

namespace pylyap {

template <class S>
class ThreeLayer {
 public:
  // For k vectors, or for the Hessian if `dense`, over blocks of at most `block` samples.
  ThreeLayer(const Architecture& arch, Index block, Index k, bool dense)
      : arch_(arch),
        d1_(arch.width(0) + 1),
        h_(arch.width(1)),
        h1_(h_ + 1),
        rank_(arch.classifies() ? arch.outputs() - 1 : arch.outputs()),
        curved_outputs_(arch.classifies() ? rank_ : 1),
        n_pairs_(d1_ <= kPairInputs ? d1_ * (d1_ + 1) / 2 : 0),
        stride_(row_stride<S>(block)),
        pair_stride_(padded(block)),
        u_(dense && !arch.classifies() ? 0 : (rank_ * h_ + 1) * stride_),
        curvature_(arch.classifies() ? rank_ * (rank_ + 1) / 2 * stride_ : 0),
        pairs_(n_pairs_ * pair_stride_),
        e_(rank_ * h_ * d1_) {
    if (dense) {
      const Index rows = std::max(d1_, h1_);
      g_ = Buffer<S>(arch.classifies() ? rank_ * h_ * stride_ : 0);
      work_ = Buffer<S>(rows * stride_);
      hidden_ = Buffer<S>(h_ * (h_ + 1) / 2 * n_products());
      mixed_ = Buffer<S>(curved_outputs_ * h_ * h1_ * d1_);
      outer_ = Buffer<S>(curved_outputs_ * (curved_outputs_ + 1) / 2 * h1_ * h1_);
      relative_ = Buffer<S>(arch.classifies() ? std::min(k, kTogether) * n_relative() : 0);
    } else {
      slice_stride_ = row_stride<S>(kSlice);
      outputs_ = Buffer<S>((k + k % kVectors) * rank_ * slice_stride_);
      curved_ = Buffer<S>(arch.classifies() && rank_ > kMostChunk ? outputs_.size() : 0);
      v2_ = Buffer<S>((k + k % kVectors) * rank_ * h1_);
      hv1_ = Buffer<S>(k * h_ * d1_);
      hv2_ = Buffer<S>(k * rank_ * h1_);
      d_ = Buffer<S>(h_ * n_pairs_);
      unit_ = Buffer<S>(d1_ * d1_);
    }
  }

  // Once per block, after the network's `evaluate`.
  void prepare(const S* weights, const Network<S>& net, const Samples& samples) {
    const Index m = net.registers(samples);
    const S* v = weights + arch_.offset(2);
    for (Index j = 0; j < h_ && u_.size() > 0; ++j) {
      for (Index c = 0; c < rank_; ++c) {
        const S weight = arch_.classifies() ? v[c * h1_ + j] - v[rank_ * h1_ + j] : v[c * h1_ + j];
        const Lane* slope = net.slope(1, j);
        Lane* u = row(u_, c * h_ + j);
        for (Index i = 0; i < m; ++i) u[i] = shared<Lane>(weight) * slope[i];
      }
    }
    if (arch_.classifies()) output_curvature(net, m);
    double* p = pairs_.data();
    for (Index a = 0; a < d1_ && n_pairs_ > 0; ++a) {
      for (Index b = a; b < d1_; ++b, p += pair_stride_) {
        const double* xa = samples.inputs + a * samples.stride;
        const double* xb = samples.inputs + b * samples.stride;
        for (Index s = 0; s < samples.count; ++s) p[s] = xa[s] * xb[s];
        std::fill(p + samples.count, p + std::min(padded(samples.count), pair_stride_), 0.0);
      }
    }
  }

  // --- Hessian: `add_hessian` per block, `finish_hessian` once per step

  // Sets the sums, or adds to them those of this block.
  void add_hessian(const S* weights, const Network<S>& net, const Samples& samples, bool add) {
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
  void finish_hessian(const S* weights, S* hessian, Index n) const {
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
  void multiply_hessian(const S* hessian, const S* vectors, Index stride, Index rows, S* out) {
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

  // --- products with k vectors: `load` and `finish` once per step, `add` per block

  // vectors (k, stride): rows begin with the weights' part.
  void load(const S* vectors, Index stride, Index k) {
    k_ = k, vectors_ = vectors, vector_stride_ = stride;
    for (Index v = 0; v < k; ++v) {
      const S* from = vectors + v * stride + arch_.offset(2);
      for (Index c = 0; c < rank_; ++c)
        for (Index i = 0; i < h1_; ++i)
          v2_[(v * rank_ + c) * h1_ + i] =
              arch_.classifies() ? from[c * h1_ + i] - from[rank_ * h1_ + i] : from[c * h1_ + i];
    }
    for (Buffer<S>* sum : {&hv1_, &hv2_, &e_, &d_}) std::fill_n(sum->data(), sum->size(), S{});
  }

  void add(const Network<S>& net, const Samples& samples, Team& team) {
    add_residual_terms(net, samples);
    team.share(k_, kVectors, [&](Index begin, Index end, Index) {
      for (Index s = 0; s < samples.count; s += kSlice)
        add_slice(net, samples.slice(s, kSlice), s, begin, end);
    });
  }

  // out (k, n_params) <- the products.
  void finish(S* out) {
    const Index base = arch_.offset(2), np = arch_.n_params;
    for (Index j = 0; j < h_; ++j) {
      const S* packed = d_.data() + j * n_pairs_;
      for (Index a = 0; a < d1_; ++a)
        for (Index b = a; b < d1_; ++b) unit_[a * d1_ + b] = unit_[b * d1_ + a] = *packed++;
      detail::in_pieces<5>(d1_, [&]<Index A>(Index a) { finish_inputs<A>(j, a, out); });
    }
    for (Index v = 0; v < k_; ++v) {
      const S *w = vectors_ + v * vector_stride_, *hv2 = hv2_.data() + v * rank_ * h1_;
      S* hv = out + v * np + base;
      for (Index k = 0; k < h1_; ++k) {
        S all{};
        for (Index c = 0; c < rank_; ++c) {
          const S* e = e_.data() + (c * h_ + k) * d1_;
          S sum = hv2[c * h1_ + k];
          for (Index a = 0; a < d1_ && k < h_; ++a) sum += e[a] * w[k * d1_ + a];
          hv[c * h1_ + k] = sum;
          all += sum;
        }
        if (arch_.classifies()) hv[rank_ * h1_ + k] = -all;
      }
    }
  }

 private:
  static constexpr Index kSlice = kWidth<S> == 1 ? 256 : 64;  // samples all vectors see at a time

  // Vectors that the Hessian is multiplied with at once.
  static constexpr Index kTogether = kWidth<S> > 1 ? detail::kTileRows : 64;

  // Register tiles of the products with vectors.
  static constexpr Index kVectors = 2, kMostChunk = 4;
  static constexpr Index kTile = kRegisters >= 32 ? 4 : 2, kUnits = kRegisters >= 32 ? 2 : 1;

  Lane* row(Buffer<S>& buffer, Index r) const {
    return reinterpret_cast<Lane*>(buffer.data() + r * stride_);
  }
  const Lane* row(const Buffer<S>& buffer, Index r) const {
    return reinterpret_cast<const Lane*>(buffer.data() + r * stride_);
  }
  static void times(const Lane* a, const Lane* b, Lane* out, Index count) {
    for (Index i = 0; i < count; ++i) out[i] = a[i] * b[i];
  }
  void times_input(const Samples& samples, Index a, const Lane* from, Lane* to) const {
    const double* x = samples.inputs + a * samples.stride;
    const Index m = Network<S>::registers(samples);
    for (Index i = 0; i < m; ++i) to[i] = from[i] * Network<S>::shared_row(x, i);
  }
  Array<S, const Lane> work(Index rows, const Samples& samples) const {
    return array(work_.data(), rows, samples.count, stride_);
  }
  static auto inputs(Index rows, const Samples& samples) {
    return shared_array<S>(samples.inputs, rows, samples.count, samples.stride);
  }

  auto input_pairs(const Samples& samples) const {
    return shared_array<S>(pairs_.data(), n_pairs_, samples.count, pair_stride_);
  }

  // out(p, f) (+)= < weight row_p x_f > for neighbouring rows, such as units' slopes, and features
  // that all runs share: in register tiles that weigh the rows on the way.
  void multiply_weighed(const Lane* weight, const Lane* rows, const double* features,
                        Index feature_stride, Index m, Matrix<S> out, bool add) const {
    constexpr Index kRows = kRegisters >= 32 ? 4 : 2, kFeatures = kRegisters >= 32 ? 6 : 5;
    detail::in_pieces<kRows>(out.rows, [&]<Index P>(Index p) {
      detail::in_pieces<kFeatures>(out.cols, [&]<Index F>(Index f) {
        weighed_tile<P, F>(weight, rows + p * row_registers(), features + f * feature_stride,
                           feature_stride, m, out.data + p * out.stride + f, out.stride, add);
      });
    });
  }
  template <Index P, Index F>
  [[gnu::noinline, gnu::flatten]] void weighed_tile(const Lane* weight, const Lane* rows,
                                                    const double* features, Index feature_stride,
                                                    Index m, S* out, Index out_stride,
                                                    bool add) const {
    Lane sum[P][F] = {};
    const Index next = row_registers();
    for (Index i = 0; i < m; ++i) {
      Lane weighed[P];
      const Lane w = pinned(weight[i]);
      unrolled<P>([&](auto p) { weighed[p] = pinned(w * rows[p * next + i]); });
      unrolled<F>([&](auto f) {
        const Lane x = pinned(Network<S>::shared_row(features + f * feature_stride, i));
        unrolled<P>([&](auto p) { sum[p][f] += weighed[p] * x; });
      });
    }
    for (Index p = 0; p < P; ++p)
      for (Index f = 0; f < F; ++f) keep_total(sum[p][f], out[p * out_stride + f], add);
  }

  // Row of L_cd, c <= d.
  Index pair(Index c, Index d) const { return c * rank_ - c * (c - 1) / 2 + d - c; }

  // L_cd = -p_c p_d, and L_cc = p_c times the sum of all other p: nothing cancels.
  void output_curvature(const Network<S>& net, Index m) {
    for (Index c = 0; c < rank_; ++c) {
      const Lane* p = net.probability(c);
      Lane* own = row(curvature_, pair(c, c));
      std::fill_n(own, m, splat<Lane>(0.0));
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

  // --- Hessian

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
  void sum_residuals(const Network<S>& net, const Samples& samples, bool add) {
    for (Index c = 0; c < rank_; ++c)
      multiply_weighed(net.delta(2, c), net.slope(1, 0), samples.inputs, samples.stride,
                       net.registers(samples), Matrix<S>(e_.data() + c * h_ * d1_, h_, d1_), add);
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

  // --- products with vectors

  // E and D, which all vectors share.
  void add_residual_terms(const Network<S>& net, const Samples& samples) {
    sum_residuals(net, samples, true);
    multiply_nt(array(net.curvatures(1), h_, samples.count, stride_), input_pairs(samples),
                Matrix<S>(d_.data(), h_, n_pairs_), true);
  }

  // The entries of A inputs from a of unit j, whose D lies in unit_.
  template <Index A>
  void finish_inputs(Index j, Index a, S* out) const {
    for (Index v = 0; v < k_; ++v) {
      const S* w = vectors_ + v * vector_stride_ + j * d1_;
      const S* hv1 = hv1_.data() + (v * h_ + j) * d1_ + a;
      S sum[A];
      unrolled<A>([&](auto i) { sum[i] = hv1[i]; });
      for (Index b = 0; b < d1_; ++b)
        unrolled<A>([&](auto i) { sum[i] += unit_[b * d1_ + a + i] * w[b]; });
      for (Index c = 0; c < rank_; ++c) {
        const S *e = e_.data() + (c * h_ + j) * d1_ + a, v2 = v2_[(v * rank_ + c) * h1_ + j];
        unrolled<A>([&](auto i) { sum[i] += e[i] * v2; });
      }
      S* to = out + v * arch_.n_params + j * d1_ + a;
      unrolled<A>([&](auto i) { to[i] = sum[i]; });
    }
  }

  // For vectors begin ... end - 1; `samples` is a slice that begins at sample `first` of the block.
  void add_slice(const Network<S>& net, const Samples& samples, Index first, Index begin,
                 Index end) {
    const Index m = net.registers(samples), from = first / (kWidth<S> == 1 ? kLanes : 1);
    const auto values = array(net.values(1) + first, h1_, samples.count, stride_);
    const Index rows = (end - begin) * rank_, row = begin * rank_;
    for (Index v = begin; v < end; v += kVectors)
      detail::in_pieces<kMostChunk>(rank_, [&]<Index C>(Index c) {
        detail::in_pieces<5>(d1_ - 1, [&]<Index A>(Index a) {
          for (Index i = 0; i < m; i += kTile) forward_tile<C, A>(net, samples, v, c, a, from, i);
        });
      });
    for (Index v = begin; v < end && curved_.size() > 0; ++v)
      apply_curvature(outputs_.data() + v * rank_ * slice_stride_, slice_stride_,
                      curved_.data() + v * rank_ * slice_stride_, slice_stride_, from, m);
    for (Index v = begin; v < end; v += kVectors)
      detail::in_pieces<kMostChunk>(rank_, [&]<Index C>(Index c) {
        detail::in_pieces<4>(d1_ - 1, [&]<Index A>(Index a) {
          for (Index j = 0; j < h_; j += kUnits) backward_tile<C, A>(samples, v, c, a, j, from, m);
        });
      });
    multiply_nt(array(curved().data() + row * slice_stride_, rows, samples.count, slice_stride_),
                values, Matrix<S>(hv2_.data() + row * h1_, rows, h1_), true);
  }

  // o_c = v'_c . h and the biases' part of W'_j . x for the first inputs, and += sum_j u_cj
  // (W'_j . x), for C outputs from c, A inputs from a, kTile samples (registers) from i, and the
  // vectors from v. Past the last sample it reads and writes numbers without a meaning.
  template <Index C, Index A>
  [[gnu::noinline, gnu::flatten]] void forward_tile(const Network<S>& net, const Samples& samples,
                                                    Index v, Index c, Index a, Index from,
                                                    Index i) {
    Lane o[kVectors][C][kTile];
    Lane* to = slice_row(outputs_, v * rank_ + c) + i;
    const Index next = rank_ * slice_registers(), row_next = slice_registers();
    auto each_output = [&](auto f) {
      unrolled<kVectors>([&](auto b) {
        unrolled<C>([&](auto e) {
          unrolled<kTile>([&](auto t) { f(o[b][e][t], to[b * next + e * row_next + t]); });
        });
      });
    };
    const S *v2 = v2_.data() + (v * rank_ + c) * h1_, *w = vectors_ + v * vector_stride_;
    const Index w_next = v + 1 < k_ ? vector_stride_ : 0;  // a last single vector goes twice
    const S none[kVectors] = {};                           // the first inputs have brought it
    const S* bias = a > 0 ? none : w + d1_ - 1;
    const Index bias_next = a > 0 ? 1 : w_next, bias_unit = a > 0 ? 0 : d1_;
    if (a > 0) {
      each_output([](Lane& sum, const Lane& kept) { sum = kept; });
    } else {
      unrolled<kVectors>([&](auto b) {
        unrolled<C>([&](auto e) {
          const Lane start = shared<Lane>(v2[(b * rank_ + e) * h1_ + h_]);
          unrolled<kTile>([&](auto t) { o[b][e][t] = start; });
        });
      });
      const Lane* value = net.value(1, 0) + from + i;
      for (Index k = 0; k < h_; ++k, value += row_registers()) {
        Lane h[kTile];
        unrolled<kTile>([&](auto t) { h[t] = pinned(value[t]); });
        unrolled<kVectors>([&](auto b) {
          unrolled<C>([&](auto e) {
            const Lane weight = pinned(shared<Lane>(v2[(b * rank_ + e) * h1_ + k]));
            unrolled<kTile>([&](auto t) { o[b][e][t] += weight * h[t]; });
          });
        });
      }
    }
    w += a;
    const Lane* u = row(u_, c * h_) + from + i;
    const Index u_next = h_ * row_registers();
    const double* x = samples.inputs + a * samples.stride + i * (kWidth<S> == 1 ? kLanes : 1);
    for (Index j = 0; j < h_; ++j, w += d1_, bias += bias_unit, u += row_registers()) {
      Lane z[kVectors][kTile];
      unrolled<kVectors>([&](auto b) {
        const Lane start = shared<Lane>(bias[b * bias_next]);
        unrolled<kTile>([&](auto t) { z[b][t] = start; });
      });
      unrolled<A>([&](auto g) {
        Lane weight[kVectors];
        unrolled<kVectors>([&](auto b) { weight[b] = pinned(shared<Lane>(w[b * w_next + g])); });
        unrolled<kTile>([&](auto t) {
          const Lane xt = pinned(Network<S>::shared_row(x + g * samples.stride, t));
          unrolled<kVectors>([&](auto b) { z[b][t] += weight[b] * xt; });
        });
      });
      unrolled<C>([&](auto e) {
        unrolled<kTile>([&](auto t) {
          const Lane ut = pinned(u[e * u_next + t]);
          unrolled<kVectors>([&](auto b) { o[b][e][t] += ut * z[b][t]; });
        });
      });
    }
    if (arch_.classifies() && C == rank_ && a + A == d1_ - 1) curve(o, from + i);
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
    Lane sum[kVectors][kUnits][A + 1] = {};
    const Lane* q = slice_row(curved(), v * rank_ + c);
    const Lane* u = row(u_, c * h_ + j) + from;
    const Index q_next = slice_registers(), q_vector = rank_ * q_next;
    const Index u_unit = row_registers(), u_next = h_ * u_unit;
    const double* x = samples.inputs + a * samples.stride;
    [[maybe_unused]] const double* ones = samples.inputs + (d1_ - 1) * samples.stride;
    for (Index i = 0; i < m; ++i) {
      Lane p[kVectors][kUnits];
      unrolled<C>([&](auto e) {
        Lane qe[kVectors];
        unrolled<kVectors>([&](auto b) { qe[b] = pinned(q[b * q_vector + e * q_next + i]); });
        unrolled<kUnits>([&](auto g) {
          const Lane ue = pinned(u[e * u_next + g * u_unit + i]);
          unrolled<kVectors>([&](auto b) { p[b][g] = e == 0 ? ue * qe[b] : p[b][g] + ue * qe[b]; });
        });
      });
      unrolled<A>([&](auto e) {
        const Lane xe = pinned(Network<S>::shared_row(x + e * samples.stride, i));
        unrolled<kVectors>(
            [&](auto b) { unrolled<kUnits>([&](auto g) { sum[b][g][e] += p[b][g] * xe; }); });
      });
      unrolled<kVectors>([&](auto b) {
        unrolled<kUnits>([&](auto g) {
          if constexpr (kWidth<S> == 1) {  // past the last sample, where p is anything, stands no 1
            sum[b][g][A] += p[b][g] * Network<S>::shared_row(ones, i);
          } else {
            sum[b][g][A] += p[b][g];
          }
        });
      });
    }
    for (Index b = 0; b < kVectors && v + b < k_; ++b)
      for (Index g = 0; g < kUnits && j + g < h_; ++g) {
        S* to = hv1_.data() + ((v + b) * h_ + j + g) * d1_;
        for (Index e = 0; e < A; ++e) to[a + e] += total(sum[b][g][e]);
        if (a == 0) to[d1_ - 1] += total(sum[b][g][A]);
      }
  }

  // The sum over samples that one register holds.
  static S total(const Lane& value) {
    if constexpr (kWidth<S> == 1) {
      return pylyap::total(value);
    } else {
      return value;
    }
  }
  static void keep_total(const Lane& sum, S& target, bool add) {
    target = add ? target + total(sum) : total(sum);
  }
  Index row_registers() const { return stride_ / (kWidth<S> == 1 ? kLanes : 1); }
  Index slice_registers() const { return slice_stride_ / (kWidth<S> == 1 ? kLanes : 1); }

  // q = L o; few outputs are multiplied where they are formed.
  Buffer<S>& curved() { return curved_.size() > 0 ? curved_ : outputs_; }
  Lane* slice_row(Buffer<S>& buffer, Index r) const {
    return reinterpret_cast<Lane*>(buffer.data() + r * slice_stride_);
  }

  const Architecture& arch_;
  const Index d1_, h_, h1_, rank_;
  const Index curved_outputs_;  // whose sums the Hessian needs
  const Index n_pairs_, stride_, pair_stride_;
  Index slice_stride_ = 0, k_ = 0, vector_stride_ = 0;
  const S* vectors_ = nullptr;
  Buffer<S> u_, curvature_;
  Buffer<double> pairs_;
  Buffer<S> work_, e_;
  Buffer<S> g_, hidden_, mixed_, outer_, relative_;         // Hessian
  Buffer<S> outputs_, curved_, v2_, hv1_, hv2_, d_, unit_;  // vectors
};

}  // namespace pylyap
