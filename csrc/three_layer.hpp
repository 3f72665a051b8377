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
// The product with a vector (W', v') passes through the R outputs:
//   o_c = v'_c . h + sum_j u_cj (W'_j . x),   q = L o,
//   (H V)_ck = < q_c h_k > + E terms,   (H V)_ja = < sum_c u_cj q_c x_a > + D and E terms
#pragma once

#include <algorithm>

#include "lanes.hpp"
#include "network.hpp"
#include "products.hpp"
#include "team.hpp"

namespace pylyap {

template <class S>
class ThreeLayer {
 public:
  static constexpr Index kMostOutputs = 32;  // L is held for every sample
  static constexpr Index kPairInputs = 16;   // up to here the pairs x_a x_b, a <= b, fit a cache

  static bool fits(const Architecture& arch) {
    return arch.three_layer() && !arch.sparse &&
           (!arch.classifies() || arch.outputs() <= kMostOutputs);
  }
  // Whether products with vectors are worth the structure; wide inputs go through plain products.
  static bool fits_vectors(const Architecture& arch) {
    return fits(arch) && arch.width(0) + 1 <= kPairInputs;
  }

  // For k vectors in `members` threads, or for the Hessian if `dense`, over blocks of at most
  // `block` samples.
  ThreeLayer(const Architecture& arch, Index block, Index k, bool dense, Index members)
      : arch_(arch),
        d1_(arch.width(0) + 1),
        h_(arch.width(1)),
        h1_(h_ + 1),
        rank_(arch.classifies() ? arch.outputs() - 1 : arch.outputs()),
        n_pairs_(d1_ <= kPairInputs ? d1_ * (d1_ + 1) / 2 : 0),
        stride_(row_stride<S>(block)),
        pair_stride_(padded(block)),
        u_((rank_ * h_ + 1) * stride_),
        curvature_(arch.classifies() ? rank_ * (rank_ + 1) / 2 * stride_ : 0),
        pairs_(n_pairs_ * pair_stride_) {
    if (dense) {
      const Index rows = std::max({kPairRows, d1_, h1_, rank_ * h_});
      g_ = Buffer<S>(arch.classifies() ? rank_ * h_ * stride_ : 0);
      work_ = Buffer<S>(rows * stride_);
      product_ = Buffer<S>(std::max({kPairRows * d1_ * d1_, rank_ * h_ * d1_, h1_ * h1_}));
    } else {
      slice_stride_ = row_stride<S>(kSlice);
      work_ = Buffer<S>(h_ * stride_);
      curved_ = Buffer<S>(members * rank_ * slice_stride_);
      outputs_ = Buffer<S>((k + k % kVectors) * rank_ * slice_stride_);
      v2_ = Buffer<S>(k * rank_ * h1_);
      hv1_ = Buffer<S>(k * h_ * d1_);
      hv2_ = Buffer<S>(k * rank_ * h1_);
      e_ = Buffer<S>(rank_ * h_ * d1_);
      d_ = Buffer<S>(h_ * n_pairs_);
    }
  }

  // Once per block, after the network's `evaluate` and `prepare_tangents`.
  void prepare(const S* weights, const Network<S>& net, const Samples& samples) {
    const Index m = net.registers(samples);
    const S* v = weights + arch_.offset(2);
    for (Index c = 0; c < rank_; ++c) {
      for (Index j = 0; j < h_; ++j) {
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
      }
    }
  }

  // hessian (n_params, n_params) += H of this block; symmetric to the bit.
  void add_hessian(const Network<S>& net, const Samples& samples, S* hessian) {
    const Index m = net.registers(samples);
    for (Index j = 0; j < h_ && arch_.classifies(); ++j)
      apply_curvature(u_.data() + j * stride_, h_ * stride_, g_.data() + j * stride_, h_ * stride_,
                      0, m);
    if (n_pairs_ > 0) {
      hidden_hidden_by_pairs(net, samples, hessian);
    } else {
      hidden_hidden_wide(net, samples, hessian);
    }
    output_hidden(net, samples, hessian);
    output_output(net, samples, hessian);
  }

