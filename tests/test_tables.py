"""The user's own tables: what is read, what is encoded, what is refused and how."""

import gzip
import pickle
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl
from pylyap import datasets

pandas = pytest.importorskip("pandas")

CSV = "alcohol,hue,kind\n12.8,1.0,b\n13.2,1.1,a\n12.1,0.9,b\n"
X = [[12.8, 1.0], [13.2, 1.1], [12.1, 0.9]]
COLUMNS = {"alcohol": [12.8, 13.2, 12.1], "hue": [1.0, 1.1, 0.9], "kind": ["b", "a", "b"]}


def written(path, text, encoding="utf-8"):
    data = text.encode(encoding)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


# ------------------------------------------------------------------------------------ what is read


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", CSV),
        ("a.csv.gz", CSV),
        ("a.tsv", CSV.replace(",", "\t")),
        ("a.txt", CSV.replace(",", ";")),
        ("a.csv", CSV.replace(",", ";")),
        ("a.csv", CSV.replace("\n", "\r\n")),
        ("a.csv", "\ufeff" + CSV),
        ("a.csv", CSV.replace("b\n", '"b"\n').replace("hue", '"hue"')),
        ("a.csv", CSV.replace(",", ", ")),
    ],
)
def test_text_files_of_any_separator(tmp_path, name, text):
    features, labels = datasets.table(written(tmp_path / name, text), target="kind")
    assert_array_equal(features, X)
    assert features.dtype == np.float64
    assert labels.dtype == np.int64
    assert_array_equal(labels, [1, 0, 1])
    assert labels.names == ("a", "b")


def test_decimal_commas_and_quoted_line_feeds(tmp_path):
    text = 'x;"a\nname";y\n1,5;2,5;3\n0,5;1,0;4\n'
    features, values = datasets.table(written(tmp_path / "a.csv", text), "y", decimal=",")
    assert_array_equal(features, [[1.5, 2.5], [0.5, 1.0]])
    assert_array_equal(values, [3, 4])
    named, _ = datasets.table(tmp_path / "a.csv", "y", features="a\nname", decimal=",")
    assert_array_equal(named, [[2.5], [1.0]])


@pytest.mark.parametrize("kind", ["frame", "parquet", "mapping", "polars-like", "nullable"])
def test_containers_give_the_same(tmp_path, kind):
    frame = pandas.DataFrame(COLUMNS)
    if kind == "parquet":
        pytest.importorskip("pyarrow")
        source = tmp_path / "a.parquet"
        frame.to_parquet(source)
    elif kind == "mapping":
        source = COLUMNS
    elif kind == "nullable":
        source = frame.convert_dtypes()
    elif kind == "polars-like":
        source = type("Frame", (), {"to_pandas": lambda self: frame})()
    else:
        source = frame
    features, labels = datasets.table(source, "kind")
    assert_array_equal(features, X)
    assert_array_equal(labels, [1, 0, 1])


def test_arrays_of_npz_with_two_axes_are_features(tmp_path):
    rng = np.random.default_rng(0)
    inputs, values = rng.normal(size=(7, 3)), rng.normal(size=7)
    np.savez(tmp_path / "a.npz", X=inputs, y=values, other=values**2)
    features, targets = datasets.table(tmp_path / "a.npz", "y", features="X")
    assert_array_equal(features, inputs)
    assert_array_equal(targets, values)
    assert datasets.table(tmp_path / "a.npz", "y")[0].shape == (7, 4)
    assert datasets.table(tmp_path / "a.npz", ["y", "other"], features="X")[1].shape == (7, 2)


@pytest.mark.parametrize(
    ("column", "labels", "names"),
    [
        (["red", "blue", "red"], [1, 0, 1], ("blue", "red")),
        ([True, False, True], [1, 0, 1], ("False", "True")),
        (pandas.Categorical(["m", "l", "m"], ["s", "m", "l"]), [1, 0, 1], ("l", "m")),
    ],
)
def test_classes_are_numbered_in_sorted_order(column, labels, names):
    _, found = datasets.table(pandas.DataFrame({"x": [1.0, 2.0, 3.0], "y": column}), "y")
    assert_array_equal(found, labels)
    assert found.names == names
    assert pickle.loads(pickle.dumps(found)).names == names
    assert found[1:].names == names


def test_numbers_are_classes_if_asked():
    columns = {"x": [1.0, 2.0, 3.0], "class": [3, 1, 3]}
    _, values = datasets.table(columns, "class")
    assert_array_equal(values, [3, 1, 3])
    assert values.dtype == np.int64
    _, labels = datasets.table(columns, "class", classes=True)
    assert_array_equal(labels, [1, 0, 1])
    assert labels.names == ("1", "3")


def test_standardized_features_have_mean_0_and_population_deviation_1():
    features, _ = datasets.table(COLUMNS, "kind", standardize=True)
    assert_allclose(features.mean(axis=0), 0.0, atol=1e-14)
    assert_allclose(features.std(axis=0), 1.0, rtol=1e-14)


