// Forward pass, loss, gradient, Hessian and Hessian-vector products of a dense network.
//
// Inside the kernels a layer's weights are one matrix (n_out, n_in + 1) whose last column is the
// bias, and activations carry a last row of ones: so the bias needs no code of its own.
// `Architecture::external` maps that order to the documented one (W in C order, then b).
//
// Arrays of activations are (units, samples). Data are cut into blocks of samples that fit a cache;
// gradient, Hessian and products add up over blocks in order. Nothing is divided by the number of
// samples here: the optimiser's step does that once.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "activations.hpp"
#include "lanes.hpp"
#include "products.hpp"

namespace pylyap {

enum class Loss { mse, cross_entropy, cross_entropy_clipped };

inline constexpr double kClip = 1e-7;  // Keras' bound on probabilities

struct Architecture {
  std::vector<Index> sizes;                    // units per layer, input first
  std::vector<const Activation*> activations;  // one per hidden layer
  Loss loss;
  std::vector<Index> offsets;   // of layer l's matrix, l = 1 ... depth, in offsets[l - 1]
  std::vector<Index> external;  // documented position of each internal parameter
  Index n_params = 0;

  Architecture(std::vector<Index> sizes_, std::vector<const Activation*> activations_, Loss loss_)
      : sizes(std::move(sizes_)), activations(std::move(activations_)), loss(loss_) {
    for (Index l = 1; l <= depth(); ++l) {
      const Index in = width(l - 1), out = width(l);
      offsets.push_back(n_params);
      for (Index o = 0; o < out; ++o) {
        for (Index i = 0; i < in; ++i) external.push_back(n_params + o * in + i);
        external.push_back(n_params + out * in + o);
      }
      n_params += out * (in + 1);
    }
  }
  Index depth() const { return static_cast<Index>(sizes.size()) - 1; }
  Index width(Index l) const { return sizes[static_cast<std::size_t>(l)]; }
  Index outputs() const { return sizes.back(); }
  Index offset(Index l) const { return offsets[static_cast<std::size_t>(l - 1)]; }
  const Activation& activation(Index l) const {
    return *activations[static_cast<std::size_t>(l - 1)];
  }
  bool three_layer() const { return depth() == 2; }
  bool classifies() const { return loss != Loss::mse; }
};

// Samples as kernels see them: inputs (n_in + 1, stride) with a last row of ones; targets
// (n_out, stride), or one row of labels. `stride` is padded to whole registers.
struct Samples {
  const double* inputs;
  const double* targets;
  Index stride;
  Index count;

  Samples slice(Index begin, Index size) const {
    return {inputs + begin, targets + begin, stride, std::min(size, count - begin)};
  }
};

inline Index padded(Index count) { return (count + 7) / 8 * 8; }

template <class S>
class Network {
 public:
  Network(const Architecture& arch, Index block, bool tangents, bool dense)
      : arch_(arch), block_(block), stride_(kWidth<S> == 1 ? padded(block) : block) {
    const Index depth = arch.depth();
    for (Index l = 1; l <= depth; ++l) {
      Layer layer;
      const Index size = arch.width(l) * stride_;
      layer.pre = Buffer<S>(size);
      layer.delta = Buffer<S>(size);
      if (l < depth) {
        layer.value = Buffer<S>(size + stride_);
        for (Index s = 0; s < stride_; ++s) layer.value[size + s] = splat<S>(1.0);
        layer.slope = Buffer<S>(size);
        layer.error = Buffer<S>(size);
      }
      if (tangents) {
        layer.curvature = Buffer<S>(size);
        layer.pre_dot = Buffer<S>(size);
        layer.value_dot = Buffer<S>(size);
        layer.delta_dot = Buffer<S>(size);
      }
      layers_.push_back(std::move(layer));
    }
    probability_ = Buffer<S>(arch.outputs() * stride_);
    pivot_ = Buffer<S>(stride_);
    surprise_ = Buffer<S>(stride_);
    if (dense) allocate_dense();
  }

