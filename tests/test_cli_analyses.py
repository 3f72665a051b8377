"""Commands of the analyses: what they print and write is what the library computes."""

import csv
import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl
from pylyap._thresholds import KINDS

# ------------------------------------------------------------------------------ covariant vectors

VECTORS = (
    "clv --data quadratic --hidden 3 --runs 3 --lr 0.1,0.5 -k 3 "
    "--steps 40 --every 10 --transient 20 --tail 30 --delay 20"
)


def test_clv_prints_a_row_for_each_vector_and_writes_what_the_library_computes(table, tmp_path):
    numbers, rows = tmp_path / "v.npz", tmp_path / "v.csv"
    text = table(*VECTORS.split(), "--output", numbers)
    head = next(line for line in text.splitlines() if "gap to next" in line)
    for column in ("lr", "vector", "growth", "contamination", "residual", "angle", "early error"):
        assert column in head
    assert sum(line.split()[0] == "2" for line in text.splitlines() if line.split()) == 2
    net = pl.Network((2, 3, 1), activation="tanh", loss="mse")
    X, y = pl.datasets.quadratic()
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=[[0.1], [0.5]]))
    w = net.init("he_normal", runs=3, seed=0)
    c = pl.covariant_lyapunov_vectors(
        system, w, 40, 3, n_transient=20, n_tail=30, every=10, delay=20
    )
    with np.load(numbers) as written:
        for name in ("vectors", "growth", "residual", "early_vectors", "early_error", "steps"):
            assert_array_equal(written[name], getattr(c, name))
        assert json.loads(str(written["settings"]))["delay"] == 20
    table(*VECTORS.split(), "--output", rows)
    with rows.open() as file:
        content = list(csv.DictReader(file))
    assert len(content) == 6
    medians = [np.median(c.exponents[i, :, v]) for i in range(2) for v in range(3)]
    assert_allclose([float(row["exponent"]) for row in content], medians)


@pytest.mark.parametrize("suffix", ["json", "nc", "png"])
def test_clv_writes_other_files(table, tmp_path, suffix):
    target = tmp_path / f"v.{suffix}"
    if suffix == "nc":
        xarray = pytest.importorskip("xarray")
        pytest.importorskip("h5netcdf")
    if suffix == "png":
        pytest.importorskip("matplotlib")
    option = "--plot" if suffix == "png" else "--output"
    table(*VECTORS.split(), option, target)
    if suffix == "json":
        assert len(json.loads(target.read_text())["vectors"]) == 6
    elif suffix == "nc":
        with xarray.open_dataset(target, engine="h5netcdf") as data:
            assert dict(data.sizes)["lr"] == 2
            assert data["early_error"].dims == ("lr", "run", "time", "vector")
    else:
        assert target.read_bytes().startswith(b"\x89PNG")


# ------------------------------------------------------------------------------ training Jacobian


def test_jacobian_prints_counts_and_writes_what_the_library_computes(table, tmp_path):
    numbers, rows = tmp_path / "j.npz", tmp_path / "j.csv"
    command = "jacobian --data quadratic --hidden 3 --runs 3 --lr 0.1,1e6 --momentum 0.5 --steps 40"
    text = table(*command.split(), "--width", "0.05", "--output", numbers)
    assert "1e+06 (3/3 diverged)" in text
    net = pl.Network((2, 3, 1), activation="tanh", loss="mse")
    X, y = pl.datasets.quadratic()
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=[[0.1], [1e6]], momentum=0.5))
    j = pl.training_jacobian(system, net.init("he_normal", runs=3, seed=0), 40, of="parameters")
    with np.load(numbers) as written:
        for name in ("log_singular_values", "left", "right", "error"):
            assert_array_equal(written[name], getattr(j, name))
        assert json.loads(str(written["settings"]))["width"] == 0.05
    table(*command.split(), "--output", rows)
    with rows.open() as file:
        first, second = csv.DictReader(file)
    assert float(first["near"]) == np.median(j.counts().near[0])
    assert_allclose(float(first["ln_largest"]), np.median(j.log_singular_values[0, :, 0]))
    assert (second["diverged"], second["above"]) == ("3", "nan")


