"""The full-screen view, in a real pseudo-terminal: each key is pressed there, and what it did is read from the state file."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import scitq
from scitq.errors import UnknownWorkflow
from scitq.remote import local
from scitq.states import Halt, TaskState
from scitq.store import batches, workflows
from tests.workflow.declared import declare
from tests.workflow.terminal import Terminal

ROOT = Path(__file__).parent.parent.parent
COMMANDS = [{"command": f"fastp -i s{n:02}.fq -o s{n:02}.out", "name": f"s{n:02}"} for n in range(12)]


class Watched:
    """A state file that nobody drives, and screens on it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "lab.scitq"
        self.engine = scitq.open(self.path, drive=False)
        self._open: list[Terminal] = []

    def watch(self, name: str = "qc", *, columns: int = 80, rows: int = 24, **more: object) -> Terminal:
        """A screen on a workflow, once it is drawn."""
        words = [sys.executable, "-m", "scitq", "-f", str(self.path), "workflow", "watch", name]
        environ = {"PYTHONPATH": str(ROOT), **more.pop("environ", {})}  # type: ignore[dict-item]
        terminal = Terminal(words, folder=self.path.parent, environ=environ, columns=columns, rows=rows, **more)  # type: ignore[arg-type]
        self._open.append(terminal)
        terminal.wait_for(r"^ ?qc")
        return terminal

    def states(self, step: str) -> list[TaskState]:
        return [row.state for row in self.engine.rows(batch=f"qc.{step}")]

    def commands(self, step: str) -> list[object]:
        return [row.spec.command for row in self.engine.rows(batch=f"qc.{step}")]

    def halts(self) -> set[Halt]:
        return {halt for halt, _ in batches.all_of(self.engine._reader()).values()}

    def close(self) -> None:
        for terminal in self._open:
            terminal.close()
        self.engine.close()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    found = Watched(tmp_path)
    declare(found.engine, "qc", {"fetch": [f"echo {n}" for n in range(3)], "fastp": COMMANDS, "stats": ["true"]})
    yield found
    found.close()


def test_p_pauses_s_suspends_and_u_lets_all_go_on(watched: Watched) -> None:
    terminal = watched.watch()
    terminal.press("P")
    terminal.wait_until(lambda: watched.halts() == {Halt.PAUSED})
    terminal.wait_for("qc is paused")
    terminal.wait_for(r"^ qc  paused")
    terminal.press("S")
    terminal.wait_until(lambda: watched.halts() == {Halt.SUSPENDED})
    terminal.wait_for(r"^ qc  suspended")
    terminal.press("U")
    terminal.wait_until(lambda: watched.halts() == {Halt.GO})
    terminal.wait_for(r"^ qc  queued")
    terminal.press("U")
    terminal.wait_for("Nothing of qc is halted")


def test_q_asks_and_leaves_the_tasks_where_they_are(watched: Watched) -> None:
    terminal = watched.watch()
    terminal.press("Q")
    terminal.wait_for(
        lambda lines: "Leave lab.scitq, with 16 tasks queued? [d]etach: a driver stays behind" in " ".join(lines)
    )
    terminal.press("n")
    terminal.wait_for("Nothing was done")
    terminal.press("q", "s")
    assert terminal.wait_end() == 0
    assert not terminal.is_raw and not terminal.is_on_other_screen
    terminal.wait_for("qc: 16 tasks go on. To come back: scitq workflow watch qc")
    assert set(watched.engine.counts()) == {TaskState.PENDING}


def test_ctrl_c_leaves_at_once_and_says_how_to_come_back(watched: Watched) -> None:
    terminal = watched.watch()
    terminal.press("c-c")
    assert terminal.wait_end() == 130
    assert not terminal.is_raw and not terminal.is_on_other_screen
    terminal.wait_for("To come back: scitq workflow watch qc")


