"""The executions a keeper has: queued, running, ended but not yet acknowledged; from order to exit line.

Every move is written to the journal before it can be seen anywhere else: the start before the spawn, the exit before
the slot's files are used again. The loop around this is `keeper`; ending by force is `endings`.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import deque
from typing import Any

from scitq.remote.agent import containers, lines, machine, processes, root
from scitq.remote.agent.conditions import Conditions
from scitq.remote.agent.endings import Endings
from scitq.remote.agent.journal import Journal
from scitq.remote.agent.limits import Limits
from scitq.remote.agent.lines import Exit
from scitq.remote.agent.orders import Order, key_of
from scitq.remote.agent.polite import Polite
from scitq.remote.agent.slots import Slot, discard, has_output
from scitq.remote.agent.spawn import RESET, CannotSpawn, NoRoom, Spawner, environment, own_base
from scitq.remote.agent.stagings import Stagings
from scitq.remote.agent.task import Task

INLINE_BYTES = 16 << 10
FULL_BYTES = 1 << 20
"""A disk with less room than this is full for most programs."""
PAUSE_S = 1.0
"""For how long nothing is started after this machine could not make a folder or a process."""


class Tasks:
    """All executions of this root, and the run slots."""

    def __init__(self, folder: str, journal: Journal, facts: Any) -> None:
        self.folder = folder
        self.journal = journal
        self.slots: int = facts.slots
        self.queue: dict[str, Order] = {}
        self.waiting: deque[str] = deque()
        """Keys of the queue that may start, in order of arrival (or of being staged); those cancelled are passed over."""
        self.running: dict[str, Task] = {}
        self.pids: dict[int, Task] = {}
        """Running tasks that are our own children."""
        self.ended: dict[str, int] = facts.ended
        """Offset of the exit line of every execution that ended in a retained segment, oldest first."""
        self.owed: dict[str, dict[str, Any]] = facts.owed
        """Exits whose output the agent must still collect."""
        self.unwanted: set[str] = facts.unwanted
        """Executions that nobody wants to see the folder of once they are over."""
        self.left: list[dict[str, Any]] = []
        """Successes that left a folder, not yet told to the agent."""
        self.highest: int = facts.highest
        """The highest number that an execution ever had here: no other one may get one up to it."""
        self.acked: int = facts.acked
        self.noted_ack: int = facts.acked
        self.last_exit: int = facts.last_exit
        self.started = 0
        """How many processes were started."""
        self.unrung = 0
        """Ends that no reader has been told of yet."""
        self.unrung_since = 0.0
        self.is_urgent = False
        """Whether a line waits that must be written in this round."""
        self.free: list[Slot] = []
        self.reserved: dict[int, Slot] = {}
        """Slots taken for orders that are about to start."""
        self.pause_until = 0.0
        self.identity = root.identity(folder)
        self.spawner = Spawner(self.identity)
        self.base = own_base()
        self.cpus = machine.cpus()
        self.endings = Endings(self)
        self.limits = Limits(journal.id)
        self.stagings = Stagings(self)
        self.conditions = Conditions(self, facts.failed, facts.left_output)
        self.polite = Polite(self)

    def is_known(self, key: str) -> bool:
        """Whether an order of this id was taken before."""
        return key in self.queue or key in self.running or key in self.ended

    def enqueue(self, order: Order, *, is_told: bool = False) -> None:
        """Queue a new order: to be started when there is room, or to wait for others, or to be staged first."""
        self.queue[order.key] = order
        if type(order.id) is int and order.id > self.highest:
            self.highest = order.id
        if not order.after or self.conditions.take(order):
            self.go_on(order, is_told=is_told)

    def go_on(self, order: Order, *, is_told: bool = False) -> None:
        """An order of the queue that waits for no other."""
        if order.is_staged:
            self.stagings.take(order, is_told=is_told)
        else:
            self.waiting.append(order.key)

    # Starting.

    def launch(self, may_start: bool = True) -> bool:
        """Start what fits, in order of arrival; then everything due is in the journal. False: the disk is full."""
        while may_start and self.queue and self.polite.why is None and not self._is_pausing():
            batch = self._next_batch()
            if not batch:
                break
            if not self._start(batch):
                return False
        if self.is_urgent:
            self.is_urgent = not self.journal.flush()
        return not self.is_urgent

    def _next_batch(self) -> list[tuple[Order, Slot]]:
        """The orders at the head of the queue that fit into the free run slots. One larger than all of them runs alone."""
        batch: list[tuple[Order, Slot]] = []
        taken = sum([task.slots for task in self.running.values()])
        while self.waiting and taken < self.slots:
            order = self.queue.get(self.waiting[0])
            if order is None:  # cancelled meanwhile
                self.waiting.popleft()
                continue
            if taken and taken + order.slots > self.slots:
                break
            del self.queue[self.waiting.popleft()]
            batch.append((order, self._take_slot()))
            taken += order.slots
        return batch

    def _is_pausing(self) -> bool:
        return self.pause_until > 0 and time.monotonic() < self.pause_until

    def _pause(self) -> None:
        self.pause_until = time.monotonic() + PAUSE_S
        self.endings.wake(self.pause_until, "")

    def _take_slot(self) -> Slot:
        if self.free:
            slot = self.free.pop()
        else:
            used = {task.slot.number for task in self.running.values()} | self.reserved.keys()
            slot = Slot(self.folder, next(number for number in range(len(used) + 1) if number not in used))
        self.reserved[slot.number] = slot
        return slot

    def _start(self, batch: list[tuple[Order, Slot]]) -> bool:
        """Start lines first, one write for all; then the processes."""
        journal = self.journal
        if any(slot.is_dirty for _, slot in batch) and not journal.flush():
            for order, slot in reversed(batch):  # the bytes in the slots are nowhere else yet
                self.queue[order.key] = order
                self.waiting.appendleft(order.key)
                self._free(slot)
            return False
        ready = [(order, slot) for order, slot in batch if self._is_prepared(order, slot)]
        at, b, m = time.time(), processes.boot_time(), time.monotonic()
        for order, slot in ready:
            if order.limit is not None and not containers.is_apart(order.image):
                order.box = self.limits.box(order.key, order.limit)
            journal.add(lines.start_line(order, slot.number, at, b, m))
        if not journal.flush():
            # The lines will be written some time. These orders are not started, and the journal says so as well.
            for order, slot in ready:
                self.never_ran(order.id, order.key, "unstarted", None, "the worker's disk is full")
                self._free(slot)
            return False
        self.is_urgent = False
        for order, slot in ready:
            self._spawn(order, slot, at, m)
        return True

    def _is_prepared(self, order: Order, slot: Slot) -> bool:
        try:
            if slot.is_dirty:
                slot.clean()
            elif not slot.is_open:
                slot.make()
        except OSError as error:
            root.say(self.folder, "keeper", f"{slot.folder}: {error}")
            note = f"the worker cannot make {slot.folder}: {error.strerror}"
            self.never_ran(order.id, order.key, "unstarted", None, note)
            slot.close()
            self._free(slot)
            self._pause()
            return False
        return True

    def _spawn(self, order: Order, slot: Slot, at: float, m: float) -> None:
        task = Task({"id": order.id, "at": at, "b": processes.boot_time(), "m": m}, slot)
        task.timeout, task.grace, task.cap, task.deliver = order.timeout, order.grace, order.cap, order.deliver
        task.slots, task.is_staged, task.home = order.slots, order.is_staged, order.home
        task.image = order.image
        cpu = max(1, self.cpus // max(1, self.slots))
        if order.box is not None:
            task.box = order.box
            for problem in order.box.make():
                root.say(self.folder, "keeper", f"execution {order.key}: {problem}")
        try:
            if order.is_staged:
                self.stagings.place(order, slot)
            env = environment(order, slot, self.base, self.journal.id, cpu)
            task.pid = self.spawner.start(order, slot, env, self.polite.nice)
        except CannotSpawn as error:
            self._finish(task, Exit(error.code, None, "spawn", error.note, None))
            return
        except NoRoom as error:
            self._finish(task, Exit(None, None, "unstarted", str(error), None))
            self._pause()
            return
        except OSError as error:
            note = f"what was staged cannot be put in its place: {error.strerror}"
            self._finish(task, Exit(None, None, "unstarted", note, None))
            return
        self.reserved.pop(slot.number, None)
        self.started += 1
        self.polite.stand_back(task.pid)
        self.running[task.key] = self.pids[task.pid] = task
        self.journal.add(lines.pid_line(task))
        if task.timeout is not None:
            self.endings.wake(task.m + task.timeout, task.key)

    def _free(self, slot: Slot) -> None:
        self.reserved.pop(slot.number, None)
        if slot.number < self.slots and slot.is_open:
            self.free.append(slot)
        else:
            slot.close()

    def set_slots(self, number: Any) -> None:
        """How many executions may run at once from now on; those beyond it end in peace."""
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= 10_000:
            raise ValueError("slots must be a number from 0 to 10000")
        if number != self.slots:
            self.slots = number
            self.journal.add(f'{{"k":"slots","n":{number}}}')
            self.is_urgent = True
            keep = [slot for slot in self.free if slot.number < number]
            for slot in self.free:
                if slot.number >= number:
                    slot.close()
            self.free = keep

    # Ending.

    def reap(self) -> None:
        """Take notice of every child that ended: tasks of ours, and orphans of theirs."""
        found = []
        leftovers = self.endings.leftovers
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            leftovers.strangers.pop(pid, None)
            task = self.pids.pop(pid, None)
            if task is not None:
                found.append((task, status, usage))
        leftovers.reaped()
        if self.limits.full:
            self.limits.retry()
        for task, status, usage in found:
            if task.is_apart:
                self.container_over(task)
            elif os.WIFSIGNALED(status):
                self._finish(task, Exit(None, os.WTERMSIG(status), task.why, None, usage))
            else:
                self._finish(task, Exit(os.WEXITSTATUS(status), None, task.why, None, usage))

    def container_over(self, task: Task) -> None:
        """The process that stood for a container is gone: as it was told to, or killed. Then another one goes on."""
        said = containers.ending(task.key)
        if said is not None:
            end = Exit(said["code"], said.get("sig"), task.why or said["why"], said["note"], None)
            end.error = said.get("error")
            self._finish(task, end)
            return
        if task.again < containers.AGAIN and not task.slot.is_given and task.image is not None:
            task.again += 1
            plan = containers.adoption(task.key, task.image, self.identity, task.cap)
            try:
                task.pid = containers.spawn(plan, task.key, self.journal.id, task.slot, RESET)
            except OSError as error:
                root.say(self.folder, "keeper", f"execution {task.key}: cannot go on with its container: {error}")
            else:
                task.b, task.is_adopted, task.pidfd = processes.boot_time(), False, -1
                self.running[task.key] = self.pids[task.pid] = task
                self.journal.add(lines.pid_line(task))
                return
        self._finish(task, Exit(None, None, "unknown", "what stood for its container was killed too often", None))

    def lost(self, task: Task) -> None:
        """An adopted process is gone, and nobody saw how it ended."""
        if task.is_apart and not task.is_before_boot:
            self.container_over(task)
            return
        ending = f"; it was being ended ({task.why})" if task.why else ""
        note = f"the keeper was killed; how it ended was not seen{ending}"
        self._finish(task, Exit(None, None, "unknown", note, None))

    def _finish(self, task: Task, end: Exit) -> None:
        """The exit line of a started execution, and what becomes of its slot."""
        slot, now = task.slot, time.monotonic()
        self.running.pop(task.key, None)
        has_run = task.pid != 0
        if has_run:
            end.run = max(0.0, now - task.m)
        if task.box is not None:
            self._judge(task, end)
        if has_run and end.code and end.why is None and end.note is None and _is_full(slot.folder):
            end.note = "its worker's disk was full when it ended"  # what it said of that itself may have found no room
        is_alone = (
            not has_run or task.is_apart or not self.endings.leftovers.of(task, self.pids.keys(), self.running.keys())
        )
        end.is_left = task.key in self.endings.leftovers.groups
        is_whole = self._read_streams(task, end)
        end.is_kept = not (is_alone and is_whole) or slot.is_given
        if not end.is_kept and has_run and not slot.is_untouched():
            end.is_kept = not slot.is_empty()
        if (
            has_run
            and task.home is not None
            and end.is_success
            and ("output" in task.home or task.home.get("home") == "always")
        ):
            end.is_kept = True  # an empty one is brought home, too: the list of its files says so
        if has_run and task.image is not None and not end.is_success:
            end.is_kept = True  # its folder says what its container was, to who wants to see what went wrong
        if end.is_kept:
            end.goes = task.goes(end.is_success, end.why, has_output(slot.folder))
            try:
                slot.give(task.key)
            except OSError as error:
                root.say(self.folder, "keeper", f"{slot.folder} cannot be kept for {task.key}: {error}")
                end.note = end.note or f"its folder is gone: {error.strerror}"
                end.is_kept, end.goes = False, None
                slot.close()
        else:
            slot.is_dirty = end.on > 0 or end.en > 0
        self.record(end.line(task), now, task.key)
        if task.box is not None:
            self.limits.release(task.box)
        if end.goes is not None:
            self.owed[task.key] = {"id": task.id, **end.goes}
            self.left.append(self.owed[task.key])
        elif end.is_kept and end.is_success:
            self.left.append({"id": task.id, "inline": end.o is not None and end.e is not None})
        if end.goes is None or not end.is_success:
            self.conditions.ended(task.key, end.is_success)
        self.sweep(task.key)
        if task.is_staged and not has_run:
            slot.close()  # some of what was staged for it lies there: the next one gets a fresh folder
        self._free(slot)

    def _judge(self, task: Task, end: Exit) -> None:
        """What the system says of the end of an execution with limits."""
        assert task.box is not None
        if problem := self.limits.judge(task.box, end):
            root.say(self.folder, "keeper", f"execution {task.key}: {problem}")
        if end.why == "memory":
            task.why = end.why  # a part of it is gone: what is left of it is ended

    def sweep(self, key: str) -> None:
        """It is over, and if it brought something home that is done: what nobody wants to see goes."""
        if key in self.unwanted and key not in self.owed:
            self.unwanted.discard(key)
            with contextlib.suppress(OSError):
                discard(f"exec/{key}")

    @staticmethod
    def _read_streams(task: Task, end: Exit) -> bool:
        """What it wrote, up to the cap. Whether all of it fits in the line and the files may be used again."""
        slot = task.slot
        out, err = os.fstat(slot.out), os.fstat(slot.err)
        end.on, end.en = min(out.st_size, task.cap), min(err.st_size, task.cap)
        end.ocut, end.ecut = task.ocut or end.on < out.st_size, task.ecut or end.en < err.st_size
        if end.ocut or end.ecut:
            task.cut()
        if end.on:
            end.o = None if end.on > INLINE_BYTES else os.pread(slot.out, end.on, 0)
        if end.en:
            end.e = None if end.en > INLINE_BYTES else os.pread(slot.err, end.en, 0)
        return bool(end.o is not None and end.e is not None and out.st_nlink and err.st_nlink)

    def record(self, line: str, now: float | None = None, key: str | None = None) -> None:
        """A line that somebody waits for."""
        at = self.journal.add(line)
        if key is not None:
            self.ended[key] = at
            if key in self.stagings.held:
                self.stagings.over(key)
        self.last_exit = self.journal.tail
        self.is_urgent = True
        if not self.unrung:
            self.unrung_since = time.monotonic() if now is None else now
        self.unrung += 1

    def never_ran(
        self, identity: Any, key: str, why: str, code: int | None, note: str | None, more: dict[str, Any] | None = None
    ) -> None:
        """The exit line of an order that gets no process."""
        self.record(lines.never_ran(identity, why, code, note, more), time.monotonic(), key)
        self.conditions.ended(key, why == "exists")

    def refuse(self, identity: Any, key: str, note: str) -> None:
        """An order that cannot be right, but has an id: it ends at once."""
        self.never_ran(identity, key, "spawn", 126, note)

    def cancel(self, identity: Any, key: str, grace: float | None) -> None:
        """End an execution, or see to it that it never starts."""
        if key in self.running:
            self.endings.cancel(self.running[key], grace)
        elif key not in self.ended:
            self.queue.pop(key, None)
            self.never_ran(identity, key, "cancel", None, None)
        elif key in self.owed and "cancel" not in self.owed[key]:
            # It has ended, its output has not arrived. The agent stops, and says what came of it.
            self.owed[key]["cancel"] = True
            self.journal.add(json.dumps({"k": "end", "id": identity, "why": "cancel", "grace": grace or 0.0}))
            self.is_urgent = True
            self.left.append(self.owed[key])

    def drop(self, key: str) -> None:
        """Nobody wants to see what an execution leaves that is being ended."""
        if (key in self.running or key in self.owed) and key not in self.unwanted:
            self.unwanted.add(key)
            self.journal.add(json.dumps({"k": "drop", "id": key}))
            self.is_urgent = True

    def recall(self, identity: Any, key: str) -> None:
        """Give an execution back that has not started, and never start it; one that has goes on."""
        if key not in self.running and key not in self.ended:
            self.queue.pop(key, None)
            self.never_ran(identity, key, "recall", None, None)

    def stop_all(self) -> None:
        """Give back what is queued, end what runs."""
        while self.queue:
            key, order = self.queue.popitem()  # the last first: who waits for another one comes after it
            self.never_ran(order.id, key, "unstarted", None, "the agent was stopped")
        self.waiting.clear()
        for task in list(self.running.values()):
            if task.why is None:
                self.endings.end(task, "cancel")

    # Answers, and the rest of the journal.

    def collected(self, said: dict[str, Any]) -> None:
        """The agent has delivered an output folder, or cannot."""
        if self.owed.pop(key_of(said["id"]), None) is not None:
            self.record(lines.collected(said), time.monotonic())
            self.conditions.ended(key_of(said["id"]), bool(said["ok"]) and not said.get("failed"), has_left=True)
            self.sweep(key_of(said["id"]))

    def where(self, key: str) -> dict[str, Any]:
        """State and place of an execution, at this moment."""
        if key in self.running:
            return {"state": "running", "slot": self.running[key].slot.number}
        if key in self.ended:
            return {"state": "collecting" if key in self.owed else "ended", "at": self.ended[key]}
        return {"state": "queued" if key in self.queue else "unknown"}

    def held(self) -> dict[str, Any]:
        """All that is not over yet, as of the offset `end`: whatever is over has its exit line before that."""
        waiting = {**dict.fromkeys(self.queue, "queued"), **dict.fromkeys(self.stagings.open, "staging")}
        states = {**waiting, **dict.fromkeys(self.running, "running"), **dict.fromkeys(self.owed, "collecting")}
        ends = {"journal": self.journal.id, "base": self.journal.segments[0], "end": self.journal.tail}
        if any(order.of for order in self.queue.values()):
            ends["of"] = sorted(set().union(*(order.of for order in self.queue.values())))
        if self.polite.asked:
            ends["polite"] = {"asked": self.polite.asked, "why": self.polite.why}
        ends |= {"slots": self.slots, "last_exit": self.last_exit, "acked": self.acked}
        ends["highest"] = self.highest
        return {"held": states, **ends, **self.limits.told()}

    def leaders(self) -> dict[str, int]:
        """The processes of what runs, but for what runs in containers that are not among our own."""
        return {key: task.pid for key, task in self.running.items() if task.pid > 0 and not task.is_apart}

    def carried(self) -> list[str]:
        """The head of a new segment: what is live and told nowhere else once the old segments are gone."""
        running = [task.facts() for task in self.running.values()]
        more: dict[str, Any] = {"owed": list(self.owed.values()), "slots": self.slots, "acked": self.acked}
        more["highest"] = self.highest
        if self.unwanted:
            more["unwanted"] = list(self.unwanted)
        return [json.dumps({"k": "carry", "running": running, **more}) + "\n"]

    def forget_before(self, base: int) -> None:
        """Forget the ids of ended executions whose exit line was acknowledged and deleted."""
        for key in list(self.ended):
            if self.ended[key] >= base:
                break
            if key not in self.owed:
                del self.ended[key]
                self.conditions.forget(key)


def _is_full(folder: str) -> bool:
    try:
        disk = os.statvfs(folder)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < FULL_BYTES
