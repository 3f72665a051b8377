"""Instruction sets that the compiled core is built for, and which of them this processor supports.

Run as a script (by CMake), it prints the best one. It therefore imports nothing of the package.
"""

from __future__ import annotations

import platform

# Builds in ascending order: any x86-64 (or other architecture), AVX2 + FMA, AVX-512.
MODULES = {"base": "_core", "v3": "_core_v3", "v4": "_core_v4"}

# What each level of x86-64 adds, in the names of /proc/cpuinfo ("abm" is LZCNT).
_V3 = frozenset({"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"})
_FLAGS = {
    "base": frozenset[str](),
    "v3": _V3,
    "v4": _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
}


def processor_flags() -> frozenset[str]:
    """Instruction-set flags of this processor; empty where the system does not report them."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            line = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return frozenset()
    return frozenset(line.split())


def missing_flags(level: str) -> frozenset[str]:
    """Flags that a level needs and this processor lacks."""
    return _FLAGS[level] - processor_flags()


def supported() -> list[str]:
    """Levels that this processor supports, baseline first."""
    flags = processor_flags()
    return [level for level, needed in _FLAGS.items() if needed <= flags]


if __name__ == "__main__":
    print(supported()[-1] if platform.machine().lower() in ("x86_64", "amd64") else "base")
