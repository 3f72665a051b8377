"""Growth of distances: the published rule window by window, laws recovered from their own data."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import linregress

import pylyap as pl


def published(distances):
    """The rule by loops, for one run (n_perturbations, T + 1)."""
    mean = distances.mean(axis=0)
    best = (-np.inf,)
    for start in range(0, 101, 5):
        for length in range(30, 101, 5):
            window = mean[start : start + length]
            if len(window) < length or (window == 0).any():
                continue
            line = linregress(np.arange(start, start + length), np.log(window))
            if line.rvalue**2 > best[0] + 1e-13:
                best = (line.rvalue**2, line.slope, line.intercept, start, start + length)
    return best


def test_the_published_rule_to_the_letter():
    rng = np.random.default_rng(0)
    t = np.arange(201)
    rates = rng.uniform(0.02, 0.2, (2, 6, 1, 1))
    d = 1e-8 * np.exp(np.minimum(rates * t, 12) + 0.3 * rng.normal(size=(2, 6, 5, 201)))
    d[0, 0, :, :20] = 0.0
    g = pl.growth_rate(d)
    assert g.slope.shape == (2, 6)
    for index in np.ndindex(2, 6):
        r2, slope, intercept, start, stop = published(d[index])
        assert_allclose((g.r2[index], g.slope[index]), (r2, slope), rtol=1e-9)
        assert_allclose(g.intercept[index], intercept, rtol=1e-9)
        assert (g.start[index], g.stop[index]) == (start, stop)
    assert g.start[0, 0] >= 20
    alone = pl.growth_rate(d[1, 3])
    assert alone.slope == g.slope[1, 3]


@pytest.mark.parametrize("method", ["best_window", "until_saturation"])
def test_a_run_gives_the_same_bits_alone_and_among_others(method):
    rng = np.random.default_rng(5)
    d = np.exp(0.05 * np.arange(101) + 0.1 * rng.normal(size=(9, 4, 101)))
    together = pl.growth_rate(d, method)
    for run in range(9):
        alone = pl.growth_rate(d[run : run + 1], method)
        for name in ("slope", "stderr", "intercept", "r2"):
            assert getattr(alone, name)[0] == getattr(together, name)[run]


def test_exact_zeros_and_lost_members():
    d = np.exp(0.1 * np.arange(150.0)) * np.ones((4, 150))
    d[:3, 70:] = np.nan  # lost; the rest go on alone
    assert_allclose(pl.growth_rate(d).slope, 0.1)
    g = pl.growth_rate(np.zeros((3, 150)))
    assert np.isnan([g.slope, g.intercept, g.r2, g.stderr]).all()
    assert (g.start, g.stop, g.saturation) == (-1, -1, -1)
    d[:, ::20] = 0.0  # no window without a zero
    assert np.isnan(pl.growth_rate(d).slope)


def test_growth_until_saturation():
    t = np.arange(400)
    rng = np.random.default_rng(1)
    noise = np.exp(0.05 * rng.normal(size=(3, 1, 400)))
    d = noise * 1e-6 / (1e-6 + np.exp(-0.08 * t))[np.newaxis, np.newaxis] * 1.0
    g = pl.growth_rate(d, "until_saturation")
    expected = np.log(1e6 / (np.e - 1)) / 0.08  # within a factor e of 1
    assert_allclose(g.saturation, expected, atol=4)
    assert_allclose(g.slope, 0.08, rtol=0.05)
    assert_array_equal(g.stop, g.saturation)
    still = pl.growth_rate(np.exp(0.05 * t), "until_saturation", axis=None)
    assert still.saturation == -1
    assert still.stop == 400
    assert_allclose(still.slope, 0.05)


def test_the_best_window_is_biased_upwards_and_the_other_is_not():
    rng = np.random.default_rng(2)
    t = np.arange(201)
    walk = 0.3 * rng.normal(size=(400, 201)).cumsum(axis=1)  # fluctuating local growth
    d = np.exp(0.06 * t + walk)
    best = pl.growth_rate(d, axis=None).slope
    whole = pl.growth_rate(d, "until_saturation", axis=None).slope
    assert abs(whole.mean() - 0.06) < 0.005
    assert best.mean() > whole.mean()


LAWS = {
    "exponential": (lambda t: 1e-8 * np.exp(0.05 * t), (1e-8, 0.05)),
    "linear": (lambda t: 2e-7 + 3e-8 * t, (2e-7, 3e-8)),
    "square root": (lambda t: 1e-7 + 4e-7 * np.sqrt(t), (1e-7, 4e-7)),
    "bounded": (lambda t: 0.5 - 0.45 * np.exp(-t / 30), (0.5, 0.45, 30)),
}


@pytest.mark.parametrize("name", LAWS)
def test_each_law_is_told_from_the_others(name):
    law, parameters = LAWS[name]
    t = np.arange(300.0)
    rng = np.random.default_rng(3)
    d = law(t) * np.exp(0.05 * rng.normal(size=(4, 5, 300)))
    found = pl.growth_law(d)
    assert (found.best == name).all()
    m = found.names.index(name)
    assert (found.weight[:, m] > 0.95).all()
    assert_allclose(found.weight.sum(axis=-1), 1)
    close = np.median(found.parameters[:, m, : len(parameters)], axis=0)
    assert_allclose(close, parameters, rtol=0.15)


def test_laws_need_records():
    d = np.full((2, 10), np.nan)
    d[:, :5] = 1.0
    found = pl.growth_law(d)
    assert found.best == ""
    assert np.isnan(found.aic).all()
    scaled = pl.growth_law(np.exp(0.3 * np.arange(20.0)), 10 * np.arange(20.0), axis=None)
    assert_allclose(scaled.parameters[0, :2], (1, 0.03), rtol=1e-6)


BAD = {
    "negative": (lambda: pl.growth_rate(-np.ones((2, 50))), "distances must be finite"),
    "infinite": (lambda: pl.growth_rate(np.full((2, 50), np.inf)), "distances must be finite"),
    "short": (lambda: pl.growth_rate(np.ones((2, 29))), "at least 30 records"),
    "no members": (lambda: pl.growth_rate(np.ones(50)), "axis=None"),
    "time": (lambda: pl.growth_rate(np.ones((2, 50)), axis=-1), "axis of perturbations"),
    "method": (lambda: pl.growth_rate(np.ones((2, 50)), "best"), "method must be"),
    "t": (lambda: pl.growth_law(np.ones((2, 50)), np.zeros(50)), "t must increase"),
    "t shape": (lambda: pl.growth_law(np.ones((2, 50)), np.arange(49.0)), "t must have shape"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()
