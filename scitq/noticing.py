"""What needs a person, by rules: each a pure function of rows that says what it is, and what could be done about it.

Reading the rows, and what was seen or put aside, is `notices`. A rule reads no clock, no file and no disk.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from scitq.saying import duration, several, size
from scitq.states import LIVE, Halt, Stage, TaskState, WorkerState
from scitq.store.copies import Rival
from scitq.store.lease import Holder
from scitq.store.notices import Failed, Posted
from scitq.store.summary import InVain
from scitq.worker import DECLARED_LOST, LOCAL, WorkerRow

# So many equal failures, of one batch and for one cause, are more than a task's own trouble.
EQUAL = 3
# A worker elsewhere that does not answer is called to mind after a while, and is given up by many after a longer one.
SILENT_MS = 60_000
LONG_MS = 600_000
# A disk is nearly full below the first; or below the second when that is also less than the share.
SCARCE_BYTES = 2_000_000_000
LOW_BYTES = 100_000_000_000
LOW_SHARE = 0.05
# What a worker said of its disk so long ago tells nothing any more.
STALE_MS = 86_400_000
# From this share of what may be spent on it is said.
NEARLY_SPENT = 0.8
# As the senders of files have it (see `parcels`).
TOO_LARGE = "more than its send_limit of"

# What is to be done when somebody drives; and what no worker holds.
_TO_DO = LIVE | {TaskState.PENDING, TaskState.WAITING}
_QUEUED = frozenset({TaskState.PENDING, TaskState.WAITING, TaskState.PAUSED, TaskState.DEBUG})
_SHOWN_STATES = frozenset({WorkerState.FAILED, WorkerState.EVICTED, WorkerState.UNREACHABLE})
_TRUST = re.compile(r"scitq worker trust ([^\s]+)")
# A storage or a registry that does not let us: what transports say (see `fetch.rclonerun`, `fetch.http`, the agent's `pulling`).
_REFUSED = re.compile(
    r"access ?denied|forbidden|(?<![\w/.-])40[137](?![\w/.-]\w|[\w/])|invalidaccesskeyid|signaturedoesnotmatch|authenticationfailed|"
    r"unauthorized|expired ?token|token (has )?expired|login incorrect|unable to authenticate|decrypt config|does not let us|docker login",
    re.IGNORECASE,
)
_PLACE = re.compile(r"\b([a-z][a-z0-9+.-]*)(?:@[^\s:/]*)?://([^\s/:|]*)")


@dataclass(frozen=True)
class Action:
    """What could be done: a word for a button, and the words of a `scitq` command line."""

    label: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Notice:
    """Something that needs a person. `key` stays the same as long as it is about the same thing; `mark` is how that is now."""

    key: str
    kind: str
    text: str
    since_ms: int | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    actions: tuple[Action, ...] = ()
    is_new: bool = True
    """It was not seen since it became what it is now."""
    is_dismissed: bool = False
    mark: str = field(default="", repr=False)

    def seen(self, *, is_dismissed: bool) -> Notice:
        """The same, known already."""
        return replace(self, is_new=False, is_dismissed=is_dismissed)


class Cost(NamedTuple):
    """What something has cost until now, what it will have if all is let go now, and what it may cost; amounts of `currency`.
    In `strange` currencies something was spent that cannot be compared with it."""

    scope: str  # "file", "batch", "workflow", "recruiter"
    name: str
    spent: float
    limit: float
    currency: str
    committed: float | None = None
    strange: tuple[str, ...] = ()


class Repriced(NamedTuple):
    """A rented machine that runs, and costs something else an hour than when it was rented."""

    worker: str
    first: float
    now: float
    currency: str
    at_ms: int


# --- who drives ---------------------------------------------------------------------------------------------------------------


def copies(rival: Rival | None) -> Iterator[Notice]:
    """Another copy of the file is driven."""
    if rival is not None:
        yield Notice(
            f"copy:{rival.id}", "copy", f"another copy is driven in its place ({rival.place})",
            about={"copy": rival.place}, actions=(Action("drive this one", ("up", "--take-over")),), mark=rival.place,
        )  # fmt: skip


def drivers(
    file: str, holder: Holder | None, counts: Mapping[TaskState, int], now_ms: int, rented: str | None = None
) -> Iterator[Notice]:
    """There is work, or something that costs (`rented`, in a sentence), and nobody, or one who stands still, to see to it."""
    open_ones = sum(count for state, count in counts.items() if state in _TO_DO)
    if not open_ones and rented is None:
        return
    if holder is None and rented is not None:
        work = f", and {several(open_ones, 'task')} {_is(open_ones)} not done" if open_ones else ""
        actions = (Action("drive", ("up",)), Action("what is rented", ("cloud", "list")))
        yield Notice(
            "driver:none",
            "driver",
            f"nobody drives {file}{work}. {rented}",
            about={"tasks": open_ones},
            actions=actions,
            mark=rented,
        )
    elif holder is None:
        yield Notice(
            "driver:none", "driver", f"nobody drives {file}, and {several(open_ones, 'task')} {_is(open_ones)} not done",
            about={"tasks": open_ones}, actions=(Action("drive", ("up",)),),
        )  # fmt: skip
    elif holder.stands_still(now_ms):
        yield Notice(
            "driver:still", "driver", f"{holder.describe(now_ms)} drives {file} but does nothing. {holder.way_out()}",
            about={"pid": holder.pid, "host": holder.host}, actions=(Action("drive in its place", ("up", "--take-over")),),
            mark=str(holder.epoch),
        )  # fmt: skip


# --- workers ------------------------------------------------------------------------------------------------------------------


def workers(
    rows: Iterable[WorkerRow], problems: Mapping[int, str], is_work_left: bool, now_ms: int
) -> Iterator[Notice]:
    """Workers that cannot be used. `problems`: the class of the error of each one's last job."""
    for row in rows:
        note = (row.note or "").split("\n")[0]
        about = {"worker": row.name, "state": row.state.word}
        if found := _host_key(row, note, problems.get(int(row.id)), about):
            yield found
        elif row.state in (WorkerState.PAUSED, WorkerState.DRAINING):
            if note and is_work_left:
                again = Action("let it go on", ("worker", "resume", row.name))
                yield Notice(
                    f"worker-held:{row.name}", "worker-held", f"worker {row.name} is {row.state.word}: {note}",
                    row.seen_ms, about, (again,), mark=row.state.word,
                )  # fmt: skip
        elif row.kind == LOCAL and note and row.state not in (WorkerState.READY, WorkerState.PREPARING):
            text = f"worker {row.name} is {row.state.word}: {note}"
            actions = (
                Action("start it again", ("worker", "restart", row.name)),
                Action("look for the reason", ("doctor",)),
            )
            yield Notice(f"agent:{row.name}", "agent", text, row.seen_ms, about, actions, mark=note)
        elif row.state is WorkerState.UNREACHABLE:
            yield from _unreachable(row, note, about, now_ms)
        elif row.state in _SHOWN_STATES and note:
            actions = (
                Action("try again", ("worker", "restart", row.name)),
                Action("delete it", ("worker", "delete", row.name)),
            )
            text = f"worker {row.name} is {row.state.word}: {note}"
            yield Notice(f"worker-failed:{row.name}", "worker-failed", text, row.seen_ms, about, actions, mark=note)


