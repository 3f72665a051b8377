"""Shared parts of the conversion of results to xarray Datasets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pylyap._extras import require

if TYPE_CHECKING:
    import xarray


def dataset_class() -> Callable[..., xarray.Dataset]:
    """Import xarray.Dataset; the ImportError names the command that installs xarray."""
    require("xarray", extra="store", for_="to_dataset")
    import xarray

    dataset: Any = xarray.Dataset
    return dataset  # type: ignore[no-any-return]
