"""The end of a rented machine that nobody asks for any more, where the driver asks for that: `{"rented": {…}}`; null: it is not rented.

    orphan_after  seconds: no driver was heard for so long, and nothing is to be done: the machine ends; four times as long while it
                  has results that nobody has fetched
    expires       seconds since 1970: it ends then, whatever it does
    end           how: `shutdown` (the machine itself), `file` (a file says so to whoever made it), `agent` (agent and tasks only)

Kept in the file `rented` of the root folder. An agent that was never told so is on a host that belongs to somebody, and ends nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from scitq.remote.agent import processes, root

if TYPE_CHECKING:
    from scitq.remote.agent.agent import Agent

ENDS = ("shutdown", "file", "agent")
FILE = "rented"
# As scitq.remote.providers.base has it.
SHUTDOWN = "shutdown"
NOTICE_FOLDER = "/run/scitq"
# After a look that found work the next one.
LOOK_S = 60.0
# So much longer it waits for somebody to fetch what it has made.
PATIENCE = 4


class BadRented(ValueError):
    """What was said makes no sense."""


class Rented:
    """What was asked for, and when the driver was last heard."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.asked: dict[str, Any] = {}
        self.heard_at = processes.boot_time()
        self.look_at = 0.0
        self.is_ending = False
        with (
            contextlib.suppress(OSError, ValueError, TypeError),
            open(os.path.join(agent.folder, FILE), encoding="ascii") as file,
        ):
            self.asked = checked(json.load(file))

    def take(self, said: Any) -> None:
        """The driver's wish.

        Raises:
            OSError: it cannot be stored.
        """
        self.asked = checked(said)
        path = os.path.join(self.agent.folder, FILE)
        with open(f"{path}.new", "w", encoding="ascii") as file:
            json.dump(self.asked, file)
        os.rename(f"{path}.new", path)
        self.look_at = 0.0

    def heard(self) -> None:
        """Somebody who may has asked for something."""
        if self.asked:
            self.heard_at, self.look_at = processes.boot_time(), 0.0

    def due_s(self) -> float | None:
        """In how long to look."""
        if not self.asked or self.is_ending:
            return None
        now = processes.boot_time()
        waits = [max(self.heard_at + self.asked["orphan_after"], self.look_at) - now]
        if self.asked.get("expires"):
            waits.append(self.asked["expires"] - time.time())
        # A clock that counts on while the machine sleeps wakes nobody: hence never for very long.
        return float(min(600.0, max(0.0, min(waits))))

    def attend(self) -> None:
        """End the machine if it is time."""
        if self.due_s() != 0.0:
            return
        if self.asked.get("expires") and time.time() >= self.asked["expires"]:
            self._end("its time is over")
            return
        self.look_at = processes.boot_time() + min(LOOK_S, self.asked["orphan_after"])
        self.agent.keeper.ask({"held": 1}, self._told)

    def _told(self, held: dict[str, Any]) -> None:
        silent_s = processes.boot_time() - self.heard_at
        if self.is_ending or not self.asked or silent_s < self.asked["orphan_after"] or held["held"]:
            return
        has_results = max(self.agent.acked, held["acked"]) < held["last_exit"] or bool(self.agent.folders.collecting)
        if not has_results or silent_s >= PATIENCE * self.asked["orphan_after"]:
            self._end(f"no driver was heard for {silent_s:.0f} s, and there is nothing to do")

    def _end(self, why: str) -> None:
        self.is_ending = True
        folder, how = self.agent.folder, self.asked["end"]
        root.say(folder, "agent", f"this rented machine ends: {why}")
        self.agent.stop = "now"
        self.agent.keeper.tell({"stop": "now"})
        for place in (folder, NOTICE_FOLDER) if how == "shutdown" else (folder,) if how == "file" else ():
            with contextlib.suppress(OSError):
                os.makedirs(place, mode=0o755, exist_ok=True)
                with open(os.path.join(place, SHUTDOWN), "w", encoding="utf-8") as file:
                    json.dump({"at": time.time(), "why": why}, file)
        if how == "shutdown":
            shut_down(lambda text: root.say(folder, "agent", text))


def shut_down(say: Callable[[str], None]) -> None:
    """Have this machine shut itself down."""
    words = ["shutdown", "-h", "now"]
    if os.geteuid():
        words = ["sudo", "-n", *words]
    program = shutil.which(words[0], path="/usr/sbin:/usr/bin:/sbin:/bin")
    if program is None:
        say(f"there is no {words[0]} here: it cannot be shut down")
        return
    try:
        subprocess.Popen([program, *words[1:]], stdin=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        say(f"it cannot be shut down: {error.strerror}")


def checked(said: Any) -> dict[str, Any]:
    """What was said, if it makes sense.

    Raises:
        BadRented: it does not.
    """
    if said is None or said == {}:
        return {}
    if not isinstance(said, dict):
        raise BadRented("rented must be an object, or null")
    found: dict[str, Any] = {"end": said.get("end", "agent")}
    if found["end"] not in ENDS:
        raise BadRented(f"rented: end must be one of {', '.join(ENDS)}")
    for name in ("orphan_after", "expires"):
        value = said.get(name)
        if value is None and name == "expires":
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e11:
            raise BadRented(f"rented: {name} must be a number of seconds")
        found[name] = float(value)
    return found
