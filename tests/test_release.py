"""What a release states about itself is consistent."""

import re
import tomllib
from pathlib import Path

import pytest

import pylyap as pl

ROOT = Path(__file__).parents[1]


def text(name):
    path = ROOT / name
    if not path.exists():
        pytest.skip(f"{name} is not beside the tests")
    return path.read_text("utf-8")


def test_one_version():
    project = tomllib.loads(text("pyproject.toml"))["project"]
    assert pl.__version__ == project["version"]
    assert re.search(r"^version: (.*)$", text("CITATION.cff"), re.MULTILINE)[1] == pl.__version__
    released = re.findall(
        r"^## \[(\d[^\]]*)\] - (\d{4}-\d\d-\d\d)$", text("CHANGELOG.md"), re.MULTILINE
    )
    assert released[0][0] == pl.__version__
    assert (
        re.search(r"^date-released: (.*)$", text("CITATION.cff"), re.MULTILINE)[1] == released[0][1]
    )


def test_files_of_this_minor_version_are_kept():
    minor = ".".join(pl.__version__.split(".")[:2])
    assert (ROOT / "tests" / "compatibility" / minor).is_dir()


@pytest.mark.parametrize("extra", ["docs", "all"])
def test_frameworks_are_in_extras_of_their_own(extra):
    extras = tomllib.loads(text("pyproject.toml"))["project"]["optional-dependencies"]
    for name in ("torch", "jax", "pylyap[torch", "pylyap[jax"):
        assert not any(requirement.startswith(name) for requirement in extras.get(extra, []))
