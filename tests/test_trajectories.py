"""How far weights travel: against sums over whole trajectories."""

import sys

import cases
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl


def training(lr=0.3, **more):
    net = pl.Network((3, 4, 2), activation="sigmoid", loss="cross_entropy")
    return pl.TrainingMap(net, *cases.data(net, 14), pl.GradientDescent(lr=lr, **more))


@pytest.mark.parametrize("entries", ["all", "weights", "biases", "mask"])
@pytest.mark.parametrize("piece", [1e8, 1.0])
def test_sums_over_the_whole_path(entries, piece, monkeypatch):
    monkeypatch.setattr(sys.modules["pylyap._weights.travel"], "_AT_ONCE", piece)
    system = training(momentum=0.5, batch_size=5)
    w = cases.weights(system.network, runs=3)
    parts = system.network.unpack(np.arange(26.0))
    weights = np.concatenate([W.ravel() for W, _ in parts]).astype(int)
    biases = np.concatenate([b for _, b in parts]).astype(int)
    chosen = {
        "all": np.arange(26),
        "weights": np.sort(weights),
        "biases": np.sort(biases),
        "mask": np.array([3, 20]),
    }[entries]
    given = np.isin(np.arange(26), chosen) if entries == "mask" else entries
    found = pl.travel(system, w, 12, 4, given, start=2)
    path = system.weights(system.trajectory(w, 12, start=2))[..., chosen]
    moved = np.abs(path[:, -1] - path[:, 0])
    assert_allclose(found.displacement, moved.sum(axis=1) / np.abs(path[:, 0]).sum(axis=1))
    assert_allclose(found.weight_displacement, moved / np.abs(path[:, 0]))
    assert_allclose(found.path_length, np.abs(np.diff(path, axis=1)).sum(axis=1), rtol=1e-12)
    assert_allclose(found.norm, np.abs(path[:, ::4]).sum(axis=-1))
    assert_array_equal(found.steps, [2, 6, 10, 14])
    assert (found.path_length >= moved * (1 - 1e-12)).all()


def test_rates_make_a_batch_zeros_and_divergence():
    system = training(lr=[0.1, 0.5])
    w = cases.weights(system.network)
    w[5] = 0.0
    found = pl.travel(system, w, 6, 3)
    assert found.displacement.shape == (2,)
    assert np.isnan(found.weight_displacement[:, 5]).all()
    assert np.isfinite(np.delete(found.weight_displacement, 5, axis=1)).all()
    net = pl.Network((2, 4, 1), activation="relu")
    wild = pl.TrainingMap(net, *cases.data(net, 20), pl.GradientDescent(lr=[0.05, 3e2]))
    lost = pl.travel(wild, cases.weights(net, 0.5, runs=2), 100, 50)
    assert np.isfinite(lost.norm[0]).all()
    assert np.isnan(lost.norm[1, -1])
    assert np.isnan(lost.displacement[1])


def test_knock_out():
    system = training(lr=[0.1, 0.5])
    w = cases.weights(system.network, runs=2)
    for layer, shape in ((0, (4, 3)), (1, (2, 4))):
        ratios = pl.knock_out(system, w, layer)
        assert ratios.shape == (2, *shape)
        for r, i, j in np.ndindex(ratios.shape):
            parts = [(W.copy(), b.copy()) for W, b in system.network.unpack(w[r])]
            parts[layer][0][i, j] = 0.0
            plain = training()
            expected = plain.loss(system.network.pack(parts)) / plain.loss(w[r])
            assert_allclose(ratios[r, i, j], expected, rtol=1e-13)
    assert pl.knock_out(system, w[0]).shape == (4, 3)


@pytest.mark.parametrize("shape", [(0,), (2, 0)])
def test_no_runs_at_all(shape):
    system = training()
    empty = np.empty((*shape, 26))
    found = pl.travel(system, empty, 12, 4, "biases")
    assert found.displacement.shape == shape
    assert found.weight_displacement.shape == found.path_length.shape == (*shape, 6)
    assert found.norm.shape == (*shape, 4)
    assert pl.knock_out(system, empty, 1).shape == (*shape, 2, 4)


BAD = {
    "every": ({"every": 5}, "every must divide n_steps=12, got 5"),
    "every 0": ({"every": 0}, "every must be at least 1"),
    "entries": ({"entries": "bias"}, "entries must be"),
    "size": ({"entries": np.ones(25, bool)}, "mask of shape"),
    "type": ({"entries": np.ones(26)}, "mask of shape"),
    "none": ({"entries": np.zeros(26, bool)}, "at least one parameter"),
    "ragged": ({"entries": [[True], [True, False]]}, "entries must be"),
    "nothing": ({"entries": None}, "entries must be"),
    "system": ({"system": pl.Network((2, 3, 1))}, "system must be a TrainingMap"),
    "shape": ({"w0": np.zeros(25)}, r"w0 must have shape \(..., 26\)"),
    "number": ({"w0": 1.0}, "w0 must have shape"),
    "words": ({"w0": "weights"}, "w0 must be real numbers"),
    "infinite": ({"w0": np.full(26, np.inf)}, "w0 must not be infinite"),
    "rows": ({"w0": [[1.0], [1.0, 2.0]]}, "w0 must be a rectangular array"),
    "steps": ({"n_steps": 0}, "n_steps must be at least 1"),
    "float": ({"n_steps": 12.0}, "n_steps must be an integer"),
    "many": ({"n_steps": 10**14}, "norms of 1 runs at .* would take"),
    "start": ({"start": -1}, "start must be at least 0"),
    "threads": ({"threads": 0}, "threads must be at least 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    more, message = BAD[case]
    system = training()
    options = {"system": system, "w0": cases.weights(system.network), "n_steps": 12} | more
    with pytest.raises((ValueError, TypeError), match=message):
        pl.travel(**options)


BAD_KNOCKS = {
    "layer": ({"layer": 2}, r"layer must be in 0 \.\.\. 1"),
    "negative": ({"layer": -1}, "layer must be in"),
    "float": ({"layer": 1.0}, "layer must be an integer"),
    "system": ({"system": cases.henon()}, "system must have a method loss for knock_out"),
    "shape": ({"w": np.zeros(25)}, r"w must have shape \(..., 26\)"),
    "words": ({"w": ["a"] * 26}, "w must be real numbers"),
    "infinite": ({"w": np.full(26, -np.inf)}, "w must not be infinite"),
}


@pytest.mark.parametrize("case", BAD_KNOCKS)
def test_bad_input_of_knock_out(case):
    more, message = BAD_KNOCKS[case]
    system = training()
    with pytest.raises((ValueError, TypeError), match=message):
        pl.knock_out(**{"system": system, "w": cases.weights(system.network)} | more)
