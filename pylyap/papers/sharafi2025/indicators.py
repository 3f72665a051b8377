"""Indicators of the final loss: their skill along training, paired tests, stopping rules.

Skill is the area under the ROC curve (AUC) of {low, high} final loss, as |AUC − 1/2| + 1/2 where
two indicators are compared. Intervals and paired tests are those of DeLong; p-values are corrected
by Holm within each family of comparisons.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pylyap import _roc
from pylyap._parallel import progress_bar
from pylyap._tangent.sharpness import hessian_spectrum
from pylyap.maps import TrainingMap
from pylyap.papers.sharafi2025.definition import WINDOW, Floats, Task
from pylyap.papers.sharafi2025.ensembles import EarlyVectors, Ensemble
from pylyap.prediction import RestartPolicy, restart_policy

Booleans = NDArray[np.bool_]

STEPS = (50, 100, 200, 500, 1000)  # at which indicators are compared
LOSS, SUM, LAST, FIRST = "loss", "sum of FTLEs", "FTLE 13", "FTLE 1"
SMALLEST, TRAILING = "smallest angle", "angle 12–13"
SHARPNESS, TRACE, GRADIENT = "λ_max(H)", "tr H", "gradient norm"
UNITS, SIGNS = "inactive or saturated units", "positive output weights"
CHEAP = (SHARPNESS, TRACE, GRADIENT, UNITS, SIGNS)
TANGENT = (FIRST, LAST, SUM, SMALLEST, TRAILING)
WITH_EXPONENTS, WITH_CHEAP = "loss and 13 FTLEs", "loss, λ_max, tr H, gradient"

_SATURATED = 0.9  # |tanh z| of all points
_FOLDS = 5
_PARTS = 8  # into which runs are divided for standard errors


@dataclass(frozen=True)
class Values:
    """An indicator: a number for each run, at several steps.

    Attributes
    ----------
    known : (T,)
        Step at which each number is known.
    values : (T, runs)
        The numbers.
    """

    known: NDArray[Any]
    values: Floats = field(repr=False)


class Curve(NamedTuple):
    """Skill of one indicator against the step at which it is known: arrays (T,).

    Attributes
    ----------
    known : ndarray
        Step, the delay of covariant vectors included.
    auc, low, high : ndarray
        AUC and its 95 % interval.
    pvalue : ndarray
        Of the skill being that of the loss at the same step on the same runs; not corrected.
    """

    known: NDArray[Any]
    auc: Floats
    low: Floats
    high: Floats
    pvalue: Floats


class Comparison(NamedTuple):
    """Skills of two indicators on the same runs.

    Attributes
    ----------
    name : str
        The indicator.
    other : str
        The one it is compared with.
    step : int
        Step at which both are known.
    skill, reference : float
        |AUC − 1/2| + 1/2 of the indicator and of the other.
    pvalue : float
        Two-sided, corrected by Holm for all comparisons of the family.
    """

    name: str
    other: str
    step: int
    skill: float
    reference: float
    pvalue: float

    @property
    def verdict(self) -> int:
        """1 where the indicator is significantly better (5 %), −1 where worse, 0 otherwise."""
        return int(np.sign(self.skill - self.reference)) if self.pvalue < 0.05 else 0


@dataclass(frozen=True, eq=False)
class Prediction:
    """What was found of one ensemble.

    Attributes
    ----------
    ensemble : Ensemble
        The runs.
    curves : dict
        A `Curve` for each indicator.
    against_loss : list of Comparison
        Exponents and angles against the loss at the same step.
    against_exponent : list of Comparison
        Cheap indicators against the most contracting exponent at the same step.
    policies : dict
        For each group of indicators a `RestartPolicy` judged on runs that it was not fitted to,
        and the standard error of what it saves; absent where there are too few runs.
    n_vectors : int
        Runs with covariant vectors.
    vector_error : (13,)
        Median error of the early covariant vectors (sine).
    window_trace : float
        Spearman correlation of the sum of the exponents of the first window with −lr tr H at the
        start.
    window_sharpness : float
        The same of the most contracting exponent with ln|1 − lr λ_max(H)| at the start.
    """

    ensemble: Ensemble
    curves: dict[str, Curve] = field(repr=False)
    against_loss: list[Comparison] = field(repr=False)
    against_exponent: list[Comparison] = field(repr=False)
    policies: dict[str, tuple[RestartPolicy, float]] = field(repr=False)
    n_vectors: int
    vector_error: Floats = field(repr=False)
    window_trace: float
    window_sharpness: float

    def skill(self, name: str, step: int) -> tuple[float, float, float]:
        """AUC of an indicator as it is known by a step, with its 95 % interval.

        Parameters
        ----------
        name : str
            Name of the indicator.
        step : int
            The latest value known by this step counts.

        Returns
        -------
        auc, low, high : float
            nan where nothing is known by then.
        """
        curve = self.curves[name]
        known = np.flatnonzero((curve.known <= step) & np.isfinite(curve.auc))
        if not known.size:
            return np.nan, np.nan, np.nan
        t = known[-1]
        return float(curve.auc[t]), float(curve.low[t]), float(curve.high[t])

    def reaches(self, name: str, level: float = 0.75) -> tuple[float, float, float]:
        """Step at which the skill of an indicator first reaches a level.

        Parameters
        ----------
        name : str
            Name of the indicator.
        level : float, default 0.75
            |AUC − 1/2| + 1/2.

        Returns
        -------
        step, earliest, latest : float
            Where the skill, the upper and the lower limit of its 95 % interval first reach it; nan
            where they never do.
        """
        curve = self.curves[name]
        up = curve.auc >= 0.5
        best = np.where(up, curve.auc, 1.0 - curve.auc)
        most = np.where(up, curve.high, 1.0 - curve.low)
        least = np.where(up, curve.low, 1.0 - curve.high)
        steps = []
        for values in (best, most, least):
            there = np.flatnonzero(values >= level)
            steps.append(float(curve.known[there[0]]) if there.size else np.nan)
        return steps[0], steps[1], steps[2]


def measure_predictions(
    some: Sequence[Ensemble], early: Sequence[EarlyVectors], task: Task
) -> tuple[Prediction, ...]:
    """Measure how well each indicator predicts the final loss.

    Parameters
    ----------
    some : sequence of Ensemble
        Result of `run_ensembles`.
    early : sequence of EarlyVectors
        Result of `run_early_vectors`, in the same order.
    task : Task
        Number of threads.

    Returns
    -------
    tuple of Prediction
        One for each ensemble. The p-values of a family are corrected for the comparisons of all
        ensembles together.
    """
    parts = []
    with progress_bar(task.progress, len(some), "predictions", unit=" ensembles") as bar:
        for ensemble, vectors in zip(some, early, strict=True):
            parts.append(_measured(ensemble, vectors, task))
            bar.advance(1)
    families = [
        _corrected([part[name] for part in parts]) for name in ("against_loss", "against_exponent")
    ]
    return tuple(
        Prediction(**(part | {"against_loss": loss, "against_exponent": exponent}))
        for part, loss, exponent in zip(parts, *families, strict=True)
    )


def _measured(ensemble: Ensemble, early: EarlyVectors, task: Task) -> dict[str, Any]:
    from scipy.stats import spearmanr

    exponents, angles = exponent_values(ensemble), angle_values(early)
    cheap = cheap_values(ensemble, task)
    together = _combined(ensemble, exponents, cheap)
    all_of = {**exponents, **angles, **cheap, **together}
    curves = {name: _curve(ensemble, values) for name, values in all_of.items()}
    loss, exponent = [], []
    for step in (s for s in STEPS if s <= ensemble.n_steps):
        loss += list(_compared(ensemble, all_of, TANGENT, LOSS, step))
        loss += list(_compared(ensemble, all_of, (WITH_EXPONENTS,), LOSS, step))
        exponent += list(_compared(ensemble, all_of, CHEAP, LAST, step))
        exponent += list(_compared(ensemble, all_of, (WITH_EXPONENTS,), WITH_CHEAP, step))
    lr, high = ensemble.kind.lr, cheap[SHARPNESS].values[0]
    with np.errstate(divide="ignore"):
        law = np.log(np.abs(1.0 - lr * high))
    window = ensemble.growth[:, 0]
    return {
        "ensemble": ensemble,
        "curves": curves,
        "against_loss": loss,
        "against_exponent": exponent,
        "policies": _policies(ensemble, exponents, angles, cheap),
        "n_vectors": early.runs,
        "vector_error": np.nanmedian(early.error, axis=(0, 1)),
        "window_trace": float(spearmanr(window.sum(axis=-1), -lr * cheap[TRACE].values[0])[0]),
        "window_sharpness": float(spearmanr(window[:, -1], law)[0]),
    }


# --- indicators ----------------------------------------------------------------------------------


def exponent_values(ensemble: Ensemble) -> dict[str, Values]:
    """Return exponents of each window, their sum, and the loss at the end of the window.

    Parameters
    ----------
    ensemble : Ensemble
        The runs.

    Returns
    -------
    dict of Values
        Numbers of each run, in nats per step but for the loss.
    """
    rates = np.moveaxis(ensemble.growth, 1, 0) / WINDOW
    found = {f"FTLE {i + 1}": rates[..., i] for i in range(rates.shape[-1])}
    found[SUM] = rates.sum(axis=-1)
    found[LOSS] = ensemble.loss[:, 1:].T
    return {name: Values(ensemble.known, values) for name, values in found.items()}


def angle_values(early: EarlyVectors) -> dict[str, Values]:
    """Return angles between early vectors: the smallest of all pairs, and that of the last two.

    Parameters
    ----------
    early : EarlyVectors
        The vectors.

    Returns
    -------
    dict of Values
        Radians, of the runs that have vectors.
    """
    known = early.steps[1:] + early.delay
    some = {SMALLEST: early.angles["smallest of all"], TRAILING: early.angles["12–13"]}
    return {name: Values(known, values[:, 1:].T) for name, values in some.items()}


def cheap_values(ensemble: Ensemble, task: Task) -> dict[str, Values]:
    """Return what a state gives without tangent dynamics, at the start and at a few later steps.

    Parameters
    ----------
    ensemble : Ensemble
        The runs.
    task : Task
        Number of threads.

    Returns
    -------
    dict of Values
        Largest eigenvalue and trace of the Hessian, norm of the gradient, number of hidden units
        that are inactive (ReLU) or saturated (tanh) on all points, and number of positive output
        weights.
    """
    steps = [0, *(s for s in STEPS if s <= ensemble.n_steps)]
    path = ensemble.system.trajectory(ensemble.start, steps[-1], every=WINDOW, threads=task.threads)
    found: dict[str, list[Floats]] = {name: [] for name in CHEAP}
    for step in steps:
        state = path[:, step // WINDOW]
        eigenvalues = hessian_spectrum(ensemble.system, state).eigenvalues
        found[SHARPNESS].append(eigenvalues[:, 0])
        found[TRACE].append(eigenvalues.sum(axis=-1))
        found[GRADIENT].append(np.linalg.norm(ensemble.system.gradient(state), axis=-1))
        found[UNITS].append(idle_units(ensemble.system, state))
        (_, _), (V, _) = ensemble.system.network.unpack(state)
        found[SIGNS].append((V[:, 0] > 0.0).sum(axis=-1).astype(np.float64))
    return {name: Values(np.array(steps), np.array(values)) for name, values in found.items()}


def idle_units(system: TrainingMap, state: Floats) -> Floats:
    """Count hidden units that are off (ReLU) or saturated (tanh) on all points.

    Parameters
    ----------
    system : TrainingMap
        The map of training.
    state : (runs, n) array
        Weights.

    Returns
    -------
    (runs,) array
        Number of units whose ReLU input is at most 0, or whose |tanh| is above 0.9, on all points.
    """
    (W, b), _ = system.network.unpack(state)
    z = system.X @ np.swapaxes(W, -1, -2) + b[:, np.newaxis]
    if system.network.activations[0] == "relu":
        idle = (z <= 0.0).all(axis=1)
    else:
        idle = (np.abs(np.tanh(z)) > _SATURATED).all(axis=1)
    count: Floats = idle.sum(axis=-1).astype(np.float64)
    return count


def _combined(
    ensemble: Ensemble, exponents: Mapping[str, Values], cheap: Mapping[str, Values]
) -> dict[str, Values]:
    """Linear discriminants of several indicators, fitted to other runs than those they score."""
    steps = np.array([s for s in STEPS if s <= ensemble.n_steps])
    at = [ensemble.at(step) for step in steps]
    names = [name for name in exponents if name != SUM]
    first = np.array([[exponents[name].values[t] for t in at] for name in names])
    later = slice(1, None)  # cheap ones start at step 0
    losses = exponents[LOSS].values[at]
    second = np.array([losses, *(cheap[name].values[later] for name in CHEAP[:3])])
    return {
        name: Values(steps, np.array([scores(x, ensemble.high) for x in np.swapaxes(of, 0, 1)]))
        for name, of in ((WITH_EXPONENTS, first), (WITH_CHEAP, second))
    }


def scores(features: Floats, high: Booleans, folds: int = _FOLDS, seed: int = 0) -> Floats:
    """Score each run by a linear discriminant of the ranks of its features, cross-validated.

    Parameters
    ----------
    features : (m, runs) array
        Indicators; a value that is not finite ranks as the median.
    high : (runs,) array of bool
        Which runs end high.
    folds : int, default 5
        A run is scored by the discriminant of the other folds.
    seed : int, default 0
        Of the division into folds.

    Returns
    -------
    (runs,) array
        Scores, larger for runs that are like those that end high.
    """
    from scipy.stats import rankdata

    runs = len(high)
    x = np.where(np.isfinite(features), features, np.nanmedian(features, axis=1, keepdims=True))
    design = np.vstack([rankdata(x, axis=1) / runs - 0.5, np.ones(runs)]).T
    fold = np.random.default_rng(seed).permutation(runs) % folds
    result = np.empty(runs)
    for f in range(folds):
        others = fold != f
        fit = np.linalg.lstsq(design[others], high[others].astype(float), rcond=None)[0]
        result[~others] = design[~others] @ fit
    return result


# --- skill ---------------------------------------------------------------------------------------


def _curve(ensemble: Ensemble, given: Values) -> Curve:
    runs = given.values.shape[1]
    high, result = ensemble.high[:runs], np.full((4, len(given.known)), np.nan)
    for t, step in enumerate(given.known):
        values = given.values[t]
        fine = np.isfinite(values)
        kinds = high[fine]
        few = int(min(kinds.sum(), (~kinds).sum()))
        if few < 2:
            continue
        auc, variance = _roc.delong(values[fine & ~high], values[fine & high])
        loss = ensemble.loss[:runs, int(step) // WINDOW]
        interval = _roc.logit_interval(auc, variance, few, 0.95)
        result[:, t] = auc, *interval, _roc.paired_pvalue(values, loss, high)
    return Curve(given.known, *result)


def _compared(
    ensemble: Ensemble, values: Mapping[str, Values], names: Sequence[str], other: str, step: int
) -> Iterator[Comparison]:
    """Comparisons, not yet corrected, of what is known by a step."""
    for name in names:
        a, b = _by(values[name], step), _by(values[other], step)
        if a is None or b is None:
            continue
        runs = min(len(a), len(b))
        high = ensemble.high[:runs]
        fine = np.isfinite(a[:runs]) & np.isfinite(b[:runs])
        kinds = high[fine]
        if min(kinds.sum(), (~kinds).sum()) < 2:
            continue
        skill, reference = (
            abs(_roc.delong(x[:runs][fine][~kinds], x[:runs][fine][kinds])[0] - 0.5) + 0.5
            for x in (a, b)
        )
        pvalue = _roc.paired_pvalue(a[:runs], b[:runs], high)
        yield Comparison(name, other, step, skill, reference, pvalue)


def _by(given: Values, step: int) -> Floats | None:
    """The latest values known by a step."""
    known = np.flatnonzero(given.known <= step)
    return given.values[known[-1]] if known.size else None


def _corrected(families: Sequence[Sequence[Comparison]]) -> list[list[Comparison]]:
    raw = np.array([c.pvalue for family in families for c in family])
    adjusted = iter(_roc.holm(raw))
    return [[c._replace(pvalue=float(next(adjusted))) for c in family] for family in families]


# --- stopping ------------------------------------------------------------------------------------


def _policies(
    ensemble: Ensemble,
    exponents: Mapping[str, Values],
    angles: Mapping[str, Values],
    cheap: Mapping[str, Values],
) -> dict[str, tuple[RestartPolicy, float]]:
    groups = {
        "loss": [exponents[LOSS]],
        "exponents": [v for name, v in exponents.items() if name.startswith("FTLE ")],
        "sum": [exponents[SUM]],
        "angles": list(angles.values()),
        "Hessian": [cheap[SHARPNESS], cheap[TRACE]],
        "gradient": [cheap[GRADIENT]],
        "units, signs": [cheap[UNITS], cheap[SIGNS]],
    }
    found = {}
    for name, group in groups.items():
        policy = _policy(ensemble, group, slice(None))
        if policy is None:
            continue
        parts = [_policy(ensemble, group, slice(i, None, _PARTS)) for i in range(_PARTS)]
        saved = [part.saved for part in parts if part is not None and np.isfinite(part.saved)]
        error = np.std(saved, ddof=1) / np.sqrt(len(saved)) if len(saved) == _PARTS else np.nan
        found[name] = policy, float(error)
    return found


def _policy(ensemble: Ensemble, group: Sequence[Values], some: slice) -> RestartPolicy | None:
    """The best rule with one of these indicators at one of the steps at which they are compared.

    Step 0 is not among them: runs that are stopped there cost nothing, so that the best rule keeps
    the single best run.
    """
    candidates, at = [], []
    for given in group:
        for step in STEPS:
            t = np.flatnonzero(given.known == step)
            if t.size and np.isfinite(given.values[t[0]]).any():
                candidates.append(given.values[t[0]])
                at.append(step)
    runs = len(candidates[0]) if candidates else 0
    losses, values = ensemble.final_loss[:runs][some], np.array(candidates)[:, some]
    good = losses <= ensemble.threshold
    if min(good.sum(), (~good).sum()) < _FOLDS:
        return None
    return restart_policy(
        values, losses, np.array(at), ensemble.n_steps, ensemble.threshold, folds=_FOLDS
    )
