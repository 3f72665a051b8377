"""The same core for x86-64-v4."""

from pylyap._core import *  # noqa: F403
