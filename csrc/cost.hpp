// Choices of algorithms and block sizes, which depend on the sizes alone, and the cost model.
#pragma once

#include <algorithm>
#include <cstdlib>

#include "architecture.hpp"
#include "group.hpp"
#include "lanes.hpp"
#include "samples.hpp"

namespace pylyap {

// How products of the Hessian with tangent vectors are formed.
enum class Method { automatic, dense, matrix_free };

// Small networks are computed in lanes, several runs at a time; wide ones one run at a time, with
// registers along samples. A single run in lanes costs as much as a register full.
inline bool fits_lanes(const Architecture& arch) { return arch.n_params <= kMaxInLanes; }

// Whether the Hessian is formed in blocks (three_layer/hessian.hpp), and whether Hessian-vector
// products use that structure: with more inputs, plain matrix products are faster.
inline constexpr Index kMaxOutputs = 32;  // the curvature of the loss is held for every sample
inline constexpr Index kPairInputs = 16;  // up to here the pairs x_a x_b, a <= b, fit a cache
inline bool three_layer_hessian(const Architecture& arch) {
  return arch.three_layer() && !arch.sparse &&
         (!arch.classifies() || arch.outputs() <= kMaxOutputs);
}
inline bool three_layer_products(const Architecture& arch) {
  return three_layer_hessian(arch) && arch.width(0) + 1 <= kPairInputs;
}

// Whether the first layer multiplies only the non-zero entries of the data: `entries` of the `all`
// entries of inputs that are not always zero.
inline bool mostly_zero(const Architecture& arch, Index entries, Index all) {
  constexpr double kSparse = 0.35;
  return !fits_lanes(arch) && arch.depth() > 1 && arch.width(1) >= 16 &&
         arch.width(0) < kMaxIndex &&
         static_cast<double>(entries) < kSparse * static_cast<double>(all);
}

// Samples per block: equal blocks of at most 256, so that a layer stays in cache.
inline Index block_size(Index n_samples) {
  constexpr Index kMax = 256;
  const Index blocks = (n_samples + kMax - 1) / kMax;
  return std::min(n_samples, padded((n_samples + blocks - 1) / blocks));
}

// Cost of one step with k tangent vectors, in multiplications at the rate of a large matrix
// product: operation counts of the kernels times factors for their lower rates. The factors were
// fitted to five networks in AVX-512 on a Xeon of family 6, model 207 (November 2026). The model
// changes to the Hessian after 17 vectors for 4-10-3 and 120 samples with softmax, 8 with squared
// errors, 10 for 2-10-1 and 100 samples; measured, the costs are equal at 19, 9 and 10.
inline double step_cost(const Architecture& arch, Index n_samples, Index k, Method method) {
  constexpr double kHessian = 1.6, kVectors = 1.4;
  const auto N = static_cast<double>(n_samples), vectors = static_cast<double>(k);
  double n = static_cast<double>(arch.n_params);
  double all = 3.0 * N * n;  // forward, backward, gradient
  if (k == 0) return all;
  const auto d1 = static_cast<double>(arch.width(0) + 1), h = static_cast<double>(arch.width(1));
  const auto C = static_cast<double>(arch.outputs());
  const double rank = arch.classifies() ? C - 1.0 : C, pairs = 0.5 * d1 * (d1 + 1.0);
  double per_vector = 0.0, shared = 0.0;
  if (three_layer_products(arch)) {
    per_vector = 2.0 * h * d1 + 4.0 * rank * h + rank * rank;
    shared = rank * h * d1 + h * pairs;
  } else {
    for (Index l = 1; l <= arch.depth(); ++l) {
      const auto size = static_cast<double>(arch.width(l) * (arch.width(l - 1) + 1));
      per_vector += (l == 1 ? 2.0 : 6.0) * size;
    }
  }
  if (method == Method::matrix_free) return all + kVectors * N * (shared + vectors * per_vector);
  double hessian = n * per_vector;
  if (three_layer_hessian(arch)) {
    const double curved = arch.classifies() ? rank : 1.0;  // outputs whose sums differ
    hessian = 0.5 * h * (h + 1.0) * (pairs + curved) + curved * h * (h + 2.0) * d1 +
              0.5 * curved * (curved + 1.0) * (h + 1.0) * (h + 1.0);
    n = h * d1 + rank * (h + 1.0);
  }
  return all + kHessian * N * hessian + n * n * vectors;
}

// Dense Hessian or products with vectors: the cheaper by count.
inline Method choose_method(const Architecture& arch, Index n_samples, Index k, Method asked) {
  if (asked != Method::automatic) return asked;
  return step_cost(arch, n_samples, k, Method::dense) <
                 step_cost(arch, n_samples, k, Method::matrix_free)
             ? Method::dense
             : Method::matrix_free;
}

// Runs of a group, at most, that are computed one after the other: a run alone costs 0.08 to 0.2
// times a whole group of 8 in lanes, more where its samples do not fill the registers.
// PROVENANCE
inline Index runs_alone(const Architecture& arch, Index n_samples) {
  constexpr Index W = kRuns<Lane>;
  if (!fits_lanes(arch)) return W;
  const char* text = std::getenv("PYLYAP_ALONE");
  if (text) return std::atoi(text);
  return std::max(5 * W * n_samples / (8 * padded(n_samples, W)), Index{1});
}

// Threads for one run, at most `asked`: one where they would meet for less than kTeamWork
// multiplications. `together`: runs in lanes.
// PROVENANCE
inline constexpr double kTeamWork = 4e6;
inline Index team_size(const Architecture& arch, Index n_samples, Index k, Method method,
                       Index together, Index asked) {
  if (asked <= 1) return 1;
  const auto block = static_cast<double>(block_size(n_samples));
  double work = 0.0;
  for (Index l = 1; l <= arch.depth() && !fits_lanes(arch); ++l)
    work = std::max(work, block * static_cast<double>(arch.width(l) * arch.used(l)));
  if (k > 1 && choose_method(arch, n_samples, k, method) == Method::matrix_free) {
    const double vector = step_cost(arch, n_samples, 2, Method::matrix_free) -
                          step_cost(arch, n_samples, 1, Method::matrix_free);
    work = std::max(work, vector * static_cast<double>(k * together) * block /
                              static_cast<double>(n_samples));
  }
  return work < kTeamWork ? 1 : asked;
}

}  // namespace pylyap
