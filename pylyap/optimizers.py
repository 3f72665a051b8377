"""Optimisers, as maps of the extended state: weights followed by optimiser buffers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from pylyap import _checks
from pylyap._checks import Floats, Seed
from pylyap._errors import ArgumentError, ArgumentTypeError

Schedule: TypeAlias = Callable[[int], float] | ArrayLike


def _rate(name: str, value: ArrayLike, *, most: float | None = None) -> float | Floats:
    """Return a scalar or a read-only array over runs; entries are finite and in [0, most]."""
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
    """Return factors of steps as a read-only array (n_steps,); finite and at least 0."""
    array = _checks.floats(name, values)
    if array.ndim != 1 or array.size == 0:
        raise ArgumentError(name, f"must give one number per step, got shape {array.shape}")
    if (array < 0).any():
        raise ArgumentError(name, f"must be at least 0, got {array.min()}")
    array = array.copy()
    array.setflags(write=False)
    return array


class _Optimizer:
    """Minibatches and learning-rate schedule, common to all optimisers.

    The order of the minibatches is a function of seed and epoch only.
    """

    buffer_names: ClassVar[tuple[str, ...]] = ()

    @property
    def _factor_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Batch shapes of factors of the layers."""
        return ()

    batch_size: int | None
    shuffle: bool
    seed: Seed
    schedule: Schedule | None
    _table: Floats

    def _check_batches(self) -> None:
        if self.batch_size is not None:
            self._set("batch_size", _checks.integer("batch_size", self.batch_size, least=1))
        self._set("shuffle", _checks.flag("shuffle", self.shuffle))
        if self.schedule is not None and not callable(self.schedule):
            self._set("schedule", _factors("schedule", self.schedule))
        # A Generator is used once, so a copy made by dataclasses.replace has the same batches.
        self._set("seed", _checks.reusable_seed(self.seed))
        entropy = _checks.seed_sequence(self.seed).generate_state(1, np.uint64)
        self._set("_batch_seed", int(entropy[0]))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _require_factors(self, start: int, n_steps: int) -> None:
        """Raise ArgumentError if an array of factors is too short for the steps to be made."""
        if self.schedule is None or callable(self.schedule) or n_steps == 0:
            return
        given, needed = len(np.asarray(self.schedule)), start + n_steps
        if needed > given:
            raise ArgumentError(
                "schedule", f"must have a factor for each step, got {given} for {needed} steps"
            )

    def _factors(self, start: int, n_steps: int) -> Floats | None:
        """Factors (n_steps,) of the learning rate from step `start` on; None without a schedule.

        A function is called once per step, for these steps only.
        """
        if self.schedule is None:
            return None
        self._require_factors(start, n_steps)
        stop = start + n_steps
        if not callable(self.schedule):
            given: Floats = np.asarray(self.schedule)[start:stop]
            return given
        table = self._table  # nan for steps not evaluated yet
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


_SCALES = ("layer_scale", "bias_scale")


