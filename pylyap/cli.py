"""The command line: `pylyap spectrum` does the main job, `pylyap info` describes the build.

Tables go to standard output, progress and errors to standard error. Anything wrong is one line
and exit code 2. What a command needs is imported when it runs, so that `--help` is quick.
"""

from __future__ import annotations

import csv
import json
import math
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rich.table import Table

    from .exponents import Spectrum

__all__ = ["main"]

Floats: TypeAlias = NDArray[np.float64]


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 for any error, 130 if interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Greek letters is no error
    try:
        code = commands.main(args, prog_name="pylyap", standalone_mode=False)
        sys.stdout.flush()
    except click.Abort:
        return _complain("interrupted", 130)
    except click.ClickException as error:
        return _complain(error.format_message())
    except BrokenPipeError:  # whoever read our output has gone, as in `pylyap info | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError as error:
        return _complain(f"out of memory {error}")
    except (ValueError, TypeError, ImportError, OSError) as error:
        return _complain(str(error))
    except Exception as error:
        return _complain(f"internal error, please report it: {type(error).__name__}: {error}")
    return code if isinstance(code, int) else 0


def _complain(message: str, code: int = 2) -> int:
    print("pylyap:", " ".join(message.split()), file=sys.stderr)
    return code


class _Commands(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # further out click would print an empty line before our own
            raise click.Abort from None


def _list(kind: type[int] | type[float]) -> Callable[[str], tuple[float, ...]]:
    """A type of options: numbers with commas between them."""

    def convert(text: str) -> tuple[float, ...]:
        try:
            return tuple(kind(item) for item in text.split(","))
        except ValueError:
            what = "whole numbers" if kind is int else "numbers"
            raise click.BadParameter(f"must be {what} with commas between, got {text!r}") from None

    return convert


_EXTRAS = {"plot": ["matplotlib"], "store": ["xarray", "h5netcdf", "h5py"]}


def _target(**suffixes: str | None) -> Callable[[str], Path]:
    """A type of options: a file to write, under one of the suffixes, with the extra each needs.

    What stands in the way is said before the work, not after it.
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
            raise click.BadParameter(f"must lie in a directory, got {text!r}: no {str(folder)!r}")
        try:  # permissions alone do not tell: some folders take no files
            if path.exists():
                path.open("ab").close()
            else:
                path.open("xb").close()
                path.unlink()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise click.BadParameter(f"must be writable, got {text!r}: {reason}") from None
        extra = suffixes[suffix]
        for module in _EXTRAS[extra] if extra else ():
            if find_spec(module) is None:
                advice = f"pip install 'pylyap[{extra}]'"
                raise click.BadParameter(f".{suffix} needs {module}, not installed: {advice}")
        return path

    return convert


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="pylyap", message="%(prog)s %(version)s")
@click.pass_context
def commands(ctx: click.Context) -> None:
    """The training of a neural network, seen as a dynamical system.

    \b
    Example:
      pylyap spectrum --plot spectrum.png
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@dataclass(frozen=True)
class _Task:
    """How a data set is trained by gradient descent unless the options say otherwise."""

    activation: str
    loss: str
    init: str
    lr: tuple[float, ...]


_TASKS = {
    "iris": _Task(
        activation="sigmoid",
        loss="cross_entropy",
        init="normal",
        lr=(0.01, 0.1, 1.0, 5.0),
    ),
    "quadratic": _Task(
        activation="tanh",
        loss="mse",
        init="he_normal",
        lr=(0.01, 0.1, 1.0),
    ),
}


_COUNT, _FROM_ZERO = click.IntRange(min=1), click.IntRange(min=0)


@commands.command(context_settings={"show_default": True})
@click.option(
    "--data",
    type=click.Choice(list(_TASKS)),
    default="iris",
    help="Fisher's iris flowers (4 lengths, 3 species), or y = x1² + x2² at 100 random points.",
)
@click.option(
    "--hidden", type=_list(int), default="10", metavar="LIST", help="Width of each hidden layer."
)
@click.option(
    "--activation",
    show_default="sigmoid for iris, tanh for quadratic",
    help="One of tanh, relu, leaky_relu, sigmoid, softplus, elu, gelu, silu, sin, identity.",
)
@click.option(
    "--loss",
    show_default="cross_entropy for iris, mse for quadratic",
    help="One of mse, cross_entropy, cross_entropy_clipped.",
)
@click.option(
    "--init",
    show_default="normal for iris, he_normal for quadratic",
    help="Initial weights: one of he_normal, he_uniform, glorot_uniform, glorot_normal, "
    "lecun_normal, normal, uniform. Biases start at 0.",
)
@click.option("--scale", type=float, default=1.0, help="Factor on the initial weights.")
@click.option(
    "--optimizer", type=click.Choice(["gd", "adam"]), default="gd", help="Gradient descent or Adam."
)
@click.option(
    "--lr",
    type=_list(float),
    metavar="LIST",
    show_default="0.01,0.1,1 for quadratic and 5 too for iris; 0.001,0.01,0.1 for adam",
    help="Learning rates. Each is a row of the table; all start from the same weights.",
)
@click.option("--momentum", type=float, default=0.0, help="Of gradient descent.")
@click.option("--nesterov", is_flag=True, help="Nesterov's momentum instead of the heavy ball.")
@click.option("--weight-decay", type=float, default=0.0, help="Strength of the L2 penalty.")
@click.option("--batch-size", type=_COUNT, show_default="all", help="Samples per minibatch.")
@click.option("--runs", type=_COUNT, default=8, help="Initial weights per learning rate.")
@click.option("--steps", type=_COUNT, default=1000, help="Steps that the exponents average over.")
@click.option(
    "--transient",
    type=_FROM_ZERO,
    show_default="0; 100 for adam, whose first steps stretch any error in its empty buffers",
    help="Steps before those, which align the frame.",
)
@click.option(
    "-k",
    "--vectors",
    type=_COUNT,
    show_default="all, or 20 if there are more than 100",
    help="How many exponents.",
)
@click.option("--qr-every", type=_COUNT, default=1, help="Steps between orthonormalisations.")
@click.option(
    "--record-every", type=_COUNT, show_default="--qr-every", help="Steps per recorded growth."
)
@click.option("--seed", type=_FROM_ZERO, default=0, help="Of weights, minibatches and frame.")
@click.option("--threads", type=_COUNT, show_default="all cores", help="Runs worked on at once.")
@click.option(
    "--output",
    type=_target(npz=None, csv=None, json=None, nc="store"),
    metavar="FILE",
    help="Write the numbers: .npz and .nc hold all of them, .csv and .json a summary per run.",
)
@click.option(
    "--plot",
    type=_target(png="plot", pdf="plot", svg="plot"),
    metavar="FILE",
    help="Draw loss, finite-time exponents and spectrum: .png, .pdf or .svg.",
)
@click.option("--quiet", is_flag=True, help="Print the table and nothing else.")
def spectrum(output: Path | None, plot: Path | None, quiet: bool, **options: Any) -> None:
    """Lyapunov spectrum of networks while they learn.

    Trains networks from several initial weights with each learning rate, follows how small
    perturbations of the state grow or shrink, and prints per learning rate the final loss, the
    leading Lyapunov exponents in nats per step, and the regime that they speak of. Training is a
    transient: exponents and errors belong to the steps averaged over.

    Regimes: chaotic or stable where the leading exponent of a run lies above or below zero by more
    than two standard errors and by more than the random start of the frame may hide, marginal
    in between, diverged where a run left the finite numbers; the commonest among the runs is shown.

    \b
    Examples:
      pylyap spectrum
      pylyap spectrum --lr 0.5,1,2,4 --runs 16 --plot scan.png
      pylyap spectrum --data quadratic --hidden 16,8 --activation relu --steps 5000
      pylyap spectrum --optimizer adam -k 10 --batch-size 30 --output adam.npz
    """
    scan = _train(options, progress=not quiet and sys.stderr.isatty())
    _show(scan)
    failures = []
    for path in (output, plot):
        if path is None:
            continue
        try:
            _WRITERS[path.suffix.lower()](path, scan)
        except OSError as error:  # the other file is still worth having
            failures.append(f"cannot write {path}: {error.strerror or error}")
            continue
        if not quiet:
            click.echo(f"wrote {path}", err=True)
    if failures:
        raise click.ClickException("; ".join(failures))


@commands.command()
def info() -> None:
    """Build, instruction set, threads and versions."""
    from rich.console import Console
    from rich.table import Table

    from ._native import available, core, isa

    build = core.build()
    table = Table.grid("", "", padding=(0, 2))
    facts = {
        "pylyap": metadata.version("pylyap"),
        "instruction set": f"{isa} (of {', '.join(available())}; PYLYAP_ISA picks another)",
        "runs per register": str(build["lanes"]),
        "compiler": build["compiler"],
        "Eigen": build["eigen"],
        "assertions": "on" if build["assertions"] else "off",
        "threads": f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} cores",
        "Python": platform.python_version(),
        "platform": platform.platform(),
    }
    needs = (re.match(r"[\w.-]+", need) for need in metadata.requires("pylyap") or ())
    for name in dict.fromkeys(need.group() for need in needs if need):
        if name != "pylyap":
            facts[name] = _version(name)
    for row in facts.items():
        table.add_row(*row)
    Console(highlight=False, soft_wrap=True).print(table)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


