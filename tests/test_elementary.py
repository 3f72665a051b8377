"""Elementary functions over lanes, against fifty digits."""

import numpy as np
import oracles
import pytest
from numpy.testing import assert_array_equal

from pylyap._native import core

pytestmark = pytest.mark.core

TINY = np.finfo(float).tiny  # the least normal number
HUGE = np.finfo(float).max
LN2 = np.log(2.0)

# Largest error allowed, in units in the last place: what was measured over 2e7 points, rounded up.
ELEMENTARY = {"exp": 1.2, "expm1": 1.4, "log": 1.0, "log1p": 1.6}
ACTIVATIONS = {  # f, f'
    "tanh": (3.5, 6.5),
    "sigmoid": (3.0, 5.5),
    "softplus": (2.0, 3.0),
    "elu": (1.4, 1.2),
}


def between(low, high, count, rng):
    """Random bit patterns, so that every binade counts the same."""
    ends = np.array([low, high]).view(np.int64)
    return rng.integers(ends[0], ends[1], count, endpoint=True).view(float)


def points(name, count=1500):
    """Where a function is used: evenly, by magnitude, and where its parts meet."""
    rng = np.random.default_rng(7)
    if name in ("exp", "expm1"):
        switch = (np.arange(1022) + 0.5) * LN2
        near = np.concatenate([np.nextafter(switch, side) for side in (0.0, 1e4)] + [switch])
        grids = [
            np.linspace(0, 708.39, count),
            rng.uniform(0, 2, count),
            between(1e-300, 708.39, count, rng),
        ]
        return -np.concatenate([*grids, near[near < 708.39], [TINY, 1e-17, LN2]])
    if name == "log":
        switch = np.sqrt(2.0) * 2.0 ** np.arange(-1000, 1000, 50)
        near = np.concatenate([switch * (1 + j * 2.0**-52) for j in range(-3, 4)])
        grids = [
            rng.uniform(0, 3, count),
            between(TINY, HUGE, count, rng),
            between(5e-324, TINY, count, rng),
            1 + 1e-4 * rng.normal(size=count),
        ]
        return np.concatenate([*grids, near, 1 + np.arange(-8, 8) * 2.0**-53, [TINY, HUGE, 5e-324]])
    if name == "log1p":
        switch = np.sqrt(2.0) * 2.0 ** np.arange(0, 60) - 1
        near = np.concatenate([switch * (1 + j * 2.0**-52) for j in range(-3, 4)])
        grids = [
            rng.uniform(0, 1, count),
            rng.uniform(0.4, 0.45, count),
            rng.uniform(0, 100, count),
            between(TINY, HUGE, count, rng),
        ]
        return np.concatenate([*grids, near, [1.0, 2.0**52, 2.0**53, 2.0**54, HUGE]])
    switch = (np.arange(400) + 0.5) * LN2
    grids = [
        rng.uniform(0, 1, count),
        rng.uniform(0, 20, count),
        np.linspace(0, 350, count),
        between(TINY, 350.0, count, rng),
    ]
    size = np.concatenate([*grids, switch[switch < 350], switch[switch < 350] / 2])
    return np.concatenate([-size, size])


def ulps(actual, expected, m):
    """Errors in units in the last place of the exact values, which are objects of mpmath."""
    rounded = oracles.lower(expected, m)
    unit = np.spacing(np.maximum(np.abs(rounded), TINY))
    errors = (oracles.lift(actual, m) - expected) / oracles.lift(unit, m)
    return np.abs(oracles.lower(errors, m)), rounded


def check(name, x, actual, expected, m, limit):
    error, rounded = ulps(actual, expected, m)
    normal = (np.abs(rounded) >= TINY) | (rounded == 0)
    error[~normal] = 0.0
    worst = int(np.argmax(error))
    assert error[worst] <= limit, f"{name}({x[worst]!r}) is {error[worst]:.2f} ulp off"
    assert (np.abs(np.asarray(actual)[~normal]) <= TINY).all()


