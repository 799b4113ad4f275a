"""Ending executions before their own end, and watching those that an earlier keeper started.

All of it is a heap of moments at which somebody wants to be looked at; nothing ticks while it is empty.
"""

from __future__ import annotations

import heapq
import json
import os
import selectors
import signal
import time
from typing import TYPE_CHECKING, Any

from scitq.remote.agent import containers, processes
from scitq.remote.agent.leftovers import POLL_S, Leftovers, terminate
from scitq.remote.agent.slots import Slot
from scitq.remote.agent.task import Task

if TYPE_CHECKING:
    from scitq.remote.agent.tasks import Tasks


class Endings:
    """Timeouts, cancels, graces, and the ends of adopted processes."""

    def __init__(self, tasks: Tasks) -> None:
        self.tasks = tasks
        self.journal = tasks.journal
        self.due: list[tuple[float, str]] = []
        self.leftovers = Leftovers(self.journal.id, self.wake, processes.adopt_orphans())

    def wake(self, at: float, key: str) -> None:
        """Have `attend` look at an execution at that time."""
        heapq.heappush(self.due, (at, key))

    def next_due(self) -> float | None:
        """When `attend` has something to do."""
        if len(self.due) > 256 and len(self.due) > 8 * len(self.tasks.running):
            wanted = {"", *self.tasks.running, *self.leftovers.groups}
            self.due = [entry for entry in self.due if entry[1] in wanted]
            heapq.heapify(self.due)
        return self.due[0][0] if self.due else None

    def attend(self, now: float) -> None:
        """Look at everything whose time has come."""
        while self.due and self.due[0][0] <= now:
            _, key = heapq.heappop(self.due)
            self.leftovers.attend(key, now)
            if self.tasks.limits.full:
                self.tasks.limits.retry()
            task = self.tasks.running.get(key)
            if task is not None:
                self._attend(task, now)

    def _attend(self, task: Task, now: float) -> None:
        if task.is_adopted and task.pidfd < 0:
            if not task.is_alive(self.journal.id):
                self.tasks.lost(task)
                return
            self.wake(now + POLL_S, task.key)
        if task.why is not None and not task.terminated:
            self._stop(task)
        elif task.why is None and task.timeout is not None and now >= task.m + task.timeout:
            if task.suspended_at is None:
                self.end(task, "timeout")
        elif task.kill_at is not None and now >= task.kill_at:
            task.kill_at = None
            self._signal(task, signal.SIGKILL)
            if task.box is not None:
                task.box.kill()

    def _signal(self, task: Task, number: int) -> None:
        if task.is_apart:
            if task.is_alive(self.journal.id):
                containers.send(task.pid, number)
        elif task.is_alive(self.journal.id):
            os.killpg(task.pid, number)

    def signal(self, key: str, number: int) -> None:
        """Send a signal to the group of a running execution."""
        task = self.tasks.running.get(key)
        if task is None:
            return
        self._signal(task, number)
        now = time.monotonic()
        if number == signal.SIGSTOP and task.suspended_at is None:
            task.suspended_at = now
        elif number == signal.SIGCONT and task.suspended_at is not None:
            if task.timeout is not None:  # the time that it stood still does not count
                task.timeout += now - task.suspended_at
                self.wake(task.m + task.timeout, key)
            task.suspended_at = None

    def cancel(self, task: Task, grace: float | None) -> None:
        """End a running execution; a second cancel may shorten the grace."""
        if grace is not None:
            task.grace = float(grace)
        if task.why is None:
            self.end(task, "cancel")
        elif grace is not None and task.kill_at is not None:
            task.kill_at = min(task.kill_at, time.monotonic() + task.grace)
            self.wake(task.kill_at, task.key)

    def end(self, task: Task, why: str) -> None:
        """TERM now, KILL after the grace. Written down: a later keeper goes on with it."""
        task.why = why
        self.journal.add(json.dumps({"k": "end", "id": task.id, "why": why, "grace": task.grace}))
        self.tasks.is_urgent = True
        self._stop(task)

    def _stop(self, task: Task) -> None:
        task.terminated = True
        task.kill_at = time.monotonic() + task.grace
        self.wake(task.kill_at, task.key)
        if task.is_apart:
            self._signal(task, signal.SIGTERM)
        elif task.is_alive(self.journal.id):
            terminate(task.pid)
        if task.box is not None:
            task.box.terminate(beside=task.pid)

    # Adopted from an earlier keeper.

    def adopt(self, facts: dict[str, Any], slot: Slot) -> None:
        """A process that an earlier keeper started still runs."""
        task = Task(facts, slot)
        task.is_adopted = True
        self.tasks.running[task.key] = task
        self.wake(time.monotonic(), task.key)
        if task.timeout is not None:
            self.wake(task.m + task.timeout, task.key)

    def take_over(self, facts: dict[str, Any], slot: Slot) -> bool:
        """A container may be there though the process that stood for it is gone. False: its end was on record."""
        task = Task({**facts, "pid": facts.get("pid", 0)}, slot)
        self.tasks.container_over(task)
        if task.key not in self.tasks.running:
            return False
        self.wake(time.monotonic(), task.key)
        if task.timeout is not None:
            self.wake(task.m + task.timeout, task.key)
        return True

    def watch_adopted(self, selector: selectors.BaseSelector) -> None:
        """Hear of the end of adopted processes, where the system can tell; else `attend` looks."""
        for task in self.tasks.running.values():
            if task.is_adopted and hasattr(os, "pidfd_open"):
                try:
                    task.pidfd = os.pidfd_open(task.pid)
                except OSError:
                    continue
                selector.register(task.pidfd, selectors.EVENT_READ, task.key)
                if not task.is_alive(self.journal.id):
                    # It ended before the pidfd was there, which may be somebody else's.
                    selector.unregister(task.pidfd)
                    os.close(task.pidfd)
                    task.pidfd = -1

    def gone(self, key: str, selector: selectors.BaseSelector) -> None:
        """An adopted process ended."""
        task = self.tasks.running[key]
        # Before the close: a child being spawned holds a copy, and the registration would outlive the number.
        selector.unregister(task.pidfd)
        os.close(task.pidfd)
        self.tasks.lost(task)
