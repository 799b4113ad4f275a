"""Delivering output folders: whole or not at all, however often it is begun again."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from scitq.fetch.retry import Cancel
from scitq.remote import local
from scitq.remote.agent import collect, whole
from scitq.remote.agent.manifest import NAME
from tests.remote.client import Driver


def test_output_is_delivered_after_success(driver: Driver, tmp_path: Path) -> None:
    place = tmp_path / "results" / "task one"
    line = driver.script(1, "mkdir $OUTPUT/d; echo a > $OUTPUT/d/a; echo b > $OUTPUT/b", deliver=str(place))
    assert line["collect"] and line["kept"]
    assert driver.seen("collected", 1)["ok"]
    assert (place / "d" / "a").read_text() == "a\n" and (place / "b").read_text() == "b\n"
    assert [path.name for path in place.parent.iterdir()] == ["task one"]
    driver.until(lambda: driver.held()["held"] == {})


@pytest.mark.parametrize("text", ["echo x > $OUTPUT/x; exit 1", "echo x > $OUTPUT/x; sleep 60", "true", "touch work"])
def test_nothing_is_delivered_without_success_or_output(driver: Driver, tmp_path: Path, text: str) -> None:
    line = driver.script(1, text, deliver=str(tmp_path / "place"), timeout=0.2)
    assert not line["collect"] and not (tmp_path / "place").exists()


def test_a_new_delivery_takes_the_place_of_the_old(driver: Driver, tmp_path: Path) -> None:
    place = tmp_path / "place"
    driver.script(1, "echo old > $OUTPUT/old; echo 1 > $OUTPUT/both", deliver=str(place))
    driver.seen("collected", 1)
    driver.script(2, "echo 2 > $OUTPUT/both", deliver=str(place))
    driver.seen("collected", 2)
    assert [path.name for path in place.iterdir()] == ["both"] and (place / "both").read_text() == "2\n"


@pytest.mark.promise("core 11.9")
def test_what_cannot_be_delivered_is_told_and_kept(driver: Driver, root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    driver.script(1, "echo x > $OUTPUT/x", deliver=str(tmp_path / "file" / "below"))
    line = driver.seen("collected", 1)
    assert not line["ok"] and str(tmp_path / "file") in line["note"]
    assert (root / "exec" / "1" / "output" / "x").exists()


@pytest.mark.promise("lessons 3.5.3")
def test_a_delivery_is_completed_by_the_next_agent(driver: Driver, root: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    driver.say({"order": 1, "script": f"while [ ! -e {tmp_path}/gate ]; do sleep 0.02; done; echo x > $OUTPUT/x",
                "deliver": str(place)})  # fmt: skip
    driver.seen("start", 1)
    os.kill(driver.held()["pid"], signal.SIGKILL)
    driver.close()
    (tmp_path / "gate").touch()
    local.ensure(root)
    assert driver.exit_of(1)["collect"]
    assert driver.seen("collected", 1)["ok"] and (place / "x").exists()


def test_forgetting_waits_for_the_delivery(driver: Driver, root: Path, tmp_path: Path) -> None:
    driver.script(1, "echo x > $OUTPUT/x", deliver=str(tmp_path / "place"))
    driver.say({"forget": [1]})
    assert driver.seen("collected", 1)["ok"] and (tmp_path / "place" / "x").exists()
    driver.until(lambda: not (root / "exec" / "1").exists())


def test_an_output_goes_to_its_path_with_a_manifest(driver: Driver, root: Path, tmp_path: Path) -> None:
    place = tmp_path / "results" / "one"
    order = {"output": str(place), "owner": "file:1", "failed": f"{place}.failed/1"}
    line = driver.script(1, "mkdir $OUTPUT/d; echo a > $OUTPUT/d/a; ln -s $OUTPUT/d/a $OUTPUT/b", **order)
    assert line["collect"] and line["output"] == str(place) and "failed" not in line
    said = driver.seen("collected", 1)
    digest = hashlib.md5(b"a\n").hexdigest()
    assert said["ok"] and said["to"] == str(place)
    assert sorted(said["files"]) == [["b", 2, digest], ["d/a", 2, digest]]
    assert (place / "b").read_text() == "a\n" and (place / NAME).exists()
    driver.until(lambda: driver.held()["held"] == {})


def test_a_side_folder_tells_its_files_and_gets_no_manifest(driver: Driver, tmp_path: Path) -> None:
    driver.script(1, "echo a > $OUTPUT/a", deliver=str(tmp_path / "place"))
    said = driver.seen("collected", 1)
    assert said["files"] == [["a", 2, hashlib.md5(b"a\n").hexdigest()]] and said["to"] == str(tmp_path / "place")
    assert [each.name for each in (tmp_path / "place").iterdir()] == ["a"]


def test_a_success_without_files_is_brought_home_too(driver: Driver, tmp_path: Path) -> None:
    assert driver.script(1, ":", output=str(tmp_path / "place"), owner="file:1")["collect"]
    assert driver.seen("collected", 1)["files"] == [] and (tmp_path / "place" / NAME).exists()


@pytest.mark.parametrize("text", ["exit 1", "sleep 60", "kill -9 $$"], ids=["code", "timeout", "signal"])
@pytest.mark.parametrize("to", ["path", "side folder"])
def test_what_a_failure_left_goes_beside_and_not_to_the_output(
    driver: Driver, root: Path, tmp_path: Path, text: str, to: str
) -> None:
    place, failed = tmp_path / "place", tmp_path / "place.failed" / "1"
    more = {"output": str(place), "owner": "file:1"} if to == "path" else {"deliver": str(place)}
    line = driver.script(1, f"echo x > $OUTPUT/x; {text}", timeout=0.5, failed=str(failed), **more)
    assert line["collect"] and line["failed"] is True
    said = driver.seen("collected", 1)
    assert said["ok"] and said["failed"] and said["to"] == str(failed) and [row[0] for row in said["files"]] == ["x"]
    assert (failed / "x").read_text() == "x\n" and not place.exists()
    assert (root / "exec" / "1" / "work").exists()  # stays for a look


@pytest.mark.parametrize("text", ["exit 1", "echo x > $OUTPUT/x; exit 1"], ids=["nothing left", "not wanted"])
def test_of_a_failure_nothing_goes_anywhere_if_nothing_is_left_or_wanted(
    driver: Driver, tmp_path: Path, text: str
) -> None:
    more = {"failed": str(tmp_path / "failed")} if text == "exit 1" else {}
    assert not driver.script(1, text, output=str(tmp_path / "place"), owner="file:1", **more)["collect"]
    assert driver.held()["held"] == {} and list(tmp_path.glob("place*")) == list(tmp_path.glob("failed*")) == []


@pytest.mark.promise("data 11.16")
def test_a_refused_place_is_told_with_its_reason(driver: Driver, root: Path, tmp_path: Path) -> None:
    text = f"echo mine > $OUTPUT/x; mkdir {tmp_path}/place; echo theirs > {tmp_path}/place/x"
    driver.script(1, text, output=str(tmp_path / "place"), owner="file:1")
    said = driver.seen("collected", 1)
    assert (driver.exits["1"]["code"], driver.exits["1"]["sig"], driver.exits["1"]["why"]) == (0, None, None)
    assert not said["ok"] and said["error"] == "Collision" and "overwrite=True" in said["note"]
    assert (tmp_path / "place" / "x").read_text() == "theirs\n"
    assert (root / "exec" / "1" / "output" / "x").read_text() == "mine\n"


@pytest.mark.parametrize(
    "order", [{"output": ""}, {"output": 1}, {"output": "/x\0"}, {"failed": "relative"}, {"output": "/x", "remotes": "s3"}],
    ids=str,
)  # fmt: skip
def test_an_order_whose_output_makes_no_sense_is_refused(driver: Driver, order: dict[str, Any]) -> None:
    assert driver.script(1, ":", **order)["why"] == "spawn"


class Killed(BaseException):
    """Stands for kill -9 at one system call."""


CALLS = ("rename", "unlink", "makedirs", "rmdir", "open", "mkdir", "chmod", "link")


@pytest.mark.parametrize("has_old", [False, True], ids=["first", "again"])
@pytest.mark.parametrize("way", ["exchange", "aside", "copy"])
def test_killed_at_any_call_it_is_the_old_or_the_new_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, has_old: bool
) -> None:
    root, place = tmp_path / "root", tmp_path / "to" / "place"
    real = {name: getattr(os, name) for name in CALLS}
    exchange = whole.exchange
    probe = str(root / "exec" / "1" / "probe")
    hits = 0

    def put() -> None:
        whole.put_whole(str(root), "1", str(place), Cancel())

    def state() -> str:
        if not place.exists():
            return "nothing"
        names = sorted(path.name for path in place.iterdir())
        assert names in (["old"], ["new", "sub"]), names
        return "old" if names == ["old"] else "new"

    def prepare() -> None:
        for path in (root, place.parent):
            collect.remove(str(path))
        (root / "trash").mkdir(parents=True)
        (root / "exec" / "1" / "output" / "sub").mkdir(parents=True)
        (root / "exec" / "1" / "output" / "new").write_text("new")
        if has_old:
            place.mkdir(parents=True)
            (place / "old").write_text("old")

    def arm(number: int, is_after: bool) -> None:
        left = number

        def wrap(name: str, call):  # type: ignore[no-untyped-def]
            def counted(*args, **more):  # type: ignore[no-untyped-def]
                nonlocal left
                if way == "copy" and name == "rename" and str(args[0]) == probe:
                    raise OSError(18, "another file system")
                left -= 1
                if left == 0 and not is_after:
                    raise Killed
                result = call(*args, **more)
                if left == 0:
                    raise Killed
                return result

            return counted

        for name in CALLS:
            monkeypatch.setattr(os, name, wrap(name, real[name]))
        swap = wrap("exchange", exchange) if way != "aside" else lambda *_: False
        monkeypatch.setattr(whole, "exchange", swap)

    def disarm() -> None:
        for name in CALLS:
            monkeypatch.setattr(os, name, real[name])

    for is_after in (False, True):
        for number in range(1, 100):
            prepare()
            arm(number, is_after)
            try:
                put()
            except Killed:
                hits += 1
                disarm()
                allowed = {"old", "new"} if has_old and way != "aside" else {"old", "new", "nothing"}
                assert state() in allowed
                arm(0, False)
                put()
                disarm()
                assert state() == "new" and [x.name for x in place.parent.iterdir()] == ["place"]
            else:
                disarm()
                assert state() == "new"
                break
    assert hits > 5
    print(f"{way}: {hits} points")
