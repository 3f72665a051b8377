"""pylyap beside JAX, PyTorch, NumPy, pynamicalsys and lyapynov: the same work in the same run.

    python benchmarks/peers.py                       # every row, some minutes each
    python benchmarks/peers.py --quick --rows 1,3    # do they run? the numbers mean little
    python benchmarks/peers.py --json peers.json     # every repetition of every candidate

Nothing is installed: a package that cannot be imported gets a line that says so. To use two cores
of a larger machine, run it under ``taskset -c 0,1``.

How to read the tables
----------------------
All lines of a table carry the same frame of k tangent vectors along the same runs of gradient
descent (or orbits of the Hénon map), in float64, with an orthonormalisation and a record at every
step, and have all cores that this process may use: either one process with all threads, or one
single-threaded process pinned to each core, whose throughputs are added. *us* is the wall-clock
time per step and run in microseconds, the median of repetitions in which all lines take turns, with
the smallest and largest beside it. *x pylyap* is that time over pylyap's. *GF/s* is one count of
operations, the same for every line whatever it really computes,

    min(q N n^2 + 2 n^2 k, 4.5 N n k) + 2 n k^2,     q = rank of the loss's curvature per sample,

over that time (SGD and ensembles: their matrix products alone); *dgemm* is its share of the rate of
NumPy's matrix product in float64, which takes its turn in the same repetitions. **Ratios hold
within one run only**: never divide numbers of two runs or two machines, and look at the load that
is printed first.

Each line is the best of its candidates, found by a first timing of all of them:

- *autodiff* is what one writes without a pencil: `jvp` of the optimiser's step over the columns,
  `linearize`, or the full `hessian` and a product; *by hand* has the blocks of the Hessian, or the
  R-operator, written out as matrix products, the same text for JAX, PyTorch and NumPy;
- runs *singly*, one after another, or batched with `vmap`;
- the library's QR, CholeskyQR2, or a Gram-Schmidt of one's own, modified by columns (*MGS*) or
  classical by panels (*panel GS*); what these cost adds to what the tangents cost, so they are
  tried on the fastest tangents only;
- one process with all *threads*, or one *per core*.

Compilation is not timed. A candidate is timed only if its exponents over the first steps, from the
same weights and frame, equal pylyap's to 1e-6; another is reported as wrong. On the map, where
peers choose their own start frame, they are compared after the steps that align it.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import itertools
import json
import math
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

Floats = NDArray[np.float64]
Run = Callable[[], Any]  # makes all steps of all runs and returns log growth (runs, steps, k)

TOLERANCE = 1e-6  # on exponents over a few steps, nats per step
HOPELESS = 20  # a full Hessian is not tried if it has this many times the columns of the frame
PATIENCE = 300.0  # seconds for one answer of a worker, compilation included
SHORTEST = 0.3  # seconds that a repetition takes at least
SETTLE = 0.1  # seconds before it: threads of whoever went before spin on, in the same process too
DGEMM = 1500
OUTRUN = 2.0  # a candidate this many times slower than the best of its line is not pursued
MNIST_DENSITY = 0.19  # share of the pixels of its digits that are not black
FINALISTS = 2  # candidates of a line that are timed in turns: the first timing may have erred


# --- workloads ------------------------------------------------------------------------------------


def pictures(rng: np.random.Generator, samples: int, density: float) -> NDArray[np.uint8]:
    """(samples, 784) bytes, of which that share is not black, anywhere."""
    images = rng.integers(1, 256, (samples, 784), dtype=np.uint8)
    images *= rng.random(images.shape) < density
    return images


@dataclass(frozen=True)
class Training:
    """Runs of gradient descent on one network, and the arrays that every package starts from."""

    layers: tuple[int, int, int]
    activation: str
    loss: str
    samples: int
    k: int
    runs: int
    steps: int
    lr: float = 0.1
    check: tuple[int, int] = (0, 5)
    w0: Floats = field(default_factory=lambda: np.empty(0), repr=False)
    frame: Floats = field(default_factory=lambda: np.empty(0), repr=False)
    X: Floats = field(default_factory=lambda: np.empty(0), repr=False)
    y: NDArray[Any] = field(default_factory=lambda: np.empty(0), repr=False)

    @property
    def n(self) -> int:
        d, h, o = self.layers
        return h * (d + 1) + o * (h + 1)

    @property
    def flops(self) -> float:
        """Operations per step and run, by the count that all lines share."""
        N, n, k = self.samples, self.n, self.k
        rank = self.layers[2] - (self.loss == "cross_entropy")
        return min(rank * N * n**2 + 2 * n**2 * k, 4.5 * N * n * k) + 2 * n * k**2

    @property
    def title(self) -> str:
        return (
            f"{'-'.join(map(str, self.layers))} {self.activation} {self.loss}, N {self.samples}, "
            f"n {self.n}, k {self.k}, {self.runs} runs"
        )

    def compared(self, answer: Floats) -> Floats:
        return answer.copy()

    def filled(self) -> Training:
        """With data, weights and frame."""
        import pylyap as pl

        rng = np.random.default_rng(0)
        d, _, o = self.layers
        if self.layers == (4, 10, 3):
            X, y = pl.datasets.iris()
            X, y = X[: self.samples], y[: self.samples]
        elif self.layers[0] == 64 and importlib.util.find_spec("sklearn"):
            from sklearn.datasets import load_digits

            X, y = load_digits(return_X_y=True)
            X = X[: self.samples] / 16
            y = y[: self.samples]
        elif self.layers[0] == 784:
            X = pictures(rng, self.samples, MNIST_DENSITY) / 255.0
            y = rng.integers(o, size=self.samples)
        else:
            X = rng.uniform(-1, 1, (self.samples, d))
            y = (X**2).sum(axis=1) if self.loss == "mse" else rng.integers(o, size=self.samples)
        net = pl.Network(self.layers, activation=self.activation, loss=self.loss)
        w0 = net.init("glorot_normal", runs=self.runs, seed=0, biases=True)
        frame = np.linalg.qr(rng.normal(size=(self.n, self.k)))[0]
        return replace(self, w0=w0, frame=np.ascontiguousarray(frame), X=X, y=y)

    def part(self, runs: slice) -> Training:
        w0 = self.w0[runs]
        return replace(self, w0=w0, runs=len(w0))


@dataclass(frozen=True)
class Ensemble(Training):
    """Runs of gradient descent, each with perturbed copies beside it and their distances to it."""

    copies: int = 5
    eps: float = 1e-3  # so large that rounding does not show
    directions: Floats = field(default_factory=lambda: np.empty(0), repr=False)

    @property
    def title(self) -> str:
        return f"{super().title}, {self.copies} copies of each run, distances"

    @property
    def flops(self) -> float:
        return 6.0 * self.samples * self.n * (self.copies + 1)

    def filled(self) -> Ensemble:
        filled = super().filled()
        directions = np.random.default_rng(1).uniform(-1.0, 1.0, (self.n, self.copies))
        return replace(filled, directions=directions)  # type: ignore[type-var]

    def members(self) -> Floats:
        """Weights (runs, 1 + copies, n), the reference first."""
        moved = np.concatenate([np.zeros((self.n, 1)), self.eps * self.directions], 1).T
        return self.w0[:, np.newaxis] + moved


@dataclass(frozen=True)
class Sgd:
    """One run of stochastic gradient descent on pictures in bytes, two hidden layers of `width`."""

    width: int
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
        """Forward, weight gradients, and errors of the hidden layers."""
        sizes = [a * b for a, b in zip(self.layers, self.layers[1:], strict=False)]
        return 2.0 * self.batch * (2 * sum(sizes) + sum(sizes[1:]))

    @property
    def title(self) -> str:
        net = "-".join(map(str, self.layers))
        data = "every pixel" if self.density == 1.0 else f"{self.density:.0%} of pixels"
        return f"{net} relu cross_entropy, {self.dtype}, SGD, batches of {self.batch}, {data}"

    def compared(self, answer: Floats) -> Floats:
        return answer.astype(float)

    def filled(self) -> Sgd:
        import pylyap as pl

        rng = np.random.default_rng(0)
        images = pictures(rng, self.samples, self.density)
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
        """The samples that each step sees, whole batches and partial ones."""
        system = self.system()
        return [system.batch(t) for t in range(self.steps)]


@dataclass(frozen=True)
class Henon:
    """Orbits of the Hénon map, with its whole spectrum or its covariant vectors."""

    runs: int
    steps: int
    vectors: bool = False
    k: int = 2
    flops: float = math.nan
    check: tuple[int, int] = (20, 40)  # aligned after 20 steps; orbits are one to 1e-8 until 40
    aside: int = 0  # steps before and after the window, of covariant vectors
    x0: Floats = field(default_factory=lambda: np.empty(0), repr=False)

    @property
    def title(self) -> str:
        what = "covariant vectors" if self.vectors else "spectrum"
        return f"Hénon map, {what}, n 2, k 2, {self.runs} orbits"

    def compared(self, answer: Floats) -> Floats:
        """What must agree: growth, or the cosine of the angle between the lines of two vectors."""
        if not self.vectors:
            return answer.copy()
        unit = answer / np.linalg.norm(answer, axis=-2, keepdims=True)
        return np.abs((unit[..., 0] * unit[..., 1]).sum(axis=-1))[..., np.newaxis]

    def filled(self) -> Henon:
        return replace(self, x0=np.random.default_rng(0).uniform(-0.1, 0.1, (self.runs, 2)))

    def part(self, runs: slice) -> Henon:
        x0 = self.x0[runs]
        return replace(self, x0=x0, runs=len(x0))


@dataclass(frozen=True)
class Product:
    """One matrix product per core or over all of them, the yardstick."""

    runs: int = 1
    steps: int = 1
    flops: float = 2.0 * DGEMM**3
    check: tuple[int, int] = (0, 1)

    def compared(self, answer: Floats) -> Floats:
        return answer.copy()

    def filled(self) -> Product:
        return self

    def part(self, runs: slice) -> Product:
        return self


Workload = Training | Sgd | Henon | Product
Row = Training | Sgd | Henon

WORKLOADS: dict[int, Row] = {
    1: Training((2, 10, 1), "tanh", "mse", 100, k=41, runs=64, steps=100),
    2: Training((4, 10, 3), "sigmoid", "cross_entropy", 120, k=83, runs=16, steps=60),
    3: Training((4, 10, 3), "sigmoid", "cross_entropy", 120, k=10, runs=64, steps=100),
    4: Training((64, 32, 10), "tanh", "cross_entropy", 1797, k=10, runs=2, steps=10),
    5: Henon(runs=32, steps=2000),
    6: Henon(runs=32, steps=2000, vectors=True, check=(0, 8), aside=20),
    7: Ensemble((4, 10, 3), "sigmoid", "cross_entropy", 120, k=1, runs=200, steps=100, lr=1.0),
}
WORKLOADS |= {
    8 + 4 * single + i: Sgd(width, bool(single), steps=200)
    for single in (0, 1)
    for i, width in enumerate((64, 128, 256, 512))
}
WORKLOADS[16] = Training((784, 64, 10), "tanh", "cross_entropy", 1000, k=5, runs=1, steps=20)


# --- formulations ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Formulation:
    """One way of doing the work: which package, which line of the table, which options."""

    package: str
    line: str
    builder: str
    options: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return ", ".join(self.options.values())


BUILDERS: dict[str, Callable[..., Run]] = {}


def builder(function: Callable[..., Run]) -> Callable[..., Run]:
    BUILDERS[function.__name__] = function
    return function


def candidates(work: Workload, qr: str = "QR") -> list[Formulation]:
    """Every formulation of a workload; the QR of one's own comes second, see `other_qr`."""
    if isinstance(work, Product):
        return [Formulation("numpy", "dgemm", "dgemm")]
    if isinstance(work, Henon):
        kind = "vectors" if work.vectors else "spectrum"
        compiled = ["python", "numba"] if importlib.util.find_spec("numba") else ["python"]
        ways = {
            "pylyap": [*compiled, "numba tuple"],
            "lyapynov": compiled,
            "pynamicalsys": ["numba"],
        }
        if work.vectors:
            ways["clvlib"] = compiled
        return [
            Formulation(
                package, package, f"{package}_henon_{kind}", {"callables": f"{how} callables"}
            )
            for package, hows in ways.items()
            for how in hows
        ]
    if isinstance(work, Sgd):
        ways = {"jax": ["grad", "matmul"], "torch": ["autograd", "by hand"]}
        names = {"jax": "JAX", "torch": "PyTorch"}
        return [
            Formulation("pylyap", "pylyap", "pylyap_sgd"),
            *(
                Formulation(package, names[package], f"{package}_sgd", {"gradient": how})
                for package, hows in ways.items()
                for how in hows
            ),
        ]
    if isinstance(work, Ensemble):
        ways = {"jax": ["vmap(grad)", "matmul", "einsum"], "torch": ["matmul"], "numpy": ["matmul"]}
        names = {"jax": "JAX", "torch": "PyTorch", "numpy": "NumPy, by hand"}
        return [
            Formulation("pylyap", "pylyap", "pylyap_ensemble"),
            *(
                Formulation(package, names[package], f"{package}_ensemble", {"gradient": how})
                for package, hows in ways.items()
                for how in hows
            ),
        ]
    dense = work.n <= HOPELESS * work.k
    autodiff = ["jvp", "linearize", *(["hessian"] if dense else [])]
    hand = ["R-operator", *(["Hessian blocks"] if dense else [])]
    found = [Formulation("pylyap", "pylyap", "pylyap_training")]
    for package, name in (("jax", "JAX"), ("torch", "PyTorch")):
        for kind, tangents in (("autodiff", autodiff), ("by hand", hand)):
            for tangent, runs in itertools.product(tangents, ["singly", "vmap"]):
                if package == "torch" and (
                    tangent == "linearize"  # traces the function again at every step
                    or (runs == "singly" and work.runs > 4)  # pays Python for every run
                ):
                    continue
                options = {"tangent": tangent, "runs": runs, "qr": qr}
                found.append(
                    Formulation(package, f"{name}, {kind}", f"{package}_training", options)
                )
    found += [
        Formulation("numpy", "NumPy, by hand", "numpy_training", {"tangent": t, "qr": qr})
        for t in hand
    ]
    return found


