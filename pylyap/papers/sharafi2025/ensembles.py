"""The ensembles: stored runs, their final losses, and the clusters that these form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylyap.maps import TrainingMap
from pylyap.papers.sharafi2025.definition import (
    ACTIVATIONS,
    HE,
    INITIALISATIONS,
    N_STEPS,
    NAMES,
    RUNS,
    WINDOW,
    Floats,
    Initialisation,
    Task,
    early_vectors_study,
    exponents_study,
    vectors_study,
)
from pylyap.prediction import prediction_skill
from pylyap.studies import Study, run_study

Booleans = NDArray[np.bool_]
Integers = NDArray[np.int64]

# Bandwidth of the density of log10 c_f over its standard deviation; Scott's rule, made for one
# cluster, would join clusters whose width is a tenth of their distance.
_BANDWIDTH = 0.1
PAIRS = {"1–2": (0, 1), "11–12": (10, 11), "12–13": (11, 12), "1–13": (0, 12)}
SMALLEST = "smallest of all"  # pairs

_LEAST_SHARE = 0.02  # of the runs in a cluster
_DEPTH = 0.5  # of the lower peak: the density between two clusters is below it


@dataclass(frozen=True)
class Cluster:
    """A peak of the density of log₁₀ c_f and the runs around it.

    Attributes
    ----------
    name : str
        "low", "high", or "middle".
    peak : float
        Position of the peak, log₁₀ c_f.
    left, right : float
        Limits at the minima of the density, log₁₀ c_f.
    count : int
        Number of runs.
    share, low, high : float
        Fraction of the runs and its 95 % interval (Wilson).
    """

    name: str
    peak: float
    left: float
    right: float
    count: int
    share: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Runs of one activation and initialisation.

    Attributes
    ----------
    kind : Initialisation
        How the weights were drawn.
    activation : str
        ``"relu"`` or ``"tanh"``.
    system : TrainingMap
        The map of training.
    start : (runs, 13)
        Initial weights.
    growth : (runs, T, 13)
        Log growth over each window of 50 steps, nats; nan from the window of a divergence on.
    loss : (runs, T + 1)
        Loss at the start of each window and at the end.
    exponents : (runs, 13)
        Lyapunov exponents over all steps, nats per step.
    state : (runs, 13)
        Weights at the end.
    final_loss : (runs,)
        Loss at the end, c_f.
    """

    kind: Initialisation
    activation: str
    system: TrainingMap = field(repr=False)
    start: Floats = field(repr=False)
    growth: Floats = field(repr=False)
    loss: Floats = field(repr=False)
    exponents: Floats = field(repr=False)
    state: Floats = field(repr=False)
    final_loss: Floats = field(repr=False)

    @property
    def name(self) -> str:
        """Name in figures and tables."""
        return f"{NAMES[self.activation]}, {self.kind.name}"

    @property
    def runs(self) -> int:
        """Number of runs."""
        return len(self.final_loss)

    @property
    def n_steps(self) -> int:
        """Steps of a run."""
        return WINDOW * int(self.growth.shape[1])

    @property
    def known(self) -> Integers:
        """(T,) step at which the exponents of each window are known: its end."""
        return WINDOW * np.arange(1, self.growth.shape[1] + 1)

    @cached_property
    def log_loss(self) -> Floats:
        """(runs,) log₁₀ c_f; nan for a run that diverged."""
        with np.errstate(divide="ignore", invalid="ignore"):
            logs: Floats = np.log10(self.final_loss)
        return np.where(np.isfinite(logs), logs, np.nan)

    @cached_property
    def threshold(self) -> float:
        """Final loss above which a run ends high: between the two clusters, or the median.

        The runs of He initialisation form clusters, and the threshold is half-way between two
        clusters of log c_f (see `prediction_skill`). Those of wide-range weights have one broad
        distribution, and the threshold is its median.
        """
        if self.kind != HE:
            return float(np.nanmedian(self.final_loss))
        return prediction_skill(self.final_loss, self.final_loss).threshold

    @cached_property
    def high(self) -> Booleans:
        """(runs,) whether a run ends above the threshold; a run that diverged does."""
        high: Booleans = ~(self.final_loss <= self.threshold)
        return high

    @cached_property
    def clusters(self) -> tuple[Cluster, ...]:
        """Clusters of log₁₀ c_f, in ascending order."""
        return find_clusters(self.log_loss)

    def at(self, step: int) -> int:
        """Index of the window that ends at this step, or of the last one before."""
        return int(np.clip(step // WINDOW, 1, self.growth.shape[1])) - 1


@dataclass(frozen=True, eq=False)
class Vectors:
    """Covariant vectors of the first runs of an ensemble.

    Attributes
    ----------
    ensemble : Ensemble
        The runs; these are its first.
    steps : (T,)
        Step of each record.
    angles : dict of (runs, T)
        Angles of the pairs `PAIRS` and the smallest of all pairs, radians.
    contamination : (T, 13)
        Median estimated error of each vector (sine).
    """

    ensemble: Ensemble
    steps: Integers = field(repr=False)
    angles: dict[str, Floats] = field(repr=False)
    contamination: Floats = field(repr=False)

    @property
    def runs(self) -> int:
        """Number of runs."""
        return len(self.angles[SMALLEST])

    @property
    def high(self) -> Booleans:
        """(runs,) which of them end high."""
        return self.ensemble.high[: self.runs]


@dataclass(frozen=True, eq=False)
class EarlyVectors:
    """Covariant vectors of the first runs of an ensemble, as they are known `delay` steps later.

    Attributes
    ----------
    ensemble : Ensemble
        The runs; these are its first.
    delay : int
        Steps from a record to the time at which its vectors are known.
    steps : (T,)
        Step of each record.
    angles : dict of (runs, T)
        Angles of the pairs `PAIRS` and the smallest of all pairs, radians.
    error : (runs, T, 13)
        Sine of the angle to the vectors that know 200 more steps.
    """

    ensemble: Ensemble
    delay: int
    steps: Integers = field(repr=False)
    angles: dict[str, Floats] = field(repr=False)
    error: Floats = field(repr=False)

    @property
    def runs(self) -> int:
        """Number of runs."""
        return len(self.error)


def pair(i: int, j: int, k: int = 13) -> int:
    """Return the index of the pair of vectors i < j (from 0) among all pairs of k.

    Parameters
    ----------
    i, j : int
        The two vectors, from 0.
    k : int, default 13
        Number of vectors.

    Returns
    -------
    int
        Index in the order of ``itertools.combinations(range(k), 2)``.
    """
    first, second = np.triu_indices(k, 1)
    return int(np.flatnonzero((first == i) & (second == j))[0])


def find_clusters(logs: Floats) -> tuple[Cluster, ...]:
    """Find clusters of log₁₀ c_f: peaks of a kernel density and the minima between them.

    Parameters
    ----------
    logs : (runs,) array
        Values of log₁₀ c_f; nan is ignored.

    Returns
    -------
    tuple of Cluster
        In ascending order, with at least 2 % of the runs each. Peaks are joined where the density
        between them exceeds half of the lower one.
    """
    from scipy.signal import find_peaks
    from scipy.stats import binomtest

    finite = logs[np.isfinite(logs)]
    x, y = density(finite)
    peaks = find_peaks(np.concatenate([[0.0], y, [0.0]]))[0] - 1
    while True:
        cuts = np.array([a + int(np.argmin(y[a:b])) for a, b in pairwise(peaks)], int)
        edges = np.array([-np.inf, *x[cuts], np.inf])
        counts = np.histogram(finite, edges)[0]
        if len(peaks) == 1:
            break
        lower = np.minimum(y[peaks[:-1]], y[peaks[1:]])
        shallow = int(np.argmax(y[cuts] / lower))
        if y[cuts[shallow]] > _DEPTH * lower[shallow]:
            left = y[peaks[shallow]] < y[peaks[shallow + 1]]
            peaks = np.delete(peaks, shallow if left else shallow + 1)
        elif counts.min() < _LEAST_SHARE * len(finite):
            peaks = np.delete(peaks, int(np.argmin(counts)))
        else:
            break
    names = ["low", *["middle"] * (len(peaks) - 2), "high"][: len(peaks)]
    found = []
    for name, peak, left, right, count in zip(names, peaks, edges, edges[1:], counts, strict=False):
        interval = binomtest(int(count), len(finite)).proportion_ci(method="wilson")
        share = count / len(finite)
        found.append(
            Cluster(
                name if len(peaks) > 1 else "all", float(x[peak]), float(left), float(right),
                int(count), float(share), float(interval.low), float(interval.high),
            )
        )  # fmt: skip
    return tuple(found)


def density(values: Floats, points: int = 800) -> tuple[Floats, Floats]:
    """Estimate the density of values with the bandwidth that clusters are found with.

    Parameters
    ----------
    values : (runs,) array
        Finite values.
    points : int, default 800
        Number of points of the estimate.

    Returns
    -------
    x, y : (points,) array
        Positions and density, in one over the unit of `values`.
    """
    from scipy.stats import gaussian_kde

    room = 3.0 * _BANDWIDTH * float(values.std())
    x = np.linspace(values.min() - room, values.max() + room, points)
    y: Floats = gaussian_kde(values, _BANDWIDTH)(x)
    return x, y


def run_ensembles(task: Task, *, runs: int = RUNS, n_steps: int = N_STEPS) -> tuple[Ensemble, ...]:
    """Compute all exponents of both activations from both initialisations.

    Parameters
    ----------
    task : Task
        Folder of the stored runs, and seed.
    runs : int, default 4000
        Runs of each activation and initialisation.
    n_steps : int, default 5000
        Steps of a run, a multiple of 50.

    Returns
    -------
    tuple of Ensemble
        ReLU and tanh from He weights, then from wide-range weights.
    """
    found = []
    for kind in INITIALISATIONS:
        study = exponents_study(kind, runs=runs, n_steps=n_steps, seed=task.seed)
        data = _stored(task, study, f"exponents-{kind.key}-{runs}x{n_steps}")
        for i, activation in enumerate(ACTIVATIONS):
            names = ("growth", "loss", "exponents", "state", "final_loss")
            arrays = {name: np.asarray(data[name][i].values) for name in names}
            system, start = study.system((i,)), study.weights((i,), 0, runs)
            found.append(Ensemble(kind, activation, system, start, **arrays))
    return tuple(found)


def run_vectors(
    some: Sequence[Ensemble],
    task: Task,
    *,
    runs: int = 800,
    n_steps: int = 4800,
    n_tail: int = 200,
    every: int = 100,
) -> tuple[Vectors, ...]:
    """Compute the angles between covariant vectors along training.

    Parameters
    ----------
    some : sequence of Ensemble
        Result of `run_ensembles`.
    task : Task
        Folder of the stored results, and seed.
    runs : int, default 800
        Runs of each ensemble.
    n_steps, n_tail, every : int, default 4800, 200 and 100
        Steps of the window, steps after it, and steps between records.

    Returns
    -------
    tuple of Vectors
        One for each ensemble.
    """
    found = []
    for ensemble in some:
        i = ACTIVATIONS.index(ensemble.activation)
        sizes: dict[str, Any] = {"n_steps": n_steps, "n_tail": n_tail, "every": every}
        study = vectors_study(ensemble.kind, runs=runs, seed=task.seed, **sizes)
        data = _stored(task, study, f"vectors-{ensemble.kind.key}-{runs}x{n_steps}")
        steps, angles = np.asarray(data["time"].values), np.asarray(data["angles"][i].values)
        errors = np.nanmedian(data["local_contamination"][i].values, axis=0)
        found.append(Vectors(ensemble, steps, _of_pairs(angles), errors))
    return tuple(found)


def run_early_vectors(
    some: Sequence[Ensemble],
    task: Task,
    *,
    runs: int = 800,
    n_steps: int = 1000,
    n_tail: int = 200,
    delay: int = 100,
) -> tuple[EarlyVectors, ...]:
    """Compute the angles between covariant vectors that are known a delay later.

    Parameters
    ----------
    some : sequence of Ensemble
        Result of `run_ensembles`.
    task : Task
        Folder of the stored results, and seed.
    runs : int, default 800
        Runs of each ensemble.
    n_steps, n_tail : int, default 1000 and 200
        Steps of the window and after it.
    delay : int, default 100
        Steps from a record to the time at which its vectors are known.

    Returns
    -------
    tuple of EarlyVectors
        One for each ensemble.
    """
    found = []
    for ensemble in some:
        i = ACTIVATIONS.index(ensemble.activation)
        sizes: dict[str, Any] = {"n_steps": n_steps, "n_tail": n_tail, "delay": delay}
        study = early_vectors_study(ensemble.kind, runs=runs, seed=task.seed, **sizes)
        data = _stored(task, study, f"early-{ensemble.kind.key}-{runs}x{n_steps}")
        steps, error = np.asarray(data["time"].values), np.asarray(data["early_error"][i].values)
        coefficients = data["early_coefficients"][i].values
        by_time = [  # a record at a time: all pairs of all records take much memory
            _of_pairs(_angles(coefficients[:, t])) for t in range(len(steps))
        ]
        angles = {
            name: np.stack([record[name] for record in by_time], axis=1) for name in by_time[0]
        }
        found.append(EarlyVectors(ensemble, delay, steps, angles, error))
    return tuple(found)


def _of_pairs(angles: Floats) -> dict[str, Floats]:
    """Some of the angles (..., 78) of all pairs, and the smallest of all."""
    found = {name: angles[..., pair(*both)].copy() for name, both in PAIRS.items()}
    found[SMALLEST] = angles.min(axis=-1)
    return found


def _angles(C: Floats) -> Floats:
    """(runs, pairs) angles between unit columns of C (runs, k, k), as `CovariantVectors.angles`."""
    first, second = np.triu_indices(C.shape[-1], 1)
    a, b = C[..., first], C[..., second]
    along = (a * b).sum(axis=-2)
    across = np.linalg.norm(a - along[..., np.newaxis, :] * b, axis=-2)
    result: Floats = np.arctan2(across, np.abs(along))
    return result


def _stored(task: Task, study: Study, name: str) -> Any:
    """The results of a study, computed as far as they are not in the folder."""
    task.folder.mkdir(parents=True, exist_ok=True)
    folder = task.folder / f"{name}-seed{task.seed}"
    return run_study(study, folder, workers=task.threads, progress=task.progress)
