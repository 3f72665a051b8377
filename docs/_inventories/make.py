"""Inventories for intersphinx of the names of other projects that the documentation refers to.

The documentation builds without a network, so that inventories must be local. These contain only
the names below, at the addresses of the projects' public documentation. A page that refers to
another name fails to build: add the name here and run this file.
"""

import zlib
from pathlib import Path

PROJECTS = {
    "python": ("3", {
        "py:class": {
            "concurrent.futures.Executor": "library/concurrent.futures.html#$",
            "dict": "library/stdtypes.html#$",
            "enum.IntEnum": "library/enum.html#$",
            "float": "library/functions.html#$",
            "int": "library/functions.html#$",
            "list": "library/stdtypes.html#$",
            "str": "library/stdtypes.html#$",
            "tuple": "library/stdtypes.html#$",
        },
        "py:exception": dict.fromkeys(
            ("ImportError", "KeyboardInterrupt", "MemoryError", "OSError", "TypeError",
             "ValueError"),
            "library/exceptions.html#$",
        ),
        "py:data": {
            "None": "library/constants.html#$",
            "True": "library/constants.html#$",
            "False": "library/constants.html#$",
        },
    }),
    "numpy": ("2", {
        "py:class": {
            "numpy.ndarray": "reference/generated/numpy.ndarray.html#$",
            "numpy.random.Generator": "reference/random/generator.html#$",
            "numpy.random.SeedSequence":
                "reference/random/bit_generators/generated/numpy.random.SeedSequence.html#$",
        },
        "std:term": {"array_like": "glossary.html#term-array_like"},
    }),
    "scipy": ("1", {"py:module": {"scipy.stats": "reference/stats.html#module-$"}}),
    "matplotlib": ("3", {
        "py:class": {
            "matplotlib.axes.Axes": "api/_as_gen/matplotlib.axes.Axes.html#$",
            "matplotlib.figure.Figure": "api/_as_gen/matplotlib.figure.Figure.html#$",
            "matplotlib.figure.SubFigure": "api/_as_gen/matplotlib.figure.SubFigure.html#$",
        },
    }),
    "xarray": ("2025", {"py:class": {"xarray.Dataset": "generated/xarray.Dataset.html#$"}}),
}  # fmt: skip

for project, (version, kinds) in PROJECTS.items():
    entries = [
        f"{name} {kind} 1 {address} -\n"
        for kind, names in kinds.items()
        for name, address in sorted(names.items())
    ]
    header = (
        f"# Sphinx inventory version 2\n# Project: {project}\n# Version: {version}\n"
        "# The remainder of this file is compressed using zlib.\n"
    )
    path = Path(__file__).with_name(f"{project}.inv")
    path.write_bytes(header.encode() + zlib.compress("".join(entries).encode(), 9))
