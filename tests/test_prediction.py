"""Skill of indicators: against pair counts, simulations and cases with a known answer."""

import itertools
import tracemalloc

import cases
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import stats

import pylyap as pl
from pylyap import _roc
from pylyap._prediction.outcomes import loss_threshold


def by_pairs(low, high):
    pairs = list(itertools.product(low, high))
    return sum((b > a) + 0.5 * (b == a) for a, b in pairs) / len(pairs)


@given(
    st.lists(st.integers(0, 6), min_size=2, max_size=12),
    st.lists(st.integers(0, 6), min_size=2, max_size=12),
)
def test_area_is_the_share_of_ordered_pairs(low, high):
    indicator = np.array(low + high, float)
    loss = np.array([1.0] * len(low) + [2.0] * len(high))
    skill = pl.prediction_skill(indicator, loss, threshold=1.5)
    assert_allclose(skill.auc, by_pairs(low, high), rtol=1e-12)
    u = stats.mannwhitneyu(high, low).statistic
    assert_allclose(skill.auc, u / (len(low) * len(high)), rtol=1e-12)
    assert 0 <= skill.low <= skill.auc <= skill.high <= 1
    # the ROC ends at (1, 1), and the area under it is the AUC
    x, y = np.append(0, skill.false_positive), np.append(0, skill.true_positive)
    assert x[-1] == y[-1] == 1
    assert_allclose(np.trapezoid(y, x), skill.auc, rtol=1e-12)


def test_variance_is_that_of_delong_by_definition():
    rng = np.random.default_rng(0)
    low, high = rng.normal(size=13), rng.normal(1, 1, size=8)
    above = (high[np.newaxis] > low[:, np.newaxis]).astype(float)
    expected = above.mean(axis=1).var(ddof=1) / 13 + above.mean(axis=0).var(ddof=1) / 8
    auc, variance = _roc.delong(low, high)
    assert_allclose([auc, variance], [above.mean(), expected])


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.5])
def test_intervals_cover(shift):
    rng = np.random.default_rng(1)
    true = stats.norm.cdf(shift / np.sqrt(2))
    loss = np.repeat([1.0, 2.0], [30, 25])
    inside = 0
    for _ in range(400):
        indicator = np.concatenate([rng.normal(size=30), rng.normal(shift, 1, size=25)])
        skill = pl.prediction_skill(indicator, loss, threshold=1.5)
        inside += skill.low <= true <= skill.high
    assert inside / 400 > 0.92


def test_perfect_separation_has_an_honest_interval():
    skill = pl.prediction_skill(np.arange(20.0), np.repeat([1.0, 9.0], 10))
    assert skill.auc == 1
    assert_allclose(skill.low, 0.025 ** (1 / 10))
    assert skill.high == 1
    assert skill.spearman > 0.8


def test_the_threshold_splits_two_clusters_best():
    rng = np.random.default_rng(2)
    loss = np.exp(np.concatenate([rng.normal(-4, 0.5, 30), rng.normal(0, 0.7, 17)]))
    cut, how = loss_threshold(loss, None)
    logs = np.sort(np.log(loss))
    within = [logs[:i].var() * i + logs[i:].var() * (len(logs) - i) for i in range(1, len(logs))]
    best = int(np.argmin(within)) + 1
    assert_allclose(np.log(cut), (logs[best - 1] + logs[best]) / 2)
    explained = 1 - min(within) / (logs.var() * len(logs))
    assert f"{100 * explained:.0f} %" in how


def test_runs_that_diverged_end_high_and_blind_ones_are_left_out():
    skill = pl.prediction_skill(
        [0.0, 1.0, 2.0, 3.0, np.nan], [0.1, 0.2, np.nan, np.inf, 0.1], threshold=1.0
    )
    assert (skill.n_low, skill.n_high, skill.n_left_out) == (2, 2, 1)
    assert skill.auc == 1


