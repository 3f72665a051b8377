"""A user's script, checked by ``mypy --strict`` against the installed package (.ci/run)."""

from typing import assert_type

import numpy as np
from numpy.typing import NDArray

import pylyap as pl

Floats = NDArray[np.float64]

X, y = pl.datasets.iris()
net = pl.Network((4, 10, 3), activation="sigmoid", loss="cross_entropy")
w0 = net.init("normal", runs=8, seed=0)
system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=[0.1] * 8))

spectrum = pl.lyapunov_spectrum(system, w0, 100, k=3)
assert_type(spectrum, pl.Spectrum)
assert_type(spectrum.exponents, Floats)
assert_type(pl.ftle(system, w0, 100, window=10), Floats)
vectors = pl.covariant_lyapunov_vectors(system, w0, 100, k=2)
assert_type(vectors, pl.CovariantVectors)
assert_type(vectors.angles(), Floats)
ensemble = pl.perturbation_ensemble(system, w0, 1e-8, n_perturbations=4, n_steps=100)
assert_type(pl.growth_rate(ensemble.distances), pl.GrowthRate)


def step(x: Floats) -> Floats:
    return np.array([1 - 1.4 * x[0] ** 2 + x[1], 0.3 * x[0]])


henon = pl.DiscreteMap(step, lambda x: np.array([[-2.8 * x[0], 1.0], [0.3, 0.0]]), n=2)
dimension = pl.kaplan_yorke_dimension(pl.lyapunov_spectrum(henon, [0.1, 0.1], 1000).exponents)

try:
    pl.lyapunov_spectrum(system, w0, 0)
except pl.ArgumentError as error:
    assert_type(error.argument, str)
