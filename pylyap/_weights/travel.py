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
from pylyap._parameters import Entries, parameter_mask
from pylyap._streaming import stream
from pylyap.maps import TrainingMap, require_training

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
    system: TrainingMap,
    w0: ArrayLike,
    n_steps: int,
    every: int = 1,
    entries: Entries | ArrayLike = "all",
    *,
    start: int = 0,
    threads: int | None = None,
) -> Travel:
    """Displacements, path lengths and norms of the weights along training, in bounded memory.

    Parameters
    ----------
    system : TrainingMap
        The training.
    w0 : array_like, shape (..., n) or (..., n_params)
        Initial states or weights, one run per row.
    n_steps : int
        Number of steps.
    every : int, default 1
        Steps between two norms; divides `n_steps`. Path lengths include every step.
    entries : {"all", "weights", "biases"} or array_like of bool, default "all"
        Parameters that are measured: all, weights without biases, biases, or a mask of shape
        (n_params,).
    start : int, default 0
        Index of the first step.
    threads : int, optional
        Number of threads, at most (and by default) all cores available to the process.

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
    require_training(system)
    n_steps = _checks.integer("n_steps", n_steps, least=1)
    if threads is not None:
        _checks.integer("threads", threads, least=1)
    every = _checks.integer("every", every, least=1)
    start = _checks.integer("start", start, least=0)
    if n_steps % every:
        raise ArgumentError("every", f"must divide n_steps={n_steps}, got {every}")
    chosen = parameter_mask(system.network, entries)
    system.optimizer._require_factors(start, n_steps)
    # Of the batch that the optimiser's rates make, so that each piece continues the previous one.
    flat, batch = system._runs.flat(w0, "w0")
    states = flat.reshape((*batch, system.n))
    first = system.weights(states)[..., chosen]
    runs = len(flat)
    _checks.memory(
        f"norms of {runs} runs at {n_steps // every + 1} times (n_steps={n_steps})",
        8.0 * (runs + 1) * (n_steps // every + 1) + 32.0 * runs * system.n_params,
        "record less with every=, or take fewer runs",
    )
    norm = np.empty((*batch, n_steps // every + 1))
    norm[..., 0] = np.abs(first).sum(axis=-1)
    length = np.zeros((runs, system.n_params))

    def advance(states: Floats, done: int, count: int) -> Floats:
        return system.trajectory(states, count, start=start + done, threads=threads)

    for done, path in stream(advance, states, n_steps, n_bytes=_AT_ONCE):
        states = path[..., -1, :]
        flat = path.reshape(runs, path.shape[-2], system.n)
        _kernels.over_members(_kernels.path_lengths, threads, flat, length)
        at = np.arange(done + 1, done + path.shape[-2])
        due = at % every == 0
        weights = system.weights(path[..., 1:, :][..., due, :])[..., chosen]
        norm[..., at[due] // every] = np.abs(weights).sum(axis=-1)
    moved = np.abs(system.weights(states)[..., chosen] - first)
    size = np.abs(first)
    with np.errstate(divide="ignore", invalid="ignore"):
        return Travel(
            displacement=(moved.sum(axis=-1) / size.sum(axis=-1))[()],
            weight_displacement=np.where(size > 0, moved / size, np.nan),
            path_length=length.reshape((*batch, system.n_params))[..., chosen],
            norm=norm,
            steps=np.arange(start, start + n_steps + 1, every),
            **batch_axes(system, batch),
        )


def knock_out(system: TrainingMap, w: ArrayLike, layer: int = 0) -> Floats:
    """Ratio of the loss without a weight to the loss with it, for each weight of a layer.

    Parameters
    ----------
    system : TrainingMap
        The training; its loss of the whole data is used.
    w : array_like, shape (..., n) or (..., n_params)
        States or weights.
    layer : int, default 0
        Layer whose weights are set to zero one at a time; 0 is the layer after the inputs. Its
        biases are kept.

    Returns
    -------
    ndarray, shape (..., n_out, n_in)
        Ratios; inf or nan where the loss is 0, nan for weights that are nan.

    Raises
    ------
    ArgumentError
        If an argument is out of range or has the wrong type.
    ValueError
        If the ratios would not fit in memory.

    Examples
    --------
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent(lr=0.1))
    >>> pl.knock_out(system, net.init("normal", runs=4)).shape
    (4, 3, 2)
    """
    require_training(system)
    network = system.network
    layer = _checks.integer("layer", layer, least=0, most=len(network.layers) - 2)
    weights = system._runs.states(w, "w")[..., : system.n_params]
    index, _ = network.unpack(np.arange(float(network.n_params)))[layer]
    places = index.astype(int).ravel()
    flat = weights.reshape(-1, network.n_params)
    _checks.memory(
        f"losses of {len(flat)} states without each of {len(places)} weights",
        8.0 * len(flat) * (len(places) + network.n_params),
        "take fewer states",
    )
    ratios = np.empty((len(flat), len(places)))
    whole = system._runs.plain.loss(flat)
    for j, place in enumerate(places):
        without = flat.copy()
        without[:, place] = 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios[:, j] = system._runs.plain.loss(without) / whole
    return ratios.reshape(*weights.shape[:-1], *index.shape)
