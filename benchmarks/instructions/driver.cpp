// Workloads of the kernels, to be counted in instructions by valgrind's callgrind: one of each
// kernel family, one thread, without Python. Counts begin after a first call, so that start-up is
// excluded. `driver --values` prints results of each workload instead, to be compared between
// compilers and processors.
#include <valgrind/callgrind.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <vector>

#include "../../csrc/runs.hpp"

namespace {

using namespace pylyap;
using Numbers = std::vector<double>;

// Numbers in (-1, 1), the same on every machine.
Numbers numbers(std::size_t count, double scale = 1.0, std::uint64_t seed = 1) {
  detail::SplitMix random(seed);
  Numbers out(count);
  for (double& x : out) x = scale * (static_cast<double>(random.next() >> 11) * 0x1p-52 - 1.0);
  return out;
}
std::size_t size(Index count) { return static_cast<std::size_t>(count); }

struct Run {
  Problem problem;
  Index runs;
  Numbers states, lr, momentum, decay;

  Run(const std::vector<Index>& layers, const char* activation, Loss loss, Index samples,
      Index n_runs, Optimizer optimizer = {}, Index batch = 0, bool single = false)
      : problem(make(layers, activation, loss, samples, optimizer, batch, single)),
        runs(n_runs),
        states(size(n_runs * problem.n())),
        lr(size(n_runs), 0.05),
        momentum(size(n_runs), 0.9),
        decay(size(n_runs), 0.0) {
    const Numbers w = numbers(size(runs * problem.n_params()), 0.5, 3);
    for (Index r = 0; r < runs; ++r)
      std::memcpy(states.data() + r * problem.n(), w.data() + r * problem.n_params(),
                  size(problem.n_params()) * sizeof(double));
  }
  static Problem make(const std::vector<Index>& layers, const char* activation, Loss loss,
                      Index samples, Optimizer optimizer, Index batch, bool single) {
    std::vector<Activation> hidden;
    for (const Activation& a : activations())
      for (std::size_t l = 2; a.name == activation && l < layers.size(); ++l) hidden.push_back(a);
    const Architecture arch(layers, hidden, loss);
    const Index columns = arch.classifies() ? 1 : arch.outputs();
    const Numbers X = numbers(size(samples * layers.front()));
    Numbers y = numbers(size(samples * columns), 1.0, 2);
    for (std::size_t s = 0; arch.classifies() && s < y.size(); ++s)
      y[s] = static_cast<double>(s % size(arch.outputs()));
    const bool full = batch == 0;
    return {arch,      Data(arch, X.data(), y.data(), samples, columns, full && !single),
            optimizer, {samples, full ? samples : batch, true, 7},
            single,    {}};
  }
  RateArrays rates() const { return {lr.data(), momentum.data(), decay.data()}; }
  Numbers frames(Index k) const { return numbers(size(runs * problem.n() * k), 1.0, 5); }
};

std::int32_t never = 0;
std::int64_t done = 0;
Task task(Index runs) { return {{&never, &done}, 1, 0, runs}; }

bool print_values = false;

// Calls twice and counts the second call, or calls once and prints up to 50 numbers of each result.
template <class F>
void measure(const char* name, std::initializer_list<const Numbers*> results, F&& call) {
  call();
  if (!print_values) {
    CALLGRIND_ZERO_STATS;
    call();
    CALLGRIND_DUMP_STATS_AT(name);
    std::fprintf(stderr, "%s\n", name);
    return;
  }
  for (const Numbers* result : results) {
    std::printf("%s", name);
    const std::size_t stride = (result->size() + 49) / 50;
    for (std::size_t i = 0; i < result->size(); i += stride) std::printf(" %.17g", (*result)[i]);
    std::printf("\n");
  }
}

void steps(const char* name, const Run& run, Index n_steps) {
  Numbers out(size(run.runs * 2 * run.problem.n()));
  measure(name, {&out}, [&] {
    trajectory(run.problem, run.states.data(), run.rates(), 0, n_steps, n_steps, out.data(),
               task(run.runs));
  });
}

struct Arrays {
  Numbers growth, loss, state, frame, products, exponents, transient;
  std::vector<std::int64_t> status, n_done;
  SpectrumOutput out;

