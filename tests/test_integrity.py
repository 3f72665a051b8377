"""Stores that were damaged or altered: reading them is an error, and a driver repairs them."""

import copy
import json
import random
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from test_store import assert_same, assert_whole, chunk
from toys import Toy, begun, edit_log, edit_metadata, prepare, to_format_1, toy

import pylyap as pl

zarr = pytest.importorskip("zarr")
xarray = pytest.importorskip("xarray")

from google_crc32c import value as crc32c  # noqa: E402
from numcodecs.zstd import Zstd  # noqa: E402

from pylyap.studies import layout, metadata, records, store  # noqa: E402
from pylyap.studies.chunks import frame_size  # noqa: E402
from pylyap.studies.results import progress  # noqa: E402
from pylyap.studies.work import compute  # noqa: E402

FORMAT_1 = Path(__file__).with_name("stores") / "format_1.zip"
DEEP = 100_000  # levels; the recursion limit is 1000


pytestmark = pytest.mark.usefixtures("no_fsync")


@pytest.fixture
def old(tmp_path):
    """Folder of a toy study of format 1, of whose 12 tasks 9 are complete."""
    with zipfile.ZipFile(FORMAT_1) as archive:
        archive.extractall(tmp_path / "old")
    return tmp_path / "old"


def read_all(path):
    """Read everything in a store."""
    now = progress(path)
    assert now.seconds_left is not None
    return pl.open_study(path).load(), now


def assert_refused(path, pattern):
    """Reading the store raises ValueError with a message of one line."""
    with pytest.raises(ValueError, match=pattern) as refused:
        read_all(path)
    assert "\n" not in str(refused.value)


def tried(call):
    """Result of a call, or None and the message of its ValueError."""
    try:
        return call(), ""
    except ValueError as error:
        return None, str(error)


# ------------------------------------------------------------------------------------ metadata


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["attributes"].update(title="another"),
        lambda c: c["attributes"].update(block=5),
        lambda c: c["attributes"].update(pylyap="9.9"),
        lambda c: c["attributes"].update(grid='{"activation": ["relu", "sin"], "lr": [0.1, 0.2]}'),
        lambda c: c["attributes"].pop("sha256"),
        lambda c: c["attributes"]["coordinates"].update(lr="0" * 64),
        lambda c: array(c, "activation")["attributes"].update(labels=["tanh", "relu"]),
        lambda c: array(c, "growth")["attributes"].update(units="bits"),
        lambda c: array(c, "growth").update(dimension_names=["lr", "activation", "run", "a", "b"]),
        lambda c: array(c, "loss").update(fill_value=0.0),
    ],
)
def test_edited_metadata_are_detected_and_repaired(path, change, tmp_path, capsys):
    before = pl.open_study(path).load()
    edit_metadata(path, change, checksum=False)
    assert_refused(path, r"results.zarr/zarr.json is damaged: .*run the study again to repair it")
    log = tmp_path / "log"
    data = pl.run_study(toy(log=str(log)), path, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "rewritten" in line] == [
        "study: damaged, rewritten: results.zarr/zarr.json"
    ]
    assert_same(data, before)
    assert begun(log) == []
    assert_same(pl.open_study(path), before)
    pl.run_study(toy(), path, progress=True)
    assert "rewritten" not in capsys.readouterr().err


def array(content, name):
    return content["consolidated_metadata"]["metadata"][name]


@pytest.mark.parametrize("name", ["lr", "step", "activation"])
def test_altered_labels_are_detected_and_repaired(path, name, capsys):
    """Altered labels, written by Zarr with a valid CRC-32C."""
    before = pl.open_study(path).load()
    group = zarr.open_group(path / "results.zarr", mode="r+")
    group[name][...] = group[name][...][::-1].copy()
    assert_refused(path, f"the labels of {name} in .* are damaged")
    assert_same(pl.run_study(toy(), path, progress=True), before)
    assert f"study: damaged, rewritten: labels of {name}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    "garbage", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * DEEP, b"9" * 5000]
)
def test_invalid_metadata_are_detected_and_repaired(path, garbage):
    before = pl.open_study(path).load()
    (path / "results.zarr/zarr.json").write_bytes(garbage)
    assert_refused(path, r"results.zarr/zarr.json is damaged")
    assert_same(pl.run_study(toy(), path), before)


