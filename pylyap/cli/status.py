"""`pylyap status`: progress of a study."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pylyap.cli.options import printable
from pylyap.cli.tables import print_facts

if TYPE_CHECKING:
    from pylyap.studies.results import Progress

_MAX_FAILURES = 10  # printed


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--watch", is_flag=True, help="Show it again every few seconds until the study ends.")
@click.option(
    "--every",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Seconds between updates of --watch.",
)
def status(folder: Path, watch: bool, every: float) -> None:
    """Show the progress of the study in a folder, also while it runs.

    Reads the log of the study; changes no file. With --watch, on a terminal the text is replaced,
    otherwise a line is printed whenever the numbers change; Ctrl-C ends it, not the study.

    \b
    Examples:
      pylyap status results
      pylyap status results --watch
    """
    from pylyap.studies.results import progress

    now = progress(folder)
    last = ""
    try:
        while watch and now.running:
            if sys.stdout.isatty():
                click.clear()
                print_status(folder, now)
            elif (line := _line(now)) != last:
                click.echo(line)
                sys.stdout.flush()
                last = line
            time.sleep(every)
            now = progress(folder)
    except KeyboardInterrupt:
        return
    if watch and sys.stdout.isatty():
        click.clear()
    print_status(folder, now)


def _line(now: Progress) -> str:
    facts = _facts(Path(), now)
    failed = "" if facts["failed"] == "0" else f", {facts['failed']} failed"
    return f"{facts['done']}, {facts['diverged']} diverged{failed}"


def print_status(folder: Path, now: Progress) -> None:
    """Print the progress and the failures of a study."""
    print_facts({name: printable(text) for name, text in _facts(folder, now).items()})
    for failure in now.failures[:_MAX_FAILURES]:
        where = ", ".join(f"{name} {value}" for name, value in failure["at"].items())
        first, last = failure["runs"]
        runs = f"run {first}" if first == last else f"runs {first}-{last}"
        print(printable(f"failed: {where}, {runs}: {failure['error']}"))
    if len(now.failures) > _MAX_FAILURES:
        print(f"and {len(now.failures) - _MAX_FAILURES} more failures")


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
