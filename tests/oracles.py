"""Simple reference implementations, the oracles of the compiled core.

Every function here works on one run. `net` is anything with `layers`, `activations` (one name per
hidden layer) and `loss`; `w` is the flat vector of weights, for each layer W (n_out, n_in) in C
order, then b (n_out,). Numbers are real or complex floats, or objects of mpmath: wherever an
argument `numbers` is taken, `FLOAT` means NumPy and `multiprecision()` fifty digits.

Second derivatives come by complex step, d/dw g(w) = Im g(w + ih) / h without any subtraction, of a
gradient that is written out by hand; whatever has a kink branches on the real part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import scipy.special

CLIP = 1e-7  # Keras' epsilon
COMPLEX_STEP = 1e-30  # its square is far below rounding, at any scale of weights


class Net(NamedTuple):
    layers: tuple[int, ...]
    activations: tuple[str, ...]
    loss: str


# ------------------------------------------------------------------------------------ numbers


@dataclass(frozen=True)
class Numbers:
    """The elementary functions of one kind of number, elementwise on arrays."""

    exp: Callable
    expm1: Callable
    log: Callable
    log1p: Callable
    tanh: Callable
    sin: Callable
    cos: Callable
    erfc: Callable
    sqrt: Callable
    real: Callable
    imag: Callable
    pi: Any
    step: Any  # of complex differentiation
    number: Callable  # float -> this kind
    i: Any


FLOAT = Numbers(
    exp=np.exp,
    expm1=scipy.special.expm1,
    log=np.log,
    log1p=scipy.special.log1p,
    tanh=np.tanh,
    sin=np.sin,
    cos=np.cos,
    erfc=scipy.special.erfc,
    sqrt=np.sqrt,
    real=np.real,
    imag=np.imag,
    pi=np.pi,
    step=COMPLEX_STEP,
    number=float,
    i=1j,
)


@cache
def multiprecision(digits: int = 50) -> Numbers:
    """Arbitrary precision; float64 arguments are taken as exact."""
    from mpmath import MPContext

    mp = MPContext()
    mp.dps = digits

    def on_arrays(f: Callable) -> Callable:
        return np.frompyfunc(f, 1, 1)

    return Numbers(
        **{name: on_arrays(getattr(mp, name)) for name in ["exp", "expm1", "log", "log1p", "tanh"]},
        **{name: on_arrays(getattr(mp, name)) for name in ["sin", "cos", "erfc", "sqrt"]},
        real=on_arrays(lambda a: mp.mpmathify(a).real),
        imag=on_arrays(lambda a: mp.mpmathify(a).imag),
        pi=+mp.pi,
        step=mp.mpf(10) ** -digits,
        number=mp.mpf,
        i=mp.j,
    )


def lift(a: Any, numbers: Numbers) -> np.ndarray:
    """An array of floats as this kind of number."""
    a = np.asarray(a, dtype=float)
    return a if numbers is FLOAT else np.frompyfunc(numbers.number, 1, 1)(a)


def lower(a: Any, numbers: Numbers) -> np.ndarray:
    """Back to float64."""
    return np.asarray(numbers.real(a), dtype=float)


# -------------------------------------------------------------------------------- activations


def _magnitude(z: Any, m: Numbers) -> tuple[Any, Any]:
    positive = (m.real(z) > 0).astype(bool)
    return positive, np.where(positive, z, -z)


def _sigmoid(z, m):
    positive, size = _magnitude(z, m)
    e = m.exp(-size)
    first = e / (1 + e) ** 2
    second = first * (1 - e) / (1 + e)
    return np.where(positive, 1 + 0 * e, e) / (1 + e), first, np.where(positive, -second, second)


def _tanh(z, m):
    f = m.tanh(z)
    e = m.exp(-2 * _magnitude(z, m)[1])
    first = 4 * e / (1 + e) ** 2
    return f, first, -2 * f * first


def _relu(z, m, slope=0.0):
    positive, _ = _magnitude(z, m)
    slope = m.number(slope)
    return np.where(positive, z, slope * z), np.where(positive, 0 * z + 1, slope), 0 * z


def _leaky_relu(z, m):
    return _relu(z, m, slope=0.01)


def _softplus(z, m):
    positive, size = _magnitude(z, m)
    first, second, _ = _sigmoid(z, m)
    return np.where(positive, z, 0 * z) + m.log1p(m.exp(-size)), first, second


def _elu(z, m):
    positive, size = _magnitude(z, m)
    e = m.exp(-size)
    return (
        np.where(positive, z, m.expm1(-size)),
        np.where(positive, 1 + 0 * e, e),
        np.where(positive, 0 * e, e),
    )


def _gelu(z, m):
    share = m.erfc(-z / m.sqrt(m.number(2))) / 2
    density = m.exp(-z * z / 2) / m.sqrt(2 * m.pi)
    return z * share, share + z * density, (2 - z * z) * density


def _silu(z, m):
    s, first, second = _sigmoid(z, m)
    return z * s, s + z * first, 2 * first + z * second


def _sin(z, m):
    return m.sin(z), m.cos(z), -m.sin(z)


def _identity(z, m):
    return z, 0 * z + 1, 0 * z


ACTIVATIONS = {
    "tanh": _tanh,
    "relu": _relu,
    "leaky_relu": _leaky_relu,
    "sigmoid": _sigmoid,
    "softplus": _softplus,
    "elu": _elu,
    "gelu": _gelu,
    "silu": _silu,
    "sin": _sin,
    "identity": _identity,
}
LOSSES = ("mse", "cross_entropy", "cross_entropy_clipped")


def activation(name: str, z: Any, numbers: Numbers = FLOAT) -> tuple[Any, Any, Any]:
    """f, f' and f''. A kink counts to its left side: relu'(0) = 0."""
    return ACTIVATIONS[name](np.asarray(z), numbers)


# ------------------------------------------------------------------------------------ network


def n_params(layers: tuple[int, ...]) -> int:
    return sum((n_in + 1) * n_out for n_in, n_out in pairwise(layers))


def unpack(layers: tuple[int, ...], w: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    parts, at = [], 0
    for n_in, n_out in pairwise(layers):
        W = w[at : at + n_in * n_out].reshape(n_out, n_in)
        at += n_in * n_out
        parts.append((W, w[at : at + n_out]))
        at += n_out
    assert at == len(w)
    return parts


def _forward(net, w, X, m):
    """Pre-activations and outputs of every layer; the last layer is linear."""
    parts = unpack(net.layers, w)
    zs, hs = [], [X]
    for depth, (W, b) in enumerate(parts):
        z = hs[-1] @ W.T + b
        hidden = depth < len(parts) - 1
        zs.append(z)
        hs.append(activation(net.activations[depth], z, m)[0] if hidden else z)
    return zs, hs


def _softmax(z, m):
    """Probabilities, their shortfalls 1 − p without cancellation, and −log p."""
    top = np.argmax(np.asarray(m.real(z), dtype=float), axis=1)
    z = z - z[np.arange(len(z)), top][:, None]
    e = m.exp(z)
    others = e.copy()
    others[np.arange(len(z)), top] *= 0
    total = e.sum(axis=1, keepdims=True)
    short = e @ (1 - np.eye(e.shape[1], dtype=int)) / total
    return e / total, short, m.log1p(others.sum(axis=1))[:, None] - z


def predict(net, w, X, numbers: Numbers = FLOAT) -> np.ndarray:
    out = _forward(net, w, lift(X, numbers), numbers)[1][-1]
    return out if net.loss == "mse" else _softmax(out, numbers)[0]


def _unclipped(p, m) -> np.ndarray:
    return ((m.real(p) >= CLIP) & (m.real(p) <= 1 - CLIP)).astype(bool)


def _loss_and_error(net, out, y, m):
    """The loss, and its derivative by the outputs."""
    N = len(out)
    if net.loss == "mse":
        error = out - lift(y, m).reshape(out.shape)
        return (error * error).sum() / (2 * N), error / N
    rows = np.arange(N)
    labels = np.asarray(y).astype(int)
    p, short, surprise = _softmax(out, m)
    error = p.copy()
    error[rows, labels] = -short[rows, labels]
    each = surprise[rows, labels]
    if net.loss == "cross_entropy_clipped":
        inside = _unclipped(p[rows, labels], m)
        low = (m.real(p[rows, labels]) < CLIP).astype(bool)
        limit = np.where(low, -m.log(m.number(CLIP)), -m.log1p(m.number(-CLIP)))
        each = np.where(inside, each, limit + 0 * each)
        error = np.where(inside[:, None], error, 0 * error)
    return each.sum() / N, error / N


def loss(net, w, X, y, numbers: Numbers = FLOAT):
    out = _forward(net, w, lift(X, numbers), numbers)[1][-1]
    return _loss_and_error(net, out, y, numbers)[0]


def gradient(net, w, X, y, numbers: Numbers = FLOAT) -> np.ndarray:
    """Backpropagation."""
    zs, hs = _forward(net, w, lift(X, numbers), numbers)
    delta = _loss_and_error(net, hs[-1], y, numbers)[1]
    pieces: list[np.ndarray] = []
    for depth, (W, _) in reversed(list(enumerate(unpack(net.layers, w)))):
        pieces = [(delta.T @ hs[depth]).ravel(), delta.sum(axis=0), *pieces]
        if depth > 0:
            slope = activation(net.activations[depth - 1], zs[depth - 1], numbers)[1]
            delta = (delta @ W) * slope
    return np.concatenate(pieces)


def complex_step(f: Callable, x: np.ndarray, numbers: Numbers = FLOAT) -> np.ndarray:
    """The Jacobian of f at x, one column per entry of x."""
    columns = []
    for j in range(len(x)):
        shifted = x + 0 * numbers.i
        shifted[j] = shifted[j] + numbers.i * numbers.step
        columns.append(numbers.imag(f(shifted)) / numbers.step)
    return np.stack(columns, axis=-1)


def hessian(net, w, X, y, numbers: Numbers = FLOAT) -> np.ndarray:
    return complex_step(lambda u: gradient(net, u, X, y, numbers), w, numbers)


# ----------------------------------------------------------------------------------- optimisers


@dataclass(frozen=True)
class GradientDescent:
    lr: float = 0.1
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    def buffers(self) -> int:
        return int(self.momentum != 0)

    def step(self, x, slope, t):
        """One step of the state [w] or [w, v]; `slope` is the gradient as a function of w."""
        if self.momentum == 0:
            return x - self.lr * (slope(x) + self.weight_decay * x)
        w, v = np.split(x, 2)
        push = self.lr * (slope(w) + self.weight_decay * w)
        v = self.momentum * v - push
        return np.concatenate([w + self.momentum * v - push if self.nesterov else w + v, v])


@dataclass(frozen=True)
class Adam:
    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    def buffers(self) -> int:
        return 2

    def step(self, x, slope, t):
        """One step of the state [w, m, v]."""
        w, m, v = np.split(x, 3)
        g = slope(w) + self.weight_decay * w
        m = self.beta1 * m + (1 - self.beta1) * g
        v = self.beta2 * v + (1 - self.beta2) * g * g
        m_hat = m / (1 - self.beta1 ** (t + 1))
        v_hat = v / (1 - self.beta2 ** (t + 1))
        return np.concatenate([w - self.lr * m_hat / (np.sqrt(v_hat) + self.epsilon), m, v])


def step(net, optimizer, x, X, y, t: int = 0) -> np.ndarray:
    return optimizer.step(x, lambda w: gradient(net, w, X, y), t)


def step_jacobian(net, optimizer, x, X, y, t: int = 0) -> np.ndarray:
    def slope(w):
        return gradient(net, w, X, y)

    # Where Adam's v' = m' = 0, too: m^ / (sqrt(v^) + eps) is then of first order in m^ alone.
    return complex_step(lambda u: optimizer.step(u, slope, t), x)


# ------------------------------------------------------------------------------------ exponents


def qr_positive(A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    Q, R = np.linalg.qr(A)
    sign = np.where(np.diagonal(R) < 0, -1.0, 1.0)
    return Q * sign, R * sign[:, None]


def lyapunov_growth(
    jacobians: Iterable[np.ndarray], frame: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Log growth (T, k) of each direction at each step, and the last frame."""
    growth = []
    for J in jacobians:
        frame, R = qr_positive(J @ frame)
        with np.errstate(divide="ignore"):
            growth.append(np.log(np.diagonal(R)))
    return np.array(growth), frame


