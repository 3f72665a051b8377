"""Computation of a study: the bits of the library's results, for any division into blocks."""

import pickle
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import pylyap as pl
from pylyap._stability.rows import NAMES
from pylyap.studies.outline import outline
from pylyap.studies.study import _VALUE_ONLY_KEYS

pytest.importorskip("xarray")

SEED, RUNS, SPLIT = 11, 7, 4
IRIS = {
    "data": {"name": "iris", "train": 100, "test": 30, "split_seed": SPLIT},
    "network": {"hidden": [4], "activation": "sigmoid", "loss": "cross_entropy"},
    "init": {"kind": "normal", "scale": 0.5},
    "runs": RUNS,
    "seed": SEED,
}
LRS, GRID = [0.5, 2.0], {"optimizer.lr": [0.5, 2.0]}
ANALYSES = {
    "spectrum": {"n_steps": 60, "record_every": 5, "k": 3},
    "ftle": {"n_steps": 60, "n_transient": 4, "window": 20, "stride": 8, "k": 3},
    "clv": {"n_steps": 60, "k": 3, "every": 5, "delay": 5},
    "training_jacobian": {"n_steps": 60, "k": 5, "width": 0.05},
    "ensemble": {"n_steps": 60, "n_perturbations": 3, "eps": [1e-8, 1e-6], "perturb": "weights"},
    "sharpness": {"n_steps": 60, "every": 20},
    "stability": {"n_steps": 60, "x": "lr_1", "x_values": [0.5, 2.0, 8.0]},
    "train": {"epochs": 6, "record_every": 2, "snapshots": [0, 3]},
    "scan": {"lrs": LRS, "n_steps": 60, "observe": 2, "n_perturbations": 2},
}
ON_REQUEST = {
    "spectrum": ["trend", "state", "frame", "growth"],
    "clv": ["vectors", "states", "loss", "coefficients", "early_vectors", "frame_growth"],
    "training_jacobian": ["left", "right", "n_near"],
    "ensemble": ["states", "losses", "path_lengths", "growth_slope"],
    "sharpness": ["residual", "missed", "n_products", "vector"],
    "stability": ["exponent", "score"],
    "train": ["w_initial", "w_final", "state", "snapshots"],
}


def study(name, runs=RUNS, variables=None, grid=None, **more):
    analysis = {"name": name, "variables": variables} | ANALYSES[name] | more
    if grid is None:
        grid = {} if name == "scan" else GRID
    return pl.Study(**(IRIS | {"analysis": analysis, "grid": grid, "runs": runs}))


def by_hand(lr=2.0):
    """The same system, initial weights and test data from functions of the library."""
    X, y, *test = pl.datasets.split(*pl.datasets.iris(), 100, seed=SPLIT)
    net = pl.Network((4, 4, 3), activation="sigmoid", loss="cross_entropy")
    w0 = np.stack(
        [
            net.init("normal", scale=0.5, seed=np.random.SeedSequence(SEED, spawn_key=(0, run)))
            for run in range(RUNS)
        ]
    )
    return pl.TrainingMap(net, X, y, pl.GradientDescent(lr)), w0, (test[0][:30], test[1][:30])


PERTURBATIONS = np.random.SeedSequence(SEED, spawn_key=(1,))


def assert_same(found, expected):
    for name, values in expected.items():
        assert_array_equal(found[name], values, err_msg=name)


# --- the library's numbers ------------------------------------------------------------------------


def test_initial_weights():
    system, w0, _ = by_hand()
    s = study("spectrum")
    assert_array_equal(s.weights((1,), 0, RUNS), w0)
    assert_array_equal(s.weights((0,), 2, 3), w0[2:5])  # the same at any point of the grid
    assert s.system((1,)).optimizer.lr == 2.0
    assert_array_equal(s.system((0,)).X, system.X)


def test_spectrum():
    system, w0, _ = by_hand()
    s = pl.lyapunov_spectrum(system, w0, 60, 3, record_every=5)
    found = study("spectrum").compute((1,), 0, RUNS)
    names = ("status", "exponents", "stderr", "growth", "loss", "n_done")
    assert list(found) == [*names[:5], "final_loss", "n_done"]
    assert_same(found, {name: getattr(s, name) for name in names})
    assert_array_equal(found["final_loss"], s.loss[:, -1])
    found = study("spectrum", variables=ON_REQUEST["spectrum"]).compute((1,), 0, RUNS)
    assert_same(found, {name: getattr(s, name) for name in ON_REQUEST["spectrum"]})
    assert list(found) == ["status", *ON_REQUEST["spectrum"]]


