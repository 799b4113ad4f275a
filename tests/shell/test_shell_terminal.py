"""The shell as a person has it: in a real pseudo-terminal."""

from __future__ import annotations

import re
import signal
import stat
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from scitq.engine import Engine
from scitq.states import TaskState
from tests.shell.conftest import PROGRAM, Lab
from tests.workflow.terminal import Terminal

PROMPT = r"^lab\.scitq [▸>] ?$"


class Shell(Terminal):
    """`scitq` in a folder, with a prompt to come back to."""

    def __init__(self, lab: Lab, *words: str, prompt: str = PROMPT, **more: object) -> None:
        term = str(more.get("term", "xterm-256color"))
        environ = {**lab.environ, "TERM": term, "SHELL": "/bin/sh", **more.pop("environ", {})}  # type: ignore[dict-item]
        super().__init__([*PROGRAM, *words], folder=lab.folder, environ=environ, **more)  # type: ignore[arg-type]
        self.prompt = prompt

    def ready(self) -> list[str]:
        """Wait for an empty prompt at the end of what is on the screen."""

        def an_empty_prompt(lines: list[str]) -> bool:
            told = [line for line in lines[:-1] if line]
            return self.is_raw and bool(told) and re.search(self.prompt, told[-1]) is not None

        return self.wait_for(an_empty_prompt)

    def clear(self) -> None:
        """An empty screen, so that what comes is what was asked for next."""
        self.press("c-l")
        self.wait_for(lambda lines: re.search(self.prompt, lines[0]) and not any(lines[1:-1]))

    def line(self, text: str, expected: str | None = None) -> str:
        """Type a line on a cleared screen, and wait for what it leads to and the next prompt; gives the screen."""
        self.clear()
        self.type(text)
        # The menu may be open on the last word.
        self.wait_for(lambda lines: text in "".join(line.ljust(self._screen.columns) for line in lines))
        self.press("enter")
        if expected is not None:
            self.wait_for(expected)
        return "\n".join(self.ready())


def file_of(lab: Lab, *commands: str, name: str = "lab.scitq") -> Path:
    """A state file in which tasks wait, and nobody drives."""
    path = lab.folder / name
    with Engine(path, drive=False) as engine:
        for number, command in enumerate(commands):
            engine.submit(command, name=f"align s{number:02}", batch="qc.fastp")
    return path


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("shell"))
    lab.environ["HOME"] = str(lab.folder)
    file_of(lab, "true", "true")
    yield lab
    lab.clean_up()


@pytest.fixture(scope="module")
def open_shells(lab: Lab) -> Iterator[list[Shell]]:
    opened: list[Shell] = []
    yield opened
    for shell in opened:
        shell.close()


@pytest.fixture
def shell(open_shells: list[Shell], lab: Lab) -> Shell:
    """The shell of this module, at an empty prompt; a new one only if that was left."""
    if not open_shells or open_shells[-1].ended is not None:
        open_shells.append(Shell(lab))
        open_shells[-1].ready()
    open_shells[-1].press("c-u")
    open_shells[-1].clear()
    return open_shells[-1]


def test_it_greets_with_what_there_is(shell: Shell) -> None:
    assert b"lab.scitq" in shell.written and b"2 pending" in shell.written and b"Tab completes" in shell.written
    shell.wait_for(r"nobody drives +▲ 0 workers +0 running · 2 queued · 0 done")


def test_the_menu_completes_commands_options_and_values(shell: Shell) -> None:
    shell.type("task upd")
    shell.wait_for(r"update +Edit tasks")
    shell.press("tab")
    shell.type(" --ba")
    shell.wait_for(r"^ +--batch ")
    shell.press("tab")
    shell.type(" q")
    shell.wait_for(r"^ +qc\.fastp")
    shell.press("tab", "enter")  # the first Enter takes what is chosen
    shell.wait_for(r"task update --batch qc\.fastp$")
    shell.wait_for(lambda lines: len([line for line in lines if line]) == 2)


def test_names_with_blanks_are_quoted_and_quotes_go_on(shell: Shell) -> None:
    shell.type("task show al")
    shell.wait_for(r"align s00 +pending")
    shell.press("tab", "tab")
    shell.wait_for(r"task show 'align s01'$")
    shell.press("c-c")
    shell.ready()
    shell.type('task show "align s0')
    shell.wait_for(r"align s01 +pending")
    shell.press("tab")
    shell.wait_for(r'task show "align s00"$')