@pytest.mark.parametrize("name", ELEMENTARY)
def test_elementary_functions_are_right_to_the_last_digit_or_so(name):
    pytest.importorskip("mpmath")
    m = oracles.multiprecision()
    x = points(name)
    expected = getattr(m, name)(oracles.lift(x, m))
    check(name, x, core.elementary(name, x), expected, m, ELEMENTARY[name])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_right_to_a_few_units_in_the_last_place(name):
    pytest.importorskip("mpmath")
    m = oracles.multiprecision(400)  # 1 + exp(-700) must not be 1
    z = points(name, 400)
    expected = oracles.activation(name, oracles.lift(z, m), m)
    for part in range(2):
        label = name + "'" * part
        actual = core.activate(name, z)[part]
        check(label, z, actual, expected[part], m, ACTIVATIONS[name][part])


def test_arguments_at_the_edges():
    nan, inf = np.nan, np.inf
    x = np.array([0.0, -0.0, -np.finfo(float).smallest_subnormal, -TINY, -1e308, -inf, nan])
    assert_array_equal(core.elementary("exp", x), [1, 1, 1, 1, 0, 0, nan])
    assert_array_equal(core.elementary("expm1", x), [0, 0, x[2], -TINY, -1, -1, nan])
    x = np.array([0.0, -0.0, 1.0, inf, nan, -inf, -TINY, -5e-324])
    assert_array_equal(core.elementary("log", x), [-inf, -inf, 0, inf, nan, nan, nan, nan])
    x = np.array([0.0, 5e-324, TINY, inf, nan])
    assert_array_equal(core.elementary("log1p", x), x)


def test_activations_saturate():
    z = np.array([1e308, -1e308, np.inf, -np.inf, np.nan, 400.0, -400.0])
    nan = np.nan
    f, df, d2f = core.activate("tanh", z)
    assert_array_equal(f, [1, -1, 1, -1, nan, 1, -1])
    assert_array_equal(df, [0, 0, 0, 0, nan, 0, 0])
    assert_array_equal(np.abs(d2f), [0, 0, 0, 0, nan, 0, 0])
    f, df, _ = core.activate("sigmoid", z[:5])
    assert_array_equal(f, [1, 0, 1, 0, nan])
    assert_array_equal(df, [0, 0, 0, 0, nan])
    f, df, d2f = core.activate("softplus", z[:5])
    assert_array_equal(f, [1e308, 0, np.inf, 0, nan])
    assert_array_equal(df, [1, 0, 1, 0, nan])
    assert_array_equal(d2f, [0, 0, 0, 0, nan])


def test_tanh_is_odd_to_the_bit():
    z = points("tanh", 400)
    assert_array_equal(core.activate("tanh", -z)[0], -core.activate("tanh", z)[0])


@pytest.mark.parametrize("name", ELEMENTARY)
def test_the_bits_of_a_lane_do_not_depend_on_its_neighbours(name):
    x = points(name, 200)
    odd = np.array([np.nan, np.inf, -np.inf, 0.0, 5e-324, -1e308, 1e308])
    alone = np.array([core.elementary(name, np.array([v]))[0] for v in x])
    rng = np.random.default_rng(3)
    for _ in range(4):
        order = rng.permutation(len(x))
        rows = rng.choice(odd, (len(x), 2))
        side = rng.integers(2, size=len(x))
        rows[np.arange(len(x)), side] = x[order]
        computed = core.elementary(name, rows.ravel()).reshape(rows.shape)
        assert_array_equal(computed[np.arange(len(x)), side], alone[order])


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="name must be"):
        core.elementary("cosh", np.zeros(1))
    with pytest.raises(ValueError, match="unknown activation"):
        core.activate("tan", np.zeros(1))
    with pytest.raises(ValueError, match="null"):
        core.activate((0, 0, None), np.zeros(1))
