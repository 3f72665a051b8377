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
#include <vector>

#include "activation.hpp"
#include "architecture.hpp"
#include "buffer.hpp"
#include "elementary.hpp"
#include "lanes.hpp"
#include "products.hpp"
#include "samples.hpp"
#include "sparse.hpp"
#include "team.hpp"

namespace pylyap {

// Some rows and columns of a layer's matrix: its parameters from `first` on, rows `stride` apart.
struct Region {
  Index first, rows, columns, stride;
};

// Threads share a product over units in parts that depend on sizes alone, so that bits never
// depend on who computes them; products below so many multiplications are not shared.
inline constexpr Index kSharedProduct = Index{1} << 19;
template <class S>
Index part_of(Index units, Index multiplications) {
  if (kWidth<S> > 1 || multiplications < kSharedProduct) return units;
  const Index parts = std::clamp(units / 64, Index{2}, Index{8});
  return padded((units + parts - 1) / parts);
}
// Calls f(begin, end, member) for each part of 0 ... units - 1.
template <class F>
void in_parts(Team& team, Index units, Index part, F&& f) {
  if (part >= units) return f(Index{0}, units, Index{0});
  team.share(units, part, [&](Index begin, Index end, Index member) {
    for (; begin < end; begin += part) f(begin, std::min(begin + part, end), member);
  });
}

// Distance of two rows of activations: whole registers for one run; odd for lanes, so that rows do
// not fall into the same cache sets.
template <class S>
Index row_stride(Index block) {
  return kWidth<S> == 1 ? padded(block, kNumbers<Register<S>>) : block | 1;
}

template <class S>
class Network {
 public:
  using R = Register<S>;
  using Block = BasicSamples<Number<S>>;

  // Room for blocks of up to `block` samples and teams of up to `members`; for tangent vectors in
  // `scratches` threads at once (0: none); for a Hessian by columns.
  Network(const Architecture& arch, Index block, Index members, Index scratches, bool dense)
      : arch_(arch), stride_(row_stride<S>(block)), tangents_(scratches > 0) {
    const Index depth = arch.depth();
    for (Index l = 1; l <= depth; ++l) {
      Layer layer;
      const Index size = arch.width(l) * stride_;
      layer.delta = Buffer<S>(size);
      if (l == depth || tangents_) layer.pre = Buffer<S>(size);
      if (l < depth) {
        layer.value = Buffer<S>(size + stride_);
        for (Index s = 0; s < stride_; ++s) layer.value[size + s] = splat<S>(1.0);
        layer.slope = Buffer<S>(size);
      }
      if (tangents_) layer.curvature = Buffer<S>(size);
      for (Index t = 0; t < scratches; ++t)
        layer.dots.push_back({Buffer<S>(size), Buffer<S>(size), Buffer<S>(size)});
      layers_.push_back(std::move(layer));
    }
    for (Index t = 0; t < members && kWidth<S> == 1; ++t)
      turned_.emplace_back(kTurnedStride * stride_);
    probability_ = Buffer<S>(arch.outputs() * stride_);
    pivot_ = Buffer<S>(stride_);
    surprise_ = Buffer<S>(stride_);
    if (dense) {
      unit_ = Buffer<S>(arch.n_params);
      column_ = Buffer<S>(arch.n_params);
    }
  }

