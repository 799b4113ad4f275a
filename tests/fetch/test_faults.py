"""What befalls the machine that fetches: a full disk, a kill, Ctrl-C; and https with its certificates."""

from __future__ import annotations

import datetime
import gzip
import io
import ipaddress
import os
import random
import resource
import signal
import ssl
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from scitq import fetch
from scitq.fetch.errors import AccessDenied, NoSpace
from scitq.fetch.settings import Settings
from tests.fetch.conftest import names
from tests.fetch.servers import Storages
from tests.fetch.web import WebServer, wait_for

DATA = random.Random(8).randbytes(3_000_000)


@contextmanager
def small_files_only(limit_bytes: int) -> Iterator[None]:
    """The kernel refuses to let any file grow further, as a full disk does, for this process and its children."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("first", "second"):
            info = tarfile.TarInfo(name)
            info.size = len(DATA) if name == "second" else 5
            archive.addfile(info, io.BytesIO(b"small" if name == "first" else DATA))
    return buffer.getvalue()


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x", bytes(3_000_000))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "rest, make",
    [("", lambda: DATA), ("|gunzip", lambda: gzip.compress(bytes(3_000_000))), ("|untar", tarred), ("|unzip", zipped),
     ("|mv:sub", lambda: DATA)],
)  # fmt: skip
def test_a_full_disk_is_said_once_and_nothing_is_left_on_it(
    rest: str, make: Callable[[], bytes], web: WebServer, tmp_path: Path, settings: Settings
) -> None:
    web.add("/x", make())
    (tmp_path / "out").mkdir()

    with small_files_only(1_000_000), pytest.raises(NoSpace, match="no space left"):
        fetch.get(f"{web.url}/x{rest}", f"{tmp_path}/out/", settings=settings)

    assert names(tmp_path / "out") == []
    fetch.get(f"{web.url}/x{rest}", f"{tmp_path}/out/", settings=settings)
    assert names(tmp_path / "out") != []


def test_a_disk_that_is_full_for_rclone_is_full(store: Storages, tmp_path: Path, settings: Settings) -> None:
    settings = replace(settings, rclone_config=str(store.config))
    (store.folders["loc"] / "full").mkdir()
    (store.folders["loc"] / "full" / "x").write_bytes(DATA)

    with small_files_only(1_000_000), pytest.raises(NoSpace):
        fetch.get("loc://full/x", tmp_path / "out" / "x", settings=settings)

    assert names(tmp_path / "out") == []


FETCHING = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs the tests in the background ignores it
from scitq import fetch
fetch.get(sys.argv[1], sys.argv[2])
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("rest", ["", "|gunzip"])
def test_a_process_that_is_killed_leaves_nothing_under_the_final_name(
    number: int, rest: str, web: WebServer, tmp_path: Path, settings: Settings
) -> None:
    data = gzip.compress(DATA, compresslevel=1)
    web.add("/x.gz", data, stalls=[2_500_000])
    arguments = [sys.executable, "-c", FETCHING, f"{web.url}/x.gz{rest}", f"{tmp_path}/out/"]
    with subprocess.Popen(
        arguments, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ) as child:
        wait_for(web.stalled.is_set)
        child.send_signal(number)
        child.wait(60)
    web.release.set()

    assert [name for name in names(tmp_path / "out") if ".scitq-" not in name] == []
    assert fetch.list_content(tmp_path / "out", settings=settings) == []
    for left in (tmp_path / "out").glob("*.work"):
        os.utime(left, (1, 1))  # as if it were long ago
    fetch.get(f"{web.url}/x.gz{rest}", f"{tmp_path}/out/", settings=settings)
    assert len(names(tmp_path / "out")) == 1  # what was left is resumed or cleared away
    assert fetch.list_content(tmp_path / "out", settings=settings)[0].size == (len(DATA) if rest else len(data))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate that nobody trusts, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("certificate")
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
def secure_web(certificate: tuple[Path, Path]) -> Iterator[WebServer]:
    """The web server, behind TLS."""
    server = WebServer()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server.secure(context)
    yield server
    server.close()


def test_https_is_resumed_like_http_once_its_certificate_is_trusted(
    secure_web: WebServer,
    certificate: tuple[Path, Path],
    tmp_path: Path,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secure_web.add("/x", DATA, cuts=[1_000_000, 1_000_000])
    with pytest.raises(AccessDenied, match="not trusted"):
        fetch.get(f"{secure_web.url}/x", tmp_path, settings=settings)
    assert secure_web.requests == []
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))

    fetch.get(f"{secure_web.url}/x", tmp_path, settings=settings)

    assert (tmp_path / "x").read_bytes() == DATA and len(secure_web.requests) == 3
    assert secure_web.url.startswith("https://")
