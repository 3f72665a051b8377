"""The compiled core. Arrays that come back are written in place, for `count` runs from `first`."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float64]
_Integers = NDArray[np.int64]
_Inputs = _Floats | NDArray[np.uint8]  # numbers, or pictures
_Activation = str | tuple[int, int, object]  # a name, or addresses of loops and what owns them

ACTIVATIONS: tuple[str, ...]

class Network:
    def __init__(
        self, layers: list[int], activations: Sequence[_Activation], loss: str
    ) -> None: ...
    @property
    def n_params(self) -> int: ...
    def predict(
        self,
        weights: _Floats,
        X: _Inputs,
        out: _Floats,
        cancel: NDArray[np.int32],
        first: int,
        count: int,
    ) -> None: ...

class SpectrumRuns:
    def __init__(
        self,
        states: _Floats,
        start: int,
        n_transient: int,
        n_steps: int,
        qr_every: int,
        record_every: int,
        frame: _Floats,
        growth: _Floats,
        loss: _Floats,
        state: _Floats,
        status: _Integers,
        n_done: _Integers,
        transient_growth: _Floats,
        segment: int,
        products: _Floats | None,
        exponents: _Floats | None,
    ) -> None: ...

class CovariantRuns:
    def __init__(
        self,
        states: _Floats,
        start: int,
        n_transient: int,
        n_steps: int,
        n_tail: int,
        qr_every: int,
        every: int,
        delay: int,
        segment: int,
        frame: _Floats,
        far: _Floats,
        vectors: _Floats | None,
        coefficients: _Floats,
        path: _Floats,
        growth: _Floats,
        aligned: _Floats,
        residual: _Floats,
        transient_growth: _Floats,
        tail_growth: _Floats,
        early_vectors: _Floats | None,
        early_coefficients: _Floats | None,
        early_error: _Floats | None,
        status: _Integers,
        n_done: _Integers,
    ) -> None: ...

class TrainingMap:
    def __init__(
        self,
        network: Network,
        X: _Inputs,
        targets: _Floats,
        adam: bool,
        momentum: bool,
        nesterov: bool,
        beta1: float,
        beta2: float,
        epsilon: float,
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
    def evaluate(
        self,
        weights: _Floats,
        loss: _Floats | None,
        gradient: _Floats | None,
        hessian: _Floats | None,
        cancel: NDArray[np.int32],
        members: int,
        first: int,
        count: int,
    ) -> None: ...
    def hessian_vectors(
        self,
        weights: _Floats,
        vectors: _Floats,
        out: _Floats,
        cancel: NDArray[np.int32],
        members: int,
        first: int,
        count: int,
    ) -> None: ...
    def one_step(
        self,
        states: _Floats,
        lr: _Floats,
        momentum: _Floats,
        weight_decay: _Floats,
        t: int,
        vectors: _Floats | None,
        method: str,
        next: _Floats | None,
        out: _Floats | None,
        cancel: NDArray[np.int32],
        members: int,
        first: int,
        count: int,
    ) -> None: ...
    def trajectory(
        self,
        states: _Floats,
        lr: _Floats,
        momentum: _Floats,
        weight_decay: _Floats,
        start: int,
        n_steps: int,
        every: int,
        out: _Floats,
        cancel: NDArray[np.int32],
        done: _Integers,
        members: int,
        first: int,
        count: int,
    ) -> None: ...
    def spectrum(
        self,
        runs: SpectrumRuns,
        lr: _Floats,
        momentum: _Floats,
        weight_decay: _Floats,
        method: str,
        cancel: NDArray[np.int32],
        done: _Integers,
        members: int,
        first: int,
        count: int,
    ) -> None: ...
    def covariant(
        self,
        runs: CovariantRuns,
        lr: _Floats,
        momentum: _Floats,
        weight_decay: _Floats,
        method: str,
        cancel: NDArray[np.int32],
        done: _Integers,
        members: int,
        first: int,
        count: int,
    ) -> None: ...
    def batch(self, t: int) -> _Integers: ...
    def cost(self, k: int, asked: str) -> float: ...
    def method(self, k: int, asked: str) -> str: ...

def orthonormalise(frame: _Floats, scale: _Floats | None) -> tuple[_Floats, _Floats, _Floats]: ...
def spectrum_of_map(
    runs: SpectrumRuns,
    step: Callable[[_Floats, int], _Floats] | int,  # or the address of a compiled one
    jacobian: Callable[[_Floats, int], _Floats] | int | None,
    tangent: Callable[[_Floats, _Floats, int], _Floats] | None,
    value: Callable[[_Floats], float] | None,
    cancel: NDArray[np.int32],
    done: _Integers,
    first: int,
    count: int,
) -> None: ...
def covariant_of_map(
    runs: CovariantRuns,
    step: Callable[[_Floats, int], _Floats] | int,  # or the address of a compiled one
    jacobian: Callable[[_Floats, int], _Floats] | int | None,
    tangent: Callable[[_Floats, _Floats, int], _Floats] | None,
    cancel: NDArray[np.int32],
    done: _Integers,
    first: int,
    count: int,
) -> None: ...
def group_of_map(n: int) -> int: ...
def window_growth(
    factors: _Floats,
    exponents: _Floats,
    per_window: int,
    stride: int,
    out: _Floats,
    cancel: NDArray[np.int32],
    first: int,
    count: int,
) -> None: ...
def elementary(name: str, x: _Floats) -> _Floats: ...
def activate(activation: _Activation, z: _Floats) -> tuple[_Floats, _Floats, _Floats]: ...
def build() -> dict[str, Any]: ...
