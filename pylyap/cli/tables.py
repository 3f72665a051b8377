"""Numbers and tables on the terminal."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_UNBOUNDED = 10_000  # columns of a pipe, which has no width
_LEAST = 20  # a smaller width is ignored
_SMALL, _LARGE = -4, 6  # decimal exponents beyond which numbers are written with one


# --- numbers --------------------------------------------------------------------------------------


def number(value: float, unit: str = "") -> str:
    """Three significant digits, or a dash for nan."""
    return "–" if np.isnan(value) else f"{value:.3g}{unit}"


def uncertain(value: float, error: float) -> str:
    """A number with its uncertainty in units of the last digits, two digits of it: 0.082(20).

    An uncertainty across the decimal point keeps its own, 12.3(1.2). Without an uncertainty (nan)
    and for infinite values the number has three significant digits.
    """
    if not (math.isfinite(value) and math.isfinite(error)) or error < 0.0:
        return number(value)
    if error == 0.0:
        return f"{number(value)}(0)"
    size = _exponent(error, 1)
    largest = max(_exponent(value, 1) if value else size, size)
    if largest < _SMALL or size > _LARGE:
        unit = 10.0**largest
        return f"{_uncertain(value / unit, error / unit)}e{largest:+03d}"
    return _uncertain(value, error)


def _uncertain(value: float, error: float) -> str:
    """`uncertain` without an exponent."""
    size = _exponent(error, 1)
    decimals = 1 - size  # after the point, such that two digits of the uncertainty are shown
    shown, spread = round(value, decimals) + 0.0, round(error, decimals)  # + 0.0: no -0
    if decimals <= 0:
        return f"{shown:.0f}({spread:.0f})"
    if size >= 0:  # across the point
        return f"{shown:.{decimals}f}({spread:.{decimals}f})"
    return f"{shown:.{decimals}f}({round(spread * 10**decimals)})"


def _exponent(value: float, decimals: int) -> int:
    """Decimal exponent of a number that is rounded to 1 + `decimals` digits."""
    return int(f"{value:.{decimals}e}".partition("e")[2])


def median(values: Any) -> float:
    """Median of the finite values, or nan."""
    values = np.asarray(values, float)
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else np.nan


# --- tables ---------------------------------------------------------------------------------------


class Column(NamedTuple):
    """Head of a column, and what it holds.

    Columns of the highest `rank` are left out first, those of rank 0 never.
    """

    name: str
    rank: int = 0
    meaning: str = ""


# Title, columns, rows, note and further notes of a table.
Content = tuple[str, list[Column | str], list[list[str]], str, list[str]]


def terminal() -> Console:
    """Standard output with the width that COLUMNS sets, or that of the terminal.

    A pipe without COLUMNS has no width.
    """
    from rich.console import Console

    console = Console(highlight=False)
    given = os.environ.get("COLUMNS", "")
    if given.isdigit() and int(given) >= _LEAST:
        console.width = int(given)
    elif not console.is_terminal:
        console.width = _UNBOUNDED
    return console


def print_rows(
    title: str,
    columns: Sequence[Column | str],
    rows: Sequence[Sequence[str]],
    note: str = "",
    more: Sequence[str] = (),
) -> None:
    """Print a table that fits the width, with fewer columns if necessary, and its notes.

    Names of columns and cells may have Rich's markup.
    Cells are never wrapped. Columns without content are left out, and those that do not fit are
    named below the table. If those that remain are still too wide, lists in the last column are cut
    at a comma and end in "…". The meanings of the columns that are shown follow `note` in its line.
    """
    console = terminal()
    heads = [Column(column) if isinstance(column, str) else column for column in columns]
    shown = [
        j for j, head in enumerate(heads)
        if not head.rank or any(row[j] not in ("", "–") for row in rows)
    ]  # fmt: skip
    left_out: list[int] = []
    while True:
        table = _table([heads[j].name for j in shown], [[row[j] for j in shown] for row in rows])
        needed = console.measure(table, options=console.options.update(width=_UNBOUNDED)).maximum
        least = max(shown, key=lambda j: (heads[j].rank, j))
        if needed <= console.width or heads[least].rank == 0:
            break
        shown.remove(least)
        left_out.append(least)
    if needed > console.width:
        last = shown[-1]
        room = max(_length(row[last]) for row in rows) - (needed - console.width)
        cells = [[*(row[j] for j in shown[:-1]), _cut(row[last], room)] for row in rows]
        table = _table([heads[j].name for j in shown], cells)
    meanings = [f"{heads[j].name}: {heads[j].meaning}" for j in shown if heads[j].meaning]
    explained = "; ".join(meanings)
    notes = [f"{note} {explained}{'.' if explained else ''}", *more]
    width = console.width
    if left_out:
        names = ", ".join(heads[j].name for j in sorted(left_out))
        notes.append(f"Not shown in {width} columns: {names}.")
    console.width = max(needed, width)
    with console.capture() as captured:
        console.print(table)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    below = [line for text in notes for line in _wrapped(text, width)]
    print("\n".join([*_wrapped(title, width), *lines, *below]))


def _cut(text: str, room: int) -> str:
    """The first items of a list that fit, and "…" for the others; at least the first one."""
    if _length(text) <= room:
        return text
    items = text.split(", ")
    while len(items) > 1:
        items.pop()
        short = ", ".join([*items, "…"])
        if _length(short) <= room and short.count("(") == short.count(")"):
            return short
    return f"{items[0]}, …" if ", " in text else text


def _length(text: str) -> int:
    """Width of a text with markup, in columns."""
    from rich.text import Text

    return Text.from_markup(text).cell_len


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = empty_table(heads)
    for row in rows:
        table.add_row(*row)
    return table


def _wrapped(text: str, width: int) -> list[str]:
    """Lines between words, indented by one like the table."""
    return textwrap.wrap(
        text, width - 1, initial_indent=" ", subsequent_indent=" ", break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def empty_table(columns: Sequence[str]) -> Table:
    """An empty table with the style of all commands."""
    from rich import box
    from rich.table import Table

    table = Table(*columns, box=box.SIMPLE_HEAD)
    table.collapse_padding, table.pad_edge = True, False
    for column in table.columns:
        column.no_wrap = True
    return table


def print_facts(facts: Mapping[str, str]) -> None:
    """Print names and texts in two columns; long texts are not wrapped."""
    width = max(map(len, facts))
    for name, text in facts.items():
        print(f"{name:<{width}}  {text}")
