"""What tasks write as pages show it: cut at lines, coloured by classes of ours, harmless."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from scitq.engine import Engine
from scitq.shell.web import output
from scitq.shell.web.output import Look, shown
from scitq.store import logs
from scitq.task import ExecutionId


def test_colours_are_classes_and_everything_else_is_text() -> None:
    assert shown(b"a \x1b[1;31mred\x1b[0m <b>") == 'a <span class="bold fg1">red</span> &lt;b&gt;'
    assert (
        shown(b"\x1b[38;5;196mx\x1b[39;48;2;0;0;250my\x1b[m") == '<span class="fg1">x</span><span class="bg4">y</span>'
    )
    assert shown(b"\x1b]0;title\x07\x1b[2J<script>") == "\\x1b]0;title\\x07\\x1b[2J&lt;script&gt;"
    assert shown(b"100%\r\n\xff\x00\xe2\x80\xae") == "100%\n\\xff\\x00\\u202e"
    assert (
        shown(b"\x1b[97;104;7mx\x1b[27my") == '<span class="bg12 fg15 inverse">x</span><span class="bg12 fg15">y</span>'
    )


def test_a_sequence_may_come_in_two_pieces() -> None:
    look = Look()

    assert look.feed(b"a\x1b[3") == [("", "a")]
    assert look.feed(b"2mb\xc3") == [("fg2", "b")]
    assert look.feed(b"\xa9c") == [("fg2", "éc")]
    assert look.feed(b"\x1b[", is_all=True) == [("fg2", "\\x1b[")]


@given(some.lists(some.binary(max_size=30) | some.sampled_from([b"\x1b[", b"31", b";5;", b"m", b"<", b"'\"&"])))
def test_no_bytes_make_markup(pieces: list[bytes]) -> None:
    look = Look()
    found = [part for piece in pieces for part in look.feed(piece)] + look.feed(b"", is_all=True)

    text = output.markup(found)
    assert text.count("<") == 2 * text.count("<span class=") and "\x1b" not in text
    assert all(set(look.split()) <= _KNOWN for look, _ in found)


_KNOWN = {*(f"{what}{number}" for what in ("fg", "bg") for number in range(16)), "bold", "dim", "italic", "under"} | {
    "inverse",
    "struck",
}


@pytest.mark.parametrize("line", [b"0123456\n", "é" * 70_001 + "\n"], ids=["short", "long"])
def test_a_stream_is_read_backwards_without_a_gap(state_file: Path, line: bytes | str) -> None:
    raw = line.encode() if isinstance(line, str) else line
    whole = raw * (300_000 // len(raw))
    execution = ExecutionId(7)
    with Engine(state_file, drive=False) as engine:
        engine._write(lambda db: logs.keep(db, execution, logs.OUT, whole, len(whole), False))
        piece = output.last(engine, execution, logs.OUT)
        found = piece.data
        assert piece.end == piece.size == len(whole) and 0 < len(piece.data) <= output.PIECE_BYTES
        while piece.start:
            piece.data.decode()
            piece = output.before(engine, execution, logs.OUT, piece.start)
            found = piece.data + found
        assert found == whole
        assert output.after(engine, execution, logs.OUT, len(whole) - 3).data == whole[-3:]
