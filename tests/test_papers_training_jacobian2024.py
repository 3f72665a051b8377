"""The study of the training Jacobian at small sizes: experiments, stored results, the command."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

from pylyap.cli import run
from pylyap.papers import training_jacobian2024 as study
from pylyap.papers.training_jacobian2024 import __main__ as command


@pytest.fixture(scope="module")
def quick():
    return study.Study(quick=True)


@pytest.fixture(scope="module")
def reference(quick):
    return quick.result("spectrum")


# ------------------------------------------------------------------------------------- the task


def test_the_task_is_the_published_one():
    task = study.Task()
    assert task.network.layers == (64, 64, 10)
    assert task.network.n_params == 4810
    assert task.n_steps == 625
    X, y, unseen, others = task.digits
    assert (X.shape, unseen.shape) == ((1600, 64), (197, 64))
    everything = np.concatenate([X, unseen])
    assert_array_equal(np.sort(everything, axis=0), np.sort(pl.datasets.digits()[0], axis=0))
    assert_array_equal(np.bincount(np.r_[y, others]), np.bincount(pl.datasets.digits()[1]))
    system = task.system()
    assert_array_equal(system.batch(25 + 3), np.arange(192, 256))  # the same in each epoch
    assert_allclose(system.optimizer.schedule[[0, 312, 624]], [1.0, 0.5, 0.0], atol=3e-3)
    (W, b), (V, c) = task.network.unpack(task.start())
    # 4 standard errors of variances 1/64: 640 and 74 draws
    assert_allclose([W.var(), V.var()], 1 / 64, rtol=4 * np.sqrt(2 / 640))
    assert_allclose(np.r_[b, c].var(), 1 / 64, rtol=4 * np.sqrt(2 / 74))


def test_order_and_labels_permute():
    task = study.Task(hidden=2)
    first, moved, other = task.system(), task.system(order=3), task.system(labels=3)
    assert_array_equal(first.X, other.X)
    assert (first.y != other.y).any()
    assert_array_equal(np.bincount(first.y), np.bincount(other.y))
    assert (first.X != moved.X).any()
    w = task.start()
    assert_allclose(moved.loss(w), first.loss(w), rtol=1e-12)  # images keep their labels


# ------------------------------------------------------------------------------- the experiments


def test_the_spectrum_is_that_of_the_whole_training(reference):
    task, jacobian = reference.task, reference.jacobian
    system = task.system()
    v, h = jacobian.right[:, 0], 1e-5
    ends = [system.trajectory(jacobian.start + s * h * v, task.n_steps)[-1] for s in (1, -1)]
    moved = (ends[0] - ends[1])[: len(v)] / (2.0 * h)
    assert_allclose(np.linalg.norm(moved), np.exp(jacobian.logs[0]), rtol=1e-4)
    assert_allclose(moved @ v / np.linalg.norm(moved), jacobian.cosines[0], atol=1e-4)
    assert sum(int(jacobian.chosen(region).sum()) for region in study.REGIONS) == len(v)
    # Weights of pixels that are 0 in all training images keep any displacement, and so do shifts of
    # all outputs, which softmax does not see.
    dead = int((task.digits[0] == 0.0).all(axis=0).sum()) * task.hidden
    assert dead > 0
    assert (np.abs(jacobian.logs) < 1e-12).sum() == dead + task.hidden + 1
    assert jacobian.chosen("chaotic").sum() > 0 < jacobian.chosen("stable").sum()


def test_bulks_of_other_runs_overlap_more_than_random_ones(quick):
    for name in ("seeds", "orders", "labels"):
        found = quick.result(name).overlaps["bulk"]
        assert found.overlap > found.expected + 20 * found.spread
    near, far = quick.result("orders"), quick.result("seeds")
    assert near.overlaps["chaotic"].overlap > far.overlaps["chaotic"].overlap


def test_training_in_the_bulk_alone_does_not_learn(quick):
    found = quick.result("restricted")
    assert_allclose(found.losses["bulk"][0], found.before, rtol=1e-3)
    assert found.losses["complement"][1] < 0.5 * (found.before + found.unrestricted)


def test_restricting_to_all_but_one_direction_is_nearly_no_restriction(reference):
    n = len(reference.jacobian.logs)
    found = study.restricted(reference, reference.task, fractions=[0.9999])
    assert found.dimensions == [n - 1]
    assert_allclose(found.losses["complement"], found.unrestricted, rtol=1e-6)
    with pytest.raises(pl.ArgumentError, match="fractions must be between 0 and 1"):
        study.restricted(reference, reference.task, fractions=[1.0])


def test_a_stored_jacobian_is_read_and_another_one_refused(tmp_path, monkeypatch):
    sizes = {"hidden": 2, "n_train": 128, "epochs": 2, "folder": tmp_path}
    task = study.Task(**sizes)
    first = study.spectrum(task)
    monkeypatch.setattr("pylyap.papers.training_jacobian2024.task.training_jacobian", None)
    again = study.spectrum(task)
    for name, value in first.jacobian._asdict().items():
        assert_array_equal(getattr(again.jacobian, name), value)
    with pytest.raises(pl.ArgumentError, match=r"folder must .* has epochs 2 \(here 3\)"):
        study.spectrum(study.Task(**(sizes | {"epochs": 3})))
    (tmp_path / "reference.npz").write_bytes(b"PK")
    with pytest.raises(pl.ArgumentError, match="folder must have Jacobians of this study"):
        study.spectrum(task)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_train": 100}, "batch_size must divide n_train=100, got 64"),
        ({"hidden": 0}, "hidden must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_bad_tasks_are_named(change, message):
    with pytest.raises(pl.ArgumentError, match=message):
        study.Task(**change)


# ------------------------------------------------------------------------- figures, the command


@pytest.mark.parametrize("name", study.FIGURES)
def test_a_figure(quick, name):
    figure = quick.figure(name)
    assert all(ax.lines and ax.get_xlabel() for ax in figure.axes)
    figure.draw_without_rendering()


@pytest.mark.parametrize("name", study.EXPERIMENTS)
def test_rows_are_text(quick, name):
    rows = quick.rows(name)
    assert rows
    assert all(text and "nan" not in text for row in rows for text in row)


def test_the_command_draws_prints_and_resumes(tmp_path, capsys):
    args = ["spectrum", "--output", str(tmp_path), "--quick"]
    assert run(command.command, args, command.NAME) == 0
    captured = capsys.readouterr()
    for text in ("bulk: singular values", "extremely close to 1", "Assumed: seed 0"):
        assert text in " ".join(captured.out.split())
    assert captured.err == f"wrote {tmp_path / 'spectrum.png'}\n"
    assert [path.name for path in (tmp_path / "jacobians-quick").iterdir()] == ["reference.npz"]
    assert run(command.command, args, command.NAME) == 0
    assert run(command.command, [*args, "--seed", "1"], command.NAME) == 2
    assert "has seed 0 (here 1)" in capsys.readouterr().err