def other_qr(formulation: Formulation) -> list[Formulation]:
    """The same tangents with the orthonormalisations of one's own."""
    own = {
        "jax": ["CholeskyQR2", "MGS", "panel GS"],
        "torch": ["CholeskyQR2"],
        "numpy": ["CholeskyQR2"],
    }
    if "qr" not in formulation.options:
        return []
    return [
        replace(formulation, options={**formulation.options, "qr": qr})
        for qr in own[formulation.package]
    ]


@builder
def dgemm(work: Product) -> Run:
    a, b = np.random.default_rng(0).normal(size=(2, DGEMM, DGEMM))
    out = np.empty((DGEMM, DGEMM))

    def run() -> Floats:
        np.matmul(a, b, out=out)
        return np.zeros((1, 1, 1))

    return run


# --- pylyap ---------------------------------------------------------------------------------------


@builder
def pylyap_training(work: Training) -> Run:
    import pylyap as pl

    net = pl.Network(work.layers, activation=work.activation, loss=work.loss)
    system = pl.TrainingMap(net, work.X, work.y, pl.GradientDescent(lr=work.lr))
    return lambda: (
        pl.lyapunov_spectrum(system, work.w0, work.steps, k=work.k, frame=work.frame).growth
    )


# --- formulas by hand, one text for NumPy, JAX and PyTorch ----------------------------------------


