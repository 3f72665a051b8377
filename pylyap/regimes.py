"""What a learning rate makes of training: it settles, rides the edge, cycles, or goes astray."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._errors import ArgumentError, ArgumentTypeError
from pylyap._labelled import dataset_class
from pylyap._parallel import ProgressBar
from pylyap._perturbations.ensembles import perturbation_ensemble
from pylyap._perturbations.growth import growth_rate
from pylyap._perturbations.series import find_period
from pylyap._statistics import batch_means, fit_lines
from pylyap._tangent.exponents import lyapunov_spectrum
from pylyap._tangent.sharpness import sharpness_along
from pylyap.maps import TrainingMap
from pylyap.network import INITIALISERS, Network
from pylyap.optimizers import GradientDescent, Optimizer, require_optimizer

if TYPE_CHECKING:
    import xarray

Integers = NDArray[np.int64]

REGIMES = ("convergent", "edge of stability", "periodic", "chaotic", "divergent", "undecided")

_AT_ONCE = 2e8  # bytes of history that are kept at a time
_STATES = 12  # last states whose sharpness is averaged: whole cycles of 2, 3, 4, 6 and 12 steps
_GROWTH = 200  # steps at most over which perturbations grow
_ROUNDING = 1e-12  # of a loss: less is no rise
_NOTHING = 1e-26  # of the first loss: so little is left when residuals are rounding errors alone

# Sustained growth: see `_Growth`.
_BLOCKS = 16  # at most, of the window, of 4 steps at least
_GROWS = 1e-3  # nats over the window: less is a cycle that goes round the same states
_ALIGNED = 1.0  # nats over the window, of which tangent vectors may fall short until they align
_STRAIGHT = 0.9  # r² of the line through the blocks
_KEPT = 0.5  # of its slope, in the last quarter of the blocks
_SCATTER = 2.0  # standard errors that this slope may lack


@dataclass(frozen=True)
class RegimeRule:
    """How the last steps of a run (its late window) get a label. The first that holds counts:

    1. **divergent**: the run diverged, or its loss is above `escape` times the first, or the orbit
       grows exponentially across the window, however slowly, as a linear map's does:

       - its motion, the root mean square of the second differences of the weights along a random
         direction in up to 16 blocks of the window, grows: a straight line through its logarithms
         rises by at least 1e-3 nats over the window, with r² of at least 0.9;
       - growth does not level off within the window: the slope of the last quarter of the blocks
         is at least half of the whole one, or within two standard errors of that;
       - the mean loss of the last quarter of the window is above that of the first;
       - perturbations grow as the orbit does: exponent and slope agree within a factor of 2 or
         `errors` standard errors. (The exponent may fall short by another nat over the window,
         until the tangent vector has aligned.)
    2. **chaotic**: the leading exponent of the window is above `exponent` and above `errors`
       times its standard error, and the orbit is bounded and moves on: the first three points above
       do not hold, the line rises at less than half the rate of perturbations, and the loss rises
       in some steps and does not rest.
    3. **periodic**: the loss does not fall from the first to the last quarter of the window by more
       than the share `fall` and is more than rounding of the first loss, and the weights, seen
       along a random direction, have a period of 2 or more (`find_period` with `tol` and
       `max_period`) that neither grows (the first three points above) nor dies: steps in the last
       quarter are at least half as long as in the first, and the motion does not shrink as steadily
       as it grows under 1.
    4. The loss rises in at most the share `rises` of the window's steps, or rests (in the last
       quarter its deviation is below `rest` of it): **edge of stability** if the sharpness has
       reached the share `edge` of what the step bears (lr·λ/2 for plain gradient descent),
       **convergent** otherwise.
    5. The loss rises in more of them, and still falls: **edge of stability** if the sharpness is
       there (or not known, as for Adam); **convergent** if it is not and the oscillation, of
       momentum say, dies: its deviation halves, and no cycle goes on in the last quarter.
    6. **undecided**: it neither settles nor cycles, and is not surely chaotic; it changes its
       course within the window, for example.

    Where the boundaries lie is our choice: sharp numbers for what changes gradually. A window of
    some tens of steps may lie within a burst at the edge of stability, which grows exponentially
    before it saturates; windows of hundreds of steps tell the two apart.
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

    def periods(self, late: Floats) -> Integers:
        """Periods (...) of late (..., n_late + 1), 0 for an oscillation that dies."""
        late = _checks.floats("late", late, finite=False)
        try:
            period = find_period(late, self.max_period, self.tol)
        except ValueError as error:
            raise ArgumentError("late", f"must be a series: {error}") from None
        with np.errstate(invalid="ignore", divide="ignore"):
            scale = 2.0 * np.abs(late).max(axis=-1, keepdims=True)  # differences do not overflow
            pace = np.diff(late / scale, axis=-1) ** 2
            quarter = pace.shape[-1] // 4
            dies = 4.0 * pace[..., -quarter:].mean(axis=-1) < pace[..., :quarter].mean(axis=-1)
        return np.where((period > 1) & dies, 0, period)

    def labels(
        self,
        first_loss: Floats,
        loss: Floats,
        weights: Floats,
        exponent: Floats,
        stderr: Floats,
        ratio: Floats,
    ) -> NDArray[np.str_]:
        """Labels (...) from the loss at the start (...), to tell rounding from motion, and what the
        late window shows: loss and the weights along a direction (..., n_late + 1), and what is
        measured (...)."""
        quarter = (loss.shape[-1] - 1) // 4
        period = self.periods(weights)
        cycles = self.periods(weights[..., -max(quarter, 8) :]) >= 2
        size = quarter - quarter % np.maximum(period, 1)  # whole periods, or means differ by chance
        index = np.arange(loss.shape[-1])
        first = _moments(loss, index < size[..., np.newaxis])
        last = _moments(loss, index >= loss.shape[-1] - size[..., np.newaxis])
        nothing = _NOTHING * np.abs(first_loss)
        motion = _growth_of_motion(weights)
        share = _rises(loss, first_loss)
        with np.errstate(invalid="ignore"):
            rests = last[1] < self.rest * np.abs(last[0]) + nothing
            smooth, hardly = (share <= self.rises) | rests, np.abs(last[0]) <= nothing
            edge, falls = ratio >= self.edge, first[0] - last[0] > self.fall * np.abs(first[0])
            rises = last[0] - first[0] > _ROUNDING * np.abs(first[0]) + nothing
            grows = motion.sustained & rises
            error = self.errors * np.where(stderr > 0, stderr, 0.0)
            alike = exponent <= 2.0 * motion.rate + error
            steps = loss.shape[-1] - 1
            alike &= motion.total <= np.fmax(2.0 * steps * (exponent + error), 0.0) + _ALIGNED
            far = ~(np.abs(loss[..., -1]) <= self.escape * np.abs(first_loss))
            unstable = (exponent > self.exponent) & (exponent > self.errors * stderr)
            slower = ~(2.0 * motion.rate >= exponent)  # also where nothing moves
            rules = {
                "divergent": far | (grows & alike),
                "chaotic": unstable & slower & ~grows & ~rests & (share > 0.0),
                "periodic": (period >= 2) & ~falls & ~(grows | motion.dying | hardly),
                "edge of stability": (smooth & edge) | (~smooth & falls & (edge | np.isnan(ratio))),
                "convergent": smooth | (falls & (2.0 * last[1] < first[1]) & ~cycles),
            }
        labels: NDArray[np.str_] = np.select(list(rules.values()), list(rules), "undecided")
        return labels


