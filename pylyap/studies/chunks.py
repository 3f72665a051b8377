"""Stores through which Zarr reads and writes the files of a study. Importing it imports Zarr.

A chunk is one Zstandard frame followed by a CRC-32C. Before decompression its checksum is compared
with the log, and the size that the frame declares with the size of the chunks of its array.
"""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from google_crc32c import value as crc32c
from numcodecs.zstd import Zstd  # type: ignore[import-untyped]
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.storage import LocalStore

from pylyap._files import atomic_write
from pylyap.studies.identity import Place
from pylyap.studies.regular import NotRegular, read_file, require_folder

Problem = Callable[[str, Place, bytes], str | None]

_METADATA = "zarr.json"
_CRC = 4  # bytes of the checksum at the end of a chunk, little-endian
_ZSTD = 0xFD2FB528
_ADVICE = "run the study again to compute it"


class Writer(LocalStore):
    """Store of the driver: writes are atomic and flushed to disk.

    While `staged` is a dict, chunks are added to it instead of the folder; `put` writes them.
    Chunks of arrays in `sizes` (bytes of a chunk) are checked when they are read, and damage raises
    ValueError.
    """

    sizes: dict[str, int] | None = None
    staged: dict[str, bytes] | None = None

    def set_sync(self, key: str, value: Buffer) -> None:
        self._check_writable()
        if self.staged is not None and _is_chunk(key):
            self.staged[key] = value.to_bytes()
        else:
            self.put(key, value.as_buffer_like())

    async def set(self, key: str, value: Buffer) -> None:
        await asyncio.to_thread(self.set_sync, key, value)

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        if self.sizes is None or not _is_chunk(key):
            return await super().get(key, prototype, byte_range)
        size = self.sizes[key.partition("/")[0]]
        data, problem = await asyncio.to_thread(read_chunk, self.root, key, size)
        if data is not None and not problem and not can_decode(data):
            problem = "damaged"
        if data is not None and problem:
            raise ValueError(f"{self.root / key} is {problem}: {_ADVICE}")
        return _buffer(data, prototype)

    def put(self, key: str, data: Any) -> None:
        """Write a file atomically."""
        path = self.root / key
        folder = key.rpartition("/")[0]
        if folder:
            require_folder(self.root, folder)
        if path.is_dir() and not path.is_symlink():
            raise ValueError(f"{path} must be a file, got a folder: remove it")
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(data)


class Reader(LocalStore):
    """Store of readers: given metadata and checked chunks.

    A missing or damaged chunk is read as absent and added to `failures`, a message by key. An
    exception inside Zarr would leave pending asynchronous reads.

    Parameters
    ----------
    root : Path
        Folder of the store.
    documents : dict
        Metadata of each array.
    problem : callable, optional
        Returns what is wrong with the content of a chunk, None if it is valid.
    expected : callable, optional
        Returns whether a chunk must exist. Other chunks are read as absent.
    """

    def __init__(
        self,
        root: Path,
        documents: dict[str, dict[str, Any]],
        problem: Problem | None = None,
        expected: Callable[[str, Place], bool] | None = None,
    ) -> None:
        super().__init__(root, read_only=True)
        self._documents, self._problem, self._expected = documents, problem, expected
        self.failures: dict[str, str] = {}
        self._lock = threading.Lock()

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        name, _, file = key.partition("/")
        document = self._documents.get(name)
        if document is None:
            return None
        if file == _METADATA:
            return _buffer(json.dumps(document).encode(), prototype)
        if not _is_chunk(key):
            return None
        return _buffer(await asyncio.to_thread(self._read, name, key, document), prototype)

    def _read(self, name: str, key: str, document: dict[str, Any]) -> bytes | None:
        place = _place(key)
        if self._expected is not None and not self._expected(name, place):
            return None
        try:
            data, problem = read_chunk(self.root, key, chunk_bytes(document))
        except NotRegular as error:
            self._fail(key, str(error))
            return None
        if data is not None and not problem and self._problem is not None:
            problem = self._problem(name, place, data)
        if problem:
            self._fail(key, f"{self.root / key} is {problem}: {_ADVICE}")
            return None
        return data

    def _fail(self, key: str, message: str) -> None:
        with self._lock:
            self.failures[key] = message


def read_chunk(root: Path, key: str, size: int) -> tuple[bytes | None, str | None]:
    """Read a chunk that decodes to `size` bytes; its data and what is wrong with them.

    Raises NotRegular if it is a symbolic link.
    """
    try:
        data = read_file(root, key, size + size // 128 + 2**10)  # above the bound of Zstandard
    except (FileNotFoundError, NotADirectoryError):
        return None, "missing"
    except NotRegular as error:
        if error.link:
            raise
        return None, f"damaged ({error})"
    except ValueError:
        return None, "damaged (it is too long)"
    if len(data) <= _CRC or crc32c(data[:-_CRC]) != int.from_bytes(data[-_CRC:], "little"):
        return data, "damaged"
    declared = frame_size(data[:-_CRC])
    if declared != size:
        found = "no size" if declared is None else f"{declared} bytes"
        return data, f"damaged (it declares {found} instead of {size} bytes)"
    return data, None


def can_decode(chunk: bytes) -> bool:
    """Whether a chunk decodes to the size that its frame declares; never allocates more."""
    try:
        Zstd().decode(chunk[:-_CRC])
    except (RuntimeError, ValueError):
        return False
    return True


def frame_size(data: bytes) -> int | None:
    """Content size declared by the header of a single Zstandard frame (RFC 8878).

    None if the data are not exactly one frame, or if it declares no size.
    """
    if len(data) < 6 or int.from_bytes(data[:4], "little") != _ZSTD:
        return None
    flags = data[4]
    single, checksum = flags >> 5 & 1, flags >> 2 & 1
    at = 5 + (not single) + (0, 1, 2, 4)[flags & 3]
    width = (single, 2, 4, 8)[flags >> 6]
    if width == 0:
        return None
    size = int.from_bytes(data[at : at + width], "little") + 256 * (width == 2)
    at += width
    last = False
    while not last:
        if at + 3 > len(data):
            return None
        head = int.from_bytes(data[at : at + 3], "little")
        last, kind = bool(head & 1), head >> 1 & 3
        at += 3 + (1 if kind == 1 else head >> 3)  # an RLE block stores one byte
    return size if at + 4 * checksum == len(data) else None


def chunk_bytes(document: dict[str, Any]) -> int:
    """Uncompressed size of a chunk of an array in bytes, by its metadata."""
    shape = document["chunk_grid"]["configuration"]["chunk_shape"]
    return int(math.prod(shape) * np.dtype(document["data_type"]).itemsize)


def chunk_key(name: str, place: Place, ndim: int) -> str:
    """File of a chunk of an array of `ndim` dimensions; trailing dimensions have one chunk."""
    return ".".join([f"{name}/c", *map(str, place), *("0" for _ in range(ndim - len(place)))])


def _is_chunk(key: str) -> bool:
    return key.rpartition("/")[2].partition(".")[0] == "c"


def _place(key: str) -> Place:
    """Indices of a chunk, by its key."""
    return tuple(map(int, key.rpartition("/")[2].split(".")[1:]))


def _buffer(data: bytes | None, prototype: BufferPrototype | None) -> Buffer | None:
    if data is None:
        return None
    return (prototype or default_buffer_prototype()).buffer.from_bytes(data)
