"""Command line of a published study: writes figures to a folder and prints a table of results."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pylyap._files import is_full, reason, user_file, write_figure
from pylyap.cli.options import COUNT, FROM_ZERO, cannot_write
from pylyap.cli.tables import terminal
from pylyap.papers.study import Drawing, Study

if TYPE_CHECKING:
    from rich.table import Table

F = TypeVar("F", bound=Callable[..., Any])

SETTINGS = {
    "show_default": True,
    "help_option_names": ["-h", "--help"],
    "max_content_width": 100,
}


def study_options(
    figures: Mapping[str, Drawing], seed: str, *, threads: bool = True
) -> Callable[[F], F]:
    """Decorator that adds the options of all studies to a command.

    Parameters
    ----------
    figures : mapping of Drawing
        Figures by name.
    seed : str
        Help text of ``--seed``.
    threads : bool, default True
        Add ``--threads``.

    Returns
    -------
    callable
        The decorator.
    """
    options = [
        click.argument("names", metavar="[FIGURE]...", nargs=-1, type=click.Choice(list(figures))),
        click.option(
            "--output",
            type=click.Path(path_type=Path),
            metavar="FOLDER",
            required=True,
            help="Folder of the PNG files; created if it does not exist.",
        ),
        click.option("--quick", is_flag=True, help="Use small sizes that run in a few seconds."),
        click.option("--seed", type=FROM_ZERO, default=0, help=seed),
        click.option("--quiet", is_flag=True, help="Print only the table."),
    ]
    if threads:
        options.insert(
            -1,
            click.option(
                "--threads", type=COUNT, show_default="all cores", help="Number of threads."
            ),
        )

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def make_figures(
    study: Study, names: tuple[str, ...], output: Path, quiet: bool, title: str, caption: str
) -> None:
    """Run the experiments of the requested figures, write the figures, and print the table.

    Parameters
    ----------
    study : Study
        The study.
    names : tuple of str
        Names of the figures; all if empty.
    output : Path
        Folder of the figures; created if it does not exist.
    quiet : bool
        Do not report the files that are written.
    title, caption : str
        Title and caption of the table.
    """
    from pylyap.plotting.style import canvas

    try:  # checked before the work
        output.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=output).close()
    except OSError as error:
        if is_full(error):
            raise cannot_write(output, error) from None
        why = reason(error).lower()
        raise click.ClickException(f"--output {str(output)!r} is not writable: {why}") from None
    with canvas():
        pass  # raises ImportError if Matplotlib is missing
    for name in dict.fromkeys(names or study.figures):
        path = output / f"{name}.png"
        figure = study.figure(name)
        try:
            with user_file(path) as file:
                write_figure(file, figure, "png")
        except OSError as error:
            raise cannot_write(path, error) from None
        if not quiet:
            click.echo(f"wrote {path}", err=True)
    terminal().print(_table(study, title, caption))


def _table(study: Study, title: str, caption: str) -> Table:
    from rich import box
    from rich.table import Table

    columns = ["experiment", "seconds", "quantity", "measured", "published"]
    table = Table(*columns, box=box.SIMPLE_HEAD, title=title, caption=caption)
    table.title_justify = table.caption_justify = "left"
    for name, seconds in study.seconds.items():
        for i, row in enumerate(study.rows(name)):
            table.add_row(*(("", "") if i else (name, f"{seconds:.1f}")), *row)
    return table
