"""Tables as data: CSV, TSV, Parquet, .npz, data frames and dictionaries of columns."""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import os
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pylyap import _checks
from pylyap._checks import Floats, describe
from pylyap._errors import ArgumentError, ArgumentTypeError, MissingPathError
from pylyap._extras import require

Flags = NDArray[np.bool_]

# Ratio of the standard deviations of two features above which scaling them is worth a warning.
_SCALES = 100.0

# Targets of more classes than this, and more than half the rows, are no classes.
_CLASSES = 20

# Bytes per value while a table is read: the frame, its columns as float64, the features, and parts
# of these. Largest resident size for 10⁶ rows of 13 columns, pandas 3.1 and pyarrow 26, November
# 2026: 26 to 35 from text, 45 to 48 from Parquet, 24 from .npz.
_READING = 48.0

_LISTED = 8  # names of columns in a message

_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
_UNNAMED = "Unnamed: "  # names that pandas gives to columns without one

_SAMPLE = 1 << 20  # bytes of a text file that tell its separator and number of values

_TEXT = (".csv", ".tsv", ".tab", ".txt")
_PARQUET = (".parquet", ".pq")
_FORMATS = ".csv, .tsv, .txt (also .gz), .parquet, .npz"


class Labels(np.ndarray[Any, np.dtype[np.int64]]):
    """Integer labels with the names of the classes.

    Attributes
    ----------
    names : tuple of str
        Name of class 0, 1, ...
    """

    names: tuple[str, ...]

    def __new__(cls, labels: NDArray[np.int64], names: Sequence[str]) -> Labels:
        array = np.asarray(labels, np.int64).view(cls)
        array.names = tuple(names)
        return array

    def __array_finalize__(self, other: Any) -> None:
        self.names = getattr(other, "names", ())

    def __reduce__(self) -> tuple[Any, ...]:
        return Labels, (np.asarray(self), self.names)


def table(
    source: Any,
    target: str | Sequence[str],
    features: str | Sequence[str] | None = None,
    standardize: bool = False,
    drop_missing: bool = False,
    *,
    classes: bool | None = None,
    sep: str | None = None,
    decimal: str = ".",
) -> tuple[Floats, NDArray[Any]]:
    """Read a table: features and targets from a file or a data frame.

    Parameters
    ----------
    source : path, DataFrame or mapping
        A file (.csv, .tsv or .txt, also with .gz; .parquet; .npz), a data frame of pandas or
        polars, or a mapping of names to columns. Files but .npz are read with pandas, Parquet
        with pyarrow (the extra ``tables``).
    target : str or list of str
        Column of the targets; several for a regression with several outputs.
    features : str or list of str, optional
        Columns of the inputs. By default all but the target. An array of .npz or of a mapping may
        have two axes; its columns are then features.
    standardize : bool, default False
        Shift and scale each feature to mean 0 and population standard deviation 1 of all rows.
        Targets are left as they are.
    drop_missing : bool, default False
        Leave out the rows with missing values; by default they are refused.
    classes : bool, optional
        Whether targets are classes, to be numbered 0, 1, ... in the order of their sorted values.
        By default strings, categories and booleans are, and numbers are not.
    sep : str, optional
        Separator of the columns of a text file. By default a tab for .tsv, else whichever of
        comma, semicolon and tab the first line has most of.
    decimal : str, default "."
        Decimal sign of a text file.

    Returns
    -------
    X : ndarray of float64, shape (N, n_features)
        Features.
    y : ndarray, shape (N,) or (N, n_targets)
        float64 values, int64 for a column of integers, or int64 labels; labels of classes have
        their names in ``y.names``.

    Raises
    ------
    ArgumentError
        If the file is missing, empty or of another kind, a column does not exist, values are
        missing or not numeric, or there is one class only.

    Warns
    -----
    UserWarning
        If a feature or target is constant, a feature equals another one or numbers the rows, or
        features differ by more than a factor of 100 (in standard deviations) and `standardize` is
        not asked for.

    Examples
    --------
    >>> import pylyap as pl
    >>> wine = {"alcohol": [12.8, 13.2, 12.1], "hue": [1.0, 1.1, 0.9], "kind": ["b", "a", "b"]}
    >>> X, y = pl.datasets.table(wine, target="kind", standardize=True)
    >>> X.shape, y.tolist(), y.names
    ((3, 2), [1, 0, 1], ('a', 'b'))
    """
    for name, value in (("standardize", standardize), ("drop_missing", drop_missing)):
        _checks.flag(name, value)
    if classes is not None:
        _checks.flag("classes", classes)
    for name, text in (("sep", "," if sep is None else sep), ("decimal", decimal)):
        if not isinstance(text, str):
            raise ArgumentTypeError(name, f"must be a string, got {describe(text)}")
        if len(text) != 1:
            raise ArgumentError(name, f"must be one character, got {describe(text)}")
    found = read(
        source, Reading(target, features, standardize, drop_missing, classes, sep, decimal)
    )
    X = scaled(found.X, found.X)[0] if standardize else found.X
    return np.ascontiguousarray(X), found.y


