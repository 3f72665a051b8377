"""Images and training settings that all experiments share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylyap import _checks, datasets
from pylyap._errors import ArgumentError
from pylyap._weights.training import History, train
from pylyap.maps import TrainingMap
from pylyap.network import Network
from pylyap.optimizers import GradientDescent

Floats = NDArray[np.float64]

LOGITS, CLIPPED = "cross_entropy", "cross_entropy_clipped"
CLIP = 1e-7
CEILING = float(-np.log(CLIP))  # maximum of the clipped loss of a sample

WIDTHS = (16, 32, 64, 128, 256, 512)
LEVELS = (0.1, 0.03, 0.01, 0.003, 0.001)  # losses at which widths are compared


@dataclass(frozen=True, eq=False)
class Task:
    """Images and training settings that all experiments share.

    Parameters
    ----------
    images : ndarray of uint8 or float64, shape (N, pixels)
        Images; floating-point values from 0 to 1. A random fifth of them are test images.
    labels : ndarray of int, shape (N,)
        Classes.
    widths : sequence of int
        Numbers of units of each of the two hidden layers, increasing.
    runs : int, default 4
        Number of runs, with different initial weights, per width.
    epochs : int, default 200
        Number of epochs.
    record_every : int, default 5
        Number of epochs between records.
    lr : float, default 0.1
        Learning rate, as published.
    batch_size : int, default 128
        Minibatch size, as published.
    dtype : {"float32", "float64"}, default "float32"
        Precision of the training steps.
    seed : int, default 0
        Seed of the split, the initial weights and the minibatches, which are the same for all runs.
    checkpoints : Path, optional
        Folder of checkpoints, from which training is resumed; created if it does not exist.
    threads : int, optional
        Number of threads; all cores by default.
    progress : bool, default False
        Show a progress bar.

    Raises
    ------
    ArgumentError
        If `images` is not two-dimensional, or `widths` do not increase.
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
        """Training images and labels, and test images and labels."""
        n = len(self.images)
        return datasets.split(self.images, self.labels, n - n // 5, seed=self.seed)

    @property
    def steps(self) -> int:
        """Number of steps per epoch."""
        return -(-len(self.parts[0]) // self.batch_size)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.labels.max()) + 1

    def network(self, width: int, loss: str) -> Network:
        """Network with two hidden layers of this width."""
        layers = (self.images.shape[1], width, width, self.classes)
        return Network(layers, activation="relu", loss=loss)

    def start(self, width: int, runs: int) -> Floats:
        """Initial weights (runs, n_params): Glorot uniform, biases 0, the same for both losses."""
        return self.network(width, LOGITS).init("glorot_uniform", runs=runs, seed=self.seed)

    def system(
        self,
        width: int,
        loss: str,
        lr: float | Floats | None = None,
        *,
        inverted: bool = False,
        dtype: str | None = None,
    ) -> TrainingMap:
        """Training map at this learning rate, default `lr` of the task.

        Several rates have shape (..., 1), so that they broadcast against the runs. `inverted`
        exchanges black and white.
        """
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
        """Train, with a checkpoint of this name."""
        if self.checkpoints is not None:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            options["checkpoint"] = self.checkpoints / f"{name}.npz"
        return train(system, start, epochs, threads=self.threads, progress=self.progress, **options)


def samples(images: NDArray[Any]) -> NDArray[Any]:
    """Add the axis that `TrainingMap` expects of uint8 images.

    Parameters
    ----------
    images : ndarray, shape (N, pixels)
        Images.

    Returns
    -------
    ndarray
        uint8 images of shape (N, pixels, 1); float64 images as they are.
    """
    return images[:, :, np.newaxis] if images.dtype == np.uint8 else images


def inverse(images: NDArray[Any]) -> NDArray[Any]:
    """Exchange black and white.

    Parameters
    ----------
    images : ndarray of uint8 or float64
        Images; floating-point values from 0 to 1.

    Returns
    -------
    ndarray
        Inverted images of the same type.
    """
    white: Any = 255 if images.dtype == np.uint8 else 1.0
    result: NDArray[Any] = white - images
    return result
