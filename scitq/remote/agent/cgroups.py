"""Control groups: what an execution asked for in memory and CPUs becomes a limit that the system (Linux) keeps.

Only an execution with a `limit` gets a group, its `Box`; all others are spawned as if this module were not there. A
program enters its group before it begins: the keeper starts a launcher, which enters, then becomes the program.

    v1  one hierarchy for each of memory and cpu: groups are made below the keeper's own
    v2  one for both: a group that holds processes cannot limit groups below it, so they are made beside the keeper's
        own, if that one has no limit itself (which they would escape)

Version 1 is tested on real hierarchies. Of version 2 entering, killing and removing are, too; its limits are tested on
a plain folder that stands in for a hierarchy.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import signal
import sys

from scitq.remote.agent.hierarchies import is_v2, read

PERIOD_US = 100_000
NEAR_BYTES = 4 << 20
"""What a program is refused may be one large page: so far below its limit it may be when it is killed."""
_LAUNCHER = """
import _signal, marshal, posix
size = posix.fstat(3).st_size
groups, program, argv, env = marshal.loads(posix.pread(3, size, 0))
posix.set_inheritable(3, False)
try:
    for group in groups:
        file = posix.open(group, posix.O_WRONLY)
        posix.write(file, b"0")
        posix.close(file)
except OSError as problem:
    posix.pwrite(3, b"enter %d" % problem.errno, size)
    size = posix.fstat(3).st_size
for number in (_signal.SIGPIPE, _signal.SIGXFSZ, _signal.SIGINT):
    _signal.signal(number, _signal.SIG_DFL)
try:
    posix.execve(program, argv, env)
except OSError as problem:
    posix.pwrite(3, b" exec %d" % problem.errno, size)
    posix._exit(127)