def test_d_asks_and_deletes_the_workflow_with_its_tasks(watched: Watched) -> None:
    other = watched.engine.submit("true", batch="other")
    terminal = watched.watch()
    terminal.press("D")
    terminal.wait_for(lambda lines: "Delete workflow qc: 3 steps and 16 tasks, with their history" in " ".join(lines))
    terminal.press("esc")
    terminal.wait_for("Nothing was done")
    assert len(watched.engine.rows()) == 17
    terminal.press("D", "y")
    assert terminal.wait_end() == 0
    terminal.wait_for("Workflow qc was deleted")
    assert [row.id for row in watched.engine.rows()] == [other.id]
    with pytest.raises(UnknownWorkflow):
        workflows.get(watched.engine._reader(), "qc")
    assert set(batches.all_of(watched.engine._reader())) == {"other"}
    assert watched.engine.check() == []


def test_d_refuses_while_others_need_its_tasks(watched: Watched) -> None:
    watched.engine.submit("true", batch="other", requires=watched.engine.task("s03"))
    terminal = watched.watch()
    terminal.press("D", "y")
    terminal.wait_for("of batch other needs a task of qc")
    assert set(watched.states("fastp")) == {TaskState.PENDING}


def test_enter_esc_and_arrows_lead_into_a_step_and_a_task_and_back(watched: Watched) -> None:
    terminal = watched.watch()
    terminal.press("down", "enter")
    terminal.wait_for(r"^fastp .*all 12")
    terminal.wait_for(r"s00 +pending")
    terminal.press("down", "down", "enter")
    terminal.wait_for("command +fastp -i s02.fq -o s02.out")
    terminal.wait_for("nobody drives lab.scitq")
    terminal.press("esc")
    terminal.wait_for(r"^fastp .*all 12")
    terminal.press("esc")
    terminal.wait_for(r"^stats +0/1")
    terminal.press("end", "enter")
    terminal.wait_for(r"^stats .*all 1")


def test_k_asks_and_cancels_a_task_and_r_queues_it_again(watched: Watched) -> None:
    terminal = watched.watch()
    terminal.press("down", "enter")
    terminal.wait_for(r"s00 +pending")
    terminal.press("down", "k")
    terminal.wait_for(r"Cancel task \d+ 's01'\?")
    terminal.press("x")
    terminal.wait_for("Nothing was done")
    terminal.press("k", "y")
    terminal.wait_until(lambda: watched.states("fastp")[1] is TaskState.CANCELLED)
    terminal.wait_for(r"s01 +cancelled")
    terminal.press("k")
    terminal.wait_for("has ended already: cancelled")
    terminal.press("r")
    terminal.wait_until(lambda: watched.states("fastp")[1] is TaskState.PENDING)
    terminal.wait_for("is pending again")


def test_k_and_r_on_a_step_are_about_all_of_it(watched: Watched) -> None:
    terminal = watched.watch()
    terminal.press("down", "k")
    terminal.wait_for(r"Cancel 12 tasks of fastp: 0 at workers, 12 queued\?")
    terminal.press("y")
    terminal.wait_until(lambda: set(watched.states("fastp")) == {TaskState.CANCELLED})
    terminal.wait_for("12 tasks of fastp cancelled")
    assert set(watched.states("fetch")) == {TaskState.PENDING}
    terminal.wait_for(r"^fastp .* 12( |$)")
    terminal.press("r")
    terminal.wait_for(r"Relaunch 12 tasks of fastp that failed or were cancelled\?")
    terminal.press("y")
    terminal.wait_until(lambda: set(watched.states("fastp")) == {TaskState.PENDING})


def _add_threads(terminal: Terminal, command: str) -> None:
    """In the editor: the program gets another option in front."""
    terminal.wait_for(re.escape(command))
    terminal.wait_for("Ctrl-S")
    terminal.press(*["right"] * len("fastp"))
    terminal.type(" --thread 4")
    terminal.wait_for("fastp --thread 4 -i")
    terminal.press("c-s")
    terminal.wait_for(r"^\+fastp --thread 4 -i")


