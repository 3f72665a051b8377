"""Long trajectories in pieces of bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from pylyap._checks import Floats

Advance = Callable[[Floats, int, int], Floats]


def stream(
    advance: Advance, states: Floats, n_records: int, *, n_bytes: float, per_record: int = 1
) -> Iterator[tuple[int, Floats]]:
    """Compute a trajectory piece by piece; each piece starts from the last states of the previous.

    Parameters
    ----------
    advance : callable
        ``advance(states, done, count)`` returns the trajectory over the next `count` records from
        `states`, after `done` records: shape (..., count * per_record + 1, n), the initial states
        included.
    states : ndarray, shape (..., n)
        Initial states.
    n_records : int
        Length of the trajectory, in records.
    n_bytes : float
        Size of a piece. One record is computed in any case.
    per_record : int, default 1
        States of the trajectory per record.

    Yields
    ------
    done : int
        Records before this piece.
    path : ndarray, shape (..., count * per_record + 1, n)
        The piece.
    """
    runs = max(1, math.prod(states.shape[:-1]))
    size = max(1, int(n_bytes / (8.0 * runs * states.shape[-1] * per_record)))
    for done in range(0, n_records, size):
        path = advance(states, done, min(size, n_records - done))
        yield done, path
        states = np.ascontiguousarray(path[..., -1, :])
