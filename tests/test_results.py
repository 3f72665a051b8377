"""What comes back: frozen, picklable, short to read, and an xarray dataset on request."""

import dataclasses
import pickle
import sys

import cases
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import pylyap as pl


def spectrum(**options):
    net = cases.network("tanh", "cross_entropy")
    optimizer = pl.GradientDescent(lr=[0.1, 0.2], momentum=0.5)
    system = pl.TrainingMap(net, *cases.data(net), optimizer)
    w = cases.weights(net, runs=3)[:, None]
    return pl.lyapunov_spectrum(system, w, 12, k=4, record_every=3, **options)


FIELDS = (
    *("exponents", "stderr", "trend", "growth", "steps"),
    *("loss", "state", "frame", "status", "n_done"),
)


def arrays(result):
    return {name: getattr(result, name) for name in FIELDS}


def test_a_spectrum_cannot_be_changed():
    s = spectrum()
    with pytest.raises(dataclasses.FrozenInstanceError):
        s.exponents = np.zeros(4)


def test_a_spectrum_holds_arrays_of_numbers_that_fit_each_other():
    s = spectrum()
    n = 2 * s.state.shape[-1] // 2
    shapes = {
        "exponents": (3, 2, 4),
        "stderr": (3, 2, 4),
        "growth": (3, 2, 4, 4),
        "steps": (4,),
        "loss": (3, 2, 5),
        "state": (3, 2, n),
        "frame": (3, 2, n, 4),
        "status": (3, 2),
        "n_done": (3, 2),
        "trend": (3, 2, 4),
    }
    for name, array in arrays(s).items():
        assert array.shape == shapes[name]
        assert array.dtype.kind == {"status": "i", "n_done": "i", "steps": "i", "trend": "b"}.get(
            name, "f"
        )
    assert_array_equal(s.n_done, np.full((3, 2), 12))


def test_settings_tell_how_a_spectrum_came_about():
    settings = spectrum(seed=7).settings
    assert settings["n_steps"] == 12
    assert settings["record_every"] == 3
    assert settings["qr_every"] == 1
    assert settings["n_transient"] == 0


def test_a_spectrum_pickles():
    s = spectrum()
    copy = pickle.loads(pickle.dumps(s))
    for name, array in arrays(s).items():
        assert_array_equal(getattr(copy, name), array)
    assert copy.settings == s.settings


def test_a_spectrum_is_short_to_read():
    text = repr(spectrum())
    assert len(text) < 400
    for word in ("Spectrum", "6 runs", "4 exponents", "12 steps"):
        assert word in text
    one = pl.lyapunov_spectrum(cases.linear(2.0, 0.5), np.zeros(2), 20, frame=np.eye(2))
    assert "0.693" in repr(one)
    assert "-inf" in repr(pl.lyapunov_spectrum(cases.linear(0.0), np.zeros(1), 5))
    with np.errstate(over="ignore"):
        lost = pl.lyapunov_spectrum(cases.linear(1e300), np.ones(1), 5)
    assert "1 diverged" in repr(lost)


def test_a_spectrum_becomes_a_dataset_with_units_and_settings():
    xarray = pytest.importorskip("xarray")
    s = spectrum()
    dataset = s.to_dataset()
    assert isinstance(dataset, xarray.Dataset)
    for name in ("exponents", "stderr", "growth", "loss", "status"):
        assert_array_equal(dataset[name].values, getattr(s, name))
    assert dataset["growth"].sizes["step"] == 4
    assert_array_equal(dataset.coords["step"].values, s.steps)
    assert dataset["exponents"].attrs["units"] == "nats per step"
    assert dataset.attrs["n_steps"] == 12
    assert "TrainingMap" in dataset.attrs["system"]


def test_a_dataset_can_be_written_to_netcdf(tmp_path):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    s = spectrum()
    s.to_dataset().to_netcdf(tmp_path / "s.nc", engine="h5netcdf")
    with xarray.open_dataset(tmp_path / "s.nc", engine="h5netcdf") as back:
        assert_array_equal(back["growth"].values, s.growth)


