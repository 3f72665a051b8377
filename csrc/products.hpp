// Matrix products: of registers in tiles, of plain numbers by Eigen.
//
// Every matrix is row-major with a leading dimension. A register holds neighbouring runs or, for
// one run, neighbouring samples (`Rows`). One operand may be plain double while the other is a
// Lane: data that all runs share, or weights that all samples share. Sums run over the inner index
// in a fixed order, so that results depend on the shapes alone, to the bit.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstring>
#include <type_traits>
#include <utility>

#include "lanes.hpp"
#include "samples.hpp"

namespace pylyap {

template <class T>
struct Matrix {
  T* data;
  Index rows, cols, stride;  // element (i, j) is data[i * stride + j]

  Matrix(T* data_, Index rows_, Index cols_, Index stride_)
      : data(data_), rows(rows_), cols(cols_), stride(stride_) {}
  Matrix(T* data_, Index rows_, Index cols_) : Matrix(data_, rows_, cols_, cols_) {}
  template <class U>
    requires std::is_same_v<T, const U>
  Matrix(const Matrix<U>& other) : Matrix(other.data, other.rows, other.cols, other.stride) {}
};

// Values of one run along samples, in registers of W: sample s of row r is number s % W of
// data[r * stride + s / W]. Numbers past the last sample are undefined.
template <class T>
struct Rows {
  T* data;
  Index rows, cols, stride;  // cols in samples, stride in registers

  Rows(T* data_, Index rows_, Index cols_, Index stride_)
      : data(data_), rows(rows_), cols(cols_), stride(stride_) {}
  template <class U>
    requires std::is_same_v<T, const U>
  Rows(const Rows<U>& other) : Rows(other.data, other.rows, other.cols, other.stride) {}

