"""Figures of the study, drawn from the results of its experiments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pylyap.papers.danovski2024.experiments import nearest
from pylyap.papers.danovski2024.panels import (
    DARK,
    DOTS,
    LIGHT,
    STEP,
    THIN,
    example_panel,
    examples,
    legend_of_sizes,
    over_time,
    scaled_panel,
    size_text,
    with_error,
)
from pylyap.plotting.style import canvas, entitle, palette, tidy_log_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pylyap._perturbations.comparison import GrowthComparison
    from pylyap.papers.danovski2024.results import ChaoticSeries, LowRate, Perturbed, Trained


_LENGTHS = ("sepal length", "sepal width", "petal length", "petal width")
_SPECIES = ("setosa", "versicolor", "virginica")


def iris(low: LowRate) -> Figure:
    """Iris data with the samples that the first run finally misclassifies.

    Parameters
    ----------
    low : LowRate
        Result of `low_rate`.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    X_train, y_train, X_test, y_test = low.task.flowers
    lengths, species = np.concatenate([X_train, X_test]), np.concatenate([y_train, y_test])
    predicted = low.task.network.predict(low.final[0], lengths).argmax(axis=-1)
    wrong, test = predicted != species, np.arange(len(species)) >= len(y_train)
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
        counts = f"{wrong[~test].sum()} of {len(y_train)} training samples are misclassified, "
        counts += f"{wrong[test].sum()} of {test.sum()} test samples"
        entitle(
            figure,
            [*handles[0:5:2], handles[5], handles[6]],
            [*_SPECIES, "test sample", "misclassified"],
            f"Run 1 after {low.steps[-1]} steps: {counts}",
        )
    return figure


def distances(low: LowRate) -> Figure:
    """Distances and loss of the first three runs.

    Parameters
    ----------
    low : LowRate
        Result of `low_rate`.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    return over_time(low)


def long_run(long: Perturbed) -> Figure:
    """Distances and loss of the first three long runs.

    Parameters
    ----------
    long : Perturbed
        Runs with perturbed copies.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    return over_time(long)


