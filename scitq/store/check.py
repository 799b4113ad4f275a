"""Is the state file sound, and does what it says agree with itself? Reads only; repairs nothing.

The invariants of DESIGN.md §10 that a file can be asked about, each as one question whose answer must be empty.
"""

from __future__ import annotations

from pathlib import Path

import apsw

from scitq.states import BAD, LIVE, UNPLACED, TaskState
from scitq.store import logs, query
from scitq.store.schema6 import whole

_LIVE = ",".join(str(int(state)) for state in sorted(LIVE))
_BAD = ",".join(str(int(state)) for state in sorted(BAD))
_UNPLACED = ",".join(str(int(state)) for state in sorted(UNPLACED))
_UNMET = f"""(select count(*) from requirement join task p on p.id = parent
  where child = task.id and p.state <> {int(TaskState.SUCCEEDED)})"""

# Sentence, and the query whose rows are the violations (first column: an id to name).
_QUESTIONS: tuple[tuple[str, str], ...] = (
    (
        "task {0} is live without exactly one live execution of its own",
        f"""select id from task where state in ({_LIVE})
        and (select count(*) from execution where execution.task = task.id and ended is null) <> 1""",
    ),
    (
        "execution {0} is live but its task does not point at it",
        "select execution.id from execution join task on task.id = execution.task "
        "where ended is null and task.execution is not execution.id",
    ),
    (
        "task {0} has succeeded more than once without having been relaunched",
        """select task from execution where outcome = 0 group by task
        having count(*) > 1 + (select count(*) from journal where journal.kind = 3 and journal.task = execution.task)""",
    ),
    (
        "task {0} has succeeded, but its last execution has not",
        f"""select id from task where state = {int(TaskState.SUCCEEDED)} and
        (select outcome from execution where execution.task = task.id order by id desc limit 1) is not 0""",
    ),
    (
        "task {0} counts its unfinished prerequisites wrongly",
        f"select id from task where state in ({_UNPLACED}) and unmet <> {_UNMET}",
    ),
    (
        "task {0} is waiting though nothing is left to wait for",
        f"select id from task where state = {int(TaskState.WAITING)} and unmet = 0",
    ),
    (
        "task {0} is pending though a prerequisite has not succeeded",
        f"select id from task where state = {int(TaskState.PENDING)} and unmet > 0",
    ),
    (
        "task {0} is blocked though none of its prerequisites ended badly",
        f"""select id from task where state = {int(TaskState.BLOCKED)} and not exists
        (select 1 from requirement join task p on p.id = parent where child = task.id and p.state in ({_BAD}))""",
    ),
    (
        "task {0} is waiting for a prerequisite that ended badly",
        f"""select id from task where state = {int(TaskState.WAITING)} and exists
        (select 1 from requirement join task p on p.id = parent where child = task.id and p.state in ({_BAD}))""",
    ),
    (
        "the number of tasks of batch {0} in state {1} is kept wrongly",
        """select coalesce(c.batch, t.batch), coalesce(c.state, t.state) from
        (select batch, state, n from counter where n > 0) c
        full join (select batch, state, count(*) as n from task group by batch, state) t
        on c.batch = t.batch and c.state = t.state where c.n is not t.n""",
    ),
    (
        "the journal's last move of task {0} does not agree with its state",
        """select task.id from task join
        (select task, dst, max(id) from journal where kind = 0 group by task) j on j.task = task.id where j.dst <> task.state""",
    ),
)
# What triggers keep of money must be what adding it up gives.
_SUMS: tuple[tuple[str, str], ...] = (
    (
        "what worker {0} cost for batch {1} is kept wrongly",
        """select coalesce(s.worker, e.worker), coalesce(s.batch, e.batch) from
        (select worker, batch, amount - gone as amount from spent) s full join
        (select execution.worker, task.batch, sum(cost) as amount
          from execution join task on task.id = execution.task where cost is not null group by execution.worker, task.batch) e
        on s.worker = e.worker and s.batch = e.batch where coalesce(s.amount, 0) <> coalesce(e.amount, 0)""",
    ),
    (
        "what worker {0}, which is gone, cost is not the sum of its parts",
        """select rental.worker from rental where ended is not null
        and coalesce(cost, 0) <> (select coalesce(sum(amount + idle), 0) from spent where spent.worker = rental.worker)""",
    ),
    (
        "worker {0} has run, and what was left of it is kept as if it was gone",
        "select worker from rental join spent using (worker) where ended is null and idle > 0",
    ),
    (
        "what worker {0}, which is gone, cost is not what its prices give",
        f"""select rental.worker from rental where ended is not null and abs(cost - max(coalesce({whole("ended")}, 0),
        (select coalesce(sum(amount), 0) from spent where spent.worker = rental.worker))) > 1""",
    ),
    (
        "worker {0} has no price, or more than one at a time",
        """select rental.worker from rental where price is not null and 1 <> (
        select count(*) from tariff where tariff.worker = rental.worker and until is null)""",
    ),
)


def wrong_sums(db: apsw.Connection) -> list[str]:
    """What is kept wrongly of what things cost."""
    return [sentence.format(*row) for sentence, question in _SUMS for row in query.rows(db, f"{question} limit 20")]


def check(db: apsw.Connection, side: Path) -> list[str]:
    """Everything that is wrong, a sentence each; an empty list when nothing is."""
    try:
        problems = [f"SQLite: {row[0]}" for row in query.rows(db, "pragma integrity_check(20)") if row[0] != "ok"]
    except apsw.CorruptError as error:  # it gives up at some kinds of damage
        problems = [f"SQLite: {error}"]
    if problems:
        return problems  # answers from a damaged file mean nothing
    problems += [
        f"row {rowid} of {table} points to a row of {parent} that is not there"
        for table, rowid, parent, _ in query.rows(db, "pragma foreign_key_check")
    ]
    for sentence, question in _QUESTIONS:
        problems += [sentence.format(*row) for row in query.rows(db, f"{question} limit 20")]
    problems += wrong_sums(db)
    problems += _missing_logs(db, side)
    return problems


def _missing_logs(db: apsw.Connection, side: Path) -> list[str]:
    problems = []
    rows = query.rows(
        db,
        """select log.id / 2, log.id % 2, log.size from log join execution on execution.id = log.id / 2
        where content is null and ended is not null and outcome not in (6)""",
    )
    for execution, stream, size in rows:
        path = logs.path(side, execution, stream)
        found = path.stat().st_size if path.exists() else None
        if found != size:
            what = "is missing" if found is None else f"has {found} of {size} bytes"
            problems.append(f"the log {path.name} of execution {execution} {what}")
    return problems
