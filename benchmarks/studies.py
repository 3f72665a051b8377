"""The cost of studies: overhead over the bare call, two Dask workers against one, a large dry run.

    python benchmarks/studies.py             # all three, some minutes
    python benchmarks/studies.py --runs 64 --repeats 1  # a test of the code

The workload is that of `study.py`: networks 2-3-1, 5000 steps, all 13 exponents, a record every 50
steps. Both sides of a ratio are timed in turns; medians are shown.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import pylyap as pl

STEPS, EVERY = 5000, 50


def example_study(runs: int) -> pl.Study:
    return pl.Study(
        runs=runs,
        data={"name": "quadratic", "n": 100},
        network={"hidden": 3, "activation": "relu"},
        init={"kind": "he_normal"},
        optimizer={"lr": 0.1},
        analysis={"name": "spectrum", "n_steps": STEPS, "record_every": EVERY},
    )


def bare(runs: int) -> None:
    net = pl.Network((2, 3, 1), activation="relu")
    system = pl.TrainingMap(net, *pl.datasets.quadratic(100), pl.GradientDescent(lr=0.1))
    w0 = net.init("he_normal", runs=runs, seed=0)
    pl.lyapunov_spectrum(system, w0, STEPS, record_every=EVERY)


def stored(runs: int, executor: Any = None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pl.run_study(example_study(runs), Path(folder) / "study", executor=executor)


def seconds(call: Callable[[], None]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def in_turns(first: Callable[[], None], second: Callable[[], None], repeats: int) -> None:
    times = np.array([(seconds(first), seconds(second)) for _ in range(repeats)])
    a, b = np.median(times, axis=0)
    print(
        f"  {a:.2f} s against {b:.2f} s; ratio in turns {np.median(times[:, 1] / times[:, 0]):.3f}"
    )


def workers(runs: int, repeats: int) -> None:
    from distributed import Client, LocalCluster

    options = {"threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with (
        LocalCluster(n_workers=2, **options) as two,
        LocalCluster(n_workers=1, **options) as one,
        Client(two) as many,
        Client(one) as single,
    ):
        for client in (many, single):
            stored(64, client)  # imports
        in_turns(lambda: stored(runs, many), lambda: stored(runs, single), repeats)


def dry_run() -> None:
    study = example_study(10**6)
    begin = time.perf_counter()
    plan = pl.plan_study(study)
    took = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"  {plan.runs} runs, {plan.tasks} tasks: {took:.2f} s, peak of this process {peak:.0f} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print("dry run")
    dry_run()
    print(f"{options.runs} runs, bare call against the stored study")
    in_turns(lambda: bare(options.runs), lambda: stored(options.runs), options.repeats)
    print(f"{options.runs} runs, two Dask workers of one thread against one")
    workers(options.runs, options.repeats)


if __name__ == "__main__":
    main()
