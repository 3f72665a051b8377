"""What is computed: networks, data and initial values of each row."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Run = Callable[[], Any]  # makes all steps of all runs and returns log growth (runs, steps, k)

TOLERANCE = 1e-6  # of exponents over a few steps, nats per step
DGEMM_SIZE = 1500
MNIST_DENSITY = 0.19  # fraction of the pixels of MNIST's digits that are not black


def random_images(rng: np.random.Generator, samples: int, density: float) -> NDArray[np.uint8]:
    """uint8 images (samples, 784) in which a fraction `density` of the pixels is not zero."""
    images = rng.integers(1, 256, (samples, 784), dtype=np.uint8)
    images *= rng.random(images.shape) < density
    return images


@dataclass(frozen=True)
class Training:
    """Runs of gradient descent on one network, with the data and initial values of all packages."""

    layers: tuple[int, ...]
    activation: str
    loss: str
    samples: int
    k: int
    runs: int
    steps: int
    lr: float = 0.1
    check: tuple[int, int] = (0, 5)
    momentum: float = 0.0  # heavy ball: states are weights and velocities
    w0: Floats = field(default_factory=lambda: np.empty(0), repr=False)
    frame: Floats = field(default_factory=lambda: np.empty(0), repr=False)
    X: Floats = field(default_factory=lambda: np.empty(0), repr=False)
    y: NDArray[Any] = field(default_factory=lambda: np.empty(0), repr=False)

    @property
    def n(self) -> int:
        sizes = zip(self.layers, self.layers[1:], strict=False)
        return sum(after * (before + 1) for before, after in sizes)

    @property
    def n_state(self) -> int:
        """Size of a state and of a tangent vector."""
        return self.n * (2 if self.momentum else 1)

    @property
    def flops(self) -> float:
        """Operations per step and run, the same count for all lines."""
        N, n, k = self.samples, self.n, self.k
        rank = self.layers[-1] - (self.loss == "cross_entropy")
        return min(rank * N * n**2 + 2 * n**2 * k, 4.5 * N * n * k) + 2 * n * k**2

    @property
    def title(self) -> str:
        return (
            f"{'-'.join(map(str, self.layers))} {self.activation} {self.loss}, N {self.samples}, "
            f"n {self.n}, k {self.k}, {self.runs} runs{', heavy ball' if self.momentum else ''}"
        )

    def compared(self, answer: Floats) -> Floats:
        """The values that must agree with pylyap's."""
        return answer.copy()

    def with_data(self) -> Training:
        """The workload with data, initial weights and frame."""
        import pylyap as pl

        rng = np.random.default_rng(0)
        d, o = self.layers[0], self.layers[-1]
        if self.layers == (4, 10, 3):
            X, y = pl.datasets.iris()
            X, y = X[: self.samples], y[: self.samples]
        elif self.layers[0] == 64 and importlib.util.find_spec("sklearn"):
            from sklearn.datasets import load_digits

            X, y = load_digits(return_X_y=True)
            X = X[: self.samples] / 16
            y = y[: self.samples]
        elif self.layers[0] == 784:
            X = random_images(rng, self.samples, MNIST_DENSITY) / 255.0
            y = rng.integers(o, size=self.samples)
        else:
            X = rng.uniform(-1, 1, (self.samples, d))
            y = (X**2).sum(axis=1) if self.loss == "mse" else rng.integers(o, size=self.samples)
        net = pl.Network(self.layers, activation=self.activation, loss=self.loss)
        w0 = net.init("glorot_normal", runs=self.runs, seed=0, biases=True)
        w0 = np.concatenate([w0, np.zeros((self.runs, self.n_state - self.n))], axis=1)
        frame = np.linalg.qr(rng.normal(size=(self.n_state, self.k)))[0]
        return replace(self, w0=w0, frame=np.ascontiguousarray(frame), X=X, y=y)

    def part(self, runs: slice) -> Training:
        """The workload of some of the runs."""
        w0 = self.w0[runs]
        return replace(self, w0=w0, runs=len(w0))


