"""What ships with tasks goes when the last task that needs it has gone; never before."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from scitq.engine import Engine
from scitq.store import keep, sweeping
from scitq.store.sweeping import CODE, YOUNG_S, sweep_code
from scitq.workflow import code
from scitq.workflow.code import shell_code
from tests.workflow.conftest import Maker

STRAY = f"{'0' * 32}.pyz"


def _folder(engine: Engine) -> Path:
    return engine.side.joinpath(*CODE)


def _shipped(engine: Engine) -> set[str]:
    return {path.name for path in _folder(engine).iterdir()}


def _age(engine: Engine) -> None:
    long_ago = time.time() - 2 * YOUNG_S
    for path in _folder(engine).iterdir():
        os.utime(path, (long_ago, long_ago))


def test_what_no_task_needs_is_swept_when_nothing_else_is_to_be_done(still: Maker, idle: Engine) -> None:
    wf = still()
    wf.step("a", shell_code(": " + "x" * 40_000), name="long")
    wf.start()
    [needed] = _shipped(idle)
    code.keep(idle.side, STRAY, b"packed")
    (_folder(idle) / f".{STRAY}.1234.new").write_bytes(b"hal")
    assert sweep_code(idle._store, time.time()) == 0  # a task that needs it may be on its way
    _age(idle)
    code.keep(idle.side, STRAY, b"packed")  # once more

    assert sweep_code(idle._store, time.time()) == 0 and _shipped(idle) == {needed, STRAY}
    _age(idle)
    keep.when_idle(idle._store, time.time() + 2 * YOUNG_S)
    thread = keep._chores[idle._store].thread
    assert thread is not None
    thread.join(60)
    assert _shipped(idle) == {needed}
    idle.task("long").delete()
    assert sweep_code(idle._store, time.time()) == 1 and _shipped(idle) == set()


def test_what_is_shipped_again_while_it_is_swept_stays(idle: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    code.keep(idle.side, STRAY, b"packed")
    _age(idle)
    look = sweeping._needed

    def needed(store: object) -> set[str]:
        found = look(idle._store)
        code.keep(idle.side, STRAY, b"packed")
        return found

    monkeypatch.setattr(sweeping, "_needed", needed)
    assert sweep_code(idle._store, time.time()) == 0 and _shipped(idle) == {STRAY}


def test_a_sweep_that_was_killed_takes_nothing_away(idle: Engine) -> None:
    code.keep(idle.side, STRAY, b"packed")
    aside = _folder(idle) / f".{STRAY}.old"
    (_folder(idle) / STRAY).rename(aside)
    assert sweep_code(idle._store, time.time()) == 0 and _shipped(idle) == {STRAY}
    (_folder(idle) / STRAY).rename(aside)
    code.keep(idle.side, STRAY, b"packed")  # written anew meanwhile
    assert sweep_code(idle._store, time.time()) == 0 and _shipped(idle) == {STRAY}
