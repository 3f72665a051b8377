"""Names and coordinates of the batch axes of results."""

import dataclasses
import json
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl

NET = pl.Network((2, 3, 1), activation="tanh")
X, Y = pl.datasets.quadratic(20)
W = NET.init("he_normal", runs=4, seed=0)
RATES = np.array([0.1, 0.2, 0.3])


def system(**settings):
    return pl.TrainingMap(NET, X, Y, pl.GradientDescent(**settings))


ANALYSES = {
    "spectrum": lambda s, w: pl.lyapunov_spectrum(s, w, 4, 2),
    "covariant": lambda s, w: pl.covariant_lyapunov_vectors(s, w, 4, 2),
    "hyperbolicity": lambda s, w: pl.covariant_lyapunov_vectors(s, w, 4, 2).hyperbolicity(1),
    "ensemble": lambda s, w: pl.perturbation_ensemble(s, w, 1e-8, 2, 4),
    "ensemble of sizes": lambda s, w: pl.perturbation_ensemble(s, w, [1e-8, 1e-6], 2, 4),
    "comparison": lambda s, w: pl.compare_growth(s, w, [1e-8, 1e-6], 2, 30),
    "history": lambda s, w: pl.train(s, w, 2),
    "travel": lambda s, w: pl.travel(s, w, 4),
    "sharpness along": lambda s, w: pl.sharpness_along(s, w, 4),
    "sharpness": lambda s, w: pl.sharpness(s, np.broadcast_to(w, (*s.state(w).shape[:-1], 13))),
}


@pytest.mark.parametrize(
    ("settings", "shape", "dims", "coords"),
    [
        ({"lr": RATES}, (), ("lr",), {"lr": RATES}),
        ({"lr": RATES[:, None]}, (4,), ("lr", "run"), {"lr": RATES}),
        ({"lr": RATES}, (4, 1), ("run", "lr"), {"lr": RATES}),
        ({}, (), (), {}),
        ({}, (4,), ("run",), {}),
        ({}, (2, 2), ("batch_0", "batch_1"), {}),
        ({"lr": [0.1]}, (), ("lr",), {"lr": [0.1]}),
        ({"lr": [0.1]}, (4,), ("run",), {}),
        ({"lr": [[0.2]]}, (1, 4), ("lr", "run"), {"lr": [0.2]}),
        ({"lr": [0.1, 0.2, 0.3, 0.4]}, (4,), ("lr",), {"lr": [0.1, 0.2, 0.3, 0.4]}),
        ({"lr": RATES, "momentum": RATES}, (), ("lr",), {"lr": RATES, "momentum": RATES}),
        (
            {"lr": [0.1, 0.1], "weight_decay": [0.0, 0.1]}, (), ("weight_decay",),
            {"lr": [0.1, 0.1], "weight_decay": [0.0, 0.1]},
        ),
        (
            {"lr": RATES[:, None], "momentum": [0.1, 0.2]}, (), ("lr", "momentum"),
            {"lr": RATES, "momentum": [0.1, 0.2]},
        ),
        (
            {"lr": np.arange(1.0, 5.0).reshape(2, 2) / 10}, (), ("setting_0", "setting_1"),
            {"lr": np.arange(1.0, 5.0).reshape(2, 2) / 10},
        ),
    ],
)  # fmt: skip
def test_axes_have_the_names_of_the_settings_that_vary(settings, shape, dims, coords):
    w = W.ravel()[: int(np.prod(shape)) * 13].reshape(*shape, 13)
    s = pl.lyapunov_spectrum(system(**settings), w, 4, 2)
    assert s.dims == dims
    assert set(s.coords) == set(coords)
    for name, values in coords.items():
        assert_array_equal(s.coords[name], values)


