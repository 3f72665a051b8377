"""Spectra that stop as soon as their errors are small: tol=."""

import cases
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl
from pylyap._statistics import batch_means

pytestmark = pytest.mark.core


def test_a_stopped_run_is_the_beginning_of_the_whole_one():
    system, x = cases.henon(), np.array([[0.1, 0.1], [0.2, 0.1], [0.0, 0.0]])
    whole = pl.lyapunov_spectrum(system, x, 20_000, n_transient=50)
    s = pl.lyapunov_spectrum(system, x, 20_000, n_transient=50, tol=0.01)
    assert (s.status == 2).all()
    assert (s.stderr < 0.01).all()
    assert (s.n_done < 20_000).all()
    for r in range(3):
        n = s.n_done[r]
        assert_array_equal(s.growth[r, :n], whole.growth[r, :n])
        assert np.isnan(s.growth[r, n:]).all()
        assert_array_equal(s.state[r], system.trajectory(x[r], 50 + n)[-1])
        assert_allclose(s.exponents[r], whole.growth[r, :n].mean(axis=0), rtol=1e-13)
        assert_allclose(s.stderr[r], batch_means(whole.growth[r, :n]).stderr)
    assert "3 stopped early" in repr(s)
    assert (np.abs(s.exponents[:, 0] - 0.419) < 5 * s.stderr[:, 0]).all()


def test_it_goes_on_where_the_error_stays_large():
    system, x = cases.henon(), np.array([0.1, 0.1])
    whole = pl.lyapunov_spectrum(system, x, 700, record_every=7)
    s = pl.lyapunov_spectrum(system, x, 700, record_every=7, tol=1e-9)
    for name in ("growth", "loss", "state", "frame", "status", "n_done", "exponents", "stderr"):
        assert_array_equal(getattr(s, name), getattr(whole, name), err_msg=name)
    assert s.settings["tol"] == 1e-9


def test_training_in_pieces_is_training_in_one():
    net = pl.Network((2, 4, 1), activation="relu")
    X, y = cases.data(net, 20)
    w = cases.weights(net, 0.5, runs=6)
    lr = np.array([0.1, 0.02, 3e2, 0.05, 0.3, 0.01])
    for optimizer in (pl.GradientDescent(lr=lr, batch_size=6, momentum=0.5), pl.Adam(lr=lr)):
        system = pl.TrainingMap(net, X, y, optimizer)
        options = {"k": 3, "n_transient": 10, "qr_every": 2, "record_every": 4}
        whole = pl.lyapunov_spectrum(system, w, 800, **options)
        s = pl.lyapunov_spectrum(system, w, 800, tol=0.004, **options)
        assert set(s.status) >= {0, 2} or set(s.status) >= {1, 2}
        for r in range(6):
            n = s.n_done[r] // 4
            assert_array_equal(s.growth[r, :n], whole.growth[r, :n])
            assert_array_equal(s.loss[r, :n], whole.loss[r, :n])
            if s.status[r] == 2:
                assert np.isfinite(s.loss[r, n])
                assert np.isnan(s.loss[r, n + 1 :]).all()
            else:
                assert s.status[r] == whole.status[r]
                assert s.n_done[r] == whole.n_done[r]
                assert_array_equal(s.state[r], whole.state[r])


def test_a_destroyed_direction_holds_nothing_up():
    s = pl.lyapunov_spectrum(cases.linear(2.0, 0.0), np.zeros(2), 1000, tol=1e-6, frame=np.eye(2))
    assert s.status == 2
    assert s.exponents[1] == -np.inf
    assert_allclose(s.exponents[0], np.log(2))


def test_an_unknown_error_stops_nothing():
    # 15 records do not tell their correlations, whatever the tolerance
    s = pl.lyapunov_spectrum(cases.henon(), np.array([0.1, 0.1]), 1500, record_every=100, tol=1e6)
    assert s.status == 0
    assert np.isnan(s.stderr).all()
    assert "±" not in repr(s)
    s = pl.lyapunov_spectrum(cases.henon(), np.array([0.1, 0.1]), 16, tol=1e6)
    assert "±" in repr(s)


def test_one_progress_bar_for_all_pieces(capsys):
    pl.lyapunov_spectrum(cases.henon(), np.array([0.1, 0.1]), 2000, tol=0.03, progress=True)
    text = capsys.readouterr().err
    assert text.count("spectrum:") >= 1
    assert text.count("\n") <= 1


@pytest.mark.parametrize("tol", [0.0, -1.0, np.nan, "x"])
def test_bad_tolerances(tol):
    with pytest.raises((ValueError, TypeError), match="tol must be"):
        pl.lyapunov_spectrum(cases.henon(), np.zeros(2), 10, tol=tol)


def test_skill_needs_the_end_of_training():
    net = pl.Network((2, 3, 1))
    system = pl.TrainingMap(net, *cases.data(net), pl.GradientDescent(lr=0.1))
    s = pl.lyapunov_spectrum(system, cases.weights(net, runs=4), 400, tol=0.1)
    assert (s.status == 2).any()
    with pytest.raises(ValueError, match="final_loss must be given"):
        pl.prediction_curve(s)
