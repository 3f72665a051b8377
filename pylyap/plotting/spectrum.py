"""Plots of Lyapunov spectra and finite-time exponents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from pylyap import _checks
from pylyap._errors import ArgumentError
from pylyap._statistics import quartiles
from pylyap.plotting.style import (
    Floats,
    band,
    canvas,
    checked,
    entitle,
    palette,
    per_curve,
    reference_line,
    require_names,
    whole_numbers,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pylyap._tangent.exponents import Spectrum


@checked
def plot_spectrum(
    spectrum: Spectrum,
    *,
    labels: Sequence[str] | None = None,
    leading: int | None = None,
    n_windows: int = 50,
    title: str | None = None,
) -> Figure:
    """Loss, leading finite-time exponents along training, and the Lyapunov spectrum.

    Lines and markers are medians over the runs that are finite, bands and bars the quartiles; with
    a single run the bars of the spectrum are its standard errors. A cross on the loss marks where a
    run became non-finite; a triangle on the lower edge of the spectrum marks an exponent that is
    −inf for most runs.

    Parameters
    ----------
    spectrum : Spectrum
        Result of `lyapunov_spectrum` with batch shape (), (n_runs,) or (n_curves, n_runs), such as
        n_curves learning rates.
    labels : sequence of str, optional
        A name for each of the n_curves curves.
    leading : int, optional
        Number of exponents along training. By default 3 for a single curve, 1 for several.
    n_windows : int, default 50
        Largest number of windows for the finite-time exponents.
    title : str, optional
        Title above the panels.

    Returns
    -------
    matplotlib.figure.Figure
        A figure outside pyplot; ``figure.savefig(path)`` writes it.

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
    curves = _curves(spectrum)
    n, k = len(curves), spectrum.exponents.shape[-1]
    require_names("labels", labels, n)
    leading = (3 if n == 1 else 1) if leading is None else leading
    for name, value in (("leading", leading), ("n_windows", n_windows)):
        if value < 1:
            raise ArgumentError(name, f"must be at least 1, got {value}")

    colors = palette(n)
    offsets = np.linspace(-0.25, 0.25, n) if n > 1 and k <= 15 else np.zeros(n)
    with canvas() as figure:
        axes: dict[str, Axes] = figure.subplot_mosaic([["loss", "spectrum"], ["ftle", "spectrum"]])
        axes["ftle"].sharex(axes["loss"])
        _draw_loss(axes["loss"], curves, colors)
        _draw_ftle(axes["ftle"], curves, colors, min(leading, k), n_windows)
        _draw_exponents(axes["spectrum"], curves, colors, offsets)
        figure.align_ylabels([axes["loss"], axes["ftle"]])
        entitle(figure, axes["loss"].get_legend_handles_labels()[0], labels, title)
    return figure