def test_conditions_and_queries_are_completed(shell: Shell) -> None:
    shell.type("task list --where \"batch='")
    shell.wait_for(r"^ +qc\.fastp")
    shell.press("tab")
    shell.type(" and sta")
    shell.wait_for(r"^ +state")
    shell.press("tab")
    shell.type("='pend")
    shell.wait_for(r"^ +pending")
    shell.press("tab")
    shell.type('"')
    shell.press("enter")
    shell.wait_for(r"2  align s01 +pending")
    shell.ready()
    shell.type("sql select count(*) from ta")
    shell.wait_for(r"^ +tasks")


def test_files_come_with_their_tilde(lab: Lab, shell: Shell) -> None:
    (lab.folder / "reads one").mkdir(exist_ok=True)
    shell.type("backup ~/rea")
    shell.wait_for(r"^ +reads one/")
    shell.press("tab")
    shell.wait_for(r"backup ~/'reads one/'$")


def test_a_line_is_edited_with_the_usual_keys(shell: Shell) -> None:
    shell.type("sttus")
    shell.press("left", "left", "left")
    shell.type("a")
    shell.press("c-e", "enter")
    shell.wait_for(r"lab\.scitq · ")
    shell.ready()
    shell.press("up")
    shell.wait_for(r"status$")
    shell.press("c-u")
    shell.ready()


def test_what_was_typed_before_is_found_again(lab: Lab, shell: Shell) -> None:
    assert "2 pending" in shell.line("status --json | tr a-z A-Z | tr A-Z a-z; echo 2 pending")
    shell.clear()  # what comes from here on was not there
    shell.press("c-r")
    shell.type("tr a-z")
    shell.wait_for(r"status --json \| tr a-z")
    shell.press("c-g")
    shell.ready()
    shell.type("status --js")
    shell.wait_for(r"status --json \| tr a-z A-Z")  # the suggestion
    shell.press("right")
    shell.wait_for(lambda lines: "echo 2 pending" in "".join(lines))
    shell.press("c-c")
    shell.ready()
    shell.line(" status -v")
    shell.line("launch -t -e TOKEN=abc -- true")
    history = lab.folder / "lab.scitq.d" / "shell-history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert "tr a-z" in history.read_text() and "abc" not in history.read_text() and "-v" not in history.read_text()


def test_a_line_goes_on_while_something_is_open(shell: Shell) -> None:
    shell.type("task list -n 'align")
    shell.press("enter")
    shell.wait_for(r"^ *… ?$")
    shell.type("x'")
    shell.press("enter")
    shell.wait_for(r"No such tasks")
    shell.ready()
    shell.clear()
    shell.type("sql select count(")
    shell.press("enter")
    shell.type("*) as n from tasks")
    shell.press("enter")
    shell.wait_for(r"^n$")
    shell.ready()
    shell.clear()
    shell.type("> for i in range(2):")
    shell.press("enter")
    shell.type("print('number', i)")
    shell.press("enter", "enter")
    shell.wait_for(r"^number 1$")
    shell.ready()


def test_unknown_commands_are_red_and_options_coloured(shell: Shell) -> None:
    shell.type("tusk --where")
    shell.wait_for(r"tusk --where$")
    at = len("lab.scitq ▸ ")
    shell.wait_for(lambda lines: shell.styles(0)[at].fg == "red" and shell.styles(0)[at + 5].fg == "cyan")
    shell.press("c-u")
    shell.type("task list 'x' ")
    shell.wait_for(r"task list 'x'$")
    shell.wait_for(lambda lines: shell.styles(0)[at].fg == "green" and shell.styles(0)[at + 10].fg == "brown")
    shell.press("c-u")
    shell.type("sql select 1")
    shell.wait_for(lambda lines: shell.styles(0)[at + 4].fg == "blue" and shell.styles(0)[at + 4].bold)


def test_what_goes_wrong_is_one_sentence(shell: Shell) -> None:
    told = shell.line("tusk")
    assert "there is no command 'tusk'" in told and "Usage" not in told
    assert "no task 77" in shell.line("task show 77")
    assert "Traceback" not in told


def test_pipes_files_and_other_programs(lab: Lab, shell: Shell) -> None:
    assert re.search(r"^ *2$", shell.line("task list -H | grep -c s0", r"^ *2$"), re.MULTILINE)
    shell.line("task list > list.txt")
    assert "align s01" in (lab.folder / "list.txt").read_text() and "\x1b" not in (lab.folder / "list.txt").read_text()
    shell.line("!echo ours: $((40 + 2)); test -t 1 && echo a terminal", r"^a terminal$")