def test_e_edits_one_task_after_a_preview(watched: Watched) -> None:
    terminal = watched.watch()
    terminal.press("down", "enter")
    terminal.wait_for(r"s00 +pending")
    terminal.press("e")
    _add_threads(terminal, "fastp -i s00.fq -o s00.out")
    terminal.wait_for(r"^-fastp -i s00.fq")
    assert watched.commands("fastp")[0] == "fastp -i s00.fq -o s00.out"
    terminal.press("t")
    terminal.wait_until(lambda: watched.commands("fastp")[0] == "fastp --thread 4 -i s00.fq -o s00.out")
    terminal.wait_for("is changed")
    assert watched.commands("fastp")[1:] == [each["command"] for each in COMMANDS[1:]]


def test_e_makes_the_same_change_to_all_that_are_not_launched(watched: Watched) -> None:
    watched.engine.task("s05").update(command="other --thing")
    watched.engine.task("s06").cancel()
    terminal = watched.watch()
    terminal.press("down", "e")
    _add_threads(terminal, "fastp -i s00.fq -o s00.out")
    terminal.wait_for(r"Change 10 tasks not launched yet\? 1 other differs there")
    terminal.wait_for(r"^\+fastp --thread 4 -i s01.fq -o s01.out")
    terminal.press("y")
    terminal.wait_until(lambda: watched.commands("fastp")[11] == "fastp --thread 4 -i s11.fq -o s11.out")
    terminal.wait_for("10 tasks changed")
    found = watched.commands("fastp")
    assert found[5] == "other --thing" and found[6] == "fastp -i s06.fq -o s06.out"
    assert all(str(found[n]).startswith(f"fastp --thread 4 -i s{n:02}") for n in (0, 1, 2, 3, 4, 7, 8, 9, 10))


def test_a_long_difference_is_scrolled_while_it_is_asked_about(watched: Watched) -> None:
    script = "\n".join(f"echo line {n}" for n in range(60))
    declare(watched.engine, "qc", {"fetch": [{"command": script, "shell": True, "name": "long"}]})
    terminal = watched.watch()
    terminal.press("enter", "end")
    terminal.wait_for(r"long +pending")
    terminal.press("e")
    terminal.wait_for("Ctrl-S")
    for _ in range(40):
        terminal.type("x")
        terminal.press("down", "home")
    terminal.press("c-s")
    terminal.wait_for(r"Change \[t\]his task")
    terminal.wait_for(r"^-echo line 0$")
    terminal.press("pagedown", "pagedown", "pagedown", "pagedown", "pagedown")
    terminal.wait_for(r"^\+xecho line 39$")
    terminal.press("home")
    terminal.wait_for(r"^-echo line 0$")
    terminal.press("t")
    changed = lambda: str(watched.commands("fetch")[-1]).startswith("xecho line 0\nxecho line 1\n")  # noqa: E731
    terminal.wait_until(changed)


def test_an_edit_may_be_gone_back_to_and_thrown_away(watched: Watched) -> None:
    terminal = watched.watch()
    terminal.press("down", "enter")
    terminal.wait_for(r"s00 +pending")
    terminal.press("e")
    _add_threads(terminal, "fastp -i s00.fq -o s00.out")
    terminal.press("b")
    terminal.wait_for("Ctrl-S")
    terminal.press("esc")
    terminal.wait_for("Throw this change away")
    terminal.press("n")
    terminal.wait_for("Ctrl-S")
    terminal.press("esc")
    terminal.wait_for("Throw this change away")
    terminal.press("y")
    terminal.wait_for("Nothing was changed")
    terminal.press("e")
    terminal.wait_for("Ctrl-S")
    terminal.press("c-s")
    terminal.wait_for(r"s00 +pending")
    assert watched.commands("fastp") == [each["command"] for each in COMMANDS]