  // Sets or adds the gradient (internal order) and adds, if asked for, the loss of these samples;
  // keeps what the tangent calls below need. `loss` may be null.
  // Parts of the gradient go to where place(region, member) says; done(region, member, gradient) is
  // called as soon as one is there: then those weights are needed no more.
  template <class P, class D>
  void evaluate(Team& team, const S* weights, const Block& samples, bool add, Sum<S>* loss,
                P&& place, D&& done) {
    forward(team, weights, samples);
    residual(samples);
    if (loss) *loss += sum_loss(samples);
    // A thread has some units of the layer below: their errors and the weights that lead from them
    // are met while they are in its cache.
    for (Index l = arch_.depth(); l > 1; --l) {
      const Index units = arch_.width(l - 1), most = part(units, arch_.width(l), samples);
      in_parts(team, units, most, [&](Index begin, Index end, Index member) {
        in_blocks(begin, end, [&](Index from, Index to) {
          backward(l, weights, samples, from, to);
          const Index columns = (to == units ? to + 1 : to) - from;  // the last with the bias
          add_gradient(l, samples, from, columns, member, add, place, done);
        });
      });
    }
    if (arch_.sparse) return add_sparse(team, layer(1).delta, samples, add, 0, place, done);
    const Index used = arch_.used(1), columns = arch_.columns(1);
    in_parts(team, used, part(used, arch_.width(1), samples),
             [&](Index begin, Index end, Index member) {
               in_blocks(begin, end, [&](Index from, Index to) {
                 add_gradient(1, samples, from, to - from, member, add, place, done);
               });
             });
    if (used == columns) return;
    const Region unused{arch_.offset(1) + used, arch_.width(1), columns - used, columns};
    const Matrix<S> zero = place(unused, Index{0});
    for (Index j = 0; j < zero.rows; ++j) std::fill_n(zero.data + j * zero.stride, zero.cols, S{});
    done(unused, Index{0}, zero);
  }

  // The loss alone, summed over these samples.
  Sum<S> loss(Team& team, const S* weights, const Block& samples) {
    forward(team, weights, samples);
    residual(samples);
    return sum_loss(samples);
  }

  // Outputs, or probabilities for the cross-entropies: (outputs, stride of the block).
  const S* predict(Team& team, const S* weights, const Block& samples) {
    forward(team, weights, samples);
    if (!arch_.classifies()) return layer(arch_.depth()).pre.data();
    softmax(samples);
    return probability_.data();
  }
  Index stride() const { return stride_; }

  // out += H v, by the R-operator (Pearlmutter, Neural Computation 6, 147 (1994)), in one of the
  // scratches.
  void add_hessian_vector(Team& team, const S* weights, const Block& samples, const S* v, S* out,
                          Index scratch) {
    const Index depth = arch_.depth(), m = registers(samples);
    if (arch_.sparse) {
      Dots& dot = dots(1, scratch);
      multiply_sparse(team, v, samples, dot.pre, [&](Index j, Index i, Index count) {
        times(row(layer(1).slope, j) + i, row(dot.pre, j) + i, row(dot.value, j) + i, count);
      });
    }
    for (Index l = first_dense(); l <= depth; ++l) {
      Layer& a = layer(l);
      Dots& dot = dots(l, scratch);
      const Index units = arch_.width(l);
      in_parts(
          team, units, part(units, arch_.used(l), samples), [&](Index begin, Index end, Index) {
            const auto pre_dot = view(dot.pre, begin, end, samples);
            with_input(l, samples,
                       [&](auto input) { multiply(with_bias(v, l, begin, end), input, pre_dot); });
            if (l > 1) {
              Matrix<const S> matrix = with_bias(weights, l, begin, end);
              matrix.cols -= 1;
              multiply(matrix, value_dot(l - 1, scratch, samples), pre_dot, true);
            }
            if (l == depth) return;
            for (Index j = begin; j < end; ++j)
              times(row(a.slope, j), row(dot.pre, j), row(dot.value, j), m);
          });
    }
    Dots& top = dots(depth, scratch);
    output_curvature(top.pre.data(), stride_, top.delta.data(), stride_, m);
    for (Index l = depth; l >= 1; --l) {
      if (l == 1 && arch_.sparse)
        return add_sparse(
            team, dots(1, scratch).delta, samples, true, scratch,
            [&](const Region& region, Index) {
              return Matrix<S>(out + region.first, 1, region.columns);
            },
            [](const Region&, Index, const Matrix<S>&) {});
      const Index units = arch_.width(l), columns = arch_.columns(l), used = arch_.used(l);
      in_parts(team, units, part(units, used, samples), [&](Index begin, Index end, Index) {
        const auto delta = view(layer(l).delta, begin, end, samples);
        const auto delta_dot = view(dots(l, scratch).delta, begin, end, samples);
        Matrix<S> target(out + arch_.offset(l) + begin * columns, end - begin, used, columns);
        with_input(l, samples, [&](auto input) { multiply_nt(delta_dot, input, target, true); });
        if (l == 1) return;
        target.cols -= 1;
        multiply_nt(delta, value_dot(l - 1, scratch, samples), target, true);
      });
      if (l == 1) break;
      Layer& below = layer(l - 1);
      Dots& below_dots = dots(l - 1, scratch);
      const Index lower = arch_.width(l - 1);
      in_parts(team, lower, part(lower, units, samples), [&](Index begin, Index end, Index) {
        const auto below_dot = view(below_dots.delta, begin, end, samples);
        multiply_tn(without_bias(weights, l, begin, end), all(dots(l, scratch).delta, l, samples),
                    below_dot);
        multiply_tn(without_bias(v, l, begin, end), all(layer(l).delta, l, samples), below_dot,
                    true);
        for (Index j = begin; j < end; ++j) {
          R* d = row(below_dots.delta, j);
          const R *slope = row(below.slope, j), *c = row(below.curvature, j);
          const R* z = row(below_dots.pre, j);
          for (Index i = 0; i < m; ++i) d[i] = slope[i] * d[i] + c[i] * z[i];
        }
      });
    }
  }

