"""What a study may say: tables, keys, types, ranges and defaults; every mistake at once."""

from __future__ import annotations

import difflib
import inspect
import json
import os
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from pylyap import _checks, datasets
from pylyap.covariant import covariant_lyapunov_vectors
from pylyap.ensembles import perturbation_ensemble
from pylyap.exponents import lyapunov_spectrum
from pylyap.finite_time import ftle
from pylyap.growth import growth_rate
from pylyap.maps import METHODS
from pylyap.network import ACTIVATIONS, INITIALISERS, LOSSES, Network
from pylyap.optimizers import Adam, GradientDescent
from pylyap.regimes import RegimeRule, learning_rate_scan
from pylyap.training import train

Settings = dict[str, Any]
Check = Callable[[str, Any], Any]  # (path, value) -> the value as it is kept, or an error
Problem = tuple[str, str]  # dotted path, and what is wrong

_REQUIRED = inspect.Parameter.empty
_MOST = 10**7  # samples to draw, values of a list, records of a run


class Key(NamedTuple):
    """A key of a table: its check, or the keys of a table within, and its default."""

    check: Check | dict[str, Key]
    default: Any


Keys = dict[str, Key]


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
            line = _line(lines, path)
            located.append(what if line is None else f"line {line}: {what}")
        if len(located) == 1:
            return ValueError(f"{name}, {located[0]}")
        return ValueError(_listed(name, located))


def _listed(whose: str, texts: list[str]) -> str:
    if len(texts) == 1:
        return texts[0]
    return "\n  ".join([f"{whose} has {len(texts)} mistakes:", *texts])


# --- checks ---------------------------------------------------------------------------------------


def _integer(least: int, most: int | None = None) -> Check:
    return lambda path, value: _checks.integer(path, value, least=least, most=most)


def _real(**bounds: float) -> Check:
    return lambda path, value: _checks.real(path, value, **bounds)


def _choice(*names: str) -> Check:
    return lambda path, value: _checks.choice(path, value, names)


