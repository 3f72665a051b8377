"""A user's own activation, compiled by Numba into loops that the core calls."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._compile import Frozen, compile_for, compiled_once
from pylyap._errors import ArgumentError, ArgumentTypeError
from pylyap._native import core


class Activation:
    """An activation of one's own: a function of one float with its first two derivatives.

    Numba compiles the three into loops over arrays, which the core calls as it calls its own
    activations: no Python runs while a network is evaluated.

    Parameters
    ----------
    f, df, d2f
        The function, its derivative and its second derivative: Python functions of one float that
        return a real number and that Numba can compile, functions compiled already, or NumPy's and
        math's own like ``math.tanh``. All that they read, globals, closures and defaults, is
        compiled in with the values it has now: later changes need a new `Activation`.
    name
        For messages; by default the name of `f`.

    Raises
    ------
    TypeError
        If an argument is no function of one float, or returns anything but a real number.
    ValueError
        If Numba cannot compile a function; if `df` or `d2f` is grossly wrong, which is to say that
        at one of 24 points in ±10 the central differences of `f` or of `df`, over each of four
        steps, are finite, have settled, and differ from it in the first three digits; if a pickle
        is loaded where a number or an array that the functions read has another value.

    Notes
    -----
    An exception inside a function gives nan there; a division by zero gives inf or nan. Where `f`
    has a kink, `df` and `d2f` choose a side: built-in activations take the left one at 0. Two are
    equal if their functions, what these read, and their names are. Copies share the compiled code.
    Pickles hold the functions by reference, so they must be found by name in their module when
    they are loaded, and are compiled again (about a second, once in a process). A function that is
    compiled already keeps the values that Numba gave it: after a change call its ``recompile()``.

    Examples
    --------
    >>> import math
    >>> def f(z): return z / (1 + abs(z))
    >>> def df(z): return 1 / (1 + abs(z)) ** 2
    >>> def d2f(z): return -2 * math.copysign(1.0, z) / (1 + abs(z)) ** 3
    >>> softsign = pl.Activation(f, df, d2f, name="softsign")
    >>> net = pl.Network((2, 10, 1), activation=softsign)
    """

    def __init__(
        self,
        f: Callable[[float], float],
        df: Callable[[float], float],
        d2f: Callable[[float], float],
        *,
        name: str | None = None,
    ) -> None:
        for argument, function in (("f", f), ("df", df), ("d2f", d2f)):
            _check_function(argument, function)
        if name is None:
            name = getattr(f, "__name__", type(f).__name__)
        if not isinstance(name, str) or not name:
            raise ArgumentTypeError(
                "name", f"must be a string that is not empty, got {_checks.describe(name)}"
            )
        self.f = f
        self.df = df
        self.d2f = d2f
        self.name = name
        self._loops, frozen = _compile(f, df, d2f)
        self._frozen = tuple(sorted(frozen.values.items()))
        self._unknown = None if frozen.known else self._loops  # equal to itself alone

    @property
    def _code(self) -> tuple[int, int, object]:
        """What the core takes: the addresses of both loops and what keeps them alive."""
        return self._loops.value_slope.address, self._loops.curvature.address, self._loops

    def __repr__(self) -> str:
        return f"Activation({self.name!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Activation) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[Any, ...]:
        return self.name, self.f, self.df, self.d2f, self._frozen, id(self._unknown)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self.f, self.df, self.d2f, self.name, self._frozen)

    def __copy__(self) -> Activation:
        return self

    def __deepcopy__(self, _: Any) -> Activation:
        return self


def _restore(
    f: Any, df: Any, d2f: Any, name: str, frozen: tuple[tuple[str, str], ...] = ()
) -> Activation:
    Frozen({"f": f, "df": df, "d2f": d2f}).require(frozen, "activation")
    return Activation(f, df, d2f, name=name)


class _Loops(NamedTuple):
    value_slope: Any  # numba.cfunc: void(const double* z, double* f, double* df, int64 count)
    curvature: Any  # void(const double* z, double* d2f, int64 count)


def _check_function(argument: str, function: Any) -> None:
    if not callable(function) or isinstance(function, type):
        raise ArgumentTypeError(
            argument, f"must be a function of one float, got {_checks.describe(function)}"
        )
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # some built-in functions have none
    try:
        signature.bind(0.0)
    except TypeError:
        raise ArgumentTypeError(
            argument, f"must be a function of one float, got one of {signature}"
        ) from None


def _compile(f: Any, df: Any, d2f: Any) -> tuple[_Loops, Frozen]:
    """The loops, compiled and checked, and the values that are compiled into them."""
    functions = {"f": f, "df": df, "d2f": d2f}
    return compiled_once(lambda: _make_loops(functions), "activation", functions)


def _make_loops(functions: dict[str, Any]) -> _Loops:
    from numba import cfunc
    from numba import types as numba_types

    value, slope, second = (_scalar(argument, f) for argument, f in functions.items())

    # An exception would leave the rest of the array, other runs among it, as it was.
    def value_slope(z, out, out_slope, count):  # type: ignore[no-untyped-def]
        for i in range(count):
            try:
                out[i] = value(z[i])
                out_slope[i] = slope(z[i])
            except Exception:
                out[i] = np.nan
                out_slope[i] = np.nan

    def curvature(z, out, count):  # type: ignore[no-untyped-def]
        for i in range(count):
            try:
                out[i] = second(z[i])
            except Exception:
                out[i] = np.nan

    array = numba_types.CPointer(numba_types.float64)
    count = numba_types.int64
    void = numba_types.void
    loops = _Loops(
        cfunc(void(array, array, array, count), error_model="numpy")(value_slope),
        cfunc(void(array, array, count), error_model="numpy")(curvature),
    )
    _check_derivatives(loops)
    return loops


def _scalar(argument: str, function: Any) -> Any:
    """`function` compiled for one float."""
    from numba import float64
    from numba import types as numba_types

    compiled, returned = compile_for(argument, function, float64, "a function that Numba compiles")
    if not isinstance(returned, (numba_types.Float, numba_types.Integer)):
        raise ArgumentTypeError(argument, f"must return a float, got {returned}")
    return compiled


def _check_derivatives(loops: _Loops) -> None:
    """Refuse derivatives that differences over every step contradict.

    A difference is believed as far as it agrees with one over half the step, so that kinks, poles,
    oscillations and noise accuse nobody.
    """
    size = np.geomspace(0.0173, 9.71, 12)  # away from 0, 1 and other places where kinks sit
    z = np.concatenate([-size[::-1], size])
    half = 2.0 ** -np.array([[11], [14], [17], [20]]) * np.maximum(1.0, np.abs(z))
    at = np.stack([z + i * half for i in (-2, -1, 1, 2)])
    around = _evaluate(loops, at)
    here = _evaluate(loops, z)
    for i, (of, by) in enumerate((("f", "df"), ("df", "d2f"))):
        values, slope = around[i], here[i + 1]
        with np.errstate(all="ignore"):
            coarse = (values[3] - values[0]) / (at[3] - at[0])
            fine = (values[2] - values[1]) / (at[2] - at[1])
            noise = 1e-14 * np.abs(values).max(axis=0) / half
            allowed = 1e-6 + 1e-3 * np.abs(fine) + 10 * np.abs(fine - coarse) + noise
            wrong = np.isfinite(coarse) & np.isfinite(fine) & ~(np.abs(slope - fine) <= allowed)
        everywhere = wrong.all(axis=0)
        if everywhere.any():
            j = int(np.argmax(everywhere))
            raise ArgumentError(
                by,
                f"must be the derivative of {of}, got {slope[j]:g} at z = {z[j]:g} where "
                f"differences of {of} give {fine[1, j]:g}",
            )


def _evaluate(loops: _Loops, z: Floats) -> tuple[Floats, Floats, Floats]:
    """f, df and d2f at an array."""
    code = loops.value_slope.address, loops.curvature.address, loops
    f, df, d2f = core.activate(code, z.ravel())
    return f.reshape(z.shape), df.reshape(z.shape), d2f.reshape(z.shape)
