"""`python -m pylyap.papers.danovski2024`: draw the figures, print what was measured."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pylyap.cli import Interruptible, run
from pylyap.cli.options import FROM_ZERO
from pylyap.papers.command import SETTINGS, carry_out, study_options
from pylyap.papers.danovski2024.experiments import SPLIT_SEED, Task
from pylyap.papers.danovski2024.study import FIGURES, Study

NAME = "python -m pylyap.papers.danovski2024"


@click.command(cls=Interruptible, context_settings=SETTINGS)
@study_options(FIGURES, seed="Of weights and perturbations.")
@click.option(
    "--split-seed",
    type=FROM_ZERO,
    default=SPLIT_SEED,
    help="Of the choice of 120 flowers for training.",
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

    Makes the experiments that the figures need (all by default), writes FOLDER/FIGURE.png, and
    prints what was measured beside what the study saw, with the seconds each experiment took.

    \b
    Examples:
      python -m pylyap.papers.danovski2024 --output figures
      python -m pylyap.papers.danovski2024 scaling norm --output figures --quick
    """
    task = Task(split_seed, seed, threads, progress=not quiet and sys.stderr.isatty())
    sizes = "small sizes, not to be compared" if quick else "published sizes"
    carry_out(
        Study(task, quick=quick),
        names,
        output,
        quiet,
        f"Danovski, Soriano, Lacasa (2024), {sizes}",
        f"Assumed: the 120 flowers, of seed {split_seed}; initial weights and perturbations, of "
        f"seed {seed}. Ranges are over runs, and sizes where there are several; rates in nats per "
        "step.",
    )


if __name__ == "__main__":
    sys.exit(run(command, None, NAME))
