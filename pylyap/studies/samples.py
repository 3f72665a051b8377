"""Samples of a study: embedded data sets, files, and arrays, which are stored in its folder."""

from __future__ import annotations

import json
import math
import warnings
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pylyap import _checks, datasets
from pylyap._errors import ArgumentError, MissingPathError
from pylyap._files import atomic_write, write_npz
from pylyap._readers import tables as readers
from pylyap.studies.settings import InvalidStudy
from pylyap.studies.tables import TABLES, Settings

STORED = "data.npz"  # arrays of a study, in its folder

ARRAYS_IN_FILE = (
    'data must name a file in a study file, path = "data.csv" or "data.npz"; X and y can be '
    "given in Python alone"
)
ARRAYS_TO_FILE = (
    "must be in a file to be written as TOML, got arrays: numpy.savez('data.npz', X=X, y=y) and "
    "data={'path': 'data.npz', 'target': 'y'}"
)

# Keys of [data] that are no arguments of its reader.
_SPLIT_KEYS = ("train", "test", "split_seed", "sha256")


class Samples(NamedTuple):
    """Inputs, targets, a digest of both if they come from files, and warnings of a table."""

    X: NDArray[Any]
    y: NDArray[Any]
    digest: str
    warnings: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        return int(self.X.nbytes + self.y.nbytes)


@contextmanager
def library_errors(table: str, keys: Collection[str]) -> Iterator[None]:
    """Convert errors of the library to InvalidStudy, at the key that is their argument."""
    try:
        yield
    except InvalidStudy:
        raise
    except (ValueError, TypeError, ImportError, OSError, MemoryError) as error:
        key = error.argument if isinstance(error, ArgumentError) else ""
        if key in keys:
            raise InvalidStudy([(f"{table}.{key}", f"{table}.{error}")]) from None
        raise InvalidStudy([(table, f"{table}: {str(error) or type(error).__name__}")]) from None


def source_key(settings: Settings) -> str:
    """Key (JSON) of the source of all samples of a table [data]."""
    return json.dumps({key: value for key, value in settings.items() if key not in _SPLIT_KEYS})


def read_samples(source: str) -> Samples:
    """Read all samples of a source. Raises InvalidStudy if they are missing or damaged."""
    options = json.loads(source)
    name = options.pop("name")
    notes: list[str] = []
    with library_errors("data", options):
        if name == "table":
            X, y, notes = _read_table(options)
        elif name == "arrays":
            X, y = _read_stored(options["file"])
        elif name == "idx":
            X, y = (datasets.idx(options[key]) for key in ("images", "labels"))
            if X.ndim < 2 or y.shape != (len(X),) or len(X) == 0:
                raise ArgumentError(
                    "labels",
                    f"must have shape (N,) for images of shape (N, ...) with N >= 1, "
                    f"got {y.shape} for {X.shape}",
                )
            y = y.astype(np.int64)
        else:
            X, y, *_ = getattr(datasets, name)(**options)
        in_files = "sha256" in TABLES["data"][name]
        return Samples(X, y, _digest(X, y) if in_files else "", tuple(notes))


def _digest(X: NDArray[Any], y: NDArray[Any]) -> str:
    digest = sha256(repr((X.shape, y.shape)).encode())
    for array in (X, y):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def checked_digest(data: Settings, digests: Iterable[str]) -> Settings:
    """Digest of the data. Raises InvalidStudy if the settings demand another one."""
    digest = sha256("".join(digests).encode()).hexdigest()
    if data["sha256"] not in (None, digest):
        text = f"data.sha256 must be the digest of the data, got {data['sha256']}, the data have "
        raise InvalidStudy([("data.sha256", f"{text}{digest}")])
    return {"sha256": digest}


# --- tables ---------------------------------------------------------------------------------------


def _read_table(options: Settings) -> tuple[NDArray[Any], NDArray[Any], list[str]]:
    """Features, not scaled, and targets of a table, with its warnings."""
    path = options.pop("path")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = readers.read(path, readers.Reading(**options, whole_classes=True))
    except ArgumentError as error:
        options["path"] = path  # a key again, so that errors are reported there
        kind, key = type(error), error.argument
        raise kind("path" if key == "source" else key, error.text) from None
    return found.X, found.y, [str(warning.message) for warning in caught]


