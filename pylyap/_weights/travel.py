"""How far weights travel in training, and what each of them is worth in the end."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks, _kernels
from pylyap._checks import Floats
from pylyap._errors import ArgumentError
from pylyap.maps import TrainingMap, require_training
from pylyap.network import Network

Integers = NDArray[np.int64]

_AT_ONCE = 1e8  # bytes of states that are kept at a time


@dataclass(frozen=True, eq=False)
class Travel:
    """What weights did along runs. Leading axes are the batch; sums are over the entries chosen.

    Attributes
    ----------
    displacement : (...)
        Σ |w(T) − w(0)| / Σ |w(0)|; nan for a run that diverged.
    weight_displacement : (..., n_entries)
        |w(T) − w(0)| / |w(0)| of each; nan where it starts at 0.
    path_length : (..., n_entries)
        Σ_t |w(t + 1) − w(t)| of each.
    norm : (..., n_records + 1)
        Σ |w| at the start of each record and at the end; nan from where a run diverged.
    steps : (n_records + 1,)
        Index of the step of each.
    """

    displacement: Floats
    weight_displacement: Floats = field(repr=False)
    path_length: Floats = field(repr=False)
    norm: Floats = field(repr=False)
    steps: Integers = field(repr=False)


def travel(
    system: TrainingMap,
    w0: ArrayLike,
    n_steps: int,
    every: int = 1,
    entries: str | ArrayLike = "all",
    *,
    start: int = 0,
    threads: int | None = None,
) -> Travel:
    """Displacements, path lengths and norms of the weights along training, in bounded memory.

    Parameters
    ----------
    system, w0, n_steps, start, threads
        As in `TrainingMap.trajectory`.
    every
        Steps between two norms; divides `n_steps`. Path lengths count every step.
    entries
        ``"all"`` parameters, ``"weights"`` (without biases), ``"biases"``, or a mask (n_params,).

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range, no entry is chosen, or the norms would not fit in
        memory.

    References
    ----------
    Danovski, Soriano, Lacasa, Front. Complex Syst. 2, 1367957 (2024).
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
    # One path, with the batch that the optimiser's rates make; it goes on from its last states.
    flat, batch = system._runs.flat(w0, "w0")
    states = flat.reshape((*batch, system.n))
    first = system.weights(states)[..., chosen]
    runs = len(flat)
    _checks.memory(
        f"norms of {runs} runs at {n_steps // every + 1} times (n_steps={n_steps})",
        8.0 * (runs + 1) * (n_steps // every + 1) + 32.0 * runs * system.n_params,
        "record less with every=, or take fewer runs",
    )
    piece = max(1, int(_AT_ONCE / (8.0 * max(runs, 1) * system.n)))
    norm = np.empty((*batch, n_steps // every + 1))
    norm[..., 0] = np.abs(first).sum(axis=-1)
    length = np.zeros((runs, system.n_params))
    done = 0
    while done < n_steps:
        count = min(piece, n_steps - done)
        path = system.trajectory(states, count, start=start + done, threads=threads)
        states = path[..., -1, :]
        flat = path.reshape(runs, count + 1, system.n)
        _kernels.over_members(_kernels.path_lengths, threads, flat, length)
        at = np.arange(done + 1, done + count + 1)
        due = at % every == 0
        weights = system.weights(path[..., 1:, :][..., due, :])[..., chosen]
        norm[..., at[due] // every] = np.abs(weights).sum(axis=-1)
        done += count
    moved = np.abs(system.weights(states)[..., chosen] - first)
    size = np.abs(first)
    with np.errstate(divide="ignore", invalid="ignore"):
        return Travel(
            displacement=(moved.sum(axis=-1) / size.sum(axis=-1))[()],
            weight_displacement=np.where(size > 0, moved / size, np.nan),
            path_length=length.reshape((*batch, system.n_params))[..., chosen],
            norm=norm,
            steps=np.arange(start, start + n_steps + 1, every),
        )


def knock_out(system: TrainingMap, w: ArrayLike, layer: int = 0) -> Floats:
    """Loss with one weight set to zero over the loss as it is, for each weight of a layer.

    Parameters
    ----------
    system
        The training; its loss of the whole data counts.
    w : (..., n) or (..., n_params) array
        States or weights.
    layer
        0 for the weights that leave the inputs, and so on. Its biases stay.

    Returns
    -------
    (..., n_out, n_in) array
        Ratios L_w/L; inf or nan where the loss is 0, nan for weights that are nan.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range or the ratios would not fit in memory.
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


def parameter_mask(
    network: Network, entries: str | ArrayLike, name: str = "entries"
) -> NDArray[np.bool_]:
    """Which parameters are meant: ``"all"``, ``"weights"``, ``"biases"``, or a mask (n_params,)."""
    if isinstance(entries, str):
        _checks.choice(name, entries, ("all", "weights", "biases"))
        parts = network.unpack(np.zeros(network.n_params))
        chosen = network.pack(
            [
                (np.full(W.shape, entries != "biases"), np.full(b.shape, entries != "weights"))
                for W, b in parts
            ]
        )
        return chosen.astype(bool)
    mask = _checks.array(name, entries)
    if mask.dtype != bool or mask.shape != (network.n_params,):
        raise ArgumentError(
            name,
            f"must be 'all', 'weights', 'biases' or a mask of shape ({network.n_params},), "
            f"got {_checks.describe(entries)} of shape {mask.shape}",
        )
    if not mask.any():
        raise ArgumentError(name, "must choose at least one parameter, got none")
    return mask
