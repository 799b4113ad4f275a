"""A file moves to a host and back, and whoever moves it dies on the way: never are there two that may be driven, never none.

The host is a folder; each step there is done by the very function that does it, without a wire between.
"""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from scitq import belongings, hostside, promotion, steps
from scitq._version import VERSION
from scitq.engine import Engine
from scitq.errors import MoveFailed, NotAStateFile, StateFileElsewhere
from scitq.remote.agent import machine
from scitq.remote.login import ANSWER, STREAM
from scitq.store import manifests, moved, workers
from scitq.store.connection import Store
from scitq.store.schema import SCHEMA
from scitq.task import ExecutionId


class Died(BaseException):
    """As if killed: nobody catches it."""


class Near:
    """A login that dies before or after one of its calls."""

    home = Path()
    calls = 0
    dies_at: tuple[int | str, str] | None = None
    asked: tuple[str, ...] = ()
    driven: tuple[str, ...] = ()

    def __init__(self, host: str) -> None:
        self.host = host

    def __enter__(self) -> Near:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @contextlib.contextmanager
    def _call(self, name: str) -> Iterator[None]:
        number = Near.calls
        Near.calls, Near.asked = number + 1, (*Near.asked, name)
        if Near.dies_at in ((number, "before"), (name, "before")):
            raise Died
        yield
        if Near.dies_at in ((number, "after"), (name, "after")):
            raise Died

    def run(self, command: str, send: bytes | IO[bytes] = b"", *, is_checked: bool = True) -> tuple[int, bytes, str]:
        words = shlex.split(command)
        if "host-side" in words:
            return 0, self._step(words, send), ""
        if words[0] == "sh":
            with self._call("probe"):
                facts = {"python": sys.executable, "home": str(Near.home), "scitq": VERSION, "is_new": True}
                return 0, ANSWER + json.dumps(facts).encode(), ""
        if words[0] == "ssh":
            return 255, b"", f"{words[-3]}: Permission denied (publickey)."
        with self._call("up"):
            path = words[words.index("--file") + 1]
            with Store.open(path, SCHEMA, create=False) as store:
                assert moved.found(store.reader()) is None
            Near.driven = (*Near.driven, path)
        return 0, b"", ""

    def _step(self, words: list[str], send: bytes | IO[bytes]) -> bytes:
        verb, path, *more = words[words.index("host-side") + 1 :]
        source, sink = io.BytesIO(send) if isinstance(send, bytes) else send, io.BytesIO()
        with self._call(verb):
            hostside.step(verb, Path(path), more, source, sink)
        return sink.getvalue()

    def answers(self, command: str, send: bytes | IO[bytes] = b"") -> list[Any]:
        told = self._step(shlex.split(command), send)
        return [json.loads(line[len(ANSWER) :]) for line in told.splitlines() if line.startswith(ANSWER)]

    def write(self, command: str, give: Callable[[IO[bytes]], None]) -> None:
        sink = io.BytesIO()
        give(sink)
        self.answers(command, sink.getvalue())

    @contextlib.contextmanager
    def reading(self, command: str, send: bytes) -> Iterator[IO[bytes]]:
        yield io.BytesIO(self._step(shlex.split(command), send).partition(STREAM)[2])


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of the host's user; where a file `lab.scitq` goes there."""
    Near.home = tmp_path / "nuc"
    Near.home.mkdir()
    Near.calls, Near.dies_at, Near.asked, Near.driven = 0, None, (), ()
    monkeypatch.setattr(promotion, "Login", Near)
    return Near.home / "scitq/lab/lab.scitq"


def promote(path: Path, dies_at: tuple[int | str, str] | None = None, **how: Any) -> None:
    Near.calls, Near.dies_at, Near.asked = 0, dies_at, ()
    with Store.open(path, SCHEMA) as store:
        promotion.promote(store, "nuc", say=lambda _: None, **how)


