"""Counts instructions, imported modules and bytes, and compares them with the committed table.

    python -m benchmarks.instructions            # exit code 1 if a kernel takes over 2 % more
    python -m benchmarks.instructions --update   # write the table anew, and a line of the history
    python -m benchmarks.instructions --history  # all accepted tables side by side, in Markdown

Needs valgrind, CMake, Ninja and the headers of Eigen (``pip install '.[bench]'``). The counts are
of x86-64-v3, since valgrind does not know AVX-512, and depend on the compiler: where it is another
one than the table's, the counts are printed and not compared. What `import pylyap` loads and the
size of the core of this installation are compared everywhere.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TypedDict

import pylyap as pl

from . import history, package

HERE = Path(__file__).parent
TABLE, PACKAGE = HERE / "counts.json", HERE / "package.json"
TOLERANCE = 0.02
UPDATE = "python -m benchmarks.instructions --update"


class Counts(TypedDict):
    compiler: str
    valgrind: str
    counts: dict[str, int]


def first_line(*command: str) -> str:
    """The first line that a command prints."""
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()[0]


def build(folder: Path) -> Path:
    """Compile the driver; return its path."""
    settings = [
        "-DCMAKE_BUILD_TYPE=Release",
        f"-DCMAKE_PREFIX_PATH={sysconfig.get_path('purelib')}",
    ]
    configure = ["cmake", "-G", "Ninja", *settings, "-S", str(HERE), "-B", str(folder)]
    for command in (configure, ["cmake", "--build", str(folder)]):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder / "driver"


def count(driver: Path, folder: Path) -> dict[str, int]:
    """Instructions of each workload."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    tool = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder / 'counts'}"]
    subprocess.run([*tool, str(driver)], check=True, stderr=subprocess.DEVNULL)
    counts = {}
    for file in folder.iterdir():
        text = file.read_text()
        workload = re.search(r"Client Request: (\S+)", text)
        total = re.search(r"^totals: (\d+)", text, re.MULTILINE)
        if workload and total:
            counts[workload[1]] = int(total[1])
    return dict(sorted(counts.items()))


def show(before: dict[str, int], now: dict[str, int]) -> list[str]:
    """Print both counts side by side; return the workloads above the tolerance."""
    worse = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        change = f"{new / old - 1:+8.2%}" if old and new else "        "
        print(f"{name:30} {old or '':>12} {new or '':>12} {change}")
        if old and (not new or new > old * (1 + TOLERANCE)):
            worse.append(name)
    return worse


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="write the table anew")
    parser.add_argument("--build", default="build/instructions", help="folder to build in")
    parser.add_argument("--history", action="store_true", help="show all accepted tables")
    options = parser.parse_args()
    if options.history:
        print(history.table(history.read()), end="")
        return 0
    ours = package.measured()
    found = [] if options.update else package.worse(json.loads(PACKAGE.read_text()), ours)
    for text in found:
        print(f"import pylyap: {text}")
    print(f"{ours['modules']} modules of pylyap; packages: {', '.join(ours['packages'])}")
    if platform.machine() not in ("x86_64", "AMD64") or not shutil.which("valgrind"):
        print("instructions are counted on x86-64 with valgrind alone: not compared")
        return 1 if found else 0
    folder = Path(options.build).resolve()
    driver = build(folder)
    now: Counts = {
        "compiler": first_line("c++", "--version"),
        "valgrind": first_line("valgrind", "--version"),
        "counts": count(driver, folder / "callgrind"),
    }
    if options.update:
        TABLE.write_text(json.dumps(now, indent=2) + "\n")
        PACKAGE.write_text(json.dumps(ours, indent=2) + "\n")
        numbers = now["counts"] | {"modules": ours["modules"]}
        numbers |= {f"{name} bytes": size for name, size in ours["bytes"].items()}
        history.append(pl.__version__, now["compiler"], numbers)
        print(f"{TABLE} written: {len(now['counts'])} workloads")
        return 0
    before: Counts = json.loads(TABLE.read_text())
    worse = show(before["counts"], now["counts"])
    for tool in ("compiler", "valgrind"):
        if before[tool] != now[tool]:
            print(f"{tool} is {now[tool]!r}, the table's is {before[tool]!r}: not compared")
            return 1 if found else 0
    if worse:
        print(f"more than {TOLERANCE:.0%} above the table: {', '.join(worse)}")
        print(f"if that is wanted, write the table anew: {UPDATE}")
    return 1 if worse or found else 0


if __name__ == "__main__":
    sys.exit(main())
