from __future__ import annotations

import numpy as np

import pylyap as pl

from . import digits, training


class Ensemble:
    """Perturbed copies of runs and their distances."""

    params = ([1, 16], [5, 100], [50, 200])
    param_names = ("runs", "copies", "steps")

    def setup(self, runs: int, copies: int, steps: int) -> None:
        self.system, self.weights = training(10, runs)
        pl.perturbation_ensemble(self.system, self.weights, 1e-8, 1, 1)  # compiles

    def run(self, copies: int, steps: int, eps: float) -> pl.Ensemble:
        return pl.perturbation_ensemble(
            self.system, self.weights, eps, copies, steps, keep="mean", threads=1
        )

    def time_ensemble(self, runs: int, copies: int, steps: int) -> None:
        self.run(copies, steps, 1e-8)

    def peakmem_ensemble(self, runs: int, copies: int, steps: int) -> None:
        self.run(copies, steps, 1e-8)

    def track_zero(self, runs: int, copies: int, steps: int) -> float:
        """Without a perturbation every distance is exactly zero."""
        return digits(float(np.max(self.run(copies, steps, 0.0).distances)))

    track_zero.unit = "digits"
