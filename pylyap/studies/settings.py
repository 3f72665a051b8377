"""The settings of a study: all mistakes at once, defaults filled in, the values of its grid."""

from __future__ import annotations

import difflib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from pylyap import _checks
from pylyap._errors import ArgumentError
from pylyap.studies.tables import (
    COUNT,
    FROM_ZERO,
    MOST_FACTORS,
    NUMBERS,
    REQUIRED,
    SPACES,
    TABLES,
    Check,
    Keys,
    Settings,
    choice,
    section,
    string,
    values_of,
)
from pylyap.studies.toml import MOST_NESTED, line_numbers, nearest

Problem = tuple[str, str]  # dotted path, and what is wrong

_DEFAULT_NAMES = {"optimizer": "gradient_descent"}
_SINGLE = section(None, {"title": "", "seed": 0}, title=string, runs=COUNT, seed=FROM_ZERO)
_TOP = (*_SINGLE, *TABLES, "grid")
_SHOWN = 20  # mistakes in a message
_BITS = 4096  # of an integer; Python writes no larger ones than some 14,000 as text
PATHS = ("data.folder", "data.images", "data.labels")


class Wrong(ValueError):
    """All that is wrong with a study."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__(_listed("the study", [text for _, text in problems]))

    def in_file(self, name: str, text: str) -> ValueError:
        """The same with the lines of the file."""
        lines = line_numbers(text)
        located = []
        for path, what in self.problems:
            line = nearest(lines, path)
            located.append(what if line is None else f"line {line}: {what}")
        if len(located) == 1:
            return ValueError(f"{name}: {located[0]}")
        return ValueError(_listed(name, located))


def _listed(whose: str, texts: list[str]) -> str:
    if len(texts) == 1:
        return texts[0]
    more = [f"and {len(texts) - _SHOWN} more"] if len(texts) > _SHOWN else []
    return "\n  ".join([f"{whose} has {len(texts)} mistakes:", *texts[:_SHOWN], *more])


def checked(given: Mapping[str, Any], base: str = "") -> Settings:
    """All settings with defaults filled in, as numbers, text, lists and dicts.

    Relative paths start at `base`. Keys of the grid are not in their tables. Raises Wrong.
    """
    problems: list[Problem] = []
    given = _dict(_plain(given, ""))
    _known("", given, _TOP, problems)
    settings = _filled("", given, _SINGLE, set(), problems)
    grid = dict(_flat(given.get("grid", {}), problems))
    for table in TABLES:
        varied = {path.partition(".")[2] for path in grid if path.partition(".")[0] == table}
        settings[table] = _table(table, given.get(table, {}), varied, problems)
    if settings["analysis"].get("name") == "scan":
        if "lr" in _dict(given.get("optimizer")) or "optimizer.lr" in grid:
            text = "optimizer.lr must be left out: the rates of a scan are analysis.lrs"
            problems.append(("optimizer.lr", text))
        settings["optimizer"].pop("lr", None)
    settings["grid"] = {
        path: _axis(path, values, settings, problems) for path, values in grid.items()
    }
    if problems:
        raise Wrong(problems)
    for path, values in settings["grid"].items():
        if path in PATHS:
            settings["grid"][path] = [_absolute(base, value) for value in values]
    for path in PATHS:
        key = path.removeprefix("data.")
        if key in settings["data"]:
            settings["data"][key] = _absolute(base, settings["data"][key])
    return settings


def _dict(value: Any) -> Settings:
    return value if isinstance(value, dict) else {}


def keys_of(settings: Settings, table: str) -> Keys:
    """The keys that a table of these settings may have; none if its name is wrong."""
    return TABLES[table].get(settings[table].get("name", ""), {})


def at_point(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """The tables with these values of the grid's keys in their places."""
    tables = {table: dict(settings[table]) for table in TABLES}
    for path, value in values.items():
        table, _, key = path.partition(".")
        tables[table][key] = value
    return tables


def _absolute(base: str, path: str) -> str:
    return os.path.abspath(os.path.join(base, path))


def _table(table: str, given: Any, varied: set[str], problems: list[Problem]) -> Settings:
    """A table with its defaults; keys that the grid varies are not in it."""
    if not isinstance(given, dict):
        problems.append((table, f"{table} must be a table, got {_checks.describe(given)}"))
        return {}
    given = dict(given)
    kinds = TABLES[table]
    found: Settings = {}
    if "" not in kinds:
        path, chosen = f"{table}.name", given.pop("name", _DEFAULT_NAMES.get(table))
        if chosen is None:
            problems.append((path, f"{path} is missing: one of {', '.join(kinds)}"))
            return {}
        if _value(problems, path, choice(*kinds), chosen) is None:
            return {}
        found["name"] = chosen
    for key in given:
        if key in varied:
            path = f"{table}.{key}"
            problems.append((path, f"{path} must be in its table or in the grid, got both"))
    return found | _filled(table, given, kinds[found.get("name", "")], varied, problems)


