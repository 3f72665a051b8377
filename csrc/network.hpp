// Forward pass, gradient, Hessian and Hessian-vector products of a dense network.
//
// In the kernels the weights of a layer are one matrix (n_out, n_in + 1) whose last column is the
// bias, and activations have a last row of ones, so that biases need no separate code.
// `Architecture::external` maps that order to the documented one (W in C order, then b).
//
// Arrays of activations are (units, samples). Data are processed in blocks of samples that fit a
// cache; gradient, Hessian and products add up over blocks in order. They are sums over samples:
// the step of the optimiser divides them by the number of samples.
#pragma once

#include <algorithm>
#include <vector>

#include "activation.hpp"
#include "architecture.hpp"
#include "buffer.hpp"
#include "cost.hpp"
#include "folded.hpp"
#include "lanes.hpp"
#include "layer_product.hpp"
#include "loss.hpp"
#include "products.hpp"
#include "samples.hpp"
#include "sparse.hpp"
#include "team.hpp"

namespace pylyap {

// A block of the matrix of a layer: parameters from `first` on, rows `stride` apart.
struct Region {
  Index first, rows, columns, stride;
};

// Receives a gradient in parts, so that a part can be used while it is in the cache. This class
// stores all parts in one array.
template <class S>
class GradientParts {
 public:
  explicit GradientParts(S* gradient) : gradient_(gradient) {}
  virtual ~GradientParts() = default;

  // Where a part is to be stored, or added to.
  virtual Matrix<S> place(const Region& region, Index /*worker*/) {
    return {gradient_ + region.first, region.rows, region.columns, region.stride};
  }
  // The sum over this block of samples is complete; its weights are not read again.
  virtual void finish(const Region&, const Matrix<S>& /*part*/, Index /*worker*/) {}

 protected:
  S* gradient_;
};

// Threads share a product over units in parts that depend on the sizes alone, so that results do
// not depend on the number of threads.
template <class S>
Index part_of(Index units, Index multiplications) {
  if (kRuns<S> > 1 || multiplications < kSharedProduct) return units;
  const Index parts = std::clamp(units / 64, Index{2}, Index{8});
  return padded((units + parts - 1) / parts);
}
// Calls f(begin, end, worker) for each part of 0 ... units - 1.
inline void in_parts(Team& team, Index units, Index part, ShareFunction f) {
  if (part >= units) return f(0, units, 0);
  team.share(units, part, [&](Index begin, Index end, Index worker) {
    for (; begin < end; begin += part) f(begin, std::min(begin + part, end), worker);
  });
}

// Calls f(begin, end, share) for shares of the parameters, if there are enough for a second thread.
inline void share_parameters(Team& team, Index n_params, ShareFunction f) {
  constexpr Index kShared = Index{1} << 15;
  if (n_params < kShared) return f(0, n_params, 0);
  team.share(n_params, 1024, f);
}

// Distance of two rows of activations: whole registers for one run; odd for lanes, so that rows do
// not map to the same cache sets.
template <class S>
Index row_stride(Index block) {
  return kRuns<S> == 1 ? padded(block, kPerRegister<S>) : block | 1;
}

// The kernels of three_layer/ that read what the network leaves: of products with vectors where
// sums over samples are not folded, of the Hessian always.
enum class Structure { none, products, hessian };

// A factor of a product, `count` columns: entry (r, p) is data[r * row + p * inner].
template <class S>
struct Factor {
  const S* data = nullptr;
  Index row = 0, inner = 0, count = 0;
};

template <class S>
class Network {
 public:
  using R = Register<S>;
  using Block = BasicSamples<Number<S>>;

