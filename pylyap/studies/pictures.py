"""Figures of a study, which depend on its analysis and show the complete runs."""

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
from pylyap.plotting.distributions import MOST_OVERLAID
from pylyap.regimes import REGIMES
from pylyap.studies.maps import maps, row_axis
from pylyap.studies.results import checked_folder, open_study
from pylyap.studies.store import is_done
from pylyap.studies.summary import grid_of, label, quantities, settings_of

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

_MAX_CURVES, _MAX_FIGURES = 8, 6  # larger grids are subsampled evenly
_MAX_VALUES = 2e7  # in a figure, which shows the first runs only if there are more

_TIMES = ("step", "time", "epoch")


class Picture(NamedTuple):
    """A figure with its file name and caption."""

    name: str
    caption: str
    figure: Figure


class _Panel(NamedTuple):
    """Data of one figure.

    `data` are arrays (curve, run, ...), `analysis` are the settings of the analysis, `seen`
    describes the curves in words, `system` is the name of a given system, and `kind` that of the
    sharpness.
    """

    data: xarray.Dataset
    labels: list[str] | None
    title: str
    analysis: dict[str, Any]
    seen: str
    system: str
    kind: str


def plot_study(path: str | os.PathLike[str]) -> dict[str, Figure]:
    """Plot the results of a study, complete or not.

    The figures depend on the analysis and on the variables that are kept: spectra, finite-time
    exponents, covariant vectors, distances, training histories or regimes; distributions of the
    main quantities over the runs; and the main quantities against the longest dimension of the
    grid. Grids of more than 8 curves or 6 figures are subsampled evenly. Titles give the number of
    complete runs.

    Parameters
    ----------
    path : str or path-like
        Folder of the study, as given to `run_study` or ``pylyap run``.

    Returns
    -------
    dict of matplotlib.figure.Figure
        Figures by name.

    Raises
    ------
    ValueError
        If the folder contains no study, it is damaged, no run is complete, or there is no figure
        for any of its variables.
    ImportError
        If Matplotlib, Zarr or xarray is not installed.

    Examples
    --------
    >>> import pylyap as pl
    >>> study = pl.Study(
    ...     data={"name": "iris"},
    ...     network={"hidden": 3, "loss": "cross_entropy"},
    ...     analysis={"name": "spectrum", "n_steps": 20, "k": 2},
    ...     runs=4,
    ... )
    >>> _ = pl.run_study(study, "results")
    >>> list(pl.plot_study("results"))
    ['spectrum', 'distributions']
    """
    data = open_study(path)
    if not data.attrs["runs_done"]:
        total, failed = data.attrs["runs_total"], data.attrs["runs_failed"]
        raise ArgumentError(
            "path",
            f"must be the folder of a study with complete runs, got "
            f"{str(checked_folder(path))!r} with 0 of {total} complete and {failed} failed",
        )
    figures = {picture.name: picture.figure for picture in pictures(data, quantities(data))}
    if not figures:
        kept = ", ".join(map(str, data.data_vars))
        raise ArgumentError(
            "path", f"must be the folder of a study with variables that have a figure, got {kept}"
        )
    return figures


def pictures(data: xarray.Dataset, numbers: xarray.Dataset) -> Iterator[Picture]:
    """Figures of the results of a study and of its `quantities`."""
    kind = settings_of(data)["analysis"]["name"]
    if "mixing" in data and "contamination" not in data:  # name in earlier versions
        data = data.rename(mixing="contamination")
    yield from _stability_maps(data) if kind == "stability" else _of_runs(kind, data)
    names = [name for name in numbers.data_vars if name != "status"]
    if names and numbers.sizes["run"] > 1:
        yield _distributions(numbers)
    if names and any(n > 1 for d, n in numbers.sizes.items() if d != "run"):
        yield _along(numbers)


def _of_runs(kind: str, data: xarray.Dataset) -> Iterator[Picture]:
    """Figures of the runs of an analysis."""
    needs, draw, caption = _PICTURES[kind]
    if set(needs) <= set(data.data_vars) and all(data[name].size for name in needs):
        parts = list(_panels(data, needs, one_curve=kind == "scan"))
        for i, panel in enumerate(parts):
            name = f"{kind}-{i + 1}" if len(parts) > 1 else kind
            yield Picture(name, f"{caption}{panel.seen}", draw(panel))


