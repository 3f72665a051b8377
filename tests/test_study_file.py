"""Study files: reading, writing, line numbers, and the documentation."""

import re
import time
import tomllib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from study_files import ANALYSES, FILE, digits, read, tables, write

import pylyap as pl
from pylyap.studies.settings import validated_settings
from pylyap.studies.tables import TABLES, VARIABLES
from pylyap.studies.toml import line_numbers

pytest.importorskip("xarray")

DOCUMENTATION = Path(__file__).parents[1] / "docs" / "howto" / "studies.md"
EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.toml"))


# --- what is read ---------------------------------------------------------------------------------


def test_a_file_and_python_make_the_same_study(tmp_path):
    study = read(tmp_path, FILE)
    same = pl.Study(
        title="Weights",
        runs=20,
        seed=7,
        data={"name": "quadratic"},
        network={"hidden": 3},
        analysis={"name": "spectrum", "n_steps": np.int64(100), "record_every": 10},
        grid={"network.activation": ("relu", "tanh"), "optimizer.lr": np.logspace(-3, -1, 3)},
    )
    assert study == same
    assert hash(study) == hash(same)
    assert (study.title, study.runs, study.seed) == ("Weights", 20, 7)
    assert study.shape == (2, 3)
    assert study.grid == {"activation": ("relu", "tanh"), "lr": (0.001, 0.01, 0.1)}
    assert study != pl.Study(**(study.settings | {"seed": 8}))
    assert study != "study"


def test_defaults_are_those_of_the_library():
    settings = pl.Study(**tables()).settings
    assert settings["data"] == {
        "name": "quadratic", "n": 100, "seed": 0, "train": None, "test": 0, "split_seed": 0,
    }  # fmt: skip
    assert settings["network"] == {
        "hidden": [3], "layers": None, "activation": "tanh", "loss": "mse",
    }  # fmt: skip
    assert settings["init"] == {"kind": "glorot_uniform", "scale": 1.0, "biases": False}
    assert settings["optimizer"] == {
        "name": "gradient_descent", "lr": 0.1, "momentum": 0.0, "nesterov": False,
        "weight_decay": 0.0, "batch_size": None, "shuffle": True, "seed": 0, "schedule": None,
    }  # fmt: skip
    assert settings["analysis"] == {
        "name": "spectrum", "n_steps": 100, "k": None, "n_transient": 0, "start": 0,
        "method": None, "seed": 0, "qr_every": 1, "record_every": None, "tol": None,
        "variables": None,
    }  # fmt: skip
    assert (settings["title"], settings["seed"], settings["grid"]) == ("", 0, {})


def test_settings_make_the_same_study_and_are_a_copy():
    study = pl.Study(**tables(grid={"optimizer.lr": [0.1, 1]}))
    assert pl.Study(**study.settings) == study
    study.settings["data"]["n"] = 5
    study.settings["grid"].clear()
    assert study.settings["data"]["n"] == 100
    assert study.shape == (2,)
    assert "lr" not in study.settings["optimizer"]  # it is in the grid


def test_a_study_cannot_be_changed():
    study = pl.Study(**tables())
    for name in ("settings", "runs", "seed", "grid", "variables", "coords", "title", "shape"):
        with pytest.raises(AttributeError):
            setattr(study, name, None)
    with pytest.raises(ValueError, match="read-only"):
        study.coords["step"].values[0] = 5


@pytest.mark.parametrize(
    ("key", "form", "values"),
    [
        ("optimizer.lr", {"linspace": [0.0, 1.0, 5]}, (0.0, 0.25, 0.5, 0.75, 1.0)),
        ("optimizer.lr", {"logspace": [-2, 1, 4]}, (0.01, 0.1, 1.0, 10.0)),
        ("optimizer.lr", {"geomspace": [1, 100, 3]}, (1.0, 10.0, 100.0)),
        ("network.hidden", {"linspace": [2, 6, 3]}, ([2], [4], [6])),
        ("network.hidden", [2, [3], [4, 5]], ([2], [3], [4, 5])),
        ("network.layers", [[2, 1], [2, 3, 1]], ([2, 1], [2, 3, 1])),
        ("init.biases", [True, False], (True, False)),
    ],
)
def test_values_of_a_grid(key, form, values):
    network = {} if key.startswith("network") else {"hidden": 3}
    study = pl.Study(**tables(network=network, grid={key: form}))
    assert study.grid == {key.partition(".")[2]: values}
    assert study.shape == (len(values),)


def test_a_grid_may_be_written_as_tables(tmp_path):
    head = FILE[: FILE.index("[grid]")]
    one = read(tmp_path, head + "[grid.optimizer]\nlr = [0.1]\n[grid.init]\nscale = [1, 2]\n")
    two = read(tmp_path, head + '[grid]\n"optimizer.lr" = [0.1]\ninit.scale = [1, 2]\n')
    assert one == two


