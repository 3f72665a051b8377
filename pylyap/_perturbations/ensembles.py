"""Perturbation ensembles: distances between a trajectory and slightly perturbed copies of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._batches import BatchResult, batch_axes
from pylyap._checks import Floats, Seed
from pylyap._errors import ArgumentError
from pylyap._labelled import dataset_class
from pylyap._map_runs import MapRuns
from pylyap._parallel import ProgressBar, progress_bar
from pylyap._parameters import Entries
from pylyap._perturbations.draws import Distribution, Draws, refuse_unresolved
from pylyap._perturbations.stepping import NORMS, Block, Measured, Stepper
from pylyap._runs import TrainingRuns
from pylyap.maps import Map, TrainingMap, runs_of

if TYPE_CHECKING:
    import xarray

Integers = NDArray[np.int64]
Norm = Literal["l1", "l2", "linf"]


@dataclass(frozen=True, eq=False, repr=False)
class Ensemble(BatchResult):
    """Distances between perturbed trajectories and their reference.

    Leading axes are the batch of runs; an axis of sizes `eps` follows if several were given.

    Attributes
    ----------
    distances : ndarray, shape (..., n_perturbations, T + 1), or (..., T + 1) for keep="mean"
        Norm of the difference of all parameters at each record; the first is that of the
        perturbation itself. nan from the record at which the perturbed trajectory or its reference
        became non-finite.
    n_finite : ndarray of int, shape (..., T + 1)
        Number of perturbed trajectories that are finite at each record.
    status : ndarray of int8, shape (..., n_perturbations)
        0 finished, 1 diverged; see `Status`.
    steps : ndarray of int, shape (T + 1,)
        Index of the step of each record.
    states : ndarray, shape (..., n_perturbations, n), or None
        Last states; None unless requested.
    losses : ndarray, shape (..., 1 + n_perturbations, T + 1), or None
        Losses of the whole data at each record, of the reference first; None unless requested.
    path_lengths : ndarray, shape (..., 1 + n_perturbations, n_params), or None
        Σ_t |w(t + 1) − w(t)| of each parameter over all steps, of the reference first; nan for
        trajectories that diverged. None unless requested.
    settings : dict
        Arguments of the call.
    dims : tuple of str
        Names of the batch axes, such as ``("lr", "run")``.
    coords : dict of ndarray
        Settings of the optimiser along the batch, such as the learning rates, by name.

    Examples
    --------
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent(lr=0.1))
    >>> e = pl.perturbation_ensemble(system, net.init("normal"), 1e-8, 4, n_steps=10)
    >>> e.distances.shape, e.mean.shape, int(e.n_finite[-1])
    ((4, 11), (11,), 4)
    """

    distances: Floats
    n_finite: Integers = field(repr=False)
    status: NDArray[np.int8] = field(repr=False)
    steps: Integers = field(repr=False)
    states: Floats | None = field(repr=False, default=None)
    losses: Floats | None = field(repr=False, default=None)
    path_lengths: Floats | None = field(repr=False, default=None)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def _batch(self) -> tuple[int, ...]:
        return self.status.shape[
            : self.status.ndim - 1 - isinstance(self.settings.get("eps"), list)
        ]

    @property
    def mean(self) -> Floats:
        """(..., T + 1) mean distance over the finite trajectories; nan where there is none.

        It is nan too where the sum of the distances overflows.
        """
        if self.settings["keep"] == "mean":
            return self.distances
        finite = np.isfinite(self.distances)
        with np.errstate(over="ignore", invalid="ignore"):
            total = np.where(finite, self.distances, 0.0).sum(axis=-2)
            known = (self.n_finite > 0) & np.isfinite(total)
            result: Floats = np.where(known, total / self.n_finite, np.nan)
        return result

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
        eps = self.settings["eps"]
        several = isinstance(eps, list)
        sizes = ["eps"] if several else []
        batch = list(self.dims)
        members = [*batch, *sizes, "perturbation"]
        mean = self.settings["keep"] == "mean"
        named: dict[str, tuple[list[str], Any]] = {
            "distances": ([*(members[:-1] if mean else members), "time"], self.distances),
            "n_finite": ([*batch, *sizes, "time"], self.n_finite),
            "status": (members, self.status),
            "states": ([*members, "component"], self.states),
            "losses": ([*batch, *sizes, "member", "time"], self.losses),
            "path_lengths": ([*batch, *sizes, "member", "parameter"], self.path_lengths),
        }
        variables = {name: value for name, value in named.items() if value[1] is not None}
        coordinates: dict[str, Any] = {"time": ("time", self.steps, {"units": "steps"})}
        if several:
            coordinates["eps"] = ("eps", eps)
        return dataset(variables, coordinates | self._labels, attrs=dict(self.settings))


def perturbation_ensemble(
    system: Map,
    w0: ArrayLike,
    eps: ArrayLike,
    n_perturbations: int = 20,
    n_steps: int = 1000,
    *,
    distribution: Distribution | ArrayLike = "uniform",
    perturb: Entries | int | ArrayLike = "all",
    relative: bool = False,
    norm: Norm = "l1",
    start: int = 0,
    record_every: int = 1,
    keep: Literal["all", "mean"] = "all",
    states: bool = False,
    losses: bool = False,
    path_lengths: bool = False,
    threads: int | None = None,
    progress: bool | ProgressBar = False,
    seed: Seed = 0,
    first_run: int = 0,
) -> Ensemble:
    """Step perturbed copies of each run and record their distances from the unperturbed run.

    Reference and perturbed trajectories see the same minibatches and the same arithmetic: with
    ``eps=0`` every distance is exactly zero, and a distance of 1e-14 is significant. For a map
    whose functions take batches this holds if they return the same bits for equal rows.

    Parameters
    ----------
    system : Map
        A `TrainingMap`, a `DiscreteMap`, or any object with `n`, `step` and `tangent`. Its
        parameters are the first `n_params` entries of a state, or all of them.
    w0 : array_like, shape (..., n) or (..., n_params)
        Finite states or weights at step 0, one run per row.
    eps : float or array_like, shape (n_eps,)
        Sizes of the perturbation, at least 0. All sizes share their random draws. For a system in
        single precision the perturbed weights are rounded and the first distances are those of the
        rounded weights; sizes above 0 that rounding would change by more than a tenth (below about
        5e-7 for uniform perturbations of weights near 1) are refused.
    n_perturbations : int, default 20
        Perturbed trajectories per run and size.
    n_steps : int, default 1000
        Steps after the perturbation.
    distribution : {"uniform", "normal", "sphere"} or array_like, default "uniform"
        Distribution of each perturbed entry: uniform in (−eps, eps), or normal with standard
        deviation eps; ``"sphere"`` is a random direction of Euclidean length eps. An array of shape
        (..., n_params, n_perturbations) has directions as columns (covariant vectors, for
        example), which are multiplied by eps.
    perturb : {"all", "weights", "biases"}, int or array_like of bool, default "all"
        Perturbed parameters: all, weights without biases, biases, a mask of shape (n_params,), or
        how many, drawn for each perturbation. Only a `TrainingMap` knows which are biases.
    relative : bool, default False
        Whether the perturbation of a parameter is proportional to its absolute value.
    norm : {"l1", "l2", "linf"}, default "l1"
        Norm of the difference of all parameters.
    start : int, default 0
        Steps of the reference before the perturbation.
    record_every : int, default 1
        Steps between two records; divides `n_steps`.
    keep : {"all", "mean"}, default "all"
        Whether to keep all distances or only their mean over the perturbations.
    states : bool, default False
        Whether to keep the last states of the perturbed trajectories.
    losses : bool, default False
        Whether to record the losses of the perturbed trajectories and of the reference. The map
        needs a method ``loss``.
    path_lengths : bool, default False
        Whether to sum the path length of each parameter, perturbed and of the reference.
    threads : int, optional
        Number of threads, at most (and by default) all cores available to the process. Results do
        not depend on it.
    progress : bool, default False
        Whether to show a progress bar on stderr.
    seed : int, SeedSequence or Generator, default 0
        Seed of the draws. Each run has its own stream of random numbers, independent of the other
        runs in the batch.
    first_run : int, default 0
        Number of the first run in `w0`, which selects its random stream: for a batch that is
        computed in blocks.

    Returns
    -------
    Ensemble
        Distances at each record, and what else was requested.

    Raises
    ------
    ArgumentError
        If an argument is out of range or has the wrong type, or the map does not have what an
        option needs.
    ValueError
        If the records would not fit in memory.

    References
    ----------
    Danovski, Soriano, Lacasa, Front. Complex Syst. 2, 1367957 (2024).

    Examples
    --------
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent(lr=0.1))
    >>> w0 = net.init("normal", runs=2)
    >>> e = pl.perturbation_ensemble(system, w0, [1e-8, 1e-4], n_perturbations=4, n_steps=10)
    >>> e.distances.shape
    (2, 2, 4, 11)
    >>> bool((e.distances[:, 1, :, 0] < 1e-4 * net.n_params).all())
    True
    """
    maps = runs_of(system)
    settings = _Settings(
        system=system,
        maps=maps,
        sizes=_sizes(eps),
        n_perturbations=_checks.integer("n_perturbations", n_perturbations, least=1),
        n_steps=_checks.integer("n_steps", n_steps, least=1),
        relative=_checks.flag("relative", relative),
        norm=_checks.choice("norm", norm, tuple(NORMS)),
        start=_checks.integer("start", start, least=0),
        every=_checks.integer("record_every", record_every, least=1),
        mean=_checks.choice("keep", keep, ("all", "mean")) == "mean",
        states=_checks.flag("states", states),
        losses=_checks.flag("losses", losses),
        path_lengths=_checks.flag("path_lengths", path_lengths),
        threads=None if threads is None else _checks.integer("threads", threads, least=1),
        first_run=_checks.integer("first_run", first_run, least=0),
    )
    if not isinstance(progress, ProgressBar):
        _checks.flag("progress", progress)
    if isinstance(system, TrainingMap):
        system.optimizer._require_factors(0, settings.start + settings.n_steps)
    if isinstance(maps, MapRuns) and settings.losses:
        maps.require("loss", "losses=True")
    flat, batch = maps.flat(w0, "w0", finite=True)
    draws = Draws(
        maps,
        batch,
        distribution,
        perturb,
        settings.relative,
        settings.n_perturbations,
        seed,
    )
    settings.require_memory(len(flat))
    stepper = settings.stepper(batch)
    records = _Records(settings, len(flat))
    total = len(flat) * (settings.start + (settings.members + 1) * settings.n_steps)
    with progress_bar(progress, total, "ensemble") as bar:
        flat = stepper.transient(flat, bar)
        if settings.single:
            refuse_unresolved(draws, flat, settings.sizes, settings.first_run)
        perturbed = _Perturbed(settings, draws, flat)
        for block in stepper.blocks(len(flat), settings.members):
            records.add(block, stepper.measure(perturbed(block), block.runs, bar))
    arguments = {
        "distribution": distribution if isinstance(distribution, str) else "given",
        "perturb": perturb if isinstance(perturb, (str, int)) else "given",
        "seed": repr(seed),
    }
    return records.ensemble(batch, arguments)


def _sizes(eps: ArrayLike) -> Floats:
    sizes = _checks.floats("eps", eps)
    if sizes.ndim > 1 or sizes.size == 0:
        raise ArgumentError(
            "eps", f"must be a number or an array (n_eps,), got shape {sizes.shape}"
        )
    if (sizes < 0).any():
        raise ArgumentError("eps", f"must be at least 0, got {sizes.min()}")
    return sizes


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """Checked arguments of `perturbation_ensemble`."""

    system: Map
    maps: TrainingRuns | MapRuns
    sizes: Floats  # () or (n_eps,)
    n_perturbations: int
    n_steps: int
    relative: bool
    norm: str
    start: int
    every: int
    mean: bool
    states: bool
    losses: bool
    path_lengths: bool
    threads: int | None
    first_run: int

    def __post_init__(self) -> None:
        if self.n_steps % self.every:
            raise ArgumentError(
                "record_every", f"must divide n_steps={self.n_steps}, got {self.every}"
            )

    @property
    def single(self) -> bool:
        """Whether states are in single precision."""
        return isinstance(self.maps, TrainingRuns) and self.maps.single

    @property
    def members(self) -> int:
        """Perturbed trajectories per run, of all sizes."""
        return self.sizes.size * self.n_perturbations

    @property
    def times(self) -> int:
        """Number of records, the perturbation itself included."""
        return self.n_steps // self.every + 1

    def require_memory(self, runs: int) -> None:
        """Refuse records that would not fit."""
        maps, sizes, members = self.maps, self.sizes.size, self.members
        everyone = members + sizes
        at_records = (sizes if self.mean else members) + everyone * self.losses + sizes
        at_end = members * maps.n * self.states + everyone * maps.n_params * self.path_lengths
        _checks.memory(
            f"distances of {members} perturbed trajectories "
            f"(n_perturbations={self.n_perturbations}) of {runs} runs at {self.times} records "
            f"(n_steps={self.n_steps})",
            8.0 * runs * (at_records * self.times + at_end + members * (1 + maps.n_params)),
            "use keep='mean', record less with record_every=, or take fewer runs",
        )

    def stepper(self, batch: tuple[int, ...]) -> Stepper:
        return Stepper(
            self.maps,
            batch,
            self.norm,
            self.start,
            self.n_steps,
            self.every,
            self.losses,
            self.path_lengths,
            self.threads,
        )


class _Perturbed:
    """States of blocks at the perturbation: each reference followed by its members."""

    def __init__(self, settings: _Settings, draws: Draws, states: Floats) -> None:
        self.settings, self.draws, self.states = settings, draws, states
        self._run, self._unit = -1, np.empty(0)  # drawn last: a run may come in several blocks

    def __call__(self, block: Block) -> Floats:
        """(runs, 1 + members, n)."""
        given, members = self.settings, block.members
        copies = np.repeat(self.states[block.runs, np.newaxis], len(members) + 1, axis=1)
        scale = given.sizes.ravel()[members // given.n_perturbations, np.newaxis]
        for r, run in enumerate(block.runs):
            if run != self._run:
                unit = self.draws(run, given.first_run + run, self.states[run])
                self._run, self._unit = run, unit
            shift = scale * self._unit[members % given.n_perturbations]
            copies[r, 1:, : given.maps.n_params] += shift
        if given.single:  # rounded as every step rounds them
            with np.errstate(over="ignore"):
                copies = copies.astype(np.float32).astype(np.float64)
        return copies


class _Records:
    """Arrays of the result, filled block by block. Runs are flat."""

    def __init__(self, settings: _Settings, runs: int) -> None:
        self.settings, self.runs = settings, runs
        maps, sizes, members = settings.maps, settings.sizes.size, settings.members
        times, family = settings.times, (runs, sizes, 1 + settings.n_perturbations)
        mean = settings.mean
        self.total = np.zeros((runs, sizes, times)) if mean else None
        self.distances = None if mean else np.empty((runs, members, times))
        self.count = np.zeros((runs, sizes, times), np.int64)
        self.status = np.zeros((runs, members), np.int8)
        self.states = np.empty((runs, members, maps.n)) if settings.states else None
        self.losses = np.empty((*family, times)) if settings.losses else None
        self.path_lengths = np.empty((*family, maps.n_params)) if settings.path_lengths else None

    def add(self, block: Block, found: Measured) -> None:
        runs, members, distances = block.runs, block.members, found.distances
        size, perturbation = divmod(members, self.settings.n_perturbations)
        finite = np.isfinite(distances)
        for e in np.unique(size):
            these = size == e
            self.count[runs, e] += finite[:, these].sum(axis=1)
            if self.total is not None:
                with np.errstate(over="ignore"):  # the mean is then nan
                    self.total[runs, e] += np.where(finite, distances, 0.0)[:, these].sum(axis=1)
        if self.distances is not None:
            self.distances[runs, block.first : block.stop] = distances
        self.status[runs, block.first : block.stop] = ~finite[..., -1]
        if self.states is not None:
            self.states[runs, block.first : block.stop] = found.states
        for out, values in (
            (self.losses, found.losses),
            (self.path_lengths, found.path_lengths),
        ):
            if out is not None:
                out[runs, :, 0] = values[:, np.newaxis, 0]
                for j, (e, p) in enumerate(zip(size, perturbation, strict=True)):
                    out[runs, e, 1 + p] = values[:, 1 + j]

    def ensemble(self, batch: tuple[int, ...], arguments: dict[str, Any]) -> Ensemble:
        """The result, with the batch's own shape; `arguments` are those not among the settings."""
        given = self.settings
        outer = (*batch, *((given.sizes.size,) if given.sizes.ndim else ()))
        members = (*outer, given.n_perturbations)
        family = (*outer, 1 + given.n_perturbations)
        if self.total is not None:
            with np.errstate(divide="ignore", invalid="ignore"):
                known = (self.count > 0) & np.isfinite(self.total)
                mean = np.where(known, self.total / self.count, np.nan)
            distances = mean.reshape(*outer, given.times)
        else:
            assert self.distances is not None
            distances = self.distances.reshape(*members, given.times)

        def shaped(values: Floats | None, shape: tuple[int, ...]) -> Floats | None:
            return None if values is None else values.reshape(*shape, values.shape[-1])

        return Ensemble(
            distances=distances,
            n_finite=self.count.reshape(*outer, given.times),
            status=self.status.reshape(members),
            steps=np.arange(given.start, given.start + given.n_steps + 1, given.every),
            states=shaped(self.states, members),
            losses=shaped(self.losses, family),
            path_lengths=shaped(self.path_lengths, family),
            **batch_axes(given.system, batch),
            settings={
                "system": repr(given.system),
                "eps": given.sizes.tolist(),
                "n_perturbations": given.n_perturbations,
                "n_steps": given.n_steps,
                "distribution": arguments["distribution"],
                "perturb": arguments["perturb"],
                "relative": int(given.relative),
                "norm": given.norm,
                "start": given.start,
                "record_every": given.every,
                "keep": "mean" if given.mean else "all",
                "seed": arguments["seed"],
                "first_run": given.first_run,
            },
        )
