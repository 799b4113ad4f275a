"""Reading one source to its end although its connection breaks: resumed, counted, timed, checked while it passes."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable

from scitq.fetch.errors import Cancelled, ChecksumMismatch, FetchError, Interrupted, TimedOut
from scitq.fetch.files import Part, check_space
from scitq.fetch.progress import Meter
from scitq.fetch.retry import Watch, retrying
from scitq.fetch.settings import Settings
from scitq.fetch.transport import Body, Identity, Transport
from scitq.fetch.uri import Address

CHUNK_BYTES = 1 << 20
KEEP_BYTES = 1 << 20  # less than that is not worth a hidden file for a later attempt


class SourceChanged(Interrupted):
    """Another version is there than the one whose beginning was read, or it can only be read from its beginning."""


class Source:
    """The one who reads. `position` bytes have passed; their MD5 goes along when it is wanted or can be checked."""

    def __init__(
        self, transport: Transport, address: Address, settings: Settings, meter: Meter | None = None, label: str = ""
    ) -> None:
        self.transport, self.address, self.settings = transport, address, settings
        self.identity = Identity()
        self.expected_md5: str | None = None
        self.modified_s: float | None = None
        self.mode: int | None = None
        self.position = 0
        self.body: Body | None = None
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._meter = meter or Meter(settings.report)
        self._watch: Watch | None = None
        self.label = label or address.name or address.shown

    def open(self, *, or_anew: bool = False) -> None:
        """Connect, at `position` of the version that was begun. If that cannot be had: SourceChanged, or from 0 on."""
        self.close()
        wanted = self.identity if self.position else None
        self.body = body = self.transport.open(self.address, self.settings, self.position, wanted)
        if body.offset != self.position and or_anew and not body.offset:
            self._forget()
        if body.offset != self.position:
            self.close()
            raise SourceChanged(
                f"{self.address.shown}: cannot be resumed, it has to be read from its beginning.",
                uri=self.address.shown,
                phase="get",
            )
        if not self.position:
            self.identity, self.expected_md5 = body.identity, body.md5
        self.modified_s, self.mode = body.modified_s, body.mode
        if self._watch is None:  # the whole is timed from the first attempt on
            self._watch = Watch(self.settings.stall_timeout_s, self.settings.total_s(self.identity.size))

    def restart(self) -> None:
        """Forget what was read."""
        self.close()
        self._forget()

    def _forget(self) -> None:
        self.position, self.identity, self.expected_md5 = 0, Identity(), None
        self._md5 = hashlib.md5(usedforsecurity=False)

    def resume_at(
        self, position: int, identity: Identity, expected_md5: str | None, digest: bool
    ) -> Callable[[bytes], None]:
        """Go on behind what an earlier process received; what is returned takes those bytes when their MD5 matters."""
        self.position, self.identity, self.expected_md5 = position, identity, expected_md5
        return self._md5.update if digest else lambda data: None

    def readinto(self, buffer: memoryview) -> int:
        """Some bytes, or 0 at the end, which is checked."""
        assert self.body is not None
        self.settings.cancel.check(self.address.shown, "get")
        if self._watch is not None and self._watch.is_late:
            raise TimedOut(self._watch.verdict(self.address.shown), uri=self.address.shown, phase="get")
        count = self.body.readinto(buffer)
        if not count:
            self._check_end()
            return 0
        if self.settings.md5 or self.expected_md5:
            self._md5.update(buffer[:count])
        self.position += count
        self._meter.at(self.label, self.position, self.identity.size)
        return count

    def _check_end(self) -> None:
        size = self.identity.size
        if size is not None and self.position < size:
            raise Interrupted(
                f"{self.address.shown}: the connection ended after {self.position:,} of {size:,} bytes.",
                uri=self.address.shown, phase="get",
            )  # fmt: skip
        if size is not None and self.position > size:
            raise ChecksumMismatch(
                f"{self.address.shown}: {self.position:,} bytes came, {size:,} were announced.",
                uri=self.address.shown, phase="get",
            )  # fmt: skip
        if self.expected_md5 and self._md5.hexdigest() != self.expected_md5:
            raise ChecksumMismatch(
                f"{self.address.shown}: what arrived has the MD5 {self._md5.hexdigest()}, the source says "
                f"{self.expected_md5}.", uri=self.address.shown, phase="get",
                expected=self.expected_md5, found=self._md5.hexdigest(),
            )  # fmt: skip

    @property
    def md5(self) -> str | None:
        """Of what passed, if it was followed."""
        return self._md5.hexdigest() if self.settings.md5 or self.expected_md5 else None

    def done(self) -> None:
        """The file is where it belongs."""
        self._meter.at(self.label, self.position, self.position, is_done=True)

    def close(self) -> None:
        """Let go of the connection."""
        if self.body is not None:
            self.body.close()
            self.body = None


def receive(source: Source, path: str, overwrite: bool) -> str | None:
    """Bring the whole of it to `path`: beside it first, resumed when broken, renamed when complete. Returns the MD5."""
    settings, address = source.settings, source.address
    part = Part(path, str(address.bare))
    keep = False
    try:
        buffer = memoryview(bytearray(CHUNK_BYTES))

        def attempt() -> None:
            source.open(or_anew=True)
            if not source.position:
                identity = source.identity
                state = {"size": identity.size, "etag": identity.etag, "modified": identity.modified}
                part.begin({**state, "md5": source.expected_md5} if identity.is_telling else {})
            check_space(
                _folder(path), (source.identity.size or source.position) - source.position, settings.reserve_bytes,
                address.shown,
            )  # fmt: skip
            part.go_to(source.position)
            try:
                while count := source.readinto(buffer):
                    part.write(buffer[:count])
            except ChecksumMismatch:
                source.restart()  # there is no telling which byte is wrong
                raise
            finally:
                source.close()

        _take_up(source, part)
        try:
            retrying(attempt, settings.retry, settings.cancel, advanced=lambda: source.position, on_wait=_say(settings))
        except (Cancelled, Interrupted) as error:
            keep = source.position >= KEEP_BYTES and not isinstance(error, ChecksumMismatch)
            raise
        part.finish(overwrite=overwrite, modified_s=source.modified_s, mode=source.mode)
    except KeyboardInterrupt:
        keep = source.position >= KEEP_BYTES
        raise
    finally:
        source.close()
        part.close(keep=keep)
    source.done()
    return source.md5


def _folder(path: str) -> str:
    return path.rpartition("/")[0] or ("/" if path.startswith("/") else ".")


def _take_up(source: Source, part: Part) -> None:
    """What an earlier attempt left is used if it says of what version it is."""
    size, state = part.resumable()
    identity = Identity(state.get("size"), state.get("etag"), state.get("modified"))
    whole = identity.size is not None and size > identity.size
    if size and identity.is_telling and not whole:
        md5 = state.get("md5")
        into = source.resume_at(size, identity, md5, bool(md5) or source.settings.md5)
        if md5 or source.settings.md5:
            part.digest(size, into)


def _say(settings: Settings) -> Callable[[Interrupted, float], None]:
    return lambda error, wait_s: settings.warn(f"{error} Trying again in {wait_s:.0f} s.")


class StreamBroken(FetchError):
    """What was read so far is of no use, and the source has to be read from its beginning."""


class Stream(io.RawIOBase):
    """A source as a file object that is read once, for what works while downloading; broken connections are mended."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self._source = source
        self._at_end = False

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: object) -> int:
        """Some bytes, or 0 at the end."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        if self._at_end or not view:
            return 0

        def attempt() -> int:
            try:
                if source.body is None:
                    source.open()
                return source.readinto(view)
            except (SourceChanged, ChecksumMismatch) as error:
                raise StreamBroken(error.message, uri=error.uri, phase=error.phase) from error
            except Interrupted:
                source.close()
                raise

        source = self._source
        count = retrying(
            attempt, source.settings.retry, source.settings.cancel, advanced=lambda: source.position,
            on_wait=_say(source.settings),
        )  # fmt: skip
        self._at_end = count == 0
        return count

    def close(self) -> None:
        """Let go of the connection."""
        self._source.close()
        super().close()
