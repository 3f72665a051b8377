"""Training by epochs: one path with `trajectory`, records of its parts, lasting checkpoints."""

import hashlib
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import time
import tracemalloc
import warnings
import zipfile
from contextlib import suppress

import cases
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl
from pylyap._weights import checkpoints
from pylyap._weights.run import TrainingRun, TrainingSettings

NET = pl.Network((4, 7, 6, 3), activation="tanh", loss="cross_entropy")
X, Y, X_TEST, Y_TEST = pl.datasets.split(*pl.datasets.iris(), 50)
TEST = X_TEST, Y_TEST
CURVES = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")
FIELDS = (*CURVES, "deviation", "state", "status", "n_done", "epochs", "w_initial")


def training(**options):
    """50 samples in batches of 12: 5 steps an epoch, the last of 2 samples."""
    return pl.TrainingMap(NET, X, Y, pl.GradientDescent(**{"lr": 0.1, "batch_size": 12} | options))


def weights(*batch, net=NET):
    return net.init(runs=batch or None, seed=3)


def same(a, b):
    for name in FIELDS:
        assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert_array_equal(a.snapshot_epochs, b.snapshot_epochs)
    assert set(a.snapshots) == set(b.snapshots)
    for name, values in a.snapshots.items():
        assert_array_equal(values, b.snapshots[name], err_msg=name)


# ------------------------------------------------------------------------------------ the one path


@pytest.mark.parametrize(
    "optimizer",
    [
        pl.GradientDescent(lr=0.1),
        pl.GradientDescent(lr=0.1, batch_size=50),
        pl.GradientDescent(lr=0.1, batch_size=7, shuffle=False, momentum=0.9, nesterov=True),
        pl.GradientDescent(lr=[[0.01], [0.2]], momentum=[0.1, 0.5, 0.9], batch_size=12, seed=5),
        pl.Adam(lr=[0.01, 0.02, 0.1], batch_size=12, weight_decay=0.01),
    ],
    ids=["full", "whole", "nesterov", "rates", "adam"],
)
def test_epochs_are_one_trajectory_to_the_bit(optimizer):
    system = pl.TrainingMap(NET, X, Y, optimizer)
    steps = -(-50 // (optimizer.batch_size or 50))
    w = weights(2, 3)
    h = pl.train(system, w, 6, test=TEST, snapshots=range(7))
    path = system.trajectory(w, 6 * steps, every=steps)
    assert h.settings["steps_per_epoch"] == steps
    assert_array_equal(h.state, path[:, :, -1])
    assert_array_equal(h.snapshots["weights"], system.weights(path))
    assert_array_equal(h.train_loss, system.loss(path))
    assert_array_equal(h.train_accuracy, system.accuracy(path))
    assert_array_equal(h.w_final, system.weights(path[:, :, -1]))
    held_out = pl.TrainingMap(NET, *TEST, pl.GradientDescent())
    assert_array_equal(h.test_loss, held_out.loss(system.weights(path)))
    assert_array_equal(h.test_accuracy, NET.accuracy(system.weights(path), *TEST))


@pytest.mark.parametrize("batch", [(), (1,), (4,), (2, 3)])
def test_records_have_the_shape_of_the_batch_and_the_values_of_the_parts(batch):
    system, w = training(), weights(*batch)
    h = pl.train(system, w, 6, test=TEST, record_every=2, snapshots=[6, 0, 3, 3], layers=[1])
    path = system.weights(system.trajectory(w, 30, every=5))
    assert_array_equal(h.epochs, [0, 2, 4, 6])
    assert_array_equal(h.train_loss, system.loss(path)[..., ::2])
    d = pl.weight_deviation(w, path[..., ::2, :], NET, bins=0)
    assert h.scopes == d.scopes
    assert h.deviation.shape == (*batch, 4, 4)
    # The same squares, added in another order.
    assert_allclose(np.moveaxis(h.deviation, -1, -2), d.rms, rtol=1e-14)
    assert_array_equal(h.snapshot_epochs, [0, 3, 6])
    assert_array_equal(h.snapshots["layer 1"], NET.unpack(path[..., ::3, :])[1][0])
    assert h.status.shape == h.n_done.shape == batch
    assert_array_equal(h.n_done, np.full(batch, 6))
    assert (h.seconds > 0).all()
    assert h.seconds.shape == (6,)


def test_a_state_is_taken_with_its_buffers():
    system = training(momentum=0.9)
    x = system.trajectory(weights(2), 3)[:, -1]
    h = pl.train(system, x, 2)
    assert_array_equal(h.state, system.trajectory(x, 10)[:, -1])
    assert_array_equal(h.w_initial, system.weights(x))


def test_squared_errors_have_no_accuracy():
    net = pl.Network((2, 5, 1))
    X, y = pl.datasets.quadratic(30)
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(batch_size=10))
    h = pl.train(system, net.init(runs=2), 3, test=(X[:7], y[:7]))
    assert h.train_accuracy is None
    assert h.test_accuracy is None
    assert h.test_loss.shape == (2, 4)
    assert_allclose(h.settings["guess_loss"], 0.5 * y.var())
    nothing = pl.train(system, net.init(), 2)
    assert nothing.test_loss is None
    assert nothing.snapshots == {}


def test_neither_threads_nor_other_runs_matter(monkeypatch):
    system, w = training(), weights(5)
    whole = pl.train(system, w, 4, test=TEST)
    same(whole, pl.train(system, w, 4, test=TEST, threads=1))
    alone = pl.train(system, w[3], 4, test=TEST)
    for name in (*CURVES, "deviation", "state"):
        assert_array_equal(getattr(alone, name), getattr(whole, name)[3])
    monkeypatch.setattr(sys.modules["pylyap.network"], "_ACCURACY_BLOCK", 1)  # one sample at a time
    same(whole, pl.train(system, w, 4, test=TEST))


