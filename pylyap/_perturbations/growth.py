"""How distances between perturbed runs grow: rates, saturation, and which law they follow."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._errors import ArgumentError
from pylyap._statistics import fit_lines

Integers = NDArray[np.int64]

# The published rule's windows: first record, and number of records.
_STARTS, _LENGTHS = range(0, 101, 5), range(30, 101, 5)

# Saturation. Two lines that meet are taken for growth and a plateau if they fit better than one by
# `_PENALTY` ln T in −2 ln likelihood (the penalty of three parameters) or leave less than `_LEFT`
# of the squares, the first rises by more than `_BELOW` nats, and the second at less than `_STEEP`
# of its rate, and by less than `_STILL` of its rise or at less than `_SLOW` of its rate. So is a
# last quarter that stays within `_BELOW` nats and `_WITHIN` of the rise, at less than `_LATE` of
# the mean rate before. Of simulated lines with random walks about them, the worst case, 0.5 % (T =
# 1000) to 5 % (T = 30) are taken for saturated; with `_LEFT` = 0.2 or `_WITHIN` = 0.17 that would
# rise by 3 %.
_PENALTY, _LEFT, _BELOW = 3.0, 0.1, 1.0
_STEEP, _STILL, _SLOW = 0.5, 0.25, 0.02
_WITHIN, _LATE = 0.1, 0.1
_LARGEST = math.log(np.finfo(float).max)
_EXACT = 1e-12  # residuals in nats below this are rounding
_LEAST_LEVEL = 30  # records, at least, whose median is the level
_AT_ONCE = 2**18  # logarithms that are worked on at a time, in some 30 arrays of that size


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
        Record at which distances come within a factor e of the level on which growth ends; -1 if
        they do not end on one. See `growth_rate`.
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
        The last three do not decrease and are not negative at the first record.
    parameters : (..., n_laws, 3)
        A and λ; A and B; A and B; A, B and τ. nan where a law has fewer, or did not fit. A and B
        belong to t = 0, which may lie far before the records: 0 or inf where they are beyond the
        range of numbers.
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
        (all, if there is none) and selects nothing; its slope does not depend on how long the
        plateau was recorded.
    axis
        Perturbations, over which distances are averaged; None where there are none.

    Returns
    -------
    GrowthRate
        Of all runs: nothing is filtered. (The published study goes on with R² > 0.9 and slopes
        above 0.05.) A mean distance that is exactly zero has no logarithm: ``"best_window"`` leaves
        out windows that contain one, ``"until_saturation"`` such records, and a run with fewer than
        three others before saturation is nan. For the latter so is one of which all perturbations
        are lost at some record.

    Raises
    ------
    ValueError, TypeError
        If distances are negative, infinite or too few for the shortest window.

    Notes
    -----
    Distances saturate if either of two tests finds a plateau.

    1. Two lines through ln distance that meet at a record, the second flatter than the first, by
       least squares over all records where they might meet. They are growth and a plateau if

       - they fit better than one line: n ln(S₁/S₂) > 3 ln n for n records, where S is the sum of
         squares of residuals, less ρ times the one before. ρ is the correlation of neighbouring
         residuals of the two lines, corrected for its bias, plus two standard errors: residuals of
         a plateau, or of growth that fluctuates, are correlated. It is enough, too, if the two
         leave less than a tenth of the squares that one leaves;
       - the first rises by more than 1 nat;
       - the second rises at less than half of its rate, and by less than a quarter of its rise or
         at less than 1/50 of its rate.

    2. The last quarter of the records stays within 1 nat and within a tenth of the rise from the
       first record to its median, and its line rises at less than a tenth of the mean rate before
       it. This finds plateaus after growth in several stages, which no two lines describe.

    So distances that grow as a power of time do not saturate (unless they grow 5000-fold or so),
    nor do distances that shrink onto a level.

    The level is the median of as many records after the onset of the plateau as come before it (30
    at least). The onset is where the two lines meet; if only the second test finds the plateau, it
    is the record of saturation as below with all records and the median of the last quarter.
    Saturation is the record, up to the last of these, that separates records at least a factor e
    below the level from the others with the fewest exceptions; or the one where the first line
    comes within a factor e of the level, if that is earlier. The cost is O(T) per run, and
    O(T log T) for the medians.

    References
    ----------
    Danovski, Soriano, Lacasa, Front. Complex Syst. 2, 1367957 (2024).
    """
    _checks.choice("method", method, ("best_window", "until_saturation"))
    logs = _log_mean(distances, axis, _LENGTHS[0] if method == "best_window" else 3)
    flat = logs.reshape(-1, logs.shape[-1])
    saturation = np.full(len(flat), -1, np.int64)
    for some in _pieces(flat):
        saturation[some] = _saturation(flat[some])
    if method == "best_window":
        fits, starts, stops = _best_window(np.where(np.isneginf(flat), np.nan, flat))
    else:
        stops = np.where(saturation >= 0, saturation, flat.shape[1])
        fits = np.empty((4, len(flat)))
        for some in _pieces(flat):
            fits[:, some] = _fit_before(flat[some], stops[some])
        fitted = np.isfinite(fits[0])
        starts, stops = np.where(fitted, 0, -1), np.where(fitted, stops, -1)
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
        Time of each record; 0, 1, … by default. It may begin late: fits are made in the time since
        the first record.

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
        raise ArgumentError(
            "t",
            f"must have shape ({records},), a time for each record of distances, got {times.shape}",
        )
    if times[0] < 0 or (np.diff(times) <= 0).any():
        raise ArgumentError("t", "must increase from 0 or later")
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
    """ln of the mean over perturbations, (..., T + 1); -inf where that is zero, nan where all
    perturbations are lost."""
    values = _checks.floats("distances", distances, finite=False)
    if np.isinf(values).any() or (values < 0).any():
        raise ArgumentError("distances", "must be finite (nan for what is lost) and not negative")
    if axis is not None:
        axis = _checks.integer("axis", axis)
        if not -values.ndim <= axis < values.ndim - 1 or axis == -1:
            raise ArgumentError(
                "distances",
                f"must have an axis of perturbations before time, got {values.shape} "
                f"with axis={axis}; axis=None where there are none",
            )
    if values.ndim == 0 or values.shape[-1] < least:
        raise ArgumentError("distances", f"must have at least {least} records, got {values.shape}")
    if axis is not None:
        there = np.isfinite(values)
        count = there.sum(axis=axis)
        total = np.where(there, values, 0.0).sum(axis=axis)
        values = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    with np.errstate(divide="ignore"):
        logs: Floats = np.log(values)
    return logs


