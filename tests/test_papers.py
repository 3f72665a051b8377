"""The published studies, at small sizes: what their experiments must obey, figures, the command."""

import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl

pytest.importorskip("matplotlib")

from pylyap.cli import run
from pylyap.papers import danovski2024 as study
from pylyap.papers.danovski2024 import __main__ as command


@pytest.fixture(scope="module")
def quick():
    return study.Study(quick=True)


@pytest.fixture(scope="module")
def low(quick):
    return quick.result("low rate")


# ------------------------------------------------------------------------------------- the task


def test_the_network_is_the_published_one():
    task = study.Task()
    assert task.network.layers == (4, 10, 3)
    assert task.network.n_params == 83
    assert task.n_weights == 70
    w = task.start(10)
    assert_array_equal(w[:, ~task.weights], 0.0)
    # 700 draws of N(0, 1): 4 standard errors
    assert_allclose(w[:, task.weights].std(), 1.0, atol=4 / np.sqrt(1400))
    assert_array_equal(task.start(3), w[:3])


def test_the_flowers_are_those_of_the_first_seed_with_the_published_counts():
    X, y = pl.datasets.iris()
    counts = [np.bincount(pl.datasets.split(X, y, 120, seed=s)[1]).tolist() for s in range(3)]
    assert counts.index([40, 39, 41]) == study.SPLIT_SEED
    learnt, labels, unseen, its_labels = study.Task().flowers
    assert np.bincount(labels).tolist() == [40, 39, 41]
    together = np.concatenate([learnt, unseen])
    assert_array_equal(np.sort(together, axis=0), np.sort(X, axis=0))
    assert len(its_labels) == 30


# ------------------------------------------------------------------------------------- low rate


def test_distances_start_near_half_of_eps_n(low):
    # A copy's distance is the sum of 70 draws |U(-eps, eps)|: mean 35 eps, deviation
    # eps sqrt(70 / 12) = 2.4 eps. Four standard errors of the mean of the copies here.
    error = np.sqrt(70 / 12) / 70 / np.sqrt(low.ensemble.distances[:, 0, :, 0].size)
    assert_allclose(low.scaled[..., 0].mean(axis=0), 0.5, atol=4 * error)


def test_small_perturbations_collapse(low):
    small = (low.eps > 1e-12) & (low.eps < 1e-4)
    first = low.scaled[:, [study.SIZES.index(1e-8)]]
    # 200 steps: the second order is eps N at most, rounding 1e-16 / 1e-11
    assert_allclose(low.scaled[:, small] / first, np.ones_like(low.scaled[:, small]), rtol=1e-3)


def test_a_copy_that_is_not_perturbed_stays_with_its_run():
    low = study.low_rate(runs=2, copies=2, n_steps=40, eps=[0.0, 1e-8])
    assert_array_equal(low.ensemble.distances[:, 0], 0.0)
    assert (low.ensemble.distances[:, 1] > 0).all()
    travel = pl.travel(low.task.system(0.01), low.task.start(2), 40, entries="weights")
    assert_allclose(low.displacement[:, 0], np.tile(travel.displacement[:, None], 2), rtol=1e-12)
    assert_allclose(low.displacement[:, 1], low.displacement[:, 0], rtol=1e-5)
    assert_array_equal(low.travel.displacement, travel.displacement)


def test_copies_are_perturbed_in_their_weights_alone():
    task = study.Task()
    low = study.low_rate(task, runs=1, copies=3, n_steps=1, eps=[1e-3], record_every=1)
    first, system = task.start(1), task.system(0.01)
    # One step back from the last states leads to no more than the perturbation of 70 entries.
    apart = low.ensemble.states[0, 0] - system.step(first)
    assert_allclose(np.abs(apart).sum(axis=-1), low.ensemble.distances[0, 0, :, 1], rtol=1e-12)
    assert (low.ensemble.distances[0, 0, :, 0] < 1e-3 * task.n_weights).all()


