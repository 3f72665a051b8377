"""When checkpoints of a training are written."""

from __future__ import annotations

import time
import warnings
from pathlib import Path

from pylyap._errors import ArgumentError
from pylyap._weights import checkpoints
from pylyap._weights.run import TrainingRun

_SECONDS = 30.0  # between checkpoints, at least
_SHARE = 20.0  # and at least this many times the time that the last one took


class CheckpointWriter:
    """Resumes a run from its checkpoint, if there is one, and saves it from time to time."""

    def __init__(self, path: Path, run: TrainingRun, every: int | None) -> None:
        self.path, self.run, self.every = path, run, every
        self.identity = run.identity(path)
        self.resumed = path.exists()
        if self.resumed:
            try:
                run.resume(path, checkpoints.load(path, self.identity))
            except OSError as error:
                raise ArgumentError(
                    "checkpoint",
                    f"must be a file that can be read, got {str(path)!r}: "
                    f"{error.strerror or error}",
                ) from None
        self.saved = run.now.epoch if self.resumed else -1
        self.tried = run.now.epoch
        self.when, self.took = time.monotonic(), 0.0
        self.failing = False

    def save_if_due(self) -> None:
        if self.every is not None:
            due = self.run.now.epoch - self.tried >= self.every
        else:
            due = time.monotonic() - self.when >= max(_SECONDS, _SHARE * self.took)
        if due:
            self.save()

    def save(self, *, last: bool = False) -> None:
        """Write the file; warn once in a row of failures."""
        epoch, begun = self.run.now.epoch, time.monotonic()
        if epoch == self.saved:
            return
        try:
            checkpoints.save(self.path, self.run.arrays(), self.identity)
        except OSError as error:
            if not self.failing:
                old = f"; it remains that of epoch {self.saved}" if self.saved >= 0 else ""
                plan = "" if last else "; training continues and will try again"
                warnings.warn(
                    f"cannot write checkpoint {str(self.path)!r}: {error.strerror or error}"
                    + old
                    + plan,
                    RuntimeWarning,
                    stacklevel=3 if last else 4,
                )
            self.failing = True
        else:
            self.saved, self.failing = epoch, False
        self.tried, self.when = epoch, time.monotonic()
        self.took = self.when - begun
