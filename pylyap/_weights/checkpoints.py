"""Checkpoints of training: written atomically, and valid for one training only."""

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
    reason,
    require_replaceable,
    resolved,
    stale_temporary_files,
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
# Settings of optimisers that earlier versions do not have: they identify a training if given.
_LATER = ("layer_scale", "bias_scale")
_SHOWN = 4  # differences that a message names
_READABLE = 8  # numbers of an array that it shows
_FACTORS = 1000  # steps by which files of earlier versions identify a schedule's function


def target(value: Any) -> Path:
    """`value` as a path that can be written; temporary files of killed writers are removed."""
    path = _checks.path("checkpoint", value)
    if path.is_dir():
        raise ArgumentError("checkpoint", f"must be a file, {str(path)!r} is a folder")
    if not path.parent.is_dir():
        raise ArgumentError(
            "checkpoint",
            f"must lie in a folder that exists, got {str(path)!r}: no {str(path.parent)!r}",
        )
    try:
        path = resolved(path)  # follows links once, independent of later changes of folder
    except OSError as error:
        raise ArgumentError(
            "checkpoint", f"must be a regular file, got {str(path)!r}: {reason(error)}"
        ) from None
    try:
        for temporary in stale_temporary_files(path):
            temporary.unlink(missing_ok=True)
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
    """Network, data, optimiser and start of a training, as text that identifies it.

    After `epoch` epochs the schedule is identified by its factors of all steps made: schedules that
    agree on these have the same states so far. None stands for files of earlier versions, which
    identify tables by all of their entries and functions by their first 1000 factors.
    """
    network, optimizer = system.network, system.optimizer
    entries: dict[str, Any] = {
        "network": repr(network),
        "X": system._runs.inputs,
        "y": system.y,
        "dtype": system.dtype,
        "optimizer": type(optimizer).__name__,
    }
    for i, activation in enumerate(network.activations):
        if isinstance(activation, Activation):  # a name does not identify it
            values = core.activate(activation._code, np.linspace(-3.0, 3.0, 7))[0]
            entries[f"activation {i}"] = " ".join(f"{value:.6g}" for value in values)
    later = [name for name in _LATER if getattr(optimizer, name, None) is None]
    for item in dataclasses.fields(optimizer):
        if item.name not in ("seed", "_table", *later):  # `_batch_seed` stands for the seed
            entries[item.name.lstrip("_")] = getattr(optimizer, item.name)
    if epoch is not None:
        entries["schedule"] = optimizer._factors(0, epoch * steps_per_epoch)
    elif callable(optimizer.schedule):  # its name and address do not identify it
        try:
            entries["schedule"] = optimizer._factors(0, _FACTORS)
        except Exception:  # of the function: those files do not contain it
            entries["schedule"] = f"a function that fails within {_FACTORS} steps"
    return as_text(entries | others)


def as_text(entries: Mapping[str, Any]) -> dict[str, str]:
    """Entries of an identity as text, long arrays by a digest."""
    return {
        name: _array(value) if isinstance(value, np.ndarray) else str(value)
        for name, value in entries.items()
    }


def _array(values: NDArray[Any]) -> str:
    if values.size <= _READABLE:
        return f"{values.tolist()}"
    digest = hashlib.blake2b(np.ascontiguousarray(values).data, digest_size=8).hexdigest()
    return f"{values.dtype} {values.shape} {digest}"


def save(path: Path, arrays: Mapping[str, NDArray[Any]], expected: Identity) -> None:
    """Write the arrays atomically. On OSError the previous file is kept."""
    epoch = int(arrays["epoch"])
    about = {"arrays": sorted(arrays), "by_epoch": True, _IDENTITY: dict(expected(epoch))}
    header = json.dumps({"format": _FORMAT} | about)
    with user_file(path) as file:
        write_npz(file, {_IDENTITY: header, **arrays}, compressed=False)


def _members(archive: zipfile.ZipFile, size: int) -> Arrays:
    """The arrays of an archive of this size in bytes. Raises ValueError if it is invalid.

    Nothing is read before the table of contents states that no member is compressed and that all of
    them together are no larger than the file, and no array is allocated before its header agrees
    with the size of its member. Memory is therefore bounded by the size of the file.
    """
    infos = archive.infolist()
    for info in infos:
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise ValueError(f"{info.filename} is compressed")
    if sum(info.file_size for info in infos) > size:
        raise ValueError("its arrays are larger than the file")
    if len({info.filename for info in infos}) < len(infos):
        raise ValueError("an array occurs twice")
    if (bad := archive.testzip()) is not None:  # checksums, before a header is trusted
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
                raise ValueError(f"{info.filename} is not numeric")
            n_bytes = math.prod(shape) * dtype.itemsize
            if member.tell() + n_bytes != info.file_size:
                raise ValueError(
                    f"{info.filename} has {info.file_size} bytes, its header "
                    f"states {member.tell() + n_bytes}"
                )
        with archive.open(info) as member:
            values = np.lib.format.read_array(member, allow_pickle=False)
        arrays[info.filename.removesuffix(".npy")] = values
    return arrays


def load(path: Path, expected: Identity) -> Arrays:
    """The arrays of a checkpoint of this training.

    Raises ValueError if the file is damaged, not a checkpoint, or of another training; OSError if
    it cannot be read.
    """
    with resolved(path).open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                arrays = _members(archive, os.fstat(file.fileno()).st_size)
            header = json.loads(str(arrays.pop(_IDENTITY)))
            version, stored = header["format"], dict(header[_IDENTITY])
            epoch = int(arrays["epoch"]) if header.get("by_epoch") else None
            if sorted(arrays) != header["arrays"]:  # a damaged table of contents may be too short
                raise ValueError("arrays are missing")
        except MemoryError:
            raise
        except Exception as error:  # zipfile, zlib, json and NumPy raise many types
            raise ArgumentError(
                "checkpoint",
                f"must be a valid pylyap checkpoint, {str(path)!r} is damaged or not one: "
                f"{error or type(error).__name__}",
            ) from error
    if version != _FORMAT:
        raise ArgumentError(
            "checkpoint", f"must be of format {_FORMAT}, {str(path)!r} is of format {version}"
        )
    current = expected(epoch)
    names = sorted({*current, *stored}, key=[*current, *stored].index)
    other = [
        f"{name} {stored.get(name, 'nothing')!s:.200} (here {current.get(name, 'nothing'):.200})"
        for name in names
        if stored.get(name) != current.get(name)
    ]
    if other:
        more = f"; and {len(other) - _SHOWN} more" if len(other) > _SHOWN else ""
        raise ArgumentError(
            "checkpoint",
            f"must be of this training, {str(path)!r} is of another: "
            f"it has {'; '.join(other[:_SHOWN])}{more}",
        )
    return arrays
