"""The command ``python -m benchmarks.peers``; see the package's docstring."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console

from .harness import Harness
from .report import entry, machine, table, versions
from .workers import WorkerGroup
from .workloads import WORKLOADS

QUIET_LOAD = 0.3  # load average above which times are not to be trusted


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description="Measure pylyap beside other packages.",
        epilog="Rows: " + "; ".join(f"{i}: {w.title}" for i, w in WORKLOADS.items()),
    )
    parser.add_argument("--quick", action="store_true", help="few steps and repetitions")
    parser.add_argument(
        "--rows", default=",".join(map(str, WORKLOADS)), help="rows to measure, such as 1,3"
    )
    parser.add_argument(
        "--without", default="", metavar="PACKAGES", help="packages to leave out, such as torch"
    )
    parser.add_argument(
        "--processor-time", action="store_true", help="processor time of one process on one core"
    )
    parser.add_argument("--verbose", action="store_true", help="print every candidate")
    parser.add_argument("--json", metavar="FILE", help="write every repetition to FILE")
    chosen = parser.parse_args(arguments)
    try:
        rows = [int(text) for text in chosen.rows.split(",")]
        works = {number: WORKLOADS[number] for number in rows}
    except (ValueError, KeyError):
        parser.error(f"--rows must be a list of {', '.join(map(str, WORKLOADS))}")
    without = frozenset(filter(None, chosen.without.split(",")))
    if without & {"numpy", "pylyap"}:
        parser.error("--without cannot leave out pylyap, nor numpy, which gives the dgemm rate")
    if chosen.quick:
        works = {i: replace(w, steps=max(w.steps // 5, w.check[1])) for i, w in works.items()}
    console = Console(width=None if sys.stdout.isatty() else 110)
    load = os.getloadavg()[0]
    unquiet = load > QUIET_LOAD and not chosen.processor_time
    console.print(f"{machine()}; load {load:.2f}{' (NOT QUIET)' if unquiet else ''}")
    console.print(", ".join(f"{name} {version}" for name, version in versions().items()))
    cores = sorted(os.sched_getaffinity(0))
    if chosen.processor_time:
        console.print("processor time of one process on one core")
        groups = [WorkerGroup("one core", cores[-1:], processor_time=True)]
    else:
        groups = [WorkerGroup("threads", [None]), WorkerGroup("per core", cores)]
    repetitions = (1, 3) if chosen.quick else (3, 9)
    harness = Harness(groups, *repetitions, console, chosen.verbose, without)
    report: dict[str, Any] = {"machine": machine(), "load": load, "versions": versions()}
    report |= {"processor_time": chosen.processor_time, "rows": {}}
    try:
        for number, work in works.items():
            best, tried, missing = harness.row(work)
            console.print()
            console.print(table(number, work, best, missing))
            faults = {f"{c.formulation.line}, {c}: {c.fault}": None for c in tried if c.fault}
            for fault in faults:
                console.print(f"not timed: {fault}", style="dim", highlight=False)
            report["rows"][number] = entry(work, best, tried, missing)
            if chosen.json:
                with open(chosen.json, "w", encoding="utf-8") as file:
                    json.dump(report, file, indent=1)
    finally:
        for group in groups:
            group.close()


if __name__ == "__main__":
    main()
