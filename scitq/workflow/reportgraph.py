"""The graph of a workflow as a picture: a box for each task where they are few, else one for each step with its counts.

Pure: facts in, SVG out, which takes its colours from the page's style. Where the boxes go is `reportlayout`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from scitq.markup import Markup, Part, joined, tag
from scitq.saying import clean, several
from scitq.states import TaskState
from scitq.workflow.reportfacts import Facts, Step
from scitq.workflow.reportlayout import Edge, Placed, place

# Up to so many tasks and edges they are drawn one by one, up to so many steps those are drawn.
TASKS_DRAWN, EDGES_DRAWN, STEPS_DRAWN = 60, 240, 300
COLOURS = 10
# What the width of a page has room for, a little smaller than it was drawn.
PAGE = 1240
ELSEWHERE = 0

SIGNS = {
    TaskState.SUCCEEDED: "✓", TaskState.FAILED: "✗", TaskState.CANCELLED: "⊘", TaskState.BLOCKED: "⊘", TaskState.PAUSED: "‖",
    TaskState.RUNNING: "▸", TaskState.COLLECTING: "▸", TaskState.STAGING: "▸", TaskState.ASSIGNED: "▸",
}  # fmt: skip
# States in the order of a bar of them.
ORDER = (
    TaskState.SUCCEEDED, TaskState.FAILED, TaskState.BLOCKED, TaskState.CANCELLED, TaskState.RUNNING, TaskState.COLLECTING,
    TaskState.STAGING, TaskState.ASSIGNED, TaskState.PAUSED, TaskState.DEBUG, TaskState.PENDING, TaskState.WAITING,
)  # fmt: skip


def colours(facts: Facts) -> dict[int, int]:
    """The colour of each step, by number."""
    return {step.id: at % COLOURS for at, step in enumerate(facts.steps)}


def draws_tasks(facts: Facts, tasks: int = TASKS_DRAWN, edges: int = EDGES_DRAWN) -> bool:
    """Whether each task gets a box."""
    return 0 < len(facts.tasks) <= tasks and len(facts.parents) <= edges


def graph(facts: Facts) -> Markup | None:
    """The picture; None where there is nothing to be drawn, or too much."""
    return of_tasks(facts) if draws_tasks(facts) else of_steps(facts)


# Where a box leads, by the number of its task or step.
Leads = Callable[[int], str]


class _Size(NamedTuple):
    width: float
    height: float
    gap: float  # between boxes of a layer
    step: float  # between layers


# --- tasks ----------------------------------------------------------------------------------------------------------------------


def of_tasks(facts: Facts, leads: Leads | None = None) -> Markup:
    """Each task a box."""
    colour = colours(facts)
    tasks = {task.id: task for task in facts.tasks}
    edges = [(parent if parent in tasks else ELSEWHERE, child) for parent, child in facts.parents]
    order = {step.id: at for at, step in enumerate(facts.steps)}
    nodes = sorted(tasks, key=lambda id: (order[tasks[id].step], id))
    if any(parent == ELSEWHERE for parent, _ in edges):
        nodes.insert(0, ELSEWHERE)
    names = {step.id: step.name for step in facts.steps}
    shown_step = len(facts.steps) > 1

    def box(id: int, x: float, y: float) -> Markup:
        if id == ELSEWHERE:
            return _elsewhere(x, y, _TASK)
        task = tasks[id]
        about = f"{task.id} {task.name}: {task.state.word}"
        if task.worker:
            about += f" on {task.worker}"
        if task.cause and task.state is not TaskState.SUCCEEDED:
            about += f", {task.cause}"
        # A name that the script did not give begins with that of the step, which the line below says.
        name = task.name
        return tag(
            "g",
            tag("title", about),
            tag("rect", x=x, y=y, width=_TASK.width, height=_TASK.height, rx=5, class_="box"),
            tag("rect", x=x, y=y, width=5, height=_TASK.height, rx=2, class_=f"s{colour[task.step]}"),
            tag("text", fitted(name, 17), x=x + 12, y=y + (15 if shown_step else 22), class_="name"),
            tag("text", fitted(names[task.step], 18), x=x + 12, y=y + 29, class_="small") if shown_step else None,
            tag(
                "text", SIGNS.get(task.state, "○"), x=x + _TASK.width - 9, y=y + 22, class_=f"sign st-{task.state.word}"
            ),
        )

    label = f"The graph: {several(len(tasks), 'task')} and what each one requires"
    return _picture(place(nodes, edges), _TASK, box, label, {}, leads)


_TASK = _Size(158, 36, 10, 62)


# --- steps ----------------------------------------------------------------------------------------------------------------------


def of_steps(facts: Facts, leads: Leads | None = None) -> Markup | None:
    """Each step a box; None where there are none, or too many."""
    if not 0 < len(facts.steps) <= STEPS_DRAWN:
        return None
    colour = colours(facts)
    steps = {step.id: step for step in facts.steps}
    edges = [(ELSEWHERE if source is None else source, to) for source, to, _ in facts.links]
    counts = {(ELSEWHERE if source is None else source, to): count for source, to, count in facts.links}
    inner = {a for a, b in edges if a == b}
    nodes = [step.id for step in facts.steps]
    if any(source == ELSEWHERE for source, _ in edges):
        nodes.insert(0, ELSEWHERE)

    def box(id: int, x: float, y: float) -> Markup:
        if id == ELSEWHERE:
            return _elsewhere(x, y, _STEP)
        step = steps[id]
        return tag(
            "g",
            tag("title", f"{step.name}: {told(step)}" + ("; its tasks require one another" if id in inner else "")),
            tag("rect", x=x, y=y, width=_STEP.width, height=_STEP.height, rx=6, class_="box"),
            tag("rect", x=x, y=y, width=6, height=_STEP.height, rx=3, class_=f"s{colour[id]}"),
            tag("text", fitted(step.name, 22), x=x + 16, y=y + 22, class_="name"),
            tag("text", fitted(_line(step) + (" ⟲" if id in inner else ""), 29), x=x + 16, y=y + 39, class_="small"),
            _bar(step, x + 16, y + 47, _STEP.width - 28, 5),
        )

    label = f"The graph: {several(len(steps), 'step')}, how the tasks of each stand, and what each one requires"
    return _picture(place(nodes, edges), _STEP, box, label, counts, leads)


_STEP = _Size(196, 60, 22, 46)


def told(step: Step) -> str:
    """How its tasks stand, in words: `68 tasks: 66 succeeded (3 of them cached), 2 failed`."""
    parts = []
    for state in ORDER:
        if count := step.counts.get(state):
            cached = f" ({step.cached:,} cached)" if state is TaskState.SUCCEEDED and step.cached else ""
            parts.append(f"{count:,} {state.word}{cached}")
    return several(step.tasks, "task") + (f": {', '.join(parts)}" if parts else "")


def _line(step: Step) -> str:
    text = several(step.tasks, "task")
    for state, word in (
        (TaskState.FAILED, "failed"),
        (TaskState.BLOCKED, "blocked"),
        (TaskState.CANCELLED, "cancelled"),
    ):
        if count := step.counts.get(state):
            return f"{text} · {count:,} {word}"
    unsettled = sum(count for state, count in step.counts.items() if not state.is_settled)
    if unsettled:
        return f"{text} · {unsettled:,} to go"
    return f"{text} · {step.cached:,} cached" if step.cached else text


def _bar(step: Step, x: float, y: float, width: float, height: float) -> Markup:
    parts: list[Part] = []
    total = step.tasks
    for state in ORDER:
        if count := step.counts.get(state):
            share = width * count / total
            parts.append(tag("rect", x=x, y=y, width=max(share, 1.0), height=height, class_=f"st-{state.word}"))
            x += share
    return joined(parts)


# --- both -----------------------------------------------------------------------------------------------------------------------


def _elsewhere(x: float, y: float, size: _Size) -> Markup:
    return tag(
        "g",
        tag("title", "Tasks that do not belong to this workflow"),
        tag("rect", x=x, y=y, width=size.width, height=size.height, rx=6, class_="box away"),
        tag("text", "tasks of elsewhere", x=x + 14, y=y + size.height / 2 + 4, class_="small"),
    )


def _picture(
    placed: Placed,
    size: _Size,
    box: Callable[[int, float, float], Markup],
    label: str,
    counts: Mapping[Edge, int],
    leads: Leads | None,
) -> Markup:
    """Layers from left to right, or from top to bottom, whichever the page has room for."""
    beside = placed.layers * (size.width + size.step) - size.step
    below = placed.width * (size.width + size.gap) - size.gap
    is_down = below <= PAGE < beside or (below <= beside and beside > PAGE)
    layer_step = (size.height if is_down else size.width) + size.step
    across_step = (size.width if is_down else size.height) + size.gap

    def corner(layer: float, across: float) -> tuple[float, float]:
        return (across * across_step, layer * layer_step) if is_down else (layer * layer_step, across * across_step)

    lines: list[Part] = []
    for edge, way in placed.ways.items():
        lines.append(_edge(way, corner, size, is_down, is_back=edge in placed.back, count=counts.get(edge)))
    boxes = [box(node, *corner(layer, placed.across[node])) for node, layer in placed.layer.items()]
    if leads is not None:
        nodes = zip(placed.layer, boxes, strict=True)
        boxes = [drawn if node == ELSEWHERE else tag("a", drawn, href=leads(node)) for node, drawn in nodes]
    width = (placed.width * across_step - size.gap) if is_down else (placed.layers * layer_step - size.step)
    height = (placed.layers * layer_step - size.step) if is_down else (placed.width * across_step - size.gap)
    return tag(
        "svg",
        tag("title", label),
        tag("defs", tag("marker", tag("path", d="M0 0L8 4L0 8z", class_="tip"), id="tip", viewBox="0 0 8 8", refX=7, refY=4,
                        markerWidth=7, markerHeight=7, orient="auto")),
        tag("g", lines, class_="edges"),
        tag("g", boxes, class_="boxes"),
        class_="graph", role="img" if leads is None else "group", aria_label=label, xmlns="http://www.w3.org/2000/svg",
        viewBox=f"-4 -4 {width + 8:.0f} {height + 8:.0f}", width=f"{width + 8:.0f}", height=f"{height + 8:.0f}",
    )  # fmt: skip


def _edge(
    way: Sequence[tuple[int, float]], corner: Callable[[float, float], tuple[float, float]], size: _Size, is_down: bool, *,
    is_back: bool, count: int | None,
) -> Markup:  # fmt: skip
    """A line from the end of the first box to the beginning of the last, past those of the layers between."""
    points = []
    for number, (layer, across) in enumerate(way):
        x, y = corner(layer, across)
        centre = x + size.width / 2 if is_down else y + size.height / 2
        near, far = (y, y + size.height) if is_down else (x, x + size.width)
        if is_back:
            near, far = far, near
        points += ([] if number == 0 else [(near, centre)]) + ([] if number == len(way) - 1 else [(far, centre)])
    pairs = [(centre, along) if is_down else (along, centre) for along, centre in points]
    path = f"M{_xy(pairs[0])}"
    for number in range(0, len(pairs) - 1):
        start, end = pairs[number], pairs[number + 1]
        if number % 2:  # past a box
            path += f"L{_xy(end)}"
        elif is_down:
            middle = (start[1] + end[1]) / 2
            path += f"C{_xy((start[0], middle))} {_xy((end[0], middle))} {_xy(end)}"
        else:
            middle = (start[0] + end[0]) / 2
            path += f"C{_xy((middle, start[1]))} {_xy((middle, end[1]))} {_xy(end)}"
    about = None if count is None else tag("title", several(count, "requirement"))
    return tag("path", about, d=path, marker_end="url(#tip)", class_="back" if is_back else None)


def _xy(point: tuple[float, float]) -> str:
    return f"{point[0]:.0f} {point[1]:.0f}"


def fitted(text: str, width: int) -> str:
    """A text of at most so many columns, of which wide characters take two."""
    text = clean(text)
    if sum(map(_columns, text)) <= width:
        return text
    kept, room = "", width - 1
    for char in text:
        room -= _columns(char)
        if room < 0:
            break
        kept += char
    return kept.rstrip() + "…"


def _columns(char: str) -> int:
    return 2 if unicodedata.east_asian_width(char) in "WF" else 0 if unicodedata.combining(char) else 1
