"""Straight lines through many series at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pylyap._checks import Floats


@dataclass
class Lines:
    """Least-squares lines, one number each (...) per series."""

    slope: Floats
    stderr: Floats  # of the slope, for independent residuals
    intercept: Floats  # at index 0
    r2: Floats  # nan for a constant


def straight_lines(y: Floats, first: int = 0) -> Lines:
    """Lines through y (..., n) at the indices first, first + 1, …, n >= 3; nan where y has one."""
    n = y.shape[-1]
    t = np.arange(n) - (n - 1) / 2.0
    mean = y.mean(axis=-1)
    centred = y - mean[..., np.newaxis]
    # Not by @: a BLAS sums one row and many in different orders.
    slope = (centred * t).sum(axis=-1) / (t @ t)
    total = (centred**2).sum(axis=-1)
    residual = ((centred - slope[..., np.newaxis] * t) ** 2).sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = np.where(total > 0, 1.0 - residual / total, np.nan)
        stderr = np.sqrt(residual / (n - 2) / (t @ t))
    return Lines(slope, stderr, mean - slope * (first + (n - 1) / 2.0), r2)
