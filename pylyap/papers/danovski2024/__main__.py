"""`python -m pylyap.papers.danovski2024`: draw the figures and print the table of results."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pylyap.cli import Interruptible, run
from pylyap.cli.options import FROM_ZERO
from pylyap.papers.command import SETTINGS, make_figures, study_options
from pylyap.papers.danovski2024.study import FIGURES, Study
from pylyap.papers.danovski2024.task import SPLIT_SEED, Task

NAME = "python -m pylyap.papers.danovski2024"


@click.command(cls=Interruptible, context_settings=SETTINGS)
@study_options(FIGURES, seed="Seed of weights and perturbations.")
@click.option(
    "--split-seed",
    type=FROM_ZERO,
    default=SPLIT_SEED,
    help="Seed of the choice of 120 training samples.",
)
def command(
    names: tuple[str, ...],
    output: Path,
    quick: bool,
    seed: int,
    split_seed: int,
    threads: int | None,
    quiet: bool,
) -> None:
    """Figures of Danovski, Soriano, Lacasa, Front. Complex Syst. 2, 1367957 (2024).

    Runs the experiments of the figures (all by default), writes FOLDER/FIGURE.png, and prints a
    table of measured and published values with the time of each experiment.

    \b
    Examples:
      python -m pylyap.papers.danovski2024 --output figures
      python -m pylyap.papers.danovski2024 scaling norm --output figures --quick
    """
    task = Task(split_seed, seed, threads, progress=not quiet and sys.stderr.isatty())
    sizes = "small sizes, not comparable" if quick else "published sizes"
    make_figures(
        Study(task, quick=quick),
        names,
        output,
        quiet,
        f"Danovski, Soriano, Lacasa (2024), {sizes}",
        f"Assumed: the 120 training samples (seed {split_seed}), initial weights and perturbations "
        f"(seed {seed}). Ranges are over runs and, where there are several, sizes. Rates are in "
        "nats per step.",
    )


if __name__ == "__main__":
    sys.exit(run(command, None, NAME))
