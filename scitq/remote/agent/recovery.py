"""How a new keeper learns from the journal and the order file what the one before it was doing.

Rules: an execution with a start line is never started again; an exit that nobody saw is `unknown`, never guessed, and
only when the process is really gone; an order without a start line goes on as if nothing had happened.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

from scitq.remote.agent import containers, processes
from scitq.remote.agent.cgroups import Box
from scitq.remote.agent.journal import Journal
from scitq.remote.agent.orders import HOME, BadOrder, Order, OrderFile, key_of
from scitq.remote.agent.slots import Slot, discard
from scitq.remote.agent.task import Task
from scitq.remote.agent.tasks import Tasks


class Facts:
    """What the retained segments say."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.started: dict[str, dict[str, Any]] = {}
        """Start lines (with pid, if known) that have no exit line."""
        self.ended: dict[str, int] = {}
        self.owed: dict[str, dict[str, Any]] = {}
        self.left: dict[str, tuple[int, float, list[str]]] = {}
        """Process groups that outlived their execution and were being ended: their grace, their control group if any."""
        self.unwanted: set[str] = set()
        """Executions that the driver wants to see nothing of, once they are over."""
        self.failed: set[str] = set()
        """Of the ended ones, those that did not end well, or whose output did not arrive."""
        self.left_output: set[str] = set()
        """Of those that did, the ones whose output was brought somewhere."""
        self.stages: set[str] = set()
        """Executions that the driver was told are being staged."""
        self.acked = 0
        self.highest = 0
        """The highest number that an execution ever had here."""
        self.last_exit = 0
        self.is_fresh = False
        """Whether there was no journal at all."""

    def read(self, at: int, line: dict[str, Any]) -> None:
        """Take in one line of the journal."""
        kind = line.get("k")
        if type(line.get("id")) is int:
            self.highest = max(self.highest, line["id"])
        if kind == "start":
            self.started[key_of(line["id"])] = line
        elif kind == "pid":
            self.started.get(key_of(line["id"]), {}).update(pid=line["pid"], b=line["b"])
        elif kind == "end":
            key = key_of(line["id"])
            self.started.get(key, {}).update(why=line["why"], grace=line["grace"])
            if key in self.owed:
                self.owed[key]["cancel"] = True
        elif kind == "exit":
            key = key_of(line["id"])
            self.started.pop(key, None)
            self.ended[key] = at
            self.last_exit = at + 1
            if line.get("code") != 0 or line.get("why") not in (None, "exists"):
                self.failed.add(key)
            if line.get("left"):
                self.left[key] = (int(line["left"]), float(line["grace"]), line.get("box", []))
            if line.get("collect"):
                self.owed[key] = {name: line[name] for name in ("id", "deliver", *HOME) if name in line}
        elif kind == "drop":
            self.unwanted.add(key_of(line["id"]))
        elif kind == "stage":
            self.stages.add(key_of(line["id"]))
        elif kind == "collected":
            self.owed.pop(key_of(line["id"]), None)
            self.last_exit = at + 1
            if not line.get("ok"):
                self.failed.add(key_of(line["id"]))
            elif not line.get("failed"):
                self.left_output.add(key_of(line["id"]))
        elif kind == "slots":
            self.slots = int(line["n"])
        elif kind == "acked":
            self.acked = int(line["to"])
        elif kind == "carry":
            self.slots = int(line["slots"])
            self.acked = int(line["acked"])
            self.highest = max(self.highest, int(line.get("highest", 0)))
            for known in line["running"]:
                key = key_of(known["id"])
                if key not in self.ended:
                    self.started[key] = {**known, **self.started.get(key, {})}
            self.unwanted.update(line.get("unwanted", ()))
            for owed in line["owed"]:
                if key_of(owed["id"]) not in self.ended:
                    self.owed[key_of(owed["id"])] = owed
                    self.ended[key_of(owed["id"])] = at
                    if owed.get("failed"):
                        self.failed.add(key_of(owed["id"]))