def covariant_vectors(
    jacobians: list[np.ndarray], Q: np.ndarray, C: np.ndarray, n_transient: int, n_tail: int
) -> np.ndarray:
    """(T + 1, n, k) unit vectors between transient and tail, by plain Ginelli from Q and C."""
    frames, factors = [Q], []
    for J in jacobians:
        Q, R = qr_positive(J @ Q)
        frames.append(Q)
        factors.append(R)
    vectors = []
    for t in range(len(jacobians), n_transient - 1, -1):
        if t < len(jacobians):
            C = np.linalg.solve(factors[t], C)
            C = C / np.linalg.norm(C, axis=0)
        if t <= len(jacobians) - n_tail:
            vectors.append(frames[t] @ C)
    return np.array(vectors[::-1])


def windows(n_steps: int, window: int, stride: int) -> list[slice]:
    return [slice(t, t + window) for t in range(0, n_steps - window + 1, stride)]


def ftle_qr(jacobians: np.ndarray, frame: np.ndarray, window: int, stride: int) -> np.ndarray:
    growth, _ = lyapunov_growth(jacobians, frame)
    return np.array([growth[at].mean(axis=0) for at in windows(len(growth), window, stride)])


def ftle_svd(jacobians: np.ndarray, window: int, stride: int, digits: int = 120) -> np.ndarray:
    """Singular values of the window's product, formed with enough digits to keep the small ones."""
    from mpmath import MPContext

    mp = MPContext()
    mp.dps = digits
    rows = []
    for at in windows(len(jacobians), window, stride):
        product = mp.eye(jacobians.shape[-1])
        for J in jacobians[at]:
            product = mp.matrix(J.tolist()) * product
        values = mp.svd_r(product, compute_uv=False)
        rows.append(sorted((float(mp.log(s)) / window for s in values), reverse=True))
    return np.array(rows)


def kaplan_yorke(exponents: np.ndarray, n: int | None = None) -> float:
    """As for a single run; nan where too few exponents are known to tell."""
    sums = np.concatenate([[0.0], np.cumsum(exponents)])
    fits = np.flatnonzero(sums >= 0)[-1]
    if fits == len(exponents):
        return float(fits) if n is None or n == len(exponents) else np.nan
    return fits + sums[fits] / abs(exponents[fits])
