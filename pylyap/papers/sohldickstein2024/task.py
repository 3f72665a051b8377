"""Network, data and conditions that all experiments share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np

from pylyap._checks import Floats
from pylyap.maps import TrainingMap
from pylyap.network import Network
from pylyap.optimizers import GradientDescent

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
    """

    activation: str
    samples: int
    dimension: float
    batch_size: int | None = None


# Known: activations, sample numbers and batches (notebook). Dimensions: table 1 as cited by
# secondary sources. The published minibatches are drawn with replacement, ours without.
CONDITIONS = {
    "tanh": Condition("tanh", 272, 1.66),
    "ReLU": Condition("relu", 272, 1.20),
    "linear": Condition("identity", 16, 1.17),
    "minibatch": Condition("tanh", 272, 1.55, batch_size=16),
    "one sample": Condition("tanh", 1, 1.41),
}


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