@pytest.mark.parametrize("analysis", ANALYSES)
def test_every_result_of_a_batch_knows_its_axes(analysis, tmp_path):
    s = system(lr=RATES[:, None])
    w = np.broadcast_to(W, (3, 4, 13)) if analysis == "sharpness" else W
    call = pl.sharpness if analysis == "sharpness" else ANALYSES[analysis]
    found = call(s, w)
    assert found.dims == ("lr", "run")
    assert_array_equal(found.coords["lr"], RATES)
    pytest.importorskip("xarray")
    data = found.to_dataset()
    assert_array_equal(data["lr"], RATES)
    assert (data.sizes["lr"], data.sizes["run"]) == (3, 4)
    assert "lr 3 × run 4" in repr(found)
    copy = pickle.loads(pickle.dumps(found))
    assert copy.dims == found.dims
    pytest.importorskip("h5netcdf")
    found.save(tmp_path / "found.nc")
    back = pl.load(tmp_path / "found.nc")
    assert back.dims == found.dims
    assert_array_equal(back.coords["lr"], RATES)


def test_a_scan_and_a_path_name_their_axes():
    scan = pl.learning_rate_scan(NET, X, Y, RATES, 40, runs=2, n_perturbations=0)
    assert scan.dims == ("lr", "run")
    s = system(lr=RATES)
    path = pl.sharpness(s, s.trajectory(W[0], 4))
    assert path.dims == ("lr", "time")
    assert_array_equal(path.coords["lr"], RATES)
    growth = pl.compare_growth(s, W[0], [1e-8, 1e-6], 2, 30)
    assert growth.best_window.dims == ("lr", "eps")
    assert_array_equal(growth.best_window.coords["eps"], [1e-8, 1e-6])


def test_settings_along_the_same_axis_are_coordinates():
    pytest.importorskip("xarray")
    momentum = np.array([0.5, 0.6, 0.7])
    s = system(lr=RATES[:, None], momentum=momentum[:, None])
    data = pl.lyapunov_spectrum(s, W, 4, 2).to_dataset()
    assert data["momentum"].dims == ("lr",)
    assert_array_equal(data["momentum"], momentum)


def test_results_of_earlier_versions_have_names_too():
    s = pl.lyapunov_spectrum(system(lr=RATES), W[0], 4, 2)
    old = type(s).__new__(type(s))
    old.__setstate__({n: v for n, v in s.__dict__.items() if n not in ("dims", "coords")})
    assert old.dims == ("run",)
    assert old.coords == {}
    assert old.exponents.shape == (3, 2)


def test_files_of_earlier_versions_are_read(tmp_path):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    found = pl.sharpness_along(system(lr=RATES), W[0], 4)
    found.save(tmp_path / "new.nc")
    with xarray.open_dataset(tmp_path / "new.nc", engine="h5netcdf") as data:
        data.load()
    table = json.loads(data.attrs["pylyap"])
    for name in ("dims", "coords", "loss", "steps", "threshold"):
        del table["result"]["fields"][name]
    data.attrs["pylyap"] = json.dumps(table)
    data.to_netcdf(tmp_path / "old.nc", engine="h5netcdf")
    old = pl.load(tmp_path / "old.nc")
    assert_array_equal(old.value, found.value)
    assert (old.dims, old.coords, old.steps) == (("batch_0", "batch_1"), {}, None)


def test_names_that_do_not_fit_are_refused():
    s = pl.lyapunov_spectrum(system(lr=RATES), W[0], 4, 2)
    with pytest.raises(pl.ArgumentError, match="dims must name 1 batch axes, got") as e:
        dataclasses.replace(s, dims=("lr", "run"))
    assert e.value.argument == "dims"


# --- pictures ---------------------------------------------------------------------------------


def test_learning_rates_are_curves_and_not_runs():
    pytest.importorskip("matplotlib")
    s = pl.lyapunov_spectrum(system(lr=RATES), W[0], 40, 2)
    figure = s.plot()
    drawn = [line.get_ydata() for line in figure.axes[0].get_lines()]
    assert_allclose(drawn, s.loss)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["learning rate 0.1", "learning rate 0.2", "learning rate 0.3"]


