"""Study files: what a TOML text says, on which line, and a text that says the same."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

# How the line after a statement looks: empty, a comment, a table's header, a key with a value.
_BEGINS = re.compile(r"\s*($|#|\[[^,]*\]\s*($|#)|.*=)")


def parsed(text: str) -> dict[str, Any]:
    """What a TOML text says; ValueError, with line and column, if it is none."""
    try:
        return tomllib.loads(text)
    except ValueError as error:  # also of numbers with thousands of digits
        raise ValueError(f"not TOML: {error}") from None
    except RecursionError:
        raise ValueError("not TOML that can be read: too many brackets in brackets") from None


def line_numbers(text: str) -> dict[str, int]:
    """The line on which each table and key of a valid TOML text begins, by its dotted path.

    Statement by statement: tomllib tells no lines, but it tells where a statement is complete.
    """
    found: dict[str, int] = {}
    header: tuple[str, ...] = ()
    statement: list[str] = []
    lines = text.split("\n")
    for number, (line, following) in enumerate(zip(lines, [*lines[1:], ""], strict=True), 1):
        statement.append(line)
        if not _BEGINS.match(following):
            continue
        try:
            paths = list(_paths(tomllib.loads("\n".join(statement))))
        except ValueError:
            continue  # its value goes on
        if statement[0].lstrip().startswith("["):
            header, paths = max(paths, key=len), [()]
        for path in paths:
            whole = header + path
            for depth in range(1, len(whole) + 1):
                found.setdefault(".".join(whole[:depth]), number - len(statement) + 1)
        statement = []
    return found


def _paths(said: Any) -> Iterator[tuple[str, ...]]:
    """Of all tables and keys."""
    if isinstance(said, list):  # perhaps of tables
        for item in said:
            yield from _paths(item)
    elif isinstance(said, dict):
        for key, value in said.items():
            yield (key,)
            yield from ((key, *path) for path in _paths(value))


def nearest(lines: Mapping[str, int], path: str) -> int | None:
    """The line of a setting, in its table or in the grid, or of the table around it."""
    path = path.partition("[")[0]
    for place in (path, f"grid.{path}"):
        if place in lines:
            return lines[place]
    around = path.rpartition(".")[0]
    return nearest(lines, around) if around else None


def as_toml(settings: Mapping[str, Any]) -> str:
    """A text that says the same: single keys first, then tables. None is left out."""
    single = {key: value for key, value in settings.items() if not isinstance(value, dict)}
    tables = {key: value for key, value in settings.items() if isinstance(value, dict)}
    parts = [_assignments(single)]
    parts += [f"[{name}]\n{_assignments(table)}" for name, table in tables.items() if table]
    return "\n".join(parts)


def _assignments(table: Mapping[str, Any]) -> str:
    return "".join(
        f"{key if key.isidentifier() else json.dumps(key)} = {_value(value)}\n"
        for key, value in table.items()
        if value is not None
    )


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {_value(item)}' for key, item in value.items())}}}"
    # Text, numbers, booleans and lists of them are the same in JSON, but for one character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
