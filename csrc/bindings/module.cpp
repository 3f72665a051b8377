// The compiled core: its table of contents.
#include "../build_facts.hpp"
#include "../lanes.hpp"
#include "register.hpp"

namespace py = pybind11;

namespace {

py::dict build() {
  py::dict facts;
  facts["compiler"] = __VERSION__;
  facts["eigen"] = pylyap::eigen_version();
  facts["lanes"] = pylyap::kRuns<pylyap::Lane>;
  facts["sources"] = pylyap::source_fingerprint();
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
  m.def("build", &build);
  pylyap::bindings::register_settings(m);
  pylyap::bindings::register_network(m);
  pylyap::bindings::register_frames(m);
  pylyap::bindings::register_training(m);
  pylyap::bindings::register_maps(m);
}
