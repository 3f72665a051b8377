"""`python -m pylyap.papers.cohen2021`: draw the figures and print the table of results."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pylyap.cli import Interruptible, run
from pylyap.papers.cohen2021.study import FIGURES, Study
from pylyap.papers.cohen2021.task import ASSUMED, Task
from pylyap.papers.command import SETTINGS, make_figures, study_options

NAME = "python -m pylyap.papers.cohen2021"


@click.command(cls=Interruptible, context_settings=SETTINGS)
@study_options(FIGURES, seed="Seed of the initial weights and of the choice of images.")
def command(
    names: tuple[str, ...], output: Path, quick: bool, seed: int, threads: int | None, quiet: bool
) -> None:
    """The edge of stability: Cohen et al., ICLR (2021), and arXiv:2207.14484 (2022) for Adam.

    Trains a two-layer network on digits by four optimisers (all figures by default), writes
    FOLDER/FIGURE.png, and prints a table of measured and published values with the time of each
    experiment. FOLDER/results keeps the runs: the same command resumes from there.

    \b
    Examples:
      python -m pylyap.papers.cohen2021 --output figures
      python -m pylyap.papers.cohen2021 adam --output figures --quick
    """
    folder = output / ("results-quick" if quick else "results")
    task = Task(folder, seed=seed, threads=threads, progress=not quiet and sys.stderr.isatty())
    sizes = "small sizes, not comparable" if quick else "on digits"
    make_figures(
        Study(task, quick=quick),
        names,
        output,
        quiet,
        f"Cohen, Kaur, Li, Kolter, Talwalkar (2021), {sizes}",
        f"{ASSUMED}. Seed {seed}. Ratios are sharpness over threshold; the median is over the last "
        "half of the steps.",
    )


if __name__ == "__main__":
    sys.exit(run(command, None, NAME))
