from __future__ import annotations

import numpy as np

from . import digits, shift, training


class Jacobian:
    """The full Jacobian of one step."""

    params = ([3, 10, 40], [16, 128])
    param_names = ("n_hidden", "runs")

    def setup(self, n_hidden: int, runs: int) -> None:
        self.system, self.weights = training(n_hidden, runs, n_samples=600)

    def time_jacobian(self, n_hidden: int, runs: int) -> None:
        self.system.jacobian(self.weights)

    def peakmem_jacobian(self, n_hidden: int, runs: int) -> None:
        self.system.jacobian(self.weights)

    def track_softmax_law(self, n_hidden: int, runs: int) -> float:
        """The shift of all logits is invariant under the Jacobian."""
        direction = shift(self.system)
        moved = self.system.jacobian(self.weights) @ direction - direction
        return digits(np.abs(moved).max())

    track_softmax_law.unit = "digits"
