"""The option --data: embedded data sets, images in local folders, and tables of the user."""

from __future__ import annotations

import csv
import difflib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pylyap._readers.tables import Reading

F = TypeVar("F", bound=Callable[..., Any])

_MAX_SIBLINGS = 10_000  # files among which a similar name is looked for


@dataclass(frozen=True)
class Task:
    """Default training settings of a data set, with gradient descent."""

    activation: str
    loss: str
    init: str
    lr: tuple[float, ...]


_IMAGES = Task(activation="relu", loss="cross_entropy", init="glorot_uniform", lr=(0.1,))

TASKS = {
    "iris": Task(
        activation="sigmoid",
        loss="cross_entropy",
        init="normal",
        lr=(0.01, 0.1, 1.0, 5.0),
    ),
    "quadratic": Task(
        activation="tanh",
        loss="mse",
        init="he_normal",
        lr=(0.01, 0.1, 1.0),
    ),
    "digits": _IMAGES,
    "mnist": _IMAGES,
    "hasy": _IMAGES,
}
_OF_CLASSES = Task("tanh", "cross_entropy", "glorot_uniform", (0.01, 0.1, 1.0))
_OF_VALUES = Task("tanh", "mse", "glorot_uniform", (0.01, 0.1, 1.0))
_NEEDS_FOLDER = ("mnist", "hasy")

# Options that apply to a table, by the names of their parameters.
_TABLE = {
    "target": "--target",
    "features": "--features",
    "standardize": "--standardize",
    "drop_missing": "--drop-missing",
    "classes": "--classes or --values",
    "sep": "--sep",
    "decimal": "--decimal",
}


@dataclass(frozen=True)
class Samples:
    """Inputs (N, n_in), or uint8 images (N, rows, columns), and targets.

    `about` are facts that are stored with the results of a table.
    """

    X: NDArray[Any]
    y: NDArray[Any]
    task: Task
    about: dict[str, Any] = field(default_factory=dict)