def test_a_pager_has_the_terminal_and_gives_it_back(shell: Shell) -> None:
    shell.clear()
    shell.type("journal | less -X")
    shell.press("enter")
    shell.wait_for(r"\(END\)|^:$")
    shell.press("c-c")  # is for the pager alone, which may throw away what is typed right then

    def its_help(lines: list[str]) -> bool:
        shell.press("h")
        return "SUMMARY OF LESS COMMANDS" in "".join(lines)

    shell.wait_for(its_help)
    shell.press("q", "q")
    shell.ready()
    assert "align s00" in shell.line("task list", r"align s00")


def test_python_has_the_file_and_the_last_result(shell: Shell) -> None:
    assert "<Task 1 'align s00' pending>" in shell.line("> task(1)", "<Task 1")
    assert re.search("^'align s01'$", shell.line("> tasks(name='*1')[0].row().name"), re.MULTILINE)
    told = shell.line("> 1/0", "ZeroDivisionError")
    assert 'File "<line' in told and "session.py" not in told
    shell.clear()
    shell.type("> q.cou")
    shell.wait_for(r"^ +counts")
    shell.press("tab")
    shell.type("()")
    shell.press("enter")
    shell.wait_for(r"PENDING.*2")


def test_a_python_prompt_lasts_until_ctrl_d(shell: Shell) -> None:
    shell.type("py")
    shell.press("enter")
    shell.wait_for(r"^>>> $|^>>>$")
    shell.type("x = 20")
    shell.press("enter")
    shell.type("def f():")
    shell.press("enter")
    shell.type("return x + 22")
    shell.press("enter", "enter")
    shell.type("f()")
    shell.press("enter")
    shell.wait_for(r"^42$")
    shell.type("print('beg' + 'un'); exec('while True: pass')")
    shell.press("enter")
    shell.wait_for(r"^begun$")
    shell.press("c-c")
    shell.wait_for("KeyboardInterrupt")
    shell.wait_for(lambda lines: shell.is_raw and [line for line in lines[:-1] if line][-1] == ">>>")
    shell.type("1 +")
    shell.wait_for(r">>> 1 \+$")
    shell.press("c-c")
    shell.wait_for(lambda lines: [line for line in lines if line.startswith(">>>")][-1].strip() == ">>>")
    shell.press("c-d")
    shell.ready()
    assert "20" in shell.line("> x", "^20$")


def test_ctrl_c_clears_the_line_in_every_state(shell: Shell) -> None:
    shell.type("task list 'open")
    shell.press("enter")
    shell.wait_for(r"^ *… ?$")
    shell.press("c-c")
    shell.ready()
    shell.type("task ")
    shell.wait_for(r"^ +relaunch")
    shell.press("tab", "c-c")
    shell.ready()
    shell.clear()
    shell.press("c-r")
    shell.type("sta")
    shell.press("c-c")
    shell.ready()


def test_keys_that_come_at_once_leave_no_traces(shell: Shell) -> None:
    shell.type("x")
    shell.press("c-c", "c-l", "c-c", "c-l")
    shell.type("y")
    shell.wait_for(r"^lab\.scitq ▸ y$")
    assert not any("^[" in line for line in shell.lines()), shell.text()
    assert b"^[[" not in shell.written


def test_ctrl_c_ends_a_command_and_nothing_else(lab: Lab, shell: Shell) -> None:
    shell.type("journal -f")
    shell.press("enter")
    shell.wait_for(r"align s01' submitted")
    shell.wait_until(lambda: not shell.is_raw)
    shell.press("c-c")
    shell.ready()
    shell.clear()
    # Said by the program that waits: dash may lose a Ctrl-C on its way from one command to the next.
    shell.type("!echo begun > said; tail -f said")
    shell.press("enter")
    shell.wait_for(r"^begun$")
    shell.press("c-c")
    shell.ready()
    assert shell.pid and "2 pending" in shell.line("status", "2 pending")


def test_it_is_stopped_and_goes_on(lab: Lab) -> None:
    with Terminal(["bash", "--norc", "-i"], folder=lab.folder, environ={**lab.environ, "PS1": "$ "}) as terminal:
        terminal.wait_for(r"^\$ ?$")
        terminal.type(" ".join(PROGRAM) + "\r")
        terminal.wait_for(r"▸ *$")
        terminal.wait_until(lambda: terminal.is_raw)
        terminal.type("task li")
        terminal.press("c-z")
        terminal.wait_for(r"Stopped")
        terminal.type("fg\r")
        terminal.wait_for(r"▸ task li")
        terminal.wait_until(lambda: terminal.is_raw)
        terminal.press("c-c")
        terminal.wait_for(r"▸ *$")  # between two lines the terminal is not ours: an end of file would be nobody's
        terminal.wait_until(lambda: terminal.is_raw)
        terminal.press("c-d")
        terminal.wait_for(r"\$ ?$")
        terminal.type("exit\r")
        assert terminal.wait_end() == 0


