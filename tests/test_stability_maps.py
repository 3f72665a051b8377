"""Maps of two settings: convergence and its score at each pixel, however it is computed."""

import os
import pickle
import signal
import threading

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl
from pylyap._stability import running

pytestmark = pytest.mark.core

RATES = ("lr_0", (0.05, 200.0, "log")), ("lr_1", (0.02, 30.0, "log"))


def network(activation="tanh", n=4, N=9, **options):
    """Layers over √n without biases, as weights and rates; and its data."""
    rng = np.random.default_rng(0)
    forward = np.array([np.sqrt(2 / n), 1 / n])
    net = pl.Network((n, n, 1), activation=activation, loss="mse")
    rule = pl.GradientDescent(lr=1.0, layer_scale=2 * forward**2, bias_scale=0, **options)
    system = pl.TrainingMap(net, rng.normal(size=(N, n)), rng.normal(size=N), rule)
    W, u = rng.normal(size=(n, n)), rng.normal(size=n)
    w0 = net.pack([(forward[0] * W, np.zeros(n)), (forward[1] * u[np.newaxis], np.zeros(1))])
    return system, w0, W, u


def published_score(losses):
    """The measure of the published notebook, of one run."""
    v = np.where(np.isfinite(losses), losses, 1e6) / losses[0]
    v = np.minimum(v, 1e6)
    return bool(v[-20:].mean() < 1), -v.sum() if v[-20:].mean() < 1 else (1 / v).sum()


def same(a, b):
    for name in ("converged", "score", "steps_used", "exponent"):
        ours, theirs = getattr(a, name), getattr(b, name)
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert_array_equal(ours, theirs, err_msg=name)


# ------------------------------------------------------------------------------ known answers


def test_a_map_of_two_learning_rates_is_that_of_the_published_equations():
    system, w0, W0, u0 = network()
    found = pl.stability_map(system, *RATES, (5, 6), 60, w0=w0)
    assert found.dims == ("lr_1", "lr_0")
    assert 0 < found.converged.sum() < 30
    n, X, y = 4, system.X, system.y
    with np.errstate(over="ignore", invalid="ignore"):
        for i, second in enumerate(found.y):
            for j, first in enumerate(found.x):
                W, u, losses = W0, u0, []
                for _ in range(60):
                    h = np.tanh(np.sqrt(2 / n) * X @ W.T)
                    error = h @ u / n - y
                    losses.append((error**2).mean())
                    du = 2 / len(y) * (error @ h) / n
                    delta = error[:, np.newaxis] * u / n * (1 - h**2)
                    W, u = W - first * 2 / len(y) * np.sqrt(2 / n) * delta.T @ X, u - second * du
                converged, score = published_score(np.array(losses))
                assert converged == found.converged[i, j]
                assert_allclose(found.score[i, j], score, rtol=1e-5)  # chaos amplifies rounding
                finite = np.isfinite(losses)
                assert found.steps_used[i, j] == (60 if finite.all() else finite.argmin() + 1)


@pytest.mark.parametrize(
    "names",
    [
        ("lr", "momentum"),
        ("scale", "weight_decay"),
        ("lr_1", "lr"),
        ("offset_0", "scale"),
        ("weight_decay", "offset"),
        ("offset_1", "offset"),
    ],
)
def test_a_pixel_is_the_training_with_its_settings(names):
    X, y = pl.datasets.quadratic(20)
    net = pl.Network((2, 3, 1), activation="relu")
    ranges = {"lr": [0.1, 0.7, 3.0], "momentum": [0.0, 0.4, 0.9], "lr_1": [0.2, 0.5],
              "scale": [0.5, 2.0, 9.0], "weight_decay": [0.0, 0.3], "offset": [-0.5, 0.0, 2.0],
              "offset_0": [-1.0, 3.0], "offset_1": [0.25, 1.5]}  # fmt: skip
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=0.2, batch_size=8))
    w0 = net.init("normal", seed=3)
    found = pl.stability_map(
        system, (names[0], ranges[names[0]]), (names[1], ranges[names[1]]), n_steps=40, w0=w0
    )
    for i, second in enumerate(found.y):
        for j, first in enumerate(found.x):
            given = {names[0]: first, names[1]: second}
            scale, layer = given.pop("scale", 1.0), given.pop("lr_1", None)
            both = given.pop("offset", 0.0)
            (W, b), (u, c) = net.unpack(scale * w0)
            start = net.pack([
                (W + both + given.pop("offset_0", 0.0), b),
                (u + both + given.pop("offset_1", 0.0), c),
            ])  # fmt: skip
            options = {"lr": 0.2} | given
            if layer is not None:
                options |= {"lr": 1.0, "layer_scale": [options["lr"], layer]}
            rule = pl.GradientDescent(batch_size=8, **options)
            one = pl.TrainingMap(net, X, y, rule)
            losses = one.loss(one.trajectory(start, 39))
            converged, score = published_score(losses)
            assert converged == found.converged[i, j]
            assert_allclose(found.score[i, j], score, rtol=1e-12)


