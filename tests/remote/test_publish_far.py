"""Bringing outputs to storages: S3, WebDAV, SFTP, a folder behind rclone, and ftp, all real servers on loopback."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scitq import fetch
from scitq.fetch.errors import AccessDenied, BadURI, Cancelled, Collision, Interrupted
from scitq.fetch.retry import Cancel, Policy
from scitq.fetch.settings import Settings
from scitq.remote.agent import publish, stores
from scitq.remote.agent.manifest import NAME, Manifest, parse
from tests.fetch.ftpserver import FtpServer
from tests.fetch.servers import Cable, Storages
from tests.remote.test_publish import FILES, ODD, OWNER, Ended, rows, tree

pytestmark = pytest.mark.servers

FEW = ["s3", "ftp"]


@pytest.fixture(scope="module")
def ftp_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FtpServer]:
    """An FTP server."""
    server = FtpServer(tmp_path_factory.mktemp("ftp"))
    yield server
    server.close()


class Far:
    """A new folder of a storage, not there yet. All but S3 keep theirs on this machine, where it is quickly looked at."""

    def __init__(self, address: str, settings: Settings, folder: Path | None = None) -> None:
        self.address, self.settings, self.folder = address, settings, folder

    def files(self) -> dict[str, bytes]:
        """All that is there, but the manifest."""
        folder = self.folder
        if folder is None:
            folder = Path(f"far-{uuid.uuid4().hex}").absolute()
            fetch.get(f"{self.address}/", f"{folder}/", settings=self.settings)
        return tree(folder)

    def put(self, name: str, data: bytes) -> None:
        path = Path(f"put-{uuid.uuid4().hex}")
        path.write_bytes(data)
        fetch.put(path, fetch.parse(self.address).join(name), settings=self.settings)

    def manifest(self) -> Manifest:
        path = None if self.folder is None else self.folder / NAME
        if path is None:
            path = Path(f"manifest-{uuid.uuid4().hex}").absolute()
            fetch.get(f"{self.address}/{NAME}", path, settings=self.settings)
        found = parse(path.read_bytes())
        assert found is not None
        return found


@pytest.fixture
def ended(tmp_path: Path, settings: Settings, store: Storages) -> Ended:
    """One that has made nothing yet."""
    return Ended(tmp_path / "worker", replace(settings, rclone_config=str(store.config)))


def far_of(kind: str, ended: Ended, store: Storages, ftp_server: FtpServer) -> Far:
    name = f"t-{uuid.uuid4().hex[:12]}"
    if kind == "s3":
        store.bucket(name)
        return Far(f"s3://{name}/out", ended.settings)
    if kind == "ftp":
        return Far(f"{ftp_server.url}/{name}/out", ended.settings, ftp_server.root / name / "out")
    return Far(f"{kind}://{name}/out", ended.settings, store.folders[kind] / name / "out")


@pytest.fixture(params=["s3", "dav", "sftp", "loc", "ftp"])
def far(request: pytest.FixtureRequest, ended: Ended, store: Storages, ftp_server: FtpServer) -> Far:
    """A place in each storage in turn."""
    ftp_server.reset_faults()
    return far_of(request.param, ended, store, ftp_server)


@pytest.mark.promise("data 11.14", "data 11.21")
def test_every_file_arrives_and_the_manifest_says_so(ended: Ended, far: Far) -> None:
    files = {**FILES, **{name: name.encode() for name in ODD}}
    if far.address.startswith("loc"):
        files["line\nbreak"] = files["ctl\x01"] = b"x"
    ended.make(files)
    (ended.output() / "hollow").mkdir()
    (ended.output() / "link").symlink_to("d/deep/b")
    files["link"] = files["d/deep/b"]

    brought = ended.bring(far.address)

    assert far.files() == files
    assert sorted(brought.files) == rows(files)
    assert far.manifest() == Manifest(OWNER, 1, True, brought.files)
    assert publish.find_complete({"output": far.address}, ended.settings) == brought.files
    assert os.listdir(ended.root / "exec" / "1") == ["output"]


@pytest.mark.parametrize("far", FEW, indirect=True)
def test_somebody_elses_files_there_are_refused_or_kept(ended: Ended, far: Far) -> None:
    far.put("theirs", b"theirs")
    far.put("a", b"old")
    ended.make(FILES)
    for call in (
        lambda: ended.bring(far.address),
        lambda: publish.check_target({"output": far.address}, 1, ended.settings),
    ):
        with pytest.raises(Collision, match="it holds files that no task"):
            call()
    assert far.files() == {"theirs": b"theirs", "a": b"old"}

    ended.bring(far.address, overwrite=True)

    assert far.files() == {**FILES, "theirs": b"theirs"}
    with pytest.raises(Collision, match="the output of "):
        publish.check_target({"output": far.address, "owner": "file:2"}, 3, ended.settings)
    publish.check_target({"output": far.address, "owner": OWNER}, 3, ended.settings)


def test_the_same_task_replaces_what_it_wrote_before_and_nothing_else(ended: Ended, far: Far) -> None:
    ended.make({"same size": b"1", "stale": b"1", "d/stale": b"1"}, 1)
    ended.bring(far.address, 1)
    far.put("notes", b"mine")
    ended.make({"same size": b"2", "new": b"2"}, 2)

    ended.bring(far.address, 2)

    assert far.files() == {"same size": b"2", "new": b"2", "notes": b"mine"}
    assert (far.manifest().execution, far.manifest().is_complete) == (2, True)


@pytest.mark.parametrize("far", FEW, indirect=True)
def test_a_complete_output_is_one_whose_files_are_all_there(ended: Ended, far: Far) -> None:
    goes = {"output": far.address}
    assert publish.find_complete(goes, ended.settings) is None
    ended.make(FILES)
    brought = ended.bring(far.address)
    assert publish.find_complete(goes, ended.settings) == brought.files
    far.put("a", b"longer than it was")
    assert publish.find_complete(goes, ended.settings) is None


@pytest.mark.parametrize("kind", FEW)
def test_a_name_that_a_storage_cannot_hold_is_refused_before_anything_is_sent(
    ended: Ended, kind: str, store: Storages, ftp_server: FtpServer
) -> None:
    far = far_of(kind, ended, store, ftp_server)
    ended.make({"a": b"", "\udcff": b""})
    with pytest.raises(BadURI, match=r"OUTPUT/\\xff: \w+ cannot hold this name \(it is no UTF-8\)"):
        ended.bring(far.address)
    assert publish.find_complete({"output": far.address}, ended.settings) is None
    if far.folder is not None:
        assert not far.folder.exists()
    brought = ended.bring(far.address, failed=True)
    assert [row[0] for row in brought.files] == ["a"] and "xff" in brought.left_out[0]


# Faults.


class Line(Cable):
    """A line to a server that can be cut, now or after so many bytes up; while it is, nobody gets through."""

    def __init__(self, port: int) -> None:
        self.left: int | None = None
        self.is_cut = False
        self.cuts = 0
        super().__init__(port)

    def _serve(self, near: socket.socket) -> None:
        if self.is_cut:
            near.close()
            return
        super()._serve(near)

    def _pump(self, source: socket.socket, target: socket.socket, up: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 14):
                if up and self.left is not None:
                    self.left -= len(data)
                    if self.left < 0:
                        self.left = None
                        self.cuts += 1
                        break
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def line(store: Storages, ended: Ended, tmp_path: Path) -> Iterator[Line]:
    """A line to S3, as remote `line`."""
    found = Line(store.moto_port)
    text = store.config.read_text().partition("[Other")[0].replace("[s3]", "[line]")
    config = tmp_path / "line.conf"
    config.write_text(re.sub(r"endpoint = .*", f"endpoint = http://127.0.0.1:{found.port}", text))
    ended.settings = replace(ended.settings, rclone_config=str(config))
    yield found
    found.close()


def bucket(store: Storages) -> str:
    name = f"t-{uuid.uuid4().hex[:12]}"
    store.bucket(name)
    return name


@pytest.mark.parametrize("cut_after", [2_000, 400_000])
def test_a_connection_that_is_cut_costs_no_file(ended: Ended, store: Storages, line: Line, cut_after: int) -> None:
    far = Far(f"line://{bucket(store)}/out", ended.settings)
    files = {f"{n}": random.Random(n).randbytes(200_000) for n in range(4)}
    ended.make(files)
    line.left = cut_after
    brought = ended.bring(far.address)
    assert line.cuts == 1
    assert far.files() == files and sorted(brought.files) == rows(files)


def test_a_line_that_stays_cut_is_one_error_and_a_later_retry_succeeds(
    ended: Ended, store: Storages, line: Line
) -> None:
    far = Far(f"line://{bucket(store)}/out", ended.settings)
    ended.make(FILES)
    ended.settings = replace(
        ended.settings, retry=Policy(attempts=2, first_wait_s=0.001), rclone_options=("--low-level-retries=1",)
    )
    send = stores.RcloneStore.send

    def cut(self: stores.RcloneStore, top: str, files: Any) -> dict[str, str]:
        line.is_cut = True
        return send(self, top, files)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stores.RcloneStore, "send", cut)
        with pytest.raises(Interrupted):
            ended.bring(far.address)
    line.is_cut = False
    found = far.manifest()
    assert not found.is_complete and found.is_of(OWNER)
    assert publish.find_complete({"output": far.address}, ended.settings) is None
    assert sorted(ended.bring(far.address).files) == rows(FILES) and far.files() == FILES


def test_a_server_that_says_nothing_is_left_within_seconds_of_a_cancel(ended: Ended, line: Line) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        config = Path(str(ended.settings.rclone_config))
        config.write_text(config.read_text().replace(str(line.port), str(deaf.getsockname()[1])))
        cancel = Cancel()
        ended.settings = replace(ended.settings, cancel=cancel)
        ended.make(FILES)
        failures: list[BaseException] = []

        def bring() -> None:
            try:
                ended.bring("line://bucket/out")
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=bring)
        thread.start()
        connection, _ = deaf.accept()
        cancel.set()
        thread.join(30)
        connection.close()
    assert not thread.is_alive() and [type(error) for error in failures] == [Cancelled]


def test_who_may_not_write_there_is_told_so(
    ended: Ended, store: Storages, ftp_server: FtpServer, tmp_path: Path
) -> None:
    ftp_server.reset_faults()
    ended.make(FILES)
    with pytest.raises(AccessDenied) as told:
        ended.bring(f"{ftp_server.url.replace('ftp://', 'ftp://reader:r@')}/of-reader")
    assert ":r@" not in str(told.value)
    config = tmp_path / "wrong.conf"
    config.write_text(store.config.read_text().replace("user = me", "user = you"))
    ended.settings = replace(ended.settings, rclone_config=str(config))
    with pytest.raises(AccessDenied, match="sftp://wherever"):
        ended.bring("sftp://wherever")


def test_of_two_that_claim_one_place_at_once_only_one_completes(ended: Ended, store: Storages) -> None:
    name = uuid.uuid4().hex
    far = Far(f"loc://{name}", ended.settings, store.folders["loc"] / name)
    ended.make({"a": b"1"}, 1)
    ended.make({"a": b"2"}, 2)
    send = stores.RcloneStore.send

    def meanwhile(self: stores.RcloneStore, top: str, files: Any) -> dict[str, str]:
        patch.undo()
        (store.folders["loc"] / name / NAME).unlink()  # as if both had looked before either came
        ended.bring(far.address, 2, "file:2", overwrite=True)
        return send(self, top, files)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stores.RcloneStore, "send", meanwhile)
        with pytest.raises(Collision, match="another task has claimed this place meanwhile"):
            ended.bring(far.address, 1)
    found = far.manifest()
    assert found.owner == "file:2" and found.is_complete


class Killed(BaseException):
    """Stands for kill -9 between two steps."""


STEPS = ("top", "read", "rows", "write", "send", "delete")


def arm(patch: pytest.MonkeyPatch, kind: type, left: int) -> None:
    """Have the store die at that step; in the middle of it where it sends."""

    def wrap(name: str, call: Any) -> Any:
        def counted(self: Any, *args: Any, **more: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0 and name == "send":
                call(self, args[0], args[1][:1])
            if left == 0:
                raise Killed
            return call(self, *args, **more)

        return counted

    for name in STEPS:
        patch.setattr(kind, name, wrap(name, getattr(kind, name)))


@pytest.mark.parametrize("kind", ["here", "loc", "ftp"])
def test_killed_between_any_two_steps_it_is_not_complete_and_the_next_completes_it(
    ended: Ended, kind: str, store: Storages, ftp_server: FtpServer, tmp_path: Path
) -> None:
    ftp_server.reset_faults()
    classes = {"here": stores.HereStore, "loc": stores.RcloneStore, "ftp": stores.FtpStore}
    numbers = list(range(1, 40))
    if kind == "loc" and "SCITQ_ROUNDS" not in os.environ:  # a second each
        numbers = [3, 6]
    hits = 0
    for number in numbers:
        if kind == "here":
            far = Far(str(tmp_path / f"here{number}"), ended.settings, tmp_path / f"here{number}")
        else:
            far = far_of(kind, ended, store, ftp_server)
        folder = far.folder
        assert folder is not None
        folder.mkdir(parents=True)
        for name in ("old", "both", "theirs"):
            (folder / name).write_bytes(b"1")
        (folder / NAME).write_bytes(Manifest(OWNER, 1, True, [("old", 1, None), ("both", 1, None)]).text())
        ended.make({"both": b"2", "new": b"22", "d/new": b"222"}, 2)
        new = {"both": b"2", "new": b"22", "d/new": b"222"}
        with pytest.MonkeyPatch.context() as patch:
            arm(patch, classes[kind], number)
            try:
                ended.bring(far.address, 2)
                break
            except Killed:
                hits += 1
        found = far.manifest()
        assert not found.is_complete or found.execution == 1 or far.files() == {**new, "theirs": b"1"}
        ended.bring(far.address, 2)
        assert far.files() == {**new, "theirs": b"1"}
        assert far.manifest().is_complete and far.manifest().execution == 2
        shutil.rmtree(ended.root / "exec" / "2")
    assert hits >= min(8, len(numbers))
    print(f"{kind}: {hits} points")


def test_what_a_killed_transfer_left_under_a_working_name_goes(ended: Ended, store: Storages) -> None:
    name = uuid.uuid4().hex
    folder = store.folders["loc"] / name
    far = Far(f"loc://{name}", ended.settings, folder)
    ended.make(FILES, 1)
    ended.bring(far.address, 1)
    (folder / "a.0123abcd.partial").write_text("half")
    (folder / "mine.partial").write_text("whole")
    ended.make(FILES, 2)
    ended.bring(far.address, 2)
    assert far.files() == {**FILES, "mine.partial": b"whole"}


def test_five_thousand_files_arrive(ended: Ended) -> None:
    files = {f"{n % 10}/{n}": str(n).encode() for n in range(5000)}
    ended.make(files)
    store = Far(f"loc://{uuid.uuid4().hex}", ended.settings)
    assert sorted(ended.bring(store.address).files) == rows(files)


FULL = """
import os, subprocess, sys
from scitq.fetch.errors import NoSpace
from scitq.fetch.settings import Settings
from scitq.remote.agent import publish
root, disk = sys.argv[1:]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], check=True)
for overwrite in (False, True):
    if overwrite:
        os.mkdir(disk + "/place")
        open(disk + "/place/theirs", "w").close()
    owed = {"id": 1, "output": disk + "/place", "owner": "file:1", "overwrite": overwrite}
    with open(disk + "/ballast", "wb") as ballast:
        ballast.write(bytes(700_000))
    try:
        publish.bring(root, owed, "1", Settings())
    except NoSpace as error:
        print(error)
    else:
        sys.exit("it fitted")
    print(sorted(name for _, _, names in os.walk(disk) for name in names))
    assert os.path.getsize(root + "/exec/1/output/large") == 600_000
os.unlink(disk + "/ballast")
files = publish.bring(root, owed, "1", Settings()).files
assert os.path.getsize(disk + "/place/large") == 600_000 and files[0][1] == 600_000, files
"""


def test_a_full_disk_at_the_target_is_one_error_and_nothing_is_lost(settings: Settings, tmp_path: Path) -> None:
    local_ended = Ended(tmp_path / "worker", settings)
    local_ended.make({"large": bytes(600_000)})
    (tmp_path / "disk").mkdir()
    command = [
        "unshare",
        "--map-root-user",
        "--mount",
        sys.executable,
        "-c",
        FULL,
        str(local_ended.root),
        str(tmp_path / "disk"),
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    first, whole, second, piecewise = done.stdout.splitlines()
    assert "do not fit on the disk" in first and "do not fit on the disk" in second
    assert whole == "['ballast']" and "large" not in piecewise and ".scitq-manifest.json" in piecewise
