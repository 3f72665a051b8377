"""Stopping unpromising runs early and starting others."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._checks import Floats, Seed
from pylyap._errors import ArgumentError
from pylyap._prediction.outcomes import loss_threshold, require_both
from pylyap._results import Result

Booleans = NDArray[np.bool_]
Integers = NDArray[np.int64]


@dataclass(frozen=True, repr=False)
class RestartPolicy(Result):
    """Expected savings of stopping unpromising runs early, cross-validated.

    Attributes
    ----------
    candidate : int
        Index of the indicator that most folds chose; 0 if there is one.
    at : int
        Step at which that indicator is known.
    cut : float
        Threshold of the indicator, the median over those folds.
    sign : int
        A run continues if its indicator is finite and sign × indicator is at most sign × cut.
    stopped : float
        Fraction of the runs that are stopped.
    good : float
        Fraction of all runs that end low.
    good_kept : float
        Fraction of the continued runs that end low.
    steps_per_good : float
        Expected steps until a run ends low, with the policy.
    steps_without : float
        Expected steps until a run ends low, without it.
    saved : float
        1 − steps_per_good / steps_without; negative if the policy costs more than it saves.

    Examples
    --------
    >>> loss = np.array([0.1, 0.1, 0.1, 2.0, 2.0, 2.0])
    >>> policy = pl.restart_policy(loss, loss, at=10, n_steps=100, folds=3)
    >>> policy.stopped, policy.good_kept
    (0.5, 1.0)
    """

    candidate: int
    at: int
    cut: float
    sign: int
    stopped: float
    good: float
    good_kept: float
    steps_per_good: float
    steps_without: float
    saved: float


def restart_policy(
    indicator: ArrayLike,
    final_loss: ArrayLike,
    at: ArrayLike,
    n_steps: int,
    threshold: float | None = None,
    folds: int = 5,
    seed: Seed = 0,
) -> RestartPolicy:
    """Stop runs at step `at` by a threshold on an indicator, and start others instead.

    The indicator, threshold and side that need the fewest steps per low end are fitted on all folds
    but one and evaluated on that one, in turn.

    Parameters
    ----------
    indicator : array_like, shape (runs,) or (m, runs)
        One indicator, or m to choose from, such as the same one at several steps. A run with a
        non-finite indicator is stopped.
    final_loss : array_like, shape (runs,)
        Loss at the end; a run that diverged (nan or inf) ends high.
    at : int or array_like of int, shape (m,)
        Step at which each indicator is known, its delay included.
    n_steps : int
        Steps of a complete run.
    threshold : float, optional
        Final loss above which a run ends high; by default from two clusters of the log losses, as
        in `prediction_skill`.
    folds : int, default 5
        Number of folds of the cross-validation.
    seed : int, SeedSequence or Generator, default 0
        Seed of the assignment of runs to folds.

    Returns
    -------
    RestartPolicy
        The policy and its expected cost.

    Raises
    ------
    ArgumentError
        If all runs end on one side, there are fewer runs on a side than folds, or no indicator is
        finite in any run. One of several that is finite nowhere is never chosen.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> loss = np.exp(rng.normal(size=200))
    >>> early = np.log(loss) + 0.5 * rng.normal(size=200)
    >>> policy = pl.restart_policy(early, loss, at=100, n_steps=1000, threshold=0.5)
    >>> policy.sign, policy.saved > 0.3
    (1, True)
    """
    values, losses = _indicators(indicator, final_loss)
    n_steps = _checks.integer("n_steps", n_steps, least=1)
    steps = _known(at, len(values), n_steps)
    cut, how = loss_threshold(losses, threshold)
    good = losses <= cut
    require_both(~good, cut, how)
    few = int(min(good.sum(), (~good).sum()))
    folds = _checks.integer("folds", folds, least=2, most=few)
    fold = _folds(good, folds, np.random.default_rng(_checks.seed_sequence(seed)))
    kept, spent = np.zeros(len(losses), bool), np.zeros(len(losses))
    chosen = []
    for f in range(folds):
        here, others = fold == f, fold != f
        found = [
            (*_best_cut(x[others], good[others], int(t), n_steps), m)
            for m, (x, t) in enumerate(zip(values, steps, strict=True))
        ]
        _, cut_f, sign, m = min(found, key=lambda candidate: candidate[0])
        chosen.append((m, sign, cut_f))
        kept[here] = np.isfinite(values[m, here]) & (sign * values[m, here] <= sign * cut_f)
        spent[here] = steps[m] + kept[here] * (n_steps - steps[m])
    both = float((kept & good).mean())
    without = n_steps / float(good.mean())
    per_good = float(spent.mean()) / both if both > 0 else math.inf
    ways = [(m, sign) for m, sign, _ in chosen]
    candidate, sign = max(ways, key=ways.count)
    return RestartPolicy(
        candidate=candidate,
        at=int(steps[candidate]),
        cut=float(np.median([c for m, s, c in chosen if (m, s) == (candidate, sign)])),
        sign=sign,
        stopped=1.0 - float(kept.mean()),
        good=float(good.mean()),
        good_kept=both / float(kept.mean()) if kept.any() else math.nan,
        steps_per_good=per_good,
        steps_without=without,
        saved=1.0 - per_good / without,
    )


def _indicators(indicator: ArrayLike, final_loss: ArrayLike) -> tuple[Floats, Floats]:
    """Indicators (m, runs) and losses (runs,)."""
    values = np.atleast_2d(_checks.floats("indicator", indicator, finite=False))
    losses = _checks.floats("final_loss", final_loss, finite=False)
    if values.ndim != 2 or losses.shape != values.shape[1:] or len(values) == 0:
        raise ArgumentError(
            "indicator",
            f"must have shape (runs,) or (m, runs) and final_loss (runs,), "
            f"got {np.shape(indicator)} and {losses.shape}",
        )
    if not np.isfinite(values).any():
        raise ArgumentError("indicator", f"must have finite values, got none in {len(losses)} runs")
    return values, losses


def _known(at: ArrayLike, m: int, n_steps: int) -> Integers:
    """The step (m,) at which each indicator is known."""
    steps = np.atleast_1d(_checks.array("at", at))
    if steps.dtype.kind not in "iu" or steps.shape != (m,):
        raise ArgumentError(
            "at",
            f"must be a whole number for each of {m} indicators, got {_checks.describe(at)}",
        )
    if steps.min() < 0 or steps.max() > n_steps:
        raise ArgumentError(
            "at", f"must be between 0 and n_steps={n_steps}, got {_checks.describe(at)}"
        )
    return steps


def _folds(good: Booleans, folds: int, rng: np.random.Generator) -> Integers:
    """Fold (runs,) of each run, with equal numbers of low ends per fold."""
    fold = np.empty(len(good), int)
    for side in (good, ~good):
        order = rng.permutation(np.flatnonzero(side))
        fold[order] = np.arange(len(order)) % folds
    return fold


def _best_cut(values: Floats, good: Booleans, at: int, n_steps: int) -> tuple[float, float, int]:
    """The fewest steps per low end, with their cut and sign (continue if sign x <= sign cut)."""
    best = (math.inf, math.inf, 1)
    finite = np.isfinite(values)
    for sign in (1, -1):
        order = np.argsort(sign * values[finite], kind="stable")
        x, ends_low = values[finite][order], good[finite][order]
        kept = np.arange(1, len(x) + 1) / len(values)
        both = np.cumsum(ends_low) / len(values)
        with np.errstate(divide="ignore"):
            steps = (at + kept * (n_steps - at)) / both
        last = np.append(x[1:] != x[:-1], x.size > 0)[: x.size]  # equal values are not separated
        steps[~last] = math.inf
        if x.size == 0:
            continue
        i = int(np.argmin(steps))
        cut = 0.5 * (x[i] + x[min(i + 1, len(x) - 1)])
        best = min(best, (float(steps[i]), float(cut), sign), key=lambda found: found[0])
    return best
