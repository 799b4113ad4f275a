"""Storages on loopback, and the rclone configuration that names them."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MOTO = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(*server.get_host_and_port(), flush=True)
for line in sys.stdin:  # fill BUCKET COUNT: so many small objects without so many requests; every tenth has no MD5
    from moto.s3.models import s3_backends
    from moto.core import DEFAULT_ACCOUNT_ID
    _, bucket, count = line.split()
    backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    for number in range(int(count)):
        made = backend.put_object(bucket, f"{number:05}.txt", str(number).encode())
        if number % 10 == 0:
            made._etag = f"{made.etag.strip(chr(34))}-1"
"""


STRICT = """
import json, sys
from moto.core import DEFAULT_ACCOUNT_ID
from moto.iam.models import iam_backends
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
iam = iam_backends[DEFAULT_ACCOUNT_ID]["aws"]
keys = []
for name, actions in ("reader", ["s3:Get*", "s3:List*"]), ("writer", ["s3:*"]):
    iam.create_user("us-east-1", name)
    rule = {"Effect": "Allow", "Action": actions, "Resource": "*"}
    iam.put_user_policy(name, "p", json.dumps({"Version": "2012-10-17", "Statement": [rule]}))
    key = iam.create_access_key(name)
    keys += [key.access_key_id, key.secret_access_key]
s3_backends[DEFAULT_ACCOUNT_ID]["aws"].create_bucket("bucket", "us-east-1")
print(*server.get_host_and_port(), *keys, flush=True)
sys.stdin.read()
"""


class Cable:
    """A port that passes on to another, counts the bytes each way, and may be cut or clogged after some that come back."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        self.up_bytes = self.down_bytes = 0
        self.at_once = self.most_at_once = 0
        self.cut_at = self.hold_at = -1  # bytes that came back; the cut happens once
        self.is_held, self.release = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def reset(self) -> None:
        """Count from zero."""
        with self._lock:
            self.up_bytes = self.down_bytes = self.most_at_once = 0
            self.cut_at = self.hold_at = -1
            self.is_held.clear()
            self.release.clear()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            yield
        finally:
            with self._lock:
                self.at_once -= 1

    def _serve(self, near: socket.socket) -> None:
        with self._counted(), near, socket.create_connection(("127.0.0.1", self._to)) as far:
            back = threading.Thread(target=self._pump, args=(far, near, False), daemon=True)
            back.start()
            self._pump(near, far, True)
            back.join()

    def _pump(self, source: socket.socket, target: socket.socket, up: bool) -> None:
        with contextlib.ExitStack() as ends, contextlib.suppress(OSError):
            for end in (source, target):
                ends.callback(_hang_up, end)
            while data := source.recv(1 << 16):
                with self._lock:
                    if up:
                        self.up_bytes += len(data)
                    else:
                        self.down_bytes += len(data)
                        if 0 <= self.cut_at <= self.down_bytes:
                            self.cut_at = -1
                            return
                if not up and 0 <= self.hold_at <= self.down_bytes:
                    self.is_held.set()
                    self.release.wait(120)
                target.sendall(data)

    def close(self) -> None:
        """Take no more calls."""
        self._listener.close()


def _hang_up(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


@dataclass
class Storages:
    """What is there: remotes s3, Other-S3.2 (the same, by another name), dav, sftp, loc; and the file that says so."""

    config: Path
    s3: Cable
    folders: dict[str, Path]
    moto_port: int
    environ: dict[str, str]
    """Of the session: what is started later for all tests carries no mark of a single one."""

    server: subprocess.Popen[bytes]

    def fill(self, bucket: str, count: int) -> None:
        """Put so many small objects there at once; every tenth has no MD5."""
        assert self.server.stdin is not None
        self.server.stdin.write(f"fill {bucket} {count}\n".encode())
        self.server.stdin.flush()
        last = f"http://127.0.0.1:{self.moto_port}/{bucket}?prefix={count - 1:05}.txt"
        deadline = time.monotonic() + 120
        while True:
            with urllib.request.urlopen(last) as answer:
                if b"<Key>" in answer.read():
                    return
            assert time.monotonic() < deadline, "the server makes no objects"
            time.sleep(0.05)

    def bucket(self, name: str) -> None:
        """Make one."""
        url = f"http://127.0.0.1:{self.moto_port}/{name}"
        urllib.request.urlopen(urllib.request.Request(url, method="PUT")).close()


RCLONE = shutil.which("rclone") or os.path.join(os.path.dirname(sys.executable), "rclone")
AZURITE = shutil.which("azurite-blob", path=f"{sys.prefix}/node_modules/.bin{os.pathsep}{os.environ['PATH']}")
"""Azure's storage emulator, where tests/run.sh put it."""


