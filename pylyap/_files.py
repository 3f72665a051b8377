"""Atomic writes: a file has either its old content or all of its new content.

`atomic_write` is for files of the package and replaces symbolic links. `user_file` is for paths
given by the user and follows symbolic links. All data pass through Python file objects, so a full
disk raises OSError.
"""

from __future__ import annotations

import errno
import io
import os
import re
import secrets
import stat
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pylyap import _checks
from pylyap._extras import require

if TYPE_CHECKING:
    import xarray

FILE_DPI = 150  # of figures in files, unless Matplotlib's savefig.dpi is set
_MAX_STEM = 200  # bytes of a file name kept in the name of its temporary file; the limit is 255
_NETCDF_HEADERS = 2**20  # upper bound on the metadata of a netCDF file, in bytes
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def atomic_write(path: Path, mode: int | None = None) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` after it is written and synchronised to disk.

    On an exception, `path` keeps its old content. A killed process leaves a hidden file with the
    suffix .part in the same folder. The permissions are `mode`, by default those of a new file. A
    symbolic link at `path` is replaced, not followed.
    """
    part = temporary_path(path)
    try:
        descriptor = os.open(
            part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else 0o600
        )
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            if mode is not None:
                os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    sync_folder(path.parent)


@contextmanager
def user_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Write a file at a path given by the user, atomically, as `atomic_write` does.

    If the path is a symbolic link, its target is replaced. The permissions of a replaced file are
    kept, its owner becomes the current user, and other hard links keep the old content. Raises
    OSError if the path exists and is not a regular file.
    """
    target = resolved(path)
    try:
        mode = stat.S_IMODE(target.stat().st_mode) & 0o777
    except FileNotFoundError:
        mode = None
    with atomic_write(target, mode) as file:
        yield file


def resolved(path: str | os.PathLike[str]) -> Path:
    """Follow symbolic links to a regular file or to a path that does not exist yet.

    Raises OSError for a folder, a device or a pipe, which cannot be replaced.
    """
    target = Path(os.path.realpath(path))
    try:
        mode = target.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return target
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fspath(path))
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "Not a regular file", os.fspath(path))
    return target


def require_replaceable(path: str | os.PathLike[str]) -> Path:
    """Return the path that `user_file` would write; raise OSError if it could not."""
    target = resolved(path)
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
    trial = temporary_path(target)  # permissions are not sufficient: some folders accept no files
    trial.open("xb").close()
    trial.unlink()
    return target


def temporary_path(path: Path) -> Path:
    """A hidden path in the same folder, unique to each writer."""
    return path.with_name(f"{_stem(path)}{secrets.token_hex(4)}.part")


def stale_temporary_files(path: Path) -> Iterator[Path]:
    """Temporary files of `path` left by writers that were killed."""
    name = re.compile(rf"{re.escape(_stem(path))}[0-9a-f]+\.part")
    yield from (file for file in path.parent.iterdir() if name.fullmatch(file.name))


def _stem(path: Path) -> str:
    name = path.name
    if len(os.fsencode(name)) > _MAX_STEM:  # leave room for the suffix
        digest = blake2b(os.fsencode(name), digest_size=8).hexdigest()
        name = f"{os.fsencode(name)[: _MAX_STEM // 2].decode(errors='ignore')}.{digest}"
    return f".{name}."


def sync_folder(folder: Path) -> None:
    """Synchronise the entries of a folder to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_full(error: BaseException) -> bool:
    """Whether the disk, the quota of the user, or the file size limit is exhausted."""
    return isinstance(error, OSError) and error.errno in _FULL


def reason(error: BaseException) -> str:
    """Message of an error, for an OSError without its number and path."""
    text = error.strerror if isinstance(error, OSError) else None
    return text or str(error) or type(error).__name__


# --- formats --------------------------------------------------------------------------------------


def write_npz(file: BinaryIO, arrays: Mapping[str, Any], *, compressed: bool = True) -> None:
    """Write arrays in NumPy's .npz format, without pickled objects.

    Not np.savez: it appends a suffix to a path, and warns during garbage collection after a failed
    write.
    """
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w", method, allowZip64=True) as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                array: NDArray[Any] = np.asanyarray(values)
                np.lib.format.write_array(member, array, allow_pickle=False)


def write_netcdf(file: BinaryIO, data: xarray.Dataset) -> None:
    """Write a dataset as netCDF, built in memory together with a copy of one array.

    HDF5 does not write to the disk itself, because a failed write in it crashes the process.
    Raises ValueError if the file does not fit in memory.
    """
    require("xarray", "h5netcdf", "h5py", extra="store", for_="netCDF")
    import h5netcdf
    from xarray.backends import H5NetCDFStore

    _checks.memory("the netCDF file", netcdf_size(data), "write fewer arrays, or as .npz")
    buffer = io.BytesIO()
    # Not to_netcdf: before 2025.8, xarray wrote this format only to paths.
    with h5netcdf.File(buffer, "w") as content:
        data.dump_to_store(H5NetCDFStore(content))
    file.write(buffer.getbuffer())


def netcdf_size(data: xarray.Dataset) -> float:
    """Upper bound on the size of a netCDF file, in bytes."""
    return float(data.nbytes + _NETCDF_HEADERS)


def write_figure(file: BinaryIO, figure: Any, kind: str) -> None:
    """Write a Matplotlib figure as "png", "pdf" or "svg"."""
    # savefig draws a figure with a layout engine twice, the first time only to compute the layout.
    engine = figure.get_layout_engine()
    if engine is not None:
        shown = figure.dpi
        figure.dpi = FILE_DPI  # sizes of texts depend on it
        engine.execute(figure)
        figure.dpi = shown
        figure.set_layout_engine("none")
    buffer = io.BytesIO()
    try:
        figure.savefig(buffer, format=kind)
    finally:
        if engine is not None:
            figure.set_layout_engine(engine)
    file.write(buffer.getbuffer())


def write_text(file: BinaryIO, text: str) -> None:
    """Write text in UTF-8; unencodable characters become question marks."""
    file.write(text.encode("utf-8", "replace"))
