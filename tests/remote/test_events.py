"""The journal as its readers see it: offsets, long polls, segments."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from scitq.remote import local
from tests.remote.client import Driver, Http, ndjson


def test_a_poll_gives_whole_lines_and_the_offset_to_go_on_from(driver: Driver) -> None:
    driver.run(1, "true")
    first = driver.ask("GET", "/events?journal=&from=0")
    assert first.headers["scitq-from"] == "0" and first.body.endswith(b"\n")
    kinds = [json.loads(line)["k"] for line in first.body.splitlines()]
    assert kinds[0] == "journal" and kinds[-1] == "exit"
    again = driver.ask("GET", f"/events?journal={driver.journal}&from=0")
    assert again.body == first.body
    end = driver.ask("GET", f"/events?journal={driver.journal}&from={len(first.body)}")
    assert end.body == b"" and int(end.headers["scitq-from"]) == len(first.body)


def test_who_asks_for_what_is_not_there_begins_at_the_base(driver: Driver) -> None:
    driver.run(1, "true")
    for query in ("journal=other&from=9", f"journal={driver.journal}&from=999999", f"journal={driver.journal}&from=3"):
        reply = driver.ask("GET", f"/events?{query}&wait=10")
        assert (reply.headers["scitq-from"], reply.headers["scitq-journal"]) == ("0", driver.journal)
        assert reply.body.startswith(b'{"k": "journal"')


@pytest.mark.promise("core 11.15")
def test_a_poll_waits_for_what_is_new(driver: Driver, tmp_path: Path) -> None:
    driver.run(1, "true")
    with Http(driver.root) as other:
        other.send("GET", f"/events?journal={driver.journal}&from={driver.offset}&wait=20")
        driver.say({"order": 2, "task": 2, "argv": ["echo", "x"]})
        lines = [json.loads(line) for line in other.receive().body.splitlines()]
        assert (lines[0]["k"], lines[0]["id"]) == ("start", 2)
    assert driver.exit_of(2)["o"] == "x\n"


def test_a_poll_ends_empty_when_its_time_is_over(driver: Driver) -> None:
    driver.run(1, "true")
    reply = driver.ask("GET", f"/events?journal={driver.journal}&from={driver.offset}&wait=0.05")
    assert reply.status == 200 and reply.body == b""


def test_a_lasting_start_is_told_while_it_runs(driver: Driver) -> None:
    driver.say({"order": 1, "task": 1, "argv": ["sleep", "60"]})
    assert driver.seen("pid", 1)["pid"] > 1
    driver.say({"cancel": 1})
    driver.exit_of(1)


def test_many_exits_come_in_few_answers(driver: Driver) -> None:
    driver.say(*({"order": n, "task": n, "argv": ["true"]} for n in range(200)))
    sizes = []
    while len(driver.exits) < 200:
        sizes.append(sum(line["k"] == "exit" for line in driver.poll()))
    assert max(sizes) > 1, "an armed poll waits for the group"


def big(execution: int) -> dict[str, object]:
    return {"order": execution, "task": execution, "script": "head -c 16000 /dev/zero"}  # 96 kB each in the journal


def test_acknowledged_segments_are_deleted_and_what_lives_is_carried(root: Path, tmp_path: Path) -> None:
    local.ensure(root)
    driver = Driver(root)
    gate = tmp_path / "gate"
    driver.say({"slots": 2}, {"order": "long", "task": 0, "script": f"while [ ! -e {gate} ]; do sleep 0.05; done; exit 6",
                              "timeout": 500})  # fmt: skip
    driver.seen("pid", "long")
    number = 0
    while len(list((root / "journal").glob("*.log"))) < 3:
        driver.say(*(big(number + n) for n in range(20)))
        number += 20
        deadline = time.monotonic() + 30
        while driver.held()["held"] != {"long": "running"}:  # a poll would acknowledge
            assert time.monotonic() < deadline
            time.sleep(0.01)
    whole = Driver(root)
    whole.until(lambda: str(number - 1) in whole.exits)
    whole.close()
    assert len(whole.exits) == number, "all retained segments are read through, one after another"
    driver.until(lambda: driver.offset >= whole.offset)
    driver.poll(0)
    driver.until(lambda: len(list((root / "journal").glob("*.log"))) == 1)
    base = int(next((root / "journal").glob("*.log")).name[:-4])
    assert base > 4_000_000 and driver.held()["base"] == base
    reply = driver.ask("GET", f"/events?journal={driver.journal}&from=0")
    head = [json.loads(line) for line in reply.body.splitlines()[:2]]
    assert int(reply.headers["scitq-from"]) == base
    assert (head[0]["base"], head[1]["running"][0]["id"], head[1]["slots"]) == (base, "long", 2)
    # What ended is forgotten now, what runs is not, not even by the next keeper.
    assert driver.ask("GET", "/output/0/out").status == 404
    driver.say({"order": "long", "task": 0, "argv": ["false"]})
    held = driver.held()
    os.kill(held["keeper"], signal.SIGKILL)
    driver.until(lambda: driver.held()["keeper"] != held["keeper"])
    assert driver.held()["held"] == {"long": "running"} and driver.held()["slots"] == 2
    gate.touch()
    assert driver.exit_of("long")["why"] == "unknown"
    driver.close()


def test_orders_do_not_outlive_their_segment(root: Path, tmp_path: Path) -> None:
    """An order file that still names what the journal has forgotten would make it run again."""
    local.ensure(root)
    driver = Driver(root)
    driver.say({"slots": 2}, {"order": "once", "task": 0, "script": f"echo ran >> {tmp_path}/ran"})
    driver.exit_of("once")
    number = 0
    while int(sorted((root / "journal").glob("*.log"))[0].name[:-4]) == 0:
        driver.say(*(big(number + n) for n in range(20)))
        number += 20
        driver.exit_of(number - 1)
        driver.poll(0)
    driver.close()
    local.stop(root)
    local.ensure(root)
    driver.run("after", "true")
    assert (tmp_path / "ran").read_text() == "ran\n"
    driver.close()


@pytest.mark.promise("core 11.3")
def test_two_clients_may_follow_at_once(driver: Driver) -> None:
    other = Driver(driver.root)
    with Http(driver.root) as commands:
        body = ndjson({"order": n, "task": n, "argv": ["true"]} for n in range(20))
        assert commands.ask("POST", "/commands", body).status == 200
    driver.until(lambda: len(driver.exits) == 20)
    other.until(lambda: len(other.exits) == 20)
    assert other.lines == driver.lines
    other.close()
