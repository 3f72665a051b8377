"""How distances between perturbed runs grow: rates, saturation, and which law they follow."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._fits import straight_lines

Integers = NDArray[np.int64]

# The published rule's windows: first record, and number of records.
_STARTS, _LENGTHS = range(0, 101, 5), range(30, 101, 5)

# Saturation: the late level is that of the last quarter; growth ends a factor e below it.
_LATE, _BELOW = 4, 1.0


@dataclass(frozen=True, eq=False)
class GrowthRate:
    """Exponential growth of distances. Leading axes are the batch.

    Attributes
    ----------
    slope : (...)
        Growth rate in nats per record; nan where no line fits.
    stderr : (...)
        Its standard error as an ordinary straight line's, which takes residuals to be independent.
    intercept : (...)
        ln distance of the line at record 0.
    r2 : (...)
        Share of the variance of ln distance that the line explains.
    start, stop : (...)
        Records [start, stop) of the line; -1 where there is none.
    saturation : (...)
        First record within a factor e of the late level, if distances end on one; else -1.
    """

    slope: Floats
    stderr: Floats
    intercept: Floats
    r2: Floats
    start: Integers
    stop: Integers
    saturation: Integers


@dataclass(frozen=True, eq=False)
class GrowthLaw:
    """Laws that distances may follow, ranked by Akaike's criterion. Leading axes are the batch.

    Attributes
    ----------
    names : (n_laws,)
        ``"exponential"`` A exp(λ t), ``"linear"`` A + B t, ``"square root"`` A + B √t, and
        ``"bounded"`` A − B exp(−t/τ), which levels off within the data: τ is at most their length.
    parameters : (..., n_laws, 3)
        A and λ; A and B; A and B; A, B and τ. nan where a law has fewer, or did not fit.
    aic : (..., n_laws)
        Corrected for few records; the smallest is the best. Differences below 2 decide nothing.
    weight : (..., n_laws)
        Akaike weights: relative likelihoods of the laws, which sum to 1.
    """

    names: tuple[str, ...]
    parameters: Floats = field(repr=False)
    aic: Floats
    weight: Floats

    @property
    def best(self) -> NDArray[np.str_]:
        """(...) name of the best law; "" where none fits."""
        fitted = np.isfinite(self.aic).any(axis=-1)
        names = np.array(self.names)[np.where(np.isfinite(self.aic), self.aic, np.inf).argmin(-1)]
        result: NDArray[np.str_] = np.where(fitted, names, "")
        return result


def growth_rate(
    distances: ArrayLike,
    method: Literal["best_window", "until_saturation"] = "best_window",
    axis: int | None = -2,
) -> GrowthRate:
    """Exponential growth rate of distances, from a straight line through ln of their mean.

    Parameters
    ----------
    distances : (..., n_perturbations, T + 1) array
        Distances at each record, time last, all >= 0. nan marks perturbations that are lost: those
        left are averaged.
    method
        ``"best_window"`` is the published rule: of the windows that start at records 0, 5, …, 100
        and are 30, 35, …, 100 records long, the one with the largest R². It is a maximum over many
        windows and favours steep ones. ``"until_saturation"`` takes all records before saturation
        (all, if there is none) and selects nothing.
    axis
        Perturbations, over which distances are averaged; None where there are none.

    Returns
    -------
    GrowthRate
        Of all runs: nothing is filtered. (The published study goes on with R² > 0.9 and slopes
        above 0.05.) A mean distance that is exactly zero has no logarithm: windows that contain one
        are left out, and a run without any other window is nan.

    Raises
    ------
    ValueError, TypeError
        If distances are negative, infinite or too few for the shortest window.

    References
    ----------
    Danovski, Soriano, Lacasa, Front. Complex Syst. 2, 1367957 (2024).
    """
    _checks.choice("method", method, ("best_window", "until_saturation"))
    logs = _log_mean(distances, axis, _LENGTHS[0] if method == "best_window" else 3)
    flat = logs.reshape(-1, logs.shape[-1])
    saturation = _saturation(flat)
    if method == "best_window":
        fits, starts, stops = _best_window(flat)
    else:
        records = flat.shape[1]
        stops = np.where(saturation >= 3, saturation, records)
        starts = np.zeros(len(flat), np.int64)
        fits = np.array([_fit(y[:stop]) for y, stop in zip(flat, stops, strict=True)])
        fits = fits.reshape(-1, 4).T
        lost = np.isnan(fits[0])
        starts, stops = np.where(lost, -1, starts), np.where(lost, -1, stops)
    shape = logs.shape[:-1]
    slope, error, intercept, r2 = (row.reshape(shape)[()] for row in fits)
    start, stop, level = (row.reshape(shape)[()] for row in (starts, stops, saturation))
    return GrowthRate(slope, error, intercept, r2, start, stop, level)


def growth_law(
    distances: ArrayLike, t: ArrayLike | None = None, axis: int | None = -2
) -> GrowthLaw:
    """Which of four laws the mean distance follows, by fits of its logarithm.

    Parameters
    ----------
    distances, axis
        As in `growth_rate`.
    t : (T + 1,) array
        Time of each record; 0, 1, … by default.

    Returns
    -------
    GrowthLaw
        Least squares in the logarithm, that is, errors in proportion to the distance. Records whose
        mean distance is zero are left out; fewer than six leave nan.

    Raises
    ------
    ValueError, TypeError
        If distances are negative or infinite, or `t` does not increase from 0 or later.

    References
    ----------
    Burnham, Anderson, Model Selection and Multimodel Inference (2002), for weights and correction.
    """
    logs = _log_mean(distances, axis, 6)
    records = logs.shape[-1]
    times = np.arange(float(records)) if t is None else _checks.floats("t", t)
    if times.shape != (records,):
        raise ValueError(
            f"t must have shape ({records},), a time for each record of distances, "
            f"got {times.shape}"
        )
    if times[0] < 0 or (np.diff(times) <= 0).any():
        raise ValueError("t must increase from 0 or later")
    flat = logs.reshape(-1, records)
    parameters = np.full((len(flat), len(_LAWS), 3), np.nan)
    aic = np.full((len(flat), len(_LAWS)), np.nan)
    for r, y in enumerate(flat):
        there = np.isfinite(y)
        if there.sum() < 6:
            continue
        for m, fit in enumerate(_LAWS.values()):
            found = fit(times[there], y[there])
            parameters[r, m, : len(found[0])] = found[0]
            aic[r, m] = _aicc(found[1], int(there.sum()), len(found[0]))
    with np.errstate(invalid="ignore"):
        ahead = aic - np.where(np.isfinite(aic), aic, np.inf).min(axis=-1, keepdims=True)
        weight = np.exp(-0.5 * ahead)
        weight /= np.nansum(weight, axis=-1, keepdims=True)
    shape = logs.shape[:-1]
    return GrowthLaw(
        tuple(_LAWS),
        parameters.reshape(*shape, len(_LAWS), 3),
        aic.reshape(*shape, len(_LAWS)),
        weight.reshape(*shape, len(_LAWS)),
    )


def _log_mean(distances: ArrayLike, axis: int | None, least: int) -> Floats:
    """ln of the mean over perturbations, (..., T + 1); nan where that is zero or nobody is left."""
    values = _checks.floats("distances", distances, finite=False)
    if np.isinf(values).any() or (values < 0).any():
        raise ValueError("distances must be finite (nan for what is lost) and not negative")
    if axis is not None:
        axis = _checks.integer("axis", axis)
        if not -values.ndim <= axis < values.ndim - 1 or axis == -1:
            raise ValueError(
                f"distances must have an axis of perturbations before time, got {values.shape} "
                f"with axis={axis}; axis=None where there are none"
            )
    if values.ndim == 0 or values.shape[-1] < least:
        raise ValueError(f"distances must have at least {least} records, got {values.shape}")
    if axis is not None:
        there = np.isfinite(values)
        count = there.sum(axis=axis)
        total = np.where(there, values, 0.0).sum(axis=axis)
        values = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    with np.errstate(divide="ignore"):
        logs: Floats = np.log(values)
    logs[np.isneginf(logs)] = np.nan
    return logs


def _fit(y: Floats, first: int = 0) -> Floats:
    """Slope, its error, intercept and R² (4, ...)."""
    line = straight_lines(y, first)
    return np.stack([line.slope, line.stderr, line.intercept, line.r2])


def _best_window(flat: Floats) -> tuple[Floats, Integers, Integers]:
    """The line of largest R² over the published windows; the first of equal ones."""
    best = np.full((4, len(flat)), np.nan)
    starts, stops = (np.full(len(flat), -1, np.int64) for _ in range(2))
    for start in _STARTS:
        for length in _LENGTHS:
            stop = start + length
            if stop > flat.shape[1]:
                break
            fit = _fit(flat[:, start:stop], start)
            with np.errstate(invalid="ignore"):
                better = (fit[3] > best[3]) | (np.isnan(best[3]) & np.isfinite(fit[3]))
            best[:, better] = fit[:, better]
            starts[better], stops[better] = start, stop
    return best, starts, stops


def _saturation(flat: Floats) -> Integers:
    """First record within a factor e of the late level; -1 if late records still grow.

    They do if the last quarter rises by more than the scatter about its own straight line, or the
    level is not a factor e above the start.
    """
    result = np.full(len(flat), -1, np.int64)
    records = flat.shape[1]
    late = flat[:, records - max(records // _LATE, 3) :]
    rise = straight_lines(late).slope * (late.shape[1] - 1)
    level, scatter = np.median(late, axis=1), late.std(axis=1)
    with np.errstate(invalid="ignore"):
        flat_end = (rise < np.maximum(3.0 * scatter, 0.0)) & (rise < _BELOW)
        risen = level - flat[:, 0] > _BELOW
        near = flat >= (level - _BELOW)[:, np.newaxis]
    there = flat_end & risen & near.any(axis=1)
    result[there] = near[there].argmax(axis=1)
    return result


def _exponential(t: Floats, y: Floats) -> tuple[Any, float]:
    rate, log_a = np.polyfit(t, y, 1)
    return (math.exp(log_a), rate), float(((y - log_a - rate * t) ** 2).sum())


def _straight(t: Floats, y: Floats) -> tuple[Any, float]:
    """A + B t, A and B >= 0, in the logarithm."""
    from scipy.optimize import least_squares

    scale, span = math.exp(float(y.max())), float(t[-1]) or 1.0

    def residual(p: Floats) -> Floats:
        result: Floats = np.log(np.maximum(p[0] + p[1] * t / span, 1e-300)) + math.log(scale) - y
        return result

    start = [math.exp(float(y[0])) / scale, max(1.0 - math.exp(float(y[0])) / scale, 1e-3)]
    found = least_squares(residual, start, bounds=(0.0, np.inf))
    return (found.x[0] * scale, found.x[1] * scale / span), float(2.0 * found.cost)


def _square_root(t: Floats, y: Floats) -> tuple[Any, float]:
    return _straight(np.sqrt(t), y)


def _bounded(t: Floats, y: Floats) -> tuple[Any, float]:
    """A − B exp(−t/τ), 0 <= B <= A."""
    from scipy.optimize import least_squares

    scale, span = math.exp(float(np.median(y[-max(len(y) // 4, 1) :]))), float(t[-1]) or 1.0

    def value(p: Floats) -> Floats:
        # A = e^p0, B = A s with s in (0, 1), tau = span e^p2
        part = p[1] * np.exp(-t / span * math.exp(-float(p[2])))
        result: Floats = p[0] + np.log(np.maximum(1.0 - part, 1e-300))
        return result

    best: Any = None
    first = min(max(1.0 - math.exp(float(y[0])) / scale, 1e-3), 1.0 - 1e-9)
    for tau in (-4.0, -2.0, -0.5):
        found = least_squares(
            lambda p: value(p) + math.log(scale) - y,
            [0.0, first, tau],
            bounds=([-50.0, 0.0, -12.0], [50.0, 1.0, 0.0]),
        )
        if best is None or found.cost < best.cost:
            best = found
    A = scale * math.exp(best.x[0])
    return (A, A * best.x[1], span * math.exp(best.x[2])), float(2.0 * best.cost)


_LAWS = {
    "exponential": _exponential,
    "linear": _straight,
    "square root": _square_root,
    "bounded": _bounded,
}


def _aicc(residual: float, n: int, p: int) -> float:
    """Akaike's criterion with the correction for few records; the variance is a parameter too."""
    k = p + 1
    fitted = n * math.log(max(residual / n, 1e-30)) + 2 * k
    return fitted + 2 * k * (k + 1) / (n - k - 1) if n > k + 1 else math.inf
