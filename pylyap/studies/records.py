"""The log of a study: one line per completed task.

A line is a CRC-32 in hexadecimal digits and a JSON object, a `Record`, to which the CRC-32 applies.
Incomplete or altered lines are ignored: their tasks are not complete.

A record has the checksums of the chunks that its task wrote. If a task replaces chunks that have a
record already, a line without statuses announces the new checksums first. A driver that is killed
between a chunk and its record then leaves only chunks with a known checksum.
"""

from __future__ import annotations

import errno
import json
import math
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylyap._status import Status
from pylyap.studies.identity import Identity, Place
from pylyap.studies.regular import open_file

_MAX_LINE_BYTES = 2**26  # bytes of a line
_MAX_TIME = 1e11  # seconds since 1970, year 5138
_CHECKSUM_END = 2**64


@dataclass(frozen=True, slots=True)
class Record:
    """Outcome of a task: consecutive runs at one point of the grid.

    Attributes
    ----------
    point : tuple of int
        Index along each dimension of the grid.
    first : int
        First run.
    status : str
        One digit per run: 0 finished, 1 diverged, 2 stopped early, 3 failed with `error`. Empty in
        a line that only announces `sums`.
    seconds : float
        Computing time.
    worker : str
        Process and host.
    pylyap, instruction_set : str
        Versions of the worker.
    tries : int
        Number of records of this task, this one included.
    since, at : float
        Times of the start of the driver and of the record, in seconds since 1970.
    error : str
        Message of the first exception.
    study : str
        Digest of the settings at the point, see `Identity`; empty in format 1.
    sums : mapping
        Checksums of chunks by array, see `Identity`; empty in format 1.
    """

    point: tuple[int, ...]
    first: int
    status: str
    seconds: float
    worker: str
    pylyap: str
    instruction_set: str
    tries: int
    since: float
    at: float
    error: str = ""
    study: str = ""
    sums: Mapping[str, int] = field(default_factory=dict)

    @property
    def runs(self) -> tuple[int | slice, ...]:
        """Index of its runs in an array (grid..., runs)."""
        return (*self.point, slice(self.first, self.first + len(self.status)))

    @property
    def statuses(self) -> NDArray[np.int8]:
        """Status (runs,) of each run."""
        return np.frombuffer(self.status.encode(), np.int8) - np.int8(ord("0"))


class Checksums:
    """Valid checksums of chunks, by the records of a log.

    Recorded checksums are arrays over the grid and the blocks of runs, 0 where there is none.
    Announced checksums are valid in addition until a record follows.
    """

    def __init__(
        self, log: Iterable[Record], names: Iterable[str], shape: tuple[int, ...], block: int
    ) -> None:
        self._block = block
        self._known = {name: np.zeros(shape, np.uint64) for name in names}
        self._announced: dict[tuple[str, Place], set[int]] = {}
        for record in log:
            self.add(record)

    def place(self, record: Record) -> Place:
        """Indices of the chunks of a record, on the grid and among the blocks of runs."""
        return (*record.point, record.first // self._block)

    def add(self, record: Record) -> None:
        """Add the checksums of a record."""
        place = self.place(record)
        for name, checksum in record.sums.items():
            if name not in self._known:
                continue
            if record.status:
                self._known[name][place] = checksum
                self._announced.pop((name, place), None)
            else:
                self._announced.setdefault((name, place), set()).add(checksum)

    def valid(self, name: str, place: Place) -> set[int]:
        """Valid checksums of a chunk; empty if none is recorded."""
        known = int(self._known[name][place])
        return self._announced.get((name, place), set()) | ({known} if known else set())


def append(descriptor: int, *some: Record) -> None:
    """Append records and flush them to disk. An OSError leaves at most an invalid line."""
    for record in some:
        fields = asdict(record) | {"sums": {name: f"{s:016x}" for name, s in record.sums.items()}}
        text = json.dumps(fields).encode()
        line = b"%08x %s\n" % (zlib.crc32(text), text)
        if os.write(descriptor, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(descriptor)


def read(path: Path) -> Iterator[Record]:
    """Records of completed tasks in a log, in order; empty if there is no log."""
    return (record for record in read_all(path) if record.status)


def read_all(path: Path) -> Iterator[Record]:
    """All records of a log, including those that announce checksums.

    Raises ValueError if the log is not a regular file.
    """
    try:
        descriptor = open_file(path.parent, path.name, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return
    with os.fdopen(descriptor, "rb") as file:
        while line := file.readline(_MAX_LINE_BYTES):
            check, _, text = line.rstrip(b"\n").partition(b" ")
            if check == b"%08x" % zlib.crc32(text):
                record = _parsed(text)
                if record is not None:
                    yield record


def _parsed(text: bytes) -> Record | None:
    """Record of a line, None if it is invalid."""
    try:
        fields = json.loads(text)
        sums = {name: int(s, 16) for name, s in fields.get("sums", {}).items()}
        record = Record(**fields | {"point": tuple(fields["point"]), "sums": sums})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return record if _is_valid(record) else None


def _is_valid(record: Record) -> bool:
    indices: list[Any] = [*record.point, record.first, record.tries]
    times: list[Any] = [record.seconds, record.since, record.at]
    words = ("status", "worker", "pylyap", "instruction_set", "error", "study")
    return (
        all(type(i) is int and 0 <= i < 2**62 for i in indices)
        and all(type(t) in (int, float) and 0 <= t < _MAX_TIME for t in times)
        and all(isinstance(getattr(record, name), str) for name in words)
        and set(record.status) <= set("0123")
        and all(0 < checksum < _CHECKSUM_END for checksum in record.sums.values())
    )


def check(log: Iterable[Record], shape: tuple[int, ...], identity: Identity) -> None:
    """Raise ValueError if a record is of another study or of runs outside (grid..., runs)."""
    for record in log:
        end = (*record.point, record.first + max(1, len(record.status)) - 1)
        inside = len(end) == len(shape) and all(i < n for i, n in zip(end, shape, strict=True))
        if not inside or (record.study and record.study != identity.at(record.point)):
            raise ValueError(
                f"the log has runs from {record.first} at {record.point} of another study"
            )


def statuses(log: Iterable[Record], shape: tuple[int, ...]) -> NDArray[np.int8]:
    """Status (grid..., runs) of each run, -1 where there is no record."""
    result = np.full(shape, Status.NOT_RUN, np.int8)
    for record in log:
        result[record.runs] = record.statuses
    return result


def repair(path: Path) -> None:
    """Create the log if it does not exist; terminate a truncated last line."""
    descriptor = open_file(path.parent, path.name, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    with os.fdopen(descriptor, "a+b") as file:
        file.seek(0, os.SEEK_END)
        if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
            file.write(b"\n")


def rate(log: list[Record]) -> float:
    """Runs per second since the last driver began; nan if unknown."""
    if not log:
        return math.nan
    since, at = log[-1].since, log[-1].at
    runs = sum(len(record.status) for record in log if record.since == since)
    return runs / (at - since) if at > since else math.nan
