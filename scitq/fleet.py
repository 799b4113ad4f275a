"""The engine's methods about workers: added, changed, stopped, lost, deleted; and the jobs that bring that about.

Everything here writes a wish into the file and returns. Whoever drives sees to it: `acting` connects, `tending` does the jobs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from scitq import submission
from scitq.container import ENGINES
from scitq.errors import BadInput, IllegalMove, WorkerFailed
from scitq.pictured import Listed
from scitq.states import JobState, Outcome, Stage, WorkerState
from scitq.store import copies, executions, jobs, rentals, tasks, workers
from scitq.waiting import Changes, wait_for
from scitq.worker import DECLARED_LOST, LOCAL, RENTED_KIND, SSH, JobId, JobRow, WorkerId, WorkerRow
from scitq.workersettings import checked, hours_of, send_of, worker_name

if TYPE_CHECKING:
    import apsw

    from scitq.driver import Driver
    from scitq.engine import Engine
    from scitq.markup import Markup
    from scitq.store.lease import Holder
    from scitq.task import ExecutionRow

T = TypeVar("T")

# Workers elsewhere need so long at most until they are reached, or cannot be.
MEET_S = 20.0
# States in which a worker may be told to do less, and in which it may be told to go on.
_ABLE = frozenset({WorkerState.READY, WorkerState.UNREACHABLE, WorkerState.DRAINING, WorkerState.PAUSED})


class Jobs(Listed[JobRow]):
    """Long operations, row by row."""

    def _picture(self) -> Markup:
        from scitq import cards

        return cards.of_jobs(self)


class Fleet:
    """What an `Engine` can do about its workers. A part of that class, not one of its own."""

    if TYPE_CHECKING:
        _driver: Driver | None
        _changes: Changes

        def driver(self) -> Holder | None: ...
        def _reader(self) -> apsw.Connection: ...
        def _write(self, fn: Callable[[apsw.Connection], T]) -> T: ...
        def _write_if_possible(self, fn: Callable[[apsw.Connection], object]) -> None: ...
        def _drive(self, *, take_over: bool = False) -> None: ...

    # --- looking --------------------------------------------------------------------------------------------------------

    def workers(self) -> list[WorkerRow]:
        """The workers, with what is known of them."""
        return workers.all_of(self._reader())

    def watch_workers(self, seconds: float = 10.0) -> None:
        """Say that somebody looks at workers now: for so long, whoever drives asks them every second how busy they are."""
        until = _now_ms() + int(1000 * seconds)
        self._write_if_possible(lambda db: workers.watch(db, until))

    def worker(self, name: str | int) -> WorkerRow:
        """One worker.

        Raises:
            UnknownWorker: no such worker.
        """
        return workers.find(self._reader(), name)

    def loads(self) -> dict[int, int]:
        """How many slots are taken at each worker (by number), by what runs and what waits there."""
        return {int(worker): load.slots for worker, load in executions.loads(self._reader()).items()}

    def jobs(self, worker: str | int | None = None, limit: int = 100) -> Jobs:
        """The latest long operations (of one worker), newest first."""
        if worker is None:
            return Jobs(jobs.latest(self._reader(), limit))
        return Jobs(jobs.of_worker(self._reader(), workers.find(self._reader(), worker).id, limit))

    def job(self, job: int) -> JobRow:
        """One long operation.

        Raises:
            UnknownJob: there is none of that number.
        """
        return jobs.find(self._reader(), job)

    # --- adding ---------------------------------------------------------------------------------------------------------

    def worker_add(
        self,
        host: str,
        *,
        name: str | None = None,
        concurrency: int | None = None,
        prefetch: int | str | None = None,
        batch: str | None = None,
        install: bool = False,
        **settings: Any,
    ) -> WorkerRow:
        """Make a host that SSH leads to a worker: an alias of your SSH configuration, `user@host`, or `user@host:port`.

        It is written down when this returns; whoever drives then connects, brings the agent there and tries it
        (`worker_ready` waits for that). `name` is the host's if it is not given. `concurrency`: tasks at once; its number of
        CPUs if not given. `prefetch`: tasks held ready beyond those (`"auto"`: as short tasks need it). `batch`: it serves
        that one only, until a recruiter of another one takes it over while its own has nothing pending (not with `keep_batch`).
        `install`: with root rights there, install what it lacks to run containers. `settings`: `lost_after`
        (seconds of silence after which its tasks may be given to others), `folder` (where the agent lives), `python`,
        `nice`, `hours` (`"22:00-07:00"`), `yield_to_users`, `send_limit`, `flavor` (a name by which recruiters find it; `local`
        if none is given), `keep_batch`.

        Raises:
            NameTaken: there is a worker of that name.
            BadInput: an argument makes no sense.
        """
        host = host.strip()
        if not host or host.startswith("-") or any(letter.isspace() or not letter.isprintable() for letter in host):
            raise BadInput(f"{host!r} is not a host: give an alias of your SSH configuration, or user@host.")
        own = worker_name(host.rpartition("@")[2].partition(":")[0] if name is None else name)
        if own == LOCAL:
            raise BadInput(f"{LOCAL!r} is this machine's own worker. Give this one another name (--name).")
        slots = None if concurrency is None else submission.whole("concurrency", concurrency)
        ahead = None if prefetch in (None, "auto") else submission.whole("prefetch", prefetch)
        given = {key: checked(key, value) for key, value in settings.items() if value is not None and value != "auto"}
        if slots is None:
            given["slots_as_cpus"] = True
        wish = {"install": True} if install else {}

        def write(db: apsw.Connection) -> WorkerId:
            serves = None if batch is None else tasks.batch_id(db, submission.name_of("batch", batch))
            worker = workers.add(
                db, _now_ms(), own, SSH, host, concurrency=slots or 0, prefetch=ahead, batch=serves, settings=given
            )
            jobs.add(db, _now_ms(), "prepare", worker, wish)
            return worker

        worker = self._write(write)
        self._drive()
        return workers.find(self._reader(), int(worker))

    def worker_ready(self, name: str | int, timeout: float | None = None) -> WorkerRow:
        """Wait until a worker that was added or deployed (or is being restarted) is ready.

        Raises:
            WorkerFailed: it cannot be made a worker as it is; the text says why, and what to do.
            TimeoutError: not within `timeout` seconds.
        """
        worker = workers.find(self._reader(), name).id

        def is_busy() -> int:
            return sum(
                job.worker == worker and job.kind in ("prepare", "restart", rentals.DEPLOY)
                for job in jobs.open_ones(self._reader())
            )

        wait_for(cast("Engine", self), is_busy, timeout, f"worker {name}")
        row = workers.find(self._reader(), int(worker))
        if row.state in (WorkerState.FAILED, WorkerState.DELETING, WorkerState.GONE):
            raise WorkerFailed(f"worker {row.name}: {row.note}", worker=row.name)
        return row

    # --- changing -------------------------------------------------------------------------------------------------------

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
        container_engine: str | None = None,
        batch: str | None = None,
        **settings: Any,
    ) -> WorkerRow:
        """Change how many tasks a worker runs at once, and how many it stages ahead (`"auto"`: as short tasks need it);
        or declare what it has for tasks that ask (`gpus`: their number, or their ids); `"auto"` is what its agent finds.
        `output_cap` is how much of each stream of a task is kept there (`"auto"`: 1 GiB). `limits` False: tasks that start
        from now on may exceed the memory and CPUs that they asked for; True (the default): where its system can see to it,
        they may not. `container_engine` is `docker`, `podman`, `apptainer` or `singularity` (`"auto"`: the first that works there).
        `batch`: it serves that one only (`""`: every batch). `settings` are those of `worker_add` (`"auto"`: the default).

        Raises:
            UnknownWorker: no such worker.
            BadInput: not a number of 0 or more.
        """
        row = workers.find(self._reader(), name)
        auto = prefetch == "auto"
        ahead = None if auto or prefetch is None else submission.whole("prefetch", prefetch)
        slots = None if concurrency is None else submission.whole("concurrency", concurrency)
        given = {
            "cpus": cpus,
            "memory": memory,
            "gpus": gpus,
            "output_cap": output_cap,
            "container_engine": container_engine,
        }
        declared: dict[str, Any] = {key: None for key, value in given.items() if value == "auto"}
        declared |= submission.conditions({key: given[key] for key in ("cpus", "memory") if key not in declared})
        if output_cap is not None and output_cap != "auto":
            declared["output_cap"] = submission.memory_bytes("output_cap", output_cap)
        if container_engine is not None and container_engine != "auto":
            if container_engine not in ENGINES:
                raise BadInput(
                    f"container_engine must be one of {', '.join(ENGINES)}, or auto, not {container_engine!r}."
                )
            declared["container_engine"] = container_engine
        if limits is not None:
            declared["limits"] = None if limits else False
        if isinstance(gpus, int):
            declared["gpus"] = [str(number) for number in range(submission.whole("gpus", gpus))]
        elif gpus is not None and gpus != "auto":
            declared["gpus"] = [str(gpu) for gpu in gpus]
        changed: dict[str, Any] = {
            key: None if value == "auto" else checked(key, value)
            for key, value in settings.items()
            if value is not None
        }
        if slots is not None:
            changed["slots_as_cpus"] = None

        def write(db: apsw.Connection) -> None:
            workers.update(db, row.id, concurrency=slots, prefetch=ahead, auto_prefetch=auto)
            workers.declare(db, row.id, declared)
            if changed:
                workers.settle(db, row.id, changed)
            if batch is not None:
                workers.serve(db, row.id, tasks.batch_id(db, submission.name_of("batch", batch)) if batch else None)
                workers.settle(db, row.id, {"home": None})

        self._write(write)
        return workers.find(self._reader(), int(row.id))

    def worker_drain(self, name: str | int) -> WorkerRow:
        """Give a worker nothing more; what it holds it finishes.

        Raises:
            IllegalMove: it is not in a state for that.
        """
        return self._let(name, WorkerState.DRAINING, "drained")

    def worker_pause(self, name: str | int) -> WorkerRow:
        """Launch nothing more on a worker, not even what waits there already; what runs goes on.

        Raises:
            IllegalMove: it is not in a state for that.
        """
        return self._let(name, WorkerState.PAUSED, "paused")

    def worker_resume(self, name: str | int) -> WorkerRow:
        """Let a worker that is drained or paused go on.

        Raises:
            IllegalMove: it is not in a state for that.
        """
        return self._let(name, WorkerState.READY, None)

    def _let(self, name: str | int, state: WorkerState, note: str | None) -> WorkerRow:
        def write(db: apsw.Connection) -> int:
            row = workers.find(db, name)
            if row.state is WorkerState.PREPARING and state is WorkerState.PAUSED:
                workers.move(db, _now_ms(), row.id, state, note)
            elif row.state not in _ABLE:
                raise IllegalMove(
                    f"worker {row.name} is {row.state.word}{': ' + row.note if row.note else ''}; it cannot be told that now.",
                    worker=row.name,
                )
            elif row.state is not state and not (state is WorkerState.READY and row.state is WorkerState.UNREACHABLE):
                workers.move(db, _now_ms(), row.id, state, note)
            return int(row.id)

        worker = self._write(write)
        return workers.find(self._reader(), worker)

    # --- jobs -----------------------------------------------------------------------------------------------------------

    def worker_restart(self, name: str | int) -> JobRow:
        """Have a worker's agent started anew (by this version of scitq); its tasks go on. One that failed is tried again."""

        def write(db: apsw.Connection) -> JobId:
            row = workers.find(db, name)
            if row.state in (WorkerState.GONE, WorkerState.DELETING):
                raise IllegalMove(f"worker {row.name} is being deleted.", worker=row.name)
            if row.state in (WorkerState.FAILED, WorkerState.PREPARING) and row.kind != LOCAL:
                if row.state is WorkerState.FAILED:
                    workers.move(db, _now_ms(), row.id, WorkerState.PREPARING)
                return jobs.add(db, _now_ms(), "prepare", row.id)
            return jobs.add(db, _now_ms(), "restart", row.id)

        return self._begin(write)

    def worker_clean(self, name: str | int) -> JobRow:
        """Have a worker throw away what it keeps for later: resources, work folders of failed executions, images' files."""

        def write(db: apsw.Connection) -> JobId:
            row = workers.find(db, name)
            if row.state not in _ABLE:
                raise IllegalMove(f"worker {row.name} is {row.state.word}; it cannot be cleaned now.", worker=row.name)
            return jobs.add(db, _now_ms(), "clean", row.id)

        return self._begin(write)

    def worker_delete(self, name: str | int, *, force: bool = False) -> JobRow:
        """End a worker: its agent and everything of ours there; its tasks go to others. With `force`, also when it cannot be
        reached: your word that it does nothing any more. One that is rented finishes what it holds first, unless with `force`; then
        its machine is deleted.

        Raises:
            IllegalMove: it holds tasks that have not ended, and `force` was not given; or it is this machine's own.
        """

        def write(db: apsw.Connection) -> JobId:
            row = workers.find(db, name)
            if row.kind == LOCAL:
                raise IllegalMove(
                    f"worker {row.name} is this machine's own. To have it do nothing: scitq worker pause {row.name}"
                )
            if row.kind == RENTED_KIND:
                return rentals.let_go(db, _now_ms(), row.id, "deleted by hand", force=force)
            held = len(executions.live(db, row.id))
            if held and not force:
                raise IllegalMove(
                    f"worker {row.name} holds {held} tasks. Let it finish them (scitq worker drain {row.name}), or say --force: "
                    "then they are stopped, and go to other workers.",
                    worker=row.name, held=held,
                )  # fmt: skip
            for job in jobs.of_worker(db, row.id):
                if job.state is JobState.PENDING and job.kind != "delete":
                    jobs.move(db, _now_ms(), job.id, JobState.CANCELLED, "its worker is deleted")
            if row.state is not WorkerState.DELETING:
                workers.move(db, _now_ms(), row.id, WorkerState.DELETING)
            return jobs.add(db, _now_ms(), "delete", row.id, {"force": True} if force else None)

        return self._begin(write)

    def _begin(self, write: Callable[[apsw.Connection], JobId]) -> JobRow:
        job = self._write(write)
        self._drive()
        return jobs.find(self._reader(), job)

    # --- journeys -------------------------------------------------------------------------------------------------------

    def handoff(self, hours: float = 8.0, timeout: float | None = 60.0, send: float = 60.0) -> dict[str, Any]:
        """Before nobody drives for some hours: give workers elsewhere as much ready work as they can do in that time, also what
        follows from it on the same worker; they may publish what they make. Files of this machine that it reads are sent ahead,
        for `send` seconds at most. Returns what each has, when they have confirmed it: `workers` (`worker`, `tasks`, of which
        `after` others there, and `hours` of work), `tied` (tasks that wait for files of this machine that were not sent in
        time), `gpus` (those that want a GPU: which one is free is seen only while somebody drives), `left` (tasks for which
        there was no room), and `names` of some of the first two.

        Raises:
            BadInput: that is no time.
            TimeoutError: not confirmed in time. What was given is given all the same.
        """
        send_s = send_of(send)
        self._drive()
        self._meet(MEET_S)
        asked = {"hours": hours_of(hours), "send": send_s}
        job = self._begin(lambda db: jobs.add(db, _now_ms(), "handoff", None, asked))

        def is_open() -> int:
            return jobs.find(self._reader(), job.id).state in (JobState.PENDING, JobState.RUNNING)

        wait_for(cast("Engine", self), is_open, None if timeout is None else timeout + send_s, "the handoff")
        done = jobs.find(self._reader(), job.id)
        return {key: value for key, value in done.data.items() if key not in (*asked, "wanting")}

    def _meet(self, timeout_s: float) -> None:
        """If this process has just begun to drive: wait until it has met the workers, or knows that it cannot."""
        driver, deadline = self._driver, time.monotonic() + timeout_s
        while driver is not None and not driver.has_met() and time.monotonic() < deadline:
            count = self._changes.count
            if driver.ended.is_set() or ((holder := self.driver()) is not None and not holder.is_me):
                return
            self._changes.wait(count, 0.05)

    # --- silence --------------------------------------------------------------------------------------------------------

    def held_by(self, name: str | int) -> list[ExecutionRow]:
        """The live executions of a worker."""
        return executions.held(self._reader(), workers.find(self._reader(), name).id)

    def worker_lost(self, name: str | int) -> int:
        """Your word that a worker is gone: its tasks are free for others at once, and what it may still send is discarded.
        Returns how many they were.

        Raises:
            IllegalMove: it is this machine's own.
        """

        def write(db: apsw.Connection) -> int:
            row = workers.find(db, name)
            if row.kind == LOCAL:
                raise IllegalMove(
                    f"worker {row.name} is this machine's own: it cannot be lost while you ask.", worker=row.name
                )
            copies.met(db, row.id)
            held = executions.live(db, row.id)
            for execution in held:
                executions.finish(
                    db, _now_ms(), execution, Outcome.LOST, Stage.RUN, f"its worker {row.name} was declared lost"
                )
            state = WorkerState.UNREACHABLE if row.state is WorkerState.READY else row.state
            workers.move(db, _now_ms(), row.id, state, DECLARED_LOST)
            return len(held)

        lost = self._write(write)
        self._drive()
        return lost


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
