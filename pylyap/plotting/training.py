"""Plots of training by epochs and of trainability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._statistics import quartiles
from pylyap.plotting.sheet import Target, plots, sheet
from pylyap.plotting.style import (
    Curves,
    band,
    evenly_spaced,
    palette,
    tidy_log_axis,
    whole_numbers,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pylyap._weights.trainability import Trainability
    from pylyap._weights.training import History

_PHASES = {"low": "#b9b9b9", "untrainable": "#e07a5f", "high": "#6fa8c9"}


@plots("History")
def plot_history(
    history: History,
    *,
    scope: int | str = 0,
    labels: Sequence[str] | None = None,
    title: str | None = None,
    **target: Unpack[Target],
) -> Figure:
    """Loss, accuracy and weight deviation against the epoch.

    Lines are medians over the runs, bands the quartiles; test data are dashed.

    Parameters
    ----------
    history : History
        Result of `train`. Of two batch axes without names the first are the curves.
    scope : int or str, default 0
        Index or name out of `history.scopes`, whose deviation is shown.
    labels : sequence of str, optional
        A name for each of the n_curves curves. By default the settings of the optimiser.
    title : str, optional
        Title above the panels.

    Returns
    -------
    matplotlib.figure.Figure
        The figure; ``figure.savefig(path)`` writes it.

    Raises
    ------
    ArgumentError
        If there are more than two batch axes, or `scope` or `labels` do not match.
    ImportError
        If Matplotlib is not installed.

    Examples
    --------
    >>> import pylyap as pl
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent(lr=0.1))
    >>> w0 = net.init(runs=4, seed=0)
    >>> history = pl.train(system, w0, 5)
    >>> figure = pl.plotting.plot_history(history)
    >>> [ax.get_ylabel() for ax in figure.axes]
    ['loss', 'rms deviation, all weights']
    """
    curves_of = Curves("history", history, history.status.shape, labels)
    if isinstance(scope, str):
        scope = history.scopes.index(_checks.choice("scope", scope, history.scopes))
    scope = _checks.integer("scope", scope, least=0, most=len(history.scopes) - 1)
    panels: list[tuple[str, Any, Any]] = [("loss", history.train_loss, history.test_loss)]
    if history.train_accuracy is not None:
        panels.append(("accuracy", history.train_accuracy, history.test_accuracy))
    panels.append(
        (f"rms deviation, {history.scopes[scope]}", history.deviation[..., scope, :], None)
    )
    with sheet((3.6 * len(panels), 3.4), target) as page:
        axes: list[Axes] = list(page.subplots(1, len(panels))[0])
        colors = palette(curves_of.n)
        lines: list[Any] = []
        for ax, (name, train, test) in zip(axes, panels, strict=True):
            curves = curves_of(train)
            lines = [
                band(ax, history.epochs, runs, c) for runs, c in zip(curves, colors, strict=True)
            ]
            if test is not None:
                for runs, c in zip(curves_of(test), colors, strict=True):
                    band(ax, history.epochs, runs, c).set_linestyle((0, (4, 1.5)))
            ax.set(xlabel="epoch", ylabel=name)
            whole_numbers(ax)
        axes[0].set_yscale(_scale(history.train_loss))
        axes[-1].set(ylim=(0, None))
        if history.test_loss is not None:
            keys = [
                axes[0].plot([], [], color="0.3", linestyle=style, linewidth=1.2)[0]
                for style in ("-", (0, (4, 1.5)))
            ]
            axes[0].legend(keys, ["training", "test"])
        if axes[0].get_yscale() == "log":
            tidy_log_axis(axes[0].yaxis)
        page.entitle(*curves_of.legend(lines), title)
    return page.figure


@plots("Trainability")
def plot_trainability(
    found: Trainability,
    *,
    name: str = "width",
    title: str | None = None,
    **target: Unpack[Target],
) -> Figure:
    """Phase diagram of width and epoch, minimum losses against width, deviation against loss.

    The colours of the diagram are mixtures of those of the phases, weighted by their fraction of
    the runs; where all runs are in one phase, lines of equal training loss (median) are drawn.
    Epochs and losses are means over the runs with standard deviations; for the deviation
    each run is a thin line and the median over the runs a thick line.

    Parameters
    ----------
    found : Trainability
        Result of `trainability`.
    name : str, default "width"
        Label of the axis of `found.widths`.
    title : str, optional
        Title above the panels.

    Returns
    -------
    matplotlib.figure.Figure
        The figure; ``figure.savefig(path)`` writes it.

    Raises
    ------
    ImportError
        If Matplotlib is not installed.

    Examples
    --------
    >>> import pylyap as pl
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent(lr=0.1))
    >>> w0 = net.init(runs=4, seed=0)
    >>> found = pl.trainability([pl.train(system, w0, 5)])
    >>> figure = pl.plotting.plot_trainability(found)
    >>> len(figure.axes)
    3
    """
    widths, epochs = found.widths, found.epochs
    dark, light = palette(2)
    with sheet((10.0, 5.2), target) as page:
        from matplotlib.colors import LogNorm, Normalize, to_rgb
        from matplotlib.patches import Patch

        layout = [["diagram", "lowest"], ["diagram", "against loss"]]
        diagram, lowest, against_loss = page.mosaic(
            layout, "diagram", width_ratios=[1.25, 1.0]
        ).values()
        logarithmic = len(widths) > 1 and widths[0] > 0 and widths[-1] >= 5 * widths[0]

        shares = found.share
        mixed = sum(
            share[..., np.newaxis] * np.array(to_rgb(_PHASES[phase]))
            for phase, share in shares.items()
        )
        diagram.pcolormesh(
            _edges(widths, logarithmic),
            _edges(epochs.astype(float), False),
            np.swapaxes(np.asarray(mixed), 0, 1),
            rasterized=True,
        )
        if len(shares) and max(float(share.min()) for share in shares.values()) == 1.0:
            _draw_loss_contours(diagram, found)  # a single phase fills the diagram
        marks = {
            "minimum of training loss": ("min_train_epoch", "o", "black"),
            "minimum of test loss": ("min_test_epoch", "s", "white"),
            "divergence": ("divergence_epoch", "v", "#d62f0f"),
        }
        handles: list[Any] = [Patch(color=_PHASES[phase]) for phase in shares]
        names = list(shares)
        for i, (label, (quantity, shape, color)) in enumerate(marks.items()):
            if getattr(found, quantity) is None or (getattr(found, quantity) < 0).all():
                continue
            mean, spread = found.over_runs(quantity)
            bars = diagram.errorbar(
                _shifted(widths, 0.1 * (i - 1), logarithmic), mean, spread, fmt=shape + "-",
                color="0.1", markersize=4.5, linewidth=0.8, markerfacecolor=color,
                markeredgewidth=0.7, capsize=1.5,
            )  # fmt: skip
            handles.append(bars)
            names.append(label)
        room = 0.03 * epochs[-1]
        diagram.locator_params(axis="y", integer=True)
        diagram.set(xlabel=name, ylabel="epoch", ylim=(-room, epochs[-1] + room))

        for quantity, color, label in (
            ("min_train_loss", dark, "training"),
            ("min_test_loss", light, "test"),
        ):
            if getattr(found, quantity) is not None:
                mean, spread = found.over_runs(quantity)
                lowest.errorbar(
                    widths, mean, spread, fmt="o-", color=color, markersize=4, linewidth=1.2,
                    capsize=2, label=label,
                )  # fmt: skip
        both = [found.min_train_loss, found.min_test_loss]
        lowest.set(xlabel=name, ylabel="minimum loss")
        lowest.set_yscale(_scale(np.stack([losses for losses in both if losses is not None])))
        if lowest.get_yscale() == "log":
            tidy_log_axis(lowest.yaxis)
        if found.min_test_loss is not None:
            lowest.legend()

        norm = LogNorm if logarithmic else Normalize
        scale = norm(widths[0], widths[-1] if len(widths) > 1 else widths[0] + 1)
        colors = _colors(scale, widths)
        for loss, deviation, color in zip(found.train_loss, found.deviation, colors, strict=True):
            against_loss.plot(loss.T, deviation.T, color=color, linewidth=0.6, alpha=0.3)
            middle = quartiles(loss)[1], quartiles(deviation)[1]
            against_loss.plot(*middle, color=color, linewidth=1.3)
        against_loss.set(xlabel="training loss", ylabel="rms deviation", ylim=(0, None))
        against_loss.set_xscale(_scale(found.train_loss))
        if logarithmic:
            for ax in (diagram, lowest):
                ax.set_xscale("log")
        for ax in (diagram, lowest):
            _ticks(ax, widths)
        if len(widths) > 1:
            from matplotlib.cm import ScalarMappable

            bar = against_loss.figure.colorbar(
                ScalarMappable(scale, _colormap()), ax=against_loss, label=name, pad=0.02, aspect=20
            )
            bar.ax.minorticks_off()
            bar.set_ticks(_tick_widths(widths), labels=[f"{w:g}" for w in _tick_widths(widths)])
        page.entitle(handles, names, title)
    return page.figure


def _draw_loss_contours(ax: Axes, found: Trainability) -> None:
    """Plot lines of equal training loss, the median over the runs, over widths and epochs."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    loss = quartiles(np.moveaxis(found.train_loss, 1, 0))[1].T  # (n_records, n_widths)
    known = loss[np.isfinite(loss)]
    if min(loss.shape) < 2 or not known.size or known.min() == known.max():
        return
    log = known.min() > 0 and known.max() > 10 * known.min()
    locator = LogLocator(subs=(1.0, 3.0)) if log else MaxNLocator(8)
    lines = ax.contour(
        found.widths, found.epochs, loss, locator=locator, colors="0.25", linewidths=0.7
    )
    ax.clabel(lines, fontsize=7, fmt=lambda value: f"{value:.3g}")
    ax.set_title("Lines: training loss, median over the runs")