@pytest.mark.parametrize("kind", ["qr", "svd", "clv"])
def test_ftle(kind):
    system, w0, _ = by_hand()
    expected = pl.ftle(system, w0, 60, 20, 8, kind, k=3, n_transient=4)
    s = study("ftle", kind=kind)
    found = s.compute((1,), 0, RUNS)
    final = system.loss(system.trajectory(w0, 64, every=64)[:, -1])
    assert_same(found, {"ftle": expected, "final_loss": final, "status": np.zeros(RUNS)})
    assert_array_equal(s.coords["step"].values, [4, 12, 20, 28, 36, 44])


def test_covariant_vectors():
    system, w0, _ = by_hand()
    c = pl.covariant_lyapunov_vectors(system, w0, 60, 3, every=5, delay=5)
    names = ("status", "exponents", "growth", "residual", "contamination", "early_error", "n_done")
    s = study("clv")
    found = s.compute((1,), 0, RUNS)
    assert_same(found, {name: getattr(c, name) for name in names})
    assert_same(found, {"angles": c.angles(), "final_loss": system.loss(c.states[:, -1])})
    assert list(s.coords["pair"].values) == ["0-1", "0-2", "1-2"]
    asked = ON_REQUEST["clv"]
    found = study("clv", variables=asked).compute((1,), 0, RUNS)
    assert_same(found, {name: getattr(c, name) for name in asked if name != "loss"})
    assert_same(found, {"loss": system.loss(c.states)})
    found = study("clv", variables=["mixing"]).compute((1,), 0, RUNS)  # former name
    assert_same(found, {"mixing": c.contamination})


def test_training_jacobian():
    system, w0, _ = by_hand()
    j = pl.training_jacobian(system, w0, 60, 5)
    s = study("training_jacobian")
    found = s.compute((1,), 0, RUNS)
    counts = j.counts(0.05)
    expected = {"log_singular_values": j.log_singular_values, "error": j.error}
    expected |= {"n_above": counts.above, "n_near": counts.near, "n_below": counts.below}
    final = system.loss(system.trajectory(w0, 60, every=60)[:, -1])
    assert_same(found, expected | {"final_loss": final, "status": np.zeros(RUNS)})
    found = study("training_jacobian", variables=ON_REQUEST["training_jacobian"]).compute(
        (1,), 0, RUNS
    )
    assert_same(found, {"left": j.left, "right": j.right, "n_near": counts.near})


@pytest.mark.parametrize("kind", [None, "critical"])
def test_sharpness(kind):
    system, w0, _ = by_hand()
    expected = pl.sharpness_along(system, w0, 60, 20, kind=kind)
    s = study("sharpness", kind=kind)
    found = s.compute((1,), 0, RUNS)
    names = ("value", "ratio", "threshold", "loss")
    assert_same(found, {name: getattr(expected, name) for name in names})
    assert_same(found, {"final_loss": expected.loss[:, -1], "status": np.zeros(RUNS)})
    assert_array_equal(s.coords["time"].values, [0, 20, 40, 60])
    asked = ["stderr", "upper_threshold"]
    with pytest.raises(ValueError, match=r"variables must be .*'stderr' needs analysis\.kind"):
        study("sharpness", kind=kind, variables=asked)


