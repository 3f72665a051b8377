"""How Zarr reads and writes the files of a study. Zarr is imported with this module."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
from google_crc32c import value as crc32c
from numpy.typing import NDArray
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

from pylyap._files import whole_file

_CRC = 4  # bytes of the codec crc32c at the end of a chunk, little-endian


class ChunkFiles(LocalStore):
    """A folder whose files are whole or not there, and on the disk once they are written."""

    promised: NDArray[np.bool_] | None = None
    """Which chunks are there, by the first indices of their place: to read one of them that is
    missing raises ValueError, where it would give fill values, and so does one that is damaged."""

    def set_sync(self, key: str, value: Buffer) -> None:
        self._check_writable()
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            file.write(value.as_buffer_like())

    async def set(self, key: str, value: Buffer) -> None:
        await asyncio.to_thread(self.set_sync, key, value)

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        found = await super().get(key, prototype, byte_range)
        kind, *place = key.rpartition("/")[2].split(".")
        if self.promised is None or kind != "c":
            return found
        if found is None and self._is_promised(place):
            raise ValueError(f"{self.root / key} is missing: run the study again to compute it")
        if found is not None and not _is_sound(found.to_bytes()):
            raise ValueError(f"{self.root / key} is damaged: run the study again to compute it")
        return found

    def _is_promised(self, place: list[str]) -> bool:
        assert self.promised is not None
        index = tuple(map(int, place))[: self.promised.ndim]
        if len(index) < self.promised.ndim:
            return True  # a coordinate's
        inside = all(i < n for i, n in zip(index, self.promised.shape, strict=True))
        return inside and bool(self.promised[index])


def is_whole(chunk: Path) -> bool:
    """Whether a file is a chunk as it was written, by the checksum at its end."""
    try:
        return _is_sound(chunk.read_bytes())
    except FileNotFoundError:
        return False


def _is_sound(data: bytes) -> bool:
    return len(data) > _CRC and crc32c(data[:-_CRC]) == int.from_bytes(data[-_CRC:], "little")
