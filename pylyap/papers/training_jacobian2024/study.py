"""List of experiments and figures, and tables of measured and published values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from pylyap.papers import study
from pylyap.papers.study import Drawing, Experiment, Row
from pylyap.papers.training_jacobian2024 import experiments, figures
from pylyap.papers.training_jacobian2024.results import (
    REGIONS,
    WIDTH,
    Overlaps,
    Reference,
    Restricted,
)
from pylyap.papers.training_jacobian2024.task import Task

QUICK: dict[str, Any] = {"hidden": 4, "n_train": 320, "epochs": 8}


class Study(study.Study):
    """All experiments of the study; each runs once, when it is needed.

    Parameters
    ----------
    task : Task
        Data and settings.
    quick : bool, default False
        Use a small network, few images and few epochs.
    """

    def __init__(self, task: Task | None = None, *, quick: bool = False) -> None:
        task = Task() if task is None else task
        if quick:
            task = replace(task, **QUICK)
        super().__init__(EXPERIMENTS, FIGURES, task, quick=quick)


_PUBLISHED = {
    "chaotic": "values orders of magnitude above 1",
    "bulk": "large, values extremely close to 1",
    "stable": "values below 1",
}


def _spectrum(found: Reference) -> Iterator[Row]:
    jacobian = found.jacobian
    n, sizes = len(jacobian.logs), np.abs(jacobian.logs)
    for region in REGIONS:
        count = int(jacobian.chosen(region).sum())
        yield Row(f"{region}: singular values", f"{count} of {n}", _PUBLISHED[region])
    near = ", ".join(f"{int((sizes <= w).sum())}" for w in (1e-3, WIDTH, 0.1))
    yield Row(f"with |ln σ| ≤ 0.001, {WIDTH:g}, 0.1", near)
    accurate = np.flatnonzero(jacobian.error < 0.01)  # the others are rounding errors
    largest, least = np.exp(jacobian.logs[accurate[[0, -1]]])
    yield Row("largest singular value, smallest above rounding", f"{largest:.3g}, {least:.2g}")
    yield Row("below rounding, 1e-13 of the largest", str(n - len(accurate)))
    chosen = jacobian.chosen("bulk")
    cosines = jacobian.cosines[chosen]
    text = f"{np.median(cosines):.4f}" if chosen.any() else "–"
    yield Row("median cosine of left and right vectors, bulk", text, "nearly identical")
    outside = np.median(np.abs(jacobian.cosines[~chosen])) if (~chosen).any() else 1.0
    yield Row("the same of the others, absolute", f"{outside:.3f}")
    yield Row("singular values that are 1 up to rounding", str(int((sizes < 1e-13).sum())))
    parts = (jacobian.right.T @ (jacobian.final - jacobian.start)) ** 2 / (
        (jacobian.final - jacobian.start) ** 2
    ).sum()
    shares = ", ".join(f"{parts[jacobian.chosen(region)].sum():.1%}" for region in REGIONS)
    yield Row("of |w_T − w_0|² along chaotic, bulk, stable vectors", shares)
    yield Row("test loss, accuracy", f"{found.test_loss:.3f}, {found.accuracy:.1%}")


def _overlaps(found: Overlaps) -> Iterator[Row]:
    for region, overlap in found.overlaps.items():
        published = _SUBSTANTIAL.get((found.name, region), "–")
        yield Row(
            f"{region}: overlap (random)",
            f"{overlap.overlap:.3f} ({overlap.expected:.3f} ± {overlap.spread:.4f})",
            published,
        )
    counts = ", ".join(str(int(found.jacobian.chosen(region).sum())) for region in REGIONS)
    yield Row("chaotic, bulk and stable of this run", counts)


_SUBSTANTIAL = {
    ("other initial weights", "bulk"): "substantial overlap",
    ("permuted labels", "bulk"): "largely independent of the labels",
}


def _restricted(found: Restricted) -> Iterator[Row]:
    yield Row("test loss before, after training", f"{found.before:.3f}, {found.unrestricted:.3f}")
    for kind, losses in found.losses.items():
        pairs = ", ".join(
            f"{loss:.3g} ({k})" for k, loss in zip(found.dimensions, losses, strict=True)
        )
        yield Row(f"{figures.NAMES[kind]}: loss (dimension)", pairs)


EXPERIMENTS = {
    "spectrum": Experiment(experiments.spectrum, _spectrum, {}),
    "seeds": Experiment(experiments.seeds, _overlaps, {}, needs=("spectrum",)),
    "orders": Experiment(experiments.orders, _overlaps, {}, needs=("spectrum",)),
    "labels": Experiment(experiments.labels, _overlaps, {}, needs=("spectrum",)),
    "restricted": Experiment(
        experiments.restricted, _restricted, {"fractions": (0.06, 0.3, 0.8)}, needs=("spectrum",)
    ),
}

FIGURES = {
    "spectrum": Drawing(figures.spectrum, ("spectrum",)),
    "overlaps": Drawing(figures.overlaps, ("seeds", "orders", "labels")),
    "restricted": Drawing(figures.restricted, ("restricted",)),
}
