"""Pictures of covariant vectors, skill and sharpness: what they show, and what they refuse."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl

pytest.importorskip("matplotlib")


def lines_of(ax):
    return [line.get_ydata() for line in ax.get_lines()]


@pytest.fixture(scope="module")
def system():
    net = pl.Network((2, 3, 1), activation="tanh")
    return pl.TrainingMap(net, *pl.datasets.quadratic(30), pl.GradientDescent(lr=0.1))


@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
def test_covariant_vectors(system, batch, tmp_path):
    w = system.network.init("he_normal", runs=6)[: int(np.prod(batch))]
    c = pl.covariant_lyapunov_vectors(
        system, w.reshape(*batch, -1), 40, 3, n_transient=10, n_tail=20, every=10, delay=10
    )
    labels = ["a", "b"][: batch[0]] if len(batch) == 2 else None
    figure = pl.plotting.plot_covariant(c, labels=labels, title="title")
    growth, density, angle, trust = figure.axes
    smallest = np.degrees(c.angles().min(axis=-1)).reshape(-1, *c.status.shape[-1:], 5)
    expected = np.median(smallest.reshape(-1, int(np.prod(batch[-1:])), 5), axis=1)
    assert_allclose(lines_of(angle)[0], expected[0])
    assert_allclose(
        lines_of(trust)[0], np.median(c.mixing.reshape(len(expected), -1, 3), axis=1)[0]
    )
    assert len(growth.get_lines()) == len(expected) + 1
    assert len(density.patches) == len(expected)
    figure.savefig(tmp_path / "picture.png")


def test_covariant_vectors_refused(system):
    w = system.network.init("he_normal", runs=2)
    one = pl.covariant_lyapunov_vectors(system, w, 10, 1)
    with pytest.raises(ValueError, match="at least two"):
        pl.plotting.plot_covariant(one)
    two = pl.covariant_lyapunov_vectors(system, w, 10, 2)
    with pytest.raises(ValueError, match="labels must name 1 curves, got 3"):
        pl.plotting.plot_covariant(two, labels=["a", "b", "c"])


def test_prediction_and_roc(system, tmp_path):
    w = system.network.init("he_normal", runs=40)
    s = pl.lyapunov_spectrum(system, w, 100, 3, record_every=25)
    threshold = float(np.median(s.loss[:, -1]))
    curve = pl.prediction_curve(s, threshold=threshold)
    figure = pl.plotting.plot_prediction([curve, curve], titles=["one", "two"])
    assert len(figure.axes) == 2
    drawn = lines_of(figure.axes[1])[1:]
    for m, name in enumerate(curve.names):
        assert any(np.array_equal(y, curve.auc[m]) for y in drawn), name
    figure.savefig(tmp_path / "skill.png")
    assert len(pl.plotting.plot_prediction(curve, highlight=["loss"]).axes) == 1
    for bad, message in (
        ({"titles": ["one"]}, "titles must name 2 curves"),
        ({"highlight": ["FTLE 9"]}, "highlight must have names"),
    ):
        with pytest.raises(ValueError, match=message):
            pl.plotting.plot_prediction([curve, curve], **bad)
    with pytest.raises(ValueError, match="at least one curve"):
        pl.plotting.plot_prediction([])

    skill = pl.prediction_skill(s.loss[:, 1], s.loss[:, -1], threshold)
    roc = pl.plotting.plot_skill(skill, title="ROC")
    assert_allclose(np.trapezoid(lines_of(roc.axes[0])[1], roc.axes[0].get_lines()[1].get_xdata()),
                    skill.auc)  # fmt: skip
    roc.savefig(tmp_path / "roc.png")


def test_sharpness_and_gali(system, tmp_path):
    w = system.network.init("he_normal", runs=3)
    along = pl.sharpness_along(system, w, 20, every=5)
    figure = pl.plotting.plot_sharpness(along, np.arange(0, 21, 5), title="edge")
    assert_allclose(lines_of(figure.axes[0])[1], np.median(along.ratio, axis=0))
    figure.savefig(tmp_path / "sharpness.png")
    with pytest.raises(ValueError, match=r"steps must have shape \(5,\), got \(4,\)"):
        pl.plotting.plot_sharpness(along, range(4))
    logs = pl.gali(system, w, 20, 4, 5)
    figure = pl.plotting.plot_gali(logs, np.arange(0, 21, 5))
    assert [len(y) for y in lines_of(figure.axes[0])] == [5, 5, 5]
    figure.savefig(tmp_path / "gali.png")
    with pytest.raises(ValueError, match="log_gali must have shape"):
        pl.plotting.plot_gali(logs, [0])


@pytest.mark.parametrize("eps", [1e-6, [1e-8, 1e-4]])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_ensembles(system, batch, eps, tmp_path):
    w = system.network.init("he_normal", runs=6)[: int(np.prod(batch))].reshape(*batch, -1)
    e = pl.perturbation_ensemble(system, w, eps, 4, 20)
    figure = pl.plotting.plot_ensemble(e, title="distances")
    assert len(figure.axes) == (batch[0] if len(batch) == 2 else 1)
    mean = e.mean.reshape(-1, *(batch[-1:] or (1,)), np.size(eps), 21)
    drawn = lines_of(figure.axes[0])
    assert_allclose(drawn, np.median(mean[0], axis=0))
    figure.savefig(tmp_path / "distances.png")
    with pytest.raises(ValueError, match="titles must name"):
        pl.plotting.plot_ensemble(e, titles=["a"] * 5)


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_growth(system, batch, tmp_path):
    w = system.network.init("he_normal", runs=6)[: int(np.prod(batch))].reshape(*batch, -1)
    g = pl.compare_growth(system, w, [1e-9, 1e-6, 1e-3], 3, 40)
    figure = pl.plotting.plot_growth(g, title="growth")
    panels = batch[0] if len(batch) == 2 else 1
    assert len(figure.axes) == 2 * panels
    slopes = g.best_window.slope.reshape(panels, -1, 3)
    drawn = lines_of(figure.axes[0])
    assert any(np.allclose(y, np.median(slopes[0], axis=0)) for y in drawn if len(y) == 3)
    figure.savefig(tmp_path / "growth.png")
    with pytest.raises(ValueError, match="titles must name"):
        pl.plotting.plot_growth(g, titles=["a"] * 5)


def test_series(tmp_path):
    x = np.empty(600)
    x[0] = 0.4
    for t in range(599):
        x[t + 1] = 4 * x[t] * (1 - x[t])
    c = pl.autocorrelation(x, 30, 50)
    figure = pl.plotting.plot_autocorrelation(c, x, title="series")
    assert_allclose(lines_of(figure.axes[0])[0], x)
    assert any(np.array_equal(y, c.values) for y in lines_of(figure.axes[1]))
    figure.savefig(tmp_path / "autocorrelation.png")
    assert len(pl.plotting.plot_autocorrelation(c).axes) == 1
    with pytest.raises(ValueError, match="correlation must be of one series"):
        pl.plotting.plot_autocorrelation(pl.autocorrelation(np.stack([x, x]), 5, 0))
    with pytest.raises(ValueError, match=r"x must have shape \(T,\)"):
        pl.plotting.plot_autocorrelation(c, np.zeros((2, 3)))
    for radius in (1e-3, 1e-12):  # with near returns, and without any
        rates = pl.expansion_rates(x, radius, 100)
        figure = pl.plotting.plot_expansion_rates(rates, x, title="rates")
        figure.savefig(tmp_path / "rates.png")
    with pytest.raises(ValueError, match="x must have shape"):
        pl.plotting.plot_expansion_rates(rates, x[:50])
    with pytest.raises(ValueError, match="n_examples must be at least 1"):
        pl.plotting.plot_expansion_rates(rates, x, n_examples=0)


def test_travel_and_knock_out(system, tmp_path):
    w = system.network.init("he_normal", runs=3)
    t = pl.travel(system, w, 20, 5)
    figure = pl.plotting.plot_travel(t, title="travel")
    assert_allclose(lines_of(figure.axes[0])[0], np.median(t.norm, axis=0))
    there = t.weight_displacement > 0
    assert_array_equal(lines_of(figure.axes[1])[0], t.path_length[there])
    figure.savefig(tmp_path / "travel.png")
    ratios = pl.knock_out(system, w)
    figure = pl.plotting.plot_knock_out(ratios[0], title="knock-out")
    assert_allclose(figure.axes[0].get_images()[0].get_array(), np.log10(ratios[0]))
    figure.savefig(tmp_path / "knock_out.png")
    with pytest.raises(ValueError, match=r"ratios must have shape \(n_out, n_in\)"):
        pl.plotting.plot_knock_out(ratios)


@pytest.mark.parametrize("lrs", [[0.3], [0.01, 0.3, 1e4]])
def test_scans(system, lrs, tmp_path):
    scan = pl.learning_rate_scan(
        system.network, system.X, system.y, lrs, 60, runs=3, observe=1 if len(lrs) > 1 else None
    )
    figure = pl.plotting.plot_scan(scan, title="scan")
    assert len(figure.axes) == 4
    assert_allclose(lines_of(figure.axes[1])[1], np.median(scan.exponent, axis=1))
    figure.savefig(tmp_path / "scan.png")
    pl.plotting.plot_bifurcation(scan, title="late").savefig(tmp_path / "bifurcation.png")
    if len(lrs) > 1:
        pl.plotting.plot_bifurcation(scan, weight=True).savefig(tmp_path / "weight.png")
    else:
        with pytest.raises(ValueError, match="scan must have observed a weight"):
            pl.plotting.plot_bifurcation(scan, weight=True)
