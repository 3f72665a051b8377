// Covariant Lyapunov vectors along a run, by the method of Ginelli et al., PRL 99, 130601 (2007).
//
// Forward, J_t Q_t = Q_{t+1} R_t; backward, from coefficients C at the far end, R_t C_t = C_{t+1} D
// with unit columns, by triangular solves. Q_t C_t are the covariant vectors, D their local growth.
// Frames are stored at checkpoints, and segments between them are recomputed in the backward pass,
// to the same bits: memory grows as the root of the steps, work by at most one more forward pass.
//
// With a delay, every record also has early vectors: the backward iteration starts that many steps
// later from generic coefficients, so that they depend on no later factors.
//
// Powers of two are factored out of vectors that leave the range of a double between two
// orthonormalisations (FrameScale): column c of R and of the pushed frame is then 2^e_c times the
// stored one. Solves and residuals whose squares leave the range are repeated in scaled arithmetic,
// lane by lane.
//
// The covariant vector of a collapsed direction (R_jj = 0) is the kernel there, with growth -inf;
// other vectors have no component along it.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <utility>

#include "buffer.hpp"
#include "group.hpp"
#include "lanes.hpp"
#include "map.hpp"
#include "plans.hpp"
#include "products.hpp"
#include "tangent_frame.hpp"

namespace pylyap {

template <class S>
class Ginelli {
 public:
  Ginelli(Map<S>& map, const CovariantPlan& plan)
      : plan_(plan),
        map_(map),
        n_(map.n()),
        k_(map.k()),
        window_(plan.n_steps / plan.qr_every),
        factors_((plan.n_steps + plan.n_tail) / plan.qr_every),
        segments_((factors_ + plan.segment - 1) / plan.segment),
        frame_(map, plan.qr_every),
        frame_growth_(k_),
        transient_(k_),
        growth_(k_),
        residual_(k_),
        c_(k_ * k_),
        before_(k_),
        scaled_(3 * k_),
        delay_(plan.delay / plan.qr_every),
        slots_((plan.delay + plan.every - 1) / plan.every),
        early_(slots_ * k_ * k_),
        after_(k_ * n_),
        now_(k_ * n_),
        image_(k_ * n_),
        checkpoints_(segments_ * (n_ + k_ * n_)),
        frames_(plan.segment * k_ * n_),
        pushed_(plan.segment * k_ * n_),
        r_(plan.segment * k_ * k_),
        exponents_(plan.segment * k_),
        scaled_factor_(plan.segment) {}

  // frame (runs, n, k) to start from; far (k, k): coefficients at the far end, column by column.
  void run(const Group<S>& group, const double* states, const double* frame, const double* far,
           const CovariantOutput& out, const Control& control) {
    const Layout layout = map_.layout();
    frame_.load(group, states, frame);
    if (!fill_with_nan(group, out, control)) return;
    Progress progress(control, group.count);
    if (!align(progress) || !forward(group, layout, out, progress)) return;
    if (!backward(group, layout, far, out, progress)) return;
    for (Index l = 0; l < group.count; ++l) {
      out.status[group.first + l] = finite(l) ? 0 : (map_.raised(l) ? 3 : 1);
      for (Index c = 0; c < k_ && finite(l); ++c)
        out.transient_growth[(group.first + l) * k_ + c] = lane(transient_[c], l);
      out.n_done[group.first + l] =
          finite(l) ? plan_.n_steps + plan_.n_tail : frame_.divergence().step(l);
    }
  }

 private:
  Index per_record() const { return plan_.every / plan_.qr_every; }
  S* checkpoint(Index s) { return checkpoints_.data() + s * (n_ + k_ * n_); }

  bool finite(Index l) const { return frame_.divergence().finite(l); }
  // Whether lane l was finite at a record, or some steps after it.
  bool reached(Index l, Index record, Index later = 0) const {
    return frame_.divergence().finite_before(l, record * plan_.every + later);
  }

  bool align(Progress& progress) {
    return frame_.align(plan_.start, plan_.n_transient, transient_.data(), progress);
  }

