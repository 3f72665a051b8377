"""Study files: limits, and error messages with line numbers."""

import json
import re
import sys
import tempfile
import time
import tracemalloc
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from study_files import (
    ANALYSES,
    FILE,
    error_in_file,
    error_of,
    tables,
    write,
)

import pylyap as pl
from pylyap.studies.settings import validated_settings

pytest.importorskip("xarray")


# --- limits ---------------------------------------------------------------------------------------

LONG = {
    "parts of a key": ("a" + ".a" * 50_000 + " = 1", "line 1: keys have at most 16 parts"),
    "parts in quotes": ("a" + ' . "a"' * 20_000 + " = 1", "line 1: keys have at most 16 parts"),
    "parts of a header": ("\n[a" + ".a" * 50_000 + "]", "line 2: keys have at most 16 parts"),
    "parts of tables": (
        "".join(f"[{'a.' * 9}a{i}]\n{'b.' * 9}b = 1\n" for i in range(2000)),
        "line 2: keys have at most 16 parts",
    ),
    "keys": ("".join(f"k{i} = 1\n" for i in range(12_000)), "line 1001: a study has at most 1000"),
    "tables": ("".join(f"[k{i}]\n" for i in range(12_000)), "line 1001: a study has at most 1000"),
    "lists of tables": ("[[a]]\n" * 16_000, "line 1001: a study has at most 1000"),
    "tables in tables": ("a = " + "{a = " * 20_000, "line 1: keys have at most 16 parts"),
    "lists in lists": ("a = " + "[" * 50_000 + "]" * 50_000, "line 1: too many nested brackets"),
    "a long key": ("a" * 100_000 + " = 1", "line 1: keys have at most 200 characters"),
    "a long number": ("\nruns = 0x" + "f" * 100_000, "line 2: invalid TOML: a number"),
    "lists": ("a = [" + "[]," * 300_000 + "]", "line 1: too many values"),
    "numbers": ("a = [" + "1," * 600_000 + "]", "line 1: too many values"),
    "bytes": ("# " * 2_200_000, "must have at most 4 MiB"),
    "quotes": ('"\\' * 50_000, "line 1: keys have at most 200"),
}


@pytest.mark.parametrize("what", LONG)
def test_oversized_files_are_rejected_quickly(what, tmp_path):
    """Limits are checked first: tomllib needs 9.7 GB for 100 kB of dotted keys."""
    text, says = LONG[what]
    path = write(tmp_path, text)
    begin = time.process_time()
    with pytest.raises(ValueError, match=r"study\.toml") as caught:
        pl.Study.from_file(path)
    seconds = time.process_time() - begin
    assert says in str(caught.value)
    assert seconds < (1.0 if len(text) < 200_000 else 5.0)  # measured: 0.03 and 0.9
    if len(text) < 200_000:  # tracing is slow
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match=r"study\.toml"):
                pl.Study.from_file(path)
            assert tracemalloc.get_traced_memory()[1] < 20e6  # bytes; measured: 1e6
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("name", ["linspace", "logspace", "geomspace"])
@pytest.mark.parametrize(
    "path", ["grid.optimizer.lr", "grid.init.scale", "analysis.lrs", "optimizer.schedule"]
)
def test_ranges_are_limited_before_allocation(name, path):
    most = 10**6 if path == "optimizer.schedule" else 10**5
    table, key = path.split(".", 1)
    changes = {} if table == "grid" or table == "optimizer" else {"analysis": SCAN}
    changes |= {table: changes.get(table, {}) | {key: {name: [1, 2, most + 1]}}}
    begin = time.process_time()
    assert f"n must be in 1 ... {most}, got {most + 1}" in error_of(**changes)
    assert time.process_time() - begin < 1.0
    for n in (10**7, 10**12):
        changes[table][key] = {name: [1, 2, n]}
        assert f"{path}.{name} must be [a, b, n]" in error_of(**changes)


