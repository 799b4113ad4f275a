"""The shell without a terminal: lines from a pipe, or one that was given."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from scitq.engine import Engine
from scitq.shell.interactive.history import History, is_kept
from scitq.shell.interactive.session import Left, Session
from scitq.shell.interactive.toolbar import look
from tests.shell.conftest import PROGRAM, Lab


def fed(lab: Lab, text: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, "shell", *words],
        input=text,
        cwd=lab.folder,
        env=lab.environ,
        capture_output=True,
        text=True,
        timeout=90,
    )


def test_lines_are_run_up_to_the_first_that_fails(lab: Lab) -> None:
    ended = fed(
        lab,
        "# a script\n"
        "launch --cpus 9000 -n one -- true; launch --cpus 9000 -n 'the two' -- \\\n  true\n"
        "task list --no-header | grep -c two\n"
        "task list > 'a list'\n"
        "sql select count(*) as n from tasks\n"
        "> for x in _:\n"
        "    print(x)\n\n"
        "py q.task('one').id + 41\n"
        "!echo from $0 >&2; exit 3\n"
        "status\n",
    )

    assert ended.returncode == 3, ended
    assert ended.stdout.split() == ["1", "2", "1", "n", "2", "{'n':", "2}", "42"]
    assert "Stopped at line 11" in ended.stderr and "stay queued" in ended.stderr
    assert "the two" in (lab.folder / "a list").read_text()


def test_a_line_is_given_and_failures_may_be_passed_over(lab: Lab) -> None:
    ended = fed(lab, "launch -- true; tusk\n> 1/0\ntask show 7\n> _\n", "--keep-going")
    told = ended.stderr

    assert "there is no command 'tusk'" in told and "Usage" not in told
    assert 'File "<line 1>", line 1' in told and "ZeroDivisionError" in told and "session.py" not in told
    assert ended.returncode == 2 and "'command': ['true']" in ended.stdout
    assert lab.scitq("shell", "-c", "status 'x", code=1).stderr.count(b"\n") == 1
    lab.scitq("shell", "-c", "shell", code=1)
    lab.scitq("shell", "-c", "exit; tusk")
    lab.scitq("shell", "-c", "> raise SystemExit(5)", code=5)
    assert lab.scitq("shell", "-c", "py", code=1).stderr == b"a line of Python is expected after py.\n"


def test_alone_without_a_terminal_it_is_the_help_as_ever(lab: Lab) -> None:
    assert lab.out().startswith("Usage: scitq")


class Lines:
    """A session in this process, with what was written caught at the file descriptors."""

    def __init__(self, session: Session, capture: Any) -> None:
        self.session, self._capture = session, capture

    def __call__(self, text: str) -> tuple[int, str, str]:
        code = self.session.run(text)
        out, err = self._capture.readouterr()
        return code, out, err


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SCITQ_FILE", raising=False)
    session = Session(None, is_interactive=False)
    session._adopt = lambda path: _undriven(session, path)  # type: ignore[method-assign]
    session.surroundings.adopt = session._adopt
    yield Lines(session, capfd)
    session.close()


def _undriven(session: Session, path: Path) -> Engine:
    engine = session.surroundings.engine = Engine(path, drive=False)
    session.path = engine.path
    return engine


def test_the_first_task_makes_the_file_and_all_commands_share_one_engine(run: Any) -> None:
    assert run("status")[0] == 1
    assert run("launch -n a -- true")[0] == 0
    engine = run.session.engine

    assert run("task list -H; scitq task list -H")[1].count("pending") == 2
    assert run.session.engine is engine and not engine._closed


def test_a_mistake_of_ours_is_one_sentence_and_the_rest_is_in_a_file(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run("launch -- true")
    monkeypatch.setattr("scitq.shell.looking.status", lambda *_: 1 / 0)

    code, _, err = run("status")
    assert code == 70 and err.count("\n") == 1 and "ZeroDivisionError" in err
    log = run.session.engine.side / "shell-errors.log"
    assert "Traceback" in log.read_text() and log.stat().st_mode & 0o777 == 0o600
    assert run("task list")[0] == 0


def test_another_file_is_used_until_told_otherwise(run: Any) -> None:
    run("launch -n a -- true")
    first = run.session.engine

    assert run("use new.scitq; launch -n b -- true; task list -H")[1].split()[1:4] == ["1", "b", "pending"]
    assert first._closed and run.session.engine.path.name == "new.scitq"
    assert run("use .")[2].startswith(".: a folder is no state file")
    assert run("use a/b.scitq")[0] == 1 and run("use")[0] == 1
    Path("text.scitq").write_text("this is no state file, though it is called like one" * 100)
    assert run("use text.scitq")[0] == 1
    assert run.session.engine.path.name == "new.scitq" and run("status")[0] == 0


def test_an_engine_that_a_command_closed_is_opened_anew(run: Any) -> None:
    run("launch -- true")
    first = run.session.engine

    assert run("down")[0] == 0 and first._closed
    assert run("task list")[0] == 0 and run.session.engine is not first


def test_pipes_and_files_take_what_commands_print_and_no_more(run: Any) -> None:
    run("launch -n a -- true")

    assert run("task list -H | tr a-z A-Z")[1].split()[:3] == ["1", "A", "PENDING"]
    assert run("status | exit 7")[0] == 7
    assert run("journal | head -1")[0] == 0
    assert run("status |")[0] == 1
    assert run("status > f; status >> f; !cat f")[1].count("pending") == 2
    assert Path("f").stat().st_mode & 0o777 == 0o666 & ~_umask()
    assert run("status > no/such")[2] == "no/such: No such file or directory.\n"
    assert run("status >")[0] == 1
    assert run("status")[1].startswith("scitq.scitq")


def _umask() -> int:
    before = os.umask(0)
    os.umask(before)
    return before


def test_python_sees_the_last_result_and_what_its_lines_say(run: Any) -> None:
    run("launch -n a -- true")

    assert run("> task(1)\n> _.id")[1] == "<Task 1 'a' pending>\n1\n"
    assert run("task list --json\n> [row['name'] for row in _]")[1].splitlines()[-1] == "['a']"
    assert run("> tasks(status='pending')[0].id; x = 5\n> x\n> q.path.name")[1] == "1\n5\n'scitq.scitq'\n"
    assert run("> def f():\n    return 1 / 0\n\n> f()")[2].count("<line ") == 2
    assert run("> 1 +* 2")[0] == 1
    assert run("> wf('none')")[2].splitlines()[-1].startswith("scitq.errors.UnknownWorkflow")


def test_leaving_a_script_asks_nothing(run: Any) -> None:
    run("launch -- true")
    with pytest.raises(Left):
        run("exit")
    assert run("exit now")[0] == 1
    with pytest.raises(Left):
        run("task list; quit; status")


def test_help_lists_what_there_is_and_tells_of_one(run: Any) -> None:
    code, out, _ = run("help")
    assert code == 0 and "use FILE" in out and "\n  task " in out and "host-side" not in out
    assert "--failed" in run("help task list")[1]


def test_secrets_and_lines_that_begin_with_a_blank_are_not_kept(tmp_path: Path) -> None:
    for line in ("launch -e TOKEN=abc -- x", "launch -e API_KEY=1", " status", "", "> password = 'x'"):
        assert not is_kept(line)
    assert is_kept("task list -n token") and is_kept("sql select key from x")

    first, second = History(tmp_path), History(tmp_path)
    for history, line in (
        (first, "status"),
        (second, "task\nlist"),
        (first, " hidden"),
        (first, "launch -e TOKEN=abc -- x"),
    ):
        history.append_string(line)
    file = tmp_path / "shell-history"

    assert list(History(tmp_path).load_history_strings()) == ["task\nlist", "status"]
    assert file.stat().st_mode & 0o777 == 0o600 and "abc" not in file.read_text()
    assert [*first.get_strings()][-1] == "launch -e TOKEN=abc -- x"  # to be had back here, not later


def test_a_history_does_not_grow_for_ever(tmp_path: Path) -> None:
    (tmp_path / "shell-history").write_text("\n# x\n+an old line\n" * 80_000)
    History(tmp_path).append_string("the newest")

    found = list(History(tmp_path).load_history_strings())
    assert (tmp_path / "shell-history").stat().st_size < 1 << 20
    assert found[0] == "the newest" and set(found[1:]) == {"an old line"}


def test_several_files_to_choose_from_are_named(lab: Lab) -> None:
    for name in ("a.scitq", "b.scitq"):
        with Engine(lab.folder / name, drive=False):
            pass
    assert b"a.scitq, b.scitq" in lab.scitq("shell", "-c", "status", code=1).stderr
    assert lab.scitq("-f", "b.scitq", "shell", "-c", "status").stdout.startswith(b"b.scitq")
    assert lab.scitq("shell", "-f", "b.scitq", "-c", "status").stdout.startswith(b"b.scitq")


def test_the_line_below_counts_each_task_once(tmp_path: Path) -> None:
    with Engine(tmp_path / "lab.scitq", drive=False) as q:
        first = q.submit("true")
        q.submit("true", requires=first)
        first.cancel()
        line = "".join(text for _, text in look(q).fragments(120, plain=True))

    assert "0 running, 0 queued, 1 done" in line and "1 blocked" in line and "failed" not in line
