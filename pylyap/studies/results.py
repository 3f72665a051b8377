"""The results of a study, also while it runs. Reading changes nothing and executes nothing."""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pylyap import _checks
from pylyap._errors import ArgumentTypeError
from pylyap._files import netcdf_size, resolved, user_file, write_netcdf
from pylyap._status import Status
from pylyap.studies import metadata, records, store
from pylyap.studies.identity import Identity
from pylyap.studies.metadata import Metadata
from pylyap.studies.records import Checksums

if TYPE_CHECKING:
    import xarray


def open_study(path: str | os.PathLike[str]) -> xarray.Dataset:
    """The results of a study in a folder, as far as it has come when it is opened.

    Parameters
    ----------
    path
        The folder that `run_study` or `pylyap run` writes to, or has written.

    Returns
    -------
    xarray.Dataset
        Arrays over the grid, ``run``, and what the analysis adds, read from the folder when they
        are used. ``status`` says what became of each run: 0 finished, 1 diverged, 2 stopped early,
        3 failed, -1 not yet done; where it is 3 or -1 the others are nan (or -1, of integers).
        Settings (JSON), versions, seed, instruction set, counts of runs and failures (JSON) are in
        the attributes.

    Raises
    ------
    ValueError
        If there is no study in the folder, its metadata or labels are damaged, or a file of it is a
        link or no regular file. A chunk that is damaged, missing or of another place or study
        raises it when it is read; to run the study again mends all of these but links.
    ImportError
        With the command that helps, if Zarr or xarray is not installed.
    """
    folder = folder_of(path)
    try:
        import xarray

        from pylyap.studies.lazy import CheckedArray, labels
    except ImportError:
        raise ImportError("open_study needs Zarr and xarray: pip install 'pylyap[store]'") from None
    now = progress(folder)
    coords = labels(folder, now)
    data = {
        name: CheckedArray(folder, name, now).variable
        for name in now.metadata.documents
        if name not in coords
    }
    return (
        xarray.Dataset(data, coords, now.metadata.attributes)
        .assign_coords(run=np.arange(now.about["runs"]))
        .assign_attrs(now.attributes)
    )


def export_study(path: str | os.PathLike[str], file: str | os.PathLike[str]) -> None:
    """Write the results of a study to a netCDF file, in one move.

    Parameters
    ----------
    path
        The folder of the study.
    file
        Where to write; what is there is replaced once the new file is complete, also on a full
        disk or under a limit on the size of files. A symbolic link is followed. The whole file is
        held in memory, and one array besides; `open_study` reads larger studies in parts.

    Raises
    ------
    ValueError, ImportError
        As `open_study` does, and ValueError if the file would not fit into memory; OSError if it
        cannot be written, also for want of room.
    """
    target = resolved(_checks.file("file", file))
    data = open_study(path)
    needed, free = netcdf_size(data), shutil.disk_usage(target.parent).free
    if needed > free:  # before the work
        room = f"it may take {_checks.size(needed)}, {_checks.size(free)} are free"
        raise OSError(errno.ENOSPC, f"no room left, {room}", str(target))
    with user_file(target) as stream:
        write_netcdf(stream, data)


@dataclass(frozen=True, eq=False)
class Progress:
    """How far a study has come, from its log alone.

    Attributes
    ----------
    metadata
        Of the store.
    statuses : (grid..., runs) int8
        As in `open_study`.
    checksums
        Of all chunks on record.
    failures
        Runs that failed: ``at`` which values of the grid, first and last of ``runs``, ``error``,
        ``worker``.
    environments
        Versions and instruction sets that results are of.
    running
        Whether a driver is at work.
    rate
        Runs per second of the last driver; nan if it has none done.
    """

    metadata: Metadata
    statuses: NDArray[np.int8]
    checksums: Checksums
    failures: list[dict[str, Any]]
    environments: list[str]
    running: bool
    rate: float

    @property
    def about(self) -> dict[str, Any]:
        """What the store says of itself: title, settings, versions."""
        return self.metadata.attributes

    def count(self, *statuses: int) -> int:
        """Runs that have one of these."""
        return sum(int((self.statuses == status).sum()) for status in statuses)

    @property
    def done(self) -> int:
        return int(store.is_done(self.statuses).sum())

    @property
    def seconds_left(self) -> float:
        """nan if nothing tells."""
        return self.count(Status.NOT_RUN) / self.rate if self.rate else np.nan

    @property
    def chunks(self) -> NDArray[np.bool_]:
        """(grid..., blocks) which chunks are there; that of `status` also where all runs failed."""
        return store.in_blocks(store.is_done(self.statuses), self.about["block"])

    @property
    def recorded(self) -> NDArray[np.bool_]:
        """(grid..., blocks) which have a run on record."""
        return store.in_blocks(self.statuses != Status.NOT_RUN, self.about["block"])

    @property
    def attributes(self) -> dict[str, Any]:
        """Of a Dataset."""
        return {
            "runs_total": self.statuses.size,
            "runs_done": self.done,
            "runs_diverged": self.count(Status.DIVERGED),
            "runs_failed": self.count(Status.RAISED),
            "failures": json.dumps(self.failures),
            "environments": "; ".join(self.environments),
        }


def progress(path: str | os.PathLike[str]) -> Progress:
    """How far the study in a folder has come.

    Raises ValueError if there is none or it is damaged.
    """
    folder = folder_of(path)
    running = store.is_written(folder)
    log = list(records.read_all(folder / store.LOG))
    # After the log, which may by now be of a study that has been extended since.
    found = metadata.read(folder, folder / store.RESULTS)
    about = found.attributes
    grid: dict[str, list[Any]] = json.loads(about["grid"])
    shape, runs, block = tuple(map(len, grid.values())), about["runs"], about["block"]
    names = [name for name, d in found.documents.items() if "run" in d["dimension_names"]]
    store.require_memory_of(shape, runs, block, len(names))
    records.check(log, (*shape, runs), Identity(json.loads(about["settings"]), block))
    checksums = Checksums(log, names, (*shape, -(-runs // block)), block)
    log = [record for record in log if record.status]
    statuses = records.statuses(log, (*shape, runs))
    failed = {(record.point, record.first): record for record in log if record.error}
    return Progress(
        metadata=found,
        statuses=statuses,
        checksums=checksums,
        failures=[
            {
                "at": {name: grid[name][i] for name, i in zip(grid, r.point, strict=True)},
                "runs": [
                    r.first + int(i) for i in np.flatnonzero(r.statuses == Status.RAISED)[[0, -1]]
                ],
                "error": r.error,
                "worker": r.worker,
            }
            for r in failed.values()
            if Status.RAISED in statuses[r.runs]
        ],
        environments=sorted({f"pylyap {r.pylyap}, {r.instruction_set}" for r in log}),
        running=running,
        rate=records.rate(log),
    )


def folder_of(path: str | os.PathLike[str]) -> Path:
    try:
        return _checks.path("path", path)
    except TypeError:
        raise ArgumentTypeError("path", f"must be a folder, got {_checks.describe(path)}") from None
