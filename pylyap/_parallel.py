"""Runs over threads: the kernels release the GIL, the waiting main thread hears Ctrl-C."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylyap._checks import flag, integer

# Work below this many multiplications (some milliseconds) stays in the calling thread, where
# starting a pool would cost more than it gains.
_INLINE = 2e7

# Tasks per thread: enough that a slow one at the end leaves no core idle for long.
_TASKS_PER_THREAD = 4

_POLL_SECONDS = 0.1  # between two looks at progress and Ctrl-C


class Signals:
    """Two words shared with the kernels, a cancel flag and the steps done so far; and how many
    threads a kernel may use inside one run, where there are fewer runs than threads."""

    def __init__(self, members: int = 1) -> None:
        self.cancel: NDArray[np.int32] = np.zeros(1, np.int32)
        self.done: NDArray[np.int64] = np.zeros(1, np.int64)
        self.members = members


Work = Callable[[int, int, Signals], None]


class ProgressBar:
    """Steps done of all runs (or another unit), on stderr; or nothing, if it is not to be shown.

    `done` were done before: they tell nothing of the speed.
    """

    def __init__(
        self, total: int, label: str, shown: bool, *, unit: str = " steps", done: int = 0
    ) -> None:
        self.shown = shown
        self.base = 0  # steps of the calls before this one
        self._bar: Any = None
        if shown:
            from tqdm import tqdm

            self._bar = tqdm(
                total=total,
                desc=label,
                unit=unit,
                unit_scale=unit == " steps",  # 1.2M steps, but 1200 of what is few
                initial=done,
                file=sys.stderr,
            )

    def show(self, done: int, note: str = "") -> None:
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(self.base + done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def available_threads() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def thread_count(threads: int | None, name: str = "threads") -> int:
    """The number of threads to use: all cores this process may use, or fewer on request.

    Never more than the cores. The threads of a team inside one run wait for each other at every
    step: with four of them on each core a step takes up to 50 times as long.
    """
    available = available_threads()
    return available if threads is None else min(integer(name, threads, least=1), available)


def over_runs(
    work: Work,
    runs: int,
    *,
    group: int = 1,
    threads: int | None = None,
    cost: float = 0.0,
    steps: int = 0,
    progress: bool | ProgressBar = False,
    label: str = "",
) -> None:
    """Call ``work(first, count, signals)`` for ranges that cover all runs.

    Parameters
    ----------
    group
        Runs that a kernel takes at once; ranges are multiples of it.
    cost
        Multiplications of the whole work, to tell whether threads are worth their start.
    steps
        Steps of one run, for the progress bar.
    threads
        Number of threads, at most one per core this process may use.
    progress
        Whether to show a bar, or one that others move too.
    """
    workers = thread_count(threads)
    ours = not isinstance(progress, ProgressBar)
    bar = (
        progress
        if isinstance(progress, ProgressBar)
        else ProgressBar(runs * steps, label, flag("progress", progress) and runs > 0)
    )
    if runs == 0:
        return
    if cost < _INLINE and not bar.shown:
        work(0, runs, Signals())
        return
    groups = -(-runs // group)
    signals = Signals(members=max(1, workers // groups))
    chunk = group * max(1, groups // (workers * _TASKS_PER_THREAD))
    ranges = [(first, min(chunk, runs - first)) for first in range(0, runs, chunk)]
    pool = ThreadPoolExecutor(min(workers, len(ranges)))
    # A queue written in C: an interrupt between two of its instructions leaves no lock behind. It
    # gets the last task and any that fails: to wake for each would take a core from the workers.
    news: SimpleQueue[Future[None]] = SimpleQueue()
    tasks_done = count(1)

    def tell(task: Future[None]) -> None:
        if task.cancelled():
            return
        if next(tasks_done) == len(ranges) or task.exception() is not None:
            news.put(task)

    try:
        for begin, size in ranges:
            pool.submit(work, begin, size, signals).add_done_callback(tell)
        running = True
        while running:
            try:
                news.get(timeout=_POLL_SECONDS).result()
                running = False
            except Empty:
                pass
            bar.show(int(signals.done[0]))
    except BaseException:
        # Kernels stop at their next step; nobody waits for that, nor for what has not begun.
        signals.cancel[0] = 1
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    finally:
        if ours:
            bar.close()
        else:
            bar.base += int(signals.done[0])
    pool.shutdown()