def _stability_maps(data: xarray.Dataset) -> Iterator[Picture]:
    """A figure for each map of the first run, if the grid varies a setting of it."""
    rows = row_axis(data)
    if rows is None or not {"converged", "score", "steps_used"} <= set(data.data_vars):
        return
    others = [d for d in grid_of(data) if d != rows]
    shape = tuple(data.sizes[d] for d in others)
    chosen = _evenly_spaced(math.prod(shape), _MAX_FIGURES)
    points = (dict(zip(others, map(int, np.unravel_index(i, shape)), strict=True)) for i in chosen)
    for i, each in enumerate(maps(data, points, rows)):
        where = [_named(d, label(data[d].values[j])) for d, j in each.at.items()]
        total, done = len(each.done), int(each.done.sum())
        count = f"{total} rows" if done == total else f"{done} of {total} rows complete"
        title = ", ".join([*map(_escape_formula, where), count])
        figure = plotting.plot_stability(each.found, title=title)
        caption = "Which runs converge (blue), and how fast, from the initial weights of run 0."
        name = f"stability-{i + 1}" if len(chosen) > 1 else "stability"
        yield Picture(name, caption + _sentence("Here", ", ".join(where)), figure)


# --- figures of all analyses ---


def _distributions(numbers: xarray.Dataset) -> Picture:
    points = [d for d in numbers.dims if d != "run"]
    curves, labels = _select_curves(numbers, points)
    figure = plotting.plot_distributions(
        _by_axis_label(curves),
        labels=labels,
        title=_title(
            numbers["status"].values,
            _ranges(numbers, points),
            *_curve_count(labels, numbers, points),
        ),
    )
    names = ", ".join(words(d) for d in points)
    caption = "Distributions of the main quantities over the runs"
    if len(labels or ()) > MOST_OVERLAID:
        caption += f"; the line is the median.{_sentence('Rows:', names)}"
    else:
        caption += f".{_sentence('Colours:', names)}"
    return Picture("distributions", caption, figure)


def _along(numbers: xarray.Dataset) -> Picture:
    points = [d for d in numbers.dims if d != "run"]
    along = max(points, key=lambda d: (numbers[d].dtype.kind in "iuf", numbers.sizes[d]))
    others = [d for d in points if d != along]
    curves, labels = _select_curves(numbers, others)
    figure = plotting.plot_along(
        numbers[along].values,
        _by_axis_label(curves),
        name=_escape_formula(words(along)),
        labels=labels,
        title=_title(
            numbers["status"].values,
            _ranges(numbers, points),
            *_curve_count(labels, numbers, others),
        ),
    )
    caption = (
        f"Main quantities against {words(along)}: lines and markers are medians over the runs, "
        "bands and bars the quartiles."
    )
    caption += _sentence("Curves:", ", ".join(words(d) for d in others))
    return Picture("along", caption, figure)


def _select_curves(
    numbers: xarray.Dataset, dims: list[Any]
) -> tuple[xarray.Dataset, list[str] | None]:
    """Quantities with the points of some dimensions as first axis, the curves, and their names."""
    import xarray

    if not dims:
        return numbers, None
    shape = tuple(numbers.sizes[d] for d in dims)
    chosen = [np.unravel_index(i, shape) for i in _evenly_spaced(int(np.prod(shape)), _MAX_CURVES)]
    curves = [numbers.isel(dict(zip(dims, index, strict=True))) for index in chosen]
    labels = [
        ", ".join(_escape_formula(_named(d, label(curve[d].values))) for d in dims)
        for curve in curves
    ]
    bare = [curve.drop_vars(dims) for curve in curves]
    return xarray.concat(bare, "curve"), labels


def _curve_count(labels: list[str] | None, numbers: xarray.Dataset, dims: list[Any]) -> list[str]:
    """Text with the number of curves, if some are omitted."""
    n = math.prod(numbers.sizes[d] for d in dims)
    return [] if labels is None or len(labels) == n else [f"{len(labels)} of {n} curves"]


def _by_axis_label(numbers: xarray.Dataset) -> dict[str, NDArray[Any]]:
    """Arrays by the label of their axis."""
    found = {}
    for name, array in numbers.drop_vars("status").data_vars.items():
        units = array.attrs["units"]
        found[f"{name}, {units}" if units else str(name)] = array.values
    return found


