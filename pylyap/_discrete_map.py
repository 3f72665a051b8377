"""Discrete maps given by functions, and any other map as the compiled core calls it."""

from __future__ import annotations

import math
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._errors import ArgumentError, ArgumentTypeError
from pylyap._native import core

if TYPE_CHECKING:
    from pylyap.maps import Map


class DiscreteMap:
    """A map given by a step function and its Jacobian.

    Parameters
    ----------
    step : callable
        Function of one state (n,) that returns the next, (n,).
    jacobian : callable
        Function of one state (n,) that returns the Jacobian of `step` there, (n, n).
    n : int
        Length of a state.
    compiled : bool, default False
        Whether to compile both functions with Numba. The core then calls them without Python and on
        all cores, about a hundred times faster. They must return arrays of float64 or tuples of
        numbers (for a Jacobian, tuples of its rows) and keep no internal state. Tuples are several
        times faster for small maps, since no array is allocated.

    Raises
    ------
    ArgumentError
        If an argument is not callable, or Numba cannot compile it. If a pickle of a compiled map
        is loaded where a number or an array that the functions read has another value. In every
        method and analysis, if a function returns a wrong shape.

    Notes
    -----
    `t` is accepted and ignored: the map does not depend on the index of the step.

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
        self._frozen: tuple[tuple[str, str], ...] = ()  # values that are compiled in, by place
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
        """States after one step.

        Parameters
        ----------
        x : array_like, shape (..., n)
            States before the step.
        t : int, default 0
            Ignored.

        Returns
        -------
        ndarray, shape (..., n)
            States after the step. All of a state is nan if an entry of it is not finite.
        """
        states = self._state(x)
        out = np.empty_like(states)
        for index in np.ndindex(states.shape[:-1]):
            out[index] = self.step_one(states[index])
        return out

    def jacobian(self, x: ArrayLike, t: int = 0) -> Floats:
        """Jacobian of the step.

        Parameters
        ----------
        x : array_like, shape (..., n)
            States before the step.
        t : int, default 0
            Ignored.

        Returns
        -------
        ndarray, shape (..., n, n)
            Jacobians at x.
        """
        states = self._state(x)
        out = np.empty((*states.shape, self.n))
        for index in np.ndindex(states.shape[:-1]):
            out[index] = self.jacobian_one(states[index])
        return out

    def tangent(self, x: ArrayLike, V: ArrayLike, t: int = 0) -> Floats:
        """Jacobian applied to tangent vectors, ``jacobian(x) @ V``.

        Parameters
        ----------
        x : array_like, shape (..., n)
            States before the step.
        V : array_like, shape (..., n, k)
            Tangent vectors, in the columns.
        t : int, default 0
            Ignored.

        Returns
        -------
        ndarray, shape (..., n, k)
            Tangent vectors after the step.
        """
        vectors = _checks.floats("V", V, finite=False)
        if vectors.ndim == 0 or vectors.shape[-2 if vectors.ndim > 1 else -1] != self.n:
            raise ArgumentError("V", f"must have shape (..., {self.n}, k), got {vectors.shape}")
        return self.jacobian(x) @ vectors

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
            Ignored.

        Returns
        -------
        ndarray, shape (..., n_steps // every + 1, n)
            Recorded states; the first is x.
        """
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
        """State after one state.

        Parameters
        ----------
        x : ndarray, shape (n,)
            State before the step.

        Returns
        -------
        ndarray, shape (n,)
            State after the step, all nan if an entry is not finite.
        """
        result = self._step(x.copy())  # a callable may work in place
        if np.shape(result) != (self._n,):
            raise _WrongShape(f"step must return shape ({self._n},), got {np.shape(result)}")
        after = _checks.floats("step(x)", result, finite=False)
        if not np.isfinite(after).all():
            return np.full(self._n, np.nan)
        return after

    def jacobian_one(self, x: Floats) -> Floats:
        """Jacobian at one state.

        Parameters
        ----------
        x : ndarray, shape (n,)
            State before the step.

        Returns
        -------
        ndarray, shape (n, n)
            Jacobian at x.
        """
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
                except _WrongShape:
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


class _WrongShape(ValueError):
    """A user's function returned a wrong shape."""


def _discrete_map(
    step: Any, jacobian: Any, n: int, compiled: bool, frozen: tuple[tuple[str, str], ...] = ()
) -> DiscreteMap:
    if frozen:
        from pylyap._compile import Frozen

        Frozen({"step": step, "jacobian": jacobian}).require(frozen, "map")
    return DiscreteMap(step, jacobian, n, compiled=compiled)


def callable_map(system: Map) -> core.CallableMap:
    """The functions of a map, as the core calls them: of Python or, if compiled, by address."""
    if isinstance(system, DiscreteMap) and system._addresses is not None:
        return core.CallableMap(*system._addresses, None, None)
    loss = getattr(system, "loss", None)
    value = None if loss is None else lambda x: float(loss(x))
    if isinstance(system, DiscreteMap):
        return core.CallableMap(
            lambda x, t: system.step_one(x), lambda x, t: system.jacobian_one(x), None, value
        )
    return core.CallableMap(
        lambda x, t: np.ascontiguousarray(system.step(x, t), dtype=np.float64),
        None,
        lambda x, V, t: np.ascontiguousarray(system.tangent(x, V, t), dtype=np.float64),
        value,
    )


_RATE = 4e9  # multiplications per second, as `over_runs` counts them


def callable_work(system: Map, states: Floats, k: int) -> tuple[int, bool, float]:
    """Division of the work of a callable map: group of runs, whether to use threads, step cost.

    A map that calls Python uses no threads. A compiled map is timed at the first of the states
    (runs, n): if it is slow, it must not run in the main thread, which waits for Ctrl-C.
    """
    if not isinstance(system, DiscreteMap) or system._addresses is None:
        return 1, False, 0.0
    seconds = max((system._step_seconds(x) for x in states[:1]), default=0.0)
    n = system.n
    return core.CallableMap.group(n), True, max(1000.0 + 10.0 * n * n * k, _RATE * seconds)
