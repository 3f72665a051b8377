"""Figures of the study, drawn from the results of its experiments."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pylyap.plotting.style import canvas, entitle, palette, tidy_log_axis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pylyap.papers.cohen2021.experiments import Edge

_LARGEST = 1.8  # ratio up to which sharpness is shown; Adam's first states are above


def edge(found: Edge) -> Figure:
    """Loss and sharpness along training, one column per learning rate.

    Parameters
    ----------
    found : Edge
        Result of `train`.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    n = len(found.lrs)
    dark, light = palette(2)
    kind = "preconditioned sharpness" if found.optimiser.key == "adam" else "sharpness"
    with canvas((0.8 + 2.7 * n, 4.6)) as figure:
        axes = figure.subplots(2, n, sharex=True, squeeze=False)
        for i, (upper, lower) in enumerate(axes.T):
            upper.plot(found.steps, found.loss[i], color=dark, linewidth=1.0)
            upper.set(yscale="log")
            tidy_log_axis(upper.yaxis)
            upper.set_title(f"learning rate {found.lrs[i]:g}")
            line = lower.plot(found.steps, found.value[i], color=dark, linewidth=1.0)[0]
            limit = lower.plot(found.steps, found.threshold[i], "--", color=light, linewidth=1.2)[0]
            top = _LARGEST * float(np.max(found.threshold[i]))
            shown = found.value[i][found.value[i] < top]
            lower.set(xlabel="optimiser step", ylim=(0, 1.1 * max(found.threshold[i, 0], *shown)))
        axes[0, 0].set(ylabel="training loss")
        axes[1, 0].set(ylabel=kind)
        entitle(
            figure,
            [line, limit],
            [kind, f"stability threshold {found.optimiser.threshold}"],
            f"{found.optimiser.name[0].upper()}{found.optimiser.name[1:]}, full batch",
        )
    return figure


def ratios(*found: Edge) -> Figure:
    """Sharpness relative to the threshold, one panel per optimiser.

    Parameters
    ----------
    *found : Edge
        Results of `train`.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    with canvas((8.0, 4.8)) as figure:
        axes = figure.subplots(2, 2, sharex=True, sharey=True)
        for ax, one in zip(axes.ravel(), found, strict=True):
            ax.axhline(1.0, color="0.6", linewidth=0.8)
            lines = [
                ax.plot(one.steps, ratio, color=color, linewidth=1.0)[0]
                for ratio, color in zip(one.ratio, palette(len(one.lrs)), strict=True)
            ]
            ax.set_title(one.optimiser.name, fontsize=9)
            ax.legend(
                lines, [f"η = {lr:g}" for lr in one.lrs], fontsize=8, loc="upper right", ncols=3
            )
            ax.set(ylim=(0, _LARGEST))
        for ax in axes[-1]:
            ax.set(xlabel="optimiser step")
        for ax in axes[:, 0]:
            ax.set(ylabel="sharpness / threshold")
    return figure
