// The border to Python: refuse, check, allocate, release the GIL, call. The only file that knows
// Python. Arrays that come back are allocated by the caller and written in place, for the runs
// first ... first + count - 1, so that threads share them.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <tuple>
#include <variant>
#include <vector>

#include "callable.hpp"
#include "covariant.hpp"
#include "elementary.hpp"
#include "group.hpp"
#include "growth.hpp"
#include "network.hpp"
#include "orthonormalise.hpp"
#include "pointwise.hpp"
#include "problem.hpp"
#include "spectrum.hpp"
#include "step.hpp"

namespace py = pybind11;
using pylyap::Index;
using pylyap::Lane;

namespace {

using Array = py::array_t<double, py::array::c_style>;  // with noconvert: never a silent copy
using Bytes = py::array_t<std::uint8_t, py::array::c_style>;
using Inputs = std::variant<Array, Bytes>;  // numbers, or pictures
using Integers = py::array_t<std::int64_t, py::array::c_style>;
using Flag = py::array_t<std::int32_t, py::array::c_style>;
using Shape = std::vector<Index>;

void require(bool condition, const std::string& message) {
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
const double* input(const std::optional<Array>& array, const char* name, const Shape& shape) {
  if (!array) return nullptr;
  require_shape(*array, name, shape);
  return array->data();
}
template <class T>
T* output(py::array_t<T, py::array::c_style>& array, const char* name, const Shape& shape) {
  require_shape(array, name, shape);
  return array.mutable_data();  // refuses a read-only array
}
double* output(std::optional<Array>& array, const char* name, const Shape& shape) {
  return array ? output(*array, name, shape) : nullptr;
}

void require_range(Index first, Index count, Index runs) {
  require(first >= 0 && count >= 1 && first + count <= runs,
          "first and count must lie within the runs");
}

Index rows(const Array& array) {
  require(array.ndim() >= 1, "an array over runs must have at least one axis");
  return array.shape(0);
}

// Checks states (runs, n) and frames (runs, n, k), and says n and k.
void frame_of_runs(const Array& states, const Array& frame, Index& n, Index& k) {
  require(states.ndim() == 2, "states must have shape (runs, n)");
  n = states.shape(1);
  require(frame.ndim() == 3 && frame.shape(2) >= 1 && frame.shape(2) <= n,
          "frame must have shape (runs, n, k), 1 <= k <= n");
  k = frame.shape(2);
  require_shape(frame, "frame", {states.shape(0), n, k});
}

pylyap::RateArrays rate_arrays(const Array& lr, const Array& momentum, const Array& decay,
                               Index runs) {
  require_shape(lr, "lr", {runs});
  require_shape(momentum, "momentum", {runs});
  require_shape(decay, "weight_decay", {runs});
  return {lr.data(), momentum.data(), decay.data()};
}

pylyap::Control control(Flag& cancel) {
  require_shape(cancel, "cancel", {1});
  return {cancel.mutable_data(), nullptr};
}
pylyap::Control control(Flag& cancel, Integers& done) {
  require_shape(cancel, "cancel", {1});
  require_shape(done, "done", {1});
  return {cancel.mutable_data(), done.mutable_data()};
}

pylyap::Method method_named(const std::string& name) {
  if (name == "auto") return pylyap::Method::automatic;
  if (name == "dense") return pylyap::Method::dense;
  require(name == "matrix-free", "method must be 'auto', 'dense' or 'matrix-free', got " + name);
  return pylyap::Method::matrix_free;
}

// Calls f(group) for every group of runs.
template <class S, class F>
void each_group(Index first, Index count, F&& f) {
  for (Index r = first; r < first + count; r += pylyap::kWidth<S>)
    f(pylyap::Group<S>{r, std::min(pylyap::kWidth<S>, first + count - r)});
}

// Calls call(worker, group) for every group of runs, in the scalar type the net asks for. `make`
// builds the worker once per call.
template <class Make, class Call>
void over_groups(const pylyap::Architecture& arch, Index first, Index count, Make make, Call call) {
  auto loop = [&]<class S>(S) {
    auto worker = make(S{});
    each_group<S>(first, count, [&](const auto& group) { call(worker, group); });
  };
  if (pylyap::fits_lanes(arch)) {
    loop(Lane{});
  } else {
    loop(0.0);
  }
}
// The same in the precision that the problem asks for; `single` false insists on double.
template <class Make, class Call>
void over_groups(const pylyap::Problem& problem, bool single, Index first, Index count, Make make,
                 Call call) {
  if (!single) return over_groups(problem.arch, first, count, make, call);
  auto worker = make(0.0F);
  each_group<float>(first, count, [&](const auto& group) { call(worker, group); });
}

// The named row of the table.
const pylyap::Activation& activation_named(const std::string& name) {
  const auto* found = std::find_if(pylyap::kActivations.begin(), pylyap::kActivations.end(),
                                   [&](const auto& a) { return a.name == name; });
  require(found != pylyap::kActivations.end(), "unknown activation " + name);
  return *found;
}

// A name, or the addresses of a user's two compiled loops and the object that owns them.
using NameOrCode =
    std::variant<std::string, std::tuple<std::uintptr_t, std::uintptr_t, py::object>>;

pylyap::Activation activation_from(const NameOrCode& item) {
  if (const auto* name = std::get_if<std::string>(&item)) return activation_named(*name);
  const auto& [value_slope, curvature, owner] = std::get<1>(item);
  require(value_slope && curvature, "an activation's address must not be null");
  pylyap::UserActivation user;
  user.value_slope = reinterpret_cast<decltype(user.value_slope)>(value_slope);
  user.curvature = reinterpret_cast<decltype(user.curvature)>(curvature);
  return pylyap::Activation(user);
}

pylyap::Architecture make_network(const std::vector<Index>& layers,
                                  const std::vector<NameOrCode>& activations,
                                  const std::string& loss) {
  require(layers.size() >= 2, "layers must have at least an input and an output");
  for (const Index width : layers) require(width >= 1, "layers must be widths of at least 1");
  require(activations.size() + 2 == layers.size(), "activations must name every hidden layer");
  std::vector<pylyap::Activation> table;
  for (const auto& item : activations) table.push_back(activation_from(item));
  auto kind = pylyap::Loss::mse;
  if (loss == "cross_entropy") kind = pylyap::Loss::cross_entropy;
  if (loss == "cross_entropy_clipped") kind = pylyap::Loss::cross_entropy_clipped;
  require(kind != pylyap::Loss::mse || loss == "mse", "unknown loss " + loss);
  return {layers, table, kind};
}

pylyap::Data make_data(const pylyap::Architecture& arch, const Inputs& X, const double* targets,
                       Index n_targets, bool by_columns) {
  return std::visit(
      [&](const auto& array) {
        const Index samples = array.shape(0);
        if constexpr (std::is_same_v<std::decay_t<decltype(array)>, Array>) {
          return pylyap::Data(arch, array.data(), targets, samples, n_targets, by_columns);
        } else {
          return pylyap::Data(arch, array.data(), targets, samples, n_targets);
        }
      },
      X);
}

// Checks inputs (n_samples, n_inputs) and says how many samples there are.
Index samples_of(const Inputs& X, Index n_inputs) {
  return std::visit(
      [&](const auto& array) {
        require(array.ndim() == 2 && array.shape(0) > 0, "X must have shape (n_samples, n_inputs)");
        require_shape(array, "X", {array.shape(0), n_inputs});
        return array.shape(0);
      },
      X);
}

// Wide nets leave out the inputs that are zero in all of the data, as pixels at the border are, and
// multiply what is not zero alone where that is little.
pylyap::Architecture for_data(const pylyap::Architecture& arch, const Inputs& X) {
  if (pylyap::fits_lanes(arch)) return arch;
  std::vector<bool> live(static_cast<std::size_t>(arch.width(0)));
  Index entries = 0, samples = 0;
  std::visit(
      [&](const auto& array) {
        const auto* x = array.data();
        samples = array.shape(0);
        for (Index s = 0; s < samples; ++s)
          for (std::size_t i = 0; i < live.size(); ++i, ++x)
            if (*x != 0) {
              live[i] = true;
              ++entries;
            }
      },
      X);
  const Index all = samples * std::count(live.begin(), live.end(), true);
  return arch.for_data(live, pylyap::mostly_zero(arch, entries, all));
}

void predict(const pylyap::Architecture& arch, const Array& weights, const Inputs& X, Array out,
             Flag cancel, Index first, Index count) {
  const Index runs = rows(weights), samples = samples_of(X, arch.width(0));
  require_range(first, count, runs);
  require_shape(weights, "weights", {runs, arch.n_params});
  require_shape(out, "out", {runs, samples, arch.outputs()});
  const double* w = weights.data();
  double* target = out.mutable_data();
  const auto signal = control(cancel);
  const py::gil_scoped_release unlocked;
  const pylyap::Data data = make_data(arch, X, nullptr, 0, true);
  over_groups(
      arch, first, count, [&]<class S>(S) { return pylyap::Prediction<S>(arch, data); },
      [&](auto& worker, const auto& group) { worker.run(group, w, target, signal); });
}

pylyap::Problem make_problem(const pylyap::Architecture& arch, const Inputs& X,
                             const Array& targets, bool adam, bool momentum, bool nesterov,
                             double beta1, double beta2, double epsilon, Index batch_size,
                             bool shuffle, std::uint64_t seed, bool single) {
  const Index samples = samples_of(X, arch.width(0));
  const Index columns = arch.classifies() ? 1 : arch.outputs();
  require_shape(targets, "targets", {samples, columns});
  require(batch_size >= 1 && batch_size <= samples, "batch_size must be in 1 ... n_samples");
  if (arch.classifies()) {
    for (Index s = 0; s < samples; ++s) {
      const double label = targets.data()[s];
      require(
          label >= 0 && label < static_cast<double>(arch.outputs()) && label == std::floor(label),
          "labels must be integers below the number of outputs");
    }
  }
  const py::gil_scoped_release unlocked;
  const pylyap::Architecture own = for_data(arch, X);
  return {own,
          make_data(own, X, targets.data(), columns, batch_size == samples && !single),
          {adam, momentum, nesterov, beta1, beta2, epsilon},
          {samples, batch_size, shuffle, seed},
          single,
          {}};
}

void evaluate(const pylyap::Problem& problem, const Array& weights, std::optional<Array> loss,
              std::optional<Array> gradient, std::optional<Array> hessian, Flag cancel,
              Index members, Index first, Index count) {
  const Index runs = rows(weights), np = problem.n_params();
  require_range(first, count, runs);
  require_shape(weights, "weights", {runs, np});
  const double* w = weights.data();
  double* l = output(loss, "loss", {runs});
  double* g = output(gradient, "gradient", {runs, np});
  double* h = output(hessian, "hessian", {runs, np, np});
  const auto signal = control(cancel);
  const py::gil_scoped_release unlocked;
  pylyap::Team team(members);
  over_groups(
      problem, problem.single && !h, first, count,
      [&]<class S>(S) { return pylyap::Evaluation<S>(problem, h != nullptr, team); },
      [&](auto& worker, const auto& group) {
        if (!signal.cancelled()) worker.run(group, w, l, g, h);
      });
}

// Products of the Hessian of the mean loss of all data with vectors, for states of weights alone.
void hessian_vectors(const pylyap::Problem& problem, const Array& weights, const Array& vectors,
                     Array out, Flag cancel, Index members, Index first, Index count) {
  const Index runs = rows(weights), n = problem.n_params();
  require_range(first, count, runs);
  require(problem.n() == n, "the optimiser must have no buffers");
  require_shape(weights, "weights", {runs, n});
  require(vectors.ndim() == 3 && vectors.shape(2) >= 1, "vectors must have shape (runs, n, k)");
  const Index k = vectors.shape(2);
  require_shape(vectors, "vectors", {runs, n, k});
  require_shape(out, "out", {runs, n, k});
  const double *w = weights.data(), *v = vectors.data();
  double* target = out.mutable_data();
  const auto signal = control(cancel);
  const py::gil_scoped_release unlocked;
  pylyap::Team team(members);
  over_groups(
      problem.arch, first, count,
      [&]<class S>(S) { return pylyap::Curvature<S>(problem, k, team); },
      [&](auto& worker, const auto& group) {
        if (!signal.cancelled()) worker.run(group, w, v, target);
      });
}

void one_step(const pylyap::Problem& problem, const Array& states, const Array& lr,
              const Array& momentum, const Array& decay, Index t, std::optional<Array> vectors,
              const std::string& method, std::optional<Array> next, std::optional<Array> out,
              Flag cancel, Index members, Index first, Index count) {
  const Index runs = rows(states), n = problem.n();
  require_range(first, count, runs);
  require_shape(states, "states", {runs, n});
  require(t >= 0, "t must be >= 0");
  require(!vectors || vectors->ndim() == 3, "vectors must have shape (runs, n, k)");
  const Index k = vectors ? vectors->shape(2) : 0;
  const auto rates = rate_arrays(lr, momentum, decay, runs);
  const auto how = method_named(method);
  require(!problem.single || k == 0 || !next, "a step in single precision has no tangent");
  const double *x = states.data(), *v = input(vectors, "vectors", {runs, n, k});
  double* x1 = output(next, "next", {runs, n});
  double* v1 = output(out, "out", {runs, n, k});
  const auto signal = control(cancel);
  const py::gil_scoped_release unlocked;
  pylyap::Team team(members);
  over_groups(
      problem, problem.single && k == 0, first, count,
      [&]<class S>(S) { return pylyap::OneStep<S>(problem, k, how, team); },
      [&](auto& worker, const auto& group) {
        if (!signal.cancelled()) worker.run(group, x, rates, t, v, x1, v1);
      });
}

void trajectory(const pylyap::Problem& problem, const Array& states, const Array& lr,
                const Array& momentum, const Array& decay, Index start, Index n_steps, Index every,
                Array out, Flag cancel, Integers done, Index members, Index first, Index count) {
  const Index runs = rows(states), n = problem.n();
  require_range(first, count, runs);
  require(start >= 0 && n_steps >= 0 && every >= 1, "start, n_steps >= 0 and every >= 1");
  require_shape(states, "states", {runs, n});
  require_shape(out, "out", {runs, n_steps / every + 1, n});
  const auto rates = rate_arrays(lr, momentum, decay, runs);
  const auto signal = control(cancel, done);
  const double* x = states.data();
  double* target = out.mutable_data();
  const py::gil_scoped_release unlocked;
  pylyap::Team team(members);
  over_groups(
      problem, problem.single, first, count,
      [&]<class S>(S) { return pylyap::Trajectory<S>(problem, team); },
      [&](auto& worker, const auto& group) {
        worker.run(group, x, rates, start, n_steps, every, target, signal);
      });
}

// Frames that travel with runs: the plan and the arrays, checked and kept alive; a training and a
// map of the user's own share them.
struct SpectrumRuns {
  SpectrumRuns(const Array& states, Index start, Index n_transient, Index n_steps, Index qr_every,
               Index record_every, Array frame, Array growth, Array loss, Array state,
               Integers status, Integers n_done, Index segment, std::optional<Array> products,
               std::optional<Array> exponents)
      : plan{start, n_transient, n_steps, qr_every, record_every, segment}, runs(rows(states)) {
    require(start >= 0 && n_transient >= 0 && n_steps >= 1 && qr_every >= 1 && record_every >= 1,
            "steps must be positive");
    require(n_steps % record_every == 0 && record_every % qr_every == 0,
            "n_steps must be a multiple of record_every, and that of qr_every");
    require(segment >= 0 && (segment == 0 || (n_steps % segment == 0 && segment % qr_every == 0)),
            "segment must divide n_steps and be a multiple of qr_every");
    require(segment == 0 || (products && exponents), "a segment needs products and exponents");
    frame_of_runs(states, frame, n, k);
    const Index records = n_steps / record_every, segments = segment > 0 ? n_steps / segment : 0;
    from = states.data();
    out = {output(growth, "growth", {runs, records, k}),
           output(loss, "loss", {runs, records + 1}),
           output(state, "state", {runs, n}),
           output(frame, "frame", {runs, n, k}),
           output(status, "status", {runs}),
           output(n_done, "n_done", {runs}),
           output(products, "products", {runs, segments, k, k}),
           output(exponents, "exponents", {runs, segments, k})};
    kept = {states, frame, growth, loss, state, status, n_done};
    for (const auto& array : {products, exponents})
      if (array) kept.push_back(*array);
  }

  pylyap::SpectrumPlan plan;
  pylyap::SpectrumOutput out;
  const double* from;
  Index runs, n, k;
  std::vector<py::object> kept;
};

struct CovariantRuns {
  CovariantRuns(const Array& states, Index start, Index n_transient, Index n_steps, Index n_tail,
                Index qr_every, Index every, Index delay, Index segment, const Array& frame,
                const Array& far, std::optional<Array> vectors, Array coefficients, Array path,
                Array growth, Array aligned, Array residual, std::optional<Array> early_vectors,
                std::optional<Array> early_coefficients, std::optional<Array> early_error,
                Integers status, Integers n_done)
      : plan{start, n_transient, n_steps, n_tail, qr_every, every, delay, segment},
        runs(rows(states)) {
    require(start >= 0 && n_transient >= 0 && n_steps >= 1 && n_tail >= 0 && qr_every >= 1 &&
                every >= 1 && segment >= 1,
            "steps must be positive");
    require(n_steps % every == 0 && every % qr_every == 0 && n_transient % qr_every == 0 &&
                n_tail % qr_every == 0,
            "every must divide n_steps, and qr_every all steps");
    require(delay >= 0 && delay <= n_tail && delay % qr_every == 0,
            "delay must be a multiple of qr_every and at most n_tail");
    require(delay == 0 || (early_coefficients && early_error), "a delay needs early arrays");
    frame_of_runs(states, frame, n, k);
    require_shape(far, "far", {k, k});
    const Index times = n_steps / every + 1;
    from = states.data();
    start_frame = frame.data();
    far_end = far.data();
    out = {output(vectors, "vectors", {runs, times, n, k}),
           output(coefficients, "coefficients", {runs, times, k, k}),
           output(path, "path", {runs, times, n}),
           output(growth, "growth", {runs, times - 1, k}),
           output(aligned, "aligned", {runs, times - 1, k}),
           output(residual, "residual", {runs, times - 1, k}),
           output(early_vectors, "early_vectors", {runs, times, n, k}),
           output(early_coefficients, "early_coefficients", {runs, times, k, k}),
           output(early_error, "early_error", {runs, times, k}),
           output(status, "status", {runs}),
           output(n_done, "n_done", {runs})};
    kept = {states, frame, far, coefficients, path, growth, aligned, residual, status, n_done};
    for (const auto& array : {vectors, early_vectors, early_coefficients, early_error})
      if (array) kept.push_back(*array);
  }

  pylyap::CovariantPlan plan;
  pylyap::CovariantOutput out;
  const double *from, *start_frame, *far_end;
  Index runs, n, k;
  std::vector<py::object> kept;
};

// Drives `Worker<Training>` over groups of runs: run(worker, group) for each.
template <template <class> class Worker, class Runs, class F>
void over_trainings(const pylyap::Problem& problem, const Runs& runs, const Array& lr,
                    const Array& momentum, const Array& decay, const std::string& method,
                    const pylyap::Control& signal, Index members, Index first, Index count,
                    F&& run) {
  require(runs.n == problem.n(), "runs must be states of this training");
  require_range(first, count, runs.runs);
  const auto rates = rate_arrays(lr, momentum, decay, runs.runs);
  const auto how = method_named(method);
  const py::gil_scoped_release unlocked;
  pylyap::Team team(members);
  over_groups(
      problem.arch, first, count,
      [&]<class S>(S) {
        return Worker<pylyap::Training<S>>(
            [&] { return pylyap::Training<S>(problem, runs.k, how, team); }, runs.plan);
      },
      [&](auto& worker, const auto& group) {
        worker.map().rates() = group.rates(rates);
        if (!signal.cancelled()) run(worker, group);
      });
}

void spectrum(const pylyap::Problem& problem, const SpectrumRuns& runs, const Array& lr,
              const Array& momentum, const Array& decay, const std::string& method, Flag cancel,
              Integers done, Index members, Index first, Index count) {
  const auto signal = control(cancel, done);
  over_trainings<pylyap::Benettin>(
      problem, runs, lr, momentum, decay, method, signal, members, first, count,
      [&](auto& worker, const auto& group) { worker.run(group, runs.from, runs.out, signal); });
}

void covariant(const pylyap::Problem& problem, const CovariantRuns& runs, const Array& lr,
               const Array& momentum, const Array& decay, const std::string& method, Flag cancel,
               Integers done, Index members, Index first, Index count) {
  const auto signal = control(cancel, done);
  over_trainings<pylyap::Ginelli>(problem, runs, lr, momentum, decay, method, signal, members,
                                  first, count, [&](auto& worker, const auto& group) {
                                    worker.run(group, runs.from, runs.start_frame, runs.far_end,
                                               runs.out, signal);
                                  });
}

// --- maps of the user's own ---

// Compiled functions: int64(const double* x, double* out), whose codes are those of a Callable.
struct CompiledMap {
  using Function = std::int64_t (*)(const double*, double*);
  Function step, jacobian;

  static CompiledMap& self(void* context) { return *static_cast<CompiledMap*>(context); }
  pylyap::Callable calls() {
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
  pylyap::Callable calls() {
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

// Runs of a compiled map that are worked on at once.
Index group_of_map(Index n) { return n <= pylyap::kMostInLanes ? pylyap::kLanes : 1; }

// Calls f(map, S{}), without the GIL if its functions are addresses of compiled ones.
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
    if (group_of_map(n) > 1) return f(map.calls(), Lane{});
    f(map.calls(), 0.0);
  } else {
    PythonMap map{n, step, jacobian, tangent, loss};
    f(map.calls(), 0.0);
  }
}

// Drives `Worker<CallableMap>` over groups of runs: run(worker, group) for each.
template <template <class> class Worker, class Runs, class F>
void over_callables(const Runs& runs, const py::object& step, const py::object& jacobian,
                    const py::object& tangent, const py::object& loss,
                    const pylyap::Control& signal, Index first, Index count, F&& run) {
  require_range(first, count, runs.runs);
  with_map(runs.n, step, jacobian, tangent, loss, [&]<class S>(const pylyap::Callable& calls, S) {
    using Map = pylyap::CallableMap<S>;
    Worker<Map> worker([&] { return Map(calls, runs.n, runs.k); }, runs.plan);
    each_group<S>(first, count, [&](const auto& group) {
      worker.map().set_count(group.count);
      if (!signal.cancelled()) run(worker, group);
    });
  });
}

void spectrum_of_map(const SpectrumRuns& runs, py::object step, py::object jacobian,
                     py::object tangent, py::object value, Flag cancel, Integers done, Index first,
                     Index count) {
  const auto signal = control(cancel, done);
  over_callables<pylyap::Benettin>(
      runs, step, jacobian, tangent, value, signal, first, count,
      [&](auto& worker, const auto& group) { worker.run(group, runs.from, runs.out, signal); });
}

void covariant_of_map(const CovariantRuns& runs, py::object step, py::object jacobian,
                      py::object tangent, Flag cancel, Integers done, Index first, Index count) {
  const auto signal = control(cancel, done);
  over_callables<pylyap::Ginelli>(runs, step, jacobian, tangent, py::none(), signal, first, count,
                                  [&](auto& worker, const auto& group) {
                                    worker.run(group, runs.from, runs.start_frame, runs.far_end,
                                               runs.out, signal);
                                  });
}

Integers batch(const pylyap::Problem& problem, Index t) {
  require(t >= 0, "t must be >= 0");
  pylyap::Batches batches(problem.batches);
  const auto chosen = batches(t);
  Integers out(static_cast<Index>(chosen.size()));
  std::copy(chosen.begin(), chosen.end(), out.mutable_data());
  return out;
}

std::string method_of(const pylyap::Problem& problem, Index k, const std::string& asked) {
  const auto method =
      pylyap::choose_method(problem.arch, problem.batches.batch_size, k, method_named(asked));
  return method == pylyap::Method::dense ? "dense" : "matrix-free";
}

// Multiplications of one step of one run with k tangent vectors.
double cost(const pylyap::Problem& problem, Index k, const std::string& asked) {
  require(k >= 0, "k must be >= 0");
  const Index samples = problem.batches.batch_size;
  const auto method = pylyap::choose_method(problem.arch, samples, k, method_named(asked));
  return pylyap::step_cost(problem.arch, samples, k, method);
}

// frame (n, k) = Q R; returns Q (n, k), diag R (k) and R (k, k).
py::tuple orthonormalise(const Array& frame, const std::optional<Array>& scale) {
  require(frame.ndim() == 2 && frame.shape(1) >= 1 && frame.shape(0) >= frame.shape(1),
          "frame must have shape (n, k), 1 <= k <= n");
  const Index n = frame.shape(0), k = frame.shape(1);
  const double *from = frame.data(), *size = input(scale, "scale", {k});
  Array q({n, k}), norms(k), r({k, k});
  double *to = q.mutable_data(), *diagonal = norms.mutable_data(), *all = r.mutable_data();
  {
    const py::gil_scoped_release unlocked;
    pylyap::Buffer<double> columns(k * n);
    for (Index i = 0; i < n; ++i)
      for (Index c = 0; c < k; ++c) columns[c * n + i] = from[i * k + c];
    pylyap::Orthonormaliser<double>(n, k)(columns.data(), diagonal, size, all);
    for (Index i = 0; i < n; ++i)
      for (Index c = 0; c < k; ++c) to[i * k + c] = columns[c * n + i];
  }
  return py::make_tuple(q, norms, r);
}

// Log singular values of the products of `per_window` factors, windows `stride` factors apart.
// factors (runs, segments, k, k), exponents (runs, segments, k) -> out (runs, n_windows, k).
void window_growth(const Array& factors, const Array& exponents, Index per_window, Index stride,
                   Array out, Flag cancel, Index first, Index count) {
  require(factors.ndim() == 4, "factors must have shape (runs, segments, k, k)");
  const Index runs = factors.shape(0), segments = factors.shape(1), k = factors.shape(2);
  require_range(first, count, runs);
  require(per_window >= 1 && per_window <= segments && stride >= 1,
          "per_window must be in 1 ... segments and stride >= 1");
  const Index windows = (segments - per_window) / stride + 1;
  require_shape(factors, "factors", {runs, segments, k, k});
  require_shape(exponents, "exponents", {runs, segments, k});
  require_shape(out, "out", {runs, windows, k});
  const double *f = factors.data(), *e = exponents.data();
  double* target = out.mutable_data();
  const auto signal = control(cancel);
  const py::gil_scoped_release unlocked;
  pylyap::Buffer<double> rows(k * k), scales(k);
  const pylyap::ScaledProduct product{rows.data(), scales.data(), k};
  for (Index r = first; r < first + count; ++r) {
    for (Index w = 0; w < windows && !signal.cancelled(); ++w) {
      product.set_identity();
      for (Index s = w * stride; s < w * stride + per_window; ++s)
        product.multiply_left(f + (r * segments + s) * k * k, e + (r * segments + s) * k);
      pylyap::log_singular_values(product, target + (r * windows + w) * k);
    }
  }
}

// Elementary functions and activations as the kernels compute them: for tests and plots.
Array elementary(const std::string& name, const Array& x) {
  require(name == "exp" || name == "expm1" || name == "log" || name == "log1p",
          "name must be exp, expm1, log or log1p, got " + name);
  const auto f = [&](const Lane& v) {
    if (name == "exp") return pylyap::exp_nonpositive(v).exp;
    if (name == "expm1") return pylyap::exp_nonpositive(v).expm1;
    return name == "log" ? pylyap::log(v) : pylyap::log1p_nonnegative(v);
  };
  Array y(x.size());
  for (Index i = 0; i < x.size(); i += pylyap::kLanes) {
    const Index count = std::min(pylyap::kLanes, x.size() - i);
    Lane value{};
    std::copy_n(x.data() + i, count, reinterpret_cast<double*>(&value));
    value = f(value);
    std::copy_n(reinterpret_cast<const double*>(&value), count, y.mutable_data() + i);
  }
  return y;
}

// f, f' and f'' of an activation.
py::tuple activate(const NameOrCode& activation, const Array& z) {
  const pylyap::Activation a = activation_from(activation);
  const Index count = z.size(), m = (count + pylyap::kLanes - 1) / pylyap::kLanes;
  pylyap::Buffer<Lane> pre(m), f(m), df(m), d2f(m), ones(m);
  std::fill_n(ones.data(), m, pylyap::splat<Lane>(1.0));
  std::copy_n(z.data(), count, reinterpret_cast<double*>(pre.data()));
  a.value_slope(pre.data(), f.data(), df.data(), m);
  a.curvature(pre.data(), f.data(), df.data(), ones.data(), d2f.data(), m);
  const auto array = [&](const pylyap::Buffer<Lane>& from) {
    return Array(count, reinterpret_cast<const double*>(from.data()));
  };
  return py::make_tuple(array(f), array(df), array(d2f));
}

py::dict build() {
  py::dict facts;
  facts["compiler"] = __VERSION__;
  facts["eigen"] = std::to_string(EIGEN_WORLD_VERSION) + "." + std::to_string(EIGEN_MAJOR_VERSION) +
                   "." + std::to_string(EIGEN_MINOR_VERSION);
  facts["lanes"] = pylyap::kLanes;
#ifdef NDEBUG
  facts["assertions"] = false;
#else
  facts["assertions"] = true;
#endif
  return facts;
}

}  // namespace

PYBIND11_MODULE(PYLYAP_MODULE, m) {
  m.doc() = "pylyap's compiled core. Private: use the functions of the package.";
  const auto exact = [](const char* name) { return py::arg(name).noconvert(); };
  const auto maybe = [](const char* name) { return py::arg(name).noconvert().none(true); };

  py::list names;
  for (const auto& a : pylyap::kActivations) names.append(std::string(a.name));
  m.attr("ACTIVATIONS") = py::tuple(names);

  py::class_<pylyap::Architecture>(m, "Network")
      .def(py::init(&make_network), py::arg("layers"), py::arg("activations"), py::arg("loss"),
           py::keep_alive<1, 3>())  // a user's compiled loops
      .def_readonly("n_params", &pylyap::Architecture::n_params)
      .def("predict", &predict, exact("weights"), exact("X"), exact("out"), exact("cancel"),
           py::arg("first"), py::arg("count"));

  py::class_<SpectrumRuns>(m, "SpectrumRuns")
      .def(py::init<const Array&, Index, Index, Index, Index, Index, Array, Array, Array, Array,
                    Integers, Integers, Index, std::optional<Array>, std::optional<Array>>(),
           exact("states"), py::arg("start"), py::arg("n_transient"), py::arg("n_steps"),
           py::arg("qr_every"), py::arg("record_every"), exact("frame"), exact("growth"),
           exact("loss"), exact("state"), exact("status"), exact("n_done"), py::arg("segment"),
           maybe("products"), maybe("exponents"));
  py::class_<CovariantRuns>(m, "CovariantRuns")
      .def(py::init<const Array&, Index, Index, Index, Index, Index, Index, Index, Index,
                    const Array&, const Array&, std::optional<Array>, Array, Array, Array, Array,
                    Array, std::optional<Array>, std::optional<Array>, std::optional<Array>,
                    Integers, Integers>(),
           exact("states"), py::arg("start"), py::arg("n_transient"), py::arg("n_steps"),
           py::arg("n_tail"), py::arg("qr_every"), py::arg("every"), py::arg("delay"),
           py::arg("segment"), exact("frame"), exact("far"), maybe("vectors"),
           exact("coefficients"), exact("path"), exact("growth"), exact("aligned"),
           exact("residual"), maybe("early_vectors"), maybe("early_coefficients"),
           maybe("early_error"), exact("status"), exact("n_done"));

  py::class_<pylyap::Problem>(m, "TrainingMap")
      .def(py::init(&make_problem), py::arg("network"), exact("X"), exact("targets"),
           py::arg("adam"), py::arg("momentum"), py::arg("nesterov"), py::arg("beta1"),
           py::arg("beta2"), py::arg("epsilon"), py::arg("batch_size"), py::arg("shuffle"),
           py::arg("seed"), py::arg("single"), py::keep_alive<1, 2>())
      .def_property_readonly("n", &pylyap::Problem::n)
      .def_property_readonly("group",
                             [](const pylyap::Problem& p) {
                               const bool lanes = pylyap::fits_lanes(p.arch) && !p.single;
                               return lanes ? pylyap::kLanes : Index{1};
                             })
      .def(
          "set_schedule",
          [](pylyap::Problem& p, std::vector<double> factors) {
            p.schedule.set(std::move(factors));
          },
          py::arg("factors"))
      .def("evaluate", &evaluate, exact("weights"), maybe("loss"), maybe("gradient"),
           maybe("hessian"), exact("cancel"), py::arg("members"), py::arg("first"),
           py::arg("count"))
      .def("hessian_vectors", &hessian_vectors, exact("weights"), exact("vectors"), exact("out"),
           exact("cancel"), py::arg("members"), py::arg("first"), py::arg("count"))
      .def("one_step", &one_step, exact("states"), exact("lr"), exact("momentum"),
           exact("weight_decay"), py::arg("t"), maybe("vectors"), py::arg("method"), maybe("next"),
           maybe("out"), exact("cancel"), py::arg("members"), py::arg("first"), py::arg("count"))
      .def("trajectory", &trajectory, exact("states"), exact("lr"), exact("momentum"),
           exact("weight_decay"), py::arg("start"), py::arg("n_steps"), py::arg("every"),
           exact("out"), exact("cancel"), exact("done"), py::arg("members"), py::arg("first"),
           py::arg("count"))
      .def("spectrum", &spectrum, py::arg("runs"), exact("lr"), exact("momentum"),
           exact("weight_decay"), py::arg("method"), exact("cancel"), exact("done"),
           py::arg("members"), py::arg("first"), py::arg("count"))
      .def("covariant", &covariant, py::arg("runs"), exact("lr"), exact("momentum"),
           exact("weight_decay"), py::arg("method"), exact("cancel"), exact("done"),
           py::arg("members"), py::arg("first"), py::arg("count"))
      .def("batch", &batch, py::arg("t"))
      .def("cost", &cost, py::arg("k"), py::arg("asked"))
      .def("method", &method_of, py::arg("k"), py::arg("asked"));

  m.def("orthonormalise", &orthonormalise, exact("frame"), maybe("scale"));
  m.def("spectrum_of_map", &spectrum_of_map, py::arg("runs"), py::arg("step"), py::arg("jacobian"),
        py::arg("tangent"), py::arg("value"), exact("cancel"), exact("done"), py::arg("first"),
        py::arg("count"));
  m.def("covariant_of_map", &covariant_of_map, py::arg("runs"), py::arg("step"),
        py::arg("jacobian"), py::arg("tangent"), exact("cancel"), exact("done"), py::arg("first"),
        py::arg("count"));
  m.def("group_of_map", &group_of_map, py::arg("n"));
  m.def("window_growth", &window_growth, exact("factors"), exact("exponents"),
        py::arg("per_window"), py::arg("stride"), exact("out"), exact("cancel"), py::arg("first"),
        py::arg("count"));
  m.def("elementary", &elementary, py::arg("name"), exact("x"));
  m.def("activate", &activate, py::arg("activation"), exact("z"));
  m.def("build", &build);
}
