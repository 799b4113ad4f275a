"""What running a script again means for each of its tasks: pure. Declarations and what there is go in, decisions come out.

Tasks are found again by (step, name). What has not changed stays, whatever its state; what failed runs again; what changed runs
again, and what depends on it. Writing it down is `queueing`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from scitq.pictured import Pictured
from scitq.states import UNPLACED, TaskState
from scitq.workflow.declare import CONDITIONS, Declared, differing
from scitq.workflow.estimates import Offered, total

if TYPE_CHECKING:
    from scitq.markup import Markup

# So many names are listed in a reason, or of vanished tasks.
SHOWN = 3


class Action(Enum):
    """What happens to a task."""

    NEW = "new"
    RERUN = "rerun"
    KEEP = "keep"  # it has succeeded
    STAYS = "running"  # it is queued, or runs
    VANISHED = "vanished"  # it is not declared any more
    LATER = "later"  # it was declared while the workflow ran, and may be again


class Standing(NamedTuple):
    """A task that there is: its number, state, what was declared, and its newest success (the execution's number)."""

    task: int
    state: TaskState
    won: int | None = None
    digest: str = ""
    position: int = 0
    seen: tuple[str | None, ...] | None = None
    cause: str | None = None
    grown: bool = False


@dataclass(slots=True)
class Item:
    """The decision on one task. `replaced`: a new task takes the place of the old one; `changes`: fields to be edited."""

    step: str
    name: str
    action: Action
    reason: str = ""
    task: int | None = None
    declared: Declared | None = None
    changes: tuple[str, ...] = ()
    replaced: bool = False
    state: TaskState | None = None

    @property
    def runs(self) -> bool:
        """Whether it is run because of this."""
        return self.action in (Action.NEW, Action.RERUN)


@dataclass
class Plan(Pictured):
    """What a start would do: `items`, one for each task, in the order of their declaration. As text it is a table."""

    workflow: str
    items: list[Item] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    offers: list[Offered] | None = None
    """What could be rented for what is to run; None: it was not asked for."""

    def count(self, action: Action, step: str | None = None) -> int:
        """How many tasks (of a step) this happens to."""
        return sum(item.action is action and step in (None, item.step) for item in self.items)

    @property
    def has_changes(self) -> bool:
        """Whether there is anything to run."""
        return any(item.runs for item in self.items)

    @property
    def vanished(self) -> list[Item]:
        """The tasks that are in the file and not in the script."""
        return [item for item in self.items if item.action is Action.VANISHED]

    def rows(self) -> list[dict[str, Any]]:
        """A row for each step: how many tasks of each kind, and why."""
        found: dict[str, dict[str, Any]] = {}
        reasons: dict[str, dict[str, list[str]]] = {}
        for item in self.items:
            row = found.setdefault(item.step, {"step": item.step, **{action.value: 0 for action in Action}, "why": ""})
            row[item.action.value] += 1
            if item.reason and item.action in (Action.RERUN, Action.VANISHED):
                reasons.setdefault(item.step, {}).setdefault(item.reason, []).append(item.name)
        for step, why in reasons.items():
            found[step]["why"] = "; ".join(_told(reason, names, found[step]) for reason, names in why.items())
        return list(found.values())

    def to_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        items = [
            {
                "step": item.step,
                "name": item.name,
                "action": item.action.value,
                "reason": item.reason,
                "task": item.task,
            }
            for item in self.items
        ]
        found = {"workflow": self.workflow, "steps": self.rows(), "tasks": items, "notes": self.notes}
        return found if self.offers is None else {**found, "offers": [one.to_dict() for one in self.offers]}

    def _picture(self) -> Markup:
        from scitq.workflow import pictures

        return pictures.of_plan(self)

    def _words(self) -> str:
        return str(self)

    def __str__(self) -> str:
        rows = self.rows()
        columns = [
            "new",
            "rerun",
            "keep",
            *(name for name in ("running", "vanished", "later") if any(r[name] for r in rows)),
        ]
        cells = [["step", *columns, "why"]]
        cells += [[row["step"], *(str(row[name] or "-") for name in columns), _shown(row["why"])] for row in rows]
        widths = [max(len(row[n]) for row in cells) for n in range(len(columns) + 1)]
        lines = [
            "  ".join(
                [row[0].ljust(widths[0]), *(row[n].rjust(widths[n]) for n in range(1, len(widths))), row[-1]]
            ).rstrip()
            for row in cells
        ]
        offered = (
            [] if self.offers is None else [*(line for one in self.offers for line in one.lines()), *total(self.offers)]
        )
        return "\n".join([f" {line}" for line in lines] + self.notes + offered)


def _told(reason: str, names: Sequence[str], row: Mapping[str, Any]) -> str:
    """A reason, with the tasks that it holds for unless those are all that there is to say."""
    if reason.startswith("follows") or (len(names) > 1 and len(names) == row[Action.RERUN.value]):
        return reason
    shown = ", ".join(names[:SHOWN])
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{shown}{more}: {reason}"


def _shown(text: str) -> str:
    return "".join(char if char.isprintable() else "�" for char in text)


def plan(
    workflow: str,
    declared: Sequence[Declared],
    existing: Mapping[tuple[str, str], Standing],
    *,
    others: Mapping[int, Standing] | None = None,
    seen: Callable[[Declared], Sequence[str | None] | None] = lambda _: None,
    fresh: bool = False,
    complete: bool = True,
    notes: Iterable[str] = (),
) -> Plan:
    """Decide on each declared task, and on those that are there without being declared.

    `others` are prerequisites that are not declared here, by number. `seen` is what is found at the inputs of a task now (None
    where nobody looked). Not `complete`: what is not declared is not missed.
    """
    made: dict[int, Item] = {}
    items: list[Item] = []
    wins = dict(others or {})
    for one in declared:
        item = _decide(one, existing.get(one.key), made, wins, seen, fresh)
        made[one.number] = item
        if one.id is not None:
            made[one.id] = item
        if item.task is not None:
            made.setdefault(item.task, item)
            wins[item.task] = existing[one.key]
        items.append(item)
    if complete:
        known = {one.key for one in declared}
        for (step, name), standing in existing.items():
            if (step, name) not in known:
                action = Action.LATER if standing.grown else Action.VANISHED
                reason = "" if standing.grown else "not in the script any more"
                items.append(Item(step, name, action, reason, standing.task, state=standing.state))
    return Plan(workflow, items, list(notes))


def _decide(
    one: Declared,
    old: Standing | None,
    made: Mapping[int, Item],
    wins: Mapping[int, Standing],
    seen: Callable[[Declared], Sequence[str | None] | None],
    fresh: bool,
) -> Item:
    if old is None:
        return Item(one.step, one.name, Action.NEW, declared=one)
    fields = differing(old.digest, one.digest)
    changed = [name for name in fields if name not in CONDITIONS]
    item = Item(one.step, one.name, Action.RERUN, task=old.task, declared=one, changes=tuple(fields), state=old.state)
    parents = [(parent, made.get(parent)) for parent in one.parents]
    item.replaced = _must_be_replaced(one, old, parents, "requires" in fields)
    if fresh:
        item.reason = "starts anew"
    elif changed:
        item.reason = f"{_listed(changed)} changed"
    elif reason := _new_input(one, old, seen):
        item.reason = reason
    elif step := _followed(old, parents, wins, item.replaced):
        item.reason = f"follows {step}"
    elif old.state in (TaskState.FAILED, TaskState.CANCELLED, TaskState.BLOCKED):
        item.reason = failure(old)
    else:
        item.action = Action.KEEP if old.state is TaskState.SUCCEEDED else Action.STAYS
    return item


def failure(old: Standing) -> str:
    """How a task ended badly, as the reason to run it again."""
    return old.cause or f"was {old.state.word}"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _new_input(one: Declared, old: Standing, seen: Callable[[Declared], Sequence[str | None] | None]) -> str | None:
    """What changed of what a task has read, or reads."""
    if old.state in UNPLACED or old.seen is None:
        return None
    now = seen(one)
    if now is None or len(now) != len(old.seen):
        return None
    for n, (address, before, after) in enumerate(zip(one.sources, old.seen, now, strict=False)):
        what = "input" if n < one.inputs else "resource"
        # What was not there when it was declared was made meanwhile; what nobody could look at is taken to be the same.
        if before and after and before != after:
            return f"{what} {_shown(address)} changed ({_mark(before, after)})"
        if before and after == "":
            return f"{what} {_shown(address)} is gone"
    return None


def _mark(before: str, after: str) -> str:
    """How two versions of a file differ, in short: `md5 9c1e… → 77d0…`."""
    (kind, old), (other, new) = (mark.partition(" ")[::2] for mark in (before, after))
    if kind != other or not old or not new:
        return "other contents"
    if kind == "size":
        (old_size, _, _), (new_size, _, _) = old.partition(" "), new.partition(" ")
        return f"{old_size} → {new_size} bytes" if old_size != new_size else "its time"
    old, new = (mark.partition(" ")[0][:4] for mark in (old, new))
    return f"{kind} {old}… → {new}…" if old != new else f"another {kind}"


def _followed(
    old: Standing, parents: Sequence[tuple[int, Item | None]], wins: Mapping[int, Standing], replaced: bool
) -> str | None:
    """The step whose task makes this one run again; None when none does."""
    for number, item in parents:
        if item is not None and item.runs and (old.state not in UNPLACED or item.action is Action.NEW or item.replaced):
            return item.step
        if old.state is not TaskState.SUCCEEDED:
            continue
        found = wins.get(number if item is None or item.task is None else item.task)
        if found is None:
            continue
        if found.state is not TaskState.SUCCEEDED or (found.won or 0) > (old.won or 0):
            return item.step if item is not None else f"task {found.task}"
    return "what it requires" if replaced else None


def _must_be_replaced(
    one: Declared, old: Standing, parents: Sequence[tuple[int, Item | None]], requires_others: bool
) -> bool:
    """A task may only require older ones: one that requires a new one becomes a new one."""
    for number, item in parents:
        if item is None:
            if requires_others and number > old.task:
                return True
        elif item.task is None or item.replaced or (requires_others and item.task > old.task):
            return True
    return False
