"""Names and labels of the dimensions of a grid, and padding of results to common shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylyap.studies.outline import Variable

Array = NDArray[Any]


def short_names(axes: Mapping[str, Any], variables: Mapping[str, Variable]) -> tuple[str, ...]:
    """Names of the dimensions of the grid: the key alone where it is unique."""
    taken = {"run", *variables}.union(*(variable.dims for variable in variables.values()))
    keys = [path.partition(".")[2] for path in axes]
    return tuple(
        key if key not in taken and keys.count(key) == 1 else path.replace(".", "_")
        for key, path in zip(keys, axes, strict=True)
    )


def axis_labels(values: tuple[Any, ...]) -> Array:
    """Labels of a dimension of the grid: numbers if all values are numbers, else strings."""
    plain = [v[0] if isinstance(v, list) and len(v) == 1 else v for v in values]
    if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in plain):
        return np.array(plain)
    texts = ["-".join(map(str, v)) if isinstance(v, list) else str(v) for v in plain]
    return np.array(texts, dtype=np.str_)


def padded(values: Array | None, variable: Variable, count: int) -> Array:
    """Values (count, ...) padded to the shape of the variable."""
    shape = (count, *variable.shape)
    if values is not None and values.shape == shape:
        return values.astype(variable.dtype, copy=False)
    out = variable.blank(count)
    if values is not None:
        out[tuple(slice(size) for size in values.shape)] = values
    return out
