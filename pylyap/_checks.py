"""Checks of what a user hands over, with one voice: argument, what is allowed, what came."""

from __future__ import annotations

import difflib
import math
import operator
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


_HUGE = 2**53  # no count of ours comes near; sums and products of two still fit the core's int64


def describe(value: object) -> str:
    """A short `repr` for messages."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def integer(name: str, value: Any, *, least: int | None = None, most: int | None = None) -> int:
    """`value` as an int; floats, bools and strings are refused."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {describe(value)}") from None
    if (least is not None and number < least) or (most is not None and number > most):
        raise ValueError(f"{name} must be {_bounds(least, most)}, got {number}")
    if abs(number) > _HUGE:
        raise ValueError(f"{name} must be at most {_HUGE} in size, got {number}")
    return number


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
    """`value` as a finite float with `value >= least`, `> above` and `< below`."""
    if isinstance(value, (bool, np.bool_, str, bytes)) or np.ndim(value) != 0:
        raise TypeError(f"{name} must be a number, got {describe(value)}")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{name} must be a number, got {describe(value)}") from None
    if not (math.isfinite(number) and number >= least and number > above and number < below):
        raise ValueError(f"{name} must be {_interval(least, above, below)}, got {number!r}")
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
        raise TypeError(f"{name} must be True or False, got {describe(value)}")
    return bool(value)


def choice(name: str, value: Any, allowed: Iterable[str]) -> str:
    """`value` if it is one of the names; the nearest is suggested otherwise."""
    names = list(allowed)
    if not isinstance(value, str):
        raise TypeError(f"{name} must be one of {', '.join(names)}, got {describe(value)}")
    if value not in names:
        near = difflib.get_close_matches(value.lower(), names, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{name} must be one of {', '.join(names)}, got {value!r}{hint}")
    return value


def floats(name: str, value: ArrayLike, *, finite: bool = True) -> Floats:
    """`value` as an aligned, native, C-contiguous float64 array; copied only where it must be."""
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise ValueError(f"{name} must have no masked entries, got {int(np.sum(value.mask))}")
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError(
            f"{name} must be a rectangular array of numbers, got rows of different lengths"
        ) from None
    if array.dtype == np.float64 and array.flags.c_contiguous and array.flags.aligned:
        result: Floats = array
    elif array.dtype.kind in "fiub":
        result = np.array(array, dtype=np.float64, order="C")  # aligned, as a copy always is
    else:
        raise TypeError(f"{name} must be real numbers, got dtype {array.dtype}")
    if finite and not np.isfinite(result).all():
        bad = np.argwhere(~np.isfinite(result))[0].tolist()
        where = f" at index {tuple(bad)}" if bad else ""
        raise ValueError(f"{name} must be finite, got {result[tuple(bad)]}{where}")
    return result


def seed_sequence(seed: Any, name: str = "seed") -> np.random.SeedSequence:
    """A SeedSequence from an int, a SeedSequence, or a Generator (of which one int is drawn)."""
    if isinstance(seed, np.random.SeedSequence):
        # A copy: spawning from ours must not change what the user's spawns next.
        return np.random.SeedSequence(
            seed.entropy, spawn_key=seed.spawn_key, pool_size=seed.pool_size
        )
    if isinstance(seed, np.random.Generator):
        return np.random.SeedSequence(int(seed.integers(2**63)))
    if isinstance(seed, (bool, np.bool_)):
        raise TypeError(f"{name} must be an int, a SeedSequence or a Generator, got {seed!r}")
    try:
        number = operator.index(seed)
    except TypeError:
        raise TypeError(
            f"{name} must be an int, a SeedSequence or a Generator, got {describe(seed)}"
        ) from None
    if number < 0:
        raise ValueError(f"{name} must be at least 0, got {number}")
    return np.random.SeedSequence(number)


def settled_seed(seed: Any, name: str = "seed") -> int | np.random.SeedSequence:
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
