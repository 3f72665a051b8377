"""What published studies share: experiments that are made when first asked for, figures, rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Row(NamedTuple):
    """A quantity as measured here, and as seen in the study; "–" where that is not known."""

    quantity: str
    here: str
    published: str = "–"


class Experiment(NamedTuple):
    run: Callable[..., Any]  # of the results of what it needs, the task, and sizes
    rows: Callable[[Any], Iterator[Row]]
    quick: dict[str, Any]  # small sizes, for a first look and for tests
    needs: tuple[str, ...] = ()  # experiments whose results come first


class Drawing(NamedTuple):
    draw: Callable[..., Figure]  # of the results of what it needs
    needs: tuple[str, ...]


class Study:
    """All experiments, each made when it is first asked for.

    Attributes
    ----------
    seconds
        What each experiment took, without those it needs.
    """

    def __init__(
        self,
        experiments: Mapping[str, Experiment],
        figures: Mapping[str, Drawing],
        task: Any,
        *,
        quick: bool = False,
    ) -> None:
        self.experiments, self.figures = experiments, figures
        self.task, self.quick = task, quick
        self.seconds: dict[str, float] = {}
        self._results: dict[str, Any] = {}

    def result(self, name: str) -> Any:
        """Of the experiment, by its name."""
        if name not in self._results:
            experiment = self.experiments[name]
            first = [self.result(other) for other in experiment.needs]
            begin = perf_counter()
            sizes = experiment.quick if self.quick else {}
            self._results[name] = experiment.run(*first, self.task, **sizes)
            self.seconds[name] = perf_counter() - begin
        return self._results[name]

    def figure(self, name: str) -> Figure:
        """The figure, by its name."""
        drawing = self.figures[name]
        return drawing.draw(*(self.result(name) for name in drawing.needs))

    def rows(self, name: str) -> list[Row]:
        """What the experiment measured, beside what was published."""
        return list(self.experiments[name].rows(self.result(name)))


def span(values: Any, form: str) -> str:
    """Smallest and largest finite value."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return "–"
    low, high = format(finite.min(), form), format(finite.max(), form)
    return low if low == high else f"{low}–{high}"
