"""Delivering output folders: whole or not at all, however often it is begun again."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from scitq.remote import local
from scitq.remote.agent import collect
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


class Killed(BaseException):
    """Stands for kill -9 at one system call."""


CALLS = ("rename", "unlink", "makedirs", "rmdir", "open", "mkdir", "chmod")


@pytest.mark.parametrize("has_old", [False, True], ids=["first", "again"])
@pytest.mark.parametrize("way", ["exchange", "aside", "copy"])
def test_killed_at_any_call_it_is_the_old_or_the_new_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, has_old: bool
) -> None:
    root, place = tmp_path / "root", tmp_path / "to" / "place"
    real = {name: getattr(os, name) for name in CALLS}
    exchange = collect._exchange
    source = str(root / "exec" / "1" / "output")
    hits = 0

    def state() -> str:
        if not place.exists():
            return "nothing"
        names = sorted(path.name for path in place.iterdir())
        assert names in (["old"], ["new", "sub"]), names
        return "old" if names == ["old"] else "new"

    def prepare() -> None:
        for path in (root, place.parent):
            collect._remove(str(path))
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
                if way == "copy" and name == "rename" and str(args[0]) == source and "trash" not in str(args[1]):
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
        monkeypatch.setattr(collect, "_exchange", swap)

    def disarm() -> None:
        for name in CALLS:
            monkeypatch.setattr(os, name, real[name])

    for is_after in (False, True):
        for number in range(1, 100):
            prepare()
            arm(number, is_after)
            try:
                collect.deliver(str(root), "1", str(place))
            except Killed:
                hits += 1
                disarm()
                allowed = {"old", "new"} if has_old and way != "aside" else {"old", "new", "nothing"}
                assert state() in allowed
                arm(0, False)
                collect.deliver(str(root), "1", str(place))
                disarm()
                assert state() == "new" and [x.name for x in place.parent.iterdir()] == ["place"]
            else:
                disarm()
                assert state() == "new"
                break
    assert hits > 5
    print(f"{way}: {hits} points")
