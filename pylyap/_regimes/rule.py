"""The rule that labels the late window of a run with its regime."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._errors import ArgumentError
from pylyap._perturbations.series import find_period
from pylyap._statistics import fit_lines

Integers = NDArray[np.int64]

REGIMES = ("convergent", "edge of stability", "periodic", "chaotic", "divergent", "undecided")

_ROUNDING = 1e-12  # of a loss: a smaller increase is rounding
_ZERO = 1e-26  # of the first loss: below it residuals are rounding errors alone

# Sustained growth: see `_Growth`.
_BLOCKS = 16  # at most, of the window, of at least 4 steps
_GROWS = 1e-3  # nats over the window; a cycle that repeats the same states grows by less
_ALIGNED = 1.0  # nats over the window by which an unaligned tangent vector may fall short
_STRAIGHT = 0.9  # r² of the line through the blocks
_KEPT = 0.5  # of its slope, in the last quarter of the blocks
_SCATTER = 2.0  # standard errors by which this slope may be too small


@dataclass(frozen=True)
class RegimeRule:
    """Thresholds of the rule that labels the last steps of a run (its late window).

    The first of these that holds is the label:

    1. **divergent**: the run diverged, or its loss is above `escape` times the first, or the orbit
       grows exponentially across the window, however slowly, as under a linear map:

       - its motion, the root mean square of the second differences of the weights along a random
         direction in up to 16 blocks of the window, grows: a straight line through its logarithms
         rises by at least 1e-3 nats over the window, with r² of at least 0.9;
       - growth does not level off within the window: the slope of the last quarter of the blocks
         is at least half of the overall slope, or within two standard errors of that;
       - the mean loss of the last quarter of the window is above that of the first;
       - perturbations grow at the rate of the orbit: exponent and slope agree within a factor of 2
         or `errors` standard errors. (The exponent may be smaller by another nat over the window,
         before the tangent vector has aligned.)
    2. **chaotic**: the leading exponent of the window is above `exponent` and above `errors` times
       its standard error, and the orbit is bounded and not at rest: the first three conditions
       above do not all hold, the line rises at less than half the rate of perturbations, and the
       loss rises in some steps and is not at rest.
    3. **periodic**: the loss does not fall from the first to the last quarter of the window by more
       than the fraction `fall` and is above rounding of the first loss, and the weights along a
       random direction have a period of at least 2 (`find_period` with `tol` and `max_period`)
       whose amplitude neither grows (the first three conditions above) nor decays: steps in the
       last quarter are at least half as long as in the first, and the motion does not shrink as
       steadily as it grows under 1.
    4. The loss rises in at most the fraction `rises` of the window's steps, or is at rest (in the
       last quarter its standard deviation is below `rest` times its mean): **edge of stability** if
       the sharpness is at least `edge` times the stability threshold (2/lr for plain gradient
       descent), **convergent** otherwise.
    5. The loss rises in more steps but falls overall: **edge of stability** if the sharpness is at
       least `edge` times the threshold (or unknown); **convergent** if it is smaller
       and the oscillation (due to momentum, for example) decays: its standard deviation halves, and
       no cycle remains in the last quarter.
    6. **undecided**: neither at rest nor periodic nor significantly chaotic; a run that changes its
       behaviour within the window, for example.

    The thresholds are conventions: sharp values for what changes gradually. A window of some tens
    of steps may lie within a burst at the edge of stability, which grows exponentially before it
    saturates; windows of hundreds of steps distinguish the two.

    Parameters
    ----------
    escape : float, default 1e9
        Ratio of the loss to the first loss above which a run is divergent.
    exponent : float, default 0.01
        Leading exponent above which a run may be chaotic, nats per step.
    errors : float, default 2.0
        Number of standard errors of the exponent that count as significant.
    rises : float, default 0.01
        Fraction of steps in which the loss of a monotone run may rise.
    rest : float, default 1e-5
        Relative standard deviation of the loss below which it is at rest.
    edge : float, default 0.95
        Ratio of the sharpness to the stability threshold from which on a run is at the edge.
    fall : float, default 1e-3
        Relative decrease of the loss over the window above which it falls.
    tol : float, default 0.05
        Tolerance of the period, as in `find_period`.
    max_period : int, default 64
        Longest period, in steps.

    Raises
    ------
    ArgumentError
        If a threshold is negative or not finite.

    Examples
    --------
    >>> rule = pl.RegimeRule(max_period=8)
    >>> int(rule.periods(np.tile([0.0, 1.0, 3.0], 20)))
    3
    """

    escape: float = 1e9
    exponent: float = 0.01
    errors: float = 2.0
    rises: float = 0.01
    rest: float = 1e-5
    edge: float = 0.95
    fall: float = 1e-3
    tol: float = 0.05
    max_period: int = 64

    def __post_init__(self) -> None:
        for name in ("escape", "exponent", "errors", "rises", "rest", "edge", "fall"):
            _checks.real(name, getattr(self, name), least=0.0)
        _checks.real("tol", self.tol, above=0.0, below=1.0)
        _checks.integer("max_period", self.max_period, least=2)

    def periods(self, late: ArrayLike) -> Integers:
        """Periods of weights along a direction in the late window.

        Parameters
        ----------
        late : array_like, shape (..., n_late + 1)
            Scalar series, time last.

        Returns
        -------
        ndarray of int, shape (...)
            Periods in steps; 0 for none, or for an oscillation that decays.
        """
        late = _checks.floats("late", late, finite=False)
        try:
            period = find_period(late, self.max_period, self.tol)
        except ValueError as error:
            raise ArgumentError("late", f"must be a series: {error}") from None
        with np.errstate(invalid="ignore", divide="ignore"):
            scale = 2.0 * np.abs(late).max(axis=-1, keepdims=True)  # differences do not overflow
            pace = np.diff(late / scale, axis=-1) ** 2
            quarter = pace.shape[-1] // 4
            decays = 4.0 * pace[..., -quarter:].mean(axis=-1) < pace[..., :quarter].mean(axis=-1)
        return np.where((period > 1) & decays, 0, period)

    def labels(
        self,
        first_loss: Floats,
        loss: Floats,
        weights: Floats,
        exponent: Floats,
        stderr: Floats,
        ratio: Floats,
    ) -> NDArray[np.str_]:
        """Label runs from measurements of their late windows.

        Parameters
        ----------
        first_loss : ndarray, shape (...)
            Loss at the start of the run, which sets the scale of rounding.
        loss : ndarray, shape (..., n_late + 1)
            Loss in the late window.
        weights : ndarray, shape (..., n_late + 1)
            Weights along a random direction in the late window.
        exponent, stderr : ndarray, shape (...)
            Leading exponent of the late window and its standard error, nats per step.
        ratio : ndarray, shape (...)
            Sharpness relative to the stability threshold; nan if unknown.

        Returns
        -------
        ndarray of str, shape (...)
            Elements of `REGIMES`.
        """
        quarter = (loss.shape[-1] - 1) // 4
        period = self.periods(weights)
        cycles = self.periods(weights[..., -max(quarter, 8) :]) >= 2
        size = quarter - quarter % np.maximum(period, 1)  # whole periods: means over parts differ
        index = np.arange(loss.shape[-1])
        first = _moments(loss, index < size[..., np.newaxis])
        last = _moments(loss, index >= loss.shape[-1] - size[..., np.newaxis])
        zero = _ZERO * np.abs(first_loss)
        motion = _growth_of_motion(weights)
        fraction = rising_fraction(loss, first_loss)
        with np.errstate(invalid="ignore"):
            rests = last[1] < self.rest * np.abs(last[0]) + zero
            smooth, vanishing = (fraction <= self.rises) | rests, np.abs(last[0]) <= zero
            edge, falls = ratio >= self.edge, first[0] - last[0] > self.fall * np.abs(first[0])
            rises = last[0] - first[0] > _ROUNDING * np.abs(first[0]) + zero
            grows = motion.sustained & rises
            error = self.errors * np.where(stderr > 0, stderr, 0.0)
            alike = exponent <= 2.0 * motion.rate + error
            steps = loss.shape[-1] - 1
            alike &= motion.total <= np.fmax(2.0 * steps * (exponent + error), 0.0) + _ALIGNED
            far = ~(np.abs(loss[..., -1]) <= self.escape * np.abs(first_loss))
            unstable = (exponent > self.exponent) & (exponent > self.errors * stderr)
            slower = ~(2.0 * motion.rate >= exponent)  # also where the rate is nan: at rest
            rules = {
                "divergent": far | (grows & alike),
                "chaotic": unstable & slower & ~grows & ~rests & (fraction > 0.0),
                "periodic": (period >= 2) & ~falls & ~(grows | motion.decaying | vanishing),
                "edge of stability": (smooth & edge) | (~smooth & falls & (edge | np.isnan(ratio))),
                "convergent": smooth | (falls & (2.0 * last[1] < first[1]) & ~cycles),
            }
        labels: NDArray[np.str_] = np.select(list(rules.values()), list(rules), "undecided")
        return labels


def _moments(values: Floats, chosen: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Mean and standard deviation over the chosen entries of values (..., T)."""
    count = chosen.sum(axis=-1)
    with np.errstate(invalid="ignore", over="ignore"):
        mean = np.where(chosen, values, 0.0).sum(axis=-1) / count
        apart = np.where(chosen, values - mean[..., np.newaxis], 0.0)
        return mean, np.sqrt((apart**2).sum(axis=-1) / count)


