"""Dense networks: layers, activation, loss, the layout of the parameters, initial weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._errors import ArgumentError
from pylyap._native import core
from pylyap._parallel import over_runs
from pylyap.activations import Activation

ACTIVATIONS: tuple[str, ...] = core.ACTIVATIONS
LOSSES = ("mse", "cross_entropy", "cross_entropy_clipped")

# In all layers for the samples that are classified at a time: they stay in the cache. Of powers
# from 17 to 22 the lower three are equal within noise, and up to half faster (784-64-64-10, 4 runs,
# two busy cores of an Intel Xeon, family 6, model 207, November 2026).
_AT_ONCE = 2**18
_GROUP = 8  # runs that the core takes at once, at most


class Network:
    """A fully connected network with linear outputs, as a function of its weights.

    Parameters
    ----------
    layers
        Units per layer, input first: ``(4, 10, 3)``. At least an input and an output.
    activation
        Of the hidden layers: one name for all or one per hidden layer, out of ``tanh``, ``relu``,
        ``leaky_relu`` (slope 0.01), ``sigmoid``, ``softplus``, ``elu``, ``gelu`` (exact), ``silu``,
        ``sin``, ``identity``. Where a derivative jumps, at 0, it has its left limit: f' of ``relu``
        is 0 there, of ``leaky_relu`` 0.01, f'' of ``elu`` 1. In place of a name an
        `Activation` of one's own.
    loss
        ``"mse"``: 1/(2N) Σ‖ŷ − y‖². ``"cross_entropy"``: mean softmax cross-entropy on integer
        labels. ``"cross_entropy_clipped"``: the same with probabilities clipped to
        [1e-7, 1 − 1e-7] as Keras did, so that the gradient of a sample outside vanishes.

    Notes
    -----
    Weights are one vector of `n_params` float64: for each layer ``W`` (n_out, n_in) in C order,
    then ``b`` (n_out,).
    """

    def __init__(
        self,
        layers: Iterable[int],
        activation: str | Activation | Sequence[str | Activation] = "tanh",
        loss: str = "mse",
    ) -> None:
        widths = _checks.sequence("layers", layers, "the units of each layer, like (4, 10, 3)")
        self.layers = tuple(
            _checks.integer(f"layers[{i}]", width, least=1) for i, width in enumerate(widths)
        )
        if len(self.layers) < 2:
            raise ArgumentError(
                "layers", f"must have at least an input and an output, got {self.layers}"
            )
        hidden = len(self.layers) - 2
        chosen: tuple[str | Activation, ...]
        if isinstance(activation, (str, Activation)):
            chosen = (_activation(activation),) * hidden
        else:
            what = "a name or an Activation, or one per hidden layer"
            chosen = _checks.sequence("activation", activation, what)
            if len(chosen) != hidden:
                raise ArgumentError(
                    "activation",
                    f"must name all {hidden} hidden layers or one for all, got {len(chosen)} names",
                )
        self.activations: tuple[str | Activation, ...] = tuple(map(_activation, chosen))
        self.loss = _checks.choice("loss", loss, LOSSES)
        if self.classifies and self.layers[-1] < 2:
            raise ArgumentError(
                "layers", f"must end in at least 2 outputs for loss={loss!r}, got {self.layers}"
            )

    @cached_property
    def n_params(self) -> int:
        """Number of weights and biases."""
        return sum(
            n_out * (n_in + 1) for n_in, n_out in zip(self.layers, self.layers[1:], strict=False)
        )

    @property
    def classifies(self) -> bool:
        """Whether targets are integer labels."""
        return self.loss != "mse"

    @cached_property
    def _core(self) -> core.Architecture:
        activations = [a if isinstance(a, str) else a._code for a in self.activations]
        return core.Architecture(list(self.layers), activations, self.loss)

    def __repr__(self) -> str:
        names = set(self.activations)
        activation = names.pop() if len(names) == 1 else list(self.activations)
        return f"Network({self.layers}, activation={activation!r}, loss={self.loss!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Network) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[Any, ...]:
        return self.layers, self.activations, self.loss

    def __getstate__(self) -> dict[str, Any]:
        return {"layers": self.layers, "activations": self.activations, "loss": self.loss}

    def init(
        self,
        kind: str = "glorot_uniform",
        runs: int | Sequence[int] | None = None,
        *,
        scale: float = 1.0,
        seed: Any = 0,
        biases: bool = False,
    ) -> Floats:
        """Draw initial weights.

        Parameters
        ----------
        kind
            ``normal`` N(0, 1), ``uniform`` U(−1, 1); with m inputs and n outputs of a layer
            ``he_normal`` N(0, 2/m), ``he_uniform`` U(±√(6/m)), ``glorot_normal`` N(0, 2/(m + n)),
            ``glorot_uniform`` U(±√(6/(m + n))), ``lecun_normal`` N(0, 1/m). None is truncated.
        runs
            Number of networks, or a shape; ``None`` gives one without a batch axis. Run i is the
            same whatever the number of runs.
        scale
            Multiplies every draw.
        seed
            An int, a SeedSequence, or a Generator, of which one int is drawn.
        biases
            Draw the biases like the weights of their layer instead of leaving them 0.

        Returns
        -------
        (runs, n_params) array, or (n_params,)

        Raises
        ------
        ValueError, TypeError
            For an unknown kind, a negative or fractional number of runs, a scale that is not
            finite and at least 0.

        References
        ----------
        He et al., ICCV (2015). Glorot, Bengio, AISTATS (2010). LeCun et al., Efficient BackProp
        (1998).
        """
        _checks.choice("kind", kind, INITIALISERS)
        scale = _checks.real("scale", scale, least=0.0)
        _checks.flag("biases", biases)
        if runs is None:
            shape: tuple[int, ...] = ()
        elif isinstance(runs, (tuple, list)):
            shape = tuple(_checks.integer("runs", size, least=0) for size in runs)
        else:
            shape = (_checks.integer("runs", runs, least=0),)
        count = math.prod(shape)
        _checks.memory(
            f"{count} runs of {self.n_params} weights of layers {self.layers}",
            8.0 * count * self.n_params,
            "ask for fewer runs",
        )
        random = np.random.default_rng(_checks.seed_sequence(seed))
        gaussian, spread = INITIALISERS[kind]
        draws = (
            random.standard_normal((count, self.n_params))
            if gaussian
            else random.uniform(-1.0, 1.0, (count, self.n_params))
        )
        begin = 0
        for n_in, n_out in zip(self.layers, self.layers[1:], strict=False):
            weights = slice(begin, begin + n_out * n_in)
            bias = slice(weights.stop, weights.stop + n_out)
            factor = scale * spread(n_in, n_out)
            draws[:, weights] *= factor
            draws[:, bias] *= factor if biases else 0.0
            begin = bias.stop
        draws += 0.0  # no negative zeros among the biases
        return draws.reshape((*shape, self.n_params))

    def unpack(self, w: ArrayLike) -> list[tuple[Floats, Floats]]:
        """Split weights (..., n_params) into [(W, b), ...], one pair per layer.

        W has shape (..., n_out, n_in) and b (..., n_out): views of `w` where it is a float64 array.
        """
        flat = self._weights(w, finite=False)
        parts = []
        begin = 0
        for n_in, n_out in zip(self.layers, self.layers[1:], strict=False):
            middle = begin + n_out * n_in
            matrix = flat[..., begin:middle].reshape((*flat.shape[:-1], n_out, n_in))
            parts.append((matrix, flat[..., middle : middle + n_out]))
            begin = middle + n_out
        return parts

    def pack(self, parts: Sequence[tuple[ArrayLike, ArrayLike]]) -> Floats:
        """Join [(W, b), ...], as `unpack` gives them, into weights (..., n_params).

        Booleans become 0.0 and 1.0, so that a mask of parameters is ``pack(...).astype(bool)``.
        """
        pairs = _checks.sequence("parts", parts, "one (W, b) per layer")
        if len(pairs) != len(self.layers) - 1:
            raise ArgumentError(
                "parts",
                f"must have one (W, b) per layer, {len(self.layers) - 1} of them, got {len(pairs)}",
            )
        flat = []
        for i, (pair, n_in, n_out) in enumerate(
            zip(pairs, self.layers, self.layers[1:], strict=False)
        ):
            both = _checks.sequence(f"parts[{i}]", pair, "a pair (W, b)")
            if len(both) != 2:
                raise ArgumentError(
                    f"parts[{i}]", f"must be a pair (W, b), got {len(both)} entries"
                )
            matrix, bias = both
            W = _checks.floats(f"parts[{i}][0]", matrix, finite=False, booleans=True)
            b = _checks.floats(f"parts[{i}][1]", bias, finite=False, booleans=True)
            if W.shape[-2:] != (n_out, n_in) or b.shape[-1:] != (n_out,):
                raise ArgumentError(
                    f"parts[{i}]",
                    f"must have shapes (..., {n_out}, {n_in}) and (..., {n_out}), "
                    f"got {W.shape} and {b.shape}",
                )
            flat += [W.reshape((*W.shape[:-2], n_out * n_in)), b]
        try:
            batch = np.broadcast_shapes(*(part.shape[:-1] for part in flat))
        except ValueError:
            raise ArgumentError(
                "parts",
                f"must have leading axes that broadcast, got {[p.shape[:-1] for p in flat]}",
            ) from None
        return np.concatenate(
            [np.broadcast_to(part, (*batch, part.shape[-1])) for part in flat], axis=-1
        )

    def predict(self, w: ArrayLike, X: ArrayLike) -> Floats:
        """Outputs (..., N, n_out) for weights (..., n_params) and inputs (N, n_in), or uint8 images
        (N, rows, columns, ...), whose 0 … 255 stand for 0 … 1, as in `TrainingMap`.

        Probabilities for the cross-entropies, plain outputs for ``"mse"``.
        """
        weights = self._weights(w, finite=False)
        inputs = self._inputs(X)
        flat = weights.reshape(-1, self.n_params)
        shape = (len(flat), len(inputs), self.layers[-1])
        _checks.memory("outputs", 8.0 * math.prod(shape), "predict fewer runs or samples at a time")
        out = np.empty(shape)

        def work(task: core.Task) -> None:
            self._core.predict(flat, inputs, out, task)

        over_runs(
            work, len(flat), group=_GROUP, cost=float(self.n_params) * len(flat) * len(inputs)
        )
        return out.reshape((*weights.shape[:-1], *shape[1:]))

    def accuracy(self, w: ArrayLike, X: ArrayLike, y: ArrayLike) -> Floats:
        """Share of samples whose likeliest class is the label: (...) for weights (..., n_params).

        nan for weights that are not finite. Raises ValueError for a network with loss ``"mse"``.
        """
        if not self.classifies:
            raise ArgumentError("accuracy", "needs a network with labels, got loss='mse'")
        inputs = self._inputs(X)
        labels = self._targets(y, len(inputs))[:, 0]
        weights = self._weights(w, finite=False)
        flat = weights.reshape(-1, self.n_params)
        return self._accuracy(flat, inputs, labels, None).reshape(weights.shape[:-1])[()]

    def _accuracy(
        self,
        flat: Floats,
        inputs: Floats | NDArray[np.uint8],
        labels: NDArray[Any],
        threads: int | None,
    ) -> Floats:
        """(runs,) as `accuracy`, a piece of the samples and a block of the runs at a time."""
        n_out = self.layers[-1]
        piece = max(1, _AT_ONCE // sum(self.layers))  # by the layers alone: no run sees the others
        block = max(1, _AT_ONCE // (piece * n_out * _GROUP)) * _GROUP
        pieces, blocks = -(-len(inputs) // piece), -(-len(flat) // block)
        right = np.zeros((len(flat), pieces))

        def work(task: core.Task) -> None:
            for item in range(task.first, task.first + task.count):
                if task.cancelled:
                    return
                p, b = divmod(item, blocks)
                some, runs = slice(p * piece, (p + 1) * piece), slice(b * block, (b + 1) * block)
                out = np.empty((len(flat[runs]), len(inputs[some]), n_out))
                self._core.predict(flat[runs], inputs[some], out, task.over(0, len(out)))
                count_right = (out.argmax(axis=-1) == labels[some]).sum(axis=-1)
                lost = np.isnan(out).any(axis=(-2, -1))
                right[runs, p] = np.where(lost, np.nan, count_right)

        cost = float(len(flat)) * len(inputs) * self.n_params
        over_runs(work, pieces * blocks, threads=threads, cost=cost)
        shares: Floats = right.sum(axis=1) / len(inputs)
        return shares

    def _weights(self, w: ArrayLike, *, finite: bool = True, name: str = "w") -> Floats:
        weights = _checks.floats(name, w, finite=finite)
        if weights.ndim == 0 or weights.shape[-1] != self.n_params:
            raise ArgumentError(
                name, f"must have shape (..., {self.n_params}), got {weights.shape}"
            )
        return weights

    def _inputs(self, X: ArrayLike) -> Floats | NDArray[np.uint8]:
        """Inputs as the core wants them: (N, n_in), numbers or bytes. By the dtype that NumPy finds
        in X and its number of axes alone, whatever holds it."""
        n_in = self.layers[0]
        inputs: Floats | NDArray[np.uint8]
        given = _checks.array("X", X)
        if given.dtype == np.uint8 and given.ndim > 2:
            pixels = math.prod(given.shape[1:])
            if pixels != n_in:
                raise ArgumentError(
                    "X", f"must have images of {n_in} pixels, got shape {given.shape}"
                )
            inputs = np.ascontiguousarray(given.reshape(len(given), pixels))
        elif given.dtype == np.uint8 and given.ndim == 2 and given.size:
            raise ArgumentError(
                "X",
                f"must be images with three axes or more, or not be uint8, got uint8 of shape "
                f"{given.shape}: X.astype(float) for numbers, X / 255.0 for pixels, or "
                "X[:, :, None] for pixels that stay bytes",
            )
        else:
            inputs = _checks.floats("X", given)
        if inputs.ndim != 2 or inputs.shape[1] != n_in:
            hint = "; only uint8 images have more axes" if inputs.ndim > 2 else ""
            raise ArgumentError("X", f"must have shape (N, {n_in}), got {inputs.shape}{hint}")
        if len(inputs) == 0:
            raise ArgumentError("X", f"must have at least one sample, got shape {inputs.shape}")
        return inputs

    def _targets(self, y: ArrayLike, n_samples: int) -> Floats:
        """Targets as the core wants them: (N, n_out), or labels as (N, 1)."""
        given = _checks.array("y", y)
        targets = _checks.floats("y", given)
        n_out = self.layers[-1]
        if not self.classifies:
            if given.dtype == np.uint8 and given.ndim > 1:
                raise ArgumentError(
                    "y",
                    f"must not be uint8 of more than one axis for loss='mse', got shape "
                    f"{given.shape}: y.astype(float) for numbers, y / 255.0 for pixels",
                )
            if targets.ndim == 1 and n_out == 1:
                targets = targets[:, np.newaxis]
            if targets.shape != (n_samples, n_out):
                raise ArgumentError(
                    "y",
                    f"must have shape ({n_samples}, {n_out})"
                    f"{f' or ({n_samples},)' if n_out == 1 else ''}, got {targets.shape}",
                )
            return targets
        if targets.shape != (n_samples,):
            raise ArgumentError(
                "y", f"must have shape ({n_samples},), one label per sample, got {targets.shape}"
            )
        wrong = (targets != np.floor(targets)) | (targets < 0) | (targets >= n_out)
        if wrong.any():
            raise ArgumentError(
                "y",
                f"must hold integer labels in 0 ... {n_out - 1}, "
                f"got {targets[wrong][0]:g} at index {int(np.argmax(wrong))}",
            )
        return targets[:, np.newaxis]


def _activation(value: Any) -> str | Activation:
    if isinstance(value, Activation):
        return value
    return _checks.choice("activation", value, ACTIVATIONS)


def _normal(variance: Any) -> tuple[bool, Any]:
    return True, lambda m, n: math.sqrt(variance(m, n))


def _uniform(square: Any) -> tuple[bool, Any]:
    return False, lambda m, n: math.sqrt(square(m, n))


# kind -> (Gaussian?, factor on N(0, 1) or U(-1, 1) for m inputs and n outputs)
INITIALISERS = {
    "he_normal": _normal(lambda m, n: 2.0 / m),
    "he_uniform": _uniform(lambda m, n: 6.0 / m),
    "glorot_normal": _normal(lambda m, n: 2.0 / (m + n)),
    "glorot_uniform": _uniform(lambda m, n: 6.0 / (m + n)),
    "lecun_normal": _normal(lambda m, n: 1.0 / m),
    "normal": _normal(lambda m, n: 1.0),
    "uniform": _uniform(lambda m, n: 1.0),
}
