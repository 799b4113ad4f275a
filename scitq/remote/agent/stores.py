"""The places that outputs are sent to file by file, as `publish` needs them: an rclone remote, ftp, a folder here.

Each file arrives whole or not at all. Whether all have arrived is asked afterwards, by listing.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol, TypeVar

from scitq.fetch.entry import FILE, Entry
from scitq.fetch.errors import BadURI, NotFound, Unsupported, of_os_error
from scitq.fetch.files import check_space, is_temporary, neighbour, put_in_place, sync_folder
from scitq.fetch.getting import tried
from scitq.fetch.reader import Source, Stream
from scitq.fetch.settings import Settings
from scitq.fetch.transport import transport_of
from scitq.fetch.tree import in_parallel
from scitq.fetch.uri import Address, of_path
from scitq.remote.agent.collect import remove
from scitq.remote.agent.contents import Found, printable
from scitq.remote.agent.manifest import LONGEST_BYTES, NAME
from scitq.remote.agent.whole import copy, link, share

T = TypeVar("T")
# rclone writes control characters as their pictures, so a name that holds such a picture would come back as another.
_PICTURES = re.compile("[\u2400-\u2421\u201b]")


class Store(Protocol):
    """One target folder. `listed` is how the listing calls a file of that name."""

    shown: str

    def listed(self, name: str) -> str:
        """The name in `rows`; BadURI for a name that cannot be there."""
        ...

    def top(self) -> list[Entry]:
        """What is directly in it; empty when it is not there."""
        ...

    def rows(self, *, md5: bool = False) -> dict[str, Entry]:
        """Every file below."""
        ...

    def read(self) -> bytes:
        """The manifest's text, when `top` names one."""
        ...

    def write(self, text: bytes) -> None:
        """The manifest, in place of what was there."""
        ...

    def send(self, top: str, files: Sequence[Found]) -> dict[str, str]:
        """These files of the folder `top`, in place of those there. Returns the MD5 of those that it has read."""
        ...

    def delete(self, names: Sequence[str]) -> None:
        """Files as `rows` calls them."""
        ...


def store_of(target: Address, settings: Settings, work: str) -> Store:
    """The one for this address; `work` is a folder of ours for small files."""
    folder = replace(target, path=target.path if target.is_folder_like else f"{target.path}/")
    if target.is_local:
        return HereStore(target.path, settings)
    if target.remote:
        return RcloneStore(folder, settings, work)
    if target.proto == "ftp":
        return FtpStore(folder, settings, work)
    raise Unsupported(
        f"{target.shown}: {target.proto} takes no files. An output is a path, an rclone remote or ftp.",
        uri=target.shown, phase="collect",
    )  # fmt: skip


class _Listed:
    """What a transport lists."""

    def __init__(self, folder: Address, settings: Settings, work: str) -> None:
        self.folder, self.settings, self.work = folder, settings, work
        self.shown = folder.shown.rstrip("/")
        self.transport = transport_of(folder, "put")

    def _entries(self, *, recursive: bool, md5: bool) -> list[Entry]:
        def ask() -> list[Entry]:
            return list(self.transport.entries(self.folder, self.settings, recursive=recursive, md5=md5))

        try:
            return tried(ask, self.settings)
        except NotFound:
            return []

    def top(self) -> list[Entry]:
        return self._entries(recursive=False, md5=False)

    def rows(self, *, md5: bool = False) -> dict[str, Entry]:
        found = self._entries(recursive=True, md5=md5)
        return {row.rel_name: row for row in found if row.type == FILE and row.rel_name != NAME}

    def read(self) -> bytes:
        def attempt() -> bytes:
            found = bytearray()
            with Stream(Source(self.transport, self.folder.join(NAME), self.settings)) as stream:
                while len(found) < LONGEST_BYTES and (data := stream.read(1 << 20)):
                    found += data
            return bytes(found)

        return tried(attempt, self.settings)

    def write(self, text: bytes) -> None:
        path = os.path.join(self.work, f"manifest-{secrets.token_hex(4)}")
        try:
            with open(path, "xb") as file:
                file.write(text)
            tried(lambda: self.transport.put(path, self.folder.join(NAME), self.settings), self.settings)
        except OSError as error:
            raise of_os_error(error, path, "collect") from error
        finally:
            remove(path)

    def _refuse(self, name: str, why: str) -> BadURI:
        return BadURI(
            f"$OUTPUT/{printable(name)}: {self.folder.proto} cannot hold this name ({why}). Choose another name.",
            uri=self.shown, phase="collect",
        )  # fmt: skip