def test_a_resize_is_followed(shell: Shell) -> None:
    shell.type("task list")
    shell.resize(50, 12)
    shell.wait_for(lambda lines: "nobody drives" in lines[-1] and len(lines) == 12)
    shell.resize(20, 10)
    shell.wait_for(lambda lines: lines[-1].strip() and len(lines[-1]) <= 20)
    shell.resize(80, 24)
    shell.wait_for(r"2 queued")
    shell.press("c-c")
    shell.ready()


def test_ctrl_d_leaves_at_once_when_nothing_is_driven_here(shell: Shell) -> None:
    """The last one that uses the shell of this module."""
    shell.type("zzz")
    shell.press("left", "c-d")  # on a line that holds something it deletes
    shell.wait_for(r"▸ zz$")
    shell.press("c-u", "c-d")
    assert shell.wait_end() == 0
    assert termios.tcgetattr(shell._theirs) == shell.modes


# --- with work ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    yield lab
    lab.clean_up()


def has_driver(path: Path) -> bool:
    with Engine(path, drive=False) as engine:
        return engine.driver() is not None


def counts(path: Path) -> dict[TaskState, int]:
    with Engine(path, drive=False) as engine:
        return engine.counts()


def test_work_goes_on_and_shows_while_one_types_and_leaving_asks(busy: Lab) -> None:
    """Live toolbar during load, Ctrl-C, the question with each of its answers."""
    path = file_of(busy)
    with Shell(busy, columns=120) as shell:
        shell.ready()
        shell.line("worker list -H; launch -n gate --shell 'while [ ! -e gate ]; do sleep 0.1; done'")
        shell.wait_for(r"● driver here +▲ 1 worker +1 running · 0 queued")
        shell.line("> _ = q.submit_many(['true'] * 400, batch='load')")
        shell.type("task sho")
        shell.wait_for(r"▸ task sho")
        shell.wait_for(r"▸ task sho(.|\n)*400 done")  # the line is as it was typed, all the while
        shell.press("c-c")
        shell.ready()

        shell.press("c-d")
        shell.wait_for(r"\[s\]top")
        shell.wait_until(lambda: not shell.is_raw)
        shell.press("c-c")
        shell.ready()
        shell.clear()
        shell.type("exit")
        shell.wait_for(r"▸ exit")
        shell.press("enter")
        shell.wait_for(r"\[d/s/c\] *$")
        shell.wait_until(lambda: not shell.is_raw)
        shell.type("c\r")
        shell.ready()
        shell.clear()
        shell.press("c-d")
        shell.wait_for(r"\[d/s/c\] *$")
        shell.wait_until(lambda: not shell.is_raw)
        shell.press("c-d")
        shell.ready()
        assert counts(path)[TaskState.RUNNING] == 1

        shell.clear()
        shell.press("c-d")
        shell.wait_for(r"\[d/s/c\] *$")
        shell.type("d\r")
        assert shell.wait_end() == 0
        assert termios.tcgetattr(shell._theirs) == shell.modes
    assert has_driver(path)

    with Shell(busy, columns=120) as shell:
        shell.wait_for(r"driver: .*pid")
        shell.ready()
        shell.press("c-d")  # another drives: no question
        assert shell.wait_end() == 0
    (busy.folder / "gate").touch()
    with Engine(path, drive=False) as engine:
        engine.wait_all(60)


def test_stop_leaves_the_rest_for_later(busy: Lab) -> None:
    path = file_of(busy)
    with Shell(busy, columns=120) as shell:
        shell.ready()
        shell.line("launch -n gate --shell 'while [ ! -e gate ]; do sleep 0.1; done'; launch -R gate -- true")
        shell.wait_for(r"1 running · 1 queued")
        shell.press("c-d")
        shell.wait_for(r"\[d/s/c\] *$")
        shell.type("s\r")
        assert shell.wait_end() == 0
        assert "1 task stays queued, 1 goes on" in shell.text()
    assert not has_driver(path) and counts(path)[TaskState.WAITING] == 1
    (busy.folder / "gate").touch()
    busy.scitq("up", "--until-done")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGKILL], ids=["hup", "term", "kill"])
