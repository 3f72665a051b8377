"""Experiments of the study, at default sizes that run in half an hour on two cores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pylyap._weights.letters import apply_letter_mask, legibility, letter_mask
from pylyap._weights.training import History
from pylyap.papers.jesus2021.results import Letter, Plateau, Precision, Rates, Widths
from pylyap.papers.jesus2021.task import CEILING, CLIP, CLIPPED, LOGITS, Task, inverse, samples


def logits(task: Task) -> Widths:
    """Train networks of all widths with the cross-entropy of the logits.

    Parameters
    ----------
    task : Task
        Images and training settings.

    Returns
    -------
    Widths
        Training histories.
    """
    return _widths(task, LOGITS)


def clipped(task: Task) -> Widths:
    """Train networks of all widths with the cross-entropy of clipped probabilities.

    Parameters
    ----------
    task : Task
        Images and training settings.

    Returns
    -------
    Widths
        Training histories.
    """
    return _widths(task, CLIPPED)


def _widths(task: Task, loss: str) -> Widths:
    histories = [_train_width(task, loss, width, task.dtype) for width in task.widths]
    return Widths(task, loss, histories)


def _train_width(task: Task, loss: str, width: int, dtype: str) -> History:
    return task.train(
        f"{loss}-{width}-{dtype}",
        task.system(width, loss, dtype=dtype),
        task.start(width, task.runs),
        task.epochs,
        record_every=task.record_every,
        test=(samples(task.parts[2]), task.parts[3]),
    )


def precision(clipped: Widths, task: Task) -> Precision:
    """Train networks of the median width in the other precision as well.

    Parameters
    ----------
    clipped : Widths
        Result of `clipped`.
    task : Task
        Images and training settings.

    Returns
    -------
    Precision
        Training histories in both precisions.
    """
    i = (len(task.widths) - 1) // 2
    width = task.widths[i]
    other = "float64" if task.dtype == "float32" else "float32"
    again = _train_width(task, CLIPPED, width, other)
    both = {task.dtype: clipped.histories[i], other: again}
    return Precision(width, both["float32"], both["float64"])


def letters(
    task: Task, *, cases: Sequence[tuple[int, float | None]] = ((32, None), (512, None), (256, 1.5))
) -> list[Letter]:
    """Train networks with a letter imprinted on their weights, with the clipped loss.

    Parameters
    ----------
    task : Task
        Images and training settings.
    cases : sequence of (int, float or None)
        Widths and learning rates; None takes the rate of the task.

    Returns
    -------
    list of Letter
        Weights and legibility, one for each case.
    """
    return [_letter(task, width, task.lr if lr is None else lr) for width, lr in cases]


def _letter(task: Task, width: int, lr: float) -> Letter:
    network = task.network(width, CLIPPED)
    mask = letter_mask((width, width), "a")
    start = apply_letter_mask(network, task.start(width, 1)[0], mask)
    looks = np.unique(np.geomspace(1, task.epochs, 13).round().astype(int))
    history = task.train(
        f"letter-{width}-{lr:g}",
        task.system(width, CLIPPED, lr),
        start,
        task.epochs,
        snapshots=[0, *looks.tolist()],
        layers=[1],
    )
    matrices = history.snapshots["layer 1"]
    return Letter(
        width=width,
        lr=lr,
        mask=mask,
        epochs=history.snapshot_epochs,
        matrices=matrices,
        legibility=legibility(matrices, mask),
        loss=history.train_loss[history.snapshot_epochs],
    )


def rates(
    task: Task,
    *,
    width: int = 256,
    lrs: Sequence[float] = (0.4, 0.8, 1.0, 1.2, 1.5, 2.0),
    runs: int = 3,
    epochs: int = 16,
) -> Rates:
    """Train at larger learning rates, where training diverges.

    Parameters
    ----------
    task : Task
        Images and training settings.
    width : int, default 256
        Width of the networks.
    lrs : sequence of float
        Learning rates.
    runs, epochs : int
        Number of runs per rate and of epochs, default 3 and 16.

    Returns
    -------
    Rates
        Training histories.
    """
    return _rates(task, "rates", False, width, lrs, runs, epochs)


def inverted_rates(
    task: Task,
    *,
    width: int = 256,
    lrs: Sequence[float] = (0.05, 0.1, 0.15, 0.2, 0.3),
    runs: int = 3,
    epochs: int = 16,
) -> Rates:
    """Train at larger learning rates on inverted images.

    Parameters
    ----------
    task : Task
        Images and training settings.
    width : int, default 256
        Width of the networks.
    lrs : sequence of float
        Learning rates.
    runs, epochs : int
        Number of runs per rate and of epochs, default 3 and 16.

    Returns
    -------
    Rates
        Training histories.
    """
    return _rates(task, "inverted", True, width, lrs, runs, epochs)


def _rates(
    task: Task,
    name: str,
    inverted: bool,
    width: int,
    lrs: Sequence[float],
    runs: int,
    epochs: int,
) -> Rates:
    lr = np.array(lrs)
    start = task.start(width, runs)
    histories = {}
    for loss in (LOGITS, CLIPPED):
        system = task.system(width, loss, lr[:, np.newaxis], inverted=inverted)
        every = np.broadcast_to(start, (len(lr), *start.shape))
        histories[loss] = task.train(f"{name}-{loss}", system, every, epochs)
    images = inverse(task.parts[0]) if inverted else task.parts[0]
    white = 255.0 if images.dtype == np.uint8 else 1.0
    square = float(np.mean(np.sum((images / white) ** 2, axis=1)))
    return Rates(task, width, inverted, lr, histories, square)


def plateau(rates: Rates, task: Task, *, later: int = 10) -> Plateau | None:
    """Follow the first run, in the order of the rates, that reaches a plateau of the clipped loss.

    Training is then continued with either loss.

    Parameters
    ----------
    rates : Rates
        Result of `rates`.
    task : Task
        Images and training settings.
    later : int, default 10
        Number of additional epochs.

    Returns
    -------
    Plateau or None
        Approach to the plateau; None if no run reached one.
    """
    if not rates.frozen.any():
        return None
    i, run = (int(index) for index in np.argwhere(rates.frozen)[0])
    lr = float(rates.lrs[i])
    history = rates.histories[CLIPPED]
    system = rates.system(CLIPPED, lr)
    epoch = int(np.flatnonzero(history.train_loss[i, run] < 0.5 * CEILING)[-1]) + 1
    steps = task.steps
    first = (epoch - 1) * steps
    begun = system.trajectory(history.w_initial[i, run], first, every=max(first, 1))[-1]
    path = system.trajectory(begun, steps, start=first)
    p = np.stack(
        [system.network.predict(w, system.X)[np.arange(len(system.y)), system.y] for w in path]
    )
    final = history.w_final[i, run]
    after = history.settings["epochs"] * steps
    return Plateau(
        lr=lr,
        run=run,
        epoch=epoch,
        step=first + np.arange(steps + 1),
        loss=system.loss(path),
        logits_loss=rates.system(LOGITS, lr).loss(path),
        lost=(p < CLIP).mean(axis=1),
        sure=(p > 1.0 - CLIP).mean(axis=1),
        gradient=np.linalg.norm(system.gradient(path), axis=1),
        moved=float(np.abs(final - path[-1]).max()),
        later={
            loss: system.loss(
                rates.system(loss, lr).trajectory(final, later * steps, every=steps, start=after)
            )
            for loss in (LOGITS, CLIPPED)
        },
    )