# --- figures of one analysis ---


def _panels(data: xarray.Dataset, needs: tuple[str, ...], one_curve: bool) -> Iterator[_Panel]:
    """Data of each figure.

    Curves are the values of the longest dimension of the grid that is not a setting of the
    analysis; there is one figure for each value of the other dimensions.
    """
    grid, system = grid_of(data), settings_of(data).get("system", {}).get("name", "")
    adam = settings_of(data).get("optimizer", {}).get("name") == "adam"
    by_default = "preconditioned" if adam else "hessian"  # what no kind of sharpness stands for
    able = [d for d, path in grid.items() if not path.startswith("analysis.") and not one_curve]
    along = max(able, key=data.sizes.__getitem__, default=None)
    others = [d for d in grid if d != along]
    shape = tuple(data.sizes[d] for d in others)
    for i in _evenly_spaced(int(np.prod(shape)), _MAX_FIGURES):
        at = dict(zip(others, (int(j) for j in np.unravel_index(i, shape)), strict=True))
        wanted = {"status", "stderr", "loss", *needs, *_OPTIONAL}
        here = data[[name for name in data.data_vars if name in wanted]].isel(at)
        if along is not None:
            here = here.isel({along: _evenly_spaced(data.sizes[along], _MAX_CURVES)})
        if not is_done(here["status"]).any():
            continue
        analysis = dict(settings_of(data)["analysis"])
        for d in others:
            table, _, key = grid[d].partition(".")
            if table == "analysis":
                analysis[key] = here[d].item()
        here = _trim_padding(_first_runs(here).load())
        labels, varying = None, []
        if along is None:
            here = here.expand_dims("curve")
        else:
            varying = _ranges(here, [along])
            labels = [_escape_formula(_named(along, label(v))) for v in here[along].values]
            here = here.rename({along: "curve"})
        where = [_named(d, label(here[d].values)) for d in others]
        first = (
            "" if here.sizes["run"] == data.sizes["run"] else f"runs 0 to {here.sizes['run'] - 1}"
        )
        title = _title(here["status"].values, varying, *where, first)
        each = "Panels" if settings_of(data)["analysis"]["name"] == "ensemble" else "Colours"
        seen = _sentence(f"{each}:", ", ".join(varying)) + _sentence("Here", ", ".join(where))
        arrays = here.transpose("curve", "run", ...)
        kind = analysis.get("kind") or by_default
        yield _Panel(arrays, labels, title, analysis, seen, system, kind)


def _first_runs(data: xarray.Dataset) -> xarray.Dataset:
    """The first runs, at most `_MAX_VALUES` values."""
    values = sum(array.size for array in data.data_vars.values()) / data.sizes["run"]
    return data.isel(run=slice(0, max(1, int(_MAX_VALUES / values))))


def _trim_padding(data: xarray.Dataset) -> xarray.Dataset:
    """Remove times that no run has reached: the padding of shorter analyses."""
    for dim in _TIMES:
        floats = [a for a in data.data_vars.values() if dim in a.dims and a.dtype.kind == "f"]
        if dim == "time" and {"step", "time"} <= set(data.dims):  # one time more than steps
            data = data.isel(time=slice(0, data.sizes["step"] + 1))
        elif floats:
            seen = np.zeros(data.sizes[dim], bool)
            for array in floats:
                seen |= array.notnull().any([d for d in array.dims if d != dim]).values
            data = data.isel({dim: slice(0, int(seen.nonzero()[0].max(initial=0)) + 1)})
    return data


def _spectrum(panel: _Panel) -> Figure:
    found = _arrays(panel.data, "exponents", "stderr", "growth")
    if "loss" in panel.data:
        found["loss"] = panel.data["loss"].values
    else:
        runs, records = found["growth"].shape[:2], found["growth"].shape[2]
        found["loss"] = np.full((*runs, records + 1), np.nan)
    every = panel.analysis["record_every"] or panel.analysis["qr_every"]
    settings = {"record_every": every, "system": panel.system}
    spectrum = SimpleNamespace(**found, steps=panel.data["step"].values, settings=settings)
    return plotting.plot_spectrum(_like_result(spectrum), labels=panel.labels, title=panel.title)