  // --- products with k vectors: `load` and `finish` once per step, `add` per block
  // ------------------

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
    team.share(k_, kVectors, [&](Index begin, Index end, Index member) {
      for (Index s = 0; s < samples.count; s += kSlice)
        add_slice(net, samples.slice(s, kSlice), s, begin, end, member);
    });
  }

  // out (k, n_params) += the products.
  void finish(S* out) {
    const Index np = arch_.n_params;
    for (Index v = 0; v < k_; ++v) {
      const S *w = vectors_ + v * vector_stride_, *v2 = v2_.data() + v * rank_ * h1_;
      S *hw = out + v * np, *hv = hw + arch_.offset(2);
      const S *from1 = hv1_.data() + v * h_ * d1_, *from2 = hv2_.data() + v * rank_ * h1_;
      for (Index i = 0; i < h_ * d1_; ++i) hw[i] += from1[i];
      for (Index j = 0; j < h_; ++j) {
        const S* d = d_.data() + j * n_pairs_;
        for (Index a = 0; a < d1_; ++a) {
          for (Index b = a; b < d1_; ++b, ++d) {
            hw[j * d1_ + a] += *d * w[j * d1_ + b];
            if (a != b) hw[j * d1_ + b] += *d * w[j * d1_ + a];
          }
        }
      }
      for (Index c = 0; c < rank_; ++c) {
        for (Index k = 0; k < h1_; ++k) {
          S value = from2[c * h1_ + k];
          if (k < h_) {
            const S* e = e_.data() + (c * h_ + k) * d1_;
            for (Index a = 0; a < d1_; ++a) {
              hw[k * d1_ + a] += e[a] * v2[c * h1_ + k];
              value += e[a] * w[k * d1_ + a];
            }
          }
          hv[c * h1_ + k] += value;
          if (arch_.classifies()) hv[rank_ * h1_ + k] -= value;
        }
      }
    }
  }

 private:
  static constexpr Index kPairRows = 12;  // pairs of units weighed at a time: whole register tiles
  static constexpr Index kSlice = kWidth<S> == 1 ? 256 : 32;  // samples all vectors see at a time

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
  // ------------------------------------------------------------------------------------

  // H(p, q) and H(q, p) += value, p != q.
  void add_both(S* hessian, Index p, Index q, const S& value) const {
    hessian[p * arch_.n_params + q] += value;
    hessian[q * arch_.n_params + p] += value;
  }

  // The entries of units j <= k with inputs a <= b: up to four, mirrored.
  void add_unit_pair(S* hessian, Index j, Index k, Index a, Index b, const S& value) const {
    if (j == k && a == b) {
      hessian[(j * d1_ + a) * (arch_.n_params + 1)] += value;
      return;
    }
    add_both(hessian, j * d1_ + a, k * d1_ + b, value);
    if (j != k && a != b) add_both(hessian, j * d1_ + b, k * d1_ + a, value);
  }

  // The entry of output c, unit k (or the constant) with hidden parameter p; for the softmax what
  // the last output gets, too.
  void add_output_hidden(S* hessian, Index c, Index k, Index p, const S& value) const {
    const Index base = arch_.offset(2);
    add_both(hessian, base + c * h1_ + k, p, value);
    if (arch_.classifies()) add_both(hessian, base + rank_ * h1_ + k, p, -value);
  }

  // g_cj = sum_d L_cd u_dj, one row of registers; the same as u for squared errors.
  const Lane* g(Index c, Index j) const { return row(arch_.classifies() ? g_ : u_, c * h_ + j); }

  // Row r of work <- sum_c u_cj g_ck, and the unit's own curvature where j = k.
  void weigh(const Network<S>& net, Index j, Index k, Index r, Index m) {
    Lane* weight = row(work_, r);
    if (k == j) {
      const Lane *own = net.curvature(1, j), *u = row(u_, j), *gk = g(0, k);
      for (Index i = 0; i < m; ++i) weight[i] = own[i] + u[i] * gk[i];
    } else {
      times(row(u_, j), g(0, k), weight, m);
    }
    for (Index c = 1; c < rank_; ++c) {
      const Lane *u = row(u_, c * h_ + j), *gk = g(c, k);
      for (Index i = 0; i < m; ++i) weight[i] += u[i] * gk[i];
    }
  }

