"""The folder of a study, written by its driver, the process that calls `run_study`.

    lock           locked by the driver
    tasks.log      one line per completed task, see `records`
    results.zarr/  the arrays, see `layout`

A task is a block of consecutive runs at one point of the grid, within one chunk of each array. Its
chunks are written first, `status` last. The task is complete once the log has its record, with the
checksums of the chunks.
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
from pylyap.studies.metadata import DamagedMetadata, Metadata
from pylyap.studies.records import Checksums, Record
from pylyap.studies.settings import PATHS
from pylyap.studies.study import Study
from pylyap.studies.systems import STATES, has_stored_system, same_probe
from pylyap.studies.work import Environment, Outcome, environment, worker_name

RESULTS, LOG, LOCK = "results.zarr", "tasks.log", "lock"

_CHANGEABLE = ("title", "system.name", *PATHS)  # data in files are identified by their digest
_MAX_SHOWN = 4  # differences in a message
_BYTES_PER_RUN = 4  # status and masks
_LOCK_ATTEMPTS, _LOCK_PAUSE = 5, 0.1  # seconds; readers hold the lock for a moment


class Task(NamedTuple):
    """A block of consecutive runs at a point of the grid."""

    point: tuple[int, ...]
    first: int
    runs: int


def is_done(statuses: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Where runs are complete; failed runs are computed again."""
    done: NDArray[np.bool_] = (statuses != Status.NOT_RUN) & (statuses != Status.RAISED)
    return done


def any_in_block(mask: NDArray[np.bool_], block: int) -> NDArray[np.bool_]:
    """Mask (grid..., blocks) of the blocks with at least one run of a mask (grid..., runs)."""
    starts = np.arange(0, mask.shape[-1], block)
    result: NDArray[np.bool_] = np.logical_or.reduceat(mask, starts, axis=-1)
    return result


def require_memory(study: Study, block: int) -> None:
    """Raise ArgumentError if the list of all tasks of `block` runs does not fit into memory."""
    require_memory_of(study.shape, study.runs, block, len(study.variables))


