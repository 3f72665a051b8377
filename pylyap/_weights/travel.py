"""Displacement and path length of weights along training, and the loss without each weight."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks, _kernels
from pylyap._batches import BatchResult, batch_axes
from pylyap._checks import Floats
from pylyap._errors import ArgumentError
from pylyap._map_runs import MapRuns
from pylyap._parallel import progress_bar
from pylyap._parameters import Entries, entry_mask
from pylyap._runs import TrainingRuns
from pylyap._streaming import stream
from pylyap.maps import Map, TrainingMap, runs_of

Integers = NDArray[np.int64]

_AT_ONCE = 1e8  # bytes of states that are kept at a time


@dataclass(frozen=True, eq=False, repr=False)
class Travel(BatchResult):
    """Displacements, path lengths and norms of weights along runs.

    Leading axes are the batch; sums are over the chosen entries.

    Attributes
    ----------
    displacement : ndarray, shape (...)
        Σ |w(T) − w(0)| / Σ |w(0)|; nan for a run that diverged.
    weight_displacement : ndarray, shape (..., n_entries)
        |w(T) − w(0)| / |w(0)| of each entry; nan where w(0) = 0.
    path_length : ndarray, shape (..., n_entries)
        Σ_t |w(t + 1) − w(t)| of each entry, in units of the weights.
    norm : ndarray, shape (..., n_records + 1)
        Σ |w| at the start of each record and at the end; nan from where a run diverged.
    steps : ndarray of int, shape (n_records + 1,)
        Index of the step of each norm.
    dims : tuple of str
        Names of the batch axes, such as ``("lr", "run")``.
    coords : dict of ndarray
        Settings of the optimiser along the batch, such as the learning rates, by name.

    Examples
    --------
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent(lr=0.1))
    >>> t = pl.travel(system, net.init("normal", runs=2), n_steps=20, every=10)
    >>> t.displacement.shape, t.path_length.shape, t.steps
    ((2,), (2, 13), array([ 0, 10, 20]))
    """

    displacement: Floats
    weight_displacement: Floats = field(repr=False)
    path_length: Floats = field(repr=False)
    norm: Floats = field(repr=False)
    steps: Integers = field(repr=False)

    _MORE: ClassVar[dict[str, tuple[str, ...]]] = {
        "weight_displacement": ("entry",),
        "path_length": ("entry",),
        "norm": ("time",),
    }
    _INDEX: ClassVar[dict[str, str]] = {"steps": "time"}
    _UNITS: ClassVar[dict[str, str]] = {"path_length": "weight", "norm": "weight", "steps": "steps"}

    @property
    def _batch(self) -> tuple[int, ...]:
        return np.shape(self.displacement)


def travel(
    system: Map,
    w0: ArrayLike,
    n_steps: int,
    every: int = 1,
    entries: Entries | ArrayLike = "all",
    *,
    start: int = 0,
    threads: int | None = None,
    progress: bool = False,
) -> Travel:
    """Displacements, path lengths and norms of the weights along runs, in bounded memory.

    Parameters
    ----------
    system : Map
        A `TrainingMap`, a `DiscreteMap`, or any object with `n`, `step` and `tangent`. Its weights
        are the first `n_params` entries of a state, or all of them.
    w0 : array_like, shape (..., n) or (..., n_params)
        Initial states or weights, one run per row.
    n_steps : int
        Number of steps.
    every : int, default 1
        Steps between two norms; divides `n_steps`. Path lengths include every step.
    entries : {"all", "weights", "biases"} or array_like of bool, default "all"
        Parameters that are measured: all, weights without biases, biases, or a mask of shape
        (n_params,). Only a `TrainingMap` knows which are biases.
    start : int, default 0
        Index of the first step.
    threads : int, optional
        Number of threads, at most (and by default) all cores available to the process.
    progress : bool, default False
        Whether to show a progress bar on stderr.

    Returns
    -------
    Travel
        Measures of each run.

    Raises
    ------
    ArgumentError
        If an argument is out of range or has the wrong type, or no entry is chosen.
    ValueError
        If the norms would not fit in memory.

    References
    ----------
    Danovski, Soriano, Lacasa, Front. Complex Syst. 2, 1367957 (2024).

    Examples
    --------
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent(lr=0.1))
    >>> t = pl.travel(system, net.init("normal"), n_steps=20, entries="weights")
    >>> bool((t.path_length >= 0).all()), t.norm.shape
    (True, (21,))
    """
    maps = runs_of(system)
    n_steps = _checks.integer("n_steps", n_steps, least=1)
    if threads is not None:
        _checks.integer("threads", threads, least=1)
    every = _checks.integer("every", every, least=1)
    _checks.flag("progress", progress)
    start = _checks.integer("start", start, least=0)
    if n_steps % every:
        raise ArgumentError("every", f"must divide n_steps={n_steps}, got {every}")
    chosen = entry_mask(maps, entries)
    if isinstance(system, TrainingMap):
        system.optimizer._require_factors(start, n_steps)
    # Of the batch that the optimiser's rates make, so that each piece continues the previous one.
    flat, batch = maps.flat(w0, "w0")
    n, runs = maps.n_params, len(flat)
    states = flat.reshape((*batch, maps.n))
    first = states[..., :n][..., chosen]
    _checks.memory(
        f"norms of {runs} runs at {n_steps // every + 1} times (n_steps={n_steps})",
        8.0 * (runs + 1) * (n_steps // every + 1) + 32.0 * runs * n,
        "record less with every=, or take fewer runs",
    )
    norm = np.empty((*batch, n_steps // every + 1))
    norm[..., 0] = np.abs(first).sum(axis=-1)
    length = np.zeros((runs, n))

    def advance(states: Floats, done: int, count: int) -> Floats:
        flat = states.reshape(runs, maps.n)
        path = maps.paths(flat, start + done, count, 1, batch=batch, threads=threads, progress=bar)
        return path.reshape((*batch, count + 1, maps.n))

    with progress_bar(progress, runs * n_steps, "travel") as bar:
        for done, path in stream(advance, states, n_steps, n_bytes=_AT_ONCE):
            states = path[..., -1, :]
            flat = path.reshape(runs, path.shape[-2], maps.n)
            _kernels.over_members(_kernels.path_lengths, threads, flat, length)
            at = np.arange(done + 1, done + path.shape[-2])
            due = at % every == 0
            weights = path[..., 1:, :n][..., due, :][..., chosen]
            norm[..., at[due] // every] = np.abs(weights).sum(axis=-1)
    moved = np.abs(states[..., :n][..., chosen] - first)
    size = np.abs(first)
    with np.errstate(divide="ignore", invalid="ignore"):
        return Travel(
            displacement=(moved.sum(axis=-1) / size.sum(axis=-1))[()],
            weight_displacement=np.where(size > 0, moved / size, np.nan),
            path_length=length.reshape((*batch, n))[..., chosen],
            norm=norm,
            steps=np.arange(start, start + n_steps + 1, every),
            **batch_axes(system, batch),
        )


def knock_out(
    system: Map, w: ArrayLike, layer: int | None = None, *, progress: bool = False
) -> Floats:
    """Ratio of the loss without a weight to the loss with it, for each weight of a layer.

    Parameters
    ----------
    system : Map
        A `TrainingMap`, whose loss of the whole data is used, or another map with a method
        ``loss``.
    w : array_like, shape (..., n) or (..., n_params)
        States or weights.
    layer : int, optional
        Layer of a `TrainingMap` whose weights are set to zero one at a time; 0, the default, is the
        layer after the inputs. Its biases are kept. Other maps have no layers: all their weights
        are set to zero one at a time.
    progress : bool, default False
        Whether to show a progress bar on stderr.

    Returns
    -------
    ndarray, shape (..., n_out, n_in), or (..., n_params) for another map than a `TrainingMap`
        Ratios; inf or nan where the loss is 0, nan for weights that are nan.

    Raises
    ------
    ArgumentError
        If an argument is out of range or has the wrong type, the map has no loss, or `layer` is
        given for a map without layers.
    ValueError
        If the ratios would not fit in memory.

    Examples
    --------
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent(lr=0.1))
    >>> pl.knock_out(system, net.init("normal", runs=4)).shape
    (4, 3, 2)
    """
    maps = runs_of(system)
    if isinstance(system, TrainingMap):
        network = system.network
        least, most = 0, len(network.layers) - 2
        chosen = _checks.integer("layer", 0 if layer is None else layer, least=least, most=most)
        index, _ = network.unpack(np.arange(float(network.n_params)))[chosen]
    else:
        assert isinstance(maps, MapRuns)
        maps.require("loss", "knock_out")
        if layer is not None:
            raise ArgumentError(
                "layer", f"must be left out for a map without layers, got {_checks.describe(layer)}"
            )
        index = np.arange(float(maps.n_params))
    states = maps.states(w, "w")
    if isinstance(maps, TrainingRuns):
        states = states[..., : maps.n_params]  # of which its loss is a function
    places = index.astype(int).ravel()
    flat = states.reshape(-1, states.shape[-1])
    _checks.memory(
        f"losses of {len(flat)} states without each of {len(places)} weights",
        8.0 * len(flat) * (len(places) + flat.shape[1]),
        "take fewer states",
    )
    ratios = np.empty((len(flat), len(places)))
    with progress_bar(progress, ratios.size, "knock_out", unit=" losses") as bar:
        whole = maps.losses(flat)
        for j, place in enumerate(places):
            without = flat.copy()
            without[:, place] = 0.0
            with np.errstate(divide="ignore", invalid="ignore"):
                ratios[:, j] = maps.losses(without) / whole
            bar.advance(len(flat))
    return ratios.reshape(*states.shape[:-1], *index.shape)
