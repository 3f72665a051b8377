// The scalar type of the kernels: one run, or several runs interleaved in a SIMD register.
//
// Kernels are templates over S, which is `double` or `float` (one run; wide networks, registers
// along samples) or `Lane` (kRuns<Lane> runs; small networks). GCC's and Clang's vector extension
// gives all of them the same operators, and `mask ? a : b` selects lane by lane, so that one source
// serves all and no lane depends on another.
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

// Calls f(0), ..., f(N - 1) with compile-time constants. Arrays of accumulators that are indexed by
// them stay in registers; in a loop with an unroll pragma GCC 12 leaves many of them in memory.
// In a gnu::flatten function f may take an Index, so that it is compiled once; elsewhere it must
// take `auto`, since GCC decides too late to inline it.
template <Index N, class F>
[[gnu::always_inline]] inline void unrolled(F&& f) {
  [&]<Index... I>(std::integer_sequence<Index, I...>) __attribute__((always_inline)) {
    (f(std::integral_constant<Index, I>{}), ...);
  }(std::make_integer_sequence<Index, N>{});
}

#if defined(__AVX512F__)
inline constexpr Index kRegisterBytes = 64, kRegisters = 32;
#elif defined(__AVX__)
inline constexpr Index kRegisterBytes = 32, kRegisters = 16;
#else
inline constexpr Index kRegisterBytes = 16, kRegisters = 16;
#endif

using Lane = double __attribute__((vector_size(kRegisterBytes)));
using FloatLane = float __attribute__((vector_size(kRegisterBytes)));  // neighbouring samples
using LaneBits = std::int64_t __attribute__((vector_size(kRegisterBytes)));

// The type of one element of S.
template <class S>
using Number = std::conditional_t<std::is_same_v<std::remove_const_t<S>, float> ||
                                      std::is_same_v<std::remove_const_t<S>, FloatLane>,
                                  float, double>;
// The register in which kernels hold values of S.
template <class S>
using Register = std::conditional_t<std::is_same_v<Number<S>, float>, FloatLane, Lane>;
// The type in which sums over all samples accumulate.
template <class S>
using Accumulator = std::conditional_t<std::is_same_v<S, float>, double, S>;

// Runs in a value of S: 1, or as many as a register holds doubles.
template <class S>
inline constexpr Index kRuns = static_cast<Index>(sizeof(S) / sizeof(Number<S>));
// Values of S in a register: as many as it holds numbers, or 1 if S is a register.
template <class S>
inline constexpr Index kPerRegister = static_cast<Index>(sizeof(Register<S>) / sizeof(S));

template <class S>
inline S broadcast(double value) {
  if constexpr (std::is_same_v<S, float>) {
    return static_cast<float>(value);
  } else {
    return static_cast<Number<S>>(value) - S{};  // x - 0 is x to the bit: the compiler drops it
  }
}

// A number that all runs share as S, or a value of S as it is.
template <class S>
inline S broadcast_shared(const S& value) {
  return value;
}
template <class S>
  requires(!std::is_floating_point_v<S>)
inline S broadcast_shared(Number<S> value) {
  return broadcast<S>(value);
}

// Unaligned loads and stores of a T.
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

// Holds a loaded operand in its register: GCC 12 would load it again at every use.
template <class R>
[[gnu::always_inline]] inline R pinned(R value) {
#if defined(__x86_64__)
  asm("" : "+v"(value));
#endif
  return value;
}

// a b + c, rounded once where the processor has FMA. Written out where the compiler could as well
// fuse another product, so that runs alone and in lanes have the same bits.
template <class S>
inline S fused(const S& a, const S& b, const S& c) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<S, Lane>)
    return std::bit_cast<Lane>(_mm512_fmadd_pd(std::bit_cast<__m512d>(a), std::bit_cast<__m512d>(b),
                                               std::bit_cast<__m512d>(c)));
#elif defined(__FMA__)
  if constexpr (std::is_same_v<S, Lane>)
    return std::bit_cast<Lane>(_mm256_fmadd_pd(std::bit_cast<__m256d>(a), std::bit_cast<__m256d>(b),
                                               std::bit_cast<__m256d>(c)));
#endif
#if defined(__FMA__)
  if constexpr (std::is_floating_point_v<S>) return std::fma(a, b, c);