  // One factor: qr_every steps from step `s` after the transient. `r` (k, k) or null gets R;
  // `pushed` or null the frame before it is orthonormalised. The exponents of both remain in the
  // scale of frame_.
  bool advance(Index s, S* r, S* pushed, Progress& progress) {
    for (Index i = 0; i < plan_.qr_every; ++i) {
      frame_.advance(plan_.start + plan_.n_transient + s + i, s + i);
      if (i + 1 < plan_.qr_every) frame_.rescale();
      if (!progress.step()) return false;
    }
    frame_.restore();
    if (pushed) std::copy_n(map_.frame(), k_ * n_, pushed);
    frame_.orthonormalise(r, s + plan_.qr_every - 1);
    return true;
  }

  // The forward pass: records of states and of the growth of the frame, checkpoints.
  bool forward(const Group<S>& group, const Layout& layout, const CovariantOutput& out,
               Progress& progress) {
    const Index records = plan_.n_steps / plan_.every;
    std::fill_n(frame_growth_.data(), k_, S{});
    store_state(group, layout, 0, out);
    for (Index f = 0; f < factors_; ++f) {
      if (f % plan_.segment == 0) {
        S* at = checkpoint(f / plan_.segment);
        std::copy_n(map_.state(), n_, at);
        std::copy_n(map_.frame(), k_ * n_, at + n_);
      }
      const bool last = f >= (segments_ - 1) * plan_.segment;  // the backward pass starts with it
      if (last ? !keep(f, progress) : !advance(f * plan_.qr_every, nullptr, nullptr, progress))
        return false;
      if (f < window_) frame_.add_growth(frame_growth_.data());
      frame_.scale().reset();
      if (f >= window_) continue;
      if ((f + 1) % per_record() > 0) continue;
      const Index record = f / per_record();
      for (Index l = 0; l < group.count; ++l) {
        double* row = out.frame_growth + ((group.first + l) * records + record) * k_;
        for (Index c = 0; c < k_ && finite(l); ++c) row[c] = lane(frame_growth_[c], l);
      }
      std::fill_n(frame_growth_.data(), k_, S{});
      store_state(group, layout, record + 1, out);
    }
    return true;
  }

  // Factor f into its place in the segment.
  bool keep(Index f, Progress& progress) {
    const Index i = f % plan_.segment;
    S* r = r_.data() + i * k_ * k_;
    std::copy_n(map_.frame(), k_ * n_, frames_.data() + i * k_ * n_);
    const bool completed = advance(f * plan_.qr_every, r, pushed_.data() + i * k_ * n_, progress);
    const FrameScale<S>& scale = frame_.scale();
    scaled_factor_[i] = scale.active();
    if (scale.active()) std::copy_n(scale.exponents(), k_, exponents_.data() + i * k_);
    for (Index l = 0; l < kRuns<S>; ++l) {
      if (frame_.divergence().finite_before(l, (f + 1) * plan_.qr_every)) continue;
      for (Index e = 0; e < k_ * k_; ++e) set_lane(r[e], l, e % (k_ + 1) == 0 ? 1.0 : 0.0);
      for (Index c = 0; c < k_; ++c) set_lane(exponents_[i * k_ + c], l, 0.0);
    }
    return completed;
  }

  bool backward(const Group<S>& group, const Layout& layout, const double* far,
                const CovariantOutput& out, Progress& progress) {
    const Index records = plan_.n_steps / plan_.every;
    set_far(c_.data(), far);
    std::fill_n(growth_.data(), k_, S{});
    std::fill_n(residual_.data(), k_, S{});
    if (plan_.n_tail == 0) {
      begin_window(map_.frame(), group, layout, out);
      store_tail_growth(group, out);
    }
    for (Index s = segments_ - 1; s >= 0; --s) {
      const Index first = s * plan_.segment, end = std::min(first + plan_.segment, factors_);
      if (s < segments_ - 1) {
        std::copy_n(checkpoint(s), n_, map_.state());
        std::copy_n(checkpoint(s) + n_, k_ * n_, map_.frame());
        for (Index f = first; f < end; ++f) {
          if (!keep(f, progress)) return false;
          frame_.scale().reset();
        }
      }
      for (Index f = end - 1; f >= first; --f) {
        const Index i = f - first;
        const bool inside = f < window_;
        const S* r = r_.data() + i * k_ * k_;
        const S* exponents = scaled_factor_[i] ? exponents_.data() + i * k_ : nullptr;
        solve(r, exponents, c_.data(), growth_.data());
        pull_early(f, r, exponents, far);
        const S* frame = frames_.data() + i * k_ * n_;
        if (!inside) {
          if (f > window_) continue;
          begin_window(frame, group, layout, out);
          store_tail_growth(group, out);
          std::fill_n(growth_.data(), k_, S{});
          continue;
        }
        combine(c_.data(), frame, now_.data());
        add_residual(pushed_.data() + i * k_ * n_, exponents);
        std::swap(after_, now_);
        if (f % per_record() > 0) continue;
        const Index record = f / per_record();
        store_vectors(frame, group, layout, record, out);
        for (Index l = 0; l < group.count; ++l) {
          if (!reached(l, record + 1)) continue;
          const Index at = ((group.first + l) * records + record) * k_;
          for (Index c = 0; c < k_; ++c) {
            out.growth[at + c] = lane(growth_[c], l);
            out.residual[at + c] = std::sqrt(lane(residual_[c], l));
          }
        }
        std::fill_n(growth_.data(), k_, S{});
        std::fill_n(residual_.data(), k_, S{});
      }
    }
    return true;
  }

