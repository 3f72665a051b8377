from __future__ import annotations

import numpy as np

import pylyap as pl

from . import digits, training


class LeadingExponents:
    """A few vectors along training, on one thread."""

    params = ([3, 10, 40], [1, 10], [1, 64])
    param_names = ("n_hidden", "k", "runs")
    n_steps = 100
    n_samples = 150

    def setup(self, n_hidden: int, k: int | None, runs: int) -> None:
        self.system, self.weights = training(n_hidden, runs, self.n_samples)

    def run(self, k: int | None) -> pl.Spectrum:
        return pl.lyapunov_spectrum(self.system, self.weights, self.n_steps, k=k, threads=1)

    def time_spectrum(self, n_hidden: int, k: int | None, runs: int) -> None:
        self.run(k)

    def peakmem_spectrum(self, n_hidden: int, k: int | None, runs: int) -> None:
        self.run(k)

    def track_orthonormality(self, n_hidden: int, k: int | None, runs: int) -> float:
        """The frame at the end is orthonormal."""
        frame = self.run(k).frame
        product = np.swapaxes(frame, -1, -2) @ frame
        return digits(np.abs(product - np.eye(frame.shape[-1])).max())

    track_orthonormality.unit = "digits"


class LeadingExponentsOfManySamples(LeadingExponents):
    params = ([10], [1, 10], [64])
    n_steps = 20
    n_samples = 6000


class WholeSpectrum(LeadingExponents):
    """As many vectors as dimensions."""

    params = ([3, 10], [None], [1, 64])

    def track_determinant_law(self, n_hidden: int, k: None, runs: int) -> float:
        """All exponents sum to the mean of ln |det J|."""
        total = self.run(k).exponents.sum(axis=-1)
        states = self.system.trajectory(self.weights, self.n_steps - 1)
        mean = np.mean(
            [np.linalg.slogdet(self.system.jacobian(x))[1] for x in np.moveaxis(states, 1, 0)],
            axis=0,
        )
        return digits(np.abs(total / mean - 1).max())

    track_determinant_law.unit = "digits"
