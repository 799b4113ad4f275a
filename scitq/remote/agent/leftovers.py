"""Processes that outlive their execution: what is left of its group is ended, daemons that left it are left alone.

In both cases the slot folder is not used again, so that nobody writes into the next task's files.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Collection

from scitq.remote.agent import processes
from scitq.remote.agent.cgroups import Box
from scitq.remote.agent.task import Task

POLL_S = 1.0
"""How often a process is looked at whose end the system does not tell us."""


def is_group(group: int) -> bool:
    """Whether a process group has any member."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # there is one, and it is not ours
    return True


def terminate(group: int) -> None:
    """Ask a group to end; a stopped one hears it only when it goes on."""
    for number in (signal.SIGTERM, signal.SIGCONT):
        with contextlib.suppress(OSError):
            os.killpg(group, number)


def is_in_group(pid: int, group: int) -> bool:
    """Whether a process is there, and in this group."""
    with contextlib.suppress(OSError):
        return os.getpgid(pid) == group
    return False


def _is_there(group: int, box: Box | None) -> bool:
    return is_group(group) if box is None else bool(box.members())


class Leftovers:
    """What ended executions have left alive. `wake` asks to be called at a time (`attend`, by the loop)."""

    def __init__(self, journal: str, wake: Callable[[float, str], None], is_parent: bool) -> None:
        self.journal = journal
        self.wake = wake
        self.groups: dict[str, tuple[int, float, Box | None]] = {}
        """By execution: the group being ended, when it is killed, and the control group if all in it is to end."""
        self.strangers: dict[int, frozenset[str]] = {}
        """Orphans that became our children, and the executions they may come from."""
        try:
            self.children = os.open(f"/proc/self/task/{os.getpid()}/children", os.O_RDONLY) if is_parent else -1
        except OSError:
            self.children = -1  # without it, or without being the parent of orphans, daemons go unnoticed

    def of(self, task: Task, own: Collection[int], running: Collection[str]) -> bool:
        """Whether anything of an ended task still lives. `own` are the children that are running tasks."""
        if task.box is not None and task.box.folders:
            return self._of_boxed(task, task.box)
        if task.is_adopted:
            return self._of_adopted(task)
        if self.children >= 0:
            # Whatever lives on has an ancestor among our children, since orphans come to us: none, and all is said.
            pids = os.pread(self.children, 1 << 16, 0)
            if pids.count(b" ") <= len(own):
                return False
        else:
            pids = b""
        is_left = is_group(task.pid)
        if is_left:
            self.end(task.key, task.pid, task.grace)
        for word in pids.split():
            pid = int(word)
            if pid not in own:
                if pid not in self.strangers:
                    self.strangers[pid] = self._owners(pid, task, running)
                is_left = is_left or task.key in self.strangers[pid]
        return is_left

    def _of_adopted(self, task: Task) -> bool:
        """The same where the group's number may belong to others by now: only what carries our mark counts."""
        found = processes.with_execution(task.key, self.journal)
        if any(each.group == task.pid for each in found.values()):
            self.end(task.key, task.pid, task.grace)
        return bool(found)

    def _of_boxed(self, task: Task, box: Box) -> bool:
        """The same where the system knows all that belongs to the task. What did not end by itself ends as a whole."""
        members = box.members()
        if members and task.why is not None:
            self.end(task.key, task.pid, task.grace, box)
        elif any(is_in_group(pid, task.pid) for pid in members):
            self.end(task.key, task.pid, task.grace)
        return bool(members)

    @staticmethod
    def _owners(pid: int, task: Task, running: Collection[str]) -> frozenset[str]:
        """Which executions a stranger may come from; any that lives, when it does not say."""
        for entry in processes.environment(pid) or ():
            if entry.startswith(b"SCITQ_EXECUTION="):
                return frozenset({os.fsdecode(entry[16:])})
        return frozenset({task.key, *running})

    def end(self, key: str, group: int, grace: float, box: Box | None = None) -> None:
        """End what is left of the group of an ended execution, or of its control group: TERM now, KILL after the grace."""
        if box is None:
            terminate(group)
        else:
            box.terminate()
        now = time.monotonic()
        self.groups[key] = (group, now + grace, box)
        self.wake(min(now + grace, now + POLL_S), key)

    def reaped(self) -> None:
        """Some of our children are gone: perhaps the last ones of a group."""
        if self.groups:
            self.groups = {key: left for key, left in self.groups.items() if _is_there(left[0], left[2])}

    def attend(self, key: str, now: float) -> None:
        """Forget a group that is gone, kill one whose grace is over."""
        if key not in self.groups:
            return
        group, until, box = self.groups[key]
        if not _is_there(group, box):
            del self.groups[key]
        elif now >= until:
            del self.groups[key]
            if box is None:
                self._kill(group, key)
            else:
                box.kill()
                for later in (0.1, POLL_S, 10 * POLL_S):  # the end of those that are not our children is not told
                    self.wake(now + later, "")
        else:
            self.wake(min(until, now + POLL_S), key)

    def _kill(self, group: int, key: str) -> None:
        """By now the group's number might belong to others: only if a member still carries our mark."""
        found = processes.with_execution(key, self.journal)
        if any(each.group == group for each in found.values()):
            with contextlib.suppress(OSError):
                os.killpg(group, signal.SIGKILL)
