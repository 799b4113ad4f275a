"""Rows of tables read page by page, without SQLite: for `salvage`, when the way to them through the tree is damaged.

Knows just enough of SQLite's file format for that: leaf pages of tables with row numbers, their overflow pages, and which
pages are free. It trusts nothing: what does not add up is passed over.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

Value = int | float | str | bytes | None
Record = tuple[int, list[Value]]  # the row's number and its columns

_LEAF = 13
_FREE = 2  # in the map of what each page is
_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
_PENDING_BYTE = 0x40000000


class Columns(NamedTuple):
    """What the rows of a table look like: declared types, which may not be null, and which is the row's number."""

    types: Sequence[str]
    required: Sequence[bool]
    number: int

    def fit(self, record: Record) -> bool:
        """Whether this can be a row of that (STRICT) table."""
        values = record[1]
        return len(values) == len(self.types) and all(
            value is None if place == self.number else _fits(value, kind, required)
            for place, (value, kind, required) in enumerate(zip(values, self.types, self.required, strict=True))
        )


def rows(path: Path, tables: Mapping[str, Columns]) -> Iterator[tuple[str, list[Value]]]:
    """Every row that can be told to be of one of the tables, with its number in its place."""
    with path.open("rb") as file:
        pages = _Pages(file)
        for page in range(1, pages.count + 1):
            if pages.is_free(page):
                continue
            found = list(pages.records(page))
            # All rows of a page are of one table, so together they tell which.
            names = [name for name, columns in tables.items() if found and all(map(columns.fit, found))]
            if len(names) == 1:
                place = tables[names[0]].number
                for number, values in found:
                    yield names[0], [number if at == place else value for at, value in enumerate(values)]


def _fits(value: Value, kind: str, required: bool) -> bool:
    if value is None:
        return not required
    match kind.upper():
        case "INTEGER" | "INT":
            return isinstance(value, int)
        case "REAL":
            return isinstance(value, int | float)
        case "TEXT":
            return isinstance(value, str)
        case "BLOB":
            return isinstance(value, bytes)
    return True


class _Pages:
    """A database file as pages."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        head = file.read(100)
        size = int.from_bytes(head[16:18], "big")
        self.size = size if size in (512, 1024, 2048, 4096, 8192, 16384, 32768) else 4096
        self.usable = self.size - (head[20] if len(head) == 100 and head[:15] == b"SQLite format 3" else 0)
        self.count = file.seek(0, 2) // self.size
        self._pending = _PENDING_BYTE // self.size + 1
        self._map = b""
        self._map_at = 0

    def page(self, number: int) -> bytes:
        """The bytes of a page, from 1."""
        if not 1 <= number <= self.count:
            raise ValueError("no such page")
        self._file.seek((number - 1) * self.size)
        return self._file.read(self.size)

    def is_free(self, number: int) -> bool:
        """A free page may still hold rows of before: they were deleted, or are elsewhere by now."""
        if number == 1:
            return False
        span = self.usable // 5 + 1  # a page of the map, and the pages it is about
        at = (number - 2) // span * span + 2
        at += at == self._pending
        if number <= at:
            return number == at
        if at != self._map_at:
            self._map, self._map_at = self.page(at), at
        return self._map[5 * (number - at - 1)] == _FREE

    def records(self, number: int) -> Iterator[Record]:
        """The rows on a page, if it is a leaf of a table."""
        page = self.page(number)
        start = 100 if number == 1 else 0
        if page[start] != _LEAF:
            return
        count = int.from_bytes(page[start + 3 : start + 5], "big")
        if start + 8 + 2 * count > self.usable:
            return
        for place in struct.unpack_from(f">{count}H", page, start + 8):
            try:
                yield self._record(page, place)
            except (ValueError, IndexError, struct.error):
                continue

    def _record(self, page: bytes, at: int) -> Record:
        length, at = _varint(page, at)
        number, at = _varint(page, at)
        if not 0 <= length <= self.count * self.size:
            raise ValueError("too long")
        local = self._local(length)
        data = page[at : at + local]
        if local < length:
            data = self._overflow(data, length, int.from_bytes(page[at + local : at + local + 4], "big"))
        if len(data) != length:
            raise ValueError("cut short")
        return number, _values(data)

    def _local(self, length: int) -> int:
        """How many bytes of a row stand on the leaf itself."""
        most = self.usable - 35
        if length <= most:
            return length
        least = (self.usable - 12) * 32 // 255 - 23
        wanted = least + (length - least) % (self.usable - 4)
        return wanted if wanted <= most else least

    def _overflow(self, begin: bytes, length: int, following: int) -> bytes:
        parts, left = [begin], length - len(begin)
        while left > 0:
            page = self.page(following)
            parts.append(page[4 : min(4 + left, self.usable)])
            left -= len(parts[-1])
            following = int.from_bytes(page[:4], "big")
        return b"".join(parts)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """SQLite's integer of one to nine bytes, and where it ends."""
    value = 0
    for _ in range(8):
        byte = data[at]
        at += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at
    value = value << 8 | data[at]
    return value - (1 << 64) if value >= 1 << 63 else value, at + 1


def _values(data: bytes) -> list[Value]:
    head, at = _varint(data, 0)
    kinds = []
    while at < head:
        kind, at = _varint(data, at)
        kinds.append(kind)
    if at != head:
        raise ValueError("not a record")
    found: list[Value] = []
    for kind in kinds:
        length = _INTEGERS.get(kind, 8 if kind == 7 else (kind - 12) // 2 if kind >= 12 else 0)
        part = data[at : at + length]
        if len(part) != length or kind in (10, 11):
            raise ValueError("not a record")
        at += length
        if kind in _INTEGERS:
            found.append(int.from_bytes(part, "big", signed=True))
        elif kind == 7:
            found.append(struct.unpack(">d", part)[0])
        elif kind in (8, 9):
            found.append(kind - 8)
        elif kind >= 12:
            found.append(part.decode() if kind % 2 else part)
        else:
            found.append(None)
    if at != len(data):
        raise ValueError("not a record")
    return found
