"""Options, training and output that the commands share."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, TypeVar

import click
import numpy as np
from numpy.typing import NDArray

from pylyap import _checks, _extras
from pylyap._files import (
    is_full,
    reason,
    require_replaceable,
    user_file,
    write_figure,
    write_text,
)
from pylyap._status import Status
from pylyap.cli.data import Samples, data_options, load_samples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pylyap.maps import TrainingMap

Floats: TypeAlias = NDArray[np.float64]
F = TypeVar("F", bound=Callable[..., Any])
Writer: TypeAlias = Callable[[BinaryIO, Any], None]  # (file, result)

# Exit codes; 0 is success, 1 success with failed runs of a study.
ERROR, FULL, INTERRUPTED = 2, 3, 130

_MAX_NUMBERS = 10**5  # of low:high:count

COUNT, FROM_ZERO = click.IntRange(min=1), click.IntRange(min=0)


# --- types of options ---


def number_list(kind: type[int] | type[float]) -> Callable[[str], tuple[float, ...]]:
    """Option type: comma-separated numbers; for floats also low:high:count, logarithmically
    spaced."""

    def convert(text: str) -> tuple[float, ...]:
        try:
            return tuple(number for item in text.split(",") for number in numbers(item))
        except ValueError:
            what = "whole numbers" if kind is int else "numbers, or low:high:count above 0,"
            given = _checks.describe(text)
            raise click.BadParameter(f"must be {what} separated by commas, got {given}") from None

    def numbers(item: str) -> tuple[float, ...]:
        if kind is int or ":" not in item:
            return (kind(item),)
        first, last, number = item.split(":")
        low, high, count = float(first), float(last), int(number)
        if not (0.0 < low < math.inf and 0.0 < high < math.inf and count > 0):
            raise ValueError
        if count > _MAX_NUMBERS:  # before allocating them
            raise click.BadParameter(f"must have at most {_MAX_NUMBERS} numbers, got {count}")
        return tuple(np.geomspace(low, high, count).tolist())

    return convert


_EXTRAS = {
    "plot": ["matplotlib"],
    "store": ["xarray", "h5netcdf", "h5py"],
    "report": ["jinja2", "matplotlib", "xarray", "zarr"],
}
IMAGE_SUFFIXES = ("png", "pdf", "svg")
# The extra that a suffix needs.
_NEEDS = {"nc": "store", "html": "report"} | dict.fromkeys(IMAGE_SUFFIXES, "plot")


def target(*suffixes: str) -> Callable[[str], Path]:
    """Option type: a file to write, with one of the suffixes.

    Obstacles are reported before the computation starts.
    """

    def convert(text: str) -> Path:
        path = Path(text)
        suffix, folder = path.suffix.removeprefix(".").lower(), path.parent
        if suffix not in suffixes:
            known = ", ".join(f".{name}" for name in suffixes)
            raise click.BadParameter(f"must end in one of {known}, got {text!r}")
        if path.is_dir():
            raise click.BadParameter(f"must be a file, {text!r} is a directory")
        if not folder.is_dir():
            raise click.BadParameter(f"must be in a directory that exists, got {text!r}")
        try:
            require_replaceable(path)
        except OSError as error:
            if is_full(error):
                raise cannot_write(text, error) from None
            why = reason(error).lower()
            raise click.BadParameter(f"must be writable, got {text!r}: {why}") from None
        extra = _NEEDS.get(suffix)
        for module in _extras.missing(*_EXTRAS[extra]) if extra else ():
            advice = _extras.install_command(extra, module)
            raise click.BadParameter(f".{suffix} needs {module}, not installed: {advice}")
        return path

    return convert


def output_option(what: str, *suffixes: str) -> Callable[[F], F]:
    """--output, a file for results with one of the suffixes."""
    return click.option("--output", type=target(*suffixes), metavar="FILE", help=what)


def plot_option(name: str, what: str) -> Callable[[F], F]:
    """An option for the file of a plot."""
    text = f"{what}: .png, .pdf or .svg."
    return click.option(name, type=target(*IMAGE_SUFFIXES), metavar="FILE", help=text)


# --- the training ---


def training_options(
    data: str = "iris",
    hidden: str = "10",
    activation: str | None = None,
    lr: str | None = None,
    runs: int = 8,
) -> Callable[[F], F]:
    """Options of data, network and optimizer, with the defaults of a command."""
    several = activation is not None
    defaults = (
        "0.01,0.1,1,5 for iris; 0.1 for images; otherwise 0.01,0.1,1; 0.001,0.01,0.1 for adam"
    )
    options = [
        click.option(
            "--hidden",
            type=number_list(int),
            default=hidden,
            metavar="LIST",
            help="Width of each hidden layer.",
        ),
        click.option(
            "--activation",
            default=activation,
            metavar="LIST" if several else None,
            show_default=several or "sigmoid for iris, relu for images, otherwise tanh",
            help="One of tanh, relu, leaky_relu, sigmoid, softplus, elu, gelu, silu, sin, identity"
            + ("; or several." if several else "."),
        ),
        click.option(
            "--loss",
            show_default="mse for values, cross_entropy for classes",
            help="One of mse, cross_entropy, cross_entropy_clipped.",
        ),
        click.option(
            "--init",
            show_default="normal for iris, he_normal for quadratic, otherwise glorot_uniform",
            help="Initial weights: one of he_normal, he_uniform, glorot_uniform, glorot_normal, "
            "lecun_normal, normal, uniform. Biases start at 0.",
        ),
        click.option("--scale", type=float, default=1.0, help="Factor on the initial weights."),
        click.option(
            "--optimizer",
            type=click.Choice(["gd", "adam"]),
            default="gd",
            help="Gradient descent or Adam.",
        ),
        click.option(
            "--lr",
            type=number_list(float),
            default=lr,
            metavar="LIST",
            show_default=defaults if lr is None else True,
            help="Learning rates, each with the same initial weights.",
        ),
        click.option("--momentum", type=float, default=0.0, help="Momentum of gradient descent."),
        click.option(
            "--nesterov", is_flag=True, help="Nesterov momentum instead of heavy-ball momentum."
        ),
        click.option(
            "--weight-decay", type=float, default=0.0, help="Coefficient of the L2 penalty."
        ),
        click.option("--batch-size", type=COUNT, show_default="all", help="Samples per minibatch."),
        click.option(
            "--runs", type=COUNT, default=runs, help="Number of initial weights per learning rate."
        ),
        click.option(
            "--seed", type=FROM_ZERO, default=0, help="Seed of weights, minibatches and frame."
        ),
        click.option("--threads", type=COUNT, show_default="all cores", help="Number of threads."),
        click.option("--quiet", is_flag=True, help="Print only the table."),
    ]

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return data_options(data)(command)

    return decorate


@dataclass(frozen=True)
class Training:
    """A training map and initial weights: batch shape (n_lr, n_runs)."""

    system: TrainingMap
    start: Floats  # (n_runs, n_params) initial weights
    lr: Floats  # (n_lr,)
    labels: NDArray[np.int64] | None
    given: dict[str, Any]  # the options, with defaults filled in
    test: tuple[NDArray[Any], NDArray[Any]] | None = None  # inputs and targets held out
    test_labels: NDArray[np.int64] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that are stored with the results."""
        from pylyap import __version__

        layers = self.system.network.layers
        return {"pylyap": __version__, "layers": layers, "n": self.system.n} | self.given

    @property
    def title(self) -> str:
        given = self.given
        unit = "steps" if "steps" in given else "epochs"
        runs, steps = (
            f"{given[name]} {name[:-1] if given[name] == 1 else name}" for name in ("runs", unit)
        )
        layers = "-".join(map(str, self.system.network.layers))
        net = f"{layers} {given['activation']}, {given['loss']}"
        return f"{Path(given['data']).name}: {net}, {given['optimizer']}, {runs}, {steps}"

    def accuracy(self, state: Floats, status: NDArray[np.int64]) -> Floats:
        """Fraction of samples correctly classified, with any loss; nan for a regression and for
        diverged runs."""
        result = np.full(status.shape, np.nan)
        if self.labels is not None:
            finite = status != Status.DIVERGED
            weights = self.system.weights(state[finite])
            guesses = self.system.network.predict(weights, self.system.X).argmax(axis=-1)
            result[finite] = (guesses == self.labels).mean(axis=-1)
        return result

    @property
    def classes(self) -> list[str]:
        """Names of the classes of a table; empty for other data."""
        return list(self.given.get("class_names", ()))

    def accuracy_by_class(
        self, state: Floats, status: NDArray[np.int64]
    ) -> tuple[Floats, NDArray[np.int64]]:
        """Fraction of each class correctly classified, (..., n_classes), and its samples.

        Of the test data where there are some; nan for diverged runs and classes without samples.
        """
        X, labels = self.system.X, self.labels
        if self.test is not None:
            X, labels = self.test[0], self.test_labels
        result = np.full((*status.shape, len(self.classes)), np.nan)
        counts = np.zeros(len(self.classes), np.int64)
        finite = status != Status.DIVERGED
        guesses = self.system.network.predict(self.system.weights(state[finite]), X).argmax(axis=-1)
        for k in range(len(self.classes)):
            here = np.asarray(labels) == k
            counts[k] = here.sum()
            if counts[k]:
                result[finite, k] = (guesses[:, here] == k).mean(axis=-1)
        return result, counts


