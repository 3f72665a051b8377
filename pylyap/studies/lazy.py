"""Lazy arrays of a store for xarray. Importing this module imports Zarr.

Each read checks all its chunks. Problems raise one exception after Zarr has returned.
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
from pylyap.studies.metadata import LABELS, checked_fields
from pylyap.studies.shapes import axis_labels

_READS = 3  # attempts; a driver may have replaced chunks since the log was read

_Values = NDArray[Any]


class CheckedArray(BackendArray):  # type: ignore[misc]
    """Array over grid and runs of a study, whose chunks are checked when they are read."""

    def __init__(self, folder: Path, name: str, now: results.Progress) -> None:
        self._folder, self._name, self._now = folder, name, now
        self._document = now.metadata.documents[name]
        self.shape = tuple(self._document["shape"])
        self.dtype = np.dtype(self._document["data_type"])

    @property
    def variable(self) -> xarray.Variable:
        """Variable of a Dataset with lazy values."""
        dims, attributes = self._document["dimension_names"], self._document["attributes"]
        return xarray.Variable(dims, indexing.LazilyIndexedArray(self), attributes)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> _Values:
        outer = indexing.IndexingSupport.OUTER
        found: _Values = indexing.explicit_indexing_adapter(key, self.shape, outer, self._read)
        return found

    def _read(self, key: tuple[Any, ...]) -> _Values:
        """Read a selection. The log is read again if a checksum is unknown.

        A driver may have replaced a chunk; it records the new checksum first.
        """
        now = self._now
        for _ in range(_READS):
            values, failures = self._read_checked(now, key)
            if not failures:
                return values
            now = results.progress(self._folder)
        raise ValueError(failures[min(failures)])

    def _read_checked(
        self, now: results.Progress, key: tuple[Any, ...]
    ) -> tuple[_Values, dict[str, str]]:
        about = now.about
        chunks = now.recorded if self._name == "status" else now.chunks
        identity = Identity(json.loads(about["settings"]), about["block"])

        def expected(name: str, place: Place) -> bool:
            return bool(chunks[place[: chunks.ndim]])

        def problem(name: str, place: Place, data: bytes) -> str | None:
            known = now.checksums.valid(name, place[: chunks.ndim])
            if not known and now.metadata.format == 1:
                return None
            if identity.checksum(name, place[: chunks.ndim], data) in known:
                return None
            return "damaged (its checksum is not in the log)"

        documents = {self._name: checked_fields(self._document)}
        files = Reader(self._folder / store.RESULTS, documents, problem, expected)
        return _select(files, self._name, key)


def labels(folder: Path, now: results.Progress) -> dict[str, xarray.Variable]:
    """Coordinates of a study.

    Raises ValueError if they are damaged or do not agree with the settings.
    """
    grid: dict[str, list[Any]] = json.loads(now.about["grid"])
    found = {}
    for name, document in now.metadata.documents.items():
        if "run" in document["dimension_names"]:
            continue
        files = Reader(folder / store.RESULTS, {name: checked_fields(document)})
        values, failures = _select(files, name, (slice(None),) * len(document["shape"]))
        if failures:
            raise ValueError(failures[min(failures)])
        attributes = dict(document["attributes"])
        texts = attributes.pop(LABELS, None)
        required = now.metadata.coordinates.get(name)
        good = required in (None, digest(values))
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
                "damaged; run the study again to repair them",
            )
        found[name] = xarray.Variable(document["dimension_names"], values, attributes)
    return found


def _select(files: Reader, name: str, key: tuple[Any, ...]) -> tuple[_Values, dict[str, str]]:
    """Selection of an array, and messages of damaged chunks by key."""
    array = zarr.open_array(files, path=name, mode="r", zarr_format=3)
    try:
        values = np.asarray(array.oindex[key])
    except MemoryError as error:
        raise ArgumentError(name, f"must fit into memory: {error}") from None
    except RuntimeError as error:  # a frame that declares less than it contains
        raise ValueError(f"{files.root / name} is damaged: {error}") from None
    return values, files.failures


def _is_index(values: _Values, texts: Any) -> bool:
    """Whether values are valid indices into a list of strings."""
    return (
        isinstance(texts, list)
        and all(isinstance(text, str) for text in texts)
        and values.dtype.kind == "i"
        and bool(((values >= 0) & (values < len(texts))).all())
    )
