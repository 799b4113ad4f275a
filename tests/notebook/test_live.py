"""Workflows and the queue, live in the kernel of a notebook; what is there when that kernel is gone."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from scitq.engine import Engine
from scitq.remote import local
from tests.notebook.kernel import Cell, Notebook, notebook, until

pytestmark = [pytest.mark.servers, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

BEGIN = "import os, sys, threading, scitq\nfrom scitq.workflow import Workflow\nq = scitq.open('lab.scitq')"
# Its tasks wait for a file of that name.
GATED = """
with Workflow('{name}', engine=q, shell=True) as wf:
    for n in range(3):
        wf.step('one', 'while ! [ -e {name} ]; do sleep 0.02; done', name=str(n))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the notebook is."""
    return tmp_path_factory.mktemp("live")


@pytest.fixture(scope="module")
def nb(folder: Path) -> Iterator[Notebook]:
    """A notebook in which lab.scitq is open as q."""
    with notebook(folder) as found:
        found.do(BEGIN)
        yield found
        found.run("q.cancel_all()\nq.close()")
    local.stop(folder / "lab.scitq.d/local")


def test_a_run_shows_a_table_that_ends_as_the_workflow_does(nb: Notebook) -> None:
    cell = nb.run(
        "wf = Workflow('calm', engine=q)\nfor n in range(3):\n    wf.step('one', 'true')\nsummary = wf.run()"
    ).good

    assert [one["output_type"] for one in cell.outputs] == ["display_data"]
    assert "workflow calm" in cell.html and "3/3" in cell.html and "succeeded" in cell.html
    assert cell.text == "workflow calm succeeded: 3 succeeded"
    assert "3 tasks" in nb.run("summary").good.html and "3/3" in nb.run("wf").good.html


def test_a_run_that_fails_ends_in_a_sentence(nb: Notebook) -> None:
    cell = nb.run("wf = Workflow('bad', engine=q)\nwf.step('one', 'false', name='x')\nwf.run()")

    assert cell.error.ename == "WorkflowFailed" and "failed (exit 1)" in cell.error.evalue
    assert not any("File" in line or "--->" in line for line in cell.error.traceback)
    assert "failed" in cell.html


def test_an_interrupt_leaves_a_run_with_a_sentence(nb: Notebook, folder: Path) -> None:
    nb.do(GATED.format(name="left"))
    with Engine(folder / "lab.scitq", drive=False) as beside:

        def is_followed(cell: Cell) -> bool:
            if "workflow left" in cell.html:
                beside.pause_batch("left.one")
            return "paused" in cell.html

        thread = nb.interrupt_when(is_followed)
        cell = nb.run("wf.run()")
        thread.join()

        assert cell.error.ename == "WorkflowLeft" and "workflow left was left." in cell.error.evalue
        assert "To watch it: scitq workflow watch left" in cell.error.evalue and len(cell.error.traceback) == 1
        assert "not followed any more" in cell.html
        beside.go_batch("left.one")
        (folder / "left").touch()
        assert beside.wait_all(60, batch="left.one")


def _running(engine: Engine, batch: str) -> bool:
    return any(task.status == "running" for task in engine.tasks(batch=batch))


def test_a_run_that_does_not_block_shows_a_table_and_can_be_awaited(nb: Notebook, folder: Path) -> None:
    nb.do(GATED.format(name="free"))
    begun = nb.run("run = wf.run(block=False)\nrun").good
    assert [one["output_type"] for one in begun.outputs] == ["display_data"], "no second table below the live one"
    assert "application/vnd.jupyter.widget-view+json" in begun.outputs[0]["data"]
    assert "workflow free" in nb.run("run").good.text or "free" in nb.run("run").good.html, "the kernel is free"

    (folder / "free").touch()
    awaited = nb.run("found = await run\nprint(found.counts, type(found).__name__)").good
    assert awaited.stream("stdout") == "{'succeeded': 3} Summary\n"
    assert "3/3" in begun.html and "widget" not in str(begun.outputs[0]["data"].keys()), "what stays is plain HTML"
    assert nb.run("q.workflow('free').ended_ms is not None").good.text == "True"
    assert nb.run("result = await q.submit('echo x'); result.stdout").good.text == "'x\\n'"


def test_awaiting_a_run_that_fails_raises_its_error(nb: Notebook) -> None:
    cell = nb.run(
        "wf = Workflow('bad', engine=q, fresh=True)\nwf.step('one', 'false', name='x')\nawait wf.run(block=False)"
    )

    assert cell.error.ename == "WorkflowFailed"


def test_a_cell_that_is_run_again_takes_over_the_table(nb: Notebook, folder: Path) -> None:
    threads = "print(sum(t.name == 'scitq-run' for t in threading.enumerate()))"
    for _ in range(2):
        nb.do(f"{GATED.format(name='again')}\nrun = wf.run(block=False)")
    assert until(lambda: nb.run(threads).stream("stdout") == "1\n")

    (folder / "again").touch()
    assert nb.run("print((await run).counts)").good.stream("stdout") == "{'succeeded': 3}\n"
    assert until(lambda: nb.run(threads).stream("stdout") == "0\n")


def test_without_ipywidgets_displays_are_updated(nb: Notebook, folder: Path) -> None:
    nb.do("sys.modules['ipywidgets'] = None")
    nb.do(GATED.format(name="plain"))
    cell = nb.run("run = wf.run(block=False)").good
    assert set(cell.outputs[0]["data"]) == {"text/html", "text/plain"} and "0/3" in cell.html

    (folder / "plain").touch()
    nb.do("await run\ndel sys.modules['ipywidgets']")
    assert "3/3" in cell.html and cell.text == "workflow plain succeeded: 3 succeeded"


def test_the_queue_is_watched_until_that_is_stopped(nb: Notebook) -> None:
    nb.do("sys.modules['ipywidgets'] = None")
    cell = nb.run("live = q.watch()\nlive").good
    assert "<b>lab.scitq</b>" in cell.html and len(cell.outputs) == 1
    nb.do("for task in q.submit_many(['true'] * 5, batch='seen'): task.result()")

    script = (
        "import time\nlive.stop()\nwhile any(t.name == 'scitq-live' for t in threading.enumerate()): time.sleep(0.02)"
    )
    nb.do(f"{script}\ndel sys.modules['ipywidgets']")
    assert "seen" in cell.html and "not followed any more" in cell.html
    with pytest.raises(AssertionError, match="scitq top"):
        nb.do("import unittest.mock as m\nwith m.patch('scitq.live.kernel_shell', lambda: None):\n    q.watch()")


def test_a_debug_dialogue_says_when_there_is_nobody_to_answer(nb: Notebook) -> None:
    cell = nb.run("wf = Workflow('trial', engine=q, debug=True)\nwf.step('one', 'true', name='x')\nwf.run()")

    assert "nobody to answer" in cell.stream("stdout") and cell.error.ename == "WorkflowLeft"
    nb.do("q.workflow('trial'); q.tasks(batch='trial.one').cancel()")


def test_a_debug_dialogue_asks_in_the_cell(nb: Notebook) -> None:
    cell = nb.run(
        "import builtins\nreal, builtins.input = builtins.input, iter(['y', 'c']).__next__\n"
        "wf = Workflow('asked', engine=q, debug=True)\nwf.step('one', 'echo tried', name='x', shell=True)\nwf.run()"
    ).good

    said = cell.stream("stdout")
    assert said.index("Run it? [Y]es") < said.index("tried\n", said.index("Run it?")) < said.index("Go on? [C]ontinue")
    assert "1 task" in cell.html
    nb.do("builtins.input = real")


@pytest.mark.parametrize("how", ["killed", pytest.param("restarted", marks=pytest.mark.sampled)])
def test_everything_is_there_again_when_a_kernel_is(tmp_path: Path, how: str) -> None:
    with Engine(tmp_path / "lab.scitq", drive=False) as beside:
        with notebook(tmp_path) as nb:
            nb.do(BEGIN + GATED.format(name="go") + "run = wf.run(block=False)\nlive = q.watch()")
            assert until(lambda: _running(beside, "go.one"))
            executions = {task.id: len(task.executions) for task in beside.tasks()}
            if how == "killed":
                os.kill(nb.pid, signal.SIGKILL)
        with notebook(tmp_path) as nb:
            nb.do(BEGIN)
            assert "3" in nb.run("q").good.html
            (tmp_path / "go").touch()
            nb.do(GATED.format(name="go") + "found = wf.run()")
            assert nb.run("print(found.counts)").stream("stdout") == "{'succeeded': 3}\n"
            begun = [task for task in beside.tasks() if executions[task.id]]
            assert begun and all(len(task.executions) == 1 for task in begun), "what ran went on"
            nb.do("q.close()")
    local.stop(tmp_path / "lab.scitq.d/local")
