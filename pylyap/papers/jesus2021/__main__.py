"""`python -m pylyap.papers.jesus2021`: draw the figures, print what was measured."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from pylyap.cli import Interruptible, run
from pylyap.cli.options import COUNT, load, number_list
from pylyap.papers.command import SETTINGS, carry_out, study_options
from pylyap.papers.jesus2021.experiments import WIDTHS, Task
from pylyap.papers.jesus2021.study import FIGURES, Study

NAME = "python -m pylyap.papers.jesus2021"


@click.command(cls=Interruptible, context_settings=SETTINGS)
@study_options(FIGURES, seed="Of weights, minibatches and the choice of images to test.")
@click.option(
    "--data",
    type=click.Choice(["mnist", "hasy", "digits"]),
    default="mnist",
    help="MNIST or Fashion-MNIST, HASYv2, or scikit-learn's 8x8 digits. A fifth is for test.",
)
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False),
    help="Where the files of mnist or hasy are.",
)
@click.option(
    "--part",
    type=click.Choice(["train", "test"]),
    default="test",
    help="Which part of mnist: 60,000 images or 10,000.",
)
@click.option(
    "--widths",
    type=number_list(int),
    default=",".join(map(str, WIDTHS)),
    metavar="LIST",
    help="Units of each hidden layer; increasing.",
)
@click.option("--runs", type=COUNT, default=Task.runs, help="Initial weights per width.")
@click.option("--epochs", type=COUNT, default=Task.epochs, help="Passes over the images.")
@click.option(
    "--record-every", type=COUNT, default=Task.record_every, help="Epochs between recorded losses."
)
@click.option("--lr", type=float, default=Task.lr, help="Learning rate.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    default=Task.dtype,
    help="Precision of the steps.",
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

    Makes the experiments that the figures need (all by default), writes FOLDER/FIGURE.png, and
    prints what was measured beside what the study saw, with the seconds each experiment took.
    FOLDER/checkpoints keeps the trainings: run the command again, and it goes on from there.

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
    sizes = "small sizes, not to be compared" if quick else "sizes smaller than the published"
    carry_out(
        study,
        names,
        output,
        quiet,
        f"Jesus, Antunes, da Costa, Dorogovtsev, Mendes, Aguiar (2021), {sizes}",
        f"{len(task.parts[1])} images of {data} to learn and {len(task.parts[3])} to test; runs: "
        f"{task.runs}; epochs: {task.epochs}; learning rate {task.lr:g}, batches of "
        f"{task.batch_size}, {task.dtype}. Published: HASYv2, ten runs, 1000 epochs. Assumed: "
        "biases start at 0, inputs from 0 to 1. Means over runs ± standard deviations.",
    )


if __name__ == "__main__":
    sys.exit(run(command, None, NAME))
