"""How a study is cut into tasks, and what it will take."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass

import numpy as np

from pylyap import _checks
from pylyap._errors import ArgumentTypeError
from pylyap._parallel import available_threads
from pylyap.studies import results, store
from pylyap.studies.study import Study

# Seconds of a task: long enough that handing it out and putting it on the disk (up to 0.1 s) are
# little beside it, short enough that little is lost with it.
_TASK_SECONDS = 3.0
_SHORT_SECONDS = 0.3  # where there would be few tasks otherwise
_TASKS_PER_WORKER = 8
_TASK_BYTES = 2**27  # of its results

_TIMED_SECONDS = 0.2  # of a calibration, if there are runs enough
# Multiplications per second of a thread, to tell whether it can be made: from 6e9 (ensembles,
# training) to 1.4e10 (spectra) on a Xeon with AVX-512, November 2026; less without.
_NOMINAL = 3e9
_LONGEST_SECONDS = 5.0

_POINTS = 5000  # of a grid at which an estimate looks

IN_FLIGHT = 2  # tasks handed out for each worker, so that none waits for the driver


@dataclass(frozen=True)
class StudyPlan:
    """What a study will take.

    Attributes
    ----------
    runs
        Still to be done.
    tasks
        In which they are done.
    block
        Runs of a task, at most.
    workers
        Tasks side by side.
    seconds
        Until the end.
    measured
        Whether that follows from a few runs that were timed; where one would take too long it is
        no more than an order of magnitude.
    disk
        Bytes of all results of the study, uncompressed.
    memory
        Bytes of the results that are worked on or on their way to the disk, at most.
    """

    runs: int
    tasks: int
    block: int
    workers: int
    seconds: float
    measured: bool
    disk: int
    memory: int


def plan_study(
    study: Study, path: str | os.PathLike[str] | None = None, *, workers: int | None = None
) -> StudyPlan:
    """What a study will take, by timing a few of its runs; nothing is written.

    Parameters
    ----------
    study
        The `Study`.
    path
        Its folder: what is done there need not be done again.
    workers
        Tasks side by side; all cores by default.

    Raises
    ------
    ValueError
        If the folder is that of another study, or its tasks do not fit into memory.
    """
    require_study(study)
    workers = worker_count(workers)
    needs = measure(study)
    folder = None if path is None else results.folder_of(path)
    now = None
    if folder is not None and (folder / store.RESULTS).exists():
        now = results.progress(folder)
        store.check_same(folder, now.about, study, extend=True)
    block = block_size(study, needs, workers) if now is None else now.about["block"]
    store.require_memory(study, block)
    left = np.ones((*study.shape, study.runs), bool)
    if now is not None:
        left[tuple(map(slice, now.statuses.shape))] = ~store.is_done(now.statuses)
    tasks = int(store.in_blocks(left, block).sum())
    runs = int(left.sum())
    kept = _bytes_kept(study)
    longest = min(block, runs) * needs.longest
    return StudyPlan(
        runs=runs,
        tasks=tasks,
        block=block,
        workers=workers,
        seconds=float(max(runs * needs.mean / workers, longest)),
        measured=needs.measured,
        disk=kept * left.size,
        memory=int(block * min(tasks, workers) * (needs.memory + IN_FLIGHT * kept)),
    )


def require_study(study: object) -> None:
    """Raise TypeError unless it is one."""
    if not isinstance(study, Study):
        raise ArgumentTypeError("study", f"must be a Study, got {_checks.describe(study)}")


def worker_count(workers: int | None) -> int:
    """Tasks side by side in this process."""
    if workers is None:
        return available_threads()
    return _checks.integer("workers", workers, least=1)


def _bytes_kept(study: Study) -> int:
    """Of one run."""
    variables = study.variables.values()
    return sum(int(np.dtype(v.dtype).itemsize * math.prod(v.shape)) for v in variables)


@dataclass(frozen=True)
class Needs:
    """What a run needs on one thread: seconds, mean and most over the grid, and bytes at most.

    `measured` is False where the seconds are only an order of magnitude; `group` are the runs that
    the kernels take at once, since fewer take as long.
    """

    mean: float
    longest: float
    memory: float
    group: int
    measured: bool


def measure(study: Study) -> Needs:
    """Time a few runs where they are cheapest, for a second or so."""
    store.require_memory(study, study.runs)  # or more
    points = _points(study)
    costs = np.array([study.cost(point) for point in points])
    cheapest, dearest = points[int(costs.argmin())], points[int(costs.argmax())]
    count = min(study.runs, study.group(cheapest))
    each = study.cost(cheapest) / _NOMINAL
    measured = count * each <= _LONGEST_SECONDS
    if measured:
        try:
            each = _seconds_per_run(study, cheapest, count)
        except Exception:  # which its task will record
            measured = False
    unit = each / study.cost(cheapest)
    return Needs(
        mean=float(costs.mean()) * unit,
        longest=float(costs.max()) * unit,
        memory=max(study.memory(point) for point in points),
        group=study.group(dearest),
        measured=measured,
    )


def _seconds_per_run(study: Study, point: tuple[int, ...], count: int) -> float:
    """Of so many runs at once, or of more if they take no time."""
    seconds = _timed(study, point, count)  # with all that is done only once
    if seconds < _LONGEST_SECONDS:
        seconds = _timed(study, point, count)
        more = min(int(count * _TIMED_SECONDS / seconds), study.runs)
        if more > count:
            count, seconds = more, _timed(study, point, more)
    return seconds / count


def _timed(study: Study, point: tuple[int, ...], count: int) -> float:
    begin = time.perf_counter()
    study.compute(point, 0, count, threads=1)
    return time.perf_counter() - begin


def block_size(study: Study, needs: Needs, workers: int) -> int:
    """Runs of a task: some seconds' worth, enough tasks for all workers, in bounded memory."""
    total = study.runs * math.prod(study.shape) * needs.mean
    seconds = total / (workers * _TASKS_PER_WORKER)
    seconds = min(max(seconds, _SHORT_SECONDS), _TASK_SECONDS)
    block = int(min(seconds / needs.longest, study.runs))
    block = max(block - block % needs.group, needs.group)
    return max(1, min(block, study.runs, int(_TASK_BYTES / needs.memory)))


def _points(study: Study) -> list[tuple[int, ...]]:
    """All points of the grid, or many of them."""
    total = math.prod(study.shape)
    chosen = np.arange(min(total, _POINTS))
    if total > _POINTS:
        chosen = np.random.default_rng(0).choice(total, _POINTS, replace=False)
    return [tuple(map(int, np.unravel_index(i, study.shape))) for i in chosen]
