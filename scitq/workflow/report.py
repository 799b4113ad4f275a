"""What a workflow did, for people and for other programs: an HTML page, JSON, a research object (RO-Crate).

Works from the state file alone, while the workflow runs or years later. Gathering is `reportgather`, the documents are made by
`reportpage`, `reportjson` and `reportcrate`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scitq.store import reporting
from scitq.workflow import reportgather, reportjson, reportpage
from scitq.workflow.checksums import compute
from scitq.workflow.reportfacts import Facts
from scitq.workflow.reportfiles import put

if TYPE_CHECKING:
    from scitq.engine import Engine


def write(
    engine: Engine, name: str, target: Path | None, *, json: bool = False, crate: Path | None = None,
    license: str | None = None, author: str | None = None, checksums: bool = False,
) -> Path | dict[str, Any]:  # fmt: skip
    """Write the report of a workflow to `target`, a new or an old file, as an HTML page; to the folder `crate`, as an RO-Crate.

    With `json` it is returned as values; else the path of what was written is: `NAME.html` here, if nothing else was asked for.
    With `checksums` the SHA-256 of inputs on this machine that are still what was read is computed, which takes reading them.

    Raises:
        UnknownWorkflow: there is none of that name.
        BadInput: it cannot be written there.
    """
    if target is None and crate is None and not json:
        target = Path(f"{name.replace('/', '_')}.html")
    facts = _facts(engine, name, checksums=checksums)
    if target is not None:
        put(target, [reportpage.page(facts)])
    if crate is not None:
        from scitq.workflow import reportcrate

        with reporting.moment(engine._reader()):
            reportcrate.write(facts, engine._reader(), crate, license=license, author=author)
    if json:
        with reporting.moment(engine._reader()):
            return reportjson.whole(facts, engine._reader())
    written = target or crate
    assert written is not None
    return written


def _facts(engine: Engine, name: str, *, checksums: bool) -> Facts:
    facts = reportgather.gather(engine, name, time.time_ns() // 1_000_000)
    if checksums:
        compute(facts)
    return facts


def html(engine: Engine, name: str, *, checksums: bool = False) -> str:
    """The page.

    Raises:
        UnknownWorkflow: there is none of that name.
    """
    return reportpage.page(_facts(engine, name, checksums=checksums))


def json_parts(engine: Engine, name: str, *, checksums: bool = False) -> Iterator[str]:
    """The report as a JSON text, in pieces: all tasks of a large workflow need not be held at once.

    Raises:
        UnknownWorkflow: there is none of that name.
    """
    facts = _facts(engine, name, checksums=checksums)
    with reporting.moment(engine._reader()):
        yield from reportjson.parts(facts, engine._reader())
