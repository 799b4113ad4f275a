"""The driver and agents that misbehave, and what it costs to do nothing."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from scitq.remote import local
from scitq.remote.agent import VERSION, address
from scitq.states import TaskState, WorkerState
from tests.engine.conftest import Opener, sound
from tests.engine.test_engine import WAIT_S, until

HELD = json.dumps({"journal": "j", "base": 0, "end": 0, "held": {}, "slots": 2, "cpus": 2, "memory": 1 << 30})


@contextmanager
def false_agent(root: Path, answers: dict[str, tuple[int, str, bytes]]) -> Iterator[None]:
    """Something that listens where the local agent should, and answers what it is told to (status, headers, body)."""
    root.mkdir(parents=True, mode=0o700)
    listener = address.listen(str(root), "agent.sock")
    connections: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        data = b""
        while True:
            while b"\r\n\r\n" not in data:
                try:
                    piece = connection.recv(65536)
                except OSError:
                    return
                if not piece:
                    return
                data += piece
            head, _, data = data.partition(b"\r\n\r\n")
            target = head.split(b" ")[1].decode().partition("?")[0]
            length = int(dict(line.split(b": ") for line in head.split(b"\r\n")[1:]).get(b"Content-Length", b"0"))
            while len(data) < length:
                data += connection.recv(65536)
            data = data[length:]
            if target not in answers:
                continue  # silence
            status, headers, body = answers[target]
            connection.sendall(f"HTTP/1.1 {status} X\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connections.append(connection)
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    listener.setblocking(True)
    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield
    finally:
        (root / "agent.sock").unlink()
        for one in (listener, *connections):
            one.shutdown(socket.SHUT_RDWR)
            one.close()
        thread.join()


PING = (200, "", json.dumps({"version": VERSION, "stopping": None}).encode())
ENTERED = (200, "", b"{}")


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"/drive": (500, "", b'{"error":"broken"}')}, "answered 500"),
        ({"/drive": (409, "", b"nonsense")}, "is not JSON"),
        ({"/held": (200, "", b"nonsense")}, "is not JSON"),
        ({"/held": (200, "", b'{"journal": 5}')}, "makes no sense"),
        ({"/held": (200, "", b'{"journal":"j","base":0,"end":0,"held":{"x":"queued"}}')}, "not ours"),
        ({"/held": (200, "", HELD.encode()), "/events": (500, "", b'{"error":"broken"}')}, "answered 500"),
        ({"/held": (200, "", HELD.encode()), "/events": (200, "", b"")}, "lacks its place"),
        (
            {
                "/held": (200, "", HELD.encode()),
                "/events": (200, "Scitq-Journal: j\r\nScitq-From: 0\r\n", b"garbage\n"),
            },
            "makes no sense",
        ),
        (
            {
                "/held": (200, "", HELD.encode()),
                "/events": (200, "Scitq-Journal: j\r\nScitq-From: 0\r\n", b'{"k":"exit","id":"one","code":[]}\n'),
            },
            "makes no sense",
        ),
    ],
)
def test_an_agent_that_makes_no_sense_is_unreachable_with_the_reason_and_nothing_is_lost(
    open_engine: Opener, state_file: Path, answers: dict[str, tuple[int, str, bytes]], message: str
) -> None:
    root = state_file.with_name("lab.scitq.d") / "local"
    engine = open_engine(drive=False)
    task = engine.submit("echo fine")
    with false_agent(root, {"/ping": PING, "/drive": ENTERED, **answers}):
        driving = open_engine()
        driving.drive()
        until(lambda: any(message in (worker.note or "") for worker in engine.workers()), "the note")
        until(lambda: engine.workers()[0].state is WorkerState.UNREACHABLE, "the state")
        assert driving.is_driving
        assert task.state in (TaskState.PENDING, TaskState.ASSIGNED)
    assert task.wait(WAIT_S) is TaskState.SUCCEEDED
    sound(engine)


def test_an_agent_that_says_nothing_is_left_alone_and_recovers(open_engine: Opener, state_file: Path) -> None:
    """It answers to connections but to nothing that matters: the driver neither spins nor gives up."""
    root = state_file.with_name("lab.scitq.d") / "local"
    engine = open_engine(drive=False)
    task = engine.submit("echo later")
    with false_agent(root, {"/ping": PING, "/drive": ENTERED, "/held": (200, "", HELD.encode())}):
        driving = open_engine()
        driving.drive()
        until(lambda: any(c.connected for c in driving._driver._contacts.values()), "the connection")  # type: ignore[union-attr]
        assert task.state is TaskState.PENDING  # nothing is given to a worker whose journal has not been read
    assert task.result(WAIT_S).stdout == "later\n"
    sound(engine)


def test_an_idle_driver_sees_to_the_daily_backup(open_engine: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    from scitq import driver
    from scitq.store import keep

    monkeypatch.setattr(driver, "IDLE_S", 0.05)
    engine = open_engine(drive=False)
    monkeypatch.setattr(keep, "backup_is_due", lambda *_: not list((engine.side / "backups").glob("*")))
    engine.submit("true")
    open_engine().wait_all(WAIT_S)
    until(lambda: bool(list((engine.side / "backups").glob("*.scitq"))), "the backup")
    sound(engine)


def test_a_driver_that_was_replaced_stops_writing_and_says_so(
    open_engine: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a suspension during which another one took over: the fence in the file is all that tells it."""
    engine = open_engine()
    engine.submit("true").result(WAIT_S)
    other = open_engine(drive=False)
    other._write(lambda db: db.execute("update lead set epoch = epoch + 1"))
    until(lambda: not engine.is_driving, "the end of the stale driver")
    assert "another driver has taken over lab.scitq; this one writes nothing more" in caplog.text
    task = other.submit("echo still works")
    assert open_engine().task(task.id).result(WAIT_S).stdout == "still works\n"
    sound(other)


def test_a_worker_told_to_run_nothing_is_given_nothing_more(open_engine: Opener) -> None:
    """Said by one process in the very moment in which another submits."""
    engine, other = open_engine(), open_engine(drive=False)
    engine.submit("true").result(WAIT_S)
    for _ in range(30):
        other.update_worker("local", concurrency=0, prefetch=0)
        task = engine.submit("true")
        engine.submit("true", priority=-1)
        assert task.state is TaskState.PENDING
        other.update_worker("local", concurrency=1, prefetch=4)
        task.result(WAIT_S)
    engine.wait_all(WAIT_S)


def test_an_engine_that_is_closed_while_it_starts_an_agent_waits_for_that(
    open_engine: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the agent would appear after everything else has ended, with nothing to do."""
    ensure, has_begun = local.ensure, threading.Event()

    def slowly(*given: Any, **more: Any) -> None:
        has_begun.set()
        time.sleep(0.5)
        ensure(*given, **more)

    monkeypatch.setattr(local, "ensure", slowly)
    engine = open_engine()
    engine.submit("true")
    assert has_begun.wait(30)
    engine.close()

    assert [thread.name for thread in threading.enumerate() if thread.name == "scitq-connect"] == []
    assert (engine.side / "local" / "agent.sock").exists()
