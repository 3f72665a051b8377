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
    """Both functions for states of length n; they return arrays of float64, or tuples of numbers.

    Raises ValueError or TypeError if Numba cannot compile one or it returns something else.
    """
    next_state, call_step = _entry("step", step, n, 1)
    derivative, call_jacobian = _entry("jacobian", jacobian, n, 2)
    return CompiledMap(next_state, derivative, (call_step, call_jacobian))


def _entry(argument: str, function: Any, n: int, ndim: int) -> tuple[Any, Any]:
    """`function` compiled for one array of float64, and its entry in C, which writes the result."""
    from numba import carray, cfunc, float64
    from numba import types as numba_types

    inner, returned = compile_for(
        argument, function, float64[::1], "a function that Numba compiles for compiled=True"
    )
    # Tuples are indexed by constants alone: written out, one line an entry. x may be written to.
    lines = ["def entry(x, out):", f"    result = inner(carray(x, ({n},)))"]
    if isinstance(returned, numba_types.Array):
        if returned.dtype != float64 or returned.ndim != ndim:
            raise _wrong_return(argument, n, ndim, returned)
        index = "i" if ndim == 1 else f"i // {n}, i % {n}"
        lines += [f"    for i in range({n**ndim}):", f"        out[i] = result[{index}]"]
    else:
        if not _is_nested(returned, n, ndim):
            raise _wrong_return(argument, n, ndim, returned)
        places = [f"[{i}]" for i in range(n)]
        if ndim == 2:
            places = [row + column for row in places for column in places]
        lines += [f"    out[{i}] = result{place}" for i, place in enumerate(places)]
    names: dict[str, Any] = {"inner": inner, "carray": carray}
    exec("\n".join(lines), names)
    pointer = numba_types.CPointer(float64)
    compiled = cfunc(numba_types.void(pointer, pointer), error_model="numpy")(names["entry"])
    return inner, compiled


def _is_nested(kind: Any, n: int, ndim: int) -> bool:
    """Whether a Numba type is a tuple of n numbers, or of n such tuples."""
    from numba import types as numba_types

    if ndim == 0:
        return isinstance(kind, (numba_types.Float, numba_types.Integer))
    fits = isinstance(kind, numba_types.BaseTuple) and len(kind.types) == n
    return fits and all(_is_nested(entry, n, ndim - 1) for entry in kind.types)


def _wrong_return(argument: str, n: int, ndim: int, returned: Any) -> TypeError:
    tuples = "a tuple of numbers" if ndim == 1 else "a tuple of tuples of numbers"
    return TypeError(
        f"{argument} must return an array of float64 with {ndim} ax{'i' if ndim == 1 else 'e'}s or "
        f"{tuples}, {n} long, for compiled=True, got {returned}"
    )


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
