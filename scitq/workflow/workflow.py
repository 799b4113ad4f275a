"""`Workflow`: what a script declares, put in the queue at its start, found again when the script runs once more.

Declaring is collecting (`declare`); deciding is `plan`; writing it down is `queueing`; running and watching is `running`.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from scitq import submission
from scitq.engine import Engine
from scitq.errors import BadInput, BatchGathered
from scitq.money import Limit, limit_of
from scitq.path import URI
from scitq.pictured import Pictured
from scitq.states import LIVE, Halt
from scitq.store import batches, workflows
from scitq.workflow import mode
from scitq.workflow.arguments import Arguments
from scitq.workflow.declare import PROVISIONAL, Declared, settle
from scitq.workflow.given import INHERIT, Recruiting, recruiting_of, task_arguments
from scitq.workflow.growing import Growth
from scitq.workflow.lock import WorkflowLock
from scitq.workflow.marks import Marks
from scitq.workflow.plan import Plan
from scitq.workflow.step import STEP, Gathered, Step, StepTask
from scitq.workflow.summary import Summary, summary
from scitq.workflow.whose import engine_of

if TYPE_CHECKING:
    from scitq.markup import Markup
    from scitq.workflow.queueing import Intent

log = logging.getLogger("scitq")


class Workflow(Pictured):
    """A workflow: steps of tasks, declared by a script and put in the queue together, at `start()`, `run()`, or on leaving `with`.

        with Workflow("qc", shell=True, retry=1) as wf:
            for sample, files in samples.items():
                clean = wf.step("fastp", f"fastp … -o $OUTPUT/{sample}.fq.gz", name=sample, input=files)
            wf.step("stats", "seqkit stats $INPUT/*", input=clean.gather("output"))
        print(wf.run())

    Running the script again goes on with it: tasks are found again by step and name, what has succeeded and has not changed
    stays, the rest runs; `plan()` tells beforehand. `fresh=True` runs everything again, and forgets what is declared no more.

    The arguments are version 1's, and defaults for each `step`: `shell` (True, or a shell's name), `retry`, `container`,
    `container_options`, `download_timeout`, `run_timeout`, `use_cache`, `prefetch`, `provider`, `region`, `flavor`, `concurrency`,
    `tasks_per_worker`, `rounds`, `max_step_workers` (`maximum_workers` of each step), and those of `Engine.submit`. Without a flavor
    any worker serves; without a concurrency each runs as many tasks at once as it is made for; without a maximum there is none.
    With a `provider` (its name, or "auto") machines are rented for what the workers that there are do not do, and let go when they
    have nothing to do: `max_workflow_workers` (10) of them at once for all steps together, of that `market` (`spot`, `ondemand`), none
    dearer an hour than `max_price`, once the first task has waited for `patience` seconds, as long as `max_cost` (15, or "15 EUR")
    is not passed by them all; that of a step is its own. `base_storage` is where `rel_input` and
    `rel_output` begin. With `eager=True` each task is queued as it is declared. With `debug=True` `run()` is a dialogue,
    one task at a time.

    The state file is that of `engine`, or `file`, or of `server` (a `scitq.lib.Server` or an engine; an address of version 1 means
    the file that `scitq.open()` finds). One process runs a workflow at a time; with `join=True` this one runs along.
    """

    def __init__(
        self,
        name: str,
        max_step_workers: int | None = None,
        server: Any = None,
        provider: str | None = None,
        region: str | None = "auto",
        flavor: str | None = None,
        shell: bool | str = False,
        max_workflow_workers: int | None = None,
        retry: int | Mapping[str, Any] | None = None,
        rounds: int | None = None,
        prefetch: int | None = None,
        container: str | None = None,
        container_options: str | Sequence[Any] = "",
        download_timeout: float | None = None,
        run_timeout: float | None = None,
        use_cache: bool = False,
        base_storage: str | URI | os.PathLike[str] | None = None,
        debug: bool = False,
        *,
        engine: Engine | None = None,
        file: str | os.PathLike[str] | None = None,
        concurrency: int | None = None,
        maximum_workers: int | None = None,
        tasks_per_worker: int | None = None,
        market: str | None = None,
        max_price: float | None = None,
        patience: float | None = None,
        idle_timeout: float | None = None,
        cpus: float | None = None,
        memory: str | int | None = None,
        gpus: int | None = None,
        priority: int | None = None,
        max_cost: float | str | None = None,
        tags: Mapping[str, str] | Iterable[str] | None = None,
        env: Mapping[str, str] | None = None,
        eager: bool = False,
        fresh: bool = False,
        join: bool = False,
    ) -> None:
        self.name = submission.name_of("name", name)
        if len(self.name) > 200:
            raise BadInput(f"a workflow's name has 200 characters at most, not {len(self.name)}.")
        if maximum_workers is None:
            maximum_workers = max_step_workers
        if max_workflow_workers is not None and maximum_workers is not None and maximum_workers > max_workflow_workers:
            log.warning(
                "%s: max_step_workers=%d is more than max_workflow_workers=%d.",
                name,
                maximum_workers,
                max_workflow_workers,
            )
        self._settings: dict[str, Any] = {
            "provider": provider, "region": region, "flavor": flavor, "shell": shell, "retry": retry, "rounds": rounds,
            "prefetch": prefetch, "container": container, "container_options": container_options, "stage_in_timeout": download_timeout,
            "run_timeout": run_timeout, "use_cache": use_cache, "concurrency": concurrency, "maximum_workers": maximum_workers,
            "tasks_per_worker": tasks_per_worker, "cpus": cpus, "memory": memory, "gpus": gpus, "priority": priority, "tags": tags,
            "env": env, "market": market, "max_price": max_price, "patience": patience, "idle_timeout": idle_timeout,
        }  # fmt: skip
        recruiting_of(self._settings)
        if max_workflow_workers is not None:
            max_workflow_workers = submission.whole("max_workflow_workers", max_workflow_workers)
        submission.conditions(
            {key: value for key, value in task_arguments(self._settings).items() if key in ("retry", "run_timeout")}
        )
        self._base = None if base_storage is None else str(base_storage).rstrip("/")
        self._most = max_workflow_workers
        self._given = {
            key: value
            for key, value in {
                **self._settings, "max_workflow_workers": max_workflow_workers, "max_cost": max_cost, "base_storage": self._base,
            }.items()
            if isinstance(value, str | int | float | bool) and value not in (False, "") and (key, value) != ("region", "auto")
        }  # fmt: skip
        # How much may be spent: on all of it (under ""), and by step.
        self._limits: dict[str, Limit] = {}
        if (limit := limit_of(max_cost)) is not None:
            self._limits[""] = limit
        self.debug = debug or mode.current.debug
        self._eager = eager and not self.debug and not mode.current.plan_only
        self._fresh = fresh or mode.current.fresh
        self._join = join
        self._server = server
        self.engine = engine_of(engine, file, server)
        self._lock = WorkflowLock(self.engine.side, self.name)
        self._gate = threading.RLock()
        self._steps: dict[str, tuple[int, Recruiting]] = {}
        self._by_step: dict[str, list[Declared]] = {}
        self._names: dict[str, set[str]] = {}
        self._by_number: dict[int, Declared] = {}
        self._open: list[Declared] = []  # declared, and not in the file yet
        self._identities: dict[int, str] = {}
        self._defaults: dict[str, dict[str, Any]] = {}
        self._gathered: set[str] = set()
        self._count = 0
        self._growth = Growth(self)
        self._arguments = Arguments(self, self._base, self._of_name)
        self._origin: Declared | None = None
        self._is_expanding = False
        self._previous: StepTask | None = None
        self.is_started = False
        self.is_over = False
        """Whether a run of it has come to its end, or was left."""
        self._told: Marks | None = None
        if mode.current.is_set:
            mode.current.made.append(self)

    def __repr__(self) -> str:
        return f"<Workflow {self.name}: {self._count} tasks in {len(self._by_step)} steps>"

    def _picture(self) -> Markup:
        from scitq.workflow import pictures

        return pictures.of_workflow(self)

    def __enter__(self) -> Workflow:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.start()
        elif not self.is_started and self._open:
            log.warning("%s: nothing was queued, because of the error.", self.name)

    # --- declaring ------------------------------------------------------------------------------------------------------

    def step(
        self,
        batch: str,
        command: Any,
        concurrency: int | None = INHERIT,
        prefetch: int | None = INHERIT,
        provider: str | None = INHERIT,
        region: str | None = INHERIT,
        flavor: str | None = INHERIT,
        name: str | None = None,
        tasks_per_worker: int | None = INHERIT,
        rounds: int | None = INHERIT,
        shell: bool | str | None = INHERIT,
        maximum_workers: int | None = INHERIT,
        input: Any = None,
        output: Any = None,
        resource: Any = None,
        rel_output: str | None = None,
        rel_input: str | Sequence[str] | None = None,
        required_tasks: Any = None,
        container: str | None = INHERIT,
        container_options: str | Sequence[Any] | None = INHERIT,
        retry: int | Mapping[str, Any] | None = INHERIT,
        download_timeout: float | None = INHERIT,
        run_timeout: float | None = INHERIT,
        use_cache: bool | None = INHERIT,
        args: Mapping[str, Any] | None = None,
        *,
        requires: Any = None,
        stage_in_timeout: float | None = INHERIT,
        cpus: float | None = INHERIT,
        memory: str | int | None = INHERIT,
        gpus: int | None = INHERIT,
        priority: int | None = INHERIT,
        max_cost: float | str | None = None,
        tags: Mapping[str, str] | Iterable[str] | None = INHERIT,
        env: Mapping[str, str] | None = INHERIT,
        retry_delay: float | None = None,
        retry_memory: float | None = None,
        retry_timeout: float | None = None,
        overwrite: bool | None = None,
        keep_failed: bool | None = None,
        skip_if_exists: bool | None = None,
        minimum_tasks: int | None = None,
        market: str | None = INHERIT,
        max_price: float | None = INHERIT,
        patience: float | None = INHERIT,
        idle_timeout: float | None = INHERIT,
    ) -> StepTask:
        """Declare one task of a step; returns its handle. What is not given is the workflow's; None means none.

        `batch` is the name of the step (the batch is `workflow.batch`); its first call says which workers serve it. `name` is by what
        the task is found again when the script runs once more, unique in its step; `<batch> #<n>` if not given.
        `command` is a text (with `shell`, a script), a list of words, `shell_code(…)`, or a `@remote` function with `args`.
        `input` and `resource`: an address (text, in which spaces separate several; `URI`; `Path`), another step's task, its `output`
        or what was gathered, or a list of such; tasks whose output is read are required by that. `output`: one folder.
        `rel_input` and `rel_output` begin at the workflow's `base_storage`. `required_tasks` (or `requires`): tasks, numbers, names, lists.

        After the start of the workflow a task is queued at once.

        Raises:
            BadInput: an argument makes no sense; nothing was declared.
            BatchGathered: the step was gathered before.
        """
        given = {
            "concurrency": concurrency, "prefetch": prefetch, "provider": provider, "region": region, "flavor": flavor,
            "tasks_per_worker": tasks_per_worker, "rounds": rounds, "shell": shell, "maximum_workers": maximum_workers,
            "container": container, "container_options": container_options, "retry": retry,
            "stage_in_timeout": download_timeout if stage_in_timeout is INHERIT else stage_in_timeout,
            "run_timeout": run_timeout, "use_cache": use_cache, "cpus": cpus, "memory": memory, "gpus": gpus, "priority": priority,
            "tags": tags, "env": env, "retry_delay": retry_delay, "retry_memory": retry_memory, "retry_timeout": retry_timeout,
            "overwrite": overwrite, "keep_failed": keep_failed, "skip_if_exists": skip_if_exists, "minimum_tasks": minimum_tasks,
            "market": market, "max_price": max_price, "patience": patience, "idle_timeout": idle_timeout,
        }  # fmt: skip
        settings = self._settings
        given = {key: settings[key] if value is INHERIT else value for key, value in given.items()}
        limit = limit_of(max_cost)
        if container_options is INHERIT and given["container"] is None:
            given["container_options"] = None  # the workflow's are for its steps that run in containers
        with self._gate:
            step = submission.name_of("batch", batch)
            if step in self._gathered:
                raise BatchGathered(
                    f"step {step!r} of {self.name} was gathered: what gathered it would miss this task. Declare it before, or give "
                    "it another step.",
                    step=step,
                )
            name = self._name_for(step, name)
            task = self._arguments.task(step, name, command, args, given)
            parents = [*self._arguments.requirements(required_tasks), *self._arguments.requirements(requires)]
            self._arguments.data(task, parents, input, resource, output, rel_input, rel_output)
            task["requires"] = parents
            item = self.engine._submitter.prepare(task, self._defaults)
            for number in item.requires:
                if number >= PROVISIONAL and number not in self._by_number:
                    raise BadInput(
                        f"{step} {name!r} needs a task of another workflow, or of another run, that is not queued yet: start "
                        "that one first."
                    )
            declared = Declared(step, name, item, self._count, None if self._origin is None else self._origin.id)
            settle(declared, self._identity, self._side_address)
            self._add(declared, given)
            if limit is not None:
                self._limits[step] = limit
            handle = self._previous = StepTask(self, declared)
            if not self._is_expanding and (self._eager or self.is_started):
                self._enter(complete=False)
            return handle

    def _name_for(self, step: str, name: str | None) -> str:
        taken = self._names.get(step, set())
        if name is not None:
            name = submission.name_of("name", name)
            if name in taken:
                raise BadInput(
                    f"step {step!r} of {self.name} has a task named {name!r} already: names are unique in a step, for tasks are found "
                    "again by them."
                )
            return name
        origin = self._origin
        n = len(taken) + 1 if origin is None else 1
        while True:
            name = f"{step} #{n}" if origin is None else origin.name if n == 1 else f"{origin.name} #{n}"
            if name not in taken:
                return name
            n += 1

    def _identity(self, number: int) -> str:
        """What a task is called in digests: by its step and name if a workflow declared it, else by its number."""
        own = self._by_number.get(number)
        if own is not None:
            return f"{own.step}/{own.name}"
        if number not in self._identities:
            found = workflows.workflow_of(self.engine._reader(), number)
            if found is None:
                self._identities[number] = f"#{number}"
            elif found[0] == self.name:
                self._identities[number] = "/".join(found[1:])
            else:
                self._identities[number] = "/".join(found)
        return self._identities[number]

    @functools.cached_property
    def _side_address(self) -> str:
        return f"{self.engine.side}/"

    def _add(self, declared: Declared, given: Mapping[str, Any]) -> None:
        step = declared.step
        if step not in self._by_step:
            self._steps[step] = len(self._steps), recruiting_of(given)
            self._by_step[step], self._names[step] = [], set()
        self._by_step[step].append(declared)
        self._names[step].add(declared.name)
        self._by_number[declared.number] = declared
        self._open.append(declared)
        self._count += 1

    def _of_name(self, name: str) -> list[Declared]:
        """The declared tasks of a name, over all steps."""
        return [
            one
            for step, names in self._names.items()
            if name in names
            for one in self._by_step[step]
            if one.name == name
        ]

    def _declared_of(self, step: str) -> list[Declared]:
        return self._by_step.get(step, [])

    def __getitem__(self, step: str) -> Step:
        """A step by its name.

        Raises:
            KeyError: none of that name was declared.
        """
        if step not in self._by_step:
            known = ", ".join(self._by_step) or "none"
            raise KeyError(f"{self.name} has no step {step!r} (declared so far: {known}).")
        return Step(self, step)

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    def __contains__(self, step: object) -> bool:
        return step in self._by_step

    @property
    def steps(self) -> list[Step]:
        """The steps declared so far."""
        return [Step(self, name) for name in self._by_step]

    @property
    def previous_step(self) -> StepTask | None:
        """What `step` returned last."""
        return self._previous

    @property
    def tasks(self) -> list[StepTask]:
        """All tasks declared so far."""
        return [task for step in self.steps for task in step]

    @property
    def server(self) -> Any:
        """Version 1's interface to the same state file."""
        if self._server is None or isinstance(self._server, str | os.PathLike | Engine):
            from importlib import import_module

            self._server = import_module("scitq.lib").Server(self.engine)
        return self._server

    def gather(self, step: str, what: str = STEP) -> Gathered:
        """What `Step.gather` says."""
        with self._gate:
            found = Gathered(self[step].tasks, what)
            self._gathered.add(step)
            return found

    def _each(self, step: str, function: Callable[..., object]) -> None:
        if not callable(function):
            raise BadInput(f"each takes a function(task, files), not {type(function).__name__}.")
        self._growth.add(step, function)

    def _expand(self, task: StepTask, function: Callable[..., object]) -> None:
        """Have a function declare what follows from a task that has succeeded, and put that in the queue, together."""
        files = [task.output / left.name for left in task.files()]
        with self._gate:
            self._origin, self._is_expanding = task._declared, True
            before = len(self._open)
            try:
                function(task, files)
            except BaseException:
                for one in self._open[before:]:
                    self._forget(one)
                raise
            finally:
                self._origin, self._is_expanding = None, False
            if self._open:
                self._enter(complete=False)

    def _forget(self, one: Declared) -> None:
        self._by_step[one.step].remove(one)
        self._names[one.step].discard(one.name)
        self._by_number.pop(one.number, None)
        self._open.remove(one)

    # --- starting -------------------------------------------------------------------------------------------------------

    def plan(self, check_inputs: bool = True, *, offers: bool = False) -> Plan:
        """What a start would do, and why: as text, a table. Nothing is changed.

        With `offers`, what could be rented for the tasks that would run: the cheapest way, the fastest and one between, with time and
        cost as tasks of each step took before (`plan.offers`). Providers are asked if what is known of them is old.

        With `check_inputs`, what changed of inputs and resources counts: plain files by size and time, addresses by what their
        storages say, as far as they answer within seconds.
        """
        from scitq.workflow import rented
        from scitq.workflow.queueing import decide

        with self._gate:
            declared = [one for step in self._by_step.values() for one in step]
            declared.sort(key=lambda one: one.position)
            intent = self._intent(declared, complete=True, check_inputs=check_inputs)
            self._resolve(declared)
            found = decide(self.engine._reader(), intent)[0]
            found.notes += rented.told(self.engine, self._steps, found, self._most)
        if offers:
            from scitq.workflow.offering import offers as offering

            found.offers = offering(self.engine, found, self._steps, self._most)
        return found

    def start(self) -> None:
        """Put what was declared in the queue, in one transaction, and drive it: workers begin. Returns at once.

        Raises:
            WorkflowBusy: another process runs this workflow.
        """
        with self._gate:
            if mode.current.plan_only:
                raise mode.PlanShown(self.plan(offers=mode.current.offers))
            if self.is_started and not self._open:
                return
            if not self._by_step:
                raise BadInput(f"workflow {self.name} has no steps: declare some with step() first.")
            self._enter(complete=not self.is_started and not self._eager)

    def _resolve(self, declared: Sequence[Declared]) -> None:
        """Tasks that are in the file are required by their numbers there."""
        for one in declared:
            if any(parent >= PROVISIONAL for parent in one.parents):
                found = (self._by_number.get(parent) for parent in one.parents)
                one.parents = tuple(
                    parent if own is None or own.id is None else own.id
                    for parent, own in zip(one.parents, found, strict=True)
                )

    def _intent(self, declared: Sequence[Declared], *, complete: bool, check_inputs: bool = True) -> Intent:
        from scitq.workflow.queueing import Intent

        marks = Marks(self.engine)
        if check_inputs:
            marks.look(declared)
        return Intent(
            self.name, self._given, mode.current.script or _script(), declared, self._steps, marks, fresh=self._fresh, debug=self.debug,
            complete=complete, grown=self.is_started, prune=mode.current.prune, limits=self._limits,
        )  # fmt: skip

    def _enter(self, *, complete: bool) -> Plan:
        """Put what is not there yet into the file."""
        from scitq.workflow.queueing import enter

        if not self._join:
            self._lock.acquire()
        declared = list(self._open)
        self._resolve(declared)
        intent = self._intent(declared, complete=complete)
        while True:
            done = enter(self.engine, intent)
            if not done.stopping:
                break
            self._await_end(done.stopping)
        for one in declared:
            assert one.id is not None
            self._by_number[one.id] = one
        self._open.clear()
        first, self.is_started = not self.is_started, True
        if first:
            for note in done.plan.notes:
                log.warning("%s: %s", self.name, note)
        return done.plan

    def _await_end(self, ids: Sequence[int]) -> None:
        """Wait until workers have let go of tasks that are to run otherwise."""
        from scitq.store import listing

        wanted = list(ids)

        def live() -> int:
            rows = listing.select(self.engine._reader(), states=sorted(LIVE), ids=wanted, limit=1)
            return len(rows)

        log.info("%s: %d tasks that changed are being stopped.", self.name, len(wanted))
        self.engine._drive()
        self.engine._wait_for(live, None, "tasks that changed, and are being stopped")

    # --- running --------------------------------------------------------------------------------------------------------

    def run(self, refresh: float | None = None, block: bool = True) -> Summary:
        """Start, and watch until nothing more happens by itself: on a terminal with a screen, else in plain lines. `refresh` is
        version 1's; the screen follows what happens. With `block=False` it returns at once.

        Raises:
            WorkflowFailed: tasks ended badly; the error names them.
            WorkflowLeft: it was left (with Q, or Ctrl-C): tasks go on; or it was destroyed (with D).
            WorkflowBusy: another process runs it.
        """
        from scitq.workflow import running

        return running.run(self, refresh, block=block)

    def status(self) -> Summary:
        """How it stands now."""
        return summary(self.engine, self.name)

    def report(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        json: bool = False,
        crate: str | os.PathLike[str] | None = None,
        **more: Any,
    ) -> Any:
        """Write what was done as one HTML file, for people (or with `json`, `crate`, for programs): see `scitq report`. `license`,
        `author` and `checksums` are that command's, too."""
        from scitq.workflow import report

        target = None if path is None else Path(path)
        folder = None if crate is None else Path(crate)
        return report.write(self.engine, self.name, target, json=json, crate=folder, **more)

    def pause(self, suspend: bool = False) -> None:
        """Launch nothing more of it; with `suspend`, also stop what runs where it is."""
        self._halt(Halt.SUSPENDED if suspend else Halt.PAUSED)

    def suspend(self) -> None:
        """Stop all of it where it is."""
        self._halt(Halt.SUSPENDED)

    def unpause(self) -> None:
        """Let it go on."""
        self._halt(Halt.GO)

    def _halt(self, wanted: Halt) -> None:
        halt(self.engine, self.name, wanted)

    def clean(
        self, force: bool = False, download_logs: bool = True, log_destination: str | os.PathLike[str] | None = None
    ) -> int:
        """Delete its succeeded tasks from the file, once their output is in `<name>_output.log` and `<name>_error.log` of a folder
        (the workflow's name, if none is given); with `force`, all that is not on a worker, without logs. What tasks left at
        addresses stays, and their results may still be taken by the cache. Run again, the script runs them anew."""
        from scitq.workflow.afterwards import clean

        folder = (
            Path(log_destination if log_destination is not None else self.name) if download_logs and not force else None
        )
        return clean(self.engine, self.name, force=force, logs_to=folder)

    def download(
        self, uri_list: Iterable[Any] | None = None, destination: str | os.PathLike[str] | None = None
    ) -> list[Path]:
        """Bring what its tasks left into a folder (the current one), a folder in it for each step; or only what is at given
        addresses. Returns the files."""
        from scitq.workflow.afterwards import checked_destination, download

        return download(self.engine, self.name, uri_list, checked_destination(destination))

    def quit(self) -> None:
        """Let another process run it; what is queued stays queued."""
        self._lock.release()


def halt(engine: Engine, name: str, wanted: Halt) -> int:
    """Pause, suspend or release all steps of a workflow; returns how many executions that is about.

    Raises:
        UnknownWorkflow: there is none of that name.
    """
    import time

    now = time.time_ns() // 1_000_000
    row = workflows.get(engine._reader(), name)
    count = engine._write(
        lambda db: sum(batches.halt(db, now, step.batch, wanted) for step in workflows.steps(db, row.id))
    )
    if wanted is Halt.GO:
        engine._drive()
    return count


def _script() -> str | None:
    """The program that declares."""
    found = getattr(sys.modules.get("__main__"), "__file__", None)
    return None if found is None else os.path.abspath(found)
