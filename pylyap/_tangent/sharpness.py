"""Extremes of the Hessian along training, against the rate at which they make it unstable."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._errors import ArgumentError
from pylyap._native import core
from pylyap.maps import TrainingMap, require_training
from pylyap.optimizers import Adam

Integers = NDArray[np.int64]

_KRYLOV_BYTES = 200e6  # of the states that are iterated together

# A larger eigenvalue may be missed with this probability, if it is farther away than `tol` and, in
# units of the largest, than _NEAREST: rounding allows for no less.
_MISSED = 1e-6
_NEAREST = 1e-8


@dataclass(frozen=True, eq=False)
class Sharpness:
    """The largest eigenvalue of the Hessian of the mean loss at some states.

    Attributes
    ----------
    value : (...)
        Largest (algebraic) eigenvalue; nan for states that are nan or whose Hessian overflows. It
        never exceeds the largest by more than rounding.
    ratio : (...)
        `value`, weight decay added, over the curvature at which a step of the optimiser becomes
        unstable: lr·λ/2 for plain gradient descent. 1 is the edge of stability. nan for Adam, which
        has no fixed one. A schedule of the rate counts along training only (`sharpness_along`).
    vector : (..., n_params)
        Its eigenvector, of unit length.
    residual : (...)
        ‖H v − λ v‖, an upper bound on the distance to an eigenvalue.
    n_products : (...)
        Hessian-vector products that it took.
    missed : (...)
        Significance of `value`: the probability, over the random start vector, that the Hessian has
        an eigenvalue above `value` + max(tol, 1e-8)·(the largest |eigenvalue| seen) and this number
        is p or less is at most p. 0 where the Krylov space is exhausted; above 1e-6 only where
        `max_products` did not suffice.
    """

    value: Floats
    ratio: Floats
    vector: Floats = field(repr=False)
    residual: Floats = field(repr=False)
    n_products: Integers = field(repr=False)
    missed: Floats = field(repr=False)


@dataclass(frozen=True, eq=False)
class HessianSpectrum:
    """All eigenvalues of the Hessian of the mean loss at some states.

    Attributes
    ----------
    eigenvalues : (..., n_params)
        Largest first; nan for states that are nan.
    ratio : (...)
        As in `Sharpness`, of the largest.
    """

    eigenvalues: Floats
    ratio: Floats

    @cached_property
    def negative(self) -> Floats:
        """(...) share of the eigenvalues below zero, by more than rounding of the largest."""
        size = np.abs(self.eigenvalues).max(axis=-1, keepdims=True)
        n = self.eigenvalues.shape[-1]
        below = self.eigenvalues < -n * np.finfo(float).eps * size
        result: Floats = np.where(np.isnan(size[..., 0]), np.nan, below.mean(axis=-1))
        return result


def sharpness(
    system: TrainingMap,
    x: ArrayLike,
    tol: float = 1e-8,
    max_products: int = 300,
    threads: int | None = None,
    seed: Any = 0,
) -> Sharpness:
    """The largest Hessian eigenvalue by Lanczos iteration, for a batch of states at once.

    Parameters
    ----------
    system
        The training; its optimiser enters through `Sharpness.ratio` alone.
    x : (..., n) or (..., n_params) array
        States or weights, such as a whole trajectory. Rates of the optimiser that are arrays
        broadcast against the batch of x. If they do not fit its last axes they belong to its
        first, as in a trajectory of their runs; where both would fit and differ, x is refused.
    tol
        A state is done when the residual ‖H v − λ v‖ is at most this, and a larger eigenvalue is
        excluded (see Notes), both in units of the largest |eigenvalue| seen.
    max_products
        Products at most per state; what has not converged by then says so by its `residual`, or by
        `missed`.
    threads
        As in `lyapunov_spectrum`.
    seed
        Of the start vector.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range, rates that are arrays fit the batch of x in no way or in
        two, or the Krylov vectors of a single state would not fit in memory.

    Notes
    -----
    A small residual tells that λ is an eigenvalue, not that it is the largest: the start vector may
    hardly contain the eigenvector of a larger one. With the orthonormal Lanczos polynomials p_j of
    a run of m steps, an eigenvalue at λ' has a share (v·b)² ≤ 1/K(λ'), K = Σ_{j≤m} p_j(λ')², of the
    start vector b, and K increases above the largest Ritz value. A random direction of n
    dimensions has so small a share with probability √(2n/(πK)) at most. Iteration goes on until
    that is 1e-6 at λ' = λ + δ: **with probability 1 − 1e-6 or more, for each state, no eigenvalue
    exceeds** `value` **by more than δ**, max(tol, 1e-8) times the largest |eigenvalue| seen. The
    start vector is the same for all states.

    References
    ----------
    Lanczos, J. Res. Natl. Bur. Stand. 45, 255 (1950). Kuczyński, Woźniakowski, SIAM J. Matrix Anal.
    Appl. 13, 1094 (1992), on random starts. Cohen et al., ICLR (2021), on the edge of stability.
    """
    require_training(system)
    tol = min(_checks.real("tol", tol, above=0.0), 1e100)  # times an eigenvalue it is finite
    steps = min(_checks.integer("max_products", max_products, least=1), system.n_params)
    states = system._runs.states(x, "x")
    batch: tuple[int, ...] = states.shape[:-1]
    times = _times(system, batch)
    if times:
        states = states.reshape(-1, system.n)
    else:
        states, batch = system._runs.flat(states, "x")
    weights = np.ascontiguousarray(system.weights(states))
    runs, n = weights.shape
    plain = system._runs.plain
    group = plain._runs.group
    each = 8.0 * n * (steps + 2)
    at_once = max(group, int(_KRYLOV_BYTES / each) // group * group)
    _checks.memory(
        f"{steps} Krylov vectors of length {n} for {min(at_once, runs)} states",
        min(at_once, runs) * each,
        "take a smaller max_products",
    )
    rng = np.random.default_rng(_checks.seed_sequence(seed))
    start: Floats = np.asarray(rng.standard_normal(n))
    parts = [
        _lanczos(plain, weights[i : i + at_once], start, steps, tol, threads)
        for i in range(0, max(runs, 1), at_once)
    ]
    value, residual, vector, products, missed = (
        np.concatenate(arrays) for arrays in zip(*parts, strict=True)
    )
    return Sharpness(
        value=value.reshape(batch)[()],
        ratio=_ratio(system, value.reshape(batch), times),
        vector=vector.reshape((*batch, n)),
        residual=residual.reshape(batch)[()],
        n_products=products.reshape(batch)[()],
        missed=missed.reshape(batch)[()],
    )


def hessian_spectrum(system: TrainingMap, x: ArrayLike) -> HessianSpectrum:
    """All eigenvalues of the Hessian at states x (..., n) or (..., n_params), for small nets.

    Rates that are arrays go with the batch of x as in `sharpness`. Raises ValueError if they do not
    or if the Hessians would not fit in memory.
    """
    require_training(system)
    states = system._runs.states(x, "x")
    times = _times(system, states.shape[:-1])
    if times == 0:
        system._runs.batch_with_rates(states.shape[:-1])
    H = system.hessian(states)
    fine = np.asarray(np.isfinite(H).all(axis=(-1, -2), keepdims=True))
    eigenvalues = np.linalg.eigvalsh(np.where(fine, H, 0.0))[..., ::-1]
    eigenvalues = np.where(fine[..., 0], eigenvalues, np.nan)
    return HessianSpectrum(eigenvalues, _ratio(system, eigenvalues[..., 0], times))


def sharpness_along(
    system: TrainingMap,
    w0: ArrayLike,
    n_steps: int,
    every: int = 1,
    *,
    start: int = 0,
    tol: float = 1e-6,
    max_products: int = 300,
    threads: int | None = None,
    seed: Any = 0,
) -> Sharpness:
    """Sharpness along training: at the start, and after every `every` steps.

    Parameters
    ----------
    system, w0, n_steps, every, start
        As in `TrainingMap.trajectory`; `every` divides `n_steps`.
    tol, max_products, threads, seed
        As in `sharpness`.

    Returns
    -------
    Sharpness
        With an axis of n_steps // every + 1 times after the batch; `ratio` is lr·λ/2 for plain
        gradient descent with the rate of each run. nan from the time at which a run diverged. With
        a schedule, the rate of a state is that of the step that it is about to make, and the last
        state has the rate of the last step taken (for n_steps = 0, of step `start`).
    """
    require_training(system)
    max_products = _checks.integer("max_products", max_products, least=1)
    seed = _checks.settled_seed(seed)
    system._runs.flat(w0, "w0")
    states = system._runs.states(w0, "w0")
    path = system.trajectory(states, n_steps, every=every, start=start, threads=threads)
    found = sharpness(system._runs.plain, system.weights(path), tol, max_products, threads, seed)
    ratio = _ratio(system, found.value, times=1)
    factors = system.optimizer._factors(start, max(n_steps, 1))
    if factors is not None:
        now = np.minimum(every * np.arange(ratio.shape[-1]), len(factors) - 1)
        ratio = ratio * factors[now]
    return replace(found, ratio=ratio)


def _lanczos(
    plain: TrainingMap, weights: Floats, start: Floats, steps: int, tol: float, threads: int | None
) -> tuple[Floats, Floats, Floats, Integers, Floats]:
    """Largest eigenvalue, its residual, eigenvector and products needed, and the probability that a
    larger one was missed, of each row of weights."""
    runs, n = weights.shape
    value, residual, missed = (np.full(runs, np.nan) for _ in range(3))
    vector, products = np.full((runs, n), np.nan), np.zeros(runs, np.int64)
    active = np.flatnonzero(np.isfinite(weights).all(axis=1))
    basis = np.empty((steps, len(active), n))  # memory is taken as the vectors come
    basis[:1] = start / np.linalg.norm(start)
    alpha, beta = np.zeros((len(active), steps)), np.zeros((len(active), steps))
    for m in range(steps):
        if active.size == 0:
            break
        image = _products(plain, weights[active], basis[m], threads)
        with np.errstate(over="ignore", invalid="ignore"):
            alpha[:, m] = np.einsum("ri,ri->r", basis[m], image)
            for _ in range(2):  # orthogonal to all before, twice for rounding
                inner = np.einsum("mri,ri->rm", basis[: m + 1], image)
                image -= np.einsum("mri,rm->ri", basis[: m + 1], inner)
            beta[:, m] = np.linalg.norm(image, axis=1)
        going = np.isfinite(alpha[:, m]) & np.isfinite(beta[:, m])  # others are nan, like the lost
        fine = np.flatnonzero(going)
        theta, ritz = np.linalg.eigh(_tridiagonal(alpha[fine, : m + 1], beta[fine, :m]))
        error = beta[fine, m] * np.abs(ritz[:, -1, -1])
        scale = np.abs(theta).max(axis=1)
        all_seen = (beta[fine, m] <= n * np.finfo(float).eps * scale) | (m + 1 == n)
        last = m + 1 == steps
        near = np.flatnonzero((error <= tol * scale) | all_seen | last)
        if near.size:
            at = fine[near]
            above = theta[near, -1] + max(tol, _NEAREST) * scale[near]
            chance = _chance_of_missing(above, alpha[at, : m + 1], beta[at, : m + 1], n)
            chance[all_seen[near]] = 0.0
            enough = (chance <= _MISSED) | last
            near, at, chance = near[enough], at[enough], chance[enough]
            whose = active[at]
            value[whose], residual[whose] = theta[near, -1], error[near]
            products[whose], missed[whose] = m + 1, chance
            vector[whose] = np.einsum("mri,rm->ri", basis[: m + 1, at], ritz[near, :, -1])
            going[at] = False
        if not going.all():
            active, image, alpha, beta = active[going], image[going], alpha[going], beta[going]
            kept = np.empty((steps, len(active), n))
            kept[: m + 1] = basis[: m + 1, going]
            basis = kept
        if active.size:
            np.divide(image, beta[:, m : m + 1], out=basis[m + 1])
    return value, residual, vector, products, missed


def _chance_of_missing(above: Floats, alpha: Floats, beta: Floats, n: int) -> Floats:
    """Bound on the probability that an eigenvalue beyond `above` (runs,), which no Ritz value
    reaches, stayed hidden from m steps (runs, m) that began with a random vector of length n."""
    before, here = np.zeros_like(above), np.ones_like(above)
    total = np.ones_like(above)
    previous = np.zeros_like(above)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for j in range(alpha.shape[1]):
            following = ((above - alpha[:, j]) * here - previous * before) / beta[:, j]
            before, here, previous = here, following, beta[:, j]
            total = np.fmax(total, total + here**2)  # not nan, once polynomials overflow
        result: Floats = np.minimum(np.sqrt(2.0 * n / (np.pi * total)), 1.0)
    return result


def _times(system: TrainingMap, batch: tuple[int, ...]) -> int:
    """How many axes of a batch of states come after those that the optimiser's arrays belong to: 0
    if these broadcast against the last ones, as everywhere.

    Raises ValueError if the arrays fit in no way or in two that differ.
    """
    shapes = system._runs.rate_shapes
    rates = np.broadcast_shapes(*shapes) if _broadcast(*shapes) else None
    extra = 0 if rates is None else len(batch) - len(rates)
    if rates is None or extra <= 0 or math.prod(rates) == 1:
        return 0  # whatever does not fit is refused where states are
    first = _broadcast(batch, (*rates, *[1] * extra))
    if first and _broadcast(batch, rates):
        raise ArgumentError(
            "x",
            f"must tell which of its axes {batch} the rates of shape {rates} belong to, both the "
            f"first and the last fit: give rates of shape {(*rates, *[1] * extra)} for a "
            f"trajectory, {(*[1] * extra, *rates)} otherwise",
        )
    return extra if first else 0


def _broadcast(*shapes: tuple[int, ...]) -> bool:
    try:
        np.broadcast_shapes(*shapes)
    except ValueError:
        return False
    return True


def _ratio(system: TrainingMap, value: Floats, times: int = 0) -> Floats:
    """`value` (...) over the curvature where the optimiser's step on a parabola becomes unstable;
    so many axes of `value` come after those of the rates."""
    optimizer = system.optimizer
    if isinstance(optimizer, Adam):
        return np.full(np.shape(value), np.nan)[()]
    rates = (optimizer.lr, optimizer.momentum, optimizer.weight_decay)
    lr, momentum, decay = (
        np.reshape(rate, (*np.shape(rate), *[1] * times)) if np.ndim(rate) else np.asarray(rate)
        for rate in rates
    )
    edge = 2.0 * (1.0 + momentum) / lr
    if optimizer.nesterov:
        edge = edge / (1.0 + 2.0 * momentum)
    result: Floats = (value + decay) / edge
    return result


def _products(system: TrainingMap, weights: Floats, vectors: Floats, threads: int | None) -> Floats:
    """H v (runs, n) for one vector each."""
    out = np.empty((*vectors.shape, 1))
    given = np.ascontiguousarray(vectors[..., np.newaxis])

    runs = system._runs

    def work(task: core.Task) -> None:
        runs.problem.hessian_vectors(weights, given, out, task)

    runs.over(work, len(weights), runs.step_cost(1, None), threads=threads)
    return out[..., 0]


def _tridiagonal(alpha: Floats, beta: Floats) -> Floats:
    """(runs, m, m) symmetric from diagonals (runs, m) and (runs, m - 1)."""
    m = alpha.shape[1]
    T = np.zeros((len(alpha), m, m))
    diagonal = np.arange(m)
    T[:, diagonal, diagonal] = alpha
    T[:, diagonal[1:], diagonal[:-1]] = T[:, diagonal[:-1], diagonal[1:]] = beta
    return T
