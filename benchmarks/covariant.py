from __future__ import annotations

import numpy as np

import pylyap as pl

from . import digits, training


class Covariant:
    """Covariant vectors, with all frames stored and with checkpoints alone."""

    params = ([5, 20], ["stored", "checkpoints"])
    param_names = ("k", "memory")
    n_steps = 200

    def setup(self, k: int, memory: str) -> None:
        self.system, self.weights = training(10, 16)
        self.limit = 1e9 if memory == "stored" else 1.2e7 * k / 5

    def run(self, k: int) -> pl.CovariantVectors:
        return pl.covariant_lyapunov_vectors(
            self.system,
            self.weights,
            self.n_steps,
            k,
            every=20,
            memory_limit=self.limit,
            threads=1,
        )

    def time_covariant(self, k: int, memory: str) -> None:
        self.run(k)

    def peakmem_covariant(self, k: int, memory: str) -> None:
        self.run(k)

    def track_residual(self, k: int, memory: str) -> float:
        """How far a vector misses its own image."""
        return digits(float(np.max(self.run(k).residual)))

    track_residual.unit = "digits"
