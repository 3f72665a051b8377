"""Validation of the settings of a study.

All problems are collected before an error is raised. Missing settings get their defaults.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from pylyap import _checks
from pylyap._errors import ArgumentError
from pylyap.studies.tables import (
    COUNT,
    FROM_ZERO,
    MAX_SCHEDULE,
    NUMBERS,
    REQUIRED,
    SPACINGS,
    TABLES,
    Check,
    Keys,
    Settings,
    choice,
    list_values,
    section,
    string,
)
from pylyap.studies.toml import MAX_NESTED, line_numbers, nearest_line

Problem = tuple[str, str]  # dotted path of the setting, error text

# Keys of the optimiser that are absent unless given: studies stored before there were any keep
# their identity.
_ABSENT = ("layer_scale", "bias_scale")
_DEFAULT_NAMES = {"optimizer": "gradient_descent"}
_TOP_LEVEL = section(None, {"title": "", "seed": 0}, title=string, runs=COUNT, seed=FROM_ZERO)
_ALL_KEYS = (*_TOP_LEVEL, *TABLES, "grid")
_MAX_LISTED = 20  # problems in a message
_MAX_BITS = 4096  # of an integer; Python refuses to format integers of more than about 14,000
PATHS = ("data.folder", "data.images", "data.labels", "data.path", "data.file")


class InvalidStudy(ValueError):
    """All problems of a study's settings."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__(_format_problems("the study", [text for _, text in problems]))

    def in_file(self, name: str, text: str) -> ValueError:
        """Return the error with the lines of a file in its message."""
        lines = line_numbers(text)
        located = []
        for path, what in self.problems:
            line = nearest_line(lines, path)
            located.append(what if line is None else f"line {line}: {what}")
        if len(located) == 1:
            return ValueError(f"{name}: {located[0]}")
        return ValueError(_format_problems(name, located))


def _format_problems(where: str, texts: list[str]) -> str:
    if len(texts) == 1:
        return texts[0]
    more = [f"and {len(texts) - _MAX_LISTED} more"] if len(texts) > _MAX_LISTED else []
    return "\n  ".join([f"{where} has {len(texts)} errors:", *texts[:_MAX_LISTED], *more])


def validated_settings(
    given: Mapping[str, Any], base: str = "", tables: Collection[str] = tuple(TABLES)
) -> Settings:
    """Check settings and add the defaults. Values are numbers, strings, lists and dicts.

    Relative paths are resolved against `base`. A key that the grid varies is absent from its
    table; tables that are not in `tables` are empty. Raises InvalidStudy.
    """
    problems: list[Problem] = []
    given = _dict_or_empty(_to_builtin(given, ""))
    _report_unknown_keys("", given, _ALL_KEYS, problems)
    settings = _with_defaults("", given, _TOP_LEVEL, set(), problems)
    grid = dict(_flattened(given.get("grid", {}), problems))
    for table in TABLES:
        varied = {path.partition(".")[2] for path in grid if path.partition(".")[0] == table}
        settings[table] = (
            _checked_table(table, given.get(table, {}), varied, problems) if table in tables else {}
        )
    for key in _ABSENT:
        if settings["optimizer"].get(key, ...) is None:
            del settings["optimizer"][key]
    if settings["analysis"].get("name") == "scan":
        if "lr" in _dict_or_empty(given.get("optimizer")) or "optimizer.lr" in grid:
            text = "optimizer.lr must be omitted: the learning rates of a scan are analysis.lrs"
            problems.append(("optimizer.lr", text))
        settings["optimizer"].pop("lr", None)
    settings["grid"] = {
        path: _axis_values(path, values, settings, tables, problems)
        for path, values in grid.items()
    }
    if problems:
        raise InvalidStudy(problems)
    for path, values in settings["grid"].items():
        if path in PATHS:
            settings["grid"][path] = [_absolute(base, value) for value in values]
    for path in PATHS:
        key = path.removeprefix("data.")
        if settings["data"].get(key) is not None:
            settings["data"][key] = _absolute(base, settings["data"][key])
    return settings


def _dict_or_empty(value: Any) -> Settings:
    return value if isinstance(value, dict) else {}


def table_keys(settings: Settings, table: str) -> Keys:
    """Keys allowed in a table of these settings; empty if its name is unknown."""
    return TABLES[table].get(settings[table].get("name", ""), {})


