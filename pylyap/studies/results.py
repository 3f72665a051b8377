"""Results of a study, also while it runs. Reading neither changes files nor executes content."""

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
from pylyap._extras import require
from pylyap._files import netcdf_size, resolved, user_file, write_netcdf
from pylyap._status import Status
from pylyap.studies import metadata, records, store
from pylyap.studies.identity import Identity
from pylyap.studies.metadata import Metadata
from pylyap.studies.records import Checksums

if TYPE_CHECKING:
    import xarray


def open_study(path: str | os.PathLike[str]) -> xarray.Dataset:
    """Open the results of a study, complete or not.

    Parameters
    ----------
    path : str or path-like
        Folder of the study, as given to `run_study` or ``pylyap run``.

    Returns
    -------
    xarray.Dataset
        Arrays over the dimensions of the grid, ``run`` and those of the analysis. They are read
        from the folder when they are used. ``status`` is 0 for finished, 1 for diverged, 2 for
        stopped early and 3 for failed runs, and -1 for runs that are not complete. The other arrays
        are nan (integers: -1) where it is 3 or -1. The attributes contain settings (JSON),
        versions, seed, instruction set, numbers of runs, and failures (JSON).

    Raises
    ------
    ValueError
        If the folder contains no study, its metadata or labels are damaged, or a file of it is not
        a regular file. A chunk that is damaged, missing or misplaced raises it when it is read.
        Running the study again repairs all of these except symbolic links.
    ImportError
        If Zarr or xarray is not installed.

    Examples
    --------
    >>> import pylyap as pl
    >>> study = pl.Study(
    ...     data={"name": "iris"},
    ...     network={"hidden": 3, "loss": "cross_entropy"},
    ...     analysis={"name": "spectrum", "n_steps": 20, "k": 2},
    ...     runs=4,
    ... )
    >>> _ = pl.run_study(study, "results")
    >>> data = pl.open_study("results")
    >>> dict(data.exponents.sizes)
    {'run': 4, 'exponent': 2}
    >>> data.attrs["runs_done"]
    4
    """
    folder = checked_folder(path)
    require("zarr", "xarray", extra="store", for_="open_study")
    import xarray

    from pylyap.studies.lazy import CheckedArray, labels

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
    """Write the results of a study to a netCDF file.

    The write is atomic: an existing file keeps its content until the new one is complete. The whole
    file and one more array are held in memory. Larger studies can be read in parts by `open_study`.

    Parameters
    ----------
    path : str or path-like
        Folder of the study.
    file : str or path-like
        File to write or replace. A symbolic link is followed.

    Raises
    ------
    ValueError
        As for `open_study`, and if the file does not fit into memory.
    OSError
        If the file cannot be written or the disk is full.
    ImportError
        If Zarr, xarray or h5netcdf is not installed.

    Examples
    --------
    >>> import pylyap as pl
    >>> study = pl.Study(
    ...     data={"name": "iris"},
    ...     network={"hidden": 3, "loss": "cross_entropy"},
    ...     analysis={"name": "spectrum", "n_steps": 20, "k": 2},
    ...     runs=4,
    ... )
    >>> _ = pl.run_study(study, "results")
    >>> pl.export_study("results", "results.nc")
    """
    target = resolved(_checks.file("file", file))
    data = open_study(path)
    needed, free = netcdf_size(data), shutil.disk_usage(target.parent).free
    if needed > free:  # before the work
        room = f"up to {_checks.size(needed)} are needed, {_checks.size(free)} are free"
        raise OSError(errno.ENOSPC, f"not enough disk space, {room}", str(target))
    with user_file(target) as stream:
        write_netcdf(stream, data)


@dataclass(frozen=True, eq=False)
class Progress:
    """Progress of a study, from its log.

    Attributes
    ----------
    metadata : Metadata
        Metadata of the store.
    statuses : ndarray of int8, shape (grid..., runs)
        Status of each run, as in `open_study`.
    checksums : Checksums
        Valid checksums of all chunks.
    failures : list of dict
        Failed runs: ``at`` (values of the grid), ``runs`` (first and last), ``error``, ``worker``.
    environments : list of str
        Versions and instruction sets of the results.
    running : bool
        Whether a driver is running.
    rate : float
        Runs per second of the last driver; nan if unknown.
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
        """Attributes of the store: title, settings, versions."""
        return self.metadata.attributes

    def count(self, *statuses: int) -> int:
        """Number of runs with one of these statuses."""
        return sum(int((self.statuses == status).sum()) for status in statuses)

    @property
    def done(self) -> int:
        """Number of complete runs."""
        return int(store.is_done(self.statuses).sum())

    @property
    def seconds_left(self) -> float:
        """Estimated remaining time; nan if unknown."""
        return self.count(Status.NOT_RUN) / self.rate if self.rate else np.nan

    @property
    def chunks(self) -> NDArray[np.bool_]:
        """Mask (grid..., blocks) of chunks that exist, except of `status`: see `recorded`."""
        return store.any_in_block(store.is_done(self.statuses), self.about["block"])

    @property
    def recorded(self) -> NDArray[np.bool_]:
        """Mask (grid..., blocks) of blocks with a record, whose chunks of `status` exist."""
        return store.any_in_block(self.statuses != Status.NOT_RUN, self.about["block"])

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes that a Dataset has in addition to those of the store."""
        return {
            "runs_total": self.statuses.size,
            "runs_done": self.done,
            "runs_diverged": self.count(Status.DIVERGED),
            "runs_failed": self.count(Status.RAISED),
            "failures": json.dumps(self.failures),
            "environments": "; ".join(self.environments),
        }


def progress(path: str | os.PathLike[str]) -> Progress:
    """Progress of the study in a folder. Raises ValueError if there is none or it is damaged."""
    folder = checked_folder(path)
    running = store.is_locked(folder)
    log = list(records.read_all(folder / store.LOG))
    # Read after the log: an extension publishes the larger arrays before it records tasks.
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


def checked_folder(path: str | os.PathLike[str]) -> Path:
    """Check the folder of a study."""
    try:
        return _checks.path("path", path)
    except TypeError:
        raise ArgumentTypeError("path", f"must be a folder, got {_checks.describe(path)}") from None
