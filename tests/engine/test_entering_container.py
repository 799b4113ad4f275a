"""Stepping into what a task in a container left: the same image, mounts, environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from scitq import foreground
from scitq.engine import Engine
from scitq.remote.agent import machine
from tests.containers import IMAGE, Dockerd, Podman
from tests.engine.test_engine import WAIT_S

pytestmark = pytest.mark.servers


def test_the_same_image_mounts_and_environment(
    containers: Dockerd | Podman, engine: Engine, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "reads").write_text("ACGT\n")
    (tmp_path / "index").write_text("all of it\n")
    engine.submit("true").result(WAIT_S)
    engine.update_worker("local", container_engine=containers.name)
    task = engine.submit(
        "cat /input/reads; echo tmp > /temp/t; cat /no/such", shell=True, container=IMAGE, input="reads", resource="index",
        env={"SAMPLE": "s 07\nof 9"}, cpus=1, container_options="--network none --hostname lab",
    )  # fmt: skip
    task.wait(WAIT_S)
    assert task.status == "failed"
    capfd.readouterr()
    said = (
        "cat /input/reads /resource/index /temp/t /work/command.sh; echo \"$SAMPLE\" $CPU $OUTPUT $SCITQ_TASK; pwd; hostname;"
        " echo new > /output/x; echo x >> /resource/index; exit 5"
    )  # fmt: skip
    assert task.enter(said) == 5
    found = capfd.readouterr()
    assert found.out == (
        "ACGT\nall of it\ntmp\ncat /input/reads; echo tmp > /temp/t; cat /no/such\n"
        f"s 07\nof 9 1 /output {task.id}\n/work\nlab\n"
    )
    assert "Read-only file system" in found.err
    assert task.enter("sh $COMMAND") == 1
    assert "ACGT\n" in capfd.readouterr().out
    assert task.enter("sed -i 's/; cat .no.such//' command.sh") == 0
    task.adopt(relaunch=True)
    assert task.result(WAIT_S).stdout == "ACGT\n"
    assert not [name for name in containers.containers() if "entered" in name]


def test_one_that_wrote_nothing_can_be_entered_in_its_container_too(
    dockerd: Dockerd, engine: Engine, capfd: pytest.CaptureFixture[str]
) -> None:
    dockerd.make_image("with-folder:test", "WORKDIR /data")
    task = engine.submit("false", container="with-folder:test")
    task.wait(WAIT_S)
    capfd.readouterr()
    assert task.enter("pwd; cat $COMMAND; ls /input /temp | wc -l") == 0
    assert capfd.readouterr().out.split() == ["/data", "false", "3"]


def test_in_the_foreground_it_runs_in_its_image_too(
    containers: Dockerd | Podman, engine: Engine, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "reads").write_text("ACGT\n")
    gate = engine.submit("false")
    task = engine.submit(
        "cat /input/reads; echo $SAMPLE $CPU; echo x > /output/out; exit 4", shell=True, container=IMAGE, input="reads",
        env={"SAMPLE": "s 07"}, requires=gate, container_options="--network none",
    )  # fmt: skip
    said: list[str] = []
    code = foreground.run(engine, task.id, tmp_path, said.append, container_engine=containers.name)
    assert (code, capfd.readouterr().out) == (4, f"ACGT\ns 07 {machine.cpus()}\n")
    assert (tmp_path / f"task-{task.id}" / "output" / "out").read_text() == "x\n"
    assert task.executions == []
    assert containers.containers() == []
