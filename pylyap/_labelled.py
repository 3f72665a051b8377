"""Results as xarray Datasets: what all of them share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray


def batch_dimensions(depth: int) -> list[str]:
    """Names of the leading axes of a batch with so many of them."""
    return ["run"] if depth == 1 else [f"batch_{i}" for i in range(depth)]


def dataset_class() -> Callable[..., xarray.Dataset]:
    """xarray.Dataset, or an ImportError with the command that helps."""
    try:
        import xarray
    except ImportError:
        raise ImportError("to_dataset needs xarray: pip install 'pylyap[store]'") from None
    dataset: Any = xarray.Dataset
    return dataset  # type: ignore[no-any-return]
