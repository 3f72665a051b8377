"""TOML text of study files: parsing, line numbers of the keys, and writing."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

MAX_BYTES = 4 * 2**20  # of a file; enough for the largest lists of numbers of a study
MAX_NESTED = 16  # parts of a dotted key, nested brackets, nested tables; 4 are needed
_MAX_KEYS = 1000  # of a file; all tables of a study have about 60
_MAX_TOKENS = 500_000  # of a file; a list of 10⁵ strings has 3·10⁵
_MAX_NUMBER_LENGTH = 1000  # characters
_MAX_KEY_LENGTH = 200  # characters

# Possessive quantifiers bound the time: no text is scanned twice. An unterminated string extends to
# the end of its line or of the text; tomllib rejects it.
_STRING = (
    r'"""(?:\\.|[^"\\]|"(?!""))*+(?:"{3,5})?'
    r"|'''(?:[^']|'(?!''))*+(?:'{3,5})?"
    r'|"(?:\\[^\n]|[^"\\\n])*+"?'
    r"|'[^'\n]*+'?"
)


def _token(**others: str) -> re.Pattern[str]:
    """Pattern of a comment, a string, a bracket, or one of the other named kinds."""
    kinds = {"comment": r"#[^\n]*+", "string": _STRING, "bracket": r"[][{}]"} | others
    return re.compile("|".join(f"(?P<{name}>{kind})" for name, kind in kinds.items()), re.DOTALL)


_NEWLINE = r"\n(?:[ \t\n]|#[^\n]*+)*+"  # with the blank lines and comments that follow
_IN_KEY = _token(
    word=r"[^\s#\"'\][{}=,.]++", mark=r"[=,]", newline=_NEWLINE, other=r"(?:[^\S\n]|\.)++|."
)
_IN_VALUE = _token(mark=r",", newline=_NEWLINE, other=r"[^\n#\"'\][{},]++")
_LONG = re.compile(rf"[^\s,]{{{_MAX_NUMBER_LENGTH + 1}}}")
_IN_LIST = _token(other=r"[^#\"'\][{}]++")


class _OpenBracket(NamedTuple):
    """An open bracket, and the path of the key whose value it begins."""

    bracket: str
    path: tuple[str, ...]


def read_text(path: str | PathLike[str]) -> str:
    """Read a study file; line ends become line feeds.

    Raises OSError if it cannot be read, and ValueError if it is too long, is not UTF-8, or contains
    a carriage return without a line feed.
    """
    file = Path(path)
    with file.open("rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(
            f"{file} must have at most {MAX_BYTES >> 20} MiB, it is larger; "
            "pylyap.Study accepts longer lists from Python",
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
            f"{file}: line {line}: lines must end with a line feed or with a carriage return and "
            "a line feed, got a carriage return alone"
        )
    return text


def parse_toml(text: str) -> dict[str, Any]:
    """Parse a TOML text. Raises ValueError, with the line, if it is invalid.

    Depth and size are checked first: the memory of tomllib grows with the square of the number of
    parts of a key.
    """
    for _ in _keys(text):
        pass
    try:
        return tomllib.loads(text)
    except ValueError as error:  # includes integers of thousands of digits
        raise ValueError(f"invalid TOML: {error}") from None


def line_numbers(text: str) -> dict[str, int]:
    """Line on which each table and key of a valid TOML text begins, by dotted path."""
    found: dict[str, int] = {}
    for path, line in _keys(text):
        for depth in range(1, len(path) + 1):
            found.setdefault(".".join(path[:depth]), line)
    return found


def _keys(text: str) -> Iterator[tuple[tuple[str, ...], int]]:
    """Full paths and lines of tables and keys, in one pass over the text.

    tomllib reports no lines. The result for invalid TOML is meaningless but takes no longer.
    Raises ValueError if the text exceeds the limits of this module.
    """
    table: tuple[str, ...] = ()
    around: list[_OpenBracket] = []
    key: list[str] = []
    path: tuple[str, ...] = ()
    in_key, header = True, False
    line = begins = 1
    place, n_keys, n_parts = 0, 0, 0

    def known() -> tuple[tuple[str, ...], int]:
        nonlocal n_keys
        n_keys += 1
        if n_keys > _MAX_KEYS:
            raise ValueError(f"line {begins}: a study has at most {_MAX_KEYS} keys and tables")
        return path, begins

    while place < len(text):
        listed = bool(around) and around[-1].bracket == "["
        match = (_IN_KEY if in_key else _IN_LIST if listed else _IN_VALUE).match(text, place)
        assert match is not None  # the alternatives cover every character
        kind, token, place = match.lastgroup, match.group(), match.end()
        n_parts += 1 + (token.count(",") if listed and kind == "other" else 0)
        if n_parts > _MAX_TOKENS:
            raise ValueError(f"line {line}: too many values, at most {_MAX_TOKENS} in a file")
        if kind == "other" and _LONG.search(token):
            raise ValueError(
                f"line {line}: invalid TOML: a number of more than {_MAX_NUMBER_LENGTH} characters"
            )
        first, line = line, line + token.count("\n")
        if in_key and kind in ("word", "string"):
            if len(token) > _MAX_KEY_LENGTH:
                raise ValueError(f"line {first}: keys have at most {_MAX_KEY_LENGTH} characters")
            begins = begins if key else first
            key.append(_unquoted(token) if kind == "string" else token)
            if len(table if not around else around[-1].path) + len(key) > MAX_NESTED:
                raise ValueError(f"line {first}: keys have at most {MAX_NESTED} parts")
        elif in_key and token == "=":
            path = (around[-1].path if around else table) + tuple(key)
            yield known()
            in_key = False
        elif in_key and token == "[" and not around and not key:
            header = True
        elif kind == "bracket" and token in "[{" and not in_key:
            if len(around) == MAX_NESTED:
                raise ValueError(f"line {first}: too many nested brackets, at most {MAX_NESTED}")
            around.append(_OpenBracket(token, path))
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


def nearest_line(lines: Mapping[str, int], path: str) -> int | None:
    """Line of a setting in its table or in the grid, else line of the enclosing table."""
    key = re.sub(r"(\[\d+\])+$", "", path)  # without the index of an entry of a list
    for place in (path, key, f"grid.{key}"):
        if place in lines:
            return lines[place]
    around = key.rpartition(".")[0]
    return nearest_line(lines, around) if around else None


def to_toml_text(settings: Mapping[str, Any]) -> str:
    """TOML text of settings: single keys first, then tables. None is omitted."""
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
    # Strings, numbers, booleans and lists of them are the same in JSON, except for one character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
