"""What is at addresses now, told so that a change shows: the fingerprints that keys of the cache are made of.

Looks at storages and disks, so it is called in threads; what a task left is told by its manifest, and nothing is looked at.
Addresses of one storage that lie side by side are asked for in one listing, however many there are.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from scitq.addresses import TASK, parent_of
from scitq.digest import ETAG, MADE, MD5, TIME, File, Fingerprint, fingerprint
from scitq.errors import ScitqError
from scitq.fetch.entry import FILE, Entry
from scitq.fetch.errors import Cancelled, FetchError, NotFound, TimedOut, Unsupported, of_os_error
from scitq.fetch.expand import address_of, expand
from scitq.fetch.files import is_temporary
from scitq.fetch.getting import tried
from scitq.fetch.listing import row_of, rows_of
from scitq.fetch.patterns import expression
from scitq.fetch.settings import Settings
from scitq.fetch.transport import transport_of
from scitq.fetch.tree import in_parallel
from scitq.fetch.uri import Address, of_path, parse
from scitq.remote.agent.manifest import NAME
from scitq.store import manifests
from scitq.task import TaskId

if TYPE_CHECKING:
    import apsw

Found = Fingerprint | ScitqError
T = TypeVar("T")
_GLOB = re.compile(r"[*?\[]")


class Looked:
    """What was found at addresses (texts without actions), and when what is there was last changed (Unix time), where known."""

    def __init__(self) -> None:
        self.found: dict[str, Found] = {}
        self.changed_s: dict[str, float] = {}
        self.undated: set[str] = set()
        """Those of which it is not known whether something was taken away."""

    def changed(self, text: str, at_s: float | None) -> None:
        """Something there was last changed then."""
        if at_s is None:
            self.undated.add(text)
        else:
            self.changed_s[text] = max(at_s, self.changed_s.get(text, 0.0))


def is_far(text: str) -> bool:
    """Whether somebody else than this machine has to be asked."""
    address = parse(text)
    return not address.is_local and address.proto != TASK


def look(db: apsw.Connection, texts: Collection[str], outputs: str, settings: Settings) -> Looked:
    """What is at these addresses, whose actions play no part. `outputs` is the folder of outputs without an address."""
    looked = Looked()
    groups: dict[Address, list[tuple[str, Address]]] = {}
    others: list[tuple[str, Address]] = []
    for text in dict.fromkeys(texts):
        address = parse(text).bare
        if address.proto == TASK:
            looked.found[text] = _caught(lambda address=address, text=text: _left(db, address, outputs, looked, text))  # type: ignore[misc]
        elif address.is_local:
            looked.found[text] = _caught(lambda address=address, text=text: _here(address.path, looked, text, address))  # type: ignore[misc]
        elif address.remote and not address.has_glob and len(address.segments) > 1:
            groups.setdefault(address.parent, []).append((text, address))
        else:
            others.append((text, address))

    def one(item: tuple[str, Address]) -> None:
        text, address = item
        looked.found[text] = _caught(lambda: _there(address, settings, looked, text))

    def safely(action: Callable[[T], None], items: Iterable[T]) -> None:
        with contextlib.suppress(Cancelled):  # there was no time left for the rest
            in_parallel(items, action, settings)

    def together(item: tuple[Address, list[tuple[str, Address]]]) -> None:
        parent, members = item
        if len(members) == 1:
            one(members[0])
        else:
            looked.found.update(_side_by_side(parent, members, settings, looked))

    safely(together, groups.items())
    safely(one, others)
    for text in texts:
        if isinstance(looked.found.get(text), Cancelled | None):
            looked.found[text] = TimedOut(
                f"{parse(text).shown}: its storage did not answer in time", uri=text, phase="list"
            )
    return looked


def _caught(ask: Callable[[], Found]) -> Found:
    try:
        return ask()
    except ScitqError as problem:
        return problem
    except OSError as problem:
        return of_os_error(problem, str(problem.filename or ""), "list")


# --- what a task left -----------------------------------------------------------------------------------------------------------


def _left(db: apsw.Connection, address: Address, outputs: str, looked: Looked, text: str) -> Fingerprint:
    """What the newest success of a task left, or of it what lies below: never where it lies, nor which task it was."""
    number = parent_of(address)
    assert number is not None
    folder, below = f"{outputs}/{number}", address.path.partition("/")[2]
    manifest = manifests.of_task(db, TaskId(number))
    if manifest is None:
        there = manifests.source(db, TaskId(number), folder)
        path = f"{folder}/{below}" if below else folder
        if there is None or not (below or os.path.isdir(path)):
            return fingerprint([])
        base = of_path(path)
        return _here(path, looked, text, replace(base, path=path))
    files = [
        File(name, size, f"{MD5}:{md5}" if md5 else f"{MADE}:{manifest.execution}")
        for name, size, md5 in manifest.files
    ]
    if not below.strip("/"):
        return fingerprint(files)
    found = list(_chosen(files, below.strip("/"), has_glob=_GLOB.search(below) is not None))
    if not found:
        raise NotFound(f"{address.shown}: task {number} left nothing of that name.", uri=address.shown, phase="list")
    return fingerprint(found)


def _chosen(files: Iterable[File], below: str, *, has_glob: bool) -> Iterator[File]:
    """Of these files those that a path or pattern names, under the names with which they arrive."""
    whole = re.compile(expression(below, braces=False) + r"\Z", re.DOTALL) if has_glob else None
    for file in files:
        if whole is None:
            if file.name == below:
                yield file._replace(name=below.rpartition("/")[2])
            elif file.name.startswith(f"{below}/"):
                yield file._replace(name=file.name[len(below) + 1 :])
            continue
        parts = file.name.split("/")
        for depth in range(1, len(parts) + 1):
            if whole.match("/".join(parts[:depth])):
                yield file._replace(name="/".join(parts[depth - 1 :]))
                break


# --- this machine ---------------------------------------------------------------------------------------------------------------


def _here(path: str, looked: Looked, text: str, address: Address) -> Fingerprint:
    try:
        found = os.stat(path)
    except OSError as error:
        if not address.has_glob:
            raise of_os_error(error, path, "list") from error
        files: list[File] = []
        settings = Settings()
        for row in expand(address, transport_of(address), settings):
            there = address_of(row).path.rstrip("/")
            files += _tree(there, f"{os.path.basename(there)}", looked, text)
        looked.undated.add(text)  # what matched before and is gone leaves no trace
        return fingerprint(files)
    if stat.S_ISDIR(found.st_mode):
        return fingerprint(_tree(path.rstrip("/"), "", looked, text))
    return fingerprint([_file(path, os.path.basename(path), found, looked, text)])


def _tree(path: str, name: str, looked: Looked, text: str) -> Iterator[File]:
    """A file, or what is in a folder. As they are staged: links to files are files, links to folders stay links."""
    found = os.stat(path)
    if not stat.S_ISDIR(found.st_mode):
        yield _file(path, name, found, looked, text)
        return
    looked.changed(text, found.st_mtime)
    with os.scandir(path) as entries:
        below = sorted(entries, key=lambda each: each.name)
    for entry in below:
        inner = f"{name}/{entry.name}" if name else entry.name
        if entry.name == NAME or is_temporary(entry.name):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _tree(entry.path, inner, looked, text)
        elif entry.is_file():
            yield _file(entry.path, inner, entry.stat(), looked, text)
        elif entry.is_dir():
            linked = os.stat(entry.path)
            looked.changed(text, linked.st_mtime)
            yield File(inner, None, f"{TIME}:{linked.st_mtime_ns} of {os.path.realpath(entry.path)}")


def _file(path: str, name: str, found: os.stat_result, looked: Looked, text: str) -> File:
    """Reading every byte would cost what the cache is to save: size, time of change, and which file it is (another one that
    was put in its place with the same time has another number)."""
    looked.changed(text, found.st_mtime)
    return File(name, found.st_size, f"{TIME}:{found.st_mtime_ns}-{found.st_ino}")


# --- elsewhere ------------------------------------------------------------------------------------------------------------------


def _there(address: Address, settings: Settings, looked: Looked, text: str) -> Fingerprint:
    if address.remote and not address.has_glob:
        rows = _at_once(address, settings)
        if not rows:
            tried(lambda: row_of(address, settings), settings)  # an empty folder is one thing, none at all another
        is_file = len(rows) == 1 and rows[0].rel_name == address.name
        if not is_file:
            looked.undated.add(text)
        return fingerprint(_marked(rows, looked, text))
    if address.proto in ("http", "https"):
        return fingerprint(_marked([tried(lambda: row_of(address, settings), settings)], looked, text))
    rows = tried(lambda: list(rows_of(address, settings, recursive=True, md5=False)), settings)
    if len(rows) != 1 or rows[0].rel_name != address.name:
        looked.undated.add(text)
    if not address.has_glob:
        return fingerprint(_marked(rows, looked, text))
    files: list[File] = []
    for row in rows:
        name = address_of(row).name
        if row.is_dir:
            inner = tried(lambda row=row: list(rows_of(address_of(row), settings, recursive=True, md5=False)), settings)  # type: ignore[misc]
            files += [file._replace(name=f"{name}/{file.name}") for file in _marked(inner, looked, text)]
        else:
            files += [file._replace(name=name) for file in _marked([row], looked, text)]
    return fingerprint(files)


def _at_once(address: Address, settings: Settings, below: Sequence[str] = ()) -> list[Entry]:
    from scitq.fetch import configuration
    from scitq.fetch.rclone import Rclone

    rclone, known = Rclone(), (address.remote, configuration.stamp())
    if known not in _has_hashes:
        _has_hashes[known] = rclone.hashes_for_free(address, settings)
    return tried(lambda: list(rclone.at_once(address, settings, below, md5=_has_hashes[known])), settings)


# Which remotes know the MD5 of their files, as of which state of the configuration: asking takes a process.
_has_hashes: dict[tuple[object, object], bool] = {}


def _side_by_side(
    parent: Address, members: Sequence[tuple[str, Address]], settings: Settings, looked: Looked
) -> dict[str, Found]:
    """Of several names in one folder what each is, in one listing."""
    names = {address.segments[-1] for _, address in members}
    rows: dict[str, list[Entry]] = {name: [] for name in names}
    try:
        for row in _at_once(parent, settings, sorted(names)):
            rows[row.rel_name.partition("/")[0]].append(row)
    except ScitqError as problem:
        return {text: problem for text, _ in members}

    def one(text: str, address: Address) -> Fingerprint:
        name = address.segments[-1]
        mine = rows[name]
        if not mine:
            tried(lambda: row_of(address, settings), settings)
        if any(row.rel_name != name for row in mine):
            looked.undated.add(text)
            mine = [replace(row, rel_name=row.rel_name.partition("/")[2]) for row in mine if row.rel_name != name]
        return fingerprint(_marked(mine, looked, text))

    return {text: _caught(lambda text=text, address=address: one(text, address)) for text, address in members}  # type: ignore[misc]


def _marked(rows: Collection[Entry], looked: Looked, text: str) -> list[File]:
    return [_mark(row, looked, text) for row in rows if row.type == FILE and row.rel_name != NAME]


def _mark(row: Entry, looked: Looked, text: str) -> File:
    date = row.modification_date
    looked.changed(text, None if date is None else date.timestamp())
    if row.md5:
        mark = f"{MD5}:{row.md5}"
    elif row.etag and not row.etag.startswith("W/"):
        mark = f"{ETAG}:{row.etag}"
    elif date is not None and row.size is not None:
        mark = f"{TIME}:{date.isoformat()}"
    else:
        raise Untellable(row.name)
    return File(row.rel_name, row.size, mark)


class Untellable(Unsupported):
    """A source that says nothing by which a change could be told."""

    def __init__(self, uri: str) -> None:
        super().__init__(
            f"{uri} says neither an MD5 nor an ETag nor when it was changed, so it cannot be told whether it was",
            uri=uri, phase="list",
        )  # fmt: skip


__all__ = ["FetchError", "Found", "Looked", "Untellable", "is_far", "look"]