# ---------------------------------------------------------------------------- runs that end early


@pytest.mark.parametrize("rates", ["one run's start", "one run's rate"])
def test_a_run_that_diverges_leaves_the_others_alone(rates):
    net = pl.Network((2, 5, 1), activation="identity")
    data = pl.datasets.quadratic(30)
    w = weights(3, net=net)
    if rates == "one run's start":
        w[1] *= 100.0
        system = pl.TrainingMap(net, *data, pl.GradientDescent(lr=0.1, batch_size=10))
    else:
        lr = np.array([0.1, 1e5, 0.1])
        system = pl.TrainingMap(net, *data, pl.GradientDescent(lr=lr, batch_size=10))
    h = pl.train(system, w, 40, snapshots=range(41))
    path = system.trajectory(w, 120, every=3)
    loss = system.loss(path)
    assert_array_equal(h.status, [0, 1, 0])
    gone = int((~np.isfinite(loss[1])).argmax())  # before the weights are
    assert 1 < gone < 40
    assert_array_equal(h.n_done, [40, gone - 1, 40])
    loss[1, gone:] = path[1, gone:] = np.nan
    assert_array_equal(h.train_loss, loss)
    assert_array_equal(h.snapshots["weights"], path)
    assert_array_equal(h.state, path[:, -1])
    assert np.isnan(h.deviation[1, :, gone:]).all()
    assert np.isfinite(h.deviation[1, :, :gone]).all()
    assert np.isfinite(h.deviation[[0, 2]]).all()
    assert "1 diverged" in repr(h)
    rarely = pl.train(system, w, 40, record_every=40)  # the states alone tell
    assert_array_equal(rarely.status, [0, 1, 0])
    assert_array_equal(rarely.state, h.state)


def test_a_loss_that_is_not_finite_ends_a_run_whose_weights_are():
    net = pl.Network((1, 1))
    system = pl.TrainingMap(net, [[1.0]], [0.0], pl.GradientDescent(lr=0.0))
    h = pl.train(system, [[1.0, 0.0], [1e200, 0.0]], 3, snapshots=[0, 3])
    assert_array_equal(h.status, [0, 1])
    assert_array_equal(h.n_done, [3, 0])
    assert_array_equal(h.train_loss, [[0.5] * 4, [np.nan] * 4])
    assert np.isnan(h.state[1]).all()
    assert np.isnan(h.snapshots["weights"][1]).all()
    assert_array_equal(h.deviation[:, 0], [[0.0] * 4, [np.nan] * 4])
    # w is multiplied by about -1e40 in each step: from 1e160 on its square is not finite.
    fast = pl.TrainingMap(net, [[1.0]], [0.0], pl.GradientDescent(lr=1e40))
    assert np.isfinite(fast.trajectory([1.0, 0.0], 4)).all()
    h = pl.train(fast, [1.0, 0.0], 6)
    assert (h.status, h.n_done) == (1, 3)
    assert_array_equal(np.isfinite(h.train_loss), [True] * 4 + [False] * 3)


def test_when_all_have_diverged_nothing_is_left_to_do():
    net = pl.Network((2, 5, 1), activation="relu")
    system = pl.TrainingMap(net, *pl.datasets.quadratic(30), pl.GradientDescent(lr=1e6))
    h = pl.train(system, net.init(runs=2), 10**6, record_every=10**5)
    assert_array_equal(h.status, [1, 1])
    assert (h.n_done < 100).all()
    assert np.isnan(h.seconds[100:]).all()


