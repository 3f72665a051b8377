"""The file of a map that is computed in several calls."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pylyap._errors import ArgumentError
from pylyap._stability.axes import Axis
from pylyap._stability.running import Measured
from pylyap._weights import checkpoints
from pylyap.maps import TrainingMap

_SECONDS = 30.0  # between two writes, at least


class Stored:
    """Pixels that are done, read from a file if it exists and written to it from time to time.

    Parameters
    ----------
    path : Path
        The file.
    identity : mapping of str
        All that the map depends on; a file of another map is refused.
    found : Measured
        The results, into which those of the file are copied.

    Attributes
    ----------
    done, made : int
        Pixels that are done, and the steps made for them.
    """

    def __init__(self, path: Path, identity: Mapping[str, str], found: Measured) -> None:
        self._path, self._identity, self._found = path, identity, found
        self.done, self.made, self._saved = 0, 0, 0
        self._when, self._failing = time.monotonic(), False
        if not path.exists():
            return
        try:
            arrays = checkpoints.load(path, lambda _: self._identity)
        except OSError as error:
            raise ArgumentError(
                "checkpoint",
                f"must be a file that can be read, got {str(path)!r}: {error.strerror or error}",
            ) from None
        self.done = self._saved = int(arrays["epoch"])
        self.made = int(arrays["made"])
        for name, target in self._arrays().items():
            target[: self.done] = arrays[name]

    def _arrays(self) -> dict[str, Any]:
        named = vars(self._found)
        return {name: array for name, array in named.items() if array is not None}

    def add(self, done: int, made: int) -> None:
        """So many pixels are done; write them if the last write is some time ago."""
        self.done, self.made = done, made
        if time.monotonic() - self._when >= _SECONDS:
            self.save()

    def save(self) -> None:
        """Write the file; a failure is a warning, once in a row, and leaves the old file."""
        if self.done == self._saved:
            return
        arrays = {name: array[: self.done] for name, array in self._arrays().items()}
        counts = {"epoch": np.array(self.done), "made": np.array(self.made)}
        try:
            checkpoints.save(self._path, arrays | counts, lambda _: self._identity)
        except OSError as error:
            if not self._failing:
                warnings.warn(
                    f"cannot write checkpoint {str(self._path)!r}: {error.strerror or error}; it "
                    f"remains that of {self._saved} pixels",
                    RuntimeWarning,
                    stacklevel=2,
                )
            self._failing = True
        else:
            self._saved, self._failing = self.done, False
        self._when = time.monotonic()


def identity(
    system: Any, state: Any, x: Axis, y: Axis, n_steps: int, **others: Any
) -> dict[str, str]:
    """Text that identifies a map; `state` is the initial state of all pixels or of the first."""
    entries: dict[str, Any] = {f"x {x.name}": x.values, f"y {y.name}": y.values}
    entries |= {"map": "pixels", "n_steps": n_steps, "state": state, **others}
    if isinstance(system, TrainingMap):
        return checkpoints.identity(system, 1, n_steps, **entries)
    name = getattr(system, "__name__", type(system).__qualname__)
    return checkpoints.as_text({"function": name} | entries)
