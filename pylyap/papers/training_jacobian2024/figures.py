"""Figures of the study, drawn from the results of its experiments."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pylyap.papers.training_jacobian2024.results import REGIONS, WIDTH
from pylyap.plotting.style import canvas, entitle, reference_line, tidy_log_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pylyap.papers.training_jacobian2024.results import Overlaps, Reference, Restricted

COLORS = {"chaotic": "#cc6677", "bulk": "#31688e", "stable": "#117733", "complement": "#e08214"}
_LEAST = 1e-16  # of |σ − 1| that is drawn


def spectrum(reference: Reference) -> Figure:
    """Singular values with the three regions, their distance from 1, and angles of the vectors.

    Parameters
    ----------
    reference : Reference
        Result of `spectrum`.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    jacobian = reference.jacobian
    index = np.arange(1, len(jacobian.logs) + 1)
    with canvas((10.0, 3.8)) as figure:
        axes = figure.subplots(1, 3)
        for region in REGIONS:
            chosen = jacobian.chosen(region)
            if not chosen.any():
                continue
            color = COLORS[region]
            for ax in axes:
                ax.axvspan(index[chosen][0] - 0.5, index[chosen][-1] + 0.5, color=color, alpha=0.12)
            axes[0].plot(index[chosen], jacobian.logs[chosen] / np.log(10.0), color=color)
            with np.errstate(over="ignore"):
                distance = np.abs(np.expm1(jacobian.logs[chosen]))
            axes[1].plot(
                index[chosen], np.maximum(distance, _LEAST), ".", color=color, markersize=2
            )
            axes[2].plot(index[chosen], jacobian.cosines[chosen], ".", color=color, markersize=2)
        reference_line(axes[0], 0.0)
        axes[0].set(ylabel="singular value σ (base-10 logarithm)")
        axes[1].set(ylabel="|σ − 1|", yscale="log")
        axes[2].set(ylabel="cosine of left and right vector")
        for ax in axes:
            ax.set(xlabel="index", xlim=(0, len(index) + 1))
        counts = [int(jacobian.chosen(region).sum()) for region in REGIONS]
        names = [f"{region}: {count}" for region, count in zip(REGIONS, counts, strict=True)]
        entitle(figure, _patches(REGIONS), names, f"Singular values; bulk |ln σ| ≤ {WIDTH:g}")
    return figure


def overlaps(seeds: Overlaps, orders: Overlaps, labels: Overlaps) -> Figure:
    """Principal angles of the regions of other runs with those of the reference, and overlaps.

    Parameters
    ----------
    seeds, orders, labels : Overlaps
        Comparison of other initial weights, another order of the images, and permuted labels.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    runs = (seeds, orders, labels)
    with canvas((10.0, 3.8)) as figure:
        axes = figure.subplots(1, 3, sharey=True)
        for ax, run in zip(axes, runs, strict=True):
            for region, found in run.overlaps.items():
                cosines = np.cos(found.angles) ** 2
                place = (np.arange(len(cosines)) + 0.5) / len(cosines)
                ax.plot(place, cosines, color=COLORS[region])
                ax.axhline(found.expected, color=COLORS[region], linestyle=(0, (3, 2)))
            ax.set(title=run.name, xlabel="fraction of the angles", xlim=(0, 1), ylim=(0, 1.02))
        axes[0].set(ylabel="squared cosine of the principal angle")
        entitle(
            figure, _patches(REGIONS), REGIONS,
            "Overlap of the regions with those of the reference; dashed: mean of random subspaces",
        )  # fmt: skip
    return figure


def restricted(found: Restricted) -> Figure:
    """Test loss after training in subspaces, against their dimension.

    Parameters
    ----------
    found : Restricted
        Result of `restricted`.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    with canvas((9.0, 3.6)) as figure:
        axes = figure.subplots(1, 2, sharey=True)
        for ax, kinds in zip(axes, (("bulk", "complement"), ("chaotic", "stable")), strict=True):
            for kind in kinds:
                ax.plot(
                    found.dimensions,
                    found.losses[kind],
                    "o-",
                    color=COLORS[kind],
                    label=NAMES[kind],
                )
            _level(ax, found.before, "before training", 1.0)
            _level(ax, found.unrestricted, "all directions", 0.0)
            ax.set(xlabel="dimension of the subspace", xlim=(0, None), yscale="log")
            ax.legend(loc="upper right", bbox_to_anchor=(1.0, 0.94))  # below the first line
        axes[0].set(ylabel="test loss")
        tidy_log_axis(axes[0].yaxis)  # shared
    return figure


NAMES = {
    "bulk": "σ closest to 1",
    "complement": "σ farthest from 1",
    "chaotic": "largest σ",
    "stable": "smallest σ",
}


def _level(ax: Axes, value: float, name: str, side: float) -> None:
    reference_line(ax, value)
    ax.annotate(
        name, (side, value), xycoords=("axes fraction", "data"),
        xytext=(2 - 4 * side, 2 if side else -9), textcoords="offset points",
        ha="right" if side else "left", fontsize=8, color="0.3",
    )  # fmt: skip


def _patches(regions: tuple[str, ...]) -> list[object]:
    from matplotlib.patches import Patch

    return [Patch(color=COLORS[region]) for region in regions]
