"""What depends on the assumptions: the same ensembles with one of them changed at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pylyap import _roc, datasets
from pylyap._files import atomic_write, write_npz
from pylyap._tangent.exponents import lyapunov_spectrum
from pylyap.maps import TrainingMap
from pylyap.network import Network
from pylyap.optimizers import GradientDescent
from pylyap.papers.sharafi2025.definition import (
    ACTIVATIONS,
    HE,
    HIDDEN,
    N_POINTS,
    N_STEPS,
    NAMES,
    Floats,
    Initialisation,
    Task,
)
from pylyap.prediction import PredictionSkill, prediction_skill

Data = Callable[[int, int], tuple[Floats, Floats]]  # of the number of points and a seed

STEPS = (50, 200, 1000)  # at which skills are measured
WINDOWS = (10, 20, 50, 100, 200)  # steps; of the variant "as assumed" alone
_RECORD = 10  # steps
_NOISE = 0.1  # standard deviation, of the data y = x²


def _squares(n: int, seed: int) -> tuple[Floats, Floats]:
    return datasets.quadratic(n, seed)


def _one_square(n: int, seed: int) -> tuple[Floats, Floats]:
    X = datasets.quadratic(n, seed)[0]
    return X, X[:, 0] ** 2


def _product(n: int, seed: int) -> tuple[Floats, Floats]:
    X = datasets.quadratic(n, seed)[0]
    return X, X[:, 0] * X[:, 1]


def _noisy_square(n: int, seed: int) -> tuple[Floats, Floats]:
    X = datasets.quadratic(n, seed)[0][:, :1]
    noise = np.random.default_rng([seed, 1]).normal(scale=_NOISE, size=n)
    return X, X[:, 0] ** 2 + noise


class Variant(NamedTuple):
    """The task with one assumption changed.

    Attributes
    ----------
    name : str
        What is changed.
    hidden : int
        Hidden units.
    lr : float
        Learning rate.
    n_points : int
        Number of points.
    data : callable
        Inputs and targets of a number of points and a seed.
    online : bool
        Batches of one point, in order.
    n_steps : int
        Steps until the final loss.
    data_seed : int
        Of the points.
    """

    name: str
    hidden: int = HIDDEN
    lr: float = HE.lr
    n_points: int = N_POINTS
    data: Data = _squares
    online: bool = False
    n_steps: int = N_STEPS
    data_seed: int = 0

    def system(self, activation: str) -> TrainingMap:
        """Return the map of training.

        Parameters
        ----------
        activation : str
            Of the hidden layer.

        Returns
        -------
        TrainingMap
            With the data and the learning rate of the variant.
        """
        X, y = self.data(self.n_points, self.data_seed)
        network = Network((X.shape[1], self.hidden, 1), activation=activation)
        batch: dict[str, Any] = {"batch_size": 1, "shuffle": False} if self.online else {}
        return TrainingMap(network, X, y, GradientDescent(lr=self.lr, **batch))


BASE = Variant("as assumed")
VARIANTS = (
    BASE,
    Variant("other points", data_seed=1),
    Variant("2 hidden units", hidden=2),
    Variant("4 hidden units", hidden=4),
    Variant("5 hidden units", hidden=5),
    Variant("7 hidden units", hidden=7),
    Variant("10 hidden units", hidden=10),
    Variant("learning rate 0.01", lr=0.01),
    Variant("learning rate 0.03", lr=0.03),
    Variant("learning rate 0.3", lr=0.3),
    Variant("20 points", n_points=20),
    Variant("400 points", n_points=400),
    Variant("online, in order", online=True),
    Variant("20,000 steps", n_steps=20_000),
    Variant("y = x₁²", data=_one_square),
    Variant("y = x₁x₂", data=_product),
    Variant("y = x² + noise", data=_noisy_square),
)


@dataclass(frozen=True, eq=False)
class VariantResult:
    """What was found of a variant with one activation.

    Attributes
    ----------
    variant : Variant
        What is changed.
    activation : str
        Of the hidden layer.
    final_loss : (runs,)
        Loss after all steps.
    diverged : int
        Number of runs that diverged.
    threshold : float
        Final loss between the two clusters of log c_f.
    explained : float
        Fraction of the variance of log c_f that the two clusters explain.
    share_high : float
        Fraction of the runs above the threshold.
    skills : dict
        For each indicator and step a `PredictionSkill`; None where it is undefined.
    better : dict
        For the exponents and each step: 1 if their skill is significantly larger than that of the
        loss at the same step (5 %, corrected by Holm for all variants), −1 if smaller, 0 otherwise.
    windows : dict
        For the variant as assumed: skill of the most contracting exponent at step 200 by length of
        the window; empty for the others.
    """

    variant: Variant
    activation: str
    final_loss: Floats = field(repr=False)
    diverged: int
    threshold: float
    explained: float
    share_high: float
    skills: dict[tuple[str, int], PredictionSkill | None] = field(repr=False)
    better: dict[tuple[str, int], int] = field(repr=False)
    windows: dict[int, PredictionSkill] = field(repr=False)

    @property
    def name(self) -> str:
        """Name in figures and tables."""
        return f"{NAMES[self.activation]}, {self.variant.name}"


LOSS, LAST, SUM, TRACE = (
    "loss",
    "most contracting exponent",
    "sum of exponents",
    "tr H at the start",
)


def vary_assumptions(
    task: Task,
    *,
    runs: int = 1000,
    n_early: int = 1000,
    variants: Sequence[Variant] = VARIANTS,
    kind: Initialisation = HE,
) -> tuple[VariantResult, ...]:
    """Repeat the study with one assumption changed at a time, for both activations.

    Parameters
    ----------
    task : Task
        Folder of the stored results, and seed.
    runs : int, default 1000
        Runs of each variant and activation.
    n_early : int, default 1000
        Steps over which exponents are computed.
    variants : sequence of Variant, default `VARIANTS`
        What is changed.
    kind : Initialisation, default `HE`
        How weights are drawn.

    Returns
    -------
    tuple of VariantResult
        For each activation all variants.
    """
    parts, raw = [], []
    for activation in ACTIVATIONS:
        for variant in variants:
            arrays = _stored(task, variant, activation, runs, n_early, kind)
            part, pvalues = _measured(variant, activation, arrays)
            parts.append(part)
            raw.append(pvalues)
    flat = _roc.holm(np.array([p for pvalues in raw for p, _ in pvalues.values()]))
    adjusted = iter(flat)
    found = []
    for part, pvalues in zip(parts, raw, strict=True):
        better = {
            key: int(sign) if next(adjusted) < 0.05 else 0 for key, (_, sign) in pvalues.items()
        }
        found.append(VariantResult(**part, better=better))
    return tuple(found)


def _stored(
    task: Task, variant: Variant, activation: str, runs: int, n_early: int, kind: Initialisation
) -> dict[str, NDArray[Any]]:
    """Arrays of the runs of a variant, computed if they are not in the folder."""
    settings = (
        f"{activation}-{kind.key}-{variant.data.__name__.strip('_')}-{variant.n_points}"
        f"-{variant.data_seed}-hidden{variant.hidden}-lr{variant.lr:g}"
        f"{'-online' if variant.online else ''}-{variant.n_steps}"
    )
    path = task.folder / "sensitivity" / f"{settings}-{runs}x{n_early}-seed{task.seed}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = _computed(variant, activation, runs, n_early, kind, task)
        with atomic_write(path) as file:
            write_npz(file, arrays)
    return _read(path)


def _read(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path) as stored:
        return {name: stored[name] for name in stored.files}


def _computed(
    variant: Variant, activation: str, runs: int, n_early: int, kind: Initialisation, task: Task
) -> dict[str, NDArray[Any]]:
    system = variant.system(activation)
    start = system.network.init(runs=runs, seed=task.seed, **kind.init)
    spectrum = lyapunov_spectrum(
        system, start, n_early, record_every=_RECORD, threads=task.threads,
        progress=task.progress,
    )  # fmt: skip
    left = variant.n_steps - n_early
    state = np.where(np.isfinite(spectrum.state), spectrum.state, 0.0)
    last = system.trajectory(state, left, every=max(left, 1), start=n_early, threads=task.threads)
    final = system.loss(last[:, -1])
    lost = ~np.isfinite(spectrum.state).all(axis=-1)
    every = 1 if variant == BASE else STEPS[0] // _RECORD
    growth = spectrum.growth.reshape(runs, n_early // (_RECORD * every), every, -1).sum(axis=2)
    return {
        "growth": growth,
        "loss": spectrum.loss[:, ::every],
        "final_loss": np.where(lost, np.nan, final),
        "trace": np.trace(system.hessian(start), axis1=-2, axis2=-1),
    }


def _measured(
    variant: Variant, activation: str, arrays: dict[str, NDArray[Any]]
) -> tuple[dict[str, Any], dict[tuple[str, int], tuple[float, float]]]:
    growth, loss, final = arrays["growth"], arrays["loss"], arrays["final_loss"]
    record = _RECORD if variant == BASE else STEPS[0]
    whole = prediction_skill(final, final)
    high = ~(final <= whole.threshold)
    skills: dict[tuple[str, int], PredictionSkill | None] = {}
    pvalues: dict[tuple[str, int], tuple[float, float]] = {}
    n_early = record * growth.shape[1]
    for step in (s for s in STEPS if s <= n_early):
        end, window = step // record, STEPS[0] // record
        rates = growth[:, end - window : end].sum(axis=1) / STEPS[0]
        of = {
            LOSS: loss[:, end],
            LAST: rates[:, -1],
            SUM: rates.sum(axis=-1),
            TRACE: arrays["trace"],
        }
        for name, values in of.items():
            skills[name, step] = _skill(values, final, whole.threshold)
            if name in (LAST, SUM):
                mine, others = skills[name, step], skills[LOSS, step]
                if mine is None or others is None:
                    continue
                sign = np.sign(abs(mine.auc - 0.5) - abs(others.auc - 0.5))
                pvalues[name, step] = _roc.paired_pvalue(values, of[LOSS], high), float(sign)
    windows = {}
    if variant == BASE and n_early >= 200:
        for length in WINDOWS:
            rates = growth[:, (200 - length) // record : 200 // record, -1].sum(axis=1)
            windows[length] = prediction_skill(rates, final, whole.threshold)
    part = {
        "variant": variant,
        "activation": activation,
        "final_loss": final,
        "diverged": int((~np.isfinite(final)).sum()),
        "threshold": whole.threshold,
        "explained": explained(final, whole.threshold),
        "share_high": float(high.mean()),
        "skills": skills,
        "windows": windows,
    }
    return part, pvalues


def _skill(values: Floats, final: Floats, threshold: float) -> PredictionSkill | None:
    fine, high = np.isfinite(values), ~(final <= threshold)
    if min((fine & high).sum(), (fine & ~high).sum()) < 2:
        return None
    return prediction_skill(values, final, threshold)


def explained(final: Floats, threshold: float) -> float:
    """Return the fraction of the variance of log c_f between the two sides of a threshold.

    Parameters
    ----------
    final : (runs,) array
        Final losses; those that are not finite are left out.
    threshold : float
        Final loss that divides the runs.

    Returns
    -------
    float
        0 … 1. A normal distribution cut at its median has 2/π = 0.64, a uniform one 0.75.
    """
    logs = np.log(final[np.isfinite(final) & (final > 0)])
    high = logs > np.log(threshold)
    share = high.mean()
    between = share * (1.0 - share) * (logs[high].mean() - logs[~high].mean()) ** 2
    return float(between / logs.var())