  // Adds the gradient (internal order) and, if asked for, the loss of these samples; keeps what the
  // tangent calls below need. `loss` may be null.
  void evaluate(const S* weights, const Samples& samples, S* gradient, S* loss) {
    forward(weights, samples);
    residual(samples);
    if (loss) *loss += sum_loss(samples);
    backward(weights, samples);
    for (Index l = 1; l <= arch_.depth(); ++l) {
      const auto delta = view(layer(l).delta, arch_.width(l), samples);
      Matrix<S> out(gradient + arch_.offset(l), arch_.width(l), arch_.width(l - 1) + 1);
      with_input(l, samples, [&](auto input) { multiply_nt(delta, input, out, true); });
    }
  }

  // The loss alone, summed over these samples.
  S loss(const S* weights, const Samples& samples) {
    forward(weights, samples);
    residual(samples);
    return sum_loss(samples);
  }

  // Outputs, or probabilities for the cross-entropies: (outputs, stride of the block).
  const S* predict(const S* weights, const Samples& samples) {
    forward(weights, samples);
    if (!arch_.classifies()) return layer(arch_.depth()).pre.data();
    softmax(samples);
    return probability_.data();
  }
  Index stride() const { return stride_; }

  // Once after `evaluate` and before the tangent calls: f'' times the error of each hidden unit.
  void prepare_tangents(const Samples& samples) {
    const Index m = registers(samples);
    for (Index l = 1; l < arch_.depth(); ++l) {
      Layer& a = layer(l);
      for (Index j = 0; j < arch_.width(l); ++j) {
        Lane* c = row(a.curvature, j);
        arch_.activation(l).curvature(row(a.pre, j), row(a.value, j), row(a.slope, j), c, m);
        const Lane* e = row(a.error, j);
        for (Index i = 0; i < m; ++i) c[i] *= e[i];
      }
    }
  }

  // out += H v, by the R-operator (Pearlmutter, Neural Computation 6, 147 (1994)).
  void add_hessian_vector(const S* weights, const Samples& samples, const S* v, S* out) {
    const Index depth = arch_.depth(), m = registers(samples);
    for (Index l = 1; l <= depth; ++l) {
      Layer& a = layer(l);
      const auto pre_dot = view(a.pre_dot, arch_.width(l), samples);
      with_input(l, samples, [&](auto input) { multiply(with_bias(v, l), input, pre_dot); });
      if (l > 1) multiply(without_bias(weights, l), value_dot(l - 1, samples), pre_dot, true);
      if (l == depth) break;
      for (Index j = 0; j < arch_.width(l); ++j)
        times(row(a.slope, j), row(a.pre_dot, j), row(a.value_dot, j), m);
    }
    Layer& top = layer(depth);
    output_curvature(top.pre_dot.data(), stride_, top.delta_dot.data(), stride_, m);
    for (Index l = depth; l >= 1; --l) {
      const auto delta = view(layer(l).delta, arch_.width(l), samples);
      const auto delta_dot = view(layer(l).delta_dot, arch_.width(l), samples);
      Matrix<S> target(out + arch_.offset(l), arch_.width(l), arch_.width(l - 1) + 1);
      with_input(l, samples, [&](auto input) { multiply_nt(delta_dot, input, target, true); });
      if (l == 1) break;
      target.cols -= 1;
      multiply_nt(delta, value_dot(l - 1, samples), target, true);
      Layer& below = layer(l - 1);
      const Index width = arch_.width(l - 1);
      const auto below_dot = view(below.delta_dot, width, samples);
      multiply_tn(without_bias(weights, l), delta_dot, below_dot);
      multiply_tn(without_bias(v, l), delta, below_dot, true);
      for (Index j = 0; j < width; ++j) {
        Lane* d = row(below.delta_dot, j);
        const Lane *slope = row(below.slope, j), *c = row(below.curvature, j);
        const Lane* z = row(below.pre_dot, j);
        for (Index i = 0; i < m; ++i) d[i] = slope[i] * d[i] + c[i] * z[i];
      }
    }
  }

