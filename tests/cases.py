"""The one factory of cases: networks, data, weights, optimisers, and maps solved on paper."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import oracles
from hypothesis import strategies as st

import pylyap as pl

ACTIVATIONS = tuple(oracles.ACTIVATIONS)
KINKED = ("relu", "leaky_relu", "elu")  # f'' jumps
LOSSES = oracles.LOSSES
HIDDEN = {1: (3,), 2: (2, 3), 3: (2, 3, 2), 4: (2, 2, 3, 2)}  # by number of hidden layers

# Name -> keyword arguments; with beta1 it is Adam. Each has its twin in oracles.py.
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "plain": {"lr": 0.3},
    "decay": {"lr": 0.3, "weight_decay": 0.02},
    "heavy_ball": {"lr": 0.1, "momentum": 0.9},
    "heavy_ball_decay": {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.1},
    "nesterov": {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    "nesterov_decay": {"lr": 0.1, "momentum": 0.7, "nesterov": True, "weight_decay": 0.1},
    "adam": {"lr": 0.01, "beta1": 0.9},
    "adam_decay": {"lr": 0.01, "beta1": 0.8, "beta2": 0.99, "epsilon": 1e-6, "weight_decay": 0.1},
}


def optimizer(name: str, **more: Any) -> Any:
    options = OPTIMIZERS[name]
    return (pl.Adam if "beta1" in options else pl.GradientDescent)(**options, **more)


def reference(name: str, **more: Any) -> Any:
    options = OPTIMIZERS[name] | more
    return (oracles.Adam if "beta1" in options else oracles.GradientDescent)(**options)


def network(activation: str = "tanh", loss: str = "mse", depth: int = 1) -> pl.Network:
    return pl.Network((2, *HIDDEN[depth], 2), activation=activation, loss=loss)


def data(net: Any, n_samples: int = 7, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise: nothing to learn, so that residuals and every term of the Hessian stay alive."""
    rng = np.random.default_rng([seed, n_samples, 1])
    X = rng.normal(size=(n_samples, net.layers[0]))
    if net.loss == "mse":
        return X, rng.normal(size=(n_samples, net.layers[-1]))
    return X, rng.integers(net.layers[-1], size=n_samples)


def weights(net: Any, scale: float = 1.0, seed: int = 0, runs: int | None = None) -> np.ndarray:
    """Normal weights and biases."""
    shape = () if runs is None else (runs,)
    rng = np.random.default_rng([seed, 2])
    return scale * rng.normal(size=(*shape, oracles.n_params(net.layers)))


def state(system: Any, w: np.ndarray, seed: int = 0) -> np.ndarray:
    """The weights with buffers that are in full swing; Adam's mean square is well above 0."""
    rng = np.random.default_rng([seed, 3])
    n = w.shape[-1]
    parts = [w]
    if system.n > n:
        parts.append(0.3 * rng.normal(size=w.shape))
    if system.n > 2 * n:
        parts.append(rng.uniform(0.5, 1.5, size=w.shape))
    return np.concatenate(parts, axis=-1)


class Training(NamedTuple):
    net: pl.Network
    X: np.ndarray
    y: np.ndarray
    system: pl.TrainingMap
    w: np.ndarray


def training(
    activation: str = "tanh",
    loss: str = "mse",
    depth: int = 1,
    optimizer_name: str = "plain",
    *,
    n_samples: int = 7,
    scale: float = 1.0,
    runs: int | None = None,
    seed: int = 0,
    **more: Any,
) -> Training:
    net = network(activation, loss, depth)
    X, y = data(net, n_samples, seed)
    system = pl.TrainingMap(net, X, y, optimizer(optimizer_name, **more))
    return Training(net, X, y, system, weights(net, scale, seed, runs))


def oracle_gradient(system: pl.TrainingMap, w: np.ndarray, t: int) -> np.ndarray:
    """What step t of an optimiser sees: of its batch, with decay."""
    rows = system.batch(t)
    gradient = oracles.gradient(system.network, w, system.X[rows], system.y[rows])
    return gradient + system.optimizer.weight_decay * w


def iris(lr: Any = 1.0, **options: Any) -> pl.TrainingMap:
    """The network of Danovski, Soriano and Lacasa on raw Iris data."""
    net = pl.Network((4, 10, 3), activation="sigmoid", loss="cross_entropy")
    return pl.TrainingMap(net, *pl.datasets.iris(), pl.GradientDescent(lr=lr, **options))