def test_loss_and_norm_are_the_runs_own(low):
    system, start = low.task.system(low.lr), low.task.start(len(low.loss))
    path = system.trajectory(start, 200, every=10)
    assert_allclose(low.loss, system.loss(path), rtol=1e-12)
    assert_allclose(low.travel.norm, np.abs(path[..., low.task.weights]).sum(axis=-1), rtol=1e-12)
    assert_array_equal(low.final, path[:, -1])
    assert low.knock_out.shape == (2, 10, 4)


def test_knocking_out_a_weight_of_zero_changes_nothing(low):
    w = low.final[0].copy()
    w[0] = 0.0
    ratio = pl.knock_out(low.task.system(low.lr), w)
    assert ratio[0, 0] == 1.0
    assert (ratio.ravel()[1:] != 1.0).any()


def test_after_learning_copies_part_from_the_trained_run(quick):
    after = quick.result("after learning")
    assert after.steps[0] == 400
    assert after.mean.shape == (2, 14, 11)
    assert_allclose(after.scaled[..., 0], 0.5, atol=0.1)  # 4 copies: 4 standard errors are 0.07
    path = after.task.system(0.01).trajectory(after.task.start(2), 400, every=400)
    assert_allclose(after.loss[:, 0], after.task.system(0.01).loss(path[:, -1]), rtol=1e-12)


# -------------------------------------------------------------------------- larger learning rates


def test_distances_grow_at_the_edge(quick):
    edge = quick.result("edge")
    assert edge.ensemble.distances.shape == (2, 1, 5, 401)
    assert (edge.mean[:, 0, 200] > 1e3 * edge.mean[:, 0, 0]).all()
    growth = quick.result("edge growth")
    assert growth.kept.shape == (10, 14)
    # Best windows of small perturbations are steep; the largest saturate at once.
    assert growth.mean[0] > growth.mean[9]


def test_runs_at_lr_5(quick):
    trained = quick.result("chaotic")
    assert trained.loss.shape == trained.norm.shape == (8, 801)
    system = study.Task().system(5.0)
    path = system.trajectory(study.Task().start(8), 800, every=100)
    assert_allclose(trained.loss[:, ::100], system.loss(path), rtol=1e-12)
    assert trained.scan.steps[0] == 600
    assert set(trained.scan.regime[0]) <= set(pl.REGIMES)


def test_the_chaotic_run_is_the_one_with_the_largest_late_exponent(quick):
    trained, series = quick.result("chaotic"), quick.result("chaotic series")
    assert series.run == np.argmax(trained.exponent)
    assert_array_equal(series.loss[:801], trained.loss[series.run])
    assert series.published.points.max() < len(series.loss) - series.start
    assert_array_equal(series.published.points, series.corrected.points)
    near = series.published.n_neighbours, series.corrected.n_neighbours
    assert (near[0] >= near[1]).all()
    assert series.autocorrelation.values[0] == 1.0


def test_a_saturated_network_moves_as_the_map_of_its_outputs():
    task, lr = study.Task(), 5.0
    system = task.system(lr)
    w = np.zeros(83)
    (_, b), (V, c) = task.network.unpack(w)  # views
    b[:] = -1e3
    b[[2, 5]] = 1e3  # two units are on for all flowers, the others off
    V[:] = np.random.default_rng(0).standard_normal(V.shape)
    outputs = V[:, [2, 5]].sum(axis=1) + c
    reduced = study.saturated_map(task, lr, 2)
    path = system.trajectory(w, 20)
    (_, _), (V, c) = task.network.unpack(path)
    assert_allclose(
        V[..., [2, 5]].sum(axis=-1) + c, reduced.trajectory(outputs, 20), rtol=1e-9, atol=1e-9
    )
    z = np.array([0.3, -1.0, 0.2])
    shift = 1e-6 * np.eye(3)
    difference = (reduced.step(z + shift) - reduced.step(z - shift)).T / 2e-6
    assert_allclose(reduced.jacobian(z), difference, atol=1e-8)


