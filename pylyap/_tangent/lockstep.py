"""Benettin's method for maps whose functions take batches: all runs make each step together."""

from __future__ import annotations

from functools import partial

import numpy as np

from pylyap._map_runs import MapRuns
from pylyap._native import core
from pylyap._parallel import ProgressBar, over_runs, progress_bar
from pylyap._status import Status
from pylyap._tangent.frames import Plan


def in_lockstep(
    plan: Plan,
    maps: MapRuns,
    runs: core.SpectrumRuns,
    record_every: int,
    *,
    threads: int | None,
    progress: bool | ProgressBar,
    losses: bool,
) -> None:
    """Fill `runs` with the results of a plan; Python makes the steps, the core does the rest.

    The functions of the map are called once per step for all runs. The core orthonormalises the
    frames on several threads and sums their growth, with the operations of its own driver. So a run
    has the same bits as in any other batch, and as a map of the same functions for single states
    has, as far as the batched functions return the same bits for a row in any batch.
    """
    lockstep = core.Lockstep(runs)
    status, frame, loss = runs.status, runs.frame, runs.loss
    records = plan.n_steps // record_every
    has_loss = losses and maps.functions.loss is not None
    cost = plan.runs * plan.k * (_PER_ENTRY * plan.n + 4.0 * plan.n * plan.k)
    states = plan.states
    # A plain integer: NumPy looks for attributes of an enum in Python, and drops a Ctrl-C there.
    finished = int(Status.FINISHED)
    steps = plan.n_transient + plan.n_steps
    with progress_bar(progress, plan.runs * steps, "spectrum") as bar:
        for step in range(steps if plan.runs else 0):
            record, begins = divmod(step - plan.n_transient, record_every)
            if begins == 0 and record >= 0:
                if (status != finished).all():
                    bar.advance(plan.runs * (steps - step))
                    break
                if has_loss:
                    loss[:, record] = maps.loss(states)
            pushed, source = maps.tangent(states, frame, plan.start + step)
            after = maps.step(states, plan.start + step)
            take = partial(lockstep.take, step, after, pushed, source)
            over_runs(take, plan.runs, threads=threads, cost=cost)
            diverged = status != finished
            states = np.where(diverged[:, np.newaxis], np.nan, after) if diverged.any() else after
            bar.advance(plan.runs)
    if has_loss:
        loss[:, records] = maps.loss(states)
    runs.state[:] = states


# Cost of copying an entry of a frame to the order of the kernels and back, in multiplications.
_PER_ENTRY = 16.0
