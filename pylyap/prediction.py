"""Prediction of the final loss of a run from an early indicator."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks, _roc
from pylyap._checks import Floats, Seed
from pylyap._errors import ArgumentError
from pylyap._parallel import progress_bar
from pylyap._prediction.outcomes import loss_threshold, require_both, require_finite_in_both
from pylyap._prediction.restarts import RestartPolicy, restart_policy
from pylyap._results import Result
from pylyap._status import Status
from pylyap._tangent.covariant import CovariantVectors
from pylyap._tangent.exponents import Spectrum

__all__ = [
    "PredictionCurve",
    "PredictionSkill",
    "RestartPolicy",
    "prediction_curve",
    "prediction_skill",
    "restart_policy",
]

Booleans = NDArray[np.bool_]


@dataclass(frozen=True, eq=False, repr=False)
class PredictionSkill(Result):
    """How well an indicator separates runs that end high from runs that end low.

    Attributes
    ----------
    auc : float
        Probability that a run that ends high has the larger indicator, ties counting half: 1/2 is
        chance, 0 is as good as 1.
    low, high : float
        Confidence interval of `auc`.
    spearman : float
        Rank correlation of indicator and final loss.
    pvalue : float
        Two-sided p-value of that correlation.
    false_positive, true_positive : ndarray, shape (m,)
        ROC curve: fractions of the low and of the high runs whose indicator is at least each cut.
    cuts : ndarray, shape (m,)
        Values of the indicator, descending.
    threshold : float
        Final loss above which a run ends high.
    threshold_from : str
        How the threshold was found.
    n_low, n_high : int
        Number of runs that end low and high.
    n_left_out : int
        Number of runs with a non-finite indicator, which are excluded.

    Examples
    --------
    >>> skill = pl.prediction_skill([1, 2, 3, 4], [0.1, 0.2, 5.0, 6.0])
    >>> skill.auc, skill.n_low, skill.n_high
    (1.0, 2, 2)
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


