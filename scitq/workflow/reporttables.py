"""The tables of a report. Pure: facts in, HTML out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from scitq.markup import Markup, Part, joined, tag
from scitq.saying import duration, several, size
from scitq.workflow.reportfacts import Facts, File, Range, Spread, Step, spread
from scitq.workflow.reportgraph import SIGNS, colours, told
from scitq.workflow.reportmethods import stamp

# So many rows of files a table has.
ROWS = 200


class Column(NamedTuple):
    """The heading of a column; `is_number`: its cells stand to the right."""

    heading: Part
    is_number: bool = False


Cell = Part


def table(columns: Sequence[Column], rows: Iterable[Sequence[Cell]], caption: str | None = None) -> Markup:
    """A table whose first column names the rows."""
    head = tag("tr", [tag("th", one.heading, scope="col", class_="n" if one.is_number else None) for one in columns])
    body = []
    for first, *rest in rows:
        cells = [tag("th", first, scope="row", class_="n" if columns[0].is_number else None)]
        cells += [
            tag("td", cell, class_="n" if column.is_number else None)
            for column, cell in zip(columns[1:], rest, strict=True)
        ]
        body.append(tag("tr", cells))
    return tag(
        "div",
        tag("table", tag("caption", caption) if caption else None, tag("thead", head), tag("tbody", body)),
        class_="scroll",
    )


def chip(facts: Facts, step: int) -> Markup:
    """The colour of a step."""
    return tag("span", class_=f"chip s{colours(facts)[step]}", aria_hidden="true")


def named(facts: Facts, step: Step) -> Markup:
    """The name of a step, with its colour."""
    return tag("span", chip(facts, step.id), tag("span", step.name), class_="step")


# --- steps ----------------------------------------------------------------------------------------------------------------------


def step_table(facts: Facts) -> Markup | None:
    """How each step stands, and how long its tasks took."""
    if not facts.steps:
        return None
    rows = []
    for step in facts.steps:
        times = spread(step.run_s)
        how = told(step).partition(": ")[2]
        if step.tried_again:
            how += f"; {step.tried_again:,} tried again"
        span = (
            duration((step.last_ms - step.first_ms) / 1000)
            if step.first_ms is not None and step.last_ms is not None
            else ""
        )
        rows.append([named(facts, step), f"{step.tasks:,}", how, _time(times, "median"), _time(times, "p95"),
                     _time(times, "largest"), span])  # fmt: skip
    columns = [Column("step"), Column("tasks", True), Column("how they stand"), Column("run time, median", True), Column("95 %", True),
               Column("longest", True), Column("from first to last", True)]  # fmt: skip
    return table(columns, rows)


def _time(times: Spread | None, which: str) -> str:
    return "" if times is None else duration(getattr(times, which))


# --- asked and used -------------------------------------------------------------------------------------------------------------


def use(facts: Facts) -> Markup | None:
    """What executions asked for beside what they used, and what their time went into."""
    steps = [step for step in facts.steps if step.executions]
    if not steps:
        return None
    has_gpus = any(step.gpus_asked for step in steps)
    columns = [Column("step"), Column("executions", True), Column("CPUs asked", True), Column("CPUs used", True),
               Column("memory asked", True), Column("memory used", True), *([Column("GPUs asked", True)] if has_gpus else []),
               Column("CPU time", True), Column("read from disk", True), Column("written", True)]  # fmt: skip
    rows = []
    for step in steps:
        cpus, memory = spread(step.cpus_used), spread(step.memory_used)
        rows.append([
            named(facts, step), f"{step.executions:,}", _asked(step.cpus_asked, _plain), _used_cpus(step, cpus),
            _asked(step.memory_asked, _bytes), _used_memory(step, memory),
            *([_asked(step.gpus_asked, _plain)] if has_gpus else []), duration(step.cpu_s) if step.cpu_s else "",
            size(step.read_bytes) if step.read_bytes else "", size(step.written_bytes) if step.written_bytes else "",
        ])  # fmt: skip
    caption = "Used: CPUs that were busy, in 95 of 100 executions no more; memory of the largest process of a task, median and largest"
    return joined([table(columns, rows, caption), _stages(facts, steps)])


def _asked(asked: Range | None, say: Callable[[float], str]) -> str:
    if asked is None:
        return "none"
    return say(asked.most) if asked.least == asked.most else f"{say(asked.least)} to {say(asked.most)}"


def _plain(value: float) -> str:
    return "all" if value < 0 else f"{value:g}"


def _bytes(value: float) -> str:
    return size(int(value))


def _used_cpus(step: Step, used: Spread | None) -> Part:
    if used is None:
        return ""
    text = f"{used.p95:.2g}" if used.p95 < 10 else f"{used.p95:.0f}"
    most = step.cpus_asked.most if step.cpus_asked else None
    return joined([text, _meter([(used.p95 / most, "st-succeeded")])]) if most and most > 0 else text


def _used_memory(step: Step, used: Spread | None) -> Part:
    if used is None:
        return ""
    text: list[Part] = [size(int(used.median)), " / "]
    most = step.memory_asked.most if step.memory_asked else None
    is_over = most is not None and used.largest > most
    text.append(tag("span", size(int(used.largest)), class_="over" if is_over else None))
    if most:
        text.append(_meter([(used.largest / most, "st-failed" if is_over else "st-succeeded")]))
    return joined(text)


def _meter(parts: Sequence[tuple[float, str]]) -> Markup:
    """Shares of a whole, as a bar: what it says stands beside it as text."""
    x, bars = 0.0, []
    for share, style in parts:
        width = max(0.0, min(share, 1.0) * 100)
        bars.append(tag("rect", x=x, y=0, width=width, height=8, class_=style))
        x += width
    return tag("svg", tag("rect", x=0, y=0, width=100, height=8, class_="st-pending", opacity=".25"), bars, class_="meter",
               viewBox="0 0 100 8", preserveAspectRatio="none", aria_hidden="true")  # fmt: skip


def _stages(facts: Facts, steps: Sequence[Step]) -> Markup:
    heads = [joined([tag("span", class_=f"chip {style}", aria_hidden="true"), word]) for word, style in _STAGES]
    columns = [Column("step"), *(Column(head, True) for head in heads), Column("shares")]
    rows = []
    for step in steps:
        totals = [sum(values) for values in (step.waiting_s, step.staging_s, step.run_s, step.collecting_s)]
        whole = sum(totals)
        shares = [(one / whole if whole else 0.0, style) for one, (_, style) in zip(totals, _STAGES, strict=True)]
        cells = [duration(one) + (f" ({one / whole:.0%})" if whole else "") for one in totals]
        rows.append([named(facts, step), *cells, _meter(shares)])
    return table(
        columns, rows, "What the time of all executions together went into; waiting is for a place beside others"
    )


_STAGES = (("waiting", "t0"), ("staging in", "t1"), ("running", "t2"), ("collecting", "t3"))


# --- what ran in what, on what --------------------------------------------------------------------------------------------------


def containers(facts: Facts) -> Markup | None:
    """Which images ran, to the bit."""
    rows: list[Sequence[Cell]] = [
        (step.name, tag("code", image.name), tag("code", image.bits) if image.bits else "not known", f"{count:,}")
        for step in facts.steps
        for image, count in step.images.most_common(50)
    ]
    if not rows:
        return None
    columns = [Column("step"), Column("image"), Column("what ran (digest)"), Column("executions", True)]
    return table(columns, rows)


def workers(facts: Facts) -> Markup | None:
    """The machines and what ran the tasks there."""
    if not facts.workers:
        return tag("p", f"scitq {facts.version}.")
    rows = [
        (one.name, "this machine" if one.kind == "local" else one.kind, _plain(one.cpus) if one.cpus else "",
         size(one.memory) if one.memory else "", len(one.gpus) or "", f"{one.concurrency:,}", one.python or "", one.scitq or "",
         f"{one.executions:,}", duration(one.busy_s))
        for one in facts.workers
    ]  # fmt: skip
    columns = [Column("worker"), Column("kind"), Column("CPUs", True), Column("memory", True), Column("GPUs", True),
               Column("tasks at once", True), Column("Python"), Column("scitq"), Column("executions", True),
               Column("their time", True)]  # fmt: skip
    note = f"This report was made by scitq {facts.version}. Versions of programs are those of the containers, or of the machines."
    return joined([table(columns, rows), tag("p", note, class_="note")])


# --- data -----------------------------------------------------------------------------------------------------------------------


def inputs(facts: Facts) -> Markup | None:
    """What was read that no task of the workflow made."""
    if not facts.sources:
        return None
    rows: list[Sequence[Cell]] = []
    for source in facts.sources:
        if len(rows) >= ROWS:
            break
        files = source.files
        if not files:
            told = "not known" if files is None else "no file"
            rows.append((tag("code", source.address), source.what, "", "", told, f"{source.tasks:,}"))
            continue
        for file in files[: ROWS - len(rows)]:
            rows.append(
                (
                    tag("code", source.address),
                    source.what,
                    tag("code", file.name),
                    _size(file),
                    _mark(file),
                    f"{source.tasks:,}",
                )
            )
    columns = [Column("address"), Column("as"), Column("file"), Column("size", True), Column("checksum, or what tells its version"),
               Column("tasks", True)]  # fmt: skip
    total = sum(source.size or 0 for source in facts.sources)
    count = len(facts.sources) + facts.sources_more
    caption = f"{several(count, 'address', 'addresses')}, {size(total)} where sizes are known"
    return joined(
        [
            table(columns, rows, caption),
            _rest(facts, len(rows), sum(max(1, len(one.files or ())) for one in facts.sources)),
        ]
    )


def outputs(facts: Facts) -> Markup | None:
    """What the last steps left."""
    if not facts.left:
        return None
    rows: list[Sequence[Cell]] = []
    for left in facts.left:
        for file in left.files[: ROWS - len(rows)]:
            rows.append(
                (
                    tag("code", file.name),
                    _size(file),
                    _mark(file),
                    f"{left.task} {left.name}",
                    tag("code", left.address),
                )
            )
    columns = [Column("file"), Column("size", True), Column("checksum"), Column("of task"), Column("where")]
    steps = [step.name for step in facts.steps if step.id in {left.step for left in facts.left}]
    count = sum(len(left.files) for left in facts.left)
    caption = (
        f"What the {'step' if len(steps) == 1 else 'steps'} {', '.join(steps[:20])} left, which no other step requires"
    )
    return joined([table(columns, rows, caption), _rest(facts, len(rows), count + facts.left_more)])


def _rest(facts: Facts, shown: int, count: int) -> Markup | None:
    return (
        None
        if shown >= count
        else tag("p", f"These are {shown:,} of {count:,}; scitq report {facts.name} --json has all.", class_="note")
    )


def _size(file: File) -> str:
    return "" if file.size is None else size(file.size)


def _mark(file: File) -> Part:
    if file.mark is None:
        return ""
    kind, _, value = file.mark.partition(":")
    if kind == "time":
        at_ns = value.partition("-")[0].partition(" ")[0]
        return f"changed {stamp(int(at_ns) // 1_000_000)}" if at_ns.isdecimal() else f"changed {value}"
    return joined([_KINDS.get(kind, kind), " ", tag("code", value)])


_KINDS = {"md5": "MD5", "sha256": "SHA-256", "etag": "ETag", "made": "made by"}


# --- tasks ----------------------------------------------------------------------------------------------------------------------


def tasks(facts: Facts) -> Markup | None:
    """Each task, where they are few."""
    if not facts.tasks:
        return None
    steps = {step.id: step for step in facts.steps}
    rows: list[Sequence[Cell]] = []
    for task in facts.tasks:
        how = f"{SIGNS.get(task.state, '○')} {'cached' if task.is_cached else task.state.word}"
        cause = task.cause if task.cause and task.cause != task.state.word else ""
        rows.append((
            str(task.id), task.name, named(facts, steps[task.step]),
            joined([tag("span", how, class_=f"st-{task.state.word}"), " ", tag("small", cause) if cause else None]), task.worker or "",
            f"{task.executions:,}", _seconds(task.staging_s), _seconds(task.run_s), _seconds(task.collecting_s),
            "" if task.memory is None else size(task.memory),
        ))  # fmt: skip
    columns = [Column("task", True), Column("name"), Column("step"), Column("how it stands"), Column("worker"), Column("tries", True),
               Column("staging in", True), Column("running", True), Column("collecting", True), Column("memory", True)]  # fmt: skip
    return table(columns, rows)


def _seconds(value: float | None) -> str:
    return "" if value is None else duration(value)
