"""The two axes of a map: a setting and the values that it takes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._errors import ArgumentError, ArgumentTypeError

Scale = Literal["log", "linear"]
SCALES = ("log", "linear")

BYTES_PER_PIXEL = 32.0  # of the result, and of a copy of the score for a picture


@dataclass(frozen=True, eq=False)
class Axis:
    """A setting by name, its increasing values, and whether they are spaced in logarithms."""

    name: str
    values: Floats
    scale: Scale


def axis(argument: str, given: Any, n: int) -> Axis:
    """The axis of ``(name, values)`` or ``(name, (low, high, scale))``, n values of a range."""
    expected = '(name, values) or (name, (low, high, "log" or "linear"))'
    pair = _checks.sequence(argument, given, expected)
    if len(pair) != 2 or not isinstance(pair[0], str) or not pair[0]:
        raise ArgumentTypeError(argument, f"must be {expected}, got {_checks.describe(given)}")
    name, values = pair
    if isinstance(values, (tuple, list)) and len(values) == 3 and isinstance(values[2], str):
        low, high, scale = values
        return of_range(argument, name, low, high, _checks.choice(argument, scale, SCALES), n)
    return of_values(argument, name, values)


def of_range(argument: str, name: str, low: Any, high: Any, scale: Any, n: int) -> Axis:
    """An axis of n values from `low` to `high`, both included."""
    low, high = _checks.real(argument, low), _checks.real(argument, high)
    if low >= high:
        raise ArgumentError(
            argument,
            f"must have a range of {name} from a lower to a higher value, got {low!r} to {high!r}",
        )
    if scale == "log":
        if low <= 0:
            raise ArgumentError(
                argument, f"must have a logarithmic range of {name} above 0, got {low!r}"
            )
        values = np.exp(np.linspace(math.log(low), math.log(high), n))
        values[[0, -1]] = low, high
    else:
        values = np.linspace(low, high, n)
    if not (np.diff(values) > 0).all():
        raise ArgumentError(
            argument,
            f"must have a range of {name} with {n} different numbers in double precision, "
            f"got {low!r} to {high!r}",
        )
    return Axis(name, values, scale)


def of_values(argument: str, name: str, given: Any) -> Axis:
    """An axis of given values; logarithmic if their ratios are closer to constant."""
    values = _checks.floats(argument, given)
    if values.ndim != 1 or values.size < 2 or not (np.diff(values) > 0).all():
        what = f"shape {values.shape}" if values.ndim != 1 or values.size < 2 else "others"
        raise ArgumentError(
            argument, f"must have increasing values of {name}, two or more, got {what}"
        )
    steps = np.diff(values)
    scale: Scale = "linear"
    if values[0] > 0 and len(values) > 2:
        ratios = np.diff(np.log(values))
        scale = "log" if np.ptp(ratios) / ratios.mean() < np.ptp(steps) / steps.mean() else "linear"
    return Axis(name, values.copy(), scale)


def lengths(shape: Any) -> tuple[int, int]:
    """Numbers of rows and columns."""
    pair = _checks.sequence("shape", shape, "(rows, columns)")
    if len(pair) != 2:
        raise ArgumentError("shape", f"must be (rows, columns), got {_checks.describe(shape)}")
    rows, columns = (_checks.integer(f"shape[{i}]", n, least=2) for i, n in enumerate(pair))
    return rows, columns


def require_memory(rows: int, columns: int, argument: str = "shape") -> None:
    """Refuse a map that does not fit, with the tiles that would."""
    needed, limit = BYTES_PER_PIXEL * rows * columns, _checks.available_memory()
    if needed < 2**26 or needed <= limit:
        return
    parts = 2
    while BYTES_PER_PIXEL * -(-rows // parts) * -(-columns // parts) > limit / 4:
        parts *= 2
    raise ArgumentError(
        argument,
        f"must fit in memory, got {rows} × {columns} pixels, which take {_checks.size(needed)} of "
        f"{_checks.size(limit)}: compute {parts} × {parts} maps of {-(-rows // parts)} × "
        f"{-(-columns // parts)} pixels, with a part of each range",
    )


def require_known(argument: str, axis: Axis, names: Iterable[str]) -> None:
    """Refuse a setting that does not exist, with the nearest name."""
    known = list(names)
    if axis.name not in known:
        hint = _checks.suggestion(axis.name.lower(), known)
        raise ArgumentError(
            argument,
            f"must have a setting that is one of {', '.join(known)}, got {axis.name!r}"
            + (f"; {hint}" if hint else ""),
        )