BAD = {
    "all equal": (([1, 2, 3], [0.5, 0.5, 0.5]), "final_loss must have two different"),
    "one cluster": (([1, 2, 3], [0.5, 0.6, 0.7], 2.0), "skill is undefined"),
    "shapes": (([1, 2], [0.5, 0.6, 0.7]), "the same shape"),
    "negative": (([1, 2, 3], [-0.5, 0.6, 0.7]), "threshold must be given"),
    "threshold": (([1, 2, 3], [0.5, 0.6, 0.7], np.nan), "threshold must be finite"),
    "level": (([1, 2, 3], [0.5, 0.6, 0.7], 0.6, 1.0), "level must be"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    arguments, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        pl.prediction_skill(*arguments)


def test_paired_comparison_has_its_size_and_sees_a_difference():
    rng = np.random.default_rng(3)
    high = np.arange(60) < 25
    p_null, p_real = [], []
    for _ in range(300):
        shared = rng.normal(size=60) + high
        a, b = (shared + rng.normal(size=60) for _ in range(2))
        p_null.append(_roc.paired_pvalue(a, b, high))
        p_real.append(_roc.paired_pvalue(shared, rng.normal(size=60), high))
    assert np.mean(np.array(p_null) < 0.05) < 0.09
    assert np.mean(np.array(p_real) < 0.05) > 0.5


def test_holm():
    p = np.array([[0.01, np.nan, 0.04], [0.03, 0.9, 0.02]])
    expected = [[0.05, np.nan, 0.09], [0.09, 0.9, 0.08]]
    assert_allclose(_roc.holm(p), expected)


@pytest.fixture(scope="module")
def trained():
    net = pl.Network((2, 3, 1), activation="relu")
    system = pl.TrainingMap(net, *pl.datasets.quadratic(60), pl.GradientDescent(lr=0.1))
    w0 = net.init("he_normal", runs=80, seed=1)
    s = pl.lyapunov_spectrum(system, w0, 1500, k=3, record_every=150)
    c = pl.covariant_lyapunov_vectors(system, w0, 900, 3, n_transient=0, n_tail=300, every=150)
    return s, c


def test_curve_is_the_skill_of_each_record(trained):
    s, c = trained
    curve = pl.prediction_curve(s, covariant=c)
    assert curve.names == ("FTLE 1", "FTLE 2", "FTLE 3", "sum of FTLEs", "smallest angle", "loss")
    final = s.loss[:, -1]
    for m, values in ((0, s.growth[..., 0]), (3, s.growth.sum(axis=-1)), (5, s.loss[:, 1:])):
        for r in range(10):
            skill = pl.prediction_skill(values[:, r], final)
            found = [curve.auc[m, r], curve.low[m, r], curve.high[m, r]]
            assert_allclose(found, [skill.auc, skill.low, skill.high], rtol=1e-12)
    assert_allclose(curve.known[0], np.arange(150, 1501, 150))
    late = np.isin(np.arange(150, 1501, 150), c.steps)
    assert_allclose(curve.known[4], np.where(late, c.steps[-1] + 300, np.nan))  # all steps count
    assert np.isfinite(curve.auc[4, :6]).all()
    assert np.isnan(curve.auc[4, 6:]).all()
    assert np.isnan(curve.against_loss[5]).all()
    assert (curve.adjusted[np.isfinite(curve.adjusted)] <= 1).all()
    assert f"{6 * 10 - 4} comparisons" in curve.note
    assert curve.auc[5, -1] == 1  # the last loss is the answer


def roc_by_definition(low, high):
    cuts = np.unique(np.concatenate([low, high]))[::-1]
    shares = [(kind[:, np.newaxis] >= cuts).mean(axis=0) for kind in (low, high)]
    return (*shares, cuts)


@given(st.data())
def test_roc_and_variances_are_those_of_all_pairs(data):
    # few values: many ties
    values = st.lists(st.integers(-3, 3), min_size=2, max_size=15)
    low, high = (np.array(data.draw(values), float) for _ in range(2))
    loss = np.repeat([1.0, 2.0], [len(low), len(high)])
    skill = pl.prediction_skill(np.concatenate([low, high]), loss, threshold=1.5)
    found = (skill.false_positive, skill.true_positive, skill.cuts)
    for ours, expected in zip(found, roc_by_definition(low, high), strict=True):
        np.testing.assert_array_equal(ours, expected)  # quotients of the same counts
    above = (high > low[:, np.newaxis]) + 0.5 * (high == low[:, np.newaxis])
    expected = sum(above.mean(axis=a).var(ddof=1) / len(k) for a, k in ((1, low), (0, high)))
    auc, variance = _roc.delong(low, high)
    assert_allclose([auc, variance], [above.mean(), expected], rtol=1e-12, atol=1e-15)


def test_the_paired_variance_is_that_of_all_pairs():
    rng = np.random.default_rng(8)
    kinds = np.arange(40) < 15
    a, b = rng.integers(0, 6, (2, 40)) + kinds * [[2.0], [1.0]]
    parts = []
    for x in (a, b):
        above = (x[kinds] > x[~kinds][:, np.newaxis]) + 0.5 * (x[kinds] == x[~kinds][:, np.newaxis])
        parts.append((above.mean(), above.mean(axis=1), above.mean(axis=0)))
    (first, *of_first), (second, *of_second) = parts
    variance = sum(np.var(p - q, ddof=1) / len(p) for p, q in zip(of_first, of_second, strict=True))
    expected = 2 * stats.norm.sf(abs(first - second) / np.sqrt(variance))
    assert_allclose(_roc.paired_pvalue(a, b, kinds), expected, rtol=1e-10)


@pytest.mark.parametrize("ties", [False, True])
def test_area_agrees_with_scikit_learn(ties):
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(9)
    high = rng.random(3000) < 0.3
    x = rng.normal(size=3000) + high
    x = np.round(x) if ties else x
    skill = pl.prediction_skill(x, np.where(high, 2.0, 1.0), threshold=1.5)
    assert_allclose(skill.auc, metrics.roc_auc_score(high, x), rtol=1e-12)
    false, true, cuts = metrics.roc_curve(high, x, drop_intermediate=False)
    assert_allclose(skill.false_positive, false[1:], rtol=1e-14)
    assert_allclose(skill.true_positive, true[1:], rtol=1e-14)
    assert_allclose(skill.cuts, cuts[1:])


@pytest.mark.parametrize("interval", ["delong", "bootstrap"])
def test_memory_grows_with_the_number_of_runs_and_not_with_its_square(interval):
    # 20,000 runs took 270 MB when every run was compared with every cut (and a bootstrap of all
    # samples at once 5000 × 2000 × 16 B = 160 MB). Ten columns of this length are 1.6 MB.
    N = 20_000 if interval == "delong" else 5000
    rng = np.random.default_rng(10)
    loss = np.where(rng.random(N) < 0.4, 1.0, 2.0)
    x = rng.normal(size=N) + loss
    pl.prediction_skill(x[:50], loss[:50], 1.5, interval=interval)  # imports
    tracemalloc.start()
    try:
        skill = pl.prediction_skill(x, loss, 1.5, interval=interval)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < (4e6 if interval == "delong" else 8e7)  # of the latter, 50 MB are drawn at once
    assert_allclose(skill.auc, stats.norm.cdf(1 / np.sqrt(2)), atol=0.04)  # 6 standard errors


def test_curve_refuses_other_runs(trained):
    s, _ = trained
    with pytest.raises(ValueError, match="one number per run"):
        pl.prediction_curve(s, final_loss=np.ones(3))
    few = pl.covariant_lyapunov_vectors(cases.henon(), [0.1, 0.1], 150, every=150)
    with pytest.raises(ValueError, match="covariant must have the runs"):
        pl.prediction_curve(s, covariant=few)


def test_policy_on_an_oracle_and_on_noise():
    rng = np.random.default_rng(4)
    loss = np.where(rng.random(400) < 0.25, 0.1, 5.0)
    good = float((loss < 1).mean())
    oracle = pl.restart_policy(loss + 0.01 * rng.random(400), loss, at=100, n_steps=1000)
    # every run costs 100 steps, and the good ones 900 more
    assert_allclose(oracle.steps_per_good, (100 + good * 900) / good)
    assert_allclose(oracle.steps_without, 1000 / good)
    assert_allclose(oracle.stopped, 1 - good)
    assert_allclose(oracle.good_kept, 1)
    assert oracle.sign == 1
    mirrored = pl.restart_policy(-loss, loss, at=100, n_steps=1000)
    assert mirrored.sign == -1
    assert_allclose(mirrored.saved, oracle.saved)
    saved = [
        pl.restart_policy(rng.random(400), loss, at=500, n_steps=1000, seed=s).saved
        for s in range(10)
    ]
    assert np.mean(saved) < 0.02  # noise saves nothing on runs that it was not fitted to
    with pytest.raises(ValueError, match="folds must be"):
        pl.restart_policy(loss, loss, at=1, n_steps=10, folds=1)


@pytest.mark.parametrize("value", [-np.inf, np.inf, np.nan])
def test_a_policy_stops_runs_without_a_finite_indicator(value):
    # an exponent of a destroyed direction is -inf; the runs that end well have the low indicator,
    # or the high one
    loss = np.repeat([1.0, 2.0], 60)
    for sign in (1.0, -1.0):
        indicator = sign * (loss + 0.01 * np.random.default_rng(0).random(120))
        indicator[::4] = value
        policy = pl.restart_policy(indicator, loss, at=100, n_steps=1000, threshold=1.5)
        assert policy.sign == sign
        # 15 of 60 good runs and all bad ones are stopped
        assert_allclose(policy.stopped, 1 - 45 / 120)
        assert_allclose(policy.good_kept, 1)
        assert_allclose(policy.steps_per_good, (100 + 45 / 120 * 900) / (45 / 120))
        assert np.isfinite(policy.cut)


def test_indicators_without_a_number_are_named():
    loss = np.repeat([1.0, 2.0], 10)
    blind = np.full(20, np.nan)
    with pytest.raises(ValueError, match="indicator must have finite values, got none in 20 runs"):
        pl.prediction_skill(blind, loss)
    with pytest.raises(ValueError, match="indicator must have finite values, got none in 20 runs"):
        pl.prediction_skill(np.full(20, -np.inf), loss)
    with pytest.raises(ValueError, match="indicator must have finite values, got none in 20 runs"):
        pl.restart_policy([blind, blind], loss, [1, 2], 10)
    half = np.where(loss > 1.5, np.nan, np.arange(20))
    with pytest.raises(ValueError, match="indicator must be finite in runs of both kinds"):
        pl.prediction_skill(half, loss)
    # one of several that knows nothing is never chosen
    policy = pl.restart_policy([blind, loss], loss, [1, 2], 10)
    assert policy.candidate == 1


def test_bootstrap_and_delong_intervals_agree():
    rng = np.random.default_rng(3)
    loss = np.repeat([1.0, 2.0], [80, 60])
    indicator = np.concatenate([rng.normal(size=80), rng.normal(1, 1, size=60)])
    a = pl.prediction_skill(indicator, loss, threshold=1.5)
    b = pl.prediction_skill(indicator, loss, threshold=1.5, interval="bootstrap")
    assert_allclose([b.low, b.high], [a.low, a.high], atol=0.02)
    again = pl.prediction_skill(indicator, loss, threshold=1.5, interval="bootstrap")
    assert (again.low, again.high) == (b.low, b.high)
    perfect = pl.prediction_skill(loss, loss, threshold=1.5, interval="bootstrap")
    assert perfect.low < 1 == perfect.high
    with pytest.raises(ValueError, match="interval must be"):
        pl.prediction_skill(indicator, loss, interval="wald")


def test_a_policy_chooses_among_indicators_without_seeing_its_judges():
    rng = np.random.default_rng(4)
    loss = np.repeat([1.0, 2.0], 200)
    noise, hint = rng.normal(size=400), loss + 0.3 * rng.normal(size=400)
    policy = pl.restart_policy([noise, hint], loss, [10, 100], 1000, threshold=1.5)
    assert (policy.candidate, policy.at, policy.sign) == (1, 100, 1)
    alone = pl.restart_policy(hint, loss, 100, 1000, threshold=1.5)
    assert (alone.cut, alone.saved, alone.stopped) == (policy.cut, policy.saved, policy.stopped)
    # half the runs end well; a sure sign at step 100 would cost 100 per bad run
    assert 0.3 < policy.saved < 0.45
    # many candidates that know nothing promise nothing to runs they have not seen
    blind = pl.restart_policy(rng.normal(size=(60, 400)), loss, [100] * 60, 1000, threshold=1.5)
    assert blind.saved < 0.02
    with pytest.raises(ValueError, match="at must be a whole number for each of 2"):
        pl.restart_policy([noise, hint], loss, 10, 1000, threshold=1.5)
    with pytest.raises(ValueError, match="at must be between 0 and n_steps=1000"):
        pl.restart_policy(hint, loss, 1001, 1000, threshold=1.5)


def test_angles_count_from_when_they_are_known():
    net = pl.Network((2, 3, 1), activation="tanh")
    system = pl.TrainingMap(net, *pl.datasets.quadratic(30), pl.GradientDescent(lr=0.1))
    w = net.init("he_normal", runs=40)
    s = pl.lyapunov_spectrum(system, w, 200, 3, record_every=50)
    options = {"n_transient": 0, "n_tail": 60, "every": 50, "vectors": False}
    late = pl.covariant_lyapunov_vectors(system, w, 200, 3, **options)
    early = pl.covariant_lyapunov_vectors(system, w, 200, 3, delay=30, **options)
    threshold = float(np.median(s.loss[:, -1]))
    for c, known in ((late, [260] * 4), (early, [80, 130, 180, 230])):
        curve = pl.prediction_curve(s, None, c, threshold)
        row = curve.names.index("smallest angle")
        assert curve.known[row].tolist() == known
        angles = c.angles(early=c is early).min(axis=-1)[:, 1:].T
        assert_allclose(curve.values[row], angles)
    assert curve.values.shape == (len(curve.names), 4, 40)
