"""Orders that wait for others on the same worker, and read there what those left."""

from __future__ import annotations

import gzip
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scitq.remote import local
from scitq.remote.agent.conditions import Conditions
from scitq.remote.agent.orders import Order
from scitq.remote.agent.recovery import Facts
from tests.fetch.web import WebServer
from tests.remote.client import Driver


@pytest.fixture
def web() -> Iterator[WebServer]:
    """A web server."""
    found = WebServer()
    yield found
    found.close()


def gated(gate: Path, text: str) -> str:
    return f"while [ ! -e {gate} ]; do sleep 0.02; done; {text}"


def of(execution: int, below: str = "", uri: str = "/not/here") -> dict[str, Any]:
    return {"uri": uri, "of": execution, "below": below}


def order(number: int, text: str, *after: int, **more: Any) -> dict[str, Any]:
    return {"order": number, "task": number, "script": text, "after": list(after), **more}


def test_a_chain_runs_without_the_driver_and_reads_what_was_left(driver: Driver, root: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    first = gated(gate, "mkdir $OUTPUT/d; echo x > $OUTPUT/d/x; echo y > $OUTPUT/y")
    driver.say(
        order(1, first, home=True),
        order(2, "cd $INPUT; find . -type f | sort; cat x >> $OUTPUT/z", 1, input=[of(1), of(1, "d/x")], home=True),
        order(3, "cat $INPUT/*; cat $RESOURCE/y", 1, 2, input=[of(2)], resource=[of(1)]),
        order(4, "echo free", 1),
    )
    driver.seen("start", 1)
    assert driver.held()["held"] == {"1": "running", "2": "queued", "3": "queued", "4": "queued"}
    gate.touch()
    assert driver.exit_of(2)["o"] == "./d/x\n./x\n./y\n"
    assert driver.exit_of(3)["o"] == "x\ny\n" and driver.exit_of(4)["o"] == "free\n"
    assert driver.held()["held"] == {} and sorted(os.listdir(root / "kept")) == ["1", "2"]


@pytest.mark.parametrize("how", ["fails", "cancelled", "recalled", "cannot be held", "times out"])
def test_who_waits_for_one_that_does_not_end_well_is_given_back(driver: Driver, tmp_path: Path, how: str) -> None:
    gate, more = tmp_path / "gate", dict[str, Any](home=True, grace=0)
    ends = {"fails": "exit 1", "cannot be held": "ln -s /etc/passwd $OUTPUT/x"}
    if how == "times out":
        more["timeout"] = 0.1
    driver.say(order(1, gated(gate, ends.get(how, "sleep 60")), **more), {"slots": 0 if how == "recalled" else 2})
    driver.say(order(2, "echo never", 1, input=[of(1)]), order(3, "echo never", 2), order(4, "echo never", 3, 1))
    if how in ("cancelled", "recalled"):
        driver.say({"cancel" if how == "cancelled" else "recall": 1})
    elif how != "times out":
        gate.touch()
    for number, of_whom in ((2, 1), (3, 2), (4, 1)):
        line = driver.exit_of(number)
        assert (line["why"], line["code"]) == ("recall", None)
        assert f"execution {of_whom}, which it waited for, did not end well" in line["note"] or number == 4
    assert driver.held()["held"] == {}
    driver.say({"slots": 2}, order(5, "echo never", 1), order(6, "echo never", 999))
    assert {driver.exit_of(number)["why"] for number in (5, 6)} == {"recall"}


@pytest.mark.parametrize("who", ["agent", "both"])
def test_who_waits_goes_on_waiting_after_a_kill(driver: Driver, root: Path, tmp_path: Path, who: str) -> None:
    gates = [tmp_path / "gate0", tmp_path / "gate1"]
    driver.say(order(1, gated(gates[0], "echo x > $OUTPUT/x"), home=True), order(2, gated(gates[1], "exit 1")))
    driver.say(order(3, "cat $INPUT/x", 1, input=[of(1)]), order(4, "echo never", 2, 1), {"slots": 3})
    driver.seen("start", 2)
    held = driver.held()
    for pid in [held["pid"], *([held["keeper"]] if who == "both" else [])]:
        os.kill(pid, signal.SIGKILL)
    driver.close()
    gates[0].touch()
    local.ensure(root, linger=60)
    if who == "both":  # how they ended was not seen
        driver.say({"cancel": 1, "grace": 0})
        assert driver.exit_of(1)["why"] in ("unknown", "cancel")
        assert driver.exit_of(3)["why"] == "recall"
    else:
        assert driver.exit_of(3)["o"] == "x\n"
    gates[1].touch()
    assert driver.exit_of(4)["why"] == "recall"


@pytest.mark.parametrize("is_late", [False, True], ids=["waits", "comes later"])
def test_what_left_nothing_is_nothing_and_what_was_lost_is_missed(
    driver: Driver, root: Path, tmp_path: Path, is_late: bool
) -> None:
    gate = tmp_path / "gate"
    first = [
        order(1, gated(gate, ":"), home=True),
        order(2, gated(gate, "echo x > $OUTPUT/x"), home=True),
        {"slots": 2},
    ]
    reads = order(3, "ls $INPUT", 1, 2, input=[{**of(number), "awaited": True} for number in (1, 2)])
    misses = order(4, "echo never", 2, input=[{**of(2), "awaited": True}])
    driver.say(*first, *([] if is_late else [reads]))
    gate.touch()
    driver.exit_of(1)
    driver.seen("collected", 2)
    if is_late:
        driver.say(reads)
    assert driver.exit_of(3)["o"] == "x\n"
    driver.say({"forget": [2]})
    kept = root / "kept" / "2" / "output" / "x"
    kept.chmod(0o600)  # what is kept is read-only, for all but root
    kept.write_text("changed")
    driver.say(misses)
    line = driver.exit_of(4)
    assert line["why"] == "stage_in"


def test_one_that_is_not_here_any_more_is_fetched_from_its_address(driver: Driver, web: WebServer) -> None:
    web.add("/far", b"far\n")
    driver.say(order(1, "cat $INPUT/far", input=[of(77, "far", f"{web.url}/far")]))
    assert driver.exit_of(1)["o"] == "far\n"
    driver.say(order(2, "cat $INPUT/*", input=[of(77, "x", "/etc/passwd")]))
    line = driver.exit_of(2)
    assert line["why"] == "stage_in" and "/etc/passwd" in line["note"]


def test_actions_are_done_and_what_is_not_there_is_said_in_words(driver: Driver, root: Path, tmp_path: Path) -> None:
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"x\n"))
    driver.say(order(1, f"mkdir $OUTPUT/d; cp {tmp_path}/x.gz $OUTPUT/d", home="always"))
    driver.seen("collected", 1)
    driver.say(order(2, "cat $INPUT/x", input=[of(1, "d/x.gz", "/none/x.gz|gunzip")]),
               order(3, "true", input=[of(1, "e")]), order(4, "ls $INPUT/sub", input=[of(1, "d", "/none/d|mv:sub")]))  # fmt: skip
    assert driver.exit_of(2)["o"] == "x\n" and driver.exit_of(4)["o"] == "x.gz\n"
    line = driver.exit_of(3)
    assert (
        line["error"] == "NotFound" and "the output of execution 1/e" in line["note"] and str(root) not in line["note"]
    )


