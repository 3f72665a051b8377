// A dense network: layers, activations and loss, and the order of its parameters in the kernels.
#pragma once

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "activation.hpp"
#include "lanes.hpp"
#include "samples.hpp"

namespace pylyap {

enum class Loss { mse, cross_entropy, cross_entropy_clipped };

inline constexpr double kClip = 1e-7;  // Keras' bound on probabilities

struct Architecture {
  std::vector<Index> sizes;             // units per layer, input first
  std::vector<Activation> activations;  // one per hidden layer
  Loss loss;
  std::vector<Index> offsets;   // of layer l's matrix, l = 1 ... depth, in offsets[l - 1]
  std::vector<Index> external;  // documented position of each internal parameter
  Index n_params = 0;
  // Inputs of the first layer in the order of the kernels. The first `live` are not zero in all of
  // the data; weights of the others, which come after the bias, have zero gradient.
  std::vector<Index> inputs;
  Index live;
  bool sparse = false;  // the first layer is stored in panels (sparse.hpp), its inputs as lists

  Architecture(std::vector<Index> sizes_, std::vector<Activation> activations_, Loss loss_)
      : sizes(std::move(sizes_)),
        activations(std::move(activations_)),
        loss(loss_),
        live(width(0)) {
    inputs.resize(static_cast<std::size_t>(live));
    std::iota(inputs.begin(), inputs.end(), Index{0});
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
  // The same network for data in which inputs without a flag are zero, perhaps most others too.
  Architecture for_data(const std::vector<bool>& flags, bool mostly_zero) const {
    Architecture arch = *this;
    std::stable_partition(arch.inputs.begin(), arch.inputs.end(),
                          [&](Index i) { return flags[static_cast<std::size_t>(i)]; });
    arch.live = std::count(flags.begin(), flags.end(), true);
    arch.sparse = mostly_zero;
    const Index in = width(0), out = width(1);
    auto outside = [&](Index unit, Index row) {
      if (row == arch.live) return out * in + unit;
      return unit * in + arch.inputs[static_cast<std::size_t>(row < arch.live ? row : row - 1)];
    };
    Index* to = arch.external.data();
    const Index panel = mostly_zero ? kPanel : 1;
    for (Index first = 0; first < out; first += panel)
      for (Index row = 0; row <= in; ++row)
        for (Index unit = first; unit < std::min(first + panel, out); ++unit)
          *to++ = outside(unit, row);
    return arch;
  }
  // 2 l - 2 for a weight and 2 l - 1 for a bias of layer l, by documented position.
  Index kind_of(Index position) const {
    Index l = 1;
    while (l < depth() && position >= offset(l + 1)) ++l;
    return 2 * l - (position - offset(l) < width(l) * width(l - 1) ? 2 : 1);
  }
  // Columns of the matrix of layer l with the bias, and the number of them with data.
  Index columns(Index l) const { return width(l - 1) + 1; }
  Index used(Index l) const { return l == 1 ? live + 1 : columns(l); }

  Index depth() const { return static_cast<Index>(sizes.size()) - 1; }
  Index width(Index l) const { return sizes[static_cast<std::size_t>(l)]; }
  Index outputs() const { return sizes.back(); }
  Index offset(Index l) const { return offsets[static_cast<std::size_t>(l - 1)]; }
  const Activation& activation(Index l) const {
    return activations[static_cast<std::size_t>(l - 1)];
  }
  bool three_layer() const { return depth() == 2; }
  bool classifies() const { return loss != Loss::mse; }
};

}  // namespace pylyap
