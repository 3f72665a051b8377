"""`python -m pylyap.papers.sohldickstein2024`: draw the figures and print the table of results."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pylyap.cli import Interruptible, run
from pylyap.papers.command import SETTINGS, make_figures, study_options
from pylyap.papers.sohldickstein2024.study import FIGURES, Study
from pylyap.papers.sohldickstein2024.task import Task

NAME = "python -m pylyap.papers.sohldickstein2024"


@click.command(cls=Interruptible, context_settings=SETTINGS)
@study_options(FIGURES, seed="Not used: weights and data are the published ones.")
def command(
    names: tuple[str, ...],
    output: Path,
    quick: bool,
    seed: int,
    threads: int | None,
    quiet: bool,
) -> None:
    """Figures of Sohl-Dickstein, arXiv 2402.06184 (2024).

    Runs the experiments of the figures (all by default), writes FOLDER/FIGURE.png, and prints a
    table of measured and published values with the time of each experiment. FOLDER/checkpoints
    stores the maps; the same command resumes them.

    \b
    Examples:
      python -m pylyap.papers.sohldickstein2024 --output figures
      python -m pylyap.papers.sohldickstein2024 landscape --output figures --quick
    """
    task = Task(
        checkpoints=output / ("checkpoints-quick" if quick else "checkpoints"),
        threads=threads,
        progress=not quiet and sys.stderr.isatty(),
    )
    make_figures(
        Study(task, quick=quick),
        names,
        output,
        quiet,
        "Sohl-Dickstein (2024)" + (", small sizes, not comparable" if quick else ""),
        "Weights and data of the published notebook. Published dimensions: medians of slopes over "
        "images of 4096 × 4096 pixels of some 50 zooms.",
    )


if __name__ == "__main__":
    sys.exit(run(command, None, NAME))