def test_the_set_of_mandelbrot():
    def square(X):
        u, v, a, b = X.T
        return np.stack([u * u - v * v + a, 2 * u * v + b, a, b], axis=1)

    system = pl.DiscreteMap(square, tangent=lambda X, V: V, n=4, vectorized=True)
    found = pl.stability_map(
        lambda a, b: (system, [0.0, 0.0, a, b]),
        ("Re c", (-2.0, 0.5, "linear")), ("Im c", (-1.2, 1.2, "linear")), (31, 41), 40,
        escape=1e3,
    )  # fmt: skip
    z = c = found.x + 1j * found.y[:, np.newaxis]
    z, steps = 0 * c, np.zeros(c.shape, int)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(40):
            inside = np.hypot(abs(z), abs(c)) <= 1e3
            steps += inside
            z = z**2 + c
    assert_array_equal(found.converged, steps == 40)
    assert_array_equal(found.steps_used, np.minimum(steps + 1, 40))
    expected = np.where(found.converged, -40.0, steps + 1e-6 * (40 - steps))
    assert_allclose(found.score, expected, rtol=1e-12)


def test_a_loss_that_never_changes_has_not_converged():
    system, w0, *_ = network()
    x, y = ("lr", [0.0, 1e-300]), ("weight_decay", [0.0, 1e-300])
    found = pl.stability_map(system, x, y, n_steps=200, w0=w0)
    assert not found.converged.any()
    assert_array_equal(found.score, 200.0)
    assert_array_equal(found.steps_used, 200)
    assert found.settings["steps_made"] == 4 * 16  # fixed points to the bit: their losses repeat


def test_run_from_a_large_loss_that_diverges_has_not_converged():
    # The notebook takes 1e6 for losses that are not finite before it divides by the first.
    net = pl.Network((1, 1))
    system = pl.TrainingMap(net, [[1.0]], [1e5], pl.GradientDescent(lr=9.0))
    found = pl.stability_map(system, ("lr", [8.0, 9.0]), ("scale", [0.0, 1.0]), n_steps=2000)
    assert not found.converged.any()


# ------------------------------------------------------------------------------ laws


@pytest.mark.parametrize("options", [{}, {"batch_size": 4}, {"schedule": lambda t: 0.999**t}])
def test_bits_do_not_depend_on_early_ends_tiles_and_threads(options, monkeypatch):
    system, w0, *_ = network("relu", **options)
    found = pl.stability_map(system, *RATES, (9, 11), 90, w0=w0)
    assert 0 < found.converged.sum() < 99
    same(found, pl.stability_map(system, *RATES, (9, 11), 90, w0=w0, stop_early=False, threads=1))
    assert found.settings["steps_made"] < 99 * 90
    monkeypatch.setattr(running, "tile_size", lambda n: 10)
    same(found, pl.stability_map(system, *RATES, (9, 11), 90, w0=w0))


def test_cycles_of_a_power_of_two_end_early():
    # w → −w: the loss of a parabola at twice the inverse curvature.
    net = pl.Network((1, 1))
    system = pl.TrainingMap(net, [[1.0]], [0.0], pl.GradientDescent(bias_scale=0))
    x, y = ("lr", [1.0, 2.0]), ("scale", [1.0, 3.0])
    call = {"n_steps": 500, "w0": [1.0, 0.0]}
    found = pl.stability_map(system, x, y, **call)
    assert found.settings["steps_made"] == 2 * 16 + 2 * 32  # w = 0 after a step: at rest from 16 on
    assert_array_equal(found.converged, [[True, False]] * 2)
    same(found, pl.stability_map(system, x, y, stop_early=False, **call))