def test_medians_are_over_runs_alone():
    pytest.importorskip("matplotlib")
    for states, rates, over in ((W, RATES[:, None], 1), (W[:, None], RATES, 0)):
        t = pl.travel(system(lr=rates), states, 10)
        drawn = [line.get_ydata() for line in t.plot().axes[0].get_lines()]
        assert_allclose(drawn, np.median(t.norm, axis=over))


def test_a_grid_of_settings_has_a_curve_for_each_pair():
    pytest.importorskip("matplotlib")
    s = system(lr=RATES[:, None, None], momentum=np.array([0.1, 0.2])[:, None])
    h = pl.train(s, W, 3)
    assert h.dims == ("lr", "momentum", "run")
    figure = h.plot()
    drawn = [line.get_ydata() for line in figure.axes[0].get_lines()]
    assert_allclose(drawn, np.median(h.train_loss, axis=2).reshape(6, -1))
    assert figure.legends[0].get_texts()[-1].get_text() == "learning rate 0.3, momentum 0.2"


def test_names_tell_curves_from_runs_of_finite_time_exponents():
    pytest.importorskip("matplotlib")
    values = pl.ftle(system(lr=RATES), W[0], 20, window=5, k=1)
    for labels, drawn in ((None, np.median(values[..., 0], axis=0)[None]), ("abc", values[..., 0])):
        names = None if labels is None else list(labels)
        figure = pl.plotting.plot_ftle(values, [0, 5, 10, 15], labels=names)
        lines = [line.get_ydata() for line in figure.axes[0].get_lines()[1:]]
        assert_allclose(lines, drawn)


def test_legends_of_many_curves_name_some():
    pytest.importorskip("matplotlib")
    rates = np.geomspace(0.01, 0.5, 30)
    figure = pl.lyapunov_spectrum(system(lr=rates), W[0], 20, 1).plot()
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert (len(names), names[0], names[-1]) == (9, "learning rate 0.01", "learning rate 0.5")


# --- the edge of stability --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "factor"),
    [
        ({}, 2.0),
        ({"momentum": 0.5}, 2.0 * 1.5),
        ({"momentum": 0.5, "nesterov": True}, 2.0 * 1.5 / 2.0),
    ],
)
@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_a_parabola_diverges_above_the_threshold(settings, factor, decay):
    # A linear network of one weight: the loss is w²·mean(x²)/2, so that its curvature is known.
    net = pl.Network((1, 1), activation="identity")
    x = np.array([[1.0], [-1.0]])
    for side in (0.98, 1.02):
        lr = side * factor / (1.0 + decay)
        s = pl.TrainingMap(
            net, x, np.zeros((2, 1)), pl.GradientDescent(lr=lr, weight_decay=decay, **settings)
        )
        found = pl.sharpness_along(s, np.array([1.0, 0.0]), 2000, every=1000)
        assert_allclose(found.value, 1.0, rtol=1e-6)
        assert_allclose(found.threshold, factor / lr - decay, rtol=1e-12)
        assert bool((found.value > found.threshold).all()) == (side > 1.0)
        assert bool(found.loss[-1] > found.loss[0]) == (side > 1.0)
        assert_array_equal(found.value > found.threshold, found.ratio > 1.0)


def test_losses_steps_and_thresholds_along_a_run():
    schedule = 1.0 / (1.0 + np.arange(40.0))
    s = system(lr=RATES[:, None], weight_decay=0.1, schedule=schedule)
    found = pl.sharpness_along(s, W, 20, every=5, start=10)
    assert_array_equal(found.steps, [10, 15, 20, 25, 30])
    path = s.trajectory(W, 20, every=5, start=10)
    assert_array_equal(found.loss, s.loss(path))
    now = schedule[[10, 15, 20, 25, 29]]
    expected = 2.0 / (RATES[:, None, None] * now) - 0.1
    assert_allclose(found.threshold, np.broadcast_to(expected, (3, 4, 5)), rtol=1e-12)
    assert_allclose(found.ratio, (found.value + 0.1) / (found.threshold + 0.1), rtol=1e-12)
    adam = pl.TrainingMap(NET, X, Y, pl.Adam(lr=0.01))
    assert_allclose(pl.sharpness_along(adam, W, 4).threshold, 3800.0, rtol=1e-13)
    assert np.isnan(pl.sharpness_along(adam, W, 4, kind="hessian").threshold).all()


