"""Common base of published studies: experiments, figures, and tables of measured values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Row(NamedTuple):
    """A row of the table: measured value of a quantity and published value, "–" if unknown."""

    quantity: str
    measured: str
    published: str = "–"


class Experiment(NamedTuple):
    """An experiment of a study.

    Attributes
    ----------
    run : callable
        Function of the results of the experiments in `needs`, the task, and sizes.
    rows : callable
        Function of the result that yields rows of the table.
    quick : dict
        Small sizes, for tests and a first look.
    needs : tuple of str
        Names of the experiments whose results it takes.
    """

    run: Callable[..., Any]
    rows: Callable[[Any], Iterator[Row]]
    quick: dict[str, Any]
    needs: tuple[str, ...] = ()


class Drawing(NamedTuple):
    """A figure of a study.

    Attributes
    ----------
    draw : callable
        Function of the results of the experiments in `needs`.
    needs : tuple of str
        Names of the experiments whose results it takes.
    """

    draw: Callable[..., Figure]
    needs: tuple[str, ...]


class Study:
    """Experiments and figures of a publication; each experiment runs once, when it is needed.

    Parameters
    ----------
    experiments : mapping of Experiment
        Experiments by name.
    figures : mapping of Drawing
        Figures by name.
    task : object
        Data and settings that all experiments share.
    quick : bool, default False
        Use the small sizes of the experiments.

    Attributes
    ----------
    seconds : dict of float
        Time of each experiment, without those it needs.
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
        """Result of an experiment, computed at the first call.

        Parameters
        ----------
        name : str
            Name of the experiment.

        Returns
        -------
        object
            Result of its function.
        """
        if name not in self._results:
            experiment = self.experiments[name]
            first = [self.result(other) for other in experiment.needs]
            begin = perf_counter()
            sizes = experiment.quick if self.quick else {}
            self._results[name] = experiment.run(*first, self.task, **sizes)
            self.seconds[name] = perf_counter() - begin
        return self._results[name]

    def figure(self, name: str) -> Figure:
        """Draw a figure.

        Parameters
        ----------
        name : str
            Name of the figure.

        Returns
        -------
        matplotlib.figure.Figure
            The figure.
        """
        drawing = self.figures[name]
        return drawing.draw(*(self.result(name) for name in drawing.needs))

    def rows(self, name: str) -> list[Row]:
        """Measured and published values of an experiment.

        Parameters
        ----------
        name : str
            Name of the experiment.

        Returns
        -------
        list of Row
            Rows of the table.
        """
        return list(self.experiments[name].rows(self.result(name)))


def span(values: NDArray[Any], form: str) -> str:
    """Format the range of the finite values.

    Parameters
    ----------
    values : ndarray
        Values of any shape.
    form : str
        Format specification, such as ``".2f"``.

    Returns
    -------
    str
        Minimum and maximum; one number if they agree, "–" if no value is finite.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        return "–"
    low, high = format(finite.min(), form), format(finite.max(), form)
    return low if low == high else f"{low}–{high}"