  void hidden_hidden_by_pairs(const Network<S>& net, const Samples& samples, S* hessian) {
    const Index m = net.registers(samples);
    const auto features = shared_array<S>(pairs_.data(), n_pairs_, samples.count, pair_stride_);
    Index first_j = 0, first_k = 0;  // of the units in work
    for (Index j = 0, k = 0, rows = 0; j < h_;) {
      if (rows == 0) first_j = j, first_k = k;
      weigh(net, j, k, rows++, m);
      if (++k == h_) k = ++j;
      if (rows < kPairRows && j < h_) continue;
      multiply_nt(work(rows, samples), features, Matrix<S>(product_.data(), rows, n_pairs_));
      const S* value = product_.data();
      for (Index r = 0, jj = first_j, kk = first_k; r < rows; ++r) {
        for (Index a = 0; a < d1_; ++a)
          for (Index b = a; b < d1_; ++b, ++value) add_unit_pair(hessian, jj, kk, a, b, *value);
        if (++kk == h_) kk = ++jj;
      }
      rows = 0;
    }
  }

  void hidden_hidden_wide(const Network<S>& net, const Samples& samples, S* hessian) {
    const Index m = net.registers(samples);
    for (Index j = 0; j < h_; ++j) {
      for (Index k = j; k < h_; ++k) {
        weigh(net, j, k, 0, m);
        for (Index a = 1; a < d1_; ++a) times_input(samples, a, row(work_, 0), row(work_, a));
        times_input(samples, 0, row(work_, 0), row(work_, 0));
        const Matrix<S> product(product_.data(), d1_, d1_);
        multiply_nt(work(d1_, samples), inputs(d1_, samples), product);
        for (Index a = 0; a < d1_; ++a)
          for (Index b = a; b < d1_; ++b)
            add_unit_pair(hessian, j, k, a, b, product.data[a * d1_ + b]);
      }
    }
  }

  void output_hidden(const Network<S>& net, const Samples& samples, S* hessian) {
    const Index m = net.registers(samples);
    detail::in_pieces<kInputsAtOnce>(d1_, [&]<Index A>(Index a) {
      detail::in_pieces<units_at_once(A)>(h1_, [&]<Index K>(Index k) {
        detail::in_pieces<most_rows(A * K)>(rank_ * h_, [&]<Index R>(Index r) {
          feature_tile<A, K, R>(net, samples, a, r, k, m, hessian);
        });
      });
    });
    for (Index c = 0; c < rank_; ++c)
      for (Index j = 0; j < h_; ++j)
        times(net.delta(2, c), net.slope(1, j), row(work_, c * h_ + j), m);
    multiply_nt(work(rank_ * h_, samples), inputs(d1_, samples),
                Matrix<S>(product_.data(), rank_ * h_, d1_));
    const S* value = product_.data();
    for (Index c = 0; c < rank_; ++c)
      for (Index j = 0; j < h_; ++j)
        for (Index a = 0; a < d1_; ++a) add_output_hidden(hessian, c, j, j * d1_ + a, *value++);
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
                                                    Index a, Index r, Index k, Index m,
                                                    S* hessian) {
    Lane sum[R][K][A] = {};
    const Lane* h[K];
    unrolled<K>([&](auto b) { h[b] = net.value(1, k + b); });
    const Lane* from = row(arch_.classifies() ? g_ : u_, r);
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
    for (Index p = 0; p < R; ++p) {
      const Index c = (r + p) / h_, j = (r + p) % h_;
      for (Index b = 0; b < K; ++b)
        for (Index e = 0; e < A; ++e)
          add_output_hidden(hessian, c, k + b, j * d1_ + a + e, total(sum[p][b][e]));
    }
  }

