"""Stability maps as studies: the bits of `stability_map`, in whatever tiles they are computed."""

from pathlib import Path

import numpy as np
import pytest
from kill_study import assert_same_as_uninterrupted, kill_again_and_again
from numpy.testing import assert_array_equal
from study_files import write
from toys import prepare

import pylyap as pl
from pylyap._stability import rows, running
from pylyap.studies.store import is_done
from pylyap.studies.summary import quantities

pytest.importorskip("xarray")

ARRAYS = ("converged", "score", "steps_used", "exponent")
FILE = """\
runs = {runs}
data.name = "quadratic"
data.n = 20
network.hidden = 3
network.activation = "tanh"

[analysis]
name = "stability"
n_steps = {steps}
x = "lr_0"
x_values = {{geomspace = [0.1, 1e3, {columns}]}}

[grid]
"analysis.lr_1" = {{geomspace = [0.01, 30, {rows}]}}
"""
COLUMNS, ROWS = np.geomspace(0.1, 1e3, 13), np.geomspace(0.01, 30, 7)


def study(runs=2, grid=None, tables=None, **analysis):
    given = {"name": "stability", "n_steps": 60, "x": "lr_0", "x_values": COLUMNS}
    return pl.Study(
        data={"name": "quadratic", "n": 20},
        network={"hidden": 3, "activation": "tanh"},
        analysis=given | analysis,
        runs=runs,
        grid={"analysis.lr_1": ROWS} if grid is None else grid,
        **(tables or {}),
    )


def by_hand(s, run=1, y=("lr_1", ROWS), point=(0,), **options):
    """The map of a function of the library."""
    w0 = s.weights(point, run, 1)[0]
    x = ("lr_0", COLUMNS)
    return pl.stability_map(s.system(point), x, y, n_steps=60, w0=w0, **options)


