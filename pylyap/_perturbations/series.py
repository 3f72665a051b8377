"""Scalar time series: correlations in time, and how fast near returns part."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._errors import ArgumentError
from pylyap._statistics import fit_lines

Integers = NDArray[np.int64]

# Numbers of shuffled series that are transformed at once.
_AT_ONCE = 2**23


@dataclass(frozen=True, eq=False)
class Autocorrelation:
    """Autocorrelation of series, beside that of the same numbers in random order.

    Attributes
    ----------
    lags : (n_lags,)
        0, 1, …
    values : (..., n_lags)
        1 at lag 0; nan for a constant series.
    low, high : (..., n_lags)
        Band in which a shuffled series lies at each single lag, with the probability asked for.
    decorrelation : (...)
        First lag inside the band; -1 where there is none.
    """

    lags: Integers
    values: Floats
    low: Floats = field(repr=False)
    high: Floats = field(repr=False)

    @property
    def decorrelation(self) -> Integers:
        inside = (self.values >= self.low) & (self.values <= self.high)
        inside[..., 0] = False
        first: Integers = np.where(inside.any(axis=-1), inside.argmax(axis=-1), -1)
        return first


@dataclass(frozen=True, eq=False)
class ExpansionRates:
    """How fast near returns of a series part, point by point.

    Attributes
    ----------
    points : (m,)
        Reference points: indices into the series.
    n_neighbours : (m,)
        Near returns found for each.
    distances : (m, horizon + 1)
        Mean distance to them after 0, 1, … steps (geometric if so asked); nan without a neighbour.
    slope, intercept, r2 : (m,)
        Straight line through ln distances, nats per step; nan without a neighbour or where a
        distance is exactly zero.
    stop : (m,)
        Last step of the line, which starts at step 1.
    pvalue : (m,)
        Of a slope of zero, on the first ten steps.
    exponential : (m,)
        Whether that is at most 0.05 and the slope there positive.
    """

    points: Integers
    n_neighbours: Integers
    distances: Floats = field(repr=False)
    slope: Floats
    intercept: Floats
    r2: Floats
    stop: Integers
    pvalue: Floats = field(repr=False)
    exponential: NDArray[np.bool_] = field(repr=False)


def autocorrelation(
    x: ArrayLike,
    max_lag: int | None = None,
    n_shuffles: int = 1000,
    level: float = 0.95,
    seed: Any = 0,
) -> Autocorrelation:
    """Autocorrelation of scalar series with a null band from shuffles, by Fourier transforms.

    Parameters
    ----------
    x : (..., T) array
        Series, time last. Finite.
    max_lag
        Largest lag; a quarter of T by default.
    n_shuffles
        Random orders of each series for the band; 0 leaves it nan.
    level
        Probability that a shuffled series lies in the band at a single lag. Among many lags some
        are outside by chance.
    seed
        Of the shuffles: int, SeedSequence or Generator.

    Returns
    -------
    Autocorrelation
        c(l)/c(0) with c(l) = Σ (x_t − x̄)(x_{t+l} − x̄)/T.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range.

    References
    ----------
    Danovski, Soriano, Lacasa, Front. Complex Syst. 2, 1367957 (2024), use it on series of the loss.
    """
    series = _checks.floats("x", x)
    if series.ndim == 0 or series.shape[-1] < 2:
        raise ArgumentError("x", f"must have shape (..., T) with T >= 2, got {series.shape}")
    length = series.shape[-1]
    most = length - 1
    lags = length // 4 if max_lag is None else _checks.integer("max_lag", max_lag, least=0)
    if lags > most:
        raise ArgumentError("max_lag", f"must be at most T - 1 = {most} for this x, got {lags}")
    n_shuffles = _checks.integer("n_shuffles", n_shuffles, least=0)
    level = _checks.real("level", level, above=0.0, below=1.0)
    rng = np.random.default_rng(_checks.seed_sequence(seed))
    flat = series.reshape(-1, length)
    _checks.memory(
        f"n_shuffles={n_shuffles} shuffles at {lags + 1} lags", 8.0 * n_shuffles * (lags + 1),
        "take fewer shuffles or a smaller max_lag",
    )  # fmt: skip
    values = _correlate(flat, lags)
    low, high = np.full(values.shape, np.nan), np.full(values.shape, np.nan)
    tail = (1.0 - level) / 2.0
    for r, one in enumerate(flat if n_shuffles else flat[:0]):
        null = np.empty((n_shuffles, lags + 1))
        size = max(1, _AT_ONCE // length)
        for i in range(0, n_shuffles, size):
            some = np.broadcast_to(one, (min(size, n_shuffles - i), length))
            null[i : i + size] = _correlate(rng.permuted(some, axis=1), lags)
        low[r], high[r] = np.quantile(null, (tail, 1.0 - tail), axis=0)
    shape = (*series.shape[:-1], lags + 1)
    return Autocorrelation(
        np.arange(lags + 1), values.reshape(shape), low.reshape(shape), high.reshape(shape)
    )


def expansion_rates(
    x: ArrayLike,
    radius: float = 5e-5,
    n_points: int = 1000,
    horizon: int = 25,
    *,
    theiler: int = 0,
    window: int | None = None,
    geometric: bool = False,
    dimension: int = 1,
    seed: Any = 0,
) -> ExpansionRates:
    """Local expansion rates of a scalar series from near returns.

    For random reference points i, all j with |x_j − x_i| < radius are followed: the mean distance
    after n steps is d_n = ⟨|x_{i+n} − x_{j+n}|⟩, and its growth rate the slope of ln d_n.

    The defaults are the published rule: no Theiler window, so that a point's own neighbours in time
    count as returns, and of all lines from step 1 to steps 5 … `horizon` that with the largest R²,
    which favours steep and short ones. ``theiler=…, window=…, geometric=True`` avoids these biases.

    Parameters
    ----------
    x : (T,) array
        Series. Finite.
    radius
        Largest distance of a return.
    n_points
        Reference points, drawn without repetition; all if there are fewer.
    horizon
        Steps to follow, 10 at least.
    theiler
        Returns j with |i − j| <= theiler are left out.
    window
        Last step of the line, for all points; None takes the line of largest R² for each.
    geometric
        Whether to average logarithms of distances over the neighbours instead of distances.
    dimension
        Consecutive values that must be near: returns of (x_i, …, x_{i+dimension-1}), in the largest
        of their differences.
    seed
        Of the reference points.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range or the series too short for the horizon.

    References
    ----------
    Danovski, Soriano, Lacasa, Front. Complex Syst. 2, 1367957 (2024). Theiler, Phys. Rev. A 34,
    2427 (1986). Rosenstein, Collins, De Luca, Physica D 65, 117 (1993).
    """
    from scipy.spatial import cKDTree

    series = _checks.floats("x", x)
    if series.ndim != 1:
        raise ArgumentError("x", f"must have shape (T,), got {series.shape}")
    radius = _checks.real("radius", radius, above=0.0)
    n_points = _checks.integer("n_points", n_points, least=1)
    horizon = _checks.integer("horizon", horizon, least=_FIXED)
    theiler = _checks.integer("theiler", theiler, least=0)
    dimension = _checks.integer("dimension", dimension, least=1)
    _checks.flag("geometric", geometric)
    if window is not None:
        window = _checks.integer("window", window, least=3, most=horizon)
    starts = len(series) - max(horizon, dimension - 1)
    if starts < 2:
        raise ArgumentError(
            "x",
            f"must be longer than the horizon={horizon}, and than dimension - 1, by two steps, "
            f"got {len(series)} for dimension={dimension}",
        )
    rng = np.random.default_rng(_checks.seed_sequence(seed))
    points = np.sort(rng.permutation(starts)[:n_points])
    embedded = np.stack([series[d : d + starts] for d in range(dimension)], axis=1)
    tree = cKDTree(embedded)
    distances = np.full((len(points), horizon + 1), np.nan)
    count = np.zeros(len(points), np.int64)
    steps = np.arange(horizon + 1)
    for m, i in enumerate(points):
        near = np.asarray(tree.query_ball_point(embedded[i], radius, p=np.inf), dtype=np.int64)
        near = near[(np.abs(embedded[near] - embedded[i]).max(axis=1) < radius) & (near != i)]
        near = near[np.abs(near - i) > theiler]
        count[m] = len(near)
        if len(near) == 0:
            continue
        apart = np.abs(series[near[:, np.newaxis] + steps] - series[i + steps])
        if geometric:
            with np.errstate(divide="ignore"):
                distances[m] = np.exp(np.log(apart).mean(axis=0))
        else:
            distances[m] = apart.mean(axis=0)
    with np.errstate(divide="ignore"):
        logs = np.log(distances)
    logs[np.isneginf(logs)] = np.nan
    stops = range(_SHORTEST, horizon + 1) if window is None else (window,)
    lines = [fit_lines(logs[:, 1 : stop + 1], 1) for stop in stops]
    fits = np.array([(line.slope, line.intercept, line.r2) for line in lines])  # (windows, 3, m)
    best = np.nan_to_num(fits[:, 2], nan=-1.0).argmax(axis=0)
    slope, intercept, r2 = np.take_along_axis(fits, best[np.newaxis, np.newaxis], axis=0)[0]
    ten = fit_lines(logs[:, 1 : _FIXED + 1], 1)
    pvalue = _slope_pvalue(ten.r2, _FIXED)
    with np.errstate(invalid="ignore"):
        exponential = (pvalue <= 0.05) & (ten.slope > 0)
    return ExpansionRates(
        points=points,
        n_neighbours=count,
        distances=distances,
        slope=slope,
        intercept=intercept,
        r2=r2,
        stop=np.asarray(stops, np.int64)[best],
        pvalue=pvalue,
        exponential=exponential,
    )


def find_period(x: ArrayLike, max_period: int = 64, tol: float = 0.05) -> Integers:
    """The period with which scalar series repeat, a slow drift aside.

    The increments y_t = x_{t+1} − x_t are compared after q steps by D(q) = rms(y_{t+q} − y_t)
    / (√2 rms(y)), which is 1 on average for unrelated increments. The period is the smallest p for
    which

    - increments repeat, and go on repeating: D(p), D(2 p), … are at most `tol`, up to lags of
      three quarters of the series;
    - they repeat as well as with any other period: D(p) is at most twice the smallest D(q) of all
      q that are tried (or 1e-9, or rounding) and of all multiples of p (or 1e-7). So a cycle whose
      turns alternate a little has the double period, or none if that is not tried. A difference
      between successive turns that dies (it halves from the first to the last quarter of the
      series) is excepted;
    - the error does not add up: if the series has fewer than 16 periods and D(2 p) is more than
      1.5 D(p), 16 D(p) is at most `tol`. So the near-returns of a rotation by an irrational angle
      are no periods.

    Parameters
    ----------
    x : (..., T) array
        Series, time last, at least eight values. nan or inf makes the answer 0.
    max_period
        Largest period to try; periods above a quarter of T are not.
    tol
        Largest difference between increments one period apart, as a share of that of unrelated
        ones; above 0 and below 1.

    Returns
    -------
    (...) int64 array
        1 for a series that rests, drifts at one pace or only rises or only falls (up to 1e-12 of
        its size), p for one of period p, 0 where there is none up to `max_period`: noise, chaos,
        a rotation by an irrational angle, and slow oscillations of a longer period.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range.

    Notes
    -----
    O(T max_period) per series, and O(T log T) for the multiples. Chaos in bands whose widths are
    below `tol` of the distance between them has the period with which the bands are visited.

    Examples
    --------
    >>> t = np.arange(400)
    >>> [int(pl.find_period(x, 128)) for x in (np.sin(2 * np.pi * t / 100), (-1.0) ** t, t % 7)]
    [100, 2, 7]
    """
    series = _checks.floats("x", x, finite=False)
    if series.ndim == 0 or series.shape[-1] < 8:
        raise ArgumentError("x", f"must have shape (..., T) with T >= 8, got {series.shape}")
    max_period = _checks.integer("max_period", max_period, least=1)
    tol = _checks.real("tol", tol, above=0.0, below=1.0)
    flat = series.reshape(-1, series.shape[-1])
    period = np.zeros(len(flat), np.int64)
    size = max(1, _AT_ONCE // (8 * flat.shape[1]))
    for first in range(0, len(flat), size):
        some = slice(first, first + size)
        period[some] = _periods(flat[some], max_period, tol)
    return period.reshape(series.shape[:-1])[()]


def _periods(flat: Floats, max_period: int, tol: float) -> Integers:
    """Periods (runs,) of series (runs, T), as `find_period` describes them."""
    result = np.zeros(len(flat), np.int64)
    finite = np.isfinite(flat).all(axis=1)
    flat = flat[finite]
    flat = flat / np.maximum(np.abs(flat).max(axis=-1, keepdims=True), _TINY)  # no overflow
    y = np.diff(flat, axis=-1)
    rests = (y <= _ROUNDING).all(axis=-1) | (y >= -_ROUNDING).all(axis=-1)
    known = np.flatnonzero(finite)
    result[known[rests]] = 1
    y, moving = y[~rests], known[~rests]
    n = y.shape[1]
    most = min(max_period, flat.shape[1] // 4)
    size = np.sqrt(2.0 * (y**2).mean(axis=-1))
    apart = np.empty((len(y), most + 1))  # D(q)
    apart[:, 0] = np.inf
    for q in range(1, most + 1):
        apart[:, q] = np.sqrt(((y[:, q:] - y[:, :-q]) ** 2).mean(axis=-1)) / size
    rounding = _ROUNDING / size
    best = np.maximum(2.0 * apart.min(axis=1), np.maximum(_NO_DIFFERENCE, rounding))
    lags = _all_apart(y) / size[:, np.newaxis]
    found = np.zeros(len(y), np.int64)
    for p in range(1, most + 1):
        multiples = lags[:, p : 3 * n // 4 + 1 : p]
        fits = (found == 0) & (apart[:, p] <= tol) & (multiples.max(axis=1) <= tol)
        if not fits.any():
            continue
        if multiples.shape[1] < _FEW:
            adds_up = lags[:, 2 * p] > 1.5 * np.maximum(apart[:, p], _NO_DIFFERENCE)
            fits &= ~adds_up | (_FEW * apart[:, p] <= tol)
        turns = (y[:, p:] - y[:, :-p]) ** 2
        quarter = max(1, turns.shape[1] // 4)
        dies = 4.0 * turns[:, -quarter:].mean(axis=1) < turns[:, :quarter].mean(axis=1)
        alike = apart[:, p] <= np.minimum(
            best, np.maximum(2.0 * multiples.min(axis=1), _ALIKE + rounding)
        )
        found[fits & (alike | dies)] = p
    result[moving] = found
    return result


def _all_apart(y: Floats) -> Floats:
    """rms(y_{t+q} − y_t) of rows (runs, n) for q = 0 … n − 1, up to 1e-8 of rms(y)."""
    from scipy.fft import irfft, next_fast_len, rfft

    n = y.shape[1]
    size = next_fast_len(2 * n, real=True)
    spectrum = rfft(y, size, axis=-1)
    products = irfft(spectrum.real**2 + spectrum.imag**2, size, axis=-1)[:, :n]
    squares = (y**2).cumsum(axis=1)
    whole = squares[:, -1:]
    left = squares[:, ::-1]  # of the first n − q
    right = whole - np.concatenate([np.zeros_like(whole), squares[:, :-1]], axis=1)
    sums = np.maximum(left + right - 2.0 * products, 0.0)
    result: Floats = np.sqrt(sums / np.arange(n, 0, -1))
    return result


_NO_DIFFERENCE = 1e-9  # between increments, as a share of unrelated ones: less is none
_ALIKE = 1e-7  # the same for differences that come from Fourier transforms
_FEW = 16  # periods, of which an error that adds up must leave the series within `tol`
_ROUNDING = 1e-12  # of a series' size: less is no rise
_TINY = np.finfo(float).tiny

_SHORTEST, _FIXED = 5, 10  # last step of the shortest line, and of the one that is tested


def _correlate(series: Floats, lags: int) -> Floats:
    """Autocorrelation (runs, lags + 1) of rows, by zero-padded transforms."""
    from scipy.fft import irfft, next_fast_len, rfft

    length = series.shape[-1]
    centred = series - series.mean(axis=-1, keepdims=True)
    peak = np.abs(centred).max(axis=-1, keepdims=True)
    centred /= np.where(peak > 1e150, peak, 1.0)  # whose squares overflow
    # A constant is one up to the rounding of its mean.
    flat = np.ptp(series, axis=-1) == 0
    size = next_fast_len(length + lags, real=True)
    spectrum = rfft(centred, size, axis=-1)
    sums = irfft(spectrum.real**2 + spectrum.imag**2, size, axis=-1)[..., : lags + 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        result: Floats = sums / sums[..., :1]
    result[flat] = np.nan
    return result


def _slope_pvalue(r2: Floats, n: int) -> Floats:
    """Two-sided p-value of a slope of zero in a straight line through n points."""
    from scipy.stats import t as student

    with np.errstate(divide="ignore", invalid="ignore"):
        score = np.sqrt(r2 * (n - 2) / np.maximum(1.0 - r2, 0.0))
    result: Floats = np.where(np.isnan(r2), math.nan, 2.0 * student.sf(score, n - 2))
    return result