@pytest.mark.parametrize("lr", [0.1, np.array([0.1, 0.1, 0.0])])
def test_stopped_runs_keep_their_state(lr):
    system, w = training(lr=lr), weights(3)
    seen = []

    def below(loss):
        seen.append(loss.shape)
        return loss[:, -1] < (0.7, 0.8, 0.0)

    h = pl.train(system, w, 20, record_every=2, stop=below, snapshots=range(21), test=TEST)
    path = system.trajectory(w, 100, every=5)
    loss = system.loss(path)
    assert_array_equal(h.status, [2, 2, 0])
    ends = [2 * int((loss[i, ::2] < level).argmax()) for i, level in enumerate((0.7, 0.8))]
    assert 0 < min(ends) < 20
    assert_array_equal(h.n_done, [*ends, 20])
    assert seen == [(3, n) for n in range(1, 12)]
    for run, end in enumerate([*ends, 20]):
        assert_array_equal(h.state[run], path[run, end])
        assert_array_equal(h.train_loss[run, : end // 2 + 1], loss[run, : end + 1 : 2])
        assert np.isnan(h.train_loss[run, end // 2 + 1 :]).all()
        assert np.isnan(h.test_loss[run, end // 2 + 1 :]).all()
        assert_array_equal(h.snapshots["weights"][run, : end + 1], path[run, : end + 1])
        assert np.isnan(h.snapshots["weights"][run, end + 1 :]).all()
    assert "2 stopped early" in repr(h)


def test_a_run_that_diverged_is_not_stopped_as_well():
    net = pl.Network((1, 1))
    system = pl.TrainingMap(net, [[1.0]], [0.0], pl.GradientDescent(lr=[0.1, 1e40]))
    h = pl.train(system, [1.0, 0.0], 9, stop=lambda loss: np.isnan(loss).any(axis=-1))
    assert_array_equal(h.status, [0, 1])


def test_stopping_at_once():
    h = pl.train(training(), weights(2), 5, stop=lambda loss: True)
    assert_array_equal(h.n_done, [0, 0])
    assert_array_equal(h.state, weights(2))
    assert np.isnan(h.seconds).all()


# ------------------------------------------------------------------------------------- checkpoints


OPTIONS = {"test": TEST, "snapshots": [0, 2, 5], "layers": [0, 2]}


def test_going_on_from_a_checkpoint_gives_the_same_bits(tmp_path):
    file, w = tmp_path / "run.npz", weights(2, 3)
    w[0, 1] *= 1e154  # its loss is not finite, and stays so
    for system in (
        training(momentum=0.5),
        pl.TrainingMap(NET, X, Y, pl.Adam(lr=[[0.01], [0.1]], batch_size=12)),
    ):
        whole = pl.train(system, w, 7, **OPTIONS)
        pl.train(system, w, 3, **OPTIONS | {"snapshots": [0, 2]}, checkpoint=file)
        more = pl.train(system, w, 5, **OPTIONS, checkpoint=file, threads=1)
        assert_array_equal(more.train_loss, whole.train_loss[..., :6])
        done = pl.train(system, w, 7, **OPTIONS, checkpoint=file)
        same(done, whole)
        assert np.isfinite(done.seconds).all()
        written = file.stat().st_mtime_ns
        again = pl.train(system, w, 7, **OPTIONS, checkpoint=file)
        same(again, whole)
        assert_array_equal(again.seconds, done.seconds)
        assert file.stat().st_mtime_ns == written  # there was nothing to do
        assert os.listdir(tmp_path) == ["run.npz"]
        file.unlink()


def test_stopped_runs_stay_stopped_after_a_checkpoint(tmp_path):
    rule = {"stop": lambda loss: loss[:, -1] < (0.7, 0.0), "record_every": 2}
    whole = pl.train(training(), weights(2), 20, **rule)
    assert_array_equal(whole.status, [2, 0])
    pl.train(training(), weights(2), 14, **rule, checkpoint=tmp_path / "c")
    same(pl.train(training(), weights(2), 20, **rule, checkpoint=tmp_path / "c"), whole)


def test_checkpoints_come_when_they_are_due(tmp_path, monkeypatch):
    seen = []
    save = checkpoints.save

    def noted(path, arrays, whose):
        seen.append(int(arrays["epoch"]))
        save(path, arrays, whose)

    monkeypatch.setattr(checkpoints, "save", noted)
    pl.train(training(), weights(), 10, checkpoint=tmp_path / "a", checkpoint_every=3)
    assert seen == [3, 6, 9, 10]
    seen.clear()
    pl.train(training(), weights(), 12, checkpoint=tmp_path / "a", checkpoint_every=3)
    assert seen == [12]
    seen.clear()
    pl.train(training(), weights(), 10, checkpoint=tmp_path / "b")
    assert seen == [10]  # half a minute has not passed
    monkeypatch.setattr(sys.modules["pylyap._weights.checkpoint_writer"], "_SECONDS", 0.0)
    monkeypatch.setattr(sys.modules["pylyap._weights.checkpoint_writer"], "_SHARE", 0.0)
    seen.clear()
    pl.train(training(), weights(), 4, checkpoint=tmp_path / "c")
    assert seen == [1, 2, 3, 4]


OTHERS = {
    # what differs, and what the message names
    "lr": (training(lr=0.2), {}, r"lr 0\.1 \(here 0\.2\)"),
    "seed": (training(seed=1), {}, "batch_seed"),
    "batch size": (training(batch_size=10), {}, r"batch_size 12 \(here 10\)"),
    "momentum": (training(momentum=0.1), {}, "momentum 0.0"),
    "optimizer": (
        pl.TrainingMap(NET, X, Y, pl.Adam()),
        {},
        r"optimizer GradientDescent \(here Adam\).* more",
    ),
    "data": (pl.TrainingMap(NET, X + 1e-15, Y, training().optimizer), {}, "it has X float64"),
    "order of data": (pl.TrainingMap(NET, X[::-1], Y[::-1], training().optimizer), {}, "X .*; y"),
    "labels": (pl.TrainingMap(NET, X, (Y + 1) % 3, training().optimizer), {}, "it has y int64"),
    "network": (
        pl.TrainingMap(
            pl.Network((4, 7, 6, 3), activation="relu", loss="cross_entropy"),
            X,
            Y,
            training().optimizer,
        ),
        {},
        r"network Network\(.*tanh.*here.*relu",
    ),
    "start": (training(), {"w0": weights(2) + 1e-9}, "w0 float64"),
    "runs": (training(), {"w0": weights(3)}, r"w0 float64 \(2, 104\)"),
    "records": (training(), {"record_every": 2}, r"record_every 1 \(here 2\)"),
    "layers": (training(), {"layers": [1]}, r"layers all \(here \(1,\)\)"),
    "test data": (training(), {"test": (X_TEST[:50], Y_TEST[:50])}, r"test X .*; test y"),
    "no test data": (training(), {"test": None}, r"test X .*\(here nothing\)"),
    "snapshots": (training(), {"snapshots": [0, 3]}, r"snapshots must be those .* \[0, 2\]"),
    "fewer epochs": (
        training(),
        {"epochs": 2, "snapshots": [0, 2]},
        "epochs must be at least .* 4",
    ),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    file = tmp_path_factory.mktemp("checkpoint") / "run.npz"
    pl.train(training(), weights(2), 4, test=TEST, snapshots=[0, 2], checkpoint=file)
    return file


@pytest.mark.parametrize("what", OTHERS)
def test_a_checkpoint_of_another_training_is_refused(what, checkpoint):
    system, other, says = OTHERS[what]
    options = {"w0": weights(2), "epochs": 4, "test": TEST, "snapshots": [0, 2]} | other
    before = checkpoint.read_bytes()
    with pytest.raises(ValueError, match=says) as caught:
        pl.train(system, **options, checkpoint=checkpoint)
    assert "run.npz" in str(caught.value)
    assert checkpoint.read_bytes() == before


def test_an_activation_is_known_by_its_values(tmp_path):
    def mapped(factor):
        own = pl.Activation(
            lambda z: factor * z, lambda z: factor * 1.0, lambda z: 0.0, name="mine"
        )
        return pl.TrainingMap(pl.Network((4, 2, 3), own), X, np.eye(3)[Y], pl.GradientDescent())

    one, other = mapped(1.0), mapped(2.0)
    w = one.network.init()
    pl.train(one, w, 1, checkpoint=tmp_path / "c")
    pl.train(one, w, 2, checkpoint=tmp_path / "c")
    with pytest.raises(ValueError, match="activation 0"):
        pl.train(other, w, 2, checkpoint=tmp_path / "c")


def test_a_damaged_checkpoint_is_refused_and_never_believed(checkpoint, tmp_path):
    whole, file = checkpoint.read_bytes(), tmp_path / "run.npz"
    system = training()
    settings = TrainingSettings(
        system=system,
        epochs=4,
        every=1,
        test=pl.TrainingMap(system.network, *TEST, pl.GradientDescent()),
        snapshot_epochs=np.array([0, 2]),
        layers=None,
        threads=None,
    )
    run = TrainingRun(settings, weights(2))
    whose = run.identity()
    expected = checkpoints.load(checkpoint, whose)
    rng = np.random.default_rng(0)
    for length in [0, 1, *rng.integers(2, len(whole), 40), len(whole) - 1]:
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"must be a valid pylyap checkpoint, .*run\.npz"):
            checkpoints.load(file, whose)
    refused = 0
    for place, bit in zip(rng.integers(0, len(whole), 400), rng.integers(0, 8, 400), strict=True):
        content = bytearray(whole)
        content[place] ^= 1 << bit
        file.write_bytes(content)
        try:
            found = checkpoints.load(file, whose)
        except ValueError as error:
            assert "checkpoint must be" in str(error)  # noqa: PT017
            refused += 1
        else:
            assert set(found) == set(expected)
            for name, values in expected.items():
                assert_array_equal(found[name], values)
    assert refused > 300  # the rest are dates and the like
    for content in (b"no checkpoint" * 100, pickle.dumps({"epoch": 3})):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="checkpoint must be a valid pylyap checkpoint"):
            pl.train(training(), weights(2), 4, checkpoint=file)
    np.savez(file, epoch=np.array([{}], object))  # a pickle inside
    with pytest.raises(ValueError, match="checkpoint must be a valid pylyap checkpoint"):
        pl.train(training(), weights(2), 4, checkpoint=file)
    # A table of contents that lacks an array, and a header that promises too much.
    with zipfile.ZipFile(checkpoint) as all_of_it, zipfile.ZipFile(file, "w") as some_of_it:
        for name in all_of_it.namelist():
            if name != "status.npy":
                some_of_it.writestr(name, all_of_it.read(name))
    with pytest.raises(ValueError, match=r"run\.npz' is damaged or not one: arrays are missing"):
        checkpoints.load(file, whose)
    assert whole.count(b"(2, 104), }  ") == 1
    file.write_bytes(whole.replace(b"(2, 104), }  ", b"(2, 10499), }"))
    with pytest.raises(
        ValueError, match=r"run\.npz' is damaged or not one: states\.npy has changed"
    ):
        checkpoints.load(file, whose)
    lacking = {name: values for name, values in expected.items() if name != "states"}
    checkpoints.save(file, lacking, whose)
    with pytest.raises(ValueError, match=r"run\.npz' is incomplete: 'states'"):
        pl.train(training(), weights(2), 4, test=TEST, snapshots=[0, 2], checkpoint=file)


def rewritten(whole, method=zipfile.ZIP_STORED, **changed):
    """A checkpoint with other contents, whose checksums are right."""
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(whole)) as old,
        zipfile.ZipFile(stream, "w", method) as new,
    ):
        for name in old.namelist():
            data = changed.get(name.removesuffix(".npy"), old.read(name))
            if isinstance(data, np.ndarray):
                member = io.BytesIO()
                np.save(member, data, allow_pickle=True)
                data = member.getvalue()
            new.writestr(name, data)
    return stream.getvalue()


def promising(shape):
    """The header of an array without its numbers."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": shape}
    )
    return header.getvalue()


def overlapping(whole):
    """A table of contents in which all names lead to the same, large member."""
    content = zipfile.ZipFile(io.BytesIO(rewritten(whole, states=np.zeros((2000, 100)))))
    large = content.getinfo("states.npy")
    stream = io.BytesIO(content.fp.getvalue())
    archive = zipfile.ZipFile(stream, "a")
    for i in range(200):
        copy = zipfile.ZipInfo(f"more{i}.npy")
        for name in ("header_offset", "CRC", "file_size", "compress_size", "compress_type"):
            setattr(copy, name, getattr(large, name))
        archive.filelist.append(copy)
    archive._didModify = True
    archive.close()
    return stream.getvalue()


CRAFTED = {
    "compressed": lambda whole: rewritten(whole, zipfile.ZIP_DEFLATED),
    "inflates 1000-fold": lambda whole: rewritten(
        whole, zipfile.ZIP_DEFLATED, states=np.zeros((100_000, 104))
    ),
    "overlapping members": overlapping,
    "a header that promises 8 TB": lambda whole: rewritten(whole, states=promising((10**12,))),
    "a header that promises less": lambda whole: rewritten(
        whole, states=promising((1, 104)) + bytes(2 * 104 * 8)
    ),
    "negative lengths": lambda whole: rewritten(whole, states=promising((-2, -104))),
    "pickles": lambda whole: rewritten(whole, status=np.array([{}, {}], object)),
    "no arrays": lambda whole: rewritten(whole, status=b"status"),
    "one state for both": lambda whole: rewritten(whole, states=np.zeros((1, 104))),
    "one loss for all": lambda whole: rewritten(whole, train_loss=np.zeros(1)),
    "a status that is no number": lambda whole: rewritten(whole, status=np.array(["a", "b"])),
    "an epoch before the first": lambda whole: rewritten(whole, epoch=np.array(-3)),
    "two epochs": lambda whole: rewritten(whole, epoch=np.array([4, 4])),
    "deep JSON": lambda whole: rewritten(whole, identity=np.array("[" * 100_000)),
    "an identity of another kind": lambda whole: rewritten(whole, identity=np.array("[1, 2]")),
}


@pytest.mark.parametrize("what", CRAFTED)
def test_a_crafted_checkpoint_is_refused_before_it_is_believed(what, checkpoint, tmp_path):
    """Checksums are right. Nothing is inflated or broadcast, and memory is that of the file."""
    file = tmp_path / "run.npz"
    file.write_bytes(CRAFTED[what](checkpoint.read_bytes()))

    def resume():
        pl.train(training(), weights(2), 4, test=TEST, snapshots=[0, 2], checkpoint=file)

    tracemalloc.start()
    try:
        with pytest.raises(
            ValueError, match=r"checkpoint must be a valid pylyap checkpoint.*run\.npz"
        ):
            resume()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000 + 5 * file.stat().st_size  # bytes; 80 MB would have been inflated


def test_mutated_checkpoints_are_read_or_refused_by_name(checkpoint, tmp_path):
    whole, file = checkpoint.read_bytes(), tmp_path / "run.npz"
    rng = np.random.default_rng(1)
    for _ in range(100):
        a, b = np.sort(rng.integers(0, len(whole) + 1, 2))
        changed = bytearray(whole)
        for at in rng.integers(0, len(whole), 3):
            changed[at] = rng.choice([0, 1, 0x7F, 0xFF])
        for mutated in (bytes(changed), whole[:a] + whole[b:], whole[:b] + whole[a:]):
            file.write_bytes(mutated)
            with suppress(ValueError):
                pl.train(training(), weights(2), 4, test=TEST, snapshots=[0, 2], checkpoint=file)


@pytest.mark.parametrize("kind", ["pipe", "device", "loop"])
def test_a_checkpoint_is_a_regular_file(kind, tmp_path):
    file = tmp_path / "run.npz"
    if kind == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to("/dev/zero" if kind == "device" else file)
    with pytest.raises(ValueError, match=r"checkpoint must be a regular file, got .*run\.npz"):
        pl.train(training(), weights(2), 4, checkpoint=file)
    assert not file.is_file()


def test_a_long_name_has_a_temporary_file_too(tmp_path):
    file = tmp_path / f"{'é' * 120}.npz"  # 244 bytes, where a system allows 255
    pl.train(training(), weights(2), 2, checkpoint=file)
    assert os.listdir(tmp_path) == [file.name]
    (tmp_path / ".run.npz.bak.0a1b.part").touch()  # of a file with a longer name
    pl.train(training(), weights(2), 2, checkpoint=tmp_path / "run.npz")
    assert (tmp_path / ".run.npz.bak.0a1b.part").exists()


SCRIPT = """
import sys
import numpy as np
import pylyap as pl
X, y = pl.datasets.iris()
net = pl.Network((4, 7, 6, 3), activation="tanh", loss="cross_entropy")
system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=0.1, batch_size=12, momentum=0.5))
options = dict(test=(X[::7], y[::7]), snapshots=[0, 4], checkpoint=sys.argv[1])
pl.train(system, net.init(runs=20), 100_000, checkpoint_every=1, **options)
"""


def start(file):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(file)], stderr=subprocess.PIPE, cwd=file.parent
    )


def wait_for_news(process, file, before):
    """Until there is another checkpoint than before."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        assert process.poll() is None, process.stderr.read().decode()
        if file.exists() and file.stat().st_mtime_ns != before:
            return
        time.sleep(0.005)
    raise TimeoutError


def after_all(file):
    """What the script would give, in one go and from the checkpoint."""
    with np.load(file) as content:
        epochs = int(content["epoch"]) + 3
    X, y = pl.datasets.iris()
    optimizer = pl.GradientDescent(lr=0.1, batch_size=12, momentum=0.5)
    system = pl.TrainingMap(NET, X, y, optimizer)
    options = {"test": (X[::7], y[::7]), "snapshots": [0, 4]}
    w = NET.init(runs=20)
    same(pl.train(system, w, epochs, **options, checkpoint=file),
         pl.train(system, w, epochs, **options))  # fmt: skip
    return epochs


@pytest.mark.skipif(os.name != "posix", reason="kills as POSIX does")
def test_killed_at_any_moment_it_goes_on_with_the_same_bits(tmp_path):
    file, rng = tmp_path / "run.npz", np.random.default_rng()
    before, epochs = None, 0
    for _ in range(3):
        process = start(file)
        try:
            wait_for_news(process, file, before)
            time.sleep(rng.uniform(0.0, 0.15))
        finally:
            process.kill()
            process.wait()
            process.stderr.close()
        assert process.returncode == -signal.SIGKILL
        before = file.stat().st_mtime_ns
        with np.load(file) as content:
            assert int(content["epoch"]) > epochs
            epochs = int(content["epoch"])
    after_all(file)
    assert os.listdir(tmp_path) == ["run.npz"]  # what killed writers left is gone


def test_what_killed_writers_left_goes_and_nothing_else(tmp_path):
    for name in (".run.npz.0a1b.part", ".other.npz.0a1b.part", ".run.npz", "run.npz.part"):
        (tmp_path / name).touch()
    pl.train(training(), weights(), 1, checkpoint=tmp_path / "run.npz")
    kept = [".other.npz.0a1b.part", ".run.npz", "run.npz", "run.npz.part"]
    assert sorted(os.listdir(tmp_path)) == kept


@pytest.mark.skipif(os.name != "posix", reason="interrupts as POSIX does")
def test_interrupted_it_saves_the_last_whole_epoch(tmp_path):
    file = tmp_path / "run.npz"
    process = start(file)
    try:
        wait_for_news(process, file, None)
        process.send_signal(signal.SIGINT)
        error = process.communicate(timeout=60)[1].decode()
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in error
    after_all(file)
    assert os.listdir(tmp_path) == ["run.npz"]


@pytest.mark.parametrize("where", ["steps", "records"])
def test_an_interruption_within_an_epoch_leaves_no_trace_of_it(where, tmp_path, monkeypatch):
    system, w, file = training(), weights(3), tmp_path / "run.npz"
    name = {"steps": "trajectory", "records": "loss"}[where]
    method, calls = getattr(pl.TrainingMap, name), []

    def interrupted(self, *args, **options):
        calls.append(0)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return method(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(pl.TrainingMap, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            pl.train(system, w, 20, **OPTIONS, checkpoint=file)
    with np.load(file) as content:
        done = int(content["epoch"])
        assert done == {"steps": 8, "records": 3}[where]
        assert content["train_loss"].shape == (3, done + 1)
        assert np.isfinite(content["train_loss"]).all()
    same(pl.train(system, w, 20, **OPTIONS, checkpoint=file), pl.train(system, w, 20, **OPTIONS))


def full(save, limit):
    """The writer on a disk that has so many bytes left for a file."""
    resource = pytest.importorskip("resource")

    def write(*args):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            save(*args)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return write


@pytest.mark.parametrize("limit", [0, 100, 5000])
def test_a_full_disk_costs_no_training_and_no_old_checkpoint(limit, tmp_path, monkeypatch):
    system, w, file = training(), weights(20), tmp_path / "run.npz"
    whole = pl.train(system, w, 9)
    pl.train(system, w, 3, checkpoint=file)
    before = file.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", full(checkpoints.save, limit))
        with pytest.warns(RuntimeWarning, match=r"cannot write checkpoint .*run\.npz") as warned:
            h = pl.train(system, w, 9, checkpoint=file, checkpoint_every=1)
    assert len(warned) == 1
    assert "epoch 3" in str(warned[0].message)
    same(h, whole)
    assert file.read_bytes() == before
    assert os.listdir(tmp_path) == ["run.npz"]
    same(pl.train(system, w, 9, checkpoint=file), whole)


def test_a_disk_that_has_room_again_is_written_to(tmp_path, monkeypatch):
    save, calls = checkpoints.save, []

    def sometimes(*args):
        calls.append(0)
        if len(calls) in (2, 3, 5):
            raise OSError(28, "No space left on device")
        save(*args)

    monkeypatch.setattr(checkpoints, "save", sometimes)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        pl.train(training(), weights(), 6, checkpoint=tmp_path / "c", checkpoint_every=1)
    assert [str(w.message).split("epoch ")[1][0] for w in warned] == ["1", "4"]
    with np.load(tmp_path / "c") as content:
        assert content["epoch"] == 6


def test_a_checkpoint_may_be_a_link_and_holds_no_pickles(tmp_path):
    (tmp_path / "far").mkdir()
    link = tmp_path / "near.npz"
    link.symlink_to(tmp_path / "far" / "run.npz")
    pl.train(training(), weights(2), 2, checkpoint=str(link))
    assert link.is_symlink()
    with np.load(tmp_path / "far" / "run.npz", allow_pickle=False) as content:
        assert content["train_loss"].shape == (2, 3)


# ------------------------------------------------------------------------------------- the result


def test_a_history_becomes_a_dataset(tmp_path):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    for batch, keys in (((), "layer 1"), ((3,), "layer 1"), ((2, 3), "weights")):
        layers = None if keys == "weights" else [1]
        h = pl.train(training(), weights(*batch), 4, test=TEST, snapshots=[0, 4], layers=layers)
        data = h.to_dataset()
        data.to_netcdf(tmp_path / "h.nc", engine="h5netcdf")
        with xarray.open_dataset(tmp_path / "h.nc", engine="h5netcdf") as back:
            for name in (*CURVES, "deviation", "state", "status", "seconds"):
                assert_array_equal(back[name].values, getattr(h, name))
            assert_array_equal(back[keys.replace(" ", "_")].values, h.snapshots[keys])
            assert back.sizes["epoch"] == 5
            assert list(back["scope"].values) == list(h.scopes)
            assert back.attrs["steps_per_epoch"] == 5
    h = pl.train(training(), weights(), 1)
    assert "test_loss" not in h.to_dataset()


def test_a_history_is_short_to_read_and_pickles():
    h = pl.train(training(), weights(2, 3), 4, test=TEST)
    text = repr(h)
    assert len(text) < 200
    for word in ("6 runs (batch_0 2 × batch_1 3)", "4 epochs", "training loss", "test loss"):
        assert word in text
    same(pickle.loads(pickle.dumps(h)), h)
    assert repr(pl.train(training(), weights(), 1)).startswith("History of 1 run: 1 epoch\n")


def test_progress_shows_epochs_and_loss_on_request_only(capfd, tmp_path):
    quiet = pl.train(training(), weights(2), 5, checkpoint=tmp_path / "c")
    assert capfd.readouterr() == ("", "")
    loud = pl.train(training(), weights(2), 8, checkpoint=tmp_path / "c", progress=True)
    out, error = capfd.readouterr()
    assert out == ""
    assert "8/8" in error
    assert "epochs" in error
    assert f"loss {np.median(loud.train_loss[:, -1]):.4g}" in error
    assert_array_equal(loud.train_loss[:, :6], quiet.train_loss)


# ----------------------------------------------------------------------------------------- errors

NAN_START = weights(2)
NAN_START[1, 0] = np.nan


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"epochs": 2.0}, "epochs must be an integer"),
        ({"w0": np.zeros(5)}, r"w0 must have shape \(..., 104\), got \(5,\)"),
        ({"w0": NAN_START}, "w0 must be finite"),
        ({"record_every": 0}, "record_every must be at least 1"),
        ({"record_every": 3}, "record_every must divide epochs=4, got 3"),
        ({"test": X_TEST}, r"test must be \(X, y\)"),
        ({"test": 3}, r"test must be \(X, y\)"),
        ({"test": (X_TEST[:, :3], Y_TEST)}, r"test must be data .* X must have shape \(N, 4\)"),
        ({"test": (X_TEST, Y_TEST[1:])}, r"test must be data .* y must have shape \(100,\)"),
        ({"test": (X_TEST, Y_TEST + 1)}, "test must be data .* integer labels in 0 ... 2"),
        ({"test": (X_TEST * np.nan, Y_TEST)}, "test must be data .* X must be finite"),
        ({"test": (X_TEST.astype(str), Y_TEST)}, "test must be data .* real numbers"),
        ({"snapshots": [0, 5]}, r"snapshots\[1\] must be in 0 ... 4, got 5"),
        ({"snapshots": [-1]}, r"snapshots\[0\] must be in 0 ... 4, got -1"),
        ({"snapshots": 3}, "snapshots must be epochs, got 3"),
        ({"snapshots": "13"}, "snapshots must be epochs, got '13'"),
        ({"snapshots": [0.5]}, r"snapshots\[0\] must be an integer"),
        ({"snapshots": [1], "layers": [3]}, r"layers\[0\] must be in 0 ... 2, got 3"),
        ({"snapshots": [1], "layers": ["layer 1"]}, r"layers\[0\] must be an integer"),
        ({"snapshots": [1], "layers": []}, "layers must have at least one layer"),
        ({"snapshots": [1], "layers": 1}, "layers must be indices of layers, got 1"),
        ({"layers": [1]}, "layers needs epochs at which they are kept"),
        ({"stop": 0.1}, "stop must be callable"),
        ({"stop": lambda loss: loss[:, -1]}, "stop must return True or False for each run"),
        ({"stop": lambda loss: loss < 1}, r"stop must return True or False .* shape \(2,\)"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"progress": 1}, "progress must be True or False"),
        ({"checkpoint_every": 3}, "checkpoint_every needs a checkpoint"),
        ({"checkpoint": "c.npz", "checkpoint_every": 0}, "checkpoint_every must be at least 1"),
        ({"checkpoint": 3}, "checkpoint must be a path"),
        ({"checkpoint": "no/such/c.npz"}, "checkpoint must lie in a folder .* no 'no/such'"),
        ({"checkpoint": "."}, "checkpoint must be a file, '.' is a folder"),
        ({"checkpoint": "/proc/c.npz"}, "checkpoint must be in a folder that can be written, and"),
        ({"system": cases.henon()}, "system must be a TrainingMap"),
        ({"epochs": 10**15}, "records and snapshots of 2 runs would take .* record_every"),
    ],
)
def test_bad_arguments_are_named_before_anything_is_trained(options, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "stop" not in options:
        monkeypatch.setattr(pl.TrainingMap, "trajectory", None)
    with pytest.raises((ValueError, TypeError), match=says):
        pl.train(**{"system": training(), "w0": weights(2), "epochs": 4} | options)
    assert os.listdir(tmp_path) == []


def test_images_and_labels_must_be_of_one_number():
    with pytest.raises(ValueError, match=r"y must have shape \(50,\), one label per sample"):
        pl.TrainingMap(NET, X, Y[:-1], pl.GradientDescent())
    with pytest.raises(ValueError, match="batch_size must be at most the 50 samples"):
        training(batch_size=51)


@pytest.mark.skipif(
    "PYLYAP_MNIST" not in os.environ, reason="PYLYAP_MNIST names a folder with MNIST"
)
def test_real_digits_are_learnt():
    images, labels = pl.datasets.mnist(os.environ["PYLYAP_MNIST"], "test")
    pixels = images.reshape(len(images), -1) / 255
    X, y, X_test, y_test = pl.datasets.split(pixels, labels, 2000)
    net = pl.Network((784, 32, 32, 10), activation="relu", loss="cross_entropy")
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=0.1, batch_size=128))
    h = pl.train(system, net.init(runs=2), 8, test=(X_test[:1000], y_test[:1000]))
    assert_array_equal(h.settings["steps_per_epoch"], 16)  # 2000 / 128 = 15.6
    assert (h.test_accuracy[:, -1] > 0.8).all()  # 0.86 and 0.87
    assert (h.test_accuracy[:, 0] < 0.2).all()
    assert h.settings["guess_loss"] == np.log(10)


