"""Figures of the study, drawn from the results of its experiments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pylyap.papers.jesus2021.task import CEILING, CLIPPED, LOGITS
from pylyap.plotting import plot_deviation, plot_joint, plot_trainability
from pylyap.plotting.style import band, canvas, entitle, palette, whole_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pylyap.papers.jesus2021.results import Letter, Plateau, Precision, Rates, Widths

Floats = NDArray[np.float64]

NAMES = {LOGITS: "loss of the logits", CLIPPED: "clipped loss"}
COLORS = {LOGITS: "#e08214", CLIPPED: "#31688e"}


def phases(widths: Widths) -> Figure:
    """Phase diagram of width and epoch, minimum losses, and deviation against loss.

    Parameters
    ----------
    widths : Widths
        Training histories of all widths.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    return plot_trainability(widths.found, title=_title(widths))


def losses(logits: Widths, clipped: Widths) -> Figure:
    """Training loss against epoch at each width, for both losses.

    Parameters
    ----------
    logits, clipped : Widths
        Training histories of all widths.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    widths = logits.task.widths
    across = min(len(widths), 3)
    down = -(-len(widths) // across)
    with canvas((3.2 * max(across, 2), 0.8 + 2.2 * down)) as figure:
        axes = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
        for ax in axes.ravel()[len(widths) :]:
            ax.set_axis_off()
        lines = {}
        for i, ax in zip(range(len(widths)), axes.ravel(), strict=False):
            for both, dash in ((logits, "-"), (clipped, (0, (3, 2)))):
                epochs, runs = both.found.epochs, both.found.train_loss[i]
                lines[both.loss] = ax.plot(
                    epochs, runs.T, color=COLORS[both.loss], linestyle=dash, linewidth=0.9
                )[0]
            ceiling = ax.axhline(CEILING, color="0.3", linewidth=0.8, linestyle=":")
            ax.set(yscale="log")
            ax.set_title(f"width {widths[i]}")
        for ax in axes[-1]:
            ax.set(xlabel="epoch")
        for ax in axes[:, 0]:
            ax.set(ylabel="training loss")
        names = [*(NAMES[loss] for loss in lines), r"$-\ln 10^{-7}$"]
        entitle(figure, [*lines.values(), ceiling], names, f"Learning rate {logits.task.lr:g}")
    return figure


def deviation(widths: Widths) -> Figure:
    """Rms deviation of all weights against epoch and loss, for each width.

    Parameters
    ----------
    widths : Widths
        Training histories of all widths.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    found = widths.found
    with canvas((9.0, 3.8)) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        lines = []
        for loss, moved, color in zip(
            found.train_loss, found.deviation, palette(len(found.widths)), strict=True
        ):
            lines.append(band(left, found.epochs, moved, color))
            right.plot(loss.T, moved.T, color=color, linewidth=0.9)
        left.set(xlabel="epoch", ylabel="rms deviation of all weights", ylim=(0, None))
        right.set(xlabel="training loss", xscale="log")
        entitle(figure, lines, [f"{width:g}" for width in found.widths], _title(widths))
    return figure


def precision(both: Precision) -> Figure:
    """Loss and deviation of the same runs in single and in double precision.

    Parameters
    ----------
    both : Precision
        Result of `precision`.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    with canvas((9.0, 3.6)) as figure:
        axes = figure.subplots(1, 2)
        lines = []
        for history, color, dash in (
            (both.double, "#e08214", "-"),
            (both.single, "#31688e", (0, (3, 2))),
        ):
            for ax, runs in zip(
                axes, (history.train_loss, history.deviation[..., 0, :]), strict=True
            ):
                style = {"color": color, "linestyle": dash, "linewidth": 1.0}
                line = ax.plot(history.epochs, runs.T, **style)[0]
            lines.append(line)
        axes[0].set(ylabel="training loss", yscale="log")
        axes[1].set(ylabel="rms deviation of all weights", ylim=(0, None))
        for ax in axes:
            ax.set(xlabel="epoch")
        names = ["double precision", "single precision"]
        entitle(figure, lines, names, f"Width {both.width}, clipped loss")
    return figure


def joint_narrow(widths: Widths) -> Figure:
    """Final against initial weights between the hidden layers, smallest width.

    Parameters
    ----------
    widths : Widths
        Training histories of all widths.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    return _joint(widths, 0)


def joint_wide(widths: Widths) -> Figure:
    """Final against initial weights between the hidden layers, largest width.

    Parameters
    ----------
    widths : Widths
        Training histories of all widths.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    return _joint(widths, -1)


def _joint(widths: Widths, i: int) -> Figure:
    return plot_joint(widths.joint(i), title=f"Width {widths.task.widths[i]}: {_title(widths)}")


def moments_narrow(widths: Widths) -> Figure:
    """Bands, peak and moments of the weight deviation, smallest width.

    Parameters
    ----------
    widths : Widths
        Training histories of all widths.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    return _moments(widths, 0)


