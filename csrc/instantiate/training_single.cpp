// Training of one run in single precision.
#include "training.hpp"

template class pylyap::TrainingMap<float>;