  // hessian (n_params, n_params) += H: analytic blocks for one hidden layer, products with unit
  // vectors for any other depth. Symmetric to the bit.
  void add_hessian(const S* weights, const Samples& samples, S* hessian) {
    if (arch_.three_layer()) {
      hidden_hidden(weights, samples, hessian);
      output_hidden(samples, hessian);
      output_output(samples, hessian);
      return;
    }
    const Index n = arch_.n_params;
    for (Index i = 0; i < n; ++i) {
      std::fill_n(unit_.data(), n, S{});
      std::fill_n(column_.data(), n, S{});
      unit_[i] = splat<S>(1.0);
      add_hessian_vector(weights, samples, unit_.data(), column_.data());
      for (Index j = 0; j < n; ++j) {  // both triangles get the mean of H_ij and H_ji
        const S half = 0.5 * column_[j];
        hessian[i * n + j] += half;
        hessian[j * n + i] += half;
      }
    }
  }

 private:
  struct Layer {
    Buffer<S> pre, value, slope;  // z, f(z) with a row of ones, f'(z)
    Buffer<S> delta, error;       // dC/dz, dC/df, summed over samples where they meet weights
    Buffer<S> curvature;          // f''(z) dC/df
    Buffer<S> pre_dot, value_dot, delta_dot;  // their derivatives along a tangent vector
  };

  Layer& layer(Index l) { return layers_[static_cast<std::size_t>(l - 1)]; }

  Matrix<S> view(Buffer<S>& buffer, Index rows, const Samples& samples) const {
    return {buffer.data(), rows, samples.count, stride_};
  }
  Matrix<S> value_dot(Index l, const Samples& samples) {
    return view(layer(l).value_dot, arch_.width(l), samples);
  }
  Matrix<const S> with_bias(const S* w, Index l) const {
    return {w + arch_.offset(l), arch_.width(l), arch_.width(l - 1) + 1};
  }
  Matrix<const S> without_bias(const S* w, Index l) const {
    return {w + arch_.offset(l), arch_.width(l), arch_.width(l - 1), arch_.width(l - 1) + 1};
  }
  // What layer l reads, with its row of ones: data that all runs share, or the layer below.
  template <class F>
  void with_input(Index l, const Samples& samples, F&& f) {
    if (l == 1) {
      f(Matrix<const double>(samples.inputs, arch_.width(0) + 1, samples.count, samples.stride));
    } else {
      f(view(layer(l - 1).value, arch_.width(l - 1) + 1, samples));
    }
  }

  // Elementwise work is on whole registers, for one run across samples, for many across runs.
  Index registers(const Samples& samples) const {
    return kWidth<S> == 1 ? (samples.count + kLanes - 1) / kLanes : samples.count;
  }
  Lane* row(Buffer<S>& buffer, Index r) const {
    return reinterpret_cast<Lane*>(buffer.data() + r * stride_);
  }
  static Lane shared_row(const double* data, Index i) {
    if constexpr (kWidth<S> == 1) {
      Lane values;
      std::memcpy(&values, data + i * kLanes, sizeof values);
      return values;
    } else {
      return splat<Lane>(data[i]);
    }
  }
  static void times(const Lane* a, const Lane* b, Lane* out, Index count) {
    for (Index i = 0; i < count; ++i) out[i] = a[i] * b[i];
  }

  void forward(const S* weights, const Samples& samples) {
    const Index m = registers(samples);
    for (Index l = 1; l <= arch_.depth(); ++l) {
      Layer& a = layer(l);
      const auto pre = view(a.pre, arch_.width(l), samples);
      with_input(l, samples, [&](auto input) { multiply(with_bias(weights, l), input, pre); });
      if (l == arch_.depth()) break;
      for (Index j = 0; j < arch_.width(l); ++j)
        arch_.activation(l).value_slope(row(a.pre, j), row(a.value, j), row(a.slope, j), m);
    }
  }