  // The vectors at the end of the window, from its frame.
  void begin_window(const S* frame, const Group<S>& group, const Layout& layout,
                    const CovariantOutput& out) {
    combine(c_.data(), frame, after_.data());
    store_vectors(frame, group, layout, plan_.n_steps / plan_.every, out);
  }

  void store_tail_growth(const Group<S>& group, const CovariantOutput& out) const {
    for (Index l = 0; l < group.count; ++l)
      for (Index c = 0; c < k_ && finite(l); ++c)
        out.tail_growth[(group.first + l) * k_ + c] = lane(growth_[c], l);
  }

  // Coefficients at a far end, one vector per row.
  void set_far(S* c, const double* far) const {
    for (Index e = 0; e < k_ * k_; ++e) c[e] = broadcast<S>(far[e % k_ * k_ + e / k_]);
  }

  // Takes the early coefficients of all records up to which factor f is used back to its start.
  void pull_early(Index f, const S* r, const S* exponents, const double* far) {
    if (delay_ == 0) return;
    const Index records = plan_.n_steps / plan_.every, begins = f + 1 - delay_;
    if (begins >= 0 && begins % per_record() == 0 && begins / per_record() <= records)
      set_far(early(begins / per_record()), far);
    const Index least = std::max((f + per_record() - delay_) / per_record(), Index{0});
    for (Index record = std::min(f / per_record(), records);
         record >= least && record * per_record() + delay_ > f; --record)
      solve(r, exponents, early(record), nullptr);
  }
  S* early(Index record) { return early_.data() + record % slots_ * k_ * k_; }

  // out (k, n) <- c frame. Entries of row j of c beyond j are zero: blocks of rows stop there.
  void combine(const S* c, const S* frame, S* out) const {
    constexpr Index kRows = 24;
    for (Index j = 0; j < k_; j += kRows) {
      const Index end = std::min(j + kRows, k_);
      const Matrix<const S> rows(c + j * k_, end - j, end, k_), vectors(frame, end, n_);
      const Matrix<S> to(out + j * n_, end - j, n_);
      if constexpr (std::is_same_v<S, double>) {
        if (map_.in_order()) {
          multiply_rows(rows, vectors, to);
          continue;
        }
      }
      multiply(rows, vectors, to);
    }
  }

  // Four independent sums. The `dot` of lanes.hpp adds registers of neighbouring values, and the
  // remainder in a sum of its own: results would differ in the last bit.
  static S dot(const S* a, const S* b, Index count) {
    S sums[4] = {};
    Index i = 0;
    for (; i + 4 <= count; i += 4)
      for (Index s = 0; s < 4; ++s) sums[s] = fused<S>(a[i + s], b[i + s], sums[s]);
    for (; i < count; ++i) sums[0] = fused<S>(a[i], b[i], sums[0]);
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
  }

  // 1 in the lanes in which a square is out of range or one of the exponents (k, or null) is not 0,
  // else 0. Lanes of nan are 0: they are not repeated.
  S out_of_range(const S& square, const S* exponents) const {
    constexpr double kMin = 1e-250, kMax = 1e250;
    const S one = broadcast<S>(1.0);
    S again = square < kMin ? one : (square > kMax ? one : S{});
    for (Index c = 0; exponents && c < k_; ++c) again = exponents[c] != 0.0 ? one : again;
    return again;
  }

