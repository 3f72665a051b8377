"""Subsets of a network's parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._errors import ArgumentError
from pylyap.network import Network

Entries: TypeAlias = Literal["all", "weights", "biases"]


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


def layer_slices(network: Network) -> Iterator[slice]:
    """The parameters of each layer, weights then biases, as slices of (n_params,)."""
    begin = 0
    for n_in, n_out in zip(network.layers, network.layers[1:], strict=False):
        yield slice(begin, begin := begin + n_out * (n_in + 1))
