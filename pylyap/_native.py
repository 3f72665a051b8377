"""Loads the best build of the compiled core that this processor supports."""

from __future__ import annotations

import importlib.util
import os
import sys
import warnings
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from pylyap._levels import MODULES as ISA_NAMES
from pylyap._levels import missing_flags, supported
from pylyap._sources import fingerprint

if TYPE_CHECKING:
    from pylyap import _core as core

__all__ = ["ISA_NAMES", "available", "choose", "core", "isa", "runnable"]

_SOURCES = Path(__file__).parents[1] / "csrc"  # in a clone
_BUILD_ALL = "build it with `pip install . -C cmake.define.PYLYAP_LEVELS=all`"


@cache
def _location(isa: str) -> str | None:
    """Path of a build: beside this file or, in a clone, in the installed package."""
    name = ISA_NAMES[isa]
    spec = importlib.util.find_spec(f"pylyap.{name}")
    if spec is not None:
        return spec.origin
    if not _SOURCES.is_dir():
        return None
    from importlib.metadata import PackageNotFoundError, files

    try:
        installed = files("pylyap") or []
    except PackageNotFoundError:
        return None
    return next((str(file.locate()) for file in installed if file.name.split(".")[0] == name), None)


def available() -> list[str]:
    """Names of the builds in this installation, baseline first."""
    return [isa for isa in ISA_NAMES if _location(isa)]


def runnable() -> list[str]:
    """Names of the builds that this processor supports."""
    ours = supported()
    return [isa for isa in available() if isa in ours]


def choose() -> str:
    """Name of the build to load: the value of PYLYAP_ISA, or the best supported one."""
    asked = os.environ.get("PYLYAP_ISA", "")
    found = available()
    if not found:
        raise ImportError(
            f"there is no compiled core in {os.path.dirname(__file__)} and none is installed: run "
            "`pip install .`, or `pip install -e .` in a clone"
        )
    if not asked:
        if not runnable():
            best = ", ".join(found)
            raise ImportError(
                f"this installation has only the core for {best}, which this processor does not "
                f"support (it lacks {', '.join(sorted(missing_flags(found[0])))}); {_BUILD_ALL}"
            )
        return runnable()[-1]
    if asked not in ISA_NAMES:
        raise ImportError(f"PYLYAP_ISA must be one of {', '.join(ISA_NAMES)}, got {asked!r}")
    if asked not in found:
        raise ImportError(
            f"PYLYAP_ISA={asked}: this installation has no such build, only {', '.join(found)}; "
            f"{_BUILD_ALL}"
        )
    lacking = missing_flags(asked)
    if lacking:
        raise ImportError(
            f"PYLYAP_ISA={asked}: this processor lacks {', '.join(sorted(lacking))}; unset it"
        )
    return asked


def _load(isa: str) -> ModuleType:
    """The core. Warns if it was built from other sources than those of this clone."""
    name = f"pylyap.{ISA_NAMES[isa]}"
    spec = importlib.util.spec_from_file_location(name, _location(isa))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    if _SOURCES.is_dir() and module.build()["sources"] != fingerprint(_SOURCES):
        warnings.warn(
            f"the compiled core {module.__file__} was built from other sources than {_SOURCES}: "
            "run `pip install -e .` again",
            RuntimeWarning,
            stacklevel=2,
        )
    return module


try:
    isa = choose()
except ImportError as error:
    if os.path.basename(sys.argv[0]) != "pylyap":
        raise
    # For the command line: one line and exit code 2, as for any wrong argument.
    print(f"pylyap: {error}", file=sys.stderr)
    sys.exit(2)
if not TYPE_CHECKING:
    core = _load(isa)
