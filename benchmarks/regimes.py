from __future__ import annotations

import numpy as np

import pylyap as pl

from . import digits


class Scan:
    """A scan of the learning rate on a quadratic loss, whose exponents are known."""

    params = ([4, 16], [8], [400])
    param_names = ("rates", "runs", "steps")

    def setup(self, rates: int, runs: int, steps: int) -> None:
        self.X = np.random.default_rng(0).normal(size=(30, 2)) * [1.0, 0.3]
        self.y = self.X @ [1.0, -2.0]
        self.network = pl.Network((2, 1))
        plain = pl.TrainingMap(self.network, self.X, self.y, pl.GradientDescent())
        self.h = np.linalg.eigvalsh(plain.hessian(np.zeros(3)))
        self.lrs = np.geomspace(0.1, 1.8, rates) / self.h[-1]
        self.run(runs, 40)  # compiles

    def run(self, runs: int, steps: int) -> pl.LearningRateScan:
        return pl.learning_rate_scan(
            self.network, self.X, self.y, self.lrs, steps, runs=runs, threads=1
        )

    def time_scan(self, rates: int, runs: int, steps: int) -> None:
        self.run(runs, steps)

    def track_sharpness(self, rates: int, runs: int, steps: int) -> float:
        """The sharpness relative to the threshold 2 / lr is lr h / 2."""
        scan = self.run(runs, steps)
        expected = self.lrs[:, np.newaxis] * self.h[-1] / 2
        return digits(float(np.max(np.abs(scan.sharpness / expected - 1))))

    track_sharpness.unit = "digits"