  // For blocks of up to `block` samples and teams of up to `workers`; for Hessian-vector products
  // by `scratches` threads in parallel (0: none); with `dense`, for a Hessian by columns; with
  // `structure`, for the kernels of three_layer/, which read all inputs in transposed order.
  Network(const Architecture& arch, Index block, Index workers, Index scratches, bool dense,
          Structure structure)
      : arch_(arch),
        stride_(row_stride<S>(block)),
        tangents_(scratches > 0),
        small_(fits_lanes(arch)),
        in_order_(std::is_same_v<S, double> && small_),
        structure_(structure),
        loss_(arch, stride_) {
    const Index depth = arch.depth();
    for (Index l = 1; l <= depth; ++l) {
      Layer layer;
      const Index size = arch.width(l) * stride_;
      layer.delta = Buffer<S>(size);
      if (l == depth || tangents_) layer.pre = Buffer<S>(size);
      if (l < depth) {
        layer.value = Buffer<S>(size + stride_);
        for (Index s = 0; s < stride_; ++s) layer.value[size + s] = broadcast<S>(1.0);
        layer.slope = Buffer<S>(size);
      }
      if (tangents_) layer.curvature = Buffer<S>(size);
      for (Index t = 0; t < scratches; ++t)
        layer.tangents.push_back({Buffer<S>(size), Buffer<S>(size), Buffer<S>(size)});
      layers_.push_back(std::move(layer));
    }
    if (in_order_) {
      for (Index l = 1; l <= depth; ++l) transposed_.emplace_back(transposed_stride(l) * stride_);
      for (Index t = 0; t < std::max(scratches, Index{1}) && depth > 1; ++t) {
        transposed_along_.emplace_back(padded(widest()) * stride_);
        sums_.emplace_back(padded(widest()) * (widest() + 1));
      }
    } else {
      for (Index t = 0; t < workers && kRuns<S> == 1; ++t)
        transposed_.emplace_back(kTransposedStride * stride_);
    }
    if (dense) {
      unit_ = Buffer<S>(arch.n_params);
      column_ = Buffer<S>(arch.n_params);
    }
  }

  // Sets the gradient (internal order), or adds to it, and adds the loss of these samples to `loss`
  // (or null). The functions below use what it leaves in the layers.
  void evaluate(Team& team, const S* weights, const Block& samples, bool add, Accumulator<S>* loss,
                GradientParts<S>& parts) {
    forward(team, weights, samples);
    residual(samples);
    if (loss) *loss += sum_loss(samples);
    // A thread has some units of the layer below: their deltas and the gradient of the weights that
    // lead from them are computed while these are in its cache.
    for (Index l = arch_.depth(); l > 1; --l) {
      const Index units = arch_.width(l - 1), size = part(units, arch_.width(l), samples);
      in_parts(team, units, size, [&](Index begin, Index end, Index worker) {
        in_blocks(begin, end, [&](Index from, Index to) {
          backward(l, weights, samples, from, to);
          const Index columns = (to == units ? to + 1 : to) - from;  // the last with the bias
          add_gradient(l, samples, from, columns, worker, add, parts);
        });
      });
    }
    if (arch_.sparse) return add_sparse(team, layer(1).delta, samples, add, 0, parts);
    const Index used = arch_.used(1), columns = arch_.columns(1);
    in_parts(team, used, part(used, arch_.width(1), samples),
             [&](Index begin, Index end, Index worker) {
               in_blocks(begin, end, [&](Index from, Index to) {
                 add_gradient(1, samples, from, to - from, worker, add, parts);
               });
             });
    if (used == columns) return;
    const Region unused{arch_.offset(1) + used, arch_.width(1), columns - used, columns};
    const Matrix<S> zero = parts.place(unused, 0);
    for (Index j = 0; j < zero.rows; ++j) std::fill_n(zero.data + j * zero.stride, zero.cols, S{});
    parts.finish(unused, zero, 0);
  }