@dataclass(frozen=True)
class Ensemble(Training):
    """Runs of gradient descent with perturbed copies of each and their distances to it."""

    copies: int = 5
    eps: float = 1e-3  # large compared with rounding errors
    directions: Floats = field(default_factory=lambda: np.empty(0), repr=False)

    @property
    def title(self) -> str:
        return f"{super().title}, {self.copies} copies of each run, distances"

    @property
    def flops(self) -> float:
        return 6.0 * self.samples * self.n * (self.copies + 1)

    def with_data(self) -> Ensemble:
        filled = super().with_data()
        directions = np.random.default_rng(1).uniform(-1.0, 1.0, (self.n, self.copies))
        return replace(filled, directions=directions)  # type: ignore[type-var]

    def members(self) -> Floats:
        """Weights (runs, 1 + copies, n), the reference first."""
        moved = np.concatenate([np.zeros((self.n, 1)), self.eps * self.directions], 1).T
        return self.w0[:, np.newaxis] + moved


@dataclass(frozen=True)
class Propagator(Training):
    """Singular values and vectors of the Jacobian of a whole training: the k largest, or all."""

    check: tuple[int, int] = (0, 1)  # their logarithms

    @property
    def whole(self) -> bool:
        """Whether all of them are computed."""
        return self.k == self.n

    @property
    def title(self) -> str:
        what = "all" if self.whole else f"the {self.k} largest"
        net = super().title.split(", k ")[0]
        return f"{net}, {what} singular values of {self.steps} steps"

    @property
    def flops(self) -> float:
        return math.nan  # depends on the iterations of the methods


@dataclass(frozen=True)
class Sharpness(Training):
    """Largest Hessian eigenvalue of the loss at weights, by `steps` Lanczos products of each."""

    check: tuple[int, int] = (0, 1)  # the eigenvalue
    start: Floats = field(default_factory=lambda: np.empty(0), repr=False)

    @property
    def title(self) -> str:
        return f"{super().title.replace(', k 1', '')}, sharpness by {self.steps} products"

    @property
    def flops(self) -> float:
        return 4.5 * self.samples * self.n

    def with_data(self) -> Sharpness:
        # As pylyap draws the start vector of the iteration.
        seeds = np.random.SeedSequence(0)
        start = np.random.default_rng(seeds).standard_normal(self.n)
        return replace(super().with_data(), start=start)  # type: ignore[type-var]


@dataclass(frozen=True)
class Sgd:
    """One run of stochastic gradient descent on uint8 images, two hidden layers."""

    width: int  # of both hidden layers
    single: bool
    steps: int
    density: float = MNIST_DENSITY
    batch: int = 128
    samples: int = 8000
    runs: int = 1
    k: int = 1
    lr: float = 0.1
    check: tuple[int, int] = (0, 1)  # the last weights
    w0: Floats = field(default_factory=lambda: np.empty(0), repr=False)
    images: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8), repr=False)
    labels: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64), repr=False)

    @property
    def layers(self) -> tuple[int, ...]:
        return (784, self.width, self.width, 10)

    @property
    def dtype(self) -> str:
        return "float32" if self.single else "float64"

    @property
    def tolerance(self) -> float:
        return 1e-2 if self.single else TOLERANCE  # of weights after 50 steps

    @property
    def flops(self) -> float:
        """Products of the forward pass, the weight gradients and the errors of hidden layers."""
        sizes = [a * b for a, b in zip(self.layers, self.layers[1:], strict=False)]
        return 2.0 * self.batch * (2 * sum(sizes) + sum(sizes[1:]))

    @property
    def title(self) -> str:
        net = "-".join(map(str, self.layers))
        data = "all pixels" if self.density == 1.0 else f"{self.density:.0%} of pixels"
        return f"{net} relu cross_entropy, {self.dtype}, SGD, batches of {self.batch}, {data}"

    def compared(self, answer: Floats) -> Floats:
        return answer.astype(float)

    def with_data(self) -> Sgd:
        import pylyap as pl

        rng = np.random.default_rng(0)
        images = random_images(rng, self.samples, self.density)
        labels = rng.integers(0, 10, self.samples)
        w0 = pl.Network(self.layers, loss="cross_entropy").init(seed=0)
        return replace(self, w0=w0, images=images, labels=labels)

    def part(self, runs: slice) -> Sgd:
        return self

    def system(self) -> Any:
        import pylyap as pl

        net = pl.Network(self.layers, activation="relu", loss="cross_entropy")
        rule = pl.GradientDescent(lr=self.lr, batch_size=self.batch)
        return pl.TrainingMap(net, self.images[:, :, None], self.labels, rule, dtype=self.dtype)

    def start(self) -> list[Any]:
        """Weight and bias of each layer."""
        import pylyap as pl

        parts = pl.Network(self.layers, loss="cross_entropy").unpack(self.w0)
        return [p.astype(self.dtype) for pair in parts for p in pair]

    def batches(self) -> list[Any]:
        """Indices of the samples of each step."""
        system = self.system()
        return [system.batch(t) for t in range(self.steps)]


