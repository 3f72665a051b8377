// Covariant Lyapunov vectors along a run, by the method of Ginelli et al., PRL 99, 130601 (2007).
//
// Forward, J_t Q_t = Q_{t+1} R_t; backward, from coefficients C at the far end, R_t C_t = C_{t+1} D
// with unit columns, by triangular solves. Q_t C_t are the covariant vectors, D their local growth.
// Frames are kept at checkpoints and segments between them recomputed on the way back, to the same
// bits: memory grows as the root of the steps, work by at most one more forward pass.
//
// With a delay, every record also gets early vectors: pulled back from generic coefficients just
// that many steps later, from the same factors, with nothing known of what comes after.
//
// Vectors that leave the range of a double between two orthonormalisations have powers of two taken
// out (FrameScale): column c of R and of the pushed frame is then 2^e_c times what is kept. Solves
// and residuals whose squares leave the range are done again in scaled arithmetic, lane by lane.
//
// A destroyed direction (R_jj = 0) has the kernel as its covariant vector there, and growth -inf;
// other columns have no part in it, since no past reaches it.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <utility>

#include "buffer.hpp"
#include "elementary.hpp"
#include "group.hpp"
#include "lanes.hpp"
#include "map.hpp"
#include "orthonormalise.hpp"
#include "plans.hpp"
#include "products.hpp"

namespace pylyap {

template <class S>
class Ginelli {
 public:
  Ginelli(Map<S>& map, const CovariantPlan& plan)
      : plan_(plan),
        map_(map),
        n_(map_.n()),
        k_(map_.k()),
        window_(plan.n_steps / plan.qr_every),
        factors_((plan.n_steps + plan.n_tail) / plan.qr_every),
        segments_((factors_ + plan.segment - 1) / plan.segment),
        orthonormalise_(n_, k_),
        scale_(n_, k_),
        norms_(k_),
        aligned_(k_),
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
    group.load(states, layout, map_.state());
    group.load_frame(frame, layout, k_, map_.frame());
    std::fill_n(lost_, kLanes, kNever);
    if (!fill_with_nan(group, out, control)) return;
    Progress progress(control, group.count);
    if (!align(progress) || !forward(group, layout, out, progress)) return;
    if (!backward(group, layout, far, out, progress)) return;
    for (Index l = 0; l < group.count; ++l) {
      const bool finite = lost_[l] == kNever;
      out.status[group.first + l] = finite ? 0 : (map_.raised(l) ? 3 : 1);
      for (Index c = 0; c < k_ && finite; ++c)
        out.transient_growth[(group.first + l) * k_ + c] = lane(transient_[c], l);
      out.n_done[group.first + l] = finite ? plan_.n_steps + plan_.n_tail : lost_[l];
    }
  }

 private:
  static constexpr Index kNever = -1;

  Index per_record() const { return plan_.every / plan_.qr_every; }
  S* checkpoint(Index s) { return checkpoints_.data() + s * (n_ + k_ * n_); }

  bool align(Progress& progress) {
    std::fill_n(transient_.data(), k_, S{});
    for (Index s = 0; s < plan_.n_transient; ++s) {
      map_.advance(plan_.start + s, nullptr);
      note_lost(map_.state()[0], 0);
      if ((s + 1) % plan_.qr_every == 0) {
        qr(nullptr, 0);
        add_growth(transient_.data());
        scale_.reset();
      } else {
        scale_.rescale(map_.frame());
      }
      if (!progress.step()) return false;
    }
    return true;
  }

  // One factor: qr_every steps from step `s` after the transient; R (k, k) or null; Z, the frame
  // before it is made orthonormal again, or null. Leaves the exponents of both in scale_.
  bool advance(Index s, S* r, S* pushed, Progress& progress) {
    for (Index i = 0; i < plan_.qr_every; ++i) {
      map_.advance(plan_.start + plan_.n_transient + s + i, nullptr);
      note_lost(map_.state()[0], s + i);
      if (i + 1 < plan_.qr_every) scale_.rescale(map_.frame());
      if (!progress.step()) return false;
    }
    scale_.restore(map_.frame());
    if (pushed) std::copy_n(map_.frame(), k_ * n_, pushed);
    qr(r, s + plan_.qr_every - 1);
    return true;
  }

  void qr(S* r, Index s) {
    const S* scale = plan_.qr_every == 1 ? map_.source() : nullptr;
    scale_.restore(map_.frame());
    orthonormalise_(map_.frame(), norms_.data(), scale, r);
    S mark{};
    for (Index c = 0; c < k_; ++c) mark += norms_[c];
    note_lost(mark, s);
  }

