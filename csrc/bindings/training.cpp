// Training problems: data and optimiser, steps, gradients, Hessians, and methods along runs.
#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "../cost.hpp"
#include "../problem.hpp"
#include "../runs.hpp"
#include "arrays.hpp"
#include "frames.hpp"
#include "inputs.hpp"
#include "register.hpp"

namespace pylyap::bindings {

namespace {

// Wide nets leave out the inputs that are zero in all of the data, as pixels at the border are, and
// multiply what is not zero alone where that is little.
Architecture for_data(const Architecture& arch, const Inputs& X) {
  if (fits_lanes(arch)) return arch;
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
  return arch.for_data(live, mostly_zero(arch, entries, all));
}

Problem make_problem(const Architecture& arch, const Inputs& X, const Array& targets,
                     const Optimizer& optimizer, Index batch_size, bool shuffle, std::uint64_t seed,
                     bool single) {
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
  const Architecture own = for_data(arch, X);
  return {own,       make_data(own, X, targets.data(), columns, batch_size == samples && !single),
          optimizer, {samples, batch_size, shuffle, seed},
          single,    {}};
}

void evaluate(const Problem& problem, const Array& weights, std::optional<Array> loss,
              std::optional<Array> gradient, std::optional<Array> hessian, const Task& task) {
  const Index runs = rows(weights), np = problem.n_params();
  require_shape(weights, "weights", {runs, np});
  const double* w = weights.data();
  double* l = output(loss, "loss", {runs});
  double* g = output(gradient, "gradient", {runs, np});
  double* h = output(hessian, "hessian", {runs, np, np});
  const auto these = task.of(runs);
  const py::gil_scoped_release unlocked;
  pylyap::evaluate(problem, w, l, g, h, these);
}

// Products of the Hessian of the mean loss of all data with vectors, for states of weights alone.
void hessian_vectors(const Problem& problem, const Array& weights, const Array& vectors, Array out,
                     const Task& task) {
  const Index runs = rows(weights), n = problem.n_params();
  require(problem.n() == n, "the optimiser must have no buffers");
  require_shape(weights, "weights", {runs, n});
  require(vectors.ndim() == 3 && vectors.shape(2) >= 1, "vectors must have shape (runs, n, k)");
  const Index k = vectors.shape(2);
  require_shape(vectors, "vectors", {runs, n, k});
  require_shape(out, "out", {runs, n, k});
  const double *w = weights.data(), *v = vectors.data();
  double* target = out.mutable_data();
  const auto these = task.of(runs);
  const py::gil_scoped_release unlocked;
  pylyap::hessian_vectors(problem, w, v, k, target, these);
}

void step(const Problem& problem, const Array& states, const Rates& rates, Index t, Array out,
          const Task& task) {
  const Index runs = rows(states), n = problem.n();
  require_shape(states, "states", {runs, n});
  require(t >= 0, "t must be >= 0");
  const auto each = rates.of(problem, runs);
  const double* x = states.data();
  double* next = output(out, "out", {runs, n});
  const auto these = task.of(runs);
  const py::gil_scoped_release unlocked;
  pylyap::one_step(problem, x, each, t, nullptr, 0, Method::automatic, next, nullptr, these);
}

// out (runs, n, k) <- J vectors, J of step t at the states.
void tangent(const Problem& problem, const Array& states, const Rates& rates, Index t,
             const Array& vectors, const std::string& method, Array out, const Task& task) {
  const Index runs = rows(states), n = problem.n();
  require_shape(states, "states", {runs, n});
  require(t >= 0, "t must be >= 0");
  require(vectors.ndim() == 3 && vectors.shape(2) >= 1, "vectors must have shape (runs, n, k)");
  const Index k = vectors.shape(2);
  require_shape(vectors, "vectors", {runs, n, k});
  const auto each = rates.of(problem, runs);
  const auto how = method_named(method);
  const double *x = states.data(), *v = vectors.data();
  double* target = output(out, "out", {runs, n, k});
  const auto these = task.of(runs);
  const py::gil_scoped_release unlocked;
  pylyap::one_step(problem, x, each, t, v, k, how, nullptr, target, these);
}

void trajectory(const Problem& problem, const Array& states, const Rates& rates, Index start,
                Index n_steps, Index every, Array out, const Task& task) {
  const Index runs = rows(states), n = problem.n();
  require(start >= 0 && n_steps >= 0 && every >= 1, "start, n_steps >= 0 and every >= 1");
  require_shape(states, "states", {runs, n});
  require_shape(out, "out", {runs, n_steps / every + 1, n});
  const auto each = rates.of(problem, runs);
  const double* x = states.data();
  double* target = out.mutable_data();
  const auto these = task.of(runs);
  const py::gil_scoped_release unlocked;
  pylyap::trajectory(problem, x, each, start, n_steps, every, target, these);
}

// next <- the last states; it may be the array `states`.
void loss_series(const Problem& problem, const Array& states, const Rates& rates, Index start,
                 Array losses, Array next, const Task& task) {
  const Index runs = rows(states), n = problem.n();
  require(start >= 0, "start must be >= 0");
  require_shape(states, "states", {runs, n});
  require(losses.ndim() == 2, "losses must have shape (runs, n_steps)");
  const Index n_steps = losses.shape(1);
  const auto each = rates.of(problem, runs);
  const double* x = states.data();
  double* series = output(losses, "losses", {runs, n_steps});
  double* last = output(next, "next", {runs, n});
  const auto these = task.of(runs);
  const py::gil_scoped_release unlocked;
  pylyap::loss_series(problem, x, each, start, n_steps, series, last, these);
}

void spectrum(const Problem& problem, SpectrumRuns& runs, const Rates& rates,
              const std::string& method, const Task& task) {
  require(runs.size.n == problem.n(), "runs must be states of this training");
  const auto each = rates.of(problem, runs.size.runs);
  const auto how = method_named(method);
  const auto these = task.of(runs.size.runs);
  const SpectrumOutput out = runs.output();
  const py::gil_scoped_release unlocked;
  pylyap::spectrum(problem, runs.plan, runs.size.k, runs.x0.data(), each, how, out, these);
}

void covariant(const Problem& problem, CovariantRuns& runs, const Rates& rates,
               const std::string& method, const Task& task) {
  require(runs.size.n == problem.n(), "runs must be states of this training");
  const auto each = rates.of(problem, runs.size.runs);
  const auto how = method_named(method);
  const auto these = task.of(runs.size.runs);
  const CovariantOutput out = runs.output();
  const py::gil_scoped_release unlocked;
  pylyap::covariant(problem, runs.plan, runs.size.k, runs.x0.data(), each, how,
                    runs.start_frame.data(), runs.end_coefficients.data(), out, these);
}

Integers batch(const Problem& problem, Index t) {
  require(t >= 0, "t must be >= 0");
  Batches batches(problem.batches);
  const auto chosen = batches(t);
  Integers out(static_cast<Index>(chosen.size()));
  std::copy(chosen.begin(), chosen.end(), out.mutable_data());
  return out;
}

std::string method_of(const Problem& problem, Index k, const std::string& asked) {
  const auto method =
      choose_method(problem.arch, problem.batches.batch_size, k, method_named(asked));
  return method == Method::dense ? "dense" : "matrix-free";
}

// Multiplications of one step of one run with k tangent vectors.
double cost(const Problem& problem, Index k, const std::string& asked) {
  require(k >= 0, "k must be >= 0");
  const Index samples = problem.batches.batch_size;
  const auto method = choose_method(problem.arch, samples, k, method_named(asked));
  return step_cost(problem.arch, samples, k, method);
}

// Threads inside each run of a task for steps with k tangent vectors.
Index workers(const Problem& problem, Index k, const std::string& asked, const Task& task) {
  require(k >= 0, "k must be >= 0");
  return workers_inside(problem, problem.batches.batch_size, k, method_named(asked),
                        task.of(task.first + task.count));
}

}  // namespace

void register_training(py::module_& m) {
  py::class_<Optimizer>(m, "Optimizer")
      .def(py::init([](bool adam, bool momentum, bool nesterov, double beta1, double beta2,
                       double epsilon) {
             return Optimizer{adam, momentum, nesterov, beta1, beta2, epsilon};
           }),
           py::kw_only(), py::arg("adam"), py::arg("momentum"), py::arg("nesterov"),
           py::arg("beta1"), py::arg("beta2"), py::arg("epsilon"));
  py::class_<Problem>(m, "Problem")
      .def(py::init(&make_problem), py::arg("architecture"), exact("X"), exact("targets"),
           py::arg("optimizer"), py::kw_only(), py::arg("batch_size"), py::arg("shuffle"),
           py::arg("seed"), py::arg("single"), py::keep_alive<1, 2>())
      .def_property_readonly("n", &Problem::n)
      .def_property_readonly("group", [](const Problem& p) { return group_size(p); })
      .def_property_readonly("alone", [](const Problem& p) { return runs_alone(p); })
      .def(
          "set_schedule",
          [](Problem& p, Index first, const Array& factors) {
            require(first >= 0, "first must be >= 0");
            require(factors.ndim() == 1, "factors must have shape (n_steps,)");
            p.schedule.set(first, {factors.data(), static_cast<std::size_t>(factors.size())});
          },
          py::arg("first"), exact("factors"))
      .def("evaluate", &evaluate, exact("weights"), maybe("loss"), maybe("gradient"),
           maybe("hessian"), py::arg("task"))
      .def("hessian_vectors", &hessian_vectors, exact("weights"), exact("vectors"), exact("out"),
           py::arg("task"))
      .def("step", &step, exact("states"), py::arg("rates"), py::arg("t"), exact("out"),
           py::arg("task"))
      .def("tangent", &tangent, exact("states"), py::arg("rates"), py::arg("t"), exact("vectors"),
           py::arg("method"), exact("out"), py::arg("task"))
      .def("trajectory", &trajectory, exact("states"), py::arg("rates"), py::arg("start"),
           py::arg("n_steps"), py::arg("every"), exact("out"), py::arg("task"))
      .def("loss_series", &loss_series, exact("states"), py::arg("rates"), py::arg("start"),
           exact("losses"), exact("next"), py::arg("task"))
      .def("spectrum", &spectrum, py::arg("runs"), py::arg("rates"), py::arg("method"),
           py::arg("task"))
      .def("covariant", &covariant, py::arg("runs"), py::arg("rates"), py::arg("method"),
           py::arg("task"))
      .def("batch", &batch, py::arg("t"))
      .def("cost", &cost, py::arg("k"), py::arg("asked"))
      .def("workers_inside", &workers, py::arg("k"), py::arg("asked"), py::arg("task"))
      .def("method", &method_of, py::arg("k"), py::arg("asked"));
}

}  // namespace pylyap::bindings
