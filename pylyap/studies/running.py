"""Studies from start to end: tasks out to workers, results into the store, whatever happens."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import closing, contextmanager
from itertools import islice
from queue import Empty, SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING, Any

from pylyap import _checks
from pylyap._errors import ArgumentError
from pylyap._status import Status
from pylyap.studies import plan, results, work
from pylyap.studies.display import Display
from pylyap.studies.executors import Pool, has_killed, pool
from pylyap.studies.store import RESULTS, Store, Task, driver, make
from pylyap.studies.study import Study
from pylyap.studies.work import Environment, Outcome

if TYPE_CHECKING:
    import xarray
    from distributed import Client

_POLL_SECONDS = 0.1  # between two looks at Ctrl-C

HandOut = Callable[[Task], "Future[Outcome]"]


class WorkerError(RuntimeError):
    """An exception of a worker, with its traceback as text."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(f"{outcome.worker}: {outcome.lost}\n{outcome.trace}")


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
    """Compute a study into a folder, or what of it is not there yet.

    A run that raises an exception is recorded as failed and stops nothing; another call tries
    it again. So it does with what a kill, a full disk or a lost connection left undone, and with
    chunks that were damaged or replaced since. Damaged metadata of the folder are written anew, as
    far as `study` determines them. Results are the same bits in any case.

    Parameters
    ----------
    study
        The `Study`.
    path
        A folder of its own; made if it is not there.
    executor
        Who does the tasks, each on one thread: threads of this process by default; any
        `concurrent.futures.Executor`; a Dask ``Client``, or the address of its scheduler.
    workers
        Tasks side by side: all cores by default, or what the executor says it has. Threads of this
        process are never more than the cores it may use.
    extend
        Whether the folder may be of the same study with fewer runs, or with fewer values of the
        grid, the new ones coming last.
    mixed
        Whether results of other versions of pylyap and of other instruction sets may stand beside
        each other. They differ in the last digits; ``environments`` in the attributes names all.
    progress
        Show a bar on stderr, or a line now and then where that is no terminal.

    Returns
    -------
    xarray.Dataset
        As of `open_study`.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong, the folder is of another study or has links or special files in the
        place of its own, or workers are of another version.
    KeyboardInterrupt
        On Ctrl-C or SIGTERM, once the tasks that run are done; on a second one at once.
    ConnectionError
        If the executor is lost, or a worker could not do a task; what a worker raised is the cause,
        as text. OSError if the disk is full. What is done stays so in any case.
    ImportError
        With the command that helps, if Zarr or another package is not installed.
    """
    for name, value in (("extend", extend), ("mixed", mixed), ("progress", progress)):
        _checks.flag(name, value)
    plan.require_study(study)
    folder = results.folder_of(path)
    from threadpoolctl import threadpool_limits

    try:
        import xarray  # noqa: F401
        import zarr  # noqa: F401
    except ImportError:
        raise ImportError("run_study needs Zarr and xarray: pip install 'pylyap[store]'") from None
    with pool(executor, workers) as crew, driver(folder), threadpool_limits(1):
        if not os.path.lexists(folder / RESULTS):
            needs = plan.measure(study)
            make(folder, study, plan.block_size(study, needs, max(1, crew.workers())))
        with closing(Store(folder, study, extend, progress)) as store:
            wanted = None if mixed else store.made_by
            hand_out = _hand_out(study, store, crew, wanted)
            with Display(store, progress) as display, _asked_to_stop() as stop:
                _drive(store, crew, hand_out, wanted, display, stop)
    return results.open_study(folder)


def _hand_out(study: Study, store: Store, crew: Pool, wanted: Environment | None) -> HandOut:
    """How the crew is given a task."""
    if crew.inside:
        tasks = store.tasks_left
        _require(wanted if tasks else None, work.environment(), "this process")
        threads = max(1, crew.workers() // max(1, tasks))
        return lambda task: crew.executor.submit(work.compute, study, *task, threads=threads)
    common = work.here(), wanted, type(study), json.dumps(study.settings)
    return lambda task: crew.executor.submit(work.compute_elsewhere, *common, *task)


def _drive(
    store: Store,
    crew: Pool,
    hand_out: HandOut,
    wanted: Environment | None,
    display: Display,
    stop: threading.Event,
) -> None:
    """Have all tasks done and write down what becomes of them."""
    tasks = store.tasks()
    out: dict[Future[Outcome], Task] = {}
    news: SimpleQueue[Future[Outcome]] = SimpleQueue()
    try:
        while True:
            workers = _alive(store, crew.workers)
            if not stop.is_set():
                room = plan.IN_FLIGHT * max(1, workers) - len(out)
                for task in islice(tasks, max(0, room)):
                    future = _alive(store, hand_out, task)
                    out[future] = task
                    future.add_done_callback(news.put)
            elif crew.recalls:
                out = {future: task for future, task in out.items() if not future.cancel()}
            if not out:
                break
            display.show("" if crew.inside else f"{workers} workers")
            if stop.is_set():
                display.finishing(len(out))
            try:
                future = news.get(timeout=_POLL_SECONDS)
            except Empty:
                continue
            if future in out:  # and not recalled
                task = out.pop(future)
                outcome = _outcome(store, task, future)
                if outcome.lost:
                    raise _lost(store, f"failed with {outcome.lost}") from WorkerError(outcome)
                _require(wanted, outcome.environment, outcome.worker)
                store.write(task, outcome)
    except ConnectionError:
        if not stop.is_set():  # Ctrl-C goes to all processes of a terminal
            raise
    finally:
        for future in out:
            future.cancel()
    if stop.is_set() and (store.statuses == Status.NOT_RUN).any():
        raise KeyboardInterrupt(_how_far(store))


def _outcome(store: Store, task: Task, future: Future[Outcome]) -> Outcome:
    """What became of a task that is over."""
    if future.cancelled():
        raise _lost(store, "is gone, and its tasks with it")
    error = future.exception()
    if error is None:
        return future.result()
    if has_killed(error):
        return Outcome(work.failed(task.runs), store.made_by, "several", 0.0, "workers died of it")
    raise _lost(store, f"failed with {work.message(error)}") from error


def _alive(store: Store, call: Callable[..., Any], *arguments: Any) -> Any:
    """What an executor answers, unless it is lost."""
    try:
        return call(*arguments)
    except Exception as error:
        raise _lost(store, f"failed with {work.message(error)}") from error


def _lost(store: Store, what: str) -> ConnectionError:
    return ConnectionError(f"executor {' '.join(what.split())}; {_how_far(store)}")


def _how_far(store: Store) -> str:
    left = int((store.statuses == Status.NOT_RUN).sum())
    size = store.statuses.size
    return f"{size - left} of {size} runs are done; run it again for the others"


def _require(wanted: Environment | None, came: Environment, worker: str) -> None:
    """Refuse results that could have other bits."""
    if wanted is None or came == wanted:
        return

    def words(environment: Environment) -> str:
        return "pylyap {pylyap}, instruction set {instruction_set}".format(**environment)

    raise ArgumentError(
        "mixed",
        f"must be True to put results of {words(came)} ({worker}) beside those of "
        f"{words(wanted)}; PYLYAP_ISA picks the instruction set of a process",
    )


@contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets; a second one raises KeyboardInterrupt."""
    stop = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    if threading.current_thread() is not threading.main_thread():  # which alone hears signals
        yield stop
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
