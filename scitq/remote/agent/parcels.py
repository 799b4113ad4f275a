"""Inputs and resources that lie on the submitting machine: what the driver said they are, and the folders that tasks get links to.

An order names a parcel (`<execution>.<n>`) where it would name a path of this machine. The driver says what it holds once it
has looked, and sends what is not here, by content (`blobs`). Until both are here the execution waits, as it does for remotes.

    parcels/of/<execution>.<n>   {"list", "base", "tail"}: which list, and how the address goes on below it; or why not.
                                 Of the place of an output: {"go"}, or {"exists", "to", "files"}: nothing is to be done
    parcels/<list>.json          [[name, size, sha256, "x" if it may be run]]; a folder's name ends in a slash
    parcels/<list>/              all of that, linked from `blobs`; tasks get links to these
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any

from scitq.remote.agent.blobs import NAME, Blobs
from scitq.remote.agent.collect import to_trash
from scitq.remote.agent.orders import key_of

if TYPE_CHECKING:
    from scitq.fetch.uri import Address

LATELY_S = 600.0

_KEY = re.compile(r"[0-9a-f]{16,64}\Z")

Row = list[Any]


class BadParcels(Exception):
    """What was said of parcels makes no sense; the text says why."""


class Gone(Exception):
    """A file that was here is not any more, or is not as it came: `name`."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Listed:
    """What is to be known of a list while executions wait for it."""

    def __init__(self, rows: list[Row], here: Callable[[str], int]) -> None:
        self.size = sum(row[1] for row in rows)
        self.sizes = {row[2]: row[1] for row in rows if row[2]}
        """Of its files, by their sums."""
        self.missing = {sha for sha in self.sizes if here(sha) >= 0}


