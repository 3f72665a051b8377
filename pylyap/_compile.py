"""Compilation of user-defined functions by Numba into C functions that the core calls."""

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
from pylyap._errors import ArgumentError, ArgumentTypeError


class CompiledMap(NamedTuple):
    """The compiled functions, for calls from Python and from C."""

    step: Any
    jacobian: Any
    calls: tuple[Any, Any]  # numba.cfunc: int64(const double* x, double* out), see _ENTRY

    @property
    def addresses(self) -> tuple[int, int]:
        """Addresses of step and Jacobian."""
        return self.calls[0].address, self.calls[1].address


def compile_map(step: Any, jacobian: Any, n: int) -> tuple[CompiledMap, Frozen]:
    """Compile step and Jacobian for states of length n; also return the values compiled in.

    Both must return float64 arrays or tuples of numbers. Raises ArgumentError if Numba cannot
    compile a function, ArgumentTypeError if it returns another type.
    """

    def make() -> CompiledMap:
        next_state, call_step = _entry("step", step, n, 1)
        derivative, call_jacobian = _entry("jacobian", jacobian, n, 2)
        return CompiledMap(next_state, derivative, (call_step, call_jacobian))

    return compile_cached(make, ("map", n), {"step": step, "jacobian": jacobian})


# The C function. Return codes: 0, the result is in out; 1, the function raised an exception; 2, it
# returned an array of the wrong shape, which is in out. An array of the wrong shape is not read.
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
    """Compile a function of one float64 array; also return the C function that calls it."""
    from numba import carray, cfunc, float64, int64
    from numba import types as numba_types

    inner, returned = compile_for(
        argument, function, float64[::1], "a function that Numba compiles for compiled=True"
    )
    # Numba indexes tuples by constants only, so one line per entry is generated. The function may
    # modify x.
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


def _wrong_return(argument: str, n: int, ndim: int, returned: Any) -> ArgumentTypeError:
    tuples = "a tuple of numbers" if ndim == 1 else "a tuple of tuples of numbers"
    return ArgumentTypeError(
        argument,
        f"must return an array of float64 with {ndim} ax{'i' if ndim == 1 else 'e'}s or "
        f"{tuples}, {n} long, for compiled=True, got {returned}",
    )


def compile_for(argument: str, function: Any, kind: Any, expected: str) -> tuple[Any, Any]:
    """Compile `function` for one argument of a Numba type; also return its return type.

    Raises ArgumentError if Numba cannot; `expected` is part of the message.
    """
    from numba import njit

    rules = njit(error_model="numpy")  # 1/0 is inf
    inner = rules(function) if isinstance(function, types.FunctionType) else function
    compiled = rules(lambda x: inner(x))
    try:
        compiled.compile((kind,))
    except Exception as error:  # Numba's passes raise many types
        reason = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        raise ArgumentError(
            argument, f"must be {expected}, got {_checks.describe(function)}: {reason}"
        ) from error
    return compiled, compiled.overloads[(kind,)].signature.return_type


# --- values compiled into a function --------------------------------------------------------------

# Functions of these packages are not compiled from Python source, and their constants are fixed.
_LIBRARIES = frozenset({"builtins", "cmath", "math", "numba", "numpy", "scipy"})

_BY_VALUE = (type(None), bool, int, str, bytes, type(...))
_BY_IDENTITY = (types.BuiltinFunctionType, np.ufunc, enum.Enum, enum.EnumMeta)


