"""The store of a study: content, resuming, extension, damage, and planning."""

import json
import os
import shutil
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from study_files import digits
from toys import Toy, begun, numbers, prepare, toy

import pylyap as pl
from pylyap import _checks

zarr = pytest.importorskip("zarr")
xarray = pytest.importorskip("xarray")

from pylyap.studies import layout, records, store  # noqa: E402
from pylyap.studies.results import progress  # noqa: E402
from pylyap.studies.work import Outcome, compute, environment  # noqa: E402

pytestmark = pytest.mark.usefixtures("no_fsync")


def assert_whole(data, study):
    """All values are those of the toy study."""
    for name, variable in study.variables.items():
        for point in np.ndindex(study.shape):
            expected = numbers(variable, point, name)[: study.runs]
            assert_array_equal(data[name].values[point], expected, err_msg=f"{name} at {point}")


def assert_same(one, other):
    """All arrays and labels have the same bits."""
    assert set(one.variables) == set(other.variables)
    for name in one.variables:
        a, b = one[name].values, other[name].values
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert a.tobytes() == b.tobytes(), name


def chunk(path, name, place):
    return path / "results.zarr" / name / ".".join(["c", *place.split()])


def damage(file, how):
    data = bytearray(file.read_bytes())
    if how == "flipped":
        data[len(data) // 2] ^= 4
    cut = {"flipped": data, "cut": data[:-5], "empty": b"", "zeros": bytes(len(data))}
    if how == "gone":
        file.unlink()
    else:
        file.write_bytes(cut[how])


# --------------------------------------------------------------------------------------- content


def test_results_agree_with_their_labels(tmp_path):
    study = toy()
    data = pl.run_study(study, tmp_path / "s")
    assert_whole(data, study)
    assert data.growth.dims == ("activation", "lr", "run", "step", "exponent")
    assert list(data.activation.values) == ["relu", "tanh"]
    assert list(data.lr.values) == [0.1, 0.2]
    assert list(data.run.values) == list(range(10))
    assert list(data.step.values) == [0, 3]
    assert data.growth.attrs["units"]
    one = data.growth.sel(activation="tanh", lr=0.2, run=7, step=3, exponent=2)
    assert one == numbers(study.variables["growth"], (1, 1), "growth")[7, 1, 2]
    assert {v.dtype.kind for v in data.variables.values()} <= set("fiU")


def test_attributes_describe_the_origin_of_results(path):
    study = toy()
    attributes = pl.open_study(path).attrs
    assert Toy(**json.loads(attributes["settings"])) == study
    assert attributes["pylyap"] == pl.__version__
    assert attributes["instruction_set"] == environment()["instruction_set"]
    assert attributes["seed"] == study.seed
    assert (attributes["runs_total"], attributes["runs_done"]) == (40, 40)
    assert (attributes["runs_diverged"], attributes["runs_failed"]) == (4, 0)


def test_chunks_have_checksums_and_no_pickles(path):
    study = toy()
    data = xarray.open_zarr(path / "results.zarr", consolidated=False, chunks=None)
    assert_whole(data, study)
    for name, array in zarr.open_group(path / "results.zarr", mode="r").arrays():
        assert [codec.to_dict()["name"] for codec in array.metadata.codecs][-1] == "crc32c", name
        assert array.dtype.kind in "fi"


def test_a_study_without_a_grid(tmp_path):
    settings = toy().settings | {"grid": {}}
    settings["network"]["activation"], settings["optimizer"]["lr"] = "tanh", 0.1
    study = Toy(**settings)
    data = pl.run_study(study, tmp_path / "s")
    assert data.growth.dims == ("run", "step", "exponent")
    assert_whole(data, study)


def test_incomplete_runs_are_nan_with_status_minus_1(tmp_path):
    study, path = toy(), prepare(tmp_path / "s", toy(), 4)
    with store.driver(path):
        opened = store.Store(path, study)
        task = store.Task((1, 1), 4, 4)
        opened.write(task, compute(study, *task, threads=1))
        data = pl.open_study(path)
        opened.close()
    done = np.zeros((2, 2, 10), bool)
    done[1, 1, 4:8] = True
    assert_array_equal(data.status.values != -1, done)
    assert_array_equal(np.isfinite(data.loss.values).all(-1), done)
    assert_array_equal(data.n_done.values != -1, done)
    expected = numbers(study.variables["growth"], (1, 1), "growth")[4:8]
    assert_array_equal(data.growth.values[1, 1, 4:8], expected)
    assert data.attrs["runs_done"] == 4


def test_a_chunk_of_nan_is_stored(tmp_path):
    class Lost(Toy):
        def compute(self, point, first, count, *, threads=1):
            arrays = super().compute(point, first, count)
            return arrays | {"loss": np.full_like(arrays["loss"], np.nan)}

    path = prepare(tmp_path / "s", toy(), 4)
    assert np.isnan(pl.run_study(toy(kind=Lost), path).loss.load()).all()
    assert len(list((path / "results.zarr/loss").glob("c.*"))) == 12


def test_chunks_are_flushed_before_their_record(tmp_path, monkeypatch):
    """Files and their folders are synchronised before the record is appended."""
    synced, replaced, append, replace = set(), [], records.append, os.replace
    checked = []

    def note(descriptor):
        synced.add(os.path.realpath(f"/proc/self/fd/{descriptor}"))

    def move(part, file):
        replaced.append(Path(file).parent.name)
        replace(part, file)

    def check(descriptor, record):
        assert replaced[-len(study.variables) :].index("status") == len(study.variables) - 1
        for name in study.variables:
            place = " ".join(map(str, (*record.point, record.first // 4)))
            zeros = " 0" * len(study.variables[name].shape)
            file = chunk(tmp_path / "s", name, place + zeros)
            assert file.exists()
            assert any(s.startswith(str(file.with_name("." + file.name))) for s in synced)
            assert str(file.parent) in synced
        synced.clear()
        checked.append(record)
        append(descriptor, record)

    study = toy()
    prepare(tmp_path / "s", study, 4)
    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(os, "replace", move)
    monkeypatch.setattr(records, "append", check)
    pl.run_study(study, tmp_path / "s")
    assert len(checked) == 12


def test_a_failed_write_keeps_the_old_chunk(monkeypatch, path):
    file = chunk(path, "growth", "0 0 0 0 0")
    before = file.read_bytes()

    def fail(*_):
        raise OSError("no")

    with store.driver(path):
        opened = store.Store(path, toy())
        monkeypatch.setattr(os, "replace", fail)
        task = store.Task((0, 0), 0, 4)
        wrong = {name: values + 1 for name, values in toy().compute(*task).items()}
        with pytest.raises(OSError, match="no"):
            opened.write(task, Outcome(wrong, environment(), "here"))
        opened.close()
    assert file.read_bytes() == before
    assert not list(path.rglob("*.part"))
    assert_whole(pl.open_study(path), toy())


def test_netcdf_export(tmp_path):
    data = pl.run_study(toy(), tmp_path / "s")
    pl.export_study(tmp_path / "s", tmp_path / "s.nc")
    with xarray.open_dataset(tmp_path / "s.nc", engine="h5netcdf") as exported:
        xarray.testing.assert_identical(exported.load().drop_attrs(), data.load().drop_attrs())
        assert exported.attrs["settings"] == data.attrs["settings"]


# ----------------------------------------------------------------------------- resume and extend


def test_the_same_call_again_computes_nothing(tmp_path, path):
    first = pl.open_study(path).load()
    assert_same(pl.run_study(toy(log=str(tmp_path / "log")), path), first)
    assert begun(tmp_path / "log") == []


@pytest.mark.parametrize(("workers", "block"), [(1, 3), (3, 1), (2, 7), (2, 10)])
def test_results_are_independent_of_workers_and_tasks(tmp_path, workers, block):
    study = toy()
    assert_whole(pl.run_study(study, prepare(tmp_path / "s", study, block), workers=workers), study)


def test_extension_by_runs_and_values(tmp_path, path):
    log = tmp_path / "log"
    larger = toy(runs=15, rates=(0.1, 0.2, 0.4), activations=("relu", "tanh", "sin"), log=str(log))
    with pytest.raises(ValueError, match=r"is smaller: runs 10 → 15; .*--extend"):
        pl.run_study(larger, path)
    data = pl.run_study(larger, path, extend=True)
    assert_whole(data, larger)
    assert list(data.activation.values) == ["relu", "tanh", "sin"]
    assert data.attrs["runs"] == 15
    assert "(0, 0) 10 2" in begun(log)  # extends a chunk with 2 of 4 runs
    assert sum(int(task.rsplit(" ", 1)[1]) for task in begun(log)) == 3 * 3 * 15 - 40
    with pytest.raises(ValueError, match="which differs: runs 15 → 10"):
        pl.run_study(toy(), path, extend=True)


@pytest.mark.parametrize("go_on", ["as before", "extended"])
def test_a_killed_extension_has_no_effect(tmp_path, monkeypatch, go_on, path):
    before = pl.open_study(path).load()
    larger = toy(runs=15, rates=(0.1, 0.2, 0.4))
    with monkeypatch.context() as patch:
        patch.setattr(layout, "publish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pl.run_study(larger, path, extend=True)
    assert_same(pl.open_study(path), before)
    if go_on == "extended":
        assert_whole(pl.run_study(larger, path, extend=True), larger)
    else:
        assert_same(pl.run_study(toy(), path), before)


def test_another_study_is_an_error_with_the_differences(tmp_path):
    pl.run_study(toy(), tmp_path / "s")
    settings = toy(rates=(0.1, 0.3)).settings
    settings["analysis"]["n_steps"] = 9
    with pytest.raises(ValueError, match="which differs") as refused:
        pl.run_study(Toy(**settings), tmp_path / "s", extend=True)
    assert "analysis.n_steps 6 → 9" in str(refused.value)
    assert "grid.optimizer.lr [0.1, 0.2] → [0.1, 0.3]" in str(refused.value)
    pl.run_study(toy(note="another title is the same study"), tmp_path / "s")


def test_data_may_be_moved_but_not_changed(tmp_path):
    def study(folder, n):
        images, labels = map(str, digits(tmp_path / folder, n))
        return pl.Study(
            data={"name": "idx", "images": images, "labels": labels},
            network={"hidden": 2, "loss": "cross_entropy"},
            analysis={"name": "train", "epochs": 1},
            runs=1,
        )

    pl.run_study(study("here", 12), tmp_path / "s")
    elsewhere = study("there", 12)
    data = pl.run_study(elsewhere, tmp_path / "s")
    assert pl.Study(**json.loads(data.attrs["settings"])) == elsewhere
    with pytest.raises(
        ValueError, match=r"images or .*labels has changed since: sha256 '\w+... → "
    ):
        pl.run_study(study("others", 15), tmp_path / "s")


def test_results_of_another_length_are_no_extension(tmp_path):
    small, large = (
        Toy(**toy().settings | {"grid": {"network.hidden": widths, "optimizer.lr": [0.1]}}
            | {"network": {"activation": "tanh"}})
        for widths in ([2], [2, 3])
    )  # fmt: skip
    path = prepare(tmp_path / "s", small, 4)
    before = pl.run_study(small, path).load()
    with pytest.raises(ValueError, match=r"study must fit the store.*use a new folder"):
        pl.run_study(large, path, extend=True)
    assert_same(pl.run_study(small, path), before)


def test_a_concurrent_reader_sees_complete_runs(tmp_path):
    study = toy(runs=10, seconds=0.02)
    path = prepare(tmp_path / "s", study, 2)
    seen = []
    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(pl.run_study, study, path, workers=2)
        while not writer.done():
            seen.append(pl.open_study(path).load())
    data = writer.result()
    assert_whole(data, study)
    counts = [int((some.status >= 0).sum()) for some in seen]
    assert counts == sorted(counts)
    assert len({0, *counts, 40}) > 3  # intermediate states were seen
    for some in seen:
        done = some.status.values >= 0
        for name in study.variables:
            assert_array_equal(some[name].values[done], data[name].values[done])


# ------------------------------------------------------------------------- failures and damage


def test_failed_runs_are_recorded_and_repeated(tmp_path):
    study = toy(fail=str(tmp_path / "bad"))
    path = prepare(tmp_path / "s", study, 4)
    (tmp_path / "bad").touch()
    data = pl.run_study(study, path)
    failed = np.zeros(data.status.shape, bool)
    failed[:, :, 4] = True
    assert_array_equal(data.status.values == 3, failed)
    assert_array_equal(np.isnan(data.loss.values).all(-1), failed)
    found = json.loads(data.attrs["failures"])
    assert len(found) == data.attrs["runs_failed"] == 4
    assert found[0]["runs"] == [4, 4]
    assert found[0]["error"] == "RuntimeError: [bold]no luck[/bold]"
    assert set(found[0]["at"]) == {"activation", "lr"}
    others = data.loss.values[~failed]
    (tmp_path / "bad").unlink()
    with store.driver(path):
        opened = store.Store(path, study)
        assert (opened.statuses == -1).sum() == 4
        opened.close()
    data = pl.run_study(study, path)
    assert_whole(data, study)
    assert json.loads(data.attrs["failures"]) == []
    assert_array_equal(data.loss.values[~failed], others)


def test_a_failing_block_is_split(tmp_path):
    class Hungry(Toy):
        def compute(self, point, first, count, *, threads=1):
            if count > 2:
                raise MemoryError
            return super().compute(point, first, count, threads=threads)

    study = toy(kind=Hungry)
    assert_whole(pl.run_study(study, prepare(tmp_path / "s", study, 5)), study)


@pytest.mark.parametrize("how", ["flipped", "cut", "empty", "zeros", "gone"])
@pytest.mark.parametrize("name", ["loss", "status"])
def test_damaged_chunks_are_not_read_but_computed_again(tmp_path, name, how, path):
    study = toy(log=str(tmp_path / "log"))
    damage(chunk(path, name, "1 0 2" + " 0" * (name == "loss")), how)
    data = pl.open_study(path)
    wrong = "missing" if how == "gone" else "damaged"
    with pytest.raises(ValueError, match=rf"{name}/c\.1\.0\.2.* is {wrong}: run the study again"):
        data[name].load()
    assert_array_equal(data[name][0], pl.open_study(path)[name][0])  # other chunks are readable
    assert_whole(pl.run_study(study, path), study)
    assert begun(tmp_path / "log") == ["(1, 0) 8 2"]


def test_damaged_labels_are_repaired(path):
    before = pl.open_study(path).load()
    damage(path / "results.zarr/lr/c.0", "flipped")
    with pytest.raises(ValueError, match="damaged"):
        pl.open_study(path)
    assert_same(pl.run_study(toy(), path), before)


def test_truncated_metadata_of_an_array_are_repaired(path):
    before = pl.open_study(path).load()
    damage(path / "results.zarr/growth/zarr.json", "cut")
    assert_same(pl.open_study(path), before)
    assert_same(pl.run_study(toy(), path), before)
    assert_whole(xarray.open_zarr(path / "results.zarr", consolidated=False, chunks=None), toy())


@pytest.mark.parametrize("how", ["cut", "flipped"])
def test_invalid_records_are_ignored(tmp_path, how, path):
    study = toy(log=str(tmp_path / "log"))
    damage(path / "tasks.log", how)
    assert progress(path).done < 40
    assert_whole(pl.run_study(study, path), study)
    assert len(begun(tmp_path / "log")) in (1, 2)  # one line, or two joined lines
    assert progress(path).done == 40


def test_temporary_files_are_removed(path):
    left = path / "results.zarr/growth/.c.0.0.0.0.0.1234.part"
    left.touch()
    pl.run_study(toy(), path)
    assert not left.exists()


def test_an_incomplete_store_is_created_again(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(layout, "publish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pl.run_study(toy(), tmp_path / "s")
    assert_whole(pl.run_study(toy(), tmp_path / "s"), toy())


# -------------------------------------------------------------------------------------- refusals


def test_a_second_driver_is_an_error(path):
    with store.driver(path):
        assert store.is_locked(path)
        child = os.fork()  # a worker that outlives its driver
        if child == 0:
            threading.Event().wait(60)
        with pytest.raises(
            ValueError, match=rf"no other process writes to.*process {os.getpid()} on"
        ):
            pl.run_study(toy(), path)
    try:
        assert not store.is_locked(path)
        assert_whole(pl.run_study(toy(), path), toy())
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_a_removed_lock_is_created_again(path):
    (path / "lock").unlink()
    assert_whole(pl.run_study(toy(), path), toy())
    assert (path / "lock").exists()


def test_a_folder_of_other_files_is_an_error(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="path must be the folder of a study or an empty one"):
        pl.run_study(toy(), tmp_path)
    for folder in (tmp_path, tmp_path / "none", tmp_path / "thesis.tex"):
        with pytest.raises(ValueError, match="path must be the folder of a study, got"):
            pl.open_study(folder)
    with pytest.raises(ValueError, match="path must be a writable folder"):
        pl.run_study(toy(), tmp_path / "none" / "deep")
    with pytest.raises(TypeError, match="path must be a folder, got 3"):
        pl.open_study(3)


def test_an_unknown_format_is_an_error(path):
    file = path / "results.zarr/zarr.json"
    content = json.loads(file.read_bytes())
    content["attributes"]["format"] = 3
    file.write_text(json.dumps(content))
    for call in (pl.open_study, lambda p: pl.run_study(toy(), p)):
        with pytest.raises(ValueError, match=r"of format 2 or less, .* has format 3"):
            call(path)


def test_arguments_are_checked_before_files_are_created(tmp_path):
    for options in ({"workers": 0}, {"executor": 3}, {"executor": "nonsense"}, {"extend": 1}):
        with pytest.raises((ValueError, TypeError), match=next(iter(options))):
            pl.run_study(toy(), tmp_path / "s", **options)
    assert not (tmp_path / "s").exists()


# ------------------------------------------------------------------------------------------ plan


def test_a_plan_counts_the_remaining_runs(tmp_path):
    study = toy(seconds=0.001)
    path = prepare(tmp_path / "s", study, 4)
    plan = pl.plan_study(study, path, workers=2)
    assert (plan.runs, plan.tasks, plan.block, plan.workers) == (40, 12, 4, 2)
    assert plan.measured
    kept = sum(np.dtype(v.dtype).itemsize * int(np.prod(v.shape)) for v in study.variables.values())
    assert plan.disk == 40 * kept
    pl.run_study(study, path)
    assert pl.plan_study(study, path).runs == 0
    assert pl.plan_study(toy(runs=11), path).tasks == 4
    with pytest.raises(ValueError, match="which differs"):
        pl.plan_study(toy(rates=(1.0,)), path)


def test_a_million_runs_are_planned_in_little_memory():
    study = toy(runs=1000, rates=np.linspace(0.1, 0.9, 500).tolist())
    tracemalloc.start()
    plan = pl.plan_study(study)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert plan.runs == 1_000_000
    assert plan.tasks == 1000 * -(-1000 // plan.block)
    assert peak < 50e6


def test_too_many_tasks_for_the_memory_are_an_error(tmp_path, monkeypatch, path):
    monkeypatch.setattr(_checks, "available_memory", lambda: 1e8)
    many = toy(runs=10**8)
    for call in (
        lambda: pl.plan_study(many),
        lambda: pl.run_study(many, tmp_path / "s"),
        lambda: prepare(tmp_path / "s", toy(runs=10**6), 1),
        lambda: pl.plan_study(many, path),
        lambda: pl.run_study(many, path, extend=True),
    ):
        with pytest.raises(
            ValueError, match=r"list of all tasks would take .* split it into several studies"
        ):
            call()
    assert not (tmp_path / "s/results.zarr").exists()
    assert_whole(pl.run_study(toy(), path), toy())


def test_duration_of_tasks(tmp_path):
    class Slow(Toy):
        def compute(self, point, first, count, *, threads=1):
            threading.Event().wait(0.01 * count)
            return super().compute(point, first, count)

    plan = pl.plan_study(toy(runs=100_000, kind=Slow), workers=2)
    assert 0.5 < plan.block * 0.01 < 4
    assert plan.seconds == pytest.approx(4e5 * 0.01 / 2, rel=0.5)


def test_plan_of_a_study_too_slow_to_time():
    class Huge(Toy):
        def cost(self, point):
            return 1e12

        def compute(self, *_, **__):
            raise AssertionError("must not be tried")

    plan = pl.plan_study(toy(kind=Huge), workers=1)
    assert not plan.measured
    assert (plan.block, plan.seconds) == (1, pytest.approx(40 * 1e12 / 3e9))


def test_plan_of_a_study_that_fails(tmp_path):
    (tmp_path / "bad").touch()
    study = toy(fail=str(tmp_path / "bad"))
    assert not pl.plan_study(study).measured
    assert pl.run_study(study, tmp_path / "s").attrs["runs_failed"] >= 4


def test_a_log_of_a_larger_study_is_an_error(tmp_path, path):
    small = prepare(tmp_path / "s", toy(runs=4), 4)
    shutil.copy(path / "tasks.log", small)
    for call in (pl.open_study, lambda p: pl.run_study(toy(runs=4), p)):
        with pytest.raises(ValueError, match=r"log has runs from [48] at .* of another study"):
            call(small)


def test_a_folder_without_a_store_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"no results.zarr in it"):
        progress(Path(tmp_path))
