"""Style, colours and elements that all plots share."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, wraps
from inspect import signature
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from pylyap import _checks
from pylyap._errors import ArgumentError, ArgumentTypeError
from pylyap._extras import require
from pylyap._statistics import quartiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats: TypeAlias = NDArray[np.float64]

_NOTEBOOK_DPI = 72

F = TypeVar("F", bound=Callable[..., Any])

# Types of arguments by their names, the same in all plots.
_RESULTS = {
    "correlation": "Autocorrelation",
    "deviation": "WeightDeviation",
    "ensemble": "Ensemble",
    "found": "Trainability",
    "growth": "GrowthComparison",
    "histogram": "JointHistogram",
    "history": "History",
    "rates": "ExpansionRates",
    "scan": "LearningRateScan",
    "sharpness": "Sharpness",
    "skill": "PredictionSkill",
    "spectrum": "Spectrum",
    "travel": "Travel",
    "vectors": "CovariantVectors",
}
_NUMBERS = ("log_gali", "loss", "matrix", "ratios", "steps", "values", "x")
_NAMES = ("highlight", "labels", "scopes", "titles")
_TEXTS = ("name", "time", "title")
_COUNTS = ("leading", "n_examples", "n_windows")


def checked(plot: F) -> F:
    """Check the types of the arguments of a plot by their names before drawing."""
    parameters = signature(plot)
    optional = {name for name, p in parameters.parameters.items() if p.default is None}

    @wraps(plot)
    def call(*args: Any, **kwargs: Any) -> Any:
        require("matplotlib", extra="plot", for_=plot.__name__)
        given = parameters.bind(*args, **kwargs)
        for name, value in given.arguments.items():
            if value is not None or name not in optional:
                given.arguments[name] = _checked(name, value)
        return plot(*given.args, **given.kwargs)

    return cast(F, call)


def _checked(name: str, value: Any) -> Any:
    import pylyap

    if name in _RESULTS:
        if not isinstance(value, SimpleNamespace):  # arrays of the same names, read from a study
            _checks.instance(name, value, getattr(pylyap, _RESULTS[name]))
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


_FORMULA = re.compile(r"(?<!\\)\$.*?\$")

# Applied inside `canvas` only; the rcParams of the user are not changed.
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "figure.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.edgecolor": "0.3",
    "xtick.color": "0.3",
    "ytick.color": "0.3",
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "legend.frameon": False,
    "figure.constrained_layout.wspace": 0.04,
}


@contextmanager
def canvas(size: tuple[float, float] = (9.0, 4.8)) -> Iterator[Figure]:
    """A figure in the package's style, outside pyplot."""
    require("matplotlib", extra="plot", for_="plotting")
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        yield _with_png(Figure)(figsize=size, dpi=150, layout="constrained")


@cache
def _with_png(figure_class: type[Figure]) -> type[Figure]:
    """The class of figures, with a picture for notebooks that have not imported pyplot."""

    def _repr_png_(self: Figure) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=_NOTEBOOK_DPI)
        return buffer.getvalue()

    return type("Figure", (figure_class,), {"_repr_png_": _repr_png_})


def palette(n: int) -> list[Any]:
    """Colours from dark to light, distinct in grey print and with colour blindness."""
    from matplotlib import colormaps

    return list(colormaps["viridis"](np.linspace(0.0, 0.82, n))) if n > 1 else ["#31688e"]


def entitle(
    figure: Figure, lines: Sequence[Any], labels: Sequence[str] | None, title: str | None
) -> None:
    """Add the title and, below it, a legend of these lines above the panels."""
    if labels is not None:
        figure.legend(
            lines,
            labels,
            loc="outside upper left",
            ncols=_columns(labels, figure.get_figwidth()),
            title=title,
            alignment="left",
            title_fontsize=10,
        )
    elif title is not None:
        figure.suptitle(title, x=0.01, horizontalalignment="left")


def _columns(labels: Sequence[str], width: float) -> int:
    """Number of legend columns that fit into a width in inches, 8 at most."""
    inches = sorted((0.55 + 0.07 * len(_FORMULA.sub("x", name)) for name in labels), reverse=True)
    fit = [n for n in range(1, min(len(labels), 8) + 1) if sum(inches[:n]) <= width]
    return max(fit, default=1)


def per_curve(name: str, values: Floats, depth: int) -> Floats:
    """Values with `depth` batch axes, reshaped to (n_curves, n_runs, ...)."""
    if depth > 2:
        raise ArgumentError(name, f"must have at most two batch axes, got {depth}")
    return values.reshape((1,) * (2 - depth) + values.shape)


def require_names(name: str, given: Sequence[str] | None, n: int, what: str = "curves") -> None:
    """Check that an optional list of names has n entries."""
    if given is not None and len(given) != n:
        raise ArgumentError(name, f"must name {n} {what}, got {len(given)}")


def evenly_spaced(n: int, most: int) -> NDArray[np.int64]:
    """At most `most` evenly spaced indices below n, the first and the last included."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64))


def reference_line(ax: Axes, height: float = 0.0) -> None:
    """A thin grey horizontal line."""
    ax.axhline(height, color="0.3", linewidth=0.8, zorder=0)


def band(ax: Axes, times: Any, values: Floats, color: Any) -> Any:
    """Plot the median of values (n_runs, n_times) and a band between the quartiles."""
    low, middle, high = quartiles(values)
    ax.fill_between(times, low, high, color=color, alpha=0.2, linewidth=0)
    (line,) = ax.plot(times, middle, color=color, linewidth=1.2)
    return line


def log_scale(*values: Floats) -> str:
    """ "log" if any value is positive and finite, else "linear"."""
    some = any((np.isfinite(array) & (array > 0)).any() for array in values)
    return "log" if some else "linear"


def whole_numbers(ax: Axes) -> None:
    """Ticks of the x axis at integers only."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
