"""Subsets of a network's parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._errors import ArgumentError
from pylyap._map_runs import MapRuns
from pylyap._runs import TrainingRuns
from pylyap.network import Network

Entries: TypeAlias = Literal["all", "weights", "biases"]


def entry_mask(
    maps: TrainingRuns | MapRuns, entries: Entries | ArrayLike, name: str = "entries"
) -> NDArray[np.bool_]:
    """Mask (n_params,) of parameters; for a map that is no training, only all or a given mask."""
    if isinstance(maps, TrainingRuns):
        return parameter_mask(maps.network, entries, name)
    n_params = maps.n_params
    if not isinstance(entries, str):
        return _given_mask(entries, n_params, name)
    if _checks.choice(name, entries, ("all", "weights", "biases")) != "all":
        raise ArgumentError(
            name,
            f"must be 'all' or a mask of shape ({n_params},) for a map that is not a TrainingMap, "
            f"whose entries are neither weights nor biases, got {entries!r}",
        )
    return np.ones(n_params, bool)


def parameter_mask(
    network: Network, entries: Entries | ArrayLike, name: str = "entries"
) -> NDArray[np.bool_]:
    """Mask (n_params,) of ``"all"``, ``"weights"`` or ``"biases"``, or a given mask, checked."""
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
    return _given_mask(entries, network.n_params, name)


def _given_mask(entries: ArrayLike, n_params: int, name: str) -> NDArray[np.bool_]:
    mask = _checks.array(name, entries)
    if mask.dtype != bool or mask.shape != (n_params,):
        raise ArgumentError(
            name,
            f"must be 'all', 'weights', 'biases' or a mask of shape ({n_params},), "
            f"got {_checks.describe(entries)} of shape {mask.shape}",
        )
    if not mask.any():
        raise ArgumentError(name, "must choose at least one parameter, got none")
    return mask


def layer_slices(network: Network) -> Iterator[slice]:
    """The parameters of each layer, weights then biases, as slices of (n_params,)."""
    begin = 0
    for n_in, n_out in zip(network.layers, network.layers[1:], strict=False):
        yield slice(begin, begin := begin + n_out * (n_in + 1))
