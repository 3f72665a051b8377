// Choices of algorithms and block sizes, which depend on the sizes alone, and the cost model.
#pragma once

#include <algorithm>

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

// Whether the Hessian is formed in blocks (three_layer/hessian.hpp), and whether products of it
// with k vectors use that structure: with more inputs, plain matrix products are faster.
inline constexpr Index kMaxOutputs = 32;  // the curvature of the loss is held for every sample
inline constexpr Index kPairInputs = 16;  // up to here the pairs x_a x_b, a <= b, fit a cache
inline bool three_layer_hessian(const Architecture& arch) {
  return arch.three_layer() && !arch.sparse &&
         (!arch.classifies() || arch.outputs() <= kMaxOutputs);
}

// Multiplications per sample of the products of the Hessian with k vectors: by the R-operator, and
// by the structure of one hidden layer (three_layer/products.hpp), which shares sums between the
// vectors.
inline double r_operator_count(const Architecture& arch, Index k) {
  double per_vector = 0.0;
  for (Index l = 1; l <= arch.depth(); ++l)
    per_vector += static_cast<double>((l == 1 ? 2 : 6) * arch.width(l) * arch.columns(l));
  return per_vector * static_cast<double>(k);
}
inline double three_layer_count(const Architecture& arch, Index k) {
  const auto d1 = static_cast<double>(arch.columns(1)), h = static_cast<double>(arch.width(1));
  const auto rank = static_cast<double>(arch.outputs() - (arch.classifies() ? 1 : 0));
  const double shared = rank * h * d1 + 0.5 * h * d1 * (d1 + 1.0);
  const double per_vector = 2.0 * h * d1 + 4.0 * rank * h + rank * rank;
  return shared + per_vector * static_cast<double>(k);
}
// The structure is used where it is faster, by the counts; it takes vectors in pairs. On a Zen 3
// (EPYC, family 25, model 1, AVX2, November 2026, a loaded machine) a step by the R-operator took
// 0.58, 0.98 and 1.08 times as long for 1, 2 and 3 vectors of a run of 4-10-3 alone, 0.90, 1.20 and
// 1.25 times in lanes; for 1 and 2 vectors 0.58 and 0.69 times alone, 0.91 and 1.21 times in lanes
// with 4-50-3, 0.89 and 1.17 alone, 1.04 and 1.43 in lanes with 2-10-1, whose single output leaves
// tiles of products empty. Single vectors always take the R-operator. For one run of 8-60-8, too
// wide for lanes, it took 0.40 times as long with 1 vector, 0.5 to 0.75 times with 10 and 20.
inline bool three_layer_products(const Architecture& arch, Index k) {
  const double rate = arch.outputs() > 1 ? 1.5 : 2.5;  // of the structure, that of the other is 1
  return k > 1 && fits_lanes(arch) && three_layer_hessian(arch) && arch.columns(1) <= kPairInputs &&
         three_layer_count(arch, k + k % 2) < rate * r_operator_count(arch, k);
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
  if (method == Method::matrix_free)
    return all + kVectors * N *
                     (three_layer_products(arch, k) ? three_layer_count(arch, k)
                                                    : r_operator_count(arch, k));
  double hessian = r_operator_count(arch, arch.n_params);
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

// Runs of a group, at most, that are computed one after the other rather than in lanes. On a Zen 4
// (EPYC, family 25, model 17, AVX-512, November 2026) a run alone took 0.12 to 0.27 times as long
// as a group of 8 with 100 samples and more, for steps and for 1 to 40 vectors, 0.3 to 0.37 times
// with 16, 0.4 to 0.47 with 9, 0.6 with 4 samples: with few samples registers are not full. Between
// 3 and 5 runs of 8 the times differ by less than a fifth of a group.
inline Index runs_alone(const Architecture& arch, Index n_samples) {
  constexpr Index W = kRuns<Lane>, kSamples = 8;
  if (!fits_lanes(arch)) return W;
  return std::clamp(n_samples / kSamples, Index{1}, W / 2);
}

// Products of fewer multiplications are not shared by threads.
inline constexpr Index kSharedProduct = Index{1} << 19;

// Threads for one run, at most `asked`; `together`: runs in lanes. One where they would share
// little work: between two steps threads fall asleep, and to wake them takes long. On a Zen 4
// (EPYC, family 25, model 17, two virtual cores, November 2026) a step of 105 microseconds, of
// which two threads shared about a million multiplications, took 209; kTeamWork is about 250
// microseconds of work. How flat the optimum is was not measured: below it a second thread saves
// little. Between the products of a wide network threads do not sleep, so that the work of a step
// counts; between the vectors of two blocks of samples of a small one they do.
inline Index team_size(const Architecture& arch, Index n_samples, Index k, Method method,
                       Index together, Index asked) {
  constexpr double kTeamWork = 4e6;
  if (asked <= 1) return 1;
  const bool small = fits_lanes(arch);
  const Index block = block_size(n_samples);
  double work = 0.0;
  for (Index l = 1; l <= arch.depth() && !small; ++l) {
    const Index product = arch.width(l) * arch.used(l);
    if (product * block >= kSharedProduct)  // forward, backward and for the gradient
      work += 3.0 * static_cast<double>(product * n_samples);
  }
  if (k > 1 && choose_method(arch, n_samples, k, method) == Method::matrix_free) {
    const double vector = step_cost(arch, n_samples, 2, Method::matrix_free) -
                          step_cost(arch, n_samples, 1, Method::matrix_free);
    const double all = vector * static_cast<double>(k * together);
    work += small ? all * static_cast<double>(block) / static_cast<double>(n_samples) : all;
  }
  return work < kTeamWork ? 1 : asked;
}

}  // namespace pylyap