#endif
  return a * b + c;
}

// a > b ? a : b in one instruction, which GCC 12 does not find; b where either is nan.
template <class S>
inline S larger(const S& a, const S& b) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<S, Lane>)
    return std::bit_cast<Lane>(_mm512_max_pd(std::bit_cast<__m512d>(a), std::bit_cast<__m512d>(b)));
#elif defined(__AVX__)
  if constexpr (std::is_same_v<S, Lane>)
    return std::bit_cast<Lane>(_mm256_max_pd(std::bit_cast<__m256d>(a), std::bit_cast<__m256d>(b)));
#endif
  return a > b ? a : b;
}

inline double lane(double value, Index) { return value; }
inline double lane(float value, Index) { return value; }
// By address: GCC 12 copies a whole register to index it.
inline double lane(const Lane& value, Index l) {
  return reinterpret_cast<const double*>(&value)[l];
}
inline void set_lane(double& target, Index, double value) { target = value; }
inline void set_lane(float& target, Index, double value) { target = static_cast<float>(value); }
inline void set_lane(Lane& target, Index l, double value) { target[l] = value; }

inline bool any(bool mask) { return mask; }
inline bool any(const LaneBits& mask) {  // the result of a comparison: 0 or -1 in each lane
#if defined(__AVX512DQ__)
  return _mm512_movepi64_mask(std::bit_cast<__m512i>(mask)) != 0;
#elif defined(__AVX__)
  return _mm256_movemask_pd(std::bit_cast<__m256d>(mask)) != 0;
#else
  std::int64_t all = 0;
  for (Index l = 0; l < kRuns<Lane>; ++l) all |= mask[l];
  return all != 0;
#endif
}

// A scalar function applied to each lane.
template <class F>
inline Lane for_each_lane(const Lane& x, F f) {
  Lane y{};
  for (Index l = 0; l < kRuns<Lane>; ++l) y[l] = f(x[l]);
  return y;
}

inline double sqrt(double x) { return std::sqrt(x); }
inline float sqrt(float x) { return std::sqrt(x); }
inline Lane sqrt(const Lane& x) {
  return for_each_lane(x, [](double v) { return std::sqrt(v); });
}

namespace detail {

template <class N, Index W>
struct Vector {
  typedef N type __attribute__((vector_size(W * sizeof(N))));  // GCC 12 ignores it on an alias
};

// The sum of W numbers of type N, by halves.
template <class N, Index W>
inline N add_halves(const typename Vector<N, W>::type& value) {
  if constexpr (W == 2) {
    return value[0] + value[1];
  } else {
    typename Vector<N, W / 2>::type half[2];
    std::memcpy(half, &value, sizeof half);
    return add_halves<N, W / 2>(half[0] + half[1]);
  }
}

}  // namespace detail

// The sum of the numbers of a register that belong to the same run: of all of them where S is one
// run, of one each where S is several.
template <class S>
inline S reduce_add(const Register<S>& value) {
  if constexpr (kRuns<S> > 1) {
    return value;
  } else {
    return detail::add_halves<S, kPerRegister<S>>(value);
  }
}

// 0 where x is finite, nan where it is not.
template <class S>
inline S nan_unless_finite(const S& x) {
  return x * S{};
}

// Sum over i < count of term(i, read), where read(pointer) is a register or, for the remainder, one
// value.
template <class S, class F>
inline S sum_of(Index count, F&& term) {
  constexpr Index W = kPerRegister<S>;
  Register<S> sums[4] = {};
  Index i = 0;
  for (; i + 4 * W <= count; i += 4 * W)
    for (Index j = 0; j < 4; ++j)
      sums[j] += term(i + j * W, [](const S* from) { return load<Register<S>>(from); });
  S rest{};
  for (; i < count; ++i) rest += term(i, [](const S* from) { return *from; });
  return reduce_add<S>((sums[0] + sums[1]) + (sums[2] + sums[3])) + rest;
}
template <class S>
inline S nan_unless_finite(const S* x, Index count) {
  return sum_of<S>(count, [&](Index i, auto read) { return nan_unless_finite(read(x + i)); });
}
template <class S>
inline S dot(const S* a, const S* b, Index count) {
  return sum_of<S>(count, [&](Index i, auto read) { return read(a + i) * read(b + i); });
}

}  // namespace pylyap
