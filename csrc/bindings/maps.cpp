// Callable maps: functions of Python, or compiled by Numba.
#include <algorithm>
#include <cstdint>
#include <utility>

#include "../callable.hpp"
#include "../lockstep.hpp"
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

// The functions of a map: Python's or, all of them, addresses of compiled ones.
struct CallableMap {
  CallableMap(py::object step, py::object jacobian, py::object tangent, py::object loss)
      : step(std::move(step)),
        jacobian(std::move(jacobian)),
        tangent(std::move(tangent)),
        loss(std::move(loss)) {
    require(this->jacobian.is_none() != this->tangent.is_none(),
            "one of jacobian and tangent must be None");
    require(py::isinstance<py::int_>(this->step) == py::isinstance<py::int_>(this->jacobian),
            "step and jacobian must both be compiled or neither");
  }

  // Calls f(callable, lanes) for states of length n, without the GIL if the functions are compiled.
  template <class F>
  void with_functions(Index n, F&& f) const {
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

  const py::object step, jacobian, tangent, loss;
};

void spectrum_of_map(const CallableMap& map, SpectrumRuns& runs, const Task& task) {
  const auto these = task.of(runs.size.runs);
  const SpectrumOutput out = runs.output();
  map.with_functions(runs.size.n, [&](const Callable& functions, bool lanes) {
    pylyap::spectrum(functions, lanes, runs.plan, runs.size.n, runs.size.k, runs.x0.data(), out,
                     these);
  });
}

void covariant_of_map(const CallableMap& map, CovariantRuns& runs, const Task& task) {
  const auto these = task.of(runs.size.runs);
  const CovariantOutput out = runs.output();
  map.with_functions(runs.size.n, [&](const Callable& functions, bool lanes) {
    pylyap::covariant(functions, lanes, runs.plan, runs.size.n, runs.size.k, runs.x0.data(),
                      runs.start_frame.data(), runs.end_coefficients.data(), out, these);
  });
}

// A Lockstep that writes to `runs`. It fills them with the results of runs that diverge at once.
class LockstepRuns {
 public:
  explicit LockstepRuns(SpectrumRuns& runs)
      : runs_(runs), lockstep_(runs.plan, runs.size.runs, runs.size.n, runs.size.k) {
    fill(runs.growth, kNan);
    fill(runs.loss, kNan);
    fill(runs.n_done, std::int64_t{runs.plan.n_steps});
    if (runs.plan.n_transient == 0) fill(runs.transient_growth, 0.0);
  }

  void take(Index step, const Array& states, const Array& pushed,
            const std::optional<Array>& source, const Task& task) {
    const auto [runs, n, k] = runs_.size;
    require(step >= 0 && step < runs_.plan.n_transient + runs_.plan.n_steps,
            "step must be one of the plan");
    require_shape(states, "states", {runs, n});
    require_shape(pushed, "pushed", {runs, n, k});
    const double *x = states.data(), *v = pushed.data(),
                 *sizes = input(source, "source", {runs, k});
    const auto these = task.of(runs);
    const SpectrumOutput out = runs_.output();
    const py::gil_scoped_release unlocked;
    lockstep_.take(step, x, v, sizes, out, these);
  }

 private:
  SpectrumRuns& runs_;
  Lockstep lockstep_;
};

}  // namespace

void register_maps(py::module_& m) {
  py::class_<CallableMap>(m, "CallableMap")
      .def(py::init<py::object, py::object, py::object, py::object>(), py::arg("step"),
           py::arg("jacobian"), py::arg("tangent"), py::arg("loss"))
      .def("spectrum", &spectrum_of_map, py::arg("runs"), py::arg("task"))
      .def("covariant", &covariant_of_map, py::arg("runs"), py::arg("task"))
      .def_static("group", [](Index n) { return group_size(n); }, py::arg("n"));

  py::class_<LockstepRuns>(m, "Lockstep")
      .def(py::init<SpectrumRuns&>(), py::arg("runs"), py::keep_alive<1, 2>())
      .def("take", &LockstepRuns::take, py::arg("step"), exact("states"), exact("pushed"),
           maybe("source"), py::arg("task"));
}

}  // namespace pylyap::bindings