def _fit(y: Floats, first: int = 0) -> Floats:
    """Slope, its error, intercept and R² (4, ...)."""
    line = fit_lines(y, first)
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


def _pieces(flat: Floats) -> list[slice]:
    """Rows of flat (runs, T), few enough for the memory of many arrays of them."""
    size = max(1, _AT_ONCE // flat.shape[1])
    return [slice(first, first + size) for first in range(0, len(flat), size)]


def _fit_before(flat: Floats, stops: Integers) -> Floats:
    """Slope, its error, intercept and R² (4, runs) of the lines through the records of flat (runs,
    T) before `stops` that are not -inf; nan with fewer than three, or if a record of the run is."""
    there = (np.arange(flat.shape[1]) < stops[:, np.newaxis]) & np.isfinite(flat)
    there &= ~np.isnan(flat).any(axis=1, keepdims=True)
    n = there.sum(axis=1)
    t = np.arange(float(flat.shape[1]))
    with np.errstate(divide="ignore", invalid="ignore"):
        time = np.where(there, t, 0.0).sum(axis=1) / n
        mean = np.where(there, flat, 0.0).sum(axis=1) / n
        late = np.where(there, t - time[:, np.newaxis], 0.0)
        y = np.where(there, flat - mean[:, np.newaxis], 0.0)
        square = (late**2).sum(axis=1)
        slope = (y * late).sum(axis=1) / square
        total = (y**2).sum(axis=1)
        residual = ((y - slope[:, np.newaxis] * late) ** 2).sum(axis=1)
        r2 = np.where(total > 0, 1.0 - residual / total, np.nan)
        error = np.sqrt(residual / (n - 2) / square)
        fits = np.stack([slope, error, mean - slope * time, r2])
    fits[:, n < 3] = np.nan
    return fits


@dataclass
class _Bend:
    """Two lines that meet, as `growth_rate` describes them; one number per run."""

    at: Integers  # record where they meet
    height: Floats  # and where, in y
    left: Floats  # squares that two leave, of those that one leaves
    gain: Floats  # n ln(S₁/S₂)
    first: Floats  # slopes, per record
    second: Floats


def _bend(y: Floats, there: NDArray[np.bool_]) -> _Bend:
    """The two lines of least squares, the second flatter, through y (runs, T), 0 if not there."""
    runs, records = y.shape
    w = there.astype(float)
    n = w.sum(axis=1)
    t = np.broadcast_to((np.arange(records) - (records - 1) / 2) / records, y.shape)
    late = w * (t - ((w * t).sum(axis=1) / n)[:, np.newaxis])
    square = (late**2).sum(axis=1)
    slope = (y * late).sum(axis=1) / square
    residual = y - slope[:, np.newaxis] * late
    # Products of max(t − c, 0) with 1, t, itself and the residual, for each record c: sums from c
    # on.
    s0, s1, s2 = _from(w), _from(w * t), _from(w * t**2)
    with_one = s1 - t * s0
    with_late = (s2 - t * s1) - with_one * ((w * t).sum(axis=1) / n)[:, np.newaxis]
    itself = s2 - 2.0 * t * s1 + t**2 * s0
    itself = itself - with_one**2 / n[:, np.newaxis] - with_late**2 / square[:, np.newaxis]
    with_residual = _from(residual * t) - t * _from(residual)
    allowed = (w.cumsum(axis=1) >= 2) & (s0 >= 4) & (with_residual < 0)
    allowed &= itself > 1e-12 * square[:, np.newaxis]
    drop = np.where(allowed, with_residual**2 / np.where(allowed, itself, 1.0), -1.0)
    at, rows = drop.argmax(axis=1), np.arange(runs)
    change = np.where(allowed[rows, at], with_residual[rows, at] / itself[rows, at], 0.0)
    along = with_late[rows, at] / square
    hinge = w * np.maximum(t - t[rows, at][:, np.newaxis], 0.0)
    hinge -= w * (with_one[rows, at] / n)[:, np.newaxis] + along[:, np.newaxis] * late
    bent = residual - change[:, np.newaxis] * hinge
    both = there[:, 1:] & there[:, :-1]
    before = np.where(both, bent[:, :-1], 0.0)
    rho = (np.where(both, bent[:, 1:], 0.0) * before).sum(axis=1) / (before**2).sum(axis=1)
    rho = np.clip(np.nan_to_num(rho), 0.0, 1.0)
    rho = np.minimum(rho + 2.0 * (2.0 + 4.0 * rho) / n, 1.0)  # each line biases it by half of this
    rho = np.minimum(rho + 2.0 * np.sqrt((1.0 - rho**2) / n), 1.0)[:, np.newaxis]
    one, two = (
        (np.where(both, e[:, 1:] - rho * e[:, :-1], 0.0) ** 2).sum(axis=1) for e in (residual, bent)
    )
    two = np.maximum(np.maximum(two, 1e-12 * one), n * _EXACT**2)
    gain = n * np.log(np.maximum(one, n * _EXACT**2) / two)
    height = (slope - change * along) * (t[rows, at] - (w * t).sum(axis=1) / n)
    height -= change * with_one[rows, at] / n
    return _Bend(
        at=at,
        height=height,
        left=(bent**2).sum(axis=1) / (residual**2).sum(axis=1),
        gain=gain,
        first=(slope - change * along) / records,
        second=(slope + change * (1 - along)) / records,
    )


def _from(values: Floats) -> Floats:
    """Sums (runs, T) of values from each record on."""
    result: Floats = values[:, ::-1].cumsum(axis=1)[:, ::-1]
    return result


def _saturation(flat: Floats) -> Integers:
    """Records (runs,) at which ln distances (runs, T) saturate, as `growth_rate` describes it; -1
    where they do not."""
    there = np.isfinite(flat)
    usable = np.flatnonzero(~np.isnan(flat).any(axis=1) & (there.sum(axis=1) >= 6))
    result = np.full(len(flat), -1, np.int64)
    flat, there = flat[usable], there[usable]
    if len(flat) == 0:
        return result
    mean = np.where(there, flat, 0.0).sum(axis=1) / there.sum(axis=1)
    t = np.arange(flat.shape[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        bend = _bend(np.where(there, flat - mean[:, np.newaxis], 0.0), there)
        grown = bend.first * (bend.at - there.argmax(axis=1))
        still = bend.second * (t[-1] - bend.at)
        bent = bend.gain > _PENALTY * np.log(there.sum(axis=1))
        bent |= (bend.left < _LEFT) & (bend.gain > 0)
        bent &= (grown > _BELOW) & (bend.second < _STEEP * bend.first)
        bent &= (still < _STILL * grown) | (bend.second < _SLOW * bend.first)
        reached = bend.at - (mean + bend.height) / bend.first  # the first line, at ln distance 0
    rests, level = _rest(flat, there)
    for r in np.flatnonzero(bent | rests):
        y, known = flat[r], there[r]
        at = int(bend.at[r]) if bent[r] else _crossing(y, level[r])
        stop = at + max(at, _LEAST_LEVEL)
        near = float(np.median(y[at:stop][known[at:stop]])) - _BELOW
        first = _crossing(y[:stop], near)
        if bent[r]:
            first = min(first, max(math.ceil(reached[r] + near / bend.first[r]), 0))
        result[usable[r]] = first
    return result


def _rest(flat: Floats, there: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], Floats]:
    """Whether the last quarter of each run (runs, T) rests, and a factor e below its median."""
    quarter = max(flat.shape[1] // 4, 3)
    complete: NDArray[np.bool_] = np.asarray(there[:, -quarter:].all(axis=1))
    late = np.where(complete[:, np.newaxis], flat[:, -quarter:], 0.0)
    start = there.argmax(axis=1)
    middle = np.median(late, axis=1)
    rise = middle - flat[np.arange(len(flat)), start]
    pace = rise / np.maximum(flat.shape[1] - quarter - start, 1)
    spread = np.ptp(late, axis=1)
    rests = complete & (spread < _BELOW) & (spread < _WITHIN * rise)
    return rests & (fit_lines(late).slope < _LATE * pace), middle - _BELOW


def _crossing(y: Floats, level: float) -> int:
    """The record that separates y below the level from y above it with the fewest exceptions: those
    above before it, those below from it on."""
    below, above = y < level, y >= level
    exceptions = above.cumsum() - above + below[::-1].cumsum()[::-1]
    return int(exceptions.argmin())


# Laws are fitted in the time since the first record, so that nothing depends on where t begins; A
# and B at t = 0 may be beyond the numbers, and are then 0 or infinite.


def _exponential(t: Floats, y: Floats) -> tuple[Any, float]:
    elapsed = t - t[0]
    line = _line(elapsed / elapsed[-1], y)
    rate = line[0] / float(elapsed[-1])
    return (_exp(line[1] - rate * float(t[0])), rate), line[2]


def _line(t: Floats, y: Floats) -> tuple[float, float, float]:
    """Slope, intercept and sum of squares of the line through y."""
    late, height = t - t.mean(), float(y.mean())
    slope = float((late * (y - height)).sum() / (late**2).sum())
    residual = y - height - slope * late
    return slope, height - slope * float(t.mean()), float((residual**2).sum())


def _exp(x: float) -> float:
    """e^x; infinite beyond the largest number."""
    return math.exp(x) if x < _LARGEST else math.inf


def _straight(t: Floats, y: Floats) -> tuple[Any, float]:
    return _rising(t - t[0], float(t[0]), y)


def _square_root(t: Floats, y: Floats) -> tuple[Any, float]:
    root = np.sqrt(t)
    return _rising((t - t[0]) / np.maximum(root + root[0], root[-1] * 1e-300), float(root[0]), y)


def _rising(elapsed: Floats, start: float, y: Floats) -> tuple[Any, float]:
    """A + B (start + elapsed), with B and the first distance >= 0, in the logarithm."""
    from scipy.optimize import least_squares

    span, scale = float(elapsed[-1]), float(y.max())

    def residual(p: Floats) -> Floats:
        result: Floats = np.log(np.maximum(p[0] + p[1] * elapsed / span, 1e-300)) + scale - y
        return result

    first = math.exp(float(y[0]) - scale)
    found = least_squares(residual, [first, max(1.0 - first, 1e-3)], bounds=(0.0, np.inf))
    A, B = (float(p) * math.exp(scale) for p in found.x)
    return (A - B * (start / span), B / span), float(2.0 * found.cost)


def _bounded(t: Floats, y: Floats) -> tuple[Any, float]:
    """A − B exp(−t/τ), 0 <= B exp(−t/τ) <= A."""
    from scipy.optimize import least_squares

    elapsed = t - t[0]
    scale, span = float(np.median(y[-max(len(y) // 4, 1) :])), float(elapsed[-1])

    def value(p: Floats) -> Floats:
        # A = e^p0, B exp(−t/τ) = A s at the first record with s in (0, 1), tau = span e^p2
        part = p[1] * np.exp(-elapsed / span * math.exp(-float(p[2])))
        result: Floats = p[0] + np.log(np.maximum(1.0 - part, 1e-300))
        return result

    best: Any = None
    first = min(max(1.0 - _exp(float(y[0]) - scale), 1e-3), 1.0 - 1e-9)
    for tau in (-4.0, -2.0, -0.5):
        found = least_squares(
            lambda p: value(p) + scale - y,
            [0.0, first, tau],
            bounds=([-50.0, 0.0, -12.0], [50.0, 1.0, 0.0]),
        )
        if best is None or found.cost < best.cost:
            best = found
    log_a, tau = scale + float(best.x[0]), span * math.exp(float(best.x[2]))
    log_b = log_a + math.log(max(float(best.x[1]), 1e-300)) + float(t[0]) / tau
    return (_exp(log_a), _exp(log_b), tau), float(2.0 * best.cost)


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
