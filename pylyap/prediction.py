"""Does an early indicator foretell how training ends?"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._errors import ArgumentError
from pylyap._status import Status
from pylyap._tangent.covariant import CovariantVectors
from pylyap._tangent.exponents import Spectrum

Booleans = NDArray[np.bool_]
Integers = NDArray[np.int64]

# Numbers that a bootstrap draws at once.
_AT_ONCE = 2**21


@dataclass(frozen=True, eq=False)
class PredictionSkill:
    """How well an indicator tells runs that end high from runs that end low.

    Attributes
    ----------
    auc
        Probability that a run that ends high has the larger indicator, ties counting half: 1/2 is
        chance, 0 is as good as 1.
    low, high
        Its confidence interval.
    spearman, pvalue
        Rank correlation of indicator and final loss, and its two-sided p-value.
    false_positive, true_positive, cuts : (m,)
        ROC: shares of low and of high runs whose indicator is at least each cut.
    threshold
        Final loss above which a run ends high.
    threshold_from
        How the threshold came about.
    n_low, n_high, n_left_out
        Runs of each kind, and runs without a finite indicator, which are left out.
    """

    auc: float
    low: float
    high: float
    spearman: float
    pvalue: float
    false_positive: Floats = field(repr=False)
    true_positive: Floats = field(repr=False)
    cuts: Floats = field(repr=False)
    threshold: float
    threshold_from: str
    n_low: int
    n_high: int
    n_left_out: int


@dataclass(frozen=True, eq=False)
class PredictionCurve:
    """Skill of several indicators as a function of when they are known.

    Attributes
    ----------
    names : (m,)
        The indicators.
    n_exponents
        Number of finite-time exponents, the leading one first; they are the first of `names`.
    known : (m, T)
        Step at which each value is known, the delay of covariant vectors included.
    auc, low, high : (m, T)
        Area under the ROC and its 95 % interval; nan where too few runs have a value.
    adjusted : (m, T)
        p-values of AUC = 1/2, adjusted by Holm for all m T comparisons of this curve.
    against_loss : (m, T)
        Two-sided p-values (DeLong, same runs, not adjusted) of the skill |AUC − 1/2| being that of
        the loss known no later; nan for the loss itself.
    values : (m, T, runs)
        The indicators themselves.
    threshold, threshold_from, n_low, n_high
        As in `PredictionSkill`.
    """

    names: tuple[str, ...]
    known: Floats
    auc: Floats
    low: Floats
    high: Floats
    adjusted: Floats
    against_loss: Floats
    values: Floats = field(repr=False)
    threshold: float
    threshold_from: str
    n_low: int
    n_high: int
    n_exponents: int

    @property
    def note(self) -> str:
        """What the number of comparisons means for the best of them."""
        return (
            f"{np.isfinite(self.auc).sum()} comparisons: the best of them looks better than it is; "
            "`adjusted` holds p-values corrected by Holm"
        )


@dataclass(frozen=True)
class RestartPolicy:
    """What stopping unpromising runs early would have saved, on runs it was not fitted to.

    Attributes
    ----------
    candidate, at
        The indicator (0 if there is one) that most folds chose, and the step at which it is known.
    cut, sign
        A run goes on if its indicator is finite and sign × indicator is at most sign × cut: the
        median over those folds.
    stopped
        Share of the runs that are stopped.
    good
        Share of good ends among all runs, and
    good_kept
        among those that go on.
    steps_per_good, steps_without
        Expected steps until a good end, with the policy and without.
    saved
        1 − steps_per_good / steps_without; negative if the policy costs more than it saves.
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


