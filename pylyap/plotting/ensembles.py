"""Pictures of perturbed copies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pylyap._errors import ArgumentError
from pylyap._statistics import quartiles
from pylyap.plotting.style import (
    band,
    canvas,
    checked,
    entitle,
    log_scale,
    palette,
    per_curve,
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
    """Mean distance of perturbed copies to their run, on a logarithmic scale.

    Lines are medians over the runs, bands their quartiles; a line for each size of the perturbation
    and a panel for each of the curves of a batch (n_curves, n_runs). Zeros are left out.

    Parameters
    ----------
    ensemble
        Result of `perturbation_ensemble` with batch shape (), (n_runs,) or (n_curves, n_runs).
    titles
        A name for each panel.
    title
        A line above the panels.

    Raises
    ------
    ValueError
        If there are more than two batch axes, or `titles` does not name each panel.
    ImportError
        If Matplotlib is not installed.
    """
    eps = np.atleast_1d(np.asarray(ensemble.settings["eps"]))
    several = isinstance(ensemble.settings["eps"], list)
    mean = ensemble.mean if several else ensemble.mean[..., np.newaxis, :]
    values = per_curve("ensemble", np.where(mean > 0, mean, np.nan), mean.ndim - 2)
    panels = len(values)
    if titles is not None and len(titles) != panels:
        raise ArgumentError("titles", f"must name {panels} panels, got {len(titles)}")
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

    Above, for each of the curves of a batch (n_curves, n_runs): the mean over the runs kept with
    their standard deviation (points and bars), the median of all runs and of lines until saturation
    with quartiles, and the leading Lyapunov exponent (grey: median and quartiles). Below, the
    distribution of the slopes of best windows, one line for each size (of many, five among them).

    Parameters
    ----------
    growth
        Result of `compare_growth` with batch shape (), (n_runs,) or (n_curves, n_runs).
    titles
        A name for each panel.
    title
        A line above the panels.

    Raises
    ------
    ValueError
        If there are more than two batch axes, or `titles` does not name each panel.
    ImportError
        If Matplotlib is not installed.
    """
    depth = growth.exponent.ndim
    best, whole, exponent = (
        per_curve("growth", values, depth)
        for values in (growth.best_window.slope, growth.until_saturation.slope, growth.exponent)
    )
    n, eps = len(best), growth.eps
    mean, spread = growth.mean.reshape(n, -1), np.nan_to_num(growth.spread).reshape(n, -1)
    if titles is not None and len(titles) != n:
        raise ArgumentError("titles", f"must name {n} panels, got {len(titles)}")
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
            some = np.unique(np.linspace(0, len(eps) - 1, 5).round().astype(int))
            for j, color in zip(some, palette(len(some)), strict=True):
                fine = best[i, np.isfinite(best[i, :, j]), j]
                if fine.size:
                    share, name = np.histogram(fine, edges)[0] / fine.size, f"{eps[j]:.0e}"
                    below.stairs(share, edges, color=color, linewidth=1.2, label=name)
            if (eps > 0).all():
                rates.set_xscale("log")
            rates.set(xlabel=r"size of the perturbation $\varepsilon$")
            below.set(xlabel="slope of the best window, nats per step")
            if titles is not None:
                rates.set_title(titles[i])
        axes[0, 0].set(ylabel="growth, nats per step")
        axes[1, 0].set(ylabel="share of the runs")
        axes[1, -1].legend(title=r"$\varepsilon$", loc="upper right")
        names = ["leading exponent", "best window, all runs", "until saturation"]
        names.append("best window, runs kept")
        entitle(figure, handles, names, title)
    return figure
