"""Perturbation ensembles: how far slightly perturbed copies of a run get from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks, _kernels
from pylyap._checks import Floats
from pylyap._errors import ArgumentError
from pylyap._labelled import batch_dimensions, dataset_class
from pylyap._native import core
from pylyap._parallel import ProgressBar
from pylyap._weights.travel import parameter_mask
from pylyap.maps import TrainingMap, require_training

if TYPE_CHECKING:
    import xarray

Integers = NDArray[np.int64]
Norm = Literal["l1", "l2", "linf"]

_NORMS = {"l1": _kernels.L1, "l2": _kernels.L2, "linf": _kernels.LINF}

_DISTRIBUTIONS = ("uniform", "normal", "sphere")

# Bytes of states that are stepped together with their distances, and of their path before it is
# reduced: so short a path stays in the cache of a core, or nearly.
_STATES, _PATH = 6.4e7, 1.6e7


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Distances of perturbed copies to their reference. Leading axes are the batch of runs; an axis
    of sizes `eps` follows if several were given.

    Attributes
    ----------
    distances : (..., n_perturbations, T + 1), or (..., T + 1) for keep="mean"
        Over all parameters, at each record; the first is that of the perturbation itself. nan from
        the record in which the copy or its reference left the finite numbers.
    n_finite : (..., T + 1)
        Copies that the mean of each record is over.
    status : (..., n_perturbations)
        0 finished, 1 diverged.
    steps : (T + 1,)
        Index of the step of each record.
    states : (..., n_perturbations, n) or None
        Last states, if they were asked for.
    losses : (..., 1 + n_perturbations, T + 1) or None
        Losses of the whole data at each record, of the reference first, if they were asked for.
    path_lengths : (..., 1 + n_perturbations, n_params) or None
        Σ_t |w(t + 1) − w(t)| of each weight over all steps, of the reference first, if they were
        asked for. nan for what diverged.
    settings
        What was asked for.
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
    def mean(self) -> Floats:
        """(..., T + 1) mean distance over the copies that are finite; nan where none is."""
        if self.settings["keep"] == "mean":
            return self.distances
        there = np.isfinite(self.distances)
        total = np.where(there, self.distances, 0.0).sum(axis=-2)
        with np.errstate(invalid="ignore"):
            result: Floats = np.where(self.n_finite > 0, total / self.n_finite, np.nan)
        return result

    def to_dataset(self) -> xarray.Dataset:
        """An xarray Dataset with labelled dimensions; units and settings in attributes.

        Raises ImportError, with the command that helps, if xarray is not installed.
        """
        dataset = dataset_class()
        eps = self.settings["eps"]
        several = isinstance(eps, list)
        sizes = ["eps"] if several else []
        batch = batch_dimensions(self.status.ndim - 1 - several)
        copies = [*batch, *sizes, "perturbation"]
        mean = self.settings["keep"] == "mean"
        named: dict[str, tuple[list[str], Any]] = {
            "distances": ([*(copies[:-1] if mean else copies), "time"], self.distances),
            "n_finite": ([*batch, *sizes, "time"], self.n_finite),
            "status": (copies, self.status),
            "states": ([*copies, "component"], self.states),
            "losses": ([*batch, *sizes, "member", "time"], self.losses),
            "path_lengths": ([*batch, *sizes, "member", "parameter"], self.path_lengths),
        }
        variables = {name: value for name, value in named.items() if value[1] is not None}
        coordinates: dict[str, Any] = {"time": ("time", self.steps, {"units": "steps"})}
        if several:
            coordinates["eps"] = ("eps", eps)
        return dataset(variables, coordinates, attrs=dict(self.settings))


def perturbation_ensemble(
    system: TrainingMap,
    w0: ArrayLike,
    eps: ArrayLike,
    n_perturbations: int = 20,
    n_steps: int = 1000,
    *,
    distribution: Literal["uniform", "normal", "sphere"] | ArrayLike = "uniform",
    perturb: Literal["weights", "biases", "all"] | int | ArrayLike = "all",
    relative: bool = False,
    norm: Norm = "l1",
    start: int = 0,
    record_every: int = 1,
    keep: Literal["all", "mean"] = "all",
    states: bool = False,
    losses: bool = False,
    path_lengths: bool = False,
    threads: int | None = None,
    progress: bool = False,
    seed: Any = 0,
    first_run: int = 0,
) -> Ensemble:
    """Step perturbed copies of each run beside it, and record how far they are from it.

    Reference and copies see the same minibatches and go through the same arithmetic: with ``eps=0``
    every distance is exactly zero, and 1e-14 means something.

    Parameters
    ----------
    system
        The training.
    w0 : (..., n) or (..., n_params) array
        States or weights at step 0, one run per row. Finite.
    eps : number or (n_eps,) array
        Size of the perturbation, >= 0. Copies of all sizes share their random draws. Of a system
        in single precision the perturbed weights are rounded, the first distances are those of the
        rounded weights, and sizes above 0 that rounding would change by more than a tenth (below
        about 5e-7 for uniform perturbations of weights near 1) are refused.
    n_perturbations
        Copies per run and size.
    n_steps
        Steps after the perturbation.
    distribution
        Of each perturbed entry ``"uniform"`` in (−eps, eps) or ``"normal"`` with deviation eps, or
        ``"sphere"``: a random direction of Euclidean length eps. Or directions of one's own,
        columns (..., n_params, n_perturbations) that eps multiplies: covariant vectors, say.
    perturb
        Which parameters: ``"all"``, ``"weights"`` (without biases), ``"biases"``, a mask
        (n_params,), or how many, drawn for each copy.
    relative
        Whether the perturbation of an entry is in units of its size.
    norm
        ``"l1"``, ``"l2"`` or ``"linf"`` of the difference of all parameters.
    start
        Steps of the reference before the perturbation.
    record_every
        Steps between two records; divides `n_steps`.
    keep
        ``"all"`` distances, or their ``"mean"`` over the copies alone.
    states
        Whether to keep the last states of the copies.
    losses
        Whether to record their losses and that of the reference too.
    path_lengths
        Whether to sum up how far each weight of theirs and of the reference goes.
    threads, progress
        As in `lyapunov_spectrum`.
    seed
        Of the draws: each run has its own stream, whatever runs are beside it.
    first_run
        Number of the first run of `w0`, where it is a block of more: its stream is that of this
        number.

    Returns
    -------
    Ensemble

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range or the records would not fit in memory.

    References
    ----------
    Danovski, Soriano, Lacasa, Front. Complex Syst. 2, 1367957 (2024).
    """
    require_training(system)
    sizes = _checks.floats("eps", eps)
    if sizes.ndim > 1 or sizes.size == 0:
        raise ArgumentError(
            "eps", f"must be a number or an array (n_eps,), got shape {sizes.shape}"
        )
    if (sizes < 0).any():
        raise ArgumentError("eps", f"must be at least 0, got {sizes.min()}")
    n_perturbations = _checks.integer("n_perturbations", n_perturbations, least=1)
    n_steps = _checks.integer("n_steps", n_steps, least=1)
    start = _checks.integer("start", start, least=0)
    first_run = _checks.integer("first_run", first_run, least=0)
    every = _checks.integer("record_every", record_every, least=1)
    if n_steps % every:
        raise ArgumentError("record_every", f"must divide n_steps={n_steps}, got {every}")
    _checks.choice("norm", norm, tuple(_NORMS))
    _checks.choice("keep", keep, ("all", "mean"))
    for name, value in (
        ("relative", relative),
        ("states", states),
        ("losses", losses),
        ("path_lengths", path_lengths),
        ("progress", progress),
    ):
        _checks.flag(name, value)
    if threads is not None:
        _checks.integer("threads", threads, least=1)
    system.optimizer._require_factors(0, start + n_steps)
    flat, batch = system._runs.flat(w0, "w0", finite=True)
    runs, members = len(flat), sizes.size * n_perturbations
    draw = _Draws(system, batch, distribution, perturb, relative, n_perturbations, seed)
    records = n_steps // every
    everyone = members + sizes.size
    at_records = (sizes.size if keep == "mean" else members) + everyone * losses + sizes.size
    at_end = members * system.n * states + everyone * system.n_params * path_lengths
    _checks.memory(
        f"distances of {members} copies (n_perturbations={n_perturbations}) of {runs} runs at "
        f"{records + 1} records (n_steps={n_steps})",
        8.0 * runs * (at_records * (records + 1) + at_end + members * (1 + system.n_params)),
        "use keep='mean', record less with record_every=, or take fewer runs",
    )
    single = system.dtype == "float32"
    job = _Job(system, batch, _NORMS[norm], start, n_steps, every, threads)
    if start > 0:
        flat = np.ascontiguousarray(job.path(flat, np.arange(runs), 0, start, start)[:, -1])

    if single:
        _refuse_unresolved(draw, flat, sizes, first_run)
    times = records + 1
    distances = np.zeros((runs, sizes.size, times)) if keep == "mean" else None
    whole = None if keep == "mean" else np.empty((runs, members, times))
    count = np.zeros((runs, sizes.size, times), np.int64)
    status = np.zeros((runs, members), np.int8)
    last = np.empty((runs, members, system.n)) if states else None
    each = (runs, sizes.size, 1 + n_perturbations)
    loss = np.empty((*each, times)) if losses else None
    lengths = np.empty((*each, system.n_params)) if path_lengths else None
    drawn, unit = -1, np.empty(0)  # the run that was drawn last: its copies may come in blocks
    with ProgressBar(runs * (members + 1) * n_steps, "ensemble", progress) as bar:
        for some, first, end in job.blocks(runs, members):
            index = np.arange(first, end)  # of copies: size * n_perturbations + perturbation
            copies = np.repeat(flat[some, np.newaxis], end - first + 1, axis=1)
            for r, run in enumerate(some):
                if run != drawn:
                    drawn, unit = run, draw(run, first_run + run, flat[run])
                scale = sizes.ravel()[index // n_perturbations, np.newaxis]
                copies[r, 1:, : system.n_params] += scale * unit[index % n_perturbations]
            if single:  # as every step takes them
                with np.errstate(over="ignore"):
                    copies = copies.astype(np.float32).astype(np.float64)
            d, after, values, far = job.run(copies, some, losses, path_lengths, bar)
            finite = np.isfinite(d)
            for e in np.unique(index // n_perturbations):
                those = index // n_perturbations == e
                count[some, e] += finite[:, those].sum(axis=1)
                if distances is not None:
                    distances[some, e] += np.where(finite, d, 0.0)[:, those].sum(axis=1)
            if whole is not None:
                whole[some, first:end] = d
            status[some, first:end] = ~finite[..., -1]
            if last is not None:
                last[some, first:end] = after
            for out, of in ((loss, values), (lengths, far)):
                if out is not None:
                    out[some, :, 0] = of[:, np.newaxis, 0]
                    for j, m in enumerate(index):
                        out[some, m // n_perturbations, 1 + m % n_perturbations] = of[:, 1 + j]
    if distances is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            result = np.where(count > 0, distances / count, np.nan)
    else:
        assert whole is not None
        result = whole
    several = (sizes.size,) if sizes.ndim else ()
    copies_shape = (*batch, *several, n_perturbations)
    family = (*batch, *several, 1 + n_perturbations)
    inner = (*batch, *several) if keep == "mean" else copies_shape
    return Ensemble(
        distances=result.reshape(*inner, times),
        n_finite=count.reshape(*batch, *several, times),
        status=status.reshape(copies_shape),
        steps=np.arange(start, start + n_steps + 1, every),
        states=None if last is None else last.reshape(*copies_shape, system.n),
        losses=None if loss is None else loss.reshape(*family, times),
        path_lengths=None if lengths is None else lengths.reshape(*family, system.n_params),
        settings={
            "system": repr(system),
            "eps": sizes.tolist(),
            "n_perturbations": n_perturbations,
            "n_steps": n_steps,
            "distribution": distribution if isinstance(distribution, str) else "given",
            "perturb": perturb if isinstance(perturb, (str, int)) else "given",
            "relative": int(relative),
            "norm": norm,
            "start": start,
            "record_every": every,
            "keep": keep,
            "seed": repr(seed),
            "first_run": first_run,
        },
    )


class _Draws:
    """Perturbations of unit size for one run, (n_perturbations, n_params)."""

    def __init__(
        self,
        system: TrainingMap,
        batch: tuple[int, ...],
        distribution: Any,
        perturb: Any,
        relative: bool,
        n_perturbations: int,
        seed: Any,
    ) -> None:
        n = system.n_params
        self.shape, self.relative = (n_perturbations, n), relative
        self.distribution, self.given = distribution, None
        if isinstance(distribution, str):
            _checks.choice("distribution", distribution, _DISTRIBUTIONS)
        else:
            given = _checks.floats("distribution", distribution)
            if given.shape[-2:] != (n, n_perturbations):
                raise ArgumentError(
                    "distribution",
                    f"must have shape (..., {n}, {n_perturbations}), got {given.shape}",
                )
            try:
                spread = np.broadcast_to(given, (*batch, n, n_perturbations))
            except ValueError:
                raise ArgumentError(
                    "distribution",
                    f"must broadcast against the batch of runs {batch}, got {given.shape}",
                ) from None
            self.given = spread.reshape(-1, n, n_perturbations)
        self.count = None
        if isinstance(perturb, (int, np.integer)) and not isinstance(perturb, (bool, np.bool_)):
            self.count = _checks.integer("perturb", perturb, least=1, most=n)
            self.mask = np.ones(n, bool)
        else:
            self.mask = parameter_mask(system.network, perturb, "perturb")
        self.seeds = _checks.seed_sequence(seed)

    def __call__(self, run: int, number: int, state: Floats) -> Floats:
        rng = _checks.generator_of_run(self.seeds, number)
        n = self.shape[1]
        mask = np.broadcast_to(self.mask, self.shape)
        if self.count is not None:
            mask = rng.random(self.shape).argsort(axis=1).argsort(axis=1) < self.count
        if self.given is not None:
            unit = self.given[run].T.copy()
        elif self.distribution == "uniform":
            unit = rng.uniform(-1.0, 1.0, self.shape)
        else:
            unit = rng.standard_normal(self.shape)
        unit *= mask
        if self.given is None and self.distribution == "sphere":
            unit /= np.sqrt((unit**2).sum(axis=1, keepdims=True))
        result: Floats = unit * np.abs(state[:n]) if self.relative else unit
        return result


def _refuse_unresolved(draw: _Draws, states: Floats, sizes: Floats, first_run: int) -> None:
    """Refuse sizes of which rounding the weights to single precision would change more than a
    tenth: rounding errors are uniform, their mean square is a twelfth of the spacing's."""
    smallest = sizes[sizes > 0].min(initial=np.inf)
    for run, state in enumerate(states):
        if not np.isfinite(state).all() or not np.isfinite(smallest):
            continue
        unit = draw(run, first_run + run, state)
        with np.errstate(over="ignore", invalid="ignore"):
            spacing = np.spacing(np.abs(state[: unit.shape[1]]).astype(np.float32))
            noise = np.sqrt(((unit != 0) * spacing.astype(np.float64) ** 2).sum(axis=1) / 12.0)
        length = np.sqrt((unit**2).sum(axis=1))
        least = 10.0 * (noise[length > 0] / length[length > 0]).max(initial=0.0)
        if smallest < least:
            raise ArgumentError(
                "eps",
                f"must be 0 or at least {least:.2g} for dtype='float32', whose numbers are up "
                f"to {spacing.max():.2g} apart at the weights of run {run}, got {smallest:g}; "
                "dtype='float64' takes smaller ones",
            )


