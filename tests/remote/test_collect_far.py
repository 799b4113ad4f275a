"""Outputs of a real agent's executions on their way to storages: while nobody answers, and when it is killed meanwhile."""

from __future__ import annotations

import configparser
import os
import signal
import socket
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scitq import fetch
from scitq.fetch.settings import Settings
from scitq.remote import local
from scitq.remote.agent.manifest import NAME, parse
from scitq.remote.agent.recovery import Facts
from tests.fetch.servers import Cable, Storages, strict_s3
from tests.remote.client import Driver
from tests.remote.test_publish import tree

pytestmark = pytest.mark.servers


class Held(Cable):
    """A line to a server that is silent until it is let go."""

    def __init__(self, port: int) -> None:
        self.has_caller = threading.Semaphore(0)
        self.is_free = threading.Event()
        super().__init__(port)

    def _serve(self, near: socket.socket) -> None:
        self.has_caller.release()
        self.is_free.wait()
        super()._serve(near)


@pytest.fixture
def held(store: Storages) -> Iterator[Held]:
    """A line to S3, held."""
    found = Held(store.moto_port)
    yield found
    found.is_free.set()
    found.close()


@pytest.fixture
def bucket(store: Storages) -> str:
    """A new one."""
    name = f"t-{uuid.uuid4().hex[:12]}"
    store.bucket(name)
    return name


