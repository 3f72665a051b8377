"""`pylyap export`: the results of a study as one netCDF file."""

from __future__ import annotations

from pathlib import Path

import click

from pylyap.cli.options import cannot_write, target


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("file", type=target("nc"))
def export(folder: Path, file: Path) -> None:
    """Write the results of the study in a folder to a netCDF file.

    An unfinished study has nan (and status -1) where runs are missing. The file is built in memory
    and written atomically.
    """
    from pylyap.studies import export_study

    try:
        export_study(folder, file)
    except OSError as error:
        raise cannot_write(file, error) from None
