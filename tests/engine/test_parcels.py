"""Data of this machine for workers that cannot see it: looked at, announced, sent once, and again when it has changed."""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from pathlib import Path

import pytest

from scitq.engine import Engine
from scitq.errors import TaskFailed
from scitq.fetch.errors import FetchError
from scitq.fingerprints import Fingerprints, look
from scitq.remote.link import Stream
from scitq.sending import Progress, amount, duration, shrinks
from scitq.states import TaskState
from tests.engine.conftest import sound
from tests.engine.test_engine import WAIT_S, until
from tests.engine.wires import Far, cut, far

__all__ = ["far"]


def test_a_file_of_this_machine_reaches_workers_elsewhere_once_each(engine: Engine, far: Far, tmp_path: Path) -> None:
    data = random.Random(3).randbytes(5_000_000)
    (tmp_path / "big").write_bytes(data)
    engine.submit("true")
    wires = [far(engine, "one"), far(engine, "two")]
    read = "cat $INPUT/* $RESOURCE/* 2>/dev/null | sha256sum"
    tasks = [engine.submit(read, shell=True, input=tmp_path / "big") for _ in range(5)]
    tasks += [engine.submit(read, shell=True, resource=tmp_path / "big") for _ in range(5)]
    sums = {task.result(WAIT_S).stdout.split()[0] for task in tasks}
    assert sums == {hashlib.sha256(data).hexdigest()}
    used = {execution.worker for task in tasks for execution in task.executions}
    for name, wire in zip(("one", "two"), wires, strict=True):
        assert sum(size for _, size in wire.pieces) == (5_000_000 if name in used else 0)
    sound(engine)


def test_folders_globs_chains_and_actions_are_there_as_on_this_machine(
    engine: Engine, far: Far, tmp_path: Path
) -> None:
    (tmp_path / "data" / "sub").mkdir(parents=True)
    (tmp_path / "data" / "empty").mkdir()
    (tmp_path / "data" / "sub" / "x").write_text("x\n")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "other").symlink_to(tmp_path / "run1")
    for number in (1, 2):
        (tmp_path / f"run{number}").mkdir()
        (tmp_path / f"run{number}" / f"reads{number}.fq").write_text(f"{number}\n")
    program = tmp_path / "tool"
    program.write_text("#!/bin/sh\necho ran\n")
    program.chmod(0o755)
    engine.submit("true")
    far(engine)
    inputs = [tmp_path / "data", f"{tmp_path}/run*/*.fq|mv:runs", program]
    task = engine.submit("$INPUT/tool; cd $INPUT; find . | sort", shell=True, input=inputs)
    names = [
        ".",
        "./empty",
        "./other",
        "./other/reads1.fq",
        "./runs",
        "./runs/reads1.fq",
        "./runs/reads2.fq",
        "./sub",
        "./sub/x",
    ]
    assert task.result(WAIT_S).stdout.split() == ["ran", *names, "./tool"]
    assert f"{tmp_path}/data/loop: left out" in " ".join(engine_notes(engine, task.id))


def engine_notes(engine: Engine, task: int) -> list[str]:
    rows = engine._store.reader().execute(
        "select text from note join execution on execution.id = note.execution where task = ? order by note.id", (task,)
    )
    return [text for (text,) in rows]


def test_what_has_changed_is_sent_again_and_what_is_gone_says_so(engine: Engine, far: Far, tmp_path: Path) -> None:
    source = tmp_path / "a"
    source.write_text("one\n")
    engine.submit("true")
    wire = far(engine)
    assert engine.submit("cat $INPUT/a", shell=True, input=source).result(WAIT_S).stdout == "one\n"
    source.write_text("two\n")
    assert engine.submit("cat $INPUT/a", shell=True, input=source).result(WAIT_S).stdout == "two\n"
    assert len(wire.pieces) == 2
    gone = engine.submit(["rm", str(source)])
    held = engine.submit("true", input=source, requires=[gone])
    with pytest.raises(TaskFailed, match="No such file"):
        held.result(WAIT_S)