class _Source(click.ParamType[str]):
    """The name of a data set, or a file that exists."""

    name = "NAME|FILE"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        text = str(value)
        path = Path(text)
        if text in TASKS or path.is_file():
            return text
        names = ", ".join(TASKS)
        if path.is_dir():
            raise click.BadParameter(f"must be one of {names}, or a file, {text!r} is a directory")
        near = difflib.get_close_matches(text, [*TASKS, *_siblings(path)], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise click.BadParameter(f"must be one of {names}, or a file, there is no {text!r}{hint}")

    def shell_complete(self, ctx: Any, param: Any, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        names = [CompletionItem(name) for name in TASKS if name.startswith(incomplete)]
        return [*names, CompletionItem(incomplete, type="file")]


def _siblings(path: Path) -> Iterator[str]:
    """Files of the same folder, written as the path is."""
    try:
        for _, file in zip(range(_MAX_SIBLINGS), path.parent.iterdir(), strict=False):
            if file.is_file():
                yield str(path.with_name(file.name))
    except (OSError, ValueError):
        return


def _names(text: str) -> list[str]:
    """Option type: names of columns separated by commas, quoted as in CSV."""
    rows = list(csv.reader([text], skipinitialspace=True))
    return [name for row in rows for name in row]


def _character(text: str) -> str:
    """Option type: a separator, also as `tab` or `\\t`."""
    return "\t" if text in ("tab", r"\t") else text


def data_options(default: str) -> Callable[[F], F]:
    """The options of the data."""
    options = [
        click.option(
            "--data",
            type=_Source(),
            default=default,
            help="Fisher's iris flowers (4 lengths, 3 species), quadratic: y = x1² + x2² at 100 "
            "random points, images: scikit-learn's 8x8 digits, mnist (or Fashion-MNIST), hasy "
            "(HASYv2); or a file: .csv, .tsv, .txt (also .gz), .parquet, .npz.",
        ),
        click.option(
            "--target",
            type=_names,
            metavar="COLUMN",
            help="Column of the file to learn: classes if it has strings or whole numbers, else "
            "values. Several columns of values are separated by commas.",
        ),
        click.option(
            "--features",
            type=_names,
            metavar="COLUMNS",
            show_default="all others",
            help="Columns of the file that are inputs, separated by commas.",
        ),
        click.option(
            "--standardize",
            is_flag=True,
            help="Shift and scale the inputs to mean 0 and standard deviation 1 of the training "
            "samples.",
        ),
        click.option(
            "--classes/--values",
            default=None,
            help="Whether targets are classes or values, if their type should not decide.",
        ),
        click.option("--drop-missing", is_flag=True, help="Leave out rows with missing values."),
        click.option(
            "--sep",
            type=_character,
            metavar="CHARACTER",
            show_default="as the first line",
            help="Separator of columns; tab for a tab.",
        ),
        click.option(
            "--decimal",
            metavar="CHARACTER",
            show_default=".",
            help="Decimal sign of the file.",
        ),
        click.option(
            "--folder",
            type=click.Path(exists=True, file_okay=False),
            help="Directory of the files of mnist or hasy.",
        ),
        click.option(
            "--part",
            type=click.Choice(["train", "test"]),
            default="train",
            help="Part of mnist to train on: 60,000 or 10,000 images.",
        ),
    ]

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def load(data: str, folder: str | None, part: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Inputs (N, n_in), or uint8 images (N, rows, columns), and targets of a data set."""
    from pylyap import datasets

    if data not in _NEEDS_FOLDER:
        if folder is not None:
            raise click.UsageError(f"--folder applies to --data mnist or hasy, got --data {data}")
        X, y = getattr(datasets, data)()
        return X, y
    if folder is None:
        raise click.UsageError(f"--data {data} needs --folder, the directory of its files")
    if data == "mnist":
        images, labels = datasets.mnist(folder, "test" if part == "test" else "train")
    else:
        images, labels, _ = datasets.hasy(folder)
    return images, labels


def load_samples(options: dict[str, Any]) -> Samples:
    """The samples that the options of `data_options` describe; inputs are not scaled."""
    data, folder = options["data"], options["folder"]
    if data in TASKS:
        for name, option in _TABLE.items():
            if options[name] is not None and (options[name] or name == "classes"):
                raise click.UsageError(f"{option} applies to a file, got --data {data}")
        return Samples(*load(data, folder, options["part"]), TASKS[data])
    if folder is not None:
        raise click.UsageError(f"--folder applies to --data mnist or hasy, got --data {data}")
    return _load_table(data, options)


def _load_table(path: str, options: dict[str, Any]) -> Samples:
    from pylyap import _checks
    from pylyap._readers import tables

    how: Reading
    sep, decimal = options["sep"], options["decimal"] or "."
    for name, text in (("--sep", sep or ","), ("--decimal", decimal)):
        if len(text) != 1:
            raise click.UsageError(f"{name} must be one character, got {_checks.describe(text)}")
    if options["target"] is None:
        columns = tables.short_list(list(tables.column_arrays(path, sep, decimal)))
        raise click.UsageError(f"--data {path} needs --target, one of its columns {columns}")
    how = tables.Reading(
        target=options["target"],
        features=options["features"],
        standardize=options["standardize"],
        drop_missing=options["drop_missing"],
        classes=options["classes"],
        sep=sep,
        decimal=decimal,
        whole_classes=True,
    )
    with warnings_as_lines():
        found = tables.read(path, how)
    names = list(getattr(found.y, "names", ()))
    size = _checks.size(found.X.nbytes + found.y.nbytes)
    n = len(found.features)
    text = f"{path}: {len(found.X)} samples, {n} feature{'s'[: n != 1]}, {size}"
    if names:
        counts = np.bincount(found.y, minlength=len(names))
        listed = [f"{name} ({count})" for name, count in zip(names, counts, strict=True)]
        more = f", and {len(listed) - 10} more" if len(listed) > 10 else ""
        text += f"; classes {', '.join(listed[:10])}{more}"
    context = click.get_current_context(silent=True)
    if context is None or not context.params.get("quiet"):
        say(text)
    about: dict[str, Any] = {"features": found.features}
    if names:
        about["class_names"] = names
    return Samples(found.X, found.y, _OF_CLASSES if names else _OF_VALUES, about)


def say(text: str) -> None:
    """Print a line to standard error."""
    from pylyap.cli.options import printable

    click.echo(f"pylyap: {printable(' '.join(text.split()))}", err=True)


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Print warnings as lines of the command."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.simplefilter("always", RuntimeWarning)
        warnings.showwarning = lambda message, *_, **__: say(str(message))
        yield
