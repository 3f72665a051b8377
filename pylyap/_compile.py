"""A user's functions, compiled by Numba into what the core calls."""

from __future__ import annotations

import types
from functools import lru_cache
from typing import Any, NamedTuple

from pylyap import _checks


class CompiledMap(NamedTuple):
    """The functions as compiled, for calls from Python, and the addresses of both in C."""

    step: Any
    jacobian: Any
    calls: tuple[Any, Any]  # numba.cfunc: void(const double* x, double* out)

    @property
    def addresses(self) -> tuple[int, int]:
        """Of step and Jacobian."""
        return self.calls[0].address, self.calls[1].address


@lru_cache(maxsize=64)
def compile_map(step: Any, jacobian: Any, n: int) -> CompiledMap:
    """Both functions for states of length n; they return arrays of float64.

    Raises ValueError or TypeError if Numba cannot compile one or it returns something else.
    """
    from numba import carray, cfunc, float64
    from numba import types as numba_types

    pointer = numba_types.CPointer(float64)
    next_state = _array_function("step", step, 1)
    derivative = _array_function("jacobian", jacobian, 2)

    def call_step(x, out):  # type: ignore[no-untyped-def]
        after = next_state(carray(x, (n,)).copy())
        for i in range(n):
            out[i] = after[i]

    def call_jacobian(x, out):  # type: ignore[no-untyped-def]
        matrix = derivative(carray(x, (n,)).copy())
        for i in range(n):
            for j in range(n):
                out[i * n + j] = matrix[i, j]

    signature = numba_types.void(pointer, pointer)
    compiled = tuple(
        cfunc(signature, error_model="numpy")(call) for call in (call_step, call_jacobian)
    )
    return CompiledMap(next_state, derivative, (compiled[0], compiled[1]))


def _array_function(argument: str, function: Any, ndim: int) -> Any:
    """`function` compiled for one array of float64."""
    from numba import float64
    from numba import types as numba_types

    compiled, returned = compile_for(
        argument, function, float64[::1], "a function that Numba compiles for compiled=True"
    )
    fits = isinstance(returned, numba_types.Array) and returned.dtype == float64
    if not fits or returned.ndim != ndim:
        raise TypeError(
            f"{argument} must return an array of float64 with {ndim} axes for compiled=True, "
            f"got {returned}"
        )
    return compiled


def compile_for(argument: str, function: Any, kind: Any, wanted: str) -> tuple[Any, Any]:
    """`function` compiled for one argument of a Numba type, and the type that it returns.

    Raises ValueError, with what was `wanted`, if Numba cannot.
    """
    from numba import njit

    rules = njit(error_model="numpy")  # 1/0 is inf
    inner = rules(function) if isinstance(function, types.FunctionType) else function
    compiled = rules(lambda x: inner(x))
    try:
        compiled.compile((kind,))
    except Exception as error:  # Numba's own, and whatever its passes stumble over
        reason = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        raise ValueError(
            f"{argument} must be {wanted}, got {_checks.describe(function)}: {reason}"
        ) from error
    return compiled, compiled.overloads[(kind,)].signature.return_type
