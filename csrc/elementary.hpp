// Elementary functions over lanes: exp, expm1, log, log1p.
//
// All operations are on whole registers without branches, so that the result of a lane depends on
// that lane alone. Largest errors over the whole range, in units in the last place: exp 1.1,
// expm1 1.3, log 0.9, log1p 1.5 (tests/test_elementary.py). Results below the normal range may
// be 0. Polynomials are minimax fits by mpmath.chebyfit.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numbers>

#include "lanes.hpp"

namespace pylyap {

using LaneWords = std::uint64_t __attribute__((vector_size(kRegisterBytes)));

// ln 2 in two parts; the first has 42 bits, so that multiples up to 2^11 are exact.
inline constexpr double kLn2High = 0x1.62e42fefa3800p-1;
inline constexpr double kLn2Low = 0x1.ef35793c76730p-45;

inline constexpr std::int64_t kSignBit = std::numeric_limits<std::int64_t>::min();
inline Lane abs(const Lane& x) {
  return std::bit_cast<Lane>(std::bit_cast<LaneBits>(x) & ~kSignBit);
}
inline Lane minus_abs(const Lane& x) {
  return std::bit_cast<Lane>(std::bit_cast<LaneBits>(x) | kSignBit);
}
inline Lane copysign(const Lane& magnitude, const Lane& sign) {
  return std::bit_cast<Lane>((std::bit_cast<LaneBits>(magnitude) & ~kSignBit) |
                             (std::bit_cast<LaneBits>(sign) & kSignBit));
}

struct ExpPair {
  Lane exp;    // e^x
  Lane expm1;  // e^x - 1
};

// e^x and e^x - 1 for x <= 0. x = n ln 2 + r, |r| <= ln 2 / 2, then a polynomial of degree 9 for
// (e^r - 1 - r) / r^2 (relative error of e^r 1.3e-17).
inline ExpPair exp_nonpositive(const Lane& x) {
  constexpr double kFloor = -709.4;  // n = -1023, where the bits of 2^n are those of 0
  const Lane y = larger(broadcast<Lane>(kFloor), x);
  const Lane shifter = broadcast<Lane>(0x1.8p52);  // adding it rounds to an integer in the low bits
  const Lane t = y * 0x1.71547652b82fep+0 + shifter;
  const Lane n = t - shifter;
  const Lane r = (y - n * kLn2High) - n * kLn2Low;
  const Lane r2 = r * r;  // even and odd powers: half the depth of Horner's rule
  Lane even = 0x1.289185613a3d6p-22 * r2 + 0x1.a019b90d2ae7ap-16;
  Lane odd = 0x1.af38a9b0ec855p-26 * r2 + 0x1.71de0dae63bb3p-19;
  even = even * r2 + 0x1.6c16c1788bd90p-10;
  odd = odd * r2 + 0x1.a01a01a7c41d5p-13;
  even = even * r2 + 0x1.5555555553d63p-5;
  odd = odd * r2 + 0x1.11111111109b3p-7;
  even = even * r2 + 0x1.0000000000001p-1;
  odd = odd * r2 + 0x1.5555555555556p-3;
  const Lane p = (odd * r + even) * r2 + r;
  const LaneBits shift = std::bit_cast<LaneBits>(t) << 52;
  const Lane s = std::bit_cast<Lane>(std::bit_cast<LaneBits>(broadcast<Lane>(1.0)) + shift);
  return {s * p + s, s * p + (s - 1.0)};
}

// In single precision: by halves, in double.
using HalfLane = float __attribute__((vector_size(kRegisterBytes / 2)));
struct Halves {
  Lane low, high;
};
inline Halves widen(const FloatLane& x) {
  HalfLane half[2];
  std::memcpy(half, &x, sizeof half);
  return {__builtin_convertvector(half[0], Lane), __builtin_convertvector(half[1], Lane)};
}
inline FloatLane narrow(const Lane& low, const Lane& high) {
  const HalfLane half[2] = {__builtin_convertvector(low, HalfLane),
                            __builtin_convertvector(high, HalfLane)};
  FloatLane x;
  std::memcpy(&x, half, sizeof half);
  return x;
}

inline Lane exp_of_nonpositive(const Lane& x) { return exp_nonpositive(x).exp; }
inline FloatLane exp_of_nonpositive(const FloatLane& x) {
  const auto [low, high] = widen(x);
  return narrow(exp_nonpositive(low).exp, exp_nonpositive(high).exp);
}

namespace detail {

// x = 2^exponent * mantissa, 1/sqrt(2) <= mantissa < sqrt(2), for x positive and normal.
struct Scaled {
  Lane exponent, mantissa;
};
inline Scaled split(const Lane& x) {
  constexpr std::uint64_t kOne = 0x3ff0000000000000, kSqrtHalf = 0x3fe6a09e667f3bcd;
  constexpr std::uint64_t kFraction = 0x000fffffffffffff, kTwo52 = 0x4330000000000000;
  const LaneWords bits = std::bit_cast<LaneWords>(x) + (kOne - kSqrtHalf);
  return {std::bit_cast<Lane>((bits >> 52) | kTwo52) - (0x1p52 + 1023.0),
          std::bit_cast<Lane>((bits & kFraction) + kSqrtHalf)};
}

// k ln 2 + log(1 + f), 1/sqrt(2) <= 1 + f < sqrt(2). With s = f / (2 + f), z = s^2,
// log(1 + f) = 2 atanh(s) = 2 s + s z P(z), P of degree 6 (relative error of the log 4.6e-18),
// summed as in fdlibm's e_log.c, so that f enters without rounding.
inline Lane log_sum(const Lane& k, const Lane& f) {
  const Lane s = f / (f + 2.0), z = s * s, half = 0.5 * f * f;
  Lane p = broadcast<Lane>(0x1.2b5900de53b32p-3);
  p = p * z + 0x1.39fe51a7c18f9p-3;
  p = p * z + 0x1.7462b51cb66b1p-3;
  p = p * z + 0x1.c71c62e3f11e6p-3;
  p = p * z + 0x1.2492492df281ap-2;
  p = p * z + 0x1.99999999952d7p-2;
  p = p * z + 0x1.5555555555558p-1;
  const Lane tail = s * (p * z + half) + k * kLn2Low;
  return k * kLn2High - ((half - tail) - f);
}

}  // namespace detail

// Natural logarithm: -inf at 0, nan below; of numbers below the normal range, too.
inline Lane log(const Lane& x) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const LaneBits subnormal = x < std::numeric_limits<double>::min();
  const auto [exponent, mantissa] = detail::split(subnormal ? x * 0x1p54 : x);
  Lane y = detail::log_sum(subnormal ? exponent - 54.0 : exponent, mantissa - 1.0);
  y = x < kInfinity ? y : x;  // inf and nan
  y = x == 0.0 ? broadcast<Lane>(-kInfinity) : y;
  return x < 0.0 ? broadcast<Lane>(std::numeric_limits<double>::quiet_NaN()) : y;
}
inline double log(double x) { return std::log(x); }

// log(1 + x) for x >= 0. w = 1 + x = 2^k m is rounded; the rounding error is added to f = m - 1.
inline Lane log1p_nonnegative(const Lane& x) {
  const Lane w = x + 1.0;
  const Lane error = x - (w - 1.0);
  const auto [k, m] = detail::split(w);
  const LaneWords power = std::bit_cast<LaneWords>(w) - std::bit_cast<LaneWords>(m);
  const LaneWords inverse = std::bit_cast<LaneWords>(broadcast<Lane>(1.0)) - power;
  const Lane scale = std::bit_cast<Lane>(inverse & 0x3fffffffffffffff);  // 2^-k; k = 1024: finite
  const Lane y = detail::log_sum(k, (m - 1.0) + error * scale);
  return x < std::numeric_limits<double>::infinity() ? y : x;
}
inline FloatLane log1p_nonnegative(const FloatLane& x) {
  const auto [low, high] = widen(x);
  return narrow(log1p_nonnegative(low), log1p_nonnegative(high));
}

}  // namespace pylyap
