"""Plots of perturbed copies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from pylyap._statistics import quartiles
from pylyap.plotting.sheet import Target, plots, sheet
from pylyap.plotting.style import (
    LARGEST,
    Curves,
    Floats,
    band,
    evenly_spaced,
    log_scale,
    palette,
    require_names,
    step_label,
    tidy_log_axis,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pylyap._perturbations.comparison import GrowthComparison
    from pylyap._perturbations.ensembles import Ensemble


@plots("Ensemble")
def plot_ensemble(
    ensemble: Ensemble,
    *,
    titles: Sequence[str] | None = None,
    title: str | None = None,
    **target: Unpack[Target],
) -> Figure:
    """Mean distance between perturbed copies and their reference run, on a logarithmic scale.

    Lines are medians over the runs, bands the quartiles; one line per size of the perturbation and
    one panel for each setting of the optimiser, nine at most. Zeros are omitted, and
    distances above 1e250.

    Parameters
    ----------
    ensemble : Ensemble
        Result of `perturbation_ensemble`. Of two batch axes without names the first are the
        panels.
    titles : sequence of str, optional
        A name for each panel. By default the settings of the optimiser.
    title : str, optional
        Title above the panels.

    Returns
    -------
    matplotlib.figure.Figure
        The figure; ``figure.savefig(path)`` writes it.

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
    found = Curves("ensemble", ensemble, mean.shape[:-2])
    values, titles = _panels(
        found, found(np.where((mean > 0) & (mean < LARGEST), mean, np.nan)), titles
    )
    panels = len(values)
    with sheet((max(4.0 * min(panels, 3), 6.0), 3.6 * -(-panels // 3)), target) as page:
        axes = page.wrapped(panels, 3, sharey=True)
        lines: list[Any] = []
        for p, ax in enumerate(axes):
            lines = [
                band(ax, ensemble.steps, values[p, :, j], color)
                for j, color in enumerate(palette(len(eps)))
            ]
            ax.set(yscale=log_scale(values), xlabel=step_label(ensemble))
            tidy_log_axis(ax.yaxis)
            if titles is not None:
                ax.set_title(titles[p])
        for ax in axes[::3]:
            ax.set(ylabel=f"mean distance ({ensemble.settings['norm']})")
        page.entitle(lines, [rf"$\varepsilon$ = {e:g}" for e in eps], title)
    return page.figure


@plots("GrowthComparison")
def plot_growth(
    growth: GrowthComparison,
    *,
    titles: Sequence[str] | None = None,
    title: str | None = None,
    **target: Unpack[Target],
) -> Figure:
    """Growth rates against the size of the perturbation, and their distribution over the runs.

    The top panels, one for each setting of the optimiser, show the mean over the runs kept
    with its standard deviation (points with bars), the median over all runs of the best window and
    of the fit until saturation with quartiles, and the leading Lyapunov exponent (grey: median and
    quartiles). The bottom panels show the distribution of the slopes of best windows, one line per
    size, five at most.

    Parameters
    ----------
    growth : GrowthComparison
        Result of `compare_growth`. Of two batch axes without names the first are the panels.
    titles : sequence of str, optional
        A name for each panel. By default the settings of the optimiser.
    title : str, optional
        Title above the panels.

    Returns
    -------
    matplotlib.figure.Figure
        The figure; ``figure.savefig(path)`` writes it.

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
    found = Curves("growth", growth, np.shape(growth.exponent))
    best, titles = _panels(found, found(growth.best_window.slope), titles)
    whole, exponent, kept = (
        _panels(found, found(values), None)[0]
        for values in (growth.until_saturation.slope, growth.exponent, growth.kept)
    )
    n, eps = len(best), growth.eps
    mean, spread = _of_kept(best, kept > 0)
    seen = best[np.isfinite(best)]
    low, high = (seen.min(), seen.max()) if seen.size else (0.0, 1.0)
    edges = np.linspace(min(low, 0.0), max(high, low + 1e-9), 31)
    dark, middle, light = palette(3)
    with sheet((max(4.0 * n, 6.0), 5.4), target) as page:
        axes = page.subplots(2, n, sharex="row", sharey="row")
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
                tidy_log_axis(rates.xaxis)
            rates.set(xlabel=r"size of the perturbation $\varepsilon$")
            below.set(xlabel="slope of the best window, nats per step")
            if titles is not None:
                rates.set_title(titles[i])
        axes[0, 0].set(ylabel="growth rate, nats per step")
        axes[1, 0].set(ylabel="fraction of runs")
        axes[1, -1].legend(title=r"$\varepsilon$", loc="upper right")
        names = ["leading exponent", "best window, all runs", "fit until saturation"]
        names.append("best window, runs kept")
        page.entitle(handles, names, title)
    return page.figure


_MOST_PANELS = 9


def _panels(
    found: Curves, values: Floats, titles: Sequence[str] | None
) -> tuple[Floats, Sequence[str] | None]:
    """Values and titles of the panels: of many settings some, evenly spaced, unless named."""
    if titles is not None:
        require_names("titles", titles, found.n, "panels")
        return values, titles
    shown = evenly_spaced(found.n, _MOST_PANELS)
    names = None if found.labels is None else [found.labels[i] for i in shown]
    return values[shown], names


def _of_kept(slopes: Floats, kept: Any) -> tuple[Floats, Floats]:
    """Mean and sample standard deviation (n, n_eps) of the slopes (n, n_runs, n_eps) kept."""
    number = kept.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(kept, slopes, 0.0).sum(axis=1) / number
        apart = np.where(kept, slopes - mean[:, np.newaxis], 0.0)
        spread = np.sqrt((apart**2).sum(axis=1) / (number - 1))
    return mean, np.where(number > 1, spread, 0.0)
