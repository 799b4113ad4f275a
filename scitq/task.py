"""What the user asked for and what became of it, as values. Nothing here touches a file.

`Spec` is the request (command and conditions); `TaskRow` and `ExecutionRow` are snapshots of the state file's rows.
The live handle that users hold is `scitq.handle.Task`.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, NewType

from scitq.container import ALL_GPUS, gpus_asked
from scitq.errors import BadInput
from scitq.states import Outcome, Stage, TaskState, Wanted

TaskId = NewType("TaskId", int)
ExecutionId = NewType("ExecutionId", int)
BatchId = NewType("BatchId", int)

DEFAULT_BATCH = "default"
# Wait before the first retry; each further one waits twice as long, up to the limit.
RETRY_DELAY_S = 1.0
RETRY_DELAY_LIMIT_S = 600.0


@dataclass(frozen=True)
class Spec:
    """What a task runs and under which conditions, as stored in the state file (fields at their default are left out).

    `command` is a string (split like a shell would, no shell runs), a list (taken as it is), or, with `shell`, a script.
    Times are seconds, `memory` is in bytes. `python` is the minor version (`3.12`) that a call of a function needs.
    `input` and `resource` are addresses as text (`task://12/sub` is what task 12 left there), `output` is one or None.
    `container` is the name of an image, `container_options` are words for its engine. `retry` is a number of further tries, or
    such numbers by cause (see `verdict.limit_of`); `retry_memory` and `retry_timeout` are by how much those get more.
    """

    command: str | list[str]
    shell: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    retry: int | Mapping[str, Any] = 0
    retry_delay: float = RETRY_DELAY_S
    run_timeout: float | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    cpus: float | None = None
    memory: int | None = None
    gpus: int | None = None
    python: str | None = None
    input: Sequence[str] = ()
    resource: Sequence[str] = ()
    output: str | None = None
    overwrite: bool = False
    keep_failed: bool = True
    skip_if_exists: bool = False
    stage_in_timeout: float | None = None
    container: str | None = None
    container_options: Sequence[str] = ()
    retry_memory: float | None = None
    retry_timeout: float | None = None
    use_cache: bool = False

    @property
    def has_data(self) -> bool:
        """Whether anything is to be fetched for it, or brought anywhere but to the side folder."""
        return bool(self.input or self.resource or self.output is not None)

    @property
    def need(self) -> Need | None:
        """What it asks of its worker; None for nothing in particular."""
        gpus = self.gpus
        if gpus is None and self.container_options:
            gpus = gpus_asked(self.container_options)
        need = Need(self.cpus, self.memory, gpus, self.python)
        return need if self.cpus or self.memory or gpus or self.python else None

    def retries(self) -> str:
        """How many further tries it may have, for people: `3`, or `timed_out 2, exit 137 1`; empty for none."""
        if isinstance(self.retry, int):
            return str(self.retry or "")
        parts = []
        for cause, limit in self.retry.items():
            if isinstance(limit, Mapping):
                parts += [f"{cause} {code} {count}" for code, count in limit.items()]
            elif isinstance(limit, list | tuple):
                parts += [f"{cause} {code} 1" for code in limit]
            else:
                parts.append(f"{cause} {limit}")
        return ", ".join(parts)

    def argv(self) -> list[str]:
        """The words to execute; only for tasks without `shell`."""
        if isinstance(self.command, list):
            return self.command
        return shlex.split(self.command) if _needs_care(self.command) else self.command.split()

    def line(self) -> str:
        """The command on one line, for people."""
        if isinstance(self.command, list):
            return shlex.join(self.command)
        return " ⏎ ".join(part.strip() for part in self.command.strip().splitlines())


@dataclass(frozen=True)
class Raised:
    """What earlier tries of a task changed for the later ones.

    `memory` (bytes) and limits of time in the place of those that were asked for, `avoid`: workers (by number) that made it
    fail, `used`: retries by the name of their limit, `image`: the bits that its first try ran, so that all run the same.
    """

    memory: int | None = None
    run_timeout: float | None = None
    stage_in_timeout: float | None = None
    avoid: tuple[int, ...] = ()
    used: Mapping[str, int] = field(default_factory=dict)
    image: str | None = None

    def applied(self, spec: Spec) -> Spec:
        """What the next try gets."""
        now: dict[str, Any] = {
            name: value
            for name in ("memory", "run_timeout", "stage_in_timeout")
            if (value := getattr(self, name)) is not None
        }
        if self.image is not None and spec.container is not None:
            now["container"] = self.image
        return replace(spec, **now) if now else spec

    def without(self, edited: Iterable[str]) -> Raised:
        """What is left of it once these arguments of the task have been edited."""
        gone = {"image" if name == "container" else name for name in edited} & {
            "memory",
            "run_timeout",
            "stage_in_timeout",
            "image",
        }
        none: dict[str, Any] = dict.fromkeys(gone)
        return replace(self, **none) if gone else self

    def text(self) -> str | None:
        """Its stored form; None for nothing."""
        found = {name: value for name, value in self.__dict__.items() if value}
        return json.dumps(found, separators=(",", ":")) if found else None


def raised_of(text: str | None) -> Raised:
    """What `Raised.text` stored."""
    if text is None:
        return Raised()
    found = json.loads(text)
    return Raised(**{**found, "avoid": tuple(found.get("avoid", ()))})


@dataclass(frozen=True)
class TaskRow:
    """One row of table `task`, as read at one moment."""

    id: TaskId
    name: str | None
    batch: str
    state: TaskState
    priority: int
    unmet: int
    tries: int
    execution: ExecutionId | None
    not_before_ms: int | None
    created_ms: int
    changed_ms: int
    reason: str | None
    spec: Spec
    raised: Raised = field(default_factory=Raised)

    @property
    def label(self) -> str:
        """`12 'align s07'`, or `12 'samtools sort …'` for a task without a name."""
        text = self.name or self.spec.line()
        return f"{self.id} '{text if len(text) <= 40 else text[:39] + '…'}'"


@dataclass(frozen=True)
class ExecutionRow:
    """One attempt at a task on one worker. Times are milliseconds since 1970; `outcome` is None while it is live.

    What it used is counted by the system for the command and the children it waited for: `peak_memory_bytes` is that of the
    largest process; `read_bytes` and `written_bytes` are what came from, and went to, a disk (not what was in memory anyway).
    None: not known, or not counted there. `image`: the bits its container ran, by their digest (or id, where they have none).
    """

    id: ExecutionId
    task: TaskId
    worker: str | None
    attempt: int
    assigned_ms: int
    started_ms: int | None
    ended_ms: int | None
    outcome: Outcome | None
    stage: Stage | None
    exit_code: int | None
    signal: int | None
    detail: str | None
    run_s: float | None
    cpu_s: float | None
    peak_memory_bytes: int | None
    read_bytes: int | None
    written_bytes: int | None
    wanted: Wanted
    image: str | None = None

    @property
    def stop_wanted(self) -> bool:
        """It was asked to stop (which its worker may not know yet)."""
        return self.wanted is Wanted.STOPPED

    @property
    def cause(self) -> str | None:
        """Outcome and cause in one phrase: `failed (exit 3)`, `timed out (run)`, `lost`."""
        return describe(self.outcome, self.stage, self.exit_code, self.signal)


def describe(outcome: Outcome | None, stage: Stage | None, exit_code: int | None, signal: int | None) -> str | None:
    """The cause of an end, in words."""
    if outcome is None:
        return None
    if outcome is Outcome.FAILED and stage is Stage.RUN:
        if signal:
            return f"failed (signal {signal})"
        return f"failed (exit {exit_code})"
    if outcome in (Outcome.FAILED, Outcome.TIMED_OUT) and stage is not None:
        return f"{outcome.word.replace('_', ' ')} ({stage.word.replace('_', ' ')})"
    return outcome.word.replace("_", " ")


@dataclass(frozen=True)
class Need:
    """What a task asks of its worker while it runs; None: nothing in particular. `memory` is in bytes.

    `gpus` may be `ALL_GPUS`: all that the worker has, and at least one.
    `python` is a minor version (`3.12`), which is there or not; the rest is occupied.
    """

    cpus: float | None = None
    memory: int | None = None
    gpus: int | None = None
    python: str | None = None

    @property
    def occupies(self) -> bool:
        """Whether it takes anything away from others but a slot."""
        return bool(self.cpus or self.memory or self.gpus)

    def describe(self) -> str:
        """`4 CPUs, 16 GB, 1 GPU`."""
        parts = []
        if self.cpus:
            parts.append(f"{self.cpus:g} CPU{'' if self.cpus == 1 else 's'}")
        if self.memory:
            parts.append(f"{self.memory / 1e9:.3g} GB")
        if self.gpus == ALL_GPUS:
            parts.append("GPUs")
        elif self.gpus:
            parts.append(f"{self.gpus} GPU{'' if self.gpus == 1 else 's'}")
        if self.python:
            parts.append(f"Python {self.python}")
        return ", ".join(parts)


class PendingTask(NamedTuple):
    """What placement needs to know of a task that could run now. `avoid`: workers, by number, that made it fail."""

    id: TaskId
    batch: BatchId
    priority: int
    need: Need | None = None
    avoid: tuple[int, ...] = ()
    is_probed: bool = False
    """Whether the cache was asked for it, and had nothing."""


class Assignment(NamedTuple):
    """Placement's decision: this task to that worker, and what it occupies there."""

    task: TaskId
    worker: int
    slots: int = 1
    memory: int = 0
    gpus: tuple[str, ...] = ()


