"""Tables of a study: keys with their checks and defaults."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from pylyap import _checks, datasets
from pylyap._errors import ArgumentError, ArgumentTypeError
from pylyap._perturbations.ensembles import perturbation_ensemble
from pylyap._perturbations.growth import RATE_ARRAYS, growth_rate
from pylyap._stability.rows import NAMES
from pylyap._tangent.covariant import covariant_lyapunov_vectors
from pylyap._tangent.exponents import lyapunov_spectrum
from pylyap._tangent.finite_time import ftle
from pylyap._tangent.sharpness import sharpness_along
from pylyap._tangent.training_jacobian import TrainingJacobian, training_jacobian
from pylyap._thresholds import KINDS
from pylyap._weights.training import train
from pylyap.maps import METHODS
from pylyap.network import ACTIVATIONS, INITIALISERS, LOSSES, Network
from pylyap.optimizers import Adam, GradientDescent
from pylyap.regimes import RegimeRule, learning_rate_scan
from pylyap.stability_maps import stability_map

Settings = dict[str, Any]
Check = Callable[[str, Any], Any]  # (path, value) -> checked value; raises an ArgumentError

REQUIRED = inspect.Parameter.empty
_MAX_SAMPLES = 10**7  # of data that are drawn
_MAX_VALUES = 10**5  # of a list; each is checked, labelled and stored as text
MAX_SCHEDULE = 10**6  # factors, one for each step


class Key(NamedTuple):
    """A key of a table: its check, or the keys of a nested table, and its default."""

    check: Check | dict[str, Key]
    default: Any


Keys = dict[str, Key]


# --- checks ---------------------------------------------------------------------------------------


def _integer(least: int, most: int | None = None) -> Check:
    return lambda path, value: _checks.integer(path, value, least=least, most=most)


def _real(**bounds: float) -> Check:
    return lambda path, value: _checks.real(path, value, **bounds)


def choice(*names: str) -> Check:
    return lambda path, value: _checks.choice(path, value, names)


def string(path: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ArgumentTypeError(path, f"must be a string, got {_checks.describe(value)}")
    if "\0" in value or value.encode(errors="ignore").decode() != value:
        raise ArgumentError(
            path, f"must be Unicode text without NUL, got {_checks.describe(value)}"
        )
    return value


def _file(path: str, value: Any) -> str:
    if not string(path, value):
        raise ArgumentError(path, "must be a path, got an empty string")
    return str(value)


def _sha256(path: str, value: Any) -> str:
    if not re.fullmatch("[0-9a-f]{64}", string(path, value)):
        raise ArgumentError(path, f"must be 64 hexadecimal digits, got {_checks.describe(value)}")
    return str(value)


def list_values(
    path: str, value: Any, what: str, least: int = 1, most: int = _MAX_VALUES
) -> list[Any]:
    """Values of a list, or of a range like {linspace = [a, b, n]}; at most `most`."""
    values = expand_range(path, value, most) if isinstance(value, dict) else value
    if not isinstance(values, list) or len(values) < least:
        raise ArgumentError(path, f"must be {what}, got {_checks.describe(value)}")
    if len(values) > most:
        raise ArgumentError(path, f"must have at most {most} values, got {len(values)}")
    return values


def _list_of(check: Check, what: str, least: int = 0, most: int = _MAX_VALUES) -> Check:
    def checked(path: str, value: Any) -> list[Any]:
        values = list_values(path, value, what, least, most)
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


def _momentum(path: str, value: Any) -> float:
    number = _checks.real(path, value, least=0.0)
    if number > 1:
        raise ArgumentError(path, f"must be in [0, 1], got {value!r}")
    return number


def _setting(name: str) -> Check:
    """Check of a setting that a map varies."""
    if name == "momentum":
        return _momentum
    return _real() if name.startswith(("scale", "offset")) else _real(least=0.0)


def _columns(path: str, value: Any) -> str | list[str]:
    if isinstance(value, list):
        names = list_values(path, value, "a name or a list of names")
        return [string(f"{path}[{i}]", name) for i, name in enumerate(names)]
    return string(path, value)


def _character(path: str, value: Any) -> str:
    if len(string(path, value)) != 1:
        raise ArgumentError(path, f"must be one character, got {_checks.describe(value)}")
    return str(value)


COUNT, FROM_ZERO = _integer(1), _integer(0)

SPACINGS: dict[str, Callable[..., Any]] = {
    "linspace": np.linspace,
    "logspace": np.logspace,
    "geomspace": np.geomspace,
}
NUMBERS = "a list of numbers or {linspace = [a, b, n]}, {logspace = ...}, {geomspace = ...}"


def expand_range(path: str, value: Settings, most: int = _MAX_VALUES) -> list[Any]:
    """Values of {linspace = [a, b, n]}, {logspace = ...} or {geomspace = ...}, as in NumPy.

    They are integers if all of them are whole. n is limited by `most` before any array is made.
    """
    name = next(iter(value), "")
    if len(value) != 1 or name not in SPACINGS:
        raise ArgumentError(
            path,
            f"must be a list or one of {{{', '.join(SPACINGS)} = [a, b, n]}}, "
            f"got {_checks.describe(value)}",
        )
    ends = "10^a to 10^b (geomspace takes the ends themselves)" if name == "logspace" else "a to b"
    form = f"must be [a, b, n], n values from {ends}"
    given = value[name]
    if not isinstance(given, list) or len(given) != 3:
        raise ArgumentError(f"{path}.{name}", f"{form}, got {_checks.describe(given)}")
    try:
        a, b = (_checks.real("an end", end) for end in given[:2])
        n = _checks.integer("n", given[2], least=1, most=most)
        with np.errstate(all="ignore"):
            values = SPACINGS[name](a, b, n)
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"{path}.{name}", f"{form}, got {_checks.describe(given)}: {error}"
        ) from None
    if not np.isfinite(values).all():
        raise ArgumentError(
            f"{path}.{name}", f"{form}, got {_checks.describe(given)}: not all values are finite"
        )
    if (values == np.round(values)).all() and np.abs(values).max() < 2**53:
        values = values.astype(np.int64)
    return list(values.tolist())


# --- tables ---------------------------------------------------------------------------------------


def section(
    function: Callable[..., Any] | None,
    defaults: Settings | None = None,
    /,
    **checks: Check | Keys,
) -> Keys:
    """Keys of a table, with the defaults of a function of the library or those given."""
    parameters = {} if function is None else inspect.signature(function).parameters
    known = {name: parameter.default for name, parameter in parameters.items()}
    known |= defaults or {}
    return {name: Key(check, known.get(name, REQUIRED)) for name, check in checks.items()}


_SPLIT_KEYS = section(
    None,
    {"train": None, "test": 0, "split_seed": 0},
    train=COUNT,
    test=FROM_ZERO,
    split_seed=FROM_ZERO,
)
_FILE_KEYS = _SPLIT_KEYS | section(None, {"sha256": None}, sha256=_sha256)
_LAYERS = "a list of a number for each layer, like [1.0, 0.1]"
_BATCH_KEYS: dict[str, Check | Keys] = {
    "batch_size": COUNT,
    "shuffle": _checks.flag,
    "seed": FROM_ZERO,
    "schedule": _list_of(_real(least=0.0), NUMBERS, 1, MAX_SCHEDULE),
}
_TRAJECTORY_KEYS: dict[str, Check | Keys] = {
    "n_steps": _integer(1),
    "k": COUNT,
    "n_transient": FROM_ZERO,
    "start": FROM_ZERO,
    "method": choice(*METHODS),
    "seed": FROM_ZERO,
}
_RULE_KEYS = section(
    RegimeRule,
    tol=_real(above=0.0, below=1.0),
    max_period=_integer(2),
    **{
        name: _real(least=0.0)
        for name in ("escape", "exponent", "errors", "rises", "rest", "edge", "fall")
    },
)

# For each analysis: variables that a study keeps by default, and those that it keeps on request.
VARIABLES: dict[str, tuple[list[str], list[str]]] = {
    "spectrum": (
        ["exponents", "stderr", "growth", "loss", "final_loss", "n_done"],
        ["trend", "state", "frame", "alignment_error"],
    ),
    "ftle": (["ftle", "final_loss"], []),
    "clv": (
        ["exponents", "growth", "residual", "contamination", "angles", "early_error", "final_loss",
         "n_done"],
        ["frame_growth", "loss", "states", "vectors", "coefficients", "early_vectors",
         "early_coefficients", "local_contamination", "mixing"],
    ),
    "training_jacobian": (
        ["log_singular_values", "error", "n_above", "n_near", "n_below", "final_loss"],
        ["left", "right"],
    ),
    "ensemble": (
        ["distances", "n_finite", *(f"growth_{name}" for name in RATE_ARRAYS)],
        ["states", "losses", "path_lengths"],
    ),
    "sharpness": (
        ["value", "ratio", "threshold", "loss", "final_loss"],
        ["residual", "missed", "n_products", "vector", "stderr", "upper_threshold"],
    ),
    "stability": (["converged", "score", "steps_used"], ["exponent"]),
    "train": (
        ["train_loss", "test_loss", "train_accuracy", "test_accuracy", "deviation", "snapshots",
         "n_done"],
        ["w_initial", "w_final", "state"],
    ),
    "scan": (
        ["loss", "accuracy", "exponent", "stderr", "growth", "sharpness", "non_monotone", "period",
         "regime", "late_loss", "late_weight"],
        [],
    ),
}  # fmt: skip


def _analysis(name: str, *functions: Callable[..., Any], **checks: Check | Keys) -> Keys:
    usual, others = VARIABLES[name]
    what = f"a list of {', '.join(usual + others)}"
    defaults: Settings = {"variables": None}
    for function in functions[1:]:
        defaults |= {p.name: p.default for p in inspect.signature(function).parameters.values()}
    checks["variables"] = _list_of(choice(*usual, *others), what, 1)
    return section(functions[0], defaults, **checks)


# Name of the table -> value of its key "name" -> its keys; "" for tables without a name.
TABLES: dict[str, dict[str, Keys]] = {
    "data": {
        "iris": _SPLIT_KEYS,
        "quadratic": section(datasets.quadratic, n=_integer(1, _MAX_SAMPLES), seed=FROM_ZERO)
        | _SPLIT_KEYS,
        "digits": _SPLIT_KEYS,
        "mnist": section(datasets.mnist, folder=_file, part=choice("train", "test")) | _FILE_KEYS,
        "idx": section(None, images=_file, labels=_file) | _FILE_KEYS,
        "hasy": section(
            datasets.hasy, folder=_file, index=string, symbols=string, invert=_checks.flag
        )
        | _FILE_KEYS,
        "table": section(
            datasets.table,
            path=_file,
            target=_columns,
            features=_columns,
            standardize=_checks.flag,
            drop_missing=_checks.flag,
            classes=_checks.flag,
            sep=_character,
            decimal=_character,
        )
        | _FILE_KEYS,
        "arrays": section(
            None, {"standardize": False, "file": None}, standardize=_checks.flag, file=_file
        )
        | _FILE_KEYS,
    },
    "network": {
        "": section(
            Network,
            {"layers": None, "hidden": None},
            hidden=_widths,
            layers=_list_of(COUNT, "a list of all widths, like [4, 10, 3]", 2),
            activation=_one_or_list(choice(*ACTIVATIONS), "a name, or one per hidden layer"),
            loss=choice(*LOSSES),
        )
    },
    "init": {
        "": section(
            Network.init, kind=choice(*INITIALISERS), scale=_real(least=0.0), biases=_checks.flag
        )
    },
    "optimizer": {
        "gradient_descent": section(
            GradientDescent,
            lr=_real(least=0.0),
            momentum=_real(least=0.0),
            nesterov=_checks.flag,
            weight_decay=_real(least=0.0),
            layer_scale=_list_of(_real(least=0.0), _LAYERS, 1),
            bias_scale=_one_or_list(_real(least=0.0), f"a number, or {_LAYERS}"),
            **_BATCH_KEYS,
        ),
        "adam": section(
            Adam,
            lr=_real(least=0.0),
            beta1=_real(least=0.0, below=1.0),
            beta2=_real(least=0.0, below=1.0),
            epsilon=_real(above=0.0),
            weight_decay=_real(least=0.0),
            **_BATCH_KEYS,
        ),
    },
    "analysis": {
        "spectrum": _analysis(
            "spectrum",
            lyapunov_spectrum,
            **_TRAJECTORY_KEYS,
            qr_every=COUNT,
            record_every=COUNT,
            tol=_real(above=0.0),
        ),
        "ftle": _analysis(
            "ftle",
            ftle,
            **_TRAJECTORY_KEYS,
            window=COUNT,
            stride=COUNT,
            kind=choice("qr", "svd", "clv"),
            n_tail=FROM_ZERO,
        ),
        "clv": _analysis(
            "clv",
            covariant_lyapunov_vectors,
            **_TRAJECTORY_KEYS,
            n_tail=FROM_ZERO,
            every=COUNT,
            qr_every=COUNT,
            delay=COUNT,
            memory_limit=_real(above=0.0),
        ),
        "training_jacobian": _analysis(
            "training_jacobian",
            training_jacobian,
            TrainingJacobian.counts,
            n_steps=_integer(1),
            k=COUNT,
            which=choice("largest", "smallest", "both"),
            of=choice("state", "parameters"),
            tol=_real(above=0.0),
            width=_real(least=0.0),
            start=FROM_ZERO,
            method=choice(*METHODS),
            seed=FROM_ZERO,
        ),
        "ensemble": _analysis(
            "ensemble",
            perturbation_ensemble,
            growth_rate,
            eps=_one_or_list(_real(least=0.0), NUMBERS),
            n_perturbations=COUNT,
            n_steps=_integer(1),
            distribution=choice("uniform", "normal", "sphere"),
            perturb=_perturb,
            relative=_checks.flag,
            norm=choice("l1", "l2", "linf"),
            start=FROM_ZERO,
            record_every=COUNT,
            method=choice("best_window", "until_saturation"),
        )
        | section(None, {"keep": "mean"}, keep=choice("all", "mean")),
        "sharpness": _analysis(
            "sharpness",
            sharpness_along,
            n_steps=FROM_ZERO,
            every=COUNT,
            start=FROM_ZERO,
            kind=choice(*KINDS),
            tol=_real(above=0.0),
            max_products=COUNT,
            n_batches=COUNT,
            seed=FROM_ZERO,
        ),
        "stability": _analysis(
            "stability",
            stability_map,
            n_steps=COUNT,
            x=string,
            x_values=_list_of(_real(), NUMBERS, 2),
            escape=_real(above=0.0),
            seed=FROM_ZERO,
        )
        | section(None, dict.fromkeys(NAMES), **{name: _setting(name) for name in NAMES}),
        "train": _analysis(
            "train",
            train,
            epochs=COUNT,
            record_every=COUNT,
            snapshots=_list_of(FROM_ZERO, "a list of epochs"),
            layers=_list_of(FROM_ZERO, "a list of layers"),
        )
        | section(None, {"dtype": "float64"}, dtype=choice("float64", "float32")),
        "scan": _analysis(
            "scan",
            learning_rate_scan,
            lrs=_list_of(_real(above=0.0), NUMBERS, 1),
            n_steps=_integer(40),
            n_late=_integer(20),
            n_perturbations=FROM_ZERO,
            eps=_real(above=0.0),
            observe=FROM_ZERO,
            rule=_RULE_KEYS,
        ),
    },
}
