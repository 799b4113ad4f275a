"""A ZIP archive written from front to back, as it is sent: nothing is gone back to, and nothing of the files is kept.

The format is PKWARE's, with the 64-bit records wherever a number needs them. What the end of the archive says of each file waits
in memory, and in a nameless temporary file once there are very many.
"""

from __future__ import annotations

import struct
import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator

# So much of the directory is held in memory.
HELD_BYTES = 8 << 20
_MOST_16, _MOST_32 = 0xFFFF, 0xFFFFFFFF
# From so many bytes on a file's sizes are written with 64 bits: compressing may make a file a little larger.
LARGE_BYTES = 0xFFF00000
# The sizes follow the file; its name is UTF-8.
_FLAGS = 0x0808
_DEFLATED = 8
_FOR_UNIX = 3 << 8


class Archive:
    """Gives the bytes of an archive in order: those of each file, then those of the end."""

    def __init__(self) -> None:
        self._at = 0
        self._files = 0
        self._directory = tempfile.SpooledTemporaryFile(HELD_BYTES)  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._directory.close()

    def file(self, name: str, pieces: Iterable[bytes], most: int, at_ms: int, *, level: int = 1) -> Iterator[bytes]:
        """A file of at most so many bytes (what is beyond is left out), of that time."""
        raw, moment, start = name.encode(), _moment(at_ms), self._at
        is_large = most >= LARGE_BYTES
        version, extra, sizes = (45, struct.pack("<2H2Q", 1, 16, 0, 0), _MOST_32) if is_large else (20, b"", 0)
        head = (b"PK\3\4", version, _FLAGS, _DEFLATED, *moment, 0, sizes, sizes, len(raw), len(extra))
        yield self._passed(struct.pack("<4s5H3L2H", *head) + raw + extra)
        packer = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
        check = size = packed = 0
        for piece in pieces:
            piece = piece[: most - size]
            check, size = zlib.crc32(piece, check), size + len(piece)
            if data := packer.compress(piece):
                packed += len(data)
                yield self._passed(data)
        data = packer.flush()
        packed += len(data)
        yield self._passed(data + struct.pack("<4sL2Q" if is_large else "<4s3L", b"PK\7\x08", check, packed, size))
        self._remember(raw, moment, start, check, packed, size)

    def _remember(self, raw: bytes, moment: tuple[int, int], start: int, check: int, packed: int, size: int) -> None:
        """What the directory says of a file."""
        large = [number for number in (size, packed, start) if number >= _MOST_32]
        extra = struct.pack(f"<2H{len(large)}Q", 1, 8 * len(large), *large) if large else b""
        version = 45 if large else 20
        fields = (
            b"PK\1\2", _FOR_UNIX | version, version, _FLAGS, _DEFLATED, *moment, check, min(packed, _MOST_32),
            min(size, _MOST_32), len(raw), len(extra), 0, 0, 0, 0o100644 << 16, min(start, _MOST_32),
        )  # fmt: skip
        self._directory.write(struct.pack("<4s6H3L5H2L", *fields) + raw + extra)
        self._files += 1

    def end(self) -> Iterator[bytes]:
        """The directory, with which an archive ends."""
        start, size = self._at, self._directory.tell()
        self._directory.seek(0)
        while piece := self._directory.read(1 << 18):
            yield self._passed(piece)
        if self._files >= _MOST_16 or start >= _MOST_32 or size >= _MOST_32:
            there = self._at
            numbers = (0, 0, self._files, self._files, size, start)
            yield self._passed(struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, _FOR_UNIX | 45, 45, *numbers))
            yield self._passed(struct.pack("<4sLQL", b"PK\6\7", 0, there, 1))
        files = min(self._files, _MOST_16)
        yield self._passed(
            struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, files, files, min(size, _MOST_32), min(start, _MOST_32), 0)
        )

    def _passed(self, data: bytes) -> bytes:
        self._at += len(data)
        return data


def _moment(at_ms: int) -> tuple[int, int]:
    """A time as archives have it: that of the clock on the wall, in steps of two seconds, from 1980 on."""
    then = time.localtime(at_ms / 1000)
    year = max(1980, min(2107, then.tm_year))
    return (
        then.tm_hour << 11 | then.tm_min << 5 | then.tm_sec // 2,
        (year - 1980) << 9 | then.tm_mon << 5 | then.tm_mday,
    )
