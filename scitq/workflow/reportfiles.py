"""Writing what a report is, whole or not at all: made beside its place, then renamed to it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from glob import escape
from pathlib import Path

from scitq.errors import BadInput


def beside_of(target: Path) -> Path:
    """Where something is made that is to be renamed to `target`; what others that were killed left there is removed."""
    for left in target.parent.glob(f".{escape(target.name)}.*.tmp"):
        pid = left.name.split(".")[-2]
        if pid.isdecimal() and int(pid) != os.getpid():
            try:
                os.kill(int(pid), 0)
            except ProcessLookupError:
                shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
            except OSError:
                continue  # another user's, and alive
    return target.with_name(f".{target.name}.{os.getpid()}.tmp")


def put(target: Path, parts: Iterable[str]) -> None:
    """Write a file, whole or not at all.

    Raises:
        BadInput: it cannot be written there.
    """
    if target.is_dir():
        raise BadInput(f"{target} is a folder: give the name of a file in it, such as {target / 'report.html'}.")
    beside = beside_of(target)
    try:
        with beside.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(parts)
        beside.replace(target)
    except OSError as problem:
        beside.unlink(missing_ok=True)
        raise BadInput(f"{target} cannot be written: {problem.strerror}.") from problem
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
