"""Containers as the engine has them: what is asked, kept, edited and ordered. Running one is tested with the agent."""

from __future__ import annotations

from typing import Any

import pytest

from scitq.driver import Driver
from scitq.engine import Engine
from scitq.errors import BadInput, NotSupported
from scitq.store import executions
from scitq.task import Assignment
from tests.engine.conftest import Opener


@pytest.fixture
def still(open_engine: Opener) -> Engine:
    """A file that nobody drives."""
    return open_engine(drive=False)


def order_of(engine: Engine, **given: Any) -> dict[str, Any]:
    """What a worker would be told of a task."""
    task = engine.submit(**given)
    engine._write(
        lambda db: db.execute(
            "insert or ignore into worker(id, name, kind, state, concurrency, created) values (1, 'w', 'local', 3, 1, 0)"
        )
    )
    (order,) = engine._write(lambda db: executions.begin(db, 0, [Assignment(task.id, 1, gpus=("0",))]))
    return Driver(engine._store)._order(engine._reader(), order)


def test_a_container_is_ordered_as_it_was_asked(still: Engine) -> None:
    order = order_of(
        still, command="nvidia-smi", container="nvcr.io/nvidia/pytorch:23.05-py3", container_options="--gpus all"
    )

    assert (order["image"], order["options"]) == ("nvcr.io/nvidia/pytorch:23.05-py3", ["--gpus", "all"])
    assert order["argv"] == ["nvidia-smi"] and order["gpus"] == ["0"]
    assert "cwd" not in order and "base" not in order  # this machine's folder and PATH are not the image's


def test_a_task_without_a_container_has_nothing_of_one(still: Engine) -> None:
    assert not {"image", "options", "registry"} & order_of(still, command="true").keys()


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"container": "no image"}, "not the name of an image"),
        ({"container_options": "--gpus all"}, "give container= too"),
        ({"container": "ubuntu", "container_options": "--rm"}, "cannot be given"),
        ({"container": ""}, "not the name of an image"),
    ],
)
def test_a_container_that_makes_no_sense_is_refused_at_submission(
    still: Engine, given: dict[str, Any], problem: str
) -> None:
    with pytest.raises(BadInput, match=problem):
        still.submit("true", **given)
    with pytest.raises(BadInput, match=problem):
        still.submit_many(["true"], **given)
    assert still.tasks() == []


def test_a_batch_has_a_container_for_its_tasks_and_options_for_those_that_run_in_one(still: Engine) -> None:
    assert still.set_batch("gpu", container_options="--gpus all") == {"container_options": ["--gpus", "all"]}
    plain, other = still.submit("true", batch="gpu"), still.submit("true", batch="gpu", container="ubuntu")
    still.set_batch("gpu", container="debian")
    default = still.submit("true", batch="gpu")
    own = still.submit("true", batch="gpu", container_options=["--network", "none"])

    found = [(task.row().spec.container, task.row().spec.container_options) for task in (plain, other, default, own)]
    assert found == [
        (None, ()), ("ubuntu", ["--gpus", "all"]), ("debian", ["--gpus", "all"]), ("debian", ["--network", "none"]),
    ]  # fmt: skip
    with pytest.raises(BadInput, match="not the name of an image"):
        still.set_batch("gpu", container="No")


def test_the_container_of_a_task_is_edited_and_taken_away(still: Engine) -> None:
    task = still.submit("true", container="ubuntu", container_options="--gpus 1")
    task.update(container="debian:12")
    assert (task.row().spec.container, task.row().spec.container_options) == ("debian:12", ["--gpus", "1"])
    task.update(container_options=["--network", "none"])
    assert task.row().spec.need is None
    task.update(container=None)
    assert (task.row().spec.container, task.row().spec.container_options) == (None, ())
    with pytest.raises(BadInput, match="give container= too"):
        task.update(container_options="--gpus 1")


def test_calls_of_functions_are_not_made_in_containers_yet(still: Engine) -> None:
    with pytest.raises(NotSupported, match="calls of functions"):
        still.executor(container="python:3.12")
    still.set_batch("default", container="python:3.12")
    with pytest.raises(NotSupported, match="calls of functions"):
        still.executor()


def test_a_task_whose_container_asks_for_gpus_waits_for_a_worker_that_has_some(engine: Engine) -> None:
    first = engine.submit("true")
    first.wait(30)
    task = engine.submit("true", container="ubuntu", container_options="--gpus all")
    engine._wait_for(lambda: 0 if "no worker has GPUs" in task.why() else 1, 30, "the reason")

    assert "no worker has GPUs: local has" in task.why() and "add a worker that has it" in task.why()
    assert task.status == "pending"
