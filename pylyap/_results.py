"""What all results share: display, pictures, and files that are read back to the same arrays.

A file is the result's own dataset (`to_dataset`), whose variables other programs can read, with the
fields that it lacks beside it and a table of all fields in the attribute ``pylyap``.
"""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import json
import os
import re
from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from pylyap import _checks
from pylyap._errors import ArgumentError, ArgumentTypeError, MissingPathError
from pylyap._files import user_file, write_netcdf
from pylyap._labelled import dataset_class

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

_FORMAT = 1
_ATTRIBUTE = "pylyap"
_LINES = 9  # of a `repr`, besides the name
_WIDTH = 60  # characters of a value in it
_DPI = 60  # of the picture in a notebook
_CELL = "text-align: left; padding: 0.1em 0.8em"

_CLASSES: dict[str, type[Result]] = {}
_PICTURES: dict[str, Callable[..., Figure]] = {}  # filled by pylyap.plotting


class Result:
    """What all results share: display, pictures, files."""

    def __init_subclass__(cls) -> None:
        _CLASSES[cls.__name__] = cls

    def __repr__(self) -> str:
        """The fields in at most ten lines."""
        rows = _rows(self)
        width = max((len(name) for name, _ in rows), default=0)
        lines = [f"  {name:<{width}}  {text}" for name, text in rows]
        if len(lines) > _LINES:
            lines = [*lines[: _LINES - 1], f"  and {len(lines) - _LINES + 1} more fields"]
        return "\n".join([type(self).__name__, *lines])

    def _repr_html_(self) -> str:
        """For notebooks: a table, and a small picture where Matplotlib is installed."""
        text = as_table(repr(self))
        try:
            picture = self.plot()
        except (ImportError, ArgumentError):  # no Matplotlib, or no picture of this result
            return text
        buffer = io.BytesIO()
        picture.savefig(buffer, format="png", dpi=_DPI)
        data = base64.b64encode(buffer.getvalue()).decode()
        what = (type(self).__doc__ or type(self).__name__).partition("\n")[0]
        return f'{text}<img alt="{html.escape(what)}" src="data:image/png;base64,{data}">'

    def plot(self, **options: Any) -> Figure:
        """Draw the result.

        Parameters
        ----------
        **options
            Of the function of `pylyap.plotting` for this kind of result: `ax`, `axes` or `figure`
            to draw into, `title`, and more.

        Returns
        -------
        matplotlib.figure.Figure
            The figure.

        Raises
        ------
        ArgumentError
            If there is no picture of this kind of result.
        ImportError
            If Matplotlib is not installed.
        """
        draw = _PICTURES.get(type(self).__name__)
        if draw is None:
            kinds = ", ".join(sorted(_PICTURES))
            raise ArgumentError("self", f"must be a {kinds} to be drawn, got {type(self).__name__}")
        figure: Figure = draw(self, **options)
        return figure

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the result to a netCDF file, which `pylyap.load` reads.

        An existing file is replaced only once the new one is complete.

        Parameters
        ----------
        path : str or path
            Where to write.

        Raises
        ------
        OSError
            If the file cannot be written.
        ImportError
            If xarray or h5netcdf is not installed.
        """
        target = _checks.file("path", path)
        content = _encoded(self)
        with user_file(target) as file:
            write_netcdf(file, content)


def as_table(text: str) -> str:
    """The lines of a `repr` as an HTML table below the first one."""
    first, *lines = text.splitlines()
    rows = []
    for line in lines:
        parts = re.split(r"\s{2,}|: ", line.strip(), maxsplit=1)
        cells = [html.escape(part) for part in parts]
        span = ' colspan="2"' if len(cells) == 1 else ""
        rows.append(
            "<tr>" + "".join(f'<td{span} style="{_CELL}">{c}</td>' for c in cells) + "</tr>"
        )
    table = f"<table>{''.join(rows)}</table>" if rows else ""
    return f"<div><strong>{html.escape(first)}</strong>{table}</div>"


def drawn_by(draw: Callable[..., Any], *kinds: str) -> None:
    """Register the function that `Result.plot` calls for results of these classes."""
    for kind in kinds:
        _PICTURES[kind] = draw


# --- display --------------------------------------------------------------------------------------


def _rows(result: Any) -> list[tuple[str, str]]:
    shown = sorted(dataclasses.fields(result), key=lambda f: not f.repr)  # the main ones first
    values = [(f.name, getattr(result, f.name)) for f in shown]
    rows = [(name, _summary(value)) for name, value in values if value is not None]
    batch = getattr(result, "_batch_text", None)
    if batch is None:
        return rows
    rows = [(name, text) for name, text in rows if name not in ("dims", "coords")]
    return [("batch", batch), *rows] if batch else rows


def _summary(value: Any) -> str:
    """A value on one line; of an array its shape and the range of its finite values."""
    if isinstance(value, np.ndarray):
        return _summary_of_array(value)
    if isinstance(value, (float, np.floating)):
        return f"{value:.4g}"
    if isinstance(value, Result):
        return type(value).__name__
    listed = isinstance(value, (dict, tuple))
    text = ", ".join(map(str, value)) or "none" if listed else str(value)
    return text if len(text) <= _WIDTH else text[: _WIDTH - 3] + "..."


def _summary_of_array(values: Any) -> str:
    if values.dtype.kind not in "iuf":
        names, counts = np.unique(values, return_counts=True)
        counted = [f"{n} {name}" for name, n in zip(names, counts, strict=True)][:6]
        return f"{values.shape}: {', '.join(counted)}"
    if values.size <= 4:
        return np.array2string(values, precision=4, separator=", ").replace("\n", "")
    finite = values[np.isfinite(values)]
    if not finite.size:
        return f"{values.shape}: none finite"
    span = f"{finite.min():.4g} ... {finite.max():.4g}"
    infinite = values.size - finite.size
    return f"{values.shape}: {span}" + (f", {infinite} not finite" if infinite else "")


# --- files ----------------------------------------------------------------------------------------


def load(path: str | os.PathLike[str]) -> Any:
    """Read a result that `save` wrote.

    Parameters
    ----------
    path : str or path
        A netCDF file.

    Returns
    -------
    result
        The same class with the same arrays, such as `Spectrum` or `Ensemble`.

    Raises
    ------
    ArgumentError
        If the file is missing, or holds no result of this package.

    Examples
    --------
    >>> import pylyap as pl
    >>> X, y = pl.datasets.quadratic(20)
    >>> system = pl.TrainingMap(pl.Network((2, 3, 1)), X, y, pl.GradientDescent(lr=0.1))
    >>> spectrum = pl.lyapunov_spectrum(system, system.network.init(seed=0), n_steps=10)
    >>> spectrum.save("spectrum.nc")
    >>> bool((pl.load("spectrum.nc").exponents == spectrum.exponents).all())
    True
    """
    source = _checks.file("path", path)
    if not source.is_file():
        raise MissingPathError("path", f"must be a file, there is no {str(source)!r}")
    dataset_class()  # xarray is there, or says how to get it
    import xarray

    try:
        with xarray.open_dataset(source, engine="h5netcdf", decode_times=False) as data:
            data.load()
    except MemoryError:
        raise
    except Exception as error:  # whatever the readers raise for damaged files
        reason = " ".join(str(error).split())[:200]
        raise ArgumentError(
            "path", f"must be a netCDF file, {str(source)!r} is not: {reason}"
        ) from None
    if _ATTRIBUTE not in data.attrs:
        raise ArgumentError(
            "path", f"must hold a result of pylyap written by save(), {str(source)!r} does not"
        )
    try:
        table = json.loads(data.attrs[_ATTRIBUTE])
        if table["format"] > _FORMAT:
            raise ArgumentError(
                "path",
                f"must be in format {_FORMAT} or older, {str(source)!r} is in {table['format']}: "
                f"written by pylyap {table['version']}",
            )
        return _decoded(table["result"], data)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ArgumentError):
            raise
        raise ArgumentError(
            "path", f"must hold a whole result, {str(source)!r} does not: {error!r}"
        ) from None


# --- encoding -------------------------------------------------------------------------------------


def _encoded(result: Any) -> xarray.Dataset:
    Dataset = dataset_class()
    data = result.to_dataset() if hasattr(result, "to_dataset") else Dataset()
    extra: dict[str, Any] = {}
    table = {
        "format": _FORMAT,
        "version": version("pylyap"),
        "result": _field(result, "", data, extra),
    }
    data = data.assign(extra)
    data.attrs = {**data.attrs, _ATTRIBUTE: json.dumps(table)}
    return data


def _field(value: Any, name: str, data: xarray.Dataset, extra: dict[str, Any]) -> Any:
    """A value as JSON; arrays become names of variables, of `data` or put into `extra`."""
    if isinstance(value, Result):
        fields = {
            field.name: _field(
                getattr(value, field.name), f"{name}.{field.name}" if name else field.name,
                data, extra,
            )
            for field in dataclasses.fields(value)  # type: ignore[arg-type]
        }  # fmt: skip
        return {"class": type(value).__name__, "fields": fields}
    if isinstance(value, np.ndarray):
        return _array(value, name, data, extra)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {
            "dict": [[key, _field(v, f"{name}.{key}", data, extra)] for key, v in value.items()]
        }
    if isinstance(value, (tuple, list)):
        items = [_field(v, f"{name}.{i}", data, extra) for i, v in enumerate(value)]
        return {type(value).__name__: items}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ArgumentTypeError(name, f"cannot be saved, got {_checks.describe(value)}")


def _array(value: Any, name: str, data: xarray.Dataset, extra: dict[str, Any]) -> Any:
    kind = str(value.dtype)
    stored = value
    if value.dtype.kind == "b":
        stored = value.astype(np.uint8)
    elif value.dtype.kind == "U":
        stored = value.astype(object)
    known = data.variables.get(name)
    if (
        known is not None
        and known.shape == stored.shape
        and known.dtype == stored.dtype
        and np.array_equal(known.values, stored, equal_nan=stored.dtype.kind == "f")
    ):
        return {"array": name, "dtype": kind}
    variable = f"field.{name}"
    extra[variable] = (tuple(f"{variable}.{i}" for i in range(stored.ndim)), stored)
    return {"array": variable, "dtype": kind}


def _decoded(value: Any, data: xarray.Dataset) -> Any:
    if not isinstance(value, dict):
        return value
    if "class" in value:
        fields = {name: _decoded(field, data) for name, field in value["fields"].items()}
        return _CLASSES[value["class"]](**fields)
    if "array" in value:
        return np.array(data.variables[value["array"]].values).astype(value["dtype"])
    if "dict" in value:
        return {key: _decoded(item, data) for key, item in value["dict"]}
    if "tuple" in value:
        return tuple(_decoded(item, data) for item in value["tuple"])
    return [_decoded(item, data) for item in value["list"]]
