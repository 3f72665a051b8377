"""`pylyap sharpness`: sharpness along training, relative to the stability threshold."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import click
import numpy as np

from pylyap._files import write_netcdf, write_npz
from pylyap._tangent.lanczos import MISSED
from pylyap._thresholds import KINDS
from pylyap.cli.options import (
    COUNT,
    Floats,
    Training,
    label_batch,
    output_option,
    plot_option,
    plot_writers,
    rate_labels,
    set_up,
    summary_writer,
    training_options,
    write_files,
    write_rows,
)
from pylyap.cli.tables import Column, Content, median, number, print_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pylyap._tangent.sharpness import Sharpness

    _Result: TypeAlias = tuple[Training, Sharpness]  # batch (n_lr, n_runs)


@click.command(context_settings={"show_default": True})
@training_options(lr="0.2,0.4,0.8", runs=4)
@click.option("--steps", type=COUNT, default=1000, help="Number of steps.")
@click.option(
    "--every", type=COUNT, default=20, help="Steps between two records; divides the steps."
)
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    show_default="preconditioned for adam, otherwise hessian",
    help="Largest eigenvalue of the Hessian or of the preconditioned Hessian, curvature of "
    "minibatches along their gradients (batch), of the whole loss along its gradient (gradient), "
    "or 2 over the smallest learning rate at which the loss rises (critical).",
)
@click.option(
    "--batches",
    type=COUNT,
    show_default="those of an epoch",
    help="Minibatches per record, for --kind batch.",
)
@click.option("--tol", type=float, default=1e-6, help="Relative tolerance of the eigenvalues.")
@click.option(
    "--max-products", type=COUNT, default=300, help="Hessian-vector products per eigenvalue."
)
@output_option(
    "Write results: .npz and .nc hold all arrays, .csv a row per run and record, .json a summary "
    "per learning rate.",
    "npz",
    "nc",
    "csv",
    "json",
)
@plot_option("--plot", "Plot loss, sharpness and threshold against the step")
@plot_option("--ratio", "Plot the ratio to the threshold against the step")
def sharpness(
    output: Path | None, plot: Path | None, ratio: Path | None, quiet: bool, **options: Any
) -> None:
    """Sharpness along training, relative to the stability threshold.

    Trains networks from several initial weights and prints, for each learning rate, the sharpness
    at the first and the last record, the threshold of the optimizer (2/lr for plain gradient
    descent), and the ratio of the two: 1 is the edge of stability.

    \b
    Examples:
      pylyap sharpness --plot edge.png
      pylyap sharpness --optimizer adam --lr 0.05,0.1 --steps 3000 --every 50 --ratio ratio.png
      pylyap sharpness --batch-size 10 --kind batch --momentum 0.9 --lr 0.05 --output batch.csv
    """
    from pylyap._tangent.sharpness import sharpness_along

    if options["batches"] is not None and options["kind"] != "batch":
        raise click.UsageError("--batches applies to --kind batch only")
    training = set_up(options)
    given = training.given
    found = sharpness_along(
        training.system,
        training.start,
        given["steps"],
        given["every"],
        kind=given["kind"],
        n_batches=given["batches"],
        tol=given["tol"],
        max_products=given["max_products"],
        threads=given["threads"],
        progress=not quiet and sys.stderr.isatty(),
        seed=given["seed"],
    )
    result = training, found
    print_rows(*_table(result))
    ratios = plot_writers(_draw_ratio)
    write_files(((output, _WRITERS), (plot, _WRITERS), (ratio, ratios)), result, quiet)


def _settings(result: _Result) -> dict[str, Any]:
    training, found = result
    return training.settings | {"kind": found.kind}


def _late(found: Sharpness) -> Floats:
    """Median ratio of each run over the records of the second half of the steps (n_lr, n_runs)."""
    steps = found.steps
    assert steps is not None  # along a run
    late = np.asarray(found.ratio)[..., steps >= (steps[0] + steps[-1]) / 2]
    middle: Floats = np.median(late, axis=-1)  # nan of a run that diverged
    return middle


def _summaries(result: _Result) -> Iterator[dict[str, Any]]:
    """A row for each learning rate: medians over the runs that did not diverge."""
    training, found = result
    late, reached = _late(found), np.asarray(found.ratio) >= 1.0
    loss, limit, steps = found.loss, found.threshold, found.steps
    assert loss is not None
    assert limit is not None
    assert steps is not None
    for i, lr in enumerate(training.lr):
        done = ~np.isnan(found.value[i, :, -1])
        first = steps[reached[i].argmax(axis=-1)][reached[i].any(axis=-1)]
        yield {
            "lr": float(lr),
            "first": median(found.value[i, done, 0]),
            "last": median(found.value[i, :, -1]),
            "threshold": median(limit[i, done, -1]),
            "ratio": median(found.ratio[i, :, -1]),
            "late_ratio": median(late[i]),
            "reached": len(first),
            "reached_at": median(first),
            "loss": median(loss[i, :, -1]),
            "diverged": int((~done).sum()),
        }


def _records(result: _Result) -> Iterator[dict[str, Any]]:
    """A row for each run and record."""
    training, found = result
    names = ("value", "ratio", "threshold", "upper_threshold", "loss", "stderr")
    arrays = {name: getattr(found, name) for name in names if getattr(found, name) is not None}
    steps = found.steps
    assert steps is not None
    for i, lr in enumerate(training.lr):
        for j in range(len(training.start)):
            for m, step in enumerate(steps):
                values = {name: float(array[i, j, m]) for name, array in arrays.items()}
                yield {"lr": float(lr), "run": j, "step": int(step)} | values


def _table(result: _Result) -> Content:
    training, found = result
    runs = len(training.start)
    columns: list[Column | str] = [
        "lr",
        Column("first", 2),
        Column("last", 0, "sharpness after the last step"),
        Column("threshold", 1),
        Column("ratio", 1, "last / threshold"),
        Column("late ratio", 1, "median over the second half of the steps"),
        Column("from step", 1, "first record with a ratio of 1 or more (runs)"),
        Column("final loss", 3),
    ]
    rows = []
    for row in _summaries(result):
        diverged = f" ({row['diverged']}/{runs} diverged)" if row["diverged"] else ""
        start = f"{number(row['reached_at'])} ({row['reached']}/{runs})" if row["reached"] else "–"
        rows.append(
            [
                f"{row['lr']:g}{diverged}",
                *(number(row[name]) for name in ("first", "last", "threshold", "ratio")),
                number(row["late_ratio"]),
                start,
                number(row["loss"]),
            ]
        )
    note = f"{_NAMES[found.kind]}, medians over finished runs."
    return training.title, columns, rows, note, list(_remarks(found))


_NAMES = {
    "hessian": "Largest eigenvalue of the Hessian",
    "preconditioned": "Largest eigenvalue of the preconditioned Hessian",
    "batch": "Mean curvature of minibatches along their gradients",
    "gradient": "Curvature along the gradient",
    "critical": "2 over the smallest learning rate at which the loss rises",
}


def _remarks(found: Sharpness) -> Iterator[str]:
    """What a reader of the table has to know."""
    if not np.isfinite(found.ratio).any() and np.isfinite(found.value).any():
        yield f"No threshold of kind {found.kind} is known for this optimizer."
    upper, limit = found.upper_threshold, found.threshold
    if upper is not None and limit is not None and (upper > limit).any():
        yield "The threshold is that of small batches; that of large ones is in the files."
    count = int((found.missed > MISSED).sum())
    if count:
        yield (
            f"{count} of {found.missed.size} eigenvalues have not converged: take a larger "
            "--max-products."
        )


def _write_npz(file: BinaryIO, result: _Result) -> None:
    training, found = result
    values = {name: value for name, value in vars(found).items() if isinstance(value, np.ndarray)}
    write_npz(file, {"lr": training.lr, "settings": json.dumps(_settings(result))} | values)


def _write_netcdf(file: BinaryIO, result: _Result) -> None:
    training, found = result
    data = label_batch(found.to_dataset(), training.lr)
    data.attrs["training"] = json.dumps(_settings(result))
    write_netcdf(file, data)


def _draw(result: _Result) -> Figure:
    from pylyap.plotting import plot_edge_of_stability

    training, found = result
    return plot_edge_of_stability(found, labels=rate_labels(training.lr), title=training.title)


def _draw_ratio(result: _Result) -> Figure:
    from pylyap.plotting import plot_sharpness

    training, found = result
    return plot_sharpness(found, labels=rate_labels(training.lr), title=training.title)


_WRITERS = {
    ".npz": _write_npz,
    ".nc": _write_netcdf,
    ".csv": lambda file, result: write_rows(file, _records(result)),
    ".json": summary_writer("rows", _summaries, _settings),
} | plot_writers(_draw)