  // What `evaluate` leaves in the layers, without the gradient: for products with the Hessian of a
  // network whose sums are not in order.
  void linearise(Team& team, const S* weights, const Block& samples) {
    forward(team, weights, samples);
    residual(samples);
    for (Index l = arch_.depth(); l > 1; --l) {
      const Index units = arch_.width(l - 1), size = part(units, arch_.width(l), samples);
      in_parts(team, units, size, [&](Index begin, Index end, Index) {
        in_blocks(begin, end,
                  [&](Index from, Index to) { backward(l, weights, samples, from, to); });
      });
    }
  }

  // The loss alone, summed over these samples.
  Accumulator<S> loss(Team& team, const S* weights, const Block& samples) {
    forward(team, weights, samples);
    residual(samples);
    return sum_loss(samples);
  }

  // Outputs, or probabilities for the cross-entropies: (outputs, stride of the block).
  const S* predict(Team& team, const S* weights, const Block& samples) {
    forward(team, weights, samples);
    const S* outputs = layer(arch_.depth()).pre.data();
    if (!arch_.classifies()) return outputs;
    loss_.softmax(outputs, registers<S>(samples.count));
    return loss_.probabilities();
  }
  Index stride() const { return stride_; }

  // out += H v, by the R-operator (Pearlmutter, Neural Computation 6, 147 (1994)), in one of the
  // scratches.
  void add_hessian_vector(Team& team, const S* weights, const Block& samples, const S* v, S* out,
                          Index scratch) {
    const Index depth = arch_.depth(), m = registers<S>(samples.count);
    if (arch_.sparse) {
      Tangent& along = tangent(1, scratch);
      multiply_sparse(team, v, samples, along.pre, [&](Index j, Index i, Index count) {
        multiply_elements(row(layer(1).slope, j) + i, row(along.pre, j) + i,
                          row(along.value, j) + i, count);
      });
    }
    for (Index l = first_dense(); l <= depth; ++l) {
      Layer& a = layer(l);
      Tangent& along = tangent(l, scratch);
      const Index units = arch_.width(l);
      in_parts(team, units, part(units, arch_.used(l), samples),
               [&](Index begin, Index end, Index) {
                 const auto out = view(along.pre, begin, end, samples);
                 detail::Then<R> then;
                 if (l < depth) then = {row(along.value, begin), row(a.slope, begin)};
                 Factor<S> factor = with_bias(v, l, begin), along_factor;
                 const R* below = nullptr;
                 if (l > 1) {
                   along_factor = with_bias(weights, l, begin);
                   along_factor.count -= 1;
                   below = row(tangent(l - 1, scratch).value, 0);
                 }
                 with_input(l, samples, [&](auto input) {
                   multiply_layer(factor, input, along_factor, below, out, false, then);
                 });
               });
    }
    Tangent& top = tangent(depth, scratch);
    loss_.multiply_curvature(top.pre.data(), top.delta.data(), m);
    for (Index l = depth; l >= 1; --l) {
      if (l == 1 && arch_.sparse) {
        GradientParts<S> parts(out);
        return add_sparse(team, tangent(1, scratch).delta, samples, true, scratch, parts);
      }
      const Index units = arch_.width(l), columns = arch_.columns(l), used = arch_.used(l);
      in_parts(team, units, part(units, used, samples), [&](Index begin, Index end, Index) {
        const auto delta = view(layer(l).delta, begin, end, samples);
        const auto delta_along = view(tangent(l, scratch).delta, begin, end, samples);
        Matrix<S> target(out + arch_.offset(l) + begin * columns, end - begin, used, columns);
        if constexpr (kRuns<S> == 1) {
          if (in_order_ && !folds(samples.count))
            return add_along_in_order(l, samples, target, scratch);
        }
        with_input(l, samples,
                   [&](auto input) { multiply_samples(delta_along, input, target, true); });
        if (l == 1) return;
        target.cols -= 1;
        multiply_samples(delta, value_along(l - 1, scratch, samples), target, true);
      });
      if (l == 1) break;
      Layer& below = layer(l - 1);
      Tangent& below_along = tangent(l - 1, scratch);
      const Index lower = arch_.width(l - 1);
      in_parts(team, lower, part(lower, units, samples), [&](Index begin, Index end, Index) {
        multiply_back(without_bias(weights, l, begin), all(tangent(l, scratch).delta, l, samples),
                      without_bias(v, l, begin), row(layer(l).delta, 0),
                      view(below_along.delta, begin, end, samples),
                      {nullptr, row(below.slope, begin), row(below.curvature, begin),
                       row(below_along.pre, begin)});
      });
    }
  }