def test_oversized_metadata_are_not_read(path):
    with (path / "results.zarr/zarr.json").open("r+b") as file:
        file.truncate(2**40)  # sparse file
    assert_refused(path, r"zarr.json is damaged: .* has 1099511627776 bytes, at most")


def test_a_store_without_any_valid_metadata_is_an_error(path):
    for file in (path / "results.zarr").rglob("zarr.json"):
        file.write_bytes(b"{")
    with pytest.raises(
        ValueError, match="the metadata of its arrays are damaged, too: use a new folder"
    ):
        pl.run_study(toy(), path)


def test_damaged_metadata_do_not_admit_another_study(path):
    other = toy().settings
    other["seed"] = 7
    before = sorted((file, file.read_bytes()) for file in path.rglob("c.*"))
    (path / "results.zarr/zarr.json").write_bytes(b"{")
    for study in (Toy(**other), toy(rates=(0.1, 0.3)), toy(runs=4), toy(runs=12)):
        with pytest.raises(ValueError, match=r"is damaged: .*; the given study does not fit: "):
            pl.run_study(study, path)
    assert sorted((file, file.read_bytes()) for file in path.rglob("c.*")) == before
    assert_whole(pl.run_study(toy(runs=12), path, extend=True), toy(runs=12))


# Marks removal; the others are unexpected values.
_GONE = object()
_ODD = [
    _GONE,
    None,
    True,
    -1,
    0,
    1,
    2,
    3,
    10**30,
    -1e308,
    0.5,
    "",
    "x",
    [],
    {},
    [[]],
    ["a"],
    [10**12],
]


def places(value, at=()):
    """Paths of all values of a JSON document."""
    yield at
    inner = dict(enumerate(value)) if isinstance(value, list) else value
    for key, found in inner.items() if isinstance(inner, dict) else ():
        yield from places(found, (*at, key))


def changed(content, rng):
    """Replace one value of a JSON document by another, or by deeply nested text."""
    content = copy.deepcopy(content)
    at = rng.choice([place for place in places(content) if place])
    *way, last = at
    inner = content
    for key in way:
        inner = inner[key]
    value = rng.choice(_ODD)
    text = isinstance(inner[last], str) and rng.random() < 0.5
    if text and inner[last].startswith('{"'):  # JSON in a string
        value = json.dumps(changed(json.loads(inner[last]), rng))
    elif text:
        value = "[" * DEEP
    if value is _GONE:
        del inner[last]
    else:
        inner[last] = copy.deepcopy(value)
    return content


def survives(path, before):
    """Whether a store is read unchanged; otherwise reading raises an error of one line."""
    data, message = tried(lambda: read_all(path)[0])
    assert "\n" not in message
    return data is not None and data.equals(before)


def fuzz_metadata(path, seed, count):
    file = path / "results.zarr/zarr.json"
    good, before, rng = file.read_bytes(), pl.open_study(path).load(), random.Random(seed)
    read = 0
    for _ in range(count):
        content = changed(json.loads(good), rng)
        if seed % 2 and isinstance(content.get("attributes"), dict):
            content = metadata.with_checksum(content)
        file.write_text(json.dumps(content))
        read += survives(path, before)
    for cut in rng.sample(range(len(good)), count // 10):
        file.write_bytes(good[:cut])
        assert not survives(path, before)
    for at in rng.sample(range(len(good)), count // 10):
        file.write_bytes(good[:at] + bytes([good[at] ^ 1 << rng.randrange(8)]) + good[at + 1 :])
        read += survives(path, before)
    return read


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_damaged_metadata_raise_at_most_one_error(path, seed):
    """Seed 0: invalid checksum, 1: valid checksum, 2: format 1, without checksum."""
    if seed == 2:
        to_format_1(path)
    fuzz_metadata(path, seed, 60)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3, 23))