def test_without_xarray_a_dataset_is_a_clear_import_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ImportError, match="pip install"):
        spectrum().to_dataset()


def test_progress_goes_to_standard_error_on_request_only(capfd):
    spectrum()
    assert capfd.readouterr() == ("", "")
    quiet = spectrum()
    loud = spectrum(progress=True)
    out, error = capfd.readouterr()
    assert out == ""
    assert "%" in error
    for name, array in arrays(quiet).items():
        assert_array_equal(getattr(loud, name), array)


# ------------------------------------------------------------------------ display, pictures, files


def trained():
    X, y = pl.datasets.quadratic(20)
    network = pl.Network((2, 3, 1))
    system = pl.TrainingMap(network, X, y, pl.GradientDescent(lr=[0.1, 0.2]))
    return system, network.init(runs=2, seed=0)


def every_result():
    """One result of each kind that has a file."""
    system, w = trained()
    ensemble = pl.perturbation_ensemble(system, w, [1e-8, 1e-6], 2, 100)
    history = pl.train(system, w, 6, snapshots=[2, 6])
    spectrum = pl.lyapunov_spectrum(system, w, 60)
    net = system.network
    scan = pl.learning_rate_scan(net, system.X, system.y, [0.1, 0.3], 40, runs=2)
    last = history.state[..., : net.n_params]
    yield from (ensemble, history, spectrum, scan)
    yield pl.covariant_lyapunov_vectors(system, w, 20, 3)
    yield pl.compare_growth(system, w, [1e-8], n_steps=60)
    yield pl.growth_rate(ensemble.distances)
    yield pl.growth_law(ensemble.distances)
    yield pl.trainability(history)
    yield pl.weight_deviation(w, last, net, bins=4)
    yield pl.joint_histogram(w, last, net, bins=4)
    yield pl.travel(system, w, 20)
    yield pl.sharpness(system, w)
    yield pl.hessian_spectrum(system, w)
    yield pl.autocorrelation(spectrum.loss[0], 10, 20)
    losses = np.array([0.1, 0.2, 0.3, 0.4, 1.1, 1.2, 1.3, 1.4])
    yield pl.prediction_skill(np.arange(8.0), losses, 0.7)
    yield pl.restart_policy(np.arange(8.0), losses, 10, 100, 0.7, folds=2)


def same(one, other):
    if dataclasses.is_dataclass(one):
        names = [f.name for f in dataclasses.fields(one)]
        return type(one) is type(other) and all(
            same(getattr(one, name), getattr(other, name)) for name in names
        )
    if isinstance(one, np.ndarray):
        equal = np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
        return equal and (one.dtype, one.shape) == (other.dtype, other.shape)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return one == other or (one != one and other != other)


def test_every_result_is_read_back_as_it_was(tmp_path):
    pytest.importorskip("h5netcdf")
    for result in every_result():
        result.save(tmp_path / "result.nc")
        assert same(pl.load(tmp_path / "result.nc"), result), type(result).__name__


def test_reprs_have_ten_lines_at_most():
    for result in every_result():
        lines = repr(result).splitlines()
        assert len(lines) <= 10
        assert all(len(line) <= 100 for line in lines)
        assert lines[0].startswith(type(result).__name__)


def test_results_draw_themselves():
    pytest.importorskip("matplotlib")
    system, w = trained()
    spectrum = pl.lyapunov_spectrum(system, w, 60)
    figure = spectrum.plot(title="a title")
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert "data:image/png;base64," in spectrum._repr_html_()


def test_every_result_has_a_table_and_a_picture_in_notebooks():
    pytest.importorskip("matplotlib")
    system, w = trained()
    distances = 1e-8 * np.exp(0.1 * np.arange(60.0))
    for result in (pl.growth_rate(distances, axis=None), pl.hessian_spectrum(system, w)):
        shown = result._repr_html_()
        assert shown.startswith(f"<div><strong>{type(result).__name__}"), type(result).__name__
        assert "data:image/png;base64," in shown, type(result).__name__
    assert '<td style="' in spectrum()._repr_html_()


