"""Training as a map of the state, and maps of the user's own: step, Jacobian, tangent."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property, partial
from time import perf_counter
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._errors import ArgumentError, ArgumentTypeError
from pylyap._native import core
from pylyap._parallel import Signals, over_runs
from pylyap.network import Network
from pylyap.optimizers import GradientDescent, Optimizer, require_optimizer

Method = Literal["dense", "matrix-free"]


def _dtype(value: Any) -> Literal["float64", "float32"]:
    for name in (np.float64, np.float32):
        if isinstance(value, (str, type, np.dtype)) and value in (
            name, np.dtype(name), np.dtype(name).name
        ):  # fmt: skip
            return "float64" if name is np.float64 else "float32"
    raise ArgumentError("dtype", f"must be 'float64' or 'float32', got {_checks.describe(value)}")


@runtime_checkable
class Map(Protocol):
    """Anything with a state of length `n`, a step and its tangent."""

    @property
    def n(self) -> int:
        """Length of a state."""

    def step(self, x: Floats, t: int = 0) -> Floats:
        """The state after step t."""

    def tangent(self, x: Floats, V: Floats, t: int = 0) -> Floats:
        """The Jacobian of step t at x, times the columns of V (n, k)."""


class TrainingMap:
    """Training of a network on data as a dynamical system: one optimiser step is the map.

    The state is the weights followed by the optimiser's buffers, length `n`. Everywhere a state
    (..., n) is expected, plain weights (..., n_params) are taken too and get zero buffers. Leading
    axes are a batch of runs; `lr`, `momentum` and `weight_decay` of the optimiser broadcast against
    them. States that are nan (a run that diverged) stay nan and leave the other runs alone.

    Parameters
    ----------
    network
        The `Network`.
    X : (N, n_in) array
        Inputs, finite: an array, a list of rows, a DataFrame, a tensor. Their dtype is the one that
        NumPy finds, in whatever container. Booleans are refused. uint8 with three axes or more,
        (N, rows, columns, ...), are images of n_in pixels each, whose values 0 … 255 stand for
        0 … 1; they stay bytes until a step takes them. uint8 with two axes could be numbers or
        pixels and are refused: ``X.astype(float)``, ``X / 255.0`` or ``X[:, :, None]``.
    y : (N,) or (N, n_out) array
        Targets for ``"mse"`` ((N,) if there is one output), integer labels (N,) otherwise. Targets
        are never scaled; uint8 with two axes are refused.
    optimizer
        `GradientDescent` or `Adam`.
    dtype
        ``"float32"`` makes each step (and `loss`, `gradient`) in single precision: states are then
        single-precision numbers, kept in float64 arrays so that everything else takes them.
        Jacobians, tangents and Hessians are in double precision at any state; tangent vectors that
        travel along runs (`lyapunov_spectrum`) need ``"float64"``.

    Raises
    ------
    ValueError, TypeError
        If shapes do not fit the network, data are empty or not finite, labels are not integers in
        0 ... n_out − 1, or the batch is larger than the data.
    """

    def __init__(
        self,
        network: Network,
        X: ArrayLike,
        y: ArrayLike,
        optimizer: Optimizer,
        *,
        dtype: Literal["float64", "float32"] = "float64",
    ) -> None:
        if not isinstance(network, Network):
            raise ArgumentTypeError(
                "network", f"must be a Network, got {_checks.describe(network)}"
            )
        require_optimizer(optimizer)
        self.network = network
        self.optimizer = optimizer
        self.dtype: Literal["float64", "float32"] = _dtype(dtype)
        self._inputs = network._inputs(X).copy()
        self._targets = network._targets(y, len(self._inputs)).copy()
        self.X = self._inputs
        if self._inputs.dtype == np.uint8:
            if self._inputs.max() == 1:
                raise ArgumentError(
                    "X",
                    "must have pixels of 0 ... 255 where it is uint8, got only 0 and 1: "
                    "X.reshape(len(X), -1).astype(float) for these numbers",
                )
            self.X = self._inputs.reshape(np.shape(X))  # images, as they were given
        self.y: NDArray[Any] = (
            self._targets[:, 0].astype(np.int64)
            if network.classifies
            else self._targets.reshape(np.shape(y))
        )
        for array in (self.X, self._inputs, self._targets, self.y):
            array.setflags(write=False)
        size = optimizer.batch_size
        if size is not None and size > len(self.X):
            raise ArgumentError(
                "batch_size", f"must be at most the {len(self.X)} samples of the data, got {size}"
            )
        self._batch_size = len(self.X) if size is None else size
        _checks.memory(
            f"{network.n_params} weights of {network!r} and their gradient",
            16.0 * network.n_params,
            "take a network of fewer units",
        )
        self._core  # noqa: B018  (data are copied now, so that memory fails here, not later)

    @cached_property
    def _core(self) -> core.TrainingMap:
        return core.TrainingMap(
            self.network._core,
            self._inputs,
            self._targets,
            **self.optimizer._core_settings(),
            batch_size=self._batch_size,
            shuffle=self.optimizer.shuffle,
            seed=self.optimizer._batch_seed,
            single=self.dtype == "float32",
        )

    @property
    def n_params(self) -> int:
        """Number of weights and biases."""
        return self.network.n_params

    @cached_property
    def n(self) -> int:
        """Length of a state: n_params times one plus the number of buffers."""
        return self.network.n_params * (1 + len(self.optimizer.buffer_names))

    def __repr__(self) -> str:
        single = ", dtype='float32'" if self.dtype == "float32" else ""
        return f"TrainingMap({self.network!r}, {len(self.X)} samples, {self.optimizer!r}{single})"

    def __reduce__(self) -> tuple[Any, ...]:
        data = (self.network, self.X, self.y, self.optimizer)
        return partial(TrainingMap, dtype=self.dtype), data

    # --- states -----------------------------------------------------------------------------------

    def state(self, w: ArrayLike) -> Floats:
        """Weights (..., n_params) with zero buffers: (..., n). A state is returned as it is."""
        return self._state(w, "w")

    def weights(self, x: ArrayLike) -> Floats:
        """The weights (..., n_params) of a state (..., n)."""
        return self._state(x)[..., : self.n_params]

    def batch(self, t: int) -> NDArray[np.int64]:
        """Indices of the samples that step t sees, in order."""
        return self._core.batch(_checks.integer("t", t, least=0))

    # --- the map ----------------------------------------------------------------------------------

    def step(self, x: ArrayLike, t: int = 0) -> Floats:
        """The states (..., n) after step t from states (..., n).

        t selects the minibatch and Adam's bias correction. A run whose new state is not finite gets
        nan in all of it.
        """
        t = _checks.integer("t", t, least=0)
        flat, batch = self._flat(x)
        rates = self._rates(batch, t, 1)
        out = np.empty_like(flat)

        def work(first: int, count: int, signals: Signals) -> None:
            self._core.one_step(
                flat, *rates, t, None, "auto", out, None, signals.cancel, signals.members, first,
                count,
            )  # fmt: skip

        self._over(work, len(flat), self._step_cost(0, None))
        return out.reshape((*batch, self.n))

    def jacobian(self, x: ArrayLike, t: int = 0) -> Floats:
        """The Jacobian (..., n, n) of step t at states (..., n); I − lr·H for gradient descent.

        Raises ValueError if it would not fit in memory.
        """
        flat, batch = self._flat(x)
        _checks.memory(
            f"Jacobians of {len(flat)} states of length {self.n}",
            8.0 * len(flat) * self.n**2 + self._workspace(self.n, "dense"),
            "use tangent, which needs no Jacobian",
        )
        identity = np.broadcast_to(np.eye(self.n), (len(flat), self.n, self.n))
        return self._tangent(flat, batch, identity, t, "dense").reshape((*batch, self.n, self.n))

    def tangent(
        self, x: ArrayLike, V: ArrayLike, t: int = 0, *, method: Method | None = None
    ) -> Floats:
        """``jacobian(x, t) @ V`` for tangent vectors in the columns of V, without the Jacobian.

        Parameters
        ----------
        x : (..., n) array
        V : (..., n, k) or (n,) array
            Broadcasts against the batch of x.
        method
            ``"dense"`` forms the Hessian, ``"matrix-free"`` uses the R-operator; by default the
            cheaper by count.

        Returns
        -------
        (..., n, k) array
        """
        flat, batch = self._flat(x)
        vectors = _checks.floats("V", V, finite=False)
        column = vectors.ndim == 1
        if column:
            vectors = vectors[:, np.newaxis]
        if vectors.ndim < 2 or vectors.shape[-2] != self.n or vectors.shape[-1] == 0:
            raise ArgumentError(
                "V", f"must have shape (..., {self.n}, k) with k >= 1, got {np.shape(V)}"
            )
        k = vectors.shape[-1]
        whole = batch
        if vectors.shape[:-2] != batch:
            try:
                whole = np.broadcast_shapes(batch, vectors.shape[:-2])
            except ValueError:
                raise ArgumentError(
                    "V", f"must broadcast against states of batch shape {batch}, got {np.shape(V)}"
                ) from None
            flat = np.broadcast_to(flat.reshape((*batch, self.n)), (*whole, self.n))
            flat = np.ascontiguousarray(flat).reshape(-1, self.n)
            vectors = np.broadcast_to(vectors, (*whole, self.n, k))
        vectors = vectors.reshape(-1, self.n, k)
        out = self._tangent(flat, whole, vectors, t, method).reshape((*whole, self.n, k))
        return out[..., 0] if column else out

    def trajectory(
        self,
        x: ArrayLike,
        n_steps: int,
        every: int = 1,
        start: int = 0,
        *,
        threads: int | None = None,
        progress: bool = False,
    ) -> Floats:
        """The states along a run: (..., n_steps // every + 1, n), the first is x.

        Parameters
        ----------
        x : (..., n) array
        n_steps, every
            Steps to take and steps between two records; `every` divides `n_steps`.
        start
            Index t of the first step.
        """
        n_steps = _checks.integer("n_steps", n_steps, least=0)
        every = _checks.integer("every", every, least=1)
        start = _checks.integer("start", start, least=0)
        if n_steps % every:
            raise ArgumentError(
                "every", f"must divide n_steps, got every={every} and n_steps={n_steps}"
            )
        flat, batch = self._flat(x)
        shape = (len(flat), n_steps // every + 1, self.n)
        _checks.memory(
            f"the trajectory of n_steps={n_steps} steps",
            8.0 * math.prod(shape),
            "record less with every=",
        )
        rates = self._rates(batch, start, n_steps)
        out = np.empty(shape)

        def work(first: int, count: int, signals: Signals) -> None:
            self._core.trajectory(
                flat, *rates, start, n_steps, every, out, signals.cancel, signals.done,
                signals.members, first, count,
            )  # fmt: skip

        self._over(
            work,
            len(flat),
            n_steps * self._step_cost(0, None),
            threads=threads,
            steps=n_steps,
            progress=progress,
            label="trajectory",
        )
        return out.reshape((*batch, *shape[1:]))

    # --- the loss, of the whole data --------------------------------------------------------------

    def loss(self, x: ArrayLike) -> Floats:
        """Mean loss (...) of the whole data, without weight decay."""
        return self._evaluate(x, "loss", ())

    def gradient(self, x: ArrayLike) -> Floats:
        """Gradient (..., n_params) of `loss`."""
        return self._evaluate(x, "gradient", (self.n_params,))

    def hessian(self, x: ArrayLike) -> Floats:
        """Hessian (..., n_params, n_params) of `loss`, symmetric to the bit.

        Raises ValueError if it would not fit in memory.
        """
        return self._evaluate(x, "hessian", (self.n_params, self.n_params))

    def accuracy(self, x: ArrayLike) -> Floats:
        """Share (...) of the samples whose likeliest class is the label."""
        return self.network.accuracy(self.weights(x), self.X, self.y)

    # --- private ----------------------------------------------------------------------------------

    def _state(self, x: ArrayLike, name: str = "x", *, finite: bool = False) -> Floats:
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

    def _flat(
        self, x: ArrayLike, name: str = "x", *, finite: bool = False
    ) -> tuple[Floats, tuple[int, ...]]:
        """States as (runs, n), and the batch shape that they and the optimiser's arrays make."""
        states = self._state(x, name, finite=finite)
        batch = states.shape[:-1]
        whole = self._require_rates_fit(batch)
        if whole != batch:
            _checks.memory(
                f"{name} for the learning rates", 8.0 * math.prod(whole) * self.n, "take fewer runs"
            )
            states = np.ascontiguousarray(np.broadcast_to(states, (*whole, self.n)))
        return states.reshape(-1, self.n), whole

    def _require_rates_fit(self, batch: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that a batch of states and the optimiser's arrays make, if they make one."""
        shapes = self._rate_shapes
        try:
            return np.broadcast_shapes(batch, *shapes) if any(shapes) else batch
        except ValueError:
            raise ArgumentError(
                "lr",
                f"must broadcast, as momentum and weight_decay, against the batch {batch}, "
                f"got shapes {shapes[0]}, {shapes[1]} and {shapes[2]}",
            ) from None

    @cached_property
    def _plain(self) -> TrainingMap:
        """The same loss without the optimiser's buffers and rates, which would make a batch."""
        return TrainingMap(self.network, self.X, self.y, GradientDescent(), dtype=self.dtype)

    @cached_property
    def _rate_shapes(self) -> tuple[tuple[int, ...], ...]:
        rates = self.optimizer
        return tuple(np.shape(rate) for rate in (rates.lr, rates.momentum, rates.weight_decay))

    def _rates(
        self, batch: tuple[int, ...], start: int, n_steps: int
    ) -> tuple[Floats, Floats, Floats]:
        """lr, momentum and weight decay, one number for every run of the flattened batch; the core
        then has the schedule's factors of the steps start, start + 1, …, n_steps of them."""
        rates = self.optimizer
        factors = rates._factors(start, n_steps)
        if factors is not None:
            self._core.set_schedule(start, factors)
        runs = math.prod(batch)

        def spread(value: Any) -> Floats:
            if isinstance(value, float):
                return np.full(runs, value)
            return np.ascontiguousarray(np.broadcast_to(value, batch)).reshape(-1)

        return spread(rates.lr), spread(rates.momentum), spread(rates.weight_decay)

    def _tangent(
        self,
        flat: Floats,
        batch: tuple[int, ...],
        vectors: Floats,
        t: int,
        method: Method | None,
    ) -> Floats:
        t = _checks.integer("t", t, least=0)
        how = "auto" if method is None else _checks.choice("method", method, METHODS)
        vectors = np.ascontiguousarray(vectors)
        rates = self._rates(batch, t, 1)
        out = np.empty_like(vectors)

        def work(first: int, count: int, signals: Signals) -> None:
            self._core.one_step(
                flat, *rates, t, vectors, how, None, out, signals.cancel, signals.members, first,
                count,
            )  # fmt: skip

        self._over(work, len(flat), self._step_cost(vectors.shape[-1], method))
        return out

    def _evaluate(self, x: ArrayLike, what: str, shape: tuple[int, ...]) -> Floats:
        weights = np.ascontiguousarray(self.weights(x))
        flat = weights.reshape(-1, self.n_params)
        cost = self._step_cost(0, None)
        if what == "hessian":
            _checks.memory(
                f"Hessians of {len(flat)} states of {self.n_params} weights",
                8.0 * len(flat) * self.n_params**2 + self._workspace(0, "dense"),
                "take fewer runs, or Hessian-vector products through tangent",
            )
            cost = self._step_cost(self.n_params, "dense")
        out = np.empty((len(flat), *shape))
        targets: dict[str, Floats | None] = {"loss": None, "gradient": None, "hessian": None}
        targets[what] = out

        def work(first: int, count: int, signals: Signals) -> None:
            self._core.evaluate(
                flat,
                **targets,
                cancel=signals.cancel,
                members=signals.members,
                first=first,
                count=count,
            )

        self._over(work, len(flat), cost)
        return out.reshape((*weights.shape[:-1], *shape))[()]

    def _over(self, work: Any, runs: int, step_cost: float, **options: Any) -> None:
        over_runs(work, runs, group=self._core.group, cost=runs * step_cost, **options)

    def _step_cost(self, k: int, method: Method | None) -> float:
        """Multiplications of one step with k tangent vectors, for dividing work among threads."""
        return self._core.cost(k, method or "auto")

    def _workspace(self, k: int, method: str) -> float:
        """Bytes that one thread needs besides its results, without the activations."""
        group = self._core.group
        hessian = self.n_params**2 if method == "dense" else 0
        return 8.0 * group * (hessian + 2 * k * self.n)


METHODS = ("dense", "matrix-free")


class DiscreteMap:
    """A map of the user's own, from a step and its Jacobian.

    Parameters
    ----------
    step
        Callable of one state (n,) that returns the next, (n,).
    jacobian
        Callable of one state (n,) that returns the Jacobian of `step` there, (n, n).
    n
        Length of a state.
    compiled
        Compile both with Numba, so that the core calls them without Python and on all cores, at
        some hundred times the speed. They must then return arrays of float64, or tuples of numbers
        (of a Jacobian, tuples of its rows), which is several times faster for small maps, since no
        array is made; and keep no state of their own.

    Raises
    ------
    TypeError, ValueError
        If a callable is none, or Numba cannot compile it. ValueError, by every method and analysis,
        if a function returns another shape than its first argument has, at whatever state; and if
        a pickle of a compiled map is loaded where a number or an array that the functions read has
        another value.

    Notes
    -----
    `t` is taken and ignored: such a map does not depend on the step.

    A compiled map is compiled when it is made, with the values that globals, closures and defaults
    have then; the functions' code, and all that it reads, decide whether it has to be compiled
    again. After a change make a new map; one that is not compiled sees every change. A function
    that is compiled already keeps the values that Numba gave it: after a change call its
    ``recompile()``.

    Where a compiled function raises an exception in `lyapunov_spectrum`, `ftle`, `gali` or
    `covariant_lyapunov_vectors`, its run ends with `status` 3 and is nan from there on, and the
    others go on. `step`, `jacobian`, `tangent` and `trajectory`, and every function of a map that
    is not compiled, hand the exception on.
    """

    def __init__(
        self,
        step: Callable[[Floats], ArrayLike],
        jacobian: Callable[[Floats], ArrayLike],
        n: int,
        *,
        compiled: bool = False,
    ) -> None:
        for name, value in (("step", step), ("jacobian", jacobian)):
            if not callable(value):
                raise ArgumentTypeError(name, f"must be callable, got {_checks.describe(value)}")
        self._given = (step, jacobian)
        self._n = _checks.integer("n", n, least=1)
        self._compiled = None
        self._frozen: tuple[tuple[str, str], ...] = ()  # numbers that are compiled in, by place
        if _checks.flag("compiled", compiled):
            from pylyap._compile import compile_map

            self._compiled, frozen = compile_map(step, jacobian, self._n)
            self._frozen = tuple(sorted(frozen.values.items()))
            step, jacobian = self._compiled.step, self._compiled.jacobian
        self._step = step
        self._jacobian = jacobian

    def __reduce__(self) -> tuple[Any, ...]:
        return _discrete_map, (*self._given, self._n, self._compiled is not None, self._frozen)

    def __copy__(self) -> DiscreteMap:
        return self

    def __deepcopy__(self, _: Any) -> DiscreteMap:
        return self

    @property
    def n(self) -> int:
        """Length of a state."""
        return self._n

    def __repr__(self) -> str:
        name = getattr(self._given[0], "__qualname__", repr(self._given[0]))
        return f"DiscreteMap({name}, n={self.n}{', compiled=True' * (self._compiled is not None)})"

    def step(self, x: ArrayLike, t: int = 0) -> Floats:
        """The states (..., n) after one step from states (..., n)."""
        states = self._state(x)
        out = np.empty_like(states)
        for index in np.ndindex(states.shape[:-1]):
            out[index] = self.step_one(states[index])
        return out

    def jacobian(self, x: ArrayLike, t: int = 0) -> Floats:
        """The Jacobian (..., n, n) at states (..., n)."""
        states = self._state(x)
        out = np.empty((*states.shape, self.n))
        for index in np.ndindex(states.shape[:-1]):
            out[index] = self.jacobian_one(states[index])
        return out

    def tangent(self, x: ArrayLike, V: ArrayLike, t: int = 0) -> Floats:
        """``jacobian(x) @ V`` for V (..., n, k)."""
        vectors = _checks.floats("V", V, finite=False)
        if vectors.ndim == 0 or vectors.shape[-2 if vectors.ndim > 1 else -1] != self.n:
            raise ArgumentError("V", f"must have shape (..., {self.n}, k), got {vectors.shape}")
        return self.jacobian(x) @ vectors

    def trajectory(self, x: ArrayLike, n_steps: int, every: int = 1, start: int = 0) -> Floats:
        """The states along a run: (..., n_steps // every + 1, n), the first is x."""
        n_steps = _checks.integer("n_steps", n_steps, least=0)
        every = _checks.integer("every", every, least=1)
        _checks.integer("start", start, least=0)
        if n_steps % every:
            raise ArgumentError(
                "every", f"must divide n_steps, got every={every} and n_steps={n_steps}"
            )
        states = self._state(x)
        batch = states.shape[:-1]
        shape = (*batch, n_steps // every + 1, self.n)
        _checks.memory(
            f"the trajectory of n_steps={n_steps} steps", 8.0 * math.prod(shape),
            "record less with every=",
        )  # fmt: skip
        out = np.empty(shape)
        for index in np.ndindex(batch):
            state = states[index]
            out[(*index, 0)] = state
            for s in range(1, n_steps + 1):
                state = self.step_one(state)
                if s % every == 0:
                    out[(*index, s // every)] = state
        return out

    def step_one(self, x: Floats) -> Floats:
        """The state (n,) after x (n,); nan in all of it if it is not finite."""
        result = self._step(x.copy())  # a callable may work in place
        if np.shape(result) != (self._n,):
            raise _WrongShape(f"step must return shape ({self._n},), got {np.shape(result)}")
        after = _checks.floats("step(x)", result, finite=False)
        if not np.isfinite(after).all():
            return np.full(self._n, np.nan)
        return after

    def jacobian_one(self, x: Floats) -> Floats:
        """The Jacobian (n, n) at x (n,)."""
        result = self._jacobian(x.copy())
        if np.shape(result) != (self._n, self._n):
            raise _WrongShape(
                f"jacobian must return shape ({self._n}, {self._n}), got {np.shape(result)}"
            )
        return _checks.floats("jacobian(x)", result, finite=False)

    def _state(self, x: ArrayLike, name: str = "x", *, finite: bool = False) -> Floats:
        states = _checks.floats(name, x, finite=finite)
        if states.ndim == 0 or states.shape[-1] != self.n:
            raise ArgumentError(name, f"must have shape (..., {self.n}), got {states.shape}")
        return states

    def _try(self, x: Floats) -> float:
        """Seconds that step and Jacobian of a compiled map take at x (n,), once their shapes are
        right there; an exception of theirs is left to the run that meets it."""
        seconds = 0.0
        for function in (self.step_one, self.jacobian_one):
            taken = math.inf
            for _ in range(2):  # a first call may be slow for other reasons
                start = perf_counter()
                try:
                    function(x)
                except _WrongShape:
                    raise
                except Exception:
                    return seconds
                taken = min(taken, perf_counter() - start)
                if not _QUICK < taken < _SLOW:
                    break
            seconds += taken
        return seconds


# Between these, in seconds, a function is tried again.
_QUICK, _SLOW = 1e-4, 1e-2


class _WrongShape(ValueError):
    """A user's function returned another shape than it has to."""


def _discrete_map(
    step: Any, jacobian: Any, n: int, compiled: bool, frozen: tuple[tuple[str, str], ...] = ()
) -> DiscreteMap:
    if frozen:
        from pylyap._compile import Frozen

        Frozen({"step": step, "jacobian": jacobian}).require(frozen, "map")
    return DiscreteMap(step, jacobian, n, compiled=compiled)


Step = Callable[[Floats, int], Floats]
Push = Callable[[Floats, Floats, int], Floats]


def require_training(system: Any) -> None:
    """Refuse what is no `TrainingMap`."""
    if not isinstance(system, TrainingMap):
        raise ArgumentTypeError("system", f"must be a TrainingMap, got {_checks.describe(system)}")


def callables(
    system: Map,
) -> tuple[Step | int, Step | int | None, Push | None, Callable[[Floats], float] | None]:
    """Step, Jacobian or else tangent, and loss (or None) of a map, as the core calls them: Python's
    or, of a compiled map, addresses."""
    if isinstance(system, DiscreteMap) and system._compiled is not None:
        return (*system._compiled.addresses, None, None)
    loss = getattr(system, "loss", None)
    value = None if loss is None else lambda x: float(loss(x))
    if isinstance(system, DiscreteMap):
        return (
            lambda x, t: system.step_one(x),
            lambda x, t: system.jacobian_one(x),
            None,
            value,
        )
    return (
        lambda x, t: np.ascontiguousarray(system.step(x, t), dtype=np.float64),
        None,
        lambda x, V, t: np.ascontiguousarray(system.tangent(x, V, t), dtype=np.float64),
        value,
    )
