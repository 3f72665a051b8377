"""Metadata of a store (its zarr.json), checked before use."""

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

FORMAT = 2  # format 1 has no checksums of the metadata and, in the log, of chunks
CHECKSUM = "sha256"  # attribute of the store
LABELS = "labels"  # attribute of a coordinate of strings, whose array has indices into this list
COORDINATES = "coordinates"  # attribute of the store: digests of the values of coordinates

METADATA = "zarr.json"
MAX_METADATA_BYTES = 2**26
_DTYPES = ("float64", "float32", "int64", "int32", "int8")
_CODECS = ("bytes", "zstd", "crc32c")
_MAX_ELEMENTS = 2**48  # elements of an array

Content = dict[str, Any]


class DamagedMetadata(ValueError):
    """The metadata of a store are damaged."""


@dataclass(frozen=True)
class Metadata:
    """Metadata of a store.

    Attributes
    ----------
    attributes : dict
        Attributes of the store without its checksums.
    documents : dict
        Metadata of each array, as written by Zarr.
    coordinates : dict
        Digests of the values of coordinates; empty in format 1.
    """

    attributes: Content
    documents: dict[str, Content]
    coordinates: dict[str, str]

    @property
    def format(self) -> int:
        return int(self.attributes["format"])


def read(path: Path, root: Path) -> Metadata:
    """Read and check the metadata of the store `root` in the folder `path` of a study.

    Raises ArgumentError if there is no store or its format is unknown, and DamagedMetadata if the
    metadata are invalid.
    """
    try:
        content = parse(read_file(path, f"{root.name}/{METADATA}", MAX_METADATA_BYTES))
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
        raise DamagedMetadata(
            f"path must be the folder of a study, in {str(path)!r} {root.name}/{METADATA} is "
            f"damaged: {why}; run the study again to repair it"
        ) from None
    raise ArgumentError(
        "path",
        f"must be the folder of a study of format {FORMAT} or less, {str(path)!r} has "
        f"format {version}",
    )


def parse(data: bytes) -> Content:
    """Parse a JSON object. Raises ValueError if it is invalid."""
    try:
        return _dict(json.loads(data), METADATA)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def encode(content: Content) -> bytes:
    """Encode metadata as JSON. Raises ArgumentError if they exceed the limit of readers."""
    text = json.dumps(content, indent=1).encode()
    if len(text) > MAX_METADATA_BYTES:
        raise ArgumentError(
            "study",
            f"must have settings and labels below {MAX_METADATA_BYTES} bytes, got {len(text)}",
        )
    return text


def with_checksum(content: Content) -> Content:
    """Add the checksum of all other content to the content of a zarr.json."""
    attributes = content["attributes"] | {CHECKSUM: _checksum(content)}
    return content | {"attributes": attributes}


def _checksum(content: Content) -> str:
    attributes = {name: v for name, v in content["attributes"].items() if name != CHECKSUM}
    rest = content | {"attributes": attributes}
    return sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


# --- checks, which raise ValueError, KeyError or TypeError ---


def _checked(content: Content, attributes: Content) -> Metadata:
    if attributes["format"] > 1 or CHECKSUM in attributes:
        _require(attributes[CHECKSUM] == _checksum(content), "its checksum does not match")
    inline = _dict(content["consolidated_metadata"], "consolidated_metadata")
    documents = _dict(inline["metadata"], "metadata")
    about = _parsed_attributes(attributes)
    dims: dict[str, int] = {}
    for name, document in documents.items():
        _check_document(name, _dict(document, name), about, dims)
    _require("status" in documents, "there is no array status")
    coordinates = attributes.get(COORDINATES, {})
    if attributes["format"] > 1:
        labels = [n for n, d in documents.items() if "run" not in d["dimension_names"]]
        _strings(coordinates, labels)
    rest = {name: v for name, v in attributes.items() if name not in (CHECKSUM, COORDINATES)}
    return Metadata(rest, documents, _dict(coordinates, COORDINATES))