def test_what_is_here_is_not_waited_for_as_a_parcel(driver: Driver) -> None:
    driver.script(1, "echo x > $OUTPUT/x", home=True)
    driver.seen("collected", 1)
    driver.say(order(2, "cat $INPUT/x", input=[{**of(1, "x", "/laptop/x"), "parcel": "2.0"}]))
    assert driver.exit_of(2)["o"] == "x\n"
    driver.say(order(3, "cat $INPUT/x", input=[{**of(77, "x", "/laptop/x"), "parcel": "3.0"}]))
    driver.seen("stage", 3)
    assert driver.held()["held"] == {"3": "staging"}
    driver.say({"cancel": 3})
    driver.exit_of(3)


def test_who_changes_what_another_left_is_told_and_nobody_gets_it_any_more(driver: Driver, root: Path) -> None:
    driver.script(1, "echo x > $OUTPUT/x", home=True)
    driver.seen("collected", 1)
    driver.say({"forget": [1]}, order(2, "chmod u+w $INPUT/x; echo more >> $INPUT/x", input=[of(1)]))
    driver.exit_of(2)
    note = driver.seen("note", 2)
    assert "the output of execution 1/x: was changed while this task had it" in note["text"]
    assert not (root / "kept" / "1").exists()


def test_an_output_that_was_published_is_kept_by_a_worker_elsewhere_if_it_was_not_moved(
    driver: Driver, root: Path, tmp_path: Path
) -> None:
    for number, wanted in ((1, []), (2, ["2"])):  # beside other files it goes file by file
        place = tmp_path / f"place{number}"
        if number == 2:
            driver.say({"lease": 1000})
        place.mkdir()
        (place / "theirs").touch()
        driver.say(order(number, "echo x > $OUTPUT/x", output=str(place), owner=f"f:{number}", overwrite=True))
        assert driver.seen("collected", number)["ok"] and (place / "x").exists()
        assert os.listdir(root / "kept") == wanted
    driver.say(order(3, "echo y > $OUTPUT/y", output=str(tmp_path / "place3"), owner="f:3"))
    assert driver.seen("collected", 3)["ok"] and os.listdir(root / "kept") == ["2"]
    driver.say(order(4, "cat $INPUT/x", 1, 2, input=[of(2, "x", "far://bucket/x")]))
    assert driver.exit_of(4)["o"] == "x\n" and not (root / "kept" / "2" / "unsent").exists()


