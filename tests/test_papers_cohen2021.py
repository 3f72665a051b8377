"""The study of the edge of stability, at small sizes: task, results, figures, the command."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")
pytest.importorskip("zarr")

from pylyap.cli import run
from pylyap.papers import cohen2021 as study
from pylyap.papers.cohen2021 import __main__ as command

SIZES = {"n_steps": 40, "every": 10}


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return study.Task(tmp_path_factory.mktemp("results"), samples=60, width=4, threads=1)


def test_images_have_mean_0_and_targets_are_the_digits(task):
    X, y = task.images
    assert X.shape == (60, 64)
    assert_allclose(X.mean(axis=0), 0.0, atol=1e-15)
    assert_array_equal(y.sum(axis=1), 1.0)
    assert_array_equal(y.argmax(axis=1), pl.datasets.split(*pl.datasets.digits(), 60, seed=0)[1])


@pytest.mark.parametrize("key", ["nesterov", "adam"])
def test_it_is_the_sharpness_of_the_optimiser(task, key):
    optimiser = study.OPTIMISERS[key]
    found = study.train(task, optimiser, **SIZES)
    settings = dict(optimiser.settings)
    make = pl.Adam if settings.pop("name", "") == "adam" else pl.GradientDescent
    net = pl.Network((64, 4, 10), activation="tanh", loss="mse")
    w0 = net.init("glorot_uniform", seed=np.random.SeedSequence(0, spawn_key=(0, 0)))
    system = pl.TrainingMap(net, *task.images, make(lr=np.array(optimiser.lrs), **settings))
    expected = pl.sharpness_along(system, w0, 40, 10, tol=1e-3)
    assert_allclose(found.value, expected.value, rtol=1e-3)
    assert_allclose(found.ratio * found.threshold, found.value, rtol=1e-12)
    assert_allclose(found.threshold, expected.threshold, rtol=1e-12)
    assert_allclose(found.loss, expected.loss, rtol=1e-9)
    again = study.train(task, optimiser, **SIZES)  # from the stored runs
    assert_array_equal(again.value, found.value)


def test_when_the_edge_is_reached():
    ratio = np.array([
        [5.0, 0.2, 0.6, 1.1, 0.9, 1.0, 1.0, 1.02, 0.98],  # the start is left out, as of Adam
        [0.5, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.10, 1.00],  # late
        [0.5, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.40, 0.45],
    ])  # fmt: skip
    loss = np.array([np.arange(9.0)[::-1], np.arange(9.0), np.arange(9.0)])
    edge = study.Edge(
        study.OPTIMISERS["descent"], np.ones(3), np.arange(0, 90, 10), loss, ratio, ratio, ratio
    )
    assert_array_equal(edge.reached, [3, 7, -1])
    assert_array_equal(edge.early, [True, False, False])
    assert_allclose(edge.lowest, [0.2, 0.4, 0.4])
    assert_allclose(edge.late_ratio, [1.0, 0.9, 0.4])
    assert_array_equal(edge.rises, [0.0, 1.0, 1.0])


@pytest.mark.slow
def test_all_runs_that_reach_the_edge_stay_there(tmp_path):
    task, early = study.Task(tmp_path), 0
    for optimiser in study.OPTIMISERS.values():
        found = study.train(task, optimiser)
        assert_allclose(found.late_ratio[found.early], 1.0, atol=0.05)
        assert (found.lowest[found.early] < 0.85).all()  # progressive sharpening
        assert (found.rises[found.early] > 0).all()
        early += found.early.sum()
    assert early == 8


def test_the_command_draws_and_prints(tmp_path, capsys):
    arguments = ["descent", "--output", str(tmp_path), "--quick", "--threads", "1"]
    assert run(command.command, arguments, command.NAME) == 0
    assert (tmp_path / "descent.png").stat().st_size > 10_000
    assert (tmp_path / "results-quick").is_dir()
    out = capsys.readouterr().out
    assert "threshold 2/η = 10" in out
    assert "Assumed: scikit-learn" in " ".join(out.split())


def test_bad_input():
    with pytest.raises(pl.ArgumentError, match=r"samples must be in 10 \.\.\. 1796, got 5"):
        study.Task("results", samples=5)
    with pytest.raises(TypeError, match="width must be an integer"):
        study.Task("results", width=1.5)
