"""Standard output and error that accept text although the stream is closed or broken."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


@contextmanager
def safe_streams() -> Iterator[list[OSError]]:
    """Let `sys.stdout` and `sys.stderr` accept all text. Yields the errors of stdout.

    A stream may be closed when the process starts, its reader may close the pipe (`pylyap spectrum
    | head -1`), or its disk may be full. Later output is discarded, so that the command completes
    and writes its files. A closed pipe is not an error, nor is a stream that was closed from the
    start.
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
                stream.detach()  # made by _safe; the descriptor stays open
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
        return stream  # no file descriptor, such as a StringIO
    return io.TextIOWrapper(
        io.BufferedWriter(_Sink(descriptor, failures)),
        encoding=stream.encoding,
        errors="replace",  # terminals without Greek letters
        line_buffering=stream.line_buffering,
    )


def _occupy(descriptor: int) -> None:
    """Open /dev/null on a closed standard descriptor, so that no other file gets its number."""
    try:
        os.fstat(descriptor)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null != descriptor:
            os.dup2(null, descriptor)
            os.close(null)


class _Sink(io.RawIOBase):
    """A descriptor that accepts all data and discards them after an error."""

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
