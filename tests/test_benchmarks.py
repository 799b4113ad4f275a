"""The benchmarks run, whatever they measure: nothing here times anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import contest, run
from benchmarks.report import Section, at_least, at_most, spread

ROOT = Path(__file__).parent.parent


def test_the_runner_explains_itself_and_refuses_what_it_does_not_know() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "run.py")]
    told = subprocess.run([*command, "--help"], capture_output=True, text=True)
    refused = subprocess.run([*command, "a", "z"], capture_output=True, text=True)

    assert (told.returncode, refused.returncode) == (0, 2)
    assert "no benchmark z" in refused.stderr
    assert set("abcdefghijklmnopqrs") <= set(run.BENCHMARKS)


@pytest.mark.parametrize(
    "function", ["noop", "chains", "latency", "xargs", "xargs_files", "functions_map", "functions_each"]
)
def test_a_contestant_measures(function: str, tmp_path: Path) -> None:
    outcome = contest.run(contest.ours(function, function), 3, tmp_path)

    assert all(value >= 0 for value in outcome.values())
    assert {"rate", "cpu_ms"} <= outcome.keys() or {"median_ms", "p95_ms"} <= outcome.keys()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("benchmarks.holding", ("bulk",)),
        ("benchmarks.holding", ("questions",)),
        ("benchmarks.agents", ("drive",)),
        ("benchmarks.workflows", ()),
    ],
)
def test_a_part_in_a_process_of_its_own_measures(module: str, words: tuple[str, ...], tmp_path: Path) -> None:
    assert contest.run(contest.Contestant(module, (sys.executable, "-m", module, *words)), 1000, tmp_path)


def test_who_fails_is_out_and_the_others_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = contest.Contestant("broken", (sys.executable, "-c", "raise SystemExit('no way')"))
    found = contest.play([broken, contest.ours("xargs", "xargs")], 2, 2, tmp_path)

    assert {name: len(outcomes) for name, outcomes in found.items()} == {"xargs": 2}
    assert "broken is out: no way" in capsys.readouterr().err


def test_results_keep_the_parts_that_were_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "RESULTS", tmp_path / "RESULTS.md")
    first = Section("b", "second", ("", "x"), [("y", "1")], [at_least("rate", 2, 1)], ["why"])
    run.write("* a: 1\n* b: 2", {"b": first.text()})
    run.write("* a: 3", {"a": Section("a", "first", ("",), findings=[at_most("time", 2.0, 1, " s")]).text()})
    run.RESULTS.write_text(run.RESULTS.read_text() + "\n## Fault campaign\n\nAll well.\n")
    run.write("* a: 4", {"a": Section("a", "first", ("",)).text()})

    text = run.RESULTS.read_text()
    assert text.index("## (a) first") < text.index("## (b) second") < text.index("## Fault campaign\n\nAll well.\n")
    assert "Measured with: a: 4." in text and "Measured with: a: 1; b: 2." in text and "a: 3" not in text
    assert "rate: 2.00 (bar ≥ 1) holds" in text


def test_spread_is_the_median_and_both_ends() -> None:
    assert spread([3, 1, 2]) == "2.00 [1.00-3.00]"
    assert spread([1000.4], 0) == "1,000"
