"""From a host with nothing but sshd and Python to a running agent: one program run there, told what to do as it goes.

What is run is `agent.probe`; the connection that it is run over is `ssh`. Interrupted anywhere, the next time completes it.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from scitq.errors import HostUnfit, HostUnreachable
from scitq.remote.agent import probe
from scitq.remote.bundle import portable

PROBE_S = 60.0
PUSH_S = 600.0
START_S = 120.0
# More than the host itself allows a first task: see `agent.trial`.
TRIAL_S = 300.0
COMMAND = "/bin/sh -s"

_NAMES = (
    "python3", "python3.14", "python3.13", "python3.12", "python3.11", "python3.10", "/usr/local/bin/python3",
    "/opt/conda/bin/python3", '"$HOME/miniconda3/bin/python3"', '"$HOME/miniforge3/bin/python3"',
    '"$HOME/.local/bin/python3"', "python",
)  # fmt: skip

# Read by the shell from its standard input, which Python then inherits. Nothing of it depends on the user's own shell.
_SCRIPT = r"""
code='{code}'
for name in {names}; do
    if "$name" -I -S -c 'import sys; sys.exit(sys.version_info < (3, 10))' < /dev/null > /dev/null 2>&1; then
        exec "$name" -I -S -X utf8 -c "import base64, zlib; exec(zlib.decompress(base64.b64decode('$code')).decode())"
    fi
done
old=$(for name in {names}; do "$name" -V < /dev/null 2>&1 | grep '^Python '; done | sort -u | tr -dc 'A-Za-z0-9. \n' | tr '\n' ' ')
printf '\n%s {{"python": null, "old": "%s"}}\n' '{mark}' "$old"
exit 1
"""


@dataclass(frozen=True)
class Step:
    """One step that was done on a host."""

    name: str
    seconds: float
    text: str


Note = Callable[[Step], None]


class Talk(Protocol):
    """A program that runs on the host: its standard input and output."""

    def send(self, data: bytes) -> None:
        """All of it. Raises LinkBroken."""

    def line(self, timeout_s: float) -> bytes | None:
        """The next line of its output; None at the end. Raises LinkBroken, or HostUnreachable when none comes in time."""


@dataclass(frozen=True)
class Prepared:
    """An agent that runs on a host."""

    root: str
    python: str
    program: str
    port: int | None
    facts: dict[str, Any]


def prepare(
    talk: Talk,
    host: str,
    *,
    below: str,
    token: str,
    folder: str | None,
    python: str | None,
    linger_s: float,
    with_port: bool,
    note: Note,
) -> Prepared:
    """See that the agent runs in the folder `below` of a folder that can be written, `folder` if it is given.

    Raises:
        HostUnfit: it cannot, and why.
    """
    data, digest = portable()
    mark = f"@scitq-{secrets.token_hex(8)}"
    asked = {"below": below, "folder": folder, "digest": digest, "mark": mark}
    began = time.monotonic()
    talk.send(_script(Path(probe.__file__).read_text(encoding="utf-8"), asked, python))
    found = _answer(talk, host, mark, PROBE_S)
    _check(host, found, folder, python)
    note(Step("probe", time.monotonic() - began, _described(found)))
    began = time.monotonic()
    head = {"size": 0 if found["has_program"] else len(data), "token": token, "linger": linger_s, "port": with_port}
    head["try"] = not found["is_tried"]
    talk.send(json.dumps(head).encode() + b"\n" + (b"" if found["has_program"] else data))
    if not found["has_program"]:
        _done(host, _answer(talk, host, mark, PUSH_S))
        note(Step("push", time.monotonic() - began, f"the agent's program, {len(data) // 1000} kB"))
        began = time.monotonic()
    told = _done(host, _answer(talk, host, mark, START_S))
    note(Step("start", time.monotonic() - began, f"in {found['root']}"))
    if not found["is_tried"]:
        began = time.monotonic()
        _done(host, _answer(talk, host, mark, TRIAL_S))
        note(Step("smoke", time.monotonic() - began, "a first task ran there, and what it wrote was read back"))
    return Prepared(found["root"], found["python"], found["program"], told.get("port"), found)


def ask(talk: Talk, host: str, program: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Run a program that stands alone there: its `main` is told what is asked, and answers with a line of JSON after the `mark`.

    Raises:
        HostUnfit: it cannot be run.
    """
    mark = f"@scitq-{secrets.token_hex(8)}"
    talk.send(_script(program, {**asked, "mark": mark}, None))
    found = _answer(talk, host, mark, PROBE_S)
    _check_python(host, found, None)
    return found