@pytest.mark.parametrize(
    ("more", "says"),
    [({"after": 3}, "after: "), ({"after": ["../x"]}, "after: an execution id"), ({"input": [{"uri": "/x"}]}, "parcel of"),
     ({"input": [{"uri": "/x", "of": "a/b"}]}, "of: an execution id"), ({"input": [{"of": 1}]}, "uri of an item"),
     ({"input": [{"uri": "/x", "of": 1, "below": "a/../../b"}]}, "leads out"),
     ({"resource": [{"uri": "/x", "of": 1, "below": "/b"}]}, "leads out")],
)  # fmt: skip
def test_an_order_that_waits_for_nonsense_is_refused(driver: Driver, more: dict[str, Any], says: str) -> None:
    line = driver.run(1, "true", **more)
    assert (line["why"], line["code"]) == ("spawn", 126) and says in line["note"]


class Queue:
    """As much of the keeper's tasks as conditions need."""

    def __init__(self) -> None:
        self.queue: dict[str, Order] = {}
        self.running: dict[str, Any] = {}
        self.owed: dict[str, Any] = {}
        self.ended: dict[str, int] = {}
        self.went: list[str] = []
        self.given_back: list[str] = []
        self.conditions = Conditions(self, set(), set())  # type: ignore[arg-type]

    def add(self, key: str, *after: str) -> None:
        order = Order({"order": key, "argv": ["true"], "after": list(after)})
        self.queue[key] = order
        if self.conditions.take(order):
            self.go_on(order)

    def go_on(self, order: Order) -> None:
        self.went.append(order.key)

    def never_ran(self, identity: str, key: str, why: str, code: int | None, note: str) -> None:
        assert why == "recall"
        self.given_back.append(key)
        self.ended[key] = 0
        self.conditions.ended(key, False)

    def end(self, key: str, is_well: bool) -> None:
        self.queue.pop(key)
        self.ended[key] = 0
        self.conditions.ended(key, is_well)


def test_a_long_chain_is_given_back_to_its_end() -> None:
    tasks = Queue()
    tasks.add("0")
    for number in range(1, 5000):
        tasks.add(str(number), str(number - 1))
    tasks.end("0", False)
    assert tasks.given_back == [str(number) for number in range(1, 5000)]
    assert not tasks.queue and not tasks.conditions.open


def test_what_was_waited_for_is_not_asked_for_again_once_it_is_forgotten() -> None:
    tasks = Queue()
    tasks.add("1")
    tasks.add("2")
    tasks.add("3", "1", "2")
    tasks.end("1", True)
    assert tasks.queue["3"].raw["after"] == ["2"] and tasks.went == ["1", "2"]
    tasks.end("2", True)
    assert tasks.queue["3"].raw["after"] == [] and tasks.went == ["1", "2", "3"]


def test_a_new_keeper_knows_who_did_not_end_well() -> None:
    facts = Facts(1)
    lines: list[dict[str, Any]] = [
        {"k": "exit", "id": 1, "code": 0, "why": None}, {"k": "exit", "id": 2, "code": 1, "why": None},
        {"k": "exit", "id": 3, "code": 0, "why": "exists"}, {"k": "exit", "id": 4, "code": None, "why": "recall"},
        {"k": "exit", "id": 5, "code": 0, "why": None, "collect": True}, {"k": "collected", "id": 5, "ok": False},
        {"k": "carry", "running": [], "slots": 1, "acked": 0, "owed": [{"id": 6, "output": "/x", "failed": True}]},
    ]  # fmt: skip
    for at, line in enumerate(lines):
        facts.read(at, line)
    facts.read(9, {"k": "collected", "id": 7, "ok": True})
    assert facts.failed == {"2", "4", "5", "6"} and facts.left_output == {"7"}
    assert SimpleNamespace(**facts.owed).__dict__.keys() == {"6"}
