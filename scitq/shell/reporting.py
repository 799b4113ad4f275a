"""`scitq report`: what a workflow did, as a page, as JSON, as a research object."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from scitq.engine import Engine
from scitq.shell.answers import Bytes, Text, size
from scitq.shell.show import write
from scitq.workflow import report

# The pieces of a text are gathered up to so many characters before they are written.
PIECE = 1 << 16


def make(engine: Engine, args: SimpleNamespace) -> Text | int:
    """Write what was asked for; JSON to stdout, piece by piece."""
    is_to_stdout = args.html == "-"
    target = None if args.html is None or is_to_stdout else Path(args.html)
    crate = None if args.crate is None else Path(args.crate)
    as_json = args.screen.as_json
    written: list[Path] = []
    if target is not None or crate is not None or not (as_json or is_to_stdout):
        made = report.write(
            engine, args.name, target, crate=crate, license=args.license, author=args.author, checksums=args.checksums
        )
        assert isinstance(made, Path)
        written = [path for path in (target or (None if crate else made), crate) if path is not None]
    if is_to_stdout:
        write(1, report.html(engine, args.name, checksums=args.checksums).encode(errors="backslashreplace"))
        return 0
    if as_json:
        _to_stdout(report.json_parts(engine, args.name, checksums=args.checksums))
        return 0
    return Text("\n".join(f"{path} ({size(_size(path))})" for path in written), _data(written))


def _to_stdout(parts: Any) -> None:
    held = ""
    for part in parts:
        held += part
        if len(held) >= PIECE:
            write(1, held.encode())
            held = ""
    write(1, f"{held}\n".encode())


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size


def _data(written: list[Path]) -> list[dict[str, Any]]:
    return [{"path": str(path.absolute()), "size": Bytes(_size(path))} for path in written]
