"""Content of pictures of covariant vectors, prediction skill and sharpness, and their errors."""

import dataclasses
import sys

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
        lines_of(trust)[0], np.median(c.contamination.reshape(len(expected), -1, 3), axis=1)[0]
    )
    assert len(growth.get_lines()) == len(expected) + 1
    assert len(density.patches) == len(expected)
    figure.savefig(tmp_path / "picture.png")


def test_runs_whose_vectors_are_not_determined_are_counted():
    # Between the two equal eigenvalues no direction is preferred; the cat map's two are.
    maps = [np.array([[2.0, 1.0], [1.0, 1.0]]), np.eye(2)]
    found = []
    for A in maps:
        system = pl.DiscreteMap(lambda x, A=A: A @ x % 1.0, lambda x, A=A: A, n=2)
        c = pl.covariant_lyapunov_vectors(system, [[0.1, 0.2], [0.3, 0.5]], 20)
        found.append(pl.plotting.plot_covariant(c).axes[3].get_title(loc="left"))
    assert "not determined" not in found[0]
    assert found[1].endswith("(a vector is not determined in 2 of 2 runs)")


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
    assert figure.legends, "the legend is above the panels, where it hides no value"
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
    sizes = np.abs(np.concatenate([scan.exponent, scan.growth]))
    wide = np.nanmax(sizes) > 30 * np.nanmedian(sizes)
    assert figure.axes[1].get_yscale() == ("symlog" if wide else "linear")
    figure.savefig(tmp_path / "scan.png")
    pl.plotting.plot_bifurcation(scan, title="late").savefig(tmp_path / "bifurcation.png")
    if len(lrs) > 1:
        pl.plotting.plot_bifurcation(scan, weight=True).savefig(tmp_path / "weight.png")
    else:
        with pytest.raises(ValueError, match="scan must have observed a weight"):
            pl.plotting.plot_bifurcation(scan, weight=True)


def classified(*batch, test=True, width=5, lr=0.3, **options):
    net = pl.Network((4, width, 3), activation="relu", loss="cross_entropy")
    X, y, *held_out = pl.datasets.split(*pl.datasets.iris(), 100)
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=lr, batch_size=25))
    w = net.init(runs=batch or None)
    return pl.train(system, w, 6, test=held_out if test else None, **options)


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_histories(batch, tmp_path):
    h = classified(*batch, record_every=2)
    labels = ["a", "b"][: batch[0]] if len(batch) == 2 else None
    figure = pl.plotting.plot_history(h, scope="layer 1", labels=labels, title="history")
    assert len(figure.axes) == 3
    curves = (
        (h.train_loss, h.test_loss),
        (h.train_accuracy, h.test_accuracy),
        (h.deviation[..., 2, :],),
    )
    for ax, parts in zip(figure.axes, curves, strict=True):
        expected = [
            np.median(runs, axis=0)
            for values in parts
            for runs in values.reshape(-1, *(batch[-1:] or (1,)), 4)
        ]
        drawn = [line for line in ax.get_lines() if len(line.get_xdata())]
        assert_allclose([line.get_ydata() for line in drawn], expected)
        assert_array_equal(drawn[0].get_xdata(), [0, 2, 4, 6])
    figure.savefig(tmp_path / "history.png")
    with pytest.raises(ValueError, match="scope must be one of all weights"):
        pl.plotting.plot_history(h, scope="layer 7")
    with pytest.raises(ValueError, match=r"scope must be in 0 \.\.\. 2, got 3"):
        pl.plotting.plot_history(h, scope=3)
    with pytest.raises(ValueError, match="labels must name"):
        pl.plotting.plot_history(h, labels=["a"] * 5)