# ------------------------------------------------------------- bytes, single precision, schedules


def slower(t):
    return 1.0 / (1.0 + 0.1 * t)


def images(dtype="float64", schedule=slower):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 2, 2), dtype=np.uint8)
    rule = pl.GradientDescent(lr=0.1, batch_size=12, schedule=schedule)
    return pl.TrainingMap(NET, pixels, np.arange(60) % 3, rule, dtype=dtype), pixels


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_images_in_bytes_with_a_schedule_go_on_to_the_same_bits(dtype, tmp_path):
    system, pixels = images(dtype)
    test = pixels[:20], np.arange(20) % 3
    whole = pl.train(system, weights(2), 6, test=test)
    file = tmp_path / "images.npz"
    pl.train(images(dtype)[0], weights(2), 4, test=test, checkpoint=file)
    # a function made anew and one that was asked for many steps already are the same schedule
    again = images(dtype, lambda t: slower(t))[0]
    again.trajectory(weights(2), 50)
    same(pl.train(again, weights(2), 6, test=test, checkpoint=file), whole)
    assert_array_equal(whole.state, system.trajectory(weights(2), 30)[..., -1, :])
    other = "float32" if dtype == "float64" else "float64"
    with pytest.raises(ValueError, match=f"it has dtype {dtype} .here {other}."):
        pl.train(images(other)[0], weights(2), 6, test=test, checkpoint=file)
    with pytest.raises(ValueError, match="it has schedule"):
        pl.train(images(dtype, None)[0], weights(2), 6, test=test, checkpoint=file)


