"""Shared parts of the conversion of results to xarray Datasets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray


def dataset_class() -> Callable[..., xarray.Dataset]:
    """Import xarray.Dataset; the ImportError names the command that installs xarray."""
    try:
        import xarray
    except ImportError:
        raise ImportError("to_dataset needs xarray: pip install 'pylyap[store]'") from None
    dataset: Any = xarray.Dataset
    return dataset  # type: ignore[no-any-return]
