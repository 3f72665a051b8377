"""Files that the commands write: formats, full disks, links, permissions, closed pipes."""

import csv
import json
import os
import shutil
import stat
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from command_line import ENDLESS, SMALL, TINY, run
from numpy.testing import assert_array_equal

# ------------------------------------------------------------------------------------------ formats


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


# ---------------------------------------------------------------------------------- replacing files


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
WRITTEN = [
    f"spectrum {TINY} --steps 30 --output a.npz --plot b.png",
    f"spectrum {TINY} --steps 30 --output a.csv --plot b.svg",
    f"spectrum {TINY} --steps 30 --output a.json --plot b.pdf",
    f"spectrum {TINY} --steps 30 --output a.nc",
    f"clv {TINY} -k 2 --steps 40 --every 10 --output a.nc --plot b.png",
    f"clv {TINY} -k 2 --steps 40 --every 10 --output a.NPZ --plot b.PDF",
    f"jacobian {TINY} --steps 20 --output a.nc --plot b.png",
    f"sharpness {TINY} --steps 20 --output a.nc --plot b.png --ratio c.svg",
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