def test_jacobian_compares_the_directions_near_1_of_different_runs(table, tmp_path):
    file = tmp_path / "j.json"
    command = "jacobian --data quadratic --hidden 5 --runs 3 --lr 0.1,1e6 --steps 100 --width 0.5"
    text = table(*command.split(), "--overlap", "--output", file)
    net = pl.Network((2, 5, 1), activation="tanh", loss="mse")
    system = pl.TrainingMap(net, *pl.datasets.quadratic(), pl.GradientDescent(lr=0.1))
    j = pl.training_jacobian(system, net.init("he_normal", runs=3, seed=0), 100, of="parameters")
    bulks = [j.right[r][:, np.abs(j.log_singular_values[r]) <= 0.5] for r in range(3)]
    found = [pl.subspace_overlap(bulks[0], bulks[1]), pl.subspace_overlap(bulks[1], bulks[2])]
    mean, chance = np.mean([f.overlap for f in found]), np.mean([f.expected for f in found])
    assert f"{mean:.3f} ({chance:.3f})" in text
    first, second = json.loads(file.read_text())["runs"]
    assert_allclose([first["overlap"], first["random_overlap"]], [mean, chance], rtol=1e-12)
    assert second["overlap"] is None  # all runs of this rate diverged
    assert "overlap" not in table(*command.split())


# -------------------------------------------------------------------------------------- sharpness

EDGE = "sharpness --data quadratic --hidden 3 --runs 3 --lr 0.5,1e6 --steps 60 --every 5"


def edge(optimizer, **options):
    net = pl.Network((2, 3, 1), activation="tanh", loss="mse")
    system = pl.TrainingMap(net, *pl.datasets.quadratic(), optimizer)
    return pl.sharpness_along(system, net.init("he_normal", runs=3, seed=0), 60, 5, **options)


def test_sharpness_prints_and_writes_what_the_library_computes(table, tmp_path):
    numbers, rows, file = (tmp_path / f"s.{suffix}" for suffix in ("npz", "csv", "json"))
    text = table(*EDGE.split(), "--momentum", "0.5", "--output", numbers)
    for column in ("first", "last", "threshold", "ratio", "late ratio", "final loss"):
        assert column in text
    assert "Largest eigenvalue of the Hessian" in text
    s = edge(pl.GradientDescent(lr=[[0.5], [1e6]], momentum=0.5))
    with np.load(numbers) as written:
        for name in ("value", "ratio", "threshold", "loss", "steps", "vector", "missed"):
            assert_array_equal(written[name], getattr(s, name))
        assert_array_equal(written["lr"], [0.5, 1e6])
        assert json.loads(str(written["settings"]))["every"] == 5
    table(*EDGE.split(), "--momentum", "0.5", "--output", rows)
    with rows.open() as stream:
        content = list(csv.DictReader(stream))
    assert [row["step"] for row in content[:13]] == [str(5 * i) for i in range(13)]
    assert_array_equal([float(row["ratio"]) for row in content], s.ratio.ravel())
    assert_array_equal([float(row["loss"]) for row in content], s.loss.ravel())
    table(*EDGE.split(), "--momentum", "0.5", "--output", file)
    first, second = json.loads(file.read_text())["rows"]
    assert_allclose(first["threshold"], 2 * 1.5 / 0.5)
    assert first["late_ratio"] == np.median(np.median(s.ratio[0, :, 6:], axis=1))
    assert first["last"] == np.median(s.value[0, :, -1])
    reached = s.ratio[1] >= 1
    assert second["reached"] == reached.any(axis=1).sum() == 3
    assert second["reached_at"] == np.median(5 * reached.argmax(axis=1))
    assert second["diverged"] == np.isnan(s.value[1, :, -1]).sum()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("optimizer", ["gd", "adam"])
def test_kinds_of_sharpness_are_those_of_the_library(table, tmp_path, kind, optimizer):
    file = tmp_path / "s.npz"
    options = f"--lr 0.1 --batch-size 25 --optimizer {optimizer} --kind {kind}"
    text = table(*EDGE.split(), *options.split(), "--output", file)
    make = {"gd": pl.GradientDescent, "adam": pl.Adam}[optimizer]
    s = edge(make(lr=0.1, batch_size=25), kind=kind)
    with np.load(file) as written:
        assert json.loads(str(written["settings"]))["kind"] == kind
        assert_array_equal(written["value"][0], s.value)
        assert_array_equal(written["ratio"][0], s.ratio)
    unknown = optimizer == "adam" and kind in ("hessian", "batch")
    assert (f"No threshold of kind {kind} is known" in text) == unknown
    assert ("late ratio" in text) != unknown


