"""Studies of systems that are given in Python: any map, with an array of initial states."""

import json
import pickle
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from toy_systems import SPECTRUM, STATES, Henon, study, vectorised
from toys import edit_metadata, prepare

import pylyap as pl
from pylyap import cli
from pylyap.studies import records
from pylyap.studies.systems import STATES as FILE

pytest.importorskip("xarray")
pytest.importorskip("zarr")

DIVERGING = np.concatenate([STATES[:3], [[10.0, 10.0]], STATES[3:6]])


def with_threads():
    """A system that cannot be pickled."""
    system = Henon()
    system.lock = threading.Lock()
    return system


# --- results --------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", [vectorised(), Henon()], ids=["vectorised", "class"])
def test_the_bits_of_direct_calls(tmp_path, system):
    ks = [1, 2]
    found = study(system, DIVERGING, grid={"analysis.k": ks})
    data = pl.run_study(found, tmp_path / "s")
    for i, k in enumerate(ks):
        s = pl.lyapunov_spectrum(system, DIVERGING, 40, k, record_every=10)
        assert_array_equal(data.exponents.values[i, :, :k], s.exponents)
        assert_array_equal(data.status.values[i], s.status)
    assert data.status.values[0].tolist() == [0, 0, 0, 1, 0, 0, 0]


def test_finite_time_exponents_and_ensembles():
    system = vectorised()
    ftle = study(analysis={"name": "ftle", "n_steps": 40, "window": 10, "kind": "svd"})
    assert_array_equal(
        ftle.compute((), 2, 4)["ftle"], pl.ftle(system, STATES[2:6], 40, window=10, kind="svd")
    )
    clv = study(analysis={"name": "clv", "n_steps": 40}).compute((), 0, 3)
    direct = pl.covariant_lyapunov_vectors(system, STATES[:3], 40)
    assert_array_equal(clv["exponents"], direct.exponents)
    assert_array_equal(clv["angles"], direct.angles())
    found = study(analysis={"name": "ensemble", "n_steps": 60, "eps": 1e-8, "n_perturbations": 4})
    one, half = found.compute((), 0, 12), found.compute((), 6, 6)
    for name in one:  # perturbations depend on the seed and the number of the run
        assert_array_equal(one[name][6:], half[name])
    assert 0.2 < np.median(one["growth_slope"]) < 0.7  # 0.42 in the mean over the attractor


def test_losses_are_kept_where_there_are_some(tmp_path):
    net = pl.Network((2, 2, 1))
    X = np.random.default_rng(1).normal(size=(6, 2))
    system = pl.TrainingMap(net, X, X[:, :1], pl.GradientDescent(lr=0.1, momentum=0.5))
    w0 = net.init(seed=0, runs=4)
    found = study(system, w0, analysis={"name": "spectrum", "n_steps": 20, "k": 2})
    assert {"loss", "final_loss"} <= set(found.variables)
    s = pl.lyapunov_spectrum(system, w0, 20, 2)
    data = pl.run_study(found, tmp_path / "s")
    assert_array_equal(data.loss.values, s.loss)
    assert_array_equal(data.final_loss.values, system.loss(s.state))
    assert not {"loss", "final_loss"} & set(
        study(analysis={"name": "spectrum", "n_steps": 9}).variables
    )
    with pytest.raises(ValueError, match=r"'final_loss' needs a system with a loss"):
        study(analysis={**SPECTRUM, "variables": ["exponents", "final_loss"]})


def test_a_model_of_torch(tmp_path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Tanh(), torch.nn.Linear(2, 1))
    model = model.double()
    X = torch.randn(8, 2, dtype=torch.float64)
    system, w0 = pl.from_torch(
        model, X, X[:, :1], "mse", torch.optim.SGD(model.parameters(), 0.1), native=False
    )
    states = w0 + 0.1 * np.random.default_rng(0).normal(size=(3, system.n))
    found = study(system, states, analysis={"name": "spectrum", "n_steps": 6, "k": 2})
    data = pl.run_study(found, tmp_path / "s", workers=2)
    s = pl.lyapunov_spectrum(system, states, 6, 2)
    np.testing.assert_allclose(data.exponents.values, s.exponents, rtol=1e-12)
    assert np.isfinite(data.final_loss.values).all()
    again = pickle.loads(pickle.dumps(found)).compute((), 0, 3)
    assert_array_equal(again["exponents"], data.exponents.values)
    other, _ = pl.from_torch(
        model, X, X[:, :1], "mse", torch.optim.SGD(model.parameters(), 0.1001), native=False
    )
    with pytest.raises(pl.ArgumentError, match="must have the system of the study"):
        pl.run_study(
            study(other, states, analysis={"name": "spectrum", "n_steps": 6, "k": 2}),
            tmp_path / "s",
        )


