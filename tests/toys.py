"""A study with known results, for tests of the driver and the store."""

from __future__ import annotations

import json
import os
import sys
import time
import zlib
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

import pylyap as pl
from pylyap.studies import metadata, store


class Toy(pl.Study):
    """A study with real settings, whose title (JSON) defines its behaviour:

    {"seconds": duration of a task, "log": file with a line for each task begun, "fail": file that
    makes run 4 fail while it exists}.
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


class Stop(BaseException):
    """An exception that `except Exception` does not catch."""


def dive(depth, kind):
    """Raise an exception with a deep traceback and two causes."""
    if depth:
        return dive(depth - 1, kind)
    try:
        try:
            raise KeyError("root")
        except KeyError as root:
            raise ValueError("middle") from root
    except ValueError as middle:
        raise kind("deep\ntrouble") from middle


class Deep(Toy):
    """Raises exceptions with a traceback of 900 frames.

    With {"where": "run"} a run fails, with "task" the task, and with "setup" the construction in
    processes other than {"driver": ...}.
    """

    def __init__(self, **settings):
        super().__init__(**settings)
        options = json.loads(self.title)
        if options["where"] == "setup" and options["driver"] != os.getpid():
            dive(900, RuntimeError)

    def compute(self, point, first, count, *, threads=1):
        dive(900, Stop if json.loads(self.title)["where"] == "task" else RuntimeError)


def numbers(variable, point, name, runs=1000):
    """Values (runs, ...) of a variable, all distinct."""
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
    """Create the folder of a study, with `block` runs per task."""
    with store.driver(Path(path)):
        store.create(Path(path), study, block)
    return path


def edit_metadata(path, change, checksum=True):
    """Edit the zarr.json of a store, a dict; update its checksum or keep the old one."""
    file = Path(path) / "results.zarr" / "zarr.json"
    content = json.loads(file.read_bytes())
    change(content)
    file.write_text(json.dumps(metadata.with_checksum(content) if checksum else content))


def edit_log(path, change):
    """Edit the records of a log, dicts; update the checksums of the lines."""
    file = Path(path) / "tasks.log"
    records = [json.loads(line.partition(b" ")[2]) for line in file.read_bytes().splitlines()]
    texts = [json.dumps(record).encode() for record in change(records)]
    file.write_bytes(b"".join(b"%08x %s\n" % (zlib.crc32(text), text) for text in texts))


def to_format_1(path):
    """Convert a store to format 1, without checksums of the metadata and of chunks in the log."""

    def old(content):
        content["attributes"]["format"] = 1
        for name in (metadata.CHECKSUM, metadata.COORDINATES):
            del content["attributes"][name]

    def plain(records):
        return [
            {name: v for name, v in record.items() if name not in ("study", "sums")}
            for record in records
            if record["status"]
        ]

    edit_metadata(path, old, checksum=False)
    edit_log(path, plain)


def begun(path):
    """Tasks that a toy study has begun: point, first run and number of runs."""
    lines = Path(path).read_text().splitlines() if Path(path).exists() else []
    return [line.rsplit(" ", 2)[0] for line in lines]


if __name__ == "__main__":  # run a toy study in a folder; its title is given as JSON
    folder, title, who = sys.argv[1:]
    worker_pool = ProcessPoolExecutor(1, get_context("spawn")) if who == "processes" else None
    pl.run_study(toy(**json.loads(title)), folder, executor=worker_pool, workers=2, progress=True)
