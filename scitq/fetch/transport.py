"""What every transport can do, and which one an address belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from scitq.fetch.entry import Entry
from scitq.fetch.errors import Unsupported
from scitq.fetch.settings import Settings
from scitq.fetch.uri import Address, refuse_runs


@dataclass(frozen=True)
class Identity:
    """What tells one version of a source from another. All None: it cannot be told."""

    size: int | None = None
    etag: str | None = None  # as the server writes it
    modified: str | None = None  # as the server writes it

    @property
    def is_telling(self) -> bool:
        """Whether two equal ones mean the same bytes."""
        return bool(self.etag or self.modified)


class Body(Protocol):
    """An open source: its bytes from `offset` on. `offset` may be less than asked for: then the source begins anew."""

    @property
    def offset(self) -> int:
        """Where it begins."""
        ...

    @property
    def identity(self) -> Identity:
        """Which version it is."""
        ...

    @property
    def md5(self) -> str | None:
        """Of the whole, as the source says it."""
        ...

    @property
    def modified_s(self) -> float | None:
        """When it was last changed."""
        ...

    @property
    def mode(self) -> int | None:
        """Its permissions, where it has any."""
        ...

    def readinto(self, buffer: memoryview) -> int:
        """Some bytes; 0 at the end. Raises Interrupted when the connection fails."""
        ...

    def close(self) -> None:
        """Let go of it, also in the middle."""
        ...


class Transport(Protocol):
    """One protocol. Addresses come without actions. What one cannot do raises Unsupported."""

    def open(self, address: Address, settings: Settings, offset: int = 0, identity: Identity | None = None) -> Body:
        """Begin to read one file, from `offset` on if it is still the one of `identity`."""
        ...

    def put(self, source: str, address: Address, settings: Settings) -> None:
        """One file of this machine to that name, whole or not at all."""
        ...

    def entries(self, address: Address, settings: Settings, *, recursive: bool, md5: bool) -> Iterator[Entry]:
        """What is in that folder; NotFound if it is none."""
        ...

    def info(self, address: Address, settings: Settings, *, md5: bool = False) -> Entry:
        """What is there; NotFound if nothing is."""
        ...

    def delete(self, address: Address, settings: Settings) -> None:
        """Delete one file, or one empty folder."""
        ...


def transport_of(address: Address, phase: str = "get") -> Transport:
    """Who handles it. Modules load when first needed."""
    refuse_runs(address, phase)
    if address.is_local:
        from scitq.fetch import local

        return local.Local()
    if address.proto in ("http", "https"):
        from scitq.fetch import http

        return http.Http()
    if address.proto == "ftp":
        from scitq.fetch import ftp

        return ftp.Ftp()
    from scitq.fetch import rclone

    return rclone.Rclone()


def unsupported(address: Address, what: str, hint: str = "") -> Unsupported:
    """The error of a transport that cannot do that."""
    return Unsupported(
        f"{address.shown}: {address.proto or 'a path'} cannot {what}.{' ' + hint if hint else ''}",
        uri=address.shown,
        phase=what.split()[0],
    )
