"""Short calls of a small network, where Python takes longer than the kernels."""

from __future__ import annotations

import numpy as np

import pylyap as pl


class Calls:
    """One step of a 2-3-1 network, alone."""

    def setup(self) -> None:
        net = pl.Network((2, 3, 1))
        self.system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent(lr=0.1))
        self.weights = net.init(seed=0)
        self.vectors = np.eye(self.system.n)[:, :3].copy()

    def time_spectrum(self) -> None:
        pl.lyapunov_spectrum(self.system, self.weights, 1, k=3)

    def time_ftle(self) -> None:
        pl.ftle(self.system, self.weights, 1, window=1, k=3)

    def time_covariant(self) -> None:
        pl.covariant_lyapunov_vectors(self.system, self.weights, 1, k=3)

    def time_sharpness(self) -> None:
        pl.sharpness(self.system, self.weights)

    def time_step(self) -> None:
        self.system.step(self.weights)

    def time_tangent(self) -> None:
        self.system.tangent(self.weights, self.vectors)

    def time_trajectory(self) -> None:
        self.system.trajectory(self.weights, 1)

    def time_loss(self) -> None:
        self.system.loss(self.weights)
