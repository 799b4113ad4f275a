"""A launcher that kills the agent or its keeper at one exact system call. Nothing of the product knows about it.

    python faults.py PLAN agent|keeper --root DIR …

PLAN is a JSON file: `role`, `number` and `when` ("before" or "after") name the call to die at, once per plan;
`log` is where the hit (or, with number 0, every call) is written. With `when` "fails", the calls named in `calls`
fail with `errno` instead (a full disk, no more processes), `times` times from the chosen one on. `mutation` names a
safeguard to take away, so that a test can show that the checks would notice.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

CALLS = ("write", "pwrite", "rename", "replace", "unlink", "fsync", "ftruncate", "posix_spawn", "mkdir", "utime")


class Faults:
    """Counts calls, and dies at the one that was chosen."""

    def __init__(self, plan: dict[str, Any], role: str) -> None:
        self.plan = plan
        self.role = role
        self.count = 0
        self.failed = 0
        self.write, self.open = os.write, os.open

    def note(self, text: str, flags: int = 0) -> None:
        log = self.open(self.plan["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT | flags, 0o600)
        self.write(log, text.encode() + b"\n")
        os.close(log)

    def point(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """`call`, with death before or after it."""

        def counted(*args: Any, **more: Any) -> Any:
            self.count += 1
            number = self.count
            if self.plan["number"] == 0:
                self.note(f"{self.role} {number} {name}")
            self.fail(number, name)
            self.die(number, name, "before")
            result = call(*args, **more)
            self.die(number, name, "after")
            return result

        return counted

    def fail(self, number: int, name: str) -> None:
        plan = self.plan
        if plan["when"] != "fails" or number < plan["number"] or name not in plan["calls"]:
            return
        if self.failed < plan["times"]:
            self.failed += 1
            self.note(f"{self.role} {number} {name} fails")
            raise OSError(plan["errno"], os.strerror(plan["errno"]))

    def die(self, number: int, name: str, when: str) -> None:
        if number == self.plan["number"] and when == self.plan["when"]:
            try:
                self.note(f"{self.role} {number} {name} {when}", os.O_EXCL)
            except FileExistsError:
                return  # once is enough
            os.kill(os.getpid(), signal.SIGKILL)

    def arm(self) -> None:
        """Put points around the calls that change what others can see."""
        for name in CALLS:
            setattr(os, name, self.point(name, getattr(os, name)))
        socket.socket.send = self.point("send", socket.socket.send)  # type: ignore[method-assign]


def mutate(name: str) -> None:
    """Take one safeguard away."""
    from scitq.remote.agent import journal, orders, tasks, whole

    if name == "no-start-line":
        real = journal.Journal.add

        def add(self: journal.Journal, line: str) -> int:
            return self.tail if line.startswith('{"k":"start"') else real(self, line)

        journal.Journal.add = add  # type: ignore[method-assign]
    elif name == "late-start-line":
        flush = journal.Journal.flush
        state = {"is_starting": False}
        start = tasks.Tasks._start

        def held_flush(self: journal.Journal) -> bool:
            return state["is_starting"] or flush(self)

        def late_start(self: tasks.Tasks, batch: Any) -> bool:
            state["is_starting"] = True
            done = start(self, batch)
            state["is_starting"] = False
            return done and flush(self.journal)

        journal.Journal.flush = held_flush  # type: ignore[method-assign]
        tasks.Tasks._start = late_start  # type: ignore[method-assign]
    elif name == "no-order-file":
        orders.OrderFile.append = lambda self, lines: None  # type: ignore[method-assign]
    elif name == "no-delivery-record":
        whole._read = lambda record: None
    else:
        raise ValueError(name)


def main() -> int:
    here = Path(__file__).resolve()
    sys.path[0] = str(here.parents[2])
    plan_file, role, *rest = sys.argv[1:]
    plan = json.loads(Path(plan_file).read_text())
    from scitq.remote.agent import __main__ as program

    if plan.get("mutation"):
        mutate(plan["mutation"])
    if plan["role"] in (role, "both"):
        Faults(plan, role).arm()
    if role == "agent":
        rest += ["--keeper-command", json.dumps([sys.executable, str(here), plan_file, "keeper"])]
    return program.main([role, *rest])


if __name__ == "__main__":
    sys.exit(main())
