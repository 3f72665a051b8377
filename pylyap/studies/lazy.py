"""The arrays of a store as xarray reads them when they are used. Zarr is imported with this module.

Each read checks all chunks that it takes; what is wrong is one exception once Zarr has ended.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray
import zarr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from pylyap._errors import ArgumentError
from pylyap.studies import results, store
from pylyap.studies.chunks import Reader
from pylyap.studies.identity import Identity, Place
from pylyap.studies.layout import digest
from pylyap.studies.metadata import LABELS, plain
from pylyap.studies.study import axis_labels

_READS = 3  # of chunks that a driver may have replaced since the log was read

_Found = NDArray[Any]


class CheckedArray(BackendArray):  # type: ignore[misc]
    """An array over the grid and the runs of a study, whose chunks are checked when it is read."""

    def __init__(self, folder: Path, name: str, now: results.Progress) -> None:
        self._folder, self._name, self._now = folder, name, now
        self._document = now.metadata.documents[name]
        self.shape = tuple(self._document["shape"])
        self.dtype = np.dtype(self._document["data_type"])

    @property
    def variable(self) -> xarray.Variable:
        """For a Dataset, read when it is used."""
        dims, attributes = self._document["dimension_names"], self._document["attributes"]
        return xarray.Variable(dims, indexing.LazilyIndexedArray(self), attributes)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> _Found:
        outer = indexing.IndexingSupport.OUTER
        found: _Found = indexing.explicit_indexing_adapter(key, self.shape, outer, self._read)
        return found

    def _read(self, key: tuple[Any, ...]) -> _Found:
        """What is there now; a driver that has been at work since has put new checksums on
        record before it replaced a chunk."""
        now = self._now
        for _ in range(_READS):
            values, failures = self._looked(now, key)
            if not failures:
                return values
            now = results.progress(self._folder)
        raise ValueError(failures[min(failures)])

    def _looked(self, now: results.Progress, key: tuple[Any, ...]) -> tuple[_Found, dict[str, str]]:
        about = now.about
        chunks = now.recorded if self._name == "status" else now.chunks
        identity = Identity(json.loads(about["settings"]), about["block"])

        def promised(name: str, place: Place) -> bool:
            return bool(chunks[place[: chunks.ndim]])

        def problem(name: str, place: Place, data: bytes) -> str | None:
            known = now.checksums.of(name, place[: chunks.ndim])
            if not known and now.metadata.format == 1:
                return None
            if identity.checksum(name, place[: chunks.ndim], data) in known:
                return None
            return "damaged (it has not the checksum on record)"

        documents = {self._name: plain(self._document)}
        files = Reader(self._folder / store.RESULTS, documents, problem, promised)
        return _taken(files, self._name, key)


def labels(folder: Path, now: results.Progress) -> dict[str, xarray.Variable]:
    """The coordinates of a study.

    Raises ValueError if they are not those of its settings, or not as they were written.
    """
    grid: dict[str, list[Any]] = json.loads(now.about["grid"])
    found = {}
    for name, document in now.metadata.documents.items():
        if "run" in document["dimension_names"]:
            continue
        files = Reader(folder / store.RESULTS, {name: plain(document)})
        values, failures = _taken(files, name, (slice(None),) * len(document["shape"]))
        if failures:
            raise ValueError(failures[min(failures)])
        attributes = dict(document["attributes"])
        texts = attributes.pop(LABELS, None)
        wanted = now.metadata.coordinates.get(name)
        good = wanted in (None, digest(values))
        if texts is not None:
            good = good and _is_index(values, texts)
            values = np.array(texts, str)[values] if good else values
        if good and name in grid:
            axis = axis_labels(tuple(grid[name]))
            good = values.dtype == axis.dtype and np.array_equal(values, axis)
        if not good:
            raise ArgumentError(
                "path",
                f"must be the folder of a study, the labels of {name} in {str(folder)!r} are "
                "damaged; to run the study again mends them",
            )
        found[name] = xarray.Variable(document["dimension_names"], values, attributes)
    return found


def _taken(files: Reader, name: str, key: tuple[Any, ...]) -> tuple[_Found, dict[str, str]]:
    """A selection of an array, and what is wrong with chunks of it."""
    array = zarr.open_array(files, path=name, mode="r", zarr_format=3)
    try:
        values = np.asarray(array.oindex[key])
    except MemoryError as error:
        raise ArgumentError(name, f"must fit into memory: {error}") from None
    except RuntimeError as error:  # of a chunk whose frame declares less than it holds
        raise ValueError(f"{files.root / name} is damaged: {error}") from None
    return values, files.failures


def _is_index(values: _Found, texts: Any) -> bool:
    """Whether values are indices into a list of texts."""
    return (
        isinstance(texts, list)
        and all(isinstance(text, str) for text in texts)
        and values.dtype.kind == "i"
        and bool(((values >= 0) & (values < len(texts))).all())
    )
