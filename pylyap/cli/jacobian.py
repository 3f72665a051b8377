"""`pylyap jacobian`: singular values of the Jacobian of a whole training."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click
import numpy as np

from pylyap._files import write_netcdf, write_npz
from pylyap.cli.options import (
    COUNT,
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
from pylyap.cli.tables import Column, Content, number, print_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from pylyap._tangent.training_jacobian import TrainingJacobian


@click.command(context_settings={"show_default": True})
@training_options(lr="0.01,0.1", runs=4)
@click.option("--steps", type=COUNT, default=1000, help="Number of steps.")
@click.option(
    "-k", "--vectors", type=COUNT, show_default="all", help="Number of singular values and vectors."
)
@click.option(
    "--which",
    type=click.Choice(["largest", "smallest", "both"]),
    default="largest",
    help="Which of them; with both there are twice as many.",
)
@click.option(
    "--of",
    type=click.Choice(["state", "parameters"]),
    default="parameters",
    help="Derivative of the whole state, with the buffers of the optimizer, or of the parameters.",
)
@click.option(
    "--width",
    type=float,
    default=0.1,
    help="Near 1 are singular values whose logarithm is at most this in absolute value.",
)
@click.option(
    "--overlap",
    is_flag=True,
    help="Overlap of the right singular vectors near 1 between runs from different initial "
    "weights, beside that of random subspaces; takes all vectors and two or more runs.",
)
@output_option(
    "Write results: .npz and .nc hold values and vectors, .csv and .json a summary per learning "
    "rate.",
    "npz",
    "nc",
    "csv",
    "json",
)
@plot_option("--plot", "Plot the singular values")
def jacobian(output: Path | None, plot: Path | None, quiet: bool, **options: Any) -> None:
    """Singular values of the training Jacobian, ∂w_T/∂w_0.

    Trains networks from several initial weights and prints, for each learning rate, how many
    displacements of the initial weights training amplifies (singular value above 1), leaves alone
    (near 1), and removes (below 1), with the largest and the smallest singular value. With
    --overlap also whether the displacements that training leaves alone are the same for all
    initial weights.

    \b
    Examples:
      pylyap jacobian
      pylyap jacobian --lr 0.1 --momentum 0.9 --batch-size 30 --plot values.png
      pylyap jacobian --lr 0.1 --runs 3 --width 0.01 --overlap
      pylyap jacobian --data digits --hidden 16 -k 5 --steps 200 --output vectors.npz
    """
    from pylyap._tangent.training_jacobian import training_jacobian

    if options["overlap"] and options["vectors"] is not None:
        raise click.UsageError("--overlap takes all vectors, leave out --vectors")
    if options["overlap"] and options["runs"] < 2:
        raise click.UsageError(f"--overlap needs two or more --runs, got {options['runs']}")
    training = set_up(options)
    given = training.given
    found = training_jacobian(
        training.system,
        training.start,
        given["steps"],
        given["vectors"],
        given["which"],
        of=given["of"],
        threads=given["threads"],
        progress=not quiet and sys.stderr.isatty(),
        seed=given["seed"],
    )
    found.counts(given["width"])  # refused before the table is printed
    result = _Result(training, found)
    print_rows(*_table(result))
    write_files(((output, _WRITERS), (plot, _WRITERS)), result, quiet)


@dataclass(frozen=True)
class _Result:
    training: Training
    jacobian: TrainingJacobian  # batch (n_lr, n_runs)


def _summaries(result: _Result) -> Iterator[dict[str, Any]]:
    """A row for each learning rate: medians over the runs that did not diverge."""
    found = result.jacobian
    counts = found.counts(result.training.given["width"])._asdict()
    logs = found.log_singular_values
    for i, lr in enumerate(result.training.lr):
        done = ~np.isnan(logs[i]).any(axis=-1)

        def median(values: Any) -> float:
            return float(np.median(values)) if np.size(values) else np.nan

        yield {
            "lr": float(lr),
            **{name: median(values[i, done]) for name, values in counts.items()},
            "ln_largest": median(logs[i, done, 0]),
            "ln_smallest": median(logs[i, done, -1]),
            "diverged": int((~done).sum()),
        } | (_overlap(result, i, done) if result.training.given["overlap"] else {})


def _overlap(result: _Result, i: int, done: NDArray[np.bool_]) -> dict[str, float]:
    """Means over neighbouring finished runs of learning rate i: overlap near 1, and by chance."""
    from pylyap._tangent.subspaces import subspace_overlap

    logs, right = result.jacobian.log_singular_values[i], result.jacobian.right[i]
    near = np.abs(logs) <= result.training.given["width"]
    spans = [right[j][:, near[j]] for j in np.flatnonzero(done) if near[j].any()]
    found = [subspace_overlap(a, b) for a, b in pairwise(spans)]
    values = {
        "overlap": [float(one.overlap) for one in found],
        "random_overlap": [one.expected for one in found],
    }
    return {name: float(np.mean(each)) if each else np.nan for name, each in values.items()}


def _table(result: _Result) -> Content:
    given, found = result.training.given, result.jacobian
    width = given["width"]
    columns: list[Column | str] = [
        "lr",
        Column("above 1", 0, f"ln σ above {width:g}"),
        "near 1",
        "below 1",
        Column("ln largest", 0, "nats"),
        Column("ln smallest", 0, "-inf is a direction that is destroyed"),
        Column("overlap", 1, "of directions near 1 between runs (random subspaces)"),
    ]
    runs, k = found.log_singular_values.shape[1:]
    n = found.left.shape[-2]
    which = f"the {k} {given['which']} of" if k < n and given["which"] != "both" else f"{k} of"
    note = f"Medians over finished runs; {which} {n} singular values σ of each run."
    rows = []
    for row in _summaries(result):
        diverged = f" ({row['diverged']}/{runs} diverged)" if row["diverged"] else ""
        rows.append(
            [
                f"{row['lr']:g}{diverged}",
                *(number(row[name]) for name in ("above", "near", "below")),
                *(number(row[name]) for name in ("ln_largest", "ln_smallest")),
                _overlap_text(row),
            ]
        )
    return result.training.title, columns, rows, note, []


def _overlap_text(row: dict[str, Any]) -> str:
    if np.isnan(row.get("overlap", np.nan)):
        return "–"
    return f"{row['overlap']:.3f} ({row['random_overlap']:.3f})"


def _write_npz(file: BinaryIO, result: _Result) -> None:
    names = ("log_singular_values", "error", "left", "right")
    arrays = {name: getattr(result.jacobian, name) for name in names}
    more = {"lr": result.training.lr, "settings": json.dumps(result.training.settings)}
    write_npz(file, more | arrays)


def _write_netcdf(file: BinaryIO, result: _Result) -> None:
    data = label_batch(result.jacobian.to_dataset(), result.training.lr)
    data.attrs["training"] = json.dumps(result.training.settings)
    write_netcdf(file, data)


def _draw(result: _Result) -> Figure:
    from pylyap.plotting import plot_training_jacobian

    return plot_training_jacobian(
        result.jacobian,
        result.training.given["width"],
        labels=rate_labels(result.training.lr),
        title=result.training.title,
    )


_WRITERS = {
    ".npz": _write_npz,
    ".csv": lambda file, result: write_rows(file, _summaries(result)),
    ".json": summary_writer("runs", _summaries, lambda result: result.training.settings),
    ".nc": _write_netcdf,
} | plot_writers(_draw)