  // hessian (n_params, n_params) += H, column by column; symmetric to the bit.
  void add_hessian(const S* weights, const Block& samples, S* hessian) {
    const Index n = arch_.n_params;
    for (Index i = 0; i < n; ++i) {
      std::fill_n(unit_.data(), n, S{});
      std::fill_n(column_.data(), n, S{});
      unit_[i] = broadcast<S>(1.0);
      add_hessian_vector(alone_, weights, samples, unit_.data(), column_.data(), 0);
      for (Index j = 0; j < n; ++j) {  // both triangles are the mean of H_ij and H_ji
        const S half = 0.5 * column_[j];
        hessian[i * n + j] += half;
        hessian[j * n + i] += half;
      }
    }
  }

  // Results of the last `evaluate`: one row of registers<S>(samples.count) per unit of layer l, or
  // per output.
  const S* values(Index l) const { return layer(l).value.data(); }  // with the row of ones
  const S* curvatures(Index l) const { return layer(l).curvature.data(); }
  const R* value(Index l, Index j) const { return row(layer(l).value, j); }
  const R* slope(Index l, Index j) const { return row(layer(l).slope, j); }
  const R* curvature(Index l, Index j) const { return row(layer(l).curvature, j); }
  const R* delta(Index l, Index j) const { return row(layer(l).delta, j); }
  const R* probability(Index c) const { return loss_.probability(c); }
  // Whether sums over samples are in the order of the lanes, although S is one run. Then the last
  // `evaluate` also leaves a factor of the gradient of every layer in transposed order, for the
  // kernels of three_layer/ and where the sums are not folded: its inputs, with the ones, or the
  // deltas of its units.
  bool in_order() const { return in_order_; }
  const S* transposed(Index l) const { return transposed_[static_cast<std::size_t>(l - 1)].data(); }
  Index transposed_stride(Index l) const {
    return padded(units_in_registers(l) ? arch_.width(l) : arch_.columns(l));
  }

 private:
  // Derivatives along a vector.
  struct Tangent {
    Buffer<S> pre, value, delta;
  };
  struct Layer {
    Buffer<S> pre, value, slope;    // z, f(z) with a row of ones, f'(z)
    Buffer<S> delta;                // dC/dz of each sample
    Buffer<S> curvature;            // f''(z) dC/df
    std::vector<Tangent> tangents;  // one for each scratch
  };

  Index widest() const { return *std::max_element(arch_.sizes.begin(), arch_.sizes.end()); }
  Layer& layer(Index l) { return layers_[static_cast<std::size_t>(l - 1)]; }
  // z of a hidden layer. Without tangents it shares its memory with delta, which is needed later.
  Buffer<S>& pre(Index l) { return tangents_ ? layer(l).pre : layer(l).delta; }
  const Layer& layer(Index l) const { return layers_[static_cast<std::size_t>(l - 1)]; }

