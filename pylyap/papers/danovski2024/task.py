"""Data and network that all experiments share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pylyap import _checks, datasets
from pylyap._parameters import parameter_mask
from pylyap.maps import TrainingMap
from pylyap.network import Network
from pylyap.optimizers import GradientDescent

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# The first seed that gives 40, 39 and 41 training samples of the three species, as in the study.
SPLIT_SEED = 2
N_TRAIN = 120

SIZES = tuple(float(f"1e{power}") for power in range(-15, -1))
EDGE_SIZES = tuple(float(f"1e{power}") for power in range(-14, 0))


@dataclass(frozen=True)
class Task:
    """Data, network and seeds that all experiments share.

    Parameters
    ----------
    split_seed : int, default 2
        Seed of the choice of the 120 training samples, an assumption: the published choice is
        unknown.
    seed : int, default 0
        Seed of initial weights, perturbations and all other random numbers. Run i starts from the
        same weights in all experiments.
    threads : int, optional
        Number of threads; all cores by default.
    progress : bool, default False
        Show a progress bar.
    """

    split_seed: int = SPLIT_SEED
    seed: int = 0
    threads: int | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        for name in ("split_seed", "seed"):  # used more than once
            object.__setattr__(self, name, _checks.reusable_seed(getattr(self, name), name))

    @cached_property
    def flowers(self) -> tuple[Floats, Integers, Floats, Integers]:
        """Features and species of the 120 training samples and of the 30 test samples."""
        return datasets.split(*datasets.iris(), N_TRAIN, seed=self.split_seed)

    @cached_property
    def network(self) -> Network:
        """The 4-10-3 network of the study."""
        return Network((4, 10, 3), activation="sigmoid", loss="cross_entropy")

    @cached_property
    def weights(self) -> NDArray[np.bool_]:
        """Mask (83,) of the N = 70 weights; the other parameters are biases."""
        return parameter_mask(self.network, "weights")

    @property
    def n_weights(self) -> int:
        """Number N of weights."""
        return int(self.weights.sum())

    def system(self, lr: float) -> TrainingMap:
        """Training map of gradient descent at a learning rate."""
        X, y, _, _ = self.flowers
        return TrainingMap(self.network, X, y, GradientDescent(lr=lr))

    def start(self, runs: int) -> Floats:
        """Initial parameters (runs, 83): weights from N(0, 1), biases 0."""
        return self.network.init("normal", runs=runs, seed=self.seed)


PUBLISHED = Task()
