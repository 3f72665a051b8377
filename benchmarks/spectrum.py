from __future__ import annotations

from typing import ClassVar

import numpy as np

import pylyap as pl

from . import digits, training


class Growth:
    """A spectrum on one thread, with each size at one, two and four times its base value."""

    params = (["hidden", "k", "samples", "runs", "steps"], [1, 2, 4])
    param_names = ("what", "times")
    base: ClassVar = {"hidden": 5, "k": 5, "samples": 150, "runs": 32, "steps": 50}

    def setup(self, what: str, times: int) -> None:
        size = self.base | {what: self.base[what] * times}
        self.system, self.weights = training(size["hidden"], size["runs"], size["samples"])
        self.n_steps, self.k = size["steps"], size["k"]

    def run(self) -> pl.Spectrum:
        return pl.lyapunov_spectrum(self.system, self.weights, self.n_steps, k=self.k, threads=1)

    def time_spectrum(self, what: str, times: int) -> None:
        self.run()

    def peakmem_spectrum(self, what: str, times: int) -> None:
        self.run()

    def track_orthonormality(self, what: str, times: int) -> float:
        """The frame at the end is orthonormal."""
        frame = self.run().frame
        product = np.swapaxes(frame, -1, -2) @ frame
        return digits(np.abs(product - np.eye(frame.shape[-1])).max())

    track_orthonormality.unit = "digits"


class WholeSpectrum:
    """All n exponents, of one run and of many."""

    params = ([3, 10], [1, 64])
    param_names = ("n_hidden", "runs")
    n_steps = 100

    def setup(self, n_hidden: int, runs: int) -> None:
        self.system, self.weights = training(n_hidden, runs)

    def run(self) -> pl.Spectrum:
        return pl.lyapunov_spectrum(self.system, self.weights, self.n_steps, threads=1)

    def time_spectrum(self, n_hidden: int, runs: int) -> None:
        self.run()

    def peakmem_spectrum(self, n_hidden: int, runs: int) -> None:
        self.run()

    def track_determinant_law(self, n_hidden: int, runs: int) -> float:
        """All exponents sum to the mean of ln |det J|."""
        total = self.run().exponents.sum(axis=-1)
        states = self.system.trajectory(self.weights, self.n_steps - 1)
        mean = np.mean(
            [np.linalg.slogdet(self.system.jacobian(x))[1] for x in np.moveaxis(states, 1, 0)],
            axis=0,
        )
        return digits(np.abs(total / mean - 1).max())

    track_determinant_law.unit = "digits"


class Threads:
    """Threads over the runs of small nets, and over blocks of samples or vectors of one run."""

    cases: ClassVar = {
        "64 runs of 4-10-3": ((10,), 64, 600),
        "one run of 4-300-3": ((300,), None, 600),
        "one run of 4-40-40-3": ((40, 40), None, 600),
        "one run of 4-16-16-3, 120 samples": ((16, 16), None, 120),
    }
    params = (list(cases), [1, 2])
    param_names = ("what", "threads")

    def setup(self, what: str, threads: int) -> None:
        self.system, self.weights = training(*self.cases[what])

    def run(self, threads: int) -> pl.Spectrum:
        return pl.lyapunov_spectrum(self.system, self.weights, 20, k=10, threads=threads)

    def time_spectrum(self, what: str, threads: int) -> None:
        self.run(threads)

    def peakmem_spectrum(self, what: str, threads: int) -> None:
        self.run(threads)

    def track_same_bits(self, what: str, threads: int) -> float:
        """1 if the growth has the same bits as with one thread."""
        return float(np.array_equal(self.run(threads).growth, self.run(1).growth))


class FiniteTime:
    """Finite-time exponents, from the frame's growth and from singular values."""

    params = (["qr", "svd"],)
    param_names = ("kind",)

    def setup(self, kind: str) -> None:
        self.system, self.weights = training(5, 32)

    def time_ftle(self, kind: str) -> None:
        pl.ftle(self.system, self.weights, 100, window=20, stride=10, kind=kind, threads=1)

    def peakmem_ftle(self, kind: str) -> None:
        self.time_ftle(kind)

    def track_determinant_law(self, kind: str) -> float:
        """The sums of all exponents of both kinds are equal."""
        sums = [
            pl.ftle(self.system, self.weights, 100, window=20, kind=each).sum(axis=-1)
            for each in ("qr", kind)
        ]
        return digits(np.abs(sums[1] / sums[0] - 1).max())

    track_determinant_law.unit = "digits"


class Orthonormalise:
    """Orthonormalisation of a frame of condition 1e8."""

    params = ([41, 2410], [10, 41])
    param_names = ("n", "k")

    def setup(self, n: int, k: int) -> None:
        rng = np.random.default_rng(0)
        left, right = (np.linalg.qr(rng.normal(size=(m, k)))[0] for m in (n, k))
        self.frame = left * np.geomspace(1, 1e-8, k) @ right.T

    def run(self) -> np.ndarray:
        from pylyap._native import core

        return core.orthonormalise(self.frame, None)[0]

    def time_orthonormalise(self, n: int, k: int) -> None:
        self.run()

    def peakmem_orthonormalise(self, n: int, k: int) -> None:
        self.run()

    def track_orthonormality(self, n: int, k: int) -> float:
        Q = self.run()
        return digits(np.linalg.norm(Q.T @ Q - np.eye(k), 2))

    track_orthonormality.unit = "digits"


class SpectrumOfMinibatches:
    """Leading exponents of wide nets on images: memory is proportional to n k."""

    params = (["784-128-10", "784-512-512-10"], [1, 2, 5, 10])
    param_names = ("layers", "k")

    def setup(self, layers: str, k: int) -> None:
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (1000, 28, 28), dtype=np.uint8)
        net = pl.Network(
            tuple(map(int, layers.split("-"))), activation="relu", loss="cross_entropy"
        )
        rule = pl.GradientDescent(lr=0.1, batch_size=128)
        self.system = pl.TrainingMap(net, images, rng.integers(0, 10, 1000), rule)
        self.weights = net.init(seed=0)

    def run(self, k: int) -> pl.Spectrum:
        return pl.lyapunov_spectrum(self.system, self.weights, 4, k, record_every=4)

    def time_spectrum(self, layers: str, k: int) -> None:
        self.run(k)

    def peakmem_spectrum(self, layers: str, k: int) -> None:
        self.run(k)

    def track_orthonormality(self, layers: str, k: int) -> float:
        frame = self.run(k).frame
        return digits(np.abs(frame.T @ frame - np.eye(k)).max())

    track_orthonormality.unit = "digits"