  Array<S, R> view(Buffer<S>& buffer, Index begin, Index end, const Block& samples) const {
    return array(buffer.data() + begin * stride_, end - begin, samples.count, stride_);
  }
  Array<S, R> view(Buffer<S>& buffer, Index rows, const Block& samples) const {
    return view(buffer, 0, rows, samples);
  }
  static Index part(Index units, Index inputs, const Block& samples) {
    return part_of<S>(units, units * inputs * samples.count);
  }
  Tangent& tangent(Index l, Index scratch) {
    return layer(l).tangents[static_cast<std::size_t>(scratch)];
  }
  Array<S, R> all(Buffer<S>& buffer, Index l, const Block& samples) const {
    return view(buffer, arch_.width(l), samples);
  }
  Array<S, R> value_along(Index l, Index scratch, const Block& samples) {
    return all(tangent(l, scratch).value, l, samples);
  }
  // Rows from `begin` of layer l's matrix, the columns that meet data.
  Factor<S> with_bias(const S* w, Index l, Index begin) const {
    return {w + arch_.offset(l) + begin * arch_.columns(l), arch_.columns(l), 1, arch_.used(l)};
  }
  // Columns from `begin` of it, above the first layer, as rows.
  Factor<S> without_bias(const S* w, Index l, Index begin) const {
    return {w + arch_.offset(l) + begin, 1, arch_.columns(l), arch_.width(l)};
  }
  // Calls f with the input of layer l, which has a row of ones: data, or the layer below.
  template <class F>
  void with_input(Index l, const Block& samples, F&& f) {
    if (l == 1) {
      f(shared_array<S>(samples.inputs, arch_.live + 1, samples.count, samples.stride));
    } else {
      f(view(layer(l - 1).value, arch_.width(l - 1) + 1, samples));
    }
  }