def prediction_skill(
    indicator: ArrayLike,
    final_loss: ArrayLike,
    threshold: float | None = None,
    level: float = 0.95,
    interval: Literal["delong", "bootstrap"] = "delong",
    seed: Any = 0,
) -> PredictionSkill:
    """How well an indicator separates runs with a high final loss from runs with a low one.

    The cost is that of sorting the runs, O(N log N) in time and O(N) in memory (the bootstrap: 2000
    times O(N) in time).

    Parameters
    ----------
    indicator : (runs,) array
        Any early number per run. Runs where it is nan or infinite are left out and counted.
    final_loss : (runs,) array
        Loss at the end; a run that diverged (nan or inf) ends high.
    threshold
        Final loss above which a run ends high. By default the logarithms of the losses are split
        into two clusters of least squared distance (k-means in one dimension, exactly), and the
        threshold is half-way between the two in the logarithm.
    level
        Of the confidence interval.
    interval
        ``"delong"``, on the scale of the logit, or ``"bootstrap"``: percentiles of 2000 samples
        drawn with replacement from the runs of each kind. Where the two kinds are perfectly
        separated neither sees any scatter; the interval is then that of a binomial share without a
        failure.
    seed
        Of the bootstrap.

    Returns
    -------
    PredictionSkill

    Raises
    ------
    ValueError
        If shapes differ, if all runs end on one side of the threshold or if the indicator is finite
        in none of a kind: skill is then undefined.

    References
    ----------
    DeLong, DeLong, Clarke-Pearson, Biometrics 44, 837 (1988). Sun, Xu, IEEE Signal Process. Lett.
    21, 1389 (2014), for the variance from ranks.
    """
    from scipy.stats import spearmanr

    level = _checks.real("level", level, above=0.0, below=1.0)
    _checks.choice("interval", interval, ("delong", "bootstrap"))
    values, losses = _pair(indicator, final_loss)
    cut, how = _threshold(losses, threshold)
    known = np.isfinite(values)
    ends_high = ~(losses <= cut)
    _two_kinds(ends_high, cut, how)
    _finite_in_both(known, ends_high)
    low, high = values[known & ~ends_high], values[known & ends_high]
    auc, variance = _delong(low, high)
    if interval == "bootstrap" and 0.0 < auc < 1.0:
        left, right = _bootstrap(low, high, level, seed)
    else:
        left, right = _interval(auc, variance, min(len(low), len(high)), level)
    ranks = (math.nan, math.nan)  # a constant has none
    if np.ptp(values[known]) > 0 and len(np.unique(losses[known])) > 1:
        ranks = spearmanr(values[known], np.where(np.isfinite(losses), losses, np.inf)[known])
    false_positive, true_positive, cuts = _roc(low, high)
    return PredictionSkill(
        auc=auc,
        low=left,
        high=right,
        spearman=float(ranks[0]),
        pvalue=float(ranks[1]),
        false_positive=false_positive,
        true_positive=true_positive,
        cuts=cuts,
        threshold=cut,
        threshold_from=how,
        n_low=len(low),
        n_high=len(high),
        n_left_out=int((~known).sum()),
    )


