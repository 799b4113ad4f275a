"""The list of tasks: by state, filtered, sorted, a page at a time; several are chosen, and something is done about them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from scitq.engine import Engine
from scitq.errors import BadInput
from scitq.saying import without_place
from scitq.shell import facts
from scitq.shell.web import page
from scitq.shell.web.deeds import deed_of, of
from scitq.shell.web.pages.doing import ask
from scitq.states import TaskState, task_state
from scitq.store import browsing, glances, listing, logs, query
from scitq.store.browsing import Filter, Mark, Order
from scitq.task import TaskId, TaskRow

LIMIT = 50
TAIL_BYTES = 160
# As people look for them.
STATES = (
    TaskState.RUNNING, TaskState.FAILED, TaskState.SUCCEEDED, TaskState.PENDING, TaskState.WAITING, TaskState.BLOCKED,
    TaskState.CANCELLED, TaskState.PAUSED, TaskState.ASSIGNED, TaskState.STAGING, TaskState.COLLECTING, TaskState.DEBUG,
)  # fmt: skip


@dataclass(frozen=True)
class Wish:
    """What an address asks for."""

    filter: Filter
    order: Order
    descending: bool
    after: Mark | None
    before: Mark | None
    query: dict[str, Any]  # the filter and the order, for further addresses


@dataclass(frozen=True)
class Shown:
    """One row of the list."""

    row: TaskRow
    worker: str | None
    start_ms: int | None
    run_s: float | None
    cause: str | None
    out: str
    err: str


def tasks(request: Request) -> Response:
    """The list."""
    here, problem = page.engine(request), None
    wish = wish_of(request.query_params.multi_items())
    backwards = wish.before is not None
    try:
        found = browsing.page(
            here._reader(), wish.filter, wish.order, wish.before if backwards else wish.after, descending=wish.descending,
            backwards=backwards, limit=LIMIT,
        )  # fmt: skip
    except BadInput as error:
        problem, found = str(error), browsing.Page([], None, None, None, 0)
    ids = found.ids[::-1] if backwards else found.ids
    first, last = (found.last, found.first) if backwards else (found.first, found.last)
    if backwards:
        newer, older = found.rest or first, last
    else:
        newer, older = (first if wish.after else None), found.rest or last
    counts = here.counts(wish.filter.batch)
    return page.render(
        request, "tasks.html", 200 if problem is None else 400, topics="tasks", wish=wish, shown=shown(here, ids), states=STATES,
        sums=counts, total=sum(counts.values()), problem=problem, orders=_orders(wish), found=found, batches=sorted(here.batches()),
        workers=[row.name for row in here.workers()],
        previous_page=page.address("/tasks", **wish.query, before=_written(newer)) if newer else None,
        next_page=page.address("/tasks", **wish.query, after=_written(older)) if older else None,
        deeds=of("task"), matched=browsing.count(here._reader(), wish.filter) if wish.filter.is_counted else None,
    )  # fmt: skip


def wish_of(items: Sequence[tuple[str, str]]) -> Wish:
    """What the fields of an address or a form ask for.

    Raises:
        BadInput: an order, a state or a mark that there is not.
    """
    given = {key: value for key, value in items if key != "state" and value.strip()}
    words = [word for key, value in items if key == "state" for word in value.split(",") if word]
    try:
        states = frozenset(task_state(word) for word in words) or None
        order = Order(given.get("sort", "id"))
    except ValueError as problem:
        raise BadInput(str(problem)) from None
    # The newest are what people look for, but names and the like begin with A.
    is_down = given.get("way", "down" if order in (Order.ID, Order.TIME) else "up") == "down"
    kept = Filter(states, *(given.get(name) for name in ("batch", "worker", "text", "where")))
    query = {name: given.get(name) for name in ("batch", "worker", "text", "where", "sort", "way")}
    return Wish(
        kept, order, is_down, _mark(given.get("after"), order), _mark(given.get("before"), order),
        {"state": sorted(state.word for state in states or ()), **query},
    )  # fmt: skip


# What the marks of each order are made of, after the 0 of those that it is about.
_MARKS: dict[Order, tuple[type, ...]] = {
    Order.ID: (int,), Order.BATCH: (str, int), Order.STATE: (int, int), Order.NAME: (int, str, int), Order.TIME: (int, int),
    Order.WORKER: (int, str, int),
}  # fmt: skip


def _mark(text: str | None, order: Order) -> Mark | None:
    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    kinds = _MARKS[order]
    if isinstance(found, list):
        is_rest = len(found) == 2 and found[0] == 1 and order in (Order.NAME, Order.TIME, Order.WORKER)
        kinds = (int, int) if is_rest else kinds
        numbers = [one for one in found if isinstance(one, int)]
        is_fit = len(found) == len(kinds) and all(type(one) is kind for one, kind in zip(found, kinds, strict=True))
        if is_fit and all(0 <= number < 1 << 62 for number in numbers):
            return tuple(found)
    raise BadInput("This address leads to no page of the list. Begin anew: /tasks")


def _written(mark: Mark) -> str:
    return json.dumps(list(mark), separators=(",", ":"), ensure_ascii=False)


def _orders(wish: Wish) -> dict[str, tuple[str, str]]:
    """For each order its way (`ascending`, `descending`, or nothing) and where its heading leads: to it, or turned round."""
    found = {}
    for order in Order:
        is_this = order is wish.order
        down = not wish.descending if is_this else order in (Order.ID, Order.TIME)
        asked = {**wish.query, "sort": order.value, "way": "down" if down else "up"}
        found[order.value] = (
            ("descending" if wish.descending else "ascending") if is_this else "", page.address("/tasks", **asked)
        )  # fmt: skip
    return found


def shown(here: Engine, ids: Sequence[TaskId]) -> list[Shown]:
    """Rows as the list shows them, in this order."""
    db = here._reader()
    with db:
        rows = {row.id: row for row in listing.select(db, ids=ids, limit=len(ids) or 1)} if ids else {}
        attempts = glances.attempts(db, ids)
        tails = _tails(here, [attempt.id for attempt in attempts.values() if attempt.ended_ms is not None])
    now, found = facts.now_ms(), []
    for id in ids:
        if (row := rows.get(id)) is None:
            continue  # deleted a moment ago
        last = attempts.get(id)
        if (last := attempts.get(id)) is None:
            found.append(Shown(row, None, None, None, row.reason, "", ""))
            continue
        run_s = last.run_s
        if row.state is TaskState.RUNNING and last.started_ms is not None:
            run_s = max(0, now - last.started_ms) / 1000
        out, err = (tails.get((int(last.id), stream), "") for stream in (logs.OUT, logs.ERR))
        cause = row.reason or (last.cause if row.state is TaskState.FAILED else None)
        found.append(Shown(row, last.worker, last.started_ms, run_s, cause, out, err))
    return found


def _tails(here: Engine, executions: Sequence[int]) -> dict[tuple[int, int], str]:
    """The last words of ended executions, by execution and stream."""
    wanted = json.dumps([2 * id + stream for id in executions for stream in (logs.OUT, logs.ERR)])
    rows = query.rows(
        here._reader(),
        f"select id, size, substr(content, -{TAIL_BYTES}), content is null from log where id in {listing.LISTED}",
        (wanted,),
    )
    found = {}
    for id, size, content, is_file in rows:
        execution, stream = divmod(id, 2)
        data = here._log_bytes(execution, stream, max(0, size - TAIL_BYTES)) if is_file else content
        text = bytes(data).decode(errors="replace").strip()
        found[execution, stream] = "\n".join(without_place(line) for line in text.splitlines()[-2:])
    return found


def every(request: Request) -> Response:
    """Something is to be done to all that a list shows, however many pages it has."""
    form = [
        (name, value) for name in ("state", "batch", "worker", "text", "where") for value in page.fields(request, name)
    ]
    ids = browsing.every(page.engine(request)._reader(), wish_of(form).filter)
    return ask(request, deed_of("task", page.field(request, "deed")), ids)


ROUTES = [Route("/tasks", tasks), Route("/tasks/all", every, methods=["POST"])]
