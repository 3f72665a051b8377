"""Who does the tasks: threads of this process, an executor of the user's, a Dask cluster."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pylyap import _checks
from pylyap._errors import ArgumentError, ArgumentTypeError
from pylyap._parallel import available_threads, thread_count

if TYPE_CHECKING:
    from distributed import Client

_CONNECT_SECONDS = 10.0
_LOGGERS = ("distributed", "tornado", "asyncio")  # a connection's, and those below
_LOOK_SECONDS = 2.0  # between two questions for the size of a cluster, which may change


@dataclass(frozen=True)
class Pool:
    """An executor, and how many tasks it does side by side at the moment.

    `inside` are threads of this process, which share the study. A future of an executor that
    `recalls` can be cancelled as long as its task has not begun, and no longer.
    """

    executor: Executor
    workers: Callable[[], int]
    inside: bool = False
    recalls: bool = True


@contextmanager
def pool(executor: Any, workers: int | None) -> Iterator[Pool]:
    """The pool that `run_study` is asked for; closed afterwards if it was made here."""
    if workers is not None:
        workers = _checks.integer("workers", workers, least=1)
    if executor is None:
        cores = thread_count(workers, "workers")
        threads = ThreadPoolExecutor(cores, "study")
        try:
            yield Pool(threads, lambda: cores, inside=True)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
    elif isinstance(executor, Executor):
        usual: int = getattr(executor, "_max_workers", available_threads())
        yield Pool(executor, lambda: workers or usual)
    elif isinstance(executor, str):
        with _connected(executor) as client:
            yield _of_cluster(client, workers)
    elif hasattr(executor, "get_executor"):
        yield _of_cluster(executor, workers)
    else:
        raise ArgumentTypeError(
            "executor",
            "must be a concurrent.futures.Executor, a Dask Client or the address of its "
            f"scheduler, got {_checks.describe(executor)}",
        )


@contextmanager
def _connected(address: str) -> Iterator[Client]:
    try:
        from distributed import Client
    except ImportError:
        raise ImportError(
            "a scheduler's address needs Dask: pip install 'pylyap[cluster]'"
        ) from None
    with _quiet():
        try:
            client = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
        except (ValueError, OSError, AssertionError) as error:
            raise ArgumentError(
                "executor",
                f"must be the address of a Dask scheduler such as tcp://host:8786, "
                f"got {_checks.describe(address)}: {str(error)[:200]}",
            ) from None
        with client:
            yield client


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what a connection of ours logs to itself: what is wrong with it is an exception, and
    its log would put a traceback beside that."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    loggers += [
        logger
        for name, logger in list(logging.root.manager.loggerDict.items())
        if name.startswith("distributed.") and isinstance(logger, logging.Logger)
    ]
    handlers = {handler for logger in loggers for handler in logger.handlers}
    if logging.lastResort is not None:  # of loggers without a handler
        handlers.add(logging.lastResort)

    def other(record: logging.LogRecord) -> bool:
        return record.name.partition(".")[0] not in _LOGGERS

    for handler in handlers:
        handler.addFilter(other)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(other)


def _of_cluster(client: Client, workers: int | None) -> Pool:
    known, asked = 0, -_LOOK_SECONDS

    def count() -> int:
        nonlocal known, asked
        if time.monotonic() - asked >= _LOOK_SECONDS:
            known, asked = sum(client.nthreads().values()), time.monotonic()
        return known

    # Not pure: a task that is done again is not the one that was done before.
    executor = client.get_executor(pure=False)
    return Pool(executor, count if workers is None else lambda: workers, recalls=False)


def has_killed(error: BaseException) -> bool:
    """Whether a task is given up since workers died of it."""
    return type(error).__name__ == "KilledWorker"  # Dask's, which need not be installed