@dataclass(frozen=True)
class _Growth:
    """Change of the amplitude of the motion across the late window."""

    rate: Floats  # (...) slope of the line through its logarithms, nats per step
    total: Floats  # (...) over the window, nats
    sustained: NDArray[np.bool_]  # (...) whether it grows exponentially until the end
    decaying: NDArray[np.bool_]  # (...) whether it shrinks exponentially until the end


def _growth_of_motion(along: Floats) -> _Growth:
    """Growth of weights along a direction (..., T + 1).

    From second differences, which are small for a slow drift and large for an unstable oscillation.
    """
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        scale = 4.0 * np.abs(along).max(axis=-1, keepdims=True)
        turns = np.diff(along / np.where(scale > 0, scale, 1.0), 2, axis=-1) ** 2  # no overflow
        count = min(_BLOCKS, max(turns.shape[-1] // 4, 4))
        length = turns.shape[-1] // count
        blocks = turns[..., turns.shape[-1] - count * length :].reshape(
            (*turns.shape[:-1], count, length)
        )
        size = 0.5 * np.log(blocks.mean(axis=-1))
        tail = max(3, count // 4)
        whole, end = fit_lines(size), fit_lines(size[..., -tail:])
        # White scatter of the blocks, from second differences: a smooth curve has small ones.
        scatter = np.sqrt((np.diff(size, 2, axis=-1) ** 2).mean(axis=-1) / 6.0)
        error = scatter / np.sqrt(((np.arange(tail) - (tail - 1) / 2.0) ** 2).sum())
        total = whole.slope * count
        straight, slack = whole.r2 >= _STRAIGHT, _SCATTER * error
        sustained = straight & (total >= _GROWS) & (end.slope >= _KEPT * whole.slope - slack)
        decaying = straight & (total <= -_GROWS) & (end.slope <= _KEPT * whole.slope + slack)
    return _Growth(whole.slope / length, total, sustained, decaying)


def rising_fraction(loss: Floats, first: Floats) -> Floats:
    """Fraction of the steps in which losses (..., T + 1) rise; nan where a loss is.

    `first` (...) is the loss at the start of the run, which sets the scale of rounding.
    """
    with np.errstate(invalid="ignore"):
        floor = _ZERO * np.abs(first[..., np.newaxis])
        up = np.diff(loss, axis=-1) > _ROUNDING * np.abs(loss[..., :-1]) + floor
    result: Floats = np.where(np.isnan(loss).any(axis=-1), np.nan, up.mean(axis=-1))
    return result
