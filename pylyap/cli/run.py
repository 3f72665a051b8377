"""`pylyap run`: a study from its file into its folder."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pylyap._files import is_full
from pylyap.cli.options import COUNT, FULL, INTERRUPTED, WRONG, printable

if TYPE_CHECKING:
    from pylyap.studies import Study

_FAILED = 1  # exit code


@click.command("run", context_settings={"show_default": True})
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    show_default="the name of the file without its suffix",
    help="Folder of the results; what is done there is not done again.",
)
@click.option("--workers", type=COUNT, show_default="all", help="Tasks worked on at once.")
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Let the workers of a Dask cluster do it: tcp://host:8786.",
)
@click.option(
    "--extend",
    is_flag=True,
    help="Add the runs, and the values at the end of lists of the grid, that the folder lacks.",
)
@click.option(
    "--mixed",
    is_flag=True,
    help="Go on with another version or instruction set than the folder began with; the results "
    "differ in their last digits, and say so.",
)
@click.option("--dry-run", is_flag=True, help="Say what it would take, after some test runs.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def run_command(
    file: Path,
    output: Path | None,
    workers: int | None,
    scheduler: str | None,
    extend: bool,
    mixed: bool,
    dry_run: bool,
    quiet: bool,
) -> None:
    """Run the study of a TOML file, or what is left of it.

    Thousands of runs of an analysis over a grid of settings. The same command again goes on where
    it was stopped, whatever stopped it. Ctrl-C ends it after the tasks that run, a second one at
    once. Exit codes: 0 all done, 1 done but runs failed, 2 an error, 3 the disk is full, 130
    stopped.

    \b
    Examples:
      pylyap run study.toml --dry-run
      pylyap run study.toml --output results
      pylyap status results
      pylyap run study.toml --scheduler tcp://node01:8786
    """
    from pylyap.cli.status import print_status
    from pylyap.studies import run_study
    from pylyap.studies.executors import pool
    from pylyap.studies.results import progress

    study = _study(file)
    folder = output or Path(file.stem)
    if dry_run:
        with pool(scheduler, workers) as crew:
            _print_plan(study, folder, max(1, crew.workers()))
        return
    try:
        run_study(
            study,
            folder,
            executor=scheduler,
            workers=workers,
            extend=extend,
            mixed=mixed,
            progress=not quiet,
        )
    except KeyboardInterrupt as stopped:
        how_far = str(stopped) or "what is done stays done; run it again for the rest"
        _leave(f"stopped: {how_far}", INTERRUPTED)
    except OSError as error:
        if not is_full(error):
            raise
        text = "make room and run it again; what is done stays done"
        _leave(f"no room left for {folder}: {text}", FULL)
    now = progress(folder)
    if not quiet:
        print_status(folder, now)
    if now.failures:
        click.get_current_context().exit(_FAILED)


def _study(file: Path) -> Study:
    """The study of a file; its mistakes are a line each, in the words of the file."""
    from pylyap.studies import Study

    try:
        return Study.from_file(file)
    except ValueError as error:
        click.echo(f"pylyap: {printable(str(error))}", err=True)
        click.get_current_context().exit(WRONG)


def _leave(text: str, code: int) -> None:
    """Go at once, without waiting for tasks that still run in threads."""
    click.echo(f"pylyap: {text}", err=True)
    sys.stdout.flush()
    sys.stderr.flush()
    if threading.active_count() > 1:
        os._exit(code)
    click.get_current_context().exit(code)


def _print_plan(study: Study, folder: Path, workers: int) -> None:
    from rich.console import Console
    from rich.table import Table
    from tqdm import tqdm

    from pylyap import _checks
    from pylyap.studies import plan_study

    plan = plan_study(study, folder, workers=workers)
    free = shutil.disk_usage(next(p for p in (folder, *folder.absolute().parents) if p.exists()))
    seconds = tqdm.format_interval(plan.seconds)
    table = Table.grid("", "", padding=(0, 2))
    facts = {
        "runs": f"{plan.runs}",
        "tasks": f"{plan.tasks} of up to {plan.block} runs",
        "workers": f"{plan.workers}",
        "time": seconds if plan.measured else f"{seconds} or so: a run takes too long to try",
        "disk": f"{_checks.size(plan.disk)} at most, {_checks.size(free.free)} are free",
        "memory": f"{_checks.size(plan.memory)} of results at most, beside that of the tasks",
    }
    for row in facts.items():
        table.add_row(*row)
    Console(highlight=False, soft_wrap=True).print(table)
