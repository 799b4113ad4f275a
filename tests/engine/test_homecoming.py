"""What tasks leave on workers that cannot write here comes home: whole, once, wherever it was asked to be."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from scitq.engine import Engine
from scitq.errors import TaskFailed
from scitq.remote.agent.manifest import NAME, parse
from scitq.remote.link import Stream
from scitq.states import Outcome, TaskState
from tests.engine.conftest import Opener, sound
from tests.engine.far import World
from tests.engine.test_engine import WAIT_S, until
from tests.engine.test_fleet import add
from tests.engine.wires import Far, cut, far
from tests.remote.client import below

__all__ = ["far"]


def texts(folder: Path) -> dict[str, str]:
    """Every file there but the manifest."""
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in below(folder)
        if path.is_file() and path.name != NAME
    }


def test_a_chain_over_another_machine_needs_no_address_at_all(engine: Engine, far: Far, tmp_path: Path) -> None:
    engine.submit("true")
    wire = far(engine)
    made = "mkdir -p sub 'empty $x'; echo one > 'sub/a b%25 ü'; printf '#!/bin/sh\\necho ran\\n' > tool; chmod +x tool"
    first = engine.submit(f"cd $OUTPUT; {made}", shell=True)
    second = engine.submit("cat $INPUT/sub/*; $INPUT/tool; cp -r $INPUT/sub $OUTPUT/", shell=True, input=first.output)
    nothing = engine.submit("true", requires=[second])
    assert second.result(WAIT_S).stdout == "one\nran\n"
    nothing.result(WAIT_S)
    assert texts(engine.side / "outputs" / str(second.id)) == {"sub/a b%25 ü": "one\n"}
    assert os.access(engine.side / "outputs" / str(first.id) / "tool", os.X_OK)
    assert not (engine.side / "outputs" / str(nothing.id)).exists()
    assert os.listdir(engine.side / "incoming" / "exec") == []
    until(lambda: not list((wire.root / "kept").glob("*/unsent")), "a worker that need not keep anything")
    sound(engine)


def test_outputs_with_a_plain_address_are_put_there_with_their_manifest(
    engine: Engine, far: Far, tmp_path: Path
) -> None:
    engine.submit("true")
    far(engine)
    place, taken, mixed = (tmp_path / name for name in ("place", "taken", "mixed"))
    for folder in (taken, mixed):
        folder.mkdir()
        (folder / "theirs").write_text("theirs\n")
    plain = engine.submit("echo x > $OUTPUT/x", shell=True, output=place)
    empty = engine.submit("true", output=tmp_path / "empty")
    refused = engine.submit("echo x > $OUTPUT/x", shell=True, output=taken)
    merged = engine.submit("echo x > $OUTPUT/x", shell=True, output=mixed, overwrite=True)
    failed = engine.submit("echo x > $OUTPUT/x; exit 3", shell=True, output=tmp_path / "failed", keep_failed=True)
    for task in (plain, empty, merged):
        task.result(WAIT_S)
    with pytest.raises(TaskFailed, match="holds files that no task"):
        refused.result(WAIT_S)
    with pytest.raises(TaskFailed, match="3"):
        failed.result(WAIT_S)
    assert texts(place) == {"x": "x\n"} and texts(taken) == {"theirs": "theirs\n"}
    assert texts(mixed) == {"x": "x\n", "theirs": "theirs\n"}
    for folder in (place, tmp_path / "empty", mixed):
        manifest = parse((folder / NAME).read_bytes())
        assert manifest is not None and manifest.is_complete
    assert [texts(path) for path in (tmp_path / "failed.failed").iterdir()] == [{"x": "x\n"}]
    again = engine.submit("cat $INPUT/x", shell=True, input=plain.output)
    assert again.result(WAIT_S).stdout == "x\n"
    sound(engine)


def test_cut_in_the_middle_an_output_goes_on_where_it_was(
    engine: Engine, far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scitq.homecoming.PIECE_BYTES", 1 << 18)
    monkeypatch.setattr("scitq.homecoming.WINDOW_BYTES", 1 << 18)
    monkeypatch.setattr("scitq.homecoming.AGAIN_S", 0.01)
    fetched: list[str] = []

    def before(method: str, target: str) -> None:
        if target.startswith("/kept/"):
            fetched.append(target)
            if len(fetched) == 9:
                cut()

    engine.submit("true")
    far(engine).before = before
    task = engine.submit("seq 1 700000 > $OUTPUT/numbers; sha256sum < $OUTPUT/numbers", shell=True)
    expected = task.result(WAIT_S).stdout.split()[0]
    data = (engine.side / "outputs" / str(task.id) / "numbers").read_bytes()
    assert hashlib.sha256(data).hexdigest() == expected
    # Two pieces may have been on their way.
    assert len(fetched) <= -(-len(data) // (1 << 18)) + 3
    sound(engine)


def test_another_driver_goes_on_with_what_was_on_its_way(
    open_engine: Opener, far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scitq.homecoming.AGAIN_S", 0.05)
    engine = open_engine()
    engine.submit("true")
    wire = far(engine)
    tries: list[str] = []

    def before(method: str, target: str) -> None:
        if target.startswith("/kept/"):
            tries.append(target)
            cut()

    wire.before = before
    task = engine.submit("echo x > $OUTPUT/x; echo said", shell=True)
    until(lambda: bool(tries), "a try")
    assert task.state is TaskState.COLLECTING
    engine.close()
    wire.before = lambda method, target: None
    other = open_engine()
    again = other.task(task.id)
    assert again.result(WAIT_S).stdout == "said\n"
    assert texts(other.side / "outputs" / str(task.id)) == {"x": "x\n"}
    assert [one.outcome for one in again.executions] == [Outcome.SUCCEEDED]
    sound(other)


def test_what_is_lost_on_its_worker_is_made_again(engine: Engine, far: Far) -> None:
    engine.submit("true")
    wire = far(engine)
    has_lost: list[str] = []

    def lose(method: str, target: str) -> None:
        if target.startswith("/kept/") and not has_lost:
            has_lost.append(target)
            path = wire.root / "kept" / target.split("/")[2] / "output" / "x"
            path.chmod(0o644)
            path.write_text("tampered with\n")

    wire.before = lose
    task = engine.submit("echo x > $OUTPUT/x", shell=True)
    task.result(WAIT_S)
    assert [one.outcome for one in task.executions] == [Outcome.LOST, Outcome.SUCCEEDED]
    assert texts(engine.side / "outputs" / str(task.id)) == {"x": "x\n"}


def test_a_task_is_cancelled_while_its_output_comes(engine: Engine, far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scitq.homecoming.AGAIN_S", 0.05)

    def before(method: str, target: str) -> None:
        if target.startswith("/kept/"):
            cut()

    engine.submit("true")
    far(engine).before = before
    task = engine.submit("echo x > $OUTPUT/x", shell=True)
    until(lambda: task.state is TaskState.COLLECTING, "collecting")
    task.cancel()
    assert task.wait(WAIT_S) is TaskState.CANCELLED
    assert not (engine.side / "outputs" / str(task.id)).exists()
    sound(engine)


def test_names_that_lead_out_of_their_folder_are_refused() -> None:
    from scitq.store.held import _inside

    for name in ("../x", "/x", "a/../../x", "", "a//b", "x\0y", 3):
        with pytest.raises(ValueError):
            _inside(name)
    assert _inside("a b/ü") == "a b/ü"


def test_an_output_that_is_there_is_not_made_again_and_a_place_that_is_taken_is_refused_before_anything_runs(
    engine: Engine, far: Far, tmp_path: Path
) -> None:
    engine.submit("true")
    far(engine)
    ran = f"echo ran >> {tmp_path}/ran; echo x > $OUTPUT/x"
    first = engine.submit(ran, shell=True, output=tmp_path / "place")
    first.result(WAIT_S)
    again = engine.submit(ran, shell=True, output=tmp_path / "place", skip_if_exists=True)
    again.result(WAIT_S)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "theirs").touch()
    refused = engine.submit(ran, shell=True, output=tmp_path / "taken")
    with pytest.raises(TaskFailed, match="holds files that no task"):
        refused.result(WAIT_S)
    assert (tmp_path / "ran").read_text() == "ran\n"
    sound(engine)


def test_what_another_task_left_on_the_same_worker_is_read_there_and_not_sent_again(
    engine: Engine, far: Far, tmp_path: Path
) -> None:
    engine.submit("true")
    wire = far(engine, "one")
    first = engine.submit("mkdir $OUTPUT/sub; echo x > $OUTPUT/sub/x; echo y > $OUTPUT/y", shell=True)
    placed = engine.submit("echo p > $OUTPUT/p", shell=True, output=tmp_path / "place")
    inputs = [first.output / "sub", first.output / "*", placed.output]
    second = engine.submit(
        "cd $INPUT; cat $(find . -type f | sort)", shell=True, input=inputs, resource=first.output / "y"
    )
    assert second.result(WAIT_S).stdout == "p\nx\nx\ny\n"
    assert wire.pieces == []
    # On another worker it is not.
    other = far(engine, "two")
    engine._store.write(lambda db: db.execute("update worker set concurrency = 0 where name = 'one'"))
    third = engine.submit("cat $INPUT/x $RESOURCE/p", shell=True, input=first.output / "sub", resource=placed.output)
    assert third.result(WAIT_S).stdout == "x\np\n"
    assert wire.pieces == [] and len(other.pieces) == 2
    sound(engine)


def test_what_follows_on_a_worker_reads_there_what_was_left_while_nobody_drives(
    open_engine: Opener, world: World, tmp_path: Path
) -> None:
    engine = open_engine()
    add(engine, "atlas", concurrency=2)
    gate = tmp_path / "gate"
    wait = f"until [ -e {gate} ]; do sleep 0.02; done"
    first = engine.submit(f"{wait}; mkdir $OUTPUT/sub; echo x > $OUTPUT/sub/x", shell=True)
    nothing = engine.submit(wait, shell=True)
    placed = engine.submit(
        "cat $INPUT/x > $OUTPUT/y", shell=True, input=first.output / "sub", output=tmp_path / "place", overwrite=True
    )
    last = engine.submit(
        "find $INPUT -type f | wc -l; cat $INPUT/y $RESOURCE/sub/x", shell=True, input=[placed.output, nothing.output],
        resource=first.output,
    )  # fmt: skip
    until(lambda: first.state is TaskState.RUNNING, "it runs")
    told = engine.handoff(hours=8, timeout=WAIT_S)
    assert (told["workers"][0]["after"], told["left"], told["tied"]) == (2, 0, 0)
    engine.close()
    gate.touch()
    stream = Stream.to_socket(world.host("atlas").folder)
    until(lambda: stream.ask("GET", "/held").json()["held"] == {}, "all is done there, with nobody driving")
    stream.close()
    again = open_engine()
    again.drive()
    assert again.task(int(last.id)).result(WAIT_S).stdout == "1\nx\nx\n"
    again.task(int(placed.id)).result(WAIT_S)
    assert texts(tmp_path / "place") == {"y": "x\n"}
    sound(again)
