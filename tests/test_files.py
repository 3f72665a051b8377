"""Atomic writes: a file has its old content or all of the new one."""

import errno
import io
import signal
import subprocess
import sys

import numpy as np
import pytest

import pylyap as pl
from pylyap import _checks, _files


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("error", [OSError(errno.EDQUOT, "x"), KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("writer", [_files.user_file, _files.atomic_write])
def test_a_failed_write_keeps_the_old_file(writer, error, tmp_path):
    file = tmp_path / "a"
    file.write_text("old")

    def fail():
        with writer(file) as stream:
            stream.write(b"new")
            raise error

    with pytest.raises((OSError, KeyboardInterrupt, ValueError)):
        fail()
    assert contents(tmp_path) == {"a": "old"}
    with writer(file) as stream:
        stream.write(b"new")
        assert file.read_text() == "old"
    assert contents(tmp_path) == {"a": "new"}


def test_a_kill_leaves_the_old_file_and_a_temporary_one(tmp_path):
    file = tmp_path / "a"
    file.write_text("old")
    code = (
        "import os, signal, sys; from pathlib import Path; from pylyap._files import user_file\n"
        "with user_file(Path(sys.argv[1])) as stream:\n"
        "    stream.write(b'new'); stream.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, file]).returncode == -signal.SIGKILL
    assert file.read_text() == "old"
    (left,) = _files.stale_temporary_files(file)
    assert {path.name for path in tmp_path.iterdir()} == {"a", left.name}
    assert left.name.startswith(".a.")


def test_only_user_files_follow_links(tmp_path):
    """A link among files of the package may be malicious."""
    (tmp_path / "far").write_text("old")
    for writer, follows in ((_files.user_file, True), (_files.atomic_write, False)):
        link = tmp_path / "link"
        link.symlink_to(tmp_path / "far")
        (tmp_path / "far").write_text("old")
        with writer(link) as stream:
            stream.write(b"new")
        assert link.is_symlink() == follows
        assert (tmp_path / "far").read_text() == ("new" if follows else "old")
        link.unlink()


@pytest.mark.parametrize(
    ("number", "full"),
    [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EFBIG, True), (errno.EACCES, False)],
)
def test_errors_of_a_full_disk(number, full):
    assert _files.is_full(OSError(number, "x")) == full
    assert not _files.is_full(ValueError("x"))


def test_npz_roundtrip_and_objects(tmp_path):
    arrays = {"a": np.arange(6.0).reshape(2, 3), "text": "λ", "names": ("x", "yy"), "n": 3}
    with _files.user_file(tmp_path / "a.NPZ") as file:
        _files.write_npz(file, arrays)
    with np.load(tmp_path / "a.NPZ") as found:
        assert set(found) == set(arrays)
        for name, values in arrays.items():
            np.testing.assert_array_equal(found[name], values)
    with pytest.raises(ValueError, match="allow_pickle"):
        _files.write_npz(io.BytesIO(), {"a": np.array([{}], object)})


def every_kind(xarray):
    return xarray.Dataset(
        {
            "a": (("x", "y"), np.arange(6.0).reshape(2, 3), {"units": "nats per step"}),
            "words": ("x", np.array(["λ", "two"], object)),
            "fixed": ("y", np.array(["a", "bb", "ccc"])),
            "true": ("x", np.array([True, False])),
            "small": ("y", np.array([-1, 0, 3], np.int8)),
            "alone": ((), 2.5),
            "none": (("z", "x"), np.empty((0, 2))),
        },
        coords={"x": [0.1, 1.0]},
        attrs={"settings": '{"a": 1}', "n": 3, "title": "é"},
    )


def test_netcdf_from_memory_is_what_xarray_writes(tmp_path):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    data = every_kind(xarray)
    with _files.user_file(tmp_path / "a.nc") as file:
        _files.write_netcdf(file, data)
    data.to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
    assert (tmp_path / "a.nc").stat().st_size <= _files.netcdf_size(data)
    with (
        xarray.open_dataset(tmp_path / "a.nc", engine="h5netcdf") as ours,
        xarray.open_dataset(tmp_path / "b.nc", engine="h5netcdf") as theirs,
    ):
        xarray.testing.assert_identical(ours.load(), theirs.load())


def test_netcdf_too_large_for_the_memory_is_an_error(monkeypatch):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    monkeypatch.setattr(_checks, "available_memory", lambda: 1e8)
    wide = np.broadcast_to(np.float64(1.0), (10**9,))  # 8 GB, not allocated
    with pytest.raises(ValueError, match=r"the netCDF file would take 7\.45 GiB"):
        _files.write_netcdf(io.BytesIO(), xarray.Dataset({"a": ("x", wide)}))


def test_errors_of_writers_name_the_argument(tmp_path):
    pytest.importorskip("xarray")
    pytest.importorskip("jinja2")
    for write in (pl.export_study, pl.report_study):
        with pytest.raises(TypeError, match="file must be a path, a str or a Path, got 3"):
            write(tmp_path, 3)
        with pytest.raises(IsADirectoryError, match=str(tmp_path)):
            write(tmp_path, tmp_path)


def test_figures_of_a_paper_keep_the_old_file_on_a_full_disk(tmp_path):
    resource = pytest.importorskip("resource")
    figure = pytest.importorskip("matplotlib.figure").Figure()
    from pylyap.cli.options import DiskFullError
    from pylyap.papers.command import make_figures

    class Study:
        figures = ("one",)

        def figure(self, name):
            return figure

    (tmp_path / "one.png").write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(DiskFullError, match=r"cannot write .*one\.png: File too large"):
            make_figures(Study(), (), tmp_path, True, "", "")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert contents(tmp_path) == {"one.png": "old"}