def test_a_killed_shell_loses_nothing(busy: Lab, number: signal.Signals) -> None:
    path = file_of(busy)
    with Shell(busy, columns=120) as shell:
        shell.ready()
        shell.line(
            "launch -n gate --shell 'while [ ! -e gate ]; do sleep 0.1; done; echo done'; launch -R gate -- true"
        )
        shell.wait_for(r"1 running · 1 queued")
        shell.type("task li")
        shell.wait_for(r"▸ task li")
        shell.signal(number)
        assert shell.wait_end() == -number
        if number != signal.SIGKILL:
            assert termios.tcgetattr(shell._theirs) == shell.modes
    (busy.folder / "gate").touch()
    busy.scitq("up", "--until-done")
    assert counts(path) == {TaskState.SUCCEEDED: 2}


def test_failures_come_above_the_line_once(busy: Lab) -> None:
    file_of(busy)
    with Shell(busy, columns=120) as shell:
        shell.ready()
        shell.line("launch -n gate --shell 'while [ ! -e gate ]; do sleep 0.1; done; exit 3'")
        shell.wait_for(r"1 running")
        shell.type("task show ga")
        shell.wait_for(r"▸ task show ga")
        (busy.folder / "gate").touch()
        shell.wait_for(r"Notice: .*gate.*exit 3(.|\n)*▸ task show ga")
        shell.wait_for(r"1 failed.*1 notice")
        shell.press("c-c")
        shell.ready()
        assert shell.written.count(b"Notice: ") == 1
        told = shell.line("notices", "gate")
        shell.wait_for(lambda lines: "notice" not in lines[-1])
        assert "exit 3" in told


def test_ctrl_c_at_run_is_as_run_says(busy: Lab) -> None:
    path = file_of(busy)
    with Shell(busy, columns=120) as shell:
        shell.ready()
        shell.type("run -n gate --shell 'echo begun; while [ ! -e gate ]; do sleep 0.1; done'")
        shell.press("enter")
        shell.wait_for(r"^begun")
        shell.press("c-c")
        shell.wait_for(r"goes on")
        shell.ready()
        assert counts(path)[TaskState.RUNNING] == 1
        (busy.folder / "gate").touch()
        shell.wait_for(r"0 running · 0 queued · 1 done")
        shell.press("c-d")
        assert shell.wait_end() == 0


# --- terminals of all kinds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("term", "environ", "columns"),
    [
        ("vt100", {}, 80),
        ("xterm-256color", {"NO_COLOR": "1"}, 80),
        ("xterm-256color", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, 80),
        ("xterm-256color", {}, 20),
        ("dumb", {}, 80),
    ],
    ids=["vt100", "no-colour", "c-locale", "narrow", "dumb"],
)
def test_it_works_on_every_terminal(busy: Lab, term: str, environ: dict[str, str], columns: int) -> None:
    path = file_of(busy, "true", name="lab.scitq")
    with Shell(busy, term=term, environ=environ, columns=columns) as shell:
        shell.wait_for(r"lab\.sc.* ?[▸>] ?$")
        shell.wait_until(lambda: shell.is_raw)
        shell.type("task pause 1\r")
        shell.wait_until(lambda: counts(path) == {TaskState.PAUSED: 1})
        shell.wait_for(lambda lines: "is paused" in "".join(lines))
        if term != "dumb":
            shell.type("tusk")
            shell.wait_for(r"tusk$")
        is_plain = term in ("vt100", "dumb") or "NO_COLOR" in environ
        colours = re.findall(rb"\x1b\[[\d;]*(?:3[1-7]|38;)[\d;]*m", shell.written)
        assert bool(colours) is not is_plain
        signs = [sign for sign in "▸●▲…" if sign.encode() in shell.written]
        assert environ.get("LC_ALL") != "C" or not signs
        shell.press("c-c")
        shell.wait_until(lambda: shell.is_raw)
        shell.press("c-d")
        assert shell.wait_end() == 0


def test_a_million_tasks_are_no_hindrance(busy: Lab) -> None:
    """What each key costs is measured by benchmarks/; here: nothing stands still with many tasks of one name."""
    path = busy.folder / "lab.scitq"
    with Engine(path, drive=False) as engine:
        engine.submit_many(
            ({"command": "true", "name": f"s{number % 1000:03}"} for number in range(30_000)), batch="many"
        )
    with Shell(busy, columns=120) as shell:
        shell.ready()
        shell.type("task show s12")
        shell.wait_for(r"s120 +pending +29121")
        shell.press("c-u")
        shell.type("task show 2912")
        shell.wait_for(r"29121 +pending  s120")
        shell.press("c-c")
        shell.ready()
        shell.wait_for(r"30,000 queued")
        shell.press("c-d")
        assert shell.wait_end() == 0