  // hessian (n_params, n_params) += H, column by column; symmetric to the bit.
  void add_hessian(const S* weights, const Block& samples, S* hessian) {
    const Index n = arch_.n_params;
    for (Index i = 0; i < n; ++i) {
      std::fill_n(unit_.data(), n, S{});
      std::fill_n(column_.data(), n, S{});
      unit_[i] = splat<S>(1.0);
      add_hessian_vector(alone_, weights, samples, unit_.data(), column_.data(), 0);
      for (Index j = 0; j < n; ++j) {  // both triangles get the mean of H_ij and H_ji
        const S half = 0.5 * column_[j];
        hessian[i * n + j] += half;
        hessian[j * n + i] += half;
      }
    }
  }

  // What the last `evaluate` left of layer l, and of the outputs: one row of registers per unit,
  // `registers(samples)` of them.
  const S* values(Index l) const { return layer(l).value.data(); }  // with the row of ones
  const S* curvatures(Index l) const { return layer(l).curvature.data(); }
  const R* value(Index l, Index j) const { return row(layer(l).value, j); }
  const R* slope(Index l, Index j) const { return row(layer(l).slope, j); }
  const R* curvature(Index l, Index j) const { return row(layer(l).curvature, j); }
  const R* delta(Index l, Index j) const { return row(layer(l).delta, j); }
  const R* probability(Index c) const { return row(probability_, c); }

  // Elementwise work is on whole registers, for one run across samples, for many across runs.
  static Index registers(const Block& samples) {
    constexpr Index W = kNumbers<R>;
    return kWidth<S> == 1 ? (samples.count + W - 1) / W : samples.count;
  }
  // Register i of a row of data that all runs share.
  static R shared_row(const Number<S>* data, Index i) {
    if constexpr (kWidth<S> == 1) {
      R values;
      std::memcpy(&values, data + i * kNumbers<R>, sizeof values);
      return values;
    } else {
      return splat<R>(data[i]);
    }
  }

 private:
  struct Dots {
    Buffer<S> pre, value, delta;  // derivatives along a tangent vector
  };
  struct Layer {
    Buffer<S> pre, value, slope;  // z, f(z) with a row of ones, f'(z)
    Buffer<S> delta;              // dC/dz, summed over samples where it meets weights
    Buffer<S> curvature;          // f''(z) dC/df
    std::vector<Dots> dots;       // one for each scratch
  };

  Layer& layer(Index l) { return layers_[static_cast<std::size_t>(l - 1)]; }
  // Of a hidden layer; where no tangent needs it, it lies where delta comes to lie: less to cache.
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
  Dots& dots(Index l, Index scratch) { return layer(l).dots[static_cast<std::size_t>(scratch)]; }
  Array<S, R> all(Buffer<S>& buffer, Index l, const Block& samples) const {
    return view(buffer, arch_.width(l), samples);
  }
  Array<S, R> value_dot(Index l, Index scratch, const Block& samples) {
    return all(dots(l, scratch).value, l, samples);
  }
  // Rows begin ... end - 1 of layer l's matrix, the columns that meet data.
  Matrix<const S> with_bias(const S* w, Index l, Index begin, Index end) const {
    return {w + arch_.offset(l) + begin * arch_.columns(l), end - begin, arch_.used(l),
            arch_.columns(l)};
  }
  // Columns begin ... end - 1 of it, above the first layer.
  Matrix<const S> without_bias(const S* w, Index l, Index begin, Index end) const {
    return {w + arch_.offset(l) + begin, arch_.width(l), end - begin, arch_.columns(l)};
  }
  // What layer l reads, with its row of ones: data that all runs share, or the layer below.
  template <class F>
  void with_input(Index l, const Block& samples, F&& f) {
    if (l == 1) {
      f(shared_array<S>(samples.inputs, arch_.live + 1, samples.count, samples.stride));
    } else {
      f(view(layer(l - 1).value, arch_.width(l - 1) + 1, samples));
    }
  }

