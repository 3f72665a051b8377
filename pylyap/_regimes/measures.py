"""Measurements of training runs: exponent, growth, sharpness and orbit of the late window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._parallel import ProgressBar
from pylyap._perturbations.ensembles import perturbation_ensemble
from pylyap._perturbations.growth import growth_rate
from pylyap._regimes.rule import rising_fraction
from pylyap._statistics import batch_means
from pylyap._streaming import stream
from pylyap._tangent.exponents import lyapunov_spectrum
from pylyap._tangent.sharpness import sharpness_along, steps_of_sharpness
from pylyap.maps import TrainingMap

Integers = NDArray[np.int64]

_AT_ONCE = 2e8  # bytes of history that are kept at a time
_STATES = 12  # last states whose sharpness is averaged: whole cycles of 2, 3, 4, 6 and 12 steps
_GROWTH = 200  # steps at most over which perturbations grow


@dataclass(frozen=True)
class Window:
    """Settings of the measurements, and the steps of the late window."""

    early: int  # steps before the late window
    late: int
    observe: int | None
    n_perturbations: int
    eps: float
    threads: int | None
    seed: int | np.random.SeedSequence

    def runs_at_once(self, n: int) -> int:
        """Runs with states of length n that are measured together."""
        each = 16.0 * (self.early + self.late) + 8.0 * (self.n_perturbations + _STATES) * n
        return max(1, int(_AT_ONCE / each))

    @property
    def steps_per_run(self) -> int:
        """Steps that the measurements of a run take, for the progress bar."""
        steps = 2 * (self.early + self.late) + steps_of_sharpness(_STATES - 1, 1)
        if self.n_perturbations:
            members = self.n_perturbations + 1
            steps += self.early + members * min(_GROWTH, self.late)
        return steps


def measure(
    system: TrainingMap, weights: Floats, run: Integers, window: Window, bar: ProgressBar
) -> dict[str, Any]:
    """Measurements of runs (m, n_params), each with its own rate and number."""
    early, late, threads = window.early, window.late, window.threads
    s = lyapunov_spectrum(
        system, weights, early + late, 1, threads=threads, progress=bar, seed=window.seed
    )
    rates = s.growth[:, early:]
    begin = system.trajectory(
        weights, early, every=max(early, 1), threads=threads, progress=bar
    )[:, -1]  # fmt: skip
    projection, observed, near_end = _along(system, begin, window, bar)
    ratio = sharpness_along(
        system, near_end, _STATES - 1, start=early + late - (_STATES - 1), threads=threads,
        progress=bar, seed=window.seed,
    ).ratio.mean(axis=1)  # fmt: skip
    accuracy = np.full(len(weights), np.nan)
    if system.network.classifies:
        accuracy = system.accuracy(s.state)
    return {
        "first_loss": s.loss[:, 0].copy(),
        "loss": s.loss[:, -1].copy(),
        "accuracy": accuracy,
        "exponent": rates.mean(axis=1)[:, 0],
        "stderr": batch_means(rates).stderr[:, 0],
        "growth": _growth(system, weights, run, window, bar),
        "sharpness": ratio,
        "non_monotone": rising_fraction(s.loss, s.loss[:, 0]),
        "late_loss": s.loss[:, early:].copy(),
        "late_weight": observed,
        "projection": projection,
    }


def _along(
    system: TrainingMap, states: Floats, window: Window, bar: ProgressBar
) -> tuple[Floats, Floats | None, Floats]:
    """The orbit of the late window, from states (m, n) at its start.

    Returns the weights along a random direction (m, n_late + 1), the observed weight likewise, and
    the states (m, n) at the first of the last steps whose sharpness is averaged.
    """
    n = system.n_params
    direction = np.random.default_rng(_checks.seed_sequence(window.seed)).standard_normal(n)
    shape = (len(states), window.late + 1)
    projection = np.empty(shape)
    observed = None if window.observe is None else np.empty(shape)
    middle = window.late - (_STATES - 1)
    at_middle = states
    for begin, end in ((0, middle), (middle, window.late)):
        at_middle = states

        def advance(states: Floats, done: int, count: int, begin: int = begin) -> Floats:
            start = window.early + begin + done
            return system.trajectory(
                states, count, start=start, threads=window.threads, progress=bar
            )

        for done, path in stream(advance, states, end - begin, n_bytes=_AT_ONCE):
            span = slice(begin + done, begin + done + path.shape[1])
            projection[:, span] = np.einsum("rti,i->rt", path[..., :n], direction)
            if observed is not None:
                observed[:, span] = path[..., window.observe]
            states = path[:, -1]
    return projection, observed, at_middle


def _growth(
    system: TrainingMap, weights: Floats, run: Integers, window: Window, bar: ProgressBar
) -> Floats:
    """Growth of perturbations made at the start of the window, the same at every rate."""
    number, n = window.n_perturbations, system.n_params
    if number == 0:
        return np.full(len(weights), np.nan)
    seeds = _checks.seed_sequence(window.seed)
    unit = np.empty((len(run), n, number))
    for u, r in zip(unit, run, strict=True):
        u[:] = _checks.generator_of_run(seeds, r).uniform(-1.0, 1.0, (number, n)).T
    ensemble = perturbation_ensemble(
        system,
        weights,
        window.eps,
        number,
        min(_GROWTH, window.late),
        distribution=unit,
        perturb="weights",
        start=window.early,
        keep="mean",
        threads=window.threads,
        progress=bar,
    )
    return growth_rate(ensemble.mean, "until_saturation", axis=None).slope