def test_a_scan_says_which_regimes_it_found():
    net = pl.Network((2, 3, 1), activation="tanh")
    X, y = pl.datasets.quadratic(20)
    scan = pl.learning_rate_scan(net, X, y, [0.01, 0.1, 1e6], 60, runs=2, n_perturbations=0)
    lines = repr(scan).splitlines()
    assert lines[0] == "LearningRateScan (lr 3 × run 2)"
    assert lines[1].split() == ["learning", "rates", "0.01", "...", "1e+06"]
    for name in ("convergent", "divergent"):
        of = scan.lr[(scan.regime == name).any(axis=1)]
        share = (scan.regime == name).mean()
        text = f"{share:.1%} of the runs, learning rates {of.min():g} ... {of.max():g}"
        assert [line.split(None, 1)[1] for line in lines if line.split()[0] == name] == [text]
    assert "<td" in scan._repr_html_()


def test_figures_are_as_large_in_notebooks_with_pyplot_as_without():
    pytest.importorskip("matplotlib")
    pylabtools = pytest.importorskip("IPython.core.pylabtools")
    figure = pl.plotting.plot_spectrum(spectrum())

    def width(png):
        return int.from_bytes(png[16:20], "big")

    alone = width(figure._repr_png_())
    assert 600 < alone < 700
    shown = pylabtools.print_figure(figure)
    assert abs(width(shown) - alone) < 40  # it is cropped


@pytest.mark.parametrize("given", [None, 40])
def test_files_have_more_pixels_than_the_screen(given, tmp_path, monkeypatch):
    matplotlib = pytest.importorskip("matplotlib")
    from pylyap._files import write_figure

    figure = pl.plotting.plot_spectrum(spectrum())
    if given:
        monkeypatch.setitem(matplotlib.rcParams, "savefig.dpi", given)
    figure.savefig(tmp_path / "a.png")
    with (tmp_path / "b.png").open("wb") as file:
        write_figure(file, figure, "png")
    figure.savefig(tmp_path / "c.png", dpi=30)
    widths = [int.from_bytes((tmp_path / f"{c}.png").read_bytes()[16:20], "big") for c in "abc"]
    assert widths == [9 * (given or 150)] * 2 + [270]
    assert figure.dpi == 72


@pytest.mark.parametrize("pyplot", [False, True])
def test_notebooks_show_a_figure_once(pyplot):
    pytest.importorskip("matplotlib")
    formatters = pytest.importorskip("IPython.core.formatters")
    pylabtools = pytest.importorskip("IPython.core.pylabtools")
    shell = pytest.importorskip("IPython.core.interactiveshell").InteractiveShell()
    if pyplot:
        pylabtools.select_figure_formats(shell, ["png"])
    display = shell.display_formatter if pyplot else formatters.DisplayFormatter()
    data, _ = display.format(pl.plotting.plot_spectrum(spectrum()))
    assert set(data) == {"text/plain", "image/png"}


def test_a_study_plan_is_short_to_read():
    plan = pl.StudyPlan(1234, 13, 100, 2, 5000.0, True, 3 * 2**30, 5 * 2**20)
    assert repr(plan).splitlines() == [
        "StudyPlan of 1,234 runs",
        "  tasks    13 of at most 100 runs",
        "  workers  2",
        "  time     about 1:23:20",
        "  disk     3 GiB, uncompressed",
        "  memory   5 MiB for results",
    ]
    assert "3 GiB" in plan._repr_html_()


def test_files_that_hold_no_result(tmp_path):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    with pytest.raises(FileNotFoundError, match="there is no"):
        pl.load(tmp_path / "none.nc")
    (tmp_path / "text.nc").write_text("no netCDF")
    with pytest.raises(pl.ArgumentError, match="must be a netCDF file"):
        pl.load(tmp_path / "text.nc")
    xarray.Dataset({"x": ("t", [1.0])}).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    with pytest.raises(pl.ArgumentError, match="must hold a result of pylyap"):
        pl.load(tmp_path / "other.nc")
