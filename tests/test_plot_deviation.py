"""Pictures of deviations and marks: what they show, and what they refuse."""

import cases
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl
from pylyap.plotting import (
    plot_deviation,
    plot_deviation_along,
    plot_joint,
    plot_mark,
)

pytest.importorskip("matplotlib")

NET = pl.Network((5, 20, 20, 3), activation="relu", loss="cross_entropy")
STEPS = np.arange(0, 21, 5)


@pytest.fixture(scope="module")
def system():
    return pl.TrainingMap(NET, *cases.data(NET, 40), pl.GradientDescent(lr=0.3, batch_size=10))


def path(system, *batch):
    w = NET.init(runs=batch or None)
    return w, system.trajectory(w, 20, every=5)


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_bands(system, batch, tmp_path):
    w, later = path(system, *batch)
    d = pl.weight_deviation(w, later, NET, bins=6)
    figure = plot_deviation(d, title="title")
    assert len(figure.axes) == 4 * 4
    figure.savefig(tmp_path / "picture.png")
    one = plot_deviation(d, scopes=["layer 1"], at=2)
    bands, spread, skewness, kurtosis = one.axes
    runs = (slice(None),) * len(batch)
    for ax, index, values in (
        (bands, 1, d.bin_quantiles[..., 2]),
        (bands, 2, d.bin_peak),
        (spread, 0, d.bin_variance),
        (skewness, 0, d.bin_skewness),
        (kurtosis, 0, d.bin_kurtosis),
    ):
        expected = np.median(values[(*runs, 2, 2)].reshape(-1, 6), axis=0)
        line = ax.get_lines()[index]
        assert_allclose(line.get_ydata(), np.sqrt(expected) if ax is spread else expected)
        assert_array_equal(line.get_xdata(), d.centres[2])
    assert bands.get_title(loc="left").startswith("Layer 1, rms")


def test_a_run_that_diverged_is_left_out_of_bands(system):
    w, later = path(system, 3)
    later[1] = np.nan
    seen = plot_deviation(pl.weight_deviation(w, later[:, -1], NET, bins=5))
    rest = plot_deviation(
        pl.weight_deviation(w[[0, 2]], later[[0, 2], -1], NET, bins=np.linspace(-1, 1, 6))
    )
    assert len(seen.axes) == len(rest.axes)
    assert np.isfinite(seen.axes[0].get_lines()[1].get_ydata()).any()
    lost = plot_deviation(pl.weight_deviation(w, np.full_like(w, np.nan), NET, bins=5))
    assert np.isnan(lost.axes[0].get_lines()[1].get_ydata()).all()


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_along_training_and_against_the_loss(system, batch, tmp_path):
    w, later = path(system, *batch)
    d = pl.weight_deviation(w, later, NET, bins=0)
    loss = system.loss(later)
    figure = plot_deviation_along(d, STEPS, loss, scope="layer 0", time="step", title="rms")
    time, against = figure.axes
    rms = d.rms[..., 1].reshape(-1, *(batch[-1:] or (1,)), 5)
    for line, runs in zip(time.get_lines(), rms, strict=True):
        assert_allclose(line.get_ydata(), np.median(runs, axis=0))
    lines = against.get_lines()
    assert_allclose([line.get_ydata() for line in lines], rms.reshape(-1, 5))
    assert_allclose([line.get_xdata() for line in lines], loss.reshape(-1, 5))
    figure.savefig(tmp_path / "picture.png")
    labels = ["a", "b"][: len(rms)]
    assert len(plot_deviation_along(d, STEPS, labels=labels).axes) == 1


def test_joint_histogram(system, tmp_path):
    w, later = path(system, 4)
    j = pl.joint_histogram(w, later[:, -1], NET, layer=1, bins=30)
    figure = plot_joint(j, title="title")
    left, right = figure.axes[:2]
    drawn = [line.get_ydata() for line in left.get_lines()]
    for line, level in zip(drawn, (2, 1, 3, 0, 4), strict=False):
        assert_array_equal(line, j.quantiles[:, level])
    mesh = np.ma.filled(left.collections[0].get_array(), 0)
    assert_array_equal(np.nan_to_num(mesh.reshape(30, 30)), j.counts.T)
    assert len(right.patches) == 5
    figure.savefig(tmp_path / "picture.png")
    figure = plot_joint(j, [0.0], 0.1)
    strip = j.strip(0.0, 0.1)
    values = figure.axes[1].patches[0].get_data().values
    assert_array_equal(values[strip.counts > 0], strip.density[strip.counts > 0])
    nothing = pl.joint_histogram(w, later[:, -1], NET, bins=([5.0, 6.0], [5.0, 6.0]))
    plot_joint(nothing).savefig(tmp_path / "nothing.png")


@pytest.mark.parametrize("n", [None, 1, 2, 6])
def test_marks(n, tmp_path):
    mask = np.zeros((20, 15), bool)
    mask[5:15] = True
    matrix = np.random.default_rng(0).normal(size=(20, 15) if n is None else (n, 20, 15))
    matrix.flat[0] = np.nan
    titles = None if n is None else [f"epoch {i}" for i in range(n)]
    figure = plot_mark(matrix, mask, titles=titles, title="title")
    pictures = [ax.images[0].get_array() for ax in figure.axes if ax.images]
    assert len(pictures) == (n or 1)
    assert_array_equal(np.ma.filled(pictures[-1], np.nan), np.abs(matrix.reshape(-1, 20, 15)[-1]))
    assert (
        figure.axes[0].get_title(loc="left") == f"{'' if n is None else 'epoch 0: '}legibility nan"
    )
    figure.savefig(tmp_path / "picture.png")
    plot_mark(np.zeros((3, 4))).savefig(tmp_path / "zeros.png")
    plot_mark(np.full((3, 4), np.nan)).savefig(tmp_path / "nothing.png")


def test_refused(system):
    w, later = path(system, 2)
    d = pl.weight_deviation(w, later, NET)
    now = pl.weight_deviation(w, later[:, -1], NET, bins=0)
    joint = pl.joint_histogram(w, later[:, -1], NET)
    for error, message, draw in (
        (ValueError, "scopes must be out of", lambda: plot_deviation(d, scopes=["layer 7"])),
        (ValueError, "scopes must be out of", lambda: plot_deviation(d, scopes=[])),
        (ValueError, r"at must be in -5 \.\.\. 4", lambda: plot_deviation(d, at=5)),
        (ValueError, "deviation must have bins", lambda: plot_deviation(now)),
        (ValueError, "must have snapshots", lambda: plot_deviation_along(now, STEPS)),
        (ValueError, r"steps must have shape \(5,\)", lambda: plot_deviation_along(d, [1, 2])),
        (ValueError, "scope must be one of", lambda: plot_deviation_along(d, STEPS, scope="b")),
        (ValueError, r"scope must be in 0", lambda: plot_deviation_along(d, STEPS, scope=9)),
        (ValueError, "loss must have shape", lambda: plot_deviation_along(d, STEPS, [1.0])),
        (ValueError, "labels must name 1", lambda: plot_deviation_along(d, STEPS, labels=[])),
        (ValueError, "must give a strip within", lambda: plot_joint(joint, [9.0])),
        (ValueError, "matrix must have shape", lambda: plot_mark(np.zeros(3))),
        (ValueError, "titles must name 2", lambda: plot_mark(np.zeros((2, 3, 3)), titles=["a"])),
        (ValueError, "mask must be", lambda: plot_mark(np.zeros((3, 3)), np.zeros((3, 4), bool))),
    ):
        with pytest.raises(error, match=message):
            draw()