@dataclass
class ByHand:
    """Gradient step and tangent of a three-layer network as matrix products.

    Parameters are kept as [W1 | b1] and [W2 | b2], each in C order, so that biases are weights of a
    constant input; `order` sorts the network's own layout into this one, which changes no exponent.
    All arrays may have leading batch axes. xp is numpy, jax.numpy or torch.
    """

    xp: Any
    work: Training
    array: Callable[[Any], Any]

    def __post_init__(self) -> None:
        work, (d, h, o) = self.work, self.work.layers
        X1 = np.column_stack([work.X, np.ones(len(work.X))])
        index = np.arange(work.n)
        W1, b1, W2, b2 = np.split(index, np.cumsum([h * d, h, o * h]))
        self.order = np.concatenate(
            [
                np.column_stack([W1.reshape(h, d), b1]).ravel(),
                np.column_stack([W2.reshape(o, h), b2]).ravel(),
            ]
        )
        labels = work.y.reshape(-1, 1) if work.loss == "mse" else np.eye(o)[work.y]
        self.X = self.array(X1)
        self.target = self.array(labels)
        self.one = self.array(np.ones((len(X1), 1)))
        self.tail = self.array(np.tril(np.ones((o, o))))  # p @ tail: sums of p_c and what follows
        self.after = self.array(np.triu(np.ones((o, o)), 1)[:-1])
        self.eye_o = self.array(np.eye(o)[: max(o - 1, 1)])
        self.eye_h = self.array(np.eye(h).reshape(h, 1, h, 1))
        self.pad_h = self.array(np.eye(h + 1, h).reshape(1, h + 1, h, 1))
        self.corner = self.array(np.zeros((o * (h + 1), o * (h + 1))))

    def forward(self, w: Any) -> tuple[Any, ...]:
        xp, (d, h, o) = self.xp, self.work.layers
        batch = w.shape[:-1]
        W = w[..., : h * (d + 1)].reshape((*batch, h, d + 1))
        V = w[..., h * (d + 1) :].reshape((*batch, o, h + 1))
        z = self.X @ W.mT
        if self.work.activation == "tanh":
            a = xp.tanh(z)
            f1 = 1 - a * a
            f2 = -2 * a * f1
        else:
            a = 1 / (1 + xp.exp(-z))
            f1 = a * (1 - a)
            f2 = f1 * (1 - 2 * a)
        a1 = xp.concatenate([a, xp.broadcast_to(self.one, (*batch, *self.one.shape))], -1)
        out = a1 @ V.mT
        if self.work.loss == "cross_entropy":
            e = xp.exp(out - xp.amax(out, axis=-1, keepdims=True))
            out = e / e.sum(-1)[..., None]
        e = (out - self.target) / self.work.samples
        return V, a1, f1, f2, out, e, e @ V[..., :h]

    def gradient(self, a1: Any, f1: Any, e: Any, back: Any) -> Any:
        parts = ((back * f1).mT @ self.X, e.mT @ a1)
        return self.xp.concatenate([g.reshape((*g.shape[:-2], -1)) for g in parts], -1)

    def blocks(self, w: Any, Q: Any) -> tuple[Any, Any]:
        """The Hessian from its blocks: one product A^T A, and what the residuals add."""
        xp, (d, h, o) = self.xp, self.work.layers
        N = self.work.samples
        V, a1, f1, f2, out, e, back = self.forward(w)
        batch = w.shape[:-1]
        if self.work.loss == "cross_entropy":
            # diag p - p p^T = B^T B with outputs - 1 rows (Tanabe, Sagae, J. R. Stat. Soc. B 54,
            # 211 (1992)); s_c = p_c + p_{c+1} + ...
            s = out @ self.tail
            scale = xp.sqrt(out[..., :-1] * s[..., 1:] / s[..., :-1] / N)[..., None]
            B = scale * (self.eye_o - self.after * out[..., None, :] / s[..., 1:, None])
        else:
            B = xp.broadcast_to(self.eye_o / N**0.5, (*batch, N, 1, 1))
        rank = B.shape[-2]
        BV = (B.reshape((*batch, N * rank, o)) @ V[..., :h]).reshape((*batch, N, rank, h))
        first = (BV * f1[..., None, :])[..., None] * self.X[:, None, None, :]
        second = B[..., None] * a1[..., None, None, :]
        A = xp.concatenate(
            [
                first.reshape((*batch, N * rank, h * (d + 1))),
                second.reshape((*batch, N * rank, o * (h + 1))),
            ],
            -1,
        )
        diagonal = ((back * f2).mT @ self.XX).reshape((*batch, h, d + 1, 1, d + 1)) * self.eye_h
        mixed = (e[..., None] * f1[..., None, :]).reshape((*batch, N, o * h)).mT @ self.X
        mixed = mixed.reshape((*batch, o, 1, h, d + 1)) * self.pad_h
        upper = diagonal.reshape((*batch, h * (d + 1), h * (d + 1)))
        lower = mixed.reshape((*batch, o * (h + 1), h * (d + 1)))
        corner = xp.broadcast_to(self.corner, (*batch, *self.corner.shape))
        H = A.mT @ A + xp.concatenate(
            [xp.concatenate([upper, lower.mT], -1), xp.concatenate([lower, corner], -1)], -2
        )
        lr = self.work.lr
        return w - lr * self.gradient(a1, f1, e, back), Q - lr * (H @ Q)

    def r_operator(self, w: Any, Q: Any) -> tuple[Any, Any]:
        """Hessian times frame without the Hessian (Pearlmutter), columns beside the samples."""
        xp, (d, h, o) = self.xp, self.work.layers
        N, k, split = self.work.samples, self.work.k, h * (d + 1)
        V, a1, f1, f2, out, e, back = self.forward(w)
        batch = w.shape[:-1]
        columns = Q.mT
        RW = columns[..., :split].reshape((*batch, k * h, d + 1))
        RV = columns[..., split:].reshape((*batch, k, o, h + 1))
        Rz = (self.X @ RW.mT).reshape((*batch, N, k, h))
        Ra = f1[..., None, :] * Rz
        Rout = (a1 @ RV.reshape((*batch, k * o, h + 1)).mT).reshape((*batch, N * k, o))
        Rout = Rout + Ra.reshape((*batch, N * k, h)) @ V[..., :h].mT
        Re = Rout.reshape((*batch, N, k, o))
        if self.work.loss == "cross_entropy":
            p = out[..., None, :]
            Re = p * (Re - (p * Re).sum(-1)[..., None])
        Re = Re / N
        RVh = RV[..., :h].swapaxes(-3, -2).reshape((*batch, o, k * h))
        Rback = (Re.reshape((*batch, N * k, o)) @ V[..., :h]).reshape((*batch, N, k, h))
        Rback = Rback + (e @ RVh).reshape((*batch, N, k, h))
        Rdelta = Rback * f1[..., None, :] + (back * f2)[..., None, :] * Rz
        HW = Rdelta.reshape((*batch, N, k * h)).mT @ self.X
        HV = (Re.reshape((*batch, N, k * o)).mT @ a1).reshape((*batch, k, o, h + 1))
        HVh = (e.mT @ Ra.reshape((*batch, N, k * h))).reshape((*batch, o, k, h)).swapaxes(-3, -2)
        HV = xp.concatenate([HV[..., :h] + HVh, HV[..., h:]], -1)
        HQ = xp.concatenate(
            [HW.reshape((*batch, k, split)), HV.reshape((*batch, k, o * (h + 1)))], -1
        ).mT
        lr = self.work.lr
        return w - lr * self.gradient(a1, f1, e, back), Q - lr * HQ

    def tangent(self, name: str) -> Callable[[Any, Any], tuple[Any, Any]]:
        if name == "R-operator":
            return self.r_operator
        X = np.column_stack([self.work.X, np.ones(self.work.samples)])
        self.XX = self.array(np.einsum("si,sj->sij", X, X).reshape(len(X), -1))
        return self.blocks


