// The compiled core: its table of contents.
#include <Eigen/Core>
#include <string>

#include "../lanes.hpp"
#include "register.hpp"

namespace py = pybind11;

namespace {

py::dict build() {
  py::dict facts;
  facts["compiler"] = __VERSION__;
  facts["eigen"] = std::to_string(EIGEN_WORLD_VERSION) + "." + std::to_string(EIGEN_MAJOR_VERSION) +
                   "." + std::to_string(EIGEN_MINOR_VERSION);
  facts["lanes"] = pylyap::kLanes;
  facts["sources"] = PYLYAP_SOURCES;
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
