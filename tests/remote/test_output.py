"""Following output by offset, while it is written and after."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from scitq.remote import local
from tests.remote.client import Driver, Http


def test_live_output_is_followed_line_by_line(driver: Driver, tmp_path: Path) -> None:
    text = f"for i in 1 2 3; do echo line $i; while [ ! -e {tmp_path}/$i ]; do sleep 0.01; done; done; echo end"
    driver.say({"order": 1, "task": 1, "script": text})
    data = b""
    for number in (1, 2, 3):
        reply = driver.ask("GET", f"/output/1/out?from={len(data)}&wait=20")
        assert reply.headers["scitq-ended"] == "0"
        data += reply.body
        assert data.endswith(b"line %d\n" % number) and int(reply.headers["scitq-size"]) == len(data)
        (tmp_path / str(number)).touch()
    while reply.headers["scitq-ended"] == "0":
        reply = driver.ask("GET", f"/output/1/out?from={len(data)}&wait=20")
        data += reply.body
    assert data == b"line 1\nline 2\nline 3\nend\n"


def test_waiting_ends_with_the_execution(driver: Driver, tmp_path: Path) -> None:
    driver.say({"order": 1, "task": 1, "script": f"while [ ! -e {tmp_path}/gate ]; do sleep 0.01; done"})
    driver.seen("start", 1)
    with Http(driver.root) as other:
        other.send("GET", "/output/1/err?wait=30")
        (tmp_path / "gate").touch()
        reply = other.receive()
    assert (reply.status, reply.body, reply.headers["scitq-ended"]) == (200, b"", "1")


def test_one_may_wait_for_the_output_of_what_is_still_queued(driver: Driver) -> None:
    driver.say({"slots": 0}, {"order": 1, "task": 1, "argv": ["echo", "x"]})
    assert driver.ask("GET", "/output/1/out").headers["scitq-ended"] == "0"
    with Http(driver.root) as other:
        other.send("GET", "/output/1/out?wait=30")
        driver.say({"slots": 1})
        assert other.receive().body == b"x\n"


def test_parts_are_what_was_asked_for(driver: Driver) -> None:
    driver.run(1, "printf", "0123456789")
    driver.script(2, "seq 100000")
    whole = driver.output(2)
    assert driver.ask("GET", "/output/1/out?from=3&max=4").body == b"3456"
    assert driver.ask("GET", "/output/1/out?from=99").body == b""
    reply = driver.ask("GET", "/output/2/out?from=50000&max=100")
    assert reply.body == whole[50000:50100] and int(reply.headers["scitq-size"]) == len(whole)
    assert driver.ask("GET", f"/output/2/out?from={len(whole) + 5}").body == b""


def test_forgotten_output_is_gone(driver: Driver) -> None:
    driver.script(1, "seq 100000")
    assert driver.ask("GET", "/output/1/out?max=1").status == 200
    driver.say({"forget": [1]})
    assert driver.ask("GET", "/output/1/out").status == 404
    driver.say({"forget": [1, "never-heard-of"]})


def test_output_survives_the_death_of_the_agent_between_two_reads(driver: Driver) -> None:
    driver.script(1, "seq 100000; exit 1")
    whole = driver.output(1)
    part = driver.ask("GET", "/output/1/out?max=1000").body
    os.kill(driver.held()["pid"], signal.SIGKILL)
    driver.close()
    local.ensure(driver.root)
    rest = driver.ask("GET", "/output/1/out?from=1000").body
    assert part + rest == whole


def test_output_of_a_running_task_is_never_the_next_ones(driver: Driver) -> None:
    """Readers hammer executions that change slots quickly: each sees its own bytes or none."""
    driver.say({"slots": 2}, *({"order": n, "task": n, "script": f"printf {n:05d}%.0s $(seq 50)"} for n in range(150)))
    seen = 0
    with Http(driver.root) as other:
        while len(driver.exits) < 150:
            for number in range(len(driver.exits), min(150, len(driver.exits) + 6)):
                body = other.ask("GET", f"/output/{number}/out").body
                assert body == b"%05d" % number * (len(body) // 5)
                seen += bool(body)
            driver.poll(0.01)
    assert seen
