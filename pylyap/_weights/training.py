"""Training by epochs, with records, snapshots and checkpoints."""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._errors import ArgumentError, ArgumentTypeError
from pylyap._parallel import ProgressBar
from pylyap._weights import checkpoints
from pylyap._weights.checkpoint_writer import CheckpointWriter
from pylyap._weights.history import History
from pylyap._weights.run import Stop, TrainingRun, TrainingSettings
from pylyap.maps import TrainingMap, require_training
from pylyap.network import Network
from pylyap.optimizers import GradientDescent

__all__ = ["History", "train"]

Integers = NDArray[np.int64]


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
    """Train runs for a number of epochs and record losses, accuracies and deviations.

    An epoch is the number of steps in which all samples are used once; the last minibatch may be
    partial. The states are identical to those of `TrainingMap.trajectory` over all steps.

    Parameters
    ----------
    system : TrainingMap
        The training. Rates that are arrays broadcast against the batch.
    w0 : array_like, shape (..., n_params) or (..., n)
        Finite initial weights or states, one run per row.
    epochs : int
        Number of epochs from the start, those of a checkpoint included.
    test : tuple of array_like, optional
        Inputs and targets of the test data, of the same kind as the training data.
    record_every : int, default 1
        Epochs between records; divides `epochs`. Each record takes one more pass over the data for
        the loss, and one for the accuracy.
    snapshots : iterable of int, optional
        Epochs after which weights are kept; 0 is the start.
    layers : iterable of int, optional
        Layers whose matrices are kept, 0 for the layer after the inputs; all weights by default.
    checkpoint : path_like, optional
        A file from which training resumes if it exists, and to which it is saved: about every 30
        seconds, at the end, and on interruption (Ctrl-C). Writes are atomic: after a kill the file
        is a complete checkpoint, from which the resumed result is bitwise identical. A checkpoint
        of another network, data set, optimiser, initial state or set of records is refused; more
        epochs than at its start are allowed, and a schedule must agree on the steps already made.
        If the file cannot be written (a full disk, for example), a warning is issued once, the last
        complete file remains, and training continues.
    checkpoint_every : int, optional
        Epochs between two checkpoints, instead of 30 seconds.
    stop : callable, optional
        Called at each record with the training losses so far (..., n_records); returns True for the
        runs (...) to stop, which keep their state. A run with a non-finite loss always ends.
    threads : int, optional
        Number of threads for the steps, at most (and by default) all cores available to the
        process.
    progress : bool, default False
        Whether to show epochs, loss and remaining time on stderr.

    Returns
    -------
    History
        Records of all runs, their snapshots and last states.

    Raises
    ------
    ArgumentError
        If an argument is out of range or has the wrong type, test data do not match, a table of the
        schedule has fewer factors than there are steps, or the checkpoint cannot be written, is
        damaged or belongs to another training. Raised before training begins.
    ValueError
        If records and snapshots would not fit in memory.

    References
    ----------
    Jesus, Antunes, da Costa, Dorogovtsev, Mendes, Aguiar, Mathematics 9, 2246 (2021).

    Examples
    --------
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent(lr=0.1))
    >>> history = pl.train(system, net.init("normal", runs=2), 10, record_every=5, snapshots=[10])
    >>> history.train_loss.shape, history.snapshots["weights"].shape
    ((2, 3), (2, 1, 13))
    >>> bool((history.train_loss[:, -1] < history.train_loss[:, 0]).all())
    True
    """
    require_training(system, "whose batches, data and network it uses")
    epochs = _checks.integer("epochs", epochs, least=1)
    snapshot_epochs = _snapshot_epochs(snapshots, epochs)
    settings = TrainingSettings(
        system=system,
        epochs=epochs,
        every=_checks.integer("record_every", record_every, least=1),
        test=None if test is None else _test_system(system, test),
        snapshot_epochs=snapshot_epochs,
        layers=_layers(system.network, layers, len(snapshot_epochs)),
        threads=None if threads is None else _checks.integer("threads", threads, least=1),
    )
    system.optimizer._require_factors(0, epochs * settings.steps)
    if stop is not None and not callable(stop):
        raise ArgumentTypeError("stop", f"must be callable, got {_checks.describe(stop)}")
    _checks.flag("progress", progress)
    if checkpoint_every is not None:
        checkpoint_every = _checks.integer("checkpoint_every", checkpoint_every, least=1)
        if checkpoint is None:
            raise ArgumentError("checkpoint_every", "needs a checkpoint, got checkpoint=None")
    run = TrainingRun(settings, w0)
    writer = None
    if checkpoint is not None:
        writer = CheckpointWriter(checkpoints.target(checkpoint), run, checkpoint_every)
    if writer is None or not writer.resumed:
        run.begin(stop)
    try:
        with ProgressBar(epochs, "train", progress, unit=" epochs", done=run.now.epoch) as bar:
            while not run.finished:
                run.advance(stop)
                if bar.shown:
                    bar.show(run.now.epoch, run.note())
                if writer is not None:
                    writer.save_if_due()
    finally:  # the last complete epoch, also on interruption
        if writer is not None:
            writer.save(last=True)
    return run.history()


def _test_system(system: TrainingMap, test: tuple[ArrayLike, ArrayLike]) -> TrainingMap:
    both = _checks.sequence("test", test, "(X, y)")
    if len(both) != 2:
        raise ArgumentTypeError("test", f"must be (X, y), got {_checks.describe(test)}")
    X, y = both
    try:
        return TrainingMap(system.network, X, y, GradientDescent(), dtype=system.dtype)
    except (TypeError, ValueError) as error:
        kind = ArgumentTypeError if isinstance(error, TypeError) else ArgumentError
        raise kind("test", f"must be data for the same network: {error}") from None


def _snapshot_epochs(snapshots: Iterable[int] | None, epochs: int) -> Integers:
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


def _layers(
    network: Network, layers: Iterable[int] | None, n_snapshots: int
) -> tuple[int, ...] | None:
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