  // out (+)= a b^T, sums over samples
  template <class A, class B>
  void multiply_samples(A a, B b, Matrix<S> out, bool add) const {
    if constexpr (!std::is_same_v<S, float>) {
      if (small_ && folds(a.cols)) return multiply_folded(a, b, out, add);
    }
    multiply_nt(a, b, out, add);
  }
  // out += a b^T + c d^T, but the last column of out, and row of b, has no counterpart in d.
  template <class B>
  void add_along(Array<S, R> a, B b, Array<S, R> c, Array<S, R> d, Matrix<S> out) const {
    if constexpr (std::is_same_v<B, Array<S, R>>) {
      if (small_ && folds(a.cols)) {
        const B last{b.data + d.rows * b.stride, 1, b.cols, b.stride};
        multiply_folded(a, last, Matrix<S>(out.data + d.rows, out.rows, 1, out.stride), true);
        out.cols = d.rows;
        return add_folded(a, b, c, d, out);
      }
      multiply_nt(a, b, out, true);
      out.cols -= 1;
      multiply_nt(c, d, out, true);
    }
  }
  // out (+)= a b + c d, then the elementwise operations; c and d may be empty.
  template <class B>
  static void multiply_layer(const Factor<S>& a, B b, const Factor<S>& c, const R* d,
                             Array<S, R> out, bool add, const detail::Then<R>& then = {}) {
    const Matrix<R> to(out);
    using Y = std::remove_const_t<std::remove_pointer_t<decltype(b.data)>>;
    detail::Pairs<S, Y> pairs{a.data, b.data};
    if constexpr (std::is_same_v<Y, R>) pairs.x2 = c.data, pairs.y2 = d;
    detail::layer_product<R, S, Y>(
        {pairs, a.row, a.inner, b.stride, a.count, c.count, to.data, to.stride, add, then}, to.rows,
        to.cols);
  }
  // out <- a b + c d, then the elementwise operations. In blocks of rows of b: for wide networks
  // as many rows of weights, which may lie a page apart, as the first-level TLB holds.
  void multiply_back(Factor<S> a, Array<S, R> b, Factor<S> c, const R* d, Array<S, R> out,
                     const detail::Then<R>& then) const {
    const Index all = a.count, block = small_ ? all : 64;
    for (Index p = 0; p < all; p += block) {
      const Index size = std::min(block, all - p);
      const Factor<S> part{a.data + p * a.inner, a.row, a.inner, size};
      Factor<S> part2;
      if (d) part2 = {c.data + p * c.inner, c.row, c.inner, size};
      multiply_layer(part, Array<S, R>(b.data + p * b.stride, size, b.cols, b.stride), part2,
                     d ? d + p * b.stride : nullptr, out, p > 0,
                     p + size == all ? then : detail::Then<R>{});
    }
  }
  // Whether sums over samples in order have registers along the units of layer l rather than along
  // its inputs: by the operations per sample. To transpose a register costs as much as some five
  // products. The inputs of the first layer are kept.
  bool units_in_registers(Index l) const {
    constexpr Index W = kPerRegister<S>, kTranspose = 5;
    if (l == 1 || structure_ != Structure::none) return false;
    const Index units = arch_.width(l), inputs = arch_.columns(l);
    auto cost = [](Index rows, Index along) { return (rows + kTranspose) * ((along + W - 1) / W); };
    return cost(inputs, units) < cost(units, inputs);
  }
  // target += the sums along a vector: deltas along it times inputs, deltas times inputs along it.
  void add_along_in_order(Index l, const Block& samples, Matrix<S> target, Index scratch) {
    if constexpr (std::is_same_v<S, double>) {
      const Index stride = transposed_stride(l);
      const auto delta = all(layer(l).delta, l, samples),
                 delta_along = all(tangent(l, scratch).delta, l, samples);
      if (l == 1) return multiply_transposed<R>(delta_along, transposed(l), target, true, stride);
      S* along = transposed_along_[static_cast<std::size_t>(scratch)].data();
      S* work = sums_[static_cast<std::size_t>(scratch)].data();
      const auto below = value_along(l - 1, scratch, samples);
      if (units_in_registers(l)) {
        transpose<R>(delta_along, along, stride);
        multiply_transposed_left(along, stride, view(layer(l - 1).value, target.cols, samples),
                                 target, true, work);
        target.cols -= 1;
        multiply_transposed_left(transposed(l), stride, below, target, true, work);
      } else {
        multiply_transposed<R>(delta_along, transposed(l), target, true, stride);
        target.cols -= 1;
        transpose<R>(below, along, padded(target.cols));
        multiply_transposed<R>(delta, along, target, true, padded(target.cols));
      }
    }
  }
  // out (+)= delta input^T for one run of a small network, and a factor in transposed order where
  // it is needed.
  void sum_gradient(Index l, const Block& samples, Rows<const R> delta, Rows<const R> input,
                    Matrix<S> out, bool add) {
    const bool folded = folds(samples.count);
    const Index stride = transposed_stride(l);
    S* rows = transposed_[static_cast<std::size_t>(l - 1)].data();
    if (folded) {
      multiply_folded(delta, input, out, add);
      if (structure_ != Structure::hessian) return;
    } else if (units_in_registers(l)) {
      transpose<R>(delta, rows, stride);
      return multiply_transposed_left(rows, stride, input, out, add, sums_.front().data());
    }
    if (l > 1 || !kept_.has(samples)) transpose<R>(input, rows, stride);
    if (!folded) multiply_transposed<R>(delta, rows, out, add, stride);
  }
  // Calls f(begin, end) for blocks of columns of a matrix, which are transposed together.
  template <class F>
  void in_blocks(Index begin, Index end, F&& f) const {
    const Index size = kRuns<S> == 1 && !in_order_ ? kPanel : end - begin;
    for (; begin < end; begin += size) f(begin, std::min(begin + size, end));
  }
  // Deltas of some units below layer l.
  void backward(Index l, const S* weights, const Block& samples, Index begin, Index end) {
    Layer& a = layer(l - 1);
    const Index m = registers<S>(samples.count);
    multiply_back(without_bias(weights, l, begin), all(layer(l).delta, l, samples), {}, nullptr,
                  view(a.delta, begin, end, samples), {});
    for (Index j = begin; j < end; ++j) {
      R* error = row(a.delta, j);
      if constexpr (std::is_same_v<R, Lane>) {
        if (tangents_) {
          arch_.activation(l - 1).curvature(row(a.pre, j), row(a.value, j), row(a.slope, j), error,
                                            row(a.curvature, j), m);
          continue;
        }
      }
      multiply_elements(row(a.slope, j), error, error, m);
    }
  }
  // The gradient of `columns` columns of the matrix of layer l, from `begin` on.
  void add_gradient(Index l, const Block& samples, Index begin, Index columns, Index worker,
                    bool add, GradientParts<S>& parts) {
    const Index units = arch_.width(l), stride = arch_.columns(l);
    with_input(l, samples, [&](auto input) {
      input.data += begin * input.stride;
      input.rows = columns;
      if constexpr (kRuns<S> > 1) {
        const Region region{arch_.offset(l) + begin, units, columns, stride};
        const Matrix<S> out = parts.place(region, worker);
        multiply_samples(all(layer(l).delta, l, samples), input, out, add);
        parts.finish(region, out, worker);
      } else if (in_order_) {  // all columns: threads do not share the products of small networks
        const auto delta = all(layer(l).delta, l, samples);
        const Region region{arch_.offset(l), units, columns, stride};
        const Matrix<S> out = parts.place(region, worker);
        if constexpr (std::is_same_v<S, double>) sum_gradient(l, samples, delta, input, out, add);
        parts.finish(region, out, worker);
      } else {
        // Where both factors fit the second-level cache, transposing one takes longer than to add
        // up registers of samples. Decided by the whole layer: the columns of a worker depend on
        // the number of threads.
        constexpr Index kBlock = 8 * detail::kTileRows;  // units that fit the first-level cache
        constexpr Index kInCache = Index{1} << 15;
        const bool folded =
            std::is_same_v<S, double> && (units + stride) * samples.count <= kInCache;
        S* transposed = transposed_[static_cast<std::size_t>(worker)].data();
        if (!folded) transpose<R>(input, transposed);
        for (Index j = 0; j < units; j += kBlock) {
          const Index end = std::min(j + kBlock, units);
          const Region region{arch_.offset(l) + j * stride + begin, end - j, columns, stride};
          const Matrix<S> out = parts.place(region, worker);
          const auto delta = view(layer(l).delta, j, end, samples);
          if constexpr (std::is_same_v<S, double>) {
            if (folded) multiply_folded(delta, input, out, add);
          }
          if (!folded) multiply_transposed<R>(delta, transposed, out, add);
          parts.finish(region, out, worker);
        }
      }
    });
  }

