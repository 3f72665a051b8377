"""Atomic writes: a file has its old content or all of its new content.

`atomic_write` writes files of the package's own under a path as it is; `user_file` writes the files
that a user names, and follows symbolic links. What is written into either passes through Python's
own files, so that a full disk is an OSError.
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

if TYPE_CHECKING:
    import xarray

_LONGEST = 200  # bytes of a file's name that its temporary file repeats; systems allow 255
_NETCDF_HEADERS = 2**20  # bytes of a netCDF file beside its arrays, at most
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def atomic_write(path: Path, mode: int | None = None) -> Iterator[BinaryIO]:
    """A file that is put into its place in one move, once it is written and on the disk.

    Whatever goes wrong leaves what was there before; a kill leaves a hidden file with the suffix
    .part beside it. The permissions are `mode`, or those of a new file. A symbolic link at `path`
    is replaced, not followed.
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
    """The successor of a file that a user names, put into its place as `atomic_write` does.

    A symbolic link stays one: the file that it leads to is replaced. Permissions of a file that
    is replaced are kept; its owner becomes the present one, and hard links keep the old content.
    Raises OSError if the path leads to anything but a regular file.
    """
    target = resolved(path)
    try:
        mode = stat.S_IMODE(target.stat().st_mode) & 0o777
    except FileNotFoundError:
        mode = None
    with atomic_write(target, mode) as file:
        yield file


def resolved(path: str | os.PathLike[str]) -> Path:
    """The regular file, or the place of a new one, to which a path leads by its symbolic links.

    Raises OSError if something else is there: devices and pipes cannot be replaced.
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
    """Where `user_file` would write, if it can. Raises OSError otherwise, before any work."""
    target = resolved(path)
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
    trial = temporary_path(target)  # permissions alone do not tell: some folders take no files
    trial.open("xb").close()
    trial.unlink()
    return target


def temporary_path(path: Path) -> Path:
    """A name of its own, so that two writers never share a file; hidden, in the same folder."""
    return path.with_name(f"{_stem(path)}{secrets.token_hex(4)}.part")


def stale_temporary_files(path: Path) -> Iterator[Path]:
    """Temporary files of `path` that writers left when they were killed."""
    name = re.compile(rf"{re.escape(_stem(path))}[0-9a-f]+\.part")
    yield from (file for file in path.parent.iterdir() if name.fullmatch(file.name))


def _stem(path: Path) -> str:
    name = path.name
    if len(os.fsencode(name)) > _LONGEST:  # the temporary file must have a name, too
        digest = blake2b(os.fsencode(name), digest_size=8).hexdigest()
        name = f"{os.fsencode(name)[: _LONGEST // 2].decode(errors='ignore')}.{digest}"
    return f".{name}."


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_full(error: BaseException) -> bool:
    """Whether there is no more room: on the disk, for this user, or for a file of this process."""
    return isinstance(error, OSError) and error.errno in _FULL


def reason(error: BaseException) -> str:
    """What the system says, without number and path."""
    text = error.strerror if isinstance(error, OSError) else None
    return text or str(error) or type(error).__name__


# --- formats --------------------------------------------------------------------------------------


def write_npz(file: BinaryIO, arrays: Mapping[str, Any], *, compressed: bool = True) -> None:
    """Arrays as NumPy's .npz, without pickles.

    np.savez would append a suffix to a path, and complains when it is collected after a failure.
    """
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w", method, allowZip64=True) as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                array: NDArray[Any] = np.asanyarray(values)
                np.lib.format.write_array(member, array, allow_pickle=False)


def write_netcdf(file: BinaryIO, data: xarray.Dataset) -> None:
    """A dataset as netCDF. The whole file is held in memory, and one array besides.

    HDF5 must not meet a full disk: where a write fails, it crashes the process. Raises ValueError
    if the file would not fit into memory.
    """
    try:
        import h5netcdf
        from xarray.backends import H5NetCDFStore
    except ImportError:
        raise ImportError(
            "netCDF needs xarray, h5netcdf and h5py: pip install 'pylyap[store]'"
        ) from None

    _checks.memory("the netCDF file", netcdf_size(data), "write fewer arrays, or as .npz")
    buffer = io.BytesIO()
    # Not to_netcdf: until 2025.8 xarray wrote this format to paths alone.
    with h5netcdf.File(buffer, "w") as content:
        data.dump_to_store(H5NetCDFStore(content))
    file.write(buffer.getbuffer())


def netcdf_size(data: xarray.Dataset) -> float:
    """Bytes of a netCDF file, at most."""
    return float(data.nbytes + _NETCDF_HEADERS)


def write_figure(file: BinaryIO, figure: Any, kind: str) -> None:
    """A figure of Matplotlib, as "png", "pdf" or "svg"."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind)
    file.write(buffer.getbuffer())


def write_text(file: BinaryIO, text: str) -> None:
    """Text in UTF-8; characters that have no code in it become question marks."""
    file.write(text.encode("utf-8", "replace"))
