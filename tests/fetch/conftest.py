"""Real servers on loopback for the tests of data, one of each for the whole session."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from scitq.fetch.progress import Progress
from scitq.fetch.retry import Policy
from scitq.fetch.settings import Settings
from tests.fetch.ftpserver import FtpServer
from tests.fetch.servers import Storages, azure, storages


@pytest.fixture(scope="session")
def all_storages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storages]:
    """S3, WebDAV, SFTP and a folder behind rclone."""
    with storages(tmp_path_factory.mktemp("storages")) as found:
        yield found


@pytest.fixture
def store(all_storages: Storages) -> Storages:
    """The storages; tests use buckets and folders of their own."""
    all_storages.s3.reset()
    return all_storages


@pytest.fixture(scope="session")
def azure_storage(all_storages: Storages) -> Iterator[None]:
    """Azure blob storage, as remote `azure` of the same configuration."""
    with azure(all_storages.config, all_storages.environ):
        yield


@pytest.fixture(scope="session")
def ftp_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FtpServer]:
    """The FTP server."""
    server = FtpServer(tmp_path_factory.mktemp("ftp"))
    yield server
    server.close()


@pytest.fixture
def ftp(ftp_server: FtpServer) -> Iterator[FtpServer]:
    """The FTP server, empty and in order."""
    ftp_server.reset()
    yield ftp_server
    ftp_server.reset()


KINDS = ["local", "ftp", "s3", "azure", "dav", "sftp", "loc"]


@pytest.fixture(params=KINDS)
def top(request: pytest.FixtureRequest, store: Storages, azure_storage: None, ftp: FtpServer, tmp_path: Path) -> str:
    """A new folder of each kind of storage in turn."""
    name = f"t-{uuid.uuid4().hex[:12]}"
    if request.param == "s3":
        store.bucket(name)
    return {"local": f"{tmp_path}/{name}", "ftp": f"{ftp.url}/{name}"}.get(request.param, f"{request.param}://{name}")


@dataclass
class Heard:
    """What a transfer told."""

    warnings: list[str] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)


@pytest.fixture
def heard() -> Heard:
    """Who listens."""
    return Heard()


@pytest.fixture
def settings(heard: Heard) -> Settings:
    """Patient, but with waits too short to be felt."""
    return Settings(
        warn=heard.warnings.append, report=heard.progress.append, retry=Policy(first_wait_s=0.001, longest_wait_s=0.01),
        connect_timeout_s=60.0, stall_timeout_s=120.0,
    )  # fmt: skip


def names(folder: Path) -> list[str]:
    """Every file and folder below, also hidden ones."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
