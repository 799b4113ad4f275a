"""This machine's owner comes first, where the driver asks for that: `{"polite": {"nice", "hours", "yield", "suspend"}}`.

    nice     from 0 to 19: how far tasks stand back; containers by as much less weight for the CPUs (docker), or as
             processes do (podman, apptainer)
    hours    "22:00-07:00", by this machine's clock: nothing is started outside of them
    yield    true: nor while somebody is logged in, with a terminal or at a screen (scitq's own connections have neither)
    suspend  true: what runs stands still meanwhile; else it goes on

Kept by the keeper in the file `polite`, until something else is said; null ends it. Looked at now and then, only while it is set.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import struct
import time
from typing import TYPE_CHECKING, Any

from scitq.remote.agent import containers, root
from scitq.remote.agent.orders import BadOrder

if TYPE_CHECKING:
    from scitq.remote.agent.tasks import Tasks

LOOK_S = 30.0
UTMP = "/run/utmp"
SESSIONS = "/run/systemd/sessions"
_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)\Z")
_LOGIN = struct.Struct("hi32s4s32s256s52x")  # of utmp: type, pid, line, id, user, host; the rest is of no use here
_USER = 7


class Polite:
    """What was asked for, and whether it forbids to start tasks now."""

    def __init__(self, tasks: Tasks) -> None:
        self.tasks = tasks
        self.asked: dict[str, Any] = {}
        self.why: str | None = None
        """Why nothing may be started now, in words."""
        self.due: float | None = None
        """When to look again."""
        self.paused: set[str] = set()
        """Executions that stand still because of this, and not because somebody else wants it."""
        with (
            contextlib.suppress(OSError, ValueError, KeyError, TypeError, BadOrder),
            open("polite", encoding="ascii") as file,
        ):
            said = json.load(file)
            self.asked, self.paused = checked(said["asked"]), set(said["paused"])

    @property
    def nice(self) -> int:
        """How far tasks stand back."""
        return int(self.asked.get("nice", 0))

    def take(self, said: Any) -> None:
        """The driver's wish; BadOrder when it makes no sense."""
        self.asked = checked(said)
        self._write()
        for task in self.tasks.running.values():
            self.stand_back(task.pid)
            if task.is_apart:
                containers.look_again(task.pid)
        self.look(time.monotonic())

    def stand_back(self, group: int) -> None:
        """Have the processes of a task give way to others. They are never brought forward again: only root may."""
        if self.nice and group > 0:
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PGRP, group, max(self.nice, os.getpriority(os.PRIO_PROCESS, 0)))

    def attend(self, now: float) -> None:
        """Look again if it is time."""
        if self.due is not None and now >= self.due:
            self.look(now)

    def look(self, now: float) -> None:
        """Find out whether tasks may be started now; those that run may have to stand still, or may go on."""
        before = self.why
        self.why = self._reason()
        self.due = now + LOOK_S if self.asked.get("hours") or self.asked.get("yield") else None
        if self.why != before:
            root.say(self.tasks.folder, "keeper", f"polite: {self.why or 'tasks may start'}")
        if self.why is not None and self.asked.get("suspend"):
            self._pause()
        elif self.paused:
            self._resume()

    def _reason(self) -> str | None:
        hours = self.asked.get("hours")
        if hours and not is_within(hours, time.localtime()):
            return f"it is outside of its hours, {hours}"
        if self.asked.get("yield") and (who := logged_in()):
            return f"{', '.join(who)} logged in"
        return None

    def _pause(self) -> None:
        running = self.tasks.running
        fresh = {key for key, task in running.items() if task.suspended_at is None}
        if fresh or not self.paused <= running.keys():
            self.paused = (self.paused & running.keys()) | fresh
            self._write()  # before it is done: a later keeper must know whom to wake
        for key in fresh:
            self.tasks.endings.signal(key, signal.SIGSTOP)

    def _resume(self) -> None:
        for key in self.paused & self.tasks.running.keys():
            self.tasks.endings.signal(key, signal.SIGCONT)
        self.paused.clear()
        self._write()

    def signalled(self, key: str) -> None:
        """Somebody else says whether it is to stand still."""
        if key in self.paused:
            self.paused.discard(key)
            self._write()

    def _write(self) -> None:
        try:
            with open("polite.new", "w", encoding="ascii") as file:
                json.dump({"asked": self.asked, "paused": sorted(self.paused)}, file)
            os.rename("polite.new", "polite")
        except OSError as error:
            root.say(self.tasks.folder, "keeper", f"cannot store what is polite: {error}")


def checked(said: Any) -> dict[str, Any]:
    """What was said, if it makes sense."""
    if said is None:
        return {}
    if not isinstance(said, dict):
        raise BadOrder("polite must be an object, or null")
    nice = said.get("nice", 0)
    if type(nice) is not int or not 0 <= nice <= 19:
        raise BadOrder("polite: nice must be a number from 0 to 19")
    hours = said.get("hours")
    found = None if hours is None else _HOURS.match(hours if isinstance(hours, str) else "")
    if hours is not None and (found is None or found.groups()[:2] == found.groups()[2:]):
        raise BadOrder('polite: hours must be like "22:00-07:00"')
    for name in ("yield", "suspend"):
        if said.get(name) not in (None, True, False):
            raise BadOrder(f"polite: {name} must be true or false")
    return {name: said[name] for name in ("nice", "hours", "yield", "suspend") if said.get(name)}


def is_within(hours: str, now: time.struct_time) -> bool:
    """Whether it is one of these hours, which may go past midnight."""
    found = _HOURS.match(hours)
    assert found is not None
    first_h, first_m, last_h, last_m = map(int, found.groups())
    first, last, minute = first_h * 60 + first_m, last_h * 60 + last_m, now.tm_hour * 60 + now.tm_min
    return first <= minute < last if first < last else minute >= first or minute < last


def logged_in() -> list[str]:
    """Who is logged in here with a terminal or at a screen, as "name (where)"."""
    return sorted({f"{user} ({place})" for user, place in [*_by_utmp(), *_by_logind()]})


def _by_utmp() -> list[tuple[str, str]]:
    try:
        with open(UTMP, "rb") as file:
            data = file.read()
    except OSError:
        return []
    whole = len(data) - len(data) % _LOGIN.size
    found = []
    for kind, pid, line, _, user, _ in _LOGIN.iter_unpack(data[:whole]):
        if kind == _USER and _is_alive(pid):
            found.append((_text(user), _text(line)))
    return found


def _by_logind() -> list[tuple[str, str]]:
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir(SESSIONS):
            with (
                contextlib.suppress(OSError),
                open(os.path.join(SESSIONS, name), encoding="utf-8", errors="replace") as file,
            ):
                said = dict(line.rstrip("\n").partition("=")[::2] for line in file)
                place = said.get("TTY") or said.get("SEAT")
                if said.get("CLASS") == "user" and said.get("STATE") != "closing" and place:
                    found.append((said.get("USER", "somebody"), place))
    return found


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace")