  // Calls f(begin, end) for columns of a matrix that are turned at once.
  template <class F>
  static void in_blocks(Index begin, Index end, F&& f) {
    const Index most = kWidth<S> == 1 ? kPanel : end - begin;
    for (; begin < end; begin += most) f(begin, std::min(begin + most, end));
  }
  // Deltas of some units below layer l.
  void backward(Index l, const S* weights, const Block& samples, Index begin, Index end) {
    Layer& a = layer(l - 1);
    const Index m = registers(samples);
    multiply_tn(without_bias(weights, l, begin, end), all(layer(l).delta, l, samples),
                view(a.delta, begin, end, samples));
    for (Index j = begin; j < end; ++j) {
      R* error = row(a.delta, j);
      if constexpr (std::is_same_v<R, Lane>) {
        if (tangents_) {
          arch_.activation(l - 1).curvature(row(a.pre, j), row(a.value, j), row(a.slope, j), error,
                                            row(a.curvature, j), m);
          continue;
        }
      }
      times(row(a.slope, j), error, error, m);
    }
  }
  // The gradient of `columns` columns of layer l's matrix, from `begin` on.
  template <class P, class D>
  void add_gradient(Index l, const Block& samples, Index begin, Index columns, Index member,
                    bool add, P&& place, D&& done) {
    const Index units = arch_.width(l), stride = arch_.columns(l);
    with_input(l, samples, [&](auto input) {
      input.data += begin * input.stride;
      input.rows = columns;
      if constexpr (kWidth<S> > 1) {
        const Region region{arch_.offset(l) + begin, units, columns, stride};
        const Matrix<S> out = place(region, member);
        multiply_nt(all(layer(l).delta, l, samples), input, out, add);
        done(region, member, out);
      } else {
        constexpr Index kAtOnce = 8 * detail::kTileRows;  // units, to stay in the first cache
        S* turned = turned_[static_cast<std::size_t>(member)].data();
        turn<R>(input, turned);
        for (Index j = 0; j < units; j += kAtOnce) {
          const Index end = std::min(j + kAtOnce, units);
          const Region region{arch_.offset(l) + j * stride + begin, end - j, columns, stride};
          const Matrix<S> out = place(region, member);
          multiply_turned<R>(view(layer(l).delta, j, end, samples), turned, out, add);
          done(region, member, out);
        }
      }
    });
  }

  // --- the first layer, where data are mostly zero ---

