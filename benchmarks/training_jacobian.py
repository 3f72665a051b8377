"""Singular values of the propagator of a whole training."""

from __future__ import annotations

import numpy as np

import pylyap as pl


class TrainingJacobian:
    """All and the five largest singular values of 50 steps of a 4-10-3 and a 4-24-3 network."""

    params = ([10, 24], [None, 5])
    param_names = ("n_hidden", "k")
    timeout = 300

    def setup(self, n_hidden: int, k: int | None) -> None:
        X, y = pl.datasets.iris()
        net = pl.Network((4, n_hidden, 3), activation="tanh", loss="cross_entropy")
        optimizer = pl.GradientDescent(lr=0.02, momentum=0.5, batch_size=50)
        self.system = pl.TrainingMap(net, X, y, optimizer)
        self.start = net.init("normal", scale=0.5, seed=0)

    def time_singular_values(self, n_hidden: int, k: int | None) -> None:
        pl.training_jacobian(self.system, self.start, 50, k)

    def track_accuracy(self, n_hidden: int, k: int | None) -> float:
        """Decimal digits: all values obey the determinant law, the largest equal those of all."""
        found = pl.training_jacobian(self.system, self.start, 50, k).log_singular_values
        if k is None:
            path = self.system.trajectory(self.start, 50)
            dets = [
                np.linalg.slogdet(self.system.jacobian(x, t))[1] for t, x in enumerate(path[:-1])
            ]
            error = abs(found.sum() / np.sum(dets) - 1.0)
        else:
            whole = pl.training_jacobian(self.system, self.start, 50).log_singular_values
            error = np.abs(found - whole[:k]).max()
        return float(-np.log10(max(error, 1e-17)))


class LargeTraining:
    """The three largest and smallest singular values of 20 steps of a 64-32-10 network."""

    params = (["largest", "smallest"], [0.0, 0.9])
    param_names = ("which", "momentum")
    timeout = 300

    def setup(self, which: str, momentum: float) -> None:
        rng = np.random.default_rng(0)
        X, y = rng.uniform(size=(256, 64)), rng.integers(10, size=256)
        net = pl.Network((64, 32, 10), activation="gelu", loss="cross_entropy")
        optimizer = pl.GradientDescent(lr=0.1, momentum=momentum, batch_size=64)
        self.system = pl.TrainingMap(net, X, y, optimizer)
        self.start = net.init("lecun_normal", seed=0)

    def time_singular_values(self, which: str, momentum: float) -> None:
        pl.training_jacobian(self.system, self.start, 20, 3, which)

    def track_error(self, which: str, momentum: float) -> float:
        """Decimal digits of the extreme one, by the estimate."""
        found = pl.training_jacobian(self.system, self.start, 20, 3, which)
        return float(-np.log10(found.error[0 if which == "largest" else -1]))


class ProjectedTraining:
    """50 steps of training in a subspace, step and tangent."""

    params = ([10, 24],)
    param_names = ("n_hidden",)

    def setup(self, n_hidden: int) -> None:
        X, y = pl.datasets.iris()
        net = pl.Network((4, n_hidden, 3), activation="tanh", loss="cross_entropy")
        optimizer = pl.GradientDescent(lr=0.02, momentum=0.5, batch_size=50)
        U = np.linalg.qr(np.random.default_rng(0).normal(size=(net.n_params, 20)))[0]
        self.map = pl.ProjectedMap(pl.TrainingMap(net, X, y, optimizer), U)
        self.start = net.init("normal", scale=0.5, seed=0)

    def time_spectrum(self, n_hidden: int) -> None:
        pl.lyapunov_spectrum(self.map, self.start, 50, 5)

    def track_adjoint(self, n_hidden: int) -> float:
        """Decimal digits of ⟨Ju, v⟩ = ⟨u, Jᵀv⟩."""
        u, v = np.random.default_rng(1).normal(size=(2, self.map.n))
        x = self.map.state(self.start)
        error = abs(self.map.tangent(x, u) @ v - self.map.adjoint(x, v) @ u)
        return float(-np.log10(max(error, 1e-17)))
