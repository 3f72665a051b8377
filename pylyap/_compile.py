"""A user's functions, compiled by Numba into what the core calls."""

from __future__ import annotations

import builtins
import dis
import enum
import hashlib
import types
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from pylyap import _checks
from pylyap._errors import ArgumentError


class CompiledMap(NamedTuple):
    """The functions as compiled, for calls from Python, and the addresses of both in C."""

    step: Any
    jacobian: Any
    calls: tuple[Any, Any]  # numba.cfunc: int64(const double* x, double* out), a code of _ENTRY

    @property
    def addresses(self) -> tuple[int, int]:
        """Of step and Jacobian."""
        return self.calls[0].address, self.calls[1].address


def compile_map(step: Any, jacobian: Any, n: int) -> tuple[CompiledMap, Frozen]:
    """Both functions for states of length n; they return arrays of float64, or tuples of numbers.
    And the values that are compiled into them.

    Raises ValueError or TypeError if Numba cannot compile one or it returns something else.
    """

    def make() -> CompiledMap:
        next_state, call_step = _entry("step", step, n, 1)
        derivative, call_jacobian = _entry("jacobian", jacobian, n, 2)
        return CompiledMap(next_state, derivative, (call_step, call_jacobian))

    return compiled_once(make, ("map", n), {"step": step, "jacobian": jacobian})


# What the core calls. 0: the result is in out; 1: the function raised; 2: it returned an array of
# another shape, whose lengths are in out. Arrays of a wrong shape are not read.
_ENTRY = """
def entry(x, out):
    try:
        result = inner(carray(x, ({n},)))
    except Exception:
        return 1
{write}
    return 0
"""


def _entry(argument: str, function: Any, n: int, ndim: int) -> tuple[Any, Any]:
    """`function` compiled for one array of float64, and its entry in C, which writes the result."""
    from numba import carray, cfunc, float64, int64
    from numba import types as numba_types

    inner, returned = compile_for(
        argument, function, float64[::1], "a function that Numba compiles for compiled=True"
    )
    # Tuples are indexed by constants alone: written out, one line an entry. x may be written to.
    if isinstance(returned, numba_types.Array):
        if returned.dtype != float64 or returned.ndim != ndim:
            raise _wrong_return(argument, n, ndim, returned)
        index = "i" if ndim == 1 else f"i // {n}, i % {n}"
        lines = [
            "    if " + " or ".join(f"result.shape[{axis}] != {n}" for axis in range(ndim)) + ":",
            *(f"        out[{axis}] = result.shape[{axis}]" for axis in range(ndim)),
            "        return 2",
            f"    for i in range({n**ndim}):",
            f"        out[i] = result[{index}]",
        ]
    else:
        if not _is_nested(returned, n, ndim):
            raise _wrong_return(argument, n, ndim, returned)
        places = [f"[{i}]" for i in range(n)]
        if ndim == 2:
            places = [row + column for row in places for column in places]
        lines = [f"    out[{i}] = result{place}" for i, place in enumerate(places)]
    names: dict[str, Any] = {"inner": inner, "carray": carray}
    exec(_ENTRY.format(n=n, write="\n".join(lines)), names)
    pointer = numba_types.CPointer(float64)
    compiled = cfunc(int64(pointer, pointer), error_model="numpy")(names["entry"])
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
        raise ArgumentError(
            argument, f"must be {wanted}, got {_checks.describe(function)}: {reason}"
        ) from error
    return compiled, compiled.overloads[(kind,)].signature.return_type


# --- what is compiled into a function -------------------------------------------------------------

# Their functions are not compiled from their Python source, and their constants do not change.
_LIBRARIES = frozenset({"builtins", "cmath", "math", "numba", "numpy", "scipy"})

_BY_VALUE = (type(None), bool, int, str, bytes, type(...))
_BY_IDENTITY = (types.BuiltinFunctionType, np.ufunc, enum.Enum, enum.EnumMeta)