  // sums (k) += the log growth of the frame up to its last orthonormalisation.
  void add_growth(S* sums) const {
    for (Index c = 0; c < k_; ++c) sums[c] += log(norms_[c]);
    if (scale_.active())
      for (Index c = 0; c < k_; ++c) sums[c] += scale_.exponents()[c] * std::numbers::ln2;
  }

  // The whole way once: records of states and of the frame's growth, checkpoints.
  bool forward(const Group<S>& group, const Layout& layout, const CovariantOutput& out,
               Progress& progress) {
    const Index records = plan_.n_steps / plan_.every;
    std::fill_n(aligned_.data(), k_, S{});
    store_state(group, layout, 0, out);
    for (Index f = 0; f < factors_; ++f) {
      if (f % plan_.segment == 0) {
        S* at = checkpoint(f / plan_.segment);
        std::copy_n(map_.state(), n_, at);
        std::copy_n(map_.frame(), k_ * n_, at + n_);
      }
      const bool last = f >= (segments_ - 1) * plan_.segment;  // the first to go back through
      if (last ? !keep(f, progress) : !advance(f * plan_.qr_every, nullptr, nullptr, progress))
        return false;
      if (f < window_) add_growth(aligned_.data());
      scale_.reset();
      if (f >= window_) continue;
      if ((f + 1) % per_record() > 0) continue;
      const Index record = f / per_record();
      for (Index l = 0; l < group.count; ++l) {
        double* row = out.frame_growth + ((group.first + l) * records + record) * k_;
        for (Index c = 0; c < k_ && lost_[l] == kNever; ++c) row[c] = lane(aligned_[c], l);
      }
      std::fill_n(aligned_.data(), k_, S{});
      store_state(group, layout, record + 1, out);
    }
    return true;
  }

  // Factor f into its place in the segment.
  bool keep(Index f, Progress& progress) {
    const Index i = f % plan_.segment;
    S* r = r_.data() + i * k_ * k_;
    std::copy_n(map_.frame(), k_ * n_, frames_.data() + i * k_ * n_);
    const bool going = advance(f * plan_.qr_every, r, pushed_.data() + i * k_ * n_, progress);
    scaled_factor_[i] = scale_.active();
    if (scale_.active()) std::copy_n(scale_.exponents(), k_, exponents_.data() + i * k_);
    for (Index l = 0; l < kWidth<S>; ++l) {
      if (lost_[l] == kNever || lost_[l] >= (f + 1) * plan_.qr_every) continue;
      for (Index e = 0; e < k_ * k_; ++e) set_lane(r[e], l, e % (k_ + 1) == 0 ? 1.0 : 0.0);
      for (Index c = 0; c < k_; ++c) set_lane(exponents_[i * k_ + c], l, 0.0);
    }
    return going;
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
          scale_.reset();
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
        check(pushed_.data() + i * k_ * n_, exponents);
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
      for (Index c = 0; c < k_ && lost_[l] == kNever; ++c)
        out.tail_growth[(group.first + l) * k_ + c] = lane(growth_[c], l);
  }

  // Coefficients at a far end, one vector per row.
  void set_far(S* c, const double* far) const {
    for (Index e = 0; e < k_ * k_; ++e) c[e] = splat<S>(far[e % k_ * k_ + e / k_]);
  }

  // Early coefficients of all records that factor f lies before, back to its start.
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

  // out (k, n) <- c frame, row j of c zero beyond entry j: in blocks of rows that stop there.
  void combine(const S* c, const S* frame, S* out) const {
    constexpr Index kRows = 24;
    for (Index j = 0; j < k_; j += kRows) {
      const Index end = std::min(j + kRows, k_);
      multiply(Matrix<const S>(c + j * k_, end - j, end, k_), Matrix<const S>(frame, end, n_),
               Matrix<S>(out + j * n_, end - j, n_));
    }
  }

  // Four sums at a time, so that none waits for the one before.
  static S dot(const S* a, const S* b, Index count) {
    S sums[4] = {};
    Index i = 0;
    for (; i + 4 <= count; i += 4)
      for (Index s = 0; s < 4; ++s) sums[s] += a[i + s] * b[i + s];
    for (; i < count; ++i) sums[0] += a[i] * b[i];
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
  }

