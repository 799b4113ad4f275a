"""Files of this machine: whole or not at all; and the waits, the progress and the patterns, which need no disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from scitq.errors import ScitqError, Transient
from scitq.fetch import files
from scitq.fetch.errors import (
    AccessDenied,
    Cancelled,
    Collision,
    FetchError,
    Interrupted,
    NoSpace,
    NotFound,
    Throttled,
    of_os_error,
)  # fmt: skip
from scitq.fetch.patterns import including, segment
from scitq.fetch.progress import Meter, Progress
from scitq.fetch.retry import Cancel, Policy, Watch, retrying


def test_a_part_is_resumed_by_who_comes_next_only_if_it_says_what_it_is(tmp_path: Path) -> None:
    path = str(tmp_path / "x")
    first = files.Part(path, "s3://b/x")
    first.begin({"size": 9, "etag": "a"})
    first.write(memoryview(b"12345"))
    first.close(keep=True)
    second = files.Part(path, "s3://b/x")
    third = files.Part(path, "s3://b/x")

    assert second.resumable() == (5, {"size": 9, "etag": "a"})
    assert third.path != second.path and third.resumable()[0] == 0  # the second has it
    third.close(keep=True)
    second.close(keep=False)
    assert os.listdir(tmp_path) == []


def test_a_finished_part_takes_its_name_in_one_step(tmp_path: Path) -> None:
    part = files.Part(str(tmp_path / "x"), "s")
    part.begin({"etag": "a"})
    part.write(memoryview(b"whole"))
    assert not (tmp_path / "x").exists()
    part.finish(overwrite=False)
    part.close(keep=True)

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"x": b"whole"}


def test_without_overwrite_the_first_one_wins(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("first")
    part = files.Part(str(tmp_path / "x"), "s")
    part.write(memoryview(b"second"))
    with pytest.raises(Collision, match="exists"):
        part.finish(overwrite=False)
    part.close(keep=False)

    assert os.listdir(tmp_path) == ["x"] and (tmp_path / "x").read_text() == "first"


def test_what_is_ours_and_unfinished_is_known_by_its_name(tmp_path: Path) -> None:
    for kind in ("part", "state", "work"):
        for fresh in (False, True):
            assert files.is_temporary(
                os.path.basename(files.neighbour(str(tmp_path / ("n" * 255)), "s", kind, fresh=fresh))
            )
    assert not files.is_temporary(".scitq-notes")


def test_more_than_the_disk_has_is_refused_before_the_first_byte(tmp_path: Path) -> None:
    with pytest.raises(NoSpace, match="do not fit") as raised:
        files.check_space(str(tmp_path), 1 << 62, uri="s3://b/x")

    assert raised.value.uri == "s3://b/x" and raised.value.parts["free_bytes"] > 0
    files.check_space(str(tmp_path), 1)
    with pytest.raises(NoSpace, match="stay free"):
        files.check_space(str(tmp_path), 1, reserve_bytes=1 << 62)


@pytest.mark.parametrize(
    "number, kind",
    [(errno.ENOSPC, NoSpace), (errno.EDQUOT, NoSpace), (errno.EACCES, AccessDenied), (errno.EROFS, AccessDenied),
     (errno.ENOENT, NotFound), (errno.EEXIST, Collision), (errno.EIO, FetchError)],
)  # fmt: skip
def test_an_error_of_the_system_becomes_one_of_ours(number: int, kind: type[FetchError]) -> None:
    error = of_os_error(OSError(number, os.strerror(number)), "/x", "get")

    assert type(error) is kind
    assert isinstance(error, ScitqError)
    assert not error.retryable


@pytest.mark.promise("data 11.37")
def test_one_exception_tree_says_what_is_worth_another_try() -> None:
    assert Interrupted("x").retryable and isinstance(Interrupted("x"), Transient)
    assert not NotFound("x").retryable


def test_only_what_may_succeed_is_tried_again_and_not_for_ever() -> None:
    calls: list[int] = []

    def failing(error: FetchError) -> None:
        calls.append(1)
        raise error

    quick = Policy(attempts=4, first_wait_s=0.0)
    for error, count in ((NotFound("gone"), 1), (Interrupted("cut"), 4)):
        calls.clear()
        with pytest.raises(type(error)):
            retrying(lambda error=error: failing(error), quick, Cancel())  # type: ignore[misc]
        assert len(calls) == count
    # One that gave up already is not begun again by whoever called it.
    calls.clear()
    with pytest.raises(Interrupted):
        retrying(lambda: retrying(lambda: failing(Interrupted("cut")), quick, Cancel()), quick, Cancel())
    assert len(calls) == 4


def test_who_gets_on_may_fail_more_often() -> None:
    position = 0

    def a_little_further() -> int:
        nonlocal position
        position += 2 << 20
        if position < 40 << 20:
            raise Interrupted("cut")
        return position

    assert (
        retrying(a_little_further, Policy(attempts=2, first_wait_s=0.0), Cancel(), advanced=lambda: position)
        == 40 << 20
    )


def test_waits_grow_vary_and_have_a_limit() -> None:
    policy = Policy(first_wait_s=1, longest_wait_s=60)

    assert [policy.wait_s(failures) for failures in (1, 2, 3, 4, 10, 10_000)] == [1, 2, 4, 8, 60, 60]
    assert policy.wait_s(3, chance=0.0) == 2
    assert policy.wait_s(1, asked_s=90) == 90
    assert policy.wait_s(1, asked_s=86_400) == 600


def test_a_server_that_asks_for_patience_gets_it() -> None:
    waits: list[float] = []
    cancel = Cancel()

    def throttled() -> None:
        raise Throttled("429", retry_after_s=7.0)

    def stop(error: Interrupted, wait_s: float) -> None:
        waits.append(wait_s)
        cancel.set()

    with pytest.raises(Cancelled):
        retrying(throttled, Policy(), cancel, on_wait=stop)
    assert waits == [7.0]


def test_cancelling_wins_over_waiting() -> None:
    cancel = Cancel()

    def failing() -> None:
        cancel.set()
        raise Interrupted("cut")

    with pytest.raises(Cancelled):
        retrying(failing, Policy(first_wait_s=3600, longest_wait_s=3600), cancel)
    with pytest.raises(Cancelled):
        retrying(lambda: 1, Policy(), cancel)


def test_standing_still_is_told_from_taking_long() -> None:
    now = 0.0
    watch = Watch(stall_s=10, total_s=25, clock=lambda: now)
    now = 9.0
    assert watch.left_s() == 1
    watch.moved()
    assert watch.left_s() == 10
    now = 19.5
    assert watch.left_s() < 0 and not watch.is_late and "not a byte for 10 s" in watch.verdict("x")
    watch.moved()
    assert watch.left_s() == 5.5
    now = 25.0
    assert watch.is_late and "longer than the 25 s" in watch.verdict("x")


def test_progress_is_per_file_and_for_the_whole() -> None:
    said: list[Progress] = []
    meter = Meter(said.append, total_bytes=30, step_bytes=5)
    meter.at("a", 1, 10)
    meter.at("a", 2, 10)  # too small a step to be told
    meter.at("b", 20, 20, is_done=True)
    meter.at("a", 10, 10, is_done=True)

    assert said[0] == Progress("a", 1, 10)
    assert said[-2:] == [Progress("a", 10, 10, True), Progress("", 30, 30)]
    assert [each.done_bytes for each in said if not each.file] == [1, 22, 30]


@pytest.mark.parametrize(
    "pattern, yes, no",
    [("*.gz", ["a.gz", ".gz"], ["a/b.gz", "a.gzz"]), ("a?c", ["abc"], ["ac", "a/c"]), ("[ab]x", ["ax"], ["cx"]),
     ("[!ab]x", ["cx"], ["ax"]), ("[*]", ["*"], ["a"]), ("[]]x", ["]x"], ["x"]), ("[z-a]", [], ["z", "a"]), ("a[b", ["a[b"], []),
     ("(a)+$", ["(a)+$"], ["aa"])],
)  # fmt: skip
def test_a_glob_stays_within_its_segment(pattern: str, yes: list[str], no: list[str]) -> None:
    fits = segment(pattern)

    assert [name for name in yes if not fits(name)] == [] and [name for name in no if fits(name)] == []


@pytest.mark.parametrize(
    "pattern, yes, no",
    [("*.gz", ["a.gz", "d/a.gz"], ["a.txt"]), ("/*.gz", ["a.gz"], ["d/a.gz"]), ("d/**", ["d/a", "d/e/f", "x/d/a"], ["dd/a"]),
     ("*.{txt,md}", ["a.md", "a.txt"], ["a.t"]), ("/d/", ["d/a", "d/e/a"], ["e/d/a"]), ("/a/**/z", ["a/z", "a/b/c/z"], ["az"])],
)  # fmt: skip
def test_include_patterns_read_as_rclone_reads_them(pattern: str, yes: list[str], no: list[str]) -> None:
    fits = including([pattern])

    assert [name for name in yes if not fits(name)] == [] and [name for name in no if fits(name)] == []
    assert including([])("anything")
