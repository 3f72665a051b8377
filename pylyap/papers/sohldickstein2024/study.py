"""List of experiments and figures, and tables of measured and published values."""

from __future__ import annotations

from collections.abc import Iterator

from pylyap.papers import study
from pylyap.papers.sohldickstein2024 import experiments, figures
from pylyap.papers.sohldickstein2024.experiments import Zooms
from pylyap.papers.sohldickstein2024.task import CONDITIONS, OFFSET_DIMENSION, Task
from pylyap.papers.study import Drawing, Experiment, Row
from pylyap.stability_maps import StabilityMap, box_dimension, uncertainty_exponent


class Study(study.Study):
    """All experiments of the study; each runs once, when it is needed.

    Parameters
    ----------
    task : Task, optional
        Settings; none are stored by default.
    quick : bool, default False
        Use small sizes.
    """

    def __init__(self, task: Task | None = None, *, quick: bool = False) -> None:
        super().__init__(EXPERIMENTS, FIGURES, Task() if task is None else task, quick=quick)


def _landscape(found: StabilityMap) -> Iterator[Row]:
    rows, columns = found.converged.shape
    yield Row("pixels, steps", f"{rows} × {columns}, {found.settings['n_steps']}")
    yield Row("runs that converged", f"{found.converged.mean():.1%}")
    yield Row("steps before runs are not finite", f"{found.steps_used.mean():.0f} (mean)")


def _dimension(found: StabilityMap, name: str, published: float, zoom: int) -> Row:
    """The dimension of the border of a map: of the whole range (0) or of a zoom."""
    box, pairs = box_dimension(found), uncertainty_exponent(found)
    text = f"{box.dimension:.2f} ± {box.stderr:.2f}"
    if box.reason:
        text = "too few pixels, or no border"
    if not pairs.reason:
        text += f"; 2 − α: {pairs.dimension:.2f} ± {pairs.stderr:.2f}"
    where = f"zoom {zoom}" if zoom else "whole range"
    return Row(", ".join(filter(None, ["dimension", name, where])), text, f"{published:.2f}")


def _zooms(found: Zooms) -> Iterator[Row]:
    for i, each in enumerate(found.maps):
        yield _dimension(each, "", CONDITIONS["tanh"].dimension, i)


def _conditions(found: dict[str, Zooms]) -> Iterator[Row]:
    for name, each in found.items():
        for i, one in enumerate(each.maps[1:], 1):
            yield _dimension(one, name, CONDITIONS[name].dimension, i)


def _offsets(found: dict[str, Zooms]) -> Iterator[Row]:
    for name, each in found.items():
        for i, one in enumerate(each.maps):
            yield _dimension(one, name, OFFSET_DIMENSION, i)


EXPERIMENTS = {
    "landscape": Experiment(experiments.landscape, _landscape, {"shape": (33, 33), "n_steps": 60}),
    "zooms": Experiment(
        experiments.zooms, _zooms, {"shape": (33, 33), "n_steps": 60}, needs=("landscape",)
    ),
    "conditions": Experiment(
        experiments.conditions, _conditions, {"shape": (17, 17), "n_zooms": 1, "n_steps": 40}
    ),
    "offsets": Experiment(
        experiments.offsets, _offsets, {"shape": (17, 17), "n_zooms": 1, "n_steps": 40}
    ),
}

FIGURES = {
    "landscape": Drawing(figures.landscape, ("landscape",)),
    "zooms": Drawing(figures.zooms, ("zooms",)),
    "conditions": Drawing(figures.conditions, ("conditions",)),
    "offsets": Drawing(figures.offsets, ("offsets",)),
}
