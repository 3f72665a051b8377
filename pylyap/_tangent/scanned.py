"""Benettin's method for maps that make many steps with their tangent vectors in one call."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from pylyap._checks import Floats
from pylyap._native import core
from pylyap._parallel import ProgressBar, over_runs, progress_bar
from pylyap._status import Status
from pylyap._tangent.frames import Plan


class Propagation(NamedTuple):
    """Runs after some steps with orthonormalisations, the result of ``propagate``.

    Attributes
    ----------
    state : ndarray, shape (m, n)
        Last states, all nan from the step on after which an entry was not finite.
    frame : ndarray, shape (m, n, k)
        Last frames.
    growth : ndarray, shape (m, n_units, k)
        ln diag R of each orthonormalisation.
    loss : ndarray, shape (m, n_units)
        Loss of the whole data before the first step of each unit, where a record begins with it.
    n_finite : ndarray of int, shape (m,)
        Number of steps after which the state was finite.
    collapsed : ndarray of bool, shape (m,)
        Whether a direction fell below the rounding error and was not replaced. One that was has
        growth -inf.
    final_loss : ndarray, shape (m,), or None
        Loss of the whole data at the last states, if it was computed.
    """

    state: Floats
    frame: Floats
    growth: Floats
    loss: Floats
    n_finite: NDArray[np.int64]
    collapsed: NDArray[np.bool_]
    final_loss: Floats | None = None


class Propagating(Protocol):
    """A map whose runs need no Python between the steps."""

    @property
    def lanes(self) -> int:
        """Number of runs that are computed together."""

    def loss(self, x: Floats) -> Floats:
        """Loss of the whole data."""

    def propagate(
        self, x: Floats, V: Floats, t: int, n_steps: int, *, qr_every: int, record_every: int,
        since_record: int, last: bool,
    ) -> Propagation:  # fmt: skip
        """Steps t ... t + n_steps − 1, orthonormalised every `qr_every` steps and after the last.

        x (m, n), V (m, n, k). Records begin every `record_every` steps, the last one `since_record`
        steps before the first step. If these steps are the last of the runs, the result may have
        the losses at the end.
        """


# Of a call between two checks for Ctrl-C, for a map without `seconds_per_call`.
_SECONDS = 0.1
_FEW, _MANY = 4, 1 << 12  # units of a first call, before its time is known, and of any call

# Seconds per step of each map with k vectors, so that later runs begin with long calls.
_PACE: WeakKeyDictionary[Any, dict[tuple[int, int], float]] = WeakKeyDictionary()


def scanned(
    plan: Plan,
    runs: core.SpectrumRuns,
    qr_every: int,
    record_every: int,
    *,
    threads: int | None,
    progress: bool | ProgressBar,
) -> NDArray[np.int64]:
    """Fill `runs` with the results of a plan whose map has a method ``propagate``.

    Returns the runs in which a direction collapsed. They are left out: the core replaces such a
    direction, and its growth is -inf.
    """
    system: Any = plan.system
    lanes = system.lanes
    collapsed: list[int] = []
    lock = threading.Lock()
    alone = plan.runs <= lanes
    total = plan.runs * (plan.n_transient + plan.n_steps)
    with progress_bar(progress, total, "spectrum") as bar:

        def shown(steps: int) -> None:
            with lock:
                bar.advance(steps)

        scan = _Scan(system, plan, qr_every, record_every, runs, shown)

        def work(task: core.Task) -> None:
            last = task.first + task.count
            for first in range(task.first, last, lanes):
                collapsed.extend(scan.fill(slice(first, min(first + lanes, last)), task))

        over_runs(
            work, plan.runs, group=lanes, threads=threads, cost=0.0 if alone else math.inf
        )  # fmt: skip
    return np.array(sorted(collapsed), np.int64)


@dataclass(frozen=True)
class _Scan:
    """Runs of a plan by ``propagate``."""

    system: Propagating
    plan: Plan
    qr_every: int
    record_every: int
    runs: core.SpectrumRuns
    show: Callable[[int], None]

    def fill(self, some: slice, task: core.Task) -> list[int]:
        """Fill the arrays of some runs; those in which a direction collapsed are left out."""
        plan, runs = self.plan, self.runs
        x, Q = plan.states[some], runs.frame[some]
        before = self._travel(x, Q, plan.start, plan.n_transient, task, last=False)
        if before is None:
            return []
        if plan.n_transient:
            x, Q = before.state, before.frame
        after = self._travel(
            x, Q, plan.start + plan.n_transient, plan.n_steps, task, last=True
        )  # fmt: skip
        if after is None:
            return []
        collapsed = []
        for lane, r in enumerate(range(some.start, some.stop)):
            if before.collapsed[lane] or after.collapsed[lane]:
                collapsed.append(r)
            else:
                self._store(r, lane, before, after)
        return collapsed

    def _travel(
        self, x: Floats, Q: Floats, t: int, n_steps: int, task: core.Task, *, last: bool
    ) -> Propagation | None:
        """Steps in calls of about a tenth of a second; None if cancelled."""
        m, k = len(x), Q.shape[-1]
        if n_steps == 0:
            empty = np.zeros((m, 0, k)), np.zeros((m, 0))
            return Propagation(x, Q, *empty, np.zeros(m, np.int64), np.zeros(m, bool))
        parts: list[Propagation] = []
        pace, key, done = _PACE.setdefault(self.system, {}), (m, k), 0
        while done < n_steps:
            if task.cancelled:
                return None
            seconds = getattr(self.system, "seconds_per_call", _SECONDS)
            units = int(seconds / pace[key] / self.qr_every) if key in pace else _FEW
            count = min(max(1, min(units, _MANY)) * self.qr_every, n_steps - done)
            begin = time.perf_counter()
            part = self.system.propagate(
                x, Q, t + done, count, qr_every=self.qr_every, record_every=self.record_every,
                since_record=done % self.record_every, last=last and done + count == n_steps,
            )  # fmt: skip
            parts.append(part)
            x, Q, done = part.state, part.frame, done + count
            self.show(m * count)
            if part.collapsed.all():
                break
            seconds = (time.perf_counter() - begin) / count
            pace[key] = min(seconds, pace.get(key, math.inf))  # a first call is compiled
        if len(parts) == 1:
            return part
        return Propagation(
            x,
            Q,
            np.concatenate([p.growth for p in parts], 1),
            np.concatenate([p.loss for p in parts], 1),
            np.sum([p.n_finite for p in parts], axis=0),
            np.any([p.collapsed for p in parts], axis=0),
            part.final_loss,
        )

    def _store(self, r: int, lane: int, before: Propagation, after: Propagation) -> None:
        """Arrays of run r, nan from the record on in which it diverged, as the core writes them."""
        plan, runs, every = self.plan, self.runs, self.record_every
        records = plan.n_steps // every
        aligned = before.n_finite[lane] == plan.n_transient
        aligned = aligned and bool((before.growth[lane] < np.inf).all())  # -inf: collapsed
        runs.transient_growth[r] = before.growth[lane].sum(0) if aligned else np.nan
        n_done = int(after.n_finite[lane]) if aligned else 0
        bad = ~(after.growth[lane] < np.inf).all(-1)
        if aligned and bad.any():
            n_done = min(n_done, (int(np.argmax(bad)) + 1) * self.qr_every - 1)
        finite = aligned and n_done == plan.n_steps
        growth = after.growth[lane].reshape(records, -1, plan.k).sum(1)
        growth[n_done // every :] = np.nan
        loss = after.loss[lane].reshape(records, -1)[:, 0].copy()
        loss[n_done // every + 1 :] = np.nan
        if not aligned:
            loss[:] = np.nan
        runs.growth[r], runs.loss[r, :records], runs.loss[r, records] = growth, loss, np.nan
        runs.state[r] = runs.frame[r] = np.nan
        runs.n_done[r] = n_done
        runs.status[r] = Status.FINISHED if finite else Status.DIVERGED
        if finite:
            runs.state[r], runs.frame[r] = after.state[lane], after.frame[lane]
            known = after.final_loss
            final = self.system.loss(after.state[lane]) if known is None else known[lane]
            runs.loss[r, records] = final
