// Products of the Hessian of a net with one hidden layer with vectors (features.hpp has the
// formulas): `load` and `finish` once per step, `prepare` and `add` per block of samples.
#pragma once

#include <algorithm>

#include "../team.hpp"
#include "features.hpp"

namespace pylyap::three_layer {

template <class S>
class Products : public Features<S> {
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
  using Base::n_pairs_;
  using Base::pair;
  using Base::rank_;
  using Base::row;
  using Base::row_registers;
  using Base::stride_;
  using Base::sum_residuals;
  using Base::u_;

 public:
  // For k vectors, over blocks of at most `block` samples.
  Products(const Architecture& arch, Index block, Index k)
      : Base(arch, block, true),
        slice_stride_(row_stride<S>(kSlice)),
        outputs_((k + k % kVectors) * rank_ * slice_stride_),
        curved_(arch.classifies() && rank_ > kMostChunk ? outputs_.size() : 0),
        v2_((k + k % kVectors) * rank_ * h1_),
        hv1_(k * h_ * d1_),
        hv2_(k * rank_ * h1_),
        d_(h_ * n_pairs_),
        unit_(d1_ * d1_) {}

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

  // Register tiles of the products with vectors.
  static constexpr Index kVectors = 2, kMostChunk = 4;
  static constexpr Index kTile = kRegisters >= 32 ? 4 : 2, kUnits = kRegisters >= 32 ? 2 : 1;

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
        for (Index e = 0; e < A; ++e) to[a + e] += sum_over_run<S>(sum[b][g][e]);
        if (a == 0) to[d1_ - 1] += sum_over_run<S>(sum[b][g][A]);
      }
  }

  Index slice_registers() const { return slice_stride_ / (kWidth<S> == 1 ? kLanes : 1); }

  // q = L o; few outputs are multiplied where they are formed.
  Buffer<S>& curved() { return curved_.size() > 0 ? curved_ : outputs_; }
  Lane* slice_row(Buffer<S>& buffer, Index r) const {
    return reinterpret_cast<Lane*>(buffer.data() + r * slice_stride_);
  }

  const Index slice_stride_;
  Index k_ = 0, vector_stride_ = 0;
  const S* vectors_ = nullptr;
  Buffer<S> outputs_, curved_, v2_, hv1_, hv2_, d_, unit_;
};

}  // namespace pylyap::three_layer