  // --- the first layer of sparse data ---

  Index first_dense() const { return arch_.sparse ? 2 : 1; }
  // Calls f(first unit, units, begin, end, worker) for shares of 0 ... count - 1 in each panel.
  template <class F>
  void over_panels(Team& team, Index count, Index unit, F&& f) {
    const Index units = arch_.width(1), each = (count + unit - 1) / unit;
    team.share((units + kPanel - 1) / kPanel * each, 1, [&](Index begin, Index end, Index worker) {
      while (begin < end) {
        const Index first = begin / each * kPanel, from = begin % each;
        const Index to = std::min(each, from + end - begin);
        f(first, std::min(kPanel, units - first), from * unit, std::min(to * unit, count), worker);
        begin += to - from;
      }
    });
  }
  // out <- W x, then f(unit, first register, registers) for each finished part of a row.
  template <class F>
  void multiply_sparse(Team& team, const S* weights, const Block& samples, Buffer<S>& out, F&& f) {
    if constexpr (kRuns<S> == 1) {
      constexpr Index W = kPerRegister<Number<R>>;
      samples.with_entries([&](const auto& entries) {
        over_panels(team, samples.count, W,
                    [&](Index first, Index units, Index begin, Index end, Index) {
                      const S* panel = weights + first * arch_.columns(1);
                      panel_times_samples<R>(panel, panel + arch_.live * units, units, entries,
                                             begin, end, view(out, first, first + units, samples));
                      for (Index j = first; j < first + units; ++j)
                        f(j, begin / W, (end - begin + W - 1) / W);
                    });
      });
    }
  }
  // The gradient (+)= delta x^T.
  void add_sparse(Team& team, Buffer<S>& delta, const Block& samples, bool add, Index scratch,
                  GradientParts<S>& parts) {
    if constexpr (kRuns<S> == 1) {
      constexpr Index kBlock = 16;  // inputs whose gradient is in the cache when it is complete
      const Index inputs = arch_.columns(1);
      samples.with_entries([&](const auto& entries) {
        over_panels(
            team, inputs, kBlock,
            [&](Index unit, Index units, Index begin, Index end, Index worker) {
              S* transposed = transposed_[static_cast<std::size_t>(scratch + worker)].data();
              transpose<R>(view(delta, unit, unit + units, samples), transposed);
              for (Index i = begin; i < end; i += kBlock) {
                const Index to = std::min(i + kBlock, end);
                const Index size = (to - i) * units;
                const Region region{unit * inputs + i * units, 1, size, size};
                const Matrix<S> out = parts.place(region, worker);
                inputs_times_panel<R>(*entries.of_inputs, i, to, transposed, out.data, units, add);
                parts.finish(region, out, worker);
              }
            });
      });
    }
  }

