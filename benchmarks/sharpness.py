"""Kinds of sharpness along training, of gradient descent and Adam."""

from __future__ import annotations

import numpy as np

import pylyap as pl

from . import digits


class SharpnessAlong:
    """Every kind at 21 states of four runs, with minibatches of 30 of Iris's 150 flowers."""

    params = (["hessian", "preconditioned", "batch", "gradient", "critical"],)
    param_names = ("kind",)

    def setup(self, kind: str) -> None:
        X, y = pl.datasets.iris()
        net = pl.Network((4, 20, 3), activation="tanh", loss="cross_entropy")
        self.system = pl.TrainingMap(net, X, y, pl.Adam(lr=0.01, batch_size=30))
        self.start = net.init("glorot_uniform", runs=4, seed=0)

    def time_along(self, kind: str) -> None:
        pl.sharpness_along(self.system, self.start, 200, 10, kind=kind)

    def track_accuracy(self, kind: str) -> float:
        """Digits of agreement with dense matrices; for critical rates, of the loss at the rate."""
        net, n, t = self.system.network, self.system.n_params, 50
        x = self.system.trajectory(self.start, t, every=t)[:, -1]
        found = pl.sharpness(self.system, x, kind=kind, t=t, tol=1e-10).value
        w, H, g = x[:, :n], self.system.hessian(x), self.system.gradient(x)
        rows = self.system.batch(t)
        part = pl.TrainingMap(net, self.system.X[rows], self.system.y[rows], pl.GradientDescent())
        v = 0.999 * x[:, 2 * n :] + 0.001 * part.gradient(w) ** 2
        P = (1 - 0.9 ** (t + 1)) * (np.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8)
        if kind == "critical":
            update = self.system.step(x, t)[:, :n] - w
            moved = w + update * (2.0 / found / 0.01)[:, np.newaxis]
            return digits(float(np.abs(self.system.loss(moved) / self.system.loss(w) - 1).max()))
        if kind == "batch":
            parts = []
            for s in range(t, t + 5):
                rows = self.system.batch(s)
                descent = pl.GradientDescent()
                part = pl.TrainingMap(net, self.system.X[rows], self.system.y[rows], descent)
                g, H = part.gradient(w), part.hessian(w)
                parts.append(np.einsum("ri,rij,rj->r", g, H, g) / (g**2).sum(1))
            expected = np.mean(parts, axis=0)
        elif kind == "gradient":
            u = g / P
            expected = np.einsum("ri,rij,rj->r", u, H, u) / (u * P * u).sum(1)
        else:
            if kind == "preconditioned":
                H = H / np.sqrt(P[:, :, None] * P[:, None, :])
            expected = np.linalg.eigvalsh(H)[:, -1]
        return digits(float(np.abs(found / expected - 1).max()))

    track_accuracy.unit = "digits"  # type: ignore[attr-defined]