def remotes(store: Storages, port: int) -> dict[str, Any]:
    """The command that tells about `far`: S3 by way of that port."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(store.config)
    section = {**parser["s3"], "endpoint": f"http://127.0.0.1:{port}"}
    return {"remotes": {"config": {"far": section}, "rclone": None}}


def order(bucket: str, number: int = 1, text: str = "echo x > $OUTPUT/x") -> dict[str, Any]:
    """Not looked at beforehand (overwrite), so that it waits for nothing before it runs."""
    far = {"output": f"far://{bucket}/{number}", "owner": f"file:{number}", "overwrite": True, "remotes": ["far"]}
    return {"order": number, "script": text, **far}


def there(store: Storages, settings: Settings, bucket: str, number: int, folder: Path) -> dict[str, bytes]:
    """What arrived; its manifest is complete."""
    fetch.get(f"s3://{bucket}/{number}/", f"{folder}/", settings=replace(settings, rclone_config=str(store.config)))
    found = parse((folder / NAME).read_bytes())
    assert found is not None and found.is_complete
    return tree(folder)


def test_an_output_waits_for_its_remote_and_holds_no_slot(
    driver: Driver, store: Storages, settings: Settings, bucket: str, tmp_path: Path
) -> None:
    driver.say({"slots": 1}, order(bucket))
    assert driver.exit_of(1)["code"] == 0
    assert driver.script(2, "echo y")["o"] == "y\n"
    assert driver.held()["held"] == {"1": "collecting"}
    driver.say(remotes(store, store.moto_port))
    said = driver.seen("collected", 1)
    assert said["ok"] and said["to"] == f"far://{bucket}/1" and [row[:2] for row in said["files"]] == [["x", 2]]
    assert there(store, settings, bucket, 1, tmp_path / "back") == {"x": b"x\n"}
    assert driver.held()["held"] == {}


def test_who_may_read_a_storage_but_not_write_there_is_told_so_and_nothing_is_lost(
    driver: Driver, root: Path, tmp_path: Path
) -> None:
    with strict_s3() as users:
        driver.say({"remotes": {"config": {"far": users["reader"]}, "rclone": None}})
        driver.say({**order("bucket"), "overwrite": False})
        said = driver.seen("collected", 1)
        assert (said["ok"], said["error"]) == (False, "AccessDenied") and "far://bucket/1" in said["note"]
        assert "403" in said["note"] and not [
            key for key in users["reader"].values() if len(key) > 30 and key in str(said)
        ]
        assert (root / "exec" / "1" / "output" / "x").read_text() == "x\n"

        driver.say({"remotes": {"config": {"far": users["writer"]}, "rclone": None}})
        driver.say(order("bucket", 2))
        assert driver.seen("collected", 2)["ok"]

        driver.say({"remotes": {"config": {"far": {**users["writer"], "secret_access_key": "wrong"}}, "rclone": None}})
        assert driver.script(3, "true", input=["far://bucket/2/x"], remotes=["far"])["error"] == "AccessDenied"


@pytest.mark.promise("data 11.24")
def test_a_cancel_ends_what_is_on_its_way(driver: Driver, store: Storages, bucket: str, held: Held, root: Path) -> None:
    driver.say(remotes(store, held.port), order(bucket))
    assert held.has_caller.acquire(timeout=60)
    driver.say({"cancel": 1})
    said = driver.seen("collected", 1)  # though the storage never answers
    assert not said["ok"] and said["error"] == "Cancelled"
    assert driver.held()["held"] == {} and (root / "exec" / "1" / "output" / "x").exists()


def test_at_the_end_of_the_lease_what_is_on_its_way_is_broken_off_and_begun_again(
    driver: Driver, store: Storages, bucket: str, held: Held
) -> None:
    driver.say({"lease": 1000}, remotes(store, held.port), order(bucket))
    assert held.has_caller.acquire(timeout=60)
    driver.say({"lease": 0})
    driver.until(lambda: driver.held()["held"] == {"1": "collecting"})
    driver.say({"lease": 1000})
    assert held.has_caller.acquire(timeout=60)
    held.is_free.set()
    assert driver.seen("collected", 1)["ok"]


def test_a_cancel_before_the_remote_is_known_needs_none(driver: Driver, bucket: str) -> None:
    driver.say(order(bucket))
    driver.exit_of(1)
    driver.say({"cancel": 1}, {"cancel": 1})
    assert driver.seen("collected", 1)["error"] == "Cancelled"
    assert [line["k"] for line in driver.lines if line.get("id") == 1 and line["k"] in ("end", "collected")] == [
        "end",
        "collected",
    ]


def test_a_keeper_that_is_killed_remembers_the_cancel() -> None:
    facts = Facts(1)
    facts.read(0, {"k": "exit", "id": 1, "collect": True, "output": "far://b/x", "owner": "o", "remotes": ["far"]})
    facts.read(9, {"k": "end", "id": 1, "why": "cancel", "grace": 0.0})
    assert facts.owed == {"1": {"id": 1, "output": "far://b/x", "owner": "o", "remotes": ["far"], "cancel": True}}


def test_slow_lines_do_not_hold_up_what_stays_here(
    driver: Driver, store: Storages, bucket: str, held: Held, tmp_path: Path
) -> None:
    driver.say(remotes(store, held.port), *(order(bucket, number) for number in range(1, 6)))
    for _ in range(4):
        assert held.has_caller.acquire(timeout=60)
    driver.script(6, "echo x > $OUTPUT/x", deliver=str(tmp_path / "place"))
    assert driver.seen("collected", 6)["ok"]
    held.is_free.set()
    assert all(driver.seen("collected", number)["ok"] for number in range(1, 6))


@pytest.mark.promise("lessons 3.5.3")
@pytest.mark.parametrize("who", ["agent", "both"])
def test_who_is_killed_on_the_way_is_followed_by_one_who_completes_it(
    driver: Driver, root: Path, store: Storages, settings: Settings, bucket: str, held: Held, tmp_path: Path, who: str
) -> None:
    driver.say(remotes(store, held.port), order(bucket, text="for n in 1 2 3; do echo $n > $OUTPUT/$n; done"))
    assert held.has_caller.acquire(timeout=60)
    keeper = driver.held()["keeper"]
    os.kill(driver.ask("GET", "/ping").json()["pid"], signal.SIGKILL)
    if who == "both":
        os.kill(keeper, signal.SIGKILL)
    driver.close()
    held.is_free.set()
    local.ensure(root, linger=60)
    assert driver.seen("collected", 1)["ok"]
    driver.until(lambda: driver.held()["held"] == {})
    assert len([line for line in driver.lines if line["k"] == "collected"]) == 1
    assert there(store, settings, bucket, 1, tmp_path / "back") == {str(n): f"{n}\n".encode() for n in (1, 2, 3)}


def test_five_thousand_files_fit_into_one_line(driver: Driver, tmp_path: Path) -> None:
    driver.script(1, "cd $OUTPUT && seq 5000 | xargs touch", output=str(tmp_path / "place"), owner="file:1")
    said = driver.seen("collected", 1)
    assert len(said["files"]) == 5000 == len(tree(tmp_path / "place"))
    assert driver.script(2, "echo next")["o"] == "next\n"