def _string(path: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{path} must be a string, got {_checks.describe(value)}")
    if "\0" in value or value.encode(errors="ignore").decode() != value:
        raise ValueError(f"{path} must be Unicode text without NUL, got {_checks.describe(value)}")
    return value


def _file(path: str, value: Any) -> str:
    if not _string(path, value):
        raise ValueError(f"{path} must be a path, got an empty string")
    return str(value)


def _list_of(check: Check, what: str, least: int = 0) -> Check:
    def checked(path: str, value: Any) -> list[Any]:
        values = spread(path, value) if isinstance(value, dict) else value
        if not isinstance(values, list) or len(values) < least:
            raise ValueError(f"{path} must be {what}, got {_checks.describe(value)}")
        return [check(f"{path}[{i}]", item) for i, item in enumerate(values)]

    return checked


def _one_or_list(check: Check, what: str) -> Check:
    several = _list_of(check, what, 1)

    def checked(path: str, value: Any) -> Any:
        return several(path, value) if isinstance(value, (list, dict)) else check(path, value)

    return checked


def _widths(path: str, value: Any) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [_checks.integer(path, width, least=1) for width in values]


def _perturb(path: str, value: Any) -> str | int:
    if isinstance(value, str):
        return _checks.choice(path, value, ("weights", "biases", "all"))
    return _checks.integer(path, value, least=1)


_COUNT, _FROM_ZERO = _integer(1), _integer(0)

_SPACES: dict[str, Callable[..., Any]] = {
    "linspace": np.linspace,
    "logspace": np.logspace,
    "geomspace": np.geomspace,
}
_NUMBERS = "a list of numbers or {linspace = [a, b, n]}, {logspace = ...}, {geomspace = ...}"


def spread(path: str, value: Settings) -> list[Any]:
    """The n values of {linspace = [a, b, n]} and its kin, as NumPy's; all whole ones as ints."""
    name = next(iter(value), "")
    if len(value) != 1 or name not in _SPACES:
        raise ValueError(
            f"{path} must be a list or one of {{{', '.join(_SPACES)} = [a, b, n]}}, "
            f"got {_checks.describe(value)}"
        )
    ends = "10^a and 10^b (geomspace takes the ends themselves)" if name == "logspace" else "a, b"
    form = f"{path}.{name} must be [a, b, n] for n values between the ends {ends}"
    given = value[name]
    if not isinstance(given, list) or len(given) != 3:
        raise ValueError(f"{form}, got {_checks.describe(given)}")
    try:
        a, b = (_checks.real("an end", end) for end in given[:2])
        n = _checks.integer("n", given[2], least=1, most=_MOST)
        with np.errstate(all="ignore"):
            values = _SPACES[name](a, b, n)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{form}, got {_checks.describe(given)}: {error}") from None
    if not np.isfinite(values).all():
        raise ValueError(f"{form}, got {_checks.describe(given)}: not all values are finite")
    if (values == np.round(values)).all() and np.abs(values).max() < 2**53:
        values = values.astype(np.int64)
    return list(values.tolist())


# --- tables ---------------------------------------------------------------------------------------


def _keys(
    function: Callable[..., Any] | None,
    defaults: Settings | None = None,
    /,
    **checks: Check | Keys,
) -> Keys:
    """Keys with the defaults of a function of the library, unless others are given."""
    parameters = {} if function is None else inspect.signature(function).parameters
    known = {name: parameter.default for name, parameter in parameters.items()}
    known |= defaults or {}
    return {name: Key(check, known.get(name, _REQUIRED)) for name, check in checks.items()}


_SPLIT = _keys(
    None,
    {"train": None, "test": 0, "split_seed": 0},
    train=_COUNT,
    test=_FROM_ZERO,
    split_seed=_FROM_ZERO,
)
_BATCHES: dict[str, Check | Keys] = {
    "batch_size": _COUNT,
    "shuffle": _checks.flag,
    "seed": _FROM_ZERO,
    "schedule": _list_of(_real(least=0.0), _NUMBERS, 1),
}
_RUNS: dict[str, Check | Keys] = {
    "n_steps": _integer(1),
    "k": _COUNT,
    "n_transient": _FROM_ZERO,
    "start": _FROM_ZERO,
    "method": _choice(*METHODS),
    "seed": _FROM_ZERO,
}
_RULE = _keys(
    RegimeRule,
    tol=_real(above=0.0, below=1.0),
    max_period=_integer(2),
    **{
        name: _real(least=0.0)
        for name in ("escape", "exponent", "errors", "rises", "rest", "edge", "fall")
    },
)

# Of each analysis the variables that a study keeps unless told otherwise, and those on request.
VARIABLES = {
    "spectrum": (
        ["exponents", "stderr", "growth", "loss", "final_loss", "n_done"],
        ["trend", "state", "frame"],
    ),
    "ftle": (["ftle", "final_loss"], []),
    "clv": (
        [
            "exponents",
            "growth",
            "residual",
            "mixing",
            "angles",
            "early_error",
            "final_loss",
            "n_done",
        ],
        [
            "frame_growth",
            "loss",
            "states",
            "vectors",
            "coefficients",
            "early_vectors",
            "early_coefficients",
        ],
    ),
    "ensemble": (
        [
            "distances",
            "n_finite",
            "growth_slope",
            "growth_stderr",
            "growth_intercept",
            "growth_r2",
            "growth_start",
            "growth_stop",
            "growth_saturation",
        ],
        ["states", "losses", "path_lengths"],
    ),
    "train": (
        [
            "train_loss",
            "test_loss",
            "train_accuracy",
            "test_accuracy",
            "deviation",
            "snapshots",
            "n_done",
        ],
        ["w_initial", "w_final", "state"],
    ),
    "scan": (
        [
            "loss",
            "accuracy",
            "exponent",
            "stderr",
            "growth",
            "sharpness",
            "non_monotone",
            "period",
            "regime",
            "late_loss",
            "late_weight",
        ],
        [],
    ),
}


def _analysis(name: str, *functions: Callable[..., Any], **checks: Check | Keys) -> Keys:
    usual, others = VARIABLES[name]
    what = f"a list of {', '.join(usual + others)}"
    defaults: Settings = {"variables": None}
    for function in functions[1:]:
        defaults |= {p.name: p.default for p in inspect.signature(function).parameters.values()}
    checks["variables"] = _list_of(_choice(*usual, *others), what, 1)
    return _keys(functions[0], defaults, **checks)


# name of the table -> the key "name" -> its keys; under "" those of tables without a name
TABLES: dict[str, dict[str, Keys]] = {
    "data": {
        "iris": _SPLIT,
        "quadratic": _keys(datasets.quadratic, n=_integer(1, _MOST), seed=_FROM_ZERO) | _SPLIT,
        "digits": _SPLIT,
        "mnist": _keys(datasets.mnist, folder=_file, part=_choice("train", "test")) | _SPLIT,
        "idx": _keys(None, images=_file, labels=_file) | _SPLIT,
        "hasy": _keys(
            datasets.hasy, folder=_file, index=_string, symbols=_string, invert=_checks.flag
        )
        | _SPLIT,
    },
    "network": {
        "": _keys(
            Network,
            {"layers": None, "hidden": None},
            hidden=_widths,
            layers=_list_of(_COUNT, "a list of all widths, like [4, 10, 3]", 2),
            activation=_one_or_list(_choice(*ACTIVATIONS), "a name, or one per hidden layer"),
            loss=_choice(*LOSSES),
        )
    },
    "init": {
        "": _keys(
            Network.init, kind=_choice(*INITIALISERS), scale=_real(least=0.0), biases=_checks.flag
        )
    },
    "optimizer": {
        "gradient_descent": _keys(
            GradientDescent,
            lr=_real(least=0.0),
            momentum=_real(least=0.0),
            nesterov=_checks.flag,
            weight_decay=_real(least=0.0),
            **_BATCHES,
        ),
        "adam": _keys(
            Adam,
            lr=_real(least=0.0),
            beta1=_real(least=0.0, below=1.0),
            beta2=_real(least=0.0, below=1.0),
            epsilon=_real(above=0.0),
            weight_decay=_real(least=0.0),
            **_BATCHES,
        ),
    },
    "analysis": {
        "spectrum": _analysis(
            "spectrum",
            lyapunov_spectrum,
            **_RUNS,
            qr_every=_COUNT,
            record_every=_COUNT,
            tol=_real(above=0.0),
        ),
        "ftle": _analysis(
            "ftle",
            ftle,
            **_RUNS,
            window=_COUNT,
            stride=_COUNT,
            kind=_choice("qr", "svd", "clv"),
            n_tail=_FROM_ZERO,
        ),
        "clv": _analysis(
            "clv",
            covariant_lyapunov_vectors,
            **_RUNS,
            n_tail=_FROM_ZERO,
            every=_COUNT,
            qr_every=_COUNT,
            delay=_COUNT,
            memory_limit=_real(above=0.0),
        ),
        "ensemble": _analysis(
            "ensemble",
            perturbation_ensemble,
            growth_rate,
            eps=_one_or_list(_real(least=0.0), _NUMBERS),
            n_perturbations=_COUNT,
            n_steps=_integer(1),
            distribution=_choice("uniform", "normal", "sphere"),
            perturb=_perturb,
            relative=_checks.flag,
            norm=_choice("l1", "l2", "linf"),
            start=_FROM_ZERO,
            record_every=_COUNT,
            method=_choice("best_window", "until_saturation"),
        )
        | _keys(None, {"keep": "mean"}, keep=_choice("all", "mean")),
        "train": _analysis(
            "train",
            train,
            epochs=_COUNT,
            record_every=_COUNT,
            snapshots=_list_of(_FROM_ZERO, "a list of epochs"),
            layers=_list_of(_FROM_ZERO, "a list of layers"),
        )
        | _keys(None, {"dtype": "float64"}, dtype=_choice("float64", "float32")),
        "scan": _analysis(
            "scan",
            learning_rate_scan,
            lrs=_list_of(_real(above=0.0), _NUMBERS, 1),
            n_steps=_integer(40),
            n_late=_integer(20),
            n_perturbations=_FROM_ZERO,
            eps=_real(above=0.0),
            observe=_FROM_ZERO,
            rule=_RULE,
        ),
    },
}
_DEFAULT_NAMES = {"optimizer": "gradient_descent"}
_TOP = ("title", "runs", "seed", *TABLES, "grid")
_IN_FILES = ("folder", "images", "labels")  # keys of [data] that are paths


def checked(given: Mapping[str, Any], base: str = "") -> Settings:
    """All settings with defaults filled in, as numbers, text, lists and dicts.

    Relative paths start at `base`. Keys of the grid are not in their tables. Raises Wrong.
    """
    problems: list[Problem] = []
    given = _plain(given)
    _known("", given, _TOP, problems)
    settings: Settings = {
        "title": _value(problems, "title", _string, given.get("title", "")),
        "runs": _value(problems, "runs", _COUNT, given["runs"]) if "runs" in given else None,
        "seed": _value(problems, "seed", _FROM_ZERO, given.get("seed", 0)),
    }
    if "runs" not in given:
        problems.append(("runs", "runs is missing: how many initial weights"))
    grid = dict(_flat(given.get("grid", {}), problems))
    for table in TABLES:
        varied = {path.partition(".")[2] for path in grid if path.partition(".")[0] == table}
        settings[table] = _table(table, given.get(table, {}), varied, problems)
    names = {table: settings[table].get("name", "") for table in TABLES}
    if names["analysis"] == "scan":
        for path in {"optimizer.lr"} & set(grid) | {
            f"optimizer.{key}" for key in {"lr"} & set(given.get("optimizer", {}))
        }:
            problems.append(
                (path, f"{path} must be left out: a scan has its rates in analysis.lrs")
            )
        grid.pop("optimizer.lr", None)
        settings["optimizer"].pop("lr", None)
    settings["grid"] = {path: _axis(path, values, names, problems) for path, values in grid.items()}
    if problems:
        raise Wrong(problems)
    for path, values in settings["grid"].items():
        if path.removeprefix("data.") in _IN_FILES:
            settings["grid"][path] = [_absolute(base, value) for value in values]
    for key in _IN_FILES:
        if key in settings["data"]:
            settings["data"][key] = _absolute(base, settings["data"][key])
    return settings


def keys_of(settings: Settings, table: str) -> Keys:
    """The keys that a table of these settings may have."""
    return TABLES[table][settings[table].get("name", "")]


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
    if not isinstance(given, dict):
        problems.append((table, f"{table} must be a table, got {_checks.describe(given)}"))
        return {}
    kinds = TABLES[table]
    name: Settings = {}
    if "" not in kinds:
        chosen = given.get("name", _DEFAULT_NAMES.get(table))
        if chosen is None:
            text = f"{table}.name is missing: one of {', '.join(kinds)}"
            problems.append((f"{table}.name", text))
            return {}
        if _value(problems, f"{table}.name", _choice(*kinds), chosen) is None:
            return {}
        name = {"name": str(chosen)}
    given = {key: value for key, value in given.items() if key != "name" or not name}
    for key in varied & set(given):
        text = f"{table}.{key} must be in the grid or in its table, got both"
        problems.append((f"{table}.{key}", text))
    return name | _filled(table, given, kinds[name.get("name", "")], varied, problems)


def _filled(
    table: str, given: Settings, keys: Keys, varied: set[str], problems: list[Problem]
) -> Settings:
    _known(table, given, keys, problems)
    found: Settings = {}
    for key, (check, default) in keys.items():
        path = f"{table}.{key}"
        if key in varied:
            continue
        value = given.get(key, default)
        if value is _REQUIRED:
            problems.append((path, f"{path} is missing"))
        elif value is None and default is None:
            found[key] = None
        elif isinstance(check, dict):
            found[key] = (
                _filled(path, value, check, set(), problems)
                if isinstance(value, dict)
                else _value(problems, path, _no_table, value)
            )
        else:
            found[key] = _value(problems, path, check, value)
    return found


def _no_table(path: str, value: Any) -> None:
    raise TypeError(f"{path} must be a table, got {_checks.describe(value)}")


def _value(problems: list[Problem], path: str, check: Check, value: Any) -> Any:
    """The value as it is kept; None and a problem more if it is wrong."""
    try:
        return check(path, value)
    except (ValueError, TypeError) as error:
        text = str(error)
        problems.append((path, text if text.startswith(path) else f"{path}: {text}"))
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
        if isinstance(value, dict) and "." not in path and not set(value) & set(_SPACES):
            yield from _flat(value, problems, f"{path}.")
        else:
            yield path, value


def _axis(path: str, values: Any, names: dict[str, str], problems: list[Problem]) -> list[Any]:
    """The values of one key of the grid."""
    where = f"grid.{path}"
    table = path.partition(".")[0]
    if table in TABLES and names[table] not in TABLES[table]:
        return []  # it has a problem already
    allowed = {
        f"{table}.{key}": key_of.check
        for table, kinds in TABLES.items()
        for key, key_of in kinds.get(names[table], {}).items()
        if not isinstance(key_of.check, dict)
    }
    if path not in allowed:
        near = difflib.get_close_matches(path.lower(), allowed, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ", a table and a key like optimizer.lr"
        problems.append((where, f"{where} is no setting that can vary{hint}"))
        return []
    check = allowed[path]
    assert callable(check)
    several = _list_of(lambda _, value: value, f"{_NUMBERS}, or a list of other values", 1)
    found = _value(problems, where, several, values) or []
    before = len(problems)
    kept = [_value(problems, f"{where}[{i}]", check, value) for i, value in enumerate(found)]
    seen: set[str] = set()
    if len(problems) == before:
        for value in kept:
            text = json.dumps(value)
            if text in seen:
                problems.append((where, f"{where} must have different values, got {text} twice"))
                break
            seen.add(text)
    return kept


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays, tuples, paths and mappings as Python's numbers, lists, ..."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [_plain(item) for item in value]
    return value


# --- files ----------------------------------------------------------------------------------------


def parsed(text: str) -> Settings:
    """What a TOML text says; ValueError with line and column if it is none."""
    try:
        return tomllib.loads(text)
    except ValueError as error:  # also of numbers with thousands of digits
        raise ValueError(f"not TOML: {error}") from None
    except RecursionError:
        raise ValueError("not TOML of ours: brackets within brackets, too deep") from None


def line_numbers(text: str) -> dict[str, int]:
    """The line on which each table and key of a TOML text begins, by its dotted path."""
    found: dict[str, int] = {}
    header: tuple[str, ...] = ()
    statement: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        statement.append(line)
        try:
            said = tomllib.loads("\n".join(statement))
        except ValueError:
            continue  # the value goes on
        first = number - len(statement) + 1
        paths = list(_paths(said))
        if statement[0].lstrip().startswith("["):
            header = max(paths, key=len)
            paths = [()]
        statement = []
        for path in paths:
            whole = header + path
            for depth in range(1, len(whole) + 1):
                found.setdefault(".".join(whole[:depth]), first)
    return found


def _paths(said: Any) -> Iterator[tuple[str, ...]]:
    """The paths of all keys within."""
    if isinstance(said, list):  # of tables
        for item in said:
            yield from _paths(item)
    if not isinstance(said, dict):
        return
    for key, value in said.items():
        yield (key,)
        for path in _paths(value):
            yield (key, *path)


def _line(lines: dict[str, int], path: str) -> int | None:
    """Of a path, or of the nearest thing around it that the file has."""
    path = path.partition("[")[0]
    for place in (path, f"grid.{path}"):
        if place in lines:
            return lines[place]
    around, _, _ = path.rpartition(".")
    return _line(lines, around) if around else None


def as_toml(settings: Settings) -> str:
    """A study file that says the same."""
    top = {key: value for key, value in settings.items() if key not in (*TABLES, "grid")}
    parts = [_lines(top)]
    for table in (*TABLES, "grid"):
        lines = _lines(settings[table])
        if lines:
            parts.append(f"[{table}]\n{lines}")
    return "\n".join(parts)


def _lines(table: Settings) -> str:
    return "".join(
        f"{key if key.isidentifier() else json.dumps(key)} = {_toml(value)}\n"
        for key, value in table.items()
        if value is not None
    )


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        inside = ", ".join(f"{key} = {_toml(item)}" for key, item in value.items())
        return f"{{{inside}}}"
    # JSON is TOML here: strings, numbers, true and false, lists of them.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