  Index first_dense() const { return arch_.sparse ? 2 : 1; }
  // Calls f(first unit, units, begin, end, member) for shares of 0 ... count - 1 in each panel.
  template <class F>
  void over_panels(Team& team, Index count, Index unit, F&& f) {
    const Index units = arch_.width(1), each = (count + unit - 1) / unit;
    team.share((units + kPanel - 1) / kPanel * each, 1, [&](Index begin, Index end, Index member) {
      while (begin < end) {
        const Index first = begin / each * kPanel, from = begin % each;
        const Index to = std::min(each, from + end - begin);
        f(first, std::min(kPanel, units - first), from * unit, std::min(to * unit, count), member);
        begin += to - from;
      }
    });
  }
  // out = W x, then f(unit, first register, registers) for what is done.
  template <class F>
  void multiply_sparse(Team& team, const S* weights, const Block& samples, Buffer<S>& out, F&& f) {
    if constexpr (kWidth<S> == 1) {
      constexpr Index W = kNumbers<R>;
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
  // (+)= delta x^T, to where place says, and done, as in `evaluate`.
  template <class P, class D>
  void add_sparse(Team& team, Buffer<S>& delta, const Block& samples, bool add, Index scratch,
                  P&& place, D&& done) {
    if constexpr (kWidth<S> == 1) {
      constexpr Index kAtOnce = 16;  // inputs, whose gradient is in the cache when it is done
      const Index inputs = arch_.columns(1);
      samples.with_entries([&](const auto& entries) {
        over_panels(team, inputs, kAtOnce,
                    [&](Index unit, Index units, Index begin, Index end, Index member) {
                      S* turned = turned_[static_cast<std::size_t>(scratch + member)].data();
                      turn<R>(view(delta, unit, unit + units, samples), turned);
                      for (Index i = begin; i < end; i += kAtOnce) {
                        const Index to = std::min(i + kAtOnce, end);
                        const Index size = (to - i) * units;
                        const Region region{unit * inputs + i * units, 1, size, size};
                        const Matrix<S> out = place(region, member);
                        inputs_times_panel<R>(*entries.of_inputs, i, to, turned, out.data, units,
                                              add);
                        done(region, member, out);
                      }
                    });
      });
    }
  }

  static R number(Index c) { return splat<R>(static_cast<double>(c)); }
  R* row(Buffer<S>& buffer, Index r) const {
    return reinterpret_cast<R*>(buffer.data() + r * stride_);
  }
  const R* row(const Buffer<S>& buffer, Index r) const {
    return reinterpret_cast<const R*>(buffer.data() + r * stride_);
  }
  static void times(const R* a, const R* b, R* out, Index count) {
    for (Index i = 0; i < count; ++i) out[i] = a[i] * b[i];
  }

  void forward(Team& team, const S* weights, const Block& samples) {
    const Index m = registers(samples);
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
        const auto matrix = with_bias(weights, l, begin, end);
        const auto out = view(z, begin, end, samples);
        with_input(l, samples, [&](auto input) { multiply(matrix, input, out); });
        if (l == arch_.depth()) return;
        for (Index j = begin; j < end; ++j)
          arch_.activation(l).value_slope(row(z, j), row(a.value, j), row(a.slope, j), m);
      });
    }
  }

  // p_c = e_c / (1 + others), e_c = exp(o_c - max o), others summed without the largest, so that
  // 1 - p keeps its digits where one class takes all. `pivot_` is the largest class.
  void softmax(const Block& samples) {
    const Index classes = arch_.outputs(), m = registers(samples);
    Layer& top = layer(arch_.depth());
    R* pivot = row(pivot_, 0);
    R* others = row(surprise_, 0);
    for (Index i = 0; i < m; ++i) {
      R largest = row(top.pre, 0)[i];
      for (Index c = 1; c < classes; ++c) {
        const R o = row(top.pre, c)[i];
        largest = o > largest ? o : largest;
      }
      R winner = splat<R>(0.0);
      for (Index c = classes - 1; c > 0; --c)
        winner = row(top.pre, c)[i] == largest ? number(c) : winner;
      winner = row(top.pre, 0)[i] == largest ? splat<R>(0.0) : winner;
      R sum = splat<R>(0.0);
      for (Index c = 0; c < classes; ++c) {
        const R e = exp_of_nonpositive(row(top.pre, c)[i] - largest);
        row(probability_, c)[i] = e;
        sum += winner == number(c) ? splat<R>(0.0) : e;
      }
      const R inverse = 1.0 / (sum + 1.0);
      for (Index c = 0; c < classes; ++c) row(probability_, c)[i] *= inverse;
      pivot[i] = winner;
      others[i] = sum;
    }
  }

