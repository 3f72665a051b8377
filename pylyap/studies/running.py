"""Studies from start to end: tasks out to workers, results into the store, whatever happens."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import closing, contextmanager
from itertools import islice
from queue import Empty, SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING, Any

from threadpoolctl import threadpool_limits
from tqdm import tqdm

from pylyap import _checks
from pylyap._parallel import ProgressBar
from pylyap.exponents import DIVERGED
from pylyap.studies import plan, results, work
from pylyap.studies.executors import Pool, has_killed, pool
from pylyap.studies.store import RESULTS, UNDONE, Store, Task, driver, make
from pylyap.studies.study import Study
from pylyap.studies.work import FAILED, Environment, Outcome

if TYPE_CHECKING:
    import xarray
    from distributed import Client

_POLL_SECONDS = 0.1  # between two looks at Ctrl-C
_LINE_SECONDS = 30.0  # between two lines where there is no terminal

_LINE = "{n_fmt} of {total_fmt} runs{postfix}, {rate_fmt}, {remaining} left"

HandOut = Callable[[Task], "Future[Outcome]"]


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

    A run whose task raises an exception is recorded as failed and stops nothing; another call tries
    it again. So it does with what a kill, a full disk or a lost connection left undone, and with
    chunks that were damaged since. Results are the same bits in any case.

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
        Tasks side by side: all cores by default, or what the executor says it has.
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
        If an argument is wrong, the folder is of another study, or workers are of another version.
    KeyboardInterrupt
        On Ctrl-C or SIGTERM, once the tasks that run are done; on a second one at once.
    ConnectionError
        If the executor is lost. OSError if the disk is full. What is done stays so in any case.
    ImportError
        With the command that helps, if Zarr or another package is not installed.
    """
    for name, value in (("extend", extend), ("mixed", mixed), ("progress", progress)):
        _checks.flag(name, value)
    folder = results.folder_of(path)
    try:
        import xarray  # noqa: F401
        import zarr  # noqa: F401
    except ImportError:
        raise ImportError("run_study needs Zarr and xarray: pip install 'pylyap[store]'") from None
    with pool(executor, workers) as crew, driver(folder), threadpool_limits(1):
        if not (folder / RESULTS).exists():
            needs = plan.measure(study)
            make(folder, study, plan.block_size(study, needs, max(1, crew.workers())))
        with closing(Store(folder, study, extend)) as store:
            wanted = None if mixed else store.made_by
            hand_out = _hand_out(study, store, crew, wanted)
            with _Display(store, progress) as display, _asked_to_stop() as stop:
                _drive(store, crew, hand_out, wanted, display, stop)
    return results.open_study(folder)


def _hand_out(study: Study, store: Store, crew: Pool, wanted: Environment | None) -> HandOut:
    """How the crew is given a task."""
    if crew.inside:
        _require(wanted, work.environment(), "this process")
        threads = max(1, crew.workers() // max(1, store.tasks_left))
        return lambda task: crew.executor.submit(work.compute, study, *task, threads=threads)
    common = work.here(), wanted, type(study), json.dumps(study.settings)
    return lambda task: crew.executor.submit(work.compute_elsewhere, *common, *task)


def _drive(
    store: Store,
    crew: Pool,
    hand_out: HandOut,
    wanted: Environment | None,
    display: _Display,
    stop: threading.Event,
) -> None:
    """Have all tasks done and write down what becomes of them."""
    tasks = store.tasks()
    out: dict[Future[Outcome], Task] = {}
    news: SimpleQueue[Future[Outcome]] = SimpleQueue()
    try:
        while True:
            if not stop.is_set():
                room = plan.IN_FLIGHT * max(1, _alive(store, crew.workers)) - len(out)
                for task in islice(tasks, max(0, room)):
                    future = _alive(store, hand_out, task)
                    out[future] = task
                    future.add_done_callback(news.put)
            elif crew.recalls:
                out = {future: task for future, task in out.items() if not future.cancel()}
            if not out:
                break
            display.show(finishing=len(out) if stop.is_set() else 0)
            try:
                future = news.get(timeout=_POLL_SECONDS)
            except Empty:
                continue
            if future in out:  # and not recalled
                task = out.pop(future)
                outcome = _outcome(store, task, future)
                _require(wanted, outcome.environment, outcome.worker)
                store.write(task, outcome)
    except ConnectionError:
        if not stop.is_set():  # Ctrl-C goes to all processes of a terminal
            raise
    finally:
        for future in out:
            future.cancel()
    if stop.is_set() and (store.statuses == UNDONE).any():
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
    raise _lost(store, f"failed with {type(error).__name__}: {error}") from error


def _alive(store: Store, call: Callable[..., Any], *arguments: Any) -> Any:
    """What an executor answers, unless it is lost."""
    try:
        return call(*arguments)
    except Exception as error:
        raise _lost(store, f"failed with {type(error).__name__}: {error}") from error


def _lost(store: Store, what: str) -> ConnectionError:
    return ConnectionError(f"executor {what}; {_how_far(store)}")


def _how_far(store: Store) -> str:
    left = int((store.statuses == UNDONE).sum())
    size = store.statuses.size
    return f"{size - left} of {size} runs are done; run it again for the others"


def _require(wanted: Environment | None, came: Environment, worker: str) -> None:
    """Refuse results that could have other bits."""
    if wanted is None or came == wanted:
        return

    def words(environment: Environment) -> str:
        return "pylyap {pylyap}, instruction set {instruction_set}".format(**environment)

    raise ValueError(
        f"mixed must be True for results of {words(came)} ({worker}) beside those of "
        f"{words(wanted)}; PYLYAP_ISA={wanted['instruction_set']} picks that instruction set"
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


class _Display:
    """How far a study has come: a bar on a terminal, a line now and then where there is none."""

    def __init__(self, store: Store, shown: bool) -> None:
        self._statuses, self._shown = store.statuses, shown
        self._before = self._done()
        self._begin = self._last = time.monotonic()
        self._stopping = False
        size, bar = store.statuses.size, shown and sys.stderr.isatty()
        self._bar = ProgressBar(size, "study", bar, unit=" runs", done=self._before)
        if store.damaged:
            self._say(f"{store.damaged} chunks are damaged or missing and will be computed again")

    def show(self, finishing: int = 0) -> None:
        """Bring it up to date; `finishing` tasks are what it still waits for, if any."""
        if finishing and not self._stopping:
            self._stopping = True
            self._say(f"finishing {finishing} tasks; Ctrl-C again stops at once")
        diverged, failed = ((self._statuses == s).sum() for s in (DIVERGED, FAILED))
        note = f"{diverged} diverged, {failed} failed"
        self._bar.show(self._done(), note)
        if not self._bar.shown and time.monotonic() - self._last >= _LINE_SECONDS:
            self._last = time.monotonic()
            self._say(
                tqdm.format_meter(
                    self._done(),
                    self._statuses.size,
                    self._last - self._begin,
                    initial=self._before,
                    unit=" runs",
                    postfix=note,
                    bar_format=_LINE,
                )
            )

    def _done(self) -> int:
        return int((self._statuses != UNDONE).sum())

    def _say(self, text: str) -> None:
        if self._shown:
            tqdm.write(f"study: {text}", file=sys.stderr)

    def __enter__(self) -> _Display:
        return self

    def __exit__(self, *_: object) -> None:
        self.show()
        self._bar.close()
