"""Where plots are drawn: a new figure, or axes or a figure of the caller."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from inspect import Parameter, cleandoc, signature
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from pylyap import _checks, _results
from pylyap._errors import ArgumentError, ArgumentTypeError
from pylyap._extras import require
from pylyap.plotting.style import STYLE, canvas, entitle

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

F = TypeVar("F", bound=Callable[..., Any])

# Types of arguments by their names, the same in all plots; results are checked by annotation.
_NUMBERS = ("distances", "log_gali", "loss", "matrix", "ratios", "steps", "values", "x")
_NAMES = ("highlight", "labels", "scopes", "titles")
_TEXTS = ("name", "time", "title")
_MOST_AXES = 10_000
_COUNTS = ("leading", "n_examples", "n_windows")

_TARGET_DOC = """\
ax : matplotlib.axes.Axes, optional
    Axes to draw into. Of a plot with several panels the main one is drawn. The size and the
    layout of the figure and its other axes are not changed.
axes : sequence of matplotlib.axes.Axes, optional
    Axes of all panels, from left to right and from top to bottom.
figure : matplotlib.figure.Figure or matplotlib.figure.SubFigure, optional
    An empty figure to draw into. By default a new one, outside pyplot."""


class Target(TypedDict, total=False):
    """Where to draw; at most one is given."""

    ax: Axes | None
    axes: Sequence[Axes] | NDArray[Any] | None
    figure: Figure | SubFigure | None


def plots(*kinds: str) -> Callable[[F], F]:
    """Make a function that draws results public.

    The types of its arguments are checked, its `target` is replaced by the arguments `ax`, `axes`
    and `figure`, and it becomes the picture of these classes of results.
    """

    def decorate(draw: F) -> F:
        declared = signature(draw)
        parameters = {n: p for n, p in declared.parameters.items() if n != "target"}
        optional = {name for name, p in parameters.items() if p.default is None}
        results = {
            name: str(p.annotation).removesuffix(" | None")
            for name, p in parameters.items()
            if str(p.annotation).removesuffix(" | None") not in ("ArrayLike", "Floats")
        }

        @wraps(draw)
        def call(*args: Any, **kwargs: Any) -> Any:
            require("matplotlib", extra="plot", for_=draw.__name__)
            given = declared.bind(*args, **kwargs)
            target = given.arguments.get("target", {})
            for name in target:
                if name not in Target.__annotations__:
                    raise TypeError(
                        f"{draw.__name__}() got an unexpected keyword argument {name!r}"
                    )
            for name, value in given.arguments.items():
                if name != "target" and (value is not None or name not in optional):
                    given.arguments[name] = _checked(name, value, results.get(name, ""))
            return draw(*given.args, **given.kwargs)

        more = [
            Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=kind)
            for name, kind in Target.__annotations__.items()
        ]
        call.__signature__ = declared.replace(  # type: ignore[attr-defined]
            parameters=[*parameters.values(), *more]
        )
        head, returns, tail = cleandoc(draw.__doc__ or "").partition("\n\nReturns\n")
        call.__doc__ = f"{head}\n{_TARGET_DOC}{returns}{tail}"
        for kind in kinds:
            _results.drawn_by(call, kind)
        return cast(F, call)

    return decorate


def _checked(name: str, value: Any, kind: str) -> Any:
    if kind in _results._CLASSES:
        if not isinstance(value, SimpleNamespace):  # arrays of the same names, read from a study
            _checks.instance(name, value, _results._CLASSES[kind])
    elif name in _NUMBERS:
        return _checks.floats(name, value, finite=False)
    elif name == "along":  # numbers or strings
        return _checks.array(name, value)
    elif name in _NAMES:
        texts = _checks.sequence(name, value, "a list of strings", most=10_000)
        if not all(isinstance(text, str) for text in texts):
            raise ArgumentTypeError(
                name, f"must be a list of strings, got {_checks.describe(value)}"
            )
        return list(texts)
    elif name in _TEXTS and not isinstance(value, str):
        raise ArgumentTypeError(name, f"must be a string, got {_checks.describe(value)}")
    elif name in _COUNTS:
        return _checks.integer(name, value, least=1)
    elif name == "weight":
        return _checks.flag(name, value)
    return value


class Sheet:
    """Panels of a plot, in a figure that is its own, or in axes or a figure of the caller.

    Parameters
    ----------
    figure : Figure or SubFigure
        Where panels are made.
    given : list of Axes, optional
        Axes of the caller, which are the panels instead.
    single : bool
        Whether `given` is the main panel only.
    """

    def __init__(self, figure: Any, given: list[Axes] | None = None, single: bool = False) -> None:
        self._figure, self._given, self._single = figure, given, single
        self._main: Any = None

    @property
    def figure(self) -> Figure:
        """The figure that contains the panels."""
        figure = self._figure
        while figure.figure is not figure and figure.figure is not None:  # of a SubFigure
            figure = figure.figure
        whole: Figure = figure
        return whole

    @property
    def own(self) -> bool:
        """Whether the panels were made for this plot."""
        return self._given is None

    def single(self) -> Axes:
        """The panel of a plot that has one."""
        ax: Axes = self.subplots(1, 1)[0, 0]
        return ax

    def subplots(self, rows: int, columns: int, main: int = 0, **options: Any) -> NDArray[Any]:
        """Panels (rows, columns); `main` is the number of the one that `ax` stands for."""
        if self.own:
            panels = self._figure.subplots(rows, columns, squeeze=False, **options)
        else:
            panels = np.empty((rows, columns), object)
            panels.ravel()[:] = self._theirs(rows * columns, main)
        self._main = panels.ravel()[main]
        found: NDArray[Any] = panels
        return found

    def wrapped(self, n: int, across: int, **options: Any) -> NDArray[Any]:
        """Panels (n,) in rows of `across`."""
        if not self.own:
            row: NDArray[Any] = self.subplots(1, n)[0]
            return row
        panels: NDArray[Any] = self.subplots(-(-n // across), min(n, across), **options).ravel()
        for ax in panels[n:]:
            ax.set_axis_off()
        return panels[:n]

    def mosaic(self, layout: list[list[str]], main: str, **options: Any) -> dict[str, Any]:
        """Panels by name."""
        names = list(dict.fromkeys(name for row in layout for name in row))
        if self.own:
            panels: dict[str, Any] = self._figure.subplot_mosaic(layout, **options)
        else:
            panels = dict(zip(names, self._theirs(len(names), names.index(main)), strict=True))
        self._main = panels[main]
        return panels

    def _theirs(self, n: int, main: int) -> list[Any]:
        assert self._given is not None
        if not self._single:
            if len(self._given) != n:
                raise ArgumentError(
                    "axes", f"must be the {n} axes of the panels, got {len(self._given)}"
                )
            return self._given
        from matplotlib.figure import Figure

        panels = list(Figure().subplots(n, squeeze=False).ravel())  # that nobody sees
        panels[main] = self._given[0]
        return panels

    def share(self, ax: Axes, other: Axes, labels: bool = False) -> None:
        """Give two panels, one above the other, the same x axis."""
        if self.own:
            ax.sharex(other)
            other.tick_params(labelbottom=labels)

    def align(self, axes: Any) -> None:
        """Align the labels of the y axes of the sheet's own panels."""
        if self.own:
            self._figure.align_ylabels(axes)

    def layout(self, engine: str) -> None:
        """Choose the layout of a figure that was made for this plot."""
        if self.own and getattr(self._figure, "_pylyap", False):
            self._figure.set_layout_engine(engine)

    def entitle(
        self, lines: Sequence[Any], labels: Sequence[str] | None, title: str | None
    ) -> None:
        """Add the title and a legend: above the panels, or in the main one of the caller."""
        engine = self._figure.get_layout_engine() if self.own else None
        if engine is not None:
            entitle(self._figure, lines, labels, title)
        elif labels is not None:
            legend = self._main.get_legend()
            self._main.legend(lines, labels, title=title)
            if legend is not None:
                self._main.add_artist(legend)
        elif title is not None:
            self._main.set_title(title)