@dataclass(frozen=True)
class _Scan:
    """A spectrum of batch shape (n_lr, n_runs), and what follows from it."""

    spectrum: Spectrum
    lr: Floats  # (n_lr,)
    accuracy: Floats  # (n_lr, n_runs) share of samples classified rightly; nan for a regression
    dimension: Floats  # (n_lr, n_runs) Kaplan-Yorke
    regime: NDArray[np.str_]  # (n_lr, n_runs)
    settings: dict[str, Any]

    @property
    def title(self) -> str:
        given = self.settings
        runs, steps = (
            f"{given[name]} {name[:-1] if given[name] == 1 else name}" for name in ("runs", "steps")
        )
        net = "-".join(map(str, given["layers"])) + f" {given['activation']}, {given['loss']}"
        return f"{given['data']}: {net}, {given['optimizer']}, {runs}, {steps}"


def _train(options: dict[str, Any], progress: bool) -> _Scan:
    from . import __version__, datasets
    from .exponents import kaplan_yorke_dimension, lyapunov_spectrum
    from .maps import TrainingMap
    from .network import Network
    from .optimizers import Adam, GradientDescent

    task = _TASKS[options["data"]]
    defaults: dict[str, Any] = {
        "activation": task.activation,
        "loss": task.loss,
        "init": task.init,
    }
    gd = options["optimizer"] == "gd"
    defaults |= {"lr": task.lr if gd else (0.001, 0.01, 0.1), "transient": 0 if gd else 100}
    given = options | {name: value for name, value in defaults.items() if options[name] is None}

    X, y = getattr(datasets, given["data"])()
    labels = y if y.dtype.kind == "i" else None
    outputs = 1 if labels is None else len(np.unique(labels))
    if labels is not None and given["loss"] == "mse":
        y = np.eye(outputs)[labels]
    network = Network(
        (X.shape[1], *given["hidden"], outputs), activation=given["activation"], loss=given["loss"]
    )
    lr = np.array(given["lr"])
    common = {name: given[name] for name in ("weight_decay", "batch_size", "seed")}
    optimizer: GradientDescent | Adam
    if gd:
        momentum = {name: given[name] for name in ("momentum", "nesterov")}
        optimizer = GradientDescent(lr=lr[:, np.newaxis], **momentum, **common)
    elif given["momentum"] or given["nesterov"]:
        raise click.UsageError("--momentum and --nesterov belong to --optimizer gd")
    else:
        optimizer = Adam(lr=lr[:, np.newaxis], **common)
    system = TrainingMap(network, X, y, optimizer)
    start = network.init(
        given["init"], runs=given["runs"], scale=given["scale"], seed=given["seed"]
    )
    result = lyapunov_spectrum(
        system,
        start,
        given["steps"],
        k=given["vectors"] or (system.n if system.n <= 100 else 20),
        n_transient=given["transient"],
        qr_every=given["qr_every"],
        record_every=given["record_every"],
        threads=given["threads"],
        progress=progress,
        seed=given["seed"],
    )
    accuracy = np.full(result.status.shape, np.nan)
    if labels is not None:
        alive = result.status != 1
        guesses = network.predict(system.weights(result.state[alive]), X).argmax(axis=-1)
        accuracy[alive] = (guesses == labels).mean(axis=-1)  # also of a net trained by mse
    return _Scan(
        spectrum=result,
        lr=lr,
        accuracy=accuracy,
        dimension=kaplan_yorke_dimension(result.exponents, n=system.n),
        regime=_regime(result, system.n, given["steps"]),
        settings={"pylyap": __version__, "layers": network.layers, "n": system.n} | given,
    )


