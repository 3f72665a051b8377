"""`pylyap run`: run the study of a TOML file."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pylyap._files import is_full
from pylyap.cli.data import warnings_as_lines
from pylyap.cli.options import COUNT, ERROR, FULL, INTERRUPTED, printable
from pylyap.cli.tables import print_facts

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
    help="Folder of the results; runs that are finished there are not repeated.",
)
@click.option("--workers", type=COUNT, show_default="all", help="Number of parallel tasks.")
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Scheduler of a Dask cluster to use: tcp://host:8786.",
)
@click.option(
    "--extend",
    is_flag=True,
    help="Add runs, and values at the end of lists of the grid, to an existing folder.",
)
@click.option(
    "--mixed",
    is_flag=True,
    help="Continue with another version or instruction set than that of the folder; results may "
    "differ in their last digits, which is recorded.",
)
@click.option(
    "--dry-run", is_flag=True, help="Estimate time, disk and memory from a few test runs."
)
@click.option("--quiet", is_flag=True, help="Do not show progress.")
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
    """Run the study of a TOML file, or the remaining part of it.

    A study is an analysis of many runs over a grid of settings. After an interruption of any kind
    the same command continues. Ctrl-C stops after the running tasks, a second Ctrl-C at once. Exit
    codes: 0 success, 1 some runs failed, 2 error, 3 disk full, 130 interrupted.

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
        with pool(scheduler, workers) as executor:
            _print_plan(study, folder, max(1, executor.workers()))
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
        progress_made = str(stopped) or "finished runs are kept; run it again to continue"
        _exit(f"stopped: {progress_made}", INTERRUPTED)
    except OSError as error:
        if not is_full(error):
            raise
        text = "free some space and run it again; finished runs are kept"
        _exit(f"no space left for {folder}: {text}", FULL)
    now = progress(folder)
    if not quiet:
        print_status(folder, now)
    if now.failures:
        click.get_current_context().exit(_FAILED)


def _study(file: Path) -> Study:
    """Read the study; print one line per error, with the names of the file."""
    from pylyap.studies import Study

    try:
        with warnings_as_lines():
            return Study.from_file(file)
    except ValueError as error:
        click.echo(f"pylyap: {printable(str(error))}", err=True)
        click.get_current_context().exit(ERROR)


def _exit(text: str, code: int) -> None:
    """Exit at once, without waiting for tasks that still run in threads."""
    click.echo(f"pylyap: {text}", err=True)
    sys.stdout.flush()
    sys.stderr.flush()
    if threading.active_count() > 1:
        os._exit(code)
    click.get_current_context().exit(code)


def _print_plan(study: Study, folder: Path, workers: int) -> None:
    from tqdm import tqdm

    from pylyap import _checks
    from pylyap.studies import plan_study

    plan = plan_study(study, folder, workers=workers)
    free = shutil.disk_usage(next(p for p in (folder, *folder.absolute().parents) if p.exists()))
    seconds = tqdm.format_interval(plan.seconds)
    facts = {
        "runs": f"{plan.runs}",
        "tasks": f"{plan.tasks} of up to {plan.block} runs",
        "workers": f"{plan.workers}",
        "time": seconds
        if plan.measured
        else f"about {seconds} (not measured: a test run is too long)",
        "disk": f"{_checks.size(plan.disk)} at most, {_checks.size(free.free)} available",
        "memory": f"{_checks.size(plan.memory)} at most for results, besides the tasks",
        "data": f"{_checks.size(plan.data)} in each worker process",
    }
    print_facts(facts)
