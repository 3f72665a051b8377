"""The command line: the main job, help, and one line for anything wrong."""

import json
import re
from importlib import metadata

import numpy as np
import pytest
from command_line import ENDLESS, SMALL, run, shell
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl
from pylyap.cli.tables import uncertain

# -------------------------------------------------------------------------------- the main job


def test_version():
    done = shell("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert metadata.version("pylyap") in done.stdout
    assert len(done.stdout.splitlines()) == 1


def test_info_describes_the_build():
    done = shell("info")
    assert (done.returncode, done.stderr) == (0, "")
    for word in (pl.__version__, "instruction set", "threads", "numpy", "scipy"):
        assert word in done.stdout


def test_spectrum_prints_a_row_per_learning_rate():
    done = shell(*SMALL)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no progress bar without a terminal
    head = next(line for line in done.stdout.splitlines() if "final loss" in line)
    for column in ("lr", "accuracy", "λ1", "λ2", "λ3", "sum of 3", "D_KY", "regime"):
        assert column in head
    rows = [line.split()[0] for line in done.stdout.splitlines() if line.split()]
    assert "0.1" in rows
    assert "1" in rows
    caption = "the random initial frame may shift"
    assert caption in " ".join(done.stdout.split())
    done = shell(*SMALL, "--transient", "5")
    assert caption not in " ".join(done.stdout.split())


def test_printed_numbers_are_those_of_the_library(table, tmp_path):
    target = tmp_path / "numbers.json"
    table(*SMALL, "--output", target)
    net = pl.Network((4, 3, 3), activation="sigmoid", loss="cross_entropy")
    w = net.init("normal", runs=2, seed=0)
    X, y = pl.datasets.iris()
    runs = json.loads(target.read_text())["runs"]
    assert [(row["lr"], row["run"]) for row in runs] == [(0.1, 0), (0.1, 1), (1, 0), (1, 1)]
    for row in runs:
        system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=row["lr"]))
        s = pl.lyapunov_spectrum(system, w[row["run"]], 40, k=3)
        assert_array_equal(row["exponents"], s.exponents)
        assert_array_equal(row["stderr"], s.stderr)
        assert row["final_loss"] == s.loss[-1]
        assert_allclose(row["accuracy"], net.accuracy(s.state, X, y))


def test_the_mean_exponent_stands_in_the_table(table, tmp_path):
    target = tmp_path / "numbers.json"
    text = table(*SMALL[:-1], "1", "--output", target)
    runs = json.loads(target.read_text())["runs"]
    row = next(line for line in text.splitlines() if line.split()[:1] == ["1"])
    first = [run["exponents"][0] for run in runs]
    error = max(np.std(first, ddof=1), np.median([run["stderr"][0] for run in runs]))
    assert f" {uncertain(np.mean(first), error)} " in row
    assert f"{np.median([r['final_loss'] for r in runs]):.3g}" in row


@pytest.mark.parametrize(
    "options",
    [
        "--data quadratic",
        "--data quadratic --hidden 4,3 --activation relu",
        "--optimizer adam --batch-size 30",
        "--momentum 0.9 --nesterov --weight-decay 0.01",
        "--loss mse",
        "--loss cross_entropy_clipped --init glorot_uniform --scale 2 --seed 5",
        "--transient 10 --qr-every 2 --record-every 10 --threads 2 --quiet",
        "--runs 1 -k 1",
    ],
)
def test_options_of_a_spectrum(options, table):
    assert "final loss" in table(*SMALL[:-2], *options.split())


def test_a_rate_that_is_too_large_shows_in_the_table(table):
    text = table("spectrum", "--data", "quadratic", "--lr", "1e30", "--steps", 50, "--runs", 2)
    assert "2/2" in text
    assert "diverged 2/2" in text


def test_help_explains_every_command(table):
    text = table("--help")
    assert "spectrum" in text
    assert "info" in text
    analyses = "spectrum clv jacobian sharpness predict ensemble scan map train deviation"
    for command in analyses.split():
        assert "--output" in table(command, "--help")


