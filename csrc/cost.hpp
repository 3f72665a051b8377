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

// Whether threads share the units of the layers of one run, rather than blocks of samples and
// groups of vectors: networks with large products, of one block or with a gradient that is too long
// to be formed apart for each block. On a Zen 4 (EPYC, family 25, model 17, two cores, November
// 2026) a step of 64-128-10 with 1797 samples took 1.33 times as long with shared units as with
// shared blocks, steps of 64-128-64-10 and 784-32-10, with 17,000 and 25,000 parameters, as long.
inline bool shares_units(const Architecture& arch, Index n_samples) {
  constexpr Index kApart = Index{1} << 14;
  if (arch.sparse) return true;
  const Index block = block_size(n_samples);
  if (block < n_samples && arch.n_params <= kApart) return false;
  for (Index l = 1; l <= arch.depth(); ++l)
    if (arch.width(l) * arch.used(l) * block >= kSharedProduct) return true;
  return false;
}

// How threads share one step of the other networks: blocks of samples at a time, times groups of
// vectors, each of which linearises the blocks again.
struct Division {
  Index blocks = 1, groups = 1;
  Index unit = 1;  // vectors that are computed together

  Index size() const { return blocks * groups; }
  // First vector of a group.
  Index begin(Index group, Index k) const {
    const Index units = (k + unit - 1) / unit;
    return std::min(units * group / groups * unit, k);
  }
};
inline Division divide_step(const Architecture& arch, Index n_samples, Index k, Index threads) {
  Division d;
  const Index size = block_size(n_samples);
  d.blocks = std::min(threads, (n_samples + size - 1) / size);
  if (k > 1) {
    d.unit = three_layer_products(arch, k) ? 2 : 1;
    d.groups = std::min(threads / d.blocks, (k + d.unit - 1) / d.unit);
  }
  return d;
}

// Threads for one run, at most `asked`; `together`: runs in lanes. One where they would save little
// work, in multiplications at the rate of a large product. On a Zen 4 (EPYC, family 25, model 17,
// two cores, November 2026) to begin a step together takes 0.3 microseconds, and kMeet is some 4
// microseconds of work: with 2-16-16-1 and 4-50-3 two threads were 1.2 to 1.7 times as fast as one
// with 3 vectors and more, with 4-10-3 1.1 to 1.2 times with 3 to 10, and 1.7 to 1.8 times with two
// blocks of samples. What a thread computes for others passes from its cache to theirs.
inline Index team_size(const Architecture& arch, Index n_samples, Index k, Method method,
                       Index together, Index asked) {
  constexpr double kMeet = 1e5, kPassOn = 20.0, kTeamWork = 4e6;
  if (asked <= 1) return 1;
  const Index block = block_size(n_samples);
  const bool dense = k > 0 && choose_method(arch, n_samples, k, method) == Method::dense;
  if (shares_units(arch, n_samples)) {
    double work = 0.0;
    for (Index l = 1; l <= arch.depth(); ++l) {
      const Index product = arch.width(l) * arch.used(l);
      if (product * block >= kSharedProduct)  // forward, backward and for the gradient
        work += 3.0 * static_cast<double>(product * n_samples);
    }
    if (k > 1 && !dense)
      work += static_cast<double>(k) * (step_cost(arch, n_samples, 2, Method::matrix_free) -
                                        step_cost(arch, n_samples, 1, Method::matrix_free));
    return work < kTeamWork ? 1 : asked;
  }
  const Division d = divide_step(arch, n_samples, dense ? 0 : k, asked);
  const Index blocks = (n_samples + block - 1) / block, turns = (blocks + d.blocks - 1) / d.blocks;
  const auto n = static_cast<double>(arch.n_params), vectors = static_cast<double>(k);
  const double samples = static_cast<double>(turns) / static_cast<double>(blocks);
  const double step = step_cost(arch, n_samples, 0, method);
  double along = step_cost(arch, n_samples, k, method) - step;
  if (dense) along -= n * n * vectors;  // products with the Hessian are not shared
  const Index largest = std::max(d.begin(1, k), k - d.begin(d.groups - 1, k));
  const double share = k > 0 ? static_cast<double>(largest) / vectors : 1.0;
  const double saved =
      (step + along - samples * (step + share * along)) * static_cast<double>(together);
  const double handed = dense ? n * n : n * (1.0 + vectors);
  const double passed = kPassOn * handed * static_cast<double>(turns * together);
  return saved < kMeet + passed ? 1 : d.size();
}

}  // namespace pylyap