def arrays(s, names=ARRAYS[:3], run=1, block=2):
    """Rows of a study, computed one by one."""
    parts = [s.compute((i,), run // block * block, block) for i in range(len(ROWS))]
    return {name: np.stack([part[name][run % block] for part in parts]) for name in names}


def assert_same(found, expected, names=ARRAYS[:3]):
    for name in names:
        assert_array_equal(found[name], getattr(expected, name), err_msg=name)


# --- the bits of the library ----------------------------------------------------------------------


def test_rows_are_those_of_the_map():
    s = study(variables=list(ARRAYS), seed=3)
    expected = by_hand(s, exponent=True, seed=3)
    assert 0.2 < expected.converged.mean() < 0.8
    assert np.isfinite(expected.exponent).any()
    assert_same(arrays(s, ARRAYS), expected, ARRAYS)
    assert s.variables["score"].dims == ("lr_0",)
    assert s.variables["exponent"].attrs == {"units": "nats per step"}
    assert (s.compute((0,), 0, 2)["status"] == 0).all()
    assert_array_equal(s.coords["lr_0"].values, COLUMNS)
    assert_array_equal(s.coords["lr_1"].values, ROWS)


def test_other_settings_and_minibatches():
    rule = {"momentum": 0.5, "batch_size": 6, "name": "gradient_descent"}
    grid = {"analysis.momentum": [0.0, 0.4, 0.9]}
    s = study(grid=grid, lr_1=0.3, offset_1=0.25, escape=50.0, tables={"optimizer": rule})
    w0 = s.weights((0,), 1, 1)[0]
    (W0, b0), (W1, b1) = s.system((0,)).network.unpack(w0)
    shifted = s.system((0,)).network.pack([(W0, b0), (W1 + 0.25, b1)])
    # The rate of the second layer, which the study fixes, as a factor of lr.
    layers = pl.GradientDescent(lr=0.3, momentum=0.5, batch_size=6)
    system = pl.TrainingMap(s.system((0,)).network, *pl.datasets.quadratic(20), layers)
    expected = pl.stability_map(
        system, ("lr_0", COLUMNS), ("momentum", [0.0, 0.4, 0.9]), n_steps=60, w0=shifted,
        escape=50.0,
    )  # fmt: skip
    for i in range(3):
        found = s.compute((i,), 1, 1)
        for name in ARRAYS[:3]:
            assert_array_equal(found[name][0], getattr(expected, name)[i], err_msg=name)


@pytest.mark.parametrize("block", [1, 2])
@pytest.mark.parametrize("columns", [1, 4, 13])
def test_bits_do_not_depend_on_tiles(monkeypatch, columns, block):
    """Runs by ones or twos, rows in parts, and pixels of a row in tiles of the kernels."""
    whole = by_hand(study())
    monkeypatch.setattr(running, "tile_size", lambda state_size: columns)
    assert_same(arrays(study(), block=block), whole)
    parts = [COLUMNS[:5], COLUMNS[5:]]
    found = [arrays(study(x_values=part), block=block) for part in parts]
    assert_same(
        {name: np.concatenate([part[name] for part in found], 1) for name in ARRAYS[:3]}, whole
    )


def test_a_training_given_in_python():
    X, y = pl.datasets.quadratic(20)
    net = pl.Network((2, 3, 1), activation="relu")
    rule = pl.GradientDescent(lr=1.0, layer_scale=[0.5, 2.0], bias_scale=0)
    system, w0 = pl.TrainingMap(net, X, y, rule), net.init(seed=5)
    analysis = {"name": "stability", "x": "lr_0", "x_values": COLUMNS, "n_steps": 60}
    grid = {"analysis.lr_1": ROWS}
    s = pl.Study(system=system, states=[w0], analysis=analysis, grid=grid)
    expected = pl.stability_map(system, ("lr_0", COLUMNS), ("lr_1", ROWS), n_steps=60, w0=w0)
    assert_same(arrays(s, run=0, block=1), expected)
    assert 0.2 < expected.converged.mean() < 0.8


# --- stored, resumed, elsewhere -------------------------------------------------------------------


def test_stored_and_opened_as_one_array(tmp_path):
    pytest.importorskip("zarr")
    s = study()
    pl.run_study(s, prepare(tmp_path / "s", s, 1))
    data = pl.open_study(tmp_path / "s")
    assert data.converged.dims == ("lr_1", "run", "lr_0")
    expected = by_hand(s)
    assert_same({name: data[name].sel(run=1).values for name in ARRAYS[:3]}, expected)
    found = pl.box_dimension(data.converged.sel(run=1).values)
    assert_array_equal(found.counts, pl.box_dimension(expected).counts)


def test_killed_studies_resume(tmp_path):
    pytest.importorskip("zarr")
    pytest.importorskip("click")
    text = FILE.format(runs=1, steps=20_000, columns=16, rows=12)
    file, folder = write(tmp_path, text), tmp_path / "killed"
    s = pl.Study.from_file(file)
    pl.run_study(s, tmp_path / "alone")
    done = kill_again_and_again(file, folder, [0.5, 0.02, 0.05])
    assert max(done) < 12, "finished before it was killed"
    assert max(done) > 0
    assert_same_as_uninterrupted(folder, tmp_path / "alone")


# --- pictures and tables --------------------------------------------------------------------------


def test_picture_of_an_incomplete_map(tmp_path, monkeypatch):
    pytest.importorskip("zarr")
    pytest.importorskip("matplotlib")
    s = study(runs=1)
    path = prepare(tmp_path / "s", s, 1)

    real = rows.row

    def failing(system, w0, x, x_values, fixed, plan):
        if w0 is not None and fixed["lr_1"] in ROWS[[2, 5]]:
            raise RuntimeError
        return real(system, w0, x, x_values, fixed, plan)

    with monkeypatch.context() as patch:
        patch.setattr(rows, "row", failing)
        pl.run_study(s, path)
    done = is_done(pl.open_study(path).status.values[:, 0])
    assert_array_equal(done, [True, True, False, True, True, False, True])
    figure = pl.plot_study(path)["stability"]
    (mesh,) = figure.axes[0].collections
    drawn = mesh.get_array().reshape(len(ROWS), len(COLUMNS))
    assert_array_equal(np.ma.getmaskarray(drawn), ~done[:, np.newaxis] | np.zeros(13, bool))
    assert "5 of 7 rows complete" in figure.get_suptitle()
    pl.run_study(s, path)
    (mesh,) = pl.plot_study(path)["stability"].axes[0].collections
    whole = by_hand(s, run=0).plot().axes[0].collections[0].get_array()
    assert_array_equal(mesh.get_array(), whole)
    assert not np.ma.getmaskarray(mesh.get_array()).any()


def test_pictures_of_several_maps_and_the_report(tmp_path):
    pytest.importorskip("zarr")
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    grid = {"analysis.lr_1": ROWS[::-1], "optimizer.batch_size": [5, 20]}
    s = study(runs=2, grid=grid)
    data = pl.run_study(s, tmp_path / "s")
    found = pl.plot_study(tmp_path / "s")
    assert list(found) == ["stability-1", "stability-2", "distributions", "along"]
    assert found["stability-1"].get_suptitle() == "batch size 5, 7 rows"
    low, high = found["stability-1"].axes[0].get_ylim()
    assert low < ROWS[0]
    assert high > ROWS[-1]
    # The lowest row is that of the smallest rate, although the grid lists it last.
    lowest = found["stability-2"].axes[0].collections[0].get_array().reshape(7, 13)[0]
    assert_array_equal(lowest < 0.5, data.converged.values[-1, 1, 0] == 1)
    pl.report_study(tmp_path / "s", tmp_path / "s.html")
    text = Path(tmp_path / "s.html").read_text(encoding="utf-8")
    assert "fraction that converges" in text
    assert "Which runs converge (blue)" in text


def test_any_key_of_the_analysis_may_vary(tmp_path):
    pytest.importorskip("zarr")
    pytest.importorskip("matplotlib")
    grid = {"analysis.lr_1": ROWS, "analysis.n_steps": [20, 60],
            "analysis.x_values": [COLUMNS[:9], COLUMNS], "analysis.x": ["lr_0"]}  # fmt: skip
    s = pl.Study(data={"name": "quadratic", "n": 20}, network={"hidden": 3}, runs=1,
                 analysis={"name": "stability"}, grid=grid)  # fmt: skip
    data = pl.run_study(s, tmp_path / "s")
    assert data.converged.sizes["lr_0"] == 13
    assert (data.converged.values[:, :, 0, 0, 0, 9:] == -1).all()
    shorter = data.isel(n_steps=1, x_values=0, x=0, run=0)
    longer = data.isel(n_steps=1, x_values=1, x=0, run=0)
    assert_array_equal(shorter.score.values[:, :9], longer.score.values[:, :9])
    numbers = quantities(data)["fraction that converges"].isel(n_steps=1, x=0, run=0)
    assert_array_equal(numbers.isel(x_values=0), (shorter.converged[:, :9] == 1).mean("lr_0"))
    found = pl.plot_study(tmp_path / "s")
    names = [name for name in found if "stability" in name]
    assert names == [f"stability-{i}" for i in (1, 2, 3, 4)]


def test_without_a_second_setting_there_is_no_map(tmp_path):
    pytest.importorskip("zarr")
    pytest.importorskip("matplotlib")
    s = study(grid={"optimizer.batch_size": [5, 20]})
    pl.run_study(s, tmp_path / "s")
    assert list(pl.plot_study(tmp_path / "s")) == ["distributions", "along"]


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"x": "lr_7"}, r"analysis.x must have a setting that is one of lr, .*got 'lr_7'; did you"),
        ({"x": "lr_1"}, r"analysis.x must be another setting than lr_1, got 'lr_1'"),
        ({"offset_5": 0.1}, r"analysis.offset_5 must have a setting .*got 'offset_5'"),
        ({"ofset": 0.1}, r"analysis.ofset is unknown; did you mean 'offset'"),
        ({"x_values": [1.0]}, r"analysis.x_values must be a list of numbers or \{linspace"),
        ({"x_values": [1.0, 0.5]}, r"analysis.x_values must have increasing values of lr_0"),
        ({"x_values": [-1.0, 0.5]}, r"analysis.x must have lr_0 of at least 0, got"),
        ({"momentum": 1.5}, r"analysis.momentum must be in \[0, 1\], got 1.5"),
        ({"lr": -1.0}, r"analysis.lr must be finite and >= 0"),
        ({"escape": 0.5}, r"analysis.escape must be above 1, the relative loss"),
        ({"variables": ["losses"]}, r"analysis.variables\[0\] must be one of converged, score"),
        ({"grid": {"analysis.x_values": [[1, 2], [1, 3]]}, "x_values": None}, r"labels of 'lr_0'"),
    ],
)
def test_settings_that_are_refused(changes, match):
    grid = changes.pop("grid", None)
    given = {k: v for k, v in ({"x_values": COLUMNS} | changes).items() if v is not None}
    if grid is not None:
        analysis = {"name": "stability", "x": "lr_0"}
        with pytest.raises(ValueError, match=match):
            pl.Study(data={"name": "quadratic"}, network={"hidden": 3}, analysis=analysis,
                     runs=1, grid=grid)  # fmt: skip
        return
    with pytest.raises(ValueError, match=match):
        study(**given)


def test_adam_has_no_momentum_and_maps_have_no_settings():
    with pytest.raises(ValueError, match=r"analysis.momentum must have a setting .* lr, weight_de"):
        study(momentum=0.5, x="lr", grid={}, tables={"optimizer": {"name": "adam"}})
    henon = pl.DiscreteMap(lambda x: [1 - 1.4 * x[0] ** 2 + x[1], 0.3 * x[0]],
                           lambda x: [[-2.8 * x[0], 1.0], [0.3, 0.0]], n=2)  # fmt: skip
    analysis = {"name": "stability", "x": "lr", "x_values": COLUMNS}
    with pytest.raises(ValueError, match=r"analysis.name must be another one for a system that is"):
        pl.Study(system=henon, states=[[0.1, 0.1]], analysis=analysis)