def subject_of(settings: Settings) -> str:
    """Name of the system or of the data of a study in texts."""
    if "system" in settings:
        return str(settings["system"]["name"])
    return name_of(settings["data"])


def name_of(settings: Settings) -> str:
    """Name of the data in texts."""
    name = str(settings["name"])
    if name == "table":
        return Path(settings["path"]).name if "path" in settings else "tables"
    return name


# --- arrays ---------------------------------------------------------------------------------------


def with_arrays(data: Any) -> tuple[Any, Samples | None]:
    """Split a table [data] of Python into its settings and the samples of its X and y.

    Raises InvalidStudy if the arrays are invalid.
    """
    if not isinstance(data, Mapping) or not {"X", "y"} & set(data):
        return data, None
    rest = {key: value for key, value in data.items() if key not in ("X", "y")}
    for key in ("X", "y"):
        if key not in data:
            raise InvalidStudy([(f"data.{key}", f"data.{key} is missing: X and y belong together")])
    if rest.setdefault("name", "arrays") != "arrays":
        text = f"data.name must be omitted beside X and y, got {_checks.describe(rest['name'])}"
        raise InvalidStudy([("data.name", text)])
    with library_errors("data", ("X", "y")):
        X, y = _checked(data["X"], data["y"])
    return rest, Samples(X, y, _digest(X, y))


def _checked(X: Any, y: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Copies of arrays, as float64, uint8 images, and labels or values."""
    inputs, targets = _checks.array("X", X), _checks.array("y", y)
    if not (inputs.dtype == np.uint8 and inputs.ndim > 2):
        inputs = _checks.floats("X", X)
        if inputs.ndim != 2:
            raise ArgumentError("X", f"must have shape (N, n_features), got {inputs.shape}")
    if targets.dtype.kind in "iu" and targets.ndim == 1:
        targets = targets.astype(np.int64)
        if targets.size and targets.min() < 0:
            text = f"must be labels 0, 1, ... or real values, got {targets.min()}"
            raise ArgumentError("y", text)
    elif targets.dtype.kind in "OUS":
        raise ArgumentError(
            "y",
            "must be labels 0, 1, ... or real values, got "
            f"{_checks.describe(targets.flat[0] if targets.size else targets)}: numpy.unique(y, "
            "return_inverse=True) numbers the classes, or name a table, data={'path': ..., "
            "'target': ...}",
        )
    else:
        targets = _checks.floats("y", y)
    if targets.ndim not in (1, 2) or len(targets) != len(inputs) or not len(inputs):
        raise ArgumentError(
            "y",
            f"must have a row for each of the {len(inputs)} rows of X, at least one, got shape "
            f"{targets.shape}",
        )
    copies = inputs.copy(), targets.copy()
    for array in copies:
        array.setflags(write=False)
    return copies


def _read_stored(file: str | None) -> tuple[NDArray[Any], NDArray[Any]]:
    """Arrays that a study has stored."""
    if file is None:
        raise ArgumentError(
            "file", "is missing: arrays are given in Python, pl.Study(data={'X': X, 'y': y}); a "
            "study file names a table, path = \"data.csv\" or \"data.npz\""
        )  # fmt: skip
    if not Path(file).exists():
        raise MissingPathError("file", f"must be a file, there is no {file!r}")
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return arrays["X"], arrays["y"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:200]
        raise ArgumentError(
            "file", f"must hold the arrays of a study, {file!r} does not: {reason}"
        ) from None


def store_arrays(folder: Path, samples: Samples) -> None:
    """Write the arrays of a study to its folder, unless they are there."""

    def is_valid(path: Path) -> bool:
        return _digest(*_read_stored(str(path))) == samples.digest

    write_arrays(folder / STORED, {"X": samples.X, "y": samples.y}, is_valid)


def write_arrays(
    path: Path, arrays: dict[str, NDArray[Any]], is_valid: Callable[[Path], bool]
) -> None:
    """Write arrays to a file of a study's folder, unless a valid file is there."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise ArgumentError("path", f"must have a regular file {path.name}, got {str(path)!r}")
    if path.exists():
        try:
            if is_valid(path):
                return
        except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile):
            pass  # damaged: written again
    with atomic_write(path) as file:
        write_npz(file, arrays, compressed=False)


def outputs_of(y: NDArray[Any]) -> int:
    """Outputs of a network for these targets."""
    return int(y.max()) + 1 if y.dtype.kind == "i" else math.prod(y.shape[1:])
