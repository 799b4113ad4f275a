"""Starting one program for a task: its environment, finding it, `posix_spawn`.

Never `fork`: copying the keeper's page tables costs more than the task (measured: 0.4 of the throughput).
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import time
from typing import Any

from scitq.remote.agent import containers
from scitq.remote.agent.orders import Order
from scitq.remote.agent.slots import Slot

DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
RESET = tuple(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
"""Signals that this process ignores, or inherited as ignored: a task must not inherit that. All of them, since those that are not
named here are looked at one by one in the child, which costs as much again."""


class CannotSpawn(Exception):
    """The program cannot be started: `code` is the shell's (127 not found, 126 not executable)."""

    def __init__(self, code: int, note: str) -> None:
        super().__init__(note)
        self.code = code
        self.note = note


class NoRoom(Exception):
    """This machine cannot start any process now; the program is not to blame."""


def own_base() -> dict[str, str]:
    """What a task gets when its order brings no base environment."""
    base = {"PATH": os.environ.get("PATH") or DEFAULT_PATH, "LANG": os.environ.get("LANG") or "C.UTF-8"}
    for name in ("HOME", "USER"):
        if os.environ.get(name):
            base[name] = os.environ[name]
    if len(base) < 4:
        import pwd

        try:
            user = pwd.getpwuid(os.getuid())
        except KeyError:
            base.setdefault("HOME", "/")
        else:
            base.setdefault("HOME", user.pw_dir)
            base.setdefault("USER", user.pw_name)
    return base


def environment(order: Order, slot: Slot, base: dict[str, str], journal: str, cpu: int) -> dict[str, str]:
    """The whole environment of a task: the base, the user's, ours."""
    env = {**base, **order.base, **order.env} if order.base or order.env else dict(base)
    env.update(slot.environment)
    env["CPU"] = str(order.cpu or cpu)
    if order.memory is not None:
        env["MEMORY"] = str(order.memory)
    if order.gpus:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(order.gpus)
    env["SCITQ_TASK"] = order.task
    env["SCITQ_EXECUTION"] = order.key
    env["SCITQ_JOURNAL"] = journal
    return env


# Where programs were found, and when: thousands of short tasks run the same one within a second.
_found: dict[tuple[str, str], tuple[float, str]] = {}
_FOUND_S = 1.0


def find(program: str, path: str) -> str:
    """Where the program lies, searched on the task's own PATH and from its own (the current) folder.

    A place is believed for a second, if it is an absolute one; a search that found nothing is not remembered.
    """
    if "/" in program:
        return program
    now = time.monotonic()
    known = _found.get((program, path))
    if known is not None and now - known[0] < _FOUND_S:
        return known[1]
    place = _search(program, path)
    if place.startswith("/"):
        if len(_found) > 1000:
            _found.clear()
        _found[program, path] = (now, place)
    return place


def _search(program: str, path: str) -> str:
    found_unusable = None
    for folder in path.split(":"):
        candidate = f"{folder}/{program}" if folder else f"./{program}"
        try:
            mode = os.stat(candidate).st_mode
        except (OSError, ValueError):
            continue
        if stat.S_ISREG(mode):
            if os.access(candidate, os.X_OK):
                return candidate
            found_unusable = candidate
    if found_unusable:
        raise CannotSpawn(126, f"{found_unusable}: not executable; chmod +x it, or name its interpreter")
    raise CannotSpawn(127, f"{program}: not found on this worker's PATH ({path or 'empty'})")


class Spawner:
    """Starts programs in slots. The current folder is the root before and after."""

    def __init__(self, identity: str = "") -> None:
        self.identity = identity
        """Of the root folder."""
        self.root = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
        self.null = os.open(os.devnull, os.O_RDONLY)

    def start(self, order: Order, slot: Slot, env: dict[str, str], nice: int = 0) -> int:
        """The pid of the new process: leader of its own session and group. A container stands back as far as `nice` says,
        processes are told later. Raises CannotSpawn or NoRoom."""
        argv = order.argv
        if order.script is not None:
            try:
                slot.write_command(order.script.encode("utf-8", "surrogateescape"))
            except OSError as error:
                raise NoRoom(f"cannot write the script: {error.strerror}") from error
            argv = [argv[0], slot.command]
        try:
            if order.image is not None:
                if containers.is_apart(order.image):
                    said = containers.plan(order, slot, self.identity, env, nice)
                    return containers.spawn(said, order.key, env["SCITQ_JOURNAL"], slot, RESET)
                argv, env = containers.execute(order, slot, env)
            if order.cwd is None or order.image is not None:
                os.fchdir(slot.work)
            else:
                try:
                    os.chdir(order.cwd)
                except OSError as error:
                    raise CannotSpawn(126, f"{order.cwd}: cannot run there: {error.strerror}") from None
            program = find(argv[0], env.get("PATH", DEFAULT_PATH))
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
            more: tuple[tuple[Any, ...], ...] = ()
            if order.box is not None and order.box.folders:
                program, argv, env = order.box.launcher(program, argv, env)
                more = ((os.POSIX_SPAWN_DUP2, order.box.file, 3),)
            return os.posix_spawn(
                program,
                argv,
                env,
                # The child opens its streams itself: a shared open file would carry flags (O_NONBLOCK…) to the next task.
                file_actions=(
                    (os.POSIX_SPAWN_DUP2, self.null, 0),
                    (os.POSIX_SPAWN_OPEN, 1, slot.out_path, flags, 0o600),
                    (os.POSIX_SPAWN_OPEN, 2, slot.err_path, flags, 0o600),
                    *more,
                ),
                setsid=True,
                setsigmask=(),
                setsigdef=RESET,
            )
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC):
                raise NoRoom(f"{argv[0]}: cannot start a process: {error.strerror}") from error
            raise CannotSpawn(*refused(argv[0], error)) from error
        except ValueError as error:  # what posix_spawn itself finds impossible to pass on
            raise CannotSpawn(126, f"{argv[0]}: {error}") from error
        finally:
            os.fchdir(self.root)


def refused(program: str, error: OSError) -> tuple[int, str]:
    """The exit code and the note for a program that the system would not start."""
    if error.errno == errno.ENOENT:
        return 127, f"{program}: no such program (or the interpreter in its first line is missing)"
    if error.errno == errno.E2BIG:
        return 126, f"{program}: arguments and environment are longer than the system allows; pass a file or a script"
    if error.errno == errno.ENOEXEC:
        return 126, f"{program}: not a program; does its first line name an interpreter?"
    return 126, f"{program}: {error.strerror}"
