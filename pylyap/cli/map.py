"""`pylyap map`: where training converges on a grid of two settings."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import click
import numpy as np

from pylyap import _checks
from pylyap._files import write_netcdf, write_npz
from pylyap.cli.options import (
    COUNT,
    Training,
    output_option,
    plot_option,
    plot_writers,
    set_up,
    summary_writer,
    training_options,
    write_files,
)
from pylyap.cli.tables import Content, number, print_rows, uncertain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pylyap.stability_maps import StabilityMap

    _Result: TypeAlias = tuple[Training, StabilityMap]


def _axis(text: str) -> tuple[str, Any]:
    """Option type: name:low:high:scale, or name:v1,v2,…"""
    name, *parts = text.split(":")
    try:
        if name and len(parts) == 3:
            return name, (float(parts[0]), float(parts[1]), parts[2])
        if name and len(parts) == 1:
            return name, [float(value) for value in parts[0].split(",")]
    except ValueError:
        pass
    raise click.BadParameter(
        f"must be name:low:high:log, name:low:high:linear or name:value,value,..., "
        f"got {_checks.describe(text)}"
    )


def _shape(text: str) -> tuple[int, int]:
    """Option type: rows x columns."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() and len(part) < 10 for part in parts):
        raise click.BadParameter(
            f"must be rows x columns, as 256x256, got {_checks.describe(text)}"
        )
    return int(parts[0]), int(parts[1])


_AXIS = "NAME:LOW:HIGH:SCALE"


@click.command(name="map", context_settings={"show_default": True})
@training_options(lr="0.1", runs=1)
@click.option(
    "--x",
    type=_axis,
    default="lr:0.01:100:log",
    metavar=_AXIS,
    help="Setting along the columns and its range, log or linear, or its values: lr, momentum, "
    "weight_decay, lr_0, lr_1, ... of one layer, scale (a factor of the initial weights), "
    "offset or offset_0, ... (a number added to them).",
)
@click.option(
    "--y",
    type=_axis,
    default="scale:0.1:10:log",
    metavar=_AXIS,
    help="The same along the rows.",
)
@click.option("--shape", type=_shape, default="65x65", metavar="ROWSxCOLUMNS", help="Pixels.")
@click.option("--steps", type=COUNT, default=200, help="Steps of each run.")
@click.option(
    "--escape",
    type=float,
    show_default="states that are not finite",
    help="Loss relative to the first above which a run counts as diverged and ends.",
)
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File from which the map resumes if it exists, and to which pixels are saved.",
)
@click.option("--exponent", is_flag=True, help="Compute leading Lyapunov exponents as well.")
@output_option("Write the map; .json holds the table.", "npz", "nc", "json")
@plot_option("--plot", "Plot where runs converge, and how fast")
def map_command(output: Path | None, plot: Path | None, quiet: bool, **options: Any) -> None:
    """Convergence of training on a grid of two settings.

    Trains the same initial weights with each pair of settings. The table has the fraction of runs
    that converge, the dimension of the border between them and the others, and the uncertainty
    exponent. The .nc file is read by pylyap.load.

    \b
    Examples:
      pylyap map --plot map.png
      pylyap map --x lr_0:0.1:1000:log --y lr_1:0.01:100:log --shape 128x128 --output map.nc
      pylyap map --data quadratic --hidden 3 --y momentum:0:0.99:linear --steps 500
    """
    from pylyap.stability_maps import stability_map

    training = set_up(options)
    given = training.given
    if given["runs"] != 1:
        raise click.UsageError(
            f"--runs must be 1, all pixels have the same initial weights, got {given['runs']}"
        )
    if len(training.lr) != 1:
        raise click.UsageError(
            f"--lr must be one number, use --x or --y for others, got {len(training.lr)}"
        )
    lr = float(training.lr[0])
    system = training.system._runs._with(replace(training.system.optimizer, lr=lr))
    found = stability_map(
        system,
        given["x"],
        given["y"],
        given["shape"],
        given["steps"],
        w0=training.start.reshape(-1),
        escape=given["escape"],
        exponent=given["exponent"],
        checkpoint=given["checkpoint"],
        threads=given["threads"],
        progress=not quiet and sys.stderr.isatty(),
        seed=given["seed"],
    )
    result = training, found
    print_rows(*_table(result))
    write_files(((output, _WRITERS), (plot, _WRITERS)), result, quiet)


def _summaries(result: _Result) -> Iterator[dict[str, Any]]:
    """A row for each quantity."""
    from pylyap.stability_maps import box_dimension, uncertainty_exponent

    _, found = result
    rows, columns = found.converged.shape
    made = found.settings["steps_made"] / (rows * columns * found.settings["n_steps"])
    box, pairs = box_dimension(found), uncertainty_exponent(found)

    def row(quantity: str, value: float, stderr: float = np.nan, note: str = "") -> dict[str, Any]:
        return {"quantity": quantity, "value": value, "stderr": stderr, "note": note}

    yield row("runs that converged", float(found.converged.mean()))
    yield row("steps made", float(made), note=f"of {found.settings['n_steps']} per run")
    if found.exponent is not None:
        values = found.exponent[np.isfinite(found.exponent)]
        middle = float(np.median(values)) if values.size else np.nan
        yield row("median exponent", middle, note="of finite runs, nats per step")
    yield row("dimension of the border", box.dimension, box.stderr, box.reason)
    known = "" if box.reason == pairs.reason else pairs.reason
    yield row("uncertainty exponent", pairs.exponent, pairs.stderr, known)


def _table(result: _Result) -> Content:
    training, found = result
    rows, reasons = [], []
    for row in _summaries(result):
        if np.isnan(row["value"]) and row["note"]:
            reasons.append(f"No {row['quantity']}: {row['note']}.")
            row["note"] = ""
        share = row["quantity"] in ("runs that converged", "steps made")
        value = number(100 * row["value"], "%") if share else uncertain(row["value"], row["stderr"])
        rows.append([row["quantity"], value, row["note"]])
    y, x = (f"{name} {found.coords[name][0]:.3g} ... {found.coords[name][-1]:.3g}"
            for name in found.dims)  # fmt: skip
    note = f"{found.converged.shape[0]} × {found.converged.shape[1]} runs: {y} by {x}."
    return training.title, ["quantity", "value", ""], rows, note, reasons


def _write_npz(file: BinaryIO, result: _Result) -> None:
    training, found = result
    values = {name: value for name, value in vars(found).items() if isinstance(value, np.ndarray)}
    axes = {"x": found.x, "y": found.y, "names": np.array(found.dims)}
    write_npz(file, {"settings": json.dumps(training.settings)} | axes | values)


def _write_nc(file: BinaryIO, result: _Result) -> None:
    from pylyap._results import _encoded

    training, found = result
    write_netcdf(file, _encoded(found).assign_attrs(options=json.dumps(training.settings)))


def _draw(result: _Result) -> Figure:
    from pylyap.plotting import plot_stability

    training, found = result
    return plot_stability(found, title=training.title)


_WRITERS = {
    ".npz": _write_npz,
    ".nc": _write_nc,
    ".json": summary_writer("rows", _summaries, lambda result: result[0].settings),
} | plot_writers(_draw)
