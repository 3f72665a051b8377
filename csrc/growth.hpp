// Singular values of products of triangular factors, to relative accuracy.
//
// The product of the R factors of a window is stored as P = diag(2^e) B with rows of B of order
// one: each row of P keeps its relative accuracy, whereas in P itself the rounding errors of large
// rows exceed the small rows. One-sided Jacobi on the rows, with the exponents as separate numbers,
// computes the singular values to that accuracy (Demmel, Veselic, SIAM J. Matrix Anal. Appl. 13,
// 1204 (1992)).
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numbers>
#include <vector>

#include "lanes.hpp"

namespace pylyap {

// rows (k, k) and exponents (k) are owned by the caller: P = diag(2^exponents) rows, upper
// triangular.
struct ScaledProduct {
  double* rows;
  double* exponents;
  Index k;

  void set_identity() const {
    std::fill_n(rows, k * k, 0.0);
    std::fill_n(exponents, k, 0.0);
    for (Index i = 0; i < k; ++i) rows[i * k + i] = 1.0;
  }

  // P <- diag(2^left_exponents) left P, left upper triangular (k, k). In place: row i needs rows
  // j >= i of P alone. `left_exponents` may be null for zeros.
  void multiply_left(const double* left, const double* left_exponents) const {
    for (Index i = 0; i < k; ++i) {
      double top = -std::numeric_limits<double>::infinity();  // largest exponent that enters row i
      for (Index j = i; j < k; ++j) {
        if (left[i * k + j] != 0.0 && exponents[j] > -std::numeric_limits<double>::infinity())
          top = std::max(top, exponents[j] + std::ilogb(left[i * k + j]));
      }
      double* row = rows + i * k;
      if (!std::isfinite(top)) {  // a zero row
        std::fill_n(row, k, 0.0);
        exponents[i] = top;
        continue;
      }
      for (Index j = i; j < k; ++j) {
        const double* from = rows + j * k;
        const double factor = std::ldexp(left[i * k + j], shift(exponents[j] - top));
        if (j == i) {
          for (Index c = i; c < k; ++c) row[c] *= factor;
        } else if (factor != 0.0) {
          for (Index c = j; c < k; ++c) row[c] += factor * from[c];
        }
      }
      exponents[i] = top + (left_exponents ? left_exponents[i] : 0.0);
      rescale(row, exponents[i]);
    }
  }

  // Scales the largest entry of a row to [1, 2). The exponent of a zero row is -inf.
  void rescale(double* row, double& exponent) const {
    double largest = 0.0;
    for (Index c = 0; c < k; ++c) {
      if (std::isnan(row[c])) return;
      largest = std::max(largest, std::abs(row[c]));
    }
    if (largest == 0.0) {
      exponent = -std::numeric_limits<double>::infinity();
      return;
    }
    if (std::isinf(largest)) return;
    const int e = std::ilogb(largest);
    for (Index c = 0; c < k; ++c) row[c] = std::ldexp(row[c], -e);
    exponent += e;
  }

  static int shift(double difference) {
    return static_cast<int>(std::clamp(difference, -3000.0, 3000.0));
  }
};

// out (k): natural logs of the singular values, largest first. Overwrites the product.
inline void log_singular_values(const ScaledProduct& p, double* out) {
  const Index k = p.k;
  // In order, unlike the `dot` of lanes.hpp: results would differ in the last bit.
  auto dot = [&](Index i, Index j) {
    double sum = 0.0;
    for (Index c = 0; c < k; ++c) sum += p.rows[i * k + c] * p.rows[j * k + c];
    return sum;
  };
  const double tolerance = 4.0 * std::numeric_limits<double>::epsilon();
  constexpr int kMaxSweeps = 60;  // Jacobi converges quadratically; 6 to 10 are typical
  bool rotated = true;
  for (int sweep = 0; rotated && sweep < kMaxSweeps; ++sweep) {
    rotated = false;
    for (Index i = 0; i < k; ++i) {
      for (Index j = i + 1; j < k; ++j) {
        const double a = dot(i, i), b = dot(j, j), c = dot(i, j);
        if (!(std::abs(c) > tolerance * std::sqrt(a * b))) continue;  // also for zero rows and nan
        rotated = true;
        // The scale of row i is 2^e times that of row j.
        const double e = p.exponents[i] - p.exponents[j];
        double* large = p.rows + (e >= 0 ? i : j) * k;
        double* small = p.rows + (e >= 0 ? j : i) * k;
        const double al = e >= 0 ? a : b, bs = e >= 0 ? b : a, gap = std::abs(e);
        if (gap > 60) {  // the rotation does not change the larger row
          const double factor = c / al;
          for (Index x = 0; x < k; ++x) small[x] -= factor * large[x];
        } else {
          const double down = std::ldexp(1.0, -static_cast<int>(gap)), up = 1.0 / down;
          const double zeta = (bs * down - al * up) / (2.0 * c);
          const double t = std::copysign(1.0, zeta) / (std::abs(zeta) + std::hypot(1.0, zeta));
          const double cosine = 1.0 / std::hypot(1.0, t), sine = cosine * t;
          for (Index x = 0; x < k; ++x) {
            const double l = large[x], s = small[x];
            large[x] = cosine * l - (sine * down) * s;
            small[x] = (sine * up) * l + cosine * s;
          }
        }
        p.rescale(p.rows + i * k, p.exponents[i]);
        p.rescale(p.rows + j * k, p.exponents[j]);
      }
    }
  }
  for (Index i = 0; i < k; ++i)
    out[i] = 0.5 * std::log(dot(i, i)) + p.exponents[i] * std::numbers::ln2;
  if (std::none_of(out, out + k, [](double v) { return std::isnan(v); })) {
    std::sort(out, out + k, std::greater<>());
  }
}

}  // namespace pylyap
