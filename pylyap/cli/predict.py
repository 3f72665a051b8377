"""`pylyap predict`: prediction of the outcome of training from its first steps."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click
import numpy as np

from pylyap._status import Status
from pylyap.cli.data import load_samples
from pylyap.cli.options import (
    COUNT,
    FROM_ZERO,
    Training,
    output_option,
    plot_option,
    plot_writers,
    set_up,
    training_options,
    write_files,
    write_json,
    write_rows,
)
from pylyap.cli.tables import Column, Content, print_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure

    from pylyap._tangent.covariant import CovariantVectors
    from pylyap.prediction import PredictionCurve, RestartPolicy


@click.command(context_settings={"show_default": True})
@training_options(data="quadratic", hidden="3", activation="relu,tanh", lr="0.1", runs=400)
@click.option("--steps", type=COUNT, default=5000, help="Steps of training.")
@click.option("--window", type=COUNT, default=50, help="Steps per finite-time exponent.")
@click.option(
    "--until", type=COUNT, default=1000, help="Last step at which an indicator is evaluated."
)
@click.option("-k", "--vectors", type=COUNT, show_default="all", help="Number of exponents.")
@click.option(
    "--angles",
    type=FROM_ZERO,
    default=3,
    help="Number of covariant vectors for angles; 0 for none.",
)
@click.option(
    "--delay", type=COUNT, default=100, help="Steps after which covariant vectors are known."
)
@click.option(
    "--threshold",
    type=float,
    show_default="two clusters of the logarithms",
    help="Final loss above which training has failed.",
)
@output_option(
    "Write the curves with confidence intervals: .csv or .json.",
    "csv",
    "json",
)
@plot_option("--plot", "Plot the skill along training")
def predict(
    output: Path | None, plot: Path | None, quiet: bool, activation: str, **options: Any
) -> None:
    """Predict from early indicators which runs end with a high loss.

    Trains many networks, divides them by their final loss, and prints how well finite-time Lyapunov
    exponents, angles between covariant vectors, and the early loss (the baseline) separate the two
    groups at steps along training: the area under the ROC curve with its 95 % confidence interval.
    0.5 is chance; 0 is as good as 1. Covariant vectors count from the step at which they are known.

    The default is a published setting at a tenth of its size: 400 networks 2-3-1 for each of two
    activations on y = x1² + x2²; data, width, learning rate and steps are assumed.

    \b
    Examples:
      pylyap predict --plot skill.png
      pylyap predict --activation tanh --runs 4000 --output skill.csv
    """
    if len(options["lr"]) != 1:
        raise click.UsageError(f"--lr must be a single value here, got {len(options['lr'])}")
    if options["until"] % options["window"] or options["steps"] % options["window"]:
        raise click.UsageError(
            f"--window must divide --until and --steps, got {options['window']}, "
            f"{options['until']} and {options['steps']}"
        )
    if options["until"] > options["steps"]:
        raise click.UsageError(
            f"--until must be at most --steps {options['steps']}, got {options['until']}"
        )
    if options["angles"] == 1:
        raise click.UsageError("--angles must be 0 or at least 2 vectors, got 1")
    samples = load_samples(options)
    trainings = [set_up(options | {"activation": name}, samples) for name in activation.split(",")]
    found: list[_Case] = []
    for training in trainings:
        found.append(_predict(training, not quiet and sys.stderr.isatty()))
        if len(found) > 1:
            print()
        print_rows(*_table(found[-1]))
    write_files(((output, _WRITERS), (plot, _WRITERS)), found, quiet)


@dataclass(frozen=True)
class _Case:
    training: Training
    curve: PredictionCurve
    vectors: CovariantVectors | None
    policies: dict[str, RestartPolicy | None]  # None: too few runs in a group, or no indicator


def _predict(training: Training, progress: bool) -> _Case:
    from pylyap._tangent.covariant import covariant_lyapunov_vectors
    from pylyap._tangent.exponents import lyapunov_spectrum
    from pylyap.prediction import prediction_curve

    given = training.given
    common: dict[str, Any] = {
        "threads": given["threads"], "progress": progress, "seed": given["seed"],
    }  # fmt: skip
    window, until, delay = given["window"], given["until"], given["delay"]
    early = lyapunov_spectrum(
        training.system, training.start, until, given["vectors"], record_every=window, **common
    )
    final = early.loss[..., -1]
    if given["steps"] > until:
        final = np.full(final.shape, np.nan)
        alive = early.status != Status.DIVERGED
        path = training.system.trajectory(
            np.where(alive[..., np.newaxis], early.state, 0.0),
            given["steps"] - until,
            every=given["steps"] - until,
            start=until,
            threads=given["threads"],
        )
        ends = training.system.loss(path[..., -1, :])
        final[alive] = ends[alive]
    vectors = None
    if given["angles"]:
        vectors = covariant_lyapunov_vectors(
            training.system, training.start, until, given["angles"], 0, 2 * delay, window,
            vectors=False, delay=delay, **common,
        )  # fmt: skip
    curve = prediction_curve(early, final, vectors, given["threshold"])
    tangent = [name for name in curve.names if name != "loss"]
    policies = {
        what: _policy(curve, final, given["steps"], names)
        for what, names in {"the loss": ["loss"], "exponents and angles": tangent}.items()
    }
    return _Case(training, curve, vectors, policies)


def _policy(curve: PredictionCurve, final: Any, n_steps: int, names: Any) -> RestartPolicy | None:
    """A restart policy by the indicators of these names at all steps.

    None if a group has too few runs or no indicator is finite.
    """
    from pylyap.prediction import restart_policy

    if min(curve.n_low, curve.n_high) < 5:
        return None
    chosen = [m for m, name in enumerate(curve.names) if name in names]
    values, known = curve.values[chosen], curve.known[chosen]
    there = np.isfinite(values).any(axis=-1) & (known <= n_steps)
    if not there.any():
        return None
    return restart_policy(
        values[there], np.ravel(final), known[there].astype(int), n_steps, curve.threshold
    )


def _shown(case: _Case) -> list[int]:
    """Indicators of the table: the loss, the first and last exponent, their sum, angles."""
    names, n_exponents = case.curve.names, case.curve.n_exponents
    others = [names.index(n) for n in ("sum of FTLEs", "smallest angle") if n in names]
    return list(dict.fromkeys([names.index("loss"), 0, n_exponents - 1, *others]))


def _table(case: _Case) -> Content:
    curve, given = case.curve, case.training.given
    shown = _shown(case)
    ranks = dict(zip(shown, (0, 1, 4, 3, 2), strict=False))
    names = [Column(curve.names[m], ranks[m]) for m in shown]
    columns = [Column("step"), *names, Column("best exponent", 0 if given["vectors"] == 1 else 1)]
    title = f"{case.training.title}, learning rate {case.training.lr[0]:g}"
    window = given["window"]
    rows = []
    for r in _doubling(given["until"] // window):
        step = window * (r + 1)
        cells = [str(step)]
        for m in shown:
            known = np.flatnonzero((curve.known[m] <= step) & np.isfinite(curve.auc[m]))
            cells.append(_cell(curve, m, known[-1]) if known.size else "–")
        skill = np.abs(curve.auc[: curve.n_exponents, r] - 0.5)
        best = "–"
        if np.isfinite(skill).any():
            m = int(np.nanargmax(skill))
            best = f"{m + 1}: {_cell(curve, m, r)}"
        rows.append([*cells, best])
    return title, [*columns], rows, *_notes(case)


def _doubling(count: int) -> list[int]:
    """Indices 0, 1, 3, 7, ... and the last."""
    indices = {min(2**i, count) - 1 for i in range(count.bit_length() + 1)}
    return sorted(indices)


def _cell(curve: PredictionCurve, m: int, r: int) -> str:
    mark = "*" if curve.against_loss[m, r] < 0.05 else ""
    low, high = curve.low[m, r], curve.high[m, r]
    return f"{curve.auc[m, r]:.2f}{mark} [{low:.2f}–{high:.2f}]".replace("[", r"\[")


def _notes(case: _Case) -> tuple[str, list[str]]:
    curve = case.curve
    note = (
        f"Area under the ROC curve [95 % interval]: {curve.n_high} runs end above a loss of "
        f"{curve.threshold:.3g} ({curve.threshold_from}), {curve.n_low} below. 0.5 is chance, 0 is "
        f"as good as 1. *: differs from the loss at the same step (p < 0.05). {curve.note}."
    )
    lines: list[str] = []
    if case.vectors is not None and case.vectors.early_error is not None:
        delay = case.vectors.settings["delay"]
        error = np.nanmedian(case.vectors.early_error, axis=(0, 1, 2))
        sines = ", ".join(f"{e:.1g}" for e in error)
        lines.append(
            f"Covariant vectors are known after {delay} steps; median error (sine): {sines}."
        )
    for what, policy in case.policies.items():
        if policy is None:
            lines.append("Too few runs in a group to evaluate early stopping.")
            break
        saved = 100 * policy.saved
        lines.append(
            f"Early stopping by {what} (cross-validated: step {policy.at}, stops "
            f"{100 * policy.stopped:.0f} % of runs): {policy.steps_per_good:.0f} steps per run "
            f"with low final loss instead of {policy.steps_without:.0f}, "
            + (f"{saved:.0f} % saved." if saved >= 0 else f"{-saved:.0f} % more.")
        )
    return note, lines


def _rows(cases: list[_Case]) -> Iterator[dict[str, Any]]:
    """A row for each activation, indicator and step."""
    for case in cases:
        curve = case.curve
        for m, r in np.ndindex(curve.auc.shape):
            if np.isnan(curve.auc[m, r]):
                continue
            yield {
                "activation": case.training.given["activation"],
                "indicator": curve.names[m],
                "known_at_step": int(curve.known[m, r]),
                "auc": float(curve.auc[m, r]),
                "low": float(curve.low[m, r]),
                "high": float(curve.high[m, r]),
                "p_adjusted": float(curve.adjusted[m, r]),
                "p_against_loss": float(curve.against_loss[m, r]),
            }


def _write_json(file: BinaryIO, cases: list[_Case]) -> None:
    def entry(case: _Case) -> dict[str, Any]:
        curve = case.curve
        facts = ("threshold", "threshold_from", "n_low", "n_high", "note")
        policies = {
            what: None if policy is None else asdict(policy)
            for what, policy in case.policies.items()
        }
        return {name: getattr(curve, name) for name in facts} | {
            "settings": case.training.settings,
            "policies": policies,
            "curves": list(_rows([case])),
        }

    write_json(file, [entry(case) for case in cases])


def _draw(cases: list[_Case]) -> Figure:
    from pylyap.plotting import plot_prediction

    titles = [
        f"{case.training.given['activation']}, learning rate {case.training.lr[0]:g}"
        for case in cases
    ]
    return plot_prediction([case.curve for case in cases], titles=titles)


_WRITERS = {
    ".csv": lambda file, cases: write_rows(file, _rows(cases)),
    ".json": _write_json,
} | plot_writers(_draw)
