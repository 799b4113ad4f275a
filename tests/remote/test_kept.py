"""Outputs that stay on the worker: held until the driver has fetched them, kept for tasks that read them there."""

from __future__ import annotations

import gzip
import hashlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest

from scitq.fetch.errors import Cancelled
from scitq.fetch.retry import Cancel
from scitq.remote import local
from scitq.remote.agent import root as roots
from scitq.remote.agent.kept import Kept
from tests.remote.client import Driver

ODD = "a b/$(x)%25 ünï"


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def fetch(driver: Driver, execution: int, name: str, start: int = 0, most: int = 1 << 20) -> tuple[int, bytes]:
    path = quote(os.fsencode(name))
    reply = driver.ask("GET", f"/kept/{execution}/{path}?from={start}&max={most}")
    return reply.status, reply.body


def test_an_output_is_held_until_the_driver_has_it_and_kept_after_that(driver: Driver, root: Path) -> None:
    text = f"mkdir -p 'sub/{ODD}' empty; echo x > 'sub/{ODD}/f'; echo y > y; chmod +x y; ln -s y link; echo said"
    line = driver.script(1, f"cd $OUTPUT; {text}", home=True)
    assert line["collect"] and line["home"] is True
    said = driver.seen("collected", 1)
    files = [["link", 2, sha(b"y\n")], [f"sub/{ODD}/f", 2, sha(b"x\n")], ["y", 2, sha(b"y\n")]]
    assert said["ok"] and said["held"] and said["files"] == files and "to" not in said
    assert said["folders"] == ["empty"] and said["programs"] == ["link", "y"]
    assert driver.held()["held"] == {}
    assert fetch(driver, 1, f"sub/{ODD}/f") == (200, b"x\n") and fetch(driver, 1, "y", 1, 5) == (200, b"\n")
    for name in ("none", "../entry.json", "sub", "", "../../../1/entry.json"):
        assert fetch(driver, 1, name)[0] == 404
    assert fetch(driver, 2, "y")[0] == 404
    assert (root / "kept" / "1" / "unsent").exists()

    driver.say({"forget": [1]})
    assert not (root / "kept" / "1" / "unsent").exists() and fetch(driver, 1, "y") == (200, b"y\n")
    driver.until(lambda: not (root / "exec" / "1").exists())


def test_without_anything_left_nothing_is_held_unless_always_is_said(driver: Driver) -> None:
    assert not driver.script(1, ":", home=True)["collect"]
    assert not driver.script(2, "touch $OUTPUT/x; exit 1", home=True)["collect"]
    assert driver.script(3, ":", home="always")["collect"]
    assert driver.script(4, "rm -r $OUTPUT", home="always")["collect"]
    for number in (3, 4):
        assert driver.seen("collected", number)["files"] == []


def test_what_a_failure_left_is_held_as_well_where_that_is_wanted(driver: Driver, root: Path) -> None:
    text = "mkfifo $OUTPUT/pipe; echo x > $OUTPUT/x; exit 1"
    assert driver.script(1, text, home=True, failed=True)["failed"] is True
    said = driver.seen("collected", 1)
    assert said["ok"] and said["held"] and said["failed"] and said["files"] == [["x", 2, sha(b"x\n")]]
    assert "pipe" in said["note"] and (root / "exec" / "1" / "work").exists()
    driver.say({"forget": [1], "keep_work": True})
    assert not (root / "kept" / "1" / "unsent").exists()


def test_an_output_that_cannot_be_held_is_told_and_stays(driver: Driver, root: Path) -> None:
    driver.script(1, "ln -s /etc/passwd $OUTPUT/x; echo y > $OUTPUT/y", home=True)
    said = driver.seen("collected", 1)
    assert (said["ok"], said["error"]) == (False, "EscapesFolder")
    assert (root / "exec" / "1" / "output" / "y").exists() and fetch(driver, 1, "y")[0] == 404


def test_a_file_that_was_changed_is_not_given_to_anybody(driver: Driver, root: Path) -> None:
    driver.script(1, "echo x > $OUTPUT/x; echo y > $OUTPUT/y", home=True)
    driver.seen("collected", 1)
    kept = root / "kept" / "1" / "output" / "x"
    kept.chmod(0o600)  # what is kept is read-only, for all but root
    kept.write_text("z\n")
    assert fetch(driver, 1, "x")[0] == 410 and fetch(driver, 1, "y")[0] == 200


@pytest.mark.parametrize(
    ("order", "says"),
    [({"home": "yes"}, "home is true or always"), ({"home": True, "deliver": "/x"}, "instead of"),
     ({"home": True, "output": "/x"}, "instead of"), ({"failed": "x"}, "absolute path")],
)  # fmt: skip
def test_an_order_with_two_homes_or_a_strange_one_is_refused(driver: Driver, order: dict[str, Any], says: str) -> None:
    line = driver.run(1, "true", **order)
    assert (line["why"], line["code"]) == ("spawn", 126) and says in line["note"]


class Killed(BaseException):
    """Stands for kill -9 at a call."""


