// Inputs of a network: float64, or uint8 images.
#pragma once

#include "../problem.hpp"
#include "arrays.hpp"

namespace pylyap::bindings {

// Checks inputs (n_samples, n_inputs) and says how many samples there are.
inline Index samples_of(const Inputs& X, Index n_inputs) {
  return std::visit(
      [&](const auto& array) {
        require(array.ndim() == 2 && array.shape(0) > 0, "X must have shape (n_samples, n_inputs)");
        require_shape(array, "X", {array.shape(0), n_inputs});
        return array.shape(0);
      },
      X);
}

inline Data make_data(const Architecture& arch, const Inputs& X, const double* targets,
                      Index n_targets, bool by_columns) {
  return std::visit(
      [&](const auto& array) {
        const Index samples = array.shape(0);
        if constexpr (std::is_same_v<std::decay_t<decltype(array)>, Array>) {
          return Data(arch, array.data(), targets, samples, n_targets, by_columns);
        } else {
          return Data(arch, array.data(), targets, samples, n_targets);
        }
      },
      X);
}

}  // namespace pylyap::bindings
