"""Scans of the learning rate: against training that is solved on paper, and against its parts."""

import sys
from dataclasses import replace

import cases
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl


def line(n=12):
    """A linear map without hidden layer is a parabola: every rate has its known exponents."""
    net = pl.Network((2, 1))
    X = np.random.default_rng(0).normal(size=(n, 2)) * [1.0, 0.3]
    return net, X, X @ [1.0, -2.0] + 0.5


def iris(**options):
    net = pl.Network((4, 5, 3), activation="sigmoid", loss="cross_entropy")
    X, y = pl.datasets.iris()
    return pl.learning_rate_scan(net, X[::3], y[::3], **options)


def test_a_parabola_converges_below_two_over_its_curvature_and_diverges_above():
    net, X, y = line()
    system = pl.TrainingMap(net, X, y, pl.GradientDescent())
    h = np.linalg.eigvalsh(system.hessian(np.zeros(3)))
    lrs = np.array([0.1, 0.9, 1.5, 1.85, 2.3]) / h[-1]  # edge of stability: from 1.9
    scan = pl.learning_rate_scan(net, X, y, lrs, 4000, runs=4, seed=1)
    for i, lr in enumerate(lrs[:4]):
        exponent = np.log(np.abs(1 - lr * h)).max()
        # the frame turns to the leading direction in the early steps
        assert_allclose(scan.exponent[i], exponent, rtol=1e-6)
        assert (scan.growth[i] < 0).all()
    assert_allclose(scan.sharpness[:4], np.tile(lrs[:4, None] * h[-1] / 2, (1, 4)), rtol=1e-6)
    assert_array_equal(scan.regime[:4].ravel(), ["convergent"] * 16)
    assert_array_equal(scan.regime[4], ["divergent"] * 4)
    assert_array_equal(scan.diverged, [0, 0, 0, 0, 1])
    assert np.isnan(scan.loss[4]).all()
    assert np.isnan(scan.exponent[4]).all()
    assert np.isnan(scan.accuracy).all()  # a regression
    assert (scan.non_monotone[:2] == 0).all()


def test_at_the_edge_of_a_parabola():
    net, X, y = line()
    system = pl.TrainingMap(net, X, y, pl.GradientDescent())
    edge = 2.0 / np.linalg.eigvalsh(system.hessian(np.zeros(3)))[-1]
    scan = pl.learning_rate_scan(net, X, y, [0.999 * edge, edge], 400, runs=3)
    assert_array_equal(scan.regime[0], ["edge of stability"] * 3)  # falls at sharpness 0.999
    assert_array_equal(scan.regime[1], ["periodic"] * 3)  # to and fro for good
    assert_array_equal(scan.period[1], [2, 2, 2])


# Learning rates over the threshold of stability, slowest growth first: at 1.00025, which is lr =
# 2.0005 for a curvature of 1, the loss of a bowl grows by a factor 1.65 in 500 steps.
ABOVE = np.array([1.00025, 1.001, 1.0035, 1.0075])


