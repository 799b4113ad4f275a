"""Tasks as a pandas DataFrame, and a timeline of who ran what when, by matplotlib. Both packages are loaded when they are used.

A frame has whole columns in units of science: times as UTC, lengths in seconds (`…_s`), sizes in 10⁹ bytes (`…_gb`).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from scitq.addresses import TASK, parent_of
from scitq.errors import BadInput, ScitqError
from scitq.fetch.uri import Address, parse
from scitq.markup import colour_of
from scitq.states import Outcome, Stage, TaskState
from scitq.store import framing
from scitq.store.analysis.sql import NO_PANDAS
from scitq.task import describe

if TYPE_CHECKING:
    import apsw

    from scitq.engine import Engine
    from scitq.store.framing import Row, Span

NO_MATPLOTLIB = "matplotlib is not installed here, and it draws: pip install 'scitq[notebook]'"
# Of a folder or pattern given as input so many files are counted, at most.
FILES = 10_000
GB = 1e9


def of_tasks(engine: Engine, ids: Sequence[int]) -> Any:
    """A DataFrame of these tasks, each with its latest execution.

    Raises:
        BadInput: pandas is not installed.
    """
    pandas = loaded("pandas", NO_PANDAS)
    from scitq.taskframe import TaskFrame

    db = engine._reader()
    found = framing.rows(db, ids)
    values = zip(*found, strict=True) if found else [()] * len(framing.Row._fields)
    column: Any = SimpleNamespace(**dict(zip(framing.Row._fields, values, strict=True)))

    def whole(values: Any) -> Any:
        return pandas.array(values, dtype="Int64")

    def number(values: Any, unit: float = 1) -> Any:
        return pandas.Series(values, dtype="float64") / unit

    def moment(values: Any) -> Any:
        return pandas.to_datetime(pandas.Series(values, dtype="float64"), unit="ms", utc=True)

    return TaskFrame({
        "id": pandas.Series(column.id, dtype="int64"), "name": _texts(pandas, column.name), "batch": _texts(pandas, column.batch),
        "workflow": _texts(pandas, column.workflow), "step": _texts(pandas, column.step),
        "state": _texts(pandas, [TaskState(code).word for code in column.state]), "cause": _texts(pandas, [_cause(row) for row in found]),
        "exit_code": whole(column.exit_code), "worker": _texts(pandas, column.worker), "attempt": whole(column.attempt),
        "tries": whole(column.tries), "priority": whole(column.priority),
        "created": moment(column.created), "changed": moment(column.changed), "assigned": moment(column.assigned),
        "started": moment(column.started), "ended": moment(column.ended),
        "wait_s": (number(column.started) - number(column.created)) / 1000, "run_s": number(column.run_s),
        "cpu_s": number(column.cpu_s), "memory_gb": number(column.peak_memory, GB), "input_gb": number(_input_bytes(db, found), GB),
        "output_gb": number(column.output_bytes, GB), "read_gb": number(column.read_bytes, GB),
        "written_gb": number(column.written_bytes, GB), "command": _texts(pandas, column.command),
    })  # fmt: skip


def loaded(module: str, otherwise: str) -> Any:
    """An optional package."""
    try:
        return import_module(module)
    except ImportError:
        raise BadInput(otherwise) from None


def _texts(pandas: Any, values: Any) -> Any:
    return pandas.Series(values, dtype="str")


def _cause(row: Row) -> str | None:
    outcome = None if row.outcome is None else Outcome(row.outcome)
    return describe(outcome, None if row.stage is None else Stage(row.stage), row.exit_code, row.signal)


# --- how much went in ----------------------------------------------------------------------------------------------------------


def _input_bytes(db: apsw.Connection, rows: Sequence[Row]) -> list[int | None]:
    """How much each task was given: what other tasks left, what the cache saw, and files of this machine as they are now. None
    where that is not known of all of it."""
    # Tasks often have the same inputs: each list is taken apart once.
    lists: dict[str, list[str]] = {row.input: json.loads(row.input) for row in rows if row.input}
    sizes = _sizes(db, {text for texts in lists.values() for text in texts})
    recipes = {row.recipe: [source[-1] for source in json.loads(row.recipe)[0]] for row in rows if row.recipe}
    known = framing.sizes_of(db, {digest for digests in recipes.values() for digest in digests}) if recipes else {}
    totals = {text: _sum(sizes.get(one) for one in texts) for text, texts in lists.items()}
    seen = {text: _sum(known.get(digest) for digest in digests) for text, digests in recipes.items()}
    return [0 if row.input is None else seen[row.recipe] if row.recipe else totals[row.input] for row in rows]


def _sizes(db: apsw.Connection, texts: set[str]) -> dict[str, int | None]:
    """How many bytes are at each address, as far as that is known here."""
    given: dict[str, Address] = {}
    for text in texts:
        try:
            given[text] = parse(text)
        except ScitqError:
            continue
    parents = {text: parent for text, address in given.items() if (parent := parent_of(address)) is not None}
    left = framing.left_by(db, set(parents.values())) if parents else {}
    return {
        text: _left(left, parents[text], address) if address.proto == TASK else _here(address)
        for text, address in given.items()
    }


def _sum(sizes: Iterable[int | None]) -> int | None:
    total = 0
    for size in sizes:
        if size is None:
            return None
        total += size
    return total


def _left(left: dict[int, list[tuple[str, int]]], parent: int, address: Address) -> int | None:
    files = left.get(parent)
    below = address.path.partition("/")[2].strip("/")
    if files is None or address.has_glob:
        return None
    return sum(size for name, size in files if not below or name == below or name.startswith(f"{below}/"))


def _here(address: Address) -> int | None:
    if not address.is_local:
        return None
    total, count = 0, 0
    try:
        for path in _files(address):
            total, count = total + path.stat().st_size, count + 1
            if count > FILES:
                return None
    except (OSError, ValueError):
        return None
    return total if count else None


def _files(address: Address) -> Iterator[Path]:
    import glob

    for name in glob.iglob(address.path) if address.has_glob else [address.path]:
        path = Path(name)
        if path.is_dir():
            for folder, _, names in os.walk(path):
                yield from (Path(folder, one) for one in names)
        else:
            yield path


# --- timelines ------------------------------------------------------------------------------------------------------------------


class Plots:
    """What can be drawn of some tasks: `plot.timeline()`."""

    def __init__(self, spans: Callable[[], list[Span]]) -> None:
        self._spans = spans

    def timeline(self, ax: Any = None, **options: Any) -> Any:
        """Which worker ran what when, coloured by how that ended; returns the matplotlib `Axes`. `ax` is where to draw it, else a
        new figure, to which `options` (`figsize`) go.

        Raises:
            BadInput: matplotlib is not installed, or nothing has begun yet.
        """
        return timeline(self._spans(), ax, **options)


def spans_of(engine: Engine, ids: Sequence[int]) -> list[Span]:
    """Every execution of these tasks that has begun."""
    return framing.spans(engine._reader(), ids)


def timeline(spans: Sequence[Span], ax: Any = None, **options: Any) -> Any:
    """See `Plots.timeline`."""
    pyplot, dates, patches = (loaded(f"matplotlib.{name}", NO_MATPLOTLIB) for name in ("pyplot", "dates", "patches"))
    if not spans:
        raise BadInput("none of these tasks has begun yet: there is nothing to draw.")
    now = time.time_ns() // 1_000_000
    lanes = _lanes(spans, now)
    count = sum(len(of_worker) for of_worker in lanes.values())
    if ax is None:
        _, ax = pyplot.subplots(
            **{"figsize": (10, 1 + min(12.0, max(1.0, 0.16 * count + 0.2 * len(lanes)))), **options}
        )
    day_ms = 86_400_000
    base = 0.0
    ticks: list[tuple[float, str]] = []
    words: dict[str, None] = {}
    for worker, of_worker in lanes.items():
        ticks.append((base + (len(of_worker) - 1) / 2, worker))
        for place, lane in enumerate(of_worker):
            for word, bars in _by_word(lane, now).items():
                words.setdefault(word)
                places = [(start / day_ms, (end - start) / day_ms) for start, end in bars]
                # Lines between bars of their own colour would hide short ones; a narrow gap is enough to tell them apart.
                ax.broken_barh(places, (base + place - 0.42, 0.84), facecolors=colour_of(word), linewidth=0)
        base += len(of_worker) + 0.6
    ax.set_yticks([at for at, _ in ticks], [_plain(name) for _, name in ticks])
    ax.set_ylim(base - 1.1, -0.5)
    locator = dates.AutoDateLocator(minticks=3)
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
    ax.set_xlabel("UTC")
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.tick_params(axis="y", length=0)
    handles = [patches.Patch(color=colour_of(word), label=word) for word in words]
    ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(handles), frameon=False)
    return ax


def _plain(name: str) -> str:
    return name.replace("$", r"\$")  # matplotlib would take what stands between two of them for a formula


def _lanes(spans: Sequence[Span], now: int) -> dict[str, list[list[Span]]]:
    """By worker, rows of executions of which no two overlap: as many as it ran at once."""
    found: dict[str, list[list[Span]]] = {}
    for span in spans:
        lanes = found.setdefault(span.worker or "?", [])
        free = next((lane for lane in lanes if (lane[-1].ended or now) <= span.started), None)
        if free is None:
            lanes.append([span])
        else:
            free.append(span)
    return dict(sorted(found.items()))


def _by_word(lane: Sequence[Span], now: int) -> dict[str, list[tuple[int, int]]]:
    found: dict[str, list[tuple[int, int]]] = {}
    for span in lane:
        word = "running" if span.outcome is None else Outcome(span.outcome).word.replace("_", " ")
        found.setdefault(word, []).append((span.started, max(span.ended or now, span.started + 1)))
    return found
