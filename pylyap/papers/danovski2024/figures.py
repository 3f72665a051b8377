"""The figures, each drawn from the numbers of its experiment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pylyap.papers.danovski2024.experiments import nearest
from pylyap.plotting.style import canvas, entitle, palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pylyap._perturbations.comparison import GrowthComparison
    from pylyap._perturbations.series import ExpansionRates
    from pylyap.papers.danovski2024.experiments import (
        ChaoticSeries,
        LowRate,
        Perturbed,
        Trained,
    )

Floats = NDArray[np.float64]

STEP = "optimiser step"
THIN: dict[str, Any] = {"color": "0.7", "linewidth": 0.5, "zorder": 1}
DARK, LIGHT = "#31688e", "#e08214"  # of two things in one panel

_LENGTHS = ("sepal length", "sepal width", "petal length", "petal width")
_SPECIES = ("setosa", "versicolor", "virginica")


def iris(low: LowRate) -> Figure:
    """The flowers, with those that the first run gets wrong in the end."""
    learnt, labels, unseen, its_labels = low.task.flowers
    lengths, species = np.concatenate([learnt, unseen]), np.concatenate([labels, its_labels])
    guess = low.task.network.predict(low.final[0], lengths).argmax(axis=-1)
    wrong, test = guess != species, np.arange(len(species)) >= len(labels)
    with canvas((8.0, 3.9)) as figure:
        axes = figure.subplots(1, 2)
        for ax, first in zip(axes, (0, 2), strict=True):
            handles = []
            for kind, color in enumerate(palette(3)):
                for part, marker in ((~test, "o"), (test, "^")):
                    x, y = lengths[(species == kind) & part].T[first : first + 2]
                    handles += ax.plot(x, y, marker, color=color, markersize=4.5, alpha=0.8)
            x, y = lengths[wrong].T[first : first + 2]
            look = {"markersize": 10, "markerfacecolor": "none", "markeredgecolor": LIGHT}
            handles += ax.plot(x, y, "o", markeredgewidth=1.4, **look)
            ax.set(xlabel=f"{_LENGTHS[first]} (cm)", ylabel=f"{_LENGTHS[first + 1]} (cm)")
        counts = f"{wrong[~test].sum()} of {len(labels)} that it learns are misclassified, "
        counts += f"{wrong[test].sum()} of {test.sum()} for test"
        entitle(
            figure,
            [*handles[0:5:2], handles[5], handles[6]],
            [*_SPECIES, "for test", "misclassified"],
            f"Run 1 after {low.steps[-1]} steps: {counts}",
        )
    return figure


def distances(low: LowRate) -> Figure:
    """Distances and loss of the first three runs."""
    return _over_time(low)


def long_run(long: Perturbed) -> Figure:
    """The same for a long time."""
    return _over_time(long)


def _over_time(runs: Perturbed) -> Figure:
    j = nearest(runs.eps, 1e-8)
    shown = min(3, len(runs.loss))
    with canvas((9.0, 4.4)) as figure:
        axes = figure.subplots(2, shown, sharex=True, squeeze=False)
        for r in range(shown):
            above, below = axes[:, r]
            above.plot(runs.steps, runs.loss[r], color=DARK)
            above.set_title(f"run {r + 1}")
            copies = runs.ensemble.distances[r, j] / runs.eps[j]
            below.plot(runs.steps, copies.T, **THIN)
            below.plot(runs.steps, runs.mean[r, j] / runs.eps[j], color=DARK, linewidth=1.4)
            above.set(ylim=(0, None))
            below.set(xlabel=STEP, ylim=(0, None))
        axes[0, 0].set(ylabel="loss")
        axes[1, 0].set(ylabel=rf"$d(t)\,/\,\varepsilon$, $\varepsilon$ = {size_text(runs.eps[j])}")
        title = f"{copies.shape[0]} copies (grey) and their mean; learning rate {runs.lr:g}"
        entitle(figure, [], None, title)
    return figure


def sizes(low: LowRate) -> Figure:
    """Distances of the first run for four sizes of the perturbation."""
    with canvas((8.0, 5.0)) as figure:
        axes = figure.subplots(2, 2, sharex=True)
        for ax, eps in zip(axes.ravel(), (1e-14, 1e-10, 1e-6, 1e-2), strict=True):
            j = nearest(low.eps, eps)
            ax.plot(low.steps, low.ensemble.distances[0, j].T, **THIN)
            ax.plot(low.steps, low.mean[0, j], color=DARK, linewidth=1.4)
            ax.set_title(rf"$\varepsilon$ = {size_text(low.eps[j])}", loc="right")
            ax.set(ylim=(0, None))
        for ax in axes[1]:
            ax.set(xlabel=STEP)
        for ax in axes[:, 0]:
            ax.set(ylabel="$d(t)$")
        entitle(figure, [], None, f"Run 1, copies (grey) and their mean; learning rate {low.lr:g}")
    return figure


def weights(low: LowRate) -> Figure:
    """What the loss would be without each weight of the first layer; how far weights travel."""
    from matplotlib.colors import LogNorm

    ratio = low.knock_out[0]
    with canvas((9.0, 4.2)) as figure:
        left, right = figure.subplots(1, 2)
        left.imshow(ratio, aspect="auto", norm=LogNorm(), cmap="viridis")
        middle = np.sqrt(ratio.min() * ratio.max())
        for (unit, feature), value in np.ndenumerate(ratio):
            color = "white" if value < middle else "black"
            left.text(feature, unit, f"{value:.2f}", color=color, ha="center", va="center")
        left.set_xticks(range(4), [name.replace(" ", "\n") for name in _LENGTHS])
        left.set_yticks(range(len(ratio)), [str(unit + 1) for unit in range(len(ratio))])
        left.set(ylabel="hidden unit")
        left.set_title(r"Run 1: loss without a weight, $L_w/L$")
        left.spines[:].set_visible(False)
        left.tick_params(length=0)
        moved, path = low.travel.weight_displacement, low.travel.path_length
        for r in (*range(1, len(moved)), 0):
            look = {"color": DARK, "zorder": 3} if r == 0 else {"color": "0.75"}
            right.plot(moved[r], path[r], ".", markersize=6 if r == 0 else 3, **look)
        right.set(xscale="log", yscale="log")
        right.set(xlabel=r"displacement $\Delta_w$", ylabel="path length $D_w$")
        right.set_title("Travel of each weight: run 1, and all runs (grey)")
    return figure


def scaling(low: LowRate) -> Figure:
    """Scaled distances of the first run, and displacement of all, for all sizes."""
    with canvas((9.0, 4.4)) as figure:
        left, right = figure.subplots(1, 2)
        lines = _scaled(left, low, 0)
        left.set(xlabel=STEP, ylabel=r"$\langle d(t) \rangle\,/\,\varepsilon N$")
        left.set_title("Run 1")
        mean, spread = low.displacement.mean(axis=-1), low.displacement.std(axis=-1)
        for r in (*range(1, len(mean)), 0):
            color = "0.7" if r else DARK
            right.errorbar(low.eps, mean[r], spread[r], color=color, fmt="o-", markersize=3)
        right.set(xscale="log", ylim=(0, None))
        right.set(xlabel=r"$\varepsilon$", ylabel=r"displacement $\langle \Delta \rangle$")
        right.set_title("Mean over copies: run 1, others (grey)")
        _legend_of_sizes(figure, lines, low.eps)
    return figure


def scaled_distances(runs: Perturbed) -> Figure:
    """Scaled distances of every run, for all sizes."""
    count = len(runs.loss)
    across = min(count, 5)
    with canvas((2.0 * max(across, 3), 0.8 + 2.0 * -(-count // across))) as figure:
        axes = figure.subplots(-(-count // across), across, sharex=True, squeeze=False)
        for r, ax in enumerate(axes.ravel()):
            if r >= count:
                ax.set_axis_off()
                continue
            lines = _scaled(ax, runs, r)
            ax.set_title(f"run {r + 1}")
        for ax in axes[:, 0]:
            ax.set(ylabel=r"$\langle d(t) \rangle\,/\,\varepsilon N$")
        for ax in axes[-1]:
            ax.set(xlabel=STEP)
        _legend_of_sizes(figure, lines, runs.eps)
    return figure


def _scaled(ax: Axes, runs: Perturbed, r: int) -> list[Any]:
    ax.axhline(0.5, color="0.3", linewidth=0.8, linestyle=":", zorder=0)
    lines = [
        ax.plot(runs.steps, values, color=color, linewidth=1.0)[0]
        for values, color in zip(runs.scaled[r], palette(len(runs.eps)), strict=True)
    ]
    ax.set(ylim=(0, 1.08 * np.nanmax(runs.scaled[r])))
    return lines


def _legend_of_sizes(figure: Figure, lines: Sequence[Any], eps: Floats) -> None:
    names = [size_text(size) for size in eps]
    figure.legend(
        lines, names, loc="outside right center", title=r"$\varepsilon$", handlelength=1.2
    )


def after_learning(after: Perturbed) -> Figure:
    """Distances of the first run's copies that part from it when it has learnt."""
    with canvas((7.0, 4.4)) as figure:
        ax = figure.subplots()
        lines = [
            ax.plot(after.steps, values, color=color, linewidth=1.2)[0]
            for values, color in zip(after.mean[0], palette(len(after.eps)), strict=True)
        ]
        ax.set(yscale="log", xlabel=STEP, ylabel=r"$\langle d(t) \rangle$")
        ax.set_title(f"Run 1, perturbed at step {after.steps[0]}; learning rate {after.lr:g}")
        _legend_of_sizes(figure, lines[::-1], after.eps[::-1])
    return figure