def _ftle(panel: _Panel) -> Figure:
    return plotting.plot_ftle(
        panel.data["ftle"].values, panel.data["step"].values, labels=panel.labels, title=panel.title
    )


def _clv(panel: _Panel) -> Figure:
    found = _arrays(panel.data, "growth", "contamination", "residual", "status")
    vectors = SimpleNamespace(
        **found,
        k=panel.data.sizes["vector"],
        angles=lambda: panel.data["angles"].values,
        early_coefficients=None,
        steps=panel.data["time"].values,
        settings={"every": panel.analysis["every"], "system": panel.system},
    )
    return plotting.plot_covariant(_like_result(vectors), labels=panel.labels, title=panel.title)


def _training_jacobian(panel: _Panel) -> Figure:
    logs = panel.data["log_singular_values"].values
    jacobian = SimpleNamespace(log_singular_values=logs)
    return plotting.plot_training_jacobian(
        _like_result(jacobian), panel.analysis["width"], labels=panel.labels, title=panel.title
    )


def _ensemble(panel: _Panel) -> Figure:
    distances = panel.data["distances"]
    if "perturbation" in distances.dims:
        distances = distances.mean("perturbation")
    several = "eps" in distances.dims
    sizes = panel.data["eps"].values.tolist() if several else panel.analysis["eps"]
    ensemble = SimpleNamespace(
        mean=distances.values,
        steps=panel.data["time"].values,
        settings={"eps": sizes, "norm": panel.analysis["norm"], "system": panel.system},
    )
    return plotting.plot_ensemble(_like_result(ensemble), titles=panel.labels, title=panel.title)


def _sharpness(panel: _Panel) -> Figure:
    found: dict[str, Any] = {"loss": None, "upper_threshold": None, "kind": panel.kind}
    there = [name for name in ("loss", "upper_threshold") if name in panel.data]
    found |= _arrays(panel.data, "value", "ratio", "threshold", *there)
    result = _like_result(SimpleNamespace(**found, steps=panel.data["time"].values))
    draw = plotting.plot_sharpness if found["loss"] is None else plotting.plot_edge_of_stability
    figure: Figure = draw(result, labels=panel.labels, title=panel.title)
    return figure


def _train(panel: _Panel) -> Figure:
    optional = ("test_loss", "train_accuracy", "test_accuracy")
    found: dict[str, Any] = dict.fromkeys(optional)
    there = [name for name in optional if name in panel.data]
    found |= _arrays(panel.data, *there, "train_loss", "deviation", "status")
    scopes = tuple(panel.data["scope"].values.tolist())
    history = SimpleNamespace(**found, epochs=panel.data["epoch"].values, scopes=scopes)
    return plotting.plot_history(_like_result(history), labels=panel.labels, title=panel.title)


def _scan(panel: _Panel) -> Figure:
    done = is_done(panel.data["status"].values[0])
    found = {
        name: np.moveaxis(values[0, done], 0, 1)
        for name, values in _arrays(
            panel.data, "loss", "late_loss", "exponent", "growth", "sharpness", "regime"
        ).items()
    }
    # Only the errors of single runs are drawn.
    errors = panel.data["stderr"].values[0, done] if "stderr" in panel.data else None
    found["stderr"] = np.full_like(found["loss"], np.nan) if errors is None else errors.T
    regime = np.array(REGIMES)[found.pop("regime")]
    share = {name: (regime == name).mean(axis=1) for name in REGIMES}
    scan = SimpleNamespace(**found, regime=regime, share=share, lr=panel.data["lr"].values)
    return plotting.plot_scan(_like_result(scan), title=panel.title)


_OPTIONAL = ("test_loss", "train_accuracy", "test_accuracy", "upper_threshold")

