"""`pylyap spectrum`: Lyapunov exponents of training."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import click
import numpy as np
from numpy.typing import NDArray

from pylyap._files import write_netcdf, write_npz
from pylyap._status import Status
from pylyap.cli.options import (
    COUNT,
    FROM_ZERO,
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
from pylyap.cli.tables import Column, Content, median, number, print_rows, uncertain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pylyap._tangent.exponents import Spectrum

Floats: TypeAlias = NDArray[np.float64]


@click.command(context_settings={"show_default": True})
@training_options()
@click.option("--steps", type=COUNT, default=1000, help="Steps over which exponents are averaged.")
@click.option(
    "--transient",
    type=FROM_ZERO,
    show_default="0; 100 for adam, whose first steps amplify perturbations of its zero buffers",
    help="Transient before these steps, which aligns the frame.",
)
@click.option(
    "-k",
    "--vectors",
    type=COUNT,
    show_default="all, or 20 if there are more than 100",
    help="Number of exponents.",
)
@click.option("--qr-every", type=COUNT, default=1, help="Steps between orthonormalisations.")
@click.option(
    "--record-every",
    type=COUNT,
    show_default="--qr-every",
    help="Steps between records of the growth.",
)
@output_option(
    "Write results: .npz and .nc hold all arrays, .csv and .json a summary per run.",
    "npz",
    "nc",
    "csv",
    "json",
)
@plot_option("--plot", "Plot loss, finite-time exponents and spectrum")
def spectrum(output: Path | None, plot: Path | None, quiet: bool, **options: Any) -> None:
    """Lyapunov spectrum of training.

    Trains networks from several initial weights with each learning rate, follows the growth of
    small perturbations of the state, and prints for each learning rate the final loss (median and
    range), the accuracy (median), the leading Lyapunov exponents in nats per step, their sum, the
    Kaplan-Yorke dimension (D_KY) and the regime. Numbers in brackets are uncertainties in units of
    the last digits: 0.082(20) is 0.082 ± 0.020. Training is a transient: exponents and errors refer
    to the steps over which they are averaged. They are in the order of the frame, not sorted:
    exponents that agree within errors may be in any order.

    Regimes: chaotic or stable if the leading exponent of a run is above or below zero by more than
    two standard errors and by more than the possible effect of the random initial frame; marginal
    in between; diverged if the run became non-finite. The table shows the most frequent one.

    \b
    Examples:
      pylyap spectrum
      pylyap spectrum --lr 0.5,1,2,4 --runs 16 --plot scan.png
      pylyap spectrum --data quadratic --hidden 16,8 --activation relu --steps 5000
      pylyap spectrum --optimizer adam -k 10 --batch-size 30 --output adam.npz
    """
    scan = _train(options, progress=not quiet and sys.stderr.isatty())
    print_rows(*_table(scan))
    write_files(((output, _WRITERS), (plot, _WRITERS)), scan, quiet)


@dataclass(frozen=True)
class _Scan:
    """A spectrum of batch shape (n_lr, n_runs) and quantities derived from it."""

    spectrum: Spectrum
    lr: Floats  # (n_lr,)
    accuracy: Floats  # (n_lr, n_runs) fraction correctly classified; nan for a regression
    dimension: Floats  # (n_lr, n_runs) Kaplan-Yorke
    regime: NDArray[np.str_]  # (n_lr, n_runs)
    settings: dict[str, Any]
    title: str


def _train(options: dict[str, Any], progress: bool) -> _Scan:
    from pylyap._tangent.exponents import kaplan_yorke_dimension, lyapunov_spectrum
    from pylyap.regimes import spectrum_regime

    adam = options["optimizer"] == "adam"
    if options["transient"] is None:
        options["transient"] = 100 if adam else 0
    training = set_up(options)
    system, given = training.system, training.given
    result = lyapunov_spectrum(
        system,
        training.start,
        given["steps"],
        k=given["vectors"] or (system.n if system.n <= 100 else 20),
        n_transient=given["transient"],
        qr_every=given["qr_every"],
        record_every=given["record_every"],
        threads=given["threads"],
        progress=progress,
        seed=given["seed"],
    )
    return _Scan(
        spectrum=result,
        lr=training.lr,
        accuracy=training.accuracy(result.state, result.status),
        dimension=kaplan_yorke_dimension(result.exponents, n=system.n),
        regime=spectrum_regime(result),
        settings=training.settings,
        title=training.title,
    )


_COLORS = {"diverged": "red", "chaotic": "magenta", "marginal": "yellow", "stable": "green"}


_SHOWN = 3  # exponents in the table


def _table(scan: _Scan) -> Content:
    result = scan.spectrum
    n_runs, k = result.exponents.shape[1:]
    n_shown = min(_SHOWN, k)
    finished = (result.status != Status.DIVERGED).sum(axis=1)
    drifts = result.trend[..., :n_shown].sum(axis=1) > finished[:, np.newaxis] / 2
    several = "sum" if k == scan.settings["n"] else f"sum of {k}"
    columns: list[Column | str] = [
        "lr", "final loss", Column("range", 7 if n_runs > 1 else 8), Column("accuracy", 4),
        *(Column(f"λ{j + 1}", j) for j in range(n_shown)),
        Column(several, 5), Column("D_KY", 6), Column("diverged", 3), "regime",
    ]  # fmt: skip
    rows = []
    for i, lr in enumerate(scan.lr):
        done = result.status[i] != Status.DIVERGED
        loss, exponents = result.loss[i, done, -1], result.exponents[i, done]
        names, counts = np.unique(scan.regime[i], return_counts=True)
        regime, count = names[counts.argmax()], counts.max()
        rows.append([
            f"{lr:g}",
            number(_mean(loss, np.median)),
            f"{loss.min():.3g}–{loss.max():.3g}" if len(loss) > 1 else "",
            number(100 * _mean(scan.accuracy[i, done], np.median), "%"),
            *(
                uncertain(*_exponent(exponents[:, j], result.stderr[i, done, j]))
                + ("*" if drifts[i, j] else "")
                for j in range(n_shown)
            ),
            number(_mean(exponents.sum(axis=1))),
            number(_mean(scan.dimension[i, done])),
            f"{n_runs - len(loss)}/{n_runs}" if (finished < n_runs).any() else "",
            f"[{_COLORS[regime]}]{regime}[/] {count}/{n_runs}",
        ])  # fmt: skip
    return scan.title, columns, rows, *_notes(scan, drifts.any())


def _notes(scan: _Scan, drifts: bool) -> tuple[str, list[str]]:
    result = scan.spectrum
    error = (
        "mean over runs (spread over runs, or the error of one run if larger)"
        if result.exponents.shape[1] > 1
        else "average over the steps (standard error)"
    )
    more = []
    if drifts:
        more.append("*: most runs drift; the error is not that of an asymptotic exponent.")
    start = result.alignment_error[..., 0]
    if not result.settings["n_transient"] and (start > np.nan_to_num(result.stderr[..., 0])).any():
        shift = f"{start.max():.1g}"
        more.append(f"Without --transient the random initial frame may shift λ1 by up to {shift}.")
    return f"λ in nats per step: {error}, ordered as the frame is, not by size.", more


def _exponent(values: Floats, errors: Floats) -> tuple[float, float]:
    """One exponent over the runs: mean, and the larger of the spread and the error of one run."""
    if not len(values) or not np.isfinite(values).all():
        return _mean(values), np.nan
    error = median(errors)
    spread = float(values.std(ddof=1)) if len(values) > 1 else np.nan
    return _mean(values), float(np.fmax(error, spread))


def _mean(values: Floats, mean: Callable[[Floats], Any] = np.mean) -> float:
    return float(mean(values)) if len(values) else np.nan


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


def _write_csv(file: BinaryIO, scan: _Scan) -> None:
    """One row per run, one column per exponent."""
    rows = []
    for row in _rows(scan):
        exponents, errors = row.pop("exponents"), row.pop("stderr")
        row |= {f"exponent_{i + 1}": value for i, value in enumerate(exponents)}
        rows.append(row | {f"stderr_{i + 1}": value for i, value in enumerate(errors)})
    write_rows(file, rows)


def _write_npz(file: BinaryIO, scan: _Scan) -> None:
    """Arrays of numbers and strings; `settings` is JSON."""
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
    more = {
        "lr": scan.lr,
        "accuracy": scan.accuracy,
        "kaplan_yorke_dimension": scan.dimension,
        "regime": scan.regime,
        "settings": json.dumps(scan.settings),
    }
    write_npz(file, more | {name: getattr(result, name) for name in fields})


def _write_netcdf(file: BinaryIO, scan: _Scan) -> None:
    """The dataset of the spectrum with dimensions `lr` and `run` and the derived quantities."""
    data = label_batch(scan.spectrum.to_dataset(), scan.lr).assign(
        accuracy=(("lr", "run"), scan.accuracy),
        kaplan_yorke_dimension=(("lr", "run"), scan.dimension),
        regime=(("lr", "run"), scan.regime.astype(object)),
    )
    data.attrs["scan"] = json.dumps(scan.settings)
    write_netcdf(file, data)


def _draw(scan: _Scan) -> Figure:
    from pylyap.plotting import plot_spectrum

    return plot_spectrum(scan.spectrum, labels=rate_labels(scan.lr), title=scan.title)


_WRITERS = {
    ".npz": _write_npz,
    ".csv": _write_csv,
    ".json": summary_writer("runs", _rows, lambda scan: scan.settings),
    ".nc": _write_netcdf,
} | plot_writers(_draw)
