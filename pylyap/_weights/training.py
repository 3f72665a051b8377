"""Training by epochs: losses, accuracies and deviations along it, snapshots, checkpoints."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._errors import ArgumentError, ArgumentTypeError
from pylyap._labelled import batch_dimensions, dataset_class
from pylyap._parallel import ProgressBar
from pylyap._status import Status
from pylyap._weights import checkpoints
from pylyap._weights.deviation import rms_by_layer
from pylyap.maps import TrainingMap, require_training
from pylyap.network import Network
from pylyap.optimizers import GradientDescent

if TYPE_CHECKING:
    import xarray

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

Stop = Callable[[Floats], Any]

_SECONDS = 30.0  # between checkpoints
_SHARE = 20.0  # and at least so many times what the last one took to write


@dataclass(frozen=True, eq=False, repr=False)
class History:
    """What became of a batch of runs, epoch by epoch. Leading axes are the batch.

    Records are nan from where a run left the finite numbers, and after it stopped.

    Attributes
    ----------
    epochs : (n_records,)
        Epochs done at each record; the first is 0.
    train_loss, test_loss : (..., n_records)
        Mean loss of the whole data and of the test data (None without them).
    train_accuracy, test_accuracy : (..., n_records) or None
        Shares classified rightly; None for squared errors.
    scopes : (n_scopes,)
        ``"all weights"``, then ``"layer 0"`` (the one that leaves the inputs), ``"layer 1"``, …
    deviation : (..., n_scopes, n_records)
        Root mean square of w − w(0), without biases; as in `weight_deviation`.
    snapshot_epochs : (n_snapshots,)
        When weights were kept.
    snapshots
        ``{"weights": (..., n_snapshots, n_params)}``, or for chosen layers their matrices, like
        ``{"layer 1": (..., n_snapshots, n_out, n_in)}``; empty if none were asked for.
    w_initial : (..., n_params)
        Weights at the start.
    state : (..., n)
        The last state (weights and buffers), nan for a run that diverged.
    status : (...)
        0 finished, 1 diverged (its state or its training loss left the finite numbers), 2 stopped
        early.
    n_done : (...)
        Epochs that were made and stayed finite.
    seconds : (n_epochs,)
        Wall-clock time of each epoch's steps, of all runs together and without records; nan for
        epochs not made.
    settings
        What was asked for; `guess_loss` is the loss of knowing nothing: ln K for K classes, half
        the variance of the targets for squared errors.
    """

    epochs: Integers
    train_loss: Floats
    test_loss: Floats | None
    train_accuracy: Floats | None
    test_accuracy: Floats | None
    scopes: tuple[str, ...]
    deviation: Floats
    snapshot_epochs: Integers
    snapshots: dict[str, Floats]
    w_initial: Floats
    state: Floats
    status: Integers
    n_done: Integers
    seconds: Floats
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def w_final(self) -> Floats:
        """(..., n_params) weights of the last state."""
        return self.state[..., : self.w_initial.shape[-1]]

    def __repr__(self) -> str:
        runs, epochs = self.status.size, int(self.epochs[-1])
        text = f"History of {runs} run{'s'[: runs != 1]}"
        text += f" {self.status.shape}" if self.status.shape else ""
        text += f": {epochs} epoch{'s'[: epochs != 1]}"
        for name, code in (("diverged", Status.DIVERGED), ("stopped early", Status.STOPPED)):
            count = int((self.status == code).sum())
            text += f", {count} {name}" if count else ""
        for name, values in (("training", self.train_loss), ("test", self.test_loss)):
            if values is not None:
                last = _latest(values).ravel()
                last = last[np.isfinite(last)]
                if last.size:
                    text += f"\n  {name} loss {np.median(last):.4g}"
                    text += " (median)" if runs > 1 else ""
        return text

    def to_dataset(self) -> xarray.Dataset:
        """An xarray Dataset with labelled dimensions; settings in attributes.

        Raises ImportError, with the command that helps, if xarray is not installed.
        """
        dataset = dataset_class()
        batch = batch_dimensions(self.status.ndim)
        weight = {"units": "weight"}
        variables: dict[str, Any] = {
            name: ([*batch, "epoch"], values)
            for name in _CURVES
            if (values := getattr(self, name)) is not None
        }
        variables |= {
            "deviation": ([*batch, "scope", "epoch"], self.deviation, weight),
            "w_initial": ([*batch, "parameter"], self.w_initial, weight),
            "state": ([*batch, "component"], self.state),
            "status": (batch, self.status, {"meaning": "0 finished, 1 diverged, 2 stopped early"}),
            "n_done": (batch, self.n_done, {"units": "epochs"}),
            "seconds": (["made_epoch"], self.seconds, {"units": "s"}),
        }
        for name, values in self.snapshots.items():
            key = name.replace(" ", "_")
            inner = ["parameter"] if name == "weights" else [f"{key}_to", f"{key}_from"]
            variables[key] = ([*batch, "snapshot", *inner], values, weight)
        coordinates = {
            "epoch": ("epoch", self.epochs),
            "scope": ("scope", list(self.scopes)),
            "snapshot": ("snapshot", self.snapshot_epochs, {"units": "epochs"}),
        }
        return dataset(variables, coordinates, attrs=dict(self.settings))


_CURVES = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")


def train(
    system: TrainingMap,
    w0: ArrayLike,
    epochs: int,
    *,
    test: tuple[ArrayLike, ArrayLike] | None = None,
    record_every: int = 1,
    snapshots: Iterable[int] | None = None,
    layers: Iterable[int] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int | None = None,
    stop: Stop | None = None,
    threads: int | None = None,
    progress: bool = False,
) -> History:
    """Train runs for a number of epochs, and record what becomes of them.

    An epoch is as many steps as it takes to see all samples once, the last minibatch partial. The
    states are the bits of `system.trajectory` over all steps in one go.

    Parameters
    ----------
    system
        The training. Rates that are arrays make a batch, as everywhere.
    w0 : (..., n_params) or (..., n) array
        Initial weights or states, one run per row.
    epochs
        How many, from the start; with a checkpoint, those that it has count.
    test
        Inputs and targets that are not trained on, of the same kind.
    record_every
        Epochs between records; divides `epochs`. Each record takes another pass over the data for
        the loss, and one for the accuracy.
    snapshots
        Epochs after which weights are kept; 0 is the start.
    layers
        Layers whose matrices are kept, 0 for the one that leaves the inputs; whole weights by
        default.
    checkpoint
        A file that training goes on from if it is there, and is saved to: about every 30 seconds,
        at the end, and when interrupted (Ctrl-C). It is replaced in one move, so that it is whole
        even if the process is killed, and the result is to the bit that of training in one go. A
        file of another network, data, optimiser or start is refused, and so are other records; more
        epochs than it was begun with are fine. A schedule must agree on the steps that were made.
        Where the file cannot be written, on a full disk say, a warning tells once, the last whole
        file stays, and training goes on.
    checkpoint_every
        Epochs between two writings instead.
    stop
        Called at each record with the training losses so far (..., n), and returns for which runs
        (...) that is enough; they keep this state. A run whose loss is not finite always ends.
    threads
        For the steps, as in `lyapunov_spectrum`.
    progress
        Show epochs, loss and the time left on stderr.

    Returns
    -------
    History

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range, test data do not fit, a table of the schedule has fewer
        factors than there are steps, what is kept would not fit in memory, or the checkpoint cannot
        be written, is damaged or of another training; before training begins.
    """
    run = _Run(system, w0, epochs, test, record_every, snapshots, layers, threads)
    if stop is not None and not callable(stop):
        raise ArgumentTypeError("stop", f"must be callable, got {_checks.describe(stop)}")
    _checks.flag("progress", progress)
    if checkpoint_every is not None:
        checkpoint_every = _checks.integer("checkpoint_every", checkpoint_every, least=1)
        if checkpoint is None:
            raise ArgumentError("checkpoint_every", "needs a checkpoint, got checkpoint=None")
    keeper = None
    if checkpoint is not None:
        keeper = _Keeper(checkpoints.target(checkpoint), run, checkpoint_every)
    if keeper is None or not keeper.resumed:
        run.begin(stop)
    try:
        with ProgressBar(run.epochs, "train", progress, unit=" epochs", done=run.now.epoch) as bar:
            while run.now.epoch < run.epochs and (run.now.status == Status.FINISHED).any():
                run.advance(stop)
                if bar.shown:
                    bar.show(run.now.epoch, run.note())
                if keeper is not None:
                    keeper.save_if_due()
    finally:  # the last whole epoch, also when interrupted
        if keeper is not None:
            keeper.save(last=True)
    return run.history()


@dataclass(frozen=True)
class _Moment:
    """Runs after a whole number of epochs. A new one replaces the last in one assignment, so that
    an interruption finds one or the other."""

    epoch: int
    states: Floats  # (runs, n)
    status: Integers
    n_done: Integers

    def without(self, lost: Integers) -> _Moment:
        """Some have diverged in the last epoch."""
        states, status, n_done = self.states.copy(), self.status.copy(), self.n_done.copy()
        states[lost], status[lost], n_done[lost] = np.nan, Status.DIVERGED, max(self.epoch - 1, 0)
        return _Moment(self.epoch, states, status, n_done)

    def stopped(self, enough: Booleans) -> _Moment:
        status = np.where((self.status == Status.FINISHED) & enough, Status.STOPPED, self.status)
        return _Moment(self.epoch, self.states, status, self.n_done)


class _Run:
    """A training that is under way; runs are flat."""

    def __init__(
        self,
        system: TrainingMap,
        w0: ArrayLike,
        epochs: int,
        test: Any,
        record_every: int,
        snapshots: Any,
        layers: Any,
        threads: int | None,
    ) -> None:
        require_training(system)
        self.system, network = system, system.network
        self.epochs = _checks.integer("epochs", epochs, least=1)
        self.every = _checks.integer("record_every", record_every, least=1)
        if self.epochs % self.every:
            raise ArgumentError(
                "record_every", f"must divide epochs={self.epochs}, got {self.every}"
            )
        self.threads = None if threads is None else _checks.integer("threads", threads, least=1)
        self.steps = -(-len(system.X) // system._runs.batch_size)
        system.optimizer._require_factors(0, self.epochs * self.steps)
        self.test = None if test is None else _test_system(system, test)
        self.snapshot_epochs = _snapshot_epochs(snapshots, self.epochs)
        self.layers = _layers(network, layers, len(self.snapshot_epochs))
        flat, self.batch = system._runs.flat(w0, "w0", finite=True)
        runs = len(flat)
        kept = {
            name: (len(self.snapshot_epochs), *shape)
            for name, shape in self._kept_shapes().items()
            if len(self.snapshot_epochs)
        }
        scopes = len(network.layers)
        records = self.epochs // self.every + 1
        _checks.memory(
            f"records and snapshots of {runs} runs",
            8.0 * runs * ((4 + scopes) * records + sum(map(math.prod, kept.values())))
            + 8.0 * self.epochs,
            f"record less of epochs={self.epochs} with record_every=, or keep fewer snapshots",
        )
        _checks.memory("the states", 40.0 * runs * system.n, "take fewer runs")
        self.first = np.ascontiguousarray(flat[:, : network.n_params]).copy()
        self.curves = {
            name: np.full((runs, records), np.nan)
            for name in _CURVES
            if (network.classifies or "loss" in name) and (self.test is not None or "train" in name)
        }
        self.deviation = np.full((runs, scopes, records), np.nan)
        self.snapshots = {name: np.full((runs, *shape), np.nan) for name, shape in kept.items()}
        self.seconds = np.full(self.epochs, np.nan)
        zero = np.zeros(runs, np.int64)
        self.now = _Moment(0, flat.copy(), zero, zero)

    def begin(self, stop: Stop | None) -> None:
        self.now = self._record(self.now, stop)

    def advance(self, stop: Stop | None) -> None:
        """One epoch more, of the runs that are under way."""
        now, system = self.now, self.system
        alive = now.status == Status.FINISHED
        begun = time.perf_counter()
        if any(system._runs.rate_shapes):  # rates belong to places in the batch
            states = now.states.reshape((*self.batch, system.n))
        else:
            states = now.states if alive.all() else now.states[alive]
        path = system.trajectory(
            states, self.steps, every=self.steps, start=now.epoch * self.steps, threads=self.threads
        )
        after = path[..., 1, :].reshape(-1, system.n)
        if not alive.all():
            some = after[alive] if len(after) == len(alive) else after
            after = now.states.copy()
            after[alive] = some
        self.seconds[now.epoch] = time.perf_counter() - begun
        epoch = now.epoch + 1
        gone = alive & np.isnan(after[:, 0])  # of one that diverged all is nan
        n_done = np.where(alive & ~gone, epoch, now.n_done)
        status = np.where(gone, Status.DIVERGED, now.status)
        self.now = self._record(_Moment(epoch, after, status, n_done), stop)

    def _record(self, moment: _Moment, stop: Stop | None) -> _Moment:
        """What is due after an epoch; the moment, with runs that end at it."""
        system, network = self.system, self.system.network
        alive = np.flatnonzero(moment.status == Status.FINISHED)
        weights = np.ascontiguousarray(moment.states[alive, : network.n_params])
        r, due = divmod(moment.epoch, self.every)
        if due == 0 and len(alive):
            found = {"train_loss": system.loss(weights)}
            finite = np.isfinite(found["train_loss"])
            if not finite.all():
                moment = moment.without(alive[~finite])
                alive, weights = alive[finite], weights[finite]
                found["train_loss"] = found["train_loss"][finite]
            if self.test is not None:
                found["test_loss"] = self.test.loss(weights)
            for name, data in (("train_accuracy", system), ("test_accuracy", self.test)):
                if name in self.curves and data is not None:
                    found[name] = network._accuracy(
                        weights, data._runs.inputs, data.y, self.threads
                    )
            for name, values in found.items():
                self.curves[name][alive, r] = values
            self.deviation[alive, :, r] = rms_by_layer(network, self.first[alive], weights)
        for k in np.flatnonzero(self.snapshot_epochs == moment.epoch):
            for name, kept in self.snapshots.items():
                if name == "weights":
                    kept[alive, k] = weights
                else:
                    kept[alive, k] = network.unpack(weights)[int(name.split()[1])][0]
        if due == 0 and stop is not None and len(alive):
            enough = self._enough(stop, r)
            moment = moment.stopped(enough)
        return moment

    def _enough(self, stop: Stop, r: int) -> Booleans:
        """(runs,) what the rule says of the losses up to record r."""
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
        losses = self.curves["train_loss"][:, self.now.epoch // self.every]
        losses = losses[np.isfinite(losses)]
        return f"loss {np.median(losses):.4g}" if losses.size else ""

    def _kept_shapes(self) -> dict[str, tuple[int, ...]]:
        network = self.system.network
        if self.layers is None:
            return {"weights": (network.n_params,)}
        return {f"layer {i}": (network.layers[i + 1], network.layers[i]) for i in self.layers}

    # --- checkpoints ------------------------------------------------------------------------------

    def identity(self, path: Path | None = None) -> checkpoints.Identity:
        """What a checkpoint of this training (at `path`) belongs to, after so many epochs."""
        data = self.test
        test = {} if data is None else {"test X": data._runs.inputs, "test y": data.y}
        words: dict[str, Any] = {
            "w0": self.now.states.reshape((*self.batch, self.system.n)),
            **test,
            "record_every": self.every,
            "layers": "all" if self.layers is None else self.layers,
        }

        def after(epoch: int | None) -> dict[str, str]:
            if epoch is not None and epoch > self.epochs:
                raise self._too_few(path, epoch)
            return checkpoints.identity(self.system, self.steps, epoch, **words)

        return after

    def _too_few(self, path: Path | None, epoch: int) -> _Refused:
        return _Refused(
            "epochs",
            f"must be at least the {epoch} that checkpoint {str(path)!r} has, got {self.epochs}",
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that it takes to go on."""
        now = self.now
        records, kept = self._so_far(now.epoch)
        return {
            "epoch": np.array(now.epoch),
            "states": now.states,
            "status": now.status,
            "n_done": now.n_done,
            "seconds": self.seconds[: now.epoch],
            "snapshot_epochs": self.snapshot_epochs[:kept],
            "deviation": self.deviation[..., :records],
            **{name: values[:, :records] for name, values in self.curves.items()},
            **{f"kept {name}": values[:, :kept] for name, values in self.snapshots.items()},
        }

    def resume(self, path: Path, found: dict[str, NDArray[Any]]) -> None:
        """Take over what `arrays` gave."""
        try:
            epoch, given = int(_alike(found, "epoch", np.array(0))), found["snapshot_epochs"]
            if epoch < 0:
                raise ArgumentError("epoch", f"is {epoch}")
            if epoch > self.epochs:
                raise self._too_few(path, epoch)
            records, kept = self._so_far(epoch)
            if not np.array_equal(given, self.snapshot_epochs[:kept]):
                raise _Refused(
                    "snapshots",
                    f"must be those of checkpoint {str(path)!r} up to its epoch {epoch}, "
                    f"{given.tolist()}, got {self.snapshot_epochs[:kept].tolist()}",
                )
            parts = {
                "seconds": self.seconds[:epoch],
                "deviation": self.deviation[..., :records],
                **{name: values[:, :records] for name, values in self.curves.items()},
                **{f"kept {name}": places[:, :kept] for name, places in self.snapshots.items()},
            }
            now = self.now
            self.now = _Moment(
                epoch,
                _alike(found, "states", now.states),
                _alike(found, "status", now.status),
                _alike(found, "n_done", now.n_done),
            )
            for name, values in parts.items():
                values[...] = _alike(found, name, values)
        except _Refused:
            raise
        except (KeyError, ValueError, TypeError) as error:
            raise ArgumentError(
                "checkpoint",
                f"must be a whole file of ours, {str(path)!r} lacks something: {error}",
            ) from error

    def _so_far(self, epoch: int) -> tuple[int, int]:
        """How many records and snapshots there are after so many epochs."""
        return epoch // self.every + 1, int((self.snapshot_epochs <= epoch).sum())

    # --- the result -------------------------------------------------------------------------------

    def history(self) -> History:
        system, network, now = self.system, self.system.network, self.now

        def shaped(values: NDArray[Any]) -> Any:
            return values.reshape((*self.batch, *values.shape[1:]))

        states = now.states.copy()
        states[now.status == Status.DIVERGED] = np.nan
        curves: dict[str, Any] = dict.fromkeys(_CURVES)
        curves |= {name: shaped(values) for name, values in self.curves.items()}
        return History(
            epochs=np.arange(0, self.epochs + 1, self.every),
            **curves,
            scopes=("all weights", *(f"layer {i}" for i in range(len(network.layers) - 1))),
            deviation=shaped(self.deviation),
            snapshot_epochs=self.snapshot_epochs,
            snapshots={name: shaped(values) for name, values in self.snapshots.items()},
            w_initial=shaped(self.first),
            state=shaped(states),
            status=shaped(now.status.copy()),
            n_done=shaped(now.n_done.copy()),
            seconds=self.seconds,
            settings={
                "system": repr(system),
                "layers": network.layers,
                "samples": len(system.X),
                "test_samples": 0 if self.test is None else len(self.test.X),
                "epochs": self.epochs,
                "steps_per_epoch": self.steps,
                "record_every": self.every,
                "guess_loss": _guess_loss(system),
            },
        )