def test_damaged_metadata_raise_at_most_one_error_many(path, seed):
    if seed % 4 == 2:
        to_format_1(path)
    fuzz_metadata(path, seed, 500)


@pytest.mark.parametrize("version", [1, 2])
def test_a_driver_repairs_damaged_metadata(path, version):
    """Includes damage that a reader cannot detect without the study."""
    if version == 1:
        to_format_1(path)
    before, rng = pl.open_study(path).load(), random.Random(0)
    backup = shutil.copytree(path, path.with_name("backup"))
    files = [*(path / "results.zarr").rglob("zarr.json")]
    files += [path / "results.zarr/zarr.json"] * len(files)
    good = {file: file.read_bytes() for file in files}
    for _ in range(6):
        file = rng.choice(files)
        content = changed(json.loads(good[file]), rng)
        if file.parent.name == "results.zarr":
            content = metadata.with_checksum(content) if version == 2 else content
        file.write_text(json.dumps(content))
        data, message = tried(lambda: pl.run_study(toy(), path))
        if data is None:  # other settings
            assert "which differs" in message or "of format" in message
            shutil.copytree(backup, path, dirs_exist_ok=True)
        else:
            assert_same(data, before)


# -------------------------------------------------------------------------------------- the log


def fuzz_log(path, seed, count):
    file = path / "tasks.log"
    good, rng = file.read_bytes(), random.Random(seed)
    for _ in range(count):
        edit_log(path, lambda records: changed(records, rng))
        assert "\n" not in tried(lambda: read_all(path))[1]
        file.write_bytes(good)


def test_a_damaged_log_raises_at_most_one_error(path):
    fuzz_log(path, 0, 30)


@pytest.mark.slow
def test_a_damaged_log_raises_at_most_one_error_many(path):
    fuzz_log(path, 1, 3000)


def test_invalid_lines_of_the_log_are_ignored(path, tmp_path):
    def change(records):
        odd = ({"tries": "many"}, {"first": -4}, {"status": "9"}, {"at": 1e300}, {"sums": [1]})
        return [*(r | o for r, o in zip(records, odd, strict=False)), *records[len(odd) :]]

    edit_log(path, change)
    with (path / "tasks.log").open("ab") as file:
        text = b"[" * DEEP
        file.write(b"%08x %s\n" % (records.zlib.crc32(text), text))
    study = toy(log=str(tmp_path / "log"))
    assert_whole(pl.run_study(study, path), study)
    assert len(begun(tmp_path / "log")) == 5


@pytest.mark.parametrize("other", [{"seed": 7}, {"rates": (0.1, 0.3)}])
def test_a_log_of_another_study_is_refused(tmp_path, path, other):
    settings = toy(rates=other.get("rates", (0.1, 0.2))).settings
    study = Toy(**settings | {"seed": other.get("seed", 0)})
    theirs = prepare(tmp_path / "other", study, 4)
    pl.run_study(study, theirs)
    shutil.copy(theirs / "tasks.log", path / "tasks.log")
    for call in (read_all, lambda p: pl.run_study(toy(), p)):
        with pytest.raises(ValueError, match=r"log has runs from \d at .* of another study"):
            call(path)


def test_the_rate_of_a_new_driver_is_unknown(path):
    edit_log(path, lambda records: [r | {"at": 5.0, "since": 5.0} for r in records[:3]])
    assert np.isnan(progress(path).seconds_left)


# --------------------------------------------------------------------------------------- chunks