def test_histories_of_other_kinds(system, tmp_path):
    figure = pl.plotting.plot_history(classified(2, test=False))
    assert len(figure.axes) == 3
    assert figure.axes[0].get_legend() is None
    w = system.network.init("he_normal", runs=3)
    w[1:] *= 1e80
    lost = pl.train(system, w, 4)  # one of three stays finite, and there is no accuracy
    figure = pl.plotting.plot_history(lost)
    assert len(figure.axes) == 2
    figure.savefig(tmp_path / "lost.png")
    with pytest.raises(ValueError, match="history must have at most two batch axes, got 3"):
        pl.plotting.plot_history(classified(1, 1, 1))


@pytest.mark.parametrize("test", [True, False])
@pytest.mark.parametrize("widths", [(4,), (3, 4), (2, 4, 8, 16)])
def test_trainabilities(widths, test, tmp_path):
    found = pl.trainability([classified(3, width=width, test=test) for width in widths])
    figure = pl.plotting.plot_trainability(found, name="units", title="trainability")
    diagram, least, apart = figure.axes[:3]
    lines = [line.get_ydata() for line in diagram.get_lines()]
    mean, _ = found.over_runs("min_train_epoch")
    assert any(np.array_equal(y, mean) for y in lines)
    mean, _ = found.over_runs("min_train_loss")
    assert any(np.array_equal(line.get_ydata(), mean) for line in least.get_lines())
    assert diagram.get_xlabel() == "units"
    runs = [line.get_ydata() for line in apart.get_lines()]
    for values in found.deviation.reshape(-1, 7):
        assert any(np.array_equal(y, values) for y in runs)
    (mesh,) = diagram.collections[:1]
    assert mesh.get_array().shape == (7, len(widths), 3)
    figure.savefig(tmp_path / "trainability.png")


def test_the_colours_of_a_phase_diagram_are_shares(tmp_path):
    found = pl.trainability([classified(4, width=width, lr=0.02) for width in (2, 30)])
    figure = pl.plotting.plot_trainability(found)
    from matplotlib.colors import to_rgb

    colours = sys.modules["pylyap.plotting.training"]._PHASES
    expected = sum(share[..., None] * to_rgb(colours[name]) for name, share in found.share.items())
    drawn = figure.axes[0].collections[0].get_array()
    assert_allclose(drawn, np.swapaxes(expected, 0, 1))
    lost = found.train_loss.copy()
    lost[:] = np.nan
    nothing = dataclasses.replace(found, train_loss=lost, min_train_loss=lost[..., 0])
    pl.plotting.plot_trainability(nothing).savefig(tmp_path / "nothing.png")


def test_losses_near_overflow_are_not_drawn():
    # A run that is about to diverge: the limits of a logarithmic axis would overflow.
    net = pl.Network((4, 20, 3), activation="tanh")
    X, y = pl.datasets.iris()
    system = pl.TrainingMap(net, X, np.eye(3)[y], pl.GradientDescent(lr=[0.1, 0.5]))
    found = pl.sharpness_along(system, net.init(seed=0), 10)
    found = dataclasses.replace(found, loss=np.where(found.steps > 8, 1e306, found.loss))
    figure = pl.plotting.plot_edge_of_stability(found)
    figure.canvas.draw()
    assert figure.axes[0].get_ylim()[1] < 1e250


def test_minimum_losses_have_few_tick_labels():
    net = pl.Network((2, 3, 1), activation="tanh")
    rates = pl.GradientDescent(lr=np.array([[0.003], [0.1]]))
    system = pl.TrainingMap(net, *pl.datasets.quadratic(20), rates)
    history = pl.train(system, net.init("normal", runs=3), 100)
    losses = np.broadcast_to([[0.012], [0.43]], (2, 3))
    found = dataclasses.replace(
        pl.trainability(history, widths=[1, 2]), min_train_loss=losses.copy()
    )
    lowest = pl.plotting.plot_trainability(found).axes[1]
    assert lowest.get_yscale() == "log"
    labels = [t.get_text() for t in lowest.get_yticklabels(which="minor")]
    assert not any(labels)
