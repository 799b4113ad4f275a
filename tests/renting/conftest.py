"""An engine that rents from a make-believe cloud whose machines are real agents of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scitq.remote.providers.fake import Cloud
from tests.engine.conftest import Opener, open_engine
from tests.renting.dream import Dream

__all__ = ["Opener", "open_engine"]


@pytest.fixture
def dream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dream]:
    """A cloud, configured as provider `dream`; nothing of it is left at the end."""
    monkeypatch.setenv("SCITQ_RENTING_PACE", "0.02")
    found = Dream(Cloud(tmp_path / "cloud", bare=True))
    found.configure(monkeypatch, tmp_path)
    yield found
    found.end()
