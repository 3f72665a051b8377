"""Runs of a training as the analyses and the compiled kernels take them."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._errors import ArgumentError
from pylyap._native import core
from pylyap._parallel import ProgressBar, Work, over_runs
from pylyap._thresholds import Hyperparameters, hyperparameters
from pylyap.network import Network
from pylyap.optimizers import GradientDescent, Optimizer

if TYPE_CHECKING:
    from pylyap.maps import TrainingMap

Method = Literal["dense", "matrix-free"]
METHODS = ("dense", "matrix-free")


class TrainingRuns:
    """The internal side of a `TrainingMap`, its attribute ``_runs``.

    The public methods of a `TrainingMap` take states of any batch shape, weights in place of
    states, and rates that broadcast. The kernels take float64 arrays (runs, n), one learning rate
    per run and a `core.Task`. This object converts one into the other and knows the cost of a
    step. Modules of the package use it and the public methods, and nothing else of a `TrainingMap`.

    Parameters
    ----------
    network, X, y, optimizer
        As of `TrainingMap`.
    single : bool
        Whether steps are in single precision.

    Attributes
    ----------
    inputs : ndarray, shape (N, n_in)
        Inputs as the core takes them, float64 or uint8.
    targets : ndarray, shape (N, n_out) or (N, 1)
        Targets, or labels as float64.
    batch_size : int
        Samples per step.
    problem : core.Problem
        The compiled training problem.
    n, n_params : int
        Length of a state and number of weights.
    layer_factors : ndarray, shape (..., n_layers, 2), or None
        Factors of the learning rate, of the weights and of the biases of each layer.
    """

    def __init__(
        self, network: Network, X: ArrayLike, y: ArrayLike, optimizer: Optimizer, single: bool
    ) -> None:
        self.network, self.optimizer, self.single = network, optimizer, single
        self.inputs: NDArray[Any] = network._inputs(X).copy()
        self.targets: Floats = network._targets(y, len(self.inputs)).copy()
        if self.inputs.dtype == np.uint8 and self.inputs.max() == 1:
            raise ArgumentError(
                "X",
                "must have pixels of 0 ... 255 where it is uint8, got only 0 and 1: "
                "X.reshape(len(X), -1).astype(float) for these numbers",
            )
        size = optimizer.batch_size
        if size is not None and size > len(self.inputs):
            raise ArgumentError(
                "batch_size",
                f"must be at most the {len(self.inputs)} samples of the data, got {size}",
            )
        self.batch_size = len(self.inputs) if size is None else size
        self.n_params = network.n_params
        self.n = network.n_params * (1 + len(optimizer.buffer_names))
        _checks.memory(
            f"{network.n_params} weights of {network!r} and their gradient",
            16.0 * network.n_params,
            "take a network of fewer units",
        )
        self.layer_factors = optimizer._layer_factors(len(network.layers) - 1)
        self._made_rates: tuple[int, core.Rates | None] = (0, None)
        self.problem = core.Problem(
            network._core,
            self.inputs,
            self.targets,
            core.Optimizer(**optimizer._core_settings()),
            batch_size=self.batch_size,
            shuffle=optimizer.shuffle,
            seed=optimizer._batch_seed,
            single=single,
        )

    # --- states and rates -------------------------------------------------------------------------

    def states(self, x: ArrayLike, name: str = "x", *, finite: bool = False) -> Floats:
        """States (..., n) from states or weights (..., n_params); weights get zero buffers."""
        states = _checks.floats(name, x, finite=finite)
        if not finite and np.isinf(states).any():
            raise ArgumentError(name, "must not be infinite (nan marks a run that diverged)")
        length = states.shape[-1] if states.ndim else 0
        if length == self.n:
            return states
        if length != self.n_params:
            allowed = f"(..., {self.n_params})"
            if self.n != self.n_params:
                allowed = f"(..., {self.n}) or, for plain weights, {allowed}"
            raise ArgumentError(name, f"must have shape {allowed}, got {states.shape}")
        out = np.zeros((*states.shape[:-1], self.n))
        out[..., : self.n_params] = states
        return out

    def flat(
        self, x: ArrayLike, name: str = "x", *, finite: bool = False
    ) -> tuple[Floats, tuple[int, ...]]:
        """States as (runs, n), and their batch shape after broadcasting against the rates."""
        states = self.states(x, name, finite=finite)
        batch = states.shape[:-1]
        whole = self.batch_with_rates(batch)
        if whole != batch:
            _checks.memory(
                f"{name} for the learning rates", 8.0 * math.prod(whole) * self.n, "take fewer runs"
            )
            states = np.ascontiguousarray(np.broadcast_to(states, (*whole, self.n)))
        return states.reshape(-1, self.n), whole

    @cached_property
    def rate_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of lr, momentum and weight_decay, and batch shapes of the factors of layers."""
        rates = self.optimizer
        given = (rates.lr, rates.momentum, rates.weight_decay)
        return (*(np.shape(rate) for rate in given), *rates._factor_shapes)

    def batch_with_rates(self, batch: tuple[int, ...]) -> tuple[int, ...]:
        """A batch shape broadcast against the rates; ArgumentError if that is impossible."""
        shapes = self.rate_shapes
        try:
            return np.broadcast_shapes(batch, *shapes) if any(shapes) else batch
        except ValueError:
            scaled = any(shapes[3:])
            factors = f"; of the factors {shapes[3]} and {shapes[4]}" if scaled else ""
            raise ArgumentError(
                "layer_scale" if scaled and not any(shapes[:3]) else "lr",
                "must broadcast, as momentum and weight_decay"
                + (", and the leading axes of the layers' factors" if scaled else "")
                + f", against the batch {batch}, "
                f"got shapes {shapes[0]}, {shapes[1]} and {shapes[2]}{factors}",
            ) from None

    @cached_property
    def parameter_factors(self) -> Floats | None:
        """Factors (..., n_params) of the learning rate; None where all are 1."""
        factors, sizes = self.layer_factors, self.network.layers
        if factors is None:
            return None
        counts = np.array([(a * b, b) for a, b in itertools.pairwise(sizes)]).reshape(-1)
        flat = factors.reshape((*factors.shape[:-2], len(counts)))
        return np.repeat(flat, counts, axis=-1)

    def rates(
        self,
        batch: tuple[int, ...],
        start: int,
        n_steps: int,
        chosen: NDArray[np.int64] | None = None,
        times: int = 0,
    ) -> core.Rates:
        """Rates of each run of the flattened batch, or of the `chosen` ones.

        The core then also has the schedule's factors of the steps start … start + n_steps − 1. The
        last `times` axes of the batch follow those of the rates.
        """
        rates = self.optimizer
        factors = rates._factors(start, n_steps)
        if factors is not None:
            self.problem.set_schedule(start, factors)

        if not any(self.rate_shapes):
            return self._equal_rates(math.prod(batch) if chosen is None else len(chosen))

        def each(value: Any, *tail: int) -> Floats:
            lead = np.shape(value)[: np.ndim(value) - len(tail)]
            array = np.reshape(value, (*lead, *[1] * times, *tail)) if lead else value
            flat = np.broadcast_to(array, (*batch, *tail)).reshape(-1, *tail)
            return np.ascontiguousarray(flat if chosen is None else flat[chosen])

        factors_of = self.layer_factors
        return core.Rates(
            each(rates.lr),
            each(rates.momentum),
            each(rates.weight_decay),
            None if factors_of is None else each(factors_of, *factors_of.shape[-2:]),
        )

    def _equal_rates(self, runs: int) -> core.Rates:
        """Rates of so many runs where all have the same; the last ones made are kept."""
        count, found = self._made_rates
        if found is None or count != runs:
            rates = self.optimizer
            lr, momentum, decay = (
                np.full(runs, rate, np.float64)
                for rate in (rates.lr, rates.momentum, rates.weight_decay)
            )
            factors = self.layer_factors
            if factors is not None:
                factors = np.ascontiguousarray(np.broadcast_to(factors, (runs, *factors.shape)))
            found = core.Rates(lr, momentum, decay, factors)
            self._made_rates = runs, found
        return found

    @cached_property
    def plain(self) -> TrainingMap:
        """The same loss with plain gradient descent: no buffers, and no rates with batch axes."""
        return self._with(GradientDescent())

    @cached_property
    def without_factors(self) -> TrainingMap:
        """The same optimiser with momentum, 1 if it has none, and without factors of the layers."""
        rule = self.optimizer
        assert isinstance(rule, GradientDescent)
        momentum = rule.momentum if rule.buffer_names else 1.0
        return self._with(replace(rule, momentum=momentum, layer_scale=None, bias_scale=None))

    def _with(self, optimizer: Optimizer) -> TrainingMap:
        """The training of the same network on the same data with another optimiser."""
        from pylyap.maps import TrainingMap  # imports this module

        X, y = self.inputs, self.targets[:, 0] if self.network.classifies else self.targets
        if X.dtype == np.uint8:
            X = X[:, :, np.newaxis]  # images, whatever the shape
        dtype: Literal["float64", "float32"] = "float32" if self.single else "float64"
        return TrainingMap(self.network, X, y, optimizer, dtype=dtype)

    @cached_property
    def hyperparameters(self) -> Hyperparameters | None:
        """Settings on which the stability of a step depends."""
        return hyperparameters(self.optimizer)

    @cached_property
    def minibatch(self) -> TrainingRuns:
        """The same minibatches in double precision, with velocity 0.5 v − gradient, rate 1."""
        given, plain = self.optimizer, self.plain
        descent = GradientDescent(
            lr=1.0, momentum=0.5, batch_size=given.batch_size, shuffle=given.shuffle,
            seed=given.seed,
        )  # fmt: skip
        return TrainingRuns(self.network, plain.X, plain.y, descent, False)

    @property
    def steps_per_epoch(self) -> int:
        """Steps that see each sample once."""
        return -(-len(self.inputs) // self.batch_size)

    # --- kernels ----------------------------------------------------------------------------------

    @property
    def group(self) -> int:
        """Runs that a kernel processes together."""
        return self.problem.group

    @property
    def alone(self) -> int:
        """Number of runs up to which a task of them takes less time than a group."""
        return self.problem.alone

    def step_cost(self, k: int, method: Method | None) -> float:
        """Multiplications of one step with k tangent vectors, for dividing work among threads."""
        return self.problem.cost(k, method or "auto")

    def workspace(self, k: int, method: Method) -> float:
        """Bytes that one thread needs besides its results, without the activations."""
        hessian = self.n_params**2 if method == "dense" else 0
        return 8.0 * self.group * (hessian + 2 * k * self.n)

    def over(self, work: Work, runs: int, step_cost: float, **options: Any) -> None:
        """`over_runs`, in groups of the kernels; step_cost is that of all steps of a run."""
        group, alone = self.group, self.alone
        over_runs(work, runs, group=group, alone=alone, cost=runs * step_cost, **options)

    def tangent(
        self,
        flat: Floats,
        batch: tuple[int, ...],
        vectors: Floats,
        t: int,
        method: Method | None,
        threads: int | None = None,
    ) -> Floats:
        """J vectors, (runs, n, k), J of step t at the states `flat` (runs, n)."""
        t = _checks.integer("t", t, least=0)
        how = "auto" if method is None else _checks.choice("method", method, METHODS)
        vectors = np.ascontiguousarray(vectors)
        rates = self.rates(batch, t, 1)
        out = np.empty_like(vectors)

        def work(task: core.Task) -> None:
            self.problem.tangent(flat, rates, t, vectors, how, out, task)

        self.over(work, len(flat), self.step_cost(vectors.shape[-1], method), threads=threads)
        return out

    def step(
        self,
        flat: Floats,
        t: int,
        batch: tuple[int, ...],
        chosen: NDArray[np.int64] | None = None,
        times: int = 0,
        threads: int | None = None,
    ) -> Floats:
        """States (runs, n) after step t, with the rates of `rates`."""
        rates = self.rates(batch, t, 1, chosen, times)
        flat, out = np.ascontiguousarray(flat), np.empty(flat.shape)

        def work(task: core.Task) -> None:
            self.problem.step(flat, rates, t, out, task)

        self.over(work, len(flat), self.step_cost(0, None), threads=threads)
        return out

    def batch_gradients(self, states: Floats, t: int, threads: int | None = None) -> Floats:
        """Gradients (runs, n_params) of the loss of the samples of step t."""
        runs, n = self.minibatch, self.n_params
        after = runs.step(_with_zeros(states[:, :n]), t, (len(states),), threads=threads)
        return -after[:, n:]

    def batch_products(
        self, states: Floats, v: Floats, t: int, threads: int | None = None
    ) -> Floats:
        """Hessians of the loss of the samples of step t times a vector each (runs, n_params)."""
        runs, n = self.minibatch, self.n_params
        x, V = _with_zeros(states[:, :n]), _with_zeros(v)[:, :, np.newaxis]
        return -runs.tangent(x, (len(x),), V, t, None, threads)[:, n:, 0]

    def gradients(self, states: Floats) -> Floats:
        """Gradients (runs, n_params) of the loss of all data at states (runs, n)."""
        return self.plain.gradient(np.ascontiguousarray(states[:, : self.n_params]))

    def paths(
        self,
        flat: Floats,
        begin: int,
        n_steps: int,
        every: int,
        *,
        batch: tuple[int, ...],
        chosen: NDArray[np.int64] | None = None,
        threads: int | None = None,
        progress: bool | ProgressBar = False,
        label: str = "",
    ) -> Floats:
        """Trajectories (runs, n_steps // every + 1, n) of states (runs, n) from step `begin` on.

        The rates of each are those of the flattened batch, or of its `chosen` runs.
        """
        rates = self.rates(batch, begin, n_steps, chosen)
        out = np.empty((len(flat), n_steps // every + 1, self.n))

        def work(task: core.Task) -> None:
            self.problem.trajectory(flat, rates, begin, n_steps, every, out, task)

        cost = n_steps * self.step_cost(0, None)
        self.over(
            work, len(flat), cost, threads=threads, steps=n_steps, progress=progress, label=label
        )
        return out

    has_loss = True

    def losses(self, states: Floats) -> Floats:
        """Losses (...) of all data at states (..., n)."""
        return self.plain.loss(np.ascontiguousarray(states[..., : self.n_params]))

    def hessians(self, states: Floats) -> Floats:
        """Hessians (..., n_params, n_params) of the loss of all data at states (..., n)."""
        shape = (self.n_params, self.n_params)
        return self.evaluate(states[..., : self.n_params], "hessian", shape)

    def evaluate(
        self, weights: Floats, what: Literal["loss", "gradient", "hessian"], shape: tuple[int, ...]
    ) -> Floats:
        """Loss, gradient or Hessian (..., *shape) of all data at weights (..., n_params)."""
        weights = np.ascontiguousarray(weights)
        flat = weights.reshape(-1, self.n_params)
        cost = self.step_cost(0, None)
        if what == "hessian":
            _checks.memory(
                f"Hessians of {len(flat)} states of {self.n_params} weights",
                8.0 * len(flat) * self.n_params**2 + self.workspace(0, "dense"),
                "take fewer runs, or Hessian-vector products through tangent",
            )
            cost = self.step_cost(self.n_params, "dense")
        out = np.empty((len(flat), *shape))
        targets: dict[str, Floats | None] = {"loss": None, "gradient": None, "hessian": None}
        targets[what] = out

        def work(task: core.Task) -> None:
            self.problem.evaluate(flat, **targets, task=task)

        self.over(work, len(flat), cost)
        return out.reshape((*weights.shape[:-1], *shape))[()]


def _with_zeros(weights: Floats) -> Floats:
    """Weights (runs, n) as states (runs, 2n) with zero buffers."""
    return np.concatenate([weights, np.zeros_like(weights)], axis=1)
