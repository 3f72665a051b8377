"""`pylyap scan`: outcome of training as a function of the learning rate."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import click
import numpy as np

from pylyap._files import write_netcdf, write_npz
from pylyap.cli.options import (
    COUNT,
    FROM_ZERO,
    Training,
    output_option,
    plot_option,
    plot_writers,
    set_up,
    summary_writer,
    training_options,
    write_files,
    write_rows,
)
from pylyap.cli.tables import Column, Content, median, number, print_rows, uncertain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure

    from pylyap.regimes import LearningRateScan

    _Result: TypeAlias = tuple[Training, LearningRateScan]


@click.command(context_settings={"show_default": True})
@training_options(lr="0.05:20:24", runs=10)
@click.option("--steps", type=COUNT, default=2000, help="Steps of each run, at least 40.")
@click.option(
    "--late",
    type=COUNT,
    show_default="a quarter of the steps",
    help="Steps of the late window, at least 20.",
)
@click.option(
    "--perturbations",
    type=FROM_ZERO,
    default=5,
    help="Perturbed copies per run in the late window; 0 for none.",
)
@click.option("--eps", type=float, default=1e-8, help="Size of the perturbation.")
@click.option(
    "--observe", type=FROM_ZERO, help="Index of a parameter to record over the late window."
)
@output_option(
    "Write results: .npz and .nc hold all arrays, .csv and .json a summary.",
    "npz",
    "nc",
    "csv",
    "json",
)
@plot_option("--plot", "Plot late losses, exponents, sharpness and regimes")
@plot_option("--bifurcation", "Plot late losses, or the observed weight, against the learning rate")
def scan(
    output: Path | None, plot: Path | None, bifurcation: Path | None, quiet: bool, **options: Any
) -> None:
    """Outcome of training as a function of the learning rate.

    Trains the same initial weights with each learning rate and analyses the late window: final loss
    and accuracy, leading Lyapunov exponent, growth rate of small perturbations, sharpness relative
    to the stability threshold (2/lr), fraction of steps in which the loss rises, and the regime:
    convergent, edge of stability, periodic, chaotic or divergent.

    \b
    Examples:
      pylyap scan --plot scan.png
      pylyap scan --lr 1:4:60 --runs 20 --steps 5000 --bifurcation diagram.png
      pylyap scan --data quadratic --hidden 3 --lr 0.01:2:20
    """
    from pylyap.regimes import learning_rate_scan

    training = set_up(options)
    given, system = training.given, training.system
    if training.lr.min() <= 0:
        raise click.UsageError(f"--lr must be above 0, got {training.lr.min():g}")
    found = learning_rate_scan(
        system.network,
        system.X,
        system.y,
        training.lr,
        given["steps"],
        w0=training.start,
        n_late=given["late"],
        optimizer=replace(system.optimizer, lr=1.0),
        n_perturbations=given["perturbations"],
        eps=given["eps"],
        observe=given["observe"],
        threads=given["threads"],
        progress=not quiet and sys.stderr.isatty(),
        seed=given["seed"],
    )
    result = training, found
    print_rows(*_table(result))
    diagram = plot_writers(_draw_bifurcation)
    write_files(((output, _WRITERS), (plot, _WRITERS), (bifurcation, diagram)), result, quiet)


def _summaries(result: _Result) -> Iterator[dict[str, Any]]:
    """A row for each learning rate."""
    _, found = result

    shares = found.share
    for i, lr in enumerate(found.lr):
        names = ("loss", "accuracy", "exponent", "stderr", "growth", "sharpness", "non_monotone")
        medians = {name: median(getattr(found, name)[i]) for name in names}
        periods = found.period[i][found.regime[i] == "periodic"]
        share = {name.replace(" ", "_"): float(values[i]) for name, values in shares.items()}
        yield {"lr": float(lr), **medians, "periods": sorted(set(periods.tolist())), **share}


def _table(result: _Result) -> Content:
    training, found = result
    columns: list[Column | str] = [
        "lr",
        "loss",
        Column("accuracy", 2),
        Column("exponent", 0, "leading Lyapunov exponent (standard error), nats per step"),
        Column("growth", 3, "growth rate of perturbations"),
        Column("sharpness", 1, "relative to the stability threshold, 1 is the edge of stability"),
        Column("rises", 4, "steps in which the loss rises"),
        Column("regime", 0, "number of runs (periods)"),
    ]
    note = f"Medians over runs, in the last {found.settings['n_late']} steps."
    rows = []
    for i, row in enumerate(_summaries(result)):
        names, counts = np.unique(found.regime[i], return_counts=True)
        order = np.argsort(-counts, kind="stable")
        labels = [f"{counts[j]} {names[j]}" for j in order]
        if row["periods"]:
            text = ", ".join(map(str, row["periods"]))
            labels = [f"{x} ({text})" if x.endswith("periodic") else x for x in labels]
        rows.append([
            f"{row['lr']:.3g}",
            number(row["loss"]),
            number(100 * row["accuracy"], "%"),
            uncertain(row["exponent"], row["stderr"]),
            number(row["growth"]),
            number(row["sharpness"]),
            number(100 * row["non_monotone"], "%"),
            ", ".join(labels),
        ])  # fmt: skip
    return training.title, columns, rows, note, []


def _write_csv(file: BinaryIO, result: _Result) -> None:
    rows = (row | {"periods": " ".join(map(str, row["periods"]))} for row in _summaries(result))
    write_rows(file, rows)


def _write_npz(file: BinaryIO, result: _Result) -> None:
    training, found = result
    values: dict[str, Any] = {
        name: value for name, value in vars(found).items() if isinstance(value, np.ndarray)
    }
    write_npz(file, {"settings": json.dumps(training.settings)} | values)


def _write_nc(file: BinaryIO, result: _Result) -> None:
    training, found = result
    data = found.to_dataset().assign_attrs(options=json.dumps(training.settings))
    write_netcdf(file, data)


def _draw(result: _Result) -> Figure:
    from pylyap.plotting import plot_scan

    training, found = result
    return plot_scan(found, title=training.title)


def _draw_bifurcation(result: _Result) -> Figure:
    from pylyap.plotting import plot_bifurcation

    training, found = result
    weight = found.late_weight is not None
    return plot_bifurcation(found, weight=weight, title=training.title)


_WRITERS = {
    ".npz": _write_npz,
    ".nc": _write_nc,
    ".csv": _write_csv,
    ".json": summary_writer("rows", _summaries, lambda result: result[0].settings),
} | plot_writers(_draw)
