"""Tables of the user in every command: what is read, what is trained, what is refused."""

import csv
import json
import sys
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl

pytest.importorskip("pandas")
cli = pytest.importorskip("pylyap.cli")

SMALL = {
    "spectrum": "--steps 20 -k 2 --runs 2 --hidden 2 --lr 0.1",
    "clv": "--steps 20 --tail 10 --transient 10 --every 10 -k 2 --runs 2 --hidden 2",
    "predict": "--steps 40 --until 20 --window 10 -k 2 --angles 0 --runs 20 --activation tanh",
    "ensemble": "--steps 40 --runs 2 --hidden 2 --lr 0.1",
    "scan": "--steps 40 --late 20 --runs 2 --hidden 2 --lr 0.1,1",
    "train": "--epochs 2 --runs 2 --hidden 2 --lr 0.1",
    "deviation": "--epochs 2 --runs 2 --hidden 2,2",
}


def run(*args):
    return cli.main([str(a) for a in args])


@pytest.fixture
def cases(tmp_path, monkeypatch):
    """Files with 30 samples, 3 features of different scale, classes, ranks and prices."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    X = draw.normal([1.0, 50.0, -3.0], [1.0, 90.0, 0.5], (30, 3)).round(3)
    classes = np.array(["setosa", "bare, old", "virginica"])[np.arange(30) % 3]
    ranks, prices = 3 + np.arange(30) % 3, draw.normal(size=30).round(3)
    with (tmp_path / "flowers.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["height", "width, total", "depth", "kind", "rank", "price"])
        writer.writerows([*map(repr, map(float, row)), *rest] for row, *rest in zip(
            X, classes, ranks, prices, strict=True
        ))  # fmt: skip
    return X, classes, ranks, prices


FEATURES = ("--features", 'height,"width, total",depth')


@pytest.mark.parametrize("command", SMALL)
def test_every_command_takes_a_table(cases, capsys, command):
    assert run(
        command, "--data", "flowers.csv", "--target", "kind", *FEATURES, "--standardize",
        *SMALL[command].split(),
    ) == 0  # fmt: skip
    captured = capsys.readouterr()
    assert captured.out.startswith(" flowers.csv: 3-")
    assert "cross_entropy" in captured.out
    line = "pylyap: flowers.csv: 30 samples, 3 features, 960 B; classes bare, old (10), "
    assert captured.err.splitlines()[0] == line + "setosa (10), virginica (10)"


def numbers(*options):
    assert run(
        "spectrum", "--data", "flowers.csv", *FEATURES, *SMALL["spectrum"].split(), *options,
        "--output", "n.json", "--quiet",
    ) == 0  # fmt: skip
    with open("n.json", encoding="utf-8") as file:
        content = json.load(file)
    return content["settings"], [row["exponents"] for row in content["runs"]]


def exponents(X, y, outputs, loss):
    net = pl.Network((3, 2, outputs), activation="tanh", loss=loss)
    w0 = net.init("glorot_uniform", runs=2, seed=0)
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=0.1))
    return pl.lyapunov_spectrum(system, w0, 20, 2).exponents


def test_the_network_fits_the_targets(cases, capsys):
    # Against the same arrays made here: labels in the order of sorted names, values as they are.
    X, classes, ranks, prices = cases
    scaled = (X - X.mean(axis=0)) / X.std(axis=0)
    names, labels = np.unique(classes, return_inverse=True)
    given, found = numbers("--target", "kind", "--standardize")
    assert given["class_names"] == names.tolist()
    assert given["features"] == ["height", "width, total", "depth"]
    assert_allclose(found, exponents(scaled, labels, 3, "cross_entropy"), rtol=1e-12)

    given, found = numbers("--target", "rank", "--standardize")
    assert given["class_names"] == ["3", "4", "5"]
    assert_allclose(found, exponents(scaled, ranks - 3, 3, "cross_entropy"), rtol=1e-12)

    given, found = numbers("--target", "rank", "--standardize", "--values")
    assert "class_names" not in given
    assert_allclose(found, exponents(scaled, ranks.astype(float), 1, "mse"), rtol=1e-12)

    given, found = numbers("--target", "price,rank", "--standardize")
    both = np.column_stack([prices, ranks])
    assert_allclose(found, exponents(scaled, both, 2, "mse"), rtol=1e-12)
    assert capsys.readouterr().err == ""


def test_samples_held_out_do_not_take_part_in_the_scaling(cases, capsys, monkeypatch):
    X, classes, *_ = cases
    seen = []
    train = sys.modules["pylyap.cli.train"]
    set_up = train.set_up
    monkeypatch.setattr(train, "set_up", lambda given: seen.append(set_up(given)) or seen[-1])
    arguments = ("--target", "kind", *FEATURES, "--standardize", "--test", "10")
    assert run("train", "--data", "flowers.csv", *arguments, *SMALL["train"].split()) == 0
    _, labels = np.unique(classes, return_inverse=True)
    one, _, other, held = pl.datasets.split(X, labels, 20, seed=0)
    assert_allclose(seen[0].system.X, (one - one.mean(axis=0)) / one.std(axis=0), rtol=1e-12)
    assert_allclose(seen[0].test[0], (other - one.mean(axis=0)) / one.std(axis=0), rtol=1e-12)
    assert_array_equal(seen[0].test[1], held)


@pytest.mark.parametrize("options", ["", "--test 10", "--loss mse"])
def test_accuracy_by_class(cases, capsys, monkeypatch, options):
    # Against the predictions of the weights that are written, on samples divided here.
    X, classes, *_ = cases
    monkeypatch.delenv("COLUMNS", raising=False)
    common = "--runs 3 --hidden 3 --lr 0.1,1 --epochs 30 --quiet --output t.npz"
    arguments = ("--target", "kind", *FEATURES, *options.split(), *common.split())
    assert run("train", "--data", "flowers.csv", *arguments) == 0
    _, _, table = capsys.readouterr().out.partition("Accuracy by class after the last epoch")
    names, labels = np.unique(classes, return_inverse=True)
    if "test" in options:
        _, _, X, labels = pl.datasets.split(X, labels, 20, seed=0)
    net = pl.Network((3, 3, 3), activation="tanh", loss="mse")
    with np.load("t.npz") as found:
        right = net.predict(found["state"], X).argmax(axis=-1) == labels
    expected = [np.median(right[..., labels == k].mean(axis=-1), axis=1) for k in range(3)]
    lines = table.splitlines()
    assert lines[2].split() == ["lr", "bare,", "old", "setosa", "virginica"]
    for i in range(2):
        assert lines[4 + i].split()[1:] == [f"{100 * share[i]:.3g}%" for share in expected]
    part = "test" if "test" in options else "training"
    counts = ", ".join(f"{(labels == k).sum()} {name}" for k, name in enumerate(names))
    assert f"{part} samples: {counts}." in table


def test_names_of_classes_are_no_markup(cases, capsys):
    with open("odd.csv", "w", encoding="utf-8") as file:
        file.write("a,kind\n" + "1.5,[red]\n2.5,[/]\n" * 5)
    assert run("train", "--data", "odd.csv", "--target", "kind", *SMALL["train"].split()) == 0
    table = capsys.readouterr().out.partition("Accuracy by class")[2]
    assert table.splitlines()[2].split() == ["lr", "[/]", "[red]"]


def test_warnings_are_lines(cases, capsys):
    with open("flowers.csv", encoding="utf-8") as file:
        head, *rows = file.read().splitlines()
    with open("odd.csv", "w", encoding="utf-8") as file:
        lines = [f"{i},{row},7,{row.split(',')[0]}" for i, row in enumerate(rows)]
        file.write("\n".join([f",{head},same,again", *lines]))
    arguments = ("--target", "kind", "--quiet", *SMALL["spectrum"].split())
    assert run("spectrum", "--data", "odd.csv", *arguments) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "pylyap: constant features: 'same'"
    assert lines[1].startswith("pylyap: feature 'Unnamed: 0' has no name and numbers the rows")
    assert lines[2] == "pylyap: feature 'again' equals 'height'"
    assert lines[3].startswith("pylyap: features differ in scale: the standard deviation of ")
    assert len(lines) == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--data flovers.csv", ("there is no 'flovers.csv'", "did you mean 'flowers.csv'?")),
        ("--data irs", ("there is no 'irs'", "did you mean 'iris'?")),
        ("--data .", ("'.' is a directory",)),
        ("--data flowers.csv", ("needs --target", "'kind'", "'width, total'")),
        ("--data flowers.csv --target kin", ("--target must be of", "did you mean 'kind'?")),
        ("--data flowers.csv --target price", ("--features", "'kind'", "'setosa'")),
        ("--data flowers.csv --target kind --features kind", ("--features", "must not hold")),
        (
            "--data flowers.csv --target price --features depth --classes",
            ("several rows for each class",),
        ),
        ("--data flowers.csv --target kind --sep ;;", ("--sep must be one character", "';;'")),
        ("--data flowers.csv --target kind --sep ;", ("--target must be of the columns",)),
        ("--data flowers.csv --target kind --folder .", ("--folder applies to",)),
        ("--data iris --target kind", ("--target applies to a file, got --data iris",)),
        ("--data iris --standardize", ("--standardize applies to a file",)),
        ("--data iris --values", ("--classes or --values applies to a file",)),
        ("--data empty.csv --target a", ("--data must hold a table", "is empty")),
        ("--data head.csv --target a", ("--data must have rows",)),
        ("--data text.xlsx --target a", ("--data must be one of .csv",)),
        ("--data bytes.csv --target a", ("--data must hold a table",)),
        ("--data long.csv --target a", ("--data must have a name for each column",)),
        ("--data comma.csv --target b", ("--decimal ,", "'1,5'")),
        ("--data holes.csv --target b", ("row 1 of 'a'", "--drop-missing")),
        ("--data one.csv --target b", ("at least two classes", "'x'")),
    ],
)
def test_what_is_refused(cases, capsys, arguments, words):
    for name, content in {
        "empty.csv": b"",
        "head.csv": b"a,b\n",
        "text.xlsx": b"PK",
        "bytes.csv": b"a,b\n\xff\xfe\xfa,\x80\n",
        "long.csv": b"a,b\n1,2,3\n4,5,6\n",
        "comma.csv": b"a;b\n1,5;2\n2,5;3\n",
        "holes.csv": b"a,b\n1,2\n,3\n",
        "one.csv": b"a,b\n1,x\n2,x\n",
    }.items():
        with open(name, "wb") as file:
            file.write(content)
    assert run("spectrum", *arguments.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    for word in words:
        assert word in captured.err


def test_text_of_other_countries(cases, capsys):
    # Decimal commas, semicolons, a byte order mark, and a line feed inside quotes.
    rows = [f'{x},5;"a\n{x % 2}"' for x in range(8)]
    with open("de.csv", "w", encoding="utf-8-sig") as file:
        file.write("\n".join(["länge;art", *rows]))
    arguments = ("--data", "de.csv", "--target", "art", *SMALL["spectrum"].split())
    assert run("spectrum", *arguments, "--decimal", ",") == 0
    captured = capsys.readouterr()
    assert captured.err == "pylyap: de.csv: 8 samples, 1 feature, 128 B; classes a 0 (4), a 1 (4)\n"
    assert "1-2-2 tanh" in captured.out


def test_a_million_rows_are_weighed_before_they_are_read(tmp_path, monkeypatch):
    from pylyap import _checks
    from pylyap._readers import tables

    path = tmp_path / "big.csv"
    path.write_text("a,b,y\n" + "1,2,0\n" * 10**6)
    assert_allclose(tables._value_count(path, ".csv"), 3e6, rtol=0.01)
    monkeypatch.setattr(_checks, "available_memory", lambda: 1e8)
    monkeypatch.setattr(tables, "_read_frame", lambda *_: pytest.fail("read all the same"))
    with pytest.raises(ValueError, match=r"reading big.csv would take 137 MiB, .* take fewer rows"):
        pl.datasets.table(path, target="y")


def test_a_constant_target_is_worth_a_warning():
    with pytest.warns(UserWarning, match="constant target: 'y'"):
        pl.datasets.table({"a": [1.0, 2.0], "y": [0.5, 0.5]}, target="y")


def test_integers_stay_integers_beside_missing_ones(tmp_path):
    (tmp_path / "a.csv").write_text("a,y\n1,1\n2,\n3,2\n4,1\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, y = pl.datasets.table(tmp_path / "a.csv", target="y", drop_missing=True)
    assert y.dtype == np.int64
    assert y.tolist() == [1, 2, 1]


def test_many_different_values_are_no_classes():
    names = [f"id {i}" for i in range(30)]
    with pytest.raises(pl.ArgumentError, match="30 different values in 30 rows") as caught:
        pl.datasets.table({"a": range(30), "name": names}, target="name")
    assert caught.value.argument == "target"
    few = [f"id {i}" for i in range(20)]
    assert pl.datasets.table({"a": range(20), "name": few}, target="name")[1].names == tuple(
        sorted(few)
    )