def test_a_command_that_makes_no_sense_is_refused_in_a_sentence(watched: Watched) -> None:
    terminal = watched.watch()
    terminal.press("enter")
    terminal.wait_for(r"fetch #1 +pending")
    terminal.press("e")
    terminal.wait_for("Ctrl-S")
    terminal.type("'")
    terminal.press("c-s", "t")
    terminal.wait_for("the command cannot be split into words")
    assert watched.commands("fetch")[0] == "echo 0"


def test_the_filter_and_the_states_choose_which_tasks_are_listed(watched: Watched) -> None:
    watched.engine.task("s07").cancel()
    terminal = watched.watch()
    terminal.press("down", "/")
    terminal.type("S1")
    terminal.wait_for(
        lambda lines: (
            lines[-1].startswith("/S1")
            and any("s10" in one for one in lines)
            and not any("s02" in one for one in lines)
        )
    )
    terminal.press("up", "backspace", "backspace", "0", "7")
    terminal.wait_for(r"^/07")
    terminal.press("enter")
    terminal.wait_for(lambda lines: any("s07" in one for one in lines) and not any("s10 " in one for one in lines))
    terminal.press("esc")
    terminal.wait_for(r"s11 +pending")
    terminal.press("right", "right")  # queued, cancelled
    terminal.wait_for(lambda lines: any("s07" in one for one in lines) and not any("s06 " in one for one in lines))
    terminal.press("left", "left")
    terminal.wait_for(r"s06 +pending")
    terminal.press("/")
    terminal.type("nothing like it")
    terminal.wait_for("No task is like that")
    terminal.press("esc")
    terminal.wait_for(r"s06 +pending")


def test_help_lists_the_keys_and_c_shows_the_whole_command(watched: Watched) -> None:
    script = "\n".join(f"echo line {n}" for n in range(40))
    declare(watched.engine, "qc", {"long": [{"command": script, "shell": True}]})
    terminal = watched.watch()
    terminal.press("?")
    terminal.wait_for("D +destroy: delete the workflow; asks")
    terminal.press("esc")
    terminal.wait_for(lambda lines: any(one.startswith("long") for one in lines))
    place = next(n for n, one in enumerate(terminal.lines()) if one.startswith("long"))
    terminal.press(*["down"] * (place - 2), "enter")
    terminal.wait_for(r"long #1 +pending")
    terminal.press("enter")
    terminal.wait_for(r"more lines: c shows them")
    terminal.press("c")
    terminal.wait_for("echo line 15")
    terminal.press("c")
    terminal.wait_for(r"more lines: c shows them")


def test_what_others_do_to_the_file_is_shown_without_a_key(watched: Watched) -> None:
    terminal = watched.watch()
    watched.engine.task("s03").cancel()
    terminal.wait_for(r"^fastp +0/12 .* 11 +1( |$)")
    declare(watched.engine, "qc", {"more": ["true"]})
    terminal.wait_for(r"^more +0/1")
    watched.engine.cancel_all()
    assert terminal.wait_end() == 0  # all has ended: it does so by itself
    terminal.wait_for(r"^qc: 0 of 17 tasks succeeded, 17 cancelled")
    assert not terminal.is_raw and not terminal.is_on_other_screen


def test_a_workflow_that_has_ended_may_be_looked_at_all_the_same(watched: Watched) -> None:
    watched.engine.cancel_all()
    terminal = watched.watch()
    terminal.wait_for(r"^ qc  failed")
    terminal.press("down", "enter")
    terminal.wait_for(r"s00 +cancelled")
    terminal.press("q")
    assert terminal.wait_end() == 0
    assert "go on" not in terminal.text()


