"""Optional packages: imported where they are needed, with the command that installs them."""

from __future__ import annotations

import json
import re
import shlex
from importlib import import_module
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Modules whose names differ from the names of their distributions.
_PROJECTS = {"PIL": "Pillow", "jinja2": "Jinja2", "sklearn": "scikit-learn"}

# Installers that resolve `pylyap[extra]` from where they took pylyap, if it has no direct URL.
_OF_AN_INDEX = ("pip", "uv")


def require(*modules: str, extra: str | None, for_: str) -> None:
    """Check that optional modules can be imported.

    Parameters
    ----------
    *modules : str
        Names of modules, as in ``import``.
    extra : str or None
        Extra of pylyap that installs them; None for a module of no extra.
    for_ : str
        What needs them, the subject of the message.

    Raises
    ------
    ModuleNotFoundError
        If one is not installed; the message has the command that installs it.
    ImportError
        If one is installed and cannot be imported; the message has the reason.
    """
    names = " and ".join(_PROJECTS.get(module, module) for module in modules)
    for module in modules:
        try:
            import_module(module)
        except ImportError as error:
            missing = isinstance(error, ModuleNotFoundError)
            if missing and (error.name or module).partition(".")[0] == module.partition(".")[0]:
                raise ModuleNotFoundError(
                    f"{for_} needs {names}: {install_command(extra, *modules)}", name=module
                ) from None
            reason = " ".join(str(error).split())
            raise ImportError(
                f"{for_} needs {names}, but {module} cannot be imported: {reason}", name=module
            ) from error


def missing(*modules: str) -> list[str]:
    """The modules that are not installed, without importing them."""
    return [module for module in modules if not _is_installed(module)]


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # a parent is missing; an entry of sys.modules is None
        return False


def install_command(extra: str | None, *modules: str) -> str:
    """Command that adds an extra to this installation of pylyap.

    An installation from a folder, an archive or a repository is named by that source, one from an
    index by its name. For any other, the requirements of the extra are listed.
    """
    try:
        here = distribution("pylyap")
    except PackageNotFoundError:
        here = None
    source = None if here is None or extra is None else _source(here, extra)
    if source is not None:
        return f"pip install {source}"
    wanted = _requirements(here, extra) if here is not None and extra is not None else []
    wanted = wanted or [_PROJECTS.get(module, module) for module in modules]
    return "pip install " + " ".join(map(shlex.quote, wanted))


def _source(here: Distribution, extra: str) -> str | None:
    """Arguments of pip for this installation with an extra; None if its source is unknown."""
    text = here.read_text("direct_url.json")
    if text is None:
        listed = any(str(file) == "pylyap/__init__.py" for file in here.files or ())
        known = (here.read_text("INSTALLER") or "").strip() in _OF_AN_INDEX
        return shlex.quote(f"pylyap[{extra}]") if listed and known else None
    try:
        origin = json.loads(text)
        url = origin["url"]
        parts = urlsplit(url)
        if parts.scheme == "file":
            path = Path(unquote(parts.path))
            if not path.exists():  # moved or removed since
                return None
            editable = "-e " if origin.get("dir_info", {}).get("editable") else ""
            return editable + shlex.quote(f"{path}[{extra}]")
        control = origin.get("vcs_info")
        if control is not None:
            url = f"{control['vcs']}+{url}@{control['commit_id']}"
        return shlex.quote(f"pylyap[{extra}] @ {url}")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _requirements(here: Distribution, extra: str) -> list[str]:
    """Requirements of an extra, those of nested extras of pylyap included."""
    found: list[str] = []
    for line in here.requires or ():
        need, _, marker = line.partition(";")
        match = re.search(r"""extra\s*==\s*["']([^"']+)["']""", marker)
        if match is None or match[1] != extra:
            continue
        nested = re.fullmatch(r"pylyap\[([^]]+)\]", need.strip())
        names = nested[1].split(",") if nested else []
        parts = [part for name in names for part in _requirements(here, name.strip())]
        found += [part for part in (parts or [need.strip()]) if part not in found]
    return found
