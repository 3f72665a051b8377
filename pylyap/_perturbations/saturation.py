"""Saturation of growing distances: the record at which growth ends on a level."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pylyap._checks import Floats
from pylyap._statistics import fit_lines

Integers = NDArray[np.int64]

# Two lines that meet count as growth and a plateau if they fit better than one by `_PENALTY` ln T
# in −2 ln likelihood (the penalty of three parameters) or leave less than `_LEFT` of the sum of
# squares, the first rises by more than `_BELOW` nats, and the second at less than `_STEEP` of its
# rate, and by less than `_STILL` of its rise or at less than `_SLOW` of its rate. A last quarter is
# a plateau if it stays within `_BELOW` nats and `_WITHIN` of the rise, at less than `_LATE` of the
# mean rate before. Of simulated lines plus random walks, the worst case, 0.5 % (T = 1000) to 5 %
# (T = 30) are falsely saturated; with `_LEFT` = 0.2 or `_WITHIN` = 0.17 that would rise by 3 %.
_PENALTY, _LEFT, _BELOW = 3.0, 0.1, 1.0
_STEEP, _STILL, _SLOW = 0.5, 0.25, 0.02
_WITHIN, _LATE = 0.1, 0.1
_EXACT = 1e-12  # residuals in nats below this are rounding
_LEAST_LEVEL = 30  # records, at least, whose median is the level


def saturation_record(flat: Floats) -> Integers:
    """Records (runs,) at which ln distances (runs, T) saturate, as defined by `growth_rate`.

    -1 where they do not saturate.
    """
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
        # Record at which the first line is at ln distance 0.
        reached = bend.at - (mean + bend.height) / bend.first
    flat_end, level = _plateau(flat, there)
    for r in np.flatnonzero(bent | flat_end):
        y, known = flat[r], there[r]
        at = int(bend.at[r]) if bent[r] else _crossing(y, level[r])
        stop = at + max(at, _LEAST_LEVEL)
        near = float(np.median(y[at:stop][known[at:stop]])) - _BELOW
        first = _crossing(y[:stop], near)
        if bent[r]:
            first = min(first, max(math.ceil(reached[r] + near / bend.first[r]), 0))
        result[usable[r]] = first
    return result


@dataclass
class _Bend:
    """Two lines that meet, as defined by `growth_rate`; one number per run."""

    at: Integers  # record at which they meet
    height: Floats  # value of y there
    left: Floats  # sum of squared residuals of two lines relative to one
    gain: Floats  # n ln(S₁/S₂)
    first: Floats  # slopes, per record
    second: Floats


def _bend(y: Floats, there: NDArray[np.bool_]) -> _Bend:
    """Least-squares pair of lines, the second flatter, through y (runs, T), 0 where missing."""
    runs, records = y.shape
    w = there.astype(float)
    n = w.sum(axis=1)
    t = np.broadcast_to((np.arange(records) - (records - 1) / 2) / records, y.shape)
    late = w * (t - ((w * t).sum(axis=1) / n)[:, np.newaxis])
    square = (late**2).sum(axis=1)
    slope = (y * late).sum(axis=1) / square
    residual = y - slope[:, np.newaxis] * late
    # Products of max(t − c, 0) with 1, t, itself and the residual, for each record c.
    s0, s1, s2 = _sum_from(w), _sum_from(w * t), _sum_from(w * t**2)
    with_one = s1 - t * s0
    with_late = (s2 - t * s1) - with_one * ((w * t).sum(axis=1) / n)[:, np.newaxis]
    itself = s2 - 2.0 * t * s1 + t**2 * s0
    itself = itself - with_one**2 / n[:, np.newaxis] - with_late**2 / square[:, np.newaxis]
    with_residual = _sum_from(residual * t) - t * _sum_from(residual)
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
    rho = np.minimum(rho + 2.0 * (2.0 + 4.0 * rho) / n, 1.0)  # twice the bias due to one line
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


def _sum_from(values: Floats) -> Floats:
    """Cumulative sums (runs, T) of values from each record to the end."""
    result: Floats = values[:, ::-1].cumsum(axis=1)[:, ::-1]
    return result


def _plateau(flat: Floats, there: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], Floats]:
    """Whether the last quarter of each run (runs, T) is a plateau, and its median minus 1 nat."""
    quarter = max(flat.shape[1] // 4, 3)
    complete: NDArray[np.bool_] = np.asarray(there[:, -quarter:].all(axis=1))
    late = np.where(complete[:, np.newaxis], flat[:, -quarter:], 0.0)
    start = there.argmax(axis=1)
    middle = np.median(late, axis=1)
    rise = middle - flat[np.arange(len(flat)), start]
    pace = rise / np.maximum(flat.shape[1] - quarter - start, 1)
    spread = np.ptp(late, axis=1)
    found = complete & (spread < _BELOW) & (spread < _WITHIN * rise)
    return found & (fit_lines(late).slope < _LATE * pace), middle - _BELOW


def _crossing(y: Floats, level: float) -> int:
    """Record that best separates y below the level from y above it.

    Exceptions are records above the level before it and below the level from it on.
    """
    below, above = y < level, y >= level
    exceptions = above.cumsum() - above + below[::-1].cumsum()[::-1]
    return int(exceptions.argmin())
