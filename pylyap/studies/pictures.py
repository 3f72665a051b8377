"""The pictures of a study: those that fit its analysis, of the runs that are done."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pylyap import plotting
from pylyap._errors import ArgumentError
from pylyap._status import Status
from pylyap.regimes import REGIMES
from pylyap.studies.results import folder_of, open_study
from pylyap.studies.store import is_done
from pylyap.studies.summary import grid_of, label, quantities, settings_of

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

_CURVES, _FIGURES = 8, 6  # at most: of longer grids some, evenly apart
_AT_ONCE = 2e7  # values in a picture, of the first runs

_TIMES = ("step", "time", "epoch")


class Picture(NamedTuple):
    """A figure, the name of its file, and what it shows."""

    name: str
    caption: str
    figure: Figure


class _Part(NamedTuple):
    """What one picture is of: arrays (curve, run, ...), the dimension of the curves and a name for
    each, a title, and the settings of the analysis there."""

    data: xarray.Dataset
    along: str
    labels: list[str] | None
    title: str
    analysis: dict[str, Any]


def plot_study(path: str | os.PathLike[str]) -> dict[str, Figure]:
    """The pictures of a study in a folder, as far as it has come, by their names.

    Which ones depends on the analysis and the variables that are kept: its own picture of spectra,
    finite-time exponents, covariant vectors, distances, histories or regimes; the distributions of
    its main quantities over the runs; and what these are along the longest dimension of the grid.
    Of a grid with more than 8 curves or 6 pictures some are shown, evenly apart. Titles say how
    many runs are done.

    Parameters
    ----------
    path
        The folder that `run_study` or `pylyap run` writes to, or has written.

    Raises
    ------
    ValueError
        If there is no study in the folder, it is damaged, no run is done, or none of its variables
        has a picture.
    ImportError
        If Matplotlib, Zarr or xarray is not installed.
    """
    data = open_study(path)
    if not data.attrs["runs_done"]:
        total, failed = data.attrs["runs_total"], data.attrs["runs_failed"]
        raise ArgumentError(
            "path",
            f"must be the folder of a study with runs that are done, in "
            f"{str(folder_of(path))!r} are 0 of {total} and {failed} failed",
        )
    figures = {picture.name: picture.figure for picture in pictures(data, quantities(data))}
    if not figures:
        kept = ", ".join(map(str, data.data_vars))
        raise ArgumentError("path", f"must be of a study that keeps variables to draw, got {kept}")
    return figures


def pictures(data: xarray.Dataset, numbers: xarray.Dataset) -> Iterator[Picture]:
    """The pictures of a study's results and of its `quantities`."""
    kind = settings_of(data)["analysis"]["name"]
    if "mixing" in data and "contamination" not in data:  # of earlier versions
        data = data.rename(mixing="contamination")
    needs, draw, caption = _OF_ANALYSIS[kind]
    if set(needs) <= set(data.data_vars) and all(data[name].size for name in needs):
        parts = list(_parts(data, needs, one_curve=kind == "scan"))
        for i, part in enumerate(parts):
            name = f"{kind}-{i + 1}" if len(parts) > 1 else kind
            yield Picture(name, caption, draw(part))
    names = [name for name in numbers.data_vars if name != "status"]
    if names and numbers.sizes["run"] > 1:
        yield _distributions(numbers)
    if names and any(n > 1 for d, n in numbers.sizes.items() if d != "run"):
        yield _along(numbers)


# --- of all analyses ---


def _distributions(numbers: xarray.Dataset) -> Picture:
    points = [d for d in numbers.dims if d != "run"]
    curves, labels = _some_curves(numbers, points)
    figure = plotting.plot_distributions(
        _by_axis(curves),
        labels=labels,
        title=_title(numbers["status"].values, points, *_share(labels, numbers, points)),
    )
    return Picture("distributions", "Distributions of the main quantities over the runs.", figure)


def _along(numbers: xarray.Dataset) -> Picture:
    points = [d for d in numbers.dims if d != "run"]
    along = max(points, key=lambda d: (numbers[d].dtype.kind in "iuf", numbers.sizes[d]))
    others = [d for d in points if d != along]
    curves, labels = _some_curves(numbers, others)
    figure = plotting.plot_along(
        numbers[along].values,
        _by_axis(curves),
        name=_plain(along),
        labels=labels,
        title=_title(numbers["status"].values, others, *_share(labels, numbers, others)),
    )
    caption = f"The main quantities against {along}: medians over the runs and quartiles."
    return Picture("along", caption, figure)


