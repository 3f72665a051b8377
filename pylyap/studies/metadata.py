"""What the zarr.json of a store says, checked before anything is made of it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from pylyap._errors import ArgumentError
from pylyap.studies.regular import NotRegular, read_file
from pylyap.studies.tables import TABLES

FORMAT = 2  # 1: without checksums of the metadata, and of chunks in the log
CHECKSUM = "sha256"  # attribute of the store
LABELS = "labels"  # attribute of a coordinate of texts, whose array holds indices into them
COORDINATES = "coordinates"  # attribute of the store: digests of the values of coordinates

METADATA = "zarr.json"
LARGEST = 2**26  # bytes of a file of metadata
_DTYPES = ("float64", "float32", "int64", "int32", "int8")
_CODECS = ("bytes", "zstd", "crc32c")
_MOST = 2**48  # elements of an array

Content = dict[str, Any]


class Damaged(ValueError):
    """The metadata of a store are not as they were written."""


@dataclass(frozen=True)
class Metadata:
    """The metadata of a store.

    Attributes
    ----------
    attributes
        Of the store; its checksums left out.
    documents
        Metadata of each array, as Zarr writes them.
    coordinates
        Digests of the values of coordinates; none in format 1.
    """

    attributes: Content
    documents: dict[str, Content]
    coordinates: dict[str, str]

    @property
    def format(self) -> int:
        return int(self.attributes["format"])


def read(path: Path, root: Path) -> Metadata:
    """The metadata of the store `root` of a study, once they are checked.

    Raises ValueError, in terms of the folder `path` of the study, if there is none or it is of
    another format, and its subclass Damaged if they are not as a driver writes them.
    """
    try:
        content = parse(read_file(path, f"{root.name}/{METADATA}", LARGEST))
        attributes = _dict(content["attributes"], "attributes")
        version = attributes["format"]
        _require(type(version) is int and version > 0, "format must be a positive integer")
        if version <= FORMAT:
            return _checked(content, attributes)
    except NotRegular:
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise ArgumentError(
            "path", f"must be the folder of a study, got {str(path)!r}: no {root.name} in it"
        ) from None
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        why = f"no {error}" if isinstance(error, KeyError) else str(error)[:200]
        raise Damaged(
            f"path must be the folder of a study, in {str(path)!r} {root.name}/{METADATA} is "
            f"damaged: {why}; to run the study again mends it"
        ) from None
    raise ArgumentError(
        "path",
        f"must be the folder of a study of format {FORMAT} or less, {str(path)!r} is of "
        f"format {version}",
    )


def parse(data: bytes) -> Content:
    """An object of JSON. Raises ValueError if it is none."""
    try:
        return _dict(json.loads(data), METADATA)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def encoded(content: Content) -> bytes:
    """The text of a file of metadata. Raises ValueError if it is longer than what can be read."""
    text = json.dumps(content, indent=1).encode()
    if len(text) > LARGEST:
        raise ArgumentError(
            "study", f"must have settings and labels of less than {LARGEST} bytes, got {len(text)}"
        )
    return text


def with_checksum(content: Content) -> Content:
    """The content of a zarr.json with the checksum of all the rest of it."""
    attributes = content["attributes"] | {CHECKSUM: _checksum(content)}
    return content | {"attributes": attributes}


def _checksum(content: Content) -> str:
    attributes = {name: v for name, v in content["attributes"].items() if name != CHECKSUM}
    rest = content | {"attributes": attributes}
    return sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


# --- checks: each raises ValueError, KeyError or TypeError ---


def _checked(content: Content, attributes: Content) -> Metadata:
    if attributes["format"] > 1 or CHECKSUM in attributes:
        _require(attributes[CHECKSUM] == _checksum(content), "its checksum is that of others")
    inline = _dict(content["consolidated_metadata"], "consolidated_metadata")
    documents = _dict(inline["metadata"], "metadata")
    about = _about(attributes)
    dims: dict[str, int] = {}
    for name, document in documents.items():
        _document(name, _dict(document, name), about, dims)
    _require("status" in documents, "there is no array status")
    coordinates = attributes.get(COORDINATES, {})
    if attributes["format"] > 1:
        labels = [n for n, d in documents.items() if "run" not in d["dimension_names"]]
        _strings(coordinates, labels)
    rest = {name: v for name, v in attributes.items() if name not in (CHECKSUM, COORDINATES)}
    return Metadata(rest, documents, _dict(coordinates, COORDINATES))


def _about(attributes: Content) -> Content:
    """The attributes of a store, those in JSON parsed."""
    texts = ("title", "settings", "grid", "pylyap", "instruction_set", "created", "python", "numpy")
    _strings(attributes, texts)
    datetime.fromisoformat(attributes["created"])
    for name in ("block", "runs"):
        _require(_is_count(attributes[name]), f"{name} must be a positive integer")
    settings, grid = parse(attributes["settings"]), parse(attributes["grid"])
    for table in (*TABLES, "grid"):
        _dict(settings[table], table)
    _strings(settings["data"], ["name"])
    _strings(settings["analysis"], ["name"])
    for name in ("title", "runs", "seed"):
        same = attributes[name] == settings[name] and type(attributes[name]) is type(settings[name])
        _require(same, f"{name} must be that of the settings")
    _require(type(settings["seed"]) is int, "seed must be an integer")
    axes = list(settings["grid"].values())
    _require(list(grid.values()) == axes, "grid must be that of the settings")
    _require(all(isinstance(a, list) and a for a in axes), "grid must have lists of values")
    _require(math.prod(map(len, axes)) * attributes["runs"] < _MOST, "there are too many runs")
    return {**attributes, "settings": settings, "grid": grid}


def _document(name: str, document: Content, about: Content, dims: dict[str, int]) -> None:
    """Check the metadata of an array, as `layout` has Zarr make it."""
    _require(0 < len(name) < 200 and not set(name) & set("/.\0"), f"no array is called {name!r}")
    _require(document["zarr_format"] == 3, f"{name} must be of Zarr's format 3")
    _require(document["node_type"] == "array", f"{name} must be an array")
    dtype, shape = document["data_type"], document["shape"]
    _require(dtype in _DTYPES, f"{name} must be of one of {', '.join(_DTYPES)}")
    fill = "NaN" if dtype.startswith("float") else -1
    _require(document["fill_value"] == fill, f"{name} must be filled with {fill}")
    _require(isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape), "no shape")
    _require(math.prod(shape) < _MOST, f"{name} must have fewer than {_MOST} elements")
    names = document["dimension_names"]
    _require(
        isinstance(names, list) and len(names) == len(shape) == len(set(names)) > 0
        and all(isinstance(n, str) for n in names),
        f"{name} must have a name for each dimension",
    )  # fmt: skip
    for dim, size in zip(names, shape, strict=True):
        _require(dims.setdefault(dim, size) == size, f"{name} must have {dims[dim]} of {dim}")
    chunks = _chunk_shape(document)
    outer = [*map(len, about["grid"].values()), about["runs"]]
    n = len(outer)
    if "run" in names:
        _require(names[:n] == [*about["grid"], "run"], f"{name} must have the grid's dimensions")
        _require(shape[:n] == outer, f"{name} must have {outer} values")
        expected = [1] * (n - 1) + [about["block"]] + [max(1, size) for size in shape[n:]]
        _require(chunks == expected, f"{name} must have chunks of {expected}")
    else:
        good = len(chunks) == len(shape) and all(_is_count(c) for c in chunks)
        _require(good and math.prod(chunks) < _MOST, f"{name} must have chunks")
    if name == "status":
        _require(names == [*about["grid"], "run"] and dtype == "int8", "status must be small")
    codecs = [_dict(codec, "codec")["name"] for codec in document["codecs"]]
    _require(codecs == list(_CODECS), f"{name} must have the codecs {', '.join(_CODECS)}")
    order = document["codecs"][0].get("configuration", {}).get("endian", "little")
    _require(order == "little", f"{name} must have the least byte first")
    _require(not document.get("storage_transformers"), f"{name} must have no transformers")
    _dict(document["attributes"], "attributes")


def _chunk_shape(document: Content) -> Any:
    keys = {"name": "default", "configuration": {"separator": "."}}
    _require(document["chunk_key_encoding"] == keys, "chunks must be named by dots")
    shape = document["chunk_grid"]["configuration"]["chunk_shape"]
    grid = {"name": "regular", "configuration": {"chunk_shape": _list(shape)}}
    _require(document["chunk_grid"] == grid, "chunks must be regular")
    return shape


def plain(document: Content) -> Content:
    """Metadata of an array that were checked, with nothing in them that was not."""
    parts = ("shape", "data_type", "chunk_grid", "chunk_key_encoding", "fill_value")
    codecs: list[Content] = [{"name": name} for name in _CODECS]
    codecs[0]["configuration"] = {"endian": "little"}
    codecs[1]["configuration"] = {"level": 1, "checksum": False}
    return {
        "zarr_format": 3,
        "node_type": "array",
        **{part: document[part] for part in parts},
        "codecs": codecs,
        "attributes": {},
        "dimension_names": document["dimension_names"],
        "storage_transformers": [],
    }


def block_of(document: Content, n_grid: int) -> int:
    """The runs in a chunk, by the metadata of one array. Raises ValueError if they do not say."""
    try:
        shape = _chunk_shape(document)
        names = document["dimension_names"]
        _require(names[n_grid] == "run" and _is_count(shape[n_grid]), "no runs in a chunk")
        return int(shape[n_grid])
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(str(error)) from None


def _require(true: bool, otherwise: str) -> None:
    if not true:
        raise ValueError(otherwise)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**62


def _dict(value: Any, name: str) -> Content:
    _require(isinstance(value, dict), f"{name} must be an object")
    found: Content = value
    return found


def _list(value: Any) -> list[Any]:
    _require(isinstance(value, list), "a list is missing")
    found: list[Any] = value
    return found


def _strings(values: Any, names: Iterable[str]) -> None:
    for name in names:
        _require(isinstance(_dict(values, name)[name], str), f"{name} must be text")
