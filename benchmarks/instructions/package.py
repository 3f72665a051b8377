"""What `import pylyap` loads and how large the compiled core is: measures without a clock."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TypedDict

from pylyap._native import core

LARGER = 0.10  # tolerance of numbers of modules and of sizes, which depend on the compiler as well

# What Python itself loads before, files *.pth of other packages included, is not counted.
_LIST = """
import json, sys
before = set(sys.modules)
import pylyap
print(json.dumps(sorted(set(sys.modules) - before)))
"""


class Package(TypedDict):
    modules: int  # of pylyap
    packages: list[str]  # of others, without the standard library
    bytes: dict[str, int]  # of the compiled core, by instruction set


def measured() -> Package:
    """The package as this interpreter imports it, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", _LIST], check=True, capture_output=True, text=True)
    names: list[str] = json.loads(done.stdout)
    ours = [name for name in names if name.split(".")[0] == "pylyap"]
    # Compiled parts have names with an underscore.
    others = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"pylyap"}
    built = Path(str(core.__file__))
    return {
        "modules": len(ours),
        "packages": sorted(name for name in others if not name.startswith("_")),
        "bytes": {built.name.split(".")[0]: built.stat().st_size},
    }


def worse(before: Package, now: Package) -> list[str]:
    """What exceeds the table, in words."""
    found = [f"imports {name}" for name in now["packages"] if name not in before["packages"]]
    if now["modules"] > before["modules"] * (1 + LARGER):
        found.append(f"imports {now['modules']} modules of pylyap, {before['modules']} before")
    for name, size in now["bytes"].items():
        old = before["bytes"].get(name)
        if old and size > old * (1 + LARGER):
            found.append(f"{name} has {size:,} bytes, {old:,} before")
    return found