@pytest.mark.parametrize("n_late", [20, None, 400])
@pytest.mark.parametrize("h", [[1.0], [0.3], [0.9, 0.5]])
def test_a_bowl_above_its_threshold_diverges_however_slowly(h, n_late):
    system, _ = cases.quadratic_bowl(np.array(h), 1.0)
    w0 = np.random.default_rng(1).normal(size=(6, len(h) + 1))
    lrs = 2.0 * np.concatenate([[0.8, 0.995, 0.9995], ABOVE])
    data = (system.network, system.X, system.y)
    scan = pl.learning_rate_scan(
        *data, lrs, 400, w0=w0, n_late=n_late, n_perturbations=0, observe=len(h)
    )
    late = scan.late_loss[3:]
    assert (late[..., -1] < 1e7 * late[..., 0]).all()  # far below `escape`
    grown = late[..., -1] > late[..., late.shape[-1] // 2]
    assert grown.all()
    rises = late[..., -5:].mean(axis=-1) > late[..., :5].mean(axis=-1)  # not after a long fall
    assert_array_equal(scan.regime[3:][rises], "divergent")
    assert not np.isin(scan.regime[3:], ["periodic", "chaotic"]).any()
    assert rises.all() or n_late == 400
    assert_array_equal(scan.regime[0], ["convergent"] * 6)
    assert_array_equal(scan.regime[1:3], np.full((2, 6), "edge of stability"))


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"momentum": 0.5, "nesterov": True}])
def test_a_linear_net_just_above_its_edge_diverges(options):
    net, X, y = line()
    noise = np.random.default_rng(3).normal(size=len(y))  # so that the least loss is not 0
    optimizer = pl.GradientDescent(lr=1.0, **options)
    edge = 1.0 / pl.sharpness(pl.TrainingMap(net, X, y, optimizer), net.init()).ratio
    for target in (y, y + noise):
        scan = pl.learning_rate_scan(
            net, X, target, edge * np.array([0.9, *ABOVE]), 800, runs=4, init="normal",
            optimizer=optimizer, n_perturbations=0,
        )  # fmt: skip
        assert_array_equal(scan.regime[0], ["convergent"] * 4)
        assert_array_equal(scan.regime[1:], np.full((4, 4), "divergent"))


def test_minibatches_do_not_hide_growth():
    X = np.random.default_rng(0).uniform(0.9, 1.1, (16, 1))
    scan = pl.learning_rate_scan(
        pl.Network((1, 1)), X, X[:, 0], [0.5, 1.01], 400, runs=4, init="normal",
        optimizer=pl.GradientDescent(batch_size=4), n_perturbations=0,
    )  # fmt: skip
    assert_array_equal(scan.regime[1], ["divergent"] * 4)
    assert not np.isin(scan.regime[0], ["divergent", "chaotic"]).any()


def test_what_is_periodic_or_chaotic_stays_bounded():
    # Of nets with one hidden layer, on both sides of their edge, for four times as long.
    data = {"iris": iris, "line": quadratic_net}
    seen = []
    for scan_of, lrs in (
        (data["iris"], np.geomspace(0.3, 30, 10)),
        (data["line"], [0.3, 0.6, 0.9]),
    ):
        options = {"n_steps": 1000, "runs": 8, "init": "normal", "n_perturbations": 0, "seed": 2}
        scan = scan_of(lrs=lrs, **options)
        longer = scan_of(lrs=lrs, **options | {"n_steps": 4000, "n_late": 3000})
        cycling = np.isin(scan.regime, ["periodic", "chaotic"])
        seen.append(int(cycling.sum()))
        most = longer.late_loss[cycling].max(axis=-1)
        # bursts of the chaotic ones: 20 times the largest loss of the shorter window
        assert (most <= 20.0 * scan.late_loss[cycling].max(axis=-1)).all()
        # runs on a bounded orbit are not said to diverge: at most one in a hundred, of those that
        # stay finite, was inside a burst for the whole window
        finite = np.isfinite(longer.loss)
        assert (scan.regime[finite] == "divergent").sum() <= 1
    assert seen[0] > 20


def quadratic_net(**options):
    net = pl.Network((2, 6, 1), activation="tanh")
    return pl.learning_rate_scan(net, *pl.datasets.quadratic(30), **options)


def test_an_orbit_at_rest_is_neither_chaotic_nor_periodic():
    # The bias starts at its minimum and stays there, unstable as it is: the exponent is ln(lr - 1).
    system, _ = cases.quadratic_bowl(np.array([0.3]), 1.0)
    data = (system.network, system.X, system.y)
    scan = pl.learning_rate_scan(*data, [1.5, 2.03], 400, w0=[[1.0, 0.0]], n_perturbations=0)
    assert_allclose(scan.exponent[1], np.log(1.03), rtol=1e-6)
    assert_array_equal(scan.regime[:, 0], ["convergent", "edge of stability"])
    # one that has converged to rounding may go round its last bits
    system, _ = cases.quadratic_bowl(np.array([0.9, 0.5]), 1.0)
    data, w0 = (system.network, system.X, system.y), [[0.3, -0.7, 0.9]]
    scan = pl.learning_rate_scan(*data, [1.5], 4000, w0=w0, n_late=20, n_perturbations=0)
    assert scan.regime == "convergent"


