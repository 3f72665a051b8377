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
  const Task task{control(cancel), 1, first, count};
  const py::gil_scoped_release unlocked;
  pylyap::window_growth(f, e, segments, k, per_window, stride, target, task);
}

}  // namespace

void register_frames(py::module_& m) {
  py::class_<SpectrumRuns>(m, "SpectrumRuns")
      .def(py::init<const Array&, Index, Index, Index, Index, Index, Array, Array, Array, Array,
                    Integers, Integers, Array, Index, std::optional<Array>, std::optional<Array>>(),
           exact("states"), py::arg("start"), py::arg("n_transient"), py::arg("n_steps"),
           py::arg("qr_every"), py::arg("record_every"), exact("frame"), exact("growth"),
           exact("loss"), exact("state"), exact("status"), exact("n_done"),
           exact("transient_growth"), py::arg("segment"), maybe("products"), maybe("exponents"));
  py::class_<CovariantRuns>(m, "CovariantRuns")
      .def(py::init<const Array&, Index, Index, Index, Index, Index, Index, Index, Index,
                    const Array&, const Array&, std::optional<Array>, Array, Array, Array, Array,
                    Array, Array, Array, std::optional<Array>, std::optional<Array>,
                    std::optional<Array>, Integers, Integers>(),
           exact("states"), py::arg("start"), py::arg("n_transient"), py::arg("n_steps"),
           py::arg("n_tail"), py::arg("qr_every"), py::arg("every"), py::arg("delay"),
           py::arg("segment"), exact("frame"), exact("far"), maybe("vectors"),
           exact("coefficients"), exact("path"), exact("growth"), exact("aligned"),
           exact("residual"), exact("transient_growth"), exact("tail_growth"),
           maybe("early_vectors"), maybe("early_coefficients"), maybe("early_error"),
           exact("status"), exact("n_done"));

  m.def("orthonormalise", &orthonormalise, exact("frame"), maybe("scale"));
  m.def("window_growth", &window_growth, exact("factors"), exact("exponents"),
        py::arg("per_window"), py::arg("stride"), exact("out"), exact("cancel"), py::arg("first"),
        py::arg("count"));
}

}  // namespace pylyap::bindings