def check_command(command: object, shell: object) -> tuple[str | list[str], str | None]:
    """Validate a command and its shell; returns them in the form that `Spec` holds.

    Raises:
        BadInput: empty, of the wrong type, with a NUL byte, or with a quote that is never closed.
    """
    if shell is True:
        shell = "sh"
    elif shell is False or shell is None:
        shell = None
    elif not isinstance(shell, str) or not shell.strip() or "\0" in shell:
        raise BadInput(f"shell must be True, or the name of a shell such as 'bash', not {shell!r}.")
    if type(command) is list and shell is None and (words := _plain_words(command)) is not None:
        return words, None
    if isinstance(command, str):
        if "\0" in command:
            raise BadInput("the command holds a NUL byte; no program can be given one.")
        if not command or command.isspace():
            raise BadInput("the command is empty.")
        if shell is None and _needs_care(command):
            try:
                words = shlex.split(command)
            except ValueError as problem:
                raise BadInput(
                    f"the command cannot be split into words ({problem}): {_clip(command)}. "
                    "Close the quote, pass a list of words, or use shell=True."
                ) from None
            if not words or not words[0]:
                raise BadInput("the command's first word, the program, is empty.")
        return command, shell
    if isinstance(command, Sequence) and not isinstance(command, bytes | bytearray):
        if shell is not None:
            raise BadInput("a list of words is run without a shell: pass a string with shell=, or drop shell=.")
        words = [_word(word) for word in command]
        if not words or not words[0]:
            raise BadInput("the command is empty: its first word is the program to run.")
        return words, None
    raise BadInput(f"the command must be a string or a list of words, not {type(command).__name__}.")


def _plain_words(command: list[Any]) -> list[str] | None:
    """A copy of the list when it plainly is a command; None when it takes a closer look, to read it or to say what is wrong.

    Nearly every list is one of plain words; looking at each word by itself takes five times as long.
    """
    if _TEXT.issuperset(map(type, command)) and command and command[0] and "\0" not in "".join(command):
        return command.copy()
    return None


_TEXT = frozenset({str})


def _needs_care(command: str) -> bool:
    """Whether splitting it takes more than looking for white space."""
    return "'" in command or '"' in command or "\\" in command


def _word(word: object) -> str:
    text = word if isinstance(word, str) else _path_text(word)
    if "\0" in text:
        raise BadInput(f"the word {_clip(text)} holds a NUL byte; no program can be given one.")
    return text


def _path_text(word: object) -> str:
    if hasattr(word, "__fspath__"):
        path: Any = word.__fspath__()
        if isinstance(path, str):
            return path
    if isinstance(word, int | float) and not isinstance(word, bool):
        return str(word)
    raise BadInput(f"a word of a command must be text, a path or a number, not {type(word).__name__}.")


def _clip(text: str, width: int = 60) -> str:
    return repr(text if len(text) <= width else text[: width - 1] + "…")
