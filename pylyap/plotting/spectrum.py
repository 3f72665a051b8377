"""Plots of Lyapunov spectra and finite-time exponents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import ArrayLike

from pylyap import _checks
from pylyap._errors import ArgumentError
from pylyap._statistics import quartiles
from pylyap.plotting.sheet import Target, plots, sheet
from pylyap.plotting.style import (
    Curves,
    Floats,
    band,
    palette,
    reference_line,
    step_label,
    symlog,
    tidy_log_axis,
    whole_numbers,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pylyap._tangent.exponents import Spectrum


@plots("Spectrum")
def plot_spectrum(
    spectrum: Spectrum,
    *,
    labels: Sequence[str] | None = None,
    leading: int | None = None,
    n_windows: int = 50,
    title: str | None = None,
    **target: Unpack[Target],
) -> Figure:
    """Loss, leading finite-time exponents along training, and the Lyapunov spectrum.

    There is one curve for each setting of the optimiser, such as a learning rate. Lines and markers
    are medians over the runs that are finite, bands and bars the quartiles; with a single run the
    bars of the spectrum are its standard errors. A cross on the loss marks where a run became
    non-finite; a triangle on the lower edge of the spectrum marks an exponent that is −inf for most
    runs. Maps without a loss have no panel of it.

    Parameters
    ----------
    spectrum : Spectrum
        Result of `lyapunov_spectrum`. Of two batch axes without names the first are the curves.
    labels : sequence of str, optional
        A name for each of the n_curves curves. By default the settings of the optimiser.
    leading : int, optional
        Number of exponents along training. By default 3 for a single curve, 1 for several.
    n_windows : int, default 50
        Largest number of windows for the finite-time exponents.
    title : str, optional
        Title above the panels.

    Returns
    -------
    matplotlib.figure.Figure
        The figure; ``figure.savefig(path)`` writes it.

    Raises
    ------
    ArgumentError
        If `spectrum` has more than two batch axes, `labels` does not name each curve, or `leading`
        or `n_windows` is below 1.
    ImportError
        If Matplotlib is not installed.

    Examples
    --------
    >>> import pylyap as pl
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent(lr=0.1))
    >>> w0 = net.init(runs=4, seed=0)
    >>> spectrum = pl.lyapunov_spectrum(system, w0, 50)
    >>> figure = pl.plotting.plot_spectrum(spectrum, title="four runs")
    >>> len(figure.axes)
    3
    """
    found = Curves("spectrum", spectrum, spectrum.exponents.shape[:-1], labels)
    curves = _curves(spectrum, found)
    n, k = found.n, spectrum.exponents.shape[-1]
    leading = (3 if n == 1 else 1) if leading is None else leading
    for name, value in (("leading", leading), ("n_windows", n_windows)):
        if value < 1:
            raise ArgumentError(name, f"must be at least 1, got {value}")

    colors = palette(n)
    offsets = np.linspace(-0.25, 0.25, n) if n > 1 and k <= 15 else np.zeros(n)
    has_loss = bool(np.isfinite(spectrum.loss).any())
    layout = [["loss", "spectrum"], ["ftle", "spectrum"]] if has_loss else [["ftle", "spectrum"]]
    with sheet((9.0, 4.8 if has_loss else 3.4), target) as page:
        axes = page.mosaic(layout, "spectrum")
        if has_loss:
            page.share(axes["ftle"], axes["loss"])
            _draw_loss(axes["loss"], curves, colors)
            page.align([axes["loss"], axes["ftle"]])
        lines = _draw_ftle(axes["ftle"], curves, colors, min(leading, k), n_windows)
        axes["ftle"].set_xlabel(step_label(spectrum) if has_loss else "step")
        markers = _draw_exponents(axes["spectrum"], curves, colors, offsets)
        page.entitle(*found.legend(list(zip(lines, markers, strict=True))), title)
    return page.figure


@plots()
def plot_ftle(
    values: ArrayLike,
    steps: ArrayLike,
    *,
    labels: Sequence[str] | None = None,
    leading: int = 3,
    title: str | None = None,
    **target: Unpack[Target],
) -> Figure:
    """Finite-time exponents along training: a panel for each of the leading ones.

    Lines are medians over the runs, bands the quartiles.

    Parameters
    ----------
    values : array_like, shape (n_runs, n_windows, k) or (n_curves, n_runs, n_windows, k)
        Result of `ftle`. With a name in `labels` for each entry of the first of three axes, that
        axis is one of curves.
    steps : array_like, shape (n_windows,)
        First step of each window.
    labels : sequence of str, optional
        A name for each of the n_curves curves.
    leading : int, default 3
        Number of exponents.
    title : str, optional
        Title above the panels.

    Returns
    -------
    matplotlib.figure.Figure
        The figure; ``figure.savefig(path)`` writes it.

    Raises
    ------
    ArgumentError
        If shapes do not match, `labels` does not name each curve, or `leading` is below 1.
    ImportError
        If Matplotlib is not installed.

    Examples
    --------
    >>> import pylyap as pl
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent(lr=0.1))
    >>> w0 = net.init(runs=4, seed=0)
    >>> values = pl.ftle(system, w0, 40, window=10, k=2)
    >>> figure = pl.plotting.plot_ftle(values, range(0, 40, 10))
    >>> len(figure.axes)
    2
    """
    given, times = _checks.floats("values", values, finite=False), np.asarray(steps)
    if given.ndim not in (3, 4) or times.shape != given.shape[-2:-1]:
        raise ArgumentError(
            "values",
            "must have shape (n_runs, n_windows, k) or (n_curves, n_runs, n_windows, k) and "
            f"steps (n_windows,), got {given.shape} and {times.shape}",
        )
    if given.ndim == 3 and labels is not None and len(labels) == len(given):
        given = given[:, np.newaxis]
    found = Curves("values", None, given.shape[:-2], labels)
    curves = found(given)
    panels = min(_checks.integer("leading", leading, least=1), given.shape[-1])
    with sheet((max(3.2 * panels, 4.5), 3.2), target) as page:
        axes = page.subplots(1, panels, sharey=True)[0]
        lines: list[Any] = []
        for i, ax in enumerate(axes):
            reference_line(ax)
            lines = [
                band(ax, times, runs[..., i], color)
                for runs, color in zip(curves, palette(len(curves)), strict=True)
            ]
            ax.set_title(rf"$\lambda_{{{i + 1}}}$")
            ax.set(xlabel="first step of the window")
        axes[0].set(ylabel="nats per step")
        page.entitle(*found.legend(lines), title)
    return page.figure


@dataclass(frozen=True)
class _Curve:
    """The runs of one curve; all arrays but `times` have a leading axis of runs."""

    times: Floats  # (n_records + 1,) first step of each record, and the final step
    loss: Floats  # (n_runs, n_records + 1)
    growth: Floats  # (n_runs, n_records, k) nats
    exponents: Floats  # (n_runs, k) nats per step
    stderr: Floats  # (n_runs, k)


def _curves(spectrum: Spectrum, found: Curves) -> list[_Curve]:
    times = np.append(spectrum.steps, spectrum.steps[-1] + spectrum.settings["record_every"])
    fields = (spectrum.loss, spectrum.growth, spectrum.exponents, spectrum.stderr)
    rows = zip(*(found(values) for values in fields), strict=True)
    return [_Curve(times.astype(np.float64), *row) for row in rows]


def _draw_loss(ax: Axes, curves: list[_Curve], colors: Sequence[Any]) -> None:
    seen = [curve.loss[:, 0] for curve in curves]  # values inside the limits of the y axis
    for curve, color in zip(curves, colors, strict=True):
        low, middle, high = quartiles(curve.loss)
        ax.fill_between(curve.times, low, high, color=color, alpha=0.2, linewidth=0)
        ax.plot(curve.times, middle, color=color, linewidth=1.2, label="loss")
        finished = np.isfinite(curve.loss[:, -1])
        seen += [low, middle, high] if finished.all() else [curve.loss[finished].ravel()]
    shown = np.concatenate(seen)
    shown = shown[np.isfinite(shown) & (shown > 0)]
    if len(shown):
        bottom, top = shown.min() / 1.5, shown.max() * 1.5
        ax.set(ylim=(bottom, top), yscale="log")  # in this order: margins of 1e300 overflow
        for curve, color in zip(curves, colors, strict=True):
            for loss in curve.loss:
                n_finite = np.count_nonzero(np.isfinite(loss))
                if 0 < n_finite < len(loss):
                    height = np.clip(loss[n_finite - 1], bottom, top)
                    ax.plot(curve.times[n_finite - 1], height, "x", color=color, clip_on=False)
        tidy_log_axis(ax.yaxis)
    ax.set_title("Loss")


def _draw_ftle(
    ax: Axes, curves: list[_Curve], colors: Sequence[Any], leading: int, n_windows: int
) -> list[Any]:
    """Plot the leading exponents; returns the line of the first one of each curve."""
    n_records = len(curves[0].times) - 1
    starts = np.arange(0, n_records, -(-n_records // n_windows))
    edges = np.append(curves[0].times[starts], curves[0].times[-1])
    centres, widths = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    reference_line(ax)
    first = []
    for curve, color in zip(curves, colors, strict=True):
        growth = np.add.reduceat(curve.growth[..., :leading], starts, axis=1)
        low, middle, high = quartiles(growth / widths[:, np.newaxis])
        for i, strength in enumerate(np.linspace(1.0, 0.4, leading)):
            band = {"color": color, "alpha": 0.2 * strength, "linewidth": 0}
            ax.fill_between(centres, low[:, i], high[:, i], **band)
            name = rf"$\lambda_{{{i + 1}}}$"
            style = {"color": color, "alpha": strength, "linewidth": 1.2, "label": name}
            (line,) = ax.plot(centres, middle[:, i], "-o"[: 1 + (len(centres) == 1)], **style)
            first += [line] if i == 0 else []
    if leading > 1 and len(curves) == 1:
        ax.legend(loc="best", ncols=leading, handlelength=1.2)
    names = r"exponent $\lambda_1$" if leading == 1 else "exponents"
    ax.set_title(f"Finite-time {names}, windows of {widths[0]:g} steps")
    ax.set(ylabel="nats per step")
    ax.margins(x=0.01)
    return first


def _draw_exponents(
    ax: Axes, curves: list[_Curve], colors: Sequence[Any], offsets: Floats
) -> list[Any]:
    """Plot the spectrum of each curve; returns its markers."""
    markers = []
    ax.set_ylabel("nats per step")
    k = curves[0].exponents.shape[1]
    size = float(np.clip(80 / k, 2.5, 5.0))
    edge = ax.get_xaxis_transform()
    reference_line(ax)
    for i, (curve, color, offset) in enumerate(zip(curves, colors, offsets, strict=True)):
        low, middle, high = quartiles(curve.exponents)
        bars = curve.stderr[0] if len(curve.exponents) == 1 else [middle - low, high - middle]
        collapsed = np.isneginf(curve.exponents).mean(axis=0) > 0.5
        middle[collapsed] = np.nan
        index = np.arange(1, k + 1) + offset
        points = ax.errorbar(
            index,
            middle,
            bars,
            color=color,
            fmt="osD^vP"[i % 6],
            markersize=size,
            markeredgewidth=0,
            elinewidth=0.8,
        )
        markers.append(points.lines[0])
        for position in index[collapsed]:
            ax.plot(position, 0.0, "v", color=color, transform=edge, clip_on=False)
    sizes = np.abs(np.concatenate([curve.exponents.ravel() for curve in curves]))
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    if len(sizes) and sizes.max() > 30 * np.median(sizes):  # linear below the upper three decades
        symlog(ax, 10.0 ** (np.floor(np.log10(sizes.max())) - 2))
    whole_numbers(ax)
    ax.set_title("Lyapunov spectrum")
    ax.set_xlabel("index of the exponent")
    ax.set_xlim(0.5 - 0.01 * k, k + 0.5 + 0.01 * k)
    return markers
