from __future__ import annotations

import numpy as np

import pylyap as pl

from . import digits, training


class Covariant:
    """Covariant vectors, with all frames stored or with checkpoints only."""

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

    def time_early(self, k: int, memory: str) -> None:
        pl.covariant_lyapunov_vectors(
            self.system, self.weights, self.n_steps, k, every=20, delay=40,
            memory_limit=self.limit, threads=1,
        )  # fmt: skip

    def peakmem_covariant(self, k: int, memory: str) -> None:
        self.run(k)

    def track_residual(self, k: int, memory: str) -> float:
        """The covariance residual."""
        return digits(float(np.max(self.run(k).residual)))

    track_residual.unit = "digits"


class Compiled:
    """A compiled user-defined map: several orbits per vector register."""

    params = (1, 8, 64)
    param_names = ("orbits",)
    n_steps = 2000

    def setup(self, orbits: int) -> None:
        self.henon = pl.DiscreteMap(
            lambda x: (1 - 1.4 * x[0] ** 2 + x[1], 0.3 * x[0]),
            lambda x: ((-2.8 * x[0], 1.0), (0.3, 0.0)),
            2,
            compiled=True,
        )
        self.x = np.random.default_rng(0).uniform(-0.1, 0.1, (orbits, 2))

    def time_spectrum(self, orbits: int) -> None:
        pl.lyapunov_spectrum(self.henon, self.x, self.n_steps, threads=1)

    def time_covariant(self, orbits: int) -> None:
        pl.covariant_lyapunov_vectors(self.henon, self.x, self.n_steps, threads=1)

    def track_sum(self, orbits: int) -> float:
        """The exponents sum to ln 0.3."""
        s = pl.lyapunov_spectrum(self.henon, self.x, self.n_steps, threads=1)
        return digits(float(np.abs(s.exponents.sum(axis=-1) - np.log(0.3)).max()))

    track_sum.unit = "digits"
