"""Pages of the site and the package agree: public names, tests and commands that are mentioned."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

import pylyap as pl
from pylyap import cli

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MADE = {"_build", "gallery", "generated", "backreferences", "jupyter_execute"}
PAGES = [p for p in sorted(DOCS.rglob("*.md")) if not MADE & {*p.parts}]
PAPERS = (
    "sharafi2025", "danovski2024", "jesus2021", "cohen2021", "sohldickstein2024",
    "training_jacobian2024",
)  # fmt: skip
MODULES = ("pylyap", "pylyap.datasets", "pylyap.plotting", *(f"pylyap.papers.{p}" for p in PAPERS))
MENTION = re.compile(r"(tests/\w+\.py)::(\w+)")
SOURCE = re.compile(r"`((?:tests|csrc|benchmarks|pylyap|examples)/[\w./]+\.\w+)")
SHELL = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)


def listed():
    """Dotted names in the lists of the reference."""
    found = set()
    for page in (DOCS / "api").glob("*.rst"):
        module = "pylyap"
        for line in page.read_text("utf-8").splitlines():
            if line.startswith(".. currentmodule::"):
                module = line.split()[-1]
            elif re.fullmatch(r"   \w+", line) or line.startswith(".. py:data::"):
                found.add(f"{module}.{line.split()[-1]}")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_the_reference_lists_every_public_name(module):
    modules = {"datasets", "plotting", "figures"}
    public = {f"{module}.{n}" for n in importlib.import_module(module).__all__ if n not in modules}
    assert sorted(public - listed()) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(DOCS)))
def test_tests_and_sources_that_a_page_mentions_exist(page):
    text = page.read_text("utf-8")
    for file, name in MENTION.findall(text):
        assert f"def {name}(" in (ROOT / file).read_text("utf-8"), f"{file}::{name}"
    for file in SOURCE.findall(text):
        assert "NAME" in file or (ROOT / file).is_file(), file


def test_every_page_of_the_theory_links_equations_to_functions_and_tests():
    for page in (DOCS / "theory").glob("*.md"):
        text = page.read_text("utf-8")
        if page.name != "index.md":
            assert "{py:" in text, page.name
            assert MENTION.search(text), page.name


def commands():
    """Lines of shell blocks that call pylyap, with the page."""
    for page in PAGES:
        for block in SHELL.findall(page.read_text("utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("pylyap ") and not line.startswith("pylyap --"):
                    yield pytest.param(line.partition(" #")[0], id=f"{page.stem}: {line[:60]}")


@pytest.mark.parametrize("line", [*commands()])
def test_commands_and_options_of_pages_exist(line):
    name, *arguments = shlex.split(line)[1:]
    command = cli.commands.commands[name]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {a.partition("=")[0] for a in arguments if a.startswith("--")} <= options


def test_status_of_the_pages_are_those_of_the_package():
    text = (DOCS / "howto" / "reading-errors.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d) \| `(\w+)`", text, re.MULTILINE)
    assert dict(rows) == {str(int(s)): s.name for s in pl.Status if int(s) >= 0}