def _regime(spectrum: Spectrum, n: int, n_steps: int) -> NDArray[np.str_]:
    """Name what a small perturbation of each run does over the steps averaged over.

    diverged
        The run left the finite numbers.
    chaotic
        The leading exponent lies above zero: perturbations grow.
    stable
        The leading exponent lies below zero: perturbations shrink.
    marginal
        Neither can be told. Above or below zero means by more than two standard errors of the
        run's average, and by more than (1 + ½ ln n) / n_steps: a factor e over the whole window,
        next to the ½ ln n nats that a random start frame may lose in n dimensions while it turns
        to the leading direction.

    Over a transient such as training "chaotic" speaks of this window, not of an attractor.
    """
    leading, error = spectrum.exponents[..., 0], spectrum.stderr[..., 0]
    margin = np.fmax(2.0 * error, (1.0 + 0.5 * np.log(n)) / n_steps)
    tests = [spectrum.status == 1, leading > margin, leading < -margin]
    return np.select(tests, ["diverged", "chaotic", "stable"], "marginal")


def _show(scan: _Scan) -> None:
    """Print the richest table that fits: each learning rate on one line, or on two."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 1000  # a pipe has no width
    unbounded = console.options.update(width=1000)
    for joint, n_shown in ((" ", 3), ("\n", 3), ("\n", 2), ("\n", 1)):
        table = _table(scan, joint, n_shown)
        if console.measure(table, options=unbounded).maximum <= console.width:
            break
    console.print(table)


_COLORS = {"diverged": "red", "chaotic": "magenta", "marginal": "yellow", "stable": "green"}


def _table(scan: _Scan, joint: str, n_shown: int) -> Table:
    from rich import box
    from rich.table import Table

    result = scan.spectrum
    n_runs, k = result.exponents.shape[1:]
    n_shown = min(n_shown, k)
    caption = "λ in nats per step: " + (
        "mean over the runs that finished ± their standard deviation ± the standard error of one "
        "run's average over its steps (median)."
        if n_runs > 1
        else "average over the steps ± its standard error."
    )
    if n_runs > 1:
        caption += " Final loss: median and range; accuracy: median."
    if k < scan.settings["n"]:
        caption += " D_KY (Kaplan-Yorke dimension) may need all exponents."
    finished = (result.status != 1).sum(axis=1)
    drifts = result.trend[..., :n_shown].sum(axis=1) > finished[:, np.newaxis] / 2
    if drifts.any():
        caption += " *: most runs drift, and the error is not that of an asymptotic exponent."
    columns = ["lr", "final loss", "accuracy", *(f"λ{j + 1}" for j in range(n_shown))]
    columns += ["sum" if k == scan.settings["n"] else f"sum of {k}", "D_KY", "diverged", "regime"]
    table = Table(*columns, box=box.SIMPLE_HEAD, title=scan.title, caption=caption)
    table.title_justify = table.caption_justify = "left"
    table.collapse_padding, table.pad_edge = True, False
    for i, lr in enumerate(scan.lr):
        done = result.status[i] != 1
        loss, exponents = result.loss[i, done, -1], result.exponents[i, done]
        spread = f"{joint}{loss.min():.3g}–{loss.max():.3g}" if len(loss) > 1 else ""
        names, counts = np.unique(scan.regime[i], return_counts=True)
        regime, count = names[counts.argmax()], counts.max()
        table.add_row(
            f"{lr:g}",
            _number(_mean(loss, np.median)) + spread,
            _number(100 * _mean(scan.accuracy[i, done], np.median), "%"),
            *(
                _exponent(exponents[:, j], result.stderr[i, done, j], joint)
                + (" *" if drifts[i, j] else "")
                for j in range(n_shown)
            ),
            _number(_mean(exponents.sum(axis=1))),
            _number(_mean(scan.dimension[i, done])),
            f"{n_runs - len(loss)}/{n_runs}",
            f"[{_COLORS[regime]}]{regime}[/]{joint}{count}/{n_runs}",
        )
    return table


def _exponent(values: Floats, errors: Floats, joint: str) -> str:
    """One exponent over the runs: mean ± spread ± error of one run."""
    text = _number(_mean(values))
    if len(values) and np.isfinite(values).all():
        error = _mean(errors, np.median)
        text += joint + (f"±{values.std(ddof=1):.1g} " if len(values) > 1 else "")
        text += "±–" if np.isnan(error) else f"±{error:.1g}"  # too few records to tell
    return text


def _mean(values: Floats, mean: Callable[[Floats], Any] = np.mean) -> float:
    return float(mean(values)) if len(values) else np.nan


def _number(value: float, unit: str = "") -> str:
    return "–" if np.isnan(value) else f"{value:.3g}{unit}"


def _rows(scan: _Scan) -> Iterator[dict[str, Any]]:
    """A summary of each run."""
    result = scan.spectrum
    for i, j in np.ndindex(result.status.shape):
        yield {
            "lr": float(scan.lr[i]),
            "run": j,
            "regime": str(scan.regime[i, j]),
            "steps": int(result.n_done[i, j]),
            "final_loss": float(result.loss[i, j, -1]),
            "accuracy": float(scan.accuracy[i, j]),
            "kaplan_yorke_dimension": float(scan.dimension[i, j]),
            "exponents": result.exponents[i, j].tolist(),
            "stderr": result.stderr[i, j].tolist(),
        }


def _write_csv(path: Path, scan: _Scan) -> None:
    """One row per run, one column per exponent."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        for n, row in enumerate(_rows(scan)):
            exponents, errors = row.pop("exponents"), row.pop("stderr")
            row |= {f"exponent_{i + 1}": value for i, value in enumerate(exponents)}
            row |= {f"stderr_{i + 1}": value for i, value in enumerate(errors)}
            if n == 0:
                writer.writerow(row)
            writer.writerow(row.values())