  void output_output(const Network<S>& net, const Samples& samples, S* hessian) {
    const Index m = net.registers(samples), n = arch_.n_params, base = arch_.offset(2);
    const auto values = array(net.values(1), h1_, samples.count, stride_);
    const Matrix<S> product(product_.data(), h1_, h1_);
    if (!arch_.classifies()) {
      multiply_nt(values, values, product);
      for (Index c = 0; c < rank_; ++c) add_output_pair(hessian, c, c, product);
      return;
    }
    for (Index c = 0; c < rank_; ++c) {
      for (Index e = c; e < rank_; ++e) {
        for (Index k = 0; k < h1_; ++k)
          times(row(curvature_, pair(c, e)), net.value(1, k), row(work_, k), m);
        multiply_nt(work(h1_, samples), values, product);
        add_output_pair(hessian, c, e, product);
      }
    }
    // The last output from the others: L_cC = -sum_e L_ce, and L_CC = -sum_c L_cC.
    const Index last = base + rank_ * h1_;
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

  // The block of outputs c <= e from the products of their units, of which the upper half is read.
  void add_output_pair(S* hessian, Index c, Index e, const Matrix<S>& product) const {
    const Index n = arch_.n_params, base = arch_.offset(2);
    for (Index k = 0; k < h1_; ++k) {
      for (Index l = k; l < h1_; ++l) {
        const S& value = product.data[k * h1_ + l];
        const Index p = base + c * h1_ + k, q = base + e * h1_ + l;
        if (p == q) {
          hessian[p * n + q] += value;
        } else {
          add_both(hessian, p, q, value);
          if (c != e && k != l) add_both(hessian, base + c * h1_ + l, base + e * h1_ + k, value);
        }
      }
    }
  }

  // --- products with vectors
  // ------------------------------------------------------------------------

  // E and D, which all vectors share.
  void add_residual_terms(const Network<S>& net, const Samples& samples) {
    const Index m = net.registers(samples);
    for (Index c = 0; c < rank_; ++c) {
      for (Index j = 0; j < h_; ++j) times(net.delta(2, c), net.slope(1, j), row(work_, j), m);
      multiply_nt(work(h_, samples), inputs(d1_, samples),
                  Matrix<S>(e_.data() + c * h_ * d1_, h_, d1_), true);
    }
    for (Index j = 0; j < h_; ++j) std::copy_n(net.curvature(1, j), m, row(work_, j));
    multiply_nt(work(h_, samples),
                shared_array<S>(pairs_.data(), n_pairs_, samples.count, pair_stride_),
                Matrix<S>(d_.data(), h_, n_pairs_), true);
  }

  // For vectors begin ... end - 1; `samples` is a slice that begins at sample `first` of the block.
  void add_slice(const Network<S>& net, const Samples& samples, Index first, Index begin, Index end,
                 Index member) {
    const Index m = net.registers(samples), from = first / (kWidth<S> == 1 ? kLanes : 1);
    const auto values = array(net.values(1) + first, h1_, samples.count, stride_);
    const Index rows = (end - begin) * rank_, row = begin * rank_;
    const auto outputs =
        array(outputs_.data() + row * slice_stride_, rows, samples.count, slice_stride_);
    multiply(Matrix<const S>(v2_.data() + row * h1_, rows, h1_), values, outputs);
    for (Index v = begin; v < end; v += kVectors)
      detail::in_pieces<kMostChunk>(rank_, [&]<Index C>(Index c) {
        detail::in_pieces<5>(d1_, [&]<Index A>(Index a) {
          const Index rest = m % kTile;
          for (Index i = 0; i < m - rest; i += kTile)
            forward_tile<C, A, kTile>(samples, v, c, a, from, i);
          for (Index i = m - rest; i < m; ++i) forward_tile<C, A, 1>(samples, v, c, a, from, i);
        });
      });
    for (Index v = begin; v < end && arch_.classifies(); ++v) {
      S* o = outputs_.data() + v * rank_ * slice_stride_;
      S* curved = curved_.data() + member * rank_ * slice_stride_;
      apply_curvature(o, slice_stride_, curved, slice_stride_, from, m);
      std::copy_n(curved, rank_ * slice_stride_, o);
    }
    for (Index v = begin; v < end; v += kVectors)
      detail::in_pieces<kMostChunk>(rank_, [&]<Index C>(Index c) {
        detail::in_pieces<5>(d1_, [&]<Index A>(Index a) {
          for (Index j = 0; j < h_; j += kUnits) backward_tile<C, A>(samples, v, c, a, j, from, m);
        });
      });
    multiply_nt(outputs, values, Matrix<S>(hv2_.data() + row * h1_, rows, h1_), true);
  }

  // o_c += sum_j u_cj (W'_j . x) for C outputs from c, T samples (registers) from i, and the
  // vectors from v.
  template <Index C, Index A, Index T>
  [[gnu::noinline, gnu::flatten]] void forward_tile(const Samples& samples, Index v, Index c,
                                                    Index a, Index from, Index i) {
    Lane o[kVectors][C][T];
    Lane* to = slice_row(outputs_, v * rank_ + c) + i;
    const Index next = rank_ * slice_registers(), row_next = slice_registers();
    auto each_output = [&](auto f) {
      unrolled<kVectors>([&](auto b) {
        unrolled<C>([&](auto e) {
          unrolled<T>([&](auto t) { f(o[b][e][t], to[b * next + e * row_next + t]); });
        });
      });
    };
    each_output([](Lane& sum, const Lane& kept) { sum = kept; });
    const S* w = vectors_ + v * vector_stride_ + a;
    const Index w_next = v + 1 < k_ ? vector_stride_ : 0;  // a last single vector goes twice
    const Lane* u = row(u_, c * h_) + from + i;
    const Index u_next = h_ * row_registers();
    const double* x = samples.inputs + a * samples.stride + i * (kWidth<S> == 1 ? kLanes : 1);
    for (Index j = 0; j < h_; ++j, w += d1_, u += row_registers()) {
      Lane z[kVectors][T];
      unrolled<A>([&](auto g) {
        Lane weight[kVectors];
        unrolled<kVectors>([&](auto b) { weight[b] = pinned(shared<Lane>(w[b * w_next + g])); });
        unrolled<T>([&](auto t) {
          const Lane xt = pinned(Network<S>::shared_row(x + g * samples.stride, t));
          unrolled<kVectors>(
              [&](auto b) { z[b][t] = g == 0 ? weight[b] * xt : z[b][t] + weight[b] * xt; });
        });
      });
      unrolled<C>([&](auto e) {
        unrolled<T>([&](auto t) {
          const Lane ut = pinned(u[e * u_next + t]);
          unrolled<kVectors>([&](auto b) { o[b][e][t] += ut * z[b][t]; });
        });
      });
    }
    each_output([](const Lane& sum, Lane& kept) { kept = sum; });
  }

  // (H V)_ja += < sum_c u_cj q_c x_a > for C outputs from c, A inputs from a, and the units from j.
  template <Index C, Index A>
  [[gnu::noinline, gnu::flatten]] void backward_tile(const Samples& samples, Index v, Index c,
                                                     Index a, Index j, Index from, Index m) {
    Lane sum[kVectors][kUnits][A] = {};
    const Lane* q = slice_row(outputs_, v * rank_ + c);
    const Lane* u = row(u_, c * h_ + j) + from;
    const Index q_next = slice_registers(), q_vector = rank_ * q_next;
    const Index u_unit = row_registers(), u_next = h_ * u_unit;
    const double* x = samples.inputs + a * samples.stride;
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
    }
    for (Index b = 0; b < kVectors && v + b < k_; ++b)
      for (Index g = 0; g < kUnits && j + g < h_; ++g) {
        S* to = hv1_.data() + ((v + b) * h_ + j + g) * d1_ + a;
        for (Index e = 0; e < A; ++e) to[e] += total(sum[b][g][e]);
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
  Index row_registers() const { return stride_ / (kWidth<S> == 1 ? kLanes : 1); }
  Index slice_registers() const { return slice_stride_ / (kWidth<S> == 1 ? kLanes : 1); }

  Lane* slice_row(Buffer<S>& buffer, Index r) const {
    return reinterpret_cast<Lane*>(buffer.data() + r * slice_stride_);
  }

  const Architecture& arch_;
  const Index d1_, h_, h1_, rank_, n_pairs_, stride_, pair_stride_;
  Index slice_stride_ = 0, k_ = 0, vector_stride_ = 0;
  const S* vectors_ = nullptr;
  Buffer<S> u_, curvature_;
  Buffer<double> pairs_;
  Buffer<S> g_, work_, product_;                         // Hessian; work_ serves both
  Buffer<S> outputs_, curved_, v2_, hv1_, hv2_, e_, d_;  // vectors
};

}  // namespace pylyap