@pytest.mark.parametrize("eps", [[1e-8, 1e-6], 1e-8])
def test_ensemble(eps):
    system, w0, _ = by_hand()
    options = {"perturb": "weights", "seed": PERTURBATIONS}
    e = pl.perturbation_ensemble(
        system, w0, eps, 3, 60, keep="mean", states=True, losses=True, path_lengths=True, **options
    )
    found = study("ensemble", eps=eps).compute((1,), 0, RUNS)
    growth = pl.growth_rate(e.distances, axis=None)
    for part in ("slope", "stderr", "intercept", "r2", "start", "stop", "saturation"):
        assert_array_equal(found[f"growth_{part}"], getattr(growth, part))
    assert_same(found, {"distances": e.distances, "n_finite": e.n_finite})
    asked = ON_REQUEST["ensemble"]
    found = study("ensemble", eps=eps, variables=asked, method="until_saturation")
    found = found.compute((1,), 0, RUNS)
    assert_same(found, {name: getattr(e, name) for name in asked[:3]})
    assert_array_equal(
        found["growth_slope"], pl.growth_rate(e.distances, "until_saturation", None).slope
    )
    whole = pl.perturbation_ensemble(system, w0, eps, 3, 60, **options)
    found = study("ensemble", eps=eps, keep="all").compute((1,), 0, RUNS)
    assert_same(found, {"distances": whole.distances})
    assert_array_equal(found["growth_slope"], pl.growth_rate(whole.mean, axis=None).slope)


def test_train():
    system, w0, test = by_hand()
    h = pl.train(system, w0, 6, test=test, record_every=2, snapshots=[0, 3])
    curves = ("train_loss", "test_loss", "train_accuracy", "test_accuracy", "deviation", "n_done")
    found = study("train").compute((1,), 0, RUNS)
    assert_same(found, {name: getattr(h, name) for name in (*curves, "status")})
    assert_same(found, {"weights": h.snapshots["weights"]})
    found = study("train", variables=ON_REQUEST["train"], layers=[1]).compute((1,), 0, RUNS)
    assert_same(found, {name: getattr(h, name) for name in ("w_initial", "w_final", "state")})
    assert_array_equal(
        found["layer_1"],
        np.stack([system.network.unpack(w)[1][0] for w in h.snapshots["weights"]]),
    )


def test_train_in_single_precision():
    s = study("train", dtype="float32")
    assert s.system((0,)).dtype == "float32"
    single = s.compute((0,), 0, 2)["train_loss"]
    double = study("train").compute((0,), 0, 2)["train_loss"]
    np.testing.assert_allclose(single, double, rtol=1e-4)
    assert (single != double).any()


def test_scan():
    system, w0, _ = by_hand()
    result = pl.learning_rate_scan(
        system.network, system.X, system.y, LRS, 60, w0=w0, observe=2, n_perturbations=2,
        seed=PERTURBATIONS,
    )  # fmt: skip
    s = study("scan")
    found = s.compute((), 0, RUNS)
    for name in ("loss", "accuracy", "exponent", "growth", "sharpness", "period", "late_loss"):
        assert_array_equal(found[name], np.swapaxes(getattr(result, name), 0, 1))
    assert found["late_weight"].shape == (RUNS, 2, 21)
    assert_array_equal(np.array(pl.REGIMES)[found["regime"]], result.regime.T)
    assert s.variables["regime"].attrs["meaning"].startswith("0 convergent, 1 edge of stability,")
    assert_array_equal(s.coords["lr"].values, LRS)
    rule = study("scan", rule={"edge": 0.1}).compute((), 0, RUNS)
    strict = pl.learning_rate_scan(
        system.network, system.X, system.y, LRS, 60, w0=w0, rule=pl.RegimeRule(edge=0.1),
        n_perturbations=0, seed=PERTURBATIONS,
    )  # fmt: skip
    assert_array_equal(np.array(pl.REGIMES)[rule["regime"]], strict.regime.T)
    assert (strict.regime != result.regime).any()


# --- blocks ---------------------------------------------------------------------------------------

WHOLE = {}


@settings(max_examples=40)
@given(
    st.sampled_from(sorted(ANALYSES)),
    st.lists(st.integers(0, RUNS), max_size=4),
    st.sampled_from([1, 2, None]),
    st.booleans(),
)
def test_bits_do_not_depend_on_blocks_and_threads(name, cuts, threads, asked):
    variables = ON_REQUEST.get(name) if asked else None
    point = () if name == "scan" else (1,)
    if (name, asked) not in WHOLE:
        WHOLE[name, asked] = study(name, variables=variables).compute(point, 0, RUNS)
    other = study(
        name, runs=RUNS + 5, variables=variables
    )  # results do not depend on the number of runs
    borders = [0, *sorted(cuts), RUNS]
    parts = [
        other.compute(point, first, last - first, threads=threads)
        for first, last in pairwise(borders)
    ]
    for key, whole in WHOLE[name, asked].items():
        assert_array_equal(np.concatenate([part[key] for part in parts]), whole)


