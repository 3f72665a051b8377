"""Style, colours and elements that all plots share."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pylyap._batches import RUN
from pylyap._errors import ArgumentError
from pylyap._extras import require
from pylyap._files import FILE_DPI
from pylyap._statistics import quartiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Floats: TypeAlias = NDArray[np.float64]

LARGEST = 1e250  # value that is drawn: the margins of a logarithmic axis overflow
_DPI = 72  # on the screen and in notebooks; files have FILE_DPI

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
        yield _own_class(Figure)(figsize=size, dpi=_DPI, layout="constrained")


@cache
def _own_class(figure_class: type[Figure]) -> type[Figure]:
    """The class of figures: with a picture for notebooks that have not imported pyplot, and with a
    finer resolution in files than on the screen."""
    from matplotlib import rcParams

    def _repr_png_(self: Figure) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi="figure")
        return buffer.getvalue()

    def savefig(self: Figure, *args: Any, dpi: Any = None, **kwargs: Any) -> None:
        if dpi is None and rcParams["savefig.dpi"] == "figure":
            dpi = FILE_DPI
        figure_class.savefig(self, *args, dpi=dpi, **kwargs)

    return type("Figure", (figure_class,), {"_repr_png_": _repr_png_, "savefig": savefig})


# Paul Tol's "muted" scheme, of which any two colours differ by 15 or more in CIELAB, also with
# deuteranopia and protanopia.
_MUTED = (
    *("#332288", "#88ccee", "#44aa99", "#117733", "#999933"),
    *("#ddcc77", "#cc6677", "#882255", "#aa4499"),
)


def palette(n: int) -> list[Any]:
    """Colours of n curves, distinct with colour blindness.

    Up to five are from viridis, from dark to light and distinct in grey print; up to nine are Paul
    Tol's "muted" scheme; more are from viridis, where only distant curves are distinct.
    """
    from matplotlib import colormaps

    if n == 1:
        return ["#31688e"]
    if 5 < n <= len(_MUTED):
        return list(_MUTED[:n])
    return list(colormaps["viridis"](np.linspace(0.0, 0.82, n)))


def entitle(
    figure: Figure, lines: Sequence[Any], labels: Sequence[str] | None, title: str | None
) -> None:
    """Add the title and, below it, a legend of these lines above the panels."""
    if labels is not None:
        figure.legend(
            lines,
            labels,
            loc="outside upper left",
            ncols=_columns(labels, figure.bbox.width / figure.dpi),
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


_SETTINGS = {  # names of settings in words
    "lr": "learning rate",
    "weight_decay": "weight decay",
    "offset": "offset of the initial weights",
    "scale": "scale of the initial weights",
}
_OF_LAYER = re.compile(r"(lr|offset)_(\d+)")


def setting_in_words(name: str) -> str:
    """Name of a setting in words, such as "learning rate of layer 0" for lr_0."""
    layer = _OF_LAYER.fullmatch(name)
    if layer:
        return f"{_SETTINGS[layer[1]]} of layer {layer[2]}"
    return _SETTINGS.get(name, name)


_MOST_NAMED = 9  # curves with names of their own in a legend


class Curves:
    """The curves of a result: one for each setting, whose runs are summarised.

    Parameters
    ----------
    name : str
        Argument that is the result.
    result : object
        A result with `dims` and `coords`, or arrays of the same names.
    depth : int
        Number of its batch axes.
    labels : sequence of str, optional
        Names of the curves. By default the settings that the result knows.

    Attributes
    ----------
    n : int
        Number of curves.
    labels : list of str or None
        Their names.
    """

    def __init__(
        self, name: str, result: Any, shape: tuple[int, ...], labels: Sequence[str] | None = None
    ) -> None:
        dims = getattr(result, "dims", ()) or (RUN,) * (len(shape) == 1)
        if len(dims) != len(shape):
            dims = tuple(f"batch_{i}" for i in range(len(shape)))
        runs = [i for i, d in enumerate(dims) if d == RUN]
        if not runs:  # the last one of axes that nothing tells apart
            runs = [i for i, d in enumerate(dims) if d.startswith("batch_")][-1:]
        settings = [i for i in range(len(shape)) if i not in runs]
        unknown = sum(dims[i].startswith("batch_") for i in settings)
        if unknown > 1:
            raise ArgumentError(name, f"must have at most two batch axes, got {len(shape)}")
        self._order = (*settings, *runs)
        self._shape = tuple(shape[i] for i in settings), tuple(shape[i] for i in runs)
        self.n = math.prod(self._shape[0])
        self._automatic = labels is None
        if labels is not None:
            require_names("labels", labels, self.n)
        elif settings and not unknown:
            coords = getattr(result, "coords", {})
            labels = [
                ", ".join(
                    f"{_SETTINGS.get(dims[i], dims[i])} {_value(coords, dims[i], j)}"
                    for i, j in zip(settings, index, strict=True)
                )
                for index in np.ndindex(*self._shape[0])
            ]
        self.labels = None if labels is None else list(labels)

    def __call__(self, values: Any) -> Floats:
        """Values (..., *more) as (n_curves, n_runs, *more)."""
        array = np.asarray(values, dtype=np.float64)
        depth = len(self._order)
        ordered = array.transpose(*self._order, *range(depth, array.ndim))
        found: Floats = ordered.reshape((self.n, math.prod(self._shape[1]), *array.shape[depth:]))
        return found

    def legend(self, lines: Sequence[Any]) -> tuple[list[Any], list[str] | None]:
        """Lines and names of the legend: of many curves some, evenly spaced."""
        if self.labels is None:
            return list(lines), None
        shown = range(self.n)
        if self._automatic and self.n > _MOST_NAMED:
            shown = evenly_spaced(self.n, _MOST_NAMED).tolist()
        return [lines[i] for i in shown], [self.labels[i] for i in shown]


def _value(coords: dict[str, Floats], name: str, index: int) -> str:
    return f"{coords[name][index]:.4g}" if name in coords else str(index)


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

    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))


def step_label(result: Any) -> str:
    """Label of a time axis: steps of an optimiser, or of another map."""
    settings = getattr(result, "settings", None) or {}
    return "step" if str(settings.get("system", "")).startswith("DiscreteMap") else "optimiser step"


def tidy_log_axis(axis: Axis) -> None:
    """Ticks of a logarithmic axis that do not collide, also over less than a decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    low, high = axis.get_view_interval()
    axis.set_minor_formatter(NullFormatter())
    if not 0 < low < high:
        return
    long = low < 1e-3 or high >= 1e5  # labels such as 1.05e+05
    if high < 8 * low:
        axis.set_major_locator(MaxNLocator(2 if long else 4, steps=[1, 2, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    elif high < 100 * low:
        axis.set_major_locator(LogLocator(subs=(1.0, 3.0) if long else (1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))


def symlog(ax: Axes, threshold: float) -> None:
    """Make the y axis logarithmic outside ±threshold, and say so in its label."""
    ax.set_yscale("symlog", linthresh=threshold)
    ax.set_ylabel(f"{ax.get_ylabel()}\n(symlog, linear below {threshold:g})".lstrip("\n"))


def windowed(times: Any, values: Floats) -> tuple[Floats, Floats, int]:
    """Long series in windows, so that fast oscillations are a median and quartiles.

    values (n_runs, n_times) of more than 400 times become (n_runs · window, n_windows). Returns the
    centres of the windows, the values and the number of times per window.
    """
    times = np.asarray(times, dtype=np.float64)
    size = -(-len(times) // _MOST_TIMES) if len(times) > 2 * _MOST_TIMES else 1
    if size == 1:
        return times, values, 1
    n = len(times) // size
    centres = times[: n * size].reshape(n, size).mean(axis=1)
    parts = values[:, : n * size].reshape(len(values), n, size)
    return centres, np.moveaxis(parts, -1, 1).reshape(-1, n), size


_MOST_TIMES = 200
