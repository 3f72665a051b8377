"""The gallery has an example for every analysis and every plot, and the examples run."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import pylyap as pl

pytest.importorskip("matplotlib")

GALLERY = Path(__file__).parents[1] / "examples" / "gallery"
EXAMPLES = sorted(GALLERY.glob("*/plot_*.py"))
QUICK = ("plot_coupled_map_lattice", "plot_knock_out", "plot_momentum_thresholds")

# Bridges need PyTorch or JAX, `load` reads what `save` writes, and `mark` is a deprecated alias.
NO_ANALYSIS = {"from_jax", "from_torch", "load", "mark"}
ANALYSES = [
    name for name in pl.__all__ if inspect.isfunction(getattr(pl, name)) and name not in NO_ANALYSIS
]
LINK = re.compile(r":(?:func|class|meth):`pylyap\.([\w.]+)`")


def blocks(path: Path) -> list[str]:
    """The cells of an example, as sphinx-gallery divides it."""
    return re.split(r"^# %%.*$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_there_are_at_least_24_examples_in_seven_groups():
    assert len(EXAMPLES) >= 24
    groups = {path.parent for path in EXAMPLES}
    assert len(groups) == 7
    assert all((group / "GALLERY_HEADER.rst").is_file() for group in groups)
    assert len({path.name for path in EXAMPLES}) == len(EXAMPLES)


@pytest.mark.parametrize("name", [*ANALYSES, *pl.plotting.__all__])
def test_every_analysis_and_every_plot_has_an_example(name):
    called = re.compile(rf"(?:\bpl|plotting)\.{name}\(")
    shown_by_plot = re.compile(rf":func:`pylyap\.(?:plotting\.)?{name}`")
    texts = [path.read_text(encoding="utf-8") for path in EXAMPLES]
    assert any(called.search(text) for text in texts), f"{name} is called in no example"
    assert any(shown_by_plot.search(text) for text in texts), f"no example links to {name}"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_structure(path):
    text = path.read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(text)) or ""
    title, bar, empty, *more = docstring.splitlines()
    assert bar == "=" * len(title)
    assert not empty
    opening = "\n".join(more).split("\n\n")[0]
    assert opening.endswith("?"), "the opening paragraph is a question"
    assert re.search(r"\b(1[89]|20)\d\d\b|arXiv", docstring), "there is a reference"
    last = [line for line in blocks(path)[-1].splitlines() if line]
    assert last, "the last cell says what is seen"
    assert all(line.startswith("#") for line in last), "the last cell is text"
    assert max(map(len, text.splitlines())) <= 100
    for link in LINK.findall(text):
        found: Any = pl
        for part in link.split("."):
            found = getattr(found, part)


def run(path: Path) -> int:
    """Run the cells of an example and return the number of its figures.

    As in sphinx-gallery a figure is one of pyplot, or the value of the last line of a cell.
    """
    from matplotlib import pyplot as plt
    from matplotlib.figure import Figure

    names: dict[str, Any] = {"__name__": "__main__"}
    figures = 0
    for cell in blocks(path):
        tree = ast.parse(cell)
        last = tree.body[-1] if tree.body else None
        shown = None
        if isinstance(last, ast.Expr):
            tree.body.pop()
            exec(compile(tree, path.name, "exec"), names)
            shown = eval(compile(ast.Expression(last.value), path.name, "eval"), names)
        else:
            exec(compile(tree, path.name, "exec"), names)
        open_figures = [plt.figure(number) for number in plt.get_fignums()]
        assert shown not in open_figures, "the figure would be shown twice"
        if isinstance(shown, Figure):
            open_figures.append(shown)
        for figure in open_figures:
            figure.canvas.draw()
        figures += len(open_figures)
        plt.close("all")
    return figures


def check(path: Path, folder: Path, capsys: Any) -> None:
    assert run(path) >= 1
    assert not list(folder.iterdir()), "writes outside a temporary directory"
    assert not capsys.readouterr().err


@pytest.mark.parametrize("path", [p for p in EXAMPLES if p.stem in QUICK], ids=lambda p: p.stem)
def test_quick_examples_run(path, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)
    check(path, tmp_path, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("path", [p for p in EXAMPLES if p.stem not in QUICK], ids=lambda p: p.stem)
def test_examples_run(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    check(path, tmp_path, capsys)