@pytest.mark.parametrize("name", ["growth", "status"])
@pytest.mark.parametrize("whence", ["place", "study", "values"])
def test_a_misplaced_chunk_is_detected(tmp_path, path, name, whence):
    zeros = " 0" * len(toy().variables[name].shape)
    here, source = chunk(path, name, "0 1 0" + zeros), chunk(path, name, "1 1 1" + zeros)
    if whence != "place":
        settings = toy(rates=(0.1, 0.2 if whence == "study" else 0.3)).settings

        class Other(Toy):
            def compute(self, point, first, count, *, threads=1):
                arrays = super().compute(point, first, count)
                status = np.zeros_like(arrays["status"])
                return {n: v + 1 for n, v in arrays.items()} | {"status": status}

        study = Other(**settings | {"seed": 7 if whence == "study" else 0})
        theirs = prepare(tmp_path / "other", study, 4)
        pl.run_study(study, theirs)
        source = chunk(theirs, name, "0 1 0" + zeros)
    assert source.read_bytes() != here.read_bytes()
    shutil.copy(source, here)
    with pytest.raises(ValueError, match=rf"{name}/c.0.1.0.* is damaged .*: run the study again"):
        pl.open_study(path)[name].load()
    study = toy(log=str(tmp_path / "log"))
    assert_whole(pl.run_study(study, path), study)
    assert begun(tmp_path / "log") == ["(0, 1) 0 4"]


def test_a_chunk_of_another_array_is_detected(path):
    """Two arrays of the same shape."""
    study = toy()
    names = [name for name, variable in study.variables.items() if not variable.shape]
    assert len(names) == 2  # status and n_done, of different types
    shutil.copy(chunk(path, "n_done", "0 0 0"), chunk(path, "status", "0 0 0"))
    with pytest.raises(ValueError, match=r"status/c.0.0.0 is damaged"):
        pl.open_study(path).status.load()


def test_checksums_depend_on_place_and_study(path):
    settings = toy().settings
    at = store.Identity(settings, 4)
    moved = settings | {"title": "b", "runs": 99}
    assert store.Identity(moved, 4).checksum("loss", (0, 1, 2), b"x") == at.checksum(
        "loss", (0, 1, 2), b"x"
    )
    other = [
        at.checksum("growth", (0, 1, 2), b"x"),
        at.checksum("loss", (1, 1, 2), b"x"),
        at.checksum("loss", (0, 1, 1), b"x"),
        at.checksum("loss", (0, 1, 2), b"y"),
        store.Identity(settings, 5).checksum("loss", (0, 1, 2), b"x"),
        store.Identity(settings | {"seed": 1}, 4).checksum("loss", (0, 1, 2), b"x"),
        store.Identity(toy(rates=(0.1, 0.3)).settings, 4).checksum("loss", (0, 1, 2), b"x"),
    ]
    assert len({at.checksum("loss", (0, 1, 2), b"x"), *other}) == len(other) + 1


def swollen(size, declared=None):
    """A chunk that decompresses to `size` bytes and declares this size or another one."""
    data = bytearray(Zstd(1).encode(bytes(size)))
    assert frame_size(bytes(data)) == size
    if declared is not None:
        width = (data[4] >> 5 & 1, 2, 4, 8)[data[4] >> 6]
        start = 5 + (not data[4] >> 5 & 1)
        data[start : start + width] = (declared - 256 * (width == 2)).to_bytes(width, "little")
    return bytes(data) + crc32c(bytes(data)).to_bytes(4, "little")


