"""The compiled core. Arrays over runs, float64 and C-contiguous, are taken as they are or refused.

Kernels write the runs of a `Task` in place: in `out`, or in the arrays of `SpectrumRuns` and
`CovariantRuns`, which allocate their own.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float64]
_Integers = NDArray[np.int64]
_Inputs = _Floats | NDArray[np.uint8]  # float64, or uint8 images
_Activation = str | tuple[int, int, object]  # a name, or addresses of loops and their owner

ACTIVATIONS: tuple[str, ...]

class Rates:
    def __init__(
        self,
        lr: _Floats,
        momentum: _Floats,
        weight_decay: _Floats,
        factors: _Floats | None = None,
    ) -> None: ...

class Task:
    def __init__(
        self, cancel: NDArray[np.int32], done: _Integers, workers: int, first: int, count: int
    ) -> None: ...
    @property
    def workers(self) -> int: ...
    @property
    def first(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def cancelled(self) -> bool: ...
    def over(self, first: int, count: int) -> Task: ...

class Architecture:
    def __init__(
        self, layers: list[int], activations: Sequence[_Activation], loss: str
    ) -> None: ...
    @property
    def n_params(self) -> int: ...
    def predict(self, weights: _Floats, X: _Inputs, out: _Floats, task: Task) -> None: ...

class Optimizer:
    def __init__(
        self,
        *,
        adam: bool,
        momentum: bool,
        nesterov: bool,
        beta1: float,
        beta2: float,
        epsilon: float,
    ) -> None: ...

class SpectrumRuns:
    def __init__(
        self,
        x0: _Floats,
        frame: _Floats,
        *,
        start: int,
        n_transient: int,
        n_steps: int,
        qr_every: int,
        record_every: int,
        segment: int = 0,
    ) -> None: ...
    @property
    def growth(self) -> _Floats: ...
    @property
    def loss(self) -> _Floats: ...
    @property
    def state(self) -> _Floats: ...
    @property
    def frame(self) -> _Floats: ...
    @property
    def status(self) -> _Integers: ...
    @property
    def n_done(self) -> _Integers: ...
    @property
    def transient_growth(self) -> _Floats: ...
    @property
    def products(self) -> _Floats | None: ...
    @property
    def exponents(self) -> _Floats | None: ...

class CovariantRuns:
    def __init__(
        self,
        x0: _Floats,
        frame: _Floats,
        end_coefficients: _Floats,
        *,
        start: int,
        n_transient: int,
        n_steps: int,
        n_tail: int,
        qr_every: int,
        every: int,
        delay: int,
        segment: int,
        vectors: bool,
    ) -> None: ...
    @property
    def vectors(self) -> _Floats | None: ...
    @property
    def coefficients(self) -> _Floats: ...
    @property
    def states(self) -> _Floats: ...
    @property
    def growth(self) -> _Floats: ...
    @property
    def frame_growth(self) -> _Floats: ...
    @property
    def residual(self) -> _Floats: ...
    @property
    def transient_growth(self) -> _Floats: ...
    @property
    def tail_growth(self) -> _Floats: ...
    @property
    def early_vectors(self) -> _Floats | None: ...
    @property
    def early_coefficients(self) -> _Floats | None: ...
    @property
    def early_error(self) -> _Floats | None: ...
    @property
    def end_coefficients(self) -> _Floats: ...
    @property
    def status(self) -> _Integers: ...
    @property
    def n_done(self) -> _Integers: ...

class Problem:
    def __init__(
        self,
        architecture: Architecture,
        X: _Inputs,
        targets: _Floats,
        optimizer: Optimizer,
        *,
        batch_size: int,
        shuffle: bool,
        seed: int,
        single: bool,
    ) -> None: ...
    def set_schedule(self, first: int, factors: _Floats) -> None: ...
    @property
    def n(self) -> int: ...
    @property
    def group(self) -> int: ...
    @property
    def alone(self) -> int: ...
    def evaluate(
        self,
        weights: _Floats,
        loss: _Floats | None,
        gradient: _Floats | None,
        hessian: _Floats | None,
        task: Task,
    ) -> None: ...
    def hessian_vectors(
        self, weights: _Floats, vectors: _Floats, out: _Floats, task: Task
    ) -> None: ...
    def step(self, states: _Floats, rates: Rates, t: int, out: _Floats, task: Task) -> None: ...
    def tangent(
        self,
        states: _Floats,
        rates: Rates,
        t: int,
        vectors: _Floats,
        method: str,
        out: _Floats,
        task: Task,
    ) -> None: ...
    def trajectory(
        self,
        states: _Floats,
        rates: Rates,
        start: int,
        n_steps: int,
        every: int,
        out: _Floats,
        task: Task,
    ) -> None: ...
    def loss_series(
        self,
        states: _Floats,
        rates: Rates,
        start: int,
        losses: _Floats,
        next: _Floats,
        task: Task,
    ) -> None: ...
    def spectrum(self, runs: SpectrumRuns, rates: Rates, method: str, task: Task) -> None: ...
    def covariant(self, runs: CovariantRuns, rates: Rates, method: str, task: Task) -> None: ...
    def batch(self, t: int) -> _Integers: ...
    def cost(self, k: int, asked: str) -> float: ...
    def workers_inside(self, k: int, asked: str, task: Task) -> int: ...
    def method(self, k: int, asked: str) -> str: ...

class CallableMap:
    def __init__(
        self,
        step: Callable[[_Floats, int], _Floats] | int,  # or the address of a compiled function
        jacobian: Callable[[_Floats, int], _Floats] | int | None,
        tangent: Callable[[_Floats, _Floats, int], _Floats] | None,
        loss: Callable[[_Floats], float] | None,
    ) -> None: ...
    def spectrum(self, runs: SpectrumRuns, task: Task) -> None: ...
    def covariant(self, runs: CovariantRuns, task: Task) -> None: ...
    @staticmethod
    def group(n: int) -> int: ...

class Lockstep:
    def __init__(self, runs: SpectrumRuns) -> None: ...
    def take(
        self, step: int, states: _Floats, pushed: _Floats, source: _Floats | None, task: Task
    ) -> None: ...

def orthonormalise(frame: _Floats, scale: _Floats | None) -> tuple[_Floats, _Floats, _Floats]: ...
def orthonormalise_rows(frame: _Floats, workers: int) -> tuple[_Floats, _Floats]: ...
def window_growth(
    factors: _Floats,
    exponents: _Floats,
    per_window: int,
    stride: int,
    out: _Floats,
    task: Task,
) -> None: ...
def elementary(name: str, x: _Floats) -> _Floats: ...
def activate(activation: _Activation, z: _Floats) -> tuple[_Floats, _Floats, _Floats]: ...
def build() -> dict[str, Any]: ...
