"""What the store of a study holds: its arrays, and what its zarr.json says of them.

The metadata of all arrays stand in the zarr.json of the store, beside the settings and with a
checksum: one file, put in place in one move, so that a reader sees a study before it is extended or
after, and nothing in between. The metadata of each array, by which Zarr writes, are restored from
there.
"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pylyap._errors import ArgumentError
from pylyap._files import atomic_write, sync_folder
from pylyap.studies.metadata import (
    COORDINATES,
    LABELS,
    LARGEST,
    METADATA,
    block_of,
    encoded,
    parse,
    with_checksum,
)
from pylyap.studies.regular import NotRegular, read_file, remove, require_folder
from pylyap.studies.study import Study

if TYPE_CHECKING:
    import zarr

    from pylyap.studies.chunks import Writer

    ZarrArray = zarr.Array[Any]

_STATUS = "0 finished, 1 diverged, 2 stopped early, 3 failed, -1 not done"
_CONFIG: Any = {"write_empty_chunks": True}  # nothing but fill values is a result too


class Array(NamedTuple):
    """An array as it should be."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str
    attributes: dict[str, Any]
    values: NDArray[Any] | None = None  # of a coordinate


def arrays(study: Study, block: int) -> dict[str, Array]:
    """The arrays of a study, with `block` runs in a chunk."""
    result = {}
    for name, variable in study.variables.items():
        more = {"meaning": _STATUS} if name == "status" else {}
        dims = (*study.grid, "run", *variable.dims)
        shape = (*study.shape, study.runs, *variable.shape)
        chunks = (*(1 for _ in study.shape), block, *(max(1, n) for n in variable.shape))
        result[name] = Array(dims, shape, chunks, variable.dtype, dict(variable.attrs) | more)
    for name, (dims, given, attributes) in study.coords.items():
        values = np.asarray(given)
        if values.dtype.kind == "U":
            attributes = {**attributes, LABELS: values.tolist()}
            values = np.arange(values.size).reshape(values.shape)
        chunks = tuple(max(1, n) for n in values.shape)
        dtype = values.dtype.name
        result[name] = Array(tuple(dims), values.shape, chunks, dtype, dict(attributes), values)
    return result


def make(root: Path, wanted: dict[str, Array], attributes: dict[str, Any]) -> None:
    """Make a store, in one move."""
    import zarr

    from pylyap.studies.chunks import Writer

    part = root.with_name(f".{root.name}.part")
    if part.exists() or part.is_symlink():
        remove(part)
    group = zarr.create_group(Writer(part))
    for name, array in wanted.items():
        _label(_create(group, name, array), array)
    _publish(part, wanted, attributes)
    part.rename(root)
    sync_folder(root.parent)


def sweep(path: Path, root: Path) -> None:
    """Remove what a kill left of files that were being written."""
    for left in [*path.glob(".*.part"), *root.rglob(".*.part")]:
        if left.exists() or left.is_symlink():  # and not within another one
            remove(left)


def restore(root: Path, wanted: dict[str, Array], documents: dict[str, Any]) -> list[str]:
    """Give the metadata of each array to Zarr as they were published; those that were others.

    Raises ValueError if they are of other arrays than those that are wanted.
    """
    if documents.keys() != wanted.keys():
        raise ArgumentError(
            "study",
            f"must have the arrays of the store, {', '.join(sorted(documents))}, got "
            f"{', '.join(sorted(wanted))}: begin in another folder",
        )
    for name, array in wanted.items():
        document = documents[name]
        old = document["data_type"], document["chunk_grid"]["configuration"]["chunk_shape"]
        new = array.dtype, list(array.chunks)
        if array.values is None and old != new:
            raise ArgumentError(
                "study",
                f"must fit the store, whose chunks of {name} are {old[0]} {tuple(old[1])}, "
                f"got {new[0]} {tuple(new[1])}: begin in another folder",
            )
        require_folder(root, name)
    others = []
    for name, document in _documents(wanted).items():
        kept = ("shape", "attributes", "chunk_grid")
        as_published = document | {part: documents[name][part] for part in kept}
        if _write(root, f"{name}/{METADATA}", as_published):
            others.append(f"metadata of {name}")
    return others


class Opened(NamedTuple):
    """The arrays of a store, to write to, and coordinates that had lost their values."""

    files: Writer
    arrays: dict[str, ZarrArray]
    mended: list[str]