def library_qr(xp: Any, A: Any) -> tuple[Any, Any]:
    """The library's Householder QR; signs make diag R > 0."""
    Q, R = xp.linalg.qr(A)
    r = xp.diagonal(R, 0, -2, -1)
    return Q * xp.sign(r)[..., None, :], xp.log(xp.abs(r))


def cholesky_qr2(xp: Any, solve: Callable[[Any, Any], Any], A: Any) -> tuple[Any, Any]:
    """Two rounds of R^T R = A^T A, A <- A R^-1; solve(L, A) is A L^-T."""
    growth = 0.0
    for _ in range(2):
        L = xp.linalg.cholesky(A.mT @ A)
        A = solve(L, A)
        growth = growth + xp.log(xp.diagonal(L, 0, -2, -1))
    return A, growth


# --- NumPy ----------------------------------------------------------------------------------------


@builder
def numpy_training(work: Training, tangent: str, qr: str) -> Run:
    hand = ByHand(np, work, np.asarray)
    push = hand.tangent(tangent)
    orthonormalise = {
        "QR": partial(library_qr, np),
        "CholeskyQR2": partial(cholesky_qr2, np, lambda L, A: A @ np.linalg.inv(L).mT),
    }[qr]

    def run() -> Floats:
        w = work.w0[:, hand.order]
        Q = np.broadcast_to(work.frame[hand.order], (work.runs, *work.frame.shape))
        growth = np.empty((work.runs, work.steps, work.k))
        for t in range(work.steps):
            w, Q = push(w, Q)
            Q, growth[:, t] = orthonormalise(Q)
        return growth

    return run


# --- JAX ------------------------------------------------------------------------------------------


