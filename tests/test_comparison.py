"""Finite perturbations beside the tangent vector: both must tell the same story."""

import cases
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl


def training(lr=1.0):
    net = pl.Network((4, 10, 3), activation="sigmoid", loss="cross_entropy")
    return pl.TrainingMap(net, *pl.datasets.iris(), pl.GradientDescent(lr=lr))


def test_small_perturbations_grow_as_the_tangent_vector_does():
    system = training()
    w = system.network.init("normal", runs=12, seed=0)
    c = pl.compare_growth(system, w, [1e-12, 1e-4], 5, 200, seed=2)
    assert c.best_window.slope.shape == c.kept.shape == c.exponent_in_window.shape == (12, 2)
    growing = c.kept[:, 0]
    assert growing.sum() >= 6
    # The line's slope and the mean over its window: both see the same growth, but for the
    # direction that the perturbation loses to the leading one while it still aligns.
    error = c.best_window.slope[growing, 0] - c.exponent_in_window[growing, 0]
    assert np.median(np.abs(error)) < 0.02
    assert np.abs(error).max() < 0.1
    assert (c.exponent < c.best_window.slope[:, 0])[growing].mean() > 0.8  # steep stretches chosen


def test_it_is_its_parts():
    system = training([[0.5], [2.0]])
    w = system.network.init("normal", runs=3, seed=1)
    c = pl.compare_growth(system, w, [1e-9], 4, 60, start=7, norm="l2", seed=5)
    e = pl.perturbation_ensemble(
        system, w, [1e-9], 4, 60, perturb="weights", start=7, norm="l2", seed=5
    )
    assert_allclose(c.ensemble.mean, e.mean, rtol=1e-12)
    assert_allclose(c.best_window.slope, pl.growth_rate(e.distances).slope, rtol=1e-9)
    s = pl.lyapunov_spectrum(system, w, 60, 1, n_transient=7, seed=5)
    assert_array_equal(c.exponent, s.exponents[..., 0])
    assert_array_equal(c.stderr, s.stderr[..., 0])
    start, stop = c.best_window.start[1, 2, 0], c.best_window.stop[1, 2, 0]
    assert_allclose(c.exponent_in_window[1, 2, 0], s.growth[1, 2, start : stop - 1, 0].mean())


def test_the_published_mean_is_over_the_runs_kept():
    system = training()
    w = system.network.init("normal", runs=20, seed=0)
    c = pl.compare_growth(system, w, [1e-10, 1e-1], 3, 120)
    slope, r2 = c.best_window.slope, c.best_window.r2
    for j in range(2):
        kept = slope[(r2[:, j] > 0.9) & (slope[:, j] > 0.05), j]
        assert c.n_kept[j] == len(kept)
        if len(kept) > 1:
            assert_allclose(c.mean[j], kept.mean(), rtol=1e-12)
            assert_allclose(c.spread[j], kept.std(ddof=1), rtol=1e-12)
    none = pl.compare_growth(system, w[:3], 1e-10, 3, 40, least_slope=10.0)
    assert none.eps.shape == (1,)
    assert_array_equal(none.n_kept, [0])
    assert np.isnan([none.mean, none.spread]).all()
    one = pl.compare_growth(system, w[0], 1e-10, 3, 120)
    assert one.best_window.slope.shape == (1,)
    assert_array_equal(one.best_window.slope, c.best_window.slope[0, :1])
    assert one.mean.shape == (1,)


def test_runs_that_diverge_leave_the_others():
    net = pl.Network((2, 3, 1), activation="softplus")
    system = pl.TrainingMap(net, *cases.data(pl.Network((2, 3, 1)), 9), pl.GradientDescent(1.9))
    w = np.stack([cases.weights(net), 1e160 * cases.weights(net)])
    c = pl.compare_growth(system, w, [1e-8], 2, 30)
    assert np.isnan(c.exponent[1])
    assert np.isnan(c.exponent_in_window[1]).all()
    assert not c.kept[1].any()
    alone = pl.compare_growth(system, w[:1], [1e-8], 2, 30)
    assert_array_equal(alone.exponent[0], c.exponent[0])
    assert_array_equal(alone.best_window.slope[0], c.best_window.slope[0])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"n_steps": 29}, "n_steps must be at least 30, got 29"),
        ({"eps": -1.0}, "eps must be at least 0"),
        ({"least_r2": np.nan}, "least_r2 must be finite"),
        ({"least_slope": "fast"}, "least_slope must be a number"),
    ],
)
def test_bad_arguments_are_named(options, says):
    system = training()
    with pytest.raises((ValueError, TypeError), match=says):
        pl.compare_growth(system, system.network.init("normal", seed=0), **{"eps": 1e-8} | options)
