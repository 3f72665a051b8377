from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The same examples in every run; no deadline, since machines differ.
settings.register_profile(
    "pylyap",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("pylyap")

# The module readline, which pytest imports, sets these for child processes such as test workers.
for name in ("COLUMNS", "LINES"):
    os.environ.pop(name, None)

# A process per core runs the tests: threads of PyTorch and of a BLAS would wait for each other.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

# Inherited by child processes, so that they receive SIGINT if the tests run in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """More threads than cores, for tests that results do not depend on the number of threads."""
    monkeypatch.setattr("pylyap._parallel.available_threads", lambda: 8)


@pytest.fixture
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not flush files to disk, which takes most of the time of small studies."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def table(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must succeed, and returns what it printed."""
    from command_line import run

    def printed(*args: object) -> str:
        assert run(*args) == 0
        return capsys.readouterr().out

    return printed


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a complete toy study in tasks of 4 runs; tests must not change it."""
    import toys

    import pylyap as pl

    path = toys.prepare(tmp_path_factory.mktemp("studies") / "done", toys.toy(), 4)
    pl.run_study(toys.toy(), path)
    return Path(path)


@pytest.fixture
def path(finished: Path, tmp_path: Path) -> Path:
    """A copy of the folder `finished`, which a test may change."""
    return Path(shutil.copytree(finished, tmp_path / "finished"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked as slow, or as pages of the documentation, run only with `pytest -m <mark>`."""
    optional = [mark for mark in ("slow", "pages") if mark not in config.option.markexpr]
    left_out = [item for item in items if any(map(item.get_closest_marker, optional))]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if not any(map(item.get_closest_marker, optional))]