  // c (one vector per row) <- R^-1 c, normalised; minus the logs of the lengths is added to the
  // growth (or null). R is r with column c times 2^exponents[c], or r itself (null).
  void solve(const S* r, const S* exponents, S* c, S* growth) {
    for (Index j = 0; j < k_; ++j) {
      S* x = c + j * k_;
      std::copy_n(x, j + 1, before_.data());
      const auto kernel = r[j * (k_ + 1)] == 0.0;  // a collapsed direction
      S square{};
      for (Index i = j; i >= 0; --i) {
        S value = kernel ? S{} : x[i];
        value -= dot(r + i * k_ + i + 1, x + i + 1, j - i);
        const S pivot = r[i * (k_ + 1)];
        const auto collapsed = pivot == 0.0;
        value = value / (collapsed ? broadcast<S>(1.0) : pivot);
        x[i] = collapsed ? (i == j ? broadcast<S>(1.0) : S{}) : value;
        square = fused<S>(x[i], x[i], square);
      }
      const S length = sqrt(square), inverse = 1.0 / length;
      for (Index i = 0; i <= j; ++i) x[i] *= inverse;
      constexpr double kInfinity = std::numeric_limits<double>::infinity();
      S log_growth = kernel ? broadcast<S>(kInfinity) : log_of(length);
      const S again = out_of_range(square, exponents);
      if (any(again != 0.0)) {
        for (Index l = 0; l < kRuns<S>; ++l) {
          if (lane(again, l) == 0.0) continue;
          const double log_length = solve_scaled(r, exponents, j, x, l);
          if (lane(r[j * (k_ + 1)], l) != 0.0) set_lane(log_growth, l, log_length);
        }
      }
      if (growth) growth[j] -= log_growth;
    }
  }

  S log_of(const S& length) const {
    if constexpr (std::is_same_v<S, double>) {
      if (map_.in_order()) return lane(log(broadcast<Lane>(length)), 0);
    }
    return log(length);
  }
  // The same for vector j in lane l, from its value before, for numbers of any size; returns the
  // log of its length. For y = diag(2^(e + a)) x the matrix has columns of order one, a being the
  // exponent of the largest entry of each; y is stored with a further exponent, `common`.
  [[gnu::noinline]] double solve_scaled(const S* r, const S* exponents, Index j, S* x, Index l) {
    constexpr double kLarge = 0x1p500;
    double *y = scaled_.data(), *b = y + k_, *up = b + k_;
    const auto at = [&](Index i, Index c) { return lane(r[i * k_ + c], l); };
    const bool kernel = at(j, j) == 0.0;
    for (Index c = 0; c <= j; ++c) {
      double largest = 0.0;
      for (Index i = 0; i <= c; ++i) largest = std::max(largest, std::abs(at(i, c)));
      up[c] = largest > 0.0 && std::isfinite(largest) ? std::ilogb(largest) : 0.0;
      b[c] = kernel ? 0.0 : lane(before_[c], l);
    }
    double common = 0.0;
    for (Index i = j; i >= 0; --i) {
      double value = b[i];
      for (Index c = i + 1; c <= j; ++c)
        value = fused(-std::ldexp(at(i, c), -static_cast<int>(up[c])), y[c], value);
      const double pivot = std::ldexp(at(i, i), -static_cast<int>(up[i]));
      y[i] = pivot != 0.0 ? value / pivot : (i == j ? 1.0 : 0.0);
      if (std::abs(y[i]) > kLarge) {
        const int e = std::ilogb(y[i]);
        for (Index c = i; c <= j; ++c) y[c] = std::ldexp(y[c], -e);
        for (Index c = 0; c < i; ++c) b[c] = std::ldexp(b[c], -e);
        common += e;
      }
    }
    double top = -std::numeric_limits<double>::infinity();  // largest exponent of x
    for (Index i = 0; i <= j; ++i) {
      up[i] = common - up[i] - (exponents ? lane(exponents[i], l) : 0.0);
      if (y[i] != 0.0) top = std::max(top, up[i] + std::ilogb(y[i]));
    }
    double square = 0.0;
    for (Index i = 0; i <= j; ++i) {
      y[i] = std::ldexp(y[i], shift(up[i] - top));
      square = fused(y[i], y[i], square);
    }
    const double length = std::sqrt(square);
    for (Index i = 0; i <= j; ++i) set_lane(x[i], l, y[i] / length);
    return std::log(length) + top * std::numbers::ln2;
  }
  static int shift(double exponent) {
    return static_cast<int>(std::clamp(exponent, -4000.0, 4000.0));
  }

