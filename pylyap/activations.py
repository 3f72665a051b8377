"""User-defined activations, compiled by Numba into loops that the core calls."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._compile import Frozen, compile_cached, compile_for
from pylyap._errors import ArgumentError, ArgumentTypeError
from pylyap._native import core


class Activation:
    """A user-defined activation: a scalar function with its first two derivatives.

    Numba compiles the three functions into loops over arrays, which the compiled core calls like
    its built-in activations. No Python code runs while a network is evaluated.

    Parameters
    ----------
    f : callable, float -> float
        The activation: a Python function that Numba can compile, an already compiled function, or
        a function of `math` or NumPy such as ``math.tanh``. The globals, closures and defaults that
        it reads are compiled in with their current values; a later change requires a new
        `Activation`.
    df : callable, float -> float
        First derivative of `f`.
    d2f : callable, float -> float
        Second derivative of `f`.
    name : str, optional
        Name for messages. By default the name of `f`.

    Attributes
    ----------
    f, df, d2f : callable
        The functions as given.
    name : str
        Name for messages.

    Raises
    ------
    ArgumentTypeError
        If an argument is not a function of one float, or does not return a real number.
    ArgumentError
        If Numba cannot compile a function, or `df` or `d2f` is inconsistent with central
        differences of `f` or `df` (see Notes). When a pickle is loaded: if a number or an array
        that the functions read has another value.

    Notes
    -----
    The derivatives are compared with central differences at 24 points in ±10, with four step sizes.
    One is rejected if, at any point and for all four step sizes, the differences are finite, have
    converged, and deviate from it in the first three digits.

    An exception inside a function gives nan, a division by zero inf or nan. At a kink of `f`, `df`
    and `d2f` may take either limit; the built-in activations take the left one.

    Two activations are equal if their functions, the values that these read, and their names are
    equal. Copies share the compiled code. Pickles refer to the functions by module and name, and
    compile them again when they are loaded, which takes about a second, once per process. An
    already compiled function keeps the values that Numba compiled in; call its ``recompile()``
    after a change.

    Examples
    --------
    >>> import math
    >>> def f(z): return z / (1 + abs(z))
    >>> def df(z): return 1 / (1 + abs(z)) ** 2
    >>> def d2f(z): return -2 * math.copysign(1.0, z) / (1 + abs(z)) ** 3
    >>> softsign = pl.Activation(f, df, d2f, name="softsign")
    >>> pl.Network((2, 10, 1), activation=softsign)
    Network((2, 10, 1), activation=Activation('softsign'), loss='mse')
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
        self._unknown = None if frozen.known else self._loops  # then equal only to itself

    @property
    def _code(self) -> tuple[int, int, object]:
        """Addresses of both loops, and the object that owns them, for the core."""
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
        return  # some built-in functions have no signature
    try:
        signature.bind(0.0)
    except TypeError:
        raise ArgumentTypeError(
            argument, f"must be a function of one float, got one with the signature {signature}"
        ) from None


def _compile(f: Any, df: Any, d2f: Any) -> tuple[_Loops, Frozen]:
    """Compile and check the loops; also return the values compiled into them."""
    functions = {"f": f, "df": df, "d2f": d2f}
    return compile_cached(lambda: _make_loops(functions), "activation", functions)


def _make_loops(functions: dict[str, Any]) -> _Loops:
    from numba import cfunc
    from numba import types as numba_types

    value, slope, second = (_scalar(argument, f) for argument, f in functions.items())

    # Without this handler an exception would end the loop and leave other runs uncomputed.
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
    """Compile a function of one float."""
    from numba import float64
    from numba import types as numba_types

    compiled, returned = compile_for(argument, function, float64, "a function that Numba compiles")
    if not isinstance(returned, (numba_types.Float, numba_types.Integer)):
        raise ArgumentTypeError(argument, f"must return a float, got {returned}")
    return compiled


def _check_derivatives(loops: _Loops) -> None:
    """Reject derivatives that are inconsistent with differences of all step sizes.

    The tolerance contains the change of the difference when the step is halved, so kinks, poles,
    oscillations and noise are not reported.
    """
    size = np.geomspace(0.0173, 9.71, 12)  # avoids 0, 1 and other likely places of kinks
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
    """Values of f, df and d2f at an array."""
    code = loops.value_slope.address, loops.curvature.address, loops
    f, df, d2f = core.activate(code, z.ravel())
    return f.reshape(z.shape), df.reshape(z.shape), d2f.reshape(z.shape)
