"""Twenty different tasks, a driver's stand-in that insists, and what must hold whoever is killed meanwhile.

The driver repeats what was not confirmed and never believes anything but the journal, as the engine's does. `problems`
is empty when all is well; the checks are collected rather than asserted, so that a test can show that they do notice.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scitq.remote import local
from scitq.remote.agent.manifest import NAME, parse
from tests.remote.client import Driver, Reply, ndjson

DEADLINE_S = 40.0
SLOTS = 2
BEGIN = "echo $SCITQ_EXECUTION >> {ran}; "
LARGE = "seq 1 20000; seq 1 5000 >&2"
CANCELLED = (13, 14)


def _text(number: int) -> str:
    """What task `number` does; its bytes are known beforehand, see `_bytes`."""
    if number in (8, 9):
        return LARGE
    if number in (10, 11):
        return "mkdir $OUTPUT/sub; seq 1 1000 > $OUTPUT/sub/numbers; echo made"
    if number == 12:
        return "echo mine > $OUTPUT/both; for i in 1 2 3 4 5 6; do echo $i; sleep 0.05; done"
    if number in CANCELLED:
        return "sleep 60"
    if number == 16:
        return "echo left > $OUTPUT/left; echo kept > file; echo scratch > $TEMP/file; echo failing; exit 1"
    if number == 17:
        return "sleep 0.05 & echo parent"
    if number == 18:
        return ":"
    return f"echo out {number}; echo err {number} >&2; exit {number % 3}"


def _bytes(number: int) -> tuple[bytes, bytes]:
    """Everything that task `number` writes to its two streams when it runs to its end."""
    if number in (8, 9):
        return tuple("".join(f"{n}\n" for n in range(1, most + 1)).encode() for most in (20000, 5000))  # type: ignore[return-value]
    fixed = {
        10: b"made\n",
        11: b"made\n",
        12: b"1\n2\n3\n4\n5\n6\n",
        13: b"",
        14: b"",
        16: b"failing\n",
        17: b"parent\n",
    }
    if number in fixed or number in (15, 18):
        return fixed.get(number, b""), b""
    return b"out %d\n" % number, b"err %d\n" % number


class Patient(Driver):
    """Takes the word that no keeper can be had for a lost connection, as the engine's driver does: it asks again. Whoever kills
    four in a row before they have begun, on a busy machine, has an agent say so."""

    def ask(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Reply:
        reply = super().ask(method, path, body, headers)
        if reply.status == 503:
            raise ConnectionError("no keeper yet")
        return reply


class Scenario:
    """One run of the twenty tasks."""

    def __init__(self, folder: Path, command: Sequence[str] | None = None) -> None:
        self.folder = folder
        self.root = folder / "worker"
        self.ran = folder / "ran"
        self.ran.touch()
        self.command = command
        self.driver = Patient(self.root)
        self.problems: list[str] = []
        self.confirmed: set[int] = set()
        self.all_exits: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self.collected: dict[str, dict[str, Any]] = {}
        self.keepers = 0
        self.may_give_back = False
        """Whether an execution may end as `unstarted`, which this run has to expect."""
        self.streams: dict[int, tuple[bytes, bytes]] = {}
        (folder / "place11").mkdir()
        (folder / "place11" / "old").touch()
        (folder / "place12").mkdir()
        for name in ("both", "theirs"):
            (folder / "place12" / name).write_text("theirs\n")
        self.orders = {number: self._order(number) for number in range(20)}

    def _order(self, number: int) -> dict[str, Any]:
        order: dict[str, Any] = {"order": number, "task": f"task {number}", "grace": 1}
        if number == 15:
            return {**order, "argv": ["no-such-program"]}
        if number == 11:
            order["deliver"] = str(self.folder / "place11")
        if number in (10, 12, 16):
            order |= {"output": str(self.folder / f"place{number}"), "owner": f"test:{number}"}
            order["failed"] = f"{order['output']}.failed"
        if number == 12:
            order["overwrite"] = True
        return {**order, "script": BEGIN.format(ran=self.ran) + _text(number)}

    # Talking, with patience.

    def insist(self, call: Callable[[], Any]) -> Any:
        """Do it, starting a new agent as often as needed."""
        while True:
            try:
                return call()
            except OSError:
                self.driver.close()
                assert time.monotonic() < self.deadline, f"no end; last events: {self.driver.lines[-6:]}"
                local.ensure(self.root, command=self.command)

    def say(self, *commands: dict[str, Any]) -> None:
        """Say it until it is confirmed."""

        def once() -> None:
            reply = self.driver.ask("POST", "/commands", ndjson(commands))
            if reply.status != 200:
                self.problems.append(f"commands answered with {reply}")

        self.insist(once)
        self.confirmed.update(command["order"] for command in commands if "order" in command)

    def listen(self, wait: float = 1) -> None:
        """Take in new events."""
        before = self.driver.journal, self.driver.offset
        for line in self.insist(lambda: self.driver.poll(wait)):
            if line["k"] == "exit":
                seen = self.all_exits.setdefault((self.driver.journal, str(line["id"])), [])
                seen.append(line)
                if len(seen) > 1:
                    self.problems.append(f"two exit lines: {seen}")
            elif line["k"] == "collected":
                if str(line["id"]) in self.collected:
                    self.problems.append(f"collected twice: {line}")
                self.collected[str(line["id"])] = line
            elif line["k"] == "keeper":
                self.keepers += 1
                if self.keepers > 1:
                    self.check_held()
            elif line["k"] == "bad":
                self.problems.append(f"a command was refused: {line}")
        if before[0] not in ("", self.driver.journal):
            self.problems.append("the journal was replaced")

    def check_held(self) -> None:
        """What was confirmed is still known, also to a new keeper."""
        answer = self.insist(self.driver.held)
        while self.driver.journal == answer["journal"] and self.driver.offset < answer["end"]:
            self.listen(0.1)  # what is held no more has its exit line before that offset
        for number in sorted(self.confirmed):
            if str(number) not in answer["held"] and str(number) not in self.driver.exits:
                self.problems.append(f"order {number} was confirmed and is gone")
                self.confirmed.discard(number)
                self.say(self.orders[number])

    def is_over(self) -> bool:
        """Whether every execution has ended and every output is where it belongs."""
        exits = self.driver.exits
        owed = {key for key, line in exits.items() if line["collect"]}
        return len(exits) == len(self.orders) and owed <= set(self.collected)

    # The run.

    def run(self) -> None:
        """Order, cancel, wait, read, forget, stop; then look at what happened."""
        self.deadline = time.monotonic() + DEADLINE_S
        local.ensure(self.root, command=self.command)
        self.say({"slots": SLOTS})
        for start in (0, 7, 14):
            self.say(*(self.orders[number] for number in range(start, min(20, start + 7))))
        self.say({"cancel": 14})
        has_cancelled = False
        while not self.is_over():
            if time.monotonic() > self.deadline:
                missing = sorted(set(map(str, self.orders)) - set(self.driver.exits))
                self.problems.append(f"no end: {missing} missing, {self.collected} collected")
                break
            self.listen()
            if not has_cancelled and "13" in self.ran.read_text().split():
                self.say({"cancel": 13})
                has_cancelled = True
        self.read_streams()
        self.say(*({"forget": [number]} for number in self.orders))
        if self.insist(self.driver.held)["held"]:
            self.problems.append("something is still held after the end")
        left = [path.name for path in (self.root / "exec").iterdir()]
        if left:
            self.problems.append(f"left in exec after forgetting: {left}")
        self.driver.close()
        local.stop(self.root)
        self.check()

    def read_streams(self) -> None:
        """All bytes of all executions, from the exit line or from the agent."""
        for key in list(self.driver.exits):
            self.streams[int(key)] = (self.read(key, "out"), self.read(key, "err"))

    def read(self, key: str, stream: str) -> bytes:
        """One stream, whole."""
        data: bytes = self.insist(lambda: self.driver.output(key, stream))
        return data

    def check(self) -> None:
        """What must hold at the end."""
        ran = self.ran.read_text().split()
        for number in self.orders:
            if ran.count(str(number)) > 1:
                self.problems.append(f"execution {number} ran {ran.count(str(number))} times")
        unknown = [key for key, line in self.driver.exits.items() if line["why"] == "unknown"]
        if len(unknown) > SLOTS * max(0, self.keepers - 1):
            self.problems.append(f"{unknown} unknown after {self.keepers - 1} deaths of keepers")
        for key, line in self.driver.exits.items():
            self.check_one(int(key), line, ran.count(key))

    def check_one(self, number: int, line: dict[str, Any], ran: int) -> None:
        """Code and bytes of one execution."""
        expected, got = _bytes(number), self.streams.get(number, (b"", b""))
        if [len(data) for data in got] != [line["on"], line["en"]]:
            self.problems.append(
                f"{number}: {[len(data) for data in got]} bytes stored, {line['on'], line['en']} announced"
            )
        if line["why"] == "unknown":
            if not all(whole.startswith(part) for whole, part in zip(expected, got, strict=True)):
                self.problems.append(f"{number}: foreign bytes in {got}")
            return
        if line["why"] == "unstarted" and self.may_give_back:
            if ran:
                self.problems.append(f"{number}: given back as never started, and ran")
            return
        if number in CANCELLED:
            if line["why"] != "cancel":
                self.problems.append(f"{number} was cancelled and ended by itself: {line}")
            return
        right = {15: (127, "spawn"), 16: (1, None)}.get(number, (number % 3 if number < 8 or number == 19 else 0, None))
        if (line["code"], line["why"]) != right:
            self.problems.append(f"{number}: {line['code'], line['why']} instead of {right}")
        if ran != (0 if number == 15 else 1):
            self.problems.append(f"{number} ended as if it had run, and ran {ran} times")
        if [hashlib.sha256(data).digest() for data in got] != [hashlib.sha256(data).digest() for data in expected]:
            self.problems.append(f"{number}: other bytes stored than written: {got[0][:80]!r} {got[1][:80]!r}")
        if number in (12, 16):
            place = self.folder / ("place12" if number == 12 else "place16.failed")
            texts = {path.name: path.read_text() for path in place.iterdir()} if place.exists() else {}
            manifest = parse(texts.pop(NAME, "").encode())
            right_texts = {"both": "mine\n", "theirs": "theirs\n"} if number == 12 else {"left": "left\n"}
            if (
                texts != right_texts
                or manifest is None
                or not manifest.is_complete
                or not self.collected[str(number)]["ok"]
            ):
                self.problems.append(f"{number}: brought {texts}, {manifest}, {self.collected.get(str(number))}")
        if number in (10, 11):
            place = self.folder / f"place{number}"
            names = sorted(path.name for path in place.iterdir() if path.name != NAME) if place.exists() else []
            if (place / NAME).exists() != (number == 10):
                self.problems.append(f"{number}: a manifest where none belongs, or none: {names}")
            if names != ["sub"] or not self.collected[str(number)]["ok"]:
                self.problems.append(f"{number}: delivered {names}, {self.collected.get(str(number))}")
            elif (place / "sub" / "numbers").read_text().split() != [str(n) for n in range(1, 1001)]:
                self.problems.append(f"{number}: delivered a part")


def plan(folder: Path, role: str, number: int, when: str, **more: Any) -> tuple[list[str], Path]:
    """The command for an agent that dies (or fails) there, and the log that says whether it did."""
    log = folder / "hits"
    file = folder / "plan.json"
    file.write_text(json.dumps({"role": role, "number": number, "when": when, "log": str(log), **more}))
    launcher = Path(__file__).resolve().parents[1] / "crash" / "faults.py"
    return [sys.executable, str(launcher), str(file)], log
