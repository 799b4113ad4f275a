"""What can be read of a damaged state file becomes a sound new one; the damaged one is left as it is."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

import scitq
from scitq.engine import Engine
from scitq.errors import BadInput, NotAStateFile, StateFileBusy, StateFileDamaged, StateFileNewer
from scitq.states import Outcome, TaskState
from scitq.store import keep, workers
from scitq.store.locks import FileLock
from scitq.store.salvage import Salvaged, salvage
from scitq.store.schema import SCHEMA
from tests.store.test_keep import OLD_MS, run

PAGE = 4096


@pytest.fixture(scope="module")
def sound_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,000 tasks: succeeded, failed, blocked, running, waiting and pending; with logs in rows and in files."""
    path = tmp_path_factory.mktemp("sound") / "lab.scitq"
    with scitq.open(path, drive=False) as engine:
        engine._write(lambda db: workers.ensure(db, OLD_MS, "local", "local", 2))
        first = engine.submit_many([["echo", f"{n} {'x' * 50}"] for n in range(1000)], batch="first")
        for n in range(0, 500, 5):
            run(engine, first[n].id, log=b"from a file" if n == 5 else None)
        run(engine, first[1].id, Outcome.FAILED)
        engine.submit_many([["echo", f"after {n}"] for n in range(500)], batch="second", requires=first[2])
        engine.submit("true", name="blocked", requires=first[1])
        engine.submit("true", name="freed", requires=first[0])
        engine.submit_many(["true"] * 498, batch="third")
        start(engine, first[3].id)
        assert engine.check() == []
    assert not Path(f"{path}-wal").exists()
    return path


def start(engine: Engine, task: int) -> None:
    from scitq.store import executions
    from scitq.task import Assignment, TaskId
    from scitq.worker import WorkerId

    def write(db: apsw.Connection) -> None:
        order = executions.begin(db, OLD_MS, [Assignment(TaskId(task), WorkerId(1))])[0]
        executions.started(db, order.execution, OLD_MS)

    engine._write(write)


@pytest.fixture
def damaged(sound_file: Path, state_file: Path) -> Path:
    """A copy that a test may damage."""
    shutil.copyfile(sound_file, state_file)
    shutil.copytree(f"{sound_file}.d", f"{state_file}.d")
    return state_file


def overwrite(path: Path, *pages: int) -> None:
    """Let pages of the file (from 1) hold nonsense."""
    data = bytearray(path.read_bytes())
    for page in pages:
        data[(page - 1) * PAGE : page * PAGE] = random.Random(page).randbytes(PAGE)
    path.write_bytes(data)


def pages_of(path: Path, *names: str) -> list[int]:
    """The pages of a table or index."""
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        listed = ",".join(f"'{name}'" for name in names)
        return [
            int(str(page))
            for (page,) in db.execute(f"select pageno from dbstat where name in ({listed}) order by pageno")
        ]
    finally:
        db.close(True)


def contents(path: Path) -> dict[str, str]:
    return {
        str(found.relative_to(path.parent)): hashlib.sha256(found.read_bytes()).hexdigest()
        for found in [path, *Path(f"{path}.d").rglob("*")]
        if found.is_file()
    }


def repair(path: Path) -> Salvaged:
    """Salvage to a new file; what must hold of any."""
    target = path.with_name("new.scitq")
    before = contents(path)
    result = salvage(path, target, SCHEMA)
    assert contents(path) == before
    assert result.target == target
    assert result.problems == [problem for problem in result.problems if problem.startswith("the log ")]
    with scitq.open(target, drive=False) as engine:
        assert engine.check() == result.problems
        new = engine.submit("true")
        new.cancel()
    assert sorted(found.name for found in path.parent.iterdir() if found.name.startswith(".")) == []
    return result


def counts(path: Path) -> dict[str, int]:
    with scitq.open(path.with_name("new.scitq"), drive=False) as engine:
        return {row["state"]: row["n"] for row in engine.sql("select state, count(*) as n from tasks group by 1")}


def test_a_sound_file_comes_over_whole(damaged: Path) -> None:
    with scitq.open(damaged, drive=False) as engine:
        before = {view: list(engine.sql(f"select * from {view}")) for view in ("tasks", "executions", "workers")}
        epoch = engine.sql("select epoch from lead")[0]["epoch"]

    result = repair(damaged)

    assert (result.source, result.gaps, result.repairs) == ("rows", {}, [])
    with scitq.open(result.target, drive=False) as engine:
        after = {view: list(engine.sql(f"select * from {view}")) for view in before}
        after["tasks"].pop()  # the one that `repair` submitted
        assert after == before
        assert engine.sql("select epoch from lead")[0]["epoch"] > epoch
        assert (result.target.parent / "new.scitq.d" / "logs" / "2.out").read_bytes() == b"from a file"


