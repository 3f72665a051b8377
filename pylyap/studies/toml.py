"""Study files: what a TOML text says, on which line, and a text that says the same."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

MOST_BYTES = 4 * 2**20  # of a file; the largest lists of numbers that a study takes fit in
MOST_NESTED = 16  # parts of a dotted key, brackets in brackets, tables in tables; 4 are needed
_MOST_KEYS = 1000  # of a file; all tables of a study have some 60
_MOST_PARTS = 500_000  # signs, texts and values of a file; a list of 10⁵ texts has 3·10⁵
_LONGEST_NUMBER = 1000  # characters
_LONGEST_KEY = 200  # characters

# Possessive quantifiers: a text is passed once, whatever it holds. A string without its end takes
# the rest of its line or of the text; tomllib refuses it.
_STRING = (
    r'"""(?:\\.|[^"\\]|"(?!""))*+(?:"{3,5})?'
    r"|'''(?:[^']|'(?!''))*+(?:'{3,5})?"
    r'|"(?:\\[^\n]|[^"\\\n])*+"?'
    r"|'[^'\n]*+'?"
)


def _token(**others: str) -> re.Pattern[str]:
    """Pattern of a comment, a string, a bracket, or something else that is named."""
    kinds = {"comment": r"#[^\n]*+", "string": _STRING, "bracket": r"[][{}]"} | others
    return re.compile("|".join(f"(?P<{name}>{kind})" for name, kind in kinds.items()), re.DOTALL)


_NEWLINE = r"\n(?:[ \t\n]|#[^\n]*+)*+"  # and the lines after it that say nothing
_IN_KEY = _token(
    word=r"[^\s#\"'\][{}=,.]++", mark=r"[=,]", newline=_NEWLINE, other=r"(?:[^\S\n]|\.)++|."
)
_IN_VALUE = _token(mark=r",", newline=_NEWLINE, other=r"[^\n#\"'\][{},]++")
_LONG = re.compile(rf"[^\s,]{{{_LONGEST_NUMBER + 1}}}")
_IN_LIST = _token(other=r"[^#\"'\][{}]++")


class _Open(NamedTuple):
    """A bracket that is open, and the path of the key whose value it is."""

    bracket: str
    path: tuple[str, ...]


def read_text(path: str | PathLike[str]) -> str:
    """The text of a study file, its lines ended by line feeds.

    Raises OSError if it cannot be read, ValueError if it is too long, no UTF-8, or has carriage
    returns that end no line.
    """
    file = Path(path)
    with file.open("rb") as stream:
        data = stream.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(
            f"{file} must have at most {MOST_BYTES >> 20} MiB, it is longer; "
            "pylyap.Study takes longer lists from Python",
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} must be UTF-8 text: {error}") from None
    text = text.replace("\r\n", "\n")
    before, alone, _ = text.partition("\r")
    if alone:
        line = before.count("\n") + 1
        raise ValueError(
            f"{file}: line {line}: lines must end with a line feed, or with a carriage return and "
            "a line feed, got a carriage return alone"
        )
    return text


def parsed(text: str) -> dict[str, Any]:
    """What a TOML text says; ValueError, with its line, if it is none.

    Its depth and size are limited before it is parsed: tomllib takes memory as the square of the
    number of parts of a key.
    """
    for _ in _keys(text):
        pass
    try:
        return tomllib.loads(text)
    except ValueError as error:  # also of numbers with thousands of digits
        raise ValueError(f"not TOML: {error}") from None


def line_numbers(text: str) -> dict[str, int]:
    """The line on which each table and key of a valid TOML text begins, by its dotted path."""
    found: dict[str, int] = {}
    for path, line in _keys(text):
        for depth in range(1, len(path) + 1):
            found.setdefault(".".join(path[:depth]), line)
    return found


def _keys(text: str) -> Iterator[tuple[tuple[str, ...], int]]:
    """Tables and keys with their whole paths and lines, in one pass over the text.

    tomllib tells no lines. What this makes of a text that is no TOML means nothing, but takes no
    longer. Raises ValueError if the text exceeds the limits of this module.
    """
    table: tuple[str, ...] = ()
    around: list[_Open] = []
    key: list[str] = []
    path: tuple[str, ...] = ()
    in_key, header = True, False
    line = begins = 1
    place, n_keys, n_parts = 0, 0, 0

    def known() -> tuple[tuple[str, ...], int]:
        nonlocal n_keys
        n_keys += 1
        if n_keys > _MOST_KEYS:
            raise ValueError(f"line {begins}: a study has at most {_MOST_KEYS} keys and tables")
        return path, begins

    while place < len(text):
        listed = bool(around) and around[-1].bracket == "["
        match = (_IN_KEY if in_key else _IN_LIST if listed else _IN_VALUE).match(text, place)
        assert match is not None  # together the alternatives take any character
        kind, token, place = match.lastgroup, match.group(), match.end()
        n_parts += 1 + (token.count(",") if listed and kind == "other" else 0)
        if n_parts > _MOST_PARTS:
            raise ValueError(f"line {line}: too many values, at most {_MOST_PARTS} in a file")
        if kind == "other" and _LONG.search(token):
            raise ValueError(
                f"line {line}: not TOML that can be read: a number of more than "
                f"{_LONGEST_NUMBER} characters"
            )
        first, line = line, line + token.count("\n")
        if in_key and kind in ("word", "string"):
            if len(token) > _LONGEST_KEY:
                raise ValueError(f"line {first}: keys have at most {_LONGEST_KEY} characters")
            begins = begins if key else first
            key.append(_unquoted(token) if kind == "string" else token)
            if len(table if not around else around[-1].path) + len(key) > MOST_NESTED:
                raise ValueError(f"line {first}: keys have at most {MOST_NESTED} parts")
        elif in_key and token == "=":
            path = (around[-1].path if around else table) + tuple(key)
            yield known()
            in_key = False
        elif in_key and token == "[" and not around and not key:
            header = True
        elif kind == "bracket" and token in "[{" and not in_key:
            if len(around) == MOST_NESTED:
                raise ValueError(
                    f"line {first}: too many brackets in brackets, at most {MOST_NESTED}"
                )
            around.append(_Open(token, path))
            in_key, key = token == "{", []
        elif kind == "bracket" and token in "]}" and around and not header:
            path = around.pop().path
            in_key = False
        elif token == "," and around:
            in_key, key = True, []
        elif kind == "newline" and not around:
            if header:
                table = path = tuple(key)
                yield known()
            in_key, header, key = True, False, []
    if header:
        path = tuple(key)
        yield known()


def _unquoted(key: str) -> str:
    try:
        return next(iter(tomllib.loads(f"{key} = 0")))
    except ValueError:
        return key


def nearest(lines: Mapping[str, int], path: str) -> int | None:
    """The line of a setting, in its table or in the grid, or of the table around it."""
    key = re.sub(r"(\[\d+\])+$", "", path)  # of a value of a list
    for place in (path, key, f"grid.{key}"):
        if place in lines:
            return lines[place]
    around = key.rpartition(".")[0]
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
