"""State files as each released schema left them are opened by the present code, and their tasks go on.

The files are in `files/`, made by `files/make.py`. A file of a schema that only a later scitq knows: test_connection.py.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from scitq.engine import Engine
from scitq.remote import local
from scitq.states import TaskState
from scitq.store import query
from scitq.store.connection import Store
from scitq.store.schema import SCHEMA
from tests.store.files.make import HERE, RELEASED, logs_of, told

STORED = {int(path.stem.removeprefix("schema-")): path for path in sorted(HERE.glob("schema-*.scitq"))}
AGAIN = (
    "the schema was changed: give it a new version, with a migration; or, if version {0} was not released yet, "
    "make its file anew: python tests/store/files/make.py"
)


@pytest.fixture(params=sorted(STORED))
def old_file(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A copy of a stored file with its logs; its agent is stopped at the end."""
    stored, copy = STORED[request.param], tmp_path / "lab.scitq"
    shutil.copyfile(stored, copy)
    shutil.copytree(logs_of(stored), logs_of(copy))
    yield copy
    if (tmp_path / "lab.scitq.d" / "local").is_dir():
        local.stop(tmp_path / "lab.scitq.d" / "local")


def contents(db: apsw.Connection) -> dict[str, list[Any]]:
    """Everything of a file that belongs to its schema: the SQL of it all, and the allowed moves."""
    found = {
        f"{kind} {name}": [sql]
        for kind, name, sql in query.rows(
            db, "select type, name, sql from sqlite_schema where name not like 'sqlite_%' and sql is not null"
        )
    }
    for table in ("task_move", "worker_move", "job_move"):
        found[f"rows of {table}"] = [*query.rows(db, f"select src, dst from {table} order by src, dst")]
    return found | {"auto_vacuum": [db.pragma("auto_vacuum")]}


def test_a_schema_is_not_changed_under_its_version(tmp_path: Path) -> None:
    stored = tmp_path / "stored.scitq"
    assert SCHEMA.version in STORED, f"no file of schema {SCHEMA.version} is kept: python tests/store/files/make.py"
    shutil.copyfile(STORED[SCHEMA.version], stored)
    with Store.open(stored, SCHEMA) as old, Store.open(tmp_path / "new.scitq", SCHEMA) as new:
        before, now = contents(old.reader()), contents(new.reader())
    differing = sorted(name for name in before | now if before.get(name) != now.get(name))
    assert not differing, f"{', '.join(differing)}: {AGAIN.format(SCHEMA.version)}"


def test_there_is_a_file_of_each_schema_and_released_ones_never_change() -> None:
    assert sorted(STORED) == list(range(1, SCHEMA.version + 1))
    assert {version: hashlib.sha256(STORED[version].read_bytes()).hexdigest() for version in RELEASED} == RELEASED


def test_a_stored_file_opens_and_says_what_it_said(old_file: Path, request: pytest.FixtureRequest) -> None:
    version = request.node.callspec.params["old_file"]
    with Engine(old_file, drive=False) as engine:
        assert engine.check() == []
        said = json.loads(STORED[version].with_suffix(".json").read_text())
        assert {key: value for key, value in told(engine).items() if key in said} == said
        assert query.one(engine._reader(), "pragma user_version") == (SCHEMA.version,)
        assert all(task.why() for task in engine.tasks())
        backups = list((engine.side / "backups").glob("*")) if version < SCHEMA.version else [old_file]
        assert len(backups) == 1


def test_what_a_stored_file_has_queued_goes_on(old_file: Path) -> None:
    with Engine(old_file) as engine:
        before = engine.counts()
        engine.task("debug").cancel()
        for task in engine.tasks(name="data"):  # its addresses lead nowhere
            task.cancel()
        engine.go_batch("held")
        for name in ("paused", "running"):
            engine.task(name).resume()
        for rule in engine.recruiters():  # its batch wants a larger machine than this one may be
            engine.recruiter_update(rule.batch_name, rule.rank, flavor="auto:cpu>=1")
        engine.task("failing").update(command="true")
        engine.task("failing").relaunch()
        ended = engine.wait_all(60)
        assert engine.check() == []
        assert sum(ended.values()) == sum(before.values())
        assert ended.keys() == {TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED}
        for name in ("waiting", "pending", "assigned", "staging", "running", "collecting", "paused", "halted"):
            assert engine.task(name).stdout() == f"{name}\n"
        assert engine.task("blocked").stdout() == "never\n"
        assert engine.task("given back").stdout() in ("edited\n", "given back\n")
        assert engine.submit("echo new").result(60).stdout == "new\n"
