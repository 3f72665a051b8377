"""Plots of one number per run: its distribution, and its dependence on a setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import ArrayLike

from pylyap import _checks
from pylyap._errors import ArgumentError, ArgumentTypeError
from pylyap._statistics import quartiles
from pylyap.plotting.sheet import Target, plots, sheet
from pylyap.plotting.style import (
    Floats,
    evenly_spaced,
    palette,
    require_names,
    tidy_log_axis,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

_BINS = 8, 60  # at least and at most
_LOG_RANGE = 30  # values over a larger ratio have a logarithmic scale
MOST_OVERLAID = 3  # distributions in the same panel
_MAX_LABELS = 12  # of an axis of strings


@plots()
def plot_distributions(
    quantities: Mapping[str, ArrayLike],
    *,
    labels: Sequence[str] | None = None,
    title: str | None = None,
    **target: Unpack[Target],
) -> Figure:
    """Histograms over the runs: a panel per quantity and a line per curve.

    Heights are fractions of the finite values of a curve. More than three curves are below each
    other, on the same scale, each with its median. Positive values over more than a decade and a
    half have a logarithmic scale.

    Parameters
    ----------
    quantities : mapping of str to array_like, shape (n_runs,) or (n_curves, n_runs)
        Values by axis label, units included; nan where a run has none.
    labels : sequence of str, optional
        A name for each of the n_curves curves.
    title : str, optional
        Title above the panels.

    Returns
    -------
    matplotlib.figure.Figure
        The figure; ``figure.savefig(path)`` writes it.

    Raises
    ------
    ArgumentError
        If there are none, shapes do not match, or `labels` does not name each curve.
    ImportError
        If Matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> import pylyap as pl
    >>> losses = np.random.default_rng(0).lognormal(size=(2, 100))
    >>> figure = pl.plotting.plot_distributions({"loss": losses}, labels=["tanh", "ReLU"])
    >>> figure.axes[0].get_xlabel()
    'loss'
    """
    panels = _panels(quantities, 2)
    n = len(next(iter(panels.values())))
    require_names("labels", labels, n)
    width, height = _size(len(panels))
    if n > MOST_OVERLAID:
        height *= max(1.0, 0.16 * n)
    with sheet((width, height), target) as page:
        lines: list[Any] = []
        across = _across(len(panels))
        axes = page.wrapped(len(panels), across)
        for i, (ax, (name, values)) in enumerate(zip(axes, panels.items(), strict=True)):
            edges, scale = _edges(values)
            if n > MOST_OVERLAID:
                _draw_ridges(ax, values, edges, labels if i % across == 0 else None)
                ax.set(xlabel=name, xscale=scale)
                _few_ticks(ax.xaxis, scale)
                continue
            lines = [
                ax.stairs(_fractions(runs, edges), edges, color=color, linewidth=1.2)
                for runs, color in zip(values, palette(n), strict=True)
            ]
            ax.set(xlabel=name, ylabel="fraction of runs", xscale=scale)
            _few_ticks(ax.xaxis, scale)
        page.entitle(lines, labels if lines else None, title)
    return page.figure


@plots()
def plot_along(
    along: ArrayLike,
    quantities: Mapping[str, ArrayLike],
    *,
    name: str = "",
    labels: Sequence[str] | None = None,
    title: str | None = None,
    **target: Unpack[Target],
) -> Figure:
    """Medians over the runs against a setting, with quartiles: a panel per quantity.

    Parameters
    ----------
    along : array_like, shape (n_values,)
        Values of the setting: numbers or strings.
    quantities : mapping of str to array_like
        Values of shape (n_values, n_runs) or (n_curves, n_values, n_runs) by axis label, units
        included; nan where a run has none.
    name : str, default ""
        Label of the axis of the setting.
    labels : sequence of str, optional
        A name for each of the n_curves curves.
    title : str, optional
        Title above the panels.

    Returns
    -------
    matplotlib.figure.Figure
        The figure; ``figure.savefig(path)`` writes it.

    Raises
    ------
    ArgumentError
        If there are none, shapes do not match, or `labels` does not name each curve.
    ImportError
        If Matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> import pylyap as pl
    >>> losses = np.random.default_rng(0).lognormal(size=(3, 20))
    >>> figure = pl.plotting.plot_along([0.1, 0.2, 0.4], {"loss": losses}, name="learning rate")
    >>> figure.axes[0].get_ylabel()
    'loss'
    """
    panels, values = _panels(quantities, 3), np.asarray(along)
    n, n_values, _ = next(iter(panels.values())).shape
    require_names("labels", labels, n)
    if values.shape != (n_values,):
        raise ArgumentError("along", f"must have shape ({n_values},), got {values.shape}")
    is_text = values.dtype.kind not in "iuf"
    x = np.arange(float(n_values)) if is_text else values.astype(np.float64)
    order = np.argsort(x, kind="stable")
    with sheet(_size(len(panels)), target) as page:
        lines: list[Any] = []
        axes = page.wrapped(len(panels), _across(len(panels)))
        for ax, (label, curves) in zip(axes, panels.items(), strict=True):
            lines = [
                _draw_quartiles(ax, x[order], runs[order], color, not is_text)
                for runs, color in zip(curves, palette(n), strict=True)
            ]
            scale = _scale(quartiles(np.moveaxis(curves, -1, 0)))
            ax.set(xlabel=name, ylabel=label, yscale=scale)
            _few_ticks(ax.yaxis, scale)
            if is_text:
                shown = evenly_spaced(n_values, _MAX_LABELS)
                ax.set_xticks(x[shown], [str(v) for v in values[shown]])
                ax.margins(x=0.1)
            elif np.isfinite(curves).any():
                ax.set_xscale(_scale(x))
                _few_ticks(ax.xaxis, _scale(x))
        page.entitle(lines, labels, title)
    return page.figure


def _draw_ridges(ax: Axes, curves: Floats, edges: Floats, labels: Sequence[str] | None) -> None:
    """Plot the distributions of curves (n, n_runs) below each other, the first at the top."""
    fractions = [_fractions(runs, edges) for runs in curves]
    scale = 0.9 / max(max(float(values.max()) for values in fractions), 1e-300)
    n = len(curves)
    for i, (runs, values, color) in enumerate(zip(curves, fractions, palette(n), strict=True)):
        base = float(n - 1 - i)
        ax.stairs(base + scale * values, edges, baseline=base, fill=True, color=color, alpha=0.6)
        ax.axhline(base, color="0.7", linewidth=0.6, zorder=0)
        finite = runs[np.isfinite(runs)]
        if finite.size:
            middle = float(np.median(finite))
            ax.plot([middle, middle], [base, base + 0.9], color="black", linewidth=1.0)
    names = [str(label) for label in labels] if labels is not None else [""] * n
    ax.set_yticks(np.arange(n - 1, -1, -1) + 0.3, names)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_ylim(-0.1, n)


def _draw_quartiles(ax: Axes, x: Floats, runs: Floats, color: Any, joined: bool) -> Any:
    """Plot median and quartiles of runs (n_values, n_runs) as a band, or as bars if not joined."""
    low, middle, high = quartiles(runs.T)
    if joined and len(x) > 1:
        ax.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
        return ax.plot(x, middle, "o-", color=color, markersize=3, linewidth=1.2)[0]
    bars = [middle - low, high - middle]
    return ax.errorbar(x, middle, bars, color=color, fmt="o", markersize=4, capsize=3)


def _panels(quantities: Mapping[str, ArrayLike], depth: int) -> dict[str, Floats]:
    """Quantities with a leading axis of curves."""
    panels = {}
    if not isinstance(quantities, Mapping):
        raise ArgumentTypeError(
            "quantities",
            f"must be a mapping of names to arrays, got {_checks.describe(quantities)}",
        )
    for name, given in quantities.items():
        values = _checks.floats(f"quantities[{name!r}]", given, finite=False)
        if values.ndim not in (depth - 1, depth):
            raise ArgumentError(
                "quantities",
                f"must have {depth - 1} or {depth} axes, got {name!r} of shape {values.shape}",
            )
        panels[name] = values.reshape((1,) * (depth - values.ndim) + values.shape)
    if not panels or len({values.shape for values in panels.values()}) > 1:
        shapes = [values.shape for values in panels.values()]
        raise ArgumentError("quantities", f"must be at least one, of the same shape, got {shapes}")
    return panels


def _across(panels: int) -> int:
    return 2 if panels == 4 else min(panels, 3)


def _size(panels: int) -> tuple[float, float]:
    across = _across(panels)
    return max(3.2 * across, 4.5), 2.8 * -(-panels // across) + 0.4


def _edges(values: Floats) -> tuple[Floats, str]:
    """Edges of bins for all finite values, and the scale on which they are equidistant."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return np.linspace(0.0, 1.0, 2), "linear"
    bins = int(np.clip(2 * np.sqrt(finite.size / len(values)), *_BINS))
    low, high, scale = finite.min(), finite.max(), _scale(finite)
    if scale == "log":
        return np.geomspace(low, high, bins + 1), scale
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        room = 0.5 * max(abs(low), 1e-12)
        low, high = low - room, high + room
    return np.linspace(low, high, bins + 1), scale


def _fractions(runs: Floats, edges: Floats) -> Floats:
    finite = runs[np.isfinite(runs)]
    counts = np.histogram(finite, edges)[0]
    fractions: Floats = counts / max(finite.size, 1)
    return fractions


def _scale(values: Floats | tuple[Floats, ...]) -> str:
    """The scale of an axis: logarithmic for positive values over a large range."""
    flat = np.ravel(values)
    flat = flat[np.isfinite(flat)]
    wide = flat.size and flat.min() > 0 and flat.max() > _LOG_RANGE * flat.min()
    return "log" if wide else "linear"


def _few_ticks(axis: Axis, scale: str) -> None:
    from matplotlib.ticker import MaxNLocator

    if scale == "log":
        tidy_log_axis(axis)
    else:
        axis.set_major_locator(MaxNLocator(5))