def set_up(options: dict[str, Any], samples: Samples | None = None) -> Training:
    """The training that the options of `training_options` describe, on samples loaded before."""
    from pylyap import datasets
    from pylyap.maps import TrainingMap
    from pylyap.network import Network
    from pylyap.optimizers import Adam, GradientDescent

    samples = load_samples(options) if samples is None else samples
    X, y, task = samples.X, samples.y, samples.task
    gd = options["optimizer"] == "gd"
    defaults: dict[str, Any] = {
        "activation": task.activation,
        "loss": task.loss,
        "init": task.init,
        "lr": task.lr if gd else (0.001, 0.01, 0.1),
    }
    given = options | {name: value for name, value in defaults.items() if options[name] is None}
    outputs = len(np.unique(y)) if y.dtype.kind == "i" else math.prod(y.shape[1:])
    held_out, n_test = None, given.get("test")
    if n_test:
        if n_test >= len(X):
            raise click.UsageError(f"--test must be below the {len(X)} samples, got {n_test}")
        X, y, *held_out = datasets.split(X, y, len(X) - n_test, seed=given["seed"])
    if given["standardize"]:
        from pylyap._readers.tables import scaled

        X, *others = scaled(X, X, *(held_out or [])[:1])
        if held_out:
            held_out[0] = others[0]
    labels = np.asarray(y) if y.dtype.kind == "i" else None
    test_labels = np.asarray(held_out[1]) if held_out and labels is not None else None
    if labels is not None and given["loss"] == "mse":
        y = np.eye(outputs)[labels]
        if held_out:
            held_out[1] = np.eye(outputs)[held_out[1]]
    network = Network(
        (math.prod(X.shape[1:]), *given["hidden"], outputs),
        activation=given["activation"],
        loss=given["loss"],
    )
    lr = np.array(given["lr"])
    common = {name: given[name] for name in ("weight_decay", "batch_size", "seed")}
    optimizer: GradientDescent | Adam
    if gd:
        momentum = {name: given[name] for name in ("momentum", "nesterov")}
        optimizer = GradientDescent(lr=lr[:, np.newaxis], **momentum, **common)
    elif given["momentum"] or given["nesterov"]:
        raise click.UsageError("--momentum and --nesterov apply to --optimizer gd only")
    else:
        optimizer = Adam(lr=lr[:, np.newaxis], **common)
    start = network.init(
        given["init"], runs=given["runs"], scale=given["scale"], seed=given["seed"]
    )
    test = (held_out[0], held_out[1]) if held_out else None
    system = TrainingMap(network, X, y, optimizer, dtype=given.get("dtype", "float64"))
    return Training(system, start, lr, labels, given | samples.about, test, test_labels)