def test_a_table_trains():
    features, labels = datasets.table(COLUMNS, "kind", standardize=True)
    network = pl.Network((2, 3, 2), loss="cross_entropy")
    system = pl.TrainingMap(network, features, labels, pl.GradientDescent(lr=0.1))
    w = network.init(seed=0)
    assert system.loss(system.step(w)) < system.loss(w)


# ------------------------------------------------------------------------------------ what is wrong


def test_missing_values_are_refused_by_row_and_column_or_left_out(tmp_path):
    path = written(tmp_path / "a.csv", "x,z,y\n1,2,a\n,3,b\n4,,a\n5,6,b\n7,8,\n")
    with pytest.raises(pl.ArgumentError, match=r"row 1 of 'x'.* 2 more in 3 columns"):
        datasets.table(path, "y")
    features, labels = datasets.table(path, "y", drop_missing=True)
    assert_array_equal(features, [[1, 2], [5, 6]])
    assert_array_equal(labels, [0, 1])
    # a column that is not used may have gaps
    assert datasets.table(path, "y", "x", drop_missing=True)[0].shape == (3, 1)


@pytest.mark.parametrize(
    ("argument", "message", "text", "given"),
    [
        ("target", "did you mean 'kind'", CSV, {"target": "kinds"}),
        ("target", "'hue' twice", CSV, {"target": ["hue", "hue"]}),
        ("features", "must not hold the target", CSV, {"features": ["kind"]}),
        ("features", "'colour' has 'red' in row 1", "x,colour,kind\n1,0,a\n1,red,b\n", {}),
        ("features", "must be finite, 'x' has inf in row 0", "x,kind\ninf,a\n1,b\n", {}),
        ("features", "in row 0: decimal=','", "x;kind\n1,5;a\n2,5;b\n", {"sep": ";"}),
        ("features", "get_dummies$", "x,kind\n1,a\nred,b\n", {}),
        ("target", "at least two classes, 'kind' has 'a' alone", "x,kind\n1,a\n2,a\n", {}),
        ("source", "no rows", "x,kind\n", {}),
        ("source", "is empty", "", {}),
        ("features", "at least one column", "kind\na\nb\n", {}),
    ],
)
def test_bad_tables(tmp_path, argument, message, text, given):
    path = written(tmp_path / "a.csv", text)
    with pytest.raises(pl.ArgumentError, match=message) as caught:
        datasets.table(path, **{"target": "kind", **given})
    assert caught.value.argument == argument


def test_files_that_are_no_tables(tmp_path):
    written(tmp_path / "wine.csv", CSV)
    with pytest.raises(FileNotFoundError, match=r"did you mean .*wine\.csv"):
        datasets.table(tmp_path / "wines.csv", "kind")
    with pytest.raises(pl.ArgumentError, match="must be a file"):
        datasets.table(tmp_path, "kind")
    with pytest.raises(pl.ArgumentError, match=r"must be one of \.csv"):
        datasets.table(written(tmp_path / "a.xlsx", "x"), "kind")
    for name in ("a.npz", "a.csv.gz"):
        (tmp_path / name).write_bytes(b"\x00\x01 damaged")
        with pytest.raises(pl.ArgumentError, match="does not"):
            datasets.table(tmp_path / name, "kind")
    np.savez(tmp_path / "b.npz", a=np.zeros(3), b=np.zeros(4))
    with pytest.raises(pl.ArgumentError, match="one length"):
        datasets.table(tmp_path / "b.npz", "a")
    with pytest.raises(TypeError, match="source must be a path"):
        datasets.table(3, "kind")


def test_features_worth_a_warning():
    columns = {"x": [1.0, 2.0, 4.0], "far": [1e4, 3e4, 2e4], "y": [1.0, 2.0, 3.0]}
    with pytest.warns(UserWarning, match=r"deviation of 'far' is .* times that of 'x'"):
        datasets.table(columns, "y")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        datasets.table(columns, "y", standardize=True)
    with pytest.warns(UserWarning, match="constant features: 'c'"):
        features, _ = datasets.table({**columns, "c": [2.0] * 3}, "y", standardize=True)
    assert_array_equal(features[:, 2], 0.0)
    with pytest.warns(UserWarning, match="feature 'copy' equals 'x'"):
        datasets.table({**columns, "copy": columns["x"]}, "y", standardize=True)


@pytest.mark.parametrize(("name", "value"), [("sep", ";;"), ("sep", 3), ("decimal", "")])
def test_separators_are_single_characters(tmp_path, name, value):
    path = written(tmp_path / "a.csv", CSV)
    with pytest.raises(pl.ArgumentError, match=f"{name} must be") as caught:
        datasets.table(path, "kind", **{name: value})
    assert caught.value.argument == name


def test_content_of_a_file_is_refused_in_plain_words(tmp_path):
    path = written(tmp_path / "a.csv", "x,kind\n")
    with pytest.raises(pl.ArgumentError) as caught:
        datasets.table(path, "kind")
    assert str(caught.value) == "source must have rows, got 2 columns and no rows"
