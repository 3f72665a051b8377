// Products of the first layer with sparse data such as images: only non-zero entries are
// multiplied.
//
// The matrix of the layer is stored in panels of kPanel units. A panel has one row of units per
// input, so that an entry of the data is multiplied with neighbouring numbers. The bias is an input
// that is always one.
#pragma once

#include <algorithm>
#include <cstring>
#include <span>

#include "lanes.hpp"
#include "products.hpp"
#include "samples.hpp"

namespace pylyap {

namespace detail {

inline constexpr Index kSums = 8;  // registers of units per pass over the entries

// sums[c] += value of each entry times register c of its row.
template <Index C, class T, class R>
[[gnu::flatten]] inline void combine(std::span<const Entry<T>> entries, const Number<R>* rows,
                                     Index stride, R (&sums)[C]) {
  R acc[C];
  unrolled<C>([&](Index c) { acc[c] = sums[c]; });
  for (const auto& entry : entries) {
    const Number<R>* row = rows + entry.at * stride;
    const R value = broadcast_shared<R>(number<Number<R>>(entry.value));
    unrolled<C>(
        [&](Index c) { acc[c] = value * load<R>(row + c * kPerRegister<Number<R>>) + acc[c]; });
  }
  unrolled<C>([&](Index c) { sums[c] = acc[c]; });
}

}  // namespace detail

// Units of one panel (`width` of them) for samples begin ... end - 1, begin at a whole register:
// out[unit][sample] = bias[unit] + sum over the sample's entries of value * panel[input][unit].
template <class R, class T>
[[gnu::noinline]] void panel_times_samples(const Number<R>* panel, const Number<R>* bias,
                                           Index width, const Sparse<T>& samples, Index begin,
                                           Index end, Rows<R> out) {
  constexpr Index W = kPerRegister<Number<R>>;
  detail::in_pieces<detail::kSums>((width + W - 1) / W, [&]<Index C>(Index first) {
    const Index units = std::min(C * W, width - first * W);
    R start[C];
    std::memcpy(start, bias + first * W, sizeof start);
    for (Index s = begin; s < end; s += W) {
      R sums[W][C];
      for (Index l = 0; l < W; ++l) {
        R sample[C];
        std::copy_n(start, C, sample);
        detail::combine(samples[std::min(s + l, end - 1)], panel + first * W, width, sample);
        std::copy_n(sample, C, sums[l]);
      }
      for (Index u = 0; u < units; ++u) {
        R unit;
        for (Index l = 0; l < W; ++l) unit[l] = sums[l][u / W][u % W];
        out.data[(first * W + u) * out.stride + s / W] = unit;
      }
    }
  });
}

// Rows of one panel for inputs begin ... end - 1, `out` being the first, `width` apart: (+)= sum
// over the entries of the input of value times the transposed units.
template <class R, class T>
[[gnu::noinline]] void inputs_times_panel(const Lists<T>& inputs, Index begin, Index end,
                                          const Number<R>* transposed, Number<R>* out, Index width,
                                          bool add) {
  constexpr Index W = kPerRegister<Number<R>>;
  detail::in_pieces<detail::kSums>((width + W - 1) / W, [&]<Index C>(Index first) {
    const auto bytes =
        static_cast<std::size_t>(std::min(C * W, width - first * W)) * sizeof(Number<R>);
    for (Index i = begin; i < end; ++i) {
      Number<R>* row = out + (i - begin) * width + first * W;
      R sums[C] = {};
      if (add) std::memcpy(sums, row, bytes);
      detail::combine(inputs[i], transposed + first * W, kTransposedStride, sums);
      if (bytes == sizeof sums) {
        std::memcpy(row, sums, sizeof sums);
      } else {
        std::memcpy(row, sums, bytes);
      }
    }
  });
}

}  // namespace pylyap
