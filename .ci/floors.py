"""The oldest supported versions: lower bounds of pyproject.toml as lines NAME==VERSION.

    python .ci/floors.py pyproject.toml > constraints.txt

The extra `bench` is for developers and excluded.
"""

import re
import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(sys.argv[1]).read_text("utf-8"))
requirements = [
    *project["build-system"]["requires"],
    *project["project"]["dependencies"],
    *(
        r
        for name, extra in project["project"]["optional-dependencies"].items()
        if name != "bench"
        for r in extra
    ),
]
floors = {}
for requirement in requirements:
    name = re.match(r"[A-Za-z0-9._-]+", requirement)[0]
    if name != project["project"]["name"]:
        floors[name] = re.search(r">=\s*([0-9.]+)", requirement)[1]
print("\n".join(f"{name}=={version}" for name, version in sorted(floors.items())))