def test_short_names_of_dimensions_are_unique():
    grid = {"data.seed": [1], "optimizer.seed": [2], "network.loss": ["mse"], "data.n": [9]}
    study = pl.Study(**tables(grid=grid))
    assert list(study.grid) == ["data_seed", "optimizer_seed", "network_loss", "n"]
    for dim in study.grid:
        assert study.coords[dim].dims == (dim,)
    assert study.coords["data_seed"].attrs == {"long_name": "data.seed"}


def test_labels_are_numbers_where_possible():
    def labels(key, values, **changes):
        study = pl.Study(**tables(grid={key: values}, **changes))
        return study.coords[key.partition(".")[2]].values

    assert labels("optimizer.lr", [1, 0.5]).tolist() == [1.0, 0.5]
    assert labels("network.hidden", [[2], 3], network={}).tolist() == [2, 3]
    assert labels("network.hidden", [[2, 2], 3], network={}).tolist() == ["2-2", "3"]
    assert labels("init.biases", [True, False]).tolist() == ["True", "False"]
    assert labels("init.kind", ["normal", "uniform"]).dtype.kind == "U"


def test_paths_are_relative_to_the_file(tmp_path, monkeypatch):
    images, labels = digits(tmp_path / "files")
    text = """
        runs = 1
        data = {name = "idx", images = "files/images", labels = "files/labels"}
        network = {hidden = 2, loss = "cross_entropy"}
        analysis = {name = "train", epochs = 1}
    """
    study = read(tmp_path, text)
    assert study.settings["data"]["images"] == str(images)
    assert study.settings["data"]["labels"] == str(labels)
    monkeypatch.chdir(tmp_path / "files")
    data = {"name": "idx", "images": "images", "labels": labels}
    net = {"hidden": 2, "loss": "cross_entropy"}
    python = pl.Study(data=data, network=net, analysis={"name": "train", "epochs": 1}, runs=1)
    assert python == study
    monkeypatch.chdir("/")
    assert pl.Study(**study.settings) == study


def test_flattened_images_of_an_idx_file():
    from pylyap.studies.cases import Samples, split_samples

    table = np.arange(24, dtype=np.uint8).reshape(6, 4)
    given = {"name": "idx", "test": 2, "train": None, "split_seed": 0}
    data = split_samples(given, Samples(table, np.arange(6) % 3, ""))
    net = pl.Network((data.inputs, 3), loss="cross_entropy")
    for X, y in ((data.X, data.y), data.test):
        system = pl.TrainingMap(net, X, y, pl.GradientDescent())
        numbers = pl.TrainingMap(net, X.reshape(len(X), 4) / 255.0, y, pl.GradientDescent())
        assert system.loss(np.ones(15)) == numbers.loss(np.ones(15))


def test_data_in_files_are_identified_by_their_digest(tmp_path):
    images, labels = digits(tmp_path / "files")
    options = tables(
        data={"name": "idx", "images": str(images), "labels": str(labels), "test": 3},
        network={"hidden": 2, "loss": "cross_entropy"},
        analysis={"name": "train", "epochs": 1},
        grid={"data.split_seed": [0, 1], "data.train": [5, 9]},
    )
    study = pl.Study(**options)
    assert len(study.settings["data"]["sha256"]) == 64
    assert pl.Study(**study.settings) == study
    digits(tmp_path / "others", n=15)
    (tmp_path / "others" / "images").rename(images)
    (tmp_path / "others" / "labels").rename(labels)
    with pytest.raises(ValueError, match=r"data\.sha256 must be the digest of the data"):
        pl.Study(**study.settings)
    assert pl.Study(**options) != study


# --- back to text ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(TABLES["analysis"]))
def test_toml_roundtrip(tmp_path, name):
    study = pl.Study(**ANALYSES[name])
    assert read(tmp_path, study.to_toml()) == study
    assert tomllib.loads(study.to_toml())["analysis"]["name"] == name


def test_toml_roundtrip_of_titles(tmp_path):
    for title in ('"quotes" and \\', "λ ≥ 0 \t\n", "\x7f\x1f", "🎲", "'''", "# no comment"):
        study = pl.Study(**tables(title=title))
        assert read(tmp_path, study.to_toml()).title == title


# --- lines ----------------------------------------------------------------------------------------


def test_lines_of_keys():
    lines = line_numbers(FILE)
    assert lines == {
        "title": 1, "runs": 2, "seed": 3, "data": 5, "data.name": 6, "network": 8,
        "network.hidden": 9, "analysis": 11, "analysis.name": 12, "analysis.n_steps": 13,
        "analysis.record_every": 14, "grid": 16, "grid.network": 17,
        "grid.network.activation": 17, "grid.optimizer.lr": 21, "grid.optimizer.lr.logspace": 21,
    }  # fmt: skip


