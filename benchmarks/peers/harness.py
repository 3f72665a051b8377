"""Candidates of a row: a first timing of all of them, then repetitions of the fastest in turns."""

from __future__ import annotations

import importlib.util
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median

import numpy as np
from rich.console import Console

from .formulations import Formulation, formulations, other_qr
from .workers import WorkerGroup
from .workloads import TOLERANCE, Floats, Product, Row, Workload

MAX_RATIO = 2.0  # a candidate slower than the best of its line by this factor is not repeated
N_FINAL = 2  # candidates of a line that are timed in turns, since the first timing is inaccurate


@dataclass(eq=False)
class Candidate:
    """A formulation on a group of workers."""

    formulation: Formulation
    group: WorkerGroup
    work: Workload
    key: int
    seconds: list[float] = field(default_factory=list)  # per step and run
    fault: str = ""

    def __str__(self) -> str:
        how = str(self.formulation)
        return f"{how}{', ' if how else ''}{self.group.name}"

    @property
    def time(self) -> float:
        """Median time per step and run; infinite with a fault."""
        return median(self.seconds) if self.seconds and not self.fault else math.inf

    def build(self, reference: Floats | None) -> Floats | None:
        """Compile, run once and compare exponents over the first steps; the growth of these."""
        n_workers = len(self.group.workers)
        if isinstance(self.work, Product):
            self.parts: list[Workload] = [self.work] * n_workers
        else:
            pieces = np.array_split(np.arange(self.work.runs), n_workers)
            self.parts = [
                self.work.part(slice(int(p[0]), int(p[-1]) + 1)) for p in pieces if len(p)
            ]
        f = self.formulation
        try:
            answers = self.group.ask(
                [("build", self.key, f.builder, f.options, part) for part in self.parts]
            )
        except RuntimeError as error:
            self.fault = str(error)
            return None
        self.generation = self.group.generation
        growth: Floats = np.concatenate(answers)
        if reference is not None and not isinstance(self.work, Product):
            window = slice(*self.work.check)
            means = growth[:, window].mean(axis=1), reference[:, window].mean(axis=1)
            difference = float(np.abs(means[0] - means[1]).max())
            if not difference <= getattr(self.work, "tolerance", TOLERANCE):  # nan disagrees
                self.fault = f"disagrees: exponents differ by {difference:.1g}"
        return growth

    def measure(self) -> None:
        """Time one more repetition; throughputs of the workers are added."""
        if not self.fault and self.generation != self.group.generation:
            self.build(None)  # the workers were restarted after a failure of another candidate
        if self.fault:
            return
        try:
            elapsed = self.group.ask([("time", self.key)] * len(self.parts))
        except RuntimeError as error:
            self.fault = str(error)
            return
        rate = sum(part.runs * part.steps / t for part, t in zip(self.parts, elapsed, strict=True))
        self.seconds.append(1 / rate)

    def drop(self) -> None:
        """Release what the workers hold."""
        self.group.ask([("drop", self.key)] * len(self.parts))


def fastest_per_group(candidates: list[Candidate]) -> list[Candidate]:
    """The fastest for each way to batch runs and each group, within `MAX_RATIO` of the best."""
    fastest: dict[tuple[str, str], Candidate] = {}
    for candidate in sorted(candidates, key=lambda c: c.time):
        if not candidate.fault:
            way = (candidate.formulation.options.get("runs", ""), candidate.group.name)
            fastest.setdefault(way, candidate)
    best = min((c.time for c in fastest.values()), default=math.inf)
    return [c for c in fastest.values() if c.time <= MAX_RATIO * best]


@dataclass
class Harness:
    """Measures rows with these groups of workers."""

    groups: list[WorkerGroup]
    n_screening: int  # repetitions of the first timing
    n_repetitions: int
    console: Console
    verbose: bool = False
    without: frozenset[str] = frozenset()
    lines: frozenset[str] = frozenset()  # of the table that are measured; all if empty
    keys: Iterator[int] = field(default_factory=itertools.count)

    def screen(
        self,
        formulation: Formulation,
        group: WorkerGroup,
        work: Workload,
        reference: Floats | None,
        tried: list[Candidate],
    ) -> Floats | None:
        """Time a candidate and append it to `tried`; its growth over the first steps.

        A candidate far slower than others of its line is timed once only.
        """
        candidate = Candidate(formulation, group, work, next(self.keys))
        others = [c.time for c in tried if c.formulation.line == formulation.line]
        tried.append(candidate)
        with self.console.status(f"{formulation.line}: {candidate}"):
            growth = candidate.build(reference)
            for _ in range(self.n_screening):
                candidate.measure()
                if candidate.time > MAX_RATIO * min(others, default=math.inf):
                    break
        if self.verbose:
            outcome = candidate.fault or f"{1e6 * candidate.time:.4g} us"
            self.console.print(f"{formulation.line}, {candidate}: {outcome}", style="dim")
        return growth

    def screen_all(self, work: Row) -> tuple[list[Candidate], list[str]]:
        """All candidates of a row after the first timing, and the lines not installed."""
        reference: Floats | None = None
        tried: list[Candidate] = []
        missing: list[str] = []
        for formulation in [*formulations(work), *formulations(Product())]:
            if formulation.package in self.without:
                continue
            if self.lines and formulation.line not in self.lines:
                continue
            if not importlib.util.find_spec(formulation.package):
                if formulation.line not in missing:
                    missing.append(formulation.line)
                continue
            # pylyap has threads of its own; only Python callables of a map need processes.
            alone = formulation.builder in (
                "pylyap_training", "pylyap_ensemble", "pylyap_sgd", "pylyap_landscape"
            )  # fmt: skip
            for group in self.groups[:1] if alone else self.groups:
                task: Workload = Product() if formulation.line == "dgemm" else work
                growth = self.screen(formulation, group, task, reference, tried)
                if reference is None:
                    if growth is None:
                        raise SystemExit(f"pylyap: {tried[-1].fault}")
                    reference = growth
        for line in {c.formulation.line: None for c in tried}:
            for candidate in fastest_per_group([c for c in tried if c.formulation.line == line]):
                for formulation in other_qr(candidate.formulation):
                    self.screen(formulation, candidate.group, work, reference, tried)
        return tried, missing

    def row(self, work: Row) -> tuple[list[Candidate], list[Candidate], list[str]]:
        """The best candidate of each line, timed in turns; all candidates; lines not installed."""
        tried, missing = self.screen_all(work.with_data())
        lines: dict[str, list[Candidate]] = {}
        for candidate in sorted(tried, key=lambda c: c.time):
            lines.setdefault(candidate.formulation.line, []).append(candidate)
        final = [c for line in lines.values() for c in line[:N_FINAL] if not c.fault]
        kept = {c.key for c in final}
        for candidate in tried:
            if candidate.key not in kept:
                candidate.drop()
        for candidate in final:
            candidate.seconds = []
        for _ in range(self.n_repetitions):
            for candidate in final:
                candidate.measure()
        for candidate in final:
            candidate.drop()
        best = {name: min(line[:N_FINAL], key=lambda c: c.time) for name, line in lines.items()}
        order = {c.formulation.line: None for c in tried}
        return [best[name] for name in order], tried, missing