def test_names_and_output_cannot_command_the_terminal(watched: Watched) -> None:
    hostile = "evil \x1b]0;owned\x07\x1b[2J\u202e name \U0001f9ec漢字"
    declare(watched.engine, "qc", {"st\x1b[31mep": [{"command": f"echo '{hostile}'", "name": hostile}]})
    terminal = watched.watch(columns=120)
    terminal.wait_for(r"^st\\x1b\[31mep")
    place = next(n for n, one in enumerate(terminal.lines()) if one.startswith("st\\x1b"))
    terminal.press(*["down"] * (place - 2), "enter")
    terminal.wait_for(r"evil \\x1b\]0;owned\\x07\\x1b\[2J\\u202e name \U0001f9ec漢字 +pending")
    terminal.press("enter")
    terminal.wait_for(r"command +echo 'evil \\x1b\]0;owned")
    assert b"\x1b]0;owned" not in terminal.written and b"\x1b[31mep" not in terminal.written
    assert "\u202e".encode() not in terminal.written


@pytest.mark.parametrize(("columns", "rows"), [(20, 10), (1, 1), (5, 3), (250, 80)])
def test_any_size_is_lived_with(watched: Watched, columns: int, rows: int) -> None:
    terminal = watched.watch()
    for keys in ([], ["down", "enter"], ["enter"], ["D"]):
        terminal.press(*keys)
        terminal.resize(columns, rows)
        if columns >= 20:
            terminal.wait_for(lambda lines: any(line.strip() for line in lines))
        terminal.resize(80, 24)
        terminal.wait_for(r"^ qc  queued|Delete workflow")
    terminal.wait_for("Delete workflow qc")
    terminal.press("n", "c-c")
    assert terminal.wait_end() == 130
    assert len(watched.engine.rows()) == 16


def test_at_twenty_columns_steps_and_tasks_can_still_be_told(watched: Watched) -> None:
    terminal = watched.watch(columns=20, rows=10)
    terminal.wait_for(r"^fastp +0/12$")
    terminal.press("down", "enter")
    terminal.wait_for(r"s00 +pending$")