  // The covariance residual |u - v (v . u)|, u = J v_t / |J v_t|, v = v_{t+1}, from the pushed
  // frame rather than from R; |J v_t| of a collapsed vector. Stored as squares.
  void add_residual(const S* pushed, const S* exponents) {
    combine(c_.data(), pushed, image_.data());
    for (Index j = 0; j < k_; ++j) {
      S* u = image_.data() + j * n_;
      const S* v = after_.data() + j * n_;
      S square{}, along{}, off{}, factor = broadcast<S>(1.0);  // by which J v is larger than u
      for (Index i = 0; i < n_; ++i) {
        square = fused<S>(u[i], u[i], square);
        along = fused<S>(u[i], v[i], along);
      }
      if (const S again = out_of_range(square, exponents); any(again != 0.0)) [[unlikely]] {
        factor = images_scaled(pushed, exponents, j, again);
        square = along = S{};
        for (Index i = 0; i < n_; ++i) {
          square = fused<S>(u[i], u[i], square);
          along = fused<S>(u[i], v[i], along);
        }
      }
      for (Index i = 0; i < n_; ++i) {
        const S part = fused<S>(-along, v[i], u[i]);
        off = fused<S>(part, part, off);
      }
      const auto collapsed = growth_[j] == -std::numeric_limits<double>::infinity();
      const S value = collapsed ? square * factor * factor : off / square;
      residual_[j] = residual_[j] > value ? residual_[j] : value;
    }
  }

  // Image j in the lanes in which `again` is not 0, and the factors by which they were divided.
  [[gnu::noinline]] S images_scaled(const S* pushed, const S* exponents, Index j, const S& again) {
    S factor = broadcast<S>(1.0);
    for (Index l = 0; l < kRuns<S>; ++l)
      if (lane(again, l) != 0.0)
        set_lane(factor, l, image_scaled(pushed, exponents, j, image_.data() + j * n_, l));
    return factor;
  }
  // u (n) of lane l <- J v_j divided by the power of two that makes it of order one; returns it.
  [[gnu::noinline]] double image_scaled(const S* pushed, const S* exponents, Index j, S* u,
                                        Index l) {
    double *weight = scaled_.data(), *up = weight + k_, *down = up + k_;
    double top = -std::numeric_limits<double>::infinity();
    for (Index c = 0; c <= j; ++c) {
      double largest = 0.0;
      for (Index i = 0; i < n_; ++i)
        largest = std::max(largest, std::abs(lane(pushed[c * n_ + i], l)));
      weight[c] = lane(c_[j * k_ + c], l);
      if (!(largest > 0.0) || !std::isfinite(largest)) weight[c] = 0.0;
      if (weight[c] == 0.0) continue;
      const int e = std::ilogb(largest), w = std::ilogb(weight[c]);
      weight[c] = std::ldexp(weight[c], -w);
      down[c] = e;
      up[c] = e + w + (exponents ? lane(exponents[c], l) : 0.0);
      top = std::max(top, up[c]);
    }
    for (Index i = 0; i < n_; ++i) set_lane(u[i], l, 0.0);
    for (Index c = 0; c <= j; ++c) {
      if (weight[c] == 0.0) continue;
      const double w = std::ldexp(weight[c], shift(up[c] - top));
      for (Index i = 0; i < n_; ++i) {
        const double z = std::ldexp(lane(pushed[c * n_ + i], l), -static_cast<int>(down[c]));
        set_lane(u[i], l, fused(w, z, lane(u[i], l)));
      }
    }
    // After cancellation the vector is scaled to order one again.
    double largest = 0.0;
    for (Index i = 0; i < n_; ++i) largest = std::max(largest, std::abs(lane(u[i], l)));
    if (largest == 0.0) return 0.0;
    const int e = std::ilogb(largest);
    for (Index i = 0; i < n_; ++i) set_lane(u[i], l, std::ldexp(lane(u[i], l), -e));
    return std::ldexp(1.0, shift(top + e));
  }

