"""`scitq demo`: what a newcomer sees first."""

from __future__ import annotations

import pytest

from tests.shell.conftest import Lab
from tests.shell.tmux import Terminal


@pytest.mark.slow
def test_demo_shows_progress_and_the_biologists_table(terminal: Terminal, lab: Lab) -> None:
    terminal.type("scitq demo; echo code $?")
    terminal.wait_for(r"^demo\.scitq created\. Local worker: \d+ slots?, .* Python 3\.\d+\.\d+\.$")
    terminal.wait_for(r"^trim .* 8 .* [1-9] .* s ")
    screen = terminal.wait_for(r"^code \d+$")

    assert "code 0" in screen
    progress = [
        line.split()[:5] for line in screen.splitlines() if line.startswith(("trim ", "place ", "kmer ", "report "))
    ]
    # Redrawn in place: each step is on the screen once.
    assert progress == [
        ["trim", "8", "8", "0", "0"],
        ["place", "8", "8", "0", "0"],
        ["kmer", "8", "8", "0", "0"],
        ["report", "1", "1", "0", "0"],
    ]
    assert "tiles-001-012" in screen and "coverage" in screen
    assert "Everything is in demo.scitq; outputs in demo-results/. Next: scitq task list" in " ".join(screen.split())


@pytest.mark.sampled
@pytest.mark.slow
def test_demo_runs_again_with_fresh_results_and_in_another_folder(lab: Lab) -> None:
    (lab.folder / "there" / "demo-results").mkdir(parents=True)
    (lab.folder / "there" / "demo-results" / "mine.txt").write_text("not the demo's", encoding="utf-8")

    first = lab.json("demo", "--dir", "there")
    again = lab.scitq("demo", "--dir", "there", "--keep")

    assert len(first["samples"]) == 9
    assert first["tasks"] == 25
    assert b"its tasks stay" in again.stderr
    assert b"scitq -f there/demo.scitq task list" in again.stderr
    assert (lab.folder / "there" / "demo-results-2" / "report" / "report.tsv").exists()
    assert (lab.folder / "there" / "demo-results" / "mine.txt").exists()
    assert first["samples"][0]["coverage"] in again.stdout.decode()


def test_demo_in_a_folder_that_is_not_there(lab: Lab) -> None:
    assert b"mkdir -p nowhere" in lab.scitq("demo", "--dir", "nowhere", code=1).stderr


def test_ctrl_c_leaves_the_demo_and_says_how_to_go_on(terminal: Terminal, lab: Lab) -> None:
    terminal.type("scitq demo; echo code $?")
    terminal.wait_for("^trim ")
    terminal.press("C-c")
    screen = terminal.wait_for("^code 130$")

    assert "To go on: scitq up" in screen