@dataclass(frozen=True, eq=False, repr=False)
class PredictionCurve(Result):
    """Skill of several indicators as a function of the step at which they are known.

    Attributes
    ----------
    names : tuple of str, length m
        The indicators.
    n_exponents : int
        Number of finite-time exponents, the leading one first; they are the first of `names`.
    known : ndarray, shape (m, T)
        Step at which each value is known, the delay of covariant vectors included.
    auc, low, high : ndarray, shape (m, T)
        Area under the ROC curve and its 95 % interval; nan where fewer than two runs of a kind have
        a finite value.
    adjusted : ndarray, shape (m, T)
        p-values of AUC = 1/2, adjusted by Holm's method for all m T comparisons of this curve.
    against_loss : ndarray, shape (m, T)
        Two-sided p-values (DeLong, same runs, not adjusted) of the skill |AUC − 1/2| being equal to
        that of the loss known no later; nan for the loss itself.
    values : ndarray, shape (m, T, runs)
        The indicators.
    threshold : float
        Final loss above which a run ends high.
    threshold_from : str
        How the threshold was found.
    n_low, n_high : int
        Number of runs that end low and high.

    Examples
    --------
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent(lr=0.5))
    >>> spectrum = pl.lyapunov_spectrum(system, net.init("normal", runs=8), 20, 1, record_every=10)
    >>> curve = pl.prediction_curve(spectrum)
    >>> curve.names, curve.auc.shape
    (('FTLE 1', 'sum of FTLEs', 'loss'), (3, 2))
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
        """Caution about the number of comparisons."""
        return (
            f"{np.isfinite(self.auc).sum()} comparisons: the best of them looks better than it is; "
            "`adjusted` holds p-values corrected by Holm's method"
        )


def prediction_skill(
    indicator: ArrayLike,
    final_loss: ArrayLike,
    threshold: float | None = None,
    level: float = 0.95,
    interval: Literal["delong", "bootstrap"] = "delong",
    seed: Seed = 0,
) -> PredictionSkill:
    """Measure how well an indicator separates runs with a high final loss from the others.

    Parameters
    ----------
    indicator : array_like, shape (runs,)
        An early quantity of each run. Runs where it is nan or infinite are excluded and counted.
    final_loss : array_like, shape (runs,)
        Loss at the end; a run that diverged (nan or inf) ends high.
    threshold : float, optional
        Final loss above which a run ends high. By default the logarithms of the losses are split
        into two clusters of least squared distance (exact k-means in one dimension), and the
        threshold is half-way between the two in the logarithm.
    level : float, default 0.95
        Probability of the confidence interval.
    interval : {"delong", "bootstrap"}, default "delong"
        Method of the confidence interval: DeLong's variance on the logit scale, or percentiles of
        2000 samples drawn with replacement from the runs of each kind. If the two kinds are
        perfectly separated both variances vanish; the interval is then that of a binomial
        proportion without a failure.
    seed : int, SeedSequence or Generator, default 0
        Seed of the bootstrap.

    Returns
    -------
    PredictionSkill
        Area under the ROC curve with its interval, the curve, and a rank correlation.

    Raises
    ------
    ArgumentError
        If shapes differ, all runs end on one side of the threshold, or the indicator is finite in
        no run of one side: skill is then undefined.

    Notes
    -----
    The cost is that of sorting the runs, O(N log N) in time and O(N) in memory; 2000 times O(N) in
    time for the bootstrap.

    References
    ----------
    DeLong, DeLong, Clarke-Pearson, Biometrics 44, 837 (1988). Sun, Xu, IEEE Signal Process. Lett.
    21, 1389 (2014), for the variance from ranks.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> loss = np.exp(rng.normal(size=100))
    >>> skill = pl.prediction_skill(np.log(loss) + rng.normal(size=100), loss, threshold=1.0)
    >>> 0.7 < skill.low < skill.auc < skill.high < 1.0
    True
    """
    from scipy.stats import spearmanr

    level = _checks.real("level", level, above=0.0, below=1.0)
    _checks.choice("interval", interval, ("delong", "bootstrap"))
    values, losses = _pair(indicator, final_loss)
    cut, how = loss_threshold(losses, threshold)
    known = np.isfinite(values)
    ends_high = ~(losses <= cut)
    require_both(ends_high, cut, how)
    require_finite_in_both(known, ends_high)
    low, high = values[known & ~ends_high], values[known & ends_high]
    auc, variance = _roc.delong(low, high)
    if interval == "bootstrap" and 0.0 < auc < 1.0:
        left, right = _roc.bootstrap_interval(low, high, level, seed)
    else:
        left, right = _roc.logit_interval(auc, variance, min(len(low), len(high)), level)
    ranks = (math.nan, math.nan)  # a constant has none
    if np.ptp(values[known]) > 0 and len(np.unique(losses[known])) > 1:
        ranks = spearmanr(values[known], np.where(np.isfinite(losses), losses, np.inf)[known])
    false_positive, true_positive, cuts = _roc.roc_curve(low, high)
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
    *,
    progress: bool = False,
) -> PredictionCurve:
    """Skill of the quantities recorded in a spectrum as a function of training time.

    Indicators at the end of each record: every finite-time exponent of the record, their sum, and
    the loss, which is the reference. With `covariant` also the smallest angle between covariant
    vectors at each record: between early vectors if there are any, known `delay` steps later; else
    between vectors that depend on all steps, and are known only after those.

    Parameters
    ----------
    spectrum : Spectrum
        Spectrum of a batch of runs along training.
    final_loss : array_like, shape (...), optional
        Loss at the end. The last loss of `spectrum` by default; the last records then contain part
        of the answer.
    covariant : CovariantVectors, optional
        Covariant vectors of the same runs, at the same records.
    threshold : float, optional
        Final loss above which a run ends high, as in `prediction_skill`.
    progress : bool, default False
        Whether to show a progress bar on stderr.

    Returns
    -------
    PredictionCurve
        Skill of each indicator at each record.

    Raises
    ------
    ArgumentError
        If all runs end on one side of the threshold, or batches or records differ.

    Examples
    --------
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent(lr=0.5))
    >>> spectrum = pl.lyapunov_spectrum(system, net.init("normal", runs=8), 20, 1, record_every=5)
    >>> pl.prediction_curve(spectrum).known[0]
    array([ 5., 10., 15., 20.])
    """
    _checks.instance("spectrum", spectrum, Spectrum)
    if covariant is not None:
        _checks.instance("covariant", covariant, CovariantVectors)
    losses = _final_losses(spectrum, final_loss)
    cut, how = loss_threshold(losses, threshold)
    ends_high = ~(losses <= cut)
    require_both(ends_high, cut, how)
    indicators, known = _recorded(spectrum, covariant)
    ends = known["loss"]
    names = tuple(indicators)
    shape = (len(names), len(ends))
    auc, low, high, p, against = (np.full(shape, np.nan) for _ in range(5))
    with progress_bar(progress, len(names) * len(ends), "prediction", unit=" records") as bar:
        for m, name in enumerate(names):
            for r in range(len(ends)):
                bar.advance(1)
                values = indicators[name][:, r]
                finite = np.isfinite(values)
                kinds = ends_high[finite]
                if kinds.sum() < 2 or (~kinds).sum() < 2:
                    continue
                a, variance = _roc.delong(values[finite & ~ends_high], values[finite & ends_high])
                few = int(min(kinds.sum(), (~kinds).sum()))
                auc[m, r] = a
                low[m, r], high[m, r] = _roc.logit_interval(a, variance, few, 0.95)
                p[m, r] = _roc.two_sided(a - 0.5, _roc.null_variance(kinds))
                if name != "loss":
                    earlier = np.flatnonzero(ends <= known[name][r])[-1]
                    loss = indicators["loss"][:, earlier]
                    against[m, r] = _roc.paired_pvalue(values, loss, ends_high)
    return PredictionCurve(
        names=names,
        known=np.array([known[name] for name in names]),
        auc=auc,
        low=low,
        high=high,
        adjusted=_roc.holm(p),
        against_loss=against,
        values=np.array([indicators[name].T for name in names]),
        threshold=cut,
        threshold_from=how,
        n_low=int((~ends_high).sum()),
        n_high=int(ends_high.sum()),
        n_exponents=spectrum.growth.shape[-1],
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


def _final_losses(spectrum: Spectrum, final_loss: ArrayLike | None) -> Floats:
    """(runs,) given losses, or the last ones of the spectrum."""
    if final_loss is None and (spectrum.status == Status.STOPPED).any():
        raise ArgumentError("final_loss", "must be given where runs of spectrum stopped early")
    given = spectrum.loss[..., -1] if final_loss is None else final_loss
    losses = _checks.floats("final_loss", given, finite=False)
    runs = spectrum.status.size
    if losses.size != runs:
        raise ArgumentError(
            "final_loss", f"must have one number per run ({runs}), got {losses.size}"
        )
    return losses.reshape(runs)


def _recorded(
    spectrum: Spectrum, covariant: CovariantVectors | None
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Indicators (runs, records) by name, and the step at which each is known (records,)."""
    runs = spectrum.status.size
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
    return indicators, known
