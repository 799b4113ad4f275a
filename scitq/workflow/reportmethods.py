"""A paragraph for the methods section of a paper: what was run, with what, where, and how it went, in plain sentences.

Pure: facts in, text out.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from scitq.saying import duration, several, size
from scitq.states import TaskState
from scitq.workflow.reportfacts import Facts, Image, Step, Worker

# A step's command is told in the paragraph if it is no longer; else it is only in the list of commands.
COMMAND_TOLD = 240
STEPS_TOLD = 12


def methods(facts: Facts) -> str:
    """The paragraph."""
    parts = [_opening(facts), _machines(facts.workers)]
    parts += [_step(step) for step in facts.steps[:STEPS_TOLD]]
    if len(facts.steps) > STEPS_TOLD:
        parts.append(f"{several(len(facts.steps) - STEPS_TOLD, 'further step')} are listed in the report.")
    parts += [_read(facts), _end(facts)]
    return " ".join(part for part in parts if part)


def _opening(facts: Facts) -> str:
    names = _listed([step.name for step in facts.steps[:STEPS_TOLD]])
    made = f"Workflow “{facts.name}” ({several(facts.task_count, 'task')} in {several(len(facts.steps), 'step')}"
    made += f": {names})" if 1 < len(facts.steps) <= STEPS_TOLD else ")"
    when = ""
    if facts.first_ms is not None and facts.last_ms is not None:
        first, last = day(facts.first_ms), day(facts.last_ms)
        when = f" on {first}" if first == last else f" between {first} and {last}"
    return f"{made} was run with scitq {facts.version}{when}."


def _machines(workers: Sequence[Worker]) -> str:
    if not workers:
        return ""
    if len(workers) == 1:
        return f"All tasks ran on one machine{_hardware(workers[0])}."
    cpus = sum(worker.cpus or 0 for worker in workers)
    memory = sum(worker.memory or 0 for worker in workers)
    total = f" with {cpus:g} CPUs and {size(memory)} of memory in all" if cpus and memory else ""
    return f"Tasks ran on {len(workers)} machines{total}."


def _hardware(worker: Worker) -> str:
    parts = [f"{worker.cpus:g} CPU{'' if worker.cpus == 1 else 's'}"] if worker.cpus else []
    parts += [f"{size(worker.memory)} of memory"] if worker.memory else []
    parts += [several(len(worker.gpus), "GPU")] if worker.gpus else []
    return f" with {_listed(parts)}" if parts else ""


def _step(step: Step) -> str:
    images = [image_told(image) for image, _ in step.images.most_common(3)]
    where = f", in the container image {_listed(images)}" if images else ""
    if not step.executions:
        how = "took results of earlier runs" if step.cached else "did not run"
        return f"Step {step.name} ({several(step.tasks, 'task')}) {how}."
    known = step.commands.known
    command = known[0] if len(known) == 1 and not step.commands.others else None
    told = "" if command is None else command.first if command.count == 1 else command.text
    if told and "\n" not in told and len(told) <= COMMAND_TOLD:
        what = f"ran `{told}`"
    elif step.shells:
        what = f"ran {_listed([f'{shell} scripts' for shell, _ in step.shells.most_common()])} given in the report"
    else:
        what = "ran the commands given in the report"
    return f"Step {step.name} ({several(step.tasks, 'task')}) {what}{where}."


def _read(facts: Facts) -> str:
    known = [source.size for source in facts.sources]
    if not known:
        return ""
    count = len(known) + facts.sources_more
    total = sum(one for one in known if one is not None)
    held = f", {size(total)} in all" if total and None not in known and not facts.sources_more else ""
    were = "was" if count == 1 else "were"
    return f"{several(count, 'input')} {were} read{held}; the report lists them, with checksums where these are known."


def _end(facts: Facts) -> str:
    done = facts.counts[TaskState.SUCCEEDED]
    cpu_s = sum(step.cpu_s for step in facts.steps)
    again = sum(step.tried_again for step in facts.steps)
    parts = ["All tasks succeeded" if done == facts.task_count else f"{done:,} of {facts.task_count:,} tasks succeeded"]
    if again:
        parts.append(f"{again:,} {'was' if again == 1 else 'were'} tried more than once")
    if facts.cached:
        parts.append(f"{facts.cached:,} took the result of an equal task that had run before")
    text = ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1] + "."
    return text + (f" The computation took {duration(cpu_s)} of CPU time." if cpu_s >= 1 else "")


def image_told(image: Image) -> str:
    """An image with the digest of what ran."""
    name, _, digest = (image.bits or "").rpartition("@")
    if not digest:
        return image.name
    if not name and not digest.startswith("sha256:"):
        return f"{image.name} ({digest})"
    return f"{image.name.partition('@')[0]} ({digest})"


def day(at_ms: int) -> str:
    """`23 November 2026`."""
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return f"{at.day} {at:%B %Y}"


def stamp(at_ms: int) -> str:
    """`2026-11-23 09:14:02 UTC`."""
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _listed(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join([*([", ".join(words[:-1])] if len(words) > 1 else []), *words[-1:]])