def _parsed_attributes(attributes: Content) -> Content:
    """Attributes of a store, with settings and grid parsed from JSON."""
    texts = ("title", "settings", "grid", "pylyap", "instruction_set", "created", "python", "numpy")
    _strings(attributes, texts)
    datetime.fromisoformat(attributes["created"])
    for name in ("block", "runs"):
        _require(_is_count(attributes[name]), f"{name} must be a positive integer")
    settings, grid = parse(attributes["settings"]), parse(attributes["grid"])
    for table in (*TABLES, "grid"):
        _dict(settings[table], table)
    _strings(settings.get("system", settings["data"]), ["name"])
    _strings(settings["analysis"], ["name"])
    for name in ("title", "runs", "seed"):
        same = attributes[name] == settings[name] and type(attributes[name]) is type(settings[name])
        _require(same, f"{name} must agree with the settings")
    _require(type(settings["seed"]) is int, "seed must be an integer")
    axes = list(settings["grid"].values())
    _require(list(grid.values()) == axes, "grid must agree with the settings")
    _require(all(isinstance(a, list) and a for a in axes), "grid must have lists of values")
    _require(
        math.prod(map(len, axes)) * attributes["runs"] < _MAX_ELEMENTS, "there are too many runs"
    )
    return {**attributes, "settings": settings, "grid": grid}


def _check_document(name: str, document: Content, about: Content, dims: dict[str, int]) -> None:
    """Check the metadata of an array against the arrays that `layout` creates."""
    _require(0 < len(name) < 200 and not set(name) & set("/.\0"), f"no array is called {name!r}")
    _require(document["zarr_format"] == 3, f"{name} must have Zarr format 3")
    _require(document["node_type"] == "array", f"{name} must be an array")
    dtype, shape = document["data_type"], document["shape"]
    _require(dtype in _DTYPES, f"{name} must be of one of {', '.join(_DTYPES)}")
    fill = "NaN" if dtype.startswith("float") else -1
    _require(document["fill_value"] == fill, f"{name} must be filled with {fill}")
    _require(isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape), "no shape")
    _require(
        math.prod(shape) < _MAX_ELEMENTS, f"{name} must have fewer than {_MAX_ELEMENTS} elements"
    )
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
        _require(good and math.prod(chunks) < _MAX_ELEMENTS, f"{name} must have chunks")
    if name == "status":
        _require(names == [*about["grid"], "run"] and dtype == "int8", "status must be int8")
    codecs = [_dict(codec, "codec")["name"] for codec in document["codecs"]]
    _require(codecs == list(_CODECS), f"{name} must have the codecs {', '.join(_CODECS)}")
    order = document["codecs"][0].get("configuration", {}).get("endian", "little")
    _require(order == "little", f"{name} must be little-endian")
    _require(not document.get("storage_transformers"), f"{name} must have no transformers")
    _dict(document["attributes"], "attributes")


def _chunk_shape(document: Content) -> Any:
    keys = {"name": "default", "configuration": {"separator": "."}}
    _require(document["chunk_key_encoding"] == keys, "chunk keys must be separated by dots")
    shape = document["chunk_grid"]["configuration"]["chunk_shape"]
    grid = {"name": "regular", "configuration": {"chunk_shape": _list(shape)}}
    _require(document["chunk_grid"] == grid, "chunks must be regular")
    return shape


def checked_fields(document: Content) -> Content:
    """Checked fields of the metadata of an array, with constants for the others."""
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
    """Runs per chunk, by the metadata of an array. Raises ValueError if they are damaged."""
    try:
        shape = _chunk_shape(document)
        names = document["dimension_names"]
        _require(names[n_grid] == "run" and _is_count(shape[n_grid]), "no runs per chunk")
        return int(shape[n_grid])
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(str(error)) from None


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**62


def _dict(value: Any, name: str) -> Content:
    _require(isinstance(value, dict), f"{name} must be an object")
    found: Content = value
    return found


def _list(value: Any) -> list[Any]:
    _require(isinstance(value, list), "there must be a list")
    found: list[Any] = value
    return found


def _strings(values: Any, names: Iterable[str]) -> None:
    for name in names:
        _require(isinstance(_dict(values, name)[name], str), f"{name} must be a string")