def test_lines_of_keys_among_strings_and_comments():
    text = '''
# runs = 1
title = """
runs = 2
[data]
"""
a = [  # [x]
  "b = 1",
  [1],
]
[ x . "y z" ]  # z = 3
  c.d = {e = 1}
[[t]]
n = 1
[[t]]
n = 2
'''
    assert line_numbers(text) == {
        "title": 3, "a": 7, "x": 11, "x.y z": 11, "x.y z.c": 12, "x.y z.c.d": 12,
        "x.y z.c.d.e": 12, "t": 13, "t.n": 14,
    }  # fmt: skip


def test_lines_after_a_long_list():
    values = ",\n".join(map(str, range(1, 20_001)))
    assert line_numbers(f"a = [\n{values}\n]\nb = 1\n") == {"a": 1, "b": 20_003}


@pytest.mark.parametrize("line", ['["b = 1", """x', "{a = [1]},", "'b = 1', # [x]", "b = 1", ""])
def test_time_to_find_lines_is_linear(line):
    """The time is proportional to the number of lines for any content."""

    def seconds(n):
        text = "a = [\n" + f"{line}\n" * n
        begin = time.process_time()
        with suppress(ValueError):  # beyond the limits
            line_numbers(text)
        return time.process_time() - begin

    # Measured: at most 1.3 µs per line. A quadratic search took 12 s for 3000 lines.
    assert min(seconds(30_000) for _ in range(3)) < 1.0


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_and_byte_order_mark(end, mark, tmp_path):
    wrong = FILE.replace("runs = 20", "runs = 0").replace('"tanh",', '"tanh", "x",')
    wrong = wrong.replace("seed = 7", 'seed = 7 # a\n\n"init.kind" = """\nx"""')

    def lines(text):
        path = tmp_path / "study.toml"
        path.write_bytes((mark + text.replace("\n", end)).encode())
        with pytest.raises(ValueError, match=r"study\.toml") as caught:
            pl.Study.from_file(path)
        return re.findall(r"line (\d+)", str(caught.value))

    assert lines(wrong) == ["5", "2", "20"]
    assert lines(FILE + "\na = = 1\n") == ["23"]
    path = tmp_path / "study.toml"
    path.write_bytes((mark + FILE.replace("\n", end)).encode())
    assert pl.Study.from_file(path) == read(tmp_path, FILE)


def test_a_carriage_return_alone_is_an_error(tmp_path):
    path = tmp_path / "study.toml"
    for text, line in ((FILE.replace("\n", "\r"), 1), (FILE.replace("[data]", "[data] \r#"), 5)):
        path.write_bytes(text.encode())
        with pytest.raises(ValueError, match=rf"study\.toml: line {line}: lines must end"):
            pl.Study.from_file(path)


# --- examples and documentation -------------------------------------------------------------------


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples(path):
    text = path.read_text("utf-8")
    settings = validated_settings(tomllib.loads(text), str(path.parent))
    assert settings["title"]
    if settings["data"]["name"] == "digits":
        pytest.importorskip("sklearn")
    if "folder" not in settings["data"]:
        assert pl.Study.from_file(path).settings == settings
    else:  # with other data, since the images are not available
        data = {"name": "iris", "test": 10}
        settings["optimizer"]["batch_size"] = 50
        pl.Study(**(settings | {"data": data}))


def test_documentation_runs(tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"```(toml|python)\n(.*?)```", DOCUMENTATION.read_text("utf-8"), re.DOTALL)
    (_, text), (_, code) = blocks[:2]
    monkeypatch.chdir(tmp_path)
    write(tmp_path, text)
    names = {}
    exec(code.replace("study = pl.Study(", "python = pl.Study(", 1), names)
    assert names["python"].settings == names["study"].settings | {"title": ""}
    assert names["block"]["exponents"].shape == (10, 5)
    assert "100 runs at each of 6 lr × 3 hidden" in capsys.readouterr().out


def test_documentation_has_every_key():
    text = DOCUMENTATION.read_text("utf-8")
    keys = {key for kinds in TABLES.values() for table in kinds.values() for key in table}
    names = {name for kinds in TABLES.values() for name in kinds if name}
    kept = {name for lists in VARIABLES.values() for name in (*lists[0], *lists[1])}
    for word in keys | names | kept:
        layer = re.sub("_[2-9]$", "_1", word)  # "`lr_0`, `lr_1`, … of one layer"
        assert f"`{layer}`" in text, word
