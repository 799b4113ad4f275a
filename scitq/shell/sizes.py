"""`scitq-fetch ncdu`: a listing as the program ncdu reads it, and that program started on it."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

from scitq._version import VERSION
from scitq.errors import BadInput
from scitq.fetch import transfer
from scitq.fetch.entry import Entry
from scitq.fetch.programs import find
from scitq.fetch.uri import parse
from scitq.shell.answers import Text, size
from scitq.shell.fetching import told, work
from scitq.shell.show import write

_Folder = dict[tuple[str, bool], Any]  # by name and whether it is a folder: those inside, or the row of the file


@told
def ncdu(engine: object, args: SimpleNamespace) -> Text | int | None:
    """What takes how much room."""
    if args.run and (args.target or args.only_file):
        raise BadInput("--run looks at once; FILE is written without it.")
    program = find("ncdu", "Install it with your system's packages (apt install ncdu).") if args.run else ""
    address = parse(args.uri)
    rows = work(args, lambda settings: transfer.list_content(address, settings=settings))
    total = sum(row.size or 0 for row in rows)
    data = b"".join(exported(address.shown, rows))
    if args.run:
        with tempfile.NamedTemporaryFile(prefix="scitq-", suffix=".ncdu") as file:
            file.write(data)
            file.flush()
            # -r: nothing can be deleted from within it, nor a shell be started.
            return subprocess.run([program, "-r", "-f", file.name], check=False).returncode
    if args.only_file and not args.target:
        handle, args.target = tempfile.mkstemp(prefix="scitq-", suffix=".ncdu.json", dir=".")
        os.close(handle)
    if not args.target or args.target == "-":
        write(1, data + b"\n")
        return None
    fresh = f"{args.target}.new"
    with open(fresh, "wb") as file:
        file.write(data + b"\n")
    os.replace(fresh, args.target)
    answer = {"file": os.path.abspath(args.target), "entries": len(rows), "bytes": total}
    return Text(
        "", answer, notes=[f"{args.target}: {len(rows):,} entries, {size(total)}. ncdu -f {args.target} shows it."]
    )


def exported(name: str, rows: Iterable[Entry]) -> Iterator[bytes]:
    """The export in pieces: [1, 0, {who}, [folder, file, [folder, …]]]. Names that are no UTF-8 keep their bytes."""
    top: _Folder = {}
    for row in rows:
        *above, last = row.rel_name.strip("/").split("/")
        folder = top
        for part in above:
            # Where only files are listed, folders are what their names say. A file may have the name of a folder there.
            folder = folder.setdefault((part, True), {})
        if row.is_dir:
            folder.setdefault((last, True), {})
        else:
            folder[last, False] = row
    who = {"progname": "scitq-fetch", "progver": VERSION, "timestamp": int(time.time())}
    yield f"[1,0,{json.dumps(who)},\n".encode()
    yield from _folder(name, top)
    yield b"]"


def _folder(name: str, inside: _Folder) -> Iterator[bytes]:
    waiting = [_sorted(inside)]
    yield b"[" + _bytes({"name": name})
    while waiting:
        found = next(waiting[-1], None)
        if found is None:
            waiting.pop()
            yield b"]"
            continue
        (below, is_folder), value = found
        if is_folder:
            yield b",\n[" + _bytes({"name": below})
            waiting.append(_sorted(value))
        else:
            yield b",\n" + _bytes(_file(below, value))


def _sorted(inside: _Folder) -> Iterator[tuple[tuple[str, bool], Any]]:
    return iter(sorted(inside.items(), key=lambda item: item[0]))


def _file(name: str, row: Entry) -> dict[str, Any]:
    date = row.modification_date
    length = row.size or 0
    return {"name": name, "asize": length, "dsize": length, **({"mtime": int(date.timestamp())} if date else {})}


def _bytes(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape")
