"""Pools that compute tasks: threads of this process, a given executor, or a Dask cluster."""

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
from pylyap._extras import require
from pylyap._parallel import available_threads, thread_count

if TYPE_CHECKING:
    from distributed import Client

_CONNECT_SECONDS = 10.0
_LOGGERS = ("distributed", "tornado", "asyncio")  # used by a Dask connection, with their children
_QUERY_SECONDS = 2.0  # between queries of the size of a cluster, which may change


@dataclass(frozen=True)
class Pool:
    """An executor and its present number of workers.

    Attributes
    ----------
    executor : concurrent.futures.Executor
        The executor.
    workers : callable
        Returns the number of tasks that run in parallel.
    in_process : bool
        Whether the workers are threads of this process, which share the study.
    can_cancel : bool
        Whether a future can be cancelled exactly until its task begins.
    """

    executor: Executor
    workers: Callable[[], int]
    in_process: bool = False
    can_cancel: bool = True

    @property
    def shares_memory(self) -> bool:
        """Whether tasks take objects of this process without pickling."""
        return self.in_process or isinstance(self.executor, ThreadPoolExecutor)


@contextmanager
def pool(executor: Any, workers: int | None) -> Iterator[Pool]:
    """Make the pool of `run_study`. A given executor is not closed."""
    if workers is not None:
        workers = _checks.integer("workers", workers, least=1)
    if executor is None:
        cores = thread_count(workers, "workers")
        threads = ThreadPoolExecutor(cores, "study")
        try:
            yield Pool(threads, lambda: cores, in_process=True)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
    elif isinstance(executor, Executor):
        usual: int = getattr(executor, "_max_workers", available_threads())
        yield Pool(executor, lambda: workers or usual)
    elif isinstance(executor, str):
        with _connect(executor) as client:
            yield _cluster_pool(client, workers)
    elif hasattr(executor, "get_executor"):
        yield _cluster_pool(executor, workers)
    else:
        raise ArgumentTypeError(
            "executor",
            "must be a concurrent.futures.Executor, a Dask Client or the address of its "
            f"scheduler, got {_checks.describe(executor)}",
        )


@contextmanager
def _connect(address: str) -> Iterator[Client]:
    require("distributed", extra="cluster", for_="the address of a scheduler")
    from distributed import Client

    with _suppress_connection_logs():
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
def _suppress_connection_logs() -> Iterator[None]:
    """Suppress the logs of a connection. Its problems raise exceptions; logs would repeat them."""
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


def _cluster_pool(client: Client, workers: int | None) -> Pool:
    known, asked = 0, -_QUERY_SECONDS

    def count() -> int:
        nonlocal known, asked
        if time.monotonic() - asked >= _QUERY_SECONDS:
            known, asked = sum(client.nthreads().values()), time.monotonic()
        return known

    # Not pure: repeating a task must not return the earlier result.
    executor = client.get_executor(pure=False)
    return Pool(executor, count if workers is None else lambda: workers, can_cancel=False)


def is_killed_worker(error: BaseException) -> bool:
    """Whether Dask gave a task up after its workers died repeatedly."""
    return type(error).__name__ == "KilledWorker"  # by name: Dask need not be installed