@dataclass(frozen=True)
class Landscape:
    """A map of the learning rates of two layers without biases, one run per pixel."""

    side: int
    steps: int
    layers: tuple[int, ...] = (16, 16, 1)
    samples: int = 272
    k: int = 1
    check: tuple[int, int] = (0, 1)  # the score
    tolerance: float = 1e-3  # of scores of about the number of steps
    rates: Floats = field(default_factory=lambda: np.empty((0, 2)), repr=False)  # of each pixel
    W: Floats = field(default_factory=lambda: np.empty(0), repr=False)
    u: Floats = field(default_factory=lambda: np.empty(0), repr=False)
    X: Floats = field(default_factory=lambda: np.empty(0), repr=False)
    y: Floats = field(default_factory=lambda: np.empty(0), repr=False)

    @property
    def runs(self) -> int:
        return len(self.rates) if len(self.rates) else self.side**2

    @property
    def flops(self) -> float:
        """Products of the forward pass and of the gradient of the first layer."""
        return 4.0 * self.samples * self.layers[0] ** 2

    @property
    def title(self) -> str:
        return (
            f"map of {self.side} x {self.side} pairs of rates, 16-16-1 tanh mse, N {self.samples}"
        )

    def compared(self, answer: Floats) -> Floats:
        return answer.copy()

    def with_data(self) -> Landscape:
        rng = np.random.default_rng(0)
        n = self.layers[0]
        each = np.geomspace(0.1, 10.0, self.side)  # all runs converge: none could end early
        second, first = np.meshgrid(each, each, indexing="ij")
        return replace(
            self,
            rates=np.stack([first.ravel(), second.ravel()], axis=1),
            W=rng.normal(size=(n, n)),
            u=rng.normal(size=n),
            X=rng.normal(size=(self.samples, n)),
            y=rng.normal(size=self.samples),
        )

    def part(self, runs: slice) -> Landscape:
        return replace(self, rates=self.rates[runs])


@dataclass(frozen=True)
class Henon:
    """Orbits of the Hénon map, with both exponents or the covariant vectors."""

    runs: int
    steps: int
    vectors: bool = False
    k: int = 2
    flops: float = math.nan
    check: tuple[int, int] = (20, 40)  # aligned after 20 steps; orbits agree to 1e-8 until step 40
    margin: int = 0  # steps before and after the window, for covariant vectors
    x0: Floats = field(default_factory=lambda: np.empty(0), repr=False)

    @property
    def title(self) -> str:
        what = "covariant vectors" if self.vectors else "spectrum"
        return f"Hénon map, {what}, n 2, k 2, {self.runs} orbits"

    def compared(self, answer: Floats) -> Floats:
        """Growth, or the absolute cosine of the angle between the two vectors."""
        if not self.vectors:
            return answer.copy()
        unit = answer / np.linalg.norm(answer, axis=-2, keepdims=True)
        return np.abs((unit[..., 0] * unit[..., 1]).sum(axis=-1))[..., np.newaxis]

    def with_data(self) -> Henon:
        return replace(self, x0=np.random.default_rng(0).uniform(-0.1, 0.1, (self.runs, 2)))

    def part(self, runs: slice) -> Henon:
        x0 = self.x0[runs]
        return replace(self, x0=x0, runs=len(x0))


