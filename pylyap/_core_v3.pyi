"""The same core for x86-64-v3."""

from pylyap._core import *  # noqa: F403