@pytest.mark.parametrize(
    "command",
    [
        "clv --hidden 3 --runs 4 -k 3 --steps 40 --tail 20 --transient 20 --delay 10",
        "jacobian --hidden 3 --runs 4 --steps 30 --lr 0.01,1",
        "sharpness --hidden 3 --runs 4 --steps 200 --lr 0.01,1",
        "ensemble --hidden 3 --runs 4 --steps 60 --lr 1",
        "scan --hidden 3 --runs 4 --lr 0.1:10:3 --steps 60 --late 20",
        "train --hidden 3 --runs 4 --epochs 6 --lr 0.1,1 --test 30",
        "predict --runs 60 --steps 200 --until 100 --window 25 --delay 25 --activation tanh -k 3",
    ],
)
def test_tables_fit_a_terminal_of_80_columns_with_all_digits(command, table, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal
    text = re.sub(r"\x1b\[[0-9;]*m", "", table(*command.split()))
    assert 70 < max(map(len, text.splitlines())) <= 80
    assert "…" not in text


# ---------------------------------------------------------------------------------------- errors

BAD = {
    # command, and a word of the one line
    "spectum": "spectum",
    "spectrum --stpes 5": "--stpes",
    "spectrum --lr": "--lr",
    "spectrum --lr=-1": "-1",
    "spectrum --lr nan": "nan",
    "spectrum --lr fast": "fast",
    "spectrum --lr 1,,2": "1,,2",
    "spectrum --steps 0": "0",
    "spectrum --steps 1.5": "1.5",
    "spectrum --steps=-3": "-3",
    "spectrum --runs 0": "0",
    "spectrum -k 0": "0",
    "spectrum -k 1000": "--vectors must be in 1 ... 83, got 1000",
    "clv --every 3": "--every must divide n_steps=1000, got 3",
    "clv --delay 500": "--delay must be in 1 ... 200, got 500",
    "clv --delay soon": "soon",
    "clv --memory 1 --steps 100000 -k 83 --every 1000": "--memory must be at least",
    "clv -k 84": "--vectors must be in 1 ... 83, got 84",
    "jacobian -k 84": "--vectors must be in 1 ... 83, got 84",
    "jacobian -k 50 --which both": "--vectors must be at most n/2 = 41",
    "jacobian --width=-1": "--width must be finite and >= 0",
    "jacobian --of weights": "weights",
    "jacobian --overlap -k 3": "--overlap takes all vectors",
    "jacobian --overlap --runs 1": "--overlap needs two or more --runs, got 1",
    "sharpness --every 7": "--every must divide n_steps, got every=7 and n_steps=1000",
    "sharpness --every 0": "0",
    "sharpness --kind hesian": "hesian",
    "sharpness --batches 3": "--batches applies to --kind batch only",
    "sharpness --kind batch --batches 0": "0",
    "sharpness --tol 0": "--tol must be finite and > 0",
    "sharpness --max-products 0": "0",
    "sharpness --hidden 9,9 --data quadratic --every 1 --steps 1000000000": "B",
    "ensemble --eps=-1": "--eps must be at least 0",
    "ensemble --eps small": "small",
    "ensemble --perturbations 0": "0",
    "ensemble --steps 20": "--steps must be at least 30",
    "ensemble --perturb some": "some",
    "ensemble --steps 1000000000": "distances of 15 perturbed trajectories",
    "scan --steps 39": "--steps must be at least 40",
    "scan --lr 0,1": "--lr must be above 0",
    "scan --late 10": "--late must be in 20",
    "scan --observe 83": "--observe must be in 0",
    "scan --eps 0": "--eps must be finite and > 0",
    "scan --lr 1:2": "low:high:count",
    "scan --lr 1:2:1000000000000": "must have at most 100000 numbers, got 1000000000000",
    "map --x lr:1": "--x must have increasing values of lr, two or more",
    "map --x lr:1:2": "name:low:high:log",
    "map --x lr:2:1:log": "--x must have a range of lr from a lower to a higher value",
    "map --y momentun:0:1:linear": "--y must have a setting that is one of lr, momentum",
    "map --shape 3": "must be rows x columns",
    "map --shape 1x9": "--shape must be at least 2, got 1",
    "map --shape 300000x300000": "--shape must fit in memory",
    "map --runs 2": "--runs must be 1",
    "map --lr 1,2": "--lr must be one number",
    "map --escape 1": "--escape must be above 1",
    "train --epochs 0": "0",
    "train --epochs 10 --record-every 3": "--record-every must divide epochs=10, got 3",
    "train --test 150": "--test must be below the 150 samples, got 150",
    "train --test=-1": "-1",
    "train --batch-size 121 --test 30": "--batch-size must be at most the 120 samples",
    "train --data mnist": "--data mnist needs --folder",
    "train --data mnist --folder no/such/folder": "no/such/folder",
    "train --data mnist --folder {folder}": "--folder must hold train-images",
    "train --data hasy --folder {folder}": "there is no",
    "train --folder {folder}": "--folder applies to --data mnist or hasy",
    "train --checkpoint no/such/folder/run.npz": "--checkpoint must lie in a folder",
    "train --checkpoint {folder}": "directory",
    "train --checkpoint {file}": "--checkpoint must be a valid pylyap checkpoint",
    "train --checkpoint-every 3": "--checkpoint-every needs a checkpoint",
    "train --checkpoint {file} --checkpoint-every 0": "0",
    "deviation --lr 0.1,1": "--lr must be a single value here",
    "deviation --letter a --hidden 10": "--letter needs two hidden layers, got --hidden 10",
    "deviation --letter a --hidden 5,5": "--letter and --hidden do not match: shape must be",
    "deviation --marks m.png": "--marks needs a --letter",
    "deviation --snapshots 1": "1",
    "deviation --bins 0": "0",
    "predict --lr 0.1,1": "--lr must be a single value here",
    "predict --window 7": "--window must divide --until and --steps",
    "predict --until 6000": "--until must be at most --steps 5000",
    "predict --angles 1": "--angles must be 0 or at least 2",
    "predict --activation relu,tahn": "'tanh'",
    "predict --runs 1": "final_loss must have",
    "spectrum --hidden 0": "0",
    "spectrum --hidden 3,x": "3,x",
    "spectrum --data irs": "irs",
    "spectrum --activation tahn": "'tanh'",
    "spectrum --loss mes": "'mse'",
    "spectrum --init he_norml": "'he_normal'",
    "spectrum --scale nan": "nan",
    "spectrum --optimizer sgd": "sgd",
    "spectrum --momentum=-0.5": "-0.5",
    "spectrum --optimizer adam --momentum 0.9": "momentum",
    "spectrum --weight-decay inf": "inf",
    "spectrum --batch-size 0": "0",
    "spectrum --seed=-1": "-1",
    "spectrum --threads 0": "0",
    "spectrum --transient=-1": "-1",
    "spectrum --steps 10 --qr-every 3": "--qr-every",
    "spectrum --steps 10 --record-every 4": "--record-every",
    "spectrum --steps 100000000000000": "B",
    f"{ENDLESS} --output numbers.txt": ".npz",
    f"{ENDLESS} --output no/such/folder/numbers.npz": "no/such/folder",
    f"{ENDLESS} --output {{folder}}": "directory",
    f"{ENDLESS} --output {{file}}/numbers.npz": "numbers.npz",
    f"{ENDLESS} --plot picture.docx": ".png",
    f"{ENDLESS} --plot no/such/folder/picture.png": "no/such/folder",
}


@pytest.mark.parametrize("command", BAD)
def test_anything_wrong_is_one_line_and_exit_code_2(command, capsys, tmp_path):
    (tmp_path / "d.npz").mkdir()
    (tmp_path / "f").touch()
    arguments = command.format(folder=tmp_path / "d.npz", file=tmp_path / "f").split()
    assert run(*arguments) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("pylyap: ")
    assert len(error.splitlines()) == 1
    assert BAD[command] in error


def test_a_study_file_does_not_command_the_terminal(capsys, tmp_path):
    pytest.importorskip("xarray")
    (tmp_path / "s.toml").write_text('runs = 1\n"\\u001b[31mred" = 1\n')
    assert run("run", tmp_path / "s.toml") == 2
    error = capsys.readouterr().err
    assert "line 2: \N{REPLACEMENT CHARACTER}[31mred is unknown" in error
    assert "\x1b" not in error


@pytest.mark.parametrize("command", ["spectrum --lr=-1", "nonsense", "spectrum --data irs"])
def test_the_shell_sees_the_exit_code_and_no_traceback(command):
    done = shell(*command.split())
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr
