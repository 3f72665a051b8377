"""Kill a study with SIGKILL at random moments, resuming it with the same command each time.

    python tests/kill_study.py 20

prints a summary. It fails if an array differs from that of an uninterrupted study, or if a recorded
task was computed again.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pylyap as pl
from pylyap.studies import records
from pylyap.studies.store import create, driver

STUDY = """
runs = 96
data.name = "quadratic"
network.hidden = 3
[analysis]
name = "spectrum"
n_steps = {steps}
record_every = {steps}
[grid]
"network.activation" = ["relu", "tanh"]
"optimizer.lr" = [0.01, 0.1, 10.0]
"""


def write_study(file: Path, steps: int) -> pl.Study:
    file.write_text(STUDY.format(steps=steps))
    return pl.Study.from_file(file)


def start(file: Path, folder: Path, *options: str) -> subprocess.Popen[str]:
    """Start `pylyap run` with the pylyap of this process."""
    code = "import sys; from pylyap.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "run", str(file), "--output", str(folder), *options]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder.parent
    )


def kill_again_and_again(file: Path, folder: Path, moments: list[float]) -> list[int]:
    """Kill it at these moments, then let it finish; numbers of records after each kill.

    Moments are in seconds after the first task of the process, every fourth after its start.
    """
    found = [0]
    for i, moment in enumerate(moments):
        with start(file, folder) as process:
            while i % 4 and process.poll() is None and count(folder) == found[-1]:
                time.sleep(0.01)
            time.sleep(moment)
            process.send_signal(signal.SIGKILL)
            process.communicate()
        found.append(count(folder))
    process = start(file, folder)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return found[1:]


def count(folder: Path) -> int:
    return len(list(records.read(folder / "tasks.log")))


def assert_same_as_uninterrupted(folder: Path, alone: Path) -> None:
    """The bits of both studies agree, and each task has one record."""
    one, other = pl.open_study(folder), pl.open_study(alone)
    assert set(one.variables) == set(other.variables)
    for name in one.variables:
        assert one[name].values.tobytes() == other[name].values.tobytes(), f"{name} differs"
    assert (one.status.values != -1).all()
    twice = [record for record in records.read(folder / "tasks.log") if record.tries > 1]
    assert not twice, f"recorded tasks were computed again: {twice}"
    assert not list(folder.rglob("*.part"))


def main(kills: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        here = Path(directory)
        study = write_study(here / "study.toml", 12000)
        begin = time.monotonic()
        with driver(here / "alone"):
            create(here / "alone", study, 8)
        pl.run_study(study, here / "alone")
        print(f"uninterrupted: {time.monotonic() - begin:.1f} s")
        with driver(here / "killed"):
            create(here / "killed", study, 8)
        moments = [random.uniform(0.0, 1.0) for _ in range(kills)]
        found = kill_again_and_again(here / "study.toml", here / "killed", moments)
        print(f"tasks on record after each kill: {found}")
        assert_same_as_uninterrupted(here / "killed", here / "alone")
        log = list(records.read(here / "killed" / "tasks.log"))
        drivers = len({record.since for record in log})
        print(f"{kills} kills, {drivers} drivers, {len(log)} tasks: same bits, no task repeated")


if __name__ == "__main__":
    main(int(sys.argv[1]))
