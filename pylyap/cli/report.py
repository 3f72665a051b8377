"""`pylyap report`: a study on a page."""

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
    help="The page: .html.",
)
@click.option("--quiet", is_flag=True, help="Do not name the file.")
def report(folder: Path, output: Path | None, quiet: bool) -> None:
    """Write settings, progress, pictures, tables and failures of a study as one HTML page.

    As far as it has come, also while it runs. The page needs nothing beside it and no network.

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
