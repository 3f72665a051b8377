from __future__ import annotations

import time

import numpy as np

import pylyap as pl

from . import digits


class Lattice:
    """A coupled map lattice x' = (1 - c) f(x_i) + c/2 [f(x_{i-1}) + f(x_{i+1})], f the tent map.

    Its functions take batches, as ``vectorized=True`` needs.
    """

    coupling = 0.3

    def mix(self, f: np.ndarray) -> np.ndarray:
        """Diffusive coupling along axis 1."""
        out = (1.0 - self.coupling) * f
        half = 0.5 * self.coupling
        out[:, 1:-1] += half * (f[:, :-2] + f[:, 2:])
        out[:, 0] += half * (f[:, -1] + f[:, 1])
        out[:, -1] += half * (f[:, -2] + f[:, 0])
        return out

    def step(self, X: np.ndarray) -> np.ndarray:
        return self.mix(1.0 - 2.0 * np.abs(X - 0.5))

    def tangent(self, X: np.ndarray, V: np.ndarray) -> np.ndarray:
        return self.mix(np.where(X < 0.5, 2.0, -2.0)[:, :, np.newaxis] * V)


def by_hand(lattice: Lattice, X: np.ndarray, frame: np.ndarray, n_steps: int) -> np.ndarray:
    """Exponents (runs, k) by the loop that one writes in NumPy."""
    Q = np.array(np.broadcast_to(frame, (len(X), *frame.shape)))
    total = np.zeros((len(X), frame.shape[1]))
    for _ in range(n_steps):
        Z = lattice.tangent(X, Q)
        X = lattice.step(X)
        Q, R = np.linalg.qr(Z)
        total += np.log(np.abs(np.diagonal(R, axis1=1, axis2=2)))
    return total / n_steps


class VectorizedMap:
    """64 orbits of a lattice of 1,000 maps, k = 10, beside the same loop written by hand."""

    params = (["pylyap", "by hand"],)
    param_names = ("loop",)
    n, k, runs, n_steps = 1000, 10, 64, 20

    def setup(self, loop: str) -> None:
        self.lattice = Lattice()
        self.system = pl.DiscreteMap(
            self.lattice.step, tangent=self.lattice.tangent, n=self.n, vectorized=True
        )
        rng = np.random.default_rng(0)
        self.x0 = rng.random((self.runs, self.n))
        self.frame = np.linalg.qr(rng.normal(size=(self.n, self.k)))[0]

    def run(self, loop: str, n_steps: int = n_steps) -> np.ndarray:
        if loop == "by hand":
            return by_hand(self.lattice, self.x0, self.frame, n_steps)
        return pl.lyapunov_spectrum(
            self.system, self.x0, n_steps, frame=self.frame, record_every=n_steps
        ).exponents

    def time_exponents(self, loop: str) -> None:
        self.run(loop)

    def peakmem_exponents(self, loop: str) -> None:
        self.run(loop)

    def track_ratio(self, loop: str) -> float:
        """Time of the loop in units of that by hand, in alternation in one process."""
        times: dict[str, list[float]] = {"by hand": [], loop: []}
        for _ in range(5):
            for which, taken in times.items():
                begin = time.perf_counter()
                self.run(which)
                taken.append(time.perf_counter() - begin)
        return float(np.median(times[loop]) / np.median(times["by hand"]))

    track_ratio.unit = "times by hand"

    def track_agreement(self, loop: str) -> float:
        """Both loops give the same exponents, up to rounding that a chaotic map amplifies."""
        return digits(float(np.abs(self.run(loop, 5) - self.run("by hand", 5)).max()))

    track_agreement.unit = "digits"
