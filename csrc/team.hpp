// Threads that work inside one run, on shares of every product. Results do not depend on the thread
// that computes them, to the bit.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <thread>
#include <type_traits>
#include <vector>

#include "lanes.hpp"

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

namespace pylyap {

// Reference to a callable that is called as f(begin, end, share), for the duration of a call.
// Functions that take one are compiled once rather than once for each callable.
class ShareFunction {
 public:
  template <class F>
    requires(!std::is_same_v<std::remove_cvref_t<F>, ShareFunction>)
  ShareFunction(F&& f)
      : f_(const_cast<void*>(static_cast<const void*>(&f))),
        call_([](void* target, Index begin, Index end, Index share) {
          (*static_cast<std::remove_reference_t<F>*>(target))(begin, end, share);
        }) {}
  void operator()(Index begin, Index end, Index share) const { call_(f_, begin, end, share); }

 private:
  void* f_;
  void (*call_)(void*, Index, Index, Index);
};

// Each thread has one share of the work; the caller also takes those that no other thread has begun
// when its own is done. It waits only for threads that have begun, not for one that sleeps.
class Team {
 public:
  // `size` threads, including the caller's.
  explicit Team(Index size)
      : size_(std::max(size, Index{1})),
        offers_(size_ > 1 ? std::make_unique<Number[]>(static_cast<std::size_t>(size_)) : nullptr) {
    try {
      for (Index i = 1; i < size_; ++i)
        leave_core_of_caller(threads_.emplace_back([this, i] { serve(i); }), i);
    } catch (...) {
      dismiss();
      throw;
    }
  }
  ~Team() { dismiss(); }
  Team(const Team&) = delete;

  Index size() const { return size_; }

  // Calls f(begin, end, share) for equal shares of 0 ... count - 1, in parallel, and waits for all.
  // A share is a multiple of `unit`, so that register tiles stay whole. f must not throw.
  void share(Index count, Index unit, ShareFunction f) {
    const Index units = (count + unit - 1) / unit, shares = std::min(size_, units);
    if (shares < 1) return;
    if (shares == 1) return f(0, count, 0);
    work_ = Work{f, count, unit, units, shares};
    left_.value = static_cast<std::uint32_t>(shares - 1);
    for (Index i = 1; i < shares; ++i) offer(i);
    (*work_)(0);
    for (Index i = 1; i < shares; ++i) {
      if (!take(i)) continue;
      (*work_)(i);
      --left_.value;
    }
    for (auto left = left_.value.load(); left > 0; left = left_.value) wait(left_, left);
  }

 private:
  struct Work {
    ShareFunction f;
    Index count, unit, units, shares;

    void operator()(Index share) const {
      const Index begin = units * share / shares * unit;
      f(begin, std::min(units * (share + 1) / shares * unit, count), share);
    }
  };
  struct alignas(64) Number {  // on a cache line of its own
    std::atomic<std::uint32_t> value = 0;
  };

  // A share is offered to its thread until one of both takes it.
  Number& offered(Index i) { return offers_[static_cast<std::size_t>(i)]; }
  void offer(Index i) {
    offered(i).value = 1;
    offered(i).value.notify_one();
  }
  bool take(Index i) { return offered(i).value.exchange(0) == 1; }

  // Linux starts a thread on the core of its creator and may take 10 ms to move it. Moves thread i
  // of a team to the i-th core after that of the caller, of those that it may use; it is then free
  // to be moved again.
  static void leave_core_of_caller([[maybe_unused]] std::jthread& thread,
                                   [[maybe_unused]] Index i) {
#if defined(__linux__)
    cpu_set_t all, one;
    int core = sched_getcpu();
    if (core < 0 || sched_getaffinity(0, sizeof all, &all) != 0 || CPU_COUNT(&all) < 2) return;
    while (i > 0) {
      core = (core + 1) % CPU_SETSIZE;
      if (CPU_ISSET(static_cast<std::size_t>(core), &all)) --i;
    }
    CPU_ZERO(&one);
    CPU_SET(static_cast<std::size_t>(core), &one);
    pthread_setaffinity_np(thread.native_handle(), sizeof one, &one);
    pthread_setaffinity_np(thread.native_handle(), sizeof all, &all);
#endif
  }

  // Waits until the number changes. Spins for some 100 microseconds at first, since most waits are
  // shorter than that, and to wake a thread takes 10 to 50.
  static void wait(Number& number, std::uint32_t old) {
    constexpr int kSpins = 4000;
    for (int i = 0; i < kSpins; ++i) {
      if (number.value.load() != old) return;
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
    number.value.wait(old);
  }
  void dismiss() {
    work_.reset();
    for (Index i = 1; i <= static_cast<Index>(threads_.size()); ++i) offer(i);
    threads_.clear();
  }
  void serve(Index i) {
    for (;;) {
      wait(offered(i), 0);
      if (!take(i)) continue;
      if (!work_) return;
      (*work_)(i);
      if (--left_.value == 0) left_.value.notify_one();
    }
  }

  const Index size_;
  std::optional<Work> work_;
  Number left_;  // shares that are not finished, but the caller's
  std::unique_ptr<Number[]> offers_;
  std::vector<std::jthread> threads_;
};

}  // namespace pylyap