def norm(low: LowRate) -> Figure:
    """How the weights grow."""
    with canvas((6.0, 3.8)) as figure:
        ax = figure.subplots()
        for values, color in zip(low.travel.norm, palette(len(low.loss)), strict=True):
            ax.plot(low.travel.steps, values, color=color, linewidth=1.2)
        ax.set(xlabel=STEP, ylabel=r"$\Vert W \Vert = \Sigma\,|w|$")
        ax.set_title(f"{len(low.loss)} runs, learning rate {low.lr:g}")
    return figure


def edge(runs: Perturbed) -> Figure:
    """Distances and loss at the edge of stability: whole, first steps, last steps."""
    count = len(runs.loss)
    mean, copies = runs.mean[:, 0], runs.ensemble.distances[:, 0]
    first, last = runs.steps <= 200, runs.steps >= runs.steps[-1] - 50
    with canvas((2.4 * max(count, 3), 7.6)) as figure:
        axes = figure.subplots(4, count, squeeze=False)
        for r in range(count):
            for ax, part in zip(axes[:, r], (slice(None), first, last), strict=False):
                ax.plot(runs.steps[part], copies[r][:, part].T, **THIN)
                ax.plot(runs.steps[part], mean[r, part], color=DARK, linewidth=1.0)
            axes[3, r].plot(runs.steps, runs.loss[r], color=DARK, linewidth=0.8)
            axes[0, r].set_title(f"run {r + 1}")
            axes[3, r].set(xlabel=STEP)
        for row, name in enumerate(("$d$", "$d$, first 200 steps", "$d$, last 50 steps", "loss")):
            axes[row, 0].set(ylabel=name)
            for ax in axes[row]:
                ax.set(**({"yscale": "log"} if row in (1, 3) else {"ylim": (0, None)}))
        figure.align_ylabels(axes[:, 0])
        title = f"{copies.shape[1]} copies (grey) and their mean, "
        title += rf"$\varepsilon$ = {size_text(runs.eps[0])}; learning rate {runs.lr:g}"
        entitle(figure, [], None, title)
    return figure