def test_lists_from_python_are_limited():
    within = []
    within.append(within)
    for deep in (within, json.loads("[" * 500 + "]" * 500), {"a": within}):
        assert "optimizer.lr must have at most 16 levels, got more" in error_of(
            optimizer={"lr": deep}
        )
    for many in (range(10**9), np.zeros(10**6 + 1)):
        says = f"grid.optimizer.lr must have at most 1000000 values, got {len(many)}"
        assert says in error_of(grid={"optimizer.lr": many})
    says = "grid.optimizer.lr must have at most 100000 values, got 100001"
    assert says in error_of(grid={"optimizer.lr": range(100_001)})
    assert "data must have integers of at most 4096 bits" in error_of(data=10**5000)
    widths = {"linspace": [1, 1000, 1000]}
    grid = {"network.hidden": widths, "optimizer.momentum": {"linspace": [0.1, 0.9, 101]}}
    assert (
        "grid must have at most 100000 points that differ in more than learning rates"
        in error_of(network={}, grid=grid)
    )
    # Within the limits: 10⁵ learning rates.
    assert pl.Study(**tables(grid={"optimizer.lr": {"linspace": [0, 1, 10**5]}})).shape == (10**5,)


# --- errors ---------------------------------------------------------------------------------------


def test_all_errors_with_their_lines(tmp_path):
    text = FILE.replace("runs = 20", "runs = 0").replace('"quadratic"', '"quadratc"')
    text = text.replace("hidden = [3]", "hiden = [3]").replace("n_steps = 100", 'n_steps = "many"')
    text = text.replace("-3, -1, 3", "-3, -1, 0").replace('"relu"', '"rlu"')
    assert error_in_file(tmp_path, text + "\n[grdi]\n").split("\n  ") == [
        "study.toml has 7 errors:",
        "line 23: grdi is unknown; did you mean 'grid'?",
        "line 2: runs must be at least 1, got 0",
        "line 6: data.name must be one of iris, quadratic, digits, mnist, idx, hasy, table, "
        "arrays, got 'quadratc'; did you mean 'quadratic'?",
        "line 9: network.hiden is unknown; did you mean 'hidden'?",
        "line 13: analysis.n_steps must be an integer, got 'many'",
        "line 17: grid.network.activation[0] must be one of tanh, relu, leaky_relu, sigmoid, "
        "softplus, elu, gelu, silu, sin, identity, got 'rlu'; did you mean 'relu'?",
        "line 21: grid.optimizer.lr.logspace must be [a, b, n], n values from 10^a "
        "to 10^b (geomspace takes the ends themselves), got [-3, -1, 0]: n must be in "
        "1 ... 100000, got 0",
    ]


def test_many_errors_are_counted():
    lines = error_of(grid={"optimizer.lr": range(-1000, 0)}).split("\n  ")
    assert lines[0] == "the study has 1000 errors:"
    assert lines[20:] == [
        "grid.optimizer.lr[19] must be finite and >= 0, got -981.0",
        "and 980 more",
    ]


def test_a_single_error_is_one_line(tmp_path):
    text = FILE.replace("record_every = 10", "record_every = 33")
    assert error_in_file(tmp_path, text) == (
        "study.toml: line 14: analysis.record_every must divide n_steps=100, got 33"
    )


def test_errors_of_the_library_have_a_line(tmp_path):
    text = FILE.replace("hidden = [3]", "").replace("[grid]", '[grid]\n"network.hidden" = [2, 3]')
    text = text.replace("record_every = 10", "k = 10")
    assert error_in_file(tmp_path, text) == (
        "study.toml: line 14: analysis.k must be in 1 ... 9, got 10 (at network.hidden = [2])"
    )


def test_errors_of_network_and_optimizer_are_reported_together():
    with pytest.raises(ValueError, match="2 errors") as refusal:
        pl.Study(
            data={"name": "quadratic", "n": 8},
            network={"hidden": 2, "loss": "cross_entropy"},
            optimizer={"nesterov": True},
            analysis={"name": "spectrum", "n_steps": 6},
            runs=2,
        )
    assert "network.loss must be mse" in str(refusal.value)
    assert "optimizer.nesterov needs a momentum" in str(refusal.value)


