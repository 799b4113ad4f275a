"""The steps of a promotion at the other end, by name: what `scitq host-side` does, called by `promotion` on the machine that asks.

A step reads from a stream and answers on one: a line of JSON after a mark, or bytes after another (`remote.login`).
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import IO, Any

from scitq import belongings, moving
from scitq.errors import BadInput
from scitq.remote.login import ANSWER, STREAM
from scitq.store.connection import Store
from scitq.store.moved import Moved
from scitq.store.schema import SCHEMA


def step(
    verb: str, path: Path, words: list[str], source: IO[bytes], sink: IO[bytes], *, is_forced: bool = False
) -> None:
    """Do one step for the file at `path`.

    Raises:
        ScitqError: it cannot be done.
    """
    side = path.with_name(path.name + ".d")
    if verb == "send":
        names = json.load(source)
        sink.write(b"\n" + STREAM)
        belongings.pack(side, names, sink)
    elif verb == "copy":
        sink.write(b"\n" + STREAM)
        with (side / moving.COPY / path.name).open("rb") as file:
            shutil.copyfileobj(file, sink)
    else:
        told = _done(verb, path, side, words, source, is_forced=is_forced)
        sink.write(b"\n" + ANSWER + json.dumps(told).encode() + b"\n")
    sink.flush()


def _done(verb: str, path: Path, side: Path, words: list[str], source: IO[bytes], *, is_forced: bool) -> Any:
    if verb == "look":
        return moving.look(path)
    if verb == "list":
        return belongings.contents(side)
    if verb in ("put", "private"):
        side.mkdir(mode=0o700, parents=True, exist_ok=True)
        if verb == "put":
            return {"taken": belongings.unpack(side, source)}
        belongings.keep_private(side / belongings.RCLONE, source.read())
    elif verb == "take":
        moving.take_in(path, source, words[0])
    elif verb in ("open", "leave", "gone"):
        with Store.open(path, SCHEMA, create=False) as store:
            return _in_the_file(store, verb, words, is_forced=is_forced)
    else:
        raise BadInput(f"there is no step {verb!r}.")
    return {"ok": True}


def _in_the_file(store: Store, verb: str, words: list[str], *, is_forced: bool) -> Any:
    now = time.time_ns() // 1_000_000
    if verb == "open":
        moving.open_up(store)
    elif verb == "leave":
        moving.leave(store, Moved("leaving", words[0], words[1], [], now), is_forced=is_forced)
        copy = moving.copy_out(store, None)
        return {"digest": moving.digest_of(copy), "files": belongings.contents(store.side)}
    else:
        moving.settle(store, Moved("away", words[0], words[1], [], now))
        belongings.keep_private(store.side / belongings.RCLONE, b"")
    return {"ok": True}
