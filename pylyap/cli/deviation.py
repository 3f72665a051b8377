"""`pylyap deviation`: final weights relative to initial weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click
import numpy as np
from numpy.typing import NDArray

from pylyap._files import write_netcdf, write_npz
from pylyap._status import Status
from pylyap.cli.options import (
    COUNT,
    Floats,
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
from pylyap.cli.tables import Column, Content, median, number, print_rows
from pylyap.cli.train import epoch_options, train_networks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure

    from pylyap._weights.deviation import WeightDeviation
    from pylyap._weights.training import History

_LAYER = 1  # between the hidden layers


@dataclass(frozen=True)
class _Result:
    """Results of batch shape (n_runs,)."""

    training: Training
    history: History
    deviation: WeightDeviation  # of the last weights
    start: Floats  # (n_runs, n_params)
    mask: NDArray[np.bool_] | None
    legibility: Floats | None  # (n_runs, n_snapshots)

    @property
    def weights(self) -> Floats:
        """(n_runs, n_snapshots, n_params)"""
        weights: Floats = self.history.snapshots["weights"][0]
        return weights


@click.command(context_settings={"show_default": True})
@training_options(hidden="32,32", lr="0.1")
@epoch_options
@click.option(
    "--snapshots",
    type=click.IntRange(min=2),
    default=4,
    help="Number of recorded epochs, first and last included.",
)
@click.option("--bins", type=COUNT, default=50, help="Bins of the initial weights.")
@click.option(
    "--letter",
    metavar="TEXT",
    help="Apply the mask of a letter to the initial weights between the first two hidden layers.",
)
@output_option(
    "Write results: .npz and .nc hold all statistics, .csv and .json a summary per run.",
    "npz",
    "nc",
    "csv",
    "json",
)
@plot_option("--plot", "Plot the deviation against the initial weights of all runs")
@plot_option("--joint", "Plot the joint histogram of initial and final weights")
@plot_option("--marks", "Plot the letter in the first run at each recorded epoch")
def deviation(
    output: Path | None,
    plot: Path | None,
    joint: Path | None,
    marks: Path | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Deviation of the final from the initial weights.

    Trains networks with one learning rate and prints moments of w_f - w_i for all weights and for
    each layer: medians over the runs. With a letter mask on the initial weights, also its
    legibility along training: 1 is legible, 0.5 illegible.

    \b
    Examples:
      pylyap deviation --data digits --batch-size 30 --plot deviation.png --joint joint.png
      pylyap deviation --data mnist --folder data/mnist --hidden 128,128 --batch-size 128 \\
        --epochs 50 --runs 1 --letter a --marks letter.png
    """
    from pylyap._weights.deviation import weight_deviation
    from pylyap._weights.letters import apply_letter_mask, legibility, letter_mask

    if len(options["lr"]) != 1:
        raise click.UsageError(f"--lr must be a single value here, got {len(options['lr'])}")
    letter = options["letter"]
    if marks is not None and letter is None:
        raise click.UsageError("--marks needs a --letter")
    if letter is not None and len(options["hidden"]) < 2:
        raise click.UsageError(
            f"--letter needs two hidden layers, got --hidden {options['hidden'][0]}"
        )
    training = set_up(options)
    given, network = training.given, training.system.network
    start, mask = training.start, None
    if letter is not None:
        try:
            mask = letter_mask((network.layers[_LAYER + 1], network.layers[_LAYER]), letter)
        except ValueError as error:
            raise click.UsageError(f"--letter and --hidden do not match: {error}") from None
        start = apply_letter_mask(network, start, mask, _LAYER)
    n_recorded = min(given["snapshots"], given["epochs"] + 1)
    recorded = np.linspace(0, given["epochs"], n_recorded).round().astype(int)
    history = train_networks(training, start, quiet=quiet, snapshots=recorded.tolist())
    weights = history.snapshots["weights"][0]
    result = _Result(
        training,
        history,
        weight_deviation(start, history.w_final[0], network, bins=given["bins"]),
        start,
        mask,
        None if mask is None else legibility(weights, mask, network, _LAYER),
    )
    print_rows(*_table(result))
    if mask is not None:
        print_rows(*_letter_table(result))
    plots = ((joint, plot_writers(_draw_joint)), (marks, plot_writers(_draw_letter)))
    write_files(((output, _WRITERS), (plot, _WRITERS), *plots), result, quiet)


_MOMENTS = ("rms", "mean", "standard_deviation", "skewness", "kurtosis")