  // delta of the output layer: yhat - y, or p - onehot with the label's entry as minus the sum of
  // the others. The loss of a sample is log(1 + others) + margin; both are kept for `sum_loss`.
  void residual(const Block& samples) {
    const Index outputs = arch_.outputs(), m = registers(samples);
    Layer& top = layer(arch_.depth());
    if (!arch_.classifies()) {
      for (Index c = 0; c < outputs; ++c) {
        const Number<S>* y = samples.targets + c * samples.stride;
        for (Index i = 0; i < m; ++i) row(top.delta, c)[i] = row(top.pre, c)[i] - shared_row(y, i);
      }
      return;
    }
    softmax(samples);
    for (Index i = 0; i < m; ++i) {
      const R label = shared_row(samples.targets, i);
      R wrong = splat<R>(0.0), right = splat<R>(0.0);
      for (Index c = 0; c < outputs; ++c) {
        const R p = row(probability_, c)[i];
        const auto here = label == number(c);
        wrong += here ? splat<R>(0.0) : p;
        right += here ? p : splat<R>(0.0);
      }
      R active = splat<R>(1.0);
      if (arch_.loss == Loss::cross_entropy_clipped) {
        active = right < splat<R>(kClip) ? splat<R>(0.0) : active;
        active = right > splat<R>(1.0 - kClip) ? splat<R>(0.0) : active;
      }
      for (Index c = 0; c < outputs; ++c) {
        const R p = row(probability_, c)[i];
        row(top.delta, c)[i] = active * (label == number(c) ? -wrong : p);
        row(probability_, c)[i] = active * p;
      }
    }
  }

  Sum<S> sum_loss(const Block& samples) {
    const Index outputs = arch_.outputs(), m = registers(samples);
    Layer& top = layer(arch_.depth());
    R* each_loss = row(surprise_, 0);
    for (Index i = 0; i < m; ++i) {
      R value = splat<R>(0.0);
      if (!arch_.classifies()) {
        for (Index c = 0; c < outputs; ++c) {
          const R r = row(top.delta, c)[i];
          value += 0.5 * r * r;
        }
      } else {
        const R label = shared_row(samples.targets, i);
        R at_label = splat<R>(0.0), largest = row(top.pre, 0)[i];
        for (Index c = 0; c < outputs; ++c) {
          const R o = row(top.pre, c)[i];
          largest = o > largest ? o : largest;
          at_label = label == number(c) ? o : at_label;
        }
        value = log1p_nonnegative(each_loss[i]) + (largest - at_label);
        if (arch_.loss == Loss::cross_entropy_clipped) {
          const R most = splat<R>(-std::log(kClip)), least = splat<R>(-std::log1p(-kClip));
          value = value > most ? most : value;
          value = value < least ? least : value;
        }
      }
      each_loss[i] = value;
    }
    Sum<S> total{};
    for (Index s = 0; s < samples.count; ++s) total += surprise_[s];
    return total;
  }

  // out_c = sum_d L_cd in_d with the loss's curvature in the outputs, L = I or diag(p) - p p^T.
  // The softmax has rank outputs - 1: differences are taken to the largest class, whose row is
  // minus the sum of the others, so that nothing cancels where one class takes all.
  void output_curvature(const S* in, Index in_stride, S* out, Index out_stride, Index m) {
    const Index outputs = arch_.outputs();
    auto from = [&](Index c) { return reinterpret_cast<const R*>(in + c * in_stride); };
    auto to = [&](Index c) { return reinterpret_cast<R*>(out + c * out_stride); };
    if (!arch_.classifies()) {
      for (Index c = 0; c < outputs; ++c) std::copy_n(from(c), m, to(c));
      return;
    }
    const R* pivot = row(pivot_, 0);
    for (Index i = 0; i < m; ++i) {
      R reference = splat<R>(0.0), mean = splat<R>(0.0), sum = splat<R>(0.0);
      for (Index c = 0; c < outputs; ++c)
        reference = pivot[i] == number(c) ? from(c)[i] : reference;
      for (Index c = 0; c < outputs; ++c)
        mean += row(probability_, c)[i] * (from(c)[i] - reference);
      for (Index c = 0; c < outputs; ++c) {
        const R value = row(probability_, c)[i] * (from(c)[i] - reference - mean);
        to(c)[i] = value;
        sum += pivot[i] == number(c) ? splat<R>(0.0) : value;
      }
      for (Index c = 0; c < outputs; ++c) to(c)[i] = pivot[i] == number(c) ? -sum : to(c)[i];
    }
  }

  const Architecture& arch_;
  Index stride_;
  bool tangents_;
  Team alone_{1};
  std::vector<Layer> layers_;
  Buffer<S> probability_, pivot_, surprise_;
  std::vector<Buffer<S>> turned_;  // a few rows of samples, for each thread
  Buffer<S> unit_, column_;        // of a Hessian by columns
};

}  // namespace pylyap
