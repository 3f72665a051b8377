"""`python -m pylyap.papers.jesus2021`: draw the figures and print the table of results."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from pylyap.cli import Interruptible, run
from pylyap.cli.data import load
from pylyap.cli.options import COUNT, number_list
from pylyap.papers.command import SETTINGS, make_figures, study_options
from pylyap.papers.jesus2021.study import FIGURES, Study
from pylyap.papers.jesus2021.task import WIDTHS, Task

NAME = "python -m pylyap.papers.jesus2021"


@click.command(cls=Interruptible, context_settings=SETTINGS)
@study_options(FIGURES, seed="Seed of weights, minibatches and the choice of test images.")
@click.option(
    "--data",
    type=click.Choice(["mnist", "hasy", "digits"]),
    default="mnist",
    help="MNIST or Fashion-MNIST, HASYv2, or scikit-learn's 8x8 digits. A fifth are test images.",
)
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False),
    help="Folder with the files of mnist or hasy.",
)
@click.option(
    "--part",
    type=click.Choice(["train", "test"]),
    default="test",
    help="Part of mnist: 60,000 or 10,000 images.",
)
@click.option(
    "--widths",
    type=number_list(int),
    default=",".join(map(str, WIDTHS)),
    metavar="LIST",
    help="Numbers of units of each hidden layer, increasing.",
)
@click.option("--runs", type=COUNT, default=Task.runs, help="Number of runs per width.")
@click.option("--epochs", type=COUNT, default=Task.epochs, help="Number of epochs.")
@click.option(
    "--record-every", type=COUNT, default=Task.record_every, help="Epochs between recorded losses."
)
@click.option("--lr", type=float, default=Task.lr, help="Learning rate.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    default=Task.dtype,
    help="Precision of the training steps.",
)
def command(
    names: tuple[str, ...],
    output: Path,
    quick: bool,
    quiet: bool,
    data: str,
    folder: str | None,
    part: str,
    **options: Any,
) -> None:
    """Figures of Jesus, Antunes, da Costa, Dorogovtsev, Mendes, Aguiar, Mathematics 9, 2246 (2021).

    Runs the experiments of the figures (all by default), writes FOLDER/FIGURE.png, and prints a
    table of measured and published values with the time of each experiment. FOLDER/checkpoints
    stores the training runs; the same command resumes them.

    \b
    Examples:
      python -m pylyap.papers.jesus2021 --folder data/mnist --output figures
      python -m pylyap.papers.jesus2021 --data digits --output figures --quick
      python -m pylyap.papers.jesus2021 --data hasy --folder data/hasy --output figures \\
        --widths 10,20,50,100,150,200,275,400,512,1000 --runs 10 --epochs 1000
    """
    images, labels = load(data, folder, part)
    task = Task(
        images.reshape(len(images), -1),
        labels,
        checkpoints=output / ("checkpoints-quick" if quick else "checkpoints"),
        progress=not quiet and sys.stderr.isatty(),
        **options,
    )
    study = Study(task, quick=quick)
    task = study.task
    sizes = "small sizes, not comparable" if quick else "smaller sizes than published"
    make_figures(
        study,
        names,
        output,
        quiet,
        f"Jesus, Antunes, da Costa, Dorogovtsev, Mendes, Aguiar (2021), {sizes}",
        f"{len(task.parts[1])} training and {len(task.parts[3])} test images of {data}; runs: "
        f"{task.runs}; epochs: {task.epochs}; learning rate {task.lr:g}, batches of "
        f"{task.batch_size}, {task.dtype}. Published: HASYv2, ten runs, 1000 epochs. Assumed: "
        "initial biases 0, inputs from 0 to 1. Means over runs ± standard deviations.",
    )


if __name__ == "__main__":
    sys.exit(run(command, None, NAME))
