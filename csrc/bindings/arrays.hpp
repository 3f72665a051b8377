// Arrays that cross the border to Python, their checks, and the allocation of results. Threads that
// share a result write their own runs of it in place.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "../cost.hpp"
#include "../group.hpp"
#include "../runs.hpp"

namespace pylyap::bindings {

namespace py = pybind11;

using Array = py::array_t<double, py::array::c_style>;  // with noconvert: never a silent copy
using Bytes = py::array_t<std::uint8_t, py::array::c_style>;
using Inputs = std::variant<Array, Bytes>;  // float64, or uint8 images
using Integers = py::array_t<std::int64_t, py::array::c_style>;
using Flag = py::array_t<std::int32_t, py::array::c_style>;
using Shape = std::vector<Index>;

inline void require(bool condition, const std::string& message) {
  if (!condition) throw py::value_error(message);
}

template <class A>
void require_shape(const A& array, const char* name, const Shape& shape) {
  bool same = array.ndim() == static_cast<Index>(shape.size());
  for (std::size_t i = 0; same && i < shape.size(); ++i)
    same = array.shape(static_cast<Index>(i)) == shape[i];
  if (same) return;
  std::string wanted, came;
  for (const Index s : shape) wanted += std::to_string(s) + ", ";
  for (Index i = 0; i < array.ndim(); ++i) came += std::to_string(array.shape(i)) + ", ";
  throw py::value_error(std::string(name) + " must have shape (" + wanted + "), got (" + came +
                        ")");
}

// The data of an optional array of this shape, or null.
inline const double* input(const std::optional<Array>& array, const char* name,
                           const Shape& shape) {
  if (!array) return nullptr;
  require_shape(*array, name, shape);
  return array->data();
}
template <class T>
T* output(py::array_t<T, py::array::c_style>& array, const char* name, const Shape& shape) {
  require_shape(array, name, shape);
  return array.mutable_data();  // refuses a read-only array
}
inline double* output(std::optional<Array>& array, const char* name, const Shape& shape) {
  return array ? output(*array, name, shape) : nullptr;
}

// Where a kernel writes an array of our own, or null.
inline double* data_or_null(std::optional<Array>& array) {
  return array ? array->mutable_data() : nullptr;
}

inline Index rows(const Array& array) {
  require(array.ndim() >= 1, "an array over runs must have at least one axis");
  return array.shape(0);
}

// Sizes of states (runs, n) with a frame each (runs, n, k).
struct FrameSize {
  FrameSize(const Array& x0, const Array& frame) {
    require(x0.ndim() == 2, "x0 must have shape (runs, n)");
    runs = x0.shape(0);
    n = x0.shape(1);
    require(frame.ndim() == 3 && frame.shape(2) >= 1 && frame.shape(2) <= n,
            "frame must have shape (runs, n, k), 1 <= k <= n");
    k = frame.shape(2);
    require_shape(frame, "frame", {runs, n, k});
  }
  Index runs, n, k;
};

// In pieces, between which Ctrl-C is noticed.
template <class T>
void fill(py::array_t<T, py::array::c_style>& array, T value) {
  constexpr Index kPiece = Index{1} << 20;
  T* to = array.mutable_data();
  for (Index left = array.size(); left > 0; left -= kPiece, to += kPiece) {
    std::fill_n(to, std::min(left, kPiece), value);
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
  }
}
template <class T>
py::array_t<T, py::array::c_style> filled(const Shape& shape, T value) {
  py::array_t<T, py::array::c_style> array(shape);
  fill(array, value);
  return array;
}

// Uninitialised arrays of one result. NumPy asks for huge pages from 4 MB on, and the first access
// to those costs a tenth: smaller arrays share one block.
class Allocation {
 public:
  void add(Array& array, const Shape& shape) { items_.push_back({&array, shape, size(shape)}); }
  void add(std::optional<Array>& array, const Shape& shape) { add(array.emplace(), shape); }

  void allocate() const {
    Index total = 0;
    for (const auto& item : items_) total += item.size < kHuge ? item.size : 0;
    const Array block(total);
    const double* next = block.data();
    for (const auto& [array, shape, size] : items_) {
      if (size < kHuge) {
        *array = Array(shape, next, block);
        next += size;
      } else {
        *array = Array(shape);
      }
    }
  }

 private:
  static constexpr Index kHuge = Index{1} << 19;  // numbers
  static Index size(const Shape& shape) {
    return std::accumulate(shape.begin(), shape.end(), Index{1}, std::multiplies<>());
  }
  struct Item {
    Array* array;
    Shape shape;
    Index size;
  };
  std::vector<Item> items_;
};

inline Method method_named(const std::string& name) {
  if (name == "auto") return Method::automatic;
  if (name == "dense") return Method::dense;
  require(name == "matrix-free", "method must be 'auto', 'dense' or 'matrix-free', got " + name);
  return Method::matrix_free;
}

// Arguments: an array that is taken as it is or refused, and one that may be None.
inline py::arg exact(const char* name) { return py::arg(name).noconvert(); }
inline py::arg maybe(const char* name) { return py::arg(name).noconvert().none(true); }

}  // namespace pylyap::bindings