@dataclass(frozen=True)
class _Job:
    """How blocks of copies are stepped and reduced."""

    system: TrainingMap
    batch: tuple[int, ...]
    norm: int
    start: int
    n_steps: int
    every: int
    threads: int | None

    def blocks(self, runs: int, members: int) -> Any:
        """(runs, first copy, end) of what is stepped at once: whole runs, or copies of one."""
        per_copy = self.system.n + 4 * (self.n_steps // self.every + 1)  # state, and its distances
        most = max(2, int(_STATES / (8.0 * per_copy)))
        if members + 1 <= most:
            some = max(1, most // (members + 1))
            for r in range(0, runs, some):
                yield np.arange(r, min(r + some, runs)), 0, members
        else:
            for r in range(runs):
                for first in range(0, members, most - 1):
                    yield np.array([r]), first, min(first + most - 1, members)

    def run(
        self, copies: Floats, some: Integers, losses: bool, path_lengths: bool, bar: ProgressBar
    ) -> tuple[Floats, Floats, Floats, Floats]:
        """Distances (runs, copies, T + 1) and last states of copies (runs, 1 + copies, n), the
        reference first; d(t = 0) is that of the start. Losses (runs, 1 + copies, T + 1) and path
        lengths (runs, 1 + copies, n_params), or arrays without an entry.
        """
        runs, each, n = copies.shape
        flat = np.ascontiguousarray(copies.reshape(-1, n))
        reference = np.repeat(np.arange(runs) * each, each)
        owner = np.repeat(some, each)
        records = self.n_steps // self.every
        out = np.empty((runs * each, records + 1))
        loss = np.empty((runs * each, records + 1 if losses else 0))
        lengths = np.zeros((runs * each, self.system.n_params if path_lengths else 0))
        self._reduce(flat[:, np.newaxis], reference, out[:, :1])
        if losses:
            loss[:, 0] = self._losses(flat)
        every, skip = (1, self.every) if path_lengths else (self.every, 1)
        piece = max(1, int(_PATH / (8.0 * len(flat) * n * skip)))  # records
        done = 0
        while done < records:
            size = min(piece, records - done)
            begin = self.start + done * self.every
            path = self.path(flat, owner, begin, size * self.every, every, bar)
            flat = np.ascontiguousarray(path[:, -1])
            if path_lengths:
                _kernels.over_members(_kernels.path_lengths, self.threads, path, lengths)
            path = path[:, ::skip]
            self._reduce(path, reference, out[:, done : done + size + 1])
            if losses:
                loss[:, done + 1 : done + size + 1] = self._losses(path[:, 1:])
            done += size
        d, last = out.reshape(runs, each, -1)[:, 1:], flat.reshape(runs, each, n)[:, 1:]
        return d, last, loss.reshape(runs, each, -1), lengths.reshape(runs, each, -1)

    def path(
        self,
        flat: Floats,
        owner: Integers,
        begin: int,
        n_steps: int,
        every: int,
        progress: bool | ProgressBar = False,
    ) -> Floats:
        """(members, n_steps // every + 1, n), `owner` telling whose learning rate is whose."""
        system = self.system
        runs = system._runs
        rates = runs.rates(self.batch, begin, n_steps, owner)
        out = np.empty((len(flat), n_steps // every + 1, system.n))

        def work(task: core.Task) -> None:
            runs.problem.trajectory(flat, rates, begin, n_steps, every, out, task)

        cost = n_steps * runs.step_cost(0, None)
        runs.over(work, len(flat), cost, threads=self.threads, progress=progress)
        return out

    def _losses(self, states: Floats) -> Floats:
        return self.system._runs.plain.loss(np.ascontiguousarray(self.system.weights(states)))

    def _reduce(self, path: Floats, reference: Integers, out: Floats) -> None:
        n = self.system.n_params
        _kernels.over_members(_kernels.distances, self.threads, path, reference, n, self.norm, out)