def require_memory_of(shape: tuple[int, ...], runs: int, block: int, variables: int) -> None:
    """Same as `require_memory`, by the shape of the grid and the number of variables."""
    points = math.prod(shape)
    tasks = points * -(-runs // block)
    n_bytes = points * runs * _BYTES_PER_RUN + tasks * (16 * (len(shape) + 1) + 8 * variables)
    _checks.memory("the list of all tasks", n_bytes, "split it into several studies")


def create(path: Path, study: Study, block: int) -> None:
    """Create the store of a study, with `block` runs per chunk.

    Raises ArgumentError if the list of its tasks does not fit into memory.
    """
    require_memory(study, block)
    attributes = (
        _study_attributes(study) | environment() | _origin_attributes(block, datetime.now(UTC))
    )
    layout.create(path / RESULTS, layout.arrays(study, block), attributes)


def _origin_attributes(block: int, begun: datetime) -> dict[str, Any]:
    """Attributes of a store that describe its origin."""
    return {
        "block": block,
        "created": begun.isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def _study_attributes(study: Study) -> dict[str, Any]:
    """Attributes of a store that describe the study."""
    return {
        "title": study.title,
        "settings": json.dumps(study.settings),
        "seed": study.seed,
        "runs": study.runs,
        "grid": json.dumps({name: list(values) for name, values in study.grid.items()}),
        "format": metadata.FORMAT,
    }


class Store:
    """The folder of a study, open for its driver, which holds the lock.

    Attributes
    ----------
    statuses : ndarray of int8, shape (grid..., runs)
        -1 where a run is not complete or failed under an earlier driver.
    block : int
        Runs per chunk.
    made_by : dict
        The `environment` of the first results.
    damaged : int
        Number of chunks that were damaged or missing when the store was opened.
    repaired : list of str
        Metadata and labels that were damaged then and are rewritten.
    """

    def __init__(
        self, path: Path, study: Study, extend: bool = False, progress: bool = False
    ) -> None:
        """Open an existing store and rewrite damaged metadata.

        Raises ValueError if the store is of another study, or of a smaller one without `extend`; if
        damage prevents its identification; if the list of tasks does not fit into memory; or if a
        file is a symbolic link.
        """
        self._root = path / RESULTS
        regular.require_folder(path, RESULTS)
        log = list(records.read_all(path / LOG))
        self.repaired: list[str] = []
        try:
            found = metadata.read(path, self._root)
        except DamagedMetadata as damage:
            found = _rebuild_metadata(path, study, extend, log, damage)
            self.repaired.append(f"{RESULTS}/{metadata.METADATA}")
        require_same_study(path, found.attributes, study, extend)
        self.block: int = found.attributes["block"]
        require_memory(study, self.block)
        shape = (*study.shape, study.runs)
        self._identity = Identity(study.settings, self.block)
        records.check(log, shape, self._identity)
        layout.remove_temporary(path, self._root)
        records.repair(path / LOG)
        self.made_by: Environment = {name: found.attributes[name] for name in environment()}
        required = layout.arrays(study, self.block)
        self.repaired += layout.restore_metadata(self._root, required, found.documents)
        self._files, self._arrays, labels = layout.open_arrays(self._root, required)
        self.repaired += [f"labels of {name}" for name in labels]
        self.statuses = records.statuses(log, shape)
        self._tries = Counter((record.point, record.first) for record in log if record.status)
        self.statuses[self.statuses == Status.RAISED] = Status.NOT_RUN  # computed again
        self._variables = tuple(name for name, v in study.variables.items() if math.prod(v.shape))
        blocks = (*study.shape, -(-study.runs // self.block))
        self._sums = Checksums(log, self._variables, blocks, self.block)
        self._since = time.time()
        self._log = regular.open_file(path, LOG, os.O_WRONLY | os.O_APPEND)
        try:
            self.damaged = self._check_chunks(found.format, progress)
            layout.publish(self._root, required, found.attributes | _study_attributes(study))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the log."""
        os.close(self._log)

    @property
    def tasks_left(self) -> int:
        return int(any_in_block(~is_done(self.statuses), self.block).sum())

    def tasks(self) -> Iterator[Task]:
        """Remaining tasks in random order, so that the remaining time is estimated without bias."""
        left = ~is_done(self.statuses)
        places = np.argwhere(any_in_block(left, self.block))
        for place in np.random.default_rng(0).permutation(places):
            *point, b = place.tolist()
            begin = b * self.block
            runs = np.flatnonzero(left[(*point, slice(begin, begin + self.block))]) + begin
            yield Task(tuple(point), int(runs[0]), int(runs[-1] - runs[0]) + 1)

    def write(self, task: Task, outcome: Outcome) -> None:
        """Write the chunks of a task, `status` last, then its record."""
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
        if any(self._sums.valid(name, place) for name in chunks):
            self._append(replace(record, status="", error=""))  # existing chunks will be replaced
        for name, data in chunks.items():
            self._files.put(self._key(name, place), data)
        self._append(record)
        self.statuses[record.runs] = record.statuses
        self._tries[record.point, record.first] += 1

    def _encoded(self, name: str, record: Record, values: NDArray[Any]) -> bytes:
        """Encoded chunk of an array, with the runs of a record."""
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
        """Mark the runs of damaged chunks as not complete; return the number of these chunks.

        Chunks of format 1 have no checksums in the log: valid ones get one.
        """
        damaged, seals = 0, []
        places = np.argwhere(any_in_block(is_done(self.statuses), self.block)).tolist()
        shown = progress and sys.stderr.isatty()
        with ProgressBar(len(places), "checking", shown, unit=" tasks") as bar:
            for seen, place in enumerate(places):
                bad, unknown = self._check_block(tuple(place), version)
                if bad:
                    begin = place[-1] * self.block
                    self.statuses[tuple(place[:-1])][begin : begin + self.block] = Status.NOT_RUN
                    damaged += bad
                elif unknown:
                    seals.append(self._checksum_record(tuple(place), unknown))
                bar.show(seen + 1)
        if seals:
            self._append(*seals)
        return damaged

    def _check_block(self, place: Place, version: int) -> tuple[int, dict[str, int]]:
        """Number of damaged chunks of a block, and checksums of valid ones that the log lacks."""
        from pylyap.studies.chunks import can_decode, read_chunk

        assert self._files.sizes is not None
        bad, unknown = 0, {}
        for name in self._variables:
            data, problem = read_chunk(self._root, self._key(name, place), self._files.sizes[name])
            if data is None or problem:
                bad += 1
                continue
            known, checksum = (
                self._sums.valid(name, place),
                self._identity.checksum(name, place, data),
            )
            if known or version > 1:
                bad += checksum not in known
            elif can_decode(data):
                unknown[name] = checksum
            else:
                bad += 1
        return bad, unknown

    def _checksum_record(self, place: Place, sums: dict[str, int]) -> Record:
        """A record that adds checksums of chunks to the log."""
        *point, block = place
        return Record(
            point=tuple(point),
            first=block * self.block,
            status="",
            seconds=0.0,
            worker=worker_name(),
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


def _rebuild_metadata(
    path: Path, study: Study, extend: bool, log: list[Record], damage: DamagedMetadata
) -> Metadata:
    """Reconstruct damaged metadata of a store from the study, its arrays and the log.

    Raises ValueError if these are of another study or insufficient.
    """
    root = path / RESULTS
    if study._given is not None and not has_stored_system(path, study._given):
        _require_same_system(path, ["system.probe"])
    block = layout.stored_block(root, study)
    if block is None:
        raise ValueError(f"{damage}; the metadata of its arrays are damaged, too: use a new folder")
    require_memory(study, block)
    done = [record for record in log if record.status]
    try:
        documents = layout.rebuild_documents(root, layout.arrays(study, block), extend)
        records.check(log, (*study.shape, study.runs), Identity(study.settings, block))
    except ValueError as error:
        raise ValueError(f"{damage}; the given study does not fit: {error}") from None
    made: dict[str, Any] = dict(environment())
    if done:
        made = {name: getattr(done[0], name) for name in made}
    # Records of format 1 have no checksums.
    version = metadata.FORMAT if all(record.study for record in log) else 1
    begun = datetime.fromtimestamp(done[0].since, UTC) if done else datetime.now(UTC)
    attributes = (
        _study_attributes(study) | made | _origin_attributes(block, begun) | {"format": version}
    )
    return Metadata(attributes, documents, {})


# --- lock and identity ---


@contextmanager
def driver(path: Path) -> Iterator[None]:
    """Lock a folder for exclusive writing; it is created if it does not exist.

    Raises ValueError if another process holds the lock, the folder cannot be written or contains
    other files, or the lock is not a regular file.
    """
    try:
        path.mkdir(exist_ok=True)
        ours = any(os.path.lexists(path / name) for name in (LOCK, RESULTS))
        if not ours and any(path.iterdir()):
            raise ArgumentError(
                "path", f"must be the folder of a study or an empty one, got {str(path)!r}"
            )
        descriptor = regular.open_file(path, LOCK, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        if is_full(error):
            raise
        raise ArgumentError(
            "path",
            f"must be a writable folder, got {str(path)!r}: "
            f"{(error.strerror or str(error)).lower()}",
        ) from None
    _held.add(descriptor)
    try:
        _lock(descriptor, path)
        yield
    finally:
        _held.discard(descriptor)
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether a driver holds the lock. Raises ValueError if the lock is not a regular file."""
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
    for _ in range(_LOCK_ATTEMPTS):
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, worker_name().encode(), 0)
            return
        time.sleep(_LOCK_PAUSE)
    who = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
    raise ArgumentError(
        "path", f"must be a folder that no other process writes to, got {str(path)!r}: {who} does"
    )


# A lock lasts as long as any process has its file open. Forked workers that outlive the driver
# must not keep it.
_held: set[int] = set()


def _close_inherited_locks() -> None:
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_inherited_locks)


def require_same_study(path: Path, about: dict[str, Any], study: Study, extend: bool) -> None:
    """Raise ArgumentError if a store is of another study, or of a smaller one without `extend`."""
    before, after = _flattened(json.loads(about["settings"])), _flattened(study.settings)
    changed = [
        name
        for name in {**before, **after}
        if before.get(name) != after.get(name) and name not in _CHANGEABLE
    ]
    if "system.probe" in changed and same_probe(
        before.get("system.probe"), after.get("system.probe"), after.get("system.dtype")
    ):
        changed.remove("system.probe")

    def summary(names: list[str]) -> str:
        parts = [f"{n} {_short_text(before.get(n))} → {_short_text(after.get(n))}" for n in names]
        more = f"; and {len(parts) - _MAX_SHOWN} more" if len(parts) > _MAX_SHOWN else ""
        return "; ".join(parts[:_MAX_SHOWN]) + more

    if changed == ["data.sha256"]:
        files = " or ".join(str(after[name]) for name in PATHS if after.get(name))
        raise ArgumentError(
            "study",
            f"must have the data of the study in {str(path)!r}, {files or 'a file'} has changed "
            f"since: sha256 {summary(changed).removeprefix('data.sha256 ')}",
        )
    if "system.kind" in before and "system.kind" in after:
        _require_same_system(path, [name for name in changed if name.startswith("system.")])
    other = [name for name in changed if not _is_extension(name, before.get(name), after.get(name))]
    if other:
        raise ArgumentError(
            "study", f"must be the one in {str(path)!r}, which differs: {summary(other)}"
        )
    if changed and not extend:
        raise ArgumentError(
            "study",
            f"must be the one in {str(path)!r}, which is smaller: {summary(changed)}; "
            "extend=True (--extend) adds the rest",
        )


def _require_same_system(path: Path, changed: list[str]) -> None:
    """Raise ArgumentError if settings of the system have changed."""
    if changed == ["system.states"]:
        text = f"states: their digest is another one than that of {STATES}"
    elif changed == ["system.probe"]:
        text = "system: its first steps from the first state differ"
    elif changed:
        text = f"system: {', '.join(changed)} differ"
    else:
        return
    what, _, how = text.partition(": ")
    raise ArgumentError(
        "study", f"must have the {what} of the study in {str(path)!r}, changed since: {how}"
    )


def _is_extension(name: str, before: Any, after: Any) -> bool:
    """Whether a changed setting adds runs, or appends values to the grid."""
    if name == "runs":
        return bool(after > before)
    lists = isinstance(before, list) and isinstance(after, list)
    return name.startswith("grid.") and lists and after[: len(before)] == before


def _flattened(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by dotted path."""
    result: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            result |= _flattened(value, f"{prefix}{name}.")
        else:
            result[f"{prefix}{name}"] = value
    return result


def _short_text(value: Any) -> str:
    """Short text of a setting for messages."""
    if isinstance(value, list) and len(value) > _MAX_SHOWN:
        return f"[{value[0]}, {value[1]}, ..., {value[-1]}] ({len(value)} values)"
    return "nothing" if value is None else _checks.describe(value)
