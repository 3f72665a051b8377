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
from pylyap._files import beside
from pylyap.exponents import DIVERGED
from pylyap.studies import layout, records, store
from pylyap.studies.records import UNDONE, Record
from pylyap.studies.work import FAILED

if TYPE_CHECKING:
    import xarray


_HEADERS = 2**20  # bytes of a netCDF file beside its arrays, at most


def open_study(path: str | os.PathLike[str]) -> xarray.Dataset:
    """The results of a study in a folder, as far as it has come.

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
        If there is no study in the folder or it is damaged. A chunk that is damaged or missing
        raises it when it is read; to run the study again computes it.
    ImportError
        With the command that helps, if Zarr or xarray is not installed.
    """
    folder = folder_of(path)
    try:
        import xarray

        from pylyap.studies.chunks import ChunkFiles
    except ImportError:
        raise ImportError("open_study needs Zarr and xarray: pip install 'pylyap[store]'") from None
    now = progress(folder)
    files = ChunkFiles(folder / store.RESULTS, read_only=True)
    files.promised = now.chunks
    try:
        data: xarray.Dataset = xarray.open_zarr(files, consolidated=True, chunks=None)
        labels = [name for name, variable in data.variables.items() if "run" not in variable.dims]
        data = data.set_coords(labels)
        for name in labels:
            label = data[name]
            texts = label.attrs.pop(layout.LABELS, None)
            if texts is not None:
                values = np.array(texts, str)[label.values]
                data = data.assign_coords({name: (label.dims, values, label.attrs)})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"path must be the folder of a study, {str(folder)!r} is damaged: {error}"
        ) from None
    return data.assign_coords(run=np.arange(data.sizes["run"])).assign_attrs(now.attributes)


def export_study(path: str | os.PathLike[str], file: str | os.PathLike[str]) -> None:
    """Write the results of a study to a netCDF file, in one move.

    Parameters
    ----------
    path
        The folder of the study.
    file
        Where to write; what is there is replaced. One array at a time is held in memory.

    Raises
    ------
    ValueError, ImportError
        As `open_study` does; OSError if it cannot be written, also for want of room.
    """
    target = _checks.file("file", file)
    data = open_study(path)
    needed, free = data.nbytes + _HEADERS, shutil.disk_usage(target.absolute().parent).free
    if needed > free:  # HDF5 takes the process with it where a disk fills
        room = f"it may take {_checks.size(needed)}, {_checks.size(free)} are free"
        raise OSError(errno.ENOSPC, f"no room left, {room}", str(target))
    part = beside(target)
    try:
        data.to_netcdf(part, engine="h5netcdf")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


@dataclass(frozen=True, eq=False)
class Progress:
    """How far a study has come, from its log alone.

    Attributes
    ----------
    about
        What the store says of itself: title, settings, versions.
    statuses : (grid..., runs) int8
        As in `open_study`.
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

    about: dict[str, Any]
    statuses: NDArray[np.int8]
    failures: list[dict[str, Any]]
    environments: list[str]
    running: bool
    rate: float

    def count(self, *statuses: int) -> int:
        """Runs that have one of these."""
        return sum(int((self.statuses == status).sum()) for status in statuses)

    @property
    def done(self) -> int:
        return int(store.is_done(self.statuses).sum())

    @property
    def seconds_left(self) -> float:
        """nan if nothing tells."""
        return self.count(UNDONE) / self.rate

    @property
    def chunks(self) -> NDArray[np.bool_]:
        """(grid..., blocks) which chunks are there."""
        return store.in_blocks(store.is_done(self.statuses), self.about["block"])

    @property
    def attributes(self) -> dict[str, Any]:
        """Of a Dataset."""
        return {
            "runs_total": self.statuses.size,
            "runs_done": self.done,
            "runs_diverged": self.count(DIVERGED),
            "runs_failed": self.count(FAILED),
            "failures": json.dumps(self.failures),
            "environments": "; ".join(self.environments),
        }


def progress(path: str | os.PathLike[str]) -> Progress:
    """How far the study in a folder has come.

    Raises ValueError if there is none or it is damaged.
    """
    folder = folder_of(path)
    running = store.is_written(folder)
    log = list(records.read(folder / store.LOG))
    # After the log, which may by now be of a study that has been extended since.
    about = layout.attributes(folder, folder / store.RESULTS)
    grid: dict[str, list[Any]] = json.loads(about["grid"])
    statuses = records.statuses(log, (*map(len, grid.values()), about["runs"]))
    failed = {(record.point, record.first): record for record in log if record.error}
    return Progress(
        about=about,
        statuses=statuses,
        failures=[
            {
                "at": {name: grid[name][i] for name, i in zip(grid, r.point, strict=True)},
                "runs": [r.first + int(i) for i in np.flatnonzero(r.statuses == FAILED)[[0, -1]]],
                "error": r.error,
                "worker": r.worker,
            }
            for r in failed.values()
            if FAILED in statuses[r.runs]
        ],
        environments=sorted({f"pylyap {r.pylyap}, {r.instruction_set}" for r in log}),
        running=running,
        rate=_rate(log),
    )


def _rate(log: list[Record]) -> float:
    """Runs per second since the last driver began."""
    if not log:
        return np.nan
    since, at = log[-1].since, log[-1].at
    runs = sum(len(record.status) for record in log if record.since == since)
    return runs / (at - since)


def folder_of(path: str | os.PathLike[str]) -> Path:
    try:
        return _checks.path("path", path)
    except TypeError:
        raise TypeError(f"path must be a folder, got {_checks.describe(path)}") from None
