"""The text of the journal's lines about executions. Made by hand: they are the keeper's only work per task."""

from __future__ import annotations

import json
import sys
import time
from json.encoder import encode_basestring_ascii as quoted
from typing import TYPE_CHECKING, Any

from scitq.remote.agent.containers import told
from scitq.remote.agent.orders import CAP_BYTES, GRACE_S, Order

if TYPE_CHECKING:
    from scitq.remote.agent.task import Task

_RSS_UNIT = 1 if sys.platform == "darwin" else 1024
# In blocks of 512 bytes; elsewhere it is a number of operations, of any size.
_COUNTS_BLOCKS = sys.platform == "linux"


def start_line(order: Order, slot: int, at: float, b: float, m: float) -> str:
    """Written before the spawn; what a later keeper must know of the order is in it."""
    extra = ""
    if order.timeout is not None:
        extra += f',"timeout":{order.timeout!r}'
    if order.deliver is not None:
        extra += f',"deliver":{quoted(order.deliver)}'
    if order.home is not None:
        extra += f",{json.dumps(order.home)[1:-1]}"
    if order.box is not None:
        extra += f',"box":{json.dumps(order.box.folders)}'
    if order.image is not None:
        extra += f',"image":{json.dumps(order.image)}'
    if order.is_staged:
        extra += ',"staged":true'
    if order.slots != 1:
        extra += f',"slots":{order.slots}'
    if order.grace != GRACE_S:
        extra += f',"grace":{order.grace!r}'
    if order.cap != CAP_BYTES:
        extra += f',"cap":{order.cap}'
    return f'{{"k":"start","id":{_json(order.id)},"slot":{slot},"at":{at:.3f},"b":{b:.3f},"m":{m:.3f}{extra}}}'


def pid_line(task: Task) -> str:
    """Written soon after the spawn."""
    return f'{{"k":"pid","id":{_json(task.id)},"pid":{task.pid},"b":{task.b:.3f}}}'


class Exit:
    """How a started execution ended, and what it left."""

    __slots__ = ("code", "e", "ecut", "en", "error", "goes", "is_kept", "is_left", "note", "o", "ocut", "on", "run", "sig",
                 "usage", "why")  # fmt: skip

    def __init__(self, code: int | None, sig: int | None, why: str | None, note: str | None, usage: Any) -> None:
        self.code, self.sig, self.why, self.note, self.usage = code, sig, why, note, usage
        self.run = 0.0
        self.error: str | None = None
        self.o: bytes | None = b""
        self.e: bytes | None = b""
        self.on = self.en = 0
        self.ocut = self.ecut = self.is_kept = self.is_left = False
        self.goes: dict[str, Any] | None = None
        """What is to become of its output, if it is to be brought somewhere."""

    @property
    def is_success(self) -> bool:
        """Whether it ended by itself, and well."""
        return self.code == 0 and self.why is None

    def line(self, task: Task) -> str:
        """The exit line."""
        parts = [
            f'{{"k":"exit","id":{_json(task.id)},"code":{_json(self.code)},"sig":{_json(self.sig)},"why":{_json(self.why)}',
            f',"o":{_bytes(self.o)},"e":{_bytes(self.e)},"on":{self.on},"en":{self.en}',
            ',"ocut":true' if self.ocut else "",
            ',"ecut":true' if self.ecut else "",
            f',"note":{quoted(self.note)}' if self.note else "",
            f',"error":{quoted(self.error)}' if self.error else "",
            f',"image":{json.dumps(told(task.image))}' if task.image is not None else "",
            f',"left":{task.pid},"grace":{task.grace!r}' if self.is_left else "",
            f',"box":{json.dumps(task.box.folders)}' if self.is_left and task.box is not None else "",
            f',"kept":{_json(self.is_kept)},"collect":{_json(self.goes is not None)}',
            "" if self.goes is None else f",{json.dumps(self.goes)[1:-1]}",
            f',"at":{time.time():.3f},"run":{self.run:.6f}',
        ]
        if self.usage is not None:
            parts.append(usage_of(self.usage))
        parts.append("}")
        return "".join(parts)


def usage_of(usage: Any) -> str:
    """What a program and all the children that it waited for used, as the system counted it anyway.

    u, s            CPU seconds, their own and the system's for them
    rss             bytes of memory at the peak of the largest of the processes (not of all of them together)
    read, written   bytes that came from or are to go to a disk for them; absent for 0, null where it is not counted.
                    Not what they find in memory because somebody read it before, or take back before it reaches the
                    disk; nor pipes, sockets and most network disks.
    """
    text = f',"u":{usage.ru_utime:.6f},"s":{usage.ru_stime:.6f},"rss":{usage.ru_maxrss * _RSS_UNIT}'
    if not _COUNTS_BLOCKS:
        text += ',"read":null,"written":null'
    elif usage.ru_inblock or usage.ru_oublock:
        text += f',"read":{usage.ru_inblock * 512},"written":{usage.ru_oublock * 512}'
    return text


def never_ran(identity: Any, why: str, code: int | None, note: str | None, more: dict[str, Any] | None = None) -> str:
    """The exit line of an order that got no process; `more` are its further keys."""
    line: dict[str, Any] = {"k": "exit", "id": identity, "code": code, "sig": None, "why": why, "o": "", "e": ""}
    line |= {"on": 0, "en": 0, "kept": False, "collect": False, "at": round(time.time(), 3), "run": 0.0}
    if note:
        line["note"] = note
    return json.dumps(line if more is None else {**line, **more})


def collected(said: dict[str, Any]) -> str:
    """What came of bringing an output home, as the agent says it."""
    line = {"k": "collected", "id": said["id"], "ok": bool(said["ok"]), "note": said.get("note")}
    names = ("error", "to", "held", "files", "folders", "programs", "failed")
    return json.dumps(line | {name: said[name] for name in names if name in said})


def _bytes(data: bytes | None) -> str:
    """Any bytes as a JSON string, one character a byte; null when they are too many."""
    return "null" if data is None else quoted(data.decode("latin-1")) if data else '""'


def _json(value: Any) -> str:
    if value is None:
        return "null"
    if value is True or value is False:
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else quoted(value)
