"""The task: data, networks, initial weights and training, with what of it is assumed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylyap import _checks
from pylyap.studies import Study

Floats = NDArray[np.float64]

ACTIVATIONS = ("relu", "tanh")
NAMES = {"relu": "ReLU", "tanh": "tanh"}

N_POINTS = 100
HIDDEN = 3
N_STEPS = 5000
WINDOW = 50  # steps of a finite-time exponent
RUNS = 4000  # published, for each activation and initialisation
_MEMORY = 5e7  # bytes of stored frames per task with covariant vectors; everything stays below 1 GB


@dataclass(frozen=True)
class Initialisation:
    """How initial weights are drawn, and the learning rate that goes with it.

    Attributes
    ----------
    key : str
        Short name, for files.
    name : str
        Name in figures and tables.
    init : dict
        Arguments of `Network.init`.
    lr : float
        Learning rate. Assumed.
    title : str
        Title of the studies.
    """

    key: str
    name: str
    init: dict[str, Any] = field(hash=False)
    lr: float
    title: str


HE = Initialisation(
    "he",
    "He",
    {"kind": "he_normal"},
    0.1,
    "Weight dynamics of learning networks: He initialisation",
)
WIDE = Initialisation(
    "wide",
    "σ = 20",
    {"kind": "normal", "scale": 20.0, "biases": True},
    1e-3,
    "Weight dynamics of learning networks: wide-range weights",
)
INITIALISATIONS = (HE, WIDE)

ASSUMED = (
    f"Assumed: {N_POINTS} points x ~ U(−1, 1)², y = x₁² + x₂²; {HIDDEN} hidden units, linear "
    "output; C = ⟨(ŷ − y)²⟩/2; full batch"
)


def assumptions(*initialisations: Initialisation, n_steps: int = N_STEPS) -> str:
    """Return the sentence of a caption on what is assumed.

    Parameters
    ----------
    *initialisations : Initialisation
        Those of the figure; both by default.
    n_steps : int, default 5000
        Steps of a run.

    Returns
    -------
    str
        Data formula, hidden units, learning rates and steps.
    """
    some = initialisations or INITIALISATIONS
    rates = " and ".join(f"{kind.lr:g} ({kind.name})" for kind in some)
    return f"{ASSUMED}, learning rate {rates}, {n_steps} steps."


def exponents_study(
    kind: Initialisation, *, runs: int = RUNS, n_steps: int = N_STEPS, seed: int = 0
) -> Study:
    """Return the study of all exponents of both activations.

    Parameters
    ----------
    kind : Initialisation
        `HE` or `WIDE`.
    runs : int, default 4000
        Runs of each activation.
    n_steps : int, default 5000
        Steps of a run.
    seed : int, default 0
        Seed of the initial weights.

    Returns
    -------
    Study
        Exponents, their history in windows of 50 steps, losses and last weights.
    """
    analysis = {
        "name": "spectrum",
        "n_steps": n_steps,
        "record_every": WINDOW,
        "variables": ["exponents", "growth", "loss", "final_loss", "state"],
    }
    return _study(kind, analysis, runs, seed)


def vectors_study(
    kind: Initialisation,
    *,
    runs: int = RUNS,
    n_steps: int = 4800,
    n_tail: int = 200,
    every: int = 100,
    seed: int = 0,
) -> Study:
    """Return the study of all covariant vectors along training.

    The runs are those of `exponents_study` with the same seed.

    Parameters
    ----------
    kind : Initialisation
        `HE` or `WIDE`.
    runs : int, default 4000
        Runs of each activation.
    n_steps, n_tail : int, default 4800 and 200
        Steps of the window and after it.
    every : int, default 100
        Steps between records.
    seed : int, default 0
        Seed of the initial weights.

    Returns
    -------
    Study
        Angles of all pairs and the estimated errors of the vectors.
    """
    analysis = {
        "name": "clv",
        "n_steps": n_steps,
        "n_transient": 0,
        "n_tail": n_tail,
        "every": every,
        "memory_limit": _MEMORY,
        "variables": ["angles", "local_contamination"],
    }
    title = kind.title.replace(": ", ": covariant vectors, ")
    return _study(kind, analysis, runs, seed, title)


def early_vectors_study(
    kind: Initialisation,
    *,
    runs: int = 800,
    n_steps: int = 1000,
    n_tail: int = 200,
    delay: int = 100,
    seed: int = 0,
) -> Study:
    """Return the study of covariant vectors as they are known a given delay later.

    Parameters
    ----------
    kind : Initialisation
        `HE` or `WIDE`.
    runs : int, default 800
        Runs of each activation.
    n_steps, n_tail : int, default 1000 and 200
        Steps of the window and after it.
    delay : int, default 100
        Steps from a record to the time at which its vectors are known.
    seed : int, default 0
        Seed of the initial weights.

    Returns
    -------
    Study
        Early vectors in the frame of their run, and their error.
    """
    analysis = {
        "name": "clv",
        "n_steps": n_steps,
        "n_transient": 0,
        "n_tail": n_tail,
        "every": WINDOW,
        "delay": delay,
        "memory_limit": _MEMORY,
        "variables": ["early_coefficients", "early_error"],
    }
    title = kind.title.replace(": ", ": early covariant vectors, ")
    return _study(kind, analysis, runs, seed, title)


def _study(
    kind: Initialisation,
    analysis: dict[str, Any],
    runs: int,
    seed: int,
    title: str | None = None,
) -> Study:
    return Study(
        title=kind.title if title is None else title,
        runs=runs,
        seed=seed,
        data={"name": "quadratic", "n": N_POINTS},
        network={"hidden": HIDDEN},
        init=kind.init,
        optimizer={"lr": kind.lr},
        analysis=analysis,
        grid={"network.activation": list(ACTIVATIONS)},
    )


@dataclass(frozen=True)
class Task:
    """What all experiments share: where results are kept, and the seed.

    Attributes
    ----------
    folder : Path
        Folder of the stored results, made when it is first needed. Experiments continue from
        what it holds.
    seed : int, default 0
        Seed of the initial weights.
    threads : int, optional
        Number of threads; all cores by default. Results do not depend on it.
    progress : bool, default False
        Show progress bars on stderr.
    """

    folder: Path
    seed: int = 0
    threads: int | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))
        object.__setattr__(self, "seed", _checks.integer("seed", self.seed, least=0))