@contextmanager
def azure(
    config: Path, environ: dict[str, str], name: str = "azure", folder: Path | None = None
) -> Iterator[None]:  # fmt: skip
    """Azure blob storage, which takes two seconds to begin: only where it is used. Adds a remote.

    It keeps what it has in memory, or in a folder.
    """
    kept = [f"--location={folder}"] if folder else ["--inMemoryPersistence"]
    assert AZURITE is not None, "npm install --prefix .venv-test azurite"
    server = subprocess.Popen(
        [AZURITE, *kept, "--blobHost=127.0.0.1", "--blobPort=0", "--skipApiVersionCheck", "--disableTelemetry",
         "--silent"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=environ,
    )  # fmt: skip
    try:
        said = _line(server.stdout, lambda line: "successfully listens on" in line)
        with config.open("a") as file:
            url = said.split()[-1]
            file.write(f"[{name}]\ntype = azureblob\nuse_emulator = true\nendpoint = {url}/devstoreaccount1\n")
        yield
    finally:
        server.kill()
        server.wait()
        if server.stdout is not None:
            server.stdout.close()


@contextmanager
def large_s3(config: Path, folder: Path) -> Iterator[None]:
    """S3 over a folder, for what does not fit into memory. Adds the remote `larges3`; buckets are folders in it."""
    server = _serve(
        [RCLONE, "serve", "s3", "--use-json-log", "--log-level=NOTICE", "--addr=127.0.0.1:0", "--config=",
         "--auth-key=test,geheim1234", str(folder)]
    )  # fmt: skip
    try:
        url = _port_url(_line(server.stderr, lambda line: "127.0.0.1:" in line))
        with config.open("a") as file:
            file.write(
                f"[larges3]\ntype = s3\nprovider = Rclone\nendpoint = {url}\naccess_key_id = test\n"
                "secret_access_key = geheim1234\n"
            )
        yield
    finally:
        server.kill()
        server.wait()
        if server.stderr is not None:
            server.stderr.close()


@contextmanager
def strict_s3() -> Iterator[dict[str, dict[str, str]]]:
    """S3 that looks at who asks: the sections of one who may read its `bucket`, and of one who may write, too."""
    server = subprocess.Popen(
        [sys.executable, "-c", STRICT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env={**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": "0"},
    )  # fmt: skip
    try:
        said = _line(server.stdout, lambda line: line.startswith("127.0.0.1")).split()
        same = {
            "type": "s3", "provider": "Other", "endpoint": f"http://127.0.0.1:{said[1]}", "region": "us-east-1",
            "force_path_style": "true", "no_check_bucket": "true",
        }  # fmt: skip
        yield {
            name: {**same, "access_key_id": said[at], "secret_access_key": said[at + 1]}
            for name, at in (("reader", 2), ("writer", 4))
        }
    finally:
        server.kill()
        server.wait()
        for pipe in (server.stdin, server.stdout):
            if pipe is not None:
                pipe.close()


@contextmanager
def storages(folder: Path) -> Iterator[Storages]:
    """All of them, for as long as one is in here."""
    folders = {name: folder / name for name in ("dav", "sftp", "loc")}
    for path in folders.values():
        path.mkdir()
    serve = [
        RCLONE,
        "serve",
        "--use-json-log",
        "--log-level=NOTICE",
        "--addr=127.0.0.1:0",
    ]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", MOTO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ),
        _serve([*serve[:2], "webdav", *serve[2:], str(folders["dav"])]),
        _serve([*serve[:2], "sftp", "--user=me", "--pass=geheim1234", *serve[2:], str(folders["sftp"])]),
    ]
    try:
        moto_port = int(_line(started[0].stdout, lambda line: line.startswith("127.0.0.1")).split()[1])
        dav = _line(started[1].stderr, lambda line: "started on" in line)
        sftp = _line(started[2].stderr, lambda line: "listening on" in line)
        cable = Cable(moto_port)
        config = folder / "rclone.conf"
        hidden = subprocess.run(
            [RCLONE, "obscure", "geheim1234"], stdout=subprocess.PIPE, text=True, check=True
        ).stdout.strip()
        s3 = (
            f"type = s3\nprovider = Other\nendpoint = http://127.0.0.1:{cable.port}\naccess_key_id = test\n"
            "secret_access_key = geheim1234\nregion = us-east-1\nforce_path_style = true\nno_check_bucket = true\n"
        )
        config.write_text(
            f"[s3]\n{s3}[Other-S3.2]\n{s3}"
            f"[dav]\ntype = webdav\nurl = {_port_url(dav)}\nvendor = other\n"
            f"[sftp]\ntype = sftp\nhost = 127.0.0.1\nport = {_port_url(sftp).rpartition(':')[2].strip('/')}\nuser = me\npass = {hidden}\n"
            "shell_type = none\nmd5sum_command = none\nsha1sum_command = none\n"
            f"[loc]\ntype = alias\nremote = {folders['loc']}\n"
        )
        yield Storages(config, cable, folders, moto_port, dict(os.environ), started[0])
        cable.close()
    finally:
        for each in started:
            each.kill()
            each.wait()
            for pipe in (each.stdin, each.stdout, each.stderr):
                if pipe is not None:
                    pipe.close()


def _serve(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _line(pipe: object, fits: object, patience_s: float = 60.0) -> str:
    """The first line that fits."""
    assert callable(fits) and hasattr(pipe, "fileno")
    said = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe.fileno(), selectors.EVENT_READ)
        while selector.select(patience_s):
            data = os.read(pipe.fileno(), 1 << 16)
            said += data
            for line in said.decode(errors="replace").splitlines(keepends=True):
                if line.endswith("\n") and fits(line):
                    # A pipe that nobody reads would stop the server one day.
                    threading.Thread(target=_drain, args=(os.dup(pipe.fileno()),), daemon=True).start()
                    return line
            assert data, f"the server ended: {said!r}"
    raise AssertionError(f"the server said only {said!r}")


def _drain(handle: int) -> None:
    with open(handle, "rb") as pipe:
        while pipe.read1(1 << 16):
            pass


def _port_url(line: str) -> str:
    """The address in a line of rclone's log."""
    said = str(json.loads(line)["msg"])
    port = said.rpartition("127.0.0.1:")[2]
    digits = "".join(char for char in port if char.isdigit() or char == "/").split("/")[0]
    return f"http://127.0.0.1:{digits}/"