def test_escape_ends_runs_whose_loss_is_large():
    system, w0, *_ = network()
    plain = pl.stability_map(system, *RATES, (9, 11), 90, w0=w0)
    found = pl.stability_map(system, *RATES, (9, 11), 90, w0=w0, escape=5.0)
    same(found, pl.stability_map(system, *RATES, (9, 11), 90, w0=w0, escape=5.0, stop_early=False))
    assert (found.converged <= plain.converged).all()
    assert (found.steps_used <= plain.steps_used).all()
    assert found.settings["steps_made"] < plain.settings["steps_made"]


def test_a_function_of_two_numbers_gives_the_same_bits():
    system, w0, *_ = network()
    scale = system.optimizer.layer_scale

    def of(first, second):
        rule = pl.GradientDescent(
            lr=1.0, layer_scale=[first * scale[0], second * scale[1]], bias_scale=0
        )
        return pl.TrainingMap(system.network, system.X, system.y, rule), w0

    x, y = ("lr_0", (1.0, 100.0, "log")), ("lr_1", (0.1, 10.0, "log"))
    same(pl.stability_map(of, x, y, (3, 4), 50), pl.stability_map(system, x, y, (3, 4), 50, w0=w0))


def test_exponents_are_those_of_the_spectrum():
    system, w0, *_ = network()
    found = pl.stability_map(system, *RATES, (4, 5), 40, w0=w0, exponent=True, seed=7)
    scale = system.optimizer.layer_scale
    rates = np.stack(np.meshgrid(found.x * scale[0], found.y * scale[1]), axis=-1)
    rule = pl.GradientDescent(lr=1.0, layer_scale=rates, bias_scale=0)
    batch = pl.TrainingMap(system.network, system.X, system.y, rule)
    s = pl.lyapunov_spectrum(batch, w0, 40, 1, record_every=40, seed=7)
    assert_array_equal(found.exponent, s.exponents[..., 0])
    assert np.isfinite(found.exponent[found.converged]).all()


def test_adam_and_single_precision():
    system, w0, *_ = network()
    for options in ({"optimizer": pl.Adam()}, {"optimizer": system.optimizer, "dtype": "float32"}):
        one = pl.TrainingMap(system.network, system.X, system.y, **options)
        x, y = ("lr", (1e-3, 10.0, "log")), ("weight_decay", [0.0, 0.1])
        found = pl.stability_map(one, x, y, (2, 5), 60, w0=w0)
        assert found.converged.sum() > 0


# ------------------------------------------------------------------------------ the result


def test_zoom_is_the_map_of_the_region():
    system, w0, *_ = network()
    found = pl.stability_map(system, *RATES, (6, 6), 40, w0=w0)
    region = ((1.0, 50.0), (0.5, 5.0))
    near = found.zoom(region, shape=(3, 4))
    x, y = ("lr_0", (1.0, 50.0, "log")), ("lr_1", (0.5, 5.0, "log"))
    same(near, pl.stability_map(system, x, y, (3, 4), 40, w0=w0))
    assert found.zoom(region).converged.shape == (6, 6)
    assert near.zoom(((2.0, 3.0), (1.0, 2.0)), n_steps=7).steps_used.max() == 7


def test_files_and_pickles(tmp_path):
    pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    system, w0, *_ = network()
    found = pl.stability_map(system, *RATES, (4, 5), 30, w0=w0, exponent=True)
    found.save(tmp_path / "map.nc")
    for copy in (pl.load(tmp_path / "map.nc"), pickle.loads(pickle.dumps(found))):
        same(found, copy)
        assert repr(copy) == repr(found)
        assert copy.converged.dtype == bool
        region = ((1.0, 50.0), (0.5, 5.0))
        with pytest.raises(pl.ArgumentError, match=r"^system_of must be given for a map that"):
            copy.zoom(region)
        again = copy.zoom(region, system_of=system, w0=w0, shape=(2, 2))
        same(again, found.zoom(region, shape=(2, 2)))
    data = found.to_dataset()
    assert data.converged.dims == ("lr_1", "lr_0")
    assert_array_equal(data.lr_0, found.x)


