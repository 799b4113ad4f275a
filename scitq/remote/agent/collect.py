"""What becomes of folders that are needed no more, and the threads for blocking work. Bringing outputs home is `publish`."""

from __future__ import annotations

import contextlib
import os
import queue
import stat
import threading
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from scitq.remote.agent import root
from scitq.remote.agent.slots import FOLDERS, OUTPUT

if TYPE_CHECKING:
    from scitq.remote.agent.agent import Agent

THREADS = 4


def remove(path: str) -> None:
    """Delete a file or a whole folder, also one whose user took away the right to enter it."""
    try:
        found = os.lstat(path)
    except OSError:
        return
    if not stat.S_ISDIR(found.st_mode):
        with contextlib.suppress(OSError):
            os.unlink(path)
        return
    import shutil

    for folder, folders, _ in os.walk(path):
        for each in [".", *folders]:
            inner = os.path.join(folder, each)
            if not os.path.islink(inner):
                with contextlib.suppress(OSError):
                    os.chmod(inner, 0o700)
    shutil.rmtree(path, ignore_errors=True)


def tidy(root: str, key: str, is_inline: bool) -> None:
    """After a success: keep the streams and the output of `exec/<key>`, or nothing when neither is needed."""
    home = os.path.join(root, "exec", key)
    output = os.path.join(home, OUTPUT)
    with contextlib.suppress(OSError):
        os.rmdir(output)
    if is_inline and not os.path.lexists(output):
        to_trash(root, home)
    else:
        for name in (*FOLDERS, "delivery", "command", "image"):
            if name != OUTPUT:
                to_trash(root, os.path.join(home, name))
    empty_trash(root)


def to_trash(root: str, path: str) -> bool:
    """Move something out of sight in one step; False when it is not there."""
    try:
        os.rename(path, os.path.join(root, "trash", os.urandom(8).hex()))
    except OSError:
        return False
    return True


def confirm(root: str, key: str) -> bool:
    """The driver has all that it wants of an output that is held for it; see `kept`. False: none was."""
    try:
        os.unlink(os.path.join(root, "kept", key, "unsent"))
    except OSError:
        return False
    return True


_emptying = threading.Lock()
"""Two at the same folder would be in each other's way, and neither could say that it is gone."""


def empty_trash(root: str) -> None:
    """Delete what was moved to the trash. Whatever resists stays for the next time."""
    trash = os.path.join(root, "trash")
    with _emptying, contextlib.suppress(OSError):
        for name in os.listdir(trash):
            remove(os.path.join(trash, name))


class Pool:
    """A few threads for blocking work, made when first needed."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._threads = 0
        self._working = 0
        self._lock = threading.Lock()
        self.open = 0
        """Jobs not yet finished; counted by the loop's thread only, see `Agent`."""

    @property
    def is_busy(self) -> bool:
        """Whether a thread works on something."""
        with self._lock:
            return self._working > 0

    def do(self, job: Callable[[], None]) -> None:
        """Run `job` some time soon."""
        self._jobs.put(job)
        if self._threads < min(THREADS, self.open + 1):
            self._threads += 1
            threading.Thread(target=self._work, daemon=True, name=f"agent-{self._threads}").start()

    def do_then(self, agent: Agent, job: Callable[[], None], done: Callable[[], None]) -> None:
        """Do `job` in a thread and then, whatever became of it, `done` in the agent's loop."""
        self.open += 1

        def finished() -> None:
            self.open -= 1
            done()

        def run() -> None:
            try:
                job()
            except Exception:
                root.say(agent.folder, "agent", traceback.format_exc())
            agent.later(finished)

        self.do(run)

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            with self._lock:
                self._working += 1
            try:
                job()
            finally:
                with self._lock:
                    self._working -= 1
