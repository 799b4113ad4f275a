"""Pipes, files and other programs: a command's output into them, and the user's own programs in this terminal.

Our own stdout is turned into the pipe or the file while a command runs, as a shell does for a program of its own: whatever the
command writes with, and whether it asks if it writes to a terminal, it behaves as it does there. Nothing draws meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

from scitq.entering import alone
from scitq.errors import BadInput

NOTHING = subprocess.DEVNULL


def system(line: str, *, stdin: int | None = None) -> int:
    """A line for the user's own shell; gives its exit code as a shell would."""
    return _run([os.environ.get("SHELL") or "/bin/sh", "-c", line], stdin)


def _run(words: list[str], stdin: int | None) -> int:
    sys.stdout.flush()
    try:
        return _code(alone(lambda: subprocess.call(words, stdin=stdin)))
    except OSError as error:
        raise BadInput(f"{words[0]}: cannot be started: {error.strerror}. $SHELL names the shell for !.") from error


def _code(code: int) -> int:
    return 128 - code if code < 0 else code


def piped(line: str, run: Callable[[], int]) -> int:
    """Run something whose stdout a line for sh reads, as typed; gives the exit code of that line."""
    if not line.strip():
        raise BadInput("a program is expected after |, such as | less")
    source, sink = os.pipe()
    try:
        reader = subprocess.Popen(["/bin/sh", "-c", line], stdin=source)
    except OSError as error:
        os.close(sink)
        raise BadInput(f"/bin/sh: cannot be started: {error.strerror}.") from error
    finally:
        os.close(source)
    try:
        with _stdout_is(sink):
            run()
    except BaseException:
        alone(reader.wait)
        raise
    return _code(alone(reader.wait))


def filed(path: str, run: Callable[[], int], *, appends: bool) -> int:
    """Run something whose stdout is a file."""
    if not path:
        raise BadInput("a file is expected after > or >>")
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_APPEND if appends else os.O_TRUNC)
    try:
        sink = os.open(path, flags, 0o666)
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}.") from error
    with _stdout_is(sink):
        return run()


@contextlib.contextmanager
def _stdout_is(sink: int) -> Iterator[None]:
    """Our stdout is that file descriptor, which is closed in the end."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(sink, 1)
        os.close(sink)
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):  # whoever read has gone
            sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