@pytest.mark.parametrize("version", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_decompression_bomb_is_not_decompressed(path, version, monkeypatch, tmp_path):
    """16 kB that decompress to 512 MiB, with valid checksums, also in the log."""
    if version == 1:
        to_format_1(path)
    file, data = chunk(path, "loss", "0 0 0 0"), swollen(2**29)
    assert len(data) < 2**29 / 1000
    file.write_bytes(data)
    if version == 2:
        checksum = store.Identity(toy().settings, 4).checksum("loss", (0, 0, 0), data)

        def change(log):
            for record in log:
                if record["point"] == [0, 0] and record["first"] == 0:
                    record["sums"]["loss"] = f"{checksum:016x}"
            return log

        edit_log(path, change)
    script = (
        "import resource, sys, pylyap as pl; data = pl.open_study(sys.argv[1]);"
        "import numcodecs.zstd as z; limit = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "\ntry: data.loss.load()\nexcept ValueError as error: print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - limit)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script, path], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    # The chunk exceeds the maximum length, or its frame declares a wrong size.
    assert "loss/c.0.0.0.0 is damaged (it " in printed[0]
    assert int(printed[1]) < 2**16  # KiB, far below 512 MiB
    study = toy(log=str(tmp_path / "log"))
    assert_whole(pl.run_study(study, path), study)
    assert begun(tmp_path / "log") == ["(0, 0) 0 4"]