  // p_c = e_c / (1 + others), e_c = exp(o_c - max o), others summed without the largest, so that
  // 1 - p keeps its digits where one class takes all. `pivot_` is the largest class.
  void softmax(const Samples& samples) {
    const Index classes = arch_.outputs(), m = registers(samples);
    Layer& top = layer(arch_.depth());
    Lane* pivot = row(pivot_, 0);
    Lane* others = row(surprise_, 0);
    for (Index i = 0; i < m; ++i) {
      Lane largest = row(top.pre, 0)[i];
      for (Index c = 1; c < classes; ++c) {
        const Lane o = row(top.pre, c)[i];
        largest = o > largest ? o : largest;
      }
      Lane winner = splat<Lane>(0.0);
      for (Index c = classes - 1; c > 0; --c)
        winner = row(top.pre, c)[i] == largest ? splat<Lane>(static_cast<double>(c)) : winner;
      winner = row(top.pre, 0)[i] == largest ? splat<Lane>(0.0) : winner;
      Lane sum = splat<Lane>(0.0);
      for (Index c = 0; c < classes; ++c) {
        const Lane e = exp_nonpositive(row(top.pre, c)[i] - largest).exp;
        row(probability_, c)[i] = e;
        sum += winner == static_cast<double>(c) ? splat<Lane>(0.0) : e;
      }
      const Lane inverse = 1.0 / (sum + 1.0);
      for (Index c = 0; c < classes; ++c) row(probability_, c)[i] *= inverse;
      pivot[i] = winner;
      others[i] = sum;
    }
  }

  // delta of the output layer: yhat - y, or p - onehot with the label's entry as minus the sum of
  // the others. The loss of a sample is log(1 + others) + margin; both are kept for `sum_loss`.
  void residual(const Samples& samples) {
    const Index outputs = arch_.outputs(), m = registers(samples);
    Layer& top = layer(arch_.depth());
    if (!arch_.classifies()) {
      for (Index c = 0; c < outputs; ++c) {
        const double* y = samples.targets + c * samples.stride;
        for (Index i = 0; i < m; ++i) row(top.delta, c)[i] = row(top.pre, c)[i] - shared_row(y, i);
      }
      return;
    }
    softmax(samples);
    for (Index i = 0; i < m; ++i) {
      const Lane label = shared_row(samples.targets, i);
      Lane wrong = splat<Lane>(0.0), right = splat<Lane>(0.0);
      for (Index c = 0; c < outputs; ++c) {
        const Lane p = row(probability_, c)[i];
        const LaneBits here = label == static_cast<double>(c);
        wrong += here ? splat<Lane>(0.0) : p;
        right += here ? p : splat<Lane>(0.0);
      }
      Lane active = splat<Lane>(1.0);
      if (arch_.loss == Loss::cross_entropy_clipped) {
        active = right < kClip ? splat<Lane>(0.0) : active;
        active = right > 1.0 - kClip ? splat<Lane>(0.0) : active;
      }
      for (Index c = 0; c < outputs; ++c) {
        const Lane p = row(probability_, c)[i];
        row(top.delta, c)[i] = active * (label == static_cast<double>(c) ? -wrong : p);
        row(probability_, c)[i] = active * p;
      }
    }
  }