def _some_curves(
    numbers: xarray.Dataset, dims: list[Any]
) -> tuple[xarray.Dataset, list[str] | None]:
    """Numbers with the points of some dimensions as curves in front, and the curves' names."""
    import xarray

    if not dims:
        return numbers, None
    shape = tuple(numbers.sizes[d] for d in dims)
    chosen = [np.unravel_index(i, shape) for i in _some(int(np.prod(shape)), _CURVES)]
    curves = [numbers.isel(dict(zip(dims, index, strict=True))) for index in chosen]
    labels = [", ".join(_plain(label(curve[d].values)) for d in dims) for curve in curves]
    bare = [curve.drop_vars(dims) for curve in curves]
    return xarray.concat(bare, "curve"), labels


def _share(labels: list[str] | None, numbers: xarray.Dataset, dims: list[Any]) -> list[str]:
    """Words that say how many curves are shown, if not all."""
    n = math.prod(numbers.sizes[d] for d in dims)
    return [] if labels is None or len(labels) == n else [f"{len(labels)} of {n} curves"]


def _by_axis(numbers: xarray.Dataset) -> dict[str, NDArray[Any]]:
    """Arrays by what their axes say."""
    found = {}
    for name, array in numbers.drop_vars("status").data_vars.items():
        units = array.attrs["units"]
        found[f"{name}, {units}" if units else str(name)] = array.values
    return found


# --- one per analysis ---


def _parts(data: xarray.Dataset, needs: tuple[str, ...], one_curve: bool) -> Iterator[_Part]:
    """A part for each picture: curves are the values of the longest dimension of the grid that is
    no setting of the analysis, pictures those of the others."""
    grid = grid_of(data)
    able = [d for d, path in grid.items() if not path.startswith("analysis.") and not one_curve]
    along = max(able, key=data.sizes.__getitem__, default=None)
    others = [d for d in grid if d != along]
    shape = tuple(data.sizes[d] for d in others)
    for i in _some(int(np.prod(shape)), _FIGURES):
        at = dict(zip(others, (int(j) for j in np.unravel_index(i, shape)), strict=True))
        here = data[["status", *needs, *(set(_OPTIONAL) & set(data.data_vars))]].isel(at)
        if along is not None:
            here = here.isel({along: _some(data.sizes[along], _CURVES)})
        if not is_done(here["status"]).any():
            continue
        analysis = dict(settings_of(data)["analysis"])
        for d in others:
            table, _, key = grid[d].partition(".")
            if table == "analysis":
                analysis[key] = here[d].item()
        here = _trimmed(_some_runs(here).load())
        labels = None
        if along is None:
            here = here.expand_dims("curve")
        else:
            labels = [_plain(label(value)) for value in here[along].values]
            here = here.rename({along: "curve"})
        where = [f"{_plain(d)} {_plain(label(here[d].values))}" for d in others]
        first = (
            "" if here.sizes["run"] == data.sizes["run"] else f"run 0 to {here.sizes['run'] - 1}"
        )
        title = _title(here["status"].values, [along] if along else [], *where, first)
        yield _Part(here.transpose("curve", "run", ...), along or "", labels, title, analysis)


def _some_runs(data: xarray.Dataset) -> xarray.Dataset:
    """The first runs, as many as a picture has room for."""
    values = sum(array.size for array in data.data_vars.values()) / data.sizes["run"]
    return data.isel(run=slice(0, max(1, int(_AT_ONCE / values))))


def _trimmed(data: xarray.Dataset) -> xarray.Dataset:
    """Without times that no run has come to, in the padding of a shorter analysis."""
    for dim in _TIMES:
        floats = [a for a in data.data_vars.values() if dim in a.dims and a.dtype.kind == "f"]
        if dim == "time" and {"step", "time"} <= set(data.dims):  # one more
            data = data.isel(time=slice(0, data.sizes["step"] + 1))
        elif floats:
            seen = np.zeros(data.sizes[dim], bool)
            for array in floats:
                seen |= array.notnull().any([d for d in array.dims if d != dim]).values
            data = data.isel({dim: slice(0, int(seen.nonzero()[0].max(initial=0)) + 1)})
    return data


def _spectrum(part: _Part) -> Figure:
    found = _arrays(part.data, "exponents", "stderr", "growth", "loss")
    times = part.data["time"].values
    settings = {"record_every": int(times[1] - times[0])}
    spectrum = SimpleNamespace(**found, steps=part.data["step"].values, settings=settings)
    return plotting.plot_spectrum(_as(spectrum), labels=part.labels, title=part.title)


def _ftle(part: _Part) -> Figure:
    return plotting.plot_ftle(
        part.data["ftle"].values, part.data["step"].values, labels=part.labels, title=part.title
    )