def test_the_saturated_map_is_chaotic_with_one_unit_on_and_rests_with_none():
    # 0.237: the network's own exponent at lr 5 (docs/studies/danovski2024.md); without a unit the
    # shares are a stable point, and a shift of all outputs is neutral.
    task = study.Task()
    found = [
        pl.lyapunov_spectrum(study.saturated_map(task, 5.0, k), [0.1, 0.0, 0.0], 4000, 1, 100)
        for k in (0, 1)
    ]
    assert_allclose(found[0].exponents, 0.0, atol=1e-3)
    assert_allclose(found[1].exponents, 0.237, atol=0.03)  # 4 standard errors at 4000 steps


def test_a_task_draws_from_a_generator_once():
    task = study.Task(seed=np.random.default_rng(3))
    assert task.seed == np.random.default_rng(3).integers(2**63)
    assert_array_equal(task.start(2), task.start(2))


@pytest.mark.parametrize(("k", "cycles"), [(2, True), (3, True), (8, False), (9, False)])
def test_cycles_of_period_3_belong_to_few_units_on(k, cycles):
    task = study.Task()
    system = study.saturated_map(task, 5.0, k)
    starts = np.random.default_rng(k).normal(scale=3.0, size=(4, 3))
    path = system.trajectory(starts, 3003)
    apart = np.abs(path[:, -1] - path[:, -4]).max(axis=-1)
    assert ((apart < 1e-9) == cycles).all()
    assert (np.abs(path[:, -1] - path[:, -2]).max(axis=-1) > 0.1).all()  # not at rest


def test_other_rates(quick):
    others = quick.result("other rates")
    assert [trained.lr for trained in others] == [2.0, 3.0, 10.0]
    assert all(trained.loss.shape == (2, 201) for trained in others)


# ------------------------------------------------------------------------------------ figures


@pytest.mark.parametrize("name", study.FIGURES)
def test_a_figure(quick, name):
    figure = quick.figure(name)
    assert all(
        ax.get_xlabel() or ax.get_ylabel() or ax.lines or not ax.axison for ax in figure.axes
    )
    assert any(ax.lines or ax.patches for ax in figure.axes)
    figure.draw_without_rendering()


def test_experiments_are_made_once(quick):
    before = dict(quick.seconds)
    assert quick.result("low rate") is quick.result("low rate")
    assert quick.seconds == before


@pytest.mark.parametrize("name", study.EXPERIMENTS)
def test_rows_are_text(quick, name):
    rows = quick.rows(name)
    assert rows
    assert all(text and "nan" not in text for row in rows for text in row)


# ------------------------------------------------------------------------------------ the command


def paper(*args):
    return run(command.command, [str(a) for a in args], command.NAME)


def test_the_command_draws_and_prints(tmp_path, capsys):
    folder = tmp_path / "new" / "figures"
    assert paper("norm", "iris", "norm", "--output", folder, "--quick") == 0
    assert sorted(path.name for path in folder.iterdir()) == ["iris.png", "norm.png"]
    captured = capsys.readouterr()
    for text in ("low rate", "0.30–0.59", "final ‖W‖", "Assumed: the 120 training samples"):
        assert text in captured.out
    assert "after learning" not in captured.out
    assert captured.err.splitlines() == [f"wrote {folder / f'{n}.png'}" for n in ("norm", "iris")]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("nonsense", "--output", "{}"), "'nonsense' is not one of 'iris', 'distances'"),
        (("norm",), "--output"),
        (("norm", "--output", "{}/file"), "is not writable: file exists"),
        (("norm", "--output", "{}/file/folder"), "is not writable: not a directory"),
        (("norm", "--output", "/proc/self/figures"), "is not writable"),
        (("norm", "--output", "{}", "--threads", "0"), "--threads"),
    ],
)
def test_the_command_refuses(args, message, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert paper(*(a.format(tmp_path) for a in args)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_command_as_a_module(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pylyap.papers.danovski2024", "--help"],
        capture_output=True, text=True, timeout=120, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "--output FOLDER" in done.stdout
