"""Figures of the study."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pylyap.papers.sohldickstein2024.experiments import Zooms
from pylyap.papers.sohldickstein2024.task import CONDITIONS, RATES
from pylyap.plotting import plot_stability
from pylyap.plotting.style import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pylyap.stability_maps import StabilityMap


def landscape(found: StabilityMap) -> Figure:
    """Map of both learning rates over the published range.

    Parameters
    ----------
    found : StabilityMap
        Result of `landscape`.

    Returns
    -------
    Figure
        The figure.
    """
    steps = found.settings["n_steps"]
    return plot_stability(found, title=f"16-16-1 tanh, 272 samples, {steps} steps")


def zooms(found: Zooms) -> Figure:
    """The whole range or another region, and successive zooms; each frame is the next panel.

    Parameters
    ----------
    found : Zooms
        Result of `zooms`.

    Returns
    -------
    Figure
        The figure.
    """
    with canvas((8.6, 7.2)) as figure:
        axes = figure.subplots(2, 2, squeeze=False).ravel()
        for i, ax in enumerate(axes):
            if i >= len(found.maps):
                ax.set_axis_off()
                continue
            plot_stability(found.maps[i], ax=ax)
            if i < len(found.regions):
                _frame(ax, found, i)
            whole = (found.maps[0].x[0], found.maps[0].x[-1]) == RATES
            ax.set_title(f"zoom {i}" if i else "whole range" if whole else "first region")
    return figure


def conditions(found: dict[str, Zooms]) -> Figure:
    """The last zoom of every condition.

    Parameters
    ----------
    found : dict of Zooms
        Result of `conditions`.

    Returns
    -------
    Figure
        The figure.
    """
    with canvas((10.0, 6.6)) as figure:
        axes = figure.subplots(2, 3).ravel()
        for ax, (name, each) in zip(axes, found.items(), strict=False):
            plot_stability(each.maps[-1], ax=ax)
            ax.set_title(f"{name} (published dimension {CONDITIONS[name].dimension:.2f})")
        for ax in axes[len(found) :]:
            ax.set_axis_off()
    return figure


def offsets(found: dict[str, Zooms]) -> Figure:
    """Maps of the offset and the learning rate; each frame is the next panel.

    Parameters
    ----------
    found : dict of Zooms
        Result of `offsets`.

    Returns
    -------
    Figure
        The figure.
    """
    columns = max(len(each.maps) for each in found.values())
    with canvas((3.4 * columns, 6.6)) as figure:
        axes = figure.subplots(len(found), columns, squeeze=False)
        for row, (name, each) in zip(axes, found.items(), strict=True):
            for i, ax in enumerate(row):
                if i >= len(each.maps):
                    ax.set_axis_off()
                    continue
                plot_stability(each.maps[i], ax=ax)
                if i < len(each.regions):
                    _frame(ax, each, i)
                ax.set_title(name if i == 0 else f"zoom {i}")
    return figure


def _frame(ax: Axes, found: Zooms, i: int) -> None:
    (left, right), (low, high) = found.regions[i]
    x, y = [left, right, right, left, left], [low, low, high, high, low]
    ax.plot(x, y, color="black", linewidth=1.0)
