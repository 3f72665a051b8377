"""Pictures of stability maps: colours, axes, and what they say."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl

pytest.importorskip("matplotlib")

from test_panels import lab

from pylyap.plotting import stability


def found(converged, score, scale="log", x=None):
    converged = np.asarray(converged)
    ny, nx = converged.shape
    return pl.StabilityMap(
        converged, np.asarray(score, float), np.ones(converged.shape, int),
        settings={"x_scale": scale, "y_scale": "linear"}, dims=("momentum", "lr"),
        coords={"lr": np.geomspace(0.1, 10.0, nx) if x is None else x,
                "momentum": np.linspace(0.0, 0.9, ny)},
    )  # fmt: skip


def colors_of(figure):
    mesh = figure.axes[0].collections[0]
    return mesh.to_rgba(mesh.get_array()).reshape(-1, 4)[:, :3]


def scales():
    return stability._scale(*stability._CONVERGED), stability._scale(*stability._DIVERGED)


@pytest.mark.parametrize("vision", ["normal", "deuteranopia"])
def test_the_two_scales_differ_and_their_lightness_is_monotone(vision):
    converged, diverged = (lab([tuple(c) for c in colors], vision) for colors in scales())
    assert (np.diff(converged[:, 0]) > 0).all()
    assert (np.diff(diverged[:, 0]) < 0).all()
    assert converged[:, 0].max() + 4 < diverged[:, 0].min()  # also in print without colours
    apart = np.linalg.norm(converged[:, np.newaxis] - diverged, axis=-1)
    assert apart.min() > 40


def test_equal_steps_of_a_scale_look_equal():
    for colors in scales():
        steps = np.linalg.norm(np.diff(lab([tuple(c) for c in colors], "normal"), axis=0), axis=1)
        assert_allclose(steps, steps.mean(), rtol=0.02)


def test_colours_are_ranks_among_the_runs_that_end_alike():
    m = found([[True, True, False], [True, False, False]], [[-3, -900, 5], [-4, 1.0, 2]])
    figure = m.plot()
    mesh = figure.axes[0].collections[0]
    shade = np.asarray(mesh.get_array()).reshape(2, 3)
    assert_allclose(shade, [[0.0, 0.4999, 0.5], [0.25, 1.0, 0.75]])
    dark, light = lab([tuple(c) for c in colors_of(figure)[[0, 2]]], "normal")[:, 0]
    assert dark < 15
    assert light > 90


@pytest.mark.parametrize("value", [True, False])
def test_a_map_of_one_kind_has_one_scale(value):
    figure = found(np.full((2, 3), value), np.arange(6.0).reshape(2, 3) + 1).plot()
    figure.canvas.draw()
    texts = [t.get_text() for t in figure.axes[1].get_yticklabels()]
    assert len(texts) == 5


def test_axes_have_the_units_of_the_settings():
    ax = found([[True, False]] * 2, np.ones((2, 2))).plot().axes[0]
    assert ax.get_xscale() == "log"
    assert ax.get_yscale() == "linear"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("learning rate", "momentum")
    low, high = ax.get_xlim()
    assert low < 0.1 < 10.0 < high


def test_narrow_ranges_are_labelled_by_their_differences():
    x = 12.5 + 1e-9 * np.arange(3)
    figure = found([[True, True, False]] * 2, np.ones((2, 3)), x=x).plot()
    axis = figure.axes[0].xaxis
    labels = [label.get_text() for label in axis.get_ticklabels() if label.get_text()]
    assert len(set(labels)) == len(labels) > 1
    assert axis.get_major_formatter().get_offset() == "1e−9+1.25e1"


def test_a_border_is_drawn_with_its_power_law():
    y, x = np.mgrid[:257, :257]
    ends = y > 0.3 * x + 80
    box, pairs = pl.box_dimension(ends), pl.uncertainty_exponent(ends)
    for drawn, scales, values in (
        (box.plot(), box.sizes, box.counts), (pairs.plot(), pairs.distances, pairs.fractions)
    ):  # fmt: skip
        points, line = drawn.axes[0].lines
        assert_array_equal(points.get_xdata(), scales)
        assert_array_equal(points.get_ydata(), values)
        assert_allclose(line.get_ydata(), values, rtol=0.1)
    with pytest.raises(pl.ArgumentError, match=r"^found must have a border, got none: no"):
        pl.box_dimension(np.ones((65, 65), bool)).plot()