def test_missing_data_are_reported_once(tmp_path):
    text = FILE.replace('"quadratic"', '"mnist"\nfolder = "none"')
    assert error_in_file(tmp_path, text) == (
        "study.toml: line 7: data.folder must be a folder, there is no none"
    )


def test_invalid_toml_has_line_and_column(tmp_path):
    assert error_in_file(tmp_path, "runs = 3\nseed = = 4\n") == (
        "study.toml: invalid TOML: Invalid value (at line 2, column 8)"
    )
    assert "too many nested brackets" in error_in_file(tmp_path, "a = " + "[" * 10_000)
    assert "invalid TOML" in error_in_file(tmp_path, "a = " + "9" * 5000)
    (tmp_path / "latin.toml").write_bytes("title = 'é'".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.toml must be UTF-8 text"):
        pl.Study.from_file(tmp_path / "latin.toml")
    with pytest.raises(FileNotFoundError, match="none"):
        pl.Study.from_file(tmp_path / "none.toml")


IRIS_DATA = {"name": "iris"}
CLASSES = {"hidden": 3, "loss": "cross_entropy"}
SPECTRUM = {"name": "spectrum", "n_steps": 100}
TRAIN = {"name": "train", "epochs": 4}
ENSEMBLE = {"name": "ensemble", "eps": 1e-8, "n_steps": 100}
SCAN = {"name": "scan", "lrs": [0.1], "n_steps": 100}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        # types and ranges
        ({"runs": 0}, "runs must be at least 1, got 0"),
        ({"runs": 1.5}, "runs must be an integer, got 1.5"),
        ({"runs": True}, "runs must be an integer, got True"),
        ({"runs": 10**30}, "runs must be at most"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"title": 3}, "title must be a string, got 3"),
        ({"title": "a\0"}, "title must be Unicode text without NUL, got 'a\\x00'"),
        ({"title": "\ud800"}, "title must be Unicode text without NUL"),
        ({"data": "iris"}, "data must be a table, got 'iris'"),
        ({"data": {}}, "data.name is missing: must be one of iris, quadratic"),
        ({"data": {"name": 3}}, "data.name must be one of iris"),
        ({"data": {"name": "quadratic", "n": 10**9}}, "data.n must be in 1 ... 10000000"),
        ({"analysis": {"name": "spectrum"}}, "analysis.n_steps is missing"),
        ({"init": {"scale": -1}}, "init.scale must be finite and >= 0, got -1"),
        ({"init": {"scale": float("nan")}}, "init.scale must be finite"),
        ({"init": {"scale": 10**400}}, "init.scale must be"),
        ({"init": {"biases": 1}}, "init.biases must be True or False, got 1"),
        ({"init": {"kind": "he"}}, "init.kind must be one of he_normal"),
        ({"optimizer": {"lr": [0.1]}}, "optimizer.lr must be a number, got [0.1]"),
        ({"optimizer": {"lr": None}}, "optimizer.lr must be a number, got None"),
        ({"optimizer": {"schedule": [1, -1]}}, "optimizer.schedule[1] must be finite and >= 0"),
        ({"optimizer": {"schedule": []}}, "optimizer.schedule must be a list of numbers or {lins"),
        ({"network": {"hidden": "3"}}, "network.hidden must be an integer, got '3'"),
        ({"network": {"hidden": [3, 0]}}, "network.hidden must be at least 1, got 0"),
        ({"network": {"layers": [2]}}, "network.layers must be a list of all widths"),
        ({"analysis": SPECTRUM | {"variables": ["growt"]}}, "did you mean 'growth'?"),
        ({"analysis": SPECTRUM | {"variables": []}}, "variables must be a list of exponents"),
        ({"analysis": SCAN | {"rule": 3}}, "analysis.rule must be a table, got 3"),
        ({"analysis": SCAN | {"rule": {"eg": 1}}}, "rule.eg is unknown; did you mean 'edge'?"),
        ({"analysis": SCAN | {"rule": {"edge": -1}}}, "analysis.rule.edge must be finite"),
        ({"analysis": SCAN | {"lrs": []}}, "analysis.lrs must be a list of numbers"),
        ({"analysis": SCAN | {"lrs": [0]}}, "analysis.lrs[0] must be finite and > 0, got 0"),
        # unknown keys
        ({"network": {"hidden": 3, "los": "mse"}}, "network.los is unknown; did you mean 'loss'?"),
        (
            {"optimizer": {"name": "adam", "momentum": 0.9}},
            "optimizer.momentum is unknown; allowed",
        ),
        ({"optimizer": {"name": "sgd"}}, "optimizer.name must be one of gradient_descent, adam"),
        ({"analysis": SPECTRUM | {"threads": 2}}, "analysis.threads is unknown"),
        ({"data": {"name": "iris", "n": 3}}, "data.n is unknown; allowed are train, test, split_"),
        # the grid
        ({"grid": [1]}, "grid must be a table, got [1]"),
        ({"grid": {"optimizer.lr": 0.1}}, "grid.optimizer.lr must be a list of numbers or {lin"),
        ({"grid": {"optimizer.lr": []}}, "grid.optimizer.lr must be a list of numbers"),
        ({"grid": {"optimizer.lr": [1, 1.0]}}, "lr must have distinct values, got 1.0 twice"),
        ({"grid": {"optimizer.lr": [1, "a"]}}, "grid.optimizer.lr[1] must be a number, got 'a'"),
        ({"grid": {"optimizer.rl": [1]}}, "did you mean 'optimizer.lr'?"),
        ({"grid": {"lr": [1]}}, "grid.lr is not a setting that a grid"),
        ({"grid": {"seed": [1]}}, "grid.seed is not a setting that a grid"),
        ({"grid": {"analysis.name": ["ftle"]}}, "grid.analysis.name is not a setting that a grid"),
        ({"grid": {"analysis.variables": [["growth"]]}}, "analysis.variables is not a setting"),
        ({"grid": {"network.hidden": [1]}}, "hidden must be in its table or in the grid, not in"),
        ({"grid": {"optimizer.lr": {"linspce": [0, 1, 2]}}}, "grid.optimizer.lr must be a list or"),
        ({"grid": {"optimizer.lr": {"linspace": [0, 1]}}}, "lr.linspace must be [a, b, n], n val"),
        ({"grid": {"optimizer.lr": {"logspace": [1, 1000, 3]}}}, "not all values are finite"),
        ({"grid": {"optimizer.lr": {"logspace": [1, 1000, 3]}}}, "from 10^a to 10^b"),
        ({"grid": {"optimizer.lr": {"geomspace": [0, 1, 3]}}}, "Geometric sequence cannot incl"),
        ({"grid": {"optimizer.lr": {"linspace": [0, 1, 2.0]}}}, "n must be an integer, got 2.0"),
        ({"grid": {"optimizer.lr": {"linspace": ["0", 1, 2]}}}, "an end must be a number, got '0'"),
        # what does not fit together
        ({"network": {}}, "network.hidden must be given (widths, like 10 or [10, 5]) or layers"),
        ({"network": {"hidden": 3, "layers": [2, 3, 1]}}, "or layers, got both"),
        ({"network": {"layers": [3, 3, 1]}}, "network.layers must go from the 2 inputs of quadr"),
        ({"network": {"layers": [2, 3, 2]}}, "of quadratic to its 1 outputs, got [2, 3, 2]"),
        ({"network": CLASSES}, "network.loss must be mse for the real-valued targets of"),
        ({"data": IRIS_DATA}, "network.loss must be cross_entropy or cross_entropy_clipped for"),
        ({"data": IRIS_DATA, "network": {"layers": [4, 2], "loss": "cross_entropy"}}, "3 outputs"),
        ({"network": {"hidden": 3, "activation": ["relu", "tanh"]}}, "activation must name all 1"),
        ({"optimizer": {"batch_size": 101}}, "batch_size must be at most the 100 samples of the"),
        ({"optimizer": {"momentum": 1.5}}, "optimizer.momentum must be in [0, 1], got 1.5"),
        ({"optimizer": {"nesterov": True}}, "optimizer.nesterov needs a momentum above 0"),
        ({"optimizer": {"schedule": [1, 1]}}, "schedule must have a factor for each step, got 2"),
        ({"data": {"name": "quadratic", "test": 100}}, "data.test must be below the 100 samples"),
        ({"data": {"name": "quadratic", "train": 91, "test": 10}}, "data.train must be at most 90"),
        ({"data": {"name": "quadratic", "train": 101}}, "data.train must be at most 100, got 101"),
        ({"data": {"name": "mnist", "folder": "/no/where"}}, "data.folder must be a folder, there"),
        ({"data": {"name": "mnist", "folder": ""}}, "data.folder must be a path, got an empty"),
        ({"data": {"name": "idx", "images": "/no", "labels": "/no"}}, "data: path must be an IDX"),
        ({"data": {"name": "hasy", "folder": "/no", "sha256": "x"}}, "must be 64 hexadecimal"),
        ({"analysis": SPECTRUM | {"record_every": 33}}, "analysis.record_every must divide n_st"),
        ({"analysis": SPECTRUM | {"qr_every": 3}}, "analysis.qr_every must divide n_steps=100"),
        ({"analysis": SPECTRUM | {"k": 14}}, "analysis.k must be in 1 ... 13, got 14"),
        ({"analysis": SPECTRUM | {"n_steps": 10**8}}, "n_steps must be at most 10,000,000 recor"),
        ({"analysis": SPECTRUM | {"method": "sparse"}}, "analysis.method must be one of dense"),
        ({"analysis": {"name": "ftle", "n_steps": 10, "window": 11}}, "window must be at most n_s"),
        ({"analysis": {"name": "ftle", "n_steps": 10, "window": 5, "n_tail": 1}}, "analysis.n_tai"),
        ({"analysis": {"name": "clv", "n_steps": 10, "delay": 9}}, "delay must be in 1 ... 2"),
        ({"analysis": {"name": "clv", "n_steps": 10, "delay": "auto"}}, "delay must be an integer"),
        (
            {"analysis": {"name": "clv", "n_steps": 10, "variables": ["early_error"]}},
            "analysis.variables must be results of these settings, 'early_error' needs "
            "analysis.delay",
        ),
        ({"analysis": ENSEMBLE | {"n_steps": 20}}, "analysis.method must suit 21 records"),
        ({"analysis": ENSEMBLE | {"eps": [1, -1]}}, "analysis.eps[1] must be finite and >= 0"),
        ({"analysis": ENSEMBLE | {"perturb": 14}}, "analysis.perturb must be in 1 ... 13, got 14"),
        ({"analysis": ENSEMBLE | {"perturb": "bias"}}, "perturb must be one of weights, biases"),
        ({"analysis": TRAIN | {"record_every": 3}}, "analysis.record_every must divide epochs=4"),
        ({"analysis": TRAIN | {"snapshots": [5]}}, "analysis.snapshots[0] must be in 0 ... 4"),
        ({"analysis": TRAIN | {"layers": [0]}}, "analysis.layers needs epochs at which they are"),
        ({"analysis": TRAIN | {"variables": ["test_loss"]}}, "'test_loss' needs data.test"),
        ({"analysis": TRAIN | {"variables": ["snapshots"]}}, "'snapshots' needs analysis.snapsho"),
        ({"analysis": TRAIN | {"variables": ["train_accuracy"]}}, "needs labels"),
        ({"analysis": SCAN | {"n_late": 101}}, "analysis.n_late must be in 20 ... 100, got 101"),
        ({"analysis": SCAN | {"observe": 13}}, "analysis.observe must be in 0 ... 12, got 13"),
        (
            {"analysis": SCAN, "optimizer": {"lr": 0.1}},
            "optimizer.lr must be omitted: the learning rates",
        ),
        ({"analysis": SCAN, "grid": {"optimizer.lr": [0.1]}}, "optimizer.lr must be omitted"),
        # axes that differ between points of the grid
        (
            {"analysis": SPECTRUM, "grid": {"analysis.record_every": [5, 10]}},
            "labels of 'step': make",
        ),
        (
            {"analysis": SPECTRUM, "grid": {"analysis.n_transient": [0, 5]}},
            "change the labels of 'step'",
        ),
        (
            {"analysis": {"name": "ensemble"}, "grid": {"analysis.eps": [1e-8, [1e-8, 1]]}},
            "grid must not change the dimensions of distances",
        ),
    ],
)
def test_error_messages(changes, says):
    assert says in error_of(**changes)


