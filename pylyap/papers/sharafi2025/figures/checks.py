"""Attractors, sensitivity to the assumptions, and the tangent operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pylyap._statistics import quartiles
from pylyap.papers.sharafi2025.attractors import Attractors
from pylyap.papers.sharafi2025.definition import HE, HIDDEN, N_POINTS, NAMES, assumptions
from pylyap.papers.sharafi2025.figures.common import (
    COLORS,
    DARK,
    KINDS,
    LIGHT,
    LOG_LOSS,
    RATE,
    caption,
    counts,
    outcome,
)
from pylyap.papers.sharafi2025.operator import OperatorErrors
from pylyap.papers.sharafi2025.sensitivity import (
    LAST,
    LOSS,
    SUM,
    TRACE,
    WINDOWS,
    VariantResult,
)
from pylyap.plotting.style import canvas, entitle, palette, symlog, whole_numbers

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def attractors(some: Sequence[Attractors]) -> Figure:
    """Draw what distinguishes the ends of low and high runs, and the law of the exponents there.

    Parameters
    ----------
    some : sequence of Attractors
        Result of `examine_attractors`; those from He weights are drawn.

    Returns
    -------
    Figure
        The figure.
    """
    chosen = [found for found in some if found.ensemble.kind == HE]
    with canvas((10.0, 5.6)) as figure:
        axes = figure.subplots(len(chosen), 4, squeeze=False)
        for row, found in zip(axes, chosen, strict=True):
            high, k = found.ensemble.high, np.arange(1, found.law.shape[1] + 1)
            for shift, (name, color) in zip((-0.15, 0.15), KINDS.items(), strict=True):
                part = high == (name == "high")
                low, middle, top = quartiles(found.eigenvalues[part])
                bars = [middle - low, top - middle]
                look: dict[str, Any] = {"color": color, "fmt": "o", "markersize": 3}
                row[0].errorbar(k + shift, middle, bars, elinewidth=1.0, **look)
                relu = found.ensemble.activation == "relu"
                count = np.bincount(found.idle[part] if relu else found.negative[part])
                x = np.arange(len(count)) + 1.3 * shift
                row[1].bar(x, count / max(part.sum(), 1), 0.38, color=color)
                row[2].plot(
                    found.law[part].ravel(), found.late[part].ravel(), ".", color=color,
                    markersize=1.2, alpha=0.3, rasterized=True,
                )  # fmt: skip
            row[0].axhline(0.0, color="0.6", linewidth=0.6, zorder=0)
            row[0].set(ylabel=f"{NAMES[found.ensemble.activation]}\neigenvalue $h_i$ of $H$")
            symlog(row[0], 1e-4)
            row[1].set(xlabel="inactive hidden units" if relu else "negative eigenvalues")
            row[1].set(ylabel="fraction of the runs")
            whole_numbers(row[1])
            finite = found.law[np.isfinite(found.law)]
            ends = [finite.min(), max(float(finite.max()), 1e-6)]
            row[2].plot(ends, ends, color="0.3", linewidth=0.8)
            for scale in (row[2].set_xscale, row[2].set_yscale):
                scale("symlog", linthresh=1e-4)
            row[2].set_xticks([-1.0, -1e-3, 0.0])
            row[2].set_yticks([-1.0, -1e-2, -1e-4, 0.0])
            row[2].set(ylabel="last-window exponent")
            for values, color, name in (
                (found.difference, DARK, r"$|\lambda_i - \ln|1 - \eta\,h_i||$"),
                (found.drift, LIGHT, "drift in 500 steps"),
            ):
                low, middle, top = quartiles(values)
                shown = np.maximum(np.array([low, middle, top]), 1e-12)
                row[3].fill_between(k, shown[0], shown[2], color=color, alpha=0.2, linewidth=0)
                row[3].plot(k, shown[1], "o-", color=color, markersize=3, label=name)
            row[3].set(yscale="log", ylabel=RATE)
            for ax in row:
                ax.minorticks_off()
        axes[0, 3].legend(fontsize=7)
        axes[-1, 0].set(xlabel="$i$")
        axes[-1, 2].set(xlabel="$\\ln|1 - \\eta\\,h_i|$\n(both axes symlog, linear below 1e-4)")
        axes[-1, 3].set(xlabel="$i$, in descending order")
        for ax, title in zip(
            axes[0], ("Hessian at the end", "Units, saddles", "Law at the end", "Difference"),
            strict=True,
        ):  # fmt: skip
            ax.set_title(title)
        entitle(figure, *outcome(), "Ends of the runs, initial weights: He")
        caption(
            figure,
            "Bars and bands: quartiles. Inactive: input of the ReLU at most 0 on all points; "
            "negative: h < −1e-6. Exponents (nats per step) of the last window of 50 steps and "
            "ln|1 − η h_i| of the last state (η: learning rate), both in descending order; "
            "drift: change of the exponent since 500 steps before. "
            f"{'; '.join(counts(f.ensemble) for f in chosen)}. "
            f"{assumptions(HE, n_steps=chosen[0].ensemble.n_steps)}",
        )
    return figure


def sensitivity(some: Sequence[VariantResult]) -> Figure:
    """Draw clusters and skills with one assumption changed at a time.

    Parameters
    ----------
    some : sequence of VariantResult
        Result of `vary_assumptions`.

    Returns
    -------
    Figure
        The figure.
    """
    activations = list(dict.fromkeys(found.activation for found in some))
    steps = sorted({step for found in some for _, step in found.skills})
    steps = [steps[0], steps[-1]] if len(steps) > 1 else steps
    names = list(dict.fromkeys(found.variant.name for found in some))
    marks = {LOSS: ("black", "o"), LAST: (DARK, "s"), SUM: ("#35b779", "D"), TRACE: (LIGHT, "^")}
    with canvas((10.0, 0.9 + 0.21 * len(names) * len(activations) + 1.3)) as figure:
        axes = figure.subplots(
            len(activations), 2 + len(steps), squeeze=False, sharey=True, sharex="col"
        )
        place = np.arange(len(names))[::-1]
        handles: dict[str, Any] = {}
        for row, activation in zip(axes, activations, strict=True):
            results = [found for found in some if found.activation == activation]
            for y, found in zip(place, results, strict=True):
                logs = np.log10(found.final_loss[found.final_loss > 0])
                logs = logs[np.isfinite(logs)]
                height = np.histogram(logs, np.linspace(-5.0, 1.0, 91))[0].astype(float)
                edges = np.linspace(-5.0, 1.0, 91)
                height *= 0.85 / max(height.max(), 1.0)
                row[0].stairs(
                    y - 0.4 + height, edges, baseline=y - 0.4, fill=True, color=COLORS[activation],
                    alpha=0.7,
                )  # fmt: skip
                threshold = np.log10(found.threshold)
                row[0].plot([threshold] * 2, [y - 0.4, y + 0.4], color="0.3", linewidth=0.8)
                row[1].plot(100 * found.share_high, y, "o", color=COLORS[activation], markersize=4)
                row[1].plot(100 * found.explained, y, "|", color="0.3", markersize=8)
                for ax, step in zip(row[2:], steps, strict=True):
                    for shift, (name, (color, marker)) in zip(
                        (0.24, 0.08, -0.08, -0.24), marks.items(), strict=True
                    ):
                        skill = found.skills.get((name, step))
                        if skill is None:
                            continue
                        bars = [[skill.auc - skill.low], [skill.high - skill.auc]]
                        handles[name] = ax.errorbar(
                            skill.auc, y + shift, xerr=bars, color=color, fmt=marker, markersize=3,
                            elinewidth=0.7,
                        )  # fmt: skip
            row[0].set_yticks(place, names, fontsize=7)
            row[0].set(ylabel=NAMES[activation])
            for ax in row[2:]:
                ax.axvline(0.5, color="0.3", linewidth=0.8, zorder=0)
            for ax in row:
                ax.grid(axis="y", color="0.9", linewidth=0.5)
                ax.set_axisbelow(True)
        axes[0, 0].set_title("Final loss")
        axes[0, 1].set_title("Clusters")
        for ax, step in zip(axes[0, 2:], steps, strict=True):
            ax.set_title(f"Prediction at step {step}")
        axes[-1, 0].set(xlabel=LOG_LOSS, xlim=(-4.3, 0.4))
        axes[-1, 1].set(xlabel="% high (dot), % explained (bar)", xlim=(0, 103))
        for ax, step in zip(axes[-1, 2:], steps, strict=True):
            ax.set(xlabel=f"AUC at step {step}", xlim=(0, 1))
        entitle(figure, list(handles.values()), list(handles), "One assumption changed at a time")
        runs = len(some[0].final_loss)
        caption(
            figure,
            f"{runs} runs each from He weights. Left: distribution of c_f and threshold "
            "half-way between two clusters; next: fraction of runs that end high and fraction of "
            "the variance of log c_f that two clusters explain (0.64 for a normal distribution). "
            "AUC with 95 % intervals (DeLong); exponents over the 50 steps before. As assumed: "
            f"{N_POINTS} points, y = x₁² + x₂², {HIDDEN} hidden units, learning rate {HE.lr:g}, "
            "full batch, 5000 steps; noise: standard deviation 0.1.",
        )
    return figure


def windows(some: Sequence[VariantResult]) -> Figure:
    """Draw the skill of the most contracting exponent at step 200 against the window's length.

    Parameters
    ----------
    some : sequence of VariantResult
        Result of `vary_assumptions`.

    Returns
    -------
    Figure
        The figure.
    """
    chosen = [found for found in some if found.windows]
    with canvas((6.0, 3.6)) as figure:
        ax = figure.subplots()
        for found in chosen:
            skills = [found.windows[length] for length in WINDOWS]
            auc = np.array([skill.auc for skill in skills])
            bars = [[s.auc - s.low for s in skills], [s.high - s.auc for s in skills]]
            label, color = NAMES[found.activation], COLORS[found.activation]
            ax.errorbar(WINDOWS, auc, bars, fmt="o-", color=color, markersize=4, label=label)
        ax.axhline(0.5, color="0.3", linewidth=0.8)
        ax.set(xscale="log", ylim=(0, 1), xlabel="window before step 200 (steps)", ylabel="AUC")
        ax.set_xticks(WINDOWS, [str(length) for length in WINDOWS])
        ax.minorticks_off()
        if chosen:
            ax.legend()
        ax.set_title("Most contracting exponent, known at step 200")
        caption(
            figure,
            f"{len(some[0].final_loss)} runs each; bars: 95 % intervals (DeLong). "
            f"{assumptions(HE)}",
        )
    return figure


def operator(found: OperatorErrors) -> Figure:
    """Draw errors of the tangent operator of the equations over widths and activations.

    Parameters
    ----------
    found : OperatorErrors
        Result of `compare_operators`.

    Returns
    -------
    Figure
        The figure.
    """
    with canvas((10.0, 3.9)) as figure:
        axes = figure.subplots(1, len(found.errors), sharey=True, squeeze=False)[0]
        lines = []
        for ax, (name, errors) in zip(axes, found.errors.items(), strict=True):
            lines = [
                ax.plot(found.widths, values, "o-", color=color, markersize=3, linewidth=1.0)[0]
                for values, color in zip(errors, palette(len(errors)), strict=True)
            ]
            ax.axhline(np.finfo(float).eps, color="0.3", linewidth=0.8, linestyle=":")
            ax.set(xscale="log", yscale="log", xlabel="hidden units", ylim=(1e-17, 1e-14))
            ax.set_title(name.replace(" against ", "\nagainst ").replace(": ", ":\n"), fontsize=8)
            ax.set_xticks([1, 3, 10, 32], ["1", "3", "10", "32"])
            ax.minorticks_off()
        axes[0].set(ylabel="‖A − B‖ / ‖B‖")
        entitle(figure, lines, list(found.activations), "Tangent operator of one step")
        caption(
            figure,
            f"Largest error of {found.states} random states N(0, 1), Frobenius norm. Dotted: "
            f"rounding unit 2.2e-16. Assumed: {N_POINTS} points, y = x₁² + x₂², learning rate "
            f"{HE.lr:g}; full batch, and one sample for online learning.",
        )
    return figure