def _host_key(row: WorkerRow, note: str, problem: str | None, about: Mapping[str, Any]) -> Notice | None:
    """That a host shows a key which nobody has accepted, or another one; known by the error, or by the way out that it names."""
    found = _TRUST.search(note)
    if row.state not in (WorkerState.FAILED, WorkerState.UNREACHABLE, WorkerState.PREPARING):
        return None
    if found is None and not (row.state is WorkerState.FAILED and problem in ("HostKeyUnknown", "HostKeyChanged")):
        return None
    host = found[1] if found else row.address or row.name
    is_changed = problem == "HostKeyChanged" or "shows another key" in note
    what = "another key than the one that was accepted" if is_changed else "a key that nobody has accepted yet"
    actions = (
        Action("look at it", ("worker", "trust", host)),
        Action("try again", ("worker", "restart", row.name)),
    )
    return Notice(
        f"host-key:{row.name}", "host-key", f"worker {row.name}: its host shows {what}", row.seen_ms,
        {**about, "host": host, "changed": is_changed, "note": note}, actions, mark=note,
    )  # fmt: skip


def _unreachable(row: WorkerRow, note: str, about: Mapping[str, Any], now_ms: int) -> Iterator[Notice]:
    silent_ms = max(row.silent_ms, now_ms - row.seen_ms if row.seen_ms is not None else 0)
    if silent_ms < SILENT_MS or note == DECLARED_LOST:
        return
    is_long = silent_ms >= LONG_MS
    actions = [Action("connect anew", ("worker", "restart", row.name))]
    if is_long:
        actions.append(Action("its tasks may go to others", ("worker", "lost", row.name)))
    said = f": {note}" if note else ""
    yield Notice(
        f"worker-unreachable:{row.name}", "worker-unreachable",
        f"worker {row.name} has not answered for {duration(silent_ms / 1000)}{said}",
        now_ms - silent_ms, about, tuple(actions), mark="long" if is_long else "short",
    )  # fmt: skip


