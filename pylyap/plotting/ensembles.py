"""Plots of perturbed copies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pylyap._statistics import quartiles
from pylyap.plotting.style import (
    band,
    canvas,
    checked,
    entitle,
    evenly_spaced,
    log_scale,
    palette,
    per_curve,
    require_names,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pylyap._perturbations.comparison import GrowthComparison
    from pylyap._perturbations.ensembles import Ensemble


@checked
def plot_ensemble(
    ensemble: Ensemble,
    *,
    titles: Sequence[str] | None = None,
    title: str | None = None,
) -> Figure:
    """Mean distance between perturbed copies and their reference run, on a logarithmic scale.

    Lines are medians over the runs, bands the quartiles; one line per size of the perturbation and
    one panel per curve of a batch (n_curves, n_runs). Zeros are omitted.

    Parameters
    ----------
    ensemble : Ensemble
        Result of `perturbation_ensemble` with batch shape (), (n_runs,) or (n_curves, n_runs).
    titles : sequence of str, optional
        A name for each panel.
    title : str, optional
        Title above the panels.

    Returns
    -------
    matplotlib.figure.Figure
        A figure outside pyplot; ``figure.savefig(path)`` writes it.

    Raises
    ------
    ArgumentError
        If there are more than two batch axes, or `titles` does not name each panel.
    ImportError
        If Matplotlib is not installed.

    Examples
    --------
    >>> import pylyap as pl
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent(lr=0.1))
    >>> w0 = net.init(runs=4, seed=0)
    >>> ensemble = pl.perturbation_ensemble(system, w0, [1e-8, 1e-4], 3, 20)
    >>> figure = pl.plotting.plot_ensemble(ensemble)
    >>> len(figure.axes[0].lines)
    2
    """
    eps = np.atleast_1d(np.asarray(ensemble.settings["eps"]))
    several = isinstance(ensemble.settings["eps"], list)
    mean = ensemble.mean if several else ensemble.mean[..., np.newaxis, :]
    values = per_curve("ensemble", np.where(mean > 0, mean, np.nan), mean.ndim - 2)
    panels = len(values)
    require_names("titles", titles, panels, "panels")
    with canvas((max(4.0 * min(panels, 3), 6.0), 3.6 * -(-panels // 3))) as figure:
        axes = figure.subplots(-(-panels // 3), min(panels, 3), sharey=True, squeeze=False)
        lines: list[Any] = []
        for p, ax in enumerate(axes.ravel()):
            if p >= panels:
                ax.set_axis_off()
                continue
            lines = [
                band(ax, ensemble.steps, values[p, :, j], color)
                for j, color in enumerate(palette(len(eps)))
            ]
            ax.set(yscale=log_scale(values), xlabel="optimiser step")
            if titles is not None:
                ax.set_title(titles[p])
        for row in axes:
            row[0].set(ylabel=f"mean distance ({ensemble.settings['norm']})")
        entitle(figure, lines, [rf"$\varepsilon$ = {e:g}" for e in eps], title)
    return figure


@checked
def plot_growth(
    growth: GrowthComparison,
    *,
    titles: Sequence[str] | None = None,
    title: str | None = None,
) -> Figure:
    """Growth rates against the size of the perturbation, and their distribution over the runs.

    The top panels, one per curve of a batch (n_curves, n_runs), show the mean over the runs kept
    with its standard deviation (points with bars), the median over all runs of the best window and
    of the fit until saturation with quartiles, and the leading Lyapunov exponent (grey: median and
    quartiles). The bottom panels show the distribution of the slopes of best windows, one line per
    size, five at most.

    Parameters
    ----------
    growth : GrowthComparison
        Result of `compare_growth` with batch shape (), (n_runs,) or (n_curves, n_runs).
    titles : sequence of str, optional
        A name for each panel.
    title : str, optional
        Title above the panels.

    Returns
    -------
    matplotlib.figure.Figure
        A figure outside pyplot; ``figure.savefig(path)`` writes it.

    Raises
    ------
    ArgumentError
        If there are more than two batch axes, or `titles` does not name each panel.
    ImportError
        If Matplotlib is not installed.

    Examples
    --------
    >>> import pylyap as pl
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent(lr=0.1))
    >>> w0 = net.init(runs=4, seed=0)
    >>> growth = pl.compare_growth(system, w0, [1e-8, 1e-4], 3, 40)
    >>> figure = pl.plotting.plot_growth(growth)
    >>> len(figure.axes)
    2
    """
    depth = growth.exponent.ndim
    best, whole, exponent = (
        per_curve("growth", values, depth)
        for values in (growth.best_window.slope, growth.until_saturation.slope, growth.exponent)
    )
    n, eps = len(best), growth.eps
    mean, spread = growth.mean.reshape(n, -1), np.nan_to_num(growth.spread).reshape(n, -1)
    require_names("titles", titles, n, "panels")
    seen = best[np.isfinite(best)]
    low, high = (seen.min(), seen.max()) if seen.size else (0.0, 1.0)
    edges = np.linspace(min(low, 0.0), max(high, low + 1e-9), 31)
    dark, middle, light = palette(3)
    with canvas((max(4.0 * n, 6.0), 5.4)) as figure:
        axes = figure.subplots(2, n, sharex="row", sharey="row", squeeze=False)
        handles: list[Any] = []
        for i in range(n):
            rates, below = axes[:, i]
            a, b, c = quartiles(exponent[i])
            rates.axhspan(a, c, color="0.5", alpha=0.2, linewidth=0)
            handles = [rates.axhline(b, color="0.4", linewidth=1.0)]
            for values, color, marker in ((best[i], middle, "s"), (whole[i], light, "^")):
                a, b, c = quartiles(values)
                rates.fill_between(eps, a, c, color=color, alpha=0.2, linewidth=0)
                handles += rates.plot(eps, b, color=color, marker=marker, markersize=3)
            bars = rates.errorbar(eps, mean[i], spread[i], color=dark, fmt="o", markersize=4)
            handles.append(bars)
            shown = evenly_spaced(len(eps), 5)
            for j, color in zip(shown, palette(len(shown)), strict=True):
                fine = best[i, np.isfinite(best[i, :, j]), j]
                if fine.size:
                    fraction, name = np.histogram(fine, edges)[0] / fine.size, f"{eps[j]:.0e}"
                    below.stairs(fraction, edges, color=color, linewidth=1.2, label=name)
            if (eps > 0).all():
                rates.set_xscale("log")
            rates.set(xlabel=r"size of the perturbation $\varepsilon$")
            below.set(xlabel="slope of the best window, nats per step")
            if titles is not None:
                rates.set_title(titles[i])
        axes[0, 0].set(ylabel="growth rate, nats per step")
        axes[1, 0].set(ylabel="fraction of runs")
        axes[1, -1].legend(title=r"$\varepsilon$", loc="upper right")
        names = ["leading exponent", "best window, all runs", "fit until saturation"]
        names.append("best window, runs kept")
        entitle(figure, handles, names, title)
    return figure
