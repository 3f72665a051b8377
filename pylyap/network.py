"""Fully connected networks: layers, activations, loss, parameter layout, initial weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._checks import Floats, Seed
from pylyap._errors import ArgumentError
from pylyap._native import core
from pylyap._parallel import over_runs
from pylyap.activations import Activation

ACTIVATIONS: tuple[str, ...] = core.ACTIVATIONS
Loss: TypeAlias = Literal["mse", "cross_entropy", "cross_entropy_clipped"]
LOSSES: tuple[Loss, ...] = get_args(Loss)
Initialiser: TypeAlias = Literal[
    "normal", "uniform", "he_normal", "he_uniform", "glorot_normal", "glorot_uniform",
    "lecun_normal",
]  # fmt: skip

# Units of all layers, over all samples of a block, when the accuracy is computed: the block stays
# in the cache. 2^17, 2^18 and 2^19 are equally fast within noise and up to 50 % faster than 2^20 …
# 2^22 (784-64-64-10, 4 runs, two busy cores of an Intel Xeon, family 6, model 207, November 2026).
_ACCURACY_BLOCK = 2**18
_GROUP = 8  # maximum number of runs that the core processes together


class Network:
    """A fully connected network with linear outputs, as a function of its weights.

    Parameters
    ----------
    layers : iterable of int
        Units per layer, input first, at least an input and an output: ``(4, 10, 3)``.
    activation : str, Activation or sequence of these, default "tanh"
        Activation of the hidden layers, one for all or one for each. Names are ``"tanh"``,
        ``"relu"``, ``"leaky_relu"`` (slope 0.01), ``"sigmoid"``, ``"softplus"``, ``"elu"``,
        ``"gelu"`` (exact), ``"silu"``, ``"sin"`` and ``"identity"``. Derivatives that are
        discontinuous at 0 take their left limit there: f' is 0 for ``"relu"`` and 0.01 for
        ``"leaky_relu"``, f'' is 1 for ``"elu"``. An `Activation` is a user-defined function.
    loss : {"mse", "cross_entropy", "cross_entropy_clipped"}, default "mse"
        Mean loss over N samples. ``"mse"`` is 1/(2N) Σ‖ŷ − y‖². ``"cross_entropy"`` is the mean
        softmax cross-entropy on integer labels. ``"cross_entropy_clipped"`` clips the
        probabilities to [1e-7, 1 − 1e-7], as Keras did; the gradient of a clipped sample is 0.

    Attributes
    ----------
    layers : tuple of int
        Units per layer, input first.
    activations : tuple of str or Activation
        Activation of each hidden layer.
    loss : str
        Name of the loss.

    Raises
    ------
    ArgumentError
        If `layers` has fewer than two entries, an entry below 1, or fewer than two outputs for a
        cross-entropy; if `activation` has the wrong length; if a name is unknown.

    See Also
    --------
    TrainingMap : Training of a network as a dynamical system.

    Notes
    -----
    The weights are one float64 vector of length `n_params`: for each layer ``W`` of shape
    (n_out, n_in) in C order, followed by ``b`` of shape (n_out,).

    Examples
    --------
    >>> net = pl.Network((4, 10, 3), activation="sigmoid", loss="cross_entropy")
    >>> net.n_params
    83
    >>> net
    Network((4, 10, 3), activation='sigmoid', loss='cross_entropy')
    """

    def __init__(
        self,
        layers: Iterable[int],
        activation: str | Activation | Sequence[str | Activation] = "tanh",
        loss: Loss | str = "mse",
    ) -> None:
        widths = _checks.sequence("layers", layers, "the units of each layer, like (4, 10, 3)")
        self.layers = tuple(
            _checks.integer(f"layers[{i}]", width, least=1) for i, width in enumerate(widths)
        )
        if len(self.layers) < 2:
            raise ArgumentError(
                "layers", f"must have at least an input and an output layer, got {self.layers}"
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
        self.loss: Loss = _checks.choice("loss", loss, LOSSES)
        if self.classifies and self.layers[-1] < 2:
            raise ArgumentError(
                "layers", f"must end in at least 2 outputs for loss={loss!r}, got {self.layers}"
            )

    @cached_property
    def n_params(self) -> int:
        """Number of parameters (weights and biases)."""
        return sum(
            n_out * (n_in + 1) for n_in, n_out in zip(self.layers, self.layers[1:], strict=False)
        )

    @property
    def classifies(self) -> bool:
        """Whether the targets are integer labels."""
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
        kind: Initialiser = "glorot_uniform",
        runs: int | Sequence[int] | None = None,
        *,
        scale: float = 1.0,
        seed: Seed = 0,
        biases: bool = False,
    ) -> Floats:
        """Draw initial weights.

        Parameters
        ----------
        kind : str, default "glorot_uniform"
            Distribution of the weights, not truncated. ``"normal"`` is N(0, 1), ``"uniform"`` is
            U(−1, 1). For a layer with m inputs and n outputs, ``"he_normal"`` is N(0, 2/m),
            ``"he_uniform"`` is U(±√(6/m)), ``"glorot_normal"`` is N(0, 2/(m + n)),
            ``"glorot_uniform"`` is U(±√(6/(m + n))), and ``"lecun_normal"`` is N(0, 1/m).
        runs : int or sequence of int, optional
            Number of runs, or batch shape. By default one run without a batch axis. The weights of
            run i do not depend on the number of runs.
        scale : float, default 1.0
            Factor on all weights, at least 0.
        seed : int, SeedSequence or Generator, default 0
            Seed of the random numbers. From a Generator one int is drawn.
        biases : bool, default False
            Draw the biases from the distribution of their layer. By default they are 0.

        Returns
        -------
        ndarray, shape (..., n_params)
            Initial weights, with the batch shape given by `runs`.

        Raises
        ------
        ArgumentError
            If `kind` is unknown, `runs` is negative, `scale` is negative or not finite, or the
            weights do not fit in memory.

        References
        ----------
        He et al., ICCV (2015). Glorot, Bengio, AISTATS (2010). LeCun et al., Efficient BackProp
        (1998).

        Examples
        --------
        >>> net = pl.Network((4, 10, 3))
        >>> net.init("normal", runs=64, seed=0).shape
        (64, 83)
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
        shapes = zip(self.layers, self.layers[1:], strict=False)
        for (n_in, n_out), (W, b) in zip(shapes, self._split(draws), strict=True):
            factor = scale * spread(n_in, n_out)
            W *= factor
            b *= factor if biases else 0.0
        draws += 0.0  # no negative zeros among the biases
        return draws.reshape((*shape, self.n_params))

    def unpack(self, w: ArrayLike) -> list[tuple[Floats, Floats]]:
        """Split weights into the matrix and the bias vector of each layer.

        Parameters
        ----------
        w : array_like, shape (..., n_params)
            Weights. They may be nan.

        Returns
        -------
        list of (W, b)
            One pair per layer, ``W`` of shape (..., n_out, n_in) and ``b`` of shape (..., n_out).
            They are views of `w` if it is a C-contiguous float64 array.

        Raises
        ------
        ArgumentError
            If the last axis of `w` is not n_params long.

        Examples
        --------
        >>> net = pl.Network((2, 3, 1))
        >>> [(W.shape, b.shape) for W, b in net.unpack(net.init())]
        [((3, 2), (3,)), ((1, 3), (1,))]
        """
        return self._split(self._weights(w, finite=False))

    def _split(self, flat: Floats) -> list[tuple[Floats, Floats]]:
        """Views of (W, b) of each layer in weights (..., n_params)."""
        parts = []
        begin = 0
        for n_in, n_out in zip(self.layers, self.layers[1:], strict=False):
            middle = begin + n_out * n_in
            matrix = flat[..., begin:middle].reshape((*flat.shape[:-1], n_out, n_in))
            parts.append((matrix, flat[..., middle : middle + n_out]))
            begin = middle + n_out
        return parts

    def pack(self, parts: Sequence[tuple[ArrayLike, ArrayLike]]) -> Floats:
        """Join the matrices and bias vectors of all layers into weights.

        Parameters
        ----------
        parts : sequence of (W, b)
            One pair per layer, as `unpack` returns them. Batch axes broadcast. Booleans become 0.0
            and 1.0, so ``pack(...).astype(bool)`` is a mask of parameters.

        Returns
        -------
        ndarray, shape (..., n_params)
            Weights.

        Raises
        ------
        ArgumentError
            If the number of pairs or a shape does not match the layers, or batch axes do not
            broadcast.

        Examples
        --------
        >>> net = pl.Network((2, 3, 1))
        >>> w = net.init(seed=0)
        >>> np.array_equal(net.pack(net.unpack(w)), w)
        True
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
        """Compute the outputs for given weights and inputs.

        Parameters
        ----------
        w : array_like, shape (..., n_params)
            Weights.
        X : array_like, shape (N, n_in)
            Inputs, or uint8 images of shape (N, rows, columns, ...), whose values 0 … 255
            represent 0 … 1, as in `TrainingMap`.

        Returns
        -------
        ndarray, shape (..., N, n_out)
            Probabilities for the cross-entropies, linear outputs for ``"mse"``.

        Raises
        ------
        ArgumentError
            If a shape does not match the network, inputs are not finite, or the outputs do not fit
            in memory.

        Examples
        --------
        >>> net = pl.Network((2, 3, 1))
        >>> net.predict(net.init(runs=5), np.zeros((10, 2))).shape
        (5, 10, 1)
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
        """Compute the fraction of samples that are classified correctly.

        The predicted class is that of the largest output.

        Parameters
        ----------
        w : array_like, shape (..., n_params)
            Weights.
        X : array_like, shape (N, n_in)
            Inputs, or uint8 images, as in `predict`.
        y : array_like, shape (N,)
            Integer labels in 0 … n_out − 1.

        Returns
        -------
        ndarray, shape (...)
            Accuracies in [0, 1]; nan for weights that are not finite.

        Raises
        ------
        ArgumentError
            If the loss of the network is ``"mse"``, a shape does not match, inputs are not finite,
            or a label is out of range.

        Examples
        --------
        >>> X, y = pl.datasets.iris()
        >>> net = pl.Network((4, 10, 3), loss="cross_entropy")
        >>> net.accuracy(net.init(runs=2, scale=0.0), X, y).round(3)
        array([0.333, 0.333])
        """
        if not self.classifies:
            raise ArgumentError("loss", "must be a cross-entropy for an accuracy, got 'mse'")
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
        """Accuracies (runs,), computed in blocks of samples and runs."""
        n_out = self.layers[-1]
        # The block of samples depends on the layers only, so results do not depend on the batch.
        piece = max(1, _ACCURACY_BLOCK // sum(self.layers))
        block = max(1, _ACCURACY_BLOCK // (piece * n_out * _GROUP)) * _GROUP
        pieces, blocks = -(-len(inputs) // piece), -(-len(flat) // block)
        correct = np.zeros((len(flat), pieces))

        def work(task: core.Task) -> None:
            for item in range(task.first, task.first + task.count):
                if task.cancelled:
                    return
                p, b = divmod(item, blocks)
                samples = slice(p * piece, (p + 1) * piece)
                runs = slice(b * block, (b + 1) * block)
                out = np.empty((len(flat[runs]), len(inputs[samples]), n_out))
                self._core.predict(flat[runs], inputs[samples], out, task.over(0, len(out)))
                n_correct = (out.argmax(axis=-1) == labels[samples]).sum(axis=-1)
                not_finite = np.isnan(out).any(axis=(-2, -1))
                correct[runs, p] = np.where(not_finite, np.nan, n_correct)

        cost = float(len(flat)) * len(inputs) * self.n_params
        over_runs(work, pieces * blocks, threads=threads, cost=cost)
        accuracies: Floats = correct.sum(axis=1) / len(inputs)
        return accuracies

    def _weights(self, w: ArrayLike, *, finite: bool = True, name: str = "w") -> Floats:
        weights = _checks.floats(name, w, finite=finite)
        if weights.ndim == 0 or weights.shape[-1] != self.n_params:
            raise ArgumentError(
                name, f"must have shape (..., {self.n_params}), got {weights.shape}"
            )
        return weights

    def _inputs(self, X: ArrayLike) -> Floats | NDArray[np.uint8]:
        """Inputs (N, n_in) for the core, float64 or uint8.

        They are images if the dtype that NumPy infers is uint8 and there are three axes or more,
        in any container.
        """
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
                "X[:, :, None] for pixels that stay uint8",
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
        """Targets (N, n_out) for the core, or labels (N, 1)."""
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


Scale = Callable[[int, int], float]  # of the weights of a layer with m inputs and n outputs


def _normal(variance: Scale) -> tuple[bool, Scale]:
    return True, lambda m, n: math.sqrt(variance(m, n))


def _uniform(square: Scale) -> tuple[bool, Scale]:
    return False, lambda m, n: math.sqrt(square(m, n))


# kind -> (Gaussian?, factor on N(0, 1) or U(-1, 1))
INITIALISERS: dict[Initialiser, tuple[bool, Scale]] = {
    "he_normal": _normal(lambda m, n: 2.0 / m),
    "he_uniform": _uniform(lambda m, n: 6.0 / m),
    "glorot_normal": _normal(lambda m, n: 2.0 / (m + n)),
    "glorot_uniform": _uniform(lambda m, n: 6.0 / (m + n)),
    "lecun_normal": _normal(lambda m, n: 1.0 / m),
    "normal": _normal(lambda m, n: 1.0),
    "uniform": _uniform(lambda m, n: 1.0),
}
