"""Dimension and uncertainty exponent of borders whose dimension is known."""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl

CANTOR = np.log(2) / np.log(3)


def straight(rng, n=257):
    """A straight line of any direction, through the middle half of the map."""
    angle, (a, b) = rng.uniform(0, np.pi), rng.uniform(0.25, 0.75, 2) * n
    y, x = np.mgrid[:n, :n]
    return (y - a) * np.cos(angle) + (x - b) * np.sin(angle) > 0


def walks(rng, n=513):
    """The sign of the sum of a random walk along each axis.

    Walks scale as √ε: the border has the dimension 2 − 1/2, and pairs at the distance ε differ with
    a probability that scales as √ε.
    """
    across, down = np.cumsum(rng.normal(size=(2, n)), axis=1)
    field = across + down[:, np.newaxis]
    return field > np.median(field)


def tent(rng, n=2**15 + 1):
    """Steps after which points leave [0, 1] under the tent map of slope 3.

    Points that never leave are the Cantor set of middle thirds. The interval begins and ends at
    random, so that boxes and thirds do not match.
    """
    x = np.linspace(-rng.uniform(0, 0.5), 1 + rng.uniform(0, 0.5), n)
    steps = np.zeros(n, int)
    for t in range(1, 60):
        inside = (x >= 0) & (x <= 1)
        steps[inside] = t
        x = np.where(inside, np.where(x < 0.5, 3 * x, 3 - 3 * x), -1.0)
    return steps


# Maker, dimension, number of smooth axes, and a bound on the mean error of 12 repetitions or more.
CASES = {
    "straight": (straight, 1.0, 1, 0.01),
    "walks": (walks, 1.5, 1, 0.04),  # four standard errors: one map has 0.03
    "tent": (tent, CANTOR, 0, 0.02),
}


def coverage(case, repetitions):
    """Fractions of repetitions in which both intervals contain the truth."""
    make, dimension, smooth, bound = CASES[case]
    d = 1 + smooth
    rng = np.random.default_rng(0)
    hits, errors = np.zeros((2, repetitions)), np.zeros((2, repetitions))
    for r in range(repetitions):
        ends = make(rng)
        box, pairs = pl.box_dimension(ends), pl.uncertainty_exponent(ends)
        hits[:, r] = (
            box.interval[0] <= dimension <= box.interval[1],
            pairs.interval[0] <= d - dimension <= pairs.interval[1],
        )
        errors[:, r] = box.dimension - dimension, pairs.exponent - (d - dimension)
        assert pairs.dimension == d - pairs.exponent
    assert (np.abs(errors.mean(axis=1)) < bound).all()
    return hits.mean(axis=1)


@pytest.mark.parametrize("case", CASES)
def test_intervals_cover_the_truth(case):
    assert (coverage(case, 12) >= 0.75).all()  # fewer than 9 of 12: p < 0.001 at 95 %


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_intervals_cover_the_truth_in_85_of_100_repetitions(case):
    assert (coverage(case, 100) >= 0.85).all()


def test_counts_of_a_diagonal_are_exact():
    y, x = np.mgrid[:513, :513]
    found = pl.box_dimension(x > y)
    # The 512/s boxes on the diagonal, and those whose upper left corner it passes.
    assert_array_equal(found.sizes, [1, 2, 4, 8, 16, 32])
    assert_array_equal(found.counts, 512 // found.sizes + 512 // found.sizes - 1)
    pairs = pl.uncertainty_exponent(x > y)
    assert_allclose(pairs.fractions / pairs.distances, pairs.fractions[0], rtol=0.1)


def test_a_set_that_fills_the_plane_has_dimension_2():
    ends = np.random.default_rng(0).random((257, 257)) < 0.5
    assert_allclose(pl.box_dimension(ends).dimension, 2.0, atol=0.01)
    assert_allclose(pl.uncertainty_exponent(ends).exponent, 0.0, atol=0.01)


def test_a_map_is_taken_by_its_convergence():
    c = straight(np.random.default_rng(1), 257)
    found = pl.StabilityMap(
        c, np.zeros(c.shape), np.ones(c.shape, int), dims=("b", "a"),
        coords={"a": np.arange(257.0), "b": np.arange(257.0)},
    )  # fmt: skip
    assert pl.box_dimension(found).dimension == pl.box_dimension(c).dimension
    assert_array_equal(pl.box_dimension(found).counts[0], found.border.sum())


@pytest.mark.parametrize("value", [True, False])
def test_without_a_border_the_dimension_is_nan_with_the_reason(value):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        box = pl.box_dimension(np.full((65, 65), value))
        pairs = pl.uncertainty_exponent(np.full((65, 65), value))
    for found, number in ((box, box.dimension), (pairs, pairs.exponent)):
        assert np.isnan(number)
        assert np.isnan(found.stderr)
        assert found.reason == f"no border: {'every' if value else 'no'} run converged"
        assert found.reason in repr(found)


def test_too_few_scales():
    found = pl.box_dimension(np.arange(30) % 2 == 0)
    assert np.isnan(found.dimension)
    assert found.reason.startswith("1 sizes with 8 boxes or more, 3 are needed: 65 pixels")
    tiny = pl.box_dimension(np.array([True, False]))
    assert tiny.reason.startswith("0 sizes")


def test_files(tmp_path):
    pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    ends = walks(np.random.default_rng(0), 129)
    for found in (pl.box_dimension(ends), pl.uncertainty_exponent(ends)):
        found.save(tmp_path / "found.nc")
        assert repr(pl.load(tmp_path / "found.nc")) == repr(found)


@pytest.mark.parametrize(
    ("ends", "match"),
    [
        (np.zeros((9, 9)), "^ends must be a StabilityMap, booleans or integers, got dtype float64"),
        (np.zeros((9, 9, 9), bool), r"^ends must have shape \(n,\) or \(ny, nx\) of 2 or more"),
        (np.zeros((1, 9), bool), r"^ends must have shape"),
        (np.True_, r"^ends must have shape"),
        ("map", "^ends must be a StabilityMap, booleans or integers"),
    ],
)
def test_ends_that_are_none(ends, match):
    for function in (pl.box_dimension, pl.uncertainty_exponent):
        with pytest.raises((pl.ArgumentError, pl.ArgumentTypeError), match=match):
            function(ends)


def test_the_command_draws_enough_pixels_by_default(capsys):
    cli = pytest.importorskip("pylyap.cli")
    assert cli.main(["map", "--data", "quadratic", "--hidden", "3", "--steps", "60"]) == 0
    assert "No dimension of the border" not in capsys.readouterr().out
