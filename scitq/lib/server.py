"""`Server`, the methods of scitq 1's `scitq.lib` over a state file: tasks, executions, batches. Workers and recruiters are in
`workers`."""

from __future__ import annotations

import codecs
import os
import signal as signals
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from scitq import submission
from scitq.errors import BadInput, NotSupported, UnknownBatch
from scitq.handle import Task
from scitq.lib import answers, joining
from scitq.lib.answers import Record, batch_in, id_of, states_of
from scitq.lib.opening import addresses, engine_for, options
from scitq.lib.workers import Workers
from scitq.selection import Selection
from scitq.states import FINAL, LIVE, TaskState
from scitq.store import batches, executions, listing, logs, manifests, tasks
from scitq.task import ExecutionRow, TaskId, TaskRow

if TYPE_CHECKING:
    from scitq.engine import Engine

# What stops a batch's running tasks where they are; what ends them; what lets them go on.
_STOPS, _ENDS = (signals.SIGTSTP, signals.SIGSTOP), (signals.SIGKILL, signals.SIGTERM, signals.SIGQUIT, signals.SIGINT)
# How long something that is to be stopped first may take to stop.
STOP_S = 60.0
_GIVEN_BY_AGENTS = "agents keep the record of executions in this scitq: nobody else writes it."
UNSET: Any = object()


