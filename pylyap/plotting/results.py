"""Plots of growth rates, growth laws, restart policies and strips of a histogram."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import numpy as np
from numpy.typing import ArrayLike

from pylyap import _checks
from pylyap._errors import ArgumentError
from pylyap.plotting.sheet import Target, plots, sheet
from pylyap.plotting.style import evenly_spaced, palette, tidy_log_axis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pylyap._perturbations.growth import GrowthLaw, GrowthRate
    from pylyap._prediction.restarts import RestartPolicy
    from pylyap._weights.deviation import WeightStrip

_MOST_LINES = 50


@plots("GrowthRate")
def plot_growth_rate(
    rate: GrowthRate,
    distances: ArrayLike | None = None,
    *,
    title: str | None = None,
    **target: Unpack[Target],
) -> Figure:
    """Fitted exponential growth of distances, over the records of each fit.

    Triangles on the lower edge mark saturation. At most 50 runs are drawn.

    Parameters
    ----------
    rate : GrowthRate
        Result of `growth_rate`.
    distances : array_like, shape (..., n_records), optional
        Mean distance of each run, drawn in grey.
    title : str, optional
        Title above the panel. By default the growth rate.

    Returns
    -------
    matplotlib.figure.Figure
        The figure; ``figure.savefig(path)`` writes it.

    Raises
    ------
    ArgumentError
        If the distances do not have the batch shape of the rates.
    ImportError
        If Matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> import pylyap as pl
    >>> distances = 1e-8 * np.exp(0.1 * np.arange(60))
    >>> rate = pl.growth_rate(distances, axis=None)
    >>> figure = pl.plotting.plot_growth_rate(rate, distances)
    >>> figure.get_suptitle()
    'slope 0.1 nats per record'
    """
    slope, intercept, start, stop, saturation = (
        np.ravel(a) for a in (rate.slope, rate.intercept, rate.start, rate.stop, rate.saturation)
    )
    series = None
    if distances is not None:
        given = _checks.floats("distances", distances, finite=False)
        if given.ndim == 0 or given.shape[:-1] != np.shape(rate.slope):
            raise ArgumentError(
                "distances",
                f"must have shape {(*np.shape(rate.slope), 'n_records')}, got {given.shape}",
            )
        series = given.reshape(-1, given.shape[-1])
    fitted = np.flatnonzero(np.isfinite(slope))
    shown = fitted[evenly_spaced(len(fitted), _MOST_LINES)] if fitted.size else fitted
    with sheet((5.4, 3.6), target) as page:
        ax = page.single()
        edge = ax.get_xaxis_transform()
        color = palette(1)[0]
        for i in shown:
            if series is not None:
                values = np.where(series[i] > 0, series[i], np.nan)
                ax.plot(values, color="0.65", linewidth=0.9, zorder=1)
            records = np.array([start[i], stop[i] - 1])
            line = np.exp(intercept[i] + slope[i] * records)
            ax.plot(records, line, color=color, linewidth=1.4, alpha=0.8)
            if saturation[i] >= 0:
                ax.plot(saturation[i], 0.0, "^", color="0.3", transform=edge, clip_on=False)
        ax.set(xlabel="record", ylabel="distance", yscale="log")
        tidy_log_axis(ax.yaxis)
        if title is None:
            title = _rate_text(slope[fitted], np.ravel(rate.stderr)[fitted])
        page.entitle([], None, title)
    return page.figure


def _rate_text(slopes: np.ndarray, errors: np.ndarray) -> str:
    if not slopes.size:
        return "no exponential growth"
    if slopes.size == 1:
        error = f" ± {errors[0]:.1g}" if errors[0] > 1e-12 * abs(slopes[0]) else ""
        return f"slope {slopes[0]:.4g}{error} nats per record"
    low, middle, high = np.quantile(slopes, [0.25, 0.5, 0.75])
    spread = f" ({low:.3g} … {high:.3g})" if high > low else ""
    return f"slope {middle:.3g}{spread} nats per record\nmedian and quartiles of {slopes.size} fits"


@plots("GrowthLaw")
def plot_growth_law(
    law: GrowthLaw, *, title: str | None = None, **target: Unpack[Target]
) -> Figure:
    """Akaike weights of the growth laws; of several runs their means.

    Dots are the fractions of the runs in which each law is the best.

    Parameters
    ----------
    law : GrowthLaw
        Result of `growth_law`.
    title : str, optional
        Title above the panel.

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
    >>> import numpy as np
    >>> import pylyap as pl
    >>> law = pl.growth_law(2.0 + 3.0 * np.arange(50.0), axis=None)
    >>> figure = pl.plotting.plot_growth_law(law)
    >>> figure.axes[0].get_xlabel()
    'Akaike weight'
    """
    weights = law.weight.reshape(-1, len(law.names))
    fitted = np.isfinite(weights).any(axis=1)
    mean = np.nan_to_num(weights[fitted]).mean(axis=0) if fitted.any() else np.zeros(len(law.names))
    best = np.ravel(law.best)
    shares = [float((best == name).mean()) for name in law.names]
    with sheet((4.8, 2.6), target) as page:
        ax = page.single()
        at = np.arange(len(law.names))[::-1]
        dark, _, light = palette(3)
        bars = ax.barh(at, mean, 0.6, color=light)
        ax.set_yticks(at, law.names)
        ax.set(xlabel="Akaike weight", xlim=(0, 1))
        if best.size > 1:
            ax.set(xlabel="Akaike weight, fraction of runs")
            (dots,) = ax.plot(shares, at, "o", color=dark, markersize=6, clip_on=False)
            names = ["mean Akaike weight", f"best law of the run, {best.size} runs"]
            page.entitle([bars, dots], names, title)
        else:
            page.entitle([], None, title)
    return page.figure


@plots("RestartPolicy")
def plot_restart_policy(
    policy: RestartPolicy, *, title: str | None = None, **target: Unpack[Target]
) -> Figure:
    """Expected steps until a run ends low, with and without stopping unpromising runs.

    Parameters
    ----------
    policy : RestartPolicy
        Result of `restart_policy`.
    title : str, optional
        Title above the panel. By default what is saved.

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
    >>> loss = [0.1, 0.1, 0.1, 2.0, 2.0, 2.0]
    >>> policy = pl.restart_policy(loss, loss, at=10, n_steps=100, folds=3)
    >>> figure = pl.plotting.plot_restart_policy(policy)
    >>> figure.axes[0].get_xlabel()
    'expected steps until a run ends low'
    """
    names = ["without stopping", f"stopping {policy.stopped:.0%} at step {policy.at}"]
    with sheet((5.4, 2.2), target) as page:
        ax = page.single()
        steps = np.array([policy.steps_without, policy.steps_per_good])
        ax.barh([1, 0], np.where(np.isfinite(steps), steps, 0.0), 0.6, color=palette(2))
        for y, value in zip((1, 0), steps, strict=True):
            ax.annotate(
                f" {value:.4g}", (value if np.isfinite(value) else 0.0, y), va="center", fontsize=8
            )
        ax.set_yticks([1, 0], names)
        ax.set(xlabel="expected steps until a run ends low")
        ax.margins(x=0.15)
        if title is None:
            verb = "Saves" if policy.saved >= 0 else "Costs"
            title = (
                f"{verb} {abs(policy.saved):.0%} of the steps\n"
                f"{policy.good_kept:.0%} of the continued runs end low, {policy.good:.0%} of all"
            )
        page.entitle([], None, title)
    return page.figure


@plots("WeightStrip")
def plot_strip(strip: WeightStrip, *, title: str | None = None, **target: Unpack[Target]) -> Figure:
    """Density of the final weights that started in a strip of initial weights.

    Parameters
    ----------
    strip : WeightStrip
        Result of `JointHistogram.strip`.
    title : str, optional
        Title above the panel. By default the range of the initial weights.

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
    >>> import numpy as np
    >>> import pylyap as pl
    >>> w_i = np.linspace(-1.0, 1.0, 100).reshape(10, 10)
    >>> strip = pl.joint_histogram(w_i, 2.0 * w_i, bins=4).strip(0.25)
    >>> figure = pl.plotting.plot_strip(strip)
    >>> figure.axes[0].get_ylabel()
    'density'
    """
    with sheet((5.0, 3.2), target) as page:
        ax = page.single()
        ax.axvspan(strip.low, strip.high, color="0.85", linewidth=0, zorder=0)
        density = np.nan_to_num(strip.density)
        ax.stairs(density, strip.edges, color=palette(1)[0], linewidth=1.2)
        ax.set(xlabel=r"final weight $w_f$", ylabel="density", ylim=(0, None))
        if title is None:
            title = f"{strip.counts.sum()} weights from {strip.low:.3g} … {strip.high:.3g} (grey)"
        page.entitle([], None, title)
    return page.figure
