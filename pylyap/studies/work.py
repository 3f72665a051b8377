"""Computation of one task, in this process or in a worker."""

from __future__ import annotations

import json
import os
import pickle
import platform
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from multiprocessing import parent_process
from threading import current_thread, main_thread
from traceback import format_tb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylyap._status import Status
from pylyap.studies.study import Point, Study

_MAX_MESSAGE = 500  # characters of an error message
_MAX_CAUSES, _MAX_FRAMES = 4, 10  # of a traceback

Environment = dict[str, str]
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Outcome:
    """Result of a task.

    Exceptions are sent as text, since a deep traceback cannot be pickled.

    Attributes
    ----------
    arrays
        Variables by name; `status` alone if all runs failed. Empty if the environment of the worker
        differs from the required one, or if the worker could not do the task.
    environment
        Versions of the worker.
    worker
        Process and host.
    seconds
        Wall-clock time.
    error
        Message of the first exception that a run raised.
    failure
        Why the worker could not do the task, in one line.
    trace
        Traceback of this failure.
    """

    arrays: Arrays
    environment: Environment
    worker: str
    seconds: float = 0.0
    error: str = ""
    failure: str = ""
    trace: str = ""


def environment() -> Environment:
    """Versions on which the bits of results depend."""
    from pylyap import __version__
    from pylyap._native import isa

    return {"pylyap": __version__, "instruction_set": isa}


def worker_name() -> str:
    """Process and host of the caller."""
    return f"process {os.getpid()} on {platform.node()}"


def compute(study: Study, point: Point, first: int, count: int, *, threads: int) -> Outcome:
    """Compute a task. Only the runs that raise an exception are marked as failed."""
    begin = time.perf_counter()
    arrays, error = _compute_by_halves(study, point, first, count, threads)
    return Outcome(arrays, environment(), worker_name(), time.perf_counter() - begin, error)


def _compute_by_halves(
    study: Study, point: Point, first: int, count: int, threads: int
) -> tuple[Arrays, str]:
    """Compute a block of runs, in halves if it raises; arrays and the first error message."""
    try:
        return study.compute(point, first, count, threads=threads), ""
    except Exception as exception:
        if count == 1:
            return failed_arrays(1), error_message(exception)
    half = count // 2
    one, error = _compute_by_halves(study, point, first, half, threads)
    other, later = _compute_by_halves(study, point, first + half, count - half, threads)
    if all((part["status"] == Status.RAISED).all() for part in (one, other)):
        return failed_arrays(count), error
    arrays = {
        name: np.concatenate([p.get(name, v.blank(len(p["status"]))) for p in (one, other)])
        for name, v in study.variables.items()
    }
    return arrays, error or later


def compute_remote(
    driver: str,
    required: Environment | None,
    kind: Callable[..., Study],
    settings: str | bytes,
    *task: Any,
) -> Outcome:
    """Compute a task of the study with these settings (JSON), or of a pickled one, on one thread.

    Every exception except KeyboardInterrupt becomes an outcome with `failure`.
    """
    if required is not None and environment() != required:
        return Outcome({}, environment(), worker_name())
    point, first, count = task
    if worker_name() != driver:  # the driver limits its own threads
        _limit_blas_threads()
    try:
        with _ignore_interrupt():
            return compute(_study(kind, settings), point, first, count, threads=1)
    except KeyboardInterrupt:
        raise
    except BaseException as exception:
        failure, trace = error_message(exception), traceback_text(exception)
        return Outcome({}, environment(), worker_name(), failure=failure, trace=trace)


def error_message(exception: BaseException) -> str:
    """Type and message of an exception, of bounded length."""
    try:
        text = str(exception)
    except Exception as another:
        text = f"no message, its __str__ raised {type(another).__name__}"
    return f"{type(exception).__name__}: {text}"[:_MAX_MESSAGE]


def traceback_text(exception: BaseException) -> str:
    """Traceback of an exception and of its causes, of bounded length."""
    parts: list[str] = []
    one: BaseException | None = exception
    while one is not None and len(parts) < _MAX_CAUSES:
        frames = "".join(format_tb(one.__traceback__, -_MAX_FRAMES))
        parts.append(f"{frames}{error_message(one)}\n")
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return "caused by:\n".join(parts)


def failed_arrays(count: int) -> Arrays:
    """Arrays of runs that all failed."""
    return {"status": np.full(count, Status.RAISED, np.int8)}


@lru_cache(maxsize=2)
def _study(kind: Callable[..., Study], settings: str | bytes) -> Study:
    if isinstance(settings, bytes):  # pickled by the driver, see `run_study`
        study: Study = pickle.loads(settings)
        return study
    with warnings.catch_warnings():  # the driver has issued them
        warnings.simplefilter("ignore", UserWarning)
        return kind(**json.loads(settings))


@contextmanager
def _ignore_interrupt() -> Iterator[None]:
    """Ignore SIGINT in a process of a pool.

    A terminal sends it to all processes; the driver alone handles it.
    """
    if parent_process() is None or current_thread() is not main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


@cache
def _limit_blas_threads() -> None:
    """Restrict the BLAS of this process to one thread."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)
