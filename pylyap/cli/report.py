"""`pylyap report`: a study as an HTML page."""

from __future__ import annotations

from pathlib import Path

import click

from pylyap.cli.options import cannot_write, target


@click.command(context_settings={"show_default": True})
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=target("html"),
    metavar="FILE",
    show_default="report.html in the folder of the study",
    help="The HTML file.",
)
@click.option("--quiet", is_flag=True, help="Do not print the name of the file.")
def report(folder: Path, output: Path | None, quiet: bool) -> None:
    """Write a study as one HTML page.

    The page has settings, progress, figures, tables and failures. It is self-contained and needs no
    network. Works also while the study runs.

    \b
    Example:
      pylyap report results
    """
    from pylyap.studies import report_study

    file = output or folder / "report.html"
    try:
        report_study(folder, file)
    except OSError as error:
        raise cannot_write(file, error) from None
    if not quiet:
        click.echo(f"wrote {file}", err=True)