@pytest.mark.parametrize("name", sorted(ANALYSES))
def test_results_agree_with_the_variables(name):
    s = study(name)
    point = () if name == "scan" else (0,)
    found = s.compute(point, 2, 3)
    assert list(found) == list(s.variables)
    for key, variable in s.variables.items():
        assert found[key].shape == (3, *variable.shape)
        assert found[key].dtype.name == variable.dtype
        assert len(variable.dims) == len(variable.shape)
        for dim, size in zip(variable.dims, variable.shape, strict=True):
            if dim in s.coords:
                assert s.coords[dim].values.shape == (size,)
    assert {d for d in s.coords if d not in s.grid} <= {
        d for v in s.variables.values() for d in v.dims
    }


def test_names_dimensions_and_units_are_those_of_the_datasets():
    system, w0, test = by_hand()
    results = {
        "spectrum": pl.lyapunov_spectrum(system, w0, 60, 3, record_every=5),
        "clv": pl.covariant_lyapunov_vectors(system, w0, 60, 3, every=5, delay=5),
        "training_jacobian": pl.training_jacobian(system, w0, 60, 5),
        "ensemble": pl.perturbation_ensemble(system, w0, [1e-8, 1e-6], 3, 60, keep="mean"),
        "train": pl.train(system, w0, 6, test=test, record_every=2, snapshots=[0, 3]),
    }
    for name, result in results.items():
        dataset = result.to_dataset()
        s = study(name)
        for key in set(s.variables) & set(dataset.data_vars) - {"status"}:
            variable = s.variables[key]
            assert ("run", *variable.dims) == dataset[key].dims
            assert variable.attrs == dataset[key].attrs
        for dim in set(s.coords) - set(s.grid) - {"pair"}:
            assert_array_equal(s.coords[dim].values, dataset.coords[dim].values)
            assert s.coords[dim].attrs == dataset.coords[dim].attrs
    assert study("spectrum").variables["exponents"].attrs == {"units": "nats per step"}


# --- over a grid ----------------------------------------------------------------------------------


def test_shorter_results_are_padded():
    grid = {"network.hidden": [2, 4], "analysis.n_steps": [30, 60]}
    given = IRIS | {
        "network": {"activation": "tanh", "loss": "cross_entropy"},
        "analysis": {"name": "spectrum", "record_every": 10, "variables": ["state", "loss"]},
    }
    s = pl.Study(**given, grid=grid)
    assert s.variables["state"].shape == (35,)
    assert s.variables["loss"].shape == (7,)
    assert_array_equal(s.coords["time"].values, range(0, 61, 10))
    small, large = s.compute((0, 0), 0, 2), s.compute((1, 1), 0, 2)
    assert small["state"].shape == large["state"].shape == (2, 35)
    assert np.isfinite(large["state"]).all()
    assert_array_equal(np.isnan(small["state"]), np.arange(35) >= [[19]] * 2)
    assert_array_equal(np.isnan(small["loss"]), np.arange(7) >= [[4]] * 2)
    alone = pl.Study(**(given | {"network": given["network"] | {"hidden": 2}}
                        | {"analysis": given["analysis"] | {"n_steps": 30}}))  # fmt: skip
    assert_array_equal(small["state"][:, :19], alone.compute((), 0, 2)["state"])
    assert s.cost((0, 0)) < s.cost((0, 1)) < s.cost((1, 1))
    assert s.memory((0, 0)) < s.memory((1, 1))


def test_integers_are_padded_with_minus_one():
    given = IRIS | {"analysis": {"name": "ensemble", "eps": 1e-8, "n_perturbations": 2}}
    s = pl.Study(**given, grid={"analysis.n_steps": [40, 60]})
    found = s.compute((0,), 0, 2)["n_finite"]
    assert found.dtype == np.int64
    assert_array_equal(found, np.where(np.arange(61) <= 40, 2, -1) * np.ones((2, 1), int))


