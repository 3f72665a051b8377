"""`pylyap ensemble`: how slightly perturbed copies of a training part from it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from pylyap.cli.options import (
    COUNT,
    FROM_ZERO,
    Training,
    number,
    number_list,
    print_table,
    set_up,
    target,
    training_options,
    write_files,
    write_json,
    write_rows,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

    from pylyap.ensembles import Ensemble
    from pylyap.exponents import Spectrum
    from pylyap.growth import GrowthRate

# What the published study keeps: lines that explain this much and rise this fast.
_R2, _SLOPE = 0.9, 0.05


@click.command(context_settings={"show_default": True})
@training_options(lr="0.01,1", runs=20)
@click.option(
    "--eps",
    type=number_list(float),
    default="1e-12,1e-8,1e-4",
    metavar="LIST",
    help="Sizes of the perturbation: each entry gets up to so much, evenly in both directions.",
)
@click.option("--perturbations", type=COUNT, default=5, help="Perturbed copies per run and size.")
@click.option("--steps", type=COUNT, default=200, help="Steps after the perturbation, at least 30.")
@click.option("--start", type=FROM_ZERO, default=0, help="Steps of training before it.")
@click.option(
    "--perturb",
    type=click.Choice(["weights", "biases", "all"]),
    default="weights",
    help="Which parameters are perturbed; distances are over all.",
)
@click.option("--norm", type=click.Choice(["l1", "l2", "linf"]), default="l1", help="Of distances.")
@click.option(
    "--output",
    type=target(npz=None, csv=None, json=None),
    metavar="FILE",
    help="Write the numbers: .npz holds mean distances too, .csv and .json a summary.",
)
@click.option(
    "--plot",
    type=target(png="plot", pdf="plot", svg="plot"),
    metavar="FILE",
    help="Draw the distances: .png, .pdf or .svg.",
)
def ensemble(output: Path | None, plot: Path | None, quiet: bool, **options: Any) -> None:
    """How slightly perturbed copies of a training part from it.

    Steps copies of each run beside it and prints, for each learning rate and size of the
    perturbation, the rate at which their mean distance grows, in nats per step: as published, the
    mean over the runs whose best line (of largest R² over many windows) has R² > 0.9 and a slope
    above 0.05; the same of all runs (median); a line through all steps before saturation (median);
    and the leading Lyapunov exponent of the same runs over the same steps (median), which knows no
    size.

    \b
    Examples:
      pylyap ensemble --plot distances.png
      pylyap ensemble --lr 1 --runs 500 --eps 1e-14,1e-12,1e-10,1e-8,1e-6,1e-4,1e-2
      pylyap ensemble --lr 0.01 --start 4000 --steps 1000 --perturbations 20 --runs 10
    """
    from pylyap.ensembles import perturbation_ensemble
    from pylyap.exponents import lyapunov_spectrum
    from pylyap.growth import growth_rate

    if options["steps"] < 30:
        raise click.UsageError(f"--steps must be at least 30, got {options['steps']}")
    training = set_up(options)
    given = training.given
    progress = not quiet and sys.stderr.isatty()
    copies = perturbation_ensemble(
        training.system,
        training.start,
        given["eps"],
        given["perturbations"],
        given["steps"],
        perturb=given["perturb"],
        norm=given["norm"],
        start=given["start"],
        keep="mean",
        threads=given["threads"],
        progress=progress,
        seed=given["seed"],
    )
    tangent = lyapunov_spectrum(
        training.system,
        training.start,
        given["steps"],
        1,
        given["start"],
        record_every=given["steps"],
        threads=given["threads"],
        progress=progress,
        seed=given["seed"],
    )
    result = _Result(
        training,
        copies,
        growth_rate(copies.mean, axis=None),
        growth_rate(copies.mean, "until_saturation", axis=None),
        tangent,
    )
    print_table(lambda _: _table(result))
    write_files((output, plot), _WRITERS, result, quiet)


@dataclass(frozen=True)
class _Result:
    training: Training
    copies: Ensemble  # batch (n_lr, n_runs), then sizes
    best: GrowthRate
    whole: GrowthRate
    tangent: Spectrum


def _summaries(result: _Result) -> Iterator[dict[str, Any]]:
    """A row for each learning rate and size."""

    def median(values: Any) -> float:
        finite = values[np.isfinite(values)]
        return float(np.median(finite)) if finite.size else np.nan

    for i, lr in enumerate(result.training.lr):
        exponents = result.tangent.exponents[i, :, 0]
        for j, eps in enumerate(result.training.given["eps"]):
            slope, r2 = result.best.slope[i, :, j], result.best.r2[i, :, j]
            kept = slope[(r2 > _R2) & (slope > _SLOPE)]
            yield {
                "lr": float(lr),
                "eps": float(eps),
                "growth_kept": float(kept.mean()) if kept.size else np.nan,
                "spread_kept": float(kept.std(ddof=1)) if kept.size > 1 else np.nan,
                "kept": int(kept.size),
                "runs": int(slope.size),
                "growth_all": median(slope),
                "growth_until_saturation": median(result.whole.slope[i, :, j]),
                "saturated": int((result.whole.saturation[i, :, j] >= 0).sum()),
                "exponent": median(exponents),
            }


def _table(result: _Result) -> Table:
    from rich import box
    from rich.table import Table

    given = result.training.given
    columns = ["lr", "eps", "growth", "kept", "of all", "to saturation", "saturated", "exponent"]
    table = Table(*columns, box=box.SIMPLE_HEAD, title=result.training.title)
    table.caption = (
        "Growth of the mean distance in nats per step. growth: mean over the runs kept "
        f"(R² > {_R2:g}, slope > {_SLOPE:g}) ± their standard deviation, best window of each; "
        "of all: median without that choice of runs; to saturation: median of lines through all "
        "steps before it; exponent: leading Lyapunov exponent over the same steps, median."
    )
    table.title_justify = table.caption_justify = "left"
    for row in _summaries(result):
        spread = "" if np.isnan(row["spread_kept"]) else f" ±{row['spread_kept']:.2g}"
        first = row["eps"] == given["eps"][0]
        table.add_row(
            f"{row['lr']:g}" if first else "",
            f"{row['eps']:g}",
            number(row["growth_kept"]) + spread,
            f"{row['kept']}/{row['runs']}",
            number(row["growth_all"]),
            number(row["growth_until_saturation"]),
            f"{row['saturated']}/{row['runs']}",
            number(row["exponent"]) if first else "",
        )
    return table


def _write_json(path: Path, result: _Result) -> None:
    settings = result.training.settings
    write_json(path, {"settings": settings, "rows": list(_summaries(result))})


def _write_npz(path: Path, result: _Result) -> None:
    best = {name: getattr(result.best, name) for name in ("slope", "r2", "start", "stop")}
    np.savez_compressed(
        path,
        lr=result.training.lr,
        eps=np.array(result.training.given["eps"]),
        settings=np.array(json.dumps(result.training.settings)),
        distances=result.copies.mean,
        n_finite=result.copies.n_finite,
        steps=result.copies.steps,
        exponent=result.tangent.exponents[..., 0],
        **best,
    )


def _draw(path: Path, result: _Result) -> None:
    from pylyap.plotting import plot_ensemble

    titles = [f"lr {lr:g}" for lr in result.training.lr]
    figure = plot_ensemble(result.copies, titles=titles, title=result.training.title)
    figure.savefig(path)


_WRITERS = {
    ".npz": _write_npz,
    ".csv": lambda path, result: write_rows(path, _summaries(result)),
    ".json": _write_json,
    ".png": _draw,
    ".pdf": _draw,
    ".svg": _draw,
}
