"""A report as one HTML page that needs nothing but itself: no scripts, no requests, everything in it escaped.

Pure: facts in, text out. Pictures are `reportgraph` and `reporttimeline`, tables `reporttables`, looks `reportstyle`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import PurePath

from scitq.markup import Markup, Part, joined, lines, output, tag
from scitq.saying import duration, several, size
from scitq.states import TaskState
from scitq.workflow.reportcommand import DIFFERS, NAME
from scitq.workflow.reportfacts import Facts, Failure, Step
from scitq.workflow.reportgraph import ORDER, draws_tasks, graph
from scitq.workflow.reportmethods import methods, stamp
from scitq.workflow.reportstyle import STYLE
from scitq.workflow.reporttables import chip, containers, inputs, outputs, step_table, tasks, use, workers
from scitq.workflow.reporttimeline import timeline

# All commands of a step are listed up to so many characters of them in the whole page.
COMMANDS_LISTED = 400_000


def page(facts: Facts) -> str:
    """The page."""
    sections = [(id, title, body) for id, title, body in _sections(facts) if body is not None]
    # Nothing may be fetched and no script may run, whatever got into the page.
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="generator", content=f"scitq {facts.version}"),
        tag("title", f"{facts.name}: workflow report"),
        tag("link", rel="icon", href="data:,"),
        tag("style", Markup(STYLE)),
    )
    body = tag(
        "body",
        tag("header", tag("h1", facts.name), tag("p", _verdict(facts), class_="verdict"), tag("p", _when(facts), class_="soft"),
            _cards(facts)),
        tag("nav", [tag("a", title, href=f"#{id}") for id, title, _ in sections], aria_label="Sections"),
        tag("main", [tag("section", tag("h2", title, id=f"{id}-title"), body, id=id, aria_labelledby=f"{id}-title")
                     for id, title, body in sections]),
        tag("footer", _foot(facts)),
    )  # fmt: skip
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _sections(facts: Facts) -> Sequence[tuple[str, str, Markup | None]]:
    return (
        ("steps", "Steps", step_table(facts)),
        ("failures", "Failures", _failures(facts)),
        ("graph", "Graph", _graph(facts)),
        ("timeline", "Timeline", _timeline(facts)),
        ("use", "Asked and used", use(facts)),
        ("cost", "Cost", None if facts.cost is None else tag("p", facts.cost)),
        ("methods", "Methods", _methods(facts)),
        ("commands", "Commands", _commands(facts)),
        ("containers", "Containers", containers(facts)),
        ("inputs", "Inputs", inputs(facts)),
        ("outputs", "Outputs", outputs(facts)),
        ("workers", "Machines and software", workers(facts)),
        ("tasks", "Tasks", tasks(facts)),
    )


# --- the head of it -------------------------------------------------------------------------------------------------------------


def _verdict(facts: Facts) -> Markup:
    counts, total = facts.counts, facts.task_count
    if not total:
        return tag("span", "It has no tasks.")
    if counts[TaskState.SUCCEEDED] == total:
        return tag("span", "✓ All tasks succeeded." if total > 1 else "✓ Its task succeeded.", class_="st-succeeded")
    parts = [
        f"{counts[state]:,} {state.word}" for state in ORDER if counts.get(state) and state is not TaskState.SUCCEEDED
    ]
    done = f"{counts[TaskState.SUCCEEDED]:,} of {several(total, 'task')} succeeded; {', '.join(parts)}."
    if counts[TaskState.FAILED]:
        return tag("span", f"✗ {done}", class_="st-failed")
    return tag("span", done if facts.is_over else f"▸ Not over: {done}", class_=None if facts.is_over else "st-running")


def _when(facts: Facts) -> str:
    if facts.first_ms is None or facts.last_ms is None:
        return f"Declared {stamp(facts.declared_ms or facts.created_ms)}; nothing has run yet."
    first, last = stamp(facts.first_ms), stamp(facts.last_ms)
    end = last.removeprefix(first[:11]) if last[:10] == first[:10] else last
    return f"{first.removesuffix(' UTC')} to {end}" if facts.is_over else f"Since {first}; as of {stamp(facts.made_ms)}"


def _cards(facts: Facts) -> Markup:
    counts = facts.counts
    cpu_s = sum(step.cpu_s for step in facts.steps)
    again = sum(step.tried_again for step in facts.steps)
    cards: list[tuple[str, str, str | None]] = [
        ("Tasks", f"{facts.task_count:,}", several(len(facts.steps), "step")),
        ("Succeeded", f"{counts[TaskState.SUCCEEDED]:,}", f"{facts.cached:,} from the cache" if facts.cached else None),
    ]
    bad = counts[TaskState.FAILED] + counts[TaskState.BLOCKED] + counts[TaskState.CANCELLED]
    if bad:
        blocked = f"and {bad - counts[TaskState.FAILED]:,} that did not run" if bad > counts[TaskState.FAILED] else None
        cards.append(("Failed", f"{counts[TaskState.FAILED]:,}", blocked))
    if facts.axis.parts:
        cuts = sum(left_out for _, left_out in facts.axis.cuts)
        more = f"and {duration(cuts / 1000)} in which nothing ran" if cuts else None
        cards.append(("Time", duration(facts.axis.length_ms / 1000), more))
    if cpu_s:
        cards.append(("CPU time", duration(cpu_s), None))
    if facts.workers:
        cards.append(("Machines", f"{len(facts.workers):,}", f"{facts.executions:,} executions"))
    if again:
        cards.append(("Tried again", f"{again:,}", "tasks"))
    written = sum(step.output_bytes for step in facts.steps)
    if written:
        cards.append(("Outputs", size(written), several(sum(step.output_files for step in facts.steps), "file")))
    return tag("dl", [tag("div", tag("dt", name), tag("dd", value, tag("small", more) if more else None))
                      for name, value, more in cards], class_="cards")  # fmt: skip


def _foot(facts: Facts) -> Markup:
    parts: list[Part] = [f"Made by scitq {facts.version} from {facts.state_file}, {stamp(facts.made_ms)}."]
    if facts.script:
        declared = f", {stamp(facts.declared_ms)}" if facts.declared_ms is not None else ""
        parts.append(joined([" Declared by ", tag("code", PurePath(facts.script).name), f"{declared}."]))
    return joined(parts)


# --- pictures -------------------------------------------------------------------------------------------------------------------


def _graph(facts: Facts) -> Markup | None:
    picture = graph(facts)
    if picture is None:
        return tag("p", f"{several(len(facts.steps), 'step')} are too many for a picture.") if facts.steps else None
    if draws_tasks(facts):
        note = (
            "Each box is a task; arrows lead from what is required. ✓ succeeded, ✗ failed, ▸ with a worker, ○ to come."
        )
    else:
        note = "Each box is a step; its bar tells how its tasks stand. Arrows lead from steps to those that require their tasks."
    return joined([tag("div", picture, class_="scroll"), tag("p", note, class_="note")])


def _timeline(facts: Facts) -> Markup | None:
    picture = timeline(facts)
    if picture is None or facts.first_ms is None:
        return None
    legend = tag("ul", [tag("li", chip(facts, step.id), step.name) for step in facts.steps], class_="legend")
    what = "Bars are executions, pale while data is staged in or collected, framed in red where they failed."
    if not facts.bars:
        what = "Heights are how many executions a machine had at once."
    return joined(
        [
            tag("div", picture, class_="scroll"),
            legend,
            tag("p", f"{what} Time from {stamp(facts.first_ms)}.", class_="note"),
        ]
    )


# --- texts ----------------------------------------------------------------------------------------------------------------------


def _methods(facts: Facts) -> Markup | None:
    if not facts.task_count:
        return None
    note = "To be pasted, and put into words of your own, where a paper says how it was done."
    return joined([tag("blockquote", methods(facts), class_="methods"), tag("p", note, class_="note")])


def _failures(facts: Facts) -> Markup | None:
    failed, blocked = facts.counts[TaskState.FAILED], facts.counts[TaskState.BLOCKED]
    bad = [(step, cause, count) for step in facts.steps for cause, count in step.bad_ends.most_common()]
    if not (failed or blocked or bad):
        return None
    parts: list[Part] = []
    if failed or blocked:
        text = f"{several(failed, 'task')} failed for good." if failed else ""
        if blocked:
            text += f" {several(blocked, 'task')} did not run because of what {'it requires' if blocked == 1 else 'they require'}."
        parts.append(tag("p", text.strip()))
    parts += [_failure(facts.step(one.step), one) for one in facts.failures]
    if facts.failed_more:
        parts.append(tag("p", f"{several(facts.failed_more, 'more task')} failed in such ways.", class_="note"))
    if bad:
        rows = [tag("tr", tag("th", step.name, scope="row"), tag("td", cause), tag("td", f"{count:,}", class_="n"))
                for step, cause, count in bad[:100]]  # fmt: skip
        head = tag(
            "tr",
            tag("th", "step", scope="col"),
            tag("th", "how", scope="col"),
            tag("th", "executions", scope="col", class_="n"),
        )
        caption = "Executions that did not end well, those of tasks that were tried again among them"
        parts.append(
            tag("div", tag("table", tag("caption", caption), tag("thead", head), tag("tbody", rows)), class_="scroll")
        )
    return joined(parts)


def _failure(step: Step, one: Failure) -> Markup:
    facts = [one.cause, f"on {one.worker}" if one.worker else None, f"try {one.tries}" if one.tries > 1 else None,
             stamp(one.ended_ms) if one.ended_ms is not None else None]  # fmt: skip
    tail: list[Part] = []
    if one.tail:
        cut = ", its end" if one.is_cut else ""
        tail = [tag("p", f"{one.stream}{cut}:", class_="note"), tag("pre", output(one.tail), tabindex=0)]
    elif one.stream == "":
        tail = [tag("p", "It wrote nothing.", class_="note")]
    return tag(
        "div",
        tag("h3", f"{one.task} {one.name}", tag("span", f" · {step.name}", class_="soft")),
        tag("p", " · ".join(fact for fact in facts if fact)),
        tag("p", one.detail) if one.detail else None,
        tag("details", tag("summary", "its command"), tag("pre", lines(one.command))),
        tail,
        _alike(one),
        class_="failure",
    )


def _alike(one: Failure) -> Markup | None:
    count = len(one.alike) + one.alike_more
    if not count:
        return None
    more = f" and {one.alike_more:,} more" if one.alike_more else ""
    return tag(
        "p",
        f"{several(count, 'other task')} of this step failed with the same words: {', '.join(one.alike)}{more}.",
        class_="note",
    )


def _commands(facts: Facts) -> Markup | None:
    parts: list[Part] = []
    room = COMMANDS_LISTED
    has_pattern = False
    for step in facts.steps:
        if not step.commands.known:
            continue
        shells = [shell for shell, _ in step.shells.most_common()]
        parts.append(
            tag(
                "h3",
                chip(facts, step.id),
                step.name,
                tag("span", f" · run by {', '.join(shells)}", class_="soft") if shells else None,
            )
        )
        for pattern in step.commands.known:
            is_alone = pattern.count == 1 or pattern.is_exact
            has_pattern |= not is_alone
            if len(step.commands.known) > 1 or step.tasks > 1:
                same = " the same command" if pattern.is_exact and pattern.count > 1 else ""
                parts.append(tag("p", several(pattern.count, "task") + (f",{same}" if same else ""), class_="note"))
            parts.append(tag("pre", lines(pattern.first if is_alone else pattern.text)))
        if step.commands.others:
            parts.append(tag("p", f"{several(step.commands.others, 'task')} with other commands.", class_="note"))
        if any(pattern.count > 1 and not pattern.is_exact for pattern in step.commands.known) or step.commands.others:
            commands = [task.command for task in facts.tasks if task.step == step.id]
            room -= sum(map(len, commands))
            if commands and room > 0:
                parts.append(tag("details", tag("summary", f"all {len(commands):,} commands, to the letter"),
                                 [tag("pre", lines(command)) for command in commands]))  # fmt: skip
            else:
                parts.append(tag("p", "One of them, to the letter:", class_="note"))
                parts.append(tag("pre", lines(step.commands.known[0].first)))
    if not parts:
        return None
    if has_pattern:
        told = f"In commands of several tasks, {DIFFERS} stands for what differs and {NAME} for the name of the task."
        if not facts.tasks:
            told += f" scitq report {facts.name} --json has every command to the letter."
        parts.insert(0, tag("p", told, class_="note"))
    return joined(parts)
