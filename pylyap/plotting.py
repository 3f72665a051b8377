"""Pictures of results, one function each. Matplotlib is imported when the first is drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .covariant import CovariantVectors
    from .ensembles import Ensemble
    from .exponents import Spectrum
    from .prediction import PredictionCurve, PredictionSkill
    from .sharpness import Sharpness

__all__ = [
    "plot_covariant",
    "plot_ensemble",
    "plot_gali",
    "plot_prediction",
    "plot_sharpness",
    "plot_skill",
    "plot_spectrum",
]

Floats: TypeAlias = NDArray[np.float64]

# Applied to our figures alone, never to the user's session.
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "figure.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.edgecolor": "0.3",
    "xtick.color": "0.3",
    "ytick.color": "0.3",
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "legend.frameon": False,
    "figure.constrained_layout.wspace": 0.04,
}


def plot_spectrum(
    spectrum: Spectrum,
    *,
    labels: Sequence[str] | None = None,
    leading: int | None = None,
    n_windows: int = 50,
    title: str | None = None,
) -> Figure:
    """Loss and leading finite-time exponents along training, and the whole window's spectrum.

    Lines and markers are medians over the runs that are still finite, bands and bars their
    quartiles; with a single run the bars of the spectrum are its standard errors. A cross on the
    loss marks where a run left the finite numbers, a triangle on the lower edge of the spectrum
    a direction that most runs destroy (−inf).

    Parameters
    ----------
    spectrum
        Result of `lyapunov_spectrum` with batch shape (), (n_runs,) or (n_curves, n_runs), such
        as a scan of n_curves learning rates.
    labels
        A name for each of the n_curves curves.
    leading
        How many exponents to follow along training. By default 3 for a single curve, 1 for more.
    n_windows
        Into how many windows at most the records are gathered for the finite-time exponents.
    title
        A line above the panels.

    Returns
    -------
    Figure
        9 by 4.8 inches, known to no window manager; `figure.savefig(path)` writes it.

    Raises
    ------
    ValueError
        If `spectrum` has more than two batch axes, `labels` does not name each curve, or
        `leading` or `n_windows` is below 1.
    ImportError
        If Matplotlib is not installed.
    """
    curves = _curves(spectrum)
    n, k = len(curves), spectrum.exponents.shape[-1]
    if labels is not None and len(labels) != n:
        raise ValueError(f"labels must name {n} curves, got {len(labels)}")
    leading = (3 if n == 1 else 1) if leading is None else leading
    for name, value in (("leading", leading), ("n_windows", n_windows)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")

    colors = _colors(n)
    offsets = np.linspace(-0.25, 0.25, n) if n > 1 and k <= 15 else np.zeros(n)
    with _figure() as figure:
        axes: dict[str, Axes] = figure.subplot_mosaic([["loss", "spectrum"], ["ftle", "spectrum"]])
        axes["ftle"].sharex(axes["loss"])
        _draw_loss(axes["loss"], curves, colors)
        _draw_ftle(axes["ftle"], curves, colors, min(leading, k), n_windows)
        _draw_exponents(axes["spectrum"], curves, colors, offsets)
        figure.align_ylabels([axes["loss"], axes["ftle"]])
        _entitle(figure, axes["loss"].get_legend_handles_labels()[0], labels, title)
    return figure


def plot_covariant(
    vectors: CovariantVectors,
    *,
    labels: Sequence[str] | None = None,
    title: str | None = None,
) -> Figure:
    """Growth of covariant vectors, the angles between them, and how far to trust them.

    Growth of the leading vector and the smallest angle between any two along the run (medians over
    the runs, bands their quartiles; dotted for early vectors), the distribution of that angle over
    all runs and times, and for each vector what the transients leave of a neighbour (mixing, marks)
    and how far it misses its own image (largest residual, crosses).

    Parameters
    ----------
    vectors
        Result of `covariant_lyapunov_vectors`, k >= 2, with batch shape (), (n_runs,) or
        (n_curves, n_runs).
    labels
        A name for each of the n_curves curves.
    title
        A line above the panels.

    Raises
    ------
    ValueError
        If there is one vector only, more than two batch axes, or `labels` does not name each curve.
    ImportError
        If Matplotlib is not installed.
    """
    if vectors.k < 2:
        raise ValueError("vectors must be at least two for an angle, got k=1")
    every = int(vectors.settings["every"])
    growth, angles, mixing, residual = (
        _per_curve("vectors", a, vectors.status.ndim)
        for a in (
            vectors.growth[..., 0] / every,
            np.degrees(vectors.angles().min(axis=-1)),
            vectors.mixing,
            vectors.residual.max(axis=-2),
        )
    )
    n = len(growth)
    if labels is not None and len(labels) != n:
        raise ValueError(f"labels must name {n} curves, got {len(labels)}")
    colors = _colors(n)
    with _figure() as figure:
        axes: dict[str, Axes] = figure.subplot_mosaic([["growth", "density"], ["angle", "trust"]])
        axes["angle"].sharex(axes["growth"])
        axes["growth"].axhline(0.0, color="0.3", linewidth=0.8, zorder=0)
        lines: list[Any] = []
        index = np.arange(1, vectors.k + 1)
        edges = np.linspace(0.0, 90.0, 46)
        for i, color in enumerate(colors):
            lines.append(_band(axes["growth"], vectors.steps[:-1], growth[i], color))
            _band(axes["angle"], vectors.steps, angles[i], color)
            seen = angles[i][np.isfinite(angles[i])]
            if seen.size:
                density = np.histogram(seen, edges, density=True)[0]
                axes["density"].stairs(density, edges, color=color, linewidth=1.2)
            axes["trust"].plot(index, _quartiles(mixing[i])[1], "o", color=color, markersize=4)
            axes["trust"].plot(index, _quartiles(residual[i])[1], "x", color=color, markersize=4)
        if vectors.early_coefficients is not None:
            early = np.degrees(vectors.angles(early=True).min(axis=-1))
            for runs, color in zip(
                _per_curve("vectors", early, vectors.status.ndim), colors, strict=True
            ):
                middle = _quartiles(runs)[1]
                axes["angle"].plot(vectors.steps, middle, ":", color=color, linewidth=1.2)
        axes["growth"].set_title("Growth of the leading vector")
        axes["growth"].set(ylabel="nats per step")
        axes["growth"].tick_params(labelbottom=False)
        axes["angle"].set_title("Smallest angle between two vectors")
        axes["angle"].set(xlabel="optimiser step", ylabel="degrees", ylim=(0, None))
        axes["density"].set_title("Smallest angle: distribution over runs and steps")
        axes["density"].set(xlabel="degrees", ylabel="density", xlim=(0, 90), ylim=(0, None))
        axes["density"].set_xticks(range(0, 90, 15))
        axes["trust"].set_title("What is left of a neighbour (o), missed image (x)")
        axes["trust"].set(xlabel="index of the vector", yscale="log")
        axes["trust"].axhline(1.0, color="0.3", linewidth=0.8, zorder=0)
        _whole_numbers(axes["trust"])
        _entitle(figure, lines, labels, title)
    return figure


def plot_prediction(
    curves: PredictionCurve | Sequence[PredictionCurve],
    *,
    highlight: Sequence[str] | None = None,
    titles: Sequence[str] | None = None,
) -> Figure:
    """Skill of early indicators as a function of when they are known, one panel per curve.

    Lines are areas under the ROC curve, bands their 95 % intervals; indicators that are not
    highlighted are thin and grey. One half is chance.

    Parameters
    ----------
    curves
        Results of `prediction_curve`.
    highlight
        Names of indicators. By default the loss, the outermost exponents, their sum, and angles.
    titles
        A name for each panel.

    Raises
    ------
    ValueError
        If there is no curve, `titles` does not name each, or no curve has a highlighted name.
    ImportError
        If Matplotlib is not installed.
    """
    from .prediction import PredictionCurve

    panels = [curves] if isinstance(curves, PredictionCurve) else list(curves)
    if not panels:
        raise ValueError("curves must have at least one curve, got none")
    if titles is not None and len(titles) != len(panels):
        raise ValueError(f"titles must name {len(panels)} curves, got {len(titles)}")
    if highlight is None:
        exponents = [name for name in panels[0].names if name.startswith("FTLE ")]
        outermost = dict.fromkeys(exponents[:1] + exponents[-1:])
        highlight = ["loss", *outermost, "sum of FTLEs", "smallest angle"]
    names = [name for name in highlight if any(name in curve.names for curve in panels)]
    if not names:
        raise ValueError(f"highlight must have names of {panels[0].names}, got {highlight}")
    colors = dict(zip(names, ["black", *_colors(max(len(names) - 1, 2))], strict=False))
    with _figure((4.8 * max(len(panels), 1.2), 4.0)) as figure:
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        handles: dict[str, Any] = {}
        for p, (ax, curve) in enumerate(zip(axes, panels, strict=True)):
            ax.axhline(0.5, color="0.3", linewidth=0.8, zorder=0)
            for m, name in enumerate(curve.names):
                fine = np.isfinite(curve.auc[m])
                x, auc = curve.known[m, fine], curve.auc[m, fine]
                if name not in colors:
                    (handles["other exponents"],) = ax.plot(
                        x, auc, color="0.7", linewidth=0.6, zorder=1
                    )
                    continue
                low, high = curve.low[m, fine], curve.high[m, fine]
                ax.fill_between(x, low, high, color=colors[name], alpha=0.15, linewidth=0)
                (handles[name],) = ax.plot(x, auc, color=colors[name], linewidth=1.4, zorder=3)
            ends = f"{curve.n_high} end above {curve.threshold:.2g}, {curve.n_low} below"
            ax.set_title(ends if titles is None else f"{titles[p]}: {ends}")
            ax.set(xlabel="known at optimiser step", ylim=(0, 1))
        axes[0].set(ylabel="area under the ROC curve")
        order = [name for name in (*names, "other exponents") if name in handles]
        _entitle(figure, [handles[name] for name in order], order, None)
    return figure


def plot_skill(skill: PredictionSkill, *, title: str | None = None) -> Figure:
    """ROC curve of an indicator: share of high runs found against share of low ones mistaken.

    Raises ImportError if Matplotlib is not installed.
    """
    with _figure((4.2, 4.2)) as figure:
        ax = figure.subplots()
        ax.plot([0, 1], [0, 1], color="0.3", linewidth=0.8)
        x, y = np.append(0.0, skill.false_positive), np.append(0.0, skill.true_positive)
        ax.plot(x, y, color=_colors(1)[0], linewidth=1.4)
        text = f"AUC {skill.auc:.3f} [{skill.low:.3f}–{skill.high:.3f}]"
        ax.text(0.98, 0.04, text, horizontalalignment="right")
        ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        ax.set(
            xlabel=f"share of {skill.n_low} low runs", ylabel=f"share of {skill.n_high} high runs"
        )
        if title is not None:
            ax.set_title(title)
    return figure


def plot_sharpness(
    sharpness: Sharpness,
    steps: Sequence[int] | NDArray[np.int64],
    *,
    labels: Sequence[str] | None = None,
    title: str | None = None,
) -> Figure:
    """Sharpness along training over what the learning rate bears: 1 is the edge of stability.

    Parameters
    ----------
    sharpness
        Result of `sharpness_along`, of batch shape (), (n_runs,) or (n_curves, n_runs).
    steps : (n_times,)
        Step of each time.
    labels
        A name for each of the n_curves curves.
    title
        A line above the panel.

    Raises
    ------
    ValueError
        If there are more than two batch axes, or `steps` or `labels` do not fit.
    ImportError
        If Matplotlib is not installed.
    """
    ratio = _per_curve("sharpness", sharpness.ratio, np.ndim(sharpness.ratio) - 1)
    n, times = ratio.shape[0], np.asarray(steps)
    if times.shape != ratio.shape[-1:]:
        raise ValueError(f"steps must have shape ({ratio.shape[-1]},), got {times.shape}")
    if labels is not None and len(labels) != n:
        raise ValueError(f"labels must name {n} curves, got {len(labels)}")
    with _figure((6.0, 3.6)) as figure:
        ax = figure.subplots()
        ax.axhline(1.0, color="0.3", linewidth=0.8, zorder=0)
        lines = [
            _band(ax, times, runs, color) for runs, color in zip(ratio, _colors(n), strict=True)
        ]
        ax.set(xlabel="optimiser step", ylabel="sharpness / edge of stability", ylim=(0, None))
        _entitle(figure, lines, labels, title)
    return figure


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
    values = _per_curve("ensemble", np.where(mean > 0, mean, np.nan), mean.ndim - 2)
    panels = len(values)
    if titles is not None and len(titles) != panels:
        raise ValueError(f"titles must name {panels} panels, got {len(titles)}")
    with _figure((max(4.0 * min(panels, 3), 6.0), 3.6 * -(-panels // 3))) as figure:
        axes = figure.subplots(-(-panels // 3), min(panels, 3), sharey=True, squeeze=False)
        lines: list[Any] = []
        for p, ax in enumerate(axes.ravel()):
            if p >= panels:
                ax.set_axis_off()
                continue
            lines = [
                _band(ax, ensemble.steps, values[p, :, j], color)
                for j, color in enumerate(_colors(len(eps)))
            ]
            ax.set(yscale="log", xlabel="optimiser step")
            if titles is not None:
                ax.set_title(titles[p])
        for row in axes:
            row[0].set(ylabel=f"mean distance ({ensemble.settings['norm']})")
        _entitle(figure, lines, [rf"$\varepsilon$ = {e:g}" for e in eps], title)
    return figure


def plot_gali(
    log_gali: Floats,
    steps: Sequence[int] | NDArray[np.int64],
    *,
    title: str | None = None,
) -> Figure:
    """Generalised alignment indices: median over the runs and quartiles, one line per order.

    Parameters
    ----------
    log_gali : (..., n_times, k - 1)
        Result of `gali`.
    steps : (n_times,)
        Step of each time.
    title
        A line above the panel.

    Raises ValueError if shapes do not fit, ImportError if Matplotlib is not installed.
    """
    values, times = np.asarray(log_gali, float), np.asarray(steps)
    if values.ndim < 2 or times.shape != values.shape[-2:-1]:
        raise ValueError(
            f"log_gali must have shape (..., n_times, k - 1) and steps (n_times,), "
            f"got {values.shape} and {times.shape}"
        )
    orders = values.shape[-1]
    runs = values.reshape(-1, *values.shape[-2:])
    with _figure((6.0, 3.6)) as figure:
        ax = figure.subplots()
        lines = [_band(ax, times, runs[..., j], color) for j, color in enumerate(_colors(orders))]
        ax.set(xlabel="step", ylabel="ln GALI")
        names = [rf"$\mathrm{{GALI}}_{{{j + 2}}}$" for j in range(orders)]
        _entitle(figure, lines, names, title)
    return figure


@contextmanager
def _figure(size: tuple[float, float] = (9.0, 4.8)) -> Iterator[Figure]:
    """A figure in our style, known to no window manager."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plotting needs Matplotlib: pip install 'pylyap[plot]'") from error
    with rc_context(STYLE):
        yield Figure(figsize=size, dpi=150, layout="constrained")


