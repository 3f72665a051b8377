// Sums over samples in one order for a run alone and for lanes.
//
// One run has registers along samples: each place in a register has a sum of its own, and these are
// added up by halves (`dot_tile` of products.hpp). In lanes the samples of each place are summed
// apart and the sums added up alike, so that no factor is transposed for a run alone.
#pragma once

#include <bit>
#include <cstddef>
#include <type_traits>

#include "lanes.hpp"
#include "products.hpp"

namespace pylyap {

namespace detail {

// M sums over samples in lanes: add(first, step, sums) adds the samples first, first + step, ... to
// `sums`, finish(sums) takes them. `folded`: in the order of `dot_tile`, the samples of each place
// in a register apart, and these sums added up by halves; otherwise all at once.
template <Index M, class Add, class Finish>
[[gnu::always_inline]] inline void fold_places(bool folded, Add&& add, Finish&& finish) {
  constexpr Index W = kRuns<Lane>, kLevels = std::bit_width(static_cast<std::size_t>(W)) - 1;
  Lane kept[kLevels][M];
  if constexpr (kLevels == 1) unrolled<M>([&](Index j) { kept[0][j] = Lane{}; });  // for g++ 12
  const Index places = folded ? W : 1;
  for (Index i = 0; i < places; ++i) {
    Index place = 0;  // the bits of i in reversed order: sums that are added follow each other
    for (Index bit = 0; bit < kLevels; ++bit) place = place << 1 | (i >> bit & 1);
    Lane sums[M] = {};
    add(place, places, sums);
    Index level = 0;
    for (; i >> level & 1; ++level)
      unrolled<M>([&](Index j) { sums[j] = kept[level][j] + sums[j]; });
    if (i + 1 < places) {
      unrolled<M>([&](Index j) { kept[level][j] = sums[j]; });
    } else {
      finish(sums);
    }
  }
}
// out(r, c) (+)= sum over samples of x(r, s) * y(c, s) in lanes, in that order.
template <Index R, Index C, class Y>
[[gnu::flatten]] inline void folded_tile(Pairs<Lane, Y> pairs, Index xr, Index yc, Index samples,
                                         Lane* out, Index out_stride, bool add) {
  fold_places<R * C>(
      true,
      [&](Index first, Index step, Lane* sums) __attribute__((always_inline)) {
        pairs.each([&](const Lane* x, const Y* y) __attribute__((always_inline)) {
          for (Index p = first; p < samples; p += step) {
            Lane a[R];
            unrolled<R>([&](Index r) { a[r] = pinned(x[r * xr + p]); });
            unrolled<C>([&](Index c) {
              const Lane b = pinned(broadcast_shared<Lane>(y[c * yc + p]));
              unrolled<R>([&](Index r) { sums[r * C + c] = a[r] * b + sums[r * C + c]; });
            });
          }
        });
      },
      [&](const Lane* sums) __attribute__((always_inline)) {
        unrolled<R * C>([&](Index j) {
          Lane& target = out[j / C * out_stride + j % C];
          target = add ? target + sums[j] : sums[j];
        });
      });
}

template <class Y>
[[gnu::noinline]] void folded(Pairs<Lane, Y> pairs, Index xr, Index yc, Index samples,
                              Matrix<Lane> out, bool add) {
  in_pieces<kTileRows>(out.rows, [&]<Index R>(Index r) {
    in_pieces<kTileCols>(out.cols, [&]<Index C>(Index c) {
      folded_tile<R, C, Y>(pairs.shifted(r * xr, c * yc), xr, yc, samples,
                           out.data + r * out.stride + c, out.stride, add);
    });
  });
}

}  // namespace detail

// Whether sums over samples of a small network are those of `dot_tile`, in lanes as well, rather
// than over one sample after the other. In lanes each sum takes three more instructions for
// each place; for one run no factor is transposed. On a Zen 4 (EPYC, family 25, model 17, November
// 2026) 16 runs with 100 and 120 samples took 1.02 to 1.06 times as long with AVX-512, one run 0.71
// to 0.98 times; with AVX2 16 runs took 1.04 to 1.16 times as long, one run 0.9 to 1.03 times.
// Smaller limits were not tried.
inline bool folds(Index samples) {
  constexpr bool kPays = kRuns<Lane> >= 8;
  constexpr Index kFolded = 64;
  return kPays && samples >= kFolded;
}
// A sum over samples in that order, for any number of them; sums of floats are in double.
inline double folded_sum(const float* values, Index samples) {
  double sum = 0.0;
  for (Index s = 0; s < samples; ++s) sum += values[s];
  return sum;
}
inline double folded_sum(const double* values, Index samples) {
  constexpr Index W = kRuns<Lane>;
  Lane sums{};
  Index s = 0;
  for (; s + W <= samples; s += W) sums += load<Lane>(values + s);
  for (Index l = 0; s + l < samples; ++l) sums[l] += values[s + l];
  return reduce_add<double>(sums);
}
inline Lane folded_sum(const Lane* values, Index samples) {
  constexpr Index W = kRuns<Lane>;
  Lane sums[W] = {};
  Index s = 0;
  for (; s + W <= samples; s += W)
    for (Index l = 0; l < W; ++l) sums[l] += values[s + l];
  for (Index l = 0; s + l < samples; ++l) sums[l] += values[s + l];
  for (Index half = W / 2; half > 0; half /= 2)
    for (Index l = 0; l < half; ++l) sums[l] += sums[l + half];
  return sums[0];
}
// out (+)= a b^T over samples, where `folds`.
template <class A, class B>
void multiply_folded(Matrix<A> a, Matrix<B> b, Matrix<Lane> out, bool add) {
  detail::folded<std::remove_const_t<B>>({a.data, b.data}, a.stride, b.stride, a.cols, out, add);
}
template <class A, class B>
void multiply_folded(Rows<A> a, Rows<B> b, Matrix<double> out, bool add) {
  detail::dots<Lane>({a.data, b.data}, a.stride, b.stride, a.cols, out, add);
}
// out += a b^T + c d^T over samples, a and c as b and d of the same shape.
inline void add_folded(Matrix<const Lane> a, Matrix<const Lane> b, Matrix<const Lane> c,
                       Matrix<const Lane> d, Matrix<Lane> out) {
  detail::folded<Lane>({a.data, b.data, c.data, d.data}, a.stride, b.stride, a.cols, out, true);
}
inline void add_folded(Rows<const Lane> a, Rows<const Lane> b, Rows<const Lane> c,
                       Rows<const Lane> d, Matrix<double> out) {
  detail::dots<Lane>({a.data, b.data, c.data, d.data}, a.stride, b.stride, a.cols, out, true);
}

}  // namespace pylyap
