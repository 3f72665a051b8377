"""What the store of a study holds: its arrays, and what its zarr.json says of them.

The metadata of all arrays stand in the zarr.json of the store, beside the settings: one file, put
in place in one move, so that a reader sees a study before it is extended or after, and nothing in
between. The metadata of each array, by which Zarr writes, are restored from there.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pylyap._files import sync_folder, whole_file
from pylyap.studies.study import Study

if TYPE_CHECKING:
    import zarr

    ZarrArray = zarr.Array[Any]

FORMAT = 1
LABELS = "labels"  # attribute of a coordinate of texts, whose array holds indices into them

_METADATA = "zarr.json"
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

    from pylyap.studies.chunks import ChunkFiles

    part = root.with_name(f".{root.name}.part")
    if part.exists():
        shutil.rmtree(part)
    group = zarr.create_group(ChunkFiles(part))
    for name, array in wanted.items():
        _label(_create(group, name, array), array)
    _publish(part, wanted, attributes)
    part.rename(root)
    sync_folder(root.parent)


def open_arrays(
    root: Path, wanted: dict[str, Array], attributes: dict[str, Any]
) -> dict[str, ZarrArray]:
    """The arrays of a store, to write to, once they have the shapes that are wanted.

    Raises ValueError if it has others.
    """
    import zarr

    from pylyap.studies.chunks import ChunkFiles

    _restore(root, wanted)
    files = ChunkFiles(root)
    found = {
        name: zarr.open_array(files, path=name, mode="r+", zarr_format=3).with_config(_CONFIG)
        for name in wanted
    }
    _compare(found, wanted)
    for name, array in wanted.items():
        if found[name].shape != array.shape:
            found[name].resize(array.shape)
        _label(found[name], array)
    _publish(root, wanted, attributes)
    return found


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


def _compare(found: dict[str, ZarrArray], wanted: dict[str, Array]) -> None:
    """Refuse arrays that no resizing makes those that are wanted."""
    for name, array in wanted.items():
        old, new = (found[name].dtype.name, found[name].chunks), (array.dtype, array.chunks)
        if array.values is None and old != new:
            raise ValueError(
                f"study must fit the store, whose chunks of {name} are {old[0]} {old[1]}, got "
                f"{new[0]} {new[1]}: begin in another folder"
            )


def _label(found: ZarrArray, wanted: Array) -> None:
    """Give an array its attributes and, if it is a coordinate, its values."""
    if dict(found.attrs) != wanted.attributes:
        found.attrs.put(wanted.attributes)
    if wanted.values is not None and not _holds(found, wanted.values):
        found[...] = wanted.values


def _holds(array: ZarrArray, values: NDArray[Any]) -> bool:
    try:
        return np.array_equal(np.asarray(array[...]), values, equal_nan=values.dtype.kind == "f")
    except ValueError:  # damaged
        return False


def _publish(root: Path, wanted: dict[str, Array], attributes: dict[str, Any]) -> None:
    """Let readers see the arrays as they are now."""
    metadata = {name: json.loads((root / name / _METADATA).read_bytes()) for name in wanted}
    group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    arrays = {"kind": "inline", "must_understand": False, "metadata": metadata}
    _write(root / _METADATA, group | {"consolidated_metadata": arrays})


def _restore(root: Path, wanted: dict[str, Array]) -> None:
    """Give the metadata of each array to Zarr as they were published."""
    content = json.loads((root / _METADATA).read_bytes())
    published = content["consolidated_metadata"]["metadata"]
    if published.keys() != wanted.keys():
        raise ValueError(
            f"study must have the arrays of the store, {', '.join(sorted(published))}, got "
            f"{', '.join(sorted(wanted))}: begin in another folder"
        )
    for name in wanted:
        _write(root / name / _METADATA, published[name])


def attributes(path: Path, root: Path) -> dict[str, Any]:
    """What was published of a store beside its arrays.

    Raises ValueError, in terms of the folder `path` of the study, if there is none or it cannot be
    read.
    """
    try:
        content = json.loads((root / _METADATA).read_bytes())
        found: dict[str, Any] = content["attributes"]
        version, _ = found["format"], content["consolidated_metadata"]["metadata"]
        if version == FORMAT:
            for name in ("settings", "grid"):
                json.loads(found[name])
            if min(found["block"], found["runs"]) < 1:
                raise ValueError("no runs")
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(
            f"path must be the folder of a study, got {str(path)!r}: no {root.name} in it"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"path must be the folder of a study, in {str(path)!r} {root.name}/{_METADATA} is "
            f"damaged: {error}"
        ) from None
    if version != FORMAT:
        raise ValueError(
            f"path must be the folder of a study of format {FORMAT}, {str(path)!r} is of format "
            f"{version}"
        )
    return found


def _write(file: Path, content: dict[str, Any]) -> None:
    """Put JSON into a file, unless it is there."""
    text = json.dumps(content, indent=1).encode()
    try:
        if file.read_bytes() == text:
            return
    except FileNotFoundError:
        file.parent.mkdir(exist_ok=True)
    with whole_file(file) as target:
        target.write(text)
