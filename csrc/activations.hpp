// f, f' and f'' of every named activation and of a user's own, over arrays of lanes.
//
// The value and first derivative are one kernel and the second derivative another, so that a plain
// step and a step with tangent vectors compute the same bits. Derivatives are formed from the
// exponential rather than from the value: 1 - tanh^2 loses every digit where the unit saturates.
// Where a derivative jumps, at 0, it has its left limit.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <string_view>

#include "elementary.hpp"
#include "lanes.hpp"

namespace pylyap {

inline constexpr double kLeak = 0.01;  // slope of leaky_relu for z < 0

namespace activation {

// Each activation: value_slope(z, f, f') and curvature(z, f, f') = f''.

struct Identity {
  static void value_slope(const Lane& z, Lane& f, Lane& df) { f = z, df = splat<Lane>(1.0); }
  static Lane curvature(const Lane&, const Lane&, const Lane&) { return splat<Lane>(0.0); }
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
    return z > 0.0 ? splat<Lane>(0.0) : df;
  }
};

struct Softplus {
  static void value_slope(const Lane& z, Lane& f, Lane& df) {
    const Lane e = exp_nonpositive(minus_abs(z)).exp;
    const Lane inverse = 1.0 / (e + 1.0);
    f = (z < 0.0 ? splat<Lane>(0.0) : z) + log1p_nonnegative(e);
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

// A user's own activation: compiled loops over `count` numbers, contiguous. Whoever makes one keeps
// the code alive.
struct UserActivation {
  void (*value_slope)(const double* z, double* f, double* df, std::int64_t count) = nullptr;
  void (*curvature)(const double* z, double* d2f, std::int64_t count) = nullptr;
};

// One row of the table: kernels over `count` lanes, contiguous.
class Activation {
 public:
  using ValueSlope = void(const Lane* z, Lane* f, Lane* df, Index count);
  using Curvature = void(const Lane* z, const Lane* f, const Lane* df, Lane* error, Lane* curved,
                         Index count);

  constexpr Activation(std::string_view name_, ValueSlope* value_slope, Curvature* curvature)
      : name(name_), value_slope_(value_slope), curvature_(curvature) {}
  explicit constexpr Activation(const UserActivation& user) : user_(user) {}

  void value_slope(const Lane* z, Lane* f, Lane* df, Index count) const {
    if (value_slope_) {
      value_slope_(z, f, df, count);
    } else {
      user_.value_slope(numbers(z), numbers(f), numbers(df), count * kLanes);
    }
  }
  // In single precision: in double, a few registers at a time.
  void value_slope(const FloatLane* z, FloatLane* f, FloatLane* df, Index count) const {
    constexpr Index kAtOnce = 8;
    Lane wide[3][2 * kAtOnce];
    for (Index begin = 0; begin < count; begin += kAtOnce) {
      const Index size = std::min(kAtOnce, count - begin);
      for (Index i = 0; i < size; ++i) {
        const auto [low, high] = widen(z[begin + i]);
        wide[0][2 * i] = low, wide[0][2 * i + 1] = high;
      }
      value_slope(wide[0], wide[1], wide[2], 2 * size);
      for (Index i = 0; i < size; ++i) {
        f[begin + i] = narrow(wide[1][2 * i], wide[1][2 * i + 1]);
        df[begin + i] = narrow(wide[2][2 * i], wide[2][2 * i + 1]);
      }
    }
  }
  // curved <- f'' error, error <- f' error: in one pass, while the error is in a register.
  void curvature(const Lane* z, const Lane* f, const Lane* df, Lane* error, Lane* curved,
                 Index count) const {
    if (curvature_) {
      curvature_(z, f, df, error, curved, count);
    } else {
      user_.curvature(numbers(z), numbers(curved), count * kLanes);
      for (Index i = 0; i < count; ++i) curved[i] *= error[i], error[i] *= df[i];
    }
  }

  std::string_view name;  // empty for a user's own

 private:
  static const double* numbers(const Lane* lanes) { return reinterpret_cast<const double*>(lanes); }
  static double* numbers(Lane* lanes) { return reinterpret_cast<double*>(lanes); }

  ValueSlope* value_slope_ = nullptr;
  Curvature* curvature_ = nullptr;
  UserActivation user_;
};

template <class A>
constexpr Activation make_activation(std::string_view name) {
  return {name,
          [](const Lane* z, Lane* f, Lane* df, Index count) {
            for (Index i = 0; i < count; ++i) A::value_slope(z[i], f[i], df[i]);
          },
          [](const Lane* z, const Lane* f, const Lane* df, Lane* error, Lane* curved, Index count) {
            for (Index i = 0; i < count; ++i) {
              const Lane e = error[i], slope = df[i];
              curved[i] = A::curvature(z[i], f[i], slope) * e;
              error[i] = slope * e;
            }
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
