"""Lanczos iteration for the largest Hessian eigenvalues of many states at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pylyap._checks import Floats
from pylyap._parallel import ProgressBar

Integers = NDArray[np.int64]

Multiply = Callable[[Floats, Floats], Floats]  # H of each state (runs, n) times its vector

# Cost of the eigenvalue of a state in steps of a run, for progress bars: some twenty products.
STEPS_PER_STATE = 40

# Probability that a larger eigenvalue is missed whose distance exceeds `tol` and _MIN_DISTANCE, in
# units of the largest eigenvalue. Rounding errors do not permit a smaller distance.
MISSED = 1e-6
_MIN_DISTANCE = 1e-8
_EPSILON = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Largest:
    """Largest eigenvalues of states, one row per state, as the fields of a `Sharpness`."""

    value: Floats
    residual: Floats
    vector: Floats
    products: Integers
    missed: Floats


def lanczos(
    multiply: Multiply,
    states: Floats,
    start: Floats,
    steps: int,
    tol: float,
    bar: ProgressBar | None,
) -> Largest:
    """Lanczos iteration with full orthogonalisation for each state (runs, n)."""
    runs, n = len(states), len(start)
    value, residual, missed = (np.full(runs, np.nan) for _ in range(3))
    vector, products = np.full((runs, n), np.nan), np.zeros(runs, np.int64)
    active = np.flatnonzero(np.isfinite(states).all(axis=1))
    if bar is not None:
        bar.advance(STEPS_PER_STATE * (runs - len(active)))
    basis = np.empty((steps, len(active), n))  # the system commits its pages when they are written
    basis[:1] = start / np.linalg.norm(start)
    alpha, beta = np.zeros((len(active), steps)), np.zeros((len(active), steps))
    for m in range(steps):
        if active.size == 0:
            break
        last = m + 1 == steps
        image = multiply(states if len(active) == runs else states[active], basis[m])
        alpha[:, m], beta[:, m] = _orthogonalise(image, basis[: m + 1])
        going = np.isfinite(alpha[:, m]) & np.isfinite(beta[:, m])  # results of others stay nan
        # A slice where all are finite: indexing by numbers takes longer than small products.
        finite = slice(None) if going.all() else going.nonzero()[0]
        theta, ritz = np.linalg.eigh(_tridiagonal(alpha[finite, : m + 1], beta[finite, :m]))
        error = beta[finite, m] * np.abs(ritz[:, -1, -1])
        chance = _significance(
            theta, error, alpha[finite, : m + 1], beta[finite, : m + 1], n, tol, last=last
        )
        done = ((chance <= MISSED) | last).nonzero()[0]
        if done.size:
            at = done if isinstance(finite, slice) else finite[done]
            rows = active[at]
            value[rows], residual[rows] = theta[done, -1], error[done]
            products[rows], missed[rows] = m + 1, chance[done]
            vector[rows] = np.einsum("mri,rm->ri", basis[: m + 1, at], ritz[done, :, -1])
            going[at] = False
        if not going.all():
            if bar is not None:
                bar.advance(STEPS_PER_STATE * int((~going).sum()))
            active, image, alpha, beta = active[going], image[going], alpha[going], beta[going]
            remaining = np.empty((steps, len(active), n))
            remaining[: m + 1] = basis[: m + 1, going]
            basis = remaining
        if active.size:
            np.divide(image, beta[:, m : m + 1], out=basis[m + 1])
    return Largest(value, residual, vector, products, missed)


def _orthogonalise(image: Floats, basis: Floats) -> tuple[Floats, Floats]:
    """Make image (runs, n) orthogonal to the Krylov vectors basis (m, runs, n), in place.

    Returns its inner product with the last of them, and its norm afterwards, (runs,) each.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        alpha = np.einsum("ri,ri->r", basis[-1], image)
        for _ in range(2):  # twice, to remove rounding errors of the first pass
            inner = np.einsum("mri,ri->rm", basis, image)
            image -= np.einsum("mri,rm->ri", basis, inner)
        return alpha, np.sqrt((image * image).sum(axis=1))


def _significance(
    theta: Floats, error: Floats, alpha: Floats, beta: Floats, n: int, tol: float, *, last: bool
) -> Floats:
    """`Sharpness.missed` (runs,) after m steps; 1 while the residual is above the tolerance.

    theta        (runs, m)  Ritz values in ascending order
    error        (runs,)    residual of the largest
    alpha, beta  (runs, m)  Lanczos coefficients
    last         whether these are the last steps: then the result is computed for any residual
    """
    scale = np.abs(theta).max(axis=1)
    exhausted = (beta[:, -1] <= n * _EPSILON * scale) | (alpha.shape[1] == n)
    missed = np.ones(len(theta))
    converged = ((error <= tol * scale) | exhausted | last).nonzero()[0]
    if converged.size:
        bound = theta[converged, -1] + max(tol, _MIN_DISTANCE) * scale[converged]
        missed[converged] = _chance_of_missing(bound, alpha[converged], beta[converged], n)
        missed[exhausted] = 0.0
    return missed


def _chance_of_missing(bound: Floats, alpha: Floats, beta: Floats, n: int) -> Floats:
    """Bound on the probability of no Ritz value at an eigenvalue above `bound` (runs,).

    alpha and beta (runs, m) are the Lanczos coefficients of m steps from a random start vector in n
    dimensions. See the notes of `sharpness`.
    """
    p_before, p = np.zeros_like(bound), np.ones_like(bound)  # Lanczos polynomials at the bound
    total = np.ones_like(bound)  # K
    beta_before = np.zeros_like(bound)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for j in range(alpha.shape[1]):
            p_next = ((bound - alpha[:, j]) * p - beta_before * p_before) / beta[:, j]
            p_before, p, beta_before = p, p_next, beta[:, j]
            total = np.fmax(total, total + p**2)  # ignores nan after an overflow of the polynomials
        result: Floats = np.minimum(np.sqrt(2.0 * n / (np.pi * total)), 1.0)
    return result


def _tridiagonal(alpha: Floats, beta: Floats) -> Floats:
    """Symmetric tridiagonal matrices (runs, m, m) from alpha (runs, m) and beta (runs, m - 1)."""
    runs, m = alpha.shape
    T = np.zeros((runs, m * m))
    T[:, :: m + 1] = alpha
    T[:, 1 :: m + 1] = T[:, m :: m + 1] = beta
    return T.reshape(runs, m, m)