def disks(
    rows: Iterable[WorkerRow], file: str, file_free: int | None, file_total: int | None, now_ms: int
) -> Iterator[Notice]:
    """Disks that are nearly full: that of the file, and those of workers as they last said."""
    is_here = file_free is not None and is_scarce(file_free, file_total)
    if is_here and file_free is not None:
        yield Notice(
            "disk:file", "disk", f"the disk of {file} is nearly full: {size(file_free)} are free",
            about={"free": file_free}, mark=_how_full(file_free),
            actions=(
                Action("throw away what is kept for later", ("worker", "clean", LOCAL)),
                Action("see what old tasks take", ("purge", "--older-than", "30")),
            ),
        )  # fmt: skip
    for row in rows:
        stats = row.stats
        free, total, at = stats.get("disk_free"), stats.get("disk"), stats.get("at")
        if not isinstance(free, int) or not isinstance(at, int) or now_ms - at > STALE_MS:
            continue
        if (row.kind == LOCAL and is_here) or row.state in (
            WorkerState.FAILED,
            WorkerState.DELETING,
            WorkerState.EVICTED,
        ):
            continue
        if is_scarce(free, total if isinstance(total, int) else None):
            yield Notice(
                f"disk:worker:{row.name}", "disk", f"the disk of worker {row.name} is nearly full: {size(free)} are free",
                at, {"worker": row.name, "free": free},
                (Action("throw away what is kept for later", ("worker", "clean", row.name)),), mark=_how_full(free),
            )  # fmt: skip


def is_scarce(free: int, total: int | None) -> bool:
    """Whether so little is free that work may stop for it. Of a very large disk a small share is plenty."""
    return free < SCARCE_BYTES or (total is not None and free < LOW_SHARE * total and free < LOW_BYTES)


def _how_full(free: int) -> str:
    return "full" if free < SCARCE_BYTES / 10 else "scarce" if free < SCARCE_BYTES else "low"


# --- tasks --------------------------------------------------------------------------------------------------------------------