def test_what_is_only_in_the_wal_comes_over_too(damaged: Path, tmp_path: Path) -> None:
    engine = scitq.open(damaged, drive=False)
    engine.submit("true", name="in the WAL")
    aside = tmp_path / "aside"
    aside.mkdir()
    # As after a power cut. cp is another process: ours must not open and close what it has live.
    assert os.spawnlp(os.P_WAIT, "cp", "cp", "-r", *(f"{damaged}{end}" for end in ("", "-wal", ".d")), str(aside)) == 0
    engine.close()
    assert (aside / "lab.scitq-wal").stat().st_size

    repair(aside / "lab.scitq")

    with scitq.open(aside / "new.scitq", drive=False) as copy:
        assert copy.task("in the WAL").state is TaskState.PENDING


def test_damaged_indexes_cost_nothing(damaged: Path) -> None:
    overwrite(
        damaged, *pages_of(damaged, "task_name", "task_ready", "task_place", "requirement_child", "execution_task")
    )

    result = repair(damaged)

    assert result.rows["task"] == 2000
    assert result.repairs == []


def test_a_damaged_page_costs_its_own_rows_only(damaged: Path) -> None:
    leaf = pages_of(damaged, "task")[3]
    overwrite(damaged, leaf)

    result = repair(damaged)

    assert 1900 < result.rows["task"] < 2000
    assert result.gaps["task"] == 1


def test_a_task_that_lost_what_it_requires_waits_for_a_person(damaged: Path) -> None:
    """The page with the first tasks is gone: some had succeeded, some had not; nobody knows."""
    db = apsw.Connection(str(damaged))
    first = db.execute(
        "select pageno from dbstat where name = 'task' and pagetype = 'leaf' order by path limit 1"
    ).fetchall()
    db.close(True)
    overwrite(damaged, int(str(first[0][0])))

    result = repair(damaged)

    assert any("require a lost task are paused" in line for line in result.repairs)
    found = counts(damaged)
    assert found["paused"] >= 500
    with scitq.open(result.target, drive=False) as engine:
        assert "lost" in str(engine.sql("select reason from tasks where state = 'paused'")[0]["reason"])
        assert engine.sql("select count(*) as n from tasks where batch = 'second' and state = 'pending'") == [{"n": 0}]


def test_lost_requirements_do_not_set_anything_free(damaged: Path) -> None:
    overwrite(damaged, *pages_of(damaged, "requirement"))

    repair(damaged)

    with scitq.open(damaged.with_name("new.scitq"), drive=False) as engine:
        states = {
            row["state"] for row in engine.sql("select state from tasks where batch = 'second' or name = 'blocked'")
        }
    assert states == {"paused"}


def test_a_running_task_whose_execution_is_lost_is_queued_again(damaged: Path) -> None:
    overwrite(damaged, *pages_of(damaged, "execution"))

    result = repair(damaged)

    assert "1 tasks are queued again: the execution that ran them was lost" in result.repairs
    found = counts(damaged)
    assert found["succeeded"] == 100
    with scitq.open(result.target, drive=False) as engine:
        # Numbers that workers may know from the lost rows are not given out again.
        assert engine.sql("select seq from sqlite_sequence where name = 'execution'")[0]["seq"] > 10_000


def test_a_lost_batch_gets_a_name(damaged: Path) -> None:
    overwrite(damaged, *pages_of(damaged, "batch"))

    result = repair(damaged)

    assert result.rows["task"] == 2000
    with scitq.open(result.target, drive=False) as engine:
        assert "recovered 1" in engine.batches()


