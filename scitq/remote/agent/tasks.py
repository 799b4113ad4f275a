"""The executions a keeper has: queued, running, ended but not yet acknowledged; from order to exit line.

Every move is written to the journal before it can be seen anywhere else: the start before the spawn, the exit before
the slot's files are used again. The loop around this is `keeper`.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import os
import selectors
import signal
import sys
import time
from collections import deque
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from scitq.remote.agent import processes, root
from scitq.remote.agent.journal import Journal
from scitq.remote.agent.orders import CAP_BYTES, GRACE_S, Order, key_of
from scitq.remote.agent.slots import Slot, has_output
from scitq.remote.agent.spawn import CannotSpawn, NoRoom, Spawner, environment, own_base

INLINE_BYTES = 16 << 10
POLL_S = 1.0
"""How often a process is looked at whose end the system does not tell us."""
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


def host_cpus() -> int:
    """CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


class Task:
    """A started execution."""

    __slots__ = (
        "at", "b", "cap", "deliver", "ecut", "grace", "id", "is_adopted", "key", "kill_at", "m", "ocut", "pid",
        "pidfd", "slot", "terminated", "timeout", "why",
    )  # fmt: skip

    def __init__(self, facts: dict[str, Any], slot: Slot) -> None:
        self.id = facts["id"]
        self.key = key_of(self.id)
        self.slot = slot
        self.at = float(facts["at"])
        self.b = float(facts["b"])
        self.m = float(facts["m"])
        self.timeout: float | None = facts.get("timeout")
        self.grace = float(facts.get("grace", GRACE_S))
        self.cap = int(facts.get("cap", CAP_BYTES))
        self.deliver: str | None = facts.get("deliver")
        self.pid: int = facts.get("pid", 0)
        self.why: str | None = facts.get("why")
        self.terminated = False
        self.kill_at: float | None = None
        self.is_adopted = False
        self.pidfd = -1
        self.ocut = self.ecut = False

    def facts(self) -> dict[str, Any]:
        """What a later keeper needs to know; the same keys as in a start line."""
        known: dict[str, Any] = {"id": self.id, "slot": self.slot.number, "at": self.at, "b": self.b, "m": self.m}
        known |= {"pid": self.pid, "grace": self.grace, "cap": self.cap}
        for name in ("timeout", "deliver", "why"):
            if getattr(self, name) is not None:
                known[name] = getattr(self, name)
        return known