def scheduled(schedule):
    """Full batch: an epoch is a step."""
    return pl.TrainingMap(NET, X, Y, pl.GradientDescent(lr=0.1, schedule=schedule))


def test_a_schedule_that_differs_at_any_step_made_is_refused(tmp_path):
    file, w, fields = tmp_path / "run.npz", weights(), {"record_every": 100}
    pl.train(scheduled(slower), w, 1200, checkpoint=file, **fields)
    content = file.read_bytes()
    for t in (0, 999, 1000, 1199):  # functions were compared over 1000 steps once
        other = scheduled(lambda s, t=t: slower(s) * (1.0 + 1e-12 * (s == t)))
        with pytest.raises(ValueError, match=r"it has schedule float64 \(1200,\)"):
            pl.train(other, w, 1300, checkpoint=file, **fields)
    with pytest.raises(ValueError, match=r"it has schedule .* \(here None\)"):
        pl.train(scheduled(None), w, 1300, checkpoint=file, **fields)
    assert file.read_bytes() == content
    # What comes later may differ: the states so far are those of this training too. A function and
    # a table of the same factors are the same schedule.
    later = scheduled([slower(t) * (1.0 if t < 1200 else 0.5) for t in range(1300)])
    whole = pl.train(later, w, 1300, **fields)
    same(pl.train(later, w, 1300, checkpoint=file, **fields), whole)


