"""Optimisers, as maps of the extended state: weights, then the optimiser's own buffers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._errors import ArgumentError, ArgumentTypeError


def _rate(name: str, value: ArrayLike, *, most: float | None = None) -> float | Floats:
    """A scalar or an array over runs: finite, at least 0."""
    if isinstance(value, (str, bytes, bool)) or value is None:
        raise ArgumentTypeError(
            name, f"must be a number or an array, got {_checks.describe(value)}"
        )
    array = _checks.floats(name, value)
    if array.size == 0:
        raise ArgumentError(name, f"must not be empty, got shape {array.shape}")
    outside = (array < 0) | (array > most if most is not None else False)
    if outside.any():
        allowed = "at least 0" if most is None else f"in [0, {most:g}]"
        raise ArgumentError(name, f"must be {allowed}, got {float(array[outside][0])!r}")
    if array.ndim == 0:
        return float(array)
    array = array.copy()
    array.setflags(write=False)
    return array


def _factors(name: str, values: Any) -> Floats:
    """Numbers for steps: (n_steps,), finite, at least 0."""
    array = _checks.floats(name, values)
    if array.ndim != 1 or array.size == 0:
        raise ArgumentError(name, f"must give one number per step, got shape {array.shape}")
    if (array < 0).any():
        raise ArgumentError(name, f"must be at least 0, got {array.min()}")
    array = array.copy()
    array.setflags(write=False)
    return array


class _Optimizer:
    """Shared by all optimisers: minibatches in an order that is a function of seed and epoch, and
    the schedule of the learning rate."""

    buffer_names: ClassVar[tuple[str, ...]] = ()

    batch_size: int | None
    shuffle: bool
    seed: Any
    schedule: Any
    _table: Floats

    def _check_batches(self) -> None:
        if self.batch_size is not None:
            self._set("batch_size", _checks.integer("batch_size", self.batch_size, least=1))
        self._set("shuffle", _checks.flag("shuffle", self.shuffle))
        if self.schedule is not None and not callable(self.schedule):
            self._set("schedule", _factors("schedule", self.schedule))
        # A Generator is drawn from once: a copy made by dataclasses.replace has the same batches.
        self._set("seed", _checks.reusable_seed(self.seed))
        entropy = _checks.seed_sequence(self.seed).generate_state(1, np.uint64)
        self._set("_batch_seed", int(entropy[0]))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _require_factors(self, start: int, n_steps: int) -> None:
        """Refuse a table of factors that ends before the steps start, start + 1, … do."""
        if self.schedule is None or callable(self.schedule) or n_steps == 0:
            return
        given, needed = len(self.schedule), start + n_steps
        if needed > given:
            raise ArgumentError(
                "schedule", f"must have a factor for each step, got {given} for {needed} steps"
            )

    def _factors(self, start: int, n_steps: int) -> Floats | None:
        """Factors (n_steps,) on the learning rate of the steps start, start + 1, …; None without a
        schedule. A function is called for these steps alone, once for each."""
        if self.schedule is None:
            return None
        self._require_factors(start, n_steps)
        stop = start + n_steps
        if not callable(self.schedule):
            given: Floats = self.schedule[start:stop]
            return given
        table = self._table  # nan for steps that the function has not been called for
        if stop > len(table):
            _checks.memory(
                f"factors of the schedule up to step {stop - 1}", 24.0 * stop, "start earlier"
            )
            longer = np.full(max(stop, 2 * len(table)), np.nan)
            longer[: len(table)] = table
            table = longer
        missing = np.flatnonzero(np.isnan(table[start:stop])) + start
        if missing.size:
            values = [self.schedule(t) for t in missing.tolist()]
            table[missing] = _factors("schedule(t)", values)
            self._set("_table", table)
        return table[start:stop].copy()


@dataclass(frozen=True, eq=False)
class GradientDescent(_Optimizer):
    """Gradient descent: plain, heavy ball, Nesterov; full batch or minibatches.

    With g the gradient of the (minibatch) loss plus ``weight_decay`` · w and b the momentum,
    heavy ball is v' = b v − lr g, w' = w + v'; Nesterov w' = w + b v' − lr g. The state is [w], and
    [w, v] with momentum.

    Parameters
    ----------
    lr, momentum, weight_decay
        Scalars or arrays that broadcast against the batch of runs, so that a learning-rate scan is
        one call. lr ≥ 0, 0 ≤ momentum ≤ 1, weight_decay ≥ 0. A scalar momentum of 0 means none.
    nesterov
        Nesterov's form of momentum, as Keras and Sutskever et al. write it.
    schedule
        Factor on `lr` at each step, at least 0: a function of the index t of the step alone, or an
        array (n_steps,), entry t for step t; None for 1. A function is called once for each step
        that is taken, and for no other. An array needs no more entries than there are steps; one
        that is too short is refused before the first step.
    batch_size
        Samples per step; ``None`` for all. The last batch of an epoch may be smaller.
    shuffle
        A fresh permutation for every epoch; otherwise batches follow the order of the data.
    seed
        Of the permutations: int, SeedSequence, or Generator, of which one int is drawn when the
        optimiser is made and kept as `seed`. Copies (`dataclasses.replace`, pickles) have the same
        minibatches.

    References
    ----------
    Polyak, USSR Comput. Math. Math. Phys. 4, 1 (1964). Sutskever et al., ICML (2013).
    """

    lr: Any = 0.1
    momentum: Any = 0.0
    nesterov: bool = False
    weight_decay: Any = 0.0
    batch_size: int | None = None
    shuffle: bool = True
    seed: Any = 0
    schedule: Any = None
    _batch_seed: int = field(default=0, init=False, repr=False)
    _table: Floats = field(default_factory=lambda: np.empty(0), init=False, repr=False)

    def __post_init__(self) -> None:
        self._set("lr", _rate("lr", self.lr))
        self._set("momentum", _rate("momentum", self.momentum, most=1.0))
        self._set("weight_decay", _rate("weight_decay", self.weight_decay))
        self._set("nesterov", _checks.flag("nesterov", self.nesterov))
        if self.nesterov and not self._has_velocity:
            raise ArgumentError("nesterov", "needs a momentum above 0, got momentum=0.0")
        self._check_batches()

    @property
    def _has_velocity(self) -> bool:
        return not (isinstance(self.momentum, float) and self.momentum == 0.0)

    @property
    def buffer_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the buffers after the weights in the state."""
        return ("velocity",) if self._has_velocity else ()

    def _core_settings(self) -> dict[str, Any]:
        return {
            "adam": False,
            "momentum": self._has_velocity,
            "nesterov": self.nesterov,
            "beta1": 0.0,
            "beta2": 0.0,
            "epsilon": 0.0,
        }


