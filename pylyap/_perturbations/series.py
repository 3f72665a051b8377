"""Scalar time series: autocorrelation, local expansion rates, periods."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._errors import ArgumentError
from pylyap._results import Result
from pylyap._statistics import fit_lines
from pylyap.datasets import Seed

Integers = NDArray[np.int64]

_AT_ONCE = 2**23  # numbers of shuffled series that are transformed at once


@dataclass(frozen=True, eq=False, repr=False)
class Autocorrelation(Result):
    """Autocorrelation of series, with the band of shuffled series.

    Attributes
    ----------
    lags : ndarray of int, shape (n_lags,)
        Lags 0, 1, … in steps.
    values : ndarray, shape (..., n_lags)
        Autocorrelation, 1 at lag 0; nan for a constant series.
    low, high : ndarray, shape (..., n_lags)
        Band that contains a shuffled series at each single lag with the given probability.
    decorrelation : ndarray of int, shape (...)
        First lag inside the band; -1 where there is none.

    Examples
    --------
    >>> a = pl.autocorrelation(np.sin(np.arange(100)), max_lag=10, n_shuffles=50)
    >>> a.values.shape, float(a.values[0])
    ((11,), 1.0)
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


@dataclass(frozen=True, eq=False, repr=False)
class ExpansionRates(Result):
    """Rates at which near returns of a series separate, per reference point.

    Attributes
    ----------
    points : ndarray of int, shape (m,)
        Reference points: indices into the series.
    n_neighbours : ndarray of int, shape (m,)
        Number of near returns of each.
    distances : ndarray, shape (m, horizon + 1)
        Mean distance (geometric if requested) from them after 0, 1, … steps; nan without a
        neighbour.
    slope, intercept, r2 : ndarray, shape (m,)
        Straight line through ln distances, slopes in nats per step; nan without a neighbour or
        where a distance is exactly zero.
    stop : ndarray of int, shape (m,)
        Last step of the line, which starts at step 1.
    pvalue : ndarray, shape (m,)
        Two-sided p-value of a zero slope over the first ten steps.
    exponential : ndarray of bool, shape (m,)
        Whether that p-value is at most 0.05 and the slope over these steps is positive.

    Examples
    --------
    >>> x = [0.3]
    >>> for _ in range(1999):
    ...     x.append(4.0 * x[-1] * (1.0 - x[-1]))
    >>> rates = pl.expansion_rates(x, radius=1e-3, n_points=50, horizon=10, window=5)
    >>> rates.distances.shape
    (50, 11)
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
    seed: Seed = 0,
) -> Autocorrelation:
    """Autocorrelation of scalar series with a null band from shuffled series.

    Parameters
    ----------
    x : array_like, shape (..., T)
        Finite series, time last.
    max_lag : int, optional
        Largest lag; a quarter of T by default.
    n_shuffles : int, default 1000
        Number of random permutations of each series for the band; 0 leaves it nan.
    level : float, default 0.95
        Probability that a shuffled series is inside the band at a single lag. Among many lags some
        are outside by chance.
    seed : int, SeedSequence or Generator, default 0
        Seed of the permutations.

    Returns
    -------
    Autocorrelation
        c(l)/c(0) with c(l) = Σ (x_t − x̄)(x_{t+l} − x̄)/T, by Fourier transforms.

    Raises
    ------
    ArgumentError
        If an argument is out of range or has the wrong type.
    ValueError
        If the shuffled series would not fit in memory.

    References
    ----------
    Danovski, Soriano, Lacasa, Front. Complex Syst. 2, 1367957 (2024), apply it to series of the
    loss.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(size=500)
    >>> int(pl.autocorrelation(noise, n_shuffles=100).decorrelation)
    1
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
        f"n_shuffles={n_shuffles} shuffles at {lags + 1} lags",
        8.0 * n_shuffles * (lags + 1),
        "take fewer shuffles or a smaller max_lag",
    )
    values = _correlate(flat, lags)
    low, high = np.full(values.shape, np.nan), np.full(values.shape, np.nan)
    tail = (1.0 - level) / 2.0
    for r, one in enumerate(flat if n_shuffles else flat[:0]):
        null = np.empty((n_shuffles, lags + 1))
        size = max(1, _AT_ONCE // length)
        for i in range(0, n_shuffles, size):
            copies = np.broadcast_to(one, (min(size, n_shuffles - i), length))
            null[i : i + size] = _correlate(rng.permuted(copies, axis=1), lags)
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
    seed: Seed = 0,
) -> ExpansionRates:
    """Local expansion rates of a scalar series from near returns.

    For random reference points i, all j with |x_j − x_i| < radius are followed: the mean distance
    after n steps is d_n = ⟨|x_{i+n} − x_{j+n}|⟩, and its growth rate is the slope of ln d_n.

    The defaults are the published rule: no Theiler window, so that neighbours in time count as
    returns, and of all lines from step 1 to steps 5 … `horizon` the one with the largest R², which
    favours steep and short lines. ``theiler=…, window=…, geometric=True`` avoids these biases.

    Parameters
    ----------
    x : array_like, shape (T,)
        Finite series.
    radius : float, default 5e-5
        Largest distance of a return, in units of the series.
    n_points : int, default 1000
        Number of reference points, drawn without repetition; all if there are fewer.
    horizon : int, default 25
        Steps to follow, at least 10.
    theiler : int, default 0
        Returns j with |i − j| <= theiler are excluded.
    window : int, optional
        Last step of the line, for all points. By default the line of largest R² for each.
    geometric : bool, default False
        Whether to average logarithms of distances over the neighbours instead of distances.
    dimension : int, default 1
        Number of consecutive values that must be near: returns of (x_i, …, x_{i+dimension-1}), in
        the maximum norm.
    seed : int, SeedSequence or Generator, default 0
        Seed of the reference points.

    Returns
    -------
    ExpansionRates
        Distances and lines of each reference point.

    Raises
    ------
    ArgumentError
        If an argument is out of range or the series is too short for the horizon.

    References
    ----------
    Danovski, Soriano, Lacasa, Front. Complex Syst. 2, 1367957 (2024). Theiler, Phys. Rev. A 34,
    2427 (1986). Rosenstein, Collins, De Luca, Physica D 65, 117 (1993).

    Examples
    --------
    The logistic map has the exponent ln 2 = 0.693.

    >>> x = [0.3]
    >>> for _ in range(4999):
    ...     x.append(4.0 * x[-1] * (1.0 - x[-1]))
    >>> rates = pl.expansion_rates(x, 1e-4, 200, 10, theiler=5, window=8, geometric=True)
    >>> round(float(np.nanmean(rates.slope)), 1)
    0.7
    """
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
    count, distances = np.zeros(len(points), np.int64), np.full((len(points), horizon + 1), np.nan)
    embedded = np.stack([series[d : d + starts] for d in range(dimension)], axis=1)
    for m, near in enumerate(_returns(embedded, points, radius, theiler)):
        count[m] = len(near)
        if len(near):
            distances[m] = _mean_distances(series, points[m], near, horizon, geometric)
    return _rates(points, count, distances, window)


