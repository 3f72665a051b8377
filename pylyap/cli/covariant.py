"""`pylyap clv`: covariant Lyapunov vectors of training and their numerical errors."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click
import numpy as np

from pylyap._files import write_netcdf, write_npz
from pylyap._status import Status
from pylyap.cli.options import (
    COUNT,
    FROM_ZERO,
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
from pylyap.cli.tables import Column, Content, number, print_rows, uncertain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure

    from pylyap._tangent.covariant import CovariantVectors


class _Delay(click.ParamType[Any]):
    name = "steps"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        return value if value == "auto" else COUNT.convert(value, param, ctx)


@click.command(context_settings={"show_default": True})
@training_options(lr="0.1")
@click.option("--steps", type=COUNT, default=1000, help="Number of steps with vectors.")
@click.option(
    "--transient",
    type=FROM_ZERO,
    default=200,
    help="Transient before these steps, which aligns the frame.",
)
@click.option(
    "--tail",
    type=FROM_ZERO,
    default=200,
    help="Steps after these, where the backward iteration starts.",
)
@click.option("--every", type=COUNT, default=10, help="Steps per record; divides --steps.")
@click.option("-k", "--vectors", type=COUNT, default=5, help="Number of vectors.")
@click.option("--qr-every", type=COUNT, default=1, help="Steps between orthonormalisations.")
@click.option(
    "--delay",
    type=_Delay(),
    metavar="STEPS",
    help="Also compute the vectors known STEPS steps after their time, and their error; auto takes "
    "the delay from the gaps between the exponents.",
)
@click.option("--memory", type=COUNT, default=256, help="Memory limit in megabytes.")
@output_option(
    "Write results: .npz and .nc hold all arrays, .csv and .json a summary per vector.",
    "npz",
    "nc",
    "csv",
    "json",
)
@plot_option("--plot", "Plot growth, angles and errors")
def clv(output: Path | None, plot: Path | None, quiet: bool, **options: Any) -> None:
    """Covariant Lyapunov vectors during training.

    Trains networks from several initial weights and prints, for each learning rate and vector, its
    growth in nats per step and measures of its numerical error: the gap to the next exponent, the
    contamination by the neighbouring vectors, which estimates the error due to finite transient and
    tail (1: the vector is not determined), the largest covariance residual, and the smallest angle
    to any other vector.

    \b
    Examples:
      pylyap clv
      pylyap clv --data quadratic --hidden 3 -k 13 --plot vectors.png
      pylyap clv --delay auto --steps 2000 --tail 1000 --output vectors.npz
    """
    from pylyap._tangent.covariant import covariant_lyapunov_vectors

    training = set_up(options)
    given = training.given
    vectors = covariant_lyapunov_vectors(
        training.system,
        training.start,
        given["steps"],
        given["vectors"],
        given["transient"],
        given["tail"],
        given["every"],
        qr_every=given["qr_every"],
        vectors=output is not None and output.suffix.lower() in (".npz", ".nc"),
        delay=given["delay"],
        memory_limit=1e6 * given["memory"],
        threads=given["threads"],
        progress=not quiet and sys.stderr.isatty(),
        seed=given["seed"],
    )
    result = _Result(training, vectors)
    print_rows(*_table(result))
    write_files(((output, _WRITERS), (plot, _WRITERS)), result, quiet)


@dataclass(frozen=True)
class _Result:
    training: Training
    vectors: CovariantVectors  # batch (n_lr, n_runs)


def _summaries(result: _Result) -> Iterator[dict[str, Any]]:
    """A row for each learning rate and vector: medians and extremes over the finished runs."""
    c = result.vectors
    first, second = np.triu_indices(c.k, 1)
    angles = c.angles()
    for i, lr in enumerate(result.training.lr):
        done = c.status[i] != Status.DIVERGED
        for v in range(c.k):

            def median(values: Any) -> float:
                return float(np.median(values)) if np.size(values) else np.nan

            pairs = (first == v) | (second == v)
            yield {
                "lr": float(lr),
                "vector": v + 1,
                "exponent": median(c.exponents[i, done, v]),
                "stderr": median(c.stderr[i, done, v]),
                "gap": median(c.gap[i, done, v]) if v + 1 < c.k else np.nan,
                "contamination": median(c.contamination[i, done, v]),
                "largest_residual": float(c.residual[i, done, :, v].max(initial=0.0)),
                "smallest_angle": float(angles[i, done][..., pairs].min(initial=np.inf)),
                "early_error": np.nan
                if c.early_error is None
                else median(c.early_error[i, done, :, v]),
                "diverged": int((~done).sum()),
            }


def _table(result: _Result) -> Content:
    c = result.vectors
    settings = c.settings
    early = c.early_error is not None
    columns: list[Column | str] = [
        "lr",
        "vector",
        Column("growth", 0, "(standard error), nats per step"),
        Column("gap to next", 3),
        Column("contamination", 0, "1 is a vector that is not determined"),
        Column("residual", 4, "the largest of all runs"),
        Column("angle", 2, "the smallest of all runs"),
    ]
    if early:
        delay = f"of vectors known {settings['delay']} steps after their time"
        columns.append(Column("early error", 1, delay))
    note = (
        f"Medians over finished runs; {settings['n_steps']} steps, transient "
        f"{settings['n_transient']}, tail {settings['n_tail']} steps."
    )
    runs = c.status.shape[1]
    rows = []
    for row in _summaries(result):
        first = row["vector"] == 1
        diverged = f" ({row['diverged']}/{runs} diverged)" if first and row["diverged"] else ""
        cells = [
            f"{row['lr']:g}{diverged}" if first else "",
            str(row["vector"]),
            uncertain(row["exponent"], row["stderr"]),
            number(row["gap"]),
            "–" if np.isnan(row["contamination"]) else f"{row['contamination']:.1g}",
            f"{row['largest_residual']:.1g}",
            "–" if c.k == 1 else f"{np.degrees(row['smallest_angle']):.2g}°",
        ]
        rows.append([*cells, *([f"{row['early_error']:.1g}"] if early else [])])
    return result.training.title, columns, rows, note, []


def _write_npz(file: BinaryIO, result: _Result) -> None:
    c = result.vectors
    names = ["vectors", "coefficients", "states", "growth", "frame_growth", "residual", "steps"]
    names += ["status", "n_done", "gap", "contamination", "local_contamination", "exponents"]
    names += ["transient_growth", "tail_growth", "end_coefficients"]
    names += ["early_vectors", "early_coefficients", "early_error"]
    arrays = {name: getattr(c, name) for name in names if getattr(c, name) is not None}
    more = {"lr": result.training.lr, "settings": json.dumps(result.training.settings)}
    write_npz(file, more | arrays)


def _write_netcdf(file: BinaryIO, result: _Result) -> None:
    data = label_batch(result.vectors.to_dataset(), result.training.lr)
    data.attrs["training"] = json.dumps(result.training.settings)
    write_netcdf(file, data)


def _draw(result: _Result) -> Figure:
    from pylyap.plotting import plot_covariant

    labels = rate_labels(result.training.lr)
    return plot_covariant(result.vectors, labels=labels, title=result.training.title)


_WRITERS = {
    ".npz": _write_npz,
    ".csv": lambda file, result: write_rows(file, _summaries(result)),
    ".json": summary_writer("vectors", _summaries, lambda result: result.training.settings),
    ".nc": _write_netcdf,
} | plot_writers(_draw)