def quartic(w):
    return (w**4).sum() / 4 + (w[:-1] * w[1:]).sum()


@pytest.mark.parametrize("optimizer", ["plain", "optax"])
def test_a_model_of_jax(tmp_path, optimizer):
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    rule = optax.sgd(0.1) if optimizer == "optax" else pl.GradientDescent(lr=0.1, momentum=0.5)
    with jax.enable_x64(True):
        system, w0 = pl.from_jax(quartic, np.linspace(0.2, 0.6, 3), rule)
    # In threads that have not asked for double precision.
    states = w0 + 0.1 * np.random.default_rng(0).normal(size=(4, system.n_params))
    states = system.state(states)
    found = study(system, states, analysis={"name": "spectrum", "n_steps": 6, "k": 2})
    with ThreadPoolExecutor(2) as pool:
        data = pl.run_study(found, tmp_path / "s", executor=pool)
    s = pl.lyapunov_spectrum(system, states, 6, 2)
    assert_array_equal(data.exponents.values, s.exponents)
    assert_array_equal(data.final_loss.values, system.loss(s.state))
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        if optimizer == "optax":  # its functions are local to optax
            with pytest.raises(pl.ArgumentError, match="cannot be pickled") as caught:
                pl.run_study(found, tmp_path / "none", executor=pool)
            assert caught.value.argument == "executor"
            assert not (tmp_path / "none").exists()
            return
        other = pl.run_study(found, tmp_path / "processes", executor=pool)
    assert_array_equal(other.exponents.values, s.exponents)


# --- the folder -----------------------------------------------------------------------------------


def test_killed_and_resumed(tmp_path):
    script = Path(__file__).with_name("toy_systems.py")
    folder, alone = (prepare(tmp_path / name, study(Henon()), 2) for name in ("killed", "alone"))
    pl.run_study(study(Henon()), alone)
    with subprocess.Popen([sys.executable, "-W", "ignore", script, folder, "0.002"]) as process:
        while process.poll() is None and len(list(records.read(folder / "tasks.log"))) < 2:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    before = pl.open_study(folder)  # without the code
    assert 0 < before.attrs["runs_done"] < 12
    assert before.attrs["runs_total"] == 12
    pl.run_study(study(Henon()), folder)
    one, other = pl.open_study(folder), pl.open_study(alone)
    for name in other.variables:
        assert one[name].values.tobytes() == other[name].values.tobytes()
    assert all(record.tries == 1 for record in records.read(folder / "tasks.log"))


def test_more_runs_of_the_same_states(tmp_path):
    pl.run_study(study(runs=5), tmp_path / "s")
    with pytest.raises(pl.ArgumentError, match="which is smaller: runs 5 → 12"):
        pl.run_study(study(), tmp_path / "s")
    data = pl.run_study(study(), tmp_path / "s", extend=True)
    assert_array_equal(data.exponents.values, study().compute((), 0, 12)["exponents"])
    with np.load(tmp_path / "s" / FILE) as stored:
        assert_array_equal(stored["states"], STATES)