def demote(path: Path, dies_at: tuple[int | str, str] | None = None) -> None:
    Near.calls, Near.dies_at, Near.asked = 0, dies_at, ()
    with Store.open(path, SCHEMA) as store:
        promotion.demote(store, say=lambda _: None)


def is_open(path: Path) -> bool:
    """Whether a file may be written, and so be driven."""
    if not path.exists():
        return False
    with Engine(path, drive=False) as engine:
        try:
            engine._write(lambda _: None)
        except StateFileElsewhere:
            return False
    return True


def add(path: Path, name: str) -> None:
    """A task, and something that one has left beside the file."""
    with Engine(path, drive=False) as engine:
        engine.submit("true", name=name)
        place = engine.side / "outputs" / name
        place.mkdir(parents=True)
        (place / "made").write_text(f"by {name}")


def has(path: Path) -> set[str]:
    with Engine(path, drive=False) as engine:
        names = {str(row.name) for row in engine.rows()}
        assert engine.check() == []
        for name in names:
            assert (engine.side / "outputs" / name / "made").read_text() == f"by {name}"
    return names


@pytest.mark.sampled
def test_whoever_moves_a_file_may_die_at_any_step_and_the_next_call_goes_on(state_file: Path, host: Path) -> None:
    names = {"first"}
    add(state_file, "first")
    promote(state_file)
    steps = len(Near.asked)
    assert Near.asked[:2] == ("probe", "look") and Near.asked[-2:] == ("open", "up")
    demote(state_file)
    back = len(Near.asked)
    for number in range(steps + 1):
        for when in ("before", "after"):
            with contextlib.suppress(Died):
                promote(state_file, (number, when))
            assert not (is_open(state_file) and is_open(host)), (number, when, Near.asked)
            promote(state_file)
            assert is_open(host) and not is_open(state_file)
            assert Near.driven[-1] == str(host)
            names.add(name := f"there-{number}-{when}")
            add(host, name)
            assert has(host) == names
            with contextlib.suppress(Died):
                demote(state_file, (number % (back + 1), when))
            assert not (is_open(state_file) and is_open(host)), (number, when, Near.asked)
            demote(state_file)
            assert is_open(state_file) and not is_open(host)
            assert has(state_file) == names
            names.add(name := f"here-{number}-{when}")
            add(state_file, name)


def moves(path: Path) -> list[tuple[str, str, list[str]]]:
    """The jobs of a file that moved it, oldest first: kind, state, and what their log says was done."""
    with Engine(path, drive=False) as engine:
        found = [job for job in reversed(engine.jobs()) if job.kind in moved.MOVES]
    return [(job.kind, job.state.word, [line.rpartition(" (")[0] for line in job.log.splitlines()]) for job in found]


def test_the_steps_of_a_move_are_a_job_of_the_file(state_file: Path, host: Path) -> None:
    add(state_file, "first")
    with pytest.raises(Died):
        promote(state_file, ("take", "before"))
    assert [(kind, state) for kind, state, _ in moves(state_file)] == [("promote", "running")]
    promote(state_file)
    [broken, whole] = moves(state_file)
    assert broken[:2] == ("promote", "failed") and "nobody drives it here any more" in broken[2]
    assert whole[:2] == ("promote", "succeeded") and whole[2][-1] == "it is driven there"
    assert [(kind, state) for kind, state, _ in moves(host)] == [("promote", "failed"), ("promote", "succeeded")]
    demote(state_file)
    assert moves(state_file)[-1][:2] == ("demote", "succeeded")
    assert "the file itself is here, and may be driven" in moves(state_file)[-1][2]


def test_a_move_whose_command_was_killed_does_not_stay_open_for_ever(state_file: Path, host: Path) -> None:
    add(state_file, "first")
    with pytest.raises(Died):
        promote(state_file, ("look", "before"))  # before anything is sealed: it goes on to be driven here
    with Engine(state_file, drive=False) as engine:
        gone = subprocess.Popen(["true"])
        gone.wait()
        engine._write(lambda db: db.execute("update job set data = json_set(data, '$.pid', ?)", (gone.pid,)))
        engine._write(lambda db: steps.forsake(db, is_sure=False))
    assert [state for _, state, _ in moves(state_file)] == ["failed"]


