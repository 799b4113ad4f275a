"""`scitq top`: what it reads, what it draws, and the real thing in a pseudo-terminal."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scitq
from scitq.engine import Engine
from scitq.remote import local
from scitq.shell.live.machines import Eyes, Machine, Request, Running, Seen, _Memory, rate
from scitq.shell.live.showing import SORTS, Showing, trend
from scitq.states import TaskState, WorkerState
from scitq.store import glances, workers
from scitq.task import ExecutionId, TaskId
from scitq.workflow.cells import width
from scitq.workflow.drawing import PLAIN, Marks
from scitq.workflow.looking import Detail
from scitq.workflow.showing import Question
from tests.containers import wait_until
from tests.workflow.terminal import Terminal

ROOT = Path(__file__).parent.parent.parent.parent
S = TaskState
NAMES = st.text(max_size=30) | st.sampled_from(["fastp", "漢字" * 9, "a\x1b[31m\u202eb", "🧬" * 20, ""])


def machine(id: int, name: str, **more: object) -> Machine:
    return Machine(id, name, WorkerState.READY, None, 1, 2, 2, None, None, **more)  # type: ignore[arg-type]


def running(id: int, name: str, worker: str = "local", **more: object) -> Running:
    given = {"state": S.RUNNING, "is_stopped": False, "since_ms": 1000, **more}
    return Running(ExecutionId(id), TaskId(id), name, "qc", worker, **given)  # type: ignore[arg-type]


def seen(machines: list[Machine], tasks: list[Running], **more: object) -> Seen:
    return Seen(61_000, "python (pid 1)", {S.RUNNING: len(tasks)}, tuple(machines), tuple(tasks), **more)  # type: ignore[arg-type]


# --- drawn ----------------------------------------------------------------------------------------------------------------------


@given(
    names=st.lists(NAMES, max_size=6), cells=st.integers(1, 200), rows=st.integers(1, 50), moves=st.integers(-9, 9),
    way=st.sampled_from(["list", "help", "task", "question", "typing"]), plain=st.booleans(), text=NAMES,
)  # fmt: skip
def test_a_frame_is_just_as_large_as_the_screen_and_harmless(
    names: list[str], cells: int, rows: int, moves: int, way: str, plain: bool, text: str
) -> None:
    machines = [
        machine(n, name, cpu=0.5, memory=10**9, memory_free=1, at_ms=60_000, trend=(0.0, 1.0))
        for n, name in enumerate(names)
    ]
    tasks = [running(n, name, name, last=name, cpu=1.0, memory=1 << 40) for n, name in enumerate(names)]
    detail = Detail(TaskId(1), "qc", "1", S.RUNNING, text, text, (), ((0, "line"), (1, "error")), False)
    showing = Showing(seen(machines, tasks, detail=detail), text, PLAIN if plain else Marks())
    showing.move(moves)
    if way == "question":
        showing.question = Question(text, {})
    showing.typing, showing.is_help = (text if way == "typing" else None), way == "help"
    showing.task = TaskId(1) if way == "task" else None
    showing.jump(to_end=moves > 0)
    frame = showing.frame(cells, rows)
    assert len(frame) == rows
    for line in frame:
        drawn = "".join(piece for _, piece in line)
        assert width(drawn) <= cells and "\x1b" not in drawn and "\u202e" not in drawn and "\n" not in drawn


def lines_of(showing: Showing, cells: int = 110, rows: int = 20) -> list[str]:
    return ["".join(text for _, text in line).rstrip() for line in showing.frame(cells, rows)]


def test_what_is_selected_stays_selected_while_rows_come_and_go() -> None:
    showing = Showing(
        seen([machine(1, "local")], [running(1, "a"), running(2, "b"), running(3, "c")]), "lab.scitq", Marks()
    )
    showing.move(2)
    assert isinstance(found := showing.selected, Running) and found.name == "b"
    showing.looked(seen([machine(1, "local"), machine(2, "atlas")], [running(2, "b"), running(3, "c")]))
    assert isinstance(found := showing.selected, Running) and found.name == "b"
    assert showing.machine is not None and showing.machine.name == "local"
    showing.looked(seen([machine(1, "local")], [running(3, "c")]))
    assert isinstance(found := showing.selected, Running) and found.name == "c"


def test_of_a_rented_machine_its_region_price_and_cost_are_shown_where_there_is_room() -> None:
    rented = machine(2, "dream-1", region="north\x1b[2J", cost="0.20 €/h 0.05 €")
    showing = Showing(seen([machine(1, "local"), rented], []), "lab.scitq", Marks())
    [head] = [line for line in lines_of(showing) if "worker" in line and "region" in line]
    [row] = [line for line in lines_of(showing) if "dream-1" in line]
    assert "price, cost" in head and "north" in row and row.endswith("0.20 €/h 0.05 €") and "\x1b" not in row
    assert any("dream-1" in line for line in lines_of(showing, cells=30)) and "€" not in str(
        lines_of(showing, cells=30)
    )
    alone = Showing(seen([machine(1, "local")], []), "lab.scitq", Marks())
    assert "price" not in str(lines_of(alone))  # nothing is rented: no room is taken


def test_tasks_are_sorted_by_what_is_chosen_and_those_that_wait_come_last() -> None:
    tasks = [running(1, "old", since_ms=1000, memory=5), running(2, "big", since_ms=2000, memory=9, cpu=0.1),
             running(3, "busy", since_ms=3000, cpu=1.9), running(4, "held", state=S.ASSIGNED, since_ms=1)]  # fmt: skip
    showing = Showing(seen([machine(1, "local")], tasks), "lab.scitq", Marks())
    orders = {}
    for word, _ in SORTS:
        orders[word] = [row.name for row in showing.running]
        showing.resort()
    assert orders["time"] == ["old", "big", "busy", "held"] and orders["CPU"] == ["busy", "big", "old", "held"]
    assert orders["memory"] == ["big", "old", "busy", "held"] and orders["id"][-1] == "held"


def test_enter_on_a_worker_leaves_what_it_holds_and_escape_brings_all_back() -> None:
    showing = Showing(
        seen([machine(1, "local"), machine(2, "atlas")], [running(1, "a", "local"), running(2, "b", "atlas")]),
        "x",
        Marks(),
    )
    showing.move(1)
    showing.enter()
    assert [row.name for row in showing.machines] == ["atlas"] and [row.name for row in showing.running] == ["b"]
    showing.back()
    assert len(showing.keys) == 4


def test_workers_and_tasks_are_told_in_columns() -> None:
    measured = {
        "cpu": 0.31,
        "load": 1.5,
        "memory": 32 * 10**9,
        "memory_free": 24 * 10**9,
        "at_ms": 60_000,
        "net_in": 2e6,
        "trend": (0, 0.5, 1),
    }
    showing = Showing(
        seen([machine(1, "local", **measured)], [running(7, "align", cpu=1.5, memory=3 * 10**9, last="50 %")]),
        "lab.scitq",
        Marks(),
    )
    text = "\n".join(" ".join(line.split()) for line in lines_of(showing))
    assert "local ready 1/2 auto 31% ▁▅█ 8.0 GB/32 GB 1.50 2.0 MB" in text, text
    assert "7 align qc local running 60 s 150% 3.0 GB 50 %" in text, text
    stale = Showing(seen([machine(1, "local", **{**measured, "at_ms": -60_000})], []), "lab.scitq", PLAIN)
    assert "31%" not in "\n".join(lines_of(stale)) and "No task runs." in "\n".join(lines_of(stale))
    assert trend((0, 0.5, 1), PLAIN) == "_=#"


# --- read -----------------------------------------------------------------------------------------------------------------------


def test_rates_are_of_two_measurements_and_a_machine_that_began_anew_has_none() -> None:
    known = _Memory()
    known.learn({"at": 1000, "net_in": 100, "net_out": 5, "tasks": {"1": [1.0, 5], "2": [3.0, 5]}})
    assert not known.net_in
    known.learn({"at": 3000, "net_in": 300, "net_out": 1, "tasks": {"1": [4.0, 5], "3": [1.0, 5]}})
    assert (known.net_in, known.net_out, known.cpus) == (100.0, None, {"1": 1.5})
    known.learn({"at": 3000, "net_in": 300, "net_out": 1, "tasks": {}})  # the same measurement, seen again
    assert (known.net_in, known.cpus) == (100.0, {"1": 1.5})
    assert rate(None, 1, 1) is None and rate(1, 2, 0) is None


def test_what_has_ended_is_not_looked_at(state_file: Path) -> None:
    with Engine(state_file, drive=False) as engine:
        engine.submit_many(["true"] * 50)
        db = engine._reader()
        asked: list[str] = []

        def heard(cursor: object, sql: str, bindings: object) -> bool:
            asked.append(sql)
            return True

        db.set_exec_trace(heard)
        glances.held(db, 10)
        assert len(asked) == 1
        db.set_exec_trace(None)
        plan = " ".join(str(row[3]) for row in db.execute("explain query plan " + asked[0], (10,)))
    assert "execution_live" in plan and "SCAN task" not in plan and plan.count("SCAN") == 1, plan


def test_the_number_of_questions_to_the_file_does_not_grow_with_tasks(state_file: Path) -> None:
    with Engine(state_file, drive=False) as engine:
        counts = []
        for _ in range(2):
            eyes, asked = Eyes(engine), 0
            db = engine._reader()

            def count(cursor: object, sql: str, bindings: object) -> bool:
                nonlocal asked
                asked += 1
                return True

            db.set_exec_trace(count)
            assert eyes(Request(1)).serial == 1
            db.set_exec_trace(None)
            counts.append(asked)
            engine.submit_many(["true"] * 500)
    assert counts[0] == counts[1], counts


# --- the real thing -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A file that is driven here, with a task that writes and one that waits, and more in the queue."""
    folder = tmp_path_factory.mktemp("top")
    script = f"i=0; while [ ! -e {folder}/go ]; do i=$((i+1)); printf '\\033[2J'; echo; echo line $i; sleep 0.1; done"
    with scitq.open(folder / "lab.scitq") as engine:
        engine.submit(script, shell=True, name="writer", batch="qc")
        engine.submit("sleep 600", name="sleeper", batch="qc")
        engine.submit_many(["sleep 600"] * 20, batch="rest")
        wait_until(engine.workers, "this machine is a worker")
        engine.update_worker("local", concurrency=2, prefetch=2)
        wait_until(lambda: engine.counts(batch="qc").get(S.RUNNING) == 2, "both run")
        yield engine
        engine.cancel_all()
    local.stop(engine.side / "local")


