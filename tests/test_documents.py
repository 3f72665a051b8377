"""The Python of the README and of the pages in docs/ runs, block after block of each page.

Pages of docs/ are run by `pytest -m pages`, those with whole experiments by `pytest -m slow`.
"""

import os
import re
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import pylyap as pl

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
# whole experiments
SLOW = (
    "danovski2024.md", "jesus2021.md", "regimes.md", "sharafi2025.md", "training_jacobian2024.md",
)  # fmt: skip
MADE = ("_build", "gallery", "generated", "backreferences")  # folders that Sphinx writes
STUDY = """
runs = 2
[data]
name = "iris"
[network]
hidden = 3
loss = "cross_entropy"
[analysis]
name = "spectrum"
n_steps = 20
k = 2
record_every = 5
[grid]
optimizer.lr = [0.1, 1.0]
"""
NEEDS = {
    "README.md": ("torch",),
    "tour.md": ("torch",),
    "models-jax.md": ("jax", "optax", "flax", "equinox"),
    "models-torch.md": ("torch",),
}


def blocks(path, language):
    """Blocks of code of a page, behind as many empty lines as stand before them in the page."""
    text = path.read_text("utf-8")
    for found in FENCE.finditer(text):
        if found[1] == language:
            yield "\n" * (text[: found.start()].count("\n") + 1) + found[2]


WRITTEN = [
    ROOT / "README.md",
    *(path for path in sorted((ROOT / "docs").rglob("*.md")) if not {*path.parts} & {*MADE}),
]


def marks(path):
    if path.name in SLOW:
        return [pytest.mark.slow]
    return [pytest.mark.pages] if path.name != "README.md" else []


PAGES = [
    pytest.param(path, id=str(path.relative_to(ROOT)), marks=marks(path))
    for path in WRITTEN
    if any(blocks(path, "python"))
]


def given():
    """What pages take for granted: files in the working directory and names."""
    wine = pytest.importorskip("sklearn.datasets").load_wine()
    with open("wine.csv", "w", encoding="utf-8") as file:
        file.write(",".join([*wine.feature_names, "class"]) + "\n")
        for row, label in zip(wine.data, wine.target, strict=True):
            file.write(",".join([*map(str, row), f"class_{label}"]) + "\n")
    Path("study.toml").write_text(STUDY, "utf-8")
    net = pl.Network((4, 10, 3), activation="sigmoid", loss="cross_entropy")
    X, y = pl.datasets.iris()
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=0.1))
    w0 = net.init(runs=4, seed=0)
    h = pl.train(system, w0, 2)
    names = {"np": np, "pl": pl, "net": net, "X": X, "y": y, "system": system, "w0": w0, "h": h}
    return names | {"__name__": "__main__"}


@contextmanager
def restored_jax():
    """The precision of JAX is a setting of the process."""
    jax = sys.modules.get("jax")
    before = jax is not None and jax.config.read("jax_enable_x64")
    try:
        yield
    finally:
        if "jax" in sys.modules:
            sys.modules["jax"].config.update("jax_enable_x64", before)


@pytest.mark.parametrize("path", PAGES)
def test_page_runs(path, tmp_path, monkeypatch, capsys):
    plt = pytest.importorskip("matplotlib.pyplot")
    for module in NEEDS.get(path.name, ()):
        pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    names = given() | {"plt": plt}
    if path.name == "jesus2021.md":
        if "PYLYAP_MNIST" not in os.environ:
            pytest.skip("PYLYAP_MNIST names no folder with MNIST")
        Path("mnist").symlink_to(os.environ["PYLYAP_MNIST"])
    if path.name == "reports.md":
        pl.run_study(pl.Study.from_file("study.toml"), "results")
    with restored_jax():
        for block in blocks(path, "python"):
            exec(compile(block, str(path), "exec"), names)
    plt.close("all")