def test_a_scan_takes_its_optimiser_as_it_is(monkeypatch):
    # Minibatches of a Generator's seed, whatever the blocks, and a schedule called once a step.
    options = {"lrs": [0.1, 0.5], "n_steps": 60, "runs": 3, "n_perturbations": 0}
    optimizer = pl.GradientDescent(
        batch_size=7, seed=np.random.default_rng(5), schedule=[0.9] * 30 + [0.5] * 30
    )
    whole = iris(**options, optimizer=optimizer)
    X, y = pl.datasets.iris()
    net = pl.Network((4, 5, 3), activation="sigmoid", loss="cross_entropy")
    w = net.init("glorot_uniform", runs=3, seed=0)
    for lr, late in zip([0.1, 0.5], whole.late_loss, strict=True):
        system = pl.TrainingMap(net, X[::3], y[::3], replace(optimizer, lr=lr))
        assert_array_equal(system.loss(system.trajectory(w, 60))[:, -21:], late)
    calls = []

    def slower(t):
        calls.append(t)
        return 0.9 if t < 30 else 0.5

    monkeypatch.setattr(sys.modules["pylyap._regimes.measures"], "_AT_ONCE", 2e4)
    blocks = iris(**options, optimizer=replace(optimizer, schedule=slower))
    assert_array_equal(blocks.late_loss, whole.late_loss)
    assert calls == list(range(60))
    # the seed of the scan itself
    drawn = np.random.default_rng(8).integers(2**63)
    one = iris(**options, seed=np.random.default_rng(8))
    assert_array_equal(one.sharpness, iris(**options, seed=int(drawn)).sharpness)
    with pytest.raises(ValueError, match="got 59 for 60 steps"):
        iris(**options, optimizer=pl.GradientDescent(schedule=np.ones(59)))


def test_a_scan_is_its_parts():
    net = cases.network("tanh", "cross_entropy")
    X, y = cases.data(net, 30)
    w = cases.weights(net, runs=3)
    lrs = [0.1, 1.0]
    scan = pl.learning_rate_scan(
        net, X, y, lrs, 90, w0=w, n_late=40, observe=2, n_perturbations=3, eps=1e-6, seed=4
    )
    assert scan.loss.shape == scan.regime.shape == (2, 3)
    assert scan.late_loss.shape == scan.late_weight.shape == (2, 3, 41)
    assert_array_equal(scan.steps, np.arange(50, 91))
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=np.array(lrs)[:, None]))
    s = pl.lyapunov_spectrum(system, w, 90, 1, seed=4)
    assert_array_equal(scan.late_loss, s.loss[..., 50:])
    assert_array_equal(scan.loss, s.loss[..., -1])
    assert_allclose(scan.exponent, s.growth[..., 50:, 0].mean(axis=-1), rtol=1e-12)
    path = system.trajectory(np.broadcast_to(w, (2, *w.shape)), 90)
    assert_array_equal(scan.late_weight, path[..., 50:, 2])
    assert_array_equal(scan.accuracy, system.accuracy(path[..., -1, :]))
    along = pl.sharpness_along(system, path[..., 79, :], 11, start=79)
    assert_allclose(scan.sharpness, along.ratio.mean(axis=-1), rtol=1e-4)
    rises = (np.diff(s.loss, axis=-1) > 1e-12 * s.loss[..., :-1]).mean(axis=-1)
    assert_array_equal(scan.non_monotone, rises)
    draws = [
        np.random.default_rng(np.random.SeedSequence(4, spawn_key=(r,))).uniform(
            -1, 1, (3, net.n_params)
        )
        for r in range(3)
    ]
    e = pl.perturbation_ensemble(
        system, w, 1e-6, 3, 40, distribution=np.swapaxes(draws, 1, 2), perturb="weights", start=50
    )
    growth = pl.growth_rate(e.distances, "until_saturation").slope
    assert_allclose(scan.growth, growth, rtol=1e-6)