  // Not 0 in the lanes in which a square is out of range, or an exponent (k, or null) is not 0. In
  // those of nan it is 0: they stay.
  S rough(const S& square, const S* exponents) const {
    constexpr double kLeast = 1e-250, kMost = 1e250;
    const S one = splat<S>(1.0);
    S again = square < kLeast ? one : (square > kMost ? one : S{});
    for (Index c = 0; exponents && c < k_; ++c) again = exponents[c] != 0.0 ? one : again;
    return again;
  }

  // c (one vector per row) <- R^-1 c, each of unit length; the logs of what that took off are the
  // growth (null for none). R is r with column c times 2^exponents[c], or just r (null).
  void solve(const S* r, const S* exponents, S* c, S* growth) {
    for (Index j = 0; j < k_; ++j) {
      S* x = c + j * k_;
      std::copy_n(x, j + 1, before_.data());
      const auto kernel = r[j * (k_ + 1)] == 0.0;  // this direction is destroyed
      S square{};
      for (Index i = j; i >= 0; --i) {
        S value = kernel ? S{} : x[i];
        value -= dot(r + i * k_ + i + 1, x + i + 1, j - i);
        const S pivot = r[i * (k_ + 1)];
        const auto dead = pivot == 0.0;
        value = value / (dead ? splat<S>(1.0) : pivot);
        x[i] = dead ? (i == j ? splat<S>(1.0) : S{}) : value;
        square += x[i] * x[i];
      }
      const S length = sqrt(square), inverse = 1.0 / length;
      for (Index i = 0; i <= j; ++i) x[i] *= inverse;
      constexpr double kInfinity = std::numeric_limits<double>::infinity();
      S taken = kernel ? splat<S>(kInfinity) : log(length);
      const S again = rough(square, exponents);
      if (any(again != 0.0)) {
        for (Index l = 0; l < kWidth<S>; ++l) {
          if (lane(again, l) == 0.0) continue;
          const double log_length = solve_scaled(r, exponents, j, x, l);
          if (lane(r[j * (k_ + 1)], l) != 0.0) set_lane(taken, l, log_length);
        }
      }
      if (growth) growth[j] -= taken;
    }
  }

