"""Estimated errors of covariant vectors of a finite run.

An infinitely long run would give the vector v_i + Σ a_j v_j in place of v_i at time t, where v are
the vectors of this run (Ginelli et al., J. Phys. A 46, 254005 (2013), section 3). The coefficients
are

- j > i, due to the finite past: the span F_i of the first i columns of the frame is the image of a
  random subspace. With the growth ρ of the frame from its start to t,
  a_j = x_ji exp(ρ_j − ρ_i) c_i / c_j, where c_i is the component of v_i orthogonal to F_{i−1}. In
  two dimensions x = sin φ sin θ / sin ψ with the angles θ and φ of v_1 and v_2 to the first column,
  which are uniform because the frame is random, and the angle ψ between v_1 and v_2.
- l < i, due to the finite future: the coefficients u at the end differ from the true ones w. With
  the growth D of the vectors from t to the end, a_l = u_i z_l exp(D_i − D_l), where
  z = U^-1 (w / w_i − u / u_i) and U holds the coefficients at the end of the vectors before i.

ρ, c, D and U are known. The angle ψ at the start and the coefficients w at the end are unknown:
they are replaced by quantiles over the window, times the factors below.
"""

from __future__ import annotations

import numpy as np

from pylyap._checks import Floats

# Quantiles over the window of the angles and of the coefficients, and factors on them. In 1000
# random cases (products of random matrices, Hénon, standard and coupled maps, training; November
# 2026) the estimate exceeded the error of 99 % of 5200 vectors; 80 % of them were undetermined,
# with an estimate of 1. It exceeded the error of 96 % of the others, by a factor of 15 in the
# median. With past factors of 8 or 12: 95.8 % and 15, 96.5 % and 17.
_PAST_QUANTILE, _PAST_FACTOR = 0.25, 10.0
_FUTURE_QUANTILE, _FUTURE_FACTOR = 0.75, 8.0

# 95 % of the rounding errors of vectors are below this, in units of the largest residual in the
# window divided by the angle to the closest other vector.
_ROUNDING = 5.0

_AT_ONCE = 4_000_000  # numbers per temporary array
_LEAST = np.finfo(float).tiny


def contamination(
    coefficients: Floats,
    growth: Floats,
    frame_growth: Floats,
    residual: Floats,
    transient_growth: Floats,
    tail_growth: Floats,
    far: Floats,
    n: int,
) -> Floats:
    """Estimated sines of the angles between the vectors and the true ones, (runs, T + 1, k).

    The arguments are the attributes of `CovariantVectors`, over flattened runs; `far` are the
    coefficients at the end, and n is the length of a state.
    """
    runs, times, k = coefficients.shape[:3]
    result = np.empty((runs, times, k))
    inverse = np.asarray(np.linalg.inv(far), np.float64)
    block = max(1, _AT_ONCE // max(1, times * k * k))
    for first in range(0, runs, block):
        these = slice(first, first + block)
        C = coefficients[these]
        past = _before(frame_growth[these], transient_growth[these])
        future = _after(growth[these], tail_growth[these])
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            sines = np.log(_sines(C))
            typical = np.quantile(sines, _PAST_QUANTILE, axis=1, keepdims=True, method="lower")
            found = _from_past(C, past, sines - typical, n)
            found += _from_future(C, future, sines, far, inverse)
            rounding = residual[these].max(axis=1, keepdims=True) / np.exp(_closest(typical))
            found += _ROUNDING * rounding
        found[(np.isnan(past) | np.isnan(future)).any(axis=-1)] = np.nan
        if k < n:
            found[..., -1] = np.nan
        result[these] = np.minimum(found, 1.0)
    return result


def _before(growth: Floats, transient: Floats) -> Floats:
    """Growth from the start of the run to each time, (runs, T + 1, k)."""
    return np.cumsum(np.concatenate([transient[:, np.newaxis], growth], axis=1), axis=1)


def _after(growth: Floats, tail: Floats) -> Floats:
    """Growth from each time to the end, (runs, T + 1, k)."""
    backwards = np.concatenate([tail[:, np.newaxis], growth[:, ::-1]], axis=1)
    return np.cumsum(backwards, axis=1)[:, ::-1]


def _sines(C: Floats) -> Floats:
    """Sines of the angles between the columns, (runs, times, k, k), at least the rounding error."""
    cosines = np.swapaxes(C, -1, -2) @ C
    squares = 1.0 - cosines**2
    result = np.sqrt(np.maximum(squares, 0.0))
    close = np.nonzero(squares < 1e-4)  # cosines are too inaccurate here
    if close[0].size:
        run, time, i, j = close
        a, b = C[run, time, :, i], C[run, time, :, j]
        off = a - b * (a * b).sum(axis=-1, keepdims=True)
        result[close] = np.linalg.norm(off, axis=-1)
    return np.fmax(result, np.finfo(float).eps)


def _from_past(C: Floats, past: Floats, sines: Floats, n: int) -> Floats:
    """Contamination by the vectors after each, due to a finite past."""
    k = C.shape[-1]
    outside = np.log(np.maximum(np.abs(np.diagonal(C, axis1=-2, axis2=-1)), _LEAST))
    lag = past - outside
    logs = lag[..., np.newaxis, :] - lag[..., np.newaxis] + sines  # (..., i, j)
    part = np.tril(_bounded(logs + np.log(_PAST_FACTOR)).swapaxes(-1, -2), -1)  # (..., j, i)
    if k < n:  # n - k more that are not computed, each at most like the last that is
        part[..., -1, :-1] *= 1.0 + np.sqrt(n - k)
    total: Floats = part.sum(axis=-2)
    return total


def _from_future(C: Floats, future: Floats, sines: Floats, far: Floats, inverse: Floats) -> Floats:
    """Contamination by the vectors before each, due to a finite future."""
    total = np.zeros(C.shape[:-1])
    for i in range(1, C.shape[-1]):
        seen = C[..., :i, i] / C[..., i, i, np.newaxis] - far[:i, i] / far[i, i]
        z = np.abs(far[i, i] * (seen @ inverse[:i, :i].T))
        typical = np.quantile(z, _FUTURE_QUANTILE, axis=1, keepdims=True, method="higher")
        typical = np.fmax(typical, 1.0)  # vectors close to u do not constrain w
        logs = future[..., [i]] - future[..., :i] + sines[..., :i, i]
        total[..., i] = _bounded(logs + np.log(_FUTURE_FACTOR * typical)).sum(axis=-1)
    return total


def _closest(sines: Floats) -> Floats:
    """Log of the sine of the angle between each vector and the closest other one, (..., k)."""
    others: Floats = np.where(np.eye(sines.shape[-1], dtype=bool), 0.0, sines).min(axis=-1)
    return others


def _bounded(logs: Floats) -> Floats:
    """exp(logs), at most 1; 1 also where logs are nan (inf − inf)."""
    return np.exp(np.where(np.isnan(logs), 0.0, np.minimum(logs, 0.0)))
