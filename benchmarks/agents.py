"""(h) What the engine can drive: 100 agents that speak the real protocol over real Unix sockets, and end tasks at once.

`python -m benchmarks.agents serve FOLDER COUNT` is the agents, one process with a socket each; the engine runs in another.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import machine
from benchmarks.contest import Contestant, Outcome, run
from benchmarks.contestants import NOOP
from benchmarks.report import Section, at_least

if TYPE_CHECKING:
    import apsw

    from scitq.engine import Engine
    from scitq.remote.route import Route
    from scitq.worker import WorkerRow

AGENTS = 100
SLOTS = 4


class Agent:
    """One simulated agent: a journal in memory, and whoever waits for it."""

    def __init__(self, number: int) -> None:
        self.name = f"sim{number}"
        self.journal = bytearray()
        self.taken: set[int] = set()
        self.polls: list[tuple[socket.socket, int]] = []

    def answer(self, client: socket.socket, method: str, target: str, body: bytes) -> None:
        """One request."""
        path, _, query = target.partition("?")
        if path == "/commands":
            for line in body.splitlines():
                said = json.loads(line)
                if "order" in said and said["order"] not in self.taken:
                    self.taken.add(said["order"])
                    self._run(said["order"])
            _send(client, b'{"ok": true}\n')
            polls, self.polls = self.polls, []
            for waiting, offset in polls:
                self._events(waiting, offset)
        elif path == "/events":
            values = dict(pair.partition("=")[::2] for pair in query.split("&"))
            known = values.get("journal") == self.name
            self._events(client, int(values["from"]) if known else 0, at_once=not known)
        elif path == "/held":
            end = len(self.journal)
            held = {
                "held": {},
                "slots": SLOTS,
                "journal": self.name,
                "base": 0,
                "end": end,
                "last_exit": end,
                "acked": 0,
            }
            facts = {"cpus": SLOTS, "memory": 1 << 33, "python": "3.11.0", "host": self.name, "version": "simulated"}
            _send(client, json.dumps(held | facts).encode())
        else:
            _send(client, b'{"pid": 1, "version": "simulated", "stopping": null}\n')

    def _run(self, order: int) -> None:
        start = f'{{"k":"start","id":{order},"slot":0,"at":0.0,"b":0.0,"m":0.0}}\n'
        end = (
            f'{{"k":"exit","id":{order},"code":0,"sig":null,"why":null,"o":"","e":"","on":0,"en":0,"kept":false,'
            '"collect":false,"at":0.0,"run":0.001,"u":0.0005,"s":0.0005,"rss":1000000}\n'
        )
        self.journal += (start + end).encode()

    def _events(self, client: socket.socket, offset: int, at_once: bool = False) -> None:
        if offset < len(self.journal) or at_once:
            _send(client, bytes(self.journal[offset:]), f"Scitq-Journal: {self.name}\r\nScitq-From: {offset}\r\n")
        else:
            self.polls.append((client, offset))


def _send(client: socket.socket, body: bytes, headers: str = "") -> None:
    client.setblocking(True)
    client.sendall(f"HTTP/1.1 200 OK\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    client.setblocking(False)


def serve(folder: Path, count: int) -> None:
    """Be these agents until the standard input ends."""
    from scitq.remote.agent import address

    selector = selectors.DefaultSelector()
    for number in range(count):
        root = folder / str(number)
        root.mkdir(parents=True)
        selector.register(address.listen(str(root), "agent.sock"), selectors.EVENT_READ, Agent(number))
    selector.register(sys.stdin, selectors.EVENT_READ, None)
    inboxes: dict[socket.socket, bytearray] = {}
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            if key.data is None:
                return
            sock: Any = key.fileobj
            if sock not in inboxes:
                client, _ = sock.accept()
                client.setblocking(False)
                inboxes[client] = bytearray()
                selector.register(client, selectors.EVENT_READ, key.data)
                continue
            data = sock.recv(1 << 20)
            if not data:
                selector.unregister(sock)
                del inboxes[sock]
                sock.close()
                continue
            inbox = inboxes[sock]
            inbox += data
            while (end := inbox.find(b"\r\n\r\n")) >= 0:
                first, *headers = inbox[:end].decode("latin-1").split("\r\n")
                length = next((int(h.partition(":")[2]) for h in headers if h.lower().startswith("content-length")), 0)
                if len(inbox) < end + 4 + length:
                    break
                body = bytes(inbox[end + 4 : end + 4 + length])
                del inbox[: end + 4 + length]
                method, target, _ = first.split(" ")
                key.data.answer(sock, method, target, body)


@contextlib.contextmanager
def simulated() -> Iterator[Engine]:
    """An engine that drives them, in the folder that this process is in, once all of them have had tasks."""
    from scitq import driver
    from scitq.engine import Engine
    from scitq.remote.route import LocalRoute
    from scitq.store import workers

    folder = Path("sim").absolute()
    agents = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.agents", "serve", str(folder), str(AGENTS)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert agents.stdin is not None and agents.stdout is not None
    assert agents.stdout.readline() == "ready\n"

    class Simulated(LocalRoute):
        """To an agent that is there."""

        def ensure(self) -> None:
            pass

    class Driver(driver.Driver):
        """Reaches worker N in the folder of agent N."""

        def _route(self, row: WorkerRow) -> Route:
            return Simulated(folder / str(int(row.id) - 1), 60)

    driver.Driver = Driver  # type: ignore[misc]

    def declare(db: apsw.Connection) -> None:
        for number in range(AGENTS):
            name = "local" if number == 0 else f"sim{number}"
            assert workers.ensure(db, 1, name, "local", SLOTS) == number + 1

    try:
        with Engine(Path("lab.scitq")) as engine:
            engine._write(declare)
            engine.submit_many(NOOP for _ in range(20 * AGENTS))  # until all are connected
            engine.wait_all(120)
            yield engine
    finally:
        agents.stdin.close()
        agents.wait(30)


def drive(size: int) -> Outcome:
    """Tasks through all of them: until every end is in the file and this process knows."""
    with simulated() as engine:
        cpu, begin = machine.fine_cpu_s(os.getpid()), time.perf_counter()
        engine.submit_many(NOOP for _ in range(size))
        counts = engine.wait_all(600)
        seconds = time.perf_counter() - begin
        busy = sum(bool(n) for n in _ended_by_worker(engine))
        cpu = machine.fine_cpu_s(os.getpid()) - cpu
    assert {state.word: n for state, n in counts.items()} == {"succeeded": size + 20 * AGENTS}, counts
    return {"rate": size / seconds, "cpu_ms": 1000 * cpu / size, "busy": busy}


def _ended_by_worker(engine: Any) -> list[int]:
    from scitq.store import query

    return [n for _, n in query.rows(engine._reader(), "select worker, count(*) from execution group by worker")]


def many(rounds: int, quick: bool, folder: Path, peers: bool) -> Section:
    """(h)"""
    size = 3_000 if quick else 20_000
    turns = [
        run(Contestant("agents", (sys.executable, "-m", "benchmarks.agents", "drive")), size, folder)
        for _ in range(min(3, rounds))
    ]
    best = sorted(turns, key=lambda each: each["rate"])[len(turns) // 2]
    section = Section("h", f"{size:,} tasks through {AGENTS} simulated agents of {SLOTS} slots", ("", ""))
    section.findings = [at_least("engine throughput", best["rate"], 1000, " tasks/s", 0)]
    section.notes.append(
        f"The engine's process takes {best['cpu_ms']:.3f} ms of CPU a task; {best['busy']:.0f} agents took part. "
        "The simulation shares the machine's cores."
    )
    return section


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        print(json.dumps(drive(int(sys.argv[2]))))
