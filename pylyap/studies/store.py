"""The folder of a study, as its driver writes it.

    lock           held by the one driver that writes
    tasks.log      a line for each task that is done, see `records`
    results.zarr/  the arrays, see `layout`

A task is consecutive runs at one point of the grid, within one chunk of each array. Its chunks
come first, that of `status` last of them; it is done when its record is in the log.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pylyap import _checks
from pylyap._files import is_full
from pylyap._parallel import ProgressBar
from pylyap.studies import layout, records
from pylyap.studies.records import UNDONE, Record
from pylyap.studies.settings import PATHS
from pylyap.studies.study import Study
from pylyap.studies.work import FAILED, Environment, Outcome, environment

RESULTS, LOG, LOCK = "results.zarr", "tasks.log", "lock"

_FREE = ("title", *PATHS)  # may change: data in files are known by their digest
_SHOWN = 4  # differences that a message names
_RUN_BYTES = 4  # its status, and some masks
_LOOKS, _PAUSE = 5, 0.1  # for a lock that a reader tries for a moment; seconds


class Task(NamedTuple):
    """Consecutive runs at a point of the grid."""

    point: tuple[int, ...]
    first: int
    runs: int


def is_done(statuses: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Where runs need not be computed any more."""
    done: NDArray[np.bool_] = (statuses != UNDONE) & (statuses != FAILED)
    return done


def in_blocks(mask: NDArray[np.bool_], block: int) -> NDArray[np.bool_]:
    """(grid..., blocks) where a mask (grid..., runs) holds anywhere in a block."""
    starts = np.arange(0, mask.shape[-1], block)
    result: NDArray[np.bool_] = np.logical_or.reduceat(mask, starts, axis=-1)
    return result


