"""`Engine`: a state file in this process. Submit, wait, cancel, edit; and, when nobody else does, drive.

Everything an engine knows is in the file; any number of engines, in any number of processes, may have it open. Safe to use from
any thread. The loop that makes things happen is `driver`.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
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
from typing import TYPE_CHECKING, Any, TypeVar

from scitq import money, submission, waiting
from scitq.errors import BadInput, IllegalMove, NoDriver, ScitqError
from scitq.finding import find as find
from scitq.fleet import Fleet
from scitq.handle import Task
from scitq.inbox import Inbox
from scitq.markets import Markets
from scitq.pictured import Pictured
from scitq.recruiters import Recruiters
from scitq.renters import Renters
from scitq.selection import Selection, TaskList
from scitq.spending import Spending
from scitq.states import FINAL, LIVE, Halt, TaskState, task_state
from scitq.store import batches, cache, journal, listing, logs, tasks
from scitq.store.bell import WATCH_AFTER_S
from scitq.store.connection import Store
from scitq.store.lease import Lease
from scitq.store.schema import SCHEMA
from scitq.submitter import DATA, Requirement, Submitter
from scitq.task import ExecutionId, TaskId, TaskRow, check_command
from scitq.waiting import Arrivals, Changes

if TYPE_CHECKING:
    import apsw
    from sqlite_utils import Database

    from scitq.driver import Driver
    from scitq.events import Event
    from scitq.executor import Executor
    from scitq.live import Live
    from scitq.markup import Markup
    from scitq.store.analysis import Rows
    from scitq.store.analysis.copy import Snapshot
    from scitq.store.keep import Purged
    from scitq.store.lease import Holder
    from scitq.store.workflows import WorkflowRow

log = logging.getLogger("scitq")
T = TypeVar("T")
# The engines of this process in the order in which they were opened.
_opened = itertools.count()

# How long after a Ctrl-C a second one cancels what would go on.
SECOND_CTRL_C_S = 2.0


class Engine(Fleet, Recruiters, Markets, Renters, Spending, Pictured, Inbox):
    """A state file, open in this process. Made by `scitq.open`; a context manager.

    Safe to use from several threads; not from a forked child (open the file again there). With `drive=False` it only adds
    and watches.
    """

    def __init__(self, path: Path, *, drive: bool = True, use_cache: bool = False, linger_s: float = 60.0) -> None:
        self._store = Store.open(path, SCHEMA)
        self.path = self._store.path
        self.side = self._store.side
        self._may_drive = drive
        self._linger_s = linger_s
        self._driver: Driver | None = None
        self._driver_gate = threading.Lock()
        self._driver_problem: ScitqError | None = None
        self._submitter = Submitter(self._store, use_cache=use_cache)
        self._changes = Changes()
        self._arrivals: Arrivals | None = None
        self._closed = False
        self._told = False
        self._pid = os.getpid()
        self._unsubscribe = self._store.subscribe(self._changes.announce, watch_after_s=WATCH_AFTER_S)
        self._opened = next(_opened)
        _open_engines.add(self)

    def __repr__(self) -> str:
        return f"<scitq {self.path.name}{' (closed)' if self._closed else ''}>"

    def _picture(self) -> Markup:
        from scitq import cards

        return cards.of_engine(self)

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
                self._leave_markets()
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
        rented = self.rented()
        if not live and not queued:
            if rented is None:
                return None
            return f"{self.path.name}: {rented} Nobody looks after them until: scitq up. To delete one: scitq worker delete NAME"
        parts = []
        if queued:
            parts.append(f"{queued} {_tasks(queued)} {'stays' if queued == 1 else 'stay'} queued")
        if live:
            parts.append(f"{live} {'goes' if live == 1 else 'go'} on at the workers")
        return f"{self.path.name}: {', '.join(parts)}. {rented + ' ' if rented else ''}To go on: scitq up"

    # --- submitting -----------------------------------------------------------------------------------------------------

    def submit(
        self,
        command: str | Sequence[Any],
        *,
        name: str | None = None,
        batch: str | None = None,
        shell: bool | str | None = None,
        requires: Requirement = (),
        retry: int | Mapping[str, Any] | None = None,
        retry_delay: float | None = None,
        retry_memory: float | None = None,
        retry_timeout: float | None = None,
        run_timeout: float | None = None,
        priority: int | None = None,
        env: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | Iterable[str] | None = None,
        input: Any = None,
        resource: Any = None,
        output: Any = None,
        overwrite: bool | None = None,
        keep_failed: bool | None = None,
        skip_if_exists: bool | None = None,
        stage_in_timeout: float | None = None,
        cpus: float | None = None,
        memory: str | int | None = None,
        gpus: int | None = None,
        container: str | None = None,
        container_options: str | Sequence[Any] | None = None,
        use_cache: bool | None = None,
        download_timeout: float | None = None,
    ) -> Task:
        """Queue a task; it is in the file when this returns.

        `command` is a string (split into words, no shell runs), a list of words, or with `shell=True` (or the name of a shell)
        a script of any length. `requires` are tasks (handles, numbers, names, or lists of them) that must succeed first.
        `retry` (0) is the number of further tries after a failure, the first after `retry_delay` (1) seconds, each later one
        after twice the wait; or such numbers by cause: `{"timed_out": 2, "exit": [1, 137], "any": 1}` (causes are `exit`,
        `timed_out`, `out_of_memory`, `stage_in`, `collect`, `any` other; `exit` has a number, or codes that are tried again
        once each, or `{137: 3}`). An execution that was lost or evicted costs none. A try after one that ran `out_of_memory`
        gets `retry_memory` (2.0, say) times its `memory`, at most what the largest worker has; after one that `timed_out`,
        `retry_timeout` times its limit. `run_timeout` is in seconds. A higher `priority` (0) goes first. `env` is added to the task's
        environment. `tags` are for you to search by. What is not given is taken from the batch's defaults (`set_batch`).
        On this machine's worker the command runs in the folder from which it was submitted.

        `input` (its own, in `$INPUT`) and `resource` (shared by tasks and kept at the worker, read-only, in `$RESOURCE`) are
        one address or several: text, `URI`, `Path`, or other tasks' `output`, which are then required. A plain path is of this
        machine, and may be a pattern (`data/*.gz`). `|gunzip`, `|untar`, `|unzip`, `|mv:folder` say what is done with what
        arrives. They must arrive within `stage_in_timeout` seconds, if that is given.
        `output` is where what it leaves in `$OUTPUT` goes; without it, a folder beside the file. A place that holds anything
        of others is refused, unless with `overwrite`. What a failed try left goes beside it (`<output>.failed/<execution>`),
        unless `keep_failed` is False. With `skip_if_exists` the task succeeds at once if its output is there, complete.

        With `use_cache` the result of an earlier success is taken, if there is one of an equal task: the same command, declared
        `env`, inputs and resources. What a command reads without declaring it is not known to the cache.
        With `container`, the name of an image (`ubuntu:24.04`), the command runs in a container of it, where its data is at
        `/input`, `/output`, `/temp` and `/resource`. `container_options` (a text, split into words, or a list) go to the
        container engine as they are: `--gpus all`, `-v /data:/data:ro`, `--network none`. `--gpus` there asks for GPUs as
        `gpus` does; `gpus` says otherwise.

        Raises:
            BadInput: an argument makes no sense; nothing was queued.
            UnknownTask: a prerequisite does not exist; nothing was queued.
        """
        given = {
            "command": command, "name": name, "batch": batch, "shell": shell, "requires": requires, "retry": retry,
            "retry_delay": retry_delay, "retry_memory": retry_memory, "retry_timeout": retry_timeout,
            "run_timeout": run_timeout, "priority": priority, "env": env, "tags": tags,
            "input": input, "resource": resource, "output": output, "overwrite": overwrite, "keep_failed": keep_failed,
            "skip_if_exists": skip_if_exists, "stage_in_timeout": stage_in_timeout, "download_timeout": download_timeout,
            "container": container, "container_options": container_options, "use_cache": use_cache,
            "cpus": cpus, "memory": memory, "gpus": gpus,
        }  # fmt: skip
        id = self._submitter.one(given)
        self._drive()
        return Task(self, id)

    def submit_many(self, items: Iterable[str | Sequence[Any] | Mapping[str, Any]], **common: Any) -> TaskList:
        """Queue many tasks, streaming: 10,000 a transaction, so memory does not grow with their number.

        Each item is a command, or a mapping of `submit`'s arguments; `common` are arguments for all of them. When an item
        is refused, the whole ten thousands before it are queued and the error says how many that is.
        """
        return TaskList(self, self._submitter.many(items, common, self._drive))

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
        given = {submission.V1_NAMES.get(key, key): value for key, value in given.items()}
        fields = {key: value for key, value in given.items() if value is not None}
        cleared = {key: None for key in submission.CLEARED_BY_NONE if key in given and given[key] is None}
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
            columns["requires"] = self._submitter.ids_of(fields.pop("requires"))
        changes.update(self._addresses_of(row, fields, columns))
        changes.update(submission.conditions(fields))
        changes.update(cleared)
        if changes.get("container", row.spec.container) is None:
            if changes.get("container_options"):
                raise BadInput(submission.NO_CONTAINER)
            if row.spec.container_options:
                changes["container_options"] = []
        return changes, columns

    def _addresses_of(self, row: TaskRow, fields: dict[str, Any], columns: dict[str, Any]) -> dict[str, Any]:
        """An edit's addresses, checked. Tasks whose output it names, or named before and does still, stay required."""
        given = {key: fields.pop(key) for key in DATA if key in fields}
        if not given and not ("requires" in columns and (row.spec.input or row.spec.resource)):
            return {}
        from scitq.addresses import parents_of

        known = [int(parent.id) for parent in listing.parents(self._reader(), row.id, 1 << 40)]
        wanted: list[int] = list(columns.get("requires", known))
        found = self._submitter.addresses(given, wanted) if given else {}
        for key in ("input", "resource"):
            wanted += parents_of(found.get(key, getattr(row.spec, key)))
        if "requires" in columns or not set(wanted) <= set(known):
            columns["requires"] = sorted(set(wanted))
        return found

    def _delete(self, ids: Sequence[int], *, keep_cache: bool = False) -> None:
        now = _now_ms()

        def write(db: apsw.Connection) -> list[ExecutionId]:
            if keep_cache:
                cache.keep(db, ids, self.side)
            return tasks.delete(db, now, ids)

        self._drop_logs(self._write(write))

    def forget(self, results: Iterable[cache.Entry]) -> int:
        """Take none of these results any more (`cached` lists them); returns how many. Their tasks and files stay."""
        now, found = _now_ms(), list(results)
        for start in range(0, len(found), 1000):
            self._write(functools.partial(_forget, now, found[start : start + 1000]))
        return len(found)

    def cached(self, limit: int = 1000, *, older_than_days: float | None = None) -> list[cache.Entry]:
        """The results that tasks may take, the newest first."""
        before = None if older_than_days is None else _now_ms() - int(older_than_days * 86_400_000)
        return cache.entries(self._reader(), limit, before_ms=before)

    def _drop_logs(self, gone: list[ExecutionId]) -> None:
        for execution in gone:
            for stream in (logs.OUT, logs.ERR):
                logs.path(self.side, execution, stream).unlink(missing_ok=True)

    # --- batches --------------------------------------------------------------------------------------------------------

    def pause_batch(self, name: str, *, suspend: bool = False) -> int:
        """Launch nothing more of a batch; with `suspend`, also stop what runs where it is, which without it goes on. Returns
        how many executions are called back, stopped or go on.

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

    def delete_batch(self, name: str, *, keep_cache: bool = False) -> None:
        """Remove a batch with its defaults and all its tasks. What they delivered to their outputs stays; with `keep_cache`
        others may still take their results.

        Raises:
            UnknownBatch: there is none of that name.
            IllegalMove: one of its tasks is on a worker, or needed by another batch's.
        """
        now = _now_ms()

        def write(db: apsw.Connection) -> list[ExecutionId]:
            if keep_cache:
                batch = batches.known(db, name)
                cache.keep(db, tasks.of_batch(db, batch), self.side)
            return batches.delete(db, now, name)

        self._drop_logs(self._write(write))

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
        prepared = listing.spec_of(self._submitter.prepare({"command": "true", **settings}, of_batch=True).spec)
        words = ("input", "resource", "container_options")
        settings |= {key: list(getattr(prepared, key)) for key in words if key in settings}
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
        """Queue one task for each item: `{}` (or `{key}`, for items that are mappings) in the template stands for it, also in
        `input`, `resource` and `output`.

            q.map("fastqc {}", files)
            q.map("fastqc -o $OUTPUT $INPUT/*", samples, shell=True, input="s3://raw/{}.fq.gz", output="s3://lab/qc/{}")

        Raises:
            BadInput: the template makes no sense, or an item cannot be put into it safely.
        """
        from scitq.template import submissions

        places = {key: options.pop(key) for key in DATA if options.get(key) is not None}
        return self.submit_many(submissions(command_template, items, shell=shell, name=name, places=places), **options)

    # --- finding --------------------------------------------------------------------------------------------------------

    def workflows(self) -> list[WorkflowRow]:
        """The workflows that scripts declared, oldest first."""
        from scitq.store import workflows

        return workflows.all_of(self._reader())

    def workflow(self, name: str) -> WorkflowRow:
        """The workflow of that name.

        Raises:
            UnknownWorkflow: there is none.
        """
        from scitq.store import workflows

        return workflows.get(self._reader(), name)

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
    ) -> Selection:
        """The tasks that meet every condition, by number. `name` may hold `*` and `?`.

        Raises:
            BadInput: an unknown state.
        """
        states = None if status is None else _states(status)
        return Selection(self, listing.ids(self._reader(), states=states, batch=batch, name=name, limit=limit))

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
        return waiting.as_completed(self, handles, timeout)

    def join(self, handles: Iterable[Task], retry: int = 1, check: bool = False) -> dict[str, int]:
        """Wait for tasks, relaunching each failed one up to `retry` times; returns how many ended in each state.

        Raises:
            TaskFailed: with `check=True`, if any finally failed.
        """
        return waiting.join(self, handles, retry, check)

    def _wait_for(self, missing: Callable[[], int], timeout: float | None, what: str) -> None:
        waiting.wait_for(self, missing, timeout, what)

    def _begin_to_wait(self) -> None:
        """What this process has committed is told now, since its effects may be waited for; and others are heard at once."""
        self._store.tell_what_is_due()
        if not self._may_drive:  # a driver sees to it when it stands by
            self._store.listen_closely()

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

    def step_down(self) -> None:
        """Drive no more in this process; one that stands by goes on at once. What workers hold goes on."""
        if self._driver is not None:
            self._driver.stop()
        with self._driver_gate:
            self._driver = None

    def stop_driver(self) -> None:
        """Ask whichever process drives the file to stop dispatching and let go. What workers hold goes on."""
        self._write(lambda db: db.execute("update lead set stop_wanted = 1"))

    def watch(self) -> Live:
        """In a notebook: show the queue live in this cell, while others run; until `stop()`, `close()`, or the next `watch()`.

        Raises:
            BadInput: this is no notebook.
        """
        from scitq.live import Live

        return Live(self)

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

    def purge(
        self, older_than_days: float, *, keep_failed: bool = False, keep_cache: bool = False, dry_run: bool = False
    ) -> Purged:
        """Delete ended tasks that nobody needs and whose last change is so long ago, with their history; returns how much.
        With `keep_cache` their results may still be taken.

        Raises:
            BadInput: not a number of days.
        """
        from scitq.store.keep import purge

        return purge(self._store, older_than_days, keep_failed=keep_failed, keep_cache=keep_cache, dry_run=dry_run)

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


def open(
    path: str | Path | None = None, *, drive: bool = True, use_cache: bool = False, max_cost: float | str | None = None
) -> Engine:
    """Open a state file, made when it is new.

    Without a path: `$SCITQ_FILE`, else the nearest `*.scitq` file here or in a folder above, else the `file` of your settings
    (`scitq config`), else `./scitq.scitq`, made with a word about it. With `drive=False` this process adds and watches, but never drives.
    With `use_cache=True` what is submitted here uses the cache, unless it says otherwise.
    `max_cost` (15, or "15 EUR") is the most that all machines that are ever rented for this file may cost; it stays in the file, and
    a later `open` that says nothing leaves it as it is (`engine.set_max_cost(None)` takes it away).

    Raises:
        StateFileError: the file is foreign, damaged, newer, read-only, or in a folder where it is not safe.
        BadInput: several `*.scitq` files to choose from.
    """
    limit = money.limit_of(max_cost)  # before anything is made
    engine = Engine(find(path), drive=drive, use_cache=use_cache)
    if limit is not None and engine.max_cost() != limit:
        engine.set_max_cost(limit)
    return engine


def _forget(now_ms: int, entries: list[cache.Entry], db: apsw.Connection) -> None:
    for entry in entries:
        cache.drop(db, now_ms, entry, "you said so")
    cache.sweep(db)


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
