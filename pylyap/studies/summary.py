"""Summary of a study: a few quantities of each run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pylyap._statistics import quartiles
from pylyap._status import Status
from pylyap.plotting.style import Floats
from pylyap.studies.store import is_done

if TYPE_CHECKING:
    import xarray

_LEADING = 3  # exponents
_INNER = ("eps", "lr")  # dimensions of analyses: perturbation sizes and learning rates

_RATE = "nats per step"
_MAX_VALUES = 2e7  # in memory at a time


class Row(NamedTuple):
    """A row of a table: point, numbers of complete, diverged and failed runs, quartiles (0-d)."""

    point: list[str]
    runs: int
    diverged: int
    failed: int
    quartiles: list[tuple[Floats, Floats, Floats]]


def settings_of(data: xarray.Dataset) -> dict[str, Any]:
    """Settings of a study."""
    settings: dict[str, Any] = json.loads(data.attrs["settings"])
    return settings


def grid_of(data: xarray.Dataset) -> dict[str, str]:
    """Dotted paths of the settings of the grid, by names of dimensions."""
    return dict(zip(json.loads(data.attrs["grid"]), settings_of(data)["grid"], strict=True))


def quantities(data: xarray.Dataset) -> xarray.Dataset:
    """Main quantities of each run of a study, as far as its variables contain them.

    Dimensions are those of the grid, ``eps`` of an ensemble or ``lr`` of a scan, and ``run``. nan
    where a run is not complete, or diverged without such a value. Units are in the attributes.
    """
    import xarray

    parts = [_quantities(data.isel(run=runs)) for runs in _blocks(data)]
    return xarray.concat(parts, "run", coords="minimal", compat="override", join="exact")


def _blocks(data: xarray.Dataset) -> Iterator[slice]:
    """Blocks of runs, aligned with chunks, that are held in memory at a time."""
    values = sum(array.size for array in data.data_vars.values()) / data.sizes["run"]
    block = data.attrs["block"]
    step = max(1, int(_MAX_VALUES / values / block)) * block
    for first in range(0, data.sizes["run"], step):
        yield slice(first, first + step)


def _quantities(data: xarray.Dataset) -> xarray.Dataset:
    points = [d for d in data["status"].dims if d != "run"]
    result = data[["status"]].load()
    done = is_done(result["status"])
    for name, found in _QUANTITIES[settings_of(data)["analysis"]["name"]](data):
        if found is not None:
            array, units = found
            array = array.drop_vars(set(array.coords) - {*points, "run", *_INNER})
            result[name] = array.where(done).assign_attrs(units=units)
    inner = [d for d in result.dims if d not in (*points, "run")]
    return result.transpose(*points, *inner, "run")


def rows(numbers: xarray.Dataset) -> Iterator[Row]:
    """Rows of a table, one for each point of `quantities`."""
    points = [d for d in numbers.dims if d != "run"]
    names = [name for name in numbers.data_vars if name != "status"]
    for index in np.ndindex(*(numbers.sizes[d] for d in points)):
        at = numbers.isel(dict(zip(points, index, strict=True)))
        status = at["status"].values
        yield Row(
            point=[label(at[d].values) for d in points],
            runs=int(is_done(status).sum()),
            diverged=int((status == Status.DIVERGED).sum()),
            failed=int((status == Status.RAISED).sum()),
            quartiles=[quartiles(at[name].values) for name in names],
        )


def label(value: Any) -> str:
    """Label of a value of the grid, with four digits."""
    plain = value.item() if isinstance(value, (np.generic, np.ndarray)) else value
    return f"{plain:.4g}" if isinstance(plain, float) else str(plain)


# --- quantities of each analysis: names, arrays and units -----------------------------------------

_Quantities = Iterator[tuple[str, "tuple[xarray.DataArray, str] | None"]]


def _spectrum(data: xarray.Dataset) -> _Quantities:
    yield "final loss", _variable(data, "final_loss")
    yield from _leading(data, "exponents", "exponent", "exponent")


def _ftle(data: xarray.Dataset) -> _Quantities:
    yield "final loss", _variable(data, "final_loss")
    if "ftle" in data:
        leading = data["ftle"].isel(exponent=0)
        yield "first window", (leading.isel(step=0), _RATE)
        yield "mean of windows", (leading.mean("step"), _RATE)


def _clv(data: xarray.Dataset) -> _Quantities:
    yield "final loss", _variable(data, "final_loss")
    yield from _leading(data, "exponents", "vector", "exponent")
    if "angles" in data and data.sizes["pair"]:
        smallest = data["angles"].min(["time", "pair"])
        yield "smallest angle", (np.degrees(smallest), "degrees")


def _training_jacobian(data: xarray.Dataset) -> _Quantities:
    yield "final loss", _variable(data, "final_loss")
    if "log_singular_values" in data:
        logs = data["log_singular_values"]
        yield "ln of the largest singular value", (logs.isel(mode=0), "nats")
    yield "singular values above 1", _variable(data, "n_above")
    yield "singular values below 1", _variable(data, "n_below")


def _ensemble(data: xarray.Dataset) -> _Quantities:
    if "growth_slope" in data:
        every = settings_of(data)["analysis"].get("record_every", 1)
        yield "growth", (data["growth_slope"] / every, _RATE)
    yield "R²", _variable(data, "growth_r2")
    if "distances" in data:
        distances = _mean_distances(data)
        yield "final distance", (_last(distances, "time", data["status"]), "")


def _mean_distances(data: xarray.Dataset) -> xarray.DataArray:
    """Distances averaged over the copies."""
    distances = data["distances"]
    return distances.mean("perturbation") if "perturbation" in distances.dims else distances


def _sharpness(data: xarray.Dataset) -> _Quantities:
    yield "final loss", _variable(data, "final_loss")
    for name, words in (("value", "sharpness"), ("ratio", "sharpness / threshold")):
        if name in data:
            yield f"last {words}", (_last(data[name], "time", data["status"]), "")


def _stability(data: xarray.Dataset) -> _Quantities:
    if "converged" in data:
        converged = data["converged"]
        known = converged.where(converged >= 0)  # -1 pads shorter rows
        yield "fraction that converges", (known.mean(converged.dims[-1]), "")


def _train(data: xarray.Dataset) -> _Quantities:
    for name in ("train_loss", "test_loss", "train_accuracy", "test_accuracy"):
        if name in data:
            last = _last(data[name], "epoch", data["status"])
            yield name.replace("train", "training").replace("_", " "), (last, "")
    if "deviation" in data:
        whole = data["deviation"].isel(scope=0)
        yield "rms deviation", (_last(whole, "epoch", data["status"]), "")


def _scan(data: xarray.Dataset) -> _Quantities:
    yield "late loss", _variable(data, "loss")
    yield "exponent", _variable(data, "exponent", _RATE)
    yield "growth", _variable(data, "growth", _RATE)
    yield "sharpness / threshold", _variable(data, "sharpness")


_QUANTITIES = {
    "spectrum": _spectrum,
    "ftle": _ftle,
    "clv": _clv,
    "training_jacobian": _training_jacobian,
    "ensemble": _ensemble,
    "sharpness": _sharpness,
    "stability": _stability,
    "train": _train,
    "scan": _scan,
}


def _variable(
    data: xarray.Dataset, name: str, units: str = ""
) -> tuple[xarray.DataArray, str] | None:
    return (data[name], units) if name in data else None


def _leading(data: xarray.Dataset, name: str, dim: str, called: str) -> _Quantities:
    if name in data:
        for i in range(min(_LEADING, data.sizes[dim])):
            yield f"{called} {i + 1}", (data[name].isel({dim: i}), _RATE)


def _last(array: xarray.DataArray, dim: str, status: xarray.DataArray) -> xarray.DataArray:
    """The last finite record of each run, nan for one that diverged."""
    fine = np.isfinite(array)
    last = array.sizes[dim] - 1 - fine.isel({dim: slice(None, None, -1)}).argmax(dim)
    return array.isel({dim: last}).where(status != Status.DIVERGED)
