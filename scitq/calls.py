"""The files of Python calls: written here for `runner`, named by their content, deleted when no task needs them.

A call is a task whose command names two files in the side folder's `calls/`: the function, with what its runner must know, and
the arguments. In a container, where that folder is not seen, they are among its inputs, with the runner and the pure Python that
unpacks functions. Futures and waiting are `executor`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import pickle
import re
import secrets
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scitq import runner
from scitq.errors import BadInput, TaskFailed
from scitq.fetch.errors import NotFound
from scitq.fetch.uri import of_path
from scitq.handle import Task
from scitq.states import FINAL, TaskState
from scitq.store import logs, query

if TYPE_CHECKING:
    from scitq.engine import Engine

# The worker must have this very minor version: what one packs, another cannot always unpack.
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
# Files younger than this may belong to a submission that is just being made.
YOUNG_S = 3600.0
_RUNNER = os.path.abspath(runner.__file__)
# Where a container finds the files of its call.
_PLACE = "scitq-call"
_TOLD = re.compile(rb"^" + runner.EXCEPTION.encode() + rb" ([0-9a-f]{64}) ([A-Za-z0-9+/=]+)$", re.MULTILINE)


class RemoteTraceback(Exception):
    """The traceback of a function's exception on its worker, as text; it is the exception's `__cause__`."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class CallFiles:
    """The files of one executor's calls, each kept as long as a call needs it."""

    def __init__(self, side: Path, *, in_container: bool = False) -> None:
        self._in_container = in_container
        self._folder = side / "calls"
        # Runners sign exceptions with it, so that nothing else on standard error can pass for one.
        self._key = secrets.token_bytes(32)
        self._uses: Counter[str] = Counter()
        self._gate = threading.Lock()

    def function(self, fn: Callable[..., Any]) -> bytes:
        """A function as its file holds it.

        Raises:
            PicklingError, TypeError: it cannot travel.
        """
        if not callable(fn):
            raise BadInput(f"only functions (and what else can be called) can be run, not {type(fn).__name__}.")
        return pickle.dumps(([] if self._in_container else sys.path, self._key), 5) + packed(fn)

    def task(self, files: Sequence[str]) -> dict[str, Any]:
        """The arguments of the task that makes a call whose files were kept under these names."""
        kept = [str(self._folder / name) for name in files]
        if not self._in_container:
            return {"command": [sys.executable, _RUNNER, PYTHON, *kept]}
        library = (unpacker(), f"{_PLACE}/{runner.LIBRARY}/cloudpickle")
        sources = [(path, _PLACE) for path in (_RUNNER, *kept)] + [library]
        below = [f"/input/{_PLACE}/{os.path.basename(path)}" for path, _ in sources[:-1]]
        return {
            "command": ["python3", below[0], PYTHON, *below[1:]],
            "input": [str(of_path(path).with_action(f"mv:{place}")) for path, place in sources],
        }

    def keep(self, data: bytes) -> str:
        """Write a file, unless it is there; returns its name."""
        name = hashlib.sha256(data).hexdigest()
        with self._gate:
            if not self._uses[name]:
                self._write(name, data)
            self._uses[name] += 1
        return name

    def _write(self, name: str, data: bytes) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        fresh = self._folder / f".{name}.{os.getpid()}.new"
        fresh.unlink(missing_ok=True)
        try:
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
            fresh.rename(self._folder / name)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise

    def release(self, names: Sequence[str]) -> None:
        """A call that needed these is over."""
        with self._gate:
            for name in names:
                self._uses[name] -= 1
                if not self._uses[name]:
                    del self._uses[name]
                    with contextlib.suppress(OSError):
                        (self._folder / name).unlink()


def packed(value: Any) -> bytes:
    """A value as cloudpickle packs it."""
    import cloudpickle

    data: bytes = cloudpickle.dumps(value, 5)
    return data


def unpacker() -> str:
    """The folder of the pure Python that unpacks what was packed."""
    import cloudpickle

    return str(os.path.dirname(os.path.abspath(cloudpickle.__file__)))


def name_of(fn: Any) -> str:
    """A name for the tasks that call it: its own, else its type's."""
    inner = getattr(fn, "func", fn)  # of a partial
    return str(getattr(inner, "__name__", None) or type(inner).__name__)


def files_of(command: str | list[str]) -> tuple[str, str]:
    """The names of the function's and the arguments' file of a task that makes a call.

    Raises:
        BadInput: it makes none.
    """
    if isinstance(command, list) and len(command) == 5 and os.path.basename(command[1]) == os.path.basename(_RUNNER):
        return os.path.basename(command[3]), os.path.basename(command[4])
    raise BadInput("that task is no call of a Python function.")


def sweep(engine: Engine) -> int:
    """Delete the files of calls that no task needs any more, left by processes that ended early; returns how many.

    Needed are those of tasks that have not succeeded or been cancelled: a failed one may be relaunched.
    """
    folder = engine.side / "calls"
    done = ",".join(str(int(state)) for state in sorted(FINAL - {TaskState.FAILED}))
    try:
        found = [path for path in folder.iterdir() if time.time() - path.stat().st_mtime > YOUNG_S]
    except FileNotFoundError:
        return 0
    rows = query.rows(
        engine._reader(),
        f"""select spec ->> '$.command[3]', spec ->> '$.command[4]' from task
        where state not in ({done}) and spec ->> '$.tags.python' is not null""",
    )
    needed = {os.path.basename(path) for row in rows for path in row if path}
    unneeded = [path for path in found if path.name not in needed]
    for path in unneeded:
        path.unlink(missing_ok=True)
    return len(unneeded)


def result_of(task: Task) -> Any:
    """What the function of a task that succeeded returned.

    Raises:
        TaskFailed: somebody deleted it.
    """
    try:
        if task.row().spec.output is not None:
            return pickle.loads((task.output / runner.RESULT).read_bytes())
        # The way of nearly every call, without a question to anybody.
        with open(task._engine.side / "outputs" / str(task.id) / runner.RESULT, "rb") as file:
            return pickle.load(file)
    except (FileNotFoundError, NotFound):
        raise TaskFailed(f"task {task.row().label} succeeded, but its result is gone.", task=task.id) from None


def raised_by(task: Task) -> BaseException | None:
    """The exception that the function of a failed task raised; None when it ended in another way."""
    function, _ = files_of(task.row().spec.command)
    try:
        _, key = pickle.loads(runner.read(str(task._engine.side / "calls" / function)))
    except runner.CannotCall:
        return None
    for sign, line in reversed(_TOLD.findall(task.output_bytes(logs.ERR))):
        data = base64.b64decode(line)
        if hmac.compare_digest(hmac.new(key, data, "sha256").hexdigest(), sign.decode()):
            return _unpacked(task, data)
    return None


def _unpacked(task: Task, data: bytes) -> BaseException:
    try:
        error, text = pickle.loads(data)
    except Exception as problem:
        error, text = None, f"(the exception cannot be unpacked here: {type(problem).__name__}: {problem})"
    if isinstance(error, BaseException):
        known = error
    else:
        last = text.strip().rpartition("\n")[2]
        known = TaskFailed(f"the function of task {task.row().label} raised: {last}", task=task.id)
    known.__cause__ = RemoteTraceback(text)
    return known