def test_missing_runs(tmp_path):
    text = FILE.replace("runs = 20", "")
    assert error_in_file(tmp_path, text) == "study.toml: runs is missing"


def test_memory_is_limited():
    huge = {"hidden": [1000, 10_000]}
    assert "analysis: frames of 10023001 vectors" in error_of(network=huge)
    ensemble = ENSEMBLE | {"n_perturbations": 10**9, "keep": "all"}
    assert "analysis: the results of one run would take" in error_of(analysis=ensemble)


def test_import_error_without_xarray(monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ImportError, match="pip install"):
        pl.Study(**tables())


# --- anything -------------------------------------------------------------------------------------


def paths(table, before=()):
    for key, value in table.items():
        yield (*before, key)
        if isinstance(value, dict):
            yield from paths(value, (*before, key))


WORDS = ["relu", "iris", "spectrum", "all", 1, 2, 10**6, 10**18, -1, 0.5, "linspace"]
FITTING = [[1, 2], ["tanh", "relu"], {"linspace": [1, 3, 3]}, {"logspace": [-1, 1, 2]}, "adam"]
SIMPLE = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
KEYS = st.sampled_from(["linspace", "logspace", "name", "lr", "n_steps", "x.y", ""])
JUNK = st.recursive(
    SIMPLE | st.integers(0, 50) | st.sampled_from(WORDS + FITTING),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=2),
    max_leaves=5,
)


