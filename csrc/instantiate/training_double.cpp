// Training and prediction of one run in double precision.
#include "training.hpp"

template class pylyap::TrainingMap<double>;
template class pylyap::Predictor<double>;