@dataclass(frozen=True, eq=False)
class LearningRateScan:
    """Runs from the same initial weights at several learning rates. The late window is the last
    `n_late` steps.

    Attributes
    ----------
    lr : (n_lr,)
        Learning rates.
    loss : (n_lr, n_runs)
        Mean loss of the whole data after the last step; nan for a run that diverged.
    accuracy : (n_lr, n_runs)
        Share of the samples classified rightly then; nan for a regression.
    exponent, stderr : (n_lr, n_runs)
        Leading Lyapunov exponent of the late window and its standard error, nats per step.
    growth : (n_lr, n_runs)
        Rate at which small perturbations of the weights, made as the late window begins, grow until
        they saturate, nats per step; nan if there are none.
    sharpness : (n_lr, n_runs)
        The largest Hessian eigenvalue over what the step bears (lr·λ/2 for plain gradient descent),
        mean over the last 12 states; nan for Adam.
    non_monotone : (n_lr, n_runs)
        Share of all steps in which the loss rises.
    period : (n_lr, n_runs)
        With which the weights, seen along a random direction, go round in the late window: 1 where
        they rest or drift, 0 where there is none or it dies.
    regime : (n_lr, n_runs)
        One of `REGIMES`; see `RegimeRule`.
    late_loss : (n_lr, n_runs, n_late + 1)
        Losses of the late window: a bifurcation diagram against lr.
    late_weight : (n_lr, n_runs, n_late + 1) or None
        The weight that was asked for, likewise.
    steps : (n_late + 1,)
        Index of the step of each.
    settings
        What was asked for.
    """

    lr: Floats
    loss: Floats
    accuracy: Floats
    exponent: Floats
    stderr: Floats
    growth: Floats
    sharpness: Floats
    non_monotone: Floats
    period: Integers
    regime: NDArray[np.str_]
    late_loss: Floats = field(repr=False)
    late_weight: Floats | None = field(repr=False)
    steps: Integers = field(repr=False)
    settings: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def share(self) -> dict[str, Floats]:
        """Share of the runs in each regime, (n_lr,) under each name."""
        return {name: (self.regime == name).mean(axis=1) for name in REGIMES}

    @property
    def diverged(self) -> Floats:
        """(n_lr,) share of the runs that are divergent."""
        return self.share["divergent"]

    def to_dataset(self) -> xarray.Dataset:
        """An xarray Dataset with labelled dimensions; units and settings in attributes.

        Raises ImportError, with the command that helps, if xarray is not installed.
        """
        dataset = dataset_class()
        rate = {"units": "nats per step"}
        units = {"exponent": rate, "stderr": rate, "growth": rate, "period": {"units": "steps"}}
        dimensions = ["lr", "run", "time"]
        variables: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, np.ndarray) and value.ndim > 1:
                attributes = units.get(item.name, {})
                variables[item.name] = (dimensions[: value.ndim], value, attributes)
        coordinates = {"lr": ("lr", self.lr), "time": ("time", self.steps, {"units": "steps"})}
        return dataset(variables, coordinates, attrs=dict(self.settings))


