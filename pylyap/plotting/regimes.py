"""Plots of scans of the learning rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pylyap._errors import ArgumentError
from pylyap.plotting.style import band, canvas, checked, entitle, palette, reference_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pylyap.regimes import LearningRateScan

_COLORS = {
    "convergent": "#31688e",
    "edge of stability": "#35b779",
    "periodic": "#fde725",
    "chaotic": "#d1495b",
    "divergent": "#222222",
    "undecided": "#c8c8c8",
}

_MAX_DOTS = 60_000  # in a bifurcation diagram: the latest of each run


@checked
def plot_scan(scan: LearningRateScan, *, title: str | None = None) -> Figure:
    """Late losses, exponents, sharpness and regimes against the learning rate.

    Lines are medians over the runs, bands the quartiles.

    Parameters
    ----------
    scan : LearningRateScan
        Result of `learning_rate_scan`.
    title : str, optional
        Title above the panels.

    Returns
    -------
    matplotlib.figure.Figure
        A figure outside pyplot; ``figure.savefig(path)`` writes it.

    Raises
    ------
    ImportError
        If Matplotlib is not installed.

    Examples
    --------
    >>> import pylyap as pl
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent(lr=0.1))
    >>> scan = pl.learning_rate_scan(net, system.X, system.y, [0.1, 0.5], 60, runs=2)
    >>> figure = pl.plotting.plot_scan(scan)
    >>> figure.axes[-1].get_xlabel()
    'learning rate'
    """
    first, second = palette(2)
    with canvas((7.2, 9.0)) as figure:
        axes = figure.subplots(4, 1, sharex=True, height_ratios=[1.4, 1, 1, 1])
        late, rates, sharp, fractions = axes
        _dots(late, scan, scan.late_loss)
        late.set(ylabel="loss at late steps")
        if (np.nanmin(scan.late_loss, initial=np.inf)) > 0:
            late.set_yscale("log")
        reference_line(rates)
        lines = [band(rates, scan.lr, scan.exponent.T, first)]
        names = ["leading exponent"]
        if np.isfinite(scan.growth).any():
            lines.append(band(rates, scan.lr, scan.growth.T, second))
            names.append("growth rate of perturbations")
        rates.legend(lines, names, loc="upper left")
        rates.set(ylabel="nats per step")
        reference_line(sharp, 1.0)
        band(sharp, scan.lr, scan.sharpness.T, first)
        sharp.set(ylabel="sharpness /\nstability threshold")
        shares = {name: values for name, values in scan.share.items() if values.any()}
        colors = [_COLORS[name] for name in shares]
        layers = fractions.stackplot(scan.lr, list(shares.values()), colors=colors, linewidth=0)
        fractions.set(ylabel="fraction of runs", ylim=(0, 1), xlabel="learning rate", xscale="log")
        if len(scan.lr) > 1:
            fractions.set_xlim(scan.lr.min(), scan.lr.max())
        figure.align_ylabels(axes)
        entitle(figure, layers, list(shares), title)
    return figure


@checked
def plot_bifurcation(
    scan: LearningRateScan, *, weight: bool = False, title: str | None = None
) -> Figure:
    """Bifurcation diagram: losses at late steps of all runs against the learning rate.

    The runs of a learning rate are side by side, each in the colour of its regime.

    Parameters
    ----------
    scan : LearningRateScan
        Result of `learning_rate_scan`.
    weight : bool, default False
        Plot the observed weight instead of the loss.
    title : str, optional
        Title above the panel.

    Returns
    -------
    matplotlib.figure.Figure
        A figure outside pyplot; ``figure.savefig(path)`` writes it.

    Raises
    ------
    ArgumentError
        If no weight was observed.
    ImportError
        If Matplotlib is not installed.

    Examples
    --------
    >>> import pylyap as pl
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent(lr=0.1))
    >>> scan = pl.learning_rate_scan(net, system.X, system.y, [0.1, 0.5], 60, runs=2, observe=3)
    >>> figure = pl.plotting.plot_bifurcation(scan, weight=True)
    >>> figure.axes[0].get_ylabel()
    'parameter 3 at late steps'
    """
    if weight and scan.late_weight is None:
        raise ArgumentError("scan", "must have observed a weight, got observe=None")
    values: Any = scan.late_weight if weight else scan.late_loss
    with canvas((7.2, 4.4)) as figure:
        ax = figure.subplots()
        _dots(ax, scan, values)
        ax.set(xscale="log", xlabel="learning rate")
        if weight:
            ax.set(ylabel=f"parameter {scan.settings['observe']} at late steps")
        else:
            ax.set(ylabel="loss at late steps", yscale="log")
        found = [name for name in _COLORS if (scan.regime == name).any()]
        lines = [ax.plot([], [], "o", color=_COLORS[name], markersize=4)[0] for name in found]
        entitle(figure, lines, found, title)
    return figure


def _dots(ax: Axes, scan: LearningRateScan, values: Any) -> None:
    """Plot the latest of values (n_lr, n_runs, n_late + 1) in the colour of each run's regime.

    The runs of a learning rate are side by side, within the distance to the next rate.
    """
    latest = values[..., -max(8, _MAX_DOTS // max(scan.loss.size, 1)) :]
    runs = scan.loss.shape[1]
    spacing = np.median(np.diff(np.log(scan.lr))) if len(scan.lr) > 1 else 0.05
    offset = (np.arange(runs) - (runs - 1) / 2) / runs * 0.8 * spacing
    at = np.broadcast_to((scan.lr[:, np.newaxis] * np.exp(offset))[..., np.newaxis], latest.shape)
    for name, color in _COLORS.items():
        members = scan.regime == name
        if members.any() and name != "divergent":
            dark = "#d9b600" if name == "periodic" else color  # yellow has no contrast on white
            ax.plot(
                at[members].ravel(),
                latest[members].ravel(),
                ".",
                color=dark,
                markersize=1.6,
                markeredgewidth=0,
                alpha=0.6,
                rasterized=True,
            )
