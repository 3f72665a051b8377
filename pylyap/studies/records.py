"""The log of a study: a line for each task that is done, which is true as soon as it is there.

A line is the CRC-32 of what follows in hexadecimal digits, and a JSON object, a `Record`. What a
kill or a full disk left unfinished, and what has changed since, is no record: its task is not done.

A record has the checksums of the chunks that its task wrote. Where it writes into chunks that are
on record already, a line without statuses announces their new checksums, so that a kill between a
chunk and its record leaves chunks that are known.
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

_LONGEST = 2**26  # bytes of a line
_LATEST = 1e11  # seconds since 1970, year 5138
_CHECKSUMS = 2**64


@dataclass(frozen=True, slots=True)
class Record:
    """What became of consecutive runs at one point of the grid.

    `status` has a digit for each run: 0 finished, 1 diverged, 2 stopped early, 3 failed with
    `error`; none in a line that announces `sums` alone. `tries` counts how often they are on
    record, `since` is when that driver began. `study` is the digest of the settings at the point
    and `sums` are the checksums of chunks by array, see `Identity`; both are missing in stores of
    format 1.
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
        """Index of its runs in an array over grid and runs."""
        return (*self.point, slice(self.first, self.first + len(self.status)))

    @property
    def statuses(self) -> NDArray[np.int8]:
        """(runs,) its digits."""
        return np.frombuffer(self.status.encode(), np.int8) - np.int8(ord("0"))


class Checksums:
    """The checksums that chunks may have, by the records of a log.

    `known` has one for each chunk of arrays over the grid and blocks of runs, 0 where there is
    none; announced ones are kept beside it until a record follows them.
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
        """The indices of its chunks, on the grid and among blocks of runs."""
        return (*record.point, record.first // self._block)

    def add(self, record: Record) -> None:
        """Take note of what a record says."""
        place = self.place(record)
        for name, checksum in record.sums.items():
            if name not in self._known:
                continue
            if record.status:
                self._known[name][place] = checksum
                self._announced.pop((name, place), None)
            else:
                self._announced.setdefault((name, place), set()).add(checksum)

    def of(self, name: str, place: Place) -> set[int]:
        """Those that a chunk may have; none if none is on record."""
        known = int(self._known[name][place])
        return self._announced.get((name, place), set()) | ({known} if known else set())


def append(descriptor: int, *some: Record) -> None:
    """Put records on the disk. Raises OSError, and leaves a line that counts for nothing."""
    for record in some:
        fields = asdict(record) | {"sums": {name: f"{s:016x}" for name, s in record.sums.items()}}
        text = json.dumps(fields).encode()
        line = b"%08x %s\n" % (zlib.crc32(text), text)
        if os.write(descriptor, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(descriptor)


def read(path: Path) -> Iterator[Record]:
    """The records of tasks in a log, in the order in which they came; none if there is no log."""
    return (record for record in read_all(path) if record.status)


def read_all(path: Path) -> Iterator[Record]:
    """All records of a log, those that announce checksums included.

    Raises ValueError if it is not a regular file.
    """
    try:
        descriptor = open_file(path.parent, path.name, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return
    with os.fdopen(descriptor, "rb") as file:
        while line := file.readline(_LONGEST):
            check, _, text = line.rstrip(b"\n").partition(b" ")
            if check == b"%08x" % zlib.crc32(text):
                record = _parsed(text)
                if record is not None:
                    yield record


def _parsed(text: bytes) -> Record | None:
    """The record of a line, None if it says nothing that a driver writes."""
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
        and all(type(t) in (int, float) and 0 <= t < _LATEST for t in times)
        and all(isinstance(getattr(record, name), str) for name in words)
        and set(record.status) <= set("0123")
        and all(0 < checksum < _CHECKSUMS for checksum in record.sums.values())
    )


def check(log: Iterable[Record], shape: tuple[int, ...], identity: Identity) -> None:
    """Refuse records of other runs than those of a study (grid..., runs), or of other settings.

    Raises ValueError.
    """
    for record in log:
        end = (*record.point, record.first + max(1, len(record.status)) - 1)
        inside = len(end) == len(shape) and all(i < n for i, n in zip(end, shape, strict=True))
        if not inside or (record.study and record.study != identity.at(record.point)):
            raise ValueError(
                f"the log has runs {record.first} and on at {record.point} of another study"
            )


def statuses(log: Iterable[Record], shape: tuple[int, ...]) -> NDArray[np.int8]:
    """The status of each run of a study (grid..., runs), -1 where it is not on record."""
    result = np.full(shape, Status.NOT_RUN, np.int8)
    for record in log:
        result[record.runs] = record.statuses
    return result


def mend(path: Path) -> None:
    """Make a log if there is none; end a last line that was cut off, so that the next begins on
    its own."""
    descriptor = open_file(path.parent, path.name, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    with os.fdopen(descriptor, "a+b") as file:
        file.seek(0, os.SEEK_END)
        if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
            file.write(b"\n")


def rate(log: list[Record]) -> float:
    """Runs per second since the last driver began; nan if nothing tells."""
    if not log:
        return math.nan
    since, at = log[-1].since, log[-1].at
    runs = sum(len(record.status) for record in log if record.since == since)
    return runs / (at - since) if at > since else math.nan
