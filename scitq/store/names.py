"""The first names and numbers that begin with a text, for completion: look-ups in indexes, however many tasks there are.

Every function runs on a reader, and changes nothing. `glance` makes one for a few look-ups of a process that is soon gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import apsw

from scitq.states import TaskState
from scitq.store import query

# As far as numbers of tasks grow in digits.
_DIGITS = 18
# Images are looked for among so many of the newest tasks.
_RECENT = 300
# The last of all characters: UTF-8 keeps the order of code points.
_LAST = "\U0010ffff"

# Whoever presses Tab does not wait for who has locked the file.
_PATIENCE_MS = 100


def glance(path: Path) -> apsw.Connection:
    """A reader that leaves no trace: where nobody has the file open, its -wal and -shm are not made for it.

    Raises:
        apsw.Error: it cannot be opened.
    """
    is_open = path.with_name(path.name + "-wal").exists()
    uri = f"file:{quote(str(path))}?mode=ro{'' if is_open else '&immutable=1'}"
    db = apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    db.set_busy_timeout(_PATIENCE_MS)
    db.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)  # no SQL of a stranger's schema runs with our rights
    db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    return db


class Named(NamedTuple):
    """A task that a word may mean."""

    id: int
    name: str | None
    state: TaskState


def tasks_named(db: apsw.Connection, prefix: str, limit: int) -> list[Named]:
    """The newest task of each of the first names that begin so."""
    found = []
    for name in _distinct(db, "select min(name) from task where name >= ? and name < ?", prefix, limit):
        row = query.row(db, "select id, name, state from task where name = ? order by id desc limit 1", (name,))
        if row is not None:
            found.append(Named(row[0], row[1], TaskState(row[2])))
    return found


def tasks_numbered(db: apsw.Connection, digits: str, limit: int) -> list[Named]:
    """The tasks whose number begins with these digits, the newest first; without any, the newest of all."""
    found: list[Named] = []
    for low, high in _ranges(digits):
        rows = query.rows(
            db, "select id, name, state from task where id >= ? and id < ? order by id desc limit ?", (low, high, limit)
        )
        found += [Named(id, name, TaskState(state)) for id, name, state in rows]
    return sorted(found, reverse=True)[:limit] if not digits else found[:limit]


def executions_numbered(db: apsw.Connection, digits: str, limit: int) -> list[int]:
    """The executions whose number begins with these digits, the newest first."""
    found: list[int] = []
    for low, high in _ranges(digits):
        rows = query.rows(
            db, "select id from execution where id >= ? and id < ? order by id desc limit ?", (low, high, limit)
        )
        found += [id for (id,) in rows]
    return found[:limit]


def batches(db: apsw.Connection, prefix: str, limit: int) -> list[str]:
    """The first batches that begin so."""
    return list(_distinct(db, "select min(name) from batch where name >= ? and name < ?", prefix, limit))


def recruited(db: apsw.Connection, prefix: str, limit: int) -> list[str]:
    """The batches that have recruiters."""
    sql = "select distinct batch.name from recruiter join batch on batch.id = recruiter.batch order by 1 limit 1000"
    return [name for (name,) in query.rows(db, sql) if name.startswith(prefix)][:limit]


def workers(db: apsw.Connection, prefix: str, limit: int) -> list[str]:
    """The first workers that begin so."""
    return list(_distinct(db, "select min(name) from worker where name >= ? and name < ?", prefix, limit))


def flavors(db: apsw.Connection, prefix: str, limit: int) -> list[tuple[str, str]]:
    """The first flavors on sale that begin so, each with what it has, its least price, and how many there are in which regions."""
    rows = query.rows(
        db,
        """select flavor.name, min(flavor.data ->> 'cpu'), min(flavor.data ->> 'ram'), max(flavor.data ->> 'local_disk',
        flavor.data ->> 'root_disk'), flavor.data ->> '$.gpu.model', min(offer.price), offer.currency, min(offer.eviction),
        group_concat(distinct offer.region || coalesce(' (' || offer.available || ')', '')) from offer join flavor on flavor.id = spec
        where flavor.name >= ? and flavor.name < ? group by flavor.name order by flavor.name limit ?""",
        (prefix, prefix + _LAST, limit),
    )
    found = []
    for name, cpu, ram, disk, gpu, price, currency, eviction, places in rows:
        parts = [f"{cpu} CPUs", f"{ram / 1e9:.3g} GB", f"disk {disk / 1e9:.3g} GB", *([str(gpu)] if gpu else [])]
        parts += [] if price is None else [f"from {price:.3g} {currency}/h"]
        parts += [f"evicted {eviction:g} %/h"] if eviction else []
        found.append((str(name), ", ".join([*parts, str(places).replace(",", " ")])))
    return found


def regions(db: apsw.Connection, prefix: str, limit: int) -> list[tuple[str, str]]:
    """The first regions in which something is sold that begin so, each with by whom."""
    rows = query.rows(
        db,
        """select region, group_concat(distinct provider) from offer where region >= ? and region < ? group by region order by region
        limit ?""",
        (prefix, prefix + _LAST, limit),
    )
    return [(str(region), str(told).replace(",", " ")) for region, told in rows]


def workflows(db: apsw.Connection, prefix: str, limit: int) -> list[str]:
    """The first workflows that begin so."""
    return list(_distinct(db, "select min(name) from workflow where name >= ? and name < ?", prefix, limit))


def images(db: apsw.Connection, prefix: str, limit: int) -> list[str]:
    """The images of the newest tasks."""
    rows = query.rows(
        db,
        """select spec ->> '$.container' as image from (select spec from task order by id desc limit ?)
        where image is not null group by 1 order by 1""",
        (_RECENT,),
    )
    return [image for (image,) in rows if image.startswith(prefix)][:limit]


def columns(db: apsw.Connection) -> dict[str, list[str]]:
    """The views for people, and the columns of each."""
    rows = query.rows(
        db,
        """select sqlite_schema.name, info.name from sqlite_schema join pragma_table_info(sqlite_schema.name) info
        where sqlite_schema.type = 'view' order by sqlite_schema.name, info.cid""",
    )
    found: dict[str, list[str]] = {}
    for view, column in rows:
        found.setdefault(view, []).append(column)
    return found


def _distinct(db: apsw.Connection, sql: str, prefix: str, limit: int) -> Iterator[str]:
    """Different names in order: one look-up for each, for a million tasks may share one name."""
    above, least = prefix + _LAST, prefix
    for _ in range(limit):
        (name,) = query.one(db, sql, (least, above))
        if name is None:
            return
        yield name
        least = name + "\x00"


def _ranges(digits: str) -> Iterator[tuple[int, int]]:
    """The stretches of numbers that begin with these digits, the shortest first."""
    if not digits:
        yield 1, 1 << 62
    elif digits.isdecimal() and digits[0] != "0" and len(digits) <= _DIGITS:
        for more in range(_DIGITS - len(digits) + 1):
            yield int(digits) * 10**more, (int(digits) + 1) * 10**more