def test_nothing_depends_on_blocks_threads_or_other_rates(monkeypatch):
    options = {"n_steps": 120, "runs": 3, "init": "normal", "observe": 0, "seed": 3}
    whole = iris(lrs=[0.5, 3.0, 8.0], **options)
    names = ("loss", "exponent", "growth", "sharpness", "period", "regime", "late_weight")
    alone = iris(lrs=[3.0], **options, threads=1)
    for name in names:
        assert_array_equal(getattr(alone, name)[0], getattr(whole, name)[1])
    monkeypatch.setattr(sys.modules["pylyap._regimes.measures"], "_AT_ONCE", 2e4)
    small = iris(lrs=[0.5, 3.0, 8.0], **options)
    for name in names:
        assert_array_equal(getattr(small, name), getattr(whole, name))


def test_a_block_of_runs_gives_what_all_of_them_give():
    w = pl.Network((4, 5, 3)).init("normal", 5, seed=3)
    options = {"lrs": [0.5, 3.0], "n_steps": 60, "n_late": 40, "observe": 1, "seed": 4}
    whole = iris(w0=w, **options)
    block = iris(w0=w[2:4], first_run=2, **options)
    alone = iris(w0=w[2:4], **options)
    for name in ("loss", "exponent", "growth", "sharpness", "regime", "late_loss", "late_weight"):
        assert_array_equal(getattr(block, name), getattr(whole, name)[:, 2:4])
    assert (alone.growth != block.growth).all()  # other perturbations


def test_no_runs_at_all():
    scan = iris(lrs=[0.5, 3.0], n_steps=60, w0=np.empty((0, 43)))
    assert scan.regime.shape == (2, 0)
    assert scan.late_loss.shape == (2, 0, 21)


def test_iris_goes_through_the_regimes():
    # Convergent, then the edge of stability with sharpness near 2/lr, cycles, and chaos far out.
    scan = iris(lrs=[0.01, 0.5, 3.0, 100.0], n_steps=3000, runs=8, init="normal", seed=0)
    share = scan.share
    assert share["convergent"][0] == 1.0
    assert share["edge of stability"][1] >= 0.5
    assert 0.9 < np.median(scan.sharpness[1]) < 1.3
    # three of eight; two others go round a torus, which has no period
    assert share["periodic"][2] >= 0.3
    assert share["chaotic"][3] >= 0.5
    assert_allclose(sum(share.values()), 1.0)