def test_frames_with_a_wrong_size_are_detected(path):
    size = 4 * toy().variables["loss"].shape[0] * 8
    good = Zstd(1).encode(np.random.default_rng(0).bytes(size))
    crc = lambda data: data + crc32c(data).to_bytes(4, "little")  # noqa: E731
    to_format_1(path)
    file = chunk(path, "loss", "0 0 0 0")
    bad = {
        "two frames": crc(good + good),
        "a frame behind": crc(good + Zstd(1).encode(b"")),
        "no frame": crc(b"\x00" * 30),
        "a skippable frame": crc(b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"),
        "cut": crc(good[:-3]),
        "longer": crc(good + b"\x00"),
        "declares less": swollen(2**20, declared=size),
        "short": crc(b"\x28\xb5\x2f\xfd"),
        "header alone": crc(good[:6]),
    }
    for what, data in bad.items():
        file.write_bytes(data)
        with pytest.raises(ValueError, match="damaged") as refused:
            pl.open_study(path).loss.load()
        assert "loss" in str(refused.value), what
        if what == "declares less":  # detected only by decompression
            assert_whole(pl.run_study(toy(), path), toy())


def test_frame_size():
    for size in (0, 1, 200, 255, 256, 300, 65_791, 65_792, 10**6):
        for content in (bytes(size), np.random.default_rng(size).bytes(size)):
            for level, checksum in ((1, False), (9, True), (-3, False)):
                frame = Zstd(level, checksum).encode(content) if size else None
                assert frame is None or frame_size(bytes(frame)) == size


def test_missing_chunks_are_an_error_of_one_line(path):
    """In a separate process, which would report pending asyncio tasks at its end."""
    for file in (path / "results.zarr/loss").glob("c.*"):
        file.unlink()
    code = "import sys; from pylyap.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "export", str(path), str(path.with_suffix(".nc"))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert "loss/c.0.0.0.0 is missing: run the study again" in done.stderr


# ------------------------------------------------------------- killed between chunk and record


@pytest.mark.parametrize("moment", ["first", "between", "last"])
def test_a_kill_while_a_block_is_extended_loses_no_run(tmp_path, path, monkeypatch, moment):
    """Runs that extend a chunk change it before the log has their record."""
    larger, log = toy(runs=12, log=str(tmp_path / "log")), tmp_path / "log"
    written, place = [], layout.open_arrays
    when = {"first": 1, "between": 2, "last": 4}[moment]

    def opened(*args):
        found = place(*args)
        put = found.files.put

        def stop(key, data):
            put(key, data)
            if "/c." in key:
                written.append(key)
                if len(written) == when:
                    raise KeyboardInterrupt

        found.files.put = stop
        return found

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(layout, "open_arrays", opened)
            written.clear()
            with pytest.raises(KeyboardInterrupt):
                pl.run_study(larger, path, extend=True, workers=1)
        data = pl.open_study(path)
        assert_array_equal(data.status.values[..., :10] >= 0, True)
        data.load()  # all checksums are known
    log.unlink()
    assert_whole(pl.run_study(larger, path), larger)
    assert all(task.endswith(" 10 2") for task in begun(log))
    assert len(begun(log)) == 4


def test_a_dataset_opened_before_an_extension_stays_readable(path):
    early = pl.open_study(path)
    larger = toy(runs=12)
    pl.run_study(larger, path, extend=True)
    for name in early.variables:
        if early[name].dims[2:3] == ("run",):
            assert_array_equal(early[name].values, pl.open_study(path)[name].values[:, :, :10])


# -------------------------------------------------------------------------- stores of format 1


def test_a_store_of_format_1_is_read_and_resumed(old, capsys):
    data = pl.open_study(old).load()
    assert (data.attrs["format"], data.attrs["runs_done"]) == (1, 30)
    study = toy()
    done = data.status.values >= 0
    for name in ("growth", "loss", "n_done"):
        expected = xarray.open_zarr(old / "results.zarr", chunks=None)[name].values[done]
        assert_array_equal(data[name].values[done], expected)
    data = pl.run_study(study, old, mixed=True, progress=True)
    assert "rewritten" not in capsys.readouterr().err
    assert_whole(data, study)
    assert data.attrs["format"] == 2
    now = progress(old)
    assert all(now.checksums.valid("loss", place) for place in np.ndindex(2, 2, 3))


def test_chunks_of_format_1_get_checksums(old, tmp_path):
    pl.run_study(toy(), old, mixed=True)
    shutil.copy(chunk(old, "loss", "0 0 0 0"), chunk(old, "loss", "1 1 0 0"))
    with pytest.raises(ValueError, match=r"loss/c.1.1.0.0 is damaged"):
        pl.open_study(old).loss.load()


def test_damage_of_a_store_of_format_1_is_repaired(old, tmp_path):
    log = tmp_path / "log"
    place = next(r for r in records.read(old / "tasks.log"))
    file = chunk(old, "loss", " ".join(map(str, (*place.point, place.first // 4, 0))))
    file.write_bytes(file.read_bytes()[:-1])
    (old / "results.zarr/zarr.json").write_bytes(b"{")
    assert_refused(old, "zarr.json is damaged")
    assert_whole(pl.run_study(toy(log=str(log)), old, mixed=True), toy())
    assert len(begun(log)) == 4  # three tasks remained


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["attributes"].update(seed=5),
        lambda c: c["attributes"].update(runs=11),
        lambda c: c["attributes"].update(runs=10**15),
        lambda c: c["attributes"].update(block=0),
        lambda c: c["attributes"].update(settings="3"),
        lambda c: c["attributes"].update(grid='{"activation": ["relu", "sin"], "lr": [0.1, 0.2]}'),
        lambda c: array(c, "growth").update(shape=[2, 2, 10, 2, 10**14]),
        lambda c: array(c, "activation")["attributes"].update(labels=["tanh", "relu"]),
        lambda c: array(c, "activation")["attributes"].update(labels=["tanh"]),
        lambda c: array(c, "growth")["codecs"].pop(),
    ],
)
def test_inconsistent_metadata_of_format_1_are_detected(old, change):
    edit_metadata(old, change, checksum=False)
    assert_refused(old, "damaged")
    assert_whole(pl.run_study(toy(), old, mixed=True), toy())


# ---------------------------------------------------------------------------- any Zarr reader


def test_xarray_reads_a_store_directly(path, old):
    for folder in (path, old):
        for consolidated in (True, False):
            data = xarray.open_zarr(
                folder / "results.zarr", consolidated=consolidated, chunks=None
            ).load()
            done = data.status.values >= 0
            assert_array_equal(pl.open_study(folder).growth.values[done], data.growth.values[done])
    assert compute(toy(), (0, 0), 0, 4, threads=1).error == ""