class RcloneStore(_Listed):
    """Any rclone remote: one run of the program for many files."""

    def __init__(self, folder: Address, settings: Settings, work: str) -> None:
        # Without it a file of the same size is taken for the same where the storage keeps no times.
        options = (*settings.rclone_options, "--ignore-times")
        super().__init__(folder, replace(settings, rclone_options=options), work)

    def listed(self, name: str) -> str:
        if not _is_text(name):
            raise self._refuse(name, "it is no UTF-8")
        if _PICTURES.search(name):
            raise self._refuse(name, "rclone uses the signs U+2400 to U+2421 and U+201B for others")
        return "".join([chr(0x2400 + ord(c)) if c < " " else "\u2421" if c == "\x7f" else c for c in name])

    def read(self) -> bytes:
        from scitq.fetch.rclone import spell
        from scitq.fetch.rclonerun import Run

        address = self.folder.join(NAME)  # without asking first what it is, which would be one run more
        return tried(lambda: Run(self.settings, address, "get").answer("cat", [], [spell(address)]), self.settings)

    def send(self, top: str, files: Sequence[Found]) -> dict[str, str]:
        from scitq.fetch.rclone import spell

        with self._list(self.listed(each.name) for each in files) as names, self._without_links(top, files) as folder:
            self._run("copy", [names], [folder, spell(self.folder)])
        return {}

    @contextlib.contextmanager
    def _without_links(self, top: str, files: Sequence[Found]) -> Iterator[str]:
        """A folder with these files under their names. rclone would follow links by itself, wherever they lead by now."""
        if all(each.name == each.place for each in files):
            yield top
            return
        flat = os.path.join(self.work, f"flat-{secrets.token_hex(4)}")
        try:
            for each in files:
                target = os.path.join(flat, each.name)
                os.makedirs(os.path.dirname(target), exist_ok=True)
                os.link(os.path.join(top, each.place), target)
            yield flat
        except OSError as error:
            raise of_os_error(error, printable(str(error.filename or flat)), "collect") from error
        finally:
            remove(flat)

    def copy_from(self, folder: Address, names: Sequence[str]) -> None:
        """These files of another folder, by the storage itself where it can."""
        from scitq.fetch.rclone import spell

        with self._list(names) as chosen:
            tried(lambda: self._run("copy", [chosen], [spell(folder), spell(self.folder)]), self.settings)

    def delete(self, names: Sequence[str]) -> None:
        from scitq.fetch.rclone import spell

        with self._list(names) as chosen:
            tried(lambda: self._run("delete", [chosen], [spell(self.folder)]), self.settings)

    def _run(self, verb: str, flags: Sequence[str], operands: Sequence[str]) -> None:
        from scitq.fetch.progress import Meter
        from scitq.fetch.rclonerun import Run

        Run(self.settings, self.folder, "put", Meter(self.settings.report)).to_end(verb, flags, operands)

    @contextlib.contextmanager
    def _list(self, names: Iterable[str]) -> Iterator[str]:
        """An option that names a file with these names."""
        path = os.path.join(self.work, f"names-{secrets.token_hex(4)}")
        try:
            with open(path, "x", encoding="utf-8") as file:
                file.writelines(f"{name}\n" for name in names)
            yield f"--files-from-raw={path}"
        except OSError as error:
            raise of_os_error(error, path, "collect") from error
        finally:
            remove(path)


