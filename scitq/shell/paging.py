"""Long answers through the pager of the settings, where there is a person to turn pages; without that setting nothing is paged."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence

from scitq import config


def chosen() -> list[str]:
    """The program and its arguments; empty: none is wanted."""
    with contextlib.suppress(ValueError, OSError):
        if os.isatty(0) and os.isatty(1):
            return shlex.split(config.load().get("pager"))
    return []


def is_long(lines: Sequence[str]) -> bool:
    """Whether they do not fit on the screen, with a line for the prompt."""
    return len(lines) >= shutil.get_terminal_size((80, 24)).lines


def show(program: Sequence[str], lines: Sequence[str]) -> str | None:
    """Show lines until the reader has seen enough; what went wrong, in words."""
    text = "".join(line + "\n" for line in lines).encode(errors="backslashreplace")
    try:
        child = subprocess.Popen(program, stdin=subprocess.PIPE, env={"LESS": "FRX", **os.environ})
    except OSError as error:
        return f"the pager {program[0]!r} cannot be started: {error.strerror}."
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        child.stdin.write(text)
    with contextlib.suppress(BrokenPipeError):
        child.stdin.close()
    while True:
        with contextlib.suppress(KeyboardInterrupt):  # it is the pager's own
            child.wait()
            return None
