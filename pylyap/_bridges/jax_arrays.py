"""Checks of pytrees of arrays for JAX."""

from __future__ import annotations

from typing import Any

import numpy as np

from pylyap import _checks
from pylyap._errors import ArgumentError, ArgumentTypeError

_ENABLE = 'jax.config.update("jax_enable_x64", True)'


def leaves_of(name: str, tree: Any) -> tuple[list[tuple[str, Any]], Any]:
    """Names and values of the leaves of a pytree, and its structure."""
    import jax

    try:
        paths, structure = jax.tree_util.tree_flatten_with_path(tree)
    except Exception as error:  # a node that contains itself, or a class whose methods fail
        raise ArgumentTypeError(
            name, f"must be a pytree of arrays: {type(error).__name__}"
        ) from None
    return [(f"{name}{jax.tree_util.keystr(path)}", leaf) for path, leaf in paths], structure


def array(name: str, label: str, leaf: Any) -> Any:
    """A leaf as a JAX or NumPy array of numbers."""
    import jax

    if isinstance(leaf, jax.Array):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise ArgumentTypeError(name, f"must be arrays of numbers, got a key at {label}")
        return leaf
    if not isinstance(leaf, (np.ndarray, np.generic, float, int)) or isinstance(leaf, bool):
        raise ArgumentTypeError(
            name, f"must be a pytree of arrays, got {_checks.describe(leaf)} at {label}"
        )
    try:
        found = _checks.array(name, leaf)
    except ArgumentError:
        raise
    except Exception:  # Python integers beyond 64 bits
        found = np.asarray(None)
    if found.dtype.kind not in "fiubc" and found.dtype.name != "bfloat16":
        raise ArgumentTypeError(name, f"must be arrays of numbers, got {found.dtype} at {label}")
    return found


def tree_of_parameters(params: Any) -> tuple[Any, Any]:
    """Parameters as JAX arrays of one floating dtype on one device, and the device."""
    import jax

    leaves, structure = leaves_of("params", params)
    arrays = [(label, array("params", label, leaf)) for label, leaf in leaves]
    x64 = bool(jax.config.read("jax_enable_x64"))
    dtypes: dict[str, str] = {}
    for label, leaf in arrays:
        if leaf.dtype.name not in ("float32", "float64"):
            raise ArgumentError(
                "params", f"must be float64 or float32, got {leaf.dtype} at {label}"
            )
        if leaf.dtype.name == "float64" and not x64:
            raise ArgumentError(
                "params",
                f"must be float32 unless double precision is enabled, got float64 at {label}: "
                f"call {_ENABLE} first",
            )
        dtypes.setdefault(leaf.dtype.name, label)
    if len(dtypes) > 1:
        (one, first), (other, second) = dtypes.items()
        raise ArgumentError(
            "params", f"must have one dtype, got {one} at {first} and {other} at {second}"
        )
    if sum(leaf.size for _, leaf in arrays) == 0:
        raise ArgumentError("params", "must contain at least one number, got an empty pytree")
    devices = {d for _, leaf in arrays if isinstance(leaf, jax.Array) for d in leaf.devices()}
    if len(devices) > 1:
        raise ArgumentError("params", f"must lie on one device, got {len(devices)}")
    for label, leaf in arrays:
        finite = np.isfinite(np.asarray(leaf))
        if not finite.all():
            raise ArgumentError(
                "params", f"must be finite, got {np.asarray(leaf)[~finite][0]} at {label}"
            )
    device = devices.pop() if devices else jax.devices()[0]
    placed = [jax.device_put(leaf, device) for _, leaf in arrays]
    return jax.tree_util.tree_unflatten(structure, placed), device


def samples(data: Any, device: Any) -> tuple[tuple[Any, ...], int]:
    """Data as JAX arrays, and the number of samples; no data are an empty tuple."""
    import jax

    if data is None:
        return (), 0
    if not isinstance(data, (tuple, list)):
        raise ArgumentTypeError(
            "data", f"must be a tuple of arrays such as (X, y), got {_checks.describe(data)}"
        )
    leaves, structure = leaves_of("data", tuple(data))
    if not leaves:
        raise ArgumentError("data", "must contain at least one array, got none")
    x64 = bool(jax.config.read("jax_enable_x64"))
    arrays, length, reference = [], -1, ""
    for label, leaf in leaves:
        found = array("data", label, leaf)
        if found.ndim == 0 or len(found) == 0:
            raise ArgumentError(
                "data",
                f"must have samples along its first axis, got shape {found.shape} at {label}",
            )
        if length >= 0 and len(found) != length:
            raise ArgumentError(
                "data",
                f"must have arrays of one length, got {length} at {reference} and {len(found)} "
                f"at {label}",
            )
        length, reference = len(found), reference or label
        if found.dtype == np.float64 and not x64:
            raise ArgumentError(
                "data",
                f"must be float32 unless double precision is enabled, got float64 at {label}: "
                f"call {_ENABLE} first, or convert it",
            )
        if found.dtype.name in ("int64", "uint64") and not x64:
            narrow = np.asarray(found).astype(np.int32)
            if not np.array_equal(narrow, np.asarray(found)):
                raise ArgumentError("data", f"must fit into int32, got {found.dtype} at {label}")
            found = narrow
        if found.dtype.kind == "f" and not np.isfinite(np.asarray(found)).all():
            raise ArgumentError("data", f"must be finite, got values that are not at {label}")
        arrays.append(jax.device_put(found, device))
    return jax.tree_util.tree_unflatten(structure, arrays), length
