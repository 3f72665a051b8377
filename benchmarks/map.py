"""Speed beside JAX over networks, numbers of tangent vectors and numbers of runs.

    python -m benchmarks.map                        # about an hour on two quiet cores
    python -m benchmarks.map --quick                # four cells, about two minutes
    python -m benchmarks.map --networks 4-10-3 --runs 1 --vectors 1,10

For each cell the time of pylyap per step and run, that of the fastest formulation of JAX on the
same steps (automatic differentiation and, for one hidden layer, formulas by hand; runs one by one
and by `vmap`; one process with all cores and one per core), and their ratio. Cells below 1 and
below their target are marked: 4 with 16 runs or more, with fewer 3, or 2 above 512 parameters.
Steps are those of gradient descent, plain or with momentum, by the formulations of
`benchmarks.peers`. On a loaded machine, `--processor-time` takes the least processor time of each
formulation on one core, in turns.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.peers.formulations import formulations
from benchmarks.peers.harness import Harness
from benchmarks.peers.report import machine, versions
from benchmarks.peers.workers import BUILDERS, ONE_THREAD, WorkerGroup
from benchmarks.peers.workloads import Training

JAX = ("JAX, autodiff", "JAX, by hand")
NETWORKS = {
    "2-10-1": ("tanh", "mse", 100),
    "4-10-3": ("sigmoid", "cross_entropy", 120),
    "2-16-16-1": ("tanh", "mse", 100),
    "4-50-3": ("sigmoid", "cross_entropy", 120),
    "8-60-8": ("tanh", "cross_entropy", 300),
    "20-30-30-5": ("tanh", "cross_entropy", 500),
    "64-32-10": ("tanh", "cross_entropy", 1797),
}
MOST_VECTORS = 100  # "all" is at most this many
QUICK = {"networks": "4-10-3,2-10-1", "vectors": "1,10", "runs": "1", "repetitions": 3}
STEP_SECONDS = 0.05  # of a call, as far as the count of operations tells


def workload(name: str, vectors: str, runs: int, momentum: float = 0.0) -> Training:
    """One cell: as many steps as take about `STEP_SECONDS` at 10 operations per nanosecond."""
    activation, loss, samples = NETWORKS[name]
    layers = tuple(map(int, name.split("-")))
    cell = Training(layers, activation, loss, samples, k=1, runs=runs, steps=1)
    k = min(cell.n, MOST_VECTORS) if vectors == "all" else int(vectors)
    cell = Training(layers, activation, loss, samples, k=k, runs=runs, steps=1)
    steps = int(STEP_SECONDS * 1e10 / (cell.flops * runs))
    steps = min(max(steps, 10), 1000)
    return Training(layers, activation, loss, samples, k, runs, steps, momentum=momentum)


def cells(
    networks: Sequence[str],
    vectors: Sequence[str],
    runs: Sequence[int],
    momenta: Sequence[float] = (0.0,),
) -> Iterator[Training]:
    """The cells of the map; a number of vectors above n is left out."""
    for momentum, m, name, k in product(momenta, runs, networks, vectors):
        cell = workload(name, k, m, momentum)
        if k == "all" or cell.k <= cell.n_state:
            yield cell


def target(cell: Training) -> float:
    """The ratio that a cell should reach."""
    if cell.runs >= 16:
        return 4.0
    return 3.0 if cell.n <= 512 else 2.0


def mark(ratio: float, goal: float) -> str:
    """A ratio, marked below 1 and below the target."""
    below = next((f" < {bound:g}" for bound in (1.0, goal) if ratio < bound), "")
    return f"{ratio:.2f}{below}"


# Times per step and run of pylyap and of JAX, and the formulation that was the fastest of JAX.
Measured = tuple[list[float], list[float], str]


def in_turns(harness: Harness, cell: Training) -> Measured:
    """Wall-clock times by the harness of `benchmarks.peers`."""
    best = {c.formulation.line: c for c in harness.row(cell)[0]}
    theirs = min((best[name] for name in JAX if name in best), key=lambda c: c.time)
    line = theirs.formulation.line.removeprefix("JAX, ")
    return best["pylyap"].seconds, theirs.seconds, f"{line}: {theirs}"


def on_one_core(cell: Training, repetitions: int) -> Measured:
    """Least processor times in this process, which is on one core, all formulations in turns."""
    work = cell.with_data()
    found = [f for f in formulations(work) if f.line in ("pylyap", *JAX)]
    calls = [BUILDERS[f.builder](work, **f.options) for f in found]
    for call in calls:
        call()
    least = [math.inf] * len(calls)
    for _ in range(repetitions):
        for i, call in enumerate(calls):
            begin = time.process_time()
            call()
            seconds = (time.process_time() - begin) / (work.steps * work.runs)
            least[i] = min(least[i], seconds)
    ours = least[next(i for i, f in enumerate(found) if f.line == "pylyap")]
    theirs = min((i for i, f in enumerate(found) if f.line in JAX), key=least.__getitem__)
    how = f"{found[theirs].line.removeprefix('JAX, ')}: {found[theirs]}"
    return [ours], [least[theirs]], how


def main(arguments: Sequence[str] | None = None) -> None:
    """The command ``python -m benchmarks.map``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.map", description=__doc__)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--vectors", default="1,10,all", help="numbers of vectors, or all (≤ 100)")
    parser.add_argument("--runs", default="1,16", help="numbers of runs")
    parser.add_argument("--momentum", default="0", help="of the optimiser: 0,0.9 for both")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument(
        "--processor-time", action="store_true", help="least processor time on one core"
    )
    parser.add_argument("--json", metavar="FILE", help="write all times to FILE")
    parser.add_argument("--quick", action="store_true", help="few cells, three repetitions")
    if "--quick" in (sys.argv[1:] if arguments is None else arguments):
        parser.set_defaults(**QUICK)
    chosen = parser.parse_args(arguments)
    networks = chosen.networks.split(",")
    unknown = [name for name in networks if name not in NETWORKS]
    if unknown:
        parser.error(f"--networks must be of {', '.join(NETWORKS)}, got {', '.join(unknown)}")
    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print(f"{machine()}; load {os.getloadavg()[0]:.2f}")
    console.print(", ".join(f"{name} {version}" for name, version in versions().items()))
    groups: list[WorkerGroup] = []
    measure: Callable[[Training], Measured]
    if chosen.processor_time:
        os.environ.update(ONE_THREAD)  # before JAX is imported
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        measure = partial(on_one_core, repetitions=chosen.repetitions)
    else:
        cores = sorted(os.sched_getaffinity(0))
        groups = [WorkerGroup("threads", [None]), WorkerGroup("per core", cores)]
        lines = frozenset({"pylyap", *JAX})
        measure = partial(in_turns, Harness(groups, 1, chosen.repetitions, console, lines=lines))
    columns = (
        "network",
        "N",
        "n",
        "k",
        "runs",
        "momentum",
        "pylyap, µs",
        "JAX, µs",
        "ratio",
        "best of JAX",
    )
    table = Table(*columns, title="Time per step and run")
    found = []
    try:
        for cell in cells(
            networks,
            chosen.vectors.split(","),
            [int(m) for m in chosen.runs.split(",")],
            [float(b) for b in chosen.momentum.split(",")],
        ):
            ours, theirs, how = measure(cell)
            ratio = median(theirs) / median(ours)
            found.append(entry(cell, ours, theirs, how))
            table.add_row(
                "-".join(map(str, cell.layers)), str(cell.samples), str(cell.n), str(cell.k),
                str(cell.runs), f"{cell.momentum:g}",
                f"{1e6 * median(ours):.3g}", f"{1e6 * median(theirs):.3g}",
                mark(ratio, target(cell)), how,
            )  # fmt: skip
            console.print(f"{cell.title}: {ratio:.2f}", style="dim", highlight=False)
            if chosen.json:
                with open(chosen.json, "w", encoding="utf-8") as file:
                    json.dump(found, file, indent=1)
    finally:
        for group in groups:
            group.close()
    console.print(table)


def entry(cell: Training, ours: list[float], theirs: list[float], how: str) -> dict[str, object]:
    """A cell as JSON."""
    return {
        "layers": cell.layers,
        "samples": cell.samples,
        "k": cell.k,
        "runs": cell.runs,
        "momentum": cell.momentum,
        "pylyap": ours,
        "jax": theirs,
        "formulation": how,
        "ratio": median(theirs) / median(ours),
    }


if __name__ == "__main__":
    main()
