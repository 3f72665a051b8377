// Training and prediction of several runs in lanes.
#include "training.hpp"

template class pylyap::TrainingMap<pylyap::Lane>;
template class pylyap::Predictor<pylyap::Lane>;
