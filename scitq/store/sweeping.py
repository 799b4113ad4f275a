"""Files of the side folder that nothing in the state file needs any more: logs of executions that are gone, and what ships with the
tasks of scripts (`workflow.code`). Looked for once a day, when nothing else is to be done (see `keep`).

Nothing young is touched, by when it was written or wished for last: a file is there before the rows that need it. Killed at any
moment, the next look finishes it.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from scitq.store import logs, query

if TYPE_CHECKING:
    from scitq.store.connection import Store

YOUNG_S = 86_400.0
CODE = ("workflows", "code")
"""The folder of what ships, in the side folder."""
_SHIPPED = re.compile(r"[0-9a-f]{32}\.(?:code|pyz)")
_ASIDE = ".old"


def sweep_logs(store: Store, now_s: float) -> int:
    """Remove log files of executions that are not in the file: a purge was killed before it could."""
    count = 0
    for path in (store.side / "logs").glob("*.*"):
        number = path.name.split(".")[0]
        if path.suffix.lstrip(".") not in logs.NAMES or not number.isdecimal() or not _is_old(path, now_s):
            continue
        if query.row(store.reader(), "select 1 from execution where id = ?", (int(number),)) is None:
            path.unlink(missing_ok=True)
            count += 1
    return count


def sweep_code(store: Store, now_s: float) -> int:
    """Remove what was shipped for tasks that are not in the file any more, and what a killed script left half written.

    Whoever ships a file again makes it young first, without a word to us. So it is taken aside before the last look at its age:
    one that was made young meanwhile is put back, and who did not find it has written it anew.
    """
    folder = store.side.joinpath(*CODE)
    try:
        found = list(folder.iterdir())
    except FileNotFoundError:
        return 0
    for path in found:
        if path.name.endswith(_ASIDE):  # of a sweep that was killed
            _put_back(path)
        elif path.name.endswith(".new") and _is_old(path, now_s):
            path.unlink(missing_ok=True)
    old = [path for path in folder.iterdir() if _SHIPPED.fullmatch(path.name) and _is_old(path, now_s)]
    needed = _needed(store) if old else set()
    count = 0
    for path in old:
        if path.name in needed:
            continue
        aside = path.with_name(f".{path.name}{_ASIDE}")
        with contextlib.suppress(FileNotFoundError):  # somebody else sweeps, too
            path.rename(aside)
            if _is_old(aside, now_s):
                aside.unlink()
                count += 1
            else:
                _put_back(aside)
    return count


def _needed(store: Store) -> set[str]:
    """The names of files that tasks have among their resources, also by an edit that waits for its worker."""
    db = store.reader()
    found = query.rows(
        db,
        """select distinct value from task, json_each(task.spec, '$.resource') where spec glob '*/workflows/code/*'
        union select data from edit where data glob '*/workflows/code/*'""",
    )
    return {name for (text,) in found for name in _SHIPPED.findall(str(text))}


def _put_back(path: Path) -> None:
    target = path.with_name(path.name.removeprefix(".").removesuffix(_ASIDE))
    with contextlib.suppress(FileNotFoundError):
        if target.exists():  # written anew meanwhile, and the same
            path.unlink()
        else:
            path.rename(target)


def _is_old(path: Path, now_s: float) -> bool:
    try:
        found = path.stat()
        return now_s - max(found.st_mtime, found.st_atime) >= YOUNG_S
    except FileNotFoundError:
        return False