# --- output ---


def printable(text: str) -> str:
    """Replace control characters, which a terminal would interpret."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def plot_writers(draw: Callable[[Any], Figure]) -> dict[str, Writer]:
    """Writers of the figure draw(result) by suffix, for `write_files`."""

    def writer(kind: str) -> Writer:
        return lambda file, result: write_figure(file, draw(result), kind)

    return {f".{kind}": writer(kind) for kind in IMAGE_SUFFIXES}


def write_files(
    files: Iterable[tuple[Path | None, Mapping[str, Writer]]],
    result: Any,
    quiet: bool,
) -> None:
    """Write `result` to each path that is not None, by the writer of its suffix, atomically.

    After a failure the file keeps its old content, and the other files are written.
    """
    failures, full = [], False
    for path, writers in files:
        if path is None:
            continue
        try:
            with user_file(path) as file:
                writers[path.suffix.lower()](file, result)
        except (OSError, ValueError, MemoryError) as error:
            failures.append(f"cannot write {path}: {reason(error)}")
            full |= is_full(error)
            continue
        if not quiet:
            click.echo(f"wrote {path}", err=True)
    if failures:
        raise (DiskFullError if full else click.ClickException)("; ".join(failures))


class DiskFullError(click.ClickException):
    """The disk is full."""

    exit_code = FULL


def cannot_write(path: Any, error: OSError) -> click.ClickException:
    """The error of a file that cannot be written."""
    if is_full(error):
        return DiskFullError(f"cannot write {path}: {reason(error)}")
    return click.ClickException(f"cannot write {path}: {reason(error)}")


def write_json(file: BinaryIO, content: Any) -> None:
    """Write strict JSON, which has no non-finite numbers: nan is null, -inf is "-Infinity"."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple, np.ndarray)):
            return [plain(item) for item in value]
        if isinstance(value, np.generic):
            return plain(value.item())
        if isinstance(value, float) and not math.isfinite(value):
            return None if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"
        return value

    text = json.dumps(plain(content), indent=1, allow_nan=False)
    write_text(file, text + "\n")


def summary_writer(
    key: str,
    summaries: Callable[[Any], Iterable[dict[str, Any]]],
    settings: Callable[[Any], dict[str, Any]],
) -> Writer:
    """A writer of JSON with the settings and, under `key`, the rows of a summary."""

    def writer(file: BinaryIO, result: Any) -> None:
        write_json(file, {"settings": settings(result), key: list(summaries(result))})

    return writer


def rate_labels(lr: Floats) -> list[str]:
    """Labels of the curves of each learning rate."""
    return [f"learning rate {rate:g}" for rate in lr]


def label_batch(data: Any, lr: Floats) -> Any:
    """A dataset of batch shape (n_lr, n_runs) with dimensions `lr` and `run`."""
    old = [name for name in ("batch_0", "batch_1") if name in data.dims]
    return data.rename(dict(zip(old, ("lr", "run"), strict=False))).assign_coords(lr=lr)


def write_rows(file: BinaryIO, rows: Iterable[dict[str, Any]]) -> None:
    """Write CSV: a header with the keys of the first row, and one line per row."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    for n, row in enumerate(rows):
        if n == 0:
            writer.writerow(row)
        writer.writerow(row.values())
    write_text(file, text.getvalue())