def series(name, t):
    """Loss, the weights along a direction, exponent, its error, sharpness over the edge."""
    rng = np.random.default_rng(0)
    fall, hop, wave = 1.0 - 0.3 * t / t[-1], (-1.0) ** t, np.exp(-t / 60.0) * np.cos(t)
    size = 1e-3 * np.exp(0.004 * t)
    logistic = 1.0 / (1.0 + np.exp(-(t - 150) / 25.0))
    noise = np.exp(np.cumsum(rng.normal(0.01, 0.05, len(t))))
    switch = np.where(t < 200, 3.0 + 0.5 * hop, 1.0 + 0.1 * (t % 3))
    return {
        "converges": (fall, t, 0.0, 0.1, 0.3),
        "slides at the edge": (fall, t, 0.0, 0.1, 1.0),
        "hops at the edge": (fall + 0.01 * hop, t + 9 * hop, 1e-4, 1e-5, 1.1),
        "cycles": (1.0 + 0.3 * (t % 3), t % 3, 0.0, 0.0, 0.5),
        "cycles at one level": (np.ones(len(t)), t % 3, 0.0, 0.0, 0.5),
        "chaos": (rng.uniform(size=len(t)), rng.uniform(size=len(t)), 0.3, 0.02, 0.9),
        "momentum": (fall + 0.5 * wave, wave, -0.01, 1e-3, 0.2),
        "adam": (fall + 0.01 * hop, t + 9 * hop, 1e-4, 1e-5, np.nan),
        "grows slowly": (1.0 + size**2, hop * size, 0.004, 1e-6, 1.002),
        "grows by a hair": (np.exp(2e-5 * t), hop * np.exp(1e-5 * t), 1e-5, 1e-9, 1.0),
        "grows and drifts": (size**2, hop * size + 1e-5 * t, 0.004, 1e-6, 1.002),
        "grows with noise": (noise**2, hop * noise, 0.01, 2e-3, 1.01),
        "grows and saturates": (1.0 + logistic**2, hop * logistic, -1e-3, 1e-4, 1.0),
        "grew and converges": (size[::-1] ** 2, hop * size[::-1], -0.004, 1e-6, 0.998),
        "chaos that drifts": (1.0 + 0.001 * t + 0.1 * rng.uniform(size=len(t)),
                              (1.0 + 0.001 * t) * rng.uniform(size=len(t)), 0.3, 0.02, 1.0),
        "flies off": (np.exp(t), np.exp(t), 0.5, 1e-3, 2.0),
        "gone": (np.where(t < 90, fall, np.nan), np.where(t < 90, t, np.nan), *[np.nan] * 3),
        "jumps": (np.where(t < 200, 1.0, 2.0) + 0.01 * rng.uniform(size=len(t)),
                  rng.uniform(size=len(t)), 0.1, 0.1, 1.0),
        "from cycle to cycle": (switch, np.where(t < 200, 5 * hop, t % 3), 0.0, 0.1, 0.3),
    }[name]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("converges", "convergent"),
        ("slides at the edge", "edge of stability"),
        ("hops at the edge", "edge of stability"),
        ("cycles", "periodic"),
        ("cycles at one level", "periodic"),
        ("chaos", "chaotic"),
        ("momentum", "convergent"),
        ("adam", "edge of stability"),
        ("grows slowly", "divergent"),
        ("grows by a hair", "divergent"),
        ("grows and drifts", "divergent"),
        ("grows with noise", "divergent"),
        ("grows and saturates", "undecided"),  # bounded, but not stationary
        ("grew and converges", "edge of stability"),
        ("chaos that drifts", "chaotic"),
        ("flies off", "divergent"),
        ("gone", "divergent"),
        ("jumps", "undecided"),
        ("from cycle to cycle", "undecided"),
    ],
)
def test_the_rule_as_documented(name, label):
    given = (np.array([value], float) for value in series(name, np.arange(401)))
    assert pl.RegimeRule().labels(np.ones(1), *given) == [label]


def test_an_oscillation_that_dies_has_no_period():
    t = np.arange(201)
    rule = pl.RegimeRule()
    alternating = (-1.0) ** t
    assert rule.periods(alternating) == 2
    assert rule.periods(alternating * np.exp(-t / 60.0)) == 0
    assert rule.periods(np.exp(-t / 60.0)) == 1


def test_other_optimisers():
    heavy = iris(
        lrs=[0.01, 0.1], n_steps=200, runs=2, optimizer=pl.GradientDescent(momentum=0.9), n_late=40
    )
    assert np.isfinite(heavy.sharpness).all()
    adam = iris(lrs=[0.01], n_steps=80, runs=2, optimizer=pl.Adam(batch_size=7), n_perturbations=0)
    assert (adam.sharpness > 0).all()
    assert np.isnan(adam.growth).all()
    assert np.isfinite(adam.exponent).all()


def test_adam_is_labelled_by_its_preconditioned_sharpness():
    X, y = pl.datasets.iris()
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    net = pl.Network((4, 20, 3), activation="tanh", loss="mse")
    w0 = net.init("glorot_uniform", runs=1, seed=1)
    scan = pl.learning_rate_scan(
        net, X, np.eye(3)[y], [0.001, 0.03], 1500, w0=w0, optimizer=pl.Adam(), n_perturbations=0
    )
    assert scan.regime[:, 0].tolist() == ["convergent", "edge of stability"]
    assert scan.sharpness[0, 0] < 0.2
    assert 0.9 < scan.sharpness[1, 0] < 1.1