class Parcels:
    """Those of one root folder. `came` is called, from any thread, when all of a list is here."""

    def __init__(self, root: str, came: Callable[[], None]) -> None:
        self.root = root
        self.folder = os.path.join(root, "parcels")
        self.came = came
        self._work = threading.RLock()
        """Around what takes its time. Whoever needs both locks takes this one first."""
        self._state = threading.RLock()
        """Around `names` and `lists`, and the files that they are written down in."""
        self.blobs = Blobs(root, self._changed, self._work)
        self.names: dict[str, dict[str, Any]] = {}
        """What the driver has said of each parcel."""
        self._since: dict[str, float] = {}
        """When that was, as far as it was said to this agent."""
        self.lists: dict[str, Listed] = {}
        os.makedirs(os.path.join(self.folder, "of"), mode=0o700, exist_ok=True)
        for name in os.listdir(os.path.join(self.folder, "of")):
            said = _read(os.path.join(self.folder, "of", name))
            if isinstance(said, dict):
                self.names[name] = said

    # What the driver says.

    def take(self, parcels: Any, lists: Any) -> None:
        """Its word on some parcels, on disk before this returns; BadParcels when it makes no sense."""
        if not isinstance(parcels, dict) or not isinstance(lists, dict):
            raise BadParcels("parcels and lists must be objects")
        for key, rows in lists.items():
            _check_rows(key, rows)
        for name, said in parcels.items():
            _check_name(name)
            _check_said(name, said)
        with self._state:
            for key, rows in lists.items():
                self._write(f"{key}.json", rows)
                self.lists.pop(key, None)
            for name, said in parcels.items():
                self._write(os.path.join("of", name), said)
                self.names[name] = said
                self._since[name] = time.monotonic()

    def _write(self, name: str, value: Any) -> None:
        path = os.path.join(self.folder, name)
        fresh = f"{path}.new"
        with open(fresh, "w", encoding="ascii") as file:
            json.dump(value, file, separators=(",", ":"))
        os.rename(fresh, path)

    def over(self, key: str) -> None:
        """An execution needs its parcels no more."""
        with self._state:
            for name in [name for name in self.names if name.rpartition(".")[0] == key]:
                del self.names[name]
                self._since.pop(name, None)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(self.folder, "of", name))

    def keep(self, wanted: Collection[str]) -> None:
        """Executions that are not in `wanted` are over, unless they are on their way here."""
        for name in list(self.names):
            key = name.rpartition(".")[0]
            if key not in wanted and time.time() - _age(os.path.join(self.folder, "of", name)) > LATELY_S:
                self.over(key)

    # Who waits for what.

    def ending(self, ask: dict[str, Any]) -> dict[str, Any] | None:
        """Why an execution is not to run: something cannot be had, or its output is there already. None: no reason known."""
        for name in names_in(ask):
            said = self.names.get(name, {})
            if "error" in said:
                return {"ok": False, "why": "stage_in", "error": said["error"], "note": said.get("note")}
            if "exists" in said:
                return {"ok": True, "exists": True, "to": said["to"], "files": said["files"]}
        return None

    def wants(self, ask: dict[str, Any], sha: str) -> bool:
        """Whether an execution waits for that file."""
        return any((found := self._listed(name)) is not None and sha in found.missing for name in names_in(ask))

    def has(self, ask: dict[str, Any]) -> bool:
        """Whether all of its parcels are here."""
        return all(self._has(name) for name in names_in(ask))

    def _has(self, name: str) -> bool:
        found = self._listed(name)
        return "go" in self.names.get(name, {}) if found is None else not found.missing

    def progress(self, ask: dict[str, Any]) -> dict[str, tuple[int, int | None]]:
        """Bytes that are here, and bytes in all where that is known, of each parcel of an execution."""
        told: dict[str, tuple[int, int | None]] = {}
        for name in names_in(ask):
            found = self._listed(name)
            if "go" in self.names.get(name, {}):
                continue
            if found is None:
                told[name] = 0, None
            else:
                away = sum(found.sizes[sha] - max(0, self.blobs.here(sha)) for sha in list(found.missing))
                told[name] = found.size - away, found.size
        return told

    def _listed(self, name: str) -> Listed | None:
        with self._state:
            key = self.names.get(name, {}).get("list")
            if key is None:
                return None
            if key not in self.lists:
                rows = _read(os.path.join(self.folder, f"{key}.json"))
                if rows is None:
                    return None  # the driver says it again
                self.lists[key] = Listed(rows, self.blobs.here)
            return self.lists[key]

    def _changed(self, sha: str, is_here: bool) -> None:
        with self._state:
            found = [each for each in self.lists.values() if sha in each.sizes]
            for each in found:
                (each.missing.discard if is_here else each.missing.add)(sha)
            is_whole = is_here and any(not each.missing for each in found)
        if is_whole:
            self.came()

    # What tasks get.

    def place(self, entry: dict[str, Any]) -> Address:
        """Have a parcel lie in its folder; returns its address there.

        Raises:
            Gone: some of it is not here.
        """
        address = self.address(entry)
        if address is None:
            raise Gone(entry["uri"])
        self._tree(self.names[entry["parcel"]]["list"])
        return address

    def _tree(self, key: str) -> str:
        place = os.path.join(self.folder, key)
        with self._work:
            rows = _read(f"{place}.json")
            if rows is None:
                raise Gone(key)
            os.utime(f"{place}.json")  # it was used now
            if not os.path.isdir(place) or not self._is_sound(place, rows):
                to_trash(self.root, place)
                self._build(place, rows)
            return place

    def _is_sound(self, place: str, rows: list[Row]) -> bool:
        for name, size, sha, *_ in rows:
            try:
                found = os.stat(os.path.join(place, name))
            except OSError:
                return False
            if sha and (found.st_size != size or found.st_mtime_ns != self.blobs.whole.get(sha)):
                return False
        return True

    def _build(self, place: str, rows: list[Row]) -> None:
        fresh = f"{place}.new"
        to_trash(self.root, fresh)
        os.makedirs(fresh, mode=0o700)
        for name, _, sha, *may_run in rows:
            target = os.path.join(fresh, name)
            os.makedirs(target if not sha else os.path.dirname(target), mode=0o700, exist_ok=True)
            if not sha:
                continue
            path = self.blobs.path(sha)
            if path is None:
                raise Gone(name)
            if may_run:
                _copy(path, target)
            else:
                try:
                    os.link(path, target)
                except OSError:  # more links than the file system allows, or none at all
                    _copy(path, target, 0o444)
        os.rename(fresh, place)

    def address(self, entry: dict[str, Any]) -> Address | None:
        """What the address of a parcel is on this machine; None when the driver has not said."""
        said = self.names.get(entry["parcel"], {})
        if "list" not in said:
            return None
        from dataclasses import replace  # with what follows: an agent that stages nothing need not load that

        from scitq.fetch.uri import of_path, parse

        return replace(
            of_path(os.path.join(self.folder, said["list"], said["tail"])), actions=parse(entry["uri"]).actions
        )

    def at_home(self, text: str) -> str:
        """A message, with paths as they are on the submitting machine."""
        if self.folder in text:
            for said in list(self.names.values()):
                if "list" in said:
                    text = text.replace(os.path.join(self.folder, said["list"]), said["base"])
        return text

    def is_ours(self, path: str) -> bool:
        """Whether that file is in one of the folders here."""
        return path.startswith(f"{self.folder}/")

    def mend(self, path: str) -> bool:
        """A task changed that file of ours: True when it is as it came after all, else it is gone, and comes anew."""
        key = path[len(self.folder) + 1 :].partition("/")[0]
        with self._work:
            rows = _read(os.path.join(self.folder, f"{key}.json")) or []
            bad = [row for row in rows if row[2] and self.blobs.path(row[2]) is None]
            if is_sound := self._is_sound(os.path.join(self.folder, key), rows):
                return not bad
            to_trash(self.root, os.path.join(self.folder, key))
            return is_sound

    # Room.

    def evict(self, held: Collection[str]) -> bool:
        """Let the least recently used go that no execution in `held` wants; False when there is nothing."""
        with self._work, self._state:
            used = self._used(held)
            known = {key: self._shas(key) for key in self._keys()}
            kept: set[str] = set().union(*(known[key] for key in known if key in used))
            spare = [key for key in known if key not in used]
            if spare:
                oldest = min(spare, key=lambda key: _age(os.path.join(self.folder, f"{key}.json")))
                kept.update(*(known[key] for key in spare if key != oldest))
                self.lists.pop(oldest, None)
                to_trash(self.root, os.path.join(self.folder, oldest))
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(self.folder, f"{oldest}.json"))
            lone = [sha for sha in (*self.blobs.whole, *self.blobs.parts) if sha not in kept]
            gone = [sha for sha in lone if self.blobs.drop(sha)]
            return bool(spare or gone)

    def spare_bytes(self, held: Collection[str]) -> int:
        """What `evict` might free, at most."""
        with self._state:
            used = self._used(held)
            kept: set[str] = set().union(*(self._shas(key) for key in self._keys() if key in used))
        found = 0
        for name in os.listdir(self.blobs.folder):
            if name[:64] not in kept:
                with contextlib.suppress(OSError):
                    found += os.stat(os.path.join(self.blobs.folder, name)).st_size
        return found

    def _used(self, held: Collection[str]) -> set[str]:
        """Lists that are wanted; what was said lately may be of an order that is on its way here."""
        lately = time.monotonic() - LATELY_S
        return {
            said["list"]
            for name, said in self.names.items()
            if "list" in said and (name.rpartition(".")[0] in held or self._since.get(name, lately) > lately)
        }

    def _keys(self) -> list[str]:
        return [name[:-5] for name in os.listdir(self.folder) if name.endswith(".json")]

    def _shas(self, key: str) -> set[str]:
        return {row[2] for row in _read(os.path.join(self.folder, f"{key}.json")) or [] if row[2]}


