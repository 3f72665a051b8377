"""The pixels of a map in tiles: steps in pieces, after each of which decided runs leave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pylyap._checks import Floats
from pylyap._parallel import ProgressBar
from pylyap._stability.lanes import PIECE, Lanes
from pylyap._stability.pixels import Pixels
from pylyap._stability.score import Booleans, Integers, Scores
from pylyap._tangent.exponents import lyapunov_spectrum

_TILE_BYTES = 64e6  # of the states of a tile
_MOST_PIXELS = 16384  # of a tile


@dataclass(frozen=True)
class Plan:
    """What is measured of each run."""

    n_steps: int
    escape: float | None
    exponent: bool
    stop_early: bool
    threads: int | None
    seed: int | np.random.SeedSequence


@dataclass(frozen=True)
class Measured:
    """Results (pixels,) of a map."""

    converged: Booleans
    score: Floats
    steps_used: Integers
    exponent: Floats | None


def tile_size(state_size: int) -> int:
    """Number of pixels that are computed together."""
    most = int(_TILE_BYTES / (8.0 * (3 * state_size + 4 * PIECE)))
    return min(max(most // 64 * 64, 64), _MOST_PIXELS)


def room(count: int, exponent: bool) -> Measured:
    """Arrays for the results of so many pixels."""
    return Measured(
        np.zeros(count, bool),
        np.zeros(count),
        np.zeros(count, np.int64),
        np.full(count, np.nan) if exponent else None,
    )


def measure(
    pixels: Pixels,
    plan: Plan,
    bar: ProgressBar,
    found: Measured,
    first: int = 0,
    report: Callable[[int, int], None] | None = None,
) -> int:
    """Measure the pixels from `first` on, a tile at a time; return the steps made.

    After each tile `report` gets the number of pixels that are done and the steps made.
    """
    count, size, made = len(found.score), tile_size(pixels.state_size), 0
    for begin in range(first, count, size):
        tile = np.arange(begin, min(begin + size, count))
        for places, lanes in pixels.lanes(tile):
            made += _measure(lanes, tile[places], plan, bar, found)
        if report is not None:
            report(int(tile[-1]) + 1, made)
    return made


def _measure(lanes: Lanes, at: Integers, plan: Plan, bar: ProgressBar, found: Measured) -> int:
    """Measure the runs of some lanes, which are the pixels `at`; return the steps made."""
    starts = lanes.states.copy() if plan.exponent else None
    scores = Scores(len(at), plan.n_steps, plan.escape, lanes.with_loss)
    rows, made = np.arange(len(at)), 0
    decided: list[tuple[Integers, Floats, int]] = []  # rows, losses that repeat, steps made
    for t in range(0, plan.n_steps, lanes.piece):
        p = min(lanes.piece, plan.n_steps - t)
        before = lanes.states
        losses = lanes.advance(t, p, bar)
        made += p * len(rows)
        escaped = scores.add(rows, losses, t)
        gone = escaped | np.isnan(lanes.states[:, 0])  # all entries of a diverged state are nan
        left = plan.n_steps - t - p
        if not plan.stop_early or left == 0:
            continue
        rests = np.zeros(len(rows), bool)
        if lanes.autonomous and not plan.exponent:
            rests = ~gone & (lanes.states == before).all(axis=1)
        ready = gone | rests
        if not ready.any():
            continue
        losses[gone] = np.nan
        decided.append((rows[ready], losses[ready], t + p))
        bar.advance(int(ready.sum()) * left)
        rows, gone = rows[~ready], gone[~ready]
        lanes.keep(~ready)
        if not rows.size:
            break
    _finish(scores, decided)
    found.converged[at], found.score[at] = scores.result()
    found.steps_used[at] = scores.used
    if found.exponent is not None and starts is not None:
        lanes.keep(~gone)
        alive = rows[~gone]
        bar.advance((len(at) - len(alive)) * plan.n_steps)
        found.exponent[at[alive]] = _exponents(lanes, starts[alive], plan, bar)
    return made


def _exponents(lanes: Lanes, states: Floats, plan: Plan, bar: ProgressBar) -> Floats:
    """Leading exponents of the runs of these lanes from their initial states."""
    if not len(states):
        return np.empty(0)
    spectrum = lyapunov_spectrum(
        lanes.system(), states, plan.n_steps, 1, record_every=plan.n_steps, threads=plan.threads,
        progress=bar, seed=plan.seed,
    )  # fmt: skip
    return spectrum.exponents[:, 0]


def _finish(scores: Scores, decided: list[tuple[Integers, Floats, int]]) -> None:
    """Add the losses of the steps that decided runs did not make."""
    if not decided:
        return
    rows, patterns = (np.concatenate([d[i] for d in decided]) for i in (0, 1))
    starts = np.concatenate([np.full(len(d[0]), d[2]) for d in decided])
    scores.finish(rows, patterns, starts)