def edge_growth(growth: GrowthComparison) -> Figure:
    """Rates of growth of the runs kept, and what they become when nothing is chosen."""
    slope, runs = growth.best_window.slope, growth.kept.shape[0]
    some = [nearest(growth.eps, eps) for eps in (1e-14, 1e-10, 1e-6, 1e-3)]
    least = growth.settings["least_slope"]
    largest = max(0.3, float(slope[growth.kept].max(initial=0.0)))
    bins = np.arange(least, largest + 0.025, 0.025)
    with canvas((9.0, 4.4)) as figure:
        left, right = figure.subplots(1, 2)
        for j, color in zip(some, palette(len(some)), strict=True):
            label = rf"$\varepsilon$ = {size_text(growth.eps[j])}, {growth.n_kept[j]} runs"
            kept = slope[growth.kept[:, j], j]
            if len(kept):
                density = np.histogram(kept, bins, density=True)[0]
                left.stairs(density, bins, color=color, linewidth=1.2, label=label)
        left.axvline(least, color="0.3", linewidth=0.8, linestyle=":")
        left.set(xlabel=r"$\Lambda$ (nats per step)", ylabel=r"$P(\Lambda)$", xlim=(0, None))
        left.set_title(f"Best window, kept of {runs} runs")
        left.legend()
        right.errorbar(
            growth.eps, growth.mean, growth.spread, color="black", fmt="o-", markersize=4,
            linewidth=1.2, label=r"$\lambda_{\mathrm{nMLE}}$: best window, runs kept",
        )  # fmt: skip
        for values, color, label in (
            (slope, DARK, "best window, all runs"),
            (growth.until_saturation.slope, LIGHT, "line until saturation, all runs"),
        ):
            right.plot(
                growth.eps, np.nanmean(values, axis=0), "s-", color=color, markersize=4, label=label
            )
        exponent, scatter = growth.exponent, np.nanstd(growth.exponent)
        centre = np.nanmean(exponent)
        right.axhspan(centre - scatter, centre + scatter, color="0.9", zorder=0)
        right.axhline(centre, color="0.4", linewidth=1.0, label="tangent exponent, all runs")
        right.set(xscale="log", xlabel=r"$\varepsilon$", ylabel="nats per step", ylim=(0, None))
        right.set_title("Mean over runs; bars, band: standard deviation")
        right.legend(loc="lower left")
    return figure


