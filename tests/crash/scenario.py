"""A small program that uses the engine, to be killed anywhere: run as `python scenario.py STATE_FILE`.

It submits what is not yet in the file, waits for everything and ends with 0. Commands append their task's number to `ran`
when they really run. With `SCITQ_KILL=n:before` or `n:after` it ends itself with SIGKILL around the n-th of the moments that
count (a transaction, a rename, an unlink, an fsync, bytes sent to the agent), or with `n:after:rename` of those of one kind;
with `count` it prints how many there were.
With `SCITQ_POWER=1` that end is a power cut: logs whose bytes were not synced are lost, their names are not.
`SCITQ_MUTANT` breaks the engine on purpose, to prove that the tests notice.
"""

from __future__ import annotations

import functools
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scitq.driver import Driver
from scitq.engine import Engine
from scitq.store import workers
from scitq.store.transaction import Transactions

BIG = 100_000  # more than travels inside an end record
STEPS = 14


def commands(engine: Engine) -> None:
    """Submit each step that is not in the file; the number of each acknowledged one is on disk before the next."""
    acked = os.open("acked", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    ids = {row.name: row.id for row in engine.rows()}
    for n in range(STEPS):
        if f"s{n}" in ids:
            continue
        script, options = step(n)
        options["requires"] = [ids[name] for name in options.get("requires", [])]
        task = engine.submit(script, shell=True, name=f"s{n}", **options)
        ids[f"s{n}"] = task.id
        os.write(acked, b"%d\n" % task.id)
    os.close(acked)


def step(n: int) -> tuple[str, dict[str, Any]]:
    """The script of step n. Every one runs once, but for the flaky one, which runs twice."""
    mark = "echo $SCITQ_TASK >> ran; "
    if n % 7 == 2:
        return mark + f"head -c {BIG} /dev/zero | tr '\\0' '{n % 10}'", {}
    if n % 7 == 3:
        return mark + "echo kept > $OUTPUT/file; mkdir $OUTPUT/sub; echo deep > $OUTPUT/sub/file", {}
    if n % 7 == 4:
        return mark + f"if [ -e tried.{n} ]; then echo ok; else touch tried.{n}; exit 9; fi", {
            "retry": 2,
            "retry_delay": 0.01,
        }
    if n % 7 == 5:
        return mark + "sleep 0.05; echo slow", {}
    if n % 7 == 6:
        return mark + "cat > /dev/null; echo last", {"requires": [f"s{n - 1}", f"s{n - 4}"]}
    return mark + f"echo {n}; echo e{n} >&2", {}


def expected(n: int) -> bytes:
    """What step n writes on standard output, in its run that succeeds."""
    kinds = {2: str(n % 10).encode() * BIG, 3: b"", 4: b"ok\n", 5: b"slow\n", 6: b"last\n"}
    return kinds.get(n % 7, b"%d\n" % n)


def runs_of(n: int) -> int:
    """How often step n runs when nothing is lost."""
    return 2 if n % 7 == 4 else 1


_fsync = os.fsync


class Killer:
    """Counts the moments that count, and ends the process at the one that was asked for."""

    def __init__(self, wish: str, side: Path) -> None:
        self.count = 0
        self._gate = threading.Lock()
        self._side = side
        self._synced: set[str] = set()
        number, self._when, self._kind = (*wish.split(":"), "", "")[:3]
        self._at = int(number) if number.isdecimal() else -1

    def around(
        self, name: str, real: Callable[..., Any], matters: Callable[..., bool] = lambda *_: True
    ) -> Callable[..., Any]:
        """The function with a moment before it and one after it."""

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if not matters(*args) or self._kind not in ("", name):
                return real(*args, **kwargs)
            with self._gate:
                self.count += 1
                mine = self.count == self._at
            if mine and self._when == "before":
                self.die(name)
            result = real(*args, **kwargs)
            if mine and self._when == "after":
                self.die(name)
            return result

        return wrapped

    def sync(self, fd: int) -> None:
        """os.fsync, remembered."""
        self._synced.add(os.readlink(f"/proc/self/fd/{fd}"))
        _fsync(fd)

    def die(self, name: str) -> None:
        """SIGKILL; first, if the power is cut, what the disk had not yet written is gone."""
        Path("hit").write_text(f"{name} {self._when}")
        if os.environ.get("SCITQ_POWER"):
            for path in (self._side / "logs").glob("*"):
                # A log is synced under the name that it has while it grows: 12.out.1.part for 12.out.
                if not any(name == str(path) or name.startswith(f"{path}.") for name in self._synced):
                    os.truncate(path, 0)
        os.kill(os.getpid(), signal.SIGKILL)


def install(wish: str, side: Path) -> Killer:
    """Put the killer around everything that leaves a trace outside of this process."""
    killer = Killer(wish, side)
    own = lambda path, *_: str(side) in str(path)  # noqa: E731
    for name in ("rename", "replace", "unlink"):
        setattr(os, name, killer.around(name, getattr(os, name), own))
    os.fsync = killer.around("fsync", killer.sync)
    Transactions.run = killer.around("transaction", Transactions.run)  # type: ignore[method-assign]
    socket.socket.send = killer.around("send", socket.socket.send)  # type: ignore[method-assign]
    return killer


def _advance(advance: Callable[..., bool], place: tuple[Any, ...], db: Any) -> bool:
    return advance(db, *place)


def mutate(kind: str) -> None:
    """Break one rule of the engine."""
    transact, round_, advance = Driver._transact, Driver._round, workers.advance
    if kind == "orders before the commit":

        def early(self: Driver, *args: Any) -> Any:
            plans, is_placed = transact(self, *args)
            for plan in plans.values():
                self._connections.say(plan.contact, plan.commands)
                plan.commands = []
            return plans, is_placed

        setattr(Driver, "_transact", early)  # noqa: B010
    elif kind == "acknowledgement before the results":

        def split(self: Driver, polled: Any) -> Any:
            for contact, answer in polled:
                name, end = answer.headers["scitq-journal"], int(answer.headers["scitq-from"]) + len(answer.body)
                place = (contact.worker, contact.journal, contact.acked, name, end)
                self._store.write(functools.partial(_advance, advance, place))
            workers.advance = lambda *_: True
            return round_(self, polled)

        setattr(Driver, "_round", split)  # noqa: B010
    elif kind == "no fsync":
        setattr(os, "fsync", lambda _: None)  # noqa: B010
    else:
        raise SystemExit(f"no such mutant: {kind}")


def main(path: Path) -> None:
    """Everything, from whatever state the file is in."""
    wish = os.environ.get("SCITQ_KILL", "")
    side = path.with_name(path.name + ".d").resolve()
    killer = install(wish, side) if wish else None
    if kind := os.environ.get("SCITQ_MUTANT"):
        mutate(kind)
    with Engine(path, linger_s=20) as engine:
        commands(engine)
        engine.wait_all(float(os.environ.get("SCITQ_WAIT", "60")))
    if killer is not None:
        print(killer.count)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
