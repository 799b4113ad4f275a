"""The facts of a report, gathered from the state file: one pass over tasks and executions, all of one moment.

Memory does not grow with the number of tasks but for a few numbers each: what is kept of single tasks has limits, and what was
beyond them is counted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from scitq import money
from scitq._version import VERSION
from scitq.addresses import TASK
from scitq.errors import ScitqError
from scitq.fetch.uri import parse
from scitq.states import Outcome, Stage, TaskState
from scitq.store import logs, manifests, reporting, workflows
from scitq.store.listing import spec_of
from scitq.store.reporting import Row
from scitq.task import ExecutionId, Spec, describe, raised_of
from scitq.workflow.reportfacts import (
    ALIKE_NAMED,
    BARS_DRAWN,
    DATA_LISTED,
    FAILURES_OF_A_KIND,
    FAILURES_READ,
    FAILURES_SHOWN,
    PARTS,
    TASKS_TOLD,
    Axis,
    Bar,
    Facts,
    Failure,
    File,
    Image,
    Left,
    Source,
    Step,
    TaskLine,
    Worker,
    axis_of,
    widened,
)

if TYPE_CHECKING:
    import apsw

    from scitq.engine import Engine

TAIL_BYTES = 6000
TAIL_LINES = 30


def gather(engine: Engine, name: str, now_ms: int) -> Facts:
    """What there is to say of a workflow.

    Raises:
        UnknownWorkflow: there is none of that name.
    """
    db = engine._reader()
    with reporting.moment(db):
        return _Gathering(engine, db, name, now_ms).facts()


class _Gathering:
    def __init__(self, engine: Engine, db: apsw.Connection, name: str, now_ms: int) -> None:
        self._engine, self._db, self._now = engine, db, now_ms
        row = workflows.get(db, name)
        found = workflows.steps(db, row.id)
        self._batches = [step.id for step in found]
        self._extent = reporting.extent(db, self._batches)
        self._facts = Facts(
            name=row.name, state_file=engine.path.name, version=VERSION, made_ms=now_ms, created_ms=row.created_ms,
            declared_ms=row.declared_ms, script=row.script, settings=dict(row.settings),
            steps=[Step(step.id, step.step, step.batch, step.position) for step in found],
            executions=self._extent.executions, cost=_cost(engine, row.name),
        )  # fmt: skip
        self._steps = {step.id: step for step in self._facts.steps}
        self._machines = {one.id: one for one in reporting.machines(db, self._batches)}
        self._moves = reporting.moves(db, self._batches)
        self._busy: Counter[int] = Counter()
        self._held: Counter[int] = Counter()
        self._kinds: dict[tuple[int, str], dict[bytes, Failure]] = {}
        self._failed = 0
        self._sources: dict[tuple[str, str, str | None], Source] = {}
        self._sources_beyond: set[int] = set()
        self._tells_tasks = self._extent.tasks <= TASKS_TOLD
        self._draws_bars = self._extent.executions <= BARS_DRAWN

    def facts(self) -> Facts:
        facts = self._facts
        facts.axis = axis_of(list(_merged(reporting.active(self._db, self._batches, self._now))))
        for _, rows in groupby(reporting.each(self._db, self._batches), key=lambda row: row.task):
            self._task(list(rows))
        self._finish_loads()
        facts.links = reporting.links(self._db, self._batches)
        # What only steps require that came to nothing is a result all the same.
        done = {step.id for step in facts.steps if step.counts[TaskState.SUCCEEDED]}
        sources = {source for source, to, _ in facts.links if source is not None and source != to and to in done}
        for step in facts.steps:
            step.is_last = step.id not in sources
        facts.left, facts.left_more = self._final_outputs()
        if self._tells_tasks:
            facts.parents = reporting.parents(self._db, self._batches)
        facts.sources, facts.sources_more = list(self._sources.values()), len(self._sources_beyond)
        facts.workers = [self._worker(id) for id in self._machines]
        firsts = [step.first_ms for step in facts.steps if step.first_ms is not None]
        lasts = [step.last_ms for step in facts.steps if step.last_ms is not None]
        facts.first_ms, facts.last_ms = min(firsts, default=None), max(lasts, default=None)
        return facts

    # --- a task -----------------------------------------------------------------------------------------------------------

    def _task(self, rows: list[Row]) -> None:
        row = rows[-1]
        step, state = self._steps[row.batch], TaskState(row.state)
        step.counts[state] += 1
        asked = spec_of(row.spec)
        spec = asked if row.raised is None else raised_of(row.raised).applied(asked)
        step.commands.add(text_of(spec), row.name)
        if spec.shell is not None:
            step.shells[spec.shell] += 1
        for key in ("cpus", "memory", "gpus"):
            setattr(step, f"{key}_asked", widened(getattr(step, f"{key}_asked"), getattr(spec, key)))
        if row.execution is None:
            rows = []
        ran = [one for one in rows if one.outcome != Outcome.RECALLED]
        for one in ran:
            self._execution(step, one, spec, asked.container)
        step.tried_again += len(ran) > 1
        if ran and state is TaskState.SUCCEEDED:
            self._success(step, ran[-1], spec)
        if not ran or ran[-1].parts is None:
            self._read(spec)
        if state is TaskState.FAILED:
            self._failure(step, row if not ran else ran[-1], spec, len(ran))
        if self._tells_tasks:
            self._facts.tasks.append(self._line(step, row if not ran else ran[-1], spec, len(ran), state))

    def _line(self, step: Step, row: Row, spec: Spec, tries: int, state: TaskState) -> TaskLine:
        _, staging, collecting = self._lengths(row) if row.execution is not None else (None, None, None)
        is_cached = row.cached_from is not None
        return TaskLine(
            id=row.task, name=row.name or spec.line(), step=step.id, state=state, is_cached=is_cached,
            worker=self._name_of(row.worker), executions=tries, staging_s=None if is_cached else staging, run_s=row.run_s,
            collecting_s=None if is_cached else collecting, memory=row.peak_memory, cause=cause_of(row) or row.reason,
            command=text_of(spec),
        )  # fmt: skip

    # --- an execution -----------------------------------------------------------------------------------------------------

    def _execution(self, step: Step, row: Row, spec: Spec, image: str | None) -> None:
        assert row.assigned is not None
        if row.cached_from is not None:
            return  # nothing ran
        step.executions += 1
        end = row.ended if row.ended is not None else self._now
        step.first_ms = min(row.assigned, step.first_ms or row.assigned)
        step.last_ms = max(end, step.last_ms or end)
        if row.outcome not in (None, Outcome.SUCCEEDED):
            step.bad_ends[cause_of(row) or ""] += 1
        waiting, staging, collecting = self._lengths(row)
        for kept, value in (
            (step.waiting_s, waiting), (step.staging_s, staging), (step.run_s, row.run_s), (step.collecting_s, collecting),
            (step.memory_used, row.peak_memory),
        ):  # fmt: skip
            if value is not None:
                kept.append(value)
        if row.cpu_s is not None:
            step.cpu_s += row.cpu_s
            if row.run_s:
                step.cpus_used.append(row.cpu_s / row.run_s)
        step.read_bytes += row.read_bytes or 0
        step.written_bytes += row.written_bytes or 0
        if image is not None:
            step.images[Image(image, row.image)] += 1
        if row.worker is not None:
            self._held[row.worker] += 1
            self._busy[row.worker] += end - row.assigned
            self._draw(step, row, row.worker, end)

    def _lengths(self, row: Row) -> tuple[float | None, float | None, float | None]:
        """For how long an execution was held until it was staged in, staged in, and collected; None: it did not get there."""
        assert row.execution is not None and row.assigned is not None
        staged, collected = self._moves.staging(row.execution), self._moves.collecting(row.execution)
        started = row.started if row.started is not None else row.ended
        waiting = None if started is None else max(0, (staged or started) - row.assigned) / 1000
        staging = None if started is None else 0.0 if staged is None else max(0, started - staged) / 1000
        collecting = None
        if row.ended is not None and row.started is not None:
            collecting = 0.0 if collected is None else max(0, row.ended - collected) / 1000
        return waiting, staging, collecting

    def _draw(self, step: Step, row: Row, worker: int, end: int) -> None:
        assert row.assigned is not None and row.execution is not None
        if self._draws_bars:
            run_end = None
            if row.started is not None and row.run_s is not None:
                run_end = min(end, self._moves.collecting(row.execution) or row.started + int(1000 * row.run_s))
            label = f"{row.task} {row.name or ''}".strip()
            outcome = None if row.outcome is None else Outcome(row.outcome)
            self._facts.bars.append(
                Bar(
                    worker,
                    step.id,
                    label,
                    outcome,
                    row.assigned,
                    self._moves.staging(row.execution),
                    row.started,
                    run_end,
                    end,
                )
            )
            return
        _add(self._facts.loads.setdefault((worker, step.id), [0.0] * (PARTS + 1)), self._facts.axis, row.assigned, end)

    def _finish_loads(self) -> None:
        """What was kept as changes becomes what there was."""
        for changes in self._facts.loads.values():
            changes.pop()

    # --- what was read and left -------------------------------------------------------------------------------------------

    def _success(self, step: Step, row: Row, spec: Spec) -> None:
        step.cached += row.cached_from is not None
        if row.files is not None:
            files = json.loads(row.files)
            step.output_files += len(files)
            step.output_bytes += sum(file[1] for file in files)
        if row.parts is not None:
            for what, sources in zip(("input", "resource"), json.loads(row.parts), strict=True):
                for address, actions, digest in sources:
                    self._source(f"{address}|{actions}" if actions else address, what, digest)

    def _read(self, spec: Spec) -> None:
        """What a task reads, where it was not written down what was there."""
        for what, addresses in (("input", spec.input), ("resource", spec.resource)):
            for address in addresses:
                self._source(address, what, None)

    def _source(self, address: str, what: str, digest: str | None) -> None:
        if address.startswith(f"{TASK}://"):
            return
        key = (address, what, digest)
        if key in self._sources:
            self._sources[key].tasks += 1
        elif len(self._sources) >= DATA_LISTED:
            self._sources_beyond.add(hash(key))
        else:
            found = None if digest is None else reporting.files_behind(self._db, digest)
            files = None if found is None else [File(*file) for file in found]
            self._sources[key] = Source(shown(address), what, files)

    def _final_outputs(self) -> tuple[list[Left], int]:
        """What the steps left whose output no other step requires."""
        left: list[Left] = []
        more = 0
        last = [step.id for step in self._facts.steps if step.is_last]
        for _, group in groupby(reporting.each(self._db, last), key=lambda row: row.task):
            row = list(group)[-1]
            if row.state != TaskState.SUCCEEDED or row.address is None or row.files in (None, "[]"):
                continue
            if len(left) >= DATA_LISTED:
                more += 1
                continue
            files = [
                File(name, size, f"md5:{md5}" if md5 else None) for name, size, md5 in json.loads(row.files or "[]")
            ]
            address = shown(manifests._named(row.address))
            left.append(Left(address, row.task, row.name or spec_of(row.spec).line(), row.batch, files))
        return left, more

    # --- what failed ------------------------------------------------------------------------------------------------------

    def _failure(self, step: Step, row: Row, spec: Spec, tries: int) -> None:
        cause = cause_of(row) or row.reason or "failed"
        self._failed += 1
        if self._failed > FAILURES_READ:
            self._facts.failed_more += 1
            return
        stream, tail, is_cut = self._tail(row.execution)
        like = self._kinds.setdefault((step.id, cause), {})
        name = row.name or spec.line()
        if tail in like:
            known = like[tail]
            known.alike_more += len(known.alike) >= ALIKE_NAMED
            known.alike += [name] if len(known.alike) < ALIKE_NAMED else []
            return
        if len(like) >= FAILURES_OF_A_KIND or len(self._facts.failures) >= FAILURES_SHOWN:
            self._facts.failed_more += 1
            return
        if row.ran is not None:
            spec = spec_of(row.ran)
        like[tail] = Failure(
            task=row.task, name=name, step=step.id, cause=cause, detail=row.detail, worker=self._name_of(row.worker), tries=tries,
            ended_ms=row.ended, command=text_of(spec), stream=stream, tail=tail, is_cut=is_cut,
        )  # fmt: skip
        self._facts.failures.append(like[tail])

    def _tail(self, execution: int | None) -> tuple[str, bytes, bool]:
        """The end of what an execution wrote: of its errors; of its output, if it wrote none."""
        if execution is None:
            return "", b"", False
        for stream, word in ((logs.ERR, "stderr"), (logs.OUT, "stdout")):
            stored = logs.get(self._db, ExecutionId(execution), stream)
            if stored is None or not stored.size:
                continue
            offset = max(0, stored.size - TAIL_BYTES)
            try:
                tail = self._engine._log_bytes(execution, stream, offset, TAIL_BYTES)
            except OSError as problem:
                return word, f"(it cannot be read: {problem.strerror})".encode(), False
            kept = b"".join(tail.splitlines(keepends=True)[-TAIL_LINES:])
            return word, kept, bool(offset) or len(kept) < len(tail)
        return "", b"", False

    # --- workers ----------------------------------------------------------------------------------------------------------

    def _name_of(self, worker: int | None) -> str | None:
        return self._machines[worker].name if worker in self._machines else None

    def _worker(self, id: int) -> Worker:
        machine = self._machines[id]
        facts = machine.facts
        return Worker(
            id=id, name=machine.name, kind=machine.kind, concurrency=machine.concurrency,
            cpus=facts.get("cpus"), memory=facts.get("memory"), gpus=tuple(str(gpu) for gpu in facts.get("gpus") or ()),
            python=facts.get("python"), scitq=facts.get("version"), executions=self._held[id], busy_s=self._busy[id] / 1000,
        )  # fmt: skip


def _cost(engine: Engine, name: str) -> str | None:
    """What the machines that were rented for a workflow cost, in a sentence; None: nothing."""
    found = [one for one in engine.cost("workflow") if one.name == name]
    if not found:
        return None
    parts = []
    for one in found:
        of = [
            f"{money.said(part, one.currency)} {what}"
            for part, what in ((one.idle, "idle"), (one.failed, "failed tries"))
            if part
        ]
        parts.append(money.said(one.amount, one.currency) + (f" (of it {', '.join(of)})" if of else ""))
    still = ", until now" if any(one.state == "running" for one in found) else ""
    return f"{' and '.join(parts)} for rented machines{still}: worked out from their prices."


def _merged(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Stretches, by their beginnings, as ones that are apart from each other."""
    current: tuple[int, int] | None = None
    for start, end in spans:
        if current is None or start > current[1]:
            if current is not None:
                yield current
            current = (start, max(start, end))
        else:
            current = (current[0], max(current[1], end))
    if current is not None:
        yield current


def _add(parts: list[float], axis: Axis, start_ms: int, end_ms: int) -> None:
    """One more from then to then: in each part of the axis, for the share of it in which it was there."""
    start, end = axis.place(start_ms) * PARTS, axis.place(end_ms) * PARTS
    first, last = int(start), int(end)
    if first == last:
        parts[first] += end - start
        return
    parts[first] += first + 1 - start
    for part in range(first + 1, last):
        parts[part] += 1
    parts[last] += end - last


def cause_of(row: Row) -> str | None:
    outcome = None if row.outcome is None else Outcome(row.outcome)
    return describe(outcome, None if row.stage is None else Stage(row.stage), row.exit_code, row.signal)


def text_of(spec: Spec) -> str:
    """The command as it is: a script with all its lines."""
    return spec.command if isinstance(spec.command, str) else spec.line()


def shown(address: str) -> str:
    try:
        return parse(address).shown
    except ScitqError:
        return address
