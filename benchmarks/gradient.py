from __future__ import annotations

import numpy as np

from . import digits, training


class Gradient:
    """The gradient of many runs at once."""

    params = ([3, 10, 40], [150, 3000])
    param_names = ("n_hidden", "n_samples")

    def setup(self, n_hidden: int, n_samples: int) -> None:
        self.system, self.weights = training(n_hidden, 1024, n_samples)

    def time_gradient(self, n_hidden: int, n_samples: int) -> None:
        self.system.gradient(self.weights)

    def peakmem_gradient(self, n_hidden: int, n_samples: int) -> None:
        self.system.gradient(self.weights)

    def track_softmax_law(self, n_hidden: int, n_samples: int) -> float:
        """The residuals of a softmax sum to zero, and so does the gradient of its biases."""
        gradient = self.system.gradient(self.weights)
        error = np.abs(gradient[:, -3:].sum(axis=1)) / np.linalg.norm(gradient, axis=1)
        return digits(error.max())

    track_softmax_law.unit = "digits"