def names_in(ask: dict[str, Any]) -> Iterator[str]:
    """The parcels that an order names."""
    for kind in ("input", "resource"):
        for entry in ask.get(kind) or ():
            if isinstance(entry, dict) and "parcel" in entry:
                yield entry["parcel"]
    if "check" in ask:
        yield ask["check"]["parcel"]


def _copy(path: str, target: str, mode: int = 0o555) -> None:
    """With the time of the original; a task may run it, which others that have the same bytes may not."""
    import shutil

    shutil.copyfile(path, target)
    found = os.stat(path)
    os.chmod(target, mode)
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


def _read(path: str) -> Any:
    try:
        with open(path, encoding="ascii") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def _age(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def _check_rows(key: str, rows: Any) -> None:
    if not _KEY.match(key) or not isinstance(rows, list):
        raise BadParcels("lists: a name of hexadecimal digits with a list of files is wanted")
    for row in rows:
        if not isinstance(row, list) or len(row) not in (3, 4):
            raise BadParcels("lists: a file is [name, size, sha256]")
        name, size, sha = row[:3]
        if not isinstance(name, str) or "\0" in name or {"", ".", ".."} & set(name.removesuffix("/").split("/")):
            raise BadParcels(f"lists: {name!r:.100} is no name below a folder")
        if not isinstance(size, int) or size < 0 or not isinstance(sha, str):
            raise BadParcels(f"lists: {name!r:.100}: a size and a sum are wanted")
        if not (NAME.match(sha) if not name.endswith("/") else sha == ""):
            raise BadParcels(f"lists: {name!r:.100}: a SHA-256 sum is wanted for a file, and none for a folder")


def _check_name(name: str) -> None:
    execution, _, number = name.rpartition(".")
    try:
        key_of(execution)
    except ValueError as error:
        raise BadParcels(f"parcels: {name!r:.100}: {error}") from None
    if not number.isdecimal():
        raise BadParcels(f"parcels: {name!r:.100}: an execution and a number are wanted")


def _check_said(name: str, said: Any) -> None:
    texts = [value for key, value in said.items() if key != "files"] if isinstance(said, dict) else [None]
    if not all(isinstance(each, str) for each in texts):
        raise BadParcels(f"parcels: {name}: an object of texts is wanted")
    if "error" in said or "go" in said:
        return
    if "exists" in said:
        if "to" not in said or not isinstance(said.get("files"), list):
            raise BadParcels(f"parcels: {name}: what exists has to and files")
        return
    if not {"list", "base", "tail"} <= said.keys() or not _KEY.match(said["list"]):
        raise BadParcels(f"parcels: {name}: list, base and tail are wanted")
    tail = said["tail"].removesuffix("/")
    if "\0" in tail or ({"", ".", ".."} & set(tail.split("/"))):
        raise BadParcels(f"parcels: {name}: {tail!r:.100} is no name below a folder")