def test_repr_has_the_axes_and_the_share():
    system, w0, *_ = network()
    text = repr(pl.stability_map(system, *RATES, (4, 5), 30, w0=w0))
    assert text.startswith("StabilityMap: 4 × 5 runs\n  y  lr_1, 0.02 ... 30, log\n")
    assert "of 30 per run" in text


def test_border_has_the_cells_whose_corners_differ():
    found = pl.StabilityMap(
        np.array([[True, True, False], [True, True, True]]), np.zeros((2, 3)), np.ones((2, 3), int),
        dims=("b", "a"), coords={"a": np.arange(3.0), "b": np.arange(2.0)},
    )  # fmt: skip
    assert_array_equal(found.border, [[False, True]])


def test_ctrl_c_ends_a_map_soon():
    system, w0, *_ = network(n=16, N=272)
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        pl.stability_map(system, ("lr", (1e-4, 1e-3, "log")), RATES[1], (300, 300), 5000, w0=w0)


# ------------------------------------------------------------------------------ checkpoints


@pytest.mark.parametrize("options", [{}, {"exponent": True}])
def test_an_interrupted_map_resumes_to_the_same_bits(options, tmp_path, monkeypatch):
    system, w0, *_ = network()
    call = {"shape": (6, 7), "n_steps": 40, "w0": w0} | options
    whole = pl.stability_map(system, *RATES, **call)
    monkeypatch.setattr(running, "tile_size", lambda n: 10)
    original, tiles = running._measure, []

    def third_fails(*arguments):
        tiles.append(1)
        if len(tiles) == 3:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(running, "_measure", third_fails)
    file = tmp_path / "map.npz"
    with pytest.raises(KeyboardInterrupt):
        pl.stability_map(system, *RATES, **call, checkpoint=file)
    found = pl.stability_map(system, *RATES, **call, checkpoint=file)
    assert len(tiles) == 3 + 3  # 42 pixels in tiles of 10, two of which were stored
    same(found, whole)
    assert found.settings["steps_made"] == whole.settings["steps_made"]
    same(pl.stability_map(system, *RATES, **call, checkpoint=file), whole)
    assert len(tiles) == 6


def test_checkpoints_of_other_maps_are_refused(tmp_path):
    system, w0, *_ = network()
    file = tmp_path / "map.npz"
    x, y = RATES
    call = {"w0": w0, "shape": (3, 3), "n_steps": 5, "checkpoint": file}
    pl.stability_map(system, x, y, **call)
    other, *_ = network("relu")
    for arguments, change, match in [
        ((system, x, y), {"n_steps": 6}, "n_steps"),
        ((system, x, y), {"escape": 9.0}, "escape"),
        ((system, x, y), {"w0": 2.0 * w0}, "state"),
        ((system, x, ("lr_1", (0.1, 9.0, "log"))), {}, "lr_1"),
        ((other, x, y), {}, "network"),
    ]:
        with pytest.raises(pl.ArgumentError, match=f"^checkpoint must be of this.*{match}"):
            pl.stability_map(*arguments, **call | change)
    file.write_bytes(b"a")
    with pytest.raises(pl.ArgumentError, match=r"^checkpoint must be a valid"):
        pl.stability_map(system, x, y, **call)
    with pytest.raises(pl.ArgumentError, match=r"^checkpoint must lie in a folder that exists"):
        pl.stability_map(system, x, y, **call | {"checkpoint": tmp_path / "none" / "map.npz"})


def test_maps_of_a_function_resume(tmp_path):
    call = {"n_steps": 5, "checkpoint": tmp_path / "map.npz"}
    system = pl.DiscreteMap(lambda x: 0.5 * x, lambda x: np.diag([0.5]), n=1)

    def of(a, b):
        return system, [a * b]

    axes = ("a", [1.0, 2.0]), ("b", [1.0, 3.0])
    same(pl.stability_map(of, *axes, **call), pl.stability_map(of, *axes, **call))


# ------------------------------------------------------------------------------ bad input