def test_a_resume_needs_the_same_system_and_states(tmp_path):
    folder = tmp_path / "s"
    pl.run_study(study(Henon()), folder)
    for other, words in (
        (study(Henon(a=1.4 + 1e-6)), "must have the system .* first steps from the first state"),
        (study(vectorised()), "must have the system .* system.kind differ"),
        (study(Henon(), STATES * (1 + 2**-50)), f"must have the states .* that of {FILE}"),
        (study(Henon(), STATES[:-1]), "must have the states"),
        (study(Henon(), seed=4), "must be the one in .* seed 3 → 4"),
        (study(Henon(), analysis={**SPECTRUM, "k": 1}), "must be the one in .* analysis.k"),
    ):
        with pytest.raises(pl.ArgumentError, match=words) as caught:
            pl.run_study(other, folder)
        assert caught.value.argument == "study"
        if "system" not in words:
            continue
        with pytest.raises(pl.ArgumentError, match=words):
            pl.plan_study(other, folder)
    assert pl.plan_study(study(Henon(1.4 * (1 + 1e-15))), folder).runs == 0  # rounding alone
    edit_metadata(folder, lambda content: content.clear(), checksum=False)  # damaged
    with pytest.raises(ValueError, match="study"):
        pl.run_study(study(Henon(), STATES * (1 + 2**-50)), folder)
    with pytest.raises(pl.ArgumentError, match="must have the system"):
        pl.run_study(study(Henon(1.3)), folder)
    assert pl.run_study(study(Henon()), folder).attrs["runs_done"] == 12


def test_states_are_stored_once_and_again_if_damaged(tmp_path):
    states = STATES.copy()
    found = study(states=states)
    states[:] = np.nan  # copied before
    pl.run_study(found, tmp_path)
    file = tmp_path / FILE
    before = file.stat().st_mtime_ns
    pl.run_study(found, tmp_path)
    assert file.stat().st_mtime_ns == before
    file.write_bytes(b"damaged")
    pl.run_study(found, tmp_path)
    with np.load(file) as stored:
        assert_array_equal(stored["states"], STATES)


def test_a_run_that_raises_is_marked(tmp_path):
    class Raising(Henon):
        def step(self, x, t=0):
            if t == 30 and x[0] > 0.9:
                raise RuntimeError("no luck")
            return super().step(x, t)

    data = pl.run_study(study(Raising()), tmp_path)
    failed = data.status.values == 3
    assert 0 < failed.sum() < 12
    assert_array_equal(
        data.exponents.values[~failed], study(Henon()).compute((), 0, 12)["exponents"][~failed]
    )
    assert "no luck" in data.attrs["failures"]


