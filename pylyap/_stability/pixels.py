"""The runs of the pixels of a map: settings of a training by name, or maps from a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._errors import ArgumentError, ArgumentTypeError
from pylyap._runs import TrainingRuns
from pylyap._stability.axes import Axis, require_known
from pylyap._stability.lanes import Lanes, MapLanes, Settings, TrainingLanes
from pylyap._stability.score import Integers
from pylyap.maps import TrainingMap, runs_of
from pylyap.optimizers import Adam, GradientDescent

_RATES = ("lr", "momentum", "weight_decay")
SCALE, OFFSET = "scale", "offset"


class TrainingPixels:
    """Trainings of one network whose settings are the values of some axes.

    Parameters
    ----------
    system : TrainingMap
        The training; its settings are those that are not on an axis.
    w0 : ndarray, shape (n_params,) or (n,)
        Initial weights or state of all pixels.
    axes : mapping of str to Axis
        The axes by the arguments that give them, that of the columns last.
    """

    def __init__(
        self, system: TrainingMap, w0: ArrayLike, axes: Mapping[str, Axis], threads: int | None
    ) -> None:
        rule, network = system.optimizer, system.network
        layers = range(len(network.layers) - 1)
        self._names = [f"lr_{i}" for i in layers]
        self._offsets = [OFFSET, *(f"{OFFSET}_{i}" for i in layers)]
        self._axes, self._threads = {a.name: a for a in axes.values()}, threads
        self._require_settings(system, axes)
        if "momentum" in self._axes and not rule.buffer_names:
            assert isinstance(rule, GradientDescent)
            system = system._runs._with(replace(rule, momentum=1.0))  # has a velocity
        self._runs: TrainingRuns = system._runs
        states = self._runs.states(w0, "w0", finite=True)
        if states.ndim != 1:
            raise ArgumentError(
                "w0",
                f"must be the initial weights ({system.n_params},) of all pixels, "
                f"got shape {np.shape(w0)}",
            )
        self._shape = tuple(len(a.values) for a in axes.values())
        self.first_state, self.state_size = states, self._runs.n
        self._base = {name: getattr(rule, name) for name in _RATES}

    def _require_settings(self, system: TrainingMap, axes: Mapping[str, Axis]) -> None:
        rule = system.optimizer
        if any(system._runs.rate_shapes):
            raise ArgumentError(
                "system_of", "must have one value of each setting, got arrays over runs"
            )
        known = ["lr", "weight_decay"] if isinstance(rule, Adam) else [*_RATES, *self._names]
        rates = set(known)
        for argument, axis in reversed(list(axes.items())):
            require_known(argument, axis, [*known, SCALE, *self._offsets])
            low, high = axis.values[0], axis.values[-1]
            if axis.name in rates and low < 0:
                raise ArgumentError(argument, f"must have {axis.name} of at least 0, got {low!r}")
            if axis.name == "momentum" and high > 1:
                raise ArgumentError(argument, f"must have momentum in [0, 1], got {high!r}")

    def lanes(self, pixels: Integers) -> Iterator[tuple[Integers, Lanes]]:
        """The runs of some pixels, by number in C order: the places among them, and their lanes."""
        at = np.unravel_index(pixels, self._shape)
        given = {a.name: a.values[i] for a, i in zip(self._axes.values(), at, strict=True)}
        m = len(pixels)
        lr, momentum, decay = (
            np.ascontiguousarray(np.broadcast_to(given.get(name, self._base[name]), m), float)
            for name in _RATES
        )
        layers = self._runs.layer_factors
        factors = None if layers is None else np.broadcast_to(layers, (m, *layers.shape))
        if any(name in given for name in self._names):
            ones = np.ones((len(self._names), 2)) if layers is None else layers
            rates = np.stack([given.get(name, lr) for name in self._names], axis=1)
            factors, lr = rates[:, :, np.newaxis] * ones, np.ones(m)
        if factors is not None:
            factors = np.ascontiguousarray(factors)
        states = np.tile(self.first_state, (m, 1))
        if SCALE in given:
            states[:, : self._runs.n_params] *= given[SCALE][:, np.newaxis]
        for name in self._offsets:
            if name in given:
                states[:, self._weights_of(name)] += given[name][:, np.newaxis]
        settings = Settings(lr, momentum, decay, factors)
        yield np.arange(m), TrainingLanes(self._runs, states, settings, self._threads)

    def _weights_of(self, offset: str) -> NDArray[np.bool_]:
        """Mask (n,) of the weights, without biases, to which an offset is added."""
        network = self._runs.network
        parts = network.unpack(np.zeros(network.n_params))
        chosen = [
            (np.full(W.shape, offset in (OFFSET, name)), np.zeros(b.shape))
            for name, (W, b) in zip(self._offsets[1:], parts, strict=True)
        ]
        mask = np.zeros(self._runs.n, bool)
        mask[: network.n_params] = network.pack(chosen) > 0
        return mask


class FunctionPixels:
    """Maps and initial states that a function of the two values returns.

    Pixels for which it returns the same object as the map are computed together.
    """

    def __init__(
        self, function: Callable[[float, float], Any], x: Axis, y: Axis, threads: int | None
    ) -> None:
        self._function, self._x, self._y, self._threads = function, x, y, threads
        self.first_state = self._made(0, 0)[1]
        self.state_size = self.first_state.size

    def _made(self, i: int, j: int) -> tuple[Any, Floats]:
        x, y = float(self._x.values[j]), float(self._y.values[i])
        made = self._function(x, y)
        if not isinstance(made, tuple) or len(made) != 2:
            raise ArgumentTypeError(
                "system_of",
                f"must return (system, w0), got {_checks.describe(made)} for "
                f"{self._x.name}={x!r} and {self._y.name}={y!r}",
            )
        system, w0 = made
        state = _checks.floats("w0", w0)
        if state.ndim != 1:
            raise ArgumentError(
                "w0", f"must be the initial state (n,) of a pixel, got shape {state.shape}"
            )
        return system, state

    def lanes(self, pixels: Integers) -> Iterator[tuple[Integers, Lanes]]:
        """As `TrainingPixels.lanes`, for each map."""
        found: dict[int, tuple[Any, list[int], list[Floats]]] = {}
        columns = len(self._x.values)
        for place, pixel in enumerate(pixels.tolist()):
            system, state = self._made(*divmod(pixel, columns))
            _, places, states = found.setdefault(id(system), (system, [], []))
            places.append(place)
            states.append(state)
        for system, places, states in found.values():
            yield np.array(places), self._lanes(system, states)

    def _lanes(self, system: Any, given: list[Floats]) -> Lanes:
        maps = runs_of(system)
        if len({state.shape for state in given}) > 1:
            raise ArgumentError("w0", "must have one length for the pixels of a map, got several")
        states = maps.states(np.array(given), "w0", finite=True)
        if not isinstance(maps, TrainingRuns):
            return MapLanes(system, maps, states)
        if any(maps.rate_shapes):
            raise ArgumentError("system_of", "must return a map with one learning rate, got arrays")
        m, rule = len(states), maps.optimizer
        lr, momentum, decay = (np.full(m, getattr(rule, name), float) for name in _RATES)
        factors = maps.layer_factors
        if factors is not None:
            factors = np.tile(factors, (m, 1, 1))
        return TrainingLanes(maps, states, Settings(lr, momentum, decay, factors), self._threads)


def require_relative_loss(escape: float | None) -> None:
    """Refuse an escape of trainings that all runs have passed at the first step."""
    if escape is not None and escape <= 1:
        raise ArgumentError(
            "escape", f"must be above 1, the relative loss of all runs, got {escape!r}"
        )


Pixels = TrainingPixels | FunctionPixels
