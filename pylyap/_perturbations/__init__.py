"""Perturbation ensembles: distances, growth rates, time series."""
