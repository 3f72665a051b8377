"""Division of a study into tasks, and estimates of time, disk space and memory."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass

import numpy as np

from pylyap import _checks
from pylyap._errors import ArgumentTypeError
from pylyap._parallel import available_threads
from pylyap._results import as_table
from pylyap.studies import results, store
from pylyap.studies.study import Study

# Duration of a task: much longer than its overhead (up to 0.1 s for submission and writing), and
# short enough that an interruption wastes little work.
_TASK_SECONDS = 3.0
_SHORT_SECONDS = 0.3  # for small studies, which would have few tasks otherwise
_TASKS_PER_WORKER = 8
_TASK_BYTES = 2**27  # of its results

_TIMED_SECONDS = 0.2  # of a timing measurement, if there are enough runs
# Multiplications per second of a thread, to decide whether a run can be timed: from 6e9 (ensembles,
# training) to 1.4e10 (spectra) on a Xeon with AVX-512, November 2026; less without AVX-512.
_NOMINAL_SPEED = 3e9
_LONGEST_SECONDS = 5.0

_MAX_POINTS = 5000  # of a grid, for which costs are evaluated

IN_FLIGHT = 2  # tasks submitted per worker, so that no worker waits for the driver


@dataclass(frozen=True, repr=False)
class StudyPlan:
    """Estimated time, disk space and memory of a study, as returned by `plan_study`.

    Attributes
    ----------
    runs : int
        Number of remaining runs.
    tasks : int
        Number of tasks into which they are divided.
    block : int
        Maximum number of runs per task.
    workers : int
        Number of tasks that run in parallel.
    seconds : float
        Estimated remaining time.
    measured : bool
        True if `seconds` is based on timed runs; False if a run takes too long to be timed, so that
        `seconds` is an order of magnitude only.
    disk : int
        Size of all results of the study in bytes, uncompressed.
    memory : int
        Maximum size in bytes of the results of tasks that are running or being written.
    data : int
        Size in bytes of the samples, which each worker process holds.

    Examples
    --------
    >>> import pylyap as pl
    >>> study = pl.Study(
    ...     data={"name": "iris"},
    ...     network={"hidden": 3, "loss": "cross_entropy"},
    ...     analysis={"name": "spectrum", "n_steps": 20, "k": 2},
    ...     runs=4,
    ... )
    >>> plan = pl.plan_study(study, workers=2)
    >>> plan.runs, plan.workers, plan.measured
    (4, 2, True)
    """

    runs: int
    tasks: int
    block: int
    workers: int
    seconds: float
    measured: bool
    disk: int
    memory: int
    data: int = 0

    def __repr__(self) -> str:
        """The numbers with their units."""
        from tqdm import tqdm

        time = f"{self.seconds:.2g} s" if self.seconds < 60 else tqdm.format_interval(self.seconds)
        about = "about" if self.measured else "roughly (not measured)"
        return "\n".join(
            [
                f"StudyPlan of {_counted(self.runs, 'run')}",
                f"  tasks    {self.tasks} of at most {_counted(self.block, 'run')}",
                f"  workers  {self.workers}",
                f"  time     {about} {time}",
                f"  disk     {_checks.size(self.disk)}, uncompressed",
                *([f"  data     {_checks.size(self.data)}"] if self.data else []),
                f"  memory   {_checks.size(self.memory)} for results",
            ]
        )

    def _repr_html_(self) -> str:
        """For notebooks."""
        return as_table(repr(self))


def _counted(n: int, what: str) -> str:
    return f"{n:,} {what}{'s'[: n != 1]}"


def plan_study(
    study: Study, path: str | os.PathLike[str] | None = None, *, workers: int | None = None
) -> StudyPlan:
    """Estimate time, disk space and memory of a study by timing a few of its runs.

    Nothing is written.

    Parameters
    ----------
    study : Study
        The study.
    path : str or path-like, optional
        Folder of the study, whose completed runs are excluded.
    workers : int, optional
        Number of tasks that run in parallel. Default: the number of available cores.

    Returns
    -------
    StudyPlan
        Numbers of runs and tasks, time, disk space and memory.

    Raises
    ------
    ArgumentError
        If the folder is of another study, or the list of tasks does not fit into memory.

    Examples
    --------
    >>> import pylyap as pl
    >>> study = pl.Study(
    ...     data={"name": "iris"},
    ...     network={"hidden": 3, "loss": "cross_entropy"},
    ...     analysis={"name": "spectrum", "n_steps": 20, "k": 2},
    ...     runs=4,
    ...     grid={"optimizer.lr": [0.1, 1.0]},
    ... )
    >>> plan = pl.plan_study(study, workers=2)
    >>> plan.runs, plan.block <= 4, plan.seconds < 10
    (8, True, True)
    """
    require_study(study)
    workers = 1 if workers is None and study._in_turn else worker_count(workers)
    cost = measure(study)
    folder = None if path is None else results.checked_folder(path)
    now = None
    if folder is not None and (folder / store.RESULTS).exists():
        now = results.progress(folder)
        store.require_same_study(folder, now.about, study, extend=True)
    block = block_size(study, cost, workers) if now is None else now.about["block"]
    store.require_memory(study, block)
    left = np.ones((*study.shape, study.runs), bool)
    if now is not None:
        left[tuple(map(slice, now.statuses.shape))] = ~store.is_done(now.statuses)
    tasks = int(store.any_in_block(left, block).sum())
    runs = int(left.sum())
    kept = _bytes_kept(study)
    longest = min(block, runs) * cost.longest
    return StudyPlan(
        runs=runs,
        tasks=tasks,
        block=block,
        workers=workers,
        seconds=float(max(runs * cost.mean / workers, longest)),
        measured=cost.measured,
        disk=kept * left.size,
        memory=int(block * min(tasks, workers) * (cost.memory + IN_FLIGHT * kept)),
        data=study.data_bytes,
    )


def require_study(study: object) -> None:
    """Raise ArgumentTypeError unless the argument is a Study."""
    if not isinstance(study, Study):
        raise ArgumentTypeError("study", f"must be a Study, got {_checks.describe(study)}")


def worker_count(workers: int | None) -> int:
    """Number of tasks that run in parallel in this process."""
    if workers is None:
        return available_threads()
    return _checks.integer("workers", workers, least=1)


def _bytes_kept(study: Study) -> int:
    """Size of the stored results of one run."""
    variables = study.variables.values()
    return sum(int(np.dtype(v.dtype).itemsize * math.prod(v.shape)) for v in variables)


@dataclass(frozen=True)
class RunCost:
    """Time and memory of one run on one thread.

    Attributes
    ----------
    mean, longest : float
        Mean and maximum time over the grid, in seconds.
    memory : float
        Maximum size of its results over the grid, in bytes.
    group : int
        Number of runs that the kernels process together, see `Study.group`.
    measured : bool
        False if the times are an order of magnitude only.
    """

    mean: float
    longest: float
    memory: float
    group: int
    measured: bool


def measure(study: Study) -> RunCost:
    """Time a few runs at the cheapest point of the grid, for about a second."""
    store.require_memory(study, study.runs)  # the fewest tasks possible
    points = _points(study)
    costs = np.array([study.cost(point) for point in points])
    cheapest, costliest = points[int(costs.argmin())], points[int(costs.argmax())]
    count = min(study.runs, study.group(cheapest))
    each = study.cost(cheapest) / _NOMINAL_SPEED
    measured = count * each <= _LONGEST_SECONDS
    if measured:
        try:
            each = _seconds_per_run(study, cheapest, count)
        except Exception:  # the task of this run will record it
            measured = False
    unit = each / study.cost(cheapest)
    return RunCost(
        mean=float(costs.mean()) * unit,
        longest=float(costs.max()) * unit,
        memory=max(study.memory(point) for point in points),
        group=study.group(costliest),
        measured=measured,
    )


def _seconds_per_run(study: Study, point: tuple[int, ...], count: int) -> float:
    """Time per run of `count` runs, or of more if these take too little time."""
    seconds = _timed(study, point, count)  # includes one-time costs
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


def block_size(study: Study, cost: RunCost, workers: int) -> int:
    """Runs per task: some seconds of work, enough tasks for all workers, bounded memory."""
    total = study.runs * math.prod(study.shape) * cost.mean
    seconds = total / (workers * _TASKS_PER_WORKER)
    seconds = min(max(seconds, _SHORT_SECONDS), _TASK_SECONDS)
    block = int(min(seconds / cost.longest, study.runs))
    block = max(block - block % cost.group, cost.group)
    return max(1, min(block, study.runs, int(_TASK_BYTES / cost.memory)))


def _points(study: Study) -> list[tuple[int, ...]]:
    """All points of the grid, or a random sample."""
    total = math.prod(study.shape)
    chosen = np.arange(min(total, _MAX_POINTS))
    if total > _MAX_POINTS:
        chosen = np.random.default_rng(0).choice(total, _MAX_POINTS, replace=False)
    return [tuple(map(int, np.unravel_index(i, study.shape))) for i in chosen]
