"""`pylyap info`: build, processor and versions."""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata

import click

from pylyap.cli.tables import print_facts


@click.command()
def info() -> None:
    """Show build, instruction set, threads and versions."""
    from pylyap._native import available, core, isa

    build = core.build()
    facts = {
        "pylyap": metadata.version("pylyap"),
        "instruction set": f"{isa} (built: {', '.join(available())}; PYLYAP_ISA selects one)",
        "runs per register": str(build["lanes"]),
        "compiler": build["compiler"],
        "Eigen": build["eigen"],
        "assertions": "on" if build["assertions"] else "off",
        "threads": f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} cores",
        "Python": platform.python_version(),
        "platform": platform.platform(),
    }
    needs = (re.match(r"[\w.-]+", need) for need in metadata.requires("pylyap") or ())
    for name in dict.fromkeys(need.group() for need in needs if need):
        if name != "pylyap":
            facts[name] = _version(name)
    print_facts(facts)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