def _colors(n: int) -> list[Any]:
    """Dark to light: told apart by the colour-blind and in grey print, in the labels' order."""
    from matplotlib import colormaps

    return list(colormaps["viridis"](np.linspace(0.0, 0.82, n))) if n > 1 else ["#31688e"]


def _entitle(
    figure: Figure, lines: Sequence[Any], labels: Sequence[str] | None, title: str | None
) -> None:
    """A legend of these lines above the panels, under the title."""
    if labels is not None:
        figure.legend(
            lines,
            labels,
            loc="outside upper left",
            ncols=min(len(labels), 8),
            title=title,
            alignment="left",
            title_fontsize=10,
        )
    elif title is not None:
        figure.suptitle(title, x=0.01, horizontalalignment="left")


def _per_curve(name: str, values: Floats, depth: int) -> Floats:
    """values (batch..., ...) with a batch of `depth` axes as (n_curves, n_runs, ...)."""
    if depth > 2:
        raise ValueError(f"{name} must have at most two batch axes, got {depth}")
    return values.reshape((1,) * (2 - depth) + values.shape)


def _band(ax: Axes, times: Any, values: Floats, color: Any) -> Any:
    """The median of values (n_runs, n_times) and a band between the quartiles."""
    low, middle, high = _quartiles(values)
    ax.fill_between(times, low, high, color=color, alpha=0.2, linewidth=0)
    (line,) = ax.plot(times, middle, color=color, linewidth=1.2)
    return line


