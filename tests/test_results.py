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
    with pytest.raises(ImportError, match=r"pylyap\[store\]"):
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