def _filled(
    table: str, given: Settings, keys: Keys, varied: set[str], problems: list[Problem]
) -> Settings:
    """Every key that does not vary, as given or by default."""
    if table:
        _known(table, given, keys, problems)
    found: Settings = {}
    for key, (check, default) in keys.items():
        path = f"{table}.{key}" if table else key
        value = given.get(key, default)
        if key in varied:
            continue
        if value is REQUIRED:
            problems.append((path, f"{path} is missing"))
        elif value is None and default is None:
            found[key] = None
        elif not isinstance(check, dict):
            found[key] = _value(problems, path, check, value)
        elif isinstance(value, dict):
            found[key] = _filled(path, value, check, set(), problems)
        else:
            problems.append((path, f"{path} must be a table, got {_checks.describe(value)}"))
    return found


def _value(problems: list[Problem], path: str, check: Check, value: Any) -> Any:
    """The value as it is kept; None and a problem more if it is wrong."""
    try:
        return check(path, value)
    except (ValueError, TypeError) as error:
        named = isinstance(error, ArgumentError)  # a check names the path that it is given
        problems.append((path, str(error) if named else f"{path}: {error}"))
        return None


def _known(table: str, given: Iterable[str], keys: Iterable[str], problems: list[Problem]) -> None:
    names = list(keys)
    for key in given:
        if key not in names:
            path = f"{table}.{key}" if table else str(key)
            problems.append((path, f"{path} is unknown{_suggestion(str(key), names)}"))


def _suggestion(key: str, names: list[str]) -> str:
    near = difflib.get_close_matches(key.lower(), names, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(names)}"


# --- the grid -------------------------------------------------------------------------------------


def _flat(grid: Any, problems: list[Problem], before: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted paths and values; {optimizer = {lr = ...}} is {"optimizer.lr" = ...}."""
    if not isinstance(grid, dict):
        problems.append(("grid", f"grid must be a table, got {_checks.describe(grid)}"))
        return
    for key, value in grid.items():
        path = f"{before}{key}"
        if isinstance(value, dict) and "." not in path and not set(value) & set(SPACES):
            yield from _flat(value, problems, f"{path}.")
        else:
            yield path, value


def _axis(path: str, values: Any, settings: Settings, problems: list[Problem]) -> list[Any]:
    """The values of one key of the grid."""
    where = f"grid.{path}"
    table = path.partition(".")[0]
    if table in TABLES and not settings[table]:
        return []  # it has no name, which is a problem already
    allowed = {
        f"{table}.{key}": check
        for table in TABLES
        for key, (check, _) in keys_of(settings, table).items()
        if callable(check) and key != "variables"
    }
    if path not in allowed:
        near = difflib.get_close_matches(path.lower(), allowed, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else "a table and a key, like optimizer.lr"
        problems.append((where, f"{where} is no setting that can vary; {hint}"))
        return []
    what = f"{NUMBERS}, or a list of other values"
    found = _value(problems, where, partial(values_of, what=what), values) or []
    before = len(problems)
    kept = [
        _value(problems, f"{where}[{i}]", allowed[path], value) for i, value in enumerate(found)
    ]
    texts = [json.dumps(value) for value in kept]
    if len(problems) == before and len(set(texts)) < len(texts):
        twice = Counter(texts).most_common(1)[0][0]
        problems.append((where, f"{where} must have different values, got {twice} twice"))
    return kept


class _Opaque:
    """What no setting can be, shown in few words."""

    def __init__(self, value: Any) -> None:
        self.words = _checks.describe(value)

    def __repr__(self) -> str:
        return self.words


def _too_much(path: str, allowed: str) -> Wrong:
    parts = path.split(".")[1:]
    where = ".".join(parts[: 3 if parts[:1] == ["grid"] else 2])
    return Wrong([(where, f"{where or 'the study'} must have {allowed}")])


def _plain(value: Any, path: str, depth: int = 0) -> Any:
    """NumPy's numbers and arrays, tuples, paths and mappings as Python's numbers, lists, ...

    Raises Wrong if they are too many, nested too deeply, or contain themselves.
    """
    size = value.size if isinstance(value, np.ndarray) else None
    if isinstance(value, (list, tuple, range)):
        size = len(value)
    if depth > MOST_NESTED:
        raise _too_much(path, f"at most {MOST_NESTED} levels, got more")
    if size is not None and size > MOST_FACTORS:
        raise _too_much(path, f"at most {MOST_FACTORS} values, got {size}")
    if isinstance(value, int) and value.bit_length() > _BITS:
        raise _too_much(path, f"integers of at most {_BITS} bits, got one of {value.bit_length()}")
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, os.PathLike):
        try:
            return os.fspath(value)
        except TypeError:
            return _Opaque(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{path}.{key}", depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [_plain(item, path, depth + 1) for item in value]
    return value
