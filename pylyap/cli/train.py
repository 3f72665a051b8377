"""`pylyap train`: training by epochs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, TypeVar

import click
import numpy as np

from pylyap._files import write_netcdf, write_npz
from pylyap.cli.data import warnings_as_lines
from pylyap.cli.options import (
    COUNT,
    FROM_ZERO,
    Training,
    label_batch,
    output_option,
    plot_option,
    plot_writers,
    printable,
    rate_labels,
    set_up,
    summary_writer,
    training_options,
    write_files,
    write_rows,
)
from pylyap.cli.tables import Column, Content, median, number, print_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure

    from pylyap._weights.trainability import Trainability
    from pylyap._weights.training import History

    _Result: TypeAlias = tuple[Training, History, Trainability]  # batch shape (n_lr, n_runs)

_MOST_CLASSES = 20  # in the table of accuracies by class

F = TypeVar("F", bound=Callable[..., Any])


def epoch_options(command: F) -> F:
    """Options of commands that train by epochs."""
    options = [
        click.option("--epochs", type=COUNT, default=100, help="Number of passes over the data."),
        click.option(
            "--test",
            type=FROM_ZERO,
            default=0,
            help="Number of random samples held out as test data.",
        ),
        click.option(
            "--dtype",
            type=click.Choice(["float64", "float32"]),
            default="float64",
            help="Precision of training; float32 is faster for wide networks.",
        ),
        click.option(
            "--record-every", type=COUNT, default=1, help="Epochs between recorded losses."
        ),
        click.option(
            "--checkpoint",
            type=click.Path(dir_okay=False),
            help="Continue from this file if it exists, and save to it about every 30 seconds and "
            "when interrupted. Only --epochs may differ from the command that wrote it.",
        ),
        click.option(
            "--checkpoint-every",
            type=COUNT,
            help="Epochs between checkpoints.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command(context_settings={"show_default": True})
@training_options()
@epoch_options
@output_option(
    "Write results: .npz and .nc hold all curves, .csv and .json a summary per run.",
    "npz",
    "nc",
    "csv",
    "json",
)
@plot_option("--plot", "Plot losses, accuracies and deviations")
def train(output: Path | None, plot: Path | None, quiet: bool, **options: Any) -> None:
    """Train networks by epochs.

    Trains networks from several initial weights with each learning rate and prints the final and
    minimum losses, the epochs of the minima, accuracies, the rms deviation of the weights, and the
    phase of training: low or high trainability, or untrainable (the loss rises again and stays
    large). If the classes of a table have names, a second table has the accuracy by class.

    \b
    Examples:
      pylyap train --epochs 200 --test 30 --batch-size 30 --plot losses.png
      pylyap train --data digits --hidden 16,16 --lr 0.1,0.5 --batch-size 16 --test 500
      pylyap train --data mnist --folder data/mnist --hidden 64,64 --batch-size 128 \\
        --loss cross_entropy_clipped --test 10000 --checkpoint run.npz --output history.nc
    """
    from pylyap._weights.trainability import trainability

    training = set_up(options)
    history = train_networks(training, training.start, quiet=quiet)
    result = training, history, trainability(history)
    print_rows(*_table(result))
    if 0 < len(training.classes) <= _MOST_CLASSES:
        print()
        print_rows(*_class_table(training, history))
    write_files(((output, _WRITERS), (plot, _WRITERS)), result, quiet)


def train_networks(
    training: Training, start: Any, *, quiet: bool, snapshots: Iterable[int] | None = None
) -> History:
    """Train with the given options, batch (n_lr, n_runs); warnings are printed as lines."""
    from pylyap._weights.training import train as train_epochs

    given = training.given
    with warnings_as_lines():
        return train_epochs(
            training.system,
            start,
            given["epochs"],
            test=training.test,
            record_every=given["record_every"],
            snapshots=snapshots,
            checkpoint=given["checkpoint"],
            checkpoint_every=given["checkpoint_every"],
            threads=given["threads"],
            progress=not quiet and sys.stderr.isatty(),
        )


def _summaries(result: _Result) -> Iterator[dict[str, Any]]:
    """A row for each learning rate and run."""
    training, history, found = result
    curves = {
        "train_loss": history.train_loss,
        "test_loss": history.test_loss,
        "train_accuracy": history.train_accuracy,
        "test_accuracy": history.test_accuracy,
        "deviation": history.deviation[..., 0, :],
    }
    least = {
        name: getattr(found, name)
        for name in ("min_train_loss", "min_train_epoch", "min_test_loss", "min_test_epoch")
    }
    for i, j in np.ndindex(history.status.shape):
        row = {"lr": float(training.lr[i]), "run": j, "status": int(history.status[i, j])}
        row |= {name: float(c[i, j, -1]) for name, c in curves.items() if c is not None}
        row |= {name: v[i, j].item() for name, v in least.items() if v is not None}
        row |= {
            "divergence_epoch": int(found.divergence_epoch[i, j]),
            "label": str(found.label[i, j]),
        }
        yield row


def _table(result: _Result) -> Content:
    training, history, found = result
    summaries = list(_summaries(result))
    parts = ["train"] + ["test"] * (history.test_loss is not None)
    columns: list[Column | str] = ["lr"]
    for part in parts:
        columns += [f"{part} loss", Column(f"min. {part}", 3), Column("at epoch", 4)]
    if history.train_accuracy is not None:
        columns += [Column(f"{part} accuracy", 2 - j) for j, part in enumerate(parts)]
    phase = (
        "low or high trainability (the loss is still large, or is small), or untrainable (it rises "
        "again)"
    )
    columns += [Column("deviation", 2, "rms of w_f - w_i"), Column("phase", 0, phase)]
    steps = history.settings["steps_per_epoch"]
    note = (
        f"Medians over runs; {len(training.system.X)} samples"
        + (f" and {history.settings['test_samples']} held out" if len(parts) > 1 else "")
        + f", {steps} step{'s'[: steps != 1]} per epoch."
    )
    rows = []
    for i, lr in enumerate(training.lr):
        here = [row for row in summaries if row["lr"] == lr]

        def typical(name: str, here: list[dict[str, Any]] = here) -> float:
            return median([row[name] for row in here])

        cells = [f"{lr:g}"]
        for part in parts:
            epoch = median([e for row in here if (e := row[f"min_{part}_epoch"]) >= 0])
            cells += [number(typical(f"{part}_loss")), number(typical(f"min_{part}_loss"))]
            cells.append("–" if np.isnan(epoch) else f"{epoch:g}")
        if history.train_accuracy is not None:
            cells += [number(100 * typical(f"{part}_accuracy"), "%") for part in parts]
        names, counts = np.unique(found.label[i], return_counts=True)
        order = np.argsort(-counts, kind="stable")
        labels = ", ".join(f"{counts[k]} {names[k]}" for k in order)
        rows.append([*cells, number(typical("deviation")), labels])
    return training.title, columns, rows, note, []


def _class_table(training: Training, history: History) -> Content:
    """Accuracy of the last weights by class, of the test data where there are some."""
    from rich.markup import escape

    found, counts = training.accuracy_by_class(history.state, history.status)
    part = "training" if training.test is None else "test"
    names = [" ".join(printable(name).split()) for name in training.classes]
    columns: list[Column | str] = ["lr"]
    columns += [Column(escape(name), 1) for name in names]
    rows = [
        [f"{lr:g}", *(number(100 * median(accuracies), "%") for accuracies in found[i].T)]
        for i, lr in enumerate(training.lr)
    ]
    listed = ", ".join(f"{n} {name}" for name, n in zip(names, counts, strict=True))
    note = f"Medians over runs; {part} samples: {listed}."
    return "Accuracy by class after the last epoch", columns, rows, note, []


def _write_npz(file: BinaryIO, result: _Result) -> None:
    training, history, found = result
    arrays: dict[str, Any] = {
        name: value
        for part in (found, history)
        for name, value in vars(part).items()
        if isinstance(value, np.ndarray) and name != "widths"
    }
    settings = json.dumps(training.settings)
    more = {"lr": training.lr, "settings": settings, "scopes": history.scopes}
    write_npz(file, more | arrays)


def _write_nc(file: BinaryIO, result: _Result) -> None:
    training, history, found = result
    data = label_batch(history.to_dataset(), training.lr)
    more = found.to_dataset().drop_vars(["train_loss", "test_loss", "deviation"], errors="ignore")
    more = more.rename({"width": "lr"}).assign_coords(lr=training.lr)
    data = data.merge(more).assign_attrs(options=json.dumps(training.settings))
    write_netcdf(file, data)


def _draw(result: _Result) -> Figure:
    from pylyap.plotting import plot_history

    training, history, _ = result
    return plot_history(history, labels=rate_labels(training.lr), title=training.title)


_WRITERS = {
    ".npz": _write_npz,
    ".nc": _write_nc,
    ".csv": lambda file, result: write_rows(file, _summaries(result)),
    ".json": summary_writer("runs", _summaries, lambda result: result[0].settings),
} | plot_writers(_draw)
