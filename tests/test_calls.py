"""Repeated calls: what is kept between them is a function of the arguments alone."""

from dataclasses import fields

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import pylyap as pl

pytestmark = pytest.mark.core


def training(lr=0.1):
    net = pl.Network((2, 3, 1))
    return net, pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent(lr=lr))


@pytest.mark.parametrize("analysis", [pl.lyapunov_spectrum, pl.covariant_lyapunov_vectors])
def test_results_share_no_memory_with_those_of_the_next_call(analysis):
    net, system = training()
    w0 = net.init(seed=0)
    first = analysis(system, w0, 10, k=3, seed=5)
    arrays = {f.name: getattr(first, f.name) for f in fields(first)}
    arrays = {name: a for name, a in arrays.items() if isinstance(a, np.ndarray)}
    before = {name: a.copy() for name, a in arrays.items()}
    for a in arrays.values():
        a[...] = -7
    second = analysis(system, w0, 10, k=3, seed=5)
    for name, a in before.items():
        assert_array_equal(getattr(second, name), a, err_msg=name)


def test_one_system_takes_batches_of_any_size_in_any_order():
    net, system = training()
    w = net.init(runs=6, seed=0)
    whole = system.step(w)
    for runs in (1, 6, 2, 2, 1):
        assert_array_equal(system.step(w[:runs]), whole[:runs])
        assert_array_equal(system.step(w[0]), whole[0])
    assert system.step(w[:0]).shape == (0, system.n)


def test_rates_of_each_run_belong_to_their_runs():
    rates = np.array([0.01, 0.1, 1.0])
    net, system = training(lr=rates)
    w0 = net.init(seed=0)
    for lr, after in zip(rates, system.step(w0), strict=True):
        assert_array_equal(training(lr=float(lr))[1].step(w0), after)


def test_a_single_run_without_a_batch_axis_has_arrays_of_no_axes():
    net, system = training()
    spectrum = pl.lyapunov_spectrum(system, net.init(seed=0), 4, k=2)
    assert isinstance(spectrum.status, np.ndarray)
    assert spectrum.status.shape == spectrum.n_done.shape == ()
    assert spectrum.growth.shape == (4, 2)
    batched = pl.lyapunov_spectrum(system, net.init(runs=1, seed=0), 4, k=2)
    assert batched.growth.shape == (1, 4, 2)
    assert pl.lyapunov_spectrum(system, net.init(seed=0)[None, None], 4, k=2).status.shape == (1, 1)
