"""Write files of this version that later ones must read: results, pickles, a checkpoint, a study.

    python tests/compatibility/write.py tests/compatibility/0.2

Run once per minor version, at its release. `tests/test_compatibility.py` reads all folders.
"""

import pickle
import sys
from pathlib import Path

import pylyap as pl


def results() -> dict[str, object]:
    """One result of each family, computed again by later versions and compared."""
    X, y = pl.datasets.iris()
    network = pl.Network((4, 3, 3), activation="tanh", loss="cross_entropy")
    system = pl.TrainingMap(network, X, y, pl.GradientDescent(lr=0.2, momentum=0.5))
    w0 = network.init("normal", runs=2, seed=1)
    return {
        "network": network,
        "system": system,
        "optimizer": pl.Adam(lr=[0.1, 0.2], beta1=0.8),
        "spectrum": pl.lyapunov_spectrum(system, w0, 20, k=3, record_every=5),
        "vectors": pl.covariant_lyapunov_vectors(system, w0, 10, k=2, n_transient=5, n_tail=5),
        "sharpness": pl.sharpness(system, w0),
        "ensemble": pl.perturbation_ensemble(system, w0, 1e-6, n_perturbations=3, n_steps=10),
        "deviation": pl.weight_deviation(w0[0], w0[1], network=network),
    }


def train(epochs: int, checkpoint: Path) -> pl.History:
    """Train with a checkpoint after each third epoch."""
    system = results()["system"]
    w0 = system.network.init("normal", seed=1)
    return pl.train(system, w0, epochs, checkpoint=checkpoint, checkpoint_every=3)


def study() -> pl.Study:
    """A study of four runs."""
    return pl.Study(
        data={"name": "iris"},
        network={"hidden": 3, "loss": "cross_entropy"},
        analysis={"name": "spectrum", "n_steps": 10, "k": 2},
        grid={"optimizer": {"lr": [0.1, 0.5]}},
        runs=2,
    )


def main(folder: Path) -> None:
    """Write all files into a new folder."""
    folder.mkdir(parents=True)
    for name, result in results().items():
        (folder / f"{name}.pickle").write_bytes(pickle.dumps(result, protocol=4))
    results()["spectrum"].save(folder / "spectrum.nc")
    train(6, folder / "training.npz")
    pl.run_study(study(), folder / "study", progress=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
