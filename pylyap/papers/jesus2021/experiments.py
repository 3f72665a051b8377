"""The experiments. Their sizes are what two cores do in half an hour, not the published ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylyap import _checks, datasets
from pylyap._errors import ArgumentError
from pylyap._parameters import parameter_mask
from pylyap._weights.deviation import (
    JointHistogram,
    WeightDeviation,
    joint_histogram,
    weight_deviation,
)
from pylyap._weights.letters import apply_letter_mask, legibility, letter_mask
from pylyap._weights.trainability import Trainability, trainability
from pylyap._weights.training import History, train
from pylyap.maps import TrainingMap
from pylyap.network import Network
from pylyap.optimizers import GradientDescent

Floats = NDArray[np.float64]

LOGITS, CLIPPED = "cross_entropy", "cross_entropy_clipped"
CLIP = 1e-7
CEILING = float(-np.log(CLIP))  # of a sample's clipped loss

WIDTHS = (16, 32, 64, 128, 256, 512)
LEVELS = (0.1, 0.03, 0.01, 0.003, 0.001)  # losses at which widths are compared


@dataclass(frozen=True, eq=False)
class Task:
    """What all experiments share: images, and how networks learn them.

    Attributes
    ----------
    images, labels
        Bytes (N, pixels), or numbers from 0 to 1, and their classes. A fifth, drawn at random, is
        for test.
    widths
        Units of each of the two hidden layers.
    runs
        Initial weights per width.
    epochs, record_every
        Of training, and between its records.
    lr, batch_size
        Published: 0.1 and 128.
    dtype
        Precision of the steps.
    seed
        Of the split, initial weights and minibatches, which are the same for all runs.
    checkpoints
        A folder that training goes on from, and is saved to; made if it is not there.
    threads, progress
        As in `train`.
    """

    images: NDArray[Any]
    labels: NDArray[Any]
    widths: Sequence[int] = WIDTHS
    runs: int = 4
    epochs: int = 200
    record_every: int = 5
    lr: float = 0.1
    batch_size: int = 128
    dtype: str = "float32"
    seed: int = 0
    checkpoints: Path | None = None
    threads: int | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        if np.ndim(self.images) != 2:
            raise ArgumentError(
                "images", f"must have shape (N, pixels), got {np.shape(self.images)}"
            )
        widths = [_checks.integer(f"widths[{i}]", w, least=1) for i, w in enumerate(self.widths)]
        if not widths or (np.diff(widths) <= 0).any():
            raise ArgumentError("widths", f"must be whole numbers that increase, got {widths}")
        object.__setattr__(self, "seed", _checks.reusable_seed(self.seed))  # used more than once

    @cached_property
    def parts(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Images and labels to learn, and those to test."""
        n = len(self.images)
        return datasets.split(self.images, self.labels, n - n // 5, seed=self.seed)

    @property
    def steps(self) -> int:
        """Per epoch."""
        return -(-len(self.parts[0]) // self.batch_size)

    @property
    def classes(self) -> int:
        return int(self.labels.max()) + 1

    def network(self, width: int, loss: str) -> Network:
        layers = (self.images.shape[1], width, width, self.classes)
        return Network(layers, activation="relu", loss=loss)

    def start(self, width: int, runs: int) -> Floats:
        """(runs, n_params) Glorot uniform, biases 0; the same for both losses."""
        return self.network(width, LOGITS).init("glorot_uniform", runs=runs, seed=self.seed)

    def system(
        self,
        width: int,
        loss: str,
        lr: Any = None,
        *,
        inverted: bool = False,
        dtype: str | None = None,
    ) -> TrainingMap:
        """Training at this rate, or these (..., 1) beside the runs; black and white exchanged."""
        X, y, _, _ = self.parts
        descent = GradientDescent(
            lr=self.lr if lr is None else lr,
            batch_size=min(self.batch_size, len(X)),
            seed=self.seed,
        )
        images = samples(inverse(X) if inverted else X)
        precision: Any = dtype or self.dtype
        return TrainingMap(self.network(width, loss), images, y, descent, dtype=precision)

    def train(
        self, name: str, system: TrainingMap, start: Floats, epochs: int, **options: Any
    ) -> History:
        """A history with a checkpoint of this name."""
        if self.checkpoints is not None:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            options["checkpoint"] = self.checkpoints / f"{name}.npz"
        return train(system, start, epochs, threads=self.threads, progress=self.progress, **options)


def samples(images: NDArray[Any]) -> NDArray[Any]:
    """Images (N, pixels) as `TrainingMap` takes them: bytes with an axis more."""
    return images[:, :, np.newaxis] if images.dtype == np.uint8 else images


def inverse(images: NDArray[Any]) -> NDArray[Any]:
    """Black for white and white for black."""
    white: Any = 255 if images.dtype == np.uint8 else 1.0
    result: NDArray[Any] = white - images
    return result


@dataclass(frozen=True, eq=False)
class Widths:
    """Networks of each width, trained with one loss.

    Attributes
    ----------
    task
        Images and sizes.
    loss
        Name of the loss.
    histories
        One for each width, of batch (runs,).
    """

    task: Task
    loss: str
    histories: Sequence[History] = field(repr=False)

    @cached_property
    def found(self) -> Trainability:
        """Epochs of least losses and of divergence, and phases."""
        return trainability(self.histories, widths=np.array(self.task.widths, float))

    @cached_property
    def start(self) -> Floats:
        """(n_widths,) rms of the initial weights, without biases."""
        result = []
        for width, history in zip(self.task.widths, self.histories, strict=True):
            chosen = parameter_mask(self.task.network(width, self.loss), "weights")
            result.append(np.sqrt(np.mean(history.w_initial[..., chosen] ** 2)))
        return np.array(result)

    def deviation(self, i: int, bins: int = 40) -> WeightDeviation:
        """Of the last weights of width i, all runs as one sample."""
        history = self.histories[i]
        network = self.task.network(self.task.widths[i], self.loss)
        return weight_deviation(history.w_initial, history.w_final, network, bins=bins, pool=True)

    def joint(self, i: int) -> JointHistogram:
        """Initial and last weights between the hidden layers of width i, all runs."""
        history = self.histories[i]
        network = self.task.network(self.task.widths[i], self.loss)
        return joint_histogram(history.w_initial, history.w_final, network, layer=1)

    def deviation_at(self, level: float) -> Floats:
        """(n_widths, runs) rms deviation of all weights when the training loss first comes down to
        `level`, interpolated between records in the logarithm of the loss; nan where it does not.
        """
        loss, moved = self.found.train_loss, self.found.deviation
        result = np.full(loss.shape[:2], np.nan)
        for at in np.ndindex(result.shape):
            below = np.flatnonzero(loss[at] <= level)
            if below.size and below[0] > 0:
                j = below[0]
                before, after = np.log(loss[at][j - 1 : j + 1])
                part = (before - np.log(level)) / (before - after)
                result[at] = moved[at][j - 1] + part * (moved[at][j] - moved[at][j - 1])
        return result


@dataclass(frozen=True, eq=False)
class Precision:
    """The same training in single and in double precision.

    Attributes
    ----------
    width
        Of the networks.
    single, double
        Histories of batch (runs,).
    """

    width: int
    single: History = field(repr=False)
    double: History = field(repr=False)


@dataclass(frozen=True, eq=False)
class Letter:
    """One run whose weights between the hidden layers had a letter printed into them.

    Attributes
    ----------
    width, lr
        Of the network and its training.
    mask : (width, width)
        Where there is ink.
    epochs : (n_snapshots,)
        When the weights were looked at.
    matrices : (n_snapshots, width, width)
        Weights between the hidden layers.
    legibility : (n_snapshots,)
        1 is legible, 1/2 gone.
    loss : (n_snapshots,)
        Training loss.
    """

    width: int
    lr: float
    mask: NDArray[np.bool_] = field(repr=False)
    epochs: NDArray[np.int64] = field(repr=False)
    matrices: Floats = field(repr=False)
    legibility: Floats = field(repr=False)
    loss: Floats = field(repr=False)


@dataclass(frozen=True, eq=False)
class Rates:
    """Networks of one width at several learning rates, trained with both losses.

    Attributes
    ----------
    task
        Images and sizes.
    width
        Of the networks.
    inverted
        Whether black and white were exchanged.
    lrs : (n_rates,)
        Learning rates.
    histories
        Of batch (n_rates, runs), by the name of the loss.
    square
        Mean squared length of an image.
    """

    task: Task
    width: int
    inverted: bool
    lrs: Floats
    histories: dict[str, History] = field(repr=False)
    square: float

    def system(self, loss: str, lr: Any) -> TrainingMap:
        return self.task.system(self.width, loss, lr, inverted=self.inverted)

    def found(self, loss: str) -> Trainability:
        return trainability(self.histories[loss], widths=self.lrs)

    @property
    def frozen(self) -> NDArray[np.bool_]:
        """(n_rates, runs) whose clipped loss is above half its ceiling in the end."""
        last: NDArray[np.bool_] = self.histories[CLIPPED].train_loss[..., -1] > 0.5 * CEILING
        return last


@dataclass(frozen=True, eq=False)
class Plateau:
    """How a run with the clipped loss came to rest, step by step, and what it takes to leave.

    Attributes
    ----------
    lr, run, epoch
        Which one, and the epoch at whose end its loss is on the plateau.
    step : (n,)
        Optimiser steps from the start.
    loss, logits_loss : (n,)
        Of all training images, clipped and not.
    lost : (n,)
        Share of images whose class has a probability below the clip.
    sure : (n,)
        Share of those whose class has one above 1 − clip.
    gradient : (n,)
        Length of the gradient of the clipped loss, over all images.
    moved
        Largest change of a weight over the rest of the training.
    later
        Clipped loss of each epoch when training goes on from the end, by the name of the loss that
        it goes on with.
    """

    lr: float
    run: int
    epoch: int
    step: NDArray[np.int64] = field(repr=False)
    loss: Floats = field(repr=False)
    logits_loss: Floats = field(repr=False)
    lost: Floats = field(repr=False)
    sure: Floats = field(repr=False)
    gradient: Floats = field(repr=False)
    moved: float
    later: dict[str, Floats] = field(repr=False)


def logits(task: Task) -> Widths:
    """Networks of all widths, with the loss of the logits."""
    return _widths(task, LOGITS)


def clipped(task: Task) -> Widths:
    """The same with probabilities clipped."""
    return _widths(task, CLIPPED)


def _widths(task: Task, loss: str) -> Widths:
    histories = [_train_width(task, loss, width, task.dtype) for width in task.widths]
    return Widths(task, loss, histories)


def _train_width(task: Task, loss: str, width: int, dtype: str) -> History:
    return task.train(
        f"{loss}-{width}-{dtype}",
        task.system(width, loss, dtype=dtype),
        task.start(width, task.runs),
        task.epochs,
        record_every=task.record_every,
        test=(samples(task.parts[2]), task.parts[3]),
    )


def precision(clipped: Widths, task: Task) -> Precision:
    """Networks of a middle width, in the other precision too."""
    i = (len(task.widths) - 1) // 2
    width = task.widths[i]
    other = "float64" if task.dtype == "float32" else "float32"
    again = _train_width(task, CLIPPED, width, other)
    both = {task.dtype: clipped.histories[i], other: again}
    return Precision(width, both["float32"], both["float64"])


def letters(
    task: Task, *, cases: Sequence[tuple[int, float | None]] = ((32, None), (512, None), (256, 1.5))
) -> list[Letter]:
    """A letter in the weights between the hidden layers, for widths and rates (None: the task's),
    with the clipped loss."""
    return [_letter(task, width, task.lr if lr is None else lr) for width, lr in cases]


def _letter(task: Task, width: int, lr: float) -> Letter:
    network = task.network(width, CLIPPED)
    mask = letter_mask((width, width), "a")
    start = apply_letter_mask(network, task.start(width, 1)[0], mask)
    looks = np.unique(np.geomspace(1, task.epochs, 13).round().astype(int))
    history = task.train(
        f"letter-{width}-{lr:g}",
        task.system(width, CLIPPED, lr),
        start,
        task.epochs,
        snapshots=[0, *looks.tolist()],
        layers=[1],
    )
    matrices = history.snapshots["layer 1"]
    return Letter(
        width=width,
        lr=lr,
        mask=mask,
        epochs=history.snapshot_epochs,
        matrices=matrices,
        legibility=legibility(matrices, mask),
        loss=history.train_loss[history.snapshot_epochs],
    )


def rates(
    task: Task,
    *,
    width: int = 256,
    lrs: Sequence[float] = (0.4, 0.8, 1.0, 1.2, 1.5, 2.0),
    runs: int = 3,
    epochs: int = 16,
) -> Rates:
    """Larger learning rates, where training is lost."""
    return _rates(task, "rates", False, width, lrs, runs, epochs)


def inverted_rates(
    task: Task,
    *,
    width: int = 256,
    lrs: Sequence[float] = (0.05, 0.1, 0.15, 0.2, 0.3),
    runs: int = 3,
    epochs: int = 16,
) -> Rates:
    """The same where black and white are exchanged."""
    return _rates(task, "inverted", True, width, lrs, runs, epochs)


def _rates(
    task: Task,
    name: str,
    inverted: bool,
    width: int,
    lrs: Sequence[float],
    runs: int,
    epochs: int,
) -> Rates:
    lr = np.array(lrs)
    start = task.start(width, runs)
    histories = {}
    for loss in (LOGITS, CLIPPED):
        system = task.system(width, loss, lr[:, np.newaxis], inverted=inverted)
        every = np.broadcast_to(start, (len(lr), *start.shape))
        histories[loss] = task.train(f"{name}-{loss}", system, every, epochs)
    images = inverse(task.parts[0]) if inverted else task.parts[0]
    white = 255.0 if images.dtype == np.uint8 else 1.0
    square = float(np.mean(np.sum((images / white) ** 2, axis=1)))
    return Rates(task, width, inverted, lr, histories, square)


def plateau(rates: Rates, task: Task, *, later: int = 10) -> Plateau | None:
    """The first run whose clipped loss came to rest, in the order of the rates; None if none did.

    Training then goes on for some epochs, with either loss.
    """
    if not rates.frozen.any():
        return None
    i, run = (int(index) for index in np.argwhere(rates.frozen)[0])
    lr = float(rates.lrs[i])
    history = rates.histories[CLIPPED]
    system = rates.system(CLIPPED, lr)
    epoch = int(np.flatnonzero(history.train_loss[i, run] < 0.5 * CEILING)[-1]) + 1
    steps = task.steps
    first = (epoch - 1) * steps
    begun = system.trajectory(history.w_initial[i, run], first, every=max(first, 1))[-1]
    path = system.trajectory(begun, steps, start=first)
    p = np.stack(
        [system.network.predict(w, system.X)[np.arange(len(system.y)), system.y] for w in path]
    )
    final = history.w_final[i, run]
    after = history.settings["epochs"] * steps
    return Plateau(
        lr=lr,
        run=run,
        epoch=epoch,
        step=first + np.arange(steps + 1),
        loss=system.loss(path),
        logits_loss=rates.system(LOGITS, lr).loss(path),
        lost=(p < CLIP).mean(axis=1),
        sure=(p > 1.0 - CLIP).mean(axis=1),
        gradient=np.linalg.norm(system.gradient(path), axis=1),
        moved=float(np.abs(final - path[-1]).max()),
        later={
            loss: system.loss(
                rates.system(loss, lr).trajectory(final, later * steps, every=steps, start=after)
            )
            for loss in (LOGITS, CLIPPED)
        },
    )