def chaotic(trained: Trained) -> Figure:
    """Loss and norm of four runs, one of each regime as far as there are: of the runs in the order
    of their late exponents, the first of each regime, then those left."""
    regime, exponent = trained.scan.regime[0], np.nan_to_num(trained.exponent, nan=-np.inf)
    rank = (-exponent).argsort(kind="stable")
    firsts = np.sort(np.unique(regime[rank], return_index=True)[1])
    shown = rank[[*firsts, *np.setdiff1d(np.arange(len(rank)), firsts)][:4]]
    with canvas((10.0, 4.6)) as figure:
        axes = figure.subplots(2, len(shown), sharex=True, sharey="row", squeeze=False)
        for (above, below), r in zip(axes.T, shown, strict=True):
            above.axhline(np.log(3.0), color="0.3", linewidth=0.8, linestyle=":", zorder=0)
            above.plot(trained.steps, trained.loss[r], ",", color=DARK, alpha=0.6)
            below.plot(trained.steps, trained.norm[r], color=DARK, linewidth=0.8)
            rate = round(float(exponent[r]), 3) + 0.0  # no negative zero
            above.set_title(rf"run {r + 1}: {regime[r]}, $\lambda$ = {rate:.3f}")
            below.set(xlabel=STEP)
        axes[0, 0].set(ylabel="loss", ylim=(0, None))
        axes[1, 0].set(ylabel=r"$\Vert W \Vert$")
        title = f"Learning rate {trained.lr:g}; dotted: ln 3. Regime and exponent of the last "
        entitle(figure, [], None, title + f"{trained.steps[-1] - trained.scan.steps[0]} steps")
    return figure


def chaotic_series(series: ChaoticSeries) -> Figure:
    """The loss, its first fifty analysed steps, and its autocorrelation in the null band."""
    found = series.autocorrelation
    steps = np.arange(len(series.loss))
    with canvas((9.0, 5.4)) as figure:
        axes: dict[str, Axes] = figure.subplot_mosaic([["whole", "whole"], ["first", "lags"]])
        whole, first, lags = axes["whole"], axes["first"], axes["lags"]
        whole.axhline(np.log(3.0), color="0.3", linewidth=0.8, linestyle=":", zorder=0)
        whole.plot(steps, series.loss, ",", color=DARK, alpha=0.5)
        whole.axvline(series.start, color=LIGHT, linewidth=1.0)
        late = series.loss[series.start :]
        low, high = late.min(), late.max()
        margin = 0.06 * (high - low) + 1e-9
        whole.set(xlabel=STEP, ylabel="loss", ylim=(low - margin, high + margin))
        whole.set_title(
            f"Run {series.run + 1}, learning rate {series.lr:g}; analysed from step {series.start}"
        )
        some = slice(series.start, series.start + 50)
        first.plot(steps[some], series.loss[some], ".-", color=DARK, linewidth=0.8, markersize=4)
        first.set(xlabel=STEP, ylabel="loss")
        first.set_title("First 50 of them")
        lags.fill_between(found.lags, found.low, found.high, color="0.8", linewidth=0)
        lags.plot(found.lags, found.values, ".-", color=DARK, linewidth=0.8, markersize=4)
        lags.set(xlabel="lag", ylabel="autocorrelation")
        lags.set_title("Autocorrelation; grey: 95 % of shuffles")
        figure.align_ylabels([whole, first])
    return figure