@checked
def plot_ftle(
    values: ArrayLike,
    steps: ArrayLike,
    *,
    labels: Sequence[str] | None = None,
    leading: int = 3,
    title: str | None = None,
) -> Figure:
    """Finite-time exponents along training: a panel for each of the leading ones.

    Lines are medians over the runs, bands the quartiles.

    Parameters
    ----------
    values : array_like, shape (n_runs, n_windows, k) or (n_curves, n_runs, n_windows, k)
        Result of `ftle`.
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
        A figure outside pyplot; ``figure.savefig(path)`` writes it.

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
    curves = per_curve("values", given, given.ndim - 2)
    panels = min(_checks.integer("leading", leading, least=1), given.shape[-1])
    require_names("labels", labels, len(curves))
    with canvas((max(3.2 * panels, 4.5), 3.2)) as figure:
        axes: list[Axes] = list(figure.subplots(1, panels, squeeze=False, sharey=True)[0])
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
        entitle(figure, lines, labels, title)
    return figure


@dataclass(frozen=True)
class _Curve:
    """The runs of one curve; all arrays but `times` have a leading axis of runs."""

    times: Floats  # (n_records + 1,) first step of each record, and the final step
    loss: Floats  # (n_runs, n_records + 1)
    growth: Floats  # (n_runs, n_records, k) nats
    exponents: Floats  # (n_runs, k) nats per step
    stderr: Floats  # (n_runs, k)


def _curves(spectrum: Spectrum) -> list[_Curve]:
    batch = spectrum.exponents.shape[:-1]
    if len(batch) > 2:
        raise ArgumentError(
            "spectrum", f"must have at most two batch axes, got batch shape {batch}"
        )
    shape = (1,) * (2 - len(batch)) + batch
    times = np.append(spectrum.steps, spectrum.steps[-1] + spectrum.settings["record_every"])
    fields = (spectrum.loss, spectrum.growth, spectrum.exponents, spectrum.stderr)
    rows = zip(*(a.reshape(shape + a.shape[len(batch) :]) for a in fields), strict=True)
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
        ax.set(yscale="log", ylim=(bottom, top))
        for curve, color in zip(curves, colors, strict=True):
            for loss in curve.loss:
                n_finite = np.count_nonzero(np.isfinite(loss))
                if 0 < n_finite < len(loss):
                    height = np.clip(loss[n_finite - 1], bottom, top)
                    ax.plot(curve.times[n_finite - 1], height, "x", color=color, clip_on=False)
    ax.set_title("Loss")
    ax.tick_params(labelbottom=False)


def _draw_ftle(
    ax: Axes, curves: list[_Curve], colors: Sequence[Any], leading: int, n_windows: int
) -> None:
    n_records = len(curves[0].times) - 1
    starts = np.arange(0, n_records, -(-n_records // n_windows))
    edges = np.append(curves[0].times[starts], curves[0].times[-1])
    centres, widths = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    reference_line(ax)
    for curve, color in zip(curves, colors, strict=True):
        growth = np.add.reduceat(curve.growth[..., :leading], starts, axis=1)
        low, middle, high = quartiles(growth / widths[:, np.newaxis])
        for i, strength in enumerate(np.linspace(1.0, 0.4, leading)):
            band = {"color": color, "alpha": 0.2 * strength, "linewidth": 0}
            ax.fill_between(centres, low[:, i], high[:, i], **band)
            name = rf"$\lambda_{{{i + 1}}}$"
            ax.plot(centres, middle[:, i], color=color, alpha=strength, linewidth=1.2, label=name)
    if leading > 1 and len(curves) == 1:
        ax.legend(loc="upper right", ncols=leading, handlelength=1.2)
    names = r"exponent $\lambda_1$" if leading == 1 else "exponents"
    ax.set_title(f"Finite-time {names}, windows of {widths[0]:g} steps")
    ax.set(xlabel="optimiser step", ylabel="nats per step")
    ax.margins(x=0.01)


def _draw_exponents(ax: Axes, curves: list[_Curve], colors: Sequence[Any], offsets: Floats) -> None:
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
        ax.errorbar(
            index,
            middle,
            bars,
            color=color,
            fmt="osD^vP"[i % 6],
            markersize=size,
            markeredgewidth=0,
            elinewidth=0.8,
        )
        for position in index[collapsed]:
            ax.plot(position, 0.0, "v", color=color, transform=edge, clip_on=False)
    sizes = np.abs(np.concatenate([curve.exponents.ravel() for curve in curves]))
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    if len(sizes) and sizes.max() > 30 * np.median(sizes):  # linear below the upper three decades
        ax.set_yscale("symlog", linthresh=10.0 ** (np.floor(np.log10(sizes.max())) - 2))
    whole_numbers(ax)
    ax.set_title("Lyapunov spectrum")
    ax.set(xlabel="index of the exponent", ylabel="nats per step")
    ax.set_xlim(0.5 - 0.01 * k, k + 0.5 + 0.01 * k)