  S sum_loss(const Samples& samples) {
    const Index outputs = arch_.outputs(), m = registers(samples);
    Layer& top = layer(arch_.depth());
    Lane* each_loss = row(surprise_, 0);
    for (Index i = 0; i < m; ++i) {
      Lane value = splat<Lane>(0.0);
      if (!arch_.classifies()) {
        for (Index c = 0; c < outputs; ++c) {
          const Lane r = row(top.delta, c)[i];
          value += 0.5 * r * r;
        }
      } else {
        const Lane label = shared_row(samples.targets, i);
        Lane at_label = splat<Lane>(0.0), largest = row(top.pre, 0)[i];
        for (Index c = 0; c < outputs; ++c) {
          const Lane o = row(top.pre, c)[i];
          largest = o > largest ? o : largest;
          at_label = label == static_cast<double>(c) ? o : at_label;
        }
        value = each(each_loss[i], [](double v) { return std::log1p(v); }) + (largest - at_label);
        if (arch_.loss == Loss::cross_entropy_clipped) {
          value = value > -std::log(kClip) ? splat<Lane>(-std::log(kClip)) : value;
          value = value < -std::log1p(-kClip) ? splat<Lane>(-std::log1p(-kClip)) : value;
        }
      }
      each_loss[i] = value;
    }
    S total{};
    for (Index s = 0; s < samples.count; ++s) total += surprise_[s];
    return total;
  }

  void backward(const S* weights, const Samples& samples) {
    const Index m = registers(samples);
    for (Index l = arch_.depth() - 1; l >= 1; --l) {
      Layer& a = layer(l);
      const auto delta = view(layer(l + 1).delta, arch_.width(l + 1), samples);
      multiply_tn(without_bias(weights, l + 1), delta, view(a.error, arch_.width(l), samples));
      for (Index j = 0; j < arch_.width(l); ++j)
        times(row(a.slope, j), row(a.error, j), row(a.delta, j), m);
    }
  }

  // out_c = sum_d L_cd in_d with the loss's curvature in the outputs, L = I or diag(p) - p p^T.
  // The softmax has rank outputs - 1: differences are taken to the largest class, whose row is
  // minus the sum of the others, so that nothing cancels where one class takes all.
  void output_curvature(const S* in, Index in_stride, S* out, Index out_stride, Index m) {
    const Index outputs = arch_.outputs();
    auto from = [&](Index c) { return reinterpret_cast<const Lane*>(in + c * in_stride); };
    auto to = [&](Index c) { return reinterpret_cast<Lane*>(out + c * out_stride); };
    if (!arch_.classifies()) {
      for (Index c = 0; c < outputs; ++c) std::copy_n(from(c), m, to(c));
      return;
    }
    const Lane* pivot = row(pivot_, 0);
    for (Index i = 0; i < m; ++i) {
      Lane reference = splat<Lane>(0.0), mean = splat<Lane>(0.0), sum = splat<Lane>(0.0);
      for (Index c = 0; c < outputs; ++c)
        reference = pivot[i] == static_cast<double>(c) ? from(c)[i] : reference;
      for (Index c = 0; c < outputs; ++c)
        mean += row(probability_, c)[i] * (from(c)[i] - reference);
      for (Index c = 0; c < outputs; ++c) {
        const Lane value = row(probability_, c)[i] * (from(c)[i] - reference - mean);
        to(c)[i] = value;
        sum += pivot[i] == static_cast<double>(c) ? splat<Lane>(0.0) : value;
      }
      for (Index c = 0; c < outputs; ++c)
        to(c)[i] = pivot[i] == static_cast<double>(c) ? -sum : to(c)[i];
    }
  }

  // --- Hessian of a net with one hidden layer, h units, C outputs, d inputs
  // ------------------------- With u_cj = v_cj f'_j, g = L u, and x_a, h_k including the constant
  // 1:
  //   W_ja W_kb   < sum_c u_cj g_ck x_a x_b >  + delta_jk < f''_j error_j x_a x_b >
  //   v_ck W_ja   < g_cj h_k x_a >             + delta_jk < delta_c f'_j x_a >
  //   v_ck v_dl   < L_cd h_k h_l >
  // For the softmax L, g and delta add up to zero over the outputs (rank C - 1): the last output is
  // minus the sum of the others, and u enters by its differences to the last.

  static constexpr Index kPairInputs = 16;  // up to here the pairs x_a x_b, a <= b, fit a cache
  static constexpr Index kPairRows = 12;  // pairs of units weighed at a time: whole register tiles
  static constexpr Index kFeatureRows = 64;  // products h_k x_a held at a time