def test_cut_in_the_middle_it_goes_on_where_it_was(
    engine: Engine, far: Far, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scitq.sending.PIECE_BYTES", 1 << 20)
    monkeypatch.setattr("scitq.parcels.AGAIN_S", (0.01,))
    data = random.Random(4).randbytes(20 << 20)
    (tmp_path / "big").write_bytes(data)
    engine.submit("true")
    wire = far(engine)

    def before(method: str, target: str) -> None:
        if method == "PUT" and len(wire.pieces) == 12 and not was_cut:
            was_cut.append(target)
            cut()

    was_cut: list[str] = []
    wire.before = before
    task = engine.submit("sha256sum < $INPUT/big", shell=True, input=tmp_path / "big")
    assert task.result(WAIT_S).stdout.split()[0] == hashlib.sha256(data).hexdigest()
    # What was on its way when the wire was cut may have to be sent again: no more than that.
    assert 20 << 20 <= sum(size for _, size in wire.pieces) <= (20 << 20) + (12 << 20)
    assert len({target for target, _ in wire.pieces}) == 20


def test_a_file_that_changes_while_it_is_sent_arrives_as_one_of_both(
    engine: Engine, far: Far, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scitq.sending.PIECE_BYTES", 1 << 20)
    source = tmp_path / "big"
    old, new = (random.Random(seed).randbytes(4 << 20) for seed in (5, 6))
    source.write_bytes(old)
    engine.submit("true")
    wire = far(engine)
    flush = Stream.flush

    def change(self: Stream) -> bool:
        if len(wire.pieces) == 2 and source.read_bytes() == old:
            source.write_bytes(new)
        return flush(self)

    monkeypatch.setattr(Stream, "flush", change)
    task = engine.submit("sha256sum < $INPUT/big", shell=True, input=source)
    assert task.result(WAIT_S).stdout.split()[0] == hashlib.sha256(new).hexdigest()


def test_more_than_the_limit_names_another_way(engine: Engine, far: Far, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(3000))
    engine.submit("true")
    far(engine, send_limit=1000)
    task = engine.submit("true", input=tmp_path / "big")
    task.result(WAIT_S)
    until(lambda: bool(engine_notes(engine, task.id)), "a note")
    assert "3 kB go from this machine to far" in engine_notes(engine, task.id)[0]


def test_what_nobody_wants_any_more_is_not_sent_to_its_end(
    engine: Engine, far: Far, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scitq.sending.PIECE_BYTES", 1 << 16)
    monkeypatch.setattr("scitq.sending.LOOK_S", 0.0)
    (tmp_path / "big").write_bytes(random.Random(8).randbytes(4 << 20))
    engine.submit("true")
    wire = far(engine)
    is_cancelled = threading.Event()

    def before(method: str, target: str) -> None:
        if method == "PUT" and len(wire.pieces) == 3:
            is_cancelled.wait(WAIT_S)

    wire.before = before
    task = engine.submit("true", input=tmp_path / "big")
    until(lambda: len(wire.pieces) == 3, "pieces on their way")
    task.cancel()
    assert task.wait(WAIT_S) is TaskState.CANCELLED
    is_cancelled.set()
    (tmp_path / "small").write_text("small")
    engine.submit("true", input=tmp_path / "small").result(WAIT_S)
    assert len(wire.pieces) == 5  # the one that was about to go, and the small one


# --- looking ------------------------------------------------------------------------------------------------------------------


def never() -> bool:
    return False


def test_a_large_file_is_read_once_also_by_the_next_driver(tmp_path: Path) -> None:
    source = tmp_path / "big"
    source.write_bytes(bytes(2 << 20))
    os.utime(source, ns=(10**18, 10**18))
    sums = Fingerprints(tmp_path)
    sha, mark, _ = sums.sum_of(str(source), never)
    assert sha == hashlib.sha256(bytes(2 << 20)).hexdigest() and mark[0] == 2 << 20
    again = Fingerprints(tmp_path)
    # Were it read again, this would say so.
    assert again.sum_of(str(source), lambda: True)[0] == sha
    source.write_bytes(b"1" + bytes((2 << 20) - 1))
    os.utime(source, ns=(10**18 + 1, 10**18 + 1))
    assert again.sum_of(str(source), never)[0] != sha


def test_what_was_written_down_of_sums_may_be_damaged(tmp_path: Path) -> None:
    (tmp_path / "fingerprints").write_text('["/x", 1, 2\n[1]\nnonsense\n' + '["/x", 1, 2, 3, "abc"]\n' * 2000)
    sums = Fingerprints(tmp_path)
    with pytest.raises(FetchError):
        sums.sum_of(str(tmp_path / "none"), never)
    assert len((tmp_path / "fingerprints").read_text().splitlines()) == 1


def test_a_look_says_how_an_address_goes_on(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "[1].txt").write_text("1")
    (tmp_path / "a" / "link").symlink_to("b")
    sums = Fingerprints(tmp_path)

    def seen(uri: str) -> tuple[str, str, list[str]]:
        found = look(uri, sums, never)
        return found.base, found.tail, [row[0] for row in found.rows]

    a = f"{tmp_path}/a"
    assert seen(f"{a}/b/") == (a, "b/", ["b/[1].txt"])
    assert seen(f"{a}//b/./[1].txt|gunzip") == (f"{a}/b", "[1].txt", ["[1].txt"])
    assert seen(f"{a}/*/*.txt") == (a, "*/*.txt", ["b/[1].txt"])
    assert seen(f"file://{a}/link/../b") == (a, "b", ["b/[1].txt"])
    assert seen(f"{a}/**") == (a, "**", ["b/[1].txt"])
    for wrong in (f"{a}/none", f"{a}/*.zip", f"{a}/b/[1].txt/", "/", "/dev/null"):
        with pytest.raises(FetchError):
            look(wrong, sums, never)


def test_how_far_it_is_is_told_with_a_worker() -> None:
    from scitq.shell.workers import _coming

    stats = {"sending": {"bytes": 1_200_000_000, "total": 2_150_000_000, "rate": 11_000_000, "left_s": 86.4}}
    assert _coming(stats, 0) == [("is sent", "1.2 GB of 2.1 GB from this machine, 11 MB/s, about 86 s more")]
    assert _coming({}, 0) == []
    progress = Progress(total=4000, done=1000, began=time.monotonic() - 10)
    told = progress.told()
    assert (told["bytes"], told["total"]) == (1000, 4000) and 0 < told["rate"] <= 100 and told["left_s"] >= 30


def test_texts_and_numbers_for_people() -> None:
    assert [amount(count) for count in (0, 999, 1000, 2_150_000_000, 10**13)] == [
        "0 B",
        "999 B",
        "1 kB",
        "2.15 GB",
        "10 TB",
    ]
    assert [duration(seconds) for seconds in (3, 600, 7200)] == ["3 s", "10 min", "2.0 h"]
    assert shrinks(b"text " * 100_000) and not shrinks(random.Random(1).randbytes(500_000)) and not shrinks(b"x" * 10)
