"""What takes minutes or a large disk: run by tests/campaign.sh."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from scitq import fetch
from scitq.fetch.settings import Settings
from tests.fetch.servers import Storages, azure, large_s3
from tests.fetch.test_storages import many_files
from tests.fetch.web import WebServer

pytestmark = pytest.mark.campaign
SEED = int(os.environ.get("SCITQ_SEED") or 1)


@pytest.fixture
def settings(settings: Settings, store: Storages) -> Settings:
    """With the configuration of the test's own storages."""
    return replace(settings, rclone_config=str(store.config))


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


@pytest.fixture(params=["local", "loc", "dav", "sftp", "ftp", "larges3", "largeazure"])
def roomy(request: pytest.FixtureRequest, store: Storages, tmp_path: Path) -> Iterator[str]:
    """A new folder of each storage in turn, with what it holds on disk; gone afterwards."""
    name = f"t-{uuid.uuid4().hex[:12]}"
    with contextlib.ExitStack() as servers:
        if request.param == "larges3":
            (tmp_path / "s3" / name).mkdir(parents=True)
            servers.enter_context(large_s3(store.config, tmp_path / "s3"))
        if request.param == "largeazure":
            servers.enter_context(azure(store.config, store.environ, "largeazure", tmp_path / "azure"))
        if request.param == "local":
            yield f"{tmp_path}/{name}"
        elif request.param == "ftp":
            yield f"{request.getfixturevalue('ftp').url}/{name}"
        else:
            yield f"{request.param}://{name}"
    for left in ("s3", "azure"):
        shutil.rmtree(tmp_path / left, ignore_errors=True)


def test_a_sparse_file_of_more_than_5_gib(roomy: str, tmp_path: Path, settings: Settings) -> None:
    """There and back; its end tells whether all of it came."""
    size = 5 * 1024**3 + 12_345
    with open(tmp_path / "x", "wb") as file:
        file.seek(size - 3)
        file.write(b"end")
    patient = replace(
        settings, stall_timeout_s=600.0
    )  # a storage that puts a thousand parts together is silent meanwhile
    try:
        fetch.put(tmp_path / "x", f"{roomy}/x", settings=patient)
        (tmp_path / "x").unlink()
        assert fetch.info(f"{roomy}/x", settings=settings).size == size
        fetch.get(f"{roomy}/x", tmp_path / "y", settings=patient)
        with open(tmp_path / "y", "rb") as file:
            file.seek(-4, os.SEEK_END)
            assert file.tell() == size - 4 and file.read() == b"\0end"
    finally:
        fetch.delete(roomy, recursive=True, settings=settings)
        for left in (tmp_path / "x", tmp_path / "y"):
            left.unlink(missing_ok=True)
