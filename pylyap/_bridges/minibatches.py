"""Minibatches of any data, the same function of (seed, epoch) as those of a `TrainingMap`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pylyap._errors import ArgumentError
from pylyap.maps import TrainingMap
from pylyap.network import Network
from pylyap.optimizers import GradientDescent, Optimizer


class Minibatches:
    """Indices of the samples that each step sees.

    Parameters
    ----------
    optimizer : GradientDescent or Adam
        Has batch_size, shuffle and seed.
    n_samples : int
        Number of samples.

    Attributes
    ----------
    size, last : int
        Samples per step, and in the last step of an epoch.
    per_epoch : int
        Steps per epoch.
    full : bool
        Whether each step sees all samples.
    """

    def __init__(self, optimizer: Optimizer, n_samples: int) -> None:
        size = n_samples if optimizer.batch_size is None else optimizer.batch_size
        if size > n_samples:
            raise ArgumentError(
                "batch_size",
                f"must be at most the {n_samples} samples of the data, got {size}",
            )
        self.n_samples, self.size = n_samples, size
        self.per_epoch = -(-n_samples // size)
        self.last = n_samples - (self.per_epoch - 1) * size
        self.full = size == n_samples
        self._epoch, self._order = -1, np.empty(0, np.int64)
        if not self.full:
            # The order of an epoch does not depend on the batch size. With batches of all samples
            # but one an epoch has two steps, and the first of them gives the order.
            rule = GradientDescent(
                batch_size=n_samples - 1, shuffle=optimizer.shuffle, seed=optimizer.seed
            )
            zeros = np.zeros((n_samples, 1))
            self._map = TrainingMap(Network((1, 1)), zeros, zeros[:, 0], rule)

    def _order_of(self, epoch: int) -> NDArray[np.int64]:
        if epoch != self._epoch:
            first = self._map.batch(2 * epoch)
            missing = self.n_samples * (self.n_samples - 1) // 2 - int(first.sum())
            self._order, self._epoch = np.append(first, missing), epoch
        return self._order

    def indices(self, t: int) -> NDArray[np.int64]:
        """Samples of step t."""
        if self.full:
            return np.arange(self.n_samples)
        epoch, step = divmod(t, self.per_epoch)
        return self._order_of(epoch)[step * self.size : (step + 1) * self.size]

    def rows(self, start: int, n_steps: int, length: int) -> NDArray[np.int32]:
        """Samples of the steps start ... start + n_steps − 1, (length, size).

        Rows after these steps, and the end of a row of fewer samples, are 0.
        """
        rows = np.zeros((length, self.size), np.int32)
        for i in range(n_steps):
            chosen = self.indices(start + i)
            rows[i, : len(chosen)] = chosen
        return rows
