"""Speed, memory and accuracy of each commit, for asv. On a quiet machine, from the checkout:

    OPENBLAS_NUM_THREADS=1 asv continuous main HEAD

Every timed body takes a millisecond or more, and every class tracks the error of an exact identity,
so that a loss of accuracy is seen beside a gain of speed. Accuracy is in decimal digits.
"""

from __future__ import annotations

import numpy as np

import pylyap as pl


def training(
    hidden: int | tuple[int, ...],
    runs: int | None,
    n_samples: int = 150,
    activation: str = "tanh",
    lr: float = 0.1,
) -> tuple[pl.TrainingMap, np.ndarray]:
    """A 4-hidden-3 classifier of noise, and the initial weights of some runs, (runs, n)."""
    rng = np.random.default_rng(0)
    widths = (hidden,) if isinstance(hidden, int) else hidden
    net = pl.Network((4, *widths, 3), activation=activation, loss="cross_entropy")
    X, y = rng.normal(size=(n_samples, 4)), rng.integers(3, size=n_samples)
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=lr))
    return system, net.init("glorot_normal", runs=runs, seed=0)


def digits(error: float) -> float:
    """Decimal digits of accuracy for a relative error."""
    return float(-np.log10(np.maximum(error, 1e-17)))


def shift(system: pl.TrainingMap) -> np.ndarray:
    """The shift of all output biases, (n, 1), which a softmax ignores: J @ shift = shift."""
    direction = np.zeros((system.n, 1))
    direction[-3:] = 1.0
    return direction