def refusals(failed: Iterable[Failed]) -> tuple[list[Notice], list[Failed]]:
    """Storages and registries that did not let a task have or leave its data, by place; and the failures that are others."""
    refused: dict[str, list[Failed]] = {}
    others = []
    for one in failed:
        if one.stage in (Stage.STAGE_IN, Stage.COLLECT) and _REFUSED.search(one.detail):
            refused.setdefault(place_of(one.detail), []).append(one)
        else:
            others.append(one)
    found = []
    for place, them in refused.items():
        newest = them[0]
        batches = sorted({one.batch for one in them})
        actions = (
            Action("look at it", ("task", "show", str(newest.id))),
            Action("try the storages", ("config", "rclone", "--check")),
            Action("relaunch what failed", relaunch_of(batches)),
        )
        text = f"{place} does not let us in ({several(len(them), 'task')} failed): {_short(newest.detail)}"
        about = {"place": place, "task": int(newest.id), "equal": len(them), "batches": batches}
        found.append(
            Notice(f"credentials:{place}", "credentials", text, newest.ended_ms, about, actions, mark=_newest(them))
        )
    return found, others


def place_of(detail: str) -> str:
    """The storage or host that an error is about: `s3`, `data.example.org`, or an image's registry."""
    found = _PLACE.search(detail)
    if found is not None:
        return found[2].rpartition("@")[2] or found[1] if found[1] in ("http", "https", "ftp", "ftps") else found[1]
    name = detail.partition(": ")[0]
    return name.partition("/")[0][:80] if name and " " not in name else "a storage"


def failures(failed: Iterable[Failed], errors: Mapping[int, str]) -> Iterator[Notice]:
    """Failed tasks, those of one batch with one cause together. `errors`: the last line of the error of some executions."""
    alike: dict[tuple[str, str], list[Failed]] = {}
    for one in failed:
        alike.setdefault((one.batch, one.cause), []).append(one)
    for (batch, cause), them in alike.items():
        newest = them[0]
        equal = f" ({len(them)} equal failures)" if len(them) > 1 else ""
        line = errors.get(newest.execution or 0) or newest.detail
        said = f": {_short(line)}" if line and len(them) >= EQUAL else ""
        actions = [Action("look at it", ("task", "show", str(newest.id)))]
        if len(them) > 1:
            actions.append(Action("relaunch what failed", relaunch_of([batch])))
        else:
            actions.append(Action("relaunch it", ("task", "relaunch", str(newest.id))))
        yield Notice(
            f"failed:{batch}:{cause}", "failures" if len(them) >= EQUAL else "failed",
            f"task {newest.label} {cause}{equal}{said}", newest.ended_ms,
            {"task": int(newest.id), "batch": batch, "cause": cause, "equal": len(them), "error": line or None},
            tuple(actions), mark=_newest(them),
        )  # fmt: skip


def relaunch_of(batches: Sequence[str]) -> tuple[str, ...]:
    """The command that relaunches what failed in some batches."""
    names = ["'" + name.replace("'", "''") + "'" for name in batches]
    which = f"batch={names[0]}" if len(names) == 1 else f"batch in ({', '.join(names)})"
    return ("task", "relaunch", "--where", f"state='failed' and {which}")


def blocked(counts: Mapping[TaskState, int]) -> Iterator[Notice]:
    """Tasks that wait for what failed."""
    if count := counts.get(TaskState.BLOCKED):
        yield Notice(
            "blocked", "blocked", f"{several(count, 'task')} {_is(count)} blocked until what failed is relaunched",
            about={"blocked": count}, actions=(Action("list them", ("task", "list", "--status", "blocked")),), mark=str(count),
        )  # fmt: skip


def in_vain(found: Iterable[InVain]) -> Iterator[Notice]:
    """Requests that nobody can meet."""
    for one in found:
        them = f"task {one.first} waits" if one.tasks == 1 else f"{one.tasks:,} tasks wait"
        digest = hashlib.sha256(one.note.encode()).hexdigest()[:12]
        yield Notice(
            f"in-vain:{digest}", "in-vain", f"{them} in vain: {one.note}", None,
            {"in_vain": one.tasks, "task": int(one.first)}, (Action("why", ("task", "why", str(one.first))),),
        )  # fmt: skip


