"""Stepping into what a task left on another host, by the user's own ssh."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scitq.engine import Engine
from scitq.remote import local
from tests.engine.test_engine import WAIT_S, until
from tests.hosts.cloud import Cloud
from tests.hosts.host import Host
from tests.shell.conftest import Lab
from tests.workflow.terminal import Terminal

pytestmark = pytest.mark.servers


@pytest.fixture
def engine(state_file: Path) -> Iterator[Engine]:
    """An engine whose own machine's worker does nothing."""
    with Engine(state_file) as engine:
        engine.drive()
        until(lambda: bool(engine.workers()), "the local worker")
        engine.worker_pause("local")
        yield engine
        engine.cancel_all(None)
    if (engine.side / "local").is_dir():
        local.stop(engine.side / "local")


def test_a_shell_on_the_host_where_it_failed_and_its_command_mended_there(
    engine: Engine, cloud: Cloud, host: Host, tmp_path: Path
) -> None:
    (tmp_path / "reads").write_text("ACGT\n")
    engine.worker_add(host.name, concurrency=1)
    engine.worker_ready(host.name, WAIT_S)
    task = engine.submit(
        "cat $INPUT/reads; echo $SAMPLE > half; exit 3", shell=True, input="reads", env={"SAMPLE": "s07"}
    )
    until(lambda: task.status == "failed", "its end")
    lab = Lab(tmp_path)
    lab.environ["SCITQ_SSH"] = f"ssh -F {cloud.folder / 'ssh_config'} -o BatchMode=yes"
    said = "hostname; cat $INPUT/reads half; echo $SAMPLE; ls; exit 5"
    ended = lab.scitq("-f", str(engine.path), "task", "enter", str(task.id), "--command", said, code=5)
    assert ended.stdout.decode() == f"{host.name}\nACGT\ns07\ns07\ncommand.sh\nhalf\n"
    words = [sys.executable, "-m", "scitq", "-f", str(engine.path), "task", "enter", str(task.id)]
    with Terminal(words, folder=tmp_path, environ=lab.environ, columns=140, rows=40) as terminal:
        terminal.wait_for(rf"^Sandbox of .* on {host.name}, kept .*\nIts command: sh command.sh$")
        terminal.wait_for(rf"^\[scitq task {task.id}\] .*[#$]$")
        terminal.type("stty size; sed -i 's/exit 3/exit 0/' command.sh; sh command.sh && exit 0\r")
        terminal.wait_for(r"^40 140\nACGT$")
        terminal.wait_for(r"^command.sh changed \(1 line\). Adopt it for")
        terminal.type("t\r")
        terminal.wait_for(r"Relaunch it now\?")
        terminal.press("enter")
        assert terminal.wait_end() == 0
    assert task.result(WAIT_S).stdout == "ACGT\n"
    assert task.row().spec.command == "cat $INPUT/reads; echo $SAMPLE > half; exit 0"
