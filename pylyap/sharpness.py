"""Extremes of the Hessian along training, against the rate at which they make it unstable."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._parallel import Signals, over_runs
from pylyap.maps import TrainingMap, require_training
from pylyap.optimizers import Adam

Integers = NDArray[np.int64]

_KRYLOV_BYTES = 200e6  # of the states that are iterated together


@dataclass(frozen=True, eq=False)
class Sharpness:
    """The largest eigenvalue of the Hessian of the mean loss at some states.

    Attributes
    ----------
    value : (...)
        Largest (algebraic) eigenvalue; nan for states that are nan or whose Hessian overflows.
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
    """

    value: Floats
    ratio: Floats
    vector: Floats = field(repr=False)
    residual: Floats = field(repr=False)
    n_products: Integers = field(repr=False)


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
        States or weights, such as a whole trajectory.
    tol
        Residual ‖H v − λ v‖ over the largest |eigenvalue| seen at which a state is done.
    max_products
        Products at most per state; what has not converged by then says so by its `residual`.
    threads
        As in `lyapunov_spectrum`.
    seed
        Of the start vector.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range or the Krylov vectors of a single state would not fit in
        memory.

    References
    ----------
    Lanczos, J. Res. Natl. Bur. Stand. 45, 255 (1950); Cohen et al., ICLR (2021), on the edge of
    stability.
    """
    require_training(system)
    tol = min(_checks.real("tol", tol, above=0.0), 1e100)  # times an eigenvalue it is finite
    steps = min(_checks.integer("max_products", max_products, least=1), system.n_params)
    states, batch = system._flat(x, "x")
    weights = np.ascontiguousarray(system.weights(states))
    runs, n = weights.shape
    plain = system._plain
    group = plain._core.group
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
    value, residual, vector, products = (
        np.concatenate(arrays) for arrays in zip(*parts, strict=True)
    )
    return Sharpness(
        value=value.reshape(batch)[()],
        ratio=_ratio(system, value.reshape(batch)),
        vector=vector.reshape((*batch, n)),
        residual=residual.reshape(batch)[()],
        n_products=products.reshape(batch)[()],
    )


def hessian_spectrum(system: TrainingMap, x: ArrayLike) -> HessianSpectrum:
    """All eigenvalues of the Hessian at states x (..., n) or (..., n_params), for small nets.

    Raises ValueError if the Hessians would not fit in memory.
    """
    require_training(system)
    H = system.hessian(x)
    fine = np.asarray(np.isfinite(H).all(axis=(-1, -2), keepdims=True))
    eigenvalues = np.linalg.eigvalsh(np.where(fine, H, 0.0))[..., ::-1]
    eigenvalues = np.where(fine[..., 0], eigenvalues, np.nan)
    return HessianSpectrum(eigenvalues, _ratio(system, eigenvalues[..., 0]))


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
        gradient descent with the rate of each run. nan from the time at which a run diverged.
    """
    require_training(system)
    system._flat(w0, "w0")
    path = system.trajectory(w0, n_steps, every=every, start=start, threads=threads)
    found = sharpness(system._plain, system.weights(path), tol, max_products, threads, seed)
    ratio = _ratio(system, found.value, along=True)
    factors = system.optimizer._factors(start + n_steps)
    if factors is not None:  # of the step that each state is about to make
        t = np.minimum(start + every * np.arange(ratio.shape[-1]), len(factors) - 1)
        ratio = ratio * factors[t]
    return replace(found, ratio=ratio)


def _lanczos(
    plain: TrainingMap, weights: Floats, start: Floats, steps: int, tol: float, threads: int | None
) -> tuple[Floats, Floats, Floats, Integers]:
    """Largest eigenvalue, its residual, eigenvector and products needed, of each row of weights."""
    runs, n = weights.shape
    value, residual = np.full(runs, np.nan), np.full(runs, np.nan)
    vector, products = np.full((runs, n), np.nan), np.zeros(runs, np.int64)
    active = np.flatnonzero(np.isfinite(weights).all(axis=1))
    basis = np.empty((len(active), steps, n))
    basis[:, 0] = start / np.linalg.norm(start)
    alpha, beta = np.zeros((len(active), steps)), np.zeros((len(active), steps))
    for m in range(steps):
        if active.size == 0:
            break
        image = _products(plain, weights[active], basis[:, m], threads)
        with np.errstate(over="ignore", invalid="ignore"):
            alpha[:, m] = np.einsum("ri,ri->r", basis[:, m], image)
            for _ in range(2):  # orthogonal to all before, twice for rounding
                inner = np.einsum("rmi,ri->rm", basis[:, : m + 1], image)
                image -= np.einsum("rmi,rm->ri", basis[:, : m + 1], inner)
            beta[:, m] = np.linalg.norm(image, axis=1)
        fine = np.isfinite(alpha[:, m]) & np.isfinite(beta[:, m])
        if not fine.all():  # finite weights whose curvature is not: nan, like the others lost
            active, basis, image = active[fine], basis[fine], image[fine]
            alpha, beta = alpha[fine], beta[fine]
            if active.size == 0:
                break
        T = _tridiagonal(alpha[:, : m + 1], beta[:, :m])
        theta, ritz = np.linalg.eigh(T)
        error = beta[:, m] * np.abs(ritz[:, -1, -1])
        scale = np.abs(theta).max(axis=1)
        invariant = beta[:, m] <= n * np.finfo(float).eps * scale
        done = (error <= tol * scale) | invariant | (m + 1 == steps)
        if done.any():
            at = active[done]
            value[at], residual[at], products[at] = theta[done, -1], error[done], m + 1
            vector[at] = np.einsum("rmi,rm->ri", basis[done, : m + 1], ritz[done, :, -1])
            active, basis, image = active[~done], basis[~done], image[~done]
            alpha, beta = alpha[~done], beta[~done]
        if active.size:
            basis[:, m + 1] = image / beta[:, m : m + 1]
    return value, residual, vector, products


def _ratio(system: TrainingMap, value: Floats, along: bool = False) -> Floats:
    """`value` (...) over the curvature where the optimiser's step on a parabola becomes unstable;
    `along` a run value has an axis of times after the batch."""
    optimizer = system.optimizer
    if isinstance(optimizer, Adam):
        return np.full(np.shape(value), np.nan)[()]
    rates = (optimizer.lr, optimizer.momentum, optimizer.weight_decay)
    lr, momentum, decay = (
        np.asarray(rate)[..., np.newaxis] if along and np.ndim(rate) else np.asarray(rate)
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

    def work(first: int, count: int, signals: Signals) -> None:
        system._core.hessian_vectors(
            weights, given, out, signals.cancel, signals.members, first, count
        )

    cost = len(weights) * system._step_cost(1, None)
    over_runs(work, len(weights), group=system._core.group, threads=threads, cost=cost)
    return out[..., 0]


def _tridiagonal(alpha: Floats, beta: Floats) -> Floats:
    """(runs, m, m) symmetric from diagonals (runs, m) and (runs, m - 1)."""
    m = alpha.shape[1]
    T = np.zeros((len(alpha), m, m))
    diagonal = np.arange(m)
    T[:, diagonal, diagonal] = alpha
    T[:, diagonal[1:], diagonal[:-1]] = T[:, diagonal[:-1], diagonal[1:]] = beta
    return T