def bad(match, x=RATES[0], y=RATES[1], shape=(3, 3), n_steps=5, system=None, **more):
    system = network()[0] if system is None else system
    with pytest.raises((pl.ArgumentError, pl.ArgumentTypeError), match=match):
        pl.stability_map(system, x, y, shape, n_steps, **more)


def test_settings_that_do_not_exist():
    bad(r"^x must have a setting that is one of lr, .*got 'lr_2'; did you mean", ("lr_2", [1, 2]))
    bad("^y must have a setting .*got 'momentun'; did you mean 'momentum'", y=("momentun", [0, 1]))
    bad("^y must have another setting than x, got 'lr_0' for both", y=RATES[0])
    adam = pl.TrainingMap(pl.Network((2, 3, 1)), *pl.datasets.quadratic(20), pl.Adam())
    bad(
        "^x must have a setting that is one of lr, weight_decay, scale, offset.*, got 'momentum'",
        ("momentum", [0.0, 0.5]), system=adam,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("x", "match"),
    [
        (("lr", (1.0, 0.1, "log")), "^x must have a range of lr from a lower to a higher value"),
        (("lr", (1.0, 1.0, "log")), "^x must have a range of lr from a lower to a higher value"),
        (("lr", (0.0, 1.0, "log")), "^x must have a logarithmic range of lr above 0, got 0.0"),
        (("lr", (0.1, 1.0, "lag")), "^x must be one of log, linear, got 'lag'; did you mean 'log'"),
        (("lr", (0.1, np.nan, "log")), "^x must be finite"),
        (("lr", (1.0, 1.0 + 2**-52, "log")), "^x must have a range of lr with 3 different numbers"),
        (("lr", [1.0, 0.5]), "^x must have increasing values of lr"),
        (("lr", [1.0]), r"^x must have increasing values of lr, two or more, got shape \(1,\)"),
        (("lr", [-1.0, 1.0]), "^x must have lr of at least 0, got"),
        (("momentum", [0.0, 1.5]), r"^x must have momentum in \[0, 1\], got"),
        ("lr", r"^x must be \(name, values\)"),
        (("lr",), r"^x must be \(name, values\)"),
        ((3, [1.0, 2.0]), r"^x must be \(name, values\)"),
    ],
)
def test_axes_that_are_none(x, match):
    bad(match, x)


def test_other_arguments():
    bad(r"^shape\[1\] must be at least 2, got 1", shape=(3, 1))
    bad(r"^shape must be \(rows, columns\), got \(3, 3, 3\)", shape=(3, 3, 3))
    bad("^n_steps must be at least 1, got 0", n_steps=0)
    bad("^escape must be above 1", escape=0.5)
    bad("^escape must be finite and > 0", escape=-1.0)
    bad(r"^w0 must be the initial weights \(25,\) of all pixels, got shape", w0=np.zeros((2, 25)))
    bad("^system_of must be a TrainingMap or a function of two numbers", system=3)
    bad("^w0 must be None where system_of is a function", system=lambda a, b: 0, w0=[1.0])
    bad(r"^system_of must return \(system, w0\), got 0 for lr_0=", system=lambda a, b: 0)
    rates = pl.TrainingMap(
        pl.Network((2, 3, 1)), *pl.datasets.quadratic(20), pl.GradientDescent(lr=[0.1, 0.2])
    )
    bad("^system_of must have one value of each setting, got arrays", system=rates)


def test_maps_that_do_not_fit_in_memory_are_refused_with_tiles_that_would():
    bad(
        r"^shape must fit in memory, got 300000 × 300000 pixels, .*: compute \d+ × \d+ maps of",
        shape=(300_000, 300_000),
    )


def test_regions_that_are_none():
    system, w0, *_ = network()
    found = pl.stability_map(system, *RATES, (3, 3), 5, w0=w0)
    for region, match in [
        (((2.0, 1.0), (1.0, 2.0)), "^region must have a range of lr_0 from a lower"),
        (((1.0, 2.0),), "^region must have two intervals, got 1"),
        (((1.0, 2.0, 3.0), (1.0, 2.0)), "^region must have two ends on each axis, got 3"),
        (3, r"^region must be \(\(x_low, x_high\), \(y_low, y_high\)\), got 3"),
    ]:
        with pytest.raises((pl.ArgumentError, pl.ArgumentTypeError), match=match):
            found.zoom(region)