def top(engine: Engine, columns: int = 110, rows: int = 24, **environ: str) -> Terminal:
    words = [sys.executable, "-m", "scitq", "-f", str(engine.path), "top"]
    return Terminal(
        words, folder=engine.path.parent, environ={"PYTHONPATH": str(ROOT), **environ}, columns=columns, rows=rows
    )


def test_it_shows_workers_and_tasks_live_and_keys_act_on_them(lab: Engine) -> None:
    with top(lab) as terminal:
        terminal.wait_for(r"^local +ready +2/2 +2 +\d+%")
        terminal.wait_for(r"^ *1 +writer +qc .*running.*\d+%.*line \d+$")
        terminal.press("-")
        terminal.wait_for("local runs 1 at once")
        terminal.wait_until(lambda: lab.worker("local").concurrency == 1)
        terminal.press("+")
        terminal.wait_until(lambda: lab.worker("local").concurrency == 2)
        terminal.press("p")
        terminal.wait_until(lambda: lab.worker("local").state is WorkerState.PAUSED)
        terminal.wait_for(r"^local +paused")
        terminal.press("p")
        terminal.wait_until(lambda: lab.worker("local").state is WorkerState.READY)
        # A task: its live output, and back.
        terminal.press("down", "enter")
        terminal.wait_for(r"'writer' has been running")
        terminal.wait_for(r"^\\x1b\[2J$")  # what it writes commands nothing
        terminal.press("p")
        terminal.wait_for("asked to stop where it is")
        terminal.press("esc")
        terminal.wait_for(r"writer .* stopped")
        terminal.press("p")
        terminal.wait_for(r"writer .* running")
        # The filter, another order, another size.
        terminal.press("/", *"sleeper", "enter")
        terminal.wait_for(
            lambda lines: any("with sleeper" in line for line in lines) and not any(" writer" in line for line in lines)
        )
        terminal.press("s")
        terminal.wait_for("by CPU, with sleeper")
        terminal.resize(50, 12)
        terminal.wait_for(lambda lines: len(lines) == 12 and "Sorted by CPU." in lines[-2])
        # Cancelled, after a question.
        terminal.press("end", "k")
        terminal.wait_for(r"Cancel task 2 'sleeper'\? \[y/N\]")
        terminal.press("n")
        terminal.wait_for("Nothing was done")
        terminal.press("k", "y")
        terminal.wait_until(lambda: lab.task("sleeper").status == "cancelled")
        terminal.press("?")
        terminal.wait_for("cancel the task; asks")
        terminal.press("esc", "q")
        assert terminal.wait_end() == 0
        assert not terminal.is_raw and not terminal.is_on_other_screen
    assert b"\x1b[2J\n" not in terminal.written


