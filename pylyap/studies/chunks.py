"""How Zarr reads and writes the files of a study. Zarr is imported with this module.

A chunk is one frame of Zstandard and a CRC-32C. Before it is decompressed it is held against the
checksum on record, and the size that its frame declares against that of its array's chunks.
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
_CRC = 4  # bytes of the codec crc32c at the end of a chunk, little-endian
_ZSTD = 0xFD2FB528
_ADVICE = "run the study again to compute it"


class Writer(LocalStore):
    """The folder of a store for its driver: files are whole or not there, and on the disk once
    they are written.

    Chunks wait in `staged` while that is a dict, and `place` puts them into the folder. Chunks of
    arrays in `sizes` are checked when they are read; ValueError if they are damaged.
    """

    sizes: dict[str, int] | None = None
    staged: dict[str, bytes] | None = None

    def set_sync(self, key: str, value: Buffer) -> None:
        self._check_writable()
        if self.staged is not None and _is_chunk(key):
            self.staged[key] = value.to_bytes()
        else:
            self.place(key, value.as_buffer_like())

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
        data, problem = await asyncio.to_thread(look, self.root, key, size)
        if data is not None and not problem and not is_decoded(data):
            problem = "damaged"
        if data is not None and problem:
            raise ValueError(f"{self.root / key} is {problem}: {_ADVICE}")
        return _buffer(data, prototype)

    def place(self, key: str, data: Any) -> None:
        """Put a file into the folder."""
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
    """The folder of a store for its readers: metadata that are given, and checked chunks.

    A chunk that is missing or damaged is read as if it were not there, and is noted in `failures`,
    a message by key: an exception within Zarr would leave reads behind that nobody waits for.

    Parameters
    ----------
    root
        The folder.
    documents
        The metadata of each array.
    problem
        What is wrong with a chunk of an array that is there, None if nothing is; and
    promised
        whether a chunk must be there. Chunks that are not promised are not there.
    """

    def __init__(
        self,
        root: Path,
        documents: dict[str, dict[str, Any]],
        problem: Problem | None = None,
        promised: Callable[[str, Place], bool] | None = None,
    ) -> None:
        super().__init__(root, read_only=True)
        self._documents, self._problem, self._promised = documents, problem, promised
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
        if self._promised is not None and not self._promised(name, place):
            return None
        try:
            data, problem = look(self.root, key, chunk_bytes(document))
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


def look(root: Path, key: str, size: int) -> tuple[bytes | None, str | None]:
    """A chunk and what is wrong with it alone, where `size` bytes are to come of it.

    Raises NotRegular if it is a symbolic link.
    """
    try:
        data = read_file(root, key, size + size // 128 + 2**10)  # more than Zstandard's bound
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


def is_decoded(chunk: bytes) -> bool:
    """Whether a chunk, whose frame declares its size, holds that many bytes; no more are made."""
    try:
        Zstd().decode(chunk[:-_CRC])
    except (RuntimeError, ValueError):
        return False
    return True


def frame_size(data: bytes) -> int | None:
    """The size of the content of data that are exactly one frame of Zstandard (RFC 8878), as its
    header declares it; None if they are not, or it declares none."""
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
        at += 3 + (1 if kind == 1 else head >> 3)  # one byte, repeated, or so many
    return size if at + 4 * checksum == len(data) else None


def chunk_bytes(document: dict[str, Any]) -> int:
    """Uncompressed bytes of a chunk of an array, by its metadata."""
    shape = document["chunk_grid"]["configuration"]["chunk_shape"]
    return int(math.prod(shape) * np.dtype(document["data_type"]).itemsize)


def chunk_key(name: str, place: Place, ndim: int) -> str:
    """The file of the chunk of an array of `ndim` dimensions, one chunk along the last ones."""
    return ".".join([f"{name}/c", *map(str, place), *("0" for _ in range(ndim - len(place)))])


def _is_chunk(key: str) -> bool:
    return key.rpartition("/")[2].partition(".")[0] == "c"


def _place(key: str) -> Place:
    """Indices of a chunk."""
    return tuple(map(int, key.rpartition("/")[2].split(".")[1:]))


def _buffer(data: bytes | None, prototype: BufferPrototype | None) -> Buffer | None:
    if data is None:
        return None
    return (prototype or default_buffer_prototype()).buffer.from_bytes(data)