def test_a_table_may_grow_with_the_epochs(tmp_path):
    file, w, table = tmp_path / "run.npz", weights(2), np.linspace(1.0, 0.1, 30)
    whole = pl.train(training(schedule=table), w, 6)
    pl.train(training(schedule=table[:15]), w, 3, checkpoint=file)
    with pytest.raises(ValueError, match=r"schedule must have a factor .* got 15 for 30 steps"):
        pl.train(training(schedule=table[:15]), w, 6, checkpoint=file)
    same(pl.train(training(schedule=table), w, 6, checkpoint=file), whole)
    with pytest.raises(ValueError, match="epochs must be at least the 6 that checkpoint"):
        pl.train(training(schedule=table[:15]), w, 3, checkpoint=file)


def as_earlier_versions_wrote(file, schedule):
    """Rewrite a checkpoint: its schedule is known by this text, whatever steps were made."""
    with np.load(file) as content:
        arrays = {name: content[name] for name in content.files}
    words = json.loads(str(arrays.pop("identity")))
    del words["by_epoch"]
    words["identity"]["schedule"] = schedule
    np.savez(file, identity=np.array(json.dumps(words)), **arrays)


def digest(factors):
    code = hashlib.blake2b(np.array(factors).tobytes(), digest_size=8).hexdigest()
    return f"float64 ({len(factors)},) {code}"


def test_checkpoints_of_earlier_versions_stay_readable(tmp_path):
    file, w, table = tmp_path / "run.npz", weights(2), np.linspace(1.0, 0.1, 30)
    first_thousand = digest([slower(t) for t in range(1000)])
    for schedule, text in ((slower, first_thousand), (table, digest(table)), (None, "None")):
        system = training(schedule=schedule)
        pl.train(system, w, 3, checkpoint=file)
        as_earlier_versions_wrote(file, text)
        old = file.read_bytes()
        for other in (lambda t: 1.0, 0.5 * table, lambda t: 1.0 - t / 500.0):
            with pytest.raises(ValueError, match="it has schedule"):
                pl.train(training(schedule=other), w, 6, checkpoint=file)
        assert file.read_bytes() == old
        same(pl.train(system, w, 6, checkpoint=file), pl.train(system, w, 6))
        file.unlink()
