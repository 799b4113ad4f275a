"""What crash tests share: rounds and seed from the environment, and the questions asked after each crash."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scitq.engine import Engine
from scitq.remote import local
from scitq.states import Outcome, TaskState
from tests.crash import scenario

SCENARIO = Path(scenario.__file__)
DEADLINE_S = 120

Child = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def dice() -> random.Random:
    """Chance that can be repeated: SCITQ_SEED, printed when it was not given."""
    seed = os.environ.get("SCITQ_SEED") or str(random.randrange(1 << 30))
    print(f"SCITQ_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def child(state_file: Path) -> Iterator[Child]:
    """Starts the scenario as a process of its own; what is left of it is ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(**env: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.crash.scenario", str(state_file)],
            env={**os.environ, **env, "PYTHONPATH": str(SCENARIO.parents[2])},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
    root = state_file.with_name(state_file.name + ".d") / "local"
    if root.is_dir():
        local.stop(root)


def rounds(default: int, share: float = 1.0) -> int:
    """How many rounds a crash test plays: its share of SCITQ_ROUNDS, else a few."""
    given = os.environ.get("SCITQ_ROUNDS")
    count = max(1, round(share * int(given))) if given else default
    _running[-1].user_properties.append(("rounds", count))
    return count


def finish(child: Child, **env: str) -> None:
    """Run the scenario to its end; whatever it finds, it must get there."""
    process = child(**env)
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, errors


def problems(state_file: Path, *, lost_is_fine: bool = False) -> list[str]:
    """Everything that is not as it would be without a crash (DESIGN.md §10, 1 to 4, 6 and 8)."""
    found = []
    ran = Counter(map(int, Path("ran").read_text().split()))
    acked = set(map(int, Path("acked").read_text().split()))
    with Engine(state_file, drive=False) as engine:
        found += engine.check()
        rows = {row.name: row for row in engine.rows()}
        if missing := acked - {int(row.id) for row in rows.values()}:
            found.append(f"acknowledged submissions are gone: {missing}")
        if len(rows) != len(engine.rows()):
            found.append("a step was submitted twice")
        for n in range(scenario.STEPS):
            row = rows[f"s{n}"]
            task = engine.task(row.id)
            outcomes = Counter(attempt.outcome for attempt in task.executions)
            lost = outcomes[Outcome.LOST]
            if row.state is not TaskState.SUCCEEDED or outcomes[Outcome.SUCCEEDED] != 1:
                found.append(f"s{n} is {row.state.word} after {outcomes}")
            if lost and not lost_is_fine:
                found.append(f"s{n} lost an execution")
            if not scenario.runs_of(n) <= ran[row.id] <= scenario.runs_of(n) + lost:
                found.append(f"s{n} ran {ran[row.id]} times, {lost} of its executions were lost")
            if task.output_bytes(0) != scenario.expected(n):
                found.append(f"s{n}: the stored output is not what was written")
            if n % 7 == 3 and {p.read_text() for p in Path(task.output.path).rglob("file")} != {"kept\n", "deep\n"}:
                found.append(f"s{n}: its output folder is not complete")
    return found


def reset(state_file: Path) -> None:
    """An empty folder again, with the agent of the round before ended."""
    root = state_file.with_name(state_file.name + ".d") / "local"
    if root.is_dir():
        local.stop(root)
    import shutil

    for path in state_file.parent.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def holder(root: Path, role: str) -> int | None:
    """The pid of the agent or keeper that lives in this folder, if one does."""
    import json

    from scitq.remote.agent.root import is_locked

    if not is_locked(str(root), f"{role}.lock"):
        return None
    try:
        return int(json.loads((root / f"{role}.lock").read_text())["pid"])
    except (OSError, ValueError, KeyError):
        return None  # it is just starting


def kill(pid: int | None) -> bool:
    """SIGKILL to a process of ours, if it is there."""
    if pid is None:
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


# --- the campaign's result, fit to be pasted into benchmarks/RESULTS.md -------------------------------------------------------

_running: list[pytest.Item] = []
_reports: list[pytest.TestReport] = []


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Remember which test runs, for `rounds`."""
    _running[:] = [item]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep how each test ended."""
    if report.when == "call" or report.failed:
        _reports.append(report)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """In a campaign: a table of what was tried, how often, and how often it went wrong. A test stops at its first violation."""
    if "SCITQ_ROUNDS" not in os.environ:
        return
    terminalreporter.section("campaign")
    terminalreporter.write_line("| what | rounds | violations | time |\n| --- | --- | --- | --- |")
    for report in sorted(_reports, key=lambda one: one.nodeid):
        name = report.nodeid.rpartition("/")[2].partition("::")[2].removeprefix("test_").replace("_", " ")
        count = dict(report.user_properties).get("rounds")
        if count is None and "killed_at" in report.nodeid:
            count = os.environ["SCITQ_ROUNDS"]  # or all points, if those are fewer
        violations = "1, where it stopped" if report.failed else "0"
        terminalreporter.write_line(f"| {name} | {count or '-'} | {violations} | {report.duration:.0f} s |")