  // Records that a run has not reached when it diverges stay nan. False if cancelled.
  bool fill_with_nan(const Group<S>& group, const CovariantOutput& out,
                     const Control& control) const {
    const Index records = plan_.n_steps / plan_.every, times = records + 1;
    const auto fill = [&](double* array, Index per_run) {
      return !array || control.fill_with_nan(array + group.first * per_run, group.count * per_run);
    };
    return fill(out.vectors, times * n_ * k_) && fill(out.early_vectors, times * n_ * k_) &&
           fill(out.coefficients, times * k_ * k_) &&
           fill(out.early_coefficients, times * k_ * k_) && fill(out.growth, records * k_) &&
           fill(out.frame_growth, records * k_) && fill(out.residual, records * k_) &&
           fill(out.transient_growth, k_) && fill(out.tail_growth, k_) &&
           fill(out.states, times * n_) && fill(out.early_error, times * k_);
  }

  void store_state(const Group<S>& group, const Layout& layout, Index record,
                   const CovariantOutput& out) {
    const Index rows = plan_.n_steps / plan_.every + 1;
    for (Index l = 0; l < group.count; ++l)
      if (reached(l, record))
        group.store(map_.state(), layout, out.states + ((group.first + l) * rows + record) * n_, l);
  }
  // The vectors at a record, from the frame there, and the early vectors if there is a delay.
  void store_vectors(const S* frame, const Group<S>& group, const Layout& layout, Index record,
                     const CovariantOutput& out) {
    const Index rows = plan_.n_steps / plan_.every + 1;
    const S* early_c = delay_ > 0 ? early(record) : nullptr;
    if (early_c && out.early_vectors) combine(early_c, frame, image_.data());
    for (Index l = 0; l < group.count; ++l) {
      if (!reached(l, record)) continue;
      const Index at = (group.first + l) * rows + record;
      if (out.vectors) group.store_frame(after_.data(), layout, k_, out.vectors + at * n_ * k_, l);
      store_coefficients(c_.data(), out.coefficients + at * k_ * k_, l);
      if (!early_c || !reached(l, record, plan_.delay)) continue;
      if (out.early_vectors)
        group.store_frame(image_.data(), layout, k_, out.early_vectors + at * n_ * k_, l);
      store_coefficients(early_c, out.early_coefficients + at * k_ * k_, l);
      for (Index j = 0; j < k_; ++j)
        out.early_error[at * k_ + j] = sine(early_c + j * k_, c_.data() + j * k_, l);
    }
  }
  void store_coefficients(const S* c, double* to, Index l) const {
    for (Index i = 0; i < k_; ++i)
      for (Index j = 0; j < k_; ++j) to[i * k_ + j] = lane(c[j * k_ + i], l);
  }
  // The sine of the angle between the lines of two vectors of unit length.
  double sine(const S* a, const S* b, Index l) const {
    double along = 0.0, off = 0.0;
    for (Index i = 0; i < k_; ++i) along = fused(lane(a[i], l), lane(b[i], l), along);
    for (Index i = 0; i < k_; ++i) {
      const double part = fused(-along, lane(b[i], l), lane(a[i], l));
      off = fused(part, part, off);
    }
    return std::sqrt(off);
  }

  const CovariantPlan plan_;
  Map<S>& map_;
  const Index n_, k_, window_, factors_, segments_;
  TangentFrame<S> frame_;
  Buffer<S> frame_growth_, transient_, growth_, residual_;  // the last as squares
  Buffer<S> c_;                                             // (vector, coefficient)
  Buffer<S> before_;                                        // a row of c_ before it is solved for
  Buffer<double> scaled_;                                   // of one lane
  const Index delay_, slots_;      // delay in factors; number of records with early vectors at once
  Buffer<S> early_;                // (slots, vector, coefficient): of record r in slot r % slots
  Buffer<S> after_, now_;          // vectors (k, n) at the end and the start of the factor
  Buffer<S> image_;                // J v (k, n)
  Buffer<S> checkpoints_;          // (segments, n + k n)
  Buffer<S> frames_, pushed_, r_;  // of a segment
  Buffer<S> exponents_;            // (segment, k): of the columns of pushed_ and r_
  Buffer<bool> scaled_factor_;     // whether any of its exponents is not 0
};

}  // namespace pylyap
