"""The map of a model of torch: one optimiser step, its tangent, and the loss."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch.func import grad, vjp, vmap

from pylyap import _checks
from pylyap._bridges.torch.data import Batches
from pylyap._bridges.torch.losses import Loss
from pylyap._bridges.torch.model import DTYPES, Functional
from pylyap._bridges.torch.products import Evaluated, Products, evaluated, gradient_of
from pylyap._bridges.torch.rules import Rule, combine
from pylyap._bridges.torch.runs import propagate
from pylyap._checks import Floats
from pylyap._errors import ArgumentError
from pylyap._tangent.scanned import Propagation
from pylyap.optimizers import Adam, GradientDescent

# Runs are stepped together by `vmap` for at most this many parameters: the time of small models is
# that of calling operators. 16 runs together take 1/15 of the time of one by one for a transformer
# of 343 parameters, 1/6 for a convolutional net of 207 parameters and 24 images, and 2/3 for one of
# 1,898 parameters and 128 images (AMD EPYC, one busy core, November 2026).
_TOGETHER = 5000
# Runs in one call, always: missing ones are copies. Sums over samples have another order in the
# remainder of a division by 4 or 8 runs, and a fixed number gives the same bits in any batch.
_GROUP = 16


class TorchMap:
    """Training of a module of PyTorch as a map of the state; `pylyap.from_torch` makes it.

    The state is the trainable parameters, flattened in the order of ``model.parameters()``, and the
    optimiser's buffers. Arguments and results are float64 arrays of NumPy.

    Parameters
    ----------
    model : Functional
        The model as a function of its parameters.
    batches : Batches
        The data.
    loss : callable
        Function of output and target.
    rule : Rule
        The optimiser.
    optimizer : GradientDescent, Adam or Rule
        The optimiser that the attribute `optimizer` shows.
    products : Products
        Hessian–vector products.
    """

    _is_deterministic = True  # `from_torch` has evaluated the model twice

    def __init__(
        self,
        model: Functional,
        batches: Batches,
        loss: Loss,
        rule: Rule,
        optimizer: GradientDescent | Adam | Rule,
        products: Products,
    ) -> None:
        self._model, self._batches, self._loss = model, batches, loss
        self._rule, self._given, self._products = rule, optimizer, products
        self._together: dict[bool, bool] = {}  # whether runs of a group of gradients are alike
        self._memory: tuple[Any, Any, int | None] | None = None  # weights, gradient and step
        self._value: Evaluated | None = None  # of the loss of the whole data, with its graph
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None, "_memory": None, "_value": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()

    # --- what it is -------------------------------------------------------------------------------

    @property
    def n_params(self) -> int:
        """Number of trainable parameters."""
        return self._model.n

    @property
    def n(self) -> int:
        """Length of a state: n_params times one plus the number of buffers."""
        return self._model.n * (1 + len(self._rule.buffer_names))

    @property
    def optimizer(self) -> GradientDescent | Adam | Rule:
        """The optimiser of pylyap; for `torch.optim.SGD` that with the same hyperparameters, for
        others of torch an object with lr and weight_decay."""
        return self._given

    @property
    def dtype(self) -> str:
        """Precision of a step, "float64" or "float32"."""
        return DTYPES[self._model.dtype]

    @property
    def method(self) -> str:
        """Method of the tangents for each number of vectors so far."""
        if self._products.jvp is not None:
            return self._products.jvp
        chosen = sorted(self._products.chosen.items())
        return "; ".join(f"k={k}: {candidate}" for k, candidate in chosen) or "not chosen yet"

    def __repr__(self) -> str:
        kind = type(self._model.module).__name__
        return (
            f"TorchMap({kind} of {self.n_params} parameters, {len(self._batches.X)} samples, "
            f"{type(self._rule).__name__}, {self.dtype}, tangents: {self.method})"
        )

    # --- states -----------------------------------------------------------------------------------

    def state(self, w: ArrayLike) -> Floats:
        """States of weights (..., n_params), with zero buffers; a state (..., n) is returned."""
        return self._states(w, "w")

    def weights(self, x: ArrayLike) -> Floats:
        """Weights (..., n_params) of states (..., n)."""
        return self._states(x)[..., : self.n_params]

    def batch(self, t: int) -> NDArray[np.int64]:
        """Indices of the samples of step t."""
        return self._batches.indices(_checks.integer("t", t, least=0))

    @property
    def steps_per_epoch(self) -> int:
        """Steps that see each sample once."""
        return self._batches.per_epoch

    def unflatten(self, x: ArrayLike) -> dict[str, Any]:
        """A ``state_dict`` of the model with the weights of one state, buffers included."""
        return self._model.state_dict(self._tensor(self._one(x)))

    def load_into(self, model: Any, x: ArrayLike) -> None:
        """Write the weights of one state into a module with the structure of this model."""
        self._model.load(model, self._tensor(self._one(x)))

    def _one(self, x: ArrayLike) -> Floats:
        weights = self.weights(x)
        if weights.ndim != 1:
            raise ArgumentError("x", f"must be one state (n,), got shape {np.shape(x)}")
        return weights

    def _states(self, x: ArrayLike, name: str = "x") -> Floats:
        states = _checks.floats(name, x, finite=False)
        length = states.shape[-1] if states.ndim else 0
        if length == self.n:
            return states
        if length != self.n_params:
            allowed = f"(..., {self.n_params})"
            if self.n != self.n_params:
                allowed = f"(..., {self.n}) or, for plain weights, {allowed}"
            raise ArgumentError(name, f"must have shape {allowed}, got {states.shape}")
        out = np.zeros((*states.shape[:-1], self.n))
        out[..., : self.n_params] = states
        return out

    def _tensor(self, array: Floats) -> Any:
        """Numbers on the model's device, in its precision."""
        copied = torch.from_numpy(np.array(array, order="C"))
        return copied.to(self._model.device, self._model.dtype)

    # --- the map ----------------------------------------------------------------------------------

    def step(self, x: ArrayLike, t: int = 0) -> Floats:
        """States (..., n) after step t, all nan where an entry is not finite."""
        states, t = self._states(x), _checks.integer("t", t, least=0)
        if states.ndim == 1:
            return self._step_one(states, t)
        flat = states.reshape(-1, self.n)
        return self.step_batch(flat, t).reshape(states.shape)

    def step_batch(self, X: ArrayLike, t: int = 0) -> Floats:
        """States (m, n) after step t, stepped together where the model is small."""
        states, t = self._states(X, "X"), _checks.integer("t", t, least=0)
        if states.ndim != 2:
            raise ArgumentError("X", f"must have shape (m, {self.n}), got {states.shape}")
        if len(states) == 0:
            return states.copy()
        together = self._in_groups(states[:, : self.n_params], grad(self._at(t)), True)
        if together is None:
            return np.stack([self._step_one(state, t) for state in states])
        x = self._tensor(states)
        parts = list(x.split(self.n_params, dim=-1))
        with self._lock, self._model.exact(), torch.no_grad():
            after = self._rule.update(parts, together, t)
        return self._finished(torch.cat([part.to(x.dtype) for part in after], dim=-1))

    def _step_one(self, x: Floats, t: int) -> Floats:
        if not np.isfinite(x).all():
            return np.full(self.n, np.nan)
        state = self._tensor(x)
        parts = list(state.split(self.n_params))
        with self._lock:
            gradient = self._gradient(parts[0], t)
            with torch.no_grad():
                after = self._rule.update(parts, gradient, t)
        return self._finished(torch.cat([part.to(state.dtype) for part in after]))

    def tangent(self, x: ArrayLike, V: ArrayLike, t: int = 0) -> Floats:
        """Jacobian of step t applied to tangent vectors: V is (..., n, k), or (n,) for one."""
        return self._linear(x, V, t, self._push)

    def tangent_batch(self, X: ArrayLike, V: ArrayLike, t: int = 0) -> Floats:
        """Jacobian of step t at states (m, n) applied to vectors (m, n, k)."""
        return self._linear(X, V, t, self._push)

    def adjoint(self, x: ArrayLike, V: ArrayLike, t: int = 0) -> Floats:
        """Transposed Jacobian of step t applied to vectors, shaped as for `tangent`."""
        return self._linear(x, V, t, self._pull)

    def _linear(
        self, x: ArrayLike, V: ArrayLike, t: int, apply: Callable[[Floats, Floats, int], Floats]
    ) -> Floats:
        """A linear map of vectors at each state of a batch."""
        states, t = self._states(x), _checks.integer("t", t, least=0)
        vectors = _vectors(V, self.n)
        if vectors.ndim == 1:
            return self._linear(x, vectors[:, np.newaxis], t, apply)[..., 0]
        try:
            batch = np.broadcast_shapes(states.shape[:-1], vectors.shape[:-2])
        except ValueError:
            raise ArgumentError(
                "V", f"must broadcast against states of shape {states.shape}, got {vectors.shape}"
            ) from None
        k = vectors.shape[-1]
        flat = np.broadcast_to(states, (*batch, self.n)).reshape(-1, self.n)
        each = np.broadcast_to(vectors, (*batch, self.n, k)).reshape(-1, self.n, k)
        if len(flat) == 1 and np.isfinite(flat).all():  # without another copy of the vectors
            return apply(flat[0], each[0], t).reshape((*batch, self.n, k))
        out = np.empty((len(flat), self.n, k))
        for state, given, to in zip(flat, each, out, strict=True):
            to[...] = apply(state, given, t) if np.isfinite(state).all() else np.nan
        return out.reshape((*batch, self.n, k))

    def _table(self, state: Any, gradient: Any, t: int) -> list[list[Any]]:
        parts = [part.double() for part in state.split(self.n_params)]
        with torch.no_grad():
            return self._rule.table(parts, gradient.double(), t)

    def _push(self, x: Floats, V: Floats, t: int) -> Floats:
        """J V of one state."""
        return _columns([self._pushed(x, self._rows(V), t)])

    def _pushed(self, x: Floats, rows: Any, t: int) -> Any:
        """Rows (k, n) times the transposed Jacobian of one state; the rows may be overwritten."""
        state = self._tensor(x)
        parts = list(rows.split(self.n_params, dim=-1))
        with self._lock:
            curved, gradient = self._curved(state[: self.n_params], parts[0], t)
        table = self._table(state, gradient, t)
        if len(table) == 1 and isinstance(table[0][1], float):
            keep, pull = table[0]
            rows = rows if isinstance(keep, float) and keep == 1.0 else rows.mul_(keep)
            return rows.add_(curved, alpha=pull)
        inputs = [*parts, curved]
        whole = [combine(row, inputs) for row in table]
        return whole[0] if len(whole) == 1 else torch.cat(whole, dim=-1)

    def _pull(self, x: Floats, V: Floats, t: int) -> Floats:
        """Jᵀ V of one state."""
        state, rows = self._tensor(x), self._rows(V)
        parts = list(rows.split(self.n_params, dim=-1))
        with self._lock:
            table = self._table(state, self._gradient(state[: self.n_params], t), t)
            columns = [combine([row[j] for row in table], parts) for j in range(len(parts) + 1)]
            columns[0] += self._curved(state[: self.n_params], columns.pop(), t)[0]
        return _columns(columns)

    def _rows(self, V: Floats) -> Any:
        """Vectors (n, k) as rows (k, n) in float64 on the model's device."""
        return torch.from_numpy(np.array(V.T, order="C")).to(self._model.device)

    # --- the loss ---------------------------------------------------------------------------------

    def _at(self, t: int | None) -> Callable[[Any], Any]:
        """The loss of the samples of step t, or (None) of the whole data, as a function of w."""
        X, y = (self._batches.X, self._batches.y) if t is None else self._batches(t)
        return lambda w: self._loss(self._model(w, X), y)

    def _gradient(self, w: Any, t: int | None) -> Any:
        """Gradient at w (n_params,), that of the last call if it was the same."""
        t = None if self._batches.whole else t
        if self._memory is not None and self._memory[2] == t and torch.equal(self._memory[0], w):
            return self._memory[1]
        with self._model.exact():
            gradient = gradient_of(self._at(t), w, self._taken(w, t))
        self._memory = w, gradient, t
        return gradient

    def _taken(self, w: Any, t: int | None) -> Evaluated | None:
        """The value of the loss at w, if it was the last one; its graph serves once."""
        value, self._value = self._value, None
        if value is None or t is not None or not torch.equal(value.w, w):
            return None
        return value

    def _curved(self, w: Any, rows: Any, t: int | None) -> tuple[Any, Any]:
        """Products of the Hessian with rows (k, n_params) in float64, and the gradient."""
        t = None if self._batches.whole else t
        with self._model.exact():
            value = self._taken(w, t) if self._products.keeps(len(rows)) else None
            found = self._products(self._at(t), w, rows.to(w.dtype), value)
        if found.gradient is not None:
            self._memory = w, found.gradient, t
        return found.vectors.double(), self._gradient(w, t)

    def loss(self, x: ArrayLike) -> Floats:
        """Loss of the whole data (...), without weight decay."""
        weights = self.weights(x)
        flat = weights.reshape(-1, self.n_params)
        return self._losses(flat, False).reshape(weights.shape[:-1])[()]

    def loss_batch(self, X: ArrayLike) -> Floats:
        """Losses (m,) of the whole data at states (m, n), together where the model is small."""
        states = self._states(X, "X")
        if states.ndim != 2:
            raise ArgumentError("X", f"must have shape (m, {self.n}), got {states.shape}")
        return self._losses(states[:, : self.n_params], True)

    def _losses(self, flat: Floats, together: bool) -> Floats:
        if together and len(flat):
            loss = self._at(None)  # under vjp recurrent layers have batching rules
            found = self._in_groups(flat, lambda w: vjp(loss, w)[0], False)
            if found is not None:
                return self._finished(found[:, np.newaxis])[:, 0]
        out = np.full(len(flat), np.nan)
        for i, w in enumerate(flat):
            if np.isfinite(w).all():
                with self._lock, self._model.exact():
                    value = evaluated(self._at(None), self._tensor(w))
                    out[i] = float(value.value.detach())
                    # Of a full batch the next step needs it; for others it would waste memory.
                    self._value = value if self._batches.whole else None
        return out

    def gradient(self, x: ArrayLike) -> Floats:
        """Gradient (..., n_params) of `loss` with respect to the weights."""
        return self._gradients(x, None)

    def batch_gradient(self, x: ArrayLike, t: int = 0) -> Floats:
        """Gradient (..., n_params) of the loss of the samples of step t."""
        return self._gradients(x, _checks.integer("t", t, least=0))

    def _gradients(self, x: ArrayLike, t: int | None) -> Floats:
        weights = self.weights(x)
        out = np.full(weights.shape, np.nan)
        for index in np.ndindex(weights.shape[:-1]):
            if np.isfinite(weights[index]).all():
                with self._lock, self._model.exact():
                    found = gradient_of(self._at(t), self._tensor(weights[index]))
                out[index] = found.double().cpu().numpy()
        return out

    def hessian_vector(self, x: ArrayLike, V: ArrayLike) -> Floats:
        """Hessian of `loss` times vectors (..., n_params, k), or (n_params,) for one."""
        return self._hessian_vectors(x, V, None)

    def batch_hessian_vector(self, x: ArrayLike, V: ArrayLike, t: int = 0) -> Floats:
        """Hessian of the loss of the samples of step t times vectors, as `hessian_vector`."""
        return self._hessian_vectors(x, V, _checks.integer("t", t, least=0))

    def _hessian_vectors(self, x: ArrayLike, V: ArrayLike, t: int | None) -> Floats:
        weights, vectors = self.weights(x), _vectors(V, self.n_params)
        if vectors.ndim == 1:
            return self._hessian_vectors(x, vectors[:, np.newaxis], t)[..., 0]
        batch = np.broadcast_shapes(weights.shape[:-1], vectors.shape[:-2])
        out = np.full((*batch, *vectors.shape[-2:]), np.nan)
        weights = np.broadcast_to(weights, (*batch, self.n_params))
        vectors = np.broadcast_to(vectors, out.shape)
        for index in np.ndindex(batch):
            if not np.isfinite(weights[index]).all():
                continue
            w, rows = self._tensor(weights[index]), self._rows(vectors[index])
            with self._lock, self._model.exact():
                found = self._products(self._at(t), w, rows.to(w.dtype)).vectors
            out[index] = _columns([found.double()])
        return out

    # --- runs -------------------------------------------------------------------------------------

    seconds_per_call = 2.0  # Ctrl-C ends a call of `propagate` at any step
    lanes = 1 << 30  # all runs of a batch: `step_batch` puts them into groups

    def propagate(
        self, x: Floats, V: Floats, t: int, n_steps: int, *, qr_every: int, record_every: int,
        since_record: int, last: bool,
    ) -> Propagation:  # fmt: skip
        """Steps t ... t + n_steps − 1 of runs with frames, which stay on the model's device."""
        return propagate(self, x, V, t, n_steps, qr_every, record_every, since_record)

    def trajectory(self, x: ArrayLike, n_steps: int, every: int = 1, start: int = 0) -> Floats:
        """States (..., n_steps // every + 1, n) along runs; the first is x."""
        n_steps, every, start = _checks.recorded_steps(n_steps, every, start)
        states = self._states(x)
        batch = states.shape[:-1]
        shape = (*batch, n_steps // every + 1, self.n)
        _checks.trajectory_memory(n_steps, shape)
        out = np.empty(shape)
        out[..., 0, :] = states
        for s in range(n_steps):
            states = self.step(states, start + s)
            if (s + 1) % every == 0:
                out[..., (s + 1) // every, :] = states
        return out

    def _in_groups(self, weights: Floats, function: Callable[[Any], Any], gradient: bool) -> Any:
        """A function of w for all of weights (m, n_params) by `vmap`, or None for one by one.

        Runs are taken together if there are two or more, the model has at most `_TOGETHER`
        parameters, all operators have batching rules, and copies of one run give the same bits in
        each place of a group: then no run depends on its neighbours or its place.
        """
        m = len(weights)
        if m < 2 or self.n_params > _TOGETHER:
            return None
        whole = self._tensor(weights)
        batched = vmap(function)
        with self._lock, self._model.exact():
            if gradient not in self._together:
                self._together[gradient] = _alike(batched, whole[0])
            if not self._together[gradient]:
                return None
            missing = -m % _GROUP
            if missing:
                whole = torch.cat([whole, whole[-1:].expand(missing, -1)])
            found = [batched(part).detach() for part in whole.split(_GROUP)]
        return torch.cat(found)[:m]

    def _finished(self, x: Any) -> Floats:
        """Numbers (..., n) as float64 arrays, all nan where one is not finite."""
        out: Floats = x.detach().double().cpu().numpy()
        out[~np.isfinite(out).all(axis=-1)] = np.nan
        return out


def _alike(batched: Callable[[Any], Any], w: Any) -> bool:
    """Whether copies of a run in a group give the same bits."""
    places = torch.arange(len(w), device=w.device).to(w.dtype)
    w = torch.nan_to_num(w) * (1.0 + 0.01 * places.cos()) + 0.01 * places.sin()  # nothing exact
    try:
        found = batched(w.expand(_GROUP, -1).contiguous())
    except Exception:  # an operator without a batching rule
        return False
    return bool((found == found[:1]).all())


def _vectors(V: ArrayLike, n: int) -> Floats:
    """Tangent vectors (..., n, k) or (n,)."""
    vectors = _checks.floats("V", V, finite=False)
    length = 0 if vectors.ndim == 0 else vectors.shape[-2 if vectors.ndim > 1 else -1]
    if length != n or vectors.shape[-1] == 0:
        raise ArgumentError("V", f"must have shape (..., {n}, k) with k >= 1, got {vectors.shape}")
    return vectors


def _columns(parts: list[Any]) -> Floats:
    """Parts (k, n) of vectors as the columns of one array (n_total, k)."""
    whole = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
    out: Floats = np.ascontiguousarray(whole.cpu().numpy().T)
    return out
