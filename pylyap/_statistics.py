"""Standard error and trend of means over correlated records."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pylyap._checks import Floats

# Fewer records give no error. With 16, intervals of AR(1) records cover in 93 % of the cases at a
# coefficient of 0.95; with 12, in 89 %.
LEAST_RECORDS = 16

# Records are averaged over blocks; there are this many blocks, or up to twice as many.
_BLOCKS = 100

# Degrees of freedom: at most a sixth of the blocks, at least 2, and between these 0.4 blocks over
# the correlation time: AR(1) spectra have fallen by less than a sixth there. Simulations of AR(1)
# records (coefficients 0 to 0.95, 16 to 5000 records) give coverages of 0.93 to 0.99; a tenth or
# a third instead of a sixth, and 0.3 or 0.5 instead of 0.4, change them by less than 0.02.
_LEAST_FREEDOM, _SHARE, _PER_TIME = 2, 6, 0.4

# The correlation of neighbouring blocks is taken two standard errors above its estimate, up to
# this. Records of which even this is too low have no stationary mean that they could tell.
_ERRORS, _STRONGEST = 2.0, 0.98

# Each of two tests for a trend has this probability of a false alarm.
_TREND_LEVEL = 0.005

# The slowest AR(1) records, by their coefficient, that a trend is told from.
_SLOWEST = 0.97

_ROUNDING = 1e-12  # of the mean: scatter below this is rounding
_NORMAL = 1.959963984540054  # quantile of a 95 % interval
_AT_ONCE = 2**16  # numbers that are worked on at a time: half a megabyte, a level-2 cache


@dataclass(frozen=True)
class BatchMeans:
    """Standard error of a mean and whether the series drifts, from means over blocks."""

    stderr: Floats
    trend: NDArray[np.bool_]


def batch_means(series: Floats) -> BatchMeans:
    """Error and trend of the mean of `series` (..., T, k) over T, correlations included.

    mean ± 1.96 stderr is a 95 % interval: the quantile of Student's t for the few degrees of
    freedom that correlated records have is part of `stderr`, over that of the normal distribution.

    Records are averaged over 100 … 199 blocks, if there are as many. The spectral density of the
    block means at frequency zero, over their number, is the squared error. It is the mean square of
    their first ν cosine transforms, each divided by the fall of an AR(1) spectrum up to its
    frequency; ν falls as the correlation time grows, from a sixth of the blocks to 2. The AR(1)
    coefficient is the correlation of neighbouring block means about a straight line, corrected for
    its bias, plus two standard errors, and at most 0.98. So errors of records that are short for
    their correlations are wide, rather than too small. Guaranteed is what simulations show: for
    16 … 5000 records of AR(1) processes with a coefficient of up to 0.95 the intervals cover in at
    least 90 % of the cases and false trends are rarer than 2 %. Records that wander by a small
    fraction of their scatter over times as long as the record are beyond it.

    A trend is a straight line through the block means that is more significant than 0.5 % either by
    the same ν transforms or as the mean of first differences of block means, which allows for any
    correlation up to that of a random walk; and in any case by more than independent records would
    scatter.

    Returns
    -------
    BatchMeans
        (..., k) each. With fewer than 16 records, and where one of them is nan or infinite, the
        error is nan and the trend False. Equal records have error 0.

    References
    ----------
    Müller, J. Bus. Econ. Stat. 32, 311 (2014), and Lazarus, Lewis, Stock, Watson, J. Bus. Econ.
    Stat. 36, 541 (2018), for cosine transforms and Student's t. Flegal, Jones, Ann. Stat. 38, 1034
    (2010), for block means.
    """
    length, k = series.shape[-2:]
    shape = (*series.shape[:-2], k)
    error, trend = np.full(shape, np.nan), np.zeros(shape, bool)
    if length < LEAST_RECORDS or error.size == 0:
        return BatchMeans(error, trend)
    runs = series.reshape(-1, length, k)
    errors, trends = error.reshape(-1, k), trend.reshape(-1, k)
    size = max(1, _AT_ONCE // (length * k))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for first in range(0, len(runs), size):
            some = slice(first, first + size)
            errors[some], trends[some] = _of_runs(runs[some])
    return BatchMeans(error, trend)


@lru_cache(maxsize=16)
def _transforms(m: int) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """For m blocks: cosines (ν, m) of unit length, 4 sin²(ω/2) of their frequencies (ν,), their
    products with the centred time (ν,), and for each number of them the quantile of a 95 % interval
    over the normal one and the critical value of a trend (ν,)."""
    from scipy.special import stdtrit

    j = np.arange(1, max(m // _SHARE, _LEAST_FREEDOM) + 1)
    time = np.arange(m) - (m - 1) / 2
    cosines = np.sqrt(2.0 / m) * np.cos(np.pi * j[:, np.newaxis] * (np.arange(m) + 0.5) / m)
    return (
        cosines,
        4.0 * np.sin(0.5 * np.pi * j / m) ** 2,
        (cosines * time).sum(axis=1),
        stdtrit(j, 0.975) / _NORMAL,
        stdtrit(np.maximum(j - 1, 1), 1.0 - _TREND_LEVEL / 2),
    )


@lru_cache(maxsize=16)
def _generalised(m: int, size: int) -> tuple[Floats, float, Floats, Floats]:
    """Generalised least squares of a line through m blocks of AR(1) records with the coefficient
    `_SLOWEST`: y_i scale_i − lag y_{i-1} are independent and of one variance; the unit vector (m,)
    of a constant among them, and that of a line orthogonal to it."""
    rho, power = _SLOWEST, _SLOWEST**size
    # The correlation of means over neighbouring blocks.
    lag = rho * (1 - power) ** 2 / (size * (1 - rho**2) - 2 * rho * (1 - power))
    scale = np.ones(m)
    scale[0] = np.sqrt(1.0 - lag**2)
    flat, line = scale.copy(), scale * np.arange(m)
    flat[1:] -= lag
    line[1:] -= lag * np.arange(m - 1)
    flat /= np.sqrt((flat**2).sum())
    line -= (line * flat).sum() * flat
    return scale, lag, flat, line / np.sqrt((line**2).sum())


def _of_runs(series: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Error and trend (runs, k) of series (runs, T, k), T >= 16."""
    from scipy.special import stdtrit

    runs, length, k = series.shape
    size = max(1, length // _BLOCKS)
    m = length // size
    rest = length - m * size
    means = series[:, rest:].reshape(runs, m, size, k).mean(axis=2) if size > 1 else series
    y = np.array(means.transpose(0, 2, 1), order="C").reshape(-1, m)  # a series a row
    offset = y[:, :1].copy()
    y -= offset  # so that equal records differ by exactly 0
    mean = y.mean(axis=1)
    y -= mean[:, np.newaxis]
    mean += offset[:, 0]

    time = np.arange(m) - (m - 1) / 2
    slope = np.vecdot(y, time) / (time @ time)
    residual = y - slope[:, np.newaxis] * time
    total = np.vecdot(residual, residual)
    r = np.vecdot(residual[:, 1:], residual[:, :-1]) / total
    r = np.minimum(r + (2.0 + 4.0 * r) / m, 1.0)  # a line and correlation bias it by this
    r += _ERRORS * np.sqrt(np.maximum(1.0 - r**2, 0.0) / m)
    r = np.where(np.isfinite(r), np.clip(r, 0.0, _STRONGEST), 0.0)

    cosines, fall, of_time, widening, critical = _transforms(m)
    freedom = np.floor(_PER_TIME * m * (1.0 - r) / (1.0 + r)).astype(int)
    last = np.clip(freedom, _LEAST_FREEDOM, len(cosines)) - 1
    rows = np.arange(len(y))
    whitened = np.sqrt(1.0 + fall * (r / (1.0 - r) ** 2)[:, np.newaxis])
    weights = np.vecdot(y[:, np.newaxis], cosines) * whitened
    squares = (weights**2).cumsum(axis=1)[rows, last]
    error = np.sqrt(squares / ((last + 1) * m)) * widening[last]
    if rest:  # the mean counts the records that fill no block
        left_out = series[:, :rest].mean(axis=1).ravel() - mean
        error = np.hypot(error, left_out * (rest / length))

    level = float(stdtrit(m - 2, 1.0 - _TREND_LEVEL / 2)) ** 2
    of_time = of_time * whitened
    norm = (of_time**2).cumsum(axis=1)[rows, last]
    along = (of_time * weights).cumsum(axis=1)[rows, last] ** 2 / norm
    by_transforms = along * last > critical[last] ** 2 * np.maximum(squares - along, 0.0)
    scale, lag, flat, line = _generalised(m, size)
    independent = scale * y
    independent[:, 1:] -= lag * y[:, :-1]
    of_flat, of_line = np.vecdot(independent, flat) ** 2, np.vecdot(independent, line) ** 2
    scatter = np.vecdot(independent, independent) - of_flat - of_line
    by_least_squares = of_line * (m - 2) > level * np.maximum(scatter, 0.0)
    significant = slope**2 * (time @ time) * (m - 2) > level * total
    trend = (by_transforms | by_least_squares) & significant

    spread = np.sqrt(np.vecdot(y, y) / m)
    constant = spread <= _ROUNDING * np.abs(mean)
    error = np.where(constant, spread / np.sqrt(m), error)
    return error.reshape(runs, k), (trend & ~constant).reshape(runs, k)


# --- other statistics ---


def quartiles(values: Floats) -> tuple[Floats, Floats, Floats]:
    """Lower quartile, median and upper quartile of the finite values along the first axis.

    nan where there is no finite value.
    """
    values = np.where(np.isfinite(values), values, np.nan)
    some = ~np.isnan(values).all(axis=0)
    result = np.full((3, *values.shape[1:]), np.nan)
    result[:, some] = np.nanquantile(values[:, some], (0.25, 0.5, 0.75), axis=0)
    return result[0], result[1], result[2]


def fraction_below(x: Floats, others: Floats) -> Floats:
    """Fraction of `others` below each entry of `x`, ties counted half.

    The mean is the area under the ROC curve of `x` against `others`.
    """
    ordered = np.sort(others)
    left = np.searchsorted(ordered, x, side="left")
    right = np.searchsorted(ordered, x, side="right")
    result: Floats = 0.5 * (left + right) / len(others)
    return result


@dataclass
class Lines:
    """Least-squares lines through many series: arrays (...), one entry per series."""

    slope: Floats
    stderr: Floats  # of the slope, for independent residuals
    intercept: Floats  # at index 0
    r2: Floats  # nan for a constant series


def fit_lines(y: Floats, first: int = 0) -> Lines:
    """Fit lines to series y (..., n), n >= 3, at the indices first, first + 1, ….

    All fields are nan for a series that contains nan.
    """
    n = y.shape[-1]
    t = np.arange(n) - (n - 1) / 2.0
    mean = y.mean(axis=-1)
    centred = y - mean[..., np.newaxis]
    # Not with @: BLAS sums one row and many rows in different orders.
    slope = (centred * t).sum(axis=-1) / (t @ t)
    total = (centred**2).sum(axis=-1)
    residual = ((centred - slope[..., np.newaxis] * t) ** 2).sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = np.where(total > 0, 1.0 - residual / total, np.nan)
        stderr = np.sqrt(residual / (n - 2) / (t @ t))
    return Lines(slope, stderr, mean - slope * (first + (n - 1) / 2.0), r2)
