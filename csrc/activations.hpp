// f, f' and f'' of every named activation, over arrays of lanes.
//
// The value and first derivative are one kernel and the second derivative another, so that a plain
// step and a step with tangent vectors compute the same bits. Derivatives are formed from the
// exponential rather than from the value: 1 - tanh^2 loses every digit where the unit saturates.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <numbers>
#include <string_view>

#include "lanes.hpp"

namespace pylyap {

struct ExpPair {
  Lane exp;    // e^x, zero below the normal range
  Lane expm1;  // e^x - 1
};

// e^x and e^x - 1 for x <= 0. x = n ln 2 + r, |r| <= ln 2 / 2, then a minimax polynomial for
// (e^r - 1 - r) / r^2 of degree 9 (relative error of e^r 1.3e-17).
inline ExpPair exp_nonpositive(const Lane& x) {
  constexpr double kUnderflow = -708.0;
  const Lane y = x < kUnderflow ? splat<Lane>(kUnderflow) : x;
  const Lane shifter = splat<Lane>(0x1.8p52);  // adding it rounds to an integer in the low bits
  const Lane t = y * 0x1.71547652b82fep+0 + shifter;
  const Lane n = t - shifter;
  const Lane r = (y - n * 0x1.62e42fefa3800p-1) - n * 0x1.ef35793c76730p-45;
  Lane q = splat<Lane>(0x1.af38a9b0ec855p-26);
  q = q * r + 0x1.289185613a3d6p-22;
  q = q * r + 0x1.71de0dae63bb3p-19;
  q = q * r + 0x1.a019b90d2ae7ap-16;
  q = q * r + 0x1.a01a01a7c41d5p-13;
  q = q * r + 0x1.6c16c1788bd90p-10;
  q = q * r + 0x1.11111111109b3p-7;
  q = q * r + 0x1.5555555553d63p-5;
  q = q * r + 0x1.5555555555556p-3;
  q = q * r + 0x1.0000000000001p-1;
  const Lane p = q * (r * r) + r;
  const LaneBits shift = std::bit_cast<LaneBits>(t) << 52;
  const Lane s = std::bit_cast<Lane>(std::bit_cast<LaneBits>(splat<Lane>(1.0)) + shift);
  const Lane e = s * p + s;
  return {x < kUnderflow ? splat<Lane>(0.0) : e, s * p + (s - 1.0)};
}

inline Lane abs(const Lane& x) { return x < 0.0 ? -x : x; }

inline constexpr double kLeak = 0.01;  // slope of leaky_relu for z < 0

namespace activation {

// Each activation: value_slope(z, f, f') and curvature(z, f, f') = f''.

struct Identity {
  static void value_slope(const Lane& z, Lane& f, Lane& df) { f = z, df = splat<Lane>(1.0); }
  static Lane curvature(const Lane&, const Lane&, const Lane&) { return splat<Lane>(0.0); }
};

struct Tanh {
  static void value_slope(const Lane& z, Lane& f, Lane& df) {
    const auto [e, em1] = exp_nonpositive(-2.0 * abs(z));
    const Lane inverse = 1.0 / (em1 + 2.0);
    const Lane magnitude = -em1 * inverse;
    f = z < 0.0 ? -magnitude : magnitude;
    df = 4.0 * e * inverse * inverse;
  }
  static Lane curvature(const Lane&, const Lane& f, const Lane& df) { return -2.0 * f * df; }
};

struct Sigmoid {
  static void value_slope(const Lane& z, Lane& f, Lane& df) {
    const Lane e = exp_nonpositive(-abs(z)).exp;
    const Lane inverse = 1.0 / (e + 1.0);
    const Lane small = e * inverse;
    f = z < 0.0 ? small : inverse;
    df = small * inverse;
  }
  static Lane curvature(const Lane&, const Lane& f, const Lane& df) { return df * (1.0 - 2.0 * f); }
};

// z < 0 is asked rather than z > 0, so that nan stays nan.
struct Relu {
  static void value_slope(const Lane& z, Lane& f, Lane& df) {
    f = z < 0.0 ? splat<Lane>(0.0) : z;
    df = z > 0.0 ? splat<Lane>(1.0) : splat<Lane>(0.0);
  }
  static Lane curvature(const Lane&, const Lane&, const Lane&) { return splat<Lane>(0.0); }
};

struct LeakyRelu {
  static void value_slope(const Lane& z, Lane& f, Lane& df) {
    df = z > 0.0 ? splat<Lane>(1.0) : splat<Lane>(kLeak);
    f = z * df;
  }
  static Lane curvature(const Lane&, const Lane&, const Lane&) { return splat<Lane>(0.0); }
};

struct Elu {
  static void value_slope(const Lane& z, Lane& f, Lane& df) {
    const auto [e, em1] = exp_nonpositive(z > 0.0 ? splat<Lane>(0.0) : z);
    f = z > 0.0 ? z : em1;
    df = z > 0.0 ? splat<Lane>(1.0) : e;
  }
  static Lane curvature(const Lane& z, const Lane&, const Lane& df) {
    return z < 0.0 ? df : splat<Lane>(0.0);
  }
};

struct Softplus {
  static void value_slope(const Lane& z, Lane& f, Lane& df) {
    const Lane e = exp_nonpositive(-abs(z)).exp;
    const Lane inverse = 1.0 / (e + 1.0);
    f = (z < 0.0 ? splat<Lane>(0.0) : z) + each(e, [](double v) { return std::log1p(v); });
    df = z < 0.0 ? e * inverse : inverse;
  }
  static Lane curvature(const Lane& z, const Lane&, const Lane&) {
    const Lane e = exp_nonpositive(-abs(z)).exp;
    const Lane inverse = 1.0 / (e + 1.0);
    return e * inverse * inverse;
  }
};

struct Silu {
  static void value_slope(const Lane& z, Lane& f, Lane& df) {
    const Lane e = exp_nonpositive(-abs(z)).exp;
    const Lane inverse = 1.0 / (e + 1.0);
    const Lane sigmoid = z < 0.0 ? e * inverse : inverse;
    f = z * sigmoid;
    df = sigmoid + z * (e * inverse * inverse);
  }
  static Lane curvature(const Lane& z, const Lane&, const Lane&) {
    const auto [e, em1] = exp_nonpositive(-abs(z));
    const Lane inverse = 1.0 / (e + 1.0);
    const Lane half = -em1 * inverse;  // |tanh(z / 2)| = |1 - 2 sigmoid(z)|
    return e * inverse * inverse * (2.0 - abs(z) * half);
  }
};

// The exact Gaussian error linear unit z Phi(z), not its tanh approximation.
struct Gelu {
  static constexpr double kDensity = std::numbers::inv_sqrtpi / std::numbers::sqrt2;
  static Lane density(const Lane& z) { return kDensity * exp_nonpositive(-0.5 * z * z).exp; }
  static void value_slope(const Lane& z, Lane& f, Lane& df) {
    const Lane phi = each(z, [](double v) { return 0.5 * std::erfc(-v / std::numbers::sqrt2); });
    f = z * phi;
    df = phi + z * density(z);
  }
  static Lane curvature(const Lane& z, const Lane&, const Lane&) {
    const Lane d = density(z);
    return d > 0.0 ? d * (2.0 - z * z) : d;  // z * z may be infinite where the density is 0
  }
};

struct Sin {
  static void value_slope(const Lane& z, Lane& f, Lane& df) {
    f = each(z, [](double v) { return std::sin(v); });
    df = each(z, [](double v) { return std::cos(v); });
  }
  static Lane curvature(const Lane&, const Lane& f, const Lane&) { return -f; }
};

}  // namespace activation

// One row of the table: kernels over `count` lanes, contiguous.
struct Activation {
  std::string_view name;
  void (*value_slope)(const Lane* z, Lane* f, Lane* df, Index count);
  void (*curvature)(const Lane* z, const Lane* f, const Lane* df, Lane* d2f, Index count);
};

template <class A>
constexpr Activation make_activation(std::string_view name) {
  return {name,
          [](const Lane* z, Lane* f, Lane* df, Index count) {
            for (Index i = 0; i < count; ++i) A::value_slope(z[i], f[i], df[i]);
          },
          [](const Lane* z, const Lane* f, const Lane* df, Lane* d2f, Index count) {
            for (Index i = 0; i < count; ++i) d2f[i] = A::curvature(z[i], f[i], df[i]);
          }};
}

inline constexpr std::array kActivations = {
    make_activation<activation::Tanh>("tanh"),
    make_activation<activation::Relu>("relu"),
    make_activation<activation::LeakyRelu>("leaky_relu"),
    make_activation<activation::Sigmoid>("sigmoid"),
    make_activation<activation::Softplus>("softplus"),
    make_activation<activation::Elu>("elu"),
    make_activation<activation::Gelu>("gelu"),
    make_activation<activation::Silu>("silu"),
    make_activation<activation::Sin>("sin"),
    make_activation<activation::Identity>("identity"),
};

}  // namespace pylyap
