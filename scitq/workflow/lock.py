"""One process runs a workflow: a lock on a side file, which the kernel releases when the process dies.

Within a process the newest `Workflow` of a name has it: a notebook cell may be run again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import threading
import time
from pathlib import Path

from scitq.errors import WorkflowBusy
from scitq.store.locks import FileLock

_held: dict[Path, WorkflowLock] = {}
_gate = threading.Lock()
# Who is about to write its name into the file has so long.
_PATIENCE_S = 1.0


class WorkflowLock:
    """The right to run a workflow of a state file."""

    def __init__(self, side: Path, name: str) -> None:
        self.path = side / "workflows" / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.lock"
        self._name = name
        self._file: FileLock | None = None
        self.is_running = False
        """Whether its owner runs the workflow now: then no other of this process takes its place."""

    @property
    def is_held(self) -> bool:
        """Whether this one has it."""
        return self._file is not None

    def acquire(self) -> None:
        """Take it.

        Raises:
            WorkflowBusy: another process has it, or another thread of this one runs the workflow.
        """
        with _gate:
            if self._file is not None:
                return
            other = _held.get(self.path)
            if other is not None and other._file is not None:
                if other.is_running:
                    raise WorkflowBusy(
                        f"workflow {self._name!r} is run by another thread of this very process.",
                        workflow=self._name, pid=os.getpid(), program=None,
                    )  # fmt: skip
                self._file, other._file = other._file, None
                _held[self.path] = self
                return
            self.path.parent.mkdir(mode=0o700, exist_ok=True)
            file = FileLock(self.path)
            if not file.try_acquire():
                file.close()
                raise self._busy()
            os.ftruncate(file.fd, 0)
            os.pwrite(file.fd, json.dumps({"pid": os.getpid(), "program": _program()}).encode(), 0)
            self._file = file
            _held[self.path] = self

    def release(self) -> None:
        """Let go of it."""
        with _gate:
            if self._file is not None:
                self._file.close()
                self._file = None
                if _held.get(self.path) is self:
                    del _held[self.path]

    def _busy(self) -> WorkflowBusy:
        pid, program = None, None
        ends = time.monotonic() + _PATIENCE_S
        while pid is None and time.monotonic() < ends:
            with contextlib.suppress(OSError, ValueError, AttributeError):
                told = json.loads(self.path.read_text())
                pid, program = told.get("pid"), told.get("program")
            if pid is None:
                time.sleep(0.01)
        who = f"process {pid}" if pid is not None else "another process"
        who += f" ({program})" if program else ""
        return WorkflowBusy(
            f"workflow {self._name!r} is run by {who}. Wait for it or stop it; or give it another name; or run along with it: "
            f"Workflow({self._name!r}, …, join=True). To look: scitq workflow watch {self._name}",
            workflow=self._name, pid=pid, program=program,
        )  # fmt: skip


def _program() -> str:
    return os.path.basename(sys.argv[0] if sys.argv and sys.argv[0] else "python")[:100]