def learning_rate_scan(
    network: Network,
    X: ArrayLike,
    y: ArrayLike,
    lrs: ArrayLike,
    n_steps: int = 2000,
    *,
    runs: int = 20,
    init: str = "glorot_uniform",
    w0: ArrayLike | None = None,
    n_late: int | None = None,
    optimizer: Optimizer | None = None,
    n_perturbations: int = 5,
    eps: float = 1e-8,
    observe: int | None = None,
    rule: RegimeRule | None = None,
    threads: int | None = None,
    progress: bool = False,
    seed: Any = 0,
    first_run: int = 0,
) -> LearningRateScan:
    """Train many runs at each of several learning rates, and say what becomes of them.

    Parameters
    ----------
    network, X, y
        As in `TrainingMap`.
    lrs : (n_lr,) array
        Learning rates, above 0.
    n_steps
        Steps of each run, 40 at least.
    runs, init
        Number of initial weights and how they are drawn, as in `Network.init`; the same for all
        rates.
    w0 : (n_runs, n_params) array
        Initial weights of one's own instead.
    n_late
        Steps of the late window, 20 at least; a quarter of `n_steps` (at least 20) by default.
    optimizer
        Plain gradient descent by default. Its learning rate does not count; momentum and weight
        decay are numbers.
    n_perturbations, eps
        Copies of each run and size of the uniform perturbations of their weights that measure
        growth; 0 copies for none.
    observe
        Index of a parameter to record through the late window.
    rule
        Thresholds of the regimes.
    threads, progress
        As in `lyapunov_spectrum`.
    seed
        Of initial weights, tangent vectors and perturbations.
    first_run
        Number of the first run of `w0`, where it is a block of more: its perturbations are those
        of this number.

    Returns
    -------
    LearningRateScan

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range or the late window of all runs would not fit in memory.

    References
    ----------
    Danovski, Soriano, Lacasa, Front. Complex Syst. 2, 1367957 (2024). Cohen et al., ICLR (2021), on
    the edge of stability.
    """
    rates = _checks.floats("lrs", lrs)
    if rates.ndim != 1 or rates.size == 0 or (rates <= 0).any():
        raise ArgumentError(
            "lrs",
            f"must have shape (n_lr,) with rates above 0, got shape {rates.shape}"
            + (f" and {rates.min()}" if rates.size else ""),
        )
    n_steps = _checks.integer("n_steps", n_steps, least=40)
    if n_late is None:
        n_late = max(20, n_steps // 4)
    n_late = _checks.integer("n_late", n_late, least=20, most=n_steps)
    n_perturbations = _checks.integer("n_perturbations", n_perturbations, least=0)
    eps = _checks.real("eps", eps, above=0.0)
    first_run = _checks.integer("first_run", first_run, least=0)
    rule = RegimeRule() if rule is None else rule
    if not isinstance(rule, RegimeRule):
        raise ArgumentTypeError("rule", f"must be a RegimeRule, got {_checks.describe(rule)}")
    _checks.flag("progress", progress)
    seed = _checks.reusable_seed(seed)  # used more than once
    template = _template(optimizer)
    # Blocks of runs have optimisers of their own, which share one table of factors.
    scheduled = replace(template, lr=1.0, schedule=template._factors(0, n_steps))
    system = TrainingMap(network, X, y, scheduled)
    if observe is not None:
        observe = _checks.integer("observe", observe, least=0, most=network.n_params - 1)
    if w0 is None:
        _checks.choice("init", init, INITIALISERS)
        start = network.init(init, runs=_checks.integer("runs", runs, least=1), seed=seed)
    else:
        start = _checks.floats("w0", w0)
    if start.ndim != 2 or start.shape[1] != network.n_params:
        raise ArgumentError(
            "w0", f"must have shape (n_runs, {network.n_params}), got {start.shape}"
        )
    count = rates.size * len(start)
    kept = 8.0 * (n_late + 1) * (1 + (observe is not None))
    _checks.memory(
        f"the late window (n_late={n_late} of n_steps={n_steps}) of {count} runs, with "
        f"n_perturbations={n_perturbations} of each",
        count * kept + 8.0 * n_perturbations * network.n_params,
        "take a smaller n_late= or fewer runs",
    )
    window = _Window(n_steps - n_late, n_late, observe, n_perturbations, eps, threads, seed)
    each = 16.0 * n_steps + 8.0 * (n_perturbations + _STATES) * system.n
    size = max(1, int(_AT_ONCE / each))
    parts = []
    with ProgressBar(count * n_steps, "scan", progress) as bar:
        for first in range(0, max(count, 1), size):
            which = np.arange(first, min(first + size, count))
            lr, run = rates[which // max(len(start), 1)], which % max(len(start), 1)
            block = TrainingMap(network, X, y, replace(scheduled, lr=lr if len(lr) else 1.0))
            parts.append(_measure(block, start[run], first_run + run, window, bar))
    found: dict[str, Any] = {
        name: None if first is None else np.concatenate([part[name] for part in parts])
        for name, first in parts[0].items()
    }
    first, projection = found.pop("first_loss"), found.pop("projection")
    found["period"] = rule.periods(projection)
    measured = (found[name] for name in ("exponent", "stderr", "sharpness"))
    found["regime"] = rule.labels(first, found["late_loss"], projection, *measured)
    for name, values in found.items():
        if values is not None:
            found[name] = values.reshape(rates.size, len(start), *values.shape[1:])
    return LearningRateScan(
        lr=rates.copy(),
        **found,
        steps=np.arange(n_steps - n_late, n_steps + 1),
        settings={
            "network": repr(network),
            "samples": len(system.X),
            "optimizer": repr(template),
            "n_steps": n_steps,
            "n_late": n_late,
            "init": init if w0 is None else "given weights",
            "n_perturbations": n_perturbations,
            "eps": eps,
            "observe": -1 if observe is None else observe,
            "seed": repr(seed),
            "first_run": first_run,
        }
        | {f"rule_{name}": value for name, value in asdict(rule).items()},
    )


@dataclass(frozen=True)
class _Window:
    """What is measured, and when."""

    early: int  # steps before the late window
    late: int
    observe: int | None
    n_perturbations: int
    eps: float
    threads: int | None
    seed: Any


def _template(optimizer: Optimizer | None) -> Optimizer:
    if optimizer is None:
        return GradientDescent()
    require_optimizer(optimizer)
    for name in ("momentum", "weight_decay"):
        if np.ndim(getattr(optimizer, name)):
            raise ArgumentError("optimizer", f"must have one {name} for all runs, got an array")
    return optimizer


def _measure(
    system: TrainingMap, weights: Floats, run: Integers, window: _Window, bar: ProgressBar
) -> dict[str, Any]:
    """What is measured of runs (m, n_params), each with its own rate and number."""
    early, late, threads = window.early, window.late, window.threads
    s = lyapunov_spectrum(
        system, weights, early + late, 1, threads=threads, progress=bar, seed=window.seed
    )
    rates = s.growth[:, early:]
    begin = system.trajectory(weights, early, every=max(early, 1), threads=threads)[:, -1]
    projection, observed, near_end = _along(system, begin, window)
    ratio = sharpness_along(
        system, near_end, _STATES - 1, start=early + late - (_STATES - 1), threads=threads,
        seed=window.seed,
    ).ratio.mean(axis=1)  # fmt: skip
    accuracy = np.full(len(weights), np.nan)
    if system.network.classifies:
        accuracy = system.accuracy(s.state)
    return {
        "first_loss": s.loss[:, 0].copy(),
        "loss": s.loss[:, -1].copy(),
        "accuracy": accuracy,
        "exponent": rates.mean(axis=1)[:, 0],
        "stderr": batch_means(rates).stderr[:, 0],
        "growth": _growth(system, weights, run, window),
        "sharpness": ratio,
        "non_monotone": _rises(s.loss, s.loss[:, 0]),
        "late_loss": s.loss[:, early:].copy(),
        "late_weight": observed,
        "projection": projection,
    }


def _along(
    system: TrainingMap, states: Floats, window: _Window
) -> tuple[Floats, Floats | None, Floats]:
    """Through the late window, (m, n_late + 1): the weights along a random direction, and the one
    that is observed; and the states (m, n) from which the last ones follow."""
    n = system.n_params
    direction = np.random.default_rng(_checks.seed_sequence(window.seed)).standard_normal(n)
    shape = (len(states), window.late + 1)
    projection = np.empty(shape)
    observed = None if window.observe is None else np.empty(shape)
    piece = max(1, int(_AT_ONCE / (8.0 * max(1, len(states)) * system.n)))
    stop, near_end = window.late - (_STATES - 1), states
    done = 0
    while done < window.late:
        count = min(piece, window.late - done)
        if done < stop:
            count = min(count, stop - done)  # a piece ends where the last states begin
        path = system.trajectory(states, count, start=window.early + done, threads=window.threads)
        span = slice(done, done + count + 1)
        projection[:, span] = np.einsum("rti,i->rt", path[..., :n], direction)
        if observed is not None:
            observed[:, span] = path[..., window.observe]
        done, states = done + count, path[:, -1]
        near_end = states if done == stop else near_end
    return projection, observed, near_end


def _growth(system: TrainingMap, weights: Floats, run: Integers, window: _Window) -> Floats:
    """Growth of perturbations made at the start of the window, the same at every rate."""
    number, n = window.n_perturbations, system.n_params
    if number == 0:
        return np.full(len(weights), np.nan)
    seeds = _checks.seed_sequence(window.seed)
    unit = np.empty((len(run), n, number))
    for u, r in zip(unit, run, strict=True):
        u[:] = _checks.generator_of_run(seeds, r).uniform(-1.0, 1.0, (number, n)).T
    apart = perturbation_ensemble(
        system,
        weights,
        window.eps,
        number,
        min(_GROWTH, window.late),
        distribution=unit,
        perturb="weights",
        start=window.early,
        keep="mean",
        threads=window.threads,
    )
    return growth_rate(apart.mean, "until_saturation", axis=None).slope


def _moments(values: Floats, chosen: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Mean and deviation of the chosen of values (..., T)."""
    count = chosen.sum(axis=-1)
    with np.errstate(invalid="ignore", over="ignore"):
        mean = np.where(chosen, values, 0.0).sum(axis=-1) / count
        apart = np.where(chosen, values - mean[..., np.newaxis], 0.0)
        return mean, np.sqrt((apart**2).sum(axis=-1) / count)


@dataclass(frozen=True)
class _Growth:
    """How the size of the motion changes across the late window."""

    rate: Floats  # (...) slope of the line through its logarithms, nats per step
    total: Floats  # (...) over the window, nats
    sustained: NDArray[np.bool_]  # (...) whether it grows exponentially, up to the end
    dying: NDArray[np.bool_]  # (...) whether it shrinks so


def _growth_of_motion(along: Floats) -> _Growth:
    """Of weights along a direction (..., T + 1). Second differences, since a slow drift has small
    ones and an unstable oscillation has large ones."""
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
        # White scatter of the blocks, from second differences, which a smooth curve hardly has.
        scatter = np.sqrt((np.diff(size, 2, axis=-1) ** 2).mean(axis=-1) / 6.0)
        error = scatter / np.sqrt(((np.arange(tail) - (tail - 1) / 2.0) ** 2).sum())
        total = whole.slope * count
        straight, slack = whole.r2 >= _STRAIGHT, _SCATTER * error
        sustained = straight & (total >= _GROWS) & (end.slope >= _KEPT * whole.slope - slack)
        dying = straight & (total <= -_GROWS) & (end.slope <= _KEPT * whole.slope + slack)
    return _Growth(whole.slope / length, total, sustained, dying)


def _rises(loss: Floats, first: Floats) -> Floats:
    """Share of the steps in which losses (..., T + 1) rise, in runs whose first loss was (...); nan
    where they are."""
    with np.errstate(invalid="ignore"):
        floor = _NOTHING * np.abs(first[..., np.newaxis])
        up = np.diff(loss, axis=-1) > _ROUNDING * np.abs(loss[..., :-1]) + floor
    result: Floats = np.where(np.isnan(loss).any(axis=-1), np.nan, up.mean(axis=-1))
    return result
