"""Error bars are honest: intervals cover what is known, drifts are told apart from noise."""

import cases
import numpy as np
import pytest

import pylyap as pl

SEEDS = 200
Z = 1.96  # of a 95 % interval


def coverage(spectrum, known):
    """Share of the runs whose interval holds the known value, for each exponent."""
    return (np.abs(spectrum.exponents - known) <= Z * spectrum.stderr).mean(axis=0)


@pytest.fixture(scope="module")
def baker():
    x = np.random.default_rng(1).uniform(size=(SEEDS, 2))
    return pl.lyapunov_spectrum(cases.baker(), x, 600)


@pytest.fixture(scope="module")
def henon():
    x = np.random.default_rng(2).uniform(-0.1, 0.1, size=(SEEDS, 2))
    return pl.lyapunov_spectrum(cases.henon(), x, 800, n_transient=50)


def test_intervals_of_the_baker_map_cover_its_exponents(baker):
    # 95 % of 200 has a standard deviation of 1.5 %: 88 % is 4.5 of them away
    assert (coverage(baker, cases.baker_exponents()) >= 0.88).all()


def test_intervals_of_the_henon_map_cover_its_exponents(henon):
    # its steps are anticorrelated and correlated by turns: naive bars would be wrong
    assert (coverage(henon, np.array([0.41922, np.log(0.3) - 0.41922])) >= 0.88).all()


@pytest.mark.parametrize("name", ["baker", "henon"])
def test_error_bars_are_as_wide_as_the_spread_of_the_runs(name, request):
    s = request.getfixturevalue(name)
    spread = s.exponents.std(axis=0, ddof=1)
    # wide bars cover too, but say nothing
    np.testing.assert_allclose(np.sqrt((s.stderr**2).mean(axis=0)), spread, rtol=0.25)


@pytest.mark.parametrize("name", ["baker", "henon"])
def test_a_stationary_run_is_seldom_flagged_as_drifting(name, request):
    s = request.getfixturevalue(name)
    assert s.trend.shape == (SEEDS, 2)
    assert s.trend.mean() <= 0.1


def test_correlated_growth_widens_the_bar():
    # a hidden two-state chain stays 19 times of 20; growth is ±1 with its state. The variance of
    # the mean is (1 + ρ)/(1 − ρ)/T with ρ = 0.9, nineteen times the naive one
    rng = np.random.default_rng(3)
    T, runs = 4000, 40
    flips = rng.random((runs, T)) < 0.05
    signs = np.where(np.cumsum(flips, axis=1) % 2, 1.0, -1.0) * rng.choice([-1, 1], (runs, 1))

    def spectrum(row):
        system = pl.DiscreteMap(lambda x: x + 1, lambda x: np.array([[np.exp(row[int(x[0])])]]), 1)
        return pl.lyapunov_spectrum(system, [0.0], T)

    bars = np.array([spectrum(row).stderr[0] for row in signs])
    np.testing.assert_allclose(np.sqrt((bars**2).mean()), np.sqrt(19 / T), rtol=0.3)


def drifting(slope, T):
    """Growth of step t is slope · t and a little noise that the state carries along."""
    noise = 0.01 * np.random.default_rng(0).normal(size=T)
    return pl.DiscreteMap(
        lambda x: x + 1,
        lambda x: np.array([[np.exp(slope * x[0] + noise[int(x[0])])]]),
        1,
    )


def test_a_drift_across_the_window_is_flagged():
    assert pl.lyapunov_spectrum(drifting(1e-4, 500), [0.0], 500).trend.all()
    assert not pl.lyapunov_spectrum(drifting(0.0, 500), [0.0], 500).trend.any()


def test_training_is_flagged_as_the_transient_it_is():
    system = cases.iris(lr=0.01)
    w = system.network.init("normal", runs=8, seed=0)
    s = pl.lyapunov_spectrum(system, w, 400)
    # the loss still falls: most exponents drift (and at 1 % nearly none would by chance)
    assert s.trend.mean() > 0.5


def test_records_and_steps_give_similar_bars(baker):
    x = np.random.default_rng(1).uniform(size=(SEEDS, 2))[:80]
    coarse = pl.lyapunov_spectrum(cases.baker(), x, 600, record_every=10)
    np.testing.assert_allclose(coarse.exponents, baker.exponents[:80], atol=1e-12)
    ratio = np.sqrt((coarse.stderr**2).mean(axis=0) / (baker.stderr[:80] ** 2).mean(axis=0))
    np.testing.assert_allclose(ratio, 1, rtol=0.2)


def test_a_constant_growth_has_no_error():
    s = pl.lyapunov_spectrum(cases.linear(2.0, 0.5), np.zeros(2), 50, frame=np.eye(2))
    assert (s.stderr <= 1e-16).all()
    assert not s.trend.any()
