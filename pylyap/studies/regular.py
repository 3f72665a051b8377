"""Access to the files of a study's folder, which must be regular files in real folders.

Symbolic links are rejected, so that nothing outside the folder is read or written. FIFOs and
devices are rejected since they could block.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class NotRegular(ValueError):
    """A path has an unexpected file type; `link` tells whether it is a symbolic link."""

    def __init__(self, file: Path, wanted: str, mode: int) -> None:
        self.link = stat.S_ISLNK(mode)
        found = _KINDS.get(stat.S_IFMT(mode), "a file")
        super().__init__(f"{file} must be {wanted}, got {found}")


def open_file(folder: Path, name: str, flags: int) -> int:
    """Open a regular file like `os.open`; returns a descriptor.

    Parameters
    ----------
    folder : Path
        Folder; this path may contain symbolic links.
    name : str
        Path relative to the folder, with slashes. No symbolic link in it is followed.
    flags : int
        Flags of `os.open`.

    Raises
    ------
    NotRegular
        If the file or a folder of its path has another type.
    OSError
        As of `os.open`.
    """
    *parents, last = name.split("/")
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        here = folder
        for parent in parents:
            here = here / parent
            _require_kind(here, parent, at, "a folder", stat.S_IFDIR)
            below = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | _FLAGS, dir_fd=at)
            os.close(at)
            at = below
        _require_kind(here / last, last, at, "a regular file", stat.S_IFREG)
        try:
            descriptor = os.open(last, flags | _FLAGS, 0o644, dir_fd=at)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise NotRegular(here / last, "a regular file", stat.S_IFLNK) from None
            raise
    finally:
        os.close(at)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):  # replaced since the check
        os.close(descriptor)
        raise NotRegular(here / last, "a regular file", mode)
    return descriptor


def read_file(folder: Path, name: str, most: int) -> bytes:
    """Read a regular file, see `open_file`. Raises ValueError if it has more than `most` bytes."""
    with os.fdopen(open_file(folder, name, os.O_RDONLY), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise ValueError(f"{folder / name} has {size} bytes, at most {most} are expected")
        return file.read(most)


def require_folder(folder: Path, name: str) -> None:
    """Raise NotRegular if a path below a folder exists but is not a folder, or contains a link."""
    here = folder
    for part in name.split("/"):
        here = here / part
        _require_kind(here, os.fspath(here), None, "a folder", stat.S_IFDIR)


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with its content."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _require_kind(file: Path, name: str, at: int | None, wanted: str, kind: int) -> None:
    """Raise NotRegular if a path exists and has another type."""
    try:
        mode = os.stat(name, dir_fd=at, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if stat.S_IFMT(mode) != kind:
        raise NotRegular(file, wanted, mode)