@dataclass(frozen=True)
class Reading:
    """How a table is read: the arguments of `table` but its source.

    `whole_classes`: integers are classes, unless `classes` is False.
    """

    target: str | Sequence[str]
    features: str | Sequence[str] | None = None
    standardize: bool = False
    drop_missing: bool = False
    classes: bool | None = None
    sep: str | None = None
    decimal: str = "."
    whole_classes: bool = False


class Table(NamedTuple):
    """Features, not scaled, targets, and the names of the features."""

    X: Floats
    y: NDArray[Any]
    features: list[str]


def read(source: Any, how: Reading) -> Table:
    """Read a table. Warns as `table` does; does not scale."""
    columns = column_arrays(source, how.sep, how.decimal)
    features, classes = how.features, how.classes
    targets = _chosen("target", how.target, columns)
    if features is None:
        inputs = [name for name in columns if name not in targets]
    else:
        inputs = _chosen("features", features, columns)
        both = [name for name in inputs if name in targets]
        if both:
            raise ArgumentError("features", f"must not hold the target, got {both[0]!r}")
    if not inputs:
        raise ArgumentError(
            "features", f"must be at least one column beside the target, of {len(columns)} columns"
        )
    kept = _without_missing(columns, [*inputs, *targets], how.drop_missing)
    X = np.stack([_numbers("features", name, columns[name][kept]) for name in inputs], axis=1)
    if len(targets) == 1:
        y = _target(targets[0], columns[targets[0]], kept, classes, how.whole_classes)
    elif classes:
        raise ArgumentError("target", f"must be one column for classes, got {len(targets)}")
    else:
        y = np.stack([_numbers("target", name, columns[name][kept]) for name in targets], axis=1)
    _warn(X, inputs, how.standardize)
    if y.dtype.kind == "f" and (np.ptp(y, axis=0) == 0.0).any():
        _note(f"constant target: {short_list(targets)}")
    return Table(X, y, inputs)


def scaled(reference: Floats, *parts: Floats) -> list[Floats]:
    """Parts, shifted and scaled by mean and population standard deviation of the reference.

    Constant features are shifted only.
    """
    scale = np.where(np.ptp(reference, axis=0) == 0.0, 1.0, reference.std(axis=0))
    mean = reference.mean(axis=0)
    return [(part - mean) / scale for part in parts]


# --- columns --------------------------------------------------------------------------------------

Columns = dict[str, NDArray[Any]]  # names and columns of N values, in the order of the source


def column_arrays(source: Any, sep: str | None = None, decimal: str = ".") -> Columns:
    """The columns of a table."""
    if isinstance(source, (str, os.PathLike)):
        return _of_file(_checks.file("source", source), sep, decimal)
    if hasattr(source, "to_pandas") and not hasattr(source, "iloc"):  # polars, pyarrow
        source = source.to_pandas()
    if hasattr(source, "iloc") and hasattr(source, "columns"):
        return _of_frame(source)
    if isinstance(source, Mapping):
        return _of_arrays({str(name): np.asarray(source[name]) for name in source})
    raise ArgumentTypeError(
        "source", f"must be a path, a DataFrame or a mapping of columns, got {describe(source)}"
    )