@dataclass(frozen=True, eq=False)
class Adam(_Optimizer):
    """Adam: steps scaled by running moments of the gradient.

    With g the gradient plus ``weight_decay`` · w (coupled, as in Adam rather than AdamW):
    m' = β₁m + (1 − β₁)g, v' = β₂v + (1 − β₂)g², w' = w − lr m̂/(√v̂ + ε) with
    m̂ = m'/(1 − β₁^(t+1)) and v̂ likewise. The state is [w, m, v]; the step depends on its index t.

    Where v' = m' = 0, as for parameters that no gradient has reached yet, the tangent of the update
    is −lr·dm̂/ε: the derivative with respect to g is −lr(1 − β₁)/((1 − β₁^(t+1)) ε), that with
    respect to m is −lr β₁/((1 − β₁^(t+1)) ε), and that with respect to v is 0. Where v' = 0 and
    m' ≠ 0, the derivative with respect to v is infinite, so that no number could stand for it: it
    counts as 0, by convention; that with respect to g, which has a kink, is the mean of both sides.

    Parameters
    ----------
    lr, weight_decay
        Scalars or arrays that broadcast against the batch of runs; at least 0.
    beta1, beta2
        Decay of the moments, in [0, 1).
    epsilon
        Added to √v̂; above 0.
    batch_size, shuffle, seed, schedule
        As in `GradientDescent`.

    References
    ----------
    Kingma, Ba, ICLR (2015).
    """

    lr: Any = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: Any = 0.0
    batch_size: int | None = None
    shuffle: bool = True
    seed: Any = 0
    schedule: Any = None
    _batch_seed: int = field(default=0, init=False, repr=False)
    _table: Floats = field(default_factory=lambda: np.empty(0), init=False, repr=False)

    buffer_names: ClassVar[tuple[str, ...]] = ("first moment", "second moment")

    def __post_init__(self) -> None:
        self._set("lr", _rate("lr", self.lr))
        self._set("weight_decay", _rate("weight_decay", self.weight_decay))
        self._set("beta1", _checks.real("beta1", self.beta1, least=0.0, below=1.0))
        self._set("beta2", _checks.real("beta2", self.beta2, least=0.0, below=1.0))
        self._set("epsilon", _checks.real("epsilon", self.epsilon, above=0.0))
        self._check_batches()

    @property
    def momentum(self) -> float:
        """0: Adam has no momentum in the sense of `GradientDescent`."""
        return 0.0

    def _core_settings(self) -> dict[str, Any]:
        return {
            "adam": True,
            "momentum": False,
            "nesterov": False,
            "beta1": self.beta1,
            "beta2": self.beta2,
            "epsilon": self.epsilon,
        }


Optimizer = GradientDescent | Adam


def require_optimizer(optimizer: Any) -> None:
    """Refuse what is no optimiser."""
    if not isinstance(optimizer, (GradientDescent, Adam)):
        raise ArgumentTypeError(
            "optimizer", f"must be a GradientDescent or an Adam, got {_checks.describe(optimizer)}"
        )