def test_variables_of_some_points_only():
    grid = {"data.test": [0, 30]}
    given = IRIS | {"data": {"name": "iris", "train": 100, "split_seed": SPLIT}}
    s = pl.Study(**given, analysis={"name": "train", "epochs": 3}, grid=grid)
    assert "test_loss" in s.variables
    assert np.isnan(s.compute((0,), 0, 2)["test_loss"]).all()
    assert np.isfinite(s.compute((1,), 0, 2)["test_loss"]).all()


@pytest.mark.parametrize("name", sorted(ANALYSES))
def test_outlines_do_not_depend_on_value_only_keys(name):
    choices = {
        "data.split_seed": [0, 1], "init.kind": ["normal", "uniform"], "init.scale": [0, 1e3],
        "init.biases": [True, False], "optimizer.lr": [0, 1e3], "optimizer.weight_decay": [0, 9],
        "optimizer.shuffle": [True, False], "optimizer.seed": [0, 1], "analysis.seed": [0, 1],
    }  # fmt: skip
    rest = {"data.seed", "optimizer.beta1", "optimizer.beta2", "optimizer.epsilon"}
    assert set(choices) | rest | {f"analysis.{key}" for key in NAMES} == _VALUE_ONLY_KEYS
    if name == "stability":
        choices |= {f"analysis.{key}": [0, 1] for key in ("lr", "momentum", "scale", "offset_1")}
    if name == "scan":
        del choices["optimizer.lr"]
    if name in ("ensemble", "train", "scan"):
        del choices["analysis.seed"]
    for key, values in choices.items():
        given = {table: dict(values) for table, values in IRIS.items() if isinstance(values, dict)}
        given.setdefault("optimizer", {})["batch_size"] = 50
        given["analysis"] = {"name": name} | ANALYSES[name]
        table, _, short = key.partition(".")
        given[table].pop(short, None)
        s = pl.Study(**given, runs=2, grid={key: values})
        one, two = (outline(s._case((i,)), s._names) for i in range(2))
        assert one.variables == two.variables
        assert (one.cost, one.memory) == (two.cost, two.memory)
        for dim, coord in one.coords.items():
            assert_array_equal(coord.values, two.coords[dim].values)


def test_status():
    given = IRIS | {"network": {"hidden": 3, "loss": "mse"}, "data": {"name": "quadratic"}}
    for analysis in (
        {"name": "spectrum", "n_steps": 200, "k": 1, "record_every": 100},
        {"name": "ftle", "n_steps": 200, "k": 1, "window": 100},
        {"name": "clv", "n_steps": 200, "k": 1, "every": 100},
        {"name": "ensemble", "n_steps": 200, "eps": 1e-8, "n_perturbations": 2},
        {"name": "train", "epochs": 200, "record_every": 100},
    ):
        s = pl.Study(**(given | {"analysis": analysis}), grid={"optimizer.lr": [0.1, 1e3]})
        assert_array_equal(s.compute((0,), 0, 3)["status"], 0)
        assert_array_equal(s.compute((1,), 0, 3)["status"], 1)
    scan = {"name": "scan", "lrs": [0.1, 1e3], "n_steps": 200}
    assert_array_equal(pl.Study(**(given | {"analysis": scan})).compute((), 0, 3)["status"], 0)
    scan = {"name": "scan", "lrs": [2e3, 1e3], "n_steps": 200}
    assert_array_equal(pl.Study(**(given | {"analysis": scan})).compute((), 0, 3)["status"], 1)
    tol = {"name": "spectrum", "n_steps": 4000, "k": 1, "record_every": 10, "tol": 1e-2}
    assert 2 in pl.Study(**(given | {"analysis": tol})).compute((), 0, 3)["status"]


# --- around it ------------------------------------------------------------------------------------


def test_a_study_pickles_and_is_small():
    for name in ANALYSES:
        s = study(name)
        point = () if name == "scan" else (1,)
        before = s.compute(point, 0, 2)
        copy = pickle.loads(pickle.dumps(s))
        assert copy == s
        assert hash(copy) == hash(s)
        assert copy.variables == s.variables
        assert_same(copy.compute(point, 0, 2), before)
        assert len(pickle.dumps(s)) < 20_000