def _whole_numbers(ax: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


@dataclass(frozen=True)
class _Curve:
    """The runs of one curve: a leading axis of runs on all but the time axis."""

    times: Floats  # (n_records + 1,) first step of each record, and the end
    loss: Floats  # (n_runs, n_records + 1)
    growth: Floats  # (n_runs, n_records, k) nats
    exponents: Floats  # (n_runs, k) nats per step
    stderr: Floats  # (n_runs, k)


def _curves(spectrum: Spectrum) -> list[_Curve]:
    batch = spectrum.exponents.shape[:-1]
    if len(batch) > 2:
        raise ValueError(f"spectrum must have at most two batch axes, got batch shape {batch}")
    shape = (1,) * (2 - len(batch)) + batch
    times = np.append(spectrum.steps, spectrum.steps[-1] + spectrum.settings["record_every"])
    fields = (spectrum.loss, spectrum.growth, spectrum.exponents, spectrum.stderr)
    rows = zip(*(a.reshape(shape + a.shape[len(batch) :]) for a in fields), strict=True)
    return [_Curve(times.astype(np.float64), *row) for row in rows]


def _quartiles(values: Floats) -> tuple[Floats, Floats, Floats]:
    """Lower quartile, median, upper quartile of the finite values along the first axis, or nan."""
    values = np.where(np.isfinite(values), values, np.nan)
    some = ~np.isnan(values).all(axis=0)
    result = np.full((3, *values.shape[1:]), np.nan)
    result[:, some] = np.nanquantile(values[:, some], (0.25, 0.5, 0.75), axis=0)
    return result[0], result[1], result[2]


def _draw_loss(ax: Axes, curves: list[_Curve], colors: Sequence[Any]) -> None:
    seen = [curve.loss[:, 0] for curve in curves]  # what the y axis must hold
    for curve, color in zip(curves, colors, strict=True):
        low, middle, high = _quartiles(curve.loss)
        ax.fill_between(curve.times, low, high, color=color, alpha=0.2, linewidth=0)
        ax.plot(curve.times, middle, color=color, linewidth=1.2, label="loss")
        finished = np.isfinite(curve.loss[:, -1])
        seen += [low, middle, high] if finished.all() else [curve.loss[finished].ravel()]
    held = np.concatenate(seen)
    held = held[np.isfinite(held) & (held > 0)]
    if len(held):
        bottom, top = held.min() / 1.5, held.max() * 1.5
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
    ax.axhline(0.0, color="0.3", linewidth=0.8, zorder=0)
    for curve, color in zip(curves, colors, strict=True):
        growth = np.add.reduceat(curve.growth[..., :leading], starts, axis=1)
        low, middle, high = _quartiles(growth / widths[:, np.newaxis])
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
    ax.axhline(0.0, color="0.3", linewidth=0.8, zorder=0)
    for i, (curve, color, offset) in enumerate(zip(curves, colors, offsets, strict=True)):
        low, middle, high = _quartiles(curve.exponents)
        bars = curve.stderr[0] if len(curve.exponents) == 1 else [middle - low, high - middle]
        lost = np.isneginf(curve.exponents).mean(axis=0) > 0.5
        middle[lost] = np.nan
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
        for position in index[lost]:
            ax.plot(position, 0.0, "v", color=color, transform=edge, clip_on=False)
    sizes = np.abs(np.concatenate([curve.exponents.ravel() for curve in curves]))
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    if len(sizes) and sizes.max() > 30 * np.median(sizes):  # three decades, and what is below
        ax.set_yscale("symlog", linthresh=10.0 ** (np.floor(np.log10(sizes.max())) - 2))
    _whole_numbers(ax)
    ax.set_title("Lyapunov spectrum")
    ax.set(xlabel="index of the exponent", ylabel="nats per step")
    ax.set_xlim(0.5 - 0.01 * k, k + 0.5 + 0.01 * k)
