"""One container of podman, which has no daemon: a monitor of its own keeps the container, our programs come and go.

Attached by `podman start --attach`, which is given the streams of the slot. When that program is killed the container
lives on, and its log says the rest; it is looked at in the end in any case.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from typing import Any

from scitq.remote.agent import processes
from scitq.remote.agent.container import CONT, KILL, STOP, TERM, Ended, Process, call, client

MARK = "SCITQ_CONTAINER"
"""In the environment of our programs that follow a container, so that the next of us can end them."""


class Broken(Exception):
    """podman itself does not answer as it should."""


class PodmanRun(Process):
    """A container of podman."""

    def __init__(self, plan: dict[str, Any]) -> None:
        super().__init__(plan)

    def follow(self) -> None:
        """Make and start it, or find it; then until its end."""
        if self.plan["adopt"]:
            self._end_others()
            self.seen()
        else:
            self.create()
        while True:
            if self.judge(self.patiently(self.look, Broken)):
                self.is_running = True
                self.read_log()
            elif self.ending is not None:
                raise Ended(None, sig=self.ending)
            else:
                self.start()

    def start(self) -> None:
        """Attached from before the start until the end."""
        self.is_running = True
        code = self._run([*_START, self.name], ())
        self.seen()
        state = self.patiently(self.look, Broken)
        if code and state is not None and state["Status"] in _BEFORE:
            with open("/proc/self/fd/2", "rb") as file:  # nothing but podman's own words can be there
                self.refused(file.read(1 << 16).decode("utf-8", "replace"))

    def look(self) -> dict[str, Any] | None:
        """What podman says of the container: None when it knows none."""
        code, out, err = call(["podman", "container", "inspect", "--format", "{{json .State}}", self.name], {})
        if code:
            if "no such container" in err.lower():
                return None
            raise Broken(err.strip()[-300:])
        try:
            state: dict[str, Any] = json.loads(out)
        except ValueError as error:
            raise Broken(out[:300]) from error
        return state

    def judge(self, state: dict[str, Any] | None) -> bool:
        """Raise Ended when it is over; else say whether it has been started."""
        if state is None:
            raise Ended(None, "unknown", "its container is gone, and not by scitq: how it ended was not seen")
        if state["Status"] in _BEFORE:
            return False
        if state["Status"] in ("running", "paused", "stopping") or state.get("Running"):
            return True
        # Also after an end that was seen: on a busy machine podman has been seen to end without the last of the output.
        self.rest_of_log()
        code = int(state["ExitCode"])
        # Its monitor does not see every such end (none on machines with control groups of version 1).
        if state.get("OOMKilled") or (self.plan["memory"] and code == 128 + KILL and self.ending is None):
            raise Ended(code, "memory", self.shortage())
        raise Ended(code)

    def read_log(self) -> None:
        """What its log has and the streams of the slot have not, until it ends."""
        self._log(["--follow"])
        with contextlib.suppress(Broken):
            self._run(["podman", "wait", self.name], _SILENT)

    def rest_of_log(self) -> None:
        """The same of a container that has ended."""
        self._log([])

    def _log(self, more: list[str]) -> None:
        self.again()
        pipes = [os.pipe(), os.pipe()]
        try:
            actions = tuple((os.POSIX_SPAWN_DUP2, pipe[1], stream) for pipe, stream in zip(pipes, (1, 2)))  # noqa: B905 needs 3.10
            pid = self._spawn(["podman", "logs", *more, self.name], actions)
        finally:
            for _, writing in pipes:
                os.close(writing)
        open_ends = {pipes[0][0]: 1, pipes[1][0]: 2}
        while open_ends:
            self.pass_on()
            ready, _, _ = select.select([*open_ends, self.wake], [], [], self.patience())
            for end in ready:
                if end == self.wake:
                    self.awake()
                elif data := os.read(end, 1 << 16):
                    self.write(open_ends[end], data)
                else:
                    os.close(end)
                    del open_ends[end]
        self._wait(pid)

    # Programs.

    def _spawn(self, argv: list[str], actions: tuple[Any, ...]) -> int:
        env = {**client(), MARK: self.name}
        first = ((os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),)
        return os.posix_spawnp(
            argv[0], argv, env, file_actions=(*first, *actions), setsid=True, setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGINT, signal.SIGHUP),
        )  # fmt: skip

    def _run(self, argv: list[str], actions: tuple[Any, ...]) -> int:
        return self._wait(self._spawn(argv, actions))

    def _wait(self, pid: int) -> int:
        """Until that program has ended. Signals go on to the container meanwhile."""
        while True:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(status)
            self.pass_on()
            if select.select([self.wake], [], [], self.patience())[0]:
                self.awake()

    def signal(self, number: int) -> bool:
        if number in (STOP, CONT):
            return call(["podman", "pause" if number == STOP else "unpause", self.name], {})[0] == 0
        if number in (TERM, KILL):
            call(["podman", "unpause", self.name], {})  # a paused one hears nothing
        code, _, err = call(["podman", "kill", "--signal", str(number), self.name], {})
        low = err.lower()
        if "no such container" in low:
            return True
        # One that has not begun yet is not running either, so that it is tried again until our program ends.
        return code == 0

    def stand_back(self, nice: int) -> None:
        # One that was just started does so already, for podman's programs do. Only root may bring it forward again.
        code, out, _ = call(["podman", "container", "inspect", "--format", "{{.State.Pid}}", self.name], {})
        for thread in _threads_below(int(out)) if code == 0 and out.strip().isdecimal() and int(out) > 0 else ():
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, thread, nice)

    def _end_others(self) -> None:
        """A program that followed the container for the process before this one would write everything twice."""
        mark = f"{MARK}={self.name}".encode()
        until = time.monotonic() + 30
        while time.monotonic() < until:
            found = [pid for pid in _pids() if mark in (processes.environment(pid) or ()) and _is_program(pid)]
            if not found:
                return
            for pid in found:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)


_BEFORE = ("created", "configured", "initialized")
_START = ["podman", "start", "--attach", "--sig-proxy=false"]
_SILENT = ((os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0), (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0))


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _threads_below(pid: int) -> list[int]:
    """The threads of a process and of all that came of it: each has a priority of its own."""
    left, found = [pid], []
    for each in left:
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{each}/task"):
                found.append(int(thread))
                with open(f"/proc/{each}/task/{thread}/children", "rb") as file:
                    left += map(int, file.read().split())
    return found


def _is_program(pid: int) -> bool:
    """Whether it is podman's program as we start it: its monitor and what that starts carry our mark as well."""
    found = processes.facts(pid)
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
    except OSError:
        return False
    return (
        found is not None
        and found.session == pid
        and words[0].endswith(b"podman")
        and words[1:2] in ([b"start"], [b"logs"], [b"wait"])
    )
