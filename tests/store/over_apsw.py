"""A pytest plugin for sqlite-utils' own test suite: writes down what passed, and can put our adapter under it.

Loaded with `-p` into a process of its own (test_sqlite_utils_suite), never into ours.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import types
from pathlib import Path
from typing import Any

import pytest

_outcomes: dict[str, str] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        _outcomes[report.nodeid] = report.outcome


def pytest_sessionfinish() -> None:
    Path(os.environ["SUITE_REPORT"]).write_text(json.dumps(_outcomes), encoding="utf-8")


def _module(name: str, like: types.ModuleType) -> types.ModuleType:
    made = types.ModuleType(name)
    vars(made).update({key: value for key, value in vars(like).items() if not key.startswith("__")})
    sys.modules[name] = made
    return made


def _install() -> None:
    # sqlite-utils takes pysqlite3, when there is one, for the standard library's module.
    shim = _module("pysqlite3", sqlite3)
    vars(shim)["dbapi2"] = _module("pysqlite3.dbapi2", sqlite3.dbapi2)
    import apsw

    from scitq.store.analysis.adapter import Connection, Translated

    def connect(name: Any, timeout: float = 5.0, isolation_level: str | None = "", uri: bool = False, **_: Any) -> Any:
        text = os.fspath(name)
        if uri and "mode=memory" in text:  # apsw has no shared cache; a named file in memory is the same to a test
            text = f"file:/{text.removeprefix('file:').partition('?')[0]}?vfs=memdb"
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | (apsw.SQLITE_OPEN_URI if uri else 0)
        with Translated():
            db = apsw.Connection(text, flags=flags)
        db.set_busy_timeout(int(timeout * 1000))
        return Connection(db, isolation_level=isolation_level)

    version = apsw.sqlite_lib_version()
    vars(shim).update(
        connect=connect,
        Connection=Connection,
        sqlite_version=version,
        sqlite_version_info=tuple(map(int, version.split("."))),
    )


if os.environ.get("SUITE_OVER_APSW"):
    _install()
