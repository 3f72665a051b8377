"""The Hessian as an optimiser with factors of the layers sees it.

With D the diagonal of the factors of the learning rate, K = H + decay and a step I − lr D K, the
curvatures that decide on stability are the eigenvalues of √D K √D. The decay is subtracted again,
H' = √D K √D − decay, so that thresholds and ratios are computed from H' as from H.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pylyap._checks import Floats
from pylyap._map_runs import MapRuns
from pylyap._runs import TrainingRuns

Multiply = Callable[[Floats, Floats], Floats]  # weights (runs, p), vectors (runs, p) -> (runs, p)


@dataclass(frozen=True)
class Scaling:
    """√D (runs, p) and the weight decay (runs, 1) of each run."""

    roots: Floats
    decay: Floats

    def rows(self, weights: Floats) -> Floats:
        """Rows for `product`, which carry the weights (runs, p) and the settings of each run."""
        return np.concatenate([weights, self.roots, self.decay], axis=1)

    def hessians(self, H: Floats) -> Floats:
        """H' of Hessians (..., p, p)."""
        flat = H.reshape(-1, *H.shape[-2:])
        identity = np.eye(H.shape[-1])
        shift = self.decay[:, :, np.newaxis] * identity
        scaled = self.roots[:, :, np.newaxis] * (flat + shift) * self.roots[:, np.newaxis] - shift
        return scaled.reshape(H.shape)


def scaling(maps: TrainingRuns | MapRuns, batch: tuple[int, ...], times: int) -> Scaling | None:
    """The scaling of the runs of a batch; None without factors.

    The last `times` axes of the batch follow those of the rates.
    """
    if isinstance(maps, MapRuns) or maps.parameter_factors is None:
        return None
    factors, decay = maps.parameter_factors, np.asarray(maps.optimizer.weight_decay)
    p = factors.shape[-1]
    if factors.ndim > 1:
        factors = factors.reshape((*factors.shape[:-1], *[1] * times, p))
    if decay.ndim:
        decay = decay.reshape((*decay.shape, *[1] * times))
    roots = np.sqrt(np.broadcast_to(factors, (*batch, p))).reshape(-1, p)
    return Scaling(roots, np.broadcast_to(decay, batch).reshape(-1, 1).astype(np.float64))


def product(multiply: Multiply) -> Multiply:
    """Products with H' for rows of `Scaling.rows`, from products with H."""

    def scaled(rows: Floats, vectors: Floats) -> Floats:
        p = vectors.shape[1]
        roots, decay = rows[:, p : 2 * p], rows[:, 2 * p :]
        along = roots * vectors
        image = multiply(np.ascontiguousarray(rows[:, :p]), along) + decay * along
        return roots * image - decay * vectors

    return scaled