  Index rank() const { return arch_.classifies() ? arch_.outputs() - 1 : arch_.outputs(); }

  void allocate_dense() {
    const Index d1 = arch_.width(0) + 1, n = arch_.n_params;
    if (!arch_.three_layer()) {
      unit_ = Buffer<S>(n);
      column_ = Buffer<S>(n);
      return;
    }
    const Index h = arch_.width(1), C = arch_.outputs();
    const bool by_pairs = d1 <= kPairInputs;
    const Index rows = std::max({kPairRows, kFeatureRows, d1, h + 1, rank() * h});
    u_ = Buffer<S>(C * h * stride_);
    g_ = Buffer<S>(C * h * stride_);
    work_ = Buffer<S>(rows * stride_);
    unit_ = Buffer<S>(2 * C * stride_);
    pairs_ = Buffer<double>(by_pairs ? d1 * (d1 + 1) / 2 * padded(block_) : 0);
    column_ = Buffer<S>(std::max(
        {kPairRows * d1 * d1, rank() * h * std::max(kFeatureRows, d1), (h + 1) * (h + 1)}));
  }

  // H(p, q) and H(q, p) += value, p != q.
  static void add_both(S* hessian, Index n, Index p, Index q, const S& value) {
    hessian[p * n + q] += value;
    hessian[q * n + p] += value;
  }

  Matrix<S> work(Index rows, const Samples& samples) {
    return {work_.data(), rows, samples.count, stride_};
  }
  static Matrix<const double> inputs(Index rows, const Samples& samples) {
    return {samples.inputs, rows, samples.count, samples.stride};
  }

  void hidden_hidden(const S* weights, const Samples& samples, S* hessian) {
    const Index d1 = arch_.width(0) + 1, h = arch_.width(1), C = arch_.outputs();
    const Index m = registers(samples);
    const auto v = without_bias(weights, 2);
    for (Index j = 0; j < h; ++j) {
      const Lane* slope = row(layer(1).slope, j);
      for (Index c = 0; c < C; ++c) {
        Lane* u = row(u_, c * h + j);
        const Lane weight = shared<Lane>(v.data[c * v.stride + j]);
        for (Index i = 0; i < m; ++i) u[i] = weight * slope[i];
      }
      S* u = u_.data() + j * stride_;
      output_curvature(u, h * stride_, g_.data() + j * stride_, h * stride_, m);
      for (Index c = 0; c < C - 1 && arch_.classifies(); ++c) {
        const Lane* last = row(u_, (C - 1) * h + j);
        Lane* difference = row(u_, c * h + j);
        for (Index i = 0; i < m; ++i) difference[i] -= last[i];
      }
    }
    if (d1 <= kPairInputs) {
      hidden_hidden_by_pairs(samples, hessian);
      return;
    }
    for (Index j = 0; j < h; ++j) {
      for (Index k = j; k < h; ++k) {
        weigh(j, k, 0, m);
        for (Index a = 1; a < d1; ++a) times_input(samples, a, row(work_, 0), row(work_, a));
        times_input(samples, 0, row(work_, 0), row(work_, 0));
        const Matrix<S> product(column_.data(), d1, d1);
        multiply_nt(work(d1, samples), inputs(d1, samples), product);
        for (Index a = 0; a < d1; ++a)
          for (Index b = a; b < d1; ++b)
            add_unit_pair(hessian, j, k, a, b, product.data[a * d1 + b]);
      }
    }
  }

