"""Statistics of series and samples: batch means, straight lines, quartiles, ranks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pylyap._checks import Floats

# Minimum number of records for an error. With 16, the coverage of intervals for AR(1) records with
# coefficient 0.95 is 93 %; with 12 it is 89 %.
MIN_RECORDS = 16

# Records are averaged over blocks. The number of blocks is at least this and less than twice this.
_BLOCKS = 100

# Degrees of freedom: 0.4 times the number of blocks per correlation time, at least 2 and at most a
# sixth of the blocks. An AR(1) spectrum decreases by less than a sixth up to that frequency. In
# simulations of AR(1) records (coefficients 0 to 0.95, 16 to 5000 records) the coverage is 0.93 to
# 0.99. A tenth or a third instead of a sixth, and 0.3 or 0.5 instead of 0.4, change it by less than
# 0.02.
_MIN_FREEDOM, _BLOCKS_PER_FREEDOM, _FREEDOM_PER_TIME = 2, 6, 0.4

# The correlation of adjacent blocks is the estimate plus two standard errors, at most 0.98. Records
# with a stronger correlation are too short to estimate a stationary mean.
_CORRELATION_ERRORS, _MAX_CORRELATION = 2.0, 0.98

# Significance level of each of the two tests for a trend.
_TREND_LEVEL = 0.005

# The largest AR(1) coefficient of stationary records from which a trend is distinguished.
_TREND_CORRELATION = 0.97

_ROUNDING = 1e-12  # relative to the mean: smaller scatter is rounding error
_NORMAL = 1.959963984540054  # 97.5 % quantile of the normal distribution
_BLOCK_ENTRIES = 2**16  # numbers processed at a time: 512 KiB, which fits a level-2 cache


@dataclass(frozen=True)
class BatchMeans:
    """Standard error of a mean, and whether the series has a trend, from block means."""

    stderr: Floats
    trend: NDArray[np.bool_]


def batch_means(series: Floats) -> BatchMeans:
    """Standard error and trend of the mean over T of correlated series.

    Parameters
    ----------
    series : ndarray, shape (..., T, k)
        Records; the mean is over axis -2.

    Returns
    -------
    BatchMeans
        Arrays of shape (..., k). With fewer than 16 records, or if a record is nan or infinite, the
        error is nan and the trend False. Equal records have error 0.

    Notes
    -----
    mean ± 1.96 stderr is a 95 % confidence interval: `stderr` contains the ratio of the quantile of
    Student's t distribution to that of the normal distribution.

    Records are averaged over 100 … 199 blocks, if there are enough. The squared error is the
    spectral density of the block means at frequency zero, divided by their number. It is estimated
    by the mean square of their first ν cosine transforms, each divided by the ratio of an AR(1)
    spectrum at its frequency to that at zero. ν decreases with the correlation time, from a sixth
    of the blocks to 2. The AR(1) coefficient is the correlation of adjacent block means about a
    straight line, corrected for bias, plus two standard errors, and at most 0.98. Hence errors of
    records that are short compared with their correlation time are too large rather than too small.

    Coverage was determined by simulation. For 16 … 5000 records of AR(1) processes with a
    coefficient of at most 0.95, intervals cover the mean in at least 90 % of the cases, and fewer
    than 2 % of the trends are false. Fluctuations that are small compared with the scatter of the
    records, and as slow as the whole record, are not detected.

    A trend is the slope of a straight line through the block means that is significant at 0.5 % in
    one of two tests: by the same ν transforms, or by generalised least squares for AR(1) records
    with coefficient 0.97. It must also be significant for independent records.

    References
    ----------
    Müller, J. Bus. Econ. Stat. 32, 311 (2014), and Lazarus, Lewis, Stock, Watson, J. Bus. Econ.
    Stat. 36, 541 (2018), for cosine transforms and Student's t. Flegal, Jones, Ann. Stat. 38, 1034
    (2010), for block means.
    """
    length, k = series.shape[-2:]
    shape = (*series.shape[:-2], k)
    error, trend = np.full(shape, np.nan), np.zeros(shape, bool)
    if length < MIN_RECORDS or error.size == 0:
        return BatchMeans(error, trend)
    runs = series.reshape(-1, length, k)
    errors, trends = error.reshape(-1, k), trend.reshape(-1, k)
    size = max(1, _BLOCK_ENTRIES // (length * k))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for first in range(0, len(runs), size):
            block = slice(first, first + size)
            errors[block], trends[block] = _errors_and_trends(runs[block])
    return BatchMeans(error, trend)


@lru_cache(maxsize=16)
def _transforms(m: int) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Constants for m blocks, ν of each.

    Cosine vectors (ν, m) of unit length; 4 sin²(ω/2) of their frequencies (ν,); their products with
    the centred time (ν,). For 1 … ν degrees of freedom: the 97.5 % quantile of Student's t over
    that of the normal distribution (ν,), and the critical value of the trend test (ν,).
    """
    from scipy.special import stdtrit

    j = np.arange(1, max(m // _BLOCKS_PER_FREEDOM, _MIN_FREEDOM) + 1)
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
def _generalised_line(m: int, size: int) -> tuple[Floats, float, Floats, Floats]:
    """Generalised least squares of a line through m blocks of `size` AR(1) records.

    The records have the coefficient `_TREND_CORRELATION`. Returns `scale` (m,) and `lag`, such that
    scale_i y_i − lag y_{i-1} are independent with equal variance, the unit vector (m,) of a
    constant in these variables, and the unit vector of a line orthogonal to it.
    """
    rho, power = _TREND_CORRELATION, _TREND_CORRELATION**size
    # Correlation of adjacent block means.
    lag = rho * (1 - power) ** 2 / (size * (1 - rho**2) - 2 * rho * (1 - power))
    scale = np.ones(m)
    scale[0] = np.sqrt(1.0 - lag**2)
    flat, line = scale.copy(), scale * np.arange(m)
    flat[1:] -= lag
    line[1:] -= lag * np.arange(m - 1)
    flat /= np.sqrt((flat**2).sum())
    line -= (line * flat).sum() * flat
    return scale, lag, flat, line / np.sqrt((line**2).sum())


def _errors_and_trends(series: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Standard errors and trends (runs, k) of series (runs, T, k), T >= 16."""
    from scipy.special import stdtrit

    runs, length, k = series.shape
    size = max(1, length // _BLOCKS)
    m = length // size
    rest = length - m * size  # the first records, which are in no block
    means = series[:, rest:].reshape(runs, m, size, k).mean(axis=2) if size > 1 else series
    y = np.array(means.transpose(0, 2, 1), order="C").reshape(-1, m)  # one series per row
    offset = y[:, :1].copy()
    y -= offset  # equal records then have mean 0 exactly
    mean = y.mean(axis=1)
    y -= mean[:, np.newaxis]
    mean += offset[:, 0]

    time = np.arange(m) - (m - 1) / 2
    slope = np.vecdot(y, time) / (time @ time)
    residual = y - slope[:, np.newaxis] * time
    total = np.vecdot(residual, residual)
    r = np.vecdot(residual[:, 1:], residual[:, :-1]) / total
    r = np.minimum(r + (2.0 + 4.0 * r) / m, 1.0)  # bias due to the fitted line and the correlation
    r += _CORRELATION_ERRORS * np.sqrt(np.maximum(1.0 - r**2, 0.0) / m)
    r = np.where(np.isfinite(r), np.clip(r, 0.0, _MAX_CORRELATION), 0.0)

    cosines, decay, time_transform, t_ratio, critical = _transforms(m)
    freedom = np.floor(_FREEDOM_PER_TIME * m * (1.0 - r) / (1.0 + r)).astype(int)
    last = np.clip(freedom, _MIN_FREEDOM, len(cosines)) - 1
    rows = np.arange(len(y))
    whitened = np.sqrt(1.0 + decay * (r / (1.0 - r) ** 2)[:, np.newaxis])
    weights = np.vecdot(y[:, np.newaxis], cosines) * whitened
    squares = (weights**2).cumsum(axis=1)[rows, last]
    error = np.sqrt(squares / ((last + 1) * m)) * t_ratio[last]
    if rest:  # the mean includes the records outside the blocks
        remainder = series[:, :rest].mean(axis=1).ravel() - mean
        error = np.hypot(error, remainder * (rest / length))

    level = float(stdtrit(m - 2, 1.0 - _TREND_LEVEL / 2)) ** 2
    time_transform = time_transform * whitened
    norm = (time_transform**2).cumsum(axis=1)[rows, last]
    along = (time_transform * weights).cumsum(axis=1)[rows, last] ** 2 / norm
    by_transforms = along * last > critical[last] ** 2 * np.maximum(squares - along, 0.0)
    scale, lag, flat, line = _generalised_line(m, size)
    independent = scale * y
    independent[:, 1:] -= lag * y[:, :-1]
    constant_part, line_part = np.vecdot(independent, flat) ** 2, np.vecdot(independent, line) ** 2
    scatter = np.vecdot(independent, independent) - constant_part - line_part
    by_least_squares = line_part * (m - 2) > level * np.maximum(scatter, 0.0)
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
    known = ~np.isnan(values).all(axis=0)
    result = np.full((3, *values.shape[1:]), np.nan)
    result[:, known] = np.nanquantile(values[:, known], (0.25, 0.5, 0.75), axis=0)
    return result[0], result[1], result[2]


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
