"""Editing a task: a form, a look at what would change, and then the change; with it, if that is wanted, another run.

Nothing that was typed is lost: when the task was changed or launched meanwhile, the form comes back with what was typed, and says
what happened. What others changed, and nobody touched here, is taken over.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from scitq import adopting
from scitq.container import check_options
from scitq.engine import Engine
from scitq.errors import BadInput, IllegalMove, ScitqError
from scitq.handle import Task
from scitq.saying import clean, several
from scitq.shell import facts
from scitq.shell.submitting import requirements, retries
from scitq.shell.web import page
from scitq.shell.web.pages.task import one
from scitq.states import FINAL, LIVE, RECALLABLE
from scitq.store import listing
from scitq.task import TaskRow
from scitq.workflow.looking import command_text

# For so long a page waits for a worker's word.
WAIT_S = 15.0
# More is not edited in a form.
TEXT_LIMIT = 150_000
# With more prerequisites these are not typed by hand.
REQUIRES_LIMIT = 100
# So many lines of a difference are shown.
LINES = 400


@dataclass(frozen=True)
class Field:
    """Something that can be edited: how it is typed, and what that means. `says` explains what to type."""

    key: str
    label: str
    of: Callable[[TaskRow], str]
    meant: Callable[[str], Any]
    says: str = ""
    kind: str = "line"  # or `text` (of several lines), `check`


def _number(text: str) -> float | int | None:
    """A number as it was typed; None for nothing.

    Raises:
        BadInput: it is none.
    """
    text = text.strip()
    if not text:
        return None
    try:
        return int(text) if text.lstrip("+-").isdecimal() else float(text)
    except ValueError:
        raise BadInput(f"{text!r} is not a number.") from None


def _or_zero(text: str) -> float | int:
    return _number(text) or 0


def _shown(value: float | int | None) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) and value < 1e6 else str(value)


def _pairs(text: str) -> dict[str, str]:
    found = {}
    for line in text.split("\n"):
        name, equals, value = line.partition("=")
        if not line.strip():
            continue
        if not equals:
            raise BadInput(f"a variable is written NAME=VALUE, one a line, not {line!r}.")
        found[name.strip()] = value
    return found


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n") if line.strip()]


def _memory(row: TaskRow) -> str:
    memory = row.spec.memory
    if not memory:
        return ""
    for unit, factor in (("GB", 10**9), ("MB", 10**6)):
        if memory % factor == 0:
            return f"{memory // factor} {unit}"
    return str(memory)


def _retry(row: TaskRow) -> str:
    if isinstance(row.spec.retry, int):
        return str(row.spec.retry)
    parts = []
    for cause, limit in row.spec.retry.items():
        if isinstance(limit, Mapping):
            parts += [f"{cause}:{code}={count}" for code, count in limit.items()]
        elif isinstance(limit, Sequence):
            parts += [f"{cause}:{code}=1" for code in limit]
        else:
            parts.append(f"{cause}={limit}")
    return ",".join(parts)


FIELDS = (
    Field("command", "Command", command_text, lambda text: text, kind="text"),
    Field("shell", "Shell", lambda row: row.spec.shell or "", lambda text: text.strip() or False, "sh, bash; nothing: no shell"),
    Field("container", "Container", lambda row: row.spec.container or "", lambda text: text.strip() or None, "ubuntu:24.04"),
    Field(
        "container_options", "Container options", lambda row: shlex.join(row.spec.container_options),
        lambda text: check_options("container options", text), "-v /data:/data:ro",
    ),
    Field("cpus", "CPUs", lambda row: _shown(row.spec.cpus), _or_zero),
    Field("memory", "Memory", _memory, lambda text: text.strip() or 0, "16 GB"),
    Field("gpus", "GPUs", lambda row: _shown(row.spec.gpus), _or_zero),
    Field("retry", "Retries", _retry, lambda text: retries(text or "0"), "2, or timed_out=2,exit:137=1,any=1"),
    Field("retry_delay", "Wait before the first (s)", lambda row: _shown(row.spec.retry_delay), _or_zero),
    Field("retry_memory", "Times the memory after out of memory", lambda row: _shown(row.spec.retry_memory), _number),
    Field("retry_timeout", "Times the limit after timed out", lambda row: _shown(row.spec.retry_timeout), _number),
    Field("run_timeout", "Limit of the run (s)", lambda row: _shown(row.spec.run_timeout), _number),
    Field("stage_in_timeout", "Limit of staging in (s)", lambda row: _shown(row.spec.stage_in_timeout), _number),
    Field("priority", "Priority", lambda row: str(row.priority), _or_zero, "higher goes first"),
    Field("name", "Name", lambda row: row.name or "", lambda text: text),
    Field("batch", "Batch", lambda row: row.batch, lambda text: text),
    Field("input", "Input", lambda row: "\n".join(row.spec.input), _lines, "an address a line", kind="text"),
    Field("resource", "Resource", lambda row: "\n".join(row.spec.resource), _lines, "an address a line", kind="text"),
    Field("output", "Output", lambda row: row.spec.output or "", lambda text: text.strip() or None, "an address, or nothing"),
    Field(
        "env", "Environment", lambda row: "\n".join(f"{name}={value}" for name, value in row.spec.env.items()), _pairs,
        "NAME=VALUE, one a line", kind="text",
    ),
    Field("requires", "Requires", lambda row: "", lambda text: requirements([text] if text.strip() else []), "numbers or names, by comma"),
    Field("use_cache", "take the earlier result of an equal task", lambda row: _yes(row.spec.use_cache), bool, kind="check"),
    Field("overwrite", "overwrite what others left at its output", lambda row: _yes(row.spec.overwrite), bool, kind="check"),
    Field("skip_if_exists", "succeed at once if its output is there", lambda row: _yes(row.spec.skip_if_exists), bool, kind="check"),
    Field("keep_failed", "keep what a failed try left", lambda row: _yes(row.spec.keep_failed), bool, kind="check"),
)  # fmt: skip


def _yes(value: bool) -> str:
    return "yes" if value else ""


# --- what is in the form ------------------------------------------------------------------------------------------------------


def texts_of(here: Engine, row: TaskRow) -> dict[str, str]:
    """A task as the form shows it; what is too long for that is not in it."""
    found = {field.key: field.of(row) for field in FIELDS}
    parents = listing.parents(here._reader(), row.id, REQUIRES_LIMIT + 1)
    if len(parents) > REQUIRES_LIMIT:
        del found["requires"]
    else:
        found["requires"] = ", ".join(str(parent.id) for parent in sorted(parents, key=lambda one: one.id))
    if len(found["command"]) > TEXT_LIMIT:
        raise BadInput(f"the command of task {row.label} is too long for a form: scitq task update {row.id} edits it.")
    return {key: text for key, text in found.items() if len(text) <= TEXT_LIMIT}


def shown(text: str) -> str:
    """A text as it stands in a form: control characters as escapes, ends of lines as they are."""
    return "\n".join("\t".join(map(clean, line.split("\t"))) for line in text.split("\n"))


@dataclass
class Typed:
    """A form that came back: `base` is what it began with, `now` is the task of this moment, `wanted` what it is to become."""

    base: dict[str, str]
    now: dict[str, str]
    wanted: dict[str, str]

    @property
    def changed(self) -> list[str]:
        """What was edited."""
        return [key for key in self.wanted if self.wanted[key] != self.now[key]]

    def meanwhile(self) -> list[str]:
        """What others did since the form was opened, in words."""
        found = []
        labels = {field.key: field.label for field in FIELDS}
        for key in self.now:
            if key in self.base and self.base[key] != self.now[key]:
                found.append(f"{labels[key]}: {_clip(self.base[key])} → {_clip(self.now[key])}")
        return found


def typed(request: Request, here: Engine, row: TaskRow) -> Typed:
    """What the form says."""
    now = texts_of(here, row)
    try:
        base = json.loads(page.field(request, "base"))
        assert isinstance(base, dict) and all(isinstance(text, str) for text in base.values())
    except (ValueError, AssertionError):
        raise BadInput("This form cannot be read. Open it anew.") from None
    wanted = dict(now)
    for field in FIELDS:
        if field.key not in now or field.key not in base:
            continue
        text = page.field(request, field.key).replace("\r\n", "\n")
        # What nobody touched keeps signs that a form cannot hold, and what others made of it.
        if text != shown(base[field.key]).replace("\r", ""):
            wanted[field.key] = text
    return Typed(base, now, wanted)


def _clip(text: str) -> str:
    line = clean(text)
    return f"“{line if len(line) <= 60 else line[:59] + '…'}”" if line else "nothing"


def changes_of(form: Typed, row: TaskRow) -> dict[str, Any]:
    """The arguments of `Task.update` that the form says.

    Raises:
        BadInput: one makes no sense; the error says which.
    """
    found: dict[str, Any] = {}
    for field in FIELDS:
        if field.key in form.changed:
            try:
                found[field.key] = field.meant(form.wanted[field.key])
            except BadInput as problem:
                raise BadInput(f"{field.label}: {problem}") from None
    if "command" in found and isinstance(row.spec.command, list) and not found.get("shell"):
        try:
            found["command"] = shlex.split(found["command"])
        except ValueError as problem:
            raise BadInput(f"Command: it cannot be split into words ({problem}).") from None
    if found.get("shell") is False and "command" not in found:
        found["command"] = command_text(row)
    return found


# --- pages --------------------------------------------------------------------------------------------------------------------


def form(request: Request) -> Response:
    """The form, as the task is."""
    here, row = page.engine(request), one(request).row()
    _refuse_calls(row)
    texts = texts_of(here, row)
    return _form(request, row, Typed(texts, texts, dict(texts)))


def _form(
    request: Request, row: TaskRow, given: Typed, code: int = 200, *, problem: str | None = None, meanwhile: Sequence[str] = (),
    again: bool | None = None,
) -> Response:  # fmt: skip
    here = page.engine(request)
    others = sum(
        n for state, n in here.counts(row.batch).items() if state in adopting.UNLAUNCHED or state.word == "failed"
    )
    return page.render(
        request, "edit.html", code, task=row, fields=[field for field in FIELDS if field.key in given.now], now=given.now,
        values={key: shown(text) for key, text in given.wanted.items()}, base=json.dumps(given.now), problem=problem,
        meanwhile=meanwhile, others=others - (row.state in adopting.UNLAUNCHED or row.state.word == "failed"),
        step=page.field(request, "step"), is_running=row.state in LIVE and row.state not in RECALLABLE,
        has_signs=shown(given.now["command"]) != given.now["command"],
    )  # fmt: skip


def look(request: Request) -> Response:
    """What would change; or the form again, when that cannot be."""
    here, task = page.engine(request), one(request)
    row = task.row()
    _refuse_calls(row)
    given = typed(request, here, row)
    wish = page.field(request, "do", "look")
    meanwhile = given.meanwhile()
    if wish == "back":
        return _form(request, row, given, meanwhile=meanwhile)
    try:
        changes = changes_of(given, row)
        here._edit_of(row, changes)  # what makes no sense is told before anything is shown
        plan = _plan(here, row, given) if page.field(request, "step") else None
    except ScitqError as problem:
        return _form(request, row, given, 400, problem=str(problem), meanwhile=meanwhile)
    if meanwhile:
        return _form(request, row, given, 409, problem="The task was changed meanwhile.", meanwhile=meanwhile)
    if not given.changed:
        return _form(request, row, given, problem="Nothing was changed.")
    if wish not in ("save", "again", "stop"):
        return _preview(request, row, given, plan)
    return _save(request, task, given, changes, plan, wish)


def _plan(here: Engine, row: TaskRow, given: Typed) -> adopting.Adoption | None:
    """What the edit of the command makes of the others of its batch."""
    if "command" not in given.changed:
        return None
    return adopting.plan(here, row.id, given.wanted["command"], step=True)


def _preview(request: Request, row: TaskRow, given: Typed, plan: adopting.Adoption | None) -> Response:
    differences = []
    for field in FIELDS:
        if field.key in given.changed:
            before, after = shown(given.now[field.key]), shown(given.wanted[field.key])
            differences.append((field.label, adopting.diff(before, after)[:LINES]))
    values = {key: shown(text) for key, text in given.wanted.items()}
    return page.render(
        request, "edited.html", task=row, differences=differences, values=values, base=json.dumps(given.now),
        step=page.field(request, "step"), plan=plan, is_running=row.state in LIVE and row.state not in RECALLABLE,
        has_ended=row.state in FINAL, others=0 if plan is None else len(plan.commands) - 1,
    )  # fmt: skip


def _save(
    request: Request, task: Task, given: Typed, changes: dict[str, Any], plan: adopting.Adoption | None, wish: str
) -> Response:
    here, row = page.engine(request), task.row()
    drives = facts.driver_of(here) is not None
    again = wish in ("again", "stop")
    try:
        if wish == "stop" and row.state in LIVE:
            task.cancel()
            task.wait(WAIT_S if drives else 0.0)
        if plan is not None:
            done = adopting.carry_out(here, plan, relaunch=again)
            changes = {key: value for key, value in changes.items() if key not in ("command", "shell")}
            page.said(request, f"{several(done.done, 'task')} of {row.batch} changed: {plan.describe()}.")
        if changes:
            task.update(timeout=WAIT_S if drives else 0.0, **changes)
        if again and task.state in FINAL:
            task.relaunch()
    except (IllegalMove, BadInput) as problem:
        return _form(request, task.row(), given, 409, problem=str(problem))
    except TimeoutError:
        if task.state in LIVE and wish == "stop":
            late = "Its worker has not stopped it yet. Save the change once it has ended."
            return _form(request, task.row(), given, 409, problem=late)
        why = "it has not answered yet" if drives else "nobody drives the file to ask it"
        page.said(
            request, f"{row.label} is held by a worker, and {why}: the edit is made once it has given it back.", "note"
        )
        return RedirectResponse(f"/task/{task.id}", 303)
    after = task.row()
    what = ", ".join(field.label.lower() for field in FIELDS if field.key in given.changed)
    page.said(
        request, f"Task {after.label} is changed ({what})" + (f", and {after.state.word} again." if again else ".")
    )
    if again and not drives:
        page.said(request, " ".join(facts.nobody_drives(here)), "note")
    return RedirectResponse(f"/task/{task.id}", 303)


def _refuse_calls(row: TaskRow) -> None:
    if adopting.is_call(row):
        raise BadInput(f"task {row.label} calls a Python function: change it in your program, and run that again.")


ROUTES = [
    Route("/task/{id:int}/edit", form, methods=["GET"]),
    Route("/task/{id:int}/edit", look, methods=["POST"]),
]
