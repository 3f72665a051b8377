"""Validation of arguments.

Every message names the argument, what is allowed and what was given.
"""

from __future__ import annotations

import difflib
import math
import operator
import os
import reprlib
from collections.abc import Iterable, Mapping, Set
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap._errors import ArgumentError, ArgumentTypeError

Floats = NDArray[np.float64]
_Name = TypeVar("_Name", bound=str)
Seed: TypeAlias = int | np.random.SeedSequence | np.random.Generator

# Exact in float64, and far below the limit of the core's int64.
_LARGEST_INTEGER = 2**53

_SHORT = reprlib.Repr()  # formats only the first entries of a long list
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200  # `describe` shortens the text further
_SHORT.maxtuple = _SHORT.maxlist = 12

_COMPLEX = (complex, np.complexfloating)


def describe(value: object) -> str:
    """Short `repr` on one line, for messages."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    shape = getattr(value, "shape", None) if hasattr(type(value), "shape") else None
    if isinstance(shape, tuple) and not isinstance(value, np.generic):
        return f"a {type(value).__name__} of shape {tuple(shape)}"
    try:
        text = " ".join(_SHORT.repr(value).split())
    except ValueError:  # more digits than Python converts to text
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def integer(name: str, value: Any, *, least: int | None = None, most: int | None = None) -> int:
    """Return `value` as an int.

    Floats, booleans and strings are rejected, also as 0-d arrays.
    """
    number = value if type(value) is int else _index(name, value, "an integer")
    if (least is not None and number < least) or (most is not None and number > most):
        raise ArgumentError(name, f"must be {_bounds(least, most)}, got {_count(number)}")
    if abs(number) > _LARGEST_INTEGER:
        raise ArgumentError(
            name, f"must be at most {_LARGEST_INTEGER} in absolute value, got {_count(number)}"
        )
    return number


def _count(number: int) -> str:
    return str(number) if number.bit_length() < 200 else f"an integer of {number.bit_length()} bits"


def _index(name: str, value: Any, what: str) -> int:
    if _scalar_kind(value) in "iu":
        try:
            return operator.index(value)
        except Exception:  # foreign methods may raise anything
            pass
    raise ArgumentTypeError(name, f"must be {what}, got {describe(value)}")


def _scalar_kind(value: Any) -> str:
    """Kind of a scalar as a NumPy kind code: "i" or "u" integer, "f" other real number, "O" other.

    A 0-d array, of any package, has the kind of its entry.
    """
    if isinstance(value, (bool, str, bytes, complex)) or value is None:
        return "O"
    kind = type(value)  # not the value itself: its __getattr__ may have side effects
    if hasattr(kind, "__array__"):
        try:
            entry = np.asanyarray(value)
        except Exception:  # foreign methods may raise anything
            return "O"
        is_scalar = entry.ndim == 0 and entry.dtype.kind in "iuf"
        return entry.dtype.kind if is_scalar and not np.ma.is_masked(entry) else "O"
    if hasattr(kind, "__index__"):
        return "i"
    return "f" if hasattr(kind, "__float__") else "O"


def _bounds(least: int | None, most: int | None) -> str:
    if most is None:
        return f"at least {least}"
    return f"at most {most}" if least is None else f"in {least} ... {most}"


def real(
    name: str,
    value: Any,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> float:
    """Return `value` as a finite float with ``value >= least``, ``> above`` and ``< below``.

    Booleans, strings and complex numbers (with zero imaginary part as well) are rejected, also as
    0-d arrays.
    """
    number = math.nan
    wrong = _scalar_kind(value) not in "iuf"
    if not wrong:
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        except Exception:  # foreign methods may raise anything
            wrong = True
    if wrong:
        expected = "a real number" if isinstance(value, _COMPLEX) else "a number"
        raise ArgumentTypeError(name, f"must be {expected}, got {describe(value)}")
    if not (math.isfinite(number) and number >= least and number > above and number < below):
        raise ArgumentError(name, f"must be {_interval(least, above, below)}, got {number!r}")
    return number


def _interval(least: float, above: float, below: float) -> str:
    parts = ["finite"]
    if least > -math.inf:
        parts.append(f">= {least:g}")
    if above > -math.inf:
        parts.append(f"> {above:g}")
    if below < math.inf:
        parts.append(f"< {below:g}")
    return " and ".join(parts)


def flag(name: str, value: Any) -> bool:
    """Return `value` as a bool."""
    if not isinstance(value, (bool, np.bool_)):
        raise ArgumentTypeError(name, f"must be True or False, got {describe(value)}")
    return bool(value)


def choice(name: str, value: Any, allowed: Iterable[_Name]) -> _Name:
    """Return `value` if it is one of the names; the message suggests the closest name."""
    names = list(allowed)
    if not isinstance(value, str):
        raise ArgumentTypeError(name, f"must be one of {', '.join(names)}, got {describe(value)}")
    for known in names:
        if value == known:
            return known
    hint = suggestion(value.lower(), names)
    raise ArgumentError(
        name, f"must be one of {', '.join(names)}, got {describe(value)}{hint and f'; {hint}'}"
    )


def suggestion(value: str, names: Iterable[str]) -> str:
    """The question whether the closest of these names was meant; empty if none is close."""
    near = difflib.get_close_matches(value, list(names), n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else ""


def path(name: str, value: Any) -> Path:
    """Return `value`, a str or an object with ``__fspath__``, as a Path."""
    try:
        text = os.fspath(value)
    except Exception:  # foreign methods may raise anything
        text = None
    if not isinstance(text, str):
        raise ArgumentTypeError(name, f"must be a path, a str or a Path, got {describe(value)}")
    if "\0" in text:
        raise ArgumentError(name, f"must be a path without null characters, got {describe(text)}")
    return Path(text)


def file(name: str, value: Any) -> Path:
    """Return `value` as the path of a file: a path whose last component is a name."""
    found = path(name, value)
    if not found.name:
        raise ArgumentError(name, f"must be the path of a file, got {describe(value)}")
    return found


def instance(name: str, value: Any, kind: type) -> None:
    """Raise ArgumentTypeError unless `value` is an instance of `kind`."""
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIO" else "a"
        raise ArgumentTypeError(name, f"must be {article} {kind.__name__}, got {describe(value)}")


def sequence(name: str, value: Any, what: str, *, most: int = 10**6) -> tuple[Any, ...]:
    """Return the items of `value` in order; at most `most` + 1 are read from an iterator."""
    unordered = isinstance(value, (str, bytes, bytearray, Mapping, Set))
    try:
        items = () if unordered else tuple(islice(iter(value), most + 1))
    except Exception:  # foreign methods may raise anything
        unordered = True
    if unordered:
        raise ArgumentTypeError(name, f"must be {what}, got {describe(value)}")
    if len(items) > most:
        raise ArgumentError(name, f"must have at most {most} entries, got {describe(value)}")
    return items


def array(name: str, value: ArrayLike) -> NDArray[Any]:
    """Return an array, nested list, DataFrame or tensor as an array of the dtype NumPy infers.

    Masked entries are rejected at any depth. So are booleans among numbers, which NumPy would
    convert to 0 and 1.
    """
    booleans = isinstance(value, (list, tuple)) and _contains_booleans(name, value)
    if isinstance(value, (bytearray, memoryview)):  # NumPy would read the bytes as numbers
        raise ArgumentTypeError(name, f"must be an array, got {describe(value)}")
    try:
        found = np.asanyarray(value)
    except ValueError:
        raise ArgumentError(
            name, "must be a rectangular array of numbers, got rows of different lengths"
        ) from None
    except Exception as error:  # foreign methods may raise anything
        reason = " ".join(str(error).split())
        raise ArgumentTypeError(
            name, f"must be an array, got {describe(value)}: {reason[:200]}"
        ) from None
    _reject_masked(name, found)
    if booleans and found.dtype.kind in "iufc":
        raise ArgumentTypeError(name, "must not mix booleans and numbers")
    return np.asarray(found)


_PLAIN = {int, float}
_MAX_DEPTH = 64  # NumPy's limit on the number of axes


def _contains_booleans(name: str, items: Any, depth: int = 1) -> bool:
    """Whether nested lists contain booleans; masked entries in them are rejected."""
    kinds = set(map(type, items))
    if kinds <= _PLAIN or depth > _MAX_DEPTH:
        return False
    booleans = False
    for item in items:
        if isinstance(item, (list, tuple)):
            booleans |= _contains_booleans(name, item, depth + 1)
        elif isinstance(item, np.ndarray):
            _reject_masked(name, item)
            booleans |= item.dtype.kind == "b"
        else:
            booleans |= isinstance(item, (bool, np.bool_))
    return booleans


def _reject_masked(name: str, found: NDArray[Any]) -> None:
    if isinstance(found, np.ma.MaskedArray) and np.ma.is_masked(found):
        raise ArgumentError(name, f"must have no masked entries, got {int(np.sum(found.mask))}")


def floats(name: str, value: ArrayLike, *, finite: bool = True, booleans: bool = False) -> Floats:
    """Return `value` as an aligned, C-contiguous float64 array in native byte order.

    It is copied only if necessary. Booleans are rejected by default, because a boolean array is
    more likely a misplaced mask than data.
    """
    found = value if type(value) is np.ndarray else array(name, value)
    if found.dtype == np.float64 and found.flags.c_contiguous and found.flags.aligned:
        result: Floats = found
    elif found.dtype.kind in ("fiub" if booleans else "fiu"):
        memory(f"{name} in double precision", 8.0 * found.size, "pass fewer values")
        with np.errstate(over="ignore"):  # overflow gives inf, reported below
            result = np.array(found, dtype=np.float64, order="C")  # a copy is aligned
    elif found.dtype.kind == "b":
        raise ArgumentTypeError(
            name, "must be real numbers, got booleans; .astype(float) converts them to 0 and 1"
        )
    else:
        what = _describe_entries(found)
        if found.ndim == 0 and hasattr(value, name):  # a result whose array was meant
            what = f"{type(value).__name__}; did you mean its .{name}?"
        raise ArgumentTypeError(name, f"must be real numbers, got {what}")
    if finite and not np.isfinite(result).all():
        bad = np.argwhere(~np.isfinite(result))[0].tolist()
        where = f" at index {tuple(bad)}" if bad else ""
        raise ArgumentError(name, f"must be finite, got {result[tuple(bad)]}{where}")
    return result


def integers(name: str, value: ArrayLike, *, least: int) -> NDArray[np.int64]:
    """Return `value` as an array of integers of at least `least`; floats are rejected."""
    if type(value) is int:
        return np.asarray(integer(name, value, least=least))
    found = array(name, value)
    if found.dtype.kind not in "iu":
        raise ArgumentTypeError(name, f"must be integers, got {_describe_entries(found)}")
    for entry in (found.min(), found.max()) if found.size else ():
        integer(name, int(entry), least=least)
    return found.astype(np.int64)


def _describe_entries(found: NDArray[Any]) -> str:
    """Describe the dtype of an array that is not numeric, for messages."""
    if found.dtype != object:
        return f"dtype {found.dtype}"
    for entry in found.flat:
        if isinstance(entry, bool) or not isinstance(entry, (int, float, np.number)):
            return f"dtype object, with {describe(entry)}"
    return "dtype object; .astype(float) converts it to numbers"


def seed_sequence(seed: Any, name: str = "seed") -> np.random.SeedSequence:
    """Make a SeedSequence from an int, a SeedSequence or a Generator (one int is drawn from it)."""
    if isinstance(seed, np.random.SeedSequence):
        # A copy: spawning from it must not affect later spawns of the caller's sequence.
        return np.random.SeedSequence(
            seed.entropy, spawn_key=seed.spawn_key, pool_size=seed.pool_size
        )
    if isinstance(seed, np.random.Generator):
        return np.random.SeedSequence(int(seed.integers(2**63)))
    return np.random.SeedSequence(_seed_number(seed, name))


_SEEDS = "an int, a SeedSequence or a Generator"


def _seed_number(seed: Any, name: str) -> int:
    number = seed if type(seed) is int else _index(name, seed, _SEEDS)
    if number < 0:
        raise ArgumentError(name, f"must be at least 0, got {_count(number)}")
    if number.bit_length() > 4096:
        raise ArgumentError(name, f"must have at most 4096 bits, got {_count(number)}")
    return number


def reusable_seed(seed: Any, name: str = "seed") -> int | np.random.SeedSequence:
    """Return `seed` as an int or a SeedSequence, which give the same numbers every time.

    From a Generator one int is drawn.
    """
    if type(seed) is not int:
        if isinstance(seed, np.random.Generator):
            return int(seed.integers(2**63))
        if isinstance(seed, np.random.SeedSequence):
            return seed_sequence(seed, name)
    return _seed_number(seed, name)  # a SeedSequence takes longer than short runs


def generator_of_run(seeds: np.random.SeedSequence, run: int) -> np.random.Generator:
    """Random generator of one run; it does not depend on the other runs."""
    key = (*seeds.spawn_key, int(run))
    return np.random.default_rng(np.random.SeedSequence(seeds.entropy, spawn_key=key))


def memory(what: str, n_bytes: float, advice: str) -> None:
    """Raise ValueError if arrays of `n_bytes` do not fit in memory, before they are allocated."""
    if n_bytes < 2**26:
        return
    limit = available_memory()
    if n_bytes > limit:
        raise ValueError(
            f"{what} would take {size(n_bytes)}, but only {size(limit)} is free; {advice}"
        )


def available_memory() -> float:
    """Bytes of memory available to this process."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return float(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError):
        return math.inf


def size(n_bytes: float) -> str:
    """Format a number of bytes with a binary unit."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.3g} PiB"


def recorded_steps(n_steps: Any, every: Any, start: Any) -> tuple[int, int, int]:
    """Arguments of a trajectory that is recorded every `every` steps, from step `start` on."""
    n_steps = integer("n_steps", n_steps, least=0)
    every = integer("every", every, least=1)
    start = integer("start", start, least=0)
    if n_steps % every:
        raise ArgumentError(
            "every", f"must divide n_steps, got every={every} and n_steps={n_steps}"
        )
    return n_steps, every, start


def trajectory_memory(n_steps: int, shape: tuple[int, ...]) -> None:
    """Refuse a trajectory of this shape if it does not fit in memory."""
    memory(
        f"the trajectory of n_steps={n_steps} steps",
        8.0 * math.prod(shape),
        "record less with every=",
    )
