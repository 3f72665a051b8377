from __future__ import annotations

import signal

import pytest
from hypothesis import HealthCheck, settings

# The same examples on every run and every machine; a slow machine is no failure.
settings.register_profile(
    "pylyap",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("pylyap")

# Processes started from here inherit it: Ctrl-C is heard where the tests run in the background too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """More threads than this machine has cores, for tests that no bit depends on their number."""
    monkeypatch.setattr("pylyap._parallel.available_threads", lambda: 8)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long sweeps wait to be asked for by name: `pytest -m slow`."""
    if "slow" in config.option.markexpr:
        return
    slow = [item for item in items if "slow" in item.keywords]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if "slow" not in item.keywords]
