"""The experiment: loss and sharpness along full-batch training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylyap.papers.cohen2021.task import Floats, Optimiser, Task
from pylyap.studies import Study, run_study


@dataclass(frozen=True, eq=False)
class Edge:
    """Training by an optimiser at several learning rates.

    Attributes
    ----------
    optimiser : Optimiser
        The optimiser.
    lrs : ndarray, shape (n_lr,)
        Learning rates.
    steps : ndarray of int, shape (n_times,)
        Steps of the records.
    loss : ndarray, shape (n_lr, n_times)
        Training loss, half the mean squared distance of the outputs to the targets.
    value, threshold : ndarray, shape (n_lr, n_times)
        Sharpness, of the preconditioned Hessian for Adam, and its stability threshold.
    ratio : ndarray, shape (n_lr, n_times)
        Sharpness relative to the threshold.
    """

    optimiser: Optimiser
    lrs: Floats
    steps: NDArray[np.int64]
    loss: Floats
    value: Floats
    threshold: Floats
    ratio: Floats

    @cached_property
    def reached(self) -> NDArray[np.int64]:
        """First record after the start at which the ratio is 1 or more (n_lr,), -1 for none.

        The start is left out: the preconditioner of Adam's first step is |g|, and its ratio large.
        """
        above = self.ratio[:, 1:] >= 1.0
        return np.where(above.any(axis=1), 1 + above.argmax(axis=1), -1)

    @property
    def early(self) -> NDArray[np.bool_]:
        """Whether the edge is reached in the first half of the steps (n_lr,)."""
        half: NDArray[np.bool_] = (self.reached >= 0) & (self.reached <= (len(self.steps) - 1) // 2)
        return half

    @property
    def lowest(self) -> Floats:
        """Smallest ratio before the edge is reached (n_lr,), after the start."""
        ends = np.where(self.reached >= 0, self.reached, len(self.steps))
        return np.array(
            [runs[1 : max(end, 2)].min() for runs, end in zip(self.ratio, ends, strict=True)]
        )

    @property
    def late_ratio(self) -> Floats:
        """Median ratio over the last half of the steps (n_lr,)."""
        middle = (len(self.steps) - 1) // 2
        found: Floats = np.median(self.ratio[:, middle:], axis=1)
        return found

    @property
    def rises(self) -> Floats:
        """Fraction of the records of the last half at which the loss is above the one before."""
        middle = (len(self.steps) - 1) // 2
        found: Floats = (np.diff(self.loss[:, middle:], axis=1) > 0).mean(axis=1)
        return found


def train(
    task: Task,
    optimiser: Optimiser,
    *,
    lrs: Sequence[float] | None = None,
    n_steps: int = 3000,
    every: int = 20,
    tol: float = 1e-3,
) -> Edge:
    """Train at each learning rate and follow loss and sharpness.

    Parameters
    ----------
    task : Task
        Images, network and folder of the stored results.
    optimiser : Optimiser
        The optimiser.
    lrs : sequence of float, optional
        Learning rates, by default those of the optimiser.
    n_steps, every : int
        Number of steps, default 3000, and steps between records, default 20.
    tol : float, default 1e-3
        Relative accuracy of the sharpness.

    Returns
    -------
    Edge
        Losses and sharpness.
    """
    X, y = task.images
    rates = list(optimiser.lrs if lrs is None else lrs)
    variables = ["value", "ratio", "threshold", "loss"]
    study = Study(
        data={"X": X, "y": y},
        network={"hidden": task.width, "activation": "tanh", "loss": "mse"},
        init={"kind": "glorot_uniform"},
        optimizer=optimiser.settings,
        grid={"optimizer.lr": rates},
        analysis={
            "name": "sharpness", "n_steps": n_steps, "every": every, "tol": tol,
            "variables": variables,
        },
        runs=1,
        seed=task.seed,
        title=f"Edge of stability: {optimiser.name}",
    )  # fmt: skip
    task.folder.mkdir(parents=True, exist_ok=True)
    name = f"{optimiser.key}-{task.samples}x{task.width}-{n_steps}-seed{task.seed}"
    data: Any = run_study(study, task.folder / name, workers=task.threads, progress=task.progress)
    found = {key: data[key].values[:, 0] for key in variables}
    return Edge(optimiser, np.array(rates), data["time"].values, **found)