def halted(found: Iterable[tuple[str, int, Mapping[TaskState, int]]]) -> Iterator[Notice]:
    """Batches that were halted and have work left."""
    for name, halt, counts in found:
        queued = sum(count for state, count in counts.items() if state in _QUEUED)
        live = sum(count for state, count in counts.items() if state in LIVE)
        if not queued and not live:
            continue
        word = Halt(halt).word
        what = f"{several(queued, 'task')} queued" + (f", {live} at the workers" if live else "")
        yield Notice(
            f"halted:{name}", "halted", f"batch {name} is {word}: {what}", None,
            {"batch": name, "state": word, "queued": queued}, (Action("let it go on", ("batch", "go", name)),), mark=word,
        )  # fmt: skip


def large_files(found: Iterable[tuple[str, int, int, str]]) -> Iterator[Notice]:
    """Files of this machine that are sent to a worker and are larger than is sensible."""
    for worker, task, at_ms, text in found:
        yield Notice(
            f"large-files:{worker}", "large-files", text.rstrip("."), at_ms, {"worker": worker, "task": int(task)},
            (Action("what it waits for", ("task", "why", str(task))), Action("how far it is", ("worker", "show", worker))),
            mark=text,
        )  # fmt: skip


# --- the rest -----------------------------------------------------------------------------------------------------------------


def money(costs: Iterable[Cost]) -> Iterator[Notice]:
    """What is nearly spent, or spent, of what something may cost."""
    for cost in costs:
        of = "" if cost.scope == "file" else f"{cost.scope} {cost.name}: "
        about = {cost.scope: cost.name, "spent": cost.spent, "limit": cost.limit, "currency": cost.currency}
        look = Action("what it was spent on", ("cost", "--by", "worker"))
        if cost.strange:
            yield Notice(
                f"money:{cost.scope}:{cost.name}:currency", "money",
                f"{of}what was spent in {' and '.join(cost.strange)} cannot be compared with the limit of {cost.limit:.2f} "
                f"{cost.currency}: say what it is worth (money.rates of scitq config)", None, about,
                (Action("set the rates", ("config", "edit")),), mark=" ".join(cost.strange),
            )  # fmt: skip
        reached = max(cost.spent, cost.committed or 0.0)
        if reached < NEARLY_SPENT * cost.limit:
            continue
        is_spent = reached >= cost.limit
        if is_spent and cost.spent < cost.limit:
            share = "what is left is for letting machines go"
        else:
            share = "all" if is_spent else f"{100 * cost.spent / cost.limit:.0f} %"
        more = ": no more machines are rented" if is_spent else ""
        yield Notice(
            f"money:{cost.scope}:{cost.name}", "money",
            f"{of}{cost.spent:.2f} of {cost.limit:.2f} {cost.currency} spent ({share}){more}", None,
            about, (look,), mark="spent" if is_spent else "nearly",
        )  # fmt: skip


def prices(found: Iterable[Repriced]) -> Iterator[Notice]:
    """Machines that have become dearer while they run."""
    for one in found:
        if one.now > one.first:
            yield Notice(
                f"price:{one.worker}", "price",
                f"{one.worker} costs {one.now:.4g} {one.currency} an hour now: {one.first:.4g} when it was rented", one.at_ms,
                {"worker": one.worker, "first": one.first, "now": one.now, "currency": one.currency},
                (Action("what it has cost", ("cost", "--by", "worker")),), mark=f"{one.now:.6g}",
            )  # fmt: skip


def posted(found: Iterable[Posted]) -> Iterator[Notice]:
    """What somebody wrote down."""
    for one in found:
        actions = tuple(Action(label, words) for label, words in one.actions)
        yield Notice(one.key, one.kind, one.text, one.at_ms, one.about, actions, mark=str(one.at_ms))


def _newest(them: Sequence[Failed]) -> str:
    return str(max(one.execution or 0 for one in them))


def _short(text: str) -> str:
    line = text.strip().split("\n")[0].rstrip(".")
    return line if len(line) <= 160 else line[:159] + "…"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"