@pytest.mark.parametrize(
    ("term", "environ"),
    [
        ("vt100", {}),
        ("xterm-256color", {"NO_COLOR": "1"}),
        ("xterm", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    ],
)
def test_terminals_without_colour_or_unicode_are_served(watched: Watched, term: str, environ: dict[str, str]) -> None:
    terminal = watched.watch(term=term, environ=environ)
    terminal.wait_for(r"^fastp +0/12")
    if "LC_ALL" in environ:
        assert all(byte < 128 for byte in terminal.written)
    else:
        assert not re.search(rb"\x1b\[[0-9;]*3[0-9][;m]", terminal.written)
    terminal.press("P")
    terminal.wait_until(lambda: watched.halts() == {Halt.PAUSED})


def test_a_terminal_that_can_only_print_gets_lines(watched: Watched) -> None:
    terminal = watched.watch(term="dumb")
    terminal.wait_for("qc: 16 tasks in 3 steps")
    watched.engine.cancel_all()
    terminal.wait_for("qc: has ended")
    assert terminal.wait_end() == 0
    assert b"\x1b" not in terminal.written


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_puts_the_terminal_back_before_it_ends_the_program(watched: Watched, number: signal.Signals) -> None:
    terminal = watched.watch()
    terminal.wait_for(r"^fastp")
    terminal.signal(number)
    assert terminal.wait_end() == -number
    assert not terminal.is_raw and not terminal.is_on_other_screen


def test_kill_of_the_screen_harms_nothing(watched: Watched) -> None:
    terminal = watched.watch()
    terminal.press("down", "k", "y")
    terminal.signal(signal.SIGKILL)
    assert terminal.wait_end() == -signal.SIGKILL
    assert watched.engine.check() == []
    again = watched.watch()
    again.wait_for(r"^fastp")


def test_a_mistake_of_ours_puts_the_terminal_back_and_is_shown(watched: Watched) -> None:
    program = (
        "import sys, scitq\n"
        "from scitq.workflow import screen, drawing\n"
        "def wrong(*of, **more): raise ZeroDivisionError('drawn wrongly')\n"
        "drawing.tabs = wrong\n"
        "screen.run(scitq.open(sys.argv[1], drive=False), 'qc')\n"
    )
    with Terminal([sys.executable, "-c", program, str(watched.path)], environ={"PYTHONPATH": str(ROOT)}) as terminal:
        terminal.wait_for(r"^fastp")
        terminal.press("enter")
        assert terminal.wait_end() == 1
        assert not terminal.is_raw and not terminal.is_on_other_screen
        terminal.wait_for("ZeroDivisionError: drawn wrongly")


def test_what_is_printed_meanwhile_comes_after(watched: Watched) -> None:
    program = (
        "import sys, threading, logging, scitq\n"
        "from scitq.workflow import screen\n"
        "engine = scitq.open(sys.argv[1], drive=False)\n"
        "logging.basicConfig(format='%(message)s')\n"
        "from scitq.shell.show import Log, Screen\n"
        "logging.getLogger('scitq').addHandler(Log(Screen(), with_time=False))\n"
        "said = threading.Timer(0, lambda: None)\n"
        "def talk():\n"
        "    while not getattr(engine, 'talk', False): threading.Event().wait(0.01)\n"
        "    print('hello from a thread'); print('no end', end=''); logging.warning('a warning')\n"
        "    logging.getLogger('scitq').propagate = False; logging.getLogger('scitq.x').warning('a word of ours')\n"
        "threading.Thread(target=talk, daemon=True).start()\n"
        "from scitq.workflow.acts import Acts\n"
        "Acts.refresh = lambda self: setattr(engine, 'talk', True)\n"
        "print(screen.run(engine, 'qc'))\n"
    )
    with Terminal([sys.executable, "-c", program, str(watched.path)], environ={"PYTHONPATH": str(ROOT)}) as terminal:
        terminal.wait_for(r"^fastp")
        terminal.press("R")
        terminal.wait_for("a word of ours$")  # in the last line, as any sentence: the rest of the screen is as it was
        assert terminal.is_on_other_screen and "\n".join(terminal.lines()).count("a word of ours") == 1
        terminal.press("c-c")
        assert terminal.wait_end() == 0
        terminal.wait_for(r"^hello from a thread$")
        terminal.wait_for(r"^no endLeft.INTERRUPTED$")
        terminal.wait_for(r"^a warning$")
        terminal.wait_for(r"^scitq: warning: a word of ours$|^a word of ours$")


def test_a_list_of_many_tasks_is_walked_through_page_by_page(tmp_path: Path) -> None:
    found = Watched(tmp_path)
    engine = found.engine
    declare(engine, "qc", {"many": ["true"], "other": ["true"]})
    engine.submit_many(({"command": "true", "name": f"t{n}"} for n in range(3000)), batch="qc.many")
    try:
        terminal = found.watch()
        terminal.press("enter")
        terminal.wait_for(r"many #1 +pending")
        terminal.press("end")
        terminal.wait_for(r"t2999 +pending")
        terminal.press("home")
        terminal.wait_for(r"many #1 +pending")
        terminal.press(*["pagedown"] * 20)  # each is a page of 19, however fast they come

        def selected() -> str:
            chosen = [n for n in range(3, 23) if terminal.styles(n)[0].reverse]
            return terminal.lines()[chosen[0]] if chosen else ""

        terminal.wait_until(lambda: " t379 " in selected())
        terminal.press(*["pageup"] * 20)
        terminal.wait_until(lambda: "many #1" in selected())
    finally:
        found.close()


def test_live_output_is_followed_and_the_history_is_shown(tmp_path: Path) -> None:
    found = Watched(tmp_path)
    go = tmp_path / "go"
    script = f"echo begun; printf 'half'; while [ ! -e {go} ]; do sleep 0.05; done; echo; echo trouble >&2; exit 3"
    driver = scitq.open(found.path)
    try:
        declare(driver, "qc", {"one": [{"command": script, "shell": True}], "two": [{"command": "sleep 600"}]})
        terminal = found.watch()
        terminal.press("enter")
        terminal.wait_for(r"one #1 +running")
        terminal.press("enter")
        terminal.wait_for(r"^begun$")
        terminal.wait_for(r"^half$")
        go.touch()
        terminal.wait_for(r"^trouble$")
        terminal.wait_for(r"failed \(exit 3\)")
        terminal.press("r")
        terminal.wait_for(r"^ +2 +local")
        assert len(driver.task("one #1").executions) == 2
        # What runs is stopped first; then all of it is deleted.
        terminal.press("D", "y")
        assert terminal.wait_end() == 0
        assert driver.rows() == []
    finally:
        found.close()
        driver.close()
        local.stop(driver.side / "local")


def test_run_on_a_terminal_shows_the_screen_and_leaves_a_table_and_the_error(tmp_path: Path) -> None:
    go, script = tmp_path / "go", tmp_path / "wf.py"
    script.write_text(
        "from scitq.workflow import Workflow\n"
        f"wf = Workflow('qc', file={str(tmp_path / 'lab.scitq')!r}, shell=True)\n"
        f"one = wf.step('one', 'while [ ! -e {go} ]; do sleep 0.05; done', name='good')\n"
        "bad = wf.step('one', 'echo oh dear >&2; exit 5', name='bad')\n"
        "wf.step('two', 'true', required_tasks=[one, bad])\n"
        "wf.run()\n",
        encoding="utf-8",
    )
    try:
        with Terminal([sys.executable, str(script)], folder=tmp_path, environ={"PYTHONPATH": str(ROOT)}) as terminal:
            terminal.wait_for(r"^ qc  running")
            terminal.wait_for(r"^\d+ 'bad' failed \(exit 5\): oh dear$")
            assert terminal.is_on_other_screen
            go.touch()
            assert terminal.wait_end() == 1
            assert not terminal.is_raw and not terminal.is_on_other_screen
            terminal.wait_for(r"^qc: 1 of 3 tasks succeeded, 1 failed, 1 blocked")
            terminal.wait_for(r"^one +1/2")
            lines = terminal.wait_for(r"workflow qc: 1 failed, 1 blocked of 3 tasks")
            assert " ".join(lines).count("oh dear") == 1  # told by the error alone
    finally:
        local.stop(tmp_path / "lab.scitq.d" / "local")


def test_q_may_leave_a_driver_behind_that_goes_on(tmp_path: Path) -> None:
    go, script = tmp_path / "go", tmp_path / "wf.py"
    script.write_text(
        "from scitq.workflow import Workflow\n"
        f"wf = Workflow('qc', file={str(tmp_path / 'lab.scitq')!r}, shell=True)\n"
        f"one = wf.step('one', 'while [ ! -e {go} ]; do sleep 0.05; done')\n"
        "wf.step('two', 'true', required_tasks=one)\n"
        "wf.run()\n",
        encoding="utf-8",
    )
    environ = {"PYTHONPATH": str(ROOT)}
    with (
        Terminal([sys.executable, str(script)], folder=tmp_path, environ=environ) as terminal,
        scitq.open(tmp_path / "lab.scitq", drive=False) as engine,
    ):
        try:
            terminal.wait_for(r"^ qc  running")
            terminal.press("Q")
            terminal.wait_for("Leave lab.scitq")
            terminal.press("d")
            terminal.wait_end()
            terminal.wait_for(r"workflow qc was left. Its tasks go on: driver .*\(pid \d+, this machine\)")
            go.touch()
            assert engine.wait_all(60) == {TaskState.SUCCEEDED: 2}
        finally:
            engine.stop_driver()
            local.stop(tmp_path / "lab.scitq.d" / "local")
