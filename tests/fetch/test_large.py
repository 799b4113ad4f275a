"""What takes minutes or a large disk: run by tests/campaign.sh."""

from __future__ import annotations

import os
import random
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from scitq import fetch
from scitq.fetch.settings import Settings
from tests.fetch.ftpserver import FtpServer
from tests.fetch.servers import Storages
from tests.fetch.test_storages import KINDS, many_files
from tests.fetch.web import WebServer

pytestmark = pytest.mark.campaign
SEED = int(os.environ.get("SCITQ_SEED") or 1)


@pytest.fixture
def settings(settings: Settings, store: Storages) -> Settings:
    """With the configuration of the test's own storages."""
    return replace(settings, rclone_config=str(store.config))


@pytest.fixture(params=KINDS)
def top(request: pytest.FixtureRequest, store: Storages, azure_storage: None, ftp: FtpServer, tmp_path: Path) -> str:
    """A new folder of each storage in turn."""
    name = f"t-{uuid.uuid4().hex[:12]}"
    if request.param == "s3":
        store.bucket(name)
    return {"local": f"{tmp_path}/{name}", "ftp": f"{ftp.url}/{name}"}.get(request.param, f"{request.param}://{name}")


def test_five_thousand_small_files_in_one_folder(top: str, tmp_path: Path, settings: Settings) -> None:
    many_files(5000, top, tmp_path, replace(settings, parallel=16))


def test_a_gigabyte_cut_at_random_bytes_costs_less_than_a_tenth_more(
    web: WebServer, tmp_path: Path, settings: Settings
) -> None:
    chance = random.Random(SEED)
    data = chance.randbytes(1 << 20) * 1000
    web.add("/x", data, cuts=[chance.randrange(1, 300_000_000) for _ in range(5)])

    fetch.get(f"{web.url}/x", tmp_path / "x", settings=settings)

    assert (tmp_path / "x").read_bytes() == data and web.sent_bytes < 1.1 * len(data)


@pytest.mark.parametrize("kind", ["local", "loc", "dav", "ftp"])
def test_a_sparse_file_of_more_than_5_gib(
    kind: str, store: Storages, ftp: FtpServer, tmp_path: Path, settings: Settings
) -> None:
    """There and back; its end tells whether all of it came."""
    size = 5 * 1024**3 + 12_345
    with open(tmp_path / "x", "wb") as file:
        file.seek(size - 3)
        file.write(b"end")
    name = f"t-{uuid.uuid4().hex[:12]}"
    top = {"local": f"{tmp_path}/{name}", "ftp": f"{ftp.url}/{name}"}.get(kind, f"{kind}://{name}")
    try:
        fetch.put(tmp_path / "x", f"{top}/x", settings=settings)
        (tmp_path / "x").unlink()
        assert fetch.info(f"{top}/x", settings=settings).size == size
        fetch.get(f"{top}/x", tmp_path / "y", settings=settings)
        with open(tmp_path / "y", "rb") as file:
            file.seek(-4, os.SEEK_END)
            assert file.tell() == size - 4 and file.read() == b"\0end"
    finally:
        fetch.delete(top, recursive=True, settings=settings)
        for left in (tmp_path / "x", tmp_path / "y"):
            left.unlink(missing_ok=True)
