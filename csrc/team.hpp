// Threads that work inside one run, on shares of every product. Results do not depend on the thread
// that computes them, to the bit.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <vector>

#include "lanes.hpp"

namespace pylyap {

// Reference to a callable that is called as f(begin, end, worker), for the duration of a call.
// Functions that take one are compiled once rather than once for each callable.
class ShareFunction {
 public:
  template <class F>
    requires(!std::is_same_v<std::remove_cvref_t<F>, ShareFunction>)
  ShareFunction(F&& f)
      : f_(const_cast<void*>(static_cast<const void*>(&f))),
        call_([](void* target, Index begin, Index end, Index worker) {
          (*static_cast<std::remove_reference_t<F>*>(target))(begin, end, worker);
        }) {}
  void operator()(Index begin, Index end, Index worker) const { call_(f_, begin, end, worker); }

 private:
  void* f_;
  void (*call_)(void*, Index, Index, Index);
};

class Team {
 public:
  // `size` threads, including the caller's.
  explicit Team(Index size) : size_(std::max(size, Index{1})) {
    try {
      for (Index i = 1; i < size_; ++i) threads_.emplace_back([this, i] { serve(i); });
    } catch (...) {
      dismiss();
      throw;
    }
  }
  ~Team() { dismiss(); }
  Team(const Team&) = delete;

  Index size() const { return size_; }

  // Calls f(begin, end, worker) for equal shares of 0 ... count - 1, in parallel, and waits for
  // all. A share is a multiple of `unit`, so that register tiles stay whole. f must not throw.
  void share(Index count, Index unit, ShareFunction f) {
    const Index units = (count + unit - 1) / unit, workers = std::min(size_, units);
    if (workers < 1) return;
    if (workers == 1) return f(0, count, 0);
    const Work work{f, count, unit, units, workers};
    work_ = &work;
    start();
    work(0);
    for (auto left = working_.load(); left > 0; left = working_) wait(working_, left);
  }

 private:
  struct Work {
    ShareFunction f;
    Index count, unit, units, workers;

    void operator()(Index worker) const {
      if (worker >= workers) return;
      const Index begin = units * worker / workers * unit;
      f(begin, std::min(units * (worker + 1) / workers * unit, count), worker);
    }
  };

  // Waits until the number changes. Spins at first, since most waits are shorter than a wake-up.
  static void wait(std::atomic<std::uint32_t>& number, std::uint32_t old) {
    constexpr int kSpins = 1000;
    for (int i = 0; i < kSpins; ++i) {
      if (number.load() != old) return;
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
    number.wait(old);
  }
  void start() {
    working_ = static_cast<std::uint32_t>(size_ - 1);
    ++round_;
    round_.notify_all();
  }
  void dismiss() {
    work_ = nullptr;
    start();
    threads_.clear();
  }
  void serve(Index worker) {
    for (std::uint32_t seen = 0;;) {
      wait(round_, seen);
      ++seen;
      if (!work_) return;
      (*work_)(worker);
      if (--working_ == 0) working_.notify_one();
    }
  }

  const Index size_;
  const Work* work_ = nullptr;
  std::atomic<std::uint32_t> round_ = 0, working_ = 0;
  std::vector<std::jthread> threads_;
};

}  // namespace pylyap