def quadratic_bowl(h: np.ndarray, lr: float) -> tuple[pl.TrainingMap, np.ndarray]:
    """Gradient descent whose Hessian is known: a network without hidden layer.

    The 2n samples ±√(n h_i) e_i have no mean and the second moments h_i, so H = diag(h, 1): the 1
    is the bias's.
    """
    n = len(h)
    X = np.concatenate([np.diag(np.sqrt(n * h)), -np.diag(np.sqrt(n * h))])
    net = pl.Network((n, 1), loss="mse")
    return pl.TrainingMap(net, X, np.zeros(2 * n), pl.GradientDescent(lr=lr)), np.append(h, 1.0)


# -------------------------------------------------------------------- maps with known exponents


def linear(*diagonal: float) -> pl.DiscreteMap:
    J = np.diag(diagonal)
    return pl.DiscreteMap(lambda x: J @ x, lambda x: J, len(diagonal))


def henon(a: float = 1.4, b: float = 0.3) -> pl.DiscreteMap:
    return pl.DiscreteMap(
        lambda x: np.array([1 - a * x[0] * x[0] + x[1], b * x[0]]),
        lambda x: np.array([[-2 * a * x[0], 1.0], [b, 0.0]]),
        2,
    )


def logistic(r: float = 4.0) -> pl.DiscreteMap:
    return pl.DiscreteMap(lambda x: r * x * (1 - x), lambda x: np.array([[r * (1 - 2 * x[0])]]), 1)


def lozi(a: float = 1.7, b: float = 0.5) -> pl.DiscreteMap:
    return pl.DiscreteMap(
        lambda x: np.array([1 - a * abs(x[0]) + x[1], b * x[0]]),
        lambda x: np.array([[-a * np.sign(x[0]), 1.0], [b, 0.0]]),
        2,
    )


def ikeda(mu: float = 0.83, a: float = 0.4, b: float = 6.0) -> pl.DiscreteMap:
    """z -> 1 + mu z exp(i (a − b / (1 + |z|²)))."""

    def step(x):
        angle = a - b / (1 + x @ x)
        c, s = np.cos(angle), np.sin(angle)
        return np.array([1 + mu * (x[0] * c - x[1] * s), mu * (x[0] * s + x[1] * c)])

    def jacobian(x):
        size = 1 + x @ x
        angle = a - b / size
        c, s = np.cos(angle), np.sin(angle)
        turned = np.array([x[0] * c - x[1] * s, x[0] * s + x[1] * c])
        by_angle = np.array([-turned[1], turned[0]])
        return mu * (np.array([[c, -s], [s, c]]) + np.outer(by_angle, 2 * b * x / size**2))

    return pl.DiscreteMap(step, jacobian, 2)


def baker(split: float = 0.3, area: float = 0.8) -> pl.DiscreteMap:
    """Generalised baker map: independent steps, both strips shrink areas by the same factor."""
    low, high = area * split, area * (1 - split)
    below, above = np.diag([low, 1 / split]), np.diag([high, 1 / (1 - split)])

    def step(x):
        if x[1] < split:
            return np.array([low * x[0], x[1] / split])
        return np.array([1 - high + high * x[0], (x[1] - split) / (1 - split)])

    return pl.DiscreteMap(step, lambda x: below if x[1] < split else above, 2)


def baker_exponents(split: float = 0.3, area: float = 0.8) -> np.ndarray:
    stretch = -split * np.log(split) - (1 - split) * np.log(1 - split)
    return np.array([stretch, np.log(area) - stretch])


def cat() -> pl.DiscreteMap:
    J = np.array([[2.0, 1.0], [1.0, 1.0]])
    return pl.DiscreteMap(lambda x: (J @ x) % 1, lambda x: J, 2)


def chirikov(kick: float = 1.0) -> pl.DiscreteMap:
    """State (p, theta)."""

    def step(x):
        p = x[0] + kick * np.sin(x[1])
        return np.array([p, x[1] + p]) % (2 * np.pi)

    def jacobian(x):
        force = kick * np.cos(x[1])
        return np.array([[1.0, force], [1.0, 1.0 + force]])

    return pl.DiscreteMap(step, jacobian, 2)


# Of systems at random, maps and training.
KINDS = ("random", "weak", "shear", "henon", "lozi", "standard", "lattice", "training", "heavy")


