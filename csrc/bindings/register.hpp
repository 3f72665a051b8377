// The parts of the module, one for each noun.
#pragma once

#include <pybind11/pybind11.h>

namespace pylyap::bindings {

// In this order: signatures name types that are registered before them.
void register_settings(pybind11::module_& m);
void register_network(pybind11::module_& m);
void register_frames(pybind11::module_& m);
void register_training(pybind11::module_& m);
void register_maps(pybind11::module_& m);

}  // namespace pylyap::bindings