def at_point(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """Tables at one point of the grid, whose values are given by dotted path."""
    tables = {table: dict(settings[table]) for table in TABLES}
    for path, value in values.items():
        table, _, key = path.partition(".")
        tables[table][key] = value
    return tables


def _absolute(base: str, path: str) -> str:
    return os.path.abspath(os.path.join(base, path))


def _checked_table(table: str, given: Any, varied: set[str], problems: list[Problem]) -> Settings:
    """Check a table and add defaults, without the keys that the grid varies."""
    if not isinstance(given, dict):
        problems.append((table, f"{table} must be a table, got {_checks.describe(given)}"))
        return {}
    given = dict(given)
    kinds = TABLES[table]
    found: Settings = {}
    if "" not in kinds:
        path, default = f"{table}.name", _DEFAULT_NAMES.get(table)
        if table == "data" and ("path" in given or "path" in varied):
            default = "table"
        chosen = given.pop("name", default)
        if chosen is None:
            text = f"{path} is missing: must be one of {', '.join(kinds)}"
            text += "; or data.path the file of a table" if table == "data" else ""
            problems.append((path, text))
            return {}
        if _checked_value(problems, path, choice(*kinds), chosen) is None:
            return {}
        found["name"] = chosen
    for key in given:
        if key in varied:
            path = f"{table}.{key}"
            problems.append((path, f"{path} must be in its table or in the grid, not in both"))
    return found | _with_defaults(table, given, kinds[found.get("name", "")], varied, problems)


def _with_defaults(
    table: str, given: Settings, keys: Keys, varied: set[str], problems: list[Problem]
) -> Settings:
    """Value of each key that the grid does not vary, as given or by default."""
    if table:
        _report_unknown_keys(table, given, keys, problems)
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
            found[key] = _checked_value(problems, path, check, value)
        elif isinstance(value, dict):
            found[key] = _with_defaults(path, value, check, set(), problems)
        else:
            problems.append((path, f"{path} must be a table, got {_checks.describe(value)}"))
    return found


def _checked_value(problems: list[Problem], path: str, check: Check, value: Any) -> Any:
    """Return the checked value. If it is invalid, append to `problems` and return None."""
    try:
        return check(path, value)
    except (ValueError, TypeError) as error:
        named = isinstance(error, ArgumentError)  # its message begins with the path
        problems.append((path, str(error) if named else f"{path}: {error}"))
        return None


def _report_unknown_keys(
    table: str, given: Iterable[str], keys: Iterable[str], problems: list[Problem]
) -> None:
    names = list(keys)
    for key in given:
        if key not in names:
            path = f"{table}.{key}" if table else str(key)
            problems.append((path, f"{path} is unknown{_suggestion(str(key), names)}"))


def _suggestion(key: str, names: list[str]) -> str:
    return "; " + (_checks.suggestion(key.lower(), names) or f"allowed are {', '.join(names)}")


# --- the grid -------------------------------------------------------------------------------------


def _flattened(grid: Any, problems: list[Problem], before: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted paths and values. {optimizer = {lr = ...}} is the same as {"optimizer.lr" = ...}."""
    if not isinstance(grid, dict):
        problems.append(("grid", f"grid must be a table, got {_checks.describe(grid)}"))
        return
    for key, value in grid.items():
        path = f"{before}{key}"
        if isinstance(value, dict) and "." not in path and not set(value) & set(SPACINGS):
            yield from _flattened(value, problems, f"{path}.")
        else:
            yield path, value


def _axis_values(
    path: str,
    values: Any,
    settings: Settings,
    tables: Collection[str],
    problems: list[Problem],
) -> list[Any]:
    """Values of one key of the grid."""
    where = f"grid.{path}"
    table = path.partition(".")[0]
    if table in TABLES and table not in tables:
        text = f"{where} must be omitted beside system: a grid varies its analysis alone"
        problems.append((where, text))
        return []
    if table in TABLES and not settings[table]:
        return []  # the missing name is reported already
    allowed = {
        f"{table}.{key}": check
        for table in tables
        for key, (check, _) in table_keys(settings, table).items()
        if callable(check) and key != "variables"
    }
    if path not in allowed:
        hint = _checks.suggestion(path.lower(), allowed)
        hint = hint or "name a table and a key, like optimizer.lr"
        problems.append((where, f"{where} is not a setting that a grid can vary; {hint}"))
        return []
    what = f"{NUMBERS}, or a list of other values"
    found = _checked_value(problems, where, partial(list_values, what=what), values) or []
    before = len(problems)
    kept = [
        _checked_value(problems, f"{where}[{i}]", allowed[path], value)
        for i, value in enumerate(found)
    ]
    texts = [json.dumps(value) for value in kept]
    if len(problems) == before and len(set(texts)) < len(texts):
        twice = Counter(texts).most_common(1)[0][0]
        problems.append((where, f"{where} must have distinct values, got {twice} twice"))
    return kept


class _UnsupportedValue:
    """Placeholder of a value that no check accepts; error messages show its description."""

    def __init__(self, value: Any) -> None:
        self.description = _checks.describe(value)

    def __repr__(self) -> str:
        return self.description


def _too_large(path: str, allowed: str) -> InvalidStudy:
    parts = path.split(".")[1:]
    where = ".".join(parts[: 3 if parts[:1] == ["grid"] else 2])
    return InvalidStudy([(where, f"{where or 'the study'} must have {allowed}")])


def _to_builtin(value: Any, path: str, depth: int = 0) -> Any:
    """Convert NumPy values, tuples, paths and mappings to numbers, strings, lists and dicts.

    Raises InvalidStudy if there are too many values, or if they are nested too deeply or
    recursively.
    """
    size = value.size if isinstance(value, np.ndarray) else None
    if isinstance(value, (list, tuple, range)):
        size = len(value)
    if depth > MAX_NESTED:
        raise _too_large(path, f"at most {MAX_NESTED} levels, got more")
    if size is not None and size > MAX_SCHEDULE:
        raise _too_large(path, f"at most {MAX_SCHEDULE} values, got {size}")
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        raise _too_large(
            path, f"integers of at most {_MAX_BITS} bits, got one of {value.bit_length()}"
        )
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, os.PathLike):
        try:
            return os.fspath(value)
        except TypeError:
            return _UnsupportedValue(value)
    if isinstance(value, Mapping):
        return {
            str(key): _to_builtin(item, f"{path}.{key}", depth + 1) for key, item in value.items()
        }
    if isinstance(value, (list, tuple, range)):
        return [_to_builtin(item, path, depth + 1) for item in value]
    return value
