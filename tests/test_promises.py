"""Each line of what was promised, after a look at those who went before, has a test that shows it.

Tests say with `@pytest.mark.promise("lessons 3.5.4")` which line they show (`pytest --collect-only -m promise` lists them). The
two tables are the ten acceptance tests of the lessons from other systems, and what scitq 1 did that this one must not.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
RECRUITERS, CLOUDS = "stage 8 (recruiters)", "stage 9 (clouds)"


class Line(NamedTuple):
    """A promise. `later` is what of it is not there yet, and the stage that brings it; `shown`: the rest is tested now."""

    promise: str
    later: str = ""
    shown: bool = True


def _later(promise: str, stage: str) -> Line:
    return Line(promise, stage, shown=False)


PROMISES = {
    "lessons 3.5.1": Line("suspended for two hours with orders out: nothing is re-run or lost, all logs complete"),
    "lessons 3.5.2": _later("killed between a purchase and its answer: the machine is found", RECRUITERS),
    "lessons 3.5.3": Line("the agent killed during run, collection, and between: exit status and outputs are right"),
    "lessons 3.5.4": Line("10,000 random operations: the invariants hold after each"),
    "lessons 3.5.5": Line("a retry inherits every field"),
    "lessons 3.5.6": Line("a line of 1 MB, binary garbage and a million lines neither hang nor lose bytes"),
    "lessons 3.5.7": Line("cancel at each stage boundary: one outcome, no container left"),
    "lessons 3.5.8": Line("depends on a step of three waits for three; a named output has its files only"),
    "lessons 3.5.9": Line("what changes the key of the cache, and what does not"),
    "lessons 3.5.10": Line("a task that fits nowhere is explained within one pass"),
    "core 11.1": Line("nobody but the user reaches an agent"),
    "core 11.2": Line("secrets of storage are not copied about"),
    "core 11.3": Line("no text of a user's becomes SQL or code, reading changes nothing, output is harmless on screens"),
    "core 11.4": Line("host keys are checked"),
    "core 11.5": Line("no execution is stranded or doubled; moves are compared and set at once"),
    "core 11.6": Line("orders may be repeated"),
    "core 11.7": Line("what is wanted is a state, not a signal that may be missed"),
    "core 11.8": Line("failed prerequisites block and say so, no cycles, tasks and requirements are born together"),
    "core 11.9": Line("no success before the outputs are confirmed, and the cache takes what is the same and only that"),
    "core 11.10": Line("recruiters count live workers only, and their ranks share one count"),
    "core 11.11": _later("evictions are seen and made good", CLOUDS),
    "core 11.12": _later("disks and prices of clouds are what they are", CLOUDS),
    "core 11.13": Line("lists are lists, words arrive as given, values can be taken back"),
    "core 11.14": Line("folders of failures stay until forgotten or the disk is short, others do not pile up"),
    "core 11.15": Line("nothing is polled: what happens wakes those who wait"),
    "core 11.16": Line("output is appended, capped, and read from an offset"),
    "core 11.17": Line("nothing reads whole tables at each round"),
    "core 11.18": Line("many are dealt with at once; the first task needs no set-up"),
    "core 11.19": Line("an agent that nobody needs ends by itself", f"and so does its rented machine: {RECRUITERS}"),
    "core 11.20": Line("work is balanced, requests are packed, priorities count"),
    "core 11.21": Line("idle machines are kept for what comes next"),
    "core 11.22": Line("no fixed port, no fixed path, more engines than one", f"other providers: {CLOUDS}"),
    # What concerns data of the list of what version 1 did.
    "data 11.2": Line("a worker gets the storages that its tasks name, in a private file in memory, gone at its end"),
    "data 11.3": Line("no path, name or option of a user's reaches a shell"),
    "data 11.5": Line("no address and no archive leads out of its folder"),
    "data 11.9": Line("a dry run deletes nothing, and deleting a folder has to be said"),
    "data 11.10": Line("patterns of one sync are not those of the next"),
    "data 11.14": Line("no partial file under a final name; sizes and checksums are looked at"),
    "data 11.16": Line("the exit code, the signal and what failed after it are told apart"),
    "data 11.17": Line("two inputs of one name are refused"),
    "data 11.18": Line("what may have changed is not taken for the same"),
    "data 11.19": Line("of two that want one place, one gets it, and the other is told so"),
    "data 11.21": Line("file names are whatever the system allows"),
    "data 11.22": Line("nobody waits by looking again and again"),
    "data 11.23": Line("who dies while it brings something locks nobody out"),
    "data 11.24": Line("given up, it ends within seconds in every phase"),
    "data 11.25": Line("the time for downloads counts downloads only, and is what was asked for"),
    "data 11.26": Line("what cannot succeed is not tried again; what may is, with growing waits"),
    "data 11.27": Line("what could not be fetched is tried again as often as the task may be"),
    "data 11.28": Line("what is kept for later gives way when the disk is short, and nothing that is in use"),
    "data 11.29": Line("an old version goes when another one has come"),
    "data 11.35": Line("importing does nothing; the user's configuration and environment stay as they are"),
    "data 11.36": Line("exit codes, JSON, and errors in a line"),
    "data 11.37": Line("one tree of exceptions that says what is worth another try"),
    "data 11.38": Line("any name of a remote works"),
    "data 11.39": Line("files of any size pass in pieces"),
}  # fmt: skip


def marks() -> dict[str, list[str]]:
    """The tests that show each line, by reading the sources: independent of what is selected."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
                continue
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.promise":
                    for line in decorator.args:
                        found.setdefault(ast.literal_eval(line), []).append(f"{path.name}::{node.name}")
    return found


def test_every_promise_in_scope_has_a_test() -> None:
    shown = marks()
    assert sorted(shown.keys() - PROMISES.keys()) == [], "no such line"
    assert [name for name, line in PROMISES.items() if line.shown and name not in shown] == []
    assert [name for name, line in PROMISES.items() if not line.shown and name in shown] == [], "it is there already"


# Each would run text as code, or hand it to a shell.
# But for the line that its user typed as Python, in the interactive shell: that is what it is for.
TYPED = ROOT / "scitq" / "shell" / "interactive" / "python.py"
FORBIDDEN = {"eval", "exec", "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}


@pytest.mark.promise("core 11.3")
def test_no_text_is_run_as_code() -> None:
    found = []
    for path in sorted((ROOT / "scitq").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                through_shell = any(
                    word.arg == "shell" and ast.unparse(word.value) == "True" and "subprocess" in ast.unparse(node.func)
                    for word in node.keywords
                )
                if (ast.unparse(node.func) in FORBIDDEN and path != TYPED) or through_shell:
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)[:80]}")
    assert found == []