def _alike(found: dict[str, NDArray[Any]], name: str, expected: NDArray[Any]) -> NDArray[Any]:
    """An array of a checkpoint, which must be of this shape and type: none is broadcast."""
    values = found[name]
    if (values.shape, values.dtype) != (expected.shape, expected.dtype):
        raise ArgumentError(
            name, f"must be {_checks.describe(expected)}, got {_checks.describe(values)}"
        )
    return values


class _Refused(ArgumentError):
    """A checkpoint that is whole but not what was asked for."""


class _Keeper:
    """Saves a run, now and then."""

    def __init__(self, path: Path, run: _Run, every: int | None) -> None:
        self.path, self.run, self.every = path, run, every
        self.whose = run.identity(path)
        self.resumed = path.exists()
        if self.resumed:
            try:
                run.resume(path, checkpoints.load(path, self.whose))
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
        epoch, begun = self.run.now.epoch, time.monotonic()
        if epoch == self.saved:
            return
        try:
            checkpoints.save(self.path, self.run.arrays(), self.whose)
        except OSError as error:
            if not self.failing:
                old = f"; it stays that of epoch {self.saved}" if self.saved >= 0 else ""
                plan = "" if last else "; training goes on and will try again"
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


def _test_system(system: TrainingMap, test: Any) -> TrainingMap:
    both = _checks.sequence("test", test, "(X, y)")
    if len(both) != 2:
        raise ArgumentTypeError("test", f"must be (X, y), got {_checks.describe(test)}")
    X, y = both
    try:
        return TrainingMap(system.network, X, y, GradientDescent(), dtype=system.dtype)
    except (TypeError, ValueError) as error:
        kind = ArgumentTypeError if isinstance(error, TypeError) else ArgumentError
        raise kind("test", f"must be data for the same network: {error}") from None