  // The same of vector j in lane l, from what it was, whatever the size of the numbers; returns the
  // log of its length. In y = diag(2^(e + a)) x the matrix has columns of order one, a being the
  // exponent of the largest entry of each; y is kept with one more exponent, `common`.
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
        value -= std::ldexp(at(i, c), -static_cast<int>(up[c])) * y[c];
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
      square += y[i] * y[i];
    }
    const double length = std::sqrt(square);
    for (Index i = 0; i <= j; ++i) set_lane(x[i], l, y[i] / length);
    return std::log(length) + top * std::numbers::ln2;
  }
  static int shift(double exponent) {
    return static_cast<int>(std::clamp(exponent, -4000.0, 4000.0));
  }

  // How far J v_t leaves the line of v_{t+1}: |u - v (v . u)| for u = J v_t / |J v_t|, from the
  // pushed frame itself rather than from R. Of a destroyed vector |J v_t|. Kept as squares.
  void check(const S* pushed, const S* exponents) {
    combine(c_.data(), pushed, image_.data());
    for (Index j = 0; j < k_; ++j) {
      S* u = image_.data() + j * n_;
      const S* v = after_.data() + j * n_;
      S square{}, along{}, off{}, factor = splat<S>(1.0);  // by which J v is larger than u
      for (Index i = 0; i < n_; ++i) {
        square += u[i] * u[i];
        along += u[i] * v[i];
      }
      if (const S again = rough(square, exponents); any(again != 0.0)) [[unlikely]] {
        factor = images_scaled(pushed, exponents, j, again);
        square = along = S{};
        for (Index i = 0; i < n_; ++i) {
          square += u[i] * u[i];
          along += u[i] * v[i];
        }
      }
      for (Index i = 0; i < n_; ++i) {
        const S part = u[i] - along * v[i];
        off += part * part;
      }
      const auto gone = growth_[j] == -std::numeric_limits<double>::infinity();
      const S value = gone ? square * factor * factor : off / square;
      residual_[j] = residual_[j] > value ? residual_[j] : value;
    }
  }

  // The same for the lanes in which `again` is not 0, of image j; what all lanes were divided by.
  [[gnu::noinline]] S images_scaled(const S* pushed, const S* exponents, Index j, const S& again) {
    S factor = splat<S>(1.0);
    for (Index l = 0; l < kWidth<S>; ++l)
      if (lane(again, l) != 0.0)
        set_lane(factor, l, image_scaled(pushed, exponents, j, image_.data() + j * n_, l));
    return factor;
  }
  // u (n) of lane l <- J v_j divided by a power of two, so that it is of order one; returns that.
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
        set_lane(u[i], l, w * z + lane(u[i], l));
      }
    }
    // A vector that cancels is brought to order one once more.
    double largest = 0.0;
    for (Index i = 0; i < n_; ++i) largest = std::max(largest, std::abs(lane(u[i], l)));
    if (largest == 0.0) return 0.0;
    const int e = std::ilogb(largest);
    for (Index i = 0; i < n_; ++i) set_lane(u[i], l, std::ldexp(lane(u[i], l), -e));
    return std::ldexp(1.0, shift(top + e));
  }

  // Whether lane l was still finite at a record, or some steps after it.
  bool reached(Index l, Index record, Index later = 0) const {
    return lost_[l] == kNever || lost_[l] >= record * plan_.every + later;
  }

  // What a run that leaves the finite numbers does not reach stays nan. False if cancelled.
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
  // What is known of the vectors at a record, in whose frame they are.
  void store_vectors(const S* frame, const Group<S>& group, const Layout& layout, Index record,
                     const CovariantOutput& out) {
    const Index rows = plan_.n_steps / plan_.every + 1;
    const S* known = delay_ > 0 ? early(record) : nullptr;
    if (known && out.early_vectors) combine(known, frame, image_.data());
    for (Index l = 0; l < group.count; ++l) {
      if (!reached(l, record)) continue;
      const Index at = (group.first + l) * rows + record;
      if (out.vectors) group.store_frame(after_.data(), layout, k_, out.vectors + at * n_ * k_, l);
      store_coefficients(c_.data(), out.coefficients + at * k_ * k_, l);
      if (!known || !reached(l, record, plan_.delay)) continue;
      if (out.early_vectors)
        group.store_frame(image_.data(), layout, k_, out.early_vectors + at * n_ * k_, l);
      store_coefficients(known, out.early_coefficients + at * k_ * k_, l);
      for (Index j = 0; j < k_; ++j)
        out.early_error[at * k_ + j] = apart(known + j * k_, c_.data() + j * k_, l);
    }
  }
  void store_coefficients(const S* c, double* to, Index l) const {
    for (Index i = 0; i < k_; ++i)
      for (Index j = 0; j < k_; ++j) to[i * k_ + j] = lane(c[j * k_ + i], l);
  }
  // The sine of the angle between the lines of two vectors of unit length.
  double apart(const S* a, const S* b, Index l) const {
    double along = 0.0, off = 0.0;
    for (Index i = 0; i < k_; ++i) along += lane(a[i], l) * lane(b[i], l);
    for (Index i = 0; i < k_; ++i) {
      const double part = lane(a[i], l) - along * lane(b[i], l);
      off += part * part;
    }
    return std::sqrt(off);
  }

  void note_lost(const S& value, Index s) {
    const S mark = not_finite(value);
    for (Index l = 0; l < kWidth<S>; ++l)
      if (lost_[l] == kNever && std::isnan(lane(mark, l))) lost_[l] = s;
  }

  const CovariantPlan plan_;
  Map<S>& map_;
  const Index n_, k_, window_, factors_, segments_;
  Orthonormaliser<S> orthonormalise_;
  FrameScale<S> scale_;
  Buffer<S> norms_, aligned_, transient_, growth_, residual_;  // the last as squares
  Buffer<S> c_;                                                // (vector, coefficient)
  Buffer<S> before_;               // a row of c_ before it is solved for
  Buffer<double> scaled_;          // of one lane
  const Index delay_, slots_;      // factors that early vectors know; records they are due for
  Buffer<S> early_;                // (slots, vector, coefficient): of record r in slot r % slots
  Buffer<S> after_, now_;          // vectors (k, n) at the factor's end and start
  Buffer<S> image_;                // J v (k, n)
  Buffer<S> checkpoints_;          // (segments, n + k n)
  Buffer<S> frames_, pushed_, r_;  // of a segment
  Buffer<S> exponents_;            // (segment, k): of the columns of pushed_ and r_
  Buffer<bool> scaled_factor_;     // whether any of its exponents is not 0
  Index lost_[kLanes];             // the step that left the finite numbers, per lane
};

}  // namespace pylyap
