"""The process that stands for one container: made by the keeper like any task's process, parent of nothing but requests.

`agent.pyz container`, with its plan in descriptor 3: see `containers.plan`. It makes the container, follows it and
brings what it writes into the streams of the slot. How it ended goes into a file, whole and before this process ends,
so that a keeper that came later, or whose process was killed, learns of it as well. Run again with `adopt`, it finds
the container by its name and goes on: what is in the streams already is passed over in the engine's own log.

Real-time signal N means signal N to the container; TERM means TERM. Nothing else ends this process.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

PAUSE_S = 0.2
LONGEST_PAUSE_S = 2.0
AWAY_S = 600.0
"""For how long an engine that does not answer is waited for before its container is given up."""
STOP, CONT, TERM, KILL = (int(number) for number in (signal.SIGSTOP, signal.SIGCONT, signal.SIGTERM, signal.SIGKILL))


class Ended(Exception):
    """It is over: `code` its exit code, `why` a journal's word when it did not end by itself."""

    def __init__(self, code: int | None, why: str | None = None, note: str | None = None, **more: Any) -> None:
        super().__init__(note)
        self.said: dict[str, Any] = {"code": code, "why": why, "note": note, **more}


class Process:
    """What docker's and podman's way of it have in common: signals, streams, the word of the end."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.name: str = plan["name"]
        self.cap: int = plan["cap"]
        self.done = {1: 0, 2: 0}
        """Bytes of each stream that are in the slot."""
        self.skip = {1: 0, 2: 0}
        """Of what comes now, what is there already."""
        self.wanted: list[int] = []
        """Signals for the container that have not reached it, in order."""
        self.ending: int | None = None
        """TERM or KILL, once it was asked for."""
        self.retry_at: float | None = None
        """When a signal that did not reach the container is tried again."""
        self.is_running = False
        self.nice: int | None = plan.get("nice")
        """How far the container stands back, as far as that is known."""
        self.is_to_look = True
        """Whether that may have changed."""
        self.wake, waker = os.pipe()
        for end in (self.wake, waker):
            os.set_blocking(end, False)
        for number in (
            *range(signal.SIGRTMIN + 1, signal.SIGRTMAX + 1),
            signal.SIGTERM,
            signal.SIGCHLD,
            signal.SIGWINCH,
        ):
            signal.signal(number, self._heard)
        for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(ignored, signal.SIG_IGN)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def _heard(self, number: int, _: object) -> None:
        if number in (signal.SIGCHLD, signal.SIGWINCH):
            self.is_to_look = self.is_to_look or number == signal.SIGWINCH
            return
        told = TERM if number == signal.SIGTERM else number - signal.SIGRTMIN
        if told in (TERM, KILL):
            self.ending = max(self.ending or 0, told, key=lambda each: (each == KILL, each))
        self.wanted.append(told)

    def awake(self) -> None:
        """A signal has come."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.wake, 4096)

    def patience(self) -> float | None:
        """Seconds until a signal is to be tried again."""
        return None if self.retry_at is None else max(0.0, self.retry_at - time.monotonic())

    def pass_on(self) -> None:
        """Give the container the signals that are meant for it; what ends it is tried until it arrives."""
        if self.is_to_look and self.is_running:
            self.is_to_look = False
            self._look_how_polite()
        if self.retry_at is not None and time.monotonic() < self.retry_at:
            return
        self.retry_at = None
        while self.wanted and self.is_running:
            number = self.wanted[0]
            if not self.signal(number) and number in (TERM, KILL):
                self.retry_at = time.monotonic() + PAUSE_S
                return
            self.wanted.pop(0)

    def signal(self, number: int) -> bool:
        """Give the container one; False when it did not arrive."""
        raise NotImplementedError

    def _look_how_polite(self) -> None:
        """Have the container stand back as far as is wanted now."""
        try:
            with open(self.plan["polite"], encoding="ascii") as file:
                wanted = int(json.load(file)["asked"].get("nice", 0))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return  # nobody ever asked for it, or an older keeper does not say where that would be
        if wanted != self.nice:
            self.nice = wanted
            self.stand_back(wanted)

    def stand_back(self, nice: int) -> None:
        """Have it do so, as well as can be."""
        raise NotImplementedError

    # Streams.

    def seen(self) -> None:
        """Begin with what an earlier process brought."""
        for stream in (1, 2):
            self.done[stream] = os.fstat(stream).st_size

    def again(self) -> None:
        """All of it comes again: what is there is passed over."""
        self.skip = dict(self.done)

    def write(self, stream: int, data: bytes) -> None:
        """Into the slot, up to a little more than what is kept of it."""
        if skipped := min(self.skip[stream], len(data)):
            self.skip[stream] -= skipped
            data = data[skipped:]
        room = self.cap + 1 - self.done[stream]
        self.done[stream] += len(data)
        view = memoryview(data)[: max(0, room)]
        while view:
            try:
                view = view[os.write(stream, view) :]
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                return  # as a program would lose it

    # The end.

    def run(self) -> dict[str, Any]:
        """Until it is over; how it ended."""
        try:
            self.follow()
        except Ended as ended:
            return ended.said
        raise AssertionError("a container without an end")

    def follow(self) -> None:
        """Do all of it; raises Ended."""
        raise NotImplementedError

    def patiently(self, action: Callable[[], Any], away: type[Exception]) -> Any:
        """Do it as soon as the engine answers; Ended when it does not for too long."""
        until, pause = time.monotonic() + AWAY_S, PAUSE_S
        while True:
            try:
                return action()
            except away as problem:
                if time.monotonic() > until:
                    note = f"{self.plan['engine']} has not answered for {AWAY_S / 60:.0f} minutes: {problem}"
                    raise Ended(None, "unknown", note) from None
            time.sleep(pause)
            pause = min(LONGEST_PAUSE_S, 1.5 * pause)

    # Programs.

    def create(self) -> None:
        """Have the engine make the container. Ended when it will not."""
        code, _, said = call(self.plan["create"], self.plan["env"])
        if code:
            self.refused(said)

    def shortage(self) -> str:
        """The sentence for an end for want of memory; the same as of a task without a container."""
        limit = self.plan.get("memory")
        if limit:
            return f"it was killed at its limit of {limit / 1e9:.3g} GB of memory"
        return "it was killed because its container had no memory left"

    def refused(self, said: str) -> None:
        """The engine would not make the container, or not start it."""
        raise of_refusal(self.plan["engine"], said)


