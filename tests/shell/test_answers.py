"""How values are written for people and for JSON, how tables are cut, and what a terminal is spared."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scitq.shell.answers import Bytes, Seconds, When, age, bare, clean, duration, shown, size
from scitq.shell.folding import folded
from scitq.shell.terminal import Harmless, harmless


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.024, "24 ms"),
        (0.2, "0.2 s"),
        (48.2, "48 s"),
        (360, "6 min"),
        (11520, "3 h 12"),
        (187200, "2 d 4 h"),
    ],
)
def test_length_of_time_is_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.3, "now"), (5, "5 s ago"), (240, "4 min ago"), (7200, "2 h ago"), (260000, "3 d ago"), (-120, "in 2 min")],
)
def test_age_is_short(seconds: float, text: str) -> None:
    assert age(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(812, "812 B"), (4100, "4.1 kB"), (25_276_502_016, "25 GB"), (999_999, "1.0 MB")]
)
def test_size_counts_in_powers_of_ten(count: int, text: str) -> None:
    assert size(count) == text


def test_json_has_moments_as_iso_sizes_as_bytes_and_times_as_seconds() -> None:
    row = {"at": When(1_795_410_791_419), "size": Bytes(12), "took": Seconds(1.5), "none": None, "list": [When(0)]}

    assert json.loads(json.dumps(bare(row))) == {
        "at": "2026-11-23T05:13:11.419Z", "size": 12, "took": 1.5, "none": None, "list": ["1970-01-01T00:00:00.000Z"],
    }  # fmt: skip


def test_json_shows_bytes_that_are_not_text() -> None:
    assert bare("caf\udce9") == "caf\\udce9"


def test_table_shows_moments_as_ages() -> None:
    assert shown(When(1_000_000), 1_240_000) == "4 min ago"


def test_cells_cannot_command_the_terminal() -> None:
    assert clean("a\x1b]0;owned\x07b\u202ec\n") == "a\\x1b]0;owned\\x07b\\u202ec\\n"
    assert clean("é 漢 👩\u200d🔬") == "é 漢 👩\u200d🔬"


LINES = {
    "1 running, 2 pending · 5 lost, 12/min": "1 running, 2 pending ·\n  5 lost, 12/min",
    "It ended already. scitq task show 4": "It ended already.\n  scitq task show 4",
    "bad  disk  it is full, nearly": "bad  disk  it is full,\n           nearly",
    "problem  open files  it is full": "problem  open files  it\n  is full",
    "go on: scitq task relaunch --where \"state='failed'\"": (
        "go on:\n  scitq task relaunch \\\n      --where \\\n      \"state='failed'\""
    ),
    "漢字漢字漢字漢 漢字漢字漢字": "漢字漢字漢字漢\n  漢字漢字漢字",
    "averylongwordthatfitsnowhere else": "averylongwordthatfitsnowhere\n  else",
    "short": "short",
}


@pytest.mark.parametrize("line", LINES)
def test_lines_are_broken_between_words_and_commands_stay_whole(line: str) -> None:
    assert folded(line, 24) == LINES[line]


# --- terminal -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hostile", "text"),
    [
        (b"plain \xc3\xa9\n\tx", "plain é\n\tx"),
        (b"\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m\x1b[0m"),
        (b"\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        (b"\x1b]52;c;cm0gLXJm\x07", "\\x1b]52;c;cm0gLXJm\\x07"),
        (b"\x1b[2J\x1b[H", "\\x1b[2J\\x1b[H"),
        (b"\x1b[6n", "\\x1b[6n"),
        (b"10%\r20%\r\n", "10%\n20%\n"),
        (b"\xff\xfe", "\\xff\\xfe"),
        (b"\xc2\x9b31m", "\\x9b31m"),
        (b"ends in \x1b", "ends in \\x1b"),
    ],
)
def test_output_cannot_command_the_terminal(hostile: bytes, text: str) -> None:
    filter = Harmless()

    assert filter.feed(hostile) + filter.end() == text


def test_characters_and_colours_cut_between_pieces_come_out_whole() -> None:
    filter = Harmless()
    pieces = [filter.feed(bytes([byte])) for byte in "é\x1b[1;31mx\x1b]0;".encode()]

    assert "".join(pieces) + filter.end() == "é\x1b[1;31mx\\x1b]0;\x1b[0m"


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_whatever_the_bytes_only_tabs_newlines_and_colours_are_left(pieces: list[bytes]) -> None:
    filter = Harmless()
    text = "".join([filter.feed(piece) for piece in pieces]) + filter.end()

    left = [part for part in text.split("\x1b")[1:] if not part.startswith("[")]
    assert left == []
    assert not any(char < " " and char not in "\n\t\x1b" for char in text)


@given(st.binary(max_size=200), st.integers(0, 200))
def test_where_a_stream_is_cut_makes_no_difference(data: bytes, at: int) -> None:
    whole, halves = Harmless(), Harmless()

    assert whole.feed(data) + whole.end() == halves.feed(data[:at]) + halves.feed(data[at:]) + halves.end()


def test_sentence_is_made_harmless_as_a_whole() -> None:
    assert harmless("task '\x1b[2J'") == "task '\\x1b[2J'"
