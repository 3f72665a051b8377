"""Files written by released versions are read, and their numbers are those computed today."""

import importlib.util
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

import pylyap as pl

FILES = Path(__file__).parent / "compatibility"
VERSIONS = sorted(folder for folder in FILES.iterdir() if folder.is_dir() and "." in folder.name)
RTOL = 1e-7  # another build or processor rounds differently; covariant vectors amplify that

_spec = importlib.util.spec_from_file_location("compatibility", FILES / "write.py")
writer = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(writer)

pytestmark = pytest.mark.parametrize("folder", VERSIONS, ids=lambda folder: folder.name)


@pytest.fixture(scope="module")
def today():
    return writer.results()


def arrays(result):
    return {
        name: value
        for name in getattr(result, "__dataclass_fields__", ())
        if isinstance(value := getattr(result, name), np.ndarray) and value.dtype.kind == "f"
    }


def test_pickles_of_results(folder, today):
    for name in ("spectrum", "vectors", "sharpness", "ensemble", "deviation"):
        result = pickle.loads((folder / f"{name}.pickle").read_bytes())
        then, now = arrays(result), arrays(today[name])
        assert then, name
        for field, value in then.items():
            assert_allclose(value, now[field], rtol=RTOL, atol=1e-9, err_msg=f"{name}.{field}")
        assert repr(result)
        if hasattr(result, "to_dataset"):
            result.to_dataset()


def test_pickles_of_the_system(folder, today):
    network, system, optimizer = (
        pickle.loads((folder / f"{name}.pickle").read_bytes())
        for name in ("network", "system", "optimizer")
    )
    w0 = network.init("normal", runs=2, seed=1)
    assert_allclose(
        pl.lyapunov_spectrum(system, w0, 20, k=3).exponents, today["spectrum"].exponents, rtol=RTOL
    )
    assert_allclose(optimizer.lr, [0.1, 0.2])
    assert optimizer.beta1 == 0.8


def test_files_of_results(folder, today):
    pytest.importorskip("h5netcdf")
    spectrum = pl.load(folder / "spectrum.nc")
    assert_allclose(spectrum.exponents, today["spectrum"].exponents, rtol=RTOL)


def test_checkpoint_is_resumed(folder, tmp_path):
    copy = tmp_path / "training.npz"
    shutil.copy(folder / "training.npz", copy)
    resumed = writer.train(9, copy)
    whole = writer.train(9, tmp_path / "new.npz")
    assert_allclose(resumed.train_loss, whole.train_loss, rtol=RTOL)


def test_study_is_read_and_complete(folder, tmp_path):
    pytest.importorskip("zarr")
    pytest.importorskip("xarray")
    copy = shutil.copytree(folder / "study", tmp_path / "study")
    then = pl.open_study(copy)["exponents"].to_numpy()
    assert np.isfinite(then).all()
    before = (copy / "tasks.log").read_bytes()
    result = pl.run_study(writer.study(), copy, mixed=True)  # nothing remains to be computed
    assert (copy / "tasks.log").read_bytes() == before
    assert_allclose(result["exponents"], then, rtol=0)