def require_memory(study: Study, block: int) -> None:
    """Refuse a study whose tasks of `block` runs its driver could not keep in mind."""
    points = math.prod(study.shape)
    tasks = points * -(-study.runs // block)
    n_bytes = points * study.runs * _RUN_BYTES + tasks * 16 * (len(study.shape) + 1)
    _checks.memory("the list of all tasks", n_bytes, "make several studies of it")


def make(path: Path, study: Study, block: int) -> None:
    """Make the store of a study, with `block` runs in a chunk.

    Raises ValueError if its tasks do not fit into memory.
    """
    require_memory(study, block)
    made = {
        "block": block,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    attributes = _about(study) | environment() | made
    layout.make(path / RESULTS, layout.arrays(study, block), attributes)


def _about(study: Study) -> dict[str, Any]:
    """What the attributes of a store say of a study."""
    return {
        "title": study.title,
        "settings": json.dumps(study.settings),
        "seed": study.seed,
        "runs": study.runs,
        "grid": json.dumps({name: list(values) for name, values in study.grid.items()}),
        "format": layout.FORMAT,
    }


class Store:
    """The folder of a study in the hands of its driver, who holds the lock.

    Attributes
    ----------
    statuses : (grid..., runs) int8
        -1 where a run is not done, or failed before this driver came.
    block
        Runs in a chunk.
    made_by
        The `environment` that the results are of.
    damaged
        Chunks that were damaged or missing when it was opened.
    """

    def __init__(
        self, path: Path, study: Study, extend: bool = False, progress: bool = False
    ) -> None:
        """Open the store that there is.

        Raises ValueError if it is damaged or of another study, of less and not to be extended, or
        if the tasks of the study do not fit into memory.
        """
        self._root = path / RESULTS
        attributes = layout.attributes(path, self._root)
        check_same(path, attributes, study, extend)
        for left in self._root.rglob(".*.part"):
            left.unlink()
        self.block: int = attributes["block"]
        require_memory(study, self.block)
        self.made_by: Environment = {name: attributes[name] for name in environment()}
        wanted = layout.arrays(study, self.block)
        self._arrays = layout.open_arrays(self._root, wanted, attributes | _about(study))
        records.mend(path / LOG)
        log = list(records.read(path / LOG))
        self.statuses = records.statuses(log, (*study.shape, study.runs))
        self._tries = Counter((record.point, record.first) for record in log)
        self.statuses[self.statuses == FAILED] = UNDONE  # tried again
        self._variables = tuple(study.variables)
        self.damaged = self._forget_damaged(progress)
        self._since = time.time()
        self._log = os.open(path / LOG, os.O_WRONLY | os.O_APPEND)

    def close(self) -> None:
        """End the log."""
        os.close(self._log)

    @property
    def tasks_left(self) -> int:
        return int(in_blocks(~is_done(self.statuses), self.block).sum())

    def tasks(self) -> Iterator[Task]:
        """What is to be done. The order takes the whole grid alike from the start, so that the
        rate so far foretells the time left."""
        left = ~is_done(self.statuses)
        places = np.argwhere(in_blocks(left, self.block))
        for place in np.random.default_rng(0).permutation(places):
            *point, b = place.tolist()
            begin = b * self.block
            runs = np.flatnonzero(left[(*point, slice(begin, begin + self.block))]) + begin
            yield Task(tuple(point), int(runs[0]), int(runs[-1] - runs[0]) + 1)

    def write(self, task: Task, outcome: Outcome) -> None:
        """Put the arrays of a task in place, `status` last, and then on record."""
        arrays = outcome.arrays
        record = Record(
            point=task.point,
            first=task.first,
            status="".join(map(str, arrays["status"])),
            seconds=round(outcome.seconds, 4),
            worker=outcome.worker,
            **outcome.environment,
            tries=self._tries[task.point, task.first] + 1,
            since=self._since,
            at=time.time(),
            error=outcome.error,
        )
        for name in sorted(arrays, key="status".__eq__):
            self._arrays[name][record.runs] = arrays[name]
        records.append(self._log, record)
        self.statuses[record.runs] = record.statuses
        self._tries[record.point, record.first] += 1

    def _forget_damaged(self, progress: bool) -> int:
        """Take chunks that are not as they were written for not done; the number of them."""
        from pylyap.studies.chunks import is_whole

        damaged = 0
        places = np.argwhere(in_blocks(is_done(self.statuses), self.block)).tolist()
        shown = progress and sys.stderr.isatty()
        with ProgressBar(len(places), "checking", shown, unit=" tasks") as bar:
            for seen, place in enumerate(places):
                chunks = (self._chunk(name, place) for name in self._variables)
                bad = sum(not is_whole(chunk) for chunk in chunks)
                if bad:
                    begin = place[-1] * self.block
                    self.statuses[tuple(place[:-1])][begin : begin + self.block] = UNDONE
                    damaged += bad
                bar.show(seen + 1)
        return damaged

    def _chunk(self, name: str, place: list[int]) -> Path:
        """The file of a chunk of an array."""
        metadata = self._arrays[name].metadata
        rest = (0,) * (self._arrays[name].ndim - len(place))
        return self._root / name / metadata.encode_chunk_key((*place, *rest))


# --- whose store it is ---


@contextmanager
def driver(path: Path) -> Iterator[None]:
    """Be the only one who writes to a folder, which is made if it is not there.

    Raises ValueError if somebody else is, or it cannot be written, or it holds other things.
    """
    try:
        path.mkdir(exist_ok=True)
        ours = (path / LOCK).exists() or (path / RESULTS).exists()
        if not ours and any(path.iterdir()):
            raise ValueError(f"path must be the folder of a study or empty, got {str(path)!r}")
        descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        if is_full(error):
            raise
        raise ValueError(
            f"path must be a folder that can be written, got {str(path)!r}: "
            f"{(error.strerror or str(error)).lower()}"
        ) from None
    _held.add(descriptor)
    try:
        _lock(descriptor, path)
        yield
    finally:
        _held.discard(descriptor)
        os.close(descriptor)


def is_written(path: Path) -> bool:
    """Whether a driver holds the lock of a folder."""
    try:
        descriptor = os.open(path / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _lock(descriptor: int, path: Path) -> None:
    for _ in range(_LOOKS):
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()}".encode(), 0)
            return
        time.sleep(_PAUSE)
    who = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
    raise ValueError(
        f"path must be a folder that nobody else writes to, got {str(path)!r}: {who} does"
    )


# A lock lives as long as somebody has its file open: not the processes of a pool that outlive us.
_held: set[int] = set()


def _let_go() -> None:
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)


def check_same(path: Path, about: dict[str, Any], study: Study, extend: bool) -> None:
    """Refuse another study than that of a store, and more of it unless it is to be extended."""
    before, after = _flat(json.loads(about["settings"])), _flat(study.settings)
    changed = [
        name
        for name in {**before, **after}
        if before.get(name) != after.get(name) and name not in _FREE
    ]

    def words(names: list[str]) -> str:
        parts = [f"{n} {_brief(before.get(n))} → {_brief(after.get(n))}" for n in names]
        more = f"; and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
        return "; ".join(parts[:_SHOWN]) + more

    other = [name for name in changed if not _is_more(name, before.get(name), after.get(name))]
    if other:
        raise ValueError(
            f"study must be the one in {str(path)!r}, which is another: {words(other)}"
        )
    if changed and not extend:
        raise ValueError(
            f"study must be the one in {str(path)!r}, which has less: {words(changed)}; "
            "extend=True (--extend) adds to it"
        )


def _is_more(name: str, before: Any, after: Any) -> bool:
    """Whether a setting asks for more runs, or for more values of the grid behind those that are
    there."""
    if name == "runs":
        return bool(after > before)
    lists = isinstance(before, list) and isinstance(after, list)
    return name.startswith("grid.") and lists and after[: len(before)] == before


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by their dotted paths."""
    result: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            result |= _flat(value, f"{prefix}{name}.")
        else:
            result[f"{prefix}{name}"] = value
    return result


def _brief(value: Any) -> str:
    """A setting in a message."""
    if isinstance(value, list) and len(value) > _SHOWN:
        return f"[{value[0]}, {value[1]}, ..., {value[-1]}] ({len(value)} values)"
    return "nothing" if value is None else _checks.describe(value)
