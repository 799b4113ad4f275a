"""The attempts at a task in lines, one below the other; how much of each depends on the width of the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scitq.shell import facts
from scitq.shell.answers import Seconds, clean, shown
from scitq.task import ExecutionRow

# What a narrow terminal does not show of attempts, in this order.
_LEFT_OUT = ("written", "read", "started", "cpu")
_WIDTHS = {"try": -4, "worker": -12, "started": -12, "time": 8, "cpu": 9, "memory": 9, "read": 9, "written": 9}


def attempts_in(attempts: Sequence[ExecutionRow], room: int | None) -> list[str]:
    """The heading, and a line for each, in so many cells where that is possible."""
    cells = [_cells(one) for one in attempts]
    shown_ones = list(_WIDTHS)
    if not any(one.read_bytes or one.written_bytes for one in attempts):
        shown_ones = shown_ones[:-2]
    taken = max(len(cell["ended"]) for cell in cells) + 2
    for name in _LEFT_OUT:
        if room is not None and name in shown_ones and sum(abs(_WIDTHS[one]) for one in shown_ones) + taken > room:
            shown_ones.remove(name)

    def line(cell: Mapping[str, str]) -> str:
        texts = (
            cell[name].rjust(_WIDTHS[name]) if _WIDTHS[name] > 0 else cell[name].ljust(-_WIDTHS[name])
            for name in shown_ones
        )
        return f"{''.join(texts)}  {cell['ended']}"

    return [line({name: name for name in (*_WIDTHS, "ended")}), *map(line, cells)]


def _cells(one: ExecutionRow) -> dict[str, str]:
    now, found = facts.now_ms(), facts.execution_facts(one)
    if one.ended_ms is None and one.started_ms is not None:
        found["run_s"] = Seconds(max(0, now - one.started_ms) / 1000)
    keys = {
        "started": "started",
        "time": "run_s",
        "cpu": "cpu_s",
        "memory": "peak_memory",
        "read": "read_bytes",
        "written": "written_bytes",
    }
    ended = (
        f"{found['cause']}{': ' + one.detail if one.detail else ''}, {shown(found['ended'], now)}"
        if one.outcome is not None
        else "runs"
    )
    texts = {name: shown(found[key], now) for name, key in keys.items()}
    texts |= {"try": str(one.attempt), "worker": one.worker or "", "ended": ended}
    return {name: clean(text) for name, text in texts.items()}
