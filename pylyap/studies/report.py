"""A study on one HTML page, which needs nothing beside it."""

from __future__ import annotations

import base64
import io
import json
import math
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pylyap import _checks
from pylyap._files import resolved, user_file, write_text
from pylyap.studies import records, store
from pylyap.studies.pictures import Picture, pictures
from pylyap.studies.results import folder_of, open_study
from pylyap.studies.summary import Row, grid_of, quantities, rows, settings_of

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

_SHOWN = 500  # rows of a table, failures
_VALUES = 20  # of a setting


def report_study(path: str | os.PathLike[str], file: str | os.PathLike[str]) -> None:
    """Write a study to an HTML page: settings, progress, pictures, tables, failures.

    As far as it has come. The page holds all of it, pictures included, and asks for no other file
    and no network.

    Parameters
    ----------
    path
        The folder that `run_study` or `pylyap run` writes to, or has written.
    file
        Where to write; what is there is replaced in one move. A symbolic link is followed.

    Raises
    ------
    ValueError
        If there is no study in the folder or it is damaged.
    ImportError
        If Jinja2, Matplotlib, Zarr or xarray is not installed.
    OSError
        If it cannot be written.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise ImportError("report_study needs Jinja2: pip install 'pylyap[report]'") from None
    target = resolved(_checks.file("file", file))  # before the work
    environment = Environment(
        loader=PackageLoader("pylyap.studies", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html").render(_content(folder_of(path)))
    with user_file(target) as stream:
        write_text(stream, page)


def _content(folder: Path) -> dict[str, Any]:
    """What the page says."""
    data = open_study(folder)
    settings = settings_of(data)
    failures = json.loads(data.attrs["failures"])
    content = {
        "title": settings["title"] or f"A study of {settings['analysis']['name']}",
        "progress": list(_progress(data, folder)),
        "made": list(_made(data)),
        "settings": list(_settings(settings)),
        "grid": list(_grid(data)),
        "failures": [_failure(failure) for failure in failures[:_SHOWN]],
        "failures_left": len(failures[_SHOWN:]),
        "pictures": [],
        "table": None,
    }
    if data.attrs["runs_done"]:
        numbers = quantities(data)
        content["pictures"] = [_embedded(picture) for picture in pictures(data, numbers)]
        content["table"] = _table(numbers)
    return content


def _progress(data: xarray.Dataset, folder: Path) -> Iterator[tuple[str, str]]:
    attrs = data.attrs
    yield "done", f"{attrs['runs_done']} of {attrs['runs_total']} runs"
    yield "diverged", str(attrs["runs_diverged"])
    yield "failed", str(attrs["runs_failed"])
    yield "running", "yes" if store.is_written(folder) else "no"
    log = list(records.read(folder / store.LOG))
    if log:
        yield "computing time", f"{_duration(sum(r.seconds for r in log))}, of all workers together"
        yield "last result", _moment(datetime.fromtimestamp(max(r.at for r in log), UTC))
    yield "begun", _moment(datetime.fromisoformat(attrs["created"]))
    yield "this page", _moment(datetime.now(UTC))


def _made(data: xarray.Dataset) -> Iterator[tuple[str, str]]:
    attrs = data.attrs
    yield "pylyap", attrs["pylyap"]
    yield "instruction set", attrs["instruction_set"]
    yield "results of", attrs["environments"] or "none yet"
    yield "Python", attrs["python"]
    yield "NumPy", attrs["numpy"]
    settings = settings_of(data)
    yield "seed of the runs", str(settings["seed"])
    for name, key, value in _settings(settings):
        if key.endswith("seed"):
            yield f"{name}.{key}", value


def _settings(settings: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Rows of table, key and value, without what was left out."""
    for name, value in settings.items():
        if name in ("title", "grid"):
            continue
        items = value.items() if isinstance(value, dict) else [("", value)]
        for key, item in items:
            if item is not None:
                yield name, key, _words(item)


def _grid(data: xarray.Dataset) -> Iterator[tuple[str, str, int, str]]:
    for dimension, setting in grid_of(data).items():
        values = settings_of(data)["grid"][setting]
        yield dimension, setting, len(values), _words(values)


def _failure(failure: dict[str, Any]) -> dict[str, str]:
    first, last = failure["runs"]
    return {
        "at": ", ".join(f"{name} {_words(value)}" for name, value in failure["at"].items()) or "–",
        "runs": f"{first}" if first == last else f"{first}–{last}",
        "error": failure["error"],
        "worker": failure["worker"],
    }


def _table(numbers: xarray.Dataset) -> dict[str, Any]:
    """Rows of texts under names of dimensions and quantities."""
    names = [name for name in numbers.data_vars if name != "status"]
    points = [d for d in numbers.dims if d != "run"]
    total = math.prod(numbers.sizes[d] for d in points)
    return {
        "points": points,
        "quantities": [(name, numbers[name].attrs["units"]) for name in names],
        "rows": [_row(row) for row in islice(rows(numbers), _SHOWN)],
        "left": max(0, total - _SHOWN),
    }


def _row(row: Row) -> dict[str, Any]:
    counts = [row.runs, row.diverged, row.failed]
    texts = [tuple(_number(float(q)) for q in quartiles) for quartiles in row.quartiles]
    return {"point": row.point, "counts": counts, "quartiles": texts}


def _embedded(picture: Picture) -> dict[str, Any]:
    """A picture as the page holds it."""
    width, height = (round(96 * inches) for inches in picture.figure.get_size_inches())
    content = _png(picture.figure)
    return {"content": content, "caption": picture.caption, "width": width, "height": height}


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode()


# --- words ---


def _words(value: Any) -> str:
    if isinstance(value, list) and len(value) > _VALUES:
        return f"{_words(value[:_VALUES])} … {_words(value[-1])}, {len(value)} values"
    if isinstance(value, list):
        return ", ".join(f"[{_words(v)}]" if isinstance(v, list) else _words(v) for v in value)
    return value if isinstance(value, str) else json.dumps(value)


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3g}".replace("-", "−")


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.3g} s"
    from tqdm import tqdm

    return str(tqdm.format_interval(seconds))


def _moment(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M:%S} UTC"