def test_pictures_report_and_export_of_the_folder(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    pytest.importorskip("h5netcdf")
    found = study(Henon(), DIVERGING, analysis={"name": "spectrum", "n_steps": 40})
    assert repr(found).startswith("Study 'Hénon': spectrum of Henon, 7 runs\n")
    pl.run_study(found, tmp_path / "s")
    assert list(pl.plot_study(tmp_path / "s")) == ["spectrum", "distributions"]
    pl.export_study(tmp_path / "s", tmp_path / "s.nc")
    pl.report_study(tmp_path / "s", tmp_path / "s.html")
    assert cli.main(["status", str(tmp_path / "s")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "7 of 7 runs" in shown
    assert "diverged 1" in shown
    page = (tmp_path / "s.html").read_text()
    assert "spectrum of Henon, 7 runs" in page
    assert "1 diverged" in page
    assert found._given.digest in page


# --- executors ------------------------------------------------------------------------------------


def test_processes(tmp_path):
    found = study()
    one = pl.run_study(pickle.loads(pickle.dumps(found)), tmp_path / "threads")
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        other = pl.run_study(found, tmp_path / "processes", executor=pool)
        with pytest.raises(pl.ArgumentError, match="cannot be pickled") as caught:
            pl.run_study(study(with_threads()), tmp_path / "none", executor=pool)
    assert caught.value.argument == "executor"
    assert not (tmp_path / "none").exists()  # before anything started
    assert_array_equal(one.exponents.values, other.exponents.values)


def test_dask(tmp_path):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        other = pl.run_study(study(), tmp_path / "dask", executor=client)
    assert_array_equal(other.exponents.values, study().compute((), 0, 12)["exponents"])


def test_python_code_takes_turns_in_threads(tmp_path):
    class Alone(Henon):
        inside = 0

        def step(self, x, t=0):
            Alone.inside += 1
            time.sleep(1e-5)  # lets other threads in
            assert Alone.inside == 1
            Alone.inside -= 1
            return super().step(x, t)

        def __reduce__(self):
            raise TypeError("local")

    found = study(Alone())
    assert pl.plan_study(found).workers == 1
    prepare(tmp_path / "own", found, 2)
    assert pl.run_study(found, tmp_path / "own", workers=2).attrs["runs_failed"] == 0
    prepare(tmp_path / "given", found, 2)
    with ThreadPoolExecutor(2) as pool:
        data = pl.run_study(found, tmp_path / "given", executor=pool)
    assert data.attrs["runs_failed"] == 0
    assert_array_equal(data.exponents.values, study(Henon()).compute((), 0, 12)["exponents"])


# --- refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": {"name": "iris"}, "network": {"hidden": 2}},
         ("2 errors", "data must be omitted beside system", "network must be omitted")),
        ({"init": {"scale": 1.0}}, ("init must be omitted beside system",)),
        ({"optimizer": {"lr": 1.0}}, ("optimizer must be omitted beside system",)),
        ({"grid": {"optimizer.lr": [0.1, 1.0]}}, ("grid.optimizer.lr must be omitted beside",)),
        ({"grid": {"system.a": [1.0, 2.0]}}, ("grid.system.a is not a setting",)),
        ({"grid": {"analysis.k": [1, 3]}}, ("analysis.k must", "analysis.k = 3")),
        ({"analysis": {"name": "train", "epochs": 2}},
         ("analysis.name must be one of spectrum, ftle, clv, training_jacobian, ", "'train'")),
        ({"analysis": {"name": "scan"}}, ("analysis.name must be one of", "'scan'")),
        ({"analysis": {"name": "spectrum"}}, ("analysis.n_steps is missing",)),
        ({"analysis": 3}, ("analysis must be a table",)),
        ({"runs": 13}, ("runs must be at most 12, the rows of states, got 13",)),
        ({"runs": "a"}, ("runs must be an integer",)),
        ({"states": None}, ("states is missing",)),
        ({"states": STATES[0]}, ("states must have shape (runs, 2), got (2,)",)),
        ({"states": STATES[:0]}, ("states must have shape (runs, 2), got (0, 2)",)),
        ({"states": STATES[:, :1]}, ("states must have shape",)),
        ({"states": STATES * np.nan}, ("states must be finite",)),
        ({"states": lambda run, seed: STATES[run]}, ("states must be an array",)),
        ({"system": 3}, ("system must be a TrainingMap, a DiscreteMap or have n",)),
    ],
)  # fmt: skip
def test_refused(changes, words):
    with pytest.raises((ValueError, TypeError)) as caught:
        study(**changes)
    for word in words:
        assert word in str(caught.value)


def test_refused_without_a_system(tmp_path):
    with pytest.raises(ValueError, match="states must be omitted without system"):
        pl.Study(states=STATES, analysis=SPECTRUM, data={"name": "iris"}, network={}, runs=2)
    with pytest.raises(ValueError, match="data must be a table"):
        pl.Study(analysis=SPECTRUM, runs=2)
    file = tmp_path / "s.toml"
    file.write_text('runs = 2\n[system]\nname = "henon"\n[analysis]\nname = "spectrum"\n')
    with pytest.raises(ValueError, match="line 2: system must be given in Python"):
        pl.Study.from_file(file)


def test_a_random_system_is_refused():
    rng = np.random.default_rng(0)
    system = pl.DiscreteMap(lambda x: x + rng.normal(size=2), lambda x: np.eye(2), n=2)
    with pytest.raises(ValueError, match="system"):
        study(system)
    net = pl.Network((2, 1, 1))
    many = pl.TrainingMap(net, STATES, STATES[:, :1], pl.GradientDescent(lr=[0.1, 0.2]))
    with pytest.raises(pl.ArgumentError, match="system must have one learning rate"):
        study(many, net.init(runs=2))


def test_no_text_of_a_system(tmp_path):
    found = study()
    with pytest.raises(pl.ArgumentError, match="a study file cannot name code") as caught:
        found.to_toml()
    assert caught.value.argument == "system"
    assert found == study()
    assert found != study(Henon())
    assert json.loads(json.dumps(found.settings)) == found.settings
    with pytest.raises(TypeError, match="system must be a TrainingMap"):
        pl.Study(**found.settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        study(states=[[1e200, 0.0], [0.1, 0.1]])  # the probed steps overflow
