"""List of experiments and figures, and tables of measured and published values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from pylyap.papers import study
from pylyap.papers.jesus2021 import experiments, figures
from pylyap.papers.jesus2021.results import Letter, Plateau, Precision, Rates, Widths
from pylyap.papers.jesus2021.task import CEILING, CLIPPED, LEVELS, Task
from pylyap.papers.study import Drawing, Experiment, Row, span

QUICK: dict[str, Any] = {"widths": (16, 32), "runs": 2, "epochs": 6, "record_every": 1}
_QUICK_IMAGES = 600


class Study(study.Study):
    """All experiments of the study; each runs once, when it is needed.

    Parameters
    ----------
    task : Task
        Images and training settings.
    quick : bool, default False
        Use few images and small sizes.
    """

    def __init__(self, task: Task, *, quick: bool = False) -> None:
        if quick:
            task = replace(
                task,
                images=task.images[:_QUICK_IMAGES],
                labels=task.labels[:_QUICK_IMAGES],
                **QUICK,
            )
        super().__init__(EXPERIMENTS, FIGURES, task, quick=quick)


def _widths(widths: Widths) -> Iterator[Row]:
    found = widths.found
    train, test = (found.over_runs(f"min_{part}_loss") for part in ("train", "test"))
    epoch, _ = found.over_runs("min_test_epoch")
    for i, width in enumerate(widths.task.widths):
        yield Row(
            f"width {width}: minimum training and test loss",
            f"{train[0][i]:.2g} ± {train[1][i]:.1g}, {test[0][i]:.3f} ± {test[1][i]:.1g} at epoch "
            f"{epoch[i]:.0f}; {found.regime[i]}",
        )
    for level in LEVELS:
        mean = widths.deviation_at(level).mean(axis=1)
        yield Row(
            f"rms deviation at loss {level:g}, by width", _numbers(mean, ".4f"), "falls with width"
        )
        yield Row("relative to the rms initial weight", _numbers(mean / widths.start, ".2f"))
    lost = found.divergence_epoch >= 0
    yield Row(
        "diverged runs",
        f"{lost.sum()} of {lost.size}, up to epoch {found.epochs[-1]}",
        "widths 100–275, epochs 330–1000, plateau near 16",
    )


def _numbers(values: Any, form: str) -> str:
    return ", ".join("–" if np.isnan(value) else format(value, form) for value in values)


def _precision(both: Precision) -> Iterator[Row]:
    yield Row("width", str(both.width))
    pair = both.single, both.double
    for what, values in (
        ("final training loss", [history.train_loss[..., -1] for history in pair]),
        ("final rms deviation", [history.deviation[..., 0, -1] for history in pair]),
    ):
        yield Row(f"{what}, single and double", ", ".join(span(runs, ".4g") for runs in values))


def _letters(letters: list[Letter]) -> Iterator[Row]:
    for letter in letters:
        last, epoch = letter.legibility[-1], letter.epochs[-1]
        yield Row(
            f"legibility, width {letter.width}, lr {letter.lr:g}",
            f"{last:.3f} after {epoch} epochs, loss {letter.loss[-1]:.2g}",
            "visible at 512 after 1000 epochs; not visible at 256 after divergence",
        )


def _rates(rates: Rates) -> Iterator[Row]:
    yield Row("mean squared norm of an image", f"{rates.square:.0f}")
    for loss, history in rates.histories.items():
        for lr, runs in zip(rates.lrs, history.train_loss[..., -1], strict=True):
            text = ", ".join(f"{last:.2g}" for last in runs)
            yield Row(f"final losses at lr {lr:g}, {figures.NAMES[loss]}", text)
    level = span(rates.histories[CLIPPED].train_loss[..., -1][rates.frozen], ".2f")
    yield Row("runs on a plateau", f"{rates.frozen.sum()}, at {level}", "near 16")


def _plateau(plateau: Plateau | None) -> Iterator[Row]:
    if plateau is None:
        yield Row("run on a plateau", "none")
        return
    yield Row("run", f"{plateau.run + 1} at lr {plateau.lr:g}, diverged in epoch {plateau.epoch}")
    yield Row("images with p < 1e-7 at the end of this epoch", f"{plateau.lost[-1]:.2%}")
    yield Row("images with p > 1 − 1e-7", f"{plateau.sure[-1]:.2%}")
    yield Row("fraction with p < 1e-7, × 16.118", f"{plateau.lost[-1] * CEILING:.3f}")
    yield Row("clipped loss", f"{plateau.loss[-1]:.3f}", "near 16")
    yield Row("unclipped loss (logits)", f"{plateau.logits_loss[-1]:.4g}")
    yield Row("gradient norm of the clipped loss", f"{plateau.gradient[-1]:.2g}")
    yield Row("largest later change of a weight", f"{plateau.moved:.2g}")
    for loss, values in plateau.later.items():
        text = f"{values[0]:.2f} → {values[-1]:.2f}"
        yield Row(f"{len(values) - 1} more epochs with the {figures.NAMES[loss]}", text)


EXPERIMENTS = {
    "logits": Experiment(experiments.logits, _widths, {}),
    "clipped": Experiment(experiments.clipped, _widths, {}),
    "precision": Experiment(experiments.precision, _precision, {}, needs=("clipped",)),
    "letters": Experiment(experiments.letters, _letters, {"cases": ((16, None), (32, None))}),
    "rates": Experiment(
        experiments.rates, _rates, {"width": 64, "lrs": (0.1, 6.0), "runs": 2, "epochs": 3}
    ),
    "inverted rates": Experiment(
        experiments.inverted_rates,
        _rates,
        {"width": 64, "lrs": (0.1, 6.0), "runs": 2, "epochs": 3},
    ),
    "plateau": Experiment(experiments.plateau, _plateau, {"later": 2}, needs=("rates",)),
}

FIGURES = {
    "phases": Drawing(figures.phases, ("logits",)),
    "phases-clipped": Drawing(figures.phases, ("clipped",)),
    "losses": Drawing(figures.losses, ("logits", "clipped")),
    "joint-narrow": Drawing(figures.joint_narrow, ("clipped",)),
    "joint-wide": Drawing(figures.joint_wide, ("clipped",)),
    "moments-narrow": Drawing(figures.moments_narrow, ("clipped",)),
    "moments-wide": Drawing(figures.moments_wide, ("clipped",)),
    "deviation": Drawing(figures.deviation, ("clipped",)),
    "precision": Drawing(figures.precision, ("precision",)),
    "letters": Drawing(figures.letters, ("letters",)),
    "rates": Drawing(figures.rates, ("rates",)),
    "rates-inverted": Drawing(figures.rates, ("inverted rates",)),
    "plateau": Drawing(figures.plateau, ("plateau",)),
}
