"""Data as tensors on the model's device, and the minibatch of each step."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, IterableDataset

from pylyap import _checks
from pylyap._bridges.minibatches import Minibatches
from pylyap._errors import ArgumentError, ArgumentTypeError


def tensors(
    X: Any, y: Any, device: Any, dtype: Any, limit: float, names: tuple[str, str] = ("X", "y")
) -> tuple[Any, Any]:
    """Inputs and targets as tensors: real numbers in `dtype`, integers as int64."""
    inputs, targets = names
    if isinstance(X, DataLoader):
        raise ArgumentTypeError(inputs, "must be data, got a DataLoader: pass loader.dataset")
    if isinstance(X, IterableDataset):
        raise ArgumentTypeError(inputs, "must be a Dataset with a length, got an IterableDataset")
    if y is None:
        if not isinstance(X, Dataset) or not hasattr(X, "__len__"):
            raise ArgumentError(
                targets, f"must be given unless {inputs} is a Dataset, got None and "
                f"{_checks.describe(X)}"
            )  # fmt: skip
        X, y = _loaded(X, limit)
    elif isinstance(X, Dataset):
        raise ArgumentError(
            targets, f"must be None where {inputs} is a Dataset, which has the targets"
        )
    found = _tensor(inputs, X, device, dtype), _tensor(targets, y, device, dtype)
    if len(found[0]) != len(found[1]):
        raise ArgumentError(
            targets,
            f"must have as many samples as {inputs}, got {len(found[1])} and {len(found[0])}",
        )
    return found


def _tensor(name: str, value: Any, device: Any, dtype: Any) -> Any:
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided:
            raise ArgumentError(name, f"must be dense, got the layout {value.layout}")
        found = value.detach().clone()
    else:
        array = _checks.array(name, value)
        if array.dtype.kind in "iu":
            _checks.memory(f"{name} in int64", 8.0 * array.size, "pass fewer values")
            found = torch.from_numpy(np.array(array, dtype=np.int64, order="C"))
        else:
            found = torch.from_numpy(np.array(_checks.floats(name, array)))
    if found.dtype == torch.bool or found.is_complex() or found.is_quantized:
        raise ArgumentTypeError(name, f"must be real numbers, got dtype {found.dtype}")
    if found.ndim == 0 or found.numel() == 0:
        raise ArgumentError(name, f"must have at least one sample, got shape {tuple(found.shape)}")
    if found.is_floating_point():
        if not bool(torch.isfinite(found).all()):
            raise ArgumentError(name, "must be finite")
        return found.to(device, dtype)
    return found.to(device, torch.int64)


def _loaded(data: Any, limit: float) -> tuple[Any, Any]:
    """All samples of a map-style dataset, stacked."""
    count = len(data)
    if count == 0:
        raise ArgumentError("X", "must have at least one sample, got an empty Dataset")
    first, again = _sample(data, 0), _sample(data, 0)
    if not all(torch.equal(a, b) for a, b in zip(first, again, strict=True)):
        raise ArgumentError("X", "must not be random, got a Dataset whose sample 0 changes")
    size = float(count * sum(part.numel() * part.element_size() for part in first))
    if size > limit:
        raise ArgumentError(
            "X",
            f"must take at most {_checks.size(limit)} in memory, got a Dataset of {count} samples "
            f"and {_checks.size(size)}; raise memory_limit, or pass a Subset",
        )
    _checks.memory(f"the {count} samples of X", size, "pass a Subset")
    samples = [first, *(_sample(data, i) for i in range(1, count))]
    if len({(a.shape, b.shape) for a, b in samples}) > 1:
        raise ArgumentError("X", "must have samples of one shape")
    return torch.stack([a for a, _ in samples]), torch.stack([b for _, b in samples])


def _sample(data: Any, i: int) -> tuple[Any, Any]:
    item = data[i]
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        raise ArgumentTypeError(
            "X", f"must be a Dataset of pairs (input, target), got {_checks.describe(item)}"
        )
    try:
        inputs, target = (torch.as_tensor(part) for part in item)
    except Exception:  # images and the like
        raise ArgumentTypeError(
            "X",
            "must be a Dataset of pairs of tensors, arrays or numbers, got "
            f"{' and '.join(type(part).__name__ for part in item)}; images need a transform",
        ) from None
    return inputs, target


class Batches:
    """Tensors of the whole data, and of the minibatch of each step, as in `TrainingMap`.

    Parameters
    ----------
    X, y : torch.Tensor
        The data.
    order : GradientDescent or Adam
        Has batch_size, shuffle and seed.
    """

    def __init__(self, X: Any, y: Any, order: Any) -> None:
        self.X, self.y = X, y
        self._order = Minibatches(order, len(X))
        self.whole = self._order.full
        self._last: tuple[int, tuple[Any, Any]] | None = None

    def with_targets(self, y: Any) -> Batches:
        """The same batches with other targets."""
        out = copy.copy(self)
        out.y, out._last = y, None
        return out

    @property
    def per_epoch(self) -> int:
        """Steps per epoch."""
        return self._order.per_epoch

    def indices(self, t: int) -> NDArray[np.int64]:
        """Indices of the samples of step t."""
        return self._order.indices(t)

    def __call__(self, t: int) -> tuple[Any, Any]:
        """Inputs and targets of step t."""
        if self.whole:
            return self.X, self.y
        if self._last is None or self._last[0] != t:
            chosen = torch.from_numpy(self.indices(t)).to(self.X.device)
            self._last = t, (self.X[chosen], self.y[chosen])
        return self._last[1]


class ListedBatches(Batches):
    """Tensors of the whole data, and of listed minibatches: that of step t is the t-th.

    Parameters
    ----------
    whole : pair of Tensor
        The data.
    listed : list of pairs of Tensor
        The minibatches; none if each step sees the whole data.
    """

    def __init__(self, whole: tuple[Any, Any], listed: list[tuple[Any, Any]]) -> None:
        self.X, self.y = whole
        self.whole = not listed
        self._listed = listed

    @property
    def per_epoch(self) -> int:
        """Number of minibatches."""
        return max(len(self._listed), 1)

    def __call__(self, t: int) -> tuple[Any, Any]:
        """Inputs and targets of step t."""
        return self._listed[t] if self._listed else (self.X, self.y)
