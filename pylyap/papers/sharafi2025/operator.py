"""The tangent operator from the equations of the paper, against differentiation of the gradient.

With e = ŷ − y, ⟨·⟩ the mean over samples, h_j = f(z_j) and x₀ = 1 for the biases, the Hessian of
C = ⟨e²⟩/2 has the blocks

    v_j v_k:    ⟨h_j h_k⟩
    v_j c:      ⟨h_j⟩
    c c:        1
    v_j W_ki:   ⟨h_j v_k f'_k x_i⟩ + δ_jk ⟨e f'_k x_i⟩
    c W_ki:     ⟨v_k f'_k x_i⟩
    W_ji W_kl:  ⟨v_j f'_j x_i v_k f'_k x_l⟩ + δ_jk ⟨e v_j f''_j x_i x_l⟩

and the tangent operator of a step is T = I − lr H. Nothing here uses the compiled core.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pylyap.maps import TrainingMap
from pylyap.network import Network
from pylyap.optimizers import GradientDescent
from pylyap.papers.sharafi2025.definition import N_POINTS, Floats, Task

WIDTHS = (1, 2, 3, 4, 5, 6, 8, 10, 16, 32)
_STEP = 1e-200  # of complex differentiation: its error is the square of it
_LR = 0.1

Array = NDArray[Any]


class Function(NamedTuple):
    """An activation with two derivatives, for real and complex arguments."""

    f: Callable[[Array], Array]
    df: Callable[[Array], Array]
    d2f: Callable[[Array], Array]


def _sigmoid(z: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-z))


def _slope(z: Array) -> Array:
    return _sigmoid(z) * _sigmoid(-z)


def _tanh_slope(z: Array) -> Array:
    return 1.0 / np.cosh(z) ** 2


def _on(z: Array) -> Array:
    return np.where(z.real > 0.0, 1.0, 0.0)


ACTIVATIONS = {
    "relu": Function(lambda z: z * _on(z), _on, np.zeros_like),
    "tanh": Function(np.tanh, _tanh_slope, lambda z: -2.0 * np.tanh(z) * _tanh_slope(z)),
    "sigmoid": Function(_sigmoid, _slope, lambda z: _slope(z) * (_sigmoid(-z) - _sigmoid(z))),
    "softplus": Function(lambda z: np.log1p(np.exp(z)), _sigmoid, _slope),
    "silu": Function(
        lambda z: z * _sigmoid(z),
        lambda z: _sigmoid(z) + z * _slope(z),
        lambda z: _slope(z) * (2.0 + z * (_sigmoid(-z) - _sigmoid(z))),
    ),
    "sin": Function(np.sin, np.cos, lambda z: -np.sin(z)),
}


@dataclass(frozen=True, eq=False)
class OperatorErrors:
    """Errors of tangent operators ‖A − B‖/‖B‖ (Frobenius), the largest over random weights.

    Attributes
    ----------
    widths : tuple of int
        Hidden units.
    activations : tuple of str
        Names of the activations.
    states : int
        Random weights of each network.
    errors : dict of (n_activations, n_widths)
        What is compared, and the largest error.
    """

    widths: tuple[int, ...]
    activations: tuple[str, ...]
    states: int
    errors: dict[str, Floats] = field(repr=False)


def paper_operator(
    activation: str, n_hidden: int, w: Floats, X: Floats, y: Floats, lr: float
) -> Floats:
    """Return the tangent operator of a step by the block formulas of the paper.

    Parameters
    ----------
    activation : str
        A key of `ACTIVATIONS`.
    n_hidden : int
        Hidden units m.
    w : (n,) array
        Weights: W (m, 2) and b (m) in C order, then v (m) and c.
    X, y : (N, n_in) and (N,) arrays
        Inputs and targets.
    lr : float
        Learning rate.

    Returns
    -------
    (n, n) array
        T = I − lr H.
    """
    function, (W, b, v, c) = ACTIVATIONS[activation], _parts(w, n_hidden, X.shape[1])
    N, m = len(X), n_hidden
    z = X @ W.T + b
    h, slope, bend = function.f(z), function.df(z), function.d2f(z)
    e = h @ v + c - y
    x = np.concatenate([X, np.ones((N, 1))], axis=1)  # the bias last, as in the state
    n_in, inner = X.shape[1], m * X.shape[1]
    rows = np.empty((m, n_in + 1), int)  # where W_ki and the bias of unit k are in the state
    rows[:, :n_in] = np.arange(inner).reshape(m, n_in)
    rows[:, n_in] = inner + np.arange(m)
    place_v, place_c = inner + m + np.arange(m), inner + 2 * m
    a = slope[:, :, np.newaxis] * x[:, np.newaxis]  # f'_k x_i
    va = v[:, np.newaxis] * a
    H = np.zeros((len(w), len(w)))
    H[np.ix_(place_v, place_v)] = h.T @ h / N
    H[place_v, place_c] = H[place_c, place_v] = h.mean(axis=0)
    H[place_c, place_c] = 1.0
    mixed = np.einsum("sj,ski->jki", h, va) / N
    mixed[np.arange(m), np.arange(m)] += np.einsum("s,ski->ki", e, a) / N
    for j in range(m):
        H[place_v[j], rows] = H[rows, place_v[j]] = mixed[j]
    H[place_c, rows] = H[rows, place_c] = va.mean(axis=0)
    inside = np.einsum("sji,skl->jikl", va, va) / N
    own = np.einsum("s,j,sj,si,sl->jil", e, v, bend, x, x) / N
    for j in range(m):
        inside[j, :, j] += own[j]
    flat = rows.ravel()
    H[np.ix_(flat, flat)] = inside.reshape(len(flat), len(flat))
    result: Floats = np.eye(len(w)) - lr * H
    return result


def differentiated_operator(
    activation: str, n_hidden: int, w: Floats, X: Floats, y: Floats, lr: float
) -> Floats:
    """Return the tangent operator of a step by complex differentiation of the gradient.

    Parameters
    ----------
    activation, n_hidden, w, X, y, lr
        As in `paper_operator`.

    Returns
    -------
    (n, n) array
        T = I − lr H. Exact to rounding: imaginary parts of order 1e-200 carry the derivative.

    References
    ----------
    Squire, Trapp, SIAM Review 40, 110 (1998).
    """
    n, columns = len(w), []
    for i in range(n):
        shifted = w.astype(complex)
        shifted[i] += 1j * _STEP
        columns.append(_gradient(activation, n_hidden, shifted, X, y).imag / _STEP)
    result: Floats = np.eye(n) - lr * np.array(columns).T
    return result


def _gradient(activation: str, n_hidden: int, w: Array, X: Floats, y: Floats) -> Array:
    function, (W, b, v, c) = ACTIVATIONS[activation], _parts(w, n_hidden, X.shape[1])
    z = X @ W.T + b
    h = function.f(z)
    e = (h @ v + c - y) / len(X)
    back = e[:, np.newaxis] * v * function.df(z)
    return np.concatenate([(back.T @ X).ravel(), back.sum(axis=0), e @ h, e.sum(keepdims=True)])


def _parts(w: Array, m: int, n_in: int) -> tuple[Array, Array, Array, Any]:
    inner = m * n_in
    return w[:inner].reshape(m, n_in), w[inner : inner + m], w[inner + m : -1], w[-1]


def _jax_operators(
    activation: str, network: Network, w: Floats, X: Floats, y: Floats, lr: float
) -> Floats | None:
    """Operators at weights w (states, n) by forward over reverse differentiation in JAX, in double
    precision; None where JAX is not installed."""
    try:
        jax = import_module("jax")
    except ImportError:
        return None
    in_double = getattr(jax, "enable_x64", None)
    if in_double is None:  # its place in older versions
        in_double = import_module("jax.experimental").enable_x64
    nn, np_ = jax.nn, jax.numpy
    f = {
        "relu": nn.relu, "tanh": np_.tanh, "sigmoid": nn.sigmoid, "softplus": nn.softplus,
        "silu": nn.silu, "sin": np_.sin,
    }[activation]  # fmt: skip
    m, n_in = network.layers[1], network.layers[0]
    inner = m * n_in

    def loss(w: Any) -> Any:
        W, b = w[:inner].reshape(m, n_in), w[inner : inner + m]
        e = f(X @ W.T + b) @ w[inner + m : -1] + w[-1] - y
        return 0.5 * (e * e).mean()

    def step(w: Any) -> Any:
        return w - lr * jax.grad(loss)(w)

    with in_double(True):
        return np.asarray(jax.jit(jax.vmap(jax.jacfwd(step)))(w))


def compare_operators(
    task: Task,
    *,
    widths: Sequence[int] = WIDTHS,
    states: int = 20,
    jax_widths: Sequence[int] = (3,),
) -> OperatorErrors:
    """Compare tangent operators: equations, differentiation, and the compiled core.

    Parameters
    ----------
    task : Task
        Seed of the weights.
    widths : sequence of int, default 1 … 32
        Hidden units.
    states : int, default 20
        Random weights N(0, 1) of each network, biases too.
    jax_widths : sequence of int, default 3
        Those of the widths that are compared with JAX too, whose compilation takes long.

    Returns
    -------
    OperatorErrors
        Full batch, and online learning (the operator of one sample); JAX where it is installed.
    """
    from pylyap import datasets

    X, y = datasets.quadratic(N_POINTS)
    errors: dict[str, Floats] = {}
    for a, activation in enumerate(ACTIVATIONS):
        for k, width in enumerate(widths):
            network = Network((2, width, 1), activation=activation)
            w = network.init("normal", states, biases=True, seed=task.seed)
            batch = TrainingMap(network, X, y, GradientDescent(lr=_LR))
            online = TrainingMap(
                network, X, y, GradientDescent(lr=_LR, batch_size=1, shuffle=False)
            )
            paper = np.array([paper_operator(activation, width, s, X, y, _LR) for s in w])
            exact = np.array([differentiated_operator(activation, width, s, X, y, _LR) for s in w])
            single = [
                paper_operator(activation, width, s, X[t : t + 1], y[t : t + 1], _LR)
                for t, s in enumerate(w)
            ]
            found = {
                "equations against complex differentiation": (paper, exact),
                "equations against the compiled core": (batch.jacobian(w), paper),
                "online learning: equations against the compiled core": (
                    np.array([online.jacobian(s, t) for t, s in enumerate(w)]), np.array(single)
                ),
            }  # fmt: skip
            if width in jax_widths:
                automatic = _jax_operators(activation, network, w, X, y, _LR)
                if automatic is not None:
                    found["equations against JAX"] = (automatic, paper)
            for name, (one, other) in found.items():
                every = errors.setdefault(name, np.full((len(ACTIVATIONS), len(widths)), np.nan))
                every[a, k] = (
                    np.linalg.norm(one - other, axis=(1, 2)) / np.linalg.norm(other, axis=(1, 2))
                ).max()
    return OperatorErrors(tuple(widths), tuple(ACTIVATIONS), states, errors)