  Arrays(Index runs, Index n, Index k, Index segments)
      : growth(size(runs * k)),
        loss(size(runs * 2)),
        state(size(runs * n)),
        frame(numbers(size(runs * n * k), 1.0, 5)),
        products(size(runs * segments * k * k)),
        exponents(size(runs * segments * k)),
        transient(size(runs * k)),
        status(size(runs)),
        n_done(size(runs)),
        out{growth.data(),
            loss.data(),
            state.data(),
            frame.data(),
            status.data(),
            n_done.data(),
            segments > 0 ? products.data() : nullptr,
            exponents.data(),
            transient.data()} {}
};

void exponents(const char* name, const Run& run, Index k, Method method, Index n_steps,
               Index segment = 0) {
  Arrays arrays(run.runs, run.problem.n(), k, segment > 0 ? n_steps / segment : 0);
  const SpectrumPlan plan{0, 0, n_steps, 1, n_steps, segment};
  measure(name, {&arrays.growth, &arrays.loss, &arrays.state, &arrays.frame}, [&] {
    spectrum(run.problem, plan, k, run.states.data(), run.rates(), method, arrays.out,
             task(run.runs));
  });
}

void vectors(const char* name, const Run& run, Index k, Index n_steps) {
  const Index n = run.problem.n(), runs = run.runs;
  const Numbers frame = run.frames(k);
  Numbers far(size(k * k)), v(size(runs * 2 * n * k)), c(size(runs * 2 * k * k)),
      x(size(runs * 2 * n)), g(size(runs * k)), a(size(runs * k)), r(size(runs * k)),
      before(size(runs * k)), after(size(runs * k));
  for (Index i = 0; i < k; ++i)
    for (Index j = i; j < k; ++j) far[size(i * k + j)] = i == j ? 1.0 : 0.5;
  std::vector<std::int64_t> status(size(runs)), n_done(size(runs));
  const CovariantPlan plan{0, 0, n_steps, n_steps / 2, 1, n_steps, 0, 16};
  CovariantOutput out{};
  out.vectors = v.data(), out.coefficients = c.data(), out.states = x.data();
  out.growth = g.data(), out.frame_growth = a.data(), out.residual = r.data();
  out.transient_growth = before.data(), out.tail_growth = after.data();
  out.status = status.data(), out.n_done = n_done.data();
  measure(name, {&v, &c, &x, &g, &a}, [&] {
    covariant(run.problem, plan, k, run.states.data(), run.rates(), Method::automatic, frame.data(),
              far.data(), out, task(runs));
  });
}

void henon(const char* name, Index runs, Index n_steps) {
  const Callable map{nullptr,
                     [](void*, const double* x, Index, double* next) {
                       next[0] = 1.0 - 1.4 * x[0] * x[0] + x[1];
                       next[1] = 0.3 * x[0];
                       return std::int64_t{0};
                     },
                     [](void*, const double* x, Index, double* J) {
                       J[0] = -2.8 * x[0], J[1] = 1.0, J[2] = 0.3, J[3] = 0.0;
                       return std::int64_t{0};
                     },
                     nullptr, nullptr};
  Arrays arrays(runs, 2, 2, 0);
  const Numbers states(size(2 * runs), 0.1);
  const SpectrumPlan plan{0, 0, n_steps, 1, n_steps, 0};
  measure(name, {&arrays.growth, &arrays.state},
          [&] { spectrum(map, true, plan, 2, 2, states.data(), arrays.out, task(runs)); });
}

}  // namespace