def test_what_was_begun_is_undone_until_the_file_says_that_it_is_away(state_file: Path, host: Path) -> None:
    add(state_file, "first")
    with pytest.raises(Died):
        promote(state_file, ("take", "after"))
    with Store.open(state_file, SCHEMA) as store, pytest.raises(StateFileElsewhere, match="is being moved to nuc"):
        promotion.promote(store, "other", say=lambda _: None)
    demote(state_file)
    assert is_open(state_file) and not is_open(host)
    add(state_file, "second")
    promote(state_file)
    assert has(host) == {"first", "second"}


def test_a_host_that_is_lost_is_given_up_on_ones_word(state_file: Path, host: Path) -> None:
    add(state_file, "first")
    promote(state_file)
    add(host, "there")
    host.unlink()
    with pytest.raises(NotAStateFile):
        demote(state_file)
    with Store.open(state_file, SCHEMA) as store:
        assert "what was done on nuc since is not in it" in promotion.abandon(store)
    assert is_open(state_file) and has(state_file) == {"first"}


def test_a_copy_there_that_may_be_written_is_not_replaced(state_file: Path, host: Path) -> None:
    add(state_file, "first")
    host.parent.mkdir(parents=True)
    with Engine(state_file, drive=False) as engine:
        engine.backup(host)
    with pytest.raises(MoveFailed, match="may be written, and would be lost"):
        promote(state_file)
    demote(state_file)  # undoes it
    assert is_open(state_file)


def test_what_tasks_left_beside_the_file_is_found_at_its_new_place(state_file: Path, host: Path) -> None:
    add(state_file, "first")

    def address(path: Path) -> str:
        with Engine(path, drive=False) as engine:
            found = manifests.of_execution(engine._reader(), ExecutionId(1))
            assert found is not None
            return found.address

    with Engine(state_file, drive=False) as engine:
        old = engine.side
        engine._write(
            lambda db: db.execute("insert into execution(id, task, assigned, attempt, slots) values (1, 1, 1, 1, 1)")
        )
        engine._write(lambda db: manifests.put(db, ExecutionId(1), f"{old}/outputs/1", []))
    promote(state_file, is_forced=True)
    assert address(host) == f"{host}.d/outputs/1"
    demote(state_file)
    assert address(state_file) == f"{old}/outputs/1"


def test_workers_that_the_host_cannot_log_in_to_are_named(state_file: Path, host: Path) -> None:
    with Engine(state_file, drive=False) as engine:
        engine._write(lambda db: workers.add(db, 1, "atlas", "ssh", "me@atlas"))
        engine._write(lambda db: workers.ensure(db, 1, "local", "local", machine.cpus()))
    said: list[str] = []
    with Store.open(state_file, SCHEMA) as store:
        promotion.promote(store, "nuc", say=said.append)
    assert [line.partition(". Its tasks")[0] for line in said if not line.startswith("  ")] == [
        "nuc cannot log in to worker atlas (me@atlas): me@atlas: Permission denied (publickey)."
    ]
    with Engine(host, drive=False) as engine:  # as many as that machine has, once it has said so
        assert engine.worker("local").settings["slots_as_cpus"] is True


@pytest.mark.parametrize("name", ["../x", "/etc/x", "logs/../../x", "bell", "logs", "outputs/link/x"])
def test_nothing_of_what_comes_lies_beside_the_side_folder(tmp_path: Path, name: str) -> None:
    side = tmp_path / "lab.scitq.d"
    (side / "outputs").mkdir(parents=True)
    (side / "outputs/link").symlink_to(tmp_path)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    stream.seek(0)
    with pytest.raises(MoveFailed):
        belongings.unpack(side, stream)
    assert not (tmp_path / "x").exists()