def test_once_and_in_a_pipe_it_says_how_it_is_now(lab: Engine) -> None:
    def said(*words: str) -> str:
        program = [sys.executable, "-m", "scitq", "-f", str(lab.path), *words]
        ended = subprocess.run(program, capture_output=True, timeout=90, stdin=subprocess.DEVNULL, check=True)
        return ended.stdout.decode()

    text = said("top")
    assert "\nname   state  busy" in text and "\x1b" not in text and "line " in text, text
    found = json.loads(said("--json", "top", "--once"))
    assert found["workers"][0]["name"] == "local" and found["workers"][0]["runs"] == 2
    writer = next(row for row in found["tasks"] if row["name"] == "writer")
    assert (
        writer["state"] == "running" and writer["memory"] > 0 and writer["cpu_s"] >= 0 and "line" in writer["last_line"]
    )


def test_a_narrow_terminal_without_colour_or_unicode_will_do(lab: Engine) -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "NO_COLOR": "1"}
    with top(lab, 20, 10, **plain) as terminal:
        terminal.wait_for(r"^local")
        terminal.wait_for("writer")
        terminal.press("c-c")
        assert terminal.wait_end() == 0
        assert not terminal.is_raw
    assert terminal.written.isascii() and not re.search(rb"\x1b\[[0-9;]*3[0-9][;m]", terminal.written)


def test_the_trend_comes_from_samples(state_file: Path) -> None:
    with Engine(state_file, drive=False) as engine:

        def measured(db: apsw.Connection) -> None:
            worker = workers.ensure(db, 0, "local", "local", 2)
            for n in range(4):
                workers.measure(
                    db, worker, {"at": 60_000 * n, "load": 1, "cpu": n / 4, "net_in": 6_000_000 * n, "net_out": 0}
                )

        engine._write(measured)
        [found] = Eyes(engine)(Request()).machines
    assert found.trend == (0.0, 0.25, 0.5, 0.75) and (found.net_in, found.net_out) == (100_000.0, 0.0)
