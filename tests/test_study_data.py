"""Studies of the user's own data: tables in files, and arrays that are stored with the study."""

import json
import os
import pickle
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl
from pylyap.studies import work
from pylyap.studies.samples import STORED

pytest.importorskip("pandas")
pytest.importorskip("xarray")
pytest.importorskip("zarr")

DRAW = np.random.default_rng(1)
X = DRAW.normal([1.0, 40.0], [1.0, 8.0], (24, 2))
LABELS = np.arange(24) % 3
NAMES = np.array(["b", "c", "a"])[LABELS]  # labels in sorted order: 1, 2, 0
TOML = """\
runs = 2

[data]
path = "own/t.csv"
target = "kind"
{more}

[network]
hidden = 2
loss = "cross_entropy"

[analysis]
name = "spectrum"
n_steps = 12
k = 2
record_every = 2

[grid]
optimizer.lr = [0.1, 0.5]
"""
OTHER = {
    "network": {"hidden": 2, "loss": "cross_entropy"},
    "analysis": {"name": "spectrum", "n_steps": 12, "k": 2, "record_every": 2},
    "runs": 2,
    "grid": {"optimizer.lr": [0.1, 0.5]},
}


def study(**data):
    return pl.Study(data=data, **OTHER)


def write(path, factor=1.0):
    rows = [f"{float(a)!r},{float(b * factor)!r},{n}" for (a, b), n in zip(X, NAMES, strict=True)]
    path.write_text("\n".join(["u,v,kind", *rows]))
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A study file in one folder, the table in another below it; the current folder is a third."""
    (tmp_path / "studies/own").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write(tmp_path / "studies/own/t.csv")
    return tmp_path / "studies"


def read(folder, more="", name="s.toml"):
    (folder / name).write_text(TOML.format(more=more))
    return pl.Study.from_file(folder / name)


def expected(inputs, labels):
    """Exponents of the same runs, without a study."""
    net = pl.Network((2, 2, 3), loss="cross_entropy")
    seeds = [np.random.SeedSequence(0, spawn_key=(0, r)) for r in range(2)]
    w0 = np.array([net.init(seed=seed) for seed in seeds])
    return np.array([
        pl.lyapunov_spectrum(
            pl.TrainingMap(net, inputs, labels, pl.GradientDescent(lr=lr)), w0, 12, 2,
            record_every=2,
        ).exponents
        for lr in (0.1, 0.5)
    ])  # fmt: skip


SCALED = (X - X.mean(axis=0)) / X.std(axis=0)


# ------------------------------------------------------------------------------------------ tables


def test_a_table_of_a_study_file(folder):
    found = read(folder, "standardize = true")
    data = pl.run_study(found, "s")
    assert_allclose(data.exponents.values, expected(SCALED, (LABELS + 1) % 3), rtol=1e-12)
    assert repr(found).startswith("Study: spectrum of t.csv, 2 runs")
    assert found.settings["data"]["path"] == str(folder / "own/t.csv")  # of the study file's folder
    assert found.data_bytes == 24 * 3 * 8
    assert pl.plan_study(found).data == 24 * 3 * 8
    assert pl.Study(**found.settings) == found
    (folder / "again.toml").write_text(found.to_toml())
    assert pl.Study.from_file(folder / "again.toml") == found
    assert pl.Study(**json.loads(data.attrs["settings"])) == found


def test_the_scaling_is_that_of_the_training_samples(folder):
    system = read(folder, "standardize = true\ntrain = 16\ntest = 8\nsplit_seed = 3").system((0,))
    inputs, labels, *_ = pl.datasets.split(X, (LABELS + 1) % 3, 16, seed=3)
    scaled = (inputs - inputs.mean(axis=0)) / inputs.std(axis=0)
    assert_allclose(system.X, scaled, rtol=1e-12)
    assert_array_equal(system.y, labels)


def test_a_changed_file_is_refused(folder):
    pl.run_study(read(folder), "s")
    write(folder / "own/t.csv", 1.0 + 2**-50)
    with pytest.raises(pl.ArgumentError) as caught:
        pl.run_study(read(folder), "s")
    assert caught.value.argument == "study"
    assert f"{folder / 'own/t.csv'} has changed since" in str(caught.value)
    write(folder / "own/t.csv")
    (folder / "own/t.csv").rename(folder / "own/moved.csv")  # the same content, elsewhere
    text = TOML.format(more="").replace("own/t.csv", "own/moved.csv")
    (folder / "moved.toml").write_text(text)
    assert pl.run_study(pl.Study.from_file(folder / "moved.toml"), "s").attrs["runs_done"] == 4


def test_columns_along_the_grid(folder):
    text = TOML.replace('target = "kind"', "")
    text = text.replace("cross_entropy", "mse").format(more='features = ["u"]')
    (folder / "s.toml").write_text(text + 'data.target = ["v", "u"]\n')
    with pytest.raises(ValueError, match=r"data.features must not hold the target, got 'u'"):
        pl.Study.from_file(folder / "s.toml")
    text = text.replace('features = ["u"]', "").replace('"own/t.csv"', '"own/n.npz"')
    np.savez(folder / "own/n.npz", u=X[:, 0], v=X[:, 1], w=X[:, 0] * X[:, 1])
    (folder / "s.toml").write_text(text + 'data.target = ["v", "u"]\n')
    found = pl.Study.from_file(folder / "s.toml")
    assert found.shape == (2, 2)
    assert_array_equal(found.system((0, 0)).y.ravel(), X[:, 1])
    assert_array_equal(found.system((0, 1)).y.ravel(), X[:, 0])


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("own/t.csv", "own/u.csv", 4, ("data.path must be a file", "did you mean", "t.csv'?")),
        ('"kind"', '"kin"', 5, ("data.target must be of the columns", "did you mean 'kind'?")),
        ('"kind"', "7", 5, ("data.target must be a string, got 7",)),
        ('target = "kind"', "", 3, ("data.target is missing",)),
        ('"kind"\n', '"kind"\nfeatures = ["u", "w"]\n', 6, ("data.features must be of", "'w'")),
        ('"kind"\n', '"kind"\nfeature = "u"\n', 6, ("data.feature is unknown", "'features'")),
        ('"kind"\n', '"kind"\nsep = ";;"\n', 6, ("data.sep must be one character, got ';;'",)),
        ('"kind"\n', '"kind"\nstandardize = 1\n', 6, ("data.standardize must be True or False",)),
        (
            '"kind"\n',
            '"v"\nclasses = true\nfeatures = "u"\n',
            5,
            ("data.target must have several rows",),
        ),
        ('"kind"', '"u"', 3, ("data.features must be columns of numbers, 'kind'",)),
        ('path = "own/t.csv"', "X = [[1.0]]\ny = [0]", 3, ("data must name a file",)),
        ('path = "own/t.csv"', 'name = "arrays"', 5, ("data.target is unknown",)),
        ('path = "own/t.csv"', "", 3, ("data.name is missing", "or data.path the file")),
        ("own/t.csv", "own/empty.csv", 4, ("data.path must hold a table", "is empty")),
        ("cross_entropy", "mse", 10, ("network.loss must be", "for the labels of t.csv")),
    ],
)
def test_errors_have_their_lines(folder, old, new, line, words):
    (folder / "own/empty.csv").touch()
    text = TOML.format(more="")
    assert old in text
    (folder / "s.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=f"line {line}: ") as caught:
        pl.Study.from_file(folder / "s.toml")
    for word in words:
        assert word in str(caught.value)


def test_warnings_come_once_and_never_from_workers(folder):
    write(folder / "own/t.csv", 1e4)
    with pytest.warns(UserWarning, match="data: features differ in scale") as caught:
        found = read(folder)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert work._study.__wrapped__(pl.Study, json.dumps(found.settings)) == found


# ------------------------------------------------------------------------------------------ arrays


def test_arrays_are_stored_and_read_by_workers(tmp_path):
    inputs = X.copy()
    found = study(X=inputs, y=LABELS, standardize=True)
    inputs[:] = np.nan  # copied before
    assert repr(found).startswith("Study: spectrum of arrays, 2 runs")
    one = pl.run_study(pickle.loads(pickle.dumps(found)), tmp_path / "threads")
    assert_allclose(one.exponents.values, expected(SCALED, LABELS), rtol=1e-12)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        other = pl.run_study(found, tmp_path / "processes", executor=pool)
    assert_array_equal(one.exponents.values, other.exponents.values)
    with np.load(tmp_path / "processes" / STORED) as stored:
        assert_array_equal(stored["X"], X)
        assert_array_equal(stored["y"], LABELS)
    again = pl.Study(**json.loads(other.attrs["settings"]))  # reads the stored arrays
    assert_array_equal(again.system((0,)).X, found.system((0,)).X)
    assert pl.run_study(again, tmp_path / "processes").attrs["runs_done"] == 4


def test_arrays_on_a_cluster(tmp_path):
    distributed = pytest.importorskip("distributed")
    found = study(X=X, y=LABELS)
    one = pl.run_study(found, tmp_path / "threads")
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        other = pl.run_study(found, tmp_path / "dask", executor=client)
    assert_array_equal(one.exponents.values, other.exponents.values)


def test_a_resume_needs_the_same_arrays(tmp_path):
    pl.run_study(study(X=X, y=LABELS), tmp_path / "s")
    before = os.stat(tmp_path / "s" / STORED).st_mtime_ns
    pl.run_study(study(X=X, y=LABELS), tmp_path / "s")
    assert os.stat(tmp_path / "s" / STORED).st_mtime_ns == before  # stored once
    for other in (study(X=X, y=LABELS[::-1]), study(X=X * (1 + 2**-50), y=LABELS)):
        with pytest.raises(pl.ArgumentError, match=r"data.npz has changed since"):
            pl.run_study(other, tmp_path / "s")
    with np.load(tmp_path / "s" / STORED) as stored:
        assert_array_equal(stored["X"], X)
    (tmp_path / "s" / STORED).write_bytes(b"damaged")
    settings = json.loads(pl.open_study(tmp_path / "s").attrs["settings"])
    with pytest.raises(ValueError, match=r"data.file must hold the arrays of a study"):
        pl.Study(**settings)
    pl.run_study(study(X=X, y=LABELS), tmp_path / "s")
    pl.Study(**settings)
    (tmp_path / "s" / STORED).unlink()
    (tmp_path / "s" / STORED).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(pl.ArgumentError, match=r"must have a regular file data.npz"):
        pl.run_study(study(X=X, y=LABELS), tmp_path / "s")


def test_arrays_are_no_text(tmp_path):
    found = study(X=X, y=LABELS)
    with pytest.raises(
        pl.ArgumentError, match=r"must be in a file to be written as TOML"
    ) as caught:
        found.to_toml()
    assert caught.value.argument == "data"
    with pytest.raises(ValueError, match=r"data.file is missing: arrays are given in Python"):
        pl.Study(**found.settings)
    pl.run_study(found, tmp_path / "s")
    stored = pl.Study(**json.loads(pl.open_study(tmp_path / "s").attrs["settings"]))
    (tmp_path / "s.toml").write_text(stored.to_toml())  # names the file now
    assert pl.Study.from_file(tmp_path / "s.toml") == stored


def test_images_values_and_splits():
    images = DRAW.integers(0, 256, (6, 2, 2), dtype=np.uint8)
    found = study(X=images, y=np.arange(6) % 3)
    assert found.system((0,)).X.dtype == np.uint8
    values = pl.Study(
        data={"X": X.tolist(), "y": X.tolist(), "test": 4, "standardize": True},
        network={"hidden": [3]},
        analysis={"name": "train", "epochs": 2},
        runs=1,
        grid={"data.train": [10, 20]},
    )
    assert values.system((0,)).network.layers == (2, 3, 2)
    assert values.system((1,)).X.shape == (20, 2)
    assert_allclose(values.system((1,)).X.mean(axis=0), 0.0, atol=1e-12)
    assert np.isfinite(values.compute((0,), 0, 1)["test_loss"]).all()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"X": X}, ("data.y is missing",)),
        ({"y": LABELS}, ("data.X is missing",)),
        ({"X": X, "y": LABELS, "name": "iris"}, ("data.name must be omitted",)),
        ({"X": X, "y": LABELS[1:]}, ("data.y must have a row for each of the 24 rows",)),
        ({"X": X[:0], "y": LABELS[:0]}, ("data.y must have a row for each",)),
        ({"X": X[:, 0], "y": LABELS}, ("data.X must have shape (N, n_features), got (24,)",)),
        ({"X": X * np.nan, "y": LABELS}, ("data.X must be finite",)),
        ({"X": X, "y": NAMES}, ("data.y must be labels", "numpy.unique")),
        ({"X": X, "y": -LABELS}, ("data.y must be labels 0, 1, ... or real values, got -2",)),
        ({"X": np.array([["a"]]), "y": [0]}, ("data.X must be real numbers",)),
        ({"X": X, "y": LABELS, "sha256": "0" * 64}, ("data.sha256 must be the digest",)),
        ({"X": X, "y": LABELS, "target": "a"}, ("data.target is unknown",)),
        ({"X": np.ones((3, 2, 2), np.uint8), "y": [0, 1, 2], "standardize": True},
         ("data.standardize must be false for images",)),
    ],
)  # fmt: skip
def test_arrays_that_are_refused(data, words):
    with pytest.raises(ValueError, match="data") as caught:
        study(**data)
    for word in words:
        assert word in str(caught.value)