@dataclass(frozen=True, eq=False, repr=False)
class GradientDescent(_Optimizer):
    """Gradient descent, plain or with momentum, on the full batch or on minibatches.

    Parameters
    ----------
    lr : array_like, default 0.1
        Learning rate, at least 0. Arrays broadcast against the batch of runs, so a learning-rate
        scan is one call.
    momentum : array_like, default 0.0
        Momentum β in [0, 1]; arrays as for `lr`. The scalar 0 means no momentum.
    nesterov : bool, default False
        Use Nesterov's form of the momentum instead of the heavy ball.
    weight_decay : array_like, default 0.0
        Coefficient of the weights that is added to the gradient, at least 0; arrays as for `lr`.
    batch_size : int, optional
        Samples per step. By default all samples. The last batch of an epoch may be smaller.
    shuffle : bool, default True
        Draw a new permutation of the samples for every epoch. Otherwise batches follow the order of
        the data.
    seed : int, SeedSequence or Generator, default 0
        Seed of the permutations. From a Generator one int is drawn when the optimiser is made, and
        kept as `seed`. Copies and pickles have the same minibatches.
    schedule : callable or array_like, shape (n_steps,), optional
        Factor of `lr` at each step, at least 0: a function of the step index t, or an array whose
        entry t belongs to step t. By default 1. A function is called once for each step made. An
        array may be longer than the run; one that is too short is rejected before the first step.
    layer_scale : array_like, shape (..., n_layers), optional
        Factor of `lr` for each layer of weights, from the inputs on, at least 0; 0 freezes a layer.
        Leading axes broadcast against the batch of runs as those of `lr`, so that a scan of two
        layers' learning rates is one call. By default 1. For a `TrainingMap` only.
    bias_scale : array_like, shape (..., n_layers), optional
        Factor of `lr` for the biases of each layer, by default `layer_scale`. A number is the
        factor for all layers; 0 freezes the biases, so that those that start at 0 remain 0.

    Attributes
    ----------
    buffer_names : tuple of str
        Names of the buffers that follow the weights in the state.

    Raises
    ------
    ArgumentError
        If a value is negative, not finite or out of range, or `nesterov` is set without momentum.
        A map refuses factors for another number of layers than its network has.

    See Also
    --------
    Adam : Steps scaled by moments of the gradient.

    Notes
    -----
    With the gradient g of the (minibatch) loss plus ``weight_decay`` · w, the heavy ball is
    v' = β v − lr g, w' = w + v'. Nesterov's form is w' = w + β v' − lr g, as in Keras. The state is
    [w], and [w, v] with momentum.

    With the diagonal matrix D of the factors of `layer_scale` and `bias_scale`, lr g is replaced by
    lr D g, weight decay included. The Jacobian I − lr D H is then not symmetric, but similar to the
    symmetric I − lr √D H √D where no factor is 0. The preconditioned `sharpness` is the largest
    eigenvalue of √D H √D.

    A network whose layers divide by √n, z = w̃ x/√n, trained with the rate lr, is this network with
    w = w̃/√n and the rate lr/n: ∂L/∂w̃ = ∂L/∂w/√n, so w̃' = w̃ − lr ∂L/∂w̃ divided by √n is
    w' = w − (lr/n) ∂L/∂w. The factor of a layer is thus the square of its forward factor.

    References
    ----------
    Polyak, USSR Comput. Math. Math. Phys. 4, 1 (1964). Sutskever et al., ICML (2013).

    Examples
    --------
    >>> pl.GradientDescent(lr=0.1, momentum=0.9).buffer_names
    ('velocity',)

    A learning rate that halves every 100 steps:

    >>> optimizer = pl.GradientDescent(lr=0.1, schedule=lambda t: 0.5 ** (t // 100))

    Training of the last layer alone, and a scan of the learning rates of both layers:

    >>> last = pl.GradientDescent(lr=0.1, layer_scale=[0, 1])
    >>> rates = np.stack(np.meshgrid([0.01, 0.1, 1.0], [0.02, 0.2]), axis=-1)
    >>> system = pl.TrainingMap(
    ...     pl.Network((2, 3, 1)), *pl.datasets.quadratic(20),
    ...     pl.GradientDescent(lr=1.0, layer_scale=rates, bias_scale=0))
    >>> system.step(system.network.init(seed=0)).shape
    (2, 3, 13)
    """

    lr: ArrayLike = 0.1
    momentum: ArrayLike = 0.0
    nesterov: bool = False
    weight_decay: ArrayLike = 0.0
    batch_size: int | None = None
    shuffle: bool = True
    seed: Seed = 0
    schedule: Schedule | None = None
    layer_scale: ArrayLike | None = None
    bias_scale: ArrayLike | None = None
    _batch_seed: int = field(default=0, init=False, repr=False)
    _table: Floats = field(default_factory=lambda: np.empty(0), init=False, repr=False)

    def __post_init__(self) -> None:
        self._set("lr", _rate("lr", self.lr))
        self._set("momentum", _rate("momentum", self.momentum, most=1.0))
        self._set("weight_decay", _rate("weight_decay", self.weight_decay))
        self._set("nesterov", _checks.flag("nesterov", self.nesterov))
        if self.nesterov and not self._has_velocity:
            raise ArgumentError("nesterov", "needs a momentum above 0, got momentum=0.0")
        if self.layer_scale is not None:
            self._set("layer_scale", _rate("layer_scale", self.layer_scale))
            if isinstance(self.layer_scale, float):
                raise ArgumentError(
                    "layer_scale",
                    f"must have shape (..., n_layers), got the number {self.layer_scale}",
                )
        if self.bias_scale is not None:
            self._set("bias_scale", _rate("bias_scale", self.bias_scale))
        self._check_batches()

    def __repr__(self) -> str:
        shown = [f.name for f in fields(self) if f.repr and f.name not in _SCALES]
        shown += [name for name in _SCALES if getattr(self, name) is not None]
        settings = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
        return f"GradientDescent({settings})"

    @property
    def _factor_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Batch shapes of layer_scale and bias_scale."""
        return tuple(np.shape(getattr(self, name))[:-1] for name in _SCALES)

    @property
    def _has_factors(self) -> bool:
        """Whether factors of the layers are given."""
        return any(getattr(self, name) is not None for name in _SCALES)

    def _layer_factors(self, n_layers: int) -> Floats | None:
        """Factors (..., n_layers, 2) of weights and of biases; None where all are 1."""
        if not self._has_factors:
            return None
        for name in _SCALES:
            shape = np.shape(getattr(self, name))
            if shape and shape[-1] != n_layers:
                raise ArgumentError(
                    name,
                    f"must have shape (..., {n_layers}), a factor for each of the {n_layers} "
                    f"layers of weights, got {shape}",
                )
        weights = 1.0 if self.layer_scale is None else self.layer_scale
        biases = weights if self.bias_scale is None else self.bias_scale
        try:
            both = np.broadcast_arrays(weights, biases, np.empty(n_layers))[:2]
        except ValueError:
            raise ArgumentError(
                "bias_scale",
                f"must broadcast against layer_scale of shape {np.shape(weights)}, "
                f"got {np.shape(biases)}",
            ) from None
        factors: Floats = np.stack(both, axis=-1)
        return factors

    def _require_no_factors(self, purpose: str) -> None:
        """Raise ArgumentError if layers have factors, which the map in question cannot know."""
        for name in _SCALES:
            if getattr(self, name) is not None:
                raise ArgumentError(
                    "optimizer",
                    f"must have no {name} for {purpose}, whose layers are unknown, got "
                    f"{_checks.describe(getattr(self, name))}: use pylyap.TrainingMap",
                )

    @property
    def _has_velocity(self) -> bool:
        return not (isinstance(self.momentum, float) and self.momentum == 0.0)

    @property
    def buffer_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the buffers that follow the weights in the state."""
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
    """Adam, steps scaled by running moments of the gradient.

    Parameters
    ----------
    lr : array_like, default 0.001
        Learning rate, at least 0. Arrays broadcast against the batch of runs.
    beta1, beta2 : float, default 0.9 and 0.999
        Decay rates of the first and second moment, in [0, 1).
    epsilon : float, default 1e-8
        Constant added to √v̂, above 0.
    weight_decay : array_like, default 0.0
        Coefficient of the weights that is added to the gradient, at least 0; arrays as for `lr`.
    batch_size : int, optional
        Samples per step. By default all samples. The last batch of an epoch may be smaller.
    shuffle : bool, default True
        Draw a new permutation of the samples for every epoch.
    seed : int, SeedSequence or Generator, default 0
        Seed of the permutations, as in `GradientDescent`.
    schedule : callable or array_like, shape (n_steps,), optional
        Factor of `lr` at each step, as in `GradientDescent`.

    Attributes
    ----------
    buffer_names : tuple of str
        Names of the buffers that follow the weights in the state.

    Raises
    ------
    ArgumentError
        If a value is negative, not finite or out of range.

    See Also
    --------
    GradientDescent : Plain gradient descent and momentum.

    Notes
    -----
    With g the gradient plus ``weight_decay`` · w (coupled, as in Adam and unlike AdamW):
    m' = β₁m + (1 − β₁)g, v' = β₂v + (1 − β₂)g², w' = w − lr m̂/(√v̂ + ε), with
    m̂ = m'/(1 − β₁^(t+1)) and v̂ = v'/(1 − β₂^(t+1)). The state is [w, m, v], and the step depends on
    its index t.

    Where v' = m' = 0, as for parameters whose gradient has always been 0, the tangent of the update
    is −lr·dm̂/ε. The derivative with respect to g is −lr(1 − β₁)/((1 − β₁^(t+1)) ε), with respect to
    m −lr β₁/((1 − β₁^(t+1)) ε), and with respect to v 0. Where v' = 0 and m' ≠ 0, the derivative
    with respect to v is infinite and set to 0 by convention, and that with respect to g, which is
    discontinuous, is the mean of both one-sided derivatives.

    References
    ----------
    Kingma, Ba, ICLR (2015).

    Examples
    --------
    >>> pl.Adam(lr=0.01).buffer_names
    ('first moment', 'second moment')
    """

    lr: ArrayLike = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: ArrayLike = 0.0
    batch_size: int | None = None
    shuffle: bool = True
    seed: Seed = 0
    schedule: Schedule | None = None
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
        """Heavy-ball momentum as in `GradientDescent`, always 0."""
        return 0.0

    def _layer_factors(self, n_layers: int) -> Floats | None:
        return None

    def _require_no_factors(self, purpose: str) -> None:
        pass

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
    """Raise ArgumentTypeError unless the argument is an optimiser."""
    if not isinstance(optimizer, (GradientDescent, Adam)):
        raise ArgumentTypeError(
            "optimizer", f"must be a GradientDescent or an Adam, got {_checks.describe(optimizer)}"
        )