  Index registers() const { return (cols + kPerRegister<Number<T>> - 1) / kPerRegister<Number<T>>; }
  operator Matrix<T>() const { return {data, rows, registers(), stride}; }
};

// Arrays over samples: of one run with S = double or float, of W runs with S = Lane. T is the
// register, const or not.
template <class S, class T>
using Array = std::conditional_t<kRuns<S> == 1, Rows<T>, Matrix<T>>;

template <class S>
Array<S, Register<S>> array(S* data, Index rows, Index cols, Index stride) {
  return {reinterpret_cast<Register<S>*>(data), rows, cols, stride / kPerRegister<S>};
}
template <class S>
Array<S, const Register<S>> array(const S* data, Index rows, Index cols, Index stride) {
  return {reinterpret_cast<const Register<S>*>(data), rows, cols, stride / kPerRegister<S>};
}
// Data: registers of samples for one run, numbers that W runs share otherwise.
template <class S>
auto shared_array(const Number<S>* data, Index rows, Index cols, Index stride) {
  if constexpr (kRuns<S> == 1) {
    return array<S>(data, rows, cols, stride);
  } else {
    return Matrix<const double>(data, rows, cols, stride);
  }
}

// Registers that hold a row over `count` samples: neighbouring samples of one run, or one sample of
// several runs each.
template <class S>
Index registers(Index count) {
  return (count + kPerRegister<S> - 1) / kPerRegister<S>;
}
// Register i of a row of data that all runs share.
template <class S>
Register<S> shared_register(const Number<S>* data, Index i) {
  if constexpr (kRuns<S> == 1) {
    return load<Register<S>>(data + i * kPerRegister<S>);
  } else {
    return broadcast<S>(data[i]);
  }
}
// Row r of an array whose rows are `stride` apart.
template <class S>
Register<S>* register_row(S* data, Index stride, Index r) {
  return reinterpret_cast<Register<S>*>(data + r * stride);
}
template <class S>
const Register<S>* register_row(const S* data, Index stride, Index r) {
  return reinterpret_cast<const Register<S>*>(data + r * stride);
}
template <class R>
void multiply_elements(const R* a, const R* b, R* out, Index count) {
  for (Index i = 0; i < count; ++i) out[i] = a[i] * b[i];
}

namespace detail {

// out(r, c) (+)= sum over p of x(r, p) * y(c, p) in registers S, operands addressed by strides (xr,
// xp) and (yc, yp); rows of out, registers or the numbers in them, are out_stride apart.
template <class S, Index R, Index C, class X, class Y, class O>
[[gnu::flatten]] inline void tile(const X* x, Index xr, Index xp, const Y* y, Index yc, Index yp,
                                  Index count, O* out, Index out_stride, bool add) {
  S acc[R][C] = {};
  for (Index p = 0; p < count; ++p) {
    S a[R];
    unrolled<R>([&](Index r) {
      const S value = broadcast_shared<S>(x[r * xr + p * xp]);
      a[r] = C > 1 ? pinned(value) : value;
    });
    unrolled<C>([&](Index c) {
      const S value = broadcast_shared<S>(y[c * yc + p * yp]), b = R > 1 ? pinned(value) : value;
      unrolled<R>([&](Index r) { acc[r][c] = a[r] * b + acc[r][c]; });
    });
  }
  unrolled<R>([&](Index r) {
    unrolled<C>([&](Index c) {
      O* target = out + r * out_stride + c * kPerRegister<O>;
      S sum = acc[r][c];
      if (add) {
        S before;
        std::memcpy(&before, target, sizeof before);
        sum = before + sum;
      }
      std::memcpy(target, &sum, sizeof sum);
    });
  });
}

// Calls f<size>(begin) for pieces of at most `Most` that cover 0 ... count - 1 and whose sizes
// differ by at most 1. `Least` states that count >= Least, which excludes smaller pieces as well:
// f is compiled once for each size.
template <Index Most, Index Least = 1, class F>
inline void in_pieces(Index count, F&& f) {
  static_assert(2 * Least <= Most + 1);  // the sizes of two pieces begin at (Most + 1) / 2
  if (count <= 0) return;
  const Index pieces = (count + Most - 1) / Most, least = count / pieces;
  const Index small = pieces * (least + 1) - count;  // pieces of size `least`, which come first
  for (Index p = 0, begin = 0; p < pieces; ++p) {
    const Index size = p < small ? least : least + 1;
    [&]<Index... I>(std::integer_sequence<Index, I...>) {
      ((size == I + Least ? f.template operator()<I + Least>(begin) : void()), ...);
    }(std::make_integer_sequence<Index, Most - Least + 1>{});
    begin += size;
  }
}

// The largest tile: R x C accumulators and R + 1 operands fill the registers.
inline constexpr Index kTileRows = kRegisters >= 32 ? 6 : 3, kTileCols = 4;

// The order of the tiles, by the operand that stays in the cache while the other one streams: that
// of the columns of out, or that of its rows.
enum class Keep { columns, rows };

// `tile` for any number of rows, and of columns in registers.
template <Keep keep, class S, class X, class Y, class O>
[[gnu::noinline]] void tiled(const X* x, Index xr, Index xp, const Y* y, Index yc, Index yp,
                             Index count, Index rows, Index cols, O* out, Index out_stride,
                             bool add) {
  auto one = [&]<Index R, Index C>(Index r, Index c) {
    tile<S, R, C>(x + r * xr, xr, xp, y + c * yc, yc, yp, count,
                  out + r * out_stride + c * kPerRegister<O>, out_stride, add);
  };
  if constexpr (keep == Keep::columns) {
    in_pieces<kTileCols>(cols, [&]<Index C>(Index c) {
      in_pieces<kTileRows>(rows, [&]<Index R>(Index r) { one.template operator()<R, C>(r, c); });
    });
  } else {
    in_pieces<kTileRows>(rows, [&]<Index R>(Index r) {
      in_pieces<kTileCols>(cols, [&]<Index C>(Index c) { one.template operator()<R, C>(r, c); });
    });
  }
}
template <Keep keep, class S, class X, class Y>
void tiled(const X* x, Index xr, Index xp, const Y* y, Index yc, Index yp, Index count,
           Matrix<S> out, bool add) {
  tiled<keep, S>(x, xr, xp, y, yc, yp, count, out.rows, out.cols, out.data, out.stride, add);
}

// Used in several source files; compiled in instantiate/products.cpp.
extern template void tiled<Keep::columns, Lane, Lane, Lane, Lane>(const Lane*, Index, Index,
                                                                  const Lane*, Index, Index, Index,
                                                                  Index, Index, Lane*, Index, bool);

// Of each 2 H numbers of a and b: a <- the first H of both, b <- the last H of both.
template <Index H, class R>
[[gnu::always_inline]] inline void exchange(R& a, R& b) {
  constexpr Index W = kPerRegister<Number<R>>;
  [&]<Index... I>(std::integer_sequence<Index, I...>) __attribute__((always_inline)) {
#ifdef __clang__
    const R low = __builtin_shufflevector(a, b, (I & H ? W + I - H : I)...);
    b = __builtin_shufflevector(a, b, (I & H ? W + I : I + H)...);
#else
    using Places = decltype(R{} < R{});
    const Places first{(I & H ? W + I - H : I)...}, last{(I & H ? W + I : I + H)...};
    const R low = __builtin_shuffle(a, b, first);
    b = __builtin_shuffle(a, b, last);
#endif
    a = low;
  }(std::make_integer_sequence<Index, W>{});
}

// sums[i] <- the sum of the numbers of register i, by halves, for Count registers; `sums` has room
// for whole registers.
template <Index Count>
[[gnu::always_inline]] inline void reduce_all(const Lane* registers, double* sums) {
  constexpr Index W = kRuns<Lane>;
  unrolled<(Count + W - 1) / W>([&](auto group) {
    Lane r[W];
    unrolled<W>([&](auto l) {
      constexpr Index i = group * W + l;
      r[l] = i < Count ? registers[std::min(i, Count - 1)] : Lane{};
    });
    auto halves = [&]<Index H>(std::integral_constant<Index, H>) __attribute__((always_inline)) {
      unrolled<H>([&](auto l) {
        exchange<H>(r[l], r[l + H]);
        r[l] += r[l + H];
      });
    };
    if constexpr (W > 4) halves(std::integral_constant<Index, 4>{});
    if constexpr (W > 2) halves(std::integral_constant<Index, 2>{});
    halves(std::integral_constant<Index, 1>{});
    store(r[0], sums + group * W);
  });
}

// Two factors of a product, and maybe two more of the same shape whose product is added.
template <class X, class Y>
struct Pairs {
  const X* x;
  const Y* y;
  const X* x2 = nullptr;
  const Y* y2 = nullptr;