class Frozen:
    """All that Numba takes for constant when it compiles functions, as it is now.

    Code, defaults, closures and the globals that the code reads, attributes of modules included,
    through all functions that it calls. Objects that are compared by identity are kept alive.

    Attributes
    ----------
    key
        Equal for functions that compile to the same code.
    known
        False if there is an object that may change without changing the key.
    values
        The numbers, strings and arrays among it, each with its place; texts that can be compared
        between processes.
    """

    def __init__(self, functions: dict[str, Any]) -> None:
        self.known = True
        self.values: dict[str, str] = {}
        self._kept: list[Any] = []
        self._seen: dict[int, int] = {}
        self.key: Hashable = tuple(self._item(f, name) for name, f in functions.items())

    def require(self, made: tuple[tuple[str, str], ...], what: str) -> None:
        """Refuse, when a pickle is loaded, values other than those that the pickled object had."""
        for place, value in made:
            here = self.values.get(place, "not defined")
            if here != value:
                raise ArgumentError(
                    place,
                    f"must be {value}, as when the pickled {what} was made, got {here}: "
                    "functions are pickled by reference and read the globals of the process that "
                    "loads them",
                )

    def _item(self, value: Any, place: str) -> Hashable:
        kind = type(value)
        if kind in _BY_VALUE:
            text = repr(value)
            digest = hashlib.sha256(text.encode()).hexdigest()
            self.values[place] = text if len(text) <= 60 else f"{text[:40]}... ({digest[:16]})"
            return kind, value
        if kind is float or kind is complex:
            self.values[place] = repr(value)
            return kind, repr(value)  # tells -0.0 from 0.0, and nan from nothing
        if isinstance(value, np.generic) and not value.dtype.hasobject:
            self.values[place] = repr(value)
            return kind, value.dtype.str, value.tobytes()
        if kind is np.ndarray and not value.dtype.hasobject:
            digest = hashlib.sha256(value.tobytes()).hexdigest()
            layout = (value.dtype.str, value.shape, value.flags.c_contiguous)
            self.values[place] = f"{_checks.describe(value)} with the digest {digest[:16]}"
            return kind, repr(value.dtype), layout, digest
        if isinstance(value, tuple):
            return kind, tuple(self._item(v, f"{place}[{i}]") for i, v in enumerate(value))
        if isinstance(value, types.ModuleType):
            return self._identity(value)
        if isinstance(value, _BY_IDENTITY) or kind is type:
            return self._identity(value)
        if callable(value) and _is_library(value):
            return self._identity(value)
        if isinstance(value, types.FunctionType):
            return self._function(value, place)
        if isinstance(getattr(value, "py_func", None), types.FunctionType):  # of the user's @njit
            compiled = tuple(map(self._identity, getattr(value, "overloads", {}).values()))
            return self._identity(value), compiled, self._function(value.py_func, place)
        self.known = False
        return self._identity(value)

    def _identity(self, value: Any) -> Hashable:
        self._kept.append(value)  # so that no other object gets its place in memory
        return type(value), id(value)

    def _function(self, function: types.FunctionType, place: str) -> Hashable:
        if id(function) in self._seen:
            return self._seen[id(function)]
        self._seen[id(function)] = len(self._seen)
        self._kept.append(function)
        attributes: set[str] = set()
        read: set[str] = set()
        for code in _codes(function.__code__):
            attributes.update(code.co_names)
            read.update(i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL")
        items: list[Hashable] = [function.__code__]
        for name in sorted(read):
            value = function.__globals__.get(name, builtins.__dict__.get(name))
            items += [name, *self._reached(value, f"the global {name} of {place}", attributes, ())]
        cells = function.__closure__ or ()
        for name, cell in zip(function.__code__.co_freevars, cells, strict=True):
            try:
                value = cell.cell_contents
            except ValueError:  # not assigned yet
                value = None
            items += self._reached(value, f"the variable {name} of {place}", attributes, ())
        defaults: dict[int | str, Any] = dict(enumerate(function.__defaults__ or ()))
        defaults.update(function.__kwdefaults__ or {})
        items += [
            (name, self._item(value, f"the default {name} of {place}"))
            for name, value in defaults.items()
        ]
        return tuple(items)

    def _reached(
        self, value: Any, place: str, attributes: set[str], inside: tuple[Any, ...]
    ) -> Iterator[Hashable]:
        """A value, and what code that reads these attributes may reach of it if it is a module."""
        yield self._item(value, place)
        if not isinstance(value, types.ModuleType) or _is_library(value) or value in inside:
            return
        for name in sorted(attributes & vars(value).keys()):
            yield name
            within = f"{place}.{name}"
            yield from self._reached(vars(value)[name], within, attributes, (*inside, value))


def _is_library(value: Any) -> bool:
    name = "__name__" if isinstance(value, types.ModuleType) else "__module__"
    home = getattr(value, name, None)
    return isinstance(home, str) and home.partition(".")[0] in _LIBRARIES


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code of a function and of those defined in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


# Workers unpickle the same map or activation with every task; compiling takes about a second.
_MOST = 64
_cache: OrderedDict[Hashable, tuple[Any, Frozen]] = OrderedDict()
_lock = Lock()


def compiled_once(
    make: Callable[[], Any], kind: Hashable, functions: dict[str, Any]
) -> tuple[Any, Frozen]:
    """What `make` compiles of these functions, or an earlier result if nothing has changed since
    that is compiled into it; and all of that."""
    now = Frozen(functions)
    with _lock:
        found = _cache.get((kind, now.key)) if now.known else None
        if found is not None:
            _cache.move_to_end((kind, now.key))
    if found is not None:
        return found[0], now
    made = make()
    after = Frozen(functions)  # a function of the user's @njit may have been compiled on the way
    if after.known and after.values == now.values:
        with _lock:
            _cache[(kind, after.key)] = made, after
            while len(_cache) > _MOST:
                _cache.popitem(last=False)
    return made, now


def forget() -> None:
    """Empty the cache."""
    with _lock:
        _cache.clear()
