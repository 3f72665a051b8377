"""The study of Sharafi et al., at small sizes: its definition, laws, statistics, figures."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl

pytest.importorskip("matplotlib")
pytest.importorskip("zarr")

from pylyap.cli import run
from pylyap.papers import sharafi2025 as study
from pylyap.papers.sharafi2025 import __main__ as command
from pylyap.papers.sharafi2025 import indicators, operator, sensitivity
from pylyap.papers.sharafi2025.ensembles import pair
from pylyap.papers.sharafi2025.table import markdown

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sharafi2025")


@pytest.fixture(scope="module")
def quick(folder):
    return study.Study(study.Task(folder / "results"), quick=True)


@pytest.fixture(scope="module")
def some(quick):
    return quick.result("ensembles")


# ------------------------------------------------------------------------------ the definition


@pytest.mark.parametrize(
    ("file", "definition"),
    [
        ("sharafi2025.toml", study.exponents_study(study.HE)),
        ("sharafi2025-wide.toml", study.exponents_study(study.WIDE)),
        ("sharafi2025-full.toml", study.vectors_study(study.HE)),
    ],
)
def test_examples_and_module_share_one_definition(file, definition):
    assert pl.Study.from_file(EXAMPLES / file) == definition


def test_ensembles_are_runs_of_the_library(some):
    he, wide = some[1], some[2]
    assert [e.name for e in some] == ["ReLU, He", "tanh, He", "ReLU, σ = 20", "tanh, σ = 20"]
    for ensemble in (he, wide):
        lr = 0.1 if ensemble.kind == study.HE else 1e-3
        net = pl.Network((2, 3, 1), activation=ensemble.activation)
        assert net.n_params == ensemble.start.shape[1] == 13
        system = pl.TrainingMap(net, *pl.datasets.quadratic(100), pl.GradientDescent(lr=lr))
        direct = pl.lyapunov_spectrum(system, ensemble.start[:8], 500, record_every=50)
        assert_array_equal(ensemble.growth[:8], direct.growth)
        assert_array_equal(ensemble.state[:8], direct.state)
        assert_array_equal(ensemble.loss[:8], direct.loss)
        assert_array_equal(ensemble.final_loss, ensemble.loss[:, -1])
    # The mean of 60 x 13 squares of N(0, 20²): 4 standard errors.
    assert_allclose(np.mean((wide.start / 20.0) ** 2), 1.0, atol=4 * np.sqrt(2 / wide.start.size))
    (_, b), (_, c) = he.system.network.unpack(he.start)
    assert not b.any()
    assert not c.any()


def test_stored_results_are_read_and_not_computed_again(quick, some, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("computed again")

    monkeypatch.setattr("pylyap.studies.work.compute", refuse)
    again = study.run_ensembles(quick.task, runs=60, n_steps=500)
    for one, other in zip(some, again, strict=True):
        assert_array_equal(one.growth, other.growth)
        assert_array_equal(one.state, other.state)


def test_a_sensitivity_variant_is_the_same_bits_after_a_kill(quick, tmp_path, monkeypatch):
    found = quick.result("sensitivity")[0]
    task = study.Task(tmp_path)

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sensitivity, "write_npz", killed)
        with pytest.raises(KeyboardInterrupt):
            study.vary_assumptions(task, runs=40, n_early=200, variants=[found.variant])
    assert not list(tmp_path.rglob("*.npz"))
    again = study.vary_assumptions(task, runs=40, n_early=200, variants=[found.variant])[0]
    assert_array_equal(again.final_loss, found.final_loss)
    assert again.skills["loss", 200].auc == found.skills["loss", 200].auc


# -------------------------------------------------------------------------------- the operator


@pytest.mark.parametrize("activation", operator.ACTIVATIONS)
def test_the_equations_are_the_derivative_of_the_step(activation):
    # Both are sums of some 100 products: a few units of rounding, normwise.
    net = pl.Network((2, 4, 1), activation=activation)
    X, y = pl.datasets.quadratic(30)
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=0.3))
    for w in net.init("normal", 3, biases=True, seed=1):
        by_paper = study.paper_operator(activation, 4, w, X, y, 0.3)
        exact = study.differentiated_operator(activation, 4, w, X, y, 0.3)
        scale = np.linalg.norm(exact)
        assert np.linalg.norm(by_paper - exact) < 4e-15 * scale
        assert np.linalg.norm(by_paper - system.jacobian(w)) < 4e-15 * scale


def test_the_operator_of_an_epoch_of_online_learning_is_the_ordered_product():
    net = pl.Network((2, 3, 1), activation="tanh")
    X, y = pl.datasets.quadratic(20)
    online = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=0.1, batch_size=1, shuffle=False))
    w, product = net.init("he_normal", seed=3), np.eye(13)
    carried = np.eye(13)
    for t in range(20):
        carried = online.tangent(w, carried, t)
        product = study.paper_operator("tanh", 3, w, X[t : t + 1], y[t : t + 1], 0.1) @ product
        w = online.step(w, t)
    assert_allclose(carried, product, rtol=0, atol=1e-13)


def test_jax_agrees_where_it_is_installed(tmp_path):
    pytest.importorskip("jax")
    net = pl.Network((2, 2, 1), activation="tanh")
    X, y = pl.datasets.quadratic(10)
    w = net.init("normal", 2, biases=True)
    found = operator._jax_operators("tanh", net, w, X, y, 0.1)
    exact = [study.paper_operator("tanh", 2, s, X, y, 0.1) for s in w]
    assert_allclose(found, exact, rtol=0, atol=1e-14)


# ------------------------------------------------------------------------------------ attractors


def test_exponents_at_a_fixed_point_follow_the_hessian(some, quick):
    # A run that is continued for long rests: its window exponents are ln|1 − lr h| of its end.
    ensemble = some[0]
    path = ensemble.system.trajectory(ensemble.state[:6], 60_000, every=60_000)[:, -1]
    s = pl.lyapunov_spectrum(ensemble.system, path, 200, frame="aligned")
    h = pl.hessian_spectrum(ensemble.system, s.state).eigenvalues
    rest = np.linalg.norm(ensemble.system.gradient(s.state), axis=1) < 1e-5
    assert rest.any()
    law = -np.sort(-np.log(np.abs(1 - 0.1 * h)), axis=1)
    late = -np.sort(-s.exponents, axis=1)
    assert_allclose(late[rest], law[rest], atol=1e-3)  # ln 13 / 200 is lost to the frame at most


def test_sums_of_exponents_agree_with_the_law_to_within_the_drift(quick):
    for found in quick.result("attractors"):
        assert found.sum_within > 0.9
        assert found.law.shape == found.late.shape == (60, 13)
        assert (found.rank <= 13).all()


def test_idle_units_are_those_that_no_point_reaches():
    net = pl.Network((2, 3, 1), activation="relu")
    X, y = pl.datasets.quadratic(50)
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=0.1))
    W = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    b = np.array([-2.0, 0.0, -2.0])  # |x| < 1: the first and the last are never on
    w = net.pack([(W, b), (np.ones((1, 3)), np.zeros(1))])
    assert_array_equal(indicators.idle_units(system, w[np.newaxis]), [2.0])
    dead = system.hessian(w)[:3]  # rows of the first unit and of half the second
    assert not dead[:2].any()


# ------------------------------------------------------------------------------------ statistics


def test_clusters_of_two_normal_distributions():
    rng = np.random.default_rng(0)
    logs = np.concatenate([rng.normal(-2.3, 0.05, 1500), rng.normal(-1.2, 0.05, 500), [np.nan]])
    low, high = study.find_clusters(logs)
    assert (low.name, high.name) == ("low", "high")
    assert_allclose([low.peak, high.peak], [-2.3, -1.2], atol=0.02)
    assert (low.count, high.count) == (1500, 500)
    assert low.low < low.share == 0.75 < low.high
    (one,) = study.find_clusters(rng.normal(size=1000))
    assert (one.name, one.share) == ("all", 1.0)


def test_a_discriminant_scores_runs_it_was_not_fitted_to():
    rng = np.random.default_rng(1)
    high = rng.random(600) < 0.5
    noise = rng.normal(size=(5, 600))
    blind = pl.prediction_skill(indicators.scores(noise, high), np.where(high, 2.0, 1.0), 1.5)
    assert abs(blind.auc - 0.5) < 4 * np.sqrt(1 / (12 * 150))  # 4 standard errors, roughly
    told = indicators.scores(np.vstack([noise, high + 0.1 * noise[0]]), high)
    assert pl.prediction_skill(told, np.where(high, 2.0, 1.0), 1.5).auc > 0.99


def test_curves_are_those_of_prediction_skill(quick, some):
    for found in quick.result("predictions"):
        ensemble = found.ensemble
        rates = ensemble.growth[:, 1, -1] / 50
        skill = pl.prediction_skill(rates, ensemble.final_loss, ensemble.threshold)
        assert_allclose(found.skill("FTLE 13", 100), (skill.auc, skill.low, skill.high), rtol=1e-12)
        assert found.skill("loss", 500)[0] == 1.0  # the final loss itself
        assert np.isnan(found.skill("loss", 49)[0])
        assert found.curves["smallest angle"].known[0] == 150  # 50 and the delay
        for comparison in (*found.against_loss, *found.against_exponent):
            assert 0.0 <= comparison.pvalue <= 1.0
            assert 0.5 <= comparison.skill <= 1.0


def test_early_angles_are_those_of_the_vectors(quick, some):
    early = quick.result("early vectors")[1]
    c = pl.covariant_lyapunov_vectors(
        early.ensemble.system, early.ensemble.start[:3], 300, n_transient=0, n_tail=100, every=50,
        delay=100,
    )  # fmt: skip
    every = c.angles(early=True)
    assert_allclose(early.angles["smallest of all"][:3], every.min(axis=-1), rtol=0, atol=1e-9)
    assert_allclose(early.angles["12–13"][:3], every[..., pair(11, 12)], rtol=0, atol=1e-9)
    assert_allclose(early.angles["1–2"][:3], c.angles([[0, 1]], early=True)[..., 0], atol=1e-9)


def test_two_clusters_of_a_normal_distribution_explain_two_over_pi():
    losses = np.exp(np.random.default_rng(2).normal(size=20_000))
    assert_allclose(sensitivity.explained(losses, 1.0), 2 / np.pi, atol=0.01)


def test_variants_change_one_assumption_each():
    base = study.VARIANTS[0]
    assert len(study.VARIANTS) * 2 <= 40
    assert len({v.name for v in study.VARIANTS}) == len(study.VARIANTS)
    for variant in study.VARIANTS[1:]:
        assert sum(a != b for a, b in zip(variant[1:], base[1:], strict=True)) == 1
        system = variant.system("tanh")
        assert len(system.X) == variant.n_points
    online = next(v for v in study.VARIANTS if v.online).system("relu")
    assert [int(online.batch(t)[0]) for t in range(101)] == [*range(100), 0]


# ------------------------------------------------------------------------- figures, rows, table


@pytest.mark.parametrize("name", study.FIGURES)
def test_a_figure(quick, name):
    figure = quick.figure(name)
    caption = figure.get_supxlabel()
    assert "ssumed" in caption or "assumption" in caption
    drawn = [ax for ax in figure.axes if ax.lines or ax.patches or ax.collections]
    assert drawn
    for ax in drawn:
        named = ax.get_xlabel() or ax.get_ylabel() or ax.get_title("left")
        assert named or not ax.axison or ax.get_label() == "<colorbar>"


@pytest.mark.parametrize("name", study.EXPERIMENTS)
def test_rows_are_text(quick, name):
    rows = quick.rows(name)
    assert rows
    assert all(text and "nan" not in text for row in rows for text in row)


def test_the_table_has_a_column_for_each_ensemble(quick):
    rows = study.table(quick.result("predictions"))
    assert rows[0] == ["quantity", "ReLU, He", "tanh, He", "ReLU, σ = 20", "tanh, σ = 20"]
    assert {len(row) for row in rows} == {5}
    text = markdown(rows)
    assert text.startswith("| quantity |")
    assert "| learning rate, full batch (assumed) | 0.1 | 0.1 | 0.001 | 0.001 |" in text


# -------------------------------------------------------------------------------- the command


def test_the_command_draws_and_prints(folder, capsys):
    args = ["network", "final-loss", "--output", str(folder), "--quick"]
    assert run(command.command, args, command.NAME) == 0
    assert sorted(path.name for path in folder.glob("*.png")) == ["final-loss.png", "network.png"]
    captured = capsys.readouterr()
    for text in ("ensembles", "distinct clusters", "one broad spread", "Assumed: 100 points"):
        assert text in captured.out
    assert "sensitivity" not in captured.out
    assert captured.err.splitlines() == [
        f"wrote {folder / f'{name}.png'}" for name in ("network", "final-loss")
    ]


def test_the_command_refuses(tmp_path, capsys):
    assert run(command.command, ["nonsense", "--output", str(tmp_path)], command.NAME) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "'nonsense' is not one of 'network', 'data'" in captured.err


def test_the_command_as_a_module(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pylyap.papers.sharafi2025", "--help"],
        capture_output=True, text=True, timeout=120, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "--output FOLDER" in done.stdout
