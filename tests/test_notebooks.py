"""The notebooks of the documentation show pictures and no warnings.

They are executed once, by the build of the site, which keeps what it executed beside its folder.
"""

import json
import os
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
SITE = Path(os.environ.get("PYLYAP_SITE", DOCS / "_build")).resolve()
EXECUTED = SITE.parent / "jupyter_execute"
NOTEBOOKS = sorted((DOCS / "tutorials").glob("*.ipynb"))


def outputs(path):
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return [output for cell in cells for output in cell.get("outputs", ())]


def test_there_are_five_notebooks():
    assert len(NOTEBOOKS) == 5


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_committed_without_outputs(path):
    assert outputs(path) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_an_executed_notebook_shows_pictures(path):
    executed = EXECUTED / path.relative_to(DOCS)
    if not executed.is_file():
        pytest.skip("the site is not built")
    assert not [output["text"] for output in outputs(executed) if output.get("name") == "stderr"]
    pictures = [
        o["data"]["image/png"] for o in outputs(executed) if "image/png" in o.get("data", {})
    ]
    assert pictures
    assert len(set(pictures)) == len(pictures), "shown twice"
