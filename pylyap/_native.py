"""Picks the build of the compiled core that this processor can run."""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pylyap import _core as core

__all__ = ["ISA_NAMES", "available", "choose", "core", "isa", "supports_v3"]

ISA_NAMES = {"base": "_core", "v3": "_core_v3"}

# What x86-64-v3 adds to the baseline, in the names of /proc/cpuinfo ("abm" is LZCNT).
_V3_FLAGS = frozenset(["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"])


def supports_v3() -> bool:
    """Whether this processor has all of x86-64-v3 (AVX2, FMA and their companions)."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return False
    return set(flags.split()) >= _V3_FLAGS


def available() -> list[str]:
    """The builds in this installation, baseline first."""
    return [isa for isa, name in ISA_NAMES.items() if importlib.util.find_spec(f"pylyap.{name}")]


def choose() -> str:
    """The build to load: the best one the processor runs, or what PYLYAP_ISA asks for."""
    asked = os.environ.get("PYLYAP_ISA", "")
    found = available()
    if not asked:
        return "v3" if "v3" in found and supports_v3() else "base"
    if asked not in ISA_NAMES:
        raise ImportError(f"PYLYAP_ISA must be one of {', '.join(ISA_NAMES)}, got {asked!r}")
    if asked not in found:
        raise ImportError(
            f"PYLYAP_ISA={asked}: this installation has no such build, only {', '.join(found)}"
        )
    if asked == "v3" and not supports_v3():
        raise ImportError("PYLYAP_ISA=v3: this processor lacks AVX2 or FMA; unset it, or use base")
    return asked


isa = choose()
if not TYPE_CHECKING:
    core = importlib.import_module(f"pylyap.{ISA_NAMES[isa]}")
