// Aligned storage.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <new>

#include "lanes.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace pylyap {

// An owned, zeroed, cache-line-aligned array. Kernels use no other memory, and allocate before
// their loops. Large arrays request huge pages: fewer page faults at first, fewer TLB misses later.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(Index size) : size_(size) {
    const auto bytes = static_cast<std::size_t>(size > 0 ? size : 1) * sizeof(T) + kMargin;
    const std::align_val_t alignment{bytes < kLargePage ? 64 : kLargePage};
    data_ = {static_cast<T*>(::operator new(bytes, alignment)), Free{alignment}};
#if defined(__linux__)
    if (bytes >= kLargePage) madvise(data_.get(), bytes, MADV_HUGEPAGE);
#endif
    std::memset(static_cast<void*>(data_.get()), 0, bytes);
  }
  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  T& operator[](Index i) { return data_.get()[i]; }
  const T& operator[](Index i) const { return data_.get()[i]; }
  Index size() const { return size_; }

 private:
  // Register tiles may read this far past the end.
  static constexpr std::size_t kMargin = 4 * sizeof(Lane);
  static constexpr std::size_t kLargePage = std::size_t{1} << 21;
  struct Free {
    std::align_val_t alignment;
    void operator()(T* p) const { ::operator delete(static_cast<void*>(p), alignment); }
  };
  std::unique_ptr<T, Free> data_;
  Index size_ = 0;
};

}  // namespace pylyap