def _summaries(result: _Result) -> Iterator[dict[str, Any]]:
    """A row for each run and scope."""
    d, history = result.deviation, result.history
    for run, s in np.ndindex(d.rms.shape):
        yield {
            "run": run,
            "scope": d.scopes[s],
            "status": int(history.status[0, run]),
            "rms": float(d.rms[run, s]),
            "mean": float(d.mean[run, s]),
            "standard_deviation": float(np.sqrt(d.variance[run, s])),
            "skewness": float(d.skewness[run, s]),
            "kurtosis": float(d.kurtosis[run, s]),
            "train_loss": float(history.train_loss[0, run, -1]),
        } | ({} if result.legibility is None else {"legibility": result.legibility[run, -1].item()})


def _table(result: _Result) -> Content:
    summaries, history = list(_summaries(result)), result.history
    columns: list[Column | str] = [
        "weights", "rms", Column("mean", 1), Column("std. dev.", 2), Column("skewness", 3),
        Column("kurtosis", 4, "excess kurtosis"),
    ]  # fmt: skip
    diverged = int((history.status == Status.DIVERGED).sum())
    note = (
        "Moments of w_f - w_i: medians over runs. Final training "
        f"loss {number(median(history.train_loss[..., -1]))}"
        + (f", {diverged}/{history.status.size} diverged." if diverged else ".")
    )
    rows = []
    for scope in result.deviation.scopes:
        here = [row for row in summaries if row["scope"] == scope]
        rows.append([scope, *(number(median([row[name] for row in here])) for name in _MOMENTS)])
    return _title(result), columns, rows, note, []


def _letter_table(result: _Result) -> tuple[str, list[Column | str], list[list[str]]]:
    assert result.legibility is not None
    rows = []
    for epoch, scores in zip(result.history.snapshot_epochs, result.legibility.T, strict=True):
        finite = scores[np.isfinite(scores)]
        lowest = float(finite.min()) if finite.size else np.nan
        rows.append([f"{epoch}", number(median(scores)), number(lowest)])
    title = f"Letter {result.training.given['letter']}: median and minimum of the runs"
    return title, ["epoch", "legibility", "minimum"], rows


def _letter_arrays(result: _Result) -> dict[str, Any]:
    if result.legibility is None:
        return {}
    return {"legibility": result.legibility, "mask": result.mask}


def _write_npz(file: BinaryIO, result: _Result) -> None:
    arrays: dict[str, Any] = {
        name: value
        for name, value in vars(result.deviation).items()
        if isinstance(value, np.ndarray)
    }
    history = result.history
    more = {
        "settings": json.dumps(result.training.settings),
        "scopes": result.deviation.scopes,
        "epochs": history.epochs,
        "train_loss": history.train_loss[0],
        "deviation": history.deviation[0],
        "w_initial": result.start,
        "w_final": history.w_final[0],
        "snapshot_epochs": history.snapshot_epochs,
    }
    write_npz(file, more | _letter_arrays(result) | arrays)


def _write_nc(file: BinaryIO, result: _Result) -> None:
    history = result.history
    data = result.deviation.to_dataset().assign(
        train_loss=(["run", "epoch"], history.train_loss[0]),
        deviation=(["run", "scope", "epoch"], history.deviation[0]),
    )
    data = data.assign_coords(epoch=history.epochs, snapshot=history.snapshot_epochs)
    if result.legibility is not None:
        data = data.assign(legibility=(["run", "snapshot"], result.legibility))
    settings = json.dumps(result.training.settings)
    write_netcdf(file, data.assign_attrs(options=settings))


def _title(result: _Result) -> str:
    return f"{result.training.title}, learning rate {result.training.lr[0]:g}"


def _draw(result: _Result) -> Figure:
    from pylyap._weights.deviation import weight_deviation
    from pylyap.plotting import plot_deviation

    training = result.training
    pooled = weight_deviation(
        result.start,
        result.history.w_final[0],
        training.system.network,
        bins=training.given["bins"],
        pool=True,
    )
    return plot_deviation(pooled, title=_title(result))


def _draw_joint(result: _Result) -> Figure:
    from pylyap._weights.deviation import joint_histogram
    from pylyap.plotting import plot_joint

    network = result.training.system.network
    joint = joint_histogram(result.start, result.history.w_final[0], network)
    return plot_joint(joint, title=_title(result))


def _draw_letter(result: _Result) -> Figure:
    from pylyap.plotting import plot_mark

    matrices = result.training.system.network.unpack(result.weights[0])[_LAYER][0]
    titles = [f"epoch {epoch}" for epoch in result.history.snapshot_epochs]
    return plot_mark(matrices, result.mask, titles=titles, title=_title(result))


_WRITERS = {
    ".npz": _write_npz,
    ".nc": _write_nc,
    ".csv": lambda file, result: write_rows(file, _summaries(result)),
    ".json": summary_writer("rows", _summaries, lambda result: result.training.settings),
} | plot_writers(_draw)
