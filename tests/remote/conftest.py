"""A running local worker for each test that asks for one, and a web server to bring things from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scitq.remote import local
from tests.fetch.conftest import all_storages, heard, settings, store
from tests.remote.client import Driver

__all__ = ["all_storages", "heard", "settings", "store"]  # the servers that outputs go to


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A root folder; whatever agent is there at the end is stopped."""
    folder = tmp_path / "worker"
    yield folder
    if folder.exists():
        local.stop(folder)


@pytest.fixture
def driver(root: Path) -> Iterator[Driver]:
    """A driver connected to a fresh agent with two slots."""
    local.ensure(root, linger=60)
    driver = Driver(root)
    driver.say({"slots": 2})
    yield driver
    driver.close()