def test_picture_of_batch_sharpness_has_both_thresholds():
    pytest.importorskip("matplotlib")
    found = pl.sharpness_along(system(lr=0.1, momentum=0.5, batch_size=5), W, 20, 5, kind="batch")
    lower = pl.plotting.plot_edge_of_stability(found).axes[1]
    drawn = {line.get_linestyle(): line.get_ydata() for line in lower.get_lines()[:3]}
    assert_allclose(drawn["--"], 2 * 0.5 / 0.1)
    assert_allclose(drawn[":"], 2 * 1.5 / 0.1)
    assert lower.get_ylabel() == "batch sharpness"
    adam = pl.sharpness_along(pl.TrainingMap(NET, X, Y, pl.Adam(lr=0.01)), W, 20, 5)
    assert found.plot().axes[0].get_ylabel() == "batch sharpness / stability threshold"
    assert adam.plot().axes[0].get_ylabel() == "preconditioned sharpness / stability threshold"


def test_edge_of_stability_picture():
    pytest.importorskip("matplotlib")
    found = pl.sharpness_along(system(lr=RATES[:, None]), W, 20, every=5)
    upper, lower = pl.plotting.plot_edge_of_stability(found).axes
    losses = [line.get_ydata() for line in upper.get_lines()]
    assert_allclose(losses, np.median(found.loss, axis=1))
    drawn = [line.get_ydata() for line in lower.get_lines() if len(line.get_xdata())]
    assert_allclose(drawn[:3], np.median(found.value, axis=1))
    assert_allclose(drawn[3:], np.broadcast_to(2.0 / RATES[:, None], (3, 5)))
    other = pl.plotting.plot_edge_of_stability(found, 2.0 * found.loss).axes[0]
    assert_allclose([line.get_ydata() for line in other.get_lines()], 2.0 * np.array(losses))
    with pytest.raises(pl.ArgumentError, match="loss must have shape"):
        pl.plotting.plot_edge_of_stability(found, found.loss[0])
    with pytest.raises(pl.ArgumentError, match="must be a result of sharpness_along"):
        pl.plotting.plot_edge_of_stability(pl.sharpness(system(), W))


def test_maps_without_a_loss_have_no_panel_of_it():
    pytest.importorskip("matplotlib")
    henon = pl.DiscreteMap(
        lambda x: [1.0 - 1.4 * x[0] ** 2 + x[1], 0.3 * x[0]],
        lambda x: [[-2.8 * x[0], 1.0], [0.3, 0.0]],
        n=2,
    )
    figure = pl.lyapunov_spectrum(henon, [0.1, 0.1], 100).plot()
    assert len(figure.axes) == 2
    assert figure.axes[0].get_xlabel() == "step"
    vectors = pl.covariant_lyapunov_vectors(henon, [0.1, 0.1], 2000, n_transient=50, n_tail=50)
    growth, _, angle, errors = vectors.plot().axes
    assert angle.get_xlabel() == "step"
    assert len(growth.get_lines()[1].get_xdata()) <= 400
    assert errors.get_ylim()[0] >= 1e-17


def test_small_errors_are_drawn_at_the_rounding():
    pytest.importorskip("matplotlib")
    flow = pl.DiscreteMap(lambda x: 0.5 * x, lambda x: np.diag([0.5, 0.01]), n=2)
    vectors = pl.covariant_lyapunov_vectors(flow, [0.1, 0.1], 50, n_transient=50, n_tail=50)
    assert vectors.contamination.min() < 1e-40
    errors = vectors.plot().axes[3]
    heights = np.concatenate([line.get_ydata() for line in errors.get_lines()[:2]])
    assert heights[np.isfinite(heights)].min() == 1e-16
    assert "below 1e-16 drawn at 1e-16" in errors.get_ylabel()
