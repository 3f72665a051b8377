"""Plots of weight deviations and of letters in weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import ArrayLike

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._errors import ArgumentError
from pylyap._statistics import quartiles
from pylyap._weights.deviation import JointHistogram, WeightDeviation
from pylyap._weights.letters import legibility
from pylyap.plotting.sheet import Target, plots, sheet
from pylyap.plotting.style import (
    Curves,
    band,
    palette,
    reference_line,
    require_names,
    tidy_log_axis,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@plots("WeightDeviation")
def plot_deviation(
    deviation: WeightDeviation,
    *,
    scopes: Sequence[str] | None = None,
    at: int = -1,
    title: str | None = None,
    **target: Unpack[Target],
) -> Figure:
    """Weight deviations δ = w_f − w_i as a function of the initial weight w_i.

    One column per scope. The top panel shows the median of δ in each bin, quartiles (dark band),
    the 2–25 % and 75–98 % bands (light) and the mode (dots). The panels below show standard
    deviation, skewness and excess kurtosis. With several runs, curves are medians over the runs
    that are finite.

    Parameters
    ----------
    deviation : WeightDeviation
        Result of `weight_deviation`, with bins.
    scopes : sequence of str, optional
        Names out of `deviation.scopes`; all of them by default.
    at : int, default -1
        Index of the snapshot, if there are several.
    title : str, optional
        Title above the panels.

    Returns
    -------
    matplotlib.figure.Figure
        The figure; ``figure.savefig(path)`` writes it.

    Raises
    ------
    ArgumentError
        If there are no bins, or no such scope or snapshot.
    ImportError
        If Matplotlib is not installed.

    Examples
    --------
    >>> import pylyap as pl
    >>> net = pl.Network((2, 3, 1))
    >>> w_i = net.init(runs=50, seed=0)
    >>> deviation = pl.weight_deviation(w_i, 1.1 * w_i, net, bins=5)
    >>> figure = pl.plotting.plot_deviation(deviation, scopes=["layer 0"])
    >>> len(figure.axes)
    4
    """
    names = list(deviation.scopes) if scopes is None else list(scopes)
    unknown = [name for name in names if name not in deviation.scopes]
    if unknown or not names:
        raise ArgumentError("scopes", f"must be out of {deviation.scopes}, got {scopes}")
    if deviation.settings["bins"] == 0:
        raise ArgumentError("deviation", "must have bins, got bins=0")
    chosen = [deviation.scopes.index(name) for name in names]
    quantiles, peak, variance, skewness, kurtosis = (
        _median_over_runs(deviation, array, at, depth)
        for array, depth in (
            (deviation.bin_quantiles, 3),
            (deviation.bin_peak, 2),
            (deviation.bin_variance, 2),
            (deviation.bin_skewness, 2),
            (deviation.bin_kurtosis, 2),
        )
    )
    rms = _median_over_runs(deviation, deviation.rms, at, 1)
    moments = {
        "standard deviation": np.sqrt(variance),
        "skewness": skewness,
        "excess kurtosis": kurtosis,
    }
    with sheet((max(3.2 * len(names), 5.0), 7.2), target) as page:
        axes = page.subplots(
            1 + len(moments),
            len(names),
            sharex="col",
            height_ratios=[2.4] + [1.0] * len(moments),
        )
        color = palette(1)[0]
        lines: list[Any] = []
        for column, s in zip(axes.T, chosen, strict=True):
            x = deviation.centres[s]
            top = column[0]
            reference_line(top)
            bands = _draw_bands(top, x, quantiles[s], color)
            (dots,) = top.plot(x, peak[s], "o", color="#c8553d", markersize=2.2, markeredgewidth=0)
            lines = lines or [*bands, dots]  # of the main panel, whose figure has the legend
            top.set_title(f"{deviation.scopes[s].capitalize()}, rms {rms[s]:.3g}")
            for ax, curve in zip(column[1:], moments.values(), strict=True):
                ax.plot(x, curve[s], color=color, linewidth=1.2)
            column[1].set(ylim=(0, None))
            for ax in column[2:]:
                reference_line(ax)
            column[-1].set(xlabel=r"initial weight $w_i$")
        axes[0, 0].set(ylabel=r"$\delta = w_f - w_i$")
        for ax, name in zip(axes[1:, 0], moments, strict=True):
            ax.set(ylabel=name)
        page.align(axes[:, 0])
        page.entitle(lines, ["median", "25–75 %", "2–98 %", "mode"], title)
    return page.figure


@plots()
def plot_deviation_along(
    deviation: WeightDeviation,
    steps: ArrayLike,
    loss: ArrayLike | None = None,
    *,
    scope: int | str = 0,
    labels: Sequence[str] | None = None,
    time: str = "optimiser step",
    title: str | None = None,
    **target: Unpack[Target],
) -> Figure:
    """Root-mean-square weight deviation along training and, if given, against the loss.

    Lines are medians over the runs that are finite, bands the quartiles; against the loss there is
    one line per run.

    Parameters
    ----------
    deviation : WeightDeviation
        Result of `weight_deviation` with snapshots, of batch shape (), (n_runs,) or
        (n_curves, n_runs), such as one curve per learning rate.
    steps : array_like, shape (n_snapshots,)
        Times of the snapshots.
    loss : array_like, shape (..., n_snapshots), optional
        Loss at each snapshot.
    scope : int or str, default 0
        Index or name out of `deviation.scopes`.
    labels : sequence of str, optional
        A name for each of the n_curves curves.
    time : str, default "optimiser step"
        Label of the time axis.
    title : str, optional
        Title above the panels.

    Returns
    -------
    matplotlib.figure.Figure
        The figure; ``figure.savefig(path)`` writes it.

    Raises
    ------
    ArgumentError
        If there are no snapshots, more than two batch axes, or shapes do not match.
    ImportError
        If Matplotlib is not installed.

    Examples
    --------
    >>> import pylyap as pl
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent(lr=0.1))
    >>> w0 = net.init(runs=4, seed=0)
    >>> path = system.trajectory(w0, 20, every=5)
    >>> deviation = pl.weight_deviation(w0, path, net, bins=0)
    >>> figure = pl.plotting.plot_deviation_along(deviation, range(0, 21, 5), system.loss(path))
    >>> len(figure.axes)
    2
    """
    if not deviation.settings["snapshots"]:
        raise ArgumentError("deviation", "must have snapshots along training, got a single time")
    if isinstance(scope, str):
        scope = deviation.scopes.index(_checks.choice("scope", scope, deviation.scopes))
    scope = _checks.integer("scope", scope, least=0, most=len(deviation.scopes) - 1)
    values = deviation.rms[..., scope]
    found = Curves("deviation", deviation, values.shape[:-1], labels)
    rms = found(values)
    times = np.asarray(steps)
    if times.shape != rms.shape[-1:]:
        raise ArgumentError("steps", f"must have shape ({rms.shape[-1]},), got {times.shape}")
    losses = None
    if loss is not None:
        losses = _checks.floats("loss", loss, finite=False)
        if losses.shape != values.shape:
            raise ArgumentError("loss", f"must have shape {values.shape}, got {losses.shape}")
        losses = found(losses)
    with sheet((9.0 if losses is not None else 6.0, 3.6), target) as page:
        axes = page.subplots(1, 1 if losses is None else 2, sharey=True)[0]
        colors = palette(len(rms))
        lines = [band(axes[0], times, runs, c) for runs, c in zip(rms, colors, strict=True)]
        axes[0].set(xlabel=time, ylabel=f"rms deviation, {deviation.scopes[scope]}")
        axes[0].set(ylim=(0, None))
        if losses is not None:
            alpha = 1.0 if rms.shape[1] == 1 else 0.5
            for runs, curve, c in zip(rms, losses, colors, strict=True):
                axes[1].plot(curve.T, runs.T, color=c, linewidth=1.0, alpha=alpha)
            axes[1].set(xlabel="loss", xscale="log" if (losses > 0).any() else "linear")
            tidy_log_axis(axes[1].xaxis)
        page.entitle(*found.legend(lines), title)
    return page.figure


@plots("JointHistogram")
def plot_joint(
    histogram: JointHistogram,
    strips: Sequence[float] | None = None,
    width: float | None = None,
    *,
    title: str | None = None,
    **target: Unpack[Target],
) -> Figure:
    """Joint histogram of initial and final weights, and final weights for narrow strips.

    The left panel shows counts on a logarithmic scale, the line w_f = w_i, the median of w_f, its
    quartiles and its 2 and 98 % quantiles. The right panel shows the density of w_f for the initial
    weights in each strip; the strip is marked in the same colour on the histogram, its centre by a
    tick below the densities.

    Parameters
    ----------
    histogram : JointHistogram
        Result of `joint_histogram`.
    strips : sequence of float, optional
        Centres of the strips; five across the histogram by default.
    width : float, optional
        Width of a strip, at least one bin; a twentieth of the histogram by default.
    title : str, optional
        Title above the panels.

    Returns
    -------
    matplotlib.figure.Figure
        The figure; ``figure.savefig(path)`` writes it.

    Raises
    ------
    ArgumentError
        If a strip is not inside the histogram.
    ImportError
        If Matplotlib is not installed.

    Examples
    --------
    >>> import pylyap as pl
    >>> net = pl.Network((2, 3, 1))
    >>> w_i = net.init(runs=50, seed=0)
    >>> histogram = pl.joint_histogram(w_i, 1.1 * w_i, net, bins=20)
    >>> figure = pl.plotting.plot_joint(histogram, strips=[0.0], width=0.5)
    >>> figure.axes[0].get_xlabel()
    'initial weight $w_i$'
    """
    initial, final = histogram.initial, histogram.final
    span = initial[-1] - initial[0]
    width = 0.05 * span if width is None else width
    if strips is not None:
        given = _checks.sequence("strips", strips, "centres of strips", most=100)
        if not given:
            raise ArgumentError("strips", "must have at least one centre, got none")
        strips = [_checks.real(f"strips[{i}]", centre) for i, centre in enumerate(given)]
    if strips is None:
        strips = list(initial[0] + span * np.array([0.05, 0.275, 0.5, 0.725, 0.95]))
    try:
        cuts = [histogram.strip(centre, width) for centre in strips]
    except ValueError as error:
        raise ArgumentError("strips", f"and width must lie inside the histogram: {error}") from None
    colors = palette(len(cuts))
    with sheet((9.4, 4.4), target) as page:
        from matplotlib import colormaps
        from matplotlib.colors import ListedColormap, LogNorm

        left, right = page.subplots(1, 2, width_ratios=[1.15, 1.0])[0]
        most = max(int(histogram.counts.max()), 2)
        mesh = left.pcolormesh(
            initial,
            final,
            np.where(histogram.counts > 0, histogram.counts, np.nan).T,
            norm=LogNorm(1, most),
            cmap=ListedColormap(colormaps["Greys"](np.linspace(0.1, 0.75, 256))),
            rasterized=True,
        )
        left.figure.colorbar(mesh, ax=left, label="number of weights", pad=0.01, aspect=30)
        x = 0.5 * (initial[1:] + initial[:-1])
        low, high = max(initial[0], final[0]), min(initial[-1], final[-1])
        lines = []
        for levels, dash in (((2,), "-"), ((1, 3), "--"), ((0, 4), ":")):
            for level in levels:
                quantile = histogram.quantiles[:, level]
                (line,) = left.plot(x, quantile, dash, color="#2f7fb8", linewidth=1.4)
            lines.append(line)
        (same,) = left.plot([low, high], [low, high], color="#e4572e", linewidth=0.8)
        lines.append(same)
        below = right.get_xaxis_transform()
        for cut, color in zip(cuts, colors, strict=True):
            for edge in (0.0, 0.975):
                left.axvspan(cut.low, cut.high, edge, edge + 0.025, color=color, linewidth=0)
            density = np.where(cut.counts > 0, cut.density, np.nan)
            right.stairs(density, final, color=color, linewidth=1.2, baseline=None)
            centre = 0.5 * (cut.low + cut.high)
            right.plot(
                [centre], [0.0], "|", color=color, markersize=12, clip_on=False, transform=below
            )
        left.set(xlabel=r"initial weight $w_i$", ylabel=r"final weight $w_f$")
        left.set(xlim=(initial[0], initial[-1]), ylim=(final[0], final[-1]))
        runs = f"{histogram.n_runs} run{'s'[: histogram.n_runs != 1]}"
        left.set_title(f"{histogram.scope.capitalize()}, {runs}")
        right.set_title("Final weights of each strip (ticks)")
        right.set(xlabel=r"final weight $w_f$", ylabel="density", yscale="log")
        right.set(xlim=(final[0], final[-1]))
        names = ["median", "quartiles", "2 and 98 %", "$w_f = w_i$"]
        page.entitle(lines, names, title)
    return page.figure


@plots()
def plot_mark(
    matrix: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    titles: Sequence[str] | None = None,
    title: str | None = None,
    **target: Unpack[Target],
) -> Figure:
    """Absolute weights of a layer as an image: white is zero, dark is large.

    Parameters
    ----------
    matrix : array_like, shape (n_out, n_in) or (n, n_out, n_in)
        One matrix or several, each on its own scale up to the 99 % quantile of its absolute values.
    mask : array_like of bool, shape (n_out, n_in), optional
        A letter mask, whose legibility is added to the names.
    titles : sequence of str, optional
        A name for each matrix.
    title : str, optional
        Title above the panels.

    Returns
    -------
    matplotlib.figure.Figure
        The figure; ``figure.savefig(path)`` writes it.

    Raises
    ------
    ArgumentError
        If shapes do not match, or `titles` does not name each matrix.
    ImportError
        If Matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> import pylyap as pl
    >>> mask = np.zeros((8, 8), bool)
    >>> mask[2:6, 3] = True
    >>> figure = pl.plotting.plot_mark(np.where(mask, 1.0, 0.0), mask)
    >>> figure.axes[0].get_title(loc="left")
    'legibility 1.000'
    """
    values = _checks.floats("matrix", matrix, finite=False)
    if values.ndim not in (2, 3) or values.size == 0:
        raise ArgumentError(
            "matrix", f"must have shape (n_out, n_in) or (n, n_out, n_in), got {values.shape}"
        )
    sizes = np.abs(values.reshape(-1, *values.shape[-2:]))
    n, rows, columns = sizes.shape
    require_names("titles", titles, n, "matrices")
    names = [""] * n if titles is None else list(titles)
    if mask is not None:
        scores = np.atleast_1d(legibility(sizes, mask))
        names = [
            f"{name}{': ' if name else ''}legibility {score:.3f}"
            for name, score in zip(names, scores, strict=True)
        ]
    across = min(n, 4)
    down = -(-n // across)
    height = float(np.clip(3.0 * rows / columns, 0.8, 6.0)) + 0.4
    size = (max(3.2 * across, 3.6), height * down + 0.3 * (title is not None))
    with sheet(size, target) as page:
        page.layout("compressed")
        for ax, image, name in zip(page.wrapped(n, across), sizes, names, strict=True):
            finite = image[np.isfinite(image)]
            top = float(np.quantile(finite, 0.99)) if finite.size else 0.0
            ax.imshow(image, cmap="Greys", vmin=0.0, vmax=top or 1.0, interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            ax.spines[["top", "right"]].set_visible(True)
            ax.set_title(name)
        page.entitle([], None, title)
    return page.figure


def _draw_bands(ax: Axes, x: Floats, quantiles: Floats, color: Any) -> list[Any]:
    """Plot the median, quartiles and outer bands of quantiles (bins, 5)."""
    lowest, low, middle, high, highest = quantiles.T
    outer = ax.fill_between(x, lowest, highest, color=color, alpha=0.18, linewidth=0)
    inner = ax.fill_between(x, low, high, color=color, alpha=0.35, linewidth=0)
    (line,) = ax.plot(x, middle, color=color, linewidth=1.2)
    return [line, inner, outer]


def _median_over_runs(deviation: WeightDeviation, values: Floats, at: int, depth: int) -> Floats:
    """The median over the runs at one snapshot; the last `depth` axes are kept."""
    if deviation.settings["snapshots"]:
        n = values.shape[-depth - 1]
        at = _checks.integer("at", at, least=-n, most=n - 1)
        values = np.moveaxis(values, -depth - 1, 0)[at]
    return quartiles(values.reshape(-1, *values.shape[values.ndim - depth :]))[1]
