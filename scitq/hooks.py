"""Telling a person that a batch or a workflow has ended: a program of theirs, the desktop, the terminal. Never harms who tells.

What is told, and when, is `announcing`. Nothing here goes through a shell, and no name of a task's can command anything.
"""

from __future__ import annotations

import contextlib
import html
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scitq.saying import clean, duration
from scitq.states import TaskState
from scitq.store.ends import End

# A notification is handed over at once, or something is wrong.
DESKTOP_S = 10.0
TAIL_BYTES = 2000
# How often it is looked whether a program has ended.
LOOK_S = 0.05
# Programs that were left alone by who had to go.
_left: list[subprocess.Popen[bytes]] = []


def facts(end: End, file: Path, now_ms: int) -> dict[str, Any]:
    """What a program is told, as JSON on its stdin."""
    return {
        "event": f"{end.what}_end", "file": str(file), "batch": end.name if end.what == "batch" else None,
        "workflow": end.workflow, "step": end.step, "tasks": sum(end.counts.values()),
        "counts": {state.word: end.counts.get(state, 0) for state in TaskState if state.is_settled},
        "seconds": max(0, now_ms - end.began_ms) / 1000,
    }  # fmt: skip


def environment(told: Mapping[str, Any]) -> dict[str, str]:
    """The same in variables; `SCITQ_FILE` makes that `scitq` there looks at the same file."""
    plain = {key: told[key] for key in ("event", "file", "batch", "workflow", "step", "tasks", "seconds")} | told[
        "counts"
    ]
    return {
        f"SCITQ_{key.upper()}": "" if value is None else str(value).replace("\0", "") for key, value in plain.items()
    }


def sentence(end: End, now_ms: int) -> tuple[str, str]:
    """A title and a line for people."""
    order = (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED, TaskState.BLOCKED)
    counts = ", ".join(f"{end.counts[state]:,} {state.word}" for state in order if end.counts.get(state))
    took = duration(max(0, now_ms - end.began_ms) / 1000)
    bad = any(end.counts.get(state) for state in (TaskState.FAILED, TaskState.BLOCKED))
    return clean(
        f"{end.what} {end.name} has ended{', not all well' if bad else ''}"
    ), f"{counts or 'no tasks'}, in {took}"


def run(
    words: Sequence[str], told: Mapping[str, Any], folder: Path, timeout_s: float, leave_at: Callable[[], float]
) -> str | None:
    """Run a program of the user's to its end, in the folder of the file; returns what went wrong, in words.

    It is ended with all that it has started when its time is over. From `leave_at` (by the monotonic clock) on it is
    left alone: whoever waits for it has to go.
    """
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
        given.write((json.dumps(told, ensure_ascii=False) + "\n").encode(errors="surrogateescape"))
        given.seek(0)
        try:
            child = subprocess.Popen(
                list(words), stdin=given, stdout=subprocess.DEVNULL, stderr=said, cwd=folder, start_new_session=True,
                env={**os.environ, **environment(told)},
            )  # fmt: skip
        except (OSError, ValueError) as error:
            return f"cannot be started: {getattr(error, 'strerror', None) or error}"
        ends = time.monotonic() + timeout_s
        while child.poll() is None and time.monotonic() < min(ends, leave_at()):
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(min(LOOK_S, max(0.0, ends - time.monotonic())))
        if child.poll() is None and time.monotonic() < ends:
            _left.append(child)
            return None
        if child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            return f"did not end within {duration(timeout_s)}, and was ended"
        if child.returncode == 0:
            return None
        how = f"ended with {child.returncode}" if child.returncode > 0 else f"was ended by signal {-child.returncode}"
        said.seek(max(0, said.seek(0, os.SEEK_END) - TAIL_BYTES))
        lines = said.read().decode(errors="backslashreplace").strip().splitlines()
        return how + (f": {clean(lines[-1].strip())[:200]}" if lines else "")


def desktop(title: str, text: str, timeout_s: float = DESKTOP_S) -> str | None:
    """Show a notification on the desktop; returns what went wrong, in words."""
    if sys.platform == "darwin":
        script = ("on run argv", "display notification (item 2 of argv) with title (item 1 of argv)", "end run")
        words = ["osascript", *(word for line in script for word in ("-e", line)), title, text]
    else:
        # Its text may be read as markup.
        words = ["notify-send", "--app-name=scitq", "--", title, html.escape(text)]
    if shutil.which(words[0]) is None:
        return f"{words[0]} is not here" + (" (Debian: apt install libnotify-bin)" if words[0] == "notify-send" else "")
    try:
        ended = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False, start_new_session=True
        )
    except subprocess.TimeoutExpired:
        return f"{words[0]} did not end within {duration(timeout_s)}"
    except OSError as error:
        return f"{words[0]} cannot be started: {error.strerror}"
    lines = ended.stderr.decode(errors="backslashreplace").strip().splitlines()
    return (
        f"{words[0]} ended with {ended.returncode}: {clean(lines[-1]) if lines else ''}" if ended.returncode else None
    )


def terminal(how: str, title: str, text: str) -> None:
    """Tell the terminal of this process, if it has one; one that does not know the sequence shows nothing."""
    sequences = {
        "bell": "\a",
        "osc9": f"\x1b]9;{title}: {text}\a",
        "osc777": f"\x1b]777;notify;{title.replace(';', ',')};{text}\a",
    }
    if how not in sequences:
        return
    with contextlib.suppress(OSError):
        fd = os.open("/dev/tty", os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(fd, sequences[how].encode(errors="backslashreplace"))  # in one piece: nothing comes in between
        finally:
            os.close(fd)
