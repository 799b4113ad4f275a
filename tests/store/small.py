"""A small schema, and child processes, for the tests of the state file's machinery."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import apsw

from scitq.store.migrate import Schema

ROOT = Path(__file__).parents[2]


def base(db: apsw.Connection) -> None:
    for _ in db.execute(
        """
        CREATE TABLE meta(k TEXT PRIMARY KEY, v ANY) STRICT, WITHOUT ROWID;
        CREATE TABLE lead(one INTEGER PRIMARY KEY CHECK(one = 1), epoch INTEGER NOT NULL, pid INTEGER, host TEXT,
          machine TEXT, boot TEXT, started INTEGER, program TEXT, seen INTEGER) STRICT;
        INSERT INTO lead(one, epoch) VALUES (1, 0);
        CREATE TABLE note(id INTEGER PRIMARY KEY, body TEXT NOT NULL UNIQUE CHECK(body <> 'bad')) STRICT;
        """
    ):
        pass


def add_author(db: apsw.Connection) -> None:
    db.execute("ALTER TABLE note ADD COLUMN author TEXT")


SMALL = Schema(0x54455354, (base,), min_reader=1, min_writer=1)
SMALL_2 = Schema(0x54455354, (base, add_author), min_reader=1, min_writer=2)


def put(body: str) -> Callable[[apsw.Connection], None]:
    def run(db: apsw.Connection) -> None:
        db.execute("INSERT INTO note(body) VALUES (?)", (body,))

    return run


def bodies(db: apsw.Connection) -> set[str]:
    return {str(body) for (body,) in db.execute("SELECT body FROM note")}


def integrity(db: apsw.Connection) -> str:
    return " ".join(str(line) for (line,) in db.execute("PRAGMA integrity_check"))


PRELUDE = """
import os, signal, sys, threading, time
from pathlib import Path
from scitq.store.connection import Store
from scitq.store.lease import Lease
from tests.store.small import SMALL, SMALL_2, put, bodies, until, integrity
PATH = sys.argv[1]
def say(*words): os.write(1, (" ".join(map(str, words)) + "\\n").encode())  # in one piece, whichever threads speak
"""


def start_child(code: str, *args: object, **environ: str) -> subprocess.Popen[str]:
    """A Python process that runs `code` after PRELUDE; talks by lines."""
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + code, *map(str, args)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_child(code: str, *args: object, **environ: str) -> list[str]:
    """Run to the end, which must be a good one; the lines it said."""
    with start_child(code, *args, **environ) as child:
        out, err = child.communicate(timeout=120)
    assert child.returncode == 0, err
    return out.splitlines()


def line(child: subprocess.Popen[str], limit_s: float = 30.0) -> str:
    """The next line that the child says."""
    assert child.stdout is not None
    got: list[str] = []
    thread = threading.Thread(target=lambda: got.append(child.stdout.readline()), daemon=True)  # type: ignore[union-attr]
    thread.start()
    thread.join(limit_s)
    if not got or not got[0]:
        child.kill()
        raise AssertionError(f"the child said nothing: {child.communicate()[1]}")
    return got[0].strip()


def end(child: subprocess.Popen[str]) -> list[str]:
    """Let the child read the end of its input, and wait for it."""
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    return out.splitlines()


def until(condition: Callable[[], object], limit_s: float = 20.0) -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
