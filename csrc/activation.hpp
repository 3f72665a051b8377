// An activation: built in or user-defined.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "lanes.hpp"

namespace pylyap {

// A user-defined activation: compiled loops over `count` contiguous numbers. The caller keeps the
// code alive.
struct UserActivation {
  void (*value_slope)(const double* z, double* f, double* df, std::int64_t count) = nullptr;
  void (*curvature)(const double* z, double* d2f, std::int64_t count) = nullptr;
};

// Kernels over `count` contiguous registers.
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
      user_.value_slope(numbers(z), numbers(f), numbers(df), count * kRuns<Lane>);
    }
  }
  void value_slope(const FloatLane* z, FloatLane* f, FloatLane* df, Index count) const;
  // curved <- f'' error, error <- f' error, in one pass over the error.
  void curvature(const Lane* z, const Lane* f, const Lane* df, Lane* error, Lane* curved,
                 Index count) const {
    if (curvature_) {
      curvature_(z, f, df, error, curved, count);
    } else {
      user_.curvature(numbers(z), numbers(curved), count * kRuns<Lane>);
      for (Index i = 0; i < count; ++i) curved[i] *= error[i], error[i] *= df[i];
    }
  }

  std::string_view name;  // empty if user-defined

 private:
  static const double* numbers(const Lane* lanes) { return reinterpret_cast<const double*>(lanes); }
  static double* numbers(Lane* lanes) { return reinterpret_cast<double*>(lanes); }

  ValueSlope* value_slope_ = nullptr;
  Curvature* curvature_ = nullptr;
  UserActivation user_;
};

// The built-in activations.
std::span<const Activation> activations();

}  // namespace pylyap
