// Arrays that cross the border to Python, and the checks of what comes in. Arrays that come back
// are allocated by the caller and written in place, so that threads share them.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

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
using Inputs = std::variant<Array, Bytes>;  // numbers, or pictures
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

inline void require_range(Index first, Index count, Index runs) {
  require(first >= 0 && count >= 1 && first + count <= runs,
          "first and count must lie within the runs");
}

inline Index rows(const Array& array) {
  require(array.ndim() >= 1, "an array over runs must have at least one axis");
  return array.shape(0);
}

// Checks states (runs, n) and frames (runs, n, k), and says n and k.
inline void frame_of_runs(const Array& states, const Array& frame, Index& n, Index& k) {
  require(states.ndim() == 2, "states must have shape (runs, n)");
  n = states.shape(1);
  require(frame.ndim() == 3 && frame.shape(2) >= 1 && frame.shape(2) <= n,
          "frame must have shape (runs, n, k), 1 <= k <= n");
  k = frame.shape(2);
  require_shape(frame, "frame", {states.shape(0), n, k});
}

inline RateArrays rate_arrays(const Array& lr, const Array& momentum, const Array& decay,
                              Index runs) {
  require_shape(lr, "lr", {runs});
  require_shape(momentum, "momentum", {runs});
  require_shape(decay, "weight_decay", {runs});
  return {lr.data(), momentum.data(), decay.data()};
}

inline Control control(Flag& cancel) {
  require_shape(cancel, "cancel", {1});
  return {cancel.mutable_data(), nullptr};
}
inline Control control(Flag& cancel, Integers& done) {
  require_shape(cancel, "cancel", {1});
  require_shape(done, "done", {1});
  return {cancel.mutable_data(), done.mutable_data()};
}

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
