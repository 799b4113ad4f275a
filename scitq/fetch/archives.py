"""Taking archives apart safely: tar (gz, bz2, xz, zst) from a stream, zip from a file, gzip from a stream.

Everything goes into a folder that is empty and ours. A name that is absolute, has `..` or passes through a link is
refused, so are devices, pipes, and links that lead out; a name that comes twice is refused rather than overwritten.
Links are made last, when nothing more is written.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import shutil
import signal
import stat
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, BinaryIO, cast

from scitq.fetch.errors import BadArchive, Collision, EscapesFolder, FetchError, Unsupported, of_os_error
from scitq.fetch.programs import Child, find
from scitq.fetch.settings import Settings

CHUNK_BYTES = 1 << 20
_MAGIC = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zst"}
_ZSTD = "It takes .zst files apart; install it with your system's packages (apt install zstd), or use gz or xz."


def untar(raw: IO[bytes], folder: str, settings: Settings, label: str) -> None:
    """Everything in the archive that `raw` yields, read once from its beginning to its end."""
    into = _Folder(folder, label, settings)
    with _damage(label), _decompressed(raw, settings, label) as plain:
        with tarfile.open(fileobj=plain, mode="r|", errorlevel=2) as archive:
            for member in archive:
                settings.cancel.check(label, "untar")
                _take(archive, member, into)
                archive.members = []  # type: ignore[attr-defined]  # a million names would stay in memory
        # Behind the end mark stands only padding; reading it checks the compression's own checksum.
        while plain.read(CHUNK_BYTES):
            pass
    into.finish()


def _take(archive: tarfile.TarFile, member: tarfile.TarInfo, into: _Folder) -> None:
    if member.isdir():
        into.make(member.name)
    elif member.isreg():
        source = archive.extractfile(member)
        assert source is not None
        into.write(member.name, source, member.size, member.mode, member.mtime)
    elif member.issym():
        into.link(member.name, member.linkname)
    elif member.islnk():
        into.hard_link(member.name, member.linkname)
    else:
        kind = "a device" if member.isdev() else "of no kind that a file can be"
        raise EscapesFolder(
            f"{into.label}: {member.name} is {kind}; nothing was unpacked.", uri=into.label, phase="untar"
        )


def unzip(path: str, folder: str, settings: Settings, label: str) -> None:
    """Everything in the zip file at `path`."""
    into = _Folder(folder, label, settings)
    with _damage(label), zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            settings.cancel.check(label, "unzip")
            mode = member.external_attr >> 16
            if member.flag_bits & 1:
                raise Unsupported(f"{label}: {member.filename} is encrypted.", uri=label, phase="unzip")
            if member.is_dir():
                into.make(member.filename)
                continue
            with archive.open(member) as source:
                if stat.S_ISLNK(mode):
                    into.link(member.filename, source.read(4096).decode("utf-8", "surrogateescape"))
                elif mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                    raise EscapesFolder(
                        f"{label}: {member.filename} is no regular file; nothing was unpacked.",
                        uri=label,
                        phase="unzip",
                    )
                else:
                    into.write(member.filename, source, member.file_size, stat.S_IMODE(mode) or 0o644, None)
    into.finish()


def gunzip(raw: IO[bytes], path: str, settings: Settings, label: str) -> None:
    """What the gzip stream holds, as one new file."""
    buffered = io.BufferedReader(cast("io.RawIOBase", raw), CHUNK_BYTES)
    try:
        with _damage(label):
            if buffered.peek(2)[:2] != b"\x1f\x8b":  # an empty file would pass for an empty gzip file
                raise BadArchive(f"{label}: no gzip file.", uri=label, phase="gunzip")
            with gzip.GzipFile(fileobj=buffered, mode="rb") as plain:
                _write(path, cast("BinaryIO", plain), None, settings, label)
    finally:
        with contextlib.suppress(ValueError):
            buffered.detach()


class _Folder:
    """The folder that is filled."""

    def __init__(self, folder: str, label: str, settings: Settings) -> None:
        self._top = folder
        self._links: dict[str, str] = {}
        self._settings = settings
        self.label = label

    def _place(self, name: str) -> str:
        """The path for a member's name, once it has been found harmless."""
        shown = name[:200]
        if name.startswith("/") or (len(name) > 1 and name[1] == ":") or "\\" in name or "\0" in name:
            raise EscapesFolder(f"{self.label}: {shown!r} is no relative name.", uri=self.label, phase="unpack")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise EscapesFolder(f"{self.label}: {shown!r} leads out of the folder.", uri=self.label, phase="unpack")
        for depth in range(1, len(parts)):
            if "/".join(parts[:depth]) in self._links:
                raise EscapesFolder(f"{self.label}: {shown!r} passes through a link.", uri=self.label, phase="unpack")
        return "/".join(parts)

    def _fresh(self, name: str) -> str:
        place = self._place(name)
        path = os.path.join(self._top, place)
        if not place or place in self._links or os.path.lexists(path):
            raise Collision(f"{self.label}: it holds {name[:200]!r} twice.", uri=self.label, phase="unpack")
        with self._typed(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def make(self, name: str) -> None:
        """A folder."""
        place = self._place(name)
        if place in self._links:
            raise Collision(f"{self.label}: it holds {name[:200]!r} twice.", uri=self.label, phase="unpack")
        with self._typed(place):
            os.makedirs(os.path.join(self._top, place), exist_ok=True)

    def write(self, name: str, source: IO[bytes], size: int, mode: int, modified_s: float | None) -> None:
        """A file: readable and writable by its owner whatever the archive says, and nobody's with special rights."""
        path = self._fresh(name)
        _write(path, cast("BinaryIO", source), size, self._settings, self.label)
        with self._typed(path):
            os.chmod(path, (mode & 0o755) | 0o600)
            if modified_s is not None:
                with contextlib.suppress(OSError, OverflowError, ValueError):
                    os.utime(path, (modified_s, modified_s))

    def link(self, name: str, target: str) -> None:
        """A symbolic link: remembered, made at the end."""
        self._fresh(name)
        place = self._place(name)
        inside = os.path.normpath(os.path.join(os.path.dirname(place), target))
        if not target or target.startswith("/") or inside == ".." or inside.startswith("../"):
            raise EscapesFolder(
                f"{self.label}: the link {name[:200]!r} leads out of the folder, to {target[:200]!r}.",
                uri=self.label, phase="unpack",
            )  # fmt: skip
        self._links[place] = target

    def hard_link(self, name: str, target: str) -> None:
        """A second name of a file that came before."""
        path = self._fresh(name)
        other = os.path.join(self._top, self._place(target))
        if not os.path.isfile(other):
            raise BadArchive(
                f"{self.label}: {name[:200]!r} is a link to what is not there.", uri=self.label, phase="unpack"
            )
        with self._typed(path):
            os.link(other, path, follow_symlinks=False)

    def finish(self) -> None:
        """Make the links; one that leads out by way of another is found now, when all are there."""
        for place, target in self._links.items():
            with self._typed(place):
                os.symlink(target, os.path.join(self._top, place))
        top = os.path.realpath(self._top)
        for place in self._links:
            real = os.path.realpath(os.path.join(top, place))
            if real != top and not real.startswith(top + os.sep):
                raise EscapesFolder(
                    f"{self.label}: the link {place!r} leads out of the folder.", uri=self.label, phase="unpack"
                )

    @contextlib.contextmanager
    def _typed(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            name = os.path.relpath(path, self._top) if os.path.isabs(path) else path
            raise of_os_error(error, f"{self.label}: {name}", "unpack") from error


def _write(path: str, source: BinaryIO, size: int | None, settings: Settings, label: str) -> None:
    """A new file; never one that exists."""
    written = 0
    try:
        target = open(path, "xb")  # noqa: SIM115  # its own error is another one than what follows
    except OSError as error:
        raise of_os_error(error, path, "unpack") from error
    with target:
        while data := source.read(CHUNK_BYTES):
            settings.cancel.check(label, "unpack")
            try:
                target.write(data)
                target.flush()
            except OSError as error:
                raise of_os_error(error, path, "unpack") from error
            written += len(data)
    if size is not None and written != size:
        raise BadArchive(f"{label}: it is cut short.", uri=label, phase="unpack")


@contextlib.contextmanager
def _damage(label: str) -> Iterator[None]:
    """What the libraries say of a damaged archive, in one word."""
    try:
        yield
    except FetchError:
        raise
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise BadArchive(f"{label}: damaged, cut short or no archive ({error}).", uri=label, phase="unpack") from error
    except OSError as error:
        if error.errno is not None:
            raise of_os_error(error, label, "unpack") from error
        # bz2 says so in this way
        raise BadArchive(f"{label}: damaged, cut short or no archive ({error}).", uri=label, phase="unpack") from error
    except (NotImplementedError, RuntimeError) as error:
        raise Unsupported(f"{label}: {error}.", uri=label, phase="unpack") from error
    except ValueError as error:
        raise BadArchive(f"{label}: damaged ({error}).", uri=label, phase="unpack") from error


@contextlib.contextmanager
def _decompressed(raw: IO[bytes], settings: Settings, label: str) -> Iterator[IO[bytes]]:
    """The plain bytes, whatever the compression; it is recognised by its first bytes, not by a name."""
    buffered = io.BufferedReader(cast("io.RawIOBase", raw), CHUNK_BYTES)
    try:
        head = buffered.peek(6)[:6]
        kind = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "")
        if kind == "gz":
            with gzip.GzipFile(fileobj=buffered, mode="rb") as plain:
                yield cast("IO[bytes]", plain)
        elif kind == "bz2":
            with bz2.BZ2File(buffered) as plain_bz2:
                yield plain_bz2
        elif kind == "xz":
            with lzma.LZMAFile(buffered) as plain_xz:
                yield plain_xz
        elif kind == "zst":
            with _zstd(buffered, settings, label) as plain_zst:
                yield plain_zst
        else:
            yield buffered
    finally:
        with contextlib.suppress(ValueError):
            buffered.detach()


@contextlib.contextmanager
def _zstd(raw: IO[bytes], settings: Settings, label: str) -> Iterator[IO[bytes]]:
    """Through the zstd program: the standard library has it from Python 3.14 on only."""
    program = find("zstd", _ZSTD, label)
    failed: list[BaseException] = []
    with Child([program, "-d", "-c", "-q", "--long=31"], settings, label, "untar", reads=True, writes=True) as child:
        assert child.stdin is not None and child.stdout is not None

        def feed() -> None:
            assert child.stdin is not None
            try:
                shutil.copyfileobj(raw, child.stdin, CHUNK_BYTES)
            except BrokenPipeError:
                pass  # it ended early, and says itself why
            except BaseException as error:
                failed.append(error)
            finally:
                with contextlib.suppress(OSError):
                    child.stdin.close()

        feeder = threading.Thread(target=feed, daemon=True, name="scitq-zstd")
        feeder.start()
        try:
            yield child.stdout
        except BaseException:
            if failed:
                raise failed[0] from None
            raise
        finally:
            child.stdout.close()
            if not failed and feeder.is_alive():
                child.end()
            feeder.join()
        if failed:
            raise failed[0]
        status = child.wait()
        if status not in (0, -signal.SIGTERM):
            raise BadArchive(f"{label}: damaged or cut short ({child.said}).", uri=label, phase="untar")
