"""The study of the initial configuration of weights, at small sizes: what its experiments must
obey, figures, the command."""

import os
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl

pytest.importorskip("matplotlib")
pytest.importorskip("PIL")
pytest.importorskip("sklearn")

from pylyap.cli import run
from pylyap.papers import jesus2021 as study
from pylyap.papers.jesus2021 import __main__ as command


@pytest.fixture(scope="module")
def digits():
    return pl.datasets.digits()


@pytest.fixture(scope="module")
def task(digits):
    X, y = digits
    return study.Task(X[:500], y[:500], widths=(16, 48), runs=2, epochs=40, record_every=2, lr=0.3)


@pytest.fixture(scope="module")
def clipped(task):
    return study.clipped(task)


@pytest.fixture(scope="module")
def rates(task):
    return study.rates(task, width=64, lrs=(0.1, 6.0), runs=2, epochs=3)


@pytest.fixture(scope="module")
def quick(digits):
    return study.Study(study.Task(*digits), quick=True)


# ------------------------------------------------------------------------------------- the task


def test_a_fifth_of_the_images_is_for_test(task):
    X, y, unseen, its_labels = task.parts
    assert (len(X), len(unseen)) == (400, 100)
    together = np.concatenate([X, unseen])
    assert_array_equal(np.sort(together, axis=0), np.sort(task.images, axis=0))
    assert_array_equal(np.bincount(np.concatenate([y, its_labels])), np.bincount(task.labels))
    assert task.steps == 4  # batches of 128


def test_weights_start_as_glorot_has_them_and_biases_at_zero(task):
    network = task.network(16, "cross_entropy")
    assert network.layers == (64, 16, 16, 10)
    for (W, b), n_in, n_out in zip(
        network.unpack(task.start(16, 3)), (64, 16, 16), (16, 16, 10), strict=True
    ):
        assert_array_equal(b, 0.0)
        assert np.abs(W).max() <= np.sqrt(6 / (n_in + n_out))
        assert np.abs(W).max() > 0.9 * np.sqrt(6 / (n_in + n_out))
    assert_array_equal(task.start(16, 3)[:2], task.start(16, 2))


def test_black_and_white_are_exchanged(task):
    dark = np.array([[0, 100, 255]], np.uint8)
    assert_array_equal(study.inverse(dark), [[255, 155, 0]])
    assert study.inverse(dark).dtype == np.uint8
    X = task.parts[0]
    assert_allclose(study.inverse(X), 1.0 - X)
    assert_array_equal(task.system(16, "cross_entropy", inverted=True).X, 1.0 - X)


def test_bytes_are_images_too(task):
    dark = np.round(255 * task.images).astype(np.uint8)
    images = study.Task(dark, task.labels, widths=(16,), runs=1)
    found = study.inverted_rates(images, width=8, lrs=(0.1,), runs=1, epochs=1)
    assert_allclose(found.square, ((1.0 - task.parts[0]) ** 2).sum(axis=1).mean(), rtol=1e-2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": ()}, "widths must be whole numbers that increase, got"),
        ({"widths": (16, 16)}, r"widths must be whole numbers that increase, got \[16, 16\]"),
        ({"widths": (16, 0)}, r"widths\[1\] must be at least 1, got 0"),
        ({"images": np.zeros((50, 8, 8))}, r"images must have shape \(N, pixels\), got \(50, 8"),
    ],
)
def test_bad_tasks_are_named(digits, change, message):
    given = dict(zip(("images", "labels"), digits, strict=True)) | change
    with pytest.raises(ValueError, match=message):
        study.Task(**given)


# -------------------------------------------------------------------------------- width by width


def test_widths_are_trained_as_one_would_by_hand(task, clipped):
    system = pl.TrainingMap(
        pl.Network((64, 48, 48, 10), activation="relu", loss="cross_entropy_clipped"),
        *task.parts[:2],
        pl.GradientDescent(lr=0.3, batch_size=128),
        dtype="float32",
    )
    last = system.trajectory(task.start(48, 2), 160, every=160)[:, -1]
    assert_array_equal(clipped.histories[1].w_final, last)
    assert_array_equal(clipped.found.widths, [16, 48])
    d = clipped.deviation(1)
    assert_allclose(
        d.rms[0] ** 2, np.mean(clipped.found.deviation[1, :, -1] ** 2), rtol=1e-12
    )  # runs pooled
    assert clipped.joint(1).counts.sum() == 2 * 48**2
    sizes = np.array([64 * 48, 48 * 48, 48 * 10])
    glorot = 2.0 / np.array([64 + 48, 48 + 48, 48 + 10])  # variances
    expected = np.sqrt((sizes * glorot).sum() / sizes.sum())
    assert_allclose(clipped.start[1], expected, rtol=0.02)  # of 11 712 numbers