def sizes(low: LowRate) -> Figure:
    """Distances of the first run for four perturbation sizes.

    Parameters
    ----------
    low : LowRate
        Result of `low_rate`.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
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
    """Relative loss without each weight of the first layer, and displacement of the weights.

    Parameters
    ----------
    low : LowRate
        Result of `low_rate`.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
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
    """Scaled distances of the first run, and displacements of all runs, for all sizes.

    Parameters
    ----------
    low : LowRate
        Result of `low_rate`.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    with canvas((9.0, 4.4)) as figure:
        left, right = figure.subplots(1, 2)
        lines = scaled_panel(left, low, 0)
        left.set(xlabel=STEP, ylabel=r"$\langle d(t) \rangle\,/\,\varepsilon N$")
        left.set_title("Run 1")
        mean, spread = low.displacement.mean(axis=-1), low.displacement.std(axis=-1)
        for r in (*range(1, len(mean)), 0):
            color = "0.7" if r else DARK
            right.errorbar(low.eps, mean[r], spread[r], color=color, fmt="o-", markersize=3)
        right.set(xscale="log", ylim=(0, None))
        right.set(xlabel=r"$\varepsilon$", ylabel=r"displacement $\langle \Delta \rangle$")
        right.set_title("Mean over copies: run 1, others (grey)")
        legend_of_sizes(figure, lines, low.eps)
    return figure


def scaled_distances(runs: Perturbed) -> Figure:
    """Scaled distances of every run, for all sizes.

    Parameters
    ----------
    runs : Perturbed
        Runs with perturbed copies.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    count = len(runs.loss)
    across = min(count, 5)
    with canvas((2.0 * max(across, 3), 0.8 + 2.0 * -(-count // across))) as figure:
        axes = figure.subplots(-(-count // across), across, sharex=True, squeeze=False)
        for r, ax in enumerate(axes.ravel()):
            if r >= count:
                ax.set_axis_off()
                continue
            lines = scaled_panel(ax, runs, r)
            ax.set_title(f"run {r + 1}")
        for ax in axes[:, 0]:
            ax.set(ylabel=r"$\langle d(t) \rangle\,/\,\varepsilon N$")
        for ax in axes[-1]:
            ax.set(xlabel=STEP)
        legend_of_sizes(figure, lines, runs.eps)
    return figure


def after_learning(after: Perturbed) -> Figure:
    """Distances of copies of the first run that are perturbed after convergence.

    Parameters
    ----------
    after : Perturbed
        Runs with perturbed copies.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    with canvas((7.0, 4.4)) as figure:
        ax = figure.subplots()
        lines = [
            ax.plot(after.steps, values, color=color, linewidth=1.2)[0]
            for values, color in zip(after.mean[0], palette(len(after.eps)), strict=True)
        ]
        ax.set(yscale="log", xlabel=STEP, ylabel=r"$\langle d(t) \rangle$")
        ax.set_title(f"Run 1, perturbed at step {after.steps[0]}; learning rate {after.lr:g}")
        legend_of_sizes(figure, lines[::-1], after.eps[::-1])
    return figure


def norm(low: LowRate) -> Figure:
    """Growth of the L1 norm of the weights.

    Parameters
    ----------
    low : LowRate
        Result of `low_rate`.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    with canvas((6.0, 3.8)) as figure:
        ax = figure.subplots()
        for values, color in zip(low.travel.norm, palette(len(low.loss)), strict=True):
            ax.plot(low.travel.steps, values, color=color, linewidth=1.2)
        ax.set(xlabel=STEP, ylabel=r"$\Vert W \Vert = \Sigma\,|w|$")
        ax.set_title(f"{len(low.loss)} runs, learning rate {low.lr:g}")
    return figure


def edge(runs: Perturbed) -> Figure:
    """Distances and loss at the edge of stability: all steps, first steps, last steps.

    Parameters
    ----------
    runs : Perturbed
        Runs with perturbed copies.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
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
    """Growth rates of the selected runs, compared with those of all runs.

    Parameters
    ----------
    growth : GrowthComparison
        Result of `edge_growth`.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
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
    """Loss and norm of four runs, one of each regime where possible.

    These are, in the order of decreasing late exponents, the first run of each regime and then the
    remaining runs.

    Parameters
    ----------
    trained : Trained
        Result of `chaotic`.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    regime, exponent = trained.scan.regime[0], np.nan_to_num(trained.exponent, nan=-np.inf)
    rank = (-exponent).argsort(kind="stable")
    firsts = np.sort(np.unique(regime[rank], return_index=True)[1])
    shown = rank[[*firsts, *np.setdiff1d(np.arange(len(rank)), firsts)][:4]]
    with canvas((10.0, 4.6)) as figure:
        axes = figure.subplots(2, len(shown), sharex=True, sharey="row", squeeze=False)
        for (above, below), r in zip(axes.T, shown, strict=True):
            above.axhline(np.log(3.0), color="0.3", linewidth=0.8, linestyle=":", zorder=0)
            above.plot(trained.steps, trained.loss[r], **DOTS)
            below.plot(trained.steps, trained.norm[r], color=DARK, linewidth=0.8)
            rate = rf"$\lambda$ = {with_error(exponent[r], trained.scan.stderr[0, r])}"
            above.set_title(f"run {r + 1}: {regime[r]}\n{rate}")
            below.set(xlabel=STEP)
        axes[0, 0].set(ylabel="loss", ylim=(0, None))
        axes[1, 0].set(ylabel=r"$\Vert W \Vert$")
        late = trained.steps[-1] - trained.scan.steps[0]
        title = (
            f"Learning rate {trained.lr:g}; dotted: ln 3. Regime, and exponent with its standard "
            f"error, of the last {late} steps;\n"
            "periodic: within 5 %, and the exponent is not significantly above 0"
        )
        entitle(figure, [], None, title)
    return figure


def chaotic_series(series: ChaoticSeries) -> Figure:
    """Loss, its first fifty analysed steps, and its autocorrelation with the null band.

    Parameters
    ----------
    series : ChaoticSeries
        Result of `chaotic_series`.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    found = series.autocorrelation
    steps = np.arange(len(series.loss))
    with canvas((9.0, 5.4)) as figure:
        axes: dict[str, Axes] = figure.subplot_mosaic([["whole", "whole"], ["first", "lags"]])
        whole, first, lags = axes["whole"], axes["first"], axes["lags"]
        whole.axhline(np.log(3.0), color="0.3", linewidth=0.8, linestyle=":", zorder=0)
        whole.plot(steps, series.loss, **DOTS)
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
        first.set_title("First 50 analysed steps")
        lags.fill_between(found.lags, found.low, found.high, color="0.8", linewidth=0)
        lags.plot(found.lags, found.values, ".-", color=DARK, linewidth=0.8, markersize=4)
        lags.set(xlabel="lag", ylabel="autocorrelation")
        lags.set_title("Autocorrelation; grey: 95 % of shuffles")
        figure.align_ylabels([whole, first])
    return figure


def expansion(series: ChaoticSeries) -> Figure:
    """Local expansion rates: two examples, distribution, and dependence on the loss.

    Parameters
    ----------
    series : ChaoticSeries
        Result of `chaotic_series`.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    published, corrected = series.published, series.corrected
    with canvas((9.0, 6.2)) as figure:
        ((one, two), (rates, against)) = figure.subplots(2, 2)
        for ax, point, name in zip(
            (one, two), examples(published), ("exponential", "not exponential"), strict=True
        ):
            example_panel(ax, published, point, series.start, name)
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
        rates.set_title("Points with exponential growth")
        rates.legend(loc="upper right")
        against.axhline(series.tangent.exponents[0], color="0.3", linewidth=1.0, zorder=0)
        against.set(xlabel="loss at the reference point", ylabel=r"$\Lambda$ (nats per step)")
        against.set_title("Rates against the loss")
    return figure


def single_weights(series: ChaoticSeries) -> Figure:
    """Time series of the weight of each layer with the largest steps.

    Parameters
    ----------
    series : ChaoticSeries
        Result of `chaotic_series`.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    steps = np.arange(len(series.loss))
    some = slice(series.start, series.start + 50)
    with canvas((9.0, 4.4)) as figure:
        axes = figure.subplots(len(series.weights), 2, width_ratios=(2, 1), sharex="col")
        for (whole, first), values, name in zip(axes, series.weights, series.names, strict=True):
            whole.plot(steps, values, **DOTS)
            first.plot(steps[some], values[some], ".-", color=DARK, linewidth=0.8, markersize=4)
            whole.set(ylabel=name)
        for ax in axes[-1]:
            ax.set(xlabel=STEP)
        axes[0, 0].set_title(f"Run {series.run + 1}, learning rate {series.lr:g}: weights")
        axes[0, 1].set_title(f"50 steps from step {series.start}")
        figure.align_ylabels(axes[:, 0])
    return figure


def other_rates(others: Sequence[Trained]) -> Figure:
    """Loss of the first four runs at each learning rate, the highest rate first.

    Parameters
    ----------
    others : sequence of Trained
        Results of `other_rates`.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    order = sorted(others, key=lambda trained: -trained.lr)
    count = min(4, *(len(trained.loss) for trained in order))
    with canvas((10.0, 0.5 + 1.9 * len(order))) as figure:
        axes = figure.subplots(len(order), count, sharex=True, sharey="row", squeeze=False)
        for row, trained in zip(axes, order, strict=True):
            for r, ax in enumerate(row):
                ax.axhline(np.log(3.0), color="0.3", linewidth=0.8, linestyle=":", zorder=0)
                ax.plot(trained.steps, trained.loss[r], **DOTS)
                ax.set_title(f"run {r + 1}: {trained.scan.regime[0, r]}")
            row[0].set(ylabel=f"loss, learning\nrate {trained.lr:g}", yscale="log")
            tidy_log_axis(row[0].yaxis)
        for ax in axes[-1]:
            ax.set(xlabel=STEP)
        late = order[0].steps[-1] - order[0].scan.steps[0]
        entitle(figure, [], None, f"Dotted: ln 3. Regimes of the last {late} steps")
    return figure
