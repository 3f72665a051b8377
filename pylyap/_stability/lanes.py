"""Runs of one map, of which those that are decided are taken out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np

from pylyap._checks import Floats
from pylyap._map_runs import MapRuns
from pylyap._native import core
from pylyap._parallel import ProgressBar
from pylyap._runs import TrainingRuns
from pylyap._stability.score import Booleans
from pylyap.maps import Map, TrainingMap
from pylyap.optimizers import Adam, GradientDescent

PIECE = 16  # steps of a training between two looks, a multiple of the periods that are recognised


class Lanes(Protocol):
    """Runs that make the same steps."""

    states: Floats
    with_loss: bool
    autonomous: bool  # whether a step is the same at every time
    piece: int  # steps between two looks at the runs

    def advance(self, start: int, n_steps: int, bar: ProgressBar) -> Floats:
        """Make steps; return the losses before them (runs, n_steps)."""

    def keep(self, chosen: Booleans) -> None:
        """Keep the chosen runs alone."""

    def system(self) -> Map:
        """The map of these runs, for other analyses."""


@dataclass(frozen=True)
class Settings:
    """Settings of an optimiser for each of some runs, arrays (runs, ...) or None."""

    lr: Floats
    momentum: Floats
    weight_decay: Floats
    factors: Floats | None  # (runs, n_layers, 2)

    def rows(self, chosen: Any) -> Settings:
        """Those of some of the runs."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        given = {name: value for name, value in values.items() if value is not None}
        return replace(self, **{name: value[chosen] for name, value in given.items()})


class TrainingLanes:
    """Trainings of one network on the same data with settings of their own."""

    with_loss = True
    piece = PIECE

    def __init__(
        self, runs: TrainingRuns, states: Floats, settings: Settings, threads: int | None
    ) -> None:
        self.states, self._runs, self._settings, self._threads = states, runs, settings, threads
        rule = runs.optimizer
        full = runs.batch_size == len(runs.inputs)
        self.autonomous = full and rule.schedule is None and isinstance(rule, GradientDescent)

    def advance(self, start: int, n_steps: int, bar: ProgressBar) -> Floats:
        runs, states = self._runs, self.states
        factors = runs.optimizer._factors(start, n_steps)
        if factors is not None:
            runs.problem.set_schedule(start, factors)
        given = self._settings
        rates = core.Rates(given.lr, given.momentum, given.weight_decay, given.factors)
        losses, after = np.empty((len(states), n_steps)), np.empty_like(states)

        def work(task: core.Task) -> None:
            runs.problem.loss_series(states, rates, start, losses, after, task)

        cost = n_steps * runs.step_cost(0, None)
        runs.over(work, len(states), cost, threads=self._threads, steps=n_steps, progress=bar)
        self.states = after
        return losses

    def keep(self, chosen: Booleans) -> None:
        self.states, self._settings = self.states[chosen], self._settings.rows(chosen)

    def system(self) -> TrainingMap:
        given, rule = self._settings, self._runs.optimizer
        options: dict[str, Any] = {"lr": given.lr, "weight_decay": given.weight_decay}
        if isinstance(rule, Adam):
            return self._runs._with(replace(rule, **options))
        if rule.buffer_names:
            options["momentum"] = given.momentum
        if given.factors is not None:
            options |= {
                "layer_scale": given.factors[..., 0], "bias_scale": given.factors[..., 1]
            }  # fmt: skip
        return self._runs._with(replace(rule, **options))


class MapLanes:
    """Runs of a map of the user."""

    autonomous = False  # its step may depend on the index
    piece = 1  # a run beyond `escape` must not overflow in the functions of the user

    def __init__(self, system: Map, maps: MapRuns, states: Floats) -> None:
        self.states, self._system, self._maps = states, system, maps
        self.with_loss = maps.has_loss
        self._measure: Callable[[Floats], Floats] = maps.losses if maps.has_loss else _sizes

    def advance(self, start: int, n_steps: int, bar: ProgressBar) -> Floats:
        losses = np.empty((len(self.states), n_steps))
        for j in range(n_steps):
            losses[:, j] = self._measure(self.states)
            self.states = self._maps.step(self.states, start + j)
            bar.advance(len(self.states))
        return losses

    def keep(self, chosen: Booleans) -> None:
        self.states = self.states[chosen]

    def system(self) -> Map:
        return self._system


def _sizes(states: Floats) -> Floats:
    with np.errstate(over="ignore"):
        sizes: Floats = np.linalg.norm(states, axis=-1)
    return sizes