@builder
def jax_training(work: Training, tangent: str, runs: str, qr: str) -> Run:
    import jax
    import jax.numpy as jnp
    from jax import lax

    jax.config.update("jax_enable_x64", True)
    hand = ByHand(jnp, work, jnp.asarray)
    d, h, o = work.layers
    X, y = jnp.asarray(work.X), jnp.asarray(work.y)
    activation = {"tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid}[work.activation]

    def loss(w: Any) -> Any:
        W1, b1, W2, b2 = jnp.split(w, np.cumsum([h * d, h, o * h]))
        out = activation(X @ W1.reshape(h, d).T + b1) @ W2.reshape(o, h).T + b2
        if work.loss == "mse":
            return ((out[:, 0] - y) ** 2).sum() / (2 * work.samples)
        return -jnp.take_along_axis(jax.nn.log_softmax(out), y[:, None], axis=1).mean()

    def step(w: Any) -> Any:
        return w - work.lr * jax.grad(loss)(w)

    def jvp(w: Any, Q: Any) -> tuple[Any, Any]:
        pairs: tuple[Any, Any] = jax.vmap(lambda v: jax.jvp(step, (w,), (v,)), 1, (None, 1))(Q)
        return pairs

    def linearize(w: Any, Q: Any) -> tuple[Any, Any]:
        after, push = jax.linearize(step, w)
        return after, jax.vmap(push, in_axes=1, out_axes=1)(Q)

    def hessian(w: Any, Q: Any) -> tuple[Any, Any]:
        return step(w), Q - work.lr * (jax.hessian(loss)(w) @ Q)

    def solve(L: Any, A: Any) -> Any:
        return lax.linalg.triangular_solve(L, A, lower=True, transpose_a=True)

    def by_columns(A: Any) -> tuple[Any, Any]:
        """Modified Gram-Schmidt, one rank-one update per column."""
        columns = jnp.arange(A.shape[1])

        def column(j: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            A, norms = carry
            a = lax.dynamic_index_in_dim(A, j, 1, keepdims=False)
            norm = jnp.sqrt((a * a).sum())
            q = a / norm
            A = A - q[:, None] * jnp.where(columns > j, q @ A, 0.0)
            A = lax.dynamic_update_index_in_dim(A, q, j, 1)
            return A, lax.dynamic_update_index_in_dim(norms, norm, j, 0)

        few = work.k <= 16
        A, norms = lax.fori_loop(0, work.k, column, (A, jnp.zeros(work.k)), unroll=few or None)
        return A, jnp.log(norms)

    def by_panels(A: Any, width: int = 16) -> tuple[Any, Any]:
        """Classical Gram-Schmidt between panels, twice, and CholeskyQR in them."""
        Q, growth = A[:, :0], []
        for j in range(0, work.k, width):
            panel, total = A[:, j : j + width], 0.0
            for _ in range(2):
                panel = panel - Q @ (Q.T @ panel)
                L = jnp.linalg.cholesky(panel.T @ panel)
                panel, total = solve(L, panel), total + jnp.log(jnp.diagonal(L))
            Q = jnp.concatenate([Q, panel], 1)
            growth.append(total)
        return Q, jnp.concatenate(growth)

    tangents: dict[str, Any] = {"jvp": jvp, "linearize": linearize, "hessian": hessian}
    push = tangents.get(tangent) or hand.tangent(tangent)
    order = np.arange(work.n) if tangent in tangents else hand.order
    methods: dict[str, Callable[[Any], tuple[Any, Any]]] = {
        "QR": partial(library_qr, jnp),
        "CholeskyQR2": partial(cholesky_qr2, jnp, solve),
        "MGS": by_columns,
        "panel GS": by_panels,
    }
    orthonormalise = methods[qr]

    def one(w: Any, Q: Any) -> Any:
        def body(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], Any]:
            w, Q = push(*carry)
            Q, growth = orthonormalise(Q)
            return (w, Q), growth

        return lax.scan(body, (w, Q), None, length=work.steps)[1]

    frame, w0 = jnp.asarray(work.frame[order]), jnp.asarray(work.w0[:, order])
    if runs == "vmap":
        compiled = jax.jit(jax.vmap(one, in_axes=(0, None)))
    else:
        compiled = jax.jit(lambda w, Q: lax.map(lambda start: one(start, Q), w))
    return lambda: jax.block_until_ready(compiled(w0, frame))


# --- PyTorch --------------------------------------------------------------------------------------


@builder
def torch_training(work: Training, tangent: str, runs: str, qr: str) -> Run:
    import torch
    from torch import func

    hand = ByHand(torch, work, lambda a: torch.as_tensor(np.asarray(a)))
    d, h, o = work.layers
    X, y = torch.as_tensor(work.X), torch.as_tensor(work.y)
    activation = {"tanh": torch.tanh, "sigmoid": torch.sigmoid}[work.activation]

    def loss(w: Any) -> Any:
        W1, b1, W2, b2 = torch.split(w, [h * d, h, o * h, o])
        out = activation(X @ W1.reshape(h, d).T + b1) @ W2.reshape(o, h).T + b2
        if work.loss == "mse":
            return ((out[:, 0] - y) ** 2).sum() / (2 * work.samples)
        return torch.nn.functional.cross_entropy(out, y)

    def step(w: Any) -> Any:
        return w - work.lr * func.grad(loss)(w)

    def jvp(w: Any, Q: Any) -> tuple[Any, Any]:
        after, JQ = func.vmap(lambda v: func.jvp(step, (w,), (v,)), 1, (0, 1))(Q)
        return after[0], JQ

    def hessian(w: Any, Q: Any) -> tuple[Any, Any]:
        return step(w), Q - work.lr * (func.hessian(loss)(w) @ Q)

    def solve(L: Any, A: Any) -> Any:
        return torch.linalg.solve_triangular(L.mT, A, upper=True, left=False)

    tangents: dict[str, Any] = {"jvp": jvp, "hessian": hessian}
    autodiff = tangents.get(tangent)
    push = autodiff or hand.tangent(tangent)
    if autodiff and runs == "vmap":
        push = func.vmap(autodiff)
    order = np.arange(work.n) if autodiff else hand.order
    methods: dict[str, Callable[[Any], tuple[Any, Any]]] = {
        "QR": partial(library_qr, torch),
        "CholeskyQR2": partial(cholesky_qr2, torch, solve),
    }
    orthonormalise = methods[qr]

    def advance(w: Any, Q: Any) -> Any:
        growth = []
        for _ in range(work.steps):
            w, Q = push(w, Q)
            Q, g = orthonormalise(Q)
            growth.append(g)
        return torch.stack(growth, -2)

    frame, w0 = torch.as_tensor(work.frame[order]), torch.as_tensor(work.w0[:, order])

    def run() -> Any:
        with torch.no_grad():
            if runs == "vmap":
                return advance(w0, frame.expand(work.runs, *frame.shape))
            return torch.stack([advance(w, frame) for w in w0])

    return run


# --- ensembles ----------------------------------------------------------------------------------


@builder
def pylyap_ensemble(work: Ensemble) -> Run:
    import pylyap as pl

    net = pl.Network(work.layers, activation=work.activation, loss=work.loss)
    system = pl.TrainingMap(net, work.X, work.y, pl.GradientDescent(lr=work.lr))

    def run() -> Floats:
        e = pl.perturbation_ensemble(
            system, work.w0, work.eps, work.copies, work.steps, distribution=work.directions
        )
        return e.distances[..., 1:].swapaxes(-1, -2)

    return run


def ensemble_loop(work: Ensemble, hand: ByHand) -> Callable[[Any], Any]:
    """One step of members (runs, 1 + copies, n) by hand, batched matrix products."""

    def step(w: Any) -> Any:
        _, a1, f1, _, _, e, back = hand.forward(w)
        return w - work.lr * hand.gradient(a1, f1, e, back)

    return step


@builder
def numpy_ensemble(work: Ensemble, gradient: str) -> Run:
    hand = ByHand(np, work, np.asarray)
    step, start = ensemble_loop(work, hand), work.members()[..., hand.order]

    def run() -> Floats:
        w, out = start, np.empty((work.runs, work.steps, work.copies))
        for t in range(work.steps):
            w = step(w)
            out[:, t] = np.abs(w[:, 1:] - w[:, :1]).sum(-1)
        return out

    return run


@builder
def torch_ensemble(work: Ensemble, gradient: str) -> Run:
    import torch

    hand = ByHand(torch, work, torch.as_tensor)
    step, start = ensemble_loop(work, hand), torch.as_tensor(work.members()[..., hand.order])

    def run() -> Any:
        w, out = start, []
        with torch.no_grad():
            for _ in range(work.steps):
                w = step(w)
                out.append((w[:, 1:] - w[:, :1]).abs().sum(-1))
        return torch.stack(out, 1).numpy()

    return run


@builder
def jax_ensemble(work: Ensemble, gradient: str) -> Run:
    import jax
    import jax.numpy as jnp
    from jax import lax

    jax.config.update("jax_enable_x64", True)
    d, h, o = work.layers
    hand = ByHand(jnp, work, jnp.asarray)
    X, y, target = jnp.asarray(work.X), jnp.asarray(work.y), jnp.asarray(np.eye(o)[work.y])

    def loss(w: Any) -> Any:
        W1, b1, W2, b2 = jnp.split(w, np.cumsum([h * d, h, o * h]))
        out = jax.nn.sigmoid(X @ W1.reshape(h, d).T + b1) @ W2.reshape(o, h).T + b2
        return -jnp.take_along_axis(jax.nn.log_softmax(out), y[:, None], axis=1).mean()

    def einsum(w: Any) -> Any:
        """All members of all runs beside the samples, in the order of the network."""
        flat = w.reshape(-1, work.n)
        W1, b1, W2, b2 = jnp.split(flat, np.cumsum([h * d, h, o * h]), axis=1)
        W1, W2 = W1.reshape(-1, h, d), W2.reshape(-1, o, h)
        a = jax.nn.sigmoid(jnp.einsum("sd,mhd->smh", X, W1) + b1)
        out = jnp.einsum("smh,moh->smo", a, W2) + b2
        e = (jax.nn.softmax(out) - target[:, None]) / work.samples
        back = jnp.einsum("smo,moh->smh", e, W2) * a * (1 - a)
        parts = [
            jnp.einsum("smh,sd->mhd", back, X).reshape(-1, h * d), back.sum(0),
            jnp.einsum("smo,smh->moh", e, a).reshape(-1, o * h), e.sum(0),
        ]  # fmt: skip
        return w - work.lr * jnp.concatenate(parts, 1).reshape(w.shape)

    ways: dict[str, Callable[[Any], Any]] = {
        "vmap(grad)": lambda w: w - work.lr * jax.vmap(jax.vmap(jax.grad(loss)))(w),
        "matmul": ensemble_loop(work, hand),
        "einsum": einsum,
    }
    step = ways[gradient]
    order = hand.order if gradient == "matmul" else np.arange(work.n)

    def body(w: Any, _: Any) -> tuple[Any, Any]:
        w = step(w)
        return w, jnp.abs(w[:, 1:] - w[:, :1]).sum(-1)

    @jax.jit
    def compiled(w: Any) -> Any:
        return lax.scan(body, w, None, length=work.steps)[1].swapaxes(0, 1)

    start = jnp.asarray(work.members()[..., order])
    return lambda: jax.block_until_ready(compiled(start))


# --- stochastic gradient descent ------------------------------------------------------------------


@builder
def pylyap_sgd(work: Sgd) -> Run:
    system = work.system()
    return lambda: system.trajectory(work.w0, work.steps, every=work.steps)[np.newaxis, -1:]


@builder
def torch_sgd(work: Sgd, gradient: str) -> Run:
    import torch

    dtype = getattr(torch, work.dtype)
    X = torch.as_tensor(work.images / 255.0, dtype=dtype)
    y = torch.as_tensor(work.labels)
    batches = [torch.as_tensor(b) for b in work.batches()]
    start = [torch.as_tensor(p) for p in work.start()]

    def autograd() -> Any:
        p = [a.clone().requires_grad_() for a in start]
        for chosen in batches:
            a = X[chosen]
            for i in (0, 2, 4):
                a = torch.nn.functional.linear(a, p[i], p[i + 1])
                a = torch.relu(a) if i < 4 else a
            loss = torch.nn.functional.cross_entropy(a, y[chosen])
            slopes = torch.autograd.grad(loss, p)
            with torch.no_grad():
                torch._foreach_add_(p, slopes, alpha=-work.lr)
        return p

    def by_hand() -> Any:
        W = [a.clone() for a in start]
        with torch.no_grad():
            for chosen in batches:
                x = X[chosen]
                a1 = torch.relu_(torch.addmm(W[1], x, W[0].T))
                a2 = torch.relu_(torch.addmm(W[3], a1, W[2].T))
                e = torch.softmax(torch.addmm(W[5], a2, W[4].T), 1)
                e[torch.arange(len(chosen)), y[chosen]] -= 1.0
                e *= -work.lr / len(chosen)
                e2 = (e @ W[4]).mul_(a2 > 0)
                e1 = (e2 @ W[2]).mul_(a1 > 0)
                for i, (error, value) in enumerate(((e1, x), (e2, a1), (e, a2))):
                    W[2 * i].addmm_(error.T, value)
                    W[2 * i + 1] += error.sum(0)
        return W

    run = {"autograd": autograd, "by hand": by_hand}[gradient]
    return lambda: torch.cat([p.detach().ravel() for p in run()])[None, None].numpy()


@builder
def jax_sgd(work: Sgd, gradient: str) -> Run:
    import jax
    import jax.numpy as jnp
    from jax import lax

    jax.config.update("jax_enable_x64", True)
    X = jnp.asarray(work.images / 255.0, dtype=work.dtype)
    y = jnp.asarray(work.labels)
    batches = jnp.asarray(np.stack(work.batches()))  # all whole in so few steps
    start = [jnp.asarray(p) for p in work.start()]
    one_hot = jnp.eye(10, dtype=work.dtype)

    def loss(p: Any, x: Any, labels: Any) -> Any:
        a = jax.nn.relu(x @ p[0].T + p[1])
        a = jax.nn.relu(a @ p[2].T + p[3])
        out = jax.nn.log_softmax(a @ p[4].T + p[5])
        return -jnp.take_along_axis(out, labels[:, None], axis=1).mean()

    def matmul(p: Any, x: Any, labels: Any) -> list[Any]:
        a1 = jax.nn.relu(x @ p[0].T + p[1])
        a2 = jax.nn.relu(a1 @ p[2].T + p[3])
        e = (jax.nn.softmax(a2 @ p[4].T + p[5]) - one_hot[labels]) / work.batch
        e2 = (e @ p[4]) * (a2 > 0)
        e1 = (e2 @ p[2]) * (a1 > 0)
        return [e1.T @ x, e1.sum(0), e2.T @ a1, e2.sum(0), e.T @ a2, e.sum(0)]

    slopes = {"grad": jax.grad(loss), "matmul": matmul}[gradient]

    def body(p: Any, chosen: Any) -> tuple[Any, None]:
        found = slopes(p, X[chosen], y[chosen])
        return [a - work.lr * g for a, g in zip(p, found, strict=True)], None

    compiled = jax.jit(lambda p: lax.scan(body, p, batches)[0])
    return lambda: np.concatenate([np.ravel(p) for p in compiled(start)])[None, None]


# --- the map --------------------------------------------------------------------------------------


def henon_step(x: Floats) -> Floats:
    return np.array([1.0 - 1.4 * x[0] * x[0] + x[1], 0.3 * x[0]])


def henon_jacobian(x: Floats) -> Floats:
    return np.array([[-2.8 * x[0], 1.0], [0.3, 0.0]])


def compiled(callables: str) -> tuple[Any, Any]:
    if callables.startswith("numba"):
        from numba import njit

        return njit(henon_step), njit(henon_jacobian)
    return henon_step, henon_jacobian


def increments(means: Floats) -> Floats:
    """Growth at each step (..., steps, k) from running means of it."""
    count = np.arange(1, means.shape[-2] + 1)[:, np.newaxis]
    return np.diff(means * count, axis=-2, prepend=0.0)


def pylyap_henon(callables: str) -> Any:
    import pylyap as pl

    if callables.startswith("numba tuple"):
        return pl.DiscreteMap(
            lambda x: (1 - 1.4 * x[0] ** 2 + x[1], 0.3 * x[0]),
            lambda x: ((-2.8 * x[0], 1.0), (0.3, 0.0)),
            2,
            compiled=True,
        )
    return pl.DiscreteMap(henon_step, henon_jacobian, 2, compiled=callables.startswith("numba"))


@builder
def pylyap_henon_spectrum(work: Henon, callables: str) -> Run:
    import pylyap as pl

    system = pylyap_henon(callables)
    return lambda: pl.lyapunov_spectrum(system, work.x0, work.steps).growth


@builder
def pylyap_henon_vectors(work: Henon, callables: str) -> Run:
    import pylyap as pl

    system = pylyap_henon(callables)
    steps, aside = work.steps, work.aside

    def run() -> Floats:
        c = pl.covariant_lyapunov_vectors(system, work.x0, steps, 2, aside, aside)
        return c.vectors  # type: ignore[return-value]

    return run


def lyapynov_henon(x: Floats, callables: str) -> Any:
    import lyapynov

    step, jacobian = compiled(callables)
    return lyapynov.DiscreteDS(x.copy(), 0, lambda x, t: step(x), lambda x, t: jacobian(x))


@builder
def lyapynov_henon_spectrum(work: Henon, callables: str) -> Run:
    import lyapynov

    def one(x: Floats) -> Floats:
        means: Floats = lyapynov.LCE(lyapynov_henon(x, callables), 2, 0, work.steps, True)[1]
        return means

    return lambda: increments(np.stack([one(x) for x in work.x0]))


@builder
def lyapynov_henon_vectors(work: Henon, callables: str) -> Run:
    import lyapynov

    def one(x: Floats) -> Floats:
        system = lyapynov_henon(x, callables)
        return np.array(lyapynov.CLV(system, 2, 0, work.aside, work.steps, work.aside, False))

    return lambda: np.stack([one(x) for x in work.x0])


@builder
def clvlib_henon_vectors(work: Henon, callables: str) -> Run:
    from clvlib.numpy import lyap_analysis_from_ic

    step, jacobian = compiled(callables)
    times = np.arange(work.aside + work.steps + work.aside + 1.0)  # it knows no transients

    def one(x: Floats) -> Floats:
        found = lyap_analysis_from_ic(
            lambda t, x: step(x), lambda t, x: jacobian(x), x, times, stepper="discrete"
        )
        vectors: Floats = found[4][work.aside : work.aside + work.steps]
        return vectors

    return lambda: np.stack([one(x) for x in work.x0])


def pynamicalsys_henon() -> Any:
    from numba import njit
    from pynamicalsys import DiscreteDynamicalSystem

    step, jacobian = compiled("numba")
    return DiscreteDynamicalSystem(
        mapping=njit(lambda u, parameters: step(u)),
        jacobian=njit(lambda u, parameters, *args: jacobian(u)),
        system_dimension=2,
        number_of_parameters=0,
    )


@builder
def pynamicalsys_henon_spectrum(work: Henon, **_: str) -> Run:
    system = pynamicalsys_henon()

    def one(x: Floats) -> Floats:
        # The tangent map is taken after each step, not before: from the preimage the work is ours.
        u = x[1] / 0.3
        before = np.array([u, x[0] - 1.0 + 1.4 * u * u])
        means: Floats = system.lyapunov(before, work.steps, method="QR", return_history=True)
        return means

    return lambda: increments(np.stack([one(x) for x in work.x0]))


@builder
def pynamicalsys_henon_vectors(work: Henon, **_: str) -> Run:
    system = pynamicalsys_henon()

    def one(x: Floats) -> Floats:
        vectors: Floats = system.CLV(x, work.steps, warmup_time=work.aside, tail_time=work.aside)[0]
        return vectors

    return lambda: np.stack([one(x) for x in work.x0])


# --- harness --------------------------------------------------------------------------------------

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}


