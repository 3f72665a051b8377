// Loss, gradient and Hessian, or products of the Hessian with vectors, summed over blocks of
// samples: the network and what it needs for one thread, or for a team that shares its products.
#pragma once

#include <algorithm>
#include <optional>
#include <span>
#include <type_traits>
#include <variant>

#include "buffer.hpp"
#include "cost.hpp"
#include "lanes.hpp"
#include "network.hpp"
#include "problem.hpp"
#include "team.hpp"
#include "three_layer/hessian.hpp"
#include "three_layer/products.hpp"

namespace pylyap {

// Vectors one after the other, `stride` apart.
template <class S>
struct Vectors {
  const S* data;
  Index stride, count;
};

// Where sums go: products (vectors, n_params) of the Hessian with vectors, or the Hessian itself,
// (side, side); null for what is not computed.
template <class S>
struct SumArrays {
  S *products, *hessian;
  Index side;
};

template <class S>
class BlockSums {
 public:
  using Block = BasicSamples<Number<S>>;
  static constexpr bool kTangents = !std::is_same_v<S, float>;  // tangents are in double only

  // For blocks of up to `block` samples and k vectors by these kernels; with `dense`, for the
  // Hessian. Threads of a team of `workers` share products with `scratches` vectors at a time.
  BlockSums(const Problem& problem, Index block, Index k, bool dense, Structure kernels,
            Index workers, Index scratches)
      : problem_(problem),
        dense_(dense),
        network_(problem.arch, block, workers, scratches, dense && kernels == Structure::none,
                 kernels),
        buffer_(problem.data.buffer<S>(block)) {
    if constexpr (kTangents) {
      if (kernels == Structure::hessian) structured_.emplace(problem.arch, block, k);
      if (kernels == Structure::products) products_.emplace(problem.arch, block, k);
    }
  }

  // The kernels of three_layer/ for the Hessian or products of it with k vectors, if it has any.
  static Structure kernels(const Architecture& arch, Index k, bool dense) {
    if (!kTangents) return Structure::none;
    if (dense) return three_layer_hessian(arch) ? Structure::hessian : Structure::none;
    return k > 0 && three_layer_products(arch, k) ? Structure::products : Structure::none;
  }

  // Length of the rows of the Hessian with which `multiply` works.
  Index side() const {
    if constexpr (kTangents) {
      if (structured_) return structured_->n_relative();
    }
    return problem_.arch.n_params;
  }
  bool in_order() const { return network_.in_order(); }

  // `count` samples from `first` on, of those chosen or of all.
  Block samples(const std::span<const Index>* chosen, Index first, Index count, bool slopes,
                Team& team) {
    if (!chosen) return problem_.data.block(first, count, slopes, buffer_, team);
    return problem_.data.gather(
        chosen->subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count)), buffer_,
        team);
  }
  Accumulator<S> loss(Team& team, const S* weights, const Block& block) {
    return network_.loss(team, weights, block);
  }

  // Sums over blocks: `begin`, then for each block `evaluate` (or `linearise`, without the
  // gradient) and `add`, then `finish`.
  void begin(Team& team, const Vectors<S>& vectors, const SumArrays<S>& out) {
    const Index np = problem_.arch.n_params;
    if constexpr (kTangents) {
      if (products_) return products_->load(vectors.data, vectors.stride, vectors.count);
      if (structured_) return;
    }
    if (dense_) {
      std::fill_n(out.hessian, np * np, S{});
      return;
    }
    share_parameters(team, np, [&](Index first, Index last, Index) {
      for (Index c = 0; c < vectors.count; ++c)
        std::fill_n(out.products + c * np + first, last - first, S{});
    });
  }
  // Sets the gradient, or adds to it; adds to `loss`, if it is not null.
  void evaluate(Team& team, const S* weights, const Block& block, bool add, Accumulator<S>* loss,
                GradientParts<S>& parts) {
    network_.evaluate(team, weights, block, add, loss, parts);
  }
  void linearise(Team& team, const S* weights, const Block& block) {
    network_.linearise(team, weights, block);
  }
  // Whether `add` reads what `evaluate` alone leaves, for blocks of so many samples.
  bool needs_gradient(Index samples) const {
    return network_.in_order() && (dense_ || !folds(samples));
  }
  // Adds the products or the Hessian of a block, which is the first since `begin` or not.
  void add(Team& team, const S* weights, const Block& block, bool first, const Vectors<S>& vectors,
           const SumArrays<S>& out) {
    if constexpr (kTangents) {
      if (structured_) {
        structured_->prepare(weights, network_, block);
        structured_->add(weights, network_, block, !first);
      } else if (products_) {
        products_->prepare(weights, network_, block);
        products_->add(network_, block);
      } else if (dense_) {
        network_.add_hessian(weights, block, out.hessian);
      } else {
        // Whole vectors for each thread; all threads share each of the remaining ones.
        auto product = [&](Team& some, Index c, Index scratch) {
          network_.add_hessian_vector(some, weights, block, vectors.data + c * vectors.stride,
                                      out.products + c * problem_.arch.n_params, scratch);
        };
        const Index each = vectors.count / team.size() * team.size();
        team.share(each, 1, [&](Index begin, Index end, Index share) {
          for (Index c = begin; c < end; ++c) product(alone_, c, share);
        });
        for (Index c = each; c < vectors.count; ++c) product(team, c, 0);
      }
    }
  }
  void finish(const S* weights, const SumArrays<S>& out) {
    if constexpr (kTangents) {
      if (structured_) structured_->finish(weights, out.hessian, out.side);
      if (products_) products_->finish(out.products);
    }
  }

  // out (vectors, n_params) <- H times vectors, for the Hessian that `finish` has written.
  void multiply(const S* hessian, const Vectors<S>& vectors, S* out) {
    const Index np = problem_.arch.n_params;
    if constexpr (kTangents) {
      if (structured_)
        return structured_->multiply(hessian, vectors.data, vectors.stride, vectors.count, out);
    }
    multiply_symmetric_matrix(Matrix<const S>(vectors.data, vectors.count, np, vectors.stride),
                              Matrix<const S>(hessian, np, np), Matrix<S>(out, vectors.count, np),
                              network_.in_order());
  }

 private:
  const Problem& problem_;
  const bool dense_;
  Team alone_{1};
  Network<S> network_;
  template <class T>
  using InDouble = std::conditional_t<kTangents, std::optional<T>, std::monostate>;
  InDouble<three_layer::Hessian<S>> structured_;
  InDouble<three_layer::Products<S>> products_;
  BlockBuffer<S> buffer_;
};

}  // namespace pylyap
