"""The command line: the main job, what it writes, and one line for anything wrong."""

import csv
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl
from pylyap.cli.tables import uncertain

cli = pytest.importorskip("pylyap.cli")

SMALL = ["spectrum", "--hidden", "3", "--runs", "2", "--steps", "40", "-k", "3", "--lr", "0.1,1"]


def run(*args):
    return cli.main([str(a) for a in args])


@pytest.fixture
def table(capsys):
    """Runs a command that must succeed; what it printed."""

    def printed(*args):
        assert run(*args) == 0
        captured = capsys.readouterr()
        return captured.out

    return printed


def shell(*args):
    """Through the installed script, as a user would."""
    script = Path(sys.executable).with_name("pylyap")
    command = [script] if script.exists() else [sys.executable, "-m", "pylyap.cli"]
    environment = dict(os.environ)  # without COLUMNS, which readline puts beside it
    return subprocess.run(
        [*command, *args], env=environment, capture_output=True, text=True, timeout=120
    )


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


# ------------------------------------------------------------------------------- what it writes


def test_numbers_go_to_npz(table, tmp_path):
    target = tmp_path / "numbers.npz"
    table(*SMALL, "--output", target)
    with np.load(target) as numbers:  # without pickles
        assert_array_equal(numbers["lr"], [0.1, 1.0])
        assert numbers["exponents"].shape == (2, 2, 3)
        assert numbers["growth"].shape == (2, 2, 40, 3)
        assert numbers["loss"].shape == (2, 2, 41)
        assert json.loads(str(numbers["settings"]))["steps"] == 40


def test_a_summary_goes_to_csv(table, tmp_path):
    target = tmp_path / "numbers.csv"
    table(*SMALL, "--output", target)
    with target.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert [float(row["lr"]) for row in rows] == [0.1, 0.1, 1.0, 1.0]
    assert np.isfinite([float(row["exponent_1"]) for row in rows]).all()


def test_all_numbers_go_to_netcdf(table, tmp_path):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    target = tmp_path / "numbers.nc"
    table(*SMALL, "--output", target)
    with xarray.open_dataset(target, engine="h5netcdf") as dataset:
        assert dataset["exponents"].shape == (2, 2, 3)


