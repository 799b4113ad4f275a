"""What was tried by hand becomes the command of a task, or of its whole step: the edit is carried over to each of the others.

Merging is pure, as are the words that say what would change. What is edited at all: tasks that are not launched, and those that
failed; what ran keeps its record of what it ran.
"""

from __future__ import annotations

import contextlib
import difflib
import re
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from scitq.errors import BadInput, IllegalMove
from scitq.states import RECALLABLE, UNPLACED, TaskState
from scitq.store import listing, tasks
from scitq.task import Spec, TaskId, TaskRow

if TYPE_CHECKING:
    import apsw

    from scitq.engine import Engine

# Waiting to be launched, as far as is known: what a worker holds ready is called back for the edit.
UNLAUNCHED = UNPLACED | RECALLABLE
_TOKENS = re.compile(r"\w+|\s|.", re.DOTALL)


def script_of(spec: Spec) -> str:
    """The command of a task as a script that does the same."""
    if spec.shell is not None:
        assert isinstance(spec.command, str)
        return spec.command if spec.command.endswith("\n") else f"{spec.command}\n"
    return f"{shlex.join(spec.argv())}\n"


def diff(before: str, after: str) -> list[str]:
    """The lines that differ, as `diff -u` shows them, without its head."""
    return [
        line.rstrip("\n")
        for line in difflib.unified_diff(before.splitlines(), after.splitlines(), n=1, lineterm="")
        if not line.startswith(("---", "+++"))
    ]


def lines_changed(before: str, after: str) -> int:
    """How many lines differ."""
    found = 0
    for tag, a, b, c, d in difflib.SequenceMatcher(None, before.splitlines(), after.splitlines(), False).get_opcodes():
        found += 0 if tag == "equal" else max(b - a, d - c)
    return found


def merged(base: str, mine: str, theirs: str) -> str | None:
    """`theirs` with the edit that made `mine` of `base`; None where it differs from `base` just where that was edited."""
    if theirs == base:
        return mine
    old, new, other = _TOKENS.findall(base), _TOKENS.findall(mine), _TOKENS.findall(theirs)
    edits, changes = list(_changes(old, new)), list(_changes(old, other))
    changes = [change for change in changes if change not in edits]  # it has that edit already
    if any(_clash(edit, change) for edit in edits for change in changes):
        return None
    found: list[str] = []
    at = 0
    # An insertion before the place that the other changed comes first: it is an empty piece of the base.
    for start, end, words in sorted([*edits, *changes], key=lambda each: (each[0], each[1])):
        found += [*old[at:start], *words]
        at = end
    return "".join([*found, *old[at:]])


_Change = tuple[int, int, list[str]]


def _changes(old: Sequence[str], new: Sequence[str]) -> Iterator[_Change]:
    """The pieces of `old` that are something else in `new`."""
    for tag, a, b, c, d in difflib.SequenceMatcher(None, old, new, False).get_opcodes():
        if tag != "equal":
            yield a, b, list(new[c:d])


def _clash(one: _Change, other: _Change) -> bool:
    if one[0] == one[1] and other[0] == other[1]:
        return one[0] == other[0]  # two insertions in one place
    return one[0] < other[1] and other[0] < one[1]


@dataclass(frozen=True)
class Adoption:
    """An edit, and what it makes of whom. `unlaunched` and `failed` get it; of `unlike` it cannot be said what it would be."""

    task: TaskId
    shell: str
    commands: dict[TaskId, str] = field(default_factory=dict)
    unlaunched: list[TaskId] = field(default_factory=list)
    failed: list[TaskId] = field(default_factory=list)
    unlike: list[TaskId] = field(default_factory=list)
    done: int = 0

    def describe(self) -> str:
        """`41 not launched, 1 failed`."""
        parts = [f"{len(self.unlaunched):,} not launched"] if self.unlaunched or not self.failed else []
        parts += [f"{len(self.failed):,} failed"] if self.failed else []
        parts += [f"{len(self.unlike):,} differ where it was edited and stay"] if self.unlike else []
        return ", ".join(parts)


def plan(engine: Engine, task: TaskId, text: str, *, step: bool) -> Adoption:
    """What would be done with an edited script.

    Raises:
        BadInput: it is empty, or the task is a call of a Python function.
    """
    row = listing.get(engine._reader(), task)
    _refuse_calls(row)
    if not text.strip():
        raise BadInput(f"task {row.label}: the edited command is empty.")
    if "\0" in text:
        raise BadInput(f"task {row.label}: the edited command holds a NUL byte; no program can be given one.")
    shell = row.spec.shell or "sh"
    base, mine = script_of(row.spec), text if text.endswith("\n") else f"{text}\n"
    found = Adoption(task, shell)
    for each in _of_step(engine, row) if step else [row]:
        theirs = script_of(each.spec)
        command = mine if each.id == task else merged(base, mine, theirs)
        if command is None or (each.spec.shell or "sh") != shell or is_call(each):
            found.unlike.append(each.id)
        elif command != theirs:
            before = each.spec.command
            is_bare = isinstance(before, str) and not before.endswith("\n")
            found.commands[each.id] = command.removesuffix("\n") if is_bare else command
            (found.unlaunched if each.state in UNLAUNCHED else found.failed).append(each.id)
    return found


def _of_step(engine: Engine, row: TaskRow) -> Iterator[TaskRow]:
    db = engine._reader()
    wanted = [*sorted(UNLAUNCHED), TaskState.FAILED]
    after = 0
    is_met = False
    while page := listing.select(db, states=wanted, batch=row.batch, after=after):
        for each in page:
            is_met = is_met or each.id == row.id
            yield each
        after = page[-1].id
    if not is_met:
        yield row


def carry_out(engine: Engine, wanted: Adoption, *, relaunch: bool) -> Adoption:
    """Edit all of them in one transaction; with `relaunch`, queue once more those that failed. Says how many were edited: of
    the step, what was launched meanwhile is left as it is.

    Raises:
        IllegalMove: the task itself is launched; nothing was changed.
    """
    now = time.time_ns() // 1_000_000
    ended = set(wanted.failed)

    def write(db: apsw.Connection) -> int:
        count = 0
        for id, command in wanted.commands.items():
            with contextlib.suppress(IllegalMove) if id != wanted.task else contextlib.nullcontext():
                tasks.update(db, now, id, {"command": command, "shell": wanted.shell})
                count += 1
                if relaunch and id in ended:
                    tasks.relaunch(db, now, id)
        return count

    done = engine._write(write)
    if relaunch and ended:
        engine._drive()
    return replace(wanted, done=done)


def _refuse_calls(row: TaskRow) -> None:
    if is_call(row):
        raise BadInput(f"task {row.label} calls a Python function: change it in your program, and run that again.")


def is_call(row: TaskRow) -> bool:
    """Whether it calls a Python function: its command is not the user's."""
    return "python" in row.spec.tags
