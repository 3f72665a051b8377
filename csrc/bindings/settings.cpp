// Rates and tasks.
#include "settings.hpp"

#include "register.hpp"

namespace pylyap::bindings {

void register_settings(py::module_& m) {
  py::class_<Rates>(m, "Rates")
      .def(py::init<Array, Array, Array, std::optional<Array>>(), exact("lr"), exact("momentum"),
           exact("weight_decay"), maybe("factors") = py::none());
  py::class_<Task>(m, "Task")
      .def(py::init<Flag, Integers, Index, Index, Index>(), exact("cancel"), exact("done"),
           py::arg("workers"), py::arg("first"), py::arg("count"))
      .def_readonly("workers", &Task::workers)
      .def_readonly("first", &Task::first)
      .def_readonly("count", &Task::count)
      .def_property_readonly("cancelled", &Task::cancelled)
      .def("over", &Task::over, py::arg("first"), py::arg("count"));
}

}  // namespace pylyap::bindings
