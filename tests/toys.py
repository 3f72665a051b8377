"""A study whose numbers are known on paper, for tests of what carries it out."""

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

import pylyap as pl
from pylyap.studies import store


class Toy(pl.Study):
    """Settings are those of a real study; its title says how it behaves:

    {"seconds": a task takes, "log": file with a line for each task begun, "fail": a file that makes
    run 4 fail while it is there}.
    """

    def compute(self, point, first, count, *, threads=1):
        options = json.loads(self.title)
        if "log" in options:
            with open(options["log"], "a") as log:
                log.write(f"{tuple(point)} {first} {count} {os.getpid()} {threads}\n")
        time.sleep(options.get("seconds", 0.0))
        if first <= 4 < first + count and Path(options.get("fail", "/nowhere")).exists():
            raise RuntimeError("[bold]no luck[/bold]")
        return {
            name: numbers(variable, point, name)[first : first + count]
            for name, variable in self.variables.items()
        }

    def group(self, point):
        return 1


def numbers(variable, point, name, runs=1000):
    """(runs, ...) what a variable holds: another number in each place."""
    values = np.arange(runs * int(np.prod(variable.shape)), dtype=float)
    values = values.reshape(runs, *variable.shape) + sum(name.encode()) / 1000
    if name == "status":
        return (np.arange(runs) % 7 == 3).astype(np.int8)  # some diverge
    for i, index in enumerate(point):
        values += 1e5 * 100.0**i * index
    return values.astype(variable.dtype)


def toy(runs=10, rates=(0.1, 0.2), activations=("relu", "tanh"), kind=Toy, **title):
    return kind(
        title=json.dumps(title),
        data={"name": "quadratic", "n": 8},
        network={"hidden": 2},
        analysis={
            "name": "spectrum",
            "n_steps": 6,
            "record_every": 3,
            "variables": ["growth", "loss", "n_done"],
        },
        runs=runs,
        grid={"network.activation": list(activations), "optimizer.lr": list(rates)},
    )


def prepare(path, study, block):
    """The folder of a study that has not begun, with so many runs in a task."""
    with store.driver(Path(path)):
        store.make(Path(path), study, block)
    return path


def begun(path):
    """Tasks in a log of a toy: point, first run and number of runs."""
    lines = Path(path).read_text().splitlines() if Path(path).exists() else []
    return [line.rsplit(" ", 2)[0] for line in lines]


if __name__ == "__main__":  # run the toy study in a folder, with the behaviour given as JSON
    folder, title, who = sys.argv[1:]
    crew = ProcessPoolExecutor(1, get_context("spawn")) if who == "processes" else None
    pl.run_study(toy(**json.loads(title)), folder, executor=crew, workers=2, progress=True)
