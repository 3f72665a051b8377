"""The error where PyTorch is not installed."""

from __future__ import annotations

import importlib.util


def require_torch(name: str) -> None:
    """Raise ImportError for the function `name` without PyTorch."""
    if importlib.util.find_spec("torch") is None:
        raise ImportError(f"{name} needs PyTorch: pip install 'pylyap[torch]'")
