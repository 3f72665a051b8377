"""Standard output and error of the command line, whatever became of them."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


@contextmanager
def safe_streams() -> Iterator[list[OSError]]:
    """Let `sys.stdout` and `sys.stderr` take text at any time. Yields the failures of stdout.

    A stream may be closed when the process starts, its reader may leave (`pylyap spectrum | head
    -1`), or its disk may be full. What a command writes from then on is dropped, so that the
    command does the rest of its work: files that were asked for are written. A reader that leaves
    is no failure, nor is a stream that was closed from the start.
    """
    failures: list[OSError] = []
    before = sys.stdout, sys.stderr
    sys.stdout = _safe(sys.stdout, 1, failures)
    sys.stderr = _safe(sys.stderr, 2, [])
    try:
        yield failures
    finally:
        for stream, old in zip((sys.stdout, sys.stderr), before, strict=True):
            stream.flush()
            if old is None:
                stream.close()
            elif isinstance(stream, io.TextIOWrapper) and stream is not old:
                stream.detach()  # a file of ours, see _safe
        sys.stdout, sys.stderr = before


def _safe(stream: TextIO | None, descriptor: int, failures: list[OSError]) -> TextIO:
    if stream is None:  # closed before the process started
        _occupy(descriptor)
        return open(os.devnull, "w", encoding="utf-8")
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    try:
        descriptor = stream.fileno()
        stream.flush()
    except (OSError, ValueError):
        return stream  # no file of the system's
    return io.TextIOWrapper(
        io.BufferedWriter(_Sink(descriptor, failures)),
        encoding=stream.encoding,
        errors="replace",  # a terminal without Greek letters is no error
        line_buffering=stream.line_buffering,
    )


def _occupy(descriptor: int) -> None:
    """Keep a closed standard stream's number from the next file that is opened."""
    try:
        os.fstat(descriptor)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null != descriptor:
            os.dup2(null, descriptor)
            os.close(null)


class _Sink(io.RawIOBase):
    """A descriptor that takes all that is written to it, and drops it after a failure."""

    def __init__(self, descriptor: int, failures: list[OSError]) -> None:
        self._descriptor, self._failures, self._failed = descriptor, failures, False

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        if self._failed:
            return size
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:
            raise
        except OSError as error:
            self._failed = True
            if not isinstance(error, BrokenPipeError):
                self._failures.append(error)
            return size

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)