@contextmanager
def sheet(size: tuple[float, float], target: Mapping[str, Any]) -> Iterator[Sheet]:
    """The panels of a plot: of a new figure of this size, or of the `target`."""
    given = {name: value for name, value in target.items() if value is not None}
    if len(given) > 1:
        raise ArgumentError(
            next(iter(given)), f"must be the only one of ax, axes and figure, got {sorted(given)}"
        )
    if not given:
        with canvas(size) as figure:
            figure._pylyap = True  # type: ignore[attr-defined]
            yield Sheet(figure)
    elif "figure" in given:
        from matplotlib import rc_context

        with rc_context(STYLE):
            yield Sheet(_empty_figure(given["figure"]))
    else:
        single = "ax" in given
        axes = [_axes("ax", given["ax"])] if single else _several(given["axes"])
        yield Sheet(axes[0].figure, axes, single)


def _axes(name: str, value: Any) -> Any:
    from matplotlib.axes import Axes

    if not isinstance(value, Axes):
        raise ArgumentTypeError(
            name, f"must be matplotlib.axes.Axes, got {_checks.describe(value)}"
        )
    return value


def _several(value: Any) -> list[Any]:
    given: Any = list(value.values()) if isinstance(value, Mapping) else value
    if isinstance(given, np.ndarray):
        if given.dtype != object or given.size > _MOST_AXES:
            raise ArgumentTypeError(
                "axes", f"must be a sequence of Axes, got {_checks.describe(value)}"
            )
        given = given.ravel().tolist()
    items = _checks.sequence("axes", given, "a sequence of Axes", most=_MOST_AXES)
    if not items:
        raise ArgumentError("axes", "must be the axes of the panels, got none")
    return [_axes(f"axes[{i}]", ax) for i, ax in enumerate(items)]


def _empty_figure(value: Any) -> Any:
    from matplotlib.figure import FigureBase

    if not isinstance(value, FigureBase):
        raise ArgumentTypeError(
            "figure", f"must be a matplotlib Figure or SubFigure, got {_checks.describe(value)}"
        )
    figure: Any = value
    if figure.axes:
        raise ArgumentError(
            "figure", f"must be empty, got {len(figure.axes)} axes: give them as axes="
        )
    return figure
