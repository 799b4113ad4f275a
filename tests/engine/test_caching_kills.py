"""A driver killed at any step of its work on the cache: the next one finds out again what was not written, and nothing twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.engine.conftest import Opener, sound

WAIT_S = 60
# Kills its process at the first call of a function, before or after it.
PROGRAM = """
import importlib, os, signal, sys
import scitq, scitq.driver, scitq.probing
path, script, where, when = sys.argv[1:]
module, name = where.rsplit(".", 1)
module = importlib.import_module(module)
real = getattr(module, name)
def killing(*given, **named):
    if when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    done = real(*given, **named)
    os.kill(os.getpid(), signal.SIGKILL)
    return done
setattr(module, name, killing)
with scitq.open(path, use_cache=True) as q:
    source = q.submit("echo one > $OUTPUT/file; seq 1 9000", shell=True)
    for _ in range(2):
        q.submit(script, shell=True, input=source.output)
    q.wait_all(60)
"""
POINTS = (
    "scitq.identities.look", "scitq.store.cache.put_fingerprints", "scitq.store.cache.missed", "scitq.store.cache.turn_away",
    "scitq.store.cache.record", "scitq.store.cache.release_twins", "scitq.reuse.verify", "scitq.reuse._link_or_copy",
    "scitq.reuse.bring", "scitq.store.cache.hit",
)  # fmt: skip
# After the others nothing has happened that would not have before the next.
AFTER = ("record", "bring", "hit")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "when"),
    [
        *((where, "before") for where in POINTS),
        *((where, "after") for where in POINTS if where.rpartition(".")[2] in AFTER),
    ],
)
def test_killed_anywhere_the_result_is_taken_all_the_same(
    open_engine: Opener, state_file: Path, tmp_path: Path, where: str, when: str
) -> None:
    script = f"echo x >> {tmp_path}/runs; cat $INPUT/file > $OUTPUT/copy; seq 1 9000"
    command = [sys.executable, "-c", PROGRAM, str(state_file), script, where, when]
    ended = subprocess.run(command, capture_output=True, timeout=WAIT_S)
    assert ended.returncode == -9, ended.stderr.decode()
    with open_engine() as engine:
        engine.drive()
        tasks = engine.tasks()
        while len(tasks) < 3:  # it was killed while it submitted
            more: dict[str, Any] = {"input": tasks[0].output} if tasks else {}
            engine.submit(
                script if tasks else "echo one > $OUTPUT/file; seq 1 9000", shell=True, use_cache=True, **more
            )
            tasks = engine.tasks()
        results = [task.result(WAIT_S) for task in tasks]
        assert results[1].stdout == results[2].stdout == "".join(f"{n}\n" for n in range(1, 9001))
        assert [(Path(task.output) / "copy").read_text() for task in tasks[1:]] == ["one\n"] * 2  # type: ignore[arg-type]
        assert (tmp_path / "runs").read_text() == "x\n"
        assert [len([row for row in task.executions if row.outcome == 0]) for task in tasks] == [1, 1, 1]
        assert not [path for path in (engine.side / "outputs").iterdir() if path.name.startswith(".") and path.is_dir()]
        sound(engine)


__all__ = ["Opener"]
