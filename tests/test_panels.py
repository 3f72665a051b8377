"""Where plots draw: axes and figures of the caller, and what they leave alone there."""

import inspect
import itertools

import bad_values
import numpy as np
import pytest

import pylyap as pl

matplotlib = pytest.importorskip("matplotlib")
from matplotlib.figure import Figure  # noqa: E402

PLOTS = {name.removeprefix("plotting."): call for name, call in bad_values.plot_calls()}


def state(ax):
    """What another plot must not change: contents, limits, scales, labels, size and place."""
    return (
        [type(artist) for artist in ax.get_children()],
        (ax.get_xlim(), ax.get_ylim(), ax.get_xscale(), ax.get_yscale()),
        (ax.get_xlabel(), ax.get_ylabel(), ax.get_title(), ax.get_legend()),
        ax.get_position().bounds,
    )


def drawn(ax):
    return len(ax.lines) + len(ax.collections) + len(ax.patches) + len(ax.images) > 0


def n_panels(function, arguments):
    """Number of panels, as the error of too many names it."""
    many = [Figure().subplots()] * 99
    with pytest.raises(
        pl.ArgumentError, match=r"axes must be the \d+ axes of the panels"
    ) as caught:
        function(**{**arguments, "axes": many})
    assert caught.value.argument == "axes"
    return int(str(caught.value).split("must be the ")[1].split()[0])


def test_every_plot_is_tried():
    assert set(PLOTS) == set(pl.plotting.__all__)


@pytest.mark.parametrize("name", pl.plotting.__all__)
def test_plots_draw_into_given_axes_and_leave_the_rest_alone(name):
    function, arguments = PLOTS[name]
    n = n_panels(function, arguments)
    figure = Figure(figsize=(9, 7))
    *panels, other = figure.subplots(1, n + 1)
    other.plot([1, 2], [3, 4])
    figure.suptitle("of the caller")
    settings, before = dict(matplotlib.rcParams), state(other)
    found = function(**{**arguments, "axes": panels, "title": "a title"})
    assert found is figure
    assert state(other) == before
    assert all(drawn(ax) for ax in panels)
    assert dict(matplotlib.rcParams) == settings
    assert figure.get_layout_engine() is None
    assert tuple(figure.get_size_inches()) == (9, 7)
    assert figure.get_suptitle() == "of the caller"
    figure.draw_without_rendering()
    assert state(other) == before


@pytest.mark.parametrize("name", pl.plotting.__all__)
def test_plots_draw_the_main_panel_into_one_axes(name):
    function, arguments = PLOTS[name]
    figure = Figure(figsize=(9, 7))
    ax, other = figure.subplots(1, 2)
    before = state(other)
    assert function(**{**arguments, "ax": ax}) is figure
    assert drawn(ax)
    assert state(other) == before


@pytest.mark.parametrize("name", pl.plotting.__all__)
def test_plots_fill_an_empty_figure(name):
    function, arguments = PLOTS[name]
    figure = Figure(figsize=(9, 7))
    left, right = figure.subfigures(1, 2)
    assert function(**{**arguments, "figure": left, "title": "a title"}) is figure
    assert left.axes
    assert not right.axes
    assert figure.get_layout_engine() is None
    with pytest.raises(pl.ArgumentError, match="figure must be empty"):
        function(**{**arguments, "figure": left})


@pytest.mark.parametrize("name", pl.plotting.__all__)
def test_plots_refuse_what_is_no_place(name):
    function, arguments = PLOTS[name]
    ax = Figure().subplots()
    for given, message in (
        ({"ax": 3}, "ax must be matplotlib.axes.Axes"),
        ({"axes": 3}, "axes must be a sequence of Axes"),
        ({"axes": []}, "axes must be the axes of the panels, got none"),
        ({"axes": [ax, 3]}, "axes.1. must be matplotlib.axes.Axes"),
        ({"figure": ax}, "figure must be a matplotlib Figure or SubFigure"),
        ({"figure": Figure(), "ax": ax}, "must be the only one"),
    ):
        with pytest.raises((pl.ArgumentError, pl.ArgumentTypeError), match=message):
            function(**{**arguments, **given})
    with pytest.raises(TypeError, match="unexpected keyword argument 'axis'"):
        function(**arguments, axis=ax)
    assert list(inspect.signature(function).parameters)[-3:] == ["ax", "axes", "figure"]
    assert "\nax : matplotlib.axes.Axes, optional\n" in function.__doc__


