"""The study of the border of trainability, at small sizes."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl

pytest.importorskip("matplotlib")

from pylyap.cli import run
from pylyap.papers import sohldickstein2024 as study
from pylyap.papers.sohldickstein2024 import __main__ as command
from pylyap.papers.sohldickstein2024.task import _draws

SMALL = {"shape": (17, 12), "n_steps": 30}


@pytest.mark.parametrize("name", study.CONDITIONS)
def test_the_training_is_that_of_the_published_equations(name):
    """Ŷ = W₁σ(α₀W₀x)/n and the mean of (Ŷ − y)², one step at the rates η₀ and η₁."""
    system, w0 = study.Task().system(name)
    condition, draws, n = study.CONDITIONS[name], _draws(), 16
    rates = np.array([0.7, 3.0])
    optimizer = pl.GradientDescent(
        lr=1.0, layer_scale=rates * system.optimizer.layer_scale, bias_scale=0,
        batch_size=condition.batch_size,
    )  # fmt: skip
    one = pl.TrainingMap(system.network, system.X, system.y, optimizer)
    X, y, W, u = system.X, system.y, draws["W0"], draws["W1"]
    alpha = np.sqrt((1 if name == "linear" else 2) / n)
    f, df = {
        "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
        "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0).astype(float)),
        "identity": (lambda z: z, np.ones_like),
    }[condition.activation]
    z = alpha * X @ W.T
    assert_allclose(2 * system.loss(w0), ((f(z) @ u / n - y) ** 2).mean(), rtol=1e-13)
    rows = one.batch(0)
    z, error = z[rows], f(z[rows]) @ u / n - y[rows]
    du = 2 / len(rows) * error @ f(z) / n
    dW = 2 / len(rows) * ((error[:, np.newaxis] * u / n * df(z)).T @ X[rows]) * alpha
    (V, b), (v, c) = system.network.unpack(one.step(w0))
    assert_allclose(V, alpha * (W - rates[0] * dW), rtol=0, atol=1e-13)
    assert_allclose(v[0], (u - rates[1] * du) / n, rtol=0, atol=1e-13)
    assert_array_equal(np.concatenate([b, c]), 0.0)


@pytest.mark.slow  # JAX takes seconds to import
def test_weights_and_data_are_those_of_the_notebook():
    jax = pytest.importorskip("jax")
    old = jax.config.jax_threefry_partitionable
    jax.config.update("jax_threefry_partitionable", False)  # as in 2024
    try:
        with jax.enable_x64(True):
            for N in (272, 16, 1):
                key, part = jax.random.split(jax.random.PRNGKey(0))
                layers = jax.random.split(part, 2)
                W0 = jax.random.normal(layers[0], (16, 16), float)
                W1 = jax.random.normal(layers[1], (16, 1), float)
                key, part = jax.random.split(key)
                X = jax.random.normal(part, (N, 16), float)
                _, part = jax.random.split(key)
                y = jax.random.normal(part, (N, 1), float)
                draws = _draws()
                pairs = (W0.T, "W0"), (W1[:, 0], "W1"), (X, f"X{N}"), (y[:, 0], f"y{N}")
                for expected, name in pairs:
                    assert_allclose(draws[name], expected, rtol=1e-13, err_msg=name)
    finally:
        jax.config.update("jax_threefry_partitionable", old)


def test_maps_are_stored(tmp_path):
    task = study.Task(checkpoints=tmp_path / "maps")
    found = study.landscape(task, **SMALL)
    assert found.converged.shape == (17, 12)
    assert (found.x[0], found.x[-1]) == study.RATES
    assert len(list(task.checkpoints.iterdir())) == 1
    assert_array_equal(study.landscape(task, **SMALL).score, found.score)


def test_zooms_are_in_the_border():
    whole = study.landscape(study.Task(), shape=(25, 25), n_steps=30)
    found = study.zooms(whole, study.Task(), n_zooms=1, shape=(9, 9), n_steps=30)
    ((left, right), (_, high)), near = found.regions[0], found.maps[1]
    assert whole.x[0] <= left < right <= whole.x[-1]
    assert (near.x[0], near.y[-1]) == (left, high)
    assert_allclose(np.log(right / left), np.log(1e9) / 8, rtol=1e-9)  # an eighth of the range
    assert 0 < near.converged.sum() < near.converged.size


def test_a_map_without_a_border_has_no_zoom():
    flat = study.landscape(study.Task(), region=((1e-3, 1e-2), (1e-3, 1e-2)), **SMALL)
    assert study.zooms(flat, study.Task()).maps == (flat,)


@pytest.mark.slow
def test_the_command_draws_all_figures_and_prints_published_values(tmp_path, capsys):
    assert run(command.command, ["--output", str(tmp_path), "--quick"], command.NAME) == 0
    for name in study.FIGURES:
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    text = capsys.readouterr().out
    assert "1.66" in text
    assert "dimension, one sample, zoom 1" in text


@pytest.mark.parametrize("name", study.OFFSETS)
def test_offsets_are_those_of_the_published_equations(name):
    """W₀ ← W₀ + μ once or before every step, and one rate η for both layers."""
    region, steps = ((1e-2, 10.0), (1.0, 1e3)), 12
    found = study.offset(study.Task(), name, region=region, shape=(3, 4), n_steps=steps)
    assert found.dims == ("lr", "offset")
    assert (found.x[0], found.x[-1], found.y[0], found.y[-1]) == (1e-2, 10.0, 1.0, 1e3)
    draws, n = _draws(), 16
    X, y, alpha = draws["X272"], draws["y272"], np.sqrt(2 / n)
    for i, rate in enumerate(found.y):
        for j, offset in enumerate(found.x):
            W, u, losses = draws["W0"], draws["W1"], []
            for t in range(steps):
                if t == 0 or study.OFFSETS[name]:
                    W = W + offset
                h = np.tanh(alpha * X @ W.T)
                error = h @ u / n - y
                losses.append((error**2).mean())
                dW = 2 * alpha / len(y) * ((error[:, np.newaxis] * u / n * (1 - h**2)).T @ X)
                W, u = W - rate * dW, u - rate * 2 / len(y) * error @ h / n
            v = np.minimum(np.array(losses) / losses[0], 1e6)
            assert found.converged[i, j] == (v.mean() < 1)
            expected = -v.sum() if v.mean() < 1 else (1 / v).sum()
            assert_allclose(found.score[i, j], expected, rtol=1e-6)


def test_maps_with_an_offset_are_stored_and_zoomed(tmp_path):
    task = study.Task(checkpoints=tmp_path / "maps")
    found = study.offsets(task, shape=(17, 17), n_zooms=1, n_steps=30)
    assert list(found) == list(study.OFFSETS)
    assert len(list(task.checkpoints.iterdir())) == 4
    for name, each in found.items():
        assert 0 < each.maps[0].converged.mean() < 1
        assert (each.maps[1].x[0], each.maps[1].x[-1]) == each.regions[0][0]
        again = study.offset(task, name, shape=(17, 17), n_steps=30)
        assert_array_equal(again.score, each.maps[0].score)
    assert not (found["offset"].maps[0].score == found["offset at every step"].maps[0].score).all()


def test_the_tangent_of_the_drifting_training_is_its_derivative():
    made, start = study.Task().drifting()(0.1, 3.0)
    direction = np.random.default_rng(0).normal(size=len(start))
    direction[-1] = 0.0  # the rate is given
    small = 1e-6 * direction
    difference = (made.step(start + small) - made.step(start - small)) / 2e-6
    assert_allclose(made.tangent(start, direction[:, np.newaxis])[:, 0], difference, atol=1e-7)
