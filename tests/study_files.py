"""Study files and settings for tests."""

import numpy as np
import pytest

import pylyap as pl

FILE = """\
title = "Weights"  # what it is about
runs = 20
seed = 7

[data]
name = "quadratic"

[network]
hidden = [3]

[analysis]
name = "spectrum"
n_steps = 100
record_every = 10

[grid]
network.activation = [
  "relu",
  "tanh",
]
"optimizer.lr" = {logspace = [-3, -1, 3]}
"""


def write(tmp_path, text):
    path = tmp_path / "study.toml"
    path.write_text(text, encoding="utf-8")
    return path


def read(tmp_path, text):
    return pl.Study.from_file(write(tmp_path, text))


def error_in_file(tmp_path, text):
    with pytest.raises(ValueError, match=r"study\.toml") as caught:
        read(tmp_path, text)
    return str(caught.value).replace(f"{tmp_path}/", "")


def tables(**changes):
    return {
        "data": {"name": "quadratic"},
        "network": {"hidden": 3},
        "analysis": {"name": "spectrum", "n_steps": 100},
        "runs": 20,
    } | changes


def error_of(**changes):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the caller checks the message)
        pl.Study(**tables(**changes))
    return str(caught.value)


def digits(folder, n=12):
    """Two IDX files: images 3 x 3 and labels of 3 classes."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (n, 3, 3), dtype=np.uint8)
    classes = np.arange(n, dtype=np.uint8) % 3
    for name, array in (("images", pixels), ("labels", classes)):
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
        (folder / name).write_bytes(header + array.tobytes())
    return folder / "images", folder / "labels"


QUADRATIC = {"data": {"name": "quadratic"}, "network": {"hidden": [2, 3], "activation": "relu"}}
IRIS = {
    "data": {"name": "iris", "train": 100, "test": 30, "split_seed": 3},
    "network": {"layers": [4, 3, 3], "loss": "cross_entropy", "activation": ["sigmoid"]},
    "optimizer": {"name": "adam", "lr": 1e-8, "batch_size": 50},
    "init": {"kind": "normal", "scale": 0.5, "biases": True},
}
LRS = {"logspace": [-1, 0, 3]}
ANALYSES = {
    "spectrum": QUADRATIC
    | {
        "runs": 3,
        "analysis": {"name": "spectrum", "n_steps": 20, "tol": 1e-3, "variables": ["trend"]},
        "optimizer": {"schedule": {"linspace": [1, 0, 20]}, "momentum": 0.5, "nesterov": True},
        "grid": {"optimizer.weight_decay": {"geomspace": [1e-8, 1e-2, 7]}},
    },
    "ftle": QUADRATIC
    | {"runs": 3, "analysis": {"name": "ftle", "n_steps": 20, "window": 5, "kind": "clv"}},
    "clv": QUADRATIC | {"runs": 3, "analysis": {"name": "clv", "n_steps": 20, "delay": 2}},
    "training_jacobian": QUADRATIC
    | {"runs": 3, "analysis": {"name": "training_jacobian", "n_steps": 20, "of": "parameters"}},
    "sharpness": QUADRATIC
    | {"runs": 3, "analysis": {"name": "sharpness", "n_steps": 20, "every": 5, "kind": "batch"}},
    "stability": QUADRATIC
    | {
        "runs": 3,
        "analysis": {
            "name": "stability",
            "x": "lr_1",
            "n_steps": 20,
            "momentum": 0.5,
            "x_values": {"geomspace": [0.1, 10, 5]},
        },
        "grid": {"analysis.lr_0": {"geomspace": [0.1, 10, 3]}},
    },
    "ensemble": IRIS
    | {
        "runs": 3,
        "analysis": {"name": "ensemble", "n_steps": 30, "eps": [1e-8, 1], "perturb": 4},
        "grid": {"optimizer.batch_size": [10, 50]},
        "optimizer": {},
    },
    "train": IRIS | {"runs": 3, "analysis": {"name": "train", "epochs": 2, "snapshots": [0, 2]}},
    "scan": IRIS
    | {
        "runs": 3,
        "optimizer": {"momentum": 0.9},
        "analysis": {"name": "scan", "lrs": LRS, "n_steps": 40, "rule": {"edge": 0.9}},
    },
}