def test_every_result_has_a_picture():
    from pylyap import _results

    mine = {name for name, kind in _results._CLASSES.items() if kind.__module__[:7] == "pylyap."}
    assert mine - set(_results._PICTURES) == {"BatchResult"}
    for kind in ("spectrum", "ensemble", "rate", "law", "hessian", "policy", "hyperbolicity"):
        result = bad_values.made(kind)
        ax = Figure().subplots()
        assert result.plot(ax=ax) is ax.figure
        assert drawn(ax)


# --- ticks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e5])
@pytest.mark.parametrize("ratio", [1.02, 1.3, 3.0, 7.9, 30.0, 99.0, 1e4, 1e30])
def test_labels_of_logarithmic_axes_do_not_collide(ratio, scale):
    from pylyap.plotting.style import tidy_log_axis

    figure = Figure(figsize=(3.0, 2.0))
    ax = figure.subplots()
    figure.subplots_adjust(left=0.25, right=0.97, bottom=0.2, top=0.95)  # as after a layout
    ax.plot([scale, scale * ratio], [scale, scale * ratio])
    ax.set(xscale="log", yscale="log")
    tidy_log_axis(ax.xaxis)
    tidy_log_axis(ax.yaxis)
    figure.draw_without_rendering()
    for axis, end in ((ax.xaxis, "x"), (ax.yaxis, "y")):
        low, high = sorted(axis.get_view_interval())
        shown = [
            label.get_window_extent()
            for label, at in zip(axis.get_ticklabels(), axis.get_ticklocs(), strict=True)
            if label.get_text() and low <= at <= high
        ]
        assert len(shown) >= 2
        spans = sorted((getattr(box, f"{end}0"), getattr(box, f"{end}1")) for box in shown)
        assert all(left[1] <= right[0] for left, right in itertools.pairwise(spans))


def test_axes_that_are_symlog_say_so():
    from pylyap.plotting.style import symlog

    ax = Figure().subplots()
    ax.set_ylabel("nats per step")
    symlog(ax, 0.01)
    assert ax.get_ylabel() == "nats per step\n(symlog, linear below 0.01)"


# --- colours ----------------------------------------------------------------------------------

# Machado, Oliveira, Fernandes, IEEE Trans. Vis. Comput. Graph. 15, 1291 (2009), severity 1.
VISION = {
    "normal": np.eye(3),
    "deuteranopia": np.array([
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ]),
    "protanopia": np.array([
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ]),
}  # fmt: skip


def lab(colors, vision):
    """CIELAB coordinates (D65) of sRGB colours as they are seen."""
    rgb = np.array([matplotlib.colors.to_rgb(color) for color in colors])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ VISION[vision].T, 0.0, 1.0)
    to_xyz = np.array([
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ])  # fmt: skip
    x = seen @ to_xyz.T / np.array([0.95047, 1.0, 1.08883])
    f = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


def least_distance(colors, vision):
    points = lab(colors, vision)
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
    return apart[~np.eye(len(points), dtype=bool)].min()


def test_lab_distances():
    # White and black are L* = 100 and 0 with a* = b* = 0, whatever the vision.
    assert least_distance(["white", "black"], "normal") == pytest.approx(100.0, abs=1e-2)
    assert least_distance(["white", "black"], "deuteranopia") == pytest.approx(100.0, abs=1e-2)


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("n", range(2, 10))
def test_curves_have_distinct_colours(n, vision):
    from pylyap.plotting.style import palette

    assert least_distance(palette(n), vision) > 15.0


@pytest.mark.parametrize("vision", VISION)
def test_regimes_have_distinct_colours(vision):
    from pylyap.plotting.regimes import _COLORS

    assert least_distance(list(_COLORS.values()), vision) > 20.0
