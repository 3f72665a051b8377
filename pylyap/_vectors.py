"""Tangent vectors that a caller gives with states: checks, and their common batch."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._errors import ArgumentError


def columns(V: ArrayLike, n: int) -> Floats:
    """Vectors (..., n, k), one vector (n,) as a column."""
    vectors = _checks.floats("V", V, finite=False)
    if vectors.ndim == 1:
        vectors = vectors[:, np.newaxis]
    if vectors.ndim < 2 or vectors.shape[-2] != n or vectors.shape[-1] == 0:
        raise ArgumentError("V", f"must have shape (..., {n}, k) with k >= 1, got {np.shape(V)}")
    return vectors


def paired(
    flat: Floats, batch: tuple[int, ...], vectors: Floats, given: tuple[int, ...]
) -> tuple[Floats, Floats, tuple[int, ...]]:
    """States (m, n), the vectors (m, n, k) of each, and the shape of their common batch.

    `flat` are the states (runs, n) of a batch; the batch of `vectors`, given in the shape `given`,
    broadcasts against it.
    """
    tail, whole = vectors.shape[-2:], batch
    if vectors.shape[:-2] != batch:
        try:
            whole = np.broadcast_shapes(batch, vectors.shape[:-2])
        except ValueError:
            raise ArgumentError(
                "V", f"must broadcast against states of batch shape {batch}, got {given}"
            ) from None
        n = flat.shape[-1]
        flat = np.broadcast_to(flat.reshape((*batch, n)), (*whole, n)).reshape(-1, n)
        vectors = np.broadcast_to(vectors, (*whole, *tail))
    return np.ascontiguousarray(flat), vectors.reshape(-1, *tail), whole
