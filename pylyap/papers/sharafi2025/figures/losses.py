"""The network, the data, and where the loss ends."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from pylyap.papers.sharafi2025.definition import (
    HE,
    HIDDEN,
    N_POINTS,
    NAMES,
    WIDE,
    Floats,
    Initialisation,
    assumptions,
)
from pylyap.papers.sharafi2025.ensembles import Ensemble, density
from pylyap.papers.sharafi2025.figures.common import (
    COLORS,
    DARK,
    LIGHT,
    LOG_LOSS,
    caption,
    common_edges,
    counts,
    histogram,
    minus,
    split_at,
)
from pylyap.plotting.style import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def network(some: Sequence[Ensemble]) -> Figure:
    """Draw the network with its weights and their number.

    Parameters
    ----------
    some : sequence of Ensemble
        Result of `run_ensembles`; the first gives the network.

    Returns
    -------
    Figure
        The figure.
    """
    layers = some[0].system.network.layers
    names = (["$x_1$", "$x_2$"], [f"$h_{j + 1}$" for j in range(layers[1])], [r"$\hat y$"])
    with canvas((6.0, 3.5)) as figure:
        ax = figure.subplots()
        ax.set_axis_off()
        places = [
            [(2.4 * depth, 0.5 * (n - 1) - i) for i in range(n)] for depth, n in enumerate(layers)
        ]
        for before, after in pairwise(places):
            for x0, y0 in before:
                for x1, y1 in after:
                    ax.plot([x0, x1], [y0, y1], color="0.6", linewidth=0.9, zorder=1)
        for layer, texts, color in zip(places, names, ("0.85", DARK, LIGHT), strict=True):
            for (x, y), text in zip(layer, texts, strict=True):
                look: dict[str, Any] = {"markeredgecolor": "0.3", "markersize": 26}
                ax.plot(x, y, "o", color=color, zorder=2, **look)
                ink = "black" if color == "0.85" else "white"
                ax.text(x, y, text, ha="center", va="center", color=ink, zorder=3)
        m, n_in = layers[1], layers[0]
        low = -0.5 * m - 0.35
        for x, text in (
            (0.0, f"{n_in} inputs"),
            (1.2, f"$W_{{ji}}$\n{m} × {n_in} = {m * n_in}"),
            (2.4, f"{m} hidden units\n{m} biases $b_j$"),
            (3.6, f"$v_j$\n{m}"),
            (4.8, "linear output\n1 bias $c$"),
        ):
            ax.text(x, low, text, ha="center", va="top")
        ax.set(xlim=(-0.6, 5.4), ylim=(low - 0.75, 0.5 * m + 0.1))
        ax.set_title(f"State: {m * n_in} + {m} + {m} + 1 = {some[0].system.n} weights and biases")
        caption(
            figure,
            r"Prediction ŷ = c + Σ_j v_j f(b_j + Σ_i W_ji x_i), f = ReLU or tanh. The number of "
            f"hidden units ({HIDDEN}) is an assumption; two inputs, one output as published.",
        )
    return figure


def data(some: Sequence[Ensemble]) -> Figure:
    """Draw the points, and what a run of low and one of high final loss makes of them.

    Parameters
    ----------
    some : sequence of Ensemble
        Result of `run_ensembles`.

    Returns
    -------
    Figure
        The figure.
    """
    he = [ensemble for ensemble in some if ensemble.kind == HE]
    axis = np.linspace(-1.0, 1.0, 61)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    levels = np.linspace(0.0, 2.0, 11)
    with canvas((9.0, 4.6)) as figure:
        parts = figure.add_gridspec(2, 4)
        ax = figure.add_subplot(parts[:, :2])
        X, y = he[0].system.X, he[0].system.y
        image = ax.scatter(
            X[:, 0], X[:, 1], c=y, s=26, edgecolors="0.3", linewidths=0.4, cmap="viridis",
            vmin=0.0, vmax=2.0,
        )  # fmt: skip
        figure.colorbar(
            image, ax=ax, label="$y$ (contours: $\\hat y$)", location="left", shrink=0.8
        )
        ax.set(xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
        ax.set_title(f"{len(X)} points, $y = x_1^2 + x_2^2$")
        for row, ensemble in enumerate(he):
            for column, high in enumerate((False, True)):
                ax = figure.add_subplot(parts[row, 2 + column])
                run = _median_run(ensemble, high)
                values = ensemble.system.network.predict(ensemble.state[run], grid)
                ax.contourf(
                    axis, axis, values.reshape(61, 61), levels=levels, extend="both", cmap="viridis"
                )
                ax.plot(*X.T, ".", color="white", markersize=1.5)
                ax.set(aspect="equal", xticks=[], yticks=[])
                loss = minus(ensemble.log_loss[run], ".2f")
                ax.set_title(f"{NAMES[ensemble.activation]}: {LOG_LOSS} = {loss}", fontsize=9)
        caption(
            figure,
            f"Left: the {N_POINTS} points. Right: predictions of He-initialised networks at the "
            "end, the runs of median final loss among those that end low and high. "
            f"{assumptions(HE, n_steps=he[0].n_steps)}",
        )
    return figure


def _median_run(ensemble: Ensemble, high: bool) -> int:
    chosen = np.flatnonzero((ensemble.high == high) & np.isfinite(ensemble.final_loss))
    if not chosen.size:
        return 0
    return int(chosen[ensemble.final_loss[chosen].argsort()[len(chosen) // 2]])


def final_loss(some: Sequence[Ensemble]) -> Figure:
    """Draw the distribution of the final loss from He weights, with its clusters.

    Parameters
    ----------
    some : sequence of Ensemble
        Result of `run_ensembles`.

    Returns
    -------
    Figure
        The figure.
    """
    return _losses(some, HE)


def final_loss_wide(some: Sequence[Ensemble]) -> Figure:
    """Draw the same from wide-range weights.

    Parameters
    ----------
    some : sequence of Ensemble
        Result of `run_ensembles`.

    Returns
    -------
    Figure
        The figure.
    """
    return _losses(some, WIDE)


def _losses(some: Sequence[Ensemble], kind: Initialisation) -> Figure:
    chosen = [ensemble for ensemble in some if ensemble.kind == kind]
    edges = common_edges(np.concatenate([e.log_loss for e in chosen]), 80, 0.0)
    with canvas((9.0, 3.7)) as figure:
        axes = figure.subplots(1, len(chosen), sharey=True, squeeze=False)[0]
        for ax, ensemble in zip(axes, chosen, strict=True):
            color = COLORS[ensemble.activation]
            finite = ensemble.log_loss[np.isfinite(ensemble.log_loss)]
            histogram(ax, finite, edges, color, fill=True, alpha=0.35, linewidth=0.0)
            x, y = density(finite)
            ax.plot(x, y * (edges[1] - edges[0]), color=color, linewidth=1.2)
            ax.axvline(np.log10(ensemble.threshold), color="0.3", linewidth=0.8, linestyle=":")
            if kind == HE:
                _name_clusters(ax, ensemble, edges)
            else:
                low, high = np.quantile(finite, [0.05, 0.95])
                text = f"5–95 %: {minus(low, '.2f')} … {minus(high, '.2f')}"
                ax.text(0.98, 0.95, text, transform=ax.transAxes, ha="right", va="top")
            ax.set(xlabel=LOG_LOSS)
            ax.set_title(ensemble.name)
        axes[0].set(ylabel="fraction of the runs")
        axes[0].set_ylim(0.0, 1.22 * axes[0].get_ylim()[1])
        divided = "half-way between two clusters" if kind == HE else "the median"
        named = ", from which clusters are found; fractions with 95 % intervals (Wilson)"
        named = named if kind == HE else ""
        caption(
            figure,
            f"Loss c_f after {chosen[0].n_steps} steps of {chosen[0].runs} runs each; lines: "
            f"kernel density{named}. Dotted: threshold of low and high c_f, {divided} "
            f"({'; '.join(split_at(e) for e in chosen)}). "
            f"{'; '.join(counts(e) for e in chosen)}. "
            f"{assumptions(kind, n_steps=chosen[0].n_steps)}",
        )
    return figure


def _name_clusters(ax: Axes, ensemble: Ensemble, edges: Floats) -> None:
    for cluster in ensemble.clusters:
        share = 100.0 * np.array([cluster.share, cluster.low, cluster.high])
        text = f"{cluster.name} {minus(cluster.peak, '.2f')}\n"
        text += f"{share[0]:.1f} [{share[1]:.1f}–{share[2]:.1f}] %"
        heights = np.histogram(ensemble.log_loss, edges)[0] / ensemble.runs
        inside = (edges[1:] > cluster.left) & (edges[:-1] < cluster.right)
        top = heights[inside].max()
        ax.annotate(
            text, (cluster.peak, top), (0, 4), textcoords="offset points", ha="center",
            va="bottom", fontsize=8,
        )  # fmt: skip