class Server(Workers):
    """A state file, with the methods of scitq 1's server.

    `ip` was the address of the server; here it is a state file (a path), an `Engine`, another `Server`, or nothing: then the file
    that `scitq.open` takes. An address selects that file as well, and is warned of once. `style` is `dict` (answers are
    dictionaries) or `object` (they have attributes). `asynchronous`, here and in every method, and both timeouts mean nothing:
    what a method did is in the file when it returns. `engine` is the engine beneath, for everything that version 1 did not have.
    """

    def __init__(
        self,
        ip: Any = None,
        style: Literal["dict", "object"] = "dict",
        asynchronous: bool = True,
        put_timeout: float = 30,
        get_timeout: float = 150,
        *,
        engine: Engine | None = None,
        file: str | Path | None = None,
    ) -> None:
        if style not in ("dict", "object"):
            raise BadInput(f"style must be 'dict' or 'object', not {style!r}.")
        if ip is None and engine is None and file is None:
            ip = os.environ.get("SCITQ_SERVER")
        self.engine = engine_for(engine if engine is not None else ip, file)
        self.style = style
        # Of executions whose output is being followed: where in characters the last answer ended, and where in bytes.
        self._ends: dict[tuple[int, int], tuple[int, int]] = {}

    def __repr__(self) -> str:
        return f"<scitq.lib.Server of {self.engine.path.name}>"

    def queue_size(self) -> int:
        """How much is still to be sent: nothing, ever."""
        return 0

    # --- tasks ----------------------------------------------------------------------------------------------------------

    def task_create(
        self,
        command: Any,
        name: str | None = None,
        status: str | None = None,
        batch: str | None = None,
        input: Any = None,
        output: Any = None,
        container: str | None = None,
        container_options: Any = "",
        resource: Any = None,
        required_task_ids: Any = None,
        shell: bool | str = False,
        retry: Any = None,
        download_timeout: float | None = None,
        run_timeout: float | None = None,
        use_cache: bool | None = None,
        asynchronous: bool = True,
        **more: Any,
    ) -> Any:
        """Queue a task. `command` is split into words; no shell runs it unless `shell` is given (or it is one: `sh -c '…'`).

        Several addresses of `input` or `resource` are a list, or a text with spaces between them. `status` may be `paused`.
        `more` are further arguments of `Engine.submit` (cpus, memory, priority…).
        """
        if status not in (None, "pending", "waiting", "paused"):
            raise BadInput(f"a task is created pending, waiting (by required_task_ids) or paused, not {status!r}.")
        given = {
            "name": name, "batch": batch_in(batch), "input": addresses(input), "output": output or None, "shell": shell,
            "container": container or None, "container_options": options(container_options), "resource": addresses(resource),
            "requires": self._ids(required_task_ids), "retry": retry, "stage_in_timeout": download_timeout,
            "run_timeout": run_timeout, "use_cache": use_cache, **more,
        }  # fmt: skip
        given = {key: value for key, value in given.items() if value is not None}
        if status != "paused":
            return self._task(self.engine.submit(command, **given))
        return self._task(Task(self.engine, self.engine._submitter.one({"command": command, **given}, is_paused=True)))

    def task_update(
        self,
        id: Any,
        command: Any = UNSET,
        name: Any = UNSET,
        status: str | None = None,
        batch: Any = UNSET,
        input: Any = UNSET,
        output: Any = UNSET,
        container: Any = UNSET,
        container_options: Any = UNSET,
        resource: Any = UNSET,
        required_task_ids: Any = UNSET,
        shell: Any = UNSET,
        retry: Any = UNSET,
        download_timeout: Any = UNSET,
        run_timeout: Any = UNSET,
        use_cache: Any = UNSET,
        asynchronous: bool = True,
        **more: Any,
    ) -> Any:
        """Change a task that has not been launched, or has ended. None takes a value back.

        `status` `pending` queues it once more, whatever became of it (what runs is stopped first); `failed` ends it; `paused` and
        `running` stop it and let it go on.
        """
        task = self._handle(id)
        wanted = {
            "command": command, "name": name, "batch": batch, "input": input, "output": output, "container": container,
            "container_options": container_options, "resource": resource, "requires": required_task_ids, "shell": shell,
            "retry": retry, "stage_in_timeout": download_timeout, "run_timeout": run_timeout, "use_cache": use_cache,
        }  # fmt: skip
        given = {key: value for key, value in wanted.items() if value is not UNSET} | more
        for key in ("input", "resource"):
            if key in given:
                given[key] = addresses(given[key]) or []
        if "batch" in given:
            given["batch"] = batch_in(given["batch"])
        if given.get("container_options") is not None:
            given["container_options"] = options(given["container_options"]) or []
        if given.get("requires") is not None:
            given["requires"] = self._ids(given["requires"])
        if status in ("pending", "waiting", "failed"):
            self._stop(task, status)
        if given:
            task.update(**given)
        if status is not None:
            self._set_status(task, status)
        return self._task(task)

    def _set_status(self, task: Task, status: str) -> None:
        state = task.state
        if status in ("pending", "waiting"):
            if state in FINAL:
                task.relaunch()
            elif state is TaskState.PAUSED:
                task.resume()
        elif status == "paused":
            task.pause()
        elif status == "running":
            task.resume()
        elif status != "failed":  # which it is by now
            raise BadInput(f"a task can be made pending, failed, paused or running (again), not {status!r}.")

    def _stop(self, task: Task, status: str) -> None:
        """End what runs of a task, and wait for that; one that is to have failed is ended wherever it is."""
        state = task.state
        if state.is_live or (status == "failed" and not state.is_final):
            task.cancel()
            task.wait(STOP_S)

    def task_get(self, id: Any) -> Any:
        """A task.

        Raises:
            UnknownTask: there is none of that number.
        """
        return self._task(self._handle(id))

    def tasks(
        self, task_id: Any = None, status: Any = None, batch: str | None = None, name: str | None = None, **_: Any
    ) -> list[Any]:
        """The tasks that meet every condition, by number."""
        db, states = self.engine._reader(), states_of(status)
        if task_id is not None:
            wanted = self._ids(task_id) or []
            rows = [
                row for at in range(0, len(wanted), 1000) for row in listing.select(db, ids=wanted[at : at + 1000], limit=1000)
                if (states is None or row.state in states) and batch_in(batch) in (None, row.batch) and name in (None, row.name)
            ]  # fmt: skip
        else:
            rows = self.engine.rows(status=states, batch=batch_in(batch), name=name)
        return [self._styled(answers.task(row, self._parents(row))) for row in rows]

    def task_status(self, task_ids: Iterable[Any]) -> list[str]:
        """The status of each of these tasks, in their order.

        Raises:
            UnknownTask: there is none of a number.
        """
        db = self.engine._reader()
        return [answers.STATUS[listing.state_of(db, TaskId(id))] for id in self._ids(task_ids) or []]

    def task_delete(self, id: Any, asynchronous: bool = True) -> None:
        """Remove a task with its history; what runs of it is stopped first.

        Raises:
            IllegalMove: another task needs it.
        """
        task = self._handle(id)
        if task.state.is_live:
            task.cancel()
            task.wait(STOP_S)
        task.delete()

    def task_freeze(self, id: Any, execution_id: Any = None, **_: Any) -> Any:
        """Version 1's workers asked for the latest command this way; an order holds it here."""
        raise NotSupported(f"task_freeze: {_GIVEN_BY_AGENTS}")

    def join(self, task_list: Iterable[Any], retry: int = 1, check: bool = False) -> dict[str, int]:
        """Wait until tasks are over, failed ones queued once more up to `retry` times each; how many ended in each status.

        Tasks that wait for others, or are paused, are not over. What cannot run because a prerequisite failed counts as failed.

        Raises:
            BadInput: there is no task at all.
            UnknownTask: one was deleted.
            JoinFailed: with `check`, if one did not succeed in the end; a RuntimeError.
        """
        return joining.join(self.engine, [self._handle(one) for one in task_list], retry, check)

    # --- executions -----------------------------------------------------------------------------------------------------

    def executions(
        self,
        task_id: Any = None,
        status: str | None = None,
        latest: bool | None = None,
        batch: str | None = None,
        task_name: str | None = None,
        execution_id: Any = None,
        limit: int | None = None,
        reverse: bool = False,
        trunc: int | None = None,
        no_output: bool = False,
        **_: Any,
    ) -> list[Any]:
        """The attempts that meet every condition, oldest first (or newest, with `reverse`).

        `trunc`: no more than so many of the last characters of what each wrote; with `no_output` none at all.
        """
        db = self.engine._reader()
        if execution_id is not None:
            rows = [listing.get(db, self._execution(execution_id).task)]
        elif task_id is not None:
            rows = [listing.get(db, TaskId(id)) for id in self._ids(task_id) or []]
        else:
            rows = self.engine.rows(batch=batch_in(batch), name=task_name)
        number = None if execution_id is None else id_of(execution_id, "execution_id")
        found = [
            (one, row, one is attempts[-1])
            for row in rows
            if batch_in(batch) in (None, row.batch) and task_name in (None, row.name)
            for attempts in [executions.of_task(db, row.id)]
            for one in attempts
            if number in (None, int(one.id)) and latest in (None, False, one is attempts[-1])
        ]
        found.sort(key=lambda each: each[0].id, reverse=reverse)
        told = (self._attempt(*each, trunc=trunc, no_output=no_output) for each in found)
        chosen = [one for one in told if status in (None, one["status"])]
        return [self._styled(one) for one in (chosen if limit is None else chosen[:limit])]

    def execution_get(self, id: Any) -> Any:
        """One attempt, with all that it wrote."""
        row = self._execution(id)
        attempts = executions.of_task(self.engine._reader(), row.task)
        task = listing.get(self.engine._reader(), row.task)
        return self._styled(self._attempt(row, task, row.id == attempts[-1].id))

    def execution_output(
        self,
        id: Any,
        output: bool = True,
        error: bool = True,
        output_position: int | None = None,
        error_position: int | None = None,
    ) -> Any:
        """What an execution wrote (so far), from character `…_position` on; the first is 1.

        To follow it, ask again from the position that the answer gives (`output_position`, `error_position`).
        """
        row = self._execution(id)
        if row.outcome is None:
            Task(self.engine, row.task)._ask_to_follow()
        told: dict[str, Any] = {"execution_id": int(row.id)}
        for name, is_wanted, position, stream in (
            ("output", output, output_position, logs.OUT),
            ("error", error, error_position, logs.ERR),
        ):
            if is_wanted:
                told[name], told[f"{name}_position"] = self._text(row, stream, position)
        return self._styled(told)

    def _text(self, row: ExecutionRow, stream: int, position: int | None) -> tuple[str, int]:
        """The text of a stream from a character on, and the position after it."""
        first = 1 if position is None else submission.whole("position", position)
        first, known = max(1, first), self._ends.get((int(row.id), stream))
        at, skipped = (known[1], known[0] - 1) if known is not None and known[0] <= first else (0, 0)
        data = self.engine._log_bytes(int(row.id), stream, at)
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        # Of one that is being written the last character may not be there as a whole.
        text = decoder.decode(data, final=row.outcome is not None)
        pending = len(decoder.getstate()[0])
        end = skipped + len(text) + 1
        self._ends[int(row.id), stream] = (end, at + len(data) - pending)
        if len(self._ends) > 10_000:
            self._ends.clear()
        return text[first - 1 - skipped :], max(first, end)

    def execution_create(self, *_: Any, **__: Any) -> Any:
        """Version 1's way to give a task to a worker by hand."""
        raise NotSupported(f"execution_create: {_GIVEN_BY_AGENTS} A task runs when it is queued: task_create.")

    def execution_update(self, *_: Any, **__: Any) -> Any:
        """Version 1's workers told how they got on this way."""
        raise NotSupported(f"execution_update: {_GIVEN_BY_AGENTS} To change a task: task_update.")

    def execution_output_write(self, *_: Any, **__: Any) -> Any:
        """Version 1's workers sent output this way."""
        raise NotSupported(f"execution_output_write: {_GIVEN_BY_AGENTS}")

    execution_error_write = execution_output_write

    def _execution(self, id: Any) -> ExecutionRow:
        number = id_of(id, "execution_id")
        row = executions.find(self.engine._reader(), number)
        if row is None:
            raise BadInput(f"no execution {number} in this file.", status_code=404)
        return row

    def _attempt(
        self, row: ExecutionRow, task: TaskRow, is_latest: bool, *, trunc: int | None = None, no_output: bool = False
    ) -> dict[str, Any]:
        db = self.engine._reader()
        more: dict[str, Any] = {"latest": is_latest, "output_files": self._files(row, task)}
        for name, stream in () if no_output else (("output", logs.OUT), ("error", logs.ERR)):
            text = self.engine._log_bytes(int(row.id), stream).decode(errors="replace")
            more[name] = text if trunc is None else text[-trunc:] if trunc > 0 else ""
        return answers.execution(row, task, executions.worker_of(db, row.id), more)

    def _files(self, row: ExecutionRow, task: TaskRow) -> str | None:
        if row.outcome is None or task.state is not TaskState.SUCCEEDED:
            return None
        found = manifests.of_task(self.engine._reader(), task.id)
        return " ".join(left.name for left in found.files) if found is not None and found.files else None

    # --- batches --------------------------------------------------------------------------------------------------------

    def batches(self) -> list[Any]:
        """The batches: how many tasks of each are in each status, and the names of its own workers."""
        known, rows = self.engine.workers(), self.engine.batches()
        names = dict.fromkeys([*batches.all_of(self.engine._reader()), *rows])
        return [
            self._styled(answers.batch(name, rows.get(name, {}), [one.name for one in known if one.batch == name]))
            for name in names
        ]

    def batch_stop(self, batch: str, signal: int = 0, asynchronous: bool = True) -> None:
        """Launch nothing more of a batch. A `signal` says what becomes of what runs: 20 stops it where it is, 3, 9 and 15 end it."""
        number = _signal(signal, (0, *_STOPS, *_ENDS))
        name = self._batch(batch)
        self.engine.pause_batch(name, suspend=number in _STOPS)
        if number in _ENDS:
            Selection(self.engine, [row.id for row in self.engine.rows(batch=name, status=sorted(LIVE))]).cancel()

    def batch_go(self, batch: str, signal: int = 0, asynchronous: bool = True) -> None:
        """Let a batch go on, and what was stopped of it."""
        _signal(signal, (0, signals.SIGCONT))
        self.engine.go_batch(self._batch(batch))

    def batch_delete(self, batch: str, asynchronous: bool = True) -> None:
        """Delete a batch with its tasks and recruiters; what runs of it is stopped first.

        Raises:
            IllegalMove: a task of another batch needs one of its tasks.
        """
        name = batch_in(batch) or ""
        batches.known(self.engine._reader(), name)
        open_ones = self.engine.rows(batch=name, status=sorted(frozenset(TaskState) - FINAL))
        Selection(self.engine, [row.id for row in open_ones]).cancel()
        self.engine._wait_for(
            lambda: sum(n for state, n in self.engine.counts(name).items() if state.is_live),
            STOP_S,
            f"the tasks of {batch}",
        )
        self.engine.delete_batch(name)

    def _batch(self, batch: str) -> str:
        """A batch by the file's name for it, made if it is new: version 1 did not ask whether there is one."""
        name = submission.name_of("batch", batch_in(batch))
        try:
            batches.known(self.engine._reader(), name)
        except UnknownBatch:
            self.engine._write(lambda db: tasks.batch_id(db, name))
        return name

    # --- rclone ---------------------------------------------------------------------------------------------------------

    def config_rclone(self) -> Any:
        """The storages that addresses may name, with their kinds. Never what may be secret: workers get that task by task."""
        from scitq.fetch import configuration
        from scitq.fetch.settings import Settings

        settings = Settings()
        found = configuration.sections(configuration.names(settings), settings)
        return {name: configuration.masked(section) for name, section in sorted(found.items())}

    def config_remote(self) -> Any:
        """Version 1's place for scripts; here they travel with their tasks."""
        return self._styled({"url": None})

    # --- answers --------------------------------------------------------------------------------------------------------

    def _styled(self, fields: Mapping[str, Any]) -> Any:
        return Record(**fields) if self.style == "object" else dict(fields)

    def _handle(self, one: Any) -> Task:
        task = Task(self.engine, TaskId(id_of(one, "task_id")))
        listing.state_of(self.engine._reader(), task.id)
        return task

    def _ids(self, ids: Any) -> list[int] | None:
        if ids is None:
            return None
        several = ids if isinstance(ids, Iterable) and not isinstance(ids, str | Mapping | Record) else [ids]
        return [id_of(one, "task_id") for one in several]

    def _task(self, task: Task) -> Any:
        row = task.row()
        return self._styled(answers.task(row, self._parents(row)))

    def _parents(self, row: TaskRow) -> Sequence[int]:
        return [int(parent.id) for parent in listing.parents(self.engine._reader(), row.id, 1 << 40)]


def _signal(signal: int, allowed: Sequence[int]) -> int:
    if signal not in allowed:
        known = ", ".join(str(int(one)) for one in sorted(allowed))
        raise BadInput(f"signal must be one of {known} here, not {signal!r}.")
    return signal
