"""Files of a study's folder: links and special files are rejected, temporary files removed."""

import os
import shutil
import socket
import threading

import pytest
from test_store import assert_whole, chunk
from toys import begun, toy

import pylyap as pl

pytest.importorskip("zarr")
pytest.importorskip("xarray")

from pylyap.studies.results import progress

pytestmark = pytest.mark.usefixtures("no_fsync")


def read_all(path):
    """Read everything in a store."""
    return progress(path), pl.open_study(path).load()


def within(seconds, call):
    """Result of a call that must return in time."""
    done = []
    thread = threading.Thread(target=lambda: done.append(call()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "the call does not return"
    return done


def refusal(call):
    with pytest.raises(ValueError, match="must be") as refused:
        call()
    return str(refused.value)


@pytest.mark.parametrize("name", ["lock", "tasks.log", "results.zarr", "results.zarr/growth"])
def test_a_link_is_an_error_and_not_followed(path, name, tmp_path):
    file, target = path / name, tmp_path / "target"
    if file.is_dir():
        shutil.move(file, target)
    else:
        target.write_bytes(b"precious\n")
        file.unlink()
    before = {f: f.read_bytes() for f in [target, *target.rglob("*")] if f.is_file()}
    file.symlink_to(target)
    for call in (lambda: pl.run_study(toy(runs=12), path, extend=True), lambda: read_all(path)):
        message = refusal(call)
        assert str(file) in message
        assert "got a symbolic link" in message
    assert {f: f.read_bytes() for f in [target, *target.rglob("*")] if f.is_file()} == before


def test_a_dangling_link_creates_no_file(path, tmp_path):
    for name in ("lock", "tasks.log"):
        (path / name).unlink()
        (path / name).symlink_to(tmp_path / "nothing")
        assert "got a symbolic link" in refusal(lambda: pl.run_study(toy(), path))
        (path / name).unlink()
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("name", ["loss/c.0.0.0.0", "loss/zarr.json", "zarr.json", "lr/c.0"])
def test_a_link_in_the_store_is_not_followed(path, name, tmp_path):
    file, target = path / "results.zarr" / name, tmp_path / "target"
    shutil.move(file, target)
    before = target.read_bytes()
    file.symlink_to(target)
    message = refusal(lambda: pl.run_study(toy(runs=12), path, extend=True))
    assert f"{file} must be a regular file, got a symbolic link" in message
    assert target.read_bytes() == before


def test_the_folder_of_a_study_may_be_a_link(path, tmp_path):
    (tmp_path / "link").symlink_to(path)
    assert_whole(pl.run_study(toy(), tmp_path / "link"), toy())


def special(file, kind):
    file.unlink(missing_ok=True)
    if kind == "FIFO":
        os.mkfifo(file)
    elif kind == "socket":
        here = os.getcwd()
        os.chdir(file.parent)  # the path of a socket is limited to about 100 bytes
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(file.name)
        os.chdir(here)
    else:
        file.mkdir()


@pytest.mark.parametrize("kind", ["FIFO", "folder"])
@pytest.mark.parametrize("name", ["lock", "tasks.log", "results.zarr/zarr.json"])
def test_special_files_are_an_error_and_do_not_block(path, name, kind):
    special(path / name, kind)
    for call in (lambda: pl.run_study(toy(), path), lambda: read_all(path)):
        (message,) = within(20, lambda call=call: refusal(call))
        assert f"{path / name} must be a regular file, got a {kind}" in message


@pytest.mark.parametrize("kind", ["FIFO", "socket"])
def test_a_special_file_in_place_of_a_chunk_is_replaced(path, kind, tmp_path):
    file = chunk(path, "loss", "0 0 0 0")
    special(file, kind)
    (message,) = within(20, lambda: refusal(lambda: pl.open_study(path).loss.load()))
    assert f"{file} is damaged ({file} must be a regular file, got a {kind})" in message
    study = toy(log=str(tmp_path / "log"))
    within(60, lambda: assert_whole(pl.run_study(study, path), study))
    assert begun(tmp_path / "log") == ["(0, 0) 0 4"]


def test_temporary_folders_are_removed(path):
    left = [
        path / ".results.zarr.part",
        path / "results.zarr/.x.part",
        path / "results.zarr/growth/.c.0.part",
    ]
    for folder in left:
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / ".y.part").touch()
    (path / "results.zarr/.link.part").symlink_to("/nowhere")
    assert_whole(pl.run_study(toy(), path), toy())
    assert not any(path.rglob(".*.part"))


def test_an_incomplete_store_is_created_again(tmp_path):
    path = tmp_path / "s"
    (path / ".results.zarr.part" / "growth").mkdir(parents=True)
    (path / "lock").touch()
    assert_whole(pl.run_study(toy(), path), toy())
