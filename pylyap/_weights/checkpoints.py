"""Checkpoints of training: files that are whole or not there, and fit one training alone."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylyap import _checks
from pylyap._errors import ArgumentError
from pylyap._files import (
    left_beside,
    reason,
    require_replaceable,
    resolved,
    user_file,
    write_npz,
)
from pylyap._native import core
from pylyap.activations import Activation
from pylyap.maps import TrainingMap

Arrays = dict[str, NDArray[Any]]
Identity = Callable[[int | None], Mapping[str, str]]  # of a training after so many epochs

_FORMAT = 1
_IDENTITY = "identity"
_SHOWN = 4  # differences that a message names
_READABLE = 8  # numbers of an array that it shows
_FACTORS = 1000  # steps by which files of earlier versions know a schedule's function


def target(value: Any) -> Path:
    """`value` as a path that can be written, said before the work; what writers left that were
    killed goes."""
    path = _checks.path("checkpoint", value)
    if path.is_dir():
        raise ArgumentError("checkpoint", f"must be a file, {str(path)!r} is a folder")
    if not path.parent.is_dir():
        raise ArgumentError(
            "checkpoint",
            f"must lie in a folder that is there, got {str(path)!r}: no {str(path.parent)!r}",
        )
    try:
        path = resolved(path)  # a link stays one, and a change of folder no harm
    except OSError as error:
        raise ArgumentError(
            "checkpoint", f"must be a regular file, got {str(path)!r}: {reason(error)}"
        ) from None
    try:
        for left in left_beside(path):
            left.unlink(missing_ok=True)
        require_replaceable(path)
    except OSError as error:
        raise ArgumentError(
            "checkpoint",
            f"must be in a folder that can be written, and so must the file itself, "
            f"got {str(path)!r}: {reason(error)}",
        ) from None
    return path


def identity(
    system: TrainingMap, steps_per_epoch: int, epoch: int | None, **others: Any
) -> dict[str, str]:
    """What is trained, on what, how and from where, in words that tell two trainings apart.

    After `epoch` epochs the schedule is known by its factors of all steps made: schedules that
    agree on these have the same states so far, whatever follows. None stands for files of earlier
    versions, which know tables by all of their entries and functions by their first 1000 factors.
    """
    network, optimizer = system.network, system.optimizer
    words: dict[str, Any] = {
        "network": repr(network),
        "X": system._runs.inputs,
        "y": system.y,
        "dtype": system.dtype,
        "optimizer": type(optimizer).__name__,
    }
    for i, activation in enumerate(network.activations):
        if isinstance(activation, Activation):  # a name alone does not tell
            values = core.activate(activation._code, np.linspace(-3.0, 3.0, 7))[0]
            words[f"activation {i}"] = " ".join(f"{value:.6g}" for value in values)
    for item in dataclasses.fields(optimizer):
        if item.name not in ("seed", "_table"):  # the seed counts as what batches are drawn from
            words[item.name.lstrip("_")] = getattr(optimizer, item.name)
    if epoch is not None:
        words["schedule"] = optimizer._factors(0, epoch * steps_per_epoch)
    elif callable(optimizer.schedule):  # its name and address would tell nothing
        try:
            words["schedule"] = optimizer._factors(0, _FACTORS)
        except Exception:  # of the function: none of those files knows it
            words["schedule"] = f"a function that fails within {_FACTORS} steps"
    return {
        name: _array(value) if isinstance(value, np.ndarray) else str(value)
        for name, value in (words | others).items()
    }


def _array(values: NDArray[Any]) -> str:
    if values.size <= _READABLE:
        return f"{values.tolist()}"
    digest = hashlib.blake2b(np.ascontiguousarray(values).data, digest_size=8).hexdigest()
    return f"{values.dtype} {values.shape} {digest}"


def save(path: Path, arrays: Mapping[str, NDArray[Any]], whose: Identity) -> None:
    """Put the arrays into place in one move. Raises OSError and leaves what was there."""
    epoch = int(arrays["epoch"])
    about = {"arrays": sorted(arrays), "by_epoch": True, _IDENTITY: dict(whose(epoch))}
    words = json.dumps({"format": _FORMAT} | about)
    with user_file(path) as file:
        write_npz(file, {_IDENTITY: words, **arrays}, compressed=False)


def _members(archive: zipfile.ZipFile, size: int) -> Arrays:
    """The arrays of an archive of so many bytes. Raises ValueError if it is none of ours.

    Nothing is read before the table of contents says that no member is compressed and that all
    of them together are no larger than the file, and no array is allocated before its header
    agrees with the size of its member. So memory is bounded by the size of the file.
    """
    infos = archive.infolist()
    for info in infos:
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise ValueError(f"{info.filename} is compressed")
    if sum(info.file_size for info in infos) > size:
        raise ValueError("its arrays are larger than the file")
    if len({info.filename for info in infos}) < len(infos):
        raise ValueError("an array occurs twice")
    if (bad := archive.testzip()) is not None:  # before a header is believed
        raise ValueError(f"{bad} has changed")
    arrays = {}
    for info in infos:
        with archive.open(info) as member:
            version = np.lib.format.read_magic(member)
            headers = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }
            shape, _, dtype = headers[version](member)
            if dtype.hasobject or min(shape, default=0) < 0:
                raise ValueError(f"{info.filename} has no numbers")
            n_bytes = math.prod(shape) * dtype.itemsize
            if member.tell() + n_bytes != info.file_size:
                raise ValueError(
                    f"{info.filename} has {info.file_size} bytes, where its header says "
                    f"{member.tell() + n_bytes}"
                )
        with archive.open(info) as member:
            values = np.lib.format.read_array(member, allow_pickle=False)
        arrays[info.filename.removesuffix(".npy")] = values
    return arrays


def load(path: Path, whose: Identity) -> Arrays:
    """The arrays of a checkpoint of this training.

    Raises ValueError if the file is damaged, none of ours, or of another training; OSError if it
    cannot be read.
    """
    with resolved(path).open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                arrays = _members(archive, os.fstat(file.fileno()).st_size)
            words = json.loads(str(arrays.pop(_IDENTITY)))
            version, theirs = words["format"], dict(words[_IDENTITY])
            epoch = int(arrays["epoch"]) if words.get("by_epoch") else None
            if sorted(arrays) != words["arrays"]:  # a damaged table of contents may be shorter
                raise ValueError("arrays are missing")
        except MemoryError:
            raise
        except Exception as error:  # zipfile, zlib, json and NumPy have many words for it
            raise ArgumentError(
                "checkpoint",
                f"must be a whole file of ours, {str(path)!r} is damaged or none: "
                f"{error or type(error).__name__}",
            ) from error
    if version != _FORMAT:
        raise ArgumentError(
            "checkpoint", f"must be of format {_FORMAT}, {str(path)!r} is of format {version}"
        )
    ours = whose(epoch)
    names = sorted({*ours, *theirs}, key=[*ours, *theirs].index)
    other = [
        f"{name} {theirs.get(name, 'nothing')!s:.200} (here {ours.get(name, 'nothing'):.200})"
        for name in names
        if theirs.get(name) != ours.get(name)
    ]
    if other:
        more = f"; and {len(other) - _SHOWN} more" if len(other) > _SHOWN else ""
        raise ArgumentError(
            "checkpoint",
            f"must be of this training, {str(path)!r} is of another: "
            f"it has {'; '.join(other[:_SHOWN])}{more}",
        )
    return arrays
