"""The driver of a study: submits tasks to an executor and writes their results to the store."""

from __future__ import annotations

import json
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import ExitStack, closing, contextmanager
from itertools import islice
from queue import Empty, SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING, Any

from pylyap import _checks
from pylyap._errors import ArgumentError
from pylyap._extras import require
from pylyap._status import Status
from pylyap.studies import plan, results, work
from pylyap.studies.display import Display
from pylyap.studies.executors import Pool, is_killed_worker, pool
from pylyap.studies.store import RESULTS, Store, Task, create, driver
from pylyap.studies.study import Study
from pylyap.studies.work import Environment, Outcome

if TYPE_CHECKING:
    import xarray
    from distributed import Client

_POLL_SECONDS = 0.1  # between checks for signals

Submit = Callable[[Task], "Future[Outcome]"]


class ExecutorError(ArgumentError, ConnectionError):
    """The executor failed. It is an ArgumentError as well, to have the name of the argument."""


class WorkerError(RuntimeError):
    """An exception of a worker, with its traceback as text."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(f"{outcome.worker}: {outcome.failure}\n{outcome.trace}")


def run_study(
    study: Study,
    path: str | os.PathLike[str],
    *,
    executor: Executor | Client | str | None = None,
    workers: int | None = None,
    extend: bool = False,
    mixed: bool = False,
    progress: bool = False,
) -> xarray.Dataset:
    """Run a study and store its results in a folder.

    Runs that the folder already contains are not computed again, so that the same call resumes a
    study after an interruption of any kind. It repeats failed runs and those of damaged chunks, and
    repairs damaged metadata as far as `study` determines them. A run that raises an exception is
    recorded as failed and does not stop the others. The bits of the results do not depend on
    interruptions, executors or the number of workers.

    Parameters
    ----------
    study : Study
        The study.
    path : str or path-like
        Folder of this study alone; it is created if it does not exist.
    executor : concurrent.futures.Executor, dask.distributed.Client or str, optional
        Executor of the tasks, each on one thread; a string is the address of a Dask scheduler.
        By default threads of this process. A given system is pickled for workers that are not
        threads of this process.
    workers : int, optional
        Number of tasks that run in parallel. Default: the number of available cores, or of workers
        of the executor. Threads of this process are limited to the available cores. Tasks of a
        given system whose step calls Python take turns in a process.
    extend : bool, default False
        Allow a folder of the same study with fewer runs, or with fewer values of the grid if the
        new ones are appended.
    mixed : bool, default False
        Allow results of several versions of pylyap or instruction sets in one folder. They differ
        in the last digits. The attribute ``environments`` lists them.
    progress : bool, default False
        Show a progress bar on stderr, or a line every 30 s if stderr is not a terminal.

    Returns
    -------
    xarray.Dataset
        Results as of `open_study`.

    Raises
    ------
    ValueError, TypeError
        If an argument is invalid, the folder is of another study or has symbolic links or special
        files in place of its own, or the workers have another version.
    KeyboardInterrupt
        After SIGINT (Ctrl-C) or SIGTERM, once the running tasks are complete; immediately after a
        second signal.
    ConnectionError
        If the executor fails, or if a worker cannot compute a task; its exception is the cause, as
        text. Completed tasks stay stored.
    OSError
        If the disk is full. Completed tasks stay stored.
    ImportError
        If Zarr, xarray or, for the address of a scheduler, Dask is not installed.

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
    >>> data = pl.run_study(study, "results")
    >>> dict(data.exponents.sizes)
    {'lr': 2, 'run': 4, 'exponent': 2}
    >>> more_runs = pl.Study(**(study.settings | {"runs": 6}))
    >>> pl.run_study(more_runs, "results", extend=True).attrs["runs_done"]
    12
    """
    for name, value in (("extend", extend), ("mixed", mixed), ("progress", progress)):
        _checks.flag(name, value)
    plan.require_study(study)
    folder = results.checked_folder(path)
    from threadpoolctl import threadpool_limits

    require("zarr", "xarray", extra="store", for_="run_study")
    if executor is None and workers is None and study._in_turn:
        workers = 1
    with ExitStack() as stack:
        worker_pool = stack.enter_context(pool(executor, workers))
        carried = _portable(study, worker_pool)
        stack.enter_context(driver(folder))
        stack.enter_context(threadpool_limits(1))
        study = study._stored_in(folder)
        if not os.path.lexists(folder / RESULTS):
            study._store_arrays(folder)
            cost = plan.measure(study)
            create(folder, study, plan.block_size(study, cost, max(1, worker_pool.workers())))
        with closing(Store(folder, study, extend, progress)) as store:
            study._store_arrays(folder)
            required = None if mixed else store.made_by
            submit = _submitter(study, carried, store, worker_pool, required)
            with Display(store, progress) as display, _stop_on_signal() as stop:
                _run_tasks(store, worker_pool, submit, required, display, stop)
    return results.open_study(folder)


def _portable(study: Study, worker_pool: Pool) -> bytes | None:
    """A study of a system, pickled for workers of other processes.

    Raises ArgumentError if it cannot be pickled.
    """
    if study._given is None or worker_pool.shares_memory:
        return None
    try:
        return pickle.dumps(study)
    except Exception as error:
        raise ArgumentError(
            "executor",
            "must be None or a ThreadPoolExecutor for a system that cannot be pickled, got "
            f"{_checks.describe(worker_pool.executor)}: {work.error_message(error)}",
        ) from None


def _submitter(
    study: Study,
    carried: bytes | None,
    store: Store,
    worker_pool: Pool,
    required: Environment | None,
) -> Submit:
    """Function that submits a task to the pool."""
    if worker_pool.in_process:
        tasks = store.tasks_left
        _require_environment(required if tasks else None, work.environment(), "this process")
        threads = max(1, worker_pool.workers() // max(1, tasks))
        return lambda task: worker_pool.executor.submit(work.compute, study, *task, threads=threads)
    if study._given is not None and carried is None:  # the threads of a given executor
        return lambda task: worker_pool.executor.submit(work.compute, study, *task, threads=1)
    # Workers read the data from files, arrays from that of the folder.
    settings = json.dumps(study.settings) if carried is None else carried
    common = work.worker_name(), required, type(study), settings
    return lambda task: worker_pool.executor.submit(work.compute_remote, *common, *task)


def _run_tasks(
    store: Store,
    worker_pool: Pool,
    submit: Submit,
    required: Environment | None,
    display: Display,
    stop: threading.Event,
) -> None:
    """Run all tasks and write their outcomes."""
    tasks = store.tasks()
    out: dict[Future[Outcome], Task] = {}
    news: SimpleQueue[Future[Outcome]] = SimpleQueue()
    try:
        while True:
            workers = _call_executor(store, worker_pool.workers)
            if not stop.is_set():
                room = plan.IN_FLIGHT * max(1, workers) - len(out)
                for task in islice(tasks, max(0, room)):
                    future = _call_executor(store, submit, task)
                    out[future] = task
                    future.add_done_callback(news.put)
            elif worker_pool.can_cancel:
                out = {future: task for future, task in out.items() if not future.cancel()}
            if not out:
                break
            display.show("" if worker_pool.in_process else f"{workers} workers")
            if stop.is_set():
                display.finishing(len(out))
            try:
                future = news.get(timeout=_POLL_SECONDS)
            except Empty:
                continue
            if future in out:  # not cancelled
                task = out.pop(future)
                outcome = _outcome(store, task, future)
                if outcome.failure:
                    what = f"failed with {outcome.failure}"
                    raise _connection_error(store, what) from WorkerError(outcome)
                _require_environment(required, outcome.environment, outcome.worker)
                store.write(task, outcome)
    except ConnectionError:
        if not stop.is_set():  # a terminal sends SIGINT to all its processes
            raise
    finally:
        for future in out:
            future.cancel()
    if stop.is_set() and (store.statuses == Status.NOT_RUN).any():
        raise KeyboardInterrupt(_progress_text(store))


def _outcome(store: Store, task: Task, future: Future[Outcome]) -> Outcome:
    """Outcome of a completed task."""
    if future.cancelled():
        raise _connection_error(store, "was lost, and its tasks were cancelled")
    error = future.exception()
    if error is None:
        return future.result()
    if is_killed_worker(error):
        arrays, message = work.failed_arrays(task.runs), "several workers died during this task"
        return Outcome(arrays, store.made_by, "several", 0.0, message)
    raise _connection_error(store, f"failed with {work.error_message(error)}") from error


def _call_executor(store: Store, call: Callable[..., Any], *arguments: Any) -> Any:
    """Call a method of an executor. Raises ConnectionError if it fails."""
    try:
        return call(*arguments)
    except Exception as error:
        raise _connection_error(store, f"failed with {work.error_message(error)}") from error


def _connection_error(store: Store, text: str) -> ExecutorError:
    return ExecutorError("executor", f"{' '.join(text.split())}; {_progress_text(store)}")


def _progress_text(store: Store) -> str:
    left = int((store.statuses == Status.NOT_RUN).sum())
    size = store.statuses.size
    return f"{size - left} of {size} runs are complete; run the study again for the others"


def _require_environment(required: Environment | None, actual: Environment, worker: str) -> None:
    """Raise ArgumentError if results of this environment could differ in their last bits."""
    if required is None or actual == required:
        return

    def text(environment: Environment) -> str:
        return "pylyap {pylyap}, instruction set {instruction_set}".format(**environment)

    raise ArgumentError(
        "mixed",
        f"must be True to combine results of {text(actual)} ({worker}) with those of "
        f"{text(required)}; PYLYAP_ISA selects the instruction set of a process",
    )


@contextmanager
def _stop_on_signal() -> Iterator[threading.Event]:
    """Event that SIGINT or SIGTERM sets; a second signal raises KeyboardInterrupt."""
    stop = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    if threading.current_thread() is not threading.main_thread():  # it alone receives signals
        yield stop
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