class Tasks:
    """All executions of this root, and the run slots."""

    def __init__(self, folder: str, journal: Journal, facts: Any) -> None:
        self.folder = folder
        self.journal = journal
        self.slots: int = facts.slots
        self.queue: dict[str, Order] = {}
        self.waiting: deque[str] = deque()
        """Keys of the queue in order of arrival; those cancelled meanwhile are passed over."""
        self.running: dict[str, Task] = {}
        self.pids: dict[int, Task] = {}
        """Running tasks that are our own children."""
        self.ended: dict[str, int] = facts.ended
        """Offset of the exit line of every execution that ended in a retained segment, oldest first."""
        self.owed: dict[str, dict[str, Any]] = facts.owed
        """Exits whose output the agent must still collect."""
        self.left: list[dict[str, Any]] = []
        """Successes that left a folder, not yet told to the agent."""
        self.acked: int = facts.acked
        self.noted_ack: int = facts.acked
        self.last_exit: int = facts.last_exit
        self.unrung = 0
        self.unrung_since = 0.0
        self.is_urgent = False
        """Whether a line waits that must be written in this round."""
        self.free: list[Slot] = []
        self.spawner = Spawner()
        self.base = own_base()
        self.cpus = host_cpus()
        self.due: list[tuple[float, str]] = []
        self.leftovers: dict[str, tuple[int, float]] = {}
        """Executions whose process group outlived them: group and when it is killed."""
        self.strangers: dict[int, frozenset[str]] = {}
        self.reserved: dict[int, Slot] = {}
        """Slots taken for orders that are about to start."""
        try:
            self.children = os.open(f"/proc/self/task/{os.getpid()}/children", os.O_RDONLY)
        except OSError:
            self.children = -1

    def is_known(self, key: str) -> bool:
        """Whether an order of this id was taken before."""
        return key in self.queue or key in self.running or key in self.ended

    def is_holding(self) -> bool:
        """Whether anything is queued, running or to be collected."""
        return bool(self.queue or self.running or self.owed)

    # Starting.

    def launch(self, may_start: bool = True) -> bool:
        """Start what fits, in order of arrival; then everything due is in the journal. False: the disk is full."""
        while may_start and self.queue and len(self.running) < self.slots:
            batch: list[tuple[Order, Slot]] = []
            while self.queue and len(self.running) + len(batch) < self.slots:
                order = self.queue.pop(self.waiting.popleft(), None)
                if order is not None:
                    batch.append((order, self._take_slot()))
            if not self._start(batch):
                return False
        if self.is_urgent:
            self.is_urgent = not self.journal.flush()
        return not self.is_urgent

    def _take_slot(self) -> Slot:
        if self.free:
            slot = self.free.pop()
            self.reserved[slot.number] = slot
            return slot
        used = {task.slot.number for task in self.running.values()}
        used.update(slot.number for slot in self.reserved.values())
        number = 0
        while number in used:
            number += 1
        slot = Slot(self.folder, number)
        self.reserved[number] = slot
        return slot

    def _start(self, batch: list[tuple[Order, Slot]]) -> bool:
        """Start lines first, one write for all; then the processes."""
        journal = self.journal
        if any(slot.is_dirty for _, slot in batch) and not journal.flush():
            self._put_back(batch)  # the bytes in the slots are nowhere else yet
            return False
        ready: list[tuple[Order, Slot]] = []
        for order, slot in batch:
            try:
                if slot.is_dirty:
                    slot.clean()
                elif not slot.is_open:
                    slot.make()
            except OSError as error:
                root.say(self.folder, "keeper", f"{slot.folder}: {error}")
                self._never_ran(
                    order.id, order.key, "unstarted", None, f"the worker cannot make {slot.folder}: {error}"
                )
                slot.close()
                self.reserved.pop(slot.number, None)
            else:
                ready.append((order, slot))
        at, b, m = time.time(), processes.boot_time(), time.monotonic()
        for order, slot in ready:
            extra = ""
            if order.timeout is not None:
                extra += f',"timeout":{order.timeout!r}'
            if order.deliver is not None:
                extra += f',"deliver":{quoted(order.deliver)}'
            if order.grace != GRACE_S:
                extra += f',"grace":{order.grace!r}'
            if order.cap != CAP_BYTES:
                extra += f',"cap":{order.cap}'
            jid = order.id if isinstance(order.id, int) else quoted(order.id)
            journal.add(f'{{"k":"start","id":{jid},"slot":{slot.number},"at":{at:.3f},"b":{b:.3f},"m":{m:.3f}{extra}}}')
        if not journal.flush():
            # They are in the journal's memory and will be written; started they are not, and say so.
            for order, slot in ready:
                self._never_ran(order.id, order.key, "unstarted", None, "the worker's disk is full")
                self._free(slot)
            return False
        self.is_urgent = False
        for order, slot in ready:
            self._spawn(order, slot, at, m)
        return True

    def _put_back(self, batch: list[tuple[Order, Slot]]) -> None:
        for order, slot in reversed(batch):
            self.queue = {order.key: order, **self.queue}
            self.waiting.appendleft(order.key)
            self._free(slot)

    def _spawn(self, order: Order, slot: Slot, at: float, m: float) -> None:
        b = processes.boot_time()
        task = Task({"id": order.id, "at": at, "b": b, "m": m}, slot)
        task.timeout, task.grace, task.cap, task.deliver = order.timeout, order.grace, order.cap, order.deliver
        cpu = max(1, self.cpus // max(1, self.slots))
        try:
            task.pid = self.spawner.start(order, slot, environment(order, slot, self.base, self.journal.id, cpu))
        except CannotSpawn as error:
            self._finish(task, error.code, None, "spawn", error.note, None)
            return
        except NoRoom as error:
            self._finish(task, None, None, "unstarted", str(error), None)
            return
        self.reserved.pop(slot.number, None)
        self.running[task.key] = self.pids[task.pid] = task
        jid = task.id if isinstance(task.id, int) else quoted(task.id)
        self.journal.add(f'{{"k":"pid","id":{jid},"pid":{task.pid},"b":{b:.3f}}}')
        if task.timeout is not None:
            heapq.heappush(self.due, (task.m + task.timeout, task.key))

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
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            self.strangers.pop(pid, None)
            task = self.pids.pop(pid, None)
            if task is not None:
                found.append((task, status, usage))
        if self.leftovers:
            self.leftovers = {key: left for key, left in self.leftovers.items() if _is_group(left[0])}
        for task, status, usage in found:
            if os.WIFSIGNALED(status):
                self._finish(task, None, os.WTERMSIG(status), task.why, None, usage)
            else:
                self._finish(task, os.WEXITSTATUS(status), None, task.why, None, usage)

    def _finish(
        self, task: Task, code: int | None, sig: int | None, why: str | None, note: str | None, usage: Any
    ) -> None:
        """The exit line of a started execution, and what becomes of its slot."""
        slot, now = task.slot, time.monotonic()
        self.running.pop(task.key, None)
        has_run = task.pid != 0 or why == "unknown"
        is_left = has_run and self._has_leftovers(task)
        out, err = os.fstat(slot.out), os.fstat(slot.err)
        on, en = min(out.st_size, task.cap), min(err.st_size, task.cap)
        ocut, ecut = task.ocut or on < out.st_size, task.ecut or en < err.st_size
        if ocut or ecut:
            self._cut(task)
        o = None if on > INLINE_BYTES else os.pread(slot.out, on, 0) if on else b""
        e = None if en > INLINE_BYTES else os.pread(slot.err, en, 0) if en else b""
        is_kept = is_left or o is None or e is None or slot.is_given or not (out.st_nlink and err.st_nlink)
        if not is_kept and has_run and not slot.is_untouched():
            is_kept = not slot.is_empty()
        collect = False
        if is_kept:
            collect = code == 0 and why is None and task.deliver is not None and has_output(slot.folder)
            try:
                slot.give(task.key)
            except OSError as error:
                root.say(self.folder, "keeper", f"{slot.folder} cannot be kept for {task.key}: {error}")
                note = note or f"its folder is gone: {error.strerror}"
                is_kept = collect = False
                slot.close()
        else:
            slot.is_dirty = on > 0 or en > 0
        jid = task.id if isinstance(task.id, int) else quoted(task.id)
        parts = [
            f'{{"k":"exit","id":{jid},"code":{_json(code)},"sig":{_json(sig)},"why":{_json(why)},"o":',
            "null" if o is None else quoted(o.decode("latin-1")) if o else '""',
            ',"e":',
            "null" if e is None else quoted(e.decode("latin-1")) if e else '""',
            f',"on":{on},"en":{en}',
            ',"ocut":true' if ocut else "",
            ',"ecut":true' if ecut else "",
            f',"note":{quoted(note)}' if note else "",
            f',"left":{task.pid},"grace":{task.grace!r}' if task.key in self.leftovers else "",
            f',"kept":true,"collect":{_json(collect)}' if is_kept else ',"kept":false,"collect":false',
            f',"deliver":{quoted(task.deliver or "")}' if collect else "",
            f',"at":{time.time():.3f},"run":{max(0.0, now - task.m) if task.pid > 0 else 0.0:.6f}',
            _usage(usage),
        ]
        self._record(task.key, "".join(parts), now)
        if collect:
            self.owed[task.key] = {"id": task.id, "deliver": task.deliver}
            self.left.append(self.owed[task.key])
        elif is_kept and code == 0 and why is None:
            self.left.append({"id": task.id, "inline": o is not None and e is not None})
        self._free(slot)

    def _record(self, key: str, line: str, now: float) -> None:
        self.ended[key] = self.journal.add(line)
        self.last_exit = self.journal.tail
        self.is_urgent = True
        if not self.unrung:
            self.unrung_since = now
        self.unrung += 1

    def _never_ran(self, identity: Any, key: str, why: str, code: int | None, note: str | None) -> None:
        """The exit line of an order that got no process."""
        line: dict[str, Any] = {"k": "exit", "id": identity, "code": code, "sig": None, "why": why, "o": "", "e": ""}
        line |= {"on": 0, "en": 0, "kept": False, "collect": False, "at": round(time.time(), 3), "run": 0.0}
        if note:
            line["note"] = note
        self._record(key, json.dumps(line), time.monotonic())

    def refuse(self, identity: Any, key: str, note: str) -> None:
        """An order that cannot be right, but has an id: it ends at once."""
        self._never_ran(identity, key, "spawn", 126, note)

    # Processes that outlive their task, and the end of those that do not want to.

    def _has_leftovers(self, task: Task) -> bool:
        """Whether anything of the task still lives and may write into its slot. Its own group is ended."""
        if task.is_adopted:
            return self._has_adopted_leftovers(task)
        is_left = _is_group(task.pid)
        if is_left:
            self.end_group(task.key, task.pid, task.grace)
        if self.children < 0:
            return is_left
        pids = os.pread(self.children, 1 << 16, 0)
        if pids.count(b" ") <= len(self.pids):
            return is_left
        for word in pids.split():
            pid = int(word)
            if pid in self.pids:
                continue
            if pid not in self.strangers:
                self.strangers[pid] = self._owners(pid, task)
            is_left = is_left or task.key in self.strangers[pid]
        return is_left

    def _has_adopted_leftovers(self, task: Task) -> bool:
        """The same where the group's number may belong to others by now: only what carries our mark counts."""
        found = processes.with_execution(task.key, self.journal.id)
        if any(each.group == task.pid for each in found.values()):
            self.end_group(task.key, task.pid, task.grace)
        return bool(found)

    def end_group(self, key: str, group: int, grace: float) -> None:
        """End what is left of the group of an ended execution: TERM now, KILL after the grace."""
        self._terminate(group)
        now = time.monotonic()
        self.leftovers[key] = (group, now + grace)
        heapq.heappush(self.due, (min(now + grace, now + POLL_S), key))

    def _owners(self, pid: int, task: Task) -> frozenset[str]:
        """Which executions a stranger among our children may come from."""
        for entry in processes.environment(pid) or ():
            if entry.startswith(b"SCITQ_EXECUTION="):
                return frozenset({os.fsdecode(entry[16:])})
        return frozenset({task.key, *self.running})

    @staticmethod
    def _terminate(group: int) -> None:
        for number in (signal.SIGTERM, signal.SIGCONT):
            try:
                os.killpg(group, number)
            except OSError:
                return

    def cancel(self, identity: Any, key: str, grace: float | None) -> None:
        """End an execution, or see to it that it never starts."""
        if key in self.ended:
            return
        task = self.running.get(key)
        if task is None:
            self.queue.pop(key, None)
            self._never_ran(identity, key, "cancel", None, None)
            return
        if grace is not None:
            task.grace = float(grace)
        if task.why is None:
            self.end(task, "cancel")
        elif grace is not None and task.kill_at is not None:
            task.kill_at = min(task.kill_at, time.monotonic() + task.grace)
            heapq.heappush(self.due, (task.kill_at, key))

    def end(self, task: Task, why: str) -> None:
        """TERM now, KILL after the grace. Written down: a later keeper goes on with it."""
        task.why = why
        self.journal.add(json.dumps({"k": "end", "id": task.id, "why": why, "grace": task.grace}))
        self.is_urgent = True
        self._stop(task)

    def _stop(self, task: Task) -> None:
        task.terminated = True
        task.kill_at = time.monotonic() + task.grace
        heapq.heappush(self.due, (task.kill_at, task.key))
        if self._is_ours(task):
            self._terminate(task.pid)

    def _is_ours(self, task: Task) -> bool:
        if task.is_adopted:
            return processes.is_execution(task.pid, task.b, task.key, self.journal.id)
        return task.pid in self.pids

    def stop_all(self, now: float) -> None:
        """Give back what is queued, end what runs."""
        for key, order in list(self.queue.items()):
            self._never_ran(order.id, key, "unstarted", None, "the agent was stopped")
        self.queue.clear()
        self.waiting.clear()
        for task in list(self.running.values()):
            if task.why is None:
                self.end(task, "cancel")

    def signal(self, key: str, number: int) -> None:
        """Send a signal to the group of a running execution."""
        task = self.running.get(key)
        if task is not None and self._is_ours(task):
            os.killpg(task.pid, number)

    def next_due(self) -> float | None:
        """When `attend` has something to do."""
        if len(self.due) > 256 and len(self.due) > 8 * len(self.running):
            wanted = {*self.running, *self.leftovers}
            self.due = [entry for entry in self.due if entry[1] in wanted]
            heapq.heapify(self.due)
        return self.due[0][0] if self.due else None

    def attend(self, now: float) -> None:
        """Timeouts, ends of grace, looks at adopted processes."""
        while self.due and self.due[0][0] <= now:
            _, key = heapq.heappop(self.due)
            if key in self.leftovers:
                self._attend_leftover(key, now)
            task = self.running.get(key)
            if task is None:
                continue
            if task.is_adopted and task.pidfd < 0:
                if not self._is_ours(task):
                    self.lost(task)
                    continue
                heapq.heappush(self.due, (now + POLL_S, key))
            if task.why is not None and not task.terminated:
                self._stop(task)
            elif task.why is None and task.timeout is not None and now >= task.m + task.timeout:
                self.end(task, "timeout")
            elif task.kill_at is not None and now >= task.kill_at:
                task.kill_at = None
                if self._is_ours(task):
                    os.killpg(task.pid, signal.SIGKILL)

    def _attend_leftover(self, key: str, now: float) -> None:
        """Forget a group that is gone, kill one whose grace is over."""
        group, until = self.leftovers[key]
        if not _is_group(group):
            del self.leftovers[key]
        elif now >= until:
            del self.leftovers[key]
            self._kill_group(group, key)
        else:
            heapq.heappush(self.due, (min(until, now + POLL_S), key))

    def _kill_group(self, group: int, key: str) -> None:
        """KILL what is left of a group; by now its number might belong to others, so only if it is still ours."""
        found = processes.with_execution(key, self.journal.id)
        if any(each.group == group for each in found.values()):
            with contextlib.suppress(OSError):
                os.killpg(group, signal.SIGKILL)

    # Adopted from an earlier keeper.

    def adopt(self, facts: dict[str, Any], slot: Slot) -> None:
        """A process that an earlier keeper started still runs."""
        task = Task(facts, slot)
        task.is_adopted = True
        self.running[task.key] = task
        now = time.monotonic()
        heapq.heappush(self.due, (now, task.key))
        if task.timeout is not None:
            heapq.heappush(self.due, (task.m + task.timeout, task.key))

    def watch_adopted(self, selector: selectors.BaseSelector) -> None:
        """Hear of the end of adopted processes, where the system can tell; else `attend` looks."""
        for task in self.running.values():
            if hasattr(os, "pidfd_open"):
                try:
                    task.pidfd = os.pidfd_open(task.pid)
                except OSError:
                    continue
                selector.register(task.pidfd, selectors.EVENT_READ, task.key)
                if not self._is_ours(task):  # it ended before the pidfd was there, which may be somebody else's
                    selector.unregister(task.pidfd)
                    os.close(task.pidfd)
                    task.pidfd = -1

    def gone(self, key: str, selector: selectors.BaseSelector) -> None:
        """An adopted process ended."""
        task = self.running[key]
        selector.unregister(task.pidfd)  # before the close: see reference/prototype.md, pitfall 1
        os.close(task.pidfd)
        self.lost(task)

    def lost(self, task: Task) -> None:
        """An adopted process is gone, and nobody saw how it ended."""
        self._finish(task, None, None, "unknown", "the keeper was killed; how it ended was not seen", None)

    # Output, answers, the rest of the journal.

    def cut(self) -> None:
        """Cut streams that grew over their cap; append-mode writers go on at the new end."""
        for task in self.running.values():
            self._cut(task)

    def _cut(self, task: Task) -> None:
        if os.fstat(task.slot.out).st_size > task.cap:
            os.ftruncate(task.slot.out, task.cap)
            task.ocut = True
        if os.fstat(task.slot.err).st_size > task.cap:
            os.ftruncate(task.slot.err, task.cap)
            task.ecut = True

    def collected(self, said: dict[str, Any]) -> None:
        """The agent has delivered an output folder, or cannot."""
        key = key_of(said["id"])
        if self.owed.pop(key, None) is not None:
            self._note({"k": "collected", "id": said["id"], "ok": bool(said["ok"]), "note": said.get("note")})

    def _note(self, line: dict[str, Any]) -> None:
        self.journal.add(json.dumps(line))
        self.last_exit = self.journal.tail
        self.is_urgent = True
        if not self.unrung:
            self.unrung_since = time.monotonic()
        self.unrung += 1

    def where(self, key: str) -> dict[str, Any]:
        """State and place of an execution, at this moment."""
        if key in self.running:
            return {"state": "running", "slot": self.running[key].slot.number}
        if key in self.ended:
            return {"state": "collecting" if key in self.owed else "ended", "at": self.ended[key]}
        return {"state": "queued" if key in self.queue else "unknown"}

    def held(self) -> dict[str, Any]:
        """All that is not over yet, as of the offset `end`: whatever is over has its exit line before that."""
        states = dict.fromkeys(self.queue, "queued")
        states.update(dict.fromkeys(self.running, "running"))
        states.update(dict.fromkeys(self.owed, "collecting"))
        ends = {"journal": self.journal.id, "base": self.journal.segments[0], "end": self.journal.tail}
        return {"held": states, "slots": self.slots, **ends, "last_exit": self.last_exit, "acked": self.acked}

    def carried(self) -> list[str]:
        """The head of a new segment: what is live and told nowhere else once the old segments are gone."""
        running = [task.facts() for task in self.running.values()]
        line = {"k": "carry", "running": running, "owed": list(self.owed.values()), "slots": self.slots}
        return [json.dumps({**line, "acked": self.acked}) + "\n"]

    def forget_before(self, base: int) -> None:
        """Forget the ids of ended executions whose exit line was acknowledged and deleted."""
        for key in list(self.ended):
            if self.ended[key] >= base:
                break
            if key not in self.owed:
                del self.ended[key]


def _is_group(group: int) -> bool:
    """Whether a process group has any member."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # there is one, and it is not ours
    return True


def _usage(usage: Any) -> str:
    """The end of an exit line: what the task used, where that is known."""
    if usage is None:
        return "}"
    return f',"u":{usage.ru_utime:.6f},"s":{usage.ru_stime:.6f},"rss":{usage.ru_maxrss * _RSS_UNIT}}}'


def _json(value: Any) -> str:
    if value is None:
        return "null"
    if value is True or value is False:
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else quoted(value)
