"""The folder of a study, as its driver writes it.

    lock           held by the one driver that writes
    tasks.log      a line for each task that is done, see `records`
    results.zarr/  the arrays, see `layout`

A task is consecutive runs at one point of the grid, within one chunk of each array. Its chunks
come first, that of `status` last of them; it is done when its record is in the log, with the
checksums of its chunks.
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
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pylyap import _checks
from pylyap._errors import ArgumentError
from pylyap._files import is_full
from pylyap._parallel import ProgressBar
from pylyap._status import Status
from pylyap.studies import layout, metadata, records, regular
from pylyap.studies.identity import Identity, Place
from pylyap.studies.metadata import Damaged, Metadata
from pylyap.studies.records import Checksums, Record
from pylyap.studies.settings import PATHS
from pylyap.studies.study import Study
from pylyap.studies.work import Environment, Outcome, environment, here

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
    done: NDArray[np.bool_] = (statuses != Status.NOT_RUN) & (statuses != Status.RAISED)
    return done


def in_blocks(mask: NDArray[np.bool_], block: int) -> NDArray[np.bool_]:
    """(grid..., blocks) where a mask (grid..., runs) holds anywhere in a block."""
    starts = np.arange(0, mask.shape[-1], block)
    result: NDArray[np.bool_] = np.logical_or.reduceat(mask, starts, axis=-1)
    return result


def require_memory(study: Study, block: int) -> None:
    """Refuse a study whose tasks of `block` runs its driver could not keep in mind."""
    require_memory_of(study.shape, study.runs, block, len(study.variables))


def require_memory_of(shape: tuple[int, ...], runs: int, block: int, variables: int) -> None:
    """The same by the numbers of runs and variables."""
    points = math.prod(shape)
    tasks = points * -(-runs // block)
    n_bytes = points * runs * _RUN_BYTES + tasks * (16 * (len(shape) + 1) + 8 * variables)
    _checks.memory("the list of all tasks", n_bytes, "make several studies of it")


def make(path: Path, study: Study, block: int) -> None:
    """Make the store of a study, with `block` runs in a chunk.

    Raises ValueError if its tasks do not fit into memory.
    """
    require_memory(study, block)
    attributes = _about(study) | environment() | _made(block, datetime.now(UTC))
    layout.make(path / RESULTS, layout.arrays(study, block), attributes)


def _made(block: int, begun: datetime) -> dict[str, Any]:
    """What the attributes of a store say of its origin."""
    return {
        "block": block,
        "created": begun.isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def _about(study: Study) -> dict[str, Any]:
    """What the attributes of a store say of a study."""
    return {
        "title": study.title,
        "settings": json.dumps(study.settings),
        "seed": study.seed,
        "runs": study.runs,
        "grid": json.dumps({name: list(values) for name, values in study.grid.items()}),
        "format": metadata.FORMAT,
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
    mended
        Metadata and labels that were damaged then, and are written anew.
    """

    def __init__(
        self, path: Path, study: Study, extend: bool = False, progress: bool = False
    ) -> None:
        """Open the store that there is; metadata that are damaged are written anew.

        Raises ValueError if it is of another study, of less and not to be extended, if it is
        damaged and does not tell whose it is, if the tasks of the study do not fit into memory, or
        if a file of it is a link.
        """
        self._root = path / RESULTS
        regular.require_folder(path, RESULTS)
        log = list(records.read_all(path / LOG))
        self.mended: list[str] = []
        try:
            found = metadata.read(path, self._root)
        except Damaged as damage:
            found = _rebuilt(path, study, extend, log, damage)
            self.mended.append(f"{RESULTS}/{metadata.METADATA}")
        check_same(path, found.attributes, study, extend)
        self.block: int = found.attributes["block"]
        require_memory(study, self.block)
        shape = (*study.shape, study.runs)
        self._identity = Identity(study.settings, self.block)
        records.check(log, shape, self._identity)
        layout.sweep(path, self._root)
        records.mend(path / LOG)
        self.made_by: Environment = {name: found.attributes[name] for name in environment()}
        wanted = layout.arrays(study, self.block)
        self.mended += layout.restore(self._root, wanted, found.documents)
        self._files, self._arrays, labels = layout.open_arrays(self._root, wanted)
        self.mended += [f"labels of {name}" for name in labels]
        self.statuses = records.statuses(log, shape)
        self._tries = Counter((record.point, record.first) for record in log if record.status)
        self.statuses[self.statuses == Status.RAISED] = Status.NOT_RUN  # tried again
        self._variables = tuple(name for name, v in study.variables.items() if math.prod(v.shape))
        blocks = (*study.shape, -(-study.runs // self.block))
        self._sums = Checksums(log, self._variables, blocks, self.block)
        self._since = time.time()
        self._log = regular.open_file(path, LOG, os.O_WRONLY | os.O_APPEND)
        try:
            self.damaged = self._check_chunks(found.format, progress)
            layout._publish(self._root, wanted, found.attributes | _about(study))
        except BaseException:
            self.close()
            raise

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
            pylyap=outcome.environment["pylyap"],
            instruction_set=outcome.environment["instruction_set"],
            tries=self._tries[task.point, task.first] + 1,
            since=self._since,
            at=time.time(),
            error=outcome.error,
            study=self._identity.at(task.point),
        )
        place = self._sums.place(record)
        chunks = {
            name: self._encoded(name, record, arrays[name])
            for name in sorted(arrays, key="status".__eq__)
            if name in self._variables
        }
        sums = {name: self._identity.checksum(name, place, c) for name, c in chunks.items()}
        record = replace(record, sums=sums)
        if any(self._sums.of(name, place) for name in chunks):
            self._append(replace(record, status="", error=""))  # what is there will be replaced
        for name, data in chunks.items():
            self._files.place(self._key(name, place), data)
        self._append(record)
        self.statuses[record.runs] = record.statuses
        self._tries[record.point, record.first] += 1

    def _encoded(self, name: str, record: Record, values: NDArray[Any]) -> bytes:
        """The chunk of an array with the runs of a record, as Zarr writes it."""
        staged: dict[str, bytes] = {}
        self._files.staged = staged
        try:
            self._arrays[name][record.runs] = values
        finally:
            self._files.staged = None
        (data,) = staged.values()
        return data

    def _append(self, *some: Record) -> None:
        records.append(self._log, *some)
        for record in some:
            self._sums.add(record)

    def _check_chunks(self, version: int, progress: bool) -> int:
        """Take chunks that are not as they were written for not done; the number of them.

        Chunks of format 1 have no checksums on record: those that are whole get one.
        """
        damaged, seals = 0, []
        places = np.argwhere(in_blocks(is_done(self.statuses), self.block)).tolist()
        shown = progress and sys.stderr.isatty()
        with ProgressBar(len(places), "checking", shown, unit=" tasks") as bar:
            for seen, place in enumerate(places):
                bad, unknown = self._check_block(tuple(place), version)
                if bad:
                    begin = place[-1] * self.block
                    self.statuses[tuple(place[:-1])][begin : begin + self.block] = Status.NOT_RUN
                    damaged += bad
                elif unknown:
                    seals.append(self._seal(tuple(place), unknown))
                bar.show(seen + 1)
        if seals:
            self._append(*seals)
        return damaged

    def _check_block(self, place: Place, version: int) -> tuple[int, dict[str, int]]:
        """The number of chunks of a block of runs that are not as they were written, and the
        checksums of those that have none on record."""
        from pylyap.studies.chunks import is_decoded, look

        assert self._files.sizes is not None
        bad, unknown = 0, {}
        for name in self._variables:
            data, problem = look(self._root, self._key(name, place), self._files.sizes[name])
            if data is None or problem:
                bad += 1
                continue
            known, checksum = self._sums.of(name, place), self._identity.checksum(name, place, data)
            if known or version > 1:
                bad += checksum not in known
            elif is_decoded(data):
                unknown[name] = checksum
            else:
                bad += 1
        return bad, unknown

    def _seal(self, place: Place, sums: dict[str, int]) -> Record:
        """A record that gives checksums to chunks that have none."""
        *point, block = place
        return Record(
            point=tuple(point),
            first=block * self.block,
            status="",
            seconds=0.0,
            worker=here(),
            pylyap=self.made_by["pylyap"],
            instruction_set=self.made_by["instruction_set"],
            tries=0,
            since=self._since,
            at=time.time(),
            study=self._identity.at(tuple(point)),
            sums=sums,
        )

    def _key(self, name: str, place: Place) -> str:
        """The file of a chunk of an array."""
        from pylyap.studies.chunks import chunk_key

        return chunk_key(name, place, self._arrays[name].ndim)


def _rebuilt(
    path: Path, study: Study, extend: bool, log: list[Record], damage: Damaged
) -> Metadata:
    """What the damaged metadata of a store said, by the study, its arrays and the log.

    Raises ValueError if these are of another study, or do not say enough.
    """
    root = path / RESULTS
    block = layout.block_there(root, study)
    if block is None:
        raise ValueError(f"{damage}, but those of its arrays are, too: begin in another folder")
    require_memory(study, block)
    done = [record for record in log if record.status]
    try:
        documents = layout.rebuilt(root, layout.arrays(study, block), extend)
        records.check(log, (*study.shape, study.runs), Identity(study.settings, block))
    except ValueError as error:
        raise ValueError(f"{damage}, but with the study that is there: {error}") from None
    made: dict[str, Any] = dict(environment())
    if done:
        made = {name: getattr(done[0], name) for name in made}
    # Records of format 1 have no checksums.
    version = metadata.FORMAT if all(record.study for record in log) else 1
    begun = datetime.fromtimestamp(done[0].since, UTC) if done else datetime.now(UTC)
    attributes = _about(study) | made | _made(block, begun) | {"format": version}
    return Metadata(attributes, documents, {})


# --- whose store it is ---


@contextmanager
def driver(path: Path) -> Iterator[None]:
    """Be the only one who writes to a folder, which is made if it is not there.

    Raises ValueError if somebody else is, or it cannot be written, or it holds other things, or the
    lock is a link or no regular file.
    """
    try:
        path.mkdir(exist_ok=True)
        ours = any(os.path.lexists(path / name) for name in (LOCK, RESULTS))
        if not ours and any(path.iterdir()):
            raise ArgumentError(
                "path", f"must be the folder of a study or empty, got {str(path)!r}"
            )
        descriptor = regular.open_file(path, LOCK, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        if is_full(error):
            raise
        raise ArgumentError(
            "path",
            f"must be a folder that can be written, got {str(path)!r}: "
            f"{(error.strerror or str(error)).lower()}",
        ) from None
    _held.add(descriptor)
    try:
        _lock(descriptor, path)
        yield
    finally:
        _held.discard(descriptor)
        os.close(descriptor)


def is_written(path: Path) -> bool:
    """Whether a driver holds the lock of a folder. Raises ValueError if that is no regular file."""
    try:
        descriptor = regular.open_file(path, LOCK, os.O_RDONLY)
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
    raise ArgumentError(
        "path", f"must be a folder that nobody else writes to, got {str(path)!r}: {who} does"
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
        raise ArgumentError(
            "study", f"must be the one in {str(path)!r}, which is another: {words(other)}"
        )
    if changed and not extend:
        raise ArgumentError(
            "study",
            f"must be the one in {str(path)!r}, which has less: {words(changed)}; "
            "extend=True (--extend) adds to it",
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