def open_arrays(root: Path, wanted: dict[str, Array]) -> Opened:
    """The arrays of a store with the shapes and the labels that are wanted."""
    import zarr

    from pylyap.studies.chunks import Writer, chunk_bytes

    files = Writer(root)
    files.sizes = {name: chunk_bytes(_document(root, name)) for name in wanted}
    found = {
        name: zarr.open_array(files, path=name, mode="r+", zarr_format=3).with_config(_CONFIG)
        for name in wanted
    }
    mended = []
    for name, array in wanted.items():
        same = found[name].shape == array.shape
        if not same:
            found[name].resize(array.shape)
        if _label(found[name], array) and same:
            mended.append(name)
    return Opened(files, found, mended)


def block_there(root: Path, study: Study) -> int | None:
    """The runs in a chunk, by the metadata of most arrays; None if none says it."""
    found: Counter[int] = Counter()
    for name in study.variables:
        with suppress(OSError, ValueError):
            found[block_of(_document(root, name), len(study.shape))] += 1
    return found.most_common(1)[0][0] if found else None


def rebuilt(root: Path, wanted: dict[str, Array], extend: bool) -> dict[str, Any]:
    """The metadata of each array of a store whose zarr.json is damaged, from the study.

    Raises ValueError if an array says that it is of another study, or of less of it and not to be
    extended.
    """
    parts = ("dimension_names", "data_type", "chunk_grid", "attributes")
    result = _documents(wanted)
    for name, document in result.items():
        try:
            there = _document(root, name)
            others = [part for part in parts if there[part] != document[part]]
            lengths = list(zip(there["shape"], document["shape"], strict=True))
        except (OSError, ValueError, LookupError, TypeError):
            continue  # damaged too
        if wanted[name].values is not None:
            continue  # its labels are those of the study in any case
        less = all(type(a) is int and a <= b for a, b in lengths) and extend
        if others or not (less or all(a == b for a, b in lengths)):
            raise ArgumentError(name, f"has other {', '.join(others or ['lengths'])}")
    return result


def _documents(wanted: dict[str, Array]) -> dict[str, Any]:
    """The metadata of each array as Zarr writes them."""
    import zarr
    from zarr.storage import MemoryStore

    files = MemoryStore()
    group = zarr.create_group(files)
    for name, array in wanted.items():
        _create(group, name, array).attrs.put(array.attributes)
    return {name: json.loads(files._store_dict[f"{name}/{METADATA}"].to_bytes()) for name in wanted}


def _document(root: Path, name: str) -> dict[str, Any]:
    """The metadata of an array as they lie in its folder."""
    return parse(read_file(root, f"{name}/{METADATA}", LARGEST))


def _create(group: zarr.Group, name: str, array: Array) -> ZarrArray:
    from zarr.codecs import Crc32cCodec, ZstdCodec

    return group.create_array(
        name,
        shape=array.shape,
        chunks=array.chunks,
        dtype=array.dtype,
        fill_value=np.nan if np.dtype(array.dtype).kind == "f" else -1,
        compressors=[ZstdCodec(level=1), Crc32cCodec()],
        chunk_key_encoding={"name": "default", "separator": "."},  # a folder per array is enough
        dimension_names=array.dims,
        config=_CONFIG,
    )


def _label(found: ZarrArray, wanted: Array) -> bool:
    """Give an array its attributes and, if a coordinate, its values; whether it had others."""
    if dict(found.attrs) != wanted.attributes:
        found.attrs.put(wanted.attributes)
    if wanted.values is None or _holds(found, wanted.values):
        return False
    found[...] = wanted.values
    return True


def _holds(array: ZarrArray, values: NDArray[Any]) -> bool:
    try:
        return np.array_equal(np.asarray(array[...]), values, equal_nan=values.dtype.kind == "f")
    except NotRegular:
        raise
    except ValueError:  # damaged
        return False


def digest(values: NDArray[Any]) -> str:
    """Of the values of a coordinate."""
    return sha256(f"{values.dtype.name} {values.shape} ".encode() + values.tobytes()).hexdigest()


def _publish(root: Path, wanted: dict[str, Array], attributes: dict[str, Any]) -> None:
    """Let readers see the arrays as they are now."""
    documents = {name: _document(root, name) for name in wanted}
    digests = {name: digest(a.values) for name, a in wanted.items() if a.values is not None}
    group = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": attributes | {COORDINATES: digests},
        "consolidated_metadata": {
            "kind": "inline",
            "must_understand": False,
            "metadata": documents,
        },
    }
    _write(root, METADATA, with_checksum(group))


def _write(root: Path, name: str, content: dict[str, Any]) -> bool:
    """Put JSON into a file unless it is there; whether it was not."""
    try:
        if parse(read_file(root, name, LARGEST)) == content:
            return False
    except NotRegular:
        raise
    except (FileNotFoundError, ValueError):
        pass
    file = root / name
    file.parent.mkdir(exist_ok=True)
    with atomic_write(file) as target:
        target.write(encoded(content))
    return True
