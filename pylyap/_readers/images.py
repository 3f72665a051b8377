"""Images from a folder on this machine: IDX files (MNIST and its kin) and HASYv2."""

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

Bytes: TypeAlias = NDArray[np.uint8]
Labels: TypeAlias = NDArray[np.int64]

_CHUNK = 2**20  # bytes asked for at once: what a header promises is never allocated unseen
_GZIP_RATIO = 1032  # bytes that one byte of a gzip file can stand for, at most
_MAX_RANK = 64  # NumPy's own
_PNG_BYTES = 2**20  # of an image file of 32 x 32 pixels, at most; those of HASYv2 have some 300
_ROW_BYTES = 20  # of memory for a byte of a CSV file, at most
_IDX_TYPES = {0x09: "int8", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64"}


def idx(path: str | os.PathLike[str]) -> Bytes:
    """The array in an IDX file of unsigned bytes, of any rank, plain or gzip.

    Parameters
    ----------
    path
        The file. Whether it is compressed is told by its first bytes, not by its name.

    Returns
    -------
    uint8 array
        In the shape the header gives, C order, free to be written to.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is a folder, a pipe or a device, no IDX file, one of another type than unsigned bytes
        or of no dimension, if it holds fewer or more bytes than its header says or more than memory
        takes, or if it is a truncated or damaged gzip file. What the header says is held against
        memory and the size of the file before anything is read or unpacked.

    References
    ----------
    The format is part of MNIST: LeCun, Cortes, Burges, The MNIST database of handwritten digits
    (1998).
    """
    file = _path("path", path)
    with _idx_stream(file) as (stream, most):
        return _idx_values(stream, file, _idx_shape(stream, file), most)


def mnist(
    folder: str | os.PathLike[str], part: Literal["train", "test"] = "train"
) -> tuple[Bytes, Labels]:
    """MNIST or Fashion-MNIST from a folder: pictures of 10 classes, 28 x 28 grey values each.

    Parameters
    ----------
    folder
        Where the files are, under the names that both data sets use: train-images-idx3-ubyte,
        train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, as they are or
        as .gz. Those of the part asked for are enough.
    part
        ``"train"``, 60,000 images as published, or ``"test"``, 10,000.

    Returns
    -------
    images : (N, 28, 28) uint8 array
        0 is background, 255 full ink. `TrainingMap` takes them as they are, for inputs in [0, 1];
        ``images.reshape(len(images), -1) / 255.0`` are the same in eight times the memory.
    labels : (N,) int64 array
        Classes 0 ... 9; each occurs.

    Raises
    ------
    FileNotFoundError
        If the folder or a file is missing.
    ValueError
        If a file is none of its kind (see `idx`), images are not 28 x 28, there are more or fewer
        labels than images, a label is above 9, or a class has no image.

    References
    ----------
    LeCun, Bottou, Bengio, Haffner, Gradient-based learning applied to document recognition, Proc.
    IEEE 86, 2278 (1998). Xiao, Rasul, Vollgraf, Fashion-MNIST, arXiv:1708.07747 (2017).
    """
    stem = {"train": "train", "test": "t10k"}[choice("part", part, ("train", "test"))]
    where = _folder(folder)
    images_file = _plain_or_gzip(where, f"{stem}-images-idx3-ubyte")
    labels_file = _plain_or_gzip(where, f"{stem}-labels-idx1-ubyte")
    shape, of_labels = _shape_of(images_file), _shape_of(labels_file)  # before any is unpacked
    if len(shape) != 3 or shape[1:] != (28, 28):
        raise ValueError(f"{images_file} must hold images of shape (N, 28, 28), got shape {shape}")
    if len(of_labels) != 1:
        raise ValueError(f"{labels_file} must hold labels of shape (N,), got shape {of_labels}")
    if shape[0] != of_labels[0]:
        raise ArgumentError(
            "images",
            f"and labels must be equal in number, got {shape[0]} images in {images_file} "
            f"and {of_labels[0]} labels in {labels_file}",
        )
    images, labels = idx(images_file), idx(labels_file)
    if (labels > 9).any():
        first = int(np.argmax(labels > 9))
        raise ValueError(f"{labels_file} must hold labels 0 ... 9, got {labels[first]} at {first}")
    _all_occur(labels_file, labels, [str(digit) for digit in range(10)])
    return images, labels.astype(np.int64)


def hasy(
    folder: str | os.PathLike[str],
    *,
    index: str | os.PathLike[str] = "hasy-data-labels.csv",
    symbols: str | os.PathLike[str] | None = "symbols.csv",
    invert: bool = True,
) -> tuple[Bytes, Labels, list[str]]:
    """HASYv2 from a folder: handwritten mathematical symbols, 32 x 32 black-and-white pixels each.

    Parameters
    ----------
    folder
        Where the archive was unpacked: it holds hasy-data-labels.csv, symbols.csv and hasy-data/.
    index
        The CSV file that lists the images, from `folder`: one row per image, with the columns path
        (from where the index is), symbol_id and latex. ``"classification-task/fold-1/train.csv"``
        is the training part of the first fold.
    symbols
        The CSV file that lists the classes, from `folder`, with the columns symbol_id and latex:
        with it, labels mean the same in every index, and each class must occur. With None the
        classes are those that the index has, as for a selection of one's own.
    invert
        With True ink is 255 on a background of 0, as in MNIST; with False black is 0 and white
        255, as in the files.

    Returns
    -------
    images : (N, 32, 32) uint8 array
        In the order of the index. HASYv2 has 168,233, which take 172 MB and less than a minute.
    labels : (N,) int64 array
        Classes 0 ... K - 1, numbered by ascending symbol_id. HASYv2 has K = 369.
    names : list of K str
        What the symbols are in LaTeX: label j is ``names[j]``.

    Raises
    ------
    ImportError
        If Pillow is not installed; the message has the command that helps.
    FileNotFoundError
        If the folder, a CSV file or an image is missing.
    ValueError
        If a CSV file lacks a column or has no rows, a row has another number of fields than the
        first, a symbol_id is no number, unknown or of two names, a path leaves the folder, an
        image is no whole PNG of 32 x 32 grey values, or a class has no image. The message says
        the file and the line.

    References
    ----------
    M. Thoma, The HASYv2 dataset, arXiv:1701.08380 (2017).
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
    _all_occur(index_file, labels, names)

    memory(f"{len(paths)} images", 1024.0 * len(paths), "use a shorter index")
    images = np.empty((len(paths), 32, 32), dtype=np.uint8)
    for image, path, line in zip(images, paths, lines, strict=True):
        file = where / path
        at = f"{index_file}, line {line}: path"
        if _regular(at, file, "a PNG image") > _PNG_BYTES:
            raise ValueError(f"{at} must be a PNG image of 32 x 32 pixels, {file} is too long")
        image[:] = _png(pillow, file, file.read_bytes())
    if invert:
        np.invert(images, out=images)  # 255 - v, for bytes
    return images, labels, names


@contextmanager
def _idx_stream(file: Path) -> Iterator[tuple[io.BufferedIOBase, int]]:
    """The bytes of an IDX file, unpacked, and how many there may be at most."""
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
    """What the header says."""
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
    """What follows the header."""
    size = math.prod(shape)
    promised = f"{' x '.join(map(str, shape))} bytes as its header says"
    memory(f"{file}, {promised},", float(min(size, 2**64)), "is the header right?")
    if size > max(most, _CHUNK):  # a smaller file tells where it ends
        raise ValueError(f"{file} must hold {promised}, it cannot hold more than {most}")
    data = bytearray()
    while len(data) < size and (chunk := stream.read(min(size - len(data), _CHUNK))):
        data += chunk
    if len(data) < size:
        raise ValueError(f"{file} must hold {promised}, it ends after {len(data)} of {size}")
    if stream.read(1):  # of gzip this reads the checksum, too
        raise ValueError(f"{file} must hold {promised}, it goes on after these {size}")
    try:
        return np.frombuffer(data, dtype=np.uint8).reshape(shape)
    except ValueError:  # nothing along one dimension, too much along the others
        raise ValueError(f"{file} must hold an array, got {promised}") from None


def _plain_or_gzip(folder: Path, name: str) -> Path:
    for file in (folder / name, folder / f"{name}.gz"):
        if file.is_file():
            return file
    raise MissingPathError("folder", f"must hold {name} or {name}.gz, {folder} has neither")


def _symbols(file: Path) -> dict[int, str]:
    """LaTeX by symbol_id."""
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
    """The columns asked for of a CSV file with a header, row by row, each with its line."""
    rows: list[tuple[int, list[str]]] = []
    hint = ", or None for the classes of the index" if argument == "symbols" else ""
    size = _regular(argument, file, f"a CSV file{hint}")
    memory(f"{argument} {file}", float(size * _ROW_BYTES), "use a shorter list")
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
    """The grey values of a PNG of 32 x 32 pixels."""
    if data[:8] != b"\x89PNG\r\n\x1a\n" or len(data) < 33:
        raise ValueError(f"{file} must be a PNG image, it is none or a truncated one")
    for n, (width, height) in enumerate(_png_sizes(data)):  # before anything is decoded
        if (width, height) != (32, 32):
            raise ValueError(f"{file} must have 32 x 32 pixels, got {width} x {height}")
        if n > 0:
            raise ValueError(f"{file} must be a whole PNG image, it has two headers")
    try:
        with pillow.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.verify()  # checksums, which decoding alone passes over
        with pillow.open(io.BytesIO(data), formats=["PNG"]) as image:
            mode = str(image.mode)
            pixels = np.asarray(image.convert("L") if mode == "1" else image)
    except MemoryError:
        raise
    except Exception as error:  # Pillow has many words for it, DecompressionBombError among them
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
    """Width and height as each header of a PNG says; there should be one, which comes first."""
    place = 8
    while place + 16 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        # What comes first is taken for a header whatever its name, so that there always is one.
        if place == 8 or data[place + 4 : place + 8] == b"IHDR":
            yield struct.unpack(">II", data[place + 8 : place + 16])
        place += 12 + length


def _pillow() -> Any:
    """Pillow's Image module, or an ImportError with the command that helps."""
    try:
        from PIL import Image
    except ImportError:
        raise ImportError("hasy needs Pillow: pip install 'pylyap[images]'") from None
    return Image


def _all_occur(file: Path, labels: NDArray[Any], names: list[str]) -> None:
    counts = np.bincount(labels, minlength=len(names))
    missing = [name for name, count in zip(names, counts, strict=True) if count == 0]
    if missing:
        listed = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
        raise ValueError(
            f"{file} must have each of its {len(names)} classes, "
            f"{len(missing)} do not occur: {listed}",
        )


def _path(argument: str, value: Any) -> Path:
    return as_path(argument, value)


def _regular(argument: str, file: Path, what: str) -> int:
    """The size of a file; raises if there is none, or something else."""
    try:
        found = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{argument} must be {what}, there is no {file}") from None
    except ValueError:  # a NUL in it
        raise ArgumentError(argument, f"must be {what}, got {describe(str(file))}") from None
    if stat.S_ISDIR(found.st_mode):
        raise ArgumentError(argument, f"must be {what}, {file} is a folder")
    if not stat.S_ISREG(found.st_mode):
        raise ArgumentError(argument, f"must be {what}, {file} is a device or a pipe")
    return found.st_size


def _folder(value: Any) -> Path:
    folder = _path("folder", value)
    if not folder.exists():
        raise MissingPathError("folder", f"must be a folder, there is no {folder}")
    if not folder.is_dir():
        raise ArgumentError("folder", f"must be a folder, {str(folder)!r} is a file")
    return folder


def _inside(name: str, path: Any, start: str = "") -> str:
    """`path`, seen from `start`, as seen from the folder, which it must not leave."""
    if isinstance(path, str) and "\0" in path:
        raise ArgumentError(name, f"must lead to a file inside the folder, got {describe(path)}")
    joined = os.path.normpath(os.path.join(start, _path(name, path)))
    if os.path.isabs(joined) or joined.split(os.sep)[0] == os.pardir:
        raise ArgumentError(name, f"must lead to a file inside the folder, got {describe(path)}")
    return joined