def _snapshot_epochs(snapshots: Any, epochs: int) -> Integers:
    if snapshots is None:
        return np.empty(0, np.int64)
    chosen = set()
    for i, value in enumerate(_checks.sequence("snapshots", snapshots, "epochs")):
        epoch = _checks.integer(f"snapshots[{i}]", value)
        if not 0 <= epoch <= epochs:
            raise ArgumentError(
                f"snapshots[{i}]", f"must be in 0 ... {epochs}, got {epoch} for epochs={epochs}"
            )
        chosen.add(epoch)
    return np.array(sorted(chosen), np.int64)


def _layers(network: Network, layers: Any, n_snapshots: int) -> tuple[int, ...] | None:
    if layers is None:
        return None
    given = _checks.sequence("layers", layers, "indices of layers")
    if not n_snapshots:
        raise ArgumentError("layers", "needs epochs at which they are kept, got no snapshots")
    most = len(network.layers) - 2
    chosen = {
        _checks.integer(f"layers[{i}]", layer, least=0, most=most) for i, layer in enumerate(given)
    }
    if not chosen:
        raise ArgumentError("layers", "must have at least one layer, got none")
    return tuple(sorted(chosen))


def _guess_loss(system: TrainingMap) -> float:
    if system.network.classifies:
        return math.log(system.network.layers[-1])
    targets = system.y.reshape(len(system.y), -1)
    return 0.5 * float(targets.var(axis=0).sum())


def _latest(values: Floats) -> Floats:
    """The last finite of values (..., n)."""
    finite = np.isfinite(values)
    last = values.shape[-1] - 1 - np.argmax(finite[..., ::-1], axis=-1)
    result: Floats = np.take_along_axis(values, last[..., np.newaxis], axis=-1)[..., 0]
    return result