def killed_at(patch: pytest.MonkeyPatch, number: int) -> None:
    """Before the n-th call that changes something."""
    left = number

    def wrap(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **more: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed
            return call(*args, **more)

        return counted

    for name in ("rename", "mkdir", "link", "unlink", "fsync", "chmod", "rmdir"):
        patch.setattr(os, name, wrap(getattr(os, name)))


@pytest.mark.parametrize("kind", ["plain", "links", "gone"])
def test_killed_at_any_call_it_is_held_by_the_next_one(tmp_path: Path, kind: str) -> None:
    for number in range(1, 60):
        root = tmp_path / str(number)
        roots.make(str(root))
        output = root / "exec" / "1" / "output"
        output.parent.mkdir()
        wanted = []
        if kind != "gone":
            output.mkdir()
            (output / "d").mkdir()
            (output / "d" / "a").write_text("a")
            wanted = [["d/a", 1, sha(b"a")]]
        if kind == "links":
            (output / "b").symlink_to("d/a")
            wanted = [["b", 1, sha(b"a")], *wanted]
        with pytest.MonkeyPatch.context() as patch:
            killed_at(patch, number)
            try:
                Kept(str(root)).hold("1", Cancel(), is_lenient=False)
            except Killed:
                pass
            else:
                assert number > 3
                return
        kept = Kept(str(root))
        entry = kept.entry("1")
        assert entry is None or entry["files"] == wanted
        assert kept.hold("1", Cancel(), is_lenient=False)["files"] == wanted
        assert not output.exists() and kept.place("1") is not None and not kept.evict(set())
        assert os.listdir(root / "kept") == ["1"]
    pytest.fail("it never ended")


def test_what_is_cancelled_is_not_held(tmp_path: Path) -> None:
    roots.make(str(tmp_path))
    output = tmp_path / "exec" / "1" / "output"
    output.mkdir(parents=True)
    (output / "x").write_text("x")
    cancel = Cancel()
    cancel.set()
    with pytest.raises(Cancelled):
        Kept(str(tmp_path)).hold("1", cancel, is_lenient=False)
    assert (output / "x").exists() and Kept(str(tmp_path)).entry("1") is None


def test_the_least_recently_used_goes_first_and_nothing_that_somebody_waits_for(tmp_path: Path) -> None:
    roots.make(str(tmp_path))
    kept = Kept(str(tmp_path))
    for number in range(1, 5):
        output = tmp_path / "exec" / str(number) / "output"
        output.mkdir(parents=True)
        (output / "x").write_text("x" * 50_000)
        kept.hold(str(number), Cancel(), is_lenient=False)
    assert not kept.evict(set()) and kept.spare_bytes(set()) == 0
    for number in (1, 2, 3):
        os.unlink(tmp_path / "kept" / str(number) / "unsent")
        os.utime(tmp_path / "kept" / str(number) / "entry.json", (number, number))
    assert kept.place("1") is not None
    assert kept.spare_bytes({"3"}) > 100_000 > kept.spare_bytes({"2", "3"}) > 50_000
    gone = []
    while kept.evict({"3"}):
        gone += [each for each in ("1", "2", "3", "4") if kept.entry(each) is None and each not in gone]
    assert gone == ["2", "1"]


@pytest.mark.parametrize(("share", "left"), [(0.15, ["1", "5"]), (0.02, ["1"])], ids=["short", "nearly full"])
def test_outputs_that_are_kept_leave_room_for_what_tasks_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float, left: list[str]
) -> None:
    roots.make(str(tmp_path))
    found = Kept(str(tmp_path))
    for number in range(1, 6):
        output = tmp_path / "exec" / str(number) / "output"
        output.mkdir(parents=True)
        (output / "x").write_text("x")
        found.keep(str(number), Cancel())
        if number < 5:  # that one was used just now
            os.utime(tmp_path / "kept" / str(number) / "entry.json", (number, number))
    total, free = 100 << 30, [0.5]
    monkeypatch.setattr("scitq.remote.agent.kept.reserve_bytes", lambda _: 1 << 30)
    monkeypatch.setattr("scitq.remote.agent.kept.free_bytes", lambda _: total * free[0])
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_blocks=total, f_frsize=1))
    found.leave_room(lambda: {"1"})
    free[0] = share
    found.leave_room(lambda: None)
    assert len(os.listdir(tmp_path / "kept")) == 5
    found.leave_room(lambda: {"1"})
    assert sorted(os.listdir(tmp_path / "kept")) == left and not os.listdir(tmp_path / "trash")


def test_a_killed_agent_is_followed_by_one_that_has_it_all(driver: Driver, root: Path) -> None:
    driver.script(1, "echo x > $OUTPUT/x", home=True)
    driver.seen("collected", 1)
    held = driver.held()
    for pid in (held["pid"], held["keeper"]):
        os.kill(pid, signal.SIGKILL)
    driver.close()
    local.ensure(root, linger=60)
    assert fetch(driver, 1, "x") == (200, b"x\n")


def test_a_clean_worker_keeps_what_somebody_waits_for_and_nothing_else(
    driver: Driver, root: Path, tmp_path: Path
) -> None:
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"x"))
    for number in (1, 2):
        driver.script(number, "echo x > $OUTPUT/x", home=True)
        driver.seen("collected", number)
    driver.script(3, "echo x > work; exit 1", resource=[f"{tmp_path}/x.gz|gunzip"])
    driver.until(lambda: not os.listdir(root / "stage"))
    assert os.listdir(root / "cache") and os.listdir(root / "exec" / "3" / "work")
    driver.say({"forget": [1]}, {"clean": True})
    driver.until(lambda: os.listdir(root / "kept") == ["2"] and not os.listdir(root / "cache"))
    driver.until(lambda: not (root / "exec" / "3" / "work").exists())
    assert fetch(driver, 2, "x") == (200, b"x\n") and not any(line["k"] == "bad" for line in driver.lines)
