// Runs with frames, orthonormalisation and the growth over windows.
#include "frames.hpp"

#include "../runs.hpp"
#include "register.hpp"

namespace pylyap::bindings {

namespace {

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
    pylyap::orthonormalise(from, size, n, k, to, diagonal, all);
  }
  return py::make_tuple(q, norms, r);
}

// The same for a frame (k, n) of rows, in place; returns diag R (k) and R (k, k).
py::tuple orthonormalise_rows(Array frame, Index workers) {
  require(frame.ndim() == 2 && frame.shape(0) >= 1 && frame.shape(1) >= frame.shape(0),
          "frame must have shape (k, n), 1 <= k <= n");
  require(workers >= 1, "workers must be at least 1");
  const Index k = frame.shape(0), n = frame.shape(1);
  Array norms(k), r({k, k});
  double *rows = frame.mutable_data(), *diagonal = norms.mutable_data(), *all = r.mutable_data();
  {
    const py::gil_scoped_release unlocked;
    pylyap::orthonormalise_rows(rows, n, k, workers, diagonal, all);
  }
  return py::make_tuple(norms, r);
}

// Products over segments of the factors (count, k, k) of one run, the first of which is number
// `phase` of segment 0; products (segments, k, k) and exponents (segments, k) in and out.
void segment_products(const Array& factors, Index segment, Index phase, Array products,
                      Array exponents) {
  require(factors.ndim() == 3 && products.ndim() == 3, "factors must have shape (count, k, k)");
  require(segment >= 1 && phase >= 0, "segment must be at least 1 and phase at least 0");
  const Index count = factors.shape(0), k = factors.shape(1), segments = products.shape(0);
  require(phase + count <= segments * segment, "products must have a place for each segment");
  require_shape(factors, "factors", {count, k, k});
  require_shape(products, "products", {segments, k, k});
  require_shape(exponents, "exponents", {segments, k});
  const double* from = factors.data();
  double *rows = products.mutable_data(), *scales = exponents.mutable_data();
  const py::gil_scoped_release unlocked;
  pylyap::segment_products(from, count, k, segment, phase, rows, scales);
}

// Log singular values of the products of `per_window` factors, windows `stride` factors apart.
// factors (runs, segments, k, k), exponents (runs, segments, k) -> out (runs, n_windows, k).
void window_growth(const Array& factors, const Array& exponents, Index per_window, Index stride,
                   Array out, const Task& task) {
  require(factors.ndim() == 4, "factors must have shape (runs, segments, k, k)");
  const Index runs = factors.shape(0), segments = factors.shape(1), k = factors.shape(2);
  require(per_window >= 1 && per_window <= segments && stride >= 1,
          "per_window must be in 1 ... segments and stride >= 1");
  const Index windows = (segments - per_window) / stride + 1;
  require_shape(factors, "factors", {runs, segments, k, k});
  require_shape(exponents, "exponents", {runs, segments, k});
  require_shape(out, "out", {runs, windows, k});
  const double *f = factors.data(), *e = exponents.data();
  double* target = out.mutable_data();
  const auto these = task.of(runs);
  const py::gil_scoped_release unlocked;
  pylyap::window_growth(f, e, segments, k, per_window, stride, target, these);
}

}  // namespace

void register_frames(py::module_& m) {
  py::class_<SpectrumRuns>(m, "SpectrumRuns")
      .def(py::init([](const Array& x0, const Array& frame, Index start, Index n_transient,
                       Index n_steps, Index qr_every, Index record_every, Index segment) {
             return SpectrumRuns(x0, frame,
                                 {start, n_transient, n_steps, qr_every, record_every, segment});
           }),
           exact("x0"), exact("frame"), py::kw_only(), py::arg("start"), py::arg("n_transient"),
           py::arg("n_steps"), py::arg("qr_every"), py::arg("record_every"), py::arg("segment") = 0)
      .def_readonly("growth", &SpectrumRuns::growth)
      .def_readonly("loss", &SpectrumRuns::loss)
      .def_readonly("state", &SpectrumRuns::state)
      .def_readonly("frame", &SpectrumRuns::frame)
      .def_readonly("status", &SpectrumRuns::status)
      .def_readonly("n_done", &SpectrumRuns::n_done)
      .def_readonly("transient_growth", &SpectrumRuns::transient_growth)
      .def_readonly("products", &SpectrumRuns::products)
      .def_readonly("exponents", &SpectrumRuns::exponents);

  py::class_<CovariantRuns>(m, "CovariantRuns")
      .def(py::init([](const Array& x0, const Array& frame, const Array& end_coefficients,
                       Index start, Index n_transient, Index n_steps, Index n_tail, Index qr_every,
                       Index every, Index delay, Index segment, bool vectors) {
             return CovariantRuns(
                 x0, frame, end_coefficients,
                 {start, n_transient, n_steps, n_tail, qr_every, every, delay, segment}, vectors);
           }),
           exact("x0"), exact("frame"), exact("end_coefficients"), py::kw_only(), py::arg("start"),
           py::arg("n_transient"), py::arg("n_steps"), py::arg("n_tail"), py::arg("qr_every"),
           py::arg("every"), py::arg("delay"), py::arg("segment"), py::arg("vectors"))
      .def_readonly("vectors", &CovariantRuns::vectors)
      .def_readonly("coefficients", &CovariantRuns::coefficients)
      .def_readonly("states", &CovariantRuns::states)
      .def_readonly("growth", &CovariantRuns::growth)
      .def_readonly("frame_growth", &CovariantRuns::frame_growth)
      .def_readonly("residual", &CovariantRuns::residual)
      .def_readonly("transient_growth", &CovariantRuns::transient_growth)
      .def_readonly("tail_growth", &CovariantRuns::tail_growth)
      .def_readonly("early_vectors", &CovariantRuns::early_vectors)
      .def_readonly("early_coefficients", &CovariantRuns::early_coefficients)
      .def_readonly("early_error", &CovariantRuns::early_error)
      .def_readonly("end_coefficients", &CovariantRuns::end_coefficients)
      .def_readonly("status", &CovariantRuns::status)
      .def_readonly("n_done", &CovariantRuns::n_done);

  m.def("orthonormalise", &orthonormalise, exact("frame"), maybe("scale"));
  m.def("orthonormalise_rows", &orthonormalise_rows, exact("frame"), py::arg("workers"));
  m.def("segment_products", &segment_products, exact("factors"), py::arg("segment"),
        py::arg("phase"), exact("products"), exact("exponents"));
  m.def("window_growth", &window_growth, exact("factors"), exact("exponents"),
        py::arg("per_window"), py::arg("stride"), exact("out"), py::arg("task"));
}

}  // namespace pylyap::bindings