def prediction_curve(
    spectrum: Spectrum,
    final_loss: ArrayLike | None = None,
    covariant: CovariantVectors | None = None,
    threshold: float | None = None,
) -> PredictionCurve:
    """Skill of what a spectrum records, as a function of training time.

    Indicators at the end of each record: every finite-time exponent of the record, their sum, and
    the loss, which is the one to beat. With `covariant` also the smallest angle between covariant
    vectors at each record: between early vectors if it has them, known `delay` steps later, else
    between vectors that draw on all of its steps, and known only after those.

    Parameters
    ----------
    spectrum
        Of a batch of runs along training.
    final_loss : (...) array
        The last loss of `spectrum` by default; then the last records know part of the answer.
    covariant
        Covariant vectors of the same runs, at the same records.
    threshold
        As in `prediction_skill`.

    Raises
    ------
    ValueError
        If all runs end on one side of the threshold or batches differ.
    """
    _checks.instance("spectrum", spectrum, Spectrum)
    if covariant is not None:
        _checks.instance("covariant", covariant, CovariantVectors)
    if final_loss is None and (spectrum.status == Status.STOPPED).any():
        raise ArgumentError("final_loss", "must be given where runs of spectrum stopped early")
    given = spectrum.loss[..., -1] if final_loss is None else final_loss
    losses = _checks.floats("final_loss", given, finite=False)
    runs = spectrum.status.size
    if losses.size != runs:
        raise ArgumentError(
            "final_loss", f"must have one number per run ({runs}), got {losses.size}"
        )
    losses = losses.reshape(runs)
    cut, how = _threshold(losses, threshold)
    ends_high = ~(losses <= cut)
    _two_kinds(ends_high, cut, how)
    records, k = spectrum.growth.shape[-2:]
    length = int(spectrum.settings["n_steps"]) // records
    growth = spectrum.growth.reshape(runs, records, k) / length
    ends = (spectrum.steps + length).astype(float)
    indicators = {f"FTLE {i + 1}": growth[..., i] for i in range(k)}
    indicators["sum of FTLEs"] = growth.sum(axis=-1)
    known = dict.fromkeys(indicators, ends)
    if covariant is not None:
        if covariant.status.size != runs or not np.isin(covariant.steps[1:], ends).all():
            raise ArgumentError("covariant", "must have the runs and the records of spectrum")
        if covariant.k < 2:
            raise ArgumentError("covariant", "must have two vectors for an angle, got 1")
        early = covariant.early_coefficients is not None
        angle = covariant.angles(early=early).min(axis=-1).reshape(runs, -1)[:, 1:]
        there = np.isin(ends, covariant.steps[1:])
        indicators["smallest angle"] = np.full((runs, records), np.nan)
        indicators["smallest angle"][:, there] = angle
        known["smallest angle"] = np.full(records, np.nan)
        known["smallest angle"][there] = covariant.known(early)[1:]
    indicators["loss"] = spectrum.loss.reshape(runs, records + 1)[:, 1:]
    known["loss"] = ends
    names = tuple(indicators)
    shape = (len(names), records)
    auc, low, high, p, against = (np.full(shape, np.nan) for _ in range(5))
    for m, name in enumerate(names):
        for r in range(records):
            values = indicators[name][:, r]
            fine = np.isfinite(values)
            kinds = ends_high[fine]
            if kinds.sum() < 2 or (~kinds).sum() < 2:
                continue
            a, variance = _delong(values[fine & ~ends_high], values[fine & ends_high])
            few = int(min(kinds.sum(), (~kinds).sum()))
            auc[m, r], (low[m, r], high[m, r]) = a, _interval(a, variance, few, 0.95)
            p[m, r] = _two_sided(a - 0.5, _null_variance(kinds))
            if name == "loss":
                continue
            earlier = np.flatnonzero(ends <= known[name][r])[-1]
            against[m, r] = _paired(values, indicators["loss"][:, earlier], ends_high)
    return PredictionCurve(
        names=names,
        known=np.array([known[name] for name in names]),
        auc=auc,
        low=low,
        high=high,
        adjusted=_holm(p),
        against_loss=against,
        values=np.array([indicators[name].T for name in names]),
        threshold=cut,
        threshold_from=how,
        n_low=int((~ends_high).sum()),
        n_high=int(ends_high.sum()),
        n_exponents=k,
    )


def restart_policy(
    indicator: ArrayLike,
    final_loss: ArrayLike,
    at: ArrayLike,
    n_steps: int,
    threshold: float | None = None,
    folds: int = 5,
    seed: Any = 0,
) -> RestartPolicy:
    """Stop runs whose indicator is on the wrong side of a cut at step `at`, and start others.

    The indicator, side and cut that need the fewest steps per good end are found on all folds but
    one and judged on that one, in turn, so that no run judges a policy that has seen it.

    Parameters
    ----------
    indicator : (runs,) or (m, runs) array
        One indicator, or m to choose from, such as the same one at several steps.
    final_loss, threshold
        As in `prediction_skill`; a good end is a low one. A run whose indicator is nan or infinite
        is stopped.
    at : int or (m,) array
        Step at which the indicator is known, its delay included.
    n_steps
        Steps of a whole run.
    folds, seed
        Of the cross-validation.

    Raises
    ------
    ValueError
        If all runs end on one side, there are fewer runs of a kind than folds, or no indicator is
        finite in any run. One of several that is finite nowhere is never chosen.
    """
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
    n_steps = _checks.integer("n_steps", n_steps, least=1)
    steps = np.atleast_1d(_checks.array("at", at))
    if steps.dtype.kind not in "iu" or steps.shape != values.shape[:1]:
        raise ArgumentError(
            "at",
            f"must be a whole number for each of {len(values)} indicators, "
            f"got {_checks.describe(at)}",
        )
    if steps.min() < 0 or steps.max() > n_steps:
        raise ArgumentError(
            "at", f"must be between 0 and n_steps={n_steps}, got {_checks.describe(at)}"
        )
    cut, how = _threshold(losses, threshold)
    good = losses <= cut
    _two_kinds(~good, cut, how)
    few = int(min(good.sum(), (~good).sum()))
    folds = _checks.integer("folds", folds, least=2, most=few)
    rng = np.random.default_rng(_checks.seed_sequence(seed))
    fold = np.empty(len(losses), int)
    for kind in (good, ~good):  # as many good ends in every fold
        order = rng.permutation(np.flatnonzero(kind))
        fold[order] = np.arange(len(order)) % folds
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