class FtpStore(_Listed):
    """ftp: file by file, read once on its way."""

    def listed(self, name: str) -> str:
        if not _is_text(name):
            raise self._refuse(name, "it is no UTF-8")
        if re.search(r"[\x00-\x1f\x7f]", name):
            raise self._refuse(name, "it holds a control character")
        if any(is_temporary(part) for part in name.split("/")):
            raise self._refuse(name, "it is one of scitq's own")
        return name

    def send(self, top: str, files: Sequence[Found]) -> dict[str, str]:
        from scitq.fetch.ftp import Ftp
        from scitq.fetch.local import Local

        md5s: dict[str, str] = {}
        reading = replace(self.settings, md5=True, report=None)

        def one(each: Found) -> None:
            def attempt() -> None:
                source = Source(Local(), of_path(os.path.join(top, each.place)), reading)
                with Stream(source) as stream:
                    Ftp().put_stream(stream, source, self.folder.join(each.name), self.settings)
                if source.md5:
                    md5s[each.name] = source.md5

            tried(attempt, self.settings)

        in_parallel(files, one, self.settings)
        return md5s

    def delete(self, names: Sequence[str]) -> None:
        def one(name: str) -> None:
            with contextlib.suppress(NotFound):
                tried(lambda: self.transport.delete(self.folder.join(name), self.settings), self.settings)

        in_parallel(names, one, self.settings)


class HereStore:
    """A folder of this machine that holds other files too, or cannot be replaced as a whole."""

    def __init__(self, path: str, settings: Settings) -> None:
        self.path, self.settings = os.path.realpath(path), settings
        self.shown = printable(self.path)

    def listed(self, name: str) -> str:
        return name

    def top(self) -> list[Entry]:
        try:
            with os.scandir(self.path) as found:
                return [_entry(each, each.name) for each in found if not is_temporary(each.name)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise of_os_error(error, self.shown, "collect") from error

    def rows(self, *, md5: bool = False) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        waiting = [""]
        while waiting:
            below = waiting.pop()
            try:
                with os.scandir(os.path.join(self.path, below)) as entries:
                    for each in entries:
                        if each.is_dir(follow_symlinks=False):
                            waiting.append(f"{below}{each.name}/")
                        elif not is_temporary(each.name) and below + each.name != NAME:
                            found[below + each.name] = _entry(each, below + each.name)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise of_os_error(error, self.shown, "collect") from error
        return found

    def read(self) -> bytes:
        with self._explained(), open(os.path.join(self.path, NAME), "rb") as file:
            return file.read(LONGEST_BYTES)

    def write(self, text: bytes) -> None:
        with self._explained():
            os.makedirs(self.path, exist_ok=True)
            self._place(NAME, lambda fresh: _write(fresh, text))

    def send(self, top: str, files: Sequence[Found]) -> dict[str, str]:
        settings, md5s = self.settings, {}
        if self._is_far(top):
            check_space(self.path, sum(each.size for each in files), settings.reserve_bytes, self.shown)
        with self._explained():
            for each in files:
                settings.cancel.check(self.shown, "collect")
                make = partial(copy if each.is_shared else link, os.path.join(top, each.place), cancel=settings.cancel)
                md5s[each.name] = self._place(each.name, make)
            for folder in {os.path.dirname(os.path.join(self.path, each.name)) for each in files}:
                sync_folder(folder)
        return md5s

    def _is_far(self, top: str) -> bool:
        return os.stat(top).st_dev != os.stat(self.path).st_dev

    def _place(self, name: str, make: Callable[[str], T]) -> T:
        """What `make` makes is given that name in one step."""
        target = os.path.join(self.path, name)
        folder = os.path.dirname(target)
        os.makedirs(folder, exist_ok=True)
        fresh = neighbour(target, "collect", "part")
        remove(fresh)
        try:
            made = make(fresh)
            share(fresh, os.stat(folder).st_mode)
            put_in_place(fresh, target, overwrite=True)
        finally:
            remove(fresh)  # also left where the target was the same file before: a rename does nothing then
        return made

    def delete(self, names: Sequence[str]) -> None:
        for name in names:
            path = os.path.join(self.path, name)
            with contextlib.suppress(OSError):
                os.unlink(path)
                while (path := os.path.dirname(path)) != self.path:
                    os.rmdir(path)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise of_os_error(error, printable(str(error.filename or self.path)), "collect") from error


def _write(path: str, text: bytes) -> None:
    with open(path, "xb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _entry(found: os.DirEntry[str], name: str) -> Entry:
    from scitq.fetch.entry import DIR

    kind = DIR if found.is_dir() else FILE
    try:
        size = found.stat().st_size
    except OSError:
        size = None  # a link to nothing is something, too
    return Entry(name, name + ("/" if kind == DIR else ""), size, type=kind)


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