def test_sharpness_takes_the_kind_of_the_threshold_and_says_what_has_not_converged(table, tmp_path):
    file = tmp_path / "s.csv"
    text = table(*EDGE.split(), "--optimizer", "adam", "--lr", "0.1", "--max-products", "2")
    assert "Largest eigenvalue of the preconditioned Hessian" in text
    s = edge(pl.Adam(lr=0.1), max_products=2)
    count = (s.missed > 1e-6).sum()
    assert f"{count} of 39 eigenvalues have not converged" in text
    options = "--kind batch --batches 3 --batch-size 10 --momentum 0.9 --lr 0.1"
    text = table(*EDGE.split(), *options.split(), "--output", file)
    assert "The threshold is that of small batches" in text
    s = edge(pl.GradientDescent(lr=0.1, momentum=0.9, batch_size=10), kind="batch", n_batches=3)
    with file.open() as stream:
        content = list(csv.DictReader(stream))
    assert_array_equal([float(row["stderr"]) for row in content], s.stderr.ravel())
    assert_allclose([float(row["upper_threshold"]) for row in content], 2 * 1.9 / 0.1)


def test_sharpness_draws_and_writes_a_dataset(table, tmp_path):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    pytest.importorskip("matplotlib")
    picture, ratio, data = (tmp_path / name for name in ("edge.png", "ratio.png", "s.nc"))
    table(*EDGE.split(), "--plot", picture, "--ratio", ratio, "--output", data)
    for path in (picture, ratio):
        assert path.read_bytes().startswith(b"\x89PNG")
    with xarray.open_dataset(data, engine="h5netcdf") as written:
        assert written["ratio"].dims == ("lr", "run", "time")
        assert_array_equal(written["lr"], [0.5, 1e6])


# ------------------------------------------------------------------------------------- prediction

SKILL = (
    "predict --runs 60 --steps 400 --until 100 --window 25 --delay 25 --activation tanh,relu -k 3"
)


