"""Report of a study: one self-contained HTML page."""

from __future__ import annotations

import base64
import io
import json
import math
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pylyap import _checks
from pylyap._extras import require
from pylyap._files import resolved, user_file, write_text
from pylyap.studies import records, store
from pylyap.studies.pictures import Picture, pictures, words
from pylyap.studies.results import checked_folder, open_study
from pylyap.studies.samples import subject_of
from pylyap.studies.summary import Row, grid_of, quantities, rows, settings_of

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

_MAX_ROWS = 500  # of a table
_MAX_LISTED = 20  # values of a setting
_COUNTS = ("runs", "diverged", "failed")
_WHOLE = 3.5  # ratio of width to height from which a figure takes both columns


def report_study(path: str | os.PathLike[str], file: str | os.PathLike[str]) -> None:
    """Write a report of a study, complete or not, as an HTML page.

    The page contains a table of results, figures, failures, settings, progress and versions. It
    needs no other file and no network, and fits phones as well as wide screens.

    Parameters
    ----------
    path : str or path-like
        Folder of the study, as given to `run_study` or ``pylyap run``.
    file : str or path-like
        File to write, or to replace atomically. A symbolic link is followed.

    Raises
    ------
    ValueError
        If the folder contains no study or it is damaged.
    ImportError
        If Jinja2, Matplotlib, Zarr or xarray is not installed.
    OSError
        If the file cannot be written.

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
    >>> pl.report_study("results", "results.html")
    """
    require("jinja2", extra="report", for_="report_study")
    from jinja2 import Environment, PackageLoader, StrictUndefined

    target = resolved(_checks.file("file", file))  # checked before the work
    environment = Environment(
        loader=PackageLoader("pylyap.studies", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html").render(_content(checked_folder(path)))
    with user_file(target) as stream:
        write_text(stream, page)


def _content(folder: Path) -> dict[str, Any]:
    """Content of the page."""
    data = open_study(folder)
    settings = settings_of(data)
    failures = json.loads(data.attrs["failures"])
    content = {
        "title": settings["title"] or f"Study: {settings['analysis']['name']}",
        "about": _about(data, settings),
        "counts": list(_counts(data, store.is_locked(folder))),
        "progress": list(_progress(data, folder)),
        "provenance": list(_provenance(data)),
        "settings": list(_tables(settings)),
        "grid": list(_grid(data)),
        "failures": [_failure(failure) for failure in failures[:_MAX_ROWS]],
        "failures_left": len(failures[_MAX_ROWS:]),
        "pictures": [],
        "table": None,
    }
    if data.attrs["runs_done"]:
        numbers = quantities(data)
        content["pictures"] = [_embedded(picture) for picture in pictures(data, numbers)]
        content["table"] = _table(numbers)
    return content


def _about(data: xarray.Dataset, settings: dict[str, Any]) -> str:
    """One line: analysis, data, network, runs and grid."""
    runs = settings["runs"]
    sizes = [f"{words(dim)} ({data.sizes[dim]} values)" for dim in grid_of(data)]
    at = f" at each point of {' × '.join(sizes)}" if sizes else ""
    analysis = settings["analysis"]["name"]
    return f"{analysis} of {subject_of(settings)}, {runs} run{'s'[: runs != 1]}{at}"


def _counts(data: xarray.Dataset, running: bool) -> Iterator[tuple[str, bool]]:
    """Numbers of runs in words, and whether they are worth an alarm."""
    attrs = data.attrs
    yield f"{attrs['runs_done']} of {attrs['runs_total']} runs complete", False
    if attrs["runs_diverged"]:
        yield f"{attrs['runs_diverged']} diverged", False
    if attrs["runs_failed"]:
        yield f"{attrs['runs_failed']} failed", True
    if running:
        yield "running", False


def _progress(data: xarray.Dataset, folder: Path) -> Iterator[tuple[str, str]]:
    attrs = data.attrs
    yield "complete", f"{attrs['runs_done']} of {attrs['runs_total']} runs"
    yield "diverged", str(attrs["runs_diverged"])
    yield "failed", str(attrs["runs_failed"])
    yield "running", "yes" if store.is_locked(folder) else "no"
    log = list(records.read(folder / store.LOG))
    if log:
        yield (
            "computing time",
            f"{_duration(sum(r.seconds for r in log))} summed over all workers",
        )
        yield "last result", _format_time(datetime.fromtimestamp(max(r.at for r in log), UTC))
    yield "started", _format_time(datetime.fromisoformat(attrs["created"]))
    yield "report", _format_time(datetime.now(UTC))


def _provenance(data: xarray.Dataset) -> Iterator[tuple[str, str]]:
    attrs = data.attrs
    yield "pylyap", attrs["pylyap"]
    yield "instruction set", attrs["instruction_set"]
    yield "results computed by", attrs["environments"] or "none yet"
    yield "Python", attrs["python"]
    yield "NumPy", attrs["numpy"]
    settings = settings_of(data)
    yield "seed", str(settings["seed"])
    for name, key, value in _settings(settings):
        if key.endswith("seed"):
            yield f"{name}.{key}", value


def _settings(settings: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Rows of table, key and value; settings that are None are omitted."""
    for name, value in settings.items():
        if name in ("title", "grid"):
            continue
        items = value.items() if isinstance(value, dict) else [("", value)]
        for key, item in items:
            if item is not None:
                yield name, key, _format_value(item)


def _tables(settings: dict[str, Any]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Settings by table."""
    for name, items in groupby(_settings(settings), key=lambda row: row[0] if row[1] else "study"):
        yield name, [(key or table, value) for table, key, value in items]


def _grid(data: xarray.Dataset) -> Iterator[tuple[str, str, int, str]]:
    for dimension, setting in grid_of(data).items():
        values = settings_of(data)["grid"][setting]
        yield dimension, setting, len(values), _format_value(values)


def _failure(failure: dict[str, Any]) -> dict[str, str]:
    first, last = failure["runs"]
    return {
        "at": ", ".join(f"{name} {_format_value(value)}" for name, value in failure["at"].items())
        or "–",
        "runs": f"{first}" if first == last else f"{first}–{last}",
        "error": failure["error"],
        "worker": failure["worker"],
    }


def _table(numbers: xarray.Dataset) -> dict[str, Any]:
    """Table of results: names of dimensions and quantities, and rows of text."""
    names = [name for name in numbers.data_vars if name != "status"]
    points = [d for d in numbers.dims if d != "run"]
    total = math.prod(numbers.sizes[d] for d in points)
    found = list(islice(rows(numbers), _MAX_ROWS))
    # Diverged and failed runs have a column if there are any.
    shown = [True, any(row.diverged for row in found), any(row.failed for row in found)]
    return {
        "points": [words(d) for d in points],
        "quantities": [(name, numbers[name].attrs["units"]) for name in names],
        "counts": [name for name, kept in zip(_COUNTS, shown, strict=True) if kept],
        "rows": [_row(row, shown) for row in found],
        "left": max(0, total - _MAX_ROWS),
    }


def _row(row: Row, shown: list[bool]) -> dict[str, Any]:
    numbers = (row.runs, row.diverged, row.failed)
    counts = [n for n, kept in zip(numbers, shown, strict=True) if kept]
    texts = [tuple(_number(float(q)) for q in quartiles) for quartiles in row.quartiles]
    return {"point": row.point, "counts": counts, "quartiles": texts}


def _embedded(picture: Picture) -> dict[str, Any]:
    """A figure, encoded for the page."""
    width, height = (round(96 * inches) for inches in picture.figure.get_size_inches())
    content = _png(picture.figure)
    return {
        "name": picture.name,
        "content": content,
        "caption": picture.caption,
        "width": width,
        "height": height,
        "whole": width > _WHOLE * height,
    }


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode()


# --- text ---


def _format_value(value: Any) -> str:
    if isinstance(value, list) and len(value) > _MAX_LISTED:
        first, last = _format_value(value[:_MAX_LISTED]), _format_value(value[-1])
        return f"{first} … {last}, {len(value)} values"
    if isinstance(value, list):
        return ", ".join(
            f"[{_format_value(v)}]" if isinstance(v, list) else _format_value(v) for v in value
        )
    return value if isinstance(value, str) else json.dumps(value)


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3g}".replace("-", "−")


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.3g} s"
    from tqdm import tqdm

    return str(tqdm.format_interval(seconds))


def _format_time(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M:%S} UTC"
