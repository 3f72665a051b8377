"""Ensembles, a scan and travel in this process, then in processes that it forks and spawns.

    python tests/fork_pool.py FOLDER

prints one line per kind of pool, and at last the libraries for threads that are loaded.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

import pylyap as pl

STUDY = """
runs = 4
data.name = "quadratic"
network.hidden = 3
[analysis]
name = "ensemble"
eps = 1e-8
n_steps = 40
[grid]
"optimizer.lr" = [0.01, 0.1]
"""

WAIT = 120  # seconds until a hang is called one


def digest(run: int) -> str:
    """Of what every Numba kernel has a part in, on several threads."""
    net = pl.Network((4, 10, 3), activation="sigmoid", loss="cross_entropy")
    system = pl.TrainingMap(net, *pl.datasets.iris(), pl.GradientDescent(lr=1.0))
    w = net.init("normal", runs=8, seed=run)
    ensemble = pl.perturbation_ensemble(system, w, 1e-8, 20, 60, losses=True, path_lengths=True)
    scan = pl.learning_rate_scan(net, *pl.datasets.iris(), [0.5, 2.0], 100, runs=2)
    path = pl.travel(system, w, 200)
    found = hashlib.sha256()
    for array in (
        ensemble.distances, ensemble.path_lengths, scan.growth, path.path_length, path.norm
    ):  # fmt: skip
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def main(folder: Path) -> None:
    expected = [digest(run) for run in range(3)]
    for kind in ("fork", "spawn"):
        with multiprocessing.get_context(kind).Pool(2) as pool:
            found = pool.map_async(digest, range(3)).get(WAIT)
        print(kind, "pool", found == expected, flush=True)
    file = folder / "study.toml"
    file.write_text(STUDY)
    study = pl.Study.from_file(file)
    here = pl.run_study(study, folder / "here")
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as executor:
        there = pl.run_study(study, folder / "there", executor=executor)
    same = all(here[name].values.tobytes() == there[name].values.tobytes() for name in here)
    print("fork executor", same and int(there.attrs["runs_failed"]) == 0, flush=True)
    loaded = Path("/proc/self/maps").read_text(encoding="utf-8")
    layers = ("gomp", "libomp", "iomp", "libtbb", "omppool", "workqueue", "tbbpool")
    print("loaded", *[name for name in layers if name in loaded])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
