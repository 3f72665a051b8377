// The scalar type of the batched kernels: W independent runs, interleaved in one SIMD register.
//
// Kernels are templates over S, which is `double` (one run; wide nets, registers along samples) or
// `Lane` (W runs; small nets). GCC's and Clang's vector extension gives both the same operators,
// and `mask ? a : b` selects lane by lane, so that one source serves both and no lane ever
// depends on its neighbours.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#if defined(__AVX__)
#include <immintrin.h>
#endif

namespace pylyap {

using Index = std::ptrdiff_t;

// f(0), ..., f(N - 1), each with its constant. Accumulators that are indexed so stay in registers;
// in a loop that it was asked to unroll, GCC leaves many of them in memory.
template <Index N, class F>
[[gnu::always_inline]] inline void unrolled(F&& f) {
  [&]<Index... I>(std::integer_sequence<Index, I...>) __attribute__((always_inline)) {
    (f(std::integral_constant<Index, I>{}), ...);
  }(std::make_integer_sequence<Index, N>{});
}

#if defined(__AVX512F__)
inline constexpr Index kLanes = 8, kRegisters = 32;
#elif defined(__AVX__)
inline constexpr Index kLanes = 4, kRegisters = 16;
#else
inline constexpr Index kLanes = 2, kRegisters = 16;
#endif

using Lane = double __attribute__((vector_size(8 * kLanes)));
using LaneBits = std::int64_t __attribute__((vector_size(8 * kLanes)));

// Twice as many numbers of single precision in a register: one run's, along samples.
using FloatLane = float __attribute__((vector_size(8 * kLanes)));

// How many runs a scalar type holds, what a kernel's register of it is, what one number of that,
// and what sums of many are kept in.
template <class S>
inline constexpr Index kWidth = std::is_floating_point_v<S> ? 1 : kLanes;
template <class S>
using Register = std::conditional_t<std::is_same_v<S, float>, FloatLane, Lane>;
template <class S>
using Number =
    std::conditional_t<std::is_same_v<S, float> || std::is_same_v<S, FloatLane>, float, double>;
template <class S>
using Sum = std::conditional_t<std::is_same_v<S, float>, double, S>;

// Numbers in a register.
template <class R>
inline constexpr Index kNumbers =
    static_cast<Index>(sizeof(R) / sizeof(Number<std::remove_const_t<R>>));

template <class S>
inline S splat(double value) {
  if constexpr (std::is_same_v<S, float>) {
    return static_cast<float>(value);
  } else {
    return static_cast<Number<S>>(value) - S{};  // x - 0 is x to the bit: the compiler drops it
  }
}

// A value as S: a plain double is what all runs share.
template <class S>
inline S shared(const S& value) {
  return value;
}
template <class S>
  requires(!std::is_floating_point_v<S>)
inline S shared(Number<S> value) {
  return splat<S>(value);
}

// A register of neighbouring numbers, from and to anywhere: W of one run's, or one of W runs.
template <class S>
inline constexpr Index kNeighbours = kWidth<S> == 1 ? kNumbers<Register<S>> : 1;
template <class T, class S>
inline T load(const S* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
template <class T, class S>
inline void store(const T& value, S* to) {
  std::memcpy(to, &value, sizeof value);
}

// Holds a loaded operand in its register: GCC would rather load it again at every use.
template <class R>
[[gnu::always_inline]] inline R pinned(R value) {
#if defined(__x86_64__)
  asm("" : "+v"(value));
#endif
  return value;
}

inline double lane(double value, Index) { return value; }
inline double lane(float value, Index) { return value; }
// By address: GCC copies a whole register to index it.
inline double lane(const Lane& value, Index l) {
  return reinterpret_cast<const double*>(&value)[l];
}
inline void set_lane(double& target, Index, double value) { target = value; }
inline void set_lane(float& target, Index, double value) { target = static_cast<float>(value); }
inline void set_lane(Lane& target, Index l, double value) { target[l] = value; }

inline bool any(bool mask) { return mask; }
inline bool any(const LaneBits& mask) {  // of what a comparison gave: all bits of a number alike
#if defined(__AVX512DQ__)
  return _mm512_movepi64_mask(std::bit_cast<__m512i>(mask)) != 0;
#elif defined(__AVX__)
  return _mm256_movemask_pd(std::bit_cast<__m256d>(mask)) != 0;
#else
  std::int64_t all = 0;
  for (Index l = 0; l < kLanes; ++l) all |= mask[l];
  return all != 0;
#endif
}

// A scalar function of libm, lane by lane.
template <class F>
inline Lane each(const Lane& x, F f) {
  Lane y{};
  for (Index l = 0; l < kLanes; ++l) y[l] = f(x[l]);
  return y;
}

inline double sqrt(double x) { return std::sqrt(x); }
inline float sqrt(float x) { return std::sqrt(x); }
inline Lane sqrt(const Lane& x) {
  return each(x, [](double v) { return std::sqrt(v); });
}

// The sum of the numbers in a register, by halves.
template <class R>
inline Number<R> total(const R& value) {
  Number<R> half[kNumbers<R>];
  std::memcpy(half, &value, sizeof half);
  for (Index w = kNumbers<R> / 2; w > 0; w /= 2)
    for (Index l = 0; l < w; ++l) half[l] += half[l + w];
  return half[0];
}

// Of neighbouring numbers of one run; of W runs each its own.
template <class S>
inline S sum_over_run(const Register<S>& value) {
  if constexpr (kWidth<S> == 1) {
    return total(value);
  } else {
    return value;
  }
}

// Zero where x is a finite number, nan where it is not.
template <class S>
inline S not_finite(const S& x) {
  return x * S{};
}

// Sum over i < count of term(i, read), read(pointer) being a register or, at the end, a number.
template <class S, class F>
inline S sum_of(Index count, F&& term) {
  constexpr Index W = kNeighbours<S>;
  Register<S> sums[4] = {};
  Index i = 0;
  for (; i + 4 * W <= count; i += 4 * W)
    for (Index j = 0; j < 4; ++j)
      sums[j] += term(i + j * W, [](const S* from) { return load<Register<S>>(from); });
  S rest{};
  for (; i < count; ++i) rest += term(i, [](const S* from) { return *from; });
  return sum_over_run<S>((sums[0] + sums[1]) + (sums[2] + sums[3])) + rest;
}
template <class S>
inline S not_finite(const S* x, Index count) {
  return sum_of<S>(count, [&](Index i, auto read) { return not_finite(read(x + i)); });
}

}  // namespace pylyap
