"""Running the commands of the command line."""

import os
import subprocess
import sys
from pathlib import Path

from pylyap import cli

SMALL = ["spectrum", "--hidden", "3", "--runs", "2", "--steps", "40", "-k", "3", "--lr", "0.1,1"]
TINY = "--data quadratic --hidden 3,3 --runs 2"
ENDLESS = "spectrum --steps 1000000000 --record-every 1000000000"


def run(*args):
    """Exit code of a command in this process."""
    return cli.main([str(a) for a in args])


def script():
    """The installed command, or the module of the same name."""
    path = Path(sys.executable).with_name("pylyap")
    return [path] if path.exists() else [sys.executable, "-m", "pylyap.cli"]


def shell(*args):
    """Through the installed script, as a user would."""
    environment = dict(os.environ)  # without COLUMNS, which readline puts beside it
    return subprocess.run(
        [*script(), *args], env=environment, capture_output=True, text=True, timeout=120
    )