def _pair(indicator: ArrayLike, final_loss: ArrayLike) -> tuple[Floats, Floats]:
    values = _checks.floats("indicator", indicator, finite=False)
    losses = _checks.floats("final_loss", final_loss, finite=False)
    if values.ndim != 1 or values.shape != losses.shape:
        raise ArgumentError(
            "indicator",
            f"and final_loss must have the same shape (runs,), "
            f"got {values.shape} and {losses.shape}",
        )
    return values, losses


def _threshold(losses: Floats, threshold: float | None) -> tuple[float, str]:
    if threshold is not None:
        return _checks.real("threshold", threshold), "given"
    finite = np.sort(losses[np.isfinite(losses)])
    if finite.size and finite[0] < 0:
        raise ArgumentError("threshold", f"must be given for negative losses, got {finite[0]:.3g}")
    if finite.size < 2 or finite[0] == finite[-1]:
        raise ArgumentError(
            "final_loss",
            f"must have two different finite values to be split, got {finite.size} runs "
            f"with {'one value' if finite.size else 'none'}: give threshold=",
        )
    positive = finite[finite > 0]
    logs = np.log(np.maximum(finite, positive[0] * 1e-3))  # an exact zero is low, not infinitely
    # The split of least squared distance, from running sums.
    count = np.arange(1, len(logs))
    sums, total = np.cumsum(logs)[:-1], logs.sum()
    between = (sums - count * total / len(logs)) ** 2 / (count * (len(logs) - count))
    between[logs[1:] == logs[:-1]] = -1.0  # equal losses stay together
    i = int(np.argmax(between))
    explained = between[i] * len(logs) / max(((logs - logs.mean()) ** 2).sum(), 1e-300)
    return float(np.exp(0.5 * (logs[i] + logs[i + 1]))), (
        f"two clusters of log loss, which explain {100 * explained:.0f} % of its variance"
    )


def _two_kinds(ends_high: Booleans, cut: float, how: str) -> None:
    for kind, count in (("high", int(ends_high.sum())), ("low", int((~ends_high).sum()))):
        if count == 0:
            raise ArgumentError(
                "final_loss",
                f"must have runs on both sides of the threshold {cut:.3g} ({how}), "
                f"got none that ends {kind}: skill is undefined",
            )


def _finite_in_both(known: Booleans, ends_high: Booleans) -> None:
    """Refuse an indicator that is finite in no run, or in no run of a kind."""
    if not known.any():
        raise ArgumentError("indicator", f"must have finite values, got none in {known.size} runs")
    for kind, chosen in (("high", ends_high), ("low", ~ends_high)):
        if not (known & chosen).any():
            raise ArgumentError(
                "indicator",
                f"must be finite in runs of both kinds, got {int(known.sum())} finite "
                f"values and none in a run that ends {kind}: skill is undefined",
            )


def _roc(low: Floats, high: Floats) -> tuple[Floats, Floats, Floats]:
    """Shares of low and of high values that are at least each cut, and the cuts, descending."""
    values = np.sort(np.concatenate([low, high]))
    cuts = values[np.append(True, values[1:] != values[:-1])]
    low_share, high_share = (
        (len(x) - np.searchsorted(np.sort(x), cuts[::-1], side="left")) / len(x)
        for x in (low, high)
    )
    return low_share, high_share, np.ascontiguousarray(cuts[::-1])


def share_below(x: Floats, others: Floats) -> Floats:
    """Share of the others that each x exceeds, ties half; its mean is the AUC of x over others."""
    ordered = np.sort(others)
    left = np.searchsorted(ordered, x, side="left")
    right = np.searchsorted(ordered, x, side="right")
    result: Floats = 0.5 * (left + right) / len(others)
    return result


