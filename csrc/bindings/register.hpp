// The parts of the module, one for each noun.
#pragma once

#include <pybind11/pybind11.h>

namespace pylyap::bindings {

void register_network(pybind11::module_& m);
void register_frames(pybind11::module_& m);  // before training and maps, which take frames
void register_training(pybind11::module_& m);
void register_maps(pybind11::module_& m);

}  // namespace pylyap::bindings
