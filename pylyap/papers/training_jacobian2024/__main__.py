"""`python -m pylyap.papers.training_jacobian2024`: draw the figures and print the table."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pylyap.cli import Interruptible, run
from pylyap.cli.options import COUNT
from pylyap.papers.command import SETTINGS, make_figures, study_options
from pylyap.papers.training_jacobian2024.results import WIDTH
from pylyap.papers.training_jacobian2024.study import FIGURES, Study
from pylyap.papers.training_jacobian2024.task import Task

NAME = "python -m pylyap.papers.training_jacobian2024"


@click.command(cls=Interruptible, context_settings=SETTINGS)
@study_options(FIGURES, seed="Seed of the initial weights.", threads=False)
@click.option("--hidden", type=COUNT, default=Task.hidden, help="Number of hidden units.")
@click.option("--epochs", type=COUNT, default=Task.epochs, help="Number of epochs.")
def command(
    names: tuple[str, ...],
    output: Path,
    quick: bool,
    quiet: bool,
    seed: int,
    hidden: int,
    epochs: int,
) -> None:
    """Figures of Belrose, Scherlis, arXiv:2412.07003 (2024).

    Runs the experiments of the figures (all by default), writes FOLDER/FIGURE.png, and prints a
    table of measured and published values with the time of each experiment. FOLDER/jacobians stores
    each training Jacobian (186 MB at the published size), from which the same command resumes.

    \b
    Examples:
      python -m pylyap.papers.training_jacobian2024 --output figures
      python -m pylyap.papers.training_jacobian2024 spectrum --output figures --quick
    """
    task = Task(
        hidden=hidden,
        epochs=epochs,
        seed=seed,
        folder=output / ("jacobians-quick" if quick else "jacobians"),
        progress=not quiet and sys.stderr.isatty(),
    )
    study = Study(task, quick=quick)
    task = study.task
    published = (task.hidden, task.epochs) == (Task.hidden, Task.epochs)
    sizes = "published sizes" if published else "small sizes"
    make_figures(
        study,
        names,
        output,
        quiet,
        f"Belrose, Scherlis (2024), {sizes}",
        f"64-{task.hidden}-10, {task.n_train} images, batches of {task.batch_size}, epochs: "
        f"{task.epochs}; learning rate {task.lr:g}, half cosine, momentum {task.momentum:g}. "
        f"Assumed: seed {seed} of the initial weights, exact GELU, and the bulk |ln σ| ≤ "
        f"{WIDTH:g}. Random: mean ± standard deviation over random subspaces.",
    )


if __name__ == "__main__":
    sys.exit(run(command, None, NAME))
