"""`Engine`: a state file in this process. Submit, wait, cancel, edit; and, when nobody else does, drive.

Everything an engine knows is in the file; any number of engines, in any number of processes, may have it open. Safe to use from
any thread. The loop that makes things happen is `driver`.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from scitq import submission
from scitq.errors import BadInput, Closed, IllegalMove, NoDriver, ScitqError, TaskFailed
from scitq.handle import Task
from scitq.selection import Selection, TaskList, chunks
from scitq.states import FINAL, LIVE, Halt, TaskState, task_state
from scitq.store import batches, executions, journal, listing, logs, tasks, workers
from scitq.store.connection import Store
from scitq.store.lease import Lease
from scitq.store.schema import SCHEMA
from scitq.task import DEFAULT_BATCH, BatchId, ExecutionId, Need, Spec, TaskId, TaskRow, check_command
from scitq.waiting import SLOW_LOOK_S, Arrivals, Changes
from scitq.worker import WorkerRow

if TYPE_CHECKING:
    import apsw
    from sqlite_utils import Database

    from scitq.driver import Driver
    from scitq.events import Event
    from scitq.executor import Executor
    from scitq.store.analysis import Rows
    from scitq.store.analysis.copy import Snapshot
    from scitq.store.keep import Purged
    from scitq.store.lease import Holder

log = logging.getLogger("scitq")
T = TypeVar("T")

BULK = 10_000
# Who waits for many tasks looks again after so long for each of them, at the most after this.
LOOK_PER_TASK_S = 20e-6
LOOK_S = 0.05
# How long after a Ctrl-C a second one cancels what would go on.
SECOND_CTRL_C_S = 2.0
# What a task on this machine sees of the submitter's environment; the rest is given with env=.
CONTEXT_VARIABLES = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV",
    "LD_LIBRARY_PATH", "TMPDIR",
)  # fmt: skip
Requirement = Task | int | str | Iterable["Requirement"]


class Engine:
    """A state file, open in this process. Made by `scitq.open`; a context manager.

    Safe to use from several threads; not from a forked child (open the file again there). With `drive=False` it only adds
    and watches.
    """

    def __init__(self, path: Path, *, drive: bool = True, linger_s: float = 60.0) -> None:
        self._store = Store.open(path, SCHEMA)
        self.path = self._store.path
        self.side = self._store.side
        self._may_drive = drive
        self._linger_s = linger_s
        self._driver: Driver | None = None
        self._driver_gate = threading.Lock()
        self._driver_problem: ScitqError | None = None
        self._changes = Changes()
        self._arrivals: Arrivals | None = None
        self._context: tuple[tuple[Any, ...], int] | None = None
        self._defaults: dict[str, dict[str, Any]] = {}
        self._closed = False
        self._told = False
        self._pid = os.getpid()
        self._unsubscribe = self._store.subscribe(self._changes.announce)
        _open_engines.add(self)

    def __repr__(self) -> str:
        return f"<scitq {self.path.name}{' (closed)' if self._closed else ''}>"

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self._leave_interrupted()
        self.close()

    def _leave_interrupted(self) -> None:
        """Ctrl-C: dispatching stops, tasks go on. A second Ctrl-C, within moments, cancels them."""
        stays = None if self._closed else self.remains()
        if stays is None or self._store.read_only or not self.is_driving:
            return
        self._told = True
        log.warning("%s\nCtrl-C again within %g s cancels all of it.", stays, SECOND_CTRL_C_S)
        try:
            if self._driver is not None:
                self._driver.hold()
            time.sleep(SECOND_CTRL_C_S)
        except KeyboardInterrupt:
            log.warning("Cancelling.")
            self.cancel_all()

    def cancel_all(self, timeout: float | None = 30.0) -> int:
        """Cancel everything that has not ended, and wait until workers have stopped what ran; returns how many that were.

        Raises:
            TimeoutError: a worker has not said so in time; it will stop them all the same.
        """
        ids = [row.id for row in self.rows(status=sorted(frozenset(TaskState) - FINAL))]
        count = Selection(self, ids).cancel()
        self._wait_for(
            lambda: sum(n for state, n in self.counts().items() if state.is_live), timeout, "the cancelled tasks"
        )
        return count

    def close(self) -> None:
        """Stop dispatching, let go of the file. What workers hold goes on; what stays is told once on the log."""
        if self._closed:
            return
        self._closed = True
        _open_engines.discard(self)
        drove = self._driver is not None and self._driver.driving.is_set()
        try:
            if os.getpid() == self._pid:
                if self._driver is not None:
                    self._driver.stop()
                if drove and not self._told and (stays := self.remains()):
                    log.warning("%s", stays)
        finally:
            self._changes.announce()
            with contextlib.suppress(ScitqError):
                self._unsubscribe()
            self._store.close()

    def remains(self) -> str | None:
        """What would stay undone if this process left now, and how to go on, in a sentence or two; None for nothing."""
        counts = self.counts()
        live = sum(counts.get(state, 0) for state in LIVE)
        queued = counts.get(TaskState.PENDING, 0) + counts.get(TaskState.WAITING, 0)
        if not live and not queued:
            return None
        parts = []
        if queued:
            parts.append(f"{queued} {_tasks(queued)} {'stays' if queued == 1 else 'stay'} queued")
        if live:
            parts.append(f"{live} {'goes' if live == 1 else 'go'} on at the workers")
        return f"{self.path.name}: {', '.join(parts)}. To go on: scitq up"

    # --- submitting -----------------------------------------------------------------------------------------------------

    def submit(
        self,
        command: str | Sequence[Any],
        *,
        name: str | None = None,
        batch: str | None = None,
        shell: bool | str = False,
        requires: Requirement = (),
        retry: int | None = None,
        retry_delay: float | None = None,
        run_timeout: float | None = None,
        priority: int | None = None,
        env: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | Iterable[str] | None = None,
        input: Any = None,
        resource: Any = None,
        output: Any = None,
        container: str | None = None,
        container_options: Any = None,
        stage_in_timeout: float | None = None,
        use_cache: bool = False,
        cpus: float | None = None,
        memory: str | int | None = None,
        gpus: int | None = None,
    ) -> Task:
        """Queue a task; it is in the file when this returns.

        `command` is a string (split into words, no shell runs), a list of words, or with `shell=True` (or the name of a shell)
        a script of any length. `requires` are tasks (handles, numbers, names, or lists of them) that must succeed first.
        `retry` (0) is the number of further tries after a failure, the first after `retry_delay` (1) seconds, each later one
        after twice the wait. `run_timeout` is in seconds. A higher `priority` (0) goes first. `env` is added to the task's
        environment. `tags` are for you to search by. What is not given is taken from the batch's defaults (`set_batch`).
        On this machine's worker the command runs in the folder from which it was submitted.

        The arguments after `tags` come with later stages; until then they are refused.

        Raises:
            BadInput: an argument makes no sense; nothing was queued.
            UnknownTask: a prerequisite does not exist; nothing was queued.
        """
        given = {
            "command": command, "name": name, "batch": batch, "shell": shell, "requires": requires, "retry": retry,
            "retry_delay": retry_delay, "run_timeout": run_timeout, "priority": priority, "env": env, "tags": tags,
            "input": input, "resource": resource, "output": output, "container": container,
            "container_options": container_options, "stage_in_timeout": stage_in_timeout, "use_cache": use_cache,
            "cpus": cpus, "memory": memory, "gpus": gpus,
        }  # fmt: skip
        while True:
            item = self._prepare(given.copy(), self._defaults)
            try:
                ids = self._add([item], self._defaults)
                break
            except _OtherDefaults as found:  # somebody has changed them since they were read
                self._defaults[item.batch] = found.args[0]
        self._drive()
        return Task(self, TaskId(ids[0]))

    def submit_many(self, items: Iterable[str | Sequence[Any] | Mapping[str, Any]], **common: Any) -> TaskList:
        """Queue many tasks, streaming: 10,000 a transaction, so memory does not grow with their number.

        Each item is a command, or a mapping of `submit`'s arguments; `common` are arguments for all of them. When an item
        is refused, the whole ten thousands before it are queued and the error says how many that is.
        """
        ranges: list[range] = []
        chunk: list[Prepared] = []
        prepare = self._bulk_prepare(common)
        try:
            for item in items:
                chunk.append(prepare(item))
                if len(chunk) == BULK:
                    ranges.append(self._add(chunk))
                    chunk = []
                    self._drive()
        except BadInput as problem:
            count = sum(len(found) for found in ranges)
            raise type(problem)(
                f"item {count + len(chunk)} of submit_many: {problem} ({count} tasks before it were queued.)",
                queued=count,
            ) from problem
        if chunk:
            ranges.append(self._add(chunk))
        if ranges:
            self._drive()
        return TaskList(self, ranges)

    def _bulk_prepare(self, common: Mapping[str, Any]) -> Callable[[Any], Prepared]:
        """The check of one item of many. What they have in common is checked once; plain commands then cost little."""
        settings: dict[str, dict[str, Any]] = {}
        model = self._prepare({"command": "true", **common}, settings)
        shell = common.get("shell", False)
        tail = listing.spec_text(listing.spec_of(model.spec), without_command=True)

        def prepare(item: Any) -> Prepared:
            if isinstance(item, Mapping):
                return self._prepare({**common, **item}, settings)
            command, _ = check_command(item, shell)
            text = f'{{"command":{_json(command)}{tail}'
            return Prepared(model.name, model.batch, model.priority, text, model.requires, model.need)

        return prepare

    def _prepare(self, given: dict[str, Any], known: dict[str, dict[str, Any]] | None = None) -> Prepared:
        """Check one submission's arguments, before anything is written. `known` holds settings of batches once read."""
        batch = given.pop("batch", None)
        batch = DEFAULT_BATCH if batch is None else submission.name_of("batch", batch)
        known = {} if known is None else known
        if batch not in known:
            known[batch] = batches.settings(self._reader(), batch)
        for key, value in known[batch].items():
            if given.get(key) is None:
                given[key] = value
        if "command" not in given:
            raise BadInput("a task needs a command.")
        command, shell = check_command(given.pop("command"), given.pop("shell", False))
        name, requires, priority = (given.pop(key, None) for key in ("name", "requires", "priority"))
        fields = submission.conditions(given)
        spec = Spec(command=command, shell=shell, **fields)
        return Prepared(
            None if name is None else submission.name_of("name", name),
            batch,
            0 if priority is None else submission.priority_of(priority),
            listing.spec_text(spec),
            [] if requires is None else self._ids(requires),
            spec.need,
        )

    def _add(self, items: list[Prepared], defaults: Mapping[str, dict[str, Any]] | None = None) -> range:
        """Write submissions down; `defaults` are those of batches that they were prepared with, if that is to be checked."""
        now = _now_ms()
        key = (_cwd(), *(os.environ.get(name) for name in CONTEXT_VARIABLES))
        known = self._context

        def add(db: apsw.Connection) -> tuple[range, int]:
            context = known[1] if known is not None and known[0] == key else tasks.context_id(db, _context(key))
            batches: dict[str, BatchId] = {}
            for batch in {item.batch for item in items}:
                batches[batch], settings = tasks.batch_for(db, batch)
                if defaults is not None and settings != defaults[batch]:
                    raise _OtherDefaults(settings)
            needs = {item.need: tasks.need_id(db, item.need) for item in items if item.need is not None}
            rows = [
                (name, batches[batch], priority, spec, needs[need] if need else 0)
                for name, batch, priority, spec, _, need in items
            ]
            requires = [item.requires for item in items] if any(item.requires for item in items) else None
            return tasks.add_many(db, now, rows, context, requires), context

        ids, context = self._write(add)
        self._context = (key, context)
        return ids

    def _ids(self, requires: Requirement) -> list[int]:
        if isinstance(requires, Task):
            if requires._engine.path != self.path:
                raise BadInput(
                    f"task {requires.id} is in {requires._engine.path.name}, not in {self.path.name}: it cannot be required here."
                )
            return [requires.id]
        if isinstance(requires, bool):
            raise BadInput("requires must be tasks, their numbers or their names.")
        if isinstance(requires, int):
            return [requires]
        if isinstance(requires, str):
            return [listing.find(self._reader(), requires)]
        if isinstance(requires, TaskList):
            return [id for ids in requires._ranges for id in ids]
        if isinstance(requires, Iterable):
            return [id for one in requires for id in self._ids(one)]
        raise BadInput(f"requires must be tasks, their numbers or their names, not {type(requires).__name__}.")

    def _update(self, task: TaskId, given: dict[str, Any], timeout_s: float | None) -> None:
        changes, columns = self._edit_of(listing.get(self._reader(), task), given)
        now = _now_ms()
        before = journal.last(self._reader())
        done = self._write(lambda db: tasks.update(db, now, task, changes, **columns))
        if done:
            return
        self._wait_for(
            lambda: listing.edit_pending(self._reader(), task), timeout_s, f"the worker's word on task {task}"
        )
        if journal.was_refused(self._reader(), task, before):
            label = listing.get(self._reader(), task).label
            raise IllegalMove(
                f"task {label} is already launched: cancel it first, or edit it once it has ended.", task=task
            )

    def _edit_of(self, row: TaskRow, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """An edit's arguments, checked: fields of the spec, and columns of the task."""
        fields = {key: value for key, value in given.items() if value is not None or key == "run_timeout"}
        changes: dict[str, Any] = {}
        columns: dict[str, Any] = {}
        shell = fields.pop("shell", None)
        if "command" in fields or shell is not None:
            wanted = row.spec.shell if shell is None else shell
            changes["command"], changes["shell"] = check_command(
                fields.pop("command", row.spec.command), wanted or False
            )
        for key in ("name", "batch"):
            if key in fields:
                columns[key] = submission.name_of(key, fields.pop(key))
        if "priority" in fields:
            columns["priority"] = submission.priority_of(fields.pop("priority"))
        if "requires" in fields:
            columns["requires"] = self._ids(fields.pop("requires"))
        changes.update(submission.conditions(fields))
        if "run_timeout" in fields and fields["run_timeout"] is None:
            changes["run_timeout"] = None
        return changes, columns

    def _delete(self, ids: Sequence[int]) -> None:
        now = _now_ms()
        self._drop_logs(self._write(lambda db: tasks.delete(db, now, ids)))

    def _drop_logs(self, gone: list[ExecutionId]) -> None:
        for execution in gone:
            for stream in (logs.OUT, logs.ERR):
                logs.path(self.side, execution, stream).unlink(missing_ok=True)

    # --- batches --------------------------------------------------------------------------------------------------------

    def pause_batch(self, name: str, *, suspend: bool = False) -> int:
        """Launch nothing more of a batch; with `suspend`, also stop what runs where it is. Returns how many executions
        are called back or stopped.

        Raises:
            UnknownBatch: there is none of that name.
        """
        now = _now_ms()
        return self._write(lambda db: batches.halt(db, now, name, Halt.SUSPENDED if suspend else Halt.PAUSED))

    def go_batch(self, name: str) -> int:
        """Let a batch go on; returns how many stopped executions do.

        Raises:
            UnknownBatch: there is none of that name.
        """
        now = _now_ms()
        count = self._write(lambda db: batches.halt(db, now, name, Halt.GO))
        self._drive()
        return count

    def delete_batch(self, name: str) -> None:
        """Remove a batch with its defaults and all its tasks. What they delivered to their outputs stays.

        Raises:
            UnknownBatch: there is none of that name.
            IllegalMove: one of its tasks is on a worker, or needed by another batch's.
        """
        now = _now_ms()
        self._drop_logs(self._write(lambda db: batches.delete(db, now, name)))

    def set_batch(self, batch: str, /, **defaults: Any) -> dict[str, Any]:
        """Give a batch default arguments for `submit` (retry, run_timeout, priority, env…); None takes one away.

        Returns the defaults as they are then. Tasks that are already in the file keep what they have.

        Raises:
            BadInput: an argument makes no sense.
        """
        batch = submission.name_of("batch", batch)
        settings = {**batches.settings(self._reader(), batch), **defaults}
        settings = {key: value for key, value in settings.items() if value is not None}
        if unknown := sorted(set(settings) - set(submission.BATCH_SETTINGS)):
            known = ", ".join(submission.BATCH_SETTINGS)
            raise BadInput(f"{unknown[0]} cannot be a default of a batch (known: {known}).")
        self._prepare({"command": "true", **settings})
        self._write(lambda db: batches.set_settings(db, batch, settings))
        return settings

    # --- many at once ---------------------------------------------------------------------------------------------------

    def where(self, condition: str) -> Selection:
        """The tasks that meet a condition in SQL over the view `tasks`, to look at and then do something about.

            q.where("batch = 'qc.fastp' and cause = 'timed_out'").relaunch()

        Raises:
            BadInput: the condition is not one; the error says what and where.
        """
        from scitq.store.analysis import select_ids

        return Selection(self, [TaskId(id) for id in select_ids(self._reader(), condition)])

    def executor(self, **options: Any) -> Executor:
        """A `concurrent.futures.Executor` whose calls are tasks; `options` are `submit`'s arguments for each of them."""
        from scitq.executor import Executor

        return Executor(self, **options)

    def map(
        self,
        command_template: str | Sequence[Any],
        items: Iterable[Any],
        *,
        shell: bool | str = False,
        name: str | None = None,
        **options: Any,
    ) -> TaskList:
        """Queue one task for each item: `{}` (or `{key}`, for items that are mappings) in the template stands for it.

            q.map("fastqc {}", files)

        Raises:
            BadInput: the template makes no sense, or an item cannot be put into it safely.
        """
        from scitq.template import submissions

        return self.submit_many(submissions(command_template, items, shell=shell, name=name), **options)

    # --- finding --------------------------------------------------------------------------------------------------------

    def task(self, id_or_name: int | str) -> Task:
        """The task of that number, or of that name (the newest, when the older ones have ended).

        Raises:
            UnknownTask: none, or several that have not ended.
        """
        db = self._reader()
        if isinstance(id_or_name, str) and not id_or_name.isdecimal():
            return Task(self, listing.find(db, id_or_name))
        if isinstance(id_or_name, str) and (named := listing.select(db, name=id_or_name, limit=1)):
            return Task(self, named[0].id)
        return Task(self, listing.get(db, TaskId(int(id_or_name))).id)

    def tasks(
        self,
        *,
        status: str | TaskState | Iterable[str | TaskState] | None = None,
        batch: str | None = None,
        name: str | None = None,
        limit: int | None = None,
    ) -> list[Task]:
        """The tasks that meet every condition, by number. `name` may hold `*` and `?`."""
        return [Task(self, row.id) for row in self.rows(status=status, batch=batch, name=name, limit=limit)]

    def rows(
        self,
        *,
        status: str | TaskState | Iterable[str | TaskState] | None = None,
        batch: str | None = None,
        name: str | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> list[TaskRow]:
        """The same as rows, with everything the file says of each.

        Raises:
            BadInput: an unknown state.
        """
        states = None if status is None else _states(status)
        db = self._reader()
        if limit is not None or newest_first:
            return listing.select(
                db, states=states, batch=batch, name=name, limit=limit or 1 << 40, newest_first=newest_first
            )
        found: list[TaskRow] = []
        while page := listing.select(db, states=states, batch=batch, name=name, after=found[-1].id if found else 0):
            found += page
        return found

    def counts(self, batch: str | None = None) -> dict[TaskState, int]:
        """How many tasks are in each state."""
        return listing.counts(self._reader(), batch)

    def batches(self) -> dict[str, dict[TaskState, int]]:
        """How many tasks of each batch are in each state."""
        return listing.batch_counts(self._reader())

    def workers(self) -> list[WorkerRow]:
        """The workers, with what is known of them."""
        return workers.all_of(self._reader())

    def loads(self) -> dict[int, int]:
        """How many slots are taken at each worker (by number), by what runs and what waits there."""
        return {int(worker): load.slots for worker, load in executions.loads(self._reader()).items()}

    def update_worker(
        self,
        name: str | int,
        *,
        concurrency: int | None = None,
        prefetch: int | str | None = None,
        cpus: float | str | None = None,
        memory: str | int | None = None,
        gpus: int | str | Sequence[str] | None = None,
        output_cap: str | int | None = None,
        limits: bool | None = None,
    ) -> WorkerRow:
        """Change how many tasks a worker runs at once, and how many it stages ahead (`"auto"`: as short tasks need it);
        or declare what it has for tasks that ask (`gpus`: their number, or their ids); `"auto"` is what its agent finds.
        `output_cap` is how much of each stream of a task is kept there (`"auto"`: 1 GiB). `limits` False: tasks that start
        from now on may exceed the memory and CPUs that they asked for; True (the default): where its system can see to it,
        they may not.

        Raises:
            UnknownWorker: no such worker.
            BadInput: not a number of 0 or more.
        """
        row = workers.find(self._reader(), name)
        auto = prefetch == "auto"
        ahead = None if auto or prefetch is None else submission.whole("prefetch", prefetch)
        slots = None if concurrency is None else submission.whole("concurrency", concurrency)
        given = {"cpus": cpus, "memory": memory, "gpus": gpus, "output_cap": output_cap}
        declared: dict[str, Any] = {key: None for key, value in given.items() if value == "auto"}
        declared |= submission.conditions({key: given[key] for key in ("cpus", "memory") if key not in declared})
        if output_cap is not None and output_cap != "auto":
            declared["output_cap"] = submission.memory_bytes("output_cap", output_cap)
        if limits is not None:
            declared["limits"] = None if limits else False
        if isinstance(gpus, int):
            declared["gpus"] = [str(number) for number in range(submission.whole("gpus", gpus))]
        elif gpus is not None and gpus != "auto":
            declared["gpus"] = [str(gpu) for gpu in gpus]

        def write(db: apsw.Connection) -> None:
            workers.update(db, row.id, concurrency=slots, prefetch=ahead, auto_prefetch=auto)
            workers.declare(db, row.id, declared)

        self._write(write)
        return workers.find(self._reader(), int(row.id))

    def journal(self, since: int | None = None, limit: int = 100) -> list[Event]:
        """What happened: the entries after number `since`, or else the newest, oldest first."""
        db = self._reader()
        return journal.newest(db, limit) if since is None else journal.since(db, since, limit)

    def driver(self) -> Holder | None:
        """Who drives the file now."""
        return Lease.holder(self._reader())

    @property
    def is_driving(self) -> bool:
        """This very engine is the driver."""
        return self._driver is not None and self._driver.driving.is_set()

    # --- waiting --------------------------------------------------------------------------------------------------------

    def wait_all(self, timeout: float | None = None, *, batch: str | None = None) -> dict[TaskState, int]:
        """Wait until every task (of a batch) has ended or is blocked; returns the counts.

        Raises:
            TimeoutError: not within `timeout` seconds.
        """
        self._wait_for(lambda: self._unsettled(batch), timeout, "the tasks")
        return self.counts(batch)

    def _unsettled(self, batch: str | None) -> int:
        return sum(n for state, n in self.counts(batch).items() if not state.is_settled)

    def as_completed(self, handles: Iterable[Task], timeout: float | None = None) -> Iterator[Task]:
        """The tasks, each as soon as it has ended or is blocked.

        Raises:
            TimeoutError: not all within `timeout` seconds.
            UnknownTask: one was deleted.
        """
        self._drive()
        left = {task.id: task for task in handles}
        deadline = None if timeout is None else time.monotonic() + timeout
        seen = journal.last(self._reader())
        for id in self._settled_of(left):
            yield left.pop(id)
        while left:
            count, before = self._changes.count, seen
            seen, moves = journal.settled_since(self._reader(), seen)
            if journal.has_deletion(self._reader(), before, seen):
                self._settled_of(left)
            for moved, state in moves:
                id = TaskId(moved)
                if state.is_settled and id in left and listing.state_of(self._reader(), id).is_settled:
                    yield left.pop(id)
            if not left or moves:
                continue
            self._pause(count, deadline, f"{len(left)} tasks")

    def _settled_of(self, ids: Iterable[TaskId]) -> list[TaskId]:
        """Those of the tasks to which nothing more will happen.

        Raises:
            UnknownTask: one was deleted.
        """
        states = {
            row.id: row.state for page in chunks(list(ids), 1000) for row in listing.select(self._reader(), ids=page)
        }
        for id in ids:
            if id not in states:
                listing.get(self._reader(), id)
        return [id for id, state in states.items() if state.is_settled]

    def join(self, handles: Iterable[Task], retry: int = 1, check: bool = False) -> dict[str, int]:
        """Wait for tasks, relaunching each failed one up to `retry` times; returns how many ended in each state.

        Raises:
            TaskFailed: with `check=True`, if any finally failed.
        """
        wanted = list(handles)
        left = dict.fromkeys((task.id for task in wanted), retry)
        waiting = list(wanted)
        while waiting:
            again = []
            for task in self.as_completed(waiting):
                if task.state is TaskState.FAILED and left[task.id] > 0:
                    left[task.id] -= 1
                    again.append(task.relaunch())
            waiting = again
        ends: dict[str, int] = {}
        worst: Task | None = None
        for task in wanted:
            ends[task.status] = ends.get(task.status, 0) + 1
            worst = task if task.state is not TaskState.SUCCEEDED else worst
        if check and worst is not None:
            failed = {state: n for state, n in ends.items() if state != TaskState.SUCCEEDED.word}
            told = ", ".join(f"{n} {state}" for state, n in failed.items())
            raise TaskFailed(
                f"{told} of {len(wanted)} tasks, among them {worst.row().label}: {worst.why()}", task=worst.id
            )
        return ends

    def _wait_for(self, missing: Callable[[], int], timeout: float | None, what: str) -> None:
        """Wait until `missing` counts nothing. While it counts many, not every change is worth a look."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            count = self._changes.count
            if not (left := missing()):
                return
            self._drive()
            if left > 1:
                time.sleep(min(LOOK_S, left * LOOK_PER_TASK_S))
            self._pause(count, deadline, what)

    def _pause(self, count: int, deadline: float | None, what: str) -> None:
        if self._closed:
            raise Closed(f"{self.path.name} was closed while waiting for {what}.")
        if self._driver_problem is not None and (
            (holder := self.driver()) is None or (holder.is_here and not holder.alive)
        ):
            raise NoDriver(f"nobody drives {self.path.name} any more: {self._driver_problem}") from self._driver_problem
        left = SLOW_LOOK_S if deadline is None else min(SLOW_LOOK_S, deadline - time.monotonic())
        if left <= 0:
            raise TimeoutError(f"{what}: not settled in time.")
        self._changes.wait(count, left)

    def _arrival(self, task: TaskId) -> Future[None]:
        """A future that is done when the task is settled; for `await`."""
        self._drive()
        with self._driver_gate:
            if self._arrivals is None:
                self._arrivals = Arrivals(self)
        return self._arrivals.expect(task)

    # --- driving --------------------------------------------------------------------------------------------------------

    def drive(self, *, take_over: bool = False) -> None:
        """Drive the file from now on, or stand by until its present driver ends.

        `take_over` is your word that the other machine that drove it does so no more, which no lock of this one can tell;
        or that a driver of this machine that stands still (was stopped, say) is to be replaced. Should that one go on, it
        finds that out and writes nothing more.

        Raises:
            NoDriver: the engine was opened with drive=False.
            ForkedProcess: it was opened before this process was forked.
        """
        self._reader()
        if not self._may_drive:
            raise NoDriver(f"{self.path.name} was opened with drive=False: this process only adds and watches.")
        self._drive(take_over=take_over)

    def _drive(self, *, take_over: bool = False) -> None:
        if self._driver is not None or not self._may_drive or self._store.read_only:
            if self._driver is not None and take_over:
                self._driver.take_over()
            return
        with self._driver_gate:
            if not self._closed and not self._has_driver():
                from scitq.driver import Driver

                self._driver = Driver(
                    self._store,
                    on_end=self._driver_ended,
                    on_output=self._changes.announce,
                    linger_s=self._linger_s,
                    take_over=take_over,
                )
                self._driver.start()

    def _has_driver(self) -> bool:
        return self._driver is not None

    def _driver_ended(self, problem: ScitqError | None) -> None:
        # Asked to stop, or replaced: this process does not grab the lease back, whoever wants that opens the file anew.
        self._driver_problem = problem
        self._changes.announce()

    def stop_driver(self) -> None:
        """Ask whichever process drives the file to stop dispatching and let go. What workers hold goes on."""
        self._write(lambda db: db.execute("update lead set stop_wanted = 1"))

    # --- for the modules beside this one --------------------------------------------------------------------------------

    def check(self) -> list[str]:
        """What is wrong with the state file, a sentence each; empty when nothing is."""
        from scitq.store.check import check

        return check(self._reader(), self.side)

    def backup(self, target: str | Path) -> Path:
        """Write a complete copy of the state file as it is now, while work goes on.

        Raises:
            BadInput: the target exists.
        """
        from scitq.store import snapshot

        return snapshot.backup(self._store, Path(target))

    @property
    def db(self) -> Database:
        """The state file as a sqlite-utils `Database` for reading, one for each thread."""
        from scitq.store.analysis.database import database

        return database(self._store)

    def sql(self, query: str, params: Sequence[Any] | Mapping[str, Any] = (), *, timeout: float = 30.0) -> Rows:
        """The rows of a SELECT, as mappings: of the views `tasks`, `executions` and `workers`, or of any table.

        Raises:
            BadInput: not a SELECT, or a mistake in it.
            TimeoutError: it took longer than `timeout` seconds.
        """
        from scitq.store.analysis import sql

        return sql(self._store, query, params, timeout)

    def snapshot(self) -> Snapshot:
        """A private copy of the file as it is now: an `sqlite3.Connection` for pandas, and a `path` for everything else."""
        from scitq.store.analysis.copy import take

        return take(self._store)

    def export(self, target: str | Path, table: str | None = None) -> dict[str, int]:
        """Write tasks, executions, workers or journal to a new .csv, .json or .sqlite file (which takes all four); returns
        how many rows of each.

        Raises:
            BadInput: the target exists, its suffix is unknown, or there is no such table.
        """
        from scitq.store.analysis.export import export

        return export(self._store, Path(target), table)

    def purge(self, older_than_days: float, *, keep_failed: bool = False, dry_run: bool = False) -> Purged:
        """Delete ended tasks that nobody needs and whose last change is so long ago, with their history; returns how much.

        Raises:
            BadInput: not a number of days.
        """
        from scitq.store.keep import purge

        return purge(self._store, older_than_days, keep_failed=keep_failed, dry_run=dry_run)

    def _reader(self) -> apsw.Connection:
        return self._store.reader()

    def _write(self, fn: Callable[[apsw.Connection], T]) -> T:
        return self._store.write(fn)

    def _write_if_possible(self, fn: Callable[[apsw.Connection], object]) -> None:
        if not self._store.read_only:
            self._store.write(fn)

    def _log_bytes(self, execution: int, stream: int, offset: int = 0, limit: int = -1) -> bytes:
        stored = logs.get(self._reader(), ExecutionId(execution), stream)
        if stored is not None and stored.content is not None:
            return stored.content[offset : None if limit < 0 else offset + limit]
        final = logs.path(self.side, execution, stream)
        coming = logs.parts(self.side, execution, stream)[-1:]
        for path in (final, *coming, final):  # it may get its final name between two looks
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                file.seek(offset)
                return file.read(limit)
        stored = logs.get(self._reader(), ExecutionId(execution), stream)
        if stored is not None and stored.content is not None:  # it ended between the first look and this one
            return stored.content[offset : None if limit < 0 else offset + limit]
        return b""

    def _log_tail(self, execution: int, stream: int, count: int) -> bytes:
        stored = logs.get(self._reader(), ExecutionId(execution), stream)
        return self._log_bytes(execution, stream, max(0, stored.size - count)) if stored else b""


_json = json.JSONEncoder(separators=(",", ":")).encode


class Prepared(NamedTuple):
    """A submission that has been checked."""

    name: str | None
    batch: str
    priority: int
    spec: str
    requires: list[int]
    need: Need | None


class _OtherDefaults(Exception):
    """A batch has other defaults (its argument) than those a submission was prepared with."""


_open_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    # Python keeps the exception that ended the program, after it has shown it.
    interrupted = isinstance(getattr(sys, "last_value", None), KeyboardInterrupt)
    for engine in list(_open_engines):
        with contextlib.suppress(ScitqError, TimeoutError):
            if interrupted:
                engine._leave_interrupted()
            engine.close()


def open(path: str | Path | None = None, *, drive: bool = True) -> Engine:
    """Open a state file, made when it is new.

    Without a path: `$SCITQ_FILE`, else the nearest `*.scitq` file here or in a folder above, else `./scitq.scitq`, made with
    a word about it. With `drive=False` this process adds and watches, but never drives.

    Raises:
        StateFileError: the file is foreign, damaged, newer, read-only, or in a folder where it is not safe.
        BadInput: several `*.scitq` files to choose from.
    """
    return Engine(find(path), drive=drive)


def find(path: str | Path | None = None) -> Path:
    """The state file that `open` would take."""
    if path is not None:
        text = os.fspath(path)
        if not text:
            raise BadInput("the name of the state file is empty.")
        return Path(text)
    if given := os.environ.get("SCITQ_FILE"):
        return Path(given)
    here = Path(_cwd())
    for folder in (here, *here.parents):
        with contextlib.suppress(OSError):
            found = sorted(file for file in folder.glob("*.scitq") if file.is_file())
            if len(found) > 1:
                names = ", ".join(file.name for file in found[:5])
                raise BadInput(
                    f"{folder} holds several state files ({names}): say which with a path, -f FILE or SCITQ_FILE."
                )
            if found:
                return found[0]
    fresh = here / "scitq.scitq"
    log.warning("No state file here: %s is made.", fresh)
    return fresh


def _context(key: tuple[Any, ...]) -> dict[str, Any]:
    env = {name: value for name, value in zip(CONTEXT_VARIABLES, key[1:], strict=True) if value is not None}
    return {"cwd": key[0], "env": env}


def _cwd() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        raise BadInput("the current folder was deleted: change to another one first.") from None


def _states(status: str | TaskState | Iterable[str | TaskState]) -> list[TaskState]:
    given = [status] if isinstance(status, str | TaskState) else list(status)
    try:
        return [task_state(one) if isinstance(one, str) else TaskState(one) for one in given]
    except ValueError as problem:
        raise BadInput(str(problem)) from None


def _tasks(count: int) -> str:
    return "task" if count == 1 else "tasks"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


__all__ = ["FINAL", "Engine", "Selection", "TaskList", "find", "open"]