def _script(program: str, asked: dict[str, Any], python: str | None) -> bytes:
    source = f"{program}\n\nmain({asked!r})\n"
    code = base64.b64encode(zlib.compress(source.encode(), 9)).decode()
    names = " ".join(_NAMES) if python is None else _quoted(python)
    return _SCRIPT.format(code=code, names=names, mark=asked["mark"]).encode()


def _quoted(word: str) -> str:
    return "'" + word.replace("'", "'\\''") + "'"


def lines(talk: Talk, host: str, timeout_s: float) -> Iterator[bytes]:
    """What a program there says, to its end.

    Raises:
        LinkBroken: the connection ended.
        HostUnreachable: it is not done in time, whether it is silent or talks on and on.
    """
    deadline = time.monotonic() + timeout_s
    while (line := talk.line(max(0.1, deadline - time.monotonic()))) is not None:
        yield line
        if time.monotonic() > deadline:
            raise HostUnreachable(
                f"{host} talks, but has not said what it was asked for within {timeout_s:.0f} s.", host=host
            )


def _answer(talk: Talk, host: str, mark: str, timeout_s: float) -> dict[str, Any]:
    """The next line that is meant for us; what a login says by itself is passed over."""
    noise: deque[str] = deque(maxlen=5)
    for line in lines(talk, host, timeout_s):
        word, _, rest = line.decode(errors="replace").strip().partition(" ")
        if word == mark:
            try:
                found: dict[str, Any] = json.loads(rest)
            except ValueError:
                raise HostUnreachable(f"{host}: the answer to the first question was cut short.", host=host) from None
            return found
        if line.strip():
            noise.append(line.decode(errors="replace").strip())
    said = " / ".join(noise)
    raise HostUnfit(
        f"{host} does not run what it is asked to run over SSH"
        + (f"; it said: {said[:300]}. " if said else ", and says nothing. ")
        + "A login for which only one command is allowed, or whose shell ends at once, cannot be a worker; "
        f"try: ssh {host.split(' ')[0]} echo hello",
        host=host,
    )


def _check_python(host: str, found: dict[str, Any], python: str | None) -> None:
    if not found["python"]:
        if python is not None:
            text = f"{host}: {python} is no Python 3.10 or later there (python=)."
        else:
            have = f"; it has {found['old'].strip()}" if found.get("old", "").strip() else ""
            text = (
                f"{host} has no Python 3.10 or later{have}. Install one (conda's in the home will do), and say where it is with "
                "python= if it is not on PATH."
            )
        raise HostUnfit(text, host=host)


def _check(host: str, found: dict[str, Any], folder: str | None, python: str | None) -> None:
    _check_python(host, found, python)
    if "root" not in found:
        tried = "; ".join(f"{place}: {why}" for place, why in found["refused"])
        cure = "" if folder else " Say with folder= where there is one."
        raise HostUnfit(f"{host} has no folder that can be written for the worker ({tried}).{cure}", host=host)


def _done(host: str, told: dict[str, Any]) -> dict[str, Any]:
    if not told.get("ok"):
        raise HostUnfit(f"{host}: {told.get('error')}", host=host)
    return told


def _described(found: dict[str, Any]) -> str:
    said = [f"Python {found['version']}", f"{found['cpus']} CPUs", f"{found['memory'] / 1e9:.0f} GB"]
    said += [f"{found['gpus']} GPUs"] if found["gpus"] else []
    said += [f"{found['disk_free'] / 1e9:.0f} GB free"] if found["disk_free"] is not None else []
    said += [found["engine"] or "no containers"]
    said += [] if found["rclone"] else ["no rclone"]
    if found["killed_at_logout"]:
        said.append("systemd ends what you leave running there: run `loginctl enable-linger` on it once")
    return ", ".join(said)
