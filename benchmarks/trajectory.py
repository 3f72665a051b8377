from __future__ import annotations

import numpy as np

import pylyap as pl

from . import digits, training


class Trajectory:
    """Training without tangent vectors, by activation; only the last weights are kept."""

    params = ([3, 40], ["tanh", "sigmoid", "relu", "softplus", "gelu", "sin"])
    param_names = ("n_hidden", "activation")
    n_steps = 200

    def setup(self, n_hidden: int, activation: str) -> None:
        self.system, self.weights = training(n_hidden, 64, activation=activation)

    def run(self) -> np.ndarray:
        return self.system.trajectory(self.weights, self.n_steps, every=self.n_steps)

    def time_trajectory(self, n_hidden: int, activation: str) -> None:
        self.run()

    def peakmem_trajectory(self, n_hidden: int, activation: str) -> None:
        self.run()

    def track_softmax_law(self, n_hidden: int, activation: str) -> float:
        """The residuals of a softmax sum to zero, so the sum of its biases is constant."""
        first, last = np.moveaxis(self.run(), 1, 0)
        moved = np.abs((last - first)[:, -3:].sum(axis=1)).max()
        return digits(moved / np.abs(last - first).max())

    track_softmax_law.unit = "digits"


class Minibatches:
    """Epochs of small batches, gathered at every step."""

    params = ([1, 16, 128],)
    param_names = ("batch_size",)

    def setup(self, batch_size: int) -> None:
        net = training(10, 64)[0].network
        X, y = np.random.default_rng(0).normal(size=(640, 4)), np.arange(640) % 3
        self.system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=0.1, batch_size=batch_size))
        self.weights = net.init("glorot_normal", runs=64, seed=0)

    def time_trajectory(self, batch_size: int) -> None:
        self.system.trajectory(self.weights, 200, every=200)

    def peakmem_trajectory(self, batch_size: int) -> None:
        self.time_trajectory(batch_size)

    def track_same_bits(self, batch_size: int) -> float:
        """1 if a run has the same bits alone and in a batch."""
        together = self.system.trajectory(self.weights, 40, every=40)
        alone = self.system.trajectory(self.weights[17], 40, every=40)
        return float(np.array_equal(together[17], alone))


class Pictures:
    """Stochastic gradient descent of wide nets on uint8 images."""

    params = ([64, 256], ["float64", "float32"])
    param_names = ("width", "dtype")
    n_steps = 20

    def setup(self, width: int, dtype: str) -> None:
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (2000, 28, 28), dtype=np.uint8)
        labels = rng.integers(0, 10, 2000)
        net = pl.Network((784, width, width, 10), activation="relu", loss="cross_entropy")
        rule = pl.GradientDescent(lr=0.1, batch_size=128)
        self.system = pl.TrainingMap(net, images, labels, rule, dtype=dtype)
        self.weights = net.init(seed=0)

    def run(self) -> np.ndarray:
        return self.system.trajectory(self.weights, self.n_steps, every=self.n_steps)

    def time_trajectory(self, width: int, dtype: str) -> None:
        self.run()

    def peakmem_trajectory(self, width: int, dtype: str) -> None:
        self.run()

    def track_softmax_law(self, width: int, dtype: str) -> float:
        """The residuals of a softmax sum to zero, so the sum of its biases is constant."""
        first, last = self.run()
        return digits(abs((last - first)[-10:].sum()) / np.abs(last - first).max())

    track_softmax_law.unit = "digits"