def _returns(embedded: Floats, points: Integers, radius: float, theiler: int) -> Iterator[Integers]:
    """Indices of the near returns of each point among the rows of embedded (starts, dimension)."""
    from scipy.spatial import cKDTree

    tree = cKDTree(embedded)
    for i in points:
        near = np.asarray(tree.query_ball_point(embedded[i], radius, p=np.inf), dtype=np.int64)
        near = near[(np.abs(embedded[near] - embedded[i]).max(axis=1) < radius) & (near != i)]
        yield near[np.abs(near - i) > theiler]


def _mean_distances(
    series: Floats, point: int, near: Integers, horizon: int, geometric: bool
) -> Floats:
    """Mean distance (horizon + 1,) of a point from its returns after 0, 1, … steps."""
    steps = np.arange(horizon + 1)
    apart = np.abs(series[near[:, np.newaxis] + steps] - series[point + steps])
    with np.errstate(divide="ignore"):
        result: Floats = np.exp(np.log(apart).mean(axis=0)) if geometric else apart.mean(axis=0)
    return result


def _rates(
    points: Integers, count: Integers, distances: Floats, window: int | None
) -> ExpansionRates:
    """Lines through the logarithms of distances (m, horizon + 1)."""
    horizon = distances.shape[1] - 1
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
    """Period with which scalar series repeat, apart from a slow drift.

    The increments y_t = x_{t+1} − x_t are compared after q steps by D(q) = rms(y_{t+q} − y_t)
    / (√2 rms(y)), which is 1 on average for uncorrelated increments. The period is the smallest p
    for which

    - increments repeat persistently: D(p), D(2 p), … are at most `tol`, up to lags of three
      quarters of the series;
    - no other period fits much better: D(p) is at most twice the smallest D(q) of all q that are
      tried (or 1e-9, or rounding) and of all multiples of p (or 1e-7). A cycle whose turns
      alternate slightly therefore has the double period, or none if that is not tried. A difference
      between successive turns that decays (it halves from the first to the last quarter of the
      series) is exempt;
    - the error does not accumulate: if the series has fewer than 16 periods and D(2 p) is more than
      1.5 D(p), 16 D(p) is at most `tol`. Near-returns of a rotation by an irrational angle are
      therefore not periods.

    Parameters
    ----------
    x : array_like, shape (..., T)
        Series, time last, at least eight values. nan or inf gives the result 0.
    max_period : int, default 64
        Longest period to try; periods above a quarter of T are not tried.
    tol : float, default 0.05
        Largest difference between increments one period apart, relative to that of uncorrelated
        ones; above 0 and below 1.

    Returns
    -------
    ndarray of int, shape (...)
        1 for a series that is at rest, drifts at a constant rate or is monotone (up to 1e-12 of its
        size), p for one of period p, 0 where there is none up to `max_period`: noise, chaos, a
        rotation by an irrational angle, and slow oscillations of a longer period.

    Raises
    ------
    ArgumentError
        If an argument is out of range or has the wrong type.

    Notes
    -----
    The cost is O(T max_period) per series, and O(T log T) for the multiples. Chaos in bands whose
    widths are below `tol` of the distance between them has the period with which the bands are
    visited.

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
        rows = slice(first, first + size)
        period[rows] = _periods(flat[rows], max_period, tol)
    return period.reshape(series.shape[:-1])[()]


def _periods(flat: Floats, max_period: int, tol: float) -> Integers:
    """Periods (runs,) of series (runs, T), as defined by `find_period`."""
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
            accumulates = lags[:, 2 * p] > 1.5 * np.maximum(apart[:, p], _NO_DIFFERENCE)
            fits &= ~accumulates | (_FEW * apart[:, p] <= tol)
        turns = (y[:, p:] - y[:, :-p]) ** 2
        quarter = max(1, turns.shape[1] // 4)
        decays = 4.0 * turns[:, -quarter:].mean(axis=1) < turns[:, :quarter].mean(axis=1)
        alike = apart[:, p] <= np.minimum(
            best, np.maximum(2.0 * multiples.min(axis=1), _ALIKE + rounding)
        )
        found[fits & (alike | decays)] = p
    result[moving] = found
    return result


def _all_apart(y: Floats) -> Floats:
    """rms(y_{t+q} − y_t) of rows (runs, n) for q = 0 … n − 1, accurate to 1e-8 of rms(y)."""
    from scipy.fft import irfft, next_fast_len, rfft

    n = y.shape[1]
    size = next_fast_len(2 * n, real=True)
    spectrum = rfft(y, size, axis=-1)
    products = irfft(spectrum.real**2 + spectrum.imag**2, size, axis=-1)[:, :n]
    squares = (y**2).cumsum(axis=1)
    whole = squares[:, -1:]
    left = squares[:, ::-1]  # sums over the first n − q
    right = whole - np.concatenate([np.zeros_like(whole), squares[:, :-1]], axis=1)
    sums = np.maximum(left + right - 2.0 * products, 0.0)
    result: Floats = np.sqrt(sums / np.arange(n, 0, -1))
    return result


_NO_DIFFERENCE = 1e-9  # between increments, relative to uncorrelated ones: rounding
_ALIKE = 1e-7  # the same for differences that come from Fourier transforms
_FEW = 16  # periods over which an accumulating error must stay within `tol`
_ROUNDING = 1e-12  # of a series' size: a smaller increase is rounding
_TINY = np.finfo(float).tiny

_SHORTEST, _FIXED = 5, 10  # last step of the shortest line, and of the one that is tested


def _correlate(series: Floats, lags: int) -> Floats:
    """Autocorrelation (runs, lags + 1) of rows, by zero-padded transforms."""
    from scipy.fft import irfft, next_fast_len, rfft

    length = series.shape[-1]
    centred = series - series.mean(axis=-1, keepdims=True)
    peak = np.abs(centred).max(axis=-1, keepdims=True)
    centred /= np.where(peak > 1e150, peak, 1.0)  # squares of larger numbers overflow
    # The centred series of a constant is the rounding error of its mean.
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
