"""Functions of a map that the user wrote: calls on batches of states, and checks of the results."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._errors import ArgumentError

_FLOAT64 = np.dtype(np.float64)


class WrongShape(ValueError):
    """A user's function returned a wrong shape."""


class Function:
    """A function of the user whose results are checked and converted to float64 arrays.

    Parameters
    ----------
    name : str
        Name of the function, for messages.
    call : callable
        The function.
    batched : bool
        Whether its arguments and its result have a first axis over runs.
    twice : bool
        Whether to call it twice with the same arguments at first, and to refuse the map if the
        results differ.
    """

    __slots__ = ("_call", "_twice", "batched", "name")

    def __init__(self, name: str, call: Callable[..., Any], batched: bool, twice: bool) -> None:
        self.name, self.batched = name, batched
        self._call, self._twice = call, twice

    def __call__(self, shape: tuple[int, ...], *arguments: Any) -> Floats:
        """The result of this shape. The function may write to the arrays it gets."""
        if self._twice:
            self._twice = False
            copies = [np.array(a) if isinstance(a, np.ndarray) else a for a in arguments]
            first = np.array(self._checked(shape, self._call(*copies)))  # it may reuse its array
            self._require_same(first, self._checked(shape, self._call(*arguments)))
            return first
        return self._checked(shape, self._call(*arguments))

    def _checked(self, shape: tuple[int, ...], result: Any) -> Floats:
        if (
            type(result) is np.ndarray
            and result.shape == shape
            and result.dtype is _FLOAT64
            and result.flags.carray
        ):
            return result
        if np.shape(result) != shape:
            raise WrongShape(f"{self.name} must return shape {shape}, got {np.shape(result)}")
        return _checks.floats(f"{self.name}(x)", result, finite=False)

    def _require_same(self, first: Floats, second: Floats) -> None:
        same = (first == second) | (np.isnan(first) & np.isnan(second))
        if same.all():
            return
        with np.errstate(invalid="ignore", over="ignore"):
            difference = np.abs(first - second)[~same].max()
        raise ArgumentError(
            "system",
            f"must be deterministic: two calls of {self.name} with the same arguments gave "
            f"different results (largest difference {difference:.3g}). Likely causes: random "
            "numbers (noise, dropout, randomly drawn minibatches), or something that is kept from "
            "call to call (a counter, BatchNorm in training mode, buffers of an optimiser). Draw "
            "random numbers as a function of t, and make what is kept a part of the state",
        )


@dataclass(frozen=True)
class Functions:
    """The functions of a map. Those that are not batched are called for one state after another.

    States are arrays (runs, n) and are copied before a function gets them.
    """

    n: int
    step: Function  # (x, t)
    jacobian: Function | None = None  # (x, t)
    tangent: Function | None = None  # (x, V, t)
    loss: Function | None = None  # (x)
    gradient: Function | None = None  # (x)
    hessian_vector: Function | None = None  # (x, V)
    adjoint: Function | None = None  # (x, V, t)
    batch_gradient: Function | None = None  # (x, t)
    batch_hessian_vector: Function | None = None  # (x, V, t)

    def apply(
        self, function: Function, tail: tuple[int, ...], *arrays: Floats, after: tuple[Any, ...]
    ) -> Floats:
        """Results (runs, *tail) of a function for arrays over runs; `after` are other arguments."""
        runs = len(arrays[0])
        if function.batched:
            if runs == 0:
                return np.empty((0, *tail))
            return function((runs, *tail), *(a.copy() for a in arrays), *after)
        out = np.empty((runs, *tail))
        for r in range(runs):
            out[r] = function(tail, *(a[r].copy() for a in arrays), *after)
        return out

    def next_states(self, X: Floats, t: int) -> Floats:
        """States (runs, n) after step t; all of a state is nan if an entry is not finite."""
        out = self.apply(self.step, (self.n,), X, after=(t,))
        return nan_unless_finite(out)

    def jacobians(self, X: Floats, t: int) -> Floats:
        """Jacobians (runs, n, n) of step t."""
        if self.jacobian is not None:
            return self.apply(self.jacobian, (self.n, self.n), X, after=(t,))
        identity = np.broadcast_to(np.eye(self.n), (len(X), self.n, self.n))
        return self.pushed(X, identity, t)

    def pushed(self, X: Floats, V: Floats, t: int) -> Floats:
        """Tangent vectors (runs, n, k) after step t."""
        if self.tangent is None:
            result: Floats = self.jacobians(X, t) @ V
            return result
        return self.apply(self.tangent, V.shape[1:], X, V, after=(t,))

    def pulled(self, X: Floats, V: Floats, t: int) -> Floats:
        """Transposed Jacobians (runs, n, n) of step t times vectors (runs, n, k)."""
        if self.adjoint is None:
            result: Floats = self.jacobians(X, t).swapaxes(1, 2) @ V
            return result
        return self.apply(self.adjoint, V.shape[1:], X, V, after=(t,))

    def one_step(self, x: Floats, t: int) -> Floats:
        """State (n,) after step t; x may be overwritten."""
        return _of_one(self.step, (self.n,), x, t)

    def one_jacobian(self, x: Floats, t: int) -> Floats:
        """Jacobian (n, n) of step t; x may be overwritten."""
        assert self.jacobian is not None
        return _of_one(self.jacobian, (self.n, self.n), x, t)

    def one_tangent(self, x: Floats, V: Floats, t: int) -> Floats:
        """Tangent vectors (n, k) after step t; x and V may be overwritten."""
        assert self.tangent is not None
        return _of_one(self.tangent, V.shape, x, V, t)

    def one_loss(self, x: Floats) -> float:
        """Loss of a state (n,), which may be overwritten."""
        assert self.loss is not None
        return float(_of_one(self.loss, (), x))


def _of_one(function: Function, shape: tuple[int, ...], *arguments: Any) -> Floats:
    """The result of a function for one state, whether it is batched or not."""
    if not function.batched:
        return function(shape, *arguments)
    batches = [a[np.newaxis] if isinstance(a, np.ndarray) else a for a in arguments]
    result: Floats = function((1, *shape), *batches)[0]
    return result


def nan_unless_finite(X: Floats) -> Floats:
    """States (runs, n); all of a state is nan if an entry is not finite."""
    finite = np.asarray(np.isfinite(X).all(axis=1))
    return X if finite.all() else np.where(finite[:, np.newaxis], X, np.nan)


def takes_time(function: Callable[..., Any], n_arrays: int) -> bool:
    """Whether a function takes the index of the step after its arrays, by its signature.

    It does if it has one more positional parameter, which has no default value or the name t.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except Exception:  # a builtin without a signature; foreign objects may raise anything
        return False
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [p for p in parameters if p.kind in kinds]
    if len(positional) <= n_arrays:
        return False
    last = positional[n_arrays]
    return last.default is inspect.Parameter.empty or last.name == "t"


def without_time(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that ignores its last argument."""

    def call(*arguments: Any) -> Any:
        return function(*arguments[:-1])

    return call
