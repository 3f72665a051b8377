"""Identity of stored results: digests of their settings, and checksums of chunks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from pylyap.studies.settings import PATHS

Place = tuple[int, ...]  # indices of a chunk: on the grid, and of the block of runs

_EXTENDED = {
    "title",
    "runs",
    "grid",
    *PATHS,
}  # settings on which the results of a run do not depend
_SYSTEM_TEXTS = {"name", "probe"}


class Identity:
    """Identity of a study: all settings on which its results depend.

    The number of runs, the title, paths of files (identified by their digest) and the other values
    of the grid are excluded, so that extending or moving a study does not change it. Texts and
    numbers of a system that can differ between its copies are compared by `require_same_study`.
    """

    def __init__(self, settings: Mapping[str, Any], block: int) -> None:
        fixed = {name: value for name, value in settings.items() if name not in _EXTENDED}
        for path in PATHS:
            table, _, key = path.partition(".")
            fixed[table] = {k: v for k, v in fixed[table].items() if k != key}
        if "system" in fixed:
            fixed["system"] = {k: v for k, v in fixed["system"].items() if k not in _SYSTEM_TEXTS}
        self._fixed = json.dumps(fixed, sort_keys=True)
        self._axes = {path: list(values) for path, values in settings["grid"].items()}
        self._block = block
        self._known: dict[Place, str] = {}

    def at(self, point: Place) -> str:
        """Digest of the settings at a point of the grid, 16 hexadecimal digits."""
        if point not in self._known:
            values = [
                [path, index if path in PATHS else axis[index]]
                for (path, axis), index in zip(self._axes.items(), point, strict=True)
            ]
            text = f"{self._fixed} {json.dumps(values)}"
            self._known[point] = blake2b(text.encode(), digest_size=8).hexdigest()
        return self._known[point]

    def checksum(self, name: str, place: Place, data: bytes) -> int:
        """Checksum of a chunk: content, array, indices and settings; 64 bits, never 0."""
        key = f"{self.at(place[:-1])} {name} {place[-1]} {self._block}".encode()
        digest = blake2b(data, digest_size=8, key=blake2b(key, digest_size=32).digest())
        return int.from_bytes(digest.digest(), "big") or 1
