"""A file moves to a real host over the user's own ssh, with scitq, which that host does not have; and two drivers of one worker."""

from __future__ import annotations

import os
import random
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from scitq import promotion
from scitq.engine import Engine
from scitq.errors import MoveFailed, StaleDriver
from scitq.remote import environment
from scitq.remote.environment import Kind
from scitq.states import TaskState
from scitq.store import moved
from scitq.store.connection import Store
from scitq.store.schema import SCHEMA
from tests.crash.conftest import dice
from tests.engine.test_copies import problem_of
from tests.engine.test_engine import until
from tests.hosts.cloud import Cloud
from tests.hosts.host import Host
from tests.shell.conftest import Lab

__all__ = ["dice"]

pytestmark = pytest.mark.servers


@pytest.fixture
def far(tmp_path: Path, cloud: Cloud) -> Iterator[Lab]:
    """A lab whose ssh knows the hosts of the cloud."""
    lab = Lab(tmp_path)
    lab.environ["SCITQ_SSH"] = f"ssh -F {cloud.folder / 'ssh_config'} -o BatchMode=yes"
    (lab.folder / "lab.scitq").touch()
    yield lab
    lab.clean_up()


@pytest.mark.sampled
def test_a_bare_host_is_given_scitq_drives_the_file_and_gives_it_back(far: Lab, host: Host) -> None:
    far.scitq("launch", "--shell", "-n", "kept", "--", "hostname > $OUTPUT/name")
    version = host.said("python3 -c 'import sys; print(\"%d.%d\" % sys.version_info[:2])'")
    if version != Kind.here().version:  # its packages cannot be taken from here, and it has no internet
        said = far.scitq("promote", host.name, code=1).stderr.decode()
        assert f"{host.name} has Python {version}" in said and "--python" in said
        return
    said = far.scitq("promote", host.name).stderr.decode()
    assert f"{host.name} has no scitq" in said
    assert far.json("status")["driver"]["pid"]
    assert far.out("run", "hostname").strip() == host.name
    far.scitq("run", "-R", "kept", "true")
    assert not [line for line in host.processes("scitq") if "host-side" in line]
    host.cut()
    far.environ["SCITQ_SSH"] += " -o ConnectTimeout=1"
    assert b"cannot be reached" in far.scitq("status").stderr
    host.heal()
    far.scitq("demote")
    [kept] = [row for row in far.json("task", "list") if row["name"] == "kept"]
    place = Path("lab.scitq.d/outputs", str(kept["id"]), "name")
    assert (kept["status"], place.read_text().strip()) == ("succeeded", host.name)
    assert not host.processes("up --detached")


@pytest.mark.usefixtures("workers_may_linger")
def test_a_copy_finds_the_worker_of_the_file_that_it_is_of_and_goes_on_there(state_file: Path, host: Host) -> None:
    """It proves itself by the key that both files hold; what runs goes on, and its end is the copy's."""
    copied = state_file.with_name("copy.scitq")
    with Engine(state_file) as first:
        first.drive()
        until(lambda: bool(first.workers()), "the local worker")
        first.worker_pause("local")
        first.worker_add(host.name, concurrency=1)
        first.worker_ready(host.name, 60)
        task = first.submit("until [ -e /root/go ]; do sleep 0.1; done; echo done", shell=True)
        until(lambda: task.state is TaskState.RUNNING, "it runs")
        first.backup(copied)
        with Engine(copied) as second:
            second.drive()
            assert isinstance(problem_of(first), StaleDriver)
            host.run("touch /root/go")
            assert second.task(task.id).result(60).stdout == "done\n"
            assert len(second.task(task.id).executions) == 1
            assert second.submit("hostname").result(60).stdout == f"{host.name}\n"
            assert len(host.said("ls -d /root/.scitq/*/*").splitlines()) == 1
            assert second.check() == []


# What is said of each step of a move once it is done, in part.
PROMOTES = (
    "is there: ",
    "logs and outputs are in",
    "nobody drives it here",
    "of the last moment",
    "the file itself is there",
    "commands that",
)
DEMOTES = ("nobody drives it on", "logs and outputs are here", "the file itself is here")


def killed_after(far: Lab, said: str, *words: str) -> None:
    """A command is killed as soon as it says that; it is no harm when it was faster."""
    child = far.start(*words)
    assert child.stderr is not None
    for line in child.stderr:
        if said in line.decode():
            break
    child.kill()
    child.wait()


