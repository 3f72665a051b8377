"""Curvature above which a step of an optimiser is unstable, in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from pylyap._checks import Floats
from pylyap.optimizers import Adam, GradientDescent, Optimizer

Kind = Literal["hessian", "preconditioned", "batch", "gradient", "critical"]
KINDS: tuple[Kind, ...] = ("hessian", "preconditioned", "batch", "gradient", "critical")


@dataclass(frozen=True)
class Moments:
    """Settings of Adam's preconditioner.

    Attributes
    ----------
    beta1, beta2, epsilon : float
        As of `Adam`.
    decoupled : bool
        Whether the weight decay is not part of the gradient, as in AdamW.
    first : int
        Steps that the optimiser had made before step 0, for the bias corrections.
    """

    beta1: float
    beta2: float
    epsilon: float
    decoupled: bool = False
    first: int = 0

    def second(self, v: Floats, g: Floats) -> Floats:
        """Second moment after a step, from that before it and the gradient of the step."""
        with np.errstate(over="ignore", invalid="ignore"):
            result: Floats = self.beta2 * v + (1.0 - self.beta2) * g * g
        return result

    def inverse_root(self, v: Floats, t: int) -> Floats:
        """P^(−1/2) of step t (runs, n), from the second moment after it.

        The step is w' = w − lr P⁻¹ m', P = (1 − β₁^(t+1)) (√v̂' + ε).
        """
        steps = self.first + t + 1
        with np.errstate(over="ignore", invalid="ignore"):
            P = np.sqrt(v / (1.0 - self.beta2**steps)) + self.epsilon
            P *= 1.0 - self.beta1**steps
            return np.where(np.isfinite(P), 1.0 / np.sqrt(P), np.nan)


@dataclass(frozen=True)
class Hyperparameters:
    """Settings of an optimiser on which its stability depends.

    Attributes
    ----------
    lr, momentum, weight_decay : float or ndarray
        Rates, arrays along the batch.
    nesterov : bool
        Whether the momentum has Nesterov's form.
    moments : Moments or None
        Settings of Adam and AdamW.
    batch_size : int or None
        Samples per step; None for all.
    order : Optimizer
        Has the schedule.
    factors : bool
        Whether parameters have factors of the learning rate.
    lr_factors : ndarray, shape (n_params,), or None
        These factors, where they are not those of the layers of a `TrainingMap`.
    """

    lr: ArrayLike
    momentum: ArrayLike
    weight_decay: ArrayLike
    nesterov: bool
    moments: Moments | None
    batch_size: int | None
    order: Optimizer
    factors: bool = False
    lr_factors: Floats | None = None

    @property
    def preconditions(self) -> bool:
        """Whether steps have a preconditioner: Adam's, or the inverse factors of the layers."""
        return self.moments is not None or self.factors

    @property
    def coupled_decay(self) -> ArrayLike:
        """Weight decay that is preconditioned with the gradient, as in Adam."""
        coupled = self.factors if self.moments is None else not self.moments.decoupled
        return self.weight_decay if coupled else 0.0


def hyperparameters(optimizer: Any) -> Hyperparameters | None:
    """Settings of an optimiser of the package, or of one that has an attribute of this name."""
    if isinstance(optimizer, GradientDescent):
        return Hyperparameters(
            optimizer.lr, optimizer.momentum, optimizer.weight_decay, optimizer.nesterov, None,
            optimizer.batch_size, optimizer, optimizer._has_factors,
        )  # fmt: skip
    if isinstance(optimizer, Adam):
        moments = Moments(optimizer.beta1, optimizer.beta2, optimizer.epsilon)
        return Hyperparameters(
            optimizer.lr, 0.0, optimizer.weight_decay, False, moments, optimizer.batch_size,
            optimizer,
        )  # fmt: skip
    found = getattr(optimizer, "hyperparameters", None)
    return found if isinstance(found, Hyperparameters) else None


@dataclass(frozen=True)
class Threshold:
    """Curvature above which a step is unstable.

    Attributes
    ----------
    critical : ndarray
        Threshold of the curvature, weight decay included.
    decay : ndarray
        Weight decay, which is to be added to the curvature of the loss.
    upper : ndarray or None
        Threshold of the loss's curvature in the limit of large batches; of batch sharpness alone.
    """

    critical: Floats
    decay: Floats
    upper: Floats | None = None

    def ratio(self, value: Floats) -> Floats:
        """Curvature of the loss relative to the threshold."""
        with np.errstate(divide="ignore", invalid="ignore"):
            result: Floats = ((value + self.decay) / self.critical)[()]
        return result


def threshold(
    optimizer: Hyperparameters | None, kind: Kind, times: int = 0, factors: ArrayLike = 1.0
) -> Threshold:
    """Threshold of a kind of sharpness; nan if there is none in closed form.

    `times` axes of length 1 follow those of the rates, and `factors` of the schedule broadcast
    against the last of them.
    """
    nothing = np.array(np.nan), np.array(0.0)
    if optimizer is None:
        return Threshold(*nothing, np.array(np.nan) if kind == "batch" else None)
    lr, beta, decay = (
        spread(rate, times) for rate in (optimizer.lr, optimizer.momentum, optimizer.weight_decay)
    )
    lr = lr * np.asarray(factors)
    with np.errstate(divide="ignore", invalid="ignore"):
        if kind == "critical":
            return Threshold(2.0 / lr, np.array(0.0))
        moments = optimizer.moments
        if optimizer.preconditions and kind in ("hessian", "batch"):
            return Threshold(*nothing, np.array(np.nan) if kind == "batch" else None)
        if moments is not None:
            two = 2.0 - lr * decay if moments.decoupled else np.array(2.0)
            return Threshold(
                two / lr * ((1.0 + moments.beta1) / (1.0 - moments.beta1)), np.array(0.0)
            )
        critical: Floats = 2.0 * (1.0 + beta) / lr
        if optimizer.nesterov:
            critical = critical / (1.0 + 2.0 * beta)
        if kind != "batch":
            return Threshold(critical, np.array(0.0) if optimizer.factors else decay)
        small = critical if optimizer.batch_size is None else 2.0 * (1.0 - beta) / lr
        return Threshold(small, decay, critical - decay)


def spread(rate: ArrayLike, times: int) -> Floats:
    """A rate with `times` more axes of length 1, unless it is a number.

    Parameters
    ----------
    rate : array_like
        The rate.
    times : int
        Number of axes.

    Returns
    -------
    ndarray
        The rate.
    """
    array: Floats = np.asarray(rate, dtype=np.float64)
    return array.reshape((*array.shape, *[1] * times)) if array.ndim else array