def test_deviation_at_a_loss_is_that_of_the_record_that_has_it(clipped):
    loss, moved = clipped.found.train_loss, clipped.found.deviation
    j = int(loss[1, 0].argmin())  # the first to come so low
    at = clipped.deviation_at(loss[1, 0, j])
    assert_allclose(at[1, 0], moved[1, 0, j], rtol=1e-12)
    between = np.sqrt(loss[1, 0, 0] * loss[1, 0, 1])  # halfway in the logarithm
    assert_allclose(clipped.deviation_at(between)[1, 0], 0.5 * moved[1, 0, 1], rtol=1e-12)
    assert np.isnan(clipped.deviation_at(1e-9)).all()


def test_wider_networks_deviate_less_at_equal_loss(clipped):
    narrow, wide = clipped.deviation_at(0.5)
    assert wide.max() < 0.7 * narrow.min()  # 0.0367 and 0.0738 here


def test_precisions_differ_in_rounding_alone(task, clipped):
    both = study.precision(clipped, task)
    assert both.width == 16
    assert both.single is clipped.histories[0]
    assert (both.single.train_loss[:, -1] != both.double.train_loss[:, -1]).all()
    assert_allclose(both.single.train_loss, both.double.train_loss, rtol=1e-3)


def test_the_loss_of_the_logits_is_the_same_where_nothing_is_clipped(task, clipped):
    other = study.logits(task)
    assert_array_equal(other.histories[0].w_initial, clipped.histories[0].w_initial)
    assert_allclose(other.found.train_loss, clipped.found.train_loss, rtol=1e-3)


# ----------------------------------------------------------------------------------- the letter


def test_a_letter_fades_with_the_rate(task):
    slow, fast = study.letters(task, cases=((32, 0.03), (32, None)))
    assert (slow.lr, fast.lr) == (0.03, task.lr)
    for letter in (slow, fast):
        assert letter.legibility[0] == 1.0
        assert_array_equal(letter.matrices[0][~letter.mask], 0.0)
        assert letter.epochs[0] == 0
        assert letter.epochs[-1] == task.epochs
    assert_array_equal(slow.matrices[0], fast.matrices[0])
    assert fast.legibility[-1] < slow.legibility[-1] - 0.02
    assert fast.loss[-1] < fast.loss[0]


# ------------------------------------------------------------------------------ larger rates


def test_runs_are_lost_at_a_large_rate(task, rates):
    assert_array_equal(rates.frozen, [[False, False], [True, True]])
    assert rates.square == pytest.approx((task.parts[0] ** 2).sum(axis=1).mean())
    assert rates.histories["cross_entropy"].train_loss[1, :, -1].max() < 0.5 * study.CEILING


def test_on_the_plateau_nothing_moves_for_no_sample_has_a_gradient(task, rates):
    found = study.plateau(rates, task, later=2)
    assert (found.lr, found.run) == (6.0, 0)
    assert found.step[0] == task.steps * (found.epoch - 1)
    assert found.gradient[0] > 0.1
    assert found.gradient[-1] == 0.0
    assert found.moved == 0.0
    # Each image is lost, at 16.118, or sure.
    assert found.lost[-1] + found.sure[-1] == 1.0
    assert_allclose(found.loss[-1], found.lost[-1] * study.CEILING, rtol=1e-6)
    assert found.logits_loss[-1] > found.loss[-1]
    assert_array_equal(found.later["cross_entropy_clipped"], found.loss[-1])
    assert found.later["cross_entropy"][-1] < 0.5 * found.loss[-1]