"""
"""Reads from descriptor 3 what to enter and what to become; says there what failed. Python itself ignores SIGPIPE and
SIGXFSZ, which programs must not inherit. Entering fails rarely, and then limits are not worth the work: it goes on."""


class Box:
    """The group of one execution: a folder in each hierarchy that limits it."""

    __slots__ = ("file", "folders", "program", "size", "wanted")

    def __init__(self, folders: list[str], wanted: dict[str, dict[str, float]] | None = None) -> None:
        self.folders = folders
        self.wanted = wanted or {}
        """By folder: what is to be limited there, and to what."""
        self.program = ""
        self.file = -1
        self.size = 0

    def make(self) -> list[str]:
        """Make the group and set its limits. What cannot be had is left out, and said."""
        problems = []
        for folder, limits in self.wanted.items():
            try:
                with contextlib.suppress(FileExistsError):
                    make(folder)
                for what, value in limits.items():
                    limit(folder, what, value)
            except OSError as error:
                problems.append(f"no limit of {' and '.join(limits)}: {error.filename or folder}: {error.strerror}")
                Box([folder]).remove()
                self.folders.remove(folder)
        return problems

    def launcher(self, program: str, argv: list[str], env: dict[str, str]) -> tuple[str, list[str], dict[str, str]]:
        """What to spawn, with `file` as its descriptor 3, so that this program runs in the group."""
        self.program = argv[0]
        doors = [os.fsencode(f"{folder}/cgroup.procs") for folder in self.folders]
        variables = {os.fsencode(name): os.fsencode(value) for name, value in env.items()}
        data = marshal.dumps((doors, os.fsencode(program), [os.fsencode(word) for word in argv], variables))
        self.file, self.size = os.memfd_create("launch"), len(data)
        os.write(self.file, data)
        # Of the task's own environment only our marks: its LD_LIBRARY_PATH, say, is not meant for the launcher.
        marks = {name: env[name] for name in ("SCITQ_EXECUTION", "SCITQ_JOURNAL")}
        return sys.executable, [sys.executable, "-I", "-S", "-c", _LAUNCHER], {**os.environ, **marks}

    def failure(self) -> dict[str, int]:
        """What the launcher could not do, by `enter` or `exec`: the numbers of the errors. Closes its file."""
        if self.file < 0:
            return {}
        words = os.pread(self.file, 100, self.size).split()
        os.close(self.file)
        self.file = -1
        return {name.decode(): int(number) for name, number in zip(words[::2], words[1::2])}  # noqa: B905 needs 3.10

    def members(self) -> list[int]:
        """The processes in it, those in groups that they made themselves included."""
        found: set[int] = set()
        for folder in self.folders:
            for path, _, _ in os.walk(folder):
                # 0 stands for a process that cannot be seen from here, and would mean our own group to kill().
                found.update(pid for pid in map(int, read(f"{path}/cgroup.procs").split()) if pid > 0)
        return sorted(found - {os.getpid()})

    def terminate(self, beside: int = 0) -> None:
        """TERM for each process, but those of the process group `beside`; a stopped one hears it when it goes on."""
        for pid in self.members():
            with contextlib.suppress(OSError):
                if os.getpgid(pid) != beside:
                    os.kill(pid, signal.SIGTERM)
                    os.kill(pid, signal.SIGCONT)

    def kill(self) -> None:
        """KILL for all of it: in one step where the system offers that, else until no new one appears."""
        for folder in self.folders:
            if os.path.exists(f"{folder}/cgroup.kill"):
                with contextlib.suppress(OSError):
                    _write(f"{folder}/cgroup.kill", "1")
                    return
        killed: set[int] = set()
        while fresh := set(self.members()) - killed:
            for pid in fresh:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            killed |= fresh

    def shortage(self, was_killed: bool) -> str | None:
        """How it ran out of memory; None when it did not. `was_killed`: its program ended by KILL, not ours."""
        for folder in self.folders:
            if events := _fields(read(f"{folder}/memory.events")):
                kills, limit = events.get("oom_kill", 0), read(f"{folder}/memory.max").strip()
                is_at_limit = events.get("oom", 0) > 0
            elif events := _fields(read(f"{folder}/memory.oom_control")):
                limit = read(f"{folder}/memory.limit_in_bytes").strip()
                most = read(f"{folder}/memory.max_usage_in_bytes").strip()
                # The count of refusals (failcnt) stays 0 on some systems, so that the peak has to tell.
                is_at_limit = limit.isdigit() and most.isdigit() and int(most) + NEAR_BYTES > int(limit)
                kills = events.get("oom_kill", int(was_killed and is_at_limit))  # not counted before Linux 4.13
            else:
                continue
            if kills and is_at_limit and limit.isdigit():
                return f"it was killed at its limit of {int(limit) / 1e9:.3g} GB of memory"
            if kills:
                return "it was killed because its worker had no memory left"
        return None

    def remove(self) -> bool:
        """Remove the group; False when something still runs in it."""
        self.failure()  # a file may be open still
        is_gone = True
        for folder in self.folders:
            for path, _, _ in os.walk(folder, topdown=False):
                try:
                    unmake(path)
                except FileNotFoundError:
                    continue
                except OSError:
                    is_gone = False
        return is_gone


def limit(folder: str, what: str, value: float) -> None:
    """Set one limit of a group: bytes of `memory`, swap included where that is counted, or a number of `cpus`."""
    if what == "memory":
        if is_v2(folder):
            _write(f"{folder}/memory.max", str(int(value)))
            _write_if(f"{folder}/memory.swap.max", "0")
            _write_if(f"{folder}/memory.oom.group", "1")
        else:
            _write(f"{folder}/memory.limit_in_bytes", str(int(value)))
            _write_if(f"{folder}/memory.memsw.limit_in_bytes", str(int(value)))
    else:
        quota = max(1000, int(value * PERIOD_US))
        if is_v2(folder):
            _write(f"{folder}/cpu.max", f"{quota} {PERIOD_US}")
        else:
            _write(f"{folder}/cpu.cfs_period_us", str(PERIOD_US))
            _write(f"{folder}/cpu.cfs_quota_us", str(quota))


def make(folder: str) -> None:
    """Make one folder of a hierarchy; the system fills it."""
    os.mkdir(folder, 0o755)


def unmake(folder: str) -> None:
    """Remove one; OSError while it has processes."""
    os.rmdir(folder)


def _fields(text: str) -> dict[str, int]:
    """`name number` lines."""
    return {name: int(number) for name, number in (line.split() for line in text.splitlines())}


def _write(path: str, text: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_TRUNC)
    try:
        os.write(file, text.encode("ascii"))
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(file)


def _write_if(path: str, text: str) -> None:
    """The same where the system has such a file (it may lack swap accounting, say)."""
    with contextlib.suppress(OSError):
        _write(path, text)
