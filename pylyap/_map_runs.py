"""Runs of any map that is not a training, as the analyses take them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._ahead import Ahead, Carrying
from pylyap._checks import Floats
from pylyap._discrete_map import DiscreteMap
from pylyap._errors import ArgumentError, ArgumentTypeError
from pylyap._functions import Function, Functions, nan_unless_finite
from pylyap._native import core
from pylyap._parallel import ProgressBar, progress_bar
from pylyap._thresholds import Hyperparameters, hyperparameters
from pylyap.optimizers import Adam, GradientDescent, Optimizer

if TYPE_CHECKING:
    from pylyap.maps import Map


class MapRuns:
    """The internal side of a `DiscreteMap` or of an object with the methods of `Map`.

    The counterpart of `TrainingRuns` for maps of the user: batches of runs (runs, n), whatever the
    map's functions take. The first call of each function is made twice, to refuse a map that is not
    deterministic: make one of these for each analysis. Runs that have diverged are nan and are not
    passed to the functions.

    Parameters
    ----------
    system : Map
        The map.

    Attributes
    ----------
    n, n_params : int
        Length of a state, and number of its leading entries that are weights.
    """

    def __init__(self, system: Map) -> None:
        self.system = system
        self.n = _length(system, "n", None)
        self.n_params = _length(system, "n_params", self.n)

    @cached_property
    def functions(self) -> Functions:
        """The functions of the map."""
        if isinstance(self.system, DiscreteMap):
            return self.system._checked_functions(twice=True)
        return _functions_of(self.system, self.n)

    @property
    def in_lockstep(self) -> bool:
        """Whether step or tangent take batches: then all runs make each step together."""
        if self.carries:
            return False
        functions = self.functions
        derivative = functions.tangent or functions.jacobian
        return functions.step.batched or (derivative is not None and derivative.batched)

    # --- states -----------------------------------------------------------------------------------

    def states(self, x: ArrayLike, name: str = "x", *, finite: bool = False) -> Floats:
        """States (..., n) from states or weights (..., n_params).

        Weights become states by the map's method ``state``, or with zeros after them.
        """
        states = _checks.floats(name, x, finite=finite)
        if not finite and np.isinf(states).any():
            raise ArgumentError(name, "must not be infinite (nan marks a run that diverged)")
        length = states.shape[-1] if states.ndim else 0
        if length == self.n:
            return states
        if length != self.n_params:
            allowed = f"(..., {self.n})"
            if self.n_params != self.n:
                allowed += f" or, for plain weights, (..., {self.n_params})"
            raise ArgumentError(name, f"must have shape {allowed}, got {states.shape}")
        make = getattr(self.system, "state", None)
        if callable(make):
            out = _checks.floats(f"state({name})", make(states), finite=False)
            if out.shape != (*states.shape[:-1], self.n):
                raise ArgumentError(
                    "system",
                    f"must have a method state that returns shape {(*states.shape[:-1], self.n)} "
                    f"for weights of shape {states.shape}, got {out.shape}",
                )
            return out
        out = np.zeros((*states.shape[:-1], self.n))
        out[..., : self.n_params] = states
        return out

    def flat(
        self, x: ArrayLike, name: str = "x", *, finite: bool = False
    ) -> tuple[Floats, tuple[int, ...]]:
        """States as (runs, n), and the shape of their batch."""
        states = self.states(x, name, finite=finite)
        return states.reshape(-1, self.n), states.shape[:-1]

    # --- functions, over batches ------------------------------------------------------------------

    def require(self, name: str, purpose: str) -> Function:
        """A function of the map that an analysis needs; ArgumentTypeError if there is none."""
        found: Function | None = getattr(self.functions, name)
        if found is None:
            raise ArgumentTypeError(
                "system",
                f"must have a method {name} for {purpose}, "
                f"got {_checks.describe(self.system)}, which has none",
            )
        return found

    def step(
        self,
        X: Floats,
        t: int,
        batch: tuple[int, ...] = (),
        chosen: NDArray[np.int64] | None = None,
        times: int = 0,
        threads: int | None = None,
    ) -> Floats:
        """States (runs, n) after step t; all of a state is nan if an entry is not finite.

        Other arguments are those of `TrainingRuns.step` and have no meaning here.
        """
        functions = self.functions

        def apply(rows: Floats) -> Floats:
            return functions.apply(functions.step, (self.n,), rows, after=(t,))

        return nan_unless_finite(_on_finite(apply, functions.step.batched, (self.n,), X))

    def tangent(self, X: Floats, V: Floats, t: int) -> tuple[Floats, Floats | None]:
        """Tangent vectors (runs, n, k) after step t, and the size of their terms (runs, k) or None.

        V may be overwritten. The size is |J| |v| of each vector, which bounds its rounding error;
        it is known for a map with a Jacobian alone.
        """
        functions, tail = self.functions, V.shape[1:]
        tangent = functions.tangent
        if tangent is not None:
            if not tangent.batched:
                rows = lambda X, V: functions.apply(tangent, tail, X, V, after=(t,))  # noqa: E731
            else:
                rows = lambda X, V: tangent((len(X), *tail), X.copy(), V, t)  # noqa: E731
            return _on_finite(rows, tangent.batched, tail, X, V), None
        assert functions.jacobian is not None
        J = _on_finite(
            lambda X: functions.jacobians(X, t), functions.jacobian.batched, (self.n, self.n), X
        )
        with np.errstate(over="ignore", invalid="ignore"):
            sizes = np.abs(J) @ np.abs(V)
            largest = sizes.max(axis=1)
            scale = np.where(largest > 0, largest, 1.0)
            source = largest * np.sqrt(((sizes / scale[:, np.newaxis]) ** 2).sum(axis=1))
            return J @ V, source

    def adjoint(self, X: Floats, U: Floats, t: int) -> Floats:
        """Transposed Jacobians of step t at states (runs, n) times vectors (runs, n, k)."""
        function = self.functions.adjoint
        return _on_finite(
            lambda X, U: self.functions.pulled(X, U, t),
            function is not None and function.batched,
            U.shape[1:],
            X,
            U,
        )

    def loss(self, X: Floats) -> Floats:
        """Losses (runs,) of states (runs, n)."""
        function = self.require("loss", "its losses")
        return _on_finite(
            lambda X: self.functions.apply(function, (), X, after=()), function.batched, (), X
        )

    def losses(self, states: Floats) -> Floats:
        """Losses (...) of states (..., n)."""
        return self.loss(states.reshape(-1, self.n)).reshape(states.shape[:-1])

    def hessian_vector(self, X: Floats, v: Floats) -> Floats:
        """Hessians of the loss at finite states (runs, n) times a vector each (runs, n_params)."""
        function = self.require("hessian_vector", "Hessian-vector products")
        V = v[:, :, np.newaxis]
        return self.functions.apply(function, V.shape[1:], X, V, after=())[:, :, 0]

    def gradients(self, X: Floats) -> Floats:
        """Gradients (runs, n_params) of the loss at finite states (runs, n)."""
        function = self.require("gradient", "its gradients")
        return self.functions.apply(function, (self.n_params,), X, after=())

    def batch_gradients(self, X: Floats, t: int, threads: int | None = None) -> Floats:
        """Gradients (runs, n_params) of the loss of the samples of step t, at finite states."""
        function = self.require("batch_gradient", "gradients of minibatches")
        return self.functions.apply(function, (self.n_params,), X, after=(t,))

    def batch_products(self, X: Floats, v: Floats, t: int, threads: int | None = None) -> Floats:
        """Hessians of the loss of the samples of step t times a vector each (runs, n_params)."""
        function = self.require("batch_hessian_vector", "Hessians of minibatches")
        V = v[:, :, np.newaxis]
        return self.functions.apply(function, V.shape[1:], X, V, after=(t,))[:, :, 0]

    def hessians(self, states: Floats) -> Floats:
        """Hessians (..., n_params, n_params) of the loss at states (..., n), symmetrised."""
        function, p = self.require("hessian_vector", "Hessians"), self.n_params
        flat = states.reshape(-1, self.n)
        _checks.memory(
            f"Hessians of {len(flat)} states of {p} weights",
            8.0 * len(flat) * p**2,
            "take fewer runs, or the largest eigenvalue alone",
        )
        out = np.full((len(flat), p, p), np.nan)
        identity = np.eye(p)[np.newaxis]
        for r in np.flatnonzero(np.isfinite(flat).all(axis=1)):
            H = self.functions.apply(function, (p, p), flat[r : r + 1], identity, after=())[0]
            out[r] = 0.5 * (H + H.T)
        return out.reshape((*states.shape[:-1], p, p))

    def paths(
        self,
        flat: Floats,
        begin: int,
        n_steps: int,
        every: int,
        *,
        batch: tuple[int, ...] = (),
        chosen: NDArray[np.int64] | None = None,
        threads: int | None = None,
        progress: bool | ProgressBar = False,
        label: str = "",
    ) -> Floats:
        """Trajectories (runs, n_steps // every + 1, n) of all runs, from step `begin` on.

        `batch`, `chosen` and `threads` are those of `TrainingRuns.paths` and have no meaning here.
        """
        out = np.empty((len(flat), n_steps // every + 1, self.n))
        now = out[:, 0] = flat
        with progress_bar(progress, len(flat) * n_steps, label) as bar:
            for s in range(n_steps):
                now = self.step(now, begin + s)
                if (s + 1) % every == 0:
                    out[:, (s + 1) // every] = now
                bar.advance(len(flat))
        return out

    @property
    def has_loss(self) -> bool:
        """Whether the map has a loss."""
        return self.functions.loss is not None

    # --- what only trainings have -----------------------------------------------------------------

    @property
    def optimizer(self) -> Optimizer | None:
        """The map's attribute ``optimizer`` if it is one of the package's."""
        found = getattr(self.system, "optimizer", None)
        if not isinstance(found, (GradientDescent, Adam)):
            return None
        found._require_no_factors(f"a {type(self.system).__name__}")
        return found

    @property
    def hyperparameters(self) -> Hyperparameters | None:
        """Settings of the map's optimiser on which its stability depends."""
        found = getattr(self.system, "hyperparameters", None)
        if isinstance(found, Hyperparameters):
            return found
        return hyperparameters(getattr(self.system, "optimizer", None))

    @property
    def steps_per_epoch(self) -> int | None:
        """The map's attribute of this name: steps that see each sample once."""
        value = getattr(self.system, "steps_per_epoch", None)
        return None if value is None else _checks.integer("system.steps_per_epoch", value, least=1)

    @property
    def rate_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the rates of `optimizer`."""
        rates = self.optimizer
        if rates is None:
            return ()
        return tuple(np.shape(rate) for rate in (rates.lr, rates.momentum, rates.weight_decay))

    # --- the core's drivers, which call the functions for one run after another -------------------

    def core_map(self, stop: int, qr_every: int, *, losses: bool) -> core.CallableMap:
        """The functions as the core calls them: of Python or, if compiled, by address.

        For runs with steps before `stop`, orthonormalised every `qr_every` steps.
        """
        system, functions = self.system, self.functions
        if isinstance(system, DiscreteMap) and system._addresses is not None:
            return core.CallableMap(*system._addresses, None, None)
        loss = functions.one_loss if losses and functions.loss is not None else None
        if self.carries:
            ahead = Ahead(cast(Carrying, system), stop, qr_every)
            return core.CallableMap(ahead.step, None, ahead.tangent, loss)
        derivative = functions.tangent is not None
        return core.CallableMap(
            functions.one_step,
            None if derivative else functions.one_jacobian,
            functions.one_tangent if derivative else None,
            loss,
        )

    @property
    def carries(self) -> bool:
        """Whether the map makes many steps of a run with its vectors in one call."""
        return hasattr(self.system, "carry")

    def work(self, states: Floats, k: int) -> tuple[int, bool, float]:
        """Division of the work of `core_map`: group of runs, whether to use threads, step cost.

        A map that calls Python uses no threads. A compiled map is timed at the first of the states
        (runs, n): if it is slow, it must not run in the main thread, which waits for Ctrl-C.
        """
        system = self.system
        if not isinstance(system, DiscreteMap) or system._addresses is None:
            return 1, False, 0.0
        seconds = max((system._step_seconds(x) for x in states[:1]), default=0.0)
        n = self.n
        return core.CallableMap.group(n), True, max(1000.0 + 10.0 * n * n * k, _RATE * seconds)


_RATE = 4e9  # multiplications per second, as `over_runs` counts them


def _length(system: Any, name: str, default: int | None) -> int:
    """A length that the map states, 1 … n."""
    value = getattr(system, name, default)
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise ArgumentTypeError(
            "system", f"must have an integer {name}, got {name}={_checks.describe(value)}"
        )
    if value < 1 or (default is not None and value > default):
        most = "" if default is None else f" and at most n={default}"
        raise ArgumentError("system", f"must have {name} of at least 1{most}, got {int(value)}")
    return int(value)


def _functions_of(system: Any, n: int) -> Functions:
    """The functions of an object with the methods of `Map`, the batched ones where it has them.

    An object that has been checked when it was made has a true attribute ``_is_deterministic``.
    """
    twice = not getattr(system, "_is_deterministic", False)

    def best(name: str) -> Function | None:
        batched = getattr(system, f"{name}_batch", None)
        if callable(batched):
            return Function(f"{name}_batch", batched, batched=True, twice=twice)
        single = getattr(system, name, None)
        return Function(name, single, batched=False, twice=twice) if callable(single) else None

    step = best("step")
    assert step is not None
    return Functions(
        n,
        step,
        tangent=best("tangent"),
        adjoint=best("adjoint"),
        loss=best("loss"),
        gradient=best("gradient"),
        hessian_vector=best("hessian_vector"),
        batch_gradient=best("batch_gradient"),
        batch_hessian_vector=best("batch_hessian_vector"),
    )


def _on_finite(
    function: Callable[..., Floats],
    batched: bool,
    tail: tuple[int, ...],
    X: Floats,
    *others: Floats,
) -> Floats:
    """Results (runs, *tail) of a function for the states that are not nan, nan for the others.

    The number of states of a batch is halved once half of the runs have diverged, and it is filled
    up with copies until then: functions that are compiled for a number of states are compiled again
    a few times at most.
    """
    diverged = np.isnan(X[:, 0])
    if not diverged.any():
        return function(X, *others)
    alive = np.flatnonzero(~diverged)
    out = np.full((len(X), *tail), np.nan)
    if alive.size:
        size = len(X) if batched else 0
        while size >= 2 * alive.size:
            size = (size + 1) // 2
        rows = np.resize(alive, max(size, alive.size))
        out[alive] = function(X[rows], *(other[rows] for other in others))[: alive.size]
    return out