  void hidden_hidden_by_pairs(const Samples& samples, S* hessian) {
    const Index d1 = arch_.width(0) + 1, h = arch_.width(1), m = registers(samples);
    const Index pairs = d1 * (d1 + 1) / 2, pair_stride = padded(block_);
    double* p = pairs_.data();
    for (Index a = 0; a < d1; ++a) {
      for (Index b = a; b < d1; ++b, p += pair_stride) {
        const double* xa = samples.inputs + a * samples.stride;
        const double* xb = samples.inputs + b * samples.stride;
        for (Index s = 0; s < samples.count; ++s) p[s] = xa[s] * xb[s];
      }
    }
    const Matrix<const double> features(pairs_.data(), pairs, samples.count, pair_stride);
    Index first_j = 0, first_k = 0;  // of the units in work
    for (Index j = 0, k = 0, rows = 0; j < h;) {
      if (rows == 0) first_j = j, first_k = k;
      weigh(j, k, rows++, m);
      if (++k == h) k = ++j;
      if (rows < kPairRows && j < h) continue;
      multiply_nt(work(rows, samples), features, Matrix<S>(column_.data(), rows, pairs));
      const S* value = column_.data();
      for (Index r = 0, jj = first_j, kk = first_k; r < rows; ++r) {
        for (Index a = 0; a < d1; ++a)
          for (Index b = a; b < d1; ++b, ++value) add_unit_pair(hessian, jj, kk, a, b, *value);
        if (++kk == h) kk = ++jj;
      }
      rows = 0;
    }
  }

  // Row r of work <- sum_c u_cj g_ck, and the unit's own curvature where j = k.
  void weigh(Index j, Index k, Index r, Index m) {
    const Index h = arch_.width(1);
    Lane* weight = row(work_, r);
    const Lane* own = row(layer(1).curvature, j);
    for (Index i = 0; i < m; ++i) weight[i] = k == j ? own[i] : splat<Lane>(0.0);
    for (Index c = 0; c < rank(); ++c) {
      const Lane *u = row(u_, c * h + j), *g = row(g_, c * h + k);
      for (Index i = 0; i < m; ++i) weight[i] += u[i] * g[i];
    }
  }

  void times_input(const Samples& samples, Index a, const Lane* from, Lane* to) const {
    const double* x = samples.inputs + a * samples.stride;
    const Index m = registers(samples);
    for (Index i = 0; i < m; ++i) to[i] = from[i] * shared_row(x, i);
  }

  // The entries of units j <= k with inputs a <= b: up to four, mirrored.
  void add_unit_pair(S* hessian, Index j, Index k, Index a, Index b, const S& value) const {
    const Index d1 = arch_.width(0) + 1, n = arch_.n_params;
    if (j == k && a == b) {
      hessian[(j * d1 + a) * n + j * d1 + a] += value;
      return;
    }
    add_both(hessian, n, j * d1 + a, k * d1 + b, value);
    if (j != k && a != b) add_both(hessian, n, j * d1 + b, k * d1 + a, value);
  }

  // The entry of output c, unit k (or the constant) with hidden parameter p; for the softmax what
  // the last output gets, too.
  void add_output_hidden(S* hessian, Index c, Index k, Index p, const S& value) const {
    const Index h1 = arch_.width(1) + 1, n = arch_.n_params, base = arch_.offset(2);
    add_both(hessian, n, base + c * h1 + k, p, value);
    if (arch_.classifies()) add_both(hessian, n, base + rank() * h1 + k, p, -value);
  }

  void output_hidden(const Samples& samples, S* hessian) {
    const Index d1 = arch_.width(0) + 1, h = arch_.width(1), m = registers(samples);
    Layer &hidden = layer(1), &top = layer(2);
    const Index at_once = std::max(Index{1}, kFeatureRows / d1);
    const Matrix<const S> g(g_.data(), rank() * h, samples.count, stride_);
    for (Index first = 0; first <= h; first += at_once) {
      const Index units = std::min(at_once, h + 1 - first), features = units * d1;
      for (Index f = 0; f < features; ++f)
        times_input(samples, f % d1, row(hidden.value, first + f / d1), row(work_, f));
      multiply_nt(g, Matrix<const S>(work(features, samples)),
                  Matrix<S>(column_.data(), rank() * h, features));
      for (Index c = 0; c < rank(); ++c) {
        for (Index j = 0; j < h; ++j) {
          const S* value = column_.data() + (c * h + j) * features;
          for (Index f = 0; f < features; ++f)
            add_output_hidden(hessian, c, first + f / d1, j * d1 + f % d1, value[f]);
        }
      }
    }
    for (Index c = 0; c < rank(); ++c)
      for (Index j = 0; j < h; ++j)
        times(row(top.delta, c), row(hidden.slope, j), row(work_, c * h + j), m);
    multiply_nt(work(rank() * h, samples), inputs(d1, samples),
                Matrix<S>(column_.data(), rank() * h, d1));
    for (Index c = 0; c < rank(); ++c)
      for (Index j = 0; j < h; ++j)
        for (Index a = 0; a < d1; ++a)
          add_output_hidden(hessian, c, j, j * d1 + a, column_[(c * h + j) * d1 + a]);
  }

