// Samples in the form that kernels read: arrays, or lists of the non-zero entries.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>

#include "buffer.hpp"
#include "lanes.hpp"

namespace pylyap {

// Units in a panel of the first layer for sparse data (sparse.hpp).
inline constexpr Index kPanel = 64;

// A number of the data, a double or a byte, with the index of its input or sample.
template <class T>
struct Entry {
  T value;
  std::uint16_t at;
};
inline constexpr Index kMaxIndex = std::numeric_limits<std::uint16_t>::max();

// v / 255, rounded once.
template <class N>
inline constexpr auto kGrey = [] {
  std::array<N, 256> values{};
  for (std::size_t v = 0; v < values.size(); ++v)
    values[v] = static_cast<N>(static_cast<double>(v) / 255.0);
  return values;
}();
// A number of the data in the precision of the kernels; bytes 0 ... 255 stand for 0 ... 1.
template <class N>
inline N number(double value) {
  return static_cast<N>(value);
}
template <class N>
inline N number(std::uint8_t value) {
  return kGrey<N>[value];
}
template <class T>
inline constexpr T kOne = std::is_same_v<T, std::uint8_t> ? 255 : 1;

// Rows of at most `capacity` entries.
template <class T>
class Lists {
 public:
  Lists() = default;
  // Rows are an odd number of cache lines apart, so that they do not map to the same cache sets.
  Lists(Index rows, Index capacity)
      : stride_(((capacity / kPerLine + 1) | 1) * kPerLine),
        entries_(rows * stride_),
        sizes_(rows) {}

  void clear(Index row) { sizes_[row] = 0; }
  void push(Index row, const Entry<T>& entry) { entries_[row * stride_ + sizes_[row]++] = entry; }
  std::span<const Entry<T>> operator[](Index row) const {
    return {entries_.data() + row * stride_, static_cast<std::size_t>(sizes_[row])};
  }

 private:
  static constexpr Index kPerLine = 64 / sizeof(Entry<T>);
  Index stride_ = 0;
  Buffer<Entry<T>> entries_;
  Buffer<Index> sizes_;
};

// Samples as entries, one sample after the other, and as lists by input.
template <class T>
struct Sparse {
  const Entry<T>* entries = nullptr;
  const Index* begin = nullptr;   // first entry of each sample
  std::span<const Index> chosen;  // the samples; all from `begin` on where it is empty
  const Lists<T>* of_inputs = nullptr;

  std::span<const Entry<T>> operator[](Index s) const {
    if (!chosen.empty()) s = chosen[static_cast<std::size_t>(s)];
    return {entries + begin[s], entries + begin[s + 1]};
  }
};

// Inputs (n_in + 1, stride) with a last row of ones; targets
// (n_out, stride), or one row of labels. `stride` is padded to whole registers.
template <class R>
struct BasicSamples {
  const R* inputs;
  const R* targets;
  Index stride;
  Index count;
  // Whether the arrays never change: what is computed from inputs alone can be kept.
  bool lasting = false;
  // In place of inputs if they are sparse: one of the two.
  Sparse<std::uint8_t> bytes{};
  Sparse<double> numbers{};

  template <class T>
  Sparse<T>& sparse() {
    if constexpr (std::is_same_v<T, double>) {
      return numbers;
    } else {
      return bytes;
    }
  }
  // Calls f with the entries.
  template <class F>
  void with_entries(F&& f) const {
    if (bytes.entries) {
      f(bytes);
    } else {
      f(numbers);
    }
  }
  BasicSamples slice(Index begin, Index size) const {
    return {inputs + begin, targets + begin, stride, std::min(size, count - begin), lasting};
  }
};
using Samples = BasicSamples<double>;

// The samples from which something was computed that holds as long as they do.
class KeptSamples {
 public:
  // Whether they are these; from now on they are.
  template <class R>
  bool has(const BasicSamples<R>& samples) {
    const bool same = samples.lasting && inputs_ == samples.inputs && count_ == samples.count;
    inputs_ = samples.inputs, count_ = samples.count;
    return same;
  }

 private:
  const void* inputs_ = nullptr;
  Index count_ = 0;
};

constexpr Index padded(Index count, Index unit = 8) { return (count + unit - 1) / unit * unit; }

}  // namespace pylyap
