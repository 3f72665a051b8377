"""Lyapunov exponents of whole runs, and the loss they end with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pylyap._statistics import quartiles
from pylyap.papers.sharafi2025.definition import (
    HE,
    NAMES,
    WIDE,
    Initialisation,
    assumptions,
)
from pylyap.papers.sharafi2025.ensembles import Ensemble
from pylyap.papers.sharafi2025.figures.common import (
    COLORS,
    KINDS,
    LOG_LOSS,
    RATE,
    caption,
    common_edges,
    counts,
    few_ticks,
    histogram,
    outcome,
)
from pylyap.plotting.style import canvas, entitle, symlog

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def exponents(some: Sequence[Ensemble]) -> Figure:
    """Draw the Lyapunov exponents from He weights.

    Parameters
    ----------
    some : sequence of Ensemble
        Result of `run_ensembles`.

    Returns
    -------
    Figure
        The figure.
    """
    return _exponents(some, HE)


def exponents_wide(some: Sequence[Ensemble]) -> Figure:
    """Draw the Lyapunov exponents from wide-range weights.

    Parameters
    ----------
    some : sequence of Ensemble
        Result of `run_ensembles`.

    Returns
    -------
    Figure
        The figure.
    """
    return _exponents(some, WIDE)


def _exponents(some: Sequence[Ensemble], kind: Initialisation) -> Figure:
    chosen = [ensemble for ensemble in some if ensemble.kind == kind]
    with canvas((9.0, 5.2)) as figure:
        axes = figure.subplots(len(chosen), 3, squeeze=False, sharex="col")
        first, last = (
            common_edges(np.concatenate([e.exponents[:, i] for e in chosen]), 50, 0.005)
            for i in (0, -1)
        )
        for row, ensemble in zip(axes, chosen, strict=True):
            k = np.arange(1, ensemble.exponents.shape[1] + 1)
            for shift, name in ((-0.15, "low"), (0.15, "high")):
                part = ensemble.high == (name == "high")
                low, middle, high = quartiles(ensemble.exponents[part])
                row[0].errorbar(
                    k + shift, middle, [middle - low, high - middle], fmt="o", markersize=3,
                    color=KINDS[name], elinewidth=1.0,
                )  # fmt: skip
                for ax, i, edges in ((row[1], 0, first), (row[2], -1, last)):
                    histogram(ax, ensemble.exponents[part, i], edges, KINDS[name])
            row[0].axhline(0.0, color="0.6", linewidth=0.6, zorder=0)
            row[0].set(ylabel=f"{NAMES[ensemble.activation]}\n$\\lambda_i$ ({RATE})")
            symlog(row[0], 1e-4)
            for ax in row[1:]:
                ax.set(ylabel="fraction of the runs")
        axes[0, 0].set_title("Medians and quartiles")
        axes[0, 1].set_title("Largest exponent")
        axes[0, 2].set_title("Most contracting exponent")
        axes[-1, 0].set(xlabel="exponent $i$")
        axes[-1, 1].set(xlabel=f"$\\lambda_1$ ({RATE})")
        axes[-1, 2].set(xlabel=f"$\\lambda_{{{len(k)}}}$ ({RATE})")
        entitle(figure, *outcome(), f"Initial weights: {kind.name}")
        caption(
            figure,
            f"Exponents over all {chosen[0].n_steps} steps (Benettin's method, random frame, "
            "error of order ln 13 over the number of steps); ordinate on the left linear within "
            f"±1e-4. Histograms without the outer 0.5 %. {'; '.join(counts(e) for e in chosen)}. "
            f"{assumptions(kind, n_steps=chosen[0].n_steps)}",
        )
    return figure


def exponents_loss(some: Sequence[Ensemble]) -> Figure:
    """Draw each exponent and their sum against the final loss, from He weights.

    Parameters
    ----------
    some : sequence of Ensemble
        Result of `run_ensembles`.

    Returns
    -------
    Figure
        The figure.
    """
    from matplotlib.lines import Line2D
    from scipy.stats import spearmanr

    chosen = [ensemble for ensemble in some if ensemble.kind == HE]
    k = chosen[0].exponents.shape[1]
    with canvas((10.0, 5.4)) as figure:
        axes = figure.subplots(2, 7, sharex=True)
        for i, ax in enumerate(axes.ravel()):
            ranks = []
            for ensemble in chosen:
                values = ensemble.exponents[:, i] if i < k else ensemble.exponents.sum(axis=1)
                fine = np.isfinite(values) & np.isfinite(ensemble.log_loss)
                color = COLORS[ensemble.activation]
                ax.plot(
                    ensemble.log_loss[fine], values[fine], ".", color=color, markersize=1.2,
                    alpha=0.4, rasterized=True,
                )  # fmt: skip
                ranks.append(f"{spearmanr(values[fine], ensemble.log_loss[fine])[0]:.2f}")
            name = f"$\\lambda_{{{i + 1}}}$" if i < k else "sum"
            ax.set_title(f"{name}: {', '.join(ranks)}".replace("-", "−"), fontsize=8)
            ax.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
            ax.yaxis.get_offset_text().set_fontsize(7)
            few_ticks(ax)
        for ax in axes[:, 0]:
            ax.set(ylabel=RATE)
        for ax in axes[-1]:
            ax.set(xlabel=LOG_LOSS)
        handles = [
            Line2D([], [], color=COLORS[e.activation], marker="o", linestyle="") for e in chosen
        ]
        names = [NAMES[e.activation] for e in chosen]
        entitle(figure, handles, names, "Exponents over all steps against the final loss")
        caption(
            figure,
            f"{chosen[0].runs} runs each. Numbers: Spearman rank correlation, "
            f"{' and '.join(names)}. {assumptions(HE, n_steps=chosen[0].n_steps)}",
        )
    return figure
