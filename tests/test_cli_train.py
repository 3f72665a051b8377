"""Commands `train` and `deviation`: files, images, checkpoints, interrupts."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from command_line import run, script
from numpy.testing import assert_array_equal

import pylyap as pl

# ------------------------------------------------------------------------------ training by epochs

TRAIN = "train --hidden 4 --lr 0.1,1 --runs 3 --epochs 6 --batch-size 25 --test 30"


def iris_history(epochs=6, **options):
    net = pl.Network((4, 4, 3), activation="sigmoid", loss="cross_entropy")
    X, y, *test = pl.datasets.split(*pl.datasets.iris(), 120, seed=0)
    optimizer = pl.GradientDescent(lr=[[0.1], [1.0]], batch_size=25)
    w = net.init("normal", runs=3, seed=0)
    return pl.train(pl.TrainingMap(net, X, y, optimizer), w, epochs, test=test, **options)


def test_train_prints_and_writes_what_the_library_finds(table, tmp_path):
    numbers, rows, file = (tmp_path / f"h.{suffix}" for suffix in ("npz", "csv", "json"))
    text = table(*TRAIN.split(), "--output", numbers)
    for column in (
        "lr",
        "train loss",
        "test loss",
        "min. train",
        "at epoch",
        "test accuracy",
        "deviation",
    ):
        assert column in text
    assert "120 samples and 30 held out, 5 steps per epoch" in " ".join(text.split())
    h = iris_history()
    found = pl.trainability(h)
    with np.load(numbers) as written:
        for name in ("train_loss", "test_loss", "test_accuracy", "deviation", "state", "w_initial"):
            assert_array_equal(written[name], getattr(h, name))
        for name in ("min_test_epoch", "divergence_epoch", "phase"):
            assert_array_equal(written[name], getattr(found, name))
        assert json.loads(str(written["settings"]))["epochs"] == 6
    row = next(line for line in text.splitlines() if line.split()[:1] == ["0.1"])
    assert f"{np.median(h.train_loss[0, :, -1]):.3g}" in row
    assert f"{np.median(h.deviation[0, :, 0, -1]):.3g}" in row
    table(*TRAIN.split(), "--output", rows)
    with rows.open() as stream:
        content = list(csv.DictReader(stream))
    assert_array_equal([float(r["min_test_loss"]) for r in content], found.min_test_loss.ravel())
    assert [r["label"] for r in content] == found.label.ravel().tolist()
    table(*TRAIN.split(), "--output", file)
    assert len(json.loads(file.read_text())["runs"]) == 6


def test_train_draws_and_writes_a_dataset(table, tmp_path):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    pytest.importorskip("matplotlib")
    picture, data = tmp_path / "h.png", tmp_path / "h.nc"
    table(*TRAIN.split(), "--plot", picture, "--output", data)
    assert picture.read_bytes().startswith(b"\x89PNG")
    with xarray.open_dataset(data, engine="h5netcdf") as written:
        assert written["train_loss"].dims == ("lr", "run", "epoch")
        assert_array_equal(written["lr"], [0.1, 1.0])
        assert_array_equal(written["test_loss"], iris_history().test_loss)
        assert set(written["label"].values.ravel()) <= set(pl.PHASES)


@pytest.mark.parametrize(
    "options",
    [
        "--data quadratic",
        "--data quadratic --test 20 --lr 1e5",
        "--loss mse --test 10",
        "--optimizer adam --record-every 2",
        "--momentum 0.9 --loss cross_entropy_clipped --quiet",
    ],
)
def test_options_of_train(options, table):
    text = table("train", "--hidden", 3, "--runs", 2, "--epochs", 4, *options.split())
    assert "train loss" in text


def images(shape, classes):
    """As many images as there are classes, three times."""
    labels = np.tile(np.arange(classes), 3)
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (len(labels), *shape), dtype=np.uint8), labels


def test_train_reads_mnist(table, tmp_path):
    pixels, labels = images((28, 28), 10)
    for name, array in (("train-images-idx3", pixels), ("train-labels-idx1", labels)):
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        (tmp_path / f"{name}-ubyte").write_bytes(header + array.astype(np.uint8).tobytes())
    out = tmp_path / "h.npz"
    options = ("--hidden", 3, "--runs", 1, "--epochs", 2, "--test", 5, "--output", out)
    table("train", "--data", "mnist", "--folder", tmp_path, *options)
    X, y, *test = pl.datasets.split(pixels.reshape(30, 784) / 255, labels, 25, seed=0)
    net = pl.Network((784, 3, 10), activation="relu", loss="cross_entropy")
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=0.1))
    h = pl.train(system, net.init("glorot_uniform", runs=1, seed=0), 2, test=test)
    with np.load(out) as written:
        assert_array_equal(written["train_loss"][0], h.train_loss)
        assert_array_equal(written["test_loss"][0], h.test_loss)


def test_train_reads_hasy(table, tmp_path):
    Image = pytest.importorskip("PIL.Image")
    pixels, labels = images((32, 32), 2)
    rows = ["path,symbol_id,latex,user_id"]
    for i, (picture, label) in enumerate(zip(pixels, labels, strict=True)):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{label},{'AB'[label]},0")
    (tmp_path / "hasy-data-labels.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "symbols.csv").write_text("symbol_id,latex\n0,A\n1,B\n")
    text = table(
        *("train", "--data", "hasy", "--folder", tmp_path),
        *("--hidden", 3, "--runs", 1, "--epochs", 2),
    )
    assert "1024-3-2 relu" in text


def test_train_learns_digits(table):
    pytest.importorskip("sklearn")
    options = "--data digits --hidden 8 --runs 2 --epochs 5 --batch-size 32 --test 300"
    assert "64-8-10 relu" in table("train", *options.split())


def test_train_goes_on_from_a_checkpoint(table, tmp_path, capsys):
    file, out = tmp_path / "run.npz", tmp_path / "h.npz"
    table(*TRAIN.replace("--epochs 6", "--epochs 4").split(), "--checkpoint", file)
    table(*TRAIN.split(), "--checkpoint", file, "--output", out)
    with np.load(out) as written:
        assert_array_equal(written["train_loss"], iris_history().train_loss)
    assert run(*TRAIN.replace("0.1,1", "0.1,2").split(), "--checkpoint", file) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "lr [[0.1], [1.0]] (here [[0.1], [2.0]])" in error
    assert run(*TRAIN.replace("--epochs 6", "--epochs 5").split(), "--checkpoint", file) == 2
    assert "--epochs must be at least the 6 that checkpoint" in capsys.readouterr().err


def test_train_says_that_a_disk_is_full_and_goes_on(tmp_path, capsys, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys.modules["pylyap._weights.checkpoints"], "save", full)
    assert run(*TRAIN.split(), "--checkpoint", tmp_path / "run.npz", "--checkpoint-every", 1) == 0
    captured = capsys.readouterr()
    assert "train loss" in captured.out
    assert captured.err.startswith("pylyap: cannot write checkpoint")
    assert len(captured.err.splitlines()) == 1


@pytest.mark.skipif(os.name != "posix", reason="interrupts as POSIX does")
def test_train_interrupted_can_be_resumed(tmp_path, table):
    file = tmp_path / "run.npz"
    endless = TRAIN.replace("--epochs 6", "--epochs 1000000 --record-every 1000").split()
    process = subprocess.Popen(
        [*script(), *endless, "--checkpoint", file, "--checkpoint-every", "100"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
    )
    try:
        end = time.monotonic() + 60
        while not file.exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, error
    assert (out, error) == (b"", b"pylyap: interrupted\n")
    with np.load(file) as content:
        done = int(content["epoch"])
    epochs = 1000 * (done // 1000 + 1)
    again = TRAIN.replace("--epochs 6", f"--epochs {epochs} --record-every 1000").split()
    table(*again, "--checkpoint", file, "--output", tmp_path / "h.npz")
    with np.load(tmp_path / "h.npz") as written:
        assert_array_equal(written["state"], iris_history(epochs, record_every=1000).state)


# ---------------------------------------------------------------------------------------- deviation

DEVIATION = "deviation --hidden 16,16 --runs 3 --epochs 9 --batch-size 30 --lr 0.3 --snapshots 4"


def test_deviation_prints_and_writes_what_the_library_finds(table, tmp_path):
    pytest.importorskip("PIL")
    numbers, rows = tmp_path / "d.npz", tmp_path / "d.csv"
    text = table(*DEVIATION.split(), "--letter", "l", "--output", numbers, "--bins", 7)
    for word in ("kurtosis", "layer 2", "legibility", "all weights"):
        assert word in text
    net = pl.Network((4, 16, 16, 3), activation="sigmoid", loss="cross_entropy")
    mask = pl.letter_mask((16, 16), "l")
    w = pl.apply_letter_mask(net, net.init("normal", runs=3, seed=0), mask)
    X, y = pl.datasets.iris()
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=0.3, batch_size=30))
    h = pl.train(system, w, 9, snapshots=[0, 3, 6, 9])
    d = pl.weight_deviation(w, h.w_final, net, bins=7)
    scores = pl.legibility(h.snapshots["weights"], mask, net)
    with np.load(numbers) as written:
        for name in ("rms", "kurtosis", "bin_quantiles", "edges"):
            assert_array_equal(written[name], getattr(d, name))
        assert_array_equal(written["legibility"], scores)
        assert_array_equal(written["deviation"], h.deviation)
        assert_array_equal(written["mask"], mask)
    row = next(line for line in text.splitlines() if line.split()[:2] == ["layer", "1"])
    assert f"{np.median(d.rms[:, 2]):.3g}" in row
    row = next(line for line in text.splitlines() if line.split()[:1] == ["6"])
    assert f"{np.median(scores[:, 2]):.3g}" in row
    table(*DEVIATION.split(), "--output", rows)
    with rows.open() as stream:
        assert len(list(csv.DictReader(stream))) == 3 * 4


def test_deviation_draws_and_writes_other_files(table, tmp_path):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    pytest.importorskip("matplotlib")
    pytest.importorskip("PIL")
    pictures = {name: tmp_path / f"{name}.png" for name in ("plot", "joint", "marks")}
    options = [part for name, path in pictures.items() for part in (f"--{name}", path)]
    data = tmp_path / "d.nc"
    table(*DEVIATION.split(), "--letter", "l", *options, "--output", data, "--test", 30)
    for path in pictures.values():
        assert path.read_bytes().startswith(b"\x89PNG")
    with xarray.open_dataset(data, engine="h5netcdf") as written:
        assert written["legibility"].dims == ("run", "snapshot")
        assert written["rms"].dims == ("run", "scope")
        assert written["deviation"].dims == ("run", "scope", "epoch")
    table(*DEVIATION.split(), "--output", tmp_path / "d.json")
    assert len(json.loads((tmp_path / "d.json").read_text())["rows"]) == 12
