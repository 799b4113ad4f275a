"""A command line that is run in a process which has the file open already."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scitq.engine import Engine
from scitq.shell import cli
from scitq.shell.show import Screen
from scitq.shell.surroundings import Surroundings


class Kept(Screen):
    """Keeps what is printed on it."""

    def __init__(self, lines: list[str], *, as_json: bool) -> None:
        super().__init__(as_json=as_json)
        self._lines = lines

    def out(self, line: str, fd: int = 1) -> None:
        self._lines.append(line)

    def say(self, sentence: str, *, kind: str = "note") -> None:
        self._lines.append(f"{kind}: {sentence}")


class Session:
    """An engine that is open, and lines run with it."""

    def __init__(self, folder: Path) -> None:
        self.lines: list[str] = []
        self.engine = Engine(folder / "lab.scitq", drive=False)
        self.surroundings = Surroundings(self.engine, lambda as_json: Kept(self.lines, as_json=as_json))
        self._program = cli.program()

    def run(self, *words: str) -> tuple[int, list[str]]:
        self.lines.clear()
        code = cli.run(self._program, list(words), "scitq", surroundings=self.surroundings)
        return code, list(self.lines)


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SCITQ_FILE", raising=False)
    session = Session(tmp_path)
    with session.engine:
        yield session


def test_a_command_uses_the_engine_that_is_open_and_leaves_it_open(session: Session) -> None:
    session.engine.submit("true", name="one")

    code, lines = session.run("task", "list", "--no-header")

    assert code == 0 and "one" in lines[0]
    assert session.engine.counts() and session.run("launch", "--", "true")[0] == 0
    assert session.engine.task(2).row().spec.command == ["true"]


def test_a_command_about_another_file_opens_that_one(session: Session, tmp_path: Path) -> None:
    with Engine(tmp_path / "other.scitq", drive=False) as other:
        other.submit("true", name="elsewhere")

    _, lines = session.run("-f", "other.scitq", "task", "list")

    assert any("elsewhere" in line for line in lines) and session.surroundings.engine is session.engine
    assert not any("elsewhere" in line for line in session.run("task", "list", "-f", str(session.engine.path))[1])


def test_errors_help_and_mistakes_come_on_the_screen_of_the_surroundings(session: Session) -> None:
    code, lines = session.run("task", "show", "7")
    assert code == 1 and lines[0].startswith("error: ") and "7" in lines[0]
    code, lines = session.run("tusk", "list")
    assert code == 2 and any("task" in line for line in lines)
    code, lines = session.run("task", "list", "--nothing")
    assert code == 2 and any("--nothing" in line for line in lines)


def test_the_file_of_the_first_command_is_adopted_where_none_is_open(session: Session, tmp_path: Path) -> None:
    opened: list[Engine] = []

    def adopt(path: Path) -> Engine:
        session.surroundings.engine = Engine(path, drive=False)
        opened.append(session.surroundings.engine)
        return session.surroundings.engine

    session.surroundings.engine, session.surroundings.adopt = None, adopt
    code, lines = session.run("-f", "new.scitq", "task", "list")
    assert code == 1 and "there is no such state file" in lines[0] and not opened

    assert session.run("-f", "new.scitq", "launch", "--", "true")[0] == 0
    assert session.run("-f", "new.scitq", "task", "list")[0] == 0
    assert len(opened) == 1 and opened[0].path.name == "new.scitq" and not opened[0]._closed
    opened[0].close()
