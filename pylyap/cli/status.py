"""`pylyap status`: progress of a study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pylyap.cli.options import printable

if TYPE_CHECKING:
    from pylyap.studies.results import Progress

_MAX_FAILURES = 10  # printed


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def status(folder: Path) -> None:
    """Show the progress of the study in a folder, also while it runs.

    Reads the log of the study; changes no file.
    """
    from pylyap.studies.results import progress

    print_status(folder, progress(folder))


def print_status(folder: Path, now: Progress) -> None:
    """Print the progress and the failures of a study."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table.grid("", "", padding=(0, 2))
    for name, text in _facts(folder, now).items():
        table.add_row(name, escape(printable(text)))
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    for failure in now.failures[:_MAX_FAILURES]:
        where = ", ".join(f"{name} {value}" for name, value in failure["at"].items())
        first, last = failure["runs"]
        runs = f"run {first}" if first == last else f"runs {first}-{last}"
        console.print(escape(printable(f"failed: {where}, {runs}: {failure['error']}")))
    if len(now.failures) > _MAX_FAILURES:
        console.print(f"and {len(now.failures) - _MAX_FAILURES} more failures")


def _facts(folder: Path, now: Progress) -> dict[str, str]:
    import numpy as np
    from tqdm import tqdm

    from pylyap._status import Status

    rate = "" if np.isnan(now.rate) else f"{now.rate:.3g} runs/s"
    left = "" if np.isnan(now.seconds_left) else f", {tqdm.format_interval(now.seconds_left)} left"
    facts = {
        "study": now.about["title"],
        "folder": str(folder),
        "done": f"{now.done} of {now.statuses.size} runs",
        "diverged": f"{now.count(Status.DIVERGED)}",
        "failed": f"{now.count(Status.RAISED)}",
        "running": f"yes, {rate}{left}" if now.running else "no",
        "results of": "; ".join(now.environments),
        "since": now.about["created"],
    }
    return {name: text for name, text in facts.items() if text}
