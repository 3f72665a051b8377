"""The log of a study: a line for each task that is done, which is true as soon as it is there.

A line is the CRC-32 of what follows in hexadecimal digits, and a JSON object, a `Record`. What a
kill or a full disk left unfinished, and what has changed since, is no record: its task is not done.
"""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

UNDONE = -1


@dataclass(frozen=True, slots=True)
class Record:
    """What became of consecutive runs at one point of the grid.

    `status` has a digit for each run: 0 finished, 1 diverged, 2 stopped early, 3 failed with
    `error`. `tries` counts how often they are on record, `since` is when that driver began.
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

    @property
    def runs(self) -> tuple[int | slice, ...]:
        """Index of its runs in an array over grid and runs."""
        return (*self.point, slice(self.first, self.first + len(self.status)))

    @property
    def statuses(self) -> NDArray[np.int8]:
        """(runs,) its digits."""
        return np.frombuffer(self.status.encode(), np.int8) - np.int8(ord("0"))


def append(descriptor: int, record: Record) -> None:
    """Put a record on the disk. Raises OSError, and leaves a line that counts for nothing."""
    text = json.dumps(asdict(record)).encode()
    line = b"%08x %s\n" % (zlib.crc32(text), text)
    if os.write(descriptor, line) < len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(descriptor)


def read(path: Path) -> Iterator[Record]:
    """The records of a log, in the order in which they came; none if there is no log."""
    try:
        file = path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        return
    with file:
        for line in file:
            check, _, text = line.rstrip(b"\n").partition(b" ")
            if check == b"%08x" % zlib.crc32(text):
                fields = json.loads(text)
                yield Record(**fields | {"point": tuple(fields["point"])})


def statuses(log: Iterable[Record], shape: tuple[int, ...]) -> NDArray[np.int8]:
    """The status of each run of a study (grid..., runs), -1 where it is not on record.

    Raises ValueError if a record is of none of them.
    """
    result = np.full(shape, UNDONE, np.int8)
    for record in log:
        try:
            result[record.runs] = record.statuses
        except (IndexError, ValueError):
            raise ValueError(
                f"the log has runs {record.first} and on at {record.point} of another study"
            ) from None
    return result


def mend(path: Path) -> None:
    """End a last line that was cut off, so that the next begins on its own."""
    with path.open("a+b") as file:
        if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
            file.write(b"\n")
