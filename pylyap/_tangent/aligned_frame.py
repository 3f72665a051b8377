"""What a start frame does to exponents over few steps, and a frame that avoids most of it.

The volume of the first j vectors of a frame F grows, over T steps that suffice to align it, by the
product of the j largest singular values of the steps' product, times |det(W_j^T F_j)|; W are the
right singular vectors. Exponent i is off by ln p_i / T, where p_i is the ratio of two such
determinants: a pivot of W^T F without exchanges.

Of a random orthonormal frame in n dimensions p_i² = b / c with independent b ~ Beta(1/2, (n − i)/2)
and c ~ Beta(1/2, (i − 1)/2): squared cosines of the angles between random directions in n − i + 1
and in i dimensions. For the frame that all past steps would have made, F*, p_i is 1 where the
Jacobians are normal and commute, and otherwise unknown.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from pylyap._checks import Floats

if TYPE_CHECKING:
    from collections.abc import Callable

# Share of the start frames whose error stays below the estimate.
_COVERED = 0.98

# Factors on the growth of neighbours that a transient has separated, and on what an aligned frame
# lost against F*. In 300 random cases (products of random matrices, Hénon, Lozi, standard and
# coupled maps, training; November 2026) the estimates contain the errors of 98 % of 1594 exponents
# without a transient, 96 % with one, 95 % of those of aligned frames.
_AFTER_TRANSIENT, _OF_ALIGNED = 20.0, 20.0

_GRID = 200  # quantiles of a distribution
_AT_ONCE = 256e6  # bytes of factors
_SPREAD = 12.0  # nats between the directions of factors that are multiplied
_SWEEPS = 8


@lru_cache(maxsize=64)
def log_pivots(n: int, k: int) -> Floats:
    """(k,) bounds of |ln p_i| that hold for 98 % of the random frames, whatever F* is like."""
    from scipy.special import betaincinv

    u = (np.arange(_GRID) + 0.5) / _GRID

    def half_logs(m: int) -> Floats:
        return 0.5 * np.log(betaincinv(0.5, m / 2, u)) if m else np.zeros(1)

    bounds = np.empty(k)
    for i in range(k):
        logs = np.subtract.outer(half_logs(n - 1 - i), half_logs(i)).ravel()
        some = np.quantile(logs, u)
        apart = np.subtract.outer(some, some)  # F* as random as the frame
        bounds[i] = max(np.quantile(np.abs(of), _COVERED) for of in (logs, apart))
    return bounds


def alignment_error(
    transient_growth: Floats, n_steps: Floats, n: int, overlap: Floats | None
) -> Floats:
    """(..., k) estimated errors of exponents, nats per step.

    transient_growth (..., k) of the frame; n_steps (...) of the window; overlap (..., k): ln |p_i|
    of an aligned start frame against F*, or None for a random one.
    """
    k = transient_growth.shape[-1]
    bounds = np.broadcast_to(log_pivots(n, k), transient_growth.shape)
    if overlap is not None:
        lost = -np.cumsum(overlap, axis=-1)  # of the volumes of 1 ... k vectors, at least 0
        before = np.concatenate([np.zeros_like(lost[..., :1]), lost[..., :-1]], axis=-1)
        bounds = np.fmin(bounds, _OF_ALIGNED * np.fmax(np.fmax(lost, before), 0.0))
    with np.errstate(invalid="ignore", over="ignore"):
        lag = transient_growth[..., 1:] - transient_growth[..., :-1]
        left = np.log1p(_AFTER_TRANSIENT * np.exp(lag))
    edges = np.zeros((*transient_growth.shape[:-1], k + 1))  # of the volumes of 0 ... k vectors
    edges[..., 1:k] = np.where(lag < 0.0, left, np.inf)
    edges[..., k] = 0.0 if k == n else np.inf  # vector k + 1 is not followed
    found = np.minimum(bounds, edges[..., 1:] + edges[..., :-1])
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = found / n_steps[..., np.newaxis]
    return result


def most_steps(n: int) -> int:
    """Factors (n, n) of one run that are held to align its frame."""
    return max(1, int(_AT_ONCE / (8 * n * n)))


def aligned(
    factors: Callable[[slice], tuple[Floats, Floats, Floats, Floats]],
    runs: int,
    n: int,
    k: int,
    steps: int,
) -> tuple[Floats, Floats]:
    """k right singular vectors (runs, n, k) of products of steps, ln |p| (runs, k) against F*.

    F* at the start is taken to be oriented like the frame after the steps, as it is if the
    Jacobians hardly change.

    factors(slice of runs) gives the start frames Q_0 (m, n, n), the frames Q_m after the steps, and
    the factors between them (m, steps, n, n), whose rows have exponents of 2 (m, steps, n).
    """
    W, logs = np.empty((runs, n, k)), np.empty((runs, k))
    block = max(1, int(_AT_ONCE / (8 * n * n * steps)))
    for first in range(0, runs, block):
        these = slice(first, min(first + block, runs))
        start, end, R, scales = factors(these)
        G = np.empty_like(start)
        for run in range(len(G)):
            finite = bool(np.isfinite(end[run]).all())
            G[run] = _right_vectors(_pieces(R[run], scales[run])) if finite else np.nan
        frames = (start @ G)[..., :k]
        W[these] = frames
        logs[these] = _log_pivots_of(np.swapaxes(frames, -1, -2) @ end[..., :k])
    return W, logs


def _pieces(R: Floats, scales: Floats) -> list[Floats]:
    """Factors multiplied, as many in a row as keep all but rounding of the smallest direction."""
    pieces: list[Floats] = []
    spread = np.inf
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.diagonal(R, axis1=-2, axis2=-1)) + np.log(2.0) * scales
        spreads = np.nan_to_num(np.ptp(logs, axis=-1), nan=np.inf)
    for factor, scale, more in zip(R, scales, spreads, strict=True):
        largest = scale.max()
        scaled = np.exp2(scale - (largest if np.isfinite(largest) else 0.0))[:, np.newaxis] * factor
        spread += more
        if spread <= _SPREAD:
            product = scaled @ pieces[-1]
            pieces[-1] = product / np.abs(product).max()
        else:
            pieces.append(scaled)
            spread = more
    return pieces


def _right_vectors(pieces: list[Floats]) -> Floats:
    """Right singular vectors of the product of square matrices, the first of which comes last.

    By sweeps of QR iteration to and fro, stable where the product spans more than the range of a
    double; one matrix is decomposed directly. What s sweeps leave of directions that hardly
    separate costs their volume less than 0.2 / s nats.
    """
    if len(pieces) == 1:
        V: Floats = np.linalg.svd(pieces[0])[2].T
        return V
    G: Floats = np.eye(len(pieces[0]))
    for sweep in range(_SWEEPS):
        before = G
        if sweep:
            for piece in pieces:
                G = np.linalg.qr(piece @ G)[0]
        for piece in reversed(pieces):
            G = np.linalg.qr(piece.T @ G)[0]
        if sweep and np.abs(np.abs(before.T @ G) - np.eye(len(G))).max() < 1e-10:
            break
    return G


def _log_pivots_of(A: Floats) -> Floats:
    """ln of the absolute pivots of matrices (m, n, n), without exchanges."""
    A = A.copy()
    n = A.shape[-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        for i in range(n - 1):
            column = A[:, i + 1 :, i] / A[:, i, i, np.newaxis]
            A[:, i + 1 :, i + 1 :] -= column[..., np.newaxis] * A[:, np.newaxis, i, i + 1 :]
        result: Floats = np.log(np.abs(np.diagonal(A, axis1=-2, axis2=-1)))
    return result
