"""Images, network and optimisers of the study."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylyap import _checks, datasets

Floats = NDArray[np.float64]

ASSUMED = (
    "Assumed: scikit-learn's 8x8 digits instead of CIFAR-10, 500 of them, pixels less their means; "
    "64-32-10 with tanh; Glorot uniform weights, biases 0; the learning rates"
)


@dataclass(frozen=True)
class Optimiser:
    """An optimiser with its learning rates.

    Attributes
    ----------
    key, name : str
        Name of files, and name in words.
    settings : dict
        Table ``optimizer`` of a study, without the learning rate.
    lrs : tuple of float
        Learning rates: one below, and two for which the sharpness reaches the threshold early.
    threshold : str
        The threshold as a formula, η the learning rate.
    """

    key: str
    name: str
    settings: dict[str, Any] = field(repr=False)
    lrs: tuple[float, ...]
    threshold: str


_MOMENTUM = 0.9

OPTIMISERS = {
    found.key: found
    for found in (
        Optimiser("descent", "gradient descent", {}, (0.2, 0.4, 0.5), "2/η"),
        Optimiser(
            "heavy-ball", "heavy ball, β = 0.9", {"momentum": _MOMENTUM}, (0.2, 0.6, 0.8),
            "2(1 + β)/η",
        ),
        Optimiser(
            "nesterov", "Nesterov's momentum, β = 0.9", {"momentum": _MOMENTUM, "nesterov": True},
            (0.1, 0.2, 0.3), "2(1 + β)/(η(1 + 2β))",
        ),
        Optimiser(
            "adam", "Adam, β₁ = 0.9, β₂ = 0.999", {"name": "adam"}, (0.001, 0.01, 0.02), "38/η"
        ),
    )
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Task:
    """Images and training settings that all experiments share.

    Parameters
    ----------
    folder : path-like
        Folder of the stored results, made when it is first needed. Experiments continue from there.
    samples : int, default 500
        Number of training images.
    width : int, default 32
        Number of hidden units.
    seed : int, default 0
        Seed of the choice of the images and of the initial weights, which are the same for all
        optimisers and learning rates.
    threads : int, optional
        Number of workers; all cores by default.
    progress : bool, default False
        Show a progress bar.

    Raises
    ------
    ArgumentError
        If a number is out of range.
    """

    folder: Path
    samples: int = 500
    width: int = 32
    seed: int = 0
    threads: int | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", _checks.path("folder", self.folder))
        _checks.integer("samples", self.samples, least=10, most=1796)
        _checks.integer("width", self.width, least=1)
        _checks.integer("seed", self.seed, least=0)

    @cached_property
    def images(self) -> tuple[Floats, Floats]:
        """Inputs (samples, 64) of mean 0, and targets (samples, 10): 1 for the digit, else 0."""
        X, y, _, _ = datasets.split(*datasets.digits(), self.samples, seed=self.seed)
        return X - X.mean(axis=0), np.eye(10)[y]