  void output_output(const Samples& samples, S* hessian) {
    const Index h1 = arch_.width(1) + 1, C = arch_.outputs(), n = arch_.n_params;
    const Index m = registers(samples), base = arch_.offset(2);
    Layer& hidden = layer(1);
    const auto values = view(hidden.value, h1, samples);
    const Matrix<S> product(column_.data(), h1, h1);
    if (!arch_.classifies()) {
      multiply_nt(values, values, product);
      for (Index c = 0; c < C; ++c) add_output_pair(hessian, c, c, product);
      return;
    }
    for (Index c = 0; c < rank(); ++c) {
      for (Index e = 0; e < C; ++e)  // unit vector e_c, then L e_c in the second half of unit_
        std::fill_n(row(unit_, e), m, splat<Lane>(e == c ? 1.0 : 0.0));
      output_curvature(unit_.data(), stride_, unit_.data() + C * stride_, stride_, m);
      for (Index e = c; e < rank(); ++e) {
        for (Index k = 0; k < h1; ++k)
          times(row(unit_, C + e), row(hidden.value, k), row(work_, k), m);
        multiply_nt(work(h1, samples), values, product);
        add_output_pair(hessian, c, e, product);
      }
    }
    // The last output from the others: L_cC = -sum_e L_ce, and L_CC = -sum_c L_cC.
    const Index last = base + rank() * h1;
    for (Index k = 0; k < h1; ++k) {
      for (Index l = 0; l < h1; ++l) {
        S corner{};
        for (Index c = 0; c < rank(); ++c) {
          S edge{};
          for (Index e = 0; e < rank(); ++e)
            edge -= hessian[(base + c * h1 + k) * n + base + e * h1 + l];
          hessian[(base + c * h1 + k) * n + last + l] = edge;
          hessian[(last + l) * n + base + c * h1 + k] = edge;
          corner -= edge;
        }
        if (l >= k) hessian[(last + k) * n + last + l] = corner;
        if (l >= k) hessian[(last + l) * n + last + k] = corner;
      }
    }
  }

  // The block of outputs c <= e from the products of their units, of which the upper half is read.
  void add_output_pair(S* hessian, Index c, Index e, const Matrix<S>& product) const {
    const Index h1 = arch_.width(1) + 1, n = arch_.n_params, base = arch_.offset(2);
    for (Index k = 0; k < h1; ++k) {
      for (Index l = k; l < h1; ++l) {
        const S& value = product.data[k * h1 + l];
        const Index p = base + c * h1 + k, q = base + e * h1 + l;
        if (p == q) {
          hessian[p * n + q] += value;
        } else {
          add_both(hessian, n, p, q, value);
          if (c != e && k != l) add_both(hessian, n, base + c * h1 + l, base + e * h1 + k, value);
        }
      }
    }
  }

  const Architecture& arch_;
  Index block_, stride_;
  std::vector<Layer> layers_;
  Buffer<S> probability_, pivot_, surprise_;
  Buffer<S> u_, g_, work_, unit_, column_;  // of the dense Hessian only
  Buffer<double> pairs_;
};

}  // namespace pylyap
