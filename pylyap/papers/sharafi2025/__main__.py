"""`python -m pylyap.papers.sharafi2025`: draw the figures and print the table of results."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pylyap._files import user_file, write_text
from pylyap.cli import Interruptible, run
from pylyap.cli.options import cannot_write
from pylyap.papers.command import SETTINGS, make_figures, study_options
from pylyap.papers.sharafi2025.definition import ASSUMED, HE, WIDE, Task
from pylyap.papers.sharafi2025.study import FIGURES, Study
from pylyap.papers.sharafi2025.table import markdown, table

NAME = "python -m pylyap.papers.sharafi2025"


@click.command(cls=Interruptible, context_settings=SETTINGS)
@study_options(FIGURES, seed="Seed of the initial weights.")
def command(
    names: tuple[str, ...], output: Path, quick: bool, seed: int, threads: int | None, quiet: bool
) -> None:
    """Figures of Sharafi, Martin, Hallerberg, Phys. Rev. E 111, 054208 (2025).

    Runs the experiments of the figures (all by default), writes FOLDER/FIGURE.png, and prints a
    table of measured and published values with the time of each experiment. FOLDER/results keeps
    the runs: the same command resumes from there. Without names of figures it also writes
    FOLDER/table.md with parameters and results of the four ensembles.

    \b
    Examples:
      python -m pylyap.papers.sharafi2025 --output figures
      python -m pylyap.papers.sharafi2025 final-loss skill --output figures --quick
    """
    task = Task(output / "results", seed, threads, progress=not quiet and sys.stderr.isatty())
    study = Study(task, quick=quick)
    sizes = "small sizes, not comparable" if quick else "published number of runs"
    make_figures(
        study,
        names,
        output,
        quiet,
        f"Sharafi, Martin, Hallerberg (2025), {sizes}",
        f"{ASSUMED}, learning rate {HE.lr:g} (He) and {WIDE.lr:g} (σ = 20). Initial weights of "
        f"seed {seed}. Intervals are 95 %; exponents in nats per step; comparisons of indicators "
        "on the same runs, corrected by Holm.",
    )
    if not names:
        path = output / "table.md"
        try:
            with user_file(path) as file:
                write_text(file, markdown(table(study.result("predictions"))))
        except OSError as error:
            raise cannot_write(path, error) from None
        if not quiet:
            click.echo(f"wrote {path}", err=True)


if __name__ == "__main__":
    sys.exit(run(command, None, NAME))
