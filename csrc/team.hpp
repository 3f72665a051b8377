// Threads that work inside one run: they share every step's columns. Which thread computes what
// never changes the numbers.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <vector>

#include "lanes.hpp"

namespace pylyap {

class Team {
 public:
  // Of `size` threads, the caller among them.
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

  // Calls f(begin, end, member) for equal shares of 0 ... count - 1, at once, and waits for all. A
  // share is a multiple of `unit`, so that register tiles stay whole. f must not throw.
  template <class F>
  void share(Index count, Index unit, F&& f) {
    const Index units = (count + unit - 1) / unit, members = std::min(size_, units);
    auto part = [&](Index member) {
      if (member >= members) return;
      const Index begin = units * member / members * unit;
      f(begin, std::min(units * (member + 1) / members * unit, count), member);
    };
    if (members <= 1) return part(0);
    using Part = decltype(part);
    call_ = [](void* context, Index member) { (*static_cast<Part*>(context))(member); };
    context_ = &part;
    start();
    part(0);
    for (auto left = working_.load(); left > 0; left = working_) wait(working_, left);
  }

 private:
  // Until the number is another one: at first awake, since most waits are shorter than waking up.
  static void wait(std::atomic<std::uint32_t>& number, std::uint32_t old) {
    constexpr int kLooks = 1000;
    for (int i = 0; i < kLooks; ++i) {
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
    call_ = nullptr;
    start();
    threads_.clear();
  }
  void serve(Index member) {
    for (std::uint32_t seen = 0;;) {
      wait(round_, seen);
      ++seen;
      if (!call_) return;
      call_(context_, member);
      if (--working_ == 0) working_.notify_one();
    }
  }

  const Index size_;
  void (*call_)(void*, Index) = nullptr;
  void* context_ = nullptr;
  std::atomic<std::uint32_t> round_ = 0, working_ = 0;
  std::vector<std::jthread> threads_;
};

}  // namespace pylyap