def moments_wide(widths: Widths) -> Figure:
    """Bands, peak and moments of the weight deviation, largest width.

    Parameters
    ----------
    widths : Widths
        Training histories of all widths.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    return _moments(widths, -1)


def _moments(widths: Widths, i: int) -> Figure:
    title = f"Width {widths.task.widths[i]}: {_title(widths)}"
    return plot_deviation(widths.deviation(i), title=title)


def letters(found: Sequence[Letter]) -> Figure:
    """Weights between the hidden layers along training, and legibility of the letter.

    Parameters
    ----------
    found : sequence of Letter
        Results of `letters`.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    with canvas((10.0, 0.4 + 2.3 * len(found))) as figure:
        grid = figure.add_gridspec(len(found), 4, width_ratios=[1.0, 1.0, 1.0, 1.25])
        first: Any = None
        for row, letter in enumerate(found):
            shown = [0, int(np.searchsorted(letter.epochs, 0.1 * letter.epochs[-1])), -1]
            axes = [figure.add_subplot(grid[row, i]) for i in range(3)]
            for ax, k in zip(axes, shown, strict=True):
                _picture(ax, letter.matrices[k])
                ax.set_title(f"epoch {letter.epochs[k]}: {letter.legibility[k]:.3f}")
            axes[0].set(ylabel=f"width {letter.width},\nlearning rate {letter.lr:g}")
            first = figure.add_subplot(grid[row, 3], sharex=first, sharey=first)
            first.plot(letter.epochs, letter.legibility, "o-", color=COLORS[CLIPPED], markersize=3)
            first.axhline(0.5, color="0.3", linewidth=0.8, linestyle=":")
            first.set(ylabel="legibility", ylim=(0.45, 1.03), xscale="symlog")
        first.set(xlabel="epoch (symlog, linear below 2)")
        entitle(figure, [], None, "|w| between the hidden layers, and legibility of the letter")
    return figure


def _picture(ax: Axes, matrix: Floats) -> None:
    size = np.abs(matrix)
    if np.isfinite(size).all():
        top = float(np.quantile(size, 0.99)) or 1.0
        ax.imshow(size, cmap="Greys", vmin=0.0, vmax=top, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.spines[["top", "right"]].set_visible(True)


def rates(found: Rates) -> Figure:
    """Training at larger learning rates: minimum and final loss of each run, and loss curves.

    Parameters
    ----------
    found : Rates
        Result of `rates` or `inverted_rates`.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    ends = sorted({0, len(found.lrs) // 2, len(found.lrs) - 1})
    with canvas((10.0, 3.6)) as figure:
        widths = [1.5] + [1.0] * len(ends)
        axes = figure.subplots(1, 1 + len(ends), sharey=True, width_ratios=widths)
        handles = []
        for shift, (loss, history) in zip((-1, 1), found.histories.items(), strict=True):
            where = found.lrs * 1.015**shift
            last = history.train_loss[..., -1]
            least = np.fmin.reduce(history.train_loss, axis=-1)
            for x, low, high in zip(where, least, last, strict=True):
                axes[0].vlines([x] * len(low), low, high, color=COLORS[loss], linewidth=0.7)
                dots = axes[0].plot([x] * len(high), high, "o", color=COLORS[loss], markersize=4)
            handles += dots
            for ax, i in zip(axes[1:], ends, strict=True):
                ax.plot(history.epochs, history.train_loss[i].T, color=COLORS[loss], linewidth=0.9)
                ax.set(xlabel="epoch")
                ax.set_title(f"learning rate {found.lrs[i]:g}")
        for ax in axes:
            ceiling = ax.axhline(CEILING, color="0.3", linewidth=0.8, linestyle=":")
            guess = ax.axhline(np.log(found.task.classes), color="0.3", linewidth=0.8)
        axes[0].set(xlabel="learning rate", ylabel="training loss", xscale="log", yscale="log")
        axes[0].set_xticks(found.lrs, [f"{lr:g}" for lr in found.lrs])
        axes[0].minorticks_off()
        axes[0].set_title("final (dot) and minimum")
        names = [*(NAMES[loss] for loss in found.histories), r"$-\ln 10^{-7}$", "random guess"]
        inverted = ", inverted images" if found.inverted else ""
        entitle(figure, [*handles, ceiling, guess], names, f"Width {found.width}{inverted}")
    return figure


def plateau(found: Plateau | None) -> Figure:
    """Approach of a run to the plateau, and continued training with either loss.

    Parameters
    ----------
    found : Plateau or None
        Result of `plateau`.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    with canvas((10.0, 3.6)) as figure:
        if found is None:
            figure.suptitle("No run reached a plateau")
            return figure
        loss, shares, later = figure.subplots(1, 3)
        loss.plot(found.step, found.logits_loss, color=COLORS[LOGITS], label="unclipped (logits)")
        loss.plot(found.step, found.loss, color=COLORS[CLIPPED], label="clipped")
        loss.set(xlabel="optimiser step", ylabel="training loss", yscale="log")
        loss.legend()
        shares.plot(found.step, found.lost, color="black", label=r"$p < 10^{-7}$")
        shares.plot(found.step, found.sure, color="0.6", label=r"$p > 1 - 10^{-7}$")
        shares.set(xlabel="optimiser step", ylabel="fraction of images", ylim=(-0.02, 1.02))
        gradient = shares.twinx()
        gradient.spines["right"].set_visible(True)
        (line,) = gradient.plot(found.step, found.gradient, color="#c8553d", linewidth=1.0)
        gradient.set(ylabel="gradient norm of the clipped loss", ylim=(0, None))
        gradient.yaxis.label.set_color(line.get_color())
        shares.legend(loc="center right")
        for name, values in found.later.items():
            label = f"continued with the {NAMES[name]}"
            later.plot(np.arange(len(values)), values, "o-", color=COLORS[name], label=label)
        later.set(xlabel="additional epochs", ylabel="clipped training loss", ylim=(0, None))
        later.legend(fontsize=8)
        for ax in (loss, shares, later):
            whole_numbers(ax)
        title = f"Run {found.run + 1} at learning rate {found.lr:g}, clipped loss: epoch "
        entitle(figure, [], None, f"{title}{found.epoch}, in which it diverged")
    return figure


def _title(widths: Widths) -> str:
    task = widths.task
    runs, epochs = (
        f"{n} {what}{'s'[: n != 1]}" for n, what in ((task.runs, "run"), (task.epochs, "epoch"))
    )
    return f"{NAMES[widths.loss]}, learning rate {task.lr:g}, {runs}, {epochs}"
