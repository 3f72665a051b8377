"""Docstrings follow numpydoc's rules and their examples give what they say."""

import doctest
import re

import numpy as np
import pytest

import pylyap as pl

for needed in ("numpydoc", "matplotlib", "xarray", "zarr"):
    pytest.importorskip(needed)

import docstrings  # noqa: E402

NAMES = dict(docstrings.public())


def test_the_rules_see_what_is_missing(monkeypatch):
    def careless(a, b=1):
        """Adds"""

    monkeypatch.setattr(pl, "careless", careless, raising=False)
    codes = {fault.split()[0] for fault in docstrings.faults("pylyap.careless")}
    assert {"PR01", "EX01"} <= codes


@pytest.mark.parametrize("path", NAMES)
def test_docstring_follows_numpydoc(path):
    assert docstrings.faults(path) == []


@pytest.mark.parametrize(
    "path", [p for p, thing in NAMES.items() if ">>>" in (thing.__doc__ or "")]
)
def test_examples_give_what_they_say(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # examples may write files
    for framework in re.findall(r">>> import (torch|jax)", NAMES[path].__doc__):
        pytest.importorskip(framework)
    finder = doctest.DocTestFinder(recurse=False)
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    for test in finder.find(NAMES[path], path, globs={"pl": pl, "np": np}):
        outcome = doctest.DocTestRunner(optionflags=options).run(test)
        assert outcome.failed == 0
