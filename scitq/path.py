"""`URI`: the pathlib of addresses.

    from scitq.path import URI

    raw = URI("s3://bucket/run1")
    for row in raw.list():
        print(row.rel_name, row.size, row.uri)
    q.submit("...", input=[raw / "a.fastq.gz", URI("https://host/ref.tar.gz").with_action("untar")])

Making one looks at nothing but its spelling; `exists()`, `info()`, `list()`, `read_text()` look at the place.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from typing import Any

from scitq.fetch import transfer
from scitq.fetch.entry import Entry
from scitq.fetch.errors import NotFound
from scitq.fetch.settings import Settings
from scitq.fetch.uri import Address, TextOrPath, parse


@dataclass(frozen=True)
class Row(Entry):
    """One row of `URI.list()`: what is known of the file or folder, and its own URI."""

    @property
    def uri(self) -> URI:
        """Its address."""
        return URI(self.name)


class URI:
    """An address, immutable. A path object is taken literally; a text may have options and actions."""

    __slots__ = ("_address",)
    _address: Address

    def __init__(self, text: TextOrPath | URI | Address, proto: str | None = None) -> None:
        """`proto` is version 1's: a protocol for a text that has none."""
        if not isinstance(text, URI):
            text = parse(f"{proto}://{text}" if proto and "://" not in str(text) else text)
        address = text._address if isinstance(text, URI) else text
        object.__setattr__(self, "_address", address)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"A URI does not change; {name} was not set.")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"A URI does not change; {name} was not deleted.")

    def __reduce__(self) -> tuple[type[URI], tuple[str]]:
        return URI, (str(self),)

    def __str__(self) -> str:
        return str(self._address)

    def __repr__(self) -> str:
        return f'URI("{self._address.shown}")'

    def __eq__(self, other: object) -> bool:
        return self._address == other._address if isinstance(other, URI) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._address)

    def __lt__(self, other: URI) -> bool:
        return str(self) < str(other)

    def __truediv__(self, part: str | os.PathLike[str]) -> URI:
        return self.joinpath(part)

    def __add__(self, text: str) -> str:
        return str(self) + text

    @property
    def address(self) -> Address:
        """It, taken apart."""
        return self._address

    @property
    def proto(self) -> str:
        """The protocol; empty for a plain path."""
        return self._address.proto

    @property
    def path(self) -> str:
        """What stands behind `://`, without actions."""
        return self._address.path

    @property
    def name(self) -> str:
        """The last segment."""
        return self._address.name

    @property
    def suffix(self) -> str:
        """The last ending of the name, with its dot."""
        return self._address.suffix

    @property
    def stem(self) -> str:
        """The name without its last ending."""
        return os.path.splitext(self._address.name)[0]

    @property
    def parent(self) -> URI:
        """The folder that it is in."""
        return URI(self._address.parent)

    def joinpath(self, *parts: str | os.PathLike[str]) -> URI:
        """What lies below it. Leading slashes of a part are dropped; `..` is refused."""
        return URI(self._address.join(*(os.fspath(part) for part in parts)))

    def with_action(self, *actions: str) -> URI:
        """The same, with these actions after its own: `with_action("untar", "mv:ref")`."""
        return URI(self._address.with_action(*actions))

    def with_option(self, *options: str) -> URI:
        """The same, with these options too: `with_option("aria2")`."""
        return URI(self._address.with_option(*options))

    def info(self, md5: bool = False, *, settings: Settings | None = None) -> Entry:
        """Size, dates, type and, on request, MD5. NotFound when nothing is there."""
        return transfer.info(self._address, md5, settings=settings)

    def exists(self, *, settings: Settings | None = None) -> bool:
        """Whether something is there. Trouble on the way to it is raised: it does not mean that nothing is."""
        return self._type(settings) is not None

    def isfile(self, *, settings: Settings | None = None) -> bool:
        """Whether a file is there."""
        return self._type(settings) == "file"

    def isdir(self, *, settings: Settings | None = None) -> bool:
        """Whether a folder is there."""
        return self._type(settings) == "dir"

    def _type(self, settings: Settings | None) -> str | None:
        try:
            return transfer.info(self._address, settings=settings).type
        except NotFound:
            return None

    def list(self, no_rec: bool = False, md5: bool = False, *, settings: Settings | None = None) -> list[Row]:
        """What is in it, and in the folders below unless `no_rec`."""
        rows: list[Any] = [vars(row) for row in transfer.list_content(self._address, no_rec, md5, settings=settings)]
        return [Row(**row) for row in rows]

    def read_text(self, encoding: str = "utf-8", errors: str = "strict", *, settings: Settings | None = None) -> str:
        """What the file says. For small ones: it passes through a temporary file, with its actions."""
        return self.read_bytes(settings=settings).decode(encoding, errors)

    def read_bytes(self, *, settings: Settings | None = None) -> bytes:
        """The same, to the byte."""
        with tempfile.TemporaryDirectory(prefix="scitq-") as folder:
            landed = transfer.get(self._address, f"{folder}/", settings=settings)
            if len(landed) != 1:
                raise NotFound(
                    f"{self._address.shown}: {len(landed)} files, not one.", uri=self._address.shown, phase="get"
                )
            with open(landed[0].path, "rb") as file:
                return file.read()