@dataclass(frozen=True)
class Model:
    """One run of gradient descent on a model of PyTorch, handwritten digits of 8 × 8 pixels."""

    kind: str  # "cnn" or "mlp"
    n: int
    steps: int
    samples: int = 128
    k: int = 10
    runs: int = 1
    lr: float = 0.1
    flops: float = math.nan
    check: tuple[int, int] = (0, 2)
    w0: Floats = field(default_factory=lambda: np.empty(0), repr=False)
    frame: Floats = field(default_factory=lambda: np.empty(0), repr=False)
    X: Floats = field(default_factory=lambda: np.empty(0), repr=False)
    y: NDArray[Any] = field(default_factory=lambda: np.empty(0), repr=False)

    @property
    def title(self) -> str:
        return f"{self.kind} of PyTorch, cross_entropy, N {self.samples}, n {self.n}, k {self.k}"

    def compared(self, answer: Floats) -> Floats:
        return answer.copy()

    def with_data(self) -> Model:
        from sklearn.datasets import load_digits

        rng = np.random.default_rng(0)
        X, y = load_digits(return_X_y=True)
        return replace(
            self,
            X=X[: self.samples].reshape(-1, 1, 8, 8) / 16,
            y=y[: self.samples],
            w0=0.1 * rng.normal(size=(1, self.n)),
            frame=np.ascontiguousarray(np.linalg.qr(rng.normal(size=(self.n, self.k)))[0]),
        )

    def part(self, runs: slice) -> Model:
        return self


@dataclass(frozen=True)
class Product:
    """NumPy's float64 matrix product, the reference rate, on one core or on all."""

    runs: int = 1
    steps: int = 1
    flops: float = 2.0 * DGEMM_SIZE**3
    check: tuple[int, int] = (0, 1)

    def compared(self, answer: Floats) -> Floats:
        return answer.copy()

    def with_data(self) -> Product:
        return self

    def part(self, runs: slice) -> Product:
        return self


Workload = Training | Sgd | Landscape | Henon | Model | Product
Row = Training | Sgd | Landscape | Henon | Model

WORKLOADS: dict[int, Row] = {
    1: Training((2, 10, 1), "tanh", "mse", 100, k=41, runs=64, steps=100),
    2: Training((4, 10, 3), "sigmoid", "cross_entropy", 120, k=83, runs=16, steps=60),
    3: Training((4, 10, 3), "sigmoid", "cross_entropy", 120, k=10, runs=64, steps=100),
    4: Training((64, 32, 10), "tanh", "cross_entropy", 1797, k=10, runs=2, steps=10),
    5: Henon(runs=32, steps=2000),
    6: Henon(runs=32, steps=2000, vectors=True, check=(0, 8), margin=20),
    7: Ensemble((4, 10, 3), "sigmoid", "cross_entropy", 120, k=1, runs=200, steps=100, lr=1.0),
}
WORKLOADS |= {
    8 + 4 * single + i: Sgd(width, bool(single), steps=200)
    for single in (0, 1)
    for i, width in enumerate((64, 128, 256, 512))
}
WORKLOADS[16] = Training((784, 64, 10), "tanh", "cross_entropy", 1000, k=5, runs=1, steps=20)
WORKLOADS[17] = Model("cnn", 1898, steps=20)
WORKLOADS[18] = Model("mlp", 97_262, steps=5)
WORKLOADS[19] = Propagator((64, 64, 10), "tanh", "cross_entropy", 64, k=5, runs=1, steps=50)
WORKLOADS[20] = Propagator((64, 28, 10), "tanh", "cross_entropy", 64, k=2110, runs=1, steps=50)
WORKLOADS[21] = Sharpness((64, 32, 10), "tanh", "cross_entropy", 1797, k=1, runs=4, steps=40)
WORKLOADS[22] = Landscape(side=16, steps=50)
