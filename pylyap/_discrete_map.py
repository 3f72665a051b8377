"""Discrete maps given by functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._errors import ArgumentError, ArgumentTypeError
from pylyap._functions import Function, Functions, WrongShape, takes_time, without_time

# Number of arrays that each function takes; those in _TIMED may take the index t after them.
_ARRAYS = {
    "step": 1,
    "jacobian": 1,
    "tangent": 2,
    "adjoint": 2,
    "loss": 1,
    "gradient": 1,
    "hessian_vector": 2,
}
_TIMED = ("step", "jacobian", "tangent", "adjoint")


class DiscreteMap:
    """A map given by a step function and its derivative.

    Parameters
    ----------
    step : callable
        Function of one state (n,) that returns the next, (n,): ``step(x)`` or ``step(x, t)``.
    jacobian : callable, optional
        Function of one state (n,) that returns the Jacobian of `step` there, (n, n):
        ``jacobian(x)`` or ``jacobian(x, t)``. Either `jacobian` or `tangent` is needed.
    n : int
        Length of a state.
    tangent : callable, optional
        ``tangent(x, V)`` or ``tangent(x, V, t)`` returns ``J(x) @ V`` for tangent vectors V (n, k),
        without the Jacobian. If both are given, analyses use `tangent`.
    compiled : bool, default False
        Whether to compile `step` and `jacobian` with Numba. The core then calls them without Python
        and on all cores, about a hundred times faster. They must return arrays of float64 or tuples
        of numbers (for a Jacobian, tuples of its rows) and keep no internal state. Tuples are
        several times faster for small maps, since no array is allocated. Compiled functions do not
        take t, and no other function is allowed beside them.
    vectorized : bool, default False
        Whether all functions take whole batches, with a first axis over runs: states (m, n),
        tangent vectors (m, n, k), Jacobians (m, n, n), losses (m,). Each analysis then calls them
        once per step for all runs. Results of a run do not depend on the others to the extent that
        this is true of the functions.
    loss : callable, optional
        ``loss(x)`` returns a number, which `lyapunov_spectrum` and `perturbation_ensemble` record.
    gradient : callable, optional
        ``gradient(x)`` returns the gradient of the loss, (n,).
    hessian_vector : callable, optional
        ``hessian_vector(x, V)`` returns the Hessian of the loss applied to the columns of V (n, k).
        `sharpness`, `sharpness_along` and `hessian_spectrum` need it.
    adjoint : callable, optional
        ``adjoint(x, V)`` or ``adjoint(x, V, t)`` returns ``J(x).T @ V`` for vectors V (n, k),
        without the Jacobian. By default the method `adjoint` uses the Jacobian.

    Attributes
    ----------
    loss, gradient, hessian_vector
        Methods for states (..., n), present only if the function was given.

    Raises
    ------
    ArgumentError
        If an argument is not callable, neither `jacobian` nor `tangent` is given, or Numba cannot
        compile a function. If a pickle of a compiled map is loaded where a number or an array that
        the functions read has another value. In every analysis, if two calls of a function that is
        not compiled with the same arguments give different results.
    ValueError
        In every method and analysis, if a function returns a wrong shape.

    Notes
    -----
    Whether a function takes the index t of the step is decided once, by its signature: it does if
    it has one positional parameter more than the arrays, without a default value or with the name
    t. Otherwise the map does not depend on t.

    A compiled map is compiled when it is created, with the values that globals, closures and
    defaults have then; it is compiled again only if the functions' code or these values differ.
    After a change create a new map; a map that is not compiled sees every change. A function that
    Numba has already compiled keeps its values: after a change call its ``recompile()``.

    If a compiled function raises an exception in `lyapunov_spectrum`, `ftle`, `gali` or
    `covariant_lyapunov_vectors`, its run ends with ``Status.RAISED`` and is nan from there on; the
    other runs continue. `step`, `jacobian`, `tangent` and `trajectory`, and every function of a map
    that is not compiled, raise the exception.

    Examples
    --------
    >>> import numpy as np
    >>> import pylyap as pl
    >>> henon = pl.DiscreteMap(
    ...     lambda x: [1.0 - 1.4 * x[0] ** 2 + x[1], 0.3 * x[0]],
    ...     lambda x: [[-2.8 * x[0], 1.0], [0.3, 0.0]],
    ...     n=2,
    ... )
    >>> henon.step([0.0, 0.0])
    array([1., 0.])
    >>> exponents = pl.lyapunov_spectrum(henon, [0.1, 0.1], n_steps=1000, n_transient=100).exponents
    >>> round(float(exponents.sum()), 4)  # ln 0.3
    -1.204

    Two coupled logistic maps, 64 runs in each call:

    >>> def mixed(z):
    ...     return 0.9 * z + 0.1 * z[:, ::-1]
    >>> pair = pl.DiscreteMap(
    ...     lambda X: mixed(4.0 * X * (1.0 - X)),
    ...     tangent=lambda X, V: mixed((4.0 - 8.0 * X)[:, :, np.newaxis] * V),
    ...     n=2,
    ...     vectorized=True,
    ... )
    >>> x0 = np.random.default_rng(0).random((64, 2))
    >>> pl.lyapunov_spectrum(pair, x0, n_steps=100).exponents.shape
    (64, 2)
    """

    def __init__(
        self,
        step: Callable[..., ArrayLike],
        jacobian: Callable[..., ArrayLike] | None = None,
        n: int | None = None,
        *,
        tangent: Callable[..., ArrayLike] | None = None,
        compiled: bool = False,
        vectorized: bool = False,
        loss: Callable[[Floats], ArrayLike] | None = None,
        gradient: Callable[[Floats], ArrayLike] | None = None,
        hessian_vector: Callable[[Floats, Floats], ArrayLike] | None = None,
        adjoint: Callable[..., ArrayLike] | None = None,
    ) -> None:
        if n is None:
            raise ArgumentTypeError("n", "must be an integer, the length of a state, got None")
        self._n = _checks.integer("n", n, least=1)
        given = {
            "step": step, "jacobian": jacobian, "tangent": tangent, "loss": loss,
            "gradient": gradient, "hessian_vector": hessian_vector, "adjoint": adjoint,
        }  # fmt: skip
        self._given = {name: value for name, value in given.items() if value is not None}
        for name, value in given.items():
            if not callable(value) and (value is not None or name == "step"):
                raise ArgumentTypeError(name, f"must be callable, got {_checks.describe(value)}")
        self._compiled = None
        self._frozen: tuple[tuple[str, str], ...] = ()  # values that are compiled in, by place
        self._vectorized = _checks.flag("vectorized", vectorized)
        calls: dict[str, Any] = dict(self._given)
        if _checks.flag("compiled", compiled):
            from pylyap._compile import compile_map

            self._require_compilable()
            self._compiled, frozen = compile_map(step, jacobian, self._n)
            self._frozen = tuple(sorted(frozen.values.items()))
            calls = {"step": self._compiled.step, "jacobian": self._compiled.jacobian}
        elif jacobian is None and tangent is None:
            raise ArgumentTypeError(
                "jacobian", "must be callable where tangent is left out, got None"
            )
        for name in _TIMED:
            if name in calls and not takes_time(self._given[name], _ARRAYS[name]):
                calls[name] = without_time(calls[name])
        self._calls = calls
        self._functions = self._checked_functions()
        for name in ("loss", "gradient", "hessian_vector"):
            if name in calls:  # a map without one has no such attribute
                setattr(self, name, getattr(self, f"_{name}"))

    def _require_compilable(self) -> None:
        """Refuse what a compiled map cannot have."""
        if "jacobian" not in self._given:
            raise ArgumentTypeError(
                "jacobian", "must be callable for compiled=True, also beside a tangent, got None"
            )
        for name in self._given:
            if name not in ("step", "jacobian"):
                raise ArgumentError(
                    name, "must be left out for compiled=True: the core calls step and jacobian"
                )
            if takes_time(self._given[name], 1):
                raise ArgumentError(
                    name, "must be a function of the state alone for compiled=True, not of t"
                )
        if self._vectorized:
            raise ArgumentError(
                "vectorized", "must be False for compiled=True: the core makes the loop over runs"
            )

    def _checked_functions(self, *, twice: bool = False) -> Functions:
        """The functions with checks of their results, and of determinism if `twice`."""
        twice = twice and self._compiled is None
        functions = {
            name: Function(name, call, self._vectorized, twice)
            for name, call in self._calls.items()
        }
        return Functions(self._n, **functions)

    def __reduce__(self) -> tuple[Any, ...]:
        options: dict[str, Any] = {
            name: value for name, value in self._given.items() if name not in ("step", "jacobian")
        }
        if self._vectorized:
            options["vectorized"] = True
        functions = (self._given["step"], self._given.get("jacobian"))
        settings = (self._n, self._compiled is not None, self._frozen)
        return _discrete_map, (*functions, *settings, *((options,) if options else ()))

    def __copy__(self) -> DiscreteMap:
        return self

    def __deepcopy__(self, _: Any) -> DiscreteMap:
        return self

    @property
    def n(self) -> int:
        """Length of a state."""
        return self._n

    def __repr__(self) -> str:
        step = self._given["step"]
        name = getattr(step, "__qualname__", repr(step))
        kind = ", compiled=True" * (self._compiled is not None)
        return f"DiscreteMap({name}, n={self.n}{kind}{', vectorized=True' * self._vectorized})"

    def step(self, x: ArrayLike, t: int = 0) -> Floats:
        """States after one step.

        Parameters
        ----------
        x : array_like, shape (..., n)
            States before the step.
        t : int, default 0
            Index of the step; ignored by a map that does not depend on it.

        Returns
        -------
        ndarray, shape (..., n)
            States after the step. All of a state is nan if an entry of it is not finite.
        """
        states, t = self._state(x), _checks.integer("t", t, least=0)
        return self._functions.next_states(states.reshape(-1, self.n), t).reshape(states.shape)

    def jacobian(self, x: ArrayLike, t: int = 0) -> Floats:
        """Jacobian of the step; from `tangent` and the unit vectors if it was not given.

        Parameters
        ----------
        x : array_like, shape (..., n)
            States before the step.
        t : int, default 0
            Index of the step; ignored by a map that does not depend on it.

        Returns
        -------
        ndarray, shape (..., n, n)
            Jacobians at x.
        """
        states, t = self._state(x), _checks.integer("t", t, least=0)
        _checks.memory(
            f"Jacobians of {states.size // self.n} states of length {self.n}",
            8.0 * states.size * self.n,
            "use tangent, which needs no Jacobian",
        )
        found = self._functions.jacobians(states.reshape(-1, self.n), t)
        return found.reshape((*states.shape, self.n))

    def tangent(self, x: ArrayLike, V: ArrayLike, t: int = 0) -> Floats:
        """Jacobian applied to tangent vectors, ``jacobian(x) @ V``.

        Parameters
        ----------
        x : array_like, shape (..., n)
            States before the step.
        V : array_like, shape (..., n, k) or (n,)
            Tangent vectors, in the columns.
        t : int, default 0
            Index of the step; ignored by a map that does not depend on it.

        Returns
        -------
        ndarray, shape (..., n, k) or (..., n)
            Tangent vectors after the step.
        """
        vectors = self._vectors(V)
        if self._functions.tangent is None:
            return self.jacobian(x, t) @ vectors
        states, t = self._state(x), _checks.integer("t", t, least=0)
        return self._over_columns(self._functions.pushed, states, vectors, t)

    def adjoint(self, x: ArrayLike, V: ArrayLike, t: int = 0) -> Floats:
        """Transposed Jacobian applied to vectors, ``jacobian(x).T @ V``.

        Parameters
        ----------
        x : array_like, shape (..., n)
            States before the step.
        V : array_like, shape (..., n, k) or (n,)
            Vectors, in the columns. Their batch broadcasts against the batch of x.
        t : int, default 0
            Index of the step; ignored by a map that does not depend on it.

        Returns
        -------
        ndarray, shape (..., n, k) or (..., n)
            Products, by the function `adjoint` or, if it was not given, by the Jacobian.
        """
        vectors, states = self._vectors(V), self._state(x)
        t = _checks.integer("t", t, least=0)
        if self._functions.adjoint is None:
            _checks.memory(
                f"Jacobians of {states.size // self.n} states of length {self.n}",
                8.0 * states.size * self.n,
                "give the map an adjoint, which needs no Jacobian",
            )
        return self._over_columns(self._functions.pulled, states, vectors, t)

    def trajectory(self, x: ArrayLike, n_steps: int, every: int = 1, start: int = 0) -> Floats:
        """States along runs.

        Parameters
        ----------
        x : array_like, shape (..., n)
            Initial states.
        n_steps : int
            Number of steps.
        every : int, default 1
            Steps between two recorded states; divides `n_steps`.
        start : int, default 0
            Index t of the first step.

        Returns
        -------
        ndarray, shape (..., n_steps // every + 1, n)
            Recorded states; the first is x.
        """
        n_steps, every, start = _checks.recorded_steps(n_steps, every, start)
        states = self._state(x)
        shape = (*states.shape[:-1], n_steps // every + 1, self.n)
        _checks.trajectory_memory(n_steps, shape)
        out = np.empty(shape)
        flat = out.reshape(-1, *shape[-2:])
        flat[:, 0] = states.reshape(-1, self.n)
        if self._vectorized:
            self._fill(flat.swapaxes(0, 1), self._functions.next_states, n_steps, every, start)
        else:
            for path in flat:
                self._fill(path, self.step_one, n_steps, every, start)
        return out

    @staticmethod
    def _fill(
        path: Floats, step: Callable[[Floats, int], Floats], n_steps: int, every: int, start: int
    ) -> None:
        """Fill path[1:] with the states, of one or of all runs, after each `every` steps."""
        now: Floats = path[0]
        for s in range(n_steps):
            now = step(now, start + s)
            if (s + 1) % every == 0:
                path[(s + 1) // every] = now

    def step_one(self, x: Floats, t: int = 0) -> Floats:
        """State after one state.

        Parameters
        ----------
        x : ndarray, shape (n,)
            State before the step.
        t : int, default 0
            Index of the step; ignored by a map that does not depend on it.

        Returns
        -------
        ndarray, shape (n,)
            State after the step, all nan if an entry is not finite.
        """
        after = self._functions.one_step(x.copy(), t)
        return after if np.isfinite(after).all() else np.full(self._n, np.nan)

    def jacobian_one(self, x: Floats, t: int = 0) -> Floats:
        """Jacobian at one state.

        Parameters
        ----------
        x : ndarray, shape (n,)
            State before the step.
        t : int, default 0
            Index of the step; ignored by a map that does not depend on it.

        Returns
        -------
        ndarray, shape (n, n)
            Jacobian at x.
        """
        if self._functions.jacobian is None:
            found: Floats = self._functions.jacobians(x[np.newaxis], t)[0]
            return found
        return self._functions.one_jacobian(x.copy(), t)

    # Methods of maps that were given these functions.

    def _loss(self, x: ArrayLike) -> Floats:
        """Losses (...) of states (..., n)."""
        return self._over_states(self._functions.loss, (), x)

    def _gradient(self, x: ArrayLike) -> Floats:
        """Gradients (..., n) of the loss at states (..., n)."""
        return self._over_states(self._functions.gradient, (self.n,), x)

    def _hessian_vector(self, x: ArrayLike, V: ArrayLike) -> Floats:
        """Hessian of the loss at states (..., n) applied to the columns of V (..., n, k)."""
        vectors = self._vectors(V)
        function = self._functions.hessian_vector
        assert function is not None

        def products(X: Floats, V: Floats, _: int) -> Floats:
            return self._functions.apply(function, V.shape[1:], X, V, after=())

        return self._over_columns(products, self._state(x), vectors, 0)

    def _over_states(
        self, function: Function | None, tail: tuple[int, ...], x: ArrayLike
    ) -> Floats:
        assert function is not None
        states = self._state(x)
        found = self._functions.apply(function, tail, states.reshape(-1, self.n), after=())
        result: Floats = found.reshape((*states.shape[:-1], *tail))[()]
        return result

    def _over_columns(
        self, products: Callable[[Floats, Floats, int], Floats], states: Floats, V: Floats, t: int
    ) -> Floats:
        """Products of a matrix at each state (..., n) with V (..., n, k) or (n,)."""
        columns = V[:, np.newaxis] if V.ndim == 1 else V
        k = columns.shape[-1]
        try:
            batch = np.broadcast_shapes(states.shape[:-1], columns.shape[:-2])
        except ValueError:
            raise ArgumentError(
                "V",
                f"must broadcast against states of batch shape {states.shape[:-1]}, got {V.shape}",
            ) from None
        X = np.broadcast_to(states, (*batch, self.n)).reshape(-1, self.n)
        columns = np.broadcast_to(columns, (*batch, self.n, k)).reshape(-1, self.n, k)
        out = products(X, columns, t).reshape((*batch, self.n, k))
        return out[..., 0] if V.ndim == 1 else out

    def _vectors(self, V: ArrayLike) -> Floats:
        vectors = _checks.floats("V", V, finite=False)
        if vectors.ndim == 0 or vectors.shape[-2 if vectors.ndim > 1 else -1] != self.n:
            raise ArgumentError("V", f"must have shape (..., {self.n}, k), got {vectors.shape}")
        return vectors

    def _state(self, x: ArrayLike, name: str = "x") -> Floats:
        states = _checks.floats(name, x, finite=False)
        if states.ndim == 0 or states.shape[-1] != self.n:
            raise ArgumentError(name, f"must have shape (..., {self.n}), got {states.shape}")
        return states

    @property
    def _addresses(self) -> tuple[int, int] | None:
        """Addresses of the compiled functions in C, or None."""
        return None if self._compiled is None else self._compiled.addresses

    def _step_seconds(self, x: Floats) -> float:
        """Seconds that step and Jacobian of a compiled map take at x (n,), after a check of their
        shapes. An exception that they raise is left to the run in which it occurs."""
        seconds = 0.0
        for function in (self.step_one, self.jacobian_one):
            taken = math.inf
            for _ in range(2):  # a first call may be slow for other reasons
                start = perf_counter()
                try:
                    function(x)
                except WrongShape:
                    raise
                except Exception:
                    return seconds
                taken = min(taken, perf_counter() - start)
                if not _QUICK < taken < _SLOW:
                    break
            seconds += taken
        return seconds


# A time between these, in seconds, is measured twice.
_QUICK, _SLOW = 1e-4, 1e-2


def _discrete_map(
    step: Any,
    jacobian: Any,
    n: int,
    compiled: bool,
    frozen: tuple[tuple[str, str], ...] = (),
    options: dict[str, Any] | None = None,
) -> DiscreteMap:
    if frozen:
        from pylyap._compile import Frozen

        Frozen({"step": step, "jacobian": jacobian}).require(frozen, "map")
    return DiscreteMap(step, jacobian, n, compiled=compiled, **(options or {}))