def test_a_spectrum_is_labelled_by_the_sign_of_its_leading_exponent():
    # x -> a x has the exponent ln a at every step; (1 + ln(1)/2) / 100 = 0.01 nats are not told
    # from zero.
    rates = [0.005, -0.005, 0.02, -0.02]
    labels = [
        pl.spectrum_regime(
            pl.lyapunov_spectrum(
                pl.DiscreteMap(lambda x, a=a: np.exp(a) * x, lambda x, a=a: np.exp([[a]]), 1),
                [1.0],
                100,
            )
        )
        for a in rates
    ]
    assert labels == ["marginal", "marginal", "chaotic", "stable"]
    net = cases.network("tanh", "mse")
    X, y = cases.data(net, 20)
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=np.array([0.01, 1e9])))
    s = pl.lyapunov_spectrum(system, np.tile(cases.weights(net), (2, 1)), 60, 2)
    found = pl.spectrum_regime(s)
    assert found.shape == (2,)
    assert found[1] == "diverged"
    assert found[0] != "diverged"


def test_a_run_that_stops_early_is_labelled_over_the_steps_it_made():
    net = cases.network("tanh", "mse")
    system = pl.TrainingMap(net, *cases.data(net, 20), pl.GradientDescent(lr=0.1))
    whole = pl.lyapunov_spectrum(system, cases.weights(net), 2000, 1, tol=1.0)
    assert whole.status == pl.Status.STOPPED
    n = int(whole.n_done)
    margin = (1 + 0.5 * np.log(system.n)) / n
    half = replace(whole, growth=np.full_like(whole.growth, 0.5 * margin))
    twice = replace(whole, growth=np.full_like(whole.growth, 2.0 * margin))
    assert pl.spectrum_regime(half) == "marginal"
    assert pl.spectrum_regime(twice) == "chaotic"


def test_a_scan_becomes_a_dataset():
    pytest.importorskip("xarray")
    data = iris(lrs=[0.1, 1.0], n_steps=60, runs=3, observe=1).to_dataset()
    assert dict(data.sizes) == {"lr": 2, "run": 3, "time": 21}
    assert data.exponent.units == "nats per step"
    assert set(data) >= {"loss", "regime", "late_loss", "late_weight"}
    data.to_netcdf  # noqa: B018


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"lrs": []}, r"lrs must have shape \(n_lr,\)"),
        ({"lrs": [0.1, 0.0]}, "lrs must .* above 0"),
        ({"lrs": [np.nan]}, "lrs must be finite"),
        ({"lrs": 0.1}, "lrs must have shape"),
        ({"n_steps": 39}, "n_steps must be at least 40"),
        ({"n_late": 10}, "n_late must be in 20 ... 100"),
        ({"n_late": 101}, "n_late must be in 20 ... 100"),
        ({"runs": 0}, "runs must be at least 1"),
        ({"init": "he"}, "init must be one of"),
        ({"w0": np.zeros(43)}, r"w0 must have shape \(n_runs, 43\)"),
        ({"w0": np.full((1, 43), np.inf)}, "w0 must be finite"),
        ({"first_run": -1}, "first_run must be at least 0"),
        ({"observe": 43}, "observe must be in 0 ... 42"),
        ({"eps": 0.0}, "eps must be finite and > 0"),
        ({"rule": 3}, "rule must be a RegimeRule"),
        ({"optimizer": "sgd"}, "optimizer must be a GradientDescent or an Adam"),
        ({"optimizer": pl.GradientDescent(momentum=[0.1, 0.2])}, "one momentum for all runs"),
        ({"progress": 1}, "progress must be True or False"),
    ],
)
def test_bad_arguments_are_named(options, says):
    with pytest.raises((ValueError, TypeError), match=says):
        iris(**{"lrs": [0.1], "n_steps": 100, "runs": 2} | options)
    with pytest.raises(ValueError, match="edge must be finite"):
        pl.RegimeRule(edge=-1.0)
