"""Layout of the store of a study: its arrays and their metadata.

The zarr.json of the store contains the metadata of all arrays, the settings and a checksum. It is
written atomically, so that a reader sees a study either before or after an extension. The metadata
of each array, which Zarr uses for writing, are restored from it.
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
    MAX_METADATA_BYTES,
    METADATA,
    block_of,
    encode,
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
_CONFIG: Any = {"write_empty_chunks": True}  # a chunk of fill values alone is a valid result


class Array(NamedTuple):
    """Specification of an array."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str
    attributes: dict[str, Any]
    values: NDArray[Any] | None = None  # of a coordinate


def arrays(study: Study, block: int) -> dict[str, Array]:
    """Specifications of the arrays of a study, with `block` runs per chunk."""
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


def create(root: Path, required: dict[str, Array], attributes: dict[str, Any]) -> None:
    """Create a store atomically."""
    import zarr

    from pylyap.studies.chunks import Writer

    part = root.with_name(f".{root.name}.part")
    if part.exists() or part.is_symlink():
        remove(part)
    group = zarr.create_group(Writer(part))
    for name, array in required.items():
        _write_labels(_create(group, name, array), array)
    publish(part, required, attributes)
    part.rename(root)
    sync_folder(root.parent)


def remove_temporary(path: Path, root: Path) -> None:
    """Remove temporary files of a driver that was killed."""
    for left in [*path.glob(".*.part"), *root.rglob(".*.part")]:
        if left.exists() or left.is_symlink():  # not removed with its parent folder
            remove(left)


def restore_metadata(
    root: Path, required: dict[str, Array], documents: dict[str, Any]
) -> list[str]:
    """Restore the published metadata of each array; return the names of those that differed.

    Raises ArgumentError if the store has other arrays than `required`.
    """
    if documents.keys() != required.keys():
        raise ArgumentError(
            "study",
            f"must have the arrays of the store, {', '.join(sorted(documents))}, got "
            f"{', '.join(sorted(required))}: use a new folder",
        )
    for name, array in required.items():
        document = documents[name]
        old = document["data_type"], document["chunk_grid"]["configuration"]["chunk_shape"]
        new = array.dtype, list(array.chunks)
        if array.values is None and old != new:
            raise ArgumentError(
                "study",
                f"must fit the store, whose chunks of {name} are {old[0]} {tuple(old[1])}, "
                f"got {new[0]} {tuple(new[1])}: use a new folder",
            )
        require_folder(root, name)
    others = []
    for name, document in _documents(required).items():
        kept = ("shape", "attributes", "chunk_grid")
        as_published = document | {part: documents[name][part] for part in kept}
        if _write_json(root, f"{name}/{METADATA}", as_published):
            others.append(f"metadata of {name}")
    return others


class Opened(NamedTuple):
    """Arrays of a store, open for writing, and coordinates whose values were rewritten."""

    files: Writer
    arrays: dict[str, ZarrArray]
    repaired: list[str]


def open_arrays(root: Path, required: dict[str, Array]) -> Opened:
    """Open the arrays of a store; set the required shapes and labels."""
    import zarr

    from pylyap.studies.chunks import Writer, chunk_bytes

    files = Writer(root)
    files.sizes = {name: chunk_bytes(_document(root, name)) for name in required}
    found = {
        name: zarr.open_array(files, path=name, mode="r+", zarr_format=3).with_config(_CONFIG)
        for name in required
    }
    repaired = []
    for name, array in required.items():
        same = found[name].shape == array.shape
        if not same:
            found[name].resize(array.shape)
        if _write_labels(found[name], array) and same:
            repaired.append(name)
    return Opened(files, found, repaired)


def stored_block(root: Path, study: Study) -> int | None:
    """Runs per chunk, by the metadata of most arrays; None if all are damaged."""
    found: Counter[int] = Counter()
    for name in study.variables:
        with suppress(OSError, ValueError):
            found[block_of(_document(root, name), len(study.shape))] += 1
    return found.most_common(1)[0][0] if found else None