def holders(far: Lab, host: Host) -> tuple[bool, bool]:
    """Whether the file may be written here, and there."""
    there = "/root/scitq/lab/lab.scitq"
    ask = "select v from meta where k = 'moved'"
    look = f"import sqlite3; print(sqlite3.connect('file:{there}?mode=ro', uri=True).execute(\"{ask}\").fetchall())"
    said = host.said(
        f'[ -e {there} ] || echo none; [ ! -e {there} ] || python3 -c "{look.replace(chr(34), chr(92) + chr(34))}"'
    )
    with Store.open(far.folder / "lab.scitq", SCHEMA, read_only=True) as store:
        is_here = moved.found(store.reader()) is None
    return is_here, said == "[]"


@pytest.mark.sampled
def test_who_moves_a_file_to_a_real_host_is_killed_at_any_step_and_the_next_goes_on(
    far: Lab, host: Host, dice: random.Random
) -> None:
    version = host.said("python3 -c 'import sys; print(\"%d.%d\" % sys.version_info[:2])'")
    if version != Kind.here().version:
        return  # nothing can be brought there without internet: see above
    far.scitq("launch", "--shell", "-n", "kept", "--", "hostname > $OUTPUT/name")
    steps = [(there, back) for there in PROMOTES for back in DEMOTES]
    for there, back in dice.sample(steps, min(len(steps), max(1, int(os.environ.get("SCITQ_ROUNDS", "10")) // 5))):
        killed_after(far, there, "promote", host.name)
        assert holders(far, host) in {(True, False), (False, False), (False, True)}, there
        far.scitq("promote", host.name)
        assert holders(far, host) == (False, True)
        assert far.out("run", "hostname").strip() == host.name
        killed_after(far, back, "demote")
        assert holders(far, host) in {(True, False), (False, False)}, back
        far.scitq("demote")
        assert holders(far, host) == (True, False)
        assert not host.processes("up --detached")
        assert {row["status"] for row in far.json("task", "list")} == {"succeeded"}
    far.scitq("check")


@pytest.mark.campaign
def test_a_host_with_another_python_gets_its_packages_from_pip(
    state_file: Path, cloud: Cloud, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What pip installs there is a wheel of all that we need, made here: there is no index to be asked."""
    if host.said("python3 -c 'import sys; print(\"%d.%d\" % sys.version_info[:2])'") != Kind.here().version:
        return  # what is installed here would not run there
    needs = {
        name: path
        for name, path in environment.files().items()
        if not name.startswith("scitq/") and ".dist-info/" not in name
    }
    meta = "scitq_needs-1.dist-info"
    wheel = host.folder / "disk" / "upper" / "root" / "scitq_needs-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, path in needs.items():
            archive.write(path, name)
        archive.writestr(f"{meta}/METADATA", "Metadata-Version: 2.1\nName: scitq-needs\nVersion: 1\n")
        archive.writestr(
            f"{meta}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(
            f"{meta}/RECORD",
            "".join(f"{name},,\n" for name in (*needs, f"{meta}/METADATA", f"{meta}/WHEEL", f"{meta}/RECORD")),
        )
    host.run("printf '[global]\\nno-index = true\\nfind-links = /root\\n' > /etc/pip.conf")
    own = Kind.here()
    monkeypatch.setattr(Kind, "here", classmethod(lambda _: replace(own, version="3.99")))
    monkeypatch.setenv("SCITQ_SSH", f"ssh -F {cloud.folder / 'ssh_config'} -o BatchMode=yes")
    said: list[str] = []
    with Engine(state_file, drive=False) as engine:
        engine.submit("true")
    with Store.open(state_file, SCHEMA) as store:
        monkeypatch.setattr(environment, "requirements", lambda: ["no-such-package"])
        with pytest.raises(
            MoveFailed,
            match=r"pip did not get them there\. Install scitq .* there \(pip install\), then: scitq promote",
        ):
            promotion.promote(store, host.name, say=said.append)
        monkeypatch.setattr(environment, "requirements", lambda: ["scitq-needs"])
        promotion.promote(store, host.name, say=said.append)
        assert "it is driven there" in said[-1] and host.processes("up --detached")
        assert (
            host.said("ls -d /root/scitq/lab/env-*/lib/python3*/site-packages/scitq_needs-1.dist-info | wc -l") == "1"
        )
        promotion.demote(store, say=said.append)
    assert not host.processes("up --detached")
