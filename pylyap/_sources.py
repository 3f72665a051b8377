"""Fingerprint of the C++ sources, to detect a compiled core that is out of date.

Run as a script (by CMake), it prints the fingerprint of the folder given. It therefore imports
nothing of the package.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path


def fingerprint(folder: Path) -> str:
    """Hash of the names and contents of all sources under a folder."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.[ch]pp")):
        digest.update(file.relative_to(folder).as_posix().encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    print(fingerprint(Path(sys.argv[1])))
