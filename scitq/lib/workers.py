"""The part of `Server` that is about workers, recruiters and flavors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scitq import recruiting
from scitq.errors import BadInput, NotSupported
from scitq.lib import answers
from scitq.lib.answers import batch_in, id_of
from scitq.protofilter import AUTO, MAX_EVICTION, flavor_of, suits
from scitq.states import WorkerState
from scitq.store import executions, recruiters, tasks
from scitq.worker import LOCAL, Recruiter, WorkerRow

if TYPE_CHECKING:
    from scitq.engine import Engine
    from scitq.handle import Task

_BY_AGENTS = "agents do that by themselves in this scitq."
# A task's signals: those that stop, let go on, and end it.
_PAUSES, _RESUMES, _ENDS = (19, 20), (18,), (2, 3, 9, 15)
_RANK = 1
UNSET: Any = object()


class Workers:
    """Methods of `Server`, not a class of its own."""

    engine: Engine

    if TYPE_CHECKING:

        def _styled(self, fields: Mapping[str, Any]) -> Any: ...
        def _handle(self, one: Any) -> Task: ...
        def executions(self, **conditions: Any) -> list[Any]: ...
        def _execution(self, id: Any) -> Any: ...

    # --- workers --------------------------------------------------------------------------------------------------------

    def workers(self, **filters: Any) -> list[Any]:
        """The workers of which every named field has the given value: `workers(status="running", batch="qc")`."""
        return [self._styled(row) for row in map(answers.worker, self.engine.workers()) if _meets(row, filters)]

    def worker_get(self, id: Any) -> Any:
        """A worker.

        Raises:
            UnknownWorker: there is none of that number.
        """
        return self._styled(answers.worker(self._worker(id)))

    def worker_create(
        self,
        name: str | None = None,
        concurrency: int | None = None,
        hostname: str | None = None,
        status: str = "paused",
        batch: str | None = None,
        permanent: bool = True,
        prefetch: int | None = 0,
        flavor: str | None = None,
        asynchronous: bool = True,
        **more: Any,
    ) -> Any:
        """Make a host that SSH leads to a worker: `hostname` is what `ssh` takes. `more` is what `Engine.worker_add` takes."""
        host = hostname or name
        if host is None:
            raise BadInput("worker_create needs a hostname: an alias of your SSH configuration, or user@host.")
        row = self.engine.worker_add(
            host, name=name, concurrency=concurrency, prefetch=prefetch, batch=batch_in(batch), flavor=flavor, **more
        )
        if status == "paused":
            self.engine.worker_pause(row.name)
        return self.worker_get(int(row.id))

    def worker_update(
        self,
        id: Any,
        name: str | None = None,
        hostname: str | None = None,
        concurrency: int | None = None,
        status: str | None = None,
        batch: Any = UNSET,
        permanent: bool | None = None,
        prefetch: int | None = None,
        flavor: Any = UNSET,
        task_properties: Any = None,
        asynchronous: bool = True,
        **more: Any,
    ) -> Any:
        """Change how much a worker runs, whom it serves (`batch` None or Default: every batch), or whether it goes on.

        `permanent` and `task_properties` mean nothing here: nobody deletes a worker by himself, and what it runs keeps its weight.
        """
        row = self._worker(id)
        if name not in (None, row.name) or hostname not in (None, row.address, row.name):
            raise BadInput("a worker keeps its name and its host: delete it and add another one.")
        if batch is not UNSET:
            more["batch"] = "" if batch in (None, answers.V1_DEFAULT) else batch
        if flavor is not UNSET:
            more["flavor"] = "auto" if flavor is None else flavor
        if more or concurrency is not None or prefetch is not None:
            self.engine.update_worker(row.name, concurrency=concurrency, prefetch=prefetch, **more)
        if status == "paused":
            self.engine.worker_pause(row.name)
        elif status == "running":
            self.engine.worker_resume(row.name)
        elif status is not None:
            raise BadInput(f"a worker can be made running or paused, not {status!r}.")
        return self.worker_get(id)

    def worker_delete(self, id: Any, asynchronous: bool = True) -> None:
        """End a worker; its tasks go to others.

        Raises:
            IllegalMove: it is this machine's own.
        """
        self.engine.worker_delete(self._worker(id).name, force=True)

    def worker_deploy(
        self,
        number: int,
        batch: str,
        region: str | None = None,
        flavor: str | None = None,
        concurrency: int | None = None,
        provider: str | None = None,
        prefetch: int | None = 0,
        asynchronous: bool = True,
    ) -> None:
        """See to it that a batch has workers: `number` of them are rented, unless what is there is of the flavor.

        Then the batch has a recruiter of rank 1 with what is said here. Nothing is done for `number` 0.

        Raises:
            BadInput: nothing that is there, or can be rented, is of the flavor.
        """
        if number == 0:
            return
        asked = None if flavor is None else flavor_of(flavor)
        fits = any(suits(asked, recruiting.machine(row)) for row in self.engine.workers())
        is_own = asked in (None, LOCAL) or provider in (None, LOCAL)
        if asked == LOCAL or (fits and is_own):
            self.recruiter_create(
                batch,
                _RANK,
                None,
                asked,
                concurrency,
                prefetch=prefetch,
                maximum_workers=None,
                provider=None,
                region=None,
            )
            return
        try:
            self.engine.worker_deploy(
                asked, number=number, concurrency=concurrency, prefetch=prefetch, batch=batch,
                provider=None if provider == AUTO else provider, region=None if region == AUTO else region,
            )  # fmt: skip
        except BadInput as problem:
            raise BadInput(
                f"worker_deploy: {problem} Or add a host of your own: engine.worker_add('user@host', flavor='NAME'), or scitq worker add; "
                "or ask for flavor='local'."
            ) from problem

    def worker_executions(self, id: Any, status: str | None = None) -> list[Any]:
        """The attempts that a worker has now."""
        found: list[Any] = []
        for row in self.engine.held_by(self._worker(id).name):
            found += self.executions(execution_id=int(row.id), status=status)
        return found

    def workers_tasks(self) -> list[Any]:
        """How many attempts of each worker are in each status."""
        counts: dict[tuple[int, str], int] = {}
        for row in self.engine.workers():
            for state in executions.live(self.engine._reader(), row.id).values():
                key = (int(row.id), answers.STATUS[state])
                counts[key] = counts.get(key, 0) + 1
        return [
            self._styled({"worker_id": worker, "status": status, "count": n})
            for (worker, status), n in sorted(counts.items())
        ]

    def worker_ping(self, *_: Any, **__: Any) -> Any:
        """Version 1's workers showed that they live this way."""
        raise NotSupported(f"worker_ping: {_BY_AGENTS}")

    def worker_callback(self, *_: Any, **__: Any) -> Any:
        """Version 1's workers said that they idle this way."""
        raise NotSupported(f"worker_callback: {_BY_AGENTS}")

    def worker_signals(self, id: Any) -> list[Any]:
        """What is still to be told to a worker: nothing is told by signals here, so none is ever left."""
        self._worker(id)
        return []

    def worker_create_signal(self, id: Any, execution_id: Any, signal: int, asynchronous: bool = True) -> None:
        """Signal an execution: 9, 15, 3 end its task, 19 and 20 stop it where it is, 18 lets it go on. Without an execution: -2
        restarts the worker's agent, -1 and -3 throw away what it keeps for later."""
        row = self._worker(id)
        if execution_id is None:
            if signal not in (-1, -2, -3):
                raise BadInput(f"a worker's signal is -1, -2 or -3, not {signal!r}.")
            self.engine.worker_restart(row.name) if signal == -2 else self.engine.worker_clean(row.name)
            return
        task = self._handle(int(self._execution(execution_id).task))
        deeds = {
            **dict.fromkeys(_ENDS, task.cancel),
            **dict.fromkeys(_PAUSES, task.pause),
            **dict.fromkeys(_RESUMES, task.resume),
        }
        if signal not in deeds:
            raise BadInput(f"signal must be one of {', '.join(map(str, sorted(deeds)))}, not {signal!r}.")
        deeds[signal]()

    def _worker(self, id: Any) -> WorkerRow:
        if isinstance(id, str) and not id.isdecimal():
            return self.engine.worker(id)
        return self.engine.worker(id_of(id, "worker_id"))

    # --- recruiters -----------------------------------------------------------------------------------------------------

    def recruiters(self, **filters: Any) -> list[Any]:
        """The recruiters of which every named field has the given value."""
        return [self._styled(row) for row in map(answers.recruiter, self.engine.recruiters()) if _meets(row, filters)]

    def recruiter_create(
        self,
        batch: str,
        rank: int,
        tasks_per_worker: int | None = None,
        flavor: str | None = None,
        concurrency: int | None = None,
        region: str | None = None,
        provider: str | None = None,
        prefetch: int | None = 0,
        minimum_tasks: int | None = None,
        maximum_workers: int | None = None,
        asynchronous: bool = True,
        **more: Any,
    ) -> Any:
        """Give a batch a recruiter, in the place of the one of that rank if there is one: see `Engine.recruiter_create` (also for
        `rounds`, `market`, `max_price`, `max_cost`, `patience` and `idle_timeout`, which version 1 did not have)."""
        one = self.engine.recruiter_create(
            batch_in(batch) or "", rank, tasks_per_worker=tasks_per_worker, flavor=flavor, concurrency=concurrency,
            region=region, provider=provider, prefetch=prefetch, minimum_tasks=minimum_tasks, maximum_workers=maximum_workers,
            **more,
        )  # fmt: skip
        return self._styled(answers.recruiter(one))

    def recruiter_update(self, batch: str, rank: int, asynchronous: bool = True, **fields: Any) -> Any:
        """Change what is given of a recruiter; None takes it back."""
        return self._styled(answers.recruiter(self.engine.recruiter_update(batch_in(batch) or "", rank, **fields)))

    def recruiter_delete(self, batch: str, rank: int, asynchronous: bool = True) -> None:
        """Take a recruiter away. One that is not there is no mistake: version 1's scripts clean up that way."""
        name = batch_in(batch)

        def write(db: Any) -> None:
            recruiters.delete(db, tasks.batch_id(db, str(name)), recruiting.rank_of(rank))

        self.engine._write(write)

    def recruiters_match(self, **filters: Any) -> list[Any]:
        """The workers that recruiters (all, or those whose fields are given) could use, each with that recruiter."""
        found = []
        for one in self.engine.recruiters():
            if not _meets(answers.recruiter(one), filters):
                continue
            for row in self.engine.recruiter_match(one.batch_name, one.rank):
                if row.state is WorkerState.READY:
                    found.append(self._styled({**answers.worker(row), **_named(one)}))
        return found

    # --- flavors --------------------------------------------------------------------------------------------------------

    def flavors(
        self,
        min_cpu: float | None = None,
        min_ram: float | None = None,
        min_disk: float | None = None,
        max_eviction: float | None = 5,
        limit: int | None = 10,
        provider: str | None = None,
        region: str | None = None,
        protofilters: str | None = None,
    ) -> list[Any]:
        """What could be rented, the cheapest first: at most `limit` (None: all) as they were last read (`engine.flavor_refresh`).

        `protofilters` is `cpu>=8:region~GRA%`, with or without `auto:`. Prices are per hour, `ram`, `disk` and `gpumem` in GB.

        Raises:
            BadInput: a filter makes no sense.
        """
        least = {"cpu": min_cpu, "ram": min_ram, "disk": min_disk}
        filters = [f"{item}>={value:g}" for item, value in least.items() if value is not None]
        text = (protofilters or "").removeprefix(AUTO).removeprefix(":")
        asked = ":".join([AUTO, *([text] if text else []), *filters])
        most = MAX_EVICTION if max_eviction is None else max_eviction
        found = self.engine.flavors(asked, provider=provider, region=region, max_eviction=most)
        return [self._styled(answers.flavor(one)) for one in found.ranked[:limit]]

    def flavor_find(
        self,
        cpu: float | None = None,
        ram: float | None = None,
        disk: float | None = None,
        max_eviction: float = 5,
        n: int = 1,
    ) -> list[Any]:
        """The `n` cheapest of what could be rented."""
        return self.flavors(cpu, ram, disk, max_eviction, limit=n)


def _named(one: Recruiter) -> dict[str, Any]:
    return {"recruiter_batch": answers.batch_out(one.batch_name), "recruiter_rank": one.rank}


def _meets(row: Mapping[str, Any], filters: Mapping[str, Any]) -> bool:
    if unknown := sorted(filters.keys() - row.keys()):
        raise BadInput(f"there is nothing called {unknown[0]!r} to choose by (there are {', '.join(sorted(row))}).")
    return all(row[name] == value for name, value in filters.items() if value is not None)
