// Maps of the user's own: compiled functions, or Python's.
#include <algorithm>
#include <cstdint>
#include <string>

#include "../callable.hpp"
#include "../runs.hpp"
#include "arrays.hpp"
#include "frames.hpp"
#include "register.hpp"

namespace pylyap::bindings {

namespace {

// Compiled functions: int64(const double* x, double* out), whose codes are those of a Callable.
struct CompiledMap {
  using Function = std::int64_t (*)(const double*, double*);
  Function step, jacobian;

  static CompiledMap& self(void* context) { return *static_cast<CompiledMap*>(context); }
  Callable calls() {
    return {this,
            [](void* c, const double* x, Index, double* next) { return self(c).step(x, next); },
            [](void* c, const double* x, Index, double* out) { return self(c).jacobian(x, out); },
            nullptr, nullptr};
  }
};

// Called with the GIL held.
struct PythonMap {
  Index n;
  py::object step, jacobian, tangent, loss;  // the last three may be None

  static PythonMap& self(void* context) { return *static_cast<PythonMap*>(context); }
  static Array array(const double* from, const Shape& shape) {
    Array made(shape);
    std::copy_n(from, made.size(), made.mutable_data());
    return made;
  }
  static std::int64_t take(const py::object& result, const char* name, const Shape& shape,
                           double* to) {
    const auto values = py::cast<Array>(result);
    require_shape(values, name, shape);
    std::copy_n(values.data(), values.size(), to);
    return 0;
  }
  Callable calls() {
    return {this,
            [](void* c, const double* x, Index t, double* next) {
              auto& m = self(c);
              return take(m.step(array(x, {m.n}), t), "step(x)", {m.n}, next);
            },
            jacobian.is_none() ? nullptr
                               : +[](void* c, const double* x, Index t, double* out) {
                                   auto& m = self(c);
                                   return take(m.jacobian(array(x, {m.n}), t), "jacobian(x)",
                                               {m.n, m.n}, out);
                                 },
            tangent.is_none() ? nullptr
                              : +[](void* c, const double* x, const double* V, Index k, Index t,
                                    double* out) {
                                  auto& m = self(c);
                                  return take(m.tangent(array(x, {m.n}), array(V, {m.n, k}), t),
                                              "tangent(x, V)", {m.n, k}, out);
                                },
            loss.is_none() ? nullptr : +[](void* c, const double* x) {
              auto& m = self(c);
              return py::cast<double>(m.loss(array(x, {m.n})));
            }};
  }
};

// Calls f(callable, lanes), without the GIL if the functions are addresses of compiled ones.
template <class F>
void with_map(Index n, const py::object& step, const py::object& jacobian,
              const py::object& tangent, const py::object& loss, F&& f) {
  require(jacobian.is_none() != tangent.is_none(), "one of jacobian and tangent must be None");
  if (py::isinstance<py::int_>(step)) {
    auto address = [](const py::object& number) {
      return reinterpret_cast<CompiledMap::Function>(py::cast<std::uintptr_t>(number));
    };
    CompiledMap map{address(step), address(jacobian)};
    const py::gil_scoped_release unlocked;
    f(map.calls(), true);
  } else {
    PythonMap map{n, step, jacobian, tangent, loss};
    f(map.calls(), false);
  }
}

void spectrum_of_map(const SpectrumRuns& runs, py::object step, py::object jacobian,
                     py::object tangent, py::object value, Flag cancel, Integers done, Index first,
                     Index count) {
  const Task task = task_of(runs, cancel, done, 1, first, count);
  with_map(runs.n, step, jacobian, tangent, value, [&](const Callable& map, bool lanes) {
    spectrum(map, lanes, runs.plan, runs.n, runs.k, runs.from, runs.out, task);
  });
}

void covariant_of_map(const CovariantRuns& runs, py::object step, py::object jacobian,
                      py::object tangent, Flag cancel, Integers done, Index first, Index count) {
  const Task task = task_of(runs, cancel, done, 1, first, count);
  with_map(runs.n, step, jacobian, tangent, py::none(), [&](const Callable& map, bool lanes) {
    covariant(map, lanes, runs.plan, runs.n, runs.k, runs.from, runs.start_frame, runs.far_end,
              runs.out, task);
  });
}

}  // namespace

void register_maps(py::module_& m) {
  m.def("spectrum_of_map", &spectrum_of_map, py::arg("runs"), py::arg("step"), py::arg("jacobian"),
        py::arg("tangent"), py::arg("value"), exact("cancel"), exact("done"), py::arg("first"),
        py::arg("count"));
  m.def("covariant_of_map", &covariant_of_map, py::arg("runs"), py::arg("step"),
        py::arg("jacobian"), py::arg("tangent"), exact("cancel"), exact("done"), py::arg("first"),
        py::arg("count"));
  m.def("group_of_map", [](Index n) { return group_size(n); }, py::arg("n"));
}

}  // namespace pylyap::bindings