def expansion(series: ChaoticSeries) -> Figure:
    """Local expansion rates: two examples, distribution, and dependence on the loss."""
    published, corrected = series.published, series.corrected
    with canvas((9.0, 6.2)) as figure:
        ((one, two), (rates, against)) = figure.subplots(2, 2)
        for ax, point, name in zip(
            (one, two), _examples(published), ("exponential", "not exponential"), strict=True
        ):
            _draw_example(ax, published, point, series.start, name)
        both = (
            (published, DARK, "published rule"),
            (corrected, LIGHT, f"ten steps, Theiler {series.theiler}"),
        )
        slopes = [found.slope[found.exponential] for found, _, _ in both]
        bins = np.linspace(0.0, max(float(np.concatenate(slopes).max(initial=0.0)), 0.1), 41)
        for values, (found, color, name) in zip(slopes, both, strict=True):
            if len(values):
                density = np.histogram(values, bins, density=True)[0]
                rates.stairs(density, bins, color=color, linewidth=1.2, label=name)
            loss = series.loss[series.start + found.points[found.exponential]]
            against.plot(loss, values, ".", color=color, markersize=3, alpha=0.7)
        rates.axvline(
            series.tangent.exponents[0], color="0.3", linewidth=1.0, label="tangent exponent"
        )
        rates.set(xlabel=r"$\Lambda$ (nats per step)", ylabel=r"$P(\Lambda)$", xlim=(0, None))
        rates.set_title("Points that pass as exponential")
        rates.legend(loc="upper right")
        against.axhline(series.tangent.exponents[0], color="0.3", linewidth=1.0, zorder=0)
        against.set(xlabel="loss at the reference point", ylabel=r"$\Lambda$ (nats per step)")
        against.set_title("The same against the loss")
    return figure


def _examples(found: ExpansionRates) -> tuple[int | None, int | None]:
    """Of the exponential points that of the median rate, of the others that of the median R²."""
    result: list[int | None] = []
    for some, values in ((found.exponential, found.slope), (~found.exponential, found.r2)):
        those = np.flatnonzero(some & np.isfinite(values))
        middle = those[values[those].argsort()][len(those) // 2] if len(those) else None
        result.append(None if middle is None else int(middle))
    return result[0], result[1]


def _draw_example(
    ax: Axes, found: ExpansionRates, point: int | None, start: int, name: str
) -> None:
    ax.set(xlabel="steps $n$", ylabel="$d_n$", yscale="log")
    if point is None:
        ax.set_title(f"{name}: no point")
        return
    steps = np.arange(found.distances.shape[1])
    ax.plot(steps, found.distances[point], ".-", color=DARK, linewidth=0.8)
    line = steps[1 : found.stop[point] + 1]
    ax.plot(line, np.exp(found.intercept[point] + found.slope[point] * line), color=LIGHT)
    n = found.n_neighbours[point]
    returns = "1 return" if n == 1 else f"{n} returns"
    ax.set_title(
        rf"{name}: step {start + found.points[point]}, {returns}, "
        rf"$\Lambda$ = {found.slope[point]:.2f}"
    )


def single_weights(series: ChaoticSeries) -> Figure:
    """The weight of each layer that moves most from step to step along that run."""
    steps = np.arange(len(series.loss))
    some = slice(series.start, series.start + 50)
    with canvas((9.0, 4.4)) as figure:
        axes = figure.subplots(len(series.weights), 2, width_ratios=(2, 1), sharex="col")
        for (whole, first), values, name in zip(axes, series.weights, series.names, strict=True):
            whole.plot(steps, values, ",", color=DARK, alpha=0.5)
            first.plot(steps[some], values[some], ".-", color=DARK, linewidth=0.8, markersize=4)
            whole.set(ylabel=name)
        for ax in axes[-1]:
            ax.set(xlabel=STEP)
        axes[0, 0].set_title(f"Run {series.run + 1}, learning rate {series.lr:g}: weights")
        axes[0, 1].set_title(f"50 steps from {series.start} on")
        figure.align_ylabels(axes[:, 0])
    return figure


def other_rates(others: Sequence[Trained]) -> Figure:
    """Loss of the first four runs at each rate, the highest first."""
    from matplotlib.ticker import NullFormatter

    order = sorted(others, key=lambda trained: -trained.lr)
    count = min(4, *(len(trained.loss) for trained in order))
    with canvas((10.0, 0.5 + 1.9 * len(order))) as figure:
        axes = figure.subplots(len(order), count, sharex=True, sharey="row", squeeze=False)
        for row, trained in zip(axes, order, strict=True):
            for r, ax in enumerate(row):
                ax.axhline(np.log(3.0), color="0.3", linewidth=0.8, linestyle=":", zorder=0)
                ax.plot(trained.steps, trained.loss[r], ",", color=DARK, alpha=0.8)
                ax.set_title(f"run {r + 1}: {trained.scan.regime[0, r]}")
            row[0].set(ylabel=f"loss, lr = {trained.lr:g}", yscale="log")
            row[0].yaxis.set_minor_formatter(NullFormatter())
        for ax in axes[-1]:
            ax.set(xlabel=STEP)
        late = order[0].steps[-1] - order[0].scan.steps[0]
        entitle(figure, [], None, f"Dotted: ln 3. Regimes of the last {late} steps")
    return figure


def size_text(eps: float) -> str:
    return f"{eps:.0e}".replace("e-0", "e-")