def test_a_file_that_was_cut_short_gives_what_is_left(damaged: Path) -> None:
    tasks = pages_of(damaged, "task")
    os.truncate(damaged, tasks[len(tasks) * 2 // 3] * PAGE)

    result = repair(damaged)

    assert 1000 < result.rows["task"] < 2000


@pytest.mark.parametrize("table", ["sqlite_schema", "task", "execution", "journal"])
def test_rows_are_found_without_the_way_to_them(damaged: Path, table: str) -> None:
    """What is destroyed is the root of a tree: SQLite reads nothing below it any more."""
    db = apsw.Connection(str(damaged))
    before = db.execute(
        "select (select count(*) from task), (select count(*) from execution), (select count(*) from log)"
    )
    tasks, executions, logs = before.fetchall()[0]
    root = db.execute("select rootpage from sqlite_schema where name = ?", (table,)).fetchall()
    db.close(True)
    overwrite(damaged, int(str(root[0][0])) if root else 1)

    result = repair(damaged)

    assert (result.source, result.rows["task"], result.rows["log"]) == ("rows", tasks, logs)
    assert result.rows["execution"] == executions


def test_deleted_rows_do_not_come_back_from_free_pages(damaged: Path) -> None:
    with scitq.open(damaged, drive=False) as engine:
        engine._write(
            lambda db: [db.execute("delete from requirement"), db.execute("delete from task where id > 1001")]
        )
        left = engine.sql("select count(*) as n from tasks")[0]["n"]
    db = apsw.Connection(str(damaged))
    assert db.pragma("freelist_count") > 5
    root = db.execute("select rootpage from sqlite_schema where name = 'task'").fetchall()
    db.close(True)
    overwrite(damaged, int(str(root[0][0])))

    assert repair(damaged).rows["task"] == left


def test_what_does_not_fit_on_a_page_is_read_whole(damaged: Path) -> None:
    command = "é" * 30_000
    with scitq.open(damaged, drive=False) as engine:
        id = engine.submit(["echo", command]).id
    overwrite(damaged, 1)

    result = repair(damaged)

    with scitq.open(result.target, drive=False) as engine:
        assert engine.task(id).row().spec.command == ["echo", command]


def test_with_no_task_to_be_read_the_newest_sound_backup_is_taken(damaged: Path) -> None:
    with scitq.open(damaged, drive=False) as engine:
        keep.daily_backup(engine._store, 1000.0)
        engine.submit("true")
        second = keep.daily_backup(engine._store, 2_000_000.0)
        third = keep.daily_backup(engine._store, 4_000_000.0)
    assert second is not None and third is not None
    overwrite(third, 1)
    os.utime(third, (4_000_000, 4_000_000))
    overwrite(damaged, *range(1, damaged.stat().st_size // PAGE + 1))

    result = repair(damaged)

    assert result.source == second.name
    assert sum(counts(damaged).values()) == 2002


@pytest.mark.parametrize(
    "ruin",
    [lambda path: overwrite(path, *range(1, 1 + path.stat().st_size // PAGE)), lambda path: path.write_bytes(b"")],
)
def test_with_nothing_to_read_and_no_backup_it_says_so(damaged: Path, ruin: Callable[[Path], None]) -> None:
    ruin(damaged)
    before = contents(damaged)

    with pytest.raises(StateFileDamaged, match="no sound backup"):
        salvage(damaged, damaged.with_name("new.scitq"), SCHEMA)

    assert contents(damaged) == before
    assert [found.name for found in damaged.parent.iterdir() if "new" in found.name] == []


@pytest.mark.parametrize("seed", range(25))
def test_whatever_is_damaged_the_new_file_is_sound(damaged: Path, seed: int) -> None:
    chance = random.Random(f"{os.environ.get('SCITQ_SEED', '1')} {seed}")
    count = damaged.stat().st_size // PAGE
    with damaged.open("r+b") as file:
        for _ in range(chance.choice([1, 3, 10])):
            page = chance.randrange(1, count)
            file.seek(page * PAGE + chance.choice([0, 0, chance.randrange(PAGE - 100)]))
            file.write(chance.choice([bytes(64), chance.randbytes(64), chance.randbytes(PAGE // 2)]))

    result = repair(damaged)

    assert result.rows["task"] > 500


def test_repair_refuses_what_is_in_use_or_there(damaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = damaged.with_name("new.scitq")
    with scitq.open(damaged, drive=False), pytest.raises(BadInput, match="open in this process"):
        salvage(damaged, new, SCHEMA)
    with pytest.raises(BadInput, match="exists already"):
        salvage(damaged, damaged, SCHEMA)
    with pytest.raises(NotAStateFile, match="no state file"):
        salvage(damaged.with_name("none"), new, SCHEMA)
    monkeypatch.setattr("scitq.store.salvage._PATIENCE_S", 0.05)
    lock = FileLock(Path(f"{damaged}.d") / "write.lock")
    lock.acquire()
    with pytest.raises(StateFileBusy, match="another process"):
        salvage(damaged, new, SCHEMA)
    lock.close()
    db = apsw.Connection(str(damaged))
    db.execute("pragma user_version = 999")
    db.close(True)
    with pytest.raises(StateFileNewer):
        salvage(damaged, new, SCHEMA)
    assert not new.exists()


def test_a_strangers_file_is_no_state_file(tmp_path: Path) -> None:
    db = apsw.Connection(str(tmp_path / "other.db"))
    db.execute("create table a(b)")
    db.close(True)

    with pytest.raises((NotAStateFile, StateFileDamaged)):
        salvage(tmp_path / "other.db", tmp_path / "new.scitq", SCHEMA)


def test_what_proves_the_driver_to_agents_survives(damaged: Path, tmp_path: Path) -> None:
    def marks(path: Path) -> list[tuple[str, str]]:
        with scitq.open(path, drive=False) as engine:
            return [(k, v) for k, v in engine._reader().execute("select k, v from meta where k in ('id', 'key')")]

    before = marks(damaged)
    overwrite(damaged, *pages_of(damaged, "execution_task"))
    salvage(damaged, tmp_path / "new.scitq", SCHEMA)
    assert marks(tmp_path / "new.scitq") == before
    with scitq.open(tmp_path / "new.scitq", drive=False) as engine:
        engine.backup(tmp_path / "copy.scitq")
    assert marks(tmp_path / "copy.scitq") == before