def listed(matrices: np.ndarray) -> pl.DiscreteMap:
    """A map whose Jacobian at state (t, ...) is matrices[t]."""
    n = matrices.shape[-1]
    forward = np.eye(n)[0]
    return pl.DiscreteMap(lambda x: x + forward, lambda x: matrices[int(x[0])], n)


def random_system(kind: str, rng: np.random.Generator, steps: int) -> tuple[Any, np.ndarray]:
    """A map and a state from which it makes so many steps."""
    n = int(rng.integers(2, 8))
    if kind == "random":
        return listed(rng.normal(size=(steps, n, n))), np.zeros(n)
    if kind == "weak":
        size = rng.choice([0.05, 0.1, 0.3])
        return listed(np.eye(n) + size * rng.normal(size=(steps, n, n))), np.zeros(n)
    if kind == "shear":  # far from normal, in a random basis
        mean = np.triu(2 * rng.normal(size=(n, n)), 1) + np.diag(
            -np.sort(-rng.uniform(0.3, 1.5, n))
        )
        basis = np.linalg.qr(rng.normal(size=(n, n)))[0]
        noisy = mean + 0.05 * rng.normal(size=(steps, n, n))
        return listed(basis @ noisy @ basis.T), np.zeros(n)
    if kind in ("henon", "lozi"):
        system = (henon if kind == "henon" else lozi)()
        return system, system.trajectory(rng.uniform(0, 0.1, 2), 100, every=100)[-1]
    if kind == "standard":
        return chirikov(rng.choice([0.5, 1.0, 2.0, 5.0])), rng.uniform(0, 6, 2)
    if kind == "lattice":  # coupled logistic maps
        coupling, r = rng.uniform(0.02, 0.4), rng.uniform(3.7, 4.0)
        mix = (1 - coupling) * np.eye(n)
        mix += coupling / 2 * (np.roll(np.eye(n), 1, 0) + np.roll(np.eye(n), -1, 0))
        system = pl.DiscreteMap(
            lambda x: mix @ (r * x * (1 - x)), lambda x: mix * (r * (1 - 2 * x)), n
        )
        return system, rng.uniform(0.1, 0.9, n)
    net = pl.Network((2, 3, 1), activation=str(rng.choice(["tanh", "sigmoid"])))
    X, y = data(net, 9, seed=int(rng.integers(1000)))
    momentum = rng.choice([0.5, 0.9]) if kind == "heavy" else 0.0
    lr, batch = rng.choice([0.1, 0.3, 1.0]), int(rng.choice([3, 9]))
    optimizer = pl.GradientDescent(lr=lr, momentum=momentum, batch_size=batch)
    system = pl.TrainingMap(net, X, y, optimizer)
    return system, system.state(weights(net, seed=int(rng.integers(1000))))


# ---------------------------------------------------------------------------- for hypothesis


@st.composite
def networks(draw: Any, losses: tuple[str, ...] = LOSSES, max_depth: int = 4) -> pl.Network:
    loss = draw(st.sampled_from(losses))
    depth = draw(st.integers(1, max_depth))
    layers = (
        draw(st.integers(1, 3)),
        *(draw(st.integers(1, 4)) for _ in range(depth)),
        draw(st.integers(1 if loss == "mse" else 2, 3)),
    )
    activations = tuple(draw(st.sampled_from(ACTIVATIONS)) for _ in range(depth))
    return pl.Network(layers, activation=activations, loss=loss)


def optimizers() -> st.SearchStrategy[str]:
    """Names, for `optimizer` and `reference`."""
    return st.sampled_from(tuple(OPTIMIZERS))


def seeds() -> st.SearchStrategy[int]:
    return st.integers(0, 2**32 - 1)


def scales() -> st.SearchStrategy[float]:
    return st.sampled_from((0.1, 0.5, 1.0, 2.0))


# ------------------------------------------------------------------------------------ measures


def distance(actual: Any, expected: Any) -> float:
    """Normwise relative: ‖actual − expected‖ / ‖expected‖, and 0 for two zeros."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{actual.shape} is not {expected.shape}"
    assert np.isfinite(actual).all()
    error = np.linalg.norm((actual - expected).ravel())
    return error / np.linalg.norm(expected.ravel()) if error > 0 else 0.0


def assert_close(actual: Any, expected: Any, rtol: float = 1e-12) -> None:
    error = distance(actual, expected)
    assert error <= rtol, f"normwise relative error {error:.2e}, allowed {rtol:.2e}"
