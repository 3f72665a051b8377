"""The experiments, at their published sizes by default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylyap import _checks, datasets
from pylyap._parameters import parameter_mask
from pylyap._perturbations.comparison import GrowthComparison, compare_growth
from pylyap._perturbations.ensembles import Ensemble, perturbation_ensemble
from pylyap._perturbations.series import (
    Autocorrelation,
    ExpansionRates,
    autocorrelation,
    expansion_rates,
)
from pylyap._tangent.exponents import Spectrum, lyapunov_spectrum
from pylyap._weights.travel import Travel, knock_out, travel
from pylyap.maps import DiscreteMap, TrainingMap
from pylyap.network import Network
from pylyap.optimizers import GradientDescent
from pylyap.regimes import LearningRateScan, learning_rate_scan

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# The first seed with which 120 flowers are 40, 39 and 41 of the three species, as in the study.
SPLIT_SEED = 2
N_TRAIN = 120

SIZES = tuple(float(f"1e{power}") for power in range(-15, -1))
EDGE_SIZES = tuple(float(f"1e{power}") for power in range(-14, 0))


@dataclass(frozen=True)
class Task:
    """What all experiments share: flowers, network, and where runs and perturbations start.

    Attributes
    ----------
    split_seed
        Of the choice of 120 flowers for training. Assumed: which ones the study took is not known.
    seed
        Of initial weights, perturbations and everything else that is random. Run i starts from the
        same weights in all experiments.
    threads, progress
        As in `perturbation_ensemble`.
    """

    split_seed: int = SPLIT_SEED
    seed: int = 0
    threads: int | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        for name in ("split_seed", "seed"):  # used more than once
            object.__setattr__(self, name, _checks.reusable_seed(getattr(self, name), name))

    @cached_property
    def flowers(self) -> tuple[Floats, Integers, Floats, Integers]:
        """Lengths and species of 120 flowers to learn, and of 30 to test."""
        return datasets.split(*datasets.iris(), N_TRAIN, seed=self.split_seed)

    @cached_property
    def network(self) -> Network:
        return Network((4, 10, 3), activation="sigmoid", loss="cross_entropy")

    @cached_property
    def weights(self) -> NDArray[np.bool_]:
        """(83,) which parameters are connections: N = 70, the others are biases."""
        return parameter_mask(self.network, "weights")

    @property
    def n_weights(self) -> int:
        return int(self.weights.sum())

    def system(self, lr: float) -> TrainingMap:
        X, y, _, _ = self.flowers
        return TrainingMap(self.network, X, y, GradientDescent(lr=lr))

    def start(self, runs: int) -> Floats:
        """(runs, 83) initial weights N(0, 1), biases 0."""
        return self.network.init("normal", runs=runs, seed=self.seed)


PUBLISHED = Task()


@dataclass(frozen=True, eq=False)
class Perturbed:
    """Runs, and copies of them whose weights were perturbed.

    Attributes
    ----------
    task
        Flowers and network.
    lr
        Learning rate.
    eps : (n_eps,)
        Sizes: each of the N weights gets up to so much, evenly in both directions.
    ensemble : Ensemble
        Distances (runs, n_eps, copies, T + 1), L1 over all parameters.
    """

    task: Task
    lr: float
    eps: Floats
    ensemble: Ensemble = field(repr=False)

    @property
    def steps(self) -> Integers:
        """(T + 1,) step of each record."""
        return self.ensemble.steps

    @cached_property
    def loss(self) -> Floats:
        """(runs, T + 1) of the runs themselves."""
        assert self.ensemble.losses is not None
        loss: Floats = self.ensemble.losses[:, 0, 0]
        return loss

    @cached_property
    def mean(self) -> Floats:
        """(runs, n_eps, T + 1) mean distance of the copies."""
        return self.ensemble.mean

    @cached_property
    def scaled(self) -> Floats:
        """(runs, n_eps, T + 1) d/(eps N)."""
        result: Floats = self.mean / (self.eps[:, np.newaxis] * self.task.n_weights)
        return result


@dataclass(frozen=True, eq=False)
class LowRate(Perturbed):
    """Runs that learn slowly, with their copies.

    Attributes
    ----------
    displacement : (runs, n_eps, copies)
        Σ|w(T) − w(0)| / Σ|w(0)| of each copy, over the N weights.
    travel : Travel
        Of the runs: displacements, path lengths and norm of the N weights.
    final : (runs, 83)
        Parameters in the end.
    knock_out : (runs, 10, 4)
        Loss in the end without each weight of the first layer, over the loss with it.
    """

    displacement: Floats = field(repr=False)
    travel: Travel = field(repr=False)
    final: Floats = field(repr=False)
    knock_out: Floats = field(repr=False)


@dataclass(frozen=True, eq=False)
class Trained:
    """Runs at one learning rate.

    Attributes
    ----------
    lr
        Learning rate.
    steps : (T + 1,)
        Of each record.
    loss, norm : (runs, T + 1)
        Loss, and Σ|w| over the N weights.
    scan : LearningRateScan
        Of shape (1, runs): exponents, periods and regimes of the late window.
    output_spread : (runs,)
        Largest difference in a probability between two flowers, in the end.
    units_on : (runs,)
        Hidden units above 1/2 for all flowers, in the end.
    """

    lr: float
    steps: Integers = field(repr=False)
    loss: Floats = field(repr=False)
    norm: Floats = field(repr=False)
    scan: LearningRateScan = field(repr=False)
    output_spread: Floats = field(repr=False)
    units_on: Integers = field(repr=False)

    @property
    def exponent(self) -> Floats:
        """(runs,) leading exponent of the late window, nats per step."""
        exponent: Floats = self.scan.exponent[0]
        return exponent


@dataclass(frozen=True, eq=False)
class ChaoticSeries:
    """One long run.

    Attributes
    ----------
    lr
        Learning rate.
    run
        Which of the runs: that of the largest late exponent.
    start
        First step of the series that is analysed.
    loss : (T + 1,)
        Loss at each step.
    names : (2,)
        Of each layer the weight whose steps are the largest (median) from `start` on.
    weights : (2, T + 1)
        Their course.
    autocorrelation : Autocorrelation
        Of the loss from `start` on.
    published : ExpansionRates
        Of the same series: no Theiler window, the line of largest R².
    corrected : ExpansionRates
        Returns within `theiler` steps left out, lines over ten steps, logarithms averaged.
    theiler
        Steps.
    tangent : Spectrum
        Leading exponent over the same steps.
    units_on
        Hidden units above 1/2 for all flowers at the last step.
    reduced
        Exponent of `saturated_map` with so many units, nats per step.
    """

    lr: float
    run: int
    start: int
    loss: Floats = field(repr=False)
    names: tuple[str, ...]
    weights: Floats = field(repr=False)
    autocorrelation: Autocorrelation = field(repr=False)
    published: ExpansionRates = field(repr=False)
    corrected: ExpansionRates = field(repr=False)
    theiler: int
    tangent: Spectrum = field(repr=False)
    units_on: int
    reduced: float


def low_rate(
    task: Task = PUBLISHED,
    *,
    runs: int = 10,
    copies: int = 20,
    n_steps: int = 5000,
    eps: Sequence[float] = SIZES,
    record_every: int = 10,
) -> LowRate:
    """Training that settles (lr 0.01), perturbed before the first step.

    `record_every` thins what is drawn; path lengths count every step.
    """
    system, start = task.system(0.01), task.start(runs)
    shape = (runs, task.network.n_params, copies)
    unit = np.random.default_rng(task.seed).uniform(-1.0, 1.0, shape)
    found = _copies(
        task, 0.01, runs, copies, n_steps, eps, record_every, distribution=unit, states=True
    )
    last, chosen = found.ensemble.states, task.weights
    assert last is not None
    apart = found.eps[:, np.newaxis, np.newaxis] * unit.swapaxes(1, 2)[:, np.newaxis]
    first = (start[:, np.newaxis, np.newaxis] + apart)[..., chosen]
    moved = np.abs(last[..., chosen] - first)
    final = system.trajectory(start, n_steps, every=n_steps, threads=task.threads)[:, -1]
    return LowRate(
        task=task,
        lr=0.01,
        eps=found.eps,
        ensemble=found.ensemble,
        displacement=moved.sum(axis=-1) / np.abs(first).sum(axis=-1),
        travel=travel(system, start, n_steps, record_every, "weights", threads=task.threads),
        final=final,
        knock_out=knock_out(system, final),
    )


def long_run(
    task: Task = PUBLISHED,
    *,
    runs: int = 3,
    copies: int = 20,
    n_steps: int = 50_000,
    eps: float = 1e-8,
    record_every: int = 50,
) -> Perturbed:
    """The same for ten times as long."""
    return _copies(task, 0.01, runs, copies, n_steps, [eps], record_every)


def after_learning(
    task: Task = PUBLISHED,
    *,
    runs: int = 10,
    copies: int = 20,
    start: int = 4000,
    n_steps: int = 1000,
    eps: Sequence[float] = SIZES,
    record_every: int = 10,
) -> Perturbed:
    """Training that settles (lr 0.01), perturbed once it has."""
    return _copies(task, 0.01, runs, copies, n_steps, eps, record_every, start=start)


def edge(
    task: Task = PUBLISHED,
    *,
    runs: int = 4,
    copies: int = 5,
    n_steps: int = 5000,
    eps: float = 1e-8,
) -> Perturbed:
    """Training at the edge of stability (lr 1), perturbed before the first step."""
    return _copies(task, 1.0, runs, copies, n_steps, [eps])


def edge_growth(
    task: Task = PUBLISHED,
    *,
    runs: int = 500,
    copies: int = 5,
    n_steps: int = 200,
    eps: Sequence[float] = EDGE_SIZES,
) -> GrowthComparison:
    """Rates at which such perturbations grow in the first steps, and the tangent exponent."""
    return compare_growth(
        task.system(1.0),
        task.start(runs),
        eps,
        copies,
        n_steps,
        threads=task.threads,
        progress=task.progress,
        seed=task.seed,
    )


def chaotic(
    task: Task = PUBLISHED, *, runs: int = 20, n_steps: int = 10_000, n_late: int = 2000
) -> Trained:
    """Training at lr 5. Exponents and regimes are those of the last `n_late` steps."""
    return _train(task, 5.0, runs, n_steps, n_late)


def chaotic_series(
    trained: Trained,
    task: Task = PUBLISHED,
    *,
    n_steps: int = 45_000,
    start: int = 3000,
    max_lag: int = 100,
    n_shuffles: int = 1000,
    n_points: int = 1000,
    radius: float = 5e-5,
    theiler: int = 100,
) -> ChaoticSeries:
    """The run with the largest late exponent of those `trained`, for longer.

    At lr 5 most runs end in exact cycles or on a plateau; this rule picks a chaotic one, if any is,
    without a look at what follows.
    """
    run = int(np.nanargmax(trained.exponent))
    system = task.system(trained.lr)
    path = system.trajectory(task.start(len(trained.loss))[run], n_steps, threads=task.threads)
    loss, late = system.loss(path), path[start:]
    names, weights = [], []
    pace = np.median(np.abs(np.diff(late, axis=0)), axis=0)
    for i, (W, _) in enumerate(task.network.unpack(np.arange(float(system.n)))):
        row, column = divmod(int(pace[W.astype(int)].argmax()), W.shape[1])
        names.append(f"$W_{i + 1}$[{row + 1}, {column + 1}]")
        weights.append(path[:, int(W[row, column])])
    probability, units_on = _outputs(task, path[-1])
    outputs = np.log(probability.mean(axis=0))
    reduced = lyapunov_spectrum(
        saturated_map(task, trained.lr, int(units_on)), outputs, n_steps - start, 1
    )
    return ChaoticSeries(
        lr=trained.lr,
        run=run,
        start=start,
        loss=loss,
        names=tuple(names),
        weights=np.array(weights),
        autocorrelation=autocorrelation(loss[start:], max_lag, n_shuffles, seed=task.seed),
        published=expansion_rates(loss[start:], radius, n_points, seed=task.seed),
        corrected=expansion_rates(
            loss[start:],
            radius,
            n_points,
            theiler=theiler,
            window=10,
            geometric=True,
            seed=task.seed,
        ),
        theiler=theiler,
        tangent=lyapunov_spectrum(system, path[0], n_steps - start, 1, start, seed=task.seed),
        units_on=int(units_on),
        reduced=float(reduced.exponents[0]),
    )


def saturated_map(task: Task, lr: float, units_on: int) -> DiscreteMap:
    """Gradient descent of a network that tells no flower from another, as a map of its outputs:
    z ← z − lr (1 + K) (softmax(z) − f), with shares f of the species and K hidden units on.

    That is what remains where each hidden unit is saturated, off or on, for all flowers: the biases
    of the outputs and the weights from the units that are on all have the gradient softmax(z) − f.
    """
    share = np.bincount(task.flowers[1], minlength=3) / N_TRAIN
    rate = lr * (1 + units_on)

    def softmax(z: Floats) -> Floats:
        odds = np.exp(z - z.max())
        p: Floats = odds / odds.sum()
        return p

    def step(z: Floats) -> Floats:
        after: Floats = z - rate * (softmax(z) - share)
        return after

    def jacobian(z: Floats) -> Floats:
        p = softmax(z)
        J: Floats = np.eye(3) - rate * (np.diag(p) - np.outer(p, p))
        return J

    return DiscreteMap(step, jacobian, 3)


def other_rates(
    task: Task = PUBLISHED,
    *,
    lrs: Sequence[float] = (2.0, 3.0, 10.0),
    runs: int = 20,
    n_steps: int = 2000,
    n_late: int = 500,
) -> list[Trained]:
    """Training at other rates. How many runs the study made is not known; it shows four of each."""
    return [_train(task, lr, runs, n_steps, n_late) for lr in lrs]


def _copies(
    task: Task,
    lr: float,
    runs: int,
    copies: int,
    n_steps: int,
    eps: Sequence[float],
    record_every: int = 1,
    **options: Any,
) -> Perturbed:
    found = perturbation_ensemble(
        task.system(lr),
        task.start(runs),
        eps,
        copies,
        n_steps,
        perturb="weights",
        record_every=record_every,
        losses=True,
        threads=task.threads,
        progress=task.progress,
        seed=task.seed,
        norm="l1",
        **options,
    )
    return Perturbed(task, lr, np.asarray(eps), found)


def _train(task: Task, lr: float, runs: int, n_steps: int, n_late: int) -> Trained:
    system, start = task.system(lr), task.start(runs)
    common: dict[str, Any] = {"threads": task.threads, "progress": task.progress}
    course = lyapunov_spectrum(system, start, n_steps, 1, **common)
    scan = learning_rate_scan(
        task.network,
        system.X,
        system.y,
        [lr],
        n_steps,
        w0=start,
        n_late=n_late,
        n_perturbations=0,
        seed=task.seed,
        **common,
    )
    probability, units_on = _outputs(task, course.state)
    return Trained(
        lr=lr,
        steps=np.arange(n_steps + 1),
        loss=course.loss,
        norm=travel(system, start, n_steps, entries="weights", threads=task.threads).norm,
        scan=scan,
        output_spread=np.ptp(probability, axis=-2).max(axis=-1),
        units_on=units_on,
    )


def _outputs(task: Task, state: Floats) -> tuple[Floats, Integers]:
    """Probabilities (..., 120, 3) of the species, and how many hidden units (...) are on."""
    X = task.flowers[0]
    W, b = task.network.unpack(state)[0]
    on = (X @ np.swapaxes(W, -1, -2) + b[..., np.newaxis, :] > 0).all(axis=-2)
    return task.network.predict(state, X), on.sum(axis=-1)


def nearest(sizes: Floats, eps: float) -> int:
    """Index of the size that is nearest to `eps`, in proportion."""
    return int(np.abs(np.log(sizes / eps)).argmin())