class Frozen:
    """Current values of everything that Numba treats as constant when it compiles functions.

    These are the code, defaults, closures and the globals that the code reads, with attributes of
    modules, of the functions and of all functions that they call. Objects compared by identity are
    kept alive.

    Parameters
    ----------
    functions : dict of str to callable
        Functions by the name of their argument.

    Attributes
    ----------
    key : hashable
        Equal for functions that compile to the same code.
    known : bool
        False if an object may change without changing the key.
    values : dict of str to str
        Numbers, strings and arrays by their location, as text that can be compared between
        processes.
    """

    def __init__(self, functions: dict[str, Any]) -> None:
        self.known = True
        self.values: dict[str, str] = {}
        self._referenced: list[Any] = []
        self._seen: dict[int, int] = {}
        self.key: Hashable = tuple(self._item(f, name) for name, f in functions.items())

    def require(self, pickled: tuple[tuple[str, str], ...], what: str) -> None:
        """Raise ArgumentError if a value differs from that when the object was pickled."""
        for location, value in pickled:
            here = self.values.get(location, "not defined")
            if here != value:
                raise ArgumentError(
                    location,
                    f"must be {value}, as when the {what} was pickled, got {here}: functions are "
                    "pickled by reference and read the globals of the loading process",
                )

    def _item(self, value: Any, location: str) -> Hashable:
        kind = type(value)
        if kind in _BY_VALUE:
            text = repr(value)
            digest = hashlib.sha256(text.encode()).hexdigest()
            self.values[location] = text if len(text) <= 60 else f"{text[:40]}... ({digest[:16]})"
            return kind, value
        if kind is float or kind is complex:
            self.values[location] = repr(value)
            return kind, repr(value)  # distinguishes -0.0 from 0.0; nan equals nan
        if isinstance(value, np.generic) and not value.dtype.hasobject:
            self.values[location] = repr(value)
            return kind, value.dtype.str, value.tobytes()
        if kind is np.ndarray and not value.dtype.hasobject:
            digest = hashlib.sha256(value.tobytes()).hexdigest()
            layout = (value.dtype.str, value.shape, value.flags.c_contiguous)
            self.values[location] = f"{_checks.describe(value)} with the digest {digest[:16]}"
            return kind, repr(value.dtype), layout, digest
        if isinstance(value, tuple):
            return kind, tuple(self._item(v, f"{location}[{i}]") for i, v in enumerate(value))
        if isinstance(value, types.ModuleType):
            return self._identity(value)
        if isinstance(value, _BY_IDENTITY) or kind is type:
            return self._identity(value)
        if callable(value) and _is_library(value):
            return self._identity(value)
        if isinstance(value, types.FunctionType):
            return self._function(value, location)
        if isinstance(getattr(value, "py_func", None), types.FunctionType):  # with @njit
            compiled = tuple(map(self._identity, getattr(value, "overloads", {}).values()))
            return self._identity(value), compiled, self._function(value.py_func, location)
        self.known = False
        return self._identity(value)

    def _identity(self, value: Any) -> Hashable:
        self._referenced.append(value)  # keeps its id unique
        return type(value), id(value)

    def _function(self, function: types.FunctionType, location: str) -> Hashable:
        if id(function) in self._seen:
            return self._seen[id(function)]
        self._seen[id(function)] = len(self._seen)
        self._referenced.append(function)
        attributes: set[str] = set()
        read: set[str] = set()
        for code in _codes(function.__code__):
            attributes.update(code.co_names)
            read.update(i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL")
        items: list[Hashable] = [function.__code__]
        for name in sorted(read):
            value = function.__globals__.get(name, builtins.__dict__.get(name))
            items += [name, *self._items(value, f"the global {name} of {location}", attributes, ())]
        cells = function.__closure__ or ()
        for name, cell in zip(function.__code__.co_freevars, cells, strict=True):
            try:
                value = cell.cell_contents
            except ValueError:  # not assigned yet
                value = None
            items += self._items(value, f"the variable {name} of {location}", attributes, ())
        defaults: dict[int | str, Any] = dict(enumerate(function.__defaults__ or ()))
        defaults.update(function.__kwdefaults__ or {})
        items += [
            (name, self._item(value, f"the default {name} of {location}"))
            for name, value in defaults.items()
        ]
        return tuple(items)

    def _items(
        self, value: Any, location: str, attributes: set[str], parents: tuple[Any, ...]
    ) -> Iterator[Hashable]:
        """Items of a value and, of a module, of those attributes that the code may read."""
        yield self._item(value, location)
        if not isinstance(value, types.ModuleType) or _is_library(value) or value in parents:
            return
        for name in sorted(attributes & vars(value).keys()):
            yield name
            within = f"{location}.{name}"
            yield from self._items(vars(value)[name], within, attributes, (*parents, value))


def _is_library(value: Any) -> bool:
    name = "__name__" if isinstance(value, types.ModuleType) else "__module__"
    home = getattr(value, name, None)
    return isinstance(home, str) and home.partition(".")[0] in _LIBRARIES


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """Code objects of a function and of the functions defined in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


# Workers unpickle the same map or activation for every task, and compilation takes about a second.
_CACHE_SIZE = 64
_cache: OrderedDict[Hashable, tuple[Any, Frozen]] = OrderedDict()
_lock = Lock()


def compile_cached(
    make: Callable[[], Any], kind: Hashable, functions: dict[str, Any]
) -> tuple[Any, Frozen]:
    """Result of `make`, from the cache if no value compiled into the functions has changed.

    Also returns these values.
    """
    now = Frozen(functions)
    with _lock:
        found = _cache.get((kind, now.key)) if now.known else None
        if found is not None:
            _cache.move_to_end((kind, now.key))
    if found is not None:
        return found[0], now
    made = make()
    after = Frozen(functions)  # `make` may have compiled a user's @njit function
    if after.known and after.values == now.values:
        with _lock:
            _cache[(kind, after.key)] = made, after
            while len(_cache) > _CACHE_SIZE:
                _cache.popitem(last=False)
    return made, now


def clear_cache() -> None:
    """Empty the cache."""
    with _lock:
        _cache.clear()
