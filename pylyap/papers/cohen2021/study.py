"""List of experiments and figures, and tables of measured and published values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from pylyap.papers import study
from pylyap.papers.cohen2021 import figures
from pylyap.papers.cohen2021.experiments import Edge, train
from pylyap.papers.cohen2021.task import OPTIMISERS, Optimiser, Task
from pylyap.papers.study import Drawing, Experiment, Row

QUICK: dict[str, Any] = {"n_steps": 200, "every": 20}
_QUICK_TASK: dict[str, Any] = {"samples": 100, "width": 8}


class Study(study.Study):
    """All experiments of the study; each runs once, when it is needed.

    Parameters
    ----------
    task : Task
        Images, network and folder of the stored results.
    quick : bool, default False
        Use few images, a narrow network and few steps.
    """

    def __init__(self, task: Task, *, quick: bool = False) -> None:
        if quick:
            task = replace(task, **_QUICK_TASK)
        super().__init__(EXPERIMENTS, FIGURES, task, quick=quick)


def _rows(found: Edge) -> Iterator[Row]:
    for i, lr in enumerate(found.lrs):
        limit, step = found.threshold[i, 0], found.steps[found.reached[i]]
        low = found.lowest[i]
        name = f"η = {lr:g}: threshold {found.optimiser.threshold} = {limit:.4g}"
        if not found.early[i]:
            text = f"ratio from {low:.2f} to {found.ratio[i, -1]:.2f}"
            yield Row(name, text, "rises (progressive sharpening)")
            continue
        text = f"ratio from {low:.2f} to 1 at step {step}, then median {found.late_ratio[i]:.3f}"
        yield Row(name, text, "rises to 1 and stays")
        text = f"{found.loss[i, 0]:.2f} to {found.loss[i, -1]:.2g}, rises in {found.rises[i]:.0%}"
        yield Row("loss; records of the last half", text, "falls, not monotonically")


def _run(optimiser: Optimiser, task: Task, **sizes: Any) -> Edge:
    return train(task, optimiser, **sizes)


EXPERIMENTS = {
    optimiser.name: Experiment(partial(_run, optimiser), _rows, QUICK)
    for optimiser in OPTIMISERS.values()
}
FIGURES = {
    optimiser.key: Drawing(figures.edge, (optimiser.name,)) for optimiser in OPTIMISERS.values()
} | {"ratios": Drawing(figures.ratios, tuple(EXPERIMENTS))}