def rebuild_documents(root: Path, required: dict[str, Array], extend: bool) -> dict[str, Any]:
    """Metadata of each array of a store whose zarr.json is damaged, from the study.

    Raises ArgumentError if an array is of another study, or of a smaller one without `extend`.
    """
    parts = ("dimension_names", "data_type", "chunk_grid", "attributes")
    result = _documents(required)
    for name, document in result.items():
        try:
            there = _document(root, name)
            others = [part for part in parts if there[part] != document[part]]
            lengths = list(zip(there["shape"], document["shape"], strict=True))
        except (OSError, ValueError, LookupError, TypeError):
            continue  # damaged too
        if required[name].values is not None:
            continue  # the labels are determined by the study
        less = all(type(a) is int and a <= b for a, b in lengths) and extend
        if others or not (less or all(a == b for a, b in lengths)):
            raise ArgumentError(name, f"has other {', '.join(others or ['lengths'])}")
    return result


def _documents(required: dict[str, Array]) -> dict[str, Any]:
    """Metadata of each array as Zarr writes them."""
    import zarr
    from zarr.storage import MemoryStore

    files = MemoryStore()
    group = zarr.create_group(files)
    for name, array in required.items():
        _create(group, name, array)
    return {
        name: json.loads(files._store_dict[f"{name}/{METADATA}"].to_bytes()) for name in required
    }


def _document(root: Path, name: str) -> dict[str, Any]:
    """Metadata in the folder of an array."""
    return parse(read_file(root, f"{name}/{METADATA}", MAX_METADATA_BYTES))


def _create(group: zarr.Group, name: str, array: Array) -> ZarrArray:
    from zarr.codecs import Crc32cCodec, ZstdCodec

    return group.create_array(
        name,
        shape=array.shape,
        chunks=array.chunks,
        dtype=array.dtype,
        fill_value=np.nan if np.dtype(array.dtype).kind == "f" else -1,
        compressors=[ZstdCodec(level=1), Crc32cCodec()],
        chunk_key_encoding={"name": "default", "separator": "."},  # one folder per array
        dimension_names=array.dims,
        attributes=array.attributes,
        config=_CONFIG,
    )


def _write_labels(found: ZarrArray, required: Array) -> bool:
    """Set the attributes of an array and the values of a coordinate; whether values changed."""
    if dict(found.attrs) != required.attributes:
        found.attrs.put(required.attributes)
    if required.values is None or _has_values(found, required.values):
        return False
    found[...] = required.values
    return True


def _has_values(array: ZarrArray, values: NDArray[Any]) -> bool:
    try:
        return np.array_equal(np.asarray(array[...]), values, equal_nan=values.dtype.kind == "f")
    except NotRegular:
        raise
    except ValueError:  # damaged
        return False


def digest(values: NDArray[Any]) -> str:
    """Digest of the values of a coordinate."""
    return sha256(f"{values.dtype.name} {values.shape} ".encode() + values.tobytes()).hexdigest()


def publish(root: Path, required: dict[str, Array], attributes: dict[str, Any]) -> None:
    """Make the present arrays visible to readers, by an atomic write of zarr.json."""
    documents = {name: _document(root, name) for name in required}
    digests = {name: digest(a.values) for name, a in required.items() if a.values is not None}
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
    _write_json(root, METADATA, with_checksum(group))


def _write_json(root: Path, name: str, content: dict[str, Any]) -> bool:
    """Write JSON to a file atomically; False if the file has this content already."""
    try:
        if parse(read_file(root, name, MAX_METADATA_BYTES)) == content:
            return False
    except NotRegular:
        raise
    except (FileNotFoundError, ValueError):
        pass
    file = root / name
    file.parent.mkdir(exist_ok=True)
    with atomic_write(file) as target:
        target.write(encode(content))
    return True