def test_the_trace_is_the_runs_own(task, rates):
    found = study.plateau(rates, task, later=1)
    history = rates.histories["cross_entropy_clipped"]
    assert_allclose(found.loss[0], history.train_loss[1, 0, found.epoch - 1], rtol=1e-12)
    assert_allclose(found.loss[-1], history.train_loss[1, 0, found.epoch], rtol=1e-12)
    assert found.lost[0] == found.sure[0] == 0.0
    goes_on = task.system(64, "cross_entropy", 6.0).trajectory(
        history.w_final[1, 0], task.steps, start=3 * task.steps
    )
    clipped = task.system(64, "cross_entropy_clipped")
    assert_array_equal(found.later["cross_entropy"], clipped.loss(goes_on[[0, -1]]))


def test_where_nothing_is_lost_there_is_no_plateau(task):
    calm = study.rates(task, width=32, lrs=(0.1,), runs=1, epochs=2)
    assert not calm.frozen.any()
    assert study.plateau(calm, task) is None
    study.figures.plateau(None).draw_without_rendering()
    study.figures.rates(calm).draw_without_rendering()
    assert [row.measured for row in study.EXPERIMENTS["plateau"].rows(None)] == ["none"]
    assert list(study.EXPERIMENTS["rates"].rows(calm))[-1].measured == "0, at –"


# ------------------------------------------------------------------------------------ figures


@pytest.mark.parametrize("name", study.FIGURES)
def test_a_figure(quick, name):
    figure = quick.figure(name)
    assert any(ax.lines or ax.images or ax.collections for ax in figure.axes)
    figure.draw_without_rendering()


@pytest.mark.parametrize("name", study.EXPERIMENTS)
def test_rows_are_text(quick, name):
    rows = quick.rows(name)
    assert rows
    assert all(text and "nan" not in text for row in rows for text in row)


# ------------------------------------------------------------------------------------ the command


def paper(*args):
    return run(command.command, [str(a) for a in args], command.NAME)


def test_the_command_draws_prints_and_goes_on(tmp_path, capsys):
    args = ("deviation", "--data", "digits", "--output", tmp_path, "--quick")
    assert paper(*args) == 0
    captured = capsys.readouterr()
    for text in (
        "480 training and 120 test images of digits",
        "rms deviation at loss 0.1",
        "diverged runs",
    ):
        assert text in captured.out
    assert "plateau  " not in captured.out
    assert captured.err == f"wrote {tmp_path / 'deviation.png'}\n"
    kept = sorted(path.name for path in (tmp_path / "checkpoints-quick").iterdir())
    assert kept == [f"cross_entropy_clipped-{width}-float32.npz" for width in (16, 32)]
    first = (tmp_path / "deviation.png").read_bytes()
    assert paper(*args) == 0
    assert (tmp_path / "deviation.png").read_bytes() == first
    capsys.readouterr()
    assert paper(*args, "--lr", "0.2") == 2  # another training, in the same folder
    assert "it has lr 0.1 (here 0.2)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("nonsense", "--data", "digits"), "'nonsense' is not one of 'phases'"),
        ((), "--data mnist needs --folder"),
        (("--folder", "nowhere"), "'nowhere' does not exist"),
        (("--data", "digits", "--widths", "16,8"), "--widths must be whole numbers that increase"),
        (("--data", "digits", "--epochs", "7"), "--record-every must divide epochs=7, got 5"),
        (("--data", "digits", "--lr", "-1"), "--lr"),
    ],
)
def test_the_command_refuses(args, message, tmp_path, capsys):
    assert paper(*args, "--output", tmp_path / "figures") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1


def test_the_command_as_a_module(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pylyap.papers.jesus2021", "--help"],
        capture_output=True, text=True, timeout=120, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "--output FOLDER" in done.stdout


@pytest.mark.skipif(
    "PYLYAP_MNIST" not in os.environ, reason="PYLYAP_MNIST names a folder with MNIST"
)
def test_wider_networks_deviate_less_on_real_digits():
    images, labels = pl.datasets.mnist(os.environ["PYLYAP_MNIST"], "test")
    task = study.Task(
        images.reshape(len(images), -1), labels, widths=(16, 64), runs=2, epochs=8, record_every=1
    )
    clipped = study.clipped(task)
    assert (len(task.parts[0]), len(task.parts[2])) == (8000, 2000)
    narrow, wide = clipped.deviation_at(0.3)
    assert wide.max() < 0.6 * narrow.min()
    assert (clipped.found.test_loss[:, :, -1] < 0.5).all()