@pytest.mark.parametrize("name", ["spectrum", "ensemble", "train"])
def test_threads_may_share_a_study(name):
    s = study(name, grid={"optimizer.lr": [0.5, 1.0, 2.0]})
    tasks = [((point,), first, 1) for first in range(RUNS) for point in range(3)]
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda task: s.compute(*task), tasks))
    for (point, first, _), part in zip(tasks, parts, strict=True):
        assert_same(part, s.compute(point, first, 1))


def test_repr():
    text = repr(study("spectrum"))
    assert text.split("\n") == [
        "Study: spectrum of iris, 7 runs at each of 2 lr",
        "  keeps status, exponents (3), stderr (3), growth (12, 3), loss (13), final_loss, n_done",
    ]


def test_costs_differ_between_points():
    grid = {"network.hidden": [2, 20], "optimizer.lr": [0.1, 1.0], "analysis.k": [1, 5]}
    given = IRIS | {"network": {"loss": "cross_entropy"}}
    s = pl.Study(**given, analysis={"name": "spectrum", "n_steps": 50}, grid=grid)
    assert s.cost((0, 0, 0)) == s.cost((0, 1, 0))
    assert 2 * s.cost((0, 0, 0)) < s.cost((1, 0, 0))
    assert s.cost((1, 0, 0)) < s.cost((1, 0, 1))


@pytest.mark.parametrize(
    ("name", "more", "ratio"),
    [
        ("spectrum", {"n_steps": 120}, 2),
        ("spectrum", {"n_transient": 30}, 1.5),
        ("ftle", {"n_transient": 36}, 1.5),  # 4 before
        ("clv", {"n_transient": 0, "n_tail": 6}, 66 / 84),  # a fifth each before
        ("ensemble", {"n_perturbations": 6}, 13 / 7),  # and the reference
        ("ensemble", {"start": 60}, 8 / 7),
        ("ensemble", {"eps": 1.0}, 4 / 7),
        ("sharpness", {"every": 10}, (60 + 7 * 40) / (60 + 4 * 40)),
        ("stability", {"x_values": [1, 2, 3, 4, 5, 6]}, 2),
        ("stability", {"n_steps": 120}, 2),
        ("train", {"epochs": 12}, 2),
        ("train", {"record_every": 6}, 7 / 9),  # a record takes as long as an epoch
        ("scan", {"lrs": [1, 2, 3]}, 3 / 2),
        ("scan", {"n_steps": 120}, 2),
    ],
)
def test_costs_are_proportional_to_steps(name, more, ratio):
    point = () if name == "scan" else (0,)
    assert study(name, **more).cost(point) / study(name).cost(point) == pytest.approx(ratio)


def test_costs_of_records_and_vectors():
    assert study("spectrum", qr_every=5).cost((0,)) < study("spectrum").cost((0,))
    assert study("clv").cost((0,)) > 2 * study("spectrum").cost((0,))
    assert study("ftle", kind="clv").cost((0,)) > 2 * study("ftle").cost((0,))
    assert study("scan", n_perturbations=0).cost(()) < study("scan").cost(())


def test_group():
    assert study("spectrum").group((0,)) == study("spectrum").system((0,))._runs.group
    assert study("ensemble").group((0,)) == 1


def test_a_million_runs_are_planned_at_once():
    tracemalloc.start()
    begin = time.process_time()
    lrs = {"geomspace": [1e-3, 1, 1000]}
    s = study("spectrum", runs=1000, grid={"optimizer.lr": lrs})
    assert s.shape == (1000,)
    many = study("spectrum", runs=10**9)
    assert time.process_time() - begin < 2.0
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6
    assert many.compute((0,), 10**9 - 1, 1)["status"].shape == (1,)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (((), 0, 1), "point must have 1 indices"),
        (((2,), 0, 1), r"point\[0\] must be in 0 ... 1, got 2"),
        (((0,), -1, 1), "first must be in 0 ... 7, got -1"),
        (((0,), 0, 8), "count must be in 0 ... 7, got 8"),
        (((0,), 5, 3), "count must be in 0 ... 2, got 3"),
    ],
)
def test_invalid_blocks(arguments, says):
    with pytest.raises(ValueError, match=says):
        study("spectrum").compute(*arguments)
