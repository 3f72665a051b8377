"""Picks the build of the compiled core that this processor can run."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pylyap import _core as core

__all__ = ["ISA_NAMES", "available", "choose", "core", "isa", "runnable"]

# Builds in ascending order: any x86-64 (or other architecture), AVX2 + FMA, AVX-512.
ISA_NAMES = {"base": "_core", "v3": "_core_v3", "v4": "_core_v4"}

# What each level of x86-64 adds, in the names of /proc/cpuinfo ("abm" is LZCNT).
_V3 = frozenset({"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"})
_FLAGS = {
    "base": frozenset[str](),
    "v3": _V3,
    "v4": _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
}


def processor_flags() -> frozenset[str]:
    """What this processor says it can do; empty where the system does not tell."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            line = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return frozenset()
    return frozenset(line.split())


def available() -> list[str]:
    """The builds in this installation, baseline first."""
    return [isa for isa, name in ISA_NAMES.items() if importlib.util.find_spec(f"pylyap.{name}")]


def runnable() -> list[str]:
    """Those of them that this processor can run."""
    flags = processor_flags()
    return [isa for isa in available() if _FLAGS[isa] <= flags]


def choose() -> str:
    """The build to load: the best one the processor runs, or what PYLYAP_ISA asks for."""
    asked = os.environ.get("PYLYAP_ISA", "")
    found = available()
    if not found:
        raise ImportError(
            f"there is no compiled core in {os.path.dirname(__file__)}: install pylyap with pip, "
            "and start Python outside its source directory"
        )
    if not asked:
        return runnable()[-1]
    if asked not in ISA_NAMES:
        raise ImportError(f"PYLYAP_ISA must be one of {', '.join(ISA_NAMES)}, got {asked!r}")
    if asked not in found:
        raise ImportError(
            f"PYLYAP_ISA={asked}: this installation has no such build, only {', '.join(found)}"
        )
    lacking = _FLAGS[asked] - processor_flags()
    if lacking:
        raise ImportError(
            f"PYLYAP_ISA={asked}: this processor lacks {', '.join(sorted(lacking))}; unset it"
        )
    return asked


try:
    isa = choose()
except ImportError as error:
    if os.path.basename(sys.argv[0]) != "pylyap":
        raise
    # The command line is not there yet to say so: one line and exit code 2, as for any mistake.
    print(f"pylyap: {error}", file=sys.stderr)
    sys.exit(2)
if not TYPE_CHECKING:
    core = importlib.import_module(f"pylyap.{ISA_NAMES[isa]}")
