// f, f' and f'' of the built-in activations.
//
// The value and the first derivative are one kernel and the second derivative another, so that
// steps with and without tangent vectors give the same bits. Derivatives are formed from the
// exponential rather than from the value: 1 - tanh^2 loses all digits where the unit saturates. At
// a jump of the derivative, at 0, it is the left limit.
#pragma once

#include <cmath>
#include <numbers>

#include "elementary.hpp"
#include "lanes.hpp"

namespace pylyap {

inline constexpr double kLeak = 0.01;  // slope of leaky_relu for z < 0

namespace activation {

// Each activation: value_slope(z, f, f') and curvature(z, f, f') = f''.

struct Identity {
  static void value_slope(const Lane& z, Lane& f, Lane& df) { f = z, df = broadcast<Lane>(1.0); }
  static Lane curvature(const Lane&, const Lane&, const Lane&) { return broadcast<Lane>(0.0); }
};

struct Tanh {
  static void value_slope(const Lane& z, Lane& f, Lane& df) {
    const Lane half = minus_abs(z);
    const auto [e, em1] = exp_nonpositive(half + half);
    const Lane inverse = 1.0 / (em1 + 2.0), twice = inverse + inverse;
    f = copysign(em1 * inverse, z);
    df = e * twice * twice;
  }
  static Lane curvature(const Lane&, const Lane& f, const Lane& df) { return -2.0 * f * df; }
};

struct Sigmoid {
  static void value_slope(const Lane& z, Lane& f, Lane& df) {
    const Lane e = exp_nonpositive(minus_abs(z)).exp;
    const Lane inverse = 1.0 / (e + 1.0);
    const Lane small = e * inverse;
    f = z < 0.0 ? small : inverse;
    df = small * inverse;
  }
  static Lane curvature(const Lane&, const Lane& f, const Lane& df) { return df * (1.0 - 2.0 * f); }
};

// The condition is z < 0 rather than z > 0, so that nan stays nan.
struct Relu {
  static void value_slope(const Lane& z, Lane& f, Lane& df) {
    f = z < 0.0 ? broadcast<Lane>(0.0) : z;
    df = z > 0.0 ? broadcast<Lane>(1.0) : broadcast<Lane>(0.0);
  }
  static Lane curvature(const Lane&, const Lane&, const Lane&) { return broadcast<Lane>(0.0); }
};

struct LeakyRelu {
  static void value_slope(const Lane& z, Lane& f, Lane& df) {
    df = z > 0.0 ? broadcast<Lane>(1.0) : broadcast<Lane>(kLeak);
    f = z * df;
  }
  static Lane curvature(const Lane&, const Lane&, const Lane&) { return broadcast<Lane>(0.0); }
};

struct Elu {
  static void value_slope(const Lane& z, Lane& f, Lane& df) {
    const auto [e, em1] = exp_nonpositive(z > 0.0 ? broadcast<Lane>(0.0) : z);
    f = z > 0.0 ? z : em1;
    df = z > 0.0 ? broadcast<Lane>(1.0) : e;
  }
  static Lane curvature(const Lane& z, const Lane&, const Lane& df) {
    return z > 0.0 ? broadcast<Lane>(0.0) : df;
  }
};

struct Softplus {
  static void value_slope(const Lane& z, Lane& f, Lane& df) {
    const Lane e = exp_nonpositive(minus_abs(z)).exp;
    const Lane inverse = 1.0 / (e + 1.0);
    f = (z < 0.0 ? broadcast<Lane>(0.0) : z) + log1p_nonnegative(e);
    df = z < 0.0 ? e * inverse : inverse;
  }
  static Lane curvature(const Lane& z, const Lane&, const Lane&) {
    const Lane e = exp_nonpositive(minus_abs(z)).exp;
    const Lane inverse = 1.0 / (e + 1.0);
    return e * inverse * inverse;
  }
};

struct Silu {
  static void value_slope(const Lane& z, Lane& f, Lane& df) {
    const Lane e = exp_nonpositive(minus_abs(z)).exp;
    const Lane inverse = 1.0 / (e + 1.0);
    const Lane sigmoid = z < 0.0 ? e * inverse : inverse;
    f = z * sigmoid;
    df = sigmoid + z * (e * inverse * inverse);
  }
  static Lane curvature(const Lane& z, const Lane&, const Lane&) {
    const auto [e, em1] = exp_nonpositive(minus_abs(z));
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
    const Lane phi =
        for_each_lane(z, [](double v) { return 0.5 * std::erfc(-v / std::numbers::sqrt2); });
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
    f = for_each_lane(z, [](double v) { return std::sin(v); });
    df = for_each_lane(z, [](double v) { return std::cos(v); });
  }
  static Lane curvature(const Lane&, const Lane& f, const Lane&) { return -f; }
};

}  // namespace activation

}  // namespace pylyap