  R* row(Buffer<S>& buffer, Index r) const { return register_row(buffer.data(), stride_, r); }
  const R* row(const Buffer<S>& buffer, Index r) const {
    return register_row(buffer.data(), stride_, r);
  }

  // The loss of the outputs of the last layer.
  void residual(const Block& samples) {
    Layer& top = layer(arch_.depth());
    loss_.residual(top.pre.data(), top.delta.data(), samples);
  }
  Accumulator<S> sum_loss(const Block& samples) {
    const Layer& top = layer(arch_.depth());
    return loss_.sum(top.pre.data(), top.delta.data(), samples);
  }

  void forward(Team& team, const S* weights, const Block& samples) {
    const Index m = registers<S>(samples.count);
    if (arch_.sparse) {
      Layer& a = layer(1);
      Buffer<S>& z = pre(1);
      multiply_sparse(team, weights, samples, z, [&](Index j, Index i, Index count) {
        arch_.activation(1).value_slope(row(z, j) + i, row(a.value, j) + i, row(a.slope, j) + i,
                                        count);
      });
    }
    for (Index l = first_dense(); l <= arch_.depth(); ++l) {
      Layer& a = layer(l);
      Buffer<S>& z = l < arch_.depth() ? pre(l) : a.pre;
      const Index units = arch_.width(l), used = arch_.used(l);
      in_parts(team, units, part(units, used, samples), [&](Index begin, Index end, Index) {
        const Factor<S> factor = with_bias(weights, l, begin);
        const auto out = view(z, begin, end, samples);
        with_input(l, samples,
                   [&](auto input) { multiply_layer(factor, input, {}, nullptr, out, false); });
        if (l == arch_.depth()) return;
        for (Index j = begin; j < end; ++j)
          arch_.activation(l).value_slope(row(z, j), row(a.value, j), row(a.slope, j), m);
      });
    }
  }

  const Architecture& arch_;
  Index stride_;
  bool tangents_, small_, in_order_;
  Structure structure_;
  Team alone_{1};
  std::vector<Layer> layers_;
  OutputLoss<S> loss_;
  // A few rows of samples, for each thread; in order, the inputs of each layer.
  std::vector<Buffer<S>> transposed_, transposed_along_;
  std::vector<Buffer<S>> sums_;  // of a layer, in order: (inputs, units)
  KeptSamples kept_;             // those whose inputs are in transposed_
  Buffer<S> unit_, column_;      // of a Hessian by columns
};

}  // namespace pylyap
