"""Readers of local image data: IDX files (MNIST, Fashion-MNIST) and HASYv2."""

from __future__ import annotations

import csv
import gzip
import io
import math
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pylyap._checks import choice, describe, flag, memory
from pylyap._checks import path as as_path
from pylyap._errors import ArgumentError, MissingPathError
from pylyap._extras import require

Bytes: TypeAlias = NDArray[np.uint8]
Labels: TypeAlias = NDArray[np.int64]

_CHUNK = 2**20  # bytes per read, so that memory grows with the file, not with its header
_GZIP_RATIO = 1032  # maximum compression ratio of gzip
_MAX_RANK = 64  # NumPy's limit on the number of axes
_MAX_PNG_BYTES = 2**20  # of an image of 32 x 32 pixels; those of HASYv2 have about 300
_MEMORY_PER_CSV_BYTE = 20  # upper bound, in bytes
_IDX_TYPES = {0x09: "int8", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64"}


def idx(path: str | os.PathLike[str]) -> Bytes:
    """Read an IDX file of unsigned bytes, of any rank, plain or compressed with gzip.

    Parameters
    ----------
    path : path-like
        The file. Compression is detected from its first bytes, not from its name.

    Returns
    -------
    ndarray, uint8
        Array of the shape in the header, in C order, writable.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the path is not a regular file; if the file is not an IDX file of unsigned bytes with at
        least one dimension; if it is longer or shorter than its header states; if it does not fit
        in memory; if it is a truncated or damaged gzip file. The size in the header is compared
        with the memory and the size of the file before the data are read.

    See Also
    --------
    mnist : Images and labels from four IDX files.

    References
    ----------
    The format is part of MNIST: LeCun, Cortes, Burges, The MNIST database of handwritten digits
    (1998).

    Examples
    --------
    >>> from pathlib import Path
    >>> header = bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3])  # two axes of lengths 2 and 3
    >>> n_bytes = Path("small.idx").write_bytes(header + bytes(range(6)))
    >>> pl.datasets.idx("small.idx")
    array([[0, 1, 2],
           [3, 4, 5]], dtype=uint8)
    """
    file = as_path("path", path)
    with _idx_stream(file) as (stream, most):
        return _idx_values(stream, file, _idx_shape(stream, file), most)


def mnist(
    folder: str | os.PathLike[str], part: Literal["train", "test"] = "train"
) -> tuple[Bytes, Labels]:
    r"""Read MNIST or Fashion-MNIST from a folder, images of 28 x 28 grey values in 10 classes.

    Parameters
    ----------
    folder : path-like
        Folder with the files train-images-idx3-ubyte, train-labels-idx1-ubyte,
        t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, plain or with the suffix .gz. Only the
        two files of `part` are needed.
    part : {"train", "test"}, default "train"
        Part of the data: 60,000 training or 10,000 test images, as published.

    Returns
    -------
    images : ndarray, shape (N, 28, 28), uint8
        Grey values, 0 background and 255 full ink. `TrainingMap` accepts them as inputs in [0, 1].
        ``images.reshape(len(images), -1) / 255.0`` are the same inputs in eight times the memory.
    labels : ndarray, shape (N,), int64
        Classes 0 … 9; each occurs.

    Raises
    ------
    FileNotFoundError
        If the folder or a file does not exist.
    ValueError
        If a file is not a valid IDX file (see `idx`), images are not 28 x 28, the numbers of images
        and labels differ, a label is above 9, or a class does not occur.

    References
    ----------
    LeCun, Bottou, Bengio, Haffner, Gradient-based learning applied to document recognition, Proc.
    IEEE 86, 2278 (1998). Xiao, Rasul, Vollgraf, Fashion-MNIST, arXiv:1708.07747 (2017).

    Examples
    --------
    Ten blank images in the files of the test part:

    >>> from pathlib import Path
    >>> shape = bytes([0, 0, 0, 10, 0, 0, 0, 28, 0, 0, 0, 28])
    >>> n_bytes = Path("t10k-images-idx3-ubyte").write_bytes(b"\0\0\x08\3" + shape + bytes(7840))
    >>> labels = bytes([0, 0, 0, 10, *range(10)])
    >>> n_bytes = Path("t10k-labels-idx1-ubyte").write_bytes(b"\0\0\x08\1" + labels)
    >>> images, y = pl.datasets.mnist(".", "test")
    >>> images.shape, y.tolist()
    ((10, 28, 28), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    stem = {"train": "train", "test": "t10k"}[choice("part", part, ("train", "test"))]
    where = _folder(folder)
    images_file = _plain_or_gzip(where, f"{stem}-images-idx3-ubyte")
    labels_file = _plain_or_gzip(where, f"{stem}-labels-idx1-ubyte")
    shape, labels_shape = (
        _shape_of(images_file),
        _shape_of(labels_file),
    )  # before any data are decompressed
    if len(shape) != 3 or shape[1:] != (28, 28):
        raise ValueError(f"{images_file} must hold images of shape (N, 28, 28), got shape {shape}")
    if len(labels_shape) != 1:
        raise ValueError(f"{labels_file} must hold labels of shape (N,), got shape {labels_shape}")
    if shape[0] != labels_shape[0]:
        raise ValueError(
            f"{images_file} and {labels_file} must have one label per image, "
            f"got {shape[0]} images and {labels_shape[0]} labels"
        )
    images, labels = idx(images_file), idx(labels_file)
    if (labels > 9).any():
        first = int(np.argmax(labels > 9))
        raise ValueError(f"{labels_file} must hold labels 0 ... 9, got {labels[first]} at {first}")
    _require_all_classes(labels_file, labels, [str(digit) for digit in range(10)])
    return images, labels.astype(np.int64)


def hasy(
    folder: str | os.PathLike[str],
    *,
    index: str | os.PathLike[str] = "hasy-data-labels.csv",
    symbols: str | os.PathLike[str] | None = "symbols.csv",
    invert: bool = True,
) -> tuple[Bytes, Labels, list[str]]:
    r"""Read HASYv2 from a folder, handwritten mathematical symbols of 32 x 32 binary pixels.

    Parameters
    ----------
    folder : path-like
        The unpacked archive, with hasy-data-labels.csv, symbols.csv and hasy-data/.
    index : path-like, default "hasy-data-labels.csv"
        CSV file that lists the images, relative to `folder`: one row per image, with the columns
        path (relative to the folder of the index), symbol_id and latex.
        ``"classification-task/fold-1/train.csv"`` is the training part of the first fold.
    symbols : path-like or None, default "symbols.csv"
        CSV file that lists the classes, relative to `folder`, with the columns symbol_id and latex.
        Labels then have the same meaning for every index, and each class must occur. With None the
        classes are those that occur in the index.
    invert : bool, default True
        With True ink is 255 and the background 0, as in MNIST. With False black is 0 and white 255,
        as in the files.

    Returns
    -------
    images : ndarray, shape (N, 32, 32), uint8
        Images in the order of the index. HASYv2 has 168,233, which take 172 MB and less than a
        minute.
    labels : ndarray, shape (N,), int64
        Classes 0 … K − 1, numbered by ascending symbol_id. HASYv2 has K = 369.
    names : list of str
        LaTeX code of the K classes.

    Raises
    ------
    ImportError
        If Pillow is not installed; the message names the command that installs it.
    FileNotFoundError
        If the folder, a CSV file or an image does not exist.
    ValueError
        If a CSV file lacks a column or has no rows; if a row has the wrong number of fields; if a
        symbol_id is not a number, is unknown, or has two names; if a path leads out of the folder;
        if an image is not a valid PNG of 32 x 32 grey values; if a class does not occur. The
        message names the file and the line.

    References
    ----------
    M. Thoma, The HASYv2 dataset, arXiv:1701.08380 (2017).

    Examples
    --------
    A folder with a single white image:

    >>> from pathlib import Path
    >>> from PIL import Image
    >>> Image.new("1", (32, 32), 1).save("a.png")
    >>> n_chars = Path("mine.csv").write_text("path,symbol_id,latex\na.png,7,\\alpha\n")
    >>> images, labels, names = pl.datasets.hasy(".", index="mine.csv", symbols=None)
    >>> images.shape, labels.tolist(), names
    ((1, 32, 32), [0], ['\\alpha'])
    """
    pillow = _pillow()
    where = _folder(folder)
    flag("invert", invert)
    index_path = _inside("index", index)
    index_file = where / index_path
    start = os.path.dirname(index_path)
    paths: list[str] = []
    lines: list[int] = []
    ids: list[int] = []
    known = None if symbols is None else _symbols(where / _inside("symbols", symbols))
    found: dict[int, str] = {}
    for line, (path, symbol, latex) in _table("index", index_file, ("path", "symbol_id", "latex")):
        at = f"{index_file}, line {line}"
        number = _symbol_id(at, symbol)
        if known is not None and number not in known:
            raise ValueError(f"{at}: symbol_id must be one of {symbols}, got {number}")
        name = (found if known is None else known).get(number, latex)
        if latex != name:
            raise ValueError(f"{at}: latex must be {name!r} as elsewhere, got {describe(latex)}")
        found[number] = latex
        paths.append(_inside(f"{at}: path", path, start))
        lines.append(line)
        ids.append(number)
    classes = found if known is None else known
    order = sorted(classes)
    names = [classes[number] for number in order]
    labels = np.searchsorted(order, ids).astype(np.int64)
    _require_all_classes(index_file, labels, names)

    memory(f"{len(paths)} images", 1024.0 * len(paths), "use a shorter index")
    images = np.empty((len(paths), 32, 32), dtype=np.uint8)
    for image, path, line in zip(images, paths, lines, strict=True):
        file = where / path
        at = f"{index_file}, line {line}: path"
        if _regular(at, file, "a PNG image") > _MAX_PNG_BYTES:
            raise ValueError(f"{at} must be a PNG image of 32 x 32 pixels, {file} is too long")
        image[:] = _png(pillow, file, file.read_bytes())
    if invert:
        np.invert(images, out=images)  # 255 - v for uint8
    return images, labels, names


@contextmanager
def _idx_stream(file: Path) -> Iterator[tuple[io.BufferedIOBase, int]]:
    """Decompressed bytes of an IDX file, and an upper bound on their number."""
    _regular("path", file, "an IDX file")
    with file.open("rb") as raw:
        size = os.fstat(raw.fileno()).st_size
        if raw.peek(2)[:2] != b"\x1f\x8b":
            yield raw, size
            return
        try:
            with gzip.GzipFile(fileobj=raw, mode="rb") as unpacked:
                yield unpacked, size * _GZIP_RATIO
        except EOFError:
            raise ValueError(f"{file} is a truncated gzip file: it ends too early") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{file} is a damaged gzip file: {error}") from error


def _shape_of(file: Path) -> tuple[int, ...]:
    with _idx_stream(file) as (stream, _):
        return _idx_shape(stream, file)


def _idx_shape(stream: io.BufferedIOBase, file: Path) -> tuple[int, ...]:
    """Shape in the header."""
    magic = stream.read(4)
    if len(magic) < 4:
        raise ValueError(f"{file} must begin with an IDX header, it ends after {len(magic)} bytes")
    code, rank = magic[2:]
    if magic[:2] != b"\0\0":
        raise ValueError(
            f"{file} must be an IDX file, plain or gzip, and begin with the bytes 00 00 08, "
            f"got {magic[:3].hex(' ')}",
        )
    if code != 0x08:
        kind = f"{_IDX_TYPES[code]}, type " if code in _IDX_TYPES else ""
        raise ValueError(f"{file} must hold unsigned bytes, IDX type 0x08, got {kind}{code:#04x}")
    if not 1 <= rank <= _MAX_RANK:
        raise ValueError(f"{file} must have 1 ... {_MAX_RANK} dimensions, got {rank}")
    header = stream.read(4 * rank)
    if len(header) < 4 * rank:
        raise ValueError(
            f"{file} must give {rank} dimensions of 4 bytes, "
            f"it ends after {len(header)} of their bytes",
        )
    return struct.unpack(f">{rank}I", header)


def _idx_values(stream: io.BufferedIOBase, file: Path, shape: tuple[int, ...], most: int) -> Bytes:
    """Array after the header."""
    size = math.prod(shape)
    promised = f"{' x '.join(map(str, shape))} bytes as stated in its header"
    memory(f"{file}, {promised},", float(min(size, 2**64)), "is the header right?")
    if size > max(most, _CHUNK):  # a smaller file is read to its end
        raise ValueError(f"{file} must hold {promised}, it cannot hold more than {most}")
    data = bytearray()
    while len(data) < size and (chunk := stream.read(min(size - len(data), _CHUNK))):
        data += chunk
    if len(data) < size:
        raise ValueError(f"{file} must hold {promised}, it ends after {len(data)} of {size}")
    if stream.read(1):  # also makes gzip verify its checksum
        raise ValueError(f"{file} must hold {promised}, it goes on after these {size}")
    try:
        return np.frombuffer(data, dtype=np.uint8).reshape(shape)
    except ValueError:  # one length is 0 and the product of the others too large for NumPy
        raise ValueError(f"{file} must hold an array, got {promised}") from None


def _plain_or_gzip(folder: Path, name: str) -> Path:
    for file in (folder / name, folder / f"{name}.gz"):
        if file.is_file():
            return file
    raise MissingPathError("folder", f"must hold {name} or {name}.gz, {folder} has neither")


def _symbols(file: Path) -> dict[int, str]:
    """LaTeX code of each symbol_id."""
    classes: dict[int, str] = {}
    for line, (symbol, latex) in _table("symbols", file, ("symbol_id", "latex")):
        number = _symbol_id(f"{file}, line {line}", symbol)
        if number in classes:
            raise ValueError(f"{file}, line {line}: symbol_id {number} must occur once")
        classes[number] = latex
    return classes


def _symbol_id(at: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ValueError(f"{at}: symbol_id must be a number, got {describe(text)}")
    return int(text)


def _table(argument: str, file: Path, columns: tuple[str, ...]) -> list[tuple[int, list[str]]]:
    """Selected columns of a CSV file with a header: (line number, fields) of each row."""
    rows: list[tuple[int, list[str]]] = []
    hint = ", or None for the classes of the index" if argument == "symbols" else ""
    size = _regular(argument, file, f"a CSV file{hint}")
    memory(f"{argument} {file}", float(size * _MEMORY_PER_CSV_BYTE), "use a shorter list")
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            header = next(reader, [])
            missing = [column for column in columns if column not in header]
            if missing:
                raise ValueError(
                    f"{file} must have the columns {', '.join(columns)}, it lacks "
                    f"{', '.join(missing)}: its first line is {describe(','.join(header))}",
                )
            places = [header.index(column) for column in columns]
            for row in reader:
                if not row:  # an empty line
                    continue
                if len(row) != len(header):
                    raise ValueError(
                        f"{file}, line {reader.line_num}: must have {len(header)} fields as the "
                        f"first line has, got {len(row)}"
                    )
                rows.append((reader.line_num, [row[place] for place in places]))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ArgumentError(
            argument, f"must be a CSV file in UTF-8, {file} is not: {error}"
        ) from error
    if not rows:
        raise ValueError(f"{file} must have rows below its header, it has none")
    return rows


def _png(pillow: Any, file: Path, data: bytes) -> Bytes:
    """Grey values of a PNG of 32 x 32 pixels."""
    if data[:8] != b"\x89PNG\r\n\x1a\n" or len(data) < 33:
        raise ValueError(f"{file} must be a PNG image, it is none or truncated")
    for n, (width, height) in enumerate(_png_sizes(data)):  # before anything is decoded
        if (width, height) != (32, 32):
            raise ValueError(f"{file} must have 32 x 32 pixels, got {width} x {height}")
        if n > 0:
            raise ValueError(f"{file} must be a whole PNG image, it has two headers")
    try:
        with pillow.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.verify()  # checks the checksums, which decoding ignores
        with pillow.open(io.BytesIO(data), formats=["PNG"]) as image:
            mode = str(image.mode)
            pixels = np.asarray(image.convert("L") if mode == "1" else image)
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises many types, such as DecompressionBombError
        raise ValueError(f"{file} must be a whole PNG image, it is damaged") from error
    if mode not in ("1", "L", "RGB"):
        raise ValueError(f"{file} must be a PNG of mode 1, L or RGB, got mode {mode}")
    if pixels.shape[:2] != (32, 32):
        height, width = pixels.shape[:2]
        raise ValueError(f"{file} must have 32 x 32 pixels, got {width} x {height} once decoded")
    if pixels.ndim == 3:
        if (pixels != pixels[:, :, :1]).any():
            raise ValueError(f"{file} must be grey, got colours")
        pixels = pixels[:, :, 0]
    return pixels


def _png_sizes(data: bytes) -> Iterator[tuple[int, int]]:
    """Width and height in each header of a PNG; a valid file has one, as its first chunk."""
    place = 8
    while place + 16 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        # The first chunk counts as a header whatever its name, so there is at least one.
        if place == 8 or data[place + 4 : place + 8] == b"IHDR":
            yield struct.unpack(">II", data[place + 8 : place + 16])
        place += 12 + length


def _pillow() -> Any:
    """Pillow's Image module; the ImportError names the command that installs it."""
    require("PIL", extra="images", for_="hasy")
    from PIL import Image

    return Image


def _require_all_classes(file: Path, labels: NDArray[Any], names: list[str]) -> None:
    counts = np.bincount(labels, minlength=len(names))
    missing = [name for name, count in zip(names, counts, strict=True) if count == 0]
    if missing:
        listed = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
        raise ValueError(
            f"{file} must have each of its {len(names)} classes, "
            f"{len(missing)} do not occur: {listed}",
        )


def _regular(argument: str, file: Path, what: str) -> int:
    """Size of a regular file; raises an error for anything else."""
    try:
        found = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{argument} must be {what}, there is no {file}") from None
    except ValueError:  # a null character
        raise ArgumentError(argument, f"must be {what}, got {describe(str(file))}") from None
    if stat.S_ISDIR(found.st_mode):
        raise ArgumentError(argument, f"must be {what}, {file} is a folder")
    if not stat.S_ISREG(found.st_mode):
        raise ArgumentError(argument, f"must be {what}, {file} is a device or a pipe")
    return found.st_size


def _folder(value: Any) -> Path:
    folder = as_path("folder", value)
    if not folder.exists():
        raise MissingPathError("folder", f"must be a folder, there is no {folder}")
    if not folder.is_dir():
        raise ArgumentError("folder", f"must be a folder, {str(folder)!r} is a file")
    return folder


def _inside(name: str, path: Any, start: str = "") -> str:
    """`path`, relative to `start`, as a path relative to the folder, which it must not leave."""
    if isinstance(path, str) and "\0" in path:
        raise ArgumentError(name, f"must lead to a file inside the folder, got {describe(path)}")
    joined = os.path.normpath(os.path.join(start, as_path(name, path)))
    if os.path.isabs(joined) or joined.split(os.sep)[0] == os.pardir:
        raise ArgumentError(name, f"must lead to a file inside the folder, got {describe(path)}")
    return joined
