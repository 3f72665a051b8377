"""Regimes of training: labels of a spectrum, and scans of the learning rate."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._batches import BatchResult
from pylyap._checks import Floats, Seed
from pylyap._errors import ArgumentError, ArgumentTypeError
from pylyap._labelled import dataset_class
from pylyap._parallel import progress_bar
from pylyap._regimes.measures import Window, measure
from pylyap._regimes.rule import REGIMES, RegimeRule
from pylyap._status import Status
from pylyap._tangent.exponents import Spectrum
from pylyap.maps import TrainingMap
from pylyap.network import INITIALISERS, Network
from pylyap.optimizers import GradientDescent, Optimizer, require_optimizer

if TYPE_CHECKING:
    import xarray

__all__ = [
    "REGIMES",
    "LearningRateScan",
    "RegimeRule",
    "learning_rate_scan",
    "spectrum_regime",
]

Integers = NDArray[np.int64]


def spectrum_regime(spectrum: Spectrum) -> NDArray[np.str_]:
    """Label each run of a spectrum by the significance of its leading exponent.

    The labels are

    diverged
        The run became non-finite.
    chaotic
        The leading exponent is above zero: perturbations grow.
    stable
        The leading exponent is below zero: perturbations shrink.
    marginal
        The sign of the leading exponent is not significant.

    An exponent is significant if it exceeds in absolute value two of its standard errors and
    (1 + ½ ln n) / n_steps: a factor of e over the whole window, plus the ½ ln n nats that a random
    initial frame in n dimensions may lose before it has aligned with the leading direction.

    Training is a transient: "chaotic" describes this window, not an attractor.

    Parameters
    ----------
    spectrum : Spectrum
        Exponents of one or more runs.

    Returns
    -------
    ndarray of str, shape (...)
        ``"diverged"``, ``"chaotic"``, ``"stable"`` or ``"marginal"`` for each run.

    Raises
    ------
    ArgumentTypeError
        If `spectrum` is not a `Spectrum`.

    Examples
    --------
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent(lr=0.1))
    >>> s = pl.lyapunov_spectrum(system, net.init("normal", runs=2, seed=0), 100, 1)
    >>> pl.spectrum_regime(s).tolist()
    ['marginal', 'marginal']
    """
    _checks.instance("spectrum", spectrum, Spectrum)
    leading, error = spectrum.exponents[..., 0], spectrum.stderr[..., 0]
    n = spectrum.state.shape[-1]
    stopped = spectrum.status == Status.STOPPED
    n_steps = np.where(stopped, spectrum.n_done, int(spectrum.settings["n_steps"]))
    margin = np.fmax(2.0 * error, (1.0 + 0.5 * np.log(n)) / n_steps)
    tests = [spectrum.status == Status.DIVERGED, leading > margin, leading < -margin]
    return np.select(tests, ["diverged", "chaotic", "stable"], "marginal")


@dataclass(frozen=True, eq=False, repr=False)
class LearningRateScan(BatchResult):
    """Runs from the same initial weights at several learning rates.

    The late window is the last `n_late` steps.

    Attributes
    ----------
    lr : ndarray, shape (n_lr,)
        Learning rates.
    loss : ndarray, shape (n_lr, n_runs)
        Mean loss of the whole data after the last step; nan for a run that diverged.
    accuracy : ndarray, shape (n_lr, n_runs)
        Fraction of the samples correctly classified after the last step; nan for a regression.
    exponent, stderr : ndarray, shape (n_lr, n_runs)
        Leading Lyapunov exponent of the late window and its standard error, nats per step.
    growth : ndarray, shape (n_lr, n_runs)
        Growth rate, until saturation, of small perturbations of the weights made at the start of
        the late window, nats per step; nan without perturbations.
    sharpness : ndarray, shape (n_lr, n_runs)
        Largest eigenvalue relative to the stability threshold (lr·λ/2 for plain gradient descent;
        for Adam that of the preconditioned Hessian), mean over the last 12 states.
    non_monotone : ndarray, shape (n_lr, n_runs)
        Fraction of all steps in which the loss rises.
    period : ndarray of int, shape (n_lr, n_runs)
        Period of the weights along a random direction in the late window, in steps: 1 at rest or in
        a drift, 0 for none or for an oscillation that decays.
    regime : ndarray of str, shape (n_lr, n_runs)
        Elements of `REGIMES`; see `RegimeRule`.
    late_loss : ndarray, shape (n_lr, n_runs, n_late + 1)
        Losses of the late window: a bifurcation diagram against lr.
    late_weight : ndarray, shape (n_lr, n_runs, n_late + 1), or None
        The observed weight in the late window; None unless requested.
    steps : ndarray of int, shape (n_late + 1,)
        Index of each step of the late window.
    settings : dict
        Arguments of the call.
    dims : tuple of str
        Names of the batch axes, such as ``("lr", "run")``.
    coords : dict of ndarray
        Settings of the optimiser along the batch, such as the learning rates, by name.

    Examples
    --------
    >>> net = pl.Network((2, 3, 1))
    >>> X, y = pl.datasets.quadratic(20)
    >>> scan = pl.learning_rate_scan(net, X, y, [0.1, 1.0], 40, runs=2, n_perturbations=0)
    >>> scan.regime.shape, scan.late_loss.shape
    ((2, 2), (2, 2, 21))
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
    def _batch(self) -> tuple[int, ...]:
        return self.loss.shape

    def __repr__(self) -> str:
        n_late = self.settings.get("n_late")
        lines = [f"LearningRateScan ({self._batch_text})"]
        lines.append(f"  learning rates     {self.lr.min():.4g} ... {self.lr.max():.4g}")
        for name, share in self.share.items():
            found = self.lr[share > 0]
            if found.size:
                where = f"learning rates {found.min():.4g} ... {found.max():.4g}"
                lines.append(f"  {name:<17}  {share.mean():.1%} of the runs, {where}")
        if n_late is not None:
            lines.append(f"  late window        {n_late} steps")
        return "\n".join(lines)

    @property
    def share(self) -> dict[str, Floats]:
        """Fraction of the runs in each regime, (n_lr,) under each name."""
        return {name: (self.regime == name).mean(axis=1) for name in REGIMES}

    @property
    def diverged(self) -> Floats:
        """(n_lr,) fraction of the runs that are divergent."""
        return self.share["divergent"]

    def to_dataset(self) -> xarray.Dataset:
        """Convert to an xarray Dataset with labelled dimensions.

        Returns
        -------
        xarray.Dataset
            One variable per array; units and settings in attributes.

        Raises
        ------
        ImportError
            If xarray is not installed.
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
    seed: Seed = 0,
    first_run: int = 0,
) -> LearningRateScan:
    """Train runs at each of several learning rates and label the regime of each run.

    Parameters
    ----------
    network : Network
        The network.
    X : array_like, shape (N, n_in)
        Inputs, as for `TrainingMap`.
    y : array_like, shape (N,) or (N, n_out)
        Targets, as for `TrainingMap`.
    lrs : array_like, shape (n_lr,)
        Learning rates, above 0.
    n_steps : int, default 2000
        Steps of each run, at least 40.
    runs : int, default 20
        Number of initial weights, the same for all rates.
    init : str, default "glorot_uniform"
        Distribution of the initial weights, as in `Network.init`.
    w0 : array_like, shape (n_runs, n_params), optional
        Initial weights, instead of `runs` and `init`.
    n_late : int, optional
        Steps of the late window, at least 20; by default a quarter of `n_steps`, at least 20.
    optimizer : GradientDescent or Adam, optional
        Optimiser, plain gradient descent by default. Its learning rate is ignored; momentum and
        weight decay are scalars.
    n_perturbations : int, default 5
        Perturbed trajectories of each run, from which growth is measured; 0 for none.
    eps : float, default 1e-8
        Size of the uniform perturbations of the weights.
    observe : int, optional
        Index of a parameter to record through the late window.
    rule : RegimeRule, optional
        Thresholds of the regimes.
    threads : int, optional
        Number of threads, at most (and by default) all cores available to the process.
    progress : bool, default False
        Whether to show a progress bar on stderr.
    seed : int, SeedSequence or Generator, default 0
        Seed of initial weights, tangent vectors and perturbations.
    first_run : int, default 0
        Number of the first run in `w0`, which selects the random stream of its perturbations: for a
        batch that is computed in blocks.

    Returns
    -------
    LearningRateScan
        Measurements and labels of each run at each rate.

    Raises
    ------
    ArgumentError
        If an argument is out of range or has the wrong type.
    ValueError
        If the late window of all runs would not fit in memory.

    References
    ----------
    Danovski, Soriano, Lacasa, Front. Complex Syst. 2, 1367957 (2024). Cohen et al., ICLR (2021), on
    the edge of stability.

    Examples
    --------
    >>> net = pl.Network((2, 3, 1))
    >>> X, y = pl.datasets.quadratic(20)
    >>> scan = pl.learning_rate_scan(net, X, y, [0.1, 1e9], 40, runs=2, n_perturbations=0)
    >>> scan.share["divergent"]
    array([0., 1.])
    """
    if not isinstance(network, Network):
        raise ArgumentTypeError(
            "network",
            "must be a Network, which the scan trains with an optimiser for each rate, "
            f"got {_checks.describe(network)}",
        )
    rates = _rates(lrs)
    n_steps = _checks.integer("n_steps", n_steps, least=40)
    if n_late is None:
        n_late = max(20, n_steps // 4)
    n_late = _checks.integer("n_late", n_late, least=20, most=n_steps)
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
    window = Window(
        early=n_steps - n_late,
        late=n_late,
        observe=observe,
        n_perturbations=_checks.integer("n_perturbations", n_perturbations, least=0),
        eps=_checks.real("eps", eps, above=0.0),
        threads=threads,
        seed=seed,
    )
    start = _initial(network, init, runs, w0, seed)
    _require_memory(window, rates.size * len(start), network.n_params)
    first = np.arange(first_run, first_run + len(start))
    measured = _measure_all(system, rates, start, first, window, progress)
    return _scan(
        measured,
        rule,
        rates,
        window,
        settings={
            "network": repr(network),
            "samples": len(system.X),
            "optimizer": repr(template),
            "n_steps": n_steps,
            "n_late": n_late,
            "init": init if w0 is None else "given weights",
            "n_perturbations": window.n_perturbations,
            "eps": window.eps,
            "observe": -1 if observe is None else observe,
            "seed": repr(seed),
            "first_run": first_run,
        }
        | {f"rule_{name}": value for name, value in asdict(rule).items()},
    )


def _rates(lrs: ArrayLike) -> Floats:
    rates = _checks.floats("lrs", lrs)
    if rates.ndim != 1 or rates.size == 0 or (rates <= 0).any():
        raise ArgumentError(
            "lrs",
            f"must have shape (n_lr,) with rates above 0, got shape {rates.shape}"
            + (f" and {rates.min()}" if rates.size else ""),
        )
    return rates


def _template(optimizer: Optimizer | None) -> Optimizer:
    """The optimiser, whose momentum and weight decay are the same for all runs."""
    if optimizer is None:
        return GradientDescent()
    require_optimizer(optimizer)
    for name in ("momentum", "weight_decay"):
        if np.ndim(getattr(optimizer, name)):
            raise ArgumentError("optimizer", f"must have one {name} for all runs, got an array")
    return optimizer


def _initial(network: Network, init: str, runs: int, w0: ArrayLike | None, seed: Seed) -> Floats:
    """Initial weights (n_runs, n_params), given or drawn."""
    if w0 is None:
        kind = _checks.choice("init", init, INITIALISERS)
        start = network.init(kind, runs=_checks.integer("runs", runs, least=1), seed=seed)
    else:
        start = _checks.floats("w0", w0)
    if start.ndim != 2 or start.shape[1] != network.n_params:
        raise ArgumentError(
            "w0", f"must have shape (n_runs, {network.n_params}), got {start.shape}"
        )
    return start


def _require_memory(window: Window, count: int, n_params: int) -> None:
    """Refuse late windows that would not fit."""
    n_late, number = window.late, window.n_perturbations
    kept = 8.0 * (n_late + 1) * (1 + (window.observe is not None))
    _checks.memory(
        f"the late window (n_late={n_late} of n_steps={window.early + n_late}) of {count} runs, "
        f"with n_perturbations={number} of each",
        count * kept + 8.0 * number * n_params,
        "take a smaller n_late= or fewer runs",
    )


def _measure_all(
    system: TrainingMap,
    rates: Floats,
    start: Floats,
    numbers: Integers,
    window: Window,
    progress: bool,
) -> dict[str, Any]:
    """Measurements (n_lr · n_runs, ...) of all runs at all rates, in blocks of bounded memory."""
    count, n_runs = rates.size * len(start), max(len(start), 1)
    size = window.runs_at_once(system.n)
    optimizer = system.optimizer
    parts = []
    with progress_bar(progress, count * window.steps_per_run, "scan") as bar:
        for first in range(0, max(count, 1), size):
            which = np.arange(first, min(first + size, count))
            lr, run = rates[which // n_runs], which % n_runs
            block = TrainingMap(
                system.network, system.X, system.y, replace(optimizer, lr=lr if len(lr) else 1.0)
            )
            parts.append(measure(block, start[run], numbers[run], window, bar))
    return {
        name: None if first is None else np.concatenate([part[name] for part in parts])
        for name, first in parts[0].items()
    }


def _scan(
    measured: dict[str, Any],
    rule: RegimeRule,
    rates: Floats,
    window: Window,
    settings: dict[str, Any],
) -> LearningRateScan:
    """Label the runs and give the measurements the shape (n_lr, n_runs, ...)."""
    found = dict(measured)
    first, projection = found.pop("first_loss"), found.pop("projection")
    found["period"] = rule.periods(projection)
    exponent, stderr, sharpness = (found[name] for name in ("exponent", "stderr", "sharpness"))
    found["regime"] = rule.labels(
        first, found["late_loss"], projection, exponent, stderr, sharpness
    )
    n_runs = len(first) // rates.size
    for name, values in found.items():
        if values is not None:
            found[name] = values.reshape(rates.size, n_runs, *values.shape[1:])
    n_steps = window.early + window.late
    return LearningRateScan(
        lr=rates.copy(),
        **found,
        steps=np.arange(window.early, n_steps + 1),
        settings=settings,
        dims=("lr", "run"),
        coords={"lr": rates.copy()},
    )
