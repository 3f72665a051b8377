"""Checks of what a user hands over, with one voice: argument, what is allowed, what came."""

from __future__ import annotations

import difflib
import math
import operator
import os
import reprlib
from collections.abc import Iterable, Mapping, Set
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap._errors import ArgumentError, ArgumentTypeError

Floats = NDArray[np.float64]


_HUGE = 2**53  # no count of ours comes near; sums and products of two still fit the core's int64


_SHORT = reprlib.Repr()  # of a long list it looks at the first entries alone
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200  # cut at the end, below
_SHORT.maxtuple = _SHORT.maxlist = 12


def describe(value: object) -> str:
    """A short `repr` on one line, for messages."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    shape = getattr(value, "shape", None) if hasattr(type(value), "shape") else None
    if isinstance(shape, tuple) and not isinstance(value, np.generic):
        return f"a {type(value).__name__} of shape {tuple(shape)}"
    try:
        text = " ".join(_SHORT.repr(value).split())
    except ValueError:  # an integer that Python does not print
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def integer(name: str, value: Any, *, least: int | None = None, most: int | None = None) -> int:
    """`value` as an int; floats, booleans and strings are refused, also as arrays without axes."""
    number = _index(name, value, "an integer")
    if (least is not None and number < least) or (most is not None and number > most):
        raise ArgumentError(name, f"must be {_bounds(least, most)}, got {_count(number)}")
    if abs(number) > _HUGE:
        raise ArgumentError(name, f"must be at most {_HUGE} in size, got {_count(number)}")
    return number


def _count(number: int) -> str:
    return str(number) if number.bit_length() < 200 else f"one of {number.bit_length()} bits"


def _index(name: str, value: Any, what: str) -> int:
    if _scalar_kind(value) in "iu":
        try:
            return operator.index(value)
        except Exception:  # whatever the value's own method raises
            pass
    raise ArgumentTypeError(name, f"must be {what}, got {describe(value)}")


def _scalar_kind(value: Any) -> str:
    """What a scalar is, by NumPy's letters: i or u for integers, f for other real numbers, O for
    anything else. Of an array without axes, of whatever package, it is that of the array."""
    if isinstance(value, (bool, str, bytes, complex)) or value is None:
        return "O"
    kind = type(value)  # not the value, whose own __getattr__ may do anything
    if hasattr(kind, "__array__"):
        try:
            entry = np.asanyarray(value)
        except Exception:  # whatever another package raises here
            return "O"
        whole = entry.ndim == 0 and entry.dtype.kind in "iuf"
        return entry.dtype.kind if whole and not np.ma.is_masked(entry) else "O"
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
    """`value` as a finite float with `value >= least`, `> above` and `< below`. Booleans, strings
    and complex numbers (also those on the real axis) are refused, also as arrays without axes."""
    number = math.nan
    wrong = _scalar_kind(value) not in "iuf"
    if not wrong:
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        except Exception:  # whatever the value's own method raises
            wrong = True
    if wrong:
        real = ", and a real one" if isinstance(value, (complex, np.complexfloating)) else ""
        raise ArgumentTypeError(name, f"must be a number{real}, got {describe(value)}")
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
    """`value` as a bool."""
    if not isinstance(value, (bool, np.bool_)):
        raise ArgumentTypeError(name, f"must be True or False, got {describe(value)}")
    return bool(value)


def choice(name: str, value: Any, allowed: Iterable[str]) -> str:
    """`value` if it is one of the names; the nearest is suggested otherwise."""
    names = list(allowed)
    if not isinstance(value, str):
        raise ArgumentTypeError(name, f"must be one of {', '.join(names)}, got {describe(value)}")
    if value not in names:
        near = difflib.get_close_matches(value.lower(), names, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ArgumentError(name, f"must be one of {', '.join(names)}, got {describe(value)}{hint}")
    return value


def path(name: str, value: Any) -> Path:
    """`value` as a path, from a str or anything with ``__fspath__``."""
    try:
        text = os.fspath(value)
    except Exception:  # whatever the value's own method raises
        text = None
    if not isinstance(text, str):
        raise ArgumentTypeError(name, f"must be a path, a str or a Path, got {describe(value)}")
    if "\0" in text:
        raise ArgumentError(name, f"must be a path without null characters, got {describe(text)}")
    return Path(text)


def file(name: str, value: Any) -> Path:
    """`value` as the path of a file, which has a name."""
    found = path(name, value)
    if not found.name:
        raise ArgumentError(name, f"must be the path of a file, got {describe(value)}")
    return found


def instance(name: str, value: Any, kind: type) -> None:
    """Refuse what is none of this class."""
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIO" else "a"
        raise ArgumentTypeError(name, f"must be {article} {kind.__name__}, got {describe(value)}")


def sequence(name: str, value: Any, what: str, *, most: int = 10**6) -> tuple[Any, ...]:
    """The items of `value`, in their order; no more than `most` are taken from an iterator."""
    unordered = isinstance(value, (str, bytes, bytearray, Mapping, Set))
    try:
        items = () if unordered else tuple(islice(iter(value), most + 1))
    except Exception:  # whatever the value's own method raises
        unordered = True
    if unordered:
        raise ArgumentTypeError(name, f"must be {what}, got {describe(value)}")
    if len(items) > most:
        raise ArgumentError(name, f"must have at most {most} entries, got {describe(value)}")
    return items


def array(name: str, value: ArrayLike) -> NDArray[Any]:
    """`value` as an array of the dtype that NumPy finds in it, whatever holds it: an array, a list
    of rows, a DataFrame, a tensor. Masked entries are refused at any depth, and so are booleans
    among numbers, of which NumPy would make 0 and 1."""
    booleans = isinstance(value, (list, tuple)) and _look_inside(name, value)
    if isinstance(value, (bytearray, memoryview)):  # NumPy would take its bytes for numbers
        raise ArgumentTypeError(name, f"must be an array, got {describe(value)}")
    try:
        found = np.asanyarray(value)
    except ValueError:
        raise ArgumentError(
            name, "must be a rectangular array of numbers, got rows of different lengths"
        ) from None
    except Exception as error:  # whatever the __array__ of another package raises
        reason = " ".join(str(error).split())
        raise ArgumentTypeError(
            name, f"must be an array, got {describe(value)}: {reason[:200]}"
        ) from None
    _refuse_masked(name, found)
    if booleans and found.dtype.kind in "iufc":
        raise ArgumentTypeError(name, "must be numbers alone, got booleans among them")
    return np.asarray(found)


_PLAIN = {int, float}
_DEEPEST = 64  # NumPy's limit of axes


def _look_inside(name: str, items: Any, depth: int = 1) -> bool:
    """Refuse masked entries in nested lists; whether there are booleans."""
    kinds = set(map(type, items))
    if kinds <= _PLAIN or depth > _DEEPEST:
        return False
    booleans = False
    for item in items:
        if isinstance(item, (list, tuple)):
            booleans |= _look_inside(name, item, depth + 1)
        elif isinstance(item, np.ndarray):
            _refuse_masked(name, item)
            booleans |= item.dtype.kind == "b"
        else:
            booleans |= isinstance(item, (bool, np.bool_))
    return booleans


def _refuse_masked(name: str, found: NDArray[Any]) -> None:
    if isinstance(found, np.ma.MaskedArray) and np.ma.is_masked(found):
        raise ArgumentError(name, f"must have no masked entries, got {int(np.sum(found.mask))}")


def floats(name: str, value: ArrayLike, *, finite: bool = True, booleans: bool = False) -> Floats:
    """`value` as an aligned, native, C-contiguous float64 array; copied only where it must be.

    Booleans are refused unless they are asked for: a mask in the wrong place looks like them."""
    found = array(name, value)
    if found.dtype == np.float64 and found.flags.c_contiguous and found.flags.aligned:
        result: Floats = found
    elif found.dtype.kind in ("fiub" if booleans else "fiu"):
        memory(f"{name} in double precision", 8.0 * found.size, "take fewer")
        with np.errstate(over="ignore"):  # to inf, which is told of below
            result = np.array(found, dtype=np.float64, order="C")  # a copy is always aligned
    elif found.dtype.kind == "b":
        raise ArgumentTypeError(
            name, "must be real numbers, got booleans; .astype(float) makes 0 and 1"
        )
    else:
        raise ArgumentTypeError(name, f"must be real numbers, got {_what(found)}")
    if finite and not np.isfinite(result).all():
        bad = np.argwhere(~np.isfinite(result))[0].tolist()
        where = f" at index {tuple(bad)}" if bad else ""
        raise ArgumentError(name, f"must be finite, got {result[tuple(bad)]}{where}")
    return result


def _what(found: NDArray[Any]) -> str:
    """What an array holds that is no number."""
    if found.dtype != object:
        return f"dtype {found.dtype}"
    for entry in found.flat:
        if isinstance(entry, bool) or not isinstance(entry, (int, float, np.number)):
            return f"dtype object, with {describe(entry)}"
    return "dtype object; .astype(float) makes numbers of it"


def seed_sequence(seed: Any, name: str = "seed") -> np.random.SeedSequence:
    """A SeedSequence from an int, a SeedSequence, or a Generator (of which one int is drawn)."""
    if isinstance(seed, np.random.SeedSequence):
        # A copy: spawning from ours must not change what the user's spawns next.
        return np.random.SeedSequence(
            seed.entropy, spawn_key=seed.spawn_key, pool_size=seed.pool_size
        )
    if isinstance(seed, np.random.Generator):
        return np.random.SeedSequence(int(seed.integers(2**63)))
    number = _index(name, seed, "an int, a SeedSequence or a Generator")
    if number < 0:
        raise ArgumentError(name, f"must be at least 0, got {_count(number)}")
    if number.bit_length() > 4096:
        raise ArgumentError(name, f"must have at most 4096 bits, got {_count(number)}")
    return np.random.SeedSequence(number)


def reusable_seed(seed: Any, name: str = "seed") -> int | np.random.SeedSequence:
    """`seed` as an int or a SeedSequence, which give the same numbers however often they are used;
    of a Generator one int is drawn."""
    if isinstance(seed, np.random.Generator):
        return int(seed.integers(2**63))
    sequence = seed_sequence(seed, name)
    return sequence if isinstance(seed, np.random.SeedSequence) else operator.index(seed)


def generator_of_run(seeds: np.random.SeedSequence, run: int) -> np.random.Generator:
    """The stream of random numbers of one run, whatever runs are beside it."""
    key = (*seeds.spawn_key, int(run))
    return np.random.default_rng(np.random.SeedSequence(seeds.entropy, spawn_key=key))


def memory(what: str, n_bytes: float, advice: str) -> None:
    """Refuse arrays that would not fit, before they are allocated."""
    if n_bytes < 2**26:
        return
    limit = available_memory()
    if n_bytes > limit:
        raise ValueError(f"{what} would take {size(n_bytes)} and {size(limit)} are free; {advice}")


def available_memory() -> float:
    """Bytes this process could still take."""
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
    """Bytes in words."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.3g} PiB"
