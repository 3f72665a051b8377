"""Area under the ROC curve: its errors, intervals and tests."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pylyap import _checks
from pylyap._checks import Floats

if TYPE_CHECKING:
    from pylyap._checks import Seed

Booleans = NDArray[np.bool_]
Integers = NDArray[np.int64]

_AT_ONCE = 2**21  # numbers that a bootstrap draws at once


def fraction_below(x: Floats, others: Floats) -> Floats:
    """Fraction of the others that each x exceeds, ties half; the mean is the AUC of x over them."""
    ordered = np.sort(others)
    left = np.searchsorted(ordered, x, side="left")
    right = np.searchsorted(ordered, x, side="right")
    result: Floats = 0.5 * (left + right) / len(others)
    return result


def roc_curve(low: Floats, high: Floats) -> tuple[Floats, Floats, Floats]:
    """Fractions of low and of high values at or above each cut, and the cuts, descending."""
    values = np.sort(np.concatenate([low, high]))
    cuts = values[np.append(True, values[1:] != values[:-1])]
    of_low, of_high = (
        (len(x) - np.searchsorted(np.sort(x), cuts[::-1], side="left")) / len(x)
        for x in (low, high)
    )
    return of_low, of_high, np.ascontiguousarray(cuts[::-1])


def _placements(low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Fraction of high values above each low one, and of low values below each high one."""
    return 1.0 - fraction_below(low, high), fraction_below(high, low)


def delong(low: Floats, high: Floats) -> tuple[float, float]:
    """AUC and its variance, by DeLong's method."""
    of_low, of_high = _placements(low, high)
    variance = 0.0
    for part in (of_low, of_high):
        if len(part) > 1:
            variance += float(part.var(ddof=1)) / len(part)
    return float(of_high.mean()), variance


def logit_interval(auc: float, variance: float, few: int, level: float) -> tuple[float, float]:
    """Confidence interval of an AUC on the logit scale; `few` is the size of the smaller class.

    Perfect separation has no observed variance: the interval is then that of a binomial proportion
    without a failure.
    """
    from scipy.special import expit, logit, ndtri

    if variance <= 0.0 or auc in (0.0, 1.0):
        reach = 1.0 - (0.5 * (1.0 - level)) ** (1.0 / few)
        return max(auc - reach, 0.0), min(auc + reach, 1.0)
    z = float(ndtri(0.5 + 0.5 * level))
    reach = z * math.sqrt(variance) / (auc * (1.0 - auc))
    return float(expit(logit(auc) - reach)), float(expit(logit(auc) + reach))


def bootstrap_interval(low: Floats, high: Floats, level: float, seed: Seed) -> tuple[float, float]:
    """Percentiles of the AUC over samples with replacement from each class."""
    from scipy.stats import bootstrap

    values, place = np.unique(np.concatenate([low, high]), return_inverse=True)

    def area(x: Integers, y: Integers) -> float:
        # Samples are counts of the distinct values: no sample is sorted.
        x, y = np.bincount(x, minlength=len(values)), np.bincount(y, minlength=len(values))
        return float((y @ (x.cumsum() - 0.5 * x)) / (len(low) * len(high)))

    found = bootstrap(
        (place[: len(low)], place[len(low) :]),
        area,
        n_resamples=2000,
        batch=max(1, _AT_ONCE // len(place)),
        vectorized=False,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(_checks.seed_sequence(seed)),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def null_variance(is_high: Booleans) -> float:
    """Variance of the AUC of an indicator independent of the outcome (Mann, Whitney)."""
    m, n = int(is_high.sum()), int((~is_high).sum())
    return (m + n + 1) / (12.0 * m * n)


def two_sided(difference: float, variance: float) -> float:
    """Two-sided p-value of a normal difference from 0."""
    from scipy.special import ndtr

    if variance <= 0.0:
        return 1.0 if difference == 0.0 else 0.0
    return 2.0 * float(ndtr(-abs(difference) / math.sqrt(variance)))


def paired_pvalue(values: Floats, others: Floats, is_high: Booleans) -> float:
    """DeLong's p-value of two indicators of the same runs having equal skill |AUC − 1/2|."""
    both = np.isfinite(values) & np.isfinite(others)
    high = is_high[both]
    if high.sum() < 2 or (~high).sum() < 2:
        return math.nan
    parts, skills = [], []
    for x in (values[both], others[both]):
        of_low, of_high = _placements(x[~high], x[high])
        sign = 1.0 if of_high.mean() >= 0.5 else -1.0
        skills.append(sign * (float(of_high.mean()) - 0.5))
        parts.append((sign * of_low, sign * of_high))
    variance = 0.0
    for i in (0, 1):
        difference = parts[0][i] - parts[1][i]
        variance += float(difference.var(ddof=1)) / len(difference)
    return two_sided(skills[0] - skills[1], variance)


def holm(p: Floats) -> Floats:
    """Holm's step-down adjustment over all finite p-values."""
    adjusted = np.full(p.shape, np.nan)
    where = np.flatnonzero(np.isfinite(p))
    order = where[np.argsort(p.flat[where], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted.flat[order] = np.minimum(np.maximum.accumulate(factors * p.flat[order]), 1.0)
    return adjusted
