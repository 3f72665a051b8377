"""`python -m pylyap.papers.danovski2024`: draw the figures, print what was measured."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pylyap.cli import Interruptible, run
from pylyap.cli.options import COUNT, FROM_ZERO, print_table
from pylyap.papers.danovski2024.experiments import SPLIT_SEED, Task
from pylyap.papers.danovski2024.study import FIGURES, Study

if TYPE_CHECKING:
    from rich.table import Table

NAME = "python -m pylyap.papers.danovski2024"


@click.command(
    cls=Interruptible,
    context_settings={
        "show_default": True,
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
    },
)
@click.argument("names", metavar="[FIGURE]...", nargs=-1, type=click.Choice(list(FIGURES)))
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    required=True,
    help="Where the PNG files go; made if it is not there.",
)
@click.option("--quick", is_flag=True, help="Small sizes: a look at the pictures in some seconds.")
@click.option("--seed", type=FROM_ZERO, default=0, help="Of weights and perturbations.")
@click.option(
    "--split-seed",
    type=FROM_ZERO,
    default=SPLIT_SEED,
    help="Of the choice of 120 flowers for training.",
)
@click.option("--threads", type=COUNT, show_default="all cores", help="Runs worked on at once.")
@click.option("--quiet", is_flag=True, help="Print the table and nothing else.")
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
    from pylyap.plotting.style import canvas

    try:  # before the work, not after it
        output.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=output).close()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise click.ClickException(f"--output {str(output)!r} takes no files: {reason}") from None
    with canvas():
        pass  # Matplotlib is there, or says how to get it
    study = Study(
        Task(split_seed, seed, threads, progress=not quiet and sys.stderr.isatty()), quick=quick
    )
    for name in dict.fromkeys(names or FIGURES):
        path = output / f"{name}.png"
        study.figure(name).savefig(path)
        if not quiet:
            click.echo(f"wrote {path}", err=True)
    print_table(lambda _: _table(study))


def _table(study: Study) -> Table:
    from rich import box
    from rich.table import Table

    sizes = "small sizes, not to be compared" if study.quick else "published sizes"
    title = f"Danovski, Soriano, Lacasa (2024), {sizes}"
    columns = ["experiment", "seconds", "quantity", "here", "published"]
    table = Table(*columns, box=box.SIMPLE_HEAD, title=title)
    table.caption = (
        f"Assumed: the 120 flowers, of seed {study.task.split_seed}; initial weights and "
        f"perturbations, of seed {study.task.seed}. Ranges are over runs, and sizes where there "
        "are several; rates in nats per step."
    )
    table.title_justify = table.caption_justify = "left"
    for name, seconds in study.seconds.items():
        for i, row in enumerate(study.rows(name)):
            table.add_row(*(("", "") if i else (name, f"{seconds:.1f}")), *row)
    return table


if __name__ == "__main__":
    sys.exit(run(command, None, NAME))