def outcome(given):
    """A study, or the lines of the error message."""
    try:
        validated_settings(given)
        return pl.Study(**given)
    except ValueError as error:
        lines = str(error).split("\n  ")
        return lines if len(lines) == 1 else lines[1:]


@settings(max_examples=300)
@given(
    name=st.sampled_from(sorted(ANALYSES)),
    place=st.integers(0, 10**6),
    value=JUNK,
    key=st.none() | st.sampled_from(["k", "folder", "optimizer.lr", "analysis.k", "x", "seed"]),
)
def test_any_settings_give_a_study_or_an_error_with_a_path(name, place, value, key):
    broken = deepcopy(ANALYSES[name])
    known = list(paths(broken))
    path = known[place % len(known)]
    around = broken
    for step in path[:-1]:
        around = around[step]
    around[path[-1] if key is None else key] = value
    found = outcome(broken)
    if isinstance(found, pl.Study):
        assert pl.Study(**found.settings) == found
    else:
        top = "title|runs|seed|data|network|init|optimizer|analysis|grid"
        for line in found:
            assert re.match(rf"({top})\b|\S+ is unknown", line)


@given(st.text(max_size=30))
def test_any_text_gives_an_error_that_names_the_file(text):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "study.toml"
        path.write_bytes(text.encode(errors="replace"))
        with pytest.raises(ValueError, match=r"study\.toml"):
            pl.Study.from_file(path)