def open_journal(folder: str, slots: int) -> tuple[Journal, Facts]:
    """The journal to go on with, and what it says. After a reboot: a new one that repeats every exit of the old.

    A power cut may have taken the tail of the journal, so offsets that the driver has stored may not exist any more:
    only a new identity makes it ask again from the beginning. It applies exits by execution, so repeats do no harm.
    """
    boot = processes.boot_id()
    journal, lines = Journal.open(folder, boot)
    facts = Facts(slots)
    for at, line in lines:
        try:
            facts.read(at, line)
        except (KeyError, ValueError, TypeError):
            continue  # damaged on disk in a way that is still JSON: passed over like any other damaged line
    if journal is None:
        facts.is_fresh = True
    if journal is None or journal.boot != boot:
        generation = 0 if journal is None else journal.generation + 1
        again = [json.dumps(line) + "\n" for _, line in lines if line.get("k") in ("exit", "collected")]
        carry = {"k": "carry", "running": list(facts.started.values()), "slots": facts.slots, "acked": 0}
        more = {"owed": list(facts.owed.values()), "unwanted": list(facts.unwanted), "highest": facts.highest}
        again.append(json.dumps({**carry, **more}) + "\n")
        os.close(Journal.create(folder, generation, boot, again).file)
        is_fresh = facts.is_fresh
        facts = Facts(slots)
        facts.is_fresh = is_fresh
        journal, lines = _reopened(folder, boot)
        for at, line in lines:
            facts.read(at, line)
        for started in facts.started.values():
            started["pid"] = -1  # of another boot
    journal.add(json.dumps({"k": "keeper", "pid": os.getpid(), "at": round(time.time(), 3)}))
    journal.flush()
    return journal, facts


def _reopened(folder: str, boot: str) -> tuple[Journal, list[tuple[int, dict[str, Any]]]]:
    journal, lines = Journal.open(folder, boot)
    assert journal is not None
    return journal, lines


def resume(tasks: Tasks, facts: Facts) -> None:
    """Adopt started executions that still run, and end those that do not; clear all other slots."""
    journal = tasks.journal
    mine: dict[int, Slot] = {}
    tasks.stagings.held.update(key for key, started in facts.started.items() if started.get("staged"))
    for key, started in facts.started.items():
        pid = _alive(key, started, journal.id)
        number = int(started["slot"])
        slot = Slot(tasks.folder, number)
        if os.path.isdir(f"exec/{key}"):
            slot.move_to(f"exec/{key}")  # handed over, and killed before that was written down
        try:
            slot.open(is_whole=False)
        except OSError:
            slot.move_to(f"slot/{number}")
            slot.make()  # somebody deleted it; the execution still needs a place in our books
        if pid and not slot.is_given:
            mine[number] = slot
            tasks.endings.adopt({**started, "pid": pid}, slot)
        elif containers.is_apart(started.get("image")) and not slot.is_given and started.get("pid") != -1:
            if tasks.endings.take_over(started, slot):
                mine[number] = slot
        else:
            task = Task({**started, "pid": started.get("pid", -1), "m": time.monotonic()}, slot)
            task.is_adopted = True
            tasks.lost(task)
    for key in list(facts.unwanted - tasks.running.keys()):
        tasks.sweep(key)
    for key, (group, grace, box) in facts.left.items():
        if box and Box(box).members():
            tasks.endings.leftovers.end(key, group, grace, Box(box))
            tasks.limits.full.append(Box(box))
        elif any(each.group == group for each in processes.with_execution(key, journal.id).values()):
            tasks.endings.leftovers.end(key, group, grace)
    tasks.limits.begin(tasks.running)
    # What the journal now says about outputs must be written before the slots that hold them are cleared.
    if not journal.flush():
        raise OSError(28, "the disk is full")
    for slot in tasks.free:
        slot.close()
    tasks.free.clear()
    for name in os.listdir("slot"):
        if not name.isdigit() or int(name) not in mine:
            discard(f"slot/{name}")


def _alive(key: str, started: dict[str, Any], journal: str) -> int:
    """The pid of a started execution's process if it still runs, else 0."""
    pid = int(started.get("pid", 0))
    if pid > 0:
        return pid if processes.is_execution(pid, started["b"], key, journal) else 0
    found = processes.find(key, journal, started["b"]) if pid == 0 else None
    facts = processes.facts(found) if found else None
    if facts is None or found is None:
        return 0
    if facts.started >= 0:
        started["b"] = facts.started
    return found


def requeue(tasks: Tasks, orders: OrderFile, facts: Facts) -> None:
    """Queue again every stored order that has neither started nor ended."""
    if facts.is_fresh and orders.size:
        orders.clear()  # without the journal nobody knows which of them ran: the driver has to say again
    for line in orders.read():
        try:
            order = Order(json.loads(line))
        except (ValueError, KeyError, BadOrder, TypeError):
            continue
        if not tasks.is_known(order.key):
            tasks.enqueue(order, is_told=order.key in facts.stages)