def _of_file(path: Path, sep: str | None, decimal: str) -> Columns:
    if not path.exists():
        near = difflib.get_close_matches(path.name, _siblings(path), n=1)
        hint = f"; did you mean {str(path.with_name(near[0]))!r}?" if near else ""
        raise MissingPathError("source", f"must be a file, there is no {str(path)!r}{hint}")
    if not path.is_file():
        raise ArgumentError("source", f"must be a file, got {str(path)!r}")
    if path.stat().st_size == 0:
        raise ArgumentError("source", f"must hold a table, {str(path)!r} is empty")
    suffix = (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()
    if suffix not in (".npz", *_TEXT, *_PARQUET):
        raise ArgumentError("source", f"must be one of {_FORMATS}, got {path.name!r}")
    modules = ("pandas", "pyarrow") if suffix in _PARQUET else ("pandas",)
    if suffix != ".npz":
        require(*modules, extra="tables", for_=f"reading {suffix} files")
    try:
        n_values = _value_count(path, suffix)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise _damaged(path, error) from None
    _checks.memory(f"reading {path.name}", _READING * n_values, "take fewer rows or columns")
    return _of_npz(path) if suffix == ".npz" else _of_frame(_read_frame(path, suffix, sep, decimal))


def _value_count(path: Path, suffix: str) -> float:
    """Approximate number of values of a file, by its size and its first lines."""
    if suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            return float(sum(member.file_size for member in archive.infolist())) / 8
    if suffix in _PARQUET:
        from pyarrow import parquet

        about = parquet.read_metadata(path)
        return float(about.num_rows * about.num_columns)
    n_bytes = path.stat().st_size
    if path.suffix == ".gz":
        with path.open("rb") as file:  # the size of the text, modulo 4 GiB, is at the end
            file.seek(-min(n_bytes, 4), os.SEEK_END)
            n_bytes = max(n_bytes, int.from_bytes(file.read(), "little"))
    with _open(path) as file:
        sample = file.read(_SAMPLE)
    marks = sum(sample.count(mark) for mark in (b",", b";", b"\t", b"\n"))
    return float(n_bytes * (marks + 1) / max(1, len(sample)))


def _open(path: Path) -> Any:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _damaged(path: Path, error: Exception) -> ArgumentError:
    reason = " ".join(str(error).split())[:200]
    return ArgumentError("source", f"must hold a table, {str(path)!r} does not: {reason}")


def _read_frame(path: Path, suffix: str, sep: str | None, decimal: str) -> Any:
    """A text or Parquet file as a DataFrame of pandas."""
    import pandas

    try:
        if suffix in _PARQUET:
            return pandas.read_parquet(path)
        sep = sep or ("\t" if suffix == ".tsv" else _separator(path))
        with warnings.catch_warnings():
            warnings.simplefilter("error", pandas.errors.ParserWarning)
            return pandas.read_csv(
                path, sep=sep, decimal=decimal, encoding="utf-8-sig", skipinitialspace=True,
                index_col=False,
            )  # fmt: skip
    except pandas.errors.ParserWarning:
        raise ArgumentError(
            "source",
            f"must have a name for each column, rows of {str(path)!r} have more values than its "
            "first row has names",
        ) from None
    except (MemoryError, ImportError):
        raise
    except Exception as error:  # whatever the readers raise for damaged content
        raise _damaged(path, error) from None


def _siblings(path: Path) -> list[str]:
    try:
        return [file.name for file in path.parent.iterdir()][:10_000]
    except OSError:
        return []


def _separator(path: Path) -> str:
    """Of comma, semicolon and tab the one that the first row has most of outside of quotes."""
    with _open(path) as file:
        text = file.read(_SAMPLE).decode("utf-8-sig", errors="replace")

    def count(mark: str) -> int:
        return len(next(csv.reader(io.StringIO(text, newline=""), delimiter=mark), []))

    return max(",;\t", key=count)


def _of_npz(path: Path) -> Columns:
    try:
        with np.load(path, allow_pickle=False) as file:
            return _of_arrays({name: file[name] for name in file.files})
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        if isinstance(error, ArgumentError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise ArgumentError(
            "source", f"must hold arrays of numbers, {str(path)!r} does not: {reason}"
        ) from None


def _of_arrays(arrays: dict[str, NDArray[Any]]) -> Columns:
    """Arrays of one axis are columns; of two axes, as many as they have."""
    found: Columns = {}
    for name, array in arrays.items():
        if array.ndim == 1:
            found[name] = array
        elif array.ndim == 2:
            found |= {f"{name}[{j}]": column for j, column in enumerate(array.T)}
        else:
            raise ArgumentError(
                "source", f"must hold arrays of one or two axes, {name!r} has shape {array.shape}"
            )
    lengths = {name: len(column) for name, column in found.items()}
    if len(set(lengths.values())) > 1:
        usual = Counter(lengths.values()).most_common(1)[0][0]
        name = next(name for name, length in lengths.items() if length != usual)
        raise ArgumentError(
            "source",
            f"must have columns of one length, {name!r} has {lengths[name]} and others {usual}",
        )
    return _not_empty(found)


def _of_frame(frame: Any) -> Columns:
    names = [str(name) for name in frame.columns]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ArgumentError(
            "source", f"must have columns of different names, got {twice[0]!r} twice"
        )
    return _not_empty({name: _of_series(frame.iloc[:, j]) for j, name in enumerate(names)})


def _of_series(series: Any) -> NDArray[Any]:
    """Values of a column of pandas; missing ones are nan in numbers and None elsewhere."""
    kind = getattr(series.dtype, "kind", "O")
    if kind in "iufb" and hasattr(series.dtype, "numpy_dtype"):  # nullable, or of pyarrow
        if series.isna().any():
            return np.asarray(series.to_numpy(dtype=object, na_value=None))
        return np.asarray(series.to_numpy(dtype=series.dtype.numpy_dtype))
    values = np.asarray(series)
    if values.dtype.kind in "iufb":
        return values
    missing = np.asarray(series.isna())
    values = values.astype(object)
    values[missing] = None
    return values


def _not_empty(columns: Columns) -> Columns:
    if not columns or len(next(iter(columns.values()))) == 0:
        raise ArgumentError("source", f"must have rows, got {len(columns)} columns and no rows")
    return columns


def _chosen(argument: str, given: Any, columns: Columns) -> list[str]:
    """Names of columns; the name of an array of two axes stands for all its columns."""
    wanted = (
        [given] if isinstance(given, str) else _checks.sequence(argument, given, "names of columns")
    )
    found: list[str] = []
    for name in wanted:
        parts = [column for column in columns if column.startswith(f"{name}[")]
        if isinstance(name, str) and name in columns:
            found.append(name)
        elif parts:
            found += parts
        else:
            hint = _checks.suggestion(str(name), columns)
            raise ArgumentError(
                argument,
                f"must be of the columns {short_list(list(columns))}, "
                f"got {describe(name)}{hint and f'; {hint}'}",
            )
    twice = [name for name, count in Counter(found).items() if count > 1]
    if twice or not found:
        came = f"{twice[0]!r} twice" if twice else "none"
        raise ArgumentError(argument, f"must be different columns, at least one, got {came}")
    return found


# --- values ---------------------------------------------------------------------------------------


def _missing(column: NDArray[Any]) -> Flags:
    if column.dtype.kind == "f":
        flags: Flags = np.isnan(column)
        return flags
    if column.dtype.kind == "O":
        return np.array([entry is None or entry != entry for entry in column], bool)
    return np.zeros(len(column), bool)


def _without_missing(columns: Columns, used: list[str], drop: bool) -> Flags:
    """The rows that have a value in each of the columns."""
    missing = np.stack([_missing(columns[name]) for name in used], axis=1)
    rows: Flags = np.asarray(missing.any(axis=1))
    if rows.any() and not drop:
        row, j = np.argwhere(missing)[0]
        more = int(missing.sum()) - 1
        besides = f", and {more} more in {int(missing.any(axis=0).sum())} columns" if more else ""
        raise ArgumentError(
            "source",
            f"must have no missing values, row {row} of {used[j]!r} has none{besides} (the first "
            "row is 0): drop_missing=True (--drop-missing) leaves such rows out",
        )
    if rows.all():
        raise ArgumentError("source", "must have rows without missing values, all have some")
    kept: Flags = ~rows
    return kept


def _numbers(argument: str, name: str, column: NDArray[Any]) -> Floats:
    if column.dtype.kind in "iufb":
        numbers = column.astype(np.float64)
    else:
        try:
            numbers = np.array([_number(entry) for entry in column])
        except (TypeError, ValueError):
            row = _first_text(column)
            advice = "leave it out, or encode it, for example with pandas.get_dummies"
            if _DECIMAL_COMMA.fullmatch(str(column[row]).strip()):
                advice = "decimal=',' (--decimal ,) reads decimal commas"
            raise ArgumentError(
                argument,
                f"must be columns of numbers, {name!r} has {describe(column[row])} in row {row}: "
                f"{advice}",
            ) from None
    if not np.isfinite(numbers).all():
        row = int(np.argmin(np.isfinite(numbers)))
        raise ArgumentError(argument, f"must be finite, {name!r} has {numbers[row]} in row {row}")
    return numbers


def _number(entry: Any) -> float:
    if isinstance(entry, (str, complex)):
        raise TypeError
    return float(entry)


def _first_text(column: NDArray[Any]) -> int:
    """The first entry that is no number: in a column of strings, the first that spells none."""
    for row, entry in enumerate(column):
        try:
            float(entry)
        except (TypeError, ValueError):
            return row
    return next(row for row, entry in enumerate(column) if not _is_number(entry))


def _is_number(entry: Any) -> bool:
    try:
        _number(entry)
    except (TypeError, ValueError):
        return False
    return True


def _target(
    name: str, whole: NDArray[Any], kept: Flags, classes: bool | None, whole_classes: bool
) -> NDArray[Any]:
    """Targets in the rows that are kept: labels of classes, integers or numbers."""
    column = whole[kept]
    if column.dtype.kind == "f" and _missing(whole).any() and (column == np.round(column)).all():
        column = column.astype(np.int64)  # integers, which missing values had made floats
    if classes is None:
        classes = column.dtype.kind not in "iuf" and not all(map(_is_plain_number, column))
        classes = classes or (whole_classes and column.dtype.kind in "iu")
    if classes:
        return _labels(name, column)
    if column.dtype.kind in "iu" and not whole_classes:
        return column.astype(np.int64)
    return _numbers("target", name, column)


def _is_plain_number(entry: Any) -> bool:
    return _is_number(entry) and not isinstance(entry, (bool, np.bool_))


def _labels(name: str, column: NDArray[Any]) -> Labels:
    values = column.tolist()
    kinds = {isinstance(value, str) for value in values}
    if len(kinds) > 1:
        entry = next(value for value in values if not isinstance(value, str))
        raise ArgumentError(
            "target", f"must be classes of one type, {name!r} has strings and {describe(entry)}"
        )
    try:
        known = sorted(set(values))
    except TypeError:
        raise ArgumentError(
            "target", f"must be classes, {name!r} has {describe(values[0])}"
        ) from None
    if len(known) < 2:
        raise ArgumentError(
            "target", f"must have at least two classes, {name!r} has {known[0]!r} alone"
        )
    if len(known) > max(_CLASSES, len(values) / 2):
        raise ArgumentError(
            "target",
            f"must have several rows for each class, {name!r} has {len(known)} different values in "
            f"{len(values)} rows; classes=False (--values) reads numbers as values, decimal=',' "
            "(--decimal ,) decimal commas",
        )
    index = {value: i for i, value in enumerate(known)}
    return Labels(np.array([index[value] for value in values]), [str(value) for value in known])


def _warn(X: Floats, names: list[str], standardize: bool) -> None:
    """Warn of features that are constant, equal, of different scale, or number the rows."""
    spread = X.std(axis=0)
    constant: Flags = np.ptp(X, axis=0) == 0.0
    listed = [name for name, same in zip(names, constant, strict=True) if same]
    if listed:
        _note(f"constant features: {short_list(listed)}")
    for j, name in enumerate(names):
        if name.startswith(_UNNAMED) and (np.diff(X[:, j]) == 1).all():
            _note(
                f"feature {name!r} has no name and numbers the rows; features= (--features) "
                "leaves it out"
            )
    seen: dict[bytes, str] = {}
    for j, name in enumerate(names):
        first = seen.setdefault(blake2b(X[:, j].tobytes()).digest(), name)
        if first != name:
            _note(f"feature {name!r} equals {first!r}")
    varied = spread[~constant]
    if not standardize and varied.size and varied.max() > _SCALES * varied.min():
        low, high = (
            names[j] for j in (np.where(constant, np.inf, spread).argmin(), spread.argmax())
        )
        _note(
            f"features differ in scale: the standard deviation of {high!r} is "
            f"{varied.max() / varied.min():.3g} times that of {low!r}; standardize=True "
            "(--standardize) scales them"
        )


def short_list(names: list[str]) -> str:
    """The first names and the last one, quoted."""
    if len(names) <= _LISTED:
        return ", ".join(map(repr, names))
    return f"{', '.join(map(repr, names[: _LISTED - 1]))}, ..., {names[-1]!r}"


def _note(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=5)
