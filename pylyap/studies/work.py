"""What a worker does, wherever it is."""

from __future__ import annotations

import json
import os
import platform
import signal
import time
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

_MESSAGE = 500  # characters of an error that are kept
_CAUSES, _FRAMES = 4, 10  # of a traceback that are kept

Environment = dict[str, str]
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Outcome:
    """What became of a task: its arrays, or `status` alone and an error; where, in what time. No
    arrays at all come from a worker whose environment is not the one that is wanted, or that could
    not do the task: `lost` says why in a line, and `trace` where. Exceptions do not travel: their
    tracebacks may be too deep to be pickled."""

    arrays: Arrays
    environment: Environment
    worker: str
    seconds: float = 0.0
    error: str = ""
    lost: str = ""
    trace: str = ""


def environment() -> Environment:
    """What the bits of results depend on."""
    from pylyap import __version__
    from pylyap._native import isa

    return {"pylyap": __version__, "instruction_set": isa}


def here() -> str:
    """This process."""
    return f"process {os.getpid()} on {platform.node()}"


def compute(study: Study, point: Point, first: int, count: int, *, threads: int) -> Outcome:
    """Do a task. Runs that raise an exception fail, and no others."""
    begin = time.perf_counter()
    arrays, error = _tried(study, point, first, count, threads)
    return Outcome(arrays, environment(), here(), time.perf_counter() - begin, error)


def _tried(study: Study, point: Point, first: int, count: int, threads: int) -> tuple[Arrays, str]:
    """The arrays of some runs, by halves where they raise an exception, and what a run that fails
    alone says."""
    try:
        return study.compute(point, first, count, threads=threads), ""
    except Exception as exception:
        if count == 1:
            return failed(1), message(exception)
    half = count // 2
    one, error = _tried(study, point, first, half, threads)
    other, later = _tried(study, point, first + half, count - half, threads)
    if all((part["status"] == Status.RAISED).all() for part in (one, other)):
        return failed(count), error
    arrays = {
        name: np.concatenate([p.get(name, v.blank(len(p["status"]))) for p in (one, other)])
        for name, v in study.variables.items()
    }
    return arrays, error or later


def compute_elsewhere(
    driver: str, wanted: Environment | None, kind: Callable[..., Study], settings: str, *task: Any
) -> Outcome:
    """Do a task of the study that has these settings (JSON), on one thread.

    Returns an outcome whatever happens, but for Ctrl-C.
    """
    if wanted is not None and environment() != wanted:
        return Outcome({}, environment(), here())
    point, first, count = task
    if here() != driver:  # who sees to that himself
        _one_thread()
    try:
        with _deaf():
            return compute(_study(kind, settings), point, first, count, threads=1)
    except KeyboardInterrupt:
        raise
    except BaseException as exception:
        lost, trace = message(exception), traced(exception)
        return Outcome({}, environment(), here(), lost=lost, trace=trace)


def message(exception: BaseException) -> str:
    """The name and the words of an exception, of bounded length."""
    try:
        words = str(exception)
    except Exception as another:
        words = f"without words, for {type(another).__name__}"
    return f"{type(exception).__name__}: {words}"[:_MESSAGE]


def traced(exception: BaseException) -> str:
    """The traceback of an exception and its causes as text, of bounded length."""
    parts: list[str] = []
    one: BaseException | None = exception
    while one is not None and len(parts) < _CAUSES:
        frames = "".join(format_tb(one.__traceback__, -_FRAMES))
        parts.append(f"{frames}{message(one)}\n")
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return "which came of:\n".join(parts)


def failed(count: int) -> Arrays:
    """The arrays of runs that failed."""
    return {"status": np.full(count, Status.RAISED, np.int8)}


@lru_cache(maxsize=2)
def _study(kind: Callable[..., Study], settings: str) -> Study:
    return kind(**json.loads(settings))


@contextmanager
def _deaf() -> Iterator[None]:
    """Leave Ctrl-C, which all processes of a terminal hear, to the driver of a pool's process."""
    if parent_process() is None or current_thread() is not main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


@cache
def _one_thread() -> None:
    """Keep the BLAS of this process from using more threads than tasks do."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)
