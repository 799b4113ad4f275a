"""A first small task on a new host, before any of its user's: `agent.pyz try --root DIR`.

It goes the way of every task: an agent takes the order, a keeper starts it, its exit code and its output come back by the
journal. Both are this host's own, in a folder of the root that is made for it and deleted afterwards, so that neither other
tasks nor hours have a part in it. Killed anywhere, the next one begins by clearing away what is left; two take turns.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from typing import Any

from scitq.errors import AgentFailed
from scitq.remote.agent import address, root, starting

FOLDER, LOCK = "trial", "trial.lock"
RUN_S = 30.0
"""What the task may take."""
TURN_S = 60.0
"""How long another one is waited for."""
GOOD = 7
"""Its exit code when all went well: 0 might come from anybody."""
_SCRIPT = r"""
umask 077
program="$TEMP/program"
{ printf '#!/bin/sh\necho %s\n' "$TRIAL" > "$program" && chmod 700 "$program"; } || exit 3
"$program" || exit 4
file="${TMPDIR:-/tmp}/scitq-trial-$TRIAL"
head -c 65536 /dev/zero > "$file"
written=$?
rm -f "$file"
[ "$written" = 0 ] || exit 5
exit 7
"""


def run(folder: str, own: Sequence[str]) -> dict[str, Any]:
    """Try it: `ok`, and the seconds that the task took; else `error`, a sentence. `own`: the words that are this program."""
    place = os.path.join(folder, FOLDER)
    try:
        with turn(folder):
            try:
                _clear(place, own)
                starting.ensure(place, lambda: own, 1.0, starting.FAR_S)
                word = os.urandom(8).hex()
                end = _end_of(place, word)
            finally:
                _clear(place, own)
        problem = _problem(folder, end, word)
    except (AgentFailed, OSError, ValueError) as error:
        end, problem = {}, f"a first task could not be run in {folder}: {error}"
    if problem is not None:
        return {"ok": False, "error": problem}
    return {"ok": True, "seconds": end.get("run")}


@contextlib.contextmanager
def turn(folder: str) -> Iterator[None]:
    """Nobody else tries here meanwhile, or deletes the folder. The lock ends with whoever has it."""
    held = os.open(os.path.join(folder, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + TURN_S
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise OSError(f"another trial has not ended for {TURN_S:.0f} s") from None
            time.sleep(0.02)
        if not root.is_still(folder, LOCK, held):
            raise OSError("its folder was deleted meanwhile")
        yield
    finally:
        os.close(held)


def _clear(place: str, own: Sequence[str]) -> None:
    """End what lives there, and delete it."""
    if os.path.isdir(place):
        starting.stop(place, lambda: starting.ensure(place, lambda: own, 1.0))
        shutil.rmtree(place)


def _end_of(place: str, word: str) -> dict[str, Any]:
    """Order the task; its exit line."""
    order = {"order": 1, "task": 1, "script": _SCRIPT, "shell": "sh", "env": {"TRIAL": word}, "timeout": RUN_S}
    _ask(place, "POST", "/commands", json.dumps(order).encode() + b"\n")
    deadline, journal, offset = time.monotonic() + 2 * RUN_S, "", 0
    while time.monotonic() < deadline:
        headers, lines = _ask(place, "GET", f"/events?journal={journal}&from={offset}&wait=5")
        journal = headers["scitq-journal"]
        offset = int(headers["scitq-from"]) + len(lines)
        for line in lines.splitlines():
            said: dict[str, Any] = json.loads(line)
            if said.get("k") == "exit" and said.get("id") == 1:
                return said
    raise OSError(f"it did not end within {2 * RUN_S:.0f} s")


def _ask(place: str, method: str, target: str, body: bytes = b"") -> tuple[dict[str, str], bytes]:
    """One request over a connection of its own: the head and the body of its answer."""
    with address.connect(place, "agent.sock") as sock:
        sock.settimeout(RUN_S)
        sock.sendall(
            f"{method} {target} HTTP/1.1\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        )
        answer = b""
        while more := sock.recv(1 << 16):
            answer += more
    head, _, rest = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    if first.split(" ")[1:2] != ["200"]:
        raise OSError(f"its agent answers {(rest or head)[:300].decode(errors='replace')}")
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}, rest


def _problem(folder: str, end: dict[str, Any], word: str) -> str | None:
    """What is wrong, in a sentence; None when it ended as it should."""
    code, said = end.get("code"), end.get("e") or ""
    if code == GOOD and end.get("why") is None and end.get("o") == f"{word}\n":
        return None
    last = (said.strip().splitlines() or [""])[-1].rpartition(": ")[2]
    why = f" ({last})" if last else ""
    if code == 3:
        return f"a first task could write nothing in {folder}{why}. Say with folder= where there is room."
    if code == 4:
        return f"a first task could not run a program in {folder}{why}: is it mounted noexec? Say with folder= where programs run."
    if code == 5:
        return (
            f"a first task could write nothing in /tmp{why}, which most programs need: make room there, then try again."
        )
    how = (
        end.get("note")
        or end.get("why")
        or (f"it ended by signal {end['sig']}" if end.get("sig") else f"exit code {code}")
    )
    return f"a first task in {folder} did not end as it should: {how}{why}; it wrote {(end.get('o') or '')[:100]!r}."


def main(folder: str, own: Sequence[str]) -> int:
    """As a program: what came of it is one JSON object."""
    found = run(folder, own)
    print(json.dumps(found), flush=True)
    return 0 if found["ok"] else 1
