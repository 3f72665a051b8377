"""Plots of scans of the learning rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from pylyap._errors import ArgumentError
from pylyap.plotting.sheet import Target, plots, sheet
from pylyap.plotting.style import band, palette, reference_line, symlog, tidy_log_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pylyap.regimes import LearningRateScan

# Okabe and Ito's blue, green and orange with a dark red: any two differ by 20 or more in CIELAB,
# also with deuteranopia.
_COLORS = {
    "convergent": "#0072b2",
    "edge of stability": "#009e73",
    "periodic": "#e69f00",
    "chaotic": "#b2182b",
    "divergent": "#222222",
    "undecided": "#c8c8c8",
}

_MAX_DOTS = 60_000  # in a bifurcation diagram: the latest of each run


@plots("LearningRateScan")
def plot_scan(
    scan: LearningRateScan, *, title: str | None = None, **target: Unpack[Target]
) -> Figure:
    """Late losses, exponents, sharpness and regimes against the learning rate.

    Lines are medians over the runs, bands the quartiles. Of one run, losses are a bifurcation
    diagram, exponents have their standard errors, and there is no panel of fractions.

    Parameters
    ----------
    scan : LearningRateScan
        Result of `learning_rate_scan`.
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
    >>> scan = pl.learning_rate_scan(net, system.X, system.y, [0.1, 0.5], 60, runs=2)
    >>> figure = pl.plotting.plot_scan(scan)
    >>> figure.axes[-1].get_xlabel()
    'learning rate'
    """
    several = scan.loss.shape[1] > 1
    first, second = palette(2)
    heights = [1.4, 1.0, 1.0, 1.0] if several else [2.4, 1.0, 1.0]
    with sheet((7.2, 9.0 if several else 7.6), target) as page:
        axes = page.subplots(len(heights), 1, sharex=True, height_ratios=heights)[:, 0]
        late, rates, sharp = axes[:3]
        _dots(late, scan, scan.late_loss)
        late.set(ylabel="loss at late steps")
        if (np.nanmin(scan.late_loss, initial=np.inf)) > 0:
            late.set_yscale("log")
            tidy_log_axis(late.yaxis)
        reference_line(rates)
        lines = [band(rates, scan.lr, scan.exponent.T, first)]
        names = ["leading exponent"]
        stderr = getattr(scan, "stderr", None)  # not kept by studies
        if not several and stderr is not None:
            error = stderr[:, 0]
            low, high = scan.exponent[:, 0] - error, scan.exponent[:, 0] + error
            rates.fill_between(scan.lr, low, high, color=first, alpha=0.2, linewidth=0)
        if np.isfinite(scan.growth).any():
            lines.append(band(rates, scan.lr, scan.growth.T, second))
            names.append("growth rate of perturbations")
        rates.legend(lines, names, loc="best")
        rates.set(ylabel="nats per step")
        sizes = np.abs(np.concatenate([scan.exponent.ravel(), scan.growth.ravel()]))
        sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
        if len(sizes) and sizes.max() > 30 * np.median(sizes):  # as exponents of a spectrum
            symlog(rates, 10.0 ** (np.floor(np.log10(sizes.max())) - 2))
        reference_line(sharp, 1.0)
        band(sharp, scan.lr, scan.sharpness.T, first)
        sharp.set(ylabel="sharpness /\nstability threshold")
        shares = {name: values for name, values in scan.share.items() if values.any()}
        colors = [_COLORS[name] for name in shares]
        if several:
            axes[3].stackplot(scan.lr, list(shares.values()), colors=colors, linewidth=0)
            axes[3].set(ylabel="fraction of runs", ylim=(0, 1))
        for ax in axes if not page.own else axes[-1:]:
            ax.set(xlabel="learning rate")
        for ax in axes:
            ax.set_xscale("log")
            if len(scan.lr) > 1:
                ax.set_xlim(scan.lr.min() / 1.02, scan.lr.max() * 1.02)
            tidy_log_axis(ax.xaxis)
        page.align(axes)
        page.entitle(_keys(late, colors), list(shares), title)
    return page.figure


@plots()
def plot_bifurcation(
    scan: LearningRateScan,
    *,
    weight: bool = False,
    title: str | None = None,
    **target: Unpack[Target],
) -> Figure:
    """Bifurcation diagram: losses at late steps of all runs against the learning rate.

    Each run has the colour of its regime.

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
        The figure; ``figure.savefig(path)`` writes it.

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
    with sheet((7.2, 4.4), target) as page:
        ax = page.single()
        _dots(ax, scan, values)
        ax.set(xscale="log", xlabel="learning rate")
        tidy_log_axis(ax.xaxis)
        if weight:
            ax.set(ylabel=f"parameter {scan.settings['observe']} at late steps")
        else:
            ax.set(ylabel="loss at late steps", yscale="log")
            tidy_log_axis(ax.yaxis)
        found = [name for name in _COLORS if (scan.regime == name).any()]
        page.entitle(_keys(ax, [_COLORS[name] for name in found]), found, title)
    return page.figure


def _keys(ax: Axes, colors: list[str]) -> list[Any]:
    """Dots of a legend."""
    return [ax.plot([], [], "o", color=color, markersize=5)[0] for color in colors]


def _dots(ax: Axes, scan: LearningRateScan, values: Any) -> None:
    """Plot the latest of values (n_lr, n_runs, n_late + 1) in the colour of each run's regime."""
    latest = values[..., -max(8, _MAX_DOTS // max(scan.loss.size, 1)) :]
    at = np.broadcast_to(scan.lr[:, np.newaxis, np.newaxis], latest.shape)
    few = scan.loss.size * latest.shape[-1] < 4000
    for name, color in _COLORS.items():
        members = scan.regime == name
        if members.any() and name != "divergent":
            ax.plot(
                at[members].ravel(),
                latest[members].ravel(),
                "o",
                color=color,
                markersize=2.5 if few else 1.2,
                markeredgewidth=0,
                alpha=0.7 if few else 0.5,
                rasterized=True,
            )
