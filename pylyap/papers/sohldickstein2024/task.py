"""Network, data and conditions that all experiments share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np

from pylyap._checks import Floats
from pylyap._discrete_map import DiscreteMap
from pylyap.maps import TrainingMap
from pylyap.network import Network
from pylyap.optimizers import GradientDescent

Region = tuple[tuple[float, float], tuple[float, float]]  # of the settings x and y

WIDTH = 16
RATES = (1e-3, 1e6)  # of each layer, the range of the notebook
STEPS = 500


@dataclass(frozen=True)
class Condition:
    """A published experiment.

    Attributes
    ----------
    activation : str
        Activation of the hidden layer.
    samples : int
        Number of samples.
    dimension : float
        Published fractal dimension: the median of slopes between successive box sizes, over images
        of a sequence of zooms (table 1, from secondary sources).
    batch_size : int, optional
        Samples per step; all by default.
    region : tuple, optional
        Ranges of both rates from which its zooms begin; the published range by default. Of one
        sample the border is smooth except in a narrow part, which was found by a scan along it.
    """

    activation: str
    samples: int
    dimension: float
    batch_size: int | None = None
    region: Region = (RATES, RATES)


# Known: activations, sample numbers and batches (notebook). Dimensions: table 1 as cited by
# secondary sources. The published minibatches are drawn with replacement, ours without.
CONDITIONS = {
    "tanh": Condition("tanh", 272, 1.66),
    "ReLU": Condition("relu", 272, 1.20),
    "linear": Condition("identity", 16, 1.17),
    "minibatch": Condition("tanh", 272, 1.55, batch_size=16),
    "one sample": Condition("tanh", 1, 1.41, region=((135.0, 190.0), (13.8, 19.1))),
}


# The experiments with an offset of the first layer's weights, and whether it is added before every
# step. The paper describes an offset of the initial weights; its notebook adds it at each step.
OFFSETS = {"offset": False, "offset at every step": True}
OFFSET_DIMENSION = 1.98  # published, table 1 from secondary sources


@cache
def _draws() -> dict[str, Floats]:
    """Weights and data of the notebook: standard normal numbers of JAX's PRNGKey(0)."""
    path = files("pylyap.papers.sohldickstein2024") / "draws.npz"
    with path.open("rb") as file, np.load(file) as stored:
        return {name: stored[name] for name in stored.files}


@dataclass(frozen=True)
class Task:
    """Settings that all experiments share.

    Parameters
    ----------
    checkpoints : Path, optional
        Folder in which maps are stored, from which a second call resumes.
    threads : int, optional
        Number of threads; all cores by default.
    progress : bool, default False
        Show a progress bar.
    """

    checkpoints: Path | None = None
    threads: int | None = None
    progress: bool = False

    def system(self, name: str = "tanh") -> tuple[TrainingMap, Floats]:
        """Training of a condition, and its initial weights.

        The published network is W₁σ(α₀W₀x)/n with α₀ = √(2/n), 1/√n for the linear one, without
        biases, and its loss has no factor ½. With weights α₀W₀ and W₁/n it is a `Network`, whose
        learning rates are the published ones times 2α₀² and 2/n².

        Parameters
        ----------
        name : str, default "tanh"
            One of `CONDITIONS`.

        Returns
        -------
        system : TrainingMap
            The training; "lr_0" and "lr_1" of a stability map are the published rates.
        w0 : ndarray, shape (289,)
            Initial weights, and biases 0, which stay 0.
        """
        condition, draws, n = CONDITIONS[name], _draws(), WIDTH
        first = np.sqrt((1 if condition.activation == "identity" else 2) / n)
        forward = np.array([first, 1 / n])
        network = Network((n, n, 1), activation=condition.activation, loss="mse")
        rule = GradientDescent(
            lr=1.0, layer_scale=2 * forward**2, bias_scale=0, batch_size=condition.batch_size
        )
        X, y = draws[f"X{condition.samples}"], draws[f"y{condition.samples}"]
        weights = (forward[0] * draws["W0"], forward[1] * draws["W1"][np.newaxis])
        w0 = network.pack([(W, np.zeros(len(W))) for W in weights])
        return TrainingMap(network, X, y, rule), w0

    @property
    def first_scale(self) -> float:
        """Weights of the first layer here, relative to the published ones: α₀ of tanh."""
        return float(np.sqrt(2 / WIDTH))

    def drifting(self) -> Callable[[float, float], tuple[DiscreteMap, Floats]]:
        """Training in which an offset is added to the first layer before every step.

        With the published weights W₀ it is W₀ ← W₀ + μ − η ∂ℓ(W₀ + μ), and the loss is that of
        W₀ + μ, as in the notebook.

        Returns
        -------
        callable
            Function of μ and η that returns a map, the same for all, and its initial state: W₀ + μ
            of all layers, μ and η.
        """
        system, w0 = self.system("tanh")
        network, rule = system.network, system.optimizer
        (W, b), *others = network.unpack(np.zeros(len(w0)))
        first = network.pack([(np.full(W.shape, self.first_scale), b), *others])

        def step(states: Floats) -> Floats:
            weights, offset, lr = states[:, :-2], states[:, -2:-1], states[:, -1]
            one = TrainingMap(network, system.X, system.y, replace(rule, lr=lr))
            with np.errstate(over="ignore", invalid="ignore"):
                return np.hstack([one.step(weights) + offset * first, states[:, -2:]])

        def tangent(states: Floats, vectors: Floats) -> Floats:
            one = TrainingMap(network, system.X, system.y, replace(rule, lr=states[:, -1]))
            offset = vectors[:, -2:-1] * first[:, np.newaxis]
            moved = one.tangent(states[:, :-2], vectors[:, :-2]) + offset
            return np.concatenate([moved, vectors[:, -2:]], axis=1)  # of μ, for a given η

        made = DiscreteMap(
            step, tangent=tangent, n=len(w0) + 2, vectorized=True,
            loss=lambda states: system.loss(states[:, :-2]),
        )  # fmt: skip

        def at(offset: float, lr: float) -> tuple[DiscreteMap, Floats]:
            return made, np.concatenate([w0 + offset * first, [offset, lr]])

        return at
