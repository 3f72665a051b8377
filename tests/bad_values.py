"""Every public function with about a hundred kinds of bad values in place of each argument.

    python tests/bad_values.py [NAME ...]

prints what is neither accepted nor refused as it should be: by a ValueError or TypeError (of paths,
an OSError) of one line that names the argument, without a warning, within some seconds.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.util
import inspect
import os
import re
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import pylyap as pl
from pylyap import plotting

SECONDS = 20  # that a call may take

# --- valid calls ------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(6, 2)), RNG.normal(size=6)
LABELS = np.array([0, 1, 2, 0, 1, 2])
NET = pl.Network((2, 3, 1))
CLASSES = pl.Network((2, 3, 3), loss="cross_entropy")
TWO = pl.Network((2, 3, 3, 1))
W = NET.init("normal", runs=2, seed=0)
SYSTEM = pl.TrainingMap(NET, X, Y, pl.GradientDescent(lr=0.1))
MASK = np.eye(3, 2) > 0


def turn(x: Any) -> Any:
    return np.array([0.5 * x[0], 2.0 * x[1] % 1.0])


def slope(x: Any) -> Any:
    return np.diag([0.5, 2.0])


def square(z: Any) -> Any:
    return z * z


def double(z: Any) -> Any:
    return 2.0 * z


def two(z: Any) -> Any:
    return 2.0


def push(x: Any, V: Any) -> Any:
    return np.array([0.5, 2.0])[:, np.newaxis] * V


def turn_all(X: Any) -> Any:
    return np.stack([0.5 * X[:, 0], 2.0 * X[:, 1] % 1.0], axis=1)


def push_all(X: Any, V: Any) -> Any:
    return np.array([0.5, 2.0])[:, np.newaxis] * V


@np.errstate(over="ignore")
def potential(x: Any) -> Any:
    return x @ x


MAP = pl.DiscreteMap(turn, slope, 2)
PROJECTED = pl.ProjectedMap(SYSTEM, np.eye(SYSTEM.n_params)[:, :2])


def at_two_numbers(a: float, b: float) -> Any:
    return MAP, [a, b]


# A gradient transformation as optax defines it, without optax
GRADIENT = SimpleNamespace(
    init=lambda params: (), update=lambda gradient, state, params: (-0.1 * gradient, state)
)
LOSSY = pl.DiscreteMap(
    turn, n=2, tangent=push, loss=potential, gradient=double, hessian_vector=push
)
BATCHES = pl.DiscreteMap(turn_all, n=2, tangent=push_all, vectorized=True)


@cache
def made(name: str) -> Any:
    """Results that other calls take."""
    w = NET.init("normal", runs=8, seed=1)
    net = pl.Network((2, 4, 1), activation="tanh")
    return {
        "spectrum": lambda: pl.lyapunov_spectrum(SYSTEM, w, 40, 3),
        "covariant": lambda: pl.covariant_lyapunov_vectors(SYSTEM, W, 8, 3, 4, 4),
        "ensemble": lambda: pl.perturbation_ensemble(SYSTEM, W, 1e-8, 3, 40),
        "growth": lambda: pl.compare_growth(SYSTEM, W, [1e-8, 1e-4], 2, 40),
        "scan": lambda: pl.learning_rate_scan(NET, X, Y, [0.1, 1.0], 40, runs=2, observe=1),
        "deviation": lambda: pl.weight_deviation(w, 2.0 * w, NET, bins=4),
        "along": lambda: pl.weight_deviation(w, np.stack([w, 2.0 * w, 3.0 * w], 1), NET, bins=4),
        "joint": lambda: pl.joint_histogram(w, 2.0 * w, NET, bins=4),
        "travel": lambda: pl.travel(SYSTEM, W, 20),
        "history": lambda: pl.train(SYSTEM, w, 6),
        "skill": lambda: pl.prediction_skill(INDICATOR, LOSSES),
        "curve": lambda: pl.prediction_curve(made("spectrum")),
        "rates": lambda: pl.expansion_rates(SERIES, 0.5, 20, 12),
        "correlation": lambda: pl.autocorrelation(SERIES, 10, 20),
        "along a run": lambda: pl.sharpness_along(SYSTEM, W, 6),
        "trainability": lambda: pl.trainability([
            pl.train(pl.TrainingMap(n, X, Y, pl.GradientDescent()), n.init(runs=3), 6)
            for n in (NET, net)
        ]),
        "study": lambda: pl.Study(**STUDY),
        "rate": lambda: pl.growth_rate(DISTANCES, axis=None),
        "law": lambda: pl.growth_law(DISTANCES, axis=None),
        "hessian": lambda: pl.hessian_spectrum(SYSTEM, W),
        "hyperbolicity": lambda: made("covariant").hyperbolicity(1),
        "map": lambda: pl.stability_map(SYSTEM, ("lr", [0.1, 1.0]), ("scale", [0.5, 1.0])),
        "policy": lambda: pl.restart_policy(INDICATOR, LOSSES, 5, 50, folds=2),
    }[name]()  # fmt: skip


SERIES = RNG.normal(size=120).cumsum() * 0.1
INDICATOR = np.linspace(0.0, 1.0, 20)
LOSSES = INDICATOR[::-1] + 0.3 * np.sin(9.0 * INDICATOR)
DISTANCES = 1e-8 * np.exp(0.2 * np.arange(60.0)) * np.ones((3, 1))
STUDY: dict[str, Any] = {
    "data": {"name": "quadratic", "n": 10},
    "network": {"hidden": 2},
    "analysis": {"name": "spectrum", "n_steps": 4},
    "runs": 2,
    "grid": {"optimizer.lr": [0.1, 0.2]},
}


@cache
def folder() -> Path:
    """A study that is done, and files of images."""
    here = Path(tempfile.mkdtemp())
    with elsewhere():
        pl.run_study(made("study"), here / "study")
    made("spectrum").save(here / "spectrum.nc")
    (here / "a.csv").write_text("path,symbol_id,latex\na.png,31,A\n")
    with contextlib.suppress(ImportError):
        from PIL import Image

        Image.new("RGB", (32, 32)).save(here / "a.png")
    images = RNG.integers(0, 256, (20, 28, 28), dtype=np.uint8)
    for name, array in (("images-idx3", images), ("labels-idx1", np.arange(20) % 10)):
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
        for part in ("train", "t10k"):
            file = here / f"{part}-{name}-ubyte"
            file.write_bytes(header + array.astype(np.uint8).tobytes())
    return here


Call = tuple[Callable[..., Any], dict[str, Any]]


def distance(params: Any, points: Any) -> Any:
    return ((params - points) ** 2).sum()


def jax_calls() -> dict[str, Call]:
    """Calls that need JAX; none without it."""
    if importlib.util.find_spec("jax") is None:
        return {}
    data = (np.ones((4, 13), np.float32),)
    given = {"loss": distance, "params": np.ones(13, np.float32), "data": data}
    system, w0 = pl.from_jax(**given, optimizer=pl.GradientDescent(lr=0.01))
    return {
        "from_jax": (pl.from_jax, given | {"optimizer": pl.GradientDescent()}),
        "from_jax, optax": (pl.from_jax, given | {
            "optimizer": GRADIENT, "batch_size": 2, "shuffle": True, "seed": 0}),
        "JaxMap.step": (system.step, {"x": w0, "t": 0}),
        "JaxMap.tangent": (system.tangent, {"x": w0, "V": np.ones((13, 2)), "t": 0}),
        "JaxMap.adjoint": (system.adjoint, {"x": w0, "V": np.ones((13, 2)), "t": 0}),
        "JaxMap.trajectory": (system.trajectory, {
            "x": w0, "n_steps": 4, "every": 1, "start": 0}),
        "JaxMap.state": (system.state, {"w": w0}),
        "JaxMap.weights": (system.weights, {"x": w0}),
        "JaxMap.unflatten": (system.unflatten, {"x": w0}),
        "JaxMap.batch": (system.batch, {"t": 0}),
        "JaxMap.loss": (system.loss, {"x": w0}),
        "JaxMap.gradient": (system.gradient, {"x": w0}),
        "JaxMap.hessian_vector": (system.hessian_vector, {"x": w0, "V": np.ones((13, 2))}),
        "lyapunov_spectrum, JAX": (pl.lyapunov_spectrum, {
            "system": system, "w0": w0, "n_steps": 4, "k": 2, "n_transient": 2, "qr_every": 1,
            "record_every": 1, "frame": None, "start": 0, "threads": None, "progress": False,
            "seed": 0}),
    }  # fmt: skip


def calls() -> Iterator[tuple[str, Call]]:
    """A name, a function and valid arguments for each."""
    yield from {
        "Network": (pl.Network, {"layers": (2, 3, 1), "activation": "tanh", "loss": "mse"}),
        "Network.init": (NET.init, {"kind": "normal", "runs": 2, "scale": 1.0, "seed": 0,
                                    "biases": False}),
        "Network.unpack": (NET.unpack, {"w": W}),
        "Network.pack": (NET.pack, {"parts": NET.unpack(W)}),
        "Network.predict": (NET.predict, {"w": W, "X": X}),
        "Network.accuracy": (CLASSES.accuracy, {"w": np.ones(21), "X": X, "y": LABELS}),
        "GradientDescent": (pl.GradientDescent, {
            "lr": 0.1, "momentum": 0.5, "nesterov": False, "weight_decay": 0.0, "batch_size": 2,
            "shuffle": True, "seed": 0, "schedule": None, "layer_scale": [1.0, 0.0],
            "bias_scale": 0.5}),
        "Adam": (pl.Adam, {
            "lr": 0.1, "beta1": 0.5, "beta2": 0.9, "epsilon": 1e-8, "weight_decay": 0.0,
            "batch_size": 2, "shuffle": True, "seed": 0, "schedule": None}),
        "TrainingMap": (pl.TrainingMap, {
            "network": NET, "X": X, "y": Y, "optimizer": pl.GradientDescent(), "dtype": "float64"}),
        "TrainingMap, labels": (pl.TrainingMap, {
            "network": CLASSES, "X": X, "y": LABELS, "optimizer": pl.GradientDescent()}),
        "TrainingMap.state": (SYSTEM.state, {"w": W}),
        "TrainingMap.weights": (SYSTEM.weights, {"x": W}),
        "TrainingMap.batch": (SYSTEM.batch, {"t": 0}),
        "TrainingMap.step": (SYSTEM.step, {"x": W, "t": 0}),
        "TrainingMap.jacobian": (SYSTEM.jacobian, {"x": W, "t": 0}),
        "TrainingMap.tangent": (SYSTEM.tangent, {"x": W, "V": np.ones((13, 2)), "t": 0,
                                                 "method": None}),
        "TrainingMap.adjoint": (SYSTEM.adjoint, {"x": W, "V": np.ones((13, 2)), "t": 0}),
        "TrainingMap.trajectory": (SYSTEM.trajectory, {
            "x": W, "n_steps": 4, "every": 1, "start": 0, "threads": None, "progress": False}),
        "TrainingMap.loss": (SYSTEM.loss, {"x": W}),
        "TrainingMap.gradient": (SYSTEM.gradient, {"x": W}),
        "TrainingMap.hessian": (SYSTEM.hessian, {"x": W}),
        "TrainingMap.accuracy": (
            pl.TrainingMap(CLASSES, X, LABELS, pl.Adam()).accuracy, {"x": np.ones(21)}),
        **jax_calls(),
        "DiscreteMap": (pl.DiscreteMap, {
            "step": turn, "jacobian": slope, "n": 2, "tangent": push, "compiled": False,
            "vectorized": False, "loss": potential, "gradient": double, "hessian_vector": push}),
        "DiscreteMap, a tangent": (pl.DiscreteMap, {"step": turn, "n": 2, "tangent": push}),
        "DiscreteMap, in batches": (pl.DiscreteMap, {"step": turn_all, "tangent": push_all, "n": 2,
                                                     "vectorized": True}),
        "DiscreteMap.step": (MAP.step, {"x": np.ones(2), "t": 0}),
        "DiscreteMap.jacobian": (MAP.jacobian, {"x": np.ones(2), "t": 0}),
        "DiscreteMap.tangent": (MAP.tangent, {"x": np.ones(2), "V": np.eye(2), "t": 0}),
        "DiscreteMap.adjoint": (MAP.adjoint, {"x": np.ones(2), "V": np.eye(2), "t": 0}),
        "DiscreteMap.trajectory": (MAP.trajectory, {"x": np.ones(2), "n_steps": 4, "every": 1,
                                                    "start": 0}),
        "DiscreteMap.loss": (LOSSY.loss, {"x": np.ones(2)}),
        "DiscreteMap.gradient": (LOSSY.gradient, {"x": np.ones(2)}),
        "DiscreteMap.hessian_vector": (LOSSY.hessian_vector, {"x": np.ones(2), "V": np.eye(2)}),
        "DiscreteMap.tangent, a tangent": (LOSSY.tangent, {"x": np.ones(2), "V": np.eye(2)}),
        "DiscreteMap.step, in batches": (BATCHES.step, {"x": np.ones((3, 2)), "t": 0}),
        "Activation": (pl.Activation, {"f": square, "df": double, "d2f": two, "name": "a"}),
        "lyapunov_spectrum": (pl.lyapunov_spectrum, {
            "system": SYSTEM, "w0": W, "n_steps": 4, "k": 2, "n_transient": 2, "qr_every": 1,
            "record_every": 1, "frame": None, "start": 0, "method": None, "threads": None,
            "progress": False, "seed": 0, "tol": None}),
        "ftle": (pl.ftle, {
            "system": SYSTEM, "w0": W, "n_steps": 4, "window": 2, "stride": 2, "kind": "qr", "k": 2,
            "n_transient": 0, "n_tail": None, "frame": None, "start": 0, "method": None,
            "threads": None, "progress": False, "seed": 0}),
        "covariant_lyapunov_vectors": (pl.covariant_lyapunov_vectors, {
            "system": SYSTEM, "w0": W, "n_steps": 4, "k": 2, "n_transient": 2, "n_tail": 2,
            "every": 1, "qr_every": 1, "vectors": True, "delay": None, "memory_limit": 1e8,
            "frame": None, "start": 0, "method": None, "threads": None, "progress": False,
            "seed": 0}),
        "lyapunov_spectrum, a map": (pl.lyapunov_spectrum, {
            "system": MAP, "w0": np.ones(2), "n_steps": 4, "k": 2}),
        "lyapunov_spectrum, in batches": (pl.lyapunov_spectrum, {
            "system": BATCHES, "w0": np.ones((3, 2)), "n_steps": 4, "k": 2, "threads": None,
            "progress": False}),
        "perturbation_ensemble, a map": (pl.perturbation_ensemble, {
            "system": LOSSY, "w0": np.ones(2), "eps": 1e-8, "n_perturbations": 2, "n_steps": 4,
            "perturb": "all", "losses": True, "distribution": "uniform", "start": 0}),
        "compare_growth, a map": (pl.compare_growth, {
            "system": BATCHES, "w0": np.ones(2), "eps": 1e-8, "n_perturbations": 2, "n_steps": 40,
            "perturb": None}),
        "sharpness, a map": (pl.sharpness, {
            "system": LOSSY, "x": np.ones(2), "tol": 1e-6, "max_products": 2, "threads": None}),
        "sharpness_along, a map": (pl.sharpness_along, {
            "system": LOSSY, "w0": np.ones(2), "n_steps": 4, "every": 1, "start": 0,
            "threads": None}),
        "hessian_spectrum, a map": (pl.hessian_spectrum, {"system": LOSSY, "x": np.ones(2)}),
        "travel, a map": (pl.travel, {"system": MAP, "w0": np.ones(2), "n_steps": 4, "every": 1,
                                      "entries": "all", "start": 0, "threads": None}),
        "knock_out, a map": (pl.knock_out, {"system": LOSSY, "w": np.ones(2), "layer": None}),
        "covariant_lyapunov_vectors, a map": (pl.covariant_lyapunov_vectors, {
            "system": MAP, "w0": np.ones(2), "n_steps": 4, "k": 2}),
        "CovariantVectors.known": (made("covariant").known, {"early": False}),
        "CovariantVectors.angles": (made("covariant").angles, {"pairs": [(0, 1)], "early": False}),
        "CovariantVectors.subspace_angles": (made("covariant").subspace_angles, {
            "a": [0], "b": [1, 2], "early": False}),
        "CovariantVectors.hyperbolicity": (made("covariant").hyperbolicity, {"split": 1}),
        "gali": (pl.gali, {
            "system": SYSTEM, "w0": W, "n_steps": 4, "k": 2, "record_every": 1, "frame": None,
            "start": 0, "method": None, "threads": None, "progress": False, "seed": 0}),
        "training_jacobian": (pl.training_jacobian, {
            "system": SYSTEM, "w0": W, "n_steps": 4, "k": 2, "which": "largest", "of": "state",
            "tol": 1e-10,
            "start": 0, "method": None, "threads": None, "progress": False, "seed": 0}),
        "TrainingJacobian.counts": (
            pl.training_jacobian(SYSTEM, W, 4).counts, {"width": 0.1}),
        "subspace_overlap": (pl.subspace_overlap, {"U": np.eye(4)[:, :2], "V": np.eye(4)[:, 1:3]}),
        "ProjectedMap": (pl.ProjectedMap, {
            "system": SYSTEM, "project": np.eye(SYSTEM.n_params)[:, :2], "exclude": False}),
        "ProjectedMap.state": (PROJECTED.state, {"w": W}),
        "ProjectedMap.weights": (PROJECTED.weights, {"x": W}),
        "ProjectedMap.step": (PROJECTED.step, {"x": W, "t": 0}),
        "ProjectedMap.tangent": (PROJECTED.tangent, {"x": W, "V": np.eye(PROJECTED.n), "t": 0}),
        "ProjectedMap.adjoint": (PROJECTED.adjoint, {"x": W, "V": np.eye(PROJECTED.n), "t": 0}),
        "ProjectedMap.trajectory": (PROJECTED.trajectory, {
            "x": W, "n_steps": 4, "every": 1, "start": 0}),
        "kaplan_yorke_dimension": (pl.kaplan_yorke_dimension, {"exponents": [0.1, -1.0], "n": 3}),
        "perturbation_ensemble": (pl.perturbation_ensemble, {
            "system": SYSTEM, "w0": W, "eps": 1e-8, "n_perturbations": 2, "n_steps": 4,
            "distribution": "uniform", "perturb": "all", "relative": False, "norm": "l1",
            "start": 0, "record_every": 1, "keep": "all", "states": False, "losses": False,
            "path_lengths": False, "threads": None, "progress": False, "seed": 0, "first_run": 0}),
        "compare_growth": (pl.compare_growth, {
            "system": SYSTEM, "w0": W, "eps": 1e-8, "n_perturbations": 2, "n_steps": 40,
            "distribution": "uniform", "perturb": "all", "relative": False, "norm": "l1",
            "start": 0, "least_r2": 0.9, "least_slope": 0.05, "threads": None, "progress": False,
            "seed": 0}),
        "growth_rate": (pl.growth_rate, {"distances": DISTANCES, "method": "best_window",
                                         "axis": -2}),
        "growth_rate, saturation": (pl.growth_rate, {
            "distances": DISTANCES, "method": "until_saturation", "axis": None}),
        "growth_law": (pl.growth_law, {"distances": DISTANCES, "t": np.arange(60.0), "axis": -2}),
        "learning_rate_scan": (pl.learning_rate_scan, {
            "network": NET, "X": X, "y": Y, "lrs": [0.1], "n_steps": 40, "runs": 2,
            "init": "normal", "w0": None, "n_late": 20, "optimizer": None, "n_perturbations": 2,
            "eps": 1e-8, "observe": None, "rule": None, "threads": None, "progress": False,
            "seed": 0, "first_run": 0}),
        "RegimeRule": (pl.RegimeRule, {
            name: p.default for name, p in inspect.signature(pl.RegimeRule).parameters.items()}),
        "RegimeRule.periods": (pl.RegimeRule().periods, {"late": np.ones((2, 30))}),
        "stability_map": (pl.stability_map, {
            "system_of": SYSTEM, "x": ("lr_0", [0.1, 1.0]), "y": ("lr_1", (0.1, 1.0, "log")),
            "shape": (2, 2), "w0": None, "init": "normal", "escape": None,
            "exponent": False, "stop_early": True, "checkpoint": None, "threads": None,
            "progress": False, "seed": 0}),
        "stability_map, a map": (pl.stability_map, {
            "system_of": at_two_numbers, "x": ("a", [0.1, 1.0]), "y": ("b", [0.1, 1.0]),
            "escape": 9.0}),
        "StabilityMap.zoom": (made("map").zoom, {
            "region": ((0.2, 0.3), (0.6, 0.7)), "shape": (2, 2), "system_of": None, "w0": None,
            "threads": None, "progress": False}),
        "box_dimension": (pl.box_dimension, {"ends": np.eye(70) > 0}),
        "uncertainty_exponent": (pl.uncertainty_exponent, {"ends": np.eye(70) > 0}),
        "sharpness": (pl.sharpness, {
            "system": SYSTEM, "x": W, "tol": 1e-6, "max_products": 20, "threads": None, "seed": 0,
            "kind": "gradient", "t": 0, "n_batches": None}),
        "batch_sharpness": (pl.batch_sharpness, {
            "system": SYSTEM, "x": W, "t": 0, "n_batches": 2, "threads": None}),
        "sharpness_along": (pl.sharpness_along, {
            "system": SYSTEM, "w0": W, "n_steps": 4, "every": 1, "start": 0, "tol": 1e-6,
            "max_products": 20, "threads": None, "seed": 0, "kind": "batch", "n_batches": 2}),
        "hessian_spectrum": (pl.hessian_spectrum, {"system": SYSTEM, "x": W}),
        "travel": (pl.travel, {"system": SYSTEM, "w0": W, "n_steps": 4, "every": 1,
                               "entries": "all", "start": 0, "threads": None}),
        "knock_out": (pl.knock_out, {"system": SYSTEM, "w": W, "layer": 0}),
        "train": (pl.train, {
            "system": SYSTEM, "w0": W, "epochs": 2, "test": (X, Y), "record_every": 1,
            "snapshots": [0, 2], "layers": None, "checkpoint": None, "checkpoint_every": None,
            "stop": None, "threads": None, "progress": False}),
        "trainability": (pl.trainability, {
            "histories": [made("history")], "widths": [3], "rule": None}),
        "TrainabilityRule": (pl.TrainabilityRule, {"share": 0.5, "factor": 2.0, "hold": 3,
                                                   "guess": None}),
        "TrainabilityRule.divergence": (pl.TrainabilityRule().divergence, {
            "loss": np.ones((2, 5)), "guess": 1.0}),
        "TrainabilityRule.phases": (pl.TrainabilityRule().phases, {
            "loss": np.ones((2, 5)), "guess": 1.0}),
        "Trainability.over_runs": (made("trainability").over_runs, {"name": "min_train_loss"}),
        "weight_deviation": (pl.weight_deviation, {
            "w_i": W, "w_f": 2.0 * W, "network": NET, "bins": 4, "entries": "weights",
            "pool": False, "least_count": 2}),
        "joint_histogram": (pl.joint_histogram, {
            "w_i": W, "w_f": 2.0 * W, "network": NET, "layer": None, "bins": 4,
            "entries": "weights", "least_count": 2}),
        "JointHistogram.strip": (made("joint").strip, {"centre": 0.0, "width": 0.1}),
        "load": (pl.load, {"path": folder() / "spectrum.nc"}),
        "letter_mask": (pl.letter_mask, {"shape": (20, 20), "text": "a", "fraction": 0.8,
                                         "font": None}),
        "apply_letter_mask": (pl.apply_letter_mask, {
            "network": NET, "w": W, "mask": MASK, "layer": 0, "background": 0.0}),
        "legibility": (pl.legibility, {"w": W, "mask": MASK, "network": NET, "layer": 0}),
        "autocorrelation": (pl.autocorrelation, {"x": SERIES, "max_lag": 10, "n_shuffles": 20,
                                                 "level": 0.9, "seed": 0}),
        "expansion_rates": (pl.expansion_rates, {
            "x": SERIES, "radius": 0.5, "n_points": 20, "horizon": 12, "theiler": 1,
            "window": None, "geometric": False, "dimension": 1, "seed": 0}),
        "find_period": (pl.find_period, {"x": SERIES, "max_period": 8, "tol": 0.05}),
        "spectrum_regime": (pl.spectrum_regime, {"spectrum": made("spectrum")}),
        "prediction_skill": (pl.prediction_skill, {
            "indicator": INDICATOR, "final_loss": LOSSES, "threshold": None, "level": 0.9,
            "interval": "delong", "seed": 0}),
        "prediction_curve": (pl.prediction_curve, {
            "spectrum": made("spectrum"), "final_loss": None, "covariant": None,
            "threshold": None}),
        "restart_policy": (pl.restart_policy, {
            "indicator": INDICATOR, "final_loss": LOSSES, "at": 5, "n_steps": 50,
            "threshold": None, "folds": 2, "seed": 0}),
        "datasets.quadratic": (pl.datasets.quadratic, {"n": 5, "seed": 0}),
        "datasets.split": (pl.datasets.split, {"X": X, "y": Y, "n_first": 2, "seed": 0}),
        "datasets.table": (pl.datasets.table, {
            "source": {"a": [0.5, 1.5, 2.0], "b": [1.0, 0.5, 0.25]}, "target": "b", "features": "a",
            "standardize": False, "drop_missing": False, "classes": False, "sep": None,
            "decimal": "."}),
        "datasets.idx": (pl.datasets.idx, {"path": folder() / "train-images-idx3-ubyte"}),
        "datasets.mnist": (pl.datasets.mnist, {"folder": folder(), "part": "train"}),
        "datasets.hasy": (pl.datasets.hasy, {
            "folder": folder(), "index": "a.csv", "symbols": None, "invert": True}),
        "Study": (pl.Study, {**STUDY, "init": {"kind": "normal"}, "optimizer": {"lr": 0.1},
                             "seed": 0, "title": "a"} | {"grid": {}}),
        "Study, system": (pl.Study, {
            "system": SYSTEM, "states": NET.init(runs=2, seed=1),
            "analysis": {"name": "spectrum", "n_steps": 4, "k": 1}, "runs": 2, "grid": {},
            "seed": 0, "title": "a"}),
        "Study.from_file": (pl.Study.from_file, {"path": folder() / "none.toml"}),
        "Study.system": (made("study").system, {"point": (0,)}),
        "Study.weights": (made("study").weights, {"point": (0,), "first": 0, "count": 1}),
        "Study.compute": (made("study").compute, {"point": (0,), "first": 0, "count": 1,
                                                  "threads": 1}),
        "run_study": (pl.run_study, {
            "study": made("study"), "path": folder() / "study", "executor": None, "workers": None,
            "extend": False, "mixed": False, "progress": False}),
        "plan_study": (pl.plan_study, {"study": made("study"), "path": None, "workers": 1}),
        "open_study": (pl.open_study, {"path": folder() / "study"}),
        "export_study": (pl.export_study, {"path": folder() / "study", "file": "export.nc"}),
        "plot_study": (pl.plot_study, {"path": folder() / "study"}),
        "report_study": (pl.report_study, {"path": folder() / "study", "file": "report.html"}),
    }.items()  # fmt: skip
    if importlib.util.find_spec("torch"):
        yield from torch_calls()
    yield from plot_calls()


def plot_calls() -> Iterator[tuple[str, Call]]:
    """The same for the functions that draw."""
    for name, (argument, value, more) in {
        "plot_along": ("along", np.arange(2.0), {"quantities": {"a": np.ones((2, 3))}}),
        "plot_autocorrelation": ("correlation", made("correlation"), {"x": SERIES}),
        "plot_bifurcation": ("scan", made("scan"), {"weight": True}),
        "plot_covariant": ("vectors", made("covariant"), {}),
        "plot_deviation": ("deviation", made("deviation"), {"scopes": None, "at": -1}),
        "plot_deviation_along": (
            "deviation", made("along"), {"steps": [0, 1, 2], "loss": None, "scope": 0}),
        "plot_edge_of_stability": ("sharpness", made("along a run"), {"loss": None}),
        "plot_growth_law": ("law", made("law"), {}),
        "plot_growth_rate": ("rate", made("rate"), {"distances": None}),
        "plot_hessian_spectrum": ("spectrum", made("hessian"), {}),
        "plot_hyperbolicity": ("found", made("hyperbolicity"), {}),
        "plot_restart_policy": ("policy", made("policy"), {}),
        "plot_strip": ("strip", made("joint").strip(0.0), {}),
        "plot_subspace_overlap": (
            "overlap", pl.subspace_overlap(np.eye(4)[:, :2], np.eye(4)[:, 1:3]), {}),
        "plot_training_jacobian": ("jacobian", pl.training_jacobian(SYSTEM, W, 4), {"width": 0.1}),
        "plot_distributions": ("quantities", {"a": np.ones((2, 3))}, {}),
        "plot_ensemble": ("ensemble", made("ensemble"), {"titles": None}),
        "plot_expansion_rates": ("rates", made("rates"), {"x": SERIES, "n_examples": 2}),
        "plot_ftle": ("values", np.ones((2, 4, 2)), {"steps": [0, 2, 4, 6], "leading": 2}),
        "plot_gali": ("log_gali", -np.ones((2, 4, 1)), {"steps": [0, 2, 4, 6]}),
        "plot_growth": ("growth", made("growth"), {"titles": None}),
        "plot_history": ("history", made("history"), {"scope": 0}),
        "plot_joint": ("histogram", made("joint"), {"strips": [0.0], "width": 0.1}),
        "plot_knock_out": ("ratios", np.ones((3, 2)), {}),
        "plot_mark": ("matrix", np.ones((3, 2)), {"mask": MASK, "titles": None}),
        "plot_prediction": ("curves", made("curve"), {"highlight": None, "titles": None}),
        "plot_box_dimension": ("found", pl.box_dimension(np.eye(70) > 0), {}),
        "plot_scan": ("scan", made("scan"), {}),
        "plot_stability": ("found", made("map"), {}),
        "plot_sharpness": ("sharpness", made("along a run"), {"steps": np.arange(7)}),
        "plot_skill": ("skill", made("skill"), {}),
        "plot_spectrum": ("spectrum", made("spectrum"), {"leading": 2, "n_windows": 5}),
        "plot_trainability": ("found", made("trainability"), {"name": "width"}),
        "plot_travel": ("travel", made("travel"), {}),
        "plot_uncertainty": ("found", pl.uncertainty_exponent(np.eye(70) > 0), {}),
    }.items():  # fmt: skip
        function = getattr(plotting, name)
        more |= {
            n: p.default for n, p in inspect.signature(function).parameters.items()
            if n in ("labels", "title", "time", "name", "ax", "axes", "figure") and n not in more
        }  # fmt: skip
        yield f"plotting.{name}", (function, {argument: value} | more)


def torch_calls() -> Iterator[tuple[str, Call]]:
    """The same for models of PyTorch."""
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Softsign()).double()
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    y = RNG.normal(size=(6, 2))
    given = {"model": model, "X": X, "y": y, "loss": "mse", "optimizer": sgd}
    system, w = pl.from_torch(**given, jvp="loop")
    monitor = pl.TangentMonitor(model, "mse", sgd)

    def follow(batch: Any) -> None:
        sgd.zero_grad()
        output, target = model(torch.as_tensor(X)), torch.as_tensor(y)
        (0.5 * (output - target).square().sum() / len(y)).backward()
        sgd.step()
        monitor.step(batch)

    yield from {
        "from_torch": (pl.from_torch, {
            **given, "native": None, "jvp": "loop", "batch_size": 2, "shuffle": True, "seed": 0,
            "schedule": None, "memory_limit": 1e9}),
        "from_torch, step": (system.step, {"x": w, "t": 0}),
        "from_torch, step_batch": (system.step_batch, {"X": np.stack([w, w]), "t": 0}),
        "from_torch, tangent": (system.tangent, {"x": w, "V": np.ones((6, 2)), "t": 0}),
        "from_torch, adjoint": (system.adjoint, {"x": w, "V": np.ones((6, 2)), "t": 0}),
        "from_torch, loss": (system.loss, {"x": w}),
        "from_torch, loss_batch": (system.loss_batch, {"X": np.stack([w, w])}),
        "from_torch, gradient": (system.gradient, {"x": w}),
        "from_torch, hessian_vector": (system.hessian_vector, {"x": w, "V": np.ones((6, 2))}),
        "from_torch, trajectory": (system.trajectory, {
            "x": w, "n_steps": 4, "every": 1, "start": 0}),
        "from_torch, state": (system.state, {"w": w}),
        "from_torch, weights": (system.weights, {"x": w}),
        "from_torch, batch": (system.batch, {"t": 0}),
        "from_torch, unflatten": (system.unflatten, {"x": w}),
        "from_torch, load_into": (system.load_into, {"model": model, "x": w}),
        "TangentMonitor": (pl.TangentMonitor, {
            "model": model, "loss": "mse", "optimizer": sgd, "k": 1, "every": 1, "window": 2,
            "stride": 3, "seed": 0, "rtol": 1e-6, "jvp": None}),
        "TangentMonitor.step": (follow, {"batch": (X, y)}),
        "TangentMonitor.sharpness": (monitor.sharpness, {
            "batch": (X, y), "tol": 1e-3, "kind": "batch", "batches": [(X, y)], "relative": True,
            "max_products": 9}),
        "TangentMonitor.log": (monitor.log, {"prefix": "a"}),
        "TangentMonitor.load_state_dict": (monitor.load_state_dict, {
            "state": monitor.state_dict()}),
    }.items()  # fmt: skip


# Valid or not, these may take for ever: a long run is no mistake.
LONG = {"n_transient", "start", "max_products", "epochs", "n_tail", "first", "first_run", "t"}
CALLABLES = {
    "step",
    "jacobian",
    "tangent",
    "loss",
    "gradient",
    "hessian_vector",
    "f",
    "df",
    "d2f",
    "schedule",
    "stop",
    "system_of",
}
PATHS = {"path", "file", "folder", "index", "symbols", "checkpoint", "font", "source"}

# --- bad values -------------------------------------------------------------------------------


class Odd:
    """An object whose every method is what the class is made with."""

    def __init__(self, **methods: Any) -> None:
        self.methods = methods


def odd(name: str, method: Any) -> Any:
    return type("Odd", (Odd,), {f"__{name}__": method})()


def fails(*_: Any, **__: Any) -> Any:
    raise RuntimeError("a method of the value itself")


def recursive() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


def deep() -> list[Any]:
    items: list[Any] = [1.0]
    for _ in range(100):
        items = [items]
    return items


def of_another_package(name: str, make: Callable[[Any], Any]) -> Any:
    try:
        return make(__import__(name, fromlist=["a"]))
    except ImportError:
        return object()


MAKE: list[Callable[[], Any]] = [
    *(lambda v=v: v for v in (
        None, True, False, np.True_, 0, -1, 7, 1.5, -0.5, -0.0, 5e-324, 1e308, float("nan"),
        float("inf"), -float("inf"), 2**63, -(2**63), 2**64, 10**12, 10**400, -(10**400),
        10**6000, 1j, 1 + 0j, np.complex128(2), Decimal("1.5"), Decimal("nan"), Fraction(1, 3),
        "", "a", "nan", "1", "a\nb", "\0", "a" * 10_000, "naïve", b"1", "all", (), {}, (1, 2, 3),
        {"a": 1}, {1: 2}, frozenset([1]), ..., NotImplemented, int, np.float64, slice(3),
        np.longdouble("1e4000"), np.float16(1), np.float32("nan"), np.int8(-5), np.uint8(200),
        np.uint64(2**64 - 1), np.str_("a"), np.bytes_(b"a"), np.datetime64("2020"),
        np.datetime64("NaT", "D"), np.timedelta64(3, "s"), datetime.date(2020, 1, 1), np, len,
        ValueError("a"), Path("none"), range(3), range(0), np.ma.masked,
    )),
    *(lambda v=v: np.array(v) for v in (
        1.0, 1, True, float("nan"), "1", None, [1, None], ["a", "b"], [1 + 0j], [True, False],
        [], [[]], [1.0], [float("nan")] * 3, [float("inf")] * 13, [-1.0] * 13, [0.0] * 13,
        [[1.0] * 13] * 3, [1] * 6, [1e300] * 13, ["2020-01-01"],
    )),
    *(lambda v=v: v.copy() for v in (
        [], [None], ["a"], [1, "a"], [[1], [1, 2]], [float("nan")], [[]], [True, 1.0], [10**400],
        [-1], [1.5], [0, 0], [1, 2], [object()], [np.ma.masked], [[1.0, 2.0]] * 6,
    )),
    lambda: np.zeros((0, 13)), lambda: np.zeros((13, 0)), lambda: np.zeros((1,) * 6),
    lambda: np.ones((2, 0, 13)), lambda: np.ones((7, 7)), lambda: np.arange(12, dtype=np.uint8),
    lambda: np.ones((6, 2), np.uint8), lambda: np.ma.array(np.ones((6, 2)), mask=np.eye(6, 2)),
    lambda: np.ma.array(np.ones(13), mask=np.arange(13) == 3),
    lambda: np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    lambda: np.array(["2020"], dtype="datetime64[D]"), lambda: np.ones(13, dtype=np.float16),
    lambda: np.ones(13, dtype=complex), lambda: np.ones((2, 13), dtype=object),
    lambda: np.broadcast_to(1.0, (2**40, 13)), lambda: {1, 2}, lambda: iter([1]),
    lambda: (i for i in range(3)), lambda: lambda: 0, lambda: lambda *a, **k: None,
    lambda: bytearray(b"12"), lambda: memoryview(b"12"), object, recursive, deep,
    lambda: odd("repr", fails), lambda: odd("float", fails), lambda: odd("index", fails),
    lambda: odd("array", fails), lambda: odd("len", fails), lambda: odd("iter", fails),
    lambda: odd("eq", fails), lambda: odd("bool", fails),
    lambda: odd("array", lambda self, *a, **k: np.ones(13, complex)),
    lambda: odd("index", lambda self: 2**70), lambda: odd("float", lambda self: float("nan")),
    lambda: odd("fspath", lambda self: 3), lambda: odd("call", fails),
    lambda: np.random.default_rng(0), lambda: np.random.SeedSequence(1),
    lambda: np.random.RandomState(0), lambda: NET, lambda: CLASSES, lambda: SYSTEM, lambda: MAP,
    pl.GradientDescent, pl.Adam, lambda: made("spectrum"), lambda: made("history"),
    lambda: made("study"), lambda: Path(),
    lambda: of_another_package("pandas", lambda p: p.DataFrame({"a": [1, None]})),
    lambda: of_another_package("pandas", lambda p: p.NA),
    lambda: of_another_package("pandas", lambda p: p.Series(["a", "b"])),
    lambda: of_another_package("torch", lambda t: t.zeros(13, requires_grad=True)),
    lambda: of_another_package("torch", lambda t: t.ones(13, dtype=t.complex64)),
    lambda: of_another_package("torch", lambda t: t.tensor(True)),
    lambda: of_another_package("xarray", lambda x: x.Dataset({"a": ("b", [1.0])})),
    lambda: of_another_package("scipy.sparse", lambda s: s.eye(13)),
]  # fmt: skip


def shown(value: Any) -> str:
    try:
        return " ".join(repr(value).split())[:60]
    except Exception:
        return f"a {type(value).__name__} that cannot be shown"


GOOD = (pl.Network, pl.TrainingMap, pl.DiscreteMap, pl.GradientDescent, pl.Adam, pl.Spectrum)

# --- the judge --------------------------------------------------------------------------------


class Hang(BaseException):
    pass


def hang(*_: Any) -> None:
    raise Hang


def judge(function: Callable[..., Any], given: dict[str, Any], argument: str, value: Any) -> str:
    """What is wrong with the answer to a bad value; nothing where it is refused or taken well."""
    if argument in LONG and type(value) in (int, np.uint64) and abs(value) > 10**5:
        return ""
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            function(**given | {argument: value})
    except (ValueError, TypeError) as error:
        text = f"{type(error).__name__}: {error}"
        if argument in CALLABLES and callable(value):
            return ""  # what a function raises is the user's own
        if isinstance(value, (str, Path)) and str(error).startswith(str(value)) and value:
            return ""  # or a file is at fault, which the message begins with
        # A good object may not fit the others, which the message then names
        good = isinstance(value, GOOD) or argument == "source"  # a table without these columns
        names = "|".join(given if good else [argument])
        if not re.search(rf"\b({names})\b", str(error)):
            return f"does not name it: {text[:200]}"
        if "\n" in str(error):
            return f"has several lines: {text[:200]!r}"
        if len(str(error)) > 1000 and argument not in PATHS:
            return f"is long: {text[:200]}"
        return ""
    except OSError as error:
        known = argument in PATHS and not isinstance(error, Warning)
        return "" if known else f"{type(error).__name__}: {error}"[:200]
    except Hang:
        return f"takes more than {SECONDS} s"
    except BaseException as error:
        if argument in CALLABLES and callable(value):
            return ""
        frame = error.__traceback__
        while frame is not None and frame.tb_next is not None:
            frame = frame.tb_next
        where = f"{Path(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno}" if frame else ""
        text = " ".join(str(error).split())
        return f"{type(error).__name__} at {where}: {text}"[:200]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
    return ""


def chosen(names: Any) -> Iterator[tuple[str, Call]]:
    for name, call in calls():
        if not names or name in names or name.split(",")[0] in names:
            yield name, call


def cases(names: Any = ()) -> Iterator[tuple[str, Callable[..., Any], dict[str, Any], str, int]]:
    for name, (function, given) in chosen(names):
        for argument in given:
            for number in range(len(MAKE)):
                yield name, function, given, argument, number


@contextlib.contextmanager
def elsewhere() -> Iterator[None]:
    """In a folder that is left behind, without progress bars."""
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as directory, open(os.devnull, "w") as sink:
        os.chdir(directory)
        try:
            with contextlib.redirect_stderr(sink):
                yield
        finally:
            os.chdir(here)


def faults(some: Any) -> Iterator[str]:
    """What is wrong, a line each."""
    signal.signal(signal.SIGALRM, hang)
    with elsewhere():
        for name, function, given, argument, number in some:
            value = MAKE[number]()
            found = judge(function, given, argument, value)
            if found:
                yield f"{name}({argument}={shown(value)}): {found}"


def valid(names: Any = ()) -> None:
    """Every call works as it is written here."""
    with elsewhere(), warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, (function, given) in chosen(names):
            if name != "Study.from_file":  # whose file is not there
                try:
                    function(**given)
                except Exception as error:
                    raise AssertionError(f"{name} fails: {error!r}") from error


def main(names: list[str]) -> None:
    begin, count, bad = time.monotonic(), 0, 0
    known = {name.split(",")[0] for name, _ in calls()} | {name for name, _ in calls()}
    for name in set(names) - known:
        sys.exit(f"{name} has no call in tests/bad_values.py: add one to `calls`")
    valid(names)
    every = list(cases(names))
    for line in faults(every):
        print(line, flush=True)
        bad += 1
    count = len(every)
    print(f"{count} cases, {bad} faults, {time.monotonic() - begin:.0f} s")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main(sys.argv[1:])
