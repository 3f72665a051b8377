from __future__ import annotations

import numpy as np

from . import digits, shift, training


class Tangent:
    """J @ V without the matrix, for several sizes of the net and numbers of vectors."""

    params = ([3, 10, 40], [1, 10, 27])  # 27: all of the smallest net
    param_names = ("n_hidden", "k")
    n_samples = 150

    def setup(self, n_hidden: int, k: int) -> None:
        self.system, self.weights = training(n_hidden, 256, self.n_samples)
        rng = np.random.default_rng(1)
        self.vectors = rng.normal(size=(len(self.weights), self.system.n, k))

    def time_tangent(self, n_hidden: int, k: int) -> None:
        self.system.tangent(self.weights, self.vectors)

    def peakmem_tangent(self, n_hidden: int, k: int) -> None:
        self.system.tangent(self.weights, self.vectors)

    def track_softmax_law(self, n_hidden: int, k: int) -> float:
        """The shift of all logits is invariant under a tangent step."""
        vectors = np.broadcast_to(shift(self.system), self.vectors.shape)
        return digits(np.abs(self.system.tangent(self.weights, vectors) - vectors).max())

    track_softmax_law.unit = "digits"


class TangentOfManySamples(Tangent):
    params = ([10], [1, 10])
    n_samples = 6000
