"""The examples of --help that take a host: run as they stand there, with a real one of that name."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from scitq.shell.table import COMMANDS
from tests.hosts.cloud import Cloud
from tests.hosts.host import Host
from tests.shell.conftest import Lab, lab
from tests.shell.schemas import conforms

__all__ = ["lab"]

pytestmark = pytest.mark.servers

EXAMPLES = {row.path: row.examples for row in COMMANDS}


@pytest.fixture
def atlas(cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A host of the name that the examples use, which nobody here knows yet."""
    host = cloud.boot("atlas")
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "config").write_text(cloud.configuration(host, UserKnownHostsFile=str(tmp_path / "known")))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    yield host
    cloud.delete(host)


def test_examples_about_a_host_work_as_they_stand(atlas: Host, lab: Lab) -> None:
    lab.environ["SCITQ_SSH"] = f"ssh -F {Path.home() / '.ssh' / 'config'} -o BatchMode=yes -o StrictHostKeyChecking=no"
    for path in ("worker trust", "worker add", "worker shell", "worker delete"):
        for line in EXAMPLES[path]:
            words = shlex.split(line)[1:]
            if path != "worker shell":
                conforms(path, json.loads(lab.scitq("--json", *words).stdout))
            else:
                lab.scitq(*words)
        if path == "worker delete":
            assert not atlas.processes("agent")
