"""`pylyap ensemble`: growth of the distance between perturbed copies and their run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import click

from pylyap._files import write_npz
from pylyap.cli.options import (
    COUNT,
    FROM_ZERO,
    Training,
    number_list,
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
from pylyap.cli.tables import Column, Content, median, number, print_rows, uncertain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure

    from pylyap._perturbations.comparison import GrowthComparison

    _Result: TypeAlias = tuple[Training, GrowthComparison]  # batch shape (n_lr, n_runs)


@click.command(context_settings={"show_default": True})
@training_options(lr="0.01,1", runs=20)
@click.option(
    "--eps",
    type=number_list(float),
    default="1e-12,1e-8,1e-4",
    metavar="LIST",
    help="Sizes of the perturbation: each entry is uniform in [-eps, eps].",
)
@click.option("--perturbations", type=COUNT, default=5, help="Perturbed copies per run and size.")
@click.option("--steps", type=COUNT, default=200, help="Steps after the perturbation, at least 30.")
@click.option(
    "--start", type=FROM_ZERO, default=0, help="Steps of training before the perturbation."
)
@click.option(
    "--perturb",
    type=click.Choice(["weights", "biases", "all"]),
    default="weights",
    help="Parameters that are perturbed; distances are over all parameters.",
)
@click.option(
    "--norm", type=click.Choice(["l1", "l2", "linf"]), default="l1", help="Norm of the distances."
)
@output_option(
    "Write results: .npz holds mean distances, .csv and .json a summary.",
    "npz",
    "csv",
    "json",
)
@plot_option("--plot", "Plot the distances")
def ensemble(output: Path | None, plot: Path | None, quiet: bool, **options: Any) -> None:
    """Growth of small perturbations during training.

    Trains perturbed copies of each run and prints, for each learning rate and size of the
    perturbation, the growth rate of their mean distance to the run in nats per step, by four
    estimates: the mean over the runs whose best fit (largest R² over many windows) has R² > 0.9
    and slope > 0.05, as published; the median of the best fits of all runs; the median of fits to
    all steps before saturation; and the leading Lyapunov exponent of the same runs over the same
    steps (median), the limit of an infinitesimal perturbation.

    \b
    Examples:
      pylyap ensemble --plot distances.png
      pylyap ensemble --lr 1 --runs 500 --eps 1e-14,1e-12,1e-10,1e-8,1e-6,1e-4,1e-2
      pylyap ensemble --lr 0.01 --start 4000 --steps 1000 --perturbations 20 --runs 10
    """
    from pylyap._perturbations.comparison import compare_growth

    training = set_up(options)
    given = training.given
    growth = compare_growth(
        training.system,
        training.start,
        given["eps"],
        given["perturbations"],
        given["steps"],
        perturb=given["perturb"],
        norm=given["norm"],
        start=given["start"],
        threads=given["threads"],
        progress=not quiet and sys.stderr.isatty(),
        seed=given["seed"],
    )
    result = training, growth
    print_rows(*_table(result))
    write_files(((output, _WRITERS), (plot, _WRITERS)), result, quiet)


def _summaries(result: _Result) -> Iterator[dict[str, Any]]:
    """A row for each learning rate and size."""
    training, growth = result

    for i, lr in enumerate(training.lr):
        for j, eps in enumerate(growth.eps):
            whole = growth.until_saturation
            yield {
                "lr": float(lr),
                "eps": float(eps),
                "growth_kept": float(growth.mean[i, j]),
                "spread_kept": float(growth.spread[i, j]),
                "kept": int(growth.n_kept[i, j]),
                "runs": growth.kept.shape[1],
                "growth_all": median(growth.best_window.slope[i, :, j]),
                "growth_until_saturation": median(whole.slope[i, :, j]),
                "saturated": int((whole.saturation[i, :, j] >= 0).sum()),
                "exponent_in_window": median(growth.exponent_in_window[i, :, j]),
                "exponent": median(growth.exponent[i]),
            }


def _table(result: _Result) -> Content:
    training, growth = result
    least = f"R² > {growth.settings['least_r2']:g}, slope > {growth.settings['least_slope']:g}"
    columns: list[Column | str] = [
        "lr",
        "eps",
        Column("growth", 0, f"best window, mean (standard deviation) over the runs kept, {least}"),
        Column("kept", 2),
        Column("all runs", 5, "best window, median"),
        Column("to saturation", 1, "all steps before it, median"),
        Column("saturated", 3),
        Column("in window", 4, "of a tangent vector over the best window"),
        Column("exponent", 0, "leading Lyapunov exponent over the same steps"),
    ]
    note = "Growth rates of the mean distance, nats per step."
    rows = []
    for row in _summaries(result):
        first = row["eps"] == growth.eps[0]
        rows.append([
            f"{row['lr']:g}" if first else "",
            f"{row['eps']:g}",
            uncertain(row["growth_kept"], row["spread_kept"]),
            f"{row['kept']}/{row['runs']}",
            number(row["growth_all"]),
            number(row["growth_until_saturation"]),
            f"{row['saturated']}/{row['runs']}",
            number(row["exponent_in_window"]),
            number(row["exponent"]) if first else "",
        ])  # fmt: skip
    return training.title, columns, rows, note, []


def _write_npz(file: BinaryIO, result: _Result) -> None:
    training, growth = result
    best = {name: getattr(growth.best_window, name) for name in ("slope", "r2", "start", "stop")}
    arrays = {
        "lr": training.lr,
        "eps": growth.eps,
        "settings": json.dumps(training.settings),
        "distances": growth.ensemble.mean,
        "n_finite": growth.ensemble.n_finite,
        "steps": growth.ensemble.steps,
        "exponent": growth.exponent,
        "exponent_in_window": growth.exponent_in_window,
    }
    write_npz(file, arrays | best)


def _draw(result: _Result) -> Figure:
    from pylyap.plotting import plot_ensemble

    training, growth = result
    titles = rate_labels(training.lr)
    return plot_ensemble(growth.ensemble, titles=titles, title=training.title)


_WRITERS = {
    ".npz": _write_npz,
    ".csv": lambda file, result: write_rows(file, _summaries(result)),
    ".json": summary_writer("rows", _summaries, lambda result: result[0].settings),
} | plot_writers(_draw)