int main(int count, char** arguments) {
  print_values = count > 1 && std::strcmp(arguments[1], "--values") == 0;
  Optimizer heavy_ball, adam;
  heavy_ball.momentum = true;
  adam.adam = true;
  const auto softmax = Loss::cross_entropy, squares = Loss::mse;
  const Run iris({4, 10, 3}, "sigmoid", softmax, 120, 8);
  const Run small({2, 10, 1}, "tanh", squares, 100, 8);
  const Run deep({2, 16, 16, 1}, "tanh", squares, 100, 8);
  const Run wide({64, 32, 10}, "tanh", softmax, 300, 1);

  steps("step-lanes-softmax", iris, 40);
  steps("step-lanes-mse", small, 60);
  steps("step-wide", wide, 10);
  steps("step-wide-minibatch-single", Run({64, 32, 10}, "relu", softmax, 300, 1, {}, 64, true), 20);
  exponents("spectrum-dense-all", small, small.problem.n(), Method::dense, 5);
  exponents("spectrum-dense-softmax", iris, 20, Method::dense, 5);
  exponents("spectrum-products-softmax", iris, 5, Method::matrix_free, 10);
  exponents("spectrum-deep", deep, 5, Method::matrix_free, 3);
  exponents("spectrum-wide", wide, 5, Method::matrix_free, 2);
  exponents("spectrum-heavy-ball", Run({4, 10, 3}, "sigmoid", softmax, 120, 8, heavy_ball), 5,
            Method::automatic, 10);
  exponents("spectrum-adam", Run({4, 10, 3}, "sigmoid", softmax, 120, 8, adam), 5,
            Method::automatic, 10);
  exponents("spectrum-segments", small, 10, Method::automatic, 10, 5);
  vectors("covariant", iris, 10, 6);
  {
    Numbers loss(8), gradient(size(8 * iris.problem.n())),
        hessian(size(8 * iris.problem.n() * iris.problem.n()));
    measure("hessian", {&loss, &gradient, &hessian}, [&] {
      evaluate(iris.problem, iris.states.data(), loss.data(), gradient.data(), hessian.data(),
               task(8));
    });
    Numbers products(size(8 * iris.problem.n() * 4));
    const Numbers directions = iris.frames(4);
    measure("hessian-vectors", {&products}, [&] {
      hessian_vectors(iris.problem, iris.states.data(), directions.data(), 4, products.data(),
                      task(8));
    });
    Numbers outputs(8 * 120 * 3);
    measure("predict", {&outputs}, [&] {
      predict(iris.problem.arch, iris.problem.data, iris.states.data(), outputs.data(), task(8));
    });
  }
  {
    const Index n = 400, k = 20;
    const Numbers frame = numbers(size(n * k));
    Numbers q(size(n * k)), diagonal(size(k)), r(size(k * k));
    measure("orthonormalise", {&q, &diagonal, &r}, [&] {
      orthonormalise(frame.data(), nullptr, n, k, q.data(), diagonal.data(), r.data());
    });
  }
  henon("callable-henon", 8, 1000);

  // One run alone, with registers along samples, parameters and vectors.
  const Run iris_alone({4, 10, 3}, "sigmoid", softmax, 120, 1);
  const Run small_alone({2, 10, 1}, "tanh", squares, 100, 1);
  const Run deep_alone({2, 16, 16, 1}, "tanh", squares, 100, 1);
  steps("alone-step-softmax", iris_alone, 100);
  steps("alone-step-mse", small_alone, 100);
  steps("alone-step-minibatch", Run({4, 10, 3}, "sigmoid", softmax, 120, 1, heavy_ball, 16), 200);
  exponents("alone-spectrum-leading", iris_alone, 1, Method::automatic, 40);
  exponents("alone-spectrum-products", iris_alone, 5, Method::matrix_free, 20);
  exponents("alone-spectrum-dense-all", small_alone, small_alone.problem.n(), Method::dense, 20);
  exponents("alone-spectrum-dense-softmax", iris_alone, 20, Method::dense, 10);
  exponents("alone-spectrum-deep", deep_alone, 5, Method::matrix_free, 10);
  vectors("alone-covariant", iris_alone, 10, 10);
  return 0;
}