def _write_json(path: Path, scan: _Scan) -> None:
    """Strict JSON, which has no word for them: nan is null and -inf is "-Infinity"."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        if isinstance(value, float) and not math.isfinite(value):
            return None if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"
        return value

    content = plain({"settings": scan.settings, "runs": list(_rows(scan))})
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _write_npz(path: Path, scan: _Scan) -> None:
    """Arrays of numbers and text alone; `settings` is a text in JSON."""
    result = scan.spectrum
    fields = (
        "exponents",
        "stderr",
        "growth",
        "steps",
        "loss",
        "state",
        "status",
        "n_done",
        "trend",
    )
    np.savez_compressed(
        path,
        lr=scan.lr,
        accuracy=scan.accuracy,
        kaplan_yorke_dimension=scan.dimension,
        regime=scan.regime,
        settings=np.array(json.dumps(scan.settings)),
        **{name: getattr(result, name) for name in fields},
    )


def _write_netcdf(path: Path, scan: _Scan) -> None:
    """The dataset of the spectrum with dimensions `lr` and `run`, and what the scan adds."""
    data = scan.spectrum.to_dataset().rename(batch_0="lr", batch_1="run")
    data = data.assign_coords(lr=scan.lr).assign(
        accuracy=(("lr", "run"), scan.accuracy),
        kaplan_yorke_dimension=(("lr", "run"), scan.dimension),
        regime=(("lr", "run"), scan.regime.astype(object)),
    )
    data.attrs["scan"] = json.dumps(scan.settings)
    data.to_netcdf(path, engine="h5netcdf")


def _draw(path: Path, scan: _Scan) -> None:
    from .plotting import plot_spectrum

    labels = [f"lr {lr:g}" for lr in scan.lr]
    plot_spectrum(scan.spectrum, labels=labels, title=scan.title).savefig(path)


_WRITERS = {
    ".npz": _write_npz,
    ".csv": _write_csv,
    ".json": _write_json,
    ".nc": _write_netcdf,
    ".png": _draw,
    ".pdf": _draw,
    ".svg": _draw,
}
