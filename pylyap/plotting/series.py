"""Plots of scalar series: autocorrelation and separation of near returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import numpy as np

from pylyap._errors import ArgumentError
from pylyap.plotting.sheet import Target, plots, sheet
from pylyap.plotting.style import palette, reference_line, tidy_log_axis

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

    from pylyap._perturbations.series import Autocorrelation, ExpansionRates


@plots("Autocorrelation")
def plot_autocorrelation(
    correlation: Autocorrelation,
    x: ArrayLike | None = None,
    *,
    title: str | None = None,
    **target: Unpack[Target],
) -> Figure:
    """Autocorrelation of a series with the interval of shuffled surrogates.

    Parameters
    ----------
    correlation : Autocorrelation
        Result of `autocorrelation` for one series.
    x : array_like, shape (T,), optional
        The series, drawn in a panel above.
    title : str, optional
        Title above the panels.

    Returns
    -------
    matplotlib.figure.Figure
        The figure; ``figure.savefig(path)`` writes it.

    Raises
    ------
    ArgumentError
        If there is more than one series.
    ImportError
        If Matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> import pylyap as pl
    >>> x = np.sin(np.arange(200.0))
    >>> figure = pl.plotting.plot_autocorrelation(pl.autocorrelation(x, 20, 10), x)
    >>> len(figure.axes)
    2
    """
    if correlation.values.ndim != 1:
        raise ArgumentError(
            "correlation", f"must be of one series, got values of shape {correlation.values.shape}"
        )
    series = None if x is None else np.asarray(x, float)
    if series is not None and series.ndim != 1:
        raise ArgumentError("x", f"must have shape (T,), got {series.shape}")
    with sheet((6.0, 3.2 if series is None else 5.0), target) as page:
        panels = 1 if series is None else 2
        axes = page.subplots(panels, 1, main=panels - 1)[:, 0]
        dark, _, light = palette(3)
        if series is not None:
            axes[0].plot(series, color=dark, linewidth=0.6)
            axes[0].set(xlabel="step", ylabel="series")
            axes[0].margins(x=0.01)
        ax = axes[-1]
        lags, low, high = correlation.lags[1:], correlation.low[1:], correlation.high[1:]
        surrogates = ax.fill_between(lags, low, high, color=light, alpha=0.4, linewidth=0)
        reference_line(ax)
        ax.plot(correlation.lags, correlation.values, color=dark, linewidth=1.0)
        ax.set(xlabel="lag, steps", ylabel="autocorrelation")
        ax.margins(x=0.01)
        page.entitle([surrogates], ["shuffled surrogates"], title)
    return page.figure


@plots("ExpansionRates")
def plot_expansion_rates(
    rates: ExpansionRates,
    x: ArrayLike | None = None,
    *,
    n_examples: int = 2,
    title: str | None = None,
    **target: Unpack[Target],
) -> Figure:
    """Separation of near returns of a series: examples, rates, and rates against the value.

    Parameters
    ----------
    rates : ExpansionRates
        Result of `expansion_rates`.
    x : array_like, shape (T,), optional
        The series it was computed from, for the panel of rates against its value.
    n_examples : int, default 2
        Number of reference points in the first panel, at evenly spaced ranks of the slope among the
        points whose growth is exponential, or among all if there is none.
    title : str, optional
        Title above the panels.

    Returns
    -------
    matplotlib.figure.Figure
        The figure; ``figure.savefig(path)`` writes it.

    Raises
    ------
    ArgumentError
        If shapes do not match or `n_examples` is below 1.
    ImportError
        If Matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> import pylyap as pl
    >>> x = np.full(500, 0.4)
    >>> for t in range(499):
    ...     x[t + 1] = 4 * x[t] * (1 - x[t])
    >>> rates = pl.expansion_rates(x, 1e-3, 50)
    >>> figure = pl.plotting.plot_expansion_rates(rates, x)
    >>> len(figure.axes)
    3
    """
    series = None if x is None else np.asarray(x, float)
    if series is not None and (series.ndim != 1 or len(series) <= rates.points.max(initial=0)):
        raise ArgumentError(
            "x", f"must have shape (T,) with T > {rates.points.max(initial=0)}, got {series.shape}"
        )
    if n_examples < 1:
        raise ArgumentError("n_examples", f"must be at least 1, got {n_examples}")
    fitted = np.flatnonzero(np.isfinite(rates.slope))
    chosen = fitted[rates.exponential[fitted]] if rates.exponential[fitted].any() else fitted
    ranked = chosen[np.argsort(rates.slope[chosen], kind="stable")]
    n_examples = min(n_examples, max(len(ranked), 1))
    rank = ((np.arange(n_examples) + 0.5) / n_examples * len(ranked)).astype(int)
    examples = np.unique(ranked[rank]) if len(ranked) else ranked
    grey, dark = "0.6", palette(1)[0]
    panels = 2 if series is None else 3
    with sheet((3.4 * panels, 3.4), target) as page:
        curves, density, *rest = page.subplots(1, panels)[0]
        for m, color in zip(examples, palette(max(len(examples), 2)), strict=False):
            steps = np.arange(rates.distances.shape[1])
            curves.plot(steps, rates.distances[m], "o", color=color, markersize=3)
            line = np.arange(1, rates.stop[m] + 1)
            name = f"slope {rates.slope[m]:.2g}"
            fit = np.exp(rates.intercept[m] + rates.slope[m] * line)
            curves.plot(line, fit, color=color, linewidth=1.2, label=name)
        curves.set(yscale="log", xlabel="steps", ylabel="mean distance of near returns")
        tidy_log_axis(curves.yaxis)
        if len(examples):
            curves.legend(loc="lower right")
        for points, color, name in (
            (fitted, grey, f"all {len(fitted)} fits"),
            (fitted[rates.exponential[fitted]], dark, "exponential (p ≤ 0.05)"),
        ):
            if points.size:
                edges = np.histogram_bin_edges(rates.slope[fitted], 40)
                density.hist(rates.slope[points], edges, color=color, label=name)
            if series is not None:
                at = series[rates.points[points]]
                rest[0].plot(at, rates.slope[points], ".", color=color, markersize=3)
        density.axvline(0.0, color="0.3", linewidth=0.8)
        density.set(xlabel="slope, nats per step", ylabel="number of reference points")
        if fitted.size:
            density.legend()
        for by_value in rest:
            reference_line(by_value)
            by_value.set(xlabel="value of the series", ylabel="slope, nats per step")
        page.entitle([], None, title)
    return page.figure