  Pairs shifted(Index by_x, Index by_y) const {
    return {x + by_x, y + by_y, x2 ? x2 + by_x : nullptr, x2 ? y2 + by_y : nullptr};
  }
  // Calls f(x, y) for each pair. f is compiled once.
  template <class F>
  [[gnu::always_inline]] void each(F&& f) const {
    const X* a = x;
    const Y* b = y;
    for (bool more = x2 != nullptr;; more = false) {
      f(a, b);
      if (!more) return;
      a = x2, b = y2;
    }
  }
};

// M sums over samples in lanes: add(first, step, sums) adds the samples first, first + step, ... to
// `sums`, finish(sums) takes them. `folded`: in the order of `dot_tile`, the samples of each place
// in a register apart, and these sums added up by halves; otherwise all at once.
template <Index M, class Add, class Finish>
[[gnu::always_inline]] inline void fold_places(bool folded, Add&& add, Finish&& finish) {
  constexpr Index W = kRuns<Lane>, kLevels = std::bit_width(static_cast<std::size_t>(W)) - 1;
  Lane kept[kLevels][M];
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

// out[r][c] (+)= sum over samples of x(r, s) * y(c, s).
template <Index R, Index C, class T>
[[gnu::flatten]] inline void dot_tile(Pairs<T, T> pairs, Index xr, Index yc, Index samples,
                                      Number<T>* out, Index out_stride, bool add) {
  constexpr Index W = kPerRegister<Number<T>>;
  T acc[R][C] = {};
  auto step = [&](const T* x, const T* y, Index p, auto&& read) __attribute__((always_inline)) {
    T a[R];
    unrolled<R>([&](Index r) {
      const T value = read(x[r * xr + p]);
      a[r] = C > 1 ? pinned(value) : value;
    });
    unrolled<C>([&](Index c) {
      const T value = read(y[c * yc + p]), b = R > 1 ? pinned(value) : value;
      unrolled<R>([&](Index r) { acc[r][c] = a[r] * b + acc[r][c]; });
    });
  };
  const Index whole = samples / W, rest = samples % W;
  T place{};
  for (Index l = 0; l < W; ++l) place[l] = static_cast<Number<T>>(l);
  const auto inside = place < broadcast<T>(static_cast<double>(rest));
  pairs.each([&](const T* x, const T* y) __attribute__((always_inline)) {
    for (Index p = 0; p < whole; ++p) step(x, y, p, [](const T& v) { return v; });
    if (rest > 0) step(x, y, whole, [&](const T& v) { return inside ? v : T{}; });
  });
  if constexpr (std::is_same_v<T, Lane>) {
    double sums[padded(R * C, W)];
    reduce_all<R * C>(&acc[0][0], sums);
    for (Index r = 0; r < R; ++r)
      for (Index c = 0; c < C; ++c) {
        double& target = out[r * out_stride + c];
        target = add ? target + sums[r * C + c] : sums[r * C + c];
      }
  } else {
    unrolled<R>([&](Index r) {
      unrolled<C>([&](Index c) {
        Number<T>& target = out[r * out_stride + c];
        const Number<T> sum = reduce_add<Number<T>>(acc[r][c]);
        target = add ? target + sum : sum;
      });
    });
  }
}

template <class T>
[[gnu::noinline]] void dots(Pairs<T, T> pairs, Index xr, Index yc, Index samples,
                            Matrix<Number<T>> out, bool add) {
  in_pieces<kTileRows>(out.rows, [&]<Index R>(Index r) {
    in_pieces<kTileCols>(out.cols, [&]<Index C>(Index c) {
      dot_tile<R, C, T>(pairs.shifted(r * xr, c * yc), xr, yc, samples,
                        out.data + r * out.stride + c, out.stride, add);
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
          S b[C];
          unrolled<C>([&](Index c) {
            const S value = broadcast_shared<S>(y[c]);
            b[c] = R > 1 ? pinned(value) : value;
          });
          unrolled<R>([&](Index r) {
            const S value = broadcast_shared<S>(x[r * xr]), a = C > 1 ? pinned(value) : value;
            unrolled<C>([&](Index c) { acc[r][c] = a * b[c] + acc[r][c]; });
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

// Transposes a square of registers, by exchanging halves of successively smaller squares.
template <class R>
[[gnu::flatten]] inline void transpose(R (&square)[kPerRegister<Number<R>>]) {
  constexpr Index W = kPerRegister<Number<R>>;
  auto halves = [&]<Index H>(std::integral_constant<Index, H>) {
    unrolled<W>([&](auto l) {
      if constexpr (!(l & H)) exchange<H>(square[l], square[l + H]);
    });
  };
  if constexpr (W > 8) halves(std::integral_constant<Index, 8>{});
  if constexpr (W > 4) halves(std::integral_constant<Index, 4>{});
  if constexpr (W > 2) halves(std::integral_constant<Index, 2>{});
  halves(std::integral_constant<Index, 1>{});
}

// Products of plain numbers by Eigen: out (+)= a b or a b^T. Compiled in instantiate/products.cpp,
// so that no other source file includes Eigen, which takes a second to parse.
template <class T>
void eigen_multiply(Matrix<const T> a, Matrix<const T> b, Matrix<T> out, bool add);
template <class T>
void eigen_multiply_nt(Matrix<const T> a, Matrix<const T> b, Matrix<T> out, bool add);

// The numbers of registers, with as many columns as samples.
template <class T>
Matrix<const Number<T>> numbers(const Rows<T>& m) {
  using N = Number<T>;
  return {reinterpret_cast<const N*>(m.data), m.rows, m.cols, m.stride * kPerRegister<N>};
}

// Size of an operand up to which `dots`, which copies nothing, is faster than Eigen, which packs
// its operands. Measured on a Xeon of family 6, model 207, with operands of 10 x 33 to 1000 x 1001
// and 128 to 456 samples (November 2026).
template <class T>
inline constexpr Index kStreamed = Index{1} << (sizeof(Number<T>) == 4 ? 14 : 16);

}  // namespace detail

// out (+)= a b
inline void multiply(Matrix<const Lane> a, Matrix<const Lane> b, Matrix<Lane> out,
                     bool add = false) {
  detail::tiled<detail::Keep::columns>(a.data, a.stride, 1, b.data, 1, b.stride, a.cols, out, add);
}
inline void multiply(Matrix<const double> a, Rows<const Lane> b, Rows<Lane> out) {
  detail::layer_product<Lane, double, Lane>(
      {{a.data, b.data}, a.stride, 1, b.stride, a.cols, 0, out.data, out.stride, false, {}},
      out.rows, out.registers());
}
inline void multiply(Matrix<const double> a, Matrix<const double> b, Matrix<double> out,
                     bool add = false) {
  detail::eigen_multiply<double>(a, b, out, add);
}

// out (+)= a b^T
template <class A, class B>
void multiply_nt(Matrix<A> a, Matrix<B> b, Matrix<Lane> out, bool add = false) {
  detail::tiled<detail::Keep::rows>(a.data, a.stride, 1, b.data, b.stride, 1, a.cols, out, add);
}
template <class A, class B, class T>
void multiply_nt(Rows<A> a, Rows<B> b, Matrix<T> out, bool add = false) {
  using R = std::remove_const_t<A>;
  if (a.rows <= 2 * detail::kTileRows || b.rows * b.cols <= detail::kStreamed<T>) {
    detail::dots<R>({a.data, b.data}, a.stride, b.stride, a.cols, out, add);
  } else {
    detail::eigen_multiply_nt<T>(detail::numbers(a), detail::numbers(b), out, add);
  }
}
template <class A, class B>
void multiply_nt(Matrix<A> a, Matrix<B> b, Matrix<double> out, bool add = false) {
  detail::eigen_multiply_nt<double>(a, b, out, add);
}

// Whether sums over samples of a small network are those of `dot_tile`, in lanes as well, rather
// than over one sample after the other. In lanes that takes about as long as 3 more samples, and
// one run need not transpose a factor.
inline bool folds(Index samples) {
  constexpr Index kFolded = 64;
  return samples >= kFolded;
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

// out (+)= a b, with registers along the columns of b and sums in the order of its rows, as in
// lanes. Reads up to a register past the end of a row of b.
void multiply_rows(Matrix<const double> a, Matrix<const double> b, Matrix<double> out,
                   bool add = false);

// out <- a b for a matrix b that is symmetric to the bit; one run: with sums `in_order` or not.
inline void multiply_symmetric_matrix(Matrix<const Lane> a, Matrix<const Lane> b, Matrix<Lane> out,
                                      bool) {
  multiply_nt(a, b, out);
}
inline void multiply_symmetric_matrix(Matrix<const double> a, Matrix<const double> b,
                                      Matrix<double> out, bool in_order) {
  in_order ? multiply_rows(a, b, out) : multiply_nt(a, b, out);
}

// Transposed rows, so that a product along samples loads whole registers of rows: sample s of row r
// is number s * stride + r.
inline constexpr Index kMaxTransposed = kPanel + 1, kTransposedStride = 80;

// `stride` has room for whole registers of rows. The numbers past the last row are undefined.
template <class R>
void transpose(Rows<const R> rows, Number<R>* transposed, Index stride = kTransposedStride) {
  constexpr Index W = kPerRegister<Number<R>>;
  const Index rest = rows.rows % W, squares = rest > W / 2 ? rows.rows : rows.rows - rest;
  const Index count = rows.registers();
  for (Index r = 0; r < squares; r += W) {
    const R* from[W];
    for (Index l = 0; l < W; ++l)
      from[l] = rows.data + std::min(r + l, rows.rows - 1) * rows.stride;
    Number<R>* to = transposed + r;
    for (Index i = 0; i < count; ++i) {
      R square[W];
      unrolled<W>([&](auto l) { square[l] = from[l][i]; });
      detail::transpose(square);
      unrolled<W>([&](auto l) {
        store(square[l], to);
        to += stride;
      });
    }
  }
  for (Index r = squares; r < rows.rows; ++r) {
    const auto* from = reinterpret_cast<const Number<R>*>(rows.data + r * rows.stride);
    for (Index s = 0; s < count * W; ++s) transposed[s * stride + r] = from[s];
  }
}

// out (+)= a b^T, with b transposed; sums over samples one after the other, as in lanes.
template <class A>
void multiply_transposed(Rows<const A> a, const Number<A>* transposed, Matrix<Number<A>> out,
                         bool add, Index transposed_stride = kTransposedStride) {
  constexpr Index W = kPerRegister<Number<A>>;
  if constexpr (std::is_same_v<A, Lane>) {
    const Matrix<const double> b(transposed, a.cols, out.cols, transposed_stride);
    multiply_rows(detail::numbers(a), b, out, add);
  } else {
    const Index whole = out.cols / W;
    auto product = [&](Index row, Index rows, Index first, Index cols, auto* to, Index stride,
                       bool add_to) {
      detail::tiled<detail::Keep::columns, A>(
          reinterpret_cast<const Number<A>*>(a.data + row * a.stride), a.stride * W, Index{1},
          reinterpret_cast<const A*>(transposed) + first, Index{1}, transposed_stride / W, a.cols,
          rows, cols, to, stride, add_to);
    };
    product(0, out.rows, 0, whole, out.data, out.stride, add);
    if (out.cols % W == 0) return;
    A rest[kMaxTransposed];
    for (Index row = 0; row < out.rows; row += kMaxTransposed) {
      const Index rows = std::min(kMaxTransposed, out.rows - row);
      product(row, rows, whole, 1, rest, 1, false);
      for (Index r = 0; r < rows; ++r)
        for (Index c = whole * W; c < out.cols; ++c) {
          Number<A>& target = out.data[(row + r) * out.stride + c];
          target = add ? target + rest[r][c % W] : rest[r][c % W];
        }
    }
  }
}

// The same with registers along the rows of a, from a transposed: fewer operations if a has many
// rows or b few. `work` has room for out^T with rows of `stride`.
inline void multiply_transposed_left(const double* transposed, Index stride, Rows<const Lane> b,
                                     Matrix<double> out, bool add, double* work) {
  multiply_rows(detail::numbers(b), Matrix<const double>(transposed, b.cols, out.rows, stride),
                Matrix<double>(work, out.cols, out.rows, stride));
  for (Index r = 0; r < out.rows; ++r) {
    double* to = out.data + r * out.stride;
    for (Index c = 0; c < out.cols; ++c) {
      const double sum = work[c * stride + r];
      to[c] = add ? to[c] + sum : sum;
    }
  }
}

}  // namespace pylyap