def _clv(part: _Part) -> Figure:
    found = _arrays(part.data, "growth", "contamination", "residual", "status")
    vectors = SimpleNamespace(
        **found,
        k=part.data.sizes["vector"],
        angles=lambda: part.data["angles"].values,
        early_coefficients=None,
        steps=part.data["time"].values,
        settings={"every": part.analysis["every"]},
    )
    return plotting.plot_covariant(_as(vectors), labels=part.labels, title=part.title)


def _ensemble(part: _Part) -> Figure:
    distances = part.data["distances"]
    if "perturbation" in distances.dims:
        distances = distances.mean("perturbation")
    several = "eps" in distances.dims
    sizes = part.data["eps"].values.tolist() if several else part.analysis["eps"]
    ensemble = SimpleNamespace(
        mean=distances.values,
        steps=part.data["time"].values,
        settings={"eps": sizes, "norm": part.analysis["norm"]},
    )
    titles = part.labels and [f"{_plain(part.along)} {name}" for name in part.labels]
    return plotting.plot_ensemble(_as(ensemble), titles=titles, title=part.title)


def _train(part: _Part) -> Figure:
    found: dict[str, Any] = dict.fromkeys(_OPTIONAL)
    there = [name for name in _OPTIONAL if name in part.data]
    found |= _arrays(part.data, *there, "train_loss", "deviation", "status")
    scopes = tuple(part.data["scope"].values.tolist())
    history = SimpleNamespace(**found, epochs=part.data["epoch"].values, scopes=scopes)
    return plotting.plot_history(_as(history), labels=part.labels, title=part.title)


def _scan(part: _Part) -> Figure:
    done = is_done(part.data["status"].values[0])
    found = {
        name: np.moveaxis(values[0, done], 0, 1)
        for name, values in _arrays(
            part.data, "loss", "late_loss", "exponent", "growth", "sharpness", "regime"
        ).items()
    }
    regime = np.array(REGIMES)[found.pop("regime")]
    share = {name: (regime == name).mean(axis=1) for name in REGIMES}
    scan = SimpleNamespace(**found, regime=regime, share=share, lr=part.data["lr"].values)
    return plotting.plot_scan(_as(scan), title=part.title)


_OPTIONAL = ("test_loss", "train_accuracy", "test_accuracy")

# Variables that are needed, how they are drawn, and what is seen.
_OF_ANALYSIS: dict[str, tuple[tuple[str, ...], Callable[[_Part], Figure], str]] = {
    "spectrum": (
        ("exponents", "stderr", "growth", "loss"),
        _spectrum,
        "Loss and leading finite-time exponents along training, and the Lyapunov spectrum: medians "
        "over the runs and quartiles.",
    ),
    "ftle": (
        ("ftle",),
        _ftle,
        "Leading finite-time exponents along training: medians over the runs and quartiles.",
    ),
    "clv": (
        ("growth", "contamination", "residual", "angles"),
        _clv,
        "Growth of the leading covariant vector, the smallest angle between two vectors along "
        "training and its distribution, and how far to trust the vectors.",
    ),
    "ensemble": (
        ("distances",),
        _ensemble,
        "Mean distance of perturbed copies to their run, for each size of the perturbation: "
        "medians over the runs and quartiles.",
    ),
    "train": (
        ("train_loss", "deviation"),
        _train,
        "Losses, accuracies and the deviation of the weights from their start by epoch: medians "
        "over the runs and quartiles.",
    ),
    "scan": (
        ("loss", "late_loss", "exponent", "growth", "sharpness", "regime"),
        _scan,
        "Late losses, leading exponents, sharpness and the share of each regime against the "
        "learning rate.",
    ),
}


def _arrays(data: xarray.Dataset, *names: str) -> dict[str, NDArray[Any]]:
    return {name: data[name].values for name in names}


def _as(result: SimpleNamespace) -> Any:
    """What a picture needs of a result of the library, whose class wants more than is stored."""
    return result


# --- words ---


def _title(statuses: NDArray[np.int8], curves: list[Any], *more: str) -> str:
    """What the curves are, and what became of the runs that are shown."""
    done, total = int(is_done(statuses).sum()), statuses.size
    parts = [", ".join(map(_plain, curves)), *more]
    parts.append(
        f"{total} run{'s'[: total != 1]}" if done == total else f"{done} of {total} runs done"
    )
    for name, status in (("diverged", Status.DIVERGED), ("failed", Status.RAISED)):
        if count := int((statuses == status).sum()):
            parts.append(f"{count} {name}")
    return "; ".join(part for part in parts if part)


def _plain(text: Any) -> str:
    """Text in which Matplotlib sees no formula."""
    return str(text).replace("$", r"\$")


def _some(n: int, most: int) -> NDArray[np.int64]:
    """Indices of at most so many of n, evenly apart, first and last included."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64))
