"""Products of the Hessian of a scalar function with vectors, by the fastest method that works."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from time import perf_counter
from typing import Any, Literal, NamedTuple

import torch
from torch.func import grad, jvp, vjp, vmap

from pylyap import _checks
from pylyap._bridges.torch.model import one_line
from pylyap._errors import ArgumentError

# Reverse over forward is left out: torch 2.13 has no derivative of the statistics that the forward
# rule of layer_norm keeps, and returns wrong products without an error.
JVP = Literal["forward-over-reverse", "reverse-over-reverse", "loop"]
Function = Callable[[Any], Any]  # w (n,) -> scalar


class Evaluated(NamedTuple):
    """A point, and the value of a function there, with what a derivative needs."""

    w: Any
    value: Any


def evaluated(f: Function, w: Any) -> Evaluated:
    """The value of a function at w (n,)."""
    w = w.detach().requires_grad_()
    return Evaluated(w, f(w))


class Product(NamedTuple):
    """H vectors (k, n), and the gradient (n,) where the method has computed it."""

    vectors: Any
    gradient: Any | None


def _forward_over_reverse(f: Function, w: Any, V: Any, size: int | None) -> Product:
    def push(v: Any) -> Any:
        return jvp(grad(f), (w,), (v,))[1]

    return Product(vmap(push, chunk_size=size)(V), None)


def _reverse_over_reverse(f: Function, w: Any, V: Any, size: int | None) -> Product:
    gradient, pull = vjp(grad(f), w)
    return Product(vmap(lambda v: pull(v)[0], chunk_size=size)(V), gradient.detach())


def _loop(f: Function, w: Any, V: Any, size: int | None, value: Evaluated | None = None) -> Product:
    w, loss = value or evaluated(f, w)
    (gradient,) = torch.autograd.grad(loss, w, create_graph=True)
    if not gradient.requires_grad:  # a loss that is linear in the parameters
        return Product(torch.zeros_like(V), gradient.detach())
    rows = [
        torch.autograd.grad(gradient, w, v, retain_graph=True, materialize_grads=True)[0] for v in V
    ]
    return Product(torch.stack(rows), gradient.detach())


_FUNCTIONS = {
    "reverse-over-reverse": _reverse_over_reverse,
    "forward-over-reverse": _forward_over_reverse,
    "loop": _loop,
}
METHODS: tuple[JVP, ...] = ("forward-over-reverse", "reverse-over-reverse", "loop")

# A candidate that takes this much longer than the fastest is not timed again.
_HOPELESS = 2.0
_REPEATS = 3
_LONG = 1.0  # seconds of one product, above which it is timed once
# Relative difference of two methods that is not rounding.
_AGREE = {torch.float64: 1e-6, torch.float32: 1e-2}


def gradient_of(f: Function, w: Any, value: Evaluated | None = None) -> Any:
    """Gradient (n,) of a scalar function, from its value at w if that is there."""
    w, loss = value or evaluated(f, w)
    (gradient,) = torch.autograd.grad(loss, w)
    return gradient.detach()


class Candidate(NamedTuple):
    """A method, with the number of vectors that are pushed together."""

    method: JVP
    size: int | None = None

    def __str__(self) -> str:
        return self.method if self.size is None else f"{self.method}, {self.size} vectors at a time"


class Products:
    """Hessian–vector products by a method that is chosen once for each number of vectors.

    Parameters
    ----------
    jvp : {"forward-over-reverse", "reverse-over-reverse", "loop"}, optional
        The method; the fastest by default.

    Attributes
    ----------
    chosen : dict
        Candidate of each number of vectors.
    shares : dict
        Whether the gradient of a method has the bits of `gradient_of`, by method.
    """

    def __init__(self, jvp: JVP | None) -> None:
        self.jvp = None if jvp is None else _checks.choice("jvp", jvp, METHODS)
        self.chosen: dict[int, Candidate] = {}
        self.shares: dict[str, bool] = {}

    def require(self, f: Function, w: Any) -> None:
        """Raise ArgumentError unless a method works for this function."""
        V = torch.stack([torch.ones_like(w), torch.arange(len(w), device=w.device).to(w.dtype)])
        faults = {}
        names = METHODS if self.jvp is None else (self.jvp,)
        for method in reversed(names):
            try:
                _quietly(method, f, w, V, None)
                return
            except Exception as error:  # operators of any origin
                faults[method] = one_line(error)
        if self.jvp is not None:
            raise ArgumentError(
                "jvp", f"{self.jvp!r} cannot be used for this model: {faults[self.jvp]}"
            )
        raise ArgumentError(
            "model", f"must have second derivatives of all its operators: {faults['loop']}"
        )

    def __call__(self, f: Function, w: Any, V: Any, value: Evaluated | None = None) -> Product:
        """Products with V (k, n), and the gradient where it has the bits of `gradient_of`.

        A value of f at w is used, and used up, by a method that needs it.
        """
        candidate = self.chosen.get(len(V))
        if candidate is None:
            candidate = self.chosen[len(V)] = self._choose(f, w, V)
        if candidate.method not in self.shares:
            found = _FUNCTIONS[candidate.method](f, w, V, candidate.size)
            same = found.gradient is not None and torch.equal(found.gradient, gradient_of(f, w))
            self.shares[candidate.method] = same
        elif candidate.method == "loop":
            found = _loop(f, w, V, None, value)
        else:
            found = _FUNCTIONS[candidate.method](f, w, V, candidate.size)
        gradient = found.gradient if self.shares[candidate.method] else None
        return Product(found.vectors.detach(), gradient)

    def keeps(self, k: int) -> bool:
        """Whether the method chosen for k vectors starts from a value of the function."""
        return k in self.chosen and self.chosen[k].method == "loop" and "loop" in self.shares

    def _choose(self, f: Function, w: Any, V: Any) -> Candidate:
        """The fastest candidate for these vectors."""
        if self.jvp is not None:
            return Candidate(self.jvp)
        times: dict[Candidate, float] = {}
        first: Any = None
        faults = []
        for candidate in _candidates(len(V)):
            try:
                found = _quietly(candidate.method, f, w, V, candidate.size).vectors  # compiles
                if first is None:
                    first = found
                _require_agreement(candidate, found, first)
                times[candidate] = self._time(f, w, V, candidate)
            except ArgumentError:
                raise
            except Exception as error:  # the next candidate may work
                faults.append(one_line(error))
        if not times:
            raise ArgumentError("model", f"must have second derivatives: {faults[-1]}")
        for _ in range(_REPEATS - 1):
            best = min(times.values())
            for candidate in list(times):
                if times[candidate] < min(_HOPELESS * best, _LONG):
                    times[candidate] = min(times[candidate], self._time(f, w, V, candidate))
        return min(times, key=lambda candidate: times[candidate])

    def _time(self, f: Function, w: Any, V: Any, candidate: Candidate) -> float:
        """Seconds of the products and of a gradient."""
        _synchronise(w)
        begin = perf_counter()
        found = _FUNCTIONS[candidate.method](f, w, V, candidate.size)
        if found.gradient is None:
            gradient_of(f, w)
        _synchronise(w)
        return perf_counter() - begin


def _candidates(k: int) -> list[Candidate]:
    """All methods; the batched ones also with parts of the vectors, which need less cache."""
    sizes = [None, *sorted({math.ceil(k / parts) for parts in (2, 5)} - {1, k})]
    batched = [Candidate(method, size) for method in METHODS[:-1] for size in sizes]
    return [*batched, Candidate("loop")]


def _require_agreement(candidate: Candidate, found: Any, first: Any) -> None:
    scale = float(torch.linalg.vector_norm(first))
    error = float(torch.linalg.vector_norm(found - first))
    if error > _AGREE[first.dtype] * scale:
        raise ArgumentError(
            "model",
            f"must have derivatives that agree, {candidate} differs from other methods by "
            f"{error / scale:.1g}: an operator has a wrong derivative; choose one with jvp=",
        )


def _quietly(method: JVP, f: Function, w: Any, V: Any, size: int | None) -> Product:
    """Products; an operator without a batching rule is an error, since `vmap` would be a loop."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="There is a performance drop")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        return _FUNCTIONS[method](f, w, V, size)


def _synchronise(w: Any) -> None:
    if w.device.type == "cuda":
        torch.cuda.synchronize(w.device)
