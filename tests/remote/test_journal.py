"""The journal's files: torn tails, segments, generations, full disks; and the reader beside it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from scitq.remote.agent.journal import Journal, lines_of, path_of
from scitq.remote.agent.orders import OrderFile
from scitq.remote.agent.reader import JournalReader


def filled(folder: Path, count: int = 5) -> Journal:
    journal = Journal.create(str(folder), 0, "boot", ['{"k":"carry"}\n'])
    for number in range(count):
        journal.add(json.dumps({"k": "exit", "id": number, "o": "\u00e9\n"}))
    assert journal.flush()
    return journal


def reopened(folder: Path) -> tuple[Journal, list[tuple[int, dict]]]:
    journal, lines = Journal.open(str(folder), "boot")
    assert journal is not None
    return journal, lines


def test_cut_at_any_byte_only_whole_lines_remain(tmp_path: Path) -> None:
    whole = Path(path_of(str(tmp_path), 0))
    filled(tmp_path)
    text = whole.read_bytes()
    head = text.index(b"\n") + 1
    for cut in range(head, len(text) + 1):
        whole.write_bytes(text[:cut])
        journal, lines = reopened(tmp_path)
        end = text[:cut].rindex(b"\n") + 1
        assert journal.end == journal.tail == end == whole.stat().st_size
        assert len(lines) == text[:end].count(b"\n")
        journal.add('{"k":"next"}')
        assert journal.flush()
        os.close(journal.file)
        assert whole.read_bytes() == text[:end] + b'{"k":"next"}\n'
        assert [line["k"] for _, _, line in lines_of(str(whole))][-1] == "next"


def test_offsets_are_those_of_the_lines(tmp_path: Path) -> None:
    journal = filled(tmp_path, 3)
    at = journal.add('{"k":"here"}')
    journal.flush()
    assert journal.seal(['{"k":"carry"}\n'])
    later = journal.add('{"k":"there"}')
    journal.flush()
    reader = JournalReader(str(tmp_path.parent))
    reader.folder = str(tmp_path)
    reader.adopt(journal.id, journal.segments)
    assert reader.line(at) == {"k": "here"} and reader.line(later) == {"k": "there"}
    _, lines = reopened(tmp_path)
    assert (at, {"k": "here"}) in lines and (later, {"k": "there"}) in lines
    whole = reader.read(0, journal.end)
    assert len(whole) == journal.segments[1], "one segment at a time"
    assert reader.begin(journal.id, at, journal.end) == at
    assert reader.begin(journal.id, at + 1, journal.end) == 0


def test_a_segment_without_its_head_never_was(tmp_path: Path) -> None:
    journal = filled(tmp_path)
    for text in (b"", b'{"k":"journal"', b'{"k":"exit"}\n', b"\0" * 100):
        Path(path_of(str(tmp_path), journal.end)).write_bytes(text)
        again, _ = reopened(tmp_path)
        assert again.segments == [0] and again.end == journal.end
        os.close(again.file)


def test_a_newer_generation_takes_the_place_of_an_older(tmp_path: Path) -> None:
    old = filled(tmp_path)
    old.seal([])
    head = json.dumps({"k": "journal", "id": "new", "base": 0, "gen": 1, "boot": "boot"}) + "\n"
    Path(path_of(str(tmp_path), 0)).write_text(head)  # killed before the other old segments were deleted
    again, lines = reopened(tmp_path)
    assert (again.id, again.segments, len(lines)) == ("new", [0], 1)
    assert [path.name for path in tmp_path.iterdir()] == [Path(path_of("", 0)).name]


def test_a_line_torn_by_a_full_disk_is_completed_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = filled(tmp_path)
    end, real = journal.end, os.write
    journal.add('{"k":"one"}')
    journal.add('{"k":"two"}')
    monkeypatch.setattr(os, "write", lambda file, data: real(file, data[:5]))
    assert not journal.flush() and journal.end == end
    monkeypatch.setattr(os, "write", lambda file, data: (_ for _ in ()).throw(OSError(28, "full")))
    assert not journal.flush() and journal.end == end
    monkeypatch.setattr(os, "write", real)
    assert journal.flush() and journal.end == journal.tail
    assert [line["k"] for _, line in reopened(tmp_path)[1]][-2:] == ["one", "two"]


def test_orders_are_stored_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    orders = OrderFile(str(tmp_path / "orders"))
    orders.append(b'{"order":1}\n')
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, data: real(file, data[:5]))
    with pytest.raises(OSError, match="full"):
        orders.append(b'{"order":2}\n')
    monkeypatch.setattr(os, "write", real)
    orders.append(b'{"order":3}\n')
    real(orders.file, b'{"order":4')
    again = OrderFile(str(tmp_path / "orders"))
    assert again.read() == [b'{"order":1}', b'{"order":3}']
    assert (tmp_path / "orders").read_bytes() == b'{"order":1}\n{"order":3}\n'