@pytest.mark.parametrize(("suffix", "magic"), [("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_a_picture_is_drawn(suffix, magic, table, tmp_path):
    pytest.importorskip("matplotlib")
    target = tmp_path / f"picture.{suffix}"
    table(*SMALL, "--plot", target)
    assert target.read_bytes().startswith(magic)


# ---------------------------------------------------------------------------------------- errors

ENDLESS = "spectrum --steps 1000000000 --record-every 1000000000"

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


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that takes no files")
def test_a_folder_that_takes_no_files_is_said_before_the_work(capsys):
    assert run(*ENDLESS.split(), "--output", "/proc/numbers.npz") == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "/proc/numbers.npz" in error


def test_a_write_that_fails_late_costs_only_its_own_file(capsys, monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")

    def full(path, scan):
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(sys.modules["pylyap.cli.spectrum"]._WRITERS, ".npz", full)
    numbers, picture = tmp_path / "numbers.npz", tmp_path / "picture.png"
    assert run(*SMALL, "--output", numbers, "--plot", picture) == 3
    captured = capsys.readouterr()
    assert "final loss" in captured.out
    assert "No space left on device" in captured.err
    assert picture.read_bytes().startswith(b"\x89PNG")


# Of every command each option that names a file, and of `spectrum` every kind of file.
TINY = "--data quadratic --hidden 3,3 --runs 2"
WRITTEN = [
    f"spectrum {TINY} --steps 30 --output a.npz --plot b.png",
    f"spectrum {TINY} --steps 30 --output a.csv --plot b.svg",
    f"spectrum {TINY} --steps 30 --output a.json --plot b.pdf",
    f"spectrum {TINY} --steps 30 --output a.nc",
    f"clv {TINY} -k 2 --steps 40 --every 10 --output a.nc --plot b.png",
    f"clv {TINY} -k 2 --steps 40 --every 10 --output a.NPZ --plot b.PDF",
    f"jacobian {TINY} --steps 20 --output a.nc --plot b.png",
    f"ensemble {TINY} --steps 60 --output a.npz --plot b.svg",
    f"scan {TINY} --lr 0.1,0.2 --steps 40 --output a.nc --plot b.png --bifurcation c.svg",
    "map --data quadratic --hidden 3 --steps 9 --shape 4x5 --output a.nc --plot b.png",
    f"train {TINY} --epochs 3 --output a.nc --plot b.png",
    f"train {TINY} --epochs 3 --output a.npz",
    f"deviation {TINY} --lr 0.1 --epochs 3 --output a.nc --plot b.png --joint c.pdf",
    "deviation --hidden 16,16 --runs 1 --lr 0.1 --epochs 3 --letter l --output a.npz --marks b.svg",
    f"predict {TINY} --lr 0.1 --runs 12 --steps 200 --until 100 --window 50 --output a.json",
]


def files_of(command):
    return {word: Path(word) for word in command.split() if word[:2] in ("a.", "b.", "c.")}


@contextmanager
def file_limit(limit):
    """While files of this process have at most so many bytes: no room on any disk."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("command", WRITTEN)
def test_a_full_disk_keeps_the_old_files_and_is_one_line(command, tmp_path, monkeypatch, capsys):
    pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    pytest.importorskip("matplotlib.font_manager")  # writes a cache of its own
    monkeypatch.chdir(tmp_path)
    files = files_of(command)
    for file in files.values():
        file.write_text("old")
        file.chmod(0o640)
    with file_limit(100):  # bytes; each file is longer
        assert run(*command.split(), "--quiet") == 3
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == 1
    assert captured.err.startswith("pylyap: cannot write a.")
    assert {name: file.read_text() for name, file in files.items()} == dict.fromkeys(files, "old")
    assert sorted(os.listdir()) == sorted(files)  # no temporary file


@pytest.mark.parametrize("command", [*WRITTEN[:4], WRITTEN[5]])  # all kinds of files
def test_every_file_is_replaced_under_the_name_it_was_asked_for(
    command, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    files = files_of(command)
    for file in files.values():
        file.write_text("old")
        file.chmod(0o640)
    assert run(*command.split()) == 0
    assert [line for line in capsys.readouterr().err.splitlines() if "wrote" in line] == [
        f"wrote {name}" for name in files
    ]
    assert sorted(os.listdir()) == sorted(files)
    magic = {
        ".npz": b"PK", ".nc": b"\x89HDF", ".csv": b"", ".json": b"", ".png": b"\x89PNG",
        ".pdf": b"%PDF", ".svg": b"<?xml",
    }  # fmt: skip
    for file in files.values():
        assert file.read_bytes().startswith(magic[file.suffix.lower()])
        assert file.read_bytes() != b"old"
        assert stat.S_IMODE(file.stat().st_mode) == 0o640


@pytest.mark.parametrize("suffix", ["nc", "pdf"])
def test_a_process_of_its_own_survives_a_full_disk(suffix, tmp_path):
    pytest.importorskip("resource")
    pytest.importorskip("h5netcdf")
    pytest.importorskip("matplotlib")
    target = tmp_path / f"a.{suffix}"
    target.write_text("old")
    option = "--plot" if suffix == "pdf" else "--output"
    code = (
        "import resource, sys; from pylyap.cli import main; import matplotlib.font_manager\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, *SMALL, option, target, "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (3, f"pylyap: cannot write {target}: File too large\n")
    assert "final loss" in done.stdout
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_a_disk_without_room_keeps_the_old_file(tmp_path, capsys):
    pytest.importorskip("h5netcdf")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no small file system can be mounted here")
    try:
        for suffix in ("nc", "csv", "npz"):
            (disk / f"a.{suffix}").write_text("old")
        (disk / "ballast").write_bytes(bytes(50 << 10))
        for suffix in ("nc", "csv", "npz"):
            steps = 2000 if suffix != "csv" else 40
            runs = 500 if suffix == "csv" else 2
            command = f"spectrum {TINY} -k 1 --lr 0.1 --steps {steps} --runs {runs} --quiet"
            target = disk / f"a.{suffix}"
            assert run(*command.split(), "--output", target) == 3
            error = capsys.readouterr().err
            assert error == f"pylyap: cannot write {target}: No space left on device\n"
            assert target.read_text() == "old"
        assert sorted(os.listdir(disk)) == ["a.csv", "a.nc", "a.npz", "ballast"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_link_is_followed_and_stays(tmp_path, table):
    (tmp_path / "far").mkdir()
    real, link = tmp_path / "far" / "a.csv", tmp_path / "a.csv"
    real.write_text("old")
    link.symlink_to(real)
    table(*SMALL, "--output", link)
    assert link.is_symlink()
    assert real.read_text().startswith("lr,")
    assert os.listdir(tmp_path / "far") == ["a.csv"]


def test_a_new_file_has_the_permissions_of_new_files(tmp_path, table):
    before = os.umask(0o027)
    try:
        table(*SMALL, "--output", tmp_path / "a.csv")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.csv").stat().st_mode) == 0o640


@pytest.mark.parametrize("what", ["pipe", "device", "loop", "a name of 250 bytes"])
def test_what_cannot_be_replaced_is_left_alone(what, tmp_path, capsys):
    target = tmp_path / "a.csv"
    if what == "pipe":
        os.mkfifo(target)
    elif what == "device":
        target.symlink_to("/dev/null")
    elif what == "loop":
        target.symlink_to(target)
    else:
        target = tmp_path / f"{'é' * 123}.csv"
        assert run(*SMALL, "--output", target, "--quiet") == 0
        assert target.read_text().startswith("lr,")
        return
    assert run(*ENDLESS.split(), "--output", target) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "--output" in error
    assert "a.csv" in error
    assert not target.is_file()
    assert not os.path.isfile("/dev/null")


@pytest.mark.parametrize(
    ("command", "redirected"),
    [
        ("info", "{} >&-"),
        ("--help", "({}; echo $? >&2) | true"),
        (f"spectrum {TINY} --quiet --steps 30 --output a.csv", "{} >&- 2>&- <&-"),
        (f"spectrum {TINY} --quiet --steps 30 --output a.csv", "({}; echo $? >&2) | true"),
    ],
)
def test_nobody_has_to_read_the_output(command, redirected, tmp_path):
    """Closed from the start or by the reader: quiet, all files written, the usual exit code."""
    shell = redirected.format(f"'{sys.executable}' -m pylyap.cli {command}")
    done = subprocess.run(
        ["sh", "-c", shell], capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert done.returncode == 0
    assert done.stderr == ("0\n" if "echo" in shell else "")
    if "a.csv" in command:
        assert (tmp_path / "a.csv").read_text().startswith("lr,")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_an_output_without_room_is_one_line_and_costs_no_file(tmp_path):
    script = f"'{sys.executable}' -m pylyap.cli {' '.join(SMALL)} --quiet --output {tmp_path}/a.csv"
    done = subprocess.run(
        ["sh", "-c", f"{script} > /dev/full"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 3
    assert done.stderr == "pylyap: cannot write standard output: No space left on device\n"
    assert (tmp_path / "a.csv").read_text().startswith("lr,")


@pytest.mark.parametrize("command", ["spectrum --lr=-1", "nonsense", "spectrum --data irs"])
def test_the_shell_sees_the_exit_code_and_no_traceback(command):
    done = shell(*command.split())
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("suffix", "module"), [("--plot p.png", "matplotlib"), ("--output n.nc", "xarray")]
)
def test_a_missing_extra_is_said_before_the_work(suffix, module, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    assert run(*ENDLESS.split(), *suffix.split()) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert module in error
    assert "pip install" in error


def test_a_failed_command_leaves_no_file_behind(tmp_path, capsys):
    target = tmp_path / "numbers.npz"
    assert run("spectrum", "--lr=-1", "--output", target) == 2
    assert capsys.readouterr().out == ""
    assert not target.exists()


def test_help_explains_every_command(table):
    text = table("--help")
    assert "spectrum" in text
    assert "info" in text
    analyses = "spectrum clv jacobian predict ensemble scan map train deviation"
    for command in analyses.split():
        assert "--output" in table(command, "--help")


@pytest.mark.parametrize(
    "command",
    [
        "clv --hidden 3 --runs 4 -k 3 --steps 40 --tail 20 --transient 20 --delay 10",
        "jacobian --hidden 3 --runs 4 --steps 30 --lr 0.01,1",
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


# ------------------------------------------------------------------------------ covariant vectors

VECTORS = (
    "clv --data quadratic --hidden 3 --runs 3 --lr 0.1,0.5 -k 3 "
    "--steps 40 --every 10 --transient 20 --tail 30 --delay 20"
)


def test_clv_prints_a_row_for_each_vector_and_writes_what_the_library_computes(table, tmp_path):
    numbers, rows = tmp_path / "v.npz", tmp_path / "v.csv"
    text = table(*VECTORS.split(), "--output", numbers)
    head = next(line for line in text.splitlines() if "gap to next" in line)
    for column in ("lr", "vector", "growth", "contamination", "residual", "angle", "early error"):
        assert column in head
    assert sum(line.split()[0] == "2" for line in text.splitlines() if line.split()) == 2
    net = pl.Network((2, 3, 1), activation="tanh", loss="mse")
    X, y = pl.datasets.quadratic()
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=[[0.1], [0.5]]))
    w = net.init("he_normal", runs=3, seed=0)
    c = pl.covariant_lyapunov_vectors(
        system, w, 40, 3, n_transient=20, n_tail=30, every=10, delay=20
    )
    with np.load(numbers) as written:
        for name in ("vectors", "growth", "residual", "early_vectors", "early_error", "steps"):
            assert_array_equal(written[name], getattr(c, name))
        assert json.loads(str(written["settings"]))["delay"] == 20
    table(*VECTORS.split(), "--output", rows)
    with rows.open() as file:
        content = list(csv.DictReader(file))
    assert len(content) == 6
    medians = [np.median(c.exponents[i, :, v]) for i in range(2) for v in range(3)]
    assert_allclose([float(row["exponent"]) for row in content], medians)


@pytest.mark.parametrize("suffix", ["json", "nc", "png"])
def test_clv_writes_other_files(table, tmp_path, suffix):
    target = tmp_path / f"v.{suffix}"
    if suffix == "nc":
        xarray = pytest.importorskip("xarray")
        pytest.importorskip("h5netcdf")
    if suffix == "png":
        pytest.importorskip("matplotlib")
    option = "--plot" if suffix == "png" else "--output"
    table(*VECTORS.split(), option, target)
    if suffix == "json":
        assert len(json.loads(target.read_text())["vectors"]) == 6
    elif suffix == "nc":
        with xarray.open_dataset(target, engine="h5netcdf") as data:
            assert dict(data.sizes)["lr"] == 2
            assert data["early_error"].dims == ("lr", "run", "time", "vector")
    else:
        assert target.read_bytes().startswith(b"\x89PNG")


# ------------------------------------------------------------------------------ training Jacobian


def test_jacobian_prints_counts_and_writes_what_the_library_computes(table, tmp_path):
    numbers, rows = tmp_path / "j.npz", tmp_path / "j.csv"
    command = "jacobian --data quadratic --hidden 3 --runs 3 --lr 0.1,1e6 --momentum 0.5 --steps 40"
    text = table(*command.split(), "--width", "0.05", "--output", numbers)
    assert "1e+06 (3/3 diverged)" in text
    net = pl.Network((2, 3, 1), activation="tanh", loss="mse")
    X, y = pl.datasets.quadratic()
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=[[0.1], [1e6]], momentum=0.5))
    j = pl.training_jacobian(system, net.init("he_normal", runs=3, seed=0), 40, of="parameters")
    with np.load(numbers) as written:
        for name in ("log_singular_values", "left", "right", "error"):
            assert_array_equal(written[name], getattr(j, name))
        assert json.loads(str(written["settings"]))["width"] == 0.05
    table(*command.split(), "--output", rows)
    with rows.open() as file:
        first, second = csv.DictReader(file)
    assert float(first["near"]) == np.median(j.counts().near[0])
    assert_allclose(float(first["ln_largest"]), np.median(j.log_singular_values[0, :, 0]))
    assert (second["diverged"], second["above"]) == ("3", "nan")


# ------------------------------------------------------------------------------------- prediction

SKILL = (
    "predict --runs 60 --steps 400 --until 100 --window 25 --delay 25 --activation tanh,relu -k 3"
)


def test_predict_prints_and_writes_curves_for_each_activation(table, tmp_path):
    rows, content, picture = (tmp_path / f"skill.{suffix}" for suffix in ("csv", "json", "png"))
    text = table(*SKILL.split(), "--output", rows)
    assert text.count("Area under the ROC curve") == 2
    assert " ".join(text.split()).count("steps per run with low final loss") == 4
    with rows.open() as file:
        written = list(csv.DictReader(file))
    indicators = {row["indicator"] for row in written}
    assert indicators == {
        *(f"FTLE {i}" for i in (1, 2, 3)),
        "sum of FTLEs",
        "smallest angle",
        "loss",
    }
    steps = {row["known_at_step"] for row in written if row["indicator"] == "smallest angle"}
    assert steps == {"50", "75", "100", "125"}  # the delay counts

    net = pl.Network((2, 3, 1), activation="tanh", loss="mse")
    system = pl.TrainingMap(net, *pl.datasets.quadratic(), pl.GradientDescent(lr=0.1))
    w = net.init("he_normal", runs=60, seed=0)
    final = system.loss(system.trajectory(w, 400, every=400)[:, -1])
    early = system.loss(system.trajectory(w, 100, every=100)[:, -1])
    skill = pl.prediction_skill(early, final)
    last = [r for r in written if r["indicator"] == "loss" and r["activation"] == "tanh"][-1]
    assert_allclose([float(last[name]) for name in ("auc", "low", "high")],
                    [skill.auc, skill.low, skill.high], rtol=1e-9)  # fmt: skip

    table(*SKILL.split(), "--output", content)
    cases = json.loads(content.read_text())
    assert [case["settings"]["activation"] for case in cases] == ["tanh", "relu"]
    assert cases[0]["n_low"] + cases[0]["n_high"] == 60
    assert set(cases[0]["policies"]) == {"the loss", "exponents and angles"}
    pytest.importorskip("matplotlib")
    table(*SKILL.split(), "--plot", picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


# ------------------------------------------------------------------------------------- ensembles

COPIES = "ensemble --hidden 3 --runs 4 --lr 0.1,5 --eps 1e-9,1e-6 --perturbations 3 --steps 60"


def test_ensemble_prints_and_writes_growth_for_each_rate_and_size(table, tmp_path):
    numbers, rows = tmp_path / "copies.npz", tmp_path / "copies.csv"
    text = table(*COPIES.split(), "--output", numbers)
    assert "to saturation" in text
    net = pl.Network((4, 3, 3), activation="sigmoid", loss="cross_entropy")
    X, y = pl.datasets.iris()
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=[[0.1], [5.0]]))
    w = net.init("normal", runs=4, seed=0)
    e = pl.perturbation_ensemble(system, w, [1e-9, 1e-6], 3, 60, perturb="weights", keep="mean")
    with np.load(numbers) as written:
        assert_array_equal(written["distances"], e.distances)
        assert_array_equal(written["slope"], pl.growth_rate(e.mean, axis=None).slope)
        s = pl.lyapunov_spectrum(system, w, 60, 1)
        assert_array_equal(written["exponent"], s.exponents[..., 0])
    table(*COPIES.split(), "--output", rows)
    with rows.open() as file:
        content = list(csv.DictReader(file))
    assert [(float(r["lr"]), float(r["eps"])) for r in content] == [
        (0.1, 1e-9), (0.1, 1e-6), (5, 1e-9), (5, 1e-6),
    ]  # fmt: skip
    pytest.importorskip("matplotlib")
    picture = tmp_path / "copies.png"
    table(*COPIES.split(), "--plot", picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


# ------------------------------------------------------------------------------------------ scans

SCAN = "scan --hidden 3 --runs 3 --lr 0.1:10:3 --steps 60 --late 20 --perturbations 2"


def test_scan_prints_and_writes_what_the_library_finds(table, tmp_path):
    numbers, rows, file = (tmp_path / f"scan.{suffix}" for suffix in ("npz", "csv", "json"))
    text = table(*SCAN.split(), "--output", numbers)
    assert "regime" in text
    net = pl.Network((4, 3, 3), activation="sigmoid", loss="cross_entropy")
    X, y = pl.datasets.iris()
    w = net.init("normal", runs=3, seed=0)
    found = pl.learning_rate_scan(
        net, X, y, np.geomspace(0.1, 10, 3), 60, w0=w, n_late=20, n_perturbations=2
    )
    with np.load(numbers) as written:
        for name in ("lr", "loss", "exponent", "growth", "regime", "late_loss"):
            assert_array_equal(written[name], getattr(found, name))
    table(*SCAN.split(), "--output", rows)
    with rows.open() as stream:
        content = list(csv.DictReader(stream))
    assert_allclose([float(row["loss"]) for row in content], np.median(found.loss, axis=1))
    table(*SCAN.split(), "--output", file)
    assert len(json.loads(file.read_text())["rows"]) == 3


def test_scan_draws_and_writes_a_dataset(table, tmp_path):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    pytest.importorskip("matplotlib")
    picture, diagram, data = (tmp_path / n for n in ("scan.png", "diagram.png", "scan.nc"))
    options = ("--plot", picture, "--bifurcation", diagram, "--output", data, "--observe", "2")
    table(*SCAN.split(), *options)
    for path in (picture, diagram):
        assert path.read_bytes().startswith(b"\x89PNG")
    with xarray.open_dataset(data, engine="h5netcdf") as written:
        assert dict(written.sizes) == {"lr": 3, "run": 3, "time": 21}
        assert set(written["regime"].values.ravel()) <= set(pl.REGIMES)


# ------------------------------------------------------------------------------------------- maps

MAP = "map --hidden 3 --x lr_0:0.1:1000:log --y momentum:0,0.5,0.9 --shape 9x12 --steps 40"


def test_map_prints_and_writes_what_the_library_finds(table, tmp_path):
    numbers, file = tmp_path / "m.npz", tmp_path / "m.json"
    text = table(*MAP.split(), "--exponent", "--lr", "0.5", "--output", numbers)
    net = pl.Network((4, 3, 3), activation="sigmoid", loss="cross_entropy")
    system = pl.TrainingMap(net, *pl.datasets.iris(), pl.GradientDescent(lr=0.5))
    found = pl.stability_map(
        system, ("lr_0", (0.1, 1000.0, "log")), ("momentum", [0.0, 0.5, 0.9]), (9, 12), 40,
        w0=net.init("normal", seed=0, runs=1)[0], exponent=True,
    )  # fmt: skip
    assert f"{100 * found.converged.mean():.3g}%" in text
    assert "3 × 12 runs: momentum 0 ... 0.9 by lr_0 0.1 ... 1e+03." in text
    with np.load(numbers) as written:
        for name in ("converged", "score", "exponent", "steps_used", "x", "y"):
            assert_array_equal(written[name], getattr(found, name))
    table(*MAP.split(), "--output", file)
    rows = json.loads(file.read_text())["rows"]
    assert [row["quantity"] for row in rows][-1] == "uncertainty exponent"


def test_map_writes_a_file_that_load_reads(table, tmp_path):
    pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    table(*MAP.split(), "--output", tmp_path / "m.nc")
    assert pl.load(tmp_path / "m.nc").dims == ("momentum", "lr_0")


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
    script = Path(sys.executable).with_name("pylyap")
    command = [script] if script.exists() else [sys.executable, "-m", "pylyap.cli"]
    endless = TRAIN.replace("--epochs 6", "--epochs 1000000 --record-every 1000").split()
    process = subprocess.Popen(
        [*command, *endless, "--checkpoint", file, "--checkpoint-every", "100"],
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