def _scale(losses: Floats) -> str:
    """The scale of a loss axis: logarithmic over more than one decade of positive values."""
    above = losses[np.isfinite(losses) & (losses > 0)]
    return "log" if above.size and above.max() > 10 * above.min() else "linear"


def _colormap() -> Any:
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    return ListedColormap(colormaps["viridis"](np.linspace(0.0, 0.82, 256)))


def _colors(scale: Any, widths: Floats) -> list[Any]:
    return list(_colormap()(scale(widths)))


def _tick_widths(widths: Floats) -> list[float]:
    """At most eight of the widths, the first and the last included."""
    chosen: list[float] = widths[evenly_spaced(len(widths), 8)].tolist()
    return chosen


def _ticks(ax: Axes, widths: Floats) -> None:
    from matplotlib.ticker import NullLocator

    ax.set_xticks(_tick_widths(widths), [f"{w:g}" for w in _tick_widths(widths)])
    ax.xaxis.set_minor_locator(NullLocator())


def _shifted(widths: Floats, shift: float, logarithmic: bool) -> Floats:
    """Positions shifted from the widths by a fraction of their smallest distance."""
    at = np.log(widths) if logarithmic else widths
    moved: Floats = at + shift * (float(np.diff(at).min()) if len(at) > 1 else 1.0)
    if logarithmic:
        np.exp(moved, out=moved)
    return moved


def _edges(centres: Floats, logarithmic: bool) -> Floats:
    """Edges of cells around centres, equidistant on the axis."""
    if len(centres) == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    at = np.log(centres) if logarithmic else centres
    middle = 0.5 * (at[1:] + at[:-1])
    edges: Floats = np.array([2 * at[0] - middle[0], *middle, 2 * at[-1] - middle[-1]])
    if logarithmic:
        np.exp(edges, out=edges)
    return edges
