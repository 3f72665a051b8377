"""The table of a row and its entry in the JSON file."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
import os
import platform
from dataclasses import asdict
from statistics import median
from typing import Any

from rich.table import Table

from .harness import Candidate
from .workloads import DGEMM_SIZE, Row

PACKAGES = (
    "pylyap",
    "numpy",
    "jax",
    "torch",
    "lyapax",
    "chaotax",
    "pynamicalsys",
    "lyapynov",
    "clvlib",
    "numba",
)


def machine() -> str:
    """Model and number of cores of the processor."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            model = next(line.split(":")[1].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}, {len(os.sched_getaffinity(0))} cores"


def versions() -> dict[str, str]:
    """Versions of the packages that are installed."""
    return {
        name: importlib.metadata.version(name)
        for name in PACKAGES
        if importlib.util.find_spec(name)
    }


def table(number: int, work: Row, best: list[Candidate], missing: list[str]) -> Table:
    """The best candidate of each line with its times."""
    dgemm = next(c for c in best if c.formulation.line == "dgemm")
    peak = dgemm.work.flops / dgemm.time / 1e9
    reference = next(c for c in best if c.formulation.line == "pylyap")
    counted = not math.isnan(work.flops)
    caption = f"dgemm of {DGEMM_SIZE}^3 in the same repetitions: {peak:.1f} GF/s"
    shown = Table(
        title=f"Row {number}: {work.title}, {work.steps} steps",
        caption=f"{caption} ({dgemm.group.name})" if counted else None,
        title_justify="left",
        caption_justify="left",
    )
    shown.add_column("")
    shown.add_column("best formulation", overflow="fold")
    for name in ("us", "min … max", "x pylyap", *(["GF/s", "dgemm"] if counted else [])):
        shown.add_column(name, justify="right", no_wrap=True)
    for candidate in best:
        line = candidate.formulation.line
        if line == "dgemm":
            continue
        if candidate.fault:
            shown.add_row(line, f"{candidate}: {candidate.fault}")
            continue
        us = [1e6 * s for s in candidate.seconds]
        rate = work.flops / candidate.time / 1e9
        cells = [f"{median(us):.4g}", f"{min(us):.4g} … {max(us):.4g}"]
        cells.append(f"{candidate.time / reference.time:.2f}")
        if counted:
            cells += [f"{rate:.1f}", f"{rate / peak:.0%}"]
        shown.add_row(line, str(candidate), *cells)
    for line in missing:
        shown.add_row(line, "not installed")
    return shown


def record(candidate: Candidate) -> dict[str, Any]:
    """All repetitions of a candidate."""
    return {
        "line": candidate.formulation.line,
        "formulation": asdict(candidate.formulation),
        "team": candidate.group.name,
        "seconds_per_step_and_run": candidate.seconds,
        "fault": candidate.fault,
    }


def entry(
    work: Row, best: list[Candidate], tried: list[Candidate], missing: list[str]
) -> dict[str, Any]:
    """A row of the JSON file."""
    return {
        "title": work.title,
        "steps": work.steps,
        "flops_per_step_and_run": work.flops,
        "finalists": [record(c) for c in best],
        "candidates": [record(c) for c in tried if c not in best],
        "missing": missing,
    }
