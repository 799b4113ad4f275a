"""Who worked when, as a picture: for each worker a bar for each execution, or, of very many, how many it had at once.

Pure: facts in, SVG out, which takes its colours from the page's style.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

from scitq.markup import Markup, Part, joined, tag
from scitq.saying import clean, duration, several
from scitq.states import Outcome
from scitq.workflow.reportfacts import PARTS, Axis, Bar, Facts, Worker
from scitq.workflow.reportgraph import colours, fitted

WIDTH, LABELS, TOP = 1000, 132, 8
LANE, LANES_SHOWN = 11, 64
HILL = 46
WORKERS_SHOWN = 24
_TICKS_S = (
    0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400,
    172800, 604800, 1209600, 2592000,
)  # fmt: skip


def timeline(facts: Facts) -> Markup | None:
    """The picture; None where nothing ran."""
    if not facts.axis.parts or not (facts.bars or facts.loads):
        return None
    workers = sorted(facts.workers, key=lambda one: -one.busy_s)[:WORKERS_SHOWN]
    workers.sort(key=lambda one: one.id)
    rows: list[Part] = []
    y = float(TOP)
    for worker in workers:
        part, height = _bars(facts, worker, y) if facts.bars else _hills(facts, worker, y)
        rows.append(
            tag(
                "g",
                tag(
                    "text",
                    fitted(worker.name, 18),
                    tag("title", _about(worker)),
                    x=0,
                    y=y + min(height, 20) / 2 + 5,
                    class_="name",
                ),
                part,
            )
        )
        y += height + 10
        rows.append(tag("line", x1=0, x2=WIDTH, y1=y - 5, y2=y - 5, class_="rule"))
    hidden = len(facts.workers) - len(workers)
    if hidden:
        rows.append(
            tag(
                "text",
                f"and {several(hidden, 'other worker')}, which had less to do",
                x=LABELS,
                y=y + 8,
                class_="small",
            )
        )
        y += 18
    label = f"The timeline: {several(facts.executions, 'execution')} on {several(len(facts.workers), 'worker')}"
    height = y + 22
    return tag(
        "svg",
        tag("title", label),
        _axis(facts.axis, y),
        rows,
        class_="timeline", role="img", aria_label=label, xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {WIDTH} {height:.0f}",
    )  # fmt: skip


def _about(worker: Worker) -> str:
    return f"{worker.name}: {several(worker.executions, 'execution')}, {duration(worker.busy_s)} in all"


def _x(place: float) -> float:
    return LABELS + place * (WIDTH - LABELS - 4)


def _axis(axis: Axis, bottom: float) -> Markup:
    """Lines at round times since the beginning, and where something was left out."""
    total_s = axis.length_ms / 1000
    step = next((tick for tick in _TICKS_S if total_s / tick <= 9), _TICKS_S[-1])
    parts: list[Part] = []
    cuts = [at for at, _ in axis.cuts]
    for number in range(int(total_s / step) + 1):
        x = _x(number * step / total_s if total_s else 0)
        parts.append(tag("line", x1=x, x2=x, y1=TOP - 4, y2=bottom, class_="tick"))
        # Beside a cut there is no room for the time.
        if all(abs(x - _x(at)) > 40 for at in cuts) and x < WIDTH - 20:
            parts.append(tag("text", _tick(number * step), x=x, y=bottom + 14, class_="small middle"))
    for at, left_out in axis.cuts:
        parts.append(tag("line", x1=_x(at), x2=_x(at), y1=TOP - 4, y2=bottom, class_="cut"))
        parts.append(tag("text", f"⋯ {duration(left_out / 1000)} ⋯", x=_x(at), y=bottom + 14, class_="small middle"))
    return joined(parts)


def _tick(seconds: float) -> str:
    if seconds == 0:
        return "0"
    if seconds < 1:
        return f"{round(seconds * 1000)} ms"
    for unit, word in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit and seconds % unit == 0:
            return f"{seconds / unit:.0f} {word}"
    if seconds > 60:
        return f"{int(seconds // 60)}:{int(seconds % 60):02} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
    return f"{seconds:g} s"


# --- a bar for each execution ---------------------------------------------------------------------------------------------------


def _bars(facts: Facts, worker: Worker, y: float) -> tuple[Markup, float]:
    bars = sorted((bar for bar in facts.bars if bar.worker == worker.id), key=lambda bar: (bar.assigned, bar.ended))
    colour = colours(facts)
    names = {step.id: step.name for step in facts.steps}
    parts: list[Part] = []
    lanes = 0
    for bar, lane in _lanes(bars):
        lanes = max(lanes, lane + 1)
        if lane < LANES_SHOWN:
            parts.append(_bar(bar, facts.axis, names[bar.step], colour[bar.step], y + lane * LANE))
    hidden = sum(1 for _, lane in _lanes(bars) if lane >= LANES_SHOWN)
    height = float(min(lanes, LANES_SHOWN) * LANE)
    if hidden:
        parts.append(tag("text", f"and {hidden:,} more at the same time", x=LABELS, y=y + height + 9, class_="small"))
        height += 12
    return joined(parts), max(height, float(LANE))


def _lanes(bars: Sequence[Bar]) -> Iterator[tuple[Bar, int]]:
    """Each with the first lane that is free."""
    free: list[int] = []
    busy: list[tuple[int, int]] = []
    count = 0
    for bar in bars:
        while busy and busy[0][0] <= _begin(bar):
            heapq.heappush(free, heapq.heappop(busy)[1])
        if free:
            lane = heapq.heappop(free)
        else:
            lane, count = count, count + 1
        heapq.heappush(busy, (bar.ended, lane))
        yield bar, lane


def _begin(bar: Bar) -> int:
    """Before it was staged in it only waited for a place."""
    return bar.staged or bar.started or bar.assigned


def _bar(bar: Bar, axis: Axis, step: str, colour: int, y: float) -> Markup:
    begin, end = _x(axis.place(_begin(bar))), _x(axis.place(bar.ended))
    width = max(end - begin, 1.0)
    parts: list[Part] = [tag("title", _told(bar, step))]
    run = None if bar.started is None else max(begin, _x(axis.place(bar.started)))
    stop = None if bar.run_end is None else min(end, _x(axis.place(bar.run_end)))
    failed = " bad" if bar.outcome not in (None, Outcome.SUCCEEDED) else " live" if bar.outcome is None else ""
    if run is None:
        parts.append(tag("rect", x=begin, y=y, width=width, height=LANE - 2, class_=f"s{colour} faint{failed}"))
    else:
        if run - begin > 0.7:
            parts.append(tag("rect", x=begin, y=y, width=run - begin, height=LANE - 2, class_=f"s{colour} faint"))
        stop = end if stop is None or end - stop <= 0.7 else stop
        parts.append(tag("rect", x=run, y=y, width=max(stop - run, 1.0), height=LANE - 2, class_=f"s{colour}{failed}"))
        if end - stop > 0:
            parts.append(tag("rect", x=stop, y=y, width=end - stop, height=LANE - 2, class_=f"s{colour} faint"))
    return tag("g", parts)


def _told(bar: Bar, step: str) -> str:
    text = f"{bar.label} ({step})"
    if bar.started is not None:
        text += f": ran {duration(max(0, (bar.run_end or bar.ended) - bar.started) / 1000)}"
    if bar.staged is not None and bar.started is not None:
        text += f", staged in {duration(max(0, bar.started - bar.staged) / 1000)}"
    return text + (", " + bar.outcome.word.replace("_", " ") if bar.outcome is not None else ", not over")


# --- how many at once -----------------------------------------------------------------------------------------------------------


def _hills(facts: Facts, worker: Worker, y: float) -> tuple[Markup, float]:
    colour = colours(facts)
    steps = [step for step in facts.steps if (worker.id, step.id) in facts.loads]
    total = [0.0] * PARTS
    for step in steps:
        total = [a + b for a, b in zip(total, facts.loads[worker.id, step.id], strict=True)]
    most = max(total, default=0.0) or 1.0
    below = [0.0] * PARTS
    parts: list[Part] = []
    for step in steps:
        above = [a + b for a, b in zip(below, facts.loads[worker.id, step.id], strict=True)]
        parts.append(
            tag(
                "path",
                tag("title", f"{step.name} on {worker.name}"),
                d=_hill(below, above, y, HILL / most),
                class_=f"s{colour[step.id]}",
            )
        )
        below = above
    parts.append(
        tag("text", clean(f"≤ {most:.0f} at once" if most >= 1 else "< 1 at once"), x=0, y=y + HILL - 8, class_="small")
    )
    return joined(parts), float(HILL)


def _hill(below: Sequence[float], above: Sequence[float], y: float, scale: float) -> str:
    """The area between two lines of steps; only where there is any."""
    width = (WIDTH - LABELS - 4) / PARTS
    path = ""
    part = 0
    while part < PARTS:
        if above[part] - below[part] < 0.005:
            part += 1
            continue
        first = part
        while part < PARTS and above[part] - below[part] >= 0.005:
            part += 1
        forth = _stairs(range(first, part), above, y, scale, width)
        back = _stairs(range(part - 1, first - 1, -1), below, y, scale, width)
        path += f"M{forth}L{back}z"
    return path


def _stairs(parts: range, heights: Sequence[float], y: float, scale: float, width: float) -> str:
    points: list[str] = []
    last = None
    ahead = 0 if parts.step > 0 else 1
    for part in parts:
        at = f"{y + HILL - heights[part] * scale:.1f}"
        if at != last:
            x = LABELS + (part + ahead) * width
            if last is not None:
                points.append(f"{x:.1f} {last}")
            points.append(f"{x:.1f} {at}")
            last = at
    end = parts[-1] + 1 - ahead
    points.append(f"{LABELS + end * width:.1f} {last}")
    return "L".join(points)
