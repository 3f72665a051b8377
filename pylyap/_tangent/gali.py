"""GALI: how fast deviation vectors that are left alone fall onto each other."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._errors import ArgumentError
from pylyap._tangent.benettin import benettin
from pylyap._tangent.frames import plan_runs
from pylyap.maps import Map, Method


def gali(
    system: Map,
    w0: ArrayLike,
    n_steps: int,
    k: int | None = None,
    record_every: int = 1,
    *,
    frame: ArrayLike | None = None,
    start: int = 0,
    method: Method | None = None,
    threads: int | None = None,
    progress: bool = False,
    seed: Any = 0,
) -> Floats:
    """Logarithms of the generalised alignment indices along runs.

    GALI_j is the volume of the parallelepiped of j deviation vectors of unit length that are never
    made orthogonal: 1 at the start, exp(−t [(λ₁ − λ₂) + … + (λ₁ − λ_j)]) where motion is chaotic,
    constant or a power of t where it is regular.

    Parameters
    ----------
    system, w0, n_steps, frame, start, method, threads, progress, seed
        As in `lyapunov_spectrum`; the deviation vectors start as the columns of the frame, made
        orthonormal.
    k
        Number of deviation vectors, 2 ... n; all by default.
    record_every
        Steps between two values; divides `n_steps`.

    Returns
    -------
    (..., n_steps // record_every + 1, k - 1) array
        ln GALI_2 ... ln GALI_k, accurate long after the indices themselves underflow. -inf where
        a direction was destroyed, nan from the record in which a run diverged.

    Raises
    ------
    ValueError, TypeError
        As `lyapunov_spectrum`, and for k < 2.

    References
    ----------
    Skokos, Bountis, Antonopoulos, Physica D 231, 30 (2007).
    """
    plan = plan_runs(system, w0, n_steps, k, 0, frame, start, method, seed)
    every = _checks.integer("record_every", record_every, least=1)
    if plan.k < 2:
        raise ArgumentError("k", f"must be at least 2, got {plan.k}")
    if plan.n_steps % every:
        raise ArgumentError("record_every", f"must divide n_steps={plan.n_steps}, got {every}")
    arrays = benettin(plan, 1, every, segment=every, threads=threads, progress=progress)
    products, scales = arrays.products, arrays.exponents
    assert products is not None
    assert scales is not None
    records = plan.n_steps // every
    result = np.zeros((plan.runs, records + 1, plan.k - 1))
    vectors = np.broadcast_to(np.eye(plan.k), (plan.runs, plan.k, plan.k))  # in the run's frame
    orthogonal, alone = np.zeros((plan.runs, plan.k)), np.zeros((plan.runs, plan.k))
    with np.errstate(divide="ignore", invalid="ignore", under="ignore"):
        for r in range(records):
            # Rows of the product have a power of two of their own, which may be out of range.
            scale = scales[:, r]
            largest = scale.max(axis=-1, keepdims=True)
            factor = np.exp2(scale - largest)[..., np.newaxis] * products[:, r]
            vectors = np.einsum("rij,rjk->rik", factor, vectors)
            length = np.sqrt((vectors**2).sum(axis=-2))
            alone += np.log(length) + np.log(2.0) * largest
            vectors = vectors / np.where(length > 0, length, 1.0)[:, np.newaxis]
            orthogonal += arrays.growth[:, r]
            # The volume is that of the orthogonal parts over the product of the lengths.
            share = np.where(np.isneginf(orthogonal), -np.inf, orthogonal - alone)
            result[:, r + 1] = np.cumsum(share, axis=-1)[:, 1:]
    return result.reshape((*plan.batch, records + 1, plan.k - 1))
