"""Names and coordinates of the batch axes of results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pylyap._checks import Floats
from pylyap._errors import ArgumentError
from pylyap._labelled import dataset_class
from pylyap._results import Result

if TYPE_CHECKING:
    import xarray

RUN = "run"
SETTINGS = ("lr", "momentum", "weight_decay")  # of optimisers, that may be arrays
LAYER_SETTINGS = ("layer_scale", "bias_scale")  # of optimisers, with a last axis of layers


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class BatchResult(Result):
    """A result of a batch of runs, whose leading axes have names.

    Attributes
    ----------
    dims : tuple of str
        Names of the batch axes; by default ``"run"``, or ``"batch_0"``, ``"batch_1"``, … of several
        axes that nothing tells apart.
    coords : dict of ndarray
        Values of settings of the optimiser along the batch: 1-d for a setting that names an axis,
        otherwise of a shape that broadcasts against the batch.
    """

    _MORE: ClassVar[dict[str, tuple[str, ...]]] = {}  # axes of an array after those of the batch
    _INDEX: ClassVar[dict[str, str]] = {}  # arrays that are the coordinate of an axis
    _UNITS: ClassVar[dict[str, str]] = {}

    dims: tuple[str, ...] = ()
    coords: dict[str, Floats] = field(default_factory=dict)

    @property
    def _batch(self) -> tuple[int, ...]:
        """Batch shape."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        depth = len(self._batch)
        if not self.dims and depth:
            object.__setattr__(self, "dims", _unnamed(depth))
        elif len(self.dims) != depth:
            raise ArgumentError("dims", f"must name {depth} batch axes, got {self.dims}")

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickle, also one of a version without some of the fields."""
        self.__dict__.update(state)
        for item in fields(self):
            if item.name not in state and item.default_factory is not MISSING:
                object.__setattr__(self, item.name, item.default_factory())
        self.__post_init__()

    def to_dataset(self) -> xarray.Dataset:
        """Convert to an xarray Dataset with labelled dimensions.

        Returns
        -------
        xarray.Dataset
            One variable per array; units and settings in attributes.

        Raises
        ------
        ImportError
            If xarray is not installed.
        """
        dataset = dataset_class()
        variables: dict[str, Any] = {}
        labels = self._labels
        for item in fields(self):
            name, values = item.name, getattr(self, item.name)
            if name in self._INDEX and values is not None:
                values = np.asarray(values)
            if not isinstance(values, (np.ndarray, np.generic, float)):
                continue
            unit = {"units": self._UNITS[name]} if name in self._UNITS else {}
            if name in self._INDEX:
                labels[self._INDEX[name]] = (self._INDEX[name], values, unit)
            else:
                axes = (*self.dims, *self._MORE.get(name, ())) if np.ndim(values) else ()
                variables[name] = (axes, values, unit)
        return dataset(variables, labels, attrs=dict(getattr(self, "settings", {})))

    @property
    def _axes(self) -> dict[str, Any]:
        """Arguments `dims` and `coords` of another result of the same batch."""
        return {"dims": self.dims, "coords": self.coords}

    @property
    def _batch_text(self) -> str:
        """Names and lengths of the batch axes, such as "lr 3 × run 64"; empty for plain runs."""
        if self.dims == (RUN,):
            return ""
        return " × ".join(f"{d} {n}" for d, n in zip(self.dims, self._batch, strict=True))

    def _parts(self) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """Names and indices of the runs that have the same settings, if axes of settings exist."""
        axes = [i for i, d in enumerate(self.dims) if d in self.coords]
        for index in np.ndindex(*(self._batch[i] for i in axes)) if axes else ():
            at: list[Any] = [slice(None)] * len(self.dims)
            names = []
            for i, j in zip(axes, index, strict=True):
                at[i] = j
                names.append(f"{self.dims[i]} {self.coords[self.dims[i]][j]:.4g}")
            yield ", ".join(names), tuple(at)

    @property
    def _labels(self) -> dict[str, Any]:
        """Coordinates of the batch axes for xarray."""
        labels: dict[str, Any] = {}
        for name, values in self.coords.items():
            if name in self.dims:
                labels[name] = (name, values)
                continue
            along = [d for d, n in zip(self.dims, values.shape, strict=True) if n > 1]
            labels[name] = (along, values.reshape([n for n in values.shape if n > 1]))
        return labels


def batch_axes(system: Any, batch: tuple[int, ...], more: tuple[str, ...] = ()) -> dict[str, Any]:
    """Arguments `dims` and `coords` of a result of `system` with this batch shape.

    An axis along which a setting of the optimiser varies has the name of that setting; of several,
    the first of lr, momentum and weight decay, and the others are coordinates. Other axes are runs.
    An axis along which only settings of several axes vary is called ``"setting"``. The last axes of
    the batch have the names `more`, and do not belong to the settings.
    """
    if not batch:
        return {"dims": (), "coords": {}}
    optimizer = getattr(system, "optimizer", None)
    given = {name: getattr(optimizer, name, None) for name in SETTINGS}
    for name in LAYER_SETTINGS:
        given |= _by_layer(name, getattr(optimizer, name, None))
    dims, coords = _named(batch[: len(batch) - len(more)], given)
    coords = {
        name: values if name in dims else values.reshape((*values.shape, *[1] * len(more)))
        for name, values in coords.items()
    }
    return {"dims": (*dims, *more), "coords": coords}


def _by_layer(name: str, value: Any) -> dict[str, Any]:
    """The factors of each layer along the batch, without the axes along which they are equal."""
    found: dict[str, Any] = {}
    if not isinstance(value, np.ndarray) or value.ndim < 2:
        return found
    for layer in range(value.shape[-1]):
        factor = value[..., layer]
        for axis in range(factor.ndim):
            first = factor.take([0], axis)
            if (factor == first).all():
                factor = first
        if factor.size > 1:
            found[f"{name}_{layer}"] = factor
    return found


def _named(
    batch: tuple[int, ...], settings: Mapping[str, Any]
) -> tuple[tuple[str, ...], dict[str, Floats]]:
    names: dict[int, str] = {}
    coords: dict[str, Floats] = {}
    joint: set[int] = set()  # axes of settings that vary along several
    for name, value in settings.items():
        if not isinstance(value, np.ndarray) or value.ndim == 0 or value.ndim > len(batch):
            continue
        first = len(batch) - value.ndim
        values = value.reshape((1,) * first + value.shape)
        along = [i for i, n in enumerate(values.shape) if n > 1]
        if not along:  # a scan of one value
            along = [i for i in range(first, len(batch)) if batch[i] == 1 and i not in names][:1]
        if not along:
            continue
        coords[name] = values.copy()
        constant = bool((values == values.flat[0]).all()) and values.size > 1
        if len(along) > 1 and not constant:
            joint |= {i for i in along if (values != values.take([0], i)).any()}
        elif len(along) == 1 and not constant and along[0] not in names:
            names[along[0]] = name
            coords[name] = values.reshape(-1).copy()
    left = [i for i in range(len(batch)) if i not in names]
    unknown = [i for i in left if i in joint]
    runs = [i for i in left if i not in joint]
    for i in unknown:
        names[i] = "setting" if len(unknown) == 1 else f"setting_{i}"
    names |= dict(zip(runs, _unnamed(len(runs)), strict=True))
    return tuple(names[i] for i in range(len(batch))), coords


def _unnamed(depth: int) -> tuple[str, ...]:
    """Names of batch axes that nothing tells apart."""
    return (RUN,) if depth == 1 else tuple(f"batch_{i}" for i in range(depth))