def of_refusal(engine: str, said: str) -> Ended:
    """What it means that an engine says this instead of running a container."""
    lines = [line.strip() for line in said.splitlines() if line.strip() and "WARNING" not in line]
    text = next((line for line in lines if "rror" in line), lines[0] if lines else "no word why")
    text = text.removeprefix("Error: ").removeprefix("Error response from daemon: ")
    for program in ("docker: ", "Error response from daemon: "):
        text = text.removeprefix(program)
    note, low = f"{engine}: {text}"[:1000], said.lower()
    if "no such image" in low or "image not known" in low or "unable to find image" in low:
        return Ended(None, "unstarted", f"{note} (it was removed after it had been staged)")
    if any(sign in low for sign in ("executable file not found", "no such file or directory: unknown", "stat ", "not found in $path")) \
            and ("exec" in low or "entrypoint" in low):  # fmt: skip
        return Ended(127, "spawn", note)
    if "exec" in low and ("permission denied" in low or "is a directory" in low):
        return Ended(126, "spawn", note)
    if any(sign in low for sign in _ASKED_WRONG):
        return Ended(125, "spawn", note)
    return Ended(None, "stage_in", note, error="EngineFailed")


_ASKED_WRONG = (
    "unknown flag", "unknown shorthand", "invalid", "flag needs", "duplicate mount", "must be", "minimum memory", "conflicting",
    "no such network",
    "network not found", "bad parameter", "not supported", "is a boolean", "requires", "range of cpus", "unable to find user",
    "no matching entries", "accepts at", "see '", "could not select device driver", "error gathering device", "no such container",
)  # fmt: skip
"""Words of an engine that does not like what it was asked for: another worker would say the same."""


def call(argv: list[str], env: dict[str, str]) -> tuple[int, str, str]:
    """Run a program of the engine to its end: its exit code, and what it wrote."""
    variables, lines = split(env)
    files = [os.memfd_create(name) for name in ("env", "out", "err")]
    os.write(files[0], lines)
    actions: list[tuple[Any, ...]] = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
    actions += [
        (os.POSIX_SPAWN_DUP2, files[1], 1),
        (os.POSIX_SPAWN_DUP2, files[2], 2),
        (os.POSIX_SPAWN_DUP2, files[0], 3),
    ]
    try:
        pid = os.posix_spawnp(
            argv[0], argv, {**client(), **variables}, file_actions=actions, setsid=True, setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGINT, signal.SIGHUP),
        )  # fmt: skip
        status = os.waitpid(pid, 0)[1]
        out, err = (os.pread(file, 1 << 20, 0).decode("utf-8", "replace") for file in files[1:])
        return os.waitstatus_to_exitcode(status), out, err
    except OSError as error:
        return 125, "", f"{argv[0]}: {error.strerror}"
    finally:
        for file in files:
            os.close(file)


def client() -> dict[str, str]:
    """The environment of the engine's programs: ours, without the marks by which a keeper knows its tasks."""
    return {name: value for name, value in os.environ.items() if name not in ("SCITQ_EXECUTION", "SCITQ_JOURNAL")}


LINE_BYTES = 60_000


def split(env: dict[str, str]) -> tuple[dict[str, str], bytes]:
    """A container's variables: those that must be in the environment of the program, and the lines of a file."""
    variables, lines = {}, []
    for name, value in env.items():
        if is_line(name, value):
            lines.append(f"{name}={value}\n")
        else:
            variables[name] = value
    return variables, "".join(lines).encode()


def is_line(name: str, value: str) -> bool:
    """Whether a variable can stand in a line of a file."""
    if not name.isidentifier() or not name.isascii() or set(value) & set("\n\r") or len(value) > LINE_BYTES:
        return False
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def main(descriptor: int = 3) -> int:
    """Follow the container of the plan in that descriptor; its exit code, as far as it is one."""
    plan = json.loads(os.pread(descriptor, os.fstat(descriptor).st_size, 0))
    os.close(descriptor)
    with contextlib.suppress(OSError):
        os.unlink(plan["ended"] + ".new")
    if plan["engine"] == "docker":
        from scitq.remote.agent.dockerrun import DockerRun

        process: Process = DockerRun(plan)
    else:
        from scitq.remote.agent.podmanrun import PodmanRun

        process = PodmanRun(plan)
    said = process.run()
    while True:
        try:
            _write(plan["ended"], said)
            break
        except OSError as error:
            if error.errno == errno.ENOENT:
                break  # the agent's folder is gone: nobody will ask
            print(f"cannot say how {plan['name']} ended, trying again: {error}", file=sys.stderr)
            time.sleep(1)
    return said["code"] if said["code"] is not None else 125


def _write(path: str, said: dict[str, Any]) -> None:
    """Whole or not at all: whoever finds it believes it."""
    with open(path + ".new", "w", encoding="ascii") as file:
        json.dump(said, file)
    os.rename(path + ".new", path)
