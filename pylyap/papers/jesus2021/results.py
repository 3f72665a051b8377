"""Results of the experiments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pylyap._parameters import parameter_mask
from pylyap._weights.deviation import (
    JointHistogram,
    WeightDeviation,
    joint_histogram,
    weight_deviation,
)
from pylyap._weights.trainability import Trainability, trainability
from pylyap._weights.training import History
from pylyap.maps import TrainingMap
from pylyap.papers.jesus2021.task import CEILING, CLIPPED, Floats, Task


@dataclass(frozen=True, eq=False)
class Widths:
    """Results of training networks of each width with one loss.

    Attributes
    ----------
    task : Task
        Images and training settings.
    loss : str
        Name of the loss.
    histories : sequence of History
        Training histories of batch shape (runs,), one for each width.
    """

    task: Task
    loss: str
    histories: Sequence[History] = field(repr=False)

    @cached_property
    def found(self) -> Trainability:
        """Epochs of minimum loss and of divergence, and phases."""
        return trainability(self.histories, widths=np.array(self.task.widths, float))

    @cached_property
    def start(self) -> Floats:
        """Rms (n_widths,) of the initial weights, without biases."""
        result = []
        for width, history in zip(self.task.widths, self.histories, strict=True):
            chosen = parameter_mask(self.task.network(width, self.loss), "weights")
            result.append(np.sqrt(np.mean(history.w_initial[..., chosen] ** 2)))
        return np.array(result)

    def deviation(self, i: int, bins: int = 40) -> WeightDeviation:
        """Deviation of the final weights at width i, all runs pooled."""
        history = self.histories[i]
        network = self.task.network(self.task.widths[i], self.loss)
        return weight_deviation(history.w_initial, history.w_final, network, bins=bins, pool=True)

    def joint(self, i: int) -> JointHistogram:
        """Joint histogram of initial and final weights between the hidden layers at width i."""
        history = self.histories[i]
        network = self.task.network(self.task.widths[i], self.loss)
        return joint_histogram(history.w_initial, history.w_final, network, layer=1)

    def deviation_at(self, level: float) -> Floats:
        """Rms deviation (n_widths, runs) where the training loss first falls to `level`.

        Interpolated between records in the logarithm of the loss; nan where it stays above.
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
    """Results of the same training in single and in double precision.

    Attributes
    ----------
    width : int
        Width of the networks.
    single, double : History
        Training histories of batch shape (runs,).
    """

    width: int
    single: History = field(repr=False)
    double: History = field(repr=False)


@dataclass(frozen=True, eq=False)
class Letter:
    """A run with a letter imprinted on the initial weights between the hidden layers.

    Attributes
    ----------
    width : int
        Width of the network.
    lr : float
        Learning rate.
    mask : ndarray of bool, shape (width, width)
        Mask of the letter.
    epochs : ndarray, shape (n_snapshots,)
        Epochs of the snapshots.
    matrices : ndarray, shape (n_snapshots, width, width)
        Weights between the hidden layers.
    legibility : ndarray, shape (n_snapshots,)
        1 for a legible letter, 1/2 if it cannot be distinguished.
    loss : ndarray, shape (n_snapshots,)
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
    """Results of training networks of one width at several learning rates with both losses.

    Attributes
    ----------
    task : Task
        Images and training settings.
    width : int
        Width of the networks.
    inverted : bool
        Whether black and white were exchanged.
    lrs : ndarray, shape (n_rates,)
        Learning rates.
    histories : dict of History
        Training histories of batch shape (n_rates, runs), by the name of the loss.
    square : float
        Mean squared norm of an image.
    """

    task: Task
    width: int
    inverted: bool
    lrs: Floats
    histories: dict[str, History] = field(repr=False)
    square: float

    def system(self, loss: str, lr: float) -> TrainingMap:
        """Training map at a learning rate."""
        return self.task.system(self.width, loss, lr, inverted=self.inverted)

    def found(self, loss: str) -> Trainability:
        """Epochs of minimum loss and of divergence, and phases, against the learning rate."""
        return trainability(self.histories[loss], widths=self.lrs)

    @property
    def frozen(self) -> NDArray[np.bool_]:
        """Mask (n_rates, runs) of runs whose final clipped loss exceeds half of its maximum."""
        last: NDArray[np.bool_] = self.histories[CLIPPED].train_loss[..., -1] > 0.5 * CEILING
        return last


@dataclass(frozen=True, eq=False)
class Plateau:
    """Approach of a run with the clipped loss to a plateau, step by step, and continued training.

    Attributes
    ----------
    lr : float
        Learning rate.
    run : int
        Index of the run.
    epoch : int
        Epoch at whose end the loss is on the plateau.
    step : ndarray, shape (n,)
        Optimiser steps from the start.
    loss, logits_loss : ndarray, shape (n,)
        Clipped and unclipped loss of all training images.
    lost : ndarray, shape (n,)
        Fraction of images whose class has a probability below the clip.
    sure : ndarray, shape (n,)
        Fraction of images whose class has a probability above 1 − clip.
    gradient : ndarray, shape (n,)
        Norm of the gradient of the clipped loss of all training images.
    moved : float
        Largest change of a weight in the rest of the training.
    later : dict of ndarray
        Clipped loss after each additional epoch, by the name of the loss that continues training.
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
