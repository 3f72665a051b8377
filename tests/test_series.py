"""Autocorrelation and expansion rates: against sums by definition and maps with known exponents."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl
from pylyap._perturbations import series


def by_definition(x, lags):
    c = x - x.mean()
    return np.array([(c[: len(c) - lag] * c[lag:]).sum() for lag in range(lags + 1)]) / (c @ c)


@pytest.mark.parametrize("length", [2, 7, 50, 129])
def test_autocorrelation_is_the_sum_of_products(length):
    x = np.random.default_rng(0).normal(size=(3, length)).cumsum(axis=1)
    found = pl.autocorrelation(x, length - 1, n_shuffles=0)
    assert_allclose(found.values, [by_definition(row, length - 1) for row in x], atol=1e-13)
    assert_array_equal(found.lags, np.arange(length))
    assert np.isnan(found.low).all()
    assert pl.autocorrelation(x[0], n_shuffles=0).values.shape == (length // 4 + 1,)


def test_white_noise_lies_in_the_band_and_a_walk_does_not():
    rng = np.random.default_rng(1)
    noise = pl.autocorrelation(rng.normal(size=(20, 400)), 50, n_shuffles=400, seed=2)
    outside = (noise.values < noise.low) | (noise.values > noise.high)
    assert 0.02 < outside[:, 1:].mean() < 0.08  # 5 % at any single lag
    assert_allclose(noise.high[:, 1:].mean(), 1.96 / np.sqrt(400), rtol=0.1)
    ar = np.zeros((4, 4000))
    for t in range(1, 4000):
        ar[:, t] = 0.9 * ar[:, t - 1] + rng.normal(size=4)
    walk = pl.autocorrelation(ar, 60, n_shuffles=200)
    assert_allclose(walk.values[:, :5].mean(axis=0), 0.9 ** np.arange(5), atol=0.05)
    assert ((walk.decorrelation > 10) | (walk.decorrelation == -1)).all()
    assert (noise.decorrelation == 1).mean() > 0.8


def test_shuffles_do_not_depend_on_how_many_are_transformed_at_once(monkeypatch):
    x = np.random.default_rng(3).normal(size=100)
    whole = pl.autocorrelation(x, n_shuffles=50, seed=4)
    monkeypatch.setattr(series, "_AT_ONCE", 1)
    again = pl.autocorrelation(x, n_shuffles=50, seed=4)
    assert_allclose(again.low, whole.low, atol=1e-15)
    assert_allclose(again.high, whole.high, atol=1e-15)


def test_a_constant_has_no_autocorrelation():
    x = np.full((2, 30), 0.1)
    x[1] = np.arange(30)
    found = pl.autocorrelation(x, n_shuffles=10)
    assert np.isnan(found.values[0]).all()
    assert found.decorrelation[0] == -1
    assert found.values[1, 0] == 1


def tent(n, x=0.123456789):
    """An orbit of the logistic map at 4, whose exponent is ln 2."""
    out = np.empty(n)
    for t in range(n):
        out[t] = x
        x = 4 * x * (1 - x)
    return out


def test_expansion_rates_by_definition():
    x = tent(3000)
    rates = pl.expansion_rates(x, 1e-3, n_points=40, horizon=12, theiler=3, seed=5)
    assert len(rates.points) == 40
    for m, i in enumerate(rates.points):
        starts = np.arange(len(x) - 12)
        near = starts[(np.abs(x[starts] - x[i]) < 1e-3) & (np.abs(starts - i) > 3)]
        assert rates.n_neighbours[m] == len(near)
        if len(near) == 0:
            assert np.isnan(rates.distances[m]).all()
            assert np.isnan(rates.slope[m])
            continue
        d = [np.abs(x[near + n] - x[i + n]).mean() for n in range(13)]
        assert_allclose(rates.distances[m], d, rtol=1e-12)
        lines = []
        for stop in range(5, 13):
            t = np.arange(1, stop + 1)
            slope, intercept = np.polyfit(t, np.log(d[1 : stop + 1]), 1)
            residual = np.log(d[1 : stop + 1]) - intercept - slope * t
            lines.append((1 - residual.var() / np.log(d[1 : stop + 1]).var(), slope, intercept))
        best = int(np.argmax([line[0] for line in lines]))
        assert rates.stop[m] == best + 5
        assert_allclose((rates.r2[m], rates.slope[m], rates.intercept[m]), lines[best], atol=1e-9)


def test_the_corrected_rate_is_the_exponent_of_the_logistic_map():
    x = tent(60_000)
    options = {"radius": 1e-6, "n_points": 400, "horizon": 12, "theiler": 20}
    rates = pl.expansion_rates(x, window=10, geometric=True, **options)
    slope = rates.slope[np.isfinite(rates.slope)]
    assert len(slope) > 50
    assert_allclose(slope.mean(), np.log(2), atol=0.05)
    assert rates.exponential[np.isfinite(rates.slope)].mean() > 0.8
    assert (rates.stop == 10).all()


def test_neighbours_in_time_are_left_out_by_a_theiler_window():
    x = np.sin(np.arange(2000) * 0.001)  # slow: the nearest values are the next ones
    published = pl.expansion_rates(x, 5e-3, n_points=50, horizon=10)
    corrected = pl.expansion_rates(x, 5e-3, n_points=50, horizon=10, theiler=100)
    assert (published.n_neighbours > 5).all()
    assert (corrected.n_neighbours < published.n_neighbours).all()
    embedded = pl.expansion_rates(x, 5e-3, n_points=50, horizon=10, dimension=3)
    assert (embedded.n_neighbours <= published.n_neighbours).all()


def test_an_exact_return_gives_nan_and_no_warning():
    x = np.tile([0.1, 0.4, 0.9, 0.2], 50)
    rates = pl.expansion_rates(x, n_points=20, horizon=10)
    assert (rates.n_neighbours > 0).all()
    assert np.isnan(rates.slope).all()
    assert not rates.exponential.any()


BAD = {
    "a number": (lambda: pl.autocorrelation(1.0), "x must have shape"),
    "lag": (lambda: pl.autocorrelation(np.arange(5.0), 5), "max_lag must be at most T - 1 = 4"),
    "nan": (lambda: pl.autocorrelation([0.0, np.nan, 1.0]), "x must be finite"),
    "level": (lambda: pl.autocorrelation(np.arange(9.0), level=1.0), "level must be"),
    "two axes": (lambda: pl.expansion_rates(np.zeros((5, 50))), r"x must have shape \(T,\)"),
    "short": (lambda: pl.expansion_rates(np.arange(26.0)), "x must be longer than the horizon"),
    "radius": (lambda: pl.expansion_rates(np.arange(99.0), 0.0), "radius must be"),
    "horizon": (lambda: pl.expansion_rates(np.arange(99.0), horizon=5), "horizon must be at least"),
    "window": (
        lambda: pl.expansion_rates(np.arange(99.0), window=26),
        "window must be in 3 ... 25",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("r", "period"), [(2.8, 1), (3.2, 2), (3.5, 4), (3.55, 8), (3.83, 3), (3.9, 0), (4.0, 0)]
)
def test_periods_of_the_logistic_map(r, period):
    # Windows of May, Nature 261, 459 (1976).
    x = np.empty(2400)
    x[0] = 0.3
    for t in range(len(x) - 1):
        x[t + 1] = r * x[t] * (1 - x[t])
    late = x[2000:]
    assert pl.find_period(late) == period
    drift = late + 3e-2 * np.arange(400) if period != 1 else late
    assert pl.find_period(drift) == period


def logistic(r, length):
    x = np.empty(length + 20_000)
    x[0] = 0.3
    for t in range(len(x) - 1):
        x[t + 1] = r * x[t] * (1 - x[t])
    return x[-length:]


# Doublings of the fixed point, of the windows of period 3, 4, 5 and 6, and chaos between them. The
# right values are the least p with |x_{t+p} − x_t| < 1e-9 after 200,000 steps (none for the last).
WINDOWS = {
    2.8: 1, 3.2: 2, 3.44: 2, 3.46: 4, 3.54: 4, 3.55: 8, 3.566: 16, 3.5688: 32, 3.628: 6, 3.74: 5,
    3.7416: 10, 3.83: 3, 3.8415: 6, 3.845: 6, 3.848: 12, 3.8492: 24, 3.9057: 5, 3.9602: 4, 3.6: 0,
    3.7: 0, 3.905: 0, 3.95: 0, 4.0: 0,
}  # fmt: skip


@pytest.mark.parametrize("r", WINDOWS)
def test_period_doubled_orbits_have_their_whole_period(r):
    orbit = logistic(r, 2000)
    for length in (150, 400, 2000):
        x = orbit[:length]
        expected = WINDOWS[r] if WINDOWS[r] <= length // 4 else 0
        assert pl.find_period(x) == expected
        assert pl.find_period(1e-3 * x + 2e-5 * np.arange(length)) == expected
        if WINDOWS[r] < 3:
            continue  # of smaller differences than the noise
        noise = 1e-6 * np.random.default_rng(0).normal(size=length)
        assert pl.find_period(x + noise) == expected
        assert pl.find_period(x, max_period=WINDOWS[r] - 1) == 0


@pytest.mark.parametrize("length", [200, 400, 1000, 3000])
def test_slow_oscillations_and_rotations(length):
    t = np.arange(length)

    def period(x, most=128):
        found = pl.find_period(np.stack([x, x + 0.01 * t, 1e6 * x]), most)
        assert (found == found[0]).all()
        return found[0]

    for p in (2, 7, 30, 64, 100, 127):
        expected = p if p <= length // 4 else 0
        assert period(np.sin(2 * np.pi * t / p + 0.3)) == expected
        assert period(np.sin(2 * np.pi * t / p + 0.3), p - 1 if p > 2 else 1) == 0
    assert period(np.sin(2 * np.pi * t / 7.5)) == 15
    golden = (np.sqrt(5) - 1) / 2
    # near-returns after 34, 55, 89, 377, …; 29, 70, 169; 10; 37; 22 (355 is one within 4e-5)
    for turn in (golden, np.sqrt(2), 0.3 + 1e-3 * golden, 1 / 12.34, 1 / np.pi):
        for most in (64, 128, 400 if turn != 1 / np.pi else 300):
            assert period(np.cos(2 * np.pi * turn * t), most) == 0
    assert period(np.cos(2 * np.pi * t / 2.0) + 0.2 * np.cos(2 * np.pi * golden * t)) == 0


def test_cycles_in_noise_and_with_drifts():
    rng = np.random.default_rng(0)
    for length in (200, 1000):
        t = np.arange(length)
        noise = rng.normal(size=length)
        two, four = (-1.0) ** t, np.cos(np.pi * t / 2)
        assert pl.find_period(two + 0.01 * noise) == 2
        assert pl.find_period(np.array([0, 1, 0.3])[t % 3] + 0.01 * noise) == 3
        assert pl.find_period(two + 0.1 * four + 1e-3 * noise) == 4
        assert pl.find_period(two + 0.1 * four * np.exp(-8 * t / length)) == 2  # it dies
        assert pl.find_period(0.1 * two + np.exp(-t / 100)) == 2
        assert pl.find_period((1 + 0.02 * t / length) * two) == 2
        assert pl.find_period(noise) == 0
        assert pl.find_period(noise.cumsum()) == 0
        assert pl.find_period(1.0 + 1e-8 * two) == 2
        assert pl.find_period(1.0 + 1e-13 * two) == 1
    # a change in half-time
    assert pl.find_period(np.where(t < 500, two, np.array([0, 1, 0.3])[t % 3])) == 0
    x = np.stack([two, two, np.full(length, -np.inf)])
    x[1, 4] = np.inf
    assert_array_equal(pl.find_period(x), [2, 0, 0])


def test_periods_do_not_depend_on_the_series_beside(monkeypatch):
    x = (
        np.random.default_rng(1).normal(size=(30, 100)) * 0.01
        + np.arange(100) % np.arange(1, 31)[:, None]
    )
    whole = pl.find_period(x)
    assert_array_equal(whole[1:25], np.arange(2, 26))
    assert_array_equal([pl.find_period(row) for row in x], whole)
    monkeypatch.setattr(series, "_AT_ONCE", 1)
    assert_array_equal(pl.find_period(x), whole)


def test_periods_of_rest_drift_and_noise():
    t = np.arange(100.0)
    rng = np.random.default_rng(0)
    x = np.stack([np.ones(100), t, np.exp(-t), -(t**2), rng.normal(size=100), t % 7])
    assert_array_equal(pl.find_period(x), [1, 1, 1, 1, 0, 7])
    assert_array_equal(pl.find_period(x, max_period=6), [1, 1, 1, 1, 0, 0])
    x[5, 3] = np.nan
    assert pl.find_period(x)[5] == 0
    assert pl.find_period((t % 30)[:100]) == 0  # above a quarter of the series


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"x": np.zeros(7)}, r"x must have shape \(..., T\) with T >= 8"),
        ({"max_period": 0}, "max_period must be at least 1"),
        ({"tol": 0.0}, "tol must be finite and > 0"),
        ({"tol": 1.0}, "tol must be .* < 1"),
    ],
)
def test_bad_arguments_of_periods_are_named(options, says):
    with pytest.raises(ValueError, match=says):
        pl.find_period(**{"x": np.zeros(50)} | options)