def serve(connection: Any, core: int | None) -> None:
    """A worker: builds formulations, runs them when told, answers with seconds and growth."""
    if core is not None:
        os.sched_setaffinity(0, {core})
    built: dict[int, Run] = {}
    while True:
        try:
            command, key, *arguments = connection.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            answer: Any = None
            if command == "build":
                name, options, work = arguments
                built[key] = BUILDERS[name](work, **options)
                answer = work.compared(np.asarray(built[key]())[:, : max(work.check[1], 1)])
            elif command == "time":
                time.sleep(SETTLE)
                began, calls, answer = time.perf_counter(), 0, 0.0
                while answer < SHORTEST:
                    built[key]()
                    calls += 1
                    answer = time.perf_counter() - began
                answer /= calls
            elif command == "drop":
                built.pop(key, None)
        except Exception as error:  # whatever a peer raises is a line of the report
            text = str(error).strip()
            answer = RuntimeError(f"{type(error).__name__}: {text.splitlines()[0] if text else ''}")
        connection.send(answer)


@contextmanager
def environment(changes: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class Team:
    """Worker processes that share the runs: one with all threads, or one pinned to each core."""

    def __init__(self, name: str, cores: Sequence[int | None]) -> None:
        self.name = name
        self.cores = cores
        self.generation = 0
        self.start()

    def start(self) -> None:
        self.generation += 1
        self.members = []
        context = multiprocessing.get_context("spawn")
        pinned = ONE_THREAD if self.cores[0] is not None else {}
        with environment({"JAX_PLATFORMS": "cpu", **pinned}):
            for core in self.cores:
                ours, theirs = context.Pipe()
                process = context.Process(target=serve, args=(theirs, core), daemon=True)
                process.start()
                theirs.close()
                self.members.append((process, ours))

    def ask(self, messages: Sequence[tuple[Any, ...]]) -> list[Any]:
        """One message to each of the first members, at the same moment; their answers."""
        members = self.members[: len(messages)]
        answers = []
        try:
            for (_, connection), message in zip(members, messages, strict=True):
                connection.send(message)
            for _, connection in members:
                if not connection.poll(PATIENCE):
                    raise TimeoutError(f"no answer within {PATIENCE:g} s")
                answers.append(connection.recv())
        except (OSError, EOFError) as error:  # late, or dead: begin again with new workers
            self.close()
            self.start()
            raise RuntimeError(str(error) or "the process died") from None
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    def close(self) -> None:
        for process, connection in self.members:
            connection.close()
            process.join(1)
            if process.is_alive():
                process.kill()


@dataclass(eq=False)
class Contender:
    """A formulation in the hands of a team."""

    formulation: Formulation
    team: Team
    work: Workload
    key: int
    seconds: list[float] = field(default_factory=list)  # per step and run
    fault: str = ""

    def __str__(self) -> str:
        how = str(self.formulation)
        return f"{how}{', ' if how else ''}{self.team.name}"

    @property
    def time(self) -> float:
        return median(self.seconds) if self.seconds and not self.fault else math.inf

    def build(self, reference: Floats | None) -> Floats | None:
        """Compile, warm up, and compare exponents over the first steps; the growth of these."""
        members = len(self.team.members)
        if isinstance(self.work, Product):
            self.parts: list[Workload] = [self.work] * members
        else:
            pieces = np.array_split(np.arange(self.work.runs), members)
            self.parts = [
                self.work.part(slice(int(p[0]), int(p[-1]) + 1)) for p in pieces if len(p)
            ]
        f = self.formulation
        try:
            answers = self.team.ask(
                [("build", self.key, f.builder, f.options, part) for part in self.parts]
            )
        except RuntimeError as error:
            self.fault = str(error)
            return None
        self.generation = self.team.generation
        growth: Floats = np.concatenate(answers)
        if reference is not None and not isinstance(self.work, Product):
            window = slice(*self.work.check)
            difference = growth[:, window].mean(axis=1) - reference[:, window].mean(axis=1)
            apart = float(np.abs(difference).max())
            if not apart <= getattr(self.work, "tolerance", TOLERANCE):  # nan is a disagreement too
                self.fault = f"disagrees: exponents differ by {apart:.1g}"
        return growth

    def measure(self) -> None:
        """One more repetition; throughputs of the members are added."""
        if not self.fault and self.generation != self.team.generation:
            self.build(None)  # another candidate took the workers down
        if self.fault:
            return
        try:
            elapsed = self.team.ask([("time", self.key)] * len(self.parts))
        except RuntimeError as error:
            self.fault = str(error)
            return
        rate = sum(part.runs * part.steps / t for part, t in zip(self.parts, elapsed, strict=True))
        self.seconds.append(1 / rate)

    def drop(self) -> None:
        self.team.ask([("drop", self.key)] * len(self.parts))


@dataclass
class Harness:
    teams: list[Team]
    screening: int
    repetitions: int
    console: Console
    verbose: bool = False
    without: frozenset[str] = frozenset()
    keys: Iterator[int] = field(default_factory=itertools.count)

    def try_out(
        self,
        formulation: Formulation,
        team: Team,
        work: Workload,
        reference: Floats | None,
        tried: list[Contender],
    ) -> Floats | None:
        """Time a candidate and add it to `tried`; once only if far behind others of its line."""
        contender = Contender(formulation, team, work, next(self.keys))
        rivals = [c.time for c in tried if c.formulation.line == formulation.line]
        tried.append(contender)
        with self.console.status(f"{formulation.line}: {contender}"):
            growth = contender.build(reference)
            for _ in range(self.screening):
                contender.measure()
                if contender.time > OUTRUN * min(rivals, default=math.inf):
                    break
        if self.verbose:
            outcome = contender.fault or f"{1e6 * contender.time:.4g} us"
            self.console.print(f"{formulation.line}, {contender}: {outcome}", style="dim")
        return growth

    def row(self, work: Row) -> tuple[list[Contender], list[Contender], list[str]]:
        """The best contender of each line, timed in turns; all candidates; what is missing."""
        work = work.filled()
        reference: Floats | None = None
        tried: list[Contender] = []
        missing: list[str] = []
        for formulation in [*candidates(work), *candidates(Product())]:
            if formulation.package in self.without:
                continue
            if not importlib.util.find_spec(formulation.package):
                if formulation.line not in missing:
                    missing.append(formulation.line)
                continue
            # pylyap's threads are its own; only a map's Python callables need processes
            alone = formulation.builder in ("pylyap_training", "pylyap_ensemble", "pylyap_sgd")
            for team in self.teams[:1] if alone else self.teams:
                task: Workload = Product() if formulation.line == "dgemm" else work
                growth = self.try_out(formulation, team, task, reference, tried)
                if reference is None:
                    if growth is None:
                        raise SystemExit(f"pylyap: {tried[-1].fault}")
                    reference = growth
        for line in {c.formulation.line: None for c in tried}:
            for contender in self.promising([c for c in tried if c.formulation.line == line]):
                for formulation in other_qr(contender.formulation):
                    self.try_out(formulation, contender.team, work, reference, tried)
        lines: dict[str, list[Contender]] = {}
        for contender in sorted(tried, key=lambda c: c.time):
            lines.setdefault(contender.formulation.line, []).append(contender)
        finalists = [c for line in lines.values() for c in line[:FINALISTS] if not c.fault]
        kept = {c.key for c in finalists}
        for contender in tried:
            if contender.key not in kept:
                contender.drop()
        for contender in finalists:
            contender.seconds = []
        for _ in self.repetitions * [None]:
            for contender in finalists:
                contender.measure()
        for contender in finalists:
            contender.drop()
        best = {name: min(line[:FINALISTS], key=lambda c: c.time) for name, line in lines.items()}
        order = {c.formulation.line: None for c in tried}
        return [best[name] for name in order], tried, missing

    def promising(self, contenders: list[Contender]) -> list[Contender]:
        """The fastest for each way to batch and each team, if within reach of the fastest."""
        groups: dict[tuple[str, str], Contender] = {}
        for contender in sorted(contenders, key=lambda c: c.time):
            if not contender.fault:
                group = (contender.formulation.options.get("runs", ""), contender.team.name)
                groups.setdefault(group, contender)
        least = min((c.time for c in groups.values()), default=math.inf)
        return [c for c in groups.values() if c.time <= OUTRUN * least]


# --- report ---------------------------------------------------------------------------------------


def machine() -> str:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            model = next(line.split(":")[1].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}, {len(os.sched_getaffinity(0))} cores"


def versions() -> dict[str, str]:
    found = {}
    for name in ("pylyap", "numpy", "jax", "torch", "pynamicalsys", "lyapynov", "clvlib", "numba"):
        if importlib.util.find_spec(name):
            found[name] = importlib.metadata.version(name)
    return found


def table(number: int, work: Row, best: list[Contender], missing: list[str]) -> Table:
    yardstick = next(c for c in best if c.formulation.line == "dgemm")
    peak = yardstick.work.flops / yardstick.time / 1e9
    ours = next(c for c in best if c.formulation.line == "pylyap")
    counted = not math.isnan(work.flops)
    caption = f"dgemm of {DGEMM}^3 in the same repetitions: {peak:.1f} GF/s ({yardstick.team.name})"
    shown = Table(
        title=f"Row {number}: {work.title}, {work.steps} steps",
        caption=caption if counted else None,
        title_justify="left",
        caption_justify="left",
    )
    shown.add_column("")
    shown.add_column("best formulation", overflow="fold")
    for name in ("us", "least … most", "x pylyap", *(["GF/s", "dgemm"] if counted else [])):
        shown.add_column(name, justify="right", no_wrap=True)
    for contender in best:
        line = contender.formulation.line
        if line == "dgemm":
            continue
        if contender.fault:
            shown.add_row(line, f"{contender}: {contender.fault}")
            continue
        us = [1e6 * s for s in contender.seconds]
        rate = work.flops / contender.time / 1e9
        cells = [f"{median(us):.4g}", f"{min(us):.4g} … {max(us):.4g}"]
        cells.append(f"{contender.time / ours.time:.2f}")
        if counted:
            cells += [f"{rate:.1f}", f"{rate / peak:.0%}"]
        shown.add_row(line, str(contender), *cells)
    for line in missing:
        shown.add_row(line, "not installed")
    return shown


def record(contender: Contender) -> dict[str, Any]:
    return {
        "line": contender.formulation.line,
        "formulation": asdict(contender.formulation),
        "team": contender.team.name,
        "seconds_per_step_and_run": contender.seconds,
        "fault": contender.fault,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Measure pylyap beside other packages.",
        epilog="Rows: " + "; ".join(f"{i}: {w.title}" for i, w in WORKLOADS.items()),
    )
    parser.add_argument("--quick", action="store_true", help="few steps and repetitions")
    parser.add_argument(
        "--rows", default=",".join(map(str, WORKLOADS)), help="rows to measure, such as 1,3"
    )
    parser.add_argument(
        "--without", default="", metavar="PACKAGES", help="packages to leave out, such as torch"
    )
    parser.add_argument("--verbose", action="store_true", help="print every candidate")
    parser.add_argument("--json", metavar="FILE", help="write every repetition to FILE")
    chosen = parser.parse_args(arguments)
    try:
        rows = [int(text) for text in chosen.rows.split(",")]
        works = {number: WORKLOADS[number] for number in rows}
    except (ValueError, KeyError):
        parser.error(f"--rows must be a list of {', '.join(map(str, WORKLOADS))}")
    without = frozenset(filter(None, chosen.without.split(",")))
    if without & {"numpy", "pylyap"}:
        parser.error("--without cannot leave out pylyap, nor numpy, whose dgemm is the yardstick")
    if chosen.quick:
        works = {i: replace(w, steps=max(w.steps // 5, w.check[1])) for i, w in works.items()}
    console = Console(width=None if sys.stdout.isatty() else 110)
    load = os.getloadavg()[0]
    console.print(f"{machine()}; load {load:.2f}{' (NOT QUIET)' if load > 0.3 else ''}")
    console.print(", ".join(f"{name} {version}" for name, version in versions().items()))
    cores = sorted(os.sched_getaffinity(0))
    teams = [Team("threads", [None]), Team("per core", cores)]
    often = (1, 3) if chosen.quick else (3, 9)
    harness = Harness(teams, *often, console, chosen.verbose, without)
    report: dict[str, Any] = {"machine": machine(), "load": load, "versions": versions()}
    report["rows"] = {}
    try:
        for number, work in works.items():
            best, tried, missing = harness.row(work)
            console.print()
            console.print(table(number, work, best, missing))
            faults = {f"{c.formulation.line}, {c}: {c.fault}": None for c in tried if c.fault}
            for fault in faults:
                console.print(f"not timed: {fault}", style="dim", highlight=False)
            report["rows"][number] = {
                "title": work.title,
                "steps": work.steps,
                "flops_per_step_and_run": work.flops,
                "finalists": [record(c) for c in best],
                "candidates": [record(c) for c in tried if c not in best],
                "missing": missing,
            }
            if chosen.json:
                with open(chosen.json, "w", encoding="utf-8") as file:
                    json.dump(report, file, indent=1)
    finally:
        for team in teams:
            team.close()


if __name__ == "__main__":
    main()