def _placements(low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Share of high runs above each low one, and of low runs below each high one; ties half."""
    return 1.0 - share_below(low, high), share_below(high, low)


def _delong(low: Floats, high: Floats) -> tuple[float, float]:
    """AUC and its variance."""
    of_low, of_high = _placements(low, high)
    variance = 0.0
    for part in (of_low, of_high):
        if len(part) > 1:
            variance += float(part.var(ddof=1)) / len(part)
    return float(of_high.mean()), variance


def _interval(auc: float, variance: float, few: int, level: float) -> tuple[float, float]:
    from scipy.special import expit, logit, ndtri

    if variance <= 0.0 or auc in (0.0, 1.0):
        reach = 1.0 - (0.5 * (1.0 - level)) ** (1.0 / few)
        return max(auc - reach, 0.0), min(auc + reach, 1.0)
    z = float(ndtri(0.5 + 0.5 * level))
    reach = z * math.sqrt(variance) / (auc * (1.0 - auc))
    return float(expit(logit(auc) - reach)), float(expit(logit(auc) + reach))


def _null_variance(ends_high: Booleans) -> float:
    """Variance of the AUC of an indicator that knows nothing (Mann, Whitney)."""
    m, n = int(ends_high.sum()), int((~ends_high).sum())
    return (m + n + 1) / (12.0 * m * n)


def _two_sided(difference: float, variance: float) -> float:
    from scipy.special import ndtr

    if variance <= 0.0:
        return 1.0 if difference == 0.0 else 0.0
    return 2.0 * float(ndtr(-abs(difference) / math.sqrt(variance)))


def _paired(values: Floats, losses: Floats, ends_high: Booleans) -> float:
    """p-value of two indicators of the same runs having the same skill |AUC − 1/2|."""
    both = np.isfinite(values) & np.isfinite(losses)
    kinds = ends_high[both]
    if kinds.sum() < 2 or (~kinds).sum() < 2:
        return math.nan
    parts, skills = [], []
    for x in (values[both], losses[both]):
        of_low, of_high = _placements(x[~kinds], x[kinds])
        sign = 1.0 if of_high.mean() >= 0.5 else -1.0
        skills.append(sign * (float(of_high.mean()) - 0.5))
        parts.append((sign * of_low, sign * of_high))
    variance = 0.0
    for i in (0, 1):
        difference = parts[0][i] - parts[1][i]
        variance += float(difference.var(ddof=1)) / len(difference)
    return _two_sided(skills[0] - skills[1], variance)


def _bootstrap(low: Floats, high: Floats, level: float, seed: Any) -> tuple[float, float]:
    """Percentiles of the AUC over samples with replacement of each kind."""
    from scipy.stats import bootstrap

    values, place = np.unique(np.concatenate([low, high]), return_inverse=True)

    def area(x: Integers, y: Integers) -> float:
        # A sample is counts of the distinct values, so that it is never sorted.
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


def _holm(p: Floats) -> Floats:
    """Holm's step-down adjustment over all finite entries."""
    adjusted = np.full(p.shape, np.nan)
    where = np.flatnonzero(np.isfinite(p))
    order = where[np.argsort(p.flat[where], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted.flat[order] = np.minimum(np.maximum.accumulate(factors * p.flat[order]), 1.0)
    return adjusted


def _best_cut(values: Floats, good: Booleans, at: int, n_steps: int) -> tuple[float, float, int]:
    """The fewest steps per good end, and their cut and side (go on if sign x <= sign cut)."""
    best = (math.inf, math.inf, 1)
    finite = np.isfinite(values)
    for sign in (1, -1):
        order = np.argsort(sign * values[finite], kind="stable")
        x, kinds = values[finite][order], good[finite][order]
        kept = np.arange(1, len(x) + 1) / len(values)
        both = np.cumsum(kinds) / len(values)
        with np.errstate(divide="ignore"):
            steps = (at + kept * (n_steps - at)) / both
        last = np.append(x[1:] != x[:-1], x.size > 0)[: x.size]  # equal values go on together
        steps[~last] = math.inf
        if x.size == 0:
            continue
        i = int(np.argmin(steps))
        cut = 0.5 * (x[i] + x[min(i + 1, len(x) - 1)])
        best = min(best, (float(steps[i]), float(cut), sign), key=lambda found: found[0])
    return best
