from __future__ import annotations

import numpy as np

import pylyap as pl

from . import digits


class StabilityMap:
    """Two learning rates of a network of 16-16-1 units without biases, on 272 samples."""

    params = ([8], [64])
    param_names = ("side", "steps")

    def setup(self, side: int, steps: int) -> None:
        rng = np.random.default_rng(0)
        n = 16
        forward = np.array([np.sqrt(2 / n), 1 / n])
        net = pl.Network((n, n, 1), activation="tanh", loss="mse")
        rule = pl.GradientDescent(lr=1.0, layer_scale=2 * forward**2, bias_scale=0)
        self.system = pl.TrainingMap(net, rng.normal(size=(272, n)), rng.normal(size=272), rule)
        W, u = rng.normal(size=(n, n)), rng.normal(size=(1, n))
        self.w0 = net.pack([(forward[0] * W, np.zeros(n)), (forward[1] * u, np.zeros(1))])
        self.run(side, 2)

    def run(self, side: int, steps: int) -> pl.StabilityMap:
        return pl.stability_map(
            self.system,
            ("lr_0", (1.0, 100.0, "log")),
            ("lr_1", (1.0, 100.0, "log")),
            (side, side),
            steps,
            w0=self.w0,
            threads=1,
        )

    def time_map(self, side: int, steps: int) -> None:
        self.run(side, steps)

    def peakmem_map(self, side: int, steps: int) -> None:
        self.run(side, steps)


class BorderDimension:
    """The border of the sum of two random walks, whose dimension is 3/2."""

    params = ([513],)
    param_names = ("side",)

    def setup(self, side: int) -> None:
        across, down = np.cumsum(np.random.default_rng(0).normal(size=(2, side)), axis=1)
        self.ends = across + down[:, np.newaxis] > 0

    def time_box_dimension(self, side: int) -> None:
        pl.box_dimension(self.ends)

    def time_uncertainty_exponent(self, side: int) -> None:
        pl.uncertainty_exponent(self.ends)

    def track_dimension(self, side: int) -> float:
        return digits(abs(pl.box_dimension(self.ends).dimension - 1.5))

    track_dimension.unit = "digits"
