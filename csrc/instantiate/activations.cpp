// The table of activations, and elementary functions for tests.
#include "../activations.hpp"

#include <algorithm>
#include <array>

#include "../activation.hpp"
#include "../elementary.hpp"
#include "../runs.hpp"

namespace pylyap {

namespace {

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

constexpr std::array kActivations = {
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

}  // namespace

std::span<const Activation> activations() { return kActivations; }

// Single precision is computed in double, a few registers at a time.
void Activation::value_slope(const FloatLane* z, FloatLane* f, FloatLane* df, Index count) const {
  constexpr Index kBlock = 8;
  Lane wide[3][2 * kBlock];
  for (Index begin = 0; begin < count; begin += kBlock) {
    const Index size = std::min(kBlock, count - begin);
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

void elementary(Elementary function, const double* x, double* y, Index count) {
  const auto f = [&](const Lane& v) {
    switch (function) {
      case Elementary::exp:
        return exp_nonpositive(v).exp;
      case Elementary::expm1:
        return exp_nonpositive(v).expm1;
      case Elementary::log:
        return log(v);
      default:
        return log1p_nonnegative(v);
    }
  };
  for (Index i = 0; i < count; i += kRuns<Lane>) {
    const Index size = std::min(kRuns<Lane>, count - i);
    Lane value{};
    std::copy_n(x + i, size, reinterpret_cast<double*>(&value));
    value = f(value);
    std::copy_n(reinterpret_cast<const double*>(&value), size, y + i);
  }
}

}  // namespace pylyap
