"""A training in progress: its state, records, and what a checkpoint holds of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._batches import batch_axes
from pylyap._checks import Floats
from pylyap._errors import ArgumentError
from pylyap._status import Status
from pylyap._weights import checkpoints
from pylyap._weights.deviation import rms_by_layer
from pylyap._weights.history import CURVES, History
from pylyap.maps import TrainingMap

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

Stop = Callable[[Floats], ArrayLike]


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Checked arguments of `train`."""

    system: TrainingMap
    epochs: int
    every: int  # epochs between records
    test: TrainingMap | None  # the test data
    snapshot_epochs: Integers
    layers: tuple[int, ...] | None
    threads: int | None

    def __post_init__(self) -> None:
        if self.epochs % self.every:
            raise ArgumentError(
                "record_every", f"must divide epochs={self.epochs}, got {self.every}"
            )

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return -(-len(self.system.X) // self.system._runs.batch_size)

    @property
    def records(self) -> int:
        return self.epochs // self.every + 1

    @property
    def curves(self) -> list[str]:
        """Names of the losses and accuracies that are recorded."""
        return [
            name
            for name in CURVES
            if (self.system.network.classifies or "loss" in name)
            and (self.test is not None or "train" in name)
        ]

    @property
    def kept(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the snapshots of one run."""
        network, n = self.system.network, len(self.snapshot_epochs)
        if n == 0:
            return {}
        if self.layers is None:
            return {"weights": (n, network.n_params)}
        sizes = network.layers
        return {f"layer {i}": (n, sizes[i + 1], sizes[i]) for i in self.layers}

    def require_memory(self, runs: int) -> None:
        """Refuse records, snapshots and states that would not fit."""
        scopes = len(self.system.network.layers)
        _checks.memory(
            f"records and snapshots of {runs} runs",
            8.0 * runs * ((4 + scopes) * self.records + sum(map(math.prod, self.kept.values())))
            + 8.0 * self.epochs,
            f"record less of epochs={self.epochs} with record_every=, or keep fewer snapshots",
        )
        _checks.memory("the states", 40.0 * runs * self.system.n, "take fewer runs")


@dataclass(frozen=True)
class RunState:
    """State of all runs after a whole number of epochs.

    A new one replaces the last in one assignment, so that an interruption leaves one or the other.
    """

    epoch: int
    states: Floats  # (runs, n)
    status: Integers
    n_done: Integers

    def diverged(self, runs: Integers) -> RunState:
        """With runs that diverged in the last epoch."""
        states, status, n_done = self.states.copy(), self.status.copy(), self.n_done.copy()
        states[runs], status[runs], n_done[runs] = np.nan, Status.DIVERGED, max(self.epoch - 1, 0)
        return RunState(self.epoch, states, status, n_done)

    def stopped(self, enough: Booleans) -> RunState:
        """With runs that the stopping rule ends."""
        status = np.where((self.status == Status.FINISHED) & enough, Status.STOPPED, self.status)
        return RunState(self.epoch, self.states, status, self.n_done)


class TrainingRun:
    """A training in progress; runs are flat."""

    def __init__(self, settings: TrainingSettings, w0: ArrayLike) -> None:
        self.settings = settings
        system = settings.system
        flat, self.batch = system._runs.flat(w0, "w0", finite=True)
        runs, records = len(flat), settings.records
        settings.require_memory(runs)
        self.first = np.ascontiguousarray(flat[:, : system.n_params]).copy()
        self.curves = {name: np.full((runs, records), np.nan) for name in settings.curves}
        self.deviation = np.full((runs, len(system.network.layers), records), np.nan)
        self.snapshots = {
            name: np.full((runs, *shape), np.nan) for name, shape in settings.kept.items()
        }
        self.seconds = np.full(settings.epochs, np.nan)
        zero = np.zeros(runs, np.int64)
        self.now = RunState(0, flat.copy(), zero, zero)

    @property
    def finished(self) -> bool:
        """Whether all epochs are made or all runs have diverged or stopped."""
        alive = (self.now.status == Status.FINISHED).any()
        return not (self.now.epoch < self.settings.epochs and alive)

    def begin(self, stop: Stop | None) -> None:
        """Record the start."""
        self.now = self._record(self.now, stop)

    def advance(self, stop: Stop | None) -> None:
        """Make one epoch of the runs that neither diverged nor stopped."""
        now, given, system = self.now, self.settings, self.settings.system
        alive = now.status == Status.FINISHED
        begun = time.perf_counter()
        if any(system._runs.rate_shapes):  # rates belong to places in the batch
            states = now.states.reshape((*self.batch, system.n))
        else:
            states = now.states if alive.all() else now.states[alive]
        steps = given.steps
        path = system.trajectory(
            states, steps, every=steps, start=now.epoch * steps, threads=given.threads
        )
        after = path[..., 1, :].reshape(-1, system.n)
        if not alive.all():
            found = after[alive] if len(after) == len(alive) else after
            after = now.states.copy()
            after[alive] = found
        self.seconds[now.epoch] = time.perf_counter() - begun
        epoch = now.epoch + 1
        gone = alive & np.isnan(after[:, 0])  # all entries of a diverged state are nan
        n_done = np.where(alive & ~gone, epoch, now.n_done)
        status = np.where(gone, Status.DIVERGED, now.status)
        self.now = self._record(RunState(epoch, after, status, n_done), stop)

    def _record(self, now: RunState, stop: Stop | None) -> RunState:
        """Record what is due after an epoch; the state, with runs that end at it."""
        given, network = self.settings, self.settings.system.network
        alive = np.flatnonzero(now.status == Status.FINISHED)
        weights = np.ascontiguousarray(now.states[alive, : network.n_params])
        r, due = divmod(now.epoch, given.every)
        if due == 0 and len(alive):
            loss = given.system.loss(weights)
            finite = np.isfinite(loss)
            if not finite.all():
                now = now.diverged(alive[~finite])
                alive, weights, loss = alive[finite], weights[finite], loss[finite]
            for name, values in self._measured(weights, loss).items():
                self.curves[name][alive, r] = values
            self.deviation[alive, :, r] = rms_by_layer(network, self.first[alive], weights)
        for k in np.flatnonzero(given.snapshot_epochs == now.epoch):
            for name, kept in self.snapshots.items():
                if name == "weights":
                    kept[alive, k] = weights
                else:
                    kept[alive, k] = network.unpack(weights)[int(name.split()[1])][0]
        if due == 0 and stop is not None and len(alive):
            enough = self._enough(stop, r)
            now = now.stopped(enough)
        return now

    def _measured(self, weights: Floats, train_loss: Floats) -> dict[str, Floats]:
        """Losses and accuracies of finite weights (m, n_params)."""
        given, network = self.settings, self.settings.system.network
        found = {"train_loss": train_loss}
        if given.test is not None:
            found["test_loss"] = given.test.loss(weights)
        for name, data in (("train_accuracy", given.system), ("test_accuracy", given.test)):
            if name in self.curves and data is not None:
                found[name] = network._accuracy(weights, data._runs.inputs, data.y, given.threads)
        return found

    def _enough(self, stop: Stop, r: int) -> Booleans:
        """Result (runs,) of the stopping rule for the losses up to record r."""
        losses = self.curves["train_loss"][:, : r + 1].reshape((*self.batch, r + 1)).copy()
        given = np.asarray(stop(losses))
        if given.dtype != bool or given.shape not in ((), self.batch):
            raise ArgumentError(
                "stop",
                f"must return True or False for each run, shape {self.batch}, "
                f"got {_checks.describe(given)}",
            )
        return np.broadcast_to(given, self.batch).ravel()

    def note(self) -> str:
        """Median loss, for the progress bar."""
        losses = self.curves["train_loss"][:, self.now.epoch // self.settings.every]
        losses = losses[np.isfinite(losses)]
        return f"loss {np.median(losses):.4g}" if losses.size else ""

    # --- checkpoints ------------------------------------------------------------------------------

    def identity(self, path: Path | None = None) -> checkpoints.Identity:
        """Identity of the training after a number of epochs, for its checkpoint (at `path`)."""
        given = self.settings
        test = (
            {}
            if given.test is None
            else {"test X": given.test._runs.inputs, "test y": given.test.y}
        )
        entries: dict[str, Any] = {
            "w0": self.now.states.reshape((*self.batch, given.system.n)),
            **test,
            "record_every": given.every,
            "layers": "all" if given.layers is None else given.layers,
        }

        def after(epoch: int | None) -> dict[str, str]:
            if epoch is not None and epoch > given.epochs:
                raise self._too_few(path, epoch)
            return checkpoints.identity(given.system, given.steps, epoch, **entries)

        return after

    def _too_few(self, path: Path | None, epoch: int) -> _Mismatch:
        return _Mismatch(
            "epochs",
            f"must be at least the {epoch} that checkpoint {str(path)!r} has, "
            f"got {self.settings.epochs}",
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All arrays that are needed to resume."""
        now = self.now
        _, kept = self._so_far(now.epoch)
        return {
            "epoch": np.array(now.epoch),
            "states": now.states,
            "status": now.status,
            "n_done": now.n_done,
            "snapshot_epochs": self.settings.snapshot_epochs[:kept],
            **self._parts(now.epoch),
        }

    def _parts(self, epoch: int) -> dict[str, NDArray[Any]]:
        """Views of the records up to an epoch."""
        records, kept = self._so_far(epoch)
        return {
            "seconds": self.seconds[:epoch],
            "deviation": self.deviation[..., :records],
            **{name: values[:, :records] for name, values in self.curves.items()},
            **{f"kept {name}": values[:, :kept] for name, values in self.snapshots.items()},
        }

    def resume(self, path: Path, found: dict[str, NDArray[Any]]) -> None:
        """Continue from the arrays of a checkpoint."""
        try:
            epoch, given = int(_alike(found, "epoch", np.array(0))), found["snapshot_epochs"]
            if epoch < 0:
                raise ArgumentError("epoch", f"is {epoch}")
            if epoch > self.settings.epochs:
                raise self._too_few(path, epoch)
            snapshots = self.settings.snapshot_epochs[: self._so_far(epoch)[1]]
            if not np.array_equal(given, snapshots):
                raise _Mismatch(
                    "snapshots",
                    f"must be those of checkpoint {str(path)!r} up to its epoch {epoch}, "
                    f"{given.tolist()}, got {snapshots.tolist()}",
                )
            now = self.now
            self.now = RunState(
                epoch,
                _alike(found, "states", now.states),
                _alike(found, "status", now.status),
                _alike(found, "n_done", now.n_done),
            )
            for name, values in self._parts(epoch).items():
                values[...] = _alike(found, name, values)
        except _Mismatch:
            raise
        except (KeyError, ValueError, TypeError) as error:
            raise ArgumentError(
                "checkpoint",
                f"must be a valid pylyap checkpoint, {str(path)!r} is incomplete: {error}",
            ) from error

    def _so_far(self, epoch: int) -> tuple[int, int]:
        """Number of records and snapshots after a number of epochs."""
        given = self.settings
        return epoch // given.every + 1, int((given.snapshot_epochs <= epoch).sum())

    # --- the result -------------------------------------------------------------------------------

    def history(self) -> History:
        given, system, now = self.settings, self.settings.system, self.now
        network = system.network

        def shaped(values: NDArray[Any]) -> Any:
            return values.reshape((*self.batch, *values.shape[1:]))

        states = now.states.copy()
        states[now.status == Status.DIVERGED] = np.nan
        curves: dict[str, Any] = dict.fromkeys(CURVES)
        curves |= {name: shaped(values) for name, values in self.curves.items()}
        return History(
            epochs=np.arange(0, given.epochs + 1, given.every),
            **curves,
            scopes=("all weights", *(f"layer {i}" for i in range(len(network.layers) - 1))),
            deviation=shaped(self.deviation),
            snapshot_epochs=given.snapshot_epochs,
            snapshots={name: shaped(values) for name, values in self.snapshots.items()},
            w_initial=shaped(self.first),
            state=shaped(states),
            status=shaped(now.status.copy()),
            n_done=shaped(now.n_done.copy()),
            seconds=self.seconds,
            **batch_axes(system, self.batch),
            settings={
                "system": repr(system),
                "layers": network.layers,
                "samples": len(system.X),
                "test_samples": 0 if given.test is None else len(given.test.X),
                "epochs": given.epochs,
                "steps_per_epoch": given.steps,
                "record_every": given.every,
                "guess_loss": guess_loss(system),
            },
        )


class _Mismatch(ArgumentError):
    """A valid checkpoint that disagrees with an argument."""


def _alike(found: dict[str, NDArray[Any]], name: str, expected: NDArray[Any]) -> NDArray[Any]:
    """An array of a checkpoint, of exactly the expected shape and type."""
    values = found[name]
    if (values.shape, values.dtype) != (expected.shape, expected.dtype):
        raise ArgumentError(
            name, f"must be {_checks.describe(expected)}, got {_checks.describe(values)}"
        )
    return values


def guess_loss(system: TrainingMap) -> float:
    """Loss of a constant prediction: ln K for K classes, or half the variance of the targets."""
    if system.network.classifies:
        return math.log(system.network.layers[-1])
    targets = system.y.reshape(len(system.y), -1)
    return 0.5 * float(targets.var(axis=0).sum())
