"""`pylyap plot`: plots of a study."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pylyap._files import user_file, write_figure
from pylyap.cli.options import cannot_write, target

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_IMAGES = (".png", ".svg", ".jpg", ".jpeg", ".eps", ".ps", ".tif", ".tiff", ".webp", ".gif")


def _folder_or_document(text: str) -> Path:
    path = Path(text)
    suffix = path.suffix.lower()
    if suffix == ".pdf" and not path.is_dir():
        return target("pdf")(text)
    if not path.is_dir() and (path.exists() or suffix in _IMAGES):
        raise click.BadParameter(f"must be a folder or a .pdf file, got {text!r}")
    return path


@click.command(context_settings={"show_default": True})
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=_folder_or_document,
    metavar="PATH",
    show_default="pictures in the folder of the study",
    help="A folder for .png files, or a .pdf file with a page per figure.",
)
@click.option("--quiet", is_flag=True, help="Do not print the names of the files.")
def plot(folder: Path, output: Path | None, quiet: bool) -> None:
    """Plot the results of the study in a folder.

    Works also while the study runs; titles state the number of finished runs.

    \b
    Examples:
      pylyap plot results
      pylyap plot results --output results.pdf
    """
    from pylyap.studies import plot_study

    figures = plot_study(folder)
    path = output or folder / "pictures"
    try:
        write = _write_pages if path.suffix.lower() == ".pdf" else _write_files
        written = write(path, figures)
    except OSError as error:
        raise cannot_write(path, error) from None
    if not quiet:
        for file in written:
            click.echo(f"wrote {file}", err=True)


def _write_files(folder: Path, figures: dict[str, Figure]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    files = {folder / f"{name}.png": figure for name, figure in figures.items()}
    for path, figure in files.items():
        with user_file(path) as file:
            write_figure(file, figure, "png")
    return list(files)


def _write_pages(path: Path, figures: dict[str, Figure]) -> list[Path]:
    from matplotlib.backends.backend_pdf import PdfPages

    buffer = io.BytesIO()
    with PdfPages(buffer) as pages:
        for figure in figures.values():
            pages.savefig(figure)
    with user_file(path) as file:
        file.write(buffer.getbuffer())
    return [path]
