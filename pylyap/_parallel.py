"""Runs over threads: kernels release the GIL while the main thread waits for Ctrl-C."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from pylyap._checks import flag, integer
from pylyap._native import core

# Work below this many multiplications (a few milliseconds) stays in the calling thread: starting a
# pool would take longer than it saves.
_INLINE = 2e7

# Tasks per thread, so that a slow task at the end leaves no core idle for long.
_TASKS_PER_THREAD = 4

_POLL_SECONDS = 0.1  # between two checks for Ctrl-C and updates of the progress bar


# Performs a task: the runs first ... first + count - 1.
Work = Callable[[core.Task], None]


class ProgressBar:
    """A progress bar on stderr, in steps summed over runs or another unit; or none.

    Parameters
    ----------
    total : int
        Number of steps.
    label : str
        Text before the bar.
    shown : bool
        Whether to show the bar.
    unit : str
        Unit of `total`.
    done : int
        Steps made before, which do not count for the speed.
    """

    def __init__(
        self, total: int, label: str, shown: bool, *, unit: str = " steps", done: int = 0
    ) -> None:
        self.shown = shown
        self.total = total
        self.base = 0  # steps of earlier calls that shared this bar
        self._bar: Any = None
        if shown:
            from tqdm.auto import tqdm  # a widget in notebooks, text elsewhere

            self._bar = tqdm(
                total=total,
                desc=label,
                unit=unit,
                unit_scale=unit == " steps",  # 1.2M steps, but 1200 runs
                initial=done,
                file=sys.stderr,
            )

    def show(self, done: int, note: str = "") -> None:
        """Show the number of steps of the current call, and a note."""
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(self.base + done - self._bar.n)

    def advance(self, steps: int) -> None:
        """Add steps that were made outside `over_runs`."""
        self.base += steps
        self.show(0)

    def extend(self, steps: int) -> None:
        """Add steps to the total, which turned out to be needed."""
        self.total += steps
        if self._bar is not None:
            self._bar.total = self.total

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def progress_bar(
    progress: bool | ProgressBar, total: int, label: str, *, unit: str = " steps"
) -> Iterator[ProgressBar]:
    """The bar of the caller, or a new one."""
    if isinstance(progress, ProgressBar):
        yield progress
        return
    with ProgressBar(total, label, flag("progress", progress), unit=unit) as bar:
        yield bar
        bar.show(bar.total - bar.base)  # runs that ended early count as done


def available_threads() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def thread_count(threads: int | None, name: str = "threads") -> int:
    """The number of threads to use: all cores this process may use, or fewer on request.

    Never more than the cores. Threads inside one run wait for each other at every step: with four
    of them on each core a step takes up to 50 times as long.
    """
    available = available_threads()
    threads = _LIMIT.get() if threads is None else integer(name, threads, least=1)
    return available if threads is None else min(threads, available)


_LIMIT: ContextVar[int | None] = ContextVar("threads", default=None)


@contextmanager
def thread_limit(threads: int | None) -> Iterator[None]:
    """Number of threads of the calls inside that do not get one; None is all cores."""
    token = _LIMIT.set(None if threads is None else integer("threads", threads, least=1))
    try:
        yield
    finally:
        _LIMIT.reset(token)


@lru_cache(maxsize=16)
def _uncontrolled_task(runs: int) -> core.Task:
    """All runs in the calling thread: nobody cancels it or reads its number of steps."""
    return core.Task(np.zeros(1, np.int32), np.zeros(1, np.int64), workers=1, first=0, count=runs)


def over_runs(
    work: Work,
    runs: int,
    *,
    group: int = 1,
    alone: int = 0,
    threads: int | None = None,
    cost: float = 0.0,
    steps: int = 0,
    progress: bool | ProgressBar = False,
    label: str = "",
) -> None:
    """Call ``work(task)`` for tasks that cover all runs.

    Parameters
    ----------
    work : callable of a core.Task
        Performs the runs ``task.first`` … ``task.first + task.count - 1``.
    runs : int
        Number of runs.
    group : int
        Runs that a kernel processes together; tasks are multiples of it, unless `alone`.
    alone : int
        Number of runs up to which a task takes less time than one of a whole group. Few runs are
        divided into such tasks, so that no thread is idle.
    threads : int, optional
        Number of threads, at most one per core this process may use, which is the default.
    cost : float
        Multiplications of the whole work; little work is done in the calling thread.
    steps : int
        Steps of one run, for the progress bar.
    progress : bool or ProgressBar
        Whether to show a progress bar, or a bar that several calls share.
    label : str
        Text before the bar.
    """
    if threads is not None:
        threads = integer("threads", threads, least=1)
    shared = isinstance(progress, ProgressBar)
    shown = progress.shown if isinstance(progress, ProgressBar) else flag("progress", progress)
    if runs == 0:
        return
    if cost < _INLINE and not shown:
        work(_uncontrolled_task(runs))
        if isinstance(progress, ProgressBar):
            progress.base += runs * steps
        return
    bar = progress if isinstance(progress, ProgressBar) else ProgressBar(runs * steps, label, shown)
    cancel, done = np.zeros(1, np.int32), np.zeros(1, np.int64)
    workers = thread_count(threads)
    groups = -(-runs // group)
    chunk = group * max(1, groups // (workers * _TASKS_PER_THREAD))
    if groups < workers and -(-runs // workers) <= alone:
        chunk = -(-runs // workers)
    inside = max(1, workers // -(-runs // chunk))  # threads of each run, where tasks are fewer
    tasks = [
        core.Task(cancel, done, inside, first, min(chunk, runs - first))
        for first in range(0, runs, chunk)
    ]
    pool = ThreadPoolExecutor(min(workers, len(tasks)))
    # A queue implemented in C: an interrupt between two instructions leaves no lock behind. It
    # receives the last task and any that failed: one wake-up per task would take a core from the
    # workers.
    ended: SimpleQueue[Future[None]] = SimpleQueue()
    tasks_done = count(1)

    def notify(future: Future[None]) -> None:
        if future.cancelled():
            return
        if next(tasks_done) == len(tasks) or future.exception() is not None:
            ended.put(future)

    try:
        for task in tasks:
            pool.submit(work, task).add_done_callback(notify)
        running = True
        while running:
            try:
                ended.get(timeout=_POLL_SECONDS).result()
                running = False
            except Empty:
                pass
            bar.show(int(done[0]) if running else runs * steps)  # diverged runs count as done
        bar.base += runs * steps
    except BaseException:
        # Kernels stop at their next step; do not wait for them, and drop tasks not yet started.
        cancel[0] = 1
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    finally:
        if not shared:
            bar.close()
    pool.shutdown()
