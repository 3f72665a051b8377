"""The measures without a clock that the gate compares: imports, sizes, and their history."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.instructions import history, package


def test_importing_the_package_loads_numpy_and_nothing_heavy():
    packages = package.measured()["packages"]
    assert "numpy" in packages
    heavy = {"torch", "jax", "matplotlib", "pandas", "xarray", "zarr", "dask", "scipy", "numba"}
    assert not heavy & set(packages)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"packages": ["numpy", "pandas"]}, "pandas"),
        ({"modules": 111}, "111 modules"),
        ({"bytes": {"_core_v3": 1_100_001}}, "1,100,001 bytes"),
    ],
)
def test_what_exceeds_the_table_is_named(change, word):
    before = {"modules": 100, "packages": ["numpy"], "bytes": {"_core_v3": 1_000_000}}
    assert package.worse(before, before) == []
    (text,) = package.worse(before, before | change)
    assert word in text


def test_the_committed_tables_can_be_read():
    folder = Path(history.__file__).parent
    table = json.loads((folder / "counts.json").read_text())["counts"]
    assert set(table) & set(history.read()[-1]["counts"])
    assert set(json.loads((folder / "package.json").read_text())) == {
        "modules",
        "packages",
        "bytes",
    }


def test_the_history_is_a_table_of_changes(tmp_path):
    path = tmp_path / "history.jsonl"
    assert "no table" in history.table(history.read(path))
    history.append("1.0", "gcc", {"step": 2_000_000}, path)
    history.append("1.1", "gcc", {"step": 1_500_000, "new": 12}, path)
    lines = history.table(history.read(path)).splitlines()
    assert [cell.strip() for cell in lines[3].split("|")[1:-1]] == ["step", "2.000", "-25.0%"]
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == ["new", "", "12"]
