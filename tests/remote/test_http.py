"""The agent's HTTP: refusals, limits, the epoch fence, facts."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scitq.remote import local
from scitq.remote.agent import address
from scitq.remote.agent.keeper import CONFIRM_S, Keeper
from tests.remote.client import Driver, Http, below, ndjson


def raw(root: Path, data: bytes) -> bytes:
    """Send bytes, read until the agent closes."""
    with address.connect(str(root), "agent.sock") as sock:
        sock.settimeout(10)
        sock.sendall(data)
        answer = b""
        while chunk := sock.recv(65536):
            answer += chunk
        return answer


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"order": 2, "argv": ["true"]', "line 2"),
        ("nonsense", "line 2"),
        ("[1, 2]", "line 2: not an object"),
        ('"text"', "line 2: not an object"),
        ('{"forget": 3}', "line 2: forget needs a list"),
        ('{"slots": 1}, {"slots": 2}', "line 2"),
        ('{"slots":', "line 2"),
        ('{"forget": ["../../etc"]}', "an execution id is"),
        ("[" * 100_000, "line 2"),
    ],
)
def test_a_body_with_a_bad_line_is_refused_whole(driver: Driver, line: str, says: str) -> None:
    body = '{"order": 1, "task": 1, "argv": ["true"]}\n' + line + "\n"
    reply = driver.ask("POST", "/commands", body.encode())
    assert reply.status == 400 and says in reply.json()["error"]
    assert driver.held()["held"] == {}
    driver.run(9, "true")
    assert "1" not in driver.exits


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ({}, "no such command"),
        ({"order": "../x", "argv": ["true"]}, "an execution id is"),
        ({"order": -1, "argv": ["true"]}, "an execution id is"),
        ({"order": True, "argv": ["true"]}, "an execution id is"),
        ({"order": None, "argv": ["true"]}, "an execution id is"),
        ({"order": "", "argv": ["true"]}, "an execution id is"),
        ({"cancel": "a/b"}, "an execution id is"),
        ({"cancel": 1, "grace": "x"}, "grace"),
        ({"slots": -1}, "slots must be"),
        ({"slots": "many"}, "slots must be"),
        ({"signal": 1, "number": "x"}, "invalid literal"),
        ({"stop": "later"}, "stop is either"),
    ],
)
def test_a_command_without_sense_is_recorded_and_does_no_harm(driver: Driver, command: dict, says: str) -> None:
    driver.say(command)
    bad = driver.until(lambda: next((line for line in driver.lines if line["k"] == "bad"), None))
    assert says in bad["note"]
    assert driver.run(9, "true")["code"] == 0


@pytest.mark.parametrize(
    ("order", "says"),
    [
        ({}, "argv must be"),
        ({"argv": []}, "argv must be"),
        ({"argv": "true"}, "argv must be"),
        ({"argv": [""]}, "name is empty"),
        ({"argv": ["a\0b"]}, "NUL"),
        ({"argv": ["true", 3]}, "must be a text"),
        ({"argv": ["true", "\ud800"]}, "neither text nor an escaped byte"),
        ({"argv": ["true"], "script": "true"}, "either argv or script"),
        ({"script": 3}, "script must be a text"),
        ({"script": "true", "shell": ""}, "shell is empty"),
        ({"argv": ["true"], "env": []}, "env must be"),
        ({"argv": ["true"], "env": {"A=B": "x"}}, "cannot be the name"),
        ({"argv": ["true"], "env": {"A": "x\0"}}, "NUL"),
        ({"argv": ["true"], "base": {"": "x"}}, "cannot be the name"),
        ({"argv": ["true"], "cwd": "relative"}, "absolute"),
        ({"argv": ["true"], "deliver": "relative"}, "absolute"),
        ({"argv": ["true"], "timeout": "long"}, "timeout must be"),
        ({"argv": ["true"], "grace": -1}, "grace must be"),
        ({"argv": ["true"], "cap": True}, "cap must be"),
    ],
)
def test_an_order_without_sense_ends_at_once_with_the_reason(driver: Driver, order: dict, says: str) -> None:
    driver.say({"order": 1, "task": 1, **order})
    line = driver.exit_of(1)
    assert (line["why"], line["code"]) == ("spawn", 126) and says in line["note"]
    assert driver.run(9, "true")["code"] == 0


def test_unknown_keys_are_ignored(driver: Driver) -> None:
    assert driver.run(1, "true", colour="blue", epoch=3)["code"] == 0


@pytest.mark.promise("core 11.5")
def test_an_older_drivers_commands_are_refused(driver: Driver) -> None:
    def say(execution: int, epoch: str) -> int:
        body = ndjson([{"order": execution, "task": 1, "argv": ["true"]}])
        return driver.ask("POST", "/commands", body, {"Scitq-Epoch": epoch}).status

    assert [say(1, "7"), say(2, "6"), say(3, "7"), say(4, "8"), say(5, "7"), say(6, "x")] == [
        200,
        409,
        200,
        200,
        409,
        400,
    ]
    assert driver.ask("GET", "/events?from=0", headers={"Scitq-Epoch": "7"}).status == 409
    held = driver.held()
    os.kill(held["pid"], signal.SIGKILL)
    driver.close()
    local.ensure(driver.root)
    assert [say(7, "7"), say(8, "8")] == [409, 200]
    driver.exit_of(8)
    assert sorted(driver.exits) == ["1", "3", "4", "8"]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ("GET /nothing", 404),
        ("GET /output/1/both", 404),
        ("GET /output/1", 404),
        ("GET /output/..%2f/out", 404),
        ("GET /output/5/out", 404),
        ("POST /events", 405),
        ("GET /commands", 405),
        ("DELETE /held", 405),
        ("GET /events?from=x", 400),
        ("GET /events?from=-1", 400),
        ("GET /events?from=0&wait=nan", 400),
        ("GET /output/5/out?from=1e3", 400),
    ],
)
def test_what_is_not_there_is_refused_and_the_connection_goes_on(driver: Driver, request_: str, status: int) -> None:
    method, path = request_.split(" ")
    reply = driver.ask(method, path)
    assert reply.status == status and reply.json()["error"]
    assert driver.ask("GET", "/ping").status == 200


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/2\r\n\r\n", 400),
        (b"GET /ping HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"POST /commands HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST /commands HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (b"POST /commands HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"GET /ping HTTP/1.1\r\nX: " + b"x" * 40_000, 413),
    ],
)
def test_what_is_no_request_ends_the_connection_with_the_reason(driver: Driver, data: bytes, status: int) -> None:
    answer = raw(driver.root, data)
    assert answer.startswith(b"HTTP/1.1 %d " % status) and b'{"error": ' in answer
    assert driver.ask("GET", "/ping").status == 200


def test_requests_may_follow_one_another_without_waiting(driver: Driver) -> None:
    answer = raw(driver.root, b"GET /ping HTTP/1.1\r\n\r\n" * 3 + b"GET /held HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200 OK") == 4 and answer.index(b'"held"') > answer.rindex(b'"stopping"')


def test_a_body_in_small_pieces_is_one_body(driver: Driver) -> None:
    with Http(driver.root) as other:
        body = ndjson([{"order": 1, "task": 1, "script": "echo " + "x" * 200_000}])
        head = b"POST /commands HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body)
        for start in range(0, len(head + body), 9_999):
            other.sock.sendall((head + body)[start : start + 9_999])
        assert other.receive().status == 200
    assert driver.exit_of(1)["on"] == 200_001


def test_held_and_stats_tell_the_facts(driver: Driver) -> None:
    held = driver.held()
    assert {
        "journal",
        "base",
        "end",
        "held",
        "slots",
        "version",
        "pid",
        "keeper",
        "cpus",
        "memory",
        "python",
        "host",
    } <= set(held)
    assert held["cpus"] >= 1 and held["memory"] > 1 << 20 and held["slots"] == 2
    stats = driver.ask("GET", "/stats").json()
    assert 0 < stats["disk_free"] < stats["disk"] and 0 < stats["memory_free"] < stats["memory"]
    assert stats["load"] >= 0 and (stats["running"], stats["queued"]) == (0, 0)
    deadline = time.monotonic() + 30
    while (busy := driver.ask("GET", "/stats").json()["cpu"]) is None:  # too soon after the look before
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert 0 <= busy <= 1
    driver.say({"slots": 1}, *({"order": n, "task": n, "argv": ["sleep", "60"]} for n in (1, 2)))
    stats = driver.ask("GET", "/stats").json()
    assert (stats["running"], stats["queued"]) == (1, 1)
    driver.say({"cancel": 1}, {"cancel": 2})


def test_what_running_tasks_take_is_told_with_that_of_their_children(driver: Driver) -> None:
    script = "i=0; while :; do (i=$((i+1)); x=$(head -c 9999 /dev/zero | wc -c)); done"
    driver.say(
        {"slots": 2},
        {"order": 1, "task": 1, "argv": ["sh", "-c", script]},
        {"order": 2, "task": 2, "argv": ["sleep", "60"]},
    )
    deadline = time.monotonic() + 60
    while (tasks := driver.ask("GET", "/stats").json()["tasks"]).get("1", [0, 0])[0] < 0.1 or "2" not in tasks:
        assert time.monotonic() < deadline, tasks
        time.sleep(0.05)
    assert set(tasks) == {"1", "2"} and tasks["2"][0] < tasks["1"][0] and 1000 < tasks["2"][1] < 1 << 28
    driver.say({"cancel": 1}, {"cancel": 2})


@pytest.mark.promise("core 11.1")
def test_everything_is_private_to_the_user(driver: Driver, root: Path) -> None:
    driver.script(1, "touch $OUTPUT/f; exit 1")
    for path in [root, *(path for path in below(root) if "trash" not in path.parts)]:
        mode = path.lstat().st_mode & 0o777
        assert mode & 0o077 == 0 or path.name == "f", f"{path} {mode:o}"


def test_diagnostics_are_json_free_of_orders(driver: Driver, root: Path) -> None:
    driver.run(1, "true", env={"SECRET": "hunter2"})
    assert "hunter2" not in (root / "agent.log").read_text()
    assert json.loads((root / "agent.lock").read_text())["pid"] == driver.held()["pid"]


def test_requests_that_come_one_upon_the_other_are_all_answered(driver: Driver, root: Path) -> None:
    with Http(root) as http:
        for number, argv in ((1, ["sleep", "60"]), (2, ["true"])):
            http.send("POST", "/commands", ndjson([{"order": number, "task": number, "argv": argv}]))
        http.send("GET", "/held")
        assert [http.receive().status for _ in range(2)] == [200, 200]
        assert "1" in http.receive().json()["held"]
    driver.say({"cancel": 1, "grace": 0})
    assert driver.exit_of(2)["code"] == 0 and driver.exit_of(1)["why"] == "cancel"


class Told:
    """What a keeper says of the orders it took, without its loop."""

    def __init__(self, *, unrung: int = 0) -> None:
        self.keeper = keeper = object.__new__(Keeper)
        self.said: list[dict[str, Any]] = []
        channel = SimpleNamespace(say=self.said.append)
        keeper.confirm = [(channel, 7)]  # type: ignore[list-item]
        keeper.confirm_at, keeper.is_hurried = None, False
        keeper.tasks = SimpleNamespace(unrung=unrung)  # type: ignore[assignment]

    def round(self, now: float, *, is_written: bool = True, has_rung: bool = False, has_started: bool = False) -> bool:
        self.keeper._confirm(now, is_written, has_rung, has_started=has_started)
        return bool(self.said)


def test_the_word_on_orders_waits_a_moment_for_the_end_of_what_they_started() -> None:
    told = Told()
    assert not told.round(100.0, has_started=True)
    assert not told.round(100.001)
    assert told.round(100.002, has_rung=True) and told.said == [{"synced": 7}]
    late = Told()
    assert not late.round(100.0, has_started=True)
    assert late.round(100.0 + CONFIRM_S) and late.keeper.confirm_at is None
    assert Told().round(100.0)  # nothing was started


def test_the_word_on_orders_does_not_wait_when_somebody_has_more_to_say() -> None:
    told = Told()
    assert not told.round(100.0, has_started=True)
    told.keeper.is_hurried = True
    assert told.round(100.001)


def test_the_word_on_orders_is_never_said_before_they_are_on_disk() -> None:
    told = Told()
    assert not told.round(100.0, is_written=False, has_started=True)
    told.keeper.is_hurried = True
    assert not told.round(100.1, is_written=False)
    assert told.keeper.confirm_at is None  # nor is it waited for without rest
    assert told.round(100.2)
    assert not Told(unrung=1).round(100.0)


def _drive(driver: Driver, copy: str, epoch: int, **knows: int) -> tuple[int, object, object]:
    body = ndjson([{"epoch": epoch, "copy": copy, "place": f"host:/{copy}", "knows": knows}])
    reply = driver.ask("POST", "/drive", body)
    told = reply.json()
    return reply.status, told.get("copy"), told.get("epoch")


def test_of_two_copies_the_one_that_came_last_drives_and_the_other_comes_back_only_knowing_of_it(
    driver: Driver,
) -> None:
    assert _drive(driver, "a", 7) == (200, "a", 7)
    assert _drive(driver, "b", 9) == (409, "a", 7)  # it has not heard of a
    assert _drive(driver, "b", 9, a=6) == (409, "a", 7)  # nor of this time
    assert _drive(driver, "b", 7, a=7) == (409, "a", 7)  # the same number would not tell them apart
    assert _drive(driver, "b", 8, a=7) == (200, "b", 8)
    assert _drive(driver, "b", 8, a=7) == (200, "b", 8)

    def say(copy: str, epoch: int) -> tuple[int, object]:
        reply = driver.ask("POST", "/commands", b"", {"Scitq-Epoch": str(epoch), "Scitq-Copy": copy})
        return reply.status, reply.json().get("place")

    assert say("a", 7) == (409, "host:/b")
    assert say("a", 10) == (409, "host:/b")
    assert say("b", 8) == (200, None)
    assert driver.ask("GET", "/events?from=0", headers={"Scitq-Epoch": "8", "Scitq-Copy": "a"}).status == 409
    held = driver.held()
    assert (held["copy"], held["epoch"], held["place"]) == ("b", 8, "host:/b")
    os.kill(held["pid"], signal.SIGKILL)
    driver.close()
    local.ensure(driver.root)
    assert say("a", 10) == (409, "host:/b")
    assert _drive(driver, "a", 10) == (409, "b", 8)
    assert _drive(driver, "a", 10, b=8) == (200, "a", 10)


@pytest.mark.parametrize("body", [b"", b"[]", b"7", b"{}", b'{"epoch": "x", "copy": "a", "place": "p"}',
                                  b'{"epoch": 1, "copy": null, "place": "p"}', b'{"epoch": 1, "copy": "a\\nb", "place": "p"}',
                                  b'{"epoch": 1, "copy": "a", "place": "p", "knows": 3}'])  # fmt: skip
def test_a_driver_that_says_nonsense_of_itself_is_refused(driver: Driver, body: bytes) -> None:
    assert driver.ask("POST", "/drive", body).status == 400
    assert driver.held()["copy"] is None


def test_the_highest_number_is_known_over_kills_and_sealed_journals(driver: Driver) -> None:
    driver.run(70, "true")
    driver.say({"order": 80, "task": 1, "argv": ["true"], "input": ["nowhere://x"], "remotes": ["nowhere"]})
    assert driver.held()["highest"] == 80
    driver.say({"cancel": 80})
    driver.exit_of(80)
    driver.run(75, "true")
    os.kill(driver.held()["keeper"], signal.SIGKILL)
    driver.until(lambda: driver.held()["highest"] == 80)
