"""Generalised alignment indices (GALI): volumes spanned by deviation vectors along a run."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from pylyap import _checks
from pylyap._checks import Floats, Seed
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
    seed: Seed = 0,
) -> Floats:
    """Logarithms of the generalised alignment indices along runs.

    GALI_j is the volume of the parallelepiped spanned by j deviation vectors of unit length, which
    are not orthonormalised.

    Parameters
    ----------
    system : Map
        A `TrainingMap`, a `DiscreteMap`, or any object with `n`, `step` and `tangent`.
    w0 : array_like, shape (..., n) or (..., n_params)
        Initial states or weights, one run per row.
    n_steps : int
        Number of steps.
    k : int, optional
        Number of deviation vectors, 2 … n. By default all.
    record_every : int, default 1
        Steps between two values, a divisor of `n_steps`.
    frame : array_like, shape (n, k) or (..., n, k), optional
        Initial deviation vectors, linearly independent; they are orthonormalised. By default
        random.
    start : int, default 0
        Index t of the first step, which selects the minibatch and Adam's bias correction.
    method : {"dense", "matrix-free"}, optional
        Tangents of a `TrainingMap`. By default the faster one.
    threads : int, optional
        Number of threads. By default, and at most, all cores available to the process. Results do
        not depend on it.
    progress : bool, default False
        Show a progress bar on stderr.
    seed : int, SeedSequence or Generator, default 0
        Seed of the random deviation vectors. From a Generator one int is drawn.

    Returns
    -------
    ndarray, shape (..., n_steps // record_every + 1, k - 1)
        ln GALI_2 … ln GALI_k, accurate long after the indices underflow. -inf if a direction was
        destroyed, nan from the record in which a run diverged.

    Raises
    ------
    ArgumentError
        If `k` is below 2 or exceeds n, `record_every` does not divide `n_steps`, or the result does
        not fit in memory.

    See Also
    --------
    lyapunov_spectrum : Lyapunov exponents along runs.

    Notes
    -----
    All indices are 1 at the start. For chaotic motion GALI_j decreases as
    exp(−t [(λ₁ − λ₂) + … + (λ₁ − λ_j)]); for regular motion it is constant or a power of t.

    References
    ----------
    Skokos, Bountis, Antonopoulos, Physica D 231, 30 (2007).

    Examples
    --------
    >>> henon = pl.DiscreteMap(
    ...     lambda x: np.array([1.0 - 1.4 * x[0] ** 2 + x[1], 0.3 * x[0]]),
    ...     lambda x: np.array([[-2.8 * x[0], 1.0], [0.3, 0.0]]),
    ...     n=2,
    ... )
    >>> indices = pl.gali(henon, [0.1, 0.1], 1000, record_every=100)
    >>> indices.shape
    (11, 1)
    >>> bool(indices[-1, 0] < -1000)  # two vectors align in chaotic motion
    True
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
    # Coordinates of the deviation vectors in the frame of the run.
    vectors = np.broadcast_to(np.eye(plan.k), (plan.runs, plan.k, plan.k))
    log_orthogonal, log_length = np.zeros((plan.runs, plan.k)), np.zeros((plan.runs, plan.k))
    with np.errstate(divide="ignore", invalid="ignore", under="ignore"):
        for r in range(records):
            # Each row of the product has its own power of two, which may be out of range.
            scale = scales[:, r]
            largest = scale.max(axis=-1, keepdims=True)
            factor = np.exp2(scale - largest)[..., np.newaxis] * products[:, r]
            vectors = np.einsum("rij,rjk->rik", factor, vectors)
            length = np.sqrt((vectors**2).sum(axis=-2))
            log_length += np.log(length) + np.log(2.0) * largest
            vectors = vectors / np.where(length > 0, length, 1.0)[:, np.newaxis]
            log_orthogonal += arrays.growth[:, r]
            # GALI_j is the product of the orthogonal components over the product of the lengths.
            log_ratio = np.where(np.isneginf(log_orthogonal), -np.inf, log_orthogonal - log_length)
            result[:, r + 1] = np.cumsum(log_ratio, axis=-1)[:, 1:]
    return result.reshape((*plan.batch, records + 1, plan.k - 1))