# Required variables, plotting function, and caption.
_PICTURES: dict[str, tuple[tuple[str, ...], Callable[[_Panel], Figure], str]] = {
    "spectrum": (
        ("exponents", "stderr", "growth"),
        _spectrum,
        "Leading finite-time exponents along the runs, with the loss if it is kept, and the "
        "Lyapunov spectrum: medians and quartiles over the runs.",
    ),
    "ftle": (
        ("ftle",),
        _ftle,
        "Leading finite-time exponents along the runs: medians and quartiles over the runs.",
    ),
    "clv": (
        ("growth", "contamination", "residual", "angles"),
        _clv,
        "Growth of the leading covariant vector; smallest angle between two vectors along the runs "
        "and its distribution; accuracy of the vectors (contamination and residual).",
    ),
    "training_jacobian": (
        ("log_singular_values",),
        _training_jacobian,
        "Singular values of the training Jacobian in descending order, one line per run; the band "
        "marks those near 1.",
    ),
    "ensemble": (
        ("distances",),
        _ensemble,
        "Mean distance between perturbed copies and their reference run, for each perturbation "
        "size: medians and quartiles over the runs.",
    ),
    "sharpness": (
        ("value", "ratio", "threshold"),
        _sharpness,
        "Loss, if it is kept, and sharpness along the runs, with the stability threshold of the "
        "optimiser (dashed): medians and quartiles over the runs.",
    ),
    "train": (
        ("train_loss", "deviation"),
        _train,
        "Losses, accuracies and the deviation of the weights from their initial values against the "
        "epoch: medians and quartiles over the runs.",
    ),
    "scan": (
        ("loss", "late_loss", "exponent", "growth", "sharpness", "regime"),
        _scan,
        "Late losses, leading exponents, sharpness and the fraction of runs in each regime against "
        "the learning rate.",
    ),
}


def _arrays(data: xarray.Dataset, *names: str) -> dict[str, NDArray[Any]]:
    return {name: data[name].values for name in names}


def _like_result(result: SimpleNamespace) -> Any:
    """Stand-in for a result of the library, with the attributes that a plotting function uses."""
    return result


# --- text ---


def _sentence(begin: str, text: str) -> str:
    """A further sentence of a caption; empty without a text."""
    return f" {begin} {text}." if text else ""


# Dimensions of a grid in words.
_WORDS = {
    "lr": "learning rate",
    "hidden": "hidden units",
    "scale": "initial scale",
    "eps": "perturbation size",
    "n_steps": "steps",
    "epochs": "epochs",
    "n": "samples",
}
_COUNTS = ("hidden", "n_steps", "epochs", "n")  # "5 hidden units", and not "hidden units 5"
_MOST_TEXTS = 4  # values of a dimension of strings in a title


def words(dim: Any) -> str:
    """A dimension of a grid in words."""
    return _WORDS.get(str(dim), str(dim).replace("_", " "))


def _named(dim: Any, value: str) -> str:
    """A value with its name, such as "learning rate 0.1" or "5 hidden units"."""
    return f"{value} {words(dim)}" if dim in _COUNTS else f"{words(dim)} {value}"


def _ranges(data: xarray.Dataset, dims: list[Any]) -> list[str]:
    """The values of some dimensions, such as "learning rate 0.01 … 3.2"."""
    texts = []
    for dim in dims:
        values = data[dim].values
        if len(values) > 2 and values.dtype.kind in "iuf":
            text = f"{label(values.min())} … {label(values.max())}"
        else:
            text = ", ".join(label(value) for value in values[:_MOST_TEXTS])
            text += ", …" if len(values) > _MOST_TEXTS else ""
        texts.append(_named(dim, text))
    return texts


def _title(statuses: NDArray[np.int8], curves: list[str], *more: str) -> str:
    """Title with the settings of the curves and the number of complete runs (..., n_runs)."""
    done, total = int(is_done(statuses).sum()), statuses.size
    each = statuses.shape[-1]
    parts = [_escape_formula(text) for text in (*curves, *more) if text]
    if done < total:
        parts.append(f"{done} of {total} runs complete")
    else:
        parts.append(f"{each} run{'s'[: each != 1]}" + (" each" if total > each else ""))
    text = ", ".join(parts)
    for name, status in (("diverged", Status.DIVERGED), ("failed", Status.RAISED)):
        if count := int((statuses == status).sum()):
            text += f"; {count} {name}"
    return text


def _escape_formula(text: Any) -> str:
    """Escape dollar signs, which would begin a formula in Matplotlib."""
    return str(text).replace("$", r"\$")


def _evenly_spaced(n: int, most: int) -> NDArray[np.int64]:
    """At most `most` evenly spaced indices below n, including the first and the last."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64))
