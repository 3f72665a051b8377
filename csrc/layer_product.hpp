// Products over the units of a layer, in registers along samples or runs, and what follows them.
#pragma once

#include "lanes.hpp"
#include "products.hpp"

namespace pylyap {

namespace detail {

// A product whose inner index is that of layers, in registers S along samples or runs: out(r, c) <-
// sum over p < count of x(r, p) y(p, c), and over p < count2 of a second pair. Entries of x are
// addressed by strides (xr, xp), rows of y are yp apart, those of out and of `Then` `stride`.
template <class S>
struct Then {
  S* value = nullptr;        // value <- slope * out
  const S* slope = nullptr;  // without value: out <- slope * out + curvature * pre
  const S *curvature = nullptr, *pre = nullptr;
};
template <class S, class X, class Y>
struct LayerProduct {
  Pairs<X, Y> pairs;
  Index xr, xp, yp, count, count2;
  S* out;
  Index stride;
  bool add;
  Then<S> then;
};
template <Index R, Index C, class S, class X, class Y>
[[gnu::flatten]] inline void layer_tile(const LayerProduct<S, X, Y>& product, Index row,
                                        Index col) {
  const Index xr = product.xr, xp = product.xp, yp = product.yp, stride = product.stride;
  const Index at = row * stride + col;
  S* out = product.out + at;
  S acc[R][C] = {};
  auto each = [&](auto f) __attribute__((always_inline)) {
    unrolled<R>([&](Index r) {
      unrolled<C>([&](Index c) __attribute__((always_inline)) { f(acc[r][c], r * stride + c); });
    });
  };
  if (product.add) each([&](S& sum, Index i) { sum = out[i]; });
  Index count = product.count;
  product.pairs.shifted(row * xr, col)
      .each([&](const X* x, const Y* y) __attribute__((always_inline)) {
        for (Index p = 0; p < count; ++p, x += xp, y += yp) {
          S a[R];
          unrolled<R>([&](Index r) {
            const S value = broadcast_shared<S>(x[r * xr]);
            a[r] = C > 1 ? pinned(value) : value;
          });
          unrolled<C>([&](Index c) {
            const S value = broadcast_shared<S>(y[c]), b = R > 1 ? pinned(value) : value;
            unrolled<R>([&](Index r) { acc[r][c] = a[r] * b + acc[r][c]; });
          });
        }
        count = product.count2;
      });
  const Then<S>& then = product.then;
  if (!then.slope) {
    each([&](const S& sum, Index i) { out[i] = sum; });
  } else if (const S* slope = then.slope + at; then.value) {
    S* value = then.value + at;
    each([&](const S& sum, Index i) { out[i] = sum, value[i] = slope[i] * sum; });
  } else {
    const S *curvature = then.curvature + at, *pre = then.pre + at;
    each([&](const S& sum, Index i) { out[i] = fused<S>(slope[i], sum, curvature[i] * pre[i]); });
  }
}
template <class S, class X, class Y>
[[gnu::noinline]] void layer_product(const LayerProduct<S, X, Y>& product, Index rows, Index cols) {
  in_pieces<kTileCols>(cols, [&]<Index C>(Index c) {
    in_pieces<kTileRows>(rows, [&]<Index R>(Index r) { layer_tile<R, C>(product, r, c); });
  });
}

}  // namespace detail

// out <- a b
inline void multiply(Matrix<const double> a, Rows<const Lane> b, Rows<Lane> out) {
  detail::layer_product<Lane, double, Lane>(
      {{a.data, b.data}, a.stride, 1, b.stride, a.cols, 0, out.data, out.stride, false, {}},
      out.rows, out.registers());
}

}  // namespace pylyap