def test_predict_prints_and_writes_curves_for_each_activation(table, tmp_path):
    rows, content, picture = (tmp_path / f"skill.{suffix}" for suffix in ("csv", "json", "png"))
    text = table(*SKILL.split(), "--output", rows)
    assert text.count("Area under the ROC curve") == 2
    assert " ".join(text.split()).count("steps per run with low final loss") == 4
    with rows.open() as file:
        written = list(csv.DictReader(file))
    indicators = {row["indicator"] for row in written}
    assert indicators == {
        *(f"FTLE {i}" for i in (1, 2, 3)),
        "sum of FTLEs",
        "smallest angle",
        "loss",
    }
    steps = {row["known_at_step"] for row in written if row["indicator"] == "smallest angle"}
    assert steps == {"50", "75", "100", "125"}  # the delay counts

    net = pl.Network((2, 3, 1), activation="tanh", loss="mse")
    system = pl.TrainingMap(net, *pl.datasets.quadratic(), pl.GradientDescent(lr=0.1))
    w = net.init("he_normal", runs=60, seed=0)
    final = system.loss(system.trajectory(w, 400, every=400)[:, -1])
    early = system.loss(system.trajectory(w, 100, every=100)[:, -1])
    skill = pl.prediction_skill(early, final)
    last = [r for r in written if r["indicator"] == "loss" and r["activation"] == "tanh"][-1]
    assert_allclose([float(last[name]) for name in ("auc", "low", "high")],
                    [skill.auc, skill.low, skill.high], rtol=1e-9)  # fmt: skip

    table(*SKILL.split(), "--output", content)
    cases = json.loads(content.read_text())
    assert [case["settings"]["activation"] for case in cases] == ["tanh", "relu"]
    assert cases[0]["n_low"] + cases[0]["n_high"] == 60
    assert set(cases[0]["policies"]) == {"the loss", "exponents and angles"}
    pytest.importorskip("matplotlib")
    table(*SKILL.split(), "--plot", picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


# ------------------------------------------------------------------------------------- ensembles

COPIES = "ensemble --hidden 3 --runs 4 --lr 0.1,5 --eps 1e-9,1e-6 --perturbations 3 --steps 60"


def test_ensemble_prints_and_writes_growth_for_each_rate_and_size(table, tmp_path):
    numbers, rows = tmp_path / "copies.npz", tmp_path / "copies.csv"
    text = table(*COPIES.split(), "--output", numbers)
    assert "to saturation" in text
    net = pl.Network((4, 3, 3), activation="sigmoid", loss="cross_entropy")
    X, y = pl.datasets.iris()
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=[[0.1], [5.0]]))
    w = net.init("normal", runs=4, seed=0)
    e = pl.perturbation_ensemble(system, w, [1e-9, 1e-6], 3, 60, perturb="weights", keep="mean")
    with np.load(numbers) as written:
        assert_array_equal(written["distances"], e.distances)
        assert_array_equal(written["slope"], pl.growth_rate(e.mean, axis=None).slope)
        s = pl.lyapunov_spectrum(system, w, 60, 1)
        assert_array_equal(written["exponent"], s.exponents[..., 0])
    table(*COPIES.split(), "--output", rows)
    with rows.open() as file:
        content = list(csv.DictReader(file))
    assert [(float(r["lr"]), float(r["eps"])) for r in content] == [
        (0.1, 1e-9), (0.1, 1e-6), (5, 1e-9), (5, 1e-6),
    ]  # fmt: skip
    pytest.importorskip("matplotlib")
    picture = tmp_path / "copies.png"
    table(*COPIES.split(), "--plot", picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


# ------------------------------------------------------------------------------------------ scans

SCAN = "scan --hidden 3 --runs 3 --lr 0.1:10:3 --steps 60 --late 20 --perturbations 2"


def test_scan_prints_and_writes_what_the_library_finds(table, tmp_path):
    numbers, rows, file = (tmp_path / f"scan.{suffix}" for suffix in ("npz", "csv", "json"))
    text = table(*SCAN.split(), "--output", numbers)
    assert "regime" in text
    net = pl.Network((4, 3, 3), activation="sigmoid", loss="cross_entropy")
    X, y = pl.datasets.iris()
    w = net.init("normal", runs=3, seed=0)
    found = pl.learning_rate_scan(
        net, X, y, np.geomspace(0.1, 10, 3), 60, w0=w, n_late=20, n_perturbations=2
    )
    with np.load(numbers) as written:
        for name in ("lr", "loss", "exponent", "growth", "regime", "late_loss"):
            assert_array_equal(written[name], getattr(found, name))
    table(*SCAN.split(), "--output", rows)
    with rows.open() as stream:
        content = list(csv.DictReader(stream))
    assert_allclose([float(row["loss"]) for row in content], np.median(found.loss, axis=1))
    table(*SCAN.split(), "--output", file)
    assert len(json.loads(file.read_text())["rows"]) == 3


def test_scan_draws_and_writes_a_dataset(table, tmp_path):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    pytest.importorskip("matplotlib")
    picture, diagram, data = (tmp_path / n for n in ("scan.png", "diagram.png", "scan.nc"))
    options = ("--plot", picture, "--bifurcation", diagram, "--output", data, "--observe", "2")
    table(*SCAN.split(), *options)
    for path in (picture, diagram):
        assert path.read_bytes().startswith(b"\x89PNG")
    with xarray.open_dataset(data, engine="h5netcdf") as written:
        assert dict(written.sizes) == {"lr": 3, "run": 3, "time": 21}
        assert set(written["regime"].values.ravel()) <= set(pl.REGIMES)


# ------------------------------------------------------------------------------------------- maps

MAP = "map --hidden 3 --x lr_0:0.1:1000:log --y momentum:0,0.5,0.9 --shape 9x12 --steps 40"


def test_map_prints_and_writes_what_the_library_finds(table, tmp_path):
    numbers, file = tmp_path / "m.npz", tmp_path / "m.json"
    text = table(*MAP.split(), "--exponent", "--lr", "0.5", "--output", numbers)
    net = pl.Network((4, 3, 3), activation="sigmoid", loss="cross_entropy")
    system = pl.TrainingMap(net, *pl.datasets.iris(), pl.GradientDescent(lr=0.5))
    found = pl.stability_map(
        system, ("lr_0", (0.1, 1000.0, "log")), ("momentum", [0.0, 0.5, 0.9]), (9, 12), 40,
        w0=net.init("normal", seed=0, runs=1)[0], exponent=True,
    )  # fmt: skip
    assert f"{100 * found.converged.mean():.3g}%" in text
    assert "3 × 12 runs: momentum 0 ... 0.9 by lr_0 0.1 ... 1e+03." in text
    with np.load(numbers) as written:
        for name in ("converged", "score", "exponent", "steps_used", "x", "y"):
            assert_array_equal(written[name], getattr(found, name))
    table(*MAP.split(), "--output", file)
    rows = json.loads(file.read_text())["rows"]
    assert [row["quantity"] for row in rows][-1] == "uncertainty exponent"


def test_map_writes_a_file_that_load_reads(table, tmp_path):
    pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    table(*MAP.split(), "--output", tmp_path / "m.nc")
    assert pl.load(tmp_path / "m.nc").dims == ("momentum", "lr_0")
